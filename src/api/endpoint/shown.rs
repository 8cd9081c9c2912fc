//! EndpointOut: an endpoint as it is answered. Never its secret, never header values.

use std::collections::BTreeMap;

use serde::Serialize;
use serde_json::Value;

use super::wanted::{exclude_pii_as_sent, policy_as_sent};
use crate::base::Timestamp;
use crate::expression::Expression;
use crate::model::{DisableReason, Endpoint, EndpointId, Envelope, Order, Profile};

/// EndpointOut of `api.md` 4 and 6; the names of SDK 1.x stand beside the new ones.
#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
pub(in crate::api) struct Out<'a> {
    pub(in crate::api) id: EndpointId,
    url: &'a str,
    description: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    metadata: Option<&'a BTreeMap<String, String>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    uid: Option<&'a str>,
    disabled: bool,
    #[serde(skip_serializing_if = "Option::is_none")]
    disabled_reason: Option<DisableReason>,
    #[serde(skip_serializing_if = "Option::is_none")]
    event_types: Option<&'a [String]>,
    #[serde(skip_serializing_if = "Option::is_none")]
    filter_types: Option<&'a [String]>,
    #[serde(skip_serializing_if = "Option::is_none")]
    channels: Option<&'a [String]>,
    #[serde(skip_serializing_if = "Option::is_none")]
    filter: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    throttle_rate: Option<u16>,
    #[serde(skip_serializing_if = "Option::is_none")]
    rate_limit: Option<u16>,
    version: u16,
    created_at: Timestamp,
    updated_at: Timestamp,
    paused: bool,
    envelope: Envelope,
    order: Order,
    exclude_pii: Value,
    #[serde(skip_serializing_if = "Option::is_none")]
    signature: Option<&'a Profile>,
    #[serde(skip_serializing_if = "Option::is_none")]
    timeout_ms: Option<u32>,
    #[serde(skip_serializing_if = "Option::is_none")]
    max_concurrency: Option<u16>,
    #[serde(skip_serializing_if = "Option::is_none")]
    retry_schedule: Option<&'a [u32]>,
    #[serde(skip_serializing_if = "Option::is_none")]
    disable_policy: Option<Value>,
}

impl<'a> Out<'a> {
    pub(in crate::api) fn of(endpoint: &'a Endpoint) -> Self {
        let event_types = endpoint.event_types.as_deref();
        Self {
            id: endpoint.id,
            url: &endpoint.url,
            description: &endpoint.description,
            metadata: Some(&endpoint.metadata),
            uid: endpoint.uid.as_deref(),
            disabled: endpoint.disabled.is_some(),
            disabled_reason: endpoint.disabled,
            event_types,
            filter_types: event_types,
            channels: endpoint.channels.as_deref(),
            filter: endpoint.filter.as_deref().map(Expression::source),
            throttle_rate: endpoint.throttle_rate,
            rate_limit: endpoint.throttle_rate,
            version: 1,
            created_at: endpoint.created,
            updated_at: endpoint.updated,
            paused: endpoint.paused,
            envelope: endpoint.envelope,
            order: endpoint.order,
            exclude_pii: exclude_pii_as_sent(endpoint.exclude_pii.as_deref()),
            signature: endpoint.signature.as_deref(),
            timeout_ms: endpoint.timeout_ms,
            max_concurrency: endpoint.max_concurrency,
            retry_schedule: endpoint.retry_schedule.as_deref(),
            disable_policy: endpoint.disable_policy.map(policy_as_sent),
        }
    }

    /// Without metadata, as it stands in MessageEndpointOut.
    pub(in crate::api) fn without_metadata(mut self) -> Self {
        self.metadata = None;
        self
    }
}
