//! What the first bytes of an image say: its format, its width and height.
//!
//! Sources: PNG 3rd edition, 5.2 and 11.2.1; GIF89a, 17 and 18; ITU-T T.81, B.1 and B.2.2; RFC 9649, 2.5 to 2.7.

use schemars::JsonSchema;
use serde::Serialize;

/// A format of images.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
#[schemars(inline)]
pub(super) enum ImageFormat {
    /// Portable Network Graphics.
    Png,
    /// JPEG.
    Jpeg,
    /// Graphics Interchange Format.
    Gif,
    /// WebP.
    Webp,
}

impl ImageFormat {
    /// The subtype of its MIME type.
    pub(super) fn subtype(self) -> &'static str {
        match self {
            ImageFormat::Png => "png",
            ImageFormat::Jpeg => "jpeg",
            ImageFormat::Gif => "gif",
            ImageFormat::Webp => "webp",
        }
    }

    /// The format of bytes that begin so.
    pub(super) fn of(bytes: &[u8]) -> Option<Self> {
        match bytes {
            [0x89, b'P', b'N', b'G', b'\r', b'\n', 0x1a, b'\n', ..] => Some(ImageFormat::Png),
            [0xff, 0xd8, 0xff, ..] => Some(ImageFormat::Jpeg),
            [b'G', b'I', b'F', b'8', b'7' | b'9', b'a', ..] => Some(ImageFormat::Gif),
            [b'R', b'I', b'F', b'F', _, _, _, _, b'W', b'E', b'B', b'P', ..] => Some(ImageFormat::Webp),
            _ => None,
        }
    }

    /// Width and height in pixels, where the bytes reach as far as these.
    pub(super) fn dimensions(self, bytes: &[u8]) -> Option<(u32, u32)> {
        match self {
            ImageFormat::Png if bytes.get(12..16)? == b"IHDR" => Some((big(bytes, 16, 4)?, big(bytes, 20, 4)?)),
            ImageFormat::Png => None,
            ImageFormat::Gif => Some((little(bytes, 6, 2)?, little(bytes, 8, 2)?)),
            ImageFormat::Webp => webp_dimensions(bytes),
            ImageFormat::Jpeg => jpeg_dimensions(bytes),
        }
    }
}

fn big(bytes: &[u8], at: usize, count: usize) -> Option<u32> {
    Some(bytes.get(at..at + count)?.iter().fold(0, |number, byte| number << 8 | u32::from(*byte)))
}

fn little(bytes: &[u8], at: usize, count: usize) -> Option<u32> {
    Some(bytes.get(at..at + count)?.iter().rev().fold(0, |number, byte| number << 8 | u32::from(*byte)))
}

fn webp_dimensions(bytes: &[u8]) -> Option<(u32, u32)> {
    match bytes.get(12..16)? {
        b"VP8X" => Some((little(bytes, 24, 3)? + 1, little(bytes, 27, 3)? + 1)),
        b"VP8L" if bytes.get(20) == Some(&0x2f) => {
            let packed = little(bytes, 21, 4)?;
            Some(((packed & 0x3fff) + 1, (packed >> 14 & 0x3fff) + 1))
        }
        b"VP8 " if bytes.get(23..26)? == [0x9d, 0x01, 0x2a] => {
            Some((little(bytes, 26, 2)? & 0x3fff, little(bytes, 28, 2)? & 0x3fff))
        }
        _ => None,
    }
}

/// Walks the segments up to the frame's header.
fn jpeg_dimensions(bytes: &[u8]) -> Option<(u32, u32)> {
    let mut at = 2;
    loop {
        if *bytes.get(at)? != 0xff {
            return None;
        }
        let marker = *bytes.get(at + 1)?;
        match marker {
            // Padding before a marker.
            0xff => at += 1,
            // Markers without a segment.
            0x01 | 0xd0..=0xd8 => at += 2,
            // A frame's header: those between that are none are tables and arithmetic conditioning.
            0xc0..=0xcf if !matches!(marker, 0xc4 | 0xc8 | 0xcc) => {
                return Some((big(bytes, at + 7, 2)?, big(bytes, at + 5, 2)?));
            }
            // The image's end, or its data: there was no header.
            0xd9 | 0xda => return None,
            _ => at += 2 + usize::try_from(big(bytes, at + 2, 2)?).ok()?,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The format, width and height of what begins so.
    fn said(bytes: &[u8]) -> Option<(&'static str, Option<(u32, u32)>)> {
        ImageFormat::of(bytes).map(|format| (format.subtype(), format.dimensions(bytes)))
    }

    const PNG: &[u8] = b"\x89PNG\r\n\x1a\n\0\0\0\x0dIHDR\0\0\x01\x02\0\0\x03\x04\x08\x06\0\0\0";
    const GIF: &[u8] = b"GIF89a\x0a\x01\x14\0\x80\0\0";
    const JPEG: &[u8] =
        b"\xff\xd8\xff\xe0\0\x10JFIF\0\x01\x01\0\0\x01\0\x01\0\0\xff\xff\xdb\0\x03\0\xff\xc2\0\x11\x08\x01\0\x02\0\x03";
    const VP8X: &[u8] = b"RIFF\0\0\0\0WEBPVP8X\x0a\0\0\0\0\0\0\0\xff\x01\0\x0f\0\0";
    const VP8L: &[u8] = b"RIFF\0\0\0\0WEBPVP8L\x0a\0\0\0\x2f\x63\xc0\x18\0";
    const VP8: &[u8] = b"RIFF\0\0\0\0WEBPVP8 \x0a\0\0\0\0\0\0\x9d\x01\x2a\x40\x01\xf0\0";

    #[test]
    fn each_format_is_known_with_its_size() {
        assert_eq!(said(PNG), Some(("png", Some((258, 772)))));
        assert_eq!(said(GIF), Some(("gif", Some((266, 20)))));
        assert_eq!(said(JPEG), Some(("jpeg", Some((512, 256)))));
        assert_eq!(said(VP8X), Some(("webp", Some((512, 16)))));
        assert_eq!(said(VP8L), Some(("webp", Some((100, 100)))));
        assert_eq!(said(VP8), Some(("webp", Some((320, 240)))));
        assert_eq!(said(b"%PDF-1.7"), None);
        assert_eq!(said(b""), None);
    }

    #[test]
    fn images_that_break_off_have_no_size() {
        for whole in [PNG, GIF, JPEG, VP8X, VP8L, VP8] {
            for length in 0..whole.len() {
                if let Some((format, size)) = said(&whole[..length]) {
                    assert!(size.is_none() || size == said(whole).expect("known").1, "{format} of {length} bytes");
                }
            }
        }
        assert_eq!(said(b"\xff\xd8\xff\xd9").expect("JPEG").1, None);
        assert_eq!(said(b"\xff\xd8\xff\xe0\0\0\0\0").expect("JPEG").1, None);
    }
}
