//! What the body of a request is. The same bytes in every attempt, resend and replay.

use bytes::Bytes;

use super::compact;
use crate::model::{Envelope, Message};

/// The body for an endpoint with this envelope (`api.md` 6).
///
/// `Raw` is the producer's bytes themselves. `Standard` wraps them untouched. The two envelopes of
/// the seeds (R-23, R-24) print `data` as JavaScript would, because their receivers verify over
/// re-serialised JSON (R-25). `payload` is that of the message, or what is left of it.
pub(super) fn body(
    envelope: Envelope,
    organization: &str,
    (message, payload): (&Message, &Bytes),
) -> Bytes {
    let event_type = quoted(&message.event_type);
    let at = message.accepted;
    let head = match envelope {
        Envelope::Raw => return payload.clone(),
        Envelope::Standard => format!(r#"{{"type":{event_type},"timestamp":"{at}","data":"#),
        Envelope::IdType => format!(
            r#"{{"id":"{}","type":{event_type},"timestamp":"{at}","organizationId":{},"data":"#,
            message.id(),
            quoted(organization),
        ),
        Envelope::Event => format!(
            r#"{{"event":{event_type},"timestamp":"{at}","organizationId":{},"data":"#,
            quoted(organization),
        ),
    };
    let mut body = Vec::with_capacity(head.len() + payload.len() + 1);
    body.extend_from_slice(head.as_bytes());
    let rewritten = match envelope {
        Envelope::Raw | Envelope::Standard => None,
        Envelope::IdType | Envelope::Event => compact::rewrite(payload),
    };
    // A payload is JSON since it was accepted; what is none would be passed on as it is.
    body.extend_from_slice(rewritten.as_deref().unwrap_or(payload));
    body.push(b'}');
    Bytes::from(body)
}

fn quoted(text: &str) -> String {
    serde_json::Value::from(text).to_string()
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;
    use crate::base::Timestamp;
    use crate::model::{AppNo, ContentType, LaneId, Position};

    fn message(payload: &'static str) -> Message {
        Message {
            at: Position {
                lane: LaneId(1),
                seq: 7,
            },
            accepted: Timestamp::from_millis(1_767_600_930_120),
            app: AppNo(1),
            event_type: Arc::from("lead.captured"),
            content_type: ContentType::Json,
            payload: Bytes::from_static(payload.as_bytes()),
            targets: Vec::new(),
            labels: None,
        }
    }

    const PAYLOAD: &str = "{ \"n\": 1.0,\r\n \"s\":\"\\u00e9\" }";

    fn text(envelope: Envelope, organization: &str) -> String {
        let message = message(PAYLOAD);
        let body = body(envelope, organization, (&message, &message.payload));
        String::from_utf8(body.to_vec()).unwrap()
    }

    #[test]
    fn raw_is_the_producers_bytes_themselves() {
        let message = message(PAYLOAD);
        let body = body(Envelope::Raw, "acme", (&message, &message.payload));
        assert_eq!(body.as_ptr(), message.payload.as_ptr());
        assert_eq!(body, PAYLOAD);
    }

    #[test]
    fn standard_wraps_the_bytes_untouched() {
        let want = format!(
            r#"{{"type":"lead.captured","timestamp":"2026-01-05T08:15:30.120Z","data":{PAYLOAD}}}"#
        );
        assert_eq!(text(Envelope::Standard, "acme"), want);
    }

    #[test]
    fn the_envelopes_of_the_seeds_print_data_as_javascript_does() {
        let id = message(PAYLOAD).id();
        let rest = r#""timestamp":"2026-01-05T08:15:30.120Z","organizationId":"acme","data":{"n":1,"s":"é"}}"#;
        assert_eq!(
            text(Envelope::IdType, "acme"),
            format!(r#"{{"id":"{id}","type":"lead.captured",{rest}"#)
        );
        assert_eq!(
            text(Envelope::Event, "acme"),
            format!(r#"{{"event":"lead.captured",{rest}"#)
        );
    }
}
