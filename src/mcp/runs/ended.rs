//! Ended runs in the order of their ends: of all, and of each caller.
//!
//! A run that makes room for its own caller's next one is somewhere in the middle of all, so all are a doubly linked list.
//! Of one caller only the oldest ever goes, which is what the oldest of all is too: that list needs one direction.

use std::collections::HashMap;
use std::sync::Arc;

use slab::Slab;

use crate::protocol::Time;

/// Who calls: the same user on another connection is someone else, for there may be one user for all.
pub(super) type Caller = (Arc<str>, u64);

/// The ended runs that can still be found.
pub(super) struct EndedRuns<R> {
    nodes: Slab<Node<R>>,
    all: Ends,
    callers: HashMap<Caller, Ends>,
    bytes: usize,
}

struct Node<R> {
    run: R,
    caller: Caller,
    ended: Time,
    bytes: usize,
    older: Option<usize>,
    newer: Option<usize>,
    /// The next one of the same caller.
    callers_newer: Option<usize>,
}

/// The ends of a list.
#[derive(Clone, Copy, Default)]
struct Ends {
    oldest: Option<usize>,
    newest: Option<usize>,
}

impl<R> Default for EndedRuns<R> {
    fn default() -> Self {
        EndedRuns { nodes: Slab::new(), all: Ends::default(), callers: HashMap::new(), bytes: 0 }
    }
}

impl<R> EndedRuns<R> {
    /// Bytes of all their logs.
    pub(super) fn bytes(&self) -> usize {
        self.bytes
    }

    /// Takes up a run that has just ended.
    pub(super) fn push(&mut self, run: R, caller: Caller, ended: Time, bytes: usize) {
        let older = self.all.newest;
        let node = Node { run, caller: caller.clone(), ended, bytes, older, newer: None, callers_newer: None };
        let at = self.nodes.insert(node);
        self.bytes += bytes;
        match older {
            Some(older) => self.nodes[older].newer = Some(at),
            None => self.all.oldest = Some(at),
        }
        self.all.newest = Some(at);
        let own = self.callers.entry(caller).or_default();
        match own.newest {
            Some(older) => self.nodes[older].callers_newer = Some(at),
            None => own.oldest = Some(at),
        }
        own.newest = Some(at);
    }

    /// When the oldest ended.
    pub(super) fn oldest_end(&self) -> Option<Time> {
        self.all.oldest.map(|at| self.nodes[at].ended)
    }

    /// Takes out the oldest of all.
    pub(super) fn pop(&mut self) -> Option<R> {
        self.all.oldest.map(|at| self.remove(at))
    }

    /// Takes out the oldest of a caller.
    pub(super) fn pop_of(&mut self, caller: &Caller) -> Option<R> {
        let at = self.callers.get(caller)?.oldest?;
        Some(self.remove(at))
    }

    /// Takes out a run that is its caller's oldest.
    fn remove(&mut self, at: usize) -> R {
        let node = self.nodes.remove(at);
        self.bytes -= node.bytes;
        match node.older {
            Some(older) => self.nodes[older].newer = node.newer,
            None => self.all.oldest = node.newer,
        }
        match node.newer {
            Some(newer) => self.nodes[newer].older = node.older,
            None => self.all.newest = node.older,
        }
        match (node.callers_newer, self.callers.get_mut(&node.caller)) {
            (Some(newer), Some(own)) => own.oldest = Some(newer),
            _ => drop(self.callers.remove(&node.caller)),
        }
        node.run
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[derive(Clone, Debug)]
    enum Step {
        Push(u64, usize),
        Pop,
        PopOf(u64),
    }

    fn steps() -> impl Strategy<Value = Vec<Step>> {
        let step = prop_oneof![
            3 => (0..3_u64, 0..9_usize).prop_map(|(caller, bytes)| Step::Push(caller, bytes)),
            1 => Just(Step::Pop),
            2 => (0..3_u64).prop_map(Step::PopOf),
        ];
        prop::collection::vec(step, 0..60)
    }

    proptest! {
        /// It does what a list does that is searched from its beginning.
        #[test]
        fn the_oldest_goes_first_of_all_and_of_each_caller(steps in steps()) {
            let caller = |number| (Arc::<str>::from("u"), number);
            let mut ended = EndedRuns::default();
            let mut model: Vec<(usize, u64, usize)> = Vec::new();
            for (run, step) in steps.into_iter().enumerate() {
                let (popped, expected) = match step {
                    Step::Push(of, bytes) => {
                        ended.push(run, caller(of), Time(run as u64), bytes);
                        model.push((run, of, bytes));
                        continue;
                    }
                    Step::Pop => (ended.pop(), (!model.is_empty()).then_some(0)),
                    Step::PopOf(of) => (ended.pop_of(&caller(of)), model.iter().position(|(_, other, _)| *other == of)),
                };
                prop_assert_eq!(popped, expected.map(|at| model.remove(at).0));
                prop_assert_eq!(ended.bytes(), model.iter().map(|(_, _, bytes)| bytes).sum::<usize>());
                prop_assert_eq!(ended.oldest_end(), model.first().map(|(run, ..)| Time(*run as u64)));
            }
            while let Some(run) = ended.pop() {
                prop_assert_eq!(run, model.remove(0).0);
            }
            prop_assert!(model.is_empty() && ended.callers.is_empty() && ended.nodes.is_empty());
        }
    }
}
