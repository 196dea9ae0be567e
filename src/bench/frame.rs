//! WebSocket frames as a client sends them and as a server answers, written apart from the server's own codec so that a fault in
//! one can't hide a fault in the other.
//!
//! Does not reassemble fragments and knows no extension: a load tool never offers one, so a fragment or a reserved bit is an error.

/// The mask of every frame this client sends: the one of RFC 6455 section 5.7.
///
/// A fixed mask lets a message be masked once and then only be patched where its numbers change. It isn't zero, so that the server
/// does the work that a browser's frames make.
pub const MASK: [u8; 4] = [0x37, 0xfa, 0x21, 0x3d];

/// Payload bytes above which a server's frame is refused, so that a wrong length can't make the client wait for ever.
pub const PAYLOAD_BYTES_MAX: u64 = 64 << 20;

/// Digits of a number in a [`Template`].
pub const NUMBER_DIGITS: usize = 10;

/// The text that a [`Template`] replaces by a number.
pub const NUMBER_PLACEHOLDER: &str = "##########";

/// The smallest number that has [`NUMBER_DIGITS`] digits: numbers are counted from here, so that all frames have one length.
pub const NUMBER_FIRST: u64 = 1_000_000_000;

/// What a frame carries, RFC 6455 section 5.2.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Opcode {
    /// UTF-8 text: a Phoenix message.
    Text,
    /// Bytes: a Phoenix binary message.
    Binary,
    /// The peer closes, with a code and a reason.
    Close,
    /// The peer asks for a pong.
    Ping,
    /// The answer to a ping.
    Pong,
}

impl Opcode {
    fn bits(self) -> u8 {
        match self {
            Self::Text => 1,
            Self::Binary => 2,
            Self::Close => 8,
            Self::Ping => 9,
            Self::Pong => 10,
        }
    }
}

/// A whole frame of a server, its payload in place.
#[derive(Debug, PartialEq, Eq)]
pub struct ServerFrame<'a> {
    /// What the payload is.
    pub opcode: Opcode,
    /// The bytes after the header.
    pub payload: &'a [u8],
}

/// Why a server's bytes are no frame that this client takes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum FrameError {
    /// One of the three reserved bits is set although no extension was offered.
    #[error("frame starts with {0:#04x}: reserved bits are set, but no extension was offered")]
    Reserved(u8),
    /// A server may not mask.
    #[error("frame is masked, a server's frames may not be")]
    Masked,
    /// A fragment of a message.
    #[error("frame starts with {0:#04x}: expected a whole message, came a fragment")]
    Fragment(u8),
    /// An opcode that RFC 6455 does not name.
    #[error("opcode is {0}, expected 1, 2, 8, 9 or 10")]
    Opcode(u8),
    /// A length no reply of this tool can have.
    #[error("frame announces {0} bytes, the limit is {PAYLOAD_BYTES_MAX}")]
    TooLong(u64),
}

/// Returns the first frame in `bytes` and how many bytes it takes, or `None` while it isn't whole.
///
/// # Errors
/// [`FrameError`] as soon as the bytes at hand show it.
pub fn next_frame(bytes: &[u8]) -> Result<Option<(ServerFrame<'_>, usize)>, FrameError> {
    let [first, second, rest @ ..] = bytes else {
        return Ok(None);
    };
    if first & 0x70 != 0 {
        return Err(FrameError::Reserved(*first));
    }
    let opcode = match first & 0x0f {
        1 => Opcode::Text,
        2 => Opcode::Binary,
        8 => Opcode::Close,
        9 => Opcode::Ping,
        10 => Opcode::Pong,
        0 => return Err(FrameError::Fragment(*first)),
        other => return Err(FrameError::Opcode(other)),
    };
    if first & 0x80 == 0 {
        return Err(FrameError::Fragment(*first));
    }
    if second & 0x80 != 0 {
        return Err(FrameError::Masked);
    }
    let (payload_bytes, header_bytes) = match second & 0x7f {
        126 => match rest.first_chunk::<2>() {
            Some(length) => (u64::from(u16::from_be_bytes(*length)), 4),
            None => return Ok(None),
        },
        127 => match rest.first_chunk::<8>() {
            Some(length) => (u64::from_be_bytes(*length), 10),
            None => return Ok(None),
        },
        short => (u64::from(short), 2),
    };
    if payload_bytes > PAYLOAD_BYTES_MAX {
        return Err(FrameError::TooLong(payload_bytes));
    }
    let end = header_bytes + payload_bytes as usize;
    Ok(bytes.get(header_bytes..end).map(|payload| (ServerFrame { opcode, payload }, end)))
}

/// Appends a masked client frame to `out`.
pub fn write_frame(out: &mut Vec<u8>, opcode: Opcode, payload: &[u8]) {
    out.push(0x80 | opcode.bits());
    match payload.len() {
        short @ 0..=125 => out.push(0x80 | short as u8),
        middle @ 126..=0xffff => {
            out.push(0x80 | 126);
            out.extend_from_slice(&(middle as u16).to_be_bytes());
        }
        long => {
            out.push(0x80 | 127);
            out.extend_from_slice(&(long as u64).to_be_bytes());
        }
    }
    out.extend_from_slice(&MASK);
    out.extend(payload.iter().zip(MASK.iter().cycle()).map(|(byte, mask)| byte ^ mask));
}

/// A text frame masked beforehand, in which only a number changes from message to message.
///
/// Sending is a copy and ten XORs a number, so that the client's core isn't what the run measures.
#[derive(Clone, Debug)]
pub struct Template {
    frame: Vec<u8>,
    /// Where a number starts in `frame`, and which byte of the mask meets its first digit.
    numbers: Vec<(usize, usize)>,
}

impl Template {
    /// Makes a template of `text`, in which each [`NUMBER_PLACEHOLDER`] stands for the message's number.
    pub fn new(text: &str) -> Self {
        let mut frame = Vec::new();
        write_frame(&mut frame, Opcode::Text, text.as_bytes());
        let header_bytes = frame.len() - text.len();
        let numbers = text.match_indices(NUMBER_PLACEHOLDER).map(|(at, _)| (header_bytes + at, at % 4)).collect();
        Self { frame, numbers }
    }

    /// Bytes of the frame, header included: the same for every number.
    pub fn frame_bytes(&self) -> usize {
        self.frame.len()
    }

    /// Appends the frame with `number`, counted from 0: the digits sent are those of [`NUMBER_FIRST`]` + number`.
    pub fn write(&self, out: &mut Vec<u8>, number: u64) {
        let start = out.len();
        out.extend_from_slice(&self.frame);
        let digits = digits(number);
        for &(at, mask_at) in &self.numbers {
            let place = &mut out[start + at..start + at + NUMBER_DIGITS];
            for (index, (byte, digit)) in place.iter_mut().zip(digits).enumerate() {
                *byte = digit ^ MASK[(mask_at + index) % 4];
            }
        }
    }
}

/// The digits of [`NUMBER_FIRST`]` + number`.
pub fn digits(number: u64) -> [u8; NUMBER_DIGITS] {
    let mut rest = NUMBER_FIRST + number;
    let mut digits = [b'0'; NUMBER_DIGITS];
    for digit in digits.iter_mut().rev() {
        *digit = b'0' + (rest % 10) as u8;
        rest /= 10;
    }
    digits
}

/// Reads back what [`Template::write`] sent: `None` unless `text` is ten digits that start at [`NUMBER_FIRST`] or above.
pub fn parse_number(text: &[u8]) -> Option<u64> {
    if text.len() != NUMBER_DIGITS {
        return None;
    }
    text.iter()
        .try_fold(0_u64, |sum, byte| byte.is_ascii_digit().then(|| sum * 10 + u64::from(byte - b'0')))?
        .checked_sub(NUMBER_FIRST)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn unmask(frame: &[u8]) -> Vec<u8> {
        let header_bytes = match frame[1] & 0x7f {
            126 => 4,
            127 => 10,
            _ => 2,
        };
        assert_eq!(frame[1] & 0x80, 0x80, "a client's frame has the mask bit set");
        let mask: [u8; 4] = frame[header_bytes..header_bytes + 4].try_into().unwrap();
        frame[header_bytes + 4..].iter().enumerate().map(|(index, byte)| byte ^ mask[index % 4]).collect()
    }

    fn server_frame(payload: &[u8]) -> Vec<u8> {
        let mut frame = vec![0x81];
        match payload.len() {
            short @ 0..=125 => frame.push(short as u8),
            middle @ 126..=0xffff => {
                frame.push(126);
                frame.extend_from_slice(&(middle as u16).to_be_bytes());
            }
            long => {
                frame.push(127);
                frame.extend_from_slice(&(long as u64).to_be_bytes());
            }
        }
        frame.extend_from_slice(payload);
        frame
    }

    #[test]
    fn the_masked_hello_of_the_rfc_is_written_byte_for_byte() {
        let mut out = Vec::new();

        write_frame(&mut out, Opcode::Text, b"Hello");

        // RFC 6455 section 5.7, "A single-frame masked text message".
        let expected = [0x81, 0x85, 0x37, 0xfa, 0x21, 0x3d, 0x7f, 0x9f, 0x4d, 0x51, 0x58];
        assert_eq!(out, expected);
    }

    #[test]
    fn frames_of_every_length_form_are_written_and_scanned() {
        for size in [0, 1, 125, 126, 127, 65_535, 65_536, 100_000] {
            let payload: Vec<u8> = (0..size).map(|index| (index % 251) as u8).collect();
            let mut out = Vec::new();
            write_frame(&mut out, Opcode::Binary, &payload);
            assert_eq!(unmask(&out), payload, "{size} bytes from the client");

            let mut bytes = server_frame(&payload);
            let whole = bytes.len();
            bytes.extend_from_slice(b"\x81");
            let (frame, taken) = next_frame(&bytes).expect("a valid frame").expect("a whole frame");
            assert_eq!((frame.opcode, taken), (Opcode::Text, whole));
            assert_eq!(frame.payload, payload, "{size} bytes from the server");
        }
    }

    #[test]
    fn a_frame_cut_anywhere_is_not_whole_yet() {
        for size in [3, 200, 70_000] {
            let bytes = server_frame(&vec![b'x'; size]);
            for cut in (0..16).chain([bytes.len() - 1]) {
                let cut = cut.min(bytes.len() - 1);
                assert_eq!(next_frame(&bytes[..cut]), Ok(None), "{size} cut at {cut}");
            }
        }
    }

    #[test]
    fn what_a_server_may_not_send_is_named() {
        assert_eq!(next_frame(&[0xc1, 0]), Err(FrameError::Reserved(0xc1)));
        assert_eq!(next_frame(&[0x81, 0x80, 1, 2, 3, 4]), Err(FrameError::Masked));
        assert_eq!(next_frame(&[0x01, 0]), Err(FrameError::Fragment(0x01)));
        assert_eq!(next_frame(&[0x80, 0]), Err(FrameError::Fragment(0x80)));
        assert_eq!(next_frame(&[0x83, 0]), Err(FrameError::Opcode(3)));
        let long = [0x82, 127, 0, 0, 1, 0, 0, 0, 0, 0];
        assert_eq!(next_frame(&long), Err(FrameError::TooLong(1 << 40)));
    }

    #[test]
    fn a_template_puts_its_number_in_every_place_at_every_mask_offset() {
        for pad in 0..4 {
            let pad = "x".repeat(pad);
            let template = Template::new(&format!("{pad}[##########,{pad}\"##########\"]"));
            let mut out = b"before".to_vec();

            template.write(&mut out, 234_567_890);

            let expected = format!("{pad}[1234567890,{pad}\"1234567890\"]");
            assert_eq!(unmask(&out[6..]), expected.as_bytes());
            assert_eq!(out.len() - 6, template.frame_bytes());
        }
    }

    #[test]
    fn only_the_numbers_a_template_writes_are_read_back() {
        assert_eq!(parse_number(b"1000000000"), Some(0));
        assert_eq!(parse_number(b"9999999999"), Some(8_999_999_999));
        for wrong in ["", "0000000001", "100000000", "10000000000", "10000o0000"] {
            assert_eq!(parse_number(wrong.as_bytes()), None, "{wrong:?}");
        }
    }
}
