//! How a node ends: its attempts, what stands in for it, what that means for the step it lies within, and what is let go.

use std::sync::Arc;

use serde_json::Value;

use super::values::Held;
use super::{Action, Failure, FailureKind, Node, NodeId, State, Stepper, Told, Work};
use crate::protocol::workflow::definition::{Condition, Kind, OnError};
use crate::protocol::workflow::expression::is_truthy;

impl Stepper {
    /// An attempt of a node has ended.
    pub(super) fn end(&mut self, id: NodeId, outcome: Result<Held, Failure>) {
        if !self.nodes.contains_key(&id) {
            return;
        }
        let definition = Arc::clone(&self.definition);
        let step = definition.step(self.node(id).step);
        let failure = match outcome {
            Ok(held) => return self.settle(id, Ok(held)),
            Err(failure) => failure.at(&step.id),
        };
        self.drop_below(id);
        self.let_go(id);
        let attempt = self.node(id).attempt;
        if attempt <= step.retry.max && failure.is_worth_another() {
            let delay_ms = step.retry.delay_ms(attempt);
            self.tell(id, |place| Told::Failed { place, failure, becomes: "retried" });
            let timer = self.arm(id, delay_ms);
            self.node_mut(id).state = State::Waiting(timer);
            return;
        }
        match &step.on_error {
            OnError::Fail => self.settle(id, Err(failure)),
            OnError::Value(value) => {
                self.tell(id, |place| Told::Failed { place, failure, becomes: "replaced" });
                let held = self.hold(id, Held::shared(value));
                self.end_quietly(id, held);
            }
            OnError::Step(step) => {
                let error = Arc::new(failure.to_value());
                self.tell(id, |place| Told::Failed { place, failure, becomes: "replaced" });
                let input = self.node(id).input.clone();
                self.node_mut(id).state = State::StoodIn;
                self.spawn(*step, Some(id), 0, input, Some(error));
            }
        }
    }

    /// A node has ended for good, and its watchers hear so.
    pub(super) fn settle(&mut self, id: NodeId, outcome: Result<Held, Failure>) {
        if !self.nodes.contains_key(&id) {
            return;
        }
        match &outcome {
            Ok(held) => {
                let result = Arc::clone(&held.value);
                self.tell(id, |place| Told::Completed { place, result });
            }
            Err(failure) => {
                let failure = failure.clone();
                self.tell(id, |place| Told::Failed { place, failure, becomes: "failed" });
            }
        }
        self.end_quietly(id, outcome);
    }

    pub(super) fn end_quietly(&mut self, id: NodeId, outcome: Result<Held, Failure>) {
        self.drop_below(id);
        self.let_go(id);
        let node = self.nodes.remove(&id).expect("a node that ends is there");
        let Some(parent) = node.parent else { return self.finish(outcome) };
        self.node_mut(parent).children.remove(&id);
        self.child_ended(parent, &node, outcome);
    }

    pub(super) fn child_ended(&mut self, id: NodeId, child: &Node, outcome: Result<Held, Failure>) {
        let definition = Arc::clone(&self.definition);
        let is_condition = match &definition.step(self.node(id).step).kind {
            Kind::Conditional { condition: Condition::Step(condition), .. } => *condition == child.step,
            _ => false,
        };
        let held = match (&self.node(id).state, outcome) {
            // Whatever it gave, this node's own attempts are over.
            (State::StoodIn, outcome) => return self.work.push_back(Work::Settle(id, outcome)),
            (_, Ok(held)) => held,
            // What the condition could not find out is a failure; what a tool refused is a no.
            (_, Err(failure)) if is_condition && failure.is_a_no() => Held::measured(Value::Bool(false)),
            (_, Err(failure)) => {
                // What has ended beside it ends for nothing: this node has failed.
                self.drop_below(id);
                return self.work.push_back(Work::End(id, Err(failure)));
            }
        };
        if is_condition {
            let holds = is_truthy(&held.value);
            return self.branch(id, held, holds);
        }
        self.part_ended(id, child, held);
    }

    /// Ends whatever lies below a node.
    pub(super) fn drop_below(&mut self, id: NodeId) {
        let mut doomed: Vec<_> = self.node(id).children.iter().copied().collect();
        let mut at = 0;
        while let Some(child) = doomed.get(at).copied() {
            doomed.extend(&self.node(child).children);
            at += 1;
        }
        // The innermost first, so that those are there that they lie within.
        for child in doomed.into_iter().rev() {
            if !matches!(self.node(child).state, State::Fresh | State::StoodIn) {
                let failure = Failure::new(FailureKind::Cancelled, "the workflow goes on without it");
                self.tell(child, |place| Told::Failed { place, failure, becomes: "cancelled" });
            }
            self.let_go(child);
            self.nodes.remove(&child);
        }
        self.node_mut(id).children.clear();
    }

    /// Takes back what a node waits for.
    pub(super) fn let_go(&mut self, id: NodeId) {
        let Some(node) = self.nodes.get_mut(&id) else { return };
        let timeout = node.timeout.take();
        let waits_for = match &node.state {
            State::Calling(call) | State::Choosing(call) => (Some(*call), None, None),
            State::Waiting(timer) | State::Delayed { timer, .. } => (None, Some(*timer), None),
            State::Watching(watch) => (None, None, Some(*watch)),
            _ => (None, None, None),
        };
        for timer in timeout.into_iter().chain(waits_for.1) {
            self.disarm(timer);
        }
        if let Some(call) = waits_for.0.filter(|call| self.calls.remove(call).is_some()) {
            self.actions.push_back(Action::Abandon { call });
        }
        if let Some(watch) = waits_for.2.filter(|watch| self.watches.remove(watch).is_some()) {
            self.actions.push_back(Action::Unwatch { watch });
        }
    }
}
