//! The language of the random conversations: a client tells a channel in its message's payload what to do.

use serde::{Deserialize, Serialize};

/// The name of a handler's wait, or of a reply that is kept for later: whoever has it lets it go on.
pub type Gate = u32;

/// What one handler does, and how it ends.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Script {
    pub acts: Vec<Act>,
    pub end: End,
}

/// One thing that a handler does.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub enum Act {
    /// Pushes `pushed`.
    Push,
    /// Pushes a payload that is no object: V1 carries it, in V2 the channel crashes.
    PushList,
    /// Pushes binary data: V2 carries it, in V1 the channel crashes.
    PushBinary,
    /// Broadcasts `shout`.
    Shout,
    ShoutFrom,
    /// Broadcasts `secret`, which channels intercept.
    Secret,
    /// Broadcasts `shout` on another topic.
    ShoutOn(String),
    /// Tracks, updates, untracks a presence; whether that succeeded is in the reply.
    Track(String),
    Update(String),
    Untrack(String),
    /// Subscribes the channel's own code to a topic, and ends that.
    Subscribe(String),
    Unsubscribe(String),
    /// Waits until somebody opens the gate.
    Wait(Gate),
    /// Lets the runtime do something else.
    Yield,
    /// Keeps a handle to reply once somebody opens the gate; with binary data, which V1 does not carry, if so said.
    Later(Gate, bool),
    /// The channel sends itself a message, at once or after so many milliseconds.
    Info(Box<Script>),
    After(u64, Box<Script>),
    /// What `terminate` will do.
    AtEnd(Box<Script>),
}

/// How a handler ends.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub enum End {
    NoReply,
    Ok,
    Error,
    /// A binary response, which V1 does not carry.
    OkBinary,
    StopNormal,
    StopShutdown,
    StopError,
    StopNormalAfterOk,
    StopErrorAfterError,
    Panic,
}

/// What a join does, and how it is answered.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct JoinScript {
    pub acts: Vec<Act>,
    pub end: JoinEnd,
}

#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub enum JoinEnd {
    Ok,
    OkBinary,
    Refuse,
    Panic,
    Unencodable,
}

/// The payload of a message: a script with a number that names the message in everything that comes of it.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Told<S> {
    pub n: u64,
    pub script: S,
}

pub const BINARY: &[u8] = &[0xff, 0, 1];
