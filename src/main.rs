//! The `posthaste` binary: arguments to exit code, nothing else.

fn main() {}
