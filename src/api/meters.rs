//! Handles of the API's metrics, looked up once.

use ::metrics::{Counter, counter};
use http::StatusCode;

use crate::metrics;

pub(super) struct Meters {
    good: Counter,
    client: Counter,
    server: Counter,
}

impl Default for Meters {
    fn default() -> Self {
        let class = |class: &'static str| counter!(metrics::HTTP_REQUESTS, "class" => class);
        Self {
            good: class("2xx"),
            client: class("4xx"),
            server: class("5xx"),
        }
    }
}

impl Meters {
    /// A request was answered.
    pub(super) fn answered(&self, status: StatusCode) {
        if status.is_server_error() {
            self.server.increment(1);
        } else if status.is_client_error() {
            self.client.increment(1);
        } else {
            self.good.increment(1);
        }
    }
}
