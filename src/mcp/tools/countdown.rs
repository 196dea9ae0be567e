//! `countdown`: waits, and says at each step how much is left. The plainest way to see progress stream.

use std::collections::BTreeMap;
use std::time::Duration;

use serde_json::{Value, json};

use super::{Arguments, ToolHandler, ToolOutput, Work};
use crate::clock;
use crate::mcp::{CallContext, CallError};
use crate::protocol::mcp::content::Content;
use crate::protocol::mcp::tool::{ToolCapabilities, ToolMetadata, ToolSpec, object_schema};

const SECONDS_MAX: u64 = 60;
const SECONDS_DEFAULT: u64 = 5;
/// Milliseconds; above the interval at which progress is let through, so that each step is seen.
const INTERVAL_MS_MIN: u64 = 100;
const INTERVAL_MS_MAX: u64 = 10_000;
const INTERVAL_MS_DEFAULT: u64 = 1_000;
const EXECUTION_MS_MAX: u64 = 70_000;

/// Counts down 1 to 60 seconds.
#[derive(Clone, Copy, Debug)]
pub struct Countdown;

impl ToolHandler for Countdown {
    fn spec(&self) -> ToolSpec {
        let properties = json!({
            "seconds": {
                "type": "integer", "description": "How long to count down",
                "minimum": 1, "maximum": SECONDS_MAX, "default": SECONDS_DEFAULT
            },
            "interval_ms": {
                "type": "integer", "description": "Milliseconds from one step to the next",
                "minimum": INTERVAL_MS_MIN, "maximum": INTERVAL_MS_MAX, "default": INTERVAL_MS_DEFAULT
            }
        });
        let Value::Object(properties) = properties else { unreachable!("written above as an object") };
        ToolSpec {
            description: "Counts down a number of seconds and reports each step.".to_owned(),
            input_schema: object_schema(properties, &[]),
            capabilities: ToolCapabilities {
                supports_streaming: true,
                max_execution_time: EXECUTION_MS_MAX,
                ..ToolCapabilities::default()
            },
            metadata: ToolMetadata::new("demo", &["progress", "time"], EXECUTION_MS_MAX),
            ..ToolSpec::new("countdown")
        }
    }

    fn prepare(&self, arguments: Arguments<'_>) -> Result<Work, CallError> {
        let seconds = arguments.integer("seconds", 1..=SECONDS_MAX, Some(SECONDS_DEFAULT))?;
        let interval_ms =
            arguments.integer("interval_ms", INTERVAL_MS_MIN..=INTERVAL_MS_MAX, Some(INTERVAL_MS_DEFAULT))?;
        Ok(Work::new(move |context| async move {
            let steps = count(seconds * 1_000, interval_ms, &context).await;
            Ok(ToolOutput {
                content: vec![Content::text(format!("counted down {seconds} s in {steps} steps"))],
                usage: BTreeMap::from([("steps", steps)]),
                ..ToolOutput::default()
            })
        }))
    }
}

/// Waits `total_ms` in steps, the last of which may be shorter; returns their number.
async fn count(total_ms: u64, interval_ms: u64, context: &CallContext) -> u64 {
    let start = clock::now();
    let steps = total_ms.div_ceil(interval_ms);
    for step in 1..=steps {
        let due_ms = (step * interval_ms).min(total_ms);
        // From the start, so that late wake-ups don't add up.
        tokio::time::sleep(Duration::from_millis(due_ms.saturating_sub(clock::now().since(start)))).await;
        let message = format!("{:.1} s left", as_f64(total_ms - due_ms) / 1_000.0);
        context.progress(as_f64(step), Some(as_f64(steps)), Some(message));
    }
    steps
}

fn as_f64(value: u64) -> f64 {
    value as f64
}

#[cfg(test)]
mod tests {
    use super::super::testing::{call, context};
    use super::*;

    #[tokio::test]
    async fn each_step_is_reported_until_nothing_is_left() {
        let (context, reports) = context();

        let output = call(Countdown, json!({"seconds": 1, "interval_ms": 300}), context).await.expect("counts");

        let told: Vec<_> = reports.all().iter().map(|r| (r.progress, r.total, r.message.clone())).collect();
        let step = |n: f64, left: &str| (n, Some(4.0), Some(left.to_owned()));
        assert_eq!(
            told,
            [step(1.0, "0.7 s left"), step(2.0, "0.4 s left"), step(3.0, "0.1 s left"), step(4.0, "0.0 s left")]
        );
        assert_eq!(output.content, [Content::text("counted down 1 s in 4 steps")]);
    }

    #[tokio::test]
    async fn arguments_out_of_range_are_refused() {
        for arguments in [json!({"seconds": 0}), json!({"seconds": 61}), json!({"interval_ms": 99})] {
            let outcome = call(Countdown, arguments, context().0).await;

            assert!(matches!(outcome, Err(CallError::InvalidArguments(_))), "{outcome:?}");
        }
    }
}
