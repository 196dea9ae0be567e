//! What a step finds around it: the values that its sources name, its arguments, its place.

use std::sync::Arc;

use serde_json::{Map, Value};

use super::{Failure, FailureKind, NodeId, Place, State, Stepper};
use crate::protocol::workflow::definition::{Items, StepIndex};
use crate::protocol::workflow::measure::json_bytes;
use crate::protocol::workflow::read::kind_of;
use crate::protocol::workflow::source::{Origin, Source};
use crate::protocol::workflow::{DEPTH_MAX, RUN_BYTES_MAX};

/// Values that a step maps together, as JSON.
const INPUT_BYTES_MAX: usize = 1 << 20;

/// A result, with its bytes as JSON.
#[derive(Clone, Debug)]
pub(super) struct Held {
    pub(super) value: Arc<Value>,
    pub(super) bytes: usize,
    /// Lists and objects within each other.
    pub(super) depth: usize,
}

impl Held {
    pub(super) fn new(value: Value, bytes: usize) -> Self {
        let depth = depth(&value);
        Held { value: Arc::new(value), bytes, depth }
    }

    /// One that stands somewhere already.
    pub(super) fn shared(value: &Arc<Value>) -> Self {
        Held { value: Arc::clone(value), bytes: json_bytes(value), depth: depth(value) }
    }

    pub(super) fn measured(value: Value) -> Self {
        let bytes = json_bytes(&value);
        Held::new(value, bytes)
    }
}

/// Lists and objects within each other; values come from JSON text or are checked, so that the recursion is short.
fn depth(value: &Value) -> usize {
    match value {
        Value::Array(items) => 1 + items.iter().map(depth).max().unwrap_or(0),
        Value::Object(fields) => 1 + fields.values().map(depth).max().unwrap_or(0),
        _ => 0,
    }
}

impl Stepper {
    /// Takes a value that the run is to hold.
    pub(super) fn hold(&mut self, id: NodeId, held: Held) -> Result<Held, Failure> {
        if held.depth > DEPTH_MAX {
            let text =
                format!("the result of a step is at most {DEPTH_MAX} lists and objects within each other, came more");
            return Err(Failure::new(FailureKind::Limit, text));
        }
        self.spend(held.bytes, id)?;
        Ok(held)
    }

    /// Counts bytes that the run holds, or held: results, and what repeats them.
    pub(super) fn spend(&mut self, bytes: usize, id: NodeId) -> Result<(), Failure> {
        self.bytes = self.bytes.saturating_add(bytes);
        if self.bytes > RUN_BYTES_MAX {
            let text = format!("the results of a run are together at most {RUN_BYTES_MAX} bytes, came more");
            let step = self.definition.step(self.node(id).step);
            return Err(Failure::new(FailureKind::Limit, text).at(&step.id));
        }
        Ok(())
    }

    pub(super) fn origin(&self, id: NodeId, origin: &Origin) -> Option<Arc<Value>> {
        match origin {
            Origin::Step(step) => self.result_of(id, *step),
            Origin::Input => self.node(id).within().map(|held| held.value),
            Origin::Item(of) => self.round(id, *of).and_then(|(at, place)| self.item(at, place)),
            Origin::Index(of) => self.round(id, *of).map(|(_, place)| Arc::new(place.into())),
            Origin::Last => match &self.node(id).state {
                State::Loop { last, next, .. } => {
                    let last = last.as_ref().filter(|_| *next > 0);
                    Some(last.map_or(Arc::new(Value::Null), |held| Arc::clone(&held.value)))
                }
                _ => None,
            },
            Origin::Condition => self.above(id).find_map(|(at, _)| match &self.node(at).state {
                State::Conditional { result } => result.as_ref().map(|held| Arc::clone(&held.value)),
                _ => None,
            }),
            Origin::Context => Some(Arc::clone(&self.context)),
            Origin::Trigger => {
                let near = self.above(id).find_map(|(at, _)| match &self.node(at).state {
                    State::Reacting { trigger } => Some(Arc::clone(trigger)),
                    _ => None,
                });
                Some(near.unwrap_or_else(|| Arc::clone(&self.trigger)))
            }
            Origin::Error => {
                let mut at = Some(id);
                while let Some(id) = at {
                    let node = self.node(id);
                    if let Some(error) = &node.error {
                        return Some(Arc::clone(error));
                    }
                    at = node.parent;
                }
                None
            }
        }
    }

    /// The nodes that a node lies within, from the innermost out, each with the place of what lies within it.
    fn above(&self, id: NodeId) -> impl Iterator<Item = (NodeId, usize)> {
        let mut at = self.node(id);
        std::iter::from_fn(move || {
            let parent = at.parent?;
            let place = at.place;
            at = self.node(parent);
            Some((parent, place))
        })
    }

    /// The loop that a node is in, and in which round. In its own `while` a loop is about to begin one.
    fn round(&self, id: NodeId, of: Option<StepIndex>) -> Option<(NodeId, usize)> {
        let own = match &self.node(id).state {
            State::Loop { next, .. } => Some((id, *next)),
            _ => None,
        };
        own.into_iter().chain(self.above(id)).find(|(at, place)| {
            let node = self.node(*at);
            *place != usize::MAX && matches!(node.state, State::Loop { .. }) && of.is_none_or(|step| step == node.step)
        })
    }

    pub(super) fn item(&self, id: NodeId, place: usize) -> Option<Arc<Value>> {
        match &self.node(id).state {
            State::Loop { items: Some(items), .. } => items.get(place).cloned(),
            State::Loop { items: None, .. } => Some(Arc::new(place.into())),
            _ => None,
        }
    }

    /// The result of a step that has ended, in the innermost surroundings that the node shares with it.
    fn result_of(&self, id: NodeId, step: StepIndex) -> Option<Arc<Value>> {
        let wanted = self.definition.step(step);
        let held =
            self.above(id).filter(|(at, _)| Some(self.node(*at).step) == wanted.parent).find_map(|(at, _)| match &self
                .node(at)
                .state
            {
                State::Sequence { kept, .. } => kept.get(&wanted.place),
                State::Parallel { results, .. } => results.get(&wanted.place),
                State::Conditional { result } => result.as_ref(),
                _ => None,
            });
        held.map(|held| Arc::clone(&held.value))
    }

    /// The values that a step maps.
    pub(super) fn mapped(&self, id: NodeId, input: &[(String, Source)]) -> Result<Map<String, Value>, Failure> {
        let mut mapped = Map::new();
        let mut bytes = 0;
        for (name, source) in input {
            let origin = self.origin(id, &source.origin);
            let Some(value) = source.at(origin.as_deref()) else {
                let text = format!("{name}: expected something at {}, came nothing", source.text);
                return Err(Failure::new(FailureKind::Invalid, text));
            };
            bytes += json_bytes(value);
            if bytes > INPUT_BYTES_MAX {
                let text = format!("input: expected at most {INPUT_BYTES_MAX} bytes together, came more");
                return Err(Failure::new(FailureKind::Limit, text));
            }
            mapped.insert(name.clone(), value.clone());
        }
        Ok(mapped)
    }

    /// The arguments that a tool gets if it takes them and the step does not give them.
    pub(super) fn implicit(&self, id: NodeId, given: &Map<String, Value>) -> Vec<(&'static str, Arc<Value>)> {
        let round = self.round(id, None);
        let found = [
            ("input", self.origin(id, &Origin::Input)),
            ("item", round.and_then(|(at, place)| self.item(at, place))),
            ("index", round.map(|(_, place)| Arc::new(place.into()))),
            ("condition_result", self.origin(id, &Origin::Condition)),
        ];
        let implicit = found.into_iter().filter(|(name, _)| !given.contains_key(*name));
        implicit.filter_map(|(name, value)| Some((name, value?))).collect()
    }

    /// The items of a loop, and how many rounds there are.
    #[expect(clippy::type_complexity, reason = "two things that belong together for one line")]
    pub(super) fn rounds(
        &mut self,
        id: NodeId,
        items: &Items,
        max: usize,
    ) -> Result<(Option<Arc<Vec<Arc<Value>>>>, usize), Failure> {
        let list = match items {
            Items::List(items) => Some(Arc::new(items.clone())),
            Items::Source(source) => {
                let origin = self.origin(id, &source.origin);
                let found = source.at(origin.as_deref());
                let Some(Value::Array(list)) = found else {
                    let came = found.map_or("nothing", kind_of);
                    let text = format!("items: expected a list at {}, came {came}", source.text);
                    return Err(Failure::new(FailureKind::Invalid, text));
                };
                self.spend(list.iter().map(json_bytes).sum(), id)?;
                Some(Arc::new(list.iter().cloned().map(Arc::new).collect()))
            }
            Items::Given => {
                let input = self.node(id).within().map(|held| held.value);
                let in_context = self.context.get("items");
                let list = input.as_deref().and_then(Value::as_array).or_else(|| in_context?.as_array());
                let list = list.map(|list| list.iter().cloned().map(Arc::new).collect::<Vec<_>>());
                if let Some(list) = &list {
                    self.spend(list.iter().map(|item| json_bytes(item)).sum(), id)?;
                }
                list.map(Arc::new)
            }
        };
        let rounds = list.as_ref().map_or(max, |list| list.len());
        if rounds > max {
            let text = format!("items: expected at most {max}, which is max_iterations, came {rounds}");
            return Err(Failure::new(FailureKind::Limit, text));
        }
        Ok((list, rounds))
    }

    /// Where a node is, for people.
    pub(super) fn place(&self, id: NodeId) -> Place {
        let node = self.node(id);
        let step = self.definition.step(node.step);
        let mut parts = vec![step.id.clone()];
        let mut at = node;
        while let Some(parent) = at.parent.map(|parent| self.node(parent)) {
            let above = self.definition.step(parent.step);
            let is_round = matches!(parent.state, State::Loop { .. }) && at.place != usize::MAX;
            let name = if is_round { format!("{}[{}]", above.id, at.place) } else { above.id.clone() };
            // The whole has no part in the path.
            if parent.parent.is_some() || is_round {
                parts.push(name);
            }
            at = parent;
        }
        parts.retain(|part| !part.is_empty());
        parts.reverse();
        Place { step: step.id.clone(), path: parts.join("/"), attempt: node.attempt }
    }
}
