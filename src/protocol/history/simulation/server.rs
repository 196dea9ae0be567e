//! The server as far as positions go: the lock, the shards' queues, and connections that catch up.
//!
//! What is done here in one call is done in the server under the lock of the topic's history, or by one task.

use std::collections::{BTreeMap, VecDeque};

use super::Seen;
use super::ledger::Ledger;
use crate::protocol::Time;
use crate::protocol::history::*;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Message {
    pub(super) number: u64,
    pub(super) key: u64,
}

/// What becomes of a slow client.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum OnSlow {
    Gap,
    Latest,
    Disconnect,
}

#[derive(Debug)]
pub(super) struct Rules {
    pub(super) bounds: Bounds,
    pub(super) on_slow: OnSlow,
    /// Of what is handed over under the lock.
    pub(super) at_once_bytes_max: usize,
    /// Of what a connection reads at once.
    pub(super) piece_bytes_max: usize,
    /// As many may wait for the client before it is passed over.
    pub(super) room_frames: usize,
    /// Of what a connection writes at once.
    pub(super) piece_frames_max: usize,
    /// With more the connection is closed.
    pub(super) outbox_frames_max: usize,
    pub(super) message_bytes_max: u64,
    pub(super) keys: u64,
}

#[derive(Clone, Debug)]
pub(super) enum Frame {
    Reply(Position),
    Broadcast(u64, Message),
    Gap(Gap),
}

/// A connection, as its number.
pub(super) type ConnId = usize;

/// A channel of a connection and what it is behind.
#[derive(Clone, Copy, Debug)]
struct Behind {
    after: u64,
    is_slow: bool,
}

#[derive(Debug)]
struct Conn {
    shard: usize,
    is_open: bool,
    /// What the client has not received.
    outbox: VecDeque<Frame>,
    /// While there are any, what the shard has yet to write goes first.
    fences: u32,
    /// The channel that is joined; each join makes another.
    channel: u64,
    /// What the shard has told: the channel fell behind an offset.
    mails: VecDeque<(u64, u64)>,
    /// Whether it was ever told so.
    was_slow: bool,
    behind: Option<Behind>,
}

#[derive(Clone, Debug)]
enum Command {
    Subscribe { conn: ConnId, channel: u64, reader: Reader, first: Vec<Frame> },
    Unsubscribe { conn: ConnId, channel: u64 },
    Unregister { conn: ConnId },
    CaughtUp { conn: ConnId, channel: u64, after: u64, last: Vec<Frame> },
    Publish { offset: u64, message: Message },
}

#[derive(Debug)]
struct Subscriber {
    conn: ConnId,
    channel: u64,
    reader: Reader,
}

#[derive(Debug, Default)]
struct Staged {
    frames: Vec<Frame>,
    fences: u32,
}

#[derive(Debug, Default)]
struct Shard {
    queue: VecDeque<Command>,
    subscribers: Vec<Subscriber>,
    /// What is written at the end of the batch.
    staged: BTreeMap<ConnId, Staged>,
}

pub(super) struct Server {
    pub(super) rules: Rules,
    pub(super) ledger: Ledger,
    now: Time,
    history: History<Message>,
    shards: Vec<Shard>,
    conns: Vec<Conn>,
}

impl Server {
    pub(super) fn new(rules: Rules, shards: usize, epoch: Epoch) -> Self {
        let now = Time(1_000);
        let mut ledger = Ledger::new(rules.bounds);
        ledger.begin(epoch, now);
        let shards = (0..shards).map(|_| Shard::default()).collect();
        Server { rules, ledger, now, history: History::new(epoch), shards, conns: Vec::new() }
    }

    pub(super) fn shards(&self) -> usize {
        self.shards.len()
    }

    pub(super) fn pass(&mut self, ms: u64) {
        self.now = self.now + ms;
    }

    /// Everything is lost but what clients have received.
    pub(super) fn restart(&mut self, epoch: Epoch) {
        self.stop();
        self.begin(epoch);
    }

    /// What is kept was stored and is read again.
    pub(super) fn restart_with_what_is_kept(&mut self) {
        self.stop();
        self.trim();
        let bytes = self.ledger.go_on(self.now);
        let kept = self.history.kept().zip(bytes).map(|((message, at), bytes)| (*message, bytes, at));
        self.history = History::resumed(self.history.epoch(), self.history.head(), kept.collect());
        self.trim();
    }

    fn stop(&mut self) {
        self.shards.iter_mut().for_each(|shard| *shard = Shard::default());
        self.conns.iter_mut().for_each(Conn::close);
    }

    /// The topic is forgotten if nobody holds it and nothing of it is left.
    pub(super) fn forget(&mut self, epoch: Epoch) -> bool {
        let idle_ms = self.now.0 - self.ledger.touched().0;
        let holds = |command: &Command| matches!(command, Command::Subscribe { .. });
        let is_held = self.conns.iter().any(|conn| conn.is_open)
            || self.shards.iter().any(|shard| !shard.subscribers.is_empty() || shard.queue.iter().any(holds));
        let is_over = self.history.head() == 0 || idle_ms >= self.rules.bounds.age_ms;
        if is_held || !is_over {
            return false;
        }
        self.begin(epoch);
        true
    }

    fn begin(&mut self, epoch: Epoch) {
        self.history = History::new(epoch);
        self.ledger.begin(epoch, self.now);
    }

    /// The topic gives way to others.
    pub(super) fn squeeze(&mut self) {
        self.trim();
        assert_eq!(self.history.let_go(), self.ledger.squeeze(self.now));
        self.trim();
    }

    /// Lets go of what is too old, as is done whenever the lock is taken, and looks whether what is kept is right.
    fn trim(&mut self) {
        self.history.trim(&self.rules.bounds, self.now);
        let (gone, bytes) = self.ledger.gone(self.now);
        let head = self.ledger.head();
        let kept = (self.history.epoch(), self.history.head(), self.history.len() as u64, self.history.bytes());
        assert_eq!(kept, (self.ledger.epoch(), head, head - gone, bytes));
        assert_eq!(self.history.is_empty(), gone == head);
    }

    pub(super) fn publish(&mut self, message: Message, bytes: usize) {
        let offset = self.history.append(message, bytes, &self.rules.bounds, self.now);
        assert_eq!(offset, self.ledger.publish(message, bytes, self.now));
        for shard in &mut self.shards {
            shard.queue.push_back(Command::Publish { offset, message });
        }
    }

    // ── connections ─────────────────────────────────────────────────────────────────────────────────────────────────

    pub(super) fn open(&mut self, shard: usize) -> ConnId {
        let (outbox, mails) = (VecDeque::new(), VecDeque::new());
        let conn = Conn { shard, is_open: true, outbox, fences: 0, channel: 0, mails, was_slow: false, behind: None };
        self.conns.push(conn);
        self.conns.len() - 1
    }

    pub(super) fn cut(&mut self, id: ConnId) {
        let conn = &mut self.conns[id];
        if conn.is_open {
            conn.close();
            self.shards[conn.shard].queue.push_back(Command::Unregister { conn: id });
        }
    }

    pub(super) fn is_open(&self, id: ConnId) -> bool {
        self.conns[id].is_open
    }

    /// Whether a client on this connection may be left only the latest.
    pub(super) fn may_thin(&self, id: ConnId) -> bool {
        self.rules.on_slow == OnSlow::Latest && self.conns[id].was_slow
    }

    /// Joins, and leaves what was joined before. Gives what the ledger promises the client.
    pub(super) fn join(&mut self, id: ConnId, resume: &Resume) -> (Position, Option<Gap>) {
        self.trim();
        let promised = self.ledger.promised(resume, self.now);
        let conn = &mut self.conns[id];
        assert!(conn.is_open);
        if conn.channel > 0 {
            conn.fences += 1;
            self.shards[conn.shard].queue.push_back(Command::Unsubscribe { conn: id, channel: conn.channel });
        }
        conn.channel += 1;

        let (after, gap) = self.history.start(resume);
        let position = match resume {
            Resume::FromNow => Position { epoch: self.history.epoch(), offset: after },
            Resume::After(position) => *position,
        };
        let mut first = vec![Frame::Reply(position)];
        first.extend(gap.map(Frame::Gap));
        let is_small = self.history.has_at_most(after, self.rules.at_once_bytes_max);
        let reader = if is_small {
            let behind = self.history.behind(after, usize::MAX).expect("it was counted");
            assert!(behind.is_all);
            first.extend(frames(behind.items));
            Reader::live(self.history.head())
        } else {
            Reader::behind(after)
        };
        conn.behind = (!is_small).then_some(Behind { after, is_slow: false });
        conn.fences += 1;
        let command = Command::Subscribe { conn: id, channel: conn.channel, reader, first };
        self.shards[conn.shard].queue.push_back(command);
        promised
    }

    pub(super) fn receive(&mut self, id: ConnId) -> Option<Frame> {
        let conn = &mut self.conns[id];
        assert!(conn.is_open || conn.outbox.is_empty(), "nothing is given after a cut");
        conn.outbox.pop_front()
    }

    /// The connection's task: hears what it is told, and catches up a piece if there is room and nothing goes first.
    pub(super) fn run(&mut self, id: ConnId, seen: &mut Seen) {
        let conn = &mut self.conns[id];
        while let Some((channel, after)) = conn.mails.pop_front() {
            if channel == conn.channel {
                assert!(conn.behind.is_none(), "it was live");
                conn.behind = Some(Behind { after, is_slow: true });
                conn.was_slow = true;
            }
        }
        if conn.fences == 0 && conn.outbox.len() <= self.rules.room_frames {
            self.catch_up(id, seen);
        }
    }

    fn catch_up(&mut self, id: ConnId, seen: &mut Seen) {
        let Some(Behind { after, is_slow }) = self.conns[id].behind else { return };
        self.trim();
        let is_thinned = is_slow && self.rules.on_slow == OnSlow::Latest;
        let bytes_max = if is_thinned { usize::MAX } else { self.rules.piece_bytes_max };
        let piece = self.history.behind(after, bytes_max);
        assert_eq!(piece.is_err(), after < self.ledger.gone(self.now).0, "a gap is one");
        let last = match piece {
            Err(gap) => vec![Frame::Gap(gap)],
            Ok(piece) => {
                assert!(!piece.items.is_empty() || piece.is_all, "at least one");
                let is_small = self.history.has_at_most(after, self.rules.at_once_bytes_max);
                let items = if is_thinned { thin(piece.items, |message| message.key) } else { piece.items };
                if !(piece.is_all && is_small) {
                    seen.pieces += 1;
                    let conn = &mut self.conns[id];
                    let written = frames(items).take(self.rules.piece_frames_max);
                    conn.outbox.extend(written);
                    assert!(conn.outbox.len() <= self.rules.outbox_frames_max);
                    let Some(Frame::Broadcast(offset, _)) = conn.outbox.back() else { panic!("there was one") };
                    conn.behind = Some(Behind { after: *offset, is_slow });
                    return;
                }
                frames(items).collect()
            }
        };
        seen.caught_up += 1;
        let conn = &mut self.conns[id];
        conn.behind = None;
        conn.fences += 1;
        let command = Command::CaughtUp { conn: id, channel: conn.channel, after: self.history.head(), last };
        self.shards[conn.shard].queue.push_back(command);
    }

    // ── shards ──────────────────────────────────────────────────────────────────────────────────────────────────────

    /// The shard obeys as many commands of its queue.
    pub(super) fn take(&mut self, shard: usize, times: u64, seen: &mut Seen) {
        for _ in 0..times {
            let Some(command) = self.shards[shard].queue.pop_front() else { return };
            self.obey(shard, command, seen);
        }
    }

    fn obey(&mut self, shard: usize, command: Command, seen: &mut Seen) {
        let Server { shards, conns, rules, .. } = self;
        let Shard { subscribers, staged, .. } = &mut shards[shard];
        match command {
            Command::Subscribe { conn, channel, reader, first } => {
                stage(staged, conn, first);
                subscribers.push(Subscriber { conn, channel, reader });
            }
            Command::Unsubscribe { conn, channel } => {
                stage(staged, conn, vec![]);
                subscribers.retain(|subscriber| (subscriber.conn, subscriber.channel) != (conn, channel));
            }
            Command::Unregister { conn } => {
                staged.remove(&conn);
                subscribers.retain(|subscriber| subscriber.conn != conn);
            }
            Command::CaughtUp { conn, channel, after, last } => {
                stage(staged, conn, last);
                let reader = subscribers.iter_mut().find(|one| (one.conn, one.channel) == (conn, channel));
                if let Some(subscriber) = reader {
                    subscriber.reader.caught_up(after);
                }
            }
            Command::Publish { offset, message } => {
                for Subscriber { conn, channel, reader } in subscribers {
                    let waiting = conns[*conn].outbox.len() + staged.get(conn).map_or(0, |staged| staged.frames.len());
                    let has_room = rules.on_slow == OnSlow::Disconnect || waiting < rules.room_frames;
                    let after = reader.after();
                    match reader.offer(offset, has_room) {
                        Offer::Give => {
                            staged.entry(*conn).or_default().frames.push(Frame::Broadcast(offset, message));
                        }
                        Offer::Skip => {}
                        Offer::FallBehind => {
                            seen.fell_behind += 1;
                            assert_eq!(reader.after(), after);
                            stage(staged, *conn, vec![]);
                            conns[*conn].fences += 1;
                            conns[*conn].mails.push_back((*channel, after));
                        }
                    }
                }
            }
        }
    }

    /// The end of a shard's batch: what is staged goes into the outboxes, and the fences with it.
    pub(super) fn write_out(&mut self, shard: usize, seen: &mut Seen) {
        for (id, Staged { frames, fences }) in std::mem::take(&mut self.shards[shard].staged) {
            let conn = &mut self.conns[id];
            if !conn.is_open {
                continue;
            }
            conn.fences -= fences;
            conn.outbox.extend(frames);
            if conn.outbox.len() > self.rules.outbox_frames_max {
                seen.overflows += 1;
                self.cut(id);
            }
        }
    }

    /// Whether nothing waits in any queue.
    pub(super) fn is_quiet(&self) -> bool {
        let is_idle = |shard: &Shard| shard.queue.is_empty() && shard.staged.is_empty();
        let is_calm = |conn: &Conn| !conn.is_open || (conn.outbox.is_empty() && conn.mails.is_empty());
        let is_quiet = self.shards.iter().all(is_idle) && self.conns.iter().all(is_calm);
        let mut subscribers = self.shards.iter().flat_map(|shard| &shard.subscribers);
        assert!(!is_quiet || subscribers.all(|one| self.is_open(one.conn)), "who is gone is forgotten");
        is_quiet
    }
}

impl Conn {
    fn close(&mut self) {
        self.is_open = false;
        self.outbox.clear();
        self.mails.clear();
        self.behind = None;
    }
}

/// Stages frames that came through the shard, and the fence that passes with them.
fn stage(staged: &mut BTreeMap<ConnId, Staged>, conn: ConnId, frames: Vec<Frame>) {
    let staged = staged.entry(conn).or_default();
    staged.frames.extend(frames);
    staged.fences += 1;
}

fn frames(items: Vec<(u64, Message)>) -> impl Iterator<Item = Frame> {
    items.into_iter().map(|(offset, message)| Frame::Broadcast(offset, message))
}
