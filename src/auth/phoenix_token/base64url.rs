//! Base64 of Elixir's kind.

use base64::Engine;
use base64::alphabet::URL_SAFE;
use base64::engine::{DecodePaddingMode, GeneralPurpose, GeneralPurposeConfig};
use base64::prelude::BASE64_URL_SAFE_NO_PAD;

const LENIENT: GeneralPurpose = GeneralPurpose::new(
    &URL_SAFE,
    GeneralPurposeConfig::new()
        .with_decode_allow_trailing_bits(true)
        .with_decode_padding_mode(DecodePaddingMode::RequireNone),
);

/// Reads base64url as Elixir does: with its whole padding or without, and whatever the unused low bits are.
///
/// Source: `Base.url_decode64(text, padding: false)`.
pub(super) fn decode(text: &str) -> Option<Vec<u8>> {
    let unpadded = match text.strip_suffix('=') {
        Some(_) if !text.len().is_multiple_of(4) => return None,
        Some(less) => less.strip_suffix('=').unwrap_or(less),
        None => text,
    };
    LENIENT.decode(unpadded).ok()
}

/// Writes base64url without padding.
pub(super) fn encode(bytes: &[u8]) -> String {
    BASE64_URL_SAFE_NO_PAD.encode(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn padding_is_whole_or_absent_and_unused_bits_do_not_matter() {
        for (text, bytes) in [
            ("", Some(&b""[..])),
            ("YQ", Some(b"a")),
            ("YQ==", Some(b"a")),
            ("YR", Some(b"a")),
            ("YWI=", Some(b"ab")),
            ("YWJ", Some(b"ab")),
            ("YWJj", Some(b"abc")),
            ("-_-_", Some(b"\xfb\xff\xbf")),
            ("YQ=", None),
            ("Y===", None),
            ("Y", None),
            ("====", None),
            ("==", None),
            ("YWJj====", None),
            ("YWJjY===", None),
            ("+/+/", None),
            ("YQ ", None),
            ("YQ\n", None),
            ("Y=Q=", None),
            ("é", None),
        ] {
            assert_eq!(decode(text).as_deref(), bytes, "{text}");
        }
    }
}
