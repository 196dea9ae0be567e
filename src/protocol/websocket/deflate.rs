//! permessage-deflate: the negotiation, the inflater of client messages and the deflater of server messages.
//!
//! Server messages are always compressed each for itself ("no context takeover" on our side, which RFC 7692 allows whatever
//! was negotiated), so one [`Compressor`] serves any number of connections and a broadcast is compressed once for all.
//! Between messages a connection keeps no zlib state either, only the bytes its client may still refer to.
//!
//! Source: RFC 7692 section 7; the answers are those of the recorded cases `compress_offers` and `compress_offered`.

use std::ops::RangeInclusive;

use flate2::{Compress, Compression, Decompress, FlushCompress, FlushDecompress, Status};

use super::close::ProtocolError;
use super::frame::{FIN, RSV1, begin_frame, end_frame_as, write_frame};
use super::{Limits, Opcode};

/// Window sizes RFC 7692 knows, as the base-2 logarithm of bytes.
const WINDOW_BITS: RangeInclusive<u8> = 8..=15;
/// The window where none was negotiated.
const WINDOW_BITS_DEFAULT: u8 = 15;
/// The smallest window zlib can use for raw deflate.
const ZLIB_WINDOW_BITS_MIN: u8 = 9;

/// What a sync flush ends with: left out of each message by its sender, put back by its receiver.
const TAIL: [u8; 4] = [0, 0, 0xff, 0xff];

/// What client and server agreed on.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Negotiated {
    server_no_context_takeover: bool,
    client_no_context_takeover: bool,
    server_max_window_bits: Option<u8>,
    client_max_window_bits: Option<u8>,
}

impl Negotiated {
    /// The window the server's messages may use, 8 to 15: what [`Compressor::new`] takes.
    pub fn server_window_bits(&self) -> u8 {
        self.server_max_window_bits.unwrap_or(WINDOW_BITS_DEFAULT)
    }

    /// The bytes a client message may refer back to across messages.
    fn client_window_bytes(&self) -> usize {
        if self.client_no_context_takeover {
            return 0;
        }
        // A client whose zlib can't do 8 uses 9 where 8 was agreed on.
        1 << self.client_max_window_bits.unwrap_or(WINDOW_BITS_DEFAULT).max(ZLIB_WINDOW_BITS_MIN)
    }
}

/// Picks the first acceptable permessage-deflate offer. `None`: the connection goes without compression.
///
/// `offers` is the value of `Sec-WebSocket-Extensions`, several headers joined by commas. Returned with the agreement is the
/// value of that header in the answer: no blanks, the parameters in Bandit's order. An offer with an unknown, repeated or
/// invalid parameter is passed over; `client_max_window_bits` without a value is answered with 15.
///
/// `server_max_window_bits=8` is accepted (RFC 7692 section 7.1.2.1 lets the server keep to any smaller use of the window):
/// zlib can't compress for it, so [`Compressor`] sends such a connection uncompressed messages, which section 6 allows.
pub fn negotiate(offers: &str) -> Option<(Negotiated, String)> {
    let negotiated = offers.split(',').find_map(parse_offer)?;
    Some((negotiated, answer(&negotiated)))
}

fn parse_offer(offer: &str) -> Option<Negotiated> {
    let mut parts = offer.split(';').map(str::trim);
    if parts.next() != Some("permessage-deflate") {
        return None;
    }
    let mut agreed = Negotiated {
        server_no_context_takeover: false,
        client_no_context_takeover: false,
        server_max_window_bits: None,
        client_max_window_bits: None,
    };
    for parameter in parts {
        let (name, value) = match parameter.split_once('=') {
            Some((name, value)) => (name.trim_end(), Some(value.trim_start())),
            None => (parameter, None),
        };
        let repeated = match (name, value) {
            ("server_no_context_takeover", None) => std::mem::replace(&mut agreed.server_no_context_takeover, true),
            ("client_no_context_takeover", None) => std::mem::replace(&mut agreed.client_no_context_takeover, true),
            ("server_max_window_bits", Some(bits)) => {
                agreed.server_max_window_bits.replace(window_bits(bits)?).is_some()
            }
            ("client_max_window_bits", Some(bits)) => {
                agreed.client_max_window_bits.replace(window_bits(bits)?).is_some()
            }
            ("client_max_window_bits", None) => agreed.client_max_window_bits.replace(WINDOW_BITS_DEFAULT).is_some(),
            _ => return None,
        };
        if repeated {
            return None;
        }
    }
    Some(agreed)
}

/// RFC 7692 section 7.1.2: a decimal integer without leading zeroes.
fn window_bits(value: &str) -> Option<u8> {
    WINDOW_BITS.into_iter().find(|bits| bits.to_string() == value)
}

fn answer(agreed: &Negotiated) -> String {
    let mut answer = "permessage-deflate".to_owned();
    if agreed.server_no_context_takeover {
        answer.push_str(";server_no_context_takeover");
    }
    if agreed.client_no_context_takeover {
        answer.push_str(";client_no_context_takeover");
    }
    if let Some(bits) = agreed.server_max_window_bits {
        answer.push_str(&format!(";server_max_window_bits={bits}"));
    }
    if let Some(bits) = agreed.client_max_window_bits {
        answer.push_str(&format!(";client_max_window_bits={bits}"));
    }
    answer
}

/// Inflates one client's messages.
///
/// Each message gets a fresh zlib state primed with the end of the messages before it, rather than keeping the 40 KiB of a
/// live state between messages.
pub(super) struct Inflater {
    /// The end of the messages so far, at most `window_bytes`.
    history: Vec<u8>,
    /// 0 if the client compresses each message for itself.
    window_bytes: usize,
}

impl Inflater {
    pub(super) fn new(negotiated: &Negotiated) -> Self {
        Self { history: Vec::new(), window_bytes: negotiated.client_window_bytes() }
    }

    /// Bytes set aside for what the client may refer back to.
    pub(super) fn held_bytes(&self) -> usize {
        self.history.capacity()
    }

    /// Inflates the payload of a whole message.
    ///
    /// # Errors
    /// Data that isn't deflate, and a message over `limits`, of which no more than the limit is inflated.
    pub(super) fn inflate(&mut self, payload: &[u8], limits: &Limits) -> Result<Vec<u8>, ProtocolError> {
        let limit = limits.message_bytes_max;
        let mut zlib = Decompress::new(false);
        if !self.history.is_empty() {
            zlib.set_dictionary(&self.history).map_err(|_| ProtocolError::InvalidDeflate)?;
        }
        let mut message = Vec::new();
        let (status, rest) = inflate_into(&mut zlib, payload, &mut message, limit)?;
        match (status, rest) {
            // Section 7.2.3.4: a message may end in a final block and one byte that begins the tail's block.
            (Status::StreamEnd, [] | [0]) => {}
            (Status::StreamEnd, _) => return Err(ProtocolError::InvalidDeflate),
            _ => {
                inflate_into(&mut zlib, &TAIL, &mut message, limit)?;
            }
        }
        self.remember(&message);
        Ok(message)
    }

    fn remember(&mut self, message: &[u8]) {
        let window = self.window_bytes;
        let message = &message[message.len().saturating_sub(window)..];
        let kept = self.history.len().min(window - message.len());
        self.history.drain(..self.history.len() - kept);
        let wanted = kept + message.len();
        if wanted > self.history.capacity() {
            let roomy = wanted.max(2 * self.history.capacity()).min(window);
            self.history.reserve_exact(roomy - kept);
        }
        self.history.extend_from_slice(message);
    }
}

/// Inflates `input` behind `output`. What is left of `input` is not empty only where a final block ended before its end.
fn inflate_into<'a>(
    zlib: &mut Decompress,
    mut input: &'a [u8],
    output: &mut Vec<u8>,
    limit: usize,
) -> Result<(Status, &'a [u8]), ProtocolError> {
    /// First guess at the size of a message, in bytes: most channel messages fit.
    const OUTPUT_BYTES_MIN: usize = 512;

    loop {
        if output.len() == output.capacity() {
            // One byte over the limit, so that a message of exactly the limit leaves room.
            let roomy = output.len().saturating_mul(2).max(OUTPUT_BYTES_MIN).min(limit.saturating_add(1));
            output.reserve_exact(roomy.saturating_sub(output.len()).max(1));
        }
        let before = zlib.total_in();
        let status =
            zlib.decompress_vec(input, output, FlushDecompress::Sync).map_err(|_| ProtocolError::InvalidDeflate)?;
        input = &input[(zlib.total_in() - before) as usize..];
        if output.len() > limit {
            return Err(ProtocolError::MessageTooBig { limit });
        }
        if status == Status::StreamEnd || (input.is_empty() && output.len() < output.capacity()) {
            return Ok((status, input));
        }
    }
}

/// Compresses server messages, each for itself.
///
/// Keeps nothing of a message, so one instance can serve all connections with the same window. It holds about 270 KiB.
pub struct Compressor {
    /// `None` for a window of 8 bits, which zlib can't do.
    zlib: Option<Compress>,
}

impl Compressor {
    /// For connections with [`Negotiated::server_window_bits`] of `window_bits`, 8 to 15.
    ///
    /// `level` is zlib's, 0 (none) to 9 (smallest); what is above counts as 9.
    ///
    /// # Panics
    /// If `window_bits` isn't within 8 to 15.
    pub fn new(window_bits: u8, level: u32) -> Self {
        assert!(WINDOW_BITS.contains(&window_bits), "window_bits is {window_bits}, expected 8 to 15");
        let level = Compression::new(level.min(9));
        Self {
            zlib: (window_bits >= ZLIB_WINDOW_BITS_MIN)
                .then(|| Compress::new_with_window_bits(level, false, window_bits)),
        }
    }

    /// Appends one message as one compressed frame (as a plain frame where the window is 8 bits).
    pub fn compress_frame(&mut self, out: &mut Vec<u8>, opcode: Opcode, payload: &[u8]) {
        /// Least room zlib gets at a time; a sync flush needs a handful of bytes to end in.
        const OUTPUT_BYTES_MIN: usize = 64;

        let Some(zlib) = &mut self.zlib else {
            return write_frame(out, opcode, payload);
        };
        zlib.reset();
        let start = begin_frame(out);
        let mut rest = payload;
        out.reserve(payload.len() / 2 + OUTPUT_BYTES_MIN);
        loop {
            let before = zlib.total_in();
            zlib.compress_vec(rest, out, FlushCompress::Sync).expect("deflating into memory can't fail");
            rest = &rest[(zlib.total_in() - before) as usize..];
            if rest.is_empty() && out.len() < out.capacity() {
                break;
            }
            out.reserve(rest.len() / 2 + OUTPUT_BYTES_MIN);
        }
        debug_assert!(out.ends_with(&TAIL));
        out.truncate(out.len() - TAIL.len());
        end_frame_as(out, start, FIN | RSV1 | opcode.byte());
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(offers: &str, expected: Option<&str>) {
        assert_eq!(negotiate(offers).map(|(_, answer)| answer).as_deref(), expected, "{offers:?}");
    }

    #[test]
    fn offers_are_answered_as_recorded() {
        check("permessage-deflate", Some("permessage-deflate"));
        check("permessage-deflate; client_max_window_bits", Some("permessage-deflate;client_max_window_bits=15"));
        check("permessage-deflate; server_max_window_bits=10", Some("permessage-deflate;server_max_window_bits=10"));
        check("x-webkit-deflate-frame", None);
        check("permessage-deflate; foo", None);
        check(
            "permessage-deflate; client_max_window_bits=9; server_no_context_takeover",
            Some("permessage-deflate;server_no_context_takeover;client_max_window_bits=9"),
        );
        check(
            "permessage-deflate; server_no_context_takeover; client_no_context_takeover",
            Some("permessage-deflate;server_no_context_takeover;client_no_context_takeover"),
        );
    }

    #[test]
    fn the_first_acceptable_offer_wins() {
        check(
            "permessage-deflate; foo, x-other; a=1 , permessage-deflate;server_max_window_bits = 8, permessage-deflate",
            Some("permessage-deflate;server_max_window_bits=8"),
        );
    }

    #[test]
    fn invalid_parameters_refuse_an_offer() {
        for parameters in [
            "server_no_context_takeover; server_no_context_takeover",
            "client_no_context_takeover; client_no_context_takeover",
            "server_max_window_bits=10; server_max_window_bits=10",
            "client_max_window_bits; client_max_window_bits=10",
            "server_max_window_bits",
            "server_max_window_bits=",
            "server_max_window_bits=7",
            "server_max_window_bits=16",
            "server_max_window_bits=010",
            "server_max_window_bits=+10",
            "client_max_window_bits=10x",
            "client_max_window_bits=10=10",
            "server_no_context_takeover=1",
            "client_no_context_takeover=",
            "Server_No_Context_Takeover",
            "",
        ] {
            check(&format!("permessage-deflate; {parameters}"), None);
        }
        check("", None);
        check(", ;", None);
    }

    #[test]
    fn a_compressor_keeps_to_its_window() {
        // 1 000 bytes without repetition, twice: only a window over 1 000 bytes sees the second copy.
        let mut state = 1u64;
        let once: Vec<u8> = std::iter::repeat_with(|| {
            state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
            (state >> 56) as u8
        })
        .take(1_000)
        .collect();
        let payload = [once.as_slice(), &once].concat();
        let size = |window_bits| {
            let mut out = Vec::new();
            Compressor::new(window_bits, 6).compress_frame(&mut out, Opcode::Binary, &payload);
            out.len()
        };

        assert!(size(15) < 1_100, "{}", size(15));
        assert!(size(9) > 1_900, "{}", size(9));
    }

    #[test]
    fn a_window_of_8_bits_gets_plain_frames() {
        let mut compressed = Vec::new();
        Compressor::new(8, 6).compress_frame(&mut compressed, Opcode::Text, b"aaaaaaaaaaaaaaaa");
        let mut plain = Vec::new();
        write_frame(&mut plain, Opcode::Text, b"aaaaaaaaaaaaaaaa");

        assert_eq!(compressed, plain);
    }

    #[test]
    fn an_empty_message_is_one_byte() {
        // RFC 7692 section 7.2.3.6.
        let mut out = Vec::new();
        Compressor::new(15, 6).compress_frame(&mut out, Opcode::Text, b"");

        assert_eq!(out, [0xc1, 1, 0]);
    }

    #[test]
    fn the_history_never_exceeds_the_window() {
        let (negotiated, _) = negotiate("permessage-deflate; client_max_window_bits=9").expect("acceptable");
        let mut inflater = Inflater::new(&negotiated);
        for (bytes, kept) in [(1, 1), (300, 301), (300, 512), (2_000, 512), (0, 512), (512, 512)] {
            inflater.remember(&vec![7; bytes]);
            assert_eq!(inflater.history.len(), kept);
            assert!(inflater.history.capacity() <= 512);
        }

        let (negotiated, _) = negotiate("permessage-deflate; client_no_context_takeover").expect("acceptable");
        let mut inflater = Inflater::new(&negotiated);
        inflater.remember(b"anything");
        assert_eq!(inflater.history.capacity(), 0);
    }
}
