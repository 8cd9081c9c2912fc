//! Who is calling and what it may do.

use std::net::IpAddr;
use std::sync::Arc;

use ipnet::IpNet;

use super::portal::PortalToken;
use crate::model::{ApiKey, AppNo, KeyId, Scope};

/// An authenticated caller.
#[derive(Debug, Clone)]
pub struct Principal {
    /// What it may do; see [`Principal::may`].
    pub scopes: Vec<Scope>,
    /// The stored key; `None` for the operator's own.
    pub key: Option<KeyId>,
    /// The only application it sees; every other one is "not found" to it.
    pub app: Option<AppNo>,
    /// Where it may be used from; empty = anywhere.
    pub allowed_ips: Vec<IpNet>,
    /// The portal token, if it is one.
    pub portal: Option<Arc<PortalToken>>,
    /// 128 bits that stand for the credential, so that idempotency keys of two callers never meet.
    pub credential: [u8; 16],
    /// Whether the key is bound to its application by a scope `app:{id}:*`, which opens all of it.
    whole_app: bool,
}

impl Principal {
    /// The operator.
    pub(super) fn admin(hash: &[u8; 32]) -> Self {
        Self {
            scopes: vec![Scope::Admin],
            key: None,
            app: None,
            allowed_ips: Vec::new(),
            credential: half(hash),
            whole_app: false,
            portal: None,
        }
    }

    /// The bearer of a portal token.
    pub(super) fn portal(token: PortalToken, hash: &[u8; 32]) -> Self {
        Self {
            scopes: token.scopes(),
            key: None,
            app: Some(token.app),
            allowed_ips: Vec::new(),
            credential: half(hash),
            whole_app: false,
            portal: Some(Arc::new(token)),
        }
    }

    pub(super) fn of(key: &ApiKey, hash: &[u8; 32]) -> Self {
        let opens_app = |scope: &Scope| matches!(scope, Scope::Other(text) if text.starts_with("app:") && text.ends_with(":*"));
        Self {
            scopes: key.scopes.clone(),
            key: Some(key.id),
            app: key.app,
            allowed_ips: key.allowed_ips.clone(),
            credential: half(hash),
            whole_app: key.app.is_some() && key.scopes.iter().any(opens_app),
            portal: None,
        }
    }

    /// Whether it has `scope`, directly or by a wider one: `admin` holds all, `read` holds the
    /// reading ones, `webhooks:write` those of endpoints and their secrets, `msg:write` that of
    /// sending again, `app:{id}:*` all of its application but making keys.
    pub fn may(&self, scope: &Scope) -> bool {
        self.scopes.iter().any(|own| match own {
            Scope::Admin => true,
            Scope::Read => matches!(
                scope,
                Scope::Read | Scope::MessageRead | Scope::WebhooksRead
            ),
            Scope::MessageWrite => matches!(scope, Scope::MessageWrite | Scope::AttemptsWrite),
            Scope::WebhooksWrite => matches!(
                scope,
                Scope::WebhooksWrite
                    | Scope::EndpointsWrite
                    | Scope::SecretsRead
                    | Scope::SecretsWrite
            ),
            Scope::MessageRead
            | Scope::WebhooksRead
            | Scope::EndpointsWrite
            | Scope::SecretsRead
            | Scope::SecretsWrite
            | Scope::AttemptsWrite
            | Scope::KeysWrite
            | Scope::InboundWrite
            | Scope::AuditRead => own == scope,
            Scope::Other(_) => {
                own == scope
                    || (self.whole_app && !matches!(scope, Scope::Admin | Scope::KeysWrite))
            }
        })
    }

    /// Whether it may be used from this address.
    pub fn is_allowed_from(&self, ip: IpAddr) -> bool {
        self.allowed_ips.is_empty() || self.allowed_ips.iter().any(|net| net.contains(&ip))
    }

    /// Whether it sees this application.
    pub fn sees(&self, app: AppNo) -> bool {
        self.app.is_none_or(|own| own == app)
    }
}

fn half(hash: &[u8; 32]) -> [u8; 16] {
    let mut out = [0; 16];
    out.copy_from_slice(hash.split_at(16).0);
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    fn with(scopes: &[&str], app: Option<AppNo>) -> Principal {
        let key = crate::auth::mint(
            [1; crate::auth::KEY_RANDOM],
            crate::auth::NewKey {
                prefix: crate::model::KeyPrefix::default(),
                name: String::new(),
                scopes: scopes
                    .iter()
                    .map(|s| Scope::from((*s).to_owned()))
                    .collect(),
                app,
                expires: None,
                allowed_ips: Vec::new(),
            },
            crate::base::Timestamp::ZERO,
        );
        Principal::of(&key.0, &[0; 32])
    }

    #[test]
    fn wider_scopes_hold_narrower_ones() {
        let admin = with(&["admin"], None);
        let reader = with(&["read"], None);
        let sender = with(&["msg:write"], None);
        assert!(admin.may(&Scope::KeysWrite) && admin.may(&Scope::MessageWrite));
        assert!(reader.may(&Scope::MessageRead) && reader.may(&Scope::WebhooksRead));
        assert!(!reader.may(&Scope::MessageWrite) && !reader.may(&Scope::KeysWrite));
        assert!(sender.may(&Scope::MessageWrite) && !sender.may(&Scope::MessageRead));
        assert!(!with(&["jobs:read"], None).may(&Scope::Read));
    }

    #[test]
    fn narrow_scopes_open_no_wider_ones() {
        let narrow = with(
            &[
                "endpoints:write",
                "secrets:read",
                "secrets:write",
                "attempts:write",
            ],
            None,
        );
        assert!(narrow.may(&Scope::EndpointsWrite) && narrow.may(&Scope::AttemptsWrite));
        for wider in [
            Scope::WebhooksWrite,
            Scope::MessageWrite,
            Scope::WebhooksRead,
        ] {
            assert!(!narrow.may(&wider), "{wider:?}");
        }
        let wide = with(&["webhooks:write"], None);
        assert!(wide.may(&Scope::SecretsRead) && !wide.may(&Scope::AttemptsWrite));
        assert!(with(&["msg:write"], None).may(&Scope::AttemptsWrite));
        assert!(!with(&["read"], None).may(&Scope::SecretsRead));
    }

    #[test]
    fn a_key_of_a_whole_application_opens_it_and_nothing_else() {
        let bound = with(&["app:acme:*"], Some(AppNo(3)));
        assert!(bound.may(&Scope::WebhooksWrite) && bound.may(&Scope::MessageRead));
        assert!(!bound.may(&Scope::KeysWrite) && !bound.may(&Scope::Admin));
        assert!(bound.sees(AppNo(3)) && !bound.sees(AppNo(4)));
        assert!(!with(&["app:acme:*"], None).may(&Scope::MessageRead));
    }
}
