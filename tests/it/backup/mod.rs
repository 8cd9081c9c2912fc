//! `backup`, `restore`, `verify` and `accept-loss` with the real binary, and one backup at a time.
#![expect(
    clippy::unwrap_used,
    clippy::panic,
    reason = "helpers of tests: a failure is a failed test"
)]

mod commands;
mod hot;
mod loss;
mod upgrade;
