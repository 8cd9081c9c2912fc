//! The expressions that filter messages by their payload: a small subset of CEL.
//!
//! Owns: the language (`docs/FILTERS.md`), its parser and its evaluation, both of them bounded. An
//! expression has at most [`MAX_LENGTH`] bytes and [`MAX_DEPTH`] levels, an evaluation takes at most
//! [`MAX_STEPS`] steps and no memory to speak of; nothing recurses deeper than the levels of the
//! expression or of the payload. Why not a crate: ADR 0340. Pure. Elsewhere: which endpoint asks
//! (`policy::filter`), what a failure is counted as (`ingest`).
#![deny(clippy::indexing_slicing, clippy::wildcard_enum_match_arm)]

mod eval;
mod parse;
mod scan;

use std::cell::OnceCell;
use std::fmt;
use std::sync::Arc;

use serde::{Deserialize, Deserializer, Serialize, Serializer};
use serde_json::Value;

use parse::Node;

/// Bytes of an expression at most.
pub const MAX_LENGTH: usize = 2048;
/// Levels of an expression at most: parentheses, operators and the parts of a path alike.
pub const MAX_DEPTH: usize = 32;
/// Steps of one evaluation at most: one for each operator, element and 32 bytes that are looked at.
pub const MAX_STEPS: u32 = 20_000;

/// An expression, compiled once. Cloning shares the compiled form.
#[derive(Clone)]
pub struct Expression {
    source: Arc<str>,
    /// A stored expression that this version cannot read matches nothing, and says so.
    program: Result<Arc<Node>, Mistake>,
    needs_payload: bool,
}

/// Why a text is no expression.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Mistake {
    /// Byte of the text, from 0.
    pub at: usize,
    /// What is wrong there.
    pub what: &'static str,
}

impl fmt::Display for Mistake {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "at byte {}: {}", self.at, self.what)
    }
}

/// Why an expression came to no answer. The message then does not match.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Failure {
    /// What happened.
    pub kind: FailureKind,
    /// Byte of the expression, from 0.
    pub at: usize,
}

/// What can go wrong in an evaluation, a closed set.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum FailureKind {
    /// The payload has no such field or element.
    Missing,
    /// A value is of another type than the operator wants.
    Type,
    /// It took more than [`MAX_STEPS`].
    Cost,
    /// The payload cannot be read: it was expunged, or has a number beyond the range of a double.
    Payload,
    /// The stored expression is none that this version reads.
    Invalid,
}

impl FailureKind {
    /// All of them.
    pub const ALL: [Self; 5] = [
        Self::Missing,
        Self::Type,
        Self::Cost,
        Self::Payload,
        Self::Invalid,
    ];

    /// As it stands in answers and on the metrics page.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Missing => "missing",
            Self::Type => "type",
            Self::Cost => "cost",
            Self::Payload => "payload",
            Self::Invalid => "invalid",
        }
    }
}

/// What an expression can ask of one message. The payload is parsed at most once, and only when an
/// expression comes to it.
pub struct Facts<'a> {
    event_type: &'a str,
    channels: &'a [String],
    tags: &'a [String],
    payload: &'a [u8],
    parsed: OnceCell<Option<Value>>,
}

impl<'a> Facts<'a> {
    /// Of these parts; `payload` is JSON text.
    pub const fn new(
        event_type: &'a str,
        channels: &'a [String],
        tags: &'a [String],
        payload: &'a [u8],
    ) -> Self {
        Self {
            event_type,
            channels,
            tags,
            payload,
            parsed: OnceCell::new(),
        }
    }

    /// The type of the message.
    pub const fn event_type(&self) -> &'a str {
        self.event_type
    }

    /// The channels of the message.
    pub const fn channels(&self) -> &'a [String] {
        self.channels
    }

    /// The payload as a value; `None` if it cannot be read.
    pub fn payload(&self) -> Option<&Value> {
        let parsed = self
            .parsed
            .get_or_init(|| serde_json::from_slice(self.payload).ok());
        parsed.as_ref()
    }
}

impl Expression {
    /// Reads a text.
    pub fn parse(source: &str) -> Result<Self, Mistake> {
        let program = parse::program(source)?;
        Ok(Self {
            source: source.into(),
            needs_payload: program.asks_payload(),
            program: Ok(Arc::new(program)),
        })
    }

    /// Whether the message matches.
    pub fn matches(&self, facts: &Facts<'_>) -> Result<bool, Failure> {
        match &self.program {
            Ok(program) => eval::run(program, facts),
            Err(mistake) => Err(Failure {
                kind: FailureKind::Invalid,
                at: mistake.at,
            }),
        }
    }

    /// The text.
    pub fn source(&self) -> &str {
        &self.source
    }

    /// Whether it looks at the payload at all.
    pub const fn needs_payload(&self) -> bool {
        self.needs_payload
    }
}

impl PartialEq for Expression {
    fn eq(&self, other: &Self) -> bool {
        self.source == other.source
    }
}

impl Eq for Expression {}

impl fmt::Debug for Expression {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Expression").field(&self.source).finish()
    }
}

impl Serialize for Expression {
    fn serialize<S: Serializer>(&self, to: S) -> Result<S::Ok, S::Error> {
        to.serialize_str(&self.source)
    }
}

impl<'de> Deserialize<'de> for Expression {
    /// Out of the store: what cannot be read is kept as it is, since refusing it would stop the start.
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        let source = String::deserialize(from)?;
        Ok(Self::parse(&source).unwrap_or_else(|mistake| Self {
            source: source.into(),
            program: Err(mistake),
            needs_payload: false,
        }))
    }
}

#[cfg(test)]
mod tests;
