//! `loadtest record`: recorded load and a recording receiver for a gateway that runs already.
//!
//! The endpoints must exist there, with URLs `http://RECEIVER/NAME`. States are not asked for, so
//! `loadtest check` judges what was sent and what arrived.

use std::time::Duration;

use anyhow::{Context, bail};

use super::history::{EndpointTerms, PRODUCER, RuleTerms, TERMS, Term};
use super::journal::Journal;
use super::producer::{Caller, Producer, Stream};
use super::receiver::{Behaviour, Receiver};
use crate::cli::RecordArgs;
use crate::clock::Clock;
use crate::report::say;

/// Records until the time is over, or until it is killed.
pub(crate) fn record(args: &RecordArgs) -> anyhow::Result<()> {
    std::fs::create_dir_all(&args.dir)?;
    if args.dir.join(PRODUCER).exists() {
        bail!(
            "{} holds a history already: take another directory",
            args.dir.display()
        );
    }
    let clock = Clock::start();
    let mut receiver = Receiver::start(args.listen, clock)?;
    receiver.record_in(&args.dir)?;
    let terms = Journal::open(&args.dir, TERMS)?;
    terms.append(&Term::Rules(RuleTerms {
        without_states: true,
        ..RuleTerms::default()
    }))?;
    for endpoint in &args.endpoint {
        let mut parts = endpoint.splitn(3, '=');
        let mut part = || parts.next().context("want NAME=ID=SECRET");
        let (name, id, secret) = (part()?, part()?, part()?);
        receiver.endpoint(name, secret, Behaviour::Well)?;
        terms.append(&Term::Endpoint(EndpointTerms {
            name: name.to_owned(),
            id: id.to_owned(),
            app: args.app.clone(),
            limit: u32::MAX,
            ordered: false,
            schedule_ms: Vec::new(),
            drains: false,
            well: true,
        }))?;
    }
    say(&format!("receiver on http://{}", receiver.address));
    let key = args.key.as_deref().unwrap_or_default();
    let caller = Caller::new(args.address, key, clock, &args.dir)?;
    let load = Producer::start(
        &caller,
        &[Stream {
            app: args.app.clone(),
            connections: args.connections,
            pause: Duration::from_millis(args.pause_ms),
            size: args.size,
        }],
    )?;
    let begun = std::time::Instant::now();
    while args.duration == 0 || begun.elapsed() < Duration::from_secs(args.duration) {
        std::thread::sleep(Duration::from_millis(100));
    }
    load.stop()?;
    // What is under way may still arrive.
    std::thread::sleep(Duration::from_secs(args.linger));
    receiver.stop();
    receiver
        .broken()
        .map_or(Ok(()), |why| Err(anyhow::anyhow!(why)))
}
