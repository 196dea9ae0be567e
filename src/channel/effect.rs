//! What a handler does besides answering: effects, collected while it is polled.
//!
//! A handler runs inside its connection's task, so its effects go to a thread-local list that the host empties after
//! every poll. A waiting handler's pushes leave at once, and an idle channel pays nothing.

use std::cell::RefCell;

use crate::outbox::Broadcast;
use crate::protocol::message::Payload;
use crate::protocol::socket::ChannelId;

/// One thing a handler did.
#[derive(Debug)]
pub(crate) enum Effect {
    /// A push to the channel's client; with a position, if it has one, where other pushes have no `ref`.
    Push { event: Box<str>, payload: Payload, position: Option<u64> },
    /// A broadcast.
    Broadcast(Broadcast),
}

thread_local! {
    static EFFECTS: RefCell<Vec<(ChannelId, Effect)>> = const { RefCell::new(Vec::new()) };
}

/// Adds an effect of the handler that is being polled on this thread.
pub(crate) fn record(channel: ChannelId, effect: Effect) {
    EFFECTS.with_borrow_mut(|effects| effects.push((channel, effect)));
}

/// Forgets effects that were recorded outside a poll: by a guard in a future that was dropped, say. They are nobody's.
pub(crate) fn discard() {
    EFFECTS.with_borrow_mut(Vec::clear);
}

/// Takes the effects of the poll that just ended. Does not allocate where there are none.
pub(crate) fn take() -> Vec<(ChannelId, Effect)> {
    EFFECTS.with_borrow_mut(|effects| if effects.is_empty() { Vec::new() } else { std::mem::take(effects) })
}
