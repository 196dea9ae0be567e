//! Round trips, agreement with a decoder made of serde_json, and no panic on anything.

use proptest::prelude::*;
use serde_json::Value;
use serde_json::value::RawValue;

use super::*;
use crate::protocol::json::canonical;

/// Floats are eighths, which serde_json reads exactly even without its `float_roundtrip`.
fn scalar() -> impl Strategy<Value = Value> {
    prop_oneof![
        Just(Value::Null),
        any::<bool>().prop_map(Value::from),
        any::<i64>().prop_map(Value::from),
        any::<i16>().prop_map(|eighths| Value::from(f64::from(eighths) / 8.0)),
        any::<String>().prop_map(Value::from),
    ]
}

fn value() -> impl Strategy<Value = Value> {
    scalar().prop_recursive(3, 12, 3, |inner| {
        prop_oneof![
            proptest::collection::vec(inner.clone(), 0..3).prop_map(Value::from),
            proptest::collection::vec((any::<String>(), inner), 0..3).prop_map(|members| members.into_iter().collect()),
        ]
    })
}

fn object() -> impl Strategy<Value = Value> {
    proptest::collection::vec((any::<String>(), value()), 0..3).prop_map(|members| members.into_iter().collect())
}

fn reference() -> impl Strategy<Value = Ref> {
    value().prop_map(|value| Ref::from_json(&canonical(&value.to_string())))
}

fn version() -> impl Strategy<Value = WireVersion> {
    proptest::sample::select(&VERSIONS[..])
}

/// One array element as sent: a value, with every non-ASCII character escaped or not, spread out or not.
fn element() -> impl Strategy<Value = String> {
    (value(), any::<bool>(), any::<bool>()).prop_map(|(value, spread, escape)| {
        let text = if spread { format!(" {value:#}\n") } else { value.to_string() };
        if !escape {
            return text;
        }
        let mut units = [0; 2];
        text.chars()
            .map(|char| match char {
                ' '..='~' | '\n' => char.to_string(),
                _ => char.encode_utf16(&mut units).iter().map(|unit| format!("\\u{unit:04x}")).collect(),
            })
            .collect()
    })
}

/// What a message decodes to by serde_json: references and payload as values, topic and event likewise.
fn slow_decode(version: WireVersion, text: &str) -> Option<[Value; 5]> {
    let parse = |raw: &RawValue| serde_json::from_str::<Value>(raw.get()).ok();
    match version {
        WireVersion::V2 => {
            let elements: Vec<&RawValue> = serde_json::from_str(text).ok()?;
            let values: Vec<Value> = elements.into_iter().map(parse).collect::<Option<_>>()?;
            values.into_iter().take(5).collect::<Vec<_>>().try_into().ok()
        }
        WireVersion::V1 => {
            // The last of repeated keys counts in this map, so it serves texts without them.
            let mut object: serde_json::Map<String, Value> = serde_json::from_str(text).ok()?;
            let join_ref = object.remove("join_ref").unwrap_or_default();
            let required = ["ref", "topic", "event", "payload"].map(|key| object.remove(key));
            let [reference, topic, event, payload] = required;
            Some([join_ref, reference?, topic?, event?, payload?])
        }
    }
}

fn values(message: &Incoming<'_>) -> [Value; 5] {
    let parse = |json: &str| serde_json::from_str::<Value>(json).expect("what is decoded is JSON");
    let text = |text: &Text<'_>| match text {
        Text::Str(text) => Value::from(&**text),
        Text::Json(json) => parse(json),
    };
    let payload = match message.payload {
        PayloadRef::Json(json) => parse(json),
        PayloadRef::Binary(_) => panic!("a text message has no binary payload"),
    };
    let references = [&message.join_ref, &message.reference].map(|reference| parse(reference.as_json()));
    let [join_ref, reference] = references;
    [join_ref, reference, text(&message.topic), text(&message.event), payload]
}

/// Writes a V2 binary push as phoenix.js does.
fn client_push(join_ref: &str, reference: &str, topic: &str, event: &str, data: &[u8]) -> Vec<u8> {
    let parts = [join_ref, reference, topic, event];
    let mut bytes = vec![0];
    bytes.extend(parts.iter().map(|part| u8::try_from(part.len()).expect("a part of 255 bytes at most")));
    parts.iter().for_each(|part| bytes.extend_from_slice(part.as_bytes()));
    bytes.extend_from_slice(data);
    bytes
}

/// Reads a server's V2 binary message as phoenix.js does: its kind, its parts and its data.
fn client_read(bytes: &[u8]) -> (u8, Vec<String>, Vec<u8>) {
    let count = [3, 4, 2][usize::from(bytes[0])];
    let mut rest = &bytes[1 + count..];
    let parts = bytes[1..=count].iter().map(|&length| {
        let (part, tail) = rest.split_at(usize::from(length));
        rest = tail;
        String::from_utf8(part.to_vec()).expect("header parts are UTF-8")
    });
    let parts = parts.collect();
    (bytes[0], parts, rest.to_vec())
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(512))]

    #[test]
    fn text_messages_come_back(
        version in version(), join_ref in reference(), reference in reference(), topic: String, event: String, payload in object(),
    ) {
        let sent = json(&payload.to_string());
        let text = encode_text(|out| encode_message(version, out, &join_ref, &reference, &topic, &event, &sent));

        let read = decode_text(version, &text).expect("what is encoded is decodable");

        prop_assert_eq!(&read.reference, &reference);
        prop_assert_eq!(&read.join_ref, if version == WireVersion::V1 { &Ref::NULL } else { &join_ref });
        prop_assert_eq!(read.topic.as_str(), Some(topic.as_str()));
        prop_assert_eq!(read.event.as_str(), Some(event.as_str()));
        prop_assert_eq!(read.payload.to_owned(), sent);
    }

    #[test]
    fn replies_come_back(version in version(), reference in reference(), topic in value(), status: String, response in value()) {
        let topic = match topic {
            Value::String(topic) => Text::Str(topic.into()),
            other => Text::Json(other.to_string().into()),
        };
        let sent = json(&response.to_string());
        let text = encode_text(|out| encode_reply(version, out, &Ref::NULL, &reference, &topic, &status, &sent));

        let read = decode_text(version, &text).expect("what is encoded is decodable");

        prop_assert_eq!(&read.reference, &reference);
        prop_assert_eq!(&read.topic, &topic);
        prop_assert_eq!(read.event.as_str(), Some(PHX_REPLY));
        prop_assert_eq!(&values(&read)[4], &serde_json::json!({"response": response, "status": status}));
    }

    #[test]
    fn v2_arrays_decode_as_by_serde_json(elements in proptest::collection::vec(element(), 0..8)) {
        let text = format!("[{}]", elements.join(","));

        let read = decode_text(WireVersion::V2, &text);

        prop_assert_eq!(read.ok().as_ref().map(values), slow_decode(WireVersion::V2, &text));
    }

    #[test]
    fn v1_objects_decode_as_by_serde_json(
        members in proptest::collection::btree_map("topic|event|payload|ref|join_ref|[a-z]{1,2}", element(), 3..7),
    ) {
        let members: Vec<String> = members.iter().map(|(key, value)| format!("\"{key}\" :{value}")).collect();
        let text = format!("{{{}}}", members.join(" , "));

        let read = decode_text(WireVersion::V1, &text);

        prop_assert_eq!(read.ok().as_ref().map(values), slow_decode(WireVersion::V1, &text));
    }

    #[test]
    fn nearly_valid_v2_arrays_decode_as_by_serde_json(text in "\\[(null|1|\"a\"|\\{\\}|\\[1\\]|[\\[\\],\"x]),? ?(\"1\"|2.5|),\"t\\\\?n\",\"e\",[{}1-]{1,2}[,\\]]{1,2}") {
        let read = decode_text(WireVersion::V2, &text);

        prop_assert_eq!(read.ok().as_ref().map(values), slow_decode(WireVersion::V2, &text), "{}", text);
    }

    #[test]
    fn any_text_is_decoded_or_refused(version in version(), text in prop_oneof![any::<String>(), "[\\[\\]{}\",:\\\\nu1e -]{0,40}"]) {
        let _ = decode_text(version, &text);
    }

    #[test]
    fn any_bytes_are_decoded_or_refused(
        version in version(), bytes in prop_oneof![
            proptest::collection::vec(any::<u8>(), 0..40),
            (proptest::collection::vec(0_u8..8, 4), proptest::collection::vec(any::<u8>(), 0..40))
                .prop_map(|(lengths, rest)| [vec![0], lengths, rest].concat()),
        ],
    ) {
        let _ = decode_binary(version, &bytes);
    }

    #[test]
    fn a_clients_binary_push_is_read(
        join_ref in "\\PC{0,60}", reference in "\\PC{0,60}", topic in "\\PC{0,60}", event in "\\PC{0,60}", data: Vec<u8>,
    ) {
        let bytes = client_push(&join_ref, &reference, &topic, &event, &data);

        let read = decode_binary(WireVersion::V2, &bytes).expect("a valid push");

        prop_assert_eq!(&read.join_ref, &string_ref(&join_ref));
        prop_assert_eq!(&read.reference, &string_ref(&reference));
        prop_assert_eq!(read.topic.as_str(), Some(topic.as_str()));
        prop_assert_eq!(read.event.as_str(), Some(event.as_str()));
        prop_assert_eq!(read.payload.to_owned(), Payload::Binary(data.into()));
    }

    #[test]
    fn a_client_reads_our_binary_messages(
        join_ref in "\\PC{0,60}", reference in "\\PC{0,60}", topic in "\\PC{0,60}", event in "\\PC{0,60}", data: Vec<u8>,
    ) {
        let payload = binary(&data);
        let (join, own) = (string_ref(&join_ref), string_ref(&reference));
        let text = Text::from(topic.as_str());
        let reply = encode(|out| encode_reply(WireVersion::V2, out, &join, &own, &text, &event, &payload)).expect("encodable").1;
        let push = encode(|out| encode_push(WireVersion::V2, out, &join, &topic, &event, &payload)).expect("encodable").1;
        let broadcast = encode(|out| encode_broadcast(WireVersion::V2, out, &topic, &event, &payload)).expect("encodable").1;

        prop_assert_eq!(client_read(&reply), (1, vec![join_ref.clone(), reference, topic.clone(), event.clone()], data.clone()));
        prop_assert_eq!(client_read(&push), (0, vec![join_ref, topic.clone(), event.clone()], data.clone()));
        prop_assert_eq!(client_read(&broadcast), (2, vec![topic, event], data));
    }
}
