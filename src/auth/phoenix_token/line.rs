//! Lines of JSON that ask for tokens to be checked or signed: what both kinds have in common.
//!
//! What is wrong with a line is said by naming the field and the kind of what came, never its text: lines hold secrets.

use std::collections::BTreeMap;

use serde::Serialize;
use serde_json::value::RawValue;

use super::{KeyOptions, MaxAge};
use crate::protocol::etf::json_kind;

/// Most bytes of a line. A token of the largest size fits many times over.
pub const LINE_BYTES_MAX: usize = 16_777_216;

/// A line's fields, and those of an object among them for what it does not have itself.
pub(super) struct Line<'a> {
    fields: Fields<'a>,
    inner: Fields<'a>,
}

type Fields<'a> = BTreeMap<String, &'a RawValue>;

/// What a line asks the key for.
pub(super) struct KeyFields {
    pub(super) secret_key_base: String,
    pub(super) salt: String,
    pub(super) options: KeyOptions,
}

impl<'a> Line<'a> {
    pub(super) fn read(text: &'a str) -> Result<Line<'a>, String> {
        if text.len() > LINE_BYTES_MAX {
            return Err(format!("expected a line of at most {LINE_BYTES_MAX} bytes, came {}", text.len()));
        }
        let fields: Fields<'_> =
            serde_json::from_str(text).map_err(|_| format!("expected a JSON object, came {}", json_kind(text)))?;
        Ok(Line { fields, inner: Fields::new() })
    }

    /// The line with the fields of its object of this name, if it has one.
    pub(super) fn with_object(mut self, name: &str) -> Line<'a> {
        let object = self.fields.get(name).and_then(|object| serde_json::from_str(object.get()).ok());
        self.inner = object.unwrap_or_default();
        self
    }

    /// The id to give back, as it came.
    pub(super) fn id(&self) -> Option<&'a RawValue> {
        self.fields.get("id").copied()
    }

    /// The JSON of the first of these fields that is there and not null.
    pub(super) fn raw(&self, names: &[&str]) -> Option<(String, &'a str)> {
        let found = |name: &&str| {
            let value = [&self.fields, &self.inner].into_iter().filter_map(|fields| fields.get(*name));
            value.map(|value| value.get()).find(|value| *value != "null").map(|value| ((*name).to_string(), value))
        };
        names.iter().find_map(found)
    }

    pub(super) fn has(&self, name: &str) -> bool {
        self.fields.contains_key(name) || self.inner.contains_key(name)
    }

    /// The first of these fields as a string.
    pub(super) fn string(&self, names: &[&str]) -> Result<Option<String>, String> {
        let Some((name, value)) = self.raw(names) else { return Ok(None) };
        serde_json::from_str(value).map(Some).map_err(|_| wrong(&name, "a string", value))
    }

    fn required(&self, name: &'static str) -> Result<String, String> {
        self.string(&[name])?.ok_or_else(|| format!("expected {name} to be a string, came nothing"))
    }

    /// The first of these fields as an integer.
    pub(super) fn int(&self, names: &[&str]) -> Result<Option<i64>, String> {
        let Some((name, value)) = self.raw(names) else { return Ok(None) };
        serde_json::from_str(value).map(Some).map_err(|_| wrong(&name, "an integer", value))
    }

    /// The first of these fields as a number of seconds or `"infinity"`.
    pub(super) fn max_age(&self, names: &[&str]) -> Result<Option<MaxAge>, String> {
        let Some((name, value)) = self.raw(names) else { return Ok(None) };
        if value == "\"infinity\"" {
            return Ok(Some(MaxAge::Infinity));
        }
        if let Ok(seconds) = serde_json::from_str(value) {
            return Ok(Some(MaxAge::Seconds(seconds)));
        }
        match serde_json::from_str::<f64>(value) {
            Ok(seconds) => Ok(Some(MaxAge::Fraction(seconds))),
            Err(_) => Err(wrong(&name, "a number of seconds or \"infinity\"", value)),
        }
    }

    /// The fields of the key; options that are not given are Phoenix.Token's.
    pub(super) fn key(&self) -> Result<KeyFields, String> {
        let default = KeyOptions::default();
        let iterations = self.int(&["key_iterations"])?.map_or(default.iterations, to_u32);
        let length = self.int(&["key_length"])?.map_or(default.length, |length| usize::try_from(length).unwrap_or(0));
        let digest = match self.string(&["key_digest"])? {
            Some(name) => name.parse().map_err(|error: super::KeyError| error.to_string())?,
            None => default.digest,
        };
        Ok(KeyFields {
            secret_key_base: self.required("secret_key_base")?,
            salt: self.required("salt")?,
            options: KeyOptions { iterations, length, digest },
        })
    }
}

/// A number of iterations; one that is out of range becomes another that is.
fn to_u32(iterations: i64) -> u32 {
    u32::try_from(iterations).unwrap_or(if iterations < 0 { 0 } else { u32::MAX })
}

pub(super) fn wrong(name: &str, expected: &str, value: &str) -> String {
    format!("expected {name} to be {expected}, came {}", json_kind(value))
}

/// Writes an answer as a line without its end.
pub(super) fn write(answer: &impl Serialize) -> String {
    serde_json::to_string(answer).expect("an answer has names as keys")
}
