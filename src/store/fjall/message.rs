//! The stored form of a message: a hand-laid header, then the payload as it came.
//!
//! Owns: the layout below. Read in place: the payload is a slice of the stored value, not a copy.
//! The checksum stands first and covers all behind it; lane and sequence number are repeated inside,
//! so a record under a wrong key is found out (`reliability.md` D5). Pure.
//!
//! ```text
//! crc32c 4 | format 1 | flags 1 | content type 1 | event type len 2 | lane 4 | seq 8 | accepted 6
//! | app 4 | targets 4 | labels len 4 | payload len 4 || event type | targets 4 each | labels | payload
//! labels: flags 1 | channels 2 | tags 2 | hops 1 (flag 4) | deliver at 6 (flag 16) | hours 2 (flag 64)
//! | event id (flag 1), ordering key (flag 2), collapse key (flag 32), channels, tags: len 4 and text each
//! ```
//!
//! Format 3 has metadata behind the tags (flag 8): count 2, then name and value, len 4 and text each. It is
//! written for messages of sources and for no other.
//!
//! Format 5 has among its labels when it may be delivered (flag 16), or a collapse key (flag 32). It is
//! written for messages that were sent with one of these and for no other, whatever else they have.
//!
//! Format 6 has among its labels after how many hours its payload ends (flag 64). It is written for messages
//! that were sent with such a time and for no other, whatever else they have: a version that does not know it
//! refuses the record rather than show the payload for longer.
//!
//! Format 4 is a message whose payload was taken away, on request or after its time: nothing behind the labels. A
//! version that does not know it refuses the record rather than deliver an empty body.
//! Format 2 is format 1 with hops among the labels. It is written for messages that have made hops
//! and for no other, so a version that knows only format 1 reads everything else and refuses, rather
//! than misreads, these. Format 1 reads as no hops.
#![deny(clippy::indexing_slicing)]

use bytes::{BufMut, Bytes, BytesMut};

use crate::base::{Timestamp, broken};
use crate::model::{AppNo, ContentType, EndpointNo, Labels, Message, Position};
use crate::store::Error;

use super::keys::{six, take};
use super::record::{corrupt, length};

/// Bytes in front of the event type.
const HEAD: usize = 43;
/// The format of messages without hops.
const FORMAT: u8 = 1;
/// The format of messages with hops.
const FORMAT_HOPS: u8 = 2;
/// The format of messages with metadata.
const FORMAT_METADATA: u8 = 3;
/// The format of messages without a payload.
const FORMAT_EXPUNGED: u8 = 4;
/// The format of messages with a time of delivery or a collapse key.
const FORMAT_TIMED: u8 = 5;
/// The format of messages whose payload has a time of its own.
const FORMAT_ENDING: u8 = 6;
/// In the flags of the labels: hops follow.
const HOPS: u8 = 4;
/// In the flags of the labels: metadata stands at the end.
const METADATA: u8 = 8;
/// In the flags of the labels: a time before which nothing is sent follows.
const DELIVER_AT: u8 = 16;
/// In the flags of the labels: a collapse key stands behind the ordering key.
const COLLAPSE: u8 = 32;
/// In the flags of the labels: the hours of the payload follow the time of delivery.
const PAYLOAD_HOURS: u8 = 64;

/// What the record of `message` takes, for reserving room ahead. Never too small.
pub fn size(message: &Message) -> usize {
    let labels = message.labels.as_ref().map_or(0, |labels| {
        let lists = labels.channels.iter().chain(&labels.tags);
        let single = labels.event_id.iter().chain(&labels.ordering_key);
        let single = single.chain(&labels.collapse_key);
        let metadata = labels
            .metadata
            .iter()
            .flat_map(|(name, value)| [name, value]);
        21 + lists
            .chain(single)
            .chain(metadata)
            .map(|text| text.len() + 4)
            .sum::<usize>()
    });
    HEAD + message.event_type.len() + 4 * message.targets.len() + labels + message.payload.len()
}

/// Writes the record behind what is in `out`; answers its checksum. Texts beyond their length field
/// are refused before anything is written.
pub fn encode(message: &Message, out: &mut BytesMut) -> Result<u32, Error> {
    let start = out.len();
    let too_long = |_| Error::NotApplied(String::from("a field of the message is too long"));
    let event_type = u16::try_from(message.event_type.len()).map_err(too_long)?;
    let targets = u32::try_from(message.targets.len()).map_err(too_long)?;
    let payload = u32::try_from(message.payload.len()).map_err(too_long)?;
    let content = match message.content_type {
        ContentType::Json => 1,
    };
    let has_metadata = message
        .labels
        .as_ref()
        .is_some_and(|labels| !labels.metadata.is_empty());
    let format = match (has_metadata, message.hops()) {
        _ if message.is_expunged() => FORMAT_EXPUNGED,
        _ if message.payload_ends().is_some() => FORMAT_ENDING,
        _ if message.deliver_at().is_some() || message.collapse_key().is_some() => FORMAT_TIMED,
        (true, _) => FORMAT_METADATA,
        (false, 1..) => FORMAT_HOPS,
        (false, 0) => FORMAT,
    };
    out.put_u32(0);
    out.put_slice(&[format, u8::from(message.labels.is_some()), content]);
    out.put_u16(event_type);
    out.put_slice(&message.at.bytes());
    out.put_slice(&six(message.accepted.millis()));
    out.put_u32(message.app.0);
    out.put_u32(targets);
    let labels_len = out.len();
    out.put_u32(0);
    out.put_u32(payload);
    out.put_slice(message.event_type.as_bytes());
    for target in &message.targets {
        out.put_u32(target.0);
    }
    if let Some(labels) = &message.labels {
        let before = out.len();
        put_labels(labels, out).map_err(too_long)?;
        let len = u32::try_from(out.len() - before).map_err(too_long)?;
        patch(out, labels_len, len);
    }
    out.put_slice(&message.payload);
    let crc = crc32c::crc32c(out.get(start + 4..).unwrap_or_default());
    patch(out, start, crc);
    Ok(crc)
}

/// Overwrites four bytes already written.
fn patch(out: &mut BytesMut, at: usize, value: u32) {
    if let Some(place) = out.get_mut(at..at + 4) {
        place.copy_from_slice(&value.to_be_bytes());
    }
}

fn put_labels(labels: &Labels, out: &mut BytesMut) -> Result<(), std::num::TryFromIntError> {
    let single = u8::from(labels.event_id.is_some()) | u8::from(labels.ordering_key.is_some()) << 1;
    let hops = if labels.hops > 0 { HOPS } else { 0 };
    let metadata = if labels.metadata.is_empty() {
        0
    } else {
        METADATA
    };
    let deliver_at = if labels.deliver_at.is_some() {
        DELIVER_AT
    } else {
        0
    };
    let collapse = if labels.collapse_key.is_some() {
        COLLAPSE
    } else {
        0
    };
    let hours = if labels.payload_hours > 0 {
        PAYLOAD_HOURS
    } else {
        0
    };
    out.put_u8(single | hops | metadata | deliver_at | collapse | hours);
    out.put_u16(u16::try_from(labels.channels.len())?);
    out.put_u16(u16::try_from(labels.tags.len())?);
    if labels.hops > 0 {
        out.put_u8(labels.hops);
    }
    if let Some(at) = labels.deliver_at {
        out.put_slice(&six(at.millis()));
    }
    if labels.payload_hours > 0 {
        out.put_u16(labels.payload_hours);
    }
    let single = labels.event_id.iter().chain(&labels.ordering_key);
    let single = single.chain(&labels.collapse_key);
    for text in single.chain(&labels.channels).chain(&labels.tags) {
        out.put_u32(u32::try_from(text.len())?);
        out.put_slice(text.as_bytes());
    }
    if !labels.metadata.is_empty() {
        out.put_u16(u16::try_from(labels.metadata.len())?);
    }
    for text in labels
        .metadata
        .iter()
        .flat_map(|(name, value)| [name, value])
    {
        out.put_u32(u32::try_from(text.len())?);
        out.put_slice(text.as_bytes());
    }
    Ok(())
}

/// Reads the record found under `key`; checks everything about it.
pub fn decode(key: &[u8], value: &Bytes) -> Result<Message, Error> {
    parse(key, value).map_err(|why| corrupt("message", key, why))
}

fn parse(key: &[u8], value: &Bytes) -> Result<Message, &'static str> {
    const SHORT: &str = "it is shorter than its header says";
    let mut rest = value.as_ref();
    let crc = u32::from_be_bytes(take(&mut rest).ok_or(SHORT)?);
    if crc != crc32c::crc32c(rest) && !broken::SKIP_CHECKSUM {
        return Err("the checksum does not match");
    }
    let [format, flags, content] = take(&mut rest).ok_or(SHORT)?;
    if !matches!(
        format,
        FORMAT | FORMAT_HOPS | FORMAT_METADATA | FORMAT_EXPUNGED | FORMAT_TIMED | FORMAT_ENDING
    ) {
        return Err("the format is unknown");
    }
    let content_type = match content {
        1 => ContentType::Json,
        _ => return Err("the content type is unknown"),
    };
    let event_type_len = u16::from_be_bytes(take(&mut rest).ok_or(SHORT)?);
    let at: [u8; 12] = take(&mut rest).ok_or(SHORT)?;
    if at != key {
        return Err("it belongs to another place in the log");
    }
    let [a, b, c, d, e, f] = take(&mut rest).ok_or(SHORT)?;
    let accepted = Timestamp::from_millis(u64::from_be_bytes([0, 0, a, b, c, d, e, f]));
    let app = AppNo(u32::from_be_bytes(take(&mut rest).ok_or(SHORT)?));
    let targets = length(take(&mut rest).ok_or(SHORT)?);
    let labels_len = length(take(&mut rest).ok_or(SHORT)?);
    let payload_len = length(take(&mut rest).ok_or(SHORT)?);
    let (event_type, rest) = rest
        .split_at_checked(usize::from(event_type_len))
        .ok_or(SHORT)?;
    let targets_len = targets.checked_mul(4).ok_or(SHORT)?;
    let (targets, rest) = rest.split_at_checked(targets_len).ok_or(SHORT)?;
    let (labels, rest) = rest.split_at_checked(labels_len).ok_or(SHORT)?;
    if rest.len() != payload_len {
        return Err(SHORT);
    }
    let event_type = std::str::from_utf8(event_type).map_err(|_| "the event type is no text")?;
    let targets = targets.as_chunks::<4>().0.iter();
    let labels = if flags & 1 == 0 {
        None
    } else {
        Some(Box::new(read_labels(labels).ok_or("bad labels")?))
    };
    Ok(Message {
        at: Position::from_bytes(at),
        accepted,
        app,
        event_type: event_type.into(),
        content_type,
        payload: value.slice(value.len() - payload_len..),
        targets: targets
            .map(|no| EndpointNo(u32::from_be_bytes(*no)))
            .collect(),
        labels,
    })
}

fn read_labels(mut from: &[u8]) -> Option<Labels> {
    fn text(from: &mut &[u8]) -> Option<String> {
        let len = length(take(from)?);
        let (text, rest) = from.split_at_checked(len)?;
        *from = rest;
        String::from_utf8(text.to_vec()).ok()
    }
    let [flags] = take(&mut from)?;
    let channels = u16::from_be_bytes(take(&mut from)?);
    let tags = u16::from_be_bytes(take(&mut from)?);
    let mut labels = Labels::default();
    if flags & HOPS != 0 {
        [labels.hops] = take(&mut from)?;
    }
    if flags & DELIVER_AT != 0 {
        let [a, b, c, d, e, f] = take(&mut from)?;
        let ms = u64::from_be_bytes([0, 0, a, b, c, d, e, f]);
        labels.deliver_at = Some(Timestamp::from_millis(ms));
    }
    if flags & PAYLOAD_HOURS != 0 {
        labels.payload_hours = u16::from_be_bytes(take(&mut from)?);
    }
    if flags & 1 != 0 {
        labels.event_id = Some(text(&mut from)?);
    }
    if flags & 2 != 0 {
        labels.ordering_key = Some(text(&mut from)?);
    }
    if flags & COLLAPSE != 0 {
        labels.collapse_key = Some(text(&mut from)?);
    }
    for _ in 0..channels {
        labels.channels.push(text(&mut from)?);
    }
    for _ in 0..tags {
        labels.tags.push(text(&mut from)?);
    }
    if flags & METADATA != 0 {
        let count = u16::from_be_bytes(take(&mut from)?);
        for _ in 0..count {
            labels.metadata.insert(text(&mut from)?, text(&mut from)?);
        }
    }
    from.is_empty().then_some(labels)
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use proptest::prelude::*;

    use super::*;
    use crate::model::LaneId;

    fn text() -> impl Strategy<Value = String> {
        "[a-zä.]{0,12}"
    }

    fn labels() -> impl Strategy<Value = Labels> {
        let lists = (
            proptest::collection::vec(text(), 0..4),
            proptest::collection::vec(text(), 0..4),
        );
        let single = (proptest::option::of(text()), proptest::option::of(text()));
        let metadata = proptest::collection::btree_map(text(), text(), 0..3);
        let newer = (
            proptest::option::of(0..1_u64 << 48),
            proptest::option::of(text()),
            0..3_u16,
        );
        (lists, single, 0..5_u8, metadata, newer).prop_map(
            |(
                (channels, tags),
                (event_id, ordering_key),
                hops,
                metadata,
                (times, collapse_key, payload_hours),
            )| Labels {
                payload_hours,
                collapse_key,
                deliver_at: times.map(Timestamp::from_millis),
                event_id,
                channels,
                tags,
                ordering_key,
                hops,
                metadata,
            },
        )
    }

    prop_compose! {
        fn message()(
            lane in 0..u32::MAX, seq: u64, ms: u64, app: u32, event_type in text(),
            payload in proptest::collection::vec(any::<u8>(), 0..300),
            targets in proptest::collection::vec(any::<u32>(), 0..5),
            labels in proptest::option::of(labels()),
        ) -> Message {
            Message {
                at: Position { lane: LaneId(lane), seq },
                accepted: Timestamp::from_millis(ms),
                app: AppNo(app),
                event_type: event_type.into(),
                content_type: ContentType::Json,
                payload: payload.into(),
                targets: targets.into_iter().map(EndpointNo).collect(),
                labels: labels.map(Box::new),
            }
        }
    }

    proptest! {
        #[test]
        fn a_message_reads_back_without_a_copy_of_its_payload(message in message()) {
            let mut out = BytesMut::new();
            encode(&message, &mut out).unwrap();
            prop_assert!(out.len() <= size(&message));
            let value = out.freeze();
            let back = decode(&message.at.bytes(), &value).unwrap();
            prop_assert_eq!(&back, &message);
            if !back.payload.is_empty() {
                let inside = value.as_ptr_range();
                prop_assert!(inside.contains(&back.payload.as_ptr()));
            }
        }

        #[test]
        fn any_flipped_bit_is_found(message in message(), at: prop::sample::Index, bit in 0..8_u8) {
            let mut out = BytesMut::new();
            encode(&message, &mut out).unwrap();
            let mut bytes = out.to_vec();
            let at = at.index(bytes.len());
            bytes[at] ^= 1_u8 << bit;
            let found = decode(&message.at.bytes(), &bytes.into());
            let refused = matches!(found, Err(Error::Corrupt { .. }));
            prop_assert!(refused);
        }

        #[test]
        fn a_record_under_another_key_is_found(message in message()) {
            let mut out = BytesMut::new();
            encode(&message, &mut out).unwrap();
            let elsewhere = Position { seq: message.at.seq ^ 1, ..message.at };
            prop_assert!(decode(&elsewhere.bytes(), &out.freeze()).is_err());
        }

        #[test]
        fn foreign_bytes_never_panic(bytes in proptest::collection::vec(any::<u8>(), 0..200)) {
            prop_assert!(decode(&[0; 12], &bytes.into()).is_err());
        }
    }

    /// A message of format 1 as version 0.1.0 wrote it before there were hops: event id, ordering
    /// key, one channel, one tag, two targets.
    const WITHOUT_HOPS: &str = "f2b32a800101010003000000030000000000000009019b8d2b8c0000000007000000020000001c00\
        000002612e620000000100000002030001000100000003652d31000000016b000000026575000000\
        01747b7d";

    /// A message of format 6: the same with two hops, and a payload that is kept for 90 days.
    const ENDING: &str = "86227bdf0601010003000000030000000000000009019b8d2b8c0000000007000000020000001f00\
        000002612e620000000100000002470001000102087000000003652d31000000016b000000026575\
        00000001747b7d";

    fn bytes(hex: &str) -> Bytes {
        let digits = |pair: &[u8]| {
            let text = std::str::from_utf8(pair).unwrap();
            u8::from_str_radix(text, 16).unwrap()
        };
        hex.as_bytes().chunks(2).map(digits).collect()
    }

    fn labelled(hops: u8) -> Message {
        Message {
            at: Position {
                lane: LaneId(3),
                seq: 9,
            },
            accepted: Timestamp::from_millis(1_767_600_000_000),
            app: AppNo(7),
            event_type: "a.b".into(),
            content_type: ContentType::Json,
            payload: Bytes::from_static(b"{}"),
            targets: vec![EndpointNo(1), EndpointNo(2)],
            labels: Some(Box::new(Labels {
                event_id: Some(String::from("e-1")),
                channels: vec![String::from("eu")],
                tags: vec![String::from("t")],
                ordering_key: Some(String::from("k")),
                hops,
                ..Labels::default()
            })),
        }
    }

    #[test]
    fn a_record_from_before_there_were_hops_reads_as_none() {
        let old = bytes(WITHOUT_HOPS);
        let message = labelled(0);
        assert_eq!(decode(&message.at.bytes(), &old).unwrap(), message);
        // And a message without hops is still written like that, byte for byte.
        let mut out = BytesMut::new();
        encode(&message, &mut out).unwrap();
        assert_eq!(out.freeze(), old);
    }

    #[test]
    fn a_message_without_a_payload_has_a_format_of_its_own() {
        for hops in [0, 1] {
            let mut message = labelled(hops);
            message.payload = Bytes::new();
            let mut out = BytesMut::new();
            encode(&message, &mut out).unwrap();
            assert_eq!(out.get(4), Some(&FORMAT_EXPUNGED));
            let back = decode(&message.at.bytes(), &out.freeze()).unwrap();
            assert_eq!(back, message);
            assert!(back.is_expunged());
        }
    }

    #[test]
    fn only_a_message_with_a_time_has_the_newest_format() {
        let mut message = labelled(2);
        if let Some(labels) = message.labels.as_mut() {
            labels.deliver_at = Some(Timestamp::from_millis(1_767_600_060_000));
        }
        let mut out = BytesMut::new();
        encode(&message, &mut out).unwrap();
        assert_eq!(out.get(4), Some(&FORMAT_TIMED));
        let back = decode(&message.at.bytes(), &out.freeze()).unwrap();
        assert_eq!(back, message);
    }

    #[test]
    fn only_a_message_whose_payload_has_a_time_has_the_format_for_it() {
        for deliver_at in [None, Some(Timestamp::from_millis(1_767_600_060_000))] {
            let mut message = labelled(2);
            if let Some(labels) = message.labels.as_mut() {
                labels.payload_hours = 2160;
                labels.deliver_at = deliver_at;
            }
            let mut out = BytesMut::new();
            encode(&message, &mut out).unwrap();
            assert_eq!(out.get(4), Some(&FORMAT_ENDING));
            assert!(out.len() <= size(&message));
            let record = out.freeze();
            assert_eq!(record == bytes(ENDING), deliver_at.is_none());
            let back = decode(&message.at.bytes(), &record).unwrap();
            assert_eq!(back, message);
            let days = |n: u64| Duration::from_secs(n * 86_400);
            assert_eq!(back.payload_ends(), Some(message.accepted.plus(days(90))));
            // Once it is taken away the format says so first.
            message.expunge();
            let mut out = BytesMut::new();
            encode(&message, &mut out).unwrap();
            assert_eq!(out.get(4), Some(&FORMAT_EXPUNGED));
            assert_eq!(decode(&message.at.bytes(), &out.freeze()).unwrap(), message);
        }
    }

    #[test]
    fn only_a_message_with_a_collapse_key_has_the_newest_format() {
        let mut message = labelled(0);
        if let Some(labels) = message.labels.as_mut() {
            labels.collapse_key = Some(String::from("row-7"));
        }
        let mut out = BytesMut::new();
        encode(&message, &mut out).unwrap();
        assert_eq!(out.get(4), Some(&FORMAT_TIMED));
        let back = decode(&message.at.bytes(), &out.freeze()).unwrap();
        assert_eq!(back, message);
    }

    #[test]
    fn only_a_message_with_hops_has_the_newer_format() {
        for (hops, format) in [(0, FORMAT), (1, FORMAT_HOPS), (2, FORMAT_HOPS)] {
            let mut out = BytesMut::new();
            encode(&labelled(hops), &mut out).unwrap();
            assert_eq!(out.get(4), Some(&format), "{hops}");
        }
    }
}
