//! Requests, the commit thread, and who waits for it.

use posthaste::lane::{Committed, Error};
use posthaste::model::{Delivery, EndpointNo, Position};
use posthaste::store::Settlement;
use posthaste::store::faults::Fault;
use posthaste::store::model::Crash;
use shuttle::future::block_on;
use shuttle::thread;
use tokio::sync::mpsc;

use super::{accept, bench, explore, mark, stored};

const SOMEONE: &[EndpointNo] = &[EndpointNo(1)];

/// Takes what the lane hands up until it ends.
fn collect(mut committed: mpsc::Receiver<Committed>) -> Vec<u64> {
    let mut seen = Vec::new();
    let mut last = 0;
    while let Some(group) = block_on(committed.recv()) {
        for message in &group.messages {
            assert!(message.at.seq > last, "handed up in order");
            last = message.at.seq;
            seen.push(mark(message));
        }
        assert!(group.last >= last);
        last = group.last;
    }
    seen
}

#[test]
fn every_append_gets_its_own_answer_and_is_handed_up_once() {
    explore(2000, || {
        let bench = bench(8, 1);
        let scheduler = thread::spawn(move || collect(bench.committed));
        let producers: Vec<_> = (0..3_u64)
            .map(|no| {
                let lane = bench.lane.clone();
                thread::spawn(move || {
                    let marks = [no * 10, no * 10 + 1];
                    let batch = marks.map(|mark| accept(mark, SOMEONE)).to_vec();
                    let messages = block_on(lane.append(batch).unwrap().committed()).unwrap();
                    assert_eq!(messages.iter().map(|m| mark(m)).collect::<Vec<_>>(), marks);
                    messages[0].at.seq
                })
            })
            .collect();
        let places: Vec<u64> = producers.into_iter().map(|p| p.join().unwrap()).collect();
        assert_eq!(bench.lane.waiting(), 0, "what is committed waits no more");
        block_on(bench.lane.close()).unwrap();
        let handed = scheduler.join().unwrap();
        assert_eq!(handed, stored(bench.reader.as_ref(), &bench.lane));
        assert_eq!(handed.len(), 6);
        assert!(
            places.iter().all(|seq| *seq >= 1 && *seq <= 5),
            "dense numbers: {places:?}"
        );
    });
}

#[test]
fn a_full_queue_refuses_at_once_and_gives_its_room_back() {
    explore(2000, || {
        let bench = bench(2, 1);
        let scheduler = thread::spawn(move || collect(bench.committed));
        let producers: Vec<_> = (0..4_u64)
            .map(|no| {
                let lane = bench.lane.clone();
                thread::spawn(move || {
                    let batch = vec![accept(no * 2, SOMEONE), accept(no * 2 + 1, SOMEONE)];
                    match lane.append(batch) {
                        Ok(ticket) => block_on(ticket.committed()).unwrap().len(),
                        Err(Error::Busy) => 0,
                        Err(other) => panic!("{other}"),
                    }
                })
            })
            .collect();
        let taken: usize = producers.into_iter().map(|p| p.join().unwrap()).sum();
        assert_eq!(bench.lane.waiting(), 0);
        // Whoever was refused may come again: no room was lost.
        let batch = vec![accept(90, SOMEONE), accept(91, SOMEONE)];
        let again = block_on(bench.lane.append(batch).unwrap().committed()).unwrap();
        assert_eq!(again.len(), 2);
        block_on(bench.lane.close()).unwrap();
        assert_eq!(scheduler.join().unwrap().len(), taken + 2);
    });
}

#[test]
fn a_failing_store_answers_everybody_and_nobody_with_ok() {
    for fault in [Fault::DoubtfulApplied, Fault::DoubtfulLost] {
        for ahead in 0..4 {
            explore(400, move || fails(ahead, fault));
        }
    }
}

fn fails(ahead: u64, fault: Fault) {
    let bench = bench(8, 1);
    bench.model.faults().plan(ahead, fault);
    let scheduler = thread::spawn(move || collect(bench.committed));
    let producers: Vec<_> = (0..3_u64)
        .map(|no| {
            let lane = bench.lane.clone();
            thread::spawn(move || match lane.append(vec![accept(no, SOMEONE)]) {
                Ok(ticket) => block_on(ticket.committed()).is_ok().then_some(no),
                Err(_) => None,
            })
        })
        .collect();
    let settler = {
        let lane = bench.lane.clone();
        thread::spawn(move || match lane.settle(cancelling(), true) {
            Ok(done) => matches!(block_on(done), Ok(Ok(()))),
            Err(_) => false,
        })
    };
    let accepted: Vec<u64> = producers
        .into_iter()
        .filter_map(|p| p.join().unwrap())
        .collect();
    let settled = settler.join().unwrap();
    let closed = block_on(bench.lane.close());
    assert_eq!(closed.is_err(), bench.lane.has_failed(), "{closed:?}");
    if bench.lane.has_failed() {
        let refused = bench.lane.append(vec![accept(99, SOMEONE)]);
        let late = refused.map(|ticket| block_on(ticket.committed()));
        assert!(
            !matches!(late, Ok(Ok(_))),
            "nothing is acknowledged after a failure"
        );
    }
    scheduler.join().unwrap();
    // What was answered with Ok survives even a power cut.
    bench.model.crash(Crash::Power { keep: 0 });
    let kept = stored(bench.reader.as_ref(), &bench.lane);
    assert!(
        accepted.iter().all(|mark| kept.contains(mark)),
        "{accepted:?} of {kept:?}"
    );
    if settled {
        assert!(
            bench
                .reader
                .is_cancelled(cancelling().cancelled[0])
                .unwrap()
        );
    }
}

fn cancelling() -> Settlement {
    let at = Position::START;
    Settlement {
        cancelled: vec![Delivery {
            at,
            endpoint: EndpointNo(1),
        }],
        ..Settlement::default()
    }
}

#[test]
fn closing_leaves_nobody_waiting_and_loses_nothing() {
    explore(2000, || {
        let bench = bench(8, 4);
        let scheduler = thread::spawn(move || collect(bench.committed));
        let producers: Vec<_> = (0..2_u64)
            .map(|no| {
                let lane = bench.lane.clone();
                thread::spawn(move || match lane.append(vec![accept(no, SOMEONE)]) {
                    Ok(ticket) => match block_on(ticket.committed()) {
                        Ok(_) => Some(no),
                        Err(Error::Failed) => None,
                        Err(other) => panic!("{other}"),
                    },
                    Err(Error::Failed) => None,
                    Err(other) => panic!("{other}"),
                })
            })
            .collect();
        block_on(bench.lane.close()).unwrap();
        let accepted: Vec<u64> = producers
            .into_iter()
            .filter_map(|p| p.join().unwrap())
            .collect();
        assert!(!bench.lane.has_failed(), "an orderly end is no failure");
        scheduler.join().unwrap();
        bench.model.crash(Crash::Power { keep: 0 });
        let kept = stored(bench.reader.as_ref(), &bench.lane);
        assert!(
            accepted.iter().all(|mark| kept.contains(mark)),
            "{accepted:?} of {kept:?}"
        );
    });
}
