//! Which connection with an upstream is whose: one for all, one for a session, one lent to a single call.

use std::collections::BTreeMap;
use std::sync::Arc;

use serde_json::value::RawValue;

use super::slot::{Introduced, Key, Slot, own_introduction};
use super::{NotUp, Sharing, SpokenEra, Upstream};
use crate::mcp::session::Session;
use crate::protocol::mcp::client::{Client, Era};
use crate::protocol::mcp::relay::Introduction;
use crate::protocol::mcp::version::Version;

/// The slots of one upstream.
#[derive(Default)]
pub(super) struct Slots {
    by_key: BTreeMap<Key, Arc<Slot>>,
    /// Those that were closed, until their programs are gone.
    closing: Vec<Arc<Slot>>,
    last_lent: u64,
}

impl Slots {
    /// All of them, in any state.
    pub(super) fn all(&self) -> Vec<Arc<Slot>> {
        self.by_key.values().chain(&self.closing).cloned().collect()
    }
}

/// A slot for one call, or for as long as a session is open.
pub(in crate::mcp) struct Lease {
    slot: Arc<Slot>,
    is_lent: bool,
}

impl Lease {
    pub(in crate::mcp) fn slot(&self) -> &Arc<Slot> {
        &self.slot
    }
}

impl Drop for Lease {
    fn drop(&mut self) {
        if self.is_lent {
            self.slot.give_back();
        }
    }
}

impl Upstream {
    /// The place of a connection for a session's client.
    ///
    /// # Errors
    /// There are as many as may be.
    pub(in crate::mcp) fn lease(
        self: &Arc<Self>,
        session: &Arc<Session>,
        client: &Client,
        introduction: &Introduction,
    ) -> Result<Lease, NotUp> {
        let is_modern = self.opens_modern(client);
        let is_own = match self.options.sharing {
            Sharing::Shared => false,
            Sharing::Session => true,
            // Of the stateless era an upstream asks in its answer, so that it is known whom.
            Sharing::Auto => client.capabilities.can_be_asked() && !self.speaks_stateless(is_modern),
        };
        let slot = match (is_own, client.era) {
            (false, _) => self.shared(is_modern)?,
            (true, Era::Modern) => return self.lent(&session.user.user, introduction, is_modern),
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
        Ok(Lease { slot, is_lent: false })
    }

    /// The place of a connection that a session hears of changes from: the one that its calls have, as far as that is known. It
    /// stays as long as the session.
    ///
    /// # Errors
    /// There are as many as may be.
    pub(in crate::mcp) fn heard(
        self: &Arc<Self>,
        session: &Arc<Session>,
        client: &Client,
        introduction: &Introduction,
    ) -> Result<Arc<Slot>, NotUp> {
        let lease = self.lease(session, client, introduction)?;
        session.attach(lease.slot());
        Ok(Arc::clone(lease.slot()))
    }

    /// Finds out whether a stateless client that can be asked needs a connection of its own.
    ///
    /// # Errors
    /// The upstream can't be reached.
    pub(in crate::mcp) async fn learn_era(self: &Arc<Self>, client: &Client) -> Result<(), NotUp> {
        let is_modern = self.opens_modern(client);
        let matters = self.options.sharing == Sharing::Auto && client.capabilities.can_be_asked() && is_modern;
        if matters
            && !self.speaks_stateless(true)
            && !self.learned.has_opened()
            && let Ok(slot) = self.shared(true)
        {
            slot.up().await?;
            if !self.speaks_stateless(true) && slot.is_spare() {
                // It is of no use to this client, and perhaps in its way.
                slot.close();
                slot.ended().await;
            }
        }
        Ok(())
    }

    /// Whether a connection for a client is opened in the stateless era.
    fn opens_modern(&self, client: &Client) -> bool {
        match self.options.era {
            SpokenEra::Auto => client.era == Era::Modern,
            SpokenEra::Legacy => false,
            SpokenEra::Stateless => true,
        }
    }

    /// Whether connections that open in this era are known to be stateless.
    fn speaks_stateless(&self, is_modern: bool) -> bool {
        self.options.era == SpokenEra::Stateless || self.learned.speaks_stateless(is_modern)
    }

    /// The connection of all who open in this era.
    pub(super) fn shared(self: &Arc<Self>, is_modern: bool) -> Result<Arc<Slot>, NotUp> {
        self.slot(Key::Shared { is_modern }, own_introduction(self.options.sharing), is_modern)
    }

    fn slot(self: &Arc<Self>, key: Key, introduction: Box<RawValue>, is_modern: bool) -> Result<Arc<Slot>, NotUp> {
        let mut slots = self.slots.lock();
        if let Some(slot) = slots.by_key.get(&key).filter(|slot| !slot.is_closed()) {
            return Ok(Arc::clone(slot));
        }
        let asleep = self.make_room(&mut slots)?;
        let slot = Slot::new(self, key, Introduced { params: introduction, user: None }, is_modern);
        if let Some(before) = slots.by_key.insert(key, Arc::clone(&slot)) {
            slots.closing.push(before);
        }
        drop(slots);
        asleep.inspect(|slot| slot.close());
        Ok(slot)
    }

    /// A place for one stateless call whose client may be asked, with an upstream that asks in the course of a call.
    fn lent(self: &Arc<Self>, user: &Arc<str>, introduction: &Introduction, is_modern: bool) -> Result<Lease, NotUp> {
        let params = introduction.to_initialize(Version::LATEST_LEGACY);
        let unused = {
            let mut slots = self.slots.lock();
            let lent = slots.by_key.iter().filter(|(key, slot)| matches!(key, Key::Lent(_)) && !slot.is_closed());
            let mut unused = None;
            for (_, slot) in lent {
                let mut is_lent = slot.is_lent.lock();
                if *is_lent {
                    continue;
                }
                // What it was told of one user, such as roots, is not for another.
                if slot.introduces(&params, user) {
                    *is_lent = true;
                    drop(is_lent);
                    return Ok(Lease { slot: Arc::clone(slot), is_lent: true });
                }
                drop(is_lent);
                unused = unused.or_else(|| slot.is_spare().then(|| Arc::clone(slot)));
            }
            match self.make_room(&mut slots) {
                Ok(asleep) => {
                    slots.last_lent += 1;
                    let key = Key::Lent(slots.last_lent);
                    let slot = Slot::new(self, key, Introduced { params, user: Some(Arc::clone(user)) }, is_modern);
                    *slot.is_lent.lock() = true;
                    slots.by_key.insert(key, Arc::clone(&slot));
                    drop(slots);
                    asleep.inspect(|slot| slot.close());
                    return Ok(Lease { slot, is_lent: true });
                }
                Err(full) => unused.ok_or(full)?,
            }
        };
        // One that is kept for another client makes room, for whoever asks next.
        unused.close();
        let name = &self.name;
        Err(NotUp(format!("the MCP server {name:?} makes room for another client: try again")))
    }

    /// Sees that there may be one more. Where there may not, one goes that is of no use now; it is to be closed without the lock.
    fn make_room(&self, slots: &mut Slots) -> Result<Option<Arc<Slot>>, NotUp> {
        let limit = self.options.instances_max;
        if slots.by_key.len() + slots.closing.len() >= limit {
            let asleep = slots.by_key.iter().find(|(_, slot)| slot.is_asleep()).map(|(key, _)| *key);
            if let Some(key) = asleep {
                return Ok(slots.by_key.remove(&key));
            }
            let name = &self.name;
            return Err(NotUp(format!("the MCP server {name:?} has as many connections as it may: {limit}")));
        }
        Ok(None)
    }

    /// Takes a slot out that was closed: it counts until its program is gone.
    pub(super) fn retire(&self, slot: &Slot) {
        let mut slots = self.slots.lock();
        let is_it = slots.by_key.get(&slot.key).is_some_and(|other| std::ptr::eq(Arc::as_ptr(other), slot));
        if is_it && let Some(closed) = slots.by_key.remove(&slot.key) {
            slots.closing.push(closed);
        }
    }

    /// Forgets a slot whose task has ended.
    pub(super) fn forget(&self, slot: &Arc<Slot>) {
        let gone: Vec<_> = {
            let mut slots = self.slots.lock();
            let is_it = slots.by_key.get(&slot.key).is_some_and(|other| Arc::ptr_eq(other, slot));
            let ended = if is_it { slots.by_key.remove(&slot.key) } else { None };
            let (gone, closing) =
                std::mem::take(&mut slots.closing).into_iter().partition(|other| Arc::ptr_eq(other, slot));
            slots.closing = closing;
            Vec::from_iter(ended).into_iter().chain::<Vec<_>>(gone).collect()
        };
        drop(gone);
    }

    /// Ends all connections, and waits until their programs are gone.
    pub(in crate::mcp) async fn stop(&self) {
        let slots = self.slots.lock().all();
        for slot in &slots {
            slot.close();
        }
        for slot in slots {
            slot.ended().await;
        }
    }
}
