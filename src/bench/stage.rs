//! The course of a run: every thread gets ready, then all warm up, are measured, and drain.

use std::future::Future;
use std::sync::atomic::{AtomicU8, AtomicU64, Ordering};
use std::sync::mpsc;
use std::thread;
use std::time::Duration;

use anyhow::{Context, Result, anyhow, bail};
use tokio::sync::watch;
use tokio::task::JoinSet;

use super::clock::now_ns;
use super::process::{Process, Sample};
use super::record::Recorder;

/// Where a run stands.
///
/// ```text
/// Preparing ──all threads ready──► Warmup ──warm-up over──► Measure ──time over──► Stop
///     └──────────────────── a thread failed ───────────────────────────────────────►┘
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Phase {
    /// Connections are opened and channels joined.
    Preparing,
    /// Load runs and nothing counts.
    Warmup,
    /// Load runs and counts.
    Measure,
    /// Nothing new is sent; what is in flight still comes.
    Stop,
}

/// The phase, shared by all threads: cheap to read for each message, and awaitable.
#[derive(Debug)]
pub struct Stage {
    phase: AtomicU8,
    start_ns: AtomicU64,
    from_ns: AtomicU64,
    until_ns: AtomicU64,
    changes: watch::Sender<Phase>,
}

impl Default for Stage {
    fn default() -> Self {
        Self {
            phase: AtomicU8::new(Phase::Preparing as u8),
            start_ns: AtomicU64::new(u64::MAX),
            from_ns: AtomicU64::new(u64::MAX),
            until_ns: AtomicU64::new(u64::MAX),
            changes: watch::Sender::new(Phase::Preparing),
        }
    }
}

impl Stage {
    /// Enters a phase; a second time nothing happens, so that its beginning stays.
    fn enter(&self, phase: Phase) {
        if self.phase() >= phase {
            return;
        }
        let time = match phase {
            Phase::Preparing => return,
            Phase::Warmup => &self.start_ns,
            Phase::Measure => &self.from_ns,
            Phase::Stop => &self.until_ns,
        };
        time.store(now_ns(), Ordering::Release);
        self.phase.store(phase as u8, Ordering::Release);
        self.changes.send_replace(phase);
    }

    /// The phase at this moment.
    pub fn phase(&self) -> Phase {
        match self.phase.load(Ordering::Acquire) {
            0 => Phase::Preparing,
            1 => Phase::Warmup,
            2 => Phase::Measure,
            _ => Phase::Stop,
        }
    }

    /// When the warm-up began, by [`now_ns`]; `u64::MAX` before.
    pub fn start_ns(&self) -> u64 {
        self.start_ns.load(Ordering::Acquire)
    }

    /// Whether a time lies in the measured window.
    pub fn measures(&self, time_ns: u64) -> bool {
        time_ns >= self.from_ns.load(Ordering::Acquire) && time_ns < self.until_ns()
    }

    /// When the window ended; `u64::MAX` before.
    pub fn until_ns(&self) -> u64 {
        self.until_ns.load(Ordering::Acquire)
    }

    /// Waits until `phase` or a later one.
    pub async fn reached(&self, phase: Phase) {
        let mut changes = self.changes.subscribe();
        // The sender lives in `self`, so it can't be gone.
        let _ = changes.wait_for(|current| *current >= phase).await;
    }
}

/// How long a run takes and on how many threads.
#[derive(Clone, Copy, Debug)]
pub struct Plan {
    /// Client threads.
    pub threads: usize,
    /// Load before the measured window.
    pub warmup: Duration,
    /// The measured window.
    pub seconds: Duration,
    /// The process whose CPU time and memory are read.
    pub server: Option<Process>,
}

/// What a run gave.
#[derive(Debug)]
pub struct Outcome {
    /// All threads' counts and latencies.
    pub recorder: Recorder,
    /// Length of the measured window.
    pub elapsed: Duration,
    /// The server at the start and the end of the window.
    pub server: Option<(Sample, Sample)>,
    /// CPU time of this process in the window, in nanoseconds.
    pub client_cpu_ns: u64,
}

/// What a thread of the run is given.
#[derive(Debug)]
pub struct Part<'a> {
    /// Which of the threads this is, from 0.
    pub thread: usize,
    /// How many there are.
    pub threads: usize,
    /// The course of the run.
    pub stage: &'a std::sync::Arc<Stage>,
    ready: mpsc::Sender<Signal>,
}

impl Part<'_> {
    /// Says that this thread's load may start.
    pub fn ready(&self) {
        // The run that gave up no longer listens, and that is fine.
        let _ = self.ready.send(Signal::Ready);
    }

    /// This thread's share of `total`, the first threads taking what doesn't divide.
    pub fn share(&self, total: usize) -> usize {
        total / self.threads + usize::from(self.thread < total % self.threads)
    }
}

#[derive(Debug, PartialEq, Eq)]
enum Signal {
    Ready,
    Failed,
}

/// Runs `work` on each thread and takes it through the phases.
///
/// `work` prepares, calls [`Part::ready`], and returns after [`Phase::Stop`] when nothing is in flight any more.
///
/// # Errors
/// The first thread's error if any fails, or that of reading the server's process.
pub fn run<W>(plan: &Plan, work: W) -> Result<Outcome>
where
    W: AsyncFn(&Part<'_>) -> Result<()> + Sync,
{
    let stage = std::sync::Arc::new(Stage::default());
    let (signals, incoming) = mpsc::channel();
    thread::scope(|scope| {
        let threads: Vec<_> = (0..plan.threads)
            .map(|thread| {
                let part = Part { thread, threads: plan.threads, stage: &stage, ready: signals.clone() };
                let work = &work;
                scope.spawn(move || {
                    let done = current_thread_runtime().and_then(|rt| rt.block_on(work(&part)));
                    if done.is_err() {
                        let _ = part.ready.send(Signal::Failed);
                    }
                    done.map(|()| Recorder::take())
                })
            })
            .collect();
        drop(signals);
        let window = conduct(plan, &stage, &incoming);
        stage.enter(Phase::Stop);

        let mut recorder = Recorder::new();
        for thread in threads {
            let part = thread.join().map_err(|_| anyhow!("a load thread panicked"))??;
            recorder.add(&part);
        }
        let window = window?;
        Ok(Outcome { recorder, elapsed: window.elapsed, server: window.server, client_cpu_ns: window.client_cpu_ns })
    })
}

struct Window {
    elapsed: Duration,
    server: Option<(Sample, Sample)>,
    client_cpu_ns: u64,
}

fn conduct(plan: &Plan, stage: &Stage, incoming: &mpsc::Receiver<Signal>) -> Result<Window> {
    for _ in 0..plan.threads {
        if incoming.recv() != Ok(Signal::Ready) {
            bail!("a load thread failed before the run");
        }
    }
    let sleep = |time| match incoming.recv_timeout(time) {
        Err(mpsc::RecvTimeoutError::Timeout) => Ok(()),
        _ => bail!("a load thread ended during the run"),
    };
    // Reading memory may take milliseconds and stays outside; CPU time is read at the very ends of the window.
    let rss = || plan.server.map(Process::rss_bytes).transpose();
    let cpu = || -> Result<(u64, Option<u64>, u64)> {
        let server = plan.server.map(Process::cpu_ns).transpose()?;
        Ok((now_ns(), server, Process::own().cpu_ns()?))
    };

    stage.enter(Phase::Warmup);
    sleep(plan.warmup)?;
    let rss_before = rss()?;
    let (start_ns, cpu_before, client_before) = cpu()?;
    stage.enter(Phase::Measure);
    sleep(plan.seconds)?;
    // The threads still run here: the CPU time of one that has ended is gone.
    let (end_ns, cpu_after, client_after) = cpu()?;
    stage.enter(Phase::Stop);
    let rss_after = rss()?;

    let sample =
        |cpu: Option<u64>, rss: Option<u64>| cpu.zip(rss).map(|(cpu_ns, rss_bytes)| Sample { cpu_ns, rss_bytes });
    Ok(Window {
        elapsed: Duration::from_nanos(end_ns - start_ns),
        server: sample(cpu_before, rss_before).zip(sample(cpu_after, rss_after)),
        client_cpu_ns: client_after.saturating_sub(client_before),
    })
}

/// A runtime on the calling thread: load needs no work stealing, and one core is what it is given.
///
/// # Errors
/// If the runtime can't be built.
pub fn current_thread_runtime() -> Result<tokio::runtime::Runtime> {
    tokio::runtime::Builder::new_current_thread().enable_all().build().context("building the client's runtime")
}

/// Runs `make(0)` to `make(count - 1)`, `concurrency` at a time, and returns the results in order.
///
/// # Errors
/// The first that fails; the others are dropped.
pub async fn each<T, F, Fut>(count: usize, concurrency: usize, mut make: F) -> Result<Vec<T>>
where
    T: Send + 'static,
    F: FnMut(usize) -> Fut,
    Fut: Future<Output = Result<T>> + Send + 'static,
{
    let mut results: Vec<Option<T>> = (0..count).map(|_| None).collect();
    let mut tasks = JoinSet::new();
    let mut next = 0;
    loop {
        while next < count && tasks.len() < concurrency {
            let (index, work) = (next, make(next));
            tasks.spawn(async move { (index, work.await) });
            next += 1;
        }
        let Some(done) = tasks.join_next().await else {
            break;
        };
        let (index, result) = done.context("a task of the load panicked")?;
        results[index] = Some(result.with_context(|| format!("connection {index}"))?);
    }
    Ok(results.into_iter().flatten().collect())
}

/// Waits for all tasks, at most `limit` beyond [`Phase::Stop`].
///
/// # Errors
/// The first task's that fails, or if some are still at work after the limit: answers are missing.
pub async fn drain(mut tasks: JoinSet<Result<()>>, stage: &Stage, limit: Duration) -> Result<()> {
    let over = async {
        stage.reached(Phase::Stop).await;
        tokio::time::sleep(limit).await;
    };
    tokio::pin!(over);
    loop {
        tokio::select! {
            done = tasks.join_next() => match done {
                Some(done) => done.context("a task of the load panicked")??,
                None => return Ok(()),
            },
            () = &mut over => {
                let fault = Recorder::with(|recorder| recorder.first_fault.clone());
                bail!(
                    "{} connections still miss answers {} s after the last message was sent; first wrong answer: {}",
                    tasks.len(),
                    limit.as_secs_f64(),
                    fault.as_deref().unwrap_or("none")
                )
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn plan(threads: usize) -> Plan {
        Plan { threads, warmup: Duration::from_millis(5), seconds: Duration::from_millis(20), server: None }
    }

    #[test]
    fn only_the_measured_window_counts() {
        let outcome = run(&plan(2), async |part| {
            part.ready();
            part.stage.reached(Phase::Stop).await;
            // A thread may be late by any time, so that only what it noted can be looked at.
            let (stage, started, stopped) = (&part.stage, part.stage.start_ns(), part.stage.until_ns());
            let measured = (started..stopped).step_by(100_000).filter(|time| stage.measures(*time)).count() as u64;
            assert!(!stage.measures(started) && stage.measures(stopped - 1) && !stage.measures(stopped));
            Recorder::with(|recorder| recorder.count += measured);
            Ok(())
        })
        .expect("a run");

        // Of the 25 ms or more, each thread saw 20 or more measured, in steps of 0.1 ms.
        assert!(outcome.recorder.count >= 2 * 199, "{}", outcome.recorder.count);
        assert!(outcome.elapsed >= Duration::from_millis(20));
    }

    #[test]
    fn one_failing_thread_ends_the_run_at_once() {
        let mut plan = plan(2);
        plan.seconds = Duration::from_secs(600);

        let error = run(&plan, async |part| {
            part.ready();
            if part.thread == 1 {
                bail!("thread 1 broke");
            }
            part.stage.reached(Phase::Stop).await;
            Ok(())
        })
        .expect_err("a broken run");

        assert_eq!(error.to_string(), "thread 1 broke");
    }

    #[test]
    fn shares_add_up_to_the_whole() {
        let stage = std::sync::Arc::new(Stage::default());
        let (ready, _incoming) = mpsc::channel();
        let shares = |total, threads| -> Vec<usize> {
            (0..threads)
                .map(|thread| Part { thread, threads, stage: &stage, ready: ready.clone() }.share(total))
                .collect()
        };
        assert_eq!(shares(64, 3), [22, 21, 21]);
        assert_eq!(shares(1, 2), [1, 0]);
    }

    #[test]
    fn results_keep_their_order_and_the_concurrency_its_bound() {
        use std::sync::Arc;
        use std::sync::atomic::AtomicUsize;
        let at_work = Arc::new(AtomicUsize::new(0));
        let most = Arc::new(AtomicUsize::new(0));

        let results = current_thread_runtime()
            .expect("a runtime")
            .block_on(each(20, 3, |index| {
                let (at_work, most) = (at_work.clone(), most.clone());
                async move {
                    let now = at_work.fetch_add(1, Ordering::SeqCst) + 1;
                    most.fetch_max(now, Ordering::SeqCst);
                    // Later tasks yield less, so they end before earlier ones.
                    for _ in index..20 {
                        tokio::task::yield_now().await;
                    }
                    at_work.fetch_sub(1, Ordering::SeqCst);
                    Ok(index)
                }
            }))
            .expect("results");

        assert_eq!(results, (0..20).collect::<Vec<_>>());
        assert_eq!(most.load(Ordering::SeqCst), 3);
    }
}
