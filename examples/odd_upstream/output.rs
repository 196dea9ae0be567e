//! Where messages are written: lines of stdout, or events of an HTTP response.

use std::io::{self, Write};
use std::net::TcpStream;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Mutex, PoisonError};
use std::thread;
use std::time::Duration;

/// Between two pieces of a message, long enough that they are read apart.
const PAUSE_BETWEEN_PIECES: Duration = Duration::from_millis(1);

static HUNG: AtomicBool = AtomicBool::new(false);

/// Has every thread stand still that reads or writes from now on.
pub fn hang() -> ! {
    HUNG.store(true, Ordering::SeqCst);
    loop {
        thread::park();
    }
}

/// Returns unless the process hangs.
pub fn unless_hung() {
    if HUNG.load(Ordering::SeqCst) {
        hang();
    }
}

/// One stream of messages. Each of its writes is whole.
pub struct Output {
    to: Mutex<To>,
    /// Nobody reads it.
    broken: AtomicBool,
    events: AtomicU64,
}

enum To {
    Stdout(io::Stdout),
    /// An event stream in chunks.
    Sse(TcpStream),
}

impl Output {
    pub fn stdout() -> Self {
        Output::to(To::Stdout(io::stdout()))
    }

    /// A response with that head.
    pub fn sse(mut stream: TcpStream, head: &str) -> Self {
        let is_broken = stream.write_all(head.as_bytes()).is_err();
        let output = Output::to(To::Sse(stream));
        output.broken.store(is_broken, Ordering::SeqCst);
        output.write(b": odd comment\nid: start\nretry: 1000\nx-odd-field: 1e2\ndata:\n\n");
        output
    }

    fn to(to: To) -> Self {
        Output { to: Mutex::new(to), broken: AtomicBool::new(false), events: AtomicU64::new(0) }
    }

    pub fn is_broken(&self) -> bool {
        self.broken.load(Ordering::SeqCst)
    }

    /// Sends a message.
    pub fn send(&self, text: &str) {
        self.send_bytes(text.as_bytes());
    }

    /// Sends what need not be a message, framed as one.
    pub fn send_bytes(&self, bytes: &[u8]) {
        self.write(&self.framed(bytes));
    }

    /// Sends a message, seven bytes at a time.
    pub fn send_in_pieces(&self, text: &str) {
        let framed = self.framed(text.as_bytes());
        self.write_pieces(framed.chunks(7), PAUSE_BETWEEN_PIECES);
    }

    /// Sends the first half of a message.
    pub fn send_half(&self, text: &str) {
        self.write(&self.framed(text.as_bytes())[..text.len() / 2]);
    }

    /// Ends the body of a response.
    pub fn end(&self) {
        if let To::Sse(stream) = &mut *self.lock() {
            // Who has gone needs no end.
            let _ = stream.write_all(b"0\r\n\r\n");
        }
    }

    fn framed(&self, text: &[u8]) -> Vec<u8> {
        match &*self.lock() {
            To::Stdout(_) => [text, b"\n"].concat(),
            To::Sse(_) => {
                let id = self.events.fetch_add(1, Ordering::SeqCst);
                let mut event = format!("event: message\r\nid: {id}\r\n").into_bytes();
                for line in text.split(|byte| *byte == b'\n') {
                    event.extend_from_slice(b"data:");
                    // The blank after the colon is optional; every other event goes without.
                    event.extend_from_slice(if id.is_multiple_of(2) { b" " } else { b"" });
                    event.extend_from_slice(line.strip_suffix(b"\r").unwrap_or(line));
                    event.extend_from_slice(b"\r\n");
                }
                event.extend_from_slice(b"\r\n");
                event
            }
        }
    }

    fn write(&self, bytes: &[u8]) {
        self.write_pieces([bytes].into_iter(), Duration::ZERO);
    }

    fn write_pieces<'a>(&self, pieces: impl Iterator<Item = &'a [u8]>, pause: Duration) {
        let mut to = self.lock();
        for piece in pieces {
            unless_hung();
            if to.write_piece(piece).is_err() {
                self.broken.store(true, Ordering::SeqCst);
                return;
            }
            thread::sleep(pause);
        }
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, To> {
        self.to.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl To {
    fn write_piece(&mut self, piece: &[u8]) -> io::Result<()> {
        match self {
            To::Stdout(stdout) => {
                stdout.write_all(piece)?;
                stdout.flush()
            }
            To::Sse(stream) => {
                let chunk = [format!("{:x}\r\n", piece.len()).as_bytes(), piece, b"\r\n"].concat();
                stream.write_all(&chunk)
            }
        }
    }
}
