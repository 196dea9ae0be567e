//! JSON as Phoenix has it: text to Elixir terms, by serde_json's grammar and plain recursion.
//!
//! serde_json says what is JSON at all. Jason, and so Bennu, takes less of it: no half of a surrogate pair and no float
//! beyond 64 bits, which serde_json lets pass where it only skips; and Bennu bounds the nesting. Integers of any length
//! are fine with all three.

use std::collections::BTreeMap;

use serde::de::IgnoredAny;

/// An Elixir term. Equality is Elixir's `===`.
#[derive(Clone, PartialEq, Debug)]
pub(super) enum Term {
    Word(String),
    /// Its digits, without leading zeroes; JSON has none.
    Int(String),
    /// Its bits: 0.0 and -0.0 are two floats.
    Float(u64),
    Str(String),
    List(Vec<Term>),
    /// The first of repeated keys counts.
    Map(BTreeMap<String, Term>),
}

impl Term {
    /// The term of a text that Bennu has to take, with at most `depth_max` lists and maps inside one another. None if it
    /// has to refuse the text.
    pub(super) fn read(text: &str, depth_max: usize) -> Option<Term> {
        serde_json::from_str::<IgnoredAny>(text).ok()?;
        let mut reader = Reader { text, at: 0 };
        reader.term(depth_max)
    }

    /// Appends the term as JSON in an unusual spelling: white space, escapes, maps backwards and with keys repeated.
    pub(super) fn spell(&self, out: &mut String) {
        match self {
            Term::Word(word) => out.push_str(word),
            Term::Int(digits) => out.push_str(digits),
            Term::Float(bits) => out.push_str(&format!("{:E}", f64::from_bits(*bits))),
            Term::Str(text) => spell_str(text, out),
            Term::List(items) => {
                out.push('[');
                for (place, item) in items.iter().enumerate() {
                    out.push_str(if place > 0 { "\t,\r" } else { "\n" });
                    item.spell(out);
                }
                out.push_str(" ]");
            }
            Term::Map(members) => {
                out.push('{');
                for (place, (key, member)) in members.iter().rev().enumerate() {
                    out.push_str(if place > 0 { " ," } else { "" });
                    spell_str(key, out);
                    out.push_str(" : ");
                    member.spell(out);
                }
                if let Some(key) = members.keys().next() {
                    out.push(',');
                    spell_str(key, out);
                    out.push_str(":[\"a repeated key does not count\"]");
                }
                out.push('}');
            }
        }
    }
}

fn spell_str(text: &str, out: &mut String) {
    out.push('"');
    for unit in text.encode_utf16() {
        out.push_str(&format!("\\u{unit:04X}"));
    }
    out.push('"');
}

/// Reads a text that is JSON.
struct Reader<'a> {
    text: &'a str,
    at: usize,
}

impl Reader<'_> {
    fn peek(&mut self) -> u8 {
        let rest = &self.text[self.at..];
        self.at += rest.len() - rest.trim_start_matches([' ', '\t', '\r', '\n']).len();
        self.text.as_bytes()[self.at]
    }

    fn term(&mut self, depth_max: usize) -> Option<Term> {
        match self.peek() {
            b'"' => self.string().map(Term::Str),
            b'[' => {
                let mut items = Vec::new();
                self.each(b']', depth_max, |reader, depth_max| {
                    items.push(reader.term(depth_max)?);
                    Some(())
                })?;
                Some(Term::List(items))
            }
            b'{' => {
                let mut members = BTreeMap::new();
                self.each(b'}', depth_max, |reader, depth_max| {
                    let key = reader.string()?;
                    assert_eq!(reader.peek(), b':');
                    reader.at += 1;
                    let member = reader.term(depth_max)?;
                    members.entry(key).or_insert(member);
                    Some(())
                })?;
                Some(Term::Map(members))
            }
            b'-' | b'0'..=b'9' => self.number(),
            _ => Some(Term::Word(self.take_while(|char| char.is_ascii_lowercase()).to_owned())),
        }
    }

    /// Reads what stands between a bracket and its counterpart, with `read` for what stands between commas.
    fn each(&mut self, end: u8, depth_max: usize, mut read: impl FnMut(&mut Self, usize) -> Option<()>) -> Option<()> {
        let depth_max = depth_max.checked_sub(1)?;
        self.at += 1;
        while self.peek() != end {
            if self.peek() == b',' {
                self.at += 1;
                self.peek();
            }
            read(self, depth_max)?;
        }
        self.at += 1;
        Some(())
    }

    fn number(&mut self) -> Option<Term> {
        let number = self.take_while(|char| matches!(char, '0'..='9' | '+' | '-' | '.' | 'e' | 'E'));
        if number.contains(['.', 'e', 'E']) {
            let float: f64 = number.parse().expect("a number of JSON is one of Rust");
            return float.is_finite().then(|| Term::Float(float.to_bits()));
        }
        Some(Term::Int(if number == "-0" { "0" } else { number }.to_owned()))
    }

    fn string(&mut self) -> Option<String> {
        self.peek();
        self.at += 1;
        let mut units: Vec<u16> = Vec::new();
        loop {
            let plain = self.take_while(|char| !matches!(char, '"' | '\\'));
            units.extend(plain.encode_utf16());
            let rest = &self.text[self.at..];
            if rest.starts_with('"') {
                self.at += 1;
                return String::from_utf16(&units).ok();
            }
            let escape = rest.as_bytes()[1];
            let unit = match escape {
                b'b' => 8,
                b't' => 9,
                b'n' => 10,
                b'f' => 12,
                b'r' => 13,
                b'u' => u16::from_str_radix(&rest[2..6], 16).expect("serde_json saw four digits"),
                other => u16::from(other),
            };
            units.push(unit);
            self.at += if escape == b'u' { 6 } else { 2 };
        }
    }

    fn take_while(&mut self, mut holds: impl FnMut(char) -> bool) -> &str {
        let rest = &self.text[self.at..];
        let taken = &rest[..rest.find(|char| !holds(char)).unwrap_or(rest.len())];
        self.at += taken.len();
        taken
    }
}
