//! The headers of Streamable HTTP that repeat what a request says, and whether they say the same.
//!
//! Proxies route and bill by the headers, the server acts on the body; a request where they differ is refused. The version
//! header is not looked at here: it decides whether these rules apply at all.
//!
//! Source: the MCP specification 2026-07-28, Streamable HTTP, "Standard Request Headers" to "Server Validation".

use std::borrow::Cow;
use std::collections::BTreeMap;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use serde_json::Value;
use serde_json::value::RawValue;

use crate::protocol::jsonrpc::Object;

/// Header of a request's method.
pub const METHOD: &str = "Mcp-Method";
/// Header of what a request is about; [`name_param`] says for which methods.
pub const NAME: &str = "Mcp-Name";
/// What headers of a tool's arguments start with, before the name in the annotation.
pub const PARAM_PREFIX: &str = "Mcp-Param-";
/// Keyword by which a property of a tool's input schema asks for a header.
pub const ANNOTATION: &str = "x-mcp-header";

const ENCODED_PREFIX: &str = "=?base64?";
const ENCODED_SUFFIX: &str = "?=";
/// The greatest integer, and with a minus the least, that JavaScript holds for certain; annotated integers stay within.
const SAFE_INTEGER_MAX: f64 = 9_007_199_254_740_991.0;
/// Characters of a value that an error repeats.
const SHOWN_CHARACTERS_MAX: usize = 100;

/// Writes a value as a header's: printable ASCII as it is, anything else as `=?base64?…?=` of its UTF-8.
///
/// Whitespace at the ends is encoded, since HTTP drops it, and so is what looks encoded.
pub fn encode(value: &str) -> Cow<'_, str> {
    let plain = value.bytes().all(|byte| matches!(byte, b' '..=b'~')) && value.trim_matches(' ') == value;
    if plain && encoded_part(value).is_none() {
        return Cow::Borrowed(value);
    }
    Cow::Owned(format!("{ENCODED_PREFIX}{}{ENCODED_SUFFIX}", STANDARD.encode(value)))
}

/// Reads a header's value; whitespace around it does not count.
///
/// # Errors
/// [`BadValue`] for base64 that is none, or not of UTF-8, and for characters that a header does not have.
pub fn decode(header: &str) -> Result<Cow<'_, str>, BadValue> {
    let value = header.trim_matches([' ', '\t']);
    if let Some(encoded) = encoded_part(value) {
        let bytes = STANDARD.decode(encoded).map_err(|_| BadValue::Base64)?;
        return String::from_utf8(bytes).map(Cow::Owned).map_err(|_| BadValue::Utf8);
    }
    match value.bytes().all(|byte| matches!(byte, b'\t' | b' '..=b'~')) {
        true => Ok(Cow::Borrowed(value)),
        false => Err(BadValue::Characters),
    }
}

/// Why a header has no value.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum BadValue {
    /// Marked as base64 without being it.
    #[error("invalid base64")]
    Base64,
    /// Base64 of bytes that are no text.
    #[error("base64 of invalid utf-8")]
    Utf8,
    /// Not marked, and beyond printable ASCII.
    #[error("characters beyond printable ascii")]
    Characters,
}

fn encoded_part(value: &str) -> Option<&str> {
    value.strip_prefix(ENCODED_PREFIX)?.strip_suffix(ENCODED_SUFFIX)
}

/// The param of a method that [`NAME`] repeats; `None` for methods without the header.
pub fn name_param(method: &str) -> Option<&'static str> {
    match method {
        "tools/call" | "prompts/get" => Some("name"),
        "resources/read" => Some("uri"),
        // The tasks extension.
        "tasks/get" | "tasks/update" | "tasks/cancel" => Some("taskId"),
        _ => None,
    }
}

/// Which arguments of a tool come as headers too.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ParamHeaders {
    /// By the lower-case name of the annotation.
    params: BTreeMap<String, Param>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
struct Param {
    header: String,
    path: Vec<String>,
}

/// Why an input schema's annotations are none: the author's fault. Clients leave out a tool that has such a schema.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum BadAnnotation {
    /// No name that a header can have.
    #[error("x-mcp-header of {property}: expected one or more letters, digits or !#$%&'*+-.^_`|~, came {came}")]
    Name {
        /// The property, by its path.
        property: String,
        /// The annotation, as JSON.
        came: String,
    },
    /// On a property whose values have no header form. The specification leaves out `number`, which has several.
    #[error("x-mcp-header of {property}: expected the type string, integer or boolean, came {came}")]
    Type {
        /// The property, by its path.
        property: String,
        /// Its type, as JSON.
        came: String,
    },
    /// Two that differ in case at most.
    #[error("x-mcp-header of {property}: {name:?} is taken by {first}")]
    Twice {
        /// The property, by its path.
        property: String,
        /// The annotation.
        name: String,
        /// The property that has it, by its path.
        first: String,
    },
    /// Below a keyword other than `properties`, so that no one path leads to the value.
    #[error("x-mcp-header below {keyword:?}: expected a property that only \"properties\" lead to")]
    Unreachable {
        /// The keyword; empty for the schema itself.
        keyword: String,
    },
}

/// Keywords whose value is a schema or an array of them.
const SCHEMA_KEYWORDS: [&str; 15] = [
    "items",
    "prefixItems",
    "contains",
    "additionalItems",
    "additionalProperties",
    "propertyNames",
    "unevaluatedItems",
    "unevaluatedProperties",
    "allOf",
    "anyOf",
    "oneOf",
    "not",
    "if",
    "then",
    "else",
];
/// Keywords whose value is a map of schemas.
const SCHEMA_MAP_KEYWORDS: [&str; 4] = ["$defs", "definitions", "patternProperties", "dependentSchemas"];

impl ParamHeaders {
    /// Collects the annotations of a tool's input schema.
    ///
    /// # Errors
    /// [`BadAnnotation`] with one that the specification does not allow.
    pub fn collect(input_schema: &Value) -> Result<Self, BadAnnotation> {
        let mut headers = ParamHeaders::default();
        // Each with the way to it, or with the keyword that is in the way.
        let mut pending: Vec<(&Value, Result<Vec<String>, &str>)> = vec![(input_schema, Ok(Vec::new()))];
        while let Some((schema, way)) = pending.pop() {
            let Some(fields) = schema.as_object() else {
                continue;
            };
            if let Some(annotation) = fields.get(ANNOTATION) {
                match &way {
                    Ok(path) if !path.is_empty() => headers.add(path.clone(), annotation, fields.get("type"))?,
                    Ok(_) => return Err(BadAnnotation::Unreachable { keyword: String::new() }),
                    Err(keyword) => return Err(BadAnnotation::Unreachable { keyword: (*keyword).to_owned() }),
                }
            }
            for (keyword, value) in fields {
                let keyword = keyword.as_str();
                let blocked = Err(way.as_ref().err().copied().unwrap_or(keyword));
                match value {
                    Value::Object(properties) if keyword == "properties" => {
                        pending.extend(properties.iter().map(|(name, property)| {
                            let extend = |path: &Vec<String>| path.iter().chain([name]).cloned().collect();
                            (property, way.as_ref().map(extend).map_err(|keyword| *keyword))
                        }));
                    }
                    Value::Object(schemas) if SCHEMA_MAP_KEYWORDS.contains(&keyword) => {
                        pending.extend(schemas.values().map(|schema| (schema, blocked.clone())));
                    }
                    Value::Array(schemas) if SCHEMA_KEYWORDS.contains(&keyword) => {
                        pending.extend(schemas.iter().map(|schema| (schema, blocked.clone())));
                    }
                    Value::Object(_) if SCHEMA_KEYWORDS.contains(&keyword) => pending.push((value, blocked)),
                    _ => {}
                }
            }
        }
        Ok(headers)
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.params.is_empty()
    }

    /// The headers by their names, each with the path to its argument.
    pub fn iter(&self) -> impl Iterator<Item = (&str, &[String])> {
        self.params.values().map(|param| (param.header.as_str(), param.path.as_slice()))
    }

    /// What the headers say for these arguments, an object: those that are there, each with its header's name.
    pub fn values(&self, arguments: &Value) -> Vec<(String, String)> {
        let value_of = |path: &[String]| path.iter().try_fold(arguments, |place, key| place.get(key));
        let said = |value: &Value| match value {
            Value::String(text) => Some(encode(text).into_owned()),
            Value::Bool(_) | Value::Number(_) => Some(value.to_string()),
            _ => None,
        };
        self.iter().filter_map(|(header, path)| Some((header.to_owned(), said(value_of(path)?)?))).collect()
    }

    fn add(&mut self, path: Vec<String>, annotation: &Value, kind: Option<&Value>) -> Result<(), BadAnnotation> {
        let property = path.join(".");
        let Some(name) = annotation.as_str().filter(|name| is_token(name)) else {
            return Err(BadAnnotation::Name { property, came: annotation.to_string() });
        };
        if !matches!(kind.and_then(Value::as_str), Some("string" | "integer" | "boolean")) {
            let came = kind.map_or("none".to_owned(), Value::to_string);
            return Err(BadAnnotation::Type { property, came });
        }
        if let Some(first) = self.params.get(&name.to_ascii_lowercase()) {
            let (name, first) = (name.to_owned(), first.path.join("."));
            return Err(BadAnnotation::Twice { property, name, first });
        }
        let param = Param { header: format!("{PARAM_PREFIX}{name}"), path };
        self.params.insert(name.to_ascii_lowercase(), param);
        Ok(())
    }
}

/// Whether it is a token of RFC 9110, section 5.6.2.
fn is_token(name: &str) -> bool {
    let is_tchar = |byte: u8| byte.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(&byte);
    !name.is_empty() && name.bytes().all(is_tchar)
}

/// A header does not say what the body says: the client's fault, `-32020` with HTTP 400.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("header {header}: expected {expected}, came {came}")]
pub struct HeaderMismatch {
    /// The header's name.
    pub header: String,
    /// What the body says, in quotes; `none` where there must be no header.
    pub expected: String,
    /// What the header says, in quotes, or what is wrong with it; `none` where there is no header.
    pub came: String,
}

/// Checks the headers of a request against its body.
///
/// `lookup` gives the value of a header by its name in any case; where a header came several times, all of them joined by
/// commas, as HTTP reads them. `params` are those of the body, `tool` the annotations of the tool that a `tools/call`
/// names. A body without what [`NAME`] repeats is left to the method to refuse.
///
/// # Errors
/// [`HeaderMismatch`] with the first header that does not fit.
pub fn check<'h>(
    lookup: impl Fn(&str) -> Option<&'h str>,
    method: &str,
    params: Option<&RawValue>,
    tool: Option<&ParamHeaders>,
) -> Result<(), HeaderMismatch> {
    // A method's name is compared as it stands: the specification encodes names and arguments only.
    let said = lookup(METHOD).map(|value| value.trim_matches([' ', '\t']));
    if said != Some(method) {
        return Err(mismatch(METHOD, quote(method), said.map(quote)));
    }
    let params = params.and_then(|params| Object::parse(params.get().as_bytes())).unwrap_or_default();
    if let Some(param) = name_param(method) {
        match (params.string(param), lookup(NAME)) {
            (Some(name), said) => check_value(NAME, &Value::String(name), said)?,
            (None, Some(said)) => return Err(mismatch(NAME, "none".to_owned(), Some(quote(said)))),
            (None, None) => {}
        }
    }
    // As the tool reads them: of a key that comes twice the last counts there.
    let arguments = match tool {
        Some(tool) if !tool.is_empty() => params.get::<Value>("arguments").unwrap_or_default(),
        _ => Value::Null,
    };
    for (header, path) in tool.filter(|_| method == "tools/call").into_iter().flat_map(ParamHeaders::iter) {
        match (argument(&arguments, path), lookup(header)) {
            (Some(value), said) => check_value(header, &value, said)?,
            (None, Some(said)) => return Err(mismatch(header, "none".to_owned(), Some(quote(said)))),
            (None, None) => {}
        }
    }
    Ok(())
}

/// The argument at the path; `None` where it is absent or `null`.
fn argument(arguments: &Value, path: &[String]) -> Option<Value> {
    let value = path.iter().try_fold(arguments, |value, name| value.get(name))?;
    (!value.is_null()).then(|| value.clone())
}

fn check_value(header: &str, value: &Value, said: Option<&str>) -> Result<(), HeaderMismatch> {
    let expected = || match value {
        Value::String(text) => quote(text),
        Value::Bool(_) | Value::Number(_) => quote(&value.to_string()),
        _ => "a string, an integer or a boolean in the body".to_owned(),
    };
    let Some(said) = said else {
        return Err(mismatch(header, expected(), None));
    };
    let said = decode(said).map_err(|bad| mismatch(header, expected(), Some(bad.to_string())))?;
    let fits = match value {
        Value::String(text) => *text == said,
        Value::Bool(value) => said == if *value { "true" } else { "false" },
        Value::Number(number) => {
            let safe = |number: &f64| number.abs() <= SAFE_INTEGER_MAX;
            let number = number.as_f64().filter(safe);
            number.is_some() && number == serde_json::from_str(&said).ok()
        }
        _ => false,
    };
    if fits { Ok(()) } else { Err(mismatch(header, expected(), Some(quote(&said)))) }
}

fn mismatch(header: &str, expected: String, came: Option<String>) -> HeaderMismatch {
    HeaderMismatch { header: header.to_owned(), expected, came: came.unwrap_or_else(|| "none".to_owned()) }
}

fn quote(text: &str) -> String {
    match text.char_indices().nth(SHOWN_CHARACTERS_MAX) {
        Some((end, _)) => format!("{:?}…", &text[..end]),
        None => format!("{text:?}"),
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use serde_json::json;

    use super::*;
    use crate::protocol::jsonrpc;

    fn outcome(
        headers: &[(&str, &str)],
        method: &str,
        params: Value,
        tool: Option<&ParamHeaders>,
    ) -> Result<(), String> {
        let lookup =
            |name: &str| headers.iter().find(|(header, _)| header.eq_ignore_ascii_case(name)).map(|(_, value)| *value);
        check(lookup, method, Some(&jsonrpc::raw(&params)), tool).map_err(|error| error.to_string())
    }

    /// Checks a call of a tool with one annotated argument.
    fn call(kind: &str, argument: Value, said: Option<&str>) -> Result<(), String> {
        let schema = json!({"type": "object", "properties": {"a": {"type": kind, "x-mcp-header": "A"}}});
        let tool = ParamHeaders::collect(&schema).expect("annotations");
        let mut headers = vec![("mcp-method", "tools/call"), ("mcp-name", "t")];
        headers.extend(said.map(|said| ("mcp-param-a", said)));
        let params = json!({"name": "t", "arguments": {"a": argument}});
        outcome(&headers, "tools/call", params, Some(&tool))
    }

    fn collect(properties: Value) -> Result<ParamHeaders, String> {
        let schema = json!({"type": "object", "properties": properties});
        ParamHeaders::collect(&schema).map_err(|error| error.to_string())
    }

    #[test]
    fn values_are_encoded_as_the_specification_shows() {
        let cases = [
            ("us-west1", "us-west1"),
            ("us west 1", "us west 1"),
            ("", ""),
            ("Hello, 世界", "=?base64?SGVsbG8sIOS4lueVjA==?="),
            (" padded ", "=?base64?IHBhZGRlZCA=?="),
            ("line1\nline2", "=?base64?bGluZTEKbGluZTI=?="),
            ("\tindented", "=?base64?CWluZGVudGVk?="),
            ("=?base64?literal?=", "=?base64?PT9iYXNlNjQ/bGl0ZXJhbD89?="),
        ];

        for (value, header) in cases {
            assert_eq!(encode(value), header, "{value:?}");
            assert_eq!(decode(header).as_deref(), Ok(value), "{header:?}");
        }
    }

    #[test]
    fn what_is_not_marked_is_literal_and_what_is_must_be_base64() {
        assert_eq!(decode("SGVsbG8=").as_deref(), Ok("SGVsbG8="));
        assert_eq!(decode("=?base64?SGVsbG8=").as_deref(), Ok("=?base64?SGVsbG8="));
        assert_eq!(decode("=?BASE64?SGVsbG8=?=").as_deref(), Ok("=?BASE64?SGVsbG8=?="));
        assert_eq!(decode(" \ta ").as_deref(), Ok("a"));
        assert_eq!(decode("=?base64?SGVsbG8?="), Err(BadValue::Base64));
        assert_eq!(decode("=?base64?SGVs!!!bG8=?="), Err(BadValue::Base64));
        assert_eq!(decode("=?base64?/w==?="), Err(BadValue::Utf8));
        assert_eq!(decode("ü"), Err(BadValue::Characters));
        assert_eq!(decode("a\u{7f}"), Err(BadValue::Characters));
    }

    #[test]
    fn the_method_is_repeated_exactly() {
        let list = |headers: &[(&str, &str)]| outcome(headers, "tools/list", json!({}), None);

        assert_eq!(list(&[("MCP-METHOD", " tools/list ")]), Ok(()));
        assert_eq!(list(&[]), Err(r#"header Mcp-Method: expected "tools/list", came none"#.to_owned()));
        let upper = list(&[("mcp-method", "TOOLS/LIST")]);
        assert_eq!(upper, Err(r#"header Mcp-Method: expected "tools/list", came "TOOLS/LIST""#.to_owned()));
    }

    #[test]
    fn the_name_is_repeated_for_the_methods_that_have_one() {
        for (method, param) in [
            ("tools/call", "name"),
            ("prompts/get", "name"),
            ("resources/read", "uri"),
            ("tasks/get", "taskId"),
            ("tasks/update", "taskId"),
            ("tasks/cancel", "taskId"),
        ] {
            let with = |said: &str| outcome(&[(METHOD, method), (NAME, said)], method, json!({param: "ü"}), None);

            assert_eq!(with(" =?base64?w7w=?= "), Ok(()), "{method}");
            assert_eq!(with("u"), Err(r#"header Mcp-Name: expected "ü", came "u""#.to_owned()));
            assert_eq!(with("=?base64?w7w?="), Err(r#"header Mcp-Name: expected "ü", came invalid base64"#.to_owned()));
            let without = outcome(&[(METHOD, method)], method, json!({param: "ü"}), None);
            assert_eq!(without, Err(r#"header Mcp-Name: expected "ü", came none"#.to_owned()));
        }
        let nameless = |headers: &[(&str, &str)]| outcome(headers, "tools/call", json!({}), None);
        assert_eq!(nameless(&[(METHOD, "tools/call")]), Ok(()));
        let extra = nameless(&[(METHOD, "tools/call"), (NAME, "t")]);
        assert_eq!(extra, Err(r#"header Mcp-Name: expected none, came "t""#.to_owned()));
    }

    #[test]
    fn arguments_are_compared_by_value() {
        assert_eq!(call("string", json!("Hello"), Some("=?base64?SGVsbG8=?=")), Ok(()));
        assert_eq!(call("string", json!(""), Some("")), Ok(()));
        assert_eq!(call("boolean", json!(false), Some("false")), Ok(()));
        assert_eq!(call("integer", json!(42), Some("42.0")), Ok(()));
        assert_eq!(call("integer", json!(-7), Some("-7")), Ok(()));

        let refused = |expected: &str, came: &str| Err(format!("header Mcp-Param-A: expected {expected}, came {came}"));
        assert_eq!(call("boolean", json!(true), Some("True")), refused(r#""true""#, r#""True""#));
        assert_eq!(call("integer", json!(42), Some("43")), refused(r#""42""#, r#""43""#));
        assert_eq!(call("integer", json!(42), Some("x")), refused(r#""42""#, r#""x""#));
        assert_eq!(call("string", json!("a"), None), refused(r#""a""#, "none"));
        let wide = 9_007_199_254_740_993_u64;
        assert!(call("integer", json!(wide), Some(&wide.to_string())).is_err());
        assert!(call("string", json!(["a"]), Some("a")).is_err());
        assert!(call("string", json!({}), None).is_err());
    }

    #[test]
    fn no_argument_means_no_header() {
        let refused = Err(r#"header Mcp-Param-A: expected none, came "x""#.to_owned());

        assert_eq!(call("string", json!(null), None), Ok(()));
        assert_eq!(call("string", json!(null), Some("x")), refused);
    }

    #[test]
    fn an_annotation_may_stand_on_a_nested_property() {
        let tool = collect(json!({
            "o": {"type": "object", "properties": {"a": {"type": "string", "x-mcp-header": "In-Ner"}}},
            "x-mcp-header": {"type": "string"}
        }))
        .expect("annotations");
        let with = |arguments: Value, said: &[(&str, &str)]| {
            let headers = [&[(METHOD, "tools/call"), (NAME, "t")], said].concat();
            outcome(&headers, "tools/call", json!({"name": "t", "arguments": arguments}), Some(&tool))
        };

        assert_eq!(tool.iter().map(|(header, _)| header).collect::<Vec<_>>(), ["Mcp-Param-In-Ner"]);
        assert_eq!(with(json!({"o": {"a": "x"}}), &[("mcp-param-in-ner", "x")]), Ok(()));
        assert_eq!(with(json!({"o": null}), &[]), Ok(()));
        assert!(with(json!({"o": {"a": "x"}}), &[]).is_err());
    }

    #[test]
    fn annotations_that_clients_refuse_are_refused() {
        let one = |property: Value| collect(json!({"a": property})).map(|_| ());
        let name = "expected one or more letters, digits or !#$%&'*+-.^_`|~";
        for bad in ["", "My Region", "Region:Primary", "Région", "Region\t1"] {
            let came = json!(bad);
            let error = one(json!({"type": "string", "x-mcp-header": bad}));
            assert_eq!(error, Err(format!("x-mcp-header of a: {name}, came {came}")));
        }
        assert_eq!(
            one(json!({"type": "string", "x-mcp-header": true})),
            Err(format!("x-mcp-header of a: {name}, came true"))
        );
        for kind in ["object", "array", "null", "number"] {
            let error = one(json!({"type": kind, "x-mcp-header": "A"}));
            let expected = format!("expected the type string, integer or boolean, came \"{kind}\"");
            assert_eq!(error, Err(format!("x-mcp-header of a: {expected}")));
        }
        assert!(one(json!({"x-mcp-header": "A"})).is_err());
        let twice = collect(json!({
            "a": {"type": "string", "x-mcp-header": "MyField"}, "b": {"type": "string", "x-mcp-header": "myfield"}
        }));
        assert!(matches!(twice, Err(text) if text.contains("is taken by")));
    }

    #[test]
    fn an_annotation_that_only_properties_lead_to_is_the_only_one() {
        let annotated = json!({"type": "string", "x-mcp-header": "A"});
        let schemas = [
            json!({"x-mcp-header": "A", "type": "string"}),
            json!({"properties": {"a": {"type": "array", "items": annotated}}}),
            json!({"properties": {"a": {"items": {"properties": {"b": annotated}}}}}),
            json!({"anyOf": [{"properties": {"a": annotated}}]}),
            json!({"else": {"properties": {"a": annotated}}}),
            json!({"$defs": {"a": annotated}}),
        ];

        for schema in schemas {
            let error = ParamHeaders::collect(&schema);
            assert!(matches!(error, Err(BadAnnotation::Unreachable { .. })), "{schema}");
        }
        let data = json!({"properties": {"a": {"default": annotated, "examples": [annotated]}}});
        assert_eq!(ParamHeaders::collect(&data), Ok(ParamHeaders::default()));
    }

    #[test]
    fn a_long_value_is_not_repeated_whole() {
        let error = call("string", json!("ü".repeat(500)), Some("x")).expect_err("another value");

        assert!(error.len() < 300, "{error}");
    }

    proptest! {
        #[test]
        fn any_value_reads_back_and_is_safe_in_a_header(value in any::<String>()) {
            let header = encode(&value);

            prop_assert!(header.bytes().all(|byte| matches!(byte, b' '..=b'~')));
            let decoded = decode(&header);
            prop_assert_eq!(decoded.as_deref(), Ok(value.as_str()));
        }
    }
}
