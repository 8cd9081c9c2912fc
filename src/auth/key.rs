//! The text of an API key: `<prefix><27 characters of its id>_<43 base62 characters, 256 bits>`, where the
//! prefix is `sk_`, or for keys of one application `sk_app_` or what the application says.
//!
//! It is read from its end, so every prefix there ever was goes on working: the hash is one of the whole
//! text. No dot in it: the client SDKs read the text after the first dot as a region (`api.md` 2.2).

use ipnet::IpNet;

use super::hash;
use crate::base::Timestamp;
use crate::model::{ApiKey, AppNo, KeyId, KeyPrefix, Scope};

/// Random bytes that [`mint`] wants: 14 for the id, 32 for the secret part.
pub const KEY_RANDOM: usize = 46;
/// Characters of the id.
const ID_LEN: usize = 27;
/// Base62 digits of 256 bits.
const SECRET_LEN: usize = 43;

/// What a new key is to be.
#[derive(Debug, Clone)]
pub struct NewKey {
    /// What its text begins with.
    pub prefix: KeyPrefix,
    /// For people.
    pub name: String,
    /// What it opens.
    pub scopes: Vec<Scope>,
    /// The only application it opens.
    pub app: Option<AppNo>,
    /// From here on it is refused.
    pub expires: Option<Timestamp>,
    /// Where it may be used from; empty = anywhere.
    pub allowed_ips: Vec<IpNet>,
}

/// Makes a key; the text is shown once and kept nowhere.
pub fn mint(random: [u8; KEY_RANDOM], new: NewKey, now: Timestamp) -> (ApiKey, String) {
    let mut unique = [0; 14];
    let mut secret = [0; 32];
    let (head, tail) = random.split_at(unique.len());
    unique.copy_from_slice(head);
    secret.copy_from_slice(tail);
    let id = KeyId::new(now, unique);
    let mut text = id.0.text(new.prefix.as_str());
    text.push('_');
    text.extend(base62(secret).map(char::from));
    let key = ApiKey {
        id,
        prefix: new.prefix,
        name: new.name,
        hash: hash(&text),
        scopes: new.scopes,
        app: new.app,
        created: now,
        expires: new.expires,
        revoked: None,
        allowed_ips: new.allowed_ips,
        last_used: None,
    };
    (key, text)
}

/// The id in a key's text, if it has the form of one.
pub(super) fn id_of(text: &str) -> Option<KeyId> {
    let at = text.len().checked_sub(ID_LEN + 1 + SECRET_LEN)?;
    let (prefix, rest) = text.split_at_checked(at)?;
    let (id, secret) = rest.split_at_checked(ID_LEN)?;
    let is_one = (1..=KeyPrefix::MAX).contains(&prefix.len()) && secret.starts_with('_');
    let id = is_one.then(|| crate::base::Id20::parse("", id).ok())?;
    id.map(KeyId)
}

/// Neither revoked nor expired.
pub(super) fn is_alive(key: &ApiKey, now: Timestamp) -> bool {
    key.revoked.is_none() && key.expires.is_none_or(|end| now < end)
}

/// 256 bits as 43 digits: long division by 62, least significant digit last.
fn base62(mut number: [u8; 32]) -> [u8; SECRET_LEN] {
    const DIGITS: &[u8; 62] = b"0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz";
    let mut out = [b'0'; SECRET_LEN];
    for digit in out.iter_mut().rev() {
        let mut rest = 0_u16;
        for byte in &mut number {
            let part = (rest << 8) | u16::from(*byte);
            *byte = u8::try_from(part / 62).unwrap_or(u8::MAX); // below 256: rest is below 62
            rest = part % 62;
        }
        *digit = DIGITS.get(usize::from(rest)).copied().unwrap_or(b'0');
    }
    out
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn new() -> NewKey {
        NewKey {
            prefix: KeyPrefix::default(),
            name: String::from("test"),
            scopes: vec![Scope::Admin],
            app: None,
            expires: None,
            allowed_ips: Vec::new(),
        }
    }

    proptest! {
        #[test]
        fn a_minted_key_is_found_by_its_own_text(head: [u8; 32], tail: [u8; 14]) {
            let mut random = [0; KEY_RANDOM];
            random[..32].copy_from_slice(&head);
            random[32..].copy_from_slice(&tail);
            let (key, text) = mint(random, new(), Timestamp::from_millis(1_767_600_930_120));
            prop_assert_eq!(id_of(&text), Some(key.id));
            prop_assert_eq!(hash(&text), key.hash);
            prop_assert_eq!(text.len(), 3 + 27 + 1 + 43);
            prop_assert!(!text.contains('.'));
        }
    }

    #[test]
    fn the_secret_part_keeps_all_256_bits() {
        assert_eq!(base62([0; 32]), [b'0'; 43]);
        let mut one = [0; 32];
        one[31] = 61;
        assert_eq!(base62(one)[42], b'z');
        assert_ne!(base62([0xff; 32])[0], b'0');
    }

    #[test]
    fn texts_of_another_form_have_no_id() {
        for text in ["", "sk_", "sk_abc_def", "key_x", "sk_.", "sk__"] {
            assert_eq!(id_of(text), None, "{text}");
        }
        let (_, text) = mint([7; KEY_RANDOM], new(), Timestamp::ZERO);
        let bare = text.strip_prefix("sk_").unwrap();
        let secret = text.split_at(3 + ID_LEN).1.to_owned();
        let far = "x".repeat(KeyPrefix::MAX + 1);
        for text in [
            bare.to_owned(),
            format!("{far}{bare}"),
            format!("{text}x"),
            text.replacen(&secret, &format!("x{}", secret.split_at(1).1), 1),
            "ä".repeat(50),
        ] {
            assert_eq!(id_of(&text), None, "{text}");
        }
    }

    #[test]
    fn a_key_is_found_under_every_prefix() {
        for prefix in ["riq_live_", "sk_app_", "a1_", "abcdefghijklmnopqrs_"] {
            let new = NewKey {
                prefix: KeyPrefix::parse(prefix).unwrap(),
                ..new()
            };
            let (key, text) = mint([9; KEY_RANDOM], new, Timestamp::from_millis(5));
            assert!(text.starts_with(prefix) && !text.contains('.'), "{text}");
            assert_eq!(id_of(&text), Some(key.id));
            assert_eq!(key.prefix.as_str(), prefix);
        }
    }

    #[test]
    fn expired_and_revoked_keys_are_dead() {
        let at = Timestamp::from_millis;
        let (mut key, _) = mint([7; KEY_RANDOM], new(), at(1000));
        assert!(is_alive(&key, at(5000)));
        key.expires = Some(at(5000));
        assert!(is_alive(&key, at(4999)) && !is_alive(&key, at(5000)));
        key.expires = None;
        key.revoked = Some(at(2000));
        assert!(!is_alive(&key, at(2000)));
    }
}
