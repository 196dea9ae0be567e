//! What the queue's calls are made of: moving a message from one place to another, so that each is in exactly one.

use super::{
    AckError, Change, ConsumerId, DeadLetter, DeadReason, ERROR_BYTES_MAX, Message, Nacked, Place, Queue, Refused, Seq,
};
use crate::protocol::Time;

impl<B: Clone> Queue<B> {
    /// Moves what the time has come for: expired messages aside, due ones to the ready ones.
    pub(super) fn advance(&mut self, now: Time) {
        self.latest = self.latest.max(now);
        while let Some((expires, seq)) = self.expiries.first().copied()
            && expires <= now
        {
            self.displace(seq);
            self.place(seq, now);
        }
        while let Some((due, seq)) = self.delayed.first().copied()
            && due <= now
        {
            self.displace(seq);
            self.place(seq, now);
        }
    }

    /// Puts a message that waits where it belongs.
    pub(super) fn place(&mut self, seq: Seq, now: Time) {
        let Some(message) = self.messages.get_mut(&seq) else { return };
        if let Some(expires) = message.expires {
            if expires <= now {
                message.place = Place::Expired;
                self.expired.insert((expires, seq));
                return;
            }
            self.expiries.insert((expires, seq));
        }
        if self.storing.first().is_some_and(|earlier| *earlier < seq) {
            message.place = Place::Held;
            self.held.insert(seq);
        } else if message.due > now {
            message.place = Place::Delayed;
            self.delayed.insert((message.due, seq));
        } else {
            message.place = Place::Ready;
            self.ready.insert(message.priority, seq);
        }
    }

    /// Takes a message that is neither being stored nor settling out of where it is.
    pub(super) fn displace(&mut self, seq: Seq) {
        let Some(message) = self.messages.get(&seq) else { return };
        match message.place {
            Place::Storing | Place::Settling { .. } => {}
            Place::Held => drop(self.held.remove(&seq)),
            Place::Delayed => drop(self.delayed.remove(&(message.due, seq))),
            Place::Ready => self.ready.remove(message.priority, seq),
            Place::Expired => drop(message.expires.map(|expires| self.expired.remove(&(expires, seq)))),
            Place::InFlight { consumer, lease_until } => {
                self.leases.remove(&(lease_until, seq));
                if let Some(consumer) = self.consumers.get_mut(&consumer) {
                    consumer.in_flight.remove(&seq);
                }
            }
        }
        if let Some(expires) = message.expires {
            self.expiries.remove(&(expires, seq));
        }
    }

    /// Puts a message that is nowhere in flight; returns when its lease is over.
    pub(super) fn lend(&mut self, seq: Seq, consumer: ConsumerId, now: Time) -> Time {
        let lease_until = now + self.limits.lease_ms;
        self.leases.insert((lease_until, seq));
        if let Some(consumer) = self.consumers.get_mut(&consumer) {
            consumer.in_flight.insert(seq);
        }
        if let Some(message) = self.messages.get_mut(&seq) {
            message.place = Place::InFlight { consumer, lease_until };
        }
        lease_until
    }

    /// Lets go what no message that is being stored comes before any more.
    pub(super) fn release_held(&mut self, now: Time) {
        let first = self.storing.first().copied();
        while let Some(seq) = self.held.first().copied()
            && first.is_none_or(|first| seq < first)
        {
            self.displace(seq);
            self.place(seq, now);
        }
    }

    /// Counts a failure of a message in flight, and decides what becomes of it.
    pub(super) fn fail(&mut self, seq: Seq, error: &str, now: Time, random: impl FnOnce() -> u64) -> Nacked {
        self.displace(seq);
        self.totals.failed += 1;
        let Some(message) = self.messages.get_mut(&seq) else { return Nacked::Expired };
        if message.is_over(now) {
            self.expire(seq);
            return Nacked::Expired;
        }
        message.failures = message.failures.saturating_add(1);
        message.last_error = Some(Box::from(&error[..error.floor_char_boundary(ERROR_BYTES_MAX)]));
        let failures = message.failures;
        let reason = if failures > message.retries_max {
            DeadReason::RetriesExhausted
        } else if message.deliveries >= self.limits.deliveries_max {
            DeadReason::TooManyDeliveries
        } else {
            let due = now + self.limits.backoff.delay(failures, random());
            message.due = due;
            self.place(seq, now);
            return Nacked::Retry { failures, due };
        };
        self.bury(seq, reason, now);
        Nacked::Dead
    }

    /// Makes a message that is nowhere a dead letter.
    pub(super) fn bury(&mut self, seq: Seq, reason: DeadReason, now: Time) {
        let Some(message) = self.remove(seq) else { return };
        self.totals.dead_lettered += 1;
        self.keep_dead(DeadLetter {
            seq,
            body: message.body,
            bytes: message.bytes,
            priority: message.priority,
            retries_max: message.retries_max,
            failures: message.failures,
            last_error: message.last_error,
            deliveries: message.deliveries,
            reason,
            died: now,
        });
    }

    /// Adds a dead letter; the oldest make room.
    pub(super) fn keep_dead(&mut self, letter: DeadLetter<B>) {
        self.dead.insert(letter);
        while (self.dead.len() > self.limits.dead_letters_max || self.dead.bytes() > self.limits.dead_bytes_max)
            && let Some((_, oldest)) = self.dead.oldest()
        {
            self.forget_dead(oldest);
        }
    }

    pub(super) fn forget_dead(&mut self, seq: Seq) {
        if self.dead.remove(seq).is_some() {
            self.recent.insert(seq);
            self.dead_removed.push(seq);
        }
    }

    pub(super) fn tell_dead_removed(&mut self, changes: &mut Vec<Change>) {
        changes.extend(std::mem::take(&mut self.dead_removed).into_iter().map(Change::DeadRemoved));
    }

    /// Forgets a message that is nowhere, as its time to live is over.
    pub(super) fn expire(&mut self, seq: Seq) {
        self.remove(seq);
        self.recent.insert(seq);
        self.totals.expired += 1;
    }

    pub(super) fn insert(&mut self, seq: Seq, message: Message<B>) {
        self.bytes = self.bytes.saturating_add(message.bytes);
        self.messages.insert(seq, message);
    }

    pub(super) fn remove(&mut self, seq: Seq) -> Option<Message<B>> {
        let message = self.messages.remove(&seq)?;
        self.bytes = self.bytes.saturating_sub(message.bytes);
        Some(message)
    }

    /// Whether a message of so many bytes may be added.
    pub(super) fn check_room(&self, bytes: usize) -> Result<(), Refused> {
        let limits = &self.limits;
        if bytes > limits.message_bytes_max {
            return Err(Refused::TooLarge { came: bytes, limit: limits.message_bytes_max });
        }
        if self.messages.len() >= limits.messages_max {
            return Err(Refused::Full { messages: self.messages.len(), limit: limits.messages_max });
        }
        if self.bytes.saturating_add(bytes) > limits.bytes_max {
            return Err(Refused::FullBytes { bytes: self.bytes, came: bytes, limit: limits.bytes_max });
        }
        Ok(())
    }

    /// Whether a message is in flight at this consumer.
    pub(super) fn check_taken(&self, consumer: ConsumerId, seq: Seq) -> Result<(), AckError> {
        let Some(message) = self.messages.get(&seq) else {
            let is_settled = self.recent.contains(seq) || self.dead.get(seq).is_some();
            return Err(if is_settled { AckError::AlreadySettled } else { AckError::Unknown });
        };
        match message.place {
            Place::InFlight { consumer: other, .. } if other == consumer => Ok(()),
            Place::InFlight { .. } => Err(AckError::Foreign),
            Place::Settling { .. } => Err(AckError::AlreadySettled),
            _ if message.may_be_known => Err(AckError::NotInFlight),
            _ => Err(AckError::Unknown),
        }
    }
}
