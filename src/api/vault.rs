//! The vault of the running gateway: which master keys wrap how much, and rotating them.

use serde_json::json;

use super::reply::Reply;
use super::request::{Answer, Cx};

/// GET `/admin/vault`
pub(super) async fn read(cx: Cx) -> Answer {
    cx.instance_wide()?;
    let snapshot = cx.state.directory.snapshot();
    let masters = cx.state.directory.vault().masters();
    let keys = masters.ids().into_iter().map(|id| {
        let wrapped = snapshot
            .keyring()
            .keys()
            .filter(|(_, master)| *master == id);
        json!({ "id": id, "dataKeys": wrapped.count(), "primary": id == masters.primary().id() })
    });
    let keys: Vec<_> = keys.collect();
    Ok(Reply::ok(
        &json!({ "masterKeys": keys, "clear": snapshot.in_the_clear() }),
    ))
}

/// POST `/admin/vault/rotate`: `{dataKeys = false}`.
pub(super) async fn rotate(mut cx: Cx) -> Answer {
    cx.instance_wide()?;
    let mut fields = cx.fields_or_none().await?;
    let data_keys = fields.flag("dataKeys").value().unwrap_or(false);
    fields.finish()?;
    let done = cx.state.directory.rotate(data_keys).await?;
    Ok(Reply::ok(
        &json!({ "wrapped": done.wrapped, "made": done.made, "sealed": done.sealed }),
    ))
}
