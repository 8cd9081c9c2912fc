//! The committed seeds of every fuzz target, replayed on the stable toolchain (T62).

use std::collections::BTreeSet;
use std::fs;

use posthaste::fuzzing::TARGETS;

use crate::kit::repository;

#[test]
fn every_fuzz_target_takes_its_seeds_and_every_prefix_of_them() {
    let folder = repository("fuzz/seeds");
    let folders = fs::read_dir(&folder).unwrap().map(|entry| {
        let name = entry.unwrap().file_name();
        name.into_string().unwrap()
    });
    let names: BTreeSet<_> = TARGETS.iter().map(|(name, _)| (*name).to_owned()).collect();
    assert_eq!(names, folders.collect(), "seeds and targets");
    for (name, run) in TARGETS {
        let mut seeds = 0;
        for entry in fs::read_dir(folder.join(name)).unwrap() {
            let seed = fs::read(entry.unwrap().path()).unwrap();
            seeds += 1;
            run(&seed);
            let step = 1 + seed.len() / 200;
            for end in (0..seed.len()).step_by(step) {
                run(&seed[..end]);
                let mut flipped = seed.clone();
                flipped[end] ^= 1 << (end % 8);
                run(&flipped);
            }
        }
        assert!(seeds >= 2, "{name} has {seeds} seeds");
    }
}
