//! The signing secret of an endpoint: show it, rotate it.

use std::sync::Arc;
use std::time::Duration;

use serde::Serialize;

use super::{change, wanted};
use crate::api::error::{Code, Problem};
use crate::api::reply::Reply;
use crate::api::request::{Answer, Cx};
use crate::base::Timestamp;
use crate::ingest::fields::sized;
use crate::model::{Endpoint, OldSecret, Secret};
use crate::policy::sign::generate;

/// Old secrets that may sign along at the same time.
const MAX_OLD: usize = 10;
const DEFAULT_GRACE_SECS: u64 = 86_400;
const MAX_GRACE_SECS: u64 = 604_800;

#[derive(Serialize)]
struct Out<'a> {
    key: &'a str,
}

/// GET `…/endpoint/{endpoint_id}/secret`
pub(in crate::api) async fn read(cx: Cx) -> Answer {
    let (_, endpoint) = cx.endpoint()?;
    Ok(Reply::ok(&Out {
        key: endpoint.secret.reveal(),
    }))
}

/// POST `…/endpoint/{endpoint_id}/secret/rotate`: the old secret signs along for the grace period.
pub(in crate::api) async fn rotate(mut cx: Cx) -> Answer {
    let mut fields = cx.fields_or_none().await?;
    let key = fields.text("key", sized(1, 256)).value().map(Secret::new);
    let grace = fields.number("gracePeriodSeconds", 0..=MAX_GRACE_SECS);
    fields.finish()?;
    let grace = Duration::from_secs(grace.value().unwrap_or(DEFAULT_GRACE_SECS));
    let key = key.unwrap_or_else(|| generate(cx.state.entropy.bytes()));
    let state = Arc::clone(&cx.state);
    let now = cx.now;
    let changed = change(&cx, move |_, endpoint| {
        replace(endpoint, key, grace, now)?;
        wanted::check(endpoint, &state)
    });
    let changed = changed.await?;
    Ok(Reply::ok(&Out {
        key: changed.secret.reveal(),
    }))
}

fn replace(
    endpoint: &mut Endpoint,
    key: Secret,
    grace: Duration,
    now: Timestamp,
) -> Result<(), Problem> {
    endpoint.old_secrets.retain(|old| now < old.expires);
    let before = std::mem::replace(&mut endpoint.secret, key);
    if !grace.is_zero() {
        if endpoint.old_secrets.len() >= MAX_OLD {
            let detail = format!("{MAX_OLD} old secrets are alive; wait until one expires.");
            return Err(Problem::new(Code::LimitReached, detail));
        }
        let old = OldSecret {
            secret: before,
            expires: now.plus(grace),
        };
        endpoint.old_secrets.insert(0, old);
    }
    endpoint.updated = now;
    Ok(())
}
