//! A client that reads from its stream only while a test asks for a frame: what it does not ask for stays in the
//! kernel's buffers, as with a client that does not read.

use std::collections::{BTreeMap, VecDeque};
use std::io::{ErrorKind, Read, Write};
use std::net::{IpAddr, Ipv4Addr, SocketAddr, TcpStream};
use std::time::{Duration, Instant};

use serde_json::{Value, json};
use socket2::{Domain, Socket, Type};

use super::DEADLINE;
use crate::transcripts::case::Event;
use crate::transcripts::frames::{Reader, text_frame};

/// A client of the Phoenix protocol, version 2. Its refs are 1, 2, 3 and so on.
pub struct Peer {
    stream: TcpStream,
    reader: Reader,
    events: VecDeque<Event>,
    chunk: Vec<u8>,
    last_ref: u64,
    join_refs: BTreeMap<String, u64>,
}

impl Peer {
    /// Opens the socket, which has to be accepted.
    #[track_caller]
    pub fn open(server: SocketAddr, qs: &str) -> Self {
        Self::over(TcpStream::connect(server).expect("the server accepts"), qs)
    }

    /// The same from a client that leaves little room for what it does not read.
    #[track_caller]
    pub fn open_narrow(server: SocketAddr, qs: &str) -> Self {
        Self::over(connect(server, Ipv4Addr::LOCALHOST, Some(8 * 1024)), qs)
    }

    /// Opens the socket over a connection.
    #[track_caller]
    pub fn over(stream: TcpStream, qs: &str) -> Self {
        Self::over_with(stream, &handshake(qs))
    }

    /// The same with permessage-deflate.
    #[track_caller]
    pub fn over_compressed(stream: TcpStream, qs: &str) -> Self {
        let header = "\r\nSec-WebSocket-Extensions: permessage-deflate\r\n\r\n";
        Self::over_with(stream, &handshake(qs).replace("\r\n\r\n", header))
    }

    #[track_caller]
    fn over_with(stream: TcpStream, head: &str) -> Self {
        let mut peer = Self::raw(stream);
        peer.write(head.as_bytes());
        let answer = peer.next();
        assert_eq!(answer.status, Some(101), "the handshake: {answer:?}");
        peer
    }

    /// A connection on which nothing has been said.
    pub fn raw(stream: TcpStream) -> Self {
        stream.set_nodelay(true).expect("nodelay can be set on a TCP socket");
        Peer {
            stream,
            reader: Reader::default(),
            events: VecDeque::new(),
            chunk: vec![0; 64 * 1024],
            last_ref: 0,
            join_refs: BTreeMap::new(),
        }
    }

    /// The connection, to write to from elsewhere.
    pub fn stream(&self) -> &TcpStream {
        &self.stream
    }

    /// Writes bytes as they are. A failed write is no error: what the server did shows in what it sent.
    pub fn write(&self, bytes: &[u8]) {
        let _ = (&self.stream).write_all(bytes);
    }

    /// Sends a text frame.
    pub fn send_text(&self, text: &str) {
        self.write(&text_frame(text));
    }

    /// Sends an event to a topic, within its last join. Gives back its ref.
    pub fn send(&mut self, topic: &str, event: &str, payload: Value) -> u64 {
        let text = self.text(topic, event, payload);
        self.send_text(&text);
        self.last_ref
    }

    /// The text of the next message, to be sent later.
    pub fn text(&mut self, topic: &str, event: &str, payload: Value) -> String {
        self.last_ref += 1;
        if event == "phx_join" {
            self.join_refs.insert(topic.to_owned(), self.last_ref);
        }
        let join_ref = self.join_refs.get(topic);
        json!([join_ref, self.last_ref, topic, event, payload]).to_string()
    }

    /// The ref of the message sent or made last.
    pub fn last_ref(&self) -> u64 {
        self.last_ref
    }

    /// Joins a topic, which has to be the next thing that is answered.
    #[track_caller]
    pub fn join(&mut self, topic: &str) {
        let reference = self.send(topic, "phx_join", json!({}));
        self.expect(&[&format!("{topic} #{reference} ok {{}}")]);
    }

    /// Sends a heartbeat and expects its reply next: whatever was sent before has been read.
    #[track_caller]
    pub fn heartbeat(&mut self) {
        let reference = self.send("phoenix", "heartbeat", json!({}));
        self.expect(&[&format!("phoenix #{reference} ok {{}}")]);
    }

    /// Sends an event and expects an ok reply to it next.
    #[track_caller]
    pub fn exchange(&mut self, topic: &str, event: &str, payload: Value) -> Value {
        let reference = self.send(topic, event, payload);
        let reply = self.message();
        assert_eq!(
            (reply.event.as_str(), &reply.reference, &reply.payload["status"]),
            ("phx_reply", &json!(reference), &json!("ok")),
            "{reply:?}"
        );
        reply.payload["response"].clone()
    }

    /// The next event, if there is one in time.
    pub fn next_within(&mut self, limit: Duration) -> Option<Event> {
        let end = Instant::now() + limit;
        loop {
            if let Some(event) = self.events.pop_front() {
                return Some(event);
            }
            let left = end.saturating_duration_since(Instant::now()).max(Duration::from_millis(1));
            self.stream.set_read_timeout(Some(left)).expect("a timeout above zero is allowed");
            match self.stream.read(&mut self.chunk) {
                Ok(0) => return Some(Event::of_kind("tcp_closed")),
                Ok(n) => {
                    let received = self.reader.feed(&self.chunk[..n]);
                    self.events.extend(received.into_iter().map(|received| received.event));
                }
                Err(error) if matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut) => {
                    if Instant::now() >= end {
                        return None;
                    }
                }
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(_) => return Some(Event::of_kind("tcp_closed")),
            }
        }
    }

    /// The next event.
    #[track_caller]
    pub fn next(&mut self) -> Event {
        self.next_within(DEADLINE).unwrap_or_else(|| panic!("nothing came within {DEADLINE:?}"))
    }

    /// The next message, which has to be one.
    #[track_caller]
    pub fn message(&mut self) -> Message {
        let event = self.next();
        let Some(text) = &event.raw else { panic!("expected a message, got {event:?}") };
        Message::parse(text)
    }

    /// The next message of a topic; others are passed over.
    #[track_caller]
    pub fn next_of(&mut self, topic: &str) -> Message {
        loop {
            let message = self.message();
            if message.topic == topic {
                return message;
            }
        }
    }

    /// Expects these next, in this order, in the short form of [`short`].
    #[track_caller]
    pub fn expect(&mut self, expected: &[&str]) {
        let got: Vec<String> = expected.iter().map(|_| short(&self.next())).collect();
        assert_eq!(got, expected);
    }

    /// Expects the server to end the socket with this close code. What was said before is passed over.
    #[track_caller]
    pub fn expect_close(&mut self, code: u16) {
        loop {
            let event = self.next();
            assert_ne!(event.kind, "tcp_closed", "expected a close with {code}, the connection just ended");
            if event.kind == "close" {
                assert_eq!(event.code, Some(code), "{event:?}");
                return;
            }
        }
    }

    /// Waits until the server has ended the connection; gives what came before.
    #[track_caller]
    pub fn until_gone(&mut self) -> Vec<Event> {
        let mut before = Vec::new();
        loop {
            match self.next() {
                event if event.kind == "tcp_closed" => return before,
                event => before.push(event),
            }
        }
    }

    /// Waits and checks that nothing comes.
    #[track_caller]
    pub fn expect_quiet(&mut self, during: Duration) {
        if let Some(event) = self.next_within(during) {
            panic!("expected nothing, got {}", short(&event));
        }
    }
}

/// One message from the server.
#[derive(Clone, Debug)]
pub struct Message {
    pub join_ref: Value,
    pub reference: Value,
    pub topic: String,
    pub event: String,
    pub payload: Value,
}

impl Message {
    #[track_caller]
    fn parse(text: &str) -> Self {
        let (join_ref, reference, topic, event, payload) =
            serde_json::from_str(text).unwrap_or_else(|error| panic!("expected a V2 message: {error}: {text}"));
        Message { join_ref, reference, topic, event, payload }
    }

    /// The number that a broadcast of these tests carries.
    #[track_caller]
    pub fn n(&self) -> u64 {
        self.payload["n"].as_u64().unwrap_or_else(|| panic!("expected a number, got {self:?}"))
    }

    /// The number that a reply's response carries.
    #[track_caller]
    pub fn n_replied(&self) -> u64 {
        self.payload["response"]["n"].as_u64().unwrap_or_else(|| panic!("expected a reply with a number, got {self:?}"))
    }
}

/// An event in short:
///
/// - `probe:a #3 ok {}`: the reply to ref 3
/// - `probe:a phx_close of 1`: the end of the channel joined with ref 1; `phx_error` likewise, with its reason
/// - `probe:a shout {"n":1}`: a broadcast or push
/// - `close 1011`, `tcp_closed`, `http 403`
fn short(event: &Event) -> String {
    let Some(text) = &event.raw else {
        return match (event.code, event.status) {
            (Some(code), _) => format!("close {code}"),
            (None, Some(status)) => format!("http {status}"),
            (None, None) => event.kind.clone(),
        };
    };
    let Message { join_ref, reference, topic, event, payload } = Message::parse(text);
    match event.as_str() {
        "phx_reply" => {
            format!("{topic} #{reference} {} {}", payload["status"].as_str().unwrap_or("?"), payload["response"])
        }
        "phx_close" | "phx_error" if join_ref == reference => {
            let reason = payload["reason"].as_str().map(|reason| format!(": {reason}")).unwrap_or_default();
            format!("{topic} {event} of {join_ref}{reason}")
        }
        _ => format!("{topic} {event} {payload}"),
    }
}

/// A connection from an address of this machine, with a small receive buffer where wanted.
pub fn connect(server: SocketAddr, from: Ipv4Addr, receive_bytes: Option<usize>) -> TcpStream {
    let socket = Socket::new(Domain::IPV4, Type::STREAM, None).expect("a socket");
    if let Some(bytes) = receive_bytes {
        socket.set_recv_buffer_size(bytes).expect("a small buffer is allowed");
    }
    socket.bind(&SocketAddr::new(IpAddr::V4(from), 0).into()).expect("an address of this machine");
    socket.connect(&server.into()).expect("the kernel accepts");
    socket.into()
}

/// The head of an ordinary handshake.
pub fn handshake(qs: &str) -> String {
    format!(
        "GET /socket/websocket?{qs} HTTP/1.1\r\nHost: localhost\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\
         Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n"
    )
}
