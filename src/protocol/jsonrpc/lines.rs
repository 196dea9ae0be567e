//! One message a line, as stdio has it: splits bytes into lines, with a bound, and says whose answer a line was that is too
//! long to be kept.
//!
//! Source: MCP, stdio transport.

/// What the bytes held.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Line<'a> {
    /// A line without its end, and without spaces around; never empty.
    Whole(&'a [u8]),
    /// A line above the bound.
    TooLong {
        /// Its bytes.
        bytes: usize,
        /// The text of the `id` of the object that it began, if there was one that is no object or list.
        id: Option<String>,
    },
}

/// Bytes of an id that is looked for in a line too long.
const ID_BYTES_MAX: usize = 256;

/// The lines of one stream.
#[derive(Clone, Debug)]
pub struct Lines {
    bytes_max: usize,
    kept: Vec<u8>,
    /// The search in a line that is too long, and its bytes so far.
    skipped: Option<(IdSearch, usize)>,
}

impl Lines {
    /// No bytes yet; lines of up to `bytes_max`.
    pub fn new(bytes_max: usize) -> Self {
        Lines { bytes_max, kept: Vec::new(), skipped: None }
    }

    /// Whether a line has begun that has not ended.
    pub fn is_within_line(&self) -> bool {
        self.skipped.is_some() || !self.kept.trim_ascii().is_empty()
    }

    /// Takes the next bytes; `each` gets the lines that end in them.
    pub fn push(&mut self, mut bytes: &[u8], mut each: impl FnMut(Line<'_>)) {
        while let Some(end) = memchr(bytes) {
            let (line, rest) = (&bytes[..end], &bytes[end + 1..]);
            if self.kept.is_empty() && self.skipped.is_none() && line.len() <= self.bytes_max {
                whole(line, &mut each);
            } else {
                self.keep(line);
                match self.skipped.take() {
                    Some((search, bytes)) => each(Line::TooLong { bytes, id: search.found() }),
                    None => whole(&self.kept, &mut each),
                }
                // Nothing is kept of a long line for an idle stream.
                self.kept = Vec::new();
            }
            bytes = rest;
        }
        self.keep(bytes);
    }

    fn keep(&mut self, bytes: &[u8]) {
        if let Some((search, skipped)) = &mut self.skipped {
            search.push(bytes);
            *skipped += bytes.len();
            return;
        }
        if self.kept.len() + bytes.len() > self.bytes_max {
            let mut search = IdSearch::default();
            search.push(&self.kept);
            search.push(bytes);
            self.skipped = Some((search, self.kept.len() + bytes.len()));
            self.kept = Vec::new();
            return;
        }
        self.kept.extend_from_slice(bytes);
    }
}

fn memchr(bytes: &[u8]) -> Option<usize> {
    bytes.iter().position(|byte| *byte == b'\n')
}

fn whole(line: &[u8], each: &mut impl FnMut(Line<'_>)) {
    let line = line.trim_ascii();
    if !line.is_empty() {
        each(Line::Whole(line));
    }
}

/// Looks for the `id` of an object in bytes that are not kept. Of an object of objects it knows how deep it is, and no more.
#[derive(Clone, Debug, Default)]
struct IdSearch {
    depth: usize,
    is_in_string: bool,
    is_escaped: bool,
    /// The last string or bare value of the outermost object, as its text, cut.
    token: Vec<u8>,
    /// Whether that was a key: its colon has come.
    is_id_next: bool,
    found: Option<String>,
}

impl IdSearch {
    fn push(&mut self, bytes: &[u8]) {
        for byte in bytes {
            self.step(*byte);
        }
    }

    fn step(&mut self, byte: u8) {
        if self.is_in_string {
            self.note(byte);
            match byte {
                _ if self.is_escaped => self.is_escaped = false,
                b'\\' => self.is_escaped = true,
                b'"' => self.is_in_string = false,
                _ => {}
            }
            return;
        }
        match byte {
            b'"' => {
                self.is_in_string = true;
                self.note(byte);
            }
            b'{' | b'[' => {
                self.depth += 1;
                self.token.clear();
                // Its value is no id that can be taken.
                self.is_id_next = false;
            }
            b'}' | b']' => {
                self.end_value();
                self.depth = self.depth.saturating_sub(1);
            }
            b',' => self.end_value(),
            b':' => {
                self.is_id_next = self.depth == 1 && self.token == b"\"id\"";
                self.token.clear();
            }
            byte if byte.is_ascii_whitespace() => {}
            _ => self.note(byte),
        }
    }

    fn note(&mut self, byte: u8) {
        if self.depth == 1 && self.token.len() <= ID_BYTES_MAX {
            self.token.push(byte);
        }
    }

    fn end_value(&mut self) {
        if self.depth == 1 && std::mem::take(&mut self.is_id_next) && self.token.len() <= ID_BYTES_MAX {
            let text = String::from_utf8_lossy(&self.token).into_owned();
            self.found.get_or_insert(text);
        }
        if self.depth == 1 {
            self.token.clear();
        }
    }

    fn found(self) -> Option<String> {
        self.found
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn lines(bytes_max: usize, parts: &[&[u8]]) -> (Vec<String>, bool) {
        let mut lines = Lines::new(bytes_max);
        let mut found = Vec::new();
        for part in parts {
            lines.push(part, |line| {
                found.push(match line {
                    Line::Whole(text) => String::from_utf8_lossy(text).into_owned(),
                    Line::TooLong { bytes, id } => format!("{bytes} {id:?}"),
                });
            });
        }
        (found, lines.is_within_line())
    }

    #[test]
    fn lines_are_told_however_they_come() {
        let (found, is_within) = lines(9, &[b"{\"a\":1}\n{}", b"\r\n \n\n", b"{\"", b"b\"", b":2}\n{"]);

        assert_eq!(found, [r#"{"a":1}"#, "{}", r#"{"b":2}"#]);
        assert!(is_within);
    }

    #[test]
    fn a_line_too_long_says_whose_answer_it_was() {
        let id = |text: &str| lines(4, &[text.as_bytes(), b"\n{}\n"]).0;

        assert_eq!(id(r#"{"id":7,"result":{"id":9}}"#), [r#"26 Some("7")"#, "{}"]);
        assert_eq!(
            id(r#"{"result":{"id":9,"x":["id",{"id":1}]},"jsonrpc":"2.0", "id" : "a\",b" }"#)[0],
            r#"72 Some("\"a\\\",b\"")"#
        );
        assert_eq!(id(r#"{"x":"id","y":":","result":1}"#)[0], "29 None");
        assert_eq!(id(r#"{"id":{"a":1},"b":2}"#)[0], "20 None");
        assert_eq!(id("garbage garbage")[0], "15 None");
    }

    proptest! {
        #[test]
        fn how_bytes_are_cut_makes_no_difference(
            text in prop::collection::vec(prop_oneof![Just(b'\n'), Just(b'{'), Just(b'"'), Just(b'i'), Just(b' '), Just(b','), Just(b'}')], 0..60),
            cuts in prop::collection::vec(0..60_usize, 0..6),
        ) {
            let mut cuts: Vec<_> = cuts.into_iter().map(|cut| cut.min(text.len())).collect();
            cuts.sort_unstable();
            cuts.push(text.len());
            let mut parts = Vec::new();
            let mut start = 0;
            for cut in cuts {
                parts.push(&text[start..cut]);
                start = cut;
            }

            prop_assert_eq!(lines(8, &parts), lines(8, &[&text]));
        }
    }
}
