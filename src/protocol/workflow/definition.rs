//! A definition that has been read: every step has an index, an id and its place, and every source names something that is
//! there when the step runs.

use std::sync::Arc;

use serde_json::{Map, Value};

use super::expression::Expression;
use super::source::Source;
use super::trigger::Trigger;

/// A step's place in [`Definition::steps`].
pub type StepIndex = usize;

/// A workflow. The step at 0 is the whole.
#[derive(Clone, Debug, PartialEq)]
pub struct Definition {
    /// All steps; each stands behind those that it lies within.
    pub steps: Vec<Step>,
    /// Milliseconds of a whole run, if the definition says so.
    pub timeout_ms: Option<u64>,
    /// Whether a run that a restart of the server cut short goes on, or has failed.
    pub resumes: bool,
    /// Whether a run goes on whose caller has gone.
    pub outlives_caller: bool,
}

/// One step.
#[derive(Clone, Debug, PartialEq)]
pub struct Step {
    /// Unique in the definition; empty for a list of steps that the definition does not name.
    pub id: String,
    /// The step it lies within.
    pub parent: Option<StepIndex>,
    /// Where it stands in the definition, a JSON Pointer.
    pub path: String,
    /// Its number among the parent's steps.
    pub place: usize,
    /// What it does.
    pub kind: Kind,
    /// Values by parameter: of a tool's arguments, or of the `$input` of the steps within.
    pub input: Vec<(String, Source)>,
    /// Further attempts.
    pub retry: Retry,
    /// Milliseconds of one attempt.
    pub timeout_ms: Option<u64>,
    /// What becomes of its failure.
    pub on_error: OnError,
    /// Whether it is never begun a second time.
    pub run_once: bool,
    /// Whether a source names it.
    pub is_wanted: bool,
}

/// What a step does.
#[derive(Clone, Debug, PartialEq)]
pub enum Kind {
    /// Calls a tool.
    Tool {
        /// Its name.
        tool: String,
        /// Arguments.
        params: Map<String, Value>,
    },
    /// Chooses a tool, and calls it.
    Sampling {
        /// What the tool is wanted for.
        prompt: Value,
        /// Names, or objects with one.
        tools: Vec<Value>,
        /// Whether the tool is called.
        executes: bool,
        /// Arguments of whichever is chosen.
        params: Map<String, Value>,
    },
    /// One after another.
    Sequential {
        /// At least one.
        steps: Vec<StepIndex>,
        /// Whether the result says which tools were called: a `multi_tool`.
        is_multi_tool: bool,
    },
    /// Side by side.
    Parallel {
        /// At least one.
        steps: Vec<StepIndex>,
        /// Gets all results.
        merge: Option<StepIndex>,
        /// How many at once.
        max_concurrent: usize,
    },
    /// One of two.
    Conditional {
        /// Which.
        condition: Condition,
        /// If it holds; none if nothing is to be done.
        success: Option<StepIndex>,
        /// If not.
        failure: Option<StepIndex>,
    },
    /// Again and again.
    Loop {
        /// Over what.
        items: Items,
        /// What each round does.
        body: StepIndex,
        /// Rounds at most.
        max_iterations: usize,
        /// Rounds at once.
        max_concurrent: usize,
        /// Has to hold before each round.
        condition: Option<Expression>,
        /// What becomes of the results.
        collect: Collect,
        /// Gets all results.
        aggregator: Option<StepIndex>,
    },
    /// When something happens.
    Reactive {
        /// What.
        triggers: Vec<Trigger>,
        /// What then runs, by [`Trigger::workflow`], with its name.
        workflows: Vec<(String, StepIndex)>,
    },
}

/// What a branch is chosen by.
#[derive(Clone, Debug, PartialEq)]
pub enum Condition {
    /// The result of a step: its failure, false and null choose the other branch.
    Step(StepIndex),
    /// A comparison.
    Expression(Expression),
}

/// What a loop goes over.
#[derive(Clone, Debug, PartialEq)]
pub enum Items {
    /// These.
    List(Vec<Arc<Value>>),
    /// A list that is there when the loop begins.
    Source(Source),
    /// The list that comes as input or in the context, or else numbers.
    Given,
}

/// What becomes of the results of a loop's rounds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Collect {
    /// A list of them, in the order of the items.
    All,
    /// The one of the last item.
    Last,
    /// Only how many there were: `{"iterations": n}`.
    None,
}

/// Further attempts of a step that failed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Retry {
    /// How many.
    pub max: u32,
    /// Milliseconds to the first.
    pub delay_ms: u64,
    /// By what the milliseconds grow each time.
    pub backoff: u32,
    /// Milliseconds at most.
    pub max_delay_ms: u64,
}

impl Retry {
    /// Milliseconds from the failure of an attempt, counted from 1, to the next.
    pub fn delay_ms(&self, attempt: u32) -> u64 {
        let growth = u64::from(self.backoff).saturating_pow(attempt.saturating_sub(1));
        self.delay_ms.saturating_mul(growth).min(self.max_delay_ms)
    }
}

/// What becomes of a step's failure.
#[derive(Clone, Debug, PartialEq)]
pub enum OnError {
    /// The step that it lies within fails too.
    Fail,
    /// This is its result.
    Value(Arc<Value>),
    /// This step's result is its result.
    Step(StepIndex),
}

impl Definition {
    /// A step.
    pub fn step(&self, index: StepIndex) -> &Step {
        &self.steps[index]
    }

    /// The type of the whole.
    pub fn kind_name(&self) -> &'static str {
        match &self.steps[0].kind {
            Kind::Tool { .. } => "tool",
            Kind::Sampling { .. } => "sampling",
            Kind::Sequential { is_multi_tool: true, .. } => "multi_tool",
            Kind::Sequential { .. } => "sequential",
            Kind::Parallel { .. } => "parallel",
            Kind::Conditional { .. } => "conditional",
            Kind::Loop { .. } => "loop",
            Kind::Reactive { .. } => "reactive",
        }
    }

    /// How many tools a run calls, where the definition says so: no loop, no choice.
    pub fn calls(&self) -> Option<u64> {
        self.calls_of(0)
    }

    fn calls_of(&self, index: StepIndex) -> Option<u64> {
        let sum = |steps: &[StepIndex]| steps.iter().map(|step| self.calls_of(*step)).sum::<Option<u64>>();
        match &self.steps[index].kind {
            Kind::Tool { .. } => Some(1),
            Kind::Sampling { executes, .. } => Some(u64::from(*executes)),
            Kind::Sequential { steps, .. } => sum(steps),
            Kind::Parallel { steps, merge, .. } => Some(sum(steps)? + sum(merge.as_slice())?),
            Kind::Conditional { .. } | Kind::Loop { .. } | Kind::Reactive { .. } => None,
        }
    }
}
