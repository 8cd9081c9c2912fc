//! What the scheduler needs of an endpoint, with the instance's defaults filled in.

use std::hash::{DefaultHasher, Hash, Hasher};
use std::sync::Arc;
use std::time::Duration;

use super::core::{Failing, Plan};
use crate::config;
use crate::directory::Snapshot;
use crate::model::{AppNo, DisableReason, Endpoint};
use crate::policy::retry::RetryPlan;

/// How many attempts an application may have under way at the same time, if that is limited.
pub(super) fn quota(snapshot: &Snapshot, app: AppNo) -> Option<usize> {
    let quota = snapshot.app_by_no(app)?.app.quotas.concurrency;
    quota.map(usize::from)
}

/// Tells URLs apart for as long as the process lives.
fn destination(url: &str) -> u64 {
    let mut hasher = DefaultHasher::new();
    url.hash(&mut hasher);
    hasher.finish()
}

/// The plan of an endpoint.
pub(super) fn of(endpoint: &Endpoint, defaults: &config::Delivery) -> Plan {
    let delays: Arc<[Duration]> = match &endpoint.retry_schedule {
        Some(list) => list
            .iter()
            .map(|secs| Duration::from_secs((*secs).into()))
            .collect(),
        None => defaults.retry_schedule.clone().into(),
    };
    Plan {
        endpoint: endpoint.no,
        app: endpoint.app,
        destination: destination(&endpoint.url),
        sending: endpoint.is_sending(),
        disabled_by_hand: endpoint.disabled == Some(DisableReason::Manual),
        deleted: endpoint.deleted.is_some(),
        concurrency: endpoint
            .max_concurrency
            .unwrap_or(defaults.endpoint_concurrency),
        rate: endpoint.throttle_rate,
        failing: Arc::new(Failing {
            retry: RetryPlan {
                delays,
                jitter: defaults.jitter,
                max_retry_after: defaults.max_retry_after,
            },
            disable: endpoint.disable_policy.unwrap_or(defaults.disable),
        }),
        order: endpoint.order,
    }
}
