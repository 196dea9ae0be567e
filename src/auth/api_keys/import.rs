//! Reads the Elixir deployment's table of API keys, as people get it out of Postgres.

use base64::Engine;
use base64::alphabet::{STANDARD, URL_SAFE};
use base64::engine::{DecodePaddingMode, GeneralPurpose, GeneralPurposeConfig};
use serde::Deserialize;
use serde_json::Value;

use super::KEYS_MAX;
use super::record::{Hash, NAME_BYTES_MAX};
use crate::protocol::timestamp;

/// Bytes of a table to import: several times what [`KEYS_MAX`] keys need.
pub const IMPORT_BYTES_MAX: usize = 64 << 20;

const HASH: &str = "api_key_hash";
const USER: &str = "user_id";
const EXPIRES: &str = "expires_at";
const NAME: &str = "name";

/// What became of the rows of a table.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Imported {
    /// Keys that came to be.
    pub new: usize,
    /// Rows whose hash was already known; they changed nothing.
    pub known: usize,
    /// Rows left out because they had expired.
    pub expired: usize,
}

/// A table that can't be imported, and why: the fault of whoever made the file.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ImportFault {
    /// It is too long.
    #[error("the table is {came} bytes, the limit is {IMPORT_BYTES_MAX}")]
    TooLong {
        /// Bytes of it.
        came: usize,
    },
    /// It has too many rows.
    #[error("the table has more than {KEYS_MAX} rows, the limit")]
    TooMany,
    /// It does not begin as JSON lines or CSV with these columns do.
    #[error("line 1: expected a JSON object or a CSV head with the column {column}, came neither")]
    Head {
        /// The column that is missing.
        column: &'static str,
    },
    /// A line is not what was expected.
    #[error("line {line}: {what}")]
    Line {
        /// Counted from 1.
        line: usize,
        /// What was expected and what came. Never a whole hash.
        what: String,
    },
}

/// A row of the table.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Row {
    pub(super) hash: Hash,
    pub(super) user: String,
    pub(super) name: String,
    pub(super) expires_unix_ms: u64,
}

/// Reads all rows, or none. Of rows with the same hash the first counts.
pub(super) fn parse(text: &str) -> Result<Vec<Row>, ImportFault> {
    if text.len() > IMPORT_BYTES_MAX {
        return Err(ImportFault::TooLong { came: text.len() });
    }
    // Windows puts a mark before the first line.
    let text = text.strip_prefix('\u{feff}').unwrap_or(text);
    let rows = if text.trim_start().starts_with('{') { json_lines(text)? } else { csv(text)? };
    let mut seen = std::collections::HashSet::new();
    Ok(rows.into_iter().filter(|row| seen.insert(row.hash)).collect())
}

#[derive(Deserialize)]
struct Object {
    api_key_hash: Option<Value>,
    user_id: Option<Value>,
    expires_at: Option<Value>,
    name: Option<Value>,
}

fn json_lines(text: &str) -> Result<Vec<Row>, ImportFault> {
    let mut rows = Vec::new();
    for (line, text) in text.lines().enumerate().filter(|(_, text)| !text.trim().is_empty()) {
        let fault = |what| ImportFault::Line { line: line + 1, what };
        // What serde_json says may quote the line.
        let object = serde_json::from_str::<Object>(text).map_err(|error| error.column());
        let object = if text.trim_start().starts_with('{') { object } else { Err(1) };
        let object = object.map_err(|column| {
            fault(format!("expected a JSON object with each column once, came something else at column {column}"))
        })?;
        let text = |value: Option<Value>| match value {
            None | Some(Value::Null) => Ok(String::new()),
            Some(Value::String(text)) => Ok(text),
            Some(Value::Number(number)) => Ok(number.to_string()),
            Some(_) => Err(()),
        };
        let field =
            |column, value| text(value).map_err(|()| fault(format!("{column}: expected a string, came another")));
        push(&mut rows, {
            let [hash, user] = [field(HASH, object.api_key_hash)?, field(USER, object.user_id)?];
            let [expires, name] = [field(EXPIRES, object.expires_at)?, field(NAME, object.name)?];
            row(&hash, user, name, &expires).map_err(fault)?
        })?;
    }
    Ok(rows)
}

fn csv(text: &str) -> Result<Vec<Row>, ImportFault> {
    let mut records = Records { rest: text, line: 1 };
    let (_, head) = records.next().unwrap_or_else(|| Ok((1, Vec::new())))?;
    let find = |column: &'static str| {
        let found = head.iter().position(|name| name.trim().eq_ignore_ascii_case(column));
        found.ok_or(ImportFault::Head { column })
    };
    let (hash, user, expires, name) = (find(HASH)?, find(USER)?, find(EXPIRES)?, find(NAME).ok());
    let mut rows = Vec::new();
    for record in records {
        let (line, fields) = record?;
        if fields.iter().all(|field| field.trim().is_empty()) {
            continue;
        }
        let fault = |what| ImportFault::Line { line, what };
        if fields.len() != head.len() {
            return Err(fault(format!("expected {} fields, came {}", head.len(), fields.len())));
        }
        let name = name.map(|name| fields[name].clone()).unwrap_or_default();
        push(&mut rows, row(&fields[hash], fields[user].clone(), name, &fields[expires]).map_err(fault)?)?;
    }
    Ok(rows)
}

fn push(rows: &mut Vec<Row>, row: Row) -> Result<(), ImportFault> {
    if rows.len() == KEYS_MAX {
        return Err(ImportFault::TooMany);
    }
    rows.push(row);
    Ok(())
}

fn row(hash: &str, user: String, name: String, expires: &str) -> Result<Row, String> {
    let hash = parse_hash(hash.trim())?;
    if user.is_empty() || user.len() > NAME_BYTES_MAX {
        return Err(format!("{USER}: expected 1 to {NAME_BYTES_MAX} bytes, came {}", user.len()));
    }
    if name.len() > NAME_BYTES_MAX {
        return Err(format!("{NAME}: expected at most {NAME_BYTES_MAX} bytes, came {}", name.len()));
    }
    let micros = timestamp::unix_micros(expires).ok_or_else(|| {
        let came: String = expires.chars().take(40).collect();
        format!("{EXPIRES}: expected a moment such as 2027-07-18T00:00:00Z, came {came:?}")
    })?;
    Ok(Row { hash, user, name, expires_unix_ms: micros / 1_000 })
}

/// 32 bytes as hex digits, as Postgres writes `bytea`, or as base64 of either alphabet. Their lengths tell them apart.
fn parse_hash(text: &str) -> Result<Hash, String> {
    let postgres = text.strip_prefix(r"\\x").or_else(|| text.strip_prefix(r"\x"));
    let bytes = match postgres.unwrap_or(text) {
        digits if digits.len() == 64 => hex(digits),
        base64 if postgres.is_none() && (43..=44).contains(&base64.len()) => from_base64(base64),
        _ => None,
    };
    // A hash is of no use to log, and its length says what went wrong.
    bytes.ok_or_else(|| {
        let came = text.chars().count();
        format!(r"{HASH}: expected 32 bytes as hex digits, as \x and hex digits or as base64, came {came} characters")
    })
}

fn hex(digits: &str) -> Option<Hash> {
    let nibble = |digit: u8| char::from(digit).to_digit(16).and_then(|digit| u8::try_from(digit).ok());
    let mut hash = [0; 32];
    for (byte, pair) in hash.iter_mut().zip(digits.as_bytes().chunks_exact(2)) {
        *byte = nibble(pair[0])? << 4 | nibble(pair[1])?;
    }
    Some(hash)
}

fn from_base64(text: &str) -> Option<Hash> {
    let config = GeneralPurposeConfig::new().with_decode_padding_mode(DecodePaddingMode::Indifferent);
    let alphabet = if text.contains(['-', '_']) { &URL_SAFE } else { &STANDARD };
    GeneralPurpose::new(alphabet, config).decode(text).ok()?.try_into().ok()
}

/// Records of CSV, each with the line that it begins on.
///
/// Source: RFC 4180; lines may end with `\n` alone.
struct Records<'a> {
    rest: &'a str,
    line: usize,
}

impl Iterator for Records<'_> {
    type Item = Result<(usize, Vec<String>), ImportFault>;

    fn next(&mut self) -> Option<Self::Item> {
        if self.rest.is_empty() {
            return None;
        }
        let line = self.line;
        let mut fields = Vec::new();
        loop {
            let (field, rest) = match self.rest.strip_prefix('"') {
                Some(quoted) => {
                    let Some(split) = unquote(quoted) else {
                        self.rest = "";
                        let what = "expected a quote at the end of a quoted field, came the end".to_owned();
                        return Some(Err(ImportFault::Line { line, what }));
                    };
                    split
                }
                None => {
                    let end = self.rest.find([',', '\n']).unwrap_or(self.rest.len());
                    (self.rest[..end].trim_end_matches('\r').to_owned(), &self.rest[end..])
                }
            };
            self.line += field.matches('\n').count();
            fields.push(field);
            if let Some(rest) = rest.strip_prefix(',') {
                self.rest = rest;
                continue;
            }
            let ended = rest.strip_prefix("\r\n").or_else(|| rest.strip_prefix('\n'));
            self.line += 1;
            self.rest = ended.unwrap_or("");
            if ended.is_none() && !rest.is_empty() {
                let what = "expected a comma or the line's end after a quoted field, came other text".to_owned();
                return Some(Err(ImportFault::Line { line, what }));
            }
            return Some(Ok((line, fields)));
        }
    }
}

/// The field whose opening quote has been taken, and what follows its closing one.
fn unquote(text: &str) -> Option<(String, &str)> {
    let mut field = String::new();
    let mut rest = text;
    loop {
        let (part, after) = rest.split_once('"')?;
        field.push_str(part);
        match after.strip_prefix('"') {
            Some(after) => {
                field.push('"');
                rest = after;
            }
            None => return Some((field, after)),
        }
    }
}
