//! Which endpoints want a message.

use crate::model::{Endpoint, EndpointNo};

/// Index.
pub struct Routes {}

impl Routes {
    /// Builds it.
    pub fn build<'a>(_endpoints: impl Iterator<Item = (EndpointNo, &'a Endpoint)>) -> Self {
        Self {}
    }
}
