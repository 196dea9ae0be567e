//! `bench mcp-call`: what does a `tools/call` cost whose session is a channel, and how long does it take?
//!
//! Each connection has a session of its own. A call is done when both have come, in either order: the channel's reply, which has
//! to be ok and empty, and the pushed response, which has to bring the text back. Other pushes are counted and passed over.

use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, Result, anyhow, bail};
use clap::Args;
use serde::Serialize;
use tokio::time::timeout;

use super::echo::{OPENING_AT_ONCE, describe};
use super::exchange::Exchange;
use super::frame::{NUMBER_PLACEHOLDER, Opcode, Template, parse_number, write_frame};
use super::mcp::{self, Answers, Call, CallOptions, Came, Era};
use super::message::{self, Envelope, Reply};
use super::options::{LoadOptions, OutputOptions, ServerOptions};
use super::record::Recorder;
use super::report::{Heading, Report, publish};
use super::stage::{each, run as run_stages};
use super::wire::{Join, Wire, each_message};

/// The event of MCP messages in both directions.
const MCP_MESSAGE: &str = "mcp_message";

/// What a topic pattern has where a number goes.
pub const TOPIC_NUMBER: &str = "{n}";

/// Arguments of `bennu bench mcp-call`.
#[derive(Args, Clone, Debug, Serialize)]
pub struct McpCallArgs {
    #[command(flatten)]
    #[serde(flatten)]
    server: ServerOptions,
    /// Topic of the sessions; {n} in it is the connection's number
    #[arg(long, default_value = "mcp:server:demo")]
    topic: String,
    #[command(flatten)]
    #[serde(flatten)]
    call: CallOptions,
    #[command(flatten)]
    #[serde(flatten)]
    load: LoadOptions,
    #[command(flatten)]
    #[serde(flatten)]
    output: OutputOptions,
}

/// Runs the mode.
///
/// # Errors
/// As [`super::run`].
pub fn run(args: &McpCallArgs) -> Result<()> {
    let load = args.call.load()?;
    let plan = args.load.plan(args.output.process()?)?;
    let target = Arc::new(args.server.target()?);
    let limit = args.server.client.limit()?;
    let payload = mcp::join_payload(args.call.era, &args.server.join_payload)?;
    let shared = Arc::new((args.clone(), payload));
    let outcome = run_stages(&plan, async |part| {
        let connect = |index: usize| {
            let (target, shared) = (target.clone(), shared.clone());
            let owner = format!("{}-{index}", part.thread);
            async move {
                let (args, payload) = &*shared;
                let topic = args.topic.replace(TOPIC_NUMBER, &owner);
                let call = args.call.call(&owner)?;
                let mut wire = Wire::open(&target, limit).await?;
                let join = Join { topic: &topic, reference: "1", payload };
                wire.join(&join, limit).await?;
                handshake(&mut wire, &join, ["2", "3"], args.call.era, limit).await?;
                Ok((wire, McpCall::new(&topic, call, args.call.depth)))
            }
        };
        let connections = each(part.share(args.call.connections), OPENING_AT_ONCE, connect).await?;
        load.run(connections, part, limit).await
    })?;
    let heading = Heading { mode: "mcp-call", unit: "call", parameters: serde_json::to_value(args)? };
    let report = Report::of_load(heading, &args.output, &outcome);
    publish(&[report], &args.output, outcome.recorder.first_fault.as_deref())
}

/// Begins the session of a joined channel, as far as its era has more than the join. The two messages have these `references`.
///
/// # Errors
/// If the server refuses, or doesn't answer within `limit`.
pub async fn handshake(
    wire: &mut Wire,
    join: &Join<'_>,
    references: [&str; 2],
    era: Era,
    limit: Duration,
) -> Result<()> {
    if era != Era::Legacy {
        return Ok(());
    }
    let steps = async {
        Step::new(join, references[0], mcp::initialize()).await_answer(wire, mcp::is_initialize_result).await?;
        // A notification has a reply of the channel and no response.
        Step::new(join, references[1], mcp::initialized()).without_response().await_answer(wire, |_| Ok(false)).await
    };
    timeout(limit, steps)
        .await
        .map_err(|_| anyhow!("expected an answer to the handshake, none came within {} s", limit.as_secs_f64()))?
        .with_context(|| format!("beginning an MCP session on {:?}", join.topic))
}

/// One message of a handshake and what has come for it.
struct Step<'a> {
    join: &'a Join<'a>,
    reference: &'a str,
    text: String,
    has_reply: bool,
    has_response: bool,
}

impl<'a> Step<'a> {
    fn new(join: &'a Join<'a>, reference: &'a str, request: String) -> Self {
        let text = message::text(join.reference, reference, join.topic, MCP_MESSAGE, &request);
        Self { join, reference, text, has_reply: false, has_response: false }
    }

    fn without_response(mut self) -> Self {
        self.has_response = true;
        self
    }

    async fn await_answer(mut self, wire: &mut Wire, is_response: fn(&str) -> Result<bool>) -> Result<()> {
        write_frame(&mut wire.out, Opcode::Text, self.text.as_bytes());
        while !(self.has_reply && self.has_response) {
            wire.turn(|out, bytes, _| each_message(bytes, out, |came, _| self.take(came, is_response))).await?;
        }
        Ok(())
    }

    fn take(&mut self, came: &Envelope<'_>, is_response: fn(&str) -> Result<bool>) -> Result<()> {
        match came.event {
            _ if came.topic != self.join.topic => {}
            "phx_reply" if came.reference == Some(self.reference) => {
                if !is_empty_ok(came.payload) {
                    bail!("expected an empty ok, came {}", describe(came));
                }
                self.has_reply = true;
            }
            "phx_error" | "phx_close" => bail!("expected an answer, came {}", describe(came)),
            MCP_MESSAGE => self.has_response |= is_response(came.payload)?,
            _ => {}
        }
        Ok(())
    }
}

fn is_empty_ok(payload: &str) -> bool {
    payload == r#"{"status":"ok","response":{}}"#
        || payload == r#"{"response":{},"status":"ok"}"#
        || Reply::parse(payload).is_some_and(|reply| reply.status == "ok" && reply.response == serde_json::json!({}))
}

/// Calls on one channel, told apart by their number: it is the ref of the message and the id of the request.
struct McpCall {
    topic: String,
    template: Template,
    answers: Answers,
    /// Call `number` is in slot `number % depth`.
    calls: Vec<Option<Halves>>,
}

/// What of a call's two answers has come.
#[derive(Clone, Copy)]
struct Halves {
    number: u64,
    has_reply: bool,
    has_response: bool,
}

impl McpCall {
    fn new(topic: &str, call: Call, depth: usize) -> Self {
        let text = message::text("1", NUMBER_PLACEHOLDER, topic, MCP_MESSAGE, &call.request);
        Self {
            topic: topic.to_owned(),
            template: Template::new(&text),
            answers: Answers::new(call.text),
            calls: vec![None; depth],
        }
    }

    /// Takes a reply. One that isn't ok ends its call: no response is to be expected.
    fn take_reply(&mut self, came: &Envelope<'_>, done: &mut Vec<u64>) -> Result<(), String> {
        let number = came.reference.and_then(|text| parse_number(text.as_bytes()));
        let number = number.ok_or_else(|| format!("expected a ref of this run, came {}", describe(came)))?;
        let is_ok = is_empty_ok(came.payload);
        self.take_half(number, done, |call| {
            call.has_response |= !is_ok;
            std::mem::replace(&mut call.has_reply, true)
        })?;
        if is_ok { Ok(()) } else { Err(format!("expected an empty ok, came {}", describe(came))) }
    }

    fn take_message(&mut self, came: &Envelope<'_>, done: &mut Vec<u64>) -> Result<(), String> {
        match self.answers.read(came.payload) {
            Came::Answer(number, verdict) => {
                self.take_half(number, done, |call| std::mem::replace(&mut call.has_response, true))?;
                verdict
            }
            Came::Stray(what) => Err(what),
            Came::Other => {
                Recorder::with(|recorder| recorder.pushes += 1);
                Ok(())
            }
        }
    }

    /// Marks one half of a call's answer, which wasn't there before if `mark` returns false.
    fn take_half(
        &mut self,
        number: u64,
        done: &mut Vec<u64>,
        mark: impl FnOnce(&mut Halves) -> bool,
    ) -> Result<(), String> {
        let slot = number as usize % self.calls.len();
        let slot = &mut self.calls[slot];
        let Some(call) = slot.as_mut().filter(|call| call.number == number) else {
            return Err(format!("answer to call {number}, which isn't in flight"));
        };
        if mark(call) {
            return Err(format!("the same half of the answer to call {number} came twice"));
        }
        if call.has_reply && call.has_response {
            *slot = None;
            done.push(number);
        }
        Ok(())
    }
}

impl Exchange for McpCall {
    fn write(&mut self, out: &mut Vec<u8>, number: u64) {
        self.template.write(out, number);
        let slot = number as usize % self.calls.len();
        self.calls[slot] = Some(Halves { number, has_reply: false, has_response: false });
    }

    fn read(&mut self, bytes: &[u8], out: &mut Vec<u8>, done: &mut Vec<u64>) -> Result<usize> {
        each_message(bytes, out, |came, _| {
            let taken = match came.event {
                _ if came.topic != self.topic => {
                    Err(format!("expected topic {:?}, came {}", self.topic, describe(came)))
                }
                "phx_reply" => self.take_reply(came, done),
                MCP_MESSAGE => self.take_message(came, done),
                "phx_error" | "phx_close" => bail!("expected an answer, came {}", describe(came)),
                // What a call tells of its progress.
                _ => {
                    Recorder::with(|recorder| recorder.pushes += 1);
                    Ok(())
                }
            };
            if let Err(wrong) = taken {
                Recorder::with(|recorder| recorder.fault(|| wrong));
            }
            Ok(())
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const TOPIC: &str = "mcp:server:demo";

    fn exchange(depth: u64) -> McpCall {
        let call = Call { request: format!(r#"{{"id":{NUMBER_PLACEHOLDER}}}"#), text: "abc".to_owned() };
        let mut exchange = McpCall::new(TOPIC, call, depth as usize);
        for number in 0..depth {
            exchange.write(&mut Vec::new(), number);
        }
        exchange
    }

    fn frame(reference: &str, topic: &str, event: &str, payload: &str) -> Vec<u8> {
        let text = format!(r#"["1",{reference},"{topic}","{event}",{payload}]"#);
        let mut frame = vec![0x81, 126];
        frame.extend_from_slice(&(text.len() as u16).to_be_bytes());
        frame.extend_from_slice(text.as_bytes());
        frame
    }

    fn reply(number: u64) -> Vec<u8> {
        reply_with(number, r#"{"status":"ok","response":{}}"#)
    }

    fn reply_with(number: u64, payload: &str) -> Vec<u8> {
        frame(&format!(r#""{}""#, 1_000_000_000 + number), TOPIC, "phx_reply", payload)
    }

    fn response(number: u64, text: &str) -> Vec<u8> {
        let id = 1_000_000_000 + number;
        let payload =
            format!(r#"{{"jsonrpc":"2.0","id":{id},"result":{{"content":[{{"type":"text","text":"{text}"}}]}}}}"#);
        push(MCP_MESSAGE, &payload)
    }

    fn push(event: &str, payload: &str) -> Vec<u8> {
        frame("null", TOPIC, event, payload)
    }

    /// Returns the numbers answered, and the faults and pushes counted.
    fn check(exchange: &mut McpCall, frames: &[Vec<u8>]) -> (Vec<u64>, u64, u64) {
        let mut done = Vec::new();
        let bytes = frames.concat();
        let taken = exchange.read(&bytes, &mut Vec::new(), &mut done).expect("readable frames");
        assert_eq!(taken, bytes.len());
        let recorder = Recorder::take();
        (done, recorder.faults, recorder.pushes)
    }

    #[test]
    fn a_call_is_a_push_whose_ref_is_the_id_of_its_request() {
        let mut frame = Vec::new();
        exchange(1).write(&mut frame, 5);

        let mut expected = Vec::new();
        let text = r#"["1","1000000005","mcp:server:demo","mcp_message",{"id":1000000005}]"#;
        write_frame(&mut expected, Opcode::Text, text.as_bytes());
        assert_eq!(frame, expected);
    }

    #[test]
    fn a_call_is_done_when_both_halves_have_come_in_either_order() {
        let mut exchange = exchange(2);
        assert_eq!(check(&mut exchange, &[reply(0), response(1, "abc")]), (vec![], 0, 0));
        assert_eq!(check(&mut exchange, &[reply(1), response(0, "abc")]), (vec![1, 0], 0, 0));
    }

    #[test]
    fn pushes_between_are_counted_and_passed_over() {
        let frames = [
            push("streaming_event", r#"{"type":"tool_started"}"#),
            reply(0),
            push(MCP_MESSAGE, r#"{"jsonrpc":"2.0","method":"notifications/progress","params":{}}"#),
            push("streaming_event", r#"{"type":"tool_completed"}"#),
            response(0, "abc"),
        ];
        assert_eq!(check(&mut exchange(1), &frames), (vec![0], 0, 3));
    }

    #[test]
    fn planted_wrong_answers_are_faults_and_never_block_the_loop() {
        let error = r#"{"jsonrpc":"2.0","id":1000000000,"error":{"code":-32603,"message":"no"}}"#;
        for (frames, done) in [
            (vec![reply(0), response(0, "abd")], vec![0]),
            (vec![reply(0), push(MCP_MESSAGE, error)], vec![0]),
            (vec![reply_with(0, r#"{"status":"ok","response":{"a":1}}"#)], vec![0]),
            (vec![reply_with(0, r#"{"status":"error","response":{}}"#)], vec![0]),
            (vec![reply(0), reply(0), response(0, "abc")], vec![0]),
            (vec![response(0, "abc"), response(0, "abc"), reply(0)], vec![0]),
            (vec![reply(0), response(0, "abc"), response(0, "abc")], vec![0]),
            (vec![reply(0), response(7, "abc")], vec![]),
            (vec![reply(7), response(0, "abc")], vec![]),
            (vec![frame(r#""17""#, TOPIC, "phx_reply", "{}")], vec![]),
            (vec![frame("null", "mcp:server:other", MCP_MESSAGE, "{}")], vec![]),
            (vec![push(MCP_MESSAGE, "{}")], vec![]),
        ] {
            assert_eq!(check(&mut exchange(1), &frames), (done, 1, 0), "{}", String::from_utf8_lossy(&frames.concat()));
        }
    }

    #[test]
    fn a_channel_that_ends_is_an_error() {
        for event in ["phx_error", "phx_close"] {
            let ended = push(event, "{}");
            let error = exchange(1).read(&ended, &mut Vec::new(), &mut Vec::new()).expect_err("the channel has ended");
            assert!(error.to_string().contains(event), "{error}");
        }
    }

    #[test]
    fn a_handshake_needs_both_the_reply_and_the_response() {
        let join = Join { topic: TOPIC, reference: "1", payload: "{}" };
        let take = |step: &mut Step<'_>, frame: &[u8]| {
            each_message(frame, &mut Vec::new(), |came, _| step.take(came, mcp::is_initialize_result)).map(drop)
        };
        let ok = frame(r#""2""#, TOPIC, "phx_reply", r#"{"response":{},"status":"ok"}"#);
        let result = push(MCP_MESSAGE, r#"{"jsonrpc":"2.0","id":1,"result":{"protocolVersion":"2025-11-25"}}"#);
        let step = || Step::new(&join, "2", mcp::initialize());

        for frames in [[&ok, &result], [&result, &ok]] {
            let mut step = step();
            take(&mut step, frames[0]).expect("the first half");
            assert!(!(step.has_reply && step.has_response));
            take(&mut step, frames[1]).expect("the second half");
            assert!(step.has_reply && step.has_response);
        }
        let refused = push(MCP_MESSAGE, r#"{"jsonrpc":"2.0","id":1,"error":{"code":-32602,"message":"no"}}"#);
        let failed = frame(r#""2""#, TOPIC, "phx_reply", r#"{"status":"error","response":{}}"#);
        for wrong in [refused, failed, push("phx_error", "{}")] {
            take(&mut step(), &wrong).expect_err("no session");
        }
        let mut step = step();
        take(&mut step, &frame(r#""9""#, TOPIC, "phx_reply", r#"{"status":"error","response":{}}"#))
            .expect("another's");
        take(&mut step, &push("streaming_event", "{}")).expect("another event");
        assert!(!step.has_reply && !step.has_response);
    }
}
