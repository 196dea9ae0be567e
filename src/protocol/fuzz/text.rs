//! Text messages of both versions against serde_json, and round trips through the encoder.

use std::fmt;

use serde::Deserializer;
use serde::de::{MapAccess, Visitor};
use serde_json::value::RawValue;

use super::json::Term;
use crate::protocol::json::{JSON_DEPTH_MAX, canonical, string_value, validate, write_str};
use crate::protocol::message::{PHX_REPLY, Payload, Ref};
use crate::protocol::wire::{
    DecodeError, EncodeError, Incoming, Kind, PayloadRef, Text, WireVersion, decode_binary, decode_text,
    encode_broadcast, encode_message, encode_push, encode_reply,
};

/// The bracket of an envelope does not count towards the nesting of what it holds.
const ENVELOPE_DEPTH_MAX: usize = JSON_DEPTH_MAX + 1;

/// Version 2 in text, the JSON validator and the canonical form of references. Input: a message, in UTF-8.
///
/// # Panics
/// If the decoder takes what it should refuse or refuses what it should take, if a field is not what serde_json finds, if
/// two equal references differ in their canonical text or two different ones share it, or if what is encoded is not
/// decoded as it was.
pub fn v2_text(data: &[u8]) {
    let Ok(text) = std::str::from_utf8(data) else { return };
    check_value(text);

    let decoded = decode_text(WireVersion::V2, text);
    match Term::read(text, ENVELOPE_DEPTH_MAX) {
        None => assert!(decoded.is_err(), "took {decoded:?} of what is no acceptable JSON"),
        Some(Term::List(terms)) if terms.len() >= 5 => {
            let raw: Vec<&RawValue> = serde_json::from_str(text).expect("it was read above");
            let [join_ref, reference, topic, event, payload, ..] = raw[..] else { panic!("there are five") };
            let message = decoded.expect("an array of five elements");
            let fields = Fields { join_ref: Some(join_ref), reference, topic, event, payload };
            check_fields(&message, &fields);
            check_canonical(&raw, &terms);
            check_round_trips(WireVersion::V2, &message);
        }
        Some(Term::List(terms)) => assert_eq!(decoded, Err(DecodeError::TooFewElements(terms.len()))),
        Some(_) => assert_eq!(decoded, Err(DecodeError::NotAnArray)),
    }
}

/// Version 1, whose binary messages are text. Input: a message.
///
/// # Panics
/// As [`v2_text`].
pub fn v1_text(data: &[u8]) {
    let Ok(text) = std::str::from_utf8(data) else {
        assert_eq!(decode_binary(WireVersion::V1, data), Err(DecodeError::NotUtf8("message")));
        return;
    };
    let decoded = decode_text(WireVersion::V1, text);
    assert_eq!(decode_binary(WireVersion::V1, data), decoded, "binary and text");
    match Term::read(text, ENVELOPE_DEPTH_MAX) {
        None => assert!(decoded.is_err(), "took {decoded:?} of what is no acceptable JSON"),
        Some(Term::Map(terms)) => {
            let missing = ["topic", "event", "payload", "ref"].iter().find(|key| !terms.contains_key(**key));
            if let Some(key) = missing {
                assert_eq!(decoded, Err(DecodeError::MissingKey(key)));
                return;
            }
            let members = members(text);
            let first = |name: &str| members.iter().find(|(key, _)| key == name).map(|(_, raw)| *raw);
            let required = |name: &str| first(name).expect("the map has the key");
            let message = decoded.expect("an object with all keys");
            let fields = Fields {
                join_ref: first("join_ref"),
                reference: required("ref"),
                topic: required("topic"),
                event: required("event"),
                payload: required("payload"),
            };
            check_fields(&message, &fields);
            check_round_trips(WireVersion::V1, &message);
        }
        Some(_) => assert_eq!(decoded, Err(DecodeError::NotAnObject)),
    }
}

/// The validator, and what reads and writes single values.
fn check_value(text: &str) {
    let term = Term::read(text, JSON_DEPTH_MAX);
    assert_eq!(validate(text).is_ok(), term.is_some(), "validator and serde_json");
    if let Some(Term::Str(value)) = &term {
        assert_eq!(string_value(text.trim()), value.as_str());
    }

    let mut quoted = Vec::new();
    write_str(&mut quoted, text);
    assert_eq!(serde_json::from_slice::<String>(&quoted).ok().as_deref(), Some(text), "a written string");
    let quoted = std::str::from_utf8(&quoted).expect("JSON is UTF-8");
    assert!(validate(quoted).is_ok());
    assert_eq!(string_value(quoted), text);
}

/// Canonical texts are equal where the terms are, and only there.
fn check_canonical(raw: &[&RawValue], terms: &[Term]) {
    let texts: Vec<_> = raw.iter().map(|raw| canonical(raw.get())).collect();
    for (text, term) in texts.iter().zip(terms) {
        assert_eq!(Term::read(text, JSON_DEPTH_MAX).as_ref(), Some(term), "the canonical text {text} means the same");
        let mut spelt = String::new();
        term.spell(&mut spelt);
        assert_eq!(canonical(&spelt), *text, "{spelt} means the same");
    }
    // As many as a message has parts: more would take long.
    let pairs = texts.iter().zip(terms).take(5);
    for (place, (text, term)) in pairs.clone().enumerate() {
        for (other_text, other_term) in pairs.clone().skip(place + 1) {
            assert_eq!(text == other_text, term == other_term, "{text} and {other_text}");
        }
    }
}

/// A message as serde_json cuts it up.
struct Fields<'a> {
    join_ref: Option<&'a RawValue>,
    reference: &'a RawValue,
    topic: &'a RawValue,
    event: &'a RawValue,
    payload: &'a RawValue,
}

fn check_fields(message: &Incoming<'_>, fields: &Fields<'_>) {
    let term = |json: &str| Term::read(json, JSON_DEPTH_MAX).expect("a field of a message is a value");
    let same_ref = |read: &Ref, raw: Option<&RawValue>| {
        assert_eq!(term(read.as_json()), term(raw.map_or("null", RawValue::get)));
        assert_eq!(canonical(read.as_json()), read.as_json(), "a reference is kept in its canonical form");
    };
    let same_text = |read: &Text<'_>, raw: &RawValue| match term(raw.get()) {
        Term::Str(value) => assert_eq!(read.as_str(), Some(value.as_str())),
        _ => assert_eq!(*read, Text::Json(raw.get().into())),
    };

    same_ref(&message.join_ref, fields.join_ref);
    same_ref(&message.reference, Some(fields.reference));
    same_text(&message.topic, fields.topic);
    same_text(&message.event, fields.event);
    assert_eq!(message.payload, PayloadRef::Json(fields.payload.get()), "payloads pass through as they came");
}

fn check_round_trips(version: WireVersion, message: &Incoming<'_>) {
    let Incoming { join_ref, reference, topic, event, .. } = message;
    let PayloadRef::Json(json) = message.payload else { panic!("a text message has no binary payload") };
    let payload = message.payload.to_owned();
    let join_ref_out = if version == WireVersion::V1 { &Ref::NULL } else { join_ref };

    // A reply nests its response once more; one as deep as a payload may be is none that we would take ourselves.
    if Term::read(json, JSON_DEPTH_MAX - 1).is_some() {
        let mut out = Vec::new();
        encode_reply(version, &mut out, join_ref, reference, topic, event.as_str().unwrap_or("ok"), &payload)
            .expect("JSON goes into any reply");
        let reply = decode_again(version, &out);
        let status = Text::from(event.as_str().unwrap_or("ok"));
        assert_eq!((&reply.join_ref, &reply.reference, &reply.topic), (join_ref_out, reference, topic));
        assert_eq!(reply.event, PHX_REPLY.into());
        check_response(&reply, &status, &payload);
    }

    let (Some(topic), Some(event)) = (topic.as_str(), event.as_str()) else { return };
    let encoded = [
        (reference, encode(|out| encode_message(version, out, join_ref, reference, topic, event, &payload))),
        (&Ref::NULL, encode(|out| encode_push(version, out, join_ref, topic, event, &payload))),
    ];
    for (reference, encoded) in encoded {
        let Some(encoded) = expect_encoded(version, &payload, encoded) else { continue };
        let again = decode_again(version, &encoded);
        let payload = message.payload.clone();
        let (topic, event) = (topic.into(), event.into());
        let sent = Incoming { join_ref: join_ref_out.clone(), reference: reference.clone(), topic, event, payload };
        assert_eq!(again, sent, "what is encoded is decoded");
    }
    let broadcast = encode(|out| encode_broadcast(version, out, topic, event, &payload));
    if let Some(broadcast) = expect_encoded(version, &payload, broadcast) {
        let again = decode_again(version, &broadcast);
        assert_eq!((&again.join_ref, &again.reference), (&Ref::NULL, &Ref::NULL));
        assert_eq!((again.topic.as_str(), again.event.as_str()), (Some(topic), Some(event)));
        assert_eq!(again.payload, message.payload);
    }
}

type Encoded = (Result<Kind, EncodeError>, Vec<u8>);

/// Encodes behind other bytes, which stay as they are; nothing is added to them on failure.
fn encode(run: impl FnOnce(&mut Vec<u8>) -> Result<Kind, EncodeError>) -> Encoded {
    let mut out = b"before".to_vec();
    let result = run(&mut out);
    assert!(out.starts_with(b"before") && (result.is_ok() || out.len() == 6));
    (result, out.split_off(6))
}

/// Version 2 demands objects of pushes and broadcasts; all else goes.
fn expect_encoded(version: WireVersion, payload: &Payload, (result, bytes): Encoded) -> Option<Vec<u8>> {
    let is_object = payload.as_bytes().starts_with(b"{");
    if version == WireVersion::V2 && !is_object {
        assert_eq!(result, Err(EncodeError::PayloadNotObject));
        return None;
    }
    assert_eq!(result, Ok(Kind::Text));
    Some(bytes)
}

fn decode_again(version: WireVersion, bytes: &[u8]) -> Incoming<'_> {
    let text = std::str::from_utf8(bytes).expect("a text message is UTF-8");
    decode_text(version, text).expect("what is encoded can be decoded")
}

/// A reply's payload is `{"response": …, "status": …}`.
fn check_response(reply: &Incoming<'_>, status: &Text<'_>, response: &Payload) {
    let PayloadRef::Json(json) = reply.payload else { panic!("a text message has no binary payload") };
    let members = members(json);
    let [(first, sent), (second, word)] = &members[..] else { panic!("a reply has two members: {json}") };
    assert_eq!((first.as_str(), second.as_str()), ("response", "status"));
    assert_eq!(sent.get().as_bytes(), response.as_bytes());
    assert_eq!(serde_json::from_str::<String>(word.get()).ok().as_deref(), status.as_str());
}

/// The members of an object in their order, repeated keys too.
fn members(json: &str) -> Vec<(String, &RawValue)> {
    struct Members;

    impl<'de> Visitor<'de> for Members {
        type Value = Vec<(String, &'de RawValue)>;

        fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
            f.write_str("an object")
        }

        fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Self::Value, A::Error> {
            let mut members = Vec::new();
            while let Some(member) = map.next_entry()? {
                members.push(member);
            }
            Ok(members)
        }
    }

    serde_json::Deserializer::from_str(json).deserialize_map(Members).expect("the text is an object")
}
