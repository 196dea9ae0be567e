//! What a server asks of a person through the client, and whether the answer fits: `elicitation/create` and its result.
//!
//! A form asks for fields with primitive values, a URL sends the person elsewhere. Which revision and which capability
//! allows which mode is not looked at here.
//!
//! Source: `ElicitRequestParams` and `ElicitResult` of the MCP schema, 2025-06-18 to 2026-07-28.

mod field;
mod format;

use serde::{Serialize, Serializer};
use serde_json::value::RawValue;
use serde_json::{Map, Value};

use crate::protocol::jsonrpc::{self, Object};

use field::Misfit;
pub use field::{BooleanField, ChoiceField, ChoicesField, Field, NumberField, TextField};
pub use format::Format;

/// A request for the fields of a form.
#[derive(Clone, Debug, PartialEq)]
pub struct Form {
    message: String,
    /// In the order in which a person sees them.
    fields: Vec<(String, Field)>,
    required: Vec<String>,
}

impl Form {
    /// A form without fields; `message` tells the person what it is for.
    pub fn new(message: impl Into<String>) -> Self {
        Form { message: message.into(), fields: Vec::new(), required: Vec::new() }
    }

    /// Adds a field that must be answered. A field of the same name is replaced.
    pub fn required(mut self, name: impl Into<String>, field: impl Into<Field>) -> Self {
        let name = name.into();
        if !self.required.contains(&name) {
            self.required.push(name.clone());
        }
        self.put(name, field.into());
        self
    }

    /// Adds a field that may stay empty. A field of the same name is replaced.
    pub fn optional(mut self, name: impl Into<String>, field: impl Into<Field>) -> Self {
        let name = name.into();
        self.required.retain(|required| *required != name);
        self.put(name, field.into());
        self
    }

    fn put(&mut self, name: String, field: Field) {
        match self.fields.iter_mut().find(|(other, _)| *other == name) {
            Some((_, held)) => *held = field,
            None => self.fields.push((name, field)),
        }
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
            #[serde(serialize_with = "in_order")]
            properties: &'a [(String, Field)],
            #[serde(skip_serializing_if = "<[String]>::is_empty")]
            required: &'a [String],
        }
        fn in_order<S: Serializer>(fields: &[(String, Field)], serializer: S) -> Result<S::Ok, S::Error> {
            serializer.collect_map(fields.iter().map(|(name, field)| (name, field)))
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
            content.retain(|name, _| self.fields.iter().any(|(field, _)| field == name));
            self.check(content)?;
        }
        Ok(answer)
    }

    /// Checks fields against the form.
    ///
    /// # Errors
    /// [`BadAnswer::Missing`] for a required field that is not there, [`BadAnswer::Field`] for the first field that
    /// does not fit.
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

#[cfg(test)]
mod tests;
