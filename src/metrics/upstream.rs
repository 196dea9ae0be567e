//! What is counted of an MCP server behind this one.

use hdrhistogram::Histogram;
use parking_lot::Mutex;
use serde::Serialize;

use super::Counter;

/// The longest latency that is told apart, in milliseconds: an hour.
const LATENCY_MS_MAX: u64 = 3_600_000;

/// The counts of one upstream, over all its connections.
#[derive(Debug)]
pub struct UpstreamMetrics {
    /// Connections that shook hands.
    pub started: Counter,
    /// Of those, the ones that ended otherwise than by our wish; and tries to start that failed.
    pub broken: Counter,
    /// Requests that got no answer.
    pub failed: Counter,
    /// Answers to nothing that was asked, or no longer.
    pub late: Counter,
    /// Lines that were no messages.
    pub garbage: Counter,
    /// Messages above the bound.
    pub too_long: Counter,
    /// Messages that were for a client which can't be known.
    pub unattributed: Counter,
    latency_ms: Mutex<Histogram<u32>>,
    last_fault: Mutex<Option<String>>,
}

impl Default for UpstreamMetrics {
    fn default() -> Self {
        let latency = Histogram::new_with_bounds(1, LATENCY_MS_MAX, 2).expect("the bounds are in order");
        UpstreamMetrics {
            started: Counter::default(),
            broken: Counter::default(),
            failed: Counter::default(),
            late: Counter::default(),
            garbage: Counter::default(),
            too_long: Counter::default(),
            unattributed: Counter::default(),
            latency_ms: Mutex::new(latency),
            last_fault: Mutex::default(),
        }
    }
}

/// What is told of the latency of an upstream's answers, in milliseconds.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Latency {
    /// Answers that are counted.
    pub answers: u64,
    /// Half of them took at most this.
    pub p50_ms: u64,
    /// All but one in a hundred.
    pub p99_ms: u64,
    /// The longest.
    pub max_ms: u64,
}

impl UpstreamMetrics {
    /// Notes an answer after so long.
    pub fn answered(&self, after_ms: u64) {
        self.latency_ms.lock().saturating_record(after_ms);
    }

    /// Notes why a connection ended, or was not made.
    pub fn broke(&self, why: &str) {
        self.broken.inc();
        *self.last_fault.lock() = Some(why.to_owned());
    }

    /// Why a connection broke last.
    pub fn last_fault(&self) -> Option<String> {
        self.last_fault.lock().clone()
    }

    /// How long answers took.
    pub fn latency(&self) -> Latency {
        let latency = self.latency_ms.lock();
        Latency {
            answers: latency.len(),
            p50_ms: latency.value_at_quantile(0.5),
            p99_ms: latency.value_at_quantile(0.99),
            max_ms: latency.max(),
        }
    }
}
