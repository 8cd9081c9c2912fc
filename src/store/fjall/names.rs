//! What leads to a message by a name: event ids, and the newest message of a collapse key; and how
//! deliveries end that no attempt ended.
//!
//! Names stand under hashes among the idempotency records and leave with their messages (ADR 0104).

use super::spaces::{Space, Spaces};
use super::writer::{Commit, hash};
use super::{keys, record};
use crate::model::Message;
use crate::store::{Settlement, collapse_id};

/// Puts the names of a message that has its place.
pub(super) fn put(commit: &mut Commit, spaces: &Spaces, message: &Message) {
    let mut name = |text: &str| {
        let key = keys::event_id(message.app, &hash(text.as_bytes()));
        let value = record::event_id(&key, message.at, message.accepted);
        commit.put(spaces, Space::Idem, &key, value);
    };
    if let Some(event_id) = message.event_id() {
        name(event_id);
    }
    if let Some(collapse_key) = message.collapse_key() {
        for target in &message.targets {
            name(&collapse_id(*target, collapse_key));
        }
    }
}

/// Puts what was cancelled and what was superseded.
pub(super) fn put_ends(commit: &mut Commit, spaces: &Spaces, settlement: &Settlement) {
    for delivery in &settlement.cancelled {
        let key = keys::attempt(delivery.at, delivery.endpoint, 0);
        commit.put(spaces, Space::AttemptsLate, &key, record::cancelled(&key));
    }
    for (delivery, by) in &settlement.superseded {
        let key = keys::attempt(delivery.at, delivery.endpoint, 0);
        let value = record::superseded(&key, *by);
        commit.put(spaces, Space::AttemptsLate, &key, value);
    }
}
