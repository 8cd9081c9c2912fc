//! The rules C1 to C10 of the checker, over the whole history of a run and the final state.

use std::collections::{BTreeMap, BTreeSet};

use posthaste::base::Timestamp;
use posthaste::model::{
    AppNo, Attempt, DeadReason, Delivery, DeliveryState, EndpointNo, Message, Order, Position,
    Verdict,
};
use posthaste::store::Reader;

use super::history::{History, Received};
use super::net::Peer;
use super::process::Process;
use super::world::{GRACE, World};

/// What was settled may be lost with a process that ends within this many milliseconds: a round that
/// stalls, and what piled up behind it.
const LOSABLE: u64 = 10_000;

/// One delivery of a stored message, with everything known of it.
struct Case {
    delivery: Delivery,
    peer: usize,
    state: DeliveryState,
    attempts: Vec<Attempt>,
    received: Vec<Received>,
    touched: bool,
    ordering: Option<String>,
    deliver_at: Option<Timestamp>,
    collapse_key: Option<String>,
    /// A later stored message with the same key for the same endpoint.
    superseded_by: Option<Position>,
}

/// All messages in the store.
pub(crate) fn stored(reader: &dyn Reader) -> Vec<Message> {
    let lanes = reader.lanes().unwrap();
    let of_lane = |lane: &posthaste::store::Lane| {
        let start = Position {
            lane: lane.id,
            seq: 0,
        };
        reader.fetch(start, usize::MAX).unwrap()
    };
    lanes.iter().flat_map(of_lane).collect()
}

/// Judges a run whose faults have stopped and whose deliveries have come to rest.
pub(crate) async fn judge(world: &World, process: &Process) {
    let messages = stored(process.reader.as_ref());
    acknowledged(world, &messages);
    forged(world, &messages);
    let cases = cases(world, process, &messages).await;
    let unfinished = cases.iter().filter(|case| !is_final(case.state)).count();
    census(world, process, unfinished);
    let peers = world.peers.lock().clone();
    let history = world.history.lock();
    for case in &cases {
        state(world, &history, &peers[case.peer], case);
        duplicates(world, &history, case);
        agreement(world, &history, case);
        schedule(world, &history, &peers[case.peer], case);
    }
    order(world, &history, &peers, &cases);
    collapse(world, &cases);
}

const fn is_final(state: DeliveryState) -> bool {
    matches!(
        state,
        DeliveryState::Delivered
            | DeliveryState::Dead
            | DeliveryState::Cancelled
            | DeliveryState::Superseded
    )
}

/// C1: what was acknowledged is there, for the endpoints it named. P5: once per key.
fn acknowledged(world: &World, messages: &[Message]) {
    let ids: BTreeMap<String, &Message> =
        messages.iter().map(|m| (m.id().to_string(), m)).collect();
    let peers = world.peers.lock();
    for (op, publish) in world.history.lock().publishes.iter().enumerate() {
        for (id, targets) in &publish.accepted {
            let Some(message) = ids.get(id) else {
                world.broke(
                    "C1 no loss",
                    format!("{id} (event {op}) was acknowledged and is gone"),
                );
                continue;
            };
            if message.payload != publish.payload.as_bytes() {
                world.broke("C3 integrity", format!("{id} holds another payload"));
            }
            let names = message.targets.iter().filter_map(|no| {
                let peer = peers.iter().find(|peer| peer.no == Some(*no))?;
                peer.id.clone()
            });
            if *targets != names.collect::<BTreeSet<_>>() {
                world.broke("C1 no loss", format!("{id} is stored for other endpoints"));
            }
        }
        // An application that takes the uid of one that was deleted is another one: what is sent
        // again reaches it for the first time.
        let mut of_app: BTreeMap<AppNo, u32> = BTreeMap::new();
        for message in messages {
            if message.payload == publish.payload.as_bytes() {
                *of_app.entry(message.app).or_default() += 1;
            }
        }
        let count: u32 = of_app.values().sum();
        if of_app.values().any(|count| *count > 1) {
            world.broke(
                "P5 idempotent",
                format!("event {op} is stored {of_app:?} times"),
            );
        }
        if publish.accepted.is_empty() && publish.unknown > 0 && count == 1 {
            world.saw("an event stored without an answer");
        }
        if publish.refused && publish.accepted.is_empty() && publish.unknown == 0 && count > 0 {
            world.broke(
                "C2 no forgery",
                format!("event {op} was refused and is stored"),
            );
        }
    }
}

/// C2 and C3: what arrived was sent by somebody, and is what was sent.
fn forged(world: &World, messages: &[Message]) {
    let stored: BTreeMap<String, &Message> =
        messages.iter().map(|m| (m.id().to_string(), m)).collect();
    for received in &world.history.lock().received {
        match stored.get(&received.id) {
            None => world.broke("C2 no forgery", format!("{} was never stored", received.id)),
            Some(message) if message.payload != received.body => {
                world.broke("C3 integrity", format!("{} arrived changed", received.id));
            }
            Some(_) => {}
        }
    }
}

async fn cases(world: &World, process: &Process, messages: &[Message]) -> Vec<Case> {
    let mut by_pair: BTreeMap<(String, usize), Vec<Received>> = BTreeMap::new();
    for received in &world.history.lock().received {
        let pair = (received.id.clone(), received.peer);
        by_pair.entry(pair).or_default().push(received.clone());
    }
    let numbers: BTreeMap<EndpointNo, usize> = {
        let peers = world.peers.lock();
        let all = peers.iter().enumerate();
        all.filter_map(|(no, peer)| Some((peer.no?, no))).collect()
    };
    let mut cases = Vec::new();
    for message in messages {
        let tried = process.reader.attempts(message.at, None).unwrap();
        let mut targets: BTreeSet<EndpointNo> = message.targets.iter().copied().collect();
        targets.extend(tried.iter().map(|attempt| attempt.endpoint)); // replayed to others
        for endpoint in targets {
            let at = message.at;
            let delivery = Delivery { at, endpoint };
            let view = process.schedule.delivery(delivery).await.unwrap();
            let peer = numbers[&endpoint];
            let pair = (message.id().to_string(), peer);
            cases.push(Case {
                delivery,
                peer,
                state: view.state,
                attempts: view.attempts,
                received: by_pair.remove(&pair).unwrap_or_default(),
                touched: world.history.lock().is_touched(at, endpoint),
                ordering: message.ordering_key().map(str::to_owned),
                deliver_at: message.deliver_at(),
                collapse_key: message.collapse_key().map(str::to_owned),
                superseded_by: later(messages, message, endpoint),
            });
        }
    }
    for ((id, peer), _) in by_pair {
        world.broke(
            "C9 agreement",
            format!("{id} arrived at endpoint {peer}, nobody says why"),
        );
    }
    cases
}

/// The newest message that may take the place of this one.
fn later(messages: &[Message], of: &Message, endpoint: EndpointNo) -> Option<Position> {
    let key = of.collapse_key()?;
    let same = messages.iter().filter(|message| {
        message.app == of.app
            && message.collapse_key() == Some(key)
            && message.targets.contains(&endpoint)
            && message.at > of.at
    });
    same.map(|message| message.at).max()
}

/// Latest wins while waiting: once a later message of a key has arrived at an endpoint, an earlier one is
/// not sent any more, unless somebody wished it.
fn collapse(world: &World, cases: &[Case]) {
    let mut rows: BTreeMap<(usize, AppKey<'_>), Vec<&Case>> = BTreeMap::new();
    for case in cases.iter().filter(|case| !case.touched) {
        if let Some(key) = case.collapse_key.as_deref() {
            rows.entry((case.peer, key)).or_default().push(case);
        }
    }
    for ((peer, key), row) in rows {
        for case in &row {
            let later = row.iter().filter(|l| l.delivery.at > case.delivery.at);
            let arrived = later
                .flat_map(|later| &later.received)
                .map(|received| received.start);
            let Some(first) = arrived.min() else { continue };
            // An attempt that had begun may be dialled a second time.
            let again = case.received.iter().find(|r| r.start > first + GRACE);
            if let Some(received) = again {
                world.broke(
                    "collapse",
                    format!(
                        "endpoint {peer}, key {key}: {:?} is sent at {} ms, after a later one at {first} ms",
                        case.delivery.at, received.start
                    ),
                );
            }
        }
    }
}

/// Endpoints belong to one application, so the key is enough.
type AppKey<'a> = &'a str;

/// T40: rows, counters and states add up.
fn census(world: &World, process: &Process, unfinished: usize) {
    let (pending, _) = process.directory.total().pending();
    if pending != u64::try_from(unfinished).unwrap() {
        world.broke(
            "T40 census",
            format!("{unfinished} deliveries are unfinished, the counter says {pending}"),
        );
    }
    let mut rows = 0;
    for peer in world.peers.lock().iter() {
        let Some(no) = peer.no else { continue };
        let found = process
            .reader
            .parked(no, None, Timestamp::MAX, usize::MAX)
            .unwrap();
        let places: BTreeSet<Position> = found.iter().map(|row| row.key.at).collect();
        if places.len() != found.len() {
            world.broke(
                "T40 census",
                format!("a delivery to {no:?} is parked twice"),
            );
        }
        rows += found.len();
    }
    let parked = process.schedule.status().parked;
    if parked != u64::try_from(rows).unwrap() {
        world.broke(
            "T40 census",
            format!("{rows} rows, the scheduler counts {parked}"),
        );
    }
}

/// C1 and C10: it came to its end, and to one that its endpoint and its history allow.
fn state(world: &World, history: &History, peer: &Peer, case: &Case) {
    let (delivery, no) = (case.delivery, case.peer);
    let wrong = |rule: &str, why: &str| {
        world.broke(
            rule,
            format!(
                "{delivery:?} to endpoint {no} is {}: {why}",
                case.state.name()
            ),
        );
    };
    match case.state {
        DeliveryState::Delivered => world.saw("a delivery that was delivered"),
        DeliveryState::Dead => {
            world.saw("a delivery that died");
            let full = peer.schedule.len() + 1;
            if !case.touched && case.attempts.len() != full {
                wrong(
                    "C1 no loss",
                    &format!("{} attempts of {full}", case.attempts.len()),
                );
            }
        }
        DeliveryState::Cancelled => {
            world.saw("a delivery that was cancelled");
            if peer.deleted.is_none() && !history.cancelled.contains(&delivery) {
                wrong("C1 no loss", "nobody cancelled it");
            }
        }
        DeliveryState::Superseded => {
            world.saw("a delivery that was superseded");
            if case.superseded_by.is_none() {
                wrong("C1 no loss", "no later message took its place");
            }
        }
        DeliveryState::Held => {
            world.saw("a delivery that is held");
            if peer.off.is_none() {
                wrong("C10 liveness", "its endpoint is on");
            }
        }
        DeliveryState::Pending | DeliveryState::Sending | DeliveryState::Retrying => {
            wrong("C10 liveness", "long after everything was well");
        }
    }
}

/// C7: a second success needs a first one that the gateway could not know of, or somebody's wish.
fn duplicates(world: &World, history: &History, case: &Case) {
    let successes: Vec<&Received> = case.received.iter().filter(|r| is_success(r)).collect();
    let extra = successes.len().saturating_sub(1);
    if extra == 0 {
        return;
    }
    world.saw("a duplicate");
    let ambiguous = successes
        .iter()
        .filter(|r| !r.seen || is_losable(history, r))
        .count();
    let wished = history.again.get(&case.delivery).copied().unwrap_or(0)
        + history
            .recovered
            .get(&case.delivery.endpoint)
            .copied()
            .unwrap_or(0);
    if extra > ambiguous + usize::try_from(wished).unwrap() {
        world.broke(
            "C7 bounded duplicates",
            format!(
                "{:?} to endpoint {}: {extra} more than one, {ambiguous} ambiguous, {wished} wished for",
                case.delivery, case.peer
            ),
        );
    }
}

const fn is_success(received: &Received) -> bool {
    received.sent >= 200 && received.sent < 300
}

/// The process ended before what it saw was surely stored.
fn is_losable(history: &History, received: &Received) -> bool {
    let end = received.end.unwrap();
    let mut deaths = history.deaths.iter();
    deaths.any(|death| (end..=end + LOSABLE).contains(&death.at))
}

/// C9: what the gateway says is what the endpoint saw.
fn agreement(world: &World, history: &History, case: &Case) {
    let (delivery, no) = (case.delivery, case.peer);
    let arrived = case.received.iter().any(is_success);
    if case.state == DeliveryState::Delivered && !arrived {
        world.broke(
            "C9 agreement",
            format!("{delivery:?} counts as delivered, endpoint {no} never took it"),
        );
    }
    let certain = case
        .received
        .iter()
        .any(|r| is_success(r) && r.seen && !is_losable(history, r));
    if certain && !case.touched && case.state != DeliveryState::Delivered {
        world.broke(
            "C9 agreement",
            format!(
                "{delivery:?} was taken by endpoint {no} and is {}",
                case.state.name()
            ),
        );
    }
    // An endpoint that is deleted between start and attempt is not called.
    let blocked = Some(posthaste::model::FailureKind::BlockedAddress);
    let made = case
        .attempts
        .iter()
        .filter(|a| a.outcome.failure != blocked)
        .count();
    if made > case.received.len() {
        world.broke(
            "C9 agreement",
            format!(
                "{delivery:?}: {made} attempts are recorded, endpoint {no} saw {}",
                case.received.len()
            ),
        );
    }
}

/// C8: numbers are dense, waits lie in the window of the schedule or are what was asked for, and no
/// attempt starts before its time.
fn schedule(world: &World, history: &History, peer: &Peer, case: &Case) {
    let wrong = |why: String| {
        let delivery = case.delivery;
        world.broke(
            "C8 schedule",
            format!("{delivery:?} to endpoint {}: {why}", case.peer),
        );
    };
    for (place, attempt) in case.attempts.iter().enumerate() {
        if usize::from(attempt.no) != place + 1 {
            wrong(format!("attempt {} is number {}", place + 1, attempt.no));
        }
    }
    if case.touched {
        return;
    }
    if let Some(due) = case.deliver_at.filter(|_| history.steps.is_empty()) {
        for received in &case.received {
            if world.clock.wall(received.start) < due {
                wrong(format!("began at {} ms, before {due:?}", received.start));
            }
            world.saw("a delayed message that kept its time");
        }
    }
    for (place, attempt) in case.attempts.iter().enumerate() {
        if attempt.verdict == Verdict::Dead(DeadReason::Exhausted) {
            world.saw("a schedule used up");
        }
        let Verdict::RetryAt(due) = attempt.verdict else {
            continue;
        };
        let Some(delay) = peer.schedule.get(place) else {
            wrong(format!("a retry after attempt {}", place + 1));
            continue;
        };
        let wait = due.since(attempt.ended).as_secs_f64();
        let delay = *delay as f64;
        let hint = f64::from(attempt.outcome.retry_after_secs.unwrap_or(0));
        if hint > delay * 1.2 {
            world.saw("a Retry-After longer than the schedule");
        }
        let least = (delay * 0.8).max(hint) - 0.002;
        let most = (delay * 1.2).max(hint) + 0.002;
        if !(least..=most).contains(&wait) {
            wrong(format!("waits {wait} s, wanted {least} to {most}"));
        }
        // While the wall clock is stepped the ends of attempts do not tell their beginnings.
        let Some(next) = case
            .attempts
            .get(place + 1)
            .filter(|_| history.steps.is_empty())
        else {
            continue;
        };
        let took = std::time::Duration::from_millis(next.duration_ms.into());
        if next
            .ended
            .minus(took)
            .plus(std::time::Duration::from_millis(1))
            < due
        {
            wrong(format!("attempt {} began before its time", place + 2));
        }
        world.saw("a retry that kept its time");
    }
}

/// C6: at ordered endpoints no attempt begins before everything earlier has ended.
fn order(world: &World, history: &History, peers: &[Peer], cases: &[Case]) {
    let mut rows: BTreeMap<(usize, Option<&str>), Vec<&Case>> = BTreeMap::new();
    for case in cases {
        let key = match peers[case.peer].order {
            Order::None => continue,
            Order::Endpoint => None,
            Order::Key => match &case.ordering {
                Some(key) => Some(key.as_str()),
                None => continue,
            },
        };
        rows.entry((case.peer, key)).or_default().push(case);
    }
    for ((peer, key), mut row) in rows {
        row.retain(|case| !case.touched);
        row.sort_by_key(|case| case.delivery.at);
        for (place, case) in row.iter().enumerate() {
            let Some(start) = case.received.iter().map(|r| r.start).min() else {
                continue;
            };
            for earlier in &row[..place] {
                if !has_ended(earlier, start) && !had_died(history, &peers[peer], earlier, start) {
                    world.broke(
                        "C6 order",
                        format!(
                            "endpoint {peer}, key {key:?}: {:?} began at {start} ms before {:?} had ended",
                            case.delivery.at, earlier.delivery.at
                        ),
                    );
                }
            }
            if place > 0 {
                world.saw("an ordered pair");
            }
        }
    }
}

fn has_ended(case: &Case, by: u64) -> bool {
    let over = |r: &Received| r.end.is_some_and(|end| end <= by);
    // A success that was lost with the process had ended the delivery, whatever came of it later.
    let delivered = case
        .received
        .iter()
        .any(|r| is_success(r) && r.seen && over(r));
    delivered
        || match case.state {
            DeliveryState::Cancelled | DeliveryState::Superseded => true,
            DeliveryState::Dead => case.received.iter().all(over),
            _ => false,
        }
}

/// Its schedule was used up by then, and that was lost with the process soon after.
fn had_died(history: &History, peer: &Peer, case: &Case, by: u64) -> bool {
    let before = case
        .received
        .iter()
        .filter(|r| r.end.is_some_and(|end| end <= by));
    let last = before.clone().max_by_key(|r| r.end);
    before.count() > peer.schedule.len() && last.is_some_and(|last| is_losable(history, last))
}
