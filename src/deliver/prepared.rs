//! An endpoint, ready to be called.

use std::sync::Arc;
use std::time::Duration;

use http::{HeaderName, HeaderValue};

use crate::config;
use crate::model::{
    AppNo, Endpoint, EndpointId, Envelope, ExcludePii, FailureKind, Outcome, Profile,
};
use crate::policy::exclude::Exclusion;
use crate::policy::header::{self, BadHeader};
use crate::policy::outcome;
use crate::policy::own::Own;
use crate::policy::sign::{BadSigner, Signer};
use crate::policy::target::{BadTarget, Target, TargetRules};

/// What an endpoint gets that does not say otherwise, and what may be called at all.
#[derive(Debug, Clone)]
pub struct Defaults {
    /// How requests are signed.
    pub profile: Profile,
    /// Time of one attempt.
    pub timeout: Duration,
    /// What may be called.
    pub rules: TargetRules,
}

/// The configured signature profile does not exist or cannot be used.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum BadDefaults {
    /// Neither built in nor among the presets.
    #[error("there is no signature profile `{0}`: want standard, dual, or a preset")]
    Unknown(String),
    /// A preset that is no profile.
    #[error("the signature preset `{name}` is no profile: {why}")]
    Preset {
        /// Its name.
        name: String,
        /// What is wrong with it.
        why: String,
    },
    /// A profile whose headers cannot be sent.
    #[error("the signature profile `{name}` cannot be used")]
    Header {
        /// Its name.
        name: String,
        /// What is wrong with it.
        #[source]
        cause: BadHeader,
    },
}

impl Defaults {
    /// The defaults of a configuration; `own` is where we are reached, never called (S14).
    pub fn of(config: &config::Delivery, own: Own) -> Result<Self, BadDefaults> {
        Ok(Self {
            profile: Self::profile(config, &config.signature)?,
            timeout: config.timeout,
            rules: TargetRules {
                allow_networks: config.allow_networks.clone(),
                deny_ports: config.deny_ports.clone(),
                allow_http: config.allow_http,
                own,
            },
        })
    }

    /// The profile called `name`: `standard`, `dual`, or a preset of the configuration.
    pub fn profile(config: &config::Delivery, name: &str) -> Result<Profile, BadDefaults> {
        let profile = match (name, config.signature_presets.get(name)) {
            (_, Some(preset)) => {
                serde_json::from_value(preset.clone()).map_err(|error| BadDefaults::Preset {
                    name: name.to_owned(),
                    why: error.to_string(),
                })?
            }
            ("standard", None) => Profile::Standard,
            ("dual", None) => Profile::Dual,
            (_, None) => return Err(BadDefaults::Unknown(name.to_owned())),
        };
        header::check_profile(&profile).map_err(|cause| BadDefaults::Header {
            name: name.to_owned(),
            cause,
        })?;
        Ok(profile)
    }
}

/// Why an endpoint cannot be called.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum BadEndpoint {
    /// Its URL is not, or no longer, allowed.
    #[error(transparent)]
    Target(#[from] BadTarget),
    /// Its secret and its signature profile do not fit.
    #[error(transparent)]
    Signer(#[from] BadSigner),
    /// A header of its own cannot be sent.
    #[error(transparent)]
    Header(#[from] BadHeader),
}

impl BadEndpoint {
    /// The outcome of an attempt that could not even begin. Nothing left the house, so it reads as
    /// refused by the guard, whatever the reason.
    pub const OUTCOME: Outcome = outcome::of_failure(FailureKind::BlockedAddress);
}

/// Everything that is the same in each request to an endpoint. Prints no secret.
#[derive(Debug)]
pub struct Prepared {
    pub(super) id: EndpointId,
    pub(super) app: AppNo,
    pub(super) target: Arc<Target>,
    pub(super) signer: Signer,
    /// The endpoint's own; sensitive values are marked so. No map: one takes over a kilobyte, however
    /// little is in it.
    pub(super) headers: Box<[(HeaderName, HeaderValue)]>,
    pub(super) timeout: Duration,
    pub(super) envelope: Envelope,
    /// Uid or id of the application, for the envelopes that name it.
    pub(super) organization: Box<str>,
    pub(super) left_out: LeftOut,
}

/// What is left out of payloads.
#[derive(Debug)]
pub(super) enum LeftOut {
    Nothing,
    /// What the schema of each event type marks.
    Marked,
    Fields(Exclusion),
}

impl Prepared {
    /// Checks and prepares an endpoint. `organization` is the application's uid, or its id.
    pub fn new(
        endpoint: &Endpoint,
        organization: &str,
        defaults: &Defaults,
    ) -> Result<Self, BadEndpoint> {
        let profile = endpoint.signature.as_deref().unwrap_or(&defaults.profile);
        let timeout_ms = endpoint.timeout_ms.map(u64::from);
        Ok(Self {
            id: endpoint.id,
            app: endpoint.app,
            target: Arc::new(Target::parse(&endpoint.url, &defaults.rules)?),
            signer: Signer::new(profile, &endpoint.secret, &endpoint.old_secrets)?,
            headers: headers(endpoint, profile)?,
            timeout: timeout_ms.map_or(defaults.timeout, Duration::from_millis),
            envelope: endpoint.envelope,
            organization: organization.into(),
            left_out: match endpoint.exclude_pii.as_deref() {
                None => LeftOut::Nothing,
                Some(ExcludePii::Marked) => LeftOut::Marked,
                Some(ExcludePii::Fields(pointers)) => LeftOut::Fields(Exclusion::of(pointers)),
            },
        })
    }

    /// Where it leads.
    pub const fn target(&self) -> &Arc<Target> {
        &self.target
    }

    /// Whether what is left out depends on the event type's schema ([`super::Job::marked`]).
    pub const fn leaves_marked_out(&self) -> bool {
        matches!(self.left_out, LeftOut::Marked)
    }

    /// Time of one attempt.
    pub const fn timeout(&self) -> Duration {
        self.timeout
    }
}

fn headers(
    endpoint: &Endpoint,
    profile: &Profile,
) -> Result<Box<[(HeaderName, HeaderValue)]>, BadHeader> {
    header::check_headers(&endpoint.headers, profile)?;
    let prepared = endpoint.headers.iter().map(|(name, text)| {
        let parsed = HeaderName::try_from(name).map_err(|_| BadHeader::Name(name.clone()))?;
        let mut value = HeaderValue::try_from(text).map_err(|_| BadHeader::Value(name.clone()))?;
        let mut sensitive = endpoint.sensitive_headers.iter();
        value.set_sensitive(sensitive.any(|other| other.eq_ignore_ascii_case(name)));
        Ok((parsed, value))
    });
    prepared.collect()
}
