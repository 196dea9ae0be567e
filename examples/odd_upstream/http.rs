//! Streamable HTTP, as much of HTTP/1.1 as clients of MCP need: both eras at /mcp.
//!
//! A call of a tool is answered by an event stream, everything else by JSON. No stream is taken up again after a break.

use std::collections::BTreeMap;
use std::io::{self, BufRead, BufReader, ErrorKind, Read, Write as _};
use std::net::{TcpListener, TcpStream};
use std::sync::Arc;
use std::thread;
use std::time::Duration;

use crate::call::Call;
use crate::message::{Message, Params};
use crate::output::{self, Output};
use crate::server::{Era, HEADER_MISMATCH, Request, STATELESS_VERSION, Server, Session, Work};
use crate::{Eras, odd, stdio, tools};

/// How soon it is noticed that a client has left its stream.
const LOOK: Duration = Duration::from_millis(20);

const JSON: &str = "content-type: application/json\r\n";
const STREAM: &str = "content-type: text/event-stream\r\ncache-control: no-store\r\ntransfer-encoding: chunked\r\n";

/// Serves for ever.
pub fn serve(server: &Arc<Server>, port: u16) -> io::Result<()> {
    let listener = TcpListener::bind(("127.0.0.1", port))?;
    println!("listening on {}", listener.local_addr()?);
    for stream in listener.incoming() {
        output::unless_hung();
        let (server, stream) = (server.clone(), stream?);
        thread::spawn(move || {
            stream.set_nodelay(true)?;
            let mut reader = BufReader::new(stream.try_clone()?);
            while let Some(posted) = Posted::read(&mut reader)? {
                output::unless_hung();
                Exchange { server: &server, stream: &stream, posted: &posted }.answer()?;
            }
            // A connection that breaks concerns its client alone.
            io::Result::Ok(())
        });
    }
    Ok(())
}

/// An HTTP request.
struct Posted {
    method: String,
    path: String,
    /// By names in lower case.
    headers: BTreeMap<String, String>,
    body: Vec<u8>,
}

impl Posted {
    /// The next one of a connection, if it goes on.
    fn read(reader: &mut impl BufRead) -> io::Result<Option<Self>> {
        let first = read_line(reader)?;
        let mut words = first.split(' ');
        let (Some(method), Some(path)) = (words.next(), words.next()) else { return Ok(None) };
        let mut headers = BTreeMap::new();
        loop {
            let line = read_line(reader)?;
            let Some((name, value)) = line.split_once(':') else { break };
            headers.insert(name.to_ascii_lowercase(), value.trim().to_owned());
        }
        let mut body = Vec::new();
        if headers.get("transfer-encoding").is_some_and(|coding| coding.eq_ignore_ascii_case("chunked")) {
            loop {
                let line = read_line(reader)?;
                let size = line.split(';').next().and_then(|size| u64::from_str_radix(size.trim(), 16).ok());
                let size = size.ok_or(ErrorKind::InvalidData)?;
                reader.by_ref().take(size).read_to_end(&mut body)?;
                read_line(reader)?;
                if size == 0 {
                    break;
                }
            }
        } else {
            let length = headers.get("content-length").and_then(|length| length.parse().ok()).unwrap_or(0);
            reader.by_ref().take(length).read_to_end(&mut body)?;
        }
        Ok(Some(Posted { method: method.to_owned(), path: path.to_owned(), headers, body }))
    }

    fn header(&self, name: &str) -> Option<&str> {
        self.headers.get(name).map(String::as_str)
    }

    /// The members of its line in the log.
    fn via(&self) -> String {
        let headers: Vec<_> =
            self.headers.iter().map(|(name, value)| format!("{}:{}", odd::string(name), odd::string(value))).collect();
        let session = self.header("mcp-session-id").map_or_else(|| "null".to_owned(), odd::string);
        format!(r#""via":"{}","session":{session},"headers":{{{}}}"#, self.method, headers.join(","))
    }
}

/// A line without its end; empty at the end of everything.
fn read_line(reader: &mut impl BufRead) -> io::Result<String> {
    let mut line = String::new();
    reader.read_line(&mut line)?;
    line.truncate(line.trim_end().len());
    Ok(line)
}

/// A request and where its response goes.
struct Exchange<'a> {
    server: &'a Arc<Server>,
    stream: &'a TcpStream,
    posted: &'a Posted,
}

impl Exchange<'_> {
    fn answer(&self) -> io::Result<()> {
        let Posted { method, path, .. } = self.posted;
        self.server.log_received(&self.posted.via(), &self.posted.body);
        match (path.as_str(), method.as_str()) {
            ("/mcp", "POST") => self.post(),
            ("/mcp", "GET") if self.server.options.eras != Eras::Stateless => self.stand(),
            ("/mcp", "DELETE") => {
                let name = self.posted.header("mcp-session-id").unwrap_or_default();
                self.write(if self.server.close(name) { "200 OK" } else { "404 Not Found" }, "", "")
            }
            ("/mcp", _) => self.write("405 Method Not Allowed", "allow: POST\r\n", ""),
            _ => self.write("404 Not Found", "", ""),
        }
    }

    fn post(&self) -> io::Result<()> {
        let body = &self.posted.body;
        let Ok(message) = serde_json::from_slice::<Message>(body) else {
            return self.write("400 Bad Request", JSON, &stdio::refusal(body));
        };
        let params = Params::of(&message).unwrap_or_default();
        let method = message.method.as_deref().unwrap_or_default();
        // A notification says in no other place in which era it is.
        let is_notice = message.id.is_none() && self.posted.header("mcp-protocol-version") == Some(STATELESS_VERSION);
        if is_notice || self.server.era_of(method, &params) == Era::Stateless {
            if let (Some(mismatch), Some(id)) = (self.header_mismatch(method, &params), &message.id) {
                let refusal = odd::error(id.get(), HEADER_MISMATCH, &mismatch, odd::VALUE);
                return self.write("400 Bad Request", JSON, &refusal);
            }
            return self.perform(&self.server.open(String::new(), None), message, "");
        }

        let name = self.posted.header("mcp-session-id");
        match (name, name.and_then(|name| self.server.session(name))) {
            (_, Some(session)) => self.perform(&session, message, ""),
            (None, None) if method == "initialize" => {
                let name = format!("odd-{}-{}", std::process::id(), self.server.next_ask());
                let header = format!("Mcp-Session-Id: {name}\r\n");
                self.perform(&self.server.open(name, None), message, &header)
            }
            (None, None) => {
                let refusal = odd::error("null", "-32000", "no session", odd::VALUE);
                self.write("400 Bad Request", JSON, &refusal)
            }
            (Some(_), None) => {
                let refusal = odd::error("null", "-32001", "no such session", odd::VALUE);
                self.write("404 Not Found", JSON, &refusal)
            }
        }
    }

    fn perform(&self, session: &Arc<Session>, message: Message, headers: &str) -> io::Result<()> {
        match session.receive(message) {
            Work::Nothing => self.write("202 Accepted", headers, ""),
            Work::Answer(answer) => {
                let status = match answer.status {
                    200 => "200 OK",
                    404 => "404 Not Found",
                    _ => "400 Bad Request",
                };
                self.write(status, &format!("{headers}{JSON}"), &answer.text)
            }
            Work::Call(request) => self.call(session, request),
            Work::Listen(request) => self.listen(session, request),
        }
    }

    fn call(&self, session: &Arc<Session>, request: Request) -> io::Result<()> {
        let era = request.era;
        let output = self.begin_stream()?;
        let call = Call::begin(session, request, output.clone());
        let running = thread::spawn({
            let call = call.clone();
            move || {
                tools::run(&call);
                call.end();
            }
        });
        let is_gone = self.is_gone_before(|| running.is_finished())?;
        if is_gone {
            self.server.log(&format!(r#""event":"closed","id":{}"#, call.request.id.get()));
            // In the legacy era that is no word of the client's.
            if era == Era::Stateless {
                call.cancel();
            }
        }
        // A tool that panics says so on stderr.
        let _ = running.join();
        output.end();
        self.server.call_ended();
        Ok(())
    }

    fn listen(&self, session: &Arc<Session>, request: Request) -> io::Result<()> {
        let id = request.id.clone();
        let output = self.begin_stream()?;
        self.server.listen(session, request, output.clone());
        self.is_gone_before(|| output.is_broken())?;
        self.server.log(&format!(r#""event":"closed","id":{}"#, id.get()));
        self.server.forget_stream(&output);
        Ok(())
    }

    /// The stream of a session for what belongs to no request.
    fn stand(&self) -> io::Result<()> {
        let name = self.posted.header("mcp-session-id").unwrap_or_default();
        let Some(session) = self.server.session(name) else { return self.write("404 Not Found", "", "") };
        let output = self.begin_stream()?;
        session.stand(output.clone());
        self.is_gone_before(|| output.is_broken() || self.server.session(name).is_none())?;
        output.end();
        self.server.log(&format!(r#""event":"closed","session":{}"#, odd::string(name)));
        Ok(())
    }

    /// Where the headers of the stateless era say something else than the body.
    fn header_mismatch(&self, method: &str, params: &Params) -> Option<String> {
        let name = match method {
            "tools/call" | "prompts/get" => Some(&params.name),
            "resources/read" => Some(&params.uri),
            _ => None,
        };
        let region = params.arguments.text("region").filter(|_| params.name == "echo_raw");
        let version = params.meta.version.as_deref().unwrap_or(STATELESS_VERSION);
        let expected = [
            ("mcp-protocol-version", Some(version)),
            ("mcp-method", Some(method)),
            ("mcp-name", name.map(String::as_str)),
            ("mcp-param-region", region.as_deref()),
        ];
        let wrong =
            expected.into_iter().find(|(header, value)| value.is_some() && self.posted.header(header) != *value);
        wrong.map(|(header, value)| format!("{header} should be {value:?}, not {:?}", self.posted.header(header)))
    }

    fn begin_stream(&self) -> io::Result<Arc<Output>> {
        Ok(Arc::new(Output::sse(self.stream.try_clone()?, &format!("HTTP/1.1 200 OK\r\n{STREAM}\r\n"))))
    }

    /// Waits for the client to leave; or until something is over, or the client sends its next request.
    fn is_gone_before(&self, is_over: impl Fn() -> bool) -> io::Result<bool> {
        self.stream.set_read_timeout(Some(LOOK))?;
        let is_gone = loop {
            match self.stream.peek(&mut [0]) {
                Ok(0) => break true,
                Ok(_) => break false,
                Err(fault) if matches!(fault.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut) => {
                    if is_over() {
                        break false;
                    }
                }
                Err(_) => break true,
            }
        };
        self.stream.set_read_timeout(None)?;
        Ok(is_gone)
    }

    fn write(&self, status: &str, headers: &str, body: &str) -> io::Result<()> {
        let mut stream = self.stream;
        let head = format!("HTTP/1.1 {status}\r\n{headers}content-length: {}\r\n\r\n", body.len());
        stream.write_all(&[head.as_bytes(), body.as_bytes()].concat())
    }
}
