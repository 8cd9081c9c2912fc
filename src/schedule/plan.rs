//! What the scheduler needs of an endpoint, with the instance's defaults filled in.

use std::sync::Arc;
use std::time::Duration;

use super::core::Plan;
use crate::config;
use crate::model::{DisableReason, Endpoint};
use crate::policy::retry::RetryPlan;

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
        sending: endpoint.is_sending(),
        disabled_by_hand: endpoint.disabled == Some(DisableReason::Manual),
        deleted: endpoint.deleted.is_some(),
        concurrency: endpoint
            .max_concurrency
            .unwrap_or(defaults.endpoint_concurrency),
        rate: endpoint.throttle_rate,
        retry: RetryPlan {
            delays,
            jitter: defaults.jitter,
            max_retry_after: defaults.max_retry_after,
        },
        disable: endpoint.disable_policy.unwrap_or(defaults.disable),
        order: endpoint.order,
    }
}
