//! What a driver would write down, and when it is told.

use std::collections::BTreeMap;

use bennu::protocol::Time;
use bennu::protocol::queue::{DeadLetter, Restored, Seq};

/// Something that the driver writes down. Writes are done in their order.
#[derive(Clone, Debug)]
pub enum Write {
    /// A new message and its key; then the queue is told.
    Store(Restored<u64>, Option<(Box<str>, Time)>),
    /// A message's record anew, if it is there.
    Update(Restored<u64>),
    /// A message's record goes; then the queue is told.
    Ack(Seq),
    Remove(Seq),
    Bury(DeadLetter<u64>),
    Revive(Restored<u64>),
    RemoveDead(Seq),
    RemoveKey(Box<str>),
}

/// What the queue is to be told of a write.
#[derive(Clone, Copy, Debug)]
pub enum Told {
    Stored(Seq),
    Failed(Seq),
    Acked(Seq),
    AckFailed(Seq),
}

/// What is written down, and outlasts a crash.
#[derive(Default)]
pub struct Disk {
    pub messages: BTreeMap<Seq, Restored<u64>>,
    pub dead: BTreeMap<Seq, DeadLetter<u64>>,
    pub keys: BTreeMap<Box<str>, (Seq, Time)>,
    pub next: u64,
}

impl Disk {
    /// Does a write, unless it is to fail; only those fail whose failure the queue is told.
    pub fn perform(&mut self, write: Write, fails: bool) -> Option<Told> {
        match write {
            Write::Store(message, _) if fails => return Some(Told::Failed(message.seq)),
            Write::Ack(seq) if fails => return Some(Told::AckFailed(seq)),
            Write::Store(message, key) => {
                let seq = message.seq;
                self.next = self.next.max(seq.0 + 1);
                if let Some((key, until)) = key {
                    self.keys.insert(key, (seq, until));
                }
                self.messages.insert(seq, message);
                return Some(Told::Stored(seq));
            }
            Write::Ack(seq) => {
                self.messages.remove(&seq);
                return Some(Told::Acked(seq));
            }
            Write::Update(message) => {
                assert!(self.messages.contains_key(&message.seq), "what changes is on disk: {message:?}");
                self.messages.insert(message.seq, message);
            }
            Write::Remove(seq) => drop(self.messages.remove(&seq)),
            Write::Bury(letter) => {
                self.messages.remove(&letter.seq);
                self.dead.insert(letter.seq, letter);
            }
            Write::Revive(message) => {
                assert!(self.dead.remove(&message.seq).is_some(), "what is revived is on disk: {message:?}");
                self.messages.insert(message.seq, message);
            }
            Write::RemoveDead(seq) => drop(self.dead.remove(&seq)),
            Write::RemoveKey(key) => drop(self.keys.remove(&key)),
        }
        None
    }
}
