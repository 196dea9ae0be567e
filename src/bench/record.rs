//! What a run counts and times. Each thread has one recorder, so that a thousand connections share one histogram and no lock.

use std::cell::RefCell;

use hdrhistogram::Histogram;
use serde::{Deserialize, Serialize};

/// The longest latency told apart, in nanoseconds: longer ones count as this one.
const LATENCY_NS_MAX: u64 = 100_000_000_000;

/// Counts and latencies of one thread, or of all after [`Recorder::add`].
#[derive(Debug)]
pub struct Recorder {
    /// Units (messages, deliveries, joins, connects, calls) completed in the measured window.
    pub count: u64,
    /// Latency of a unit, in nanoseconds.
    pub latency: Histogram<u64>,
    /// From publishing a broadcast to its last delivery, in nanoseconds; empty in other modes.
    pub last_delivery: Histogram<u64>,
    /// Answers that weren't what they had to be, at any time of the run.
    pub faults: u64,
    /// The first of them.
    pub first_fault: Option<String>,
    /// Messages that a server sent between its answers and that are none, at any time of the run; counted by the MCP modes.
    pub pushes: u64,
}

thread_local! {
    static RECORDER: RefCell<Recorder> = RefCell::new(Recorder::new());
}

impl Default for Recorder {
    fn default() -> Self {
        Self::new()
    }
}

impl Recorder {
    /// An empty recorder with three significant digits.
    pub fn new() -> Self {
        let histogram =
            || Histogram::new_with_bounds(1, LATENCY_NS_MAX, 3).expect("the bounds are constants and valid");
        Self { count: 0, latency: histogram(), last_delivery: histogram(), faults: 0, first_fault: None, pushes: 0 }
    }

    /// Gives `use_recorder` the recorder of this thread.
    pub fn with<T>(use_recorder: impl FnOnce(&mut Self) -> T) -> T {
        RECORDER.with_borrow_mut(use_recorder)
    }

    /// Takes what this thread recorded and leaves an empty recorder.
    pub fn take() -> Self {
        RECORDER.take()
    }

    /// Counts one unit and its latency.
    pub fn done(&mut self, latency_ns: u64) {
        self.count += 1;
        self.latency.saturating_record(latency_ns);
    }

    /// Counts an answer that is wrong.
    pub fn fault(&mut self, what: impl FnOnce() -> String) {
        self.faults += 1;
        self.first_fault.get_or_insert_with(what);
    }

    /// Adds what another thread recorded.
    pub fn add(&mut self, other: &Self) {
        self.count += other.count;
        self.faults += other.faults;
        self.pushes += other.pushes;
        for (sum, part) in [(&mut self.latency, &other.latency), (&mut self.last_delivery, &other.last_delivery)] {
            sum.add(part).expect("both have the same bounds");
        }
        if self.first_fault.is_none() {
            self.first_fault.clone_from(&other.first_fault);
        }
    }
}

/// Percentiles of a latency, in microseconds.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct Latency {
    /// Half of all are at most this.
    pub p50_us: f64,
    /// Nine of ten.
    pub p90_us: f64,
    /// All but one in a hundred.
    pub p99_us: f64,
    /// All but one in a thousand.
    pub p999_us: f64,
    /// The longest.
    pub max_us: f64,
    /// The mean.
    pub mean_us: f64,
}

impl Latency {
    /// Reads the percentiles; `None` if nothing was recorded.
    pub fn of(histogram: &Histogram<u64>) -> Option<Self> {
        let us = |ns: f64| (ns / 10.0).round() / 100.0;
        let at = |quantile| us(histogram.value_at_quantile(quantile) as f64);
        (!histogram.is_empty()).then(|| Self {
            p50_us: at(0.5),
            p90_us: at(0.9),
            p99_us: at(0.99),
            p999_us: at(0.999),
            max_us: us(histogram.max() as f64),
            mean_us: us(histogram.mean()),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn percentiles_of_two_threads_are_those_of_all_their_latencies() {
        let mut sum = Recorder::new();
        let mut other = Recorder::new();
        for ms in 1..=500 {
            sum.done(ms * 1_000_000);
            other.done((ms + 500) * 1_000_000);
        }
        other.fault(|| "first".to_owned());
        other.fault(|| "second".to_owned());
        (sum.pushes, other.pushes) = (1, 2);

        sum.add(&other);

        let latency = Latency::of(&sum.latency).expect("recorded");
        let close = |came: f64, expected_ms: f64| {
            assert!((came / 1000.0 / expected_ms - 1.0).abs() < 0.01, "{came} us, expected {expected_ms} ms");
        };
        close(latency.p50_us, 500.0);
        close(latency.p90_us, 900.0);
        close(latency.p99_us, 990.0);
        close(latency.p999_us, 999.0);
        close(latency.max_us, 1000.0);
        assert_eq!((sum.count, sum.faults, sum.pushes), (1000, 2, 3));
        assert_eq!(sum.first_fault.as_deref(), Some("first"));
        assert_eq!(Latency::of(&sum.last_delivery), None);
    }
}
