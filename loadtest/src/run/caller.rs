//! The management API beside the load: what an operator's page costs while the gateway is busy.
//!
//! Calls are planned at a fixed rate from the end of the warm-up on and made one after another over one
//! connection; a call that comes late because the one before took long is charged for the wait.

use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use anyhow::Context;

use super::{Stage, Target};
use crate::generator::Load;
use crate::hist::Histogram;
use crate::population::Api;
use crate::scenario::ManagementPlan;

/// What came of the calls.
#[derive(Default)]
pub(super) struct Called {
    pub(super) latency: Histogram,
    pub(super) failed: u64,
}

/// Calls until the planned end of the load, or until `over`.
///
/// # Errors
/// The adapter has no such calls, or the connection failed.
pub(super) fn call(
    (stage, target): (&Stage, &Target),
    plan: ManagementPlan,
    (begin, load): (Instant, &Load),
    over: &AtomicBool,
) -> anyhow::Result<Called> {
    let adapter = &target.adapter;
    let values = stage.loaded().first().context("no application")?;
    let calls = adapter.manage.iter().map(|step| step.call(values));
    let calls = calls.collect::<anyhow::Result<Vec<_>>>()?;
    let mut next = calls.iter().zip(&adapter.manage).cycle();
    let gateway = &stage.gateway;
    let from = begin + load.warm_up;
    crate::connection::local_runtime()?.block_on(async {
        let mut api = Api::open(adapter, gateway.address, &gateway.key).await?;
        let mut called = Called::default();
        for n in 0_u32.. {
            let due = Duration::from_secs_f64(f64::from(n) / plan.rate);
            if due >= load.duration || over.load(Ordering::Relaxed) {
                break;
            }
            let due = from + due;
            tokio::time::sleep_until(due.into()).await;
            let (call, step) = next
                .next()
                .with_context(|| format!("the adapter {} has no [[manage]]", adapter.name))?;
            let (status, _) = api.call(call).await?;
            called.latency.record(due.elapsed());
            called.failed += u64::from(!step.accepts(status));
        }
        Ok(called)
    })
}
