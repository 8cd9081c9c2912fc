//! The description as one page: no script, nothing loaded from anywhere.

use std::fmt::Write as _;

use serde_json::Value;

const STYLE: &str = "body{font:15px/1.5 system-ui,sans-serif;max-width:60rem;margin:2rem auto;padding:0 1rem;\
color:#1b1f24}h2{margin-top:2.5rem;border-bottom:1px solid #d0d7de}summary{cursor:pointer;padding:.3rem 0}\
summary b{display:inline-block;width:4.5rem}code,pre{font:13px ui-monospace,monospace}pre{background:#f6f8fa;\
padding:.7rem;overflow:auto;border-radius:6px}table{border-collapse:collapse}td{padding:.1rem .8rem .1rem 0;\
vertical-align:top}.id{color:#57606a}";

/// The whole page.
pub(super) fn render(document: &Value) -> String {
    let mut out = String::with_capacity(200_000);
    let title = text(&document["info"]["title"]);
    out.push_str("<!doctype html><html lang=\"en\"><head><meta charset=\"utf-8\">");
    out.push_str("<meta name=\"viewport\" content=\"width=device-width\"><title>");
    out.push_str(&title);
    out.push_str(" API</title><style>");
    out.push_str(STYLE);
    out.push_str("</style></head><body><h1>");
    out.push_str(&title);
    out.push_str(" API</h1><p>");
    out.push_str(&text(&document["info"]["description"]));
    out.push_str("</p><p>Machine-readable: <a href=\"/openapi.json\">/openapi.json</a>. ");
    out.push_str("Credentials: <code>Authorization: Bearer &lt;key&gt;</code>.</p>");
    let mut group = String::new();
    for operation in super::operations() {
        if operation.group != group {
            group = operation.group.to_owned();
            write(&mut out, format_args!("<h2>{}</h2>", escape(&group)));
        }
        let path = format!("/api/v1{}", operation.path);
        let method = operation.method.to_ascii_lowercase();
        let described = &document["paths"][&path][&method];
        write(
            &mut out,
            format_args!(
                "<details><summary><b>{}</b><code>{}</code> {} <span class=\"id\">{}</span></summary>",
                operation.method,
                escape(&path),
                escape(operation.summary),
                operation.id
            ),
        );
        parameters(&mut out, described);
        bodies(&mut out, described);
        out.push_str("</details>");
    }
    schemas(&mut out, &document["components"]["schemas"]);
    out.push_str("</body></html>\n");
    out
}

fn parameters(out: &mut String, described: &Value) {
    let Some(parameters) = described["parameters"].as_array() else {
        return;
    };
    out.push_str("<table>");
    for one in parameters {
        write(
            out,
            format_args!(
                "<tr><td><code>{}</code></td><td>{}</td><td><code>{}</code></td><td>{}</td></tr>",
                text(&one["name"]),
                text(&one["in"]),
                escape(&one["schema"].to_string()),
                text(&one["description"])
            ),
        );
    }
    out.push_str("</table>");
}

fn bodies(out: &mut String, described: &Value) {
    if let Some(name) = named(&described["requestBody"]["content"]) {
        write(out, format_args!("<p>Body: {name}</p>"));
    }
    let answers = described["responses"].as_object();
    for (status, answer) in answers.into_iter().flatten() {
        if answer["$ref"].is_string() {
            continue;
        }
        let name = named(&answer["content"]).unwrap_or_default();
        write(out, format_args!("<p>{status} {name}</p>"));
    }
}

/// Content type and schema.
fn named(content: &Value) -> Option<String> {
    let (kind, content) = content.as_object()?.iter().next()?;
    let schema = &content["schema"];
    let list = &schema["properties"]["data"]["items"]["$ref"];
    let (name, is_list) = match (schema["$ref"].as_str(), list.as_str()) {
        (Some(name), _) => (name, false),
        (None, Some(name)) => (name, true),
        (None, None) => return Some(escape(kind)),
    };
    let name = escape(name.rsplit('/').next().unwrap_or_default());
    let before = if is_list { "list of " } else { "" };
    Some(format!("{before}<a href=\"#{name}\">{name}</a>"))
}

fn schemas(out: &mut String, schemas: &Value) {
    out.push_str("<h2>Schemas</h2>");
    for (name, schema) in schemas.as_object().into_iter().flatten() {
        let pretty = serde_json::to_string_pretty(schema).unwrap_or_default();
        write(
            out,
            format_args!(
                "<h3 id=\"{name}\">{name}</h3><pre>{}</pre>",
                escape(&pretty)
            ),
        );
    }
}

fn text(value: &Value) -> String {
    escape(value.as_str().unwrap_or_default())
}

fn escape(text: &str) -> String {
    let text = text.replace('&', "&amp;").replace('<', "&lt;");
    text.replace('>', "&gt;").replace('"', "&quot;")
}

fn write(out: &mut String, what: std::fmt::Arguments<'_>) {
    if out.write_fmt(what).is_err() {
        tracing::error!("a page cannot be written into memory");
    }
}
