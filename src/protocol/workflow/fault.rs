//! What is wrong with a JSON document, and where: all of it at once, so that its author fixes it in one go.

use serde::Serialize;

/// Faults that one document is told at most.
pub const FAULTS_MAX: usize = 100;
/// Bytes of paths and messages of one document's faults, but for the last of them. Paths repeat the keys of the document,
/// so that without the bound a small request would get a large answer.
pub const FAULTS_BYTES_MAX: usize = 65_536;

/// Characters of a name or a value that a message repeats.
const QUOTED_CHARS_MAX: usize = 64;

/// One thing wrong.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, thiserror::Error)]
#[error("{message}")]
pub struct Fault {
    /// JSON Pointer (RFC 6901) of the place; of what is missing, the place where it belongs.
    pub path: String,
    /// What is wrong, for a person. It names what it is about, so that it can stand without the path.
    pub message: String,
}

impl Fault {
    /// What is wrong at a place.
    pub fn new(path: impl Into<String>, message: impl Into<String>) -> Self {
        Fault { path: path.into(), message: message.into() }
    }
}

/// Collects faults, up to [`FAULTS_MAX`] and [`FAULTS_BYTES_MAX`]; later ones are dropped.
#[derive(Clone, Debug, Default)]
pub struct Faults {
    list: Vec<Fault>,
    bytes: usize,
}

impl Faults {
    /// Adds one.
    pub fn add(&mut self, path: impl Into<String>, message: impl Into<String>) {
        if self.list.len() < FAULTS_MAX && self.bytes < FAULTS_BYTES_MAX {
            let (path, message) = (path.into(), message.into());
            self.bytes += path.len() + message.len();
            self.list.push(Fault { path, message });
        }
    }

    /// Whether nothing is wrong so far.
    pub fn is_empty(&self) -> bool {
        self.list.is_empty()
    }

    /// The faults as an error, if there are any.
    ///
    /// # Errors
    /// The faults, in the order in which they were found.
    pub fn none(self) -> Result<(), Vec<Fault>> {
        if self.list.is_empty() { Ok(()) } else { Err(self.list) }
    }
}

/// The place of `token`, a key or an index, in what stands at `path`.
pub fn join(path: &str, token: &str) -> String {
    let mut joined = path.to_owned();
    push(&mut joined, token);
    joined
}

/// Makes `path` the place of `token` in what stood there.
pub fn push(path: &mut String, token: &str) {
    path.push('/');
    for c in token.chars() {
        match c {
            '~' => path.push_str("~0"),
            '/' => path.push_str("~1"),
            c => path.push(c),
        }
    }
}

/// What a message repeats of a text: its first characters.
pub fn short(text: &str) -> String {
    match text.char_indices().nth(QUOTED_CHARS_MAX) {
        Some((end, _)) => format!("{}…", &text[..end]),
        None => text.to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_are_escaped_as_rfc_6901_says() {
        assert_eq!(join("/a", "b/c~d"), "/a/b~1c~0d");
        assert_eq!(join("", ""), "/");
    }

    #[test]
    fn the_answer_to_many_faults_is_bounded() {
        let mut few = Faults::default();
        let mut long = Faults::default();
        for _ in 0..1_000 {
            few.add("/a", "b");
            long.add("x".repeat(FAULTS_BYTES_MAX / 2), "b");
        }

        assert_eq!(few.none().expect_err("faults").len(), FAULTS_MAX);
        assert_eq!(long.none().expect_err("faults").len(), 2);
    }

    #[test]
    fn long_names_are_cut_at_a_character() {
        assert_eq!(short(&"ä".repeat(100)), format!("{}…", "ä".repeat(64)));
        assert_eq!(short(&"ä".repeat(64)), "ä".repeat(64));
    }
}
