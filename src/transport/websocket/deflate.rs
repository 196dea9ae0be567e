//! What a connection that compresses makes of its frames: each data frame by itself (no context takeover on our side).

use std::cell::RefCell;
use std::collections::BTreeMap;

use crate::protocol::websocket::deflate::{Compressor, Negotiated};
use crate::protocol::websocket::{Opcode, ServerFrameKind, ServerFrames};

/// How the frames of one connection are compressed.
pub(super) struct Deflate {
    window_bits: u8,
}

/// How hard to compress: zlib's own default.
const LEVEL: u32 = 6;

thread_local! {
    /// Compressors hold some 256 KB and nothing between messages, so a thread's connections share one a window size.
    static COMPRESSORS: RefCell<BTreeMap<u8, Compressor>> = const { RefCell::new(BTreeMap::new()) };
}

impl Deflate {
    pub(super) fn new(negotiated: &Negotiated) -> Self {
        Deflate { window_bits: negotiated.server_window_bits() }
    }

    /// Appends plain frames, of which there are whole ones only.
    pub(super) fn compress(&self, plain: &[u8], compressed: &mut Vec<u8>) {
        COMPRESSORS.with_borrow_mut(|compressors| {
            let bits = self.window_bits;
            let compressor = compressors.entry(bits).or_insert_with(|| Compressor::new(bits, LEVEL));
            let mut frames = ServerFrames::new(plain);
            let mut rest = plain;
            while let Some(frame) = frames.next() {
                let raw = &rest[..rest.len() - frames.rest().len()];
                rest = frames.rest();
                match frame.kind {
                    ServerFrameKind::Text => compressor.compress_frame(compressed, Opcode::Text, frame.payload),
                    ServerFrameKind::Binary => compressor.compress_frame(compressed, Opcode::Binary, frame.payload),
                    _ => compressed.extend_from_slice(raw),
                }
            }
        });
    }
}
