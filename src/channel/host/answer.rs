//! Answers to the client, encoded and framed.

use super::{Fatal, Host};
use crate::protocol::message::{PHX_ERROR, Payload, Ref, Reply};
use crate::protocol::websocket::{self, Opcode};
use crate::protocol::wire::{self, EncodeError, Kind, Text, WireVersion};

impl Host {
    pub(super) fn unmatched(&mut self, reference: &Ref, topic: &Text<'_>, out: &mut Vec<u8>) {
        let reply = Reply::error(Payload::reason("unmatched topic"));
        self.answer(out, &Ref::NULL, reference, topic, &reply);
    }

    pub(super) fn answer(
        &mut self,
        out: &mut Vec<u8>,
        join_ref: &Ref,
        reference: &Ref,
        topic: &Text<'_>,
        reply: &Reply,
    ) {
        if let Err(error) = self.encode_reply(out, join_ref, reference, topic, reply) {
            self.fatal = Some(Box::new(Fatal(error.to_string())));
        }
    }

    pub(super) fn encode_reply(
        &self,
        out: &mut Vec<u8>,
        join_ref: &Ref,
        reference: &Ref,
        topic: &Text<'_>,
        reply: &Reply,
    ) -> Result<(), EncodeError> {
        let version = self.conn.version();
        frame(out, |out| wire::encode_reply(version, out, join_ref, reference, topic, &reply.status, &reply.response))
    }

    pub(super) fn encode_end(&mut self, topic: &str, join_ref: &Ref, event: &str, out: &mut Vec<u8>) {
        let payload = if event == PHX_ERROR { Payload::reason("channel_crash") } else { Payload::EMPTY };
        let version: WireVersion = self.conn.version();
        let ended = frame(out, |out| wire::encode_message(version, out, join_ref, join_ref, topic, event, &payload));
        if let Err(error) = ended {
            self.fatal = Some(Box::new(Fatal(error.to_string())));
        }
    }

    pub(super) fn reply(&mut self, at: usize, reference: &Ref, reply: &Reply, out: &mut Vec<u8>) -> Result<(), String> {
        let entry = self.socket.entry(at);
        let (version, name) = (self.conn.version(), text(&entry.topic));
        frame(out, |out| {
            wire::encode_reply(version, out, entry.push_ref(), reference, &name, &reply.status, &reply.response)
        })
        .map_err(|error| error.to_string())
    }
}

pub(super) fn text(topic: &str) -> Text<'_> {
    Text::Str(topic.into())
}

/// Appends one server frame around the message that `encode` appends.
pub(super) fn frame(
    out: &mut Vec<u8>,
    encode: impl FnOnce(&mut Vec<u8>) -> Result<Kind, EncodeError>,
) -> Result<(), EncodeError> {
    let start = websocket::begin_frame(out);
    match encode(out) {
        Ok(kind) => {
            let opcode = if kind == Kind::Text { Opcode::Text } else { Opcode::Binary };
            websocket::end_frame(out, start, opcode);
            Ok(())
        }
        Err(error) => {
            out.truncate(start);
            Err(error)
        }
    }
}
