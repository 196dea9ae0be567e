//! JSON text as Phoenix accepts it: checked in place and passed through, never built into a tree.
//!
//! What passes here is what `Jason.decode/1` accepts, since a payload that Bennu lets through reaches other clients as it
//! came: RFC 8259 without extensions, no byte order mark, no lone surrogate escapes, no float beyond 64 bits. Integers may be
//! as long as they like and object keys may repeat.
//!
//! This module does not parse into values; `canonical` alone looks inside, for references.
//!
//! The small steps are inlined always: a `Result` with a [`JsonError`] does not fit into registers, and handing it through
//! memory took a fifth of a small frame's instructions.

mod canonical;
#[cfg(test)]
mod tests;

use std::borrow::Cow;

pub use canonical::canonical;

/// Deepest nesting of arrays and objects in one value.
///
/// Jason has no limit, since its stack is the heap. The number bounds what a hostile frame makes us and the clients behind us
/// keep track of; it is eight times serde_json's 128, and five times the deepest recorded payload (transcript `payload_deep`).
pub const JSON_DEPTH_MAX: usize = 1024;

/// Why a text is not JSON.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum JsonError {
    /// The text stops too early.
    #[error("json ends at byte {at}, expected {expected}")]
    End {
        /// Length of the text in bytes.
        at: usize,
        /// What should have come.
        expected: &'static str,
    },
    /// A byte that can't stand where it does.
    #[error("json has byte {found:#04x} at {at}, expected {expected}")]
    Unexpected {
        /// Where, in bytes.
        at: usize,
        /// The byte.
        found: u8,
        /// What should have come.
        expected: &'static str,
    },
    /// A float beyond 64 bits, such as `1e400`.
    #[error("json number at byte {at} is too large for a 64-bit float")]
    Overflow {
        /// Where the number starts, in bytes.
        at: usize,
    },
    /// A `\ud800` to `\udfff` escape that is not one half of a pair.
    #[error("json string has half a surrogate pair at byte {at}")]
    LoneSurrogate {
        /// Where its backslash stands, in bytes.
        at: usize,
    },
    /// More than [`JSON_DEPTH_MAX`] arrays and objects inside one another.
    #[error("json at byte {at} is nested deeper than {max}", max = JSON_DEPTH_MAX)]
    TooDeep {
        /// Where the bracket that is too much stands, in bytes.
        at: usize,
    },
}

impl JsonError {
    /// The error that `expected` does not stand at `at`, be it another byte or the end.
    #[cold]
    pub fn at(bytes: &[u8], at: usize, expected: &'static str) -> Self {
        match bytes.get(at) {
            Some(&found) => JsonError::Unexpected { at, found, expected },
            None => JsonError::End { at: bytes.len(), expected },
        }
    }
}

/// Checks that the whole text is one JSON value, with whitespace around it at most.
///
/// # Errors
/// [`JsonError`] with the first place where it is not.
pub fn validate(text: &str) -> Result<(), JsonError> {
    let end = skip_value(text.as_bytes(), 0)?;
    expect_end(text.as_bytes(), end)
}

/// Returns the position behind the JSON value that starts at `pos` or after whitespace there.
///
/// `bytes` is UTF-8: what stands inside strings is checked for escapes and control characters, not for its encoding.
///
/// # Errors
/// [`JsonError`] if no valid value starts there. What follows the value is not looked at.
pub fn skip_value(bytes: &[u8], pos: usize) -> Result<usize, JsonError> {
    let mut pos = skip_whitespace(bytes, pos);
    // Numbers, words and strings need no nesting; they are most of what an envelope has.
    if !matches!(bytes.get(pos), Some(b'{' | b'[')) {
        return skip_scalar(bytes, pos);
    }
    let mut nesting = Nesting { depth: 0, innermost: Container::Array, outer_objects: [0; JSON_DEPTH_MAX / 64] };
    loop {
        pos = skip_whitespace(bytes, pos);
        match bytes.get(pos) {
            Some(b'{') => {
                nesting.open(Container::Object, pos)?;
                pos = skip_whitespace(bytes, pos + 1);
                if bytes.get(pos) != Some(&b'}') {
                    pos = skip_key(bytes, pos)?;
                    continue;
                }
            }
            Some(b'[') => {
                nesting.open(Container::Array, pos)?;
                pos = skip_whitespace(bytes, pos + 1);
                if bytes.get(pos) != Some(&b']') {
                    continue;
                }
            }
            _ => pos = skip_scalar(bytes, pos)?,
        }
        // A value, or the inside of an empty container, is complete: close what ends here.
        loop {
            pos = skip_whitespace(bytes, pos);
            match (nesting.innermost, bytes.get(pos)) {
                (Container::Object, Some(b',')) => {
                    pos = skip_key(bytes, skip_whitespace(bytes, pos + 1))?;
                    break;
                }
                (Container::Array, Some(b',')) => {
                    pos += 1;
                    break;
                }
                (Container::Object, Some(b'}')) | (Container::Array, Some(b']')) => {
                    pos += 1;
                    if nesting.close() == 0 {
                        return Ok(pos);
                    }
                }
                (Container::Object, _) => return Err(JsonError::at(bytes, pos, "a comma or a closing brace")),
                (Container::Array, _) => return Err(JsonError::at(bytes, pos, "a comma or a closing bracket")),
            }
        }
    }
}

/// Returns the position of the first byte from `pos` on that is no JSON whitespace, or the length.
#[inline(always)]
pub fn skip_whitespace(bytes: &[u8], mut pos: usize) -> usize {
    while let Some(b' ' | b'\n' | b'\r' | b'\t') = bytes.get(pos) {
        pos += 1;
    }
    pos
}

/// Checks that only whitespace follows from `pos` on.
///
/// # Errors
/// [`JsonError::Unexpected`] if anything else does.
pub fn expect_end(bytes: &[u8], pos: usize) -> Result<(), JsonError> {
    let pos = skip_whitespace(bytes, pos);
    if pos == bytes.len() { Ok(()) } else { Err(JsonError::at(bytes, pos, "the end")) }
}

/// A string that [`skip_string`] went over.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct SkippedString {
    /// The position behind the closing quote.
    pub end: usize,
    /// Whether a backslash stands in it, so that its text is not its value.
    pub escaped: bool,
}

/// Goes over the string whose opening quote stands at `pos`.
///
/// # Errors
/// [`JsonError`] if there is no string, or one with a control character, a bad escape or no end.
#[inline(always)]
pub fn skip_string(bytes: &[u8], pos: usize) -> Result<SkippedString, JsonError> {
    if bytes.get(pos) != Some(&b'"') {
        return Err(JsonError::at(bytes, pos, "a string in quotes"));
    }
    let mut pos = pos + 1;
    let mut escaped = false;
    loop {
        pos = find_special(bytes, pos);
        match bytes.get(pos) {
            Some(b'"') => return Ok(SkippedString { end: pos + 1, escaped }),
            Some(b'\\') => {
                pos = skip_escape(bytes, pos)?;
                escaped = true;
            }
            _ => return Err(JsonError::at(bytes, pos, "the rest of a string")),
        }
    }
}

/// Appends the string as JSON, quotes included, with the fewest escapes that JSON allows.
pub fn write_str(out: &mut Vec<u8>, value: &str) {
    const HEX: &[u8; 16] = b"0123456789abcdef";
    let bytes = value.as_bytes();
    out.push(b'"');
    let mut clean = 0;
    loop {
        let special = find_special(bytes, clean);
        out.extend_from_slice(&bytes[clean..special]);
        let Some(&byte) = bytes.get(special) else { break };
        match byte {
            b'"' | b'\\' => out.extend_from_slice(&[b'\\', byte]),
            b'\n' => out.extend_from_slice(b"\\n"),
            b'\r' => out.extend_from_slice(b"\\r"),
            b'\t' => out.extend_from_slice(b"\\t"),
            0x08 => out.extend_from_slice(b"\\b"),
            0x0c => out.extend_from_slice(b"\\f"),
            _ => {
                let (high, low) = (usize::from(byte >> 4), usize::from(byte & 15));
                out.extend_from_slice(&[b'\\', b'u', b'0', b'0', HEX[high], HEX[low]]);
            }
        }
        clean = special + 1;
    }
    out.push(b'"');
}

/// Returns the value of a string that [`skip_string`] accepted, given with its quotes.
///
/// Borrows where there is no escape. Text that never was a JSON string comes back with its faults replaced by U+FFFD.
pub fn string_value(quoted: &str) -> Cow<'_, str> {
    let inner = quoted.strip_prefix('"').unwrap_or(quoted);
    let inner = inner.strip_suffix('"').unwrap_or(inner);
    let Some(first) = inner.find('\\') else {
        return Cow::Borrowed(inner);
    };
    let mut value = String::with_capacity(inner.len());
    let mut rest = inner;
    let mut backslash = Some(first);
    while let Some(at) = backslash {
        value.push_str(&rest[..at]);
        let (char, length) = escape_value(&rest.as_bytes()[at..]);
        value.push(char);
        rest = rest.get(at + length..).unwrap_or("");
        backslash = rest.find('\\');
    }
    value.push_str(rest);
    Cow::Owned(value)
}

/// The character that the escape at the start of `bytes` stands for, and the escape's length in bytes.
fn escape_value(bytes: &[u8]) -> (char, usize) {
    let char = match bytes.get(1) {
        Some(b'n') => '\n',
        Some(b't') => '\t',
        Some(b'r') => '\r',
        Some(b'b') => '\u{8}',
        Some(b'f') => '\u{c}',
        Some(b'"') => '"',
        Some(b'\\') => '\\',
        Some(b'/') => '/',
        Some(b'u') => return unicode_value(bytes),
        _ => return (char::REPLACEMENT_CHARACTER, 1),
    };
    (char, 2)
}

fn unicode_value(bytes: &[u8]) -> (char, usize) {
    let Some(first) = hex4(bytes, 2) else {
        return (char::REPLACEMENT_CHARACTER, 2);
    };
    let second = if bytes.get(6..8) == Some(b"\\u") { hex4(bytes, 8) } else { None };
    match (first, second) {
        (0xd800..=0xdbff, Some(second @ 0xdc00..=0xdfff)) => {
            let point = 0x10000 + ((u32::from(first) - 0xd800) << 10) + (u32::from(second) - 0xdc00);
            (char::from_u32(point).unwrap_or(char::REPLACEMENT_CHARACTER), 12)
        }
        (first, _) => (char::from_u32(u32::from(first)).unwrap_or(char::REPLACEMENT_CHARACTER), 6),
    }
}

/// Skips an object's key and its colon; the key's quote stands at `pos`.
#[inline(always)]
fn skip_key(bytes: &[u8], pos: usize) -> Result<usize, JsonError> {
    let colon = skip_whitespace(bytes, skip_string(bytes, pos)?.end);
    if bytes.get(colon) != Some(&b':') {
        return Err(JsonError::at(bytes, colon, "a colon"));
    }
    Ok(colon + 1)
}

#[inline(always)]
fn skip_scalar(bytes: &[u8], pos: usize) -> Result<usize, JsonError> {
    match bytes.get(pos) {
        Some(b'"') => Ok(skip_string(bytes, pos)?.end),
        Some(b'-' | b'0'..=b'9') => skip_number(bytes, pos),
        Some(b't') => skip_word(bytes, pos, b"true"),
        Some(b'f') => skip_word(bytes, pos, b"false"),
        Some(b'n') => skip_word(bytes, pos, b"null"),
        _ => Err(JsonError::at(bytes, pos, "a value")),
    }
}

fn skip_word(bytes: &[u8], pos: usize, word: &'static [u8]) -> Result<usize, JsonError> {
    let end = pos + word.len();
    match bytes.get(pos..end) {
        Some(found) if found == word => Ok(end),
        _ => Err(JsonError::at(bytes, pos, "true, false or null")),
    }
}

/// Decimal digits in front of the point that a 64-bit float holds for certain: its maximum has 309.
const FLOAT_DIGITS_SURE: i64 = 308;

#[inline(always)]
fn skip_number(bytes: &[u8], start: usize) -> Result<usize, JsonError> {
    let whole = start + usize::from(bytes.get(start) == Some(&b'-'));
    let mut pos = match bytes.get(whole) {
        Some(b'0') => whole + 1,
        _ => skip_digits(bytes, whole)?,
    };
    let whole_digits = i64::try_from(pos - whole).unwrap_or(i64::MAX);
    let mut float = false;
    if bytes.get(pos) == Some(&b'.') {
        pos = skip_digits(bytes, pos + 1)?;
        float = true;
    }
    let mut exponent = 0_i64;
    if let Some(b'e' | b'E') = bytes.get(pos) {
        let sign = pos + 1;
        let digits = sign + usize::from(matches!(bytes.get(sign), Some(b'+' | b'-')));
        pos = skip_digits(bytes, digits)?;
        exponent = bytes[digits..pos]
            .iter()
            .fold(0_i64, |value, digit| value.saturating_mul(10).saturating_add(i64::from(digit - b'0')));
        if bytes.get(sign) == Some(&b'-') {
            exponent = -exponent;
        }
        float = true;
    }
    if float && whole_digits.saturating_add(exponent) > FLOAT_DIGITS_SURE && !is_finite(&bytes[start..pos]) {
        return Err(JsonError::Overflow { at: start });
    }
    Ok(pos)
}

#[inline(always)]
fn skip_digits(bytes: &[u8], pos: usize) -> Result<usize, JsonError> {
    let digits = bytes.get(pos..).unwrap_or_default().iter().take_while(|byte| byte.is_ascii_digit()).count();
    if digits == 0 { Err(JsonError::at(bytes, pos, "a digit")) } else { Ok(pos + digits) }
}

fn is_finite(number: &[u8]) -> bool {
    std::str::from_utf8(number).ok().and_then(|text| text.parse::<f64>().ok()).is_some_and(f64::is_finite)
}

/// Skips the escape whose backslash stands at `pos`; a surrogate pair is one escape.
fn skip_escape(bytes: &[u8], pos: usize) -> Result<usize, JsonError> {
    match bytes.get(pos + 1) {
        Some(b'"' | b'\\' | b'/' | b'b' | b'f' | b'n' | b'r' | b't') => return Ok(pos + 2),
        Some(b'u') => {}
        _ => return Err(JsonError::at(bytes, pos + 1, "an escape")),
    }
    let first = hex4(bytes, pos + 2).ok_or_else(|| JsonError::at(bytes, pos + 2, "four hex digits"))?;
    match first {
        0xd800..=0xdbff => {
            let second = if bytes.get(pos + 6..pos + 8) == Some(b"\\u") { hex4(bytes, pos + 8) } else { None };
            match second {
                Some(0xdc00..=0xdfff) => Ok(pos + 12),
                _ => Err(JsonError::LoneSurrogate { at: pos }),
            }
        }
        0xdc00..=0xdfff => Err(JsonError::LoneSurrogate { at: pos }),
        _ => Ok(pos + 6),
    }
}

fn hex4(bytes: &[u8], pos: usize) -> Option<u16> {
    bytes.get(pos..pos + 4)?.iter().try_fold(0_u16, |value, byte| {
        let digit = char::from(*byte).to_digit(16)?;
        Some(value << 4 | u16::try_from(digit).ok()?)
    })
}

/// Returns the position from `pos` on of the first quote, backslash or control character, or the length.
///
/// Eight bytes a step. Each test sets the top bit of the bytes it is true for, and by borrowing perhaps of bytes after them; so
/// the lowest set bit is exact.
#[inline(always)]
fn find_special(bytes: &[u8], mut pos: usize) -> usize {
    const ONES: u64 = u64::from_le_bytes([1; 8]);
    const TOPS: u64 = ONES << 7;
    while let Some(eight) = bytes.get(pos..).and_then(<[u8]>::first_chunk::<8>) {
        let word = u64::from_le_bytes(*eight);
        let quote = word ^ (ONES * b'"' as u64);
        let backslash = word ^ (ONES * b'\\' as u64);
        let found = (word.wrapping_sub(ONES * 0x20) & !word)
            | (quote.wrapping_sub(ONES) & !quote)
            | (backslash.wrapping_sub(ONES) & !backslash);
        if found & TOPS != 0 {
            return pos + (found & TOPS).trailing_zeros() as usize / 8;
        }
        pos += 8;
    }
    while let Some(byte) = bytes.get(pos) {
        if matches!(byte, b'"' | b'\\' | 0..0x20) {
            break;
        }
        pos += 1;
    }
    pos
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Container {
    Array,
    Object,
}

/// Which containers are open.
struct Nesting {
    depth: usize,
    /// The container that opened last and is still open; without meaning where none is.
    innermost: Container,
    /// The containers around the innermost, outermost first: one bit each, set for an object.
    outer_objects: [u64; JSON_DEPTH_MAX / 64],
}

impl Nesting {
    fn open(&mut self, container: Container, at: usize) -> Result<(), JsonError> {
        let word = self.outer_objects.get_mut(self.depth / 64).ok_or(JsonError::TooDeep { at })?;
        let bit = 1 << (self.depth % 64);
        match self.innermost {
            Container::Array => *word &= !bit,
            Container::Object => *word |= bit,
        }
        self.innermost = container;
        self.depth += 1;
        Ok(())
    }

    /// Closes the innermost container and returns how many are still open.
    fn close(&mut self) -> usize {
        self.depth -= 1;
        let object = self.outer_objects[self.depth / 64] >> (self.depth % 64) & 1 == 1;
        self.innermost = if object { Container::Object } else { Container::Array };
        self.depth
    }
}
