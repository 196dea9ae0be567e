//! What travels in a frame: references, payloads and the reserved event names.
//!
//! Source: `Phoenix.Socket.Message`, `Phoenix.Socket.Reply`, `Phoenix.Socket.Broadcast`.

use std::fmt;

use bytes::Bytes;
use compact_str::CompactString;
use serde::{Deserialize, Serialize};

/// Event with which a client asks to join a topic.
pub const PHX_JOIN: &str = "phx_join";
/// Event with which a client leaves a topic.
pub const PHX_LEAVE: &str = "phx_leave";
/// Event of every answer to a client's message.
pub const PHX_REPLY: &str = "phx_reply";
/// Event that ends a channel in order.
pub const PHX_CLOSE: &str = "phx_close";
/// Event that ends a channel which crashed.
pub const PHX_ERROR: &str = "phx_error";
/// Event of the transport heartbeat, on topic [`PHOENIX`].
pub const HEARTBEAT: &str = "heartbeat";
/// Topic of the transport heartbeat.
pub const PHOENIX: &str = "phoenix";
/// Event that tells of joins and leaves among those present: `{"joins": {…}, "leaves": {…}}`.
pub const PRESENCE_DIFF: &str = "presence_diff";
/// Event that moves a client's position where the broadcast before has no room for it. Its payload is `{}`.
pub const POSITION: &str = "position";
/// Event that tells a client of broadcasts that it missed and can no longer have.
pub const GAP: &str = "gap";
/// Event that closes every socket whose id is the topic it is broadcast on.
pub const DISCONNECT: &str = "disconnect";

/// A `ref` or `join_ref` as the client sent it: the JSON text of any JSON value.
///
/// Phoenix echoes references by value, so a number stays a number. Equality is Elixir's `===` on the decoded values,
/// which for text in the form [`Ref::from_json`] keeps is equality of the text.
#[derive(Clone, PartialEq, Eq, Hash)]
pub struct Ref(CompactString);

impl Ref {
    /// The absent reference, `null` on the wire.
    pub const NULL: Ref = Ref(CompactString::const_new("null"));

    /// Takes the JSON text of one value, already in the decoder's canonical form.
    pub fn from_json(text: &str) -> Self {
        Ref(CompactString::new(text))
    }

    /// The position of a message in a log that clients can come back to: `"@12"`.
    pub fn position(position: u64) -> Self {
        Ref(compact_str::format_compact!("\"@{position}\""))
    }

    /// The JSON text, to be copied into a frame.
    pub fn as_json(&self) -> &str {
        &self.0
    }

    /// Whether this is `null`.
    pub fn is_null(&self) -> bool {
        self.0 == "null"
    }
}

impl fmt::Debug for Ref {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// The payload of a message, a reply, a push or a broadcast.
#[derive(Clone, PartialEq, Eq)]
pub enum Payload {
    /// The text of one JSON value, UTF-8, passed through as it came.
    Json(Bytes),
    /// Bytes of a V2 binary frame (`{:binary, data}` in Phoenix).
    Binary(Bytes),
}

impl Payload {
    /// The empty object `{}`.
    pub const EMPTY: Payload = Payload::Json(Bytes::from_static(b"{}"));

    /// Serialises a value.
    ///
    /// # Errors
    /// [`PayloadError`] if the value has no JSON form, for instance a map whose keys are no strings.
    pub fn json<T: Serialize + ?Sized>(value: &T) -> Result<Self, PayloadError> {
        let text = serde_json::to_vec(value).map_err(|error| PayloadError(error.to_string()))?;
        Ok(Payload::Json(text.into()))
    }

    /// The object `{"reason": reason}`, which error replies carry.
    pub fn reason(reason: &str) -> Self {
        let mut text = br#"{"reason":"#.to_vec();
        super::json::write_str(&mut text, reason);
        text.push(b'}');
        Payload::Json(text.into())
    }

    /// Parses the JSON text into a type.
    ///
    /// # Errors
    /// [`ParseError`] if the payload is binary or has another shape. In a join `?` makes it a refusal that says so.
    pub fn parse<'a, T: Deserialize<'a>>(&'a self) -> Result<T, ParseError> {
        match self {
            Payload::Json(text) => serde_json::from_slice(text).map_err(|error| ParseError(error.to_string())),
            Payload::Binary(data) => Err(ParseError(format!("expected JSON, got {} bytes of binary", data.len()))),
        }
    }

    /// Binary data.
    pub fn binary(data: impl Into<Bytes>) -> Self {
        Payload::Binary(data.into())
    }

    /// Whether the payload is a JSON object, as Phoenix demands of pushes and broadcasts in V2.
    pub fn is_object(&self) -> bool {
        match self {
            Payload::Json(text) => text.iter().find(|byte| !byte.is_ascii_whitespace()) == Some(&b'{'),
            Payload::Binary(_) => false,
        }
    }

    /// The JSON text or the binary data.
    pub fn as_bytes(&self) -> &[u8] {
        match self {
            Payload::Json(bytes) | Payload::Binary(bytes) => bytes,
        }
    }
}

/// Bytes of a payload that its debug text shows: a client must not be able to fill logs.
const DEBUG_BYTES_MAX: usize = 200;

impl fmt::Debug for Payload {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Payload::Json(text) if text.len() <= DEBUG_BYTES_MAX => f.write_str(&String::from_utf8_lossy(text)),
            Payload::Json(text) => {
                let start = String::from_utf8_lossy(&text[..DEBUG_BYTES_MAX]);
                write!(f, "{start}… ({} bytes)", text.len())
            }
            Payload::Binary(data) => write!(f, "<{} bytes>", data.len()),
        }
    }
}

/// A value that has no JSON form.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("payload: {0}")]
pub struct PayloadError(String);

/// A payload of another shape than was asked for: the client's fault, as a rule.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("payload: {0}")]
pub struct ParseError(String);

impl From<ParseError> for PayloadError {
    /// For those who put one payload's JSON inside another's.
    fn from(error: ParseError) -> Self {
        PayloadError(error.0)
    }
}

/// The answer to a client's message: `phx_reply` with a status and a response.
///
/// Source: `Phoenix.Socket.Reply`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Reply {
    /// `ok`, `error` or any word of the application's own.
    pub status: CompactString,
    /// Any JSON value, or binary data.
    pub response: Payload,
}

impl Reply {
    /// A reply with status `ok`.
    pub fn ok(response: impl Into<Payload>) -> Self {
        Reply { status: CompactString::const_new("ok"), response: response.into() }
    }

    /// A reply with status `error`.
    pub fn error(response: impl Into<Payload>) -> Self {
        Reply { status: CompactString::const_new("error"), response: response.into() }
    }
}

impl From<()> for Payload {
    /// The empty object.
    fn from((): ()) -> Self {
        Payload::EMPTY
    }
}

impl From<&Payload> for Payload {
    /// Shares the bytes.
    fn from(payload: &Payload) -> Self {
        payload.clone()
    }
}

impl From<serde_json::Value> for Payload {
    fn from(value: serde_json::Value) -> Self {
        Payload::Json(value.to_string().into())
    }
}
