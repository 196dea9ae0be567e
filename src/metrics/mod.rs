//! What the server counts.

mod upstream;

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Weak};

use parking_lot::Mutex;

pub use upstream::{Latency, UpstreamMetrics};

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
    upstreams: Mutex<Vec<(Arc<str>, Weak<UpstreamMetrics>)>>,
}

impl Metrics {
    /// The counts of an MCP server behind this one, from zero; they are listed as long as someone has them.
    pub fn upstream(&self, name: &Arc<str>) -> Arc<UpstreamMetrics> {
        let counts = Arc::default();
        let mut upstreams = self.upstreams.lock();
        upstreams.retain(|(_, counts)| counts.strong_count() > 0);
        upstreams.push((Arc::clone(name), Arc::downgrade(&counts)));
        counts
    }

    /// The counts of all of them, with their names.
    pub fn upstreams(&self) -> Vec<(Arc<str>, Arc<UpstreamMetrics>)> {
        let upstreams = self.upstreams.lock();
        upstreams.iter().filter_map(|(name, counts)| Some((Arc::clone(name), counts.upgrade()?))).collect()
    }
}

/// The one set of counters. A process has one of each, so this is a static as a metrics registry is.
pub static METRICS: Metrics = Metrics {
    slow_consumers: Counter::new(),
    unencodable_broadcasts: Counter::new(),
    overloaded_broadcasts: Counter::new(),
    channel_crashes: Counter::new(),
    refused_connections: Counter::new(),
    upstreams: Mutex::new(Vec::new()),
};
