//! The end of the commit thread: nobody who handed something in waits for ever.

use std::future::Future;
use std::pin::pin;
use std::sync::Arc;
use std::task::{Context, Waker};

use posthaste::base::{Clock, SystemClock, Timestamp};
use posthaste::lane::{Error, Lane, Options, Rounds};
use posthaste::model::{AppNo, ContentType, Message, Position};
use posthaste::store::Accept;
use posthaste::store::model::{Model, ModelWriter};
use tokio::sync::mpsc;

fn lane() -> (Lane, Rounds) {
    let (writer, _): (ModelWriter, _) = Model::new().open();
    let clock: Arc<dyn Clock> = Arc::new(SystemClock::start());
    let options = Options {
        queue: 8,
        queue_bytes: 1 << 20,
        max_group: 2,
    };
    Lane::by_hand(Box::new(writer), clock, options, mpsc::channel(8).0)
}

fn message() -> Accept {
    Accept {
        message: Message {
            at: Position::START,
            accepted: Timestamp::ZERO,
            app: AppNo(1),
            event_type: Arc::from("invoice.paid"),
            content_type: ContentType::Json,
            payload: bytes::Bytes::from_static(b"{}"),
            targets: Vec::new(),
            labels: None,
        },
        idempotency: None,
    }
}

#[tokio::test]
async fn what_is_queued_behind_the_end_is_answered_while_handles_are_left() {
    let (lane, mut rounds) = lane();
    let mut closing = pin!(lane.close());
    let waker = Waker::noop();
    assert!(
        closing
            .as_mut()
            .poll(&mut Context::from_waker(waker))
            .is_pending()
    );
    let ticket = lane.append(vec![message()]).unwrap();
    assert!(!rounds.turn(), "it was closed");
    drop(rounds);
    closing.await.unwrap();
    // `lane` still holds the queue open.
    assert_eq!(ticket.committed().await.unwrap_err(), Error::Failed);
}

#[tokio::test]
async fn what_comes_after_the_end_is_refused_at_once() {
    let (lane, rounds) = lane();
    drop(rounds);
    assert_eq!(lane.append(vec![message()]).err(), Some(Error::Failed));
    assert_eq!(lane.close().await, Err(Error::Failed));
    assert!(matches!(lane.space().await, Err(Error::Failed)));
}
