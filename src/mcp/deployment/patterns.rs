//! Recent patterns: which tools a user's sessions called of late, how often, how it went.
//!
//! They are counted from the runs that the server remembers, so they reach as far back as these do (`mcp.run_retention_ms`) and
//! end with the process. They change with every call, and nobody is told: who wants to know reads.

use std::collections::BTreeMap;

use serde::Serialize;

use super::PATTERNS_MAX;
use crate::mcp::{CallContext, Resource};
use crate::protocol::mcp::event::{RunStatus, RunSummary};

const URI: &str = "memory://patterns/recent";

/// How a user calls one tool.
#[derive(Clone, Debug, PartialEq, Serialize)]
struct Pattern {
    tool: String,
    calls: u64,
    completed: u64,
    failed: u64,
    running: u64,
    /// ISO 8601.
    first_called_at: String,
    /// ISO 8601.
    last_called_at: String,
}

pub(super) fn resource() -> Resource {
    Resource::new(URI, "Recent patterns", |context: CallContext| async move {
        let runs = context.runs();
        Ok(serde_json::to_string(&patterns(&runs)).expect("patterns have string keys"))
    })
    .description("Which tools this user's sessions called of late, the last one first.")
    .mime_type("application/json")
}

/// The patterns in runs that are in the order in which they began.
fn patterns(runs: &[RunSummary]) -> Vec<Pattern> {
    // With the place of the tool's last run.
    let mut by_tool: BTreeMap<&str, (usize, Pattern)> = BTreeMap::new();
    for (place, run) in runs.iter().enumerate().filter(|(_, run)| run.workflow_id.is_none()) {
        let new = || {
            let (first, last) = (run.started_at.clone(), String::new());
            let (calls, completed, failed, running) = (0, 0, 0, 0);
            let tool = run.tool.clone();
            (place, Pattern { tool, calls, completed, failed, running, first_called_at: first, last_called_at: last })
        };
        let (last, pattern) = by_tool.entry(&run.tool).or_insert_with(new);
        *last = place;
        pattern.calls += 1;
        match run.status {
            RunStatus::Completed => pattern.completed += 1,
            RunStatus::Failed => pattern.failed += 1,
            RunStatus::Running => pattern.running += 1,
        }
        pattern.last_called_at.clone_from(&run.started_at);
    }
    let mut patterns: Vec<_> = by_tool.into_values().collect();
    patterns.sort_by_key(|(last, _)| std::cmp::Reverse(*last));
    patterns.into_iter().take(PATTERNS_MAX).map(|(_, pattern)| pattern).collect()
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn run(tool: &str, status: RunStatus, at: &str) -> RunSummary {
        RunSummary {
            run_id: "r".to_owned(),
            tool: tool.to_owned(),
            workflow_id: None,
            status,
            started_at: at.to_owned(),
            finished_at: None,
            events: 1,
            dropped_events: 0,
        }
    }

    #[test]
    fn calls_are_counted_by_tool_the_last_called_first() {
        let runs = [
            run("a", RunStatus::Completed, "1"),
            run("b", RunStatus::Failed, "2"),
            run("a", RunStatus::Failed, "3"),
            run("b", RunStatus::Completed, "4"),
            run("a", RunStatus::Running, "5"),
        ];

        assert_eq!(
            serde_json::to_value(patterns(&runs)).expect("JSON"),
            json!([
                {"tool": "a", "calls": 3, "completed": 1, "failed": 1, "running": 1, "first_called_at": "1", "last_called_at": "5"},
                {"tool": "b", "calls": 2, "completed": 1, "failed": 1, "running": 0, "first_called_at": "2", "last_called_at": "4"},
            ])
        );
        assert_eq!(patterns(&[]), []);
    }

    #[test]
    fn the_tools_called_last_are_kept() {
        let runs: Vec<_> = (0..PATTERNS_MAX + 10).map(|n| run(&n.to_string(), RunStatus::Completed, "1")).collect();

        let patterns = patterns(&runs);

        assert_eq!((patterns.len(), patterns[0].tool.as_str()), (PATTERNS_MAX, "59"));
    }
}
