//! What a client has been sent and nobody has asserted yet.

use std::time::Duration;

use parking_lot::Mutex;
use tokio::sync::Notify;

use super::message::Message;
use crate::protocol::limits::ORPHAN_HANDLER_MS;

/// How long an assertion waits for what should come. On a paused clock this passes at once when nothing else is left to do.
pub(super) const ASSERT_TIMEOUT: Duration = Duration::from_secs(5);
/// How long a refutation waits for what should not come. Source: `Phoenix.ChannelTest`, `refute_receive_timeout`.
pub(super) const REFUTE_TIMEOUT: Duration = Duration::from_millis(100);

/// How long a socket may take to close: its handlers may run on for a while.
const CLOSE_TIMEOUT: Duration = Duration::from_millis(ORPHAN_HANDLER_MS + 5_000);

/// Shared by a connection's task, its socket and its channels.
#[derive(Debug, Default)]
pub(super) struct Mailbox {
    state: Mutex<State>,
    changed: Notify,
}

#[derive(Debug, Default)]
struct State {
    messages: Vec<Message>,
    closed: Option<u16>,
}

impl Mailbox {
    pub(super) fn put(&self, messages: Vec<Message>) {
        if !messages.is_empty() {
            self.state.lock().messages.extend(messages);
            self.changed.notify_waiters();
        }
    }

    /// The connection has ended, with the first code it is given.
    pub(super) fn close(&self, code: u16) {
        self.state.lock().closed.get_or_insert(code);
        self.changed.notify_waiters();
    }

    /// Takes the first message that is wanted, waiting for it.
    ///
    /// # Panics
    /// If it doesn't come, naming what did.
    pub(super) async fn expect(&self, what: &str, wanted: impl Fn(&Message) -> bool) -> Message {
        match self.wait(ASSERT_TIMEOUT, |state| take(state, &wanted)).await {
            Some(message) => message,
            None => panic!("expected {what}, {}", self.describe()),
        }
    }

    /// # Panics
    /// If a message comes that is not wanted.
    pub(super) async fn refute(&self, what: &str, unwanted: impl Fn(&Message) -> bool) {
        if let Some(message) = self.wait(REFUTE_TIMEOUT, |state| take(state, &unwanted)).await {
            panic!("expected no {what}, got {message:?}");
        }
    }

    /// Takes the next message, whatever it is. None once the connection has ended, or if nothing comes.
    pub(super) async fn next(&self) -> Option<Message> {
        let next = self.wait(ASSERT_TIMEOUT, |state| {
            let next = take(state, &|_| true);
            (next.is_some() || state.closed.is_some()).then_some(next)
        });
        next.await.flatten()
    }

    /// # Panics
    /// If the connection doesn't end.
    pub(super) async fn closed(&self) -> u16 {
        match self.wait(CLOSE_TIMEOUT, |state| state.closed).await {
            Some(code) => code,
            None => panic!("expected the socket to close, {}", self.describe()),
        }
    }

    async fn wait<T>(&self, timeout: Duration, mut find: impl FnMut(&mut State) -> Option<T>) -> Option<T> {
        let found = async {
            loop {
                let changed = self.changed.notified();
                if let Some(found) = find(&mut self.state.lock()) {
                    return found;
                }
                changed.await;
            }
        };
        tokio::time::timeout(timeout, found).await.ok()
    }

    fn describe(&self) -> String {
        let state = self.state.lock();
        let mut text = match state.closed {
            Some(code) => format!("and the socket has closed with {code}"),
            None => "and the socket is open".to_owned(),
        };
        text.push_str(if state.messages.is_empty() { "; nothing waits" } else { "; what waits:" });
        for message in &state.messages {
            text.push_str(&format!("\n  {message:?}"));
        }
        text
    }
}

fn take(state: &mut State, wanted: &impl Fn(&Message) -> bool) -> Option<Message> {
    let at = state.messages.iter().position(wanted)?;
    Some(state.messages.remove(at))
}
