//! Cancelling: one delivery, and everything that an endpoint has not finished.

use std::sync::Arc;
use std::time::Duration;

use posthaste::model::{Delivery, EndpointNo, Order, Position, Verdict};
use posthaste::schedule::core::{Cancelled, Plan};
use rand::RngExt;

use super::{Answer, DAY, HOUR, Sim, plan, seeds};

fn ordered(order: Order) -> Plan {
    let mut plan = plan(1, 1);
    plan.order = order;
    Arc::make_mut(&mut plan.failing).disable = posthaste::model::DisablePolicy::Never;
    plan
}

/// What the last walk of an endpoint said at its end.
fn end(sim: &Sim, endpoint: EndpointNo) -> Cancelled {
    let of_endpoint = sim.walks.iter().filter(|(ep, ..)| *ep == endpoint);
    let last = of_endpoint.map(|(_, so_far, _)| *so_far).next_back();
    last.filter(|so_far| so_far.done).unwrap()
}

fn is_cancelled(sim: &Sim, at: Position, endpoint: EndpointNo) -> bool {
    let delivery = Delivery { at, endpoint };
    sim.reader.is_cancelled(delivery).unwrap()
}

#[test]
fn everything_that_waits_at_a_paused_endpoint_is_cancelled_page_by_page() {
    let mut sim = Sim::new(60);
    let ep = sim.endpoint(plan(1, 1), Answer::Status(200));
    let other = sim.endpoint(plan(2, 1), Answer::Status(200));
    sim.change(ep, |plan| plan.sending = false);
    let sent: Vec<_> = (0..1000).map(|_| sim.publish(&[ep, other])).collect();
    sim.cancel_pending(ep);
    sim.advance(Duration::from_secs(10));
    let done = end(&sim, ep);
    assert_eq!((done.cancelled, done.sending), (1000, 0));
    assert!(sim.walks.len() >= 4, "a page has 256 rows: {:?}", sim.walks);
    assert!(sim.rows(ep).is_empty());
    for at in &sent {
        assert!(is_cancelled(&sim, *at, ep));
        assert!(!is_cancelled(&sim, *at, other));
    }
    sim.census();
    assert_eq!(sim.open, 0, "the other endpoint got all of it");

    // Switched on again, it gets what comes then and nothing else.
    sim.change(ep, |plan| plan.sending = true);
    let next = sim.publish(&[ep]);
    sim.advance(DAY);
    let got: Vec<_> = sim.seen.iter().filter(|seen| seen.endpoint == ep).collect();
    assert_eq!(got.iter().map(|seen| seen.at).collect::<Vec<_>>(), [next]);
    sim.census();
}

#[test]
fn what_waits_for_its_retry_is_cancelled_whenever_it_is_due() {
    let mut sim = Sim::new(61);
    let ep = sim.endpoint(plan(1, 1), Answer::Status(500));
    let sent: Vec<_> = (0..40).map(|_| sim.publish(&[ep])).collect();
    sim.advance(HOUR); // three attempts each
    let before = sim.seen.len();
    assert!(before > 40 && !sim.rows(ep).is_empty());
    sim.cancel_pending(ep);
    sim.advance(DAY * 4);
    assert_eq!(sim.seen.len(), before, "no further attempt");
    assert_eq!(end(&sim, ep).cancelled, 40);
    assert!(sent.iter().all(|at| is_cancelled(&sim, *at, ep)));
    sim.census();
    assert_eq!(sim.open, 0);
}

#[test]
fn an_attempt_under_way_is_the_last_one_and_counts_as_it_ends() {
    for (answer, delivered) in [(Answer::Status(500), false), (Answer::Status(200), true)] {
        let mut sim = Sim::new(62);
        let ep = sim.endpoint(plan(1, 1), answer);
        sim.peer(ep).takes = Duration::from_secs(10);
        let at = sim.publish(&[ep]);
        sim.advance(Duration::from_secs(1));
        sim.cancel_pending(ep);
        sim.advance(DAY * 4);
        assert_eq!(sim.seen.len(), 1);
        let done = end(&sim, ep);
        assert_eq!((done.cancelled, done.sending), (0, 1));
        assert_eq!(is_cancelled(&sim, at, ep), !delivered);
        let last = sim.attempts(at, ep).last().map(|attempt| attempt.verdict);
        assert_eq!(last == Some(Verdict::Delivered), delivered);
        sim.census();
        assert_eq!(sim.open, 0);
    }
}

#[test]
fn what_is_accepted_after_it_began_is_not_cancelled() {
    let mut sim = Sim::new(63);
    let ep = sim.endpoint(plan(1, 1), Answer::Status(200));
    sim.change(ep, |plan| plan.sending = false);
    let old: Vec<_> = (0..600).map(|_| sim.publish(&[ep])).collect();
    sim.reads_wait = true;
    sim.cancel_pending(ep);
    let new: Vec<_> = (0..600).map(|_| sim.publish(&[ep])).collect();
    assert!(sim.walks.is_empty(), "the walk is under way");
    sim.change(ep, |plan| plan.sending = true);
    sim.reads_wait = false;
    sim.advance(Duration::from_millis(1)); // the page comes now
    sim.advance(DAY);
    assert!(old.iter().all(|at| is_cancelled(&sim, *at, ep)));
    for at in &new {
        assert!(!is_cancelled(&sim, *at, ep));
        assert_eq!(sim.attempts(*at, ep).len(), 1);
    }
    sim.census();
    assert_eq!(sim.open, 0);
}

#[test]
fn a_deleted_endpoint_has_nothing_to_cancel() {
    let mut sim = Sim::new(64);
    let ep = sim.endpoint(plan(1, 1), Answer::Status(500));
    sim.publish(&[ep]);
    sim.advance(Duration::from_secs(1));
    sim.change(ep, |plan| plan.deleted = true);
    sim.cancel_pending(ep);
    assert_eq!(end(&sim, ep).cancelled, 0);
    sim.advance(DAY);
    sim.census();
    assert_eq!(sim.open, 0);
}

/// Found while this was written: the retry time of a cancelled head held up what came after it, and
/// with `order: key` its count held up its key for ever.
#[test]
fn what_waits_behind_a_cancelled_delivery_goes_at_once() {
    for order in [Order::Endpoint, Order::Key] {
        for whole in [false, true] {
            for later_is_there in [false, true] {
                let mut sim = Sim::new(65);
                let ep = sim.endpoint(ordered(order), Answer::Status(200));
                sim.peer(ep).script.extend(vec![Answer::Status(400); 4]);
                let head = sim.publish_keyed(&[ep], Some("k"));
                sim.advance(HOUR); // the next retry is hours away
                let mut later = later_is_there.then(|| sim.publish_keyed(&[ep], Some("k")));
                sim.advance(Duration::from_secs(1));
                let case = format!("{order:?} whole {whole} later {later_is_there}");
                assert!(!sim.seen.iter().any(|seen| seen.status == 200), "{case}");
                sim.peer(ep).script.clear();
                if whole {
                    sim.cancel_pending(ep);
                    later = None; // cancelled as well
                } else {
                    sim.cancel(&[Delivery {
                        at: head,
                        endpoint: ep,
                    }]);
                }
                sim.advance(Duration::from_secs(1));
                let next = sim.publish_keyed(&[ep], Some("k"));
                // A row behind the head has the head's time, which is not written anew.
                let by_row = order == Order::Key && later.is_some();
                sim.advance(if by_row {
                    HOUR * 3
                } else {
                    Duration::from_secs(10)
                });
                let got: Vec<_> = sim.seen.iter().filter(|seen| seen.status == 200).collect();
                let got: Vec<_> = got.iter().map(|seen| seen.at).collect();
                let wanted: Vec<_> = later.into_iter().chain([next]).collect();
                assert_eq!(got, wanted, "{case}");
                sim.census();
                assert_eq!(sim.open, 0, "{case}");
            }
        }
    }
}

#[test]
fn whatever_happens_meanwhile_nothing_starts_again_that_was_cancelled() {
    for seed in seeds() {
        let mut sim = Sim::new(seed);
        let order = [Order::None, Order::Endpoint, Order::Key][usize::try_from(seed % 3).unwrap()];
        let mut wanted = ordered(order);
        Arc::make_mut(&mut wanted.failing).retry.delays = vec![Duration::from_secs(20); 9].into();
        let ep = sim.endpoint(wanted, Answer::Status(200));
        let mut cancelled: Vec<Position> = Vec::new();
        for _ in 0..6 {
            for _ in 0..sim.random.random_range(1..40) {
                let key = format!("k{}", sim.random.random_range(0..4));
                sim.publish_keyed(&[ep], Some(&key));
            }
            let fails = sim.random.random_range(0..30);
            sim.peer(ep).script.extend(vec![Answer::Status(400); fails]);
            let sending = sim.random.random_bool(0.7);
            sim.change(ep, |plan| plan.sending = sending);
            let pause = Duration::from_millis(sim.random.random_range(1..40_000));
            sim.advance(pause);
            let before: Vec<_> = sim.messages.iter().map(|message| message.at).collect();
            sim.cancel_pending(ep);
            for _ in 0..sim.random.random_range(0..3) {
                sim.publish_keyed(&[ep], Some("k0"));
                sim.advance(Duration::from_millis(3));
            }
            sim.advance(Duration::from_secs(5));
            end(&sim, ep);
            let unfinished = before.iter().filter(|at| is_cancelled(&sim, **at, ep));
            cancelled = unfinished.copied().collect();
            for at in before {
                let over = is_cancelled(&sim, at, ep)
                    || sim
                        .attempts(at, ep)
                        .iter()
                        .any(|attempt| !matches!(attempt.verdict, Verdict::RetryAt(_)));
                assert!(over, "seed {seed}: {at:?} is still open");
            }
            sim.census();
        }
        let mark = sim.now;
        sim.change(ep, |plan| plan.sending = true);
        sim.advance(DAY);
        let again = |at| {
            sim.seen
                .iter()
                .any(|seen| seen.at == at && seen.start >= mark)
        };
        let again: Vec<_> = cancelled.iter().filter(|at| again(**at)).collect();
        assert!(again.is_empty(), "seed {seed}: sent again {again:?}");
        sim.census();
        assert_eq!(sim.open, 0, "seed {seed}: everything comes to its end");
    }
}
