//! `bench join`: what does a client cost that comes, joins and goes?

use std::future::Future;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, Result};
use clap::{Args, ValueEnum};
use serde::Serialize;
use tokio::task::JoinSet;

use super::clock::now_ns;
use super::options::{LoadOptions, OutputOptions, ServerOptions, at_least_one};
use super::process::check_open_files;
use super::record::Recorder;
use super::report::{Heading, Report, publish};
use super::stage::{Part, Phase, drain, run as run_stages};
use super::wire::{Join, Wire};

/// Arguments of `bennu bench join`.
#[derive(Args, Clone, Debug, Serialize)]
pub struct JoinArgs {
    #[command(flatten)]
    #[serde(flatten)]
    server: ServerOptions,
    /// Clients at the same time
    #[arg(long, short = 'c', default_value_t = 16)]
    concurrency: usize,
    /// Client N joins this with N appended
    #[arg(long, default_value = "bench:join-")]
    topic_prefix: String,
    /// How a client goes
    #[arg(long, value_enum, default_value_t = Close::Reset)]
    close: Close,
    #[command(flatten)]
    #[serde(flatten)]
    load: LoadOptions,
    #[command(flatten)]
    #[serde(flatten)]
    output: OutputOptions,
}

/// How a connection ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum, Serialize)]
#[serde(rename_all = "lowercase")]
enum Close {
    /// TCP reset, which leaves no port in TIME_WAIT
    Reset,
    /// A close frame, the server's answer awaited
    Handshake,
}

/// Runs the mode.
///
/// # Errors
/// As [`super::run`].
pub fn run(args: &JoinArgs) -> Result<()> {
    at_least_one("concurrency", args.concurrency)?;
    check_open_files(args.concurrency)?;
    let plan = args.load.plan(args.output.process()?)?;
    let target = Arc::new(args.server.target()?);
    let limit = args.server.client.limit()?;
    let shared = Arc::new(args.clone());
    let outcome = run_stages(&plan, async |part| {
        let (target, shared, thread) = (target.clone(), shared.clone(), part.thread);
        let once = move |index: usize| {
            let (target, args) = (target.clone(), shared.clone());
            let topic = format!("{}{thread}-{index}", args.topic_prefix);
            async move {
                let mut wire = Wire::open(&target, limit).await?;
                let join = Join { topic: &topic, reference: "1", payload: &args.server.join_payload };
                wire.join(&join, limit).await?;
                if args.close == Close::Handshake {
                    wire.close(limit).await?;
                }
                Ok(())
            }
        };
        churn(part.share(args.concurrency), part, limit, once).await
    })?;
    let heading = Heading { mode: "join", unit: "join", parameters: serde_json::to_value(args)? };
    let report = Report::of_load(heading, &args.output, &outcome);
    publish(&[report], &args.output, outcome.recorder.first_fault.as_deref())
}

/// Repeats `once(index)` on each of `concurrency` tasks until the run stops, and records how long each took.
///
/// # Errors
/// The first that fails.
pub async fn churn<F, Fut>(concurrency: usize, part: &Part<'_>, limit: Duration, once: F) -> Result<()>
where
    F: Fn(usize) -> Fut + Clone + Send + 'static,
    Fut: Future<Output = Result<()>> + Send,
{
    let mut tasks = JoinSet::new();
    part.ready();
    part.stage.reached(Phase::Warmup).await;
    for index in 0..concurrency {
        let (once, stage) = (once.clone(), part.stage.clone());
        tasks.spawn(async move {
            while stage.phase() < Phase::Stop {
                let start_ns = now_ns();
                once(index).await.with_context(|| format!("client {index}"))?;
                let end_ns = now_ns();
                if stage.phase() == Phase::Measure {
                    Recorder::with(|recorder| recorder.done(end_ns - start_ns));
                }
                // A connect on loopback may be ready at once; the other tasks have to get their turn all the same.
                tokio::task::yield_now().await;
            }
            Ok(())
        });
    }
    drain(tasks, part.stage, limit).await
}
