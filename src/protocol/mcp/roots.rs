//! The folders and pages that a client says a server may work in: the result of `roots/list`.
//!
//! Source: `ListRootsResult` of the MCP schema. Deprecated since 2026-07-28, which asks for them within a call.

use serde::Deserialize;
use serde_json::value::RawValue;

use crate::protocol::jsonrpc::Object;

/// One place the client names.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
pub struct Root {
    /// Where: a `file:` URI in every revision so far. It is the client's word, not proof of anything.
    pub uri: String,
    /// For a person to read.
    #[serde(default)]
    pub name: Option<String>,
}

/// Why a result is no list of roots: the client's fault.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum BadRoots {
    /// No object with an array `roots`.
    #[error("roots result: expected an object with an array \"roots\"")]
    NoRoots,
    /// An entry that is none.
    #[error("roots result: root {index}: expected an object with a string \"uri\" and perhaps a string \"name\"")]
    Root {
        /// Which, counted from 0.
        index: usize,
    },
}

/// Reads a `ListRootsResult`. Fields not named in [`Root`] are ignored.
///
/// # Errors
/// [`BadRoots`] with the first place that does not fit.
pub fn read(result: &RawValue) -> Result<Vec<Root>, BadRoots> {
    let object = Object::parse(result.get().as_bytes()).ok_or(BadRoots::NoRoots)?;
    let roots: Vec<&RawValue> = object.get("roots").ok_or(BadRoots::NoRoots)?;
    let read = |(index, root): (usize, &&RawValue)| {
        // Derived types also read arrays, in the order of their fields.
        let is_object = root.get().starts_with('{');
        serde_json::from_str(root.get()).ok().filter(|_| is_object).ok_or(BadRoots::Root { index })
    };
    roots.iter().enumerate().map(read).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(result: &str) -> Result<Vec<Root>, String> {
        read(serde_json::from_str(result).expect("JSON")).map_err(|error| error.to_string())
    }

    #[test]
    fn roots_are_read_with_and_without_a_name() {
        let roots = check(r#"{"roots":[{"uri":"file:///a","name":"a","_meta":{}},{"uri":"file:///b"}],"x":1}"#);

        assert_eq!(
            roots,
            Ok(vec![
                Root { uri: "file:///a".to_owned(), name: Some("a".to_owned()) },
                Root { uri: "file:///b".to_owned(), name: None },
            ])
        );
        assert_eq!(check(r#"{"roots":[]}"#), Ok(Vec::new()));
    }

    #[test]
    fn what_is_no_list_of_roots_is_refused_with_its_place() {
        let shape = r#"roots result: expected an object with an array "roots""#;
        let root = |index: usize| {
            let expected = r#"expected an object with a string "uri" and perhaps a string "name""#;
            format!("roots result: root {index}: {expected}")
        };

        for result in ["[]", "{}", r#"{"roots":{}}"#, r#"{"roots":null}"#] {
            assert_eq!(check(result), Err(shape.to_owned()), "{result}");
        }
        assert_eq!(check(r#"{"roots":[{"uri":"a"},{"name":"b"}]}"#), Err(root(1)));
        assert_eq!(check(r#"{"roots":[{"uri":7}]}"#), Err(root(0)));
        assert_eq!(check(r#"{"roots":[["a",null]]}"#), Err(root(0)));
    }
}
