//! The queue again, as plainly as it can be said: lists that are searched from end to end.
//!
//! Where a message that waits is, is not kept but found by the rules each time. Nothing of the machine is used but the
//! types of its answers.

use bennu::protocol::Time;
use bennu::protocol::queue::{
    AckError, Change, ConsumerId, DeadLetter, DeadReason, LEASE_EXPIRED, Limits, Nacked, Offer, Offered, Place,
    Priority, Refused, Restored, RetryError, Seq, Stats,
};

/// Where a message is, as far as that does not follow from the time and from others.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum At {
    Storing,
    Waiting,
    Flight(ConsumerId, Time),
    Settling(Option<ConsumerId>),
}

#[derive(Clone, Debug)]
pub struct Message {
    pub kept: Restored<u64>,
    pub known: bool,
    pub at: At,
}

impl Message {
    fn is_over(&self, now: Time) -> bool {
        self.kept.expires.is_some_and(|expires| expires <= now)
    }
}

/// One delivery: its class, and which classes had something to deliver.
struct Turn {
    class: usize,
    waited: [bool; 4],
}

pub struct Model {
    pub limits: Limits,
    pub next: u64,
    pub now: Time,
    /// In any order.
    pub messages: Vec<Message>,
    pub dead: Vec<DeadLetter<u64>>,
    pub keys: Vec<(Box<str>, Seq, Time)>,
    pub consumers: Vec<(ConsumerId, usize)>,
    /// All there ever were, the last at the end.
    settled: Vec<Seq>,
    turns: Vec<Turn>,
    untold: Vec<Change>,
    totals: Stats,
}

impl Model {
    pub fn new(limits: Limits, next: Seq) -> Self {
        Model {
            limits,
            next: next.0,
            now: Time(0),
            messages: Vec::new(),
            dead: Vec::new(),
            keys: Vec::new(),
            consumers: Vec::new(),
            settled: Vec::new(),
            turns: Vec::new(),
            untold: Vec::new(),
            totals: Stats::default(),
        }
    }

    fn get(&self, seq: Seq) -> Option<&Message> {
        self.messages.iter().find(|message| message.kept.seq == seq)
    }

    fn get_mut(&mut self, seq: Seq) -> Option<&mut Message> {
        self.messages.iter_mut().find(|message| message.kept.seq == seq)
    }

    fn remove(&mut self, seq: Seq) -> Message {
        let at = self.messages.iter().position(|message| message.kept.seq == seq).expect("it is there");
        self.messages.remove(at)
    }

    fn bytes(&self) -> usize {
        self.messages.iter().map(|message| message.kept.bytes).sum()
    }

    pub fn place(&self, message: &Message) -> Place {
        match message.at {
            At::Storing => Place::Storing,
            At::Flight(consumer, lease_until) => Place::InFlight { consumer, lease_until },
            At::Settling(consumer) => Place::Settling { consumer },
            At::Waiting if message.is_over(self.now) => Place::Expired,
            At::Waiting => {
                let is_before = |other: &Message| other.at == At::Storing && other.kept.seq < message.kept.seq;
                match () {
                    () if self.messages.iter().any(is_before) => Place::Held,
                    () if message.kept.due > self.now => Place::Delayed,
                    () => Place::Ready,
                }
            }
        }
    }

    fn room(&self, bytes: usize) -> Result<(), Refused> {
        let Limits { messages_max, bytes_max, message_bytes_max, .. } = self.limits;
        match () {
            () if bytes > message_bytes_max => Err(Refused::TooLarge { came: bytes, limit: message_bytes_max }),
            () if self.messages.len() + 1 > messages_max => {
                Err(Refused::Full { messages: self.messages.len(), limit: messages_max })
            }
            () if self.bytes() + bytes > bytes_max => {
                Err(Refused::FullBytes { bytes: self.bytes(), came: bytes, limit: bytes_max })
            }
            () => Ok(()),
        }
    }

    pub fn offer(&mut self, offer: &Offer<u64>, now: Time) -> Result<Offered, Refused> {
        self.now = now;
        let same = |known: &&(Box<str>, Seq, Time)| Some(&known.0) == offer.key.as_ref();
        let seen = self.keys.iter().find(same).cloned();
        if let Some((_, seq, until)) = &seen
            && now < *until
        {
            self.totals.duplicates += 1;
            let stored = self.get(*seq).is_none_or(|message| message.at != At::Storing);
            return Ok(Offered::Duplicate { seq: *seq, stored });
        }
        self.room(offer.bytes)?;
        if let Some(key) = &offer.key {
            while seen.is_none() && self.keys.len() >= self.limits.dedup_keys_max {
                let oldest = (0..self.keys.len()).min_by_key(|at| (self.keys[*at].2, self.keys[*at].0.clone()));
                match oldest.filter(|at| self.keys[*at].2 <= now) {
                    Some(at) => {
                        let (key, ..) = self.keys.remove(at);
                        self.untold.push(Change::KeyRemoved(key));
                    }
                    None => {
                        return Err(Refused::KeysFull { keys: self.keys.len(), limit: self.limits.dedup_keys_max });
                    }
                }
            }
            self.keys.retain(|(other, ..)| other != key);
            self.untold.retain(|change| *change != Change::KeyRemoved(key.clone()));
            self.keys.push((key.clone(), Seq(self.next), Time(now.0 + self.limits.dedup_window_ms)));
        }
        let due = Time(now.0 + offer.delay_ms);
        let kept = Restored {
            seq: Seq(self.next),
            body: offer.body,
            bytes: offer.bytes,
            priority: offer.priority,
            expires: offer.ttl_ms.map(|ttl_ms| Time(due.0 + ttl_ms)),
            due,
            retries_max: offer.retries_max,
            failures: 0,
            last_error: None,
            deliveries: 0,
            key: offer.key.clone(),
        };
        self.next += 1;
        self.messages.push(Message { kept, known: false, at: At::Storing });
        Ok(Offered::New(Seq(self.next - 1)))
    }

    pub fn stored(&mut self, seq: Seq, now: Time) {
        self.now = now;
        if let Some(message) = self.get_mut(seq)
            && message.at == At::Storing
        {
            message.at = At::Waiting;
            self.totals.accepted += 1;
        }
    }

    pub fn failed(&mut self, seq: Seq) {
        if self.get(seq).is_some_and(|message| message.at == At::Storing) {
            self.remove(seq);
            self.keys.retain(|(_, first, _)| *first != seq);
        }
    }

    pub fn restore(&mut self, kept: Restored<u64>) {
        self.next = self.next.max(kept.seq.0 + 1);
        self.messages.push(Message { kept, known: true, at: At::Waiting });
    }

    pub fn restore_dead(&mut self, letter: DeadLetter<u64>) {
        self.next = self.next.max(letter.seq.0 + 1);
        self.keep_dead(letter);
    }

    pub fn restore_key(&mut self, key: &str, seq: Seq, until: Time) {
        self.next = self.next.max(seq.0 + 1);
        self.keys.push((Box::from(key), seq, until));
    }

    pub fn join(&mut self, consumer: ConsumerId, in_flight_max: usize) {
        self.consumers.retain(|(other, _)| *other != consumer);
        self.consumers.push((consumer, in_flight_max));
    }

    pub fn in_flight(&self, consumer: ConsumerId) -> usize {
        self.messages.iter().filter(|message| matches!(message.at, At::Flight(other, _) if other == consumer)).count()
    }

    pub fn wants(&self, consumer: ConsumerId) -> bool {
        self.consumers.iter().any(|(other, max)| *other == consumer && self.in_flight(consumer) < *max)
    }

    pub fn leave(&mut self, consumer: ConsumerId, now: Time) -> Vec<Change> {
        self.now = now;
        if !self.consumers.iter().any(|(other, _)| *other == consumer) {
            return Vec::new();
        }
        self.consumers.retain(|(other, _)| *other != consumer);
        let mut changes = Vec::new();
        let is_its = |message: &&Message| matches!(message.at, At::Flight(other, _) if other == consumer);
        let mut seqs: Vec<Seq> = self.messages.iter().filter(is_its).map(|message| message.kept.seq).collect();
        seqs.sort();
        for seq in seqs {
            let message = self.get_mut(seq).expect("it was found");
            message.at = At::Waiting;
            if message.is_over(now) {
                self.expire(seq);
                changes.push(Change::Removed(seq));
            } else if message.kept.deliveries >= self.limits.deliveries_max {
                self.bury(seq, DeadReason::TooManyDeliveries);
                changes.push(Change::Dead(seq));
            }
        }
        self.tell_dead(&mut changes);
        changes
    }

    /// What may be delivered, by class.
    fn ready(&self, class: usize) -> Vec<Seq> {
        let is_ready =
            |message: &&Message| message.kept.priority == Priority::ALL[class] && self.place(message) == Place::Ready;
        let mut seqs: Vec<Seq> = self.messages.iter().filter(is_ready).map(|message| message.kept.seq).collect();
        seqs.sort();
        seqs
    }

    pub fn has_ready(&self, now: Time) -> bool {
        let later = |message: &Message| {
            let is_held = self.place(message) == Place::Held;
            message.at == At::Waiting && !is_held && message.kept.due <= now && !message.is_over(now)
        };
        self.messages.iter().any(later)
    }

    /// How many deliveries in a row passed over a class that had something.
    fn passed_over(&self, class: usize) -> u32 {
        let since = self.turns.iter().rev().take_while(|turn| turn.class != class && turn.waited[class]);
        since.filter(|turn| turn.class < class).count().try_into().expect("there are few")
    }

    /// The number, how often it was delivered, and when its lease is over.
    pub fn take(&mut self, consumer: ConsumerId, now: Time) -> Option<(Seq, u32, Time)> {
        self.now = now;
        if !self.wants(consumer) {
            return None;
        }
        let ready = [0, 1, 2, 3].map(|class| self.ready(class));
        let waited = [0, 1, 2, 3].map(|class: usize| !ready[class].is_empty());
        let owed = (0..4).find(|class| waited[*class] && self.passed_over(*class) >= self.limits.passed_over_max);
        let class = owed.or_else(|| (0..4).find(|class| waited[*class]))?;
        // A class is empty at its own turn's end if this was its last one: what comes later was not passed over before.
        self.turns.push(Turn { class, waited });
        let lease_until = Time(now.0 + self.limits.lease_ms);
        let message = self.get_mut(ready[class][0])?;
        message.at = At::Flight(consumer, lease_until);
        message.kept.deliveries += 1;
        message.known = true;
        let taken = (message.kept.seq, message.kept.deliveries, lease_until);
        self.totals.delivered += 1;
        Some(taken)
    }

    fn taken(&self, consumer: ConsumerId, seq: Seq) -> Result<(), AckError> {
        match self.get(seq) {
            Some(message) => match message.at {
                At::Flight(other, _) if other == consumer => Ok(()),
                At::Flight(..) => Err(AckError::Foreign),
                At::Settling(_) => Err(AckError::AlreadySettled),
                At::Waiting if message.known => Err(AckError::NotInFlight),
                At::Waiting | At::Storing => Err(AckError::Unknown),
            },
            None => {
                let is_recent = self.settled.iter().rev().take(1_024).any(|other| *other == seq);
                let is_dead = self.dead.iter().any(|letter| letter.seq == seq);
                Err(if is_recent || is_dead { AckError::AlreadySettled } else { AckError::Unknown })
            }
        }
    }

    pub fn ack(&mut self, consumer: ConsumerId, seq: Seq, now: Time) -> Result<(), AckError> {
        self.now = now;
        let by = match self.taken(consumer, seq) {
            Ok(()) => Some(consumer),
            Err(AckError::NotInFlight) => None,
            Err(error) => return Err(error),
        };
        self.get_mut(seq).expect("it was found").at = At::Settling(by);
        Ok(())
    }

    pub fn acked(&mut self, seq: Seq, now: Time) {
        self.now = now;
        if self.get(seq).is_some_and(|message| matches!(message.at, At::Settling(_))) {
            self.remove(seq);
            self.settled.push(seq);
            self.totals.acked += 1;
        }
    }

    pub fn ack_failed(&mut self, seq: Seq, now: Time) {
        self.now = now;
        let here = self.consumers.clone();
        let lease_until = Time(now.0 + self.limits.lease_ms);
        if let Some(message) = self.get_mut(seq)
            && let At::Settling(by) = message.at
        {
            let by = by.filter(|by| here.iter().any(|(other, _)| other == by));
            message.at = by.map_or(At::Waiting, |by| At::Flight(by, lease_until));
        }
    }

    /// `due` is when the machine says that the message is due again, if it is.
    fn fail(&mut self, seq: Seq, error: &str, due: Option<Time>) -> Nacked {
        let (now, limits) = (self.now, self.limits);
        self.totals.failed += 1;
        let message = self.get_mut(seq).expect("it is there");
        if message.is_over(now) {
            self.expire(seq);
            return Nacked::Expired;
        }
        message.kept.failures += 1;
        message.kept.last_error = Some(Box::from(error));
        message.at = At::Waiting;
        let failures = message.kept.failures;
        let is_exhausted = failures == message.kept.retries_max + 1;
        if is_exhausted || message.kept.deliveries >= limits.deliveries_max {
            let reason = if is_exhausted { DeadReason::RetriesExhausted } else { DeadReason::TooManyDeliveries };
            self.bury(seq, reason);
            return Nacked::Dead;
        }
        let mut whole = limits.backoff.base_ms;
        for _ in 1..failures {
            whole = (whole * 2).min(limits.backoff.max_ms);
        }
        whole = whole.min(limits.backoff.max_ms);
        let due = due.expect("the machine has it too");
        let wait = due.0 - now.0;
        assert!(wait * 2 >= whole && wait <= whole, "failure {failures} waits {wait} of {whole}");
        message.kept.due = due;
        Nacked::Retry { failures, due }
    }

    pub fn nack(
        &mut self,
        consumer: ConsumerId,
        seq: Seq,
        error: &str,
        now: Time,
        due: Option<Time>,
    ) -> Result<Nacked, AckError> {
        self.now = now;
        self.taken(consumer, seq)?;
        Ok(self.fail(seq, error, due))
    }

    pub fn extend(&mut self, consumer: ConsumerId, seq: Seq, now: Time) -> Result<Time, AckError> {
        self.now = now;
        self.taken(consumer, seq)?;
        let lease_until = Time(now.0 + self.limits.lease_ms);
        self.get_mut(seq).expect("it was found").at = At::Flight(consumer, lease_until);
        Ok(lease_until)
    }

    fn expire(&mut self, seq: Seq) {
        self.remove(seq);
        self.settled.push(seq);
        self.totals.expired += 1;
    }

    fn bury(&mut self, seq: Seq, reason: DeadReason) {
        let Message { kept, .. } = self.remove(seq);
        self.totals.dead_lettered += 1;
        self.keep_dead(DeadLetter {
            seq,
            body: kept.body,
            bytes: kept.bytes,
            priority: kept.priority,
            retries_max: kept.retries_max,
            failures: kept.failures,
            last_error: kept.last_error,
            deliveries: kept.deliveries,
            reason,
            died: self.now,
        });
    }

    fn keep_dead(&mut self, letter: DeadLetter<u64>) {
        self.dead.push(letter);
        self.dead.sort_by_key(|letter| (letter.died, letter.seq));
        let bytes = |dead: &[DeadLetter<u64>]| dead.iter().map(|letter| letter.bytes).sum::<usize>();
        while self.dead.len() > self.limits.dead_letters_max || bytes(&self.dead) > self.limits.dead_bytes_max {
            let seq = self.dead[0].seq;
            self.forget_dead(seq);
        }
    }

    fn forget_dead(&mut self, seq: Seq) {
        self.dead.retain(|letter| letter.seq != seq);
        self.settled.push(seq);
        self.untold.push(Change::DeadRemoved(seq));
    }

    fn tell_dead(&mut self, changes: &mut Vec<Change>) {
        let (told, left) =
            std::mem::take(&mut self.untold).into_iter().partition(|change| matches!(change, Change::DeadRemoved(_)));
        self.untold = left;
        changes.extend::<Vec<Change>>(told);
    }

    pub fn handle_timeout(&mut self, now: Time, due: impl Fn(Seq) -> Option<Time>) -> Vec<Change> {
        self.now = now;
        let mut changes = Vec::new();
        let mut over: Vec<(Time, Seq)> = Vec::new();
        for message in &self.messages {
            if let At::Flight(_, until) = message.at
                && until <= now
            {
                over.push((until, message.kept.seq));
            }
        }
        over.sort();
        for (_, seq) in over {
            changes.push(match self.fail(seq, LEASE_EXPIRED, due(seq)) {
                Nacked::Retry { .. } => Change::Failed(seq),
                Nacked::Dead => Change::Dead(seq),
                Nacked::Expired => Change::Removed(seq),
            });
        }
        let mut expired: Vec<(Option<Time>, Seq)> = Vec::new();
        for message in &self.messages {
            if self.place(message) == Place::Expired {
                expired.push((message.kept.expires, message.kept.seq));
            }
        }
        expired.sort();
        for (_, seq) in expired {
            self.expire(seq);
            changes.push(Change::Removed(seq));
        }
        for letter in self.dead.clone() {
            if letter.died.0 + self.limits.dead_letter_ttl_ms <= now.0 {
                self.forget_dead(letter.seq);
            }
        }
        for (key, _, until) in self.keys.clone() {
            if until <= now {
                self.keys.retain(|(other, ..)| *other != key);
                changes.push(Change::KeyRemoved(key));
            }
        }
        changes.append(&mut self.untold);
        changes
    }

    pub fn next_timeout(&self) -> Option<Time> {
        if !self.untold.is_empty() {
            return Some(Time(0));
        }
        let mut times: Vec<Time> = Vec::new();
        for message in &self.messages {
            match self.place(message) {
                Place::InFlight { lease_until, .. } => times.push(lease_until),
                Place::Delayed => times.push(message.kept.due),
                _ => {}
            }
            if message.at == At::Waiting {
                times.extend(message.kept.expires);
            }
        }
        times.extend(self.dead.iter().map(|letter| Time(letter.died.0 + self.limits.dead_letter_ttl_ms)));
        times.extend(self.keys.iter().map(|(_, _, until)| *until));
        times.into_iter().min()
    }

    pub fn retry_dead(&mut self, seq: Seq, now: Time, ttl_ms: Option<u64>) -> Result<(), RetryError> {
        self.now = now;
        let letter = self.dead.iter().find(|letter| letter.seq == seq).cloned().ok_or(RetryError::Unknown)?;
        self.room(letter.bytes)?;
        self.dead.retain(|letter| letter.seq != seq);
        let kept = Restored {
            seq,
            body: letter.body,
            bytes: letter.bytes,
            priority: letter.priority,
            expires: ttl_ms.map(|ttl_ms| Time(now.0 + ttl_ms)),
            due: now,
            retries_max: letter.retries_max,
            failures: 0,
            last_error: None,
            deliveries: 0,
            key: None,
        };
        self.messages.push(Message { kept, known: true, at: At::Waiting });
        Ok(())
    }

    pub fn purge_dead(&mut self, seq: Option<Seq>) -> Vec<Change> {
        for letter in self.dead.clone() {
            if seq.is_none_or(|seq| seq == letter.seq) {
                self.forget_dead(letter.seq);
            }
        }
        let mut changes = Vec::new();
        self.tell_dead(&mut changes);
        changes
    }

    pub fn purge(&mut self) -> Vec<Change> {
        let mut changes = Vec::new();
        let mut seqs: Vec<Seq> = self.messages.iter().map(|message| message.kept.seq).collect();
        seqs.sort();
        for seq in seqs {
            if matches!(self.get(seq).expect("it is there").at, At::Waiting | At::Flight(..)) {
                self.remove(seq);
                self.settled.push(seq);
                self.totals.purged += 1;
                changes.push(Change::Removed(seq));
            }
        }
        changes
    }

    pub fn stats(&self) -> Stats {
        let mut stats = Stats {
            messages: self.messages.len(),
            bytes: self.bytes(),
            dead: self.dead.len(),
            dead_bytes: self.dead.iter().map(|letter| letter.bytes).sum(),
            keys: self.keys.len(),
            consumers: self.consumers.len(),
            ..self.totals
        };
        for message in &self.messages {
            let count = match self.place(message) {
                Place::Storing | Place::Held => &mut stats.storing,
                Place::Delayed => &mut stats.delayed,
                Place::Ready => &mut stats.waiting[message.kept.priority as usize],
                Place::Expired => &mut stats.expiring,
                Place::InFlight { .. } => &mut stats.in_flight,
                Place::Settling { .. } => &mut stats.settling,
            };
            *count += 1;
        }
        stats
    }

    pub fn is_idle(&self) -> bool {
        self.messages.is_empty()
            && self.dead.is_empty()
            && self.keys.is_empty()
            && self.untold.is_empty()
            && self.consumers.is_empty()
    }
}
