// Drives the portal page with jsdom against a running gateway, as a tenant would: the page, its script and
// its stylesheet come from the gateway, and every call the script makes goes there.
//
// Arguments: the gateway's address, and as JSON the links `full`, `reading`, `ended` and what stands behind
// them (see tests/it/portal.rs). Prints the name of each step; the last line is `done N`. Any difference is an
// exception and exit code 1.

import assert from "node:assert/strict";

import { JSDOM, VirtualConsole } from "jsdom";

const [address, given] = process.argv.slice(2);
const world = JSON.parse(given);
const calls = [];
let seen = 0;

async function step(name, act) {
  try {
    await act();
  } catch (error) {
    console.error(`${name}: ${error.stack}`);
    process.exit(1);
  }
  seen += 1;
  console.log(name);
}

async function eventually(what, look) {
  const end = Date.now() + 20_000;
  while (Date.now() < end) {
    const found = look();
    if (found) return found;
    await new Promise((done) => setTimeout(done, 20));
  }
  throw new Error(`timed out: ${what}`);
}

// A tab. `kept` is what its storage holds from before.
async function open(url, kept = {}) {
  const problems = [];
  const virtualConsole = new VirtualConsole();
  virtualConsole.on("jsdomError", (error) => problems.push(error));
  virtualConsole.on("error", (error) => problems.push(error));
  const dom = await JSDOM.fromURL(url, {
    runScripts: "dangerously",
    resources: "usable",
    virtualConsole,
    beforeParse(window) {
      for (const [name, value] of Object.entries(kept)) window.sessionStorage.setItem(name, value);
      // jsdom has no fetch of its own.
      window.fetch = (path, init) => {
        const target = new URL(path, window.document.baseURI);
        calls.push(target.href);
        return fetch(target, init);
      };
    },
  });
  const { document } = dom.window;
  const main = document.getElementById("main");
  const tab = {
    window: dom.window,
    document,
    text: () => main.textContent,
    all: (selector) => [...document.querySelectorAll(selector)],
    find: (selector) => document.querySelector(selector),
    button: (name) => tab.all("button").find((one) => one.textContent === name),
    buttons: () => tab.all("main button").map((one) => one.textContent),
    said: () => document.getElementById("notice").textContent,
    sees: (text) => eventually(`"${text}" in: ${main.textContent}`, () => main.textContent.includes(text)),
    hears: (text) => eventually(`"${text}" is said`, () => tab.said().includes(text)),
    press: async (name) => (await eventually(`a button ${name}`, () => tab.button(name))).click(),
    rows: () => tab.all("#attempts tbody tr").map((row) => row.textContent),
    form: () => eventually("the form", () => tab.find("form.edit")),
    fill: (selector, value) => {
      const field = document.querySelector(selector);
      field.value = value;
    },
    // A page that an exception stopped must not pass for one that has nothing to show.
    close: () => {
      assert.deepEqual(problems, []);
      dom.window.close();
    },
  };
  return tab;
}

const tokenOf = (link) => link.split("#key=")[1];
let tab;

await step("the link opens the list, and the token leaves the address bar", async () => {
  assert.ok(world.full.startsWith(`${address}/portal#key=pt_`), world.full);
  tab = await open(world.full);
  await tab.sees(world.first.url);
  assert.equal(tab.window.location.href, `${address}/portal`);
  assert.equal(tab.window.sessionStorage.getItem("posthaste.portal"), tokenOf(world.full));
  assert.equal(tab.all("main tbody tr").length, 1);
  const row = tab.find(`tr[data-id="${world.first.id}"]`).textContent;
  assert.match(row, /all events/);
  assert.match(row, /on$/);
  assert.ok(tab.all("link[rel=stylesheet]")[0].sheet.cssRules.length > 20, "the stylesheet was loaded");
});

await step("what strangers wrote is text", async () => {
  assert.match(tab.text(), /<img src=x onerror=alert\(1\)>/);
  assert.equal(tab.all("main img, main b, main script").length, 0);
});

await step("an endpoint is added, after a mistake that is shown at the form", async () => {
  tab.find("#add").click();
  await tab.form();
  tab.fill("input[name=url]", "ftp://tenant.example/hook");
  await tab.press("Add");
  await eventually("the mistake", () => tab.find(".errors li")?.textContent.startsWith("url: "));
  tab.fill("input[name=url]", world.second);
  tab.fill("input[name=description]", "second");
  await tab.press("order.paid");
  await tab.press("order.paid");
  assert.equal(tab.find("textarea").value, "order.paid", "twice is once");
  await tab.press("Add");
  await tab.hears("The endpoint was added.");
  await tab.sees("Attempts");
  assert.equal(tab.find("h2").textContent, world.second);
  assert.match(tab.find("dl").textContent, /Eventsorder\.paid/);
});

await step("it is changed", async () => {
  tab.find("#edit").click();
  await tab.form();
  assert.equal(tab.find("input[name=description]").value, "second");
  tab.fill("input[name=description]", "the second one");
  tab.fill("textarea", "order.paid, order.sent");
  await tab.press("Save");
  await tab.hears("The endpoint was changed.");
  await tab.sees("the second one");
  assert.match(tab.find("dl").textContent, /order\.paid, order\.sent/);
});

await step("its secret is shown and changed", async () => {
  await tab.press("Show the secret");
  const old = await eventually("the secret", () => tab.find("#secret").textContent);
  assert.match(old, /^whsec_/);
  await tab.press("Change the secret");
  await tab.press("Keep it");
  assert.equal(tab.button("Make a new secret"), undefined);
  await tab.press("Change the secret");
  await tab.press("Make a new secret");
  await tab.hears("There is a new secret");
  const fresh = tab.find("#secret").textContent;
  assert.match(fresh, /^whsec_/);
  assert.notEqual(fresh, old);
});

await step("it is switched off, and on, and off", async () => {
  for (const [press, state] of [["Switch off", "off"], ["Switch on", "on"], ["Switch off", "off"]]) {
    await tab.press(press);
    await tab.hears(state === "on" ? "The endpoint is on." : "The endpoint is off");
    await eventually(state, () => tab.find("dd")?.textContent === state);
  }
});

await step("another one is added and deleted", async () => {
  tab.window.location.hash = "#/new";
  await tab.form();
  tab.fill("input[name=url]", world.third);
  await tab.press("Add");
  await tab.hears("The endpoint was added.");
  await tab.press("Delete");
  await tab.press("Delete it for good");
  await tab.hears("The endpoint was deleted.");
  await eventually("the list", () => tab.all("main tbody tr").length === 2);
  assert.ok(!tab.text().includes(world.third));
});

await step("attempts are listed and filtered", async () => {
  tab.find(`tr[data-id="${world.first.id}"] a`).click();
  await eventually("two attempts", () => tab.rows().length === 2);
  const filter = async (selector, value, count) => {
    tab.fill(selector, value);
    await tab.press("Show");
    await eventually(`${selector} ${value}: ${tab.rows()}`, () => tab.rows().length === count);
  };
  await filter("select[name=status]", "2", 1);
  assert.match(tab.rows()[0], /order\.sent.*failed, 500/);
  await filter("select[name=class]", "200", 0);
  await filter("select[name=status]", "", 1);
  assert.match(tab.rows()[0], /order\.paid.*delivered, 200/);
  await filter("select[name=class]", "", 2);
  await filter("input[name=type]", "order.sent", 1);
  await filter("input[name=type]", "", 2);
  await filter("input[name=before]", "2020-01-01T00:00", 0);
  assert.match(tab.text(), /There is no such attempt/);
  await filter("input[name=before]", "", 2);
  await filter("input[name=after]", "2020-01-01T00:00", 2);
});

await step("a message is shown with all its digits, and what was answered", async () => {
  const row = tab.all("#attempts tbody tr").find((one) => one.textContent.includes("order.paid"));
  row.querySelector("a").click();
  await tab.sees("Payload");
  const payload = tab.find("#payload").textContent;
  assert.equal(payload, world.shown);
  assert.match(tab.text(), /<b>thanks<\/b>/);
  assert.equal(tab.all("main b").length, 0);
});

await step("it is sent again", async () => {
  await tab.press("Send again");
  await tab.hears("It is sent again");
  await eventually("the second attempt", () => tab.all("main ol li").length === 2);
  assert.deepEqual(tab.buttons(), ["Send again"]);
});

await step("the failed one is sent again from the list", async () => {
  tab.all("main a").find((one) => one.textContent === "Back to the endpoint").click();
  await eventually("three attempts", () => tab.rows().length === 3);
  const row = tab.all("#attempts tbody tr").find((one) => one.textContent.includes("failed"));
  row.querySelector("button").click();
  await eventually("by hand", () => tab.rows().filter((text) => text.includes("by hand")).length === 2);
});

await step("an example is sent", async () => {
  tab.fill("#example select", "order.paid");
  await tab.press("Send an example");
  await tab.hears("An example was sent");
  await eventually("its attempt", () => tab.rows().length === 5);
});

await step("a tab that is loaded again goes on with what it kept", async () => {
  const again = await open(`${address}/portal`, { "posthaste.portal": tokenOf(world.full) });
  await again.sees(world.first.url);
  again.close();
});

await step("who may only read is offered nothing else, and the API refuses it", async () => {
  const reader = await open(world.reading);
  await reader.sees(world.first.url);
  assert.equal(reader.find("#add"), null);
  assert.deepEqual(reader.buttons(), []);
  reader.find(`tr[data-id="${world.first.id}"] a`).click();
  await eventually("the attempts", () => reader.rows().length === 5);
  assert.deepEqual(reader.buttons(), ["Show"]);
  assert.equal(reader.find("#edit"), null);
  // By hand, past what is offered.
  reader.window.location.hash = "#/new";
  await reader.form();
  reader.fill("input[name=url]", world.third);
  await reader.press("Add");
  await reader.hears("lacks the scope endpoints:write");
  reader.close();
});

await step("a link that has ended says so, and is forgotten", async () => {
  const late = await open(world.ended);
  await late.sees("This link has ended");
  await late.sees("Ask for a new one");
  assert.equal(late.window.sessionStorage.length, 0);
  assert.equal(late.document.getElementById("leave").hidden, true);
  late.close();
});

await step("without a link the page says what it wants", async () => {
  for (const url of [`${address}/portal`, `${address}/portal#key=`, `${address}/portal#/new`]) {
    const bare = await open(url);
    await bare.sees("Open your link");
    bare.close();
  }
});

await step("who signs out ends the link, also where it is open", async () => {
  const other = await open(world.full);
  await other.sees(world.first.url);
  tab.document.getElementById("leave").click();
  await tab.sees("You are signed out");
  assert.equal(tab.window.sessionStorage.length, 0);
  other.find(`tr[data-id="${world.first.id}"] a`).click();
  await other.sees("This link has ended");
  other.close();
  tab.close();
});

await step("no token was in a URL", async () => {
  assert.ok(calls.length > 40, `${calls.length} calls`);
  for (const url of calls) {
    assert.ok(!url.includes("pt_") && url.startsWith(`${address}/api/v1/`), url);
  }
});

console.log(`done ${seen}`);
