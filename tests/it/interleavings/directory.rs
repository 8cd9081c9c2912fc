//! Changes of the configuration, one at a time, and those who look meanwhile.

use std::sync::Arc;

use posthaste::base::Timestamp;
use posthaste::directory::{Directory, Error};
use posthaste::model::EventType;
use shuttle::future::block_on;
use shuttle::thread;
use tokio::sync::mpsc;

use super::{bench, explore};

fn event_type(name: &str) -> EventType {
    EventType {
        name: name.to_owned(),
        description: String::new(),
        archived: false,
        deprecated: false,
        schemas: None,
        group_name: None,
        feature_flags: None,
        payload_validation: posthaste::model::PayloadValidation::Off,
        created: Timestamp::ZERO,
        updated: Timestamp::ZERO,
        deleted: false,
    }
}

#[test]
fn changes_are_made_one_at_a_time_and_a_look_never_sees_half_of_one() {
    explore(2000, || {
        let bench = bench(4, 4);
        let (changed, _changes) = mpsc::channel(4);
        let directory = Directory::load(
            bench.reader.as_ref(),
            bench.lane.clone(),
            changed,
            crate::kit::vault(),
        )
        .unwrap();
        let directory = Arc::new(directory);
        let writers: Vec<_> = (0..3)
            .map(|no| {
                let directory = Arc::clone(&directory);
                thread::spawn(move || {
                    let made = block_on(directory.carry_out(move |draft| {
                        // Two rows that only make sense together.
                        draft.put_event_type(event_type(&format!("a.{no}")))?;
                        draft.put_event_type(event_type(&format!("b.{no}")))?;
                        Ok::<_, Error>(draft.revision())
                    }));
                    let seen = directory.snapshot();
                    assert!(
                        seen.event_type(&format!("a.{no}")).is_some(),
                        "its own change is seen"
                    );
                    (made.unwrap(), seen.revision())
                })
            })
            .collect();
        let reader = {
            let directory = Arc::clone(&directory);
            thread::spawn(move || {
                let mut before = 0;
                for _ in 0..4 {
                    let seen = directory.snapshot();
                    assert!(seen.revision() >= before, "revisions do not go back");
                    before = seen.revision();
                    for no in 0..3 {
                        let a = seen.event_type(&format!("a.{no}")).is_some();
                        let b = seen.event_type(&format!("b.{no}")).is_some();
                        assert_eq!(a, b, "half of a change is seen");
                    }
                    thread::yield_now();
                }
            })
        };
        let mut bases: Vec<u64> = writers.into_iter().map(|w| w.join().unwrap().0).collect();
        bases.sort_unstable();
        assert_eq!(bases, [0, 1, 2], "each saw the change before it");
        reader.join().unwrap();
        block_on(bench.lane.close()).unwrap();
        let (revision, rows) = bench.reader.config().unwrap();
        assert_eq!(
            (revision, rows.len()),
            (3, 6),
            "the store holds what was seen"
        );
    });
}
