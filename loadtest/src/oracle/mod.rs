//! The oracle: what was asked of a gateway, what came out of it, and whether both agree.
//!
//! Three parts that trust nobody but the disk. The [`producer`] records each request before it is
//! sent and each answer after it came; the [`receiver`] records each delivery before it answers;
//! both write one JSON object a line with one unbuffered `write` into append-only files
//! ([`journal`]), so the record survives a SIGKILL of the harness itself. The checker ([`check`]) is
//! a pure function of the parsed [`history`]: rules C1 to C11 of `docs/TORTURE.md`, each its own
//! function. It shares no state with the recorders: what was not written down did not happen.
//!
//! Who checks the checker: [`doctored`] makes histories that break one rule each, and [`check`] must
//! name that rule (`loadtest torture --self-test`, and the tests beside it).

pub(crate) mod check;
pub(crate) mod doctored;
pub(crate) mod history;
pub(crate) mod honest;
pub(crate) mod journal;
pub(crate) mod producer;
pub(crate) mod provider;
pub(crate) mod receiver;
pub(crate) mod record;
