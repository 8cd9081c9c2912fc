//! `posthaste keys create|list|revoke`: API keys of a gateway that is not running.
//!
//! Works on an opened directory and only says what is to be printed; opening and printing are the
//! caller's. While the gateway runs the same is done over `/api/v1/api-keys`.

use std::sync::Arc;

use crate::auth::{KEY_RANDOM, NewKey, mint};
use crate::base::Timestamp;
use crate::directory::{self, Directory};
use crate::model::{ApiKey, Application, KeyId, Scope};

/// Arguments of `posthaste keys`.
#[derive(Debug, Clone, clap::Args)]
pub struct KeysArgs {
    #[command(subcommand)]
    action: Action,
}

#[derive(Debug, Clone, clap::Subcommand)]
enum Action {
    /// Makes a key and prints it, once.
    Create {
        /// What the key is for.
        #[arg(long)]
        name: String,
        /// What it opens; may be named several times.
        #[arg(long = "scope", value_name = "SCOPE", default_value = "admin")]
        scopes: Vec<String>,
        /// Id or uid of the only application it opens.
        #[arg(long, value_name = "APP")]
        app: Option<String>,
        /// From here on it is refused (RFC 3339).
        #[arg(long, value_name = "TIME")]
        expires: Option<String>,
    },
    /// Lists keys, never their text.
    List,
    /// Makes a key useless from the next start on.
    Revoke {
        /// Its id (`key_…`).
        id: String,
    },
}

/// Why nothing was done.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The store did not take it.
    #[error("the change was not stored")]
    Directory(#[from] directory::Error),
    /// No such key, or revoked already.
    #[error("there is no key {0}")]
    NoKey(String),
    /// No such application.
    #[error("there is no application {0}")]
    NoApplication(String),
    /// Not a time, or one that is past.
    #[error("`{0}` is no RFC 3339 time in the future, such as 2030-01-31T00:00:00Z")]
    BadTime(String),
}

/// Carries `args` out and answers what is to be printed. Not cancel safe.
pub async fn run(
    args: KeysArgs,
    directory: &Directory,
    now: Timestamp,
    random: [u8; KEY_RANDOM],
) -> Result<String, Error> {
    match args.action {
        Action::Create {
            name,
            scopes,
            app,
            expires,
        } => {
            let app = app.map(|app| application(directory, &app)).transpose()?;
            let prefix = app.as_ref().map(|app| app.new_key_prefix());
            let new = NewKey {
                prefix: prefix.unwrap_or_default(),
                name,
                scopes: scopes.into_iter().map(Scope::from).collect(),
                app: app.map(|app| app.no),
                expires: expires.map(|text| future(text, now)).transpose()?,
                allowed_ips: Vec::new(),
            };
            let (key, text) = mint(random, new, now);
            let id = key.id;
            directory.change(move |draft| draft.put_key(key)).await?;
            Ok(format!("{text}\n({id}; it is not shown again)"))
        }
        Action::List => Ok(list(directory)),
        Action::Revoke { id } => revoke(directory, id, now).await,
    }
}

fn application(directory: &Directory, id_or_uid: &str) -> Result<Arc<Application>, Error> {
    let snapshot = directory.peek();
    let found = snapshot.app(id_or_uid).map(|entry| Arc::clone(&entry.app));
    found.ok_or_else(|| Error::NoApplication(id_or_uid.to_owned()))
}

fn future(text: String, now: Timestamp) -> Result<Timestamp, Error> {
    let read = Timestamp::parse_rfc3339(&text).filter(|at| *at > now);
    read.ok_or(Error::BadTime(text))
}

fn list(directory: &Directory) -> String {
    let snapshot = directory.snapshot();
    let mut keys: Vec<_> = snapshot
        .keys()
        .filter(|key| key.revoked.is_none())
        .collect();
    keys.sort_unstable_by_key(|key| key.id);
    let lines = keys.into_iter().map(|key| {
        let scopes: Vec<String> = key.scopes.iter().cloned().map(String::from).collect();
        let app = key.app.and_then(|no| snapshot.app_by_no(no));
        let app = app.map_or_else(|| String::from("all"), |entry| entry.app.id.to_string());
        let expires = key
            .expires
            .map_or_else(|| String::from("never"), |at| at.to_string());
        let scopes = scopes.join(",");
        format!(
            "{}  {}  {scopes}  {app}  expires {expires}",
            key.id, key.name
        )
    });
    let lines: Vec<String> = lines.collect();
    if lines.is_empty() {
        return String::from("there are no keys");
    }
    lines.join("\n")
}

async fn revoke(directory: &Directory, id: String, now: Timestamp) -> Result<String, Error> {
    let known = KeyId::parse(&id).ok();
    let revoked = directory.change(move |draft| {
        let key = known
            .and_then(|id| draft.key(&id))
            .filter(|key| key.revoked.is_none());
        let Some(key) = key.cloned() else {
            return Err(Error::NoKey(id));
        };
        let mut key = ApiKey::clone(&key);
        key.revoked = Some(now);
        let id = key.id;
        draft.put_key(key)?;
        Ok(id)
    });
    Ok(format!("{} is revoked", revoked.await?))
}
