//! A WebSocket client over a plain TCP connection that keeps every event in the order of its coming.

use std::io::{Read, Write};
use std::net::{Shutdown, SocketAddr, TcpStream};
use std::sync::{Arc, Condvar, Mutex, MutexGuard};
use std::time::{Duration, Instant};

use super::case::Event;
use super::frames::{FrameBits, Reader, encode_frame, text_frame};

/// How long a client waits for what it wants unless its step says otherwise.
pub const TIMEOUT: Duration = Duration::from_millis(3000);

/// Bounds a write to a server that doesn't read; a real client's kernel buffer would hold the bytes.
const WRITE_MAX: Duration = Duration::from_secs(10);

/// The recorded clients' key; every `Sec-WebSocket-Accept` follows from it.
const WS_KEY: &str = "dGhlIHNhbXBsZSBub25jZQ==";

/// The recorded server's authority: origin checks and echoed URIs depend on it, whatever the port of this server.
pub const RECORDED_HOST: &str = "localhost:4100";

/// The recorded clients' name; some cases echo it.
pub const USER_AGENT: &str = "phx-rig/1";

/// A client's connection. It answers a close frame with the same frame, and nothing else.
pub struct Client {
    shared: Arc<Shared>,
    stream: Option<Arc<TcpStream>>,
    /// How many of the frames earlier `recv`s have consumed.
    cursor: usize,
}

struct Shared {
    state: Mutex<State>,
    changed: Condvar,
    echoes_close: bool,
}

#[derive(Default)]
struct State {
    events: Vec<Event>,
    tcp_closed: bool,
    sent_close: bool,
}

impl State {
    /// The positions of the events that a `recv` counts: all but the end of the connection.
    fn messages(&self) -> impl Iterator<Item = usize> {
        self.events.iter().enumerate().filter(|(_, event)| event.kind != "tcp_closed").map(|(at, _)| at)
    }
}

/// A WebSocket handshake; `Default` plus a path is an ordinary one.
#[derive(Default)]
pub struct Handshake<'a> {
    pub path: &'a str,
    pub qs: &'a str,
    /// Replace the default headers of the same spelling, or follow them.
    pub headers: &'a [(String, String)],
    pub subprotocols: Option<&'a [String]>,
    pub method: Option<&'a str>,
    /// Default headers to leave out.
    pub omit: &'a [String],
    pub host: Option<&'a str>,
}

impl Handshake<'_> {
    fn head(&self) -> String {
        let mut headers = vec![
            ("Host", self.host.unwrap_or(RECORDED_HOST).to_owned()),
            ("Upgrade", "websocket".to_owned()),
            ("Connection", "Upgrade".to_owned()),
            ("Sec-WebSocket-Version", "13".to_owned()),
            ("Sec-WebSocket-Key", WS_KEY.to_owned()),
            ("User-Agent", USER_AGENT.to_owned()),
        ];
        if let Some(subprotocols) = self.subprotocols {
            headers.push(("Sec-WebSocket-Protocol", subprotocols.join(", ")));
        }
        headers.retain(|(name, _)| !self.omit.iter().any(|omitted| omitted == name));
        for (name, value) in self.headers {
            match headers.iter_mut().find(|(present, _)| present == name) {
                Some((_, present)) => value.clone_into(present),
                None => headers.push((name, value.clone())),
            }
        }

        let method = self.method.unwrap_or("GET");
        let query = if self.qs.is_empty() { String::new() } else { format!("?{}", self.qs) };
        let lines: String = headers.iter().map(|(name, value)| format!("{name}: {value}\r\n")).collect();
        format!("{method} {}{query} HTTP/1.1\r\n{lines}\r\n", self.path)
    }
}

/// What a `recv` got: the frames that came in time, and whether they were as many as wanted.
pub struct Recv {
    pub complete: bool,
    pub got: Vec<Event>,
}

impl Client {
    /// Connects and sends a handshake, with `extra` bytes in the same write; doesn't wait for the answer.
    pub fn connect(server: SocketAddr, handshake: &Handshake<'_>, extra: &[u8], echoes_close: bool) -> Self {
        Self::request(server, &handshake.head(), extra, echoes_close)
    }

    /// Connects and sends `head` as Latin-1 bytes and `extra` after it in the same write.
    pub fn request(server: SocketAddr, head: &str, extra: &[u8], echoes_close: bool) -> Self {
        let shared = Arc::new(Shared { state: Mutex::default(), changed: Condvar::new(), echoes_close });
        let mut client = Self { shared: Arc::clone(&shared), stream: None, cursor: 0 };
        let Ok(stream) = TcpStream::connect(server) else {
            shared.close(Vec::new());
            return client;
        };
        stream.set_nodelay(true).expect("nodelay can be set on a TCP socket");
        stream.set_write_timeout(Some(WRITE_MAX)).expect("a timeout above zero is allowed");
        let stream = Arc::new(stream);
        client.stream = Some(Arc::clone(&stream));
        std::thread::spawn(move || shared.read_from(&stream));

        let mut bytes: Vec<u8> = head.chars().map(|character| character as u32 as u8).collect();
        bytes.extend_from_slice(extra);
        client.write(&bytes);
        client
    }

    /// Waits for the answer to the handshake; false when none came. It doesn't count as a frame to `recv`.
    pub fn await_answer(&mut self, limit: Duration) -> bool {
        let answered = self.shared.wait(limit, |state| state.tcp_closed || state.messages().next().is_some());
        self.cursor = 1;
        answered
    }

    /// Writes bytes as they are. A failed write is no error: what the server did shows in what it sent.
    pub fn write(&self, bytes: &[u8]) {
        if let Some(mut stream) = self.stream.as_deref() {
            let _ = stream.write_all(bytes);
        }
    }

    /// Sends one text frame.
    pub fn send_text(&self, text: &str) {
        self.write(&text_frame(text));
    }

    /// Sends one binary frame.
    pub fn send_binary(&self, payload: &[u8]) {
        self.write(&encode_frame(2, payload, FrameBits::default()));
    }

    /// Starts the closing handshake; without a code the frame is empty.
    pub fn send_close(&self, code: Option<u16>, reason: &str) {
        self.shared.lock().sent_close = true;
        let payload = code.map_or_else(Vec::new, |code| [&code.to_be_bytes(), reason.as_bytes()].concat());
        self.write(&encode_frame(8, &payload, FrameBits::default()));
    }

    /// Waits for the next `n` frames and marks them as consumed by step `by`.
    pub fn recv(&mut self, n: usize, limit: Duration, by: usize) -> Recv {
        let want = self.cursor + n;
        let complete = self.shared.wait(limit, |state| state.messages().count() >= want);
        let mut state = self.shared.lock();
        let positions: Vec<usize> = state.messages().skip(self.cursor).take(n).collect();
        self.cursor += positions.len();
        let got = positions
            .into_iter()
            .map(|at| {
                state.events[at].recv = Some(by);
                state.events[at].clone()
            })
            .collect();
        Recv { complete, got }
    }

    /// Waits until the server has closed the connection; false when it hasn't.
    pub fn await_closed(&self, limit: Duration) -> bool {
        self.shared.wait(limit, |state| state.tcp_closed)
    }

    /// Everything received so far.
    pub fn events(&self) -> Vec<Event> {
        self.shared.lock().events.clone()
    }

    /// Drops the connection without a closing handshake.
    pub fn destroy(&self) {
        if let Some(stream) = &self.stream {
            let _ = stream.shutdown(Shutdown::Both);
        }
    }
}

impl Drop for Client {
    fn drop(&mut self) {
        self.destroy();
    }
}

impl Shared {
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(|poisoned| poisoned.into_inner())
    }

    fn wait(&self, limit: Duration, reached: impl Fn(&State) -> bool) -> bool {
        let end = Instant::now() + limit;
        let mut state = self.lock();
        while !reached(&state) {
            let left = end.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return false;
            }
            state = self.changed.wait_timeout(state, left).unwrap_or_else(|poisoned| poisoned.into_inner()).0;
        }
        true
    }

    fn read_from(&self, mut stream: &TcpStream) {
        let mut reader = Reader::default();
        let mut chunk = vec![0; 64 * 1024];
        loop {
            match stream.read(&mut chunk) {
                Err(error) if error.kind() == std::io::ErrorKind::Interrupted => {}
                Ok(0) | Err(_) => break,
                Ok(n) => {
                    for received in reader.feed(&chunk[..n]) {
                        let mut state = self.lock();
                        state.events.push(received.event);
                        let echo = received.close_payload.filter(|_| !state.sent_close && self.echoes_close);
                        state.sent_close |= echo.is_some();
                        drop(state);
                        self.changed.notify_all();
                        if let Some(payload) = echo {
                            let _ = stream.write_all(&encode_frame(8, &payload, FrameBits::default()));
                        }
                    }
                }
            }
        }
        let _ = stream.shutdown(Shutdown::Both);
        self.close(reader.finish().into_iter().map(|received| received.event).collect());
    }

    fn close(&self, last: Vec<Event>) {
        let mut state = self.lock();
        state.events.extend(last);
        state.events.push(Event::of_kind("tcp_closed"));
        state.tcp_closed = true;
        drop(state);
        self.changed.notify_all();
    }
}

/// For tests that talk to the server themselves; each panics with what came when it isn't what was wanted.
impl Client {
    /// Opens a WebSocket at `path`, which has to be accepted.
    pub fn open(server: SocketAddr, path: &str, qs: &str) -> Self {
        let mut client = Self::connect(server, &Handshake { path, qs, ..Handshake::default() }, &[], true);
        client.await_answer(TIMEOUT);
        assert_eq!(client.answer().status, Some(101), "handshake of {path}?{qs}");
        client
    }

    /// The answer to the handshake.
    pub fn answer(&self) -> Event {
        self.events().into_iter().next().expect("the handshake is answered")
    }

    /// The next frame.
    pub fn next(&mut self) -> Event {
        let mut received = self.recv(1, TIMEOUT, usize::MAX);
        match received.got.pop() {
            Some(event) => event,
            None => panic!("no frame within {TIMEOUT:?}; so far: {:#?}", self.events()),
        }
    }

    /// The text of the next frame, which has to be one.
    pub fn next_text(&mut self) -> String {
        let event = self.next();
        event.raw.clone().unwrap_or_else(|| panic!("expected a text frame, got {event:?}"))
    }

    /// Takes the next frame and compares it as JSON.
    #[track_caller]
    pub fn expect_json(&mut self, expected: &str) {
        let got = self.next_text();
        let (want, have) = (super::json::canonical(expected), super::json::canonical(&got));
        assert!(want.is_some() && want == have, "expected {expected}\n     got {got}");
    }

    /// Sends a text and compares the next frame with `expected` as JSON.
    #[track_caller]
    pub fn exchange(&mut self, text: &str, expected: &str) {
        self.send_text(text);
        self.expect_json(expected);
    }

    /// Waits and checks that nothing comes.
    #[track_caller]
    pub fn expect_quiet(&mut self, during: Duration) {
        let received = self.recv(1, during, usize::MAX);
        assert!(received.got.is_empty(), "expected nothing, got {:?}", received.got);
    }
}
