//! Topic patterns: how a topic finds its channel.

/// A route's pattern: an exact topic, or a prefix that ends in `*` (`room:*`).
///
/// Source: `Phoenix.Socket.channel/3`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum TopicPattern {
    /// Matches this topic alone.
    Exact(String),
    /// Matches every topic that starts with this, the bare prefix among them.
    Prefix(String),
}

impl TopicPattern {
    /// Reads a pattern.
    ///
    /// # Errors
    /// [`PatternError`] if a `*` stands anywhere but at the end.
    pub fn parse(pattern: &str) -> Result<Self, PatternError> {
        match pattern.find('*') {
            None => Ok(TopicPattern::Exact(pattern.to_owned())),
            Some(at) if at + 1 == pattern.len() => Ok(TopicPattern::Prefix(pattern[..at].to_owned())),
            Some(_) => Err(PatternError(pattern.to_owned())),
        }
    }

    /// Whether the topic belongs to this route.
    pub fn matches(&self, topic: &str) -> bool {
        match self {
            TopicPattern::Exact(exact) => exact == topic,
            TopicPattern::Prefix(prefix) => topic.starts_with(prefix.as_str()),
        }
    }
}

/// Topics whose broadcasts the server itself obeys, or that tell what operators alone may read: what begins so, whatever a
/// policy says, no client's own channel or trigger hears or is heard on.
pub const RESERVED: [&str; 4] = ["bennu:", "user_socket:", "mcp_audit_stream", "mcp_security_alerts"];

/// Whether a topic is one of [`RESERVED`].
pub fn is_reserved(topic: &str) -> bool {
    RESERVED.iter().any(|reserved| topic.starts_with(reserved))
}

/// A pattern with a star that is not its last character.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("topic pattern {0:?} has a star before its end, expected none or one as the last character")]
pub struct PatternError(String);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_prefix_matches_the_empty_subtopic_but_not_the_bare_word() {
        let pattern = TopicPattern::parse("room:*").unwrap();

        assert!(pattern.matches("room:"));
        assert!(pattern.matches("room:*"));
        assert!(!pattern.matches("room"));
    }

    #[test]
    fn an_exact_pattern_matches_itself_alone() {
        let pattern = TopicPattern::parse("exact").unwrap();

        assert!(pattern.matches("exact"));
        assert!(!pattern.matches("exact:1"));
        assert!(!pattern.matches("exactly"));
        assert!(!pattern.matches("Exact"));
    }

    #[test]
    fn a_star_inside_is_refused() {
        assert!(TopicPattern::parse("a*b").is_err());
        assert!(TopicPattern::parse("**").is_err());
    }
}
