//! Every fuzz target in one binary: the variable `FUZZ_TARGET` says which of
//! `posthaste::fuzzing::TARGETS` runs.
#![no_main]

use std::sync::OnceLock;

use libfuzzer_sys::fuzz_target;
use posthaste::fuzzing::{Body, TARGETS};

fuzz_target!(|data: &[u8]| {
    static BODY: OnceLock<Body> = OnceLock::new();
    let body = BODY.get_or_init(|| {
        let wanted = std::env::var("FUZZ_TARGET").unwrap_or_default();
        let found = TARGETS.iter().find(|(name, _)| *name == wanted);
        let Some((_, body)) = found else {
            panic!("FUZZ_TARGET={wanted} is no target of posthaste::fuzzing::TARGETS");
        };
        *body
    });
    body(data);
});
