//! The store as it is shown: a payload whose time is over is as if it had been taken away.
//!
//! Owns: nothing but the rule that readers go by the clock. When the payload really leaves the store is
//! housekeeping's affair, and what delivers reads the store itself: a delivery that is not finished at the
//! end of the payload goes on with it.

use std::sync::Arc;

use crate::base::{Clock, Timestamp};
use crate::model::{
    AppNo, Attempt, Delivery, EndpointNo, EndpointState, Message, Parked, ParkedKey, Position,
};

use super::{
    AuditPage, AuditRow, ConfigRow, Error, IdempotencyRecord, Lane, Listed, ListedAttempt, Page,
    PayloadEnd, Reader,
};

/// A reader that hides what has ended by the clock.
pub struct Timely {
    reader: Arc<dyn Reader>,
    clock: Arc<dyn Clock>,
}

impl Timely {
    /// Shows what `reader` has.
    pub const fn new(reader: Arc<dyn Reader>, clock: Arc<dyn Clock>) -> Self {
        Self { reader, clock }
    }

    fn shown(&self, mut message: Message) -> Message {
        if message.payload_ends().is_some() && message.has_ended(self.clock.now()) {
            message.expunge();
        }
        message
    }
}

impl Reader for Timely {
    fn message(&self, at: Position) -> Result<Option<Message>, Error> {
        let found = self.reader.message(at)?;
        Ok(found.map(|message| self.shown(message)))
    }

    fn fetch(&self, after: Position, limit: usize) -> Result<Vec<Message>, Error> {
        let found = self.reader.fetch(after, limit)?.into_iter();
        Ok(found.map(|message| self.shown(message)).collect())
    }

    fn lanes(&self) -> Result<Vec<Lane>, Error> {
        self.reader.lanes()
    }

    fn parked(
        &self,
        endpoint: EndpointNo,
        after: Option<ParkedKey>,
        until: Timestamp,
        limit: usize,
    ) -> Result<Vec<Parked>, Error> {
        self.reader.parked(endpoint, after, until, limit)
    }

    fn parked_row(&self, key: ParkedKey) -> Result<Option<Parked>, Error> {
        self.reader.parked_row(key)
    }

    fn endpoint_states(&self) -> Result<Vec<(EndpointNo, EndpointState)>, Error> {
        self.reader.endpoint_states()
    }

    fn attempts(&self, at: Position, endpoint: Option<EndpointNo>) -> Result<Vec<Attempt>, Error> {
        self.reader.attempts(at, endpoint)
    }

    fn is_cancelled(&self, delivery: Delivery) -> Result<bool, Error> {
        self.reader.is_cancelled(delivery)
    }

    fn superseded_by(&self, delivery: Delivery) -> Result<Option<Position>, Error> {
        self.reader.superseded_by(delivery)
    }

    fn cancelled(
        &self,
        endpoint: EndpointNo,
        range: (Position, Position),
        budget: usize,
    ) -> Result<Option<u64>, Error> {
        self.reader.cancelled(endpoint, range, budget)
    }

    fn scrub(&self) -> Result<(), Error> {
        self.reader.scrub()
    }

    fn payload_ends(
        &self,
        after: Option<(Timestamp, Position)>,
        until: Timestamp,
        limit: usize,
    ) -> Result<Vec<PayloadEnd>, Error> {
        self.reader.payload_ends(after, until, limit)
    }

    fn app_messages(&self, app: AppNo, page: &Page) -> Result<Vec<Listed>, Error> {
        self.reader.app_messages(app, page)
    }

    fn endpoint_attempts(
        &self,
        endpoint: EndpointNo,
        page: &Page,
    ) -> Result<Vec<ListedAttempt>, Error> {
        self.reader.endpoint_attempts(endpoint, page)
    }

    fn by_event_id(&self, app: AppNo, event_id: &str) -> Result<Option<Position>, Error> {
        self.reader.by_event_id(app, event_id)
    }

    fn idempotent(
        &self,
        key: &[u8; 16],
        oldest: Timestamp,
    ) -> Result<Option<IdempotencyRecord>, Error> {
        self.reader.idempotent(key, oldest)
    }

    fn audit(&self, page: &AuditPage) -> Result<Vec<AuditRow>, Error> {
        self.reader.audit(page)
    }

    fn config(&self) -> Result<(u64, Vec<ConfigRow>), Error> {
        self.reader.config()
    }
}
