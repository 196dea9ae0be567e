//! Binary messages of version 2 against a parser by plain slices, and round trips through the encoder.

use crate::protocol::message::{Payload, Ref};
use crate::protocol::wire::{
    DecodeError, EncodeError, Incoming, Kind, PayloadRef, Text, WireVersion, decode_binary, encode_broadcast,
    encode_push, encode_reply,
};

/// Version 2 in binary. Input: a message.
///
/// # Panics
/// If the decoder finds other parts than the slices are, or another fault than the first there is; or if what is encoded
/// of the parts is not what a client reads.
pub fn v2_binary(data: &[u8]) {
    let decoded = decode_binary(WireVersion::V2, data);

    match parse(data) {
        Err(fault) => assert_eq!(decoded, Err(fault)),
        Ok((parts, payload)) => {
            let message = decoded.expect("a whole push");
            let [join_ref, reference, topic, event] = parts;
            let sent = Incoming {
                join_ref: string_ref(join_ref),
                reference: string_ref(reference),
                topic: topic.into(),
                event: event.into(),
                payload: PayloadRef::Binary(payload),
            };
            assert_eq!(message, sent);
            check_encoders(&parts, payload, &message);
        }
    }
}

/// The parts of a push: join_ref, ref, topic and event, and the payload.
fn parse(data: &[u8]) -> Result<([&str; 4], &[u8]), DecodeError> {
    let truncated = |needed| DecodeError::Truncated { found: data.len(), needed };
    let Some(kind) = data.first() else { return Err(truncated(5)) };
    if *kind != 0 {
        return Err(DecodeError::UnknownKind(*kind));
    }
    if data.len() < 5 {
        return Err(truncated(5));
    }
    let header_bytes = data[..5].iter().fold(5, |sum, length| sum + usize::from(*length));
    let mut parts = [""; 4];
    let mut at = 5;
    for (place, name) in ["join_ref", "ref", "topic", "event"].into_iter().enumerate() {
        let end = at + usize::from(data[1 + place]);
        let bytes = data.get(at..end).ok_or(truncated(header_bytes))?;
        parts[place] = std::str::from_utf8(bytes).map_err(|_| DecodeError::NotUtf8(name))?;
        at = end;
    }
    Ok((parts, &data[at..]))
}

fn string_ref(text: &str) -> Ref {
    // serde_json spells a string as the canonical form does.
    Ref::from_json(&serde_json::Value::from(text).to_string())
}

fn check_encoders(parts: &[&str; 4], data: &[u8], message: &Incoming<'_>) {
    let [join_ref, reference, topic, event] = *parts;
    let (join, own) = (&message.join_ref, &message.reference);
    let payload = Payload::Binary(data.to_vec().into());
    let text = Text::from(topic);
    // A topic and an event of an application of its own may be too long for a header.
    let long = [topic, event, topic].concat();

    check(1, &[join_ref, reference, topic, event], data, |out| {
        encode_reply(WireVersion::V2, out, join, own, &text, event, &payload)
    });
    check(1, &[join_ref, reference, topic, &long], data, |out| {
        encode_reply(WireVersion::V2, out, join, own, &text, &long, &payload)
    });
    check(0, &[join_ref, topic, event], data, |out| encode_push(WireVersion::V2, out, join, topic, event, &payload));
    check(0, &["", &long, event], data, |out| encode_push(WireVersion::V2, out, &Ref::NULL, &long, event, &payload));
    check(2, &[topic, event], data, |out| encode_broadcast(WireVersion::V2, out, topic, event, &payload));
    check(2, &[topic, &long], data, |out| encode_broadcast(WireVersion::V2, out, topic, &long, &payload));

    let mut out = Vec::new();
    let refused = encode_push(WireVersion::V1, &mut out, join, topic, event, &payload);
    assert_eq!((refused, out.as_slice()), (Err(EncodeError::BinaryInV1), &[][..]));
}

/// Encodes behind other bytes and reads it as phoenix.js does.
fn check(kind: u8, parts: &[&str], data: &[u8], encode: impl FnOnce(&mut Vec<u8>) -> Result<Kind, EncodeError>) {
    let mut out = b"before".to_vec();
    let result = encode(&mut out);
    assert!(out.starts_with(b"before"));
    let out = &out[6..];
    if parts.iter().any(|part| part.len() > 255) {
        assert!(matches!(result, Err(EncodeError::HeaderTooLong { bytes: 256.., .. })), "{result:?}");
        assert!(out.is_empty(), "nothing is written of what can't be");
        return;
    }

    assert_eq!(result, Ok(Kind::Binary));
    assert_eq!(out[0], kind);
    let (lengths, mut rest) = out[1..].split_at(parts.len());
    for (part, length) in parts.iter().zip(lengths) {
        let (read, after) = rest.split_at(usize::from(*length));
        assert_eq!(read, part.as_bytes());
        rest = after;
    }
    assert_eq!(rest, data);
}
