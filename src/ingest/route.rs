//! Which endpoints a message is for.

use super::Ingest;
use crate::directory::AppEntry;
use crate::expression::Facts;
use crate::model::EndpointNo;

impl Ingest {
    /// The endpoints that want a message, ascending. Its payload is looked at only where an endpoint
    /// that its type and channels lead to has an expression.
    pub(super) fn targets(&self, entry: &AppEntry, facts: &Facts<'_>) -> Vec<EndpointNo> {
        let mut targets = Vec::new();
        let routes = entry.routes();
        routes.matching(facts.event_type(), facts.channels(), &mut targets);
        if routes.has_filters() {
            self.meters.filtered(&routes.narrow(facts, &mut targets));
        }
        targets
    }
}
