//! Event types: a catalogue for the whole instance. Messages may have types that are not in it.

use std::sync::Arc;

use http::StatusCode;
use serde::Serialize;
use serde_json::{Value, json};

use super::application::merge;
use super::error::{Code, Problem};
use super::page::{List, Paging, select};
use super::reply::Reply;
use super::request::{Answer, Cx};
use crate::base::Timestamp;
use crate::directory::Draft;
use crate::ingest::fields::{self, Fields, sized};
use crate::ingest::{Item, ItemKind};
use crate::model::{EventType, PayloadValidation};
use crate::policy::schema::Schema;

/// Characters of a description at most.
const MAX_DESCRIPTION: usize = 65_536;

/// EventTypeOut.
#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Out<'a> {
    name: &'a str,
    description: &'a str,
    archived: bool,
    deprecated: bool,
    #[serde(skip_serializing_if = "Option::is_none")]
    schemas: Option<&'a Value>,
    created_at: Timestamp,
    updated_at: Timestamp,
    #[serde(skip_serializing_if = "Option::is_none")]
    group_name: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    feature_flags: Option<&'a [String]>,
    /// What older clients know: the first of the flags.
    #[serde(skip_serializing_if = "Option::is_none")]
    feature_flag: Option<&'a str>,
    payload_validation: PayloadValidation,
}

impl<'a> Out<'a> {
    fn of(event_type: &'a EventType, with_content: bool) -> Self {
        let flags = event_type.feature_flags.as_deref();
        Self {
            name: &event_type.name,
            description: &event_type.description,
            archived: event_type.archived,
            deprecated: event_type.deprecated,
            schemas: event_type.schemas.as_ref().filter(|_| with_content),
            created_at: event_type.created,
            updated_at: event_type.updated,
            group_name: event_type.group_name.as_deref(),
            feature_flags: flags,
            feature_flag: flags.and_then(|all| all.first()).map(String::as_str),
            payload_validation: event_type.payload_validation,
        }
    }
}

/// EventTypeUpsertIn.
struct Wanted {
    description: String,
    archived: bool,
    deprecated: bool,
    schemas: Option<Value>,
    group_name: Option<String>,
    feature_flags: Option<Vec<String>>,
    payload_validation: PayloadValidation,
}

impl Wanted {
    fn read(mut fields: Fields) -> Result<Self, Vec<Item>> {
        let description = fields.required("description", sized(0, MAX_DESCRIPTION));
        let archived = fields.flag("archived").value();
        let deprecated = fields.flag("deprecated").value();
        let schemas = fields.read("schemas", |value| match value {
            Value::Object(_) => Ok(value),
            _ => Err((
                ItemKind::TypeError,
                "an object of schemas by version is wanted".into(),
            )),
        });
        let group_name = fields.text("groupName", fields::event_type).value();
        let single = fields.text("featureFlag", fields::event_type).value();
        let flags = fields
            .set("featureFlags", 1..=100, fields::event_type)
            .value();
        let validation = fields.read("payloadValidation", |value| {
            serde_json::from_value(value).map_err(|_| {
                let msg = "`off`, `warn` or `reject` is wanted";
                (ItemKind::ValueError, msg.into())
            })
        });
        fields.finish()?;
        Ok(Self {
            description: description.unwrap_or_default(),
            archived: archived.unwrap_or(false),
            deprecated: deprecated.unwrap_or(false),
            schemas: schemas.value(),
            group_name,
            payload_validation: validation.value().unwrap_or_default(),
            feature_flags: flags.or_else(|| single.map(|flag| vec![flag])),
        })
    }

    fn into_type(self, name: String, created: Timestamp, now: Timestamp) -> EventType {
        EventType {
            name,
            description: self.description,
            archived: self.archived,
            deprecated: self.deprecated,
            schemas: self.schemas,
            group_name: self.group_name,
            feature_flags: self.feature_flags,
            payload_validation: self.payload_validation,
            created,
            updated: now,
            deleted: false,
        }
    }
}

/// Puts an event type, unless payloads are to be held against a schema that cannot be used.
pub(super) fn put_usable(draft: &mut Draft, event_type: EventType) -> Result<(), Problem> {
    let schema = Schema::of(&event_type);
    if let Some(why) = schema.as_ref().and_then(Schema::mistake) {
        let msg = format!("payloads cannot be held against the newest schema: {why}");
        return Err(Item::body("schemas", ItemKind::ValueError, msg).into());
    }
    Ok(draft.put_event_type(event_type)?)
}

/// GET `/event-type`
pub(super) async fn list(cx: Cx) -> Answer {
    let query = cx.query();
    let paging = Paging::of(&query, false, |text| Some(text.to_owned()))?;
    let archived = query.flag("include_archived", false)?;
    let with_content = query.flag("with_content", false)?;
    let snapshot = cx.state.directory.snapshot();
    let wanted = snapshot.event_types().values();
    let wanted = wanted.filter(|one| archived || !one.archived);
    let (page, done) = select(&paging, wanted, |one| one.name.clone());
    let data: Vec<_> = page.iter().map(|one| Out::of(one, with_content)).collect();
    Ok(List::of(data, done, |out| out.name.to_owned()).reply())
}

/// POST `/event-type`: a new one, or an archived one revived.
pub(super) async fn create(mut cx: Cx) -> Answer {
    cx.instance_wide()?;
    let mut fields = cx.fields().await?;
    let name = fields.required("name", fields::event_type);
    let wanted = Wanted::read(fields)?;
    let (name, now) = (name.unwrap_or_default(), cx.now);
    let made = cx
        .carry_out(move |draft| {
            let known = draft.event_type(&name).cloned();
            if known.as_ref().is_some_and(|known| !known.archived) {
                let detail = format!("The event type {name} exists.");
                return Err(Problem::new(Code::EventTypeExists, detail));
            }
            let made = wanted.into_type(name, known.map_or(now, |known| known.created), now);
            put_usable(draft, made.clone())?;
            Ok(made)
        })
        .await?;
    Ok(Reply::created(&Out::of(&made, true)))
}

fn find(cx: &Cx) -> Result<Arc<EventType>, Problem> {
    let snapshot = cx.state.directory.peek();
    let found = snapshot.event_type(cx.param("event_type_name")).cloned();
    found.ok_or_else(missing)
}

fn missing() -> Problem {
    Problem::new(Code::NotFound, "No event type with this name.")
}

/// GET `/event-type/{event_type_name}`
pub(super) async fn read(cx: Cx) -> Answer {
    Ok(Reply::ok(&Out::of(find(&cx)?.as_ref(), true)))
}

/// PUT `/event-type/{event_type_name}`
pub(super) async fn put(mut cx: Cx) -> Answer {
    cx.instance_wide()?;
    let name = cx.param("event_type_name").to_owned();
    if let Err((kind, msg)) = fields::event_type(&name) {
        return Err(Item::at("path", "event_type_name", kind, msg).into());
    }
    let wanted = Wanted::read(cx.fields().await?)?;
    let now = cx.now;
    let (made, is_new) = cx
        .carry_out(move |draft| {
            let known = draft.event_type(&name).cloned();
            let created = known.as_ref().map_or(now, |known| known.created);
            let made = wanted.into_type(name, created, now);
            put_usable(draft, made.clone())?;
            Ok::<_, Problem>((made, known.is_none()))
        })
        .await?;
    let status = if is_new {
        StatusCode::CREATED
    } else {
        StatusCode::OK
    };
    Ok(Reply::json(status, &Out::of(&made, true)))
}

/// PATCH `/event-type/{event_type_name}`: JSON merge patch.
pub(super) async fn patch(mut cx: Cx) -> Answer {
    cx.instance_wide()?;
    let patch = cx.json().await?;
    let (name, now) = (find(&cx)?.name.clone(), cx.now);
    let made = cx
        .carry_out(move |draft| {
            let known = draft.event_type(&name).cloned().ok_or_else(missing)?;
            let mut whole = json!({
                "description": known.description, "archived": known.archived,
                "deprecated": known.deprecated, "schemas": known.schemas,
                "groupName": known.group_name, "featureFlags": known.feature_flags,
                "payloadValidation": known.payload_validation,
            });
            if patch.get("featureFlag").is_some() {
                merge(&mut whole, json!({ "featureFlags": null }));
            }
            merge(&mut whole, patch);
            let wanted = Wanted::read(Fields::body(whole)?)?;
            let made = wanted.into_type(name, known.created, now);
            put_usable(draft, made.clone())?;
            Ok::<_, Problem>(made)
        })
        .await?;
    Ok(Reply::ok(&Out::of(&made, true)))
}

/// DELETE `/event-type/{event_type_name}`: archives it; with `expunge=true` it is gone.
pub(super) async fn delete(cx: Cx) -> Answer {
    cx.instance_wide()?;
    let expunge = cx.query().flag("expunge", false)?;
    let (name, now) = (find(&cx)?.name.clone(), cx.now);
    cx.carry_out(move |draft| {
        let known = draft.event_type(&name).cloned().ok_or_else(missing)?;
        let mut next = EventType::clone(&known);
        next.archived = true;
        next.deleted = expunge;
        next.updated = now;
        draft.put_event_type(next)?;
        Ok::<_, Problem>(())
    })
    .await?;
    Ok(Reply::empty())
}
