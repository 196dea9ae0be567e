//! One spelling for each JSON value, so that equal references have equal text.
//!
//! Phoenix compares references as decoded Elixir terms; Bennu keeps and compares their text.

use std::borrow::Cow;
use std::collections::BTreeMap;

use super::{skip_string, skip_value, skip_whitespace, string_value, write_str};

/// Returns the text of a value in the one form that all equal values share.
///
/// `text` is one value that [`skip_value`] accepted, without whitespace around it. Equal means equal to Elixir's `===` after
/// `Jason.decode/1`: escapes, whitespace and the order of keys don't count, the first of repeated keys does, and `1.0` is not
/// `1`. Floats are written as Elixir writes them (`1.0e3`), integers stay exact.
pub fn canonical(text: &str) -> Cow<'_, str> {
    match text.as_bytes().first() {
        Some(b'"') => canonical_string(text),
        Some(b'-' | b'0'..=b'9') => canonical_number(text),
        Some(b'{' | b'[') => Cow::Owned(Tree::read(text).write()),
        _ => Cow::Borrowed(text),
    }
}

fn canonical_string(quoted: &str) -> Cow<'_, str> {
    if !quoted.contains('\\') {
        return Cow::Borrowed(quoted);
    }
    let mut out = String::with_capacity(quoted.len());
    push_string(&mut out, &string_value(quoted));
    Cow::Owned(out)
}

fn canonical_number(text: &str) -> Cow<'_, str> {
    let float = text.contains(['.', 'e', 'E']);
    match text.parse::<f64>() {
        Ok(value) if float => Cow::Owned(float_text(value)),
        _ if text == "-0" => Cow::Borrowed("0"),
        _ => Cow::Borrowed(text),
    }
}

fn push_string(out: &mut String, value: &str) {
    let mut quoted = Vec::with_capacity(value.len() + 2);
    write_str(&mut quoted, value);
    out.push_str(&String::from_utf8_lossy(&quoted));
}

/// Writes a finite float as Elixir's `to_string/1` does: the shortest digits that read back as the same float, always with a
/// point, and with an exponent where that is shorter or the integers stop being exact (2^53).
///
/// Source: `erlang:float_to_binary(F, [short])` of OTP 25; transcripts `payload_floats` and `binary_ref_types`.
fn float_text(value: f64) -> String {
    if value == 0.0 {
        return if value.is_sign_negative() { "-0.0" } else { "0.0" }.to_owned();
    }
    let scientific = format!("{:e}", value.abs());
    let (mantissa, exponent) = scientific.split_once('e').unwrap_or((&scientific, "0"));
    let digits = mantissa.replace('.', "");
    let exponent: i32 = exponent.parse().unwrap_or(0);
    let sign = if value < 0.0 { "-" } else { "" };
    let (first, rest) = digits.split_at(1);
    let with_exponent = format!("{sign}{first}.{}e{exponent}", if rest.is_empty() { "0" } else { rest });

    // Where the point stands among the digits: 2 for 12.5, 0 for 0.125, -1 for 0.0125.
    let point = exponent + 1;
    let count = i32::try_from(digits.len()).unwrap_or(i32::MAX);
    let exponent_cost = i32::try_from(with_exponent.len() - sign.len()).unwrap_or(i32::MAX) - count;
    if value.abs() >= 9_007_199_254_740_992.0 {
        with_exponent
    } else if point <= 0 {
        if 2 - point > exponent_cost && point < 0 {
            return with_exponent;
        }
        format!("{sign}0.{}{digits}", "0".repeat(point.unsigned_abs() as usize))
    } else if point >= count {
        if point - count + 2 > exponent_cost {
            return with_exponent;
        }
        format!("{sign}{digits}{}.0", "0".repeat((point - count).unsigned_abs() as usize))
    } else {
        let (whole, fraction) = digits.split_at(point.unsigned_abs() as usize);
        format!("{sign}{whole}.{fraction}")
    }
}

/// A composite value with its objects in order. Nodes name their children by index, so that nothing recurses.
struct Tree<'a> {
    nodes: Vec<Node<'a>>,
}

enum Node<'a> {
    Scalar(Cow<'a, str>),
    Array(Vec<usize>),
    /// By decoded key; sorted by its bytes.
    Object(BTreeMap<Cow<'a, str>, usize>),
}

/// What is still to be written, the next one last.
enum Pending<'t> {
    Value(usize),
    Key(&'t str),
    Text(&'static str),
}

impl<'a> Tree<'a> {
    /// Reads a valid value; of an invalid one, as much as is valid.
    fn read(text: &'a str) -> Self {
        let bytes = text.as_bytes();
        let mut tree = Tree { nodes: Vec::new() };
        let mut open: Vec<usize> = Vec::new();
        let mut key: Option<Cow<'a, str>> = None;
        let mut pos = 0;
        while let Some(byte) = bytes.get(pos) {
            match byte {
                b' ' | b'\n' | b'\r' | b'\t' | b',' | b':' => pos += 1,
                b']' | b'}' => {
                    open.pop();
                    pos += 1;
                }
                b'[' | b'{' => {
                    let node = if *byte == b'[' { Node::Array(Vec::new()) } else { Node::Object(BTreeMap::new()) };
                    let index = tree.add(node, open.last(), key.take());
                    open.push(index);
                    pos += 1;
                }
                _ => {
                    let in_object = open.last().is_some_and(|&index| matches!(tree.nodes[index], Node::Object(_)));
                    let end = if in_object && key.is_none() {
                        skip_string(bytes, pos).map(|string| string.end)
                    } else {
                        skip_value(bytes, pos)
                    };
                    let Some(scalar) = end.ok().and_then(|end| text.get(pos..end)) else {
                        break;
                    };
                    pos = skip_whitespace(bytes, pos + scalar.len());
                    if in_object && key.is_none() {
                        key = Some(string_value(scalar));
                    } else {
                        tree.add(Node::Scalar(canonical(scalar)), open.last(), key.take());
                    }
                }
            }
        }
        tree
    }

    fn add(&mut self, node: Node<'a>, parent: Option<&usize>, key: Option<Cow<'a, str>>) -> usize {
        let index = self.nodes.len();
        self.nodes.push(node);
        match parent.map(|&parent| &mut self.nodes[parent]) {
            Some(Node::Array(items)) => items.push(index),
            // Jason keeps the first of repeated keys: transcript payload_duplicate_keys.
            Some(Node::Object(members)) => {
                members.entry(key.unwrap_or_default()).or_insert(index);
            }
            Some(Node::Scalar(_)) | None => {}
        }
        index
    }

    fn write(&self) -> String {
        let mut out = String::new();
        let mut pending = vec![Pending::Value(0)];
        while let Some(next) = pending.pop() {
            let index = match next {
                Pending::Text(text) => {
                    out.push_str(text);
                    continue;
                }
                Pending::Key(key) => {
                    push_string(&mut out, key);
                    out.push(':');
                    continue;
                }
                Pending::Value(index) => index,
            };
            match self.nodes.get(index) {
                Some(Node::Scalar(text)) => out.push_str(text),
                Some(Node::Array(items)) => {
                    out.push('[');
                    pending.push(Pending::Text("]"));
                    for (place, &item) in items.iter().enumerate().rev() {
                        pending.push(Pending::Value(item));
                        if place > 0 {
                            pending.push(Pending::Text(","));
                        }
                    }
                }
                Some(Node::Object(members)) => {
                    out.push('{');
                    pending.push(Pending::Text("}"));
                    for (place, (key, &member)) in members.iter().enumerate().rev() {
                        pending.push(Pending::Value(member));
                        pending.push(Pending::Key(key));
                        if place > 0 {
                            pending.push(Pending::Text(","));
                        }
                    }
                }
                None => {}
            }
        }
        out
    }
}
