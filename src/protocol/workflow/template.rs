//! Templates: workflow definitions with parameters, read whole or refused with all their faults.
//!
//! A template does not know what a definition is. It is checked when it is instantiated, since placeholders may stand where
//! numbers and lists have to.
//!
//! Source: the contract of the Elixir deployment, section 10.2. Unlike there, defaults are applied, and a number stays one.

use serde::de::Error as _;
use serde::{Deserialize, Deserializer, Serialize};
use serde_json::{Map, Value};

use crate::protocol::workflow::fault::{Fault, Faults, join, push, short};
use crate::protocol::workflow::fill::{Filling, Piece, TooLarge, pieces};
use crate::protocol::workflow::measure::{is_deeper, json_bytes};
use crate::protocol::workflow::parameter::{self, Kind, Parameter, Reading};
use crate::protocol::workflow::version::{VERSION_BYTES_MAX, is_version};

/// Bytes of a template at most, as JSON text.
pub const TEMPLATE_BYTES_MAX: usize = 262_144;
/// Deepest nesting of arrays and objects in a template. With [`parameter::ARGUMENT_DEPTH_MAX`] more, an instance is still
/// less deep than the 128 that serde_json reads.
pub const TEMPLATE_DEPTH_MAX: usize = 64;
/// Bytes of a template's name and of its category at most.
pub const NAME_BYTES_MAX: usize = 128;
/// Examples of a template at most.
pub const EXAMPLES_MAX: usize = 20;
/// Bytes of an instance at most, as JSON text: what a large value can become that the definition repeats.
pub const INSTANCE_BYTES_MAX: usize = 1_048_576;
/// The category of a template that names none.
pub const CATEGORY: &str = "general";

/// A definition with placeholders, and what may be put in their place.
///
/// It is written as JSON in the deployment's keys, and read from it by [`Template::parse`] alone: what is written is also
/// read again.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Template {
    /// Its name: 1 to [`NAME_BYTES_MAX`] bytes without control characters.
    pub name: String,
    /// Its version, as [`is_version`] has it.
    pub version: String,
    /// For a person to read.
    pub description: String,
    /// What it belongs to; [`CATEGORY`] unless it says.
    pub category: String,
    /// What it takes, in the order of declaration; at most [`parameter::PARAMETERS_MAX`].
    pub parameters: Vec<Parameter>,
    /// An object in which `{{name}}` stands for the value of that parameter.
    pub definition: Value,
    /// Values that fit; at most [`EXAMPLES_MAX`].
    pub examples: Vec<Example>,
    /// An object of whatever its author wants.
    pub metadata: Value,
}

/// Values with which a template can be instantiated.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Example {
    /// For a person to read; may be empty.
    pub name: String,
    /// The value of each parameter.
    pub params: Map<String, Value>,
}

const FIELDS: [&str; 12] = [
    "name",
    "version",
    "description",
    "category",
    "parameters",
    "definition",
    "examples",
    "metadata",
    // What the server adds to a template; a client may send back what it got.
    "id",
    "template_id",
    "created_at",
    "updated_at",
];

impl Template {
    /// Reads a template. A field that is null counts as missing.
    ///
    /// `name`, `version`, `description` and `definition` are required. Unknown fields are faults, but for `id`,
    /// `template_id`, `created_at` and `updated_at`, which are the server's and are passed over.
    ///
    /// # Errors
    /// Every [`Fault`], with its place in `value`; but of what is too large or too deep only that.
    pub fn parse(value: &Value) -> Result<Self, Vec<Fault>> {
        if is_deeper(value, TEMPLATE_DEPTH_MAX) {
            return Err(whole(format!("Template is nested deeper than {TEMPLATE_DEPTH_MAX}")));
        }
        bounded(json_bytes(value))?;
        let mut faults = Faults::default();
        let template = read(value, &mut faults);
        faults.none()?;
        let template = template.expect("what gives no template added a fault");
        let mut faults = Faults::default();
        for (i, example) in template.examples.iter().enumerate() {
            for fault in template.instantiate(&example.params).err().unwrap_or_default() {
                faults.add(format!("/examples/{i}/params{}", fault.path), fault.message);
            }
        }
        faults.none()?;
        // Defaults of fields that were not there are written too.
        bounded(serde_json::to_value(&template).map_or(usize::MAX, |value| json_bytes(&value)))?;
        Ok(template)
    }

    /// The definition with the values of `params` in place of the placeholders, or else the defaults.
    ///
    /// A string that is a placeholder and nothing else becomes the value itself, of whatever type. In a longer string,
    /// strings are put in as they are and other values as JSON text. Without a value, the field or element that is the
    /// placeholder is left out, and in a longer string it becomes empty. Keys stay as they are, and so do braces in values.
    /// The result is at most [`INSTANCE_BYTES_MAX`] bytes of JSON text, and is not checked as a definition.
    ///
    /// # Errors
    /// Every [`Fault`], with its place in `params`. `Missing required parameters: a, b` is one, the first.
    pub fn instantiate(&self, params: &Map<String, Value>) -> Result<Value, Vec<Fault>> {
        let mut faults = Faults::default();
        let values = parameter::bind(&self.parameters, params, "", &mut faults);
        faults.none()?;
        match Filling::new(values, INSTANCE_BYTES_MAX).fill(&self.definition) {
            Ok(filled) => Ok(filled.unwrap_or_default()),
            Err(TooLarge) => Err(whole(format!("Instance of {} is above {INSTANCE_BYTES_MAX} bytes", self.name))),
        }
    }
}

impl<'de> Deserialize<'de> for Template {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let value = Value::deserialize(deserializer)?;
        Template::parse(&value).map_err(|faults| {
            let first = faults.first().map(|fault| format!("{} at {:?}", fault.message, fault.path));
            D::Error::custom(first.unwrap_or_default())
        })
    }
}

fn whole(message: String) -> Vec<Fault> {
    vec![Fault { path: String::new(), message }]
}

fn bounded(bytes: usize) -> Result<(), Vec<Fault>> {
    match bytes {
        0..=TEMPLATE_BYTES_MAX => Ok(()),
        _ => Err(whole(format!("Template is {bytes} bytes, the limit is {TEMPLATE_BYTES_MAX}"))),
    }
}

/// Reads as far as can be, to find all faults; what has any is not to be used.
fn read(value: &Value, faults: &mut Faults) -> Option<Template> {
    let reading = Reading::begin(value, String::new(), &FIELDS, faults)?;
    for key in ["name", "version", "description", "definition"] {
        reading.require(key, faults);
    }
    let version = reading.text("version", faults).unwrap_or("0");
    if !is_version(version) {
        let expected = format!("one like 1.0.0, of at most {VERSION_BYTES_MAX} bytes");
        faults.add("/version", format!("Version: expected {expected}, came {:?}", short(version)));
    }
    let no_object = || Value::Object(Map::new());
    let definition = reading.typed("definition", Kind::Object, faults);
    // Where the parameters can't be read, no use of one can be wrong.
    let parameters = match reading.typed("parameters", Kind::Array, faults) {
        Some(Value::Array(values)) => Some(parameter::read_all(values, "/parameters", faults)),
        _ => reading.field("parameters").is_none().then(Vec::new),
    };
    if let (Some(definition), Some(parameters)) = (definition, &parameters) {
        check_placeholders(definition, parameters, &mut "/definition".to_owned(), faults);
    }
    Some(Template {
        name: name(&reading, "name", faults).unwrap_or_default(),
        version: version.to_owned(),
        description: reading.text("description", faults).unwrap_or_default().to_owned(),
        category: name(&reading, "category", faults).unwrap_or_else(|| CATEGORY.to_owned()),
        examples: read_examples(&reading, parameters.as_deref(), faults),
        parameters: parameters.unwrap_or_default(),
        definition: definition.cloned().unwrap_or_else(no_object),
        metadata: reading.typed("metadata", Kind::Object, faults).cloned().unwrap_or_else(no_object),
    })
}

fn name(reading: &Reading, key: &str, faults: &mut Faults) -> Option<String> {
    let name = reading.text(key, faults)?;
    if !(1..=NAME_BYTES_MAX).contains(&name.len()) || name.contains(char::is_control) {
        let expected = format!("1 to {NAME_BYTES_MAX} bytes without control characters");
        faults.add(reading.at(key), format!("Field {key}: expected {expected}, came {:?}", short(name)));
    }
    Some(name.to_owned())
}

fn read_examples(reading: &Reading, parameters: Option<&[Parameter]>, faults: &mut Faults) -> Vec<Example> {
    let Some(Value::Array(values)) = reading.typed("examples", Kind::Array, faults) else { return Vec::new() };
    if values.len() > EXAMPLES_MAX {
        faults.add("/examples", format!("{} examples, the limit is {EXAMPLES_MAX}", values.len()));
    }
    let mut examples = Vec::new();
    for (i, value) in values.iter().take(EXAMPLES_MAX).enumerate() {
        let path = join("/examples", &i.to_string());
        let Some(reading) = Reading::begin(value, path, &["name", "params"], faults) else { continue };
        let params = match reading.typed("params", Kind::Object, faults) {
            Some(Value::Object(params)) => params.clone(),
            _ if reading.field("params").is_some() => continue,
            _ => Map::new(),
        };
        if let Some(parameters) = parameters {
            parameter::bind(parameters, &params, &reading.at("params"), faults);
        }
        examples.push(Example { name: reading.text("name", faults).unwrap_or_default().to_owned(), params });
    }
    examples
}

fn check_placeholders(value: &Value, parameters: &[Parameter], path: &mut String, faults: &mut Faults) {
    let end = path.len();
    match value {
        Value::String(text) => {
            for piece in pieces(text) {
                if let Piece::Placeholder { name, written } = piece
                    && parameters.iter().all(|parameter| parameter.name != name)
                {
                    faults.add(path.as_str(), format!("Placeholder of no parameter: {}", short(written)));
                }
            }
        }
        Value::Array(items) => {
            for (i, item) in items.iter().enumerate() {
                push(path, &i.to_string());
                check_placeholders(item, parameters, path, faults);
                path.truncate(end);
            }
        }
        Value::Object(fields) => {
            for (key, field) in fields {
                push(path, key);
                check_placeholders(field, parameters, path, faults);
                path.truncate(end);
            }
        }
        _ => {}
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use serde_json::json;

    use super::*;

    /// A template that has this beside what it needs.
    fn with(fields: Value) -> Value {
        let mut template = json!({"name": "t", "version": "1.0.0", "description": "", "definition": {}});
        let Value::Object(fields) = fields else { panic!("an object") };
        template.as_object_mut().expect("an object").extend(fields);
        template
    }

    fn pairs(faults: Vec<Fault>) -> Vec<(String, String)> {
        faults.into_iter().map(|fault| (fault.path, fault.message)).collect()
    }

    #[track_caller]
    fn check_faults(value: &Value, expected: &[(&str, &str)]) {
        let expected: Vec<_> = expected.iter().map(|(path, text)| ((*path).to_owned(), (*text).to_owned())).collect();
        assert_eq!(Template::parse(value).map_err(pairs), Err(expected));
    }

    #[track_caller]
    fn instantiate(template: &Value, params: Value) -> Result<Value, Vec<(String, String)>> {
        let template = Template::parse(template).expect("a template");
        let Value::Object(params) = params else { panic!("an object") };
        template.instantiate(&params).map_err(pairs)
    }

    #[test]
    fn what_is_not_said_is_the_deployments_default() {
        let template = Template::parse(&with(json!({"category": null}))).expect("a template");

        assert_eq!(
            json!(template),
            json!({
                "name": "t", "version": "1.0.0", "description": "", "category": "general", "parameters": [],
                "definition": {}, "examples": [], "metadata": {},
            })
        );
    }

    #[test]
    fn what_is_required_is_missed() {
        check_faults(
            &json!({"name": null}),
            &[
                ("/name", "Missing required field: name"),
                ("/version", "Missing required field: version"),
                ("/description", "Missing required field: description"),
                ("/definition", "Missing required field: definition"),
            ],
        );
        check_faults(&json!("t"), &[("", "Expected object, came string")]);
    }

    #[test]
    fn every_fault_is_found_at_its_place() {
        check_faults(
            &with(json!({
                "id": "template_t", "created_at": "2025-01-01T00:00:00Z", "tags": [],
                "name": "", "version": "latest", "description": 7, "metadata": [],
                "parameters": [{"name": "a", "type": "integer", "required": true}, {"name": "b", "type": "text"}],
                "definition": {"steps": [{"tool": "x", "params": {"a/b": "{{a}} {{c}}", "d": "{{ b }}"}}]},
                "examples": [{"name": "e", "params": {"a": "5"}}, {"params": {"z": 1}}, {"params": 1}],
            })),
            &[
                ("/tags", "Unknown field: tags"),
                ("/version", "Version: expected one like 1.0.0, of at most 64 bytes, came \"latest\""),
                ("/parameters/1/type", "Unsupported parameter type: text"),
                ("/definition/steps/0/params/a~1b", "Placeholder of no parameter: {{c}}"),
                ("/name", "Field name: expected 1 to 128 bytes without control characters, came \"\""),
                ("/description", "Field description: expected string, came integer"),
                ("/examples/0/params/a", "Parameter a: expected integer, came string"),
                ("/examples/1/params", "Missing required parameters: a"),
                ("/examples/1/params/z", "Unknown parameter: z"),
                ("/examples/2/params", "Field params: expected object, came integer"),
                ("/metadata", "Field metadata: expected object, came array"),
            ],
        );
    }

    #[test]
    fn parameters_that_cannot_be_read_make_no_further_faults() {
        let parameters = json!({"parameters": "a", "definition": {"x": "{{a}}"}, "examples": [{"params": {"a": 1}}]});

        check_faults(&with(parameters), &[("/parameters", "Field parameters: expected array, came string")]);
    }

    #[test]
    fn a_template_has_a_size_and_a_depth() {
        let large = "x".repeat(TEMPLATE_BYTES_MAX);
        let deep = (0..TEMPLATE_DEPTH_MAX).fold(json!({}), |inner, _| json!({"a": inner}));
        let many = vec![json!({"params": {}}); EXAMPLES_MAX + 1];

        check_faults(&with(json!({"description": large})), &[("", "Template is 262207 bytes, the limit is 262144")]);
        check_faults(&with(json!({"definition": deep})), &[("", "Template is nested deeper than 64")]);
        check_faults(&with(json!({"examples": many})), &[("/examples", "21 examples, the limit is 20")]);
    }

    #[test]
    fn what_is_written_with_its_defaults_is_within_the_size_too() {
        let empty = json_bytes(&with(json!({})));
        let fills = with(json!({"description": "x".repeat(TEMPLATE_BYTES_MAX - empty)}));

        assert_eq!(json_bytes(&fills), TEMPLATE_BYTES_MAX);
        check_faults(&fills, &[("", "Template is 262209 bytes, the limit is 262144")]);
    }

    #[test]
    fn values_keep_their_types_and_defaults_are_applied() {
        let template = with(json!({
            "parameters": [
                {"name": "url", "type": "string", "required": true}, {"name": "n", "type": "integer", "default": 3},
                {"name": "opt", "type": "list"}, {"name": "must", "required": true, "default": "d"},
            ],
            "definition": {
                "type": "loop", "max_iterations": "{{n}}", "items": "{{opt}}",
                "steps": [{"tool": "get", "params": {"url": "{{url}}?n={{n}}&o={{opt}}", "must": "{{must}}"}}],
            },
        }));
        let step = |url: &str| json!([{"tool": "get", "params": {"url": url, "must": "d"}}]);

        assert_eq!(
            instantiate(&template, json!({"url": "u"})),
            Ok(json!({"type": "loop", "max_iterations": 3, "steps": step("u?n=3&o=")}))
        );
        assert_eq!(
            instantiate(&template, json!({"url": "u", "n": 7, "opt": ["{{n}}"]})),
            Ok(json!({"type": "loop", "max_iterations": 7, "items": ["{{n}}"], "steps": step("u?n=7&o=[\"{{n}}\"]")}))
        );
    }

    #[test]
    fn what_does_not_fit_is_refused_and_the_missing_ones_come_first() {
        let template = with(json!({"parameters": [
            {"name": "b", "required": true}, {"name": "a", "required": true}, {"name": "n", "type": "integer"},
        ]}));

        let expected = [
            ("", "Missing required parameters: b, a"),
            ("/n", "Parameter n: expected integer, came string"),
            ("/x", "Unknown parameter: x"),
        ];
        let expected = expected.map(|(path, text)| (path.to_owned(), text.to_owned()));
        assert_eq!(instantiate(&template, json!({"n": "5", "x": 1})), Err(expected.to_vec()));
    }

    #[test]
    fn a_large_value_that_is_repeated_is_refused() {
        let template = with(json!({"parameters": [{"name": "a"}], "definition": {"x": vec!["{{a}}"; 10_000]}}));

        assert!(instantiate(&template, json!({"a": "x".repeat(100)})).is_ok());
        let faults = instantiate(&template, json!({"a": "x".repeat(1_000_000)})).expect_err("too large");
        assert_eq!(faults, [(String::new(), "Instance of t is above 1048576 bytes".to_owned())]);
        let example = json!({"params": {"a": "x".repeat(1_000)}});
        let Value::Object(mut template) = template else { panic!("an object") };
        template.insert("examples".to_owned(), json!([{"params": {"a": 1}}, example]));
        check_faults(&Value::Object(template), &[("/examples/1/params", "Instance of t is above 1048576 bytes")]);
    }

    #[test]
    fn an_instance_is_never_too_deep_to_be_read() {
        let nest = |levels: usize, inner: Value| (0..levels).fold(inner, |inner, _| json!({"a": inner}));
        let definition = nest(TEMPLATE_DEPTH_MAX - 2, json!({"a": "{{p}}"}));
        let template = with(json!({"parameters": [{"name": "p"}], "definition": definition}));

        let instance = instantiate(&template, json!({"p": nest(parameter::ARGUMENT_DEPTH_MAX, json!(1))}));

        let text = instance.expect("an instance").to_string();
        assert!(serde_json::from_str::<Value>(&text).is_ok());
        let deeper = instantiate(&template, json!({"p": nest(parameter::ARGUMENT_DEPTH_MAX, json!([]))}));
        assert_eq!(deeper, Err(vec![("/p".to_owned(), "Parameter p: nested deeper than 32".to_owned())]));
    }

    #[test]
    fn a_template_is_read_as_it_was_written() {
        let template = Template::parse(&with(json!({
            "category": "c", "metadata": {"tags": ["x"]},
            "parameters": [{"name": "a", "type": "float", "enum": [1, 2.5], "minimum": 1, "maximum": 3, "default": 1}],
            "definition": {"type": "sequential", "steps": ["{{a}}"]}, "examples": [{"name": "e", "params": {"a": 2.5}}],
        })))
        .expect("a template");

        let text = serde_json::to_string(&template).expect("it is JSON");

        assert_eq!(serde_json::from_str::<Template>(&text).expect("a template"), template);
        let fault = serde_json::from_str::<Template>("{}").expect_err("no template");
        assert_eq!(fault.to_string(), "Missing required field: name at \"/name\"");
    }

    proptest! {
        #[test]
        fn values_are_put_in_whatever_they_hold(given in "[{}a\"\\\\b ]{0,12}", around in "[b\"]{0,3}") {
            let text = format!("{around}{{{{b}}}}{around}");
            let definition = json!({"exact": "{{a}}", "text": text, "list": ["{{a}}", "{{b}}"]});
            let template = with(json!({"parameters": [{"name": "a"}, {"name": "b"}], "definition": definition}));

            let instance = instantiate(&template, json!({"a": [given], "b": given})).expect("an instance");

            let text = format!("{around}{given}{around}");
            prop_assert_eq!(instance, json!({"exact": [given], "text": text, "list": [[given], given]}));
        }

        #[test]
        fn whatever_is_read_is_answered(
            field in prop::sample::select(&["name", "version", "parameters", "definition", "examples", "metadata"]),
            text in r#"[\[\]{}",:a1]{0,20}"#,
        ) {
            let value = serde_json::from_str(&text).unwrap_or(json!(text));
            let template = with(json!({(field): value}));

            if let Ok(template) = Template::parse(&template) {
                prop_assert_eq!(Template::parse(&json!(template)), Ok(template));
            }
        }
    }
}
