//! Where a client stands in a topic's order, as it says so in its join params and hears of it.

use std::fmt;

use serde::{Serialize, Serializer};

use crate::protocol::jsonrpc::Object;

/// The largest offset: every whole number up to it is one in JavaScript too.
pub const OFFSET_MAX: u64 = (1 << 53) - 1;

/// Characters of a resume value that a refusal repeats.
const SHOWN_CHARS_MAX: usize = 60;

/// Which of a topic's histories an offset belongs to: 16 hex digits, drawn anew whenever one begins.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct Epoch(pub u64);

impl Epoch {
    /// Reads 16 lower-case hex digits.
    pub fn parse(text: &str) -> Option<Self> {
        let is_hex = text.len() == 16 && text.bytes().all(|byte| matches!(byte, b'0'..=b'9' | b'a'..=b'f'));
        is_hex.then(|| u64::from_str_radix(text, 16).ok().map(Epoch)).flatten()
    }
}

impl fmt::Display for Epoch {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:016x}", self.0)
    }
}

impl fmt::Debug for Epoch {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Epoch({self})")
    }
}

impl Serialize for Epoch {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

/// A place in a topic's order: behind the broadcast of that offset.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
pub struct Position {
    /// Of which history.
    pub epoch: Epoch,
    /// The last broadcast's offset; 0 before the first.
    pub offset: u64,
}

/// What a client asks for with `resume` in its join params.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Resume {
    /// Positions from now on.
    FromNow,
    /// What came behind a position.
    After(Position),
}

impl Resume {
    /// Reads the join params, any JSON value: none where they have no `resume`.
    ///
    /// # Errors
    /// [`BadResume`] if it is neither `true`, `null`, `{}` nor a position.
    pub fn from_params(params: &[u8]) -> Result<Option<Self>, BadResume> {
        let Some(value) = Object::parse(params).and_then(|params| params.raw("resume").map(|raw| raw.get())) else {
            return Ok(None);
        };
        let is_bare = matches!(value, "true" | "null");
        if is_bare || value.strip_prefix('{').and_then(|rest| rest.strip_suffix('}')).is_some_and(is_blank) {
            return Ok(Some(Resume::FromNow));
        }
        let position = Object::parse(value.as_bytes()).and_then(|value| {
            let epoch = Epoch::parse(&value.string("epoch")?)?;
            let offset = value.get("offset").filter(|offset| *offset <= OFFSET_MAX)?;
            Some(Position { epoch, offset })
        });
        position.map(|position| Some(Resume::After(position))).ok_or_else(|| BadResume::of(value))
    }
}

fn is_blank(text: &str) -> bool {
    text.trim().is_empty()
}

/// A `resume` of another shape.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error(
    "resume: expected true, null or {{\"epoch\": 16 hex digits, \"offset\": a whole number from 0 to {OFFSET_MAX}}}, got {0}"
)]
pub struct BadResume(String);

impl BadResume {
    fn of(value: &str) -> Self {
        let mut shown: String = value.chars().take(SHOWN_CHARS_MAX).collect();
        if shown.len() < value.len() {
            shown.push('…');
        }
        BadResume(shown)
    }
}
