//! The writing half of a connection that compresses.
//!
//! Its outbox is a queued sink: everybody appends plain frames, the connection's task takes them, compresses each data
//! frame by itself (no context takeover on our side) and writes.

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::io;
use std::task::{Context, Poll};

use tokio::net::tcp::OwnedWriteHalf;

use crate::outbox::{Conn, Status};
use crate::protocol::websocket::deflate::{Compressor, Negotiated};
use crate::protocol::websocket::{Opcode, ServerFrameKind, ServerFrames};

/// Compresses and writes.
pub(super) struct Writer {
    stream: OwnedWriteHalf,
    window_bits: u8,
    compressed: Vec<u8>,
}

/// How hard to compress: zlib's own default.
const LEVEL: u32 = 6;

thread_local! {
    /// Compressors hold some 256 KB and nothing between messages, so a thread's connections share one a window size.
    static COMPRESSORS: RefCell<BTreeMap<u8, Compressor>> = const { RefCell::new(BTreeMap::new()) };
}

impl Writer {
    pub(super) fn new(stream: OwnedWriteHalf, negotiated: &Negotiated) -> Box<Self> {
        Box::new(Writer { stream, window_bits: negotiated.server_window_bits(), compressed: Vec::new() })
    }

    /// Writes what waits. Ready when nothing does, or the connection is no longer open.
    pub(super) fn poll_flush(&mut self, conn: &Conn, cx: &mut Context<'_>) -> Poll<Status> {
        loop {
            if self.compressed.is_empty() {
                let (plain, status) = conn.take_pending();
                if plain.is_empty() || status != Status::Open {
                    return Poll::Ready(status);
                }
                self.compress(&plain);
            }
            match self.stream.try_write(&self.compressed) {
                Ok(written) if written == self.compressed.len() => self.compressed = Vec::new(),
                Ok(written) => drop(self.compressed.drain(..written)),
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                    match self.stream.as_ref().poll_write_ready(cx) {
                        Poll::Pending => return Poll::Pending,
                        Poll::Ready(Ok(())) => {}
                        Poll::Ready(Err(_)) => return Poll::Ready(Status::Closed),
                    }
                }
                Err(_) => return Poll::Ready(Status::Closed),
            }
        }
    }

    fn compress(&mut self, plain: &[u8]) {
        COMPRESSORS.with_borrow_mut(|compressors| {
            let bits = self.window_bits;
            let compressor = compressors.entry(bits).or_insert_with(|| Compressor::new(bits, LEVEL));
            let mut frames = ServerFrames::new(plain);
            let mut rest = plain;
            while let Some(frame) = frames.next() {
                let raw = &rest[..rest.len() - frames.rest().len()];
                rest = frames.rest();
                match frame.kind {
                    ServerFrameKind::Text => {
                        compressor.compress_frame(&mut self.compressed, Opcode::Text, frame.payload);
                    }
                    ServerFrameKind::Binary => {
                        compressor.compress_frame(&mut self.compressed, Opcode::Binary, frame.payload);
                    }
                    _ => self.compressed.extend_from_slice(raw),
                }
            }
        });
    }
}
