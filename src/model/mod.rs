//! What Posthaste is about, as data: applications, endpoints, messages, deliveries, attempts.
//!
//! Types here hold their invariants and nothing else: no I/O, no clock, no HTTP. Names are those of
//! the word table in `docs/ARCHITECTURE.md`.

mod application;
mod attempt;
mod delivery;
mod endpoint;
mod event_type;
mod ids;
mod key;
mod message;
mod secret;
mod source;

pub use application::{Application, PortalCut, Quotas};
pub use attempt::{
    Attempt, AttemptNo, DeadReason, EXPUNGED, FailureKind, Outcome, Trigger, Verdict,
};
pub use delivery::{Delivery, DeliveryState, EndpointState, Health, ParkReason, Parked, ParkedKey};
pub use endpoint::{
    DisablePolicy, DisableReason, Endpoint, Envelope, ExcludePii, HexKey, HexProfile, Order,
    Profile, TenantMark,
};
pub use event_type::{EventType, PayloadValidation};
pub use ids::{
    AppId, AppNo, AttemptId, AuditId, EndpointId, EndpointNo, KeyId, LaneId, MessageId, Position,
    SourceId, SourceNo, TaskId,
};
pub use key::{ApiKey, BadPrefix, KeyPrefix, Scope};
pub use message::{ContentType, Labels, Message};
pub use secret::{OldSecret, Secret};
pub use source::{HeldSecret, OldToken, Source, SourceResponse};
