//! Bytes to terms, as `binary_to_term` reads them, with limits and without functions and ports.

use flate2::{Decompress, FlushDecompress, Status};

use super::{
    Atom, Bits, DEPTH_MAX, EtfError, INFLATED_BYTES_MAX, INT_BYTES_MAX, ITEMS_MAX, Int, Items, Map, Pid,
    REFERENCE_WORDS_MAX, Reference, TERM_BYTES_MAX, Term,
};

/// The first byte of a term in its external form.
pub(super) const VERSION: u8 = 131;
/// Bytes of a float's text in the format that OTP wrote until R11.
const FLOAT_TEXT_BYTES: usize = 31;
/// Room for items that a list, tuple or map gets at once; a claim of more is not believed before they come.
const ITEMS_AT_ONCE: usize = 4;

/// The tags of the format that are read or written here.
pub(super) mod tag {
    pub(in super::super) const NEW_FLOAT: u8 = 70;
    pub(in super::super) const BIT_BINARY: u8 = 77;
    pub(in super::super) const COMPRESSED: u8 = 80;
    pub(in super::super) const NEW_PID: u8 = 88;
    pub(in super::super) const NEW_PORT: u8 = 89;
    pub(in super::super) const NEWER_REFERENCE: u8 = 90;
    pub(in super::super) const SMALL_INTEGER: u8 = 97;
    pub(in super::super) const INTEGER: u8 = 98;
    pub(in super::super) const FLOAT: u8 = 99;
    pub(in super::super) const ATOM: u8 = 100;
    pub(in super::super) const REFERENCE: u8 = 101;
    pub(in super::super) const PORT: u8 = 102;
    pub(in super::super) const PID: u8 = 103;
    pub(in super::super) const SMALL_TUPLE: u8 = 104;
    pub(in super::super) const LARGE_TUPLE: u8 = 105;
    pub(in super::super) const NIL: u8 = 106;
    pub(in super::super) const STRING: u8 = 107;
    pub(in super::super) const LIST: u8 = 108;
    pub(in super::super) const BINARY: u8 = 109;
    pub(in super::super) const SMALL_BIG: u8 = 110;
    pub(in super::super) const LARGE_BIG: u8 = 111;
    pub(in super::super) const NEW_FUN: u8 = 112;
    pub(in super::super) const EXPORT: u8 = 113;
    pub(in super::super) const NEW_REFERENCE: u8 = 114;
    pub(in super::super) const SMALL_ATOM: u8 = 115;
    pub(in super::super) const MAP: u8 = 116;
    pub(in super::super) const FUN: u8 = 117;
    pub(in super::super) const ATOM_UTF8: u8 = 118;
    pub(in super::super) const SMALL_ATOM_UTF8: u8 = 119;
    pub(in super::super) const V4_PORT: u8 = 120;
}

/// Reads the term that the bytes begin with; bytes after it are ignored, as `binary_to_term` does.
///
/// A compressed term is inflated, to at most [`INFLATED_BYTES_MAX`].
///
/// # Errors
/// [`EtfError`]; what is refused beyond Erlang's own reasons are functions, ports and what exceeds the limits.
pub fn decode(bytes: &[u8]) -> Result<Term, EtfError> {
    if bytes.len() > TERM_BYTES_MAX {
        return Err(EtfError::TooLong { came: bytes.len(), max: TERM_BYTES_MAX });
    }
    let mut reader = Reader { bytes, at: 0 };
    if reader.u8()? != VERSION {
        return Err(EtfError::Version);
    }
    if bytes.get(1) != Some(&tag::COMPRESSED) {
        return Decoder::new(reader).run();
    }
    reader.u8()?;
    let size = reader.count()?;
    let inflated = inflate(&bytes[reader.at..], size)?;
    Decoder::new(Reader { bytes: &inflated, at: 0 }).run()
}

fn inflate(deflated: &[u8], size: usize) -> Result<Vec<u8>, EtfError> {
    if size > INFLATED_BYTES_MAX {
        return Err(EtfError::TooLong { came: size, max: INFLATED_BYTES_MAX });
    }
    // One byte more than stated shows a stream that has more.
    let mut inflated = Vec::with_capacity(size + 1);
    let status = Decompress::new(true).decompress_vec(deflated, &mut inflated, FlushDecompress::Finish);
    match status {
        Ok(Status::StreamEnd) if inflated.len() == size => Ok(inflated),
        _ => Err(EtfError::Compressed),
    }
}

/// A list, tuple or map whose items are still coming.
struct Open {
    shape: Shape,
    /// Items that are still to come. A list with none left waits for its tail.
    left: usize,
    items: Vec<Term>,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Shape {
    Tuple,
    List,
    Map,
}

struct Decoder<'a> {
    reader: Reader<'a>,
    open: Vec<Open>,
    /// Values so far.
    items: usize,
}

impl<'a> Decoder<'a> {
    fn new(reader: Reader<'a>) -> Self {
        Decoder { reader, open: Vec::new(), items: 0 }
    }

    fn run(mut self) -> Result<Term, EtfError> {
        loop {
            let Some(mut value) = self.next_value()? else { continue };
            // A value completes what it is the last of, and that completes what it is the last of.
            loop {
                let Some(open) = self.open.last_mut() else { return Ok(value) };
                let whole = open.left == 0 || (open.left == 1 && open.shape != Shape::List);
                if !whole {
                    open.left -= 1;
                    open.items.push(value);
                    break;
                }
                let open = self.open.pop().expect("it is the last of the open ones");
                value = complete(open, value)?;
            }
        }
    }

    /// Reads one value, or the head of one whose items follow.
    fn next_value(&mut self) -> Result<Option<Term>, EtfError> {
        let at = self.reader.at;
        let tag = self.reader.u8()?;
        if matches!(tag, tag::NIL | tag::STRING | tag::LIST) {
            return self.next_list(tag);
        }
        self.count_items(1)?;
        let value = match tag {
            tag::SMALL_TUPLE => {
                let count = usize::from(self.reader.u8()?);
                return self.open(Shape::Tuple, count);
            }
            tag::LARGE_TUPLE => {
                let count = self.reader.count()?;
                return self.open(Shape::Tuple, count);
            }
            tag::MAP => {
                let count = self.reader.count()?;
                return self.open(Shape::Map, count.saturating_mul(2));
            }
            tag::SMALL_INTEGER => Term::int(i64::from(self.reader.u8()?)),
            tag::INTEGER => Term::int(i64::from(i32::from_be_bytes(self.reader.array()?))),
            tag::SMALL_BIG => {
                let count = usize::from(self.reader.u8()?);
                Term::Int(self.reader.big(count)?)
            }
            tag::LARGE_BIG => {
                let count = self.reader.count()?;
                Term::Int(self.reader.big(count)?)
            }
            tag::NEW_FLOAT => finite(f64::from_be_bytes(self.reader.array()?))?,
            tag::FLOAT => float_of_text(self.reader.take(FLOAT_TEXT_BYTES)?)?,
            tag::BINARY => {
                let count = self.reader.count()?;
                Term::binary(self.reader.take(count)?)
            }
            tag::BIT_BINARY => self.reader.bit_binary()?,
            tag::ATOM | tag::SMALL_ATOM | tag::ATOM_UTF8 | tag::SMALL_ATOM_UTF8 => Term::Atom(self.reader.atom(tag)?),
            tag::PID | tag::NEW_PID => Term::Pid(Box::new(self.reader.pid(tag)?)),
            tag::REFERENCE | tag::NEW_REFERENCE | tag::NEWER_REFERENCE => {
                Term::Reference(Box::new(self.reader.reference(tag)?))
            }
            tag::NEW_FUN | tag::EXPORT | tag::FUN | tag::PORT | tag::NEW_PORT | tag::V4_PORT => {
                return Err(EtfError::Executable { tag });
            }
            _ => return Err(EtfError::Tag { tag, at }),
        };
        Ok(Some(value))
    }

    /// Reads a list's head. As the tail of a list it goes on with that list, so that a long chain is neither deep nor
    /// slow.
    fn next_list(&mut self, tag: u8) -> Result<Option<Term>, EtfError> {
        let in_tail = self.open.last().is_some_and(|open| open.shape == Shape::List && open.left == 0);
        match tag {
            tag::NIL => self.count_items(1)?,
            tag::STRING => {
                let count = usize::from(self.reader.u16()?);
                let bytes = self.reader.take(count)?;
                self.count_items(1 + count)?;
                let items = bytes.iter().map(|&byte| Term::int(i64::from(byte)));
                if in_tail {
                    let open = self.open.last_mut().expect("a list waits for its tail");
                    open.items.extend(items);
                } else {
                    return Ok(Some(Term::List(Items(items.collect()))));
                }
            }
            _ => {
                let count = self.reader.count()?;
                self.count_items(1)?;
                self.expect_items(count)?;
                if !in_tail {
                    self.push_open(Shape::List, count)?;
                } else if let Some(open) = self.open.last_mut() {
                    open.left = count;
                }
                return Ok(None);
            }
        }
        // An empty list, given to a list that waits for its tail, is its proper end.
        Ok(Some(Term::List(Items(Vec::new()))))
    }

    fn open(&mut self, shape: Shape, count: usize) -> Result<Option<Term>, EtfError> {
        self.expect_items(count)?;
        if count > 0 {
            self.push_open(shape, count)?;
            return Ok(None);
        }
        let items = Items(Vec::new());
        Ok(Some(if shape == Shape::Map { Term::Map(Map(items)) } else { Term::Tuple(items) }))
    }

    fn push_open(&mut self, shape: Shape, count: usize) -> Result<(), EtfError> {
        if self.open.len() == DEPTH_MAX {
            return Err(EtfError::TooDeep);
        }
        self.open.push(Open { shape, left: count, items: Vec::with_capacity(count.min(ITEMS_AT_ONCE)) });
        Ok(())
    }

    fn count_items(&mut self, count: usize) -> Result<(), EtfError> {
        self.items += count;
        if self.items > ITEMS_MAX { Err(EtfError::TooManyItems) } else { Ok(()) }
    }

    /// Refuses a claim of more items than can follow: each takes a byte at least.
    fn expect_items(&self, count: usize) -> Result<(), EtfError> {
        if count > self.reader.bytes.len() - self.reader.at {
            return Err(EtfError::End { at: self.reader.bytes.len() });
        }
        if self.items + count > ITEMS_MAX { Err(EtfError::TooManyItems) } else { Ok(()) }
    }
}

/// Completes an open value with its last item, or a list with its tail.
fn complete(open: Open, last: Term) -> Result<Term, EtfError> {
    let mut items = open.items;
    match open.shape {
        Shape::List => match last {
            Term::List(tail) if tail.is_empty() => Ok(Term::List(Items(items))),
            tail if items.is_empty() => Ok(tail),
            tail => {
                items.push(tail);
                Ok(Term::Improper(Items(items)))
            }
        },
        Shape::Tuple => {
            items.push(last);
            Ok(Term::Tuple(Items(items)))
        }
        Shape::Map => {
            items.push(last);
            let mut entries = Vec::with_capacity(items.len() / 2);
            let mut items = items.into_iter();
            while let (Some(key), Some(value)) = (items.next(), items.next()) {
                entries.push((key, value));
            }
            Term::map(entries)
        }
    }
}

fn finite(float: f64) -> Result<Term, EtfError> {
    if float.is_finite() { Ok(Term::Float(float)) } else { Err(EtfError::Float) }
}

/// Reads a float's text up to its first 0 byte: digits, a point or a comma, digits, and an exponent or none.
///
/// Source: `sys_chars_to_double` of OTP.
fn float_of_text(bytes: &[u8]) -> Result<Term, EtfError> {
    let end = bytes.iter().position(|&byte| byte == 0).unwrap_or(bytes.len());
    let text = std::str::from_utf8(&bytes[..end]).map_err(|_| EtfError::Float)?.replacen(',', ".", 1);
    let unsigned = text.strip_prefix(['+', '-']).unwrap_or(&text);
    let (mantissa, exponent) = unsigned.split_once(['e', 'E']).map_or((unsigned, "0"), |parts| parts);
    let (whole, fraction) = mantissa.split_once('.').ok_or(EtfError::Float)?;
    let exponent = exponent.strip_prefix(['+', '-']).unwrap_or(exponent);
    let digits = |text: &str| !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
    if !(digits(whole) && digits(fraction) && digits(exponent)) {
        return Err(EtfError::Float);
    }
    finite(text.parse().map_err(|_| EtfError::Float)?)
}

struct Reader<'a> {
    bytes: &'a [u8],
    at: usize,
}

impl<'a> Reader<'a> {
    fn take(&mut self, count: usize) -> Result<&'a [u8], EtfError> {
        let taken = self.bytes[self.at..].get(..count).ok_or(EtfError::End { at: self.bytes.len() })?;
        self.at += count;
        Ok(taken)
    }

    fn array<const N: usize>(&mut self) -> Result<[u8; N], EtfError> {
        Ok(self.take(N)?.try_into().expect("N bytes were taken"))
    }

    fn u8(&mut self) -> Result<u8, EtfError> {
        Ok(self.array::<1>()?[0])
    }

    fn u16(&mut self) -> Result<u16, EtfError> {
        Ok(u16::from_be_bytes(self.array()?))
    }

    fn u32(&mut self) -> Result<u32, EtfError> {
        Ok(u32::from_be_bytes(self.array()?))
    }

    /// A count of 32 bits.
    fn count(&mut self) -> Result<usize, EtfError> {
        Ok(usize::try_from(self.u32()?).unwrap_or(usize::MAX))
    }

    fn big(&mut self, count: usize) -> Result<Int, EtfError> {
        if count > INT_BYTES_MAX {
            return Err(EtfError::IntTooLong { came: count });
        }
        let sign = self.u8()?;
        Ok(Int::from_amount(sign != 0, self.take(count)?))
    }

    fn bit_binary(&mut self) -> Result<Term, EtfError> {
        let count = self.count()?;
        let last_bits = self.u8()?;
        let bytes = self.take(count)?;
        match (count, last_bits) {
            (0, 0) | (1.., 8) => Ok(Term::binary(bytes)),
            _ => Bits::new(bytes, last_bits).map(Term::Bits).ok_or(EtfError::Bits),
        }
    }

    fn atom(&mut self, tag: u8) -> Result<Atom, EtfError> {
        let count = match tag {
            tag::ATOM | tag::ATOM_UTF8 => usize::from(self.u16()?),
            _ => usize::from(self.u8()?),
        };
        let bytes = self.take(count)?;
        match tag {
            tag::ATOM | tag::SMALL_ATOM => Atom::new(&bytes.iter().map(|&byte| char::from(byte)).collect::<String>()),
            _ => Atom::new(std::str::from_utf8(bytes).map_err(|_| EtfError::Atom)?),
        }
    }

    /// The atom that names a node.
    fn node(&mut self) -> Result<Atom, EtfError> {
        let at = self.at;
        match self.u8()? {
            tag @ (tag::ATOM | tag::SMALL_ATOM | tag::ATOM_UTF8 | tag::SMALL_ATOM_UTF8) => self.atom(tag),
            tag => Err(EtfError::Tag { tag, at }),
        }
    }

    fn creation(&mut self, is_wide: bool) -> Result<u32, EtfError> {
        if is_wide { self.u32() } else { Ok(u32::from(self.u8()?)) }
    }

    fn pid(&mut self, tag: u8) -> Result<Pid, EtfError> {
        Ok(Pid {
            node: self.node()?,
            id: self.u32()?,
            serial: self.u32()?,
            creation: self.creation(tag == tag::NEW_PID)?,
        })
    }

    fn reference(&mut self, tag: u8) -> Result<Reference, EtfError> {
        if tag == tag::REFERENCE {
            let node = self.node()?;
            let words = vec![self.u32()?];
            return Ok(Reference { node, creation: self.creation(false)?, words });
        }
        let count = usize::from(self.u16()?);
        if !(1..=REFERENCE_WORDS_MAX).contains(&count) {
            return Err(EtfError::Reference);
        }
        let node = self.node()?;
        let creation = self.creation(tag == tag::NEWER_REFERENCE)?;
        let words = (0..count).map(|_| self.u32()).collect::<Result<_, _>>()?;
        Ok(Reference { node, creation, words })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(bytes: &[u8], tagged: &str) {
        let whole = [&[VERSION], bytes].concat();
        assert_eq!(super::super::to_tagged(&decode(&whole).unwrap()), tagged);
        for end in 0..whole.len() {
            assert!(matches!(decode(&whole[..end]), Err(EtfError::End { .. })), "cut to {end}");
        }
    }

    fn refused(bytes: &[u8]) -> EtfError {
        decode(&[&[VERSION], bytes].concat()).unwrap_err()
    }

    #[test]
    fn a_value_of_each_tag_is_read_and_none_of_its_beginnings() {
        check(b"a\xff", r#"{"t":"int","v":"255"}"#);
        check(b"b\xff\xff\xff\xff", r#"{"t":"int","v":"-1"}"#);
        check(b"n\x00\x01", r#"{"t":"int","v":"0"}"#);
        check(b"n\x09\x01\0\0\0\0\0\0\0\0\x01", r#"{"t":"int","v":"-18446744073709551616"}"#);
        check(b"h\x00", r#"{"t":"tuple","v":[]}"#);
        check(b"t\0\0\0\0", r#"{"t":"map","v":[]}"#);
        check(b"l\0\0\0\x01jj", r#"{"t":"list","v":[{"t":"list","v":[]}]}"#);
    }

    #[test]
    fn a_list_goes_on_in_its_tail_whatever_the_tail_is() {
        check(
            b"l\0\0\0\x01a\x01l\0\0\0\x01a\x02k\0\x01\x03",
            r#"{"t":"list","v":[{"t":"int","v":"1"},{"t":"int","v":"2"},{"t":"int","v":"3"}]}"#,
        );
        check(
            b"l\0\0\0\x01a\x01l\0\0\0\0h\x01a\x02",
            r#"{"t":"improper","v":[{"t":"int","v":"1"}],"tail":{"t":"tuple","v":[{"t":"int","v":"2"}]}}"#,
        );
        check(b"l\0\0\0\0l\0\0\0\0a\x07", r#"{"t":"int","v":"7"}"#);
        check(b"l\0\0\0\0k\0\x01\x07", r#"{"t":"list","v":[{"t":"int","v":"7"}]}"#);
    }

    #[test]
    fn a_chain_of_tails_is_not_deep() {
        let chain = [b"l\0\0\0\x01a\x01".repeat(100_000), b"j".to_vec()].concat();

        let term = decode(&[&[VERSION], &chain[..]].concat()).unwrap();

        assert_eq!(term.as_list().unwrap().len(), 100_000);
    }

    #[test]
    fn limits_hold_and_say_which() {
        let deep = |depth: usize| [b"h\x01".repeat(depth), b"a\x01".to_vec()].concat();
        let many = |count: usize| [b"l".to_vec(), (count as u32).to_be_bytes().to_vec(), b"j".repeat(count)].concat();

        assert!(decode(&[&[VERSION], &deep(DEPTH_MAX)[..]].concat()).is_ok());
        assert_eq!(refused(&deep(DEPTH_MAX + 1)), EtfError::TooDeep);
        assert_eq!(refused(&deep(500_000)), EtfError::TooDeep);
        assert_eq!(refused(&many(ITEMS_MAX + 1)), EtfError::TooManyItems);
        assert_eq!(refused(b"k\xff\xff"), EtfError::End { at: 4 });
        assert_eq!(
            refused(&[b"h\xff".to_vec(), [b"k\xff\xff".to_vec(), vec![0; 65_535]].concat().repeat(5)].concat()),
            EtfError::TooManyItems
        );
        assert_eq!(refused(&[b"o\0\0\x40\x01\0", &[1; 20_000][..]].concat()), EtfError::IntTooLong { came: 16_385 });
        assert!(matches!(decode(&vec![VERSION; TERM_BYTES_MAX + 1]), Err(EtfError::TooLong { .. })));
    }

    #[test]
    fn a_claim_of_four_billion_items_is_refused_at_once() {
        for head in [&b"l\xff\xff\xff\xffj"[..], b"i\xff\xff\xff\xffj", b"t\xff\xff\xff\xffjj", b"m\xff\xff\xff\xffj"] {
            assert!(matches!(refused(head), EtfError::End { .. }));
        }
    }

    #[test]
    fn what_inflates_to_another_size_or_to_too_much_is_refused() {
        let compressed = |claim: u32, bytes: &[u8]| {
            let mut deflated = Vec::with_capacity(bytes.len() + 100);
            flate2::Compress::new(flate2::Compression::best(), true)
                .compress_vec(bytes, &mut deflated, flate2::FlushCompress::Finish)
                .unwrap();
            decode(&[&[VERSION, tag::COMPRESSED], &claim.to_be_bytes()[..], &deflated].concat())
        };
        let zeros = [b"m\0\x10\0\0".to_vec(), vec![0; 0x10_0000]].concat();
        let bomb = vec![b'j'; 100_000_000];

        assert!(compressed(0x10_0005, &zeros).is_ok());
        assert_eq!(compressed(0x10_0004, &zeros), Err(EtfError::Compressed));
        assert_eq!(compressed(0x10_0006, &zeros), Err(EtfError::Compressed));
        assert_eq!(compressed(1000, &bomb), Err(EtfError::Compressed));
        assert!(matches!(compressed(100_000_000, &bomb), Err(EtfError::TooLong { .. })));
        assert_eq!(refused(b"h\x01P\0\0\0\x01"), EtfError::Tag { tag: 80, at: 3 });
    }

    #[test]
    fn floats_of_text_are_read_as_the_old_format_wrote_them() {
        let float = |text: &[u8]| {
            let mut bytes = text.to_vec();
            bytes.resize(FLOAT_TEXT_BYTES, 0);
            float_of_text(&bytes)
        };

        assert_eq!(float(b"1.50000000000000000000e+00"), Ok(Term::Float(1.5)));
        assert_eq!(float(b"-2,5E-3"), Ok(Term::Float(-0.0025)));
        assert_eq!(float(b"1.0e-999"), Ok(Term::Float(0.0)));
        for text in
            [&b""[..], b"1", b"1.", b".5", b"1.5e", b"1e5", b"inf", b"nan", b"1.0e999", b"1.0 ", b"0x1.0", b"1.0e+-1"]
        {
            assert_eq!(float(text), Err(EtfError::Float), "{text:?}");
        }
    }
}
