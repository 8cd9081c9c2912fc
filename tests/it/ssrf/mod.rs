//! Server-side request forgery: no message leaves for an address that is not public (T07 to T09).

#![expect(clippy::unwrap_used, reason = "test support outside of test functions")]

mod addresses;
mod names;
mod redirects;
