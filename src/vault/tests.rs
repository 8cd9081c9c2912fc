//! The vault by itself: what opens, and everything that must not.

use proptest::prelude::*;
use serde_json::json;

use super::*;

const APP: AppNo = AppNo(3);

fn master(n: u8) -> MasterKey {
    MasterKey::new([n; KEY])
}

fn vault(masters: Masters) -> Vault {
    Vault::new(masters, [9; 32])
}

fn one(n: u8) -> Vault {
    vault(Masters::one(master(n)))
}

fn two(primary: u8, other: u8) -> Vault {
    let text = format!("{}\n{}", *master(primary).text(), *master(other).text());
    vault(Masters::parse(&text, "a test").unwrap())
}

fn endpoint() -> Value {
    json!({
        "no": 7, "app": APP.0, "url": "https://a.example/", "secret": "whsec_first",
        "old_secrets": [{"secret": "whsec_second", "expires": 5}],
        "headers": {"authorization": "Bearer third", "x-a": ""},
    })
}

const ROW: (ConfigKind, &[u8]) = (ConfigKind::Endpoint, &[0, 0, 0, 7]);

/// A ring with a data key for `APP`, and the row it is stored as.
fn ring(vault: &Vault) -> (Keyring, DataKeyRow) {
    let mut ring = Keyring::default();
    let row = vault.make(&mut ring, APP).unwrap();
    (ring, row)
}

fn sealed(vault: &Vault, ring: &Keyring) -> Value {
    let mut row = endpoint();
    vault.seal(ring, ROW, &mut row).unwrap();
    row
}

#[test]
fn what_was_sealed_opens_and_shows_nothing_meanwhile() {
    let vault = one(1);
    let (ring, _) = ring(&vault);
    let mut row = sealed(&vault, &ring);
    let text = row.to_string();
    for secret in ["whsec_", "first", "second", "third", "Bearer"] {
        assert!(!text.contains(secret), "{secret} in {text}");
    }
    assert!(text.contains("https://a.example/"));
    assert_eq!(vault.open(&ring, ROW, &mut row).unwrap(), 0);
    assert_eq!(row, endpoint());
}

#[test]
fn a_row_from_before_the_vault_is_read_as_it_is_and_counted() {
    let vault = one(1);
    let mut row = endpoint();
    let clear = vault.open(&Keyring::default(), ROW, &mut row).unwrap();
    assert_eq!((clear, row), (4, endpoint()));
}

#[test]
fn a_ciphertext_in_another_place_stays_closed() {
    let vault = one(1);
    let (mut ring, _) = ring(&vault);
    let good = sealed(&vault, &ring);
    // Another field of the same row.
    let mut swapped = good.clone();
    swapped["secret"] = good["headers"]["authorization"].clone();
    assert!(matches!(
        vault.open(&ring, ROW, &mut swapped),
        Err(Error::Sealed { .. })
    ));
    // Another row.
    let other = (ConfigKind::Endpoint, &[0, 0, 0, 8][..]);
    assert!(matches!(
        vault.open(&ring, other, &mut good.clone()),
        Err(Error::Sealed { .. })
    ));
    // Another application, which has a data key of its own and is told the number of the first.
    vault.make(&mut ring, AppNo(4)).unwrap();
    let mut moved = good;
    moved["app"] = json!(4);
    assert!(matches!(
        vault.open(&ring, ROW, &mut moved),
        Err(Error::NoDataKey { no: 1, .. })
    ));
    for field in ["secret", "old_secrets", "headers"] {
        let text = moved[field].to_string().replace("\"key\":1", "\"key\":2");
        moved[field] = serde_json::from_str(&text).unwrap();
    }
    assert!(matches!(
        vault.open(&ring, ROW, &mut moved),
        Err(Error::Sealed { .. })
    ));
}

#[test]
fn a_cut_or_changed_ciphertext_is_an_error_and_no_panic() {
    let vault = one(1);
    let (ring, row) = ring(&vault);
    let (no, whole) = place::read(&sealed(&vault, &ring)["secret"]).unwrap();
    for length in 0..whole.len() {
        let mut cut = sealed(&vault, &ring);
        cut["secret"] = place::sealed(no, &whole[..length]);
        assert!(vault.open(&ring, ROW, &mut cut).is_err(), "cut to {length}");
    }
    for at in 0..whole.len() {
        let mut bytes = whole.clone();
        bytes[at] ^= 1;
        let mut changed = sealed(&vault, &ring);
        changed["secret"] = place::sealed(no, &bytes);
        assert!(
            vault.open(&ring, ROW, &mut changed).is_err(),
            "changed at {at}"
        );
    }
    for form in [
        json!(null),
        json!({}),
        json!({"sealed": 2, "key": 1, "text": ""}),
        json!([1]),
    ] {
        let mut odd = endpoint();
        odd["secret"] = form;
        assert!(matches!(
            vault.open(&ring, ROW, &mut odd),
            Err(Error::Form { .. })
        ));
    }
    let mut stolen = row;
    stolen.app = AppNo(4);
    let admitted = vault.admit(&mut Keyring::default(), stolen);
    assert!(matches!(admitted, Err(Error::Wrapped { no: 1, .. })));
}

#[test]
fn another_master_key_opens_nothing_and_the_error_names_the_one_that_is_missing() {
    let (_, row) = ring(&one(1));
    let refused = one(2).admit(&mut Keyring::default(), row).unwrap_err();
    let text = refused.to_string();
    assert!(
        text.contains(master(1).id()) && text.contains(master(2).id()),
        "{text}"
    );
}

#[test]
fn a_new_master_key_takes_over_without_touching_a_secret() {
    let old = one(1);
    let (ring, row) = ring(&old);
    let mut secret = sealed(&old, &ring);
    let both = two(2, 1);
    let mut ring = Keyring::default();
    both.admit(&mut ring, row).unwrap();
    let rows = both.rewrap(&mut ring).unwrap();
    assert_eq!(rows.len(), 1);
    assert!(
        both.rewrap(&mut ring).unwrap().is_empty(),
        "all are wrapped by the primary"
    );
    let new = one(2);
    let mut ring = Keyring::default();
    new.admit(&mut ring, rows[0].clone()).unwrap();
    new.open(&ring, ROW, &mut secret).unwrap();
    assert_eq!(secret, endpoint());
    assert!(matches!(
        old.admit(&mut Keyring::default(), rows[0].clone()),
        Err(Error::NoMaster { .. })
    ));
}

#[test]
fn a_new_data_key_seals_and_the_old_one_still_opens() {
    let vault = one(1);
    let (mut ring, _) = ring(&vault);
    let mut before = sealed(&vault, &ring);
    vault.make(&mut ring, APP).unwrap();
    let after = sealed(&vault, &ring);
    assert_eq!(
        (
            before["secret"]["key"].clone(),
            after["secret"]["key"].clone()
        ),
        (json!(1), json!(2))
    );
    assert_eq!(vault.open(&ring, ROW, &mut before).unwrap(), 0);
}

#[test]
fn keys_are_read_in_every_form_and_never_shown() {
    let key = master(7);
    let hex: String = [7_u8; KEY]
        .iter()
        .map(|byte| format!("{byte:02X}"))
        .collect();
    let text = key.text();
    for form in [text.as_str(), text.strip_prefix("phv_").unwrap(), &hex] {
        assert_eq!(MasterKey::parse(form).unwrap().id(), key.id());
    }
    for bad in [
        "",
        "phv_",
        "phv_AAAA",
        hex.get(1..).unwrap(),
        "g".repeat(64).as_str(),
    ] {
        assert!(MasterKey::parse(bad).is_none(), "{bad}");
    }
    let masters = Masters::parse(
        &format!("# old\n {} # new\n\n{hex},", *master(8).text()),
        "f",
    )
    .unwrap();
    assert_eq!(masters.ids(), [master(8).id(), key.id()]);
    assert!(!format!("{masters:?} {:?}", one(7)).contains("BwcH"));
    assert!(matches!(
        Masters::parse("# nothing\n", "f"),
        Err(KeyError::Empty(_))
    ));
    assert!(matches!(
        Masters::parse("hunter2", "f"),
        Err(KeyError::NoKey(_))
    ));
}

#[test]
fn the_first_place_that_has_a_key_is_taken_and_one_is_made_only_for_an_unsealed_store() {
    let dir = tempfile::tempdir().unwrap();
    let mut given = Given {
        file: Given::beside(&dir.path().join("data/")),
        ..Given::default()
    };
    assert_eq!(given.file, dir.path().join("data.vault-key"));
    assert!(matches!(
        given.find(true, [5; KEY]),
        Err(KeyError::Missing(_))
    ));
    let made = given.find(false, [5; KEY]).unwrap();
    assert!(made.is_new && made.masters.primary().id() == master(5).id());
    let mode = std::os::unix::fs::MetadataExt::mode(&std::fs::metadata(&given.file).unwrap());
    assert_eq!(mode & 0o777, 0o600);
    let again = given.find(true, [6; KEY]).unwrap();
    assert!(!again.is_new && again.masters.primary().id() == master(5).id());
    given.credentials = Some(dir.path().to_owned());
    std::fs::write(dir.path().join("vault-key"), master(4).text().as_bytes()).unwrap();
    assert_eq!(
        given.find(true, [6; KEY]).unwrap().masters.primary().id(),
        master(4).id()
    );
    given.variable = Some(master(3).text());
    assert_eq!(
        given.find(true, [6; KEY]).unwrap().masters.primary().id(),
        master(3).id()
    );
}

proptest! {
    #[test]
    fn any_text_comes_back(text in "\\PC*", no in any::<u32>(), app in any::<u32>()) {
        let vault = one(1);
        let mut ring = Keyring::default();
        vault.make(&mut ring, AppNo(app)).unwrap();
        let key = no.to_be_bytes();
        let original = json!({"app": app, "secrets": {"signing": [{"secret": text}]}});
        let mut row = original.clone();
        vault.seal(&ring, (ConfigKind::Source, &key), &mut row).unwrap();
        prop_assert_ne!(&row, &original);
        vault.open(&ring, (ConfigKind::Source, &key), &mut row).unwrap();
        prop_assert_eq!(row, original);
    }

    #[test]
    fn foreign_bytes_never_open(bytes in proptest::collection::vec(any::<u8>(), 0..80)) {
        let vault = one(1);
        let (ring, _) = ring(&vault);
        let mut row = endpoint();
        row["secret"] = place::sealed(1, &bytes);
        prop_assert!(vault.open(&ring, ROW, &mut row).is_err());
    }
}
