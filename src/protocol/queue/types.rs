//! What goes into a queue and what comes out of it.

use thiserror::Error;

use super::{Backoff, Priority};
use crate::protocol::Time;

/// A message's number within its queue, in the order of acceptance. Never used again, unless it could not be stored and the
/// queue was loaded anew.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Seq(pub u64);

/// One who takes messages: a connection's subscription. The driver numbers them and never uses a number again.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ConsumerId(pub u64);

/// The bounds of one queue.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits {
    /// Messages that are kept, whatever their state, without dead letters. Further ones are refused.
    pub messages_max: usize,
    /// Bytes of those messages. A message that would exceed it is refused.
    pub bytes_max: usize,
    /// Bytes of one message. A larger one is refused.
    pub message_bytes_max: usize,
    /// Milliseconds that a delivered message is its consumer's; then it goes back, which counts as a failure.
    pub lease_ms: u64,
    /// Deliveries of one message. One that comes back after so many becomes a dead letter. This bounds messages that make
    /// their consumers leave, which counts as no failure.
    pub deliveries_max: u32,
    /// How long a message waits after a failure.
    pub backoff: Backoff,
    /// Dead letters that are kept. Then the oldest goes.
    pub dead_letters_max: usize,
    /// Bytes of dead letters that are kept. Then the oldest goes.
    pub dead_bytes_max: usize,
    /// Milliseconds that a dead letter is kept.
    pub dead_letter_ttl_ms: u64,
    /// Milliseconds after its first message during which a key's further messages are duplicates.
    pub dedup_window_ms: u64,
    /// Keys that are remembered. While there are so many whose window is not over, messages with new keys are refused.
    pub dedup_keys_max: usize,
    /// Deliveries of more urgent messages in a row after which a class that waits has its turn. 0 counts as 1.
    pub passed_over_max: u32,
}

impl Default for Limits {
    /// The deployment's numbers where it has them.
    fn default() -> Self {
        Limits {
            messages_max: 10_000,
            bytes_max: 16 << 20,
            message_bytes_max: (1 << 20) - 4_096,
            lease_ms: 30_000,
            deliveries_max: 100,
            backoff: Backoff::default(),
            dead_letters_max: 1_000,
            dead_bytes_max: 4 << 20,
            dead_letter_ttl_ms: 3_600_000,
            dedup_window_ms: 300_000,
            dedup_keys_max: 10_000,
            passed_over_max: 16,
        }
    }
}

/// A message that somebody wants to be kept.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Offer<B> {
    /// A cheap handle on what it says.
    pub body: B,
    /// Bytes that it counts for.
    pub bytes: usize,
    /// How urgent it is.
    pub priority: Priority,
    /// Milliseconds, from when it is due, after which it is not delivered any more.
    pub ttl_ms: Option<u64>,
    /// Milliseconds from the offer until it is due.
    pub delay_ms: u64,
    /// Failures after which it is tried again; one more makes it a dead letter.
    pub retries_max: u32,
    /// Says which messages are the same one, sent again.
    pub key: Option<Box<str>>,
}

/// What became of an offer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Offered {
    /// A new message. It is delivered once [`Queue::stored`](super::Queue::stored) is told.
    New(Seq),
    /// The key was seen within its window. Nothing was added.
    Duplicate {
        /// The first message's.
        seq: Seq,
        /// Whether that one's storing is over. If not, then its publisher and this one wait for the same answer.
        stored: bool,
    },
}

/// Why an offer was refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
pub enum Refused {
    /// Too many messages are kept.
    #[error("the queue holds {messages} messages, the limit is {limit}")]
    Full {
        /// That are kept.
        messages: usize,
        /// [`Limits::messages_max`].
        limit: usize,
    },
    /// Too many bytes are kept.
    #[error("the queue holds {bytes} bytes and {came} more came, the limit is {limit}")]
    FullBytes {
        /// That are kept.
        bytes: usize,
        /// Of the message.
        came: usize,
        /// [`Limits::bytes_max`].
        limit: usize,
    },
    /// The message is too large for any queue with these limits.
    #[error("message is {came} bytes, the limit is {limit}")]
    TooLarge {
        /// Of the message.
        came: usize,
        /// [`Limits::message_bytes_max`].
        limit: usize,
    },
    /// Too many keys are remembered.
    #[error("the queue remembers {keys} message keys, the limit is {limit}")]
    KeysFull {
        /// That are remembered.
        keys: usize,
        /// [`Limits::dedup_keys_max`].
        limit: usize,
    },
    /// The queue has used up its numbers.
    #[error("the queue has used up its numbers, the last is {last}")]
    SeqsUsedUp {
        /// The number that is not given any more.
        last: u64,
    },
}

/// A message as it was stored, to go on with.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Restored<B> {
    /// As it was given.
    pub seq: Seq,
    /// As it was offered.
    pub body: B,
    /// As it was offered.
    pub bytes: usize,
    /// As it was offered.
    pub priority: Priority,
    /// When it is not delivered any more.
    pub expires: Option<Time>,
    /// When it is delivered at the earliest: the end of its delay or of its backoff.
    pub due: Time,
    /// As it was offered.
    pub retries_max: u32,
    /// So far.
    pub failures: u32,
    /// Of the last failure.
    pub last_error: Option<Box<str>>,
    /// So far, as far as the driver has stored them.
    pub deliveries: u32,
    /// As it was offered; what it says is restored by itself, with [`Queue::restore_key`](super::Queue::restore_key).
    pub key: Option<Box<str>>,
}

/// A message that a consumer has to work on until its lease is over.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Delivery<B> {
    /// To acknowledge with.
    pub seq: Seq,
    /// As it was offered.
    pub body: B,
    /// As it was offered.
    pub bytes: usize,
    /// As it was offered.
    pub priority: Priority,
    /// How often it was delivered, this one included: 1 is the first.
    pub deliveries: u32,
    /// So far.
    pub failures: u32,
    /// When it goes back unless something is said of it.
    pub lease_until: Time,
}

/// What became of a message that its consumer could not work on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Nacked {
    /// It is delivered again. The driver stores its failures, its error and when it is due.
    Retry {
        /// So far.
        failures: u32,
        /// When its backoff is over.
        due: Time,
    },
    /// It has become a dead letter. The driver stores that, like [`Change::Dead`].
    Dead,
    /// Its time to live was over, so it is gone. The driver forgets it, like [`Change::Removed`].
    Expired,
}

/// Why nothing was done about a message.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
pub enum AckError {
    /// There is no such message that was delivered, as far as is remembered.
    #[error("no such message was delivered")]
    Unknown,
    /// It is in flight at another consumer.
    #[error("the message is in flight at another consumer")]
    Foreign,
    /// It was acknowledged, has expired, was purged, or is a dead letter.
    #[error("the message is settled already")]
    AlreadySettled,
    /// It waits again: its lease was over, or its consumer had left.
    #[error("the message is not in flight")]
    NotInFlight,
}

/// Why a dead letter was not tried again.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
pub enum RetryError {
    /// There is none of that number.
    #[error("no such dead letter")]
    Unknown,
    /// The queue is full. It stays a dead letter.
    #[error(transparent)]
    Refused(#[from] Refused),
}

/// What the driver has to write down. Each change is told once.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Change {
    /// The message has expired or was purged: it is forgotten.
    Removed(Seq),
    /// The message's failures, its last error and when it is due are others: [`Queue::message`](super::Queue::message) has
    /// them.
    Failed(Seq),
    /// The message has become a dead letter: [`Queue::dead_letter`](super::Queue::dead_letter) has it. If that is gone
    /// again, [`Change::DeadRemoved`] follows.
    Dead(Seq),
    /// The dead letter was too old, had to make room or was purged: it is forgotten.
    DeadRemoved(Seq),
    /// The key's window is over: it is forgotten.
    KeyRemoved(Box<str>),
}

/// Why a message was given up.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum DeadReason {
    /// It failed more often than it may be tried again.
    RetriesExhausted,
    /// It was delivered [`Limits::deliveries_max`] times and came back.
    TooManyDeliveries,
}

impl DeadReason {
    /// Every reason.
    pub const ALL: [DeadReason; 2] = [DeadReason::RetriesExhausted, DeadReason::TooManyDeliveries];

    /// The name on the wire and on disk: `retries_exhausted` or `too_many_deliveries`.
    pub fn name(self) -> &'static str {
        match self {
            DeadReason::RetriesExhausted => "retries_exhausted",
            DeadReason::TooManyDeliveries => "too_many_deliveries",
        }
    }

    /// The reason of that name.
    pub fn parse(name: &str) -> Option<DeadReason> {
        DeadReason::ALL.into_iter().find(|reason| reason.name() == name)
    }
}

/// A message that was given up, and is kept for a while to be looked at or tried again.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DeadLetter<B> {
    /// As it had it as a message, and has it again if it is tried again.
    pub seq: Seq,
    /// As it was offered.
    pub body: B,
    /// As it was offered.
    pub bytes: usize,
    /// As it was offered.
    pub priority: Priority,
    /// As it was offered.
    pub retries_max: u32,
    /// The one that was too much included.
    pub failures: u32,
    /// Of the last failure, if there was one.
    pub last_error: Option<Box<str>>,
    /// How often it was delivered.
    pub deliveries: u32,
    /// Why it was given up.
    pub reason: DeadReason,
    /// When.
    pub died: Time,
}

/// Where a message is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Place {
    /// It is being stored.
    Storing,
    /// It is stored, and waits for an earlier one that is not.
    Held,
    /// It is not due yet: it is delayed or in backoff.
    Delayed,
    /// It may be delivered.
    Ready,
    /// Its time to live is over, and the next [`Queue::handle_timeout`](super::Queue::handle_timeout) removes it.
    Expired,
    /// A consumer works on it.
    InFlight {
        /// Who.
        consumer: ConsumerId,
        /// For how long.
        lease_until: Time,
    },
    /// It is acknowledged, and this is being stored.
    Settling {
        /// At whom it was in flight; none if it waited again.
        consumer: Option<ConsumerId>,
    },
}

/// A message as it is kept.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct View<'a, B> {
    /// Its number.
    pub seq: Seq,
    /// As it was offered.
    pub body: &'a B,
    /// As it was offered.
    pub bytes: usize,
    /// As it was offered.
    pub priority: Priority,
    /// When it is not delivered any more.
    pub expires: Option<Time>,
    /// When it is or was delivered at the earliest.
    pub due: Time,
    /// As it was offered.
    pub retries_max: u32,
    /// So far.
    pub failures: u32,
    /// Of the last failure.
    pub last_error: Option<&'a str>,
    /// So far.
    pub deliveries: u32,
    /// As it was offered.
    pub key: Option<&'a str>,
    /// Where it is.
    pub place: Place,
}

/// How many messages are where, and how many have gone which way since the queue was made.
///
/// Where they are is as of the latest time that the queue was told. The parts of `messages` are `storing`, `waiting`,
/// `delayed`, `expiring`, `in_flight` and `settling`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Stats {
    /// That are kept, without dead letters.
    pub messages: usize,
    /// Of those.
    pub bytes: usize,
    /// Being stored, or held behind one that is.
    pub storing: usize,
    /// Ready to be delivered, in the order of [`Priority::ALL`].
    pub waiting: [usize; 4],
    /// Not due yet, whether delayed or in backoff.
    pub delayed: usize,
    /// Expired, and removed with the next timeout.
    pub expiring: usize,
    /// At consumers.
    pub in_flight: usize,
    /// Acknowledged, which is being stored.
    pub settling: usize,
    /// Dead letters.
    pub dead: usize,
    /// Of those.
    pub dead_bytes: usize,
    /// Keys that are remembered.
    pub keys: usize,
    /// Consumers.
    pub consumers: usize,
    /// Messages that were stored.
    pub accepted: u64,
    /// Deliveries, each time.
    pub delivered: u64,
    /// Messages whose acknowledgement was stored.
    pub acked: u64,
    /// Failures: nacks and leases that were over, also of a message that had expired meanwhile.
    pub failed: u64,
    /// Messages whose time to live was over.
    pub expired: u64,
    /// Messages that became dead letters.
    pub dead_lettered: u64,
    /// Offers that were duplicates.
    pub duplicates: u64,
    /// Messages that were purged.
    pub purged: u64,
}
