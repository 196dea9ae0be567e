//! The tokens in `tests/fixtures/tokens`, made and judged by a real Plug.Crypto.

use std::fs;
use std::path::PathBuf;

use serde_json::{Value, json};

use super::super::{KeyRing, check_line, sign_line};

/// Checks of all files, so that a file that goes missing is noticed.
const CHECKS: usize = 534;

fn files() -> Vec<(String, Vec<Value>)> {
    let folder = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures/tokens");
    let paths = fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path());
    let mut paths: Vec<_> = paths.filter(|path| path.extension().is_some_and(|end| end == "json")).collect();
    paths.sort();
    let read = |path: PathBuf| {
        let file: Value = serde_json::from_slice(&fs::read(&path).unwrap()).unwrap();
        (path.file_name().unwrap().to_string_lossy().into_owned(), file["cases"].as_array().unwrap().clone())
    };
    paths.into_iter().map(read).collect()
}

/// JSON text that is equal whatever the order of its keys.
fn parsed(text: &Value) -> Value {
    let Some(text) = text.as_str() else { return Value::Null };
    // Deeper text than serde_json reads is compared as it stands.
    serde_json::from_str(text).unwrap_or_else(|_| json!(text))
}

fn check(keys: &mut KeyRing, check: &Value, token: &Value) -> Value {
    let mut line = check.clone();
    line["token"] = token.clone();
    serde_json::from_str(&check_line(&line.to_string(), 0, keys)).unwrap()
}

#[test]
fn every_check_of_every_file_has_the_verdict_and_the_data_of_plug_crypto() {
    let mut keys = KeyRing::default();
    let mut checks = 0;
    for (file, cases) in files() {
        for case in cases {
            for expected in case["checks"].as_array().unwrap() {
                let at = format!("{file} {} {expected}", case["id"]);
                let answer = check(&mut keys, expected, &case["token"]);
                checks += 1;

                let verdict =
                    if expected["expect"] == "raise" { "invalid" } else { expected["expect"].as_str().unwrap() };
                assert_eq!(answer["verdict"], verdict, "{at}");
                if verdict == "ok" {
                    assert_eq!(answer["data"], expected["data"], "{at}");
                    assert_eq!(parsed(&answer["data_json"]), parsed(&expected["data_json"]), "{at}");
                }
            }
        }
    }
    assert_eq!(checks, CHECKS);
}

#[test]
fn the_json_of_small_maps_is_the_same_text() {
    let mut keys = KeyRing::default();
    for (file, cases) in files() {
        // Erlang has larger maps in an order of hashes.
        for case in cases.iter().filter(|case| case["data"]["v"].as_array().is_none_or(|v| v.len() <= 32)) {
            for expected in case["checks"].as_array().unwrap().iter().filter(|check| check["expect"] == "ok") {
                let answer = check(&mut keys, expected, &case["token"]);
                assert_eq!(answer["data_json"], expected["data_json"], "{file} {}", case["id"]);
            }
        }
    }
}

fn is_of(case: &Value, id: &str) -> bool {
    case["id"].as_str().unwrap().starts_with(id)
}

/// What Phoenix signed is signed here, from the description of the token, and checked as the token itself was.
#[test]
fn every_term_is_signed_or_encrypted_and_read_again() {
    let mut keys = KeyRing::default();
    let mut signed = 0;
    for (file, cases) in files() {
        for case in &cases {
            let api = case["sign"]["api"].as_str().unwrap_or_default();
            if !api.starts_with("Phoenix.Token.") && !api.starts_with("Plug.Crypto.encrypt") {
                continue;
            }
            let line = json!({"id": case["id"], "sign": case["sign"], "data": case["data"]}).to_string();
            let answer: Value = serde_json::from_str(&sign_line(&line, 0, &mut keys)).unwrap();
            assert_eq!(answer["error"], Value::Null, "{file} {}", case["id"]);
            signed += 1;
            for expected in case["checks"].as_array().unwrap() {
                let again = check(&mut keys, expected, &answer["token"]);
                assert_eq!(again["verdict"], expected["expect"], "{file} {}", case["id"]);
                if expected["expect"] == "ok" {
                    assert_eq!(again["data"], expected["data"], "{file} {}", case["id"]);
                }
            }
        }
    }
    assert!(signed > 140, "{signed} signed");
}

/// Where OTP 26 writes what we write, the token is the same to the byte.
#[test]
fn tokens_are_those_of_otp_26_to_the_byte() {
    let mut keys = KeyRing::default();
    let all = files();
    for (file, cases) in &all {
        if !["sign_terms_minor2.json", "verifier_digests.json", "age.json", "keys.json"].contains(&file.as_str()) {
            continue;
        }
        for case in cases {
            let sign = &case["sign"];
            // Erlang has larger maps in an order of hashes.
            let is_of_same_order = case["data"]["v"].as_array().is_none_or(|v| v.len() <= 32);
            // OTP 25 writes atoms otherwise.
            let has_old_atoms = file != "sign_terms_minor2.json"
                && (case["data"]["t"] == "map" || sign["max_age_in_token_s"] == "infinity" || is_of(case, "legacy"));
            if !is_of_same_order || has_old_atoms {
                continue;
            }
            let mut line = sign.clone();
            line["api"] = json!("Phoenix.Token.sign");
            line["data"] = case["data"].clone();
            if sign["signed_at_ms"].is_null() {
                line["signed_at_ms"] = json!(1_700_000_000_123_u64);
            }
            let answer: Value = serde_json::from_str(&sign_line(&line.to_string(), 0, &mut keys)).unwrap();
            assert_eq!(answer["token"], case["token"], "{file} {}", case["id"]);
        }
    }
}
