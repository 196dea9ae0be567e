//! `bench mcp-idle`: what does an MCP session on a channel cost that has begun and says nothing, and what each further one beside
//! it on the same connection?
//!
//! Three steps, each measured on its own: connections without a channel, the first session on each, the further ones.

use std::ops::Range;
use std::sync::Arc;

use anyhow::{Context, Result};
use clap::Args;
use serde::Serialize;

use super::clock::now_ns;
use super::echo::OPENING_AT_ONCE;
use super::idle::{Holding, measure_opening};
use super::mcp::{self, Era};
use super::mcp_call::{TOPIC_NUMBER, handshake};
use super::options::{OutputOptions, ServerOptions, at_least_one, seconds};
use super::process::check_open_files;
use super::record::Recorder;
use super::report::{Heading, publish};
use super::stage::{current_thread_runtime, each};
use super::wire::{Join, Wire};

/// Refs that a session takes: of its join, and of the two messages of its handshake.
const REFS_A_SESSION: usize = 3;

/// Arguments of `bennu bench mcp-idle`.
#[derive(Args, Clone, Debug, Serialize)]
pub struct McpIdleArgs {
    #[command(flatten)]
    #[serde(flatten)]
    server: ServerOptions,
    /// Connections
    #[arg(long, short = 'c', default_value_t = 10_000)]
    connections: usize,
    /// Sessions on each connection: those after the first are measured on their own
    #[arg(long, short = 'k', default_value_t = 1)]
    topics_a_connection: usize,
    /// Topic of a session; {n} in it is the session's number on its connection
    #[arg(long, default_value = "mcp:server:demo:{n}")]
    topic: String,
    /// How a session begins
    #[arg(long, value_enum, default_value_t = Era::Legacy)]
    era: Era,
    /// Connections that are at work at the same time
    #[arg(long, default_value_t = OPENING_AT_ONCE)]
    opening: usize,
    /// Seconds between the end of each step and the reading of memory
    #[arg(long, default_value_t = 10.0)]
    settle: f64,
    #[command(flatten)]
    #[serde(flatten)]
    output: OutputOptions,
}

impl McpIdleArgs {
    /// The topic of one session and its refs.
    fn session(&self, number: usize) -> (String, [String; REFS_A_SESSION]) {
        let topic = self.topic.replace(TOPIC_NUMBER, &number.to_string());
        (topic, [1, 2, 3].map(|step| (number * REFS_A_SESSION + step).to_string()))
    }

    /// Begins the sessions of one connection, one after the other.
    async fn begin(&self, wire: &mut Wire, sessions: Range<usize>) -> Result<()> {
        let limit = self.server.client.limit()?;
        let payload = mcp::join_payload(self.era, &self.server.join_payload)?;
        for number in sessions {
            let start_ns = now_ns();
            let (topic, [reference, second, third]) = self.session(number);
            let join = Join { topic: &topic, reference: &reference, payload: &payload };
            wire.join(&join, limit).await?;
            handshake(wire, &join, [&second, &third], self.era, limit).await?;
            Recorder::with(|recorder| recorder.done(now_ns() - start_ns));
        }
        wire.shrink();
        Ok(())
    }
}

/// Runs the mode.
///
/// # Errors
/// As [`super::run`].
pub fn run(args: &McpIdleArgs) -> Result<()> {
    at_least_one("connections", args.connections)?;
    at_least_one("topics-a-connection", args.topics_a_connection)?;
    at_least_one("opening", args.opening)?;
    check_open_files(args.connections)?;
    let settle = seconds("settle", args.settle, 0.0)?;
    let process = args.output.process()?;
    let target = Arc::new(args.server.target()?);
    let limit = args.server.client.limit()?;
    let parameters = serde_json::to_value(args)?;
    let args = Arc::new(args.clone());
    let heading = |mode, unit| Heading { mode, unit, parameters: parameters.clone() };

    let reports = current_thread_runtime()?.block_on(async {
        let mut opened = measure_opening(process, settle, async {
            let open = |_| {
                let target = target.clone();
                async move {
                    let start_ns = now_ns();
                    let mut wire = Wire::open(&target, limit).await?;
                    wire.shrink();
                    Recorder::with(|recorder| recorder.done(now_ns() - start_ns));
                    Ok(wire)
                }
            };
            let wires = each(args.connections, args.opening, open).await?;
            Ok(Holding { wires, units: args.connections, heartbeat: true })
        })
        .await?;
        let mut reports = vec![opened.report(heading("mcp-idle connection", "connect"), &args.output)];
        for (mode, sessions) in [("mcp-idle first", 0..1), ("mcp-idle further", 1..args.topics_a_connection)] {
            if sessions.is_empty() {
                continue;
            }
            let units = args.connections * sessions.len();
            opened = measure_opening(process, settle, async {
                let mut wires = opened.holding.wires.into_iter();
                let begin = |_| {
                    let (args, wire, sessions) = (args.clone(), wires.next(), sessions.clone());
                    async move {
                        let mut wire = wire.context("one connection for each index")?;
                        args.begin(&mut wire, sessions).await?;
                        Ok(wire)
                    }
                };
                let wires = each(args.connections, args.opening, begin).await?;
                Ok(Holding { wires, units, heartbeat: true })
            })
            .await?;
            reports.push(opened.report(heading(mode, "session"), &args.output));
        }
        Ok::<_, anyhow::Error>(reports)
    })?;
    publish(&reports, &args.output, None)
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::Parser;

    #[derive(Parser)]
    struct Line {
        #[command(flatten)]
        args: McpIdleArgs,
    }

    #[test]
    fn sessions_of_a_connection_share_neither_topic_nor_ref() {
        let args = Line::parse_from(["idle"]).args;
        assert_eq!(args.session(0), ("mcp:server:demo:0".to_owned(), ["1", "2", "3"].map(str::to_owned)));
        assert_eq!(args.session(1), ("mcp:server:demo:1".to_owned(), ["4", "5", "6"].map(str::to_owned)));
    }
}
