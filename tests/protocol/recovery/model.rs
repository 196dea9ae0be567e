//! The slow and plain reading of what a log keeps: every message ever said, and each rule as a scan of all of them.

use bennu::protocol::mcp::recovery::{Class, EventLog, Position, RECOVERY_BYTES_MAX, RECOVERY_EVENTS_MAX};
use bytes::Bytes;

#[derive(Clone, Debug)]
pub struct Said {
    pub class: Class,
    pub text: Bytes,
    pub is_kept: bool,
}

/// All messages; the one at index 0 has position 1.
#[derive(Clone, Debug, Default)]
pub struct PlainLog {
    pub said: Vec<Said>,
    pub sent: usize,
    pub ever_sent: usize,
    pub acknowledged: usize,
}

impl PlainLog {
    pub fn say(&mut self, class: Class, text: Bytes) {
        self.said.push(Said { class, text, is_kept: true });
        loop {
            let kept: Vec<usize> = (0..self.said.len()).filter(|index| self.said[*index].is_kept).collect();
            let total: usize = kept.iter().map(|index| self.said[*index].text.len()).sum();
            if kept.len() <= RECOVERY_EVENTS_MAX && total <= RECOVERY_BYTES_MAX {
                return;
            }
            let is_droppable = |index: &&usize| matches!(self.said[**index].class, Class::Notification | Class::Event);
            let oldest_sent = kept.first().filter(|index| **index < self.sent);
            let Some(gone) = kept.iter().find(is_droppable).or(oldest_sent).copied() else { return };
            self.said[gone].is_kept = false;
        }
    }

    pub fn acknowledge(&mut self, position: u64) {
        let position = position as usize;
        if position <= self.ever_sent && position > self.acknowledged {
            self.acknowledged = position;
            self.said[..position].iter_mut().for_each(|said| said.is_kept = false);
        }
    }

    pub fn rewind(&mut self, position: Option<u64>) {
        match position.filter(|position| *position as usize <= self.ever_sent) {
            Some(position) => {
                self.acknowledge(position);
                self.sent = position as usize;
            }
            None => self.sent = self.acknowledged,
        }
    }

    /// All that waits is handed out up to a position.
    pub fn hand_out(&mut self, upto: u64) {
        self.sent = upto as usize;
        self.ever_sent = self.ever_sent.max(self.sent);
    }

    /// Whether a call that was asked under these ids has been answered.
    pub fn has_answer(&self, ids: &[u64]) -> bool {
        let answers = self.said.iter().filter(|said| said.class == Class::Response);
        answers.filter_map(|said| super::answered_id(&said.text)).any(|id| ids.contains(&id))
    }

    /// The positions that are kept.
    pub fn kept(&self) -> impl Iterator<Item = u64> {
        let kept = self.said.iter().enumerate().filter(|(_, said)| said.is_kept);
        kept.map(|(index, _)| index as u64 + 1)
    }

    pub fn check(&self, log: &EventLog) {
        for (index, said) in self.said.iter().enumerate() {
            assert_eq!(log.has(Position(index as u64 + 1)), said.is_kept, "position {}", index + 1);
        }
        let bytes = |said: &[Said]| said.iter().filter(|said| said.is_kept).map(|said| said.text.len()).sum::<usize>();
        assert_eq!((log.bytes(), log.waiting_bytes()), (bytes(&self.said), bytes(&self.said[self.sent..])));
        assert_eq!(log.last().0, self.said.len() as u64);
    }
}
