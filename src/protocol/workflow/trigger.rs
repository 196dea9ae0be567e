//! What begins a reactive workflow: an event on a topic, the end of a run, a schedule.

use std::sync::Arc;

use serde_json::Value;

use super::expression::Expression;
use super::source::{Origin, Source};

/// One trigger.
#[derive(Clone, Debug, PartialEq)]
pub struct Trigger {
    /// What it waits for.
    pub on: On,
    /// The name of the event, as it was written.
    pub event: String,
    /// Which workflow it begins, where there are several: its place among them.
    pub workflow: usize,
    /// What has to hold of `$trigger`.
    pub condition: Option<Expression>,
    /// Milliseconds from the event to the workflow.
    pub delay_ms: u64,
    /// Whether it is heeded.
    pub is_active: bool,
}

/// What a trigger waits for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum On {
    /// A broadcast: of the event on the topic; or, on `mcp:events:<event>`, of any event.
    Broadcast {
        /// Where.
        topic: String,
        /// Which; none for any.
        event: Option<String>,
    },
    /// The end of a run that the trigger's owner may watch.
    Run {
        /// Which end; none for either.
        completed: Option<bool>,
        /// Of this tool or workflow; none for any.
        of: Option<String>,
    },
    /// Each time that so many milliseconds have gone by.
    Every(u64),
}

/// The topic that an event without a topic is broadcast on.
pub const EVENT_TOPIC_PREFIX: &str = "mcp:events:";
/// Milliseconds between two beginnings by schedule at least.
pub const EVERY_MS_MIN: u64 = 100;

/// Whether a trigger's condition holds of what fired it, where nothing else is around.
pub fn holds(trigger: &Trigger, value: &Arc<Value>) -> bool {
    let find = |source: &Source| (source.origin == Origin::Trigger).then(|| Arc::clone(value));
    trigger.condition.as_ref().is_none_or(|condition| condition.holds(&find))
}
