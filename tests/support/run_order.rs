//! Whether progress kept its order: a check over what clients saw of many calls at a time, without a server.
//!
//! Each call of [`Work::tool`] tells its progress as 1, 2, … up to [`Work::steps`], without leaving any out, and then answers.
//! The caller sees that as `notifications/progress` and a response on its session's topic; an observer as the events of
//! `mcp:run:<id>`, those in the join's reply first. Both have to see each number once, in order, and nothing after the end.

#![allow(dead_code, reason = "each target that includes this uses another part")]

use std::collections::BTreeMap;

use serde_json::{Value, json};

/// What is called, and how often.
#[derive(Clone, Copy, Debug)]
pub struct Work {
    /// Sessions of one socket.
    pub sessions: usize,
    /// Calls under way at a time in each.
    pub calls_per_session: usize,
    /// Progress notifications of each call.
    pub steps: u64,
    pub tool: &'static str,
    /// The name of the argument that takes `steps`.
    pub steps_argument: &'static str,
}

/// 200 calls of 50 steps: enough for rmcp 3.11, which hands each notification to a task of its own, to deliver at least eleven
/// of them out of order on two threads.
pub const MANY: Work = Work { sessions: 20, calls_per_session: 10, steps: 50, tool: "count", steps_argument: "steps" };

/// One call that was made.
#[derive(Clone, Debug)]
pub struct Call {
    pub topic: String,
    /// Its id, and its progress token too; no two calls have the same, whatever their sessions.
    pub id: String,
}

/// One frame as its client got it.
#[derive(Clone, Copy, Debug)]
pub struct Seen<'a> {
    pub topic: &'a str,
    pub event: &'a str,
    pub payload: &'a Value,
}

impl Work {
    /// All the calls; `topic` gives the topic of a session by its number.
    pub fn calls(&self, topic: impl Fn(usize) -> String) -> Vec<Call> {
        let of_session = |session| (0..self.calls_per_session).map(move |n| (session, n));
        let all = (0..self.sessions).flat_map(of_session);
        all.map(|(session, n)| Call { topic: topic(session), id: format!("call-{session}-{n}") }).collect()
    }

    /// The request of a call.
    pub fn request(&self, call: &Call) -> Value {
        let params = json!({
            "name": self.tool,
            "arguments": {self.steps_argument: self.steps},
            "_meta": {"progressToken": call.id},
        });
        json!({"jsonrpc": "2.0", "id": call.id, "method": "tools/call", "params": params})
    }

    /// Checks what the socket of the sessions got. It need not be in the order of the calls, only of each call.
    ///
    /// # Errors
    /// Everything that is wrong.
    pub fn check_caller<'a>(&self, calls: &[Call], seen: impl Iterator<Item = Seen<'a>>) -> Result<(), Vec<String>> {
        let mut tracks: BTreeMap<(&str, &str), Track> =
            calls.iter().map(|call| ((call.topic.as_str(), call.id.as_str()), Track::default())).collect();
        let mut faults = Vec::new();

        for frame in seen.filter(|frame| frame.event == "mcp_message") {
            let Some((id, step)) = step_of_message(frame.payload) else { continue };
            match tracks.get_mut(&(frame.topic, id)) {
                Some(track) => faults.extend(track.take(step, self.steps).map(|fault| format!("{id}: {fault}"))),
                None => faults.push(format!("{id}: {step:?} on {}, which is not its topic", frame.topic)),
            }
        }
        let unended = tracks.iter().filter(|(_, track)| !track.ended);
        faults.extend(unended.map(|((_, id), track)| format!("{id}: no end after {} steps", track.steps)));
        if faults.is_empty() { Ok(()) } else { Err(faults) }
    }

    /// Checks what a socket got that had joined `mcp:run:<id>` for every run, each once.
    ///
    /// # Errors
    /// Everything that is wrong.
    pub fn check_observer<'a>(&self, runs: usize, seen: impl Iterator<Item = Seen<'a>>) -> Result<(), Vec<String>> {
        let mut tracks: BTreeMap<&str, Track> = BTreeMap::new();
        let mut faults = Vec::new();

        for frame in seen {
            let Some(run) = frame.topic.strip_prefix("mcp:run:") else { continue };
            let track = tracks.entry(run).or_default();
            for step in steps_of_run(frame) {
                faults.extend(track.take(step, self.steps).map(|fault| format!("run {run}: {fault}")));
            }
        }
        if tracks.len() != runs {
            faults.push(format!("expected {runs} runs, saw {}", tracks.len()));
        }
        let unended = tracks.iter().filter(|(_, track)| !track.ended);
        faults.extend(unended.map(|(run, track)| format!("run {run}: no end after {} steps", track.steps)));
        if faults.is_empty() { Ok(()) } else { Err(faults) }
    }
}

/// What one message says of its call.
#[derive(Clone, Copy, Debug)]
enum Step {
    Progress(f64),
    Ended,
    Failed,
}

/// How far a call has come.
#[derive(Default)]
struct Track {
    steps: u64,
    ended: bool,
}

impl Track {
    /// Gives what is wrong with the step.
    fn take(&mut self, step: Step, steps: u64) -> Option<String> {
        if self.ended {
            return Some(format!("{step:?} after the end"));
        }
        match step {
            Step::Progress(progress) => {
                self.steps += 1;
                // Both are small whole numbers, which floats tell apart.
                let is_next = (progress - self.steps as f64).abs() < 0.5;
                // Goes on from what came, so that one number that is missing is one fault.
                let expected = std::mem::replace(&mut self.steps, progress as u64);
                (!is_next).then(|| format!("progress {progress} where {expected} was next"))
            }
            Step::Ended | Step::Failed => {
                self.ended = true;
                let complete = self.steps == steps && matches!(step, Step::Ended);
                (!complete).then(|| format!("{step:?} after {} of {steps} steps", self.steps))
            }
        }
    }
}

/// The call and the step of a JSON-RPC message on a session's topic.
fn step_of_message(message: &Value) -> Option<(&str, Step)> {
    if message["method"] == "notifications/progress" {
        let params = &message["params"];
        return Some((params["progressToken"].as_str()?, Step::Progress(params["progress"].as_f64()?)));
    }
    let id = message["id"].as_str()?;
    if message.get("method").is_some() {
        return None;
    }
    let well = message.get("result").is_some_and(|result| result["isError"] != true);
    Some((id, if well { Step::Ended } else { Step::Failed }))
}

/// The steps that a frame of `mcp:run:<id>` tells: the reply to the join has all that came before it.
fn steps_of_run(frame: Seen<'_>) -> Vec<Step> {
    match frame.event {
        "phx_reply" => {
            let events = frame.payload["response"]["events"].as_array();
            events.into_iter().flatten().filter_map(step_of_event).collect()
        }
        _ => step_of_event(frame.payload).into_iter().collect(),
    }
}

/// An event of a run in either shape: a streaming event, or the JSON-RPC message that its caller gets.
fn step_of_event(event: &Value) -> Option<Step> {
    match event["type"].as_str() {
        Some("tool_progress") => event["data"]["progress"].as_f64().map(Step::Progress),
        Some("tool_completed") => Some(Step::Ended),
        Some("tool_failed") => Some(Step::Failed),
        Some(_) => None,
        None => step_of_message(event).map(|(_, step)| step),
    }
}
