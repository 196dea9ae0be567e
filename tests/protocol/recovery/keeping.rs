//! The store of a session, as plain maps, and the driver that writes to it: snapshots one at a time, each written all at once, or not at
//! all where a crash comes first.

use std::collections::BTreeMap;

use bennu::protocol::jsonrpc::CallNumber;
use bennu::protocol::mcp::recovery::{Attachment, Kept, KeptCall, KeptHead, Position, Recovery, Sending, Unsaved};

use super::calls::{Facts, Known, Stage};
use super::model::PlainLog;
use super::{WINDOW_MS, World, below};

/// What is stored.
#[derive(Default)]
struct Disk {
    head: Option<KeptHead>,
    messages: BTreeMap<u64, Sending>,
    calls: BTreeMap<u64, KeptCall>,
}

enum Write {
    Call(u64, Option<KeptCall>),
    Message(Sending),
    Head(KeptHead),
    Gone(Position),
}

/// What a snapshot stands for, as it is known outside the machine.
struct Meant {
    log: PlainLog,
    used: u64,
    calls: BTreeMap<u64, Facts>,
    /// Whether no call is left for the next snapshot.
    has_all_calls: bool,
}

struct Snapshot {
    number: u64,
    /// Whether nothing is left for the next.
    is_whole: bool,
    upto: Position,
    writes: Vec<Write>,
    meant: Meant,
}

#[derive(Default)]
pub struct Keeping {
    disk: Disk,
    /// What the stored head stands for.
    log: PlainLog,
    used: u64,
    /// What the stored calls stand for.
    calls: BTreeMap<u64, Facts>,
    /// A snapshot that is being written.
    writing: Option<Snapshot>,
    taken: u64,
    /// The last one stored that left nothing.
    stored: u64,
    /// Snapshots that earlier servers took.
    taken_before: u64,
    /// How far the log is known to be stored.
    pub upto: u64,
}

/// What happened in all seeds together.
#[derive(Clone, Copy, Debug, Default)]
pub struct Tally {
    pub crashes: u64,
    pub lost_snapshots: u64,
    pub truncated: u64,
    pub said_again: u64,
    pub unheard: u64,
    pub run_again: u64,
    pub failed: u64,
}

impl Tally {
    pub fn add(&mut self, other: &Tally) {
        let Tally { crashes, lost_snapshots, truncated, said_again, unheard, run_again, failed } = *other;
        self.crashes += crashes;
        self.lost_snapshots += lost_snapshots;
        self.truncated += truncated;
        self.said_again += said_again;
        self.unheard += unheard;
        self.run_again += run_again;
        self.failed += failed;
    }

    /// Whether all of it has happened.
    pub fn is_full(&self) -> bool {
        let Tally { crashes, lost_snapshots, truncated, said_again, unheard, run_again, failed } = *self;
        [crashes, lost_snapshots, truncated, said_again, unheard, run_again, failed].iter().all(|count| *count > 0)
    }
}

impl Keeping {
    pub fn snapshots_stored(&self) -> u64 {
        self.stored
    }

    /// A call as it is stored.
    pub fn call(&self, order: u64) -> Option<&KeptCall> {
        self.disk.calls.get(&order)
    }

    /// That a message counts which is handed out.
    pub fn check_stored(&self, message: &Sending) {
        assert!(message.position.0 <= self.log.said.len() as u64, "{} is behind the head", message.position);
        assert_eq!(self.disk.messages.get(&message.position.0), Some(message), "it is not stored");
    }

    fn make(&mut self, write: Write, meant: &Meant) {
        match write {
            Write::Call(order, Some(kept)) => {
                let facts = meant.calls.get(&order).expect("a call that is stored is known");
                facts.check(&kept);
                self.calls.insert(order, facts.clone());
                self.disk.calls.insert(order, kept);
            }
            Write::Call(order, None) => {
                assert!(!meant.calls.contains_key(&order), "a call is taken away that is known");
                assert!(meant.has_all_calls, "a call is taken away while what is said of it waits for other calls");
                self.calls.remove(&order);
                self.disk.calls.remove(&order);
            }
            Write::Message(message) => {
                self.disk.messages.insert(message.position.0, message);
            }
            Write::Head(head) => {
                self.disk.head = Some(head);
                (self.log, self.used) = (meant.log.clone(), meant.used);
            }
            Write::Gone(position) => {
                self.disk.messages.remove(&position.0);
            }
        }
    }
}

impl World {
    /// Which snapshot, or a later one, has to be stored so that all that has happened so far is.
    pub fn wanted_snapshot(&self) -> u64 {
        self.keeping.as_ref().map_or(0, |keeping| keeping.taken + u64::from(self.recovery.has_unsaved()))
    }

    /// Takes a snapshot, unless one is being written.
    pub fn snapshot(&mut self) {
        let bytes_max = match self.dice.below(4) {
            0 => usize::MAX,
            1 => below(&mut self.dice, 500_000),
            _ => below(&mut self.dice, 200),
        };
        let Some(keeping) = self.keeping.as_mut().filter(|keeping| keeping.writing.is_none()) else { return };
        let Some(unsaved) = self.recovery.unsaved(bytes_max) else { return };
        let (has_all_calls, is_whole) = (!self.recovery.executions().has_unsaved(), !self.recovery.has_unsaved());
        self.tally.truncated += u64::from(!has_all_calls);
        let Unsaved { head, is_touched, messages, gone, upto, calls } = unsaved;
        keeping.taken += 1;
        assert_eq!(is_touched, keeping.taken == keeping.taken_before + 1, "nothing but its beginning has touched it");
        let bytes: usize = messages.iter().map(|message| message.text.len()).sum();
        assert!(messages.len() <= 1 || bytes <= bytes_max, "{bytes} of at most {bytes_max} bytes");
        assert_eq!((head.used, head.acknowledged.0), (self.last_used, self.plain.acknowledged as u64));
        assert_eq!((head.last, head.until.is_none()), (upto, self.recovery.state() == Attachment::Attached));

        let sizes: Vec<_> = calls.iter().filter_map(|(_, call)| Some(call.as_ref()?.bytes())).collect();
        let bytes: usize = sizes.iter().sum();
        assert!(sizes.len() <= 1 || bytes <= bytes_max, "{bytes} of at most {bytes_max} bytes");

        let writes = calls.into_iter().map(|(order, call)| Write::Call(order, call));
        let writes = writes.chain(messages.into_iter().map(Write::Message)).chain([Write::Head(head)]);
        let writes = writes.chain(gone.into_iter().map(Write::Gone)).collect();
        let mut log = self.plain.clone();
        log.said.truncate(upto.0 as usize);
        let calls = self.calls.iter().map(|call| (call.order, call.facts.clone())).collect();
        let meant = Meant { log, used: self.last_used, calls, has_all_calls };
        keeping.writing = Some(Snapshot { number: keeping.taken, is_whole, upto, writes, meant });
    }

    /// Writes the snapshot that waits for it, all at once; where it left nothing, whoever waits goes on.
    pub fn write(&mut self) {
        let Some(keeping) = &mut self.keeping else { return };
        let Some(Snapshot { number, is_whole, upto, writes, meant }) = keeping.writing.take() else { return };
        writes.into_iter().for_each(|write| keeping.make(write, &meant));
        if meant.has_all_calls {
            assert!(keeping.disk.messages.keys().copied().eq(meant.log.kept()), "what is stored is what is kept");
            assert_eq!(keeping.calls, meant.calls, "all calls are stored as they were");
            assert_eq!(keeping.disk.calls.len(), meant.calls.len());
        }
        self.recovery.saved(upto);
        keeping.upto = upto.0;
        if is_whole {
            keeping.stored = number;
        }
        self.run_waiting();
        self.tell_joined();
    }

    /// Stores all there is.
    pub fn store_all(&mut self) {
        if self.keeping.is_none() {
            return;
        }
        self.write();
        while self.recovery.has_unsaved() {
            self.snapshot();
            self.write();
        }
    }

    /// The replies to joins whose snapshots are stored; what an earlier server left is settled with that.
    pub fn tell_joined(&mut self) {
        let stored = self.keeping.as_ref().map_or(0, Keeping::snapshots_stored);
        let mut is_settled = true;
        for connection in &mut self.connections {
            if let Some((_, joined)) = connection.joining.take_if(|(needed, _)| *needed <= stored) {
                connection.wire.push_back(joined);
                is_settled = false;
            }
        }
        if !is_settled {
            self.settle_broken_off();
        }
    }

    /// Each call that an earlier server left is run again when that is stored, or answered as one that failed.
    fn settle_broken_off(&mut self) {
        for index in 0..self.calls.len() {
            if self.calls[index].stage != Stage::BrokenOff {
                continue;
            }
            let number = self.number();
            let call = &mut self.calls[index];
            let asked_as = self.recovery.renumber(call.number, number);
            call.number = number;
            let asked_as = asked_as.map_or(call.facts.identity(), |id| id.get().parse().expect("a number"));
            assert_eq!(asked_as, call.facts.asked_as);
            assert_eq!(self.recovery.executions().order(number), Some(call.order));
            if self.dice.one_in(2) {
                self.tally.run_again += 1;
                let wanted = self.wanted_snapshot();
                self.calls[index].stage = Stage::Waits(wanted);
            } else {
                self.tally.failed += 1;
                self.calls[index].stage = Stage::Runs;
                self.answer(index, 0);
            }
        }
        self.run_waiting();
    }

    /// The server is gone, and another has what was stored.
    pub fn crash(&mut self) {
        let Some(keeping) = &mut self.keeping else { return };
        let Some(head) = keeping.disk.head else {
            assert!(self.client.tokens.is_empty() && self.runs.is_empty(), "nobody knows of the session");
            return;
        };
        self.tally.crashes += 1;
        self.tally.lost_snapshots += u64::from(keeping.writing.take().is_some());
        self.connections.clear();
        self.client.lose();
        self.reading = 0;

        self.plain = keeping.log.clone();
        let acknowledged = self.plain.acknowledged;
        for (index, said) in self.plain.said.iter_mut().enumerate() {
            let stored = keeping.disk.messages.get(&(index as u64 + 1));
            assert!(stored.is_some() || !said.is_kept, "{} is lost", index + 1);
            assert!(stored.is_none_or(|stored| stored.text == said.text), "{} is another", index + 1);
            // What was to be taken away may still be there.
            said.is_kept = stored.is_some() && index >= acknowledged;
        }
        (self.plain.sent, self.plain.ever_sent) = (acknowledged, self.plain.said.len());
        keeping.upto = self.plain.said.len() as u64;
        (keeping.stored, keeping.taken_before) = (keeping.taken, keeping.taken);
        self.last_used = keeping.used;

        let stage = |facts: &Facts| if facts.is_running { Stage::BrokenOff } else { Stage::Runs };
        let before = std::mem::take(&mut self.calls);
        self.calls = keeping
            .calls
            .iter()
            .map(|(order, facts)| Known {
                number: CallNumber(*order),
                order: *order,
                facts: facts.clone(),
                stage: stage(facts),
            })
            .collect();
        let mut ids: Vec<_> = self.calls.iter().flat_map(|call| call.facts.ids.clone()).collect();
        ids.sort_unstable();
        assert!(ids.is_sorted_by(|one, other| one < other), "an id is that of two calls: {ids:?}");
        for Known { facts, .. } in self.calls.iter().filter(|call| call.stage == Stage::BrokenOff) {
            let is_answered = keeping.log.has_answer(&facts.ids);
            assert!(!is_answered, "call {} was answered and would be run again", facts.identity());
        }
        for Known { facts, .. } in before {
            if self.calls.iter().any(|call| call.facts.ids.contains(&facts.identity())) {
                continue;
            }
            let has_run = self.runs.values().any(|(identity, _)| *identity == facts.identity());
            assert!(!has_run, "call {} was run and is not known", facts.identity());
            if !facts.is_taken_back {
                self.tally.unheard += 1;
                self.unheard.push((facts.asked_as, facts.digest, facts.key));
            }
        }

        let kept = keeping.disk.kept(head);
        self.next_call = kept.calls.iter().map(|(order, _)| *order).fold(head.begun, u64::max) + 1;
        self.recovery = Recovery::restored(kept, WINDOW_MS, self.now + WINDOW_MS);
        self.say_lost_answers();
        let broken_off = self.calls.iter().filter(|call| call.stage == Stage::BrokenOff);
        let broken_off: Vec<_> = broken_off.map(|call| (call.number, call.facts.request())).collect();
        assert_eq!(self.recovery.executions().running(), broken_off);
    }

    /// What the log did not yet have of answers that are stored is said again.
    fn say_lost_answers(&mut self) {
        let last = self.plain.said.len() as u64;
        let behind = |index: &usize| {
            let (_, position) = self.calls[*index].facts.answer?;
            (position > last).then_some((position, *index))
        };
        let mut lost: Vec<_> = (0..self.calls.len()).filter_map(|index| behind(&index)).collect();
        lost.sort_unstable();
        for (_, index) in lost {
            self.tally.said_again += 1;
            self.say_answer(index);
        }
    }
}

impl Disk {
    fn kept(&self, head: KeptHead) -> Kept {
        let messages = self.messages.range(..=head.last.0).map(|(_, message)| message.clone()).collect();
        assert!(self.messages.range(head.last.0 + 1..).next().is_none(), "nothing stands behind the head");
        let calls = self.calls.iter().map(|(order, call)| (*order, call.clone())).collect();
        Kept { head, messages, calls }
    }
}
