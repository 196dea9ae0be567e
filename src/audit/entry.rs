//! What one line of the audit log says.

use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

/// Bytes of a text field of an entry; the rest is cut off.
pub const FIELD_BYTES_MAX: usize = 1_024;
/// Bytes, about, of an entry's params or result; larger ones, and deeper ones, are replaced by `{"omitted": "too
/// large"}`.
pub const VALUE_BYTES_MAX: usize = 16_384;
/// How deep an entry's params or result may be nested: what is read again from a file may be 128 deep, the entry
/// included.
pub const VALUE_DEPTH_MAX: usize = 100;
/// Bytes of an entry as a line: both values, all fields, and what escaping adds to them.
pub const LINE_BYTES_MAX: usize = 131_072;

/// What an entry is about.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum EntryType {
    /// Someone said who they are, rightly or not.
    Authentication,
    /// Whether someone may do something.
    Authorization,
    /// Something was done.
    Operation,
    /// Something that an operator may want to look at.
    SecurityEvent,
    /// Someone did too much.
    RateLimit,
    /// Something failed.
    Error,
}

impl EntryType {
    /// All of them.
    pub const ALL: [EntryType; 6] = [
        EntryType::Authentication,
        EntryType::Authorization,
        EntryType::Operation,
        EntryType::SecurityEvent,
        EntryType::RateLimit,
        EntryType::Error,
    ];

    /// The word that stands in an entry.
    pub fn as_str(self) -> &'static str {
        match self {
            EntryType::Authentication => "authentication",
            EntryType::Authorization => "authorization",
            EntryType::Operation => "operation",
            EntryType::SecurityEvent => "security_event",
            EntryType::RateLimit => "rate_limit",
            EntryType::Error => "error",
        }
    }

    /// The type with this word.
    pub fn parse(word: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|one| one.as_str() == word)
    }
}

/// Where an entry comes from, and how it went.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct Metadata {
    /// The client's address.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub ip_address: Option<String>,
    /// What the client calls itself.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub user_agent: Option<String>,
    /// The request's id.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub request_id: Option<String>,
    /// Milliseconds that it took.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub duration_ms: Option<u64>,
    /// Why it failed.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub error_message: Option<String>,
}

/// An entry to record. It may hold secrets: they are removed before anyone sees it, see [`super::Audit::record`].
#[derive(Clone, PartialEq)]
pub struct NewEntry {
    /// What it is about.
    pub entry_type: EntryType,
    /// Which connection.
    pub client_id: Option<String>,
    /// Who.
    pub user_id: Option<String>,
    /// In which session.
    pub session_id: Option<String>,
    /// What was done or tried, such as a method.
    pub operation: Option<String>,
    /// With what.
    pub params: Option<Value>,
    /// What came of it. An authentication whose result is the text `failure` counts towards the alert.
    pub result: Option<Value>,
    /// Where it comes from.
    pub metadata: Metadata,
}

impl NewEntry {
    /// An entry without anything but its type.
    pub fn new(entry_type: EntryType) -> Self {
        NewEntry {
            entry_type,
            client_id: None,
            user_id: None,
            session_id: None,
            operation: None,
            params: None,
            result: None,
            metadata: Metadata::default(),
        }
    }

    /// An authentication with its result: `success` or `failure`.
    pub fn authentication(is_good: bool) -> Self {
        let result = if is_good { "success" } else { FAILURE };
        NewEntry { result: Some(json!(result)), ..Self::new(EntryType::Authentication) }
    }

    /// An authorization with its result: `allowed` or `denied`.
    pub fn authorization(is_allowed: bool) -> Self {
        let result = if is_allowed { "allowed" } else { "denied" };
        NewEntry { result: Some(json!(result)), ..Self::new(EntryType::Authorization) }
    }

    /// Cuts what is too long, and gives about how many bytes of memory are left.
    pub(super) fn bound(&mut self) -> usize {
        let fields = [
            &mut self.client_id,
            &mut self.user_id,
            &mut self.session_id,
            &mut self.operation,
            &mut self.metadata.ip_address,
            &mut self.metadata.user_agent,
            &mut self.metadata.request_id,
            &mut self.metadata.error_message,
        ];
        let mut bytes = size_of::<NewEntry>();
        for field in fields.into_iter().flatten() {
            if field.len() > FIELD_BYTES_MAX {
                field.truncate(field.floor_char_boundary(FIELD_BYTES_MAX));
                field.shrink_to_fit();
            }
            bytes += field.len();
        }
        for value in [&mut self.params, &mut self.result].into_iter().flatten() {
            let mut left = VALUE_BYTES_MAX;
            if !fits(value, &mut left, VALUE_DEPTH_MAX) {
                *value = json!({"omitted": "too large"});
            }
            bytes += VALUE_BYTES_MAX - left;
        }
        bytes
    }
}

/// Only what can't be a secret.
impl std::fmt::Debug for NewEntry {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("NewEntry").field("entry_type", &self.entry_type).finish_non_exhaustive()
    }
}

/// The result of an authentication that failed.
const FAILURE: &str = "failure";

/// An entry as it was recorded, without secrets. What is not known is left out.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Entry {
    /// 32 hex digits.
    pub id: String,
    /// When it was recorded: ISO 8601, UTC, six fractional digits and `Z`.
    pub timestamp: String,
    /// What it is about.
    #[serde(rename = "type")]
    pub entry_type: EntryType,
    /// Which connection.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub client_id: Option<String>,
    /// Who.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub user_id: Option<String>,
    /// In which session.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub session_id: Option<String>,
    /// What was done or tried.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub operation: Option<String>,
    /// With what.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub params: Option<Value>,
    /// What came of it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub result: Option<Value>,
    /// Where it comes from.
    #[serde(default)]
    pub metadata: Metadata,
}

impl Entry {
    /// Whether someone was not who they said they are.
    pub fn is_failed_authentication(&self) -> bool {
        self.entry_type == EntryType::Authentication && self.result.as_ref().is_some_and(|result| *result == FAILURE)
    }

    /// What a line of the log is, without its end. Values that become too large by escaping are left out.
    pub(super) fn line(&mut self) -> Vec<u8> {
        let line = serde_json::to_vec(self).expect("an entry has string keys");
        if line.len() <= LINE_BYTES_MAX {
            return line;
        }
        (self.params, self.result) = (Some(json!({"omitted": "too large"})), None);
        serde_json::to_vec(self).expect("an entry has string keys")
    }
}

/// Removes secrets from a value.
pub type Redact = fn(&Value) -> Value;

/// What is recorded of a new entry: `redact` has gone over all that may hold a secret.
pub(super) fn redacted(new: NewEntry, id: String, timestamp: String, redact: Redact) -> Entry {
    let metadata = serde_json::to_value(&new.metadata).expect("metadata has string keys");
    Entry {
        id,
        timestamp,
        entry_type: new.entry_type,
        client_id: new.client_id,
        user_id: new.user_id,
        session_id: new.session_id,
        operation: new.operation,
        params: new.params.as_ref().map(redact).filter(|value| !value.is_null()),
        result: new.result.as_ref().map(redact).filter(|value| !value.is_null()),
        // What is no metadata any more is no loss beside what it might have shown.
        metadata: serde_json::from_value(redact(&metadata)).unwrap_or_default(),
    }
}

/// Takes the value's bytes, about, from `left`. False as soon as there are fewer, or it is deeper than `depth`; the
/// rest is not looked at.
fn fits(value: &Value, left: &mut usize, depth: usize) -> bool {
    match value {
        Value::Array(values) => depth > 0 && take(left, 0) && values.iter().all(|value| fits(value, left, depth - 1)),
        Value::Object(fields) => {
            let fits = |(key, value): (&String, &Value)| take(left, key.len()) && fits(value, left, depth - 1);
            depth > 0 && fields.iter().all(fits)
        }
        Value::String(text) => take(left, text.len()),
        _ => take(left, 0),
    }
}

/// Takes a text's bytes from `left`, and those of punctuation and of what memory a value takes beside its text.
fn take(left: &mut usize, bytes: usize) -> bool {
    const EACH: usize = 8;
    let rest = left.checked_sub(bytes + EACH);
    *left = rest.unwrap_or(*left);
    rest.is_some()
}
