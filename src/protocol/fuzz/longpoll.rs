//! A POST's body against plain splitting, and what a client batches against what comes out.

use base64::Engine;
use base64::prelude::BASE64_STANDARD;

use super::input::Input;
use super::{v1_text, v2_binary, v2_text};
use crate::protocol::longpoll::{Line, messages};
use crate::protocol::websocket::Opcode;

const NDJSON: &str = "application/x-ndjson";

const CONTENT_TYPES: [Option<&str>; 4] =
    [Some(NDJSON), None, Some("application/x-ndjson; charset=utf-8"), Some("application/json")];

const BATCHES_MAX: [usize; 4] = [100, 0, 1, 3];

/// How a POST's body becomes messages. Input: a byte for form, content type and batch limit; then a body, or messages
/// that are batched here and have to come out as they were. Each message goes through the targets of its kind too.
///
/// # Panics
/// If the body is cut up otherwise than by its line breaks, if base64 is read otherwise than Elixir reads it, or if a
/// batch does not come out as it went in.
pub fn longpoll_body(data: &[u8]) {
    let mut input = Input::new(data);
    let form = input.byte();
    let batch_max = BATCHES_MAX[usize::from(form >> 2 & 3)];
    if form & 0x80 != 0 {
        return check_batch(&mut input, batch_max);
    }

    let content_type = CONTENT_TYPES[usize::from(form & 3)];
    let body = input.remaining();
    let lines = messages(content_type, body, batch_max);
    if content_type != Some(NDJSON) {
        assert_eq!(lines, [Line::Text(body)]);
    } else {
        assert_eq!(lines, split(body, batch_max));
    }
    for line in lines {
        match (line, line.message()) {
            (Line::Text(text), message) => {
                assert_eq!(message, Some((Opcode::Text, text.to_vec())));
                v1_text(text);
                v2_text(text);
            }
            (Line::Base64(base64), message) => {
                let data = decode_base64(base64);
                assert_eq!(message, data.clone().map(|data| (Opcode::Binary, data)));
                if let Some(data) = data {
                    v2_binary(&data);
                }
            }
        }
    }
}

/// Cuts a batch up, a byte at a time.
fn split(body: &[u8], batch_max: usize) -> Vec<Line<'_>> {
    let mut breaks: Vec<usize> = (0..body.len()).filter(|&at| body[at] == b'\n').collect();
    breaks.push(body.len());
    let mut start = 0;
    let mut lines = Vec::new();
    for end in breaks.into_iter().take(batch_max) {
        let mut line = &body[start..end];
        start = end + 1;
        if let [whole @ .., b'\r'] = line {
            line = whole;
        }
        let is_text = line.starts_with(b"[") || line.starts_with(b"{");
        lines.push(if is_text { Line::Text(line) } else { Line::Base64(line) });
    }
    lines
}

/// Elixir's `Base.decode64/1`: the standard alphabet, padded; bits that say nothing may be anything.
fn decode_base64(text: &[u8]) -> Option<Vec<u8>> {
    const ALPHABET: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    if !text.len().is_multiple_of(4) {
        return None;
    }
    let padding = text.iter().rev().take(2).take_while(|char| **char == b'=').count();
    let mut bits: Vec<bool> = Vec::new();
    for char in &text[..text.len() - padding] {
        let value = ALPHABET.iter().position(|letter| letter == char)?;
        bits.extend((0..6).rev().map(|bit| value >> bit & 1 == 1));
    }
    let byte = |bits: &[bool]| bits.iter().fold(0, |byte, bit| byte << 1 | u8::from(*bit));
    Some(bits.chunks_exact(8).map(byte).collect())
}

fn check_batch(input: &mut Input<'_>, batch_max: usize) {
    let mut body = Vec::new();
    let mut sent = Vec::new();
    while !input.is_empty() {
        let how = input.byte();
        let chunk = input.chunk();
        if !sent.is_empty() {
            body.extend_from_slice(if how & 1 == 0 { b"\n" } else { b"\r\n" });
        }
        if how & 2 == 0 {
            let brackets = if how & 4 == 0 { (b'[', b']') } else { (b'{', b'}') };
            let mut text = vec![brackets.0];
            text.extend(chunk.iter().filter(|byte| **byte != b'\n'));
            text.push(brackets.1);
            body.extend_from_slice(&text);
            sent.push((Opcode::Text, text));
        } else {
            body.extend_from_slice(BASE64_STANDARD.encode(chunk).as_bytes());
            sent.push((Opcode::Binary, chunk.to_vec()));
        }
    }
    if sent.is_empty() {
        return;
    }

    let read: Option<Vec<_>> = messages(Some(NDJSON), &body, batch_max).iter().map(Line::message).collect();
    sent.truncate(batch_max);
    assert_eq!(read, Some(sent), "what is batched comes out, up to the limit");
}
