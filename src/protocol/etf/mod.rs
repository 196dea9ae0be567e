//! Erlang's external term format, as far as a token may carry it: decoding with limits, encoding, order and JSON.
//!
//! Tokens that an Elixir application signs hold terms. What `binary_to_term` and Plug.Crypto accept is read here;
//! functions and ports are refused, processes and references are kept as values without a meaning. Nothing recurses:
//! neither decoding nor comparing, writing or dropping a deep term takes stack.
//!
//! This module knows no atom table: atoms are text, and any atom is accepted.
//!
//! Source: the Erlang documentation, "External Term Format"; `Plug.Crypto.non_executable_binary_to_term/2`; OTP 25.

mod decode;
mod encode;
mod float;
mod from_json;
mod fuzz;
mod int;
mod json;
mod order;
mod tagged;

use std::cmp::Ordering;
use std::fmt;
use std::ops::Deref;

pub use decode::decode;
pub use encode::{encode, encode_tuple};
pub use from_json::{BadInput, JSON_INPUT_DEPTH_MAX, from_json, json_kind};
pub use fuzz::fuzz;
pub use int::Int;
pub use json::to_json;
pub use order::compare;
pub use tagged::{from_tagged, to_tagged};

/// Most bytes of a term in its external form, compressed or not, as they come.
///
/// A term comes inside a token, and a token is text on a connection; Phoenix's own are below 1 KB.
pub const TERM_BYTES_MAX: usize = 1_048_576;

/// Most bytes of a compressed term once it is inflated. A claim of more is refused before anything is inflated.
pub const INFLATED_BYTES_MAX: usize = 4_194_304;

/// Most values in one term, each item of a list, tuple or map counted. It bounds the memory: a value takes 32 bytes.
pub const ITEMS_MAX: usize = 262_144;

/// Most lists, tuples and maps inside one another. Stack is no concern here; it bounds what a reader of the JSON meets.
pub const DEPTH_MAX: usize = 16_384;

/// Most bytes of an integer. Writing one in decimal takes time in the square of its length: some milliseconds at this
/// size.
pub const INT_BYTES_MAX: usize = 16_384;

/// Most characters of an atom. Source: Erlang's own limit.
pub const ATOM_CHARS_MAX: usize = 255;

/// Most words of a reference's number. Source: `ERTS_MAX_REF_NUMBERS` of OTP 24 and later.
pub const REFERENCE_WORDS_MAX: usize = 5;

/// An Erlang term.
///
/// Two terms are equal when Erlang's `=:=` says so.
pub enum Term {
    /// An atom; `nil`, `true` and `false` are atoms.
    Atom(Atom),
    /// An integer of any size.
    Int(Int),
    /// A finite float.
    Float(f64),
    /// Bytes: Elixir's strings are binaries.
    Binary(Box<[u8]>),
    /// A bit string that is not a whole number of bytes.
    Bits(Bits),
    /// A proper list.
    List(Items),
    /// A list that ends in something else than a list: two or more items, of which the last is that tail.
    Improper(Items),
    /// A tuple.
    Tuple(Items),
    /// A map.
    Map(Map),
    /// A process identifier.
    Pid(Box<Pid>),
    /// A reference.
    Reference(Box<Reference>),
}

/// An atom: text of at most [`ATOM_CHARS_MAX`] characters.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Atom(Box<str>);

/// Bits that end within a byte.
#[derive(Clone, PartialEq, Eq)]
pub struct Bits {
    /// The bytes; the unused low bits of the last are 0.
    bytes: Box<[u8]>,
    /// Used bits of the last byte, 1 to 7.
    last_bits: u8,
}

/// A process identifier, of no use here but to be told from others.
#[derive(Clone, PartialEq, Eq)]
pub struct Pid {
    node: Atom,
    id: u32,
    serial: u32,
    creation: u32,
}

/// A reference, of no use here but to be told from others.
#[derive(Clone, PartialEq, Eq)]
pub struct Reference {
    node: Atom,
    creation: u32,
    words: Vec<u32>,
}

/// The items of a list, tuple or map. Dropping them takes no stack, however deep they are.
pub struct Items(Vec<Term>);

/// A map: keys and values in turn, sorted by key as Erlang keeps small maps, without two equal keys.
pub struct Map(Items);

/// Why bytes are no term that is accepted here.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum EtfError {
    /// The bytes stop within the term.
    #[error("term ends at byte {at} of its bytes, expected more")]
    End {
        /// How many bytes there are.
        at: usize,
    },
    /// The first byte is not the format's version.
    #[error("expected a term to begin with byte 131")]
    Version,
    /// A tag that is unknown, or can't stand where it does.
    #[error("term has tag {tag} at byte {at}, expected that of a value")]
    Tag {
        /// The tag.
        tag: u8,
        /// Where it is.
        at: usize,
    },
    /// A function or a port.
    #[error("term has tag {tag}, expected neither functions nor ports")]
    Executable {
        /// The tag.
        tag: u8,
    },
    /// An atom that is too long or not UTF-8.
    #[error("expected an atom of at most {max} characters in UTF-8", max = ATOM_CHARS_MAX)]
    Atom,
    /// A float that is not finite or not a number's text.
    #[error("expected a finite float")]
    Float,
    /// A bit string whose last byte has an impossible number of bits.
    #[error("expected a bit string with 1 to 8 bits in its last byte")]
    Bits,
    /// A reference of too many words, or of none.
    #[error("expected a reference of 1 to {max} words", max = REFERENCE_WORDS_MAX)]
    Reference,
    /// Two equal keys in one map.
    #[error("expected a map without equal keys")]
    DuplicateKey,
    /// A compressed term that does not inflate to exactly the size that it states.
    #[error("expected a compressed term that inflates to the size it states")]
    Compressed,
    /// More bytes than [`TERM_BYTES_MAX`], or [`INFLATED_BYTES_MAX`] once inflated.
    #[error("term is {came} bytes, the limit is {max}")]
    TooLong {
        /// How many bytes came, or are stated.
        came: usize,
        /// The limit.
        max: usize,
    },
    /// An integer above [`INT_BYTES_MAX`].
    #[error("term has an integer of {came} bytes, the limit is {max}", max = INT_BYTES_MAX)]
    IntTooLong {
        /// How many bytes are stated.
        came: usize,
    },
    /// More than [`ITEMS_MAX`] values.
    #[error("term has more than {max} values", max = ITEMS_MAX)]
    TooManyItems,
    /// More than [`DEPTH_MAX`] levels.
    #[error("term is nested deeper than {max}", max = DEPTH_MAX)]
    TooDeep,
}

impl Term {
    /// An atom.
    ///
    /// # Errors
    /// [`EtfError::Atom`] above [`ATOM_CHARS_MAX`].
    pub fn atom(text: &str) -> Result<Term, EtfError> {
        Atom::new(text).map(Term::Atom)
    }

    /// The atom `nil`, which is JSON's null.
    pub fn nil() -> Term {
        Term::Atom(Atom("nil".into()))
    }

    /// The atom `infinity`.
    pub fn infinity() -> Term {
        Term::Atom(Atom("infinity".into()))
    }

    /// A binary.
    pub fn binary(bytes: impl AsRef<[u8]>) -> Term {
        Term::Binary(bytes.as_ref().into())
    }

    /// An integer.
    pub fn int(value: i64) -> Term {
        Term::Int(Int::from(value))
    }

    /// A map of these keys and values, in any order.
    ///
    /// # Errors
    /// [`EtfError::DuplicateKey`].
    pub fn map(entries: Vec<(Term, Term)>) -> Result<Term, EtfError> {
        Map::new(entries).map(Term::Map)
    }

    /// The text of an atom.
    pub fn as_atom(&self) -> Option<&str> {
        match self {
            Term::Atom(atom) => Some(atom),
            _ => None,
        }
    }

    /// A binary that is UTF-8: Elixir's string.
    pub fn as_str(&self) -> Option<&str> {
        match self {
            Term::Binary(bytes) => std::str::from_utf8(bytes).ok(),
            _ => None,
        }
    }

    /// The value of an integer within 64 bits.
    pub fn as_i64(&self) -> Option<i64> {
        match self {
            Term::Int(int) => int.as_i64(),
            _ => None,
        }
    }

    /// The items of a proper list.
    pub fn as_list(&self) -> Option<&[Term]> {
        match self {
            Term::List(items) => Some(items),
            _ => None,
        }
    }

    /// The value below a name in a map, whether the key is that atom or that string; the atom first.
    pub fn field(&self, name: &str) -> Option<&Term> {
        let Term::Map(map) = self else { return None };
        let by_atom = map.entries().find(|(key, _)| key.as_atom() == Some(name));
        by_atom.or_else(|| map.entries().find(|(key, _)| key.as_str() == Some(name))).map(|(_, value)| value)
    }

    /// The value below an atom in a map.
    pub fn atom_field(&self, name: &str) -> Option<&Term> {
        let Term::Map(map) = self else { return None };
        map.entries().find(|(key, _)| key.as_atom() == Some(name)).map(|(_, value)| value)
    }

    fn items_mut(&mut self) -> Option<&mut Items> {
        match self {
            Term::List(items) | Term::Improper(items) | Term::Tuple(items) | Term::Map(Map(items)) => Some(items),
            _ => None,
        }
    }

    fn holds_items(&self) -> bool {
        matches!(self, Term::List(items) | Term::Improper(items) | Term::Tuple(items) | Term::Map(Map(items))
            if !items.is_empty())
    }
}

impl From<bool> for Term {
    fn from(value: bool) -> Term {
        Term::Atom(Atom(if value { "true" } else { "false" }.into()))
    }
}

impl Atom {
    /// An atom of this text.
    ///
    /// # Errors
    /// [`EtfError::Atom`] above [`ATOM_CHARS_MAX`].
    pub fn new(text: &str) -> Result<Atom, EtfError> {
        if text.chars().nth(ATOM_CHARS_MAX).is_some() { Err(EtfError::Atom) } else { Ok(Atom(text.into())) }
    }
}

impl Deref for Atom {
    type Target = str;

    fn deref(&self) -> &str {
        &self.0
    }
}

impl PartialEq for Term {
    fn eq(&self, other: &Term) -> bool {
        order::compare_exact(self, other) == Ordering::Equal
    }
}

impl fmt::Debug for Term {
    /// The tagged form, shortened: terms come from tokens, which are not for logs.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let text = to_tagged(self);
        match text.char_indices().nth(2_000) {
            Some((end, _)) => write!(f, "{}...", &text[..end]),
            None => f.write_str(&text),
        }
    }
}

impl Map {
    /// A map of these keys and values, in any order.
    ///
    /// # Errors
    /// [`EtfError::DuplicateKey`] if two keys are equal in the sense of `=:=`.
    pub fn new(mut entries: Vec<(Term, Term)>) -> Result<Map, EtfError> {
        entries.sort_by(|one, other| order::compare_exact(&one.0, &other.0));
        let equal = entries.windows(2).any(|pair| order::compare_exact(&pair[0].0, &pair[1].0) == Ordering::Equal);
        if equal {
            return Err(EtfError::DuplicateKey);
        }
        Ok(Map(Items(entries.into_iter().flat_map(|(key, value)| [key, value]).collect())))
    }

    /// The keys with their values, sorted by key: numbers before atoms before binaries, integers before floats.
    pub fn entries(&self) -> impl Iterator<Item = (&Term, &Term)> {
        self.0.as_chunks::<2>().0.iter().map(|[key, value]| (key, value))
    }

    /// The value below an atom, for which the others go.
    pub fn into_atom_field(mut self, name: &str) -> Option<Term> {
        let at = self.entries().position(|(key, _)| key.as_atom() == Some(name))?;
        Some(self.0.0.swap_remove(at * 2 + 1))
    }

    /// How many keys it has.
    pub fn len(&self) -> usize {
        self.0.len() / 2
    }

    /// Whether it has no keys.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }
}

impl From<Vec<Term>> for Items {
    fn from(items: Vec<Term>) -> Items {
        Items(items)
    }
}

impl Items {
    /// The first of them, for which the others go.
    pub fn into_first(mut self) -> Option<Term> {
        self.0.truncate(1);
        self.0.pop()
    }
}

impl Deref for Items {
    type Target = [Term];

    fn deref(&self) -> &[Term] {
        &self.0
    }
}

impl Drop for Items {
    fn drop(&mut self) {
        if !self.0.iter().any(Term::holds_items) {
            return;
        }
        let mut left = std::mem::take(&mut self.0);
        while let Some(mut term) = left.pop() {
            if let Some(items) = term.items_mut() {
                left.append(&mut items.0);
            }
        }
    }
}

impl Bits {
    /// Bits from bytes, of whose last the `last_bits` highest count, 1 to 7. `None` for another number or no bytes.
    pub fn new(bytes: &[u8], last_bits: u8) -> Option<Bits> {
        let mut bytes: Box<[u8]> = bytes.into();
        let last = bytes.last_mut()?;
        if !(1..8).contains(&last_bits) {
            return None;
        }
        *last &= 0xff << (8 - last_bits);
        Some(Bits { bytes, last_bits })
    }

    /// How many bits it has.
    pub fn len(&self) -> usize {
        (self.bytes.len() - 1) * 8 + usize::from(self.last_bits)
    }

    /// Whether it has no bits, which it never is.
    pub fn is_empty(&self) -> bool {
        self.bytes.is_empty()
    }
}
