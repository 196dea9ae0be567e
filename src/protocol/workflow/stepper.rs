//! The machine of one run: events in, actions out.
//!
//! ```text
//! a step:   begun ─► (its kind's own work) ─► ended
//!             ▲                                 │ failed, and attempts are left
//!             └────────── waiting ◄─────────────┘
//!                                               │ failed, and another step stands in
//!                                               └─► that step ─► ended
//! ```
//!
//! A step that is under way is a *node*. A node ends once; what still comes for one that has ended is ignored. Nothing
//! depends on anything but the events and their order.

mod actions;
mod bodies;
mod ends;
mod values;

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::sync::Arc;

use serde_json::{Value, json};

pub use actions::{Action, Arguments, Call, CallId, Event, Failure, FailureKind, Place, TimerId, Told, WatchId};
use values::Held;

use super::definition::{Condition, Definition, Kind, StepIndex};
use super::source::{Origin, Source};
use super::trigger::Trigger;
use super::{NODES_MAX, STARTS_MAX};

/// What a run begins with.
#[derive(Clone, Debug, Default)]
pub struct Beginning {
    /// `$input`, if there is any.
    pub input: Option<Value>,
    /// `$context`.
    pub context: Value,
    /// `$trigger`; null where a caller began the run.
    pub trigger: Value,
    /// Which workflow of a reactive one begins, by its place.
    pub workflow: usize,
}

/// One run of a definition.
#[derive(Clone, Debug)]
pub struct Stepper {
    definition: Arc<Definition>,
    context: Arc<Value>,
    trigger: Arc<Value>,
    workflow: usize,
    nodes: BTreeMap<NodeId, Node>,
    /// Which node waits for what.
    calls: BTreeMap<CallId, NodeId>,
    timers: BTreeMap<TimerId, NodeId>,
    watches: BTreeMap<WatchId, NodeId>,
    /// Of steps that run once: by their place in the run, loop rounds included.
    once: BTreeMap<OnceKey, Once>,
    last_id: u64,
    starts: usize,
    bytes: usize,
    work: VecDeque<Work>,
    actions: VecDeque<Action>,
    has_ended: bool,
    /// Pieces of work done so far.
    in_a_row: usize,
}

/// Pieces of work between two pauses.
const WORK_PER_PAUSE: usize = 1_000;

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
struct NodeId(u64);

/// A step under way.
#[derive(Clone, Debug)]
struct Node {
    step: StepIndex,
    parent: Option<NodeId>,
    /// Its number among what the parent runs: a branch, a round.
    place: usize,
    /// What comes as `input`.
    input: Option<Held>,
    /// What the step makes of that for the steps within.
    mapped: Option<Held>,
    /// `$error`, in the step that stands in for another.
    error: Option<Arc<Value>>,
    attempt: u32,
    children: BTreeSet<NodeId>,
    timeout: Option<TimerId>,
    state: State,
}

impl Node {
    /// What the steps within get as `input`.
    fn within(&self) -> Option<Held> {
        self.mapped.as_ref().or(self.input.as_ref()).cloned()
    }
}

#[derive(Clone, Debug)]
enum State {
    /// To be begun.
    Fresh,
    /// A tool is called.
    Calling(CallId),
    /// A tool is being chosen.
    Choosing(CallId),
    /// Until the next attempt.
    Waiting(TimerId),
    /// Another step stands in for this one, which failed.
    StoodIn,
    Sequence {
        at: usize,
        /// Results that later steps ask for, by place.
        kept: BTreeMap<usize, Held>,
    },
    Parallel {
        next: usize,
        results: BTreeMap<usize, Held>,
    },
    Conditional {
        result: Option<Held>,
    },
    Loop {
        /// None where rounds are only counted.
        items: Option<Arc<Vec<Arc<Value>>>>,
        rounds: usize,
        next: usize,
        results: BTreeMap<usize, Held>,
        /// The newest result, for the next round.
        last: Option<Held>,
        ended: usize,
    },
    /// For a trigger.
    Watching(WatchId),
    /// From the trigger to its workflow.
    Delayed {
        timer: TimerId,
        trigger: Arc<Value>,
        workflow: usize,
    },
    Reacting {
        trigger: Arc<Value>,
    },
}

#[derive(Clone, Debug)]
enum Once {
    /// How it ended is not known, or not yet.
    Begun,
    Ended(Result<Held, Failure>),
}

#[derive(Clone, Debug)]
enum Work {
    Begin(NodeId),
    /// With what it gave, which attempts and stand-ins may still change.
    End(NodeId, Result<Held, Failure>),
    /// With what it gives for good.
    Settle(NodeId, Result<Held, Failure>),
}

impl Stepper {
    /// A run that is about to begin.
    pub fn new(definition: Arc<Definition>, beginning: Beginning) -> Self {
        let mut stepper = Stepper {
            definition,
            context: Arc::new(beginning.context),
            trigger: Arc::new(beginning.trigger),
            workflow: beginning.workflow,
            nodes: BTreeMap::new(),
            calls: BTreeMap::new(),
            timers: BTreeMap::new(),
            watches: BTreeMap::new(),
            once: BTreeMap::new(),
            last_id: 0,
            starts: 0,
            bytes: 0,
            work: VecDeque::new(),
            actions: VecDeque::new(),
            has_ended: false,
            in_a_row: 0,
        };
        stepper.spawn(0, None, 0, beginning.input.map(Held::measured), None);
        stepper
    }

    /// Takes in what happened. What has no node any more is ignored.
    pub fn handle(&mut self, event: Event) {
        if self.has_ended {
            return;
        }
        match event {
            Event::Begun { call } => self.begun(call),
            Event::Returned { call, result, bytes } => {
                if let Some(id) = self.called(call) {
                    let outcome = self.hold(id, Held::new(result, bytes));
                    self.end_call(id, outcome);
                }
            }
            Event::Failed { call, failure } => {
                if let Some(id) = self.called(call) {
                    self.end_call(id, Err(failure));
                }
            }
            Event::Chosen { call, tool } => {
                if let Some(id) = self.called(call) {
                    self.chosen(id, tool);
                }
            }
            Event::Elapsed { timer } => {
                if let Some(id) = self.timers.remove(&timer) {
                    self.elapsed(id, timer);
                }
            }
            Event::Fired { watch, trigger, value } => {
                if let Some(id) = self.watches.get(&watch).copied() {
                    self.fired(id, trigger, value);
                }
            }
            Event::Stopped { failure } => self.stop(failure),
        }
    }

    /// What is to be done next; none until something happens, or where the run has ended.
    pub fn next_action(&mut self) -> Option<Action> {
        loop {
            if let Some(action) = self.actions.pop_front() {
                return Some(action);
            }
            let work = self.work.pop_front()?;
            self.in_a_row += 1;
            if self.in_a_row.is_multiple_of(WORK_PER_PAUSE) {
                self.actions.push_back(Action::Pause);
            }
            match work {
                Work::Begin(id) => self.begin(id),
                Work::End(id, outcome) => self.end(id, outcome),
                Work::Settle(id, outcome) => self.settle(id, outcome),
            }
        }
    }

    /// Whether it has ended.
    pub fn has_ended(&self) -> bool {
        self.has_ended
    }

    /// The id of the step that a call under way is of.
    pub fn step_of(&self, call: CallId) -> Option<&str> {
        let node = self.nodes.get(self.calls.get(&call)?)?;
        Some(&self.definition.step(node.step).id)
    }

    /// Steps under way.
    pub fn under_way(&self) -> usize {
        self.nodes.len()
    }

    fn stop(&mut self, failure: Failure) {
        self.work.clear();
        let root = self.nodes.keys().next().copied();
        if let Some(root) = root {
            self.drop_below(root);
            self.let_go(root);
            self.nodes.remove(&root);
        }
        self.finish(Err(failure));
    }

    fn finish(&mut self, outcome: Result<Held, Failure>) {
        self.has_ended = true;
        self.work.clear();
        self.actions.push_back(Action::End(outcome.map(|held| held.value)));
    }

    fn fresh_id(&mut self) -> u64 {
        self.last_id += 1;
        self.last_id
    }

    fn node(&self, id: NodeId) -> &Node {
        &self.nodes[&id]
    }

    fn node_mut(&mut self, id: NodeId) -> &mut Node {
        self.nodes.get_mut(&id).expect("work is done for nodes that are there")
    }

    fn spawn(
        &mut self,
        step: StepIndex,
        parent: Option<NodeId>,
        place: usize,
        input: Option<Held>,
        error: Option<Arc<Value>>,
    ) {
        let id = NodeId(self.fresh_id());
        if let Some(parent) = parent {
            self.node_mut(parent).children.insert(id);
        }
        let state = State::Fresh;
        let children = BTreeSet::new();
        self.nodes.insert(
            id,
            Node { step, parent, place, input, mapped: None, error, attempt: 1, children, timeout: None, state },
        );
        self.work.push_back(Work::Begin(id));
    }

    fn begin(&mut self, id: NodeId) {
        if !self.nodes.contains_key(&id) {
            return;
        }
        let definition = Arc::clone(&self.definition);
        let step = definition.step(self.node(id).step);
        self.starts += 1;
        if self.starts > STARTS_MAX || self.nodes.len() > NODES_MAX {
            let text = format!("expected at most {STARTS_MAX} steps in a run, and {NODES_MAX} at once, came more");
            return self.stop(Failure::new(FailureKind::Limit, text));
        }
        self.tell(id, Told::Started);
        if let (Some(ms), true) = (step.timeout_ms, self.node(id).timeout.is_none()) {
            let timer = self.arm(id, ms);
            self.node_mut(id).timeout = Some(timer);
        }
        let begun = match &step.kind {
            Kind::Tool { tool, .. } => self.begin_call(id, tool.clone()),
            Kind::Sampling { prompt, tools, .. } => self.begin_choice(id, prompt, tools),
            _ => self.begin_body(id),
        };
        if let Err(failure) = begun {
            self.work.push_back(Work::End(id, Err(failure)));
        }
    }

    /// Gives a node an input of its own making, if its step maps one.
    fn begin_body(&mut self, id: NodeId) -> Result<(), Failure> {
        let definition = Arc::clone(&self.definition);
        let step = definition.step(self.node(id).step);
        if !step.input.is_empty() && self.node(id).mapped.is_none() {
            let mapped = self.mapped(id, &step.input)?;
            let held = self.hold(id, Held::measured(Value::Object(mapped)))?;
            self.node_mut(id).mapped = Some(held);
        }
        match &step.kind {
            Kind::Tool { .. } | Kind::Sampling { .. } => Ok(()),
            Kind::Sequential { steps, .. } => {
                self.node_mut(id).state = State::Sequence { at: 0, kept: BTreeMap::new() };
                let input = self.node(id).within();
                self.spawn(steps[0], Some(id), 0, input, None);
                Ok(())
            }
            Kind::Parallel { .. } => {
                self.node_mut(id).state = State::Parallel { next: 0, results: BTreeMap::new() };
                self.go_on(id)
            }
            Kind::Conditional { condition, .. } => match condition {
                Condition::Step(condition) => {
                    self.node_mut(id).state = State::Conditional { result: None };
                    let input = self.node(id).within();
                    self.spawn(*condition, Some(id), 0, input, None);
                    Ok(())
                }
                Condition::Expression(expression) => {
                    let holds = expression.holds(&|source| self.origin(id, &source.origin));
                    self.branch(id, Held::measured(Value::Bool(holds)), holds);
                    Ok(())
                }
            },
            Kind::Loop { items, max_iterations, .. } => {
                let (items, rounds) = self.rounds(id, items, *max_iterations)?;
                let last = self.node(id).within().filter(|_| items.is_none());
                let results = BTreeMap::new();
                self.node_mut(id).state = State::Loop { items, rounds, next: 0, results, last, ended: 0 };
                self.go_on(id)
            }
            Kind::Reactive { workflows, .. } => {
                // Whoever executes the whole is its trigger; a trigger that began the run says which workflow.
                if self.node(id).parent.is_none() {
                    let at = self.workflow.min(workflows.len() - 1);
                    let trigger = Arc::clone(&self.trigger);
                    self.react(id, trigger, at);
                    return Ok(());
                }
                let watch = WatchId(self.fresh_id());
                self.watches.insert(watch, id);
                self.node_mut(id).state = State::Watching(watch);
                self.actions.push_back(Action::Watch { watch, step: self.node(id).step });
                Ok(())
            }
        }
    }

    fn arm(&mut self, id: NodeId, ms: u64) -> TimerId {
        let timer = TimerId(self.fresh_id());
        self.timers.insert(timer, id);
        self.actions.push_back(Action::Arm { timer, ms });
        timer
    }

    fn disarm(&mut self, timer: TimerId) {
        if self.timers.remove(&timer).is_some() {
            self.actions.push_back(Action::Disarm { timer });
        }
    }

    /// The node that waits for a call, which it does no longer.
    fn called(&mut self, call: CallId) -> Option<NodeId> {
        self.calls.remove(&call)
    }

    fn begin_call(&mut self, id: NodeId, tool: String) -> Result<(), Failure> {
        let once = self.definition.step(self.node(id).step).run_once;
        if once {
            match self.once.get(&self.once_key(id)) {
                Some(Once::Ended(outcome)) => {
                    let outcome = outcome.clone();
                    self.work.push_back(Work::End(id, outcome));
                    return Ok(());
                }
                Some(Once::Begun) => return Err(Failure::may_have_run()),
                None => {}
            }
        }
        let call = CallId(self.fresh_id());
        self.calls.insert(call, id);
        self.node_mut(id).state = State::Calling(call);
        let place = self.place(id);
        self.actions.push_back(Action::Call(Call { call, place, tool, once }));
        Ok(())
    }

    /// The arguments of a call that is about to be made: those that the definition gives, and further ones for tools that take
    /// them. None where it is wanted no longer.
    ///
    /// # Errors
    /// Something that the step needs is not there; to be reported as [`Event::Failed`].
    pub fn arguments(&self, call: CallId) -> Option<Result<Arguments, Failure>> {
        let id = *self.calls.get(&call)?;
        let step = self.definition.step(self.node(id).step);
        let (Kind::Tool { params, .. } | Kind::Sampling { params, .. }) = &step.kind else { return None };
        Some(self.mapped(id, &step.input).map(|mapped| {
            let mut given = params.clone();
            given.extend(mapped);
            Arguments { further: self.implicit(id, &given), given }
        }))
    }

    /// Notes that a call is being made which may be made once.
    fn begun(&mut self, call: CallId) {
        if let Some(id) = self.calls.get(&call).copied() {
            let key = self.once_key(id);
            self.once.insert(key, Once::Begun);
        }
    }

    fn begin_choice(&mut self, id: NodeId, prompt: &Value, tools: &[Value]) -> Result<(), Failure> {
        let step = self.definition.step(self.node(id).step);
        if step.run_once && self.once.contains_key(&self.once_key(id)) {
            return self.begin_call(id, String::new());
        }
        let call = CallId(self.fresh_id());
        self.calls.insert(call, id);
        self.node_mut(id).state = State::Choosing(call);
        self.actions.push_back(Action::Choose { call, prompt: prompt.clone(), tools: tools.to_vec() });
        Ok(())
    }

    fn chosen(&mut self, id: NodeId, tool: String) {
        let definition = Arc::clone(&self.definition);
        let Kind::Sampling { executes, .. } = &definition.step(self.node(id).step).kind else { return };
        if !executes {
            let held = Held::measured(json!({"selected_tool": tool}));
            return self.work.push_back(Work::End(id, Ok(held)));
        }
        if let Err(failure) = self.begin_call(id, tool) {
            self.work.push_back(Work::End(id, Err(failure)));
        }
    }

    fn end_call(&mut self, id: NodeId, outcome: Result<Held, Failure>) {
        let node = self.node(id);
        if self.definition.step(node.step).run_once && matches!(node.state, State::Calling(_)) {
            let key = self.once_key(id);
            // What a crash or the caller cut off may have run.
            let is_known = outcome.as_ref().err().is_none_or(|failure| failure.kind != FailureKind::Interrupted);
            if is_known {
                self.once.insert(key, Once::Ended(outcome.clone()));
            }
        }
        self.work.push_back(Work::End(id, outcome));
    }

    fn elapsed(&mut self, id: NodeId, timer: TimerId) {
        let node = self.node(id);
        if node.timeout == Some(timer) {
            let ms = self.definition.step(node.step).timeout_ms.unwrap_or_default();
            self.node_mut(id).timeout = None;
            let failure = Failure::new(FailureKind::Timeout, format!("timed out after {ms} ms"));
            self.drop_below(id);
            self.let_go(id);
            return self.work.push_back(Work::End(id, Err(failure)));
        }
        match &node.state {
            State::Waiting(waiting) if *waiting == timer => {
                let node = self.node_mut(id);
                node.state = State::Fresh;
                node.attempt += 1;
                self.work.push_back(Work::Begin(id));
            }
            State::Delayed { timer: delay, trigger, workflow } if *delay == timer => {
                let (trigger, workflow) = (Arc::clone(trigger), *workflow);
                self.react(id, trigger, workflow);
            }
            _ => {}
        }
    }

    fn fired(&mut self, id: NodeId, trigger: usize, value: Value) {
        let definition = Arc::clone(&self.definition);
        let State::Watching(watch) = self.node(id).state else { return };
        let Kind::Reactive { triggers, .. } = &definition.step(self.node(id).step).kind else { return };
        let Some(fired) = triggers.get(trigger).filter(|trigger| trigger.is_active) else { return };
        let value = Arc::new(value);
        if !self.heeds(id, fired, &value) {
            return;
        }
        self.watches.remove(&watch);
        self.actions.push_back(Action::Unwatch { watch });
        if fired.delay_ms == 0 {
            return self.react(id, value, fired.workflow);
        }
        let timer = self.arm(id, fired.delay_ms);
        self.node_mut(id).state = State::Delayed { timer, trigger: value, workflow: fired.workflow };
    }

    fn heeds(&self, id: NodeId, trigger: &Trigger, value: &Arc<Value>) -> bool {
        let find = |source: &Source| match &source.origin {
            Origin::Trigger => Some(Arc::clone(value)),
            origin => self.origin(id, origin),
        };
        trigger.is_active && trigger.condition.as_ref().is_none_or(|condition| condition.holds(&find))
    }

    /// Whether a trigger's event would go anywhere: what would not need not be written down.
    pub fn fires(&self, watch: WatchId, trigger: usize, value: &Value) -> bool {
        let Some(id) = self.watches.get(&watch).copied() else { return false };
        let Kind::Reactive { triggers, .. } = &self.definition.step(self.node(id).step).kind else { return false };
        triggers.get(trigger).is_some_and(|trigger| self.heeds(id, trigger, &Arc::new(value.clone())))
    }

    fn react(&mut self, id: NodeId, trigger: Arc<Value>, workflow: usize) {
        let definition = Arc::clone(&self.definition);
        let Kind::Reactive { workflows, .. } = &definition.step(self.node(id).step).kind else { return };
        let input = self.node(id).within();
        self.node_mut(id).state = State::Reacting { trigger };
        self.spawn(workflows[workflow].1, Some(id), workflow, input, None);
    }

    /// Goes into a branch, or ends with the condition's result where there is nothing to do.
    fn branch(&mut self, id: NodeId, result: Held, holds: bool) {
        let definition = Arc::clone(&self.definition);
        let Kind::Conditional { success, failure, .. } = &definition.step(self.node(id).step).kind else { return };
        let branch = if holds { *success } else { *failure };
        self.node_mut(id).state = State::Conditional { result: Some(result.clone()) };
        match branch {
            Some(branch) => {
                let input = self.node(id).within();
                self.spawn(branch, Some(id), 1, input, None);
            }
            None => self.work.push_back(Work::End(id, Ok(result))),
        }
    }

    /// Tells those who watch, unless the step has no name or is the whole.
    fn tell(&mut self, id: NodeId, told: impl FnOnce(Place) -> Told) {
        let node = self.node(id);
        if node.parent.is_some() && !self.definition.step(node.step).id.is_empty() {
            let told = told(self.place(id));
            self.actions.push_back(Action::Tell(told));
        }
    }

    /// What a step that runs once is known by: its place in the definition, and the rounds that it lies within, each with its
    /// item, since a list may be another when a loop begins again.
    fn once_key(&self, id: NodeId) -> OnceKey {
        let mut rounds = Vec::new();
        let mut at = self.node(id);
        while let Some(above) = at.parent {
            let parent = self.node(above);
            if matches!(parent.state, State::Loop { .. }) {
                let item = self.item(above, at.place);
                let text = item.map_or_else(String::new, |item| item.to_string());
                rounds.push((at.place, fnv(&text)));
            }
            at = parent;
        }
        (self.node(id).step, rounds)
    }
}

/// A step, and the rounds around it with a digest of their items.
type OnceKey = (StepIndex, Vec<(usize, u64)>);

/// A digest that is the same in each process. Source: FNV-1a.
fn fnv(text: &str) -> u64 {
    text.bytes().fold(0xcbf2_9ce4_8422_2325, |hash, byte| (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3))
}

#[cfg(test)]
mod model;
#[cfg(test)]
mod tests;
