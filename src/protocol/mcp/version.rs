//! The revisions of MCP, what sets them apart for a server, and how one is chosen.

use std::fmt;

use serde::{Serialize, Serializer};

/// A revision of the Model Context Protocol, oldest first.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Version {
    /// The first; also what the join of the Elixir deployment states.
    V2024_11_05,
    /// Streamable HTTP, batches.
    V2025_03_26,
    /// Structured output, elicitation; no batches.
    V2025_06_18,
    /// Elicitation by URL, sampling with tools; the last with `initialize`.
    V2025_11_25,
    /// Stateless: every request says what it needs.
    V2026_07_28,
}

impl Version {
    /// All of them, oldest first.
    pub const ALL: [Version; 5] =
        [Version::V2024_11_05, Version::V2025_03_26, Version::V2025_06_18, Version::V2025_11_25, Version::V2026_07_28];
    /// The newest that a client can open with `initialize`.
    pub const LATEST_LEGACY: Version = Version::V2025_11_25;
    /// The stateless revisions, for `supported` and `supportedVersions`: those that a request may name in its `_meta`.
    pub const MODERN: [Version; 1] = [Version::V2026_07_28];

    /// The date that names it.
    pub fn as_str(self) -> &'static str {
        match self {
            Version::V2024_11_05 => "2024-11-05",
            Version::V2025_03_26 => "2025-03-26",
            Version::V2025_06_18 => "2025-06-18",
            Version::V2025_11_25 => "2025-11-25",
            Version::V2026_07_28 => "2026-07-28",
        }
    }

    /// The revision of that name, if it is one of these.
    pub fn parse(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|version| version.as_str() == name)
    }

    /// What `initialize` is answered with: the revision asked for, or the newest there is with that handshake.
    ///
    /// Source: MCP, lifecycle, "Version Negotiation" (2024-11-05 to 2025-11-25).
    pub fn negotiate(requested: &str) -> Self {
        Self::parse(requested).filter(|version| !version.is_modern()).unwrap_or(Self::LATEST_LEGACY)
    }

    /// Whether requests are stateless.
    pub fn is_modern(self) -> bool {
        self >= Version::V2026_07_28
    }

    /// Whether a message may be an array of messages.
    pub fn has_batches(self) -> bool {
        self == Version::V2025_03_26
    }

    /// Whether arguments that don't fit a tool's schema are the tool's failure, for the model to see, and not the request's.
    ///
    /// Source: SEP-1303, in force from 2025-11-25.
    pub fn reports_unfit_arguments_in_band(self) -> bool {
        self >= Version::V2025_11_25
    }

    /// Whether form elicitations name their mode.
    pub fn names_elicitation_mode(self) -> bool {
        self >= Version::V2025_11_25
    }
}

impl fmt::Display for Version {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

impl Serialize for Version {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(self.as_str())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_client_gets_the_revision_it_asks_for_or_the_last_with_a_handshake() {
        for version in [Version::V2024_11_05, Version::V2025_03_26, Version::V2025_06_18, Version::V2025_11_25] {
            assert_eq!(Version::negotiate(version.as_str()), version);
        }
        for other in ["2026-07-28", "1999-01-01", "", "2025-11-25 "] {
            assert_eq!(Version::negotiate(other), Version::V2025_11_25, "{other:?}");
        }
    }

    #[test]
    fn batches_came_and_went_with_one_revision() {
        let with: Vec<_> = Version::ALL.into_iter().filter(|version| version.has_batches()).collect();

        assert_eq!(with, [Version::V2025_03_26]);
    }
}
