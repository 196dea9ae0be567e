//! The client of a session: what it has, and what it holds the server to.

use std::collections::{BTreeMap, BTreeSet};

use bennu::protocol::mcp::recovery::{Class, Gap, Sending};
use bytes::Bytes;

/// What travels from the server to a client.
#[derive(Clone, Debug)]
pub enum Frame {
    /// The reply to the join: what the client has from here on, and its next token.
    Joined {
        position: u64,
        serial: u64,
    },
    Gap(Gap),
    Message(Sending),
    Token(u64),
}

/// What the client knows, whatever its connections.
#[derive(Default)]
pub struct Client {
    /// The last position received.
    pub position: u64,
    /// The same, or the end of what was told to be missing behind it.
    pub passed: u64,
    /// Tokens that have come, oldest first.
    pub tokens: Vec<u64>,
    /// A gap that was told and is not passed, and how many are still to be missed.
    gap: Option<(Gap, u64)>,
    /// All messages that have come.
    pub seen: BTreeMap<u64, Bytes>,
    /// The ids of requests that have been answered.
    pub answered: BTreeSet<u64>,
}

impl Client {
    pub fn receive(&mut self, frame: Frame) {
        match frame {
            Frame::Joined { position, serial } => {
                self.gap = None;
                (self.position, self.passed) = (position, position);
                self.take_token(serial);
            }
            Frame::Token(serial) => self.take_token(serial),
            Frame::Gap(gap) => {
                self.pass_gap();
                assert!(gap.from > self.passed && gap.dropped <= gap.to - gap.from + 1, "{gap:?} at {}", self.passed);
                self.gap = Some((gap, gap.dropped));
            }
            Frame::Message(message) => {
                let position = message.position.0;
                if message.class == Class::Response {
                    self.answered.extend(super::answered_id(&message.text));
                }
                let seen = self.seen.entry(position).or_insert_with(|| message.text.clone());
                assert_eq!(*seen, message.text, "{position} has come with another message");
                assert!(position > self.passed, "{position} after {}", self.passed);
                let missed = position - self.passed - 1;
                if missed > 0 {
                    let (gap, left) = self.gap.as_mut().expect("nothing is missing unless a gap says so");
                    assert!(gap.from <= self.passed + 1 && gap.to >= position - 1, "{gap:?} and {position}");
                    *left = left.checked_sub(missed).expect("no more is missing than was told");
                }
                (self.position, self.passed) = (position, position);
                if self.gap.as_ref().is_some_and(|(gap, _)| gap.to < position) {
                    self.pass_gap();
                }
            }
        }
    }

    fn take_token(&mut self, serial: u64) {
        assert!(self.tokens.last().is_none_or(|last| *last < serial), "{serial} is a token that has come");
        self.tokens.push(serial);
    }

    /// As many are missing as was told, those behind the last message included.
    pub fn pass_gap(&mut self) {
        if let Some((gap, left)) = self.gap.take() {
            assert_eq!(left, gap.to.saturating_sub(self.passed.max(gap.from - 1)), "{gap:?} at {}", self.passed);
            self.passed = self.passed.max(gap.to);
        }
    }

    /// All that is on the way was lost with the connection.
    pub fn lose(&mut self) {
        self.gap = None;
    }
}
