//! Every path and method of the API in one table.

use std::sync::Arc;

use axum::Router;
use axum::extract::{Request, State};
use axum::response::Response;
use axum::routing::{MethodFilter, MethodRouter, any};

use super::error::{Code, Problem};
use super::request::{Answer, Cx, Replay, get, leave, on, scan};
use super::{
    ApiState, application, attempt, audit, backup, cancel, capacity, consumer, content, endpoint,
    event_type, events, example, explain, import, inbound, instance, key, message, openapi,
    quarantine, replay, sample, session, source, stats, tail, task, tenant, vault, walk,
};
use crate::model::Scope;

type Route = MethodRouter<Arc<ApiState>>;

/// The router: each path under `/api/v1` and `/api`, with and without a slash at its end; and `pages`.
pub(super) fn all(pages: Router<Arc<ApiState>>) -> Router<Arc<ApiState>> {
    let mut router = Router::new();
    for (path, route) in groups().into_iter().flatten() {
        for prefix in ["/api/v1", "/api"] {
            router = router.route(&format!("{prefix}{path}"), route.clone());
            router = router.route(&format!("{prefix}{path}/"), route.clone());
        }
    }
    router
        .merge(instance::guarded())
        .merge(inbound::routes())
        .merge(pages)
        .fallback(no_route)
        .method_not_allowed_fallback(no_method)
}

fn groups() -> [Vec<(&'static str, Route)>; 10] {
    [
        applications(),
        endpoints(),
        messages(),
        reading(),
        history(),
        sources(),
        others(),
        sessions(),
        tenants(),
        later(),
    ]
}

/// Changing configuration; a POST remembers its answer.
fn change<F, Fut>(method: MethodFilter, handler: F) -> Route
where
    F: Fn(Cx) -> Fut + Clone + Send + Sync + 'static,
    Fut: Future<Output = Answer> + Send + 'static,
{
    let replay = if method == MethodFilter::POST {
        Replay::Stored
    } else {
        Replay::Own
    };
    on(method, Scope::WebhooksWrite, replay, handler)
}

/// Acting on deliveries; remembers its answer.
fn act<F, Fut>(handler: F) -> Route
where
    F: Fn(Cx) -> Fut + Clone + Send + Sync + 'static,
    Fut: Future<Output = Answer> + Send + 'static,
{
    on(
        MethodFilter::POST,
        Scope::AttemptsWrite,
        Replay::Stored,
        handler,
    )
}

/// Changing endpoints, which a portal token may do as well.
fn edit<F, Fut>(method: MethodFilter, handler: F) -> Route
where
    F: Fn(Cx) -> Fut + Clone + Send + Sync + 'static,
    Fut: Future<Output = Answer> + Send + 'static,
{
    let replay = if method == MethodFilter::POST {
        Replay::Stored
    } else {
        Replay::Own
    };
    on(method, Scope::EndpointsWrite, replay, handler)
}

fn applications() -> Vec<(&'static str, Route)> {
    let read = Scope::WebhooksRead;
    let (post, put) = (MethodFilter::POST, MethodFilter::PUT);
    let (patch, delete) = (MethodFilter::PATCH, MethodFilter::DELETE);
    vec![
        (
            "/app",
            get(read.clone(), application::list).merge(change(post, application::create)),
        ),
        (
            "/app/{app_id}",
            get(read.clone(), application::read)
                .merge(change(put, application::put))
                .merge(change(patch, application::patch))
                .merge(change(delete, application::delete)),
        ),
        ("/app/{app_id}/usage", get(read.clone(), application::usage)),
        (
            "/event-type",
            get(read.clone(), event_type::list).merge(change(post, event_type::create)),
        ),
        (
            "/event-type/{event_type_name}",
            get(read, event_type::read)
                .merge(change(put, event_type::put))
                .merge(change(patch, event_type::patch))
                .merge(change(delete, event_type::delete)),
        ),
    ]
}

fn endpoints() -> Vec<(&'static str, Route)> {
    let read = Scope::WebhooksRead;
    let (post, put) = (MethodFilter::POST, MethodFilter::PUT);
    let (patch, delete) = (MethodFilter::PATCH, MethodFilter::DELETE);
    vec![
        (
            "/app/{app_id}/endpoint",
            get(read.clone(), endpoint::list).merge(edit(post, endpoint::create)),
        ),
        (
            "/app/{app_id}/endpoint/{endpoint_id}",
            get(read.clone(), endpoint::read)
                .merge(edit(put, endpoint::put))
                .merge(edit(patch, endpoint::patch))
                .merge(edit(delete, endpoint::delete)),
        ),
        (
            "/app/{app_id}/endpoint/{endpoint_id}/headers",
            get(read, endpoint::headers::read)
                .merge(edit(put, endpoint::headers::put))
                .merge(edit(patch, endpoint::headers::patch)),
        ),
        // A secret is what makes a signature: reading one takes what changing one takes, and an
        // answer that holds one is not stored.
        (
            "/app/{app_id}/endpoint/{endpoint_id}/secret",
            get(Scope::SecretsRead, endpoint::secret::read),
        ),
        (
            "/app/{app_id}/endpoint/{endpoint_id}/secret/rotate",
            on(
                post,
                Scope::SecretsWrite,
                Replay::Own,
                endpoint::secret::rotate,
            ),
        ),
        (
            "/app/{app_id}/endpoint/{endpoint_id}/pause",
            edit(post, endpoint::pause),
        ),
        (
            "/app/{app_id}/endpoint/{endpoint_id}/resume",
            edit(post, endpoint::resume),
        ),
        (
            "/app/{app_id}/endpoint/{endpoint_id}/recover",
            act(walk::recover),
        ),
        (
            "/app/{app_id}/endpoint/{endpoint_id}/replay-missing",
            act(walk::replay_missing),
        ),
        (
            "/app/{app_id}/endpoint/{endpoint_id}/bulk-replay",
            act(walk::bulk_replay),
        ),
        (
            "/app/{app_id}/endpoint/{endpoint_id}/send-example",
            act(example::send),
        ),
        (
            "/app/{app_id}/endpoint/{endpoint_id}/stats",
            scan(Scope::MessageRead, stats::of_endpoint),
        ),
        (
            "/app/{app_id}/endpoint/{endpoint_id}/cancel-pending",
            act(cancel::pending),
        ),
    ]
}

fn messages() -> Vec<(&'static str, Route)> {
    let (read, write) = (Scope::MessageRead, Scope::MessageWrite);
    let post = MethodFilter::POST;
    vec![
        (
            "/app/{app_id}/msg",
            scan(read.clone(), message::list).merge(on(
                post,
                write.clone(),
                Replay::Own,
                message::create,
            )),
        ),
        (
            "/app/{app_id}/msg/batch",
            on(post, write, Replay::Own, message::batch),
        ),
        (
            "/app/{app_id}/msg/explain",
            on(post, read.clone(), Replay::Own, explain::dry_run),
        ),
        (
            "/app/{app_id}/filter/test",
            on(post, read.clone(), Replay::Own, explain::test_filter),
        ),
        (
            "/app/{app_id}/msg/precheck/active",
            on(post, read.clone(), Replay::Own, explain::precheck),
        ),
        (
            "/app/{app_id}/msg/bulk-expunge",
            on(post, Scope::MessageWrite, Replay::Stored, content::bulk),
        ),
        (
            "/app/{app_id}/msg/expunge-all-contents",
            on(post, Scope::MessageWrite, Replay::Stored, walk::purge),
        ),
        (
            "/app/{app_id}/msg/{msg_id}/content",
            on(
                MethodFilter::DELETE,
                Scope::MessageWrite,
                Replay::Own,
                content::of_message,
            ),
        ),
        (
            "/app/{app_id}/msg/{msg_id}/attempt/{attempt_id}/content",
            on(
                MethodFilter::DELETE,
                Scope::MessageWrite,
                Replay::Own,
                content::of_attempt,
            ),
        ),
        (
            "/app/{app_id}/msg/{msg_id}",
            get(read.clone(), message::read),
        ),
        (
            "/app/{app_id}/msg/{msg_id}/explain",
            get(read, explain::explain),
        ),
    ]
}

/// Messages that are read instead of delivered, or sent again.
fn reading() -> Vec<(&'static str, Route)> {
    let read = Scope::MessageRead;
    let post = MethodFilter::POST;
    vec![
        ("/app/{app_id}/replay", act(replay::replay)),
        ("/app/{app_id}/tail", get(read.clone(), tail::tail)),
        (
            "/app/{app_id}/consumer/{consumer_id}",
            get(read.clone(), consumer::lease)
                .merge(change(MethodFilter::PUT, consumer::put))
                .merge(change(MethodFilter::DELETE, consumer::delete)),
        ),
        (
            "/app/{app_id}/consumer/{consumer_id}/commit",
            on(post, read.clone(), Replay::Own, consumer::commit),
        ),
        (
            "/app/{app_id}/consumer/{consumer_id}/seek",
            on(post, read.clone(), Replay::Own, consumer::seek),
        ),
        ("/app/{app_id}/events", scan(read.clone(), events::all)),
        (
            "/app/{app_id}/events/subscription/{subscription_id}",
            scan(read, events::subscription),
        ),
    ]
}

fn history() -> Vec<(&'static str, Route)> {
    let read = Scope::MessageRead;
    vec![
        (
            "/app/{app_id}/attempt/endpoint/{endpoint_id}",
            scan(read.clone(), attempt::by_endpoint),
        ),
        (
            "/app/{app_id}/attempt/msg/{msg_id}",
            scan(read.clone(), attempt::by_message),
        ),
        (
            "/app/{app_id}/endpoint/{endpoint_id}/msg",
            scan(read.clone(), attempt::messages),
        ),
        (
            "/app/{app_id}/msg/{msg_id}/endpoint",
            scan(read.clone(), attempt::destinations),
        ),
        (
            "/app/{app_id}/msg/{msg_id}/attempt/{attempt_id}",
            get(read, attempt::read),
        ),
        (
            "/app/{app_id}/msg/{msg_id}/endpoint/{endpoint_id}/resend",
            act(attempt::resend),
        ),
        (
            "/app/{app_id}/msg/{msg_id}/endpoint/{endpoint_id}/cancel",
            act(attempt::cancel),
        ),
        (
            "/app/{app_id}/quarantine",
            scan(Scope::MessageRead, quarantine::list),
        ),
        (
            "/app/{app_id}/quarantine/{bucket}",
            scan(Scope::MessageRead, quarantine::read),
        ),
        (
            "/app/{app_id}/quarantine/{bucket}/retry",
            act(quarantine::retry),
        ),
        (
            "/app/{app_id}/quarantine/{bucket}/discard",
            act(quarantine::discard),
        ),
    ]
}

fn sources() -> Vec<(&'static str, Route)> {
    let (read, write) = (Scope::WebhooksRead, Scope::InboundWrite);
    // An answer that holds a token is not stored: no POST remembers its answer.
    let (post, own) = (MethodFilter::POST, Replay::Own);
    vec![
        (
            "/source",
            get(read.clone(), source::list).merge(on(post, write.clone(), own, source::create)),
        ),
        (
            "/source/{source_id}",
            get(read.clone(), source::read)
                .merge(on(MethodFilter::PUT, write.clone(), own, source::put_whole))
                .merge(on(MethodFilter::PATCH, write.clone(), own, source::patch))
                .merge(on(MethodFilter::DELETE, write.clone(), own, source::delete)),
        ),
        (
            "/source/{source_id}/token/rotate",
            on(post, write.clone(), own, source::rotate_token),
        ),
        (
            "/source/{source_id}/secret/rotate",
            on(post, write, own, source::rotate_secret),
        ),
        (
            "/source/{source_id}/receipts",
            get(read.clone(), source::receipts::list),
        ),
        (
            "/source/{source_id}/stats",
            get(read, source::receipts::stats),
        ),
    ]
}

fn others() -> Vec<(&'static str, Route)> {
    let keys = Scope::KeysWrite;
    vec![
        (
            "/api-keys",
            get(keys.clone(), key::list).merge(on(
                MethodFilter::POST,
                keys.clone(),
                Replay::Own,
                key::create,
            )),
        ),
        (
            "/api-keys/{key_id}",
            on(MethodFilter::DELETE, keys.clone(), Replay::Own, key::revoke),
        ),
        (
            "/api-keys/{key_id}/rotate",
            on(MethodFilter::POST, keys, Replay::Own, key::rotate),
        ),
        (
            "/admin/backup",
            on(
                MethodFilter::POST,
                Scope::Admin,
                Replay::Own,
                backup::create,
            ),
        ),
        ("/admin/vault", get(Scope::Admin, vault::read)),
        (
            "/admin/vault/rotate",
            on(MethodFilter::POST, Scope::Admin, Replay::Own, vault::rotate),
        ),
        ("/capacity", get(Scope::Read, capacity::read)),
        ("/audit", scan(Scope::AuditRead, audit::list)),
        ("/background-task", get(Scope::MessageRead, task::list)),
        (
            "/background-task/{task_id}",
            get(Scope::MessageRead, task::read),
        ),
        (
            "/background-task/{task_id}/cancel",
            on(
                MethodFilter::POST,
                Scope::MessageWrite,
                Replay::Stored,
                task::cancel,
            ),
        ),
        ("/health", axum::routing::get(instance::sdk_health)),
        ("/openapi.json", axum::routing::get(openapi::read)),
    ]
}

/// Who calls, portal tokens, statistics, imports, transformations.
fn sessions() -> Vec<(&'static str, Route)> {
    let post = MethodFilter::POST;
    vec![
        (
            "/app/{app_id}/endpoint/{endpoint_id}/transformation",
            get(Scope::WebhooksRead, endpoint::transformation::read)
                .merge(edit(MethodFilter::PATCH, endpoint::transformation::patch)),
        ),
        ("/auth/whoami", get(None, session::whoami)),
        ("/auth/logout", on(post, None, Replay::Own, session::logout)),
        // The answer holds a token: it is not stored.
        (
            "/auth/app-portal-access/{app_id}",
            on(post, Scope::WebhooksWrite, Replay::Own, session::portal),
        ),
        (
            "/auth/app/{app_id}/expire-all",
            change(post, session::expire_all),
        ),
        ("/event-type/import/openapi", change(post, import::openapi)),
        (
            "/event-type/import/catalogue",
            change(post, import::catalogue),
        ),
        (
            "/event-type/{event_type_name}/sample",
            scan(Scope::WebhooksRead, sample::read),
        ),
        (
            "/stats/usage/app",
            on(post, Scope::MessageRead, Replay::Stored, stats::usage),
        ),
        (
            "/stats/usage/event-types",
            on(
                MethodFilter::PUT,
                Scope::MessageRead,
                Replay::Own,
                stats::event_types,
            ),
        ),
    ]
}

/// The routes of the product's origin (`api.md` 7).
fn tenants() -> Vec<(&'static str, Route)> {
    let (read, write) = (Scope::WebhooksRead, Scope::WebhooksWrite);
    // Their answers may hold a secret: they are not stored.
    let own = Replay::Own;
    let (post, put) = (MethodFilter::POST, MethodFilter::PUT);
    let delete = MethodFilter::DELETE;
    use tenant::{crm, webhooks};
    vec![
        (
            "/webhooks",
            scan(read.clone(), webhooks::list).merge(on(
                post,
                write.clone(),
                own,
                webhooks::create,
            )),
        ),
        (
            "/webhooks/{id}",
            scan(read.clone(), webhooks::read)
                .merge(on(put, write.clone(), own, webhooks::put))
                .merge(on(delete, write.clone(), own, webhooks::delete)),
        ),
        (
            "/webhooks/{id}/test",
            on(post, write.clone(), Replay::Stored, webhooks::try_out),
        ),
        (
            "/webhooks/{id}/events",
            scan(read.clone(), webhooks::list_events),
        ),
        (
            "/crm/webhook",
            scan(read, crm::read)
                .merge(on(post, write.clone(), own, crm::set))
                .merge(on(delete, write.clone(), own, crm::delete)),
        ),
        (
            "/crm/webhook/test",
            on(post, write, Replay::Stored, crm::try_out),
        ),
    ]
}

/// Every path below `/api/v1`, those that are described and not built included.
pub(super) fn paths() -> Vec<&'static str> {
    groups()
        .into_iter()
        .flatten()
        .map(|(path, _)| path)
        .collect()
}

/// Described, not built.
fn later() -> Vec<(&'static str, Route)> {
    [
        "/app/{app_id}/integration",
        "/config",
        "/diagnosis",
        "/provider",
    ]
    .map(|path| (path, any(not_built)))
    .into()
}

async fn not_built(State(state): State<Arc<ApiState>>, request: Request) -> Response {
    let problem = Problem::new(Code::NotImplemented, "This route is not built yet.");
    leave(&state, Err(problem), request.uri().path())
}

async fn no_route(State(state): State<Arc<ApiState>>, request: Request) -> Response {
    let problem = Problem::new(Code::NotFound, "There is no such path.");
    leave(&state, Err(problem), request.uri().path())
}

async fn no_method(State(state): State<Arc<ApiState>>, request: Request) -> Response {
    let detail = format!("{} is not allowed here.", request.method());
    let problem = Problem::new(Code::MethodNotAllowed, detail);
    leave(&state, Err(problem), request.uri().path())
}
