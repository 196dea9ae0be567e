//! A whole list of an upstream, page by page: for those who need to know everything that it offers.

use std::sync::Arc;

use serde_json::value::RawValue;

use super::Upstream;
use super::instance::{Hello, result_of};
use super::slot::{Slot, Standing};
use crate::mcp::session::Session;
use crate::protocol::jsonrpc::Object;
use crate::protocol::mcp::client::{Client, Era};
use crate::protocol::mcp::hub::Shelf;
use crate::protocol::mcp::relay::{self, Introduction};

/// Pages that are read of one list.
const PAGES_MAX: usize = 100;
/// Items of one list.
const ITEMS_MAX: usize = 10_000;
/// Bytes of one list.
const BYTES_MAX: usize = 8 << 20;

/// Every item of a list, as the client takes it; `None` where the upstream can't be asked. Then the session is told of a change
/// as soon as it can.
pub(in crate::mcp) async fn whole_list(
    upstream: &Arc<Upstream>,
    session: &Arc<Session>,
    client: &Client,
    introduction: &Introduction,
    shelf: Shelf,
) -> Option<Vec<String>> {
    let lease = upstream.lease(session, client, introduction).ok()?;
    let slot = lease.slot();
    session.attach(slot);
    let mut left_out = LeftOut(Some(Arc::clone(slot)));
    let is_away = match slot.standing() {
        Standing::Up(_) => false,
        Standing::Down { why, .. } => why.is_some() || slot.is_missed(),
        Standing::Starting | Standing::Closed => slot.is_missed(),
    };
    if is_away {
        // It is tried again; nobody waits for that twice.
        slot.want();
        return None;
    }
    let instance = slot.up().await.ok()?;
    // From here on it tells by itself when it is back.
    left_out.0 = None;
    let is_modern = instance.hello().is_some_and(Hello::is_modern);
    if !instance.hello().is_some_and(|hello| hello.can(&[shelf.capability()])) {
        return Some(Vec::new());
    }
    let (mut items, mut bytes, mut cursor) = (Vec::new(), 0, None::<Box<RawValue>>);
    for _ in 0..PAGES_MAX {
        let method = shelf.method();
        let mut ticket = instance
            .request(None, method, |id| {
                let params = cursor.as_ref().map_or("{}".to_owned(), |cursor| format!(r#"{{"cursor":{cursor}}}"#));
                let text = format!(r#"{{"jsonrpc":"2.0","id":{id},"method":"{method}","params":{params}}}"#);
                if is_modern { relay::into_stateless(&text, introduction, None) } else { text }
            })
            .ok()?;
        let text = ticket.answer().await.ok()?;
        let text = String::from_utf8_lossy(&text);
        if shelf == Shelf::Tools {
            upstream.learned.note_tools(&text);
        }
        let text = match (client.era == Era::Modern, is_modern) {
            (false, true) => relay::answer_for_legacy(&text, method),
            _ => text.into_owned(),
        };
        let result = result_of(text.as_bytes()).ok()?;
        let result = Object::parse(result.get().as_bytes())?;
        for item in result.get::<Vec<&RawValue>>(shelf.list_key()).unwrap_or_default() {
            bytes += item.get().len();
            if items.len() >= ITEMS_MAX || bytes > BYTES_MAX {
                tracing::warn!(server = &*upstream.name, list = shelf.list_key(), "a list is too long, and cut");
                return Some(items);
            }
            items.push(item.get().to_owned());
        }
        cursor = result.raw("nextCursor").filter(|cursor| cursor.get() != "null").map(ToOwned::to_owned);
        if cursor.is_none() {
            break;
        }
    }
    Some(items)
}

/// A list that is given without an upstream, unless it comes to hold its items: its session is told when that is back.
struct LeftOut(Option<Arc<Slot>>);

impl Drop for LeftOut {
    fn drop(&mut self) {
        if let Some(slot) = &self.0 {
            slot.miss();
        }
    }
}
