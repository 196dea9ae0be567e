//! From JSON to a definition: templates are filled in, then every fault is found, each with its place.

use serde_json::{Map, Value};

use super::definition::Definition;
use super::fault::FAULTS_MAX;
use super::measure::json_bytes;
use super::reader::{Reader, is_of_any_step};
use super::version::{self, TemplateRef};
use super::{DEFINITION_BYTES_MAX, Fault, NESTING_MAX};

/// What templates a definition may use.
pub trait Templates {
    /// The definition that a template makes of parameters.
    ///
    /// # Errors
    /// There is no such template, or its parameters do not fit: each fault with its place below the step.
    fn instantiate(&self, name: &str, version: Option<&str>, params: &Map<String, Value>) -> Result<Value, Vec<Fault>>;
}

/// No templates.
impl Templates for () {
    fn instantiate(&self, name: &str, _: Option<&str>, _: &Map<String, Value>) -> Result<Value, Vec<Fault>> {
        Err(vec![Fault::new("/template", format!("Template not found: {name}"))])
    }
}

/// Reads a definition; gives it also as JSON in which no template is left, for whoever reads it again later.
///
/// # Errors
/// All faults, in the order of their places.
pub fn compile(value: &Value, templates: &dyn Templates) -> Result<(Definition, Value), Vec<Fault>> {
    if !value.is_object() {
        return Err(vec![Fault::new(
            "",
            format!("expected a workflow definition, an object, came {}", kind_of(value)),
        )]);
    }
    let mut expansion = Expansion { templates, faults: Vec::new(), bytes_left: DEFINITION_BYTES_MAX };
    expansion.spend(value, "");
    let expanded = if expansion.faults.is_empty() { expansion.definition(value, "", 0) } else { Value::Null };
    let mut faults = expansion.faults;
    if faults.is_empty() {
        match Reader::read(&expanded) {
            Ok(definition) => return Ok((definition, expanded)),
            Err(found) => faults = found,
        }
    }
    faults.sort();
    faults.dedup();
    faults.truncate(FAULTS_MAX);
    Err(faults)
}

struct Expansion<'a> {
    templates: &'a dyn Templates,
    faults: Vec<Fault>,
    bytes_left: usize,
}

impl Expansion<'_> {
    /// Counts a definition's bytes; false where there are too many.
    fn spend(&mut self, value: &Value, path: &str) -> bool {
        let bytes = json_bytes(value);
        if bytes > self.bytes_left {
            let text = format!("a definition is at most {DEFINITION_BYTES_MAX} bytes, templates included, came more");
            self.faults.push(Fault::new(path, text));
            self.bytes_left = 0;
            return false;
        }
        self.bytes_left -= bytes;
        true
    }

    /// A step or a whole definition, with what it holds.
    fn definition(&mut self, value: &Value, path: &str, depth: usize) -> Value {
        let Value::Object(fields) = value else { return value.clone() };
        if depth > NESTING_MAX {
            self.faults.push(Fault::new(path, format!("expected at most {NESTING_MAX} definitions within each other")));
            return Value::Null;
        }
        if fields.get("type").is_some_and(|kind| kind == "template") {
            return self.template(fields, path, depth);
        }
        let mut expanded = Map::new();
        for (name, field) in fields {
            let below = || format!("{path}/{name}");
            let field = match (name.as_str(), field) {
                ("steps" | "success" | "failure", Value::Array(steps)) => {
                    let each = steps.iter().enumerate();
                    each.map(|(n, step)| self.definition(step, &format!("{path}/{name}/{n}"), depth + 1)).collect()
                }
                ("merge_step" | "aggregator" | "condition" | "workflow", Value::Object(_)) => {
                    self.definition(field, &below(), depth + 1)
                }
                ("workflows", Value::Object(named)) => {
                    let each = named.iter();
                    let each = each.map(|(key, one)| {
                        (key.clone(), self.definition(one, &format!("{path}/{name}/{}", escaped(key)), depth + 1))
                    });
                    Value::Object(each.collect())
                }
                ("on_error", Value::Object(on_error)) => {
                    let each = on_error.iter().map(|(key, one)| match key.as_str() {
                        "step" => (key.clone(), self.definition(one, &format!("{path}/on_error/step"), depth + 1)),
                        _ => (key.clone(), one.clone()),
                    });
                    Value::Object(each.collect())
                }
                _ => field.clone(),
            };
            expanded.insert(name.clone(), field);
        }
        Value::Object(expanded)
    }

    fn template(&mut self, fields: &Map<String, Value>, path: &str, depth: usize) -> Value {
        // What is wrong already is enough, and to go on might take long.
        if self.bytes_left == 0 || self.faults.len() >= FAULTS_MAX {
            return Value::Null;
        }
        let Some(named) = fields.get("template") else {
            self.faults.push(Fault::new(path, "Missing required field: template"));
            return Value::Null;
        };
        let named = match TemplateRef::parse(named) {
            Ok(named) => named,
            Err(fault) => {
                self.faults.push(Fault::new(format!("{path}/template{}", fault.path), fault.message));
                return Value::Null;
            }
        };
        let version = match fields.get("version") {
            None | Some(Value::Null) => named.version,
            Some(Value::String(text)) if version::is_version(text) => Some(text.clone()),
            Some(Value::String(text)) if text == version::LATEST => None,
            Some(other) => {
                let text = format!("version: expected a version such as \"1.0.0\", or \"latest\", came {other}");
                self.faults.push(Fault::new(format!("{path}/version"), text));
                return Value::Null;
            }
        };
        const OWN: [&str; 4] = ["type", "template", "version", "params"];
        for name in fields.keys().filter(|name| !OWN.contains(&name.as_str()) && !is_of_any_step(name)) {
            let text = format!("{name}: no such field of a step of type template");
            self.faults.push(Fault::new(format!("{path}/{}", escaped(name)), text));
        }
        let (name, version) = (named.name.as_str(), version.as_deref());
        let none = Map::new();
        let params = match fields.get("params") {
            None | Some(Value::Null) => &none,
            Some(Value::Object(params)) => params,
            Some(other) => {
                let text = format!("params: expected an object, came {}", kind_of(other));
                self.faults.push(Fault::new(format!("{path}/params"), text));
                return Value::Null;
            }
        };
        let made = match self.templates.instantiate(name, version, params) {
            Ok(made) => made,
            Err(faults) => {
                let below = faults.into_iter().map(|fault| Fault::new(format!("{path}{}", fault.path), fault.message));
                self.faults.extend(below);
                return Value::Null;
            }
        };
        if !self.spend(&made, path) {
            return Value::Null;
        }
        // What the step says of itself holds for what the template makes of it.
        let mut made = self.definition(&made, path, depth + 1);
        if let Value::Object(made) = &mut made {
            for (name, field) in fields {
                if !matches!(name.as_str(), "type" | "template" | "version" | "params") {
                    let field = match (name.as_str(), field) {
                        ("on_error", _) => {
                            let alone = Value::Object(Map::from_iter([(name.clone(), field.clone())]));
                            self.definition(&alone, path, depth)["on_error"].take()
                        }
                        _ => field.clone(),
                    };
                    made.insert(name.clone(), field);
                }
            }
        }
        made
    }
}

/// A key as a token of a JSON Pointer.
pub(super) fn escaped(key: &str) -> String {
    key.replace('~', "~0").replace('/', "~1")
}

/// What a value is, for a person to read.
pub(super) fn kind_of(value: &Value) -> &'static str {
    match value {
        Value::Null => "null",
        Value::Bool(_) => "true or false",
        Value::Number(_) => "a number",
        Value::String(_) => "a string",
        Value::Array(_) => "a list",
        Value::Object(_) => "an object",
    }
}
