// The portal: what an application's own users see of their endpoints.
//
// The token comes in the fragment of the URL, which no server gets to see; it is taken out of the address
// bar at once and kept for this tab. Everything shown is text: nothing that came from elsewhere is read as
// HTML. Actions that the token lacks are not offered; that they are refused is the API's doing.
"use strict";

(() => {
  const KEEP = "posthaste.portal";
  const main = document.getElementById("main");
  const notice = document.getElementById("notice");
  const leave = document.getElementById("leave");

  let token = null;
  let app = "";
  let may = new Set();
  // Grows with every view: an answer that comes for an earlier one is dropped.
  let view = 0;

  class Refused extends Error {
    constructor(status, message, items) {
      super(message);
      this.status = status;
      this.items = items || [];
    }
  }

  // ---- the token ----

  function storage(act) {
    try {
      return act(sessionStorage);
    } catch {
      return null; // not allowed here: the token lives as long as the page
    }
  }

  function takeToken() {
    const given = /^#key=([A-Za-z0-9_-]+)$/.exec(location.hash);
    if (given) {
      token = given[1];
      storage((kept) => kept.setItem(KEEP, token));
      history.replaceState(null, "", location.pathname);
    } else {
      token = token || storage((kept) => kept.getItem(KEEP));
    }
    return token;
  }

  function forget() {
    token = null;
    storage((kept) => kept.removeItem(KEEP));
  }

  // ---- the API ----

  function unique() {
    const bytes = crypto.getRandomValues(new Uint8Array(16));
    return `portal_${Array.from(bytes, (byte) => byte.toString(16).padStart(2, "0")).join("")}`;
  }

  // The text of an answer. `key` makes a repeated POST the same one.
  async function call(method, path, body, key) {
    const headers = { authorization: `Bearer ${token}` };
    if (body !== undefined) headers["content-type"] = "application/json";
    if (method === "POST") headers["idempotency-key"] = key || unique();
    const request = { method, headers, cache: "no-store", credentials: "omit" };
    if (body !== undefined) request.body = JSON.stringify(body);
    let answer, text;
    try {
      answer = await fetch(`api/v1${path}`, request);
      text = await answer.text();
    } catch {
      throw new Refused(0, "The server cannot be reached. Try again in a moment.");
    }
    if (answer.ok) return text;
    throw refusal(answer.status, text);
  }

  function refusal(status, text) {
    let body = {};
    try {
      body = JSON.parse(text);
    } catch {
      // whatever stands in between answered
    }
    if (!Array.isArray(body.detail)) {
      return new Refused(status, body.detail || `The server answered ${status}.`);
    }
    const items = body.detail.map((item) => {
      const place = item.loc.slice(1).join(" ");
      return place ? `${place}: ${item.msg}` : item.msg;
    });
    return new Refused(status, items.join("; "), items);
  }

  const read = async (path) => JSON.parse(await call("GET", path));
  const part = encodeURIComponent;
  const own = (path) => `/app/${part(app)}${path}`;

  // ---- the page ----

  function el(name, fields, ...children) {
    const made = document.createElement(name);
    for (const [key, value] of Object.entries(fields || {})) {
      if (typeof value === "function") made.addEventListener(key, value);
      else if (value === true) made.setAttribute(key, "");
      else if (value !== false && value !== undefined && value !== null) made.setAttribute(key, value);
    }
    made.append(...children.flat(Infinity).filter((child) => child !== null && child !== undefined && child !== false));
    return made;
  }

  function tell(text, bad) {
    notice.textContent = text;
    notice.className = bad ? "bad" : "";
    notice.hidden = !text;
  }

  function show(title, ...children) {
    document.title = `${title} - Webhooks`;
    main.replaceChildren(...children.flat(Infinity).filter(Boolean));
    main.focus();
  }

  function over(title, text) {
    view += 1;
    forget();
    leave.hidden = true;
    tell("");
    show(title, el("h2", {}, title), el("p", { id: "over" }, text));
  }

  // Runs what an event or a view asks for; `button` rests meanwhile.
  async function attempt(act, button) {
    if (button) button.disabled = true;
    try {
      await act();
    } catch (error) {
      if (!(error instanceof Refused)) throw error;
      if (error.status === 401) {
        over(
          "This link has ended",
          "It has expired, or it was ended. Ask for a new one where you got it; nothing of what was set up here is lost."
        );
      } else {
        tell(error.message, true);
      }
    } finally {
      if (button) button.disabled = false;
    }
  }

  const action = (text, act, kind) =>
    el("button", { type: "button", class: kind, click: (event) => attempt(act, event.currentTarget) }, text);

  // Asks in place before it acts.
  function careful(text, question, act) {
    const holder = el("span", {});
    const rest = () =>
      holder.replaceChildren(
        el("button", { type: "button", click: () => ask() }, text)
      );
    const ask = () => {
      const yes = action(question, act, "danger");
      holder.replaceChildren(yes, " ", el("button", { type: "button", click: rest }, "Keep it"));
      yes.focus();
    };
    rest();
    return holder;
  }

  const when = (text) => el("time", { datetime: text }, new Date(text).toLocaleString());
  const types = (endpoint) => (endpoint.eventTypes || ["all events"]).join(", ");

  function state(endpoint) {
    if (endpoint.disabled) {
      const why = { gone: " (it answered 410)", failing: " (it failed for too long)" };
      return el("span", { class: "bad" }, `off${why[endpoint.disabledReason] || ""}`);
    }
    return endpoint.paused ? el("span", { class: "soft" }, "paused") : el("span", { class: "good" }, "on");
  }

  function table(heads, rows, empty) {
    if (rows.length === 0) return el("p", { class: "soft" }, empty);
    const head = el("tr", {}, heads.map((text) => el("th", { scope: "col" }, text)));
    return el("div", { class: "scroll" }, el("table", {}, el("thead", {}, head), el("tbody", {}, rows)));
  }

  // ---- JSON as it was sent: numbers keep all their digits ----

  const tokens = (json) => json.match(/"(?:[^"\\]|\\.)*"|[^\s"{}[\],:]+|[{}[\],:]/g) || [];

  function indented(all) {
    let out = "";
    let depth = 0;
    all.forEach((one, at) => {
      if (one === "{" || one === "[") {
        const empty = "}]".includes(all[at + 1]);
        out += one;
        if (!empty) out += `\n${"  ".repeat((depth += 1))}`;
      } else if (one === "}" || one === "]") {
        const empty = "{[".includes(all[at - 1]);
        if (!empty) out += `\n${"  ".repeat((depth -= 1))}`;
        out += one;
      } else if (one === ",") {
        out += `,\n${"  ".repeat(depth)}`;
      } else {
        out += one === ":" ? ": " : one;
      }
    });
    return out;
  }

  // The tokens of the payload in the text of a message.
  function payload(json) {
    const all = tokens(json);
    let depth = 0;
    for (let at = 0; at < all.length; at += 1) {
      if ("{[".includes(all[at])) depth += 1;
      else if ("}]".includes(all[at])) depth -= 1;
      else if (depth === 1 && all[at] === '"payload"' && all[at + 1] === ":") {
        let end = at + 2;
        for (let open = 0; end < all.length; end += 1) {
          if ("{[".includes(all[end])) open += 1;
          if ("}]".includes(all[end])) open -= 1;
          if (open === 0) break;
        }
        return all.slice(at + 2, end + 1);
      }
    }
    return [];
  }

  // ---- views ----

  async function endpoints() {
    const mine = view;
    const rows = [];
    const holder = el("div", {});
    let iterator = "";
    const more = async () => {
      const page = await read(own(`/endpoint?limit=50${iterator && `&iterator=${part(iterator)}`}`));
      if (mine !== view) return;
      iterator = page.iterator;
      rows.push(
        ...page.data.map((one) =>
          el(
            "tr",
            { "data-id": one.id },
            el("td", { class: "url" }, el("a", { href: `#/endpoint/${one.id}` }, one.url)),
            el("td", {}, one.description),
            el("td", {}, types(one)),
            el("td", {}, state(one))
          )
        )
      );
      holder.replaceChildren(
        table(["URL", "Description", "Events", "State"], rows, "There is no endpoint yet."),
        page.done ? "" : action("More", more)
      );
    };
    await more();
    if (mine !== view) return;
    const add = may.has("endpoints:write") && el("a", { href: "#/new", id: "add" }, "Add an endpoint");
    show("Endpoints", el("div", { class: "head" }, el("h2", {}, "Endpoints"), add || ""), holder);
  }

  async function eventTypes() {
    const page = await read("/event-type?limit=250");
    return page.data.map((one) => one.name);
  }

  async function edit(id) {
    const mine = view;
    const [known, names] = await Promise.all([id ? read(own(`/endpoint/${part(id)}`)) : {}, eventTypes()]);
    if (mine !== view) return;
    const url = el("input", { name: "url", type: "url", required: true, value: known.url || "", placeholder: "https://" });
    const description = el("input", { name: "description", maxlength: "4096", value: known.description || "" });
    const wanted = el("textarea", { name: "types", rows: "4" });
    wanted.value = (known.eventTypes || []).join("\n");
    const listed = () => wanted.value.split(/[\s,]+/).filter(Boolean);
    const chips = names.map((name) => {
      const add = () => {
        if (!listed().includes(name)) wanted.value = [...listed(), name].join("\n");
      };
      return el("button", { type: "button", click: add }, name);
    });
    const errors = el("ul", { class: "errors", hidden: true });
    const save = el("button", { class: "main" }, id ? "Save" : "Add");
    let sent = "";
    let key = unique();
    const submit = async () => {
      const body = { url: url.value.trim(), description: description.value };
      if (listed().length > 0) body.eventTypes = listed();
      else if (id) body.eventTypes = null;
      // Pressed again after an answer that was lost, it adds no second one.
      if (sent !== JSON.stringify(body)) key = unique();
      sent = JSON.stringify(body);
      try {
        const path = id ? `/endpoint/${part(id)}` : "/endpoint";
        const done = JSON.parse(await call(id ? "PATCH" : "POST", own(path), body, key));
        go(`#/endpoint/${done.id}`, id ? "The endpoint was changed." : "The endpoint was added.");
      } catch (error) {
        if (!(error instanceof Refused) || error.status !== 422) throw error;
        errors.replaceChildren(...error.items.map((text) => el("li", {}, text)));
        errors.hidden = false;
      }
    };
    const form = el(
      "form",
      {
        class: "edit",
        submit: (event) => {
          event.preventDefault();
          attempt(submit, save);
        },
      },
      el("label", {}, "URL", url),
      el("label", {}, "Description", description),
      el("label", {}, "Events, one in a line; none = all", wanted),
      chips.length > 0 && el("p", { class: "chips row" }, chips),
      errors,
      el("p", { class: "row" }, save, el("a", { href: id ? `#/endpoint/${id}` : "#/" }, "Cancel"))
    );
    const title = id ? "Change the endpoint" : "Add an endpoint";
    show(title, el("h2", {}, title), form);
  }

  async function endpoint(id) {
    const mine = view;
    const path = own(`/endpoint/${part(id)}`);
    const one = await read(path);
    if (mine !== view) return;
    const secret = el("pre", { id: "secret", hidden: true });
    const reveal = (text) => {
      secret.textContent = JSON.parse(text).key;
      secret.hidden = false;
    };
    const again = (text) => go(`#/endpoint/${id}`, text);
    const turn = one.disabled ? "Switch on" : "Switch off";
    const turned = async () => {
      await call("PATCH", path, { disabled: !one.disabled });
      again(one.disabled ? "The endpoint is on." : "The endpoint is off; what comes meanwhile is kept.");
    };
    const rotate = async () => {
      reveal(await call("POST", `${path}/secret/rotate`, {}));
      tell("There is a new secret. The old one signs along for 24 hours.");
    };
    const remove = async () => {
      await call("DELETE", path);
      go("#/", "The endpoint was deleted.");
    };
    const can = (scope, button) => (may.has(scope) ? button() : null);
    const edits = can("endpoints:write", () => [
      el("a", { href: `#/endpoint/${id}/edit`, id: "edit" }, "Change"),
      action(turn, turned),
      careful("Delete", "Delete it for good", remove),
    ]);
    const secrets = [
      can("secrets:read", () => action("Show the secret", async () => reveal(await call("GET", `${path}/secret`)))),
      can("secrets:write", () => careful("Change the secret", "Make a new secret", rotate)),
    ];
    const list = attempts(id, mine);
    const example = may.has("attempts:write") ? await examples(path, list.later) : null;
    if (mine !== view) return;
    const facts = [
      ["State", state(one)],
      ["Description", one.description || "-"],
      ["Events", types(one)],
      one.filter && ["Filter", one.filter],
      one.throttleRate && ["Attempts per second", String(one.throttleRate)],
      ["Made", when(one.createdAt)],
    ];
    show(
      one.url,
      el("h2", {}, one.url),
      el("dl", {}, facts.filter(Boolean).map(([name, value]) => [el("dt", {}, name), el("dd", {}, value)])),
      el("div", { class: "row" }, (edits || []).concat(secrets)),
      secret,
      example,
      el("h3", {}, "Attempts"),
      list.form,
      list.holder
    );
    await list.load();
  }

  async function examples(path, later) {
    const names = await eventTypes();
    if (names.length === 0) return null;
    const choice = el("select", { "aria-label": "Event" }, names.map((name) => el("option", {}, name)));
    const send = async () => {
      await call("POST", `${path}/send-example`, { eventType: choice.value });
      tell("An example was sent; its attempt is shown below in a moment.");
      later();
    };
    return el("div", { class: "row", id: "example" }, choice, action("Send an example", send));
  }

  function result(one) {
    const good = one.status === 0;
    const code = one.responseStatusCode || one.failure || "no answer";
    return el("span", { class: good ? "good" : "bad" }, `${good ? "delivered" : "failed"}, ${code}`);
  }

  function resend(endpointId, msgId, later) {
    if (!may.has("attempts:write")) return null;
    const act = async () => {
      await call("POST", own(`/msg/${part(msgId)}/endpoint/${part(endpointId)}/resend`));
      tell("It is sent again; the attempt is shown in a moment.");
      later();
    };
    return action("Send again", act);
  }

  // The list of an endpoint's attempts, with its filters.
  function attempts(id, mine) {
    const options = (pairs) => pairs.map(([value, text]) => el("option", { value }, text));
    const outcome = [["", "all"], ["0", "delivered"], ["2", "failed"]];
    const classes = [["", "all"], ["200", "2xx"], ["300", "3xx"], ["400", "4xx"], ["500", "5xx"], ["0", "no answer"]];
    const fields = {
      status: el("select", { name: "status" }, options(outcome)),
      status_code_class: el("select", { name: "class" }, options(classes)),
      event_types: el("input", { name: "type", size: "16" }),
      after: el("input", { name: "after", type: "datetime-local" }),
      before: el("input", { name: "before", type: "datetime-local" }),
    };
    const holder = el("div", { id: "attempts" });
    let rows = [];
    let iterator = "";
    const query = () => {
      const all = new URLSearchParams({ limit: "25", with_msg: "true", with_content: "false" });
      for (const [name, field] of Object.entries(fields)) {
        const text = field.value.trim();
        if (text) all.set(name, field.type === "datetime-local" ? new Date(text).toISOString() : text);
      }
      if (iterator) all.set("iterator", iterator);
      return all;
    };
    const row = (one) =>
      el(
        "tr",
        { "data-id": one.id },
        el("td", {}, when(one.timestamp)),
        el("td", {}, one.msg ? one.msg.eventType : "-"),
        el("td", {}, result(one)),
        el("td", {}, `${one.responseDurationMs} ms`),
        el("td", {}, `${one.attempt}${one.triggerType === 1 ? " (by hand)" : ""}`),
        el("td", {}, el("a", { href: `#/endpoint/${id}/msg/${one.msgId}` }, "Look"), " ", resend(id, one.msgId, later))
      );
    const more = async () => {
      const page = await read(own(`/attempt/endpoint/${part(id)}?${query()}`));
      if (mine !== view) return;
      iterator = page.iterator;
      rows.push(...page.data.map(row));
      holder.replaceChildren(
        table(["Time", "Event", "Result", "Took", "Attempt", ""], rows, "There is no such attempt."),
        page.done ? "" : action("More", more)
      );
    };
    const load = async () => {
      rows = [];
      iterator = "";
      await more();
    };
    const later = () => setTimeout(() => mine === view && attempt(load), 1000);
    const label = (text, field) => el("label", {}, text, field);
    const form = el(
      "form",
      {
        class: "row",
        id: "filters",
        submit: (event) => {
          event.preventDefault();
          attempt(load);
        },
      },
      label("Result", fields.status),
      label("Answer", fields.status_code_class),
      label("Event", fields.event_types),
      label("After", fields.after),
      label("Before", fields.before),
      el("button", {}, "Show")
    );
    return { form, holder, load, later };
  }

  async function message(endpointId, id) {
    const mine = view;
    const tried = `/attempt/msg/${part(id)}?endpoint_id=${part(endpointId)}&limit=50`;
    const [text, page] = await Promise.all([call("GET", own(`/msg/${part(id)}`)), read(own(tried))]);
    if (mine !== view) return;
    const one = JSON.parse(text);
    const later = () => setTimeout(() => mine === view && route(), 1000);
    const answers = page.data.map((made) =>
      el("li", {}, when(made.timestamp), " ", result(made), made.response ? el("pre", {}, made.response) : "")
    );
    show(
      one.eventType,
      el("p", {}, el("a", { href: `#/endpoint/${endpointId}` }, "Back to the endpoint")),
      el("div", { class: "head" }, el("h2", {}, one.eventType), resend(endpointId, id, later)),
      el("dl", {}, el("dt", {}, "Id"), el("dd", {}, one.id), el("dt", {}, "Accepted"), el("dd", {}, when(one.timestamp))),
      el("h3", {}, "Payload"),
      el("pre", { id: "payload" }, indented(payload(text))),
      el("h3", {}, "Attempts, the last one first"),
      answers.length > 0 ? el("ol", {}, answers) : el("p", { class: "soft" }, "There is none yet.")
    );
  }

  // ---- ways ----

  const WAYS = [
    [/^#?\/?$/, endpoints],
    [/^#\/new$/, () => edit(null)],
    [/^#\/endpoint\/([^/]+)$/, endpoint],
    [/^#\/endpoint\/([^/]+)\/edit$/, edit],
    [/^#\/endpoint\/([^/]+)\/msg\/([^/]+)$/, message],
  ];

  function route() {
    view += 1;
    for (const [pattern, act] of WAYS) {
      const found = pattern.exec(location.hash);
      if (found) return attempt(() => act(...found.slice(1)));
    }
    return go("#/");
  }

  // Shows another view, or the same anew, and says what was done.
  function go(hash, text) {
    history.pushState(null, "", hash);
    tell(text || "");
    return route();
  }

  async function start() {
    view += 1;
    if (!takeToken()) {
      over("Open your link", "This page opens with a link that you get from the service whose events you receive.");
      return;
    }
    await attempt(async () => {
      const who = await read("/auth/whoami");
      if (!who.appId) {
        over("Open your link", "This is no link to the portal.");
        return;
      }
      app = who.appId;
      may = new Set(who.scopes);
      leave.hidden = false;
      await route();
    });
  }

  leave.addEventListener("click", () =>
    attempt(async () => {
      await call("POST", "/auth/logout");
      over("You are signed out", "The link that led here does not work any more.");
    }, leave)
  );
  addEventListener("hashchange", () => {
    if (location.hash.startsWith("#key=")) {
      start();
    } else if (token) {
      tell("");
      route();
    }
  });
  start();
})();
