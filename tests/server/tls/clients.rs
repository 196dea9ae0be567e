//! A blocking rustls client that sees what a tunnel hides: the certificate, and how a stream ends.

use std::collections::VecDeque;
use std::io::{ErrorKind, Read, Write};
use std::net::{Shutdown, SocketAddr, TcpStream};
use std::sync::Arc;

use rustls::pki_types::{CertificateDer, ServerName};
use rustls::{ClientConfig, ClientConnection, StreamOwned};

use super::certificates::NAME;
use crate::lab::{DEADLINE, handshake};
use crate::transcripts::case::Event;
use crate::transcripts::frames::{Reader, text_frame};

/// A connection whose handshake is done.
pub struct Client {
    stream: StreamOwned<ClientConnection, TcpStream>,
    reader: Reader,
    events: VecDeque<Event>,
}

/// How a stream ended.
#[derive(Debug, PartialEq, Eq)]
pub enum Ended {
    /// With `close_notify`.
    Told,
    /// Without.
    Torn,
}

impl Client {
    /// Connects.
    ///
    /// # Errors
    /// What ended the handshake.
    pub fn connect(server: SocketAddr, config: Arc<ClientConfig>) -> std::io::Result<Self> {
        let mut socket = TcpStream::connect(server)?;
        socket.set_nodelay(true)?;
        socket.set_read_timeout(Some(DEADLINE))?;
        let name = ServerName::try_from(NAME).expect("a host's name");
        let mut session = ClientConnection::new(config, name).expect("the settings fit the name");
        while session.is_handshaking() {
            session.complete_io(&mut socket)?;
        }
        let stream = StreamOwned::new(session, socket);
        Ok(Client { stream, reader: Reader::default(), events: VecDeque::new() })
    }

    /// Connects and opens a WebSocket, which has to be accepted.
    #[track_caller]
    pub fn open(server: SocketAddr, config: Arc<ClientConfig>, qs: &str) -> Self {
        let mut client = Self::connect(server, config).expect("a handshake");
        client.write(handshake(qs).as_bytes());
        let answer = client.next().expect("an answer");
        assert_eq!(answer.status, Some(101), "{answer:?}");
        client
    }

    /// The session, for what was negotiated.
    pub fn session(&self) -> &ClientConnection {
        &self.stream.conn
    }

    /// The server's certificate.
    pub fn certificate(&self) -> CertificateDer<'static> {
        let chain = self.stream.conn.peer_certificates().expect("the handshake is done");
        chain[0].clone()
    }

    pub fn write(&mut self, bytes: &[u8]) {
        self.stream.write_all(bytes).and_then(|()| self.stream.flush()).expect("the server reads");
    }

    pub fn send_text(&mut self, text: &str) {
        self.write(&text_frame(text));
    }

    /// Sends no more: `close_notify`, and the end of this direction of TCP.
    pub fn finish(&mut self) {
        self.stream.conn.send_close_notify();
        self.stream.flush().expect("the server reads");
        self.stream.sock.shutdown(Shutdown::Write).expect("it is connected");
    }

    /// Ends TCP without a word.
    pub fn tear(self) {
        drop(self);
    }

    /// The next event, or how the stream ended.
    ///
    /// # Errors
    /// [`Ended`].
    pub fn next(&mut self) -> Result<Event, Ended> {
        let mut chunk = [0; 16 * 1024];
        loop {
            if let Some(event) = self.events.pop_front() {
                return Ok(event);
            }
            match self.stream.read(&mut chunk) {
                Ok(0) => return Err(Ended::Told),
                Ok(n) => self.events.extend(self.reader.feed(&chunk[..n]).into_iter().map(|received| received.event)),
                Err(error) if error.kind() == ErrorKind::WouldBlock => panic!("nothing came within {DEADLINE:?}"),
                Err(_) => return Err(Ended::Torn),
            }
        }
    }

    /// The text of the next frame, which has to be one.
    #[track_caller]
    pub fn text(&mut self) -> String {
        let event = self.next().expect("a frame");
        event.raw.clone().unwrap_or_else(|| panic!("expected a text, got {event:?}"))
    }

    /// Expects a close with this code, after whatever texts, and then the end of the stream, told as TLS wants it.
    #[track_caller]
    pub fn expect_close(&mut self, code: u16) {
        let event = loop {
            let event = self.next().expect("a close");
            if event.kind != "text" {
                break event;
            }
        };
        assert_eq!((event.kind.as_str(), event.code), ("close", Some(code)), "{event:?}");
        assert_eq!(self.next().map(|event| event.kind), Err(Ended::Told));
    }
}
