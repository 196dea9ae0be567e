//! Rows, which are JSON values, and the texts that they can be written as.

use std::collections::BTreeMap;
use std::fmt::Write;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use super::kind;

/// Rows of one data set.
pub(super) const ROWS_MAX: usize = 1_000;
/// Bytes of the rows of one data set, as JSON and as the text that they are written as. A result has them twice, once
/// as a value and once as text in which quotes are escaped twice, and is bounded itself (`RESULT_BYTES_MAX`).
pub(super) const ROWS_BYTES_MAX: usize = 32_768;
/// Columns of rows as CSV.
pub(super) const COLUMNS_MAX: usize = 100;

/// The column of what is no object.
const VALUE_COLUMN: &str = "value";

/// How rows are written.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
#[schemars(inline)]
pub(super) enum Format {
    /// A JSON list.
    #[default]
    Json,
    /// RFC 4180: a line of names, and one for each row. Read again, all but null is a text.
    Csv,
    /// A line of JSON for each row.
    Lines,
}

/// Rows with the text that they are.
#[derive(Debug)]
pub(super) struct Written {
    pub(super) format: Format,
    pub(super) text: String,
    pub(super) rows: usize,
}

/// The rows in what a step gives to the next: a list; an object with the list `rows`; one with `format` and the text
/// `data`; any other object is a row by itself.
///
/// # Errors
/// What was expected, and what came.
pub(super) fn rows_of(input: &Value) -> Result<Vec<Value>, String> {
    let written = as_written(input);
    let rows = match (input, input.get("rows"), &written) {
        (Value::Array(rows), ..) | (_, Some(Value::Array(rows)), _) => rows.clone(),
        (_, _, Some((format, text))) => parse(*format, text)?,
        (Value::Object(_), ..) => vec![input.clone()],
        (other, ..) => {
            return Err(format!(
                "expected rows: a list, or an object with rows or with format and data; came {}",
                kind(other)
            ));
        }
    };
    within_bounds(&rows)?;
    Ok(rows)
}

/// The text in what a step gives to the next, if it is one already; otherwise its rows as JSON.
///
/// # Errors
/// As [`rows_of`].
pub(super) fn written_of(input: &Value) -> Result<Written, String> {
    let rows = rows_of(input)?;
    match as_written(input).filter(|_| !matches!(input.get("rows"), Some(Value::Array(_)))) {
        Some((format, text)) => Ok(Written { format, text: text.to_owned(), rows: rows.len() }),
        None => write(Format::Json, &rows),
    }
}

fn as_written(input: &Value) -> Option<(Format, &str)> {
    let format = Format::deserialize(input.get("format")?).ok()?;
    Some((format, input.get("data")?.as_str()?))
}

fn within_bounds(rows: &[Value]) -> Result<(), String> {
    if rows.len() > ROWS_MAX {
        return Err(format!("expected at most {ROWS_MAX} rows, came {}", rows.len()));
    }
    let bytes = serde_json::to_string(rows).expect("JSON serializes").len();
    if bytes > ROWS_BYTES_MAX {
        return Err(format!("expected rows of at most {ROWS_BYTES_MAX} bytes as JSON, came {bytes}"));
    }
    Ok(())
}

/// Writes rows.
///
/// # Errors
/// They are more than a data set may be.
pub(super) fn write(format: Format, rows: &[Value]) -> Result<Written, String> {
    let text = match format {
        Format::Json => serde_json::to_string(rows).expect("JSON serializes"),
        Format::Lines => rows.iter().map(|row| format!("{row}\n")).collect(),
        Format::Csv => write_csv(rows)?,
    };
    if text.len() > ROWS_BYTES_MAX {
        return Err(too_long(format, text.len()));
    }
    Ok(Written { format, text, rows: rows.len() })
}

/// Reads rows.
///
/// # Errors
/// Where the text is something else, or more than a data set may be.
fn parse(format: Format, text: &str) -> Result<Vec<Value>, String> {
    if text.len() > ROWS_BYTES_MAX {
        return Err(too_long(format, text.len()));
    }
    match format {
        Format::Json => serde_json::from_str(text).map_err(|error| format!("expected a JSON list of rows: {error}")),
        Format::Lines => {
            let lines = text.lines().enumerate();
            let row = |(index, line): (usize, &str)| {
                serde_json::from_str(line).map_err(|error| format!("line {}: expected JSON: {error}", index + 1))
            };
            lines.map(row).collect()
        }
        Format::Csv => parse_csv(text),
    }
}

fn too_long(format: Format, bytes: usize) -> String {
    let name = match format {
        Format::Json => "JSON",
        Format::Csv => "CSV",
        Format::Lines => "lines",
    };
    format!("expected at most {ROWS_BYTES_MAX} bytes of {name}, came {bytes}")
}

fn write_csv(rows: &[Value]) -> Result<String, String> {
    let cells = |row: &Value| match row {
        Value::Object(fields) => fields.clone(),
        other => Map::from_iter([(VALUE_COLUMN.to_owned(), other.clone())]),
    };
    let rows: Vec<_> = rows.iter().map(cells).collect();
    // Each column where it is first seen.
    let (mut columns, mut places) = (Vec::new(), BTreeMap::new());
    for name in rows.iter().flat_map(|row| row.keys()) {
        places.entry(name).or_insert_with(|| columns.push(name));
    }
    if columns.len() > COLUMNS_MAX {
        return Err(format!("expected at most {COLUMNS_MAX} columns, came {}", columns.len()));
    }
    let mut text = String::new();
    if columns.is_empty() {
        return if rows.is_empty() {
            Ok(text)
        } else {
            Err("expected rows with a field, came empty objects".to_owned())
        };
    }
    let mut line = |cells: &mut dyn Iterator<Item = String>| {
        let cells: Vec<_> = cells.collect();
        let _ = write!(text, "{}\r\n", cells.join(","));
        if text.len() > ROWS_BYTES_MAX { Err(too_long(Format::Csv, text.len())) } else { Ok(()) }
    };
    line(&mut columns.iter().map(|name| quoted(name)))?;
    for row in &rows {
        line(&mut columns.iter().map(|name| match row.get(*name) {
            None | Some(Value::Null) => String::new(),
            Some(Value::String(text)) => quoted(text),
            Some(other) => quoted(&other.to_string()),
        }))?;
    }
    Ok(text)
}

/// A field of CSV. An empty text is quoted, to be told from null.
fn quoted(text: &str) -> String {
    if !text.is_empty() && !text.contains(['"', ',', '\r', '\n']) {
        return text.to_owned();
    }
    format!("\"{}\"", text.replace('"', "\"\""))
}

fn parse_csv(text: &str) -> Result<Vec<Value>, String> {
    let mut records = Records { rest: text, line: 1 };
    let Some((_, names)) = records.next().transpose()? else { return Ok(Vec::new()) };
    let names: Vec<String> = names.into_iter().map(Option::unwrap_or_default).collect();
    if names.len() > COLUMNS_MAX {
        return Err(format!("expected at most {COLUMNS_MAX} columns, came {}", names.len()));
    }
    if let Some((index, name)) = names.iter().enumerate().find(|(index, name)| names[..*index].contains(name)) {
        return Err(format!("line 1: expected another name of column {}, came {name:?} a second time", index + 1));
    }
    // Every row repeats the names, so that a short text may become long rows.
    let names_bytes: usize = names.iter().map(String::len).sum();
    let (mut rows, mut bytes) = (Vec::new(), 0);
    for record in records {
        let (line, record) = record?;
        if record.len() != names.len() {
            return Err(format!("line {line}: expected {} fields as in line 1, came {}", names.len(), record.len()));
        }
        bytes += names_bytes;
        if rows.len() == ROWS_MAX || bytes > ROWS_BYTES_MAX {
            return Err(format!("expected at most {ROWS_MAX} rows of {ROWS_BYTES_MAX} bytes as JSON, came more"));
        }
        let fields = names.iter().cloned().zip(record.into_iter().map(Value::from));
        rows.push(Value::Object(fields.collect()));
    }
    Ok(rows)
}

/// The records of a CSV text, each with the number of its first line; a field that is neither written nor quoted is none.
struct Records<'a> {
    rest: &'a str,
    line: usize,
}

type Record = (usize, Vec<Option<String>>);

impl Iterator for Records<'_> {
    type Item = Result<Record, String>;

    fn next(&mut self) -> Option<Self::Item> {
        if self.rest.is_empty() {
            return None;
        }
        let first_line = self.line;
        let record = self.record();
        if record.is_err() {
            self.rest = "";
        }
        Some(record.map(|fields| (first_line, fields)))
    }
}

impl Records<'_> {
    /// Takes one record and its line end.
    fn record(&mut self) -> Result<Vec<Option<String>>, String> {
        let mut fields = Vec::new();
        loop {
            fields.push(if self.rest.starts_with('"') { Some(self.quoted()?) } else { self.plain() });
            self.rest = match self.rest.as_bytes() {
                [b',', ..] => &self.rest[1..],
                [] => break,
                [b'\r', b'\n', ..] => {
                    self.rest = &self.rest[2..];
                    self.line += 1;
                    break;
                }
                [b'\n', ..] => {
                    self.rest = &self.rest[1..];
                    self.line += 1;
                    break;
                }
                _ => return Err(format!("line {}: expected a comma or a line end behind the quote", self.line)),
            };
        }
        Ok(fields)
    }

    fn plain(&mut self) -> Option<String> {
        let end = self.rest.find([',', '\n']).unwrap_or(self.rest.len());
        let end = if self.rest[..end].ends_with('\r') && self.rest[end..].starts_with('\n') { end - 1 } else { end };
        let (field, rest) = self.rest.split_at(end);
        self.rest = rest;
        (!field.is_empty()).then(|| field.to_owned())
    }

    fn quoted(&mut self) -> Result<String, String> {
        let (mut field, mut rest) = (String::new(), &self.rest[1..]);
        loop {
            let Some(end) = rest.find('"') else {
                return Err(format!("line {}: expected a quote at the end of the field, came none", self.line));
            };
            field.push_str(&rest[..end]);
            rest = &rest[end + 1..];
            match rest.strip_prefix('"') {
                Some(behind) => {
                    field.push('"');
                    rest = behind;
                }
                None => break,
            }
        }
        self.line += field.matches('\n').count();
        self.rest = rest;
        Ok(field)
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn written(format: Format, rows: &Value) -> String {
        write(format, rows.as_array().expect("a list")).expect("written").text
    }

    fn read_again(format: &str, data: &str) -> Result<Vec<Value>, String> {
        rows_of(&json!({"format": format, "data": data}))
    }

    #[test]
    fn rows_become_csv_and_rows_again() {
        let rows = json!([
            {"id": 1, "name": "Ann, \"the first\"", "note": "two\nlines"},
            {"id": null, "name": "", "tags": ["a"], "note": " "},
            "plain",
        ]);

        let csv = written(Format::Csv, &rows);

        assert_eq!(
            csv,
            "id,name,note,tags,value\r\n\
             1,\"Ann, \"\"the first\"\"\",\"two\nlines\",,\r\n\
             ,\"\", ,\"[\"\"a\"\"]\",\r\n\
             ,,,,plain\r\n"
        );
        let again = read_again("csv", &csv).expect("read");
        assert_eq!(
            again[0],
            json!({"id": "1", "name": "Ann, \"the first\"", "note": "two\nlines", "tags": null, "value": null})
        );
        assert_eq!(again[1], json!({"id": null, "name": "", "note": " ", "tags": "[\"a\"]", "value": null}));
        assert_eq!(written(Format::Csv, &again.clone().into()), csv);
    }

    #[test]
    fn rows_become_lines_and_json_and_rows_again() {
        let rows = json!([{"a": "1\n2"}, 3, null, [4]]);

        let lines = written(Format::Lines, &rows);

        assert_eq!(lines, "{\"a\":\"1\\n2\"}\n3\nnull\n[4]\n");
        assert_eq!(read_again("lines", &lines).map(Value::from), Ok(rows.clone()));
        assert_eq!(read_again("json", &written(Format::Json, &rows)).map(Value::from), Ok(rows));
    }

    #[test]
    fn nothing_becomes_nothing() {
        for format in [Format::Json, Format::Csv, Format::Lines] {
            let text = written(format, &json!([]));
            assert_eq!(parse(format, &text), Ok(vec![]), "{format:?}");
        }
    }

    #[test]
    fn csv_of_others_is_read_with_either_line_end() {
        let rows = Ok(vec![json!({"a": "1", "b": null}), json!({"a": "\r", "b": "x\r\ny"})]);

        assert_eq!(read_again("csv", "a,b\n1,\n\r,\"x\r\ny\""), rows);
        assert_eq!(read_again("csv", "a,b\r\n1,\r\n\r,\"x\r\ny\"\r\n"), rows);
        assert_eq!(read_again("csv", "a\n\n1\n"), Ok(vec![json!({"a": null}), json!({"a": "1"})]));
    }

    #[test]
    fn csv_that_is_none_is_told_with_its_line() {
        let fault = |csv: &str| read_again("csv", csv).expect_err("faulty");

        assert_eq!(fault("a,b\n1,2\n3"), "line 3: expected 2 fields as in line 1, came 1");
        assert_eq!(fault("a\n\"1\n2\"\n3,4"), "line 4: expected 1 fields as in line 1, came 2");
        assert_eq!(fault("a\n\"1"), "line 2: expected a quote at the end of the field, came none");
        assert_eq!(fault("a\n\"1\"2"), "line 2: expected a comma or a line end behind the quote");
        assert_eq!(fault("a,a\n1,2"), "line 1: expected another name of column 2, came \"a\" a second time");
        assert_eq!(read_again("json", "{}").expect_err("no list")[..29], *"expected a JSON list of rows:");
        assert!(read_again("lines", "1\nx").expect_err("no JSON").starts_with("line 2: expected JSON: "));
    }

    #[test]
    fn no_more_rows_are_read_or_written_than_the_bounds() {
        let many: Vec<Value> = (0..=ROWS_MAX).map(Value::from).collect();
        let wide: Value = (0..=COLUMNS_MAX).map(|n| (n.to_string(), Value::from(n))).collect::<Map<_, _>>().into();
        let long = json!(["x".repeat(ROWS_BYTES_MAX)]);

        assert_eq!(rows_of(&many.into()), Err("expected at most 1000 rows, came 1001".to_owned()));
        assert_eq!(rows_of(&long), Err("expected rows of at most 32768 bytes as JSON, came 32772".to_owned()));
        let refused = write(Format::Csv, &[wide]).expect_err("too many columns");
        assert_eq!(refused, "expected at most 100 columns, came 101");
        // A short text of a long name and many empty rows.
        let swelling = format!("{}\n{}", "n".repeat(1_000), "\n".repeat(1_000));
        let refused = read_again("csv", &swelling).expect_err("too much");
        assert_eq!(refused, "expected at most 1000 rows of 32768 bytes as JSON, came more");
        // Few fields in rows of many names.
        let sparse: Vec<Value> = (0..500).map(|n| json!({format!("{}", n % 100): 1})).collect();
        let refused = write(Format::Csv, &sparse).expect_err("too much");
        assert!(refused.starts_with("expected at most 32768 bytes of CSV, came "), "{refused}");
    }

    #[test]
    fn what_steps_give_has_rows() {
        let rows = |input: Value| rows_of(&input).map(Value::from);

        assert_eq!(rows(json!({"source": "api", "rows": [1, 2], "count": 2})), Ok(json!([1, 2])));
        assert_eq!(rows(json!({"status": 200, "data": {"a": 1}})), Ok(json!([{"status": 200, "data": {"a": 1}}])));
        for (input, came) in [(json!(null), "null"), (json!("a"), "a text"), (json!(7), "a number")] {
            let expected = "expected rows: a list, or an object with rows or with format and data";
            assert_eq!(rows(input), Err(format!("{expected}; came {came}")));
        }
        let text = json!({"format": "lines", "data": "1\n2\n", "rows": 2});
        let written = written_of(&text).expect("a text");
        assert_eq!((written.format, written.text.as_str(), written.rows), (Format::Lines, "1\n2\n", 2));
        let written = written_of(&json!({"rows": [1]})).expect("rows");
        assert_eq!((written.format, written.text.as_str(), written.rows), (Format::Json, "[1]", 1));
    }
}
