//! Pages of parked rows, with the messages of those that are due. Blocks on the store.

use std::collections::BTreeMap;
use std::sync::Arc;

use tracing::error;

use super::core::{Input, Kind, Read};
use crate::base::{Timestamp, broken};
use crate::model::{Delivery, EndpointNo, Message, Parked, ParkedKey, Position, Verdict};
use crate::policy::retry;
use crate::store::{self, Reader};

/// Rows with the messages of those that are due.
pub fn read_page(reader: &dyn Reader, read: Read, now: Timestamp) -> Input {
    let until = match read.kind {
        Kind::Backlog => Timestamp::ZERO,
        Kind::Retry | Kind::Stray => Timestamp::MAX,
    };
    // Retries begin behind every backlog row.
    let floor = (read.kind != Kind::Backlog).then_some(ParkedKey {
        endpoint: read.endpoint,
        due: Timestamp::ZERO,
        at: Position::END,
    });
    let mut rows = match reader.parked(read.endpoint, read.after.max(floor), until, read.limit) {
        Ok(rows) => rows,
        Err(cause) => {
            error!(%cause, endpoint = read.endpoint.0, "parked deliveries cannot be read");
            return Input::Page {
                read,
                rows: Vec::new(),
                more: true,
                superseded: BTreeMap::new(),
                at: now,
            };
        }
    };
    let mut more = rows.len() >= read.limit;
    if broken::DROP_PARKED {
        forget_one(reader, &mut rows);
    }
    let mut page = Vec::with_capacity(rows.len());
    let mut superseded = BTreeMap::new();
    for row in rows {
        if read.walk {
            page.push((row, None));
            continue;
        }
        let found = message_of(reader, &row, now).and_then(|message| {
            let by = message.as_ref().map(|m| replaced(reader, &row, m));
            Ok((message, by.transpose()?.flatten()))
        });
        match found {
            Ok((message, by)) => {
                superseded.extend(by.map(|by| (row.key.at, by)));
                page.push((row, message));
            }
            Err(cause) => {
                error!(%cause, "a page of parked deliveries is cut short; the rest is read again");
                more = true;
                break;
            }
        }
    }
    Input::Page {
        read,
        rows: page,
        more,
        superseded,
        at: now,
    }
}

/// See [`broken::DROP_PARKED`]: forgets the first row of a page that an earlier run parked.
fn forget_one(reader: &dyn Reader, rows: &mut Vec<Parked>) {
    let lanes = reader.lanes().unwrap_or_default();
    let own = lanes.iter().map(|lane| lane.id).max();
    if let Some(n) = rows.iter().position(|row| Some(row.key.at.lane) < own) {
        rows.remove(n);
    }
}

/// The message of a row that is due; `None` if it expired, has no payload any more, or is corrupt. One
/// whose payload is only out of its time is delivered: what was not finished then keeps it.
fn message_of(
    reader: &dyn Reader,
    row: &Parked,
    now: Timestamp,
) -> Result<Option<Arc<Message>>, store::Error> {
    if !retry::is_due(row.key.due, now) {
        return Ok(None);
    }
    match reader.message(row.key.at) {
        Ok(message) => Ok(message.filter(|m| !m.is_expunged()).map(Arc::new)),
        Err(store::Error::Corrupt { what, why }) => {
            error!(
                what,
                why, "a corrupt message is never delivered; its delivery is cancelled"
            );
            Ok(None)
        }
        Err(cause) => Err(cause),
    }
}

/// The later message that takes the place of this one.
fn replaced(
    reader: &dyn Reader,
    row: &Parked,
    message: &Message,
) -> Result<Option<Position>, store::Error> {
    let Some(key) = message.collapse_key() else {
        return Ok(None);
    };
    let newest = reader.newest(message.app, row.key.endpoint, key)?;
    Ok(newest.filter(|newest| *newest > message.at))
}

/// The row of a delivery that is parked. It stands in the backlog, or under the due time of its last
/// verdict (before the first one, of its message); with `order: key` also under the due time of the delivery it waits behind.
pub fn find_row(
    reader: &dyn Reader,
    delivery: Delivery,
    last: Option<Verdict>,
    by_key: bool,
) -> Result<Option<Parked>, store::Error> {
    let due = match last {
        Some(Verdict::RetryAt(due)) => Some(due),
        Some(Verdict::Delivered | Verdict::Dead(_)) | None => None,
    };
    for due in [Some(Timestamp::ZERO), due].into_iter().flatten() {
        if let Some(row) = row_at(reader, delivery, due)? {
            return Ok(Some(row));
        }
    }
    if last.is_none()
        && let Some(message) = reader.message(delivery.at)?
        && let Some(row) = put_off(reader, &message, delivery.endpoint)?
    {
        return Ok(Some(row));
    }
    if by_key {
        waiting_row(reader, delivery)
    } else {
        Ok(None)
    }
}

/// The row of a message that waits for the time its sender named.
pub(super) fn put_off(
    reader: &dyn Reader,
    message: &Message,
    endpoint: EndpointNo,
) -> Result<Option<Parked>, store::Error> {
    let at = message.at;
    match message.deliver_at() {
        Some(due) => row_at(reader, Delivery { at, endpoint }, due),
        None => Ok(None),
    }
}

fn row_at(
    reader: &dyn Reader,
    delivery: Delivery,
    due: Timestamp,
) -> Result<Option<Parked>, store::Error> {
    reader.parked_row(ParkedKey {
        endpoint: delivery.endpoint,
        due,
        at: delivery.at,
    })
}

/// The row of a delivery among those that wait for a time, whatever time that is. Reads through them,
/// which only endpoints with `order: key` need.
pub(super) fn waiting_row(
    reader: &dyn Reader,
    delivery: Delivery,
) -> Result<Option<Parked>, store::Error> {
    const PAGE: usize = 256;
    let mut after = Some(ParkedKey {
        endpoint: delivery.endpoint,
        due: Timestamp::ZERO,
        at: Position::END,
    });
    loop {
        let rows = reader.parked(delivery.endpoint, after, Timestamp::MAX, PAGE)?;
        if let Some(row) = rows.iter().find(|row| row.key.at == delivery.at) {
            return Ok(Some(row.clone()));
        }
        match rows.last() {
            Some(last) if rows.len() == PAGE => after = Some(last.key),
            _ => return Ok(None),
        }
    }
}
