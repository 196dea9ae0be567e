//! The messages of one consumer name: an inbox, a session, a named queue. At least once, in order, without a clock.
//!
//! # A message's way
//!
//! ```text
//!            offer          stored            due             take
//!   offered ──────▶ Storing ──────▶ Delayed ──────▶ Ready ──────────▶ InFlight ─┐ ack
//!                      │  (Held)       ▲              │ ▲                │  │   ▼
//!                      │ failed        │ nack, lease  │ └── leave ───────┘  │  Settling ── acked ──▶ gone
//!                      ▼               └──over────────┼───────────────────┘
//!                    gone                             ▼ expires
//!                                                  Expired ── handle_timeout ──▶ gone
//! ```
//!
//! A message that comes back too often becomes a dead letter, which is gone after a while too.
//!
//! # What the driver promises
//!
//! - It stores a message after [`Queue::offer`] and then says [`Queue::stored`] or [`Queue::failed`]; its publisher is
//!   answered after that, too. It removes a message from the store after [`Queue::ack`] and then says [`Queue::acked`] or
//!   [`Queue::ack_failed`]. It writes down every [`Change`], in their order, and the changes of one queue in the order in
//!   which it was told to make them.
//! - It calls [`Queue::handle_timeout`] when [`Queue::next_timeout`] is there. Until then, leases that are over go on, and
//!   what has expired is kept, though it is not delivered.
//!
//! # What the queue promises
//!
//! - A message that is stored is delivered until it is acknowledged, expires, is purged or becomes a dead letter, however
//!   often the process ends and the queue is restored. It may be delivered more than once, but never after
//!   [`Queue::acked`].
//! - One message is at one consumer at a time, while its lease lasts.
//! - Within a priority messages are delivered by their numbers. One that comes back, or is due late, takes its place by
//!   its number, so before later ones. One whose storing took longer is not overtaken.
//! - No priority starves: see [`Limits::passed_over_max`].
//! - Every step takes time logarithmic in what is kept, for each message that it concerns. An empty queue has nothing
//!   allocated but up to 1 024 numbers of settled messages.
//!
//! No call panics. Those of unknown numbers do nothing, or say so.

mod backoff;
mod dead;
mod keys;
mod priority;
mod recent;
mod steps;
#[cfg(test)]
mod tests;
mod types;

use std::collections::{BTreeMap, BTreeSet};
use std::ops::Bound;
use std::sync::Arc;

pub use self::backoff::Backoff;
use self::dead::DeadLetters;
use self::keys::Keys;
pub use self::priority::Priority;
use self::priority::Ready;
use self::recent::Recent;
pub use self::types::{
    AckError, Change, ConsumerId, DeadLetter, DeadReason, Delivery, Limits, Nacked, Offer, Offered, Place, Refused,
    Restored, RetryError, Seq, Stats, View,
};
use crate::protocol::Time;

/// Bytes of an error's text that are kept; the rest is cut off.
pub const ERROR_BYTES_MAX: usize = 1_024;

/// The error of a message whose consumer said nothing of it in time.
pub const LEASE_EXPIRED: &str = "lease expired";

/// A message, wherever it is.
#[derive(Debug)]
struct Message<B> {
    body: B,
    bytes: usize,
    priority: Priority,
    expires: Option<Time>,
    due: Time,
    retries_max: u32,
    failures: u32,
    last_error: Option<Box<str>>,
    deliveries: u32,
    key: Option<Arc<str>>,
    /// Somebody may have it: it was delivered, or was there when the queue was restored.
    may_be_known: bool,
    place: Place,
}

impl<B> Message<B> {
    fn is_over(&self, now: Time) -> bool {
        self.expires.is_some_and(|expires| expires <= now)
    }
}

/// One who takes messages.
#[derive(Debug, Default)]
struct Consumer {
    in_flight_max: usize,
    in_flight: BTreeSet<Seq>,
}

/// The messages of one consumer name. See the module's text.
///
/// `B` is a message's body, a cheap handle: it is cloned for each delivery. Time may stand still, and should not go back;
/// if it does, what has happened stays.
#[derive(Debug)]
pub struct Queue<B> {
    limits: Limits,
    next: u64,
    /// The latest time that was told.
    latest: Time,
    messages: BTreeMap<Seq, Message<B>>,
    bytes: usize,
    consumers: BTreeMap<ConsumerId, Consumer>,
    // Where the messages are. Each is in exactly one of these seven.
    storing: BTreeSet<Seq>,
    held: BTreeSet<Seq>,
    delayed: BTreeSet<(Time, Seq)>,
    ready: Ready,
    expired: BTreeSet<(Time, Seq)>,
    leases: BTreeSet<(Time, Seq)>,
    settling: BTreeSet<Seq>,
    /// When those expire that are held, delayed or ready.
    expiries: BTreeSet<(Time, Seq)>,
    dead: DeadLetters<B>,
    /// Dead letters that are gone, which is to be told.
    dead_removed: Vec<Seq>,
    keys: Keys,
    recent: Recent,
    /// Only its totals.
    totals: Stats,
}

impl<B: Clone> Queue<B> {
    /// An empty queue whose first message gets the number `next`.
    pub fn new(limits: Limits, next: Seq) -> Self {
        Queue {
            limits,
            next: next.0,
            latest: Time::default(),
            messages: BTreeMap::new(),
            bytes: 0,
            consumers: BTreeMap::new(),
            storing: BTreeSet::new(),
            held: BTreeSet::new(),
            delayed: BTreeSet::new(),
            ready: Ready::default(),
            expired: BTreeSet::new(),
            leases: BTreeSet::new(),
            settling: BTreeSet::new(),
            expiries: BTreeSet::new(),
            dead: DeadLetters::new(),
            dead_removed: Vec::new(),
            keys: Keys::default(),
            recent: Recent::default(),
            totals: Stats::default(),
        }
    }

    // ── what comes in ───────────────────────────────────────────────────────────────────────────────────────────────

    /// Takes a message in, which is then to be stored. It is not delivered before [`Queue::stored`].
    ///
    /// A key that was seen within its window makes it a duplicate, also if the first message is settled long since, and
    /// also if the queue is full. The window begins with the first message and is not extended. A time to live counts from
    /// when the message is due, so a delay can't outlast it.
    ///
    /// # Errors
    /// [`Refused`] if there is no room; nothing was changed then.
    pub fn offer(&mut self, offer: Offer<B>, now: Time) -> Result<Offered, Refused> {
        self.advance(now);
        if let Some((seq, until)) = offer.key.as_deref().and_then(|key| self.keys.get(key))
            && until > now
        {
            self.totals.duplicates += 1;
            return Ok(Offered::Duplicate { seq, stored: !self.storing.contains(&seq) });
        }
        self.check_room(offer.bytes)?;
        if self.next == u64::MAX {
            return Err(Refused::SeqsUsedUp { last: self.next });
        }
        if let Some(key) = offer.key.as_deref()
            && !self.keys.make_room(key, self.limits.dedup_keys_max, now)
        {
            return Err(Refused::KeysFull { keys: self.keys.len(), limit: self.limits.dedup_keys_max });
        }
        let seq = Seq(self.next);
        self.next += 1;
        let key: Option<Arc<str>> = offer.key.map(Arc::from);
        if let Some(key) = &key {
            self.keys.insert(Arc::clone(key), seq, now + self.limits.dedup_window_ms);
        }
        let due = now + offer.delay_ms;
        let message = Message {
            body: offer.body,
            bytes: offer.bytes,
            priority: offer.priority,
            expires: offer.ttl_ms.map(|ttl_ms| due + ttl_ms),
            due,
            retries_max: offer.retries_max,
            failures: 0,
            last_error: None,
            deliveries: 0,
            key,
            may_be_known: false,
            place: Place::Storing,
        };
        self.storing.insert(seq);
        self.insert(seq, message);
        Ok(Offered::New(seq))
    }

    /// Is told that a message is stored: it is delivered from when it is due.
    ///
    /// It is held while an earlier one is being stored, of whatever priority: a message is not overtaken because its store
    /// step was told later.
    pub fn stored(&mut self, seq: Seq, now: Time) {
        self.advance(now);
        if !self.storing.remove(&seq) {
            return;
        }
        self.totals.accepted += 1;
        self.place(seq, now);
        self.release_held(now);
    }

    /// Is told that a message could not be stored: it is forgotten, with its key. Its number is not used again.
    pub fn failed(&mut self, seq: Seq) {
        if !self.storing.remove(&seq) {
            return;
        }
        if let Some(key) = self.remove(seq).and_then(|message| message.key)
            && self.keys.get(&key).is_some_and(|(first, _)| first == seq)
        {
            self.keys.remove(&key);
        }
        self.release_held(self.latest);
    }

    /// Adds a message from the store, which is deliverable when it is due. For a queue that is being loaded: its number,
    /// if it is beyond all others, moves that of the next offer; the bounds are not asked. A number that is there already
    /// is ignored.
    pub fn restore(&mut self, restored: Restored<B>) {
        let seq = restored.seq;
        self.next = self.next.max(seq.0.saturating_add(1));
        if self.messages.contains_key(&seq) || self.dead.get(seq).is_some() {
            return;
        }
        let message = Message {
            body: restored.body,
            bytes: restored.bytes,
            priority: restored.priority,
            expires: restored.expires,
            due: restored.due,
            retries_max: restored.retries_max,
            failures: restored.failures,
            last_error: restored.last_error,
            deliveries: restored.deliveries,
            key: restored.key.map(Arc::from),
            may_be_known: true,
            place: Place::Storing,
        };
        self.insert(seq, message);
        self.place(seq, self.latest);
    }

    /// Adds a dead letter from the store. If there are too many, the oldest goes, and
    /// [`Change::DeadRemoved`] is told with the next timeout. A number that is there already is ignored.
    pub fn restore_dead(&mut self, letter: DeadLetter<B>) {
        self.next = self.next.max(letter.seq.0.saturating_add(1));
        if !self.messages.contains_key(&letter.seq) && self.dead.get(letter.seq).is_none() {
            self.keep_dead(letter);
        }
    }

    /// Adds a key from the store: until `until` it stands for the message `seq`.
    pub fn restore_key(&mut self, key: Box<str>, seq: Seq, until: Time) {
        self.next = self.next.max(seq.0.saturating_add(1));
        self.keys.insert(Arc::from(key), seq, until);
    }

    // ── consumers ───────────────────────────────────────────────────────────────────────────────────────────────────

    /// Adds a consumer that has at most `in_flight_max` messages in flight, or changes that number of one.
    pub fn join(&mut self, consumer: ConsumerId, in_flight_max: usize) {
        self.consumers.entry(consumer).or_default().in_flight_max = in_flight_max;
    }

    /// Removes a consumer. Its messages go back to their places, ahead of later ones, at once.
    ///
    /// That is no failure of theirs; but one that has expired is removed, and one that was delivered
    /// [`Limits::deliveries_max`] times becomes a dead letter. What it acknowledged stays so.
    pub fn leave(&mut self, consumer: ConsumerId, now: Time, changes: &mut Vec<Change>) {
        self.advance(now);
        let Some(left) = self.consumers.remove(&consumer) else { return };
        for seq in left.in_flight {
            self.displace(seq);
            let Some(message) = self.messages.get(&seq) else { continue };
            if message.is_over(now) {
                self.expire(seq);
                changes.push(Change::Removed(seq));
            } else if message.deliveries >= self.limits.deliveries_max {
                self.bury(seq, DeadReason::TooManyDeliveries, now);
                changes.push(Change::Dead(seq));
            } else {
                self.place(seq, now);
            }
        }
        self.tell_dead_removed(changes);
    }

    /// Whether a consumer is here and has room for a message.
    pub fn wants(&self, consumer: ConsumerId) -> bool {
        self.consumers.get(&consumer).is_some_and(|consumer| consumer.in_flight.len() < consumer.in_flight_max)
    }

    /// How many messages are in flight at a consumer.
    pub fn in_flight(&self, consumer: ConsumerId) -> usize {
        self.consumers.get(&consumer).map_or(0, |consumer| consumer.in_flight.len())
    }

    /// Whether there is a message that [`Queue::take`] would give to one who wants it.
    ///
    /// Takes as many steps as there are messages whose time came since the queue was last told the time.
    pub fn has_ready(&self, now: Time) -> bool {
        let is_alive = |seq: &Seq| self.messages.get(seq).is_some_and(|message| !message.is_over(now));
        let due = self.delayed.range(..=(now, Seq(u64::MAX))).map(|(_, seq)| *seq);
        self.ready.iter().chain(due).any(|seq| is_alive(&seq))
    }

    /// Gives the next message to a consumer that [wants](Queue::wants) one, with a fresh lease.
    ///
    /// The most urgent priority goes first, but for those that were passed over too often; within one the least number.
    /// A message that is acknowledged, expired, not due or in flight is never given.
    pub fn take(&mut self, consumer: ConsumerId, now: Time) -> Option<Delivery<B>> {
        self.advance(now);
        if !self.wants(consumer) {
            return None;
        }
        let seq = self.ready.pop(self.limits.passed_over_max)?;
        self.totals.delivered += 1;
        let lease_until = self.lend(seq, consumer, now);
        let message = self.messages.get_mut(&seq)?;
        message.deliveries = message.deliveries.saturating_add(1);
        message.may_be_known = true;
        if let Some(expires) = message.expires {
            self.expiries.remove(&(expires, seq));
        }
        Some(Delivery {
            seq,
            body: message.body.clone(),
            bytes: message.bytes,
            priority: message.priority,
            deliveries: message.deliveries,
            failures: message.failures,
            lease_until,
        })
    }

    // ── what consumers say ──────────────────────────────────────────────────────────────────────────────────────────

    /// Begins to settle a message: it is not delivered any more, and the driver removes it from the store.
    ///
    /// Whoever worked on a message may say so after its lease was over too, or after it left, or after the queue was
    /// restored, as long as the message waits. The consumer has room for another one at once.
    ///
    /// # Errors
    /// [`AckError::Foreign`], [`AckError::AlreadySettled`], or [`AckError::Unknown`] also if it was never delivered.
    pub fn ack(&mut self, consumer: ConsumerId, seq: Seq, now: Time) -> Result<(), AckError> {
        self.advance(now);
        let by = match self.check_taken(consumer, seq) {
            Ok(()) => Some(consumer),
            Err(AckError::NotInFlight) => None,
            Err(error) => return Err(error),
        };
        self.displace(seq);
        self.settling.insert(seq);
        if let Some(message) = self.messages.get_mut(&seq) {
            message.place = Place::Settling { consumer: by };
        }
        Ok(())
    }

    /// Is told that an acknowledgement is stored: the message is gone.
    pub fn acked(&mut self, seq: Seq, now: Time) {
        self.advance(now);
        if self.settling.remove(&seq) {
            self.remove(seq);
            self.recent.insert(seq);
            self.totals.acked += 1;
        }
    }

    /// Is told that an acknowledgement could not be stored: the message is in flight again, with a fresh lease, if the
    /// consumer that had it is still here; else, or if it waited before, it waits again.
    ///
    /// The consumer may have more than its maximum in flight then, and the message more deliveries than
    /// [`Limits::deliveries_max`].
    pub fn ack_failed(&mut self, seq: Seq, now: Time) {
        self.advance(now);
        if !self.settling.remove(&seq) {
            return;
        }
        match self.messages.get(&seq).map(|message| message.place) {
            Some(Place::Settling { consumer: Some(consumer) }) if self.consumers.contains_key(&consumer) => {
                self.lend(seq, consumer, now);
            }
            _ => self.place(seq, now),
        }
    }

    /// Gives back a message that its consumer could not work on, which is a failure. It waits for its backoff, of which
    /// `random` leaves out a part.
    ///
    /// More failures than its `retries_max` make it a dead letter, and so do [`Limits::deliveries_max`] deliveries; if its
    /// time to live is over, it is gone. Of the error [`ERROR_BYTES_MAX`] bytes are kept.
    ///
    /// # Errors
    /// [`AckError`] if the message is not in flight at this consumer.
    pub fn nack(
        &mut self,
        consumer: ConsumerId,
        seq: Seq,
        error: &str,
        now: Time,
        random: u64,
    ) -> Result<Nacked, AckError> {
        self.advance(now);
        self.check_taken(consumer, seq)?;
        Ok(self.fail(seq, error, now, || random))
    }

    /// Gives a message a fresh lease: its consumer works on it still. Returns when that is over.
    ///
    /// # Errors
    /// [`AckError`] if the message is not in flight at this consumer.
    pub fn extend(&mut self, consumer: ConsumerId, seq: Seq, now: Time) -> Result<Time, AckError> {
        self.advance(now);
        self.check_taken(consumer, seq)?;
        self.displace(seq);
        Ok(self.lend(seq, consumer, now))
    }

    // ── time ────────────────────────────────────────────────────────────────────────────────────────────────────────

    /// Does what is due: leases that are over count as failures ([`LEASE_EXPIRED`]), in the order in which they ended;
    /// messages that are due become ready; what has expired or is too old goes.
    ///
    /// `random` is drawn once for each message that waits for its backoff. [`Queue::next_timeout`] is later than `now`
    /// afterwards.
    pub fn handle_timeout(&mut self, now: Time, random: &mut dyn FnMut() -> u64, changes: &mut Vec<Change>) {
        while let Some((until, seq)) = self.leases.first().copied()
            && until <= now
        {
            let change = match self.fail(seq, LEASE_EXPIRED, now, &mut *random) {
                Nacked::Retry { .. } => Change::Failed(seq),
                Nacked::Dead => Change::Dead(seq),
                Nacked::Expired => Change::Removed(seq),
            };
            changes.push(change);
        }
        self.advance(now);
        while let Some((_, seq)) = self.expired.pop_first() {
            self.expire(seq);
            changes.push(Change::Removed(seq));
        }
        while let Some((died, seq)) = self.dead.oldest()
            && died + self.limits.dead_letter_ttl_ms <= now
        {
            self.forget_dead(seq);
        }
        self.tell_dead_removed(changes);
        while let Some(key) = self.keys.next_over(now) {
            changes.push(Change::KeyRemoved(Box::from(&*key)));
        }
    }

    /// When [`Queue::handle_timeout`] has something to do: at once if that is in the past, which is so after a call that
    /// left something to be told. None if nothing is waited for.
    pub fn next_timeout(&self) -> Option<Time> {
        let first = |set: &BTreeSet<(Time, Seq)>| set.first().map(|(time, _)| *time);
        let untold = (!self.dead_removed.is_empty()).then(Time::default);
        let dead = self.dead.oldest().map(|(died, _)| died + self.limits.dead_letter_ttl_ms);
        let sets = [&self.leases, &self.delayed, &self.expired, &self.expiries].map(first);
        sets.into_iter().chain([untold, dead, self.keys.next_timeout()]).flatten().min()
    }

    // ── dead letters ────────────────────────────────────────────────────────────────────────────────────────────────

    /// The dead letters, the oldest first.
    pub fn dead(&self) -> impl Iterator<Item = &DeadLetter<B>> {
        self.dead.iter()
    }

    /// The dead letter of that number.
    pub fn dead_letter(&self, seq: Seq) -> Option<&DeadLetter<B>> {
        self.dead.get(seq)
    }

    /// Makes a dead letter a message again: with its number, so ahead of later ones, without failures and deliveries, and
    /// with `ttl_ms` milliseconds to live. It is ready at once; [`Queue::message`] has what is to be stored.
    ///
    /// # Errors
    /// [`RetryError`] if there is none, or no room for it; then it stays.
    pub fn retry_dead(&mut self, seq: Seq, now: Time, ttl_ms: Option<u64>) -> Result<(), RetryError> {
        self.advance(now);
        let bytes = self.dead.get(seq).ok_or(RetryError::Unknown)?.bytes;
        self.check_room(bytes)?;
        let letter = self.dead.remove(seq).ok_or(RetryError::Unknown)?;
        let message = Message {
            body: letter.body,
            bytes: letter.bytes,
            priority: letter.priority,
            expires: ttl_ms.map(|ttl_ms| now + ttl_ms),
            due: now,
            retries_max: letter.retries_max,
            failures: 0,
            last_error: None,
            deliveries: 0,
            key: None,
            may_be_known: true,
            place: Place::Storing,
        };
        self.insert(seq, message);
        self.place(seq, now);
        Ok(())
    }

    /// Forgets a dead letter, or all of them.
    pub fn purge_dead(&mut self, seq: Option<Seq>, changes: &mut Vec<Change>) {
        match seq {
            Some(seq) => self.forget_dead(seq),
            None => {
                while let Some((_, seq)) = self.dead.oldest() {
                    self.forget_dead(seq);
                }
            }
        }
        self.tell_dead_removed(changes);
    }

    /// Forgets the messages that wait for whatever, and those in flight: what their consumers say of them then is
    /// [`AckError::AlreadySettled`]. What is being stored stays, as its publisher has no answer yet; what is acknowledged
    /// is on its way out; dead letters and keys stay.
    pub fn purge(&mut self, changes: &mut Vec<Change>) {
        let stays = |place: Place| matches!(place, Place::Storing | Place::Settling { .. });
        let purged: Vec<Seq> =
            self.messages.iter().filter(|(_, message)| !stays(message.place)).map(|(seq, _)| *seq).collect();
        for seq in purged {
            self.displace(seq);
            self.remove(seq);
            self.recent.insert(seq);
            self.totals.purged += 1;
            changes.push(Change::Removed(seq));
        }
    }

    // ── what is there ───────────────────────────────────────────────────────────────────────────────────────────────

    /// What is where, and how much has gone which way.
    pub fn stats(&self) -> Stats {
        Stats {
            messages: self.messages.len(),
            bytes: self.bytes,
            storing: self.storing.len() + self.held.len(),
            waiting: self.ready.counts(),
            delayed: self.delayed.len(),
            expiring: self.expired.len(),
            in_flight: self.leases.len(),
            settling: self.settling.len(),
            dead: self.dead.len(),
            dead_bytes: self.dead.bytes(),
            keys: self.keys.len(),
            consumers: self.consumers.len(),
            ..self.totals
        }
    }

    /// Whether nothing is kept, nothing is to be told and nobody is here, so that the queue may be dropped, if
    /// [`Queue::next_seq`] is kept.
    pub fn is_idle(&self) -> bool {
        let is_empty = self.messages.is_empty() && self.dead.len() == 0 && self.keys.is_empty();
        is_empty && self.dead_removed.is_empty() && self.consumers.is_empty()
    }

    /// The number that the next message gets.
    pub fn next_seq(&self) -> Seq {
        Seq(self.next)
    }

    /// Bytes of the messages that count for [`Limits::bytes_max`].
    pub fn bytes(&self) -> usize {
        self.bytes
    }

    /// Bytes of the dead letters.
    pub fn dead_bytes(&self) -> usize {
        self.dead.bytes()
    }

    /// How many idempotency keys are remembered.
    pub fn keys(&self) -> usize {
        self.keys.len()
    }

    /// The bounds.
    pub fn limits(&self) -> &Limits {
        &self.limits
    }

    /// The message of that number, unless it is settled or a dead letter.
    pub fn message(&self, seq: Seq) -> Option<View<'_, B>> {
        self.messages.get(&seq).map(|message| view(seq, message))
    }

    /// The first messages that are ready: the most urgent first, within a priority by number. (Who was passed over is not
    /// regarded.)
    pub fn peek(&self, limit: usize) -> impl Iterator<Item = View<'_, B>> {
        self.ready.iter().filter_map(|seq| self.message(seq)).take(limit)
    }

    /// The first messages with a number above `after`, wherever they are, by number.
    pub fn list(&self, after: Option<Seq>, limit: usize) -> impl Iterator<Item = View<'_, B>> {
        let from = after.map_or(Bound::Unbounded, Bound::Excluded);
        self.messages.range((from, Bound::Unbounded)).map(|(seq, message)| view(*seq, message)).take(limit)
    }

    /// A key that is remembered: the number of its first message and the end of its window, for whoever stores it.
    pub fn key(&self, key: &str) -> Option<(Seq, Time)> {
        self.keys.get(key)
    }
}

fn view<B>(seq: Seq, message: &Message<B>) -> View<'_, B> {
    View {
        seq,
        body: &message.body,
        bytes: message.bytes,
        priority: message.priority,
        expires: message.expires,
        due: message.due,
        retries_max: message.retries_max,
        failures: message.failures,
        last_error: message.last_error.as_deref(),
        deliveries: message.deliveries,
        key: message.key.as_deref(),
        place: message.place,
    }
}
