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
mod sending;
mod slot;
mod stdio;

use std::collections::BTreeMap;
use std::sync::Arc;

use parking_lot::Mutex;
use serde::Serialize;
use serde_json::value::RawValue;

pub use crate::metrics::Latency;
pub(super) use attachment::Attachment;
pub(super) use instance::{Event, Hello, Instance, Lost, Ticket};
use learned::Learned;
pub(super) use listing::whole_list;
pub use options::{Command, ENV_DEFAULT, Endpoint, Reach, Sharing, SpokenEra, UpstreamOptions};
use slot::{Carrier, Key, Standing, own_introduction};
pub(super) use slot::{NotUp, Slot};

use super::relay::Parked;
use super::session::Session;
use crate::metrics::{METRICS, UpstreamMetrics};
use crate::protocol::mcp::client::{Client, Era};
use crate::protocol::mcp::relay::Introduction;
use crate::protocol::mcp::version::Version;

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

#[derive(Default)]
struct Slots {
    by_key: BTreeMap<Key, Arc<Slot>>,
    last_lent: u64,
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

/// A slot for one call, or for as long as a session is open.
pub(super) struct Lease {
    slot: Arc<Slot>,
}

impl Lease {
    pub(super) fn slot(&self) -> &Arc<Slot> {
        &self.slot
    }
}

impl Drop for Lease {
    fn drop(&mut self) {
        *self.slot.is_lent.lock() = false;
    }
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
        if self.options.starts_at_boot {
            let is_modern = self.options.era == SpokenEra::Stateless;
            if let Ok(slot) = self.shared(is_modern) {
                slot.want();
            }
        }
    }

    /// The place of a connection for a session's client.
    ///
    /// # Errors
    /// There are as many as may be.
    pub(super) fn lease(
        self: &Arc<Self>,
        session: &Arc<Session>,
        client: &Client,
        introduction: &Introduction,
    ) -> Result<Lease, NotUp> {
        let is_modern = match self.options.era {
            SpokenEra::Auto => client.era == Era::Modern,
            SpokenEra::Legacy => false,
            SpokenEra::Stateless => true,
        };
        let is_own = match self.options.sharing {
            Sharing::Shared => false,
            Sharing::Session => true,
            // Of the stateless era an upstream asks in its answer, so that it is known whom.
            Sharing::Auto => client.capabilities.can_be_asked() && !self.speaks_stateless_only(is_modern),
        };
        let slot = match (is_own, client.era) {
            (false, _) => self.shared(is_modern)?,
            (true, Era::Modern) => return self.lent(introduction, is_modern),
            (true, Era::Legacy | Era::Elixir) => {
                let params = session.introduction();
                let params = params.unwrap_or_else(|| introduction.to_initialize(client.version));
                let slot = self.slot(Key::Session(session.number()), params, is_modern)?;
                if session.is_ready() {
                    slot.client_is_ready();
                }
                slot
            }
        };
        session.attach(&slot);
        Ok(Lease { slot })
    }

    /// Whether connections that open in this era are known to be stateless.
    fn speaks_stateless_only(&self, is_modern: bool) -> bool {
        let slot = self.slots.lock().by_key.get(&Key::Shared { is_modern }).cloned();
        match slot.map(|slot| slot.standing()) {
            Some(Standing::Up(instance)) => instance.hello().is_some_and(Hello::is_modern),
            // What is not known yet is learnt by trying.
            _ => self.options.era == SpokenEra::Stateless,
        }
    }

    fn shared(self: &Arc<Self>, is_modern: bool) -> Result<Arc<Slot>, NotUp> {
        self.slot(Key::Shared { is_modern }, own_introduction(self.options.sharing), is_modern)
    }

    fn slot(self: &Arc<Self>, key: Key, introduction: Box<RawValue>, is_modern: bool) -> Result<Arc<Slot>, NotUp> {
        let mut slots = self.slots.lock();
        if let Some(slot) = slots.by_key.get(&key) {
            return Ok(Arc::clone(slot));
        }
        self.check_room(&slots)?;
        let slot = Slot::new(self, key, introduction, is_modern);
        slots.by_key.insert(key, Arc::clone(&slot));
        Ok(slot)
    }

    /// A place for one stateless call whose client may be asked, with an upstream that asks in the course of a call.
    fn lent(self: &Arc<Self>, introduction: &Introduction, is_modern: bool) -> Result<Lease, NotUp> {
        let params = introduction.to_initialize(Version::LATEST_LEGACY);
        let mut slots = self.slots.lock();
        let lent = slots.by_key.iter().filter(|(key, _)| matches!(key, Key::Lent(_)));
        for (_, slot) in lent.filter(|(_, slot)| slot.introduces(&params)) {
            let is_taken = std::mem::replace(&mut *slot.is_lent.lock(), true);
            if !is_taken {
                return Ok(Lease { slot: Arc::clone(slot) });
            }
        }
        self.check_room(&slots)?;
        slots.last_lent += 1;
        let key = Key::Lent(slots.last_lent);
        let slot = Slot::new(self, key, params, is_modern);
        *slot.is_lent.lock() = true;
        slots.by_key.insert(key, Arc::clone(&slot));
        Ok(Lease { slot })
    }

    fn check_room(&self, slots: &Slots) -> Result<(), NotUp> {
        let limit = self.options.instances_max;
        if slots.by_key.len() >= limit {
            let name = &self.name;
            return Err(NotUp(format!("the MCP server {name:?} has as many connections as it may: {limit}")));
        }
        Ok(())
    }

    fn forget(&self, key: Key) {
        self.slots.lock().by_key.remove(&key);
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

    /// Ends all connections, and waits until their programs are gone.
    pub(super) async fn stop(&self) {
        let slots: Vec<_> = self.slots.lock().by_key.values().cloned().collect();
        for slot in &slots {
            slot.close();
        }
        for slot in slots {
            slot.ended().await;
        }
    }

    /// How it stands.
    pub(super) fn health(&self) -> UpstreamHealth {
        let slots: Vec<_> = self.slots.lock().by_key.values().cloned().collect();
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
