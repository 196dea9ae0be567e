//! One client's multiplexed topics: which joined channel a message belongs to.
//!
//! The table holds, for each topic, the `join_ref` the client joined with and whatever the driver keeps there (`S`).
//! It decides; the driver (`crate::channel::host`) carries out, and encodes the answers with [`super::wire`].
//!
//! Source: `Phoenix.Socket.__in__/2` and the recorded transcripts, groups v2-join-leave, v2-events and invalid-frames.

use std::sync::Arc;

use super::message::{HEARTBEAT, PHOENIX, PHX_JOIN, PHX_LEAVE, Ref};
use super::wire::Incoming;

/// Names one joined channel of a socket; never used again on that socket.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct ChannelId(pub u32);

/// What a client's message asks for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Request {
    /// A transport heartbeat: reply ok `{}` with `join_ref` null.
    Heartbeat,
    /// A join. `existing` is the position of the channel that this join replaces.
    Join {
        /// Where the topic's present channel stands, if there is one.
        existing: Option<usize>,
    },
    /// A leave of the channel at this position.
    Leave(usize),
    /// A leave of a topic that is not joined: reply ok `{}` with the references as sent.
    LeaveUnjoined,
    /// A message for the channel at this position.
    Deliver(usize),
    /// A message with the `join_ref` of an earlier join: dropped without a reply.
    Stale,
    /// A message for a topic that is not joined: reply error `unmatched topic` with `join_ref` null.
    Unmatched,
}

/// One topic of the table.
#[derive(Debug)]
pub struct Entry<S> {
    /// The topic's name.
    pub topic: Arc<str>,
    /// The channel's name on this socket.
    pub id: ChannelId,
    /// What the client joined with; null accepts only messages whose `join_ref` is null.
    pub join_ref: Ref,
    /// What the channel's own frames carry where the join's `join_ref` was null: the join's `ref`.
    pub join_message_ref: Option<Box<Ref>>,
    /// The join_ref of the last join that waits for this channel; messages from there on are of that join.
    pub awaited_join_ref: Option<Box<Ref>>,
    /// The driver's part.
    pub state: S,
}

impl<S> Entry<S> {
    /// The `join_ref` of the channel's replies and pushes.
    ///
    /// Source: transcript `join_null_join_ref`.
    pub fn push_ref(&self) -> &Ref {
        self.join_message_ref.as_deref().unwrap_or(&self.join_ref)
    }
}

/// The table of one socket. At most `channels_max` entries.
#[derive(Debug)]
pub struct Socket<S> {
    entries: Vec<Entry<S>>,
    next_id: u32,
}

impl<S> Default for Socket<S> {
    fn default() -> Self {
        Socket { entries: Vec::new(), next_id: 0 }
    }
}

impl<S> Socket<S> {
    /// Says what a message asks for.
    pub fn classify(&self, message: &Incoming<'_>) -> Request {
        let event = message.event.as_str();
        let Some(topic) = message.topic.as_str() else {
            return match event {
                Some(PHX_JOIN) => Request::Join { existing: None },
                Some(PHX_LEAVE) => Request::LeaveUnjoined,
                _ => Request::Unmatched,
            };
        };
        if topic == PHOENIX && event == Some(HEARTBEAT) {
            return Request::Heartbeat;
        }

        match self.find(topic) {
            None => match event {
                Some(PHX_JOIN) => Request::Join { existing: None },
                Some(PHX_LEAVE) => Request::LeaveUnjoined,
                _ => Request::Unmatched,
            },
            Some(at) if event == Some(PHX_JOIN) => Request::Join { existing: Some(at) },
            Some(at) if !self.current(at, &message.join_ref) => Request::Stale,
            Some(at) if event == Some(PHX_LEAVE) => Request::Leave(at),
            Some(at) => Request::Deliver(at),
        }
    }

    /// A message belongs to the present join if it names it, or names none.
    fn current(&self, at: usize, join_ref: &Ref) -> bool {
        let entry = &self.entries[at];
        join_ref.is_null() || join_ref == entry.awaited_join_ref.as_deref().unwrap_or(&entry.join_ref)
    }

    /// Takes up a topic; the caller has removed the entry it replaces.
    pub fn insert(&mut self, topic: Arc<str>, join_ref: Ref, reference: &Ref, state: S) -> ChannelId {
        let id = ChannelId(self.next_id);
        self.next_id = self.next_id.wrapping_add(1);
        let join_message_ref = (join_ref.is_null() && !reference.is_null()).then(|| Box::new(reference.clone()));
        self.entries.reserve_exact(1);
        self.entries.push(Entry { topic, id, join_ref, join_message_ref, awaited_join_ref: None, state });
        id
    }

    /// Takes a topic out.
    pub fn remove(&mut self, at: usize) -> Entry<S> {
        self.entries.swap_remove(at)
    }

    /// Where a channel stands, if it still does.
    pub fn position(&self, id: ChannelId) -> Option<usize> {
        self.entries.iter().position(|entry| entry.id == id)
    }

    /// Where the channel of a topic stands, if it is joined or being joined.
    pub fn find(&self, topic: &str) -> Option<usize> {
        self.entries.iter().position(|entry| &*entry.topic == topic)
    }

    /// The entry at a position.
    pub fn entry(&mut self, at: usize) -> &mut Entry<S> {
        &mut self.entries[at]
    }

    /// How many topics the table holds.
    pub fn len(&self) -> usize {
        self.entries.len()
    }

    /// Whether no topic is joined.
    pub fn is_empty(&self) -> bool {
        self.entries.is_empty()
    }

    /// Empties the table.
    pub fn drain(&mut self) -> Vec<Entry<S>> {
        std::mem::take(&mut self.entries)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::protocol::wire::{WireVersion, decode_text};

    fn classify(socket: &Socket<()>, frame: &str) -> Request {
        socket.classify(&decode_text(WireVersion::V2, frame).unwrap())
    }

    fn joined(join_ref: &str, reference: &str) -> Socket<()> {
        let mut socket = Socket::default();
        socket.insert("room:a".into(), Ref::from_json(join_ref), &Ref::from_json(reference), ());
        socket
    }

    #[test]
    fn a_message_of_an_earlier_join_is_stale_and_one_without_join_ref_is_not() {
        let socket = joined("\"2\"", "\"2\"");

        assert_eq!(classify(&socket, r#"["1","3","room:a","echo",{}]"#), Request::Stale);
        assert_eq!(classify(&socket, r#"["1","3","room:a","phx_leave",{}]"#), Request::Stale);
        assert_eq!(classify(&socket, r#"[null,"3","room:a","echo",{}]"#), Request::Deliver(0));
        assert_eq!(classify(&socket, r#"["2","3","room:a","phx_leave",{}]"#), Request::Leave(0));
    }

    #[test]
    fn a_join_ref_keeps_its_json_type() {
        let socket = joined("1", "1");

        assert_eq!(classify(&socket, r#"[1,2,"room:a","echo",{}]"#), Request::Deliver(0));
        assert_eq!(classify(&socket, r#"["1",2,"room:a","echo",{}]"#), Request::Stale);
        assert_eq!(classify(&socket, r#"[1.0,2,"room:a","echo",{}]"#), Request::Stale);
    }

    #[test]
    fn a_join_without_join_ref_lends_its_ref_to_the_channels_frames() {
        let mut socket = joined("null", "\"7\"");

        assert_eq!(classify(&socket, r#"["7","8","room:a","echo",{}]"#), Request::Stale);
        assert_eq!(socket.entry(0).push_ref().as_json(), "\"7\"");
    }

    #[test]
    fn messages_behind_a_join_that_waits_are_of_that_join() {
        let mut socket = joined("\"1\"", "\"1\"");
        socket.entry(0).awaited_join_ref = Some(Box::new(Ref::from_json("\"2\"")));

        assert_eq!(classify(&socket, r#"["2","3","room:a","echo",{}]"#), Request::Deliver(0));
        assert_eq!(classify(&socket, r#"["1","3","room:a","echo",{}]"#), Request::Stale);
    }

    #[test]
    fn a_second_join_names_the_one_it_replaces() {
        let socket = joined("\"1\"", "\"1\"");

        assert_eq!(classify(&socket, r#"["9","9","room:a","phx_join",{}]"#), Request::Join { existing: Some(0) });
        assert_eq!(classify(&socket, r#"["9","9","room:b","phx_join",{}]"#), Request::Join { existing: None });
    }

    #[test]
    fn unjoined_topics_answer_leaves_and_refuse_the_rest() {
        let socket = Socket::<()>::default();

        assert_eq!(classify(&socket, r#"["1","1","room:a","phx_leave",{}]"#), Request::LeaveUnjoined);
        assert_eq!(classify(&socket, r#"["1","1","room:a","echo",{}]"#), Request::Unmatched);
        assert_eq!(classify(&socket, r#"["1","1",123,"echo",{}]"#), Request::Unmatched);
        assert_eq!(classify(&socket, r#"["1","1","room:a",null,{}]"#), Request::Unmatched);
    }

    #[test]
    fn only_the_event_heartbeat_is_one() {
        let socket = Socket::<()>::default();

        assert_eq!(classify(&socket, r#"["5","1","phoenix","heartbeat",{}]"#), Request::Heartbeat);
        assert_eq!(classify(&socket, r#"[null,"1","phoenix","echo",{}]"#), Request::Unmatched);
    }
}
