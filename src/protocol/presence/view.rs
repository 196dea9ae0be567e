//! What clients see of a presence: its meta, the keys it may have, and Phoenix's JSON shapes.
//!
//! Source: `Phoenix.Presence`; presence.js.

use std::collections::BTreeMap;
use std::sync::Arc;

use bytes::Bytes;
use compact_str::CompactString;
use serde_json::value::RawValue;
use thiserror::Error;

use super::{Replica, TopicDiff};

const PHX_REF: &str = "phx_ref";
const PHX_REF_PREV: &str = "phx_ref_prev";

/// What an application tells about a presence, with the reference that identifies it to clients.
///
/// Holds the JSON text that clients get: `{"phx_ref":"…","phx_ref_prev":"…",…}`, the application's members sorted by
/// name as Elixir sorts a small map, their values as they were written. Cloning is cheap.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Meta {
    json: Arc<str>,
    /// Where in `json` the application's members begin; they end before the brace.
    members_at: usize,
    phx_ref: CompactString,
    phx_ref_prev: Option<CompactString>,
}

/// Why a text is no meta.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum MetaError {
    /// JSON, but not an object.
    #[error("presence meta must be a JSON object, got {found}")]
    NotAnObject {
        /// What it is, with its article: `a string`.
        found: &'static str,
    },
    /// Not JSON; the text says where.
    #[error("presence meta must be a JSON object, got invalid JSON: {0}")]
    Invalid(String),
}

impl Meta {
    /// Takes the text of a JSON object and the reference of this presence.
    ///
    /// Members `phx_ref` and `phx_ref_prev` of the object are dropped: Phoenix writes them twice, and which one a client
    /// then reads depends on its parser. Of other members with the same name the last one counts.
    ///
    /// # Errors
    /// [`MetaError`] if the text is not a JSON object.
    pub fn new(json: &str, phx_ref: impl Into<CompactString>) -> Result<Self, MetaError> {
        if let Some(found) = not_an_object(json) {
            // The value is checked all the same, so that `truth` is not called a boolean.
            return Err(match serde_json::from_str::<&RawValue>(json) {
                Ok(_) => MetaError::NotAnObject { found },
                Err(error) => MetaError::Invalid(error.to_string()),
            });
        }
        let object: BTreeMap<String, &RawValue> =
            serde_json::from_str(json).map_err(|error| MetaError::Invalid(error.to_string()))?;
        let mut members = String::with_capacity(json.len());
        for (name, value) in &object {
            if name != PHX_REF && name != PHX_REF_PREV {
                push_member(&mut members, name, value.get());
            }
        }
        let phx_ref = phx_ref.into();
        Ok(Self::render(&members, phx_ref, None))
    }

    /// The same meta as the successor of the one with the reference `phx_ref_prev`.
    pub fn with_phx_ref_prev(&self, phx_ref_prev: impl Into<CompactString>) -> Self {
        Self::render(self.members(), self.phx_ref.clone(), Some(phx_ref_prev.into()))
    }

    fn render(members: &str, phx_ref: CompactString, phx_ref_prev: Option<CompactString>) -> Self {
        let mut references = String::new();
        push_member(&mut references, PHX_REF, &quoted(&phx_ref));
        if let Some(prev) = &phx_ref_prev {
            push_member(&mut references, PHX_REF_PREV, &quoted(prev));
        }
        let comma = if members.is_empty() { "" } else { "," };
        Meta {
            json: format!("{{{references}{comma}{members}}}").into(),
            members_at: 1 + references.len() + comma.len(),
            phx_ref,
            phx_ref_prev,
        }
    }

    fn members(&self) -> &str {
        &self.json[self.members_at..self.json.len() - 1]
    }

    /// The JSON object that clients get.
    pub fn as_json(&self) -> &str {
        &self.json
    }

    /// The JSON object of the application's members alone.
    pub fn user_json(&self) -> String {
        format!("{{{}}}", self.members())
    }

    /// The reference by which clients tell metas apart.
    pub fn phx_ref(&self) -> &str {
        &self.phx_ref
    }

    /// The reference of the meta that this one replaced.
    pub fn phx_ref_prev(&self) -> Option<&str> {
        self.phx_ref_prev.as_deref()
    }
}

fn not_an_object(json: &str) -> Option<&'static str> {
    match json.trim_ascii_start().bytes().next() {
        Some(b'{') => None,
        Some(b'[') => Some("an array"),
        Some(b'"') => Some("a string"),
        Some(b'n') => Some("null"),
        Some(b't' | b'f') => Some("a boolean"),
        _ => Some("a number"),
    }
}

fn push_member(members: &mut String, name: &str, value: &str) {
    if !members.is_empty() {
        members.push(',');
    }
    members.push_str(&quoted(name));
    members.push(':');
    members.push_str(value);
}

fn quoted(text: &str) -> String {
    serde_json::Value::from(text).to_string()
}

/// The members of `Object.prototype`: what `{}[key]` finds in an empty object, sorted.
const OBJECT_PROTOTYPE: [&str; 12] = [
    "__defineGetter__",
    "__defineSetter__",
    "__lookupGetter__",
    "__lookupSetter__",
    "__proto__",
    "constructor",
    "hasOwnProperty",
    "isPrototypeOf",
    "propertyIsEnumerable",
    "toLocaleString",
    "toString",
    "valueOf",
];

/// A presence key that clients before phoenix.js 1.8.9 cannot hold.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
#[error(
    "presence key {0:?} names a member of every JavaScript object, which clients cannot tell from a presence; put a prefix before it"
)]
pub struct UnsafeKey(pub String);

/// Tells whether every client can hold a presence key. The module's text says what breaks otherwise.
///
/// # Errors
/// [`UnsafeKey`] if the key is a member of `Object.prototype`.
pub fn check_key(key: &str) -> Result<(), UnsafeKey> {
    match OBJECT_PROTOTYPE.binary_search(&key) {
        Ok(_) => Err(UnsafeKey(key.to_owned())),
        Err(_) => Ok(()),
    }
}

/// Turns 12 bytes into a reference of 16 characters, URL-safe base64.
///
/// Phoenix takes 8 bytes of wall time in nanoseconds, 2 of the node, and 2 of a counter, big endian.
pub fn phx_ref(bytes: [u8; 12]) -> CompactString {
    const ALPHABET: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_";
    let character = |bits: u32| char::from(ALPHABET[(bits & 63) as usize]);
    let mut text = CompactString::with_capacity(16);
    for group in bytes.chunks_exact(3) {
        let bits = group.iter().fold(0, |bits, byte| bits << 8 | u32::from(*byte));
        for shift in [18, 12, 6, 0] {
            text.push(character(bits >> shift));
        }
    }
    text
}

/// Renders a topic's presences: `{"key":{"metas":[{"phx_ref":"…",…}]}}`, the payload of `presence_state`.
pub fn state_json(replica: &Replica, topic: &str) -> Bytes {
    let mut json = Vec::new();
    let listed = replica.get_by_topic(topic);
    write_groups(&mut json, listed.map(|presence| (presence.key, presence.meta)));
    json.into()
}

/// Renders a topic's changes: `{"joins":{…},"leaves":{…}}`, both as in [`state_json`]; the payload of `presence_diff`.
pub fn diff_json(diff: &TopicDiff) -> Bytes {
    let flat = |side: &BTreeMap<Arc<str>, Vec<Meta>>, json: &mut Vec<u8>| {
        let metas = side.iter().flat_map(|(key, metas)| metas.iter().map(move |meta| (&**key, meta)));
        write_groups(json, metas);
    };
    let mut json = br#"{"joins":"#.to_vec();
    flat(&diff.joins, &mut json);
    json.extend_from_slice(br#","leaves":"#);
    flat(&diff.leaves, &mut json);
    json.push(b'}');
    json.into()
}

/// Writes metas grouped by key; equal keys must follow each other.
fn write_groups<'a>(json: &mut Vec<u8>, metas: impl Iterator<Item = (&'a str, &'a Meta)>) {
    json.push(b'{');
    let mut open: Option<&str> = None;
    for (key, meta) in metas {
        if open == Some(key) {
            json.push(b',');
        } else {
            if open.is_some() {
                json.extend_from_slice(b"]},");
            }
            json.extend_from_slice(quoted(key).as_bytes());
            json.extend_from_slice(br#":{"metas":["#);
            open = Some(key);
        }
        json.extend_from_slice(meta.as_json().as_bytes());
    }
    if open.is_some() {
        json.extend_from_slice(b"]}");
    }
    json.push(b'}');
}
