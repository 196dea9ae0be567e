//! Sources, conditions and triggers.

use serde_json::Value;

use super::{Fields, Reader, shown};
use crate::protocol::workflow::expression::{Expression, Op};
use crate::protocol::workflow::read::{escaped, kind_of};
use crate::protocol::workflow::source::{self, Origin, Source};
use crate::protocol::workflow::trigger::{EVENT_TOPIC_PREFIX, EVERY_MS_MIN, On, Trigger};
use crate::protocol::workflow::{DELAY_MS_MAX, NESTING_MAX, TIMEOUT_MS_MAX};

/// Values and conditions within one condition.
const CONDITION_PARTS_MAX: usize = 100;

impl Reader {
    pub(super) fn input(&mut self, fields: &Fields, path: &str) -> Vec<(String, Source)> {
        let Some(input) = self.object(fields, path, "input") else { return Vec::new() };
        let mut read = Vec::new();
        for (name, value) in input {
            if let Some(source) = self.source(value, &format!("{path}/input/{}", escaped(name))) {
                read.push((name.clone(), source));
            }
        }
        read
    }

    /// Reads a source: its text, or an object with that and a default.
    pub(super) fn source(&mut self, value: &Value, path: &str) -> Option<Source> {
        let (text, default) = match value {
            Value::String(text) => (text.as_str(), None),
            Value::Object(fields) => {
                self.known(fields, path, &["from", "default"]);
                match fields.get("from").and_then(Value::as_str) {
                    Some(text) => (text, fields.get("default").cloned()),
                    None => {
                        self.fault(path, "expected a source, a string, in from");
                        return None;
                    }
                }
            }
            other => {
                let text = format!("expected a source such as \"step/key\" or \"$input\", came {}", shown(other));
                self.fault(path, text);
                return None;
            }
        };
        let (name, pointer) = source::split(text);
        if !source::is_pointer(pointer) {
            self.fault(path, format!("{text:?}: expected a JSON Pointer behind the name, came {pointer:?}"));
            return None;
        }
        let origin = self.origin(name, path)?;
        Some(Source { origin, pointer: pointer.to_owned(), default, text: text.to_owned() })
    }

    pub(super) fn origin(&mut self, name: &str, path: &str) -> Option<Origin> {
        let (word, of) = name.split_once(':').map_or((name, None), |(word, of)| (word, Some(of)));
        let origin = match (word, of) {
            ("$trigger", None) => Some(Origin::Trigger),
            _ if self.has_trigger_alone => None,
            ("$input", None) => Some(Origin::Input),
            ("$context", None) => Some(Origin::Context),
            ("$condition", None) => Some(Origin::Condition),
            ("$error", None) if self.has_error => Some(Origin::Error),
            ("$last", None) if self.has_last => Some(Origin::Last),
            ("$item" | "$index", of) => {
                let named = of.map(|id| self.loops.iter().copied().find(|index| self.ids.get(id) == Some(index)));
                let is_within = !self.loops.is_empty() && named != Some(None);
                let make = if word == "$item" { Origin::Item } else { Origin::Index };
                is_within.then(|| make(named.flatten()))
            }
            _ => {
                let step = self.ids.get(name).copied().filter(|index| self.visible.contains(index));
                step.map(Origin::Step)
            }
        };
        if let Some(Origin::Step(step)) = &origin {
            self.wanted.insert(*step);
        }
        if origin.is_none() {
            let text = if self.has_trigger_alone {
                format!("{name:?} is not there: expected $trigger, since no run has begun")
            } else if name.starts_with('$') {
                format!(
                    "{name:?} is not there: expected $input, $context, $trigger, $condition, $item or $index within a loop, $error in the step of an on_error, $last in a while"
                )
            } else if self.given.contains(name) || self.ids.contains_key(name) {
                format!(
                    "the step {name:?} has not ended where this one runs: expected one before it, or before one that it lies within"
                )
            } else {
                format!("there is no step {name:?}")
            };
            self.fault(path, text);
        }
        origin
    }

    /// Reads a trigger of a reactive step with the workflows of these names.
    pub(super) fn trigger(&mut self, value: &Value, path: &str, names: &[&str]) -> Option<Trigger> {
        let Value::Object(fields) = value else {
            self.fault(path, format!("expected a trigger, an object, came {}", kind_of(value)));
            return None;
        };
        self.known(
            fields,
            path,
            &["event", "topic", "of", "every_ms", "workflow", "condition", "delay", "active", "id"],
        );
        let workflow = match fields.get("workflow").map(|name| name.as_str()) {
            None if names.len() <= 1 => 0,
            None => {
                self.fault(path, "Missing required trigger field: workflow");
                0
            }
            // Of the one workflow any name will do: in the deployment it is what the client calls it.
            Some(Some(_)) if names == ["workflow"] => 0,
            Some(name) => match names.iter().position(|other| Some(*other) == name) {
                Some(at) => at,
                None => self.unfit_in(fields, path, "workflow", &format!("one of {}", names.join(", ")), 0),
            },
        };
        let Some(event) = fields.get("event") else {
            self.fault(path, "Missing required trigger field: event");
            return None;
        };
        let Some(event) = event.as_str().filter(|event| !event.is_empty()) else {
            return self.unfit_in(fields, path, "event", "a string that is not empty", None);
        };
        let topic = self.text(fields, path, "topic").map(ToOwned::to_owned);
        if topic.as_deref().is_some_and(|topic| topic.starts_with("mcp:") && !topic.starts_with(EVENT_TOPIC_PREFIX)) {
            let text = "topic: expected one that is not MCP's own; ends of runs are the events run_completed, run_failed and run_finished";
            self.fault(format!("{path}/topic"), text);
        }
        let of = self.text(fields, path, "of").map(ToOwned::to_owned);
        let every = self.whole_number(fields, path, "every_ms", EVERY_MS_MIN..=TIMEOUT_MS_MAX);
        let on = match (event, topic) {
            ("schedule", None) => match every {
                Some(ms) => On::Every(ms),
                None if fields.contains_key("every_ms") => return None,
                None => return self.unfit_in(fields, path, "every_ms", "milliseconds", None),
            },
            ("run_completed", None) => On::Run { completed: Some(true), of },
            ("run_failed", None) => On::Run { completed: Some(false), of },
            ("run_finished", None) => On::Run { completed: None, of },
            (event, Some(topic)) => On::Broadcast { topic, event: Some(event.to_owned()) },
            (event, None) => On::Broadcast { topic: format!("{EVENT_TOPIC_PREFIX}{event}"), event: None },
        };
        let condition = match fields.get("condition") {
            None | Some(Value::Null) => None,
            Some(condition) => {
                // Of the whole and of a trigger by itself: there is no run yet.
                let had = std::mem::replace(&mut self.has_trigger_alone, self.depth <= 1);
                let read = self.expression(condition, &format!("{path}/condition"));
                self.has_trigger_alone = had;
                Some(read?)
            }
        };
        Some(Trigger {
            on,
            event: event.to_owned(),
            workflow,
            condition,
            delay_ms: self.whole_number(fields, path, "delay", 0..=DELAY_MS_MAX).unwrap_or(0),
            is_active: self.flag(fields, path, "active").unwrap_or(true),
        })
    }

    pub(super) fn expression(&mut self, value: &Value, path: &str) -> Option<Expression> {
        let outermost = self.condition_parts == 0;
        let read = self.expression_part(value, path, 0);
        if outermost {
            self.condition_parts = 0;
        }
        read
    }

    pub(super) fn expression_part(&mut self, value: &Value, path: &str, depth: usize) -> Option<Expression> {
        const EXPECTED: &str = "expected a condition: an object with source and op, with all, with any, or with not";
        self.condition_parts += 1;
        if self.condition_parts > CONDITION_PARTS_MAX || depth > NESTING_MAX {
            self.fault(path, format!("expected at most {CONDITION_PARTS_MAX} parts of a condition, came more"));
            return None;
        }
        let Value::Object(fields) = value else {
            self.fault(path, format!("{EXPECTED}, came {}", shown(value)));
            return None;
        };
        for (name, make) in [("all", Expression::All as fn(Vec<Expression>) -> Expression), ("any", Expression::Any)] {
            if let Some(parts) = fields.get(name) {
                self.known(fields, path, &[name]);
                let Some(parts) = parts.as_array().filter(|parts| !parts.is_empty()) else {
                    return self.unfit_in(fields, path, name, "a list of conditions", None);
                };
                let read: Vec<_> = parts
                    .iter()
                    .enumerate()
                    .map(|(n, part)| self.expression_part(part, &format!("{path}/{name}/{n}"), depth + 1))
                    .collect();
                return Some(make(read.into_iter().collect::<Option<_>>()?));
            }
        }
        if let Some(not) = fields.get("not") {
            self.known(fields, path, &["not"]);
            let not = self.expression_part(not, &format!("{path}/not"), depth + 1)?;
            return Some(Expression::Not(Box::new(not)));
        }
        let Some(source) = fields.get("source") else {
            self.fault(path, EXPECTED);
            return None;
        };
        self.known(fields, path, &["source", "op", "value"]);
        let source = self.source(source, &format!("{path}/source"));
        let op = match fields.get("op") {
            None => Some(Op::Truthy),
            Some(word) => word.as_str().and_then(Op::read),
        };
        let Some(op) = op else {
            const OPS: &str = "one of eq, ne, gt, ge, lt, le, in, contains, exists, truthy";
            return self.unfit_in(fields, path, "op", OPS, None);
        };
        if op.has_value() && !fields.contains_key("value") {
            self.fault(path, "Missing required field: value");
        }
        if op == Op::In && !fields.get("value").is_some_and(Value::is_array) {
            self.unfit_in(fields, path, "value", "a list", ());
        }
        Some(Expression::Test { source: source?, op, value: fields.get("value").cloned().unwrap_or(Value::Null) })
    }
}
