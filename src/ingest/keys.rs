//! What must not happen twice, as 128-bit hashes.

use sha2::{Digest, Sha256};

use super::{Item, ItemKind, Key, Refused, Submission};
use crate::auth::Principal;
use crate::model::AppNo;
use crate::store::IdempotencyKey;

/// Longest `Idempotency-Key`, bytes.
const MAX_KEY: usize = 256;

/// Identity of a POST: credential, path and the header's value, each ended by a zero byte. `path` is
/// the canonical form, so `/api/app/…/` and `/api/v1/app/…` are the same request.
pub fn request_key(principal: &Principal, path: &str, key: &str) -> Result<Key, Refused> {
    if key.is_empty() || key.len() > MAX_KEY {
        let msg = format!("1 to {MAX_KEY} characters are wanted");
        let item = Item::at("header", "idempotency-key", ItemKind::Limit, msg);
        return Err(Refused::Invalid(vec![item]));
    }
    let mut hash = Sha256::new();
    hash.update(b"request\0");
    hash.update(principal.credential);
    hash.update(path.as_bytes());
    hash.update([0]);
    hash.update(key.as_bytes());
    Ok(half(hash))
}

/// The first 128 bits of the body's SHA-256.
pub fn body_hash(body: &[u8]) -> Key {
    let mut hash = Sha256::new();
    hash.update(body);
    half(hash)
}

pub(super) fn of(
    submission: &Submission<'_>,
    key: &str,
    body: &[u8],
) -> Result<IdempotencyKey, Refused> {
    Ok(IdempotencyKey {
        key: request_key(submission.principal, submission.path, key)?,
        body: body_hash(body),
    })
}

/// The key of one line of a batch that came with the key `whole`.
pub(super) fn line_key(whole: &Key, index: usize, line: &[u8]) -> IdempotencyKey {
    let mut hash = Sha256::new();
    hash.update(b"line\0");
    hash.update(whole);
    hash.update(index.to_be_bytes());
    IdempotencyKey {
        key: half(hash),
        body: body_hash(line),
    }
}

/// What a claim on an event id is held under.
pub(super) fn event_key(app: AppNo, event_id: &str) -> Key {
    let mut hash = Sha256::new();
    hash.update(b"event\0");
    hash.update(app.0.to_be_bytes());
    hash.update(event_id.as_bytes());
    half(hash)
}

fn half(hash: Sha256) -> Key {
    let full: [u8; 32] = hash.finalize().into();
    let mut out = [0; 16];
    out.copy_from_slice(full.split_at(16).0);
    out
}
