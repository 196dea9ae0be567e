//! `bench echo`: what does a message cost that a channel answers, and how long does it take?
//!
//! Each connection joins a topic of its own and sends the echo event; the reply must be ok, carry the ref, and (checked whole for
//! the first reply of each connection, by its length after that) the payload.

use std::sync::Arc;

use anyhow::{Result, bail};
use clap::Args;
use serde::Serialize;

use super::exchange::{Exchange, Load};
use super::frame::{NUMBER_PLACEHOLDER, Template, parse_number};
use super::message::{self, Envelope, Reply};
use super::options::{LoadOptions, OutputOptions, ServerOptions, at_least_one};
use super::process::check_open_files;
use super::record::Recorder;
use super::report::{Heading, Report, publish};
use super::stage::{each, run as run_stages};
use super::wire::{Join, Wire, each_message};

/// Connections that are opened at the same time.
pub const OPENING_AT_ONCE: usize = 64;

/// Arguments of `bennu bench echo`.
#[derive(Args, Clone, Debug, Serialize)]
pub struct EchoArgs {
    #[command(flatten)]
    #[serde(flatten)]
    server: ServerOptions,
    #[command(flatten)]
    #[serde(flatten)]
    shape: EchoShape,
    /// Connection N joins this with N appended
    #[arg(long, default_value = "bench:echo-")]
    topic_prefix: String,
    /// Event that the channel answers with its payload
    #[arg(long, default_value = "echo")]
    event: String,
    #[command(flatten)]
    #[serde(flatten)]
    load: LoadOptions,
    #[command(flatten)]
    #[serde(flatten)]
    output: OutputOptions,
}

/// The shape of an echo load, on Phoenix or on plain TCP.
#[derive(Args, Clone, Debug, Serialize)]
pub struct EchoShape {
    /// Connections
    #[arg(long, short = 'c', default_value_t = 64)]
    pub connections: usize,
    /// Messages in flight a connection
    #[arg(long, short = 'd', default_value_t = 1)]
    pub depth: usize,
    /// Messages a second of all connections together, sent on a fixed schedule instead of after answers
    #[arg(long, conflicts_with = "depth")]
    pub rate: Option<f64>,
    /// Bytes of the text in each payload
    #[arg(long, default_value_t = 64)]
    pub payload: usize,
}

impl EchoShape {
    /// Checks the numbers and says how the load runs.
    ///
    /// # Errors
    /// If a count is 0, the rate isn't above 0, or the connections need more open files than are allowed.
    pub fn load(&self) -> Result<Load> {
        at_least_one("connections", self.connections)?;
        at_least_one("depth", self.depth)?;
        check_open_files(self.connections)?;
        match self.rate {
            None => Ok(Load::Closed { depth: self.depth }),
            Some(rate_per_s) if rate_per_s.is_finite() && rate_per_s > 0.0 => Ok(Load::Open { rate_per_s }),
            Some(rate_per_s) => bail!("rate is {rate_per_s}, expected a number above 0"),
        }
    }
}

/// The echo message of one connection as V2 text, its number still a placeholder.
pub fn echo_text(topic: &str, event: &str, payload_bytes: usize) -> String {
    message::text("1", NUMBER_PLACEHOLDER, topic, event, &payload(payload_bytes))
}

fn payload(bytes: usize) -> String {
    format!(r#"{{"p":"{}"}}"#, "x".repeat(bytes))
}

/// Runs the mode.
///
/// # Errors
/// As [`super::run`].
pub fn run(args: &EchoArgs) -> Result<()> {
    let load = args.shape.load()?;
    let plan = args.load.plan(args.output.process()?)?;
    let target = Arc::new(args.server.target()?);
    let limit = args.server.client.limit()?;
    let shared = Arc::new(args.clone());
    let outcome = run_stages(&plan, async |part| {
        let connections = part.share(args.shape.connections);
        let connect = |index: usize| {
            let (target, args) = (target.clone(), shared.clone());
            let topic = format!("{}{}-{index}", args.topic_prefix, part.thread);
            async move {
                let mut wire = Wire::open(&target, limit).await?;
                let join = Join { topic: &topic, reference: "1", payload: &args.server.join_payload };
                wire.join(&join, limit).await?;
                let text = echo_text(&topic, &args.event, args.shape.payload);
                let exchange = PhoenixEcho::new(&text, payload(args.shape.payload));
                Ok((wire, exchange))
            }
        };
        let connections = each(connections, OPENING_AT_ONCE, connect).await?;
        load.run(connections, part, limit).await
    })?;
    let heading = Heading { mode: "echo", unit: "message", parameters: serde_json::to_value(args)? };
    let report = Report::of_load(heading, &args.output, &outcome);
    publish(&[report], &args.output, outcome.recorder.first_fault.as_deref())
}

/// Echo events on one channel, told apart by ref.
struct PhoenixEcho {
    template: Template,
    expected: String,
    /// Length of the reply's payload, known once the first was checked whole.
    reply_bytes: Option<usize>,
}

impl PhoenixEcho {
    fn new(text: &str, expected: String) -> Self {
        Self { template: Template::new(text), expected, reply_bytes: None }
    }

    /// Checks a reply.
    ///
    /// # Errors
    /// What was expected and what came, as text.
    fn check(&mut self, came: &Envelope<'_>) -> Result<(), String> {
        let bytes = came.payload.len();
        let expected = if !message::reply_is_ok(came.payload) {
            "status ok"
        } else if self.reply_bytes.is_some_and(|first| first != bytes) {
            "a reply as long as the first"
        } else if self.reply_bytes.is_none() && !self.echoes(came.payload) {
            "the payload sent"
        } else {
            self.reply_bytes = Some(bytes);
            return Ok(());
        };
        Err(format!("expected {expected}, came {}", describe(came)))
    }

    fn echoes(&self, payload: &str) -> bool {
        let expected: Option<serde_json::Value> = serde_json::from_str(&self.expected).ok();
        Reply::parse(payload).map(|reply| reply.response) == expected
    }
}

impl Exchange for PhoenixEcho {
    fn write(&mut self, out: &mut Vec<u8>, number: u64) {
        self.template.write(out, number);
    }

    fn read(&mut self, bytes: &[u8], out: &mut Vec<u8>, done: &mut Vec<u64>) -> Result<usize> {
        each_message(bytes, out, |came, _| {
            match came.event {
                "phx_reply" => {}
                "phx_error" | "phx_close" => bail!("expected a reply, came {}", describe(came)),
                // Presence and the application's own pushes are not what is measured.
                _ => return Ok(()),
            }
            let number = came.reference.and_then(|text| parse_number(text.as_bytes()));
            let Some(number) = number else {
                Recorder::with(|recorder| {
                    recorder.fault(|| format!("expected a ref of this run, came {}", describe(came)));
                });
                return Ok(());
            };
            if let Err(wrong) = self.check(came) {
                Recorder::with(|recorder| recorder.fault(|| wrong));
            }
            done.push(number);
            Ok(())
        })
    }
}

/// Says what a message is, for an error.
pub fn describe(came: &Envelope<'_>) -> String {
    format!(
        "event {:?} on {:?} with ref {:?} and payload {}",
        came.event,
        came.topic,
        came.reference,
        message::excerpt(came.payload)
    )
}

/// The bytes of one echo request on the wire, for a plain TCP load of the same size.
pub fn request_bytes(payload_bytes: usize) -> usize {
    Template::new(&echo_text("bench:echo-0-0", "echo", payload_bytes)).frame_bytes()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn exchange() -> PhoenixEcho {
        PhoenixEcho::new(&echo_text("bench:a", "echo", 3), payload(3))
    }

    fn reply(reference: &str, payload: &str) -> Vec<u8> {
        let text = format!(r#"["1",{reference},"bench:a","phx_reply",{payload}]"#);
        let mut frame = vec![0x81, 126];
        frame.extend_from_slice(&(text.len() as u16).to_be_bytes());
        frame.extend_from_slice(text.as_bytes());
        frame
    }

    /// Returns the numbers answered and the faults counted.
    fn check(exchange: &mut PhoenixEcho, frames: &[Vec<u8>]) -> (Vec<u64>, u64) {
        let mut done = Vec::new();
        let bytes = frames.concat();
        let taken = exchange.read(&bytes, &mut Vec::new(), &mut done).expect("readable frames");
        assert_eq!(taken, bytes.len());
        (done, Recorder::take().faults)
    }

    #[test]
    fn right_replies_are_done_with_either_order_of_keys() {
        let frames = [
            reply(r#""1000000003""#, r#"{"response":{"p":"xxx"},"status":"ok"}"#),
            reply(r#""1000000001""#, r#"{"status":"ok","response":{"p":"xxx"}}"#),
        ];
        assert_eq!(check(&mut exchange(), &frames), (vec![3, 1], 0));
    }

    #[test]
    fn wrong_replies_are_faults_and_never_block_the_loop() {
        let good = r#"{"status":"ok","response":{"p":"xxx"}}"#;
        for (reference, payload, done) in [
            (r#""1000000001""#, r#"{"status":"error","response":{}}"#, vec![0, 1]),
            (r#""1000000001""#, r#"{"status":"ok","response":{}}"#, vec![0, 1]),
            (r#""17""#, good, vec![0]),
            ("null", good, vec![0]),
        ] {
            let frames = [reply(r#""1000000000""#, good), reply(reference, payload)];
            assert_eq!(check(&mut exchange(), &frames), (done, 1), "{reference} {payload}");
        }
    }

    #[test]
    fn the_first_reply_has_to_bring_the_payload_back() {
        let frames = [reply(r#""1000000000""#, r#"{"status":"ok","response":{"p":"yyy"}}"#)];
        assert_eq!(check(&mut exchange(), &frames), (vec![0], 1));
    }

    #[test]
    fn a_channel_that_ends_is_an_error() {
        let text = r#"["1","1","bench:a","phx_error",{}]"#;
        let mut frame = vec![0x81, text.len() as u8];
        frame.extend_from_slice(text.as_bytes());
        let error = exchange().read(&frame, &mut Vec::new(), &mut Vec::new()).expect_err("the channel has ended");
        assert!(error.to_string().contains("phx_error"), "{error}");
    }
}
