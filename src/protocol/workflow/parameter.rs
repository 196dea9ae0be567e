//! The parameters of a template: what each of them takes.

use std::cmp::Ordering;

use serde::Serialize;
use serde_json::{Map, Number, Value};

use crate::protocol::workflow::fault::{Faults, join, short};
use crate::protocol::workflow::measure::is_deeper;

/// Parameters of a template at most.
pub const PARAMETERS_MAX: usize = 100;
/// Bytes of a parameter's name at most.
pub const PARAMETER_NAME_BYTES_MAX: usize = 64;
/// Deepest nesting of arrays and objects in the value of a parameter.
pub const ARGUMENT_DEPTH_MAX: usize = 32;

/// Values of an `enum` that a message lists at most.
const LISTED_MAX: usize = 10;

/// The type of a parameter. On the wire its name, as the Elixir deployment names types of tools' parameters, or as JSON
/// Schema does.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Kind {
    /// A string.
    String,
    /// A number that is written without a fraction or an exponent.
    Integer,
    /// Any number; `float` too.
    Number,
    /// True or false.
    Boolean,
    /// An object; `map` too.
    Object,
    /// An array; `list` too.
    Array,
    /// Any value, null as well.
    Any,
}

impl Kind {
    /// The type of that name.
    pub fn named(name: &str) -> Option<Self> {
        Some(match name {
            "string" => Kind::String,
            "integer" => Kind::Integer,
            "number" | "float" => Kind::Number,
            "boolean" => Kind::Boolean,
            "object" | "map" => Kind::Object,
            "array" | "list" => Kind::Array,
            "any" => Kind::Any,
            _ => return None,
        })
    }

    /// Its name on the wire.
    pub fn name(self) -> &'static str {
        match self {
            Kind::String => "string",
            Kind::Integer => "integer",
            Kind::Number => "number",
            Kind::Boolean => "boolean",
            Kind::Object => "object",
            Kind::Array => "array",
            Kind::Any => "any",
        }
    }

    /// Whether a value is of this type. Nothing is converted: `"5"` is no integer, and neither is `5.0`.
    pub fn fits(self, value: &Value) -> bool {
        match self {
            Kind::String => value.is_string(),
            Kind::Integer => value.is_i64() || value.is_u64(),
            Kind::Number => value.is_number(),
            Kind::Boolean => value.is_boolean(),
            Kind::Object => value.is_object(),
            Kind::Array => value.is_array(),
            Kind::Any => true,
        }
    }

    /// What a value is, for messages.
    pub fn came(value: &Value) -> &'static str {
        let kinds = [Kind::String, Kind::Integer, Kind::Number, Kind::Boolean, Kind::Object, Kind::Array];
        kinds.into_iter().find(|kind| kind.fits(value)).map_or("null", Kind::name)
    }
}

/// One parameter of a template.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Parameter {
    /// Its name: 1 to [`PARAMETER_NAME_BYTES_MAX`] bytes without braces, white space and control characters.
    pub name: String,
    /// What it takes.
    #[serde(rename = "type")]
    pub kind: Kind,
    /// Whether it has to be given, unless it has a default.
    pub required: bool,
    /// Its value where it is not given. There is no default null, as the deployment has none.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub default: Option<Value>,
    /// For a person to read.
    pub description: String,
    /// The values that it may have; empty for any.
    #[serde(rename = "enum", skip_serializing_if = "Vec::is_empty")]
    pub one_of: Vec<Value>,
    /// Its least value; of integers and numbers only.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub minimum: Option<Number>,
    /// Its greatest value; of integers and numbers only.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub maximum: Option<Number>,
}

impl Parameter {
    /// What speaks against a value, if anything does: what is expected and what came.
    pub fn refusal(&self, value: &Value) -> Option<String> {
        if !self.kind.fits(value) {
            return Some(format!("expected {}, came {}", self.kind.name(), Kind::came(value)));
        }
        if is_deeper(value, ARGUMENT_DEPTH_MAX) {
            return Some(format!("nested deeper than {ARGUMENT_DEPTH_MAX}"));
        }
        if !self.one_of.is_empty() && !self.one_of.contains(value) {
            let mut listed: Vec<_> = self.one_of.iter().take(LISTED_MAX).map(shown).collect();
            if self.one_of.len() > LISTED_MAX {
                listed.push("…".to_owned());
            }
            return Some(format!("expected one of {}, came {}", listed.join(", "), shown(value)));
        }
        let Value::Number(number) = value else { return None };
        if let Some(minimum) = self.minimum.as_ref().filter(|minimum| compare(number, minimum).is_lt()) {
            return Some(format!("expected at least {minimum}, came {number}"));
        }
        if let Some(maximum) = self.maximum.as_ref().filter(|maximum| compare(number, maximum).is_gt()) {
            return Some(format!("expected at most {maximum}, came {number}"));
        }
        None
    }
}

fn shown(value: &Value) -> String {
    match value {
        Value::Array(_) | Value::Object(_) => Kind::came(value).to_owned(),
        value => short(&value.to_string()),
    }
}

fn compare(a: &Number, b: &Number) -> Ordering {
    match (a.as_i128(), b.as_i128()) {
        (Some(a), Some(b)) => a.cmp(&b),
        _ => a.as_f64().partial_cmp(&b.as_f64()).unwrap_or(Ordering::Equal),
    }
}

/// An object that is being read, and where it stands. A field that is null is not there, as in JSON of Elixir structs.
pub(super) struct Reading<'a> {
    fields: &'a Map<String, Value>,
    path: String,
}

impl<'a> Reading<'a> {
    /// Begins to read what stands at `path`. What is no object, and each field but `known`, is a fault.
    pub(super) fn begin(value: &'a Value, path: String, known: &[&str], faults: &mut Faults) -> Option<Self> {
        let Value::Object(fields) = value else {
            faults.add(path, format!("Expected object, came {}", Kind::came(value)));
            return None;
        };
        for key in fields.keys().filter(|key| !known.contains(&key.as_str())) {
            faults.add(join(&path, key), format!("Unknown field: {}", short(key)));
        }
        Some(Reading { fields, path })
    }

    /// The place of a field.
    pub(super) fn at(&self, key: &str) -> String {
        join(&self.path, key)
    }

    /// A field, if it is there.
    pub(super) fn field(&self, key: &str) -> Option<&'a Value> {
        self.fields.get(key).filter(|value| !value.is_null())
    }

    /// A field, if it is there and of that type; another type is a fault.
    pub(super) fn typed(&self, key: &str, kind: Kind, faults: &mut Faults) -> Option<&'a Value> {
        let value = self.field(key)?;
        if kind.fits(value) {
            return Some(value);
        }
        faults.add(self.at(key), format!("Field {key}: expected {}, came {}", kind.name(), Kind::came(value)));
        None
    }

    /// A field that is text.
    pub(super) fn text(&self, key: &str, faults: &mut Faults) -> Option<&'a str> {
        self.typed(key, Kind::String, faults).and_then(Value::as_str)
    }

    /// Adds a fault if a field is not there.
    pub(super) fn require(&self, key: &str, faults: &mut Faults) {
        if self.field(key).is_none() {
            faults.add(self.at(key), format!("Missing required field: {key}"));
        }
    }
}

const FIELDS: [&str; 8] = ["name", "type", "required", "default", "description", "enum", "minimum", "maximum"];

/// Reads the parameters that stand at `path`.
///
/// Where one has a fault, what can be read of it is kept, so that its uses are no faults as well.
pub(super) fn read_all(values: &[Value], path: &str, faults: &mut Faults) -> Vec<Parameter> {
    if values.len() > PARAMETERS_MAX {
        faults.add(path, format!("{} parameters, the limit is {PARAMETERS_MAX}", values.len()));
    }
    let mut read: Vec<Parameter> = Vec::new();
    for (i, value) in values.iter().take(PARAMETERS_MAX).enumerate() {
        let path = join(path, &i.to_string());
        let Some(reading) = Reading::begin(value, path, &FIELDS, faults) else { continue };
        let Some(parameter) = read_one(&reading, faults) else { continue };
        if read.iter().any(|other| other.name == parameter.name) {
            faults.add(reading.at("name"), format!("Duplicate parameter: {}", parameter.name));
        } else {
            read.push(parameter);
        }
    }
    read
}

fn read_one(reading: &Reading, faults: &mut Faults) -> Option<Parameter> {
    reading.require("name", faults);
    let name = reading.text("name", faults);
    let kind = match reading.text("type", faults) {
        None => Kind::Any,
        Some(named) => Kind::named(named).unwrap_or_else(|| {
            faults.add(reading.at("type"), format!("Unsupported parameter type: {}", short(named)));
            Kind::Any
        }),
    };
    let mut parameter = Parameter {
        name: name.unwrap_or_default().to_owned(),
        kind,
        required: reading.typed("required", Kind::Boolean, faults).is_some_and(|required| *required == true),
        default: None,
        description: reading.text("description", faults).unwrap_or_default().to_owned(),
        one_of: Vec::new(),
        minimum: bound(reading, "minimum", kind, faults),
        maximum: bound(reading, "maximum", kind, faults),
    };
    if let (Some(least), Some(most)) = (&parameter.minimum, &parameter.maximum)
        && compare(least, most).is_gt()
    {
        faults.add(reading.at("maximum"), format!("Maximum {most} is below the minimum {least}"));
    }
    parameter.one_of = choices(reading, &parameter, faults);
    parameter.default = reading.field("default").cloned();
    if let Some(refusal) = parameter.default.as_ref().and_then(|default| parameter.refusal(default)) {
        faults.add(reading.at("default"), format!("Default of {}: {refusal}", short(&parameter.name)));
    }
    let is_name = |name: &str| {
        (1..=PARAMETER_NAME_BYTES_MAX).contains(&name.len())
            && !name.contains(|c: char| matches!(c, '{' | '}') || c.is_whitespace() || c.is_control())
    };
    match name {
        Some(name) if is_name(name) => Some(parameter),
        Some(name) => {
            let bounds = format!("1 to {PARAMETER_NAME_BYTES_MAX} bytes without braces and white space");
            faults.add(reading.at("name"), format!("Parameter name: expected {bounds}, came {:?}", short(name)));
            None
        }
        None => None,
    }
}

fn bound(reading: &Reading, key: &str, kind: Kind, faults: &mut Faults) -> Option<Number> {
    let Value::Number(bound) = reading.typed(key, Kind::Number, faults)? else { return None };
    if matches!(kind, Kind::Integer | Kind::Number) {
        return Some(bound.clone());
    }
    faults.add(reading.at(key), format!("A {key} is for integer and number, not for {}", kind.name()));
    None
}

fn choices(reading: &Reading, parameter: &Parameter, faults: &mut Faults) -> Vec<Value> {
    let Some(Value::Array(values)) = reading.typed("enum", Kind::Array, faults) else { return Vec::new() };
    if values.is_empty() {
        faults.add(reading.at("enum"), "An enum needs at least one value");
    }
    for (i, value) in values.iter().enumerate() {
        if let Some(refusal) = parameter.refusal(value) {
            faults.add(join(&reading.at("enum"), &i.to_string()), format!("Value of the enum: {refusal}"));
        }
    }
    values.clone()
}

/// The value of each parameter: the given one, else its default, else none. What is wrong with the given ones is added
/// to `faults`, their places from `path` on; first of all, in one fault, which are missing.
pub(super) fn bind<'a>(
    parameters: &'a [Parameter],
    given: &'a Map<String, Value>,
    path: &str,
    faults: &mut Faults,
) -> Vec<(&'a str, Option<&'a Value>)> {
    let values: Vec<_> = parameters
        .iter()
        .map(|parameter| (parameter.name.as_str(), given.get(&parameter.name).or(parameter.default.as_ref())))
        .collect();
    let is_missing =
        |(parameter, (_, value)): &(&Parameter, &(&str, Option<&Value>))| parameter.required && value.is_none();
    let missing: Vec<_> = parameters.iter().zip(&values).filter(is_missing).map(|(_, (name, _))| *name).collect();
    if !missing.is_empty() {
        faults.add(path, format!("Missing required parameters: {}", missing.join(", ")));
    }
    for parameter in parameters {
        if let Some(refusal) = given.get(&parameter.name).and_then(|value| parameter.refusal(value)) {
            faults.add(join(path, &parameter.name), format!("Parameter {}: {refusal}", parameter.name));
        }
    }
    for name in given.keys().filter(|name| parameters.iter().all(|parameter| parameter.name != **name)) {
        faults.add(join(path, name), format!("Unknown parameter: {}", short(name)));
    }
    values
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::protocol::workflow::fault::Fault;

    fn read(values: &Value) -> Result<Vec<Parameter>, Vec<(String, String)>> {
        let mut faults = Faults::default();
        let read = read_all(values.as_array().expect("an array"), "", &mut faults);
        faults.none().map(|()| read).map_err(pairs)
    }

    fn pairs(faults: Vec<Fault>) -> Vec<(String, String)> {
        faults.into_iter().map(|fault| (fault.path, fault.message)).collect()
    }

    #[track_caller]
    fn check_faults(values: &Value, expected: &[(&str, &str)]) {
        let expected: Vec<_> = expected.iter().map(|(path, text)| ((*path).to_owned(), (*text).to_owned())).collect();
        assert_eq!(read(values), Err(expected));
    }

    #[test]
    fn types_have_the_names_of_json_schema_and_of_the_deployment() {
        for (name, kind) in [("float", Kind::Number), ("map", Kind::Object), ("list", Kind::Array), ("any", Kind::Any)]
        {
            assert_eq!(Kind::named(name), Some(kind));
        }
        for name in ["string", "integer", "number", "boolean", "object", "array", "any"] {
            let kind = Kind::named(name).expect("a type");
            assert_eq!((kind.name(), json!(kind)), (name, json!(name)));
        }
        assert_eq!(Kind::named("String"), None);
    }

    #[test]
    fn values_are_not_converted() {
        let fits = |kind: Kind, value: Value| kind.fits(&value);

        assert!(fits(Kind::Integer, json!(5)) && fits(Kind::Integer, json!(u64::MAX)) && fits(Kind::Number, json!(5)));
        assert!(
            !fits(Kind::Integer, json!("5")) && !fits(Kind::Integer, json!(5.0)) && !fits(Kind::Boolean, json!("true"))
        );
        assert!(fits(Kind::Any, json!(null)) && !fits(Kind::String, json!(null)));
    }

    #[test]
    fn a_parameter_is_optional_and_of_any_type_unless_it_says_otherwise() {
        let read = read(&json!([{"name": "a"}, {"name": "b", "type": "float", "required": true, "default": null}]));

        let written = json!(read.expect("parameters"));
        assert_eq!(written[0], json!({"name": "a", "type": "any", "required": false, "description": ""}));
        assert_eq!(written[1], json!({"name": "b", "type": "number", "required": true, "description": ""}));
    }

    #[test]
    fn each_fault_of_each_parameter_is_found() {
        check_faults(
            &json!([
                {"name": "a", "type": "text", "required": "yes", "extra": 1},
                {"name": "a"},
                {"type": "string"},
                {"name": "b c"},
                {"name": "d", "type": "integer", "default": "5"},
                "e",
                {"name": "f", "type": "string", "minimum": 1},
                {"name": "g", "type": "integer", "minimum": 2, "maximum": 1},
                {"name": "h", "type": "string", "enum": ["x", 1], "default": "y"},
                {"name": "i", "enum": []},
            ]),
            &[
                ("/0/extra", "Unknown field: extra"),
                ("/0/type", "Unsupported parameter type: text"),
                ("/0/required", "Field required: expected boolean, came string"),
                ("/1/name", "Duplicate parameter: a"),
                ("/2/name", "Missing required field: name"),
                ("/3/name", "Parameter name: expected 1 to 64 bytes without braces and white space, came \"b c\""),
                ("/4/default", "Default of d: expected integer, came string"),
                ("/5", "Expected object, came string"),
                ("/6/minimum", "A minimum is for integer and number, not for string"),
                ("/7/maximum", "Maximum 1 is below the minimum 2"),
                ("/8/enum/1", "Value of the enum: expected string, came integer"),
                ("/8/default", "Default of h: expected one of \"x\", 1, came \"y\""),
                ("/9/enum", "An enum needs at least one value"),
            ],
        );
    }

    #[test]
    fn there_are_at_most_a_hundred() {
        let many: Vec<_> = (0..=PARAMETERS_MAX).map(|n| json!({"name": n.to_string()})).collect();

        assert_eq!(read(&json!(many[1..])).expect("parameters").len(), PARAMETERS_MAX);
        check_faults(&json!(many), &[("", "101 parameters, the limit is 100")]);
    }

    #[test]
    fn the_bounds_of_numbers_are_inclusive_and_exact() {
        let read = read(&json!([{"name": "a", "type": "number", "minimum": -1.5, "maximum": u64::MAX - 1}]));
        let a = &read.expect("parameters")[0];

        assert_eq!(a.refusal(&json!(-1.5)), None);
        assert_eq!(a.refusal(&json!(u64::MAX - 1)), None);
        assert_eq!(a.refusal(&json!(-2)).as_deref(), Some("expected at least -1.5, came -2"));
        assert_eq!(a.refusal(&json!(u64::MAX)).map(|text| text.contains("expected at most")), Some(true));
    }

    #[test]
    fn what_is_missing_is_one_fault_in_the_order_of_declaration() {
        let parameters = read(&json!([
            {"name": "z", "required": true}, {"name": "a", "required": true},
            {"name": "d", "required": true, "default": 1}, {"name": "n", "type": "integer"},
        ]))
        .expect("parameters");
        let given = json!({"n": "5", "u": 1});
        let mut faults = Faults::default();

        bind(&parameters, given.as_object().expect("an object"), "/params", &mut faults);

        let expected = [
            ("/params", "Missing required parameters: z, a"),
            ("/params/n", "Parameter n: expected integer, came string"),
            ("/params/u", "Unknown parameter: u"),
        ];
        let expected = expected.map(|(path, text)| (path.to_owned(), text.to_owned()));
        assert_eq!(faults.none().map_err(pairs), Err(expected.to_vec()));
    }
}
