//! Catalogues of event types: names with description, JSON Schema and a sample, as TOML files.
//!
//! Owns: the files of `config/catalogs`, which are compiled in, and those of the operator's own folder,
//! which replace or add. Names are data: nothing else in the gateway knows one of them.
//! What a catalogue says of a type that exists already is laid over it by an import only; the start adds
//! what is missing and changes nothing that was changed by hand.
//!
//! Elsewhere: the route of the import and of samples (`api`), where types are kept (`directory`).

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;

use serde::Deserialize;
use serde_json::{Value, json};

use crate::base::Timestamp;
use crate::directory::{self, Draft};
use crate::model::EventType;

/// The catalogues that are compiled in, by name.
const BUILTIN: [(&str, &str); 5] = [
    ("ats", include_str!("../../config/catalogs/ats.toml")),
    (
        "builtin",
        include_str!("../../config/catalogs/builtin.toml"),
    ),
    ("hiring", include_str!("../../config/catalogs/hiring.toml")),
    ("phone", include_str!("../../config/catalogs/phone.toml")),
    (
        "sourcing",
        include_str!("../../config/catalogs/sourcing.toml"),
    ),
];
/// A file at most, bytes.
const MAX_FILE: u64 = 1 << 20;
/// Types of one catalogue at most.
const MAX_TYPES: usize = 2000;
/// Characters of a name of an event type.
const MAX_NAME: usize = 256;

/// A file that cannot be used.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{file}: {what}")]
pub struct Mistake {
    /// The file as it was named.
    pub file: String,
    /// What is wrong, and with which event type.
    pub what: String,
}

/// One event type as its catalogue describes it.
#[derive(Debug, Clone, PartialEq)]
pub struct Listed {
    /// Its name.
    pub name: String,
    /// Its group in lists.
    pub group: Option<String>,
    /// For people.
    pub description: String,
    /// JSON Schema of the payload, with the sample under `examples`. Fields with `"x-pii": true` hold
    /// personal data.
    pub schema: Value,
    /// A payload.
    pub sample: Value,
}

impl Listed {
    /// The event type it describes; what an import does not speak of stays as `known` has it.
    pub fn event_type(&self, known: Option<&EventType>, now: Timestamp) -> EventType {
        EventType {
            name: self.name.clone(),
            description: self.description.clone(),
            archived: false,
            deprecated: known.is_some_and(|known| known.deprecated),
            schemas: Some(json!({ "1": self.schema })),
            group_name: self.group.clone(),
            payload_validation: known
                .map_or_else(Default::default, |known| known.payload_validation),
            feature_flags: known.and_then(|known| known.feature_flags.clone()),
            created: known.map_or(now, |known| known.created),
            updated: now,
            deleted: false,
        }
    }
}

/// All catalogues by name. Immutable.
#[derive(Debug, Default)]
pub struct Catalogs(BTreeMap<String, Arc<Vec<Listed>>>);

impl Catalogs {
    /// What is compiled in, then every `NAME.toml` of `folder`, which replaces the catalogue of its name
    /// or adds one. Read once: a changed folder wants a restart. `wanted` must all be among them.
    ///
    /// # Errors
    /// All mistakes of all files; a folder or file that cannot be read; a name that is in `wanted` and
    /// that no file has.
    pub fn load(folder: Option<&Path>, wanted: &[String]) -> Result<Self, Vec<Mistake>> {
        let mut all = Self::default();
        let mut mistakes = Vec::new();
        for (name, text) in BUILTIN {
            all.take(name, &format!("{name}.toml"), text, &mut mistakes);
        }
        if let Some(folder) = folder {
            all.folder(folder, &mut mistakes);
        }
        for name in wanted.iter().filter(|name| all.get(name).is_none()) {
            let names: Vec<&str> = all.names().collect();
            mistakes.push(Mistake {
                file: String::from("event_types.catalogs"),
                what: format!("there is no catalogue {name:?}, only {}", names.join(", ")),
            });
        }
        if mistakes.is_empty() {
            Ok(all)
        } else {
            Err(mistakes)
        }
    }

    /// The catalogue of this name.
    pub fn get(&self, name: &str) -> Option<&Arc<Vec<Listed>>> {
        self.0.get(name)
    }

    /// All names, in order.
    pub fn names(&self) -> impl Iterator<Item = &str> {
        self.0.keys().map(String::as_str)
    }

    /// What a catalogue says of this event type; the first in the order of names.
    pub fn find(&self, event_type: &str) -> Option<&Listed> {
        let all = self.0.values().flat_map(|listed| listed.iter());
        all.into_iter().find(|listed| listed.name == event_type)
    }

    /// Adds the types of the named catalogues that do not exist. Those that do, archived ones included,
    /// stay as they are. Answers how many were added.
    ///
    /// # Errors
    /// A type cannot be encoded.
    pub fn add_missing(
        &self,
        names: &[String],
        draft: &mut Draft,
        now: Timestamp,
    ) -> Result<usize, directory::Error> {
        let listed = names.iter().filter_map(|name| self.get(name));
        let mut added = 0;
        for one in listed.flat_map(|listed| listed.iter()) {
            if draft.event_type(&one.name).is_none() {
                draft.put_event_type(one.event_type(None, now))?;
                added += 1;
            }
        }
        Ok(added)
    }

    fn folder(&mut self, folder: &Path, mistakes: &mut Vec<Mistake>) {
        let unreadable = |path: &Path, error: &std::io::Error| Mistake {
            file: path.display().to_string(),
            what: format!("cannot be read: {error}"),
        };
        let entries = match std::fs::read_dir(folder) {
            Ok(entries) => entries,
            Err(error) => return mistakes.push(unreadable(folder, &error)),
        };
        let mut paths = Vec::new();
        for entry in entries {
            match entry {
                Ok(entry) => paths.push(entry.path()),
                Err(error) => mistakes.push(unreadable(folder, &error)),
            }
        }
        paths.retain(|path| path.extension().is_some_and(|ending| ending == "toml"));
        paths.sort();
        for path in paths {
            let name = path.file_stem().unwrap_or_default().to_string_lossy();
            let file = path.display().to_string();
            let size = std::fs::metadata(&path).map(|about| about.len());
            match size.and_then(|size| Ok((size, std::fs::read_to_string(&path)?))) {
                Ok((size, _)) if size > MAX_FILE => mistakes.push(Mistake {
                    file,
                    what: format!("{size} bytes, at most {MAX_FILE}"),
                }),
                Ok((_, text)) => self.take(&name, &file, &text, mistakes),
                Err(error) => mistakes.push(unreadable(&path, &error)),
            }
        }
    }

    fn take(&mut self, name: &str, file: &str, text: &str, mistakes: &mut Vec<Mistake>) {
        match read(name, text) {
            Ok(listed) => {
                self.0.insert(name.to_owned(), Arc::new(listed));
            }
            Err(all) => mistakes.extend(all.into_iter().map(|what| Mistake {
                file: file.to_owned(),
                what,
            })),
        }
    }
}

/// The file as it is written.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct File {
    name: String,
    #[serde(rename = "type", default)]
    types: Vec<Entry>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Entry {
    name: String,
    group: Option<String>,
    title: Option<String>,
    description: String,
    /// JSON.
    schema: Option<String>,
    /// JSON.
    sample: String,
}

fn read(name: &str, text: &str) -> Result<Vec<Listed>, Vec<String>> {
    let file: File = toml::from_str(text).map_err(|error| vec![error.to_string()])?;
    let mut mistakes = Vec::new();
    if file.name != name {
        mistakes.push(format!(
            "its name is {:?}, the file says {name:?}",
            file.name
        ));
    }
    if file.types.len() > MAX_TYPES {
        mistakes.push(format!("{} types, at most {MAX_TYPES}", file.types.len()));
    }
    let mut all: Vec<Listed> = Vec::with_capacity(file.types.len());
    for entry in file.types {
        let event_type = entry.name.clone();
        match entry.listed() {
            Ok(listed) if all.iter().any(|known| known.name == listed.name) => {
                mistakes.push(format!("{event_type} stands there twice"));
            }
            Ok(listed) => all.push(listed),
            Err(why) => mistakes.push(format!("{event_type}: {why}")),
        }
    }
    if mistakes.is_empty() {
        Ok(all)
    } else {
        Err(mistakes)
    }
}

impl Entry {
    fn listed(self) -> Result<Listed, String> {
        let is_name = |name: &str| {
            let of = |c: char| c.is_ascii_alphanumeric() || matches!(c, '.' | '_' | '-');
            (1..=MAX_NAME).contains(&name.len()) && name.chars().all(of)
        };
        for name in std::iter::once(&self.name).chain(&self.group) {
            if !is_name(name) {
                return Err(format!(
                    "{name:?} is no name (letters, digits, `.`, `_`, `-`)"
                ));
            }
        }
        let sample: Value =
            serde_json::from_str(&self.sample).map_err(|error| format!("sample: {error}"))?;
        if !sample.is_object() {
            return Err(String::from("the sample is no object"));
        }
        let mut schema: Value = match &self.schema {
            Some(text) => serde_json::from_str(text).map_err(|error| format!("schema: {error}"))?,
            None => json!({ "type": "object" }),
        };
        let Some(fields) = schema.as_object_mut() else {
            return Err(String::from("the schema is no object"));
        };
        if let Some(title) = self.title {
            fields.entry("title").or_insert(Value::String(title));
        }
        fields.insert(String::from("examples"), json!([sample]));
        Ok(Listed {
            name: self.name,
            group: self.group,
            description: self.description,
            schema,
            sample,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// word for word.
    const NAMES: [(&str, &str); 5] = [
        (
            "ats",
            "job.created job.updated job.published job.closed job.deleted application.received \
             application.reviewed application.advanced application.rejected application.withdrawn \
             interview.scheduled interview.rescheduled interview.completed interview.cancelled \
             interview.feedback_submitted candidate.created candidate.updated candidate.merged \
             candidate.tagged offer.sent offer.accepted offer.declined offer.expired hire.completed \
             hire.onboarding_started employee.hired",
        ),
        ("builtin", "webhook.test"),
        ("hiring", "application.created"),
        (
            "phone",
            "lead.captured call.started call.completed call.transferred appointment.created \
             appointment.cancelled",
        ),
        (
            "sourcing",
            "lead_sourced lead_converted candidate_created candidate_updated candidate_hired \
             message_reply pipeline_stage_updated submission_sent invoice_paid notify.lead_new \
             notify.lead_reply notify.lead_positive_reply notify.pipeline_updated \
             notify.candidate_moved notify.agent_message notify.linkedin_done notify.error",
        ),
    ];

    fn builtin() -> Catalogs {
        Catalogs::load(None, &[]).unwrap()
    }

    #[test]
    fn every_event_of_the_origin_is_listed_under_its_own_name() {
        let all = builtin();
        for (catalog, names) in NAMES {
            let listed = all.get(catalog).unwrap();
            let found: Vec<&str> = listed.iter().map(|one| one.name.as_str()).collect();
            let wanted: Vec<&str> = names.split_whitespace().collect();
            assert_eq!(found, wanted, "{catalog}");
        }
        assert_eq!(all.names().count(), NAMES.len());
    }

    /// What `value` has and `schema` does not speak of, or speaks of as another type.
    fn unlike(schema: &Value, value: &Value, place: &str, wrong: &mut Vec<String>) {
        let kind = match value {
            Value::Object(_) => "object",
            Value::Array(_) => "array",
            Value::String(_) => "string",
            Value::Bool(_) => "boolean",
            Value::Number(number) if number.is_i64() => "integer",
            Value::Number(_) => "number",
            Value::Null => "null",
        };
        if schema["type"] != *kind {
            wrong.push(format!("{place} is {kind}, not {}", schema["type"]));
        }
        for (name, value) in value.as_object().into_iter().flatten() {
            let place = format!("{place}/{name}");
            unlike(&schema["properties"][name], value, &place, wrong);
        }
        for value in value.as_array().into_iter().flatten() {
            unlike(&schema["items"], value, &format!("{place}/*"), wrong);
        }
    }

    #[test]
    fn every_sample_is_what_its_schema_says() {
        let all = builtin();
        let mut wrong = Vec::new();
        for listed in all.0.values().flat_map(|listed| listed.iter()) {
            assert!(listed.description.ends_with('.'), "{}", listed.name);
            assert_eq!(listed.schema["examples"], json!([listed.sample]));
            assert!(listed.schema["title"].is_string(), "{}", listed.name);
            unlike(&listed.schema, &listed.sample, &listed.name, &mut wrong);
        }
        assert!(wrong.is_empty(), "{wrong:#?}");
    }

    #[test]
    fn fields_with_names_and_addresses_of_people_are_marked() {
        let all = builtin();
        let lead = all.find("lead.captured").unwrap();
        for (field, is_marked) in [("name", true), ("email", true), ("leadId", false)] {
            let marked = lead.schema["properties"][field]["x-pii"] == json!(true);
            assert_eq!(marked, is_marked, "{field}");
        }
        let call = all.find("call.completed").unwrap();
        assert_eq!(call.schema["properties"]["transcript"]["x-pii"], true);
    }

    #[test]
    fn a_folder_replaces_and_adds_and_its_mistakes_are_all_told() {
        let folder = tempfile::tempdir().unwrap();
        let write = |name: &str, text: &str| std::fs::write(folder.path().join(name), text);
        write(
            "phone.toml",
            "name = 'phone'\n[[type]]\nname = 'a'\ndescription = ''\nsample = '{\"n\":1}'\n",
        )
        .unwrap();
        write("own.toml", "name = 'own'\n").unwrap();
        write("readme.md", "no catalogue").unwrap();
        let all = Catalogs::load(Some(folder.path()), &["own".into()]).unwrap();
        assert_eq!(all.get("phone").unwrap().len(), 1);
        assert_eq!(all.find("a").unwrap().schema["examples"], json!([{"n": 1}]));
        assert!(all.find("lead.captured").is_none() && all.find("job.created").is_some());
        for (text, part) in [
            ("name = 'other'", "the file says \"own\""),
            ("name = 'own'\nmore = 1", "unknown field"),
            (
                "name = 'own'\n[[type]]\nname = 'a b'\ndescription = ''\nsample = '{}'",
                "is no name",
            ),
            (
                "name = 'own'\n[[type]]\nname = 'a'\ndescription = ''\nsample = '[]'",
                "the sample is no object",
            ),
            (
                "name = 'own'\n[[type]]\nname = 'a'\ndescription = ''\nsample = '{}'\nschema = '3'",
                "the schema is no object",
            ),
            (
                "name = 'own'\n[[type]]\nname = 'a'\ndescription = ''\nsample = '{}'\n\
                 [[type]]\nname = 'a'\ndescription = ''\nsample = '{}'",
                "twice",
            ),
        ] {
            write("own.toml", text).unwrap();
            let mistakes = Catalogs::load(Some(folder.path()), &[]).unwrap_err();
            let told = mistakes.first().unwrap().to_string();
            assert!(told.contains(part) && told.contains("own.toml"), "{told}");
        }
        let mistakes = Catalogs::load(None, &["none".into()]).unwrap_err();
        let told = mistakes.first().unwrap().to_string();
        assert!(
            told.contains("none") && told.contains("ats, builtin"),
            "{told}"
        );
        assert!(Catalogs::load(Some(&folder.path().join("absent")), &[]).is_err());
    }
}
