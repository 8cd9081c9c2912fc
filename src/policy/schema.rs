//! Whether a payload is what the JSON schema of its event type says.
//!
//! Owns: which schema counts (the newest version), how it is compiled, and how what is wrong is told.
//! A schema is compiled once, when it is written or loaded. Nothing is fetched: a `$ref` to another
//! document is a mistake in the schema. Patterns run on an engine whose time is linear in the text, so
//! there are no look-arounds and no back-references in them (ADR 0341). Elsewhere: what follows from a
//! mistake (`ingest`), the stored wish (`model::EventType`).

use jsonschema::{PatternOptions, Validator};
use serde_json::Value;

use crate::model::{EventType, PayloadValidation};

/// Mistakes told at most.
pub const MAX_MISTAKES: usize = 10;
/// Characters of one mistake's text at most.
const MAX_TEXT: usize = 200;
/// Bytes that one compiled pattern may take.
const MAX_PATTERN: usize = 1 << 20;

/// The schema of one event type, compiled.
pub struct Schema {
    mode: PayloadValidation,
    /// A stored schema that this version cannot compile lets everything through, and says so.
    compiled: Result<Validator, String>,
}

/// Something in a payload that its schema does not allow.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Violation {
    /// Where, as a JSON pointer into the payload; empty = the payload itself.
    pub pointer: String,
    /// What is wrong there, without the value.
    pub msg: String,
}

impl Violation {
    /// The parts of the pointer.
    pub fn path(&self) -> impl Iterator<Item = String> {
        let parts = self.pointer.split('/').skip(1);
        parts.map(|part| part.replace("~1", "/").replace("~0", "~"))
    }
}

impl Schema {
    /// The schema of a type whose payloads are to be looked at; `None` = they are not.
    pub fn of(event_type: &EventType) -> Option<Self> {
        let mode = event_type.payload_validation;
        if mode == PayloadValidation::Off || event_type.deleted {
            return None;
        }
        let schema = event_type.newest_schema();
        let schema = schema.ok_or_else(|| String::from("the event type has no schema"));
        let compiled = schema.and_then(compile);
        Some(Self { mode, compiled })
    }

    /// What follows from a mistake.
    pub const fn mode(&self) -> PayloadValidation {
        self.mode
    }

    /// Why it cannot be used, if it cannot.
    pub fn mistake(&self) -> Option<&str> {
        self.compiled.as_ref().err().map(String::as_str)
    }

    /// What is wrong with a payload, [`MAX_MISTAKES`] at most; `None` for one that cannot be read.
    pub fn violations(&self, payload: Option<&Value>) -> Vec<Violation> {
        let Ok(validator) = &self.compiled else {
            return Vec::new();
        };
        let Some(payload) = payload else {
            return vec![Violation {
                pointer: String::new(),
                msg: String::from("cannot be read: a number is beyond the range of a double"),
            }];
        };
        if validator.is_valid(payload) {
            return Vec::new();
        }
        let mistakes = validator.iter_errors(payload).take(MAX_MISTAKES);
        mistakes
            .map(|mistake| Violation {
                pointer: mistake.instance_path().to_string(),
                msg: short(&mistake.masked().to_string()),
            })
            .collect()
    }
}

fn compile(schema: &Value) -> Result<Validator, String> {
    let patterns = PatternOptions::regex()
        .size_limit(MAX_PATTERN)
        .dfa_size_limit(MAX_PATTERN);
    let built = jsonschema::options()
        .with_pattern_options(patterns)
        .build(schema);
    built.map_err(|mistake| short(&mistake.to_string()))
}

fn short(text: &str) -> String {
    text.chars().take(MAX_TEXT).collect()
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::base::Timestamp;

    fn event_type(schemas: Value, mode: PayloadValidation) -> EventType {
        EventType {
            name: String::from("a"),
            description: String::new(),
            archived: false,
            deprecated: false,
            schemas: Some(schemas),
            group_name: None,
            feature_flags: None,
            payload_validation: mode,
            created: Timestamp::ZERO,
            updated: Timestamp::ZERO,
            deleted: false,
        }
    }

    fn schema(one: Value) -> Schema {
        let made = event_type(json!({ "1": one }), PayloadValidation::Reject);
        Schema::of(&made).unwrap()
    }

    #[test]
    fn mistakes_are_told_by_pointer_and_without_the_value() {
        let schema = schema(json!({
            "type": "object", "required": ["id"], "additionalProperties": false,
            "properties": {
                "id": {"type": "string", "pattern": "^[a-z]+$"},
                "a/b~c": {"type": "array", "items": {"maximum": 5}},
            },
        }));
        assert_eq!(schema.mistake(), None);
        assert!(schema.violations(Some(&json!({"id": "ok"}))).is_empty());
        let found = schema.violations(Some(&json!({"id": "SECRET", "a/b~c": [1, 9], "x": 1})));
        let mut pointers: Vec<_> = found.iter().map(|one| one.pointer.as_str()).collect();
        pointers.sort_unstable();
        assert_eq!(pointers, ["", "/a~1b~0c/1", "/id"]);
        let listed = found.iter().find(|one| one.pointer.len() > 4).unwrap();
        assert_eq!(listed.path().collect::<Vec<_>>(), ["a/b~c", "1"]);
        assert!(
            found.iter().all(|one| !one.msg.contains("SECRET")),
            "{found:?}"
        );
        assert_eq!(schema.violations(None).len(), 1);
    }

    #[test]
    fn the_newest_version_counts() {
        let schemas = json!({"2": {"required": ["two"]}, "10": {"required": ["ten"]}, "9": true});
        let schema = Schema::of(&event_type(schemas, PayloadValidation::Warn)).unwrap();
        assert!(schema.violations(Some(&json!({"ten": 1}))).is_empty());
        assert_eq!(schema.violations(Some(&json!({"two": 1}))).len(), 1);
        let off = event_type(json!({"1": false}), PayloadValidation::Off);
        assert!(Schema::of(&off).is_none());
    }

    #[test]
    fn nothing_is_fetched_and_what_cannot_be_compiled_says_so() {
        for bad in [
            json!({"$ref": "http://127.0.0.1:9/schema.json"}),
            json!({"$ref": "file:///etc/hostname"}),
            json!({"type": "objekt"}),
            json!({"properties": {"a": {"pattern": "("}}}),
            json!({"properties": {"a": {"pattern": "(?=x)"}}}),
            json!({"properties": {"a": {"pattern": "((a{1000}){1000}){1000}"}}}),
            json!({"$ref": "#/$defs/none"}),
        ] {
            let schema = schema(bad.clone());
            assert!(schema.mistake().is_some(), "{bad}");
            assert!(
                schema.violations(Some(&json!({"a": 1}))).is_empty(),
                "{bad}"
            );
        }
    }

    #[test]
    fn patterns_take_linear_time_and_lists_of_mistakes_end() {
        let patterned = schema(json!({"properties": {"a": {"pattern": "^(a+)+$"}}}));
        let text = "a".repeat(100_000) + "b";
        assert_eq!(patterned.violations(Some(&json!({ "a": text }))).len(), 1);
        let listed = schema(json!({"properties": {"a": {"items": {"type": "string"}}}}));
        let many: Vec<u32> = (0..10_000).collect();
        let found = listed.violations(Some(&json!({ "a": many })));
        assert_eq!(found.len(), MAX_MISTAKES);
    }

    #[test]
    fn a_schema_that_refers_to_itself_ends() {
        let tree = schema(json!({
            "properties": {"child": {"$ref": "#"}, "n": {"type": "integer"}},
        }));
        let payload = json!({"child": {"child": {"n": "x"}}});
        let found = tree.violations(Some(&payload));
        assert_eq!(
            found.first().map(|one| one.pointer.as_str()),
            Some("/child/child/n")
        );
    }
}
