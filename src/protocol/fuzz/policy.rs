//! What an identity may do: capabilities and a wish, held against a slow reading of the rules.

use crate::protocol::policy::{Capability, Grants};

/// Lines of capabilities, the last line what is wanted; what is not UTF-8 is none.
pub fn policy_matcher(bytes: &[u8]) {
    let Ok(text) = std::str::from_utf8(bytes) else { return };
    let (lines, wanted) = text.rsplit_once('\n').unwrap_or(("", text));
    let mut read = Vec::new();
    for line in lines.split('\n') {
        match Capability::parse(line) {
            Ok(capability) => {
                assert!(is_capability(line), "{line:?} was read");
                assert_eq!(capability.to_string(), line);
                assert_eq!(capability.matches(wanted), speaks_of(line, wanted), "{line:?} {wanted:?}");
                read.push((line, capability));
            }
            Err(error) => assert!(!is_capability(line), "{line:?} was refused: {error}"),
        }
    }
    let Ok(grants) = Grants::new(read.iter().map(|(_, capability)| capability.clone())) else {
        assert!(read.len() > crate::protocol::policy::CAPABILITIES_PER_IDENTITY_MAX);
        return;
    };
    let any = |is_denial: bool, wanted: &str| {
        read.iter().any(|(line, _)| line.starts_with('!') == is_denial && speaks_of(line, wanted))
    };
    let allowed = any(false, wanted) && !any(true, wanted);
    assert_eq!(grants.allows(wanted), allowed, "{wanted:?} of {grants:?}");
    for (at, _) in wanted.match_indices(':') {
        let (action, name) = (&wanted[..at], &wanted[at + 1..]);
        let allowed = (any(false, action) || any(false, wanted)) && !any(true, action) && !any(true, wanted);
        assert_eq!(grants.allows_on(action, name), allowed, "{action:?} {name:?} of {grants:?}");
    }
    assert_eq!(Grants::parse(&grants.texts()).as_ref(), Ok(&grants));
}

/// The rule for what may be written, character by character.
fn is_capability(line: &str) -> bool {
    let chars: Vec<char> = line.strip_prefix('!').unwrap_or(line).chars().collect();
    let (Some(first), Some(last)) = (chars.first(), chars.last()) else { return false };
    let has_form = match chars.iter().position(|char| *char == ':') {
        None => chars == ['*'],
        Some(at) => at > 0 && at + 1 < chars.len() && *last != ':',
    };
    line.len() <= 1_024
        && has_form
        && *first != '!'
        && !first.is_whitespace()
        && !last.is_whitespace()
        && !chars.iter().any(|char| char.is_control())
        && chars.iter().rev().skip(1).all(|char| *char != '*')
}

/// The rule for what it matches, character by character.
fn speaks_of(line: &str, wanted: &str) -> bool {
    let pattern: Vec<char> = line.strip_prefix('!').unwrap_or(line).chars().collect();
    let wanted: Vec<char> = wanted.chars().collect();
    (0..=wanted.len().max(pattern.len())).find_map(|i| match (pattern.get(i), wanted.get(i)) {
        (Some('*'), _) if i + 1 == pattern.len() => Some(true),
        (None, None) => Some(true),
        (Some(a), Some(b)) if a == b => None,
        _ => Some(false),
    }) == Some(true)
}
