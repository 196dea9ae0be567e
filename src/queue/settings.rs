//! What queues there are, and every bound of theirs.

use serde::Serialize;

use crate::protocol::queue::Limits;
use crate::protocol::topic::{PatternError, TopicPattern};

/// How much a message outlives. An answer names the class that was reached.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
#[non_exhaustive]
pub enum Durability {
    /// Nothing: it goes to a consumer that is here, once, or is refused.
    Ephemeral,
    /// Its consumer's absence and failures, not the process.
    Memory,
    /// The process and the machine's power: it is in the store's file, and synced, before the answer.
    Durable,
}

impl Durability {
    /// The class as settings and answers write it.
    pub fn name(self) -> &'static str {
        match self {
            Durability::Ephemeral => "ephemeral",
            Durability::Memory => "memory",
            Durability::Durable => "durable",
        }
    }
}

/// Which queues there are and how they behave. By default there are none; [`QueueSettings::class`] adds some.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct QueueSettings {
    classes: Vec<(TopicPattern, Durability)>,
    /// Milliseconds that a message waits for its acknowledgement before it expires, where it says nothing itself. Counted from
    /// when it is due. Source: the Elixir deployment, section 8.
    pub ttl_ms: u64,
    /// Failures after which a message is tried again, where it says nothing itself; with one more it is a dead letter.
    pub retries_max: u32,
    /// Queues at once. One that has been empty and without a consumer for a while is none.
    pub queues_max: usize,
    /// Bytes of the messages and dead letters of all queues together.
    pub total_bytes_max: usize,
    /// Messages that one consumer may have in flight.
    pub in_flight_max: usize,
    /// The bounds of each queue.
    pub limits: Limits,
}

impl Default for QueueSettings {
    fn default() -> Self {
        QueueSettings {
            classes: Vec::new(),
            ttl_ms: 300_000,
            retries_max: 3,
            queues_max: 100_000,
            total_bytes_max: 256 << 20,
            in_flight_max: 100,
            limits: Limits::default(),
        }
    }
}

impl QueueSettings {
    /// Queues whose names match a pattern, such as `inbox:*`, are of a class. The first pattern that matches counts.
    ///
    /// # Errors
    /// [`PatternError`]: a star that is not the last character.
    pub fn class(mut self, pattern: &str, class: Durability) -> Result<Self, PatternError> {
        self.classes.push((TopicPattern::parse(pattern)?, class));
        Ok(self)
    }

    /// Changes some of the numbers.
    #[must_use]
    pub fn with(mut self, change: impl FnOnce(&mut Self)) -> Self {
        change(&mut self);
        self
    }

    pub(super) fn class_of(&self, queue: &str) -> Option<Durability> {
        self.classes.iter().find(|(pattern, _)| pattern.matches(queue)).map(|(_, class)| *class)
    }
}
