//! A producer's message, and what it is answered.

use bytes::Bytes;
use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;

use super::{Durability, KEY_BYTES_MAX, Priority, QueueError, QueueSettings};
use crate::protocol::json;
use crate::protocol::message::Payload;

/// What message ids begin with: `msg_<Unix seconds of acceptance>_<number in the queue>`. Source: the Elixir deployment,
/// section 8.
pub const MESSAGE_ID_PREFIX: &str = "msg_";
/// The longest lifetime and delay: 30 days.
pub(crate) const LIFE_MS_MAX: u64 = 30 * 86_400_000;
/// The most retries that a message may ask for.
pub(crate) const RETRIES_MAX: u32 = 100;
/// What a message costs beside its payload and its key, in memory: it counts with them.
const OVERHEAD_BYTES: usize = 256;

/// A message to be enqueued.
///
/// ```
/// use bennu::queue::{NewMessage, Priority};
/// use serde_json::json;
///
/// let message = NewMessage::new(json!({"text": "your build failed"}))
///     .priority(Priority::High)
///     .ttl_ms(60_000)
///     .idempotency_key("build-4711");
/// ```
#[derive(Clone, Debug)]
pub struct NewMessage {
    payload: Payload,
    priority: Priority,
    ttl_ms: Option<u64>,
    delay_ms: u64,
    retries_max: Option<u32>,
    key: Option<Box<str>>,
}

impl NewMessage {
    /// A message of priority `normal` with the settings' lifetime and retries. The payload is a JSON object.
    pub fn new(payload: impl Into<Payload>) -> Self {
        NewMessage {
            payload: payload.into(),
            priority: Priority::default(),
            ttl_ms: None,
            delay_ms: 0,
            retries_max: None,
            key: None,
        }
    }

    /// Which messages it goes ahead of.
    #[must_use]
    pub fn priority(mut self, priority: Priority) -> Self {
        self.priority = priority;
        self
    }

    /// Milliseconds until it expires, from when it is due: 1 to 30 days.
    #[must_use]
    pub fn ttl_ms(mut self, ttl_ms: u64) -> Self {
        self.ttl_ms = Some(ttl_ms);
        self
    }

    /// Milliseconds before its first delivery, at most 30 days.
    #[must_use]
    pub fn delay_ms(mut self, delay_ms: u64) -> Self {
        self.delay_ms = delay_ms;
        self
    }

    /// Failures after which it is still tried again, at most 100.
    #[must_use]
    pub fn retries_max(mut self, retries_max: u32) -> Self {
        self.retries_max = Some(retries_max);
        self
    }

    /// A further message with the same key within the window (`dedup_window_ms`) is not taken, and answered with this one's id.
    #[must_use]
    pub fn idempotency_key(mut self, key: impl Into<Box<str>>) -> Self {
        self.key = Some(key.into());
        self
    }

    /// Reads a message as clients write it: `{"payload": {...}, "priority"?, "ttl_ms"?, "delay_ms"?, "max_retries"?,
    /// "idempotency_key"?}`. `text` is known to be JSON.
    ///
    /// # Errors
    /// [`QueueError::Invalid`] names what was expected and what came.
    pub(crate) fn parse(text: &[u8]) -> Result<Self, QueueError> {
        #[derive(Deserialize)]
        #[serde(deny_unknown_fields)]
        struct Wanted<'a> {
            #[serde(borrow)]
            payload: &'a RawValue,
            priority: Option<String>,
            ttl_ms: Option<u64>,
            #[serde(default)]
            delay_ms: u64,
            max_retries: Option<u32>,
            idempotency_key: Option<Box<str>>,
        }

        let wanted: Wanted<'_> =
            serde_json::from_slice(text).map_err(|error| QueueError::Invalid(format!("the message: {error}")))?;
        let priority = match &wanted.priority {
            None => Priority::default(),
            Some(word) => Priority::parse(word).ok_or_else(|| {
                let all = Priority::ALL.map(Priority::name).join(", ");
                QueueError::Invalid(format!("priority: expected one of {all}, came {word:?}"))
            })?,
        };
        Ok(NewMessage {
            payload: Payload::Json(Bytes::copy_from_slice(wanted.payload.get().as_bytes())),
            priority,
            ttl_ms: wanted.ttl_ms,
            delay_ms: wanted.delay_ms,
            retries_max: wanted.max_retries,
            key: wanted.idempotency_key,
        })
    }

    /// Fills in what the settings say, and holds it to their bounds.
    pub(super) fn check(self, settings: &QueueSettings) -> Result<Checked, QueueError> {
        let payload = match self.payload {
            payload @ Payload::Json(_) if payload.is_object() => payload,
            Payload::Json(_) => return Err(QueueError::Invalid("payload: expected a JSON object".to_owned())),
            Payload::Binary(_) => {
                return Err(QueueError::Invalid("payload: expected a JSON object, came binary data".to_owned()));
            }
        };
        let Payload::Json(payload) = payload else { unreachable!("binary data was refused") };
        if !is_json_object(&payload) {
            return Err(QueueError::Invalid("payload: expected a JSON object, came what is no JSON".to_owned()));
        }
        let ttl_ms = self.ttl_ms.unwrap_or(settings.ttl_ms);
        if !(1..=LIFE_MS_MAX).contains(&ttl_ms) {
            return Err(QueueError::Invalid(format!("ttl_ms: expected 1 to {LIFE_MS_MAX}, came {ttl_ms}")));
        }
        if self.delay_ms > LIFE_MS_MAX {
            return Err(QueueError::Invalid(format!(
                "delay_ms: expected at most {LIFE_MS_MAX}, came {}",
                self.delay_ms
            )));
        }
        let retries_max = self.retries_max.unwrap_or(settings.retries_max);
        if retries_max > RETRIES_MAX {
            return Err(QueueError::Invalid(format!(
                "max_retries: expected at most {RETRIES_MAX}, came {retries_max}"
            )));
        }
        if let Some(key) = &self.key
            && (key.is_empty() || key.len() > KEY_BYTES_MAX)
        {
            let why = format!("idempotency_key: expected 1 to {KEY_BYTES_MAX} bytes, came {}", key.len());
            return Err(QueueError::Invalid(why));
        }
        Ok(Checked { payload, priority: self.priority, ttl_ms, delay_ms: self.delay_ms, retries_max, key: self.key })
    }
}

/// Whether this is a JSON object as every message is.
pub(super) fn is_json_object(text: &[u8]) -> bool {
    let text = std::str::from_utf8(text).ok().filter(|text| text.trim_ascii_start().starts_with('{'));
    text.is_some_and(|text| json::validate(text).is_ok())
}

/// A message with all that it needs.
pub(super) struct Checked {
    pub(super) payload: Bytes,
    pub(super) priority: Priority,
    pub(super) ttl_ms: u64,
    pub(super) delay_ms: u64,
    pub(super) retries_max: u32,
    pub(super) key: Option<Box<str>>,
}

impl Checked {
    /// What it counts for the bounds.
    pub(super) fn bytes(&self) -> usize {
        weight(&self.payload, self.key.as_deref())
    }
}

/// Bytes that a message counts for the bounds.
pub(super) fn weight(payload: &Bytes, key: Option<&str>) -> usize {
    payload.len() + key.map_or(0, str::len) + OVERHEAD_BYTES
}

/// The answer to a producer.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[non_exhaustive]
pub struct Enqueued {
    /// The message's id, which an ack names.
    #[serde(rename = "message_id")]
    pub id: String,
    /// The class that was reached.
    pub durability: Durability,
    /// Whether a message with this idempotency key was there already: the id is that one's.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub duplicate: bool,
}
