//! A client that ends its connections with a reset, and holds next to nothing itself.

use std::io::{ErrorKind, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::time::Duration;

use socket2::{Domain, SockRef, Socket, Type};

use crate::server::DEADLINE;

pub const CONTINUATION: u8 = 0;
pub const TEXT: u8 = 1;
pub const CLOSE: u8 = 8;
pub const PING: u8 = 9;

/// One connection. Dropped, it is reset.
pub struct Client {
    stream: TcpStream,
    heard: Vec<u8>,
}

impl Client {
    pub fn connect(server: SocketAddr) -> Self {
        Self::over(TcpStream::connect(server).expect("the kernel accepts"))
    }

    /// With little room for what it does not read.
    pub fn connect_narrow(server: SocketAddr) -> Self {
        let socket = Socket::new(Domain::IPV4, Type::STREAM, None).expect("a socket");
        socket.set_recv_buffer_size(8 * 1024).expect("a small buffer is allowed");
        socket.connect(&server.into()).expect("the kernel accepts");
        Self::over(socket.into())
    }

    fn over(stream: TcpStream) -> Self {
        stream.set_nodelay(true).expect("nodelay can be set on a TCP socket");
        stream.set_read_timeout(Some(DEADLINE)).expect("a timeout above zero is allowed");
        let client = Client { stream, heard: Vec::new() };
        client.linger(Some(Duration::ZERO));
        client
    }

    fn linger(&self, time: Option<Duration>) {
        SockRef::from(&self.stream).set_linger(time).expect("the kernel knows SO_LINGER");
    }

    /// A WebSocket.
    pub fn open(server: SocketAddr) -> Self {
        let mut client = Self::connect(server);
        client.say(head("", ""));
        client.hear("\r\n\r\n");
        client
    }

    /// Says something, as far as the server listens.
    pub fn say(&self, bytes: impl AsRef<[u8]>) {
        let _ = (&self.stream).write_all(bytes.as_ref());
    }

    /// Says the same over and over, until the server has taken none of it for a while. Gives the bytes it took.
    pub fn say_until_stuck(&self, bytes: &[u8], bytes_max: usize) -> usize {
        self.stream.set_write_timeout(Some(Duration::from_millis(300))).expect("a timeout above zero is allowed");
        let mut said = 0;
        while said < bytes_max {
            match (&self.stream).write(&bytes[said % bytes.len()..]) {
                Ok(written) => said += written,
                Err(error) if matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut) => return said,
                Err(error) => panic!("the server is to listen, or not: {error}"),
            }
        }
        panic!("the server took {said} bytes of a client that does not read");
    }

    /// Reads until something has been said; forgets everything up to there.
    #[track_caller]
    pub fn hear(&mut self, needle: &str) -> String {
        let mut chunk = [0; 4_096];
        loop {
            if let Some(at) = self.heard.windows(needle.len()).position(|window| window == needle.as_bytes()) {
                let before: Vec<u8> = self.heard.drain(..at + needle.len()).collect();
                return String::from_utf8_lossy(&before).into_owned();
            }
            match self.stream.read(&mut chunk) {
                Ok(n) if n > 0 => self.heard.extend(&chunk[..n]),
                end => panic!("{end:?} before {needle:?}, after {:?}", String::from_utf8_lossy(&self.heard)),
            }
        }
    }

    /// Sends a text message and waits for something in what follows.
    #[track_caller]
    pub fn ask(&mut self, text: &str, needle: &str) {
        self.say(frame(TEXT, true, text.as_bytes()));
        self.hear(needle);
    }

    /// Joins a topic with ref 1.
    #[track_caller]
    pub fn join(&mut self, topic: &str) {
        self.ask(&format!(r#"["1","1","{topic}","phx_join",{{}}]"#), "\"ok\"");
    }

    /// Ends the connection with a FIN, after the server's.
    pub fn end(mut self) {
        self.linger(None);
        let _ = self.stream.shutdown(std::net::Shutdown::Write);
        while self.stream.read(&mut [0; 4_096]).is_ok_and(|n| n > 0) {}
    }
}

/// The head of a handshake, with more in its query and more headers.
pub fn head(query: &str, headers: &str) -> String {
    format!(
        "GET /socket/websocket?vsn=2.0.0{query} HTTP/1.1\r\nHost: localhost\r\nUpgrade: websocket\r\n\
         Connection: Upgrade\r\nSec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n{headers}\r\n"
    )
}

/// A client's frame, masked with zeros: its payload stands as it is.
pub fn frame(opcode: u8, fin: bool, payload: &[u8]) -> Vec<u8> {
    let mut frame = vec![u8::from(fin) << 7 | opcode];
    match u16::try_from(payload.len()) {
        Ok(short @ 0..=125) => frame.push(0x80 | short as u8),
        Ok(medium) => {
            frame.push(0x80 | 126);
            frame.extend(medium.to_be_bytes());
        }
        Err(_) => {
            frame.push(0x80 | 127);
            frame.extend((payload.len() as u64).to_be_bytes());
        }
    }
    frame.extend([0; 4]);
    frame.extend(payload);
    frame
}

/// The target of the requests of a new long-poll session, which `client` begins.
pub fn begin_longpoll(client: &mut Client) -> String {
    client.say("GET /socket/longpoll?vsn=2.0.0 HTTP/1.1\r\nHost: localhost\r\n\r\n");
    client.hear("\"token\":\"");
    let token = client.hear("\"");
    client.hear("}");
    format!("/socket/longpoll?vsn=2.0.0&token={}", token.trim_end_matches('"'))
}

/// A POST of a body that has so many bytes, and begins so.
pub fn post(target: &str, bytes: usize, begin: &str) -> String {
    format!(
        "POST {target} HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/x-ndjson\r\nContent-Length: {bytes}\r\n\r\n\
         {begin}"
    )
}
