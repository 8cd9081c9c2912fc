//! One request of a provider, from its head to the answer.
//!
//! [`Inbound::admit`] decides by the head alone, before a byte of the body is read; [`Inbound::receive`]
//! does the rest. Every way out leaves a receipt.

use std::net::IpAddr;
use std::sync::Arc;

use bytes::Bytes;
use http::{HeaderMap, Method};
use subtle::ConstantTimeEq;

use super::receipt::{Receipt, Verdict};
use super::{Inbound, Token, credentials, event};
use crate::base::Timestamp;
use crate::directory;
use crate::ingest;
use crate::model::{HeldSecret, Secret, Source};
use crate::policy::hop;
use crate::providers::{
    Credentials, Handshake, Manifest, Received, Refusal, Reply, Verified, events, handshake, verify,
};

/// A handshake may deliver a secret for so long after the source was made or changed: later it would let
/// anybody replace the key.
const DELIVERY_WINDOW: std::time::Duration = std::time::Duration::from_secs(3600);
/// Longest token in a path.
const MAX_TOKEN: usize = 256;

/// The head of a request.
pub struct Head<'a> {
    /// Its method.
    pub method: &'a Method,
    /// The provider, where the path names it.
    pub provider: Option<&'a str>,
    /// The token, where the path has one; else the provider's shared source is meant.
    pub token: Option<&'a str>,
    /// The path as it came.
    pub path: &'a str,
    /// The query as it came, without `?`.
    pub query: Option<&'a str>,
    /// All headers.
    pub headers: &'a HeaderMap,
    /// Where it comes from ([`Inbound::client`]).
    pub ip: IpAddr,
}

/// A request whose body may be read.
pub struct Admitted {
    source: Arc<Source>,
    hops: u8,
}

/// What is sent back.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Answer {
    /// HTTP status.
    pub status: u16,
    /// Content type of the body, if there is one.
    pub content_type: Option<String>,
    /// Further headers.
    pub headers: Vec<(String, String)>,
    /// The body.
    pub body: Bytes,
}

/// Why a request is refused.
#[derive(Debug, thiserror::Error)]
pub enum Refused {
    /// No source with this token, or for this provider.
    #[error("there is nothing at this URL")]
    Unknown,
    /// The source is switched off.
    #[error("this source is switched off")]
    Disabled,
    /// Too many requests.
    #[error("too many requests for this source")]
    Rate {
        /// When there is room again.
        retry_after_secs: u32,
    },
    /// The address is not on the source's list.
    #[error("requests from this address are not taken")]
    Ip,
    /// The body is too large.
    #[error("the body is larger than {limit} bytes")]
    TooLarge {
        /// Bytes allowed.
        limit: usize,
    },
    /// The body broke off.
    #[error("the body broke off before its end")]
    Body,
    /// Too many events in one request.
    #[error("the request holds more than {limit} events")]
    TooMany {
        /// Events allowed.
        limit: usize,
    },
    /// It is not the provider's, or not fit to be believed. Why is for the receipt, not for the sender.
    #[error("the request cannot be verified")]
    Provider(Refusal),
    /// It was verified and not taken in: the provider must send it again.
    #[error(transparent)]
    Ingest(#[from] ingest::Refused),
}

impl Refused {
    /// The stable name: metric label and receipt.
    pub const fn reason(&self) -> &'static str {
        match self {
            Self::Unknown => "unknown_token",
            Self::Disabled => "disabled",
            Self::Rate { .. } => "source_rate",
            Self::Ip => "ip_not_allowed",
            Self::TooLarge { .. } => "body_too_large",
            Self::Body => "body_broken",
            Self::TooMany { .. } => "too_many_events",
            Self::Provider(refusal) => refusal.code(),
            Self::Ingest(refused) => refused.reason(),
        }
    }

    /// All values of [`Refused::reason`].
    pub fn reasons() -> impl Iterator<Item = &'static str> {
        let own = [
            "unknown_token",
            "disabled",
            "source_rate",
            "ip_not_allowed",
            "body_too_large",
            "body_broken",
            "too_many_events",
        ];
        let providers = Refusal::ALL.iter().map(|refusal| refusal.code());
        own.into_iter()
            .chain(providers)
            .chain(ingest::Refused::REASONS)
    }

    /// HTTP status of the answer.
    pub const fn status(&self) -> u16 {
        match self {
            Self::Unknown | Self::Disabled => 404,
            Self::Rate { .. } => 429,
            Self::Ip => 403,
            Self::TooLarge { .. } | Self::TooMany { .. } => 413,
            Self::Body => 400,
            Self::Provider(_) => 401,
            Self::Ingest(refused) => match refused {
                ingest::Refused::TooManyHops(_) | ingest::Refused::Invalid(_) => 400,
                ingest::Refused::StorageLow => 507,
                ingest::Refused::Failed | ingest::Refused::Unreadable(_) => 500,
                _ => 503,
            },
        }
    }
}

impl Inbound {
    /// Finds the source and decides, by the head alone, whether its body may be read.
    ///
    /// # Errors
    /// Why not; a receipt is filed where there is a source.
    pub fn admit(&self, head: &Head<'_>) -> Result<Admitted, Refused> {
        let now = self.parts.clock.now();
        let Some(source) = self.find(head, now) else {
            self.meters
                .count(Verdict::Refused(Refused::Unknown.reason()), 0);
            return Err(Refused::Unknown);
        };
        match self.judge(&source, head) {
            Ok(hops) => Ok(Admitted { source, hops }),
            Err(refused) => {
                self.refuse(&source, &refused, head.ip, 0);
                Err(refused)
            }
        }
    }

    /// The body could not be read: `too_large`, or it broke off.
    pub fn give_up(&self, admitted: &Admitted, refused: &Refused, ip: IpAddr) {
        self.refuse(&admitted.source, refused, ip, 0);
    }

    fn find(&self, head: &Head<'_>, now: Timestamp) -> Option<Arc<Source>> {
        let snapshot = self.parts.directory.peek();
        let found = match (head.token, head.provider) {
            (Some(token), _) if token.len() > MAX_TOKEN => None,
            (Some(token), _) => {
                let hash = Token::hash_of(token);
                let source = snapshot.source_by_token(&hash)?;
                let mut alive = source.tokens().filter(|(known, expires)| {
                    let is_this = bool::from(known.ct_eq(&hash));
                    is_this && expires.is_none_or(|end| now < end)
                });
                alive.next().map(|_| source)
            }
            (None, Some(provider)) => snapshot.shared_source(provider),
            (None, None) => None,
        };
        let named = found.filter(|source| head.provider.is_none_or(|name| name == source.provider));
        named.cloned()
    }

    /// Rate, switch, address, hops, room: in this order, so that a flood costs the least.
    fn judge(&self, source: &Source, head: &Head<'_>) -> Result<u8, Refused> {
        let clock = &self.parts.clock;
        let rate = source.rate_per_second;
        let rate = rate.unwrap_or(self.parts.config.rate_per_second);
        self.gates
            .take(source.no, rate, clock.monotonic())
            .map_err(|retry_after_secs| Refused::Rate { retry_after_secs })?;
        if source.disabled {
            return Err(Refused::Disabled);
        }
        let allowed = &source.allowed_ips;
        let is_allowed = allowed.is_empty() || allowed.iter().any(|net| net.contains(&head.ip));
        if !is_allowed {
            return Err(Refused::Ip);
        }
        let values = head.headers.get_all(hop::HEADER).iter();
        let hops = self
            .parts
            .ingest
            .hops(values.map(http::HeaderValue::as_bytes))?;
        self.parts.ingest.admit_events(source.app)?;
        Ok(hops)
    }

    /// Takes a whole request: answers the handshake, or verifies it and makes its events durable before
    /// it answers.
    ///
    /// Cancel safe: events that were handed in are stored, and come again as duplicates.
    ///
    /// # Errors
    /// Why it is refused; nothing of it was stored.
    pub async fn receive(
        &self,
        admitted: Admitted,
        head: &Head<'_>,
        body: Bytes,
    ) -> Result<Answer, Refused> {
        let source = &admitted.source;
        let taken = self.take(source, admitted.hops, head, &body).await;
        match taken {
            Ok((answer, mut receipt)) => {
                receipt.bytes = body.len();
                receipt.status = answer.status;
                self.meters.count(receipt.verdict, receipt.events);
                self.receipts
                    .file(source.no, receipt, self.parts.config.failures);
                Ok(answer)
            }
            Err(refused) => {
                self.refuse(source, &refused, head.ip, body.len());
                Err(refused)
            }
        }
    }

    async fn take(
        &self,
        source: &Arc<Source>,
        hops: u8,
        head: &Head<'_>,
        body: &Bytes,
    ) -> Result<(Answer, Receipt), Refused> {
        let manifest = self.parts.catalogue.get(&source.provider);
        let manifest = manifest.ok_or(Refused::Provider(Refusal::NotReceivable))?;
        let now = self.parts.clock.now();
        let public_url = self.public_url(source, head);
        let request = Received {
            method: head.method,
            public_url: &public_url,
            query: head.query.unwrap_or_default(),
            headers: head.headers,
            body,
        };
        let mut held = credentials::of(source, now);
        let receipt = |verdict| Receipt::new(now, verdict, 200, head.ip);
        match handshake(manifest, &request, &held) {
            Handshake::None => {}
            Handshake::Refused(refusal) => return Err(Refused::Provider(refusal)),
            Handshake::Answer(answer) => {
                if answer.verify_first {
                    self.verify(manifest, &request, &mut held, now).await?;
                }
                if let Some(secret) = answer.store {
                    self.deliver(source, manifest, secret.as_str().to_owned(), now)
                        .await?;
                }
                return Ok((of_reply(&answer.reply), receipt(Verdict::Handshake)));
            }
        }
        let verified = self.verify(manifest, &request, &mut held, now).await?;
        // The request is the provider's: what cannot be read of it is kept as it is.
        let found = events(manifest, &request);
        let found = found.unwrap_or_else(|_| vec![event::unread(manifest, body)]);
        // More than the queue of the commit thread takes could never be accepted.
        let limit = self.parts.config.max_events;
        let limit = limit.min(self.parts.ingest.config().queue);
        if found.len() > limit {
            return Err(Refused::TooMany { limit });
        }
        let apps = self.parts.directory.snapshot();
        let messages = found.into_iter().enumerate().map(|(place, event)| {
            let event = (place, event);
            event::message(source, (&verified, hops), &apps, event, head.headers)
        });
        let accepted = self.parts.ingest.accept_events(messages.collect()).await?;
        let is_new = accepted.is_empty() || accepted.iter().any(|one| !one.duplicate);
        let mut receipt = receipt(if is_new {
            Verdict::Accepted
        } else {
            Verdict::Duplicate
        });
        receipt.integrity = Some(event::integrity(verified.integrity));
        receipt.events = accepted.len();
        receipt.name(accepted.iter().map(|one| one.message.id()));
        Ok((self.answer(source, manifest), receipt))
    }

    /// The engine's verdict, with a fresh key set if the one at hand lacks the key.
    async fn verify(
        &self,
        manifest: &Manifest,
        request: &Received<'_>,
        held: &mut Credentials,
        now: Timestamp,
    ) -> Result<Verified, Refused> {
        let Some(url) = manifest.jwks_url() else {
            return verify(manifest, request, held, now).map_err(Refused::Provider);
        };
        let monotonic = self.parts.clock.monotonic();
        held.jwks = self.keys.known(url, monotonic);
        let first = verify(manifest, request, held, now);
        let lacks_key = matches!(first, Err(Refusal::UnknownKey))
            || (held.jwks.is_none() && matches!(first, Err(Refusal::NotConfigured)));
        let keys = self.parts.keys.as_ref();
        if lacks_key && self.keys.refresh(url, monotonic, keys).await {
            held.jwks = self.keys.known(url, monotonic);
            return verify(manifest, request, held, now).map_err(Refused::Provider);
        }
        first.map_err(Refused::Provider)
    }

    /// Stores the secret that a handshake has delivered, once, while the subscription is being made.
    async fn deliver(
        &self,
        source: &Source,
        manifest: &Manifest,
        secret: String,
        now: Timestamp,
    ) -> Result<(), Refused> {
        let closed = || Refused::Provider(Refusal::HandshakeClosed);
        let name = manifest.delivered_secret().ok_or_else(closed)?.to_owned();
        let no = source.no;
        self.parts
            .directory
            .carry_out(move |draft| {
                let current = draft.source_by_no(no).ok_or(Refused::Unknown)?;
                let is_held = current.secrets_of(&name, now).next().is_some();
                if is_held || now.since(current.updated) > DELIVERY_WINDOW {
                    return Err(closed());
                }
                let mut source = Source::clone(current);
                let secret = Secret::new(secret);
                let expires = None;
                source
                    .secrets
                    .insert(name, vec![HeldSecret { secret, expires }]);
                source.updated = now;
                draft.put_source(source)?;
                Ok(())
            })
            .await
    }

    /// The URL that the provider calls: what was registered, or the gateway's public name and the path as
    /// received. Never made of `Host`.
    fn public_url(&self, source: &Source, head: &Head<'_>) -> String {
        let mut url = match (&source.public_url, &self.parts.base) {
            (Some(registered), _) => registered.clone(),
            (None, Some(base)) => format!("{base}{}", head.path),
            (None, None) => head.path.to_owned(), // matches no signature over a URL
        };
        if let Some(query) = head.query {
            url.push('?');
            url.push_str(query);
        }
        url
    }

    /// What an accepted request is answered: the source's own answer, the manifest's, or `{}`.
    fn answer(&self, source: &Source, manifest: &Manifest) -> Answer {
        if let Some(own) = &source.response {
            return Answer {
                status: own.status,
                content_type: Some(own.content_type.clone()),
                headers: Vec::new(),
                body: own.body.clone().into(),
            };
        }
        match manifest.reply() {
            Some(reply) => of_reply(reply),
            None => Answer {
                status: 200,
                content_type: Some(String::from("application/json")),
                headers: Vec::new(),
                body: Bytes::from_static(b"{}"),
            },
        }
    }

    fn refuse(&self, source: &Source, refused: &Refused, ip: IpAddr, bytes: usize) {
        let verdict = Verdict::Refused(refused.reason());
        self.meters.count(verdict, 0);
        let mut receipt = Receipt::new(self.parts.clock.now(), verdict, refused.status(), ip);
        receipt.bytes = bytes;
        let failures = self.parts.config.failures;
        let Some(in_a_row) = self.receipts.file(source.no, receipt, failures) else {
            return;
        };
        let reason = refused.reason();
        tracing::warn!(source = %source.id, reason, in_a_row, "a source refuses everything");
        if let Some(news) = &self.parts.news {
            news.failing(source.no, reason, in_a_row);
        }
    }
}

fn of_reply(reply: &Reply) -> Answer {
    Answer {
        status: reply.status,
        content_type: Some(reply.content_type.clone()).filter(|kind| !kind.is_empty()),
        headers: reply.headers.clone(),
        body: reply.body.clone(),
    }
}

impl From<directory::Error> for Refused {
    fn from(error: directory::Error) -> Self {
        Self::Ingest(error.into())
    }
}
