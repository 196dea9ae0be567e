//! What a server asks of a person through the client, and whether the answer fits: `elicitation/create` and its result.
//!
//! A form asks for fields with primitive values, a URL sends the person elsewhere. Which revision and which capability
//! allows which mode is not looked at here.
//!
//! Source: `ElicitRequestParams` and `ElicitResult` of the MCP schema, 2025-06-18 to 2026-07-28.

use std::collections::BTreeMap;

use serde::Serialize;
use serde_json::value::RawValue;
use serde_json::{Map, Number, Value};

use crate::protocol::jsonrpc::{self, Object};
use crate::protocol::mcp::event::number;

/// A request for the fields of a form.
#[derive(Clone, Debug, PartialEq)]
pub struct Form {
    message: String,
    fields: BTreeMap<String, Field>,
    required: Vec<String>,
}

impl Form {
    /// A form without fields; `message` tells the person what it is for.
    pub fn new(message: impl Into<String>) -> Self {
        Form { message: message.into(), fields: BTreeMap::new(), required: Vec::new() }
    }

    /// Adds a field that must be answered. A field of the same name is replaced.
    pub fn required(mut self, name: impl Into<String>, field: impl Into<Field>) -> Self {
        let name = name.into();
        if !self.required.contains(&name) {
            self.required.push(name.clone());
        }
        self.fields.insert(name, field.into());
        self
    }

    /// Adds a field that may stay empty. A field of the same name is replaced.
    pub fn optional(mut self, name: impl Into<String>, field: impl Into<Field>) -> Self {
        let name = name.into();
        self.required.retain(|required| *required != name);
        self.fields.insert(name, field.into());
        self
    }

    /// The params of `elicitation/create`.
    ///
    /// `with_mode` adds `"mode":"form"`, which revisions before 2025-11-25 don't have.
    pub fn to_params(&self, with_mode: bool) -> Box<RawValue> {
        #[derive(Serialize)]
        #[serde(rename_all = "camelCase")]
        struct Params<'a> {
            #[serde(skip_serializing_if = "Option::is_none")]
            mode: Option<&'static str>,
            message: &'a str,
            requested_schema: Schema<'a>,
        }
        #[derive(Serialize)]
        struct Schema<'a> {
            #[serde(rename = "type")]
            kind: &'static str,
            properties: &'a BTreeMap<String, Field>,
            #[serde(skip_serializing_if = "<[String]>::is_empty")]
            required: &'a [String],
        }

        jsonrpc::raw(&Params {
            mode: with_mode.then_some("form"),
            message: &self.message,
            requested_schema: Schema { kind: "object", properties: &self.fields, required: &self.required },
        })
    }

    /// Reads the result that answers this form. Fields that the form does not have are left out.
    ///
    /// # Errors
    /// [`BadAnswer`]: no `ElicitResult`, or accepted with fields that don't fit.
    pub fn read(&self, result: &RawValue) -> Result<Answer, BadAnswer> {
        let mut answer = Answer::parse(result)?;
        if let Answer::Accept(content) = &mut answer {
            content.retain(|name, _| self.fields.contains_key(name));
            self.check(content)?;
        }
        Ok(answer)
    }

    /// Checks fields against the form.
    ///
    /// # Errors
    /// [`BadAnswer::Missing`] for a required field that is not there, [`BadAnswer::Field`] for the first, in the order of
    /// their names, that does not fit.
    pub fn check(&self, content: &Map<String, Value>) -> Result<(), BadAnswer> {
        if let Some(name) = self.required.iter().find(|name| !content.contains_key(*name)) {
            return Err(BadAnswer::Missing { name: name.clone() });
        }
        for (name, field) in &self.fields {
            if let Some(value) = content.get(name) {
                field.check(value).map_err(|Misfit { expected, came }| BadAnswer::Field {
                    name: name.clone(),
                    expected,
                    came,
                })?;
            }
        }
        Ok(())
    }
}

/// A request to open a page, for what must not pass through the client: credentials, payment, third-party consent.
///
/// Source: 2025-11-25 and later.
#[derive(Clone, Debug, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct UrlRequest {
    mode: &'static str,
    message: String,
    url: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    elicitation_id: Option<String>,
}

impl UrlRequest {
    /// A request to open `url`; `message` tells the person why.
    pub fn new(message: impl Into<String>, url: impl Into<String>) -> Self {
        UrlRequest { mode: "url", message: message.into(), url: url.into(), elicitation_id: None }
    }

    /// Sets the id that says later that it is done. 2025-11-25 demands it, 2026-07-28 has none.
    pub fn elicitation_id(mut self, id: impl Into<String>) -> Self {
        self.elicitation_id = Some(id.into());
        self
    }

    /// The params of `elicitation/create`.
    pub fn to_params(&self) -> Box<RawValue> {
        jsonrpc::raw(self)
    }
}

/// What the person did: an `ElicitResult`.
#[derive(Clone, Debug, PartialEq)]
pub enum Answer {
    /// Filled in the form, or agreed to open the page; the fields of a form.
    Accept(Map<String, Value>),
    /// Said no.
    Decline,
    /// Went away without a choice.
    Cancel,
}

impl Answer {
    /// Reads a result; its fields are checked against no form.
    ///
    /// # Errors
    /// [`BadAnswer`] if it is no object, has another `action`, or `content` that is no object.
    pub fn parse(result: &RawValue) -> Result<Self, BadAnswer> {
        let object = Object::parse(result.get().as_bytes()).ok_or(BadAnswer::NoObject)?;
        match object.string("action").as_deref() {
            Some("accept") => match object.raw("content").map(RawValue::get) {
                None | Some("null") => Ok(Answer::Accept(Map::new())),
                Some(_) => object.get("content").map(Answer::Accept).ok_or(BadAnswer::Content),
            },
            Some("decline") => Ok(Answer::Decline),
            Some("cancel") => Ok(Answer::Cancel),
            Some(other) => Err(BadAnswer::Action { came: format!("{other:?}") }),
            None if object.has("action") => Err(BadAnswer::Action { came: "no string".to_owned() }),
            None => Err(BadAnswer::Action { came: "nothing".to_owned() }),
        }
    }
}

/// Why a result is no answer to what was asked: the client's fault. Texts of the person are not repeated.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum BadAnswer {
    /// Any other JSON value.
    #[error("elicitation result: expected an object")]
    NoObject,
    /// An action that the schema does not have.
    #[error("elicitation result: expected action accept, decline or cancel, came {came}")]
    Action {
        /// What it says.
        came: String,
    },
    /// Fields that are no object.
    #[error("elicitation result: expected content to be an object")]
    Content,
    /// A field that must be answered and is not.
    #[error("elicitation result: field {name:?} is required, came nothing")]
    Missing {
        /// Which.
        name: String,
    },
    /// A field whose value its schema does not allow.
    #[error("elicitation result: field {name:?}: expected {expected}, came {came}")]
    Field {
        /// Which.
        name: String,
        /// What its schema allows.
        expected: String,
        /// What is there instead, without the person's words.
        came: String,
    },
}

/// One field of a form, of any of the kinds below.
#[derive(Clone, Debug, PartialEq, Serialize)]
#[serde(untagged)]
pub enum Field {
    /// A line of text.
    Text(TextField),
    /// A number, whole or not.
    Number(NumberField),
    /// Yes or no.
    Boolean(BooleanField),
    /// One of several.
    Choice(ChoiceField),
    /// Any of several.
    Choices(ChoicesField),
}

impl Field {
    fn check(&self, value: &Value) -> Result<(), Misfit> {
        match self {
            Field::Text(field) => field.check(value),
            Field::Number(field) => field.check(value),
            Field::Boolean(_) if value.is_boolean() => Ok(()),
            Field::Boolean(_) => misfit("a boolean", value),
            Field::Choice(field) => field.check(value),
            Field::Choices(field) => field.check(value),
        }
    }
}

/// Gives the builders of a field what all of them have, and the conversion into [`Field`].
macro_rules! fields {
    ($($field:ident => $variant:ident),*) => {$(
        impl $field {
            /// Sets the label that the person sees.
            pub fn title(mut self, title: impl Into<String>) -> Self {
                self.title = Some(title.into());
                self
            }

            /// Sets what explains the field.
            pub fn description(mut self, description: impl Into<String>) -> Self {
                self.description = Some(description.into());
                self
            }
        }

        impl From<$field> for Field {
            fn from(field: $field) -> Self {
                Field::$variant(field)
            }
        }
    )*};
}

fields!(TextField => Text, NumberField => Number, BooleanField => Boolean, ChoiceField => Choice, ChoicesField => Choices);

/// What a text has to look like.
///
/// An answer is held to the outer shape only: `a@b` is an email, a URI has a scheme, a date has a month and a day that
/// there are. Who needs more looks closer.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Format {
    /// An email address.
    Email,
    /// A URI.
    Uri,
    /// A day: `2026-07-28`.
    Date,
    /// A moment, as RFC 3339 writes it.
    DateTime,
}

/// A field that holds a line of text.
#[derive(Clone, Debug, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct TextField {
    #[serde(rename = "type")]
    kind: &'static str,
    #[serde(skip_serializing_if = "Option::is_none")]
    title: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    description: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    format: Option<Format>,
    #[serde(skip_serializing_if = "Option::is_none")]
    min_length: Option<usize>,
    #[serde(skip_serializing_if = "Option::is_none")]
    max_length: Option<usize>,
    #[serde(skip_serializing_if = "Option::is_none")]
    default: Option<String>,
}

impl TextField {
    /// A field of any text.
    pub fn new() -> Self {
        TextField {
            kind: "string",
            title: None,
            description: None,
            format: None,
            min_length: None,
            max_length: None,
            default: None,
        }
    }

    /// Sets what the text has to look like.
    pub fn format(mut self, format: Format) -> Self {
        self.format = Some(format);
        self
    }

    /// Sets the fewest characters.
    pub fn min_length(mut self, characters: usize) -> Self {
        self.min_length = Some(characters);
        self
    }

    /// Sets the most characters.
    pub fn max_length(mut self, characters: usize) -> Self {
        self.max_length = Some(characters);
        self
    }

    /// Sets the text that the form starts with.
    pub fn default(mut self, text: impl Into<String>) -> Self {
        self.default = Some(text.into());
        self
    }

    fn check(&self, value: &Value) -> Result<(), Misfit> {
        let Value::String(text) = value else {
            return misfit("a string", value);
        };
        let characters = text.chars().count();
        let out_of_bounds = |expected: String| Err(Misfit { expected, came: characters.to_string() });
        match (self.min_length, self.max_length) {
            (Some(min), _) if characters < min => return out_of_bounds(format!("at least {min} characters")),
            (_, Some(max)) if characters > max => return out_of_bounds(format!("at most {max} characters")),
            _ => {}
        }
        match self.format {
            Some(Format::Email) if !is_email(text) => misfit("an email address", value),
            Some(Format::Uri) if !is_uri(text) => misfit("a uri", value),
            Some(Format::Date) if !is_date(text) => misfit("a date such as 2026-07-28", value),
            Some(Format::DateTime) if !is_date_time(text) => misfit("a time such as 2026-07-28T12:00:00Z", value),
            _ => Ok(()),
        }
    }
}

impl Default for TextField {
    fn default() -> Self {
        TextField::new()
    }
}

/// A field that holds a number.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct NumberField {
    #[serde(rename = "type")]
    kind: &'static str,
    #[serde(skip_serializing_if = "Option::is_none")]
    title: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    description: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    minimum: Option<Number>,
    #[serde(skip_serializing_if = "Option::is_none")]
    maximum: Option<Number>,
    #[serde(skip_serializing_if = "Option::is_none")]
    default: Option<Number>,
}

impl NumberField {
    /// A field of any number.
    pub fn number() -> Self {
        NumberField { kind: "number", title: None, description: None, minimum: None, maximum: None, default: None }
    }

    /// A field of whole numbers.
    pub fn integer() -> Self {
        NumberField { kind: "integer", ..NumberField::number() }
    }

    /// Sets the least number; one that is not finite bounds nothing.
    pub fn minimum(mut self, minimum: f64) -> Self {
        self.minimum = number(minimum);
        self
    }

    /// Sets the greatest number; one that is not finite bounds nothing.
    pub fn maximum(mut self, maximum: f64) -> Self {
        self.maximum = number(maximum);
        self
    }

    /// Sets the number that the form starts with, if it is finite.
    pub fn default(mut self, default: f64) -> Self {
        self.default = number(default);
        self
    }

    fn check(&self, value: &Value) -> Result<(), Misfit> {
        let Some(came) = value.as_f64() else {
            return misfit(if self.kind == "integer" { "an integer" } else { "a number" }, value);
        };
        // JSON Schema takes 1.0 as an integer.
        if self.kind == "integer" && came.fract() != 0.0 {
            return misfit("an integer", value);
        }
        let bound = |number: &Option<Number>| number.as_ref().and_then(Number::as_f64);
        match (bound(&self.minimum), bound(&self.maximum)) {
            (Some(minimum), _) if came < minimum => misfit(&format!("at least {minimum}"), value),
            (_, Some(maximum)) if came > maximum => misfit(&format!("at most {maximum}"), value),
            _ => Ok(()),
        }
    }
}

/// A field that holds yes or no.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct BooleanField {
    #[serde(rename = "type")]
    kind: &'static str,
    #[serde(skip_serializing_if = "Option::is_none")]
    title: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    description: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    default: Option<bool>,
}

impl BooleanField {
    /// A field of yes or no.
    pub fn new() -> Self {
        BooleanField { kind: "boolean", title: None, description: None, default: None }
    }

    /// Sets what the form starts with.
    pub fn default(mut self, default: bool) -> Self {
        self.default = Some(default);
        self
    }
}

impl Default for BooleanField {
    fn default() -> Self {
        BooleanField::new()
    }
}

/// A value to choose, with what the person reads for it.
#[derive(Clone, Debug, PartialEq, Serialize)]
struct Titled {
    #[serde(rename = "const")]
    value: String,
    title: String,
}

fn titled<V: Into<String>, T: Into<String>>(choices: impl IntoIterator<Item = (V, T)>) -> Vec<Titled> {
    choices.into_iter().map(|(value, title)| Titled { value: value.into(), title: title.into() }).collect()
}

/// A field that holds one of several values.
#[derive(Clone, Debug, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct ChoiceField {
    #[serde(rename = "type")]
    kind: &'static str,
    #[serde(skip_serializing_if = "Option::is_none")]
    title: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    description: Option<String>,
    #[serde(flatten)]
    choices: Choice,
    #[serde(skip_serializing_if = "Option::is_none")]
    default: Option<String>,
}

#[derive(Clone, Debug, PartialEq, Serialize)]
#[serde(untagged)]
enum Choice {
    Titled {
        #[serde(rename = "oneOf")]
        one_of: Vec<Titled>,
    },
    Plain {
        #[serde(rename = "enum")]
        values: Vec<String>,
        #[serde(rename = "enumNames", skip_serializing_if = "Vec::is_empty")]
        names: Vec<String>,
    },
}

impl ChoiceField {
    /// A choice of one of these values, which the person reads as they are.
    pub fn of<V: Into<String>>(values: impl IntoIterator<Item = V>) -> Self {
        let values = values.into_iter().map(Into::into).collect();
        ChoiceField::with(Choice::Plain { values, names: Vec::new() })
    }

    /// A choice of one of these pairs of value and title. Source: 2025-11-25 and later.
    pub fn titled<V: Into<String>, T: Into<String>>(choices: impl IntoIterator<Item = (V, T)>) -> Self {
        ChoiceField::with(Choice::Titled { one_of: titled(choices) })
    }

    /// As [`ChoiceField::titled`], in the shape of 2025-06-18: `enumNames`.
    pub fn legacy_titled<V: Into<String>, T: Into<String>>(choices: impl IntoIterator<Item = (V, T)>) -> Self {
        let (values, names) = choices.into_iter().map(|(value, title)| (value.into(), title.into())).unzip();
        ChoiceField::with(Choice::Plain { values, names })
    }

    /// Sets the value that the form starts with.
    pub fn default(mut self, value: impl Into<String>) -> Self {
        self.default = Some(value.into());
        self
    }

    fn with(choices: Choice) -> Self {
        ChoiceField { kind: "string", title: None, description: None, choices, default: None }
    }

    fn check(&self, value: &Value) -> Result<(), Misfit> {
        let values: Vec<&str> = match &self.choices {
            Choice::Titled { one_of } => one_of.iter().map(|titled| titled.value.as_str()).collect(),
            Choice::Plain { values, .. } => values.iter().map(String::as_str).collect(),
        };
        check_choice(&values, value)
    }
}

/// A field that holds any of several values.
#[derive(Clone, Debug, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct ChoicesField {
    #[serde(rename = "type")]
    kind: &'static str,
    #[serde(skip_serializing_if = "Option::is_none")]
    title: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    description: Option<String>,
    items: Items,
    #[serde(skip_serializing_if = "Option::is_none")]
    min_items: Option<usize>,
    #[serde(skip_serializing_if = "Option::is_none")]
    max_items: Option<usize>,
    #[serde(skip_serializing_if = "Option::is_none")]
    default: Option<Vec<String>>,
}

#[derive(Clone, Debug, PartialEq, Serialize)]
#[serde(untagged)]
enum Items {
    Titled {
        #[serde(rename = "anyOf")]
        any_of: Vec<Titled>,
    },
    Plain {
        #[serde(rename = "type")]
        kind: &'static str,
        #[serde(rename = "enum")]
        values: Vec<String>,
    },
}

impl ChoicesField {
    /// A choice of any of these values, which the person reads as they are.
    pub fn of<V: Into<String>>(values: impl IntoIterator<Item = V>) -> Self {
        let values = values.into_iter().map(Into::into).collect();
        ChoicesField::with(Items::Plain { kind: "string", values })
    }

    /// A choice of any of these pairs of value and title.
    pub fn titled<V: Into<String>, T: Into<String>>(choices: impl IntoIterator<Item = (V, T)>) -> Self {
        ChoicesField::with(Items::Titled { any_of: titled(choices) })
    }

    /// Sets how many must be chosen.
    pub fn min_items(mut self, count: usize) -> Self {
        self.min_items = Some(count);
        self
    }

    /// Sets how many may be chosen.
    pub fn max_items(mut self, count: usize) -> Self {
        self.max_items = Some(count);
        self
    }

    /// Sets the values that the form starts with.
    pub fn default<V: Into<String>>(mut self, values: impl IntoIterator<Item = V>) -> Self {
        self.default = Some(values.into_iter().map(Into::into).collect());
        self
    }

    fn with(items: Items) -> Self {
        let (kind, title, description) = ("array", None, None);
        ChoicesField { kind, title, description, items, min_items: None, max_items: None, default: None }
    }

    fn check(&self, value: &Value) -> Result<(), Misfit> {
        let Value::Array(chosen) = value else {
            return misfit("an array", value);
        };
        let values: Vec<&str> = match &self.items {
            Items::Titled { any_of } => any_of.iter().map(|titled| titled.value.as_str()).collect(),
            Items::Plain { values, .. } => values.iter().map(String::as_str).collect(),
        };
        let came = chosen.len();
        match (self.min_items, self.max_items) {
            (Some(min), _) if came < min => misfit(&format!("at least {min} items"), value),
            (_, Some(max)) if came > max => misfit(&format!("at most {max} items"), value),
            _ => chosen.iter().try_for_each(|value| check_choice(&values, value)),
        }
    }
}

/// What a field's schema allows, and what came.
struct Misfit {
    expected: String,
    came: String,
}

fn misfit(expected: &str, value: &Value) -> Result<(), Misfit> {
    let came = match value {
        Value::Null => "null".to_owned(),
        Value::Bool(value) => value.to_string(),
        Value::Number(number) => number.to_string(),
        Value::String(text) => format!("a string of {} characters", text.chars().count()),
        Value::Array(items) => format!("an array of {} items", items.len()),
        Value::Object(_) => "an object".to_owned(),
    };
    Err(Misfit { expected: expected.to_owned(), came })
}

fn check_choice(values: &[&str], value: &Value) -> Result<(), Misfit> {
    if value.as_str().is_some_and(|text| values.contains(&text)) {
        return Ok(());
    }
    misfit(&format!("one of {}", values.join(", ")), value)
}

fn is_email(text: &str) -> bool {
    let ends = text.rsplit_once('@').is_some_and(|(local, domain)| !local.is_empty() && !domain.is_empty());
    ends && !text.contains(|c: char| c.is_whitespace() || c.is_control())
}

fn is_uri(text: &str) -> bool {
    let Some((scheme, rest)) = text.split_once(':') else {
        return false;
    };
    scheme.starts_with(|c: char| c.is_ascii_alphabetic())
        && scheme.chars().all(|c| c.is_ascii_alphanumeric() || matches!(c, '+' | '-' | '.'))
        && !rest.contains(|c: char| c.is_whitespace() || c.is_control())
}

fn is_date(text: &str) -> bool {
    let bytes = text.as_bytes();
    if bytes.len() != 10 || bytes[4] != b'-' || bytes[7] != b'-' {
        return false;
    }
    let (Some(year), Some(month), Some(day)) = (digits(&bytes[..4]), digits(&bytes[5..7]), digits(&bytes[8..])) else {
        return false;
    };
    let leap = year % 4 == 0 && (year % 100 != 0 || year % 400 == 0);
    let days = match month {
        4 | 6 | 9 | 11 => 30,
        2 => 28 + u32::from(leap),
        1..=12 => 31,
        _ => 0,
    };
    (1..=days).contains(&day)
}

fn is_date_time(text: &str) -> bool {
    let Some((date, time)) = text.split_once(['T', 't']) else {
        return false;
    };
    let Some((clock, rest)) = time.split_at_checked(8) else {
        return false;
    };
    let zone = match rest.strip_prefix('.') {
        Some(fraction) => {
            let end = fraction.bytes().take_while(u8::is_ascii_digit).count();
            if end == 0 {
                return false;
            }
            &fraction[end..]
        }
        None => rest,
    };
    let zone_fits = match zone.as_bytes() {
        [b'Z' | b'z'] => true,
        [b'+' | b'-', offset @ ..] => offset.len() == 5 && is_clock(offset),
        _ => false,
    };
    is_date(date) && is_clock(clock.as_bytes()) && zone_fits
}

/// Whether the bytes are hours, minutes and perhaps seconds; RFC 3339 allows a leap second.
fn is_clock(bytes: &[u8]) -> bool {
    const LIMITS: [u32; 3] = [23, 59, 60];
    let parts = bytes.split(|byte| *byte == b':');
    parts.zip(LIMITS).all(|(part, limit)| part.len() == 2 && digits(part).is_some_and(|value| value <= limit))
        && bytes.iter().filter(|byte| **byte == b':').count() == bytes.len() / 3
}

fn digits(bytes: &[u8]) -> Option<u32> {
    bytes.iter().try_fold(0, |value, byte| Some(value * 10 + char::from(*byte).to_digit(10)?))
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn value(raw: &RawValue) -> Value {
        serde_json::from_str(raw.get()).expect("JSON")
    }

    fn schema(field: impl Into<Field>) -> Value {
        serde_json::to_value(field.into()).expect("serializes")
    }

    fn read(form: &Form, result: Value) -> Result<Answer, String> {
        form.read(&jsonrpc::raw(&result)).map_err(|error| error.to_string())
    }

    /// Checks one value against one field: `None` if it fits, otherwise what was expected and came.
    fn refusal(field: impl Into<Field>, came: Value) -> Option<String> {
        let text = read(&Form::new("?").optional("f", field), json!({"action": "accept", "content": {"f": came}}));
        text.err().map(|text| text.replace(r#"elicitation result: field "f": "#, ""))
    }

    #[test]
    fn a_form_is_an_object_schema_and_says_its_mode_if_asked_to() {
        let form = Form::new("Who?").required("name", TextField::new()).optional("age", NumberField::integer());
        let schema = json!({
            "type": "object",
            "properties": {"name": {"type": "string"}, "age": {"type": "integer"}},
            "required": ["name"]
        });

        assert_eq!(
            value(&form.to_params(true)),
            json!({"mode": "form", "message": "Who?", "requestedSchema": schema.clone()})
        );
        assert_eq!(value(&form.to_params(false)), json!({"message": "Who?", "requestedSchema": schema}));
        assert_eq!(
            value(&Form::new("?").to_params(false)),
            json!({"message": "?", "requestedSchema": {"type": "object", "properties": {}}})
        );
    }

    #[test]
    fn fields_have_the_shapes_of_the_schema() {
        assert_eq!(
            schema(
                TextField::new()
                    .title("T")
                    .description("d")
                    .format(Format::DateTime)
                    .min_length(1)
                    .max_length(9)
                    .default("x")
            ),
            json!({
                "type": "string", "title": "T", "description": "d", "format": "date-time", "minLength": 1, "maxLength": 9,
                "default": "x"
            })
        );
        assert_eq!(
            schema(NumberField::number().minimum(0.5).maximum(9.0).default(1.0)),
            json!({"type": "number", "minimum": 0.5, "maximum": 9, "default": 1})
        );
        assert_eq!(schema(BooleanField::new().default(true)), json!({"type": "boolean", "default": true}));
        assert_eq!(
            schema(ChoiceField::of(["a", "b"]).default("a")),
            json!({"type": "string", "enum": ["a", "b"], "default": "a"})
        );
        assert_eq!(
            schema(ChoiceField::titled([("a", "A")])),
            json!({"type": "string", "oneOf": [{"const": "a", "title": "A"}]})
        );
        assert_eq!(
            schema(ChoiceField::legacy_titled([("a", "A"), ("b", "B")])),
            json!({"type": "string", "enum": ["a", "b"], "enumNames": ["A", "B"]})
        );
        assert_eq!(
            schema(ChoicesField::of(["a"]).min_items(1).max_items(2).default(["a"])),
            json!({
                "type": "array", "items": {"type": "string", "enum": ["a"]}, "minItems": 1, "maxItems": 2, "default": ["a"]
            })
        );
        assert_eq!(
            schema(ChoicesField::titled([("a", "A")])),
            json!({"type": "array", "items": {"anyOf": [{"const": "a", "title": "A"}]}})
        );
    }

    #[test]
    fn a_url_request_has_an_id_where_it_was_given_one() {
        let request = UrlRequest::new("Sign in", "https://a/b");

        assert_eq!(value(&request.to_params()), json!({"mode": "url", "message": "Sign in", "url": "https://a/b"}));
        assert_eq!(value(&request.elicitation_id("e1").to_params())["elicitationId"], json!("e1"));
    }

    #[test]
    fn an_answer_is_one_of_three_actions() {
        let form = Form::new("?").optional("a", TextField::new());
        let content = json!({"a": "x"}).as_object().cloned().expect("an object");

        assert_eq!(
            read(&form, json!({"action": "accept", "content": {"a": "x", "other": 1}})),
            Ok(Answer::Accept(content))
        );
        assert_eq!(read(&form, json!({"action": "accept"})), Ok(Answer::Accept(Map::new())));
        assert_eq!(read(&form, json!({"action": "decline", "content": null})), Ok(Answer::Decline));
        assert_eq!(read(&form, json!({"action": "cancel"})), Ok(Answer::Cancel));
    }

    #[test]
    fn what_is_no_answer_is_refused_with_what_was_expected() {
        let form = Form::new("?").required("a", TextField::new());
        let cases = [
            (json!([]), "elicitation result: expected an object"),
            (json!({}), "elicitation result: expected action accept, decline or cancel, came nothing"),
            (json!({"action": 1}), "elicitation result: expected action accept, decline or cancel, came no string"),
            (json!({"action": "ok"}), r#"elicitation result: expected action accept, decline or cancel, came "ok""#),
            (json!({"action": "accept", "content": []}), "elicitation result: expected content to be an object"),
            (json!({"action": "accept"}), r#"elicitation result: field "a" is required, came nothing"#),
        ];

        for (result, expected) in cases {
            assert_eq!(read(&form, result.clone()), Err(expected.to_owned()), "{result}");
        }
    }

    #[test]
    fn values_are_held_to_their_fields() {
        let some = |text: &str| Some(text.to_owned());
        let short = || TextField::new().min_length(2).max_length(3);

        assert_eq!(refusal(short(), json!("äöü")), None);
        assert_eq!(refusal(short(), json!("ä")), some("expected at least 2 characters, came 1"));
        assert_eq!(refusal(short(), json!("abcd")), some("expected at most 3 characters, came 4"));
        assert_eq!(refusal(short(), json!(null)), some("expected a string, came null"));

        let age = || NumberField::integer().minimum(18.0).maximum(99.0);
        assert_eq!(refusal(age(), json!(18)), None);
        assert_eq!(refusal(age(), json!(18.0)), None);
        assert_eq!(refusal(age(), json!(18.5)), some("expected an integer, came 18.5"));
        assert_eq!(refusal(age(), json!(17)), some("expected at least 18, came 17"));
        assert_eq!(refusal(age(), json!(100)), some("expected at most 99, came 100"));
        assert_eq!(refusal(age(), json!("18")), some("expected an integer, came a string of 2 characters"));
        assert_eq!(refusal(NumberField::number(), json!({})), some("expected a number, came an object"));

        assert_eq!(refusal(BooleanField::new(), json!(false)), None);
        assert_eq!(refusal(BooleanField::new(), json!(0)), some("expected a boolean, came 0"));

        for choice in [
            ChoiceField::of(["a", "b"]),
            ChoiceField::titled([("a", "A"), ("b", "B")]),
            ChoiceField::legacy_titled([("a", "A"), ("b", "B")]),
        ] {
            assert_eq!(refusal(choice.clone(), json!("b")), None);
            assert_eq!(refusal(choice, json!("B")), some("expected one of a, b, came a string of 1 characters"));
        }
        for choices in [ChoicesField::of(["a", "b"]), ChoicesField::titled([("a", "A"), ("b", "B")])] {
            let choices = choices.min_items(1).max_items(2);
            assert_eq!(refusal(choices.clone(), json!(["b", "a"])), None);
            assert_eq!(
                refusal(choices.clone(), json!([])),
                some("expected at least 1 items, came an array of 0 items")
            );
            assert_eq!(
                refusal(choices.clone(), json!(["a", "a", "a"])),
                some("expected at most 2 items, came an array of 3 items")
            );
            assert_eq!(refusal(choices.clone(), json!(["a", 1])), some("expected one of a, b, came 1"));
            assert_eq!(refusal(choices, json!("a")), some("expected an array, came a string of 1 characters"));
        }
    }

    #[test]
    fn formats_are_held_to_their_outer_shape() {
        let cases: &[(Format, &[&str], &[&str])] = &[
            (Format::Email, &["a@b", "a.b@c.example"], &["", "a", "@b", "a@", "a b@c"]),
            (Format::Uri, &["https://a/b", "urn:x"], &["", "/a", "1a:b", ":b", "a:b c"]),
            (Format::Date, &["2026-07-28", "2024-02-29"], &["", "2026-7-28", "2026-13-01", "2026-02-29", "2026-01-00"]),
            (
                Format::DateTime,
                &["2026-07-28T12:00:00Z", "2026-07-28t12:00:60.5+02:00"],
                &[
                    "2026-07-28",
                    "2026-07-28T12:00Z",
                    "2026-07-28T24:00:00Z",
                    "2026-07-28T12:00:00",
                    "2026-07-28T12:00:00.Z",
                    "2026-07-28T12:00:00+2:00",
                    "2026-07-28T120:00:0Z",
                ],
            ),
        ];

        for (format, good, bad) in cases {
            let refused = |text: &str| refusal(TextField::new().format(*format), json!(text)).is_some();
            assert!(good.iter().all(|text| !refused(text)), "{format:?}");
            for text in *bad {
                assert!(refused(text), "{format:?} {text:?}");
            }
        }
    }

    #[test]
    fn a_field_added_again_replaces_the_first() {
        let form = Form::new("?").required("a", TextField::new()).optional("a", BooleanField::new());

        assert_eq!(
            value(&form.to_params(false))["requestedSchema"],
            json!({"type": "object", "properties": {"a": {"type": "boolean"}}})
        );
    }
}
