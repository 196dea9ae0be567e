//! An MCP conversation against rules on decoded values.
//!
//! The model knows which requests are under way by their ids as values, how the client has opened, and nothing else: so it
//! says of each message whether it may be served, and the peer says the same or the input is a finding.

use std::sync::Arc;

use serde_json::Value;

use crate::protocol::Time;
use crate::protocol::jsonrpc::{AskId, CallNumber, Patience};
use crate::protocol::mcp::client::{Client, Era, META_CAPABILITIES, META_VERSION};
use crate::protocol::mcp::peer::{Peer, Received};
use crate::protocol::mcp::{ID_BYTES_MAX, REQUEST_BYTES_MAX};

/// A peer and what a client says to it. Input: how the client opens, then messages, one a line; a line `!` answers the
/// oldest request under way, a line `?` makes one of the server's.
///
/// # Panics
/// If the peer serves what may not be served, refuses what may, or counts requests other than the model.
pub fn mcp_peer(data: &[u8]) {
    let (mut peer, era) = match data.first() {
        Some(0) => {
            let capabilities = crate::protocol::jsonrpc::raw(&serde_json::json!({}));
            (Peer::joined(Client::joined("n", "1", &capabilities)), Some(Era::Elixir))
        }
        _ => (Peer::default(), None),
    };
    let mut model = Model { era, under_way: Vec::new(), asked: Vec::new() };
    for (time, line) in data.get(1..).unwrap_or_default().split(|byte| *byte == b'\n').enumerate() {
        let now = Time(time as u64);
        match line {
            b"!" => model.answer(&mut peer),
            b"?" => model.ask(&mut peer, now),
            text => model.message(&mut peer, text, now, 0),
        }
        assert_eq!(peer.under_way(), model.under_way.len(), "requests under way");
        assert_eq!(peer.asking.len(), model.asked.len(), "requests of the server that wait");
    }
}

struct Model {
    era: Option<Era>,
    /// By the id's value, as far as values tell ids apart.
    under_way: Vec<(CallNumber, String)>,
    asked: Vec<AskId>,
}

impl Model {
    fn answer(&mut self, peer: &mut Peer) {
        if !self.under_way.is_empty() {
            let (number, _) = self.under_way.remove(0);
            assert!(peer.finish(number), "the answer to a request under way is wanted");
            assert!(!peer.finish(number), "a request is answered once");
        }
    }

    fn ask(&mut self, peer: &mut Peer, now: Time) {
        let patience = Patience { idle_ms: 5, total_ms: 50 };
        if let Ok(id) = peer.asking.ask(CallNumber(0), patience, 4, now) {
            self.asked.push(id);
        } else {
            assert_eq!(self.asked.len(), 4, "the limit");
        }
    }

    fn message(&mut self, peer: &mut Peer, text: &[u8], now: Time, depth: usize) {
        let value = serde_json::from_slice::<Value>(text).ok();
        match peer.receive(text, now) {
            Received::Serve(call) => {
                let fields = value.as_ref().and_then(Value::as_object);
                // Values have no nesting without end and no numbers beyond doubles; raw text has.
                if let Some(fields) = fields {
                    assert_eq!(fields["jsonrpc"], "2.0");
                    assert!(fields.contains_key("id") && fields["method"].is_string());
                }
                assert!(
                    call.id.get().len() <= ID_BYTES_MAX && text.len() <= REQUEST_BYTES_MAX + 4_096 + text.len() / 2
                );
                let key = key(call.id.get());
                assert!(!self.under_way.iter().any(|(_, other)| *other == key), "an id is served once at a time");
                let is_stateless = call.client.era == Era::Modern;
                let may = is_stateless || self.era.is_some() || matches!(call.method.as_str(), "initialize" | "ping");
                assert!(may, "{} before any handshake", call.method);
                if call.method == "initialize" && !is_stateless {
                    assert_ne!(self.era, Some(Era::Legacy), "one handshake");
                    self.era = Some(Era::Legacy);
                    peer.initialize(Arc::clone(&call.client));
                }
                self.under_way.push((call.number, key));
            }
            Received::Cancel(number, _) => {
                let index = self.under_way.iter().position(|(other, _)| *other == number);
                self.under_way.remove(index.expect("only a request under way can be cancelled"));
            }
            Received::Answered(ask, _) => {
                let index = self.asked.iter().position(|other| *other == ask);
                self.asked.remove(index.expect("only a request of the server that waits is answered"));
            }
            Received::Batch(messages) => {
                assert_eq!((depth, self.era), (0, Some(Era::Legacy)), "batches are for one revision, and do not nest");
                for message in messages {
                    // What is in a batch is no batch.
                    if !message.get().starts_with('[') {
                        self.message(peer, message.get().as_bytes(), now, depth + 1);
                    }
                }
            }
            Received::Refuse(_, fault) => {
                assert!(!fault.to_string().is_empty());
                if let Some(value) = &value {
                    self.may_refuse(value);
                }
            }
            Received::Nothing
            | Received::Initialized
            | Received::RootsChanged
            | Received::Progress(..)
            | Received::Other(_) => {}
        }
    }

    /// A plain request in an open conversation, whose id is free, has to be served.
    fn may_refuse(&self, value: &Value) {
        let Some(fields) = value.as_object() else { return };
        let is_plain = fields.len() == 4
            && fields.get("jsonrpc").is_some_and(|version| version == "2.0")
            && fields.get("method").is_some_and(|method| method == "tools/list" || method == "ping")
            && fields.get("params").is_some_and(|params| params.as_object().is_some_and(serde_json::Map::is_empty));
        let id = fields.get("id").and_then(Value::as_u64);
        if let (true, Some(id), Some(_)) = (is_plain, id, self.era) {
            assert!(self.under_way.iter().any(|(_, other)| *other == key(&id.to_string())), "refused without a reason");
        }
        let meta = fields.get("params").and_then(|params| params.get("_meta"));
        let says = |key: &str| meta.and_then(|meta| meta.get(key));
        if is_plain {
            assert!(says(META_VERSION).is_none() && says(META_CAPABILITIES).is_none());
        }
    }
}

/// The id as a value where it has one, and otherwise as its text.
fn key(id: &str) -> String {
    match serde_json::from_str::<Value>(id) {
        Ok(value @ (Value::String(_) | Value::Array(_) | Value::Object(_))) => value.to_string(),
        _ => id.to_owned(),
    }
}
