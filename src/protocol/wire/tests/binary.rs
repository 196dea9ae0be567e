//! Binary messages of version 2, byte for byte as recorded.

use super::*;

fn decode(bytes: &[u8]) -> Result<Incoming<'_>, DecodeError> {
    decode_binary(WireVersion::V2, bytes)
}

fn encode_binary(run: impl FnOnce(&mut Vec<u8>) -> Result<Kind, EncodeError>) -> Vec<u8> {
    let (kind, bytes) = encode(run).expect("the message is encodable");
    assert_eq!(kind, Kind::Binary);
    bytes
}

fn reply(join_ref: &Ref, reference: &Ref, data: &[u8]) -> Result<(Kind, Vec<u8>), EncodeError> {
    encode(|out| encode_reply(WireVersion::V2, out, join_ref, reference, &Text::from("room:brt"), "ok", &binary(data)))
}

#[test]
fn a_push_is_read_and_its_references_are_strings() {
    // Transcript binary_reply.
    let message = decode(b"\x00\x01\x01\x08\x0612room:bi1binary\x01\x02\x03\xff\x00").expect("valid");

    assert_eq!(message.join_ref, string_ref("1"));
    assert_eq!(message.reference, string_ref("2"));
    assert_eq!(message.topic.as_str(), Some("room:bi1"));
    assert_eq!(message.event.as_str(), Some("binary"));
    assert_eq!(message.payload, PayloadRef::Binary(b"\x01\x02\x03\xff\x00"));
    assert_eq!(message.payload.to_owned(), binary(b"\x01\x02\x03\xff\x00"));
}

#[test]
fn empty_parts_are_empty_strings() {
    // Transcript binary_all_empty.
    let message = decode(&[0; 5]).expect("valid");

    assert_eq!(message.join_ref, string_ref(""));
    assert_eq!(message.reference, string_ref(""));
    assert_eq!(message.topic.as_str(), Some(""));
    assert_eq!(message.event.as_str(), Some(""));
    assert_eq!(message.payload, PayloadRef::Binary(b""));
}

#[test]
fn references_are_escaped_for_json() {
    let message = decode(b"\x00\x03\x02\x01\x01\"\\\n\xc3\xa9tex").expect("valid");

    assert_eq!(message.join_ref.as_json(), r#""\"\\\n""#);
    assert_eq!(message.reference.as_json(), "\"é\"");
}

#[test]
fn the_recorded_malformed_messages_are_refused() {
    assert_eq!(decode(b""), Err(DecodeError::Truncated { found: 0, needed: 5 }));
    assert_eq!(decode(&[0; 4]), Err(DecodeError::Truncated { found: 4, needed: 5 }));
    assert_eq!(decode(b"\x00\x01\x01\xc8\x05112"), Err(DecodeError::Truncated { found: 8, needed: 212 }));
    assert_eq!(decode(b"\x01\x01\x01\x01\x011234"), Err(DecodeError::UnknownKind(1)));
    assert_eq!(decode(b"\x02\x01\x0112"), Err(DecodeError::UnknownKind(2)));
    assert_eq!(decode(br#"[null,"1","phoenix","heartbeat",{}]"#), Err(DecodeError::UnknownKind(b'[')));
}

#[test]
fn header_parts_must_be_utf_8() {
    // Transcript binary_push_non_utf8_topic.
    assert_eq!(decode(b"\x00\x01\x01\x02\x0112\xff\xfexx"), Err(DecodeError::NotUtf8("topic")));
    assert_eq!(decode(b"\x00\x01\x01\x01\x01\xff2te"), Err(DecodeError::NotUtf8("join_ref")));
    // The two bytes of a character on either side of a border.
    assert_eq!(decode(b"\x00\x00\x00\x01\x01\xc3\xa9"), Err(DecodeError::NotUtf8("topic")));
}

#[test]
fn replies_pushes_and_broadcasts_are_written_as_recorded() {
    let one = string_ref("1");
    let reply = encode_binary(|out| {
        let topic = Text::from("room:bi1");
        encode_reply(WireVersion::V2, out, &one, &string_ref("2"), &topic, "ok", &binary(b"\x00\xff\x03"))
    });
    assert_eq!(reply, b"\x01\x01\x01\x08\x0212room:bi1ok\x00\xff\x03");

    let push = encode_binary(|out| {
        encode_push(WireVersion::V2, out, &one, "room:bi7", "bin_pushed", &binary(b"d\x09\x08\x07"))
    });
    assert_eq!(push, b"\x00\x01\x08\x0a1room:bi7bin_pushedd\x09\x08\x07");

    let broadcast =
        encode_binary(|out| encode_broadcast(WireVersion::V2, out, "room:bi8", "bin_shout", &binary(b"\x01\x02")));
    assert_eq!(broadcast, b"\x02\x08\x09room:bi8bin_shout\x01\x02");
}

#[test]
fn references_become_text_as_recorded() {
    // Transcripts binary_ref_types and binary_null_ref_reply.
    for (reference, text) in [
        ("1.5", "1.5"),
        ("true", "true"),
        ("false", "false"),
        ("\"\"", ""),
        ("null", ""),
        ("1e3", "1.0e3"),
        ("12345678901234567890", "12345678901234567890"),
        ("-0", "0"),
        ("\"a\\n\\u00e9\"", "a\né"),
    ] {
        let message = format!(r#"["1",{reference},"room:brt","binary_reply",{{}}]"#);
        let message = decode_text(WireVersion::V2, &message).expect("valid");

        let (_, bytes) = reply(&message.join_ref, &message.reference, b"x").expect("the reference has a text");

        let length = u8::try_from(text.len()).expect("short");
        assert_eq!(bytes, [&[1, 1, length, 8, 2][..], b"1", text.as_bytes(), b"room:brtokx"].concat());
    }
}

#[test]
fn composite_references_have_no_text() {
    assert_eq!(reply(&Ref::from_json("[65,66]"), &Ref::NULL, b"x"), Err(EncodeError::CompositeRef("join_ref")));
    assert_eq!(reply(&Ref::NULL, &Ref::from_json("{}"), b"x"), Err(EncodeError::CompositeRef("ref")));
}

#[test]
fn a_topic_that_is_no_string_has_no_text() {
    let topic = Text::Json("123".into());

    let reply = encode(|out| encode_reply(WireVersion::V2, out, &Ref::NULL, &Ref::NULL, &topic, "ok", &binary(b"")));

    assert_eq!(reply, Err(EncodeError::TopicNotText));
}

#[test]
fn header_parts_have_255_bytes_at_most() {
    let (fits, long) = ("é".repeat(127) + "x", "é".repeat(128));
    let too_long = |part| Err(EncodeError::HeaderTooLong { part, bytes: 256 });
    let push = |topic: &str, event: &str| {
        encode(|out| encode_push(WireVersion::V2, out, &Ref::NULL, topic, event, &binary(b"x")))
    };
    let broadcast =
        |topic: &str, event: &str| encode(|out| encode_broadcast(WireVersion::V2, out, topic, event, &binary(b"x")));

    assert!(push(&fits, &fits).is_ok());
    assert_eq!(push(&long, &fits), too_long("topic"));
    assert_eq!(push(&fits, &long), too_long("event"));
    assert!(broadcast(&fits, &fits).is_ok());
    assert_eq!(broadcast(&fits, &long), too_long("event"));
    assert_eq!(reply(&string_ref(&long), &Ref::NULL, b"x"), too_long("join_ref"));
    assert_eq!(reply(&Ref::NULL, &string_ref(&long), b"x"), too_long("ref"));
    // Transcript giant_topic_300: in text the length is free.
    assert!(
        encode(|out| encode_push(WireVersion::V2, out, &Ref::NULL, &"t".repeat(300), "e", &Payload::EMPTY)).is_ok()
    );
}

#[test]
fn version_1_has_no_binary() {
    // Transcript v1_binary_reply.
    let topic = Text::from("t");
    let data = binary(b"x");

    for result in [
        encode(|out| encode_reply(WireVersion::V1, out, &Ref::NULL, &Ref::NULL, &topic, "ok", &data)),
        encode(|out| encode_push(WireVersion::V1, out, &Ref::NULL, "t", "e", &data)),
        encode(|out| encode_broadcast(WireVersion::V1, out, "t", "e", &data)),
    ] {
        assert_eq!(result, Err(EncodeError::BinaryInV1));
    }
}
