//! What a definition comes to, as a plain recursion that knows no events; and definitions made at random.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use serde_json::{Map, Value, json};

use super::{Arguments, Call, FailureKind};
use crate::protocol::workflow::definition::{Collect, Condition, Definition, Items, Kind, OnError, StepIndex};
use crate::protocol::workflow::expression::is_truthy;
use crate::protocol::workflow::source::{Origin, Source};

/// A source of choices that is the same for the same seed.
pub(super) struct Dice(pub(super) u64);

impl Dice {
    pub(super) fn below(&mut self, n: usize) -> usize {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        (self.0 >> 11) as usize % n.max(1)
    }

    pub(super) fn one_in(&mut self, n: usize) -> bool {
        self.below(n) == 0
    }
}

/// What the tools of the model do: the same at the same place with the same arguments. `refuse_K` fails K times.
pub(super) fn tool(call: &Call, arguments: Arguments) -> Result<Value, (FailureKind, String)> {
    let mut all = arguments.given;
    all.extend(arguments.further.into_iter().map(|(name, value)| (name.to_owned(), Value::clone(&value))));
    tool_of(&call.tool, &all, call.place.attempt)
}

fn tool_of(name: &str, arguments: &Map<String, Value>, attempt: u32) -> Result<Value, (FailureKind, String)> {
    if let Some(times) = name.strip_prefix("refuse_") {
        let times: u32 = times.parse().expect("a number");
        if attempt <= times {
            return Err((FailureKind::Tool, "no".to_owned()));
        }
    }
    Ok(match name {
        "unknown" => return Err((FailureKind::ToolNotFound, "Tool not found: unknown".to_owned())),
        "yes" => json!(true),
        "no" => json!(false),
        "list" => json!([1, {"a": 2}, "three"]),
        _ => {
            let text = Value::Object(arguments.clone()).to_string();
            let hash = text.bytes().fold(7_u32, |hash, byte| hash.wrapping_mul(31).wrapping_add(u32::from(byte)));
            json!({"a": hash, "b": [hash % 2 == 0]})
        }
    })
}

#[derive(Clone, Default)]
struct Around {
    input: Option<Value>,
    rounds: Vec<(StepIndex, Value, usize)>,
    results: BTreeMap<StepIndex, Value>,
    condition: Option<Value>,
    last: Option<Value>,
    error: Option<Value>,
}

/// A run's end: its result, or every failure that it may have, as whichever comes first counts.
pub(super) type Ends = Result<Value, BTreeSet<(String, String)>>;

pub(super) struct Model<'a> {
    pub(super) definition: &'a Definition,
    pub(super) context: Value,
}

impl Model<'_> {
    pub(super) fn run(&self, input: Option<Value>) -> Ends {
        self.step(0, &Around { input, ..Around::default() })
    }

    fn step(&self, index: StepIndex, around: &Around) -> Ends {
        let step = self.definition.step(index);
        let mut attempt = 1;
        let failures = loop {
            match self.attempt(index, around, attempt) {
                Ok(value) => return Ok(value),
                Err(failures) => {
                    let is_worth_another = failures.iter().any(|(kind, _)| kind == "Tool");
                    // Whichever failure comes first decides whether there is another attempt.
                    if step.retry.max > 0 && is_worth_another && failures.iter().any(|(kind, _)| kind != "Tool") {
                        return Err(unclear());
                    }
                    if !is_worth_another || attempt > step.retry.max {
                        break failures;
                    }
                    attempt += 1;
                }
            }
        };
        match &step.on_error {
            _ if failures.iter().any(|(kind, _)| kind == "unclear") => Err(failures),
            OnError::Fail => Err(failures),
            OnError::Value(value) => Ok(Value::clone(value)),
            OnError::Step(instead) => {
                let error = Some(json!({"message": failures.first().map(|(_, text)| text)}));
                self.step(*instead, &Around { error, ..around.clone() })
            }
        }
    }

    fn attempt(&self, index: StepIndex, around: &Around, attempt: u32) -> Ends {
        let step = self.definition.step(index);
        let mut mapped = Map::new();
        for (name, source) in &step.input {
            let Some(value) = self.find(source, around) else {
                let text = format!("{name}: expected something at {}, came nothing", source.text);
                return Err([("Invalid".to_owned(), text)].into());
            };
            mapped.insert(name.clone(), value);
        }
        let mut own = around.clone();
        if !mapped.is_empty() && !matches!(step.kind, Kind::Tool { .. } | Kind::Sampling { .. }) {
            own.input = Some(Value::Object(mapped.clone()));
        }
        match &step.kind {
            Kind::Tool { tool, params } => {
                let mut arguments = params.clone();
                arguments.extend(mapped);
                let round = around.rounds.last();
                let implicit = [
                    ("input", around.input.clone()),
                    ("item", round.map(|(_, item, _)| item.clone())),
                    ("index", round.map(|(_, _, n)| json!(n))),
                    ("condition_result", around.condition.clone()),
                ];
                for (name, value) in implicit {
                    if let (Some(value), false) = (value, arguments.contains_key(name)) {
                        arguments.insert(name.to_owned(), value);
                    }
                }
                tool_of(tool, &arguments, attempt).map_err(|(kind, text)| [(format!("{kind:?}"), text)].into())
            }
            Kind::Sampling { .. } | Kind::Reactive { .. } => unreachable!("the model has none of these"),
            Kind::Sequential { steps, .. } => {
                let mut last = Value::Null;
                for step in steps {
                    last = self.step(*step, &own)?;
                    own.results.insert(*step, last.clone());
                    own.input = Some(last.clone());
                }
                Ok(last)
            }
            Kind::Parallel { steps, merge, .. } => {
                let mut failures = BTreeSet::new();
                let mut named = Map::new();
                let mut within = own.clone();
                for step in steps {
                    match self.step(*step, &own) {
                        Ok(value) => {
                            named.insert(self.definition.step(*step).id.clone(), value.clone());
                            within.results.insert(*step, value);
                        }
                        Err(some) => failures.extend(some),
                    }
                }
                if !failures.is_empty() {
                    return Err(failures);
                }
                match merge {
                    Some(merge) => self.step(*merge, &Around { input: Some(Value::Object(named)), ..within }),
                    None => Ok(Value::Object(named)),
                }
            }
            Kind::Conditional { condition, success, failure } => {
                let result = match condition {
                    Condition::Expression(expression) => json!(expression.holds(&|source| self.origin(source, &own))),
                    Condition::Step(step) => match self.step(*step, &own) {
                        Ok(value) => {
                            own.results.insert(*step, value.clone());
                            value
                        }
                        Err(failures) if failures.iter().all(|(kind, _)| kind == "Tool") => {
                            own.results.insert(*step, json!(false));
                            json!(false)
                        }
                        // Whichever failure comes first decides.
                        Err(failures) if failures.iter().any(|(kind, _)| kind == "Tool") => return Err(unclear()),
                        Err(failures) => return Err(failures),
                    },
                };
                let branch = if is_truthy(&result) { success } else { failure };
                match branch {
                    Some(branch) => self.step(*branch, &Around { condition: Some(result), ..own }),
                    None => Ok(result),
                }
            }
            Kind::Loop { items, body, max_iterations, max_concurrent, condition, collect, aggregator } => {
                let items: Option<Vec<Value>> = match items {
                    Items::List(items) => Some(items.iter().map(|item| Value::clone(item)).collect()),
                    Items::Source(source) => match self.find(source, &own) {
                        Some(Value::Array(list)) => Some(list),
                        _ => return Err([("Invalid".to_owned(), "items".to_owned())].into()),
                    },
                    Items::Given => {
                        let list = own.input.as_ref().and_then(Value::as_array);
                        list.or_else(|| self.context.get("items")?.as_array()).cloned()
                    }
                };
                let rounds = items.as_ref().map_or(*max_iterations, Vec::len);
                if rounds > *max_iterations {
                    return Err([("Limit".to_owned(), "items".to_owned())].into());
                }
                let (mut results, mut failures) = (Vec::new(), BTreeSet::new());
                let mut last = own.input.clone().filter(|_| items.is_none());
                for n in 0..rounds {
                    let item = items.as_ref().map_or(json!(n), |items| items[n].clone());
                    let mut round = own.clone();
                    round.rounds.push((index, item.clone(), n));
                    round.last = Some(if n == 0 { Value::Null } else { last.clone().unwrap_or_default() });
                    let goes_on = condition
                        .as_ref()
                        .is_none_or(|condition| condition.holds(&|source| self.origin(source, &round)));
                    if !goes_on {
                        break;
                    }
                    round.last = None;
                    round.input = match &items {
                        Some(_) => Some(item),
                        None if *max_concurrent == 1 => last.clone(),
                        None => own.input.clone(),
                    };
                    match self.step(*body, &round) {
                        Ok(value) => {
                            last = Some(value.clone());
                            results.push(value);
                        }
                        Err(some) => {
                            failures.extend(some);
                            // One after another, nothing follows the first.
                            if *max_concurrent == 1 {
                                break;
                            }
                        }
                    }
                }
                if !failures.is_empty() {
                    return Err(failures);
                }
                let all = match collect {
                    Collect::All => Value::Array(results),
                    Collect::Last => results.pop().unwrap_or_default(),
                    Collect::None => json!({"iterations": results.len()}),
                };
                match aggregator {
                    Some(aggregator) => self.step(*aggregator, &Around { input: Some(all), ..own }),
                    None => Ok(all),
                }
            }
        }
    }

    fn find(&self, source: &Source, around: &Around) -> Option<Value> {
        source.at(self.origin(source, around).as_deref()).cloned()
    }

    fn origin(&self, source: &Source, around: &Around) -> Option<Arc<Value>> {
        let round =
            |of: &Option<StepIndex>| around.rounds.iter().rev().find(|(index, ..)| of.is_none_or(|of| of == *index));
        let value = match &source.origin {
            Origin::Step(step) => around.results.get(step).cloned(),
            Origin::Input => around.input.clone(),
            Origin::Item(of) => round(of).map(|(_, item, _)| item.clone()),
            Origin::Index(of) => round(of).map(|(_, _, n)| json!(n)),
            Origin::Last => around.last.clone(),
            Origin::Condition => around.condition.clone(),
            Origin::Context => Some(self.context.clone()),
            Origin::Trigger => Some(Value::Null),
            Origin::Error => around.error.clone(),
        };
        value.map(Arc::new)
    }
}

/// What the model says where the order of failures decides on more than their text.
fn unclear() -> BTreeSet<(String, String)> {
    [("unclear".to_owned(), String::new())].into()
}

/// Definitions at random, each of whose sources names what is there.
pub(super) struct Inventor<'a> {
    pub(super) dice: &'a mut Dice,
    pub(super) has_once: bool,
    visible: Vec<String>,
    loops: usize,
    last_id: usize,
}

impl<'a> Inventor<'a> {
    pub(super) fn new(dice: &'a mut Dice, has_once: bool) -> Self {
        Inventor { dice, has_once, visible: Vec::new(), loops: 0, last_id: 0 }
    }

    pub(super) fn definition(&mut self) -> Value {
        self.composite(4)
    }

    fn id(&mut self) -> String {
        self.last_id += 1;
        format!("s{}", self.last_id)
    }

    fn step(&mut self, depth: usize) -> (Value, String) {
        let value = if depth == 0 || self.dice.one_in(2) { self.leaf() } else { self.composite(depth) };
        let id = value["id"].as_str().expect("every step has an id here").to_owned();
        (value, id)
    }

    fn source(&mut self) -> Value {
        let pointers = ["", "/a", "/b/0", "/nothing"];
        let pointer = pointers[self.dice.below(pointers.len())];
        let mut names: Vec<String> = vec!["$input".into(), "$context".into(), "$condition".into()];
        if self.loops > 0 {
            names.extend(["$item".into(), "$index".into()]);
        }
        names.extend(self.visible.iter().cloned());
        let text = format!("{}{pointer}", names[self.dice.below(names.len())]);
        if self.dice.one_in(5) { json!(text) } else { json!({"from": text, "default": self.dice.below(3)}) }
    }

    fn common(&mut self, step: &mut Value, depth: usize) {
        if self.dice.one_in(4) {
            let source = self.source();
            step["input"] = json!({"p": source});
        }
        if self.dice.one_in(5) && step.get("run_once").is_none() {
            step["retry"] = json!({"max": 1 + self.dice.below(2), "delay_ms": self.dice.below(3) * 10});
        }
        match self.dice.below(8) {
            0 => step["on_error"] = json!("continue"),
            1 => step["on_error"] = json!({"value": {"a": 1}}),
            2 if depth > 0 => {
                let (instead, _) = self.step(0);
                step["on_error"] = json!({"step": instead});
            }
            _ => {}
        }
    }

    fn leaf(&mut self) -> Value {
        let tools = ["work", "work", "work", "yes", "no", "list", "refuse_1", "refuse_2", "refuse_9", "unknown"];
        let mut step = json!({"id": self.id(), "tool": tools[self.dice.below(tools.len())]});
        if self.dice.one_in(2) {
            step["params"] = json!({"x": self.dice.below(5)});
        }
        if self.has_once && self.dice.one_in(2) {
            step["run_once"] = json!(true);
        }
        self.common(&mut step, 1);
        step
    }

    fn list(&mut self, depth: usize) -> Vec<Value> {
        let before = self.visible.len();
        let steps = (0..=self.dice.below(3)).map(|_| {
            let (step, id) = self.step(depth - 1);
            self.visible.push(id);
            step
        });
        let steps = steps.collect();
        self.visible.truncate(before);
        steps
    }

    fn composite(&mut self, depth: usize) -> Value {
        let id = self.id();
        let mut step = match self.dice.below(4) {
            0 => json!({"type": "sequential", "steps": self.list(depth)}),
            1 => {
                let branches: Vec<_> = (0..=self.dice.below(4)).map(|_| self.step(depth - 1)).collect();
                let mut step = json!({"type": "parallel"});
                step["steps"] = branches.iter().map(|(step, _)| step.clone()).collect();
                if self.dice.one_in(2) {
                    step["max_concurrent"] = json!(1 + self.dice.below(3));
                }
                if self.dice.one_in(2) {
                    let before = self.visible.len();
                    self.visible.extend(branches.into_iter().map(|(_, id)| id));
                    step["merge_step"] = self.step(depth - 1).0;
                    self.visible.truncate(before);
                }
                step
            }
            2 => {
                let before = self.visible.len();
                let condition = if self.dice.one_in(2) {
                    json!({"source": self.source(), "op": "truthy"})
                } else {
                    let (step, id) = self.step(depth - 1);
                    self.visible.push(id);
                    step
                };
                let success = self.list(depth);
                let failure = if self.dice.one_in(3) { Vec::new() } else { self.list(depth) };
                self.visible.truncate(before);
                json!({"type": "conditional", "condition": condition, "success": success, "failure": failure})
            }
            _ => {
                let mut step = json!({"type": "loop", "max_iterations": 3});
                match self.dice.below(5) {
                    0 => step["items"] = json!([1, [2], {"a": 3}]),
                    3 => step["items"] = json!([]),
                    4 => step["items"] = json!("$context/b"),
                    1 => {
                        step["items"] =
                            json!({"from": self.source()["from"].as_str().unwrap_or("$input/b"), "default": [1, 2]})
                    }
                    _ => {}
                }
                step["collect"] = json!(["all", "last", "none"][self.dice.below(3)]);
                if step["collect"] == "all" && self.dice.one_in(3) {
                    step["aggregator"] = self.step(depth - 1).0;
                }
                self.loops += 1;
                match self.dice.below(3) {
                    0 => step["max_concurrent"] = json!(2),
                    1 => {
                        step["while"] = json!({"any": [{"source": "$index", "op": "lt", "value": 2}, {"source": "$last/a", "op": "exists"}]})
                    }
                    _ => {}
                }
                step["steps"] = self.list(depth).into();
                self.loops -= 1;
                step
            }
        };
        step["id"] = json!(id);
        self.common(&mut step, depth);
        step
    }
}
