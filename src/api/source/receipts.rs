//! What a source received: accepted and refused, and why.

use serde::Serialize;
use serde_json::json;

use super::find;
use crate::api::page::{List, Paging, select};
use crate::api::reply::Reply;
use crate::api::request::{Answer, Cx};
use crate::base::Timestamp;
use crate::inbound::{Receipt, ReceiptId};
use crate::model::MessageId;

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Out {
    id: ReceiptId,
    timestamp: Timestamp,
    verdict: &'static str,
    #[serde(skip_serializing_if = "Option::is_none")]
    reason: Option<&'static str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    integrity: Option<&'static str>,
    status: u16,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    messages: Vec<MessageId>,
    /// Events of the request, where there are more than `messages` names.
    events: usize,
    bytes: usize,
    ip: std::net::IpAddr,
    /// Equal receipts in a row, of which this is the last.
    count: u64,
}

/// GET `/source/{source_id}/receipts`: Q verdict (accepted, duplicate, handshake, refused), limit, iterator.
pub(in crate::api) async fn list(cx: Cx) -> Answer {
    let source = find(&cx)?;
    let query = cx.query();
    let paging = Paging::of(&query, true, |text| ReceiptId::parse(text).ok())?;
    let verdict = query.get("verdict");
    let receipts = cx.state.inbound.receipts(source.no);
    let wanted = receipts
        .into_iter()
        .filter(|receipt| verdict.is_none_or(|verdict| receipt.verdict.name() == verdict));
    let (page, done) = select(&paging, wanted, |receipt| receipt.id);
    let data: Vec<_> = page.into_iter().map(shown).collect();
    Ok(List::of(data, done, |out| out.id.to_string()).reply())
}

/// GET `/source/{source_id}/stats`: how much of what since the start.
pub(in crate::api) async fn stats(cx: Cx) -> Answer {
    let source = find(&cx)?;
    let stats = cx.state.inbound.stats(source.no);
    Ok(Reply::ok(&json!({
        "accepted": stats.accepted, "duplicates": stats.duplicates, "handshakes": stats.handshakes,
        "refused": stats.refused, "failuresInARow": stats.in_a_row,
    })))
}

fn shown(receipt: Receipt) -> Out {
    Out {
        id: receipt.id,
        timestamp: receipt.at,
        verdict: receipt.verdict.name(),
        reason: receipt.verdict.reason(),
        integrity: receipt.integrity,
        status: receipt.status,
        messages: receipt.messages,
        events: receipt.events,
        bytes: receipt.bytes,
        ip: receipt.ip,
        count: receipt.count,
    }
}
