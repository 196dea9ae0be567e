//! The two ways to load a connection with requests that are answered: a closed loop, and a fixed rate. What a request looks like
//! is the [`Exchange`]'s; the echo modes of Phoenix and of plain TCP share the rest.

use std::sync::Arc;

use anyhow::Result;
use tokio::sync::Notify;
use tokio::task::JoinSet;

use super::clock::now_ns;
use super::record::Recorder;
use super::schedule::Schedule;
use super::stage::{Part, Phase, Stage, drain};
use super::wire::Wire;

/// Requests below this long a wait are awaited by polling, because a timer rounds up to a millisecond.
const TIMER_MARGIN_NS: u64 = 2_500_000;

/// One connection's requests, told apart by numbers.
pub trait Exchange: Send + 'static {
    /// Appends the request `number` to `out`.
    fn write(&mut self, out: &mut Vec<u8>, number: u64);

    /// Reads what came, appends the numbers answered to `done`, and returns how many bytes it took.
    ///
    /// A wrong answer is counted as a fault in the thread's [`Recorder`].
    ///
    /// # Errors
    /// If the bytes can't be read as answers at all.
    fn read(&mut self, bytes: &[u8], out: &mut Vec<u8>, done: &mut Vec<u64>) -> Result<usize>;
}

/// How the connections of a thread are loaded.
#[derive(Clone, Copy, Debug)]
pub enum Load {
    /// Each connection keeps `depth` requests in flight.
    Closed {
        /// Requests in flight a connection, at least 1.
        depth: usize,
    },
    /// All connections of all threads together send at a fixed rate, in turn.
    Open {
        /// Requests a second.
        rate_per_s: f64,
    },
}

impl Load {
    /// How far apart the numbers of one connection's requests are, if it is one of `connections` of a thread.
    pub fn stride(self, connections: usize) -> u64 {
        match self {
            Self::Closed { .. } => 1,
            Self::Open { .. } => connections as u64,
        }
    }

    /// The number of the first request of connection `index`.
    pub fn first(self, index: usize) -> u64 {
        match self {
            Self::Closed { .. } => 0,
            Self::Open { .. } => index as u64,
        }
    }

    /// Loads the connections of a thread until the run stops and all answers are there.
    ///
    /// # Errors
    /// If a connection fails, or if answers are missing when `limit` is over.
    pub async fn run<E: Exchange>(
        self,
        connections: Vec<(Wire, E)>,
        part: &Part<'_>,
        limit: std::time::Duration,
    ) -> Result<()> {
        let mut tasks = JoinSet::new();
        part.ready();
        part.stage.reached(Phase::Warmup).await;
        match self {
            Self::Closed { depth } => {
                for (wire, exchange) in connections {
                    let slots = Slots::new(depth);
                    tasks.spawn(closed(wire, exchange, slots, part.stage.clone()));
                }
            }
            Self::Open { rate_per_s } => {
                let schedule = Schedule {
                    start_ns: part.stage.start_ns(),
                    rate_per_s,
                    offset: part.thread as u64,
                    step: part.threads as u64,
                };
                let stride = self.stride(connections.len());
                let mut bells = Vec::new();
                for (index, (wire, exchange)) in connections.into_iter().enumerate() {
                    let bell = Arc::new(Notify::new());
                    bells.push(bell.clone());
                    let due = Due { schedule, next: self.first(index), answered: self.first(index), stride };
                    tasks.spawn(open(wire, exchange, due, bell, part.stage.clone()));
                }
                tasks.spawn(ring(bells, schedule, part.stage.clone()));
            }
        }
        drain(tasks, part.stage, limit).await
    }
}

/// The requests in flight of a closed loop: slot `number % depth` holds the number and when it was sent.
struct Slots {
    slots: Vec<Option<(u64, u64)>>,
    in_flight: usize,
}

impl Slots {
    fn new(depth: usize) -> Self {
        Self { slots: vec![None; depth], in_flight: 0 }
    }

    fn put(&mut self, number: u64, now: u64) {
        let slot = number as usize % self.slots.len();
        self.slots[slot] = Some((number, now));
        self.in_flight += 1;
    }

    /// When the request was sent; `None` if it isn't in flight.
    fn take(&mut self, number: u64) -> Option<u64> {
        let slot = number as usize % self.slots.len();
        let (_, sent_ns) = self.slots[slot].take_if(|(held, _)| *held == number)?;
        self.in_flight -= 1;
        Some(sent_ns)
    }
}

async fn closed<E: Exchange>(mut wire: Wire, mut exchange: E, mut slots: Slots, stage: Arc<Stage>) -> Result<()> {
    let now = now_ns();
    let depth = slots.slots.len() as u64;
    for number in 0..depth {
        exchange.write(&mut wire.out, number);
        slots.put(number, now);
    }
    let mut done = Vec::new();
    while slots.in_flight > 0 {
        wire.turn(|out, bytes, now| {
            let taken = exchange.read(bytes, out, &mut done)?;
            let phase = stage.phase();
            Recorder::with(|recorder| {
                for number in done.drain(..) {
                    let Some(sent_ns) = slots.take(number) else {
                        recorder.fault(|| format!("answer to request {number}, which isn't in flight"));
                        continue;
                    };
                    if phase == Phase::Measure {
                        recorder.done(now - sent_ns);
                    }
                    if phase < Phase::Stop {
                        exchange.write(out, number + depth);
                        slots.put(number + depth, now);
                    }
                }
            });
            Ok(taken)
        })
        .await?;
    }
    Ok(())
}

/// Which requests of one connection are due, and which are answered.
struct Due {
    schedule: Schedule,
    next: u64,
    answered: u64,
    stride: u64,
}

async fn open<E: Exchange>(
    mut wire: Wire,
    mut exchange: E,
    mut due: Due,
    bell: Arc<Notify>,
    stage: Arc<Stage>,
) -> Result<()> {
    let mut done = Vec::new();
    loop {
        let now = now_ns().min(stage.until_ns());
        while due.schedule.due_ns(due.next) < now {
            exchange.write(&mut wire.out, due.next);
            due.next += due.stride;
        }
        if stage.phase() == Phase::Stop && due.answered == due.next {
            return Ok(());
        }
        let turn = wire.turn(|out, bytes, now| {
            let taken = exchange.read(bytes, out, &mut done)?;
            let phase = stage.phase();
            Recorder::with(|recorder| {
                for number in done.drain(..) {
                    // A channel answers in order: another number is a lost or a repeated answer.
                    if number != due.answered || number >= due.next {
                        let expected = due.answered;
                        recorder.fault(|| format!("answer to request {number}, expected {expected}"));
                        continue;
                    }
                    due.answered += due.stride;
                    recorder.count += u64::from(phase == Phase::Measure);
                    let due_ns = due.schedule.due_ns(number);
                    if stage.measures(due_ns) {
                        recorder.latency.saturating_record(now.saturating_sub(due_ns));
                    }
                }
            });
            Ok(taken)
        });
        tokio::select! {
            done = turn => done?,
            () = bell.notified() => {}
        }
    }
}

/// Wakes each connection when its next request is due.
async fn ring(bells: Vec<Arc<Notify>>, schedule: Schedule, stage: Arc<Stage>) -> Result<()> {
    let mut next = 0;
    while stage.phase() < Phase::Stop && !bells.is_empty() {
        let now = now_ns();
        while schedule.due_ns(next) < now {
            bells[next as usize % bells.len()].notify_one();
            next += 1;
        }
        let wait_ns = schedule.due_ns(next).saturating_sub(now);
        if wait_ns > TIMER_MARGIN_NS {
            let sleep_ns = (wait_ns - TIMER_MARGIN_NS / 2).min(100_000_000);
            tokio::time::sleep(std::time::Duration::from_nanos(sleep_ns)).await;
        } else {
            tokio::task::yield_now().await;
        }
    }
    for bell in bells {
        bell.notify_one();
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_request_is_answered_once_and_only_while_in_flight() {
        let mut slots = Slots::new(4);
        slots.put(5, 100);
        slots.put(6, 200);

        assert_eq!(slots.take(1), None, "same slot, other number");
        assert_eq!(slots.take(6), Some(200));
        assert_eq!(slots.take(6), None, "answered before");
        assert_eq!(slots.in_flight, 1);
    }

    #[test]
    fn connections_share_the_numbers_of_a_fixed_rate() {
        let load = Load::Open { rate_per_s: 10.0 };
        let mut numbers: Vec<u64> =
            (0..3).flat_map(|index| (0..4).map(move |turn| load.first(index) + turn * load.stride(3))).collect();
        numbers.sort_unstable();
        assert_eq!(numbers, (0..12).collect::<Vec<_>>());
    }
}
