//! HTTP/1.1 as far as a load of POST requests needs it: a request in which only a number changes, and a scan of whole responses.
//!
//! Written apart from the server's HTTP library, for the reason given in [`super::frame`]. Keep-alive only: a response that ends
//! with its connection is an error, and so is one that a request of this tool can't have.

use std::borrow::Cow;

use super::frame::{NUMBER_PLACEHOLDER, PAYLOAD_BYTES_MAX, digits};

/// Bytes of a response's head beyond which it is none that a server gives.
const HEAD_BYTES_MAX: usize = 16 * 1024;

/// Characters of a chunk's size: what [`PAYLOAD_BYTES_MAX`] needs at most, with room for leading zeros and an extension.
const CHUNK_LINE_BYTES_MAX: usize = 128;

/// A whole response.
#[derive(Debug, PartialEq, Eq)]
pub struct Response<'a> {
    /// The status.
    pub status: u16,
    /// The media type without its parameters; empty if the response names none.
    pub content_type: &'a str,
    /// The value of `Mcp-Session-Id`.
    pub session_id: Option<&'a str>,
    /// The body, its chunks put together.
    pub body: Cow<'a, [u8]>,
}

/// Why bytes are no response that this client takes.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum HttpError {
    /// A head without its end.
    #[error("expected a response's head, came {0} bytes without its end")]
    LongHead(usize),
    /// The first line is none of HTTP/1.1.
    #[error("expected a status line of HTTP/1.1, came {0:?}")]
    StatusLine(String),
    /// The length of a body or a chunk is no number.
    #[error("expected a length, came {0:?}")]
    Length(String),
    /// A length no answer to this tool can have.
    #[error("response announces {0} bytes, the limit is {PAYLOAD_BYTES_MAX}")]
    TooLong(u64),
    /// Neither a length nor chunks.
    #[error("expected a response with content-length or chunks, since the connection is kept, came status {0} without")]
    Endless(u16),
    /// No line end behind a chunk.
    #[error("expected a line end behind a chunk")]
    ChunkEnd,
}

/// Returns the first response in `bytes` and how many bytes it takes, or `None` while it isn't whole.
///
/// # Errors
/// [`HttpError`] as soon as the bytes at hand show it.
pub fn next_response(bytes: &[u8]) -> Result<Option<(Response<'_>, usize)>, HttpError> {
    let Some(head_bytes) = bytes.windows(4).position(|four| four == b"\r\n\r\n") else {
        return if bytes.len() > HEAD_BYTES_MAX { Err(HttpError::LongHead(bytes.len())) } else { Ok(None) };
    };
    let (head, rest) = (&bytes[..head_bytes], &bytes[head_bytes + 4..]);
    let head = std::str::from_utf8(head).map_err(|_| status_line_error(head))?;
    let mut lines = head.split("\r\n");
    let status = lines.next().and_then(parse_status).ok_or_else(|| status_line_error(head.as_bytes()))?;

    let (mut content_type, mut session_id, mut length, mut is_chunked) = ("", None, None, false);
    for (name, value) in lines.filter_map(|line| line.split_once(':')) {
        let value = value.trim_ascii();
        if name.eq_ignore_ascii_case("content-type") {
            content_type = value.split(';').next().unwrap_or_default().trim_ascii();
        } else if name.eq_ignore_ascii_case("content-length") {
            length = Some(bounded(value.parse().map_err(|_| HttpError::Length(value.to_owned()))?)?);
        } else if name.eq_ignore_ascii_case("transfer-encoding") {
            is_chunked = value.eq_ignore_ascii_case("chunked");
        } else if name.eq_ignore_ascii_case("mcp-session-id") {
            session_id = Some(value);
        }
    }
    let body = match length {
        _ if is_chunked => unchunked(rest)?.map(|(body, taken)| (Cow::Owned(body), taken)),
        Some(length) => rest.get(..length).map(|body| (Cow::Borrowed(body), length)),
        None if status == 204 => Some((Cow::Borrowed(&[][..]), 0)),
        None => return Err(HttpError::Endless(status)),
    };
    Ok(body.map(|(body, taken)| (Response { status, content_type, session_id, body }, head_bytes + 4 + taken)))
}

fn status_line_error(head: &[u8]) -> HttpError {
    let line = head.split(|byte| *byte == b'\r').next().unwrap_or_default();
    HttpError::StatusLine(String::from_utf8_lossy(line).into_owned())
}

fn parse_status(line: &str) -> Option<u16> {
    let status = line.strip_prefix("HTTP/1.1 ")?.get(..3)?;
    status.bytes().all(|byte| byte.is_ascii_digit()).then(|| status.parse().ok())?
}

fn bounded(bytes: u64) -> Result<usize, HttpError> {
    if bytes > PAYLOAD_BYTES_MAX { Err(HttpError::TooLong(bytes)) } else { Ok(bytes as usize) }
}

/// Puts the chunks together, RFC 9112 section 7.1; `None` while the last one or the trailers' end is missing.
fn unchunked(bytes: &[u8]) -> Result<Option<(Vec<u8>, usize)>, HttpError> {
    let mut body = Vec::new();
    let mut rest = bytes;
    while let Some((line, behind)) = split_line(rest) {
        let size = line.split(|byte| *byte == b';').next().unwrap_or_default().trim_ascii();
        let size = std::str::from_utf8(size).ok().and_then(|size| u64::from_str_radix(size, 16).ok());
        let size = size.ok_or_else(|| HttpError::Length(String::from_utf8_lossy(line).into_owned()))?;
        let size = bounded(size.saturating_add(body.len() as u64))? - body.len();
        if size == 0 {
            // Trailers, which say nothing here, up to an empty line.
            rest = behind;
            while let Some((line, behind)) = split_line(rest) {
                rest = behind;
                if line.is_empty() {
                    return Ok(Some((body, bytes.len() - rest.len())));
                }
            }
            return Ok(None);
        }
        let Some((chunk, end)) = behind.split_at_checked(size) else {
            return Ok(None);
        };
        body.extend_from_slice(chunk);
        rest = match end {
            [b'\r', b'\n', rest @ ..] => rest,
            [] | [b'\r'] => return Ok(None),
            _ => return Err(HttpError::ChunkEnd),
        };
    }
    if rest.len() > CHUNK_LINE_BYTES_MAX {
        let start = &rest[..CHUNK_LINE_BYTES_MAX];
        return Err(HttpError::Length(String::from_utf8_lossy(start).into_owned()));
    }
    Ok(None)
}

fn split_line(bytes: &[u8]) -> Option<(&[u8], &[u8])> {
    let end = bytes.windows(2).position(|two| two == b"\r\n")?;
    Some((&bytes[..end], &bytes[end + 2..]))
}

/// Returns the data of the events in a whole `text/event-stream` body, in their order.
///
/// Leaves out events without data: the priming event that a server may send first has an id and nothing to say. Comments, ids and
/// times to retry are passed over; an event whose empty line is missing isn't one.
///
/// Source: the HTML standard, section 9.2.6, "Interpreting an event stream".
pub fn event_data(body: &str) -> Vec<Cow<'_, str>> {
    let mut events = Vec::new();
    let mut data: Option<Cow<'_, str>> = None;
    let mut rest = body.strip_prefix('\u{feff}').unwrap_or(body);
    while let Some(end) = rest.find(['\r', '\n']) {
        let line = &rest[..end];
        let end_bytes = if rest[end..].starts_with("\r\n") { 2 } else { 1 };
        rest = &rest[end + end_bytes..];
        if line.is_empty() {
            events.extend(data.take().filter(|data| !data.is_empty()));
        }
        let (field, value) = line.split_once(':').unwrap_or((line, ""));
        if field == "data" {
            let value = value.strip_prefix(' ').unwrap_or(value);
            data = Some(match data {
                None => Cow::Borrowed(value),
                Some(lines) => Cow::Owned(format!("{lines}\n{value}")),
            });
        }
    }
    events
}

/// A request of which only a number changes: see [`super::frame::Template`].
#[derive(Clone, Debug)]
pub struct RequestTemplate {
    bytes: Vec<u8>,
    /// Where a number starts.
    numbers: Vec<usize>,
}

impl RequestTemplate {
    /// Makes a template of `text`, in which each [`NUMBER_PLACEHOLDER`] stands for the request's number.
    pub fn new(text: &str) -> Self {
        let numbers = text.match_indices(NUMBER_PLACEHOLDER).map(|(at, _)| at).collect();
        Self { bytes: text.as_bytes().to_vec(), numbers }
    }

    /// Appends the request with `number`, counted from 0.
    pub fn write(&self, out: &mut Vec<u8>, number: u64) {
        let start = out.len();
        out.extend_from_slice(&self.bytes);
        for at in &self.numbers {
            let place = start + at;
            out[place..place + NUMBER_PLACEHOLDER.len()].copy_from_slice(&digits(number));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const JSON: &str = "HTTP/1.1 200 OK\r\nContent-Type: application/json; charset=utf-8\r\nContent-Length: 2\r\nMcp-Session-Id: a-1\r\n\r\n{}";
    const CHUNKED: &str = "HTTP/1.1 200 OK\r\ncontent-type:text/event-stream\r\ntransfer-encoding: chunked\r\n\r\n\
                           6\r\ndata: \r\nC;x=y\r\n{}\n\n: pause\n\r\n0\r\nx-trailer: 1\r\n\r\n";

    fn response<'a>(content_type: &'a str, session_id: Option<&'a str>, body: &'a str) -> Response<'a> {
        Response { status: 200, content_type, session_id, body: Cow::Borrowed(body.as_bytes()) }
    }

    #[test]
    fn bodies_with_a_length_and_in_chunks_are_taken_to_their_end() {
        for (text, expected) in [
            (JSON, response("application/json", Some("a-1"), "{}")),
            (CHUNKED, response("text/event-stream", None, "data: {}\n\n: pause\n")),
        ] {
            let bytes = format!("{text}HTTP/1.1 2");
            assert_eq!(next_response(bytes.as_bytes()), Ok(Some((expected, text.len()))));
        }
    }

    #[test]
    fn a_response_cut_anywhere_is_not_whole_yet() {
        for text in [JSON, CHUNKED] {
            for cut in 0..text.len() {
                assert_eq!(next_response(&text.as_bytes()[..cut]), Ok(None), "{:?}", &text[..cut]);
            }
        }
    }

    #[test]
    fn statuses_without_a_body_end_with_their_head() {
        for text in ["HTTP/1.1 202 Accepted\r\ncontent-length: 0\r\n\r\n", "HTTP/1.1 204 No Content\r\n\r\n"] {
            let (response, taken) = next_response(text.as_bytes()).expect("a response").expect("a whole one");
            assert_eq!((response.body.len(), taken), (0, text.len()));
        }
    }

    #[test]
    fn what_is_no_response_is_named() {
        let error = |text: &str| next_response(text.as_bytes()).expect_err(text);
        let chunks = |text: &str| format!("HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n{text}");
        assert_eq!(error("HTTP/1.0 200 OK\r\n\r\n"), HttpError::StatusLine("HTTP/1.0 200 OK".to_owned()));
        assert_eq!(error("HTTP/1.1 2x0\r\n\r\n"), HttpError::StatusLine("HTTP/1.1 2x0".to_owned()));
        assert_eq!(error("HTTP/1.1 200 OK\r\n\r\n"), HttpError::Endless(200));
        assert_eq!(error("HTTP/1.1 200 OK\r\ncontent-length: x\r\n\r\n"), HttpError::Length("x".to_owned()));
        let long = "HTTP/1.1 200 OK\r\ncontent-length: 1000000000000\r\n\r\n";
        assert_eq!(error(long), HttpError::TooLong(1_000_000_000_000));
        assert_eq!(error(&"x".repeat(20_000)), HttpError::LongHead(20_000));
        assert_eq!(error(&chunks("zz\r\n")), HttpError::Length("zz".to_owned()));
        assert_eq!(error(&chunks("2\r\n{}xx")), HttpError::ChunkEnd);
        assert_eq!(error(&chunks("ffffffffffffffff\r\n")), HttpError::TooLong(u64::MAX));
        assert_eq!(error(&chunks(&"0".repeat(200))), HttpError::Length("0".repeat(128)));
    }

    #[test]
    fn events_are_their_data_and_priming_events_and_comments_are_none() {
        for (body, expected) in [
            ("data: {\"a\":1}\n\n", vec!["{\"a\":1}"]),
            ("id: 0\nretry: 3000\ndata:\n\nid: 1\ndata: {}\n\n", vec!["{}"]),
            ("data: \n\n: pause\n\n:\n\nevent: message\ndata:{}\n\n", vec!["{}"]),
            ("data: {\r\ndata: }\r\n\r\ndata: 2\r\r", vec!["{\n}", "2"]),
            ("\u{feff}data: 1\n\ndata: 2\n\n", vec!["1", "2"]),
            ("data: without an end\n", vec![]),
            ("data\n\nid: 4\n\nother: x\n\n", vec![]),
            ("", vec![]),
        ] {
            assert_eq!(event_data(body), expected, "{body:?}");
        }
    }

    #[test]
    fn a_template_puts_its_number_in_every_place() {
        let template = RequestTemplate::new("a ########## b ##########");
        let mut out = b"before ".to_vec();

        template.write(&mut out, 7);

        assert_eq!(out, b"before a 1000000007 b 1000000007");
    }
}
