//! The fields of a form: their schemas, and whether a value fits.

use serde::Serialize;
use serde_json::{Number, Value};

use super::format::Format;
use crate::protocol::mcp::event::number;

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
    pub(super) fn check(&self, value: &Value) -> Result<(), Misfit> {
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
            Some(format) if !format.fits(text) => misfit(format.expected(), value),
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
pub(super) struct Misfit {
    pub(super) expected: String,
    pub(super) came: String,
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
