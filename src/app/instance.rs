//! What every instance has: an id, the operator application, and on the first start an admin key.

use serde_json::json;
use tracing::info;

use super::build::Engine;
use crate::auth::{KEY_RANDOM, NewKey, mint};
use crate::base::Clock;
use crate::directory;
use crate::model::{AppId, Application, KeyPrefix, Quotas, Scope};
use crate::schedule::OPERATOR;

/// Adds the event types of the catalogues that the configuration names.
pub(super) async fn add_event_types(
    engine: &Engine,
    names: &[String],
) -> Result<(), directory::Error> {
    let (now, catalogs) = (engine.clock.now(), &engine.catalogs);
    let add = |draft: &mut directory::Draft| catalogs.add_missing(names, draft, now);
    let added = engine.directory.change(add).await?;
    if added > 0 {
        info!(
            added,
            catalogs = names.join(", "),
            "event types of catalogues were added"
        );
    }
    Ok(())
}

/// Makes what is missing. Answers the text of a new admin key if there was none of any kind.
pub(super) async fn prepare(
    engine: &Engine,
    has_key: bool,
) -> Result<Option<String>, directory::Error> {
    let now = engine.clock.now();
    let id: [u8; 14] = engine.entropy.bytes();
    let app_id: [u8; 14] = engine.entropy.bytes();
    let random: [u8; KEY_RANDOM] = engine.entropy.bytes();
    engine
        .directory
        .change(|draft| {
            if draft.instance("id").is_none() {
                let id = crate::base::Id20::new(now, id).text("org_");
                info!(instance = id, "first start");
                draft.put_instance("id", json!(id))?;
            }
            if draft.app(OPERATOR).is_none() {
                draft.put_app(Application {
                    no: draft.next_app(),
                    id: AppId::new(now, app_id),
                    uid: Some(OPERATOR.to_owned()),
                    name: String::from("Operational events of this gateway"),
                    throttle_rate: None,
                    metadata: std::collections::BTreeMap::new(),
                    created: now,
                    updated: now,
                    portal_cuts: Vec::new(),
                    key_prefix: None,
                    plan: None,
                    quotas: Quotas::default(),
                    deleted: None,
                })?;
            }
            let admin = |key: &crate::model::ApiKey| {
                key.revoked.is_none() && key.scopes.contains(&Scope::Admin)
            };
            if has_key || draft.keys().any(|key| admin(key)) {
                return Ok(None);
            }
            let new = NewKey {
                prefix: KeyPrefix::default(),
                name: String::from("first admin key"),
                scopes: vec![Scope::Admin],
                app: None,
                expires: None,
                allowed_ips: Vec::new(),
            };
            let (key, text) = mint(random, new, now);
            draft.put_key(key)?;
            Ok(Some(text))
        })
        .await
}
