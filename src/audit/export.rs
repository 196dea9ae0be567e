//! Writes entries for other programs.

use std::io::{self, Write};

use serde_json::Value;

use super::entry::Entry;

/// The columns of CSV. Source: the Elixir deployment's export.
const COLUMNS: &str = "timestamp,type,user_id,client_id,operation,result,ip_address";

/// As what entries are written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Format {
    /// An entry a line, as in the log.
    JsonLines,
    /// A head and seven columns, RFC 4180. A field that a spreadsheet would take for a formula begins with `'`.
    Csv,
}

/// Writes entries one after another.
pub struct Export<W> {
    out: W,
    format: Format,
}

impl<W: Write> Export<W> {
    /// Writes what comes before the first entry.
    ///
    /// # Errors
    /// What `out` says.
    pub fn begin(mut out: W, format: Format) -> io::Result<Self> {
        if format == Format::Csv {
            write!(out, "{COLUMNS}\r\n")?;
        }
        Ok(Export { out, format })
    }

    /// Writes an entry.
    ///
    /// # Errors
    /// What `out` says.
    pub fn write(&mut self, entry: &Entry) -> io::Result<()> {
        match self.format {
            Format::JsonLines => {
                serde_json::to_writer(&mut self.out, entry)?;
                self.out.write_all(b"\n")
            }
            Format::Csv => {
                let result = match &entry.result {
                    Some(Value::String(text)) => Some(text.clone()),
                    result => result.as_ref().map(Value::to_string),
                };
                let fields = [
                    Some(entry.timestamp.as_str()),
                    Some(entry.entry_type.as_str()),
                    entry.user_id.as_deref(),
                    entry.client_id.as_deref(),
                    entry.operation.as_deref(),
                    result.as_deref(),
                    entry.metadata.ip_address.as_deref(),
                ];
                let fields = fields.map(|field| quoted(field.unwrap_or_default()));
                write!(self.out, "{}\r\n", fields.join(","))
            }
        }
    }

    /// Gives back where it wrote to.
    pub fn end(self) -> W {
        self.out
    }
}

/// A field of CSV.
///
/// Source: RFC 4180; OWASP, "CSV Injection", for the characters that begin a formula.
fn quoted(field: &str) -> String {
    let is_formula = field.starts_with(['=', '+', '-', '@', '\t', '\r', '\n', '＝', '＋', '－', '＠']);
    let mark = if is_formula { "'" } else { "" };
    if is_formula || field.contains(['"', ',', '\r', '\n', ';']) || field.starts_with(' ') || field.ends_with(' ') {
        format!("\"{mark}{}\"", field.replace('"', "\"\""))
    } else {
        field.to_owned()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn fields_are_quoted_where_they_have_to_be_and_are_no_formulas() {
        for (field, expected) in [
            ("", ""),
            ("plain text", "plain text"),
            ("a,b", "\"a,b\""),
            ("say \"hi\"", "\"say \"\"hi\"\"\""),
            ("two\r\nlines", "\"two\r\nlines\""),
            ("=1+1", "\"'=1+1\""),
            ("@SUM(\"A1\")", "\"'@SUM(\"\"A1\"\")\""),
            ("-2", "\"'-2\""),
            ("\tx", "\"'\tx\""),
            ("x=1", "x=1"),
        ] {
            assert_eq!(quoted(field), expected);
        }
    }
}
