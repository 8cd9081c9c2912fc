//! Pages of parked rows, with the messages of those that are due. Blocks on the store.

use std::sync::Arc;

use tracing::error;

use super::core::{Input, Kind, Read};
use crate::base::{Timestamp, broken};
use crate::model::{Delivery, Message, Parked, ParkedKey, Position, Verdict};
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
                at: now,
            };
        }
    };
    let mut more = rows.len() >= read.limit;
    if broken::DROP_PARKED {
        forget_one(reader, &mut rows);
    }
    let mut page = Vec::with_capacity(rows.len());
    for row in rows {
        if read.walk {
            page.push((row, None));
            continue;
        }
        match message_of(reader, &row, now) {
            Ok(message) => page.push((row, message)),
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

/// The message of a row that is due; `None` if it expired, lost its payload on request, or is corrupt.
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

/// The row of a delivery that is parked. It stands in the backlog, or under the due time of its last
/// verdict; with `order: key` also under the due time of the delivery it waits behind.
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
        let key = ParkedKey {
            endpoint: delivery.endpoint,
            due,
            at: delivery.at,
        };
        if let Some(row) = reader.parked_row(key)? {
            return Ok(Some(row));
        }
    }
    if by_key {
        waiting_row(reader, delivery)
    } else {
        Ok(None)
    }
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
