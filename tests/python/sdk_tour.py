"""A tour over the management API with the official Svix client for Python, unmodified.

Arguments: the gateway's address, an instance key. Prints the name of each operation that answered as
the client expects; the last line is `done N`. Any difference is an exception and exit code 1.
"""

import http.server
import sys
import threading
import time
from datetime import datetime, timedelta, timezone

from svix.api import (
    ApplicationListOptions,
    ApplicationCreateOptions,
    EndpointListOptions,
    EventTypeDeleteOptions,
    EventTypeListOptions,
    MessageAttemptListAttemptedMessagesOptions,
    MessageAttemptListByEndpointOptions,
    MessageAttemptListByMsgOptions,
    MessageCreateOptions,
    MessageGetOptions,
    MessageListOptions,
    Svix,
    SvixOptions,
)
from svix.exceptions import HTTPValidationError, HttpError
from svix.models import (
    AppPortalAccessIn,
    ApplicationIn,
    ApplicationPatch,
    ApplicationTokenExpireIn,
    AppUsageStatsIn,
    BulkReplayIn,
    EndpointHeadersIn,
    EndpointHeadersPatchIn,
    EndpointIn,
    EndpointPatch,
    EndpointSecretRotateIn,
    EndpointTransformationPatch,
    EndpointUpsertIn,
    EventExampleIn,
    EventTypeImportOpenApiIn,
    EventTypeIn,
    EventTypePatch,
    EventTypeUpsertIn,
    MessageIn,
    MessagePrecheckIn,
    RecoverIn,
    ReplayIn,
)
from svix.webhooks import Webhook, WebhookVerificationError

address, token = sys.argv[1:]
client = Svix(token, SvixOptions(server_url=address))
seen = []


def note(name):
    seen.append(name)
    print(name, flush=True)


def fails(status, code, call):
    try:
        call()
    except HttpError as error:
        assert (error.status_code, error.code) == (status, code), error
        assert isinstance(error.detail, str) and error.detail, error
        return
    raise AssertionError(f"no error {status} {code}")


def invalid(place, kind, call):
    try:
        call()
    except HTTPValidationError as error:
        assert any(list(i.loc) == place and i.type == kind for i in error.detail), error.detail
        return
    raise AssertionError(f"{place} was taken")


def wait(what, look):
    end = time.monotonic() + 20
    while time.monotonic() < end:
        found = look()
        if found:
            return found
        time.sleep(0.05)
    raise AssertionError(f"timed out: {what}")


class Receiver(http.server.BaseHTTPRequestHandler):
    received = []

    def do_POST(self):
        body = self.rfile.read(int(self.headers["content-length"]))
        Receiver.received.append((dict(self.headers), body))
        self.send_response(500 if b"fail" in body else 200)
        self.send_header("content-length", "5")
        self.end_headers()
        self.wfile.write(b"taken")

    def log_message(self, *_):
        pass


server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Receiver)
threading.Thread(target=server.serve_forever, daemon=True).start()
hook = f"http://127.0.0.1:{server.server_port}/hook"
since = datetime.now(timezone.utc) - timedelta(hours=1)

client.health.get()
note("health.get")

# Applications
app = client.application.create(ApplicationIn(name="Tour", uid="py-tour", metadata={"a": "b"}))
assert app.id.startswith("app_") and len(app.id) == 31 and app.metadata == {"a": "b"}
note("application.create")
fails(409, "conflict", lambda: client.application.create(ApplicationIn(name="x", uid="py-tour")))
assert client.application.get_or_create(ApplicationIn(name="x", uid="py-tour")).id == app.id
note("application.get_or_create")
assert client.application.get("py-tour").id == app.id
fails(404, "not_found", lambda: client.application.get("nobody"))
note("application.get")
assert client.application.upsert("py-tour", ApplicationIn(name="Renamed")).name == "Renamed"
note("application.upsert")
assert client.application.patch(app.id, ApplicationPatch(metadata={"c": "d"})).metadata == {"c": "d"}
note("application.patch")
made = [client.application.create(ApplicationIn(name=f"n{n}")) for n in range(5)]
listed, iterator = [], None
while True:
    page = client.application.list(ApplicationListOptions(limit=2, iterator=iterator))
    listed += [one.id for one in page.data]
    if page.done:
        break
    iterator = page.iterator
assert set(listed) >= {one.id for one in made} and len(listed) == len(set(listed))
back = client.application.list(ApplicationListOptions(limit=250, iterator=page.prev_iterator))
assert [one.id for one in back.data] == listed[: len(listed) - len(page.data)]
note("application.list")
for one in made:
    assert client.application.delete(one.id) is None
note("application.delete")
invalid(["body", "name"], "limit", lambda: client.application.create(ApplicationIn(name="")))

# Event types
kind = "tour.started"
schema = {"1": {"type": "object", "properties": {"n": {"type": "integer"}}}}
client.event_type.create(EventTypeIn(name=kind, description="A tour", schemas=schema))
fails(409, "event_type_exists", lambda: client.event_type.create(EventTypeIn(name=kind, description="")))
note("event_type.create")
assert client.event_type.get(kind).schemas == schema
note("event_type.get")
assert client.event_type.upsert(kind, EventTypeUpsertIn(description="B", schemas=schema)).description == "B"
note("event_type.upsert")
assert client.event_type.patch(kind, EventTypePatch(deprecated=False)).description == "B"
note("event_type.patch")
assert kind in [one.name for one in client.event_type.list(EventTypeListOptions(limit=250)).data]
note("event_type.list")
spec = {"webhooks": {"tour.ended": {"post": {"description": "Over"}}}}
found = client.event_type.import_openapi(EventTypeImportOpenApiIn(spec=spec))
assert found.data.modified == ["tour.ended"], found
note("event_type.import_openapi")
client.event_type.delete("tour.ended", EventTypeDeleteOptions(expunge=True))
note("event_type.delete")

# Endpoints
endpoint = client.endpoint.create("py-tour", EndpointIn(url=hook, uid="main", event_types=[kind], description="d"))
assert endpoint.id.startswith("ep_") and endpoint.event_types == [kind]
note("endpoint.create")
assert client.endpoint.get("py-tour", "main").id == endpoint.id
note("endpoint.get")
changed = client.endpoint.upsert("py-tour", "main", EndpointUpsertIn(url=hook, event_types=[kind], uid="main"))
assert changed.id == endpoint.id and changed.description == ""
note("endpoint.upsert")
assert client.endpoint.patch("py-tour", "main", EndpointPatch(description="e")).description == "e"
note("endpoint.patch")
assert [one.id for one in client.endpoint.list("py-tour", EndpointListOptions(limit=1)).data] == [endpoint.id]
note("endpoint.list")
client.endpoint.set_headers("py-tour", "main", EndpointHeadersIn(headers={"x-tour": "1", "x-more": "2"}))
note("endpoint.set_headers")
client.endpoint.patch_headers("py-tour", "main", EndpointHeadersPatchIn(headers={"x-tour": "3"}, delete_headers=["x-more"]))
note("endpoint.patch_headers")
assert client.endpoint.get_headers("py-tour", "main").headers == {"x-tour": "3"}
note("endpoint.get_headers")
old = client.endpoint.get_secret("py-tour", "main").key
note("endpoint.get_secret")
client.endpoint.rotate_secret("py-tour", "main", EndpointSecretRotateIn(grace_period_seconds=60))
secret = client.endpoint.get_secret("py-tour", "main").key
assert secret != old
note("endpoint.rotate_secret")
assert client.endpoint.transformation.get("py-tour", "main").enabled is False
note("endpoint.transformation.get")
client.endpoint.transformation.patch("py-tour", "main", EndpointTransformationPatch(enabled=False))
invalid(
    ["body", "code"],
    "unsupported_field",
    lambda: client.endpoint.transformation.patch("py-tour", "main", EndpointTransformationPatch(code="function handler() {}")),
)
note("endpoint.transformation.patch")

# Messages, a real delivery and its signature
content = MessageCreateOptions(with_content=True)
first = client.message.create("py-tour", MessageIn(event_type=kind, payload={"n": 1}, event_id="e-1", tags=["t"], payload_retention_period=90), content)
assert first.payload == {"n": 1} and len(first.id) == 31
fails(409, "conflict", lambda: client.message.create("py-tour", MessageIn(event_type=kind, payload={}, event_id="e-1")))
invalid(["body", "eventType"], "value_error", lambda: client.message.create("py-tour", MessageIn(event_type="a b", payload={})))
note("message.create")
headers, body = wait("a delivery", lambda: Receiver.received)[0]
assert body == b'{"n": 1}' or body == b'{"n":1}', body
for key in (secret, old):
    assert Webhook(key).verify(body, {k.lower(): v for k, v in headers.items()}) is None
try:
    Webhook(secret).verify(body + b" ", {k.lower(): v for k, v in headers.items()})
    raise AssertionError("a changed body verifies")
except WebhookVerificationError:
    note("Webhook.verify")
again = MessageCreateOptions(idempotency_key="tour-1")
twice = [client.message.create("py-tour", MessageIn(event_type=kind, payload={"n": 2}), again).id for _ in range(2)]
assert twice[0] == twice[1], "the same request again is the same message"
invalid(
    ["header", "idempotency-key"],
    "idempotency_mismatch",
    lambda: client.message.create("py-tour", MessageIn(event_type=kind, payload={"n": 3}), again),
)
note("idempotent retry")
assert client.message.get("py-tour", first.id).payload == {}, "silent clients see no payload"
assert client.message.get("py-tour", "e-1", MessageGetOptions(with_content=True)).payload == {"n": 1}
note("message.get")
for n in range(5):
    client.message.create("py-tour", MessageIn(event_type=kind, payload={"n": n}))
listed, iterator = [], None
while True:
    page = client.message.list("py-tour", MessageListOptions(limit=3, iterator=iterator))
    listed += [one.id for one in page.data]
    if page.done:
        break
    iterator = page.iterator
assert len(listed) == 7 and listed == sorted(listed, reverse=True), listed
listed, iterator = [], None
while True:
    page = client.message.list("py-tour", MessageListOptions(limit=3, after=since, iterator=iterator))
    listed += [one.id for one in page.data]
    if page.done:
        break
    iterator = page.iterator
assert len(listed) == 7 == len(set(listed)), "with `after` too"
assert [one.id for one in client.message.list("py-tour", MessageListOptions(tag="t")).data] == [first.id]
note("message.list")
assert client.message.precheck("py-tour", MessagePrecheckIn(event_type=kind)).active is True
note("message.precheck")

# Attempts
wait("7 deliveries", lambda: len(Receiver.received) >= 7)
by_endpoint = wait(
    "7 attempts",
    lambda: (lambda page: page if len(page.data) == 7 else None)(
        client.message_attempt.list_by_endpoint("py-tour", "main", MessageAttemptListByEndpointOptions(with_msg=True, with_content=True))
    ),
)
assert by_endpoint.data[0].response == "taken" and by_endpoint.data[0].msg is not None
note("message_attempt.list_by_endpoint")
attempts = client.message_attempt.list_by_msg("py-tour", first.id, MessageAttemptListByMsgOptions(limit=1))
attempt = attempts.data[0]
assert attempt.response == "{}" and attempt.response_status_code == 200 and attempt.status == 0
note("message_attempt.list_by_msg")
assert client.message_attempt.get("py-tour", first.id, attempt.id).id == attempt.id
note("message_attempt.get")
options = MessageAttemptListAttemptedMessagesOptions(limit=2)
assert len(client.message_attempt.list_attempted_messages("py-tour", "main", options).data) == 2
note("message_attempt.list_attempted_messages")
destinations = client.message_attempt.list_attempted_destinations("py-tour", first.id).data
assert [one.id for one in destinations] == [endpoint.id]
note("message_attempt.list_attempted_destinations")
before = len(Receiver.received)
client.message_attempt.resend("py-tour", first.id, "main")
wait("the resend", lambda: len(Receiver.received) > before)
note("message_attempt.resend")
client.message_attempt.expunge_content("py-tour", first.id, attempt.id)
note("message_attempt.expunge_content")

# Expunge
client.message.expunge_content("py-tour", first.id)
fails(400, "missing_payload", lambda: client.message_attempt.resend("py-tour", first.id, "main"))
note("message.expunge_content")


def task(begun):
    assert begun.id.startswith("qtask_"), begun
    return wait(begun.task, lambda: client.background_task.get(begun.id).status != "running")


# Examples, recovery, statistics, tasks
example = client.endpoint.send_example("py-tour", "main", EventExampleIn(event_type=kind))
assert example.payload == {"n": 1}, example
note("endpoint.send_example")
stats = wait("the figures", lambda: (lambda s: s if s.success >= 7 else None)(client.endpoint.get_stats("py-tour", "main")))
assert stats.fail == 0
note("endpoint.get_stats")
task(client.endpoint.recover("py-tour", "main", RecoverIn(since=since)))
note("endpoint.recover")
task(client.endpoint.replay_missing("py-tour", "main", ReplayIn(since=since)))
note("endpoint.replay_missing")
task(client.endpoint.bulk_replay("py-tour", "main", BulkReplayIn(since=since)))
note("endpoint.bulk_replay")
usage = client.statistics.aggregate_app_stats(AppUsageStatsIn(since=since, until=datetime.now(timezone.utc), app_ids=["py-tour", "none"]))
assert usage.unresolved_app_ids == ["none"]
task(usage)
note("statistics.aggregate_app_stats")
task(client.statistics.aggregate_event_types())
note("statistics.aggregate_event_types")
assert len(client.background_task.list().data) >= 5
note("background_task.list")
note("background_task.get")
task(client.message.expunge_all_contents("py-tour"))
note("message.expunge_all_contents")

# Credentials
portal = client.authentication.app_portal_access("py-tour", AppPortalAccessIn(session_id="s1"))
guest = Svix(portal.token, SvixOptions(server_url=address))
assert [one.id for one in guest.application.list().data] == [app.id]
fails(403, "insufficient access", lambda: guest.application.delete("py-tour"))
note("authentication.app_portal_access")
guest.authentication.logout()
fails(401, "authentication_failed", lambda: guest.application.list())
note("authentication.logout")
client.authentication.expire_all("py-tour", ApplicationTokenExpireIn())
note("authentication.expire_all")
client.endpoint.delete("py-tour", "main")
fails(404, "not_found", lambda: client.endpoint.get("py-tour", "main"))
note("endpoint.delete")
client.application.delete("py-tour")
print(f"done {len(seen)}", flush=True)
