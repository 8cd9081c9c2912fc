//! The `posthaste` binary: arguments to exit code, nothing else.

use std::process::ExitCode;

use clap::Parser;

// Many small allocations on two threads; chosen by measurement, see docs/adr.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

fn main() -> ExitCode {
    posthaste::cli::Cli::parse().run()
}
