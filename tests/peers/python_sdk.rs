//! The official Python SDK, which `python/driver.py` drives through its stories in one go; what each has to tell stands here.

use std::collections::BTreeMap;
use std::path::Path;
use std::process::{Command, Stdio};

use serde_json::{Value, json};

use crate::Era;
use crate::fixture::Fixture;

/// What the driver told, by story.
#[track_caller]
fn told(era: Era) -> BTreeMap<String, Value> {
    let here = Path::new(env!("CARGO_MANIFEST_DIR"));
    let python = here.join(".venv/bin/python");
    assert!(python.exists(), "{} is missing: run scripts/install.sh", python.display());
    let fixture = Fixture::start(&[]);

    let mut command = Command::new(python);
    command.arg("-u").arg(here.join("python/driver.py")).arg(&fixture.url);
    command.arg(if era == Era::Legacy { "legacy" } else { "modern" }).stdin(Stdio::null());
    // Each of its stories has an end of its own.
    let output = command.output().unwrap_or_else(|error| panic!("{command:?}: {error}"));

    let lines = String::from_utf8_lossy(&output.stdout);
    let saw =
        lines.lines().map(|line| serde_json::from_str::<Value>(line).unwrap_or_else(|_| panic!("it wrote {line}")));
    let mut told: BTreeMap<_, _> =
        saw.map(|mut saw| (saw["did"].take().as_str().expect("a name").to_owned(), saw)).collect();
    told.values_mut().for_each(|saw| drop(saw.as_object_mut().expect("an object").remove("did")));
    assert!(told.remove("quit").is_some(), "it did not end well:\n{}", String::from_utf8_lossy(&output.stderr));
    let failed: Vec<_> = told.iter().filter(|(_, saw)| saw.get("error").is_some()).collect();
    assert!(failed.is_empty(), "{failed:#?}\n{}", String::from_utf8_lossy(&output.stderr));
    told
}

/// What both eras have to tell.
fn expected(era: Era) -> BTreeMap<String, Value> {
    const INVALID_PARAMS: i64 = -32602;
    let legacy = era == Era::Legacy;
    let capabilities = ["completions", "logging", "prompts", "resources", "tools"];
    let stories = json!({
        "connect": {"version": if legacy { "2025-11-25" } else { "2026-07-28" }, "capabilities": capabilities},
        "tools": {
            "listed": true,
            "text": "This is a simple text response for testing.",
            "failed": true,
            "unknown": INVALID_PARAMS,
        },
        "content": {"types": ["text", "image", "resource"]},
        "structured": {"there": true},
        "invalid_arguments": {"refused": true},
        "resources": {
            "listed": true,
            "templates": ["test://template/{id}/data"],
            "text": "This is the content of the static text resource.",
            "made": "123",
            "unknown": if legacy { -32002 } else { INVALID_PARAMS },
        },
        "subscriptions": {"honored": ["test://watched-resource"]},
        "prompts": {
            "listed": true,
            "text": "Prompt with arguments: arg1='first', arg2='second'",
            "unknown": INVALID_PARAMS,
        },
        "completion": {"few": true},
        "logging": {"logged": true},
        "progress": {"told": [[0.0, 100.0], [50.0, 100.0], [100.0, 100.0]]},
        "cancellation": {"text": "This is a simple text response for testing."},
        "sampling": {"answered": true},
        "elicitation": {"answered": true},
        "roots": {"answered": true},
        "pages": {"unknown": INVALID_PARAMS},
        "change": {"told": true},
        "ping": {"answered": true},
    });
    serde_json::from_value(stories).expect("an object")
}

#[track_caller]
fn check(era: Era) {
    let mut told = told(era);
    // Extensions are the fixture's choice, and the SDK synthesizes what it does not ask for.
    if let Some(Value::Array(capabilities)) = told.get_mut("connect").map(|connect| connect["capabilities"].take()) {
        let known =
            capabilities.into_iter().filter(|capability| capability != "extensions" && capability != "experimental");
        told.entry("connect".to_owned()).and_modify(|connect| connect["capabilities"] = known.collect());
    }
    assert_eq!(told, expected(era));
}

#[test]
fn the_python_sdk_with_a_handshake() {
    check(Era::Legacy);
}

#[test]
fn the_python_sdk_without_a_handshake() {
    check(Era::Modern);
}
