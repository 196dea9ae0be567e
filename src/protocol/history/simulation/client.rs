//! A client that remembers its position as the contract says, and looks at each frame.

use std::collections::{BTreeMap, VecDeque};

use super::server::{ConnId, Frame, Server};
use super::{Dice, Seen};
use crate::protocol::history::*;

/// What was asked for with a join, and what the ledger promised.
#[derive(Debug)]
struct Asked {
    resume: Resume,
    /// Whether the client has been there.
    is_honest: bool,
    position: Position,
    gap: Option<Gap>,
}

#[derive(Debug, Default)]
pub(super) struct Client {
    conn: Option<ConnId>,
    last: Option<Position>,
    /// Where it has been.
    been: Vec<Position>,
    /// Joins without a reply.
    asked: VecDeque<Asked>,
    /// Whether there was a reply on this connection.
    is_joined: bool,
    /// What has to come next.
    promised: Option<Gap>,
    /// Of each key the offset of what was left out, until a later one comes in its stead.
    owed: BTreeMap<u64, u64>,
}

impl Client {
    /// Its connection is gone.
    pub(super) fn cut(&mut self) {
        self.conn = None;
        self.asked.clear();
        self.is_joined = false;
        self.promised = None;
    }

    pub(super) fn hang_up(&mut self, server: &mut Server) {
        if let Some(conn) = self.conn {
            server.cut(conn);
            assert!(server.receive(conn).is_none(), "nothing is given after a cut");
            self.cut();
        }
    }

    /// Connects if it isn't connected, and joins: mostly behind its last position.
    pub(super) fn connect(&mut self, server: &mut Server, dice: &mut Dice) {
        self.notice(server);
        if self.conn.is_none() {
            self.conn = Some(server.open(dice.index(server.shards())));
            self.join(server, dice);
        }
    }

    /// As [`Client::connect`], always behind its last position.
    pub(super) fn connect_on(&mut self, server: &mut Server, dice: &mut Dice) {
        self.notice(server);
        if self.conn.is_none() {
            let conn = server.open(dice.index(server.shards()));
            self.conn = Some(conn);
            let resume = self.last.map_or(Resume::FromNow, Resume::After);
            self.ask(server, conn, resume, true);
        }
    }

    /// Joins anew on the same connection, unless a join has yet to be answered.
    pub(super) fn rejoin(&mut self, server: &mut Server, dice: &mut Dice) -> bool {
        self.notice(server);
        let can = self.conn.is_some() && self.asked.is_empty();
        if can {
            self.join(server, dice);
        }
        can
    }

    /// The server may have closed the connection.
    fn notice(&mut self, server: &Server) {
        if self.conn.is_some_and(|conn| !server.is_open(conn)) {
            self.cut();
        }
    }

    fn join(&mut self, server: &mut Server, dice: &mut Dice) {
        let conn = self.conn.expect("it is connected");
        let (epoch, head) = (server.ledger.epoch(), server.ledger.head());
        let lie = |epoch, offset| (Resume::After(Position { epoch, offset }), false);
        let (resume, is_honest) = match dice.below(20) {
            0 => (Resume::FromNow, true),
            1 => lie(epoch, head + 1 + dice.below(5)),
            2 => lie(Epoch(dice.below(u64::MAX)), dice.below(head + 2)),
            3..8 if !self.been.is_empty() => {
                let back = 1 + dice.index(self.been.len().min(12));
                (Resume::After(self.been[self.been.len() - back]), true)
            }
            _ => (self.last.map_or(Resume::FromNow, Resume::After), true),
        };
        self.ask(server, conn, resume, is_honest);
    }

    fn ask(&mut self, server: &mut Server, conn: ConnId, resume: Resume, is_honest: bool) {
        let (position, gap) = server.join(conn, &resume);
        self.asked.push_back(Asked { resume, is_honest, position, gap });
    }

    pub(super) fn let_connection_run(&mut self, server: &mut Server, seen: &mut Seen) {
        self.notice(server);
        if let Some(conn) = self.conn {
            server.run(conn, seen);
        }
    }

    /// Whether it has everything, and is owed nothing.
    pub(super) fn has_all(&self, server: &Server) -> bool {
        let head = Position { epoch: server.ledger.epoch(), offset: server.ledger.head() };
        let has_all = self.conn.is_some_and(|conn| server.is_open(conn)) && self.last == Some(head);
        assert!(!(has_all && self.asked.is_empty()) || self.owed.is_empty(), "the last of a key: {:?}", self.owed);
        has_all && self.asked.is_empty()
    }

    /// Receives one frame. False if there is none.
    pub(super) fn receive(&mut self, server: &mut Server, seen: &mut Seen) -> bool {
        self.notice(server);
        let Some(conn) = self.conn else { return false };
        let Some(frame) = server.receive(conn) else { return false };
        match frame {
            Frame::Reply(position) => self.reply(position),
            Frame::Broadcast(offset, message) => {
                assert!(self.is_joined && self.promised.is_none(), "{self:?} got {offset}");
                let last = self.last.expect("the reply told one");
                assert_eq!(message, server.ledger.message(last.epoch, offset), "{self:?}");
                assert!(offset > last.offset, "{offset} is out of order: {self:?}");
                for skipped in last.offset + 1..offset {
                    assert!(server.may_thin(conn), "{offset} leaves out {skipped}: {self:?}");
                    seen.thinned += 1;
                    self.owed.insert(server.ledger.message(last.epoch, skipped).key, skipped);
                }
                self.owed.remove(&message.key);
                seen.given += 1;
                let position = Position { offset, ..last };
                seen.given_again += u64::from(self.been.contains(&position));
                self.stand(position);
            }
            Frame::Gap(gap) => {
                assert!(self.is_joined);
                if let Some(promised) = self.promised.take() {
                    assert_eq!(gap, promised);
                } else {
                    let Position { epoch, offset } = self.last.expect("the reply told one");
                    assert_eq!((gap.epoch, gap.from, gap.reason), (epoch, Some(offset), GapReason::Slow), "{self:?}");
                    assert!(gap.offset > offset, "{gap:?}: nothing is missed");
                }
                match gap.reason {
                    GapReason::Expired => seen.expired += 1,
                    GapReason::Epoch => seen.of_another_epoch += 1,
                    GapReason::Future => seen.of_the_future += 1,
                    GapReason::Slow => seen.slow += 1,
                }
                // It loads the topic's state anew, as it has to.
                self.owed.clear();
                self.stand(gap.position());
            }
        }
        true
    }

    fn reply(&mut self, position: Position) {
        assert!(self.promised.is_none(), "{self:?} got no gap");
        let asked = self.asked.pop_front().expect("it asked");
        assert_eq!(position, asked.position, "{asked:?}");
        match asked.resume {
            Resume::After(position) if asked.is_honest => self.owed.retain(|_, skipped| *skipped <= position.offset),
            _ => self.owed.clear(),
        }
        self.last = Some(position);
        self.is_joined = true;
        self.promised = asked.gap;
    }

    fn stand(&mut self, position: Position) {
        self.last = Some(position);
        self.been.push(position);
    }
}
