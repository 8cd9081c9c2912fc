//! The look at incoming bytes under arbitrary input (`crate::fuzzing`).

use super::framing::{Framing, Seen};

/// What these reads amount to.
pub fn watch<'a>(reads: impl IntoIterator<Item = &'a [u8]>) -> String {
    let mut framing = Framing::default();
    let mut seen = Seen::Good;
    for bytes in reads {
        seen = framing.feed(bytes);
    }
    format!("{seen:?}")
}
