//! Messages as JSON, written by hand into one buffer: the payload is copied, never parsed.

use super::reply::write_json;
use crate::model::Message;

/// Writes MessageOut without its closing brace, so that more fields can follow.
pub(super) fn write_message(out: &mut Vec<u8>, message: &Message, with_content: bool) {
    // Ids, times and event types have no character that needs an escape.
    out.extend_from_slice(b"{\"id\":\"msg_");
    out.extend_from_slice(&message.id().0.digits());
    out.extend_from_slice(b"\",\"eventType\":\"");
    out.extend_from_slice(message.event_type.as_bytes());
    out.extend_from_slice(b"\",\"payload\":");
    out.extend_from_slice(if with_content && !message.is_expunged() {
        &message.payload
    } else {
        b"{}"
    });
    out.extend_from_slice(b",\"timestamp\":\"");
    out.extend_from_slice(message.accepted.rfc3339().as_bytes());
    out.push(b'"');
    let Some(labels) = &message.labels else {
        return;
    };
    if let Some(event_id) = &labels.event_id {
        field(out, "eventId", event_id);
    }
    if !labels.channels.is_empty() {
        field(out, "channels", &labels.channels);
    }
    if !labels.tags.is_empty() {
        field(out, "tags", &labels.tags);
    }
    if let Some(key) = &labels.ordering_key {
        field(out, "orderingKey", key);
    }
    if let Some(key) = &labels.collapse_key {
        field(out, "collapseKey", key);
    }
    if let Some(at) = &labels.deliver_at {
        field(out, "deliverAt", at);
    }
    if !labels.metadata.is_empty() {
        // The body as it came is content.
        let shown = labels.metadata.iter();
        let shown = shown.filter(|(name, _)| with_content || !name.starts_with("raw"));
        let shown: std::collections::BTreeMap<_, _> = shown.collect();
        field(out, "metadata", &shown);
    }
}

/// Writes `,"name":value`.
pub(super) fn field(out: &mut Vec<u8>, name: &str, value: &(impl serde::Serialize + ?Sized)) {
    out.push(b',');
    write_json(out, name);
    out.push(b':');
    write_json(out, value);
}
