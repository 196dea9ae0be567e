//! What those who watch a run are told of it, in the deployment's words and without secrets.
//!
//! Source: the contract of the Elixir deployment, sections 5 and 6.6.

use serde_json::value::RawValue;
use serde_json::{Value, json};

use crate::clock;
use crate::protocol::jsonrpc;
use crate::protocol::mcp::EVENT_RESULT_BYTES_MAX;
use crate::protocol::mcp::event::EventKind;
use crate::protocol::workflow::Failure;
use crate::protocol::workflow::measure::json_bytes;
use crate::protocol::workflow::sanitise;
use crate::protocol::workflow::stepper::{Place, Told};

/// An event: its kind and its `data`.
pub(super) type Event = (EventKind, Box<RawValue>);

/// The first event.
pub(super) fn started(workflow: &str, context: &Value, options: &Value) -> Event {
    let data = json!({
        "workflow_id": workflow,
        "context": sanitise::context(context),
        "options": sanitise::context(options),
        "timestamp": clock::wall_iso8601_micros(),
    });
    (EventKind::WorkflowStarted, jsonrpc::raw(&data))
}

/// What a step's tool says of its progress.
pub(super) fn progress(workflow: &str, place: &Place, progress: &Value) -> Event {
    let mut data = of_step(workflow, place);
    data["progress"] = sanitise::result(progress).into_owned();
    (EventKind::StepProgress, jsonrpc::raw(&data))
}

/// What the machine tells; with the milliseconds that the step took, where it has ended.
pub(super) fn told(workflow: &str, told: &Told, worked_ms: u64) -> Event {
    let (kind, data) = match told {
        Told::Started(place) => (EventKind::StepStarted, of_step(workflow, place)),
        Told::Part { place, part, result } => {
            let mut data = of_step(workflow, place);
            data["part"] = part.clone();
            data["result"] = shown(result);
            (EventKind::IntermediateResult, data)
        }
        Told::Completed { place, result } => {
            let mut data = of_step(workflow, place);
            data["result"] = shown(result);
            data["execution_time_ms"] = worked_ms.into();
            (EventKind::StepCompleted, data)
        }
        Told::Failed { place, failure, becomes } => {
            let mut data = of_step(workflow, place);
            data["error"] = sanitise::text(&failure.message).into();
            data["reason"] = json!(failure.kind);
            data["becomes"] = (*becomes).into();
            data["execution_time_ms"] = worked_ms.into();
            (EventKind::StepFailed, data)
        }
    };
    (kind, jsonrpc::raw(&data))
}

/// The last event.
pub(super) fn ended(workflow: &str, outcome: Result<&Value, &Failure>, worked_ms: u64) -> Event {
    let time = clock::wall_iso8601_micros();
    match outcome {
        Ok(result) => {
            let bytes = json_bytes(result);
            let mut data = json!({"workflow_id": workflow, "execution_time": time, "execution_time_ms": worked_ms});
            if bytes <= EVENT_RESULT_BYTES_MAX {
                data["result"] = sanitise::result(result).into_owned();
            } else {
                data["result_bytes_omitted"] = bytes.into();
            }
            (EventKind::WorkflowCompleted, jsonrpc::raw(&data))
        }
        Err(failure) => {
            let error = failure.to_error_text();
            let data = json!({
                "workflow_id": workflow, "error": sanitise::text(&error), "reason": failure.kind,
                "execution_time": time, "execution_time_ms": worked_ms,
            });
            (EventKind::WorkflowFailed, jsonrpc::raw(&data))
        }
    }
}

fn of_step(workflow: &str, place: &Place) -> Value {
    json!({
        "step_name": place.step, "step_path": place.path, "attempt": place.attempt,
        "workflow_id": workflow, "timestamp": clock::wall_iso8601_micros(),
    })
}

/// A result with its sort, without secrets; larger than an event may be only its bytes.
fn shown(result: &Value) -> Value {
    let kind = match result {
        Value::String(_) => "text",
        Value::Object(_) => "json",
        Value::Array(_) => "list",
        _ => "other",
    };
    let bytes = json_bytes(result);
    if bytes > EVENT_RESULT_BYTES_MAX {
        return json!({"type": kind, "content_bytes_omitted": bytes});
    }
    json!({"type": kind, "content": sanitise::result(result)})
}
