//! Event types out of OpenAPI documents, JSON and YAML.
#![expect(
    clippy::unwrap_used,
    reason = "outside the test functions a failure is a failed test too"
)]

use std::path::{Path, PathBuf};

use posthaste::base::yaml;
use serde_json::{Value, json};

use super::kit::Gateway;
use crate::kit::{dependency, repository};

const PATH: &str = "/event-type/import/openapi";

fn spec() -> Value {
    json!({
        "openapi": "3.1.0",
        "webhooks": {
            "pet.new": {"post": {
                "description": "A pet came",
                "requestBody": {"content": {"application/json": {
                    "schema": {"$ref": "#/components/schemas/Pet"}}}},
            }},
            "pet.gone": {"post": {"summary": "A pet left", "deprecated": true}},
        },
        "components": {"schemas": {"Pet": {"type": "object", "properties": {"name": {"type": "string"}}}}},
    })
}

#[tokio::test]
async fn event_types_come_out_of_an_openapi_document() {
    let gateway = Gateway::start().await;
    let old = json!({"name": "old.type", "description": "x"});
    gateway.post("/event-type", &old).expect(201).await;
    let dry = json!({"specRaw": spec().to_string(), "dryRun": true});
    let told = gateway.post(PATH, &dry).expect(200).await.json();
    assert_eq!(told["data"]["to_modify"].as_array().unwrap().len(), 2);
    gateway.get("/event-type/pet.new").expect(404).await;
    let body = json!({"spec": spec(), "replaceAll": true});
    let told = gateway.post(PATH, &body).expect(200).await.json();
    let mut names: Vec<&str> = told["data"]["modified"]
        .as_array()
        .unwrap()
        .iter()
        .map(|n| n.as_str().unwrap())
        .collect();
    names.sort_unstable();
    assert_eq!(names, ["pet.gone", "pet.new"]);
    let made = gateway.get("/event-type/pet.new").expect(200).await.json();
    assert_eq!(made["description"], "A pet came");
    assert_eq!(
        made["schemas"]["1"]["properties"]["name"],
        json!({"type": "string"})
    );
    let gone = gateway.get("/event-type/pet.gone").expect(200).await.json();
    assert_eq!(
        (&gone["description"], &gone["deprecated"]),
        (&json!("A pet left"), &json!(true))
    );
    assert_eq!(
        gateway.get("/event-type/old.type").expect(200).await.json()["archived"],
        true
    );
    for body in [json!({}), json!({"spec": {}, "specRaw": "{}"})] {
        let refused = gateway.post(PATH, &body).send().await;
        assert_eq!(refused.problem(), (400, "generic_error".to_owned()));
    }
    let refused = gateway
        .post(PATH, &json!({"specRaw": "openapi: 3.1.0"})) // no webhooks
        .send()
        .await;
    assert_eq!(
        refused.mistakes(),
        [("body.spec".to_owned(), "value_error".to_owned())]
    );
}

/// Documents that others wrote, each as YAML and as JSON.
fn examples(version: &str) -> PathBuf {
    let package = dependency(repository("tests/node/node_modules/@readme/oas-examples"));
    package.join(version)
}

fn text(path: &Path) -> String {
    std::fs::read_to_string(path).unwrap()
}

#[tokio::test]
async fn a_real_document_in_yaml_gives_the_event_types_of_its_json_twin() {
    let gateway = Gateway::start().await;
    let folder = examples("3.1");
    let yaml = text(&folder.join("yaml/train-travel.yaml"));
    assert!(
        yaml.contains("webhooks:\n  newBooking:\n    post:"),
        "not JSON"
    );
    let told = gateway.post(PATH, &json!({"specRaw": yaml})).expect(200);
    let told = told.await.json();
    assert_eq!(told, json!({"data": {"modified": ["newBooking"]}}));
    let made = gateway
        .get("/event-type/newBooking")
        .expect(200)
        .await
        .json();
    let said = made["description"].as_str().unwrap();
    assert!(said.starts_with("Subscribe to new bookings"), "{said}");
    assert_eq!(made["groupName"], "Bookings");
    let schema = &made["schemas"]["1"]["allOf"][0]["properties"];
    assert_eq!(
        schema["trip_id"]["format"], "uuid",
        "a reference in place: {made}"
    );
    let twin = text(&folder.join("json/train-travel.json"));
    gateway
        .post(PATH, &json!({"specRaw": twin}))
        .expect(200)
        .await;
    let again = gateway
        .get("/event-type/newBooking")
        .expect(200)
        .await
        .json();
    assert_eq!(again["schemas"], made["schemas"]);
    // As an editor on another system leaves it.
    let marked = format!("\u{feff}{}", yaml.replace('\n', "\r\n"));
    gateway
        .post(PATH, &json!({"specRaw": marked}))
        .expect(200)
        .await;
}

#[test]
fn documents_in_yaml_read_as_their_json_twins() {
    let limits = yaml::Limits {
        bytes: 1 << 20,
        values: 100_000,
        depth: 127,
    };
    let mut pairs = 0;
    for version in ["2.0", "3.0", "3.1"] {
        for entry in std::fs::read_dir(examples(version).join("yaml")).unwrap() {
            let path = entry.unwrap().path();
            let name = path.file_stem().unwrap().to_str().unwrap().to_owned();
            let read = yaml::read(&text(&path), limits);
            let read = read.unwrap_or_else(|error| panic!("{}: {error}", path.display()));
            let twin = examples(version).join(format!("json/{name}.json"));
            if !twin.exists() || DIFFER.contains(&(version, name.as_str())) {
                continue;
            }
            let twin: Value = serde_json::from_str(&text(&twin)).unwrap();
            assert_eq!(read, twin, "{version}/{name}");
            pairs += 1;
        }
    }
    assert!(pairs >= 50, "{pairs} pairs");
}

/// Those whose two forms do not say the same.
const DIFFER: &[(&str, &str)] = &[
    ("2.0", "petstore-expanded"),
    ("3.0", "petstore-expanded"),
    ("3.0", "uspto"),
    ("3.1", "parameters-style"),
    ("3.1", "train-travel"),
];

#[tokio::test]
async fn yaml_that_is_refused_says_in_which_line_and_why() {
    let gateway = Gateway::start().await;
    let deep = format!("webhooks:\n  a: {}1{}", "[".repeat(200), "]".repeat(200));
    let mut bomb = String::from("a0: &a0 [0,0,0,0,0,0,0,0,0]\n");
    for n in 1..9 {
        let of = format!("*a{},", n - 1).repeat(9);
        bomb.push_str(&format!("a{n}: &a{n} [{of}]\n"));
    }
    for (raw, kind, said) in [
        (
            "webhooks:\n  a: {}\n  a: {}\n",
            "value_error",
            "line 3: the key `a` stands here twice",
        ),
        ("webhooks: [1\nb: 2\n", "value_error", "line 2: "),
        (
            "webhooks:\n  a: !ruby x\n",
            "value_error",
            "line 2: the tag",
        ),
        (
            "{\"webhooks\": {\n]}",
            "value_error",
            "not a JSON document: ",
        ),
        (
            "just words",
            "value_error",
            "the document has no `webhooks`",
        ),
        (
            deep.as_str(),
            "limit",
            "line 2: more than 127 lists and objects",
        ),
        (
            bomb.as_str(),
            "limit",
            "more than 100000 values or 1048576 bytes",
        ),
    ] {
        let refused = gateway.post(PATH, &json!({"specRaw": raw})).send().await;
        let (loc, found) = refused.mistakes().remove(0);
        let words = raw == "just words";
        assert_eq!(loc, if words { "body.spec" } else { "body.specRaw" });
        assert_eq!(found, kind, "{raw:.40}");
        let body = refused.json();
        let msg = body["detail"][0]["msg"].as_str().unwrap();
        assert!(msg.contains(said), "{raw:.40}: {msg}");
    }
    gateway.get("/event-type/a").expect(404).await;
}
