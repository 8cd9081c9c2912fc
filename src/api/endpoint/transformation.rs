//! Transformations: there is no engine for them yet, so there is none to be seen and none can be set.

use serde::Serialize;

use crate::api::reply::Reply;
use crate::api::request::{Answer, Cx};
use crate::ingest::ItemKind;
use crate::ingest::fields::Given;

/// EndpointTransformationOut of an endpoint without one.
#[derive(Serialize)]
struct Out {
    enabled: bool,
}

/// GET `…/endpoint/{endpoint_id}/transformation`
pub(in crate::api) async fn read(cx: Cx) -> Answer {
    cx.endpoint()?;
    Ok(Reply::ok(&Out { enabled: false }))
}

/// PATCH `…/endpoint/{endpoint_id}/transformation`: what there is (nothing) can be said again.
pub(in crate::api) async fn patch(mut cx: Cx) -> Answer {
    let mut fields = cx.fields().await?;
    fields.unsupported("code");
    fields.unsupported("variables");
    if fields.flag("enabled") == Given::Value(true) {
        let msg = "there are no transformations yet".into();
        fields.wrong("enabled", (ItemKind::UnsupportedField, msg));
    }
    fields.finish()?;
    cx.endpoint()?;
    Ok(Reply::empty())
}
