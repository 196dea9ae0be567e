//! The `vsn` parameter: which serializer a client asks for.

use super::WireVersion;

/// A `vsn` that no serializer serves.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("vsn is {0:?}, expected a version that matches ~> 1.0.0 or ~> 2.0.0")]
pub struct UnsupportedVersion(pub String);

/// See [`WireVersion::negotiate`].
pub(super) fn negotiate(vsn: Option<&str>) -> Result<WireVersion, UnsupportedVersion> {
    let Some(vsn) = vsn else {
        return Ok(WireVersion::V1);
    };
    match Version::parse(vsn) {
        Some(version) if version.matches("1") => Ok(WireVersion::V1),
        Some(version) if version.matches("2") => Ok(WireVersion::V2),
        _ => Err(UnsupportedVersion(vsn.to_owned())),
    }
}

/// A semantic version. Its numbers have no leading zeros and no upper bound, so they stay text.
struct Version<'a> {
    major: &'a str,
    minor: &'a str,
    patch: &'a str,
    pre_release: bool,
}

impl<'a> Version<'a> {
    /// Reads `MAJOR.MINOR.PATCH[-PRE][+BUILD]`.
    ///
    /// Source: Elixir's `Version.parse/1`.
    fn parse(text: &'a str) -> Option<Self> {
        let (text, build) = split_optional(text, '+');
        let (numbers, pre) = split_optional(text, '-');
        let mut numbers = numbers.split('.');
        let version = Version {
            major: numbers.next()?,
            minor: numbers.next()?,
            patch: numbers.next()?,
            pre_release: pre.is_some(),
        };
        let well_formed = numbers.next().is_none()
            && [version.major, version.minor, version.patch].into_iter().all(is_number)
            && pre.is_none_or(|pre| {
                pre.split('.').all(|part| is_identifier(part) && (is_number(part) || !is_digits(part)))
            })
            && build.is_none_or(|build| build.split('.').all(is_identifier));
        well_formed.then_some(version)
    }

    /// Whether this is `~> MAJOR.0.0`: from `MAJOR.0.0` to below the first pre-release of `MAJOR.1.0`.
    ///
    /// So a pre-release of `MAJOR.0.0` itself is too early, one of `MAJOR.0.1` is not (transcripts `vsn_pre`, `vsn_pre_1`).
    fn matches(&self, major: &str) -> bool {
        self.major == major && self.minor == "0" && !(self.patch == "0" && self.pre_release)
    }
}

fn split_optional(text: &str, separator: char) -> (&str, Option<&str>) {
    match text.split_once(separator) {
        Some((before, after)) => (before, Some(after)),
        None => (text, None),
    }
}

fn is_digits(text: &str) -> bool {
    !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit())
}

fn is_number(text: &str) -> bool {
    is_digits(text) && (text.len() == 1 || !text.starts_with('0'))
}

fn is_identifier(text: &str) -> bool {
    !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'-')
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(vsn: &str, expected: Option<WireVersion>) {
        assert_eq!(negotiate(Some(vsn)).ok(), expected, "{vsn}");
    }

    #[test]
    fn no_vsn_means_version_1() {
        assert_eq!(negotiate(None), Ok(WireVersion::V1));
    }

    #[test]
    fn the_recorded_versions_are_served() {
        check("1.0.0", Some(WireVersion::V1));
        check("1.0.5", Some(WireVersion::V1));
        check("2.0.0", Some(WireVersion::V2));
        check("2.0.0+b1", Some(WireVersion::V2));
        check("2.0.1-rc.1", Some(WireVersion::V2));
    }

    #[test]
    fn the_recorded_refusals_are_refused() {
        for vsn in ["0.9.0", "1.1.0", "3.0.0", "2", "", "abc", "2.0.0-rc.1"] {
            check(vsn, None);
        }
    }

    #[test]
    fn versions_compare_by_semantic_version() {
        check("2.0.99999999999999999999999999", Some(WireVersion::V2));
        check("2.0.0-rc.1+b1", None);
        check("2.0.7-0.a-b.c+001", Some(WireVersion::V2));
        check("2.1.0-rc.1", None);
        check("2.1.0-0", None);
        check("1.9.9", None);
        check("20.0.0", None);
    }

    #[test]
    fn malformed_versions_are_refused() {
        for vsn in [
            "2.0",
            "2.0.0.0",
            "02.0.0",
            "2.00.0",
            "2.0.00",
            "2.0.1-",
            "2.0.1-a..b",
            "2.0.1-01",
            "2.0.0+",
            "2.0.0+a+b",
            "2.0.0+a_b",
            " 2.0.0",
            "2.0.0\n",
            "v2.0.0",
            "2.0.x",
            "-2.0.0",
            "2..0",
            "２.0.0",
        ] {
            check(vsn, None);
        }
    }
}
