// A tour over the management API with the official Svix client for JavaScript, unmodified.
//
// Arguments: the gateway's address, an instance key. Prints the name of each operation that answered as
// the client expects; the last line is `done N`. Any difference is an exception and exit code 1.

import assert from "node:assert/strict";
import http from "node:http";

import { ApiException, Svix, Webhook } from "svix";

const [address, token] = process.argv.slice(2);
const client = new Svix(token, { serverUrl: address });
let seen = 0;

async function step(name, call) {
  try {
    await call();
  } catch (error) {
    console.error(`${name}: ${error.stack} ${JSON.stringify(error.body ?? null)}`);
    process.exit(1);
  }
  seen += 1;
  console.log(name);
}

async function fails(status, code, call) {
  await assert.rejects(call, (error) => {
    assert.ok(error instanceof ApiException, String(error));
    assert.equal(error.code, status, JSON.stringify(error.body));
    assert.equal(error.body.code, code);
    return true;
  });
}

async function invalid(place, kind, call) {
  await assert.rejects(call, (error) => {
    assert.equal(error.code, 422, JSON.stringify(error.body));
    const found = error.body.detail.some((item) => item.loc.join(".") === place && item.type === kind);
    assert.ok(found, JSON.stringify(error.body.detail));
    return true;
  });
}

async function eventually(what, look) {
  const end = Date.now() + 20_000;
  while (Date.now() < end) {
    const found = await look();
    if (found) return found;
    await new Promise((done) => setTimeout(done, 50));
  }
  throw new Error(`timed out: ${what}`);
}

async function pages(list) {
  const found = [];
  for (let iterator = null; ; ) {
    const page = await list(iterator);
    found.push(...page.data.map((one) => one.id));
    if (page.done) return found;
    iterator = page.iterator;
  }
}

const received = [];
const server = http.createServer((request, response) => {
  const parts = [];
  request.on("data", (part) => parts.push(part));
  request.on("end", () => {
    received.push({ headers: request.headers, body: Buffer.concat(parts) });
    response.end("taken");
  });
});
await new Promise((ready) => server.listen(0, "127.0.0.1", ready));
const hook = `http://127.0.0.1:${server.address().port}/hook`;
const since = new Date(Date.now() - 3_600_000);
const app = "js-tour";
const kind = "tour.started";

await step("health.get", () => client.health.get());
await step("application.create", async () => {
  const made = await client.application.create({ name: "Tour", uid: app, metadata: { a: "b" } });
  assert.match(made.id, /^app_[A-Za-z0-9]{27}$/);
  await fails(409, "conflict", () => client.application.create({ name: "x", uid: app }));
  await invalid("body.name", "limit", () => client.application.create({ name: "" }));
});
await step("application.getOrCreate", () => client.application.getOrCreate({ name: "x", uid: app }));
await step("application.get", async () => {
  assert.equal((await client.application.get(app)).uid, app);
  await fails(404, "not_found", () => client.application.get("nobody"));
});
await step("application.upsert", () => client.application.upsert(app, { name: "Renamed" }));
await step("application.patch", async () => {
  const patched = await client.application.patch(app, { throttleRate: 1000 });
  assert.equal(patched.throttleRate, 1000);
});
await step("application.list", async () => {
  const made = [];
  for (let n = 0; n < 5; n += 1) made.push((await client.application.create({ name: `n${n}` })).id);
  const listed = await pages((iterator) => client.application.list({ limit: 2, iterator }));
  assert.ok(made.every((id) => listed.includes(id)));
  assert.equal(new Set(listed).size, listed.length);
  for (const id of made) await client.application.delete(id);
});
await step("eventType", async () => {
  const schemas = { 1: { type: "object", properties: { n: { type: "integer" } } } };
  await client.eventType.create({ name: kind, description: "A tour", schemas });
  await fails(409, "event_type_exists", () => client.eventType.create({ name: kind, description: "" }));
  assert.equal((await client.eventType.get(kind)).name, kind);
  await client.eventType.upsert(kind, { description: "B", schemas });
  await client.eventType.patch(kind, { deprecated: false });
  assert.ok((await client.eventType.list({ limit: 250 })).data.some((one) => one.name === kind));
  const spec = { webhooks: { "tour.ended": { post: { description: "Over" } } } };
  const imported = await client.eventType.importOpenapi({ spec });
  assert.deepEqual(imported.data.modified, ["tour.ended"]);
  await client.eventType.delete("tour.ended", { expunge: true });
});
let secret;
let old;
await step("endpoint", async () => {
  const made = await client.endpoint.create(app, { url: hook, uid: "main", eventTypes: [kind] });
  assert.match(made.id, /^ep_[A-Za-z0-9]{27}$/);
  assert.equal((await client.endpoint.get(app, "main")).id, made.id);
  await client.endpoint.upsert(app, "main", { url: hook, uid: "main", eventTypes: [kind] });
  assert.equal((await client.endpoint.patch(app, "main", { description: "e" })).description, "e");
  assert.equal((await client.endpoint.list(app, { limit: 1 })).data.length, 1);
  await client.endpoint.setHeaders(app, "main", { headers: { "x-tour": "1", "x-more": "2" } });
  await client.endpoint.patchHeaders(app, "main", { headers: { "x-tour": "3" }, deleteHeaders: ["x-more"] });
  assert.deepEqual((await client.endpoint.getHeaders(app, "main")).headers, { "x-tour": "3" });
  old = (await client.endpoint.getSecret(app, "main")).key;
  await client.endpoint.rotateSecret(app, "main", { gracePeriodSeconds: 60 });
  secret = (await client.endpoint.getSecret(app, "main")).key;
  assert.notEqual(secret, old);
  await fails(404, "not_found", () => client.endpoint.get(app, "none"));
});
await step("endpoint.transformation", async () => {
  assert.equal((await client.endpoint.transformation.get(app, "main")).enabled, false);
  const code = "function handler() { return 1; }";
  await invalid("body.code", "unsupported_field", () => client.endpoint.transformation.patch(app, "main", { code }));
});
let first;
await step("message.create", async () => {
  const wanted = { eventType: kind, payload: { n: 1 }, eventId: "e-1", tags: ["t"], payloadRetentionPeriod: 90 };
  first = await client.message.create(app, wanted, { withContent: true });
  assert.deepEqual(first.payload, { n: 1 });
  await fails(409, "conflict", () => client.message.create(app, wanted));
  await invalid("body.eventType", "value_error", () => client.message.create(app, { eventType: "a b", payload: {} }));
});
await step("Webhook.verify", async () => {
  const { headers, body } = (await eventually("a delivery", () => received.length && received))[0];
  for (const key of [secret, old]) new Webhook(key).verify(body, headers);
  assert.throws(() => new Webhook(secret).verify(`${body} `, headers));
});
await step("idempotent retry", async () => {
  const send = (n) => client.message.create(app, { eventType: kind, payload: { n } }, { idempotencyKey: "tour" });
  assert.equal((await send(2)).id, (await send(2)).id);
  await invalid("header.idempotency-key", "idempotency_mismatch", () => send(3));
});
await step("message.get", async () => {
  assert.deepEqual((await client.message.get(app, first.id)).payload, {});
  assert.deepEqual((await client.message.get(app, "e-1", { withContent: true })).payload, { n: 1 });
});
await step("message.list", async () => {
  for (let n = 0; n < 5; n += 1) await client.message.create(app, { eventType: kind, payload: { n } });
  assert.equal((await pages((iterator) => client.message.list(app, { limit: 3, iterator }))).length, 7);
  const after = await pages((iterator) => client.message.list(app, { limit: 3, after: since, iterator }));
  assert.equal(new Set(after).size, 7);
});
await step("message.precheck", async () => {
  assert.equal((await client.message.precheck(app, { eventType: kind })).active, true);
});
await step("messageAttempt", async () => {
  const options = { withMsg: true, withContent: true };
  const list = await eventually("7 attempts", async () => {
    const page = await client.messageAttempt.listByEndpoint(app, "main", options);
    return page.data.length === 7 && page;
  });
  assert.equal(list.data[0].response, "taken");
  const [attempt] = (await client.messageAttempt.listByMsg(app, first.id)).data;
  assert.equal((await client.messageAttempt.get(app, first.id, attempt.id)).id, attempt.id);
  assert.equal((await client.messageAttempt.listAttemptedMessages(app, "main", { limit: 2 })).data.length, 2);
  assert.equal((await client.messageAttempt.listAttemptedDestinations(app, first.id)).data.length, 1);
  const before = received.length;
  await client.messageAttempt.resend(app, first.id, "main");
  await eventually("the resend", () => received.length > before);
  await client.messageAttempt.expungeContent(app, first.id, attempt.id);
});
await step("message.expungeContent", async () => {
  await client.message.expungeContent(app, first.id);
  await fails(400, "missing_payload", () => client.messageAttempt.resend(app, first.id, "main"));
});
const task = (begun) =>
  eventually(begun.task, async () => (await client.backgroundTask.get(begun.id)).status !== "running");
await step("endpoint.sendExample", () => client.endpoint.sendExample(app, "main", { eventType: kind }));
await step("endpoint.getStats", async () => {
  await eventually("the figures", async () => (await client.endpoint.getStats(app, "main")).success >= 7);
});
await step("endpoint.recover", async () => task(await client.endpoint.recover(app, "main", { since })));
await step("endpoint.replayMissing", async () => task(await client.endpoint.replayMissing(app, "main", { since })));
await step("endpoint.bulkReplay", async () => task(await client.endpoint.bulkReplay(app, "main", { since })));
await step("statistics.aggregateAppStats", async () => {
  const begun = await client.statistics.aggregateAppStats({ since, until: new Date(), appIds: [app, "none"] });
  assert.deepEqual(begun.unresolvedAppIds, ["none"]);
  await task(begun);
});
await step("statistics.aggregateEventTypes", async () => task(await client.statistics.aggregateEventTypes()));
await step("backgroundTask.list", async () => {
  assert.ok((await client.backgroundTask.list()).data.length >= 5);
});
await step("message.expungeAllContents", async () => task(await client.message.expungeAllContents(app)));
await step("authentication", async () => {
  const portal = await client.authentication.appPortalAccess(app, {});
  const guest = new Svix(portal.token, { serverUrl: address });
  assert.equal((await guest.application.list()).data.length, 1);
  await fails(403, "insufficient access", () => guest.application.delete(app));
  await guest.authentication.logout();
  await fails(401, "authentication_failed", () => guest.application.list());
  await client.authentication.expireAll(app, {});
});
await step("endpoint.delete", async () => {
  await client.endpoint.delete(app, "main");
  await fails(404, "not_found", () => client.endpoint.get(app, "main"));
});
await step("application.delete", () => client.application.delete(app));
console.log(`done ${seen}`);
server.closeAllConnections();
server.close();
