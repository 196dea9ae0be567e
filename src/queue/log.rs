//! How queues are stored: a log of groups, one value each, in which every item has its latest state somewhere.
//!
//! ```text
//! queue_log   <group, 8 bytes big-endian>   01 then entries: what one commit changed, of all queues
//!
//! entry   kind u8, queue (u16 length, bytes), number u64, length u32, value      all numbers big-endian
//! kind    0 removed   1 message   2 dead letter   3 idempotency key   4 next number   and 0x10 + kind: that kind's removal
//! ```
//!
//! One value a group costs a B-tree far fewer pages than one a message ([ADR 0034](../../docs/adr/0034-queue-log.md)). The log is cut at its
//! beginning alone: a group goes when no item has its latest state there, and since a removal is never in an earlier group than
//! what it removes, nothing that was removed comes back. What keeps an old group alive is written again, a little with
//! each commit, once the log is much longer than what lives in it.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::sync::Arc;

use crate::protocol::queue::Seq;
use crate::store::Table;

pub(super) const LOG: Table = Table("queue_log");
/// Groups that could not be read when the queues were, for whoever wants to look: nothing uses them.
pub(super) const UNREADABLE: Table = Table("queue_unreadable");

/// The first byte of a group.
const VERSION: u8 = 1;
/// What is added to a kind where the item is removed.
const REMOVAL: u8 = 0x10;
/// Bytes by which the log may be longer than twice what lives in it.
const SLACK_BYTES: u64 = if cfg!(test) { 4 << 10 } else { 4 << 20 };

/// What an entry is about.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
#[repr(u8)]
pub(super) enum Kind {
    /// A message that is not settled.
    Message = 1,
    /// A dead letter.
    Dead = 2,
    /// An idempotency key; its number is that of its message.
    Key = 3,
    /// The first number that was never given; itself it has number 0.
    Next = 4,
}

impl Kind {
    fn of(byte: u8) -> Option<Self> {
        [Kind::Message, Kind::Dead, Kind::Key, Kind::Next].into_iter().find(|kind| *kind as u8 == byte)
    }
}

/// A new state of an item, or its removal.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Write {
    pub(super) kind: Kind,
    pub(super) seq: Seq,
    pub(super) value: Option<Vec<u8>>,
}

impl Write {
    pub(super) fn put(kind: Kind, seq: Seq, value: Vec<u8>) -> Self {
        Write { kind, seq, value: Some(value) }
    }

    pub(super) fn remove(kind: Kind, seq: Seq) -> Self {
        Write { kind, seq, value: None }
    }

    /// Bytes of its entry.
    pub(super) fn bytes(&self, queue: &str) -> usize {
        1 + 2 + queue.len() + 8 + 4 + self.value.as_ref().map_or(0, Vec::len)
    }
}

/// A group that is being written.
pub(super) struct Group {
    value: Vec<u8>,
    /// What it changes: the queue, the item, its entry's bytes, and whether it is there now.
    changes: Vec<(Arc<str>, Kind, Seq, usize, bool)>,
}

impl Group {
    pub(super) fn new() -> Self {
        Group { value: vec![VERSION], changes: Vec::new() }
    }

    pub(super) fn bytes(&self) -> usize {
        self.value.len()
    }

    pub(super) fn is_empty(&self) -> bool {
        self.changes.is_empty()
    }

    pub(super) fn push(&mut self, queue: &Arc<str>, write: &Write) {
        let before = self.value.len();
        let removal = if write.value.is_none() { REMOVAL } else { 0 };
        let value = write.value.as_deref().unwrap_or_default();
        self.value.push(write.kind as u8 | removal);
        let name = u16::try_from(queue.len()).expect("a queue's name is short");
        self.value.extend_from_slice(&name.to_be_bytes());
        self.value.extend_from_slice(queue.as_bytes());
        self.value.extend_from_slice(&write.seq.0.to_be_bytes());
        let length = u32::try_from(value.len()).expect("a value is below the store's bound");
        self.value.extend_from_slice(&length.to_be_bytes());
        self.value.extend_from_slice(value);
        let bytes = self.value.len() - before;
        self.changes.push((Arc::clone(queue), write.kind, write.seq, bytes, write.value.is_some()));
    }

    /// The items that it changes.
    pub(super) fn changed(&self) -> HashSet<(&str, Kind, Seq)> {
        self.changes.iter().map(|(queue, kind, seq, ..)| (&**queue, *kind, *seq)).collect()
    }

    /// The value to be stored.
    pub(super) fn take_value(&mut self) -> Vec<u8> {
        std::mem::take(&mut self.value)
    }
}

/// An entry as it was stored.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Entry<'a> {
    pub(super) kind: Kind,
    pub(super) queue: &'a str,
    pub(super) seq: Seq,
    /// None for a removal.
    pub(super) value: Option<&'a [u8]>,
    bytes: usize,
}

/// The entries of a stored group.
///
/// # Errors
/// What is wrong with it, for the log.
pub(super) fn entries(value: &[u8]) -> Result<Vec<Entry<'_>>, &'static str> {
    let mut rest = match value.split_first() {
        Some((&VERSION, rest)) => rest,
        Some(_) => return Err("its version is not known"),
        None => return Err("it is empty"),
    };
    let mut entries = Vec::new();
    while !rest.is_empty() {
        let before = rest.len();
        let entry = next(&mut rest).ok_or("it breaks off, or has a kind that is not known")?;
        entries.push(Entry { bytes: before - rest.len(), ..entry });
    }
    Ok(entries)
}

fn next<'a>(rest: &mut &'a [u8]) -> Option<Entry<'a>> {
    let (kind, tail) = rest.split_first()?;
    let (length, tail) = tail.split_first_chunk::<2>()?;
    let (queue, tail) = tail.split_at_checked(u16::from_be_bytes(*length).into())?;
    let (seq, tail) = tail.split_first_chunk::<8>()?;
    let (length, tail) = tail.split_first_chunk::<4>()?;
    let (value, tail) = tail.split_at_checked(usize::try_from(u32::from_be_bytes(*length)).ok()?)?;
    *rest = tail;
    let is_removal = kind & REMOVAL != 0;
    Some(Entry {
        kind: Kind::of(kind & !REMOVAL)?,
        queue: std::str::from_utf8(queue).ok()?,
        seq: Seq(u64::from_be_bytes(*seq)),
        value: (!is_removal).then_some(value),
        bytes: 0,
    })
}

/// The key of a group.
pub(super) fn group_key(group: u64) -> [u8; 8] {
    group.to_be_bytes()
}

/// Where every item has its latest state, and what of the log is still needed.
#[derive(Clone, Debug, Default)]
pub(super) struct Log {
    /// The queues of items, with a number each, and how many items they have.
    queues: HashMap<Arc<str>, (u32, usize)>,
    /// Numbers that no queue has any more.
    free: Vec<u32>,
    homes: HashMap<(u32, Kind, Seq), Home>,
    groups: BTreeMap<u64, Kept>,
    next: u64,
    bytes: u64,
    living: u64,
    has_failed: bool,
}

#[derive(Clone, Copy, Debug)]
struct Home {
    group: u64,
    bytes: usize,
}

/// A group that is stored.
#[derive(Clone, Copy, Debug)]
struct Kept {
    bytes: usize,
    /// Items that have their latest state here.
    living: usize,
    /// It can't be read any more, so what lives in it can't be written again.
    is_stuck: bool,
}

impl Log {
    /// The number of the next group.
    pub(super) fn next(&self) -> u64 {
        self.next
    }

    /// The groups at the beginning in which nothing lives.
    pub(super) fn over(&self) -> Vec<u64> {
        self.groups.iter().take_while(|(_, group)| group.living == 0).map(|(number, _)| *number).collect()
    }

    /// Whether what lives in the oldest groups should be written again, so that they can go.
    pub(super) fn is_long(&self) -> bool {
        self.bytes > self.living.saturating_mul(2).saturating_add(SLACK_BYTES)
    }

    /// The groups in which something lives, with their bytes, from the oldest to the first that can't be read.
    pub(super) fn living(&self) -> impl Iterator<Item = (u64, usize)> {
        let groups = self.groups.iter().filter(|(_, group)| group.living > 0);
        groups.take_while(|(_, group)| !group.is_stuck).map(|(number, group)| (*number, group.bytes))
    }

    /// These groups are gone.
    pub(super) fn drop_groups(&mut self, gone: &[u64]) {
        for number in gone {
            if let Some(group) = self.groups.remove(number) {
                self.bytes -= group.bytes as u64;
            }
        }
    }

    /// A group can't be read any more: nothing of it is written again.
    pub(super) fn stuck(&mut self, number: u64) {
        if let Some(group) = self.groups.get_mut(&number) {
            group.is_stuck = true;
        }
    }

    /// Whether an item has its latest state in a group.
    pub(super) fn lives_in(&self, group: u64, queue: &str, kind: Kind, seq: Seq) -> bool {
        let home = self.queues.get(queue).and_then(|(queue, _)| self.homes.get(&(*queue, kind, seq)));
        home.is_some_and(|home| home.group == group)
    }

    /// Groups could not be stored, as far as was told: the disk may have them.
    pub(super) fn failed(&mut self) {
        self.has_failed = true;
    }

    /// Whether groups may be stored behind the last that is known.
    pub(super) fn may_have_more(&self) -> bool {
        self.has_failed
    }

    /// A group was stored.
    pub(super) fn stored(&mut self, bytes: usize, group: &Group) {
        let number = self.begin(self.next, bytes);
        self.has_failed = false;
        for (queue, kind, seq, bytes, is_there) in &group.changes {
            self.note(number, queue, *kind, *seq, *bytes, *is_there);
        }
    }

    /// A group was read. Groups come in their order.
    pub(super) fn read(&mut self, number: u64, bytes: usize, entries: &[Entry<'_>]) {
        let number = self.begin(number, bytes);
        for entry in entries {
            self.note(number, entry.queue, entry.kind, entry.seq, entry.bytes, entry.value.is_some());
        }
    }

    /// A group was put aside.
    pub(super) fn passed(&mut self, number: u64) {
        self.next = self.next.max(number.saturating_add(1));
    }

    fn begin(&mut self, number: u64, bytes: usize) -> u64 {
        self.groups.insert(number, Kept { bytes, living: 0, is_stuck: false });
        self.bytes += bytes as u64;
        self.passed(number);
        number
    }

    fn note(&mut self, group: u64, queue: &str, kind: Kind, seq: Seq, bytes: usize, is_there: bool) {
        let before = match is_there {
            true => {
                let id = self.queue(queue);
                self.living += bytes as u64;
                self.count(group, 1);
                let before = self.homes.insert((id, kind, seq), Home { group, bytes });
                if before.is_none()
                    && let Some((_, items)) = self.queues.get_mut(queue)
                {
                    *items += 1;
                }
                before
            }
            false => self.removed(queue, kind, seq),
        };
        if let Some(before) = before {
            self.living -= before.bytes as u64;
            self.count(before.group, -1);
        }
    }

    /// The number of a queue that has an item, or is about to.
    fn queue(&mut self, queue: &str) -> u32 {
        if let Some((id, _)) = self.queues.get(queue) {
            return *id;
        }
        let id = self
            .free
            .pop()
            .unwrap_or_else(|| u32::try_from(self.queues.len()).expect("memory ends far below four billion queues"));
        self.queues.insert(queue.into(), (id, 0));
        id
    }

    fn removed(&mut self, queue: &str, kind: Kind, seq: Seq) -> Option<Home> {
        let (id, items) = self.queues.get_mut(queue)?;
        let before = self.homes.remove(&(*id, kind, seq))?;
        *items -= 1;
        if *items == 0 {
            self.free.push(*id);
            self.queues.remove(queue);
        }
        Some(before)
    }

    fn count(&mut self, group: u64, change: isize) {
        if let Some(group) = self.groups.get_mut(&group) {
            group.living = group.living.saturating_add_signed(change);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn put(seq: u64, value: &str) -> Write {
        Write::put(Kind::Message, Seq(seq), value.as_bytes().to_vec())
    }

    fn removed(seq: u64) -> Write {
        Write::remove(Kind::Message, Seq(seq))
    }

    fn group(queue: &str, writes: &[Write]) -> Group {
        let queue = Arc::from(queue);
        let mut group = Group::new();
        writes.iter().for_each(|write| group.push(&queue, write));
        group
    }

    #[test]
    fn a_group_reads_as_it_was_written() {
        let writes = [put(7, "x"), removed(8), Write::put(Kind::Next, Seq(0), vec![]), put(u64::MAX, "")];
        let mut group = group("inbox:ann", &writes);
        let value = group.take_value();

        let read = entries(&value).expect("what was written");

        let read: Vec<_> = read
            .iter()
            .map(|entry| {
                (entry.queue, Write { kind: entry.kind, seq: entry.seq, value: entry.value.map(<[u8]>::to_vec) })
            })
            .collect();
        assert_eq!(read, writes.map(|write| ("inbox:ann", write)));
        for end in 1..value.len() {
            // Cut anywhere it has fewer entries, or is refused: never others.
            if let Ok(fewer) = entries(&value[..end]) {
                assert!(fewer.len() < 4, "{end}");
            }
        }
        assert!(entries(&[]).is_err() && entries(&[9]).is_err() && entries(&[1, 9, 0, 0]).is_err());
    }

    #[test]
    fn the_log_is_cut_where_nothing_lives_any_more() {
        let mut log = Log::default();
        for writes in [&[put(1, "a"), put(2, "b")][..], &[removed(1), put(3, "c")], &[removed(2)]] {
            let group = group("q", writes);
            log.stored(group.bytes(), &group);
        }
        assert_eq!(log.over(), [0], "both of the first group were removed");
        log.drop_groups(&[0]);
        assert_eq!(log.over(), [0; 0], "message 3 lives in the second");
        assert!(log.lives_in(1, "q", Kind::Message, Seq(3)) && !log.lives_in(1, "q", Kind::Message, Seq(1)));

        let rewritten = group("q", &[put(3, "c")]);
        log.stored(rewritten.bytes(), &rewritten);

        assert_eq!(log.over(), [1, 2]);
        log.drop_groups(&[1, 2]);
        assert_eq!((log.over(), log.next()), (vec![], 4));
        assert_eq!(log.bytes, rewritten.bytes() as u64);
    }

    #[test]
    fn a_log_that_was_read_is_as_it_was_stored() {
        let mut stored = Log::default();
        let mut read = Log::default();
        for round in 0..50_u64 {
            let queue = if round % 3 == 0 { "a" } else { "b" };
            let mut group = group(queue, &[put(round, "value"), removed(round.saturating_sub(5)), put(1_000, "again")]);
            let number = stored.next();
            stored.stored(group.bytes(), &group);
            let value = group.take_value();
            read.read(number, value.len(), &entries(&value).expect("what was written"));
        }

        assert_eq!((stored.bytes, stored.living, stored.next()), (read.bytes, read.living, read.next()));
        let living = |log: &Log| log.groups.values().map(|group| group.living).collect::<Vec<_>>();
        assert_eq!(living(&stored), living(&read));
        assert_eq!(living(&stored).iter().sum::<usize>(), stored.homes.len());
    }

    #[test]
    fn a_queue_without_items_is_forgotten() {
        let mut log = Log::default();
        for round in 0..100_u64 {
            let queue = format!("session:{round}");
            for writes in [[put(1, "x")], [removed(1)]] {
                let group = group(&queue, &writes);
                log.stored(group.bytes(), &group);
            }
        }

        assert!(log.queues.is_empty() && log.homes.is_empty());
        assert_eq!(log.free.len(), 1, "one number was enough");
        assert_eq!(log.living, 0);
    }
}
