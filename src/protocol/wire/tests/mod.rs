//! Both serializers against the recorded transcripts and against themselves.

mod binary;
mod properties;
mod text;

use super::*;

const VERSIONS: [WireVersion; 2] = [WireVersion::V1, WireVersion::V2];

fn json(text: &str) -> Payload {
    Payload::Json(Bytes::copy_from_slice(text.as_bytes()))
}

fn binary(data: &[u8]) -> Payload {
    Payload::Binary(Bytes::copy_from_slice(data))
}

fn string_ref(text: &str) -> Ref {
    let mut json = Vec::new();
    write_str(&mut json, text);
    Ref::from_json(&String::from_utf8(json).expect("a JSON string is UTF-8"))
}

/// Encodes behind other bytes, which must stay as they are, and of which nothing may be added to on failure.
fn encode(run: impl FnOnce(&mut Vec<u8>) -> Result<Kind, EncodeError>) -> Result<(Kind, Vec<u8>), EncodeError> {
    let mut out = b"before".to_vec();
    let result = run(&mut out);
    assert!(out.starts_with(b"before"));
    if result.is_err() {
        assert_eq!(out, b"before");
    }
    result.map(|kind| (kind, out.split_off(6)))
}

fn encode_text(run: impl FnOnce(&mut Vec<u8>) -> Result<Kind, EncodeError>) -> String {
    let (kind, bytes) = encode(run).expect("the message is encodable");
    assert_eq!(kind, Kind::Text);
    String::from_utf8(bytes).expect("a text message is UTF-8")
}
