//! What a session has with the upstreams behind its server.

use std::sync::Arc;

use parking_lot::Mutex;
use serde_json::value::RawValue;

use super::slot::Slot;

/// The connections that a session uses, and what its client said of itself.
pub(in crate::mcp) struct Attachment {
    /// The params of `initialize`, or of one that says the same.
    introduction: Mutex<Option<Box<RawValue>>>,
    slots: Mutex<Vec<Arc<Slot>>>,
}

impl Attachment {
    pub(in crate::mcp) fn new(introduction: Option<Box<RawValue>>) -> Self {
        Attachment { introduction: Mutex::new(introduction), slots: Mutex::default() }
    }

    pub(in crate::mcp) fn introduction(&self) -> Option<Box<RawValue>> {
        self.introduction.lock().clone()
    }

    pub(in crate::mcp) fn introduce(&self, params: Box<RawValue>) {
        *self.introduction.lock() = Some(params);
    }

    /// Notes a connection; whether it is new here.
    pub(in crate::mcp) fn add(&self, slot: &Arc<Slot>) -> bool {
        let mut slots = self.slots.lock();
        let is_new = !slots.iter().any(|other| Arc::ptr_eq(other, slot));
        if is_new {
            slots.push(Arc::clone(slot));
        }
        is_new
    }

    pub(in crate::mcp) fn slots(&self) -> Vec<Arc<Slot>> {
        self.slots.lock().clone()
    }

    /// Lets all connections go.
    pub(in crate::mcp) fn detach(&self, number: u64) {
        let slots = std::mem::take(&mut *self.slots.lock());
        for slot in slots {
            slot.detach(number);
        }
    }
}
