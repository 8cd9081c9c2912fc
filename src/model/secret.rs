//! Signing secrets. Their text appears in one API answer and in the store, nowhere else.

use std::fmt;

use serde::{Deserialize, Serialize};
use zeroize::Zeroize;

use crate::base::Timestamp;

/// A signing secret as the owner sees it (`whsec_…`, `whsk_…`, or any text for `key: text` profiles).
/// Prints as `[redacted]`; has no `Display`, no `PartialEq`.
#[derive(Clone, Serialize, Deserialize)]
pub struct Secret(String);

impl Secret {
    /// Takes the text as it is; `policy::sign` says whether a key can be made of it.
    pub const fn new(text: String) -> Self {
        Self(text)
    }

    /// The text itself: for signing and for the one answer that shows it.
    pub fn reveal(&self) -> &str {
        &self.0
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("[redacted]")
    }
}

impl Drop for Secret {
    fn drop(&mut self) {
        self.0.zeroize();
    }
}

/// A rotated secret that still signs along.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct OldSecret {
    /// The secret.
    pub secret: Secret,
    /// From here on it is not used any more.
    pub expires: Timestamp,
}
