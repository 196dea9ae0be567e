//! Reads what producers and consumers noted, and says what should not have been.

use std::collections::{BTreeMap, BTreeSet};

/// A message as its producer knows it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Name {
    pub producer: u64,
    pub n: u64,
}

/// What a producer says of a message.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Wish {
    pub queue: usize,
    pub priority: &'static str,
    /// It has an idempotency key, so it may be sent again.
    pub is_keyed: bool,
    pub is_delayed: bool,
    /// Its first failure makes it a dead letter.
    pub is_frail: bool,
}

/// What a consumer got.
#[derive(Clone, Debug)]
pub struct Got {
    pub id: String,
    /// None where nobody can have sent that payload.
    pub name: Option<Name>,
    pub queue: usize,
    pub priority: String,
    pub attempt: u64,
    pub retries: u64,
}

#[derive(Clone, Debug)]
pub enum What {
    /// A server is about to be started: whoever was connected is no more.
    Life,
    /// Noted before it was sent.
    Sent(Name, Wish),
    /// The enqueue was answered with this id. Noted when it was read, as all that follows.
    Answered(Name, String),
    /// It was answered with an error.
    Refused(Name, String),
    Got(Got),
    /// An ack is about to be sent.
    Acking(String),
    Acked(String),
    /// The ack was refused. Whether that may be depends on `late`: the message was another connection's or life's.
    AckRefused {
        id: String,
        why: String,
        late: bool,
    },
    /// A nack is about to be sent.
    Nacking(String),
    /// It was answered; the message is a dead letter, or comes again.
    Nacked {
        id: String,
        is_dead: bool,
    },
    /// Something else that should not have come.
    Odd(String),
    /// The connection is about to be closed by its client.
    Closing,
}

/// Something that a client saw or is about to do, in the order of all.
#[derive(Clone, Debug)]
pub struct Note {
    /// The connection: no two have the same number, in whatever life.
    pub connection: u64,
    pub what: What,
}

/// What is to be known of the servers' settings.
#[derive(Clone, Copy, Debug, Default)]
pub struct Rules {
    /// Leases end while connections last: then messages change hands without a word, and what connections say is compared
    /// across lives and within each alone.
    pub leases_end: bool,
}

#[derive(Debug, Default)]
struct Message {
    name: Option<Name>,
    /// The life in which it was first heard of.
    life: usize,
    /// Connections that have it.
    holders: BTreeSet<u64>,
    was_got: bool,
    is_acking: bool,
    /// Life and connection of the ack's answer.
    acked: Option<(usize, u64)>,
    is_dead: bool,
    nacking: u64,
    nacked: u64,
}

#[derive(Debug)]
struct Sent {
    wish: Wish,
    /// Its connection.
    by: u64,
    /// How often.
    times: usize,
    life: usize,
    id: Option<String>,
    is_answered: bool,
}

/// Knows what was noted so far.
#[derive(Debug, Default)]
pub struct Checker {
    rules: Rules,
    life: usize,
    sent: BTreeMap<Name, Sent>,
    messages: BTreeMap<String, Message>,
    /// The greatest number that came for the first time, by connection, queue and priority.
    latest: BTreeMap<(u64, usize, String), u64>,
    faults: Vec<String>,
    pub seen: Seen,
}

/// How often what happened.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Seen {
    pub lives: usize,
    pub answered: usize,
    pub duplicates: usize,
    pub got: usize,
    pub redelivered: usize,
    pub acked: usize,
    pub late_acks: usize,
    pub nacked: usize,
    pub dead: usize,
    /// First deliveries whose order was looked at.
    pub ordered: usize,
    /// Acks whose answer never came.
    pub open_acks: usize,
}

/// The number in an id, `<queue> msg_<seconds>_<number>`.
fn number(id: &str) -> u64 {
    id.rsplit('_').next().and_then(|number| number.parse().ok()).unwrap_or(u64::MAX)
}

impl Checker {
    pub fn new(rules: Rules) -> Self {
        Checker { rules, ..Checker::default() }
    }

    fn fault(&mut self, text: String) {
        self.faults.push(format!("life {}: {text}", self.life));
    }

    /// What was wrong, the first first.
    pub fn faults(&self) -> &[String] {
        &self.faults
    }

    /// The messages that have to come yet: they were answered for, and nobody has said that they are done.
    pub fn owed(&self) -> BTreeSet<String> {
        let answered = self.sent.values().filter(|sent| sent.is_answered);
        let ids = answered.filter_map(|sent| Some((sent.id.clone()?, sent.wish.is_frail)));
        ids.filter(|(id, is_frail)| {
            let Some(message) = self.messages.get(id) else { return true };
            let may_be_dead = *is_frail && message.nacking > 0;
            !message.is_acking && !may_be_dead && !message.is_dead
        })
        .map(|(id, _)| id)
        .collect()
    }

    pub fn read(&mut self, notes: &[Note]) {
        notes.iter().for_each(|note| self.note(note));
    }

    /// Nothing comes any more.
    pub fn end(&mut self) {
        for id in self.owed() {
            let message = self.messages.get(&id);
            self.fault(format!("{id} was answered for and is lost: {message:?}"));
        }
        self.check_acceptance();
        self.seen.open_acks =
            self.messages.values().filter(|message| message.is_acking && message.acked.is_none()).count();
    }

    /// Messages that were sent on one connection have numbers in the order in which they were sent.
    fn check_acceptance(&mut self) {
        let mut latest = BTreeMap::new();
        let mut faults = Vec::new();
        for (name, sent) in self.sent.iter().filter(|(_, sent)| sent.times == 1) {
            let Some(id) = &sent.id else { continue };
            if let Some(before) = latest.insert((sent.by, sent.wish.queue), number(id))
                && before > number(id)
            {
                faults.push(format!("{name:?} got the number {}, one sent before it {before}", number(id)));
            }
        }
        faults.into_iter().for_each(|fault| self.fault(fault));
    }

    fn note(&mut self, note: &Note) {
        let connection = note.connection;
        match &note.what {
            What::Life => {
                self.life += 1;
                self.seen.lives += 1;
                self.messages.values_mut().for_each(|message| message.holders.clear());
            }
            What::Sent(name, wish) => {
                let (life, by) = (self.life, connection);
                let new = || Sent { wish: wish.clone(), by, times: 0, life, id: None, is_answered: false };
                let sent = self.sent.entry(*name).or_insert_with(new);
                sent.times += 1;
                if sent.times > 1 && !sent.wish.is_keyed {
                    self.fault(format!("the test sent {name:?} twice"));
                }
            }
            What::Answered(name, id) => {
                self.seen.answered += 1;
                self.is_the_one(*name, id);
                match self.sent.get_mut(name) {
                    Some(sent) if sent.is_answered => self.seen.duplicates += 1,
                    Some(sent) => sent.is_answered = true,
                    None => self.fault(format!("{name:?} was answered, and nobody had sent it")),
                }
            }
            What::Refused(name, why) => self.fault(format!("{name:?} was refused: {why}")),
            What::Got(got) => self.got(connection, got),
            What::Acking(id) => self.of(id).is_acking = true,
            What::Acked(id) => {
                self.seen.acked += 1;
                let life = self.life;
                let message = self.of(id);
                message.acked.get_or_insert((life, connection));
                message.holders.remove(&connection);
            }
            What::AckRefused { id, why, late } => {
                // Whoever says it late may be too late; otherwise a message that was given out is the consumer's.
                let allowed: &[&str] = match (late, self.rules.leases_end) {
                    (false, false) => &[],
                    // One that came twice may have been acknowledged twice.
                    (false, true) => &["lease_over", "already_settled"],
                    (true, _) => &["foreign_message", "already_settled", "unknown_message", "lease_over"],
                };
                if !allowed.contains(&why.as_str()) {
                    self.fault(format!("the ack of {id} was refused: {why}"));
                }
                if *late {
                    self.seen.late_acks += 1;
                }
            }
            What::Nacking(id) => {
                let message = self.of(id);
                message.nacking += 1;
                message.holders.remove(&connection);
            }
            What::Nacked { id, is_dead } => {
                self.seen.nacked += 1;
                self.seen.dead += usize::from(*is_dead);
                let message = self.of(id);
                message.nacked += 1;
                message.is_dead |= is_dead;
            }
            What::Odd(text) => self.fault(format!("this came: {text}")),
            What::Closing => {
                for message in self.messages.values_mut() {
                    message.holders.remove(&connection);
                }
            }
        }
    }

    fn of(&mut self, id: &str) -> &mut Message {
        let life = self.life;
        let new = || Message { life, ..Message::default() };
        self.messages.entry(id.to_owned()).or_insert_with(new)
    }

    /// One message has one id, whatever happens.
    fn is_the_one(&mut self, name: Name, id: &str) {
        let message = self.of(id);
        match message.name {
            Some(other) if other != name => self.fault(format!("{id} is {name:?} and was {other:?}")),
            _ => message.name = Some(name),
        }
        let Some(sent) = self.sent.get_mut(&name) else { return };
        match &sent.id {
            Some(other) if *other != *id => {
                let text = format!("{name:?} is two messages, {other} and {id}; keyed: {}", sent.wish.is_keyed);
                self.fault(text);
            }
            _ => sent.id = Some(id.to_owned()),
        }
    }

    fn got(&mut self, connection: u64, got: &Got) {
        let Got { id, name, queue, priority, attempt, retries } = got;
        self.seen.got += 1;
        let Some(name) = *name else { return self.fault(format!("{id}: nobody sent this")) };
        let Some(sent) = self.sent.get(&name) else { return self.fault(format!("{id}: nobody sent {name:?}")) };
        let (wish, sent_life, times) = (sent.wish.clone(), sent.life, sent.times);
        if wish.queue != *queue || wish.priority != *priority {
            self.fault(format!("{id} is another than was sent: {got:?} for {wish:?}"));
        }
        self.is_the_one(name, id);
        let (life, leases_end) = (self.life, self.rules.leases_end);
        let message = self.of(id);
        let was_got = std::mem::replace(&mut message.was_got, true);
        let mut faults = Vec::new();
        if let Some((acked_life, by)) = message.acked
            // Where leases end, two connections' notes of one life can't be put in order.
            && (!leases_end || acked_life < life || by == connection)
        {
            faults.push(format!("{id} came after its ack of life {acked_life} was answered: {got:?}"));
        }
        if message.is_dead {
            faults.push(format!("{id} came though it is a dead letter: {got:?}"));
        }
        if !leases_end && let Some(other) = message.holders.iter().find(|other| **other != connection) {
            faults.push(format!("{id} is with connection {other}, and came to {connection} too"));
        }
        // Failures of leases count as well, and so may nacks whose answer was not read.
        if *retries < message.nacked || (!leases_end && *retries > message.nacking) {
            let (nacked, nacking) = (message.nacked, message.nacking);
            faults.push(format!("{id} has {retries} failures, of {nacked} to {nacking}"));
        }
        // Was it there when this life began? One that was sent again may have been taken this time.
        let is_old = message.life < life || (sent_life < life && times == 1);
        message.holders.insert(connection);
        self.seen.redelivered += usize::from(was_got);
        let is_first = *attempt == 1 || (*attempt == 2 && is_old);
        if is_first && *retries == 0 && !wish.is_delayed {
            self.seen.ordered += 1;
            let key = (connection, *queue, priority.clone());
            let latest = self.latest.entry(key).or_default();
            if *latest >= number(id) {
                faults.push(format!("{id} came for the first time behind number {latest}: {got:?}"));
            }
            *latest = number(id).max(*latest);
        }
        faults.into_iter().for_each(|fault| self.fault(fault));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const NAME: Name = Name { producer: 1, n: 1 };

    fn wish() -> Wish {
        Wish { queue: 0, priority: "normal", is_keyed: false, is_delayed: false, is_frail: false }
    }

    fn got(id: &str, n: u64, attempt: u64) -> What {
        let (id, name) = (id.to_owned(), Some(Name { n, ..NAME }));
        What::Got(Got { id, name, queue: 0, priority: "normal".into(), attempt, retries: 0 })
    }

    fn sent(n: u64) -> What {
        What::Sent(Name { n, ..NAME }, wish())
    }

    fn answered(n: u64, id: &str) -> What {
        What::Answered(Name { n, ..NAME }, id.into())
    }

    /// The first fault of what these connections noted.
    #[track_caller]
    fn check(notes: &[(u64, What)], fault: Option<&str>) {
        let mut checker = Checker::new(Rules::default());
        for (connection, what) in notes {
            checker.note(&Note { connection: *connection, what: what.clone() });
        }
        checker.end();
        match (checker.faults().first(), fault) {
            (None, None) => {}
            (Some(came), Some(part)) if came.contains(part) => {}
            (came, fault) => panic!("expected {fault:?}, came {came:?}"),
        }
    }

    #[test]
    fn an_orderly_history_has_no_fault() {
        let (id, acked) = ("msg_1_1".to_owned(), What::Acked("msg_1_1".into()));
        check(
            &[
                (0, What::Life),
                (1, sent(1)),
                (1, answered(1, "msg_1_1")),
                (2, got("msg_1_1", 1, 1)),
                (0, What::Life),
                (3, got("msg_1_1", 1, 2)),
                (3, What::Acking(id)),
                (3, acked),
            ],
            None,
        );
    }

    #[test]
    fn what_was_answered_for_and_never_settled_is_lost() {
        check(&[(1, sent(1)), (1, answered(1, "msg_1_1")), (2, got("msg_1_1", 1, 1))], Some("is lost"));
        check(&[(1, sent(1)), (2, got("msg_1_1", 1, 1))], None);
    }

    #[test]
    fn a_delivery_after_the_answered_ack_is_seen() {
        let acks = [(2, What::Acking("msg_1_1".into())), (2, What::Acked("msg_1_1".into()))];
        let begin = [(1, sent(1)), (2, got("msg_1_1", 1, 1))];
        let again = [(0, What::Life), (3, got("msg_1_1", 1, 2))];
        check(&[&begin[..], &acks[..], &again[..]].concat(), Some("came after its ack"));
        check(&[&begin[..], &acks[..1], &again[..]].concat(), None);
    }

    #[test]
    fn order_numbers_and_holders_are_looked_at() {
        let two = [(1, sent(1)), (1, sent(2))];
        let out_of_order = [(2, got("msg_1_2", 2, 1)), (2, got("msg_1_1", 1, 1))];
        check(&[&two[..], &out_of_order[..]].concat(), Some("for the first time behind"));
        let answers = [(1, answered(1, "msg_1_2")), (1, answered(2, "msg_1_1"))];
        let acks = ["msg_1_1", "msg_1_2"].map(|id| (3, What::Acking(id.into())));
        check(&[&two[..], &answers[..], &acks[..]].concat(), Some("one sent before it"));
        check(
            &[&two[..1], &[(2, got("msg_1_1", 1, 1)), (3, got("msg_1_1", 1, 2))]].concat(),
            Some("is with connection"),
        );
    }

    #[test]
    fn a_message_has_one_id_and_a_sender() {
        check(&[(1, sent(1)), (2, got("msg_1_1", 1, 1)), (2, got("msg_1_2", 1, 1))], Some("is two messages"));
        check(&[(2, got("msg_1_1", 1, 1))], Some("nobody sent"));
    }
}
