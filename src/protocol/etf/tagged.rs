//! Terms as JSON that keeps every kind apart: `{"t":"atom","v":"ok"}`.
//!
//! | kind | form |
//! |---|---|
//! | atom, integer | `{t:"atom",v:"text"}`, `{t:"int",v:"decimal text"}` |
//! | float | `{t:"float",v:"text",bits:"16 hex digits"}` |
//! | binary | `{t:"bin",utf8:"text"}`, or `{t:"bin",b64:"..."}` when it is not UTF-8 |
//! | bit string | `{t:"bits",bits:12,b64:"..."}` |
//! | list | `{t:"list",v:[...]}`, `{t:"bytelist",b64:"..."}` for more than 64 bytes |
//! | `[[[...]]]` | `{t:"nestlist",depth:n}` for n lists of one item around the empty list, n above 20 |
//! | improper list | `{t:"improper",v:[...],tail:...}` |
//! | tuple, map | `{t:"tuple",v:[...]}`, `{t:"map",v:[[key,value],...]}` in Erlang's order |
//! | process, reference | `{t:"pid",etf_b64:"..."}`, `{t:"ref",etf_b64:"..."}` as OTP 25 encodes them |

use std::collections::BTreeMap;
use std::fmt::Write;

use base64::Engine;
use base64::prelude::BASE64_STANDARD;
use serde_json::value::RawValue;

use super::encode::{Atoms, encode_with, list_bytes};
use super::float::float_text;
use super::from_json::{deeper, json_kind, read};
use super::{BadInput, Bits, DEPTH_MAX, Int, Items, Map, Term, compare, decode};

/// Lists of at most so many bytes are written item by item.
const LISTED_BYTES_MAX: usize = 64;
/// Lists of one item around the empty list are written as such up to this many.
const LISTED_DEPTH_MAX: usize = 20;
/// Most tagged lists, tuples and maps inside one another that are read. It bounds the stack that reading takes.
const INPUT_DEPTH_MAX: usize = 128;

/// Writes a term in its tagged form.
pub fn to_tagged(term: &Term) -> String {
    let mut text = String::new();
    let mut left = vec![Step::Term(term)];
    while let Some(step) = left.pop() {
        match step {
            Step::Text(piece) => text.push_str(piece),
            Step::Term(term) => write_head(term, false, &mut text, &mut left),
            Step::InNest(term) => write_head(term, true, &mut text, &mut left),
        }
    }
    text
}

enum Step<'a> {
    Term(&'a Term),
    /// The item of a one-item list whose depth is counted already.
    InNest(&'a Term),
    Text(&'static str),
}

fn write_head<'a>(term: &'a Term, in_nest: bool, text: &mut String, left: &mut Vec<Step<'a>>) {
    match term {
        Term::Atom(atom) => add(text, format_args!(r#"{{"t":"atom","v":{}}}"#, quoted(atom))),
        Term::Int(int) => add(text, format_args!(r#"{{"t":"int","v":"{int}"}}"#)),
        Term::Float(float) => {
            add(
                text,
                format_args!(r#"{{"t":"float","v":"{}","bits":"{:016x}"}}"#, float_text(*float), float.to_bits()),
            );
        }
        Term::Binary(bytes) => match term.as_str() {
            Some(string) => add(text, format_args!(r#"{{"t":"bin","utf8":{}}}"#, quoted(string))),
            None => add(text, format_args!(r#"{{"t":"bin","b64":"{}"}}"#, BASE64_STANDARD.encode(bytes))),
        },
        Term::Bits(bits) => {
            let b64 = BASE64_STANDARD.encode(&bits.bytes);
            add(text, format_args!(r#"{{"t":"bits","bits":{},"b64":"{b64}"}}"#, bits.len()));
        }
        Term::List(items) => write_list(term, items, in_nest, text, left),
        Term::Improper(items) => {
            let (tail, items) = items.split_last().map_or((None, &[][..]), |(tail, items)| (Some(tail), items));
            text.push_str(r#"{"t":"improper","v":["#);
            left.push(Step::Text("}"));
            left.extend(tail.map(Step::Term));
            left.push(Step::Text(r#"],"tail":"#));
            push_items(items, left);
        }
        Term::Tuple(items) => {
            text.push_str(r#"{"t":"tuple","v":["#);
            left.push(Step::Text("]}"));
            push_items(items, left);
        }
        Term::Map(map) => {
            text.push_str(r#"{"t":"map","v":["#);
            left.push(Step::Text("]}"));
            push_entries(map, left);
        }
        Term::Pid(_) => write_opaque("pid", term, text),
        Term::Reference(_) => write_opaque("ref", term, text),
    }
}

fn write_list<'a>(term: &'a Term, items: &'a Items, in_nest: bool, text: &mut String, left: &mut Vec<Step<'a>>) {
    if items.len() > LISTED_BYTES_MAX
        && let Some(bytes) = list_bytes(items)
    {
        return add(text, format_args!(r#"{{"t":"bytelist","b64":"{}"}}"#, BASE64_STANDARD.encode(bytes)));
    }
    if let ([item], false) = (&items[..], in_nest) {
        match nest_depth(term) {
            Some(depth) if depth > LISTED_DEPTH_MAX => {
                return add(text, format_args!(r#"{{"t":"nestlist","depth":{depth}}}"#));
            }
            _ => left.extend([Step::Text("]}"), Step::InNest(item)]),
        }
    } else if let [item] = &items[..] {
        left.extend([Step::Text("]}"), Step::InNest(item)]);
    } else {
        left.push(Step::Text("]}"));
        push_items(items, left);
    }
    text.push_str(r#"{"t":"list","v":["#);
}

/// How many lists of one item stand around an empty list. `None` if something else is inside.
fn nest_depth(mut term: &Term) -> Option<usize> {
    let mut depth = 0;
    loop {
        match term.as_list()? {
            [] => return Some(depth),
            [item] => term = item,
            _ => return None,
        }
        depth += 1;
    }
}

fn push_items<'a>(items: &'a [Term], left: &mut Vec<Step<'a>>) {
    for (at, item) in items.iter().enumerate().rev() {
        left.push(Step::Term(item));
        if at > 0 {
            left.push(Step::Text(","));
        }
    }
}

fn push_entries<'a>(map: &'a Map, left: &mut Vec<Step<'a>>) {
    let mut entries: Vec<_> = map.entries().collect();
    // Of 1 and 1.0, which share a place, the integer stays before the float.
    entries.sort_by(|one, other| compare(one.0, other.0));
    for (at, (key, value)) in entries.into_iter().enumerate().rev() {
        left.extend([Step::Text("]"), Step::Term(value), Step::Text(","), Step::Term(key), Step::Text("[")]);
        if at > 0 {
            left.push(Step::Text(","));
        }
    }
}

fn write_opaque(kind: &str, term: &Term, text: &mut String) {
    let etf = BASE64_STANDARD.encode(encode_with(term, Atoms::Latin1));
    add(text, format_args!(r#"{{"t":"{kind}","etf_b64":"{etf}"}}"#));
}

fn add(text: &mut String, piece: std::fmt::Arguments<'_>) {
    text.write_fmt(piece).expect("a string takes what is written");
}

fn quoted(string: &str) -> String {
    serde_json::to_string(string).expect("a string is JSON")
}

/// Reads a term in its tagged form.
///
/// # Errors
/// [`BadInput`] for any other text, for functions and ports, and for what is beyond the limits of terms.
pub fn from_tagged(text: &str) -> Result<Term, BadInput> {
    term_of(text, INPUT_DEPTH_MAX)
}

type Fields<'a> = BTreeMap<String, &'a RawValue>;

fn term_of(text: &str, depth: usize) -> Result<Term, BadInput> {
    let fields: Fields<'_> = read(text, "a tagged term, an object")?;
    let tag: String = field(&fields, "t", "a tagged term with its kind as t")?;
    let depth = deeper(depth)?;
    match tag.as_str() {
        "atom" => {
            let text: String = field(&fields, "v", "the text of an atom as v")?;
            Term::atom(&text).map_err(|_| bad("an atom of at most 255 characters", "a longer one"))
        }
        "int" => {
            let value: &RawValue = field(&fields, "v", "the decimal text of an integer as v")?;
            let text = value.get().trim_matches('"');
            Int::parse(text).map(Term::Int).ok_or(bad("the decimal text of an integer as v", "other text"))
        }
        "float" => float_of(&fields),
        "bin" if fields.contains_key("utf8") => Ok(Term::binary(field::<String>(&fields, "utf8", "text as utf8")?)),
        "bin" => Ok(Term::binary(base64_field(&fields, "b64")?)),
        "bits" => {
            let count: usize = field(&fields, "bits", "a number of bits as bits")?;
            let bytes = base64_field(&fields, "b64")?;
            let last_bits = u8::try_from(count % 8).expect("it is below 8");
            let bits = Bits::new(&bytes, last_bits).filter(|bits| bits.len() == count);
            bits.map(Term::Bits).ok_or(bad("as many bits as bits says", "another number"))
        }
        "bytelist" => {
            let bytes = base64_field(&fields, "b64")?;
            Ok(Term::List(Items(bytes.iter().map(|&byte| Term::int(i64::from(byte))).collect())))
        }
        "nestlist" => {
            let depth: usize = field(&fields, "depth", "a depth as depth")?;
            if depth >= DEPTH_MAX {
                return Err(bad("a depth within the limit", "a greater one"));
            }
            let empty = Term::List(Items(Vec::new()));
            Ok((0..depth).fold(empty, |inner, _| Term::List(Items(vec![inner]))))
        }
        "list" => Ok(Term::List(items_of(&fields, depth)?)),
        "tuple" => Ok(Term::Tuple(items_of(&fields, depth)?)),
        "improper" => improper_of(&fields, depth),
        "map" => map_of(&fields, depth),
        "pid" | "ref" => {
            let term = decode(&base64_field(&fields, "etf_b64")?).ok();
            let term = term.filter(|term| {
                if tag == "pid" { matches!(term, Term::Pid(_)) } else { matches!(term, Term::Reference(_)) }
            });
            term.ok_or(bad("a process or reference as etf_b64", "other bytes"))
        }
        _ => Err(bad(
            "atom, int, float, bin, bits, list, bytelist, nestlist, improper, tuple, map, pid or ref as t",
            "another kind",
        )),
    }
}

fn bad(expected: &'static str, came: &'static str) -> BadInput {
    BadInput { expected, came }
}

fn field<'a, T: serde::Deserialize<'a>>(
    fields: &Fields<'a>,
    name: &str,
    expected: &'static str,
) -> Result<T, BadInput> {
    let value = fields.get(name).ok_or(bad(expected, json_kind("")))?;
    read(value.get(), expected)
}

fn base64_field(fields: &Fields<'_>, name: &str) -> Result<Vec<u8>, BadInput> {
    let expected = "bytes in base64";
    let text: String = field(fields, name, expected)?;
    BASE64_STANDARD.decode(text).map_err(|_| bad(expected, "other text"))
}

fn float_of(fields: &Fields<'_>) -> Result<Term, BadInput> {
    let expected = "a finite float, as 16 hex digits in bits or as text in v";
    let float = if fields.contains_key("bits") {
        let bits: String = field(fields, "bits", expected)?;
        (bits.len() == 16).then(|| u64::from_str_radix(&bits, 16).ok().map(f64::from_bits)).flatten()
    } else {
        let value: &RawValue = field(fields, "v", expected)?;
        value.get().trim_matches('"').parse().ok()
    };
    float.filter(|float| float.is_finite()).map(Term::Float).ok_or(bad(expected, "something else"))
}

fn items_of(fields: &Fields<'_>, depth: usize) -> Result<Items, BadInput> {
    let items: Vec<&RawValue> = field(fields, "v", "an array of tagged terms as v")?;
    let items = items.into_iter().map(|item| term_of(item.get(), depth));
    Ok(Items(items.collect::<Result<_, _>>()?))
}

fn improper_of(fields: &Fields<'_>, depth: usize) -> Result<Term, BadInput> {
    let mut items = items_of(fields, depth)?;
    let tail: &RawValue = field(fields, "tail", "a tagged term as tail")?;
    let tail = term_of(tail.get(), depth)?;
    if items.is_empty() || matches!(tail, Term::List(_) | Term::Improper(_)) {
        return Err(bad("an improper list of items and a tail that is no list", "another"));
    }
    items.0.push(tail);
    Ok(Term::Improper(items))
}

fn map_of(fields: &Fields<'_>, depth: usize) -> Result<Term, BadInput> {
    let entries: Vec<(&RawValue, &RawValue)> = field(fields, "v", "an array of [key, value] as v")?;
    let entries =
        entries.into_iter().map(|(key, value)| Ok((term_of(key.get(), depth)?, term_of(value.get(), depth)?)));
    Term::map(entries.collect::<Result<_, _>>()?).map_err(|_| bad("a map without equal keys", "one with"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_kind_goes_both_ways() {
        let bytes = BASE64_STANDARD.encode([7; 65]);
        for text in [
            r#"{"t":"atom","v":"é\n"}"#,
            r#"{"t":"int","v":"-123456789012345678901234567890"}"#,
            r#"{"t":"float","v":"-0.0","bits":"8000000000000000"}"#,
            r#"{"t":"bin","utf8":""}"#,
            r#"{"t":"bin","b64":"//6AAEE="}"#,
            r#"{"t":"bits","bits":12,"b64":"q8A="}"#,
            r#"{"t":"list","v":[{"t":"list","v":[]},{"t":"int","v":"1"}]}"#,
            &format!(r#"{{"t":"bytelist","b64":"{bytes}"}}"#),
            r#"{"t":"nestlist","depth":21}"#,
            r#"{"t":"list","v":[{"t":"tuple","v":[{"t":"nestlist","depth":1000}]}]}"#,
            r#"{"t":"improper","v":[{"t":"int","v":"1"}],"tail":{"t":"int","v":"2"}}"#,
            r#"{"t":"map","v":[[{"t":"int","v":"1"},{"t":"map","v":[]}],[{"t":"atom","v":"a"},{"t":"tuple","v":[]}]]}"#,
            r#"{"t":"pid","etf_b64":"g1hkAApvdGhlckBob3N0AAAAAQAAAAIAAAAD"}"#,
            r#"{"t":"ref","etf_b64":"g1oAA2QACm90aGVyQGhvc3QAAAABAAAABwAAAAgAAAAJ"}"#,
        ] {
            assert_eq!(to_tagged(&from_tagged(text).unwrap()), text);
        }
    }

    #[test]
    fn twenty_lists_are_written_out() {
        let text = to_tagged(&from_tagged(r#"{"t":"nestlist","depth":20}"#).unwrap());

        assert_eq!(text.matches("list").count(), 21);
    }

    #[test]
    fn numbers_in_a_map_are_in_order_of_value() {
        let map =
            Term::map(vec![(Term::int(2), Term::nil()), (Term::Float(1.0), Term::nil()), (Term::int(1), Term::nil())]);

        let text = to_tagged(&map.unwrap());

        let places: Vec<_> =
            [r#""v":"1"}"#, r#""v":"1.0""#, r#""v":"2"}"#].iter().map(|v| text.find(v).unwrap()).collect();
        assert!(places.is_sorted(), "{text}");
    }

    #[test]
    fn other_text_is_refused_without_repeating_it() {
        for text in [
            "",
            "secret",
            "{}",
            r#"{"t":"secret"}"#,
            r#"{"t":"fun","etf_b64":"secret"}"#,
            r#"{"t":"int","v":"secret"}"#,
            r#"{"t":"float","v":"secret"}"#,
            r#"{"t":"float","bits":"7ff0000000000000"}"#,
            r#"{"t":"bin","b64":"secret!"}"#,
            r#"{"t":"bits","bits":16,"b64":"q8A="}"#,
            r#"{"t":"nestlist","depth":1000000000}"#,
            r#"{"t":"list","v":["secret"]}"#,
            r#"{"t":"pid","etf_b64":"g2EB"}"#,
            r#"{"t":"improper","v":[],"tail":{"t":"int","v":"2"}}"#,
            r#"{"t":"map","v":[[{"t":"int","v":"1"},{"t":"int","v":"1"}],[{"t":"int","v":"1"},{"t":"int","v":"1"}]]}"#,
            &format!("{}{}", r#"{"t":"list","v":["#.repeat(1_000), "]}".repeat(1_000)),
        ] {
            let error = from_tagged(text).unwrap_err().to_string();
            assert!(error.starts_with("expected ") && !error.contains("secret"), "{error}");
        }
    }
}
