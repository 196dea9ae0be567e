//! What `api_integration` makes of the answer that `api_caller` got: it is judged, and given one shape.

use std::collections::BTreeMap;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value, json};

use super::{About, Effect, described, judging, kind};
use crate::mcp::Tool;

const CATEGORY: &str = "integration";

#[derive(Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
struct Validate {
    /// Whether an answer that is not valid fails.
    #[serde(default)]
    strict: bool,
    /// What api_caller gave: an object with the answer's `status` and `body`.
    input: Option<Value>,
}

#[derive(Serialize, JsonSchema)]
struct Validated {
    /// Whether the answer says that it went well, and has a body.
    valid: bool,
    /// Why not.
    faults: Vec<String>,
    /// The status of HTTP.
    status: Option<u64>,
    /// The answer's body.
    data: Value,
}

#[derive(Clone, Copy, Default, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
#[schemars(inline)]
enum Format {
    /// Names are in snake case, at every depth.
    #[default]
    Normalized,
    /// Names are as they came.
    Raw,
}

#[derive(Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
struct Transform {
    /// Whether names are changed.
    #[serde(default)]
    format: Format,
    /// What response_validator or api_caller gave: `status`, and `data` or `body`. Anything else is the data.
    input: Option<Value>,
}

#[derive(Serialize, JsonSchema)]
struct Transformed {
    /// As it was asked for.
    format: Format,
    /// The status of HTTP, where there is one.
    status: Option<u64>,
    /// What the answer holds.
    data: Value,
}

pub(super) fn tools() -> [Tool; 2] {
    let transform =
        Tool::structured("response_transformer", |wanted: Transform, _| async move { Ok(transform(wanted)) });
    [
        described(
            judging("response_validator", validate),
            About {
                description: "Says whether an HTTP answer went well and has a body. Where strict, one that has not fails.",
                category: CATEGORY,
                effect: Effect::Computes,
                examples: json!([{"strict": true, "input": {"status": 200, "body": {"userName": "Ann"}}}]),
            },
        ),
        described(
            transform,
            About {
                description: "Gives an answer over HTTP one shape, and its names in snake case.",
                category: CATEGORY,
                effect: Effect::Computes,
                examples: json!([{"format": "normalized", "input": {"status": 200, "data": {"userName": "Ann"}}}]),
            },
        ),
    ]
}

fn validate(wanted: Validate) -> (Validated, Option<String>) {
    let input = wanted.input.unwrap_or_default();
    let mut faults = Vec::new();
    let status = status(&input);
    if !input.is_object() {
        faults.push(format!("input: expected an object with status and body, came {}", kind(&input)));
    } else {
        match status {
            None => faults.push(format!("status: expected a status of HTTP, came {}", kind(&input["status"]))),
            Some(status) if !(200..300).contains(&status) => {
                faults.push(format!("status: expected 200 to 299, came {status}"));
            }
            Some(_) => {}
        }
        if input["body"].is_null() || input["body"] == "" {
            faults.push("body: expected one, came none".to_owned());
        }
    }
    let valid = faults.is_empty();
    let fault = (wanted.strict && !valid).then(|| faults.join("; "));
    (Validated { valid, faults, status, data: taken(input, "body").unwrap_or_default() }, fault)
}

fn transform(wanted: Transform) -> Transformed {
    let input = wanted.input.unwrap_or_default();
    let status = status(&input);
    let data = match status {
        None => input,
        Some(_) => taken(input.clone(), "data").or_else(|| taken(input, "body")).unwrap_or_default(),
    };
    let data = match wanted.format {
        Format::Normalized => normalized(data),
        Format::Raw => data,
    };
    Transformed { format: wanted.format, status, data }
}

/// Source: RFC 9110, section 15.
fn status(answer: &Value) -> Option<u64> {
    answer["status"].as_u64().filter(|status| (100..600).contains(status))
}

fn taken(mut fields: Value, name: &str) -> Option<Value> {
    fields.as_object_mut()?.remove(name)
}

/// A value with its names in snake case. Where two become the same, the further ones are numbered: nothing is lost.
fn normalized(value: Value) -> Value {
    match value {
        Value::Array(items) => items.into_iter().map(normalized).collect(),
        Value::Object(fields) => {
            // With the number that was last tried for a name, so that many of one name don't take their square.
            let (mut renamed, mut numbers) = (Map::new(), BTreeMap::new());
            for (name, value) in fields {
                let plain = snake_case(&name);
                let mut free = plain.clone();
                while renamed.contains_key(&free) {
                    let number = numbers.entry(plain.clone()).or_insert(1_usize);
                    *number += 1;
                    free = format!("{plain}_{number}");
                }
                renamed.insert(free, normalized(value));
            }
            renamed.into()
        }
        other => other,
    }
}

/// `userName`, `User-Name` and `user name` are `user_name`; `HTTPServer` is `http_server`. A name without letters and
/// digits stays.
fn snake_case(name: &str) -> String {
    let chars: Vec<char> = name.chars().collect();
    let mut snake = String::with_capacity(name.len() + 4);
    for (index, &c) in chars.iter().enumerate() {
        if !c.is_alphanumeric() {
            if !snake.is_empty() && !snake.ends_with('_') {
                snake.push('_');
            }
            continue;
        }
        let (before, after) = (index.checked_sub(1).map(|before| chars[before]), chars.get(index + 1));
        let begins_word = c.is_uppercase()
            && (before.is_some_and(|before| before.is_lowercase() || before.is_numeric())
                || before.is_some_and(char::is_uppercase) && after.is_some_and(|after| after.is_lowercase()));
        if begins_word && !snake.is_empty() && !snake.ends_with('_') {
            snake.push('_');
        }
        snake.extend(c.to_lowercase());
    }
    let trimmed = snake.trim_end_matches('_');
    if trimmed.is_empty() { name.to_owned() } else { trimmed.to_owned() }
}

#[cfg(test)]
mod tests {
    use super::super::testing::{Tools, refused};
    use super::*;

    #[tokio::test]
    async fn an_answer_is_judged_and_given_one_shape() {
        let tools = Tools::new();
        let answer = json!({"status": 200, "body": {"userName": "Ann", "Items": [{"item-ID": 1}]}, "attempts": 1});

        let verdict = tools.call("response_validator", json!({"strict": true, "input": answer})).await;
        let shaped = tools.call("response_transformer", json!({"format": "normalized", "input": verdict})).await;
        let raw = tools.call("response_transformer", json!({"format": "raw", "input": answer})).await;

        assert_eq!(verdict, json!({"valid": true, "faults": [], "status": 200, "data": answer["body"]}));
        let data = json!({"user_name": "Ann", "items": [{"item_id": 1}]});
        assert_eq!(shaped, json!({"format": "normalized", "status": 200, "data": data}));
        assert_eq!(raw, json!({"format": "raw", "status": 200, "data": answer["body"]}));
    }

    #[tokio::test]
    async fn a_strict_judgement_fails_what_a_lenient_one_tells() {
        let tools = Tools::new();
        let judge =
            async |strict, input| tools.try_call("response_validator", json!({"strict": strict, "input": input})).await;

        let missing = json!({"status": 404, "body": ""});
        let text = "status: expected 200 to 299, came 404; body: expected one, came none";
        assert_eq!(judge(true, missing.clone()).await, refused(text));
        let verdict = judge(false, missing).await.expect("a verdict");
        assert_eq!((&verdict["valid"], &verdict["status"]), (&json!(false), &json!(404)));
        let text = "input: expected an object with status and body, came null";
        assert_eq!(judge(true, json!(null)).await, refused(text));
        let text = "status: expected a status of HTTP, came a text";
        assert_eq!(judge(true, json!({"status": "ok", "body": 1})).await, refused(text));
    }

    #[tokio::test]
    async fn what_has_no_status_is_the_data() {
        let shaped = Tools::new().call("response_transformer", json!({"input": {"data": {"aB": 1}}})).await;

        assert_eq!(shaped, json!({"format": "normalized", "status": null, "data": {"data": {"a_b": 1}}}));
    }

    #[test]
    fn names_become_snake_case() {
        let cases = [
            ("userName", "user_name"),
            ("UserName", "user_name"),
            ("HTTPServer", "http_server"),
            ("user-name", "user_name"),
            ("  User  Name ", "user_name"),
            ("already_snake", "already_snake"),
            ("item2Count", "item2_count"),
            ("ID", "id"),
            ("größeÄndern", "größe_ändern"),
            ("@type", "type"),
            ("$", "$"),
            ("", ""),
        ];
        for (name, snake) in cases {
            assert_eq!(snake_case(name), snake, "{name}");
            assert_eq!(snake_case(snake), snake, "{name} a second time");
        }
    }

    #[test]
    fn names_that_become_the_same_are_numbered() {
        let renamed = normalized(json!({"a-b": 1, "aB": 2, "a_b": 3, "a_b_2": 4}));

        let values: std::collections::BTreeSet<_> =
            renamed.as_object().expect("an object").values().map(Value::to_string).collect();
        assert_eq!((values.len(), renamed.as_object().map(Map::len)), (4, Some(4)), "{renamed}");
    }
}
