//! How a server stops, and how far it has got.

use std::time::Duration;

use tokio::signal::unix::{SignalKind, signal as unix_signal};

use crate::clock;
use crate::outbox::Control;
use crate::pubsub::Hub;

/// How often the drain looks whether everyone has gone.
const LOOK: Duration = Duration::from_millis(20);

/// How long the sockets that were still open at the end of the drain's time get to be told.
const FAREWELL: Duration = Duration::from_secs(1);

/// How far a server has got with stopping.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Stage {
    /// Not at all.
    Serving,
    /// `/readyz` says that it is about to; everything else goes on.
    Leaving,
    /// Sockets are closed, and none opened.
    Draining,
}

/// Settings of the drain. Phoenix's defaults.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub struct DrainOptions {
    /// Milliseconds between `/readyz` turning to 503 and the drain, for balancers to notice.
    pub delay_ms: u64,
    /// Milliseconds that the drain may take in all, unless sockets have to be told at its end.
    pub total_ms: u64,
    /// Connections told at once.
    pub batch_connections: usize,
    /// Milliseconds between two batches.
    pub batch_interval_ms: u64,
    /// Milliseconds for the last answers to leave.
    pub linger_ms: u64,
}

impl Default for DrainOptions {
    fn default() -> Self {
        DrainOptions {
            delay_ms: 0,
            total_ms: 30_000,
            batch_connections: 10_000,
            batch_interval_ms: 2_000,
            linger_ms: 100,
        }
    }
}

/// Closes every socket, a batch at a time, and waits until their conversations have ended or the time is up. Then all that
/// are left are told at once.
pub(super) async fn drain(hub: &Hub, options: &DrainOptions) {
    let deadline = clock::now() + options.total_ms;
    let per_shard = options.batch_connections.div_ceil(hub.shards()).max(1);
    let mut next_batch = clock::now();
    while hub.live() > 0 && clock::now() < deadline {
        if clock::now() >= next_batch {
            tracing::info!(sockets = hub.live(), "draining");
            hub.order(Control::Drain, per_shard);
            next_batch = clock::now() + options.batch_interval_ms;
        }
        tokio::time::sleep(LOOK).await;
    }
    let left = hub.live();
    if left == 0 {
        return;
    }
    tracing::warn!(sockets = left, "the drain's time is up");
    hub.order(Control::Drain, usize::MAX);
    let gone = async {
        while hub.live() > 0 {
            tokio::time::sleep(LOOK).await;
        }
    };
    // Whoever has not gone by then has been told at least, or does not read.
    let _ = tokio::time::timeout(FAREWELL, gone).await;
}

/// Waits for SIGTERM or SIGINT.
///
/// # Panics
/// Outside of a tokio runtime.
pub async fn signal() {
    let mut terminate = unix_signal(SignalKind::terminate()).expect("the runtime handles signals");
    let mut interrupt = unix_signal(SignalKind::interrupt()).expect("the runtime handles signals");
    tokio::select! {
        _ = terminate.recv() => {}
        _ = interrupt.recv() => {}
    }
}
