//! The reading of a definition in which no template is left.

mod conditions;
mod kinds;
#[cfg(test)]
mod tests;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use serde_json::{Map, Value};

use super::definition::{Definition, OnError, Retry, Step, StepIndex};
use super::read::{escaped, kind_of};
use super::source::{self};
use super::trigger::Trigger;
use super::{DELAY_MS_MAX, Fault, ID_BYTES_MAX, NESTING_MAX, RETRIES_MAX, STEPS_MAX, TIMEOUT_MS_MAX};

/// Characters of a word that a fault repeats.
const CAME_CHARS_MAX: usize = 60;
/// Faults that are told of one definition.
const FAULTS_MAX: usize = 100;
/// The fields that any step may have.
const COMMON: [&str; 7] = ["type", "id", "input", "retry", "timeout_ms", "on_error", "run_once"];
/// Text that people write beside.
const COMMENT: &str = "comment";
/// Those that the whole may have beside.
const OF_THE_WHOLE: [&str; 6] = ["name", "description", "version", "on_restart", "on_disconnect", "metadata"];

type Fields = Map<String, Value>;

/// Whether a field is one that any step may have, or the whole.
pub(super) fn is_of_any_step(name: &str) -> bool {
    COMMON.contains(&name) || OF_THE_WHOLE.contains(&name) || name == COMMENT
}

/// What has been read so far.
#[derive(Default)]
pub(super) struct Reader {
    steps: Vec<Option<Step>>,
    faults: Vec<Fault>,
    /// Every id that the definition gives, so that none that is made up stands in its way.
    given: BTreeSet<String>,
    ids: BTreeMap<String, StepIndex>,
    /// The next number to be tried behind an id that is made up.
    numbers: BTreeMap<String, usize>,
    /// The steps that have ended wherever the step that is being read runs.
    visible: Vec<StepIndex>,
    /// The loops around it.
    loops: Vec<StepIndex>,
    depth: usize,
    /// Steps whose results are asked for.
    wanted: BTreeSet<StepIndex>,
    /// Whether `$error`, and `$last`, are there.
    has_error: bool,
    has_last: bool,
    /// Whether nothing is there but `$trigger`: in the conditions of triggers that begin runs.
    has_trigger_alone: bool,
    condition_parts: usize,
}

impl Reader {
    /// Reads a whole definition.
    ///
    /// # Errors
    /// All faults.
    pub(super) fn read(value: &Value) -> Result<Definition, Vec<Fault>> {
        let mut given = BTreeSet::new();
        collect_ids(value, &mut given);
        let mut reader = Reader { given, ..Reader::default() };
        let none = Fields::new();
        let fields = value.as_object().unwrap_or(&none);
        if !fields.contains_key("type") {
            return Err(vec![Fault::new("", "Missing required field: type")]);
        }
        reader.step(value, "", None, 0);
        let resumes = match fields.get("on_restart").map(|word| word.as_str()) {
            None | Some(Some("resume")) => true,
            Some(Some("fail")) => false,
            Some(_) => reader.unfit_in(fields, "", "on_restart", "\"resume\" or \"fail\"", true),
        };
        let outlives_caller = match fields.get("on_disconnect").map(|word| word.as_str()) {
            None | Some(Some("continue")) => true,
            Some(Some("cancel")) => false,
            Some(_) => reader.unfit_in(fields, "", "on_disconnect", "\"continue\" or \"cancel\"", true),
        };
        if !reader.faults.is_empty() {
            reader.faults.truncate(FAULTS_MAX);
            return Err(reader.faults);
        }
        let wanted = reader.wanted;
        let mut steps = Vec::with_capacity(reader.steps.len());
        for (index, step) in reader.steps.into_iter().enumerate() {
            let step = step.ok_or_else(|| vec![Fault::new("", "a step could not be read")])?;
            steps.push(Step { is_wanted: wanted.contains(&index), ..step });
        }
        // Of the whole it is the run's, which goes on counting over a restart.
        let timeout_ms = steps[0].timeout_ms.take();
        Ok(Definition { steps, timeout_ms, resumes, outlives_caller })
    }

    fn fault(&mut self, path: impl Into<String>, message: impl Into<String>) {
        if self.faults.len() <= FAULTS_MAX {
            self.faults.push(Fault::new(path, message));
        }
    }

    /// Notes what was expected of a field, and goes on with something.
    fn unfit_in<T>(&mut self, fields: &Fields, path: &str, name: &str, expected: &str, instead: T) -> T {
        let came = fields.get(name).map_or("nothing".to_owned(), shown);
        self.fault(format!("{path}/{name}"), format!("{name}: expected {expected}, came {came}"));
        instead
    }

    fn whole_number(
        &mut self,
        fields: &Fields,
        path: &str,
        name: &str,
        range: std::ops::RangeInclusive<u64>,
    ) -> Option<u64> {
        let value = fields.get(name)?;
        let number = value.as_u64().filter(|number| range.contains(number));
        if number.is_none() {
            let expected = format!("a whole number from {} to {}", range.start(), range.end());
            self.unfit_in(fields, path, name, &expected, ());
        }
        number
    }

    fn flag(&mut self, fields: &Fields, path: &str, name: &str) -> Option<bool> {
        let value = fields.get(name)?;
        value.as_bool().or_else(|| self.unfit_in(fields, path, name, "true or false", None))
    }

    fn text<'a>(&mut self, fields: &'a Fields, path: &str, name: &str) -> Option<&'a str> {
        let value = fields.get(name)?;
        let text = value.as_str().filter(|text| !text.is_empty());
        text.or_else(|| self.unfit_in(fields, path, name, "a string that is not empty", None))
    }

    fn object<'a>(&mut self, fields: &'a Fields, path: &str, name: &str) -> Option<&'a Fields> {
        let value = fields.get(name)?;
        value.as_object().or_else(|| self.unfit_in(fields, path, name, "an object", None))
    }

    /// Reads a step, or a definition within another; gives its index, also where it has faults.
    fn step(&mut self, value: &Value, path: &str, parent: Option<StepIndex>, place: usize) -> StepIndex {
        let index = self.steps.len();
        self.steps.push(None);
        if index == STEPS_MAX {
            self.fault(path, format!("expected at most {STEPS_MAX} steps, came more"));
        }
        if index >= STEPS_MAX {
            return index;
        }
        let Value::Object(fields) = value else {
            self.fault(path, format!("expected a step, an object, came {}", kind_of(value)));
            return index;
        };
        self.depth += 1;
        if self.depth > NESTING_MAX {
            self.fault(path, format!("expected at most {NESTING_MAX} definitions within each other, came more"));
        } else if let Some(step) = self.fields(fields, path, index, parent, place) {
            self.steps[index] = Some(step);
        }
        self.depth -= 1;
        index
    }

    fn fields(
        &mut self,
        fields: &Fields,
        path: &str,
        index: StepIndex,
        parent: Option<StepIndex>,
        place: usize,
    ) -> Option<Step> {
        let kind_name = match fields.get("type") {
            Some(Value::String(kind)) => kind.as_str(),
            Some(other) => {
                self.fault(format!("{path}/type"), format!("Unsupported workflow type: {}", shown(other)));
                return None;
            }
            None if fields.contains_key("tool") => "tool",
            None => {
                self.fault(path, "Missing required field: tool");
                return None;
            }
        };
        let own: &[&str] = match kind_name {
            "tool" => &["tool", "params"],
            "sampling" => &["prompt", "criteria", "tools", "params", "execute", "model"],
            "sequential" => &["steps"],
            "multi_tool" => &["calls"],
            "parallel" => &["steps", "merge_step", "max_concurrent"],
            "conditional" => &["condition", "success", "failure"],
            "loop" => &["items", "steps", "max_iterations", "max_concurrent", "while", "collect", "aggregator"],
            "reactive" => &["triggers", "workflow", "workflows"],
            other => {
                self.fault(format!("{path}/type"), format!("Unsupported workflow type: {other}"));
                return None;
            }
        };
        for name in fields.keys() {
            let is_known = COMMON.contains(&name.as_str())
                || own.contains(&name.as_str())
                || OF_THE_WHOLE.contains(&name.as_str())
                || name == COMMENT;
            if !is_known {
                let known: Vec<_> = own.iter().chain(&COMMON[1..]).copied().collect();
                let text =
                    format!("{name}: no such field of a step of type {kind_name}, expected of {}", known.join(", "));
                self.fault(format!("{path}/{}", escaped(name)), text);
            }
        }
        let before = self.faults.len();
        let id = self.id(fields, path, kind_name, index);
        let retry = self.retry(fields, path);
        let timeout_ms = self.whole_number(fields, path, "timeout_ms", 1..=TIMEOUT_MS_MAX);
        let run_once = self.flag(fields, path, "run_once").unwrap_or(false);
        if run_once && !matches!(kind_name, "tool" | "sampling") {
            self.fault(
                format!("{path}/run_once"),
                "run_once: expected of a step that calls a tool, not of one with steps",
            );
        }
        if run_once && retry.max > 0 {
            self.fault(format!("{path}/retry"), "retry: a step that runs once has no further attempts");
        }
        let input = self.input(fields, path);
        let kind = match kind_name {
            "tool" => self.tool(fields, path),
            "sampling" => self.sampling(fields, path),
            "sequential" => self.sequential(fields, path, index),
            "multi_tool" => self.multi_tool(fields, path, index),
            "parallel" => self.parallel(fields, path, index),
            "conditional" => self.conditional(fields, path, index),
            "loop" => self.looped(fields, path, index),
            _ => self.reactive(fields, path, index),
        };
        let on_error = self.on_error(fields, path, index);
        (self.faults.len() == before).then_some(())?;
        Some(Step {
            id,
            parent,
            path: path.to_owned(),
            place,
            kind: kind?,
            input,
            retry,
            timeout_ms,
            on_error,
            run_once,
            is_wanted: false,
        })
    }

    /// The step's own id, or one made of its tool or type.
    fn id(&mut self, fields: &Fields, path: &str, kind_name: &str, index: StepIndex) -> String {
        if let Some(given) = fields.get("id") {
            let Some(id) = given.as_str().filter(|id| source::is_id(id)) else {
                let expected = format!("1 to {ID_BYTES_MAX} letters, digits, _ and -");
                return self.unfit_in(fields, path, "id", &expected, String::new());
            };
            if self.ids.insert(id.to_owned(), index).is_some() {
                self.fault(format!("{path}/id"), format!("two steps have the id {id:?}, expected one"));
            }
            return id.to_owned();
        }
        let tool = fields.get("tool").and_then(Value::as_str).unwrap_or(kind_name);
        let plain = |c: char| if c.is_ascii_alphanumeric() || c == '-' { c } else { '_' };
        let base: String = tool.chars().map(plain).take(ID_BYTES_MAX - 8).collect();
        let base = if base.is_empty() { "step".to_owned() } else { base };
        let mut id = base.clone();
        let mut number = self.numbers.get(&base).copied().unwrap_or(1);
        while self.ids.contains_key(&id) || self.given.contains(&id) {
            number += 1;
            id = format!("{base}_{number}");
        }
        self.numbers.insert(base, number);
        self.ids.insert(id.clone(), index);
        id
    }

    fn retry(&mut self, fields: &Fields, path: &str) -> Retry {
        const DELAY_MS: u64 = 1_000;
        const BACKOFF: u32 = 2;
        let max = u64::from(RETRIES_MAX);
        let narrow = |number: u64| u32::try_from(number).expect("it is within its range");
        let plain = |max| Retry { max, delay_ms: DELAY_MS, backoff: BACKOFF, max_delay_ms: DELAY_MS_MAX };
        match fields.get("retry") {
            None => Retry::default(),
            Some(Value::Object(retry)) => {
                let path = &format!("{path}/retry");
                self.known(retry, path, &["max", "delay_ms", "backoff", "max_delay_ms"]);
                let max = match self.whole_number(retry, path, "max", 0..=max) {
                    None if !retry.contains_key("max") => self.unfit_in(retry, path, "max", "a whole number", 0),
                    max => max.unwrap_or(0),
                };
                Retry {
                    max: narrow(max),
                    delay_ms: self.whole_number(retry, path, "delay_ms", 0..=DELAY_MS_MAX).unwrap_or(DELAY_MS),
                    backoff: self.whole_number(retry, path, "backoff", 1..=10).map_or(BACKOFF, narrow),
                    max_delay_ms: self
                        .whole_number(retry, path, "max_delay_ms", 0..=DELAY_MS_MAX)
                        .unwrap_or(DELAY_MS_MAX),
                }
            }
            Some(_) => plain(narrow(self.whole_number(fields, path, "retry", 0..=max).unwrap_or(0))),
        }
    }

    fn known(&mut self, fields: &Fields, path: &str, names: &[&str]) {
        for name in fields.keys().filter(|name| !names.contains(&name.as_str())) {
            let text = format!("{name}: no such field, expected of {}", names.join(", "));
            self.fault(format!("{path}/{}", escaped(name)), text);
        }
    }

    fn on_error(&mut self, fields: &Fields, path: &str, index: StepIndex) -> OnError {
        const EXPECTED: &str = "\"fail\", \"continue\", an object with value, or one with step";
        match fields.get("on_error") {
            None => OnError::Fail,
            Some(Value::String(word)) if word == "fail" => OnError::Fail,
            Some(Value::String(word)) if word == "continue" => OnError::Value(Arc::new(Value::Null)),
            Some(Value::Object(on_error)) if on_error.len() == 1 => {
                if let Some(value) = on_error.get("value") {
                    return OnError::Value(Arc::new(value.clone()));
                }
                let Some(step) = on_error.get("step") else {
                    return self.unfit_in(fields, path, "on_error", EXPECTED, OnError::Fail);
                };
                let had_error = std::mem::replace(&mut self.has_error, true);
                let step = self.step(step, &format!("{path}/on_error/step"), Some(index), 0);
                self.has_error = had_error;
                OnError::Step(step)
            }
            Some(_) => self.unfit_in(fields, path, "on_error", EXPECTED, OnError::Fail),
        }
    }
}

/// A trigger that stands by itself, as `workflows/register_trigger` brings it; it names the workflow that it begins.
///
/// # Errors
/// All faults.
pub fn standing_trigger(value: &Value) -> Result<Trigger, Vec<Fault>> {
    let mut reader = Reader { has_trigger_alone: true, ..Reader::default() };
    for field in ["event", "workflow"] {
        if value.is_object() && value.get(field).is_none() {
            reader.fault("", format!("Missing required trigger field: {field}"));
        }
    }
    if !reader.faults.is_empty() {
        return Err(reader.faults);
    }
    let trigger = reader.trigger(value, "", &["workflow"]);
    match trigger {
        Some(trigger) if reader.faults.is_empty() => Ok(trigger),
        _ => Err(reader.faults),
    }
}

/// The ids that steps give themselves.
fn collect_ids(value: &Value, ids: &mut BTreeSet<String>) {
    match value {
        Value::Object(fields) => {
            if let (true, Some(Value::String(id))) =
                (fields.contains_key("tool") || fields.contains_key("type"), fields.get("id"))
            {
                ids.insert(id.clone());
            }
            fields.values().for_each(|field| collect_ids(field, ids));
        }
        Value::Array(items) => items.iter().for_each(|item| collect_ids(item, ids)),
        _ => {}
    }
}

/// A value as far as a fault repeats it.
fn shown(value: &Value) -> String {
    let text = value.to_string();
    let short: String = text.chars().take(CAME_CHARS_MAX).collect();
    if short.len() < text.len() { format!("{short}…") } else { short }
}
