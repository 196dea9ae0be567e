//! Terms to bytes, as OTP 26 and later write them.

use super::decode::{VERSION, tag};
use super::{Bits, Items, Map, Term};

/// Most items of a list of bytes that is written as a string.
const STRING_ITEMS_MAX: usize = 65_535;

/// How atoms are written.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Atoms {
    /// UTF-8, as OTP 26 and later write them and every OTP since R16 reads them.
    Utf8,
    /// Latin-1 where that is enough, as OTP 25 and before write them.
    Latin1,
}

/// Writes a term as `term_to_binary` does.
pub fn encode(term: &Term) -> Vec<u8> {
    encode_with(term, Atoms::Utf8)
}

/// Writes a tuple of these items, which need not be moved into a term for it. At most 255 items; more are left out.
pub fn encode_tuple(items: &[&Term]) -> Vec<u8> {
    let count = u8::try_from(items.len()).unwrap_or(u8::MAX);
    let mut bytes = vec![VERSION, tag::SMALL_TUPLE, count];
    for item in items.iter().take(usize::from(count)) {
        write(item, Atoms::Utf8, &mut bytes);
    }
    bytes
}

pub(super) fn encode_with(term: &Term, atoms: Atoms) -> Vec<u8> {
    let mut bytes = vec![VERSION];
    write(term, atoms, &mut bytes);
    bytes
}

enum Step<'a> {
    Term(&'a Term),
    Nil,
}

fn write(term: &Term, atoms: Atoms, bytes: &mut Vec<u8>) {
    let mut left = vec![Step::Term(term)];
    while let Some(step) = left.pop() {
        match step {
            Step::Nil => bytes.push(tag::NIL),
            Step::Term(term) => write_head(term, atoms, bytes, &mut left),
        }
    }
}

fn write_head<'a>(term: &'a Term, atoms: Atoms, bytes: &mut Vec<u8>, left: &mut Vec<Step<'a>>) {
    match term {
        Term::Atom(text) => write_atom(text, atoms, bytes),
        Term::Int(_) => write_int(term, bytes),
        Term::Float(float) => {
            bytes.push(tag::NEW_FLOAT);
            bytes.extend_from_slice(&float.to_be_bytes());
        }
        Term::Binary(binary) => {
            bytes.push(tag::BINARY);
            write_count(binary.len(), bytes);
            bytes.extend_from_slice(binary);
        }
        Term::Bits(Bits { bytes: binary, last_bits }) => {
            bytes.push(tag::BIT_BINARY);
            write_count(binary.len(), bytes);
            bytes.push(*last_bits);
            bytes.extend_from_slice(binary);
        }
        Term::List(items) => match string(items) {
            Some(string) if !string.is_empty() => {
                let count = u16::try_from(string.len()).expect("a string has at most 65535 items");
                bytes.push(tag::STRING);
                bytes.extend_from_slice(&count.to_be_bytes());
                bytes.extend_from_slice(&string);
            }
            _ => {
                left.push(Step::Nil);
                if !items.is_empty() {
                    bytes.push(tag::LIST);
                    write_count(items.len(), bytes);
                    left.extend(items.iter().rev().map(Step::Term));
                }
            }
        },
        Term::Improper(items) => {
            bytes.push(tag::LIST);
            write_count(items.len().saturating_sub(1), bytes);
            left.extend(items.iter().rev().map(Step::Term));
        }
        Term::Tuple(items) => {
            match u8::try_from(items.len()) {
                Ok(count) => bytes.extend_from_slice(&[tag::SMALL_TUPLE, count]),
                Err(_) => {
                    bytes.push(tag::LARGE_TUPLE);
                    write_count(items.len(), bytes);
                }
            }
            left.extend(items.iter().rev().map(Step::Term));
        }
        Term::Map(Map(items)) => {
            bytes.push(tag::MAP);
            write_count(items.len() / 2, bytes);
            left.extend(items.iter().rev().map(Step::Term));
        }
        Term::Pid(pid) => {
            bytes.push(tag::NEW_PID);
            write_atom(&pid.node, atoms, bytes);
            for word in [pid.id, pid.serial, pid.creation] {
                bytes.extend_from_slice(&word.to_be_bytes());
            }
        }
        Term::Reference(reference) => {
            let count = u16::try_from(reference.words.len()).expect("a reference has at most 5 words");
            bytes.push(tag::NEWER_REFERENCE);
            bytes.extend_from_slice(&count.to_be_bytes());
            write_atom(&reference.node, atoms, bytes);
            bytes.extend_from_slice(&reference.creation.to_be_bytes());
            for word in &reference.words {
                bytes.extend_from_slice(&word.to_be_bytes());
            }
        }
    }
}

/// The bytes of a list of nothing but bytes that is short enough to be written so.
fn string(items: &Items) -> Option<Vec<u8>> {
    if items.len() > STRING_ITEMS_MAX {
        return None;
    }
    list_bytes(items)
}

/// The bytes of a list of nothing but bytes.
pub(super) fn list_bytes(items: &[Term]) -> Option<Vec<u8>> {
    items.iter().map(|item| item.as_i64().and_then(|int| u8::try_from(int).ok())).collect()
}

/// Writes a count of 32 bits. Larger ones don't happen: terms are made from input with limits.
fn write_count(count: usize, bytes: &mut Vec<u8>) {
    let count = u32::try_from(count).expect("a term is far below 4 GB");
    bytes.extend_from_slice(&count.to_be_bytes());
}

fn write_int(term: &Term, bytes: &mut Vec<u8>) {
    let Term::Int(int) = term else { return };
    if let Some(small) = int.as_i64() {
        if let Ok(byte) = u8::try_from(small) {
            return bytes.extend_from_slice(&[tag::SMALL_INTEGER, byte]);
        }
        if let Ok(word) = i32::try_from(small) {
            bytes.push(tag::INTEGER);
            return bytes.extend_from_slice(&word.to_be_bytes());
        }
    }
    let (negative, amount) = int.amount();
    match u8::try_from(amount.len()) {
        Ok(count) => bytes.extend_from_slice(&[tag::SMALL_BIG, count]),
        Err(_) => {
            bytes.push(tag::LARGE_BIG);
            write_count(amount.len(), bytes);
        }
    }
    bytes.push(u8::from(negative));
    bytes.extend_from_slice(&amount);
}

fn write_atom(text: &str, atoms: Atoms, bytes: &mut Vec<u8>) {
    let latin1: Option<Vec<u8>> = text.chars().map(|char| u8::try_from(u32::from(char)).ok()).collect();
    let count = |text: &[u8]| u16::try_from(text.len()).expect("an atom has at most 255 characters").to_be_bytes();
    match latin1 {
        Some(latin1) if atoms == Atoms::Latin1 => {
            bytes.push(tag::ATOM);
            bytes.extend_from_slice(&count(&latin1));
            bytes.extend_from_slice(&latin1);
        }
        _ => {
            match u8::try_from(text.len()) {
                Ok(count) => bytes.extend_from_slice(&[tag::SMALL_ATOM_UTF8, count]),
                Err(_) => {
                    bytes.push(tag::ATOM_UTF8);
                    bytes.extend_from_slice(&count(text.as_bytes()));
                }
            }
            bytes.extend_from_slice(text.as_bytes());
        }
    }
}
