//! An HTTP/1.1 client for one request a connection, which reads answers of every framing.

use std::io::{BufRead, BufReader, Write};
use std::net::{Shutdown, SocketAddr, TcpStream};
use std::time::Duration;

use super::case::header;
use super::client::{RECORDED_HOST, USER_AGENT};

/// How long a request may go without a byte unless its step says otherwise.
pub const TIMEOUT: Duration = Duration::from_secs(20);

/// A request; a body is sent chunked, as the recorded client did.
pub struct Request<'a> {
    pub method: &'a str,
    pub path: &'a str,
    pub qs: Option<&'a str>,
    /// Replace `Host` and `User-Agent` where they name them.
    pub headers: &'a [(String, String)],
    pub body: Option<&'a [u8]>,
    pub timeout: Duration,
}

/// An answer whose body is whole.
#[derive(Debug)]
pub struct Answer {
    pub status: u16,
    pub headers: Vec<(String, String)>,
    pub body: Vec<u8>,
}

/// Why there is no answer.
#[derive(Debug, thiserror::Error)]
pub enum Failed {
    #[error("{0}")]
    Io(#[from] std::io::Error),
    #[error("expected an HTTP/1.1 answer, got {0:?}")]
    NotHttp(String),
}

/// Sends a request and reads its answer.
///
/// # Errors
/// [`Failed::Io`] where the connection fails, is silent for the timeout or ends before the body does; [`Failed::NotHttp`]
/// where the answer can't be read.
pub fn send(server: SocketAddr, request: &Request<'_>) -> Result<Answer, Failed> {
    let stream = TcpStream::connect(server)?;
    stream.set_nodelay(true)?;
    stream.set_read_timeout(Some(request.timeout))?;
    stream.set_write_timeout(Some(request.timeout))?;
    let bytes = encode(request);
    std::thread::scope(|scope| {
        // Apart, since a server may answer before it has read a large body, and stop reading then.
        scope.spawn(|| (&stream).write_all(&bytes));
        let answer = read_answer(&mut BufReader::new(&stream), request.method);
        let _ = stream.shutdown(Shutdown::Both);
        answer
    })
}

fn encode(request: &Request<'_>) -> Vec<u8> {
    let mut headers = vec![("Host", RECORDED_HOST), ("User-Agent", USER_AGENT)];
    for (name, value) in request.headers {
        headers.retain(|(present, _)| !present.eq_ignore_ascii_case(name));
        headers.push((name, value));
    }
    headers.push(("Connection", "close"));
    match request.body {
        Some(_) => headers.push(("Transfer-Encoding", "chunked")),
        None if matches!(request.method, "GET" | "HEAD" | "DELETE" | "OPTIONS" | "TRACE") => {}
        None => headers.push(("Content-Length", "0")),
    }

    let query = request.qs.filter(|qs| !qs.is_empty()).map_or_else(String::new, |qs| format!("?{qs}"));
    let mut head = format!("{} {}{query} HTTP/1.1\r\n", request.method, request.path);
    for (name, value) in headers {
        head.push_str(&format!("{name}: {value}\r\n"));
    }
    head.push_str("\r\n");

    let mut bytes: Vec<u8> = head.chars().map(|character| character as u32 as u8).collect();
    if let Some(body) = request.body {
        if !body.is_empty() {
            bytes.extend(format!("{:x}\r\n", body.len()).into_bytes());
            bytes.extend_from_slice(body);
            bytes.extend(b"\r\n");
        }
        bytes.extend(b"0\r\n\r\n");
    }
    bytes
}

fn read_answer(from: &mut impl BufRead, method: &str) -> Result<Answer, Failed> {
    let (status, headers) = loop {
        let head = read_head(from)?;
        // 1xx answers announce the real one.
        if head.0 >= 200 {
            break head;
        }
    };
    let chunked = header(&headers, "transfer-encoding").is_some_and(|value| value.eq_ignore_ascii_case("chunked"));
    let mut body = Vec::new();
    if method == "HEAD" || status == 204 || status == 304 {
    } else if chunked {
        read_chunks(from, &mut body)?;
    } else if let Some(length) = header(&headers, "content-length") {
        let length: usize = length.parse().map_err(|_| Failed::NotHttp(format!("content-length: {length}")))?;
        body.resize(length, 0);
        from.read_exact(&mut body)?;
    } else {
        from.read_to_end(&mut body)?;
    }
    Ok(Answer { status, headers, body })
}

fn read_head(from: &mut impl BufRead) -> Result<(u16, Vec<(String, String)>), Failed> {
    let line = read_line(from)?;
    let status = line
        .strip_prefix("HTTP/1.")
        .and_then(|rest| rest.split(' ').nth(1))
        .and_then(|code| code.parse().ok())
        .ok_or(Failed::NotHttp(line))?;
    let mut headers = Vec::new();
    loop {
        let line = read_line(from)?;
        if line.is_empty() {
            return Ok((status, headers));
        }
        let (name, value) = line.split_once(':').ok_or_else(|| Failed::NotHttp(line.clone()))?;
        headers.push((name.to_owned(), value.trim().to_owned()));
    }
}

/// Reads a line of Latin-1 text up to CRLF, which isn't part of it.
fn read_line(from: &mut impl BufRead) -> Result<String, Failed> {
    let mut bytes = Vec::new();
    from.read_until(b'\n', &mut bytes)?;
    if !bytes.ends_with(b"\r\n") {
        return Err(std::io::Error::from(std::io::ErrorKind::UnexpectedEof).into());
    }
    bytes.truncate(bytes.len() - 2);
    Ok(bytes.into_iter().map(char::from).collect())
}

fn read_chunks(from: &mut impl BufRead, body: &mut Vec<u8>) -> Result<(), Failed> {
    loop {
        let line = read_line(from)?;
        let size = line.split(';').next().unwrap_or_default().trim();
        let size = usize::from_str_radix(size, 16).map_err(|_| Failed::NotHttp(line.clone()))?;
        if size == 0 {
            while !read_line(from)?.is_empty() {}
            return Ok(());
        }
        let start = body.len();
        body.resize(start + size, 0);
        from.read_exact(&mut body[start..])?;
        if !read_line(from)?.is_empty() {
            return Err(Failed::NotHttp("a chunk longer than it says".to_owned()));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(answer: &[u8], method: &str) -> Result<Answer, Failed> {
        read_answer(&mut &answer[..], method)
    }

    #[test]
    fn a_body_may_be_counted_chunked_or_end_with_the_connection() {
        let counted = b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nhello, and more";
        let chunked =
            b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nhel\r\n2;x=y\r\nlo\r\n0\r\nA: b\r\n\r\n";
        let ended = b"HTTP/1.0 200 OK\r\nConnection: close\r\n\r\nhello";

        for answer in [&counted[..], chunked, ended] {
            let answer = read(answer, "GET").expect("an answer");
            assert_eq!((answer.status, answer.body.as_slice()), (200, &b"hello"[..]));
        }
    }

    #[test]
    fn answers_to_head_and_those_without_content_have_no_body() {
        let head = read(b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\n", "HEAD").expect("an answer");
        let empty = read(b"HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 204 No Content\r\n\r\n", "GET").expect("an answer");

        assert_eq!((head.body.len(), empty.status), (0, 204));
    }

    #[test]
    fn an_answer_that_breaks_off_is_an_error() {
        let inside_the_head = read(b"HTTP/1.1 200 OK\r\nContent-Le", "GET");
        let inside_the_body = read(b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nhel", "GET");
        let no_answer = read(b"\x81\x05hello\r\n", "GET");

        assert!(matches!(inside_the_head, Err(Failed::Io(_))), "{inside_the_head:?}");
        assert!(matches!(inside_the_body, Err(Failed::Io(_))), "{inside_the_body:?}");
        assert!(matches!(no_answer, Err(Failed::NotHttp(_))), "{no_answer:?}");
    }

    #[test]
    fn a_request_is_framed_as_the_recorded_client_framed_it() {
        let headers = [("Accept".to_owned(), "text/plain".to_owned())];
        let request =
            |method, body| Request { method, path: "/x", qs: Some("a=b"), headers: &headers, body, timeout: TIMEOUT };

        let get = String::from_utf8(encode(&request("GET", None))).expect("ascii");
        let post = String::from_utf8(encode(&request("POST", Some(b"hello")))).expect("ascii");
        let bare_put = String::from_utf8(encode(&request("PUT", None))).expect("ascii");

        assert_eq!(
            get,
            "GET /x?a=b HTTP/1.1\r\nHost: localhost:4100\r\nUser-Agent: phx-rig/1\r\nAccept: text/plain\r\nConnection: close\r\n\r\n"
        );
        assert!(post.ends_with("Transfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n0\r\n\r\n"), "{post}");
        assert!(bare_put.ends_with("Content-Length: 0\r\n\r\n"), "{bare_put}");
    }
}
