//! The machine as its driver has it: one run, what is under way in it, and what was written down.

mod bounds;
mod crashes;
mod flow;
mod once;
mod waiting;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use serde_json::{Value, json};

use super::model::{Dice, Inventor, Model, tool};
use super::*;
use crate::protocol::workflow::compile;

fn definition(value: &Value) -> Arc<Definition> {
    Arc::new(compile(value, &()).unwrap_or_else(|faults| panic!("{value}: {faults:?}")).0)
}

/// One run as its driver has it: what is under way, and what has been written down.
struct Run {
    definition: Arc<Definition>,
    beginning: Beginning,
    stepper: Stepper,
    journal: Vec<Event>,
    calls: BTreeMap<CallId, Call>,
    choices: BTreeSet<CallId>,
    watches: BTreeSet<WatchId>,
    /// With their milliseconds.
    timers: BTreeMap<TimerId, u64>,
    told: Vec<Told>,
    outcome: Option<Result<Arc<Value>, Failure>>,
    /// How often each step that runs once was begun, by its path.
    once: BTreeMap<String, usize>,
    begun: BTreeSet<CallId>,
}

impl Run {
    fn new(value: &Value, beginning: Beginning) -> Self {
        let definition = definition(value);
        let stepper = Stepper::new(Arc::clone(&definition), beginning.clone());
        let mut run = Run {
            definition,
            beginning,
            stepper,
            journal: Vec::new(),
            calls: BTreeMap::new(),
            choices: BTreeSet::new(),
            watches: BTreeSet::new(),
            timers: BTreeMap::new(),
            told: Vec::new(),
            outcome: None,
            once: BTreeMap::new(),
            begun: BTreeSet::new(),
        };
        run.obey();
        run
    }

    fn obey(&mut self) {
        while let Some(action) = self.stepper.next_action() {
            match action {
                Action::Call(call) => drop(self.calls.insert(call.call, call)),
                Action::Choose { call, .. } => drop(self.choices.insert(call)),
                Action::Watch { watch, .. } => drop(self.watches.insert(watch)),
                Action::Unwatch { watch } => assert!(self.watches.remove(&watch), "what is watched is let go once"),
                Action::Abandon { call } => {
                    assert!(self.calls.remove(&call).is_some() || self.choices.remove(&call), "of a call under way");
                }
                Action::Arm { timer, ms } => drop(self.timers.insert(timer, ms)),
                Action::Disarm { timer } => drop(self.timers.remove(&timer)),
                Action::Tell(told) => self.told.push(told),
                Action::Pause => {}
                Action::End(outcome) => {
                    assert!(self.outcome.is_none(), "a run ends once");
                    let left = (self.calls.len(), self.choices.len(), self.timers.len(), self.watches.len());
                    assert_eq!(left, (0, 0, 0, 0), "nothing is left under way");
                    self.outcome = Some(outcome);
                }
            }
        }
    }

    /// Notes that a call is made which may be made once, if that was not noted.
    fn begin_once(&mut self, id: CallId) -> bool {
        let call = &self.calls[&id];
        if !call.once || !self.begun.insert(id) {
            return false;
        }
        *self.once.entry(call.place.path.clone()).or_default() += 1;
        self.handle(Event::Begun { call: id });
        true
    }

    fn handle(&mut self, event: Event) {
        self.journal.push(event.clone());
        self.stepper.handle(event);
        self.obey();
    }

    /// Ends a call as the model's tools do.
    fn end_call(&mut self, id: CallId) {
        self.begin_once(id);
        let arguments = self.stepper.arguments(id).expect("it is under way");
        let call = self.calls.remove(&id).expect("it is under way");
        let outcome =
            arguments.and_then(|arguments| tool(&call, arguments).map_err(|(kind, text)| Failure::new(kind, text)));
        self.handle(match outcome {
            Ok(result) => Event::Returned { call: id, bytes: result.to_string().len(), result },
            Err(failure) => Event::Failed { call: id, failure },
        });
    }

    /// The process ends; another one goes on with what was written down.
    fn crash(&mut self) {
        self.stepper = Stepper::new(Arc::clone(&self.definition), self.beginning.clone());
        (self.calls, self.timers, self.outcome) = Default::default();
        let told = std::mem::take(&mut self.told);
        self.obey();
        let mut begun = BTreeSet::new();
        for event in self.journal.clone() {
            match &event {
                Event::Begun { call } => drop(begun.insert(*call)),
                Event::Returned { call, .. } | Event::Failed { call, .. } => drop(self.calls.remove(call)),
                Event::Elapsed { timer } => drop(self.timers.remove(timer)),
                _ => {}
            }
            self.stepper.handle(event);
            self.obey();
        }
        assert_eq!(self.told, told, "what was told is told again");
        let may_have_run: Vec<_> = self.calls.keys().copied().filter(|call| begun.contains(call)).collect();
        for call in may_have_run {
            self.calls.remove(&call);
            self.handle(Event::Failed { call, failure: Failure::may_have_run() });
        }
    }

    /// Lets calls and timers end in a random order, with a crash now and then.
    fn play(&mut self, dice: &mut Dice, crashes: bool) {
        let mut left = 20_000;
        while self.outcome.is_none() {
            left -= 1;
            assert!(left > 0, "it does not end");
            if crashes && dice.one_in(6) {
                self.crash();
                continue;
            }
            let waiting = self.calls.len() + self.timers.len();
            assert!(waiting > 0, "a run that has not ended waits for something");
            let at = dice.below(waiting);
            match self.calls.keys().nth(at).copied() {
                // Between the word that it begins and its end the process may die.
                Some(call) if self.begin_once(call) => {}
                Some(call) => self.end_call(call),
                None => {
                    let timer = *self.timers.keys().nth(at - self.calls.len()).expect("it is below their number");
                    self.timers.remove(&timer);
                    self.handle(Event::Elapsed { timer });
                }
            }
        }
    }
}

fn beginning() -> Beginning {
    Beginning { input: Some(json!({"a": 5})), context: json!({"a": 6, "b": [7]}), ..Beginning::default() }
}

/// Runs with the model's tools, one after another, and timers that run off when nothing else is left.
fn ended(value: &Value, beginning: Beginning) -> Run {
    let mut run = Run::new(value, beginning);
    while run.outcome.is_none() {
        if let Some(call) = run.calls.keys().next().copied() {
            run.end_call(call);
        } else {
            let (timer, _) = run.timers.pop_first().expect("it waits for something");
            run.handle(Event::Elapsed { timer });
        }
    }
    run
}

fn words(told: &[Told]) -> Vec<String> {
    let word = |told: &Told| match told {
        Told::Started(place) => format!("started {} {}", place.path, place.attempt),
        Told::Part { place, part, .. } => format!("part {} {part}", place.path),
        Told::Completed { place, .. } => format!("completed {}", place.path),
        Told::Failed { place, becomes, .. } => format!("{becomes} {}", place.path),
    };
    told.iter().map(word).collect()
}

/// What each step that has ended gave, by its path.
fn results(run: &Run) -> BTreeMap<String, Value> {
    let of = |told: &Told| match told {
        Told::Completed { place, result } => Some((place.path.clone(), Value::clone(result))),
        _ => None,
    };
    run.told.iter().filter_map(of).collect()
}
