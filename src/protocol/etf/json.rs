//! Terms as JSON text, as Jason writes them.

use std::fmt::Write;

use super::float::float_text;
use super::{Map, Term};

/// Writes a term as `Jason.encode!/1` does. `None` where Jason raises, or above `bytes_max` bytes of text.
///
/// Atoms are strings but `nil`, `true` and `false`. Keys of maps are text, numbers or lists of characters. Tuples,
/// structs but dates and times, bit strings, improper lists, processes and binaries that are not UTF-8 have no form in
/// JSON.
///
/// Maps above 32 keys are in Erlang's order here; Erlang itself has them in an order of hashes. Equal names may come
/// twice.
pub fn to_json(term: &Term, bytes_max: usize) -> Option<String> {
    let mut text = String::new();
    let mut left = vec![Step::Term(term)];
    while let Some(step) = left.pop() {
        match step {
            Step::Text(piece) => text.push_str(piece),
            Step::Key(key) => {
                write_string(&key_text(key)?, &mut text);
                text.push(':');
            }
            Step::Term(term) => write_head(term, &mut text, &mut left)?,
        }
        if text.len() > bytes_max {
            return None;
        }
    }
    Some(text)
}

enum Step<'a> {
    Term(&'a Term),
    Key(&'a Term),
    Text(&'static str),
}

fn write_head<'a>(term: &'a Term, text: &mut String, left: &mut Vec<Step<'a>>) -> Option<()> {
    match term {
        Term::Atom(atom) => match &**atom {
            "nil" => text.push_str("null"),
            "true" | "false" => text.push_str(atom),
            _ => write_string(atom, text),
        },
        Term::Int(int) => write!(text, "{int}").ok()?,
        Term::Float(float) => text.push_str(&float_text(*float)),
        Term::Binary(_) => write_string(term.as_str()?, text),
        Term::List(items) => {
            text.push('[');
            left.push(Step::Text("]"));
            for (at, item) in items.iter().enumerate().rev() {
                left.push(Step::Term(item));
                if at > 0 {
                    left.push(Step::Text(","));
                }
            }
        }
        Term::Map(map) => match term.atom_field("__struct__").and_then(Term::as_atom) {
            Some(name) => write_string(&struct_text(name, term)?, text),
            None => {
                text.push('{');
                left.push(Step::Text("}"));
                push_entries(map, left);
            }
        },
        Term::Bits(_) | Term::Improper(_) | Term::Tuple(_) | Term::Pid(_) | Term::Reference(_) => return None,
    }
    Some(())
}

fn push_entries<'a>(map: &'a Map, left: &mut Vec<Step<'a>>) {
    let entries: Vec<_> = map.entries().collect();
    for (at, (key, value)) in entries.into_iter().enumerate().rev() {
        left.push(Step::Term(value));
        left.push(Step::Key(key));
        if at > 0 {
            left.push(Step::Text(","));
        }
    }
}

/// A key as text, as `to_string/1` makes it.
fn key_text(key: &Term) -> Option<String> {
    match key {
        Term::Atom(atom) => Some(atom.to_string()),
        Term::Int(int) => Some(int.to_string()),
        Term::Float(float) => Some(float_text(*float)),
        Term::Binary(_) => key.as_str().map(str::to_string),
        Term::List(_) => characters(key),
        _ => None,
    }
}

/// A list of characters, strings and such lists as text.
fn characters(list: &Term) -> Option<String> {
    let mut text = String::new();
    let mut left = vec![list];
    while let Some(term) = left.pop() {
        match term {
            Term::List(items) => left.extend(items.iter().rev()),
            Term::Int(int) => text.push(char::from_u32(u32::try_from(int.as_i64()?).ok()?)?),
            _ => text.push_str(term.as_str()?),
        }
    }
    Some(text)
}

/// The text of a date or time of the ISO calendar, ISO 8601.
fn struct_text(name: &str, term: &Term) -> Option<String> {
    if term.atom_field("calendar")?.as_atom()? != "Elixir.Calendar.ISO" {
        return None;
    }
    match name {
        "Elixir.Date" => date_text(term),
        "Elixir.Time" => time_text(term),
        "Elixir.NaiveDateTime" => Some(format!("{}T{}", date_text(term)?, time_text(term)?)),
        "Elixir.DateTime" => Some(format!("{}T{}{}", date_text(term)?, time_text(term)?, offset_text(term)?)),
        _ => None,
    }
}

fn number(term: &Term, name: &str) -> Option<i64> {
    term.atom_field(name)?.as_i64()
}

fn two_digits(term: &Term, name: &str, max: i64) -> Option<String> {
    let number = number(term, name).filter(|number| (0..=max).contains(number))?;
    Some(format!("{number:02}"))
}

fn date_text(term: &Term) -> Option<String> {
    let year = number(term, "year").filter(|year| (-9999..=9999).contains(year))?;
    let sign = if year < 0 { "-" } else { "" };
    let (month, day) = (two_digits(term, "month", 12)?, two_digits(term, "day", 31)?);
    Some(format!("{sign}{:04}-{month}-{day}", year.abs()))
}

fn time_text(term: &Term) -> Option<String> {
    let (hour, minute, second) =
        (two_digits(term, "hour", 23)?, two_digits(term, "minute", 59)?, two_digits(term, "second", 60)?);
    let Term::Tuple(parts) = term.atom_field("microsecond")? else { return None };
    let [micros, digits] = &parts[..] else { return None };
    let micros = micros.as_i64().filter(|micros| (0..1_000_000).contains(micros))?;
    let digits = usize::try_from(digits.as_i64()?).ok().filter(|digits| *digits <= 6)?;
    let fraction = format!(".{micros:06}");
    let fraction = if digits == 0 { "" } else { &fraction[..=digits] };
    Some(format!("{hour}:{minute}:{second}{fraction}"))
}

fn offset_text(term: &Term) -> Option<String> {
    let (utc, std) = (number(term, "utc_offset")?, number(term, "std_offset")?);
    if (utc, std) == (0, 0) && term.atom_field("time_zone")?.as_str() == Some("Etc/UTC") {
        return Some("Z".to_string());
    }
    let total = utc.checked_add(std)?;
    let sign = if total < 0 { '-' } else { '+' };
    let minutes = total.unsigned_abs() / 60;
    Some(format!("{sign}{:02}:{:02}", minutes / 60, minutes % 60))
}

/// Writes a string with the escapes that Jason writes: the short ones, and `\u00XX` for other control characters.
fn write_string(string: &str, text: &mut String) {
    text.push('"');
    for char in string.chars() {
        match char {
            '"' => text.push_str("\\\""),
            '\\' => text.push_str("\\\\"),
            '\n' => text.push_str("\\n"),
            '\r' => text.push_str("\\r"),
            '\t' => text.push_str("\\t"),
            '\u{8}' => text.push_str("\\b"),
            '\u{c}' => text.push_str("\\f"),
            '\0'..' ' => write!(text, "\\u{:04X}", u32::from(char)).expect("a string takes what is written"),
            _ => text.push(char),
        }
    }
    text.push('"');
}

#[cfg(test)]
mod tests {
    use super::super::{Items, from_tagged};
    use super::*;

    fn atom(text: &str) -> Term {
        Term::atom(text).unwrap()
    }

    fn check(term: &Term, json: &str) {
        assert_eq!(to_json(term, 1_000).as_deref(), Some(json));
    }

    #[test]
    fn strings_have_jasons_escapes() {
        check(
            &Term::binary("a\"\\/\n\r\t\u{8}\u{c}\u{1f}\0\u{7f}\u{2028}é"),
            "\"a\\\"\\\\/\\n\\r\\t\\b\\f\\u001F\\u0000\u{7f}\u{2028}é\"",
        );
    }

    #[test]
    fn keys_become_text() {
        let map = Term::map(vec![
            (Term::nil(), Term::nil()),
            (Term::int(2), Term::from(true)),
            (Term::Float(1.0), Term::int(1)),
            (Term::List(Items::from(vec![Term::int(97), Term::binary("b")])), Term::int(1)),
            (Term::binary("k"), atom("v")),
        ]);

        check(&map.unwrap(), r#"{"2":true,"1.0":1,"nil":null,"ab":1,"k":"v"}"#);
        assert!(to_json(&Term::map(vec![(Term::Tuple(Items::from(vec![])), Term::nil())]).unwrap(), 1_000).is_none());
    }

    #[test]
    fn dates_and_times_are_text_and_other_structs_have_no_form() {
        let time = |name: &str, zone: &str, offset: i64, digits: i64| {
            let fields = [("year", -7), ("month", 2), ("day", 9), ("hour", 12), ("minute", 34), ("second", 56)];
            let mut entries: Vec<_> = fields.iter().map(|(name, value)| (atom(name), Term::int(*value))).collect();
            entries.push((atom("microsecond"), Term::Tuple(vec![Term::int(1200), Term::int(digits)].into())));
            entries.push((atom("calendar"), atom("Elixir.Calendar.ISO")));
            entries.push((atom("__struct__"), atom(name)));
            entries.push((atom("time_zone"), Term::binary(zone)));
            entries.push((atom("utc_offset"), Term::int(offset)));
            entries.push((atom("std_offset"), Term::int(0)));
            Term::map(entries).unwrap()
        };

        check(&time("Elixir.DateTime", "Etc/UTC", 0, 4), "\"-0007-02-09T12:34:56.0012Z\"");
        check(&time("Elixir.DateTime", "X", -5400, 0), "\"-0007-02-09T12:34:56-01:30\"");
        check(&time("Elixir.NaiveDateTime", "", 0, 6), "\"-0007-02-09T12:34:56.001200\"");
        check(&time("Elixir.Date", "", 0, 0), "\"-0007-02-09\"");
        check(&time("Elixir.Time", "", 0, 0), "\"12:34:56\"");
        assert!(to_json(&time("Elixir.MyApp.User", "", 0, 0), 1_000).is_none());
        assert!(to_json(&time("Elixir.Time", "", 0, 7), 1_000).is_none());
    }

    #[test]
    fn more_text_than_asked_for_is_none() {
        let deep = from_tagged(r#"{"t":"nestlist","depth":16000}"#).unwrap();

        assert!(to_json(&deep, 32_002).is_some());
        assert!(to_json(&deep, 32_001).is_none());
    }
}
