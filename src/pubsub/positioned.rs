//! Frames with positions: what those who can resume a topic get.

use crate::metrics::METRICS;
use crate::outbox::Broadcast;
use crate::protocol::history::Gap;
use crate::protocol::message::{GAP, POSITION, Payload, Ref};
use crate::protocol::websocket::{self, Opcode};
use crate::protocol::wire::{self, EncodeError, Kind, WireVersion};

/// Appends a broadcast with its offset, and where its frame has no room for that, a `position` behind it. Nothing, and false,
/// where the version can't carry the payload.
pub(crate) fn write_broadcast(out: &mut Vec<u8>, version: WireVersion, broadcast: &Broadcast, offset: u64) -> bool {
    let Broadcast { topic, event, payload, .. } = broadcast;
    let position = Ref::position(offset);
    let written = frame(out, |out| wire::encode_broadcast_at(version, out, &position, topic, event, payload));
    match written {
        Ok(Kind::Text) => true,
        Ok(Kind::Binary) => {
            write_position(out, version, topic, offset);
            true
        }
        Err(error) => {
            METRICS.unencodable_broadcasts.inc();
            tracing::warn!(topic = %topic, event = %event, ?version, %error, "broadcast skipped");
            false
        }
    }
}

/// Appends a `position`.
pub(crate) fn write_position(out: &mut Vec<u8>, version: WireVersion, topic: &str, offset: u64) {
    write_event(out, version, &Ref::position(offset), topic, POSITION, &Payload::EMPTY);
}

/// Appends a `gap`.
pub(super) fn write_gap(out: &mut Vec<u8>, version: WireVersion, topic: &str, gap: &Gap) {
    write_event(out, version, &Ref::position(gap.offset), topic, GAP, &gap.payload());
}

fn write_event(out: &mut Vec<u8>, version: WireVersion, position: &Ref, topic: &str, event: &str, payload: &Payload) {
    frame(out, |out| wire::encode_broadcast_at(version, out, position, topic, event, payload))
        .expect("both versions carry an object");
}

fn frame(
    out: &mut Vec<u8>,
    encode: impl FnOnce(&mut Vec<u8>) -> Result<Kind, EncodeError>,
) -> Result<Kind, EncodeError> {
    let start = websocket::begin_frame(out);
    match encode(out) {
        Ok(kind) => {
            websocket::end_frame(out, start, if kind == Kind::Text { Opcode::Text } else { Opcode::Binary });
            Ok(kind)
        }
        Err(error) => {
            out.truncate(start);
            Err(error)
        }
    }
}
