//! Who is calling, and portal tokens: for the users of one application, limited to what they may do and
//! to a week at most (`api.md` 2.2). They are signed, not stored (`auth::portal`); what is stored is
//! which of them are refused before their time.

use std::net::IpAddr;
use std::time::Duration;

use http::StatusCode;
use serde::Serialize;
use serde_json::{Value, json};

use super::error::{Code, Problem};
use super::reply::Reply;
use super::request::{Answer, Cx};
use crate::auth::{CAPABILITIES, PORTAL_KEY, PortalToken};
use crate::base::Timestamp;
use crate::ingest::fields::{Wrong, sized};
use crate::ingest::{ApplicationIn, ItemKind};
use crate::model::{AppId, AppNo, Application, PortalCut};

/// Seconds that a portal token lives: least, most, and unless something else is said.
const LIFE: std::ops::RangeInclusive<u64> = 3600..=604_800;
const LIFE_DEFAULT: u64 = 604_800;
/// The longest grace of `expire-all`, seconds.
const MAX_GRACE: u64 = 259_200;
const MAX_SESSIONS: usize = 1000;
/// Tokens and sessions of one application that are refused before their time.
const MAX_CUTS: usize = 10_000;

/// WhoamiOut; `scopes` is ours.
#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Who<'a> {
    permission_source: &'static str,
    #[serde(skip_serializing_if = "Option::is_none")]
    env_id: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    app_id: Option<AppId>,
    #[serde(skip_serializing_if = "Option::is_none")]
    session_id: Option<&'a str>,
    scopes: Vec<String>,
}

/// GET `/auth/whoami`: any valid credential.
pub(super) async fn whoami(cx: Cx) -> Answer {
    let snapshot = cx.state.directory.snapshot();
    let app = cx.principal.app.and_then(|no| snapshot.app_by_no(no));
    let portal = cx.principal.portal.as_deref();
    let scopes = cx.principal.scopes.iter().cloned();
    Ok(Reply::ok(&Who {
        permission_source: match (portal, cx.principal.key) {
            (Some(_), _) => "SvixJwt",
            (None, Some(_)) => "RegionalAuthToken",
            (None, None) => "GlobalAuthToken",
        },
        env_id: snapshot.instance("id").and_then(Value::as_str),
        app_id: app.map(|entry| entry.app.id),
        session_id: portal.and_then(|token| token.session.as_deref()),
        scopes: scopes.map(String::from).collect(),
    }))
}

/// POST `/auth/logout`: a portal token ends itself. Other credentials are revoked where they were made.
pub(super) async fn logout(cx: Cx) -> Answer {
    let Some(token) = cx.principal.portal.clone() else {
        let detail = "Only portal tokens log out; API keys are revoked with DELETE /api-keys/{id}.";
        return Err(Problem::new(Code::Forbidden, detail));
    };
    let cut = PortalCut {
        session: None,
        token: Some(token.number),
        issued_until: token.issued,
        dead_from: cx.now,
    };
    end(&cx, token.app, vec![cut]).await?;
    Ok(Reply::empty())
}

fn capability(text: &str) -> Result<(), Wrong> {
    if CAPABILITIES.iter().any(|(name, _)| *name == text) {
        return Ok(());
    }
    let names = CAPABILITIES.map(|(name, _)| name);
    let msg = format!("one of {} is wanted", names.join(", "));
    Err((ItemKind::ValueError, msg.into()))
}

fn session(text: &str) -> Result<(), Wrong> {
    let good = |b: u8| b.is_ascii_alphanumeric() || b"@_-".contains(&b);
    if (1..=64).contains(&text.len()) && text.bytes().all(good) {
        return Ok(());
    }
    let msg = "1 to 64 letters, digits, @, _ and - are wanted";
    Err((ItemKind::ValueError, msg.into()))
}

/// The bits of capabilities; all of them if none are named, the first alone for reading only.
fn bits(named: Option<&[String]>, read_only: bool) -> u8 {
    let Some(named) = named else {
        return if read_only { 1 } else { 0b11_1111 };
    };
    let bit = |name: &String| CAPABILITIES.iter().position(|(known, _)| known == name);
    let bits = named.iter().filter_map(bit);
    bits.fold(0, |all, bit| all | 1 << bit)
}

/// POST `/auth/app-portal-access/{app_id}`
pub(super) async fn portal(mut cx: Cx) -> Answer {
    let mut fields = cx.fields_or_none().await?;
    let named = fields.read("application", Ok).value();
    let wanted = fields.set("capabilities", 0..=CAPABILITIES.len(), capability);
    fields.unsupported("featureFlags");
    let life = fields.number("expiry", LIFE).value();
    let session = fields.text("sessionId", session).value();
    let read_only = fields.flag("readOnly").value().unwrap_or(false);
    fields.finish()?;
    let app = application(&cx, named).await?;
    let life = Duration::from_secs(life.unwrap_or(LIFE_DEFAULT));
    let token = PortalToken {
        app,
        capabilities: bits(wanted.value().as_deref(), read_only),
        issued: cx.now,
        expires: cx.now.plus(life),
        number: u64::from_be_bytes(cx.state.entropy.bytes()),
        session,
    };
    let token = token.sign(signing_key(&cx).await?.as_bytes());
    let base = base(cx.state.inbound.base(), cx.host());
    let url = format!("{base}/portal#key={token}");
    let out = json!({ "url": url, "token": token });
    Ok(Reply::json(StatusCode::OK, &out))
}

/// Where the portal is: at the first of `server.public_urls`, or at the host that was called. Without TLS a
/// token is sent to this machine only.
fn base(public: Option<&str>, host: Option<&str>) -> String {
    if let Some(public) = public {
        return public.to_owned();
    }
    let host = host.unwrap_or("localhost");
    let name = host.rsplit_once(':').map_or(host, |(name, _)| name);
    let name = name.trim_start_matches('[').trim_end_matches(']');
    let is_loopback =
        name == "localhost" || name.parse::<IpAddr>().is_ok_and(|ip| ip.is_loopback());
    let scheme = if is_loopback { "http" } else { "https" };
    format!("{scheme}://{host}")
}

/// The key of the instance, made when it is first needed.
async fn signing_key(cx: &Cx) -> Result<String, Problem> {
    let known = |value: Option<&Value>| value.and_then(Value::as_str).map(str::to_owned);
    if let Some(key) = known(cx.state.directory.peek().instance(PORTAL_KEY)) {
        return Ok(key);
    }
    let random: [u8; 32] = cx.state.entropy.bytes();
    let fresh: String = random.iter().map(|byte| format!("{byte:02x}")).collect();
    cx.carry_out(move |draft| {
        if let Some(key) = known(draft.instance(PORTAL_KEY)) {
            return Ok(key);
        }
        draft.put_instance(PORTAL_KEY, json!(fresh))?;
        Ok::<_, Problem>(fresh)
    })
    .await
}

/// The application of the path, made if it is missing and the body says what it is.
async fn application(cx: &Cx, named: Option<Value>) -> Result<AppNo, Problem> {
    let named = match named {
        Some(value) => Some(ApplicationIn::read(value, &["body", "application"])?),
        None => None,
    };
    let path = cx.param("app_id").to_owned();
    let found = cx.find_app(&path);
    let (Err(_), Some(named)) = (&found, named) else {
        return found.map(|entry| entry.app.no);
    };
    super::application::creatable(cx, &path, "application")?;
    let uid = super::application::made_under(path, &named.uid)?;
    let (random, now) = (cx.state.entropy.bytes(), cx.now);
    cx.carry_out(move |draft| {
        if let Some(entry) = draft.app(&uid) {
            return Ok(entry.app.no);
        }
        let made = named.create(draft, Some(uid), random, now)?;
        Ok::<_, Problem>(made.no)
    })
    .await
}

/// POST `/auth/app/{app_id}/expire-all`: portal tokens of the application, all or those of the sessions
/// named, end now or after the grace.
pub(super) async fn expire_all(mut cx: Cx) -> Answer {
    let mut fields = cx.fields_or_none().await?;
    let grace = fields.number("expiry", 0..=MAX_GRACE).value().unwrap_or(0);
    let sessions = fields.set("sessionIds", 0..=MAX_SESSIONS, sized(1, 64));
    fields.finish()?;
    let app = cx.app()?.app.no;
    let dead_from = cx.now.plus(Duration::from_secs(grace));
    let cut = |session| PortalCut {
        session,
        token: None,
        issued_until: cx.now,
        dead_from,
    };
    let sessions = sessions.value().unwrap_or_default();
    let cuts = if sessions.is_empty() {
        vec![cut(None)]
    } else {
        sessions.into_iter().map(|name| cut(Some(name))).collect()
    };
    end(&cx, app, cuts).await?;
    Ok(Reply::empty())
}

async fn end(cx: &Cx, app: AppNo, cuts: Vec<PortalCut>) -> Result<(), Problem> {
    let now = cx.now;
    cx.carry_out(move |draft| {
        let found = draft.app_by_no(app).cloned();
        let entry = found.ok_or_else(|| Problem::not_found("application"))?;
        let mut app = Application::clone(&entry.app);
        add(&mut app.portal_cuts, cuts, now);
        if app.portal_cuts.len() > MAX_CUTS {
            let detail = "Too many sessions were ended one by one; end all of them instead.";
            return Err(Problem::new(Code::LimitReached, detail));
        }
        Ok(draft.put_app(app)?)
    })
    .await
}

/// Adds cuts; leaves out those that mean only tokens which have expired, or that another one covers.
fn add(cuts: &mut Vec<PortalCut>, new: Vec<PortalCut>, now: Timestamp) {
    let longest = Duration::from_secs(*LIFE.end());
    let covers = |wide: &PortalCut, one: &PortalCut| {
        wide.issued_until >= one.issued_until
            && wide.dead_from <= one.dead_from.max(now)
            && (wide.token.is_none() || wide.token == one.token)
            && (wide.session.is_none() || wide.session == one.session)
    };
    cuts.retain(|one| {
        one.issued_until.plus(longest) > now && !new.iter().any(|wide| covers(wide, one))
    });
    cuts.extend(new);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_portal_is_where_the_gateway_is_called() {
        for (public, host, url) in [
            (None, Some("gw.example"), "https://gw.example"),
            (None, Some("gw.example:8443"), "https://gw.example:8443"),
            (None, Some("10.1.2.3:8071"), "https://10.1.2.3:8071"),
            (None, Some("127.0.0.1:8071"), "http://127.0.0.1:8071"),
            (None, Some("localhost"), "http://localhost"),
            (None, Some("[::1]:8071"), "http://[::1]:8071"),
            (None, Some("localhost.example"), "https://localhost.example"),
            (None, None, "http://localhost"),
            (
                Some("https://a.example/gw"),
                Some("127.0.0.1"),
                "https://a.example/gw",
            ),
        ] {
            assert_eq!(base(public, host), url);
        }
    }

    #[test]
    fn capabilities_become_bits() {
        let named = |names: &[&str]| -> Vec<String> {
            names.iter().map(|name| (*name).to_owned()).collect()
        };
        assert_eq!(bits(None, false), 0b11_1111);
        assert_eq!(bits(None, true), 1);
        assert_eq!(bits(Some(&named(&[])), true), 0);
        assert_eq!(
            bits(Some(&named(&["ManageEndpoint", "ViewBase"])), false),
            0b10_0001
        );
        assert!(capability("ViewBase").is_ok() && capability("viewbase").is_err());
    }

    #[test]
    fn sessions_have_64_characters_at_most() {
        assert!(session(&"a".repeat(64)).is_ok() && session("a@b_c-1").is_ok());
        for bad in ["", "a b", &"a".repeat(65)] {
            assert!(session(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn a_later_and_gentler_cut_brings_nothing_back() {
        let at = |days: u64| Timestamp::from_millis(days * 86_400_000);
        let cut = |until, from| PortalCut {
            session: None,
            token: None,
            issued_until: at(until),
            dead_from: at(from),
        };
        let mut cuts = Vec::new();
        add(&mut cuts, vec![cut(10, 10)], at(10));
        add(&mut cuts, vec![cut(11, 14)], at(11));
        assert_eq!(cuts, [cut(10, 10), cut(11, 14)], "both hold");
        add(&mut cuts, vec![cut(12, 12)], at(12));
        assert_eq!(cuts, [cut(12, 12)], "the last covers both");
        add(&mut cuts, vec![cut(30, 30)], at(30));
        assert_eq!(cuts, [cut(30, 30)], "tokens of day 12 have expired");
    }
}
