//! Why something could not be done.

use crate::protocol::queue::{AckError, Refused};
use crate::store::StoreError;

/// Why a message was not taken. [`QueueError::code`] and [`QueueError::detail`] are what clients read.
#[derive(Clone, Debug, PartialEq, thiserror::Error)]
#[non_exhaustive]
pub enum QueueError {
    /// The queue's name is none.
    #[error("a queue's name has 1 to {} bytes and no control characters", super::NAME_BYTES_MAX)]
    Name,
    /// No pattern of the settings has it.
    #[error("there is no queue {0:?}: queues.durable, queues.memory and queues.ephemeral name those that are")]
    Unknown(String),
    /// There are as many queues as may be.
    #[error("there are {limit} queues, which is the limit")]
    TooMany {
        /// How many may be.
        limit: usize,
    },
    /// The message is not as it should be.
    #[error("{0}")]
    Invalid(String),
    /// The queue has no place for it now.
    #[error(transparent)]
    Refused(#[from] Refused),
    /// All queues together hold as much as they may.
    #[error("the queues hold as much as they may together, {limit} bytes")]
    AllFull {
        /// Bytes that they may hold.
        limit: usize,
    },
    /// The queue is ephemeral, and nobody consumes it.
    #[error("nobody consumes this queue, and it keeps nothing")]
    NoConsumer,
    /// It could not be stored. Producers try again.
    #[error("the message could not be stored: {0}")]
    Store(#[from] StoreError),
}

impl QueueError {
    /// The error as one word.
    pub fn code(&self) -> &'static str {
        match self {
            QueueError::Name => "invalid_queue",
            QueueError::Unknown(_) => "unknown_queue",
            QueueError::TooMany { .. } => "too_many_queues",
            QueueError::Invalid(_) => "invalid_message",
            QueueError::Refused(Refused::TooLarge { .. }) => "too_large",
            QueueError::Refused(_) | QueueError::AllFull { .. } => "queue_full",
            QueueError::NoConsumer => "no_consumer",
            QueueError::Store(_) => "store_failed",
        }
    }

    /// What a client is told: of the store nothing but that it failed.
    pub fn detail(&self) -> String {
        match self {
            QueueError::Store(_) => "the store failed: try again, with the same idempotency key".to_owned(),
            other => other.to_string(),
        }
    }
}

/// Why an ack, a nack or an extension has no effect.
#[derive(Clone, Debug, PartialEq, thiserror::Error)]
#[non_exhaustive]
pub enum AckRefused {
    /// No message of this queue has that id, or it is long gone.
    #[error("unknown message")]
    Unknown,
    /// It is with another consumer.
    #[error("the message is with another consumer")]
    Foreign,
    /// It was acknowledged, expired, purged or became a dead letter.
    #[error("the message is settled already")]
    Settled,
    /// Its lease is over: it waits to be delivered again.
    #[error("the message's lease is over")]
    LeaseOver,
    /// It could not be stored: the message stays with its consumer until its lease is over.
    #[error("the acknowledgement could not be stored: {0}")]
    Store(StoreError),
}

impl AckRefused {
    /// The error as one word.
    pub fn code(&self) -> &'static str {
        match self {
            AckRefused::Unknown => "unknown_message",
            AckRefused::Foreign => "foreign_message",
            AckRefused::Settled => "already_settled",
            AckRefused::LeaseOver => "lease_over",
            AckRefused::Store(_) => "store_failed",
        }
    }
}

impl From<AckError> for AckRefused {
    fn from(error: AckError) -> Self {
        match error {
            AckError::Unknown => AckRefused::Unknown,
            AckError::Foreign => AckRefused::Foreign,
            AckError::AlreadySettled => AckRefused::Settled,
            AckError::NotInFlight => AckRefused::LeaseOver,
        }
    }
}
