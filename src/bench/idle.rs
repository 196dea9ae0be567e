//! `bench idle`: what does a connection cost that has joined and says nothing, and what each further channel on it?

use std::future::Future;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, Result};
use clap::Args;
use serde::Serialize;

use super::clock::{now_ns, unix_ms};
use super::echo::OPENING_AT_ONCE;
use super::frame::{Opcode, write_frame};
use super::options::{OutputOptions, ServerOptions, at_least_one, seconds};
use super::process::{Process, Sample, check_open_files};
use super::record::{Latency, Recorder};
use super::report::{Heading, Report, ServerCost, publish};
use super::stage::{current_thread_runtime, each};
use super::wire::{Join, Wire};

/// Between two heartbeats of a held connection: phoenix.js sends one each 30 s, Phoenix closes after 60 s without.
pub const HEARTBEAT_AFTER: Duration = Duration::from_secs(25);

/// The heartbeat of a V2 client.
pub const HEARTBEAT: &str = r#"[null,"heartbeat","phoenix","heartbeat",{}]"#;

/// After the last answer, the time a server gets to finish what the opening has left to do before its CPU time is read.
const OPENING_TAIL: Duration = Duration::from_millis(200);

/// Arguments of `bennu bench idle`.
#[derive(Args, Clone, Debug, Serialize)]
pub struct IdleArgs {
    #[command(flatten)]
    #[serde(flatten)]
    server: ServerOptions,
    /// Connections
    #[arg(long, short = 'c', default_value_t = 10_000)]
    connections: usize,
    /// Channels that each connection joins when it opens
    #[arg(long, default_value_t = 1)]
    topics_per_conn: usize,
    /// Channels that each connection joins afterwards, measured on their own
    #[arg(long, default_value_t = 0)]
    further_topics: usize,
    /// Topics are this, the connection's number and the channel's
    #[arg(long, default_value = "bench:idle-")]
    topic_prefix: String,
    /// All connections join the same topics instead of their own
    #[arg(long)]
    shared_topic: bool,
    /// Connections that are opened at the same time
    #[arg(long, default_value_t = OPENING_AT_ONCE)]
    opening: usize,
    /// Seconds between the last join and the reading of memory
    #[arg(long, default_value_t = 10.0)]
    settle: f64,
    #[command(flatten)]
    #[serde(flatten)]
    output: OutputOptions,
}

impl IdleArgs {
    /// The topics of one connection's channels `first..first + count`, with their refs.
    fn topics(&self, connection: usize, first: usize, count: usize) -> Vec<(String, String)> {
        let owner = if self.shared_topic { "shared".to_owned() } else { connection.to_string() };
        (first..first + count)
            .map(|channel| (format!("{}{owner}-{channel}", self.topic_prefix), (channel + 1).to_string()))
            .collect()
    }

    async fn join(&self, wire: &mut Wire, topics: &[(String, String)]) -> Result<()> {
        let joins: Vec<_> = topics
            .iter()
            .map(|(topic, reference)| Join { topic, reference, payload: &self.server.join_payload })
            .collect();
        wire.join_all(&joins, self.server.client.limit()?).await?;
        wire.shrink();
        Ok(())
    }
}

/// Runs the mode.
///
/// # Errors
/// As [`super::run`].
pub fn run(args: &IdleArgs) -> Result<()> {
    at_least_one("connections", args.connections)?;
    at_least_one("topics-per-conn", args.topics_per_conn)?;
    at_least_one("opening", args.opening)?;
    check_open_files(args.connections)?;
    let settle = seconds("settle", args.settle, 0.0)?;
    let process = args.output.process()?;
    let target = Arc::new(args.server.target()?);
    let limit = args.server.client.limit()?;
    let parameters = serde_json::to_value(args)?;
    let args = Arc::new(args.clone());

    let reports = current_thread_runtime()?.block_on(async {
        let opened = measure_opening(process, settle, async {
            let open = |index| {
                let (target, args) = (target.clone(), args.clone());
                async move {
                    let start_ns = now_ns();
                    let mut wire = Wire::open(&target, limit).await?;
                    let topics = args.topics(index, 0, args.topics_per_conn);
                    args.join(&mut wire, &topics).await?;
                    Recorder::with(|recorder| recorder.done(now_ns() - start_ns));
                    Ok(wire)
                }
            };
            let wires = each(args.connections, args.opening, open).await?;
            Ok(Holding { wires, units: args.connections, heartbeat: true })
        })
        .await?;
        let heading = Heading { mode: "idle", unit: "join", parameters: parameters.clone() };
        let mut reports = vec![opened.report(heading, &args.output)];
        if args.further_topics > 0 {
            let further = measure_opening(process, settle, async {
                let mut wires = opened.holding.wires.into_iter();
                let join = |index| {
                    let (args, wire) = (args.clone(), wires.next());
                    async move {
                        let mut wire = wire.context("one connection for each index")?;
                        let start_ns = now_ns();
                        let topics = args.topics(index, args.topics_per_conn, args.further_topics);
                        args.join(&mut wire, &topics).await?;
                        Recorder::with(|recorder| recorder.done(now_ns() - start_ns));
                        Ok(wire)
                    }
                };
                let wires = each(args.connections, args.opening, join).await?;
                Ok(Holding { wires, units: args.connections * args.further_topics, heartbeat: true })
            })
            .await?;
            let heading = Heading { mode: "idle further", unit: "channel", parameters };
            reports.push(further.report(heading, &args.output));
        }
        Ok::<_, anyhow::Error>(reports)
    })?;
    publish(&reports, &args.output, None)
}

/// Connections that are held open, and how many units (connections, or channels on them) were opened.
#[derive(Debug)]
pub struct Holding {
    /// The connections.
    pub wires: Vec<Wire>,
    /// What the cost is shared out over.
    pub units: usize,
    /// Whether they are Phoenix connections, which have to say from time to time that they live.
    pub heartbeat: bool,
}

/// What opening some connections or channels and holding them has cost.
#[derive(Debug)]
pub struct Opened {
    /// What is held.
    pub holding: Holding,
    elapsed: Duration,
    latency: Option<Latency>,
    server: Option<ServerCost>,
    client_cores: f64,
}

/// Times `open`, waits for `settle`, and reads memory.
///
/// # Errors
/// Those of `open`; if a connection was closed by the server before the end; if the server's process can't be read.
pub async fn measure_opening(
    process: Option<Process>,
    settle: Duration,
    open: impl Future<Output = Result<Holding>>,
) -> Result<Opened> {
    let look = || process.map(Process::sample).transpose();
    let (before, client_before_ns) = (look()?, Process::own().cpu_ns()?);
    let start_ns = now_ns();
    let mut holding = open.await?;
    let elapsed = Duration::from_nanos(now_ns() - start_ns);
    let client_ns = Process::own().cpu_ns()?.saturating_sub(client_before_ns);
    let recorder = Recorder::take();

    tokio::time::sleep(OPENING_TAIL).await;
    let opened = look()?;
    hold(&mut holding, settle).await?;
    let settled = look()?;

    let server = match (before, opened, settled) {
        (Some(before), Some(opened), Some(settled)) => {
            let after = Sample { cpu_ns: opened.cpu_ns, rss_bytes: settled.rss_bytes };
            let mut cost = ServerCost::between(before, after, holding.units as u64, elapsed);
            let grown = after.rss_bytes as f64 - before.rss_bytes as f64;
            cost.rss_bytes_per_unit = Some(grown / holding.units as f64);
            Some(cost)
        }
        _ => None,
    };
    Ok(Opened {
        holding,
        elapsed,
        latency: Latency::of(&recorder.latency),
        server,
        client_cores: client_ns as f64 / 1e9 / elapsed.as_secs_f64(),
    })
}

/// Waits, keeps the connections alive, and sees to it that all of them still are.
async fn hold(holding: &mut Holding, settle: Duration) -> Result<()> {
    let mut rest = settle;
    loop {
        let wait = rest.min(HEARTBEAT_AFTER);
        tokio::time::sleep(wait).await;
        for (index, wire) in holding.wires.iter_mut().enumerate() {
            wire.check_open().await.with_context(|| format!("idle connection {index}"))?;
        }
        rest -= wait;
        if rest.is_zero() {
            return Ok(());
        }
        if !holding.heartbeat {
            continue;
        }
        for wire in &mut holding.wires {
            write_frame(&mut wire.out, Opcode::Text, HEARTBEAT.as_bytes());
            wire.flush().await?;
        }
    }
}

impl Opened {
    /// The report of it.
    pub fn report(&self, heading: Heading<'_>, output: &OutputOptions) -> Report {
        let seconds = self.elapsed.as_secs_f64();
        Report {
            mode: heading.mode.to_owned(),
            label: output.label.clone(),
            unit: heading.unit.to_owned(),
            count: self.holding.units as u64,
            seconds,
            rate_per_s: self.holding.units as f64 / seconds,
            latency: self.latency,
            last_delivery: None,
            server: self.server,
            client_cores: self.client_cores,
            faults: 0,
            pushes: None,
            parameters: heading.parameters,
            unix_ms: unix_ms(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::Parser;

    #[derive(Parser)]
    struct Line {
        #[command(flatten)]
        args: IdleArgs,
    }

    fn topics(line: &[&str], connection: usize, first: usize, count: usize) -> Vec<String> {
        Line::parse_from([&["idle"], line].concat())
            .args
            .topics(connection, first, count)
            .into_iter()
            .map(|(topic, reference)| format!("{topic} {reference}"))
            .collect()
    }

    #[test]
    fn further_topics_go_on_where_the_first_ones_end() {
        assert_eq!(topics(&[], 7, 0, 2), ["bench:idle-7-0 1", "bench:idle-7-1 2"]);
        assert_eq!(topics(&[], 7, 2, 1), ["bench:idle-7-2 3"]);
    }

    #[test]
    fn a_shared_topic_is_the_same_on_each_connection() {
        let line = ["--shared-topic", "--topic-prefix", "room:"];
        assert_eq!(topics(&line, 1, 0, 1), topics(&line, 2, 0, 1));
        assert_eq!(topics(&line, 1, 0, 1), ["room:shared-0 1"]);
    }
}
