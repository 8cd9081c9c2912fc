//! Where secrets stand in configuration rows, and what binds a ciphertext to its place. Pure.
#![deny(clippy::indexing_slicing)]

use base64::Engine;
use base64::engine::general_purpose::STANDARD_NO_PAD;
use serde_json::{Map, Value, json};

use super::Error;
use crate::model::AppNo;
use crate::store::ConfigKind;

/// Version of the sealed form.
const FORM: u64 = 1;

/// A row.
pub(super) struct Place<'a> {
    pub(super) kind: ConfigKind,
    pub(super) key: &'a [u8],
    pub(super) app: AppNo,
}

/// Whether rows of this kind hold secrets.
pub(super) const fn has_secrets(kind: ConfigKind) -> bool {
    matches!(kind, ConfigKind::Endpoint | ConfigKind::Source)
}

type Visit<'v> = dyn FnMut(&str, &mut Value) -> Result<(), Error> + 'v;

impl Place<'_> {
    /// Calls `visit` with the name and the value of every secret of the row.
    pub(super) fn each(
        &self,
        row: &mut Value,
        mut visit: impl FnMut(&str, &mut Value) -> Result<(), Error>,
    ) -> Result<(), Error> {
        let Some(fields) = row.as_object_mut() else {
            return Ok(());
        };
        match self.kind {
            ConfigKind::Endpoint => endpoint(fields, &mut visit),
            ConfigKind::Source => source(fields, &mut visit),
            ConfigKind::Application
            | ConfigKind::EventType
            | ConfigKind::ApiKey
            | ConfigKind::Instance
            | ConfigKind::DataKey
            | ConfigKind::Audit => Ok(()),
        }
    }

    /// What a ciphertext is bound to: each part with its length, so that no two places are alike.
    pub(super) fn binding(&self, field: &str, data_key: u32) -> Vec<u8> {
        let mut out = b"posthaste secret 1".to_vec();
        out.extend_from_slice(&self.app.0.to_be_bytes());
        out.push(self.kind as u8);
        for part in [self.key, field.as_bytes()] {
            out.extend_from_slice(&u64::try_from(part.len()).unwrap_or(u64::MAX).to_be_bytes());
            out.extend_from_slice(part);
        }
        out.extend_from_slice(&data_key.to_be_bytes());
        out
    }

    /// The field in words, for errors.
    pub(super) fn name(&self, field: &str) -> String {
        let key: String = self.key.iter().map(|byte| format!("{byte:02x}")).collect();
        format!("{field} of {:?} {key}", self.kind)
    }
}

/// The secret, rotated secrets, and header values: any of those may be a credential.
fn endpoint(fields: &mut Map<String, Value>, visit: &mut Visit<'_>) -> Result<(), Error> {
    if let Some(secret) = fields.get_mut("secret") {
        visit("secret", secret)?;
    }
    let old = fields.get_mut("old_secrets").and_then(Value::as_array_mut);
    for (place, entry) in old.into_iter().flatten().enumerate() {
        if let Some(secret) = entry.get_mut("secret") {
            visit(&format!("old_secrets/{place}"), secret)?;
        }
    }
    let headers = fields.get_mut("headers").and_then(Value::as_object_mut);
    for (name, value) in headers.into_iter().flatten() {
        visit(&format!("headers/{name}"), value)?;
    }
    Ok(())
}

/// Everything a source holds to verify with.
fn source(fields: &mut Map<String, Value>, visit: &mut Visit<'_>) -> Result<(), Error> {
    let secrets = fields.get_mut("secrets").and_then(Value::as_object_mut);
    for (name, held) in secrets.into_iter().flatten() {
        for (place, entry) in held.as_array_mut().into_iter().flatten().enumerate() {
            if let Some(secret) = entry.get_mut("secret") {
                visit(&format!("secrets/{name}/{place}"), secret)?;
            }
        }
    }
    Ok(())
}

/// A sealed text as it stands in a row: never a string, so it cannot be taken for one in the clear.
pub(super) fn sealed(data_key: u32, bytes: &[u8]) -> Value {
    json!({ "sealed": FORM, "key": data_key, "text": STANDARD_NO_PAD.encode(bytes) })
}

/// Reads [`sealed`].
pub(super) fn read(value: &Value) -> Option<(u32, Vec<u8>)> {
    if value.get("sealed")?.as_u64()? != FORM {
        return None;
    }
    let no = u32::try_from(value.get("key")?.as_u64()?).ok()?;
    let text = value.get("text")?.as_str()?;
    Some((no, STANDARD_NO_PAD.decode(text).ok()?))
}
