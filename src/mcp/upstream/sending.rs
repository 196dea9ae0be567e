//! What waits to be sent to an upstream, in order and bounded.

use std::collections::VecDeque;

use bytes::Bytes;
use parking_lot::Mutex;
use tokio::sync::Notify;

/// Bytes that wait for one connection with an upstream; a request above that is refused.
const SENDING_BYTES_MAX: usize = 8 << 20;
/// Messages that wait; cancellations and answers are few beside requests, which the calls under way bound.
const SENDING_MESSAGES_MAX: usize = 16_384;

/// One message for an upstream.
#[derive(Debug)]
pub(super) struct Message {
    /// The number of a request of ours; none for what is not answered.
    pub(super) id: Option<u64>,
    /// The method of a request.
    pub(super) method: Box<str>,
    pub(super) text: Bytes,
}

/// The upstream does not read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Full;

/// The messages that wait.
#[derive(Default)]
pub(super) struct Sending {
    state: Mutex<State>,
    more: Notify,
}

#[derive(Default)]
struct State {
    queue: VecDeque<Message>,
    bytes: usize,
}

impl Sending {
    /// Adds a message.
    ///
    /// # Errors
    /// [`Full`].
    pub(super) fn push(&self, message: Message) -> Result<(), Full> {
        {
            let mut state = self.state.lock();
            if state.bytes + message.text.len() > SENDING_BYTES_MAX || state.queue.len() >= SENDING_MESSAGES_MAX {
                return Err(Full);
            }
            state.bytes += message.text.len();
            state.queue.push_back(message);
        }
        self.more.notify_one();
        Ok(())
    }

    /// Takes a request out that was not sent yet; whether it was there.
    pub(super) fn withdraw(&self, id: u64) -> bool {
        let mut state = self.state.lock();
        let Some(place) = state.queue.iter().position(|message| message.id == Some(id)) else {
            return false;
        };
        let gone = state.queue.remove(place).expect("the place was found above");
        state.bytes -= gone.text.len();
        true
    }

    /// The next message, if one waits.
    pub(super) fn try_next(&self) -> Option<Message> {
        let mut state = self.state.lock();
        let message = state.queue.pop_front()?;
        state.bytes -= message.text.len();
        Some(message)
    }

    /// Waits for the next message. Cancel-safe, for one reader.
    pub(super) async fn next(&self) -> Message {
        loop {
            if let Some(message) = self.try_next() {
                return message;
            }
            self.more.notified().await;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn message(id: u64, bytes: usize) -> Message {
        Message { id: Some(id), method: "m".into(), text: Bytes::from(vec![b'x'; bytes]) }
    }

    #[tokio::test]
    async fn messages_come_out_in_order_unless_they_are_withdrawn() {
        let sending = Sending::default();
        for id in 1..=3 {
            assert_eq!(sending.push(message(id, 1)), Ok(()));
        }

        assert!(sending.withdraw(2) && !sending.withdraw(2));

        assert_eq!((sending.next().await.id, sending.next().await.id), (Some(1), Some(3)));
        assert!(sending.try_next().is_none());
    }

    #[test]
    fn an_upstream_that_does_not_read_is_refused_more() {
        let sending = Sending::default();

        assert_eq!(sending.push(message(1, SENDING_BYTES_MAX)), Ok(()));
        assert_eq!(sending.push(message(2, 1)), Err(Full));
        assert!(sending.try_next().is_some());
        assert_eq!(sending.push(message(2, 1)), Ok(()));
    }
}
