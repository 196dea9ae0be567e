//! How sequences, branches side by side and loops go on from one part to the next.

use std::sync::Arc;

use serde_json::{Map, Value, json};

use super::values::Held;
use super::{Action, Failure, Node, NodeId, State, Stepper, Told, Work};
use crate::protocol::workflow::definition::{Collect, Kind, StepIndex};

/// The place of the step that gets the results of all others.
const LAST: usize = usize::MAX;

impl Stepper {
    /// Begins as many branches or rounds as may be under way, or what comes after the last.
    pub(super) fn go_on(&mut self, id: NodeId) -> Result<(), Failure> {
        let definition = Arc::clone(&self.definition);
        match &definition.step(self.node(id).step).kind {
            Kind::Parallel { steps, merge, max_concurrent } => {
                loop {
                    let running = self.node(id).children.len();
                    let input = self.node(id).within();
                    let State::Parallel { next, .. } = &mut self.node_mut(id).state else { return Ok(()) };
                    let place = *next;
                    if place == steps.len() || running >= *max_concurrent {
                        break;
                    }
                    *next += 1;
                    self.spawn(steps[place], Some(id), place, input, None);
                }
                if self.node(id).children.is_empty() {
                    let all = self.branches(id, steps)?;
                    self.gather(id, *merge, all);
                }
                Ok(())
            }
            Kind::Loop { body, max_concurrent, condition, collect, aggregator, .. } => {
                loop {
                    let running = self.node(id).children.len();
                    let State::Loop { items, rounds, next, last, .. } = &self.node(id).state else { return Ok(()) };
                    let (place, is_over) = (*next, next == rounds);
                    if is_over || running >= *max_concurrent {
                        break;
                    }
                    let goes_on = condition
                        .as_ref()
                        .is_none_or(|condition| condition.holds(&|source| self.origin(id, &source.origin)));
                    // Of items each round gets its own; rounds that are only counted pass their result on.
                    let input = match items {
                        Some(items) => Some(Held::shared(&items[place])),
                        None if *max_concurrent == 1 => last.clone(),
                        None => self.node(id).within(),
                    };
                    let State::Loop { rounds, next, .. } = &mut self.node_mut(id).state else { return Ok(()) };
                    if !goes_on {
                        *rounds = place;
                        break;
                    }
                    *next += 1;
                    self.spawn(*body, Some(id), place, input, None);
                }
                if self.node(id).children.is_empty() {
                    let all = self.collected(id, *collect)?;
                    self.gather(id, *aggregator, all);
                }
                Ok(())
            }
            _ => Ok(()),
        }
    }

    /// Ends with all results, or gives them to the step that makes something of them.
    fn gather(&mut self, id: NodeId, by: Option<StepIndex>, all: Held) {
        match by {
            Some(step) => self.spawn(step, Some(id), LAST, Some(all), None),
            None => self.work.push_back(Work::End(id, Ok(all))),
        }
    }

    fn branches(&mut self, id: NodeId, steps: &[StepIndex]) -> Result<Held, Failure> {
        let State::Parallel { results, .. } = &self.node(id).state else { return Ok(Held::measured(Value::Null)) };
        let bytes: usize = results.values().map(|held| held.bytes).sum();
        let named = results.iter().map(|(place, held)| (self.definition.step(steps[*place]).id.clone(), held));
        let all: Map<_, _> = named.map(|(name, held)| (name, Value::clone(&held.value))).collect();
        let bytes = bytes + steps.iter().map(|step| self.definition.step(*step).id.len() + 4).sum::<usize>();
        self.hold(id, Held::new(Value::Object(all), bytes))
    }

    fn collected(&mut self, id: NodeId, collect: Collect) -> Result<Held, Failure> {
        let nothing = || Held::measured(Value::Null);
        let State::Loop { results, last, ended, .. } = &mut self.node_mut(id).state else { return Ok(nothing()) };
        Ok(match collect {
            Collect::None => Held::measured(json!({"iterations": ended})),
            Collect::Last => {
                let newest = results.pop_last().map(|(_, held)| held);
                newest.or_else(|| last.clone().filter(|_| *ended > 0)).unwrap_or_else(nothing)
            }
            Collect::All => {
                let results = std::mem::take(results);
                let bytes: usize = results.values().map(|held| held.bytes + 1).sum();
                let list = results.into_values().map(|held| Arc::unwrap_or_clone(held.value));
                let all = Held::new(list.collect(), bytes + 2);
                self.hold(id, all)?
            }
        })
    }

    /// A part of a node has given its result.
    pub(super) fn part_ended(&mut self, id: NodeId, child: &Node, held: Held) {
        let definition = Arc::clone(&self.definition);
        let kind = &definition.step(self.node(id).step).kind;
        if child.place == LAST {
            return self.work.push_back(Work::End(id, Ok(held)));
        }
        let is_wanted = definition.step(child.step).is_wanted;
        let value = Arc::clone(&held.value);
        let outcome = match (&mut self.node_mut(id).state, kind) {
            (State::Sequence { at, kept }, Kind::Sequential { steps, is_multi_tool }) => {
                if is_wanted {
                    kept.insert(child.place, held.clone());
                }
                *at += 1;
                let at = *at;
                if let Some(next) = steps.get(at) {
                    return self.spawn(*next, Some(id), at, Some(held), None);
                }
                let held = if *is_multi_tool { self.multi_tool(id, steps, &held) } else { Ok(held) };
                return self.work.push_back(Work::End(id, held));
            }
            (State::Parallel { results, .. }, Kind::Parallel { .. }) => {
                results.insert(child.place, held);
                let part = Value::from(definition.step(child.step).id.clone());
                self.tell_part(id, part, value);
                self.go_on(id)
            }
            (State::Loop { results, last, ended, .. }, Kind::Loop { collect, .. }) => {
                *ended += 1;
                *last = Some(held.clone());
                match collect {
                    Collect::All => drop(results.insert(child.place, held)),
                    // The rounds may end in any order.
                    Collect::Last if results.keys().next_back().is_none_or(|newest| *newest < child.place) => {
                        results.clear();
                        results.insert(child.place, held);
                    }
                    Collect::Last | Collect::None => {}
                }
                self.tell_part(id, child.place.into(), value);
                self.go_on(id)
            }
            // A branch of a condition, or what a trigger began.
            _ => return self.work.push_back(Work::End(id, Ok(held))),
        };
        if let Err(failure) = outcome {
            self.work.push_back(Work::End(id, Err(failure)));
        }
    }

    fn multi_tool(&mut self, id: NodeId, steps: &[StepIndex], held: &Held) -> Result<Held, Failure> {
        let tools = steps.iter().filter_map(|step| match &self.definition.step(*step).kind {
            Kind::Tool { tool, .. } => Some(tool.as_str()),
            _ => None,
        });
        let result = json!({
            "operation_type": "multi_tool",
            "status": "completed",
            "result": *held.value,
            "tools_executed": tools.collect::<Vec<_>>(),
        });
        self.hold(id, Held::measured(result))
    }

    fn tell_part(&mut self, id: NodeId, part: Value, result: Arc<Value>) {
        let place = self.place(id);
        self.actions.push_back(Action::Tell(Told::Part { place, part, result }));
    }
}
