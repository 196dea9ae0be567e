//! JSON-RPC 2.0: what an incoming message is, and the exact text of what goes out.
//!
//! Nothing of a message is lost on the way through: an `id` of any JSON type is kept as the text the peer sent, and
//! fields this module does not know stay reachable. [`serving`] and [`asking`] correlate the two directions. An array is
//! an invalid message here; who takes batches splits them first ([`batch`]).
//!
//! Source: the JSON-RPC 2.0 specification; for the classification, the contract of the Elixir deployment, section 4.1.

pub mod asking;
pub mod lines;
pub mod serving;
pub mod splice;

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::fmt;

use bytes::Bytes;
use compact_str::CompactString;
use serde::de::{MapAccess, Visitor};
use serde::ser::SerializeMap;
use serde::{Deserialize, Deserializer, Serialize, Serializer};
use serde_json::value::{RawValue, to_raw_value};

pub use asking::{AskId, Asking, Patience, TooManyAsked};
pub use serving::{CallNumber, IdInUse, Serving};

/// The only value `jsonrpc` may have.
pub const VERSION: &str = "2.0";

/// JSON-RPC code of text that is not JSON.
pub const PARSE_ERROR: i64 = -32700;
/// JSON-RPC code of JSON that is not a valid message, and of a message above the size limit.
pub const INVALID_REQUEST: i64 = -32600;
/// JSON-RPC code of a method this peer does not have.
pub const METHOD_NOT_FOUND: i64 = -32601;
/// JSON-RPC code of parameters that don't fit the method.
pub const INVALID_PARAMS: i64 = -32602;
/// JSON-RPC code of a failure on our side.
pub const INTERNAL_ERROR: i64 = -32603;
/// First code of the range JSON-RPC leaves to servers: too many calls under way. [`Compat::Elixir`] uses it for every
/// error.
pub const SERVER_ERROR: i64 = -32000;

/// Which codes errors carry. The message texts are the same in both.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Compat {
    /// The codes of the JSON-RPC specification.
    #[default]
    Standard,
    /// -32000 for every error, as the Elixir deployment answers.
    Elixir,
}

/// The fields of a JSON object, each value as the text the peer sent.
///
/// Of a key that comes twice the first value counts, as Phoenix decodes it.
#[derive(Clone, Debug, Default)]
pub struct Object<'a>(BTreeMap<Cow<'a, str>, &'a RawValue>);

impl<'a> Object<'a> {
    /// Reads an object; `None` if `json` is any other value or not JSON.
    pub fn parse(json: &'a [u8]) -> Option<Self> {
        serde_json::from_slice(json).ok()
    }

    /// The raw text of a field, also where it is `null`; `None` if it is absent.
    pub fn raw(&self, key: &str) -> Option<&'a RawValue> {
        self.0.get(key).copied()
    }

    /// A field that is a string.
    pub fn string(&self, key: &str) -> Option<String> {
        self.get(key)
    }

    /// A field that is an object.
    pub fn object(&self, key: &str) -> Option<Object<'a>> {
        self.0.get(key).and_then(|raw| Object::parse(raw.get().as_bytes()))
    }

    /// A field that deserializes into `T`; `None` also where it is there and does not.
    pub fn get<T: Deserialize<'a>>(&self, key: &str) -> Option<T> {
        self.0.get(key).and_then(|raw| serde_json::from_str(raw.get()).ok())
    }

    /// Whether the field is there, be it `null`.
    pub fn has(&self, key: &str) -> bool {
        self.0.contains_key(key)
    }

    /// All fields, in the order of their keys.
    pub fn fields(&self) -> impl Iterator<Item = (&str, &'a RawValue)> {
        self.0.iter().map(|(key, value)| (key.as_ref(), *value))
    }
}

impl<'de: 'a, 'a> Deserialize<'de> for Object<'a> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Fields;

        impl<'de> Visitor<'de> for Fields {
            type Value = BTreeMap<Cow<'de, str>, &'de RawValue>;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a JSON object")
            }

            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Self::Value, A::Error> {
                let mut fields = BTreeMap::new();
                while let Some((Key(key), value)) = map.next_entry::<Key<'de>, &'de RawValue>()? {
                    fields.entry(key).or_insert(value);
                }
                Ok(fields)
            }
        }

        deserializer.deserialize_map(Fields).map(Object)
    }
}

/// A key that borrows where it holds no escape; plain `Cow` would always copy.
struct Key<'a>(Cow<'a, str>);

impl<'de: 'a, 'a> Deserialize<'de> for Key<'a> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Text;

        impl<'de> Visitor<'de> for Text {
            type Value = Cow<'de, str>;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("an object key")
            }

            fn visit_borrowed_str<E>(self, key: &'de str) -> Result<Self::Value, E> {
                Ok(Cow::Borrowed(key))
            }

            fn visit_str<E>(self, key: &str) -> Result<Self::Value, E> {
                Ok(Cow::Owned(key.to_owned()))
            }
        }

        deserializer.deserialize_str(Text).map(Key)
    }
}

/// An incoming message, by what it asks of its receiver.
#[derive(Debug)]
pub enum Incoming<'a> {
    /// Has `id` (of any type, also `null`) and a string `method`: wants exactly one response.
    Request(Request<'a>),
    /// Has `id` and `result`, or `id` and `error`: the answer to a request of ours.
    Response(Response<'a>),
    /// Has a string `method` and no `id`: never answered.
    Notification(Notification<'a>),
    /// Anything else.
    Invalid {
        /// The `id` to answer with, where the message is an object that has one.
        id: Option<&'a RawValue>,
    },
}

/// A call that wants a response.
#[derive(Debug)]
pub struct Request<'a> {
    /// The text to echo in the response.
    pub id: &'a RawValue,
    /// The method asked for.
    pub method: String,
    /// `params` as sent, `None` if absent.
    pub params: Option<&'a RawValue>,
    /// Every field of the message, those above and any other.
    pub fields: Object<'a>,
}

impl Request<'_> {
    /// The size that the request limit counts: the JSON text of `{"method":…,"params":…}`.
    pub fn bytes(&self) -> usize {
        const FRAME: usize = r#"{"method":"","params":}"#.len();
        FRAME + self.method.len() + self.params.map_or("{}".len(), |params| params.get().len())
    }
}

/// The answer to a request that this side sent.
#[derive(Debug)]
pub struct Response<'a> {
    /// The id of the request answered.
    pub id: &'a RawValue,
    /// `result` or `error`, as sent.
    pub outcome: Result<&'a RawValue, &'a RawValue>,
}

/// A message that wants no answer.
#[derive(Debug)]
pub struct Notification<'a> {
    /// What happened.
    pub method: String,
    /// `params` as sent, `None` if absent.
    pub params: Option<&'a RawValue>,
}

impl<'a> Incoming<'a> {
    /// Says what a message is; the first rule that fits counts, in the order of the variants.
    ///
    /// `json` is the text of one JSON value. Text that is not JSON is an invalid message without an `id`.
    pub fn classify(json: &'a [u8]) -> Self {
        let Some(fields) = Object::parse(json) else {
            return Incoming::Invalid { id: None };
        };
        let id = fields.raw("id");
        // As nearly everyone spells it, without a copy.
        let is_spelt_plainly = fields.raw("jsonrpc").is_some_and(|version| version.get() == "\"2.0\"");
        if !is_spelt_plainly && fields.string("jsonrpc").as_deref() != Some(VERSION) {
            return Incoming::Invalid { id };
        }
        let params = fields.raw("params");
        match (id, fields.string("method"), fields.raw("result"), fields.raw("error")) {
            (Some(id), Some(method), ..) => Incoming::Request(Request { id, method, params, fields }),
            (Some(id), None, Some(result), _) => Incoming::Response(Response { id, outcome: Ok(result) }),
            (Some(id), None, None, Some(error)) => Incoming::Response(Response { id, outcome: Err(error) }),
            (None, Some(method), ..) => Incoming::Notification(Notification { method, params }),
            (id, None, ..) => Incoming::Invalid { id },
        }
    }
}

/// Among what the calls under way are counted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Scope {
    /// The calls of the session that asks.
    Session,
    /// The calls of all sessions of its connection.
    Connection,
    /// All calls of the server.
    Server,
}

impl fmt::Display for Scope {
    /// As it follows "calls" in a text; the session goes without saying.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Scope::Session => "",
            Scope::Connection => " on this connection",
            Scope::Server => " on this server",
        })
    }
}

/// Why a message gets an error instead of a result: the peer's fault, except [`Fault::Internal`].
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Fault {
    /// The message fits none of the shapes of [`Incoming`].
    #[error("Invalid JSON-RPC 2.0 message format")]
    InvalidMessage,
    /// A message of the right shape that may not come here, or now; the text says why.
    #[error("Invalid request: {0}")]
    InvalidRequest(String),
    /// This peer has no such method.
    #[error("Method not found: {0}")]
    MethodNotFound(String),
    /// The parameters don't fit; the text says which one, what was expected and what came.
    #[error("Invalid params: {0}")]
    InvalidParams(String),
    /// `{"method":…,"params":…}` is above the limit.
    #[error("Request too large")]
    RequestTooLarge,
    /// As many calls as are allowed are under way; a later try may succeed.
    #[error("Too many concurrent calls{scope}: the limit is {limit}")]
    TooManyCalls {
        /// Whose calls are too many.
        scope: Scope,
        /// Calls that may be under way at once.
        limit: usize,
    },
    /// The client asks too often.
    #[error("Rate limit exceeded")]
    RateLimited {
        /// Whole seconds until it may ask again.
        retry_after_s: u64,
    },
    /// Who asks may not; the text says what is missing.
    #[error("Unauthorized: {0}")]
    Unauthorized(String),
    /// A failure of ours; details go to the log, not to the peer.
    #[error("Internal error")]
    Internal,
    /// An error with a code, and perhaps data, of its own.
    #[error("{}", .0.message)]
    Coded(Box<ErrorObject>),
}

/// The `error` of a response.
#[derive(Clone, Debug, Serialize)]
pub struct ErrorObject {
    /// Says which sort of error.
    pub code: i64,
    /// For a person to read.
    pub message: String,
    /// More about it, as JSON.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub data: Option<Box<RawValue>>,
}

impl PartialEq for ErrorObject {
    fn eq(&self, other: &Self) -> bool {
        let text = |error: &Self| error.data.as_ref().map(|data| data.get().to_owned());
        (self.code, &self.message, text(self)) == (other.code, &other.message, text(other))
    }
}

impl Eq for ErrorObject {}

impl Fault {
    /// The code that goes with the text.
    pub fn code(&self, compat: Compat) -> i64 {
        if compat == Compat::Elixir {
            return SERVER_ERROR;
        }
        match self {
            Fault::InvalidMessage | Fault::InvalidRequest(_) | Fault::RequestTooLarge => INVALID_REQUEST,
            Fault::MethodNotFound(_) => METHOD_NOT_FOUND,
            Fault::InvalidParams(_) => INVALID_PARAMS,
            Fault::TooManyCalls { .. } | Fault::RateLimited { .. } | Fault::Unauthorized(_) => SERVER_ERROR,
            Fault::Internal => INTERNAL_ERROR,
            Fault::Coded(error) => error.code,
        }
    }

    /// The `error` that says so.
    pub fn to_object(&self, compat: Compat) -> ErrorObject {
        let data = match self {
            Fault::Coded(error) => error.data.clone(),
            Fault::RateLimited { retry_after_s } => Some(raw(&serde_json::json!({"retry_after": retry_after_s}))),
            _ => None,
        };
        ErrorObject { code: self.code(compat), message: self.to_string(), data }
    }
}

/// The text of a successful response; `id` is echoed unchanged.
pub fn result_response(id: &RawValue, result: &RawValue) -> Bytes {
    // Every answer passes here: put together at once, of its exact size.
    [r#"{"jsonrpc":"2.0","id":"#, id.get(), r#","result":"#, result.get(), "}"].concat().into()
}

/// The text of an error response; without an id it carries `"id":null`.
pub fn error_response(id: Option<&RawValue>, fault: &Fault, compat: Compat) -> Bytes {
    encode(&Outgoing { id: Some(id.unwrap_or(RawValue::NULL)), body: Body::Error(fault, compat) })
}

/// The text of an error response to what has no id, without one: as MCP's schemas have it, unlike JSON-RPC's `"id":null`.
pub fn anonymous_error(fault: &Fault, compat: Compat) -> Bytes {
    encode(&Outgoing { id: None, body: Body::Error(fault, compat) })
}

/// The text of a notification.
pub fn notification(method: &str, params: &RawValue) -> Bytes {
    encode(&Outgoing { id: None, body: Body::Notification(method, params) })
}

/// The text of a notification without params.
pub fn bare_notification(method: &str) -> Bytes {
    #[derive(Serialize)]
    struct Bare<'a> {
        jsonrpc: &'static str,
        method: &'a str,
    }

    Bytes::from(serde_json::to_vec(&Bare { jsonrpc: VERSION, method }).expect("strings always serialize"))
}

/// A value as raw JSON text.
///
/// `value` is one of this crate's own types: with string keys and no failing serializer, so that writing it can't fail.
pub fn raw<T: Serialize + ?Sized>(value: &T) -> Box<RawValue> {
    to_raw_value(value).expect("the crate's own types have string keys and serializers that don't fail")
}

/// A key under which two ids meet exactly if they are the same JSON value, however their strings are escaped or spaced.
///
/// Numbers compare by their text: `1` and `1.0` are two ids.
pub fn id_key(id: &RawValue) -> CompactString {
    let text = id.get();
    let is_spelt_one_way = match text.as_bytes() {
        [b'[' | b'{', ..] => false,
        [b'"', inner @ ..] => !inner.contains(&b'\\'),
        _ => true,
    };
    if !is_spelt_one_way && let Ok(value) = serde_json::from_str::<serde_json::Value>(text) {
        return CompactString::from(value.to_string());
    }
    CompactString::new(text)
}

/// The messages of a batch, each as its text; `None` if the text is no array.
///
/// Source: JSON-RPC 2.0, section 6; in MCP of revision 2025-03-26 alone.
pub fn batch(json: &[u8]) -> Option<Vec<&RawValue>> {
    let is_array = json.iter().find(|byte| !byte.is_ascii_whitespace()) == Some(&b'[');
    if is_array { serde_json::from_slice(json).ok() } else { None }
}

fn encode(message: &Outgoing<'_>) -> Bytes {
    Bytes::from(serde_json::to_vec(message).expect("raw values and strings always serialize"))
}

struct Outgoing<'a> {
    id: Option<&'a RawValue>,
    body: Body<'a>,
}

enum Body<'a> {
    Error(&'a Fault, Compat),
    Notification(&'a str, &'a RawValue),
}

impl Serialize for Outgoing<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut map = serializer.serialize_map(None)?;
        map.serialize_entry("jsonrpc", VERSION)?;
        if let Some(id) = self.id {
            map.serialize_entry("id", id)?;
        }
        match &self.body {
            Body::Error(fault, compat) => {
                map.serialize_entry("error", &fault.to_object(*compat))?;
            }
            Body::Notification(method, params) => {
                map.serialize_entry("method", method)?;
                map.serialize_entry("params", params)?;
            }
        }
        map.end()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The class of a message and, where it has one, the text of its id.
    fn class(json: &str) -> (&'static str, Option<String>) {
        let text = |id: &RawValue| Some(id.get().to_owned());
        match Incoming::classify(json.as_bytes()) {
            Incoming::Request(request) => ("request", text(request.id)),
            Incoming::Response(Response { id, outcome: Ok(_) }) => ("result", text(id)),
            Incoming::Response(Response { id, outcome: Err(_) }) => ("error", text(id)),
            Incoming::Notification(_) => ("notification", None),
            Incoming::Invalid { id } => ("invalid", id.and_then(text)),
        }
    }

    #[test]
    fn messages_are_classified_by_the_first_rule_that_fits() {
        let cases: &[(&str, &str, Option<&str>)] = &[
            (r#"{"jsonrpc":"2.0","id":1,"method":"ping"}"#, "request", Some("1")),
            (r#"{"jsonrpc":"2.0","id":null,"method":"ping"}"#, "request", Some("null")),
            (r#"{"jsonrpc":"2.0","id":{"a":[1]},"method":"ping"}"#, "request", Some(r#"{"a":[1]}"#)),
            (r#"{"jsonrpc":"2.0","id":1.50,"method":"ping"}"#, "request", Some("1.50")),
            (r#"{"jsonrpc":"2.0","id":1,"method":"ping","result":1}"#, "request", Some("1")),
            (r#"{"jsonrpc":"2.0","id":1,"method":7,"result":null}"#, "result", Some("1")),
            (r#"{"jsonrpc":"2.0","id":1,"result":1,"error":{}}"#, "result", Some("1")),
            (r#"{"jsonrpc":"2.0","id":1,"error":{}}"#, "error", Some("1")),
            (r#"{"jsonrpc":"2.0","method":"x"}"#, "notification", None),
            (r#"{"jsonrpc":"2.0","method":"x","result":1}"#, "notification", None),
            (r#"{"jsonrpc":"2.0","id":"a"}"#, "invalid", Some(r#""a""#)),
            (r#"{"jsonrpc":"2.0","id":1,"method":7}"#, "invalid", Some("1")),
            (r#"{"jsonrpc":"1.0","id":1,"method":"x"}"#, "invalid", Some("1")),
            (r#"{"jsonrpc":2.0,"id":1,"method":"x"}"#, "invalid", Some("1")),
            (r#"{"id":1,"method":"x"}"#, "invalid", Some("1")),
            (r#"{"jsonrpc":"2.0","method":7}"#, "invalid", None),
            (r#"{"jsonrpc":"2.0","result":1}"#, "invalid", None),
            (r#"[{"jsonrpc":"2.0","id":1,"method":"x"}]"#, "invalid", None),
            (r#""text""#, "invalid", None),
            ("null", "invalid", None),
            ("", "invalid", None),
            ("{", "invalid", None),
        ];

        for (json, expected, id) in cases {
            assert_eq!(class(json), (*expected, id.map(str::to_owned)), "{json}");
        }
    }

    #[test]
    fn a_request_keeps_every_field_as_its_text() {
        let json =
            r#"{"jsonrpc":"2.0","x-trace":{"n":1e3},"id":1,"m\u0065thod":"tools/call","params":{"b":1.0,"a":2}}"#;

        let Incoming::Request(request) = Incoming::classify(json.as_bytes()) else { panic!("a request") };

        assert_eq!(request.method, "tools/call");
        assert_eq!(request.params.map(RawValue::get), Some(r#"{"b":1.0,"a":2}"#));
        assert_eq!(request.fields.raw("x-trace").map(RawValue::get), Some(r#"{"n":1e3}"#));
        assert_eq!(request.fields.fields().count(), 5);
    }

    #[test]
    fn of_a_key_that_comes_twice_the_first_value_counts() {
        let object = Object::parse(br#"{"a":1,"a":2}"#).expect("an object");

        assert_eq!(object.get::<u8>("a"), Some(1));
    }

    #[test]
    fn the_size_of_a_request_is_that_of_its_method_and_params() {
        let json = br#"{"jsonrpc":"2.0","id":1,"method":"m","params":[1, 2]}"#;
        let Incoming::Request(request) = Incoming::classify(json) else { panic!("a request") };

        assert_eq!(request.bytes(), r#"{"method":"m","params":[1, 2]}"#.len());
    }

    #[test]
    fn responses_echo_the_id_as_it_came() {
        for id in ["1", "1.50", "\"a\\u0062\"", "null", "[1,{}]", "12345678901234567890123"] {
            let id = RawValue::from_string(id.to_owned()).expect("JSON");

            let text = result_response(&id, &raw(&()));

            assert_eq!(text, format!(r#"{{"jsonrpc":"2.0","id":{},"result":null}}"#, id.get()));
        }
    }

    #[test]
    fn an_error_without_an_id_carries_null() {
        let text = error_response(None, &Fault::InvalidMessage, Compat::Standard);

        assert_eq!(
            text,
            r#"{"jsonrpc":"2.0","id":null,"error":{"code":-32600,"message":"Invalid JSON-RPC 2.0 message format"}}"#
        );
    }

    #[test]
    fn notifications_carry_no_id() {
        assert_eq!(notification("n", &raw(&[1])), r#"{"jsonrpc":"2.0","method":"n","params":[1]}"#);
    }

    #[test]
    fn the_elixir_setting_changes_the_codes_and_not_the_texts() {
        let too_many = |scope| Fault::TooManyCalls { scope, limit: 16 };
        let faults = [
            (Fault::InvalidMessage, -32600, "Invalid JSON-RPC 2.0 message format"),
            (Fault::MethodNotFound("a/b".into()), -32601, "Method not found: a/b"),
            (Fault::InvalidParams("x".into()), -32602, "Invalid params: x"),
            (Fault::RequestTooLarge, -32600, "Request too large"),
            (too_many(Scope::Session), -32000, "Too many concurrent calls: the limit is 16"),
            (too_many(Scope::Connection), -32000, "Too many concurrent calls on this connection: the limit is 16"),
            (too_many(Scope::Server), -32000, "Too many concurrent calls on this server: the limit is 16"),
            (Fault::Internal, -32603, "Internal error"),
        ];

        for (fault, code, text) in faults {
            assert_eq!(fault.code(Compat::Standard), code);
            assert_eq!(fault.code(Compat::Elixir), -32000);
            assert_eq!(fault.to_string(), text);
        }
    }

    #[test]
    fn ids_meet_by_value_and_numbers_by_text() {
        let key = |text: &str| id_key(&RawValue::from_string(text.to_owned()).expect("JSON"));

        assert_eq!(key(r#""a""#), key(r#""\u0061""#));
        assert_eq!(key(r#"{"a":1,"b":2}"#), key(r#"{ "b":2, "a":1 }"#));
        assert_ne!(key("1"), key("1.0"));
        assert_ne!(key("1"), key("\"1\""));
        assert_ne!(key("12345678901234567890123"), key("12345678901234567890124"));
    }
}
