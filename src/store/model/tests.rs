//! What a crash and a planned fault do to the reference.

use bytes::Bytes;

use super::*;
use crate::model::ContentType;

fn accept(app: u32, ms: u64) -> Accept {
    Accept {
        message: Message {
            at: Position::START,
            accepted: Timestamp::from_millis(ms),
            app: AppNo(app),
            event_type: "invoice.paid".into(),
            content_type: ContentType::Json,
            payload: Bytes::from_static(b"{}"),
            targets: vec![EndpointNo(1)],
            labels: None,
        },
        idempotency: None,
    }
}

fn cancel(seq: u64) -> Settlement {
    Settlement {
        cancelled: vec![delivery(seq)],
        ..Settlement::default()
    }
}

const fn delivery(seq: u64) -> Delivery {
    Delivery {
        at: Position {
            lane: LaneId(1),
            seq,
        },
        endpoint: EndpointNo(1),
    }
}

#[test]
fn a_power_cut_forgets_unsynced_settlements_and_a_kill_does_not() {
    let model = Model::new();
    let (mut writer, reader) = model.open();
    writer.append(&mut [accept(1, 5)]).unwrap();
    writer.settle(&cancel(1)).unwrap();
    model.crash(Crash::Process);
    assert!(reader.is_cancelled(delivery(1)).unwrap());
    assert!(matches!(writer.sync(), Err(Error::Doubtful(_))));
    model.crash(Crash::Power { keep: 0 });
    assert!(!reader.is_cancelled(delivery(1)).unwrap());
    assert_eq!(reader.lanes().unwrap().len(), 1);
}

#[test]
fn an_append_makes_earlier_settlements_durable() {
    let model = Model::new();
    let (mut writer, reader) = model.open();
    writer.settle(&cancel(1)).unwrap();
    assert_eq!(model.unsynced(), 1);
    writer.append(&mut [accept(1, 5)]).unwrap();
    model.crash(Crash::Power { keep: 0 });
    assert!(reader.is_cancelled(delivery(1)).unwrap());
}

#[test]
fn every_open_gets_a_lane_of_its_own() {
    let model = Model::new();
    let (first, _) = model.open();
    let (second, reader) = model.open();
    assert_eq!((first.lane(), second.lane()), (LaneId(1), LaneId(2)));
    assert_eq!(reader.lanes().unwrap().len(), 1, "an empty lane is no lane");
}

#[test]
fn planned_faults_hit_the_call_they_name() {
    let model = Model::new();
    let (mut writer, reader) = model.open();
    model.faults().plan(0, Fault::NotApplied);
    model.faults().plan(2, Fault::DoubtfulApplied);
    let mut batch = [accept(1, 5)];
    assert!(matches!(
        writer.append(&mut batch),
        Err(Error::NotApplied(_))
    ));
    writer.append(&mut batch).unwrap();
    assert_eq!(
        batch[0].message.at.seq, 1,
        "a call not applied takes no number"
    );
    assert!(matches!(writer.append(&mut batch), Err(Error::Doubtful(_))));
    assert!(matches!(writer.append(&mut batch), Err(Error::Doubtful(_))));
    assert_eq!(reader.lanes().unwrap()[0].last, 2);
}
