//! JSON messages of both versions.

use super::*;

fn decode_v2(text: &str) -> Result<Incoming<'_>, DecodeError> {
    decode_text(WireVersion::V2, text)
}

fn decode_v1(text: &str) -> Result<Incoming<'_>, DecodeError> {
    decode_text(WireVersion::V1, text)
}

#[test]
fn a_v2_array_is_five_fields() {
    let message = decode_v2(r#"["1","2","room:a","echo",{"a": [1, 2]}]"#).expect("valid");

    assert_eq!(message.join_ref, string_ref("1"));
    assert_eq!(message.reference, string_ref("2"));
    assert_eq!(message.topic, Text::from("room:a"));
    assert_eq!(message.event, Text::from("echo"));
    assert_eq!(message.payload, PayloadRef::Json(r#"{"a": [1, 2]}"#));
    assert_eq!(message.payload.to_owned(), json(r#"{"a": [1, 2]}"#));
}

#[test]
fn whitespace_may_stand_anywhere_in_a_v2_message() {
    let message = decode_v2(" \n[ null ,\t1 , \"t\" , \"e\" , [ 1 ] ] \r\n").expect("valid");

    assert!(message.join_ref.is_null());
    assert_eq!(message.reference.as_json(), "1");
    assert_eq!(message.payload, PayloadRef::Json("[ 1 ]"));
}

#[test]
fn strings_without_escapes_are_borrowed() {
    let message = decode_v2(r#"[null,"1","room:é😀","echo",{}]"#).expect("valid");
    assert!(matches!(message.topic, Text::Str(Cow::Borrowed("room:é😀"))));

    // Transcript join_unicode_topic.
    let message = decode_v2(r#"["1","1","room:é😀 \"q\"\\/","phx_join",{}]"#).expect("valid");
    assert_eq!(message.topic.as_str(), Some("room:é😀 \"q\"\\/"));
}

#[test]
fn topics_and_events_may_be_any_json() {
    for (text, expected) in [("null", "null"), ("123", "123"), ("{}", "{}"), ("true", "true"), ("[ 1 ]", "[ 1 ]")] {
        let message = format!(r#"["1","2",{text},{text},{{}}]"#);
        let message = decode_v2(&message).expect("valid");
        assert_eq!(message.topic, Text::Json(expected.into()));
        assert_eq!(message.event.as_str(), None);

        let reply = encode_text(|out| {
            encode_reply(WireVersion::V2, out, &Ref::NULL, &message.reference, &message.topic, "error", &Payload::EMPTY)
        });
        assert_eq!(reply, format!(r#"[null,"2",{expected},"phx_reply",{{"response":{{}},"status":"error"}}]"#));
    }
}

#[test]
fn references_of_every_type_keep_type_and_value() {
    for (sent, kept) in [
        ("null", "null"),
        ("1", "1"),
        ("-1", "-1"),
        ("-0", "0"),
        ("1.5", "1.5"),
        ("1e3", "1.0e3"),
        ("\"\"", "\"\""),
        ("\"\\u0061\"", "\"a\""),
        ("[1, 2]", "[1,2]"),
        ("{\"b\":1,\"a\":1}", "{\"a\":1,\"b\":1}"),
        ("true", "true"),
        ("12345678901234567890", "12345678901234567890"),
    ] {
        let v2 = format!(r#"[{sent},{sent},"t","e",{{}}]"#);
        let v1 = format!(r#"{{"topic":"t","event":"e","payload":{{}},"ref":{sent},"join_ref":{sent}}}"#);
        for message in [decode_v2(&v2).expect("valid"), decode_v1(&v1).expect("valid")] {
            assert_eq!(message.join_ref.as_json(), kept);
            assert_eq!(message.reference.as_json(), kept);
        }
    }
}

#[test]
fn an_integer_reference_differs_from_the_float_and_the_string() {
    // Transcript join_ref_number: messages with "1" and 1.0 are stale on a channel joined with 1.
    let reference = |text: &str| decode_v2(&format!(r#"[{text},1,"t","e",{{}}]"#)).expect("valid").join_ref;

    assert_ne!(reference("1"), reference("1.0"));
    assert_ne!(reference("1"), reference("\"1\""));
    assert_eq!(reference("1.0"), reference("1.00e0"));
}

#[test]
fn more_than_five_elements_are_accepted_and_checked() {
    assert!(decode_v2(r#"[null,"1","phoenix","heartbeat",{},"extra",{"more":1}]"#).is_ok());
    assert!(matches!(decode_v2(r#"[null,"1","phoenix","heartbeat",{},01]"#), Err(DecodeError::Json(_))));
}

#[test]
fn the_recorded_malformed_v2_messages_are_refused() {
    assert_eq!(decode_v2(r#"[null,"1","phoenix","heartbeat"]"#), Err(DecodeError::TooFewElements(4)));
    assert_eq!(decode_v2("[]"), Err(DecodeError::TooFewElements(0)));
    for text in ["garbage", "null", "123", "\"x\"", "", "{}", "\u{feff}[null,\"1\",\"phoenix\",\"heartbeat\",{}]"] {
        assert_eq!(decode_v2(text), Err(DecodeError::NotAnArray), "{text}");
    }
    for text in [
        r#"[null,"1","phoenix","heartbeat",01]"#,
        r#"[null,"1","phoenix","heartbeat",NaN]"#,
        r#"[null,'1','phoenix','heartbeat',{}]"#,
        r#"[null,"1","phoenix","heartbeat",{},]"#,
        r#"[null,"1","phoenix","heartbeat",{}"#,
        r#"[null,"1","phoenix","heartbeat",{}]]"#,
        r#"[null,"1","phoenix","heartbeat",{}] x"#,
        r#"[null,"1","phoenix","heartbeat",{}}"#,
        r#"[,"1","phoenix","heartbeat",{}]"#,
        r#"["1","2","room:p","echo",1e400]"#,
        r#"["1","2","room:p","echo","\ud800"]"#,
        "[\"1\",\"2\",\"room:\n\",\"echo\",{}]",
    ] {
        assert!(matches!(decode_v2(text), Err(DecodeError::Json(_))), "{text}");
    }
}

#[test]
fn payloads_pass_as_their_bytes() {
    // Jason keeps one of repeated keys; Bennu passes them on: transcript payload_duplicate_keys, an artefact.
    for payload in [r#"{"a":1,"a":2}"#, "123456789012345678901234567890", "1E3", r#""\u0041""#, "{ }"] {
        let v2 = format!(r#"["1","2","t","e",{payload}]"#);
        let v1 = format!(r#"{{"topic":"t","event":"e","payload":{payload},"ref":"1"}}"#);
        assert_eq!(decode_v2(&v2).expect("valid").payload, PayloadRef::Json(payload));
        assert_eq!(decode_v1(&v1).expect("valid").payload, PayloadRef::Json(payload));
    }
}

#[test]
fn a_v1_object_is_read_whatever_its_order() {
    // Transcripts v1_extra_keys and v1_join_ref_key.
    let message =
        decode_v1(r#" { "ref" : "1", "vsn":2, "payload":{"a":1},"event":"echo","foo":[],"topic":"room:v1" } "#)
            .expect("valid");

    assert!(message.join_ref.is_null());
    assert_eq!(message.reference, string_ref("1"));
    assert_eq!(message.topic.as_str(), Some("room:v1"));
    assert_eq!(message.event.as_str(), Some("echo"));
    assert_eq!(message.payload, PayloadRef::Json(r#"{"a":1}"#));
    let with_join_ref =
        decode_v1(r#"{"topic":"t","event":"e","payload":{},"ref":null,"join_ref":"9"}"#).expect("valid");
    assert_eq!(with_join_ref.join_ref, string_ref("9"));
}

#[test]
fn the_first_of_repeated_v1_keys_counts_however_it_is_spelt() {
    let message =
        decode_v1(r#"{"t\u006fpic":"first","topic":"second","event":"e","payload":1,"payload":2,"ref":1,"ref":2}"#)
            .expect("valid");

    assert_eq!(message.topic.as_str(), Some("first"));
    assert_eq!(message.payload, PayloadRef::Json("1"));
    assert_eq!(message.reference.as_json(), "1");
}

#[test]
fn a_v1_object_needs_four_keys() {
    for (missing, text) in [
        ("topic", r#"{"event":"heartbeat","payload":{},"ref":"1"}"#),
        ("event", r#"{"topic":"phoenix","payload":{},"ref":"1"}"#),
        ("payload", r#"{"topic":"phoenix","event":"heartbeat","ref":"1"}"#),
        ("ref", r#"{"topic":"phoenix","event":"heartbeat","payload":{}}"#),
        ("topic", "{}"),
    ] {
        assert_eq!(decode_v1(text), Err(DecodeError::MissingKey(missing)));
    }
}

#[test]
fn malformed_v1_messages_are_refused() {
    for text in ["garbage", "", "[]", "null", "\u{feff}{}"] {
        assert_eq!(decode_v1(text), Err(DecodeError::NotAnObject), "{text}");
    }
    for text in
        ["{", "{ }x", "{\"a\"", "{\"a\":1,}", "{\"a\" 1}", "{\"a\":1", "{a:1}", "{,}", "{1:2}", "{\"a\":1]", "{\"a\":}"]
    {
        assert!(matches!(decode_v1(text), Err(DecodeError::Json(_))), "{text}");
    }
}

#[test]
fn v1_reads_binary_messages_as_text() {
    let text = r#"{"topic":"phoenix","event":"heartbeat","payload":{},"ref":"é"}"#;

    assert_eq!(decode_binary(WireVersion::V1, text.as_bytes()), decode_v1(text));
    assert_eq!(decode_binary(WireVersion::V1, b"{\"a\":\"\xff\"}"), Err(DecodeError::NotUtf8("message")));
}

#[test]
fn replies_are_written_as_recorded() {
    let (join_ref, reference, topic) = (string_ref("1"), string_ref("2"), Text::from("room:a"));
    for response in [r#"{"a":1}"#, "null", "true", "[[]]", "\"str\""] {
        let reply = |version| {
            encode_text(|out| encode_reply(version, out, &join_ref, &reference, &topic, "ok", &json(response)))
        };

        assert_eq!(
            reply(WireVersion::V2),
            format!(r#"["1","2","room:a","phx_reply",{{"response":{response},"status":"ok"}}]"#)
        );
        assert_eq!(
            reply(WireVersion::V1),
            format!(
                r#"{{"event":"phx_reply","payload":{{"response":{response},"status":"ok"}},"ref":"2","topic":"room:a"}}"#
            )
        );
    }
}

#[test]
fn pushes_broadcasts_and_closes_are_written_as_recorded() {
    let one = string_ref("1");
    let payload = json(r#"{"x":1}"#);
    let push = |version| encode_text(|out| encode_push(version, out, &one, "room:a", "pushed", &payload));
    let broadcast = |version| encode_text(|out| encode_broadcast(version, out, "room:a", "shout", &payload));
    let close =
        |version| encode_text(|out| encode_message(version, out, &one, &one, "room:a", "phx_close", &Payload::EMPTY));

    assert_eq!(push(WireVersion::V2), r#"["1",null,"room:a","pushed",{"x":1}]"#);
    assert_eq!(push(WireVersion::V1), r#"{"event":"pushed","payload":{"x":1},"ref":null,"topic":"room:a"}"#);
    assert_eq!(broadcast(WireVersion::V2), r#"[null,null,"room:a","shout",{"x":1}]"#);
    assert_eq!(broadcast(WireVersion::V1), r#"{"event":"shout","payload":{"x":1},"ref":null,"topic":"room:a"}"#);
    assert_eq!(close(WireVersion::V2), r#"["1","1","room:a","phx_close",{}]"#);
    assert_eq!(close(WireVersion::V1), r#"{"event":"phx_close","payload":{},"ref":"1","topic":"room:a"}"#);
}

#[test]
fn v2_pushes_and_broadcasts_are_objects_and_v1_takes_any_json() {
    // Transcripts payload_push_non_map and payload_v1_broadcast_non_map.
    for text in ["null", "1", "\"s\"", "[1]"] {
        let payload = json(text);
        let push = |version| encode(|out| encode_push(version, out, &Ref::NULL, "t", "e", &payload));
        let broadcast = |version| encode(|out| encode_broadcast(version, out, "t", "e", &payload));

        assert_eq!(push(WireVersion::V2), Err(EncodeError::PayloadNotObject));
        assert_eq!(broadcast(WireVersion::V2), Err(EncodeError::PayloadNotObject));
        assert!(push(WireVersion::V1).is_ok());
        assert!(broadcast(WireVersion::V1).is_ok());
    }
}

#[test]
fn topics_events_and_statuses_are_escaped() {
    let topic = Text::from("a\"\\\n");

    let reply =
        encode_text(|out| encode_reply(WireVersion::V2, out, &Ref::NULL, &Ref::NULL, &topic, "\"", &Payload::EMPTY));

    assert_eq!(reply, r#"[null,null,"a\"\\\n","phx_reply",{"response":{},"status":"\""}]"#);
}
