//! The client's half of the wire, without sockets: encodes frames and reads what a server sends, byte-exact.
//!
//! Nothing is answered, merged, validated or hidden: the recordings need to see exactly what came.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;
use flate2::{Decompress, FlushDecompress, Status};

use super::case::{Event, header};

/// Every client frame is masked with this key, so that a play is the same bytes each time.
const MASK: [u8; 4] = [0x11, 0x22, 0x33, 0x44];

/// The bits of a frame's first two bytes that a case may spoil.
#[derive(Clone, Copy)]
pub struct FrameBits {
    pub fin: bool,
    pub mask: bool,
    /// The three reserved bits as a number: 4 is RSV1.
    pub rsv: u8,
}

impl Default for FrameBits {
    fn default() -> Self {
        Self { fin: true, mask: true, rsv: 0 }
    }
}

/// Encodes one frame as a client sends it.
///
/// Source: RFC 6455, section 5.2.
pub fn encode_frame(opcode: u8, payload: &[u8], bits: FrameBits) -> Vec<u8> {
    let mut frame = vec![u8::from(bits.fin) << 7 | bits.rsv << 4 | opcode];
    let mask_bit = u8::from(bits.mask) << 7;
    match payload.len() {
        n @ 0..=125 => frame.push(mask_bit | n as u8),
        n @ 126..=0xffff => {
            frame.push(mask_bit | 126);
            frame.extend((n as u16).to_be_bytes());
        }
        n => {
            frame.push(mask_bit | 127);
            frame.extend((n as u64).to_be_bytes());
        }
    }
    if bits.mask {
        frame.extend(MASK);
        frame.extend(payload.iter().zip(MASK.iter().cycle()).map(|(byte, key)| byte ^ key));
    } else {
        frame.extend(payload);
    }
    frame
}

/// Encodes one whole, masked text frame.
pub fn text_frame(text: &str) -> Vec<u8> {
    encode_frame(1, text.as_bytes(), FrameBits::default())
}

/// Reads a server's bytes: an HTTP answer first, frames after a 101.
///
/// ```text
/// Http ──101──▶ Open
///  └─any other answer: stays, the next one may follow
/// ```
#[derive(Default)]
pub struct Reader {
    buffer: Vec<u8>,
    open: bool,
    inflates: bool,
    /// The answer's body has no length: it ends with the connection.
    body_to_the_end: bool,
}

/// One event, and what a client has to echo if it was a close frame.
pub struct Received {
    pub event: Event,
    pub close_payload: Option<Vec<u8>>,
}

impl Reader {
    /// Takes bytes and returns the events that they complete.
    pub fn feed(&mut self, bytes: &[u8]) -> Vec<Received> {
        self.buffer.extend_from_slice(bytes);
        self.drain(false)
    }

    /// Returns the answer whose body ended with the connection, if one was waiting for that.
    pub fn finish(&mut self) -> Vec<Received> {
        if self.body_to_the_end { self.drain(true) } else { Vec::new() }
    }

    fn drain(&mut self, ended: bool) -> Vec<Received> {
        let mut received = Vec::new();
        loop {
            let more = if self.open { self.next_frame(&mut received) } else { self.next_answer(ended, &mut received) };
            if !more {
                return received;
            }
        }
    }

    /// Takes one HTTP answer off the buffer; false when it isn't whole.
    fn next_answer(&mut self, ended: bool, received: &mut Vec<Received>) -> bool {
        let Some(head_bytes) = self.buffer.windows(4).position(|window| window == b"\r\n\r\n") else {
            return false;
        };
        let (status, headers) = parse_head(&self.buffer[..head_bytes]);
        let body_start = head_bytes + 4;

        if status == 101 {
            self.buffer.drain(..body_start);
            self.open = true;
            self.inflates =
                header(&headers, "sec-websocket-extensions").is_some_and(|value| value.contains("permessage-deflate"));
            let event = Event { status: Some(status), headers: Some(headers), ..Event::of_kind("open") };
            received.push(Received { event, close_payload: None });
            return true;
        }

        let body_bytes = header(&headers, "content-length").and_then(|length| length.parse::<usize>().ok());
        let end = match body_bytes {
            Some(n) if self.buffer.len() < body_start + n => return false,
            Some(n) => body_start + n,
            None if !ended => {
                self.body_to_the_end = true;
                return false;
            }
            None => self.buffer.len(),
        };
        let body = String::from_utf8_lossy(&self.buffer[body_start..end]).into_owned();
        self.buffer.drain(..end);
        let event =
            Event { status: Some(status), headers: Some(headers), body: Some(body), ..Event::of_kind("http_response") };
        received.push(Received { event, close_payload: None });
        true
    }

    /// Takes one frame off the buffer; false when it isn't whole.
    fn next_frame(&mut self, received: &mut Vec<Received>) -> bool {
        let [first, second, ..] = self.buffer[..] else {
            return false;
        };
        let (payload_bytes, payload_start): (usize, usize) = match second & 0x7f {
            126 => match self.buffer.get(2..4) {
                Some(length) => (usize::from(u16::from_be_bytes([length[0], length[1]])), 4),
                None => return false,
            },
            127 => match self.buffer.get(2..10) {
                Some(length) => (u64::from_be_bytes(length.try_into().expect("eight bytes")) as usize, 10),
                None => return false,
            },
            n => (usize::from(n), 2),
        };
        if second & 0x80 != 0 {
            let what = Some("masked server frame".to_owned());
            received
                .push(Received { event: Event { what, ..Event::of_kind("protocol_violation") }, close_payload: None });
        }
        let end = payload_start.saturating_add(payload_bytes);
        if self.buffer.len() < end {
            return false;
        }
        let payload = self.buffer[payload_start..end].to_vec();
        self.buffer.drain(..end);
        received.push(self.frame(first, payload));
        true
    }

    fn frame(&self, first: u8, mut payload: Vec<u8>) -> Received {
        let (fin, rsv, opcode) = (first & 0x80 != 0, first >> 4 & 7, first & 15);
        let mut event = Event::of_kind(match opcode {
            0 => "continuation".to_owned(),
            1 => "text".to_owned(),
            2 => "binary".to_owned(),
            8 => "close".to_owned(),
            9 => "ping".to_owned(),
            10 => "pong".to_owned(),
            other => format!("opcode_{other}"),
        });
        event.fin = (!fin).then_some(false);
        event.rsv = (rsv != 0).then_some(rsv);
        if rsv == 4 && self.inflates {
            match inflate(&payload) {
                Some(inflated) => payload = inflated,
                None => event.what = Some("payload does not inflate".to_owned()),
            }
        }
        let mut close_payload = None;
        match opcode {
            1 => {
                let raw = String::from_utf8_lossy(&payload).into_owned();
                event.json_error = serde_json::from_str::<&serde_json::value::RawValue>(&raw).is_err();
                event.raw = Some(raw);
            }
            8 => {
                event.code = payload.first_chunk().map(|code| u16::from_be_bytes(*code));
                event.reason = Some(String::from_utf8_lossy(payload.get(2..).unwrap_or_default()).into_owned());
                close_payload = Some(payload);
            }
            _ => event.base64 = Some(BASE64.encode(&payload)),
        }
        Received { event, close_payload }
    }
}

/// The status and the headers of an HTTP answer's head, without the blank line. The bytes are Latin-1.
fn parse_head(head: &[u8]) -> (u16, Vec<(String, String)>) {
    let head: String = head.iter().copied().map(char::from).collect();
    let mut lines = head.split("\r\n");
    let status = lines.next().and_then(|line| line.split(' ').nth(1)).and_then(|code| code.parse().ok()).unwrap_or(0);
    let headers = lines
        .filter_map(|line| line.split_once(':'))
        .map(|(name, value)| (name.to_owned(), value.trim().to_owned()))
        .collect();
    (status, headers)
}

/// Inflates one message compressed without the context of earlier ones; `None` where it isn't a deflate stream.
///
/// Source: RFC 7692, section 7.2.2.
fn inflate(payload: &[u8]) -> Option<Vec<u8>> {
    let mut input = payload.to_vec();
    input.extend([0, 0, 0xff, 0xff]);
    let mut inflater = Decompress::new(false);
    let mut output = Vec::with_capacity(input.len() * 4);
    loop {
        let (read, written) = (inflater.total_in(), inflater.total_out());
        let status = inflater.decompress_vec(&input[read as usize..], &mut output, FlushDecompress::Sync).ok()?;
        let stuck = inflater.total_in() == read && inflater.total_out() == written;
        if status == Status::StreamEnd
            || (inflater.total_in() as usize == input.len() && output.len() < output.capacity())
        {
            return Some(output);
        }
        if stuck && output.len() < output.capacity() {
            return None;
        }
        output.reserve(input.len() * 4);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const HANDSHAKE: &[u8] = b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\n\r\n";

    fn events(received: Vec<Received>) -> Vec<Event> {
        received.into_iter().map(|received| received.event).collect()
    }

    fn server_frame(opcode: u8, payload: &[u8]) -> Vec<u8> {
        encode_frame(opcode, payload, FrameBits { mask: false, ..FrameBits::default() })
    }

    #[test]
    fn a_stream_reads_the_same_however_it_is_cut() {
        let stream = [
            HANDSHAKE.to_vec(),
            server_frame(1, "[1,\"é\"]".as_bytes()),
            server_frame(2, &[7; 200]),
            server_frame(8, &[3, 0xf4]),
        ]
        .concat();
        let whole = events(Reader::default().feed(&stream));

        for cut in 0..=stream.len() {
            let mut reader = Reader::default();
            let mut parts = events(reader.feed(&stream[..cut]));
            parts.extend(events(reader.feed(&stream[cut..])));
            assert_eq!(parts, whole, "cut at {cut}");
        }
        assert_eq!(
            whole.iter().map(|event| event.kind.as_str()).collect::<Vec<_>>(),
            ["open", "text", "binary", "close"]
        );
        assert_eq!((whole[1].raw.as_deref(), whole[3].code), (Some("[1,\"é\"]"), Some(1012)));
    }

    #[test]
    fn a_masked_server_frame_is_reported() {
        let mut reader = Reader::default();
        reader.feed(HANDSHAKE);

        let seen = events(reader.feed(&text_frame("x")));

        assert_eq!(seen[0].kind, "protocol_violation");
    }

    #[test]
    fn a_compressed_frame_of_a_recording_inflates_to_its_text() {
        // From compress_offered, the first reply.
        let wire = BASE64
            .decode("is4rzcnRUcpIUtJRKsjIT83LrACzKuKLUgtyKpV0qpWKUosL8vOKU5Wsqmt1lIpLEktKi5WslPKzlWpjAQA=")
            .expect("base64");
        let mut reader = Reader::default();
        reader.feed(b"HTTP/1.1 101 x\r\nSec-WebSocket-Extensions: permessage-deflate\r\n\r\n");
        let bits = FrameBits { mask: false, rsv: 4, ..FrameBits::default() };

        let whole = events(reader.feed(&encode_frame(1, &wire, bits)));
        let broken = events(reader.feed(&encode_frame(1, &[0xff; 9], bits)));

        let raw = r#"[null,"hb","phoenix","phx_reply",{"response":{},"status":"ok"}]"#;
        assert_eq!((whole[0].rsv, whole[0].raw.as_deref()), (Some(4), Some(raw)));
        assert_eq!(broken[0].what.as_deref(), Some("payload does not inflate"));
    }

    #[test]
    fn answers_on_one_connection_come_one_by_one_and_the_last_may_end_with_it() {
        let mut reader = Reader::default();

        let first = events(
            reader.feed(b"HTTP/1.1 403 Forbidden\r\nContent-Length: 2\r\n\r\nnoHTTP/1.1 400 Bad\r\nA: b\r\n\r\nrest"),
        );
        let last = events(reader.finish());

        assert_eq!((first.len(), first[0].status, first[0].body.as_deref()), (1, Some(403), Some("no")));
        assert_eq!(
            (last[0].status, last[0].header("a"), last[0].body.as_deref()),
            (Some(400), Some("b"), Some("rest"))
        );
    }
}
