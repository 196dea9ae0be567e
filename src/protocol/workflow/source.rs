//! Where a step takes a value from: an earlier step, or what surrounds it; and from there a JSON Pointer.

use serde_json::Value;

use super::definition::StepIndex;

/// Where a value begins.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Origin {
    /// The result of an earlier step.
    Step(StepIndex),
    /// `$input`: what the step before gave, or what the surrounding step was given.
    Input,
    /// `$item`: the item of the innermost loop, or of `$item:LOOP`.
    Item(Option<StepIndex>),
    /// `$index`: the number of the round, from 0.
    Index(Option<StepIndex>),
    /// `$last`: in the `while` of a loop, the result of the round before; null in the first.
    Last,
    /// `$condition`: the result of the innermost condition.
    Condition,
    /// `$context`: the run's context.
    Context,
    /// `$trigger`: the event that began the workflow; null where nothing did.
    Trigger,
    /// `$error`: in the step of an `on_error`, what went wrong: `{kind, message, step}`.
    Error,
}

/// A source whose step has been found.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Source {
    /// Where it begins.
    pub origin: Origin,
    /// A JSON Pointer (RFC 6901) from there; empty for the whole.
    pub pointer: String,
    /// What stands where nothing is there.
    pub default: Option<Value>,
    /// As it was written.
    pub text: String,
}

impl Source {
    /// What it points to, where it begins at `origin`; its default, or none, where nothing is.
    pub fn at<'a>(&'a self, origin: Option<&'a Value>) -> Option<&'a Value> {
        origin.and_then(|value| value.pointer(&self.pointer)).or(self.default.as_ref())
    }
}

/// A source as it is written, in its two parts: `fetch/rows/0` is `fetch` and `/rows/0`.
pub(super) fn split(text: &str) -> (&str, &str) {
    let at = text.find('/').unwrap_or(text.len());
    text.split_at(at)
}

/// Whether a text is a JSON Pointer: empty, or tokens behind slashes in which `~` stands before 0 or 1 alone.
pub(super) fn is_pointer(text: &str) -> bool {
    let escapes_fit = || text.split('~').skip(1).all(|rest| rest.starts_with(['0', '1']));
    text.is_empty() || (text.starts_with('/') && escapes_fit())
}

/// Whether a text can be a step's id.
pub(super) fn is_id(text: &str) -> bool {
    let is_plain = |c: char| c.is_ascii_alphanumeric() || matches!(c, '_' | '-');
    !text.is_empty() && text.len() <= super::ID_BYTES_MAX && text.chars().all(is_plain)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_source_is_a_name_and_a_pointer() {
        assert_eq!(split("fetch"), ("fetch", ""));
        assert_eq!(split("$item:rows/a/0"), ("$item:rows", "/a/0"));
        assert_eq!(split("/a"), ("", "/a"));
    }

    #[test]
    fn pointers_escape_with_a_digit() {
        assert!(["", "/", "/a", "/a~1b~0", "//"].iter().all(|text| is_pointer(text)));
        assert!(["a", "/a~", "/a~2"].iter().all(|text| !is_pointer(text)));
    }
}
