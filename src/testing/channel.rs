//! A joined channel, from the client's side.

use std::sync::Arc;

use super::client::Wire;
use super::message::{Message, matches};
use crate::channel::{RecvError, Reply, Subscriber};
use crate::protocol::message::{PHX_CLOSE, PHX_ERROR, PHX_LEAVE, PHX_REPLY, Payload};

/// A message that was pushed, to know its reply by.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Pushed {
    reference: String,
    event: String,
}

/// A joined channel.
#[derive(Debug)]
pub struct TestChannel {
    wire: Arc<Wire>,
    topic: String,
    join_ref: String,
    joined: Payload,
    broadcasts: Subscriber,
    /// Broadcasts that came and were not asserted yet.
    heard: Vec<(String, Payload)>,
}

impl TestChannel {
    pub(super) fn new(
        wire: Arc<Wire>,
        topic: String,
        join_ref: String,
        joined: Payload,
        broadcasts: Subscriber,
    ) -> Self {
        TestChannel { wire, topic, join_ref, joined, broadcasts, heard: Vec::new() }
    }

    /// The topic.
    pub fn topic(&self) -> &str {
        &self.topic
    }

    /// The answer to the join.
    pub fn joined(&self) -> &Payload {
        &self.joined
    }

    /// Pushes an event to the channel.
    ///
    /// # Panics
    /// If the payload is binary and the client speaks wire version 1.
    pub fn push(&self, event: &str, payload: impl Into<Payload>) -> Pushed {
        let reference = self.wire.next_ref();
        self.wire.send(Some(&self.join_ref), &reference, &self.topic, event, &payload.into());
        Pushed { reference, event: event.to_owned() }
    }

    /// Pushes an event and waits for the reply, whatever it is.
    ///
    /// # Panics
    /// If none comes.
    pub async fn call(&self, event: &str, payload: impl Into<Payload>) -> Reply {
        let pushed = self.push(event, payload);
        let reply = self.reply(&pushed, "any reply", |_| true).await;
        Reply { status: reply.status.unwrap_or_default().into(), response: reply.payload }
    }

    /// Waits for the reply to a push; gives its response.
    ///
    /// # Panics
    /// If none comes with this status and a response that matches.
    pub async fn assert_reply(&self, pushed: &Pushed, status: &str, response: impl Into<Payload>) -> Payload {
        let response = response.into();
        let what = format!("a reply {status} {response:?}");
        let is_it =
            |message: &Message| message.status.as_deref() == Some(status) && matches(&response, &message.payload);
        self.reply(pushed, &what, is_it).await.payload
    }

    /// # Panics
    /// If a reply to the push comes.
    pub async fn refute_reply(&self, pushed: &Pushed) {
        let what = format!("reply to {:?}", pushed.event);
        self.wire.mailbox.refute(&what, |message| self.answers(pushed, message)).await;
    }

    async fn reply(&self, pushed: &Pushed, what: &str, is_it: impl Fn(&Message) -> bool) -> Message {
        let what = format!("{what} to {:?} (ref {})", pushed.event, pushed.reference);
        self.wire.mailbox.expect(&what, |message| self.answers(pushed, message) && is_it(message)).await
    }

    fn answers(&self, pushed: &Pushed, message: &Message) -> bool {
        message.event == PHX_REPLY && message.topic == self.topic && message.reference == pushed.reference.as_str()
    }

    /// Waits for an event that the client is sent: the channel's own pushes, and broadcasts on its topic.
    ///
    /// # Panics
    /// If none comes that matches.
    pub async fn assert_push(&self, event: &str, payload: impl Into<Payload>) -> Payload {
        let payload = payload.into();
        let what = format!("a push of {event:?} with {payload:?} on {:?}", self.topic);
        let is_it = |message: &Message| self.is_mine(message, event) && matches(&payload, &message.payload);
        self.wire.mailbox.expect(&what, is_it).await.payload
    }

    /// # Panics
    /// If the client is sent such an event.
    pub async fn refute_push(&self, event: &str) {
        let what = format!("push of {event:?} on {:?}", self.topic);
        self.wire.mailbox.refute(&what, |message| self.is_mine(message, event)).await;
    }

    /// Of this channel, and not of an earlier or later one of its topic. V1 messages don't tell.
    fn is_mine(&self, message: &Message, event: &str) -> bool {
        let of_this_join = message.join_ref.is_null() || message.join_ref == self.join_ref.as_str();
        message.topic == self.topic && message.event == event && of_this_join
    }

    /// Waits for a broadcast on the topic, by whomever.
    ///
    /// # Panics
    /// If none comes that matches.
    pub async fn assert_broadcast(&mut self, event: &str, payload: impl Into<Payload>) -> Payload {
        let payload = payload.into();
        let heard = self.hear(super::mailbox::ASSERT_TIMEOUT, event, |heard| matches(&payload, heard)).await;
        match heard {
            Some(heard) => heard,
            None => panic!(
                "expected a broadcast of {event:?} with {payload:?} on {:?}; what was heard: {:?}",
                self.topic, self.heard
            ),
        }
    }

    /// # Panics
    /// If such an event is broadcast on the topic.
    pub async fn refute_broadcast(&mut self, event: &str) {
        let heard = self.hear(super::mailbox::REFUTE_TIMEOUT, event, |_| true).await;
        assert!(heard.is_none(), "expected no broadcast of {event:?} on {:?}, got {heard:?}", self.topic);
    }

    /// Takes the first broadcast that is wanted, waiting for it.
    async fn hear(
        &mut self,
        timeout: std::time::Duration,
        event: &str,
        wanted: impl Fn(&Payload) -> bool,
    ) -> Option<Payload> {
        let TestChannel { broadcasts, heard, .. } = self;
        let hearing = async {
            let mut from = 0;
            loop {
                if let Some(at) = heard[from..].iter().position(|(name, payload)| name == event && wanted(payload)) {
                    return heard.remove(from + at).1;
                }
                from = heard.len();
                match broadcasts.recv().await {
                    Ok(broadcast) => heard.push((broadcast.event().to_owned(), broadcast.payload().clone())),
                    Err(RecvError::Missed(count)) => panic!("{count} broadcasts came before any was asserted"),
                    Err(RecvError::Closed) => std::future::pending().await,
                }
            }
        };
        tokio::time::timeout(timeout, hearing).await.ok()
    }

    /// Leaves, and waits for the answer and for the channel's end.
    ///
    /// # Panics
    /// If they don't come.
    pub async fn leave(self) {
        let left = self.push(PHX_LEAVE, Payload::EMPTY);
        self.assert_reply(&left, "ok", Payload::EMPTY).await;
        self.assert_closed().await;
    }

    /// Waits until the channel has ended in order: phoenix.js does not rejoin.
    ///
    /// # Panics
    /// If it doesn't.
    pub async fn assert_closed(&self) {
        self.assert_push(PHX_CLOSE, Payload::EMPTY).await;
    }

    /// Waits until the channel has crashed: phoenix.js rejoins.
    ///
    /// # Panics
    /// If it doesn't.
    pub async fn assert_crashed(&self) {
        self.assert_push(PHX_ERROR, Payload::EMPTY).await;
    }
}
