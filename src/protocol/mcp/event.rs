//! The streaming events of a run, its announcements, and the progress notification made of an event.

use std::borrow::Cow;

use bytes::Bytes;
use serde::Serialize;
use serde_json::Number;
use serde_json::value::RawValue;

use crate::protocol::jsonrpc;
use crate::protocol::mcp::PROGRESS;
use crate::protocol::mcp::progress::Progress as Report;

/// What an event tells of a run: of a tool's, or of a workflow's.
///
/// ```text
/// Started ─► Progress* ─► Completed | Failed
/// WorkflowStarted ─► (Step… | IntermediateResult)* ─► WorkflowCompleted | WorkflowFailed
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
    /// The workflow began.
    #[serde(rename = "workflow_started")]
    WorkflowStarted,
    /// A step, or another attempt of it, began.
    #[serde(rename = "step_started")]
    StepStarted,
    /// A step's tool got on.
    #[serde(rename = "step_progress")]
    StepProgress,
    /// A branch or a round has its result.
    #[serde(rename = "intermediate_result")]
    IntermediateResult,
    /// A step has its result.
    #[serde(rename = "step_completed")]
    StepCompleted,
    /// A step failed.
    #[serde(rename = "step_failed")]
    StepFailed,
    /// The workflow has its result.
    #[serde(rename = "workflow_completed")]
    WorkflowCompleted,
    /// The workflow failed, or was cancelled.
    #[serde(rename = "workflow_failed")]
    WorkflowFailed,
}

impl EventKind {
    /// Whether nothing follows it.
    pub fn is_terminal(self) -> bool {
        self.is_completion() || matches!(self, EventKind::Failed | EventKind::WorkflowFailed)
    }

    /// Whether it tells of a result of the whole.
    pub fn is_completion(self) -> bool {
        matches!(self, EventKind::Completed | EventKind::WorkflowCompleted)
    }

    /// Whether nothing comes before it.
    pub fn is_first(self) -> bool {
        matches!(self, EventKind::Started | EventKind::WorkflowStarted)
    }
}

/// What one event of a run tells, as long as nobody has read it.
#[derive(Clone, Debug)]
pub enum Told {
    /// The tool was called.
    Started,
    /// The tool got on: two finite numbers.
    Progress(Report),
    /// The tool returned a result.
    Completed {
        /// The result, as the caller gets it, if an event may be so large.
        result: Option<Box<RawValue>>,
        /// Bytes of the result.
        result_bytes: usize,
        /// Milliseconds from start to end.
        execution_time_ms: u64,
    },
    /// The tool failed, or was cancelled.
    Failed {
        /// Which sort of failure: `invalid_arguments`, `failed`, `cancelled`, `timeout` or `crashed`.
        reason: &'static str,
        /// For a person to read.
        error: String,
        /// Milliseconds from start to end.
        execution_time_ms: u64,
    },
    /// Something of a workflow.
    Workflow {
        /// What.
        kind: EventKind,
        /// `data` of the event, an object.
        data: Box<RawValue>,
    },
}

/// What all events of a run have in common.
#[derive(Clone, Copy, Debug)]
pub struct Subject<'a> {
    /// The run's id.
    pub stream_id: &'a str,
    /// The JSON-RPC id of the call, unchanged.
    pub request_id: &'a RawValue,
    /// The tool's name.
    pub tool: &'a str,
    /// The workflow's id, where it is a run of one.
    pub workflow: Option<&'a str>,
}

/// What the `stream_id` of a workflow's events begins with, before the first 16 digits of the run's id.
pub const WORKFLOW_STREAM_PREFIX: &str = "stream_";

impl Told {
    /// Which step.
    pub fn kind(&self) -> EventKind {
        match self {
            Told::Started => EventKind::Started,
            Told::Progress(_) => EventKind::Progress,
            Told::Completed { .. } => EventKind::Completed,
            Told::Failed { .. } => EventKind::Failed,
            Told::Workflow { kind, .. } => *kind,
        }
    }

    /// At least as many bytes as the event's text will have.
    pub fn bytes_max(&self, subject: &Subject<'_>) -> usize {
        /// Keys, punctuation, the kind, the time, and the numbers at their longest.
        const FRAME: usize = 320;
        let told = match self {
            Told::Started => 0,
            Told::Progress(report) => report.message.as_deref().map_or(0, escaped_bytes),
            Told::Completed { result, .. } => result.as_ref().map_or(0, |result| result.get().len()),
            Told::Failed { reason, error, .. } => reason.len() + escaped_bytes(error),
            Told::Workflow { data, .. } => data.get().len() + subject.workflow.map_or(0, escaped_bytes),
        };
        FRAME + subject.stream_id.len() + subject.request_id.get().len() + subject.tool.len() + told
    }

    /// The JSON text: the deployment's envelope, with the caller's request id and a number.
    ///
    /// `timestamp` is wall time, ISO 8601 with six fractional digits and `Z`. `seq` counts the run's events from 1: a watcher
    /// that sees a number skipped lost progress to the log's bound.
    pub fn encode(&self, subject: &Subject<'_>, timestamp: &str, seq: u64) -> Bytes {
        #[derive(Serialize)]
        struct Event<'a> {
            #[serde(rename = "type")]
            kind: EventKind,
            stream_id: Cow<'a, str>,
            #[serde(skip_serializing_if = "Option::is_none")]
            run_id: Option<&'a str>,
            request_id: &'a RawValue,
            #[serde(skip_serializing_if = "Option::is_none")]
            workflow_id: Option<&'a str>,
            data: Data<'a>,
            timestamp: &'a str,
            seq: u64,
        }

        let Subject { stream_id, request_id, tool, workflow } = *subject;
        let event = Event {
            kind: self.kind(),
            // The deployment's clients know streams of workflows by shorter ids than runs have here.
            stream_id: match workflow {
                Some(_) => format!("{WORKFLOW_STREAM_PREFIX}{}", &stream_id[..stream_id.len().min(16)]).into(),
                None => stream_id.into(),
            },
            run_id: workflow.map(|_| stream_id),
            request_id,
            workflow_id: workflow,
            data: Data::new(tool, self),
            timestamp,
            seq,
        };
        let mut text = Vec::with_capacity(self.bytes_max(subject));
        serde_json::to_writer(&mut text, &event).expect("raw values and strings always serialize");
        text.into()
    }
}

/// `data` of an event.
#[derive(Serialize)]
#[serde(untagged)]
enum Data<'a> {
    /// The arguments stay out: they may hold what only the caller may see.
    Started {
        tool: &'a str,
    },
    Progress {
        tool: &'a str,
        /// How far, in the unit of `total`; grows with every event.
        progress: Number,
        /// Where it ends, if known.
        #[serde(skip_serializing_if = "Option::is_none")]
        total: Option<Number>,
        #[serde(skip_serializing_if = "Option::is_none")]
        message: Option<&'a str>,
    },
    Completed {
        tool: &'a str,
        /// Absent where it is larger than an event may be; then its bytes are told.
        #[serde(skip_serializing_if = "Option::is_none")]
        result: Option<&'a RawValue>,
        #[serde(skip_serializing_if = "Option::is_none")]
        result_bytes_omitted: Option<usize>,
        execution_time_ms: u64,
    },
    Failed {
        tool: &'a str,
        reason: &'a str,
        error: &'a str,
        execution_time_ms: u64,
    },
    Workflow(&'a RawValue),
}

impl<'a> Data<'a> {
    fn new(tool: &'a str, told: &'a Told) -> Self {
        match told {
            Told::Started => Data::Started { tool },
            Told::Progress(report) => Data::Progress {
                tool,
                progress: number(report.progress).unwrap_or_else(|| 0.into()),
                total: report.total.and_then(number),
                message: report.message.as_deref(),
            },
            Told::Completed { result, result_bytes, execution_time_ms } => Data::Completed {
                tool,
                result: result.as_deref(),
                result_bytes_omitted: result.is_none().then_some(*result_bytes),
                execution_time_ms: *execution_time_ms,
            },
            Told::Failed { reason, error, execution_time_ms } => {
                Data::Failed { tool, reason, error, execution_time_ms: *execution_time_ms }
            }
            Told::Workflow { data, .. } => Data::Workflow(data),
        }
    }
}

/// Bytes of a text in a JSON string, without its quotes.
fn escaped_bytes(text: &str) -> usize {
    let bytes_of = |byte| match byte {
        b'"' | b'\\' => 2,
        0..0x20 => 6,
        _ => 1,
    };
    text.bytes().map(bytes_of).sum()
}

/// Where a run stands, as `mcp:runs` and the join of `mcp:run:<id>` tell it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct RunSummary {
    /// The run's id, which is also the `stream_id` of its events.
    pub run_id: String,
    /// The tool's name; of a workflow its id.
    pub tool: String,
    /// The workflow's id, where it is a run of one.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub workflow_id: Option<String>,
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

    const TIMESTAMP: &str = "2026-01-01T00:00:00.000000Z";

    fn encoded(told: &Told, request_id: &RawValue) -> (Bytes, usize) {
        let subject = Subject { stream_id: "r1", request_id, tool: "t", workflow: None };
        (told.encode(&subject, TIMESTAMP, u64::MAX), told.bytes_max(&subject))
    }

    fn progress(progress: f64, total: f64, message: Option<&str>) -> Told {
        Told::Progress(Report { progress, total: Some(total), message: message.map(ToOwned::to_owned) })
    }

    #[test]
    fn an_event_is_the_deployments_envelope_with_request_id_and_seq() {
        let (text, _) = encoded(&progress(2.5, 10.0, None), &jsonrpc::raw(&7));

        let value: serde_json::Value = serde_json::from_slice(&text).expect("JSON");
        assert_eq!(
            value,
            json!({
                "type": "tool_progress", "stream_id": "r1", "request_id": 7,
                "data": {"tool": "t", "progress": 2.5, "total": 10},
                "timestamp": TIMESTAMP, "seq": u64::MAX
            })
        );
    }

    #[test]
    fn no_event_is_longer_than_it_was_said_to_become() {
        let control: String = (0..0x80_u8).map(char::from).collect();
        let extremes = [
            Told::Started,
            progress(-f64::MIN_POSITIVE, f64::MIN, None),
            progress(-1.234_567_890_123_456_7e-300, -9_007_199_254_740_991.0, Some(&control)),
            Told::Completed { result: None, result_bytes: usize::MAX, execution_time_ms: u64::MAX },
            Told::Completed { result: Some(jsonrpc::raw(&control)), result_bytes: 0, execution_time_ms: u64::MAX },
            Told::Failed { reason: "invalid_arguments", error: control.repeat(9), execution_time_ms: u64::MAX },
        ];

        for told in extremes {
            let (text, bytes_max) = encoded(&told, &jsonrpc::raw("an id"));
            assert!(text.len() <= bytes_max && bytes_max <= text.len() * 3, "{} of {bytes_max}", text.len());
        }
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
            workflow_id: None,
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
