//! What is held against a message that reads well: its payload against the JSON schema of its event
//! type, and a time of delivery that is too near or too far.

use std::borrow::Cow;
use std::time::Duration;

use super::{Ingest, Item, ItemKind};
use crate::base::Timestamp;
use crate::expression::Facts;
use crate::model::PayloadValidation;
use crate::policy::schema::Violation;

impl Ingest {
    /// What is wrong with a message. Where its event type only wants a warning, what is wrong with the
    /// payload is counted here.
    pub(super) fn mistakes(
        &self,
        facts: &Facts<'_>,
        deliver_at: Option<Timestamp>,
    ) -> Option<Vec<Item>> {
        let mut items: Vec<Item> = deliver_at
            .and_then(|at| bad_time(at, self.parts.clock.now()))
            .into_iter()
            .collect();
        if let Some((mode, found)) = self.violations(facts) {
            self.meters.violated(mode);
            if mode == PayloadValidation::Reject {
                items.extend(found.iter().map(item));
            }
        }
        (!items.is_empty()).then_some(items)
    }

    /// The same for what cannot be refused any more, since a provider sent it: counted as a warning.
    pub(super) fn warn(&self, facts: &Facts<'_>) {
        if self.violations(facts).is_some() {
            self.meters.violated(PayloadValidation::Warn);
        }
    }

    fn violations(&self, facts: &Facts<'_>) -> Option<(PayloadValidation, Vec<Violation>)> {
        let snapshot = self.parts.directory.peek();
        let schema = snapshot.schema(facts.event_type())?;
        let found = schema.violations(facts.payload());
        (!found.is_empty()).then(|| (schema.mode(), found))
    }
}

/// The nearest and the farthest time that `deliverAt` may name (`api.md` 4).
const NEAREST: Duration = Duration::from_secs(60);
const FARTHEST: Duration = Duration::from_secs(86_400);

fn bad_time(at: Timestamp, now: Timestamp) -> Option<Item> {
    if (now.plus(NEAREST)..=now.plus(FARTHEST)).contains(&at) {
        return None;
    }
    let msg = "must lie between 1 minute and 24 hours ahead";
    Some(Item::body("deliverAt", ItemKind::ValueError, msg))
}

/// A violation as a mistake in the request: the pointer leads on from `body`, `payload`.
fn item(violation: &Violation) -> Item {
    let item = Item::body("payload", ItemKind::ValueError, violation.msg.clone());
    violation
        .path()
        .fold(item, |item, part| item.under(Cow::Owned(part)))
}
