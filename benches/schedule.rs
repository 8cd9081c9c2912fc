//! The scheduler's core: what one delivery costs from its commit to its settlement, without I/O.

use std::hint::black_box;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use criterion::{BatchSize, Criterion, Throughput, criterion_group, criterion_main};
use posthaste::base::Timestamp;
use posthaste::model::{
    AppNo, ContentType, Delivery, DisablePolicy, EndpointNo, LaneId, Message, Order, Outcome,
    Position,
};
use posthaste::policy::retry::RetryPlan;
use posthaste::schedule::core::{Command, Core, Failing, Finished, Input, Plan, Settings};

const MESSAGES: u64 = 1024;

fn plan(no: u32) -> Plan {
    Plan {
        endpoint: EndpointNo(no),
        app: AppNo(no),
        destination: 0,
        sending: true,
        disabled_by_hand: false,
        deleted: false,
        concurrency: 100,
        rate: None,
        failing: Arc::new(Failing {
            retry: RetryPlan {
                delays: Arc::from([Duration::from_secs(5)]),
                jitter: 0.2,
                max_retry_after: Duration::from_secs(86_400),
            },
            disable: DisablePolicy::Never,
        }),
        order: Order::None,
    }
}

fn message(seq: u64, endpoint: u32) -> Arc<Message> {
    Arc::new(Message {
        at: Position {
            lane: LaneId(1),
            seq,
        },
        accepted: Timestamp::from_millis(1),
        app: AppNo(endpoint),
        event_type: Arc::from("invoice.paid"),
        content_type: ContentType::Json,
        payload: Bytes::from_static(&[b'x'; 1024]),
        targets: vec![EndpointNo(endpoint)],
        labels: None,
    })
}

fn prepared(endpoints: u32) -> Core {
    let mut core = Core::new(Settings::default());
    let mut out = Vec::new();
    for no in 0..endpoints {
        core.step(
            Timestamp::from_millis(1),
            Input::Endpoint(Box::new(plan(no))),
            &mut out,
        );
    }
    core
}

/// Commits a group, starts and ends every attempt, takes the settlements.
fn deliver_all(core: &mut Core, group: Vec<Arc<Message>>, status: u16) -> usize {
    let mut now = Timestamp::from_millis(10);
    let mut out = Vec::new();
    let committed = Input::Committed {
        lane: LaneId(1),
        last: MESSAGES,
        messages: group,
    };
    core.step(now, committed, &mut out);
    let mut settled = 0;
    loop {
        core.pump(now, usize::MAX, &mut out);
        if !out
            .iter()
            .any(|command| matches!(command, Command::Start(_)))
        {
            break;
        }
        now = now.plus(Duration::from_millis(1));
        for command in std::mem::take(&mut out) {
            let Command::Start(job) = command else {
                continue;
            };
            let finished = Finished {
                delivery: Delivery {
                    at: job.message.at,
                    endpoint: job.endpoint,
                },
                outcome: Outcome {
                    status,
                    failure: None,
                    retry_after_secs: None,
                },
                duration_ms: 1,
                response: Bytes::new(),
                resolver_down: false,
                random: 0.5,
            };
            core.step(now, Input::Finished(Box::new(finished)), &mut out);
        }
        if let Some((number, settlement)) = core.take_settlement() {
            settled += settlement.attempts.len();
            core.step(now, Input::Applied(number), &mut out);
        }
    }
    settled
}

fn step(c: &mut Criterion) {
    let mut group = c.benchmark_group("schedule");
    group.throughput(Throughput::Elements(MESSAGES));
    for endpoints in [1_u32, 1000] {
        group.bench_function(
            format!("deliver 1024 messages to {endpoints} endpoints"),
            |b| {
                b.iter_batched(
                    || {
                        let messages = (1..=MESSAGES)
                            .map(|seq| message(seq, u32::try_from(seq).unwrap_or(0) % endpoints));
                        (prepared(endpoints), messages.collect::<Vec<_>>())
                    },
                    |(mut core, messages)| black_box(deliver_all(&mut core, messages, 200)),
                    BatchSize::LargeInput,
                );
            },
        );
    }
    group.finish();
}

criterion_group!(benches, step);
criterion_main!(benches);
