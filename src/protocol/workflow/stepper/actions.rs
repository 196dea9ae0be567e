//! What goes into a run's machine and what comes out of it.

use std::sync::Arc;

use serde::{Deserialize, Serialize};
use serde_json::{Map, Value, json};

use crate::protocol::workflow::definition::StepIndex;

/// A call of a tool, or a choice of one.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct CallId(pub u64);

/// A wait.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct TimerId(pub u64);

/// A wait for triggers.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct WatchId(pub u64);

/// Something that happened. A run's events in their order are its state, so they are what is stored of it.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(tag = "event", rename_all = "snake_case")]
pub enum Event {
    /// A call that may be made once is about to be made.
    Begun {
        /// Which.
        call: CallId,
    },
    /// A tool gave a result.
    Returned {
        /// Of which call.
        call: CallId,
        /// What it gave.
        result: Value,
        /// Bytes of that as JSON.
        bytes: usize,
    },
    /// A tool, or a choice, failed.
    Failed {
        /// Of which call.
        call: CallId,
        /// How.
        failure: Failure,
    },
    /// A tool was chosen.
    Chosen {
        /// By which choice.
        call: CallId,
        /// Its name.
        tool: String,
    },
    /// A timer ran off.
    Elapsed {
        /// Which.
        timer: TimerId,
    },
    /// A trigger's event came.
    Fired {
        /// For whom.
        watch: WatchId,
        /// Which of the step's triggers.
        trigger: usize,
        /// `{event, topic?, payload, timestamp}`.
        value: Value,
    },
    /// The run is ended from outside.
    Stopped {
        /// Why.
        failure: Failure,
    },
}

/// Something to be done.
#[derive(Clone, Debug, PartialEq)]
pub enum Action {
    /// To call a tool, and to report [`Event::Returned`] or [`Event::Failed`].
    Call(Call),
    /// To choose one of these tools for what is wanted, and to report [`Event::Chosen`] or [`Event::Failed`].
    Choose {
        /// To report with.
        call: CallId,
        /// What the tool is wanted for.
        prompt: Value,
        /// Names, or objects with one.
        tools: Vec<Value>,
    },
    /// To cancel a call or a choice; what comes of it is ignored.
    Abandon {
        /// Which.
        call: CallId,
    },
    /// To report [`Event::Elapsed`] after a while.
    Arm {
        /// To report with.
        timer: TimerId,
        /// Milliseconds.
        ms: u64,
    },
    /// To forget a timer.
    Disarm {
        /// Which.
        timer: TimerId,
    },
    /// To report [`Event::Fired`] each time that one of a reactive step's active triggers has its event.
    Watch {
        /// To report with.
        watch: WatchId,
        /// The step.
        step: StepIndex,
    },
    /// To forget the triggers.
    Unwatch {
        /// Which.
        watch: WatchId,
    },
    /// To let others have their turn, and then to ask on. No event may be reported before all that is to be done has been asked
    /// for, but for [`Event::Stopped`].
    Pause,
    /// To tell those who watch the run.
    Tell(Told),
    /// The run has ended, with its result or what went wrong. Nothing follows.
    End(Result<Arc<Value>, Failure>),
}

/// One call of a tool.
#[derive(Clone, Debug, PartialEq)]
pub struct Call {
    /// To report with.
    pub call: CallId,
    /// Where in the run.
    pub place: Place,
    /// The tool's name.
    pub tool: String,
    /// Whether [`Event::Begun`] has to be reported, and stored, before it is made.
    pub once: bool,
}

/// What a tool is called with; asked for when the call is about to be made, since it may be large.
#[derive(Clone, Debug, PartialEq)]
pub struct Arguments {
    /// Those that the definition gives.
    pub given: Map<String, Value>,
    /// `input`, `item`, `index`, `condition_result`, as far as they are there, for tools that take them.
    pub further: Vec<(&'static str, Arc<Value>)>,
}

/// Where in a run something is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Place {
    /// The step's id.
    pub step: String,
    /// The ids from the whole to the step, with the rounds of loops: `rows[3]/fetch`.
    pub path: String,
    /// Which attempt, from 1.
    pub attempt: u32,
}

/// What those who watch are told.
#[derive(Clone, Debug, PartialEq)]
pub enum Told {
    /// A step, or another attempt of it, begins.
    Started(Place),
    /// A branch or a round has given its result, and others are under way.
    Part {
        /// The step whose part it is.
        place: Place,
        /// The branch's id, or the round's number.
        part: Value,
        /// What it gave.
        result: Arc<Value>,
    },
    /// A step has its result.
    Completed {
        /// Which.
        place: Place,
        /// What it gave.
        result: Arc<Value>,
    },
    /// A step failed.
    Failed {
        /// Which.
        place: Place,
        /// How.
        failure: Failure,
        /// What becomes of it: `retried`, `replaced`, `failed`, or `cancelled` where something else ended it.
        becomes: &'static str,
    },
}

/// Bytes of a failure's text; longer ones are cut.
const MESSAGE_BYTES_MAX: usize = 4_096;

/// What went wrong.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Failure {
    /// Which sort.
    pub kind: FailureKind,
    /// For a person to read.
    pub message: String,
    /// The id of the step where it began.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub step: Option<String>,
}

/// Sorts of failures.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum FailureKind {
    /// A tool said so.
    Tool,
    /// There is no such tool.
    ToolNotFound,
    /// What a step needs is not there, or does not fit.
    Invalid,
    /// A step took too long.
    Timeout,
    /// The whole run took too long.
    RunTimeout,
    /// It was cancelled.
    Cancelled,
    /// It was cut short, and is not tried again.
    Interrupted,
    /// Something is larger, or more, than it may be.
    Limit,
}

impl Failure {
    /// A failure whose step is not known yet.
    pub fn new(kind: FailureKind, message: impl Into<String>) -> Self {
        let mut message: String = message.into();
        if message.len() > MESSAGE_BYTES_MAX {
            let end = (0..=MESSAGE_BYTES_MAX).rev().find(|end| message.is_char_boundary(*end)).unwrap_or(0);
            message.truncate(end);
            message.push('…');
        }
        Failure { kind, message, step: None }
    }

    /// Of a step that runs once and was cut short.
    pub fn may_have_run() -> Self {
        let text = "it may have run already, and is marked to run once";
        Failure::new(FailureKind::Interrupted, text)
    }

    /// The same, at a step, unless it began further in.
    pub(super) fn at(mut self, step: &str) -> Self {
        if self.step.is_none() && !step.is_empty() {
            self.step = Some(step.to_owned());
        }
        self
    }

    /// Whether another attempt may succeed.
    pub(super) fn is_worth_another(&self) -> bool {
        matches!(self.kind, FailureKind::Tool | FailureKind::Timeout)
    }

    /// Whether it is the answer of a condition that does not hold.
    pub(super) fn is_a_no(&self) -> bool {
        matches!(self.kind, FailureKind::Tool | FailureKind::Timeout)
    }

    /// As `$error` has it.
    pub(super) fn to_value(&self) -> Value {
        json!({"kind": self.kind, "message": self.message, "step": self.step})
    }

    /// As the deployment words a run's failure.
    pub fn to_error_text(&self) -> String {
        let message = &self.message;
        match self.kind {
            FailureKind::RunTimeout => "Workflow execution timed out".to_owned(),
            FailureKind::Tool | FailureKind::ToolNotFound => format!("Tool execution failed: {message}"),
            FailureKind::Invalid => format!("Validation failed: {message}"),
            _ => match &self.step {
                Some(step) => format!("Workflow execution failed: step {step}: {message}"),
                None => format!("Workflow execution failed: {message}"),
            },
        }
    }
}
