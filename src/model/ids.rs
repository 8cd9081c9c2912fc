//! Identifiers: the public ones of `api.md` 2.3, and the small numbers that stand for them inside.
//!
//! Numbers (`AppNo`, `EndpointNo`) are given once, in order, and never again to something else; they
//! keep the keys of the store short. A message's public id carries its [`Position`] in the log, so a
//! lookup by id needs no index.

use std::fmt;

use serde::{Deserialize, Serialize};

use crate::base::{BadId, Id20, Timestamp};

macro_rules! public_id {
    ($(#[$doc:meta])* $name:ident, $prefix:literal) => {
        $(#[$doc])*
        #[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
        pub struct $name(pub Id20);

        impl $name {
            /// What the text form begins with.
            pub const PREFIX: &'static str = $prefix;

            /// From random or positional bits behind the millisecond.
            pub fn new(at: Timestamp, unique: [u8; 14]) -> Self {
                Self(Id20::new(at, unique))
            }

            /// Reads the text form.
            pub fn parse(text: &str) -> Result<Self, BadId> {
                Id20::parse(Self::PREFIX, text).map(Self)
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(&self.0.text(Self::PREFIX))
            }
        }

        impl fmt::Debug for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                fmt::Display::fmt(self, f)
            }
        }

        impl Serialize for $name {
            fn serialize<S: serde::Serializer>(&self, to: S) -> Result<S::Ok, S::Error> {
                to.collect_str(self)
            }
        }

        impl<'de> Deserialize<'de> for $name {
            fn deserialize<D: serde::Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
                let text = String::deserialize(from)?;
                Self::parse(&text).map_err(serde::de::Error::custom)
            }
        }
    };
}

public_id!(
    /// An application (tenant).
    AppId, "app_");
public_id!(
    /// An endpoint of an application.
    EndpointId, "ep_");
public_id!(
    /// An API key.
    KeyId, "key_");
public_id!(
    /// A source: an inbound receiver.
    SourceId, "src_");
public_id!(
    /// A background task.
    TaskId, "qtask_");
public_id!(
    /// One HTTP exchange of a delivery.
    AttemptId, "atmpt_");
public_id!(
    /// A message: when it was accepted and where it stands in the log.
    MessageId, "msg_");

impl MessageId {
    /// The id of the message accepted at `accepted` and written at `at`.
    pub fn of(accepted: Timestamp, at: Position) -> Self {
        let mut unique = [0; 14];
        let (place, _spare) = unique.split_at_mut(12);
        place.copy_from_slice(&at.bytes());
        Self::new(accepted, unique)
    }

    /// Where the message stands, and when it was accepted. A made-up id gives a made-up answer: the
    /// reader compares both with what is stored there.
    pub fn place(self) -> (Timestamp, Position) {
        let [a, b, c, d, rest @ ..] = self.0.unique();
        let [e, f, g, h, i, j, k, l, _, _] = rest;
        let position = Position {
            lane: LaneId(u32::from_be_bytes([a, b, c, d])),
            seq: u64::from_be_bytes([e, f, g, h, i, j, k, l]),
        };
        (self.0.at(), position)
    }
}

impl AttemptId {
    /// The id of the attempt that ended at `ended`.
    pub fn of(ended: Timestamp, endpoint: EndpointNo, at: Position, no: u16) -> Self {
        let mut unique = [0; 14];
        let (head, rest) = unique.split_at_mut(4);
        head.copy_from_slice(&endpoint.0.to_be_bytes());
        let (seq, tail) = rest.split_at_mut(8);
        seq.copy_from_slice(&at.seq.to_be_bytes());
        tail.copy_from_slice(&no.to_be_bytes());
        Self::new(ended, unique)
    }

    /// Endpoint, sequence number in its lane, attempt number.
    pub fn parts(self) -> (EndpointNo, u64, u16) {
        let [a, b, c, d, rest @ ..] = self.0.unique();
        let [e, f, g, h, i, j, k, l, m, n] = rest;
        (
            EndpointNo(u32::from_be_bytes([a, b, c, d])),
            u64::from_be_bytes([e, f, g, h, i, j, k, l]),
            u16::from_be_bytes([m, n]),
        )
    }
}

/// Number of an application in this store. Never reused.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Serialize, Deserialize)]
pub struct AppNo(pub u32);

/// Number of an endpoint in this store. Never reused.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Serialize, Deserialize)]
pub struct EndpointNo(pub u32);

/// Number of a source in this store. Never reused.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Serialize, Deserialize)]
pub struct SourceNo(pub u32);

/// One writer's append log. Every process start opens a new one; numbers are never reused.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Default)]
pub struct LaneId(pub u32);

impl fmt::Display for LaneId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

public_id! {
    /// An entry of the audit log.
    AuditId, "aud_"
}

/// Where a message stands: sequence numbers are dense within a lane and start at 1.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Default)]
pub struct Position {
    /// The log.
    pub lane: LaneId,
    /// The place in it.
    pub seq: u64,
}

impl Position {
    /// Before every message.
    pub const START: Self = Self {
        lane: LaneId(0),
        seq: 0,
    };

    /// Behind every message.
    pub const END: Self = Self {
        lane: LaneId(u32::MAX),
        seq: u64::MAX,
    };

    /// Big-endian key form: sorts as the position does.
    pub fn bytes(self) -> [u8; 12] {
        let [a, b, c, d] = self.lane.0.to_be_bytes();
        let [e, f, g, h, i, j, k, l] = self.seq.to_be_bytes();
        [a, b, c, d, e, f, g, h, i, j, k, l]
    }

    /// Reads the key form.
    pub const fn from_bytes(bytes: [u8; 12]) -> Self {
        let [a, b, c, d, e, f, g, h, i, j, k, l] = bytes;
        Self {
            lane: LaneId(u32::from_be_bytes([a, b, c, d])),
            seq: u64::from_be_bytes([e, f, g, h, i, j, k, l]),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_message_id_carries_its_place() {
        let at = Position {
            lane: LaneId(7),
            seq: 1 << 40,
        };
        let accepted = Timestamp::from_millis(1_767_600_930_120);
        let id = MessageId::of(accepted, at);
        assert_eq!(id.place(), (accepted, at));
        assert_eq!(MessageId::parse(&id.to_string()), Ok(id));
        assert_eq!(id.to_string().len(), 31);
    }

    #[test]
    fn an_attempt_id_carries_endpoint_sequence_and_number() {
        let at = Position {
            lane: LaneId(7),
            seq: 99,
        };
        let id = AttemptId::of(Timestamp::from_millis(5), EndpointNo(3), at, 2);
        assert_eq!(id.parts(), (EndpointNo(3), 99, 2));
        assert_eq!(id.to_string().len(), 33);
    }

    #[test]
    fn positions_sort_like_their_keys() {
        let a = Position {
            lane: LaneId(1),
            seq: u64::MAX,
        };
        let b = Position {
            lane: LaneId(2),
            seq: 0,
        };
        assert!(a < b && a.bytes() < b.bytes());
        assert_eq!(Position::from_bytes(a.bytes()), a);
    }
}
