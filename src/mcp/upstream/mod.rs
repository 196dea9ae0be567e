//! Other MCP servers behind this one: connections with them, started, shared, watched and started again.
//!
//! Nothing is lost: what they say reaches the client as their own text, where only ids and tokens are exchanged. What an
//! upstream says of itself, its lists included, is asked of it each time.
//!
//! ```text
//! client ─ Session ─ Call ─ relay ─ Slot ─ Instance ─ stdio | http ─ upstream
//! ```

mod attachment;
mod handshake;
mod hearing;
mod http;
mod instance;
mod learned;
mod listing;
mod options;
mod places;
mod sending;
mod slot;
mod stdio;

use std::sync::Arc;

use parking_lot::Mutex;
use serde::Serialize;

pub use crate::metrics::Latency;
pub(super) use attachment::Attachment;
pub(super) use http::why;
pub(super) use instance::{Event, Hello, Instance, Lost, Ticket};
use learned::Learned;
pub(super) use listing::whole_list;
pub use options::{Command, ENV_DEFAULT, Endpoint, Reach, Sharing, SpokenEra, UpstreamOptions};
pub(super) use places::Lease;
use places::Slots;
use slot::{Carrier, Standing};
pub(super) use slot::{NotUp, Slot};

use super::relay::Parked;
use crate::metrics::{METRICS, UpstreamMetrics};

/// One upstream.
pub(super) struct Upstream {
    pub(super) name: Arc<str>,
    pub(super) options: UpstreamOptions,
    stats: Arc<UpstreamMetrics>,
    pub(super) learned: Learned,
    slots: Mutex<Slots>,
    /// Calls that wait for stateless clients.
    pub(super) parked: Parked,
}

/// Whether an upstream can be used.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
#[non_exhaustive]
pub enum UpstreamState {
    /// Not started, since nobody needed it.
    Idle,
    /// On its way.
    Starting,
    /// Connected.
    Up,
    /// Ended, or never reached; it is tried again.
    Down,
}

/// How an upstream stands.
#[derive(Clone, Debug, Serialize)]
#[non_exhaustive]
pub struct UpstreamHealth {
    /// The best of its connections.
    pub state: UpstreamState,
    /// Connections that are up.
    pub connections: usize,
    /// Connections made so far.
    pub started: u64,
    /// Those that broke, and tries that failed.
    pub broken: u64,
    /// Requests that got no answer.
    pub failed_requests: u64,
    /// How long answers took.
    pub latency: Latency,
    /// Lines or bodies that were no messages.
    pub garbage: u64,
    /// Messages above the bound.
    pub too_long: u64,
    /// Answers that nobody waited for.
    pub late: u64,
    /// Messages that could be of several clients, and reached none.
    pub unattributed: u64,
    /// Why a connection broke last.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub last_fault: Option<String>,
}

impl Upstream {
    pub(super) fn new(name: &str, options: UpstreamOptions) -> Arc<Self> {
        let name = name.into();
        Arc::new(Upstream {
            options,
            stats: METRICS.upstream(&name),
            learned: Learned::default(),
            name,
            slots: Mutex::default(),
            parked: Parked::default(),
        })
    }

    /// Starts the shared connection, where it is to start with the server.
    pub(super) fn boot(self: &Arc<Self>) {
        if self.options.starts_at_boot
            && let Ok(slot) = self.shared(self.options.era == SpokenEra::Stateless)
        {
            slot.want();
        }
    }

    /// Whether its tools may want arguments as headers, and which is not known.
    pub(super) fn wants_headers(&self, instance: &Instance) -> bool {
        let is_http = matches!(self.options.reach, Reach::Http(_));
        is_http && instance.hello().is_some_and(Hello::is_modern) && !self.learned.knows_headers()
    }

    /// What carries messages of a new connection.
    fn carrier(&self, instance: &Arc<Instance>) -> Result<Carrier, String> {
        let bytes_max = self.options.message_bytes_max;
        Ok(match &self.options.reach {
            Reach::Stdio(command) => Carrier::Stdio(Box::new(stdio::Program::start(command, bytes_max)?)),
            Reach::Http(endpoint) => Carrier::Http(Box::new(http::Endpoint::open(endpoint, bytes_max, instance)?)),
        })
    }

    /// How it stands.
    pub(super) fn health(&self) -> UpstreamHealth {
        let slots = self.slots.lock().all();
        let (mut state, mut connections) = (UpstreamState::Idle, 0);
        for slot in slots {
            let other = match slot.standing() {
                Standing::Up(_) => {
                    connections += 1;
                    UpstreamState::Up
                }
                Standing::Starting => UpstreamState::Starting,
                Standing::Down { why: Some(_), .. } => UpstreamState::Down,
                Standing::Down { why: None, .. } | Standing::Closed => UpstreamState::Idle,
            };
            let rank = |state| match state {
                UpstreamState::Idle => 0,
                UpstreamState::Down => 1,
                UpstreamState::Starting => 2,
                UpstreamState::Up => 3,
            };
            if rank(other) > rank(state) {
                state = other;
            }
        }
        UpstreamHealth {
            state,
            connections,
            started: self.stats.started.get(),
            broken: self.stats.broken.get(),
            failed_requests: self.stats.failed.get(),
            latency: self.stats.latency(),
            garbage: self.stats.garbage.get(),
            too_long: self.stats.too_long.get(),
            late: self.stats.late.get(),
            unattributed: self.stats.unattributed.get(),
            last_fault: self.stats.last_fault(),
        }
    }
}
