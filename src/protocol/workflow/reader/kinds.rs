//! What each type of step has of its own.

use std::sync::Arc;

use serde_json::Value;

use super::{Fields, Reader, shown};
use crate::protocol::workflow::definition::{Collect, Condition, Items, Kind, OnError, Retry, Step, StepIndex};
use crate::protocol::workflow::read::escaped;
use crate::protocol::workflow::source::is_id;
use crate::protocol::workflow::{CHOICES_MAX, ITERATIONS_MAX, STEPS_MAX, TRIGGERS_MAX};

impl Reader {
    pub(super) fn tool(&mut self, fields: &Fields, path: &str) -> Option<Kind> {
        let Some(tool) = self.text(fields, path, "tool") else {
            if !fields.contains_key("tool") {
                self.fault(path, "Missing required field: tool");
            }
            return None;
        };
        Some(Kind::Tool { tool: tool.to_owned(), params: self.params(fields, path) })
    }

    pub(super) fn params(&mut self, fields: &Fields, path: &str) -> Fields {
        match fields.get("params") {
            None | Some(Value::Null) => Fields::new(),
            Some(_) => self.object(fields, path, "params").cloned().unwrap_or_default(),
        }
    }

    pub(super) fn sampling(&mut self, fields: &Fields, path: &str) -> Option<Kind> {
        let prompt = fields.get("prompt").or_else(|| fields.get("criteria"));
        if prompt.is_none() {
            self.fault(path, "Missing required field: prompt");
        }
        let tools = match fields.get("tools").map(|tools| (tools, tools.as_array())) {
            Some((_, Some(tools))) if (1..=CHOICES_MAX).contains(&tools.len()) => tools.clone(),
            None => {
                self.fault(path, "Missing required field: tools");
                return None;
            }
            Some(_) => {
                let expected = format!("a list of 1 to {CHOICES_MAX} tools");
                return self.unfit_in(fields, path, "tools", &expected, None);
            }
        };
        for (n, tool) in tools.iter().enumerate() {
            if tool.as_str().or_else(|| tool.get("name")?.as_str()).is_none() {
                let text = format!("expected a tool's name, or an object with one, came {}", shown(tool));
                self.fault(format!("{path}/tools/{n}"), text);
            }
        }
        let executes = self.flag(fields, path, "execute").unwrap_or(true);
        let params = self.params(fields, path);
        Some(Kind::Sampling { prompt: prompt?.clone(), tools, executes, params })
    }

    /// A list of steps in `name`; none, and a fault, where there is no list, or nothing in it that has to have something.
    pub(super) fn list<'a>(
        &mut self,
        fields: &'a Fields,
        path: &str,
        name: &str,
        may_be_empty: bool,
    ) -> Option<&'a [Value]> {
        match fields.get(name) {
            None => {
                self.fault(path, format!("Missing required field: {name}"));
                None
            }
            Some(Value::Array(list)) if list.is_empty() && !may_be_empty => {
                self.unfit_in(fields, path, name, "one at least", None)
            }
            Some(Value::Array(list)) => Some(list),
            Some(_) => self.unfit_in(fields, path, name, "a list", None),
        }
    }

    /// Reads steps that run one after another: each sees those before it.
    pub(super) fn in_order(&mut self, list: &[Value], path: &str, parent: StepIndex) -> Vec<StepIndex> {
        let before = self.visible.len();
        let mut steps = Vec::with_capacity(list.len());
        for (place, step) in list.iter().enumerate() {
            let step = self.step(step, &format!("{path}/{place}"), Some(parent), place);
            self.visible.push(step);
            steps.push(step);
        }
        self.visible.truncate(before);
        steps
    }

    pub(super) fn sequential(&mut self, fields: &Fields, path: &str, index: StepIndex) -> Option<Kind> {
        let list = self.list(fields, path, "steps", false)?;
        let steps = self.in_order(list, &format!("{path}/steps"), index);
        Some(Kind::Sequential { steps, is_multi_tool: false })
    }

    pub(super) fn multi_tool(&mut self, fields: &Fields, path: &str, index: StepIndex) -> Option<Kind> {
        let calls = fields.get("calls").and_then(Value::as_array);
        if calls.is_some_and(Vec::is_empty) {
            self.fault(format!("{path}/calls"), "Multi-tool operation requires at least one tool call");
            return None;
        }
        let list = self.list(fields, path, "calls", false)?;
        for (n, call) in list.iter().enumerate() {
            let is_call = call.get("tool").is_some_and(|tool| tool.as_str().is_some_and(|tool| !tool.is_empty()))
                && call.get("type").is_none()
                && call.get("params").is_none_or(|params| params.is_object() || params.is_null());
            if !is_call {
                self.fault(format!("{path}/calls/{n}"), "Invalid tool call format");
                return None;
            }
        }
        let steps = self.in_order(list, &format!("{path}/calls"), index);
        Some(Kind::Sequential { steps, is_multi_tool: true })
    }

    pub(super) fn parallel(&mut self, fields: &Fields, path: &str, index: StepIndex) -> Option<Kind> {
        let list = self.list(fields, path, "steps", false)?;
        let steps: Vec<_> = list
            .iter()
            .enumerate()
            .map(|(place, step)| self.step(step, &format!("{path}/steps/{place}"), Some(index), place))
            .collect();
        let max_concurrent = self.concurrency(fields, path).unwrap_or(steps.len());
        let before = self.visible.len();
        self.visible.extend(&steps);
        let merge = self.further(fields, path, "merge_step", index);
        self.visible.truncate(before);
        Some(Kind::Parallel { steps, merge, max_concurrent })
    }

    pub(super) fn concurrency(&mut self, fields: &Fields, path: &str) -> Option<usize> {
        let range = 1..=STEPS_MAX as u64;
        let number = self.whole_number(fields, path, "max_concurrent", range)?;
        usize::try_from(number).ok()
    }

    /// The one step in `name`, if there is any. A tool's name alone will do, as in the deployment.
    pub(super) fn further(&mut self, fields: &Fields, path: &str, name: &str, parent: StepIndex) -> Option<StepIndex> {
        match fields.get(name)? {
            Value::Null => None,
            Value::String(tool) => {
                let step = serde_json::json!({"tool": tool});
                Some(self.step(&step, &format!("{path}/{name}"), Some(parent), usize::MAX))
            }
            step => Some(self.step(step, &format!("{path}/{name}"), Some(parent), usize::MAX)),
        }
    }

    pub(super) fn conditional(&mut self, fields: &Fields, path: &str, index: StepIndex) -> Option<Kind> {
        let before = self.visible.len();
        let condition = match fields.get("condition") {
            None | Some(Value::Null) => {
                self.fault(path, "Missing required field: condition");
                None
            }
            Some(Value::Object(condition)) if !condition.contains_key("tool") && !condition.contains_key("type") => {
                let value = Value::Object(condition.clone());
                self.expression(&value, &format!("{path}/condition")).map(Condition::Expression)
            }
            Some(_) => {
                let step = self.further(fields, path, "condition", index);
                self.visible.extend(step);
                step.map(Condition::Step)
            }
        };
        for name in ["success", "failure"] {
            if fields.get(name).is_some_and(|list| !list.is_array()) {
                self.unfit_in(fields, path, name, "a list of steps", ());
            }
        }
        if !fields.contains_key("success") && !fields.contains_key("failure") {
            self.fault(path, "Missing required field: success");
        }
        let success = self.branch(fields, path, "success", index);
        let failure = self.branch(fields, path, "failure", index);
        self.visible.truncate(before);
        Some(Kind::Conditional { condition: condition?, success, failure })
    }

    pub(super) fn branch(&mut self, fields: &Fields, path: &str, name: &str, index: StepIndex) -> Option<StepIndex> {
        let list = fields.get(name)?.as_array().filter(|list| !list.is_empty())?;
        Some(self.body(list, &format!("{path}/{name}"), index, 1))
    }

    /// Steps that a step holds in a list: the one of them, or a sequence without a name.
    pub(super) fn body(&mut self, list: &[Value], path: &str, parent: StepIndex, place: usize) -> StepIndex {
        if let [one] = list {
            return self.step(one, &format!("{path}/0"), Some(parent), place);
        }
        let index = self.steps.len();
        self.steps.push(None);
        let steps = self.in_order(list, path, index);
        self.steps[index] = Some(Step {
            id: String::new(),
            parent: Some(parent),
            path: path.to_owned(),
            place,
            kind: Kind::Sequential { steps, is_multi_tool: false },
            input: Vec::new(),
            retry: Retry::default(),
            timeout_ms: None,
            on_error: OnError::Fail,
            run_once: false,
            is_wanted: false,
        });
        index
    }

    pub(super) fn looped(&mut self, fields: &Fields, path: &str, index: StepIndex) -> Option<Kind> {
        let items = match fields.get("items") {
            None | Some(Value::Null) => Items::Given,
            Some(Value::Array(items)) => Items::List(items.iter().cloned().map(Arc::new).collect()),
            Some(source) => Items::Source(self.source(source, &format!("{path}/items"))?),
        };
        let max = self.whole_number(fields, path, "max_iterations", 1..=ITERATIONS_MAX as u64);
        if items == Items::Given && !fields.contains_key("max_iterations") {
            self.fault(path, "Missing required field: max_iterations");
        }
        let max_iterations = max.and_then(|max| usize::try_from(max).ok()).unwrap_or(ITERATIONS_MAX);
        if let Items::List(items) = &items
            && items.len() > max_iterations
        {
            let text = format!("items: expected at most {max_iterations}, came {}", items.len());
            self.fault(format!("{path}/items"), text);
        }
        let max_concurrent = self.concurrency(fields, path).unwrap_or(1);
        let collect = match fields.get("collect").map(|word| word.as_str()) {
            None | Some(Some("all")) => Collect::All,
            Some(Some("last")) => Collect::Last,
            Some(Some("none")) => Collect::None,
            Some(_) => self.unfit_in(fields, path, "collect", "\"all\", \"last\" or \"none\"", Collect::All),
        };
        let list = self.list(fields, path, "steps", false);
        self.loops.push(index);
        let condition = fields.get("while").and_then(|condition| {
            let had_last = std::mem::replace(&mut self.has_last, true);
            let condition = self.expression(condition, &format!("{path}/while"));
            self.has_last = had_last;
            condition
        });
        if condition.is_some() && max_concurrent > 1 {
            self.fault(format!("{path}/while"), "while: expected max_concurrent 1, since it looks at the round before");
        }
        let body = list.map(|list| self.body(list, &format!("{path}/steps"), index, 0));
        self.loops.pop();
        let aggregator = self.further(fields, path, "aggregator", index);
        if aggregator.is_some() && collect != Collect::All {
            self.fault(format!("{path}/collect"), "collect: expected \"all\" where an aggregator gets the results");
        }
        Some(Kind::Loop { items, body: body?, max_iterations, max_concurrent, condition, collect, aggregator })
    }

    pub(super) fn reactive(&mut self, fields: &Fields, path: &str, index: StepIndex) -> Option<Kind> {
        let named: Vec<(String, &Value, String)> = match (fields.get("workflow"), fields.get("workflows")) {
            (Some(one), None) => vec![("workflow".to_owned(), one, format!("{path}/workflow"))],
            (None, Some(Value::Object(named))) if !named.is_empty() && named.keys().all(|name| is_id(name)) => named
                .iter()
                .map(|(name, one)| (name.clone(), one, format!("{path}/workflows/{}", escaped(name))))
                .collect(),
            (None, Some(_)) => self.unfit_in(
                fields,
                path,
                "workflows",
                "an object of definitions by names of letters, digits, _ and -",
                Vec::new(),
            ),
            (None, None) => {
                self.fault(path, "Missing required field: workflow");
                Vec::new()
            }
            (Some(_), Some(_)) => {
                self.fault(path, "expected either workflow or workflows, came both");
                Vec::new()
            }
        };
        let workflows: Vec<_> = named
            .iter()
            .enumerate()
            .map(|(place, (name, one, path))| (name.clone(), self.step(one, path, Some(index), place)))
            .collect();
        let triggers = match fields.get("triggers") {
            // With its key for a name, as the deployment's tests have it.
            Some(Value::Object(one)) => std::slice::from_ref(&Value::Object(one.clone())).to_vec(),
            _ => self.list(fields, path, "triggers", false)?.to_vec(),
        };
        if triggers.len() > TRIGGERS_MAX {
            self.fault(
                format!("{path}/triggers"),
                format!("triggers: expected at most {TRIGGERS_MAX}, came {}", triggers.len()),
            );
            return None;
        }
        let names: Vec<_> = workflows.iter().map(|(name, _)| name.as_str()).collect();
        let mut read = Vec::new();
        for (n, trigger) in triggers.iter().enumerate() {
            read.extend(self.trigger(trigger, &format!("{path}/triggers/{n}"), &names));
        }
        Some(Kind::Reactive { triggers: read, workflows })
    }
}
