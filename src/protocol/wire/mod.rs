//! The Phoenix serializers: a transport's messages to the five fields and back.
//!
//! Both versions pass payloads through as their bytes, checked but never parsed. What a message is framed in (WebSocket, long
//! poll) is not known here.
//!
//! Source: `Phoenix.Socket.V1.JSONSerializer` and `Phoenix.Socket.V2.JSONSerializer` of Phoenix 1.8.

mod element;
#[cfg(test)]
mod tests;
mod v1;
mod v2;
mod v2_binary;
mod vsn;

use std::borrow::Cow;

use bytes::Bytes;

use super::json::{JsonError, write_str};
use super::message::{PHX_REPLY, Payload, Ref};

pub use vsn::UnsupportedVersion;

/// Which serializer a client chose with the `vsn` parameter.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Hash)]
pub enum WireVersion {
    /// JSON objects, no binary, no `join_ref` on the way out.
    V1,
    /// JSON arrays and binary messages.
    V2,
}

/// How a transport has to carry an encoded message.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Kind {
    /// As text.
    Text,
    /// As binary data.
    Binary,
}

/// A topic or an event as it came.
///
/// Phoenix takes any JSON value for them, answers that the topic is unmatched and echoes the value (transcript
/// `topic_null` and its siblings).
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Text<'a> {
    /// A string, unescaped.
    Str(Cow<'a, str>),
    /// The JSON text of a value that is no string.
    Json(Cow<'a, str>),
}

impl Text<'_> {
    /// The string, unless it was another JSON value.
    pub fn as_str(&self) -> Option<&str> {
        match self {
            Text::Str(text) => Some(text),
            Text::Json(_) => None,
        }
    }

    fn write_json(&self, out: &mut Vec<u8>) {
        match self {
            Text::Str(text) => write_str(out, text),
            Text::Json(json) => out.extend_from_slice(json.as_bytes()),
        }
    }
}

impl<'a> From<&'a str> for Text<'a> {
    fn from(text: &'a str) -> Self {
        Text::Str(Cow::Borrowed(text))
    }
}

/// A payload that still lies in the buffer it was read into.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum PayloadRef<'a> {
    /// The text of one valid JSON value.
    Json(&'a str),
    /// What follows the header of a V2 binary message.
    Binary(&'a [u8]),
}

impl PayloadRef<'_> {
    /// Copies the payload out of the buffer.
    pub fn to_owned(&self) -> Payload {
        match self {
            PayloadRef::Json(text) => Payload::Json(Bytes::copy_from_slice(text.as_bytes())),
            PayloadRef::Binary(data) => Payload::Binary(Bytes::copy_from_slice(data)),
        }
    }
}

/// A client's message.
///
/// Source: `Phoenix.Socket.Message`.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Incoming<'a> {
    /// The `join_ref`; null where a V1 message has none.
    pub join_ref: Ref,
    /// The `ref`.
    pub reference: Ref,
    /// The topic.
    pub topic: Text<'a>,
    /// The event.
    pub event: Text<'a>,
    /// The payload.
    pub payload: PayloadRef<'a>,
}

/// Why a message can't be read. Phoenix crashes here and the connection closes with 1011.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum DecodeError {
    /// No JSON, or none that Jason takes.
    #[error(transparent)]
    Json(#[from] JsonError),
    /// A V2 text message that is no array.
    #[error("message is no json array, expected [join_ref, ref, topic, event, payload]")]
    NotAnArray,
    /// A V2 array that is too short. More than five elements are accepted, the rest is ignored.
    #[error("message has {0} elements, expected at least 5")]
    TooFewElements(usize),
    /// A V1 message that is no object.
    #[error("message is no json object, expected one with topic, event, payload and ref")]
    NotAnObject,
    /// A V1 object without one of its required keys.
    #[error("message has no {0:?}, expected topic, event, payload and ref")]
    MissingKey(&'static str),
    /// Bytes that are no UTF-8, in a V1 message or in the header of a V2 binary message.
    #[error("{0} is not utf-8")]
    NotUtf8(&'static str),
    /// A V2 binary message that is no push. Clients send nothing else.
    #[error("binary message is of kind {0}, expected 0, a push")]
    UnknownKind(u8),
    /// A V2 binary message that ends within its header.
    #[error("binary message has {found} bytes, its header needs {needed}")]
    Truncated {
        /// Length of the message in bytes.
        found: usize,
        /// Bytes that the header takes, as far as it could be read.
        needed: usize,
    },
}

/// Why a message can't be written. Phoenix raises in the channel's process here, so the channel has crashed.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum EncodeError {
    /// A V2 push or broadcast of JSON other than an object (transcript `payload_push_non_map`).
    #[error("payload is no json object, which version 2 demands of pushes and broadcasts")]
    PayloadNotObject,
    /// A binary payload for a V1 client (transcript `v1_binary_reply`).
    #[error("payload is binary, version 1 has only json")]
    BinaryInV1,
    /// A part of a V2 binary header that its length byte can't count.
    #[error("{part} is {bytes} bytes, the limit in a binary message is 255")]
    HeaderTooLong {
        /// Which part.
        part: &'static str,
        /// Its length.
        bytes: usize,
    },
    /// A reference that is a list or a map, which a V2 binary header can't say.
    #[error("{0} is a list or a map, a binary message needs text")]
    CompositeRef(&'static str),
    /// A topic that is no string, which a V2 binary header can't say.
    #[error("topic is no string, a binary message needs text")]
    TopicNotText,
}

impl WireVersion {
    /// Chooses the serializer for the client's `vsn` parameter; without one it is V1.
    ///
    /// # Errors
    /// [`UnsupportedVersion`] if `vsn` is no semantic version, or matches neither `~> 1.0.0` nor `~> 2.0.0`.
    ///
    /// Source: `Phoenix.Socket.negotiate_serializer/2`; transcripts, group vsn.
    pub fn negotiate(vsn: Option<&str>) -> Result<WireVersion, UnsupportedVersion> {
        vsn::negotiate(vsn)
    }
}

/// Reads one text message.
///
/// # Errors
/// [`DecodeError`] if the version's serializer would not read it.
pub fn decode_text(version: WireVersion, text: &str) -> Result<Incoming<'_>, DecodeError> {
    match version {
        WireVersion::V1 => v1::decode(text),
        WireVersion::V2 => v2::decode(text),
    }
}

/// Reads one binary message. In V1 that is JSON as in text; in V2 a push whose references become strings.
///
/// # Errors
/// [`DecodeError`] if the version's serializer would not read it.
pub fn decode_binary(version: WireVersion, bytes: &[u8]) -> Result<Incoming<'_>, DecodeError> {
    match version {
        WireVersion::V1 => v1::decode(std::str::from_utf8(bytes).map_err(|_| DecodeError::NotUtf8("message"))?),
        WireVersion::V2 => v2_binary::decode(bytes),
    }
}

/// Appends a `phx_reply` with any JSON or binary response.
///
/// # Errors
/// [`EncodeError`] if the version can't carry it; `out` is as it was.
pub fn encode_reply(
    version: WireVersion,
    out: &mut Vec<u8>,
    join_ref: &Ref,
    reference: &Ref,
    topic: &Text<'_>,
    status: &str,
    response: &Payload,
) -> Result<Kind, EncodeError> {
    match (version, response) {
        (WireVersion::V1, Payload::Json(response)) => {
            v1::open(out, PHX_REPLY);
            write_reply(out, status, response);
            v1::close(out, reference, topic);
            Ok(Kind::Text)
        }
        (WireVersion::V2, Payload::Json(response)) => {
            v2::open(out, join_ref, reference, topic, PHX_REPLY);
            write_reply(out, status, response);
            out.push(b']');
            Ok(Kind::Text)
        }
        (WireVersion::V1, Payload::Binary(_)) => Err(EncodeError::BinaryInV1),
        (WireVersion::V2, Payload::Binary(data)) => {
            v2_binary::encode_reply(out, join_ref, reference, topic, status, data)?;
            Ok(Kind::Binary)
        }
    }
}

/// Appends a push, which has the channel's `join_ref` and a null `ref`.
///
/// # Errors
/// [`EncodeError`] if the version can't carry it; `out` is as it was.
pub fn encode_push(
    version: WireVersion,
    out: &mut Vec<u8>,
    join_ref: &Ref,
    topic: &str,
    event: &str,
    payload: &Payload,
) -> Result<Kind, EncodeError> {
    encode_message(version, out, join_ref, &Ref::NULL, topic, event, payload)
}

/// Appends a message with both references, as `phx_close` and `phx_error` have them. Binary data travels as a push, without
/// `ref`.
///
/// # Errors
/// [`EncodeError`] if the version can't carry it; `out` is as it was.
pub fn encode_message(
    version: WireVersion,
    out: &mut Vec<u8>,
    join_ref: &Ref,
    reference: &Ref,
    topic: &str,
    event: &str,
    payload: &Payload,
) -> Result<Kind, EncodeError> {
    match (version, payload) {
        (WireVersion::V1, Payload::Json(json)) => {
            v1::open(out, event);
            out.extend_from_slice(json);
            v1::close(out, reference, &topic.into());
            Ok(Kind::Text)
        }
        (WireVersion::V2, Payload::Json(json)) => {
            if !payload.is_object() {
                return Err(EncodeError::PayloadNotObject);
            }
            v2::open(out, join_ref, reference, &topic.into(), event);
            out.extend_from_slice(json);
            out.push(b']');
            Ok(Kind::Text)
        }
        (WireVersion::V1, Payload::Binary(_)) => Err(EncodeError::BinaryInV1),
        (WireVersion::V2, Payload::Binary(data)) => {
            v2_binary::encode_push(out, join_ref, topic, event, data)?;
            Ok(Kind::Binary)
        }
    }
}

/// Appends a broadcast, which has no references, so that it is the same for every subscriber of a version.
///
/// # Errors
/// [`EncodeError`] if the version can't carry it; `out` is as it was.
pub fn encode_broadcast(
    version: WireVersion,
    out: &mut Vec<u8>,
    topic: &str,
    event: &str,
    payload: &Payload,
) -> Result<Kind, EncodeError> {
    encode_broadcast_at(version, out, &Ref::NULL, topic, event, payload)
}

/// As [`encode_broadcast`], with a position in the place of the null `ref`. Binary data has no room for one.
///
/// # Errors
/// [`EncodeError`] if the version can't carry it; `out` is as it was.
pub fn encode_broadcast_at(
    version: WireVersion,
    out: &mut Vec<u8>,
    position: &Ref,
    topic: &str,
    event: &str,
    payload: &Payload,
) -> Result<Kind, EncodeError> {
    match (version, payload) {
        (WireVersion::V2, Payload::Binary(data)) => {
            v2_binary::encode_broadcast(out, topic, event, data)?;
            Ok(Kind::Binary)
        }
        _ => encode_message(version, out, &Ref::NULL, position, topic, event, payload),
    }
}

fn write_reply(out: &mut Vec<u8>, status: &str, response: &[u8]) {
    out.extend_from_slice(br#"{"response":"#);
    out.extend_from_slice(response);
    out.extend_from_slice(br#","status":"#);
    write_str(out, status);
    out.push(b'}');
}
