//! Which messages were settled lately.

use std::collections::{BTreeSet, VecDeque};

use super::Seq;

/// Numbers that are remembered. An acknowledgement of an older one can't be told from that of one that never was.
const REMEMBERED_MAX: usize = 1_024;

/// The numbers of the messages that were settled last.
#[derive(Debug, Default)]
pub(super) struct Recent {
    order: VecDeque<Seq>,
    seqs: BTreeSet<Seq>,
}

impl Recent {
    pub(super) fn insert(&mut self, seq: Seq) {
        if !self.seqs.insert(seq) {
            return;
        }
        self.order.push_back(seq);
        if self.order.len() > REMEMBERED_MAX
            && let Some(oldest) = self.order.pop_front()
        {
            self.seqs.remove(&oldest);
        }
    }

    pub(super) fn contains(&self, seq: Seq) -> bool {
        self.seqs.contains(&seq)
    }
}
