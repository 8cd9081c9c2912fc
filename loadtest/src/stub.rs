//! A stand-in for the gateway, for the tests of this harness: accepts, signs, delivers, and breaks
//! a promise on purpose if told to. Stores nothing. It also speaks as a peer of another make would:
//! other paths, ids from its own answers, a body of its own around the payload, no signature.

use std::cell::RefCell;
use std::collections::HashMap;
use std::convert::Infallible;
use std::net::{Ipv4Addr, SocketAddr};
use std::rc::Rc;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use bytes::Bytes;
use hmac::{Hmac, KeyInit, Mac};
use http::{Method, Request, Response};
use http_body_util::{BodyExt, Full};
use hyper::body::Incoming;
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;
use tokio::net::TcpListener;

use crate::connection::{Connection, Template, local_runtime};
use crate::payload;
use crate::receiver;

/// What it does wrong.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Fault {
    None,
    /// Does not deliver the message with this number.
    Loses(u64),
    /// Delivers the message with this number twice.
    Doubles(u64),
    /// Signs with another key.
    SignsWrongly,
    /// Acknowledges a peer's event without an id.
    NamesNothing,
}

/// Starts one on a thread that ends with the process.
pub(crate) fn start(fault: Fault) -> SocketAddr {
    let listener = receiver::bind(SocketAddr::from((Ipv4Addr::LOCALHOST, 0))).unwrap();
    let address = listener.local_addr().unwrap();
    std::thread::spawn(move || {
        local_runtime().unwrap().block_on(async {
            let listener = TcpListener::from_std(listener).unwrap();
            let endpoints = Rc::new(RefCell::new(HashMap::new()));
            loop {
                let (stream, _) = listener.accept().await.unwrap();
                let endpoints = Rc::clone(&endpoints);
                tokio::task::spawn_local(async move {
                    let service = service_fn(|request| {
                        let endpoints = Rc::clone(&endpoints);
                        async move { Ok::<_, Infallible>(answer(endpoints, fault, request).await) }
                    });
                    let served = hyper::server::conn::http1::Builder::new()
                        .serve_connection(TokioIo::new(stream), service)
                        .await;
                    if served.is_err() {}
                });
            }
        });
    });
    address
}

type Endpoints = Rc<RefCell<HashMap<String, Vec<String>>>>;

async fn answer(
    endpoints: Endpoints,
    fault: Fault,
    request: Request<Incoming>,
) -> Response<Full<Bytes>> {
    let path = request.uri().path().to_owned();
    let method = request.method().clone();
    let key = request.headers().get("x-key");
    let key = key.map_or("", |key| key.to_str().unwrap()).to_owned();
    let body = request.into_body().collect().await.unwrap().to_bytes();
    let parts: Vec<&str> = path
        .trim_start_matches("/api/v1/")
        .trim_start_matches('/')
        .split('/')
        .collect();
    match (method, parts.as_slice()) {
        (Method::POST, ["app"]) => reply(201, "{}"),
        (Method::POST, ["app", app, "endpoint"]) => {
            let value: serde_json::Value = serde_json::from_slice(&body).unwrap();
            let url = value["url"].as_str().unwrap().to_owned();
            let mut all = endpoints.borrow_mut();
            all.entry((*app).to_owned()).or_default().push(url);
            reply(201, "{}")
        }
        (Method::POST, ["app", app, "msg"]) => {
            deliver(&endpoints, app, fault, &body);
            reply(202, "{\"id\":\"msg_1\"}")
        }
        (Method::POST, ["app", app, "msg", "batch"]) => {
            let mut lines = String::new();
            for (n, line) in body.split(|byte| *byte == b'\n').enumerate() {
                if !line.is_empty() {
                    deliver(&endpoints, app, fault, line);
                    lines += &format!("{{\"index\":{n},\"status\":202}}\n");
                }
            }
            reply(202, &lines)
        }
        _ if parts.first() == Some(&"tenants") => peer(&endpoints, fault, &parts, (&key, &body)),
        _ => reply(200, "{}"),
    }
}

/// The interface of `PEER`.
fn peer(
    endpoints: &Endpoints,
    fault: Fault,
    parts: &[&str],
    (key, body): (&str, &[u8]),
) -> Response<Full<Bytes>> {
    if key != "k" {
        return reply(401, "{}");
    }
    let value: serde_json::Value = serde_json::from_slice(body).unwrap();
    match parts {
        ["tenants"] => {
            let id = format!("t{}", value["label"].as_str().unwrap().len());
            reply(200, &format!("{{\"tenant\":{{\"id\":\"{id}\"}}}}"))
        }
        ["tenants", tenant, "hooks"] => {
            let url = value["target"].as_str().unwrap().to_owned();
            let mut all = endpoints.borrow_mut();
            all.entry((*tenant).to_owned()).or_default().push(url);
            reply(200, "{}")
        }
        ["tenants", tenant, "events"] => {
            // Written anew, inside an envelope of its own.
            let body = serde_json::to_vec_pretty(&serde_json::json!({
                "kind": value["kind"], "content": value["data"],
            }));
            let body = Bytes::from(body.unwrap());
            let number = payload::read(&body).unwrap().number;
            for url in endpoints.borrow().get(*tenant).into_iter().flatten() {
                let (url, body) = (url.clone(), body.clone());
                tokio::task::spawn_local(async move { send(&url, number, body, fault).await });
            }
            match fault {
                Fault::NamesNothing => reply(200, "{}"),
                _ => reply(200, &format!("{{\"event\":{{\"id\":{number}}}}}")),
            }
        }
        _ => reply(404, "{}"),
    }
}

/// How to speak to it as a peer.
pub(crate) const PEER: &str = r#"
    name = "peer"
    about = "a stand-in of another make"
    ready = "/alive"
    signature = "none"
    [headers]
    x-key = "{key}"
    [message]
    path = "/tenants/{tenant}/events"
    body = '{"kind":"{event}","data":{payload}}'
    accepted = [200]
    id = "/event/id"
    [[setup.application]]
    method = "POST"
    path = "/tenants"
    body = '{"label":"{app}"}'
    capture = { tenant = "/tenant/id" }
    [[setup.endpoint]]
    method = "POST"
    path = "/tenants/{tenant}/hooks"
    body = '{"target":"{url}"}'
"#;

fn reply(status: u16, body: &str) -> Response<Full<Bytes>> {
    let mut response = Response::new(Full::new(Bytes::from(body.to_owned())));
    *response.status_mut() = status.try_into().unwrap();
    response
}

fn deliver(endpoints: &Endpoints, app: &str, fault: Fault, message: &[u8]) {
    let start = message
        .windows(10)
        .position(|ten| ten == b"\"payload\":")
        .unwrap();
    let payload = Bytes::copy_from_slice(&message[start + 10..message.len() - 1]);
    let number = payload::read(&payload).unwrap().number;
    let times = match fault {
        Fault::Loses(lost) if lost == number => 0,
        Fault::Doubles(doubled) if doubled == number => 2,
        _ => 1,
    };
    for url in endpoints.borrow().get(app).into_iter().flatten() {
        for _ in 0..times {
            let (url, payload) = (url.clone(), payload.clone());
            tokio::task::spawn_local(async move { send(&url, number, payload, fault).await });
        }
    }
}

async fn send(url: &str, number: u64, payload: Bytes, fault: Fault) {
    let (address, path) = url
        .strip_prefix("http://")
        .unwrap()
        .split_once('/')
        .unwrap();
    let secret = crate::population::SECRET.strip_prefix("whsec_").unwrap();
    let mut key = STANDARD.decode(secret).unwrap();
    if fault == Fault::SignsWrongly {
        key[0] ^= 1;
    }
    let mut mac = Hmac::<sha2::Sha256>::new_from_slice(&key).unwrap();
    mac.update(format!("msg_{number}.1.").as_bytes());
    mac.update(&payload);
    let signature = format!("v1,{}", STANDARD.encode(mac.finalize().into_bytes()));
    let address = address.parse().unwrap();
    let template = Template::new(Method::POST, address, &format!("/{path}"), None).unwrap();
    let mut request = template.request(payload);
    for (name, value) in [
        ("webhook-id", format!("msg_{number}")),
        ("webhook-timestamp", "1".to_owned()),
        ("webhook-signature", signature),
    ] {
        request.headers_mut().insert(name, value.parse().unwrap());
    }
    let mut connection = Connection::open(address, false).await.unwrap();
    assert!(connection.send(request).await.unwrap().status.is_success());
}
