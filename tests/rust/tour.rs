//! A tour over the management API with the official Svix client for Rust, unmodified.
//!
//! Arguments: the gateway's address, an instance key. Prints the name of each operation that answered as
//! the client expects; the last line is `done N`. Any difference ends it with exit code 1.

use std::collections::BTreeSet;
use std::error::Error as StdError;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant, SystemTime};

use http::HeaderMap;
use serde::de::DeserializeOwned;
use serde_json::{Value, json};
use svix::api::*;
use svix::models::*;
use svix::{Error, Webhook};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};

type Outcome = Result<(), Box<dyn StdError>>;
type Done<T> = Result<T, Box<dyn StdError>>;

const APP: &str = "rust-tour";
const KIND: &str = "tour.started";

/// One delivery as it came in.
#[derive(Clone)]
struct Received {
    headers: HeaderMap,
    body: Vec<u8>,
}

struct Tour {
    client: Svix,
    address: String,
    hook: String,
    received: Arc<Mutex<Vec<Received>>>,
    since: Value,
    until: Value,
    steps: usize,
}

/// A model of the client out of JSON, as the client itself reads one.
fn of<T: DeserializeOwned>(value: Value) -> T {
    serde_json::from_value(value).expect("the client knows this shape")
}

fn app() -> String {
    APP.to_owned()
}

fn main_endpoint() -> String {
    String::from("main")
}

fn check(holds: bool, what: &str) -> Outcome {
    if holds { Ok(()) } else { Err(what.into()) }
}

/// An error answer with this status and code.
fn fails<T>(answer: Result<T, Error>, status: u16, code: &str) -> Outcome {
    match answer {
        Err(Error::Http(error)) => {
            let found = error
                .payload
                .map(|payload| payload.code)
                .unwrap_or_default();
            check(
                error.status == status && found == code,
                &format!("{} {found}, not {status} {code}", error.status),
            )
        }
        Err(other) => Err(format!("{other}, not {status} {code}").into()),
        Ok(_) => Err(format!("it went through, not {status} {code}").into()),
    }
}

/// A 422 whose array names this place and kind.
fn invalid<T>(answer: Result<T, Error>, place: &str, kind: &str) -> Outcome {
    match answer {
        Err(Error::Validation(error)) => {
            let items = error
                .payload
                .map(|payload| payload.detail)
                .unwrap_or_default();
            let found = |item: &ValidationError| item.loc.join(".") == place && item.r#type == kind;
            check(
                items.iter().any(found),
                &format!("{items:?} names no {kind} at {place}"),
            )
        }
        Err(other) => Err(format!("{other}, not 422").into()),
        Ok(_) => Err("it went through, not 422".into()),
    }
}

async fn eventually<T>(what: &str, mut look: impl AsyncFnMut() -> Done<Option<T>>) -> Done<T> {
    let end = Instant::now() + Duration::from_secs(20);
    while Instant::now() < end {
        if let Some(found) = look().await? {
            return Ok(found);
        }
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    Err(format!("timed out: {what}").into())
}

/// Answers every POST with `taken`, and keeps it.
async fn receive(mut stream: TcpStream, received: Arc<Mutex<Vec<Received>>>) -> Option<()> {
    let mut bytes = Vec::new();
    loop {
        let head = loop {
            if let Some(end) = bytes.windows(4).position(|part| part == b"\r\n\r\n") {
                break end + 4;
            }
            if stream.read_buf(&mut bytes).await.ok()? == 0 {
                return None;
            }
        };
        let text = String::from_utf8_lossy(&bytes[..head]).into_owned();
        let mut headers = HeaderMap::new();
        for line in text.lines().skip(1) {
            if let Some((name, value)) = line.split_once(": ") {
                let name: http::HeaderName = name.parse().ok()?;
                headers.append(name, value.parse().ok()?);
            }
        }
        let length: usize = headers.get("content-length")?.to_str().ok()?.parse().ok()?;
        while bytes.len() < head + length {
            if stream.read_buf(&mut bytes).await.ok()? == 0 {
                return None;
            }
        }
        let body = bytes[head..head + length].to_vec();
        bytes.drain(..head + length);
        received.lock().ok()?.push(Received { headers, body });
        let answer = b"HTTP/1.1 200 OK\r\ncontent-length: 5\r\n\r\ntaken";
        stream.write_all(answer).await.ok()?;
    }
}

/// RFC 3339 of a time so many seconds ago, as the client's models read it.
fn ago(seconds: u64) -> Value {
    let time = SystemTime::now() - Duration::from_secs(seconds);
    let secs = time
        .duration_since(SystemTime::UNIX_EPOCH)
        .map_or(0, |at| at.as_secs());
    let (days, rest) = (secs / 86_400, secs % 86_400);
    // Days to a date, after Howard Hinnant.
    let z = days + 719_468;
    let (era, doe) = (z / 146_097, z % 146_097);
    let yoe = (doe - doe / 1460 + doe / 36_524 - doe / 146_096) / 365;
    let doy = doe - (365 * yoe + yoe / 4 - yoe / 100);
    let mp = (5 * doy + 2) / 153;
    let day = doy - (153 * mp + 2) / 5 + 1;
    let month = if mp < 10 { mp + 3 } else { mp - 9 };
    let year = yoe + era * 400 + u64::from(month <= 2);
    let (hour, minute, second) = (rest / 3600, rest / 60 % 60, rest % 60);
    json!(format!(
        "{year:04}-{month:02}-{day:02}T{hour:02}:{minute:02}:{second:02}Z"
    ))
}

impl Tour {
    fn passed(&mut self, name: &str) {
        self.steps += 1;
        println!("{name}");
    }

    fn count(&self) -> usize {
        self.received.lock().map_or(0, |all| all.len())
    }

    async fn applications(&mut self) -> Outcome {
        self.client.health().get().await?;
        self.passed("health.get");
        let wanted = json!({"name": "Tour", "uid": APP, "metadata": {"a": "b"}});
        let made = self.client.application().create(of(wanted), None).await?;
        check(made.id.starts_with("app_") && made.id.len() == 31, &made.id)?;
        let again = of(json!({"name": "x", "uid": APP}));
        fails(
            self.client.application().create(again, None).await,
            409,
            "conflict",
        )?;
        let empty = self
            .client
            .application()
            .create(of(json!({"name": ""})), None)
            .await;
        invalid(empty, "body.name", "limit")?;
        self.passed("application.create");
        let same = of(json!({"name": "x", "uid": APP}));
        let same = self.client.application().get_or_create(same, None).await?;
        check(same.id == made.id, "get_or_create makes another")?;
        self.passed("application.get_or_create");
        check(
            self.client.application().get(app()).await?.id == made.id,
            "get",
        )?;
        let none = self.client.application().get("nobody".into()).await;
        fails(none, 404, "not_found")?;
        self.passed("application.get");
        let renamed = of(json!({"name": "Renamed"}));
        let renamed = self.client.application().upsert(app(), renamed).await?;
        check(renamed.name == "Renamed", "upsert")?;
        self.passed("application.upsert");
        let patch = of(json!({"throttleRate": 1000}));
        let patched = self.client.application().patch(app(), patch).await?;
        check(patched.throttle_rate == Some(1000), "patch")?;
        self.passed("application.patch");
        let mut made = BTreeSet::new();
        for n in 0..5 {
            let one = of(json!({"name": format!("n{n}")}));
            made.insert(self.client.application().create(one, None).await?.id);
        }
        let (mut listed, mut iterator) = (Vec::new(), None);
        loop {
            let options = ApplicationListOptions {
                limit: Some(2),
                iterator: iterator.clone(),
                ..Default::default()
            };
            let page = self.client.application().list(Some(options)).await?;
            listed.extend(page.data.into_iter().map(|one| one.id));
            if page.done {
                break;
            }
            iterator = page.iterator;
        }
        let set: BTreeSet<String> = listed.iter().cloned().collect();
        check(set.len() == listed.len() && made.is_subset(&set), "pages")?;
        self.passed("application.list");
        for id in made {
            self.client.application().delete(id).await?;
        }
        self.passed("application.delete");
        Ok(())
    }

    async fn event_types(&mut self) -> Outcome {
        let types = self.client.event_type();
        let schemas = json!({"1": {"type": "object", "properties": {"n": {"type": "integer"}}}});
        let wanted = json!({"name": KIND, "description": "A tour", "schemas": schemas});
        types.create(of(wanted.clone()), None).await?;
        fails(
            types.create(of(wanted), None).await,
            409,
            "event_type_exists",
        )?;
        check(types.get(KIND.into()).await?.name == KIND, "get")?;
        let wanted = of(json!({"description": "B", "schemas": schemas}));
        types.upsert(KIND.into(), wanted).await?;
        let patched = types
            .patch(KIND.into(), of(json!({"deprecated": false})))
            .await?;
        check(!patched.deprecated, "patch")?;
        let options = EventTypeListOptions {
            limit: Some(250),
            ..Default::default()
        };
        let listed = types.list(Some(options)).await?;
        check(listed.data.iter().any(|one| one.name == KIND), "list")?;
        let spec = json!({"spec": {"webhooks": {"tour.ended": {"post": {"description": "Over"}}}}});
        let imported = types.import_openapi(of(spec), None).await?;
        check(imported.data.modified == ["tour.ended"], "import_openapi")?;
        let expunge = EventTypeDeleteOptions {
            expunge: Some(true),
        };
        types.delete("tour.ended".into(), Some(expunge)).await?;
        fails(types.get("tour.ended".into()).await, 404, "not_found")?;
        for name in [
            "create",
            "get",
            "upsert",
            "patch",
            "list",
            "import_openapi",
            "delete",
        ] {
            self.passed(&format!("event_type.{name}"));
        }
        Ok(())
    }

    /// The secret now, and the one before it.
    async fn endpoints(&mut self) -> Done<(String, String)> {
        let endpoints = self.client.endpoint();
        let wanted = json!({"url": self.hook, "uid": "main", "eventTypes": [KIND]});
        let made = endpoints.create(app(), of(wanted.clone()), None).await?;
        check(made.id.starts_with("ep_") && made.id.len() == 30, &made.id)?;
        let taken = endpoints.create(app(), of(wanted.clone()), None).await;
        fails(taken, 409, "conflict")?;
        check(
            endpoints.get(app(), main_endpoint()).await?.id == made.id,
            "get",
        )?;
        fails(endpoints.get(app(), "none".into()).await, 404, "not_found")?;
        endpoints.upsert(app(), main_endpoint(), of(wanted)).await?;
        let patch = of(json!({"description": "e"}));
        let patched = endpoints.patch(app(), main_endpoint(), patch).await?;
        check(patched.description == "e", "patch")?;
        check(endpoints.list(app(), None).await?.data.len() == 1, "list")?;
        let headers = of(json!({"headers": {"x-tour": "1", "x-more": "2"}}));
        endpoints
            .set_headers(app(), main_endpoint(), headers)
            .await?;
        let headers = of(json!({"headers": {"x-tour": "3"}, "deleteHeaders": ["x-more"]}));
        endpoints
            .patch_headers(app(), main_endpoint(), headers)
            .await?;
        let headers = endpoints.get_headers(app(), main_endpoint()).await?.headers;
        check(json!(headers) == json!({"x-tour": "3"}), "headers")?;
        let old = endpoints.get_secret(app(), main_endpoint()).await?.key;
        let rotate = of(json!({"gracePeriodSeconds": 60}));
        endpoints
            .rotate_secret(app(), main_endpoint(), rotate, None)
            .await?;
        let secret = endpoints.get_secret(app(), main_endpoint()).await?.key;
        check(secret != old, "rotate_secret")?;
        let transformation = endpoints.transformation();
        let none = transformation.get(app(), main_endpoint()).await?;
        check(none.enabled != Some(true), "transformation")?;
        let code = of(json!({"code": "function handler() { return 1; }"}));
        let refused = transformation.patch(app(), main_endpoint(), code).await;
        invalid(refused, "body.code", "unsupported_field")?;
        for name in [
            "create",
            "get",
            "upsert",
            "patch",
            "list",
            "set_headers",
            "patch_headers",
            "get_headers",
            "get_secret",
            "rotate_secret",
            "transformation.get",
            "transformation.patch",
        ] {
            self.passed(&format!("endpoint.{name}"));
        }
        Ok((secret, old))
    }

    fn message(n: u64) -> MessageIn {
        of(json!({"eventType": KIND, "payload": {"n": n}}))
    }

    /// The first message's id.
    async fn messages(&mut self, (secret, old): (String, String)) -> Done<String> {
        let messages = self.client.message();
        let wanted = json!({
            "eventType": KIND, "payload": {"n": 1}, "eventId": "e-1", "tags": ["t"], "channels": ["c"],
        });
        let with_content = MessageCreateOptions {
            with_content: Some(true),
            ..Default::default()
        };
        let first = messages
            .create(app(), of(wanted.clone()), Some(with_content))
            .await?;
        check(first.payload == json!({"n": 1}), "create")?;
        fails(
            messages.create(app(), of(wanted), None).await,
            409,
            "conflict",
        )?;
        let bad = of(json!({"eventType": "a b", "payload": {}}));
        invalid(
            messages.create(app(), bad, None).await,
            "body.eventType",
            "value_error",
        )?;
        let received = Arc::clone(&self.received);
        let delivery = eventually("a delivery", async || {
            Ok(received.lock().ok().and_then(|all| all.first().cloned()))
        });
        let Received { headers, body } = delivery.await?;
        for key in [&secret, &old] {
            Webhook::new(key)?.verify(&body, &headers)?;
        }
        let mut forged = body.clone();
        forged.push(b' ');
        check(
            Webhook::new(&secret)?.verify(&forged, &headers).is_err(),
            "forged",
        )?;
        let send = async |n: u64| {
            let options = MessageCreateOptions {
                idempotency_key: Some("tour".into()),
                ..Default::default()
            };
            messages
                .create(app(), Self::message(n), Some(options))
                .await
        };
        check(
            send(2).await?.id == send(2).await?.id,
            "an idempotent retry",
        )?;
        invalid(
            send(3).await,
            "header.idempotency-key",
            "idempotency_mismatch",
        )?;
        let silent = messages.get(app(), first.id.clone(), None).await?;
        let content = MessageGetOptions {
            with_content: Some(true),
        };
        let whole = messages.get(app(), "e-1".into(), Some(content)).await?;
        check(
            whole.payload == json!({"n": 1}) && silent.id == whole.id,
            "get",
        )?;
        for n in 0..5 {
            messages.create(app(), Self::message(n), None).await?;
        }
        let (mut listed, mut iterator) = (BTreeSet::new(), None);
        loop {
            let options = MessageListOptions {
                limit: Some(3),
                iterator: iterator.clone(),
                ..Default::default()
            };
            let page = messages.list(app(), Some(options)).await?;
            listed.extend(page.data.into_iter().map(|one| one.id));
            if page.done {
                break;
            }
            iterator = page.iterator;
        }
        check(listed.len() == 7, "list")?;
        let wanted = of(json!({"eventType": KIND}));
        check(
            messages.precheck(app(), wanted, None).await?.active,
            "precheck",
        )?;
        let events = V1MessageEventsParams {
            app_id: app(),
            limit: Some(250),
            iterator: None,
            event_types: None,
            channels: None,
            after: None,
        };
        check(messages.events(events).await?.data.len() == 7, "events")?;
        let events = V1MessageEventsSubscriptionParams {
            app_id: app(),
            subscription_id: main_endpoint(),
            limit: Some(250),
            iterator: None,
            event_types: None,
            channels: None,
            after: None,
        };
        let of_endpoint = messages.events_subscription(events).await?;
        check(of_endpoint.data.len() == 7, "events_subscription")?;
        for name in [
            "create",
            "get",
            "list",
            "precheck",
            "events",
            "events_subscription",
        ] {
            self.passed(&format!("message.{name}"));
        }
        self.passed("Webhook.verify");
        Ok(first.id)
    }

    async fn attempts(&mut self, first: String) -> Outcome {
        let attempts = self.client.message_attempt();
        let listed = eventually("7 attempts", async || {
            let options = MessageAttemptListByEndpointOptions {
                with_content: Some(true),
                with_msg: Some(true),
                ..Default::default()
            };
            let page = attempts
                .list_by_endpoint(app(), main_endpoint(), Some(options))
                .await?;
            Ok((page.data.len() == 7).then_some(page.data))
        })
        .await?;
        check(
            listed.iter().all(|one| one.response == "taken"),
            "responses",
        )?;
        let of_message = attempts.list_by_msg(app(), first.clone(), None).await?;
        let attempt = of_message.data.first().ok_or("no attempt")?.id.clone();
        let one = attempts
            .get(app(), first.clone(), attempt.clone(), None)
            .await?;
        check(one.id == attempt, "get")?;
        let options = MessageAttemptListAttemptedMessagesOptions {
            limit: Some(2),
            ..Default::default()
        };
        let page = attempts.list_attempted_messages(app(), main_endpoint(), Some(options));
        check(page.await?.data.len() == 2, "list_attempted_messages")?;
        let places = attempts.list_attempted_destinations(app(), first.clone(), None);
        check(places.await?.data.len() == 1, "list_attempted_destinations")?;
        let before = self.count();
        attempts
            .resend(app(), first.clone(), main_endpoint(), None)
            .await?;
        eventually("the resend", async || {
            Ok((self.count() > before).then_some(()))
        })
        .await?;
        attempts
            .expunge_content(app(), first.clone(), attempt)
            .await?;
        let messages = self.client.message();
        messages.expunge_content(app(), first.clone()).await?;
        let gone = attempts
            .resend(app(), first.clone(), main_endpoint(), None)
            .await;
        fails(gone, 400, "missing_payload")?;
        let wanted = of(json!({"ids": [first, "none"]}));
        let bulk = messages.bulk_expunge_content(app(), wanted, None).await?;
        check(bulk.results.len() == 2, "bulk_expunge_content")?;
        for name in [
            "list_by_endpoint",
            "list_by_msg",
            "get",
            "list_attempted_messages",
            "list_attempted_destinations",
            "resend",
            "expunge_content",
        ] {
            self.passed(&format!("message_attempt.{name}"));
        }
        self.passed("message.expunge_content");
        self.passed("message.bulk_expunge_content");
        Ok(())
    }

    /// Waits until a background task has ended.
    async fn ended(&self, id: String) -> Outcome {
        let tasks = self.client.background_task();
        eventually("a background task", async || {
            let task = tasks.get(id.clone()).await?;
            Ok((task.status != BackgroundTaskStatus::Running).then_some(()))
        })
        .await
    }

    async fn tasks(&mut self) -> Outcome {
        let endpoints = self.client.endpoint();
        let kind = of(json!({"eventType": KIND}));
        endpoints
            .send_example(app(), main_endpoint(), kind, None)
            .await?;
        eventually("the figures", async || {
            let stats = endpoints.get_stats(app(), main_endpoint(), None).await?;
            Ok((stats.success >= 7).then_some(()))
        })
        .await?;
        let range = json!({"since": self.since});
        let begun = endpoints
            .recover(app(), main_endpoint(), of(range.clone()), None)
            .await?;
        self.ended(begun.id).await?;
        let begun = endpoints
            .replay_missing(app(), main_endpoint(), of(range.clone()), None)
            .await?;
        self.ended(begun.id).await?;
        let begun = endpoints
            .bulk_replay(app(), main_endpoint(), of(range), None)
            .await?;
        self.ended(begun.id).await?;
        let usage = json!({"since": self.since, "until": self.until, "appIds": [APP, "none"]});
        let begun = self
            .client
            .statistics()
            .aggregate_app_stats(of(usage), None)
            .await?;
        let unresolved: Vec<&str> = begun
            .unresolved_app_ids
            .iter()
            .map(String::as_str)
            .collect();
        check(unresolved == ["none"], "unresolved")?;
        self.ended(begun.id).await?;
        let begun = self.client.statistics().aggregate_event_types().await?;
        self.ended(begun.id).await?;
        let listed = self.client.background_task().list(None).await?;
        check(listed.data.len() >= 5, "background_task.list")?;
        let begun = self
            .client
            .message()
            .expunge_all_contents(app(), None)
            .await?;
        self.ended(begun.id).await?;
        for name in [
            "endpoint.send_example",
            "endpoint.get_stats",
            "endpoint.recover",
            "endpoint.replay_missing",
            "endpoint.bulk_replay",
            "statistics.aggregate_app_stats",
            "statistics.aggregate_event_types",
            "background_task.list",
            "background_task.get",
            "message.expunge_all_contents",
        ] {
            self.passed(name);
        }
        Ok(())
    }

    async fn sessions(&mut self) -> Outcome {
        let authentication = self.client.authentication();
        let portal = authentication
            .app_portal_access(app(), of(json!({})), None)
            .await?;
        let guest = client(&self.address, portal.token);
        check(
            guest.application().list(None).await?.data.len() == 1,
            "portal",
        )?;
        fails(
            guest.application().delete(app()).await,
            403,
            "insufficient access",
        )?;
        let who = guest.authentication().whoami().await?;
        check(who.app_id.is_some(), "whoami")?;
        guest.authentication().logout(None).await?;
        fails(
            guest.application().list(None).await,
            401,
            "authentication_failed",
        )?;
        authentication
            .expire_all(app(), of(json!({"sessionIds": []})), None)
            .await?;
        for name in ["app_portal_access", "whoami", "logout", "expire_all"] {
            self.passed(&format!("authentication.{name}"));
        }
        let endpoints = self.client.endpoint();
        endpoints.delete(app(), main_endpoint()).await?;
        fails(
            endpoints.get(app(), main_endpoint()).await,
            404,
            "not_found",
        )?;
        self.passed("endpoint.delete");
        self.client.application().delete(app()).await?;
        Ok(())
    }

    async fn whole(&mut self) -> Outcome {
        self.applications().await?;
        self.event_types().await?;
        let secrets = self.endpoints().await?;
        let first = self.messages(secrets).await?;
        self.attempts(first).await?;
        self.tasks().await?;
        self.sessions().await
    }
}

fn client(address: &str, token: String) -> Svix {
    let options = SvixOptions {
        server_url: Some(address.to_owned()),
        ..Default::default()
    };
    Svix::new(token, Some(options))
}

#[tokio::main]
async fn main() -> std::process::ExitCode {
    let mut arguments = std::env::args().skip(1);
    let (Some(address), Some(token)) = (arguments.next(), arguments.next()) else {
        eprintln!("want the gateway's address and a key");
        return 2.into();
    };
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
    let hook = format!("http://{}/hook", listener.local_addr().expect("bound"));
    let received = Arc::new(Mutex::new(Vec::new()));
    let kept = Arc::clone(&received);
    tokio::spawn(async move {
        while let Ok((stream, _)) = listener.accept().await {
            tokio::spawn(receive(stream, Arc::clone(&kept)));
        }
    });
    let mut tour = Tour {
        client: client(&address, token),
        address,
        hook,
        received,
        since: ago(3600),
        until: ago(0),
        steps: 0,
    };
    match tour.whole().await {
        Ok(()) => {
            println!("done {}", tour.steps);
            0.into()
        }
        Err(error) => {
            eprintln!("after {} steps: {error}", tour.steps);
            1.into()
        }
    }
}
