//! Many at once: an outage that ends (T32), failures in the same second (T33).

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use posthaste::model::{FailureKind, ParkedKey, Verdict};
use posthaste::schedule::core::Settings;

use super::{Answer, HOUR, MINUTE, Sim, plan};

#[test]
#[expect(clippy::too_many_lines, reason = "one run, told from start to end")]
fn an_endpoint_that_comes_back_gets_its_backlog_slowly_and_nobody_else_notices() {
    let mut sim = Sim::with(
        50,
        Settings {
            max_in_memory: 20_000,
            ..Settings::default()
        },
    );
    let down = sim.endpoint(plan(1, 1), Answer::Fails(FailureKind::Refused));
    let other = sim.endpoint(plan(2, 2), Answer::Status(200));
    for _ in 0..50 {
        sim.publish_many(down, 1000);
        sim.advance(Duration::from_secs(72));
    }
    let probes = sim
        .times(down, sim.now.minus(HOUR / 2))
        .into_iter()
        .filter(|at| *at > 0.0)
        .count();
    assert!(
        probes <= 40,
        "{probes} attempts in half an hour at an endpoint that is down"
    );
    assert!(sim.core.in_memory() < 100, "its backlog is in the store");

    sim.peer(down).then = Answer::Status(200);
    sim.peer(down).most_under_way = 0;
    let back = sim.now;
    let mut late = 0;
    for _ in 0..240 {
        let at = sim.publish(&[other]);
        sim.advance(Duration::from_secs(1));
        let attempts = sim.attempts(at, other);
        let took = attempts.first().map(|attempt| attempt.ended);
        late +=
            usize::from(took.is_none_or(|ended| sim.now.since(ended) < Duration::from_millis(750)));
    }
    assert_eq!(
        late, 0,
        "the other endpoint was held up by more than 250 ms"
    );
    assert_eq!(
        sim.peer(down).most_under_way,
        10,
        "the limit is reached and never passed"
    );

    let first = sim
        .seen
        .iter()
        .filter(|seen| seen.endpoint == down && seen.status == 200);
    let starts: Vec<u64> = first
        .map(|seen| u64::try_from(seen.start.since(back).as_millis()).unwrap())
        .collect();
    assert!(
        starts.len() > 50_000 * 9 / 10,
        "{} of 50 000 after four minutes",
        starts.len()
    );
    // One probe, then rounds of 20 ms with twice as many each, up to the limit.
    let begin = starts[0];
    let rounds: Vec<usize> = (0..8)
        .map(|round| {
            let inside = |at: &&u64| (begin + round * 20..begin + (round + 1) * 20).contains(*at);
            starts.iter().filter(inside).count()
        })
        .collect();
    let ramp: Vec<usize> = rounds.iter().copied().filter(|n| *n > 0).collect();
    assert!(ramp[0] == 1, "the probe is alone: {rounds:?}");
    assert!(
        ramp.windows(2).all(|pair| pair[1] <= pair[0] * 2),
        "{rounds:?}"
    );
    assert!(ramp.contains(&10), "{rounds:?}");

    // What had failed before waits for its time in the schedule; nothing is lost and none comes twice.
    sim.advance(HOUR * 80);
    assert_eq!(sim.open, 0);
    let mut delivered: BTreeMap<_, u32> = BTreeMap::new();
    for seen in sim
        .seen
        .iter()
        .filter(|s| s.endpoint == down && s.status == 200)
    {
        *delivered.entry(seen.at).or_default() += 1;
    }
    assert_eq!(delivered.len(), 50_000);
    assert!(delivered.values().all(|times| *times == 1));
}

#[test]
fn a_new_endpoint_is_not_greeted_with_everything_at_once() {
    let mut sim = Sim::new(51);
    let ep = sim.endpoint(plan(1, 1), Answer::Status(200));
    let begin = sim.now;
    sim.publish_many(ep, 500);
    sim.advance(MINUTE);
    let times = sim.times(ep, begin);
    let rounds: Vec<usize> = (0..5)
        .map(|round| {
            let from = f64::from(round) * 0.02 - 0.001;
            times
                .iter()
                .filter(|at| (from..from + 0.02).contains(*at))
                .count()
        })
        .collect();
    assert_eq!(rounds, [1, 2, 4, 8, 10]);
}

#[test]
fn ten_thousand_deliveries_that_fail_in_one_second_are_tried_again_evenly_spread() {
    let mut sim = Sim::with(
        52,
        Settings {
            max_in_flight: 20_000,
            ..Settings::default()
        },
    );
    let mut endpoints = Vec::new();
    for no in 1..=10_000 {
        let mut plan = plan(no, no);
        Arc::make_mut(&mut plan.failing).retry.delays = vec![Duration::from_secs(300)].into();
        endpoints.push(sim.endpoint(plan, Answer::Status(500)));
    }
    let begin = sim.now;
    for ep in &endpoints {
        sim.publish(&[*ep]);
    }
    sim.advance(Duration::from_millis(500));
    let mut waits = Vec::new();
    for message in sim.messages.clone() {
        let attempt = sim.attempts(message.at, message.targets[0]).pop().unwrap();
        assert!(
            attempt.ended.since(begin) < Duration::from_secs(1),
            "in the same second"
        );
        let Verdict::RetryAt(due) = attempt.verdict else {
            panic!("no retry: {attempt:?}");
        };
        let key = ParkedKey {
            endpoint: attempt.endpoint,
            due,
            at: attempt.at,
        };
        assert!(
            sim.reader.parked_row(key).unwrap().is_some(),
            "the row is due when the verdict says"
        );
        waits.push(due.since(attempt.ended).as_secs_f64());
    }
    assert_eq!(waits.len(), 10_000);
    waits.sort_by(f64::total_cmp);
    // Kolmogorov-Smirnov against the uniform distribution over 240 s to 360 s; 1.63/sqrt(n) is the
    // critical value at 1 %.
    let n = waits.len() as f64;
    let distance = waits
        .iter()
        .enumerate()
        .map(|(i, wait)| ((wait - 240.0) / 120.0 - i as f64 / n).abs())
        .fold(0.0, f64::max);
    assert!(distance < 1.63 / n.sqrt(), "{distance}");
    let mut buckets = [0_usize; 121];
    for wait in &waits {
        let second = (240..=360).rev().find(|second| f64::from(*second) <= *wait);
        buckets[usize::try_from(second.unwrap() - 240).unwrap()] += 1;
    }
    let most = buckets.iter().max().unwrap();
    assert!(*most as f64 <= 3.0 * n / 120.0, "{most} in one second");
}
