//! Known answers of `docs/signatures.md`, rotation, and what is refused.

use std::time::Duration;

use ed25519_dalek::Verifier as _;

use super::*;

const ID_TEXT: &str = "msg_27UH4WbU6Z5A5EzD8u03UvzRbpk";
const AT: Timestamp = Timestamp::from_millis(1_649_367_553_000);
const BODY: &[u8] = br#"{"email":"test@example.com","username":"test_user"}"#;
const SECRET: &str = "whsec_C2FVsBQIhrscChlQIMV+b5sSYspob7oD";
const SEED: &str = "whsk_AAECAwQFBgcICQoLDA0ODxAREhMUFRYXGBkaGxwdHh8=";
const V1: &str = "v1,tZ1I4/hDygAJgO5TYxiSd6Sd0kDW6hPenDe+bTa3Kkw=";
const V1A: &str =
    "v1a,CnkujwXFUOk59gNZFCCzmJ2MkkC0yKa+OmyYFXFtPnxkRhEkUBAd4PGNNNjLh4huOXNuqy+Eyxud5+wHP2ezBA==";
const HEX: &str = "sha256=e0fc16c6d4a28f39a6e0935569f05d86e87367db24a4b6d9271215c603e49f6a";
const TIMESTAMPED: &str =
    "t=1649367553,v1=996637d7f89ef8f7b59f7faaf5341457472e823d8ca666d16b7bbd1dc831721d";

fn secret(text: &str) -> Secret {
    Secret::new(text.to_owned())
}

fn old(text: &str, expires: Timestamp) -> OldSecret {
    OldSecret {
        secret: secret(text),
        expires,
    }
}

fn sign(profile: &Profile, current: &str, old: &[OldSecret], at: Timestamp) -> Headers {
    let mut out = Vec::new();
    Signer::new(profile, &secret(current), old)
        .unwrap()
        .headers(ID_TEXT, "user.created", at, BODY, &mut out);
    out
}

fn value<'a>(headers: &'a Headers, name: &str) -> Option<&'a str> {
    let mut found = headers.iter().filter(|(n, _)| n == name);
    let (_, value) = found.next()?;
    assert!(found.next().is_none(), "{name} is there twice");
    value.to_str().ok()
}

fn hex_profile(also_standard: bool, key: HexKey) -> Profile {
    Profile::Hex(HexProfile {
        header: String::from("X-Webhook-Signature"),
        prefix: String::from("sha256="),
        type_header: Some(String::from("X-Webhook-Event-Type")),
        id_header: Some(String::from("X-Webhook-Event-Id")),
        timestamp_header: Some(String::from("X-Webhook-Time")),
        key,
        also_standard,
    })
}

#[test]
fn v1_matches_the_published_vector() {
    let headers = sign(&Profile::Standard, SECRET, &[], AT);
    assert_eq!(headers.len(), 3);
    assert_eq!(value(&headers, "webhook-id"), Some(ID_TEXT));
    assert_eq!(value(&headers, "webhook-timestamp"), Some("1649367553"));
    assert_eq!(value(&headers, "webhook-signature"), Some(V1));
    let bare = SECRET.strip_prefix("whsec_").unwrap();
    let headers = sign(&Profile::Standard, bare, &[], AT);
    assert_eq!(value(&headers, "webhook-signature"), Some(V1));
}

#[test]
fn v1a_matches_the_vector_and_its_public_key_verifies() {
    let headers = sign(&Profile::Standard, SEED, &[], AT);
    assert_eq!(value(&headers, "webhook-signature"), Some(V1A));
    let public = public_key(&secret(SEED)).unwrap();
    assert_eq!(public, "whpk_A6EHv/POEL4dcN0Y50vAmWfk1jCbpQ1fHdyGZBJVMbg=");
    assert_eq!(public_key(&secret(SECRET)), None);

    use base64::Engine as _;
    let decode = |text: &str| {
        base64::engine::general_purpose::STANDARD
            .decode(text)
            .unwrap()
    };
    let key: [u8; 32] = decode(public.strip_prefix("whpk_").unwrap())
        .try_into()
        .unwrap();
    let key = ed25519_dalek::VerifyingKey::from_bytes(&key).unwrap();
    let signature: [u8; 64] = decode(V1A.strip_prefix("v1a,").unwrap())
        .try_into()
        .unwrap();
    let signed = [format!("{ID_TEXT}.1649367553.").as_bytes(), BODY].concat();
    assert!(key.verify(&signed, &signature.into()).is_ok());
}

#[test]
fn a_key_pair_signs_like_its_seed_and_a_torn_pair_is_refused() {
    let pair = "whsk_AAECAwQFBgcICQoLDA0ODxAREhMUFRYXGBkaGxwdHh8DoQe/884Qvh1w3RjnS8CZZ+TWMJulDV8d3IZkElUxuA==";
    let headers = sign(&Profile::Standard, pair, &[], AT);
    assert_eq!(value(&headers, "webhook-signature"), Some(V1A));
    let torn = secret(&pair.replace("UxuA==", "UxuB=="));
    let torn = Signer::new(&Profile::Standard, &torn, &[]);
    assert_eq!(torn.err(), Some(BadSigner::Secret(BadSecret::Encoding)));
    let wrong = secret(&pair.replace("DoQe", "DoQf"));
    let wrong = Signer::new(&Profile::Standard, &wrong, &[]);
    assert_eq!(wrong.err(), Some(BadSigner::Secret(BadSecret::Ed25519)));
}

#[test]
fn dual_sends_both_header_families_with_the_same_values() {
    let headers = sign(&Profile::Dual, SECRET, &[], AT);
    assert_eq!(headers.len(), 6);
    for (ours, theirs) in [
        ("webhook-id", "svix-id"),
        ("webhook-timestamp", "svix-timestamp"),
        ("webhook-signature", "svix-signature"),
    ] {
        assert!(value(&headers, ours).is_some());
        assert_eq!(value(&headers, ours), value(&headers, theirs));
    }
}

#[test]
fn hex_matches_the_vector_and_carries_type_id_and_time() {
    let headers = sign(&hex_profile(true, HexKey::Text), SECRET, &[], AT);
    assert_eq!(value(&headers, "x-webhook-signature"), Some(HEX));
    assert_eq!(
        value(&headers, "x-webhook-event-type"),
        Some("user.created")
    );
    assert_eq!(value(&headers, "x-webhook-event-id"), Some(ID_TEXT));
    assert_eq!(value(&headers, "x-webhook-time"), Some("1649367553"));
    assert_eq!(value(&headers, "webhook-signature"), Some(V1));
    let headers = sign(&hex_profile(false, HexKey::Text), SECRET, &[], AT);
    assert_eq!(value(&headers, "webhook-signature"), None);
}

#[test]
fn hex_with_decoded_key_differs_and_needs_a_symmetric_secret() {
    let profile = hex_profile(false, HexKey::Decoded);
    let headers = sign(&profile, SECRET, &[], AT);
    assert_ne!(value(&headers, "x-webhook-signature"), Some(HEX));
    assert_eq!(
        check_secret(&secret(SEED), &profile),
        Err(BadSecret::Symmetric)
    );
}

#[test]
fn a_text_secret_signs_hex_and_switches_the_standard_headers_off() {
    let profile = hex_profile(true, HexKey::Text);
    let headers = sign(&profile, "correct horse battery staple", &[], AT);
    assert!(value(&headers, "x-webhook-signature").is_some());
    assert_eq!(value(&headers, "webhook-signature"), None);
    assert_eq!(value(&headers, "webhook-id"), None);
    let refused = check_secret(&secret("correct horse battery staple"), &Profile::Standard);
    assert_eq!(refused, Err(BadSecret::Encoding));
}

#[test]
fn timestamped_matches_the_vector_and_lists_old_secrets() {
    let profile = Profile::Timestamped {
        header: String::from("Acme-Signature"),
    };
    let headers = sign(&profile, SECRET, &[], AT);
    assert_eq!(value(&headers, "acme-signature"), Some(TIMESTAMPED));
    assert_eq!(headers.len(), 1);
    let later = AT.plus(Duration::from_secs(1));
    let rotated = [old(SECRET, later)];
    let headers = sign(&profile, "another secret of some length", &rotated, AT);
    let text = value(&headers, "acme-signature").unwrap();
    let (_, newest) = TIMESTAMPED.split_once(',').unwrap();
    assert_eq!(text.split(',').count(), 3);
    assert!(text.ends_with(newest), "{text}");
}

#[test]
fn rotation_signs_new_then_old_and_never_with_an_expired_secret() {
    let expires = AT.plus(Duration::from_millis(1));
    let old = [
        old(SEED, expires),
        old("not a key", expires),
        old(SECRET, AT),
    ];
    let current = generate([7; 32]);
    let headers = sign(&Profile::Standard, current.reveal(), &old, AT);
    let list: Vec<_> = value(&headers, "webhook-signature")
        .unwrap()
        .split(' ')
        .collect();
    assert_eq!(list.len(), 2, "{list:?}");
    assert!(list[0].starts_with("v1,") && list[1] == V1A);
    let headers = sign(&Profile::Standard, current.reveal(), &old, expires);
    let list = value(&headers, "webhook-signature").unwrap();
    assert!(!list.contains(' '), "{list}");
}

#[test]
fn at_most_ten_old_secrets_sign_along() {
    let old: Vec<_> = (0..20).map(|_| old(SECRET, Timestamp::MAX)).collect();
    let headers = sign(&Profile::Standard, SECRET, &old, AT);
    let list = value(&headers, "webhook-signature").unwrap();
    assert_eq!(list.split(' ').count(), 11);
}

#[test]
fn bytes_that_are_no_text_are_signed_as_they_are() {
    let signer = Signer::new(&Profile::Standard, &secret(SECRET), &[]).unwrap();
    let mut one = Vec::new();
    signer.headers("msg_1", "a", AT, b"\xff\x00", &mut one);
    let mut other = Vec::new();
    signer.headers("msg_1", "a", AT, b"\xef\xbf\xbd\x00", &mut other);
    assert_ne!(
        value(&one, "webhook-signature"),
        value(&other, "webhook-signature")
    );
}

#[test]
fn secrets_outside_24_to_64_bytes_and_public_keys_are_refused() {
    use base64::Engine as _;
    let with = |n: usize| {
        let text = base64::engine::general_purpose::STANDARD.encode(vec![1; n]);
        check_secret(&secret(&format!("whsec_{text}")), &Profile::Standard)
    };
    for (n, want) in [
        (0, Err(BadSecret::Length)),
        (23, Err(BadSecret::Length)),
        (24, Ok(())),
        (64, Ok(())),
        (65, Err(BadSecret::Length)),
    ] {
        assert_eq!(with(n), want, "{n} bytes");
    }
    for (text, want) in [
        ("whsec_not base64!", BadSecret::Encoding),
        ("whsk_AAEC", BadSecret::Ed25519),
        (
            "whpk_A6EHv/POEL4dcN0Y50vAmWfk1jCbpQ1fHdyGZBJVMbg=",
            BadSecret::Public,
        ),
    ] {
        assert_eq!(check_secret(&secret(text), &Profile::Standard), Err(want));
    }
    let text = hex_profile(true, HexKey::Text);
    for bad in ["short", "line\nbreak in a secret", &"x".repeat(257)] {
        assert_eq!(check_secret(&secret(bad), &text), Err(BadSecret::Text));
    }
}

#[test]
fn a_generated_secret_is_accepted_and_prints_nothing() {
    let made = generate([0xab; 32]);
    assert_eq!(check_secret(&made, &Profile::Standard), Ok(()));
    let signer = Signer::new(&Profile::Standard, &made, &[]).unwrap();
    assert_eq!(
        format!("{signer:?} {made:?}"),
        "Signer with 1 keys [redacted]"
    );
}
