//! The streaming events of a run, its announcements, and the progress notification made of an event.

use bytes::Bytes;
use serde::Serialize;
use serde_json::Number;
use serde_json::value::RawValue;

use crate::protocol::jsonrpc;
use crate::protocol::mcp::PROGRESS;

/// The step of a run that an event tells of.
///
/// ```text
/// Started ─► Progress* ─► Completed | Failed
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
pub enum EventKind {
    /// The tool was called.
    #[serde(rename = "tool_started")]
    Started,
    /// The tool got on.
    #[serde(rename = "tool_progress")]
    Progress,
    /// The tool returned a result.
    #[serde(rename = "tool_completed")]
    Completed,
    /// The tool failed, or was cancelled.
    #[serde(rename = "tool_failed")]
    Failed,
}

impl EventKind {
    /// Whether nothing follows it.
    pub fn is_terminal(self) -> bool {
        matches!(self, EventKind::Completed | EventKind::Failed)
    }
}

/// The payload of a `streaming_event`: the deployment's envelope, with the caller's request id and a number.
#[derive(Clone, Debug, Serialize)]
pub struct Event<'a> {
    /// Which step.
    #[serde(rename = "type")]
    pub kind: EventKind,
    /// The run's id.
    pub stream_id: &'a str,
    /// The JSON-RPC id of the call, unchanged.
    pub request_id: &'a RawValue,
    /// [`Started`], [`Progress`], [`Completed`] or [`Failed`], as JSON.
    pub data: &'a RawValue,
    /// Wall time, ISO 8601 with six fractional digits and `Z`.
    pub timestamp: &'a str,
    /// Counts the run's events from 1. A watcher that sees a number skipped lost progress to the log's bound.
    pub seq: u64,
}

impl Event<'_> {
    /// The JSON text.
    pub fn encode(&self) -> Bytes {
        Bytes::from(serde_json::to_vec(self).expect("raw values and strings always serialize"))
    }
}

/// `data` of a `tool_started`. The arguments stay out: they may hold what only the caller may see.
#[derive(Clone, Debug, Serialize)]
pub struct Started<'a> {
    /// The tool's name.
    pub tool: &'a str,
}

/// `data` of a `tool_progress`.
#[derive(Clone, Debug, Serialize)]
pub struct Progress<'a> {
    /// The tool's name.
    pub tool: &'a str,
    /// How far, in the unit of `total`; grows with every event.
    pub progress: Number,
    /// Where it ends, if known.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub total: Option<Number>,
    /// For a person to read.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub message: Option<&'a str>,
}

/// `data` of a `tool_completed`.
#[derive(Clone, Debug, Serialize)]
pub struct Completed<'a> {
    /// The tool's name.
    pub tool: &'a str,
    /// The result of the call, as the caller gets it; absent where it is larger than an event may be.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub result: Option<&'a RawValue>,
    /// Bytes of the result where it is absent.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub result_bytes_omitted: Option<usize>,
    /// Milliseconds from start to end.
    pub execution_time_ms: u64,
}

/// `data` of a `tool_failed`.
#[derive(Clone, Debug, Serialize)]
pub struct Failed<'a> {
    /// The tool's name.
    pub tool: &'a str,
    /// Which sort of failure: `invalid_arguments`, `failed`, `cancelled`, `timeout` or `crashed`.
    pub reason: &'a str,
    /// For a person to read.
    pub error: &'a str,
    /// Milliseconds from start to end.
    pub execution_time_ms: u64,
}

/// Where a run stands, as `mcp:runs` and the join of `mcp:run:<id>` tell it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct RunSummary {
    /// The run's id, which is also the `stream_id` of its events.
    pub run_id: String,
    /// The tool's name.
    pub tool: String,
    /// Running, completed or failed.
    pub status: RunStatus,
    /// Wall time, ISO 8601.
    pub started_at: String,
    /// Wall time, ISO 8601; absent while it runs.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub finished_at: Option<String>,
    /// Events so far, kept or not.
    pub events: u64,
    /// Progress events that the log's bound has dropped.
    pub dropped_events: u64,
}

/// The state of a run, in the words of the wire.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum RunStatus {
    /// No terminal event yet.
    Running,
    /// Ended with `tool_completed`.
    Completed,
    /// Ended with `tool_failed`.
    Failed,
}

/// A number as JSON: whole numbers that a double holds exactly come without a fraction. `None` if it is not finite.
pub fn number(value: f64) -> Option<Number> {
    const EXACT: f64 = 9_007_199_254_740_992.0;
    if value.fract() == 0.0 && value.abs() <= EXACT {
        return Some(Number::from(value as i64));
    }
    Number::from_f64(value)
}

/// `notifications/progress` with the token that the caller gave.
pub fn progress_notification(
    token: &RawValue,
    progress: &Number,
    total: Option<&Number>,
    message: Option<&str>,
) -> Bytes {
    #[derive(Serialize)]
    #[serde(rename_all = "camelCase")]
    struct Params<'a> {
        progress_token: &'a RawValue,
        progress: &'a Number,
        #[serde(skip_serializing_if = "Option::is_none")]
        total: Option<&'a Number>,
        #[serde(skip_serializing_if = "Option::is_none")]
        message: Option<&'a str>,
    }

    jsonrpc::notification(PROGRESS, &jsonrpc::raw(&Params { progress_token: token, progress, total, message }))
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn progress_event(progress: f64) -> Bytes {
        let data =
            Progress { tool: "t", progress: number(progress).expect("finite"), total: number(10.0), message: None };
        let event = Event {
            kind: EventKind::Progress,
            stream_id: "r1",
            request_id: &jsonrpc::raw(&7),
            data: &jsonrpc::raw(&data),
            timestamp: "2026-01-01T00:00:00.000000Z",
            seq: 2,
        };
        event.encode()
    }

    #[test]
    fn an_event_is_the_deployments_envelope_with_request_id_and_seq() {
        let value: serde_json::Value = serde_json::from_slice(&progress_event(2.5)).expect("JSON");

        assert_eq!(
            value,
            json!({
                "type": "tool_progress", "stream_id": "r1", "request_id": 7,
                "data": {"tool": "t", "progress": 2.5, "total": 10},
                "timestamp": "2026-01-01T00:00:00.000000Z", "seq": 2
            })
        );
    }

    #[test]
    fn a_progress_notification_echoes_the_token() {
        let token = RawValue::from_string(r#""t\u0031""#.to_owned()).expect("JSON");

        let text = progress_notification(&token, &Number::from(3), Some(&Number::from(10)), None);

        assert_eq!(
            text,
            r#"{"jsonrpc":"2.0","method":"notifications/progress","params":{"progressToken":"t\u0031","progress":3,"total":10}}"#
        );
    }

    #[test]
    fn numbers_are_whole_where_they_can_be_and_never_infinite() {
        assert_eq!(number(3.0).map(|n| n.to_string()).as_deref(), Some("3"));
        assert_eq!(number(-0.5).map(|n| n.to_string()).as_deref(), Some("-0.5"));
        assert_eq!(number(f64::NAN), None);
        assert_eq!(number(f64::INFINITY), None);
        assert!(number(1e300).is_some());
    }

    #[test]
    fn a_summary_of_a_running_run_has_no_end() {
        let summary = RunSummary {
            run_id: "r".into(),
            tool: "t".into(),
            status: RunStatus::Running,
            started_at: "s".into(),
            finished_at: None,
            events: 1,
            dropped_events: 0,
        };

        let value = serde_json::to_value(summary).expect("serializes");

        assert_eq!(
            value,
            json!({"run_id": "r", "tool": "t", "status": "running", "started_at": "s", "events": 1, "dropped_events": 0})
        );
    }
}
