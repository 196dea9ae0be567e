//! What the server counts.

use std::sync::atomic::{AtomicU64, Ordering};

/// A counter that only grows.
#[derive(Debug, Default)]
pub struct Counter(AtomicU64);

impl Counter {
    const fn new() -> Self {
        Counter(AtomicU64::new(0))
    }

    /// Adds one.
    pub fn inc(&self) {
        self.0.fetch_add(1, Ordering::Relaxed);
    }

    /// The count so far.
    pub fn get(&self) -> u64 {
        self.0.load(Ordering::Relaxed)
    }
}

/// The counters of this process.
#[derive(Debug)]
pub struct Metrics {
    /// Connections closed because they did not read: their outbox or inbox was full.
    pub slow_consumers: Counter,
    /// Broadcasts that a subscriber's wire version can't carry, once a version and broadcast.
    pub unencodable_broadcasts: Counter,
    /// Broadcasts refused because a shard's queue was full.
    pub overloaded_broadcasts: Counter,
    /// Handlers that panicked.
    pub channel_crashes: Counter,
    /// Connections refused because a limit on connections was reached.
    pub refused_connections: Counter,
}

/// The one set of counters. A process has one of each, so this is a static as a metrics registry is.
pub static METRICS: Metrics = Metrics {
    slow_consumers: Counter::new(),
    unencodable_broadcasts: Counter::new(),
    overloaded_broadcasts: Counter::new(),
    channel_crashes: Counter::new(),
    refused_connections: Counter::new(),
};
