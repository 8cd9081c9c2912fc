//! Builds that are broken on purpose, to prove that the torture set can fail.
//!
//! Each constant is a cargo feature that no default and no release turns on (`tests/tidy.rs` holds
//! that); `scripts/prove-torture` builds each one and demands that the set catches it. With all of
//! them off the compiler removes every trace.

/// A `202` no longer waits for the fsync of its commit: a power cut loses what was acknowledged.
pub const ACK_BEFORE_FSYNC: bool = cfg!(feature = "broken-ack-before-fsync");

/// After a restart the first delivery that an earlier run left parked at an endpoint is forgotten.
pub const DROP_PARKED: bool = cfg!(feature = "broken-drop-parked");

/// Nothing that is read is compared with its checksum, its number or the high-water mark.
pub const SKIP_CHECKSUM: bool = cfg!(feature = "broken-skip-checksum");

/// The names of those that this build has.
pub fn names() -> Vec<&'static str> {
    let all = [
        (ACK_BEFORE_FSYNC, "broken-ack-before-fsync"),
        (DROP_PARKED, "broken-drop-parked"),
        (SKIP_CHECKSUM, "broken-skip-checksum"),
    ];
    let on = all.into_iter().filter(|(on, _)| *on);
    on.map(|(_, name)| name).collect()
}
