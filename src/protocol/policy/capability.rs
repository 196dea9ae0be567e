//! One capability as it is written: in a role, a scope, or an API key.
//!
//! ```text
//! tools:call                 this one, and nothing else
//! tools:*                    all that begin with `tools:`, however many parts follow
//! topics:join:room:lobby-*   all that begin so
//! *                          all
//! !tools:call:text_search    never this one; also `!tools:*` and so on
//! ```

use std::fmt;

/// Bytes of a capability. A resource's URI or a topic may stand in it.
pub const CAPABILITY_BYTES_MAX: usize = 1_024;

/// Characters of a capability that an error repeats.
const TOLD_CHARS: usize = 64;

/// A capability, or its denial.
///
/// As text it is at least `resource:action`, in which a star may stand as the last character. The star stands for any
/// text, none and further colons included.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Capability {
    is_denial: bool,
    pattern: Pattern,
}

/// What a capability is compared by.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(super) struct Pattern {
    /// Without the star.
    text: Box<str>,
    /// Whether it ended with a star.
    is_prefix: bool,
}

/// A text is no capability, or there are too many.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum CapabilityError {
    /// It is empty or too long.
    #[error("capability: expected 1 to {CAPABILITY_BYTES_MAX} bytes, came {0}")]
    Length(usize),
    /// It has another form.
    #[error("capability: expected {expected}, came {came:?}")]
    Form {
        /// What would have done.
        expected: &'static str,
        /// Its beginning.
        came: String,
    },
    /// One identity has more than [`super::CAPABILITIES_PER_IDENTITY_MAX`].
    #[error("expected at most {limit} capabilities of one identity, came more")]
    TooMany {
        /// As many as it may have.
        limit: usize,
    },
}

impl Capability {
    /// Reads a capability or a denial.
    ///
    /// # Errors
    /// [`CapabilityError::Length`], [`CapabilityError::Form`].
    pub fn parse(text: &str) -> Result<Self, CapabilityError> {
        if !(1..=CAPABILITY_BYTES_MAX).contains(&text.len()) {
            return Err(CapabilityError::Length(text.len()));
        }
        let (is_denial, wanted) = text.strip_prefix('!').map_or((false, text), |wanted| (true, wanted));
        let refused = |expected| {
            let came = text.chars().take(TOLD_CHARS).collect();
            Err(CapabilityError::Form { expected, came })
        };
        if wanted.contains(char::is_control) || wanted.trim() != wanted {
            return refused("no control characters, and no white space at its ends");
        }
        if wanted.starts_with('!') {
            return refused("one ! at most");
        }
        let (pattern, is_prefix) = wanted.strip_suffix('*').map_or((wanted, false), |prefix| (prefix, true));
        if pattern.contains('*') {
            return refused("no star but one as its last character");
        }
        let is_all = is_prefix && pattern.is_empty();
        let has_parts = pattern.split_once(':').is_some_and(|(resource, action)| {
            !resource.is_empty() && (is_prefix || !action.is_empty() && !action.ends_with(':'))
        });
        if !is_all && !has_parts {
            return refused("a form such as tools:call, tools:* or *");
        }
        Ok(Capability { is_denial, pattern: Pattern { text: pattern.into(), is_prefix } })
    }

    /// Whether it denies.
    pub fn is_denial(&self) -> bool {
        self.is_denial
    }

    /// Whether `wanted` is what it speaks of, granted or denied.
    pub fn matches(&self, wanted: &str) -> bool {
        self.pattern.matches(&[wanted])
    }

    pub(super) fn into_pattern(self) -> Pattern {
        self.pattern
    }
}

impl Pattern {
    /// Whether these texts, one behind the other, match. Takes time linear in them, and no memory.
    pub(super) fn matches(&self, wanted: &[&str]) -> bool {
        let mut rest = self.text.as_bytes();
        for piece in wanted {
            let shared = rest.len().min(piece.len());
            if rest[..shared] != piece.as_bytes()[..shared] {
                return false;
            }
            if shared < piece.len() {
                return self.is_prefix;
            }
            rest = &rest[shared..];
        }
        rest.is_empty()
    }
}

impl fmt::Display for Pattern {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}{}", self.text, if self.is_prefix { "*" } else { "" })
    }
}

impl fmt::Display for Capability {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}{}", if self.is_denial { "!" } else { "" }, self.pattern)
    }
}

impl fmt::Debug for Pattern {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl fmt::Debug for Capability {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check(capability: &str, matching: &[&str], others: &[&str]) {
        let capability = Capability::parse(capability).unwrap();
        for wanted in matching {
            assert!(capability.matches(wanted), "{capability} {wanted}");
        }
        for wanted in others {
            assert!(!capability.matches(wanted), "{capability} {wanted}");
        }
    }

    #[track_caller]
    fn check_refused(text: &str, expected: &str) {
        assert_eq!(Capability::parse(text).unwrap_err().to_string(), expected);
    }

    #[test]
    fn one_without_a_star_matches_itself() {
        check(
            "tools:call",
            &["tools:call"],
            &["tools", "tools:", "tools:cal", "tools:call:x", "tools:calls", "Tools:call", ""],
        );
    }

    #[test]
    fn a_star_matches_all_below_at_any_depth() {
        // T6.
        check(
            "tools:*",
            &["tools:execute", "tools:call", "tools:call:text_search", "tools:*", "tools:a::b"],
            &["tools", "toolsx:call", "xtools:call", "resources:list"],
        );
        check(
            "topics:join:room:*",
            &["topics:join:room:1", "topics:join:room:1:2"],
            &["topics:join:room", "topics:join:roo"],
        );
        check("*", &["tools:call", "a", ""], &[]);
    }

    #[test]
    fn a_star_may_stand_inside_the_last_part() {
        check(
            "topics:join:room:lobby-*",
            &["topics:join:room:lobby-1", "topics:join:room:lobby-1:2", "topics:join:room:lobby-"],
            &["topics:join:room:lobby", "topics:join:room:1"],
        );
        check("tools:call:text_*", &["tools:call:text_search"], &["tools:call", "tools:call:image"]);
    }

    #[test]
    fn a_denial_matches_as_the_same_without_its_mark() {
        let denial = Capability::parse("!tools:call:api_caller").unwrap();

        assert!(denial.is_denial() && denial.matches("tools:call:api_caller") && !denial.matches("tools:call"));
        assert_eq!(denial.to_string(), "!tools:call:api_caller");
    }

    #[test]
    fn what_is_no_capability_is_refused_with_what_was_expected() {
        check_refused("", "capability: expected 1 to 1024 bytes, came 0");
        check_refused(&format!("a:{}", "b".repeat(1_023)), "capability: expected 1 to 1024 bytes, came 1025");
        for text in ["tools", "tools/call", "!", "tools:", ":call", ":*", "tools*", "a:b:", "!tools"] {
            let expected = format!("capability: expected a form such as tools:call, tools:* or *, came {text:?}");
            check_refused(text, &expected);
        }
        for text in ["**", "*:call", "tools:*:x", "tools:**", "to*ls:call", "!*a:b"] {
            let expected = format!("capability: expected no star but one as its last character, came {text:?}");
            check_refused(text, &expected);
        }
        check_refused("!!tools:call", "capability: expected one ! at most, came \"!!tools:call\"");
        for text in [" tools:call", "tools:call ", "tools:\ncall", "! tools:call", "tools:call\u{0}"] {
            let expected = "capability: expected no control characters, and no white space at its ends";
            check_refused(text, &format!("{expected}, came {text:?}"));
        }
    }

    #[test]
    fn an_error_repeats_the_beginning_alone() {
        let error = Capability::parse(&"é".repeat(500)).unwrap_err().to_string();

        assert!(error.ends_with(&format!("came \"{}\"", "é".repeat(TOLD_CHARS))), "{error}");
    }

    #[test]
    fn colons_may_stand_one_behind_the_other_in_a_uri() {
        check("resources:read:http://[::1]/", &["resources:read:http://[::1]/"], &["resources:read:http://[::1]"]);
        check("resources:read:memory://*", &["resources:read:memory://a"], &["resources:read:memory:/a"]);
    }
}
