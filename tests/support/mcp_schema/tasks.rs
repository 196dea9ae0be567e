//! The extension `io.modelcontextprotocol/tasks` of the modern revision, whose schema stands in no `schema.json`: the fields of
//! its results and notifications, by hand (SEP-2663).

use serde_json::Value;

const STATUSES: [&str; 5] = ["working", "input_required", "completed", "failed", "cancelled"];

/// Checks the result of a request that has become a task.
pub fn check_task(result: &Value) -> Result<(), String> {
    is(result, "taskId", |value| value.as_str().is_some_and(|id| !id.is_empty()), "a text that is not empty")?;
    let known = |value: &Value| value.as_str().is_some_and(|status| STATUSES.contains(&status));
    is(result, "status", known, "a status of tasks")?;
    is(result, "createdAt", is_time, "a time of ISO 8601")?;
    is(result, "lastUpdatedAt", is_time, "a time of ISO 8601")?;
    // Null says without end, which is not the same as leaving it out.
    is(result, "ttlMs", |value| value.is_null() || value.is_u64(), "whole milliseconds or null")?;
    is_optional(result, "pollIntervalMs", Value::is_u64, "whole milliseconds")?;
    is_optional(result, "statusMessage", Value::is_string, "a text")
}

/// Checks a task with what its status brings along.
pub fn check_detailed(task: &Value) -> Result<(), String> {
    check_task(task)?;
    match task["status"].as_str().unwrap_or_default() {
        "input_required" => is(task, "inputRequests", Value::is_object, "an object"),
        "completed" => is(task, "result", Value::is_object, "an object"),
        "failed" => {
            is(task, "error", |error| error["code"].is_i64() && error["message"].is_string(), "an error of JSON-RPC")
        }
        _ => Ok(()),
    }
}

/// Checks the result of one of the extension's own requests; its type is `complete`.
pub fn check_result(method: &str, result: &Value) -> Result<(), String> {
    match method {
        "tasks/get" => check_detailed(result),
        "tasks/update" | "tasks/cancel" => super::check_empty(result),
        _ => Err(format!("the extension has no {method:?}")),
    }
}

fn is(task: &Value, key: &str, holds: impl Fn(&Value) -> bool, expected: &str) -> Result<(), String> {
    match task.get(key) {
        Some(value) if holds(value) => Ok(()),
        came => Err(format!("the `{key}` of a task is {expected}, came {came:?}")),
    }
}

fn is_optional(task: &Value, key: &str, holds: impl Fn(&Value) -> bool, expected: &str) -> Result<(), String> {
    if task.get(key).is_none() { Ok(()) } else { is(task, key, holds, expected) }
}

/// As far as it takes to tell it from a number or a local spelling.
fn is_time(value: &Value) -> bool {
    value.as_str().is_some_and(|text| {
        let parts = text.split_once('T');
        parts.is_some_and(|(date, time)| {
            date.len() == 10 && time.len() >= 6 && (time.ends_with('Z') || time.contains('+'))
        })
    })
}
