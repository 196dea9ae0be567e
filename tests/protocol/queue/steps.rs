//! The steps of a history: each is done by the machine and by the model.

use bennu::protocol::Time;
use bennu::protocol::queue::{
    AckError, Change, ConsumerId, Nacked, Offer, Offered, Place, Priority, Queue, Restored, RetryError, Seq,
};

use super::disk::{Told, Write};
use super::model::Model;
use super::{Sim, record};

impl Sim<'_> {
    pub(super) fn offer(&mut self) {
        self.bodies += 1;
        let offer = Offer {
            body: self.bodies,
            bytes: usize::try_from(self.dice.below(10)).expect("it is small"),
            priority: self.dice.of(&Priority::ALL),
            ttl_ms: if self.dice.one_in(3) { Some(self.dice.below(80)) } else { None },
            delay_ms: if self.dice.one_in(4) { self.dice.below(60) } else { 0 },
            retries_max: self.dice.of(&[0, 1, 2, 7]),
            key: self.dice.one_in(3).then(|| Box::from(self.dice.of(&["a", "b", "c", "d", "e"]))),
        };
        let was = self.queue.next_seq();
        let offered = self.queue.offer(offer.clone(), self.now);
        same!(self, "offered", offered, self.model.offer(&offer, self.now));
        match offered {
            Ok(Offered::New(seq)) => {
                assert_eq!(seq, was, "numbers are given in their order");
                self.says.insert(seq, offer.body);
                match offer.delay_ms {
                    0 => drop(self.delayed_once.remove(&seq)),
                    _ => drop(self.delayed_once.insert(seq)),
                }
                let kept = record(self.queue.message(seq).expect("it was taken in"));
                let key = offer.key.map(|key| {
                    let (first, until) = self.queue.key(&key).expect("it is remembered");
                    assert_eq!(first, seq, "the key is the new message's");
                    (key, until)
                });
                self.writes.push_back(Write::Store(kept, key));
            }
            Ok(Offered::Duplicate { .. }) => self.seen.duplicates += 1,
            Err(_) => self.seen.refused += 1,
        }
    }

    /// The disk does the next write.
    pub(super) fn write(&mut self) {
        if let Some(write) = self.writes.pop_front() {
            let fails = self.dice.one_in(8);
            self.step += &format!(" {write:?} fails: {fails}");
            let told = self.disk.perform(write, fails);
            self.tells.extend(told);
        }
    }

    /// The queue is told of a write, not in the order of the writes.
    pub(super) fn tell(&mut self) {
        if self.tells.is_empty() {
            return;
        }
        let at = if self.dice.one_in(2) { 0 } else { self.dice.below(self.tells.len() as u64) };
        let told = self.tells.remove(usize::try_from(at).expect("it is small"));
        self.tell_one(told);
    }

    pub(super) fn tell_one(&mut self, told: Told) {
        self.step += &format!(" {told:?}");
        match told {
            Told::Stored(seq) => {
                self.queue.stored(seq, self.now);
                self.model.stored(seq, self.now);
                self.promised.insert(seq);
                let is_held = self.queue.message(seq).is_some_and(|message| message.place == Place::Held);
                self.seen.held += u64::from(is_held);
            }
            Told::Failed(seq) => {
                self.queue.failed(seq);
                self.model.failed(seq);
                assert!(self.queue.message(seq).is_none(), "it is forgotten");
            }
            Told::Acked(seq) => {
                self.queue.acked(seq, self.now);
                self.model.acked(seq, self.now);
                self.promised.remove(&seq);
                self.acked.insert(seq);
                self.seen.acked += 1;
            }
            Told::AckFailed(seq) => {
                self.queue.ack_failed(seq, self.now);
                self.model.ack_failed(seq, self.now);
            }
        }
    }

    pub(super) fn join(&mut self) {
        let in_flight_max = self.dice.of(&[0, 1, 2, 3, 10, 10]);
        let consumer = if self.dice.one_in(5) && !self.consumers.is_empty() {
            self.dice.of(&self.consumers)
        } else {
            self.consumers_made += 1;
            self.consumers.push(ConsumerId(self.consumers_made));
            ConsumerId(self.consumers_made)
        };
        self.queue.join(consumer, in_flight_max);
        self.model.join(consumer, in_flight_max);
    }

    pub(super) fn leave(&mut self) {
        let consumer = if self.consumers.is_empty() { ConsumerId(99) } else { self.dice.of(&self.consumers) };
        self.consumers.retain(|other| *other != consumer);
        let mut changes = Vec::new();
        self.queue.leave(consumer, self.now, &mut changes);
        let expected = self.model.leave(consumer, self.now);
        self.obey(changes, expected);
        assert!(!self.queue.wants(consumer), "one who left wants nothing");
    }

    pub(super) fn take(&mut self) -> Option<Seq> {
        let consumer = if self.consumers.is_empty() || self.dice.one_in(30) {
            ConsumerId(99)
        } else {
            self.dice.of(&self.consumers)
        };
        self.take_by(consumer)
    }

    pub(super) fn take_by(&mut self, consumer: ConsumerId) -> Option<Seq> {
        let wants = self.queue.wants(consumer);
        let has_ready = self.queue.has_ready(self.now);
        let expected = self.model.take(consumer, self.now);
        let was_over = self.queue.message(expected.map_or(Seq(u64::MAX), |(seq, ..)| seq)).map(record);
        let taken = self.queue.take(consumer, self.now);
        same!(self, "taken", taken.as_ref().map(|taken| (taken.seq, taken.deliveries, taken.lease_until)), expected);
        assert_eq!(taken.is_some(), wants && has_ready, "what is announced is given: {}", self.step);
        let taken = taken?;
        let was = was_over.expect("it was there");
        self.step += &format!(" {taken:?}");
        let at = format!("seed {}, {}", self.seed, self.step);
        self.seen.delivered += 1;
        assert_eq!(taken.body, self.says[&taken.seq], "its own words: {at}");
        assert!(was.expires.is_none_or(|expires| expires > self.now), "it has not expired: {at}");
        assert!(was.due <= self.now, "it is due: {at}");
        assert!(!self.acked.contains(&taken.seq), "it was settled: {at}");
        let class = taken.priority as usize;
        if taken.deliveries == 1 && !self.delayed_once.contains(&taken.seq) {
            assert!(self.last_first[class].is_none_or(|last| last < taken.seq), "in the order of acceptance: {at}");
            self.last_first[class] = Some(taken.seq);
        }
        // What was ready beside it, by what the machine said after its last step, and is still.
        let stats = self.queue.stats();
        for other in 0..4 {
            let waited = stats.waiting[other] > 0;
            if other == class || !waited {
                self.passed_over[other] = 0;
            } else if other > class {
                self.passed_over[other] += 1;
            }
            let bound = self.limits.passed_over_max + 2;
            assert!(self.passed_over[other] <= bound, "a class starves: {at}");
        }
        self.seen.owed += u64::from(stats.waiting[..class].iter().any(|waiting| *waiting > 0));
        // As drivers may: the deliveries are written down, or not.
        if self.dice.one_in(2) {
            self.writes.push_back(Write::Update(record(self.queue.message(taken.seq).expect("it is in flight"))));
        }
        self.at_work.push((consumer, taken.seq));
        Some(taken.seq)
    }

    /// A consumer that has something, or says something of what it or another has had.
    pub(super) fn at_work(&mut self) -> Option<(ConsumerId, Seq)> {
        if self.at_work.is_empty() {
            return None;
        }
        let latest = self.at_work.len().saturating_sub(5);
        let from = if self.dice.one_in(3) { 0 } else { latest };
        let (mut consumer, seq) = self.dice.of(&self.at_work[from..]);
        if self.dice.one_in(3) {
            self.at_work.retain(|other| *other != (consumer, seq));
        }
        if self.dice.one_in(12) {
            consumer = ConsumerId(1 + self.dice.below(self.consumers_made + 1));
        }
        Some((consumer, seq))
    }

    pub(super) fn ack(&mut self) {
        let Some((consumer, seq)) = self.at_work() else { return };
        let was = self.queue.message(seq).map(|message| message.place);
        let result = self.queue.ack(consumer, seq, self.now);
        self.step += &format!(" {consumer:?} {seq:?} {result:?}");
        same!(self, "acked", result, self.model.ack(consumer, seq, self.now));
        match result {
            Ok(()) => {
                self.seen.late_acks += u64::from(!matches!(was, Some(Place::InFlight { .. })));
                self.writes.push_back(Write::Ack(seq));
            }
            Err(AckError::Foreign) => self.seen.foreign += 1,
            Err(_) => {}
        }
    }

    pub(super) fn nack(&mut self) {
        let Some((consumer, seq)) = self.at_work() else { return };
        let random = self.dice.next();
        let result = self.queue.nack(consumer, seq, "refused", self.now, random);
        self.step += &format!(" {consumer:?} {seq:?} {result:?}");
        let due = self.queue.message(seq).map(|message| message.due);
        same!(self, "nacked", result, self.model.nack(consumer, seq, "refused", self.now, due));
        match result {
            Ok(Nacked::Retry { .. }) => self.note(Change::Failed(seq)),
            Ok(Nacked::Dead) => self.note(Change::Dead(seq)),
            Ok(Nacked::Expired) => self.note(Change::Removed(seq)),
            Err(_) => {}
        }
    }

    pub(super) fn extend(&mut self) {
        let Some((consumer, seq)) = self.at_work() else { return };
        let result = self.queue.extend(consumer, seq, self.now);
        self.step += &format!(" {consumer:?} {seq:?} {result:?}");
        same!(self, "extended", result, self.model.extend(consumer, seq, self.now));
    }

    pub(super) fn wait(&mut self) {
        let next = self.queue.next_timeout().filter(|next| *next > self.now);
        self.now = match (next, self.dice.below(6)) {
            (Some(next), 0) => next,
            (Some(next), 1) => Time(next.0 - 1),
            (Some(next), 2) => Time(next.0 + 1),
            (_, 3) => Time(self.now.0 + self.dice.below(150)),
            _ => Time(self.now.0 + self.dice.below(8)),
        };
    }

    pub(super) fn timeout(&mut self) {
        let mut changes = Vec::new();
        let dice = &mut self.dice;
        self.queue.handle_timeout(self.now, &mut || dice.next(), &mut changes);
        let queue = &self.queue;
        let expected = self.model.handle_timeout(self.now, |seq| queue.message(seq).map(|message| message.due));
        self.obey(changes, expected);
        let next = self.queue.next_timeout();
        assert!(next.is_none_or(|next| next > self.now), "seed {}: {next:?} at {}", self.seed, self.step);
    }

    pub(super) fn retry_dead(&mut self) {
        let seq = self.any_seq();
        let ttl_ms = if self.dice.one_in(3) { Some(self.dice.below(50)) } else { None };
        let result = self.queue.retry_dead(seq, self.now, ttl_ms);
        self.step += &format!(" {seq:?} {result:?}");
        same!(self, "retried", result, self.model.retry_dead(seq, self.now, ttl_ms));
        if result.is_ok() {
            self.seen.retried += 1;
            self.delayed_once.insert(seq);
            self.promised.insert(seq);
            self.writes.push_back(Write::Revive(record(self.queue.message(seq).expect("it is back"))));
        }
    }

    /// Calls of which nothing is to come.
    pub(super) fn odd(&mut self) {
        let seq = self.any_seq();
        let place = self.queue.message(seq).map(|message| message.place);
        if place != Some(Place::Storing) {
            self.queue.stored(seq, self.now);
            self.model.stored(seq, self.now);
            self.queue.failed(seq);
            self.model.failed(seq);
        }
        if !matches!(place, Some(Place::Settling { .. })) {
            self.queue.acked(seq, self.now);
            self.model.acked(seq, self.now);
            self.queue.ack_failed(seq, self.now);
            self.model.ack_failed(seq, self.now);
        }
        let consumer = ConsumerId(98);
        same!(
            self,
            "nacked by a stranger",
            self.queue.nack(consumer, seq, "", self.now, 0),
            self.model.nack(consumer, seq, "", self.now, None)
        );
        same!(
            self,
            "extended by a stranger",
            self.queue.extend(consumer, seq, self.now),
            self.model.extend(consumer, seq, self.now)
        );
        // The last number of all is never given.
        let unknown = self.queue.retry_dead(Seq(u64::MAX), self.now, None);
        assert_eq!(unknown, Err(RetryError::Unknown), "there is none");
    }

    /// The process ends. Some writes were done before, without anybody being told; the rest is lost.
    pub(super) fn crash(&mut self) {
        self.seen.crashes += 1;
        let done = self.dice.below(self.writes.len() as u64 + 1);
        for _ in 0..done {
            self.write();
        }
        for told in self.tells.drain(..) {
            if let Told::Acked(seq) = told {
                self.promised.remove(&seq);
            }
        }
        self.writes.clear();
        self.promised.retain(|seq| !self.disk.dead.contains_key(seq));
        self.consumers.clear();
        self.last_first = [None; 4];
        self.passed_over = [0; 4];
        self.queue = Queue::new(self.limits, Seq(self.disk.next));
        self.model = Model::new(self.limits, Seq(self.disk.next));
        // In no order, as nothing may depend on it.
        let mut messages: Vec<Restored<u64>> = self.disk.messages.values().cloned().collect();
        while !messages.is_empty() {
            let at = usize::try_from(self.dice.below(messages.len() as u64)).expect("it is small");
            let message = messages.swap_remove(at);
            self.queue.restore(message.clone());
            self.model.restore(message);
        }
        for letter in self.disk.dead.values() {
            self.queue.restore_dead(letter.clone());
            self.model.restore_dead(letter.clone());
        }
        for (key, (seq, until)) in &self.disk.keys {
            self.queue.restore_key(key.clone(), *seq, *until);
            self.model.restore_key(key, *seq, *until);
        }
        // What was taken back is there again, so it is still owed; what was never stored may get a number again.
        let on_disk = &self.disk.messages;
        self.delayed_once.extend(on_disk.keys());
    }
}
