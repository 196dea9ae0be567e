//! How grave a log message is, and from which level on a client wants to be told.

use std::fmt;

use serde::{Deserialize, Serialize};

/// The severity of a log message; the graver is the greater.
///
/// Source: `LoggingLevel` of the MCP schema, which has the severities of RFC 5424.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Level {
    /// For whoever looks for a fault.
    Debug,
    /// What happens in the ordinary course.
    Info,
    /// Ordinary, and worth a look.
    Notice,
    /// Not a failure yet.
    Warning,
    /// Something failed.
    Error,
    /// A part is failing.
    Critical,
    /// Someone must act at once.
    Alert,
    /// Nothing works.
    Emergency,
}

impl Level {
    /// Every level, the mildest first.
    pub const ALL: [Level; 8] = [
        Level::Debug,
        Level::Info,
        Level::Notice,
        Level::Warning,
        Level::Error,
        Level::Critical,
        Level::Alert,
        Level::Emergency,
    ];

    /// The level that has this name on the wire; `None` for any other text, also in other case.
    pub fn parse(text: &str) -> Option<Self> {
        Level::ALL.into_iter().find(|level| level.as_str() == text)
    }

    /// The name on the wire.
    pub fn as_str(self) -> &'static str {
        match self {
            Level::Debug => "debug",
            Level::Info => "info",
            Level::Notice => "notice",
            Level::Warning => "warning",
            Level::Error => "error",
            Level::Critical => "critical",
            Level::Alert => "alert",
            Level::Emergency => "emergency",
        }
    }
}

impl fmt::Display for Level {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn levels_are_ordered_by_severity() {
        assert!(Level::ALL.is_sorted());
        assert!(Level::Debug < Level::Warning && Level::Warning < Level::Emergency);
    }

    #[test]
    fn a_level_has_one_name_for_reading_writing_and_serde() {
        for level in Level::ALL {
            let json = format!("\"{level}\"");

            assert_eq!(Level::parse(level.as_str()), Some(level));
            assert_eq!(serde_json::to_string(&level).expect("serializes"), json);
            assert_eq!(serde_json::from_str::<Level>(&json).expect("a level"), level);
        }
    }

    #[test]
    fn other_words_are_no_level() {
        for text in ["", "Info", "warn", "trace", "error "] {
            assert_eq!(Level::parse(text), None, "{text:?}");
        }
    }
}
