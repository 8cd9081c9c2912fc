//! The only place where an error becomes a status (`api.md` 2.6).
//!
//! Everything but 422 is `application/problem+json`; 422 is the array that the client SDKs parse.
//! Codes are a closed set; each has a section in `docs/errors.md`, served at `/problems/{code}`.

use std::borrow::Cow;

use axum::response::Response;
use http::{HeaderValue, StatusCode, header};
use serde::Serialize;

use crate::backup;
use crate::directory;
use crate::ingest::{Item, ItemKind, Refused};
use crate::lane;
use crate::schedule;
use crate::store;
use crate::store::fjall::backup as files;

macro_rules! codes {
    ($($(#[$doc:meta])+ $variant:ident = $status:literal $text:literal $title:literal;)+) => {
        /// Problem codes, a closed set.
        #[derive(Debug, Clone, Copy, PartialEq, Eq)]
        pub enum Code { $($(#[$doc])+ $variant),+ }

        impl Code {
            /// All of them.
            pub const ALL: &[Self] = &[$(Self::$variant),+];

            /// HTTP status.
            pub const fn status(self) -> u16 { match self { $(Self::$variant => $status),+ } }

            /// What stands in `code`.
            pub const fn name(self) -> &'static str { match self { $(Self::$variant => $text),+ } }

            const fn title(self) -> &'static str { match self { $(Self::$variant => $title),+ } }
        }
    };
}

codes! {
    /// The request makes no sense as a whole.
    Generic = 400 "generic_error" "Bad request";
    /// The body is no JSON.
    BadJson = 400 "bad_json" "The body is not JSON";
    /// A range of time that cannot be.
    InvalidRange = 400 "invalid_range" "Invalid range";
    /// More than 10 old secrets alive.
    LimitReached = 400 "limit_reached" "Limit reached";
    /// The schema of the event type gives no example.
    InvalidScheme = 400 "invalid_scheme" "No example can be made";
    /// The payload to resend is gone.
    MissingPayload = 400 "missing_payload" "The payload is gone";
    /// The message went through a gateway as often as it may.
    TooManyHops = 400 "too_many_hops" "Too many hops";
    /// No credential, or one that opens nothing.
    Unauthenticated = 401 "authentication_failed" "Authentication failed";
    /// A provider's request whose signature, time or token does not hold.
    NotVerified = 401 "not_verified" "Not verified";
    /// A request from an address that is not on the list of the source or the key.
    IpNotAllowed = 403 "ip_not_allowed" "Address not allowed";
    /// The credential lacks the scope.
    Forbidden = 403 "insufficient access" "Insufficient access";
    /// So many objects of this kind, or deliveries a month, are not allowed.
    Quota = 403 "quota_exceeded" "Quota exceeded";
    /// No such object, or not one of the caller's.
    NotFound = 404 "not_found" "Not found";
    /// The path exists, the method does not.
    MethodNotAllowed = 405 "method_not_allowed" "Method not allowed";
    /// A name or event id is taken.
    Conflict = 409 "conflict" "Conflict";
    /// The event type exists.
    EventTypeExists = 409 "event_type_exists" "The event type exists";
    /// An equal request is still being worked on.
    InProgress = 409 "idempotency_in_progress" "Still in progress";
    /// Another backup is not finished yet.
    BackupRunning = 409 "backup_running" "A backup is under way";
    /// The operator has not said where backups may go.
    BackupNotConfigured = 409 "backup_not_configured" "Backups are not configured";
    /// Body or payload beyond the limit.
    TooLarge = 413 "payload_too_large" "Payload too large";
    /// A content type other than JSON.
    UnsupportedMediaType = 415 "unsupported_media_type" "Unsupported media type";
    /// Mistakes in the request, all listed.
    Validation = 422 "validation" "Validation failed";
    /// Too many messages per second.
    RateLimited = 429 "rate_limited" "Too many requests";
    /// Something of ours failed.
    Server = 500 "server_error" "Server error";
    /// Not built yet.
    NotImplemented = 501 "not_implemented" "Not implemented";
    /// Too much is pending; come again.
    Overloaded = 503 "overloaded" "Overloaded";
    /// The disk is short of space; come again.
    StorageLow = 507 "storage_low" "Storage low";
}

/// An error on its way to the client.
#[derive(Debug)]
pub(super) struct Problem {
    code: Code,
    detail: Cow<'static, str>,
    retry_after_secs: Option<u32>,
    items: Vec<Item>,
}

impl Problem {
    pub(super) fn new(code: Code, detail: impl Into<Cow<'static, str>>) -> Self {
        Self {
            code,
            detail: detail.into(),
            retry_after_secs: None,
            items: Vec::new(),
        }
    }

    pub(super) fn not_found(what: &str) -> Self {
        Self::new(Code::NotFound, format!("No {what} with this id."))
    }

    /// Calls the field `from` of the body `to`: some routes have names of their own.
    pub(super) fn renamed(mut self, from: &str, to: &'static str) -> Self {
        for item in &mut self.items {
            if let [part, name] = item.loc.as_mut_slice()
                && part == "body"
                && name == from
            {
                *name = Cow::Borrowed(to);
            }
        }
        self
    }

    /// Whether the same may go through in a moment.
    pub(super) const fn is_overload(&self) -> bool {
        matches!(self.code, Code::Overloaded)
    }

    /// Code and detail, for an answer in another form.
    pub(super) fn told(self) -> (&'static str, Cow<'static, str>) {
        (self.code.name(), self.detail)
    }

    pub(super) const fn after(mut self, secs: u32) -> Self {
        self.retry_after_secs = Some(secs);
        self
    }

    /// What stands in a result line of a batch besides `index`.
    pub(super) fn write_line(&self, out: &mut Vec<u8>) {
        out.extend_from_slice(b"\"status\":");
        out.extend_from_slice(self.code.status().to_string().as_bytes());
        if self.items.is_empty() {
            out.extend_from_slice(b",\"code\":");
            super::reply::write_json(out, self.code.name());
            out.extend_from_slice(b",\"detail\":");
            super::reply::write_json(out, &self.detail);
        } else {
            out.extend_from_slice(b",\"detail\":");
            super::reply::write_json(out, &self.shown());
        }
    }

    fn shown(&self) -> Vec<ShownItem<'_>> {
        let shown = self.items.iter().map(|item| ShownItem {
            loc: &item.loc,
            msg: &item.msg,
            kind: item.kind.name(),
        });
        shown.collect()
    }

    /// The answer; `path` is where it happened.
    pub(super) fn response(self, path: &str) -> Response {
        let mut body = Vec::with_capacity(256);
        let kind = if self.items.is_empty() {
            super::reply::write_json(&mut body, &self.problem(path));
            "application/problem+json"
        } else {
            let errors = Errors {
                detail: self.shown(),
                code: Code::Validation.name(),
                status: Code::Validation.status(),
                success: is_tenant_route(path).then_some(false),
                message: is_tenant_route(path).then(|| self.summary()),
            };
            super::reply::write_json(&mut body, &errors);
            "application/json"
        };
        let mut response = Response::new(body.into());
        *response.status_mut() =
            StatusCode::from_u16(self.code.status()).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
        let headers = response.headers_mut();
        headers.insert(header::CONTENT_TYPE, HeaderValue::from_static(kind));
        if let Some(secs) = self.retry_after_secs {
            headers.insert(header::RETRY_AFTER, HeaderValue::from(secs));
        }
        if self.code == Code::Unauthenticated {
            let scheme = HeaderValue::from_static("Bearer");
            headers.insert(header::WWW_AUTHENTICATE, scheme);
        }
        response
    }

    /// All mistakes in one sentence each.
    fn summary(&self) -> String {
        let lines = self.items.iter().map(|item| {
            let name = item.loc.iter().skip(1).map(AsRef::as_ref);
            let name = name.collect::<Vec<&str>>().join(".");
            format!("{name}: {}", item.msg)
        });
        lines.collect::<Vec<_>>().join("; ")
    }

    fn problem<'a>(&'a self, path: &'a str) -> Shown<'a> {
        Shown {
            kind: format!("/problems/{}", self.code.name().replace(' ', "_")),
            title: self.code.title(),
            status: self.code.status(),
            code: self.code.name(),
            detail: &self.detail,
            instance: path,
            success: is_tenant_route(path).then_some(false),
            message: is_tenant_route(path).then_some(&*self.detail),
        }
    }
}

/// Routes whose answers say `success` and `message` (`api.md` 2.6 and 7).
fn is_tenant_route(path: &str) -> bool {
    let path = path.strip_prefix("/api").unwrap_or(path);
    let path = path.strip_prefix("/v1").unwrap_or(path);
    ["/webhooks", "/crm", "/api-keys"].iter().any(|route| {
        let rest = path.strip_prefix(route);
        rest.is_some_and(|rest| rest.is_empty() || rest.starts_with('/'))
    })
}

#[derive(Serialize)]
struct Shown<'a> {
    #[serde(rename = "type")]
    kind: String,
    title: &'a str,
    status: u16,
    code: &'a str,
    detail: &'a str,
    instance: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    success: Option<bool>,
    #[serde(skip_serializing_if = "Option::is_none")]
    message: Option<&'a str>,
}

#[derive(Serialize)]
struct Errors<'a> {
    detail: Vec<ShownItem<'a>>,
    code: &'a str,
    status: u16,
    #[serde(skip_serializing_if = "Option::is_none")]
    success: Option<bool>,
    #[serde(skip_serializing_if = "Option::is_none")]
    message: Option<String>,
}

#[derive(Serialize)]
struct ShownItem<'a> {
    loc: &'a [Cow<'static, str>],
    msg: &'a str,
    #[serde(rename = "type")]
    kind: &'static str,
}

impl From<Vec<Item>> for Problem {
    fn from(items: Vec<Item>) -> Self {
        Self {
            items,
            ..Self::new(Code::Validation, "The request has mistakes.")
        }
    }
}

impl From<Item> for Problem {
    fn from(item: Item) -> Self {
        vec![item].into()
    }
}

impl From<Refused> for Problem {
    fn from(refused: Refused) -> Self {
        let detail = format!("{refused}.");
        match refused {
            Refused::NoApplication => Self::not_found("application"),
            Refused::BadJson(_) => Self::new(Code::BadJson, detail),
            Refused::Invalid(items) => items.into(),
            Refused::TooLarge { .. } => Self::new(Code::TooLarge, detail),
            Refused::Duplicate(_) => Self::new(Code::Conflict, detail),
            Refused::TooManyHops(_) => Self::new(Code::TooManyHops, detail),
            Refused::InProgress => Self::new(Code::InProgress, detail).after(1),
            Refused::Mismatch => mismatch(),
            Refused::Quota { .. } => Self::new(Code::Quota, detail),
            Refused::Throttled {
                retry_after_secs, ..
            } => Self::new(Code::RateLimited, detail).after(retry_after_secs),
            Refused::Overloaded {
                retry_after_secs, ..
            } => Self::new(Code::Overloaded, detail).after(retry_after_secs),
            Refused::StorageLow => Self::new(Code::StorageLow, detail).after(30),
            Refused::Unreadable(cause) => cause.into(),
            Refused::Failed => Self::new(Code::Server, detail),
        }
    }
}

/// The idempotency key came with another body before.
pub(super) fn mismatch() -> Problem {
    let msg = "this key was used with another body";
    Item::at(
        "header",
        "idempotency-key",
        ItemKind::IdempotencyMismatch,
        msg,
    )
    .into()
}

impl From<lane::Error> for Problem {
    fn from(error: lane::Error) -> Self {
        Refused::from(error).into()
    }
}

impl From<directory::Error> for Problem {
    fn from(error: directory::Error) -> Self {
        match error {
            directory::Error::Lane(lane::Error::Failed) => {
                let detail = "The store failed; whether the change was stored is unknown.";
                Self::new(Code::Server, detail)
            }
            directory::Error::Lane(error) => error.into(),
            directory::Error::Encode { what, .. } => {
                tracing::error!(error = %error, "an object cannot be encoded");
                Self::new(Code::Server, format!("The {what} cannot be stored."))
            }
            directory::Error::Vault(cause) => {
                tracing::error!(%cause, "a secret cannot be sealed");
                Self::new(
                    Code::Server,
                    "A secret cannot be sealed; nothing was stored.",
                )
            }
        }
    }
}

impl From<store::Error> for Problem {
    fn from(error: store::Error) -> Self {
        tracing::warn!(%error, "a read of the store failed");
        match error {
            store::Error::Corrupt { .. } => Self::new(
                Code::Server,
                "A stored record is damaged and was set aside.",
            ),
            store::Error::Unavailable(_)
            | store::Error::NotApplied(_)
            | store::Error::Doubtful(_)
            | store::Error::Regressed(_) => {
                Self::new(Code::Server, "The store cannot be read at the moment.")
            }
        }
    }
}

impl From<backup::Error> for Problem {
    fn from(error: backup::Error) -> Self {
        let detail = format!("{error}.");
        match error {
            backup::Error::NotConfigured => Self::new(Code::BackupNotConfigured, detail),
            backup::Error::Running => Self::new(Code::BackupRunning, detail).after(10),
            backup::Error::BadName => Item::body("name", ItemKind::ValueError, detail).into(),
            backup::Error::Lane(error) => error.into(),
            backup::Error::Restless => Self::new(Code::Overloaded, detail).after(10),
            backup::Error::Files(files::Error::Taken(_)) => Self::new(Code::Conflict, detail),
            backup::Error::Files(files::Error::NoSpace { .. }) => {
                Self::new(Code::StorageLow, detail)
            }
            backup::Error::Files(_) | backup::Error::Interrupted => {
                tracing::error!(%error, "a backup failed");
                Self::new(Code::Server, detail)
            }
        }
    }
}

impl From<schedule::Error> for Problem {
    fn from(error: schedule::Error) -> Self {
        match error {
            schedule::Error::Store(cause) => cause.into(),
            schedule::Error::Busy => {
                let detail = "The scheduler is busy with earlier requests.";
                Self::new(Code::Overloaded, detail).after(1)
            }
            schedule::Error::NotStored => Self::new(Code::Server, "The change was not stored."),
        }
    }
}
