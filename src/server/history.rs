//! Which topics keep history, as the settings say, and how what they keep outlives a stop in order.
//!
//! ```text
//! topic_history   <number, 8 bytes big-endian>   01 then records
//!                 done                           how many of these there are, u64   when they were stored, unix ms u64
//!
//! topic       01  length u16, name   epoch u64   head u64
//! broadcast   02  since, unix ms u64   form u8 (0 JSON, 1 binary)   length u16, event   length u32, payload
//! ```
//!
//! All numbers are big-endian. Broadcasts are those of the topic named before, oldest first. What was read is taken away before
//! anything is published, so that it never comes back behind a crash; what is not all there is not read at all.

#[cfg(test)]
mod tests;

use std::sync::Arc;

use crate::channel::{Endpoint, HistoryOptions, OnSlow};
use crate::clock;
use crate::config::{HistoryDurability, Settings};
use crate::outbox::Broadcast;
use crate::protocol::Time;
use crate::protocol::history::{Epoch, History, OFFSET_MAX};
use crate::protocol::message::Payload;
use crate::store::{Keys, Store, StoreError, Table};

const TABLE: Table = Table("topic_history");
const VERSION: u8 = 1;
const TOPIC: u8 = 1;
const BROADCAST: u8 = 2;
/// The key of the value that says how many others there are.
const DONE: &[u8] = b"done";
/// Bytes of a value above which the next is begun. A broadcast that is larger by itself is left out with all before it.
const VALUE_BYTES: usize = 512 << 10;
/// Values of one transaction.
const VALUES_PER_CHANGE: usize = 8;

/// Has them keep it.
pub(super) fn keep(endpoint: &Endpoint, settings: &Settings) {
    let history = &settings.history;
    endpoint.limit_histories(history.topics_max, history.total_bytes_max);
    let classes = [
        (&history.topics, OnSlow::Gap),
        (&history.latest, OnSlow::Latest { key: history.latest_key.clone() }),
        (&history.disconnect, OnSlow::Disconnect),
    ];
    for (patterns, on_slow) in classes {
        for pattern in patterns {
            let options = HistoryOptions {
                messages_max: history.messages_max,
                bytes_max: history.bytes_max,
                age_ms: history.age_ms,
                on_slow: on_slow.clone(),
                survives_restart: history.durability == HistoryDurability::Restart,
            };
            endpoint.keep(pattern, options);
        }
    }
}

/// Ends all numbering and stores what topics keep that are to survive.
pub(super) async fn store(endpoint: &Endpoint, store: &Store) -> Result<(), StoreError> {
    let kept = endpoint.hub().histories().stop();
    if kept.is_empty() || !store.is_durable() {
        return Ok(());
    }
    let mut values = Values::default();
    let wall = clock::unix_micros() / 1_000;
    for kept in kept {
        kept.with(|history| values.topic(kept.topic(), history, clock::now(), wall));
    }
    let values = values.done();
    let count = values.len() as u64;
    let mut number = 0_u64;
    let mut rest = values.into_iter().peekable();
    while rest.peek().is_some() {
        let change: Vec<_> = rest.by_ref().take(VALUES_PER_CHANGE).collect();
        let from = number;
        number += change.len() as u64;
        store
            .change(move |transaction| {
                for (number, value) in (from..).zip(change) {
                    transaction.put(TABLE, number.to_be_bytes(), value)?;
                }
                Ok::<_, StoreError>(())
            })
            .await?;
    }
    let done = [count.to_be_bytes(), wall.to_be_bytes()].concat();
    store.change(move |transaction| transaction.put(TABLE, DONE, done)).await
}

/// Goes on with what topics kept when the server stopped, and takes it out of the store. Before anything is published.
pub(super) async fn restore(endpoint: &Endpoint, store: &Store) -> Result<(), StoreError> {
    let done = store.get(TABLE, DONE).await?;
    let mut values = Vec::new();
    let mut from = 0_u64;
    loop {
        let entries = store.range(TABLE, Keys::between(from.to_be_bytes(), DONE), VALUES_PER_CHANGE).await?;
        let Some((last, _)) = entries.last() else { break };
        from = last.as_slice().try_into().map_or(u64::MAX, u64::from_be_bytes).saturating_add(1);
        values.extend(entries);
    }
    if values.is_empty() && done.is_none() {
        return Ok(());
    }
    let done = done.unwrap_or_default();
    let mut done = Bytes(&done);
    let (count, stored) = (done.u64(), done.u64());
    let mut reader = Reader::default();
    let is_all = count == Some(values.len() as u64) && values.iter().all(|(_, value)| reader.value(value).is_some());
    if let (true, Some(stored)) = (is_all, stored) {
        let (now, wall) = (clock::now(), clock::unix_micros() / 1_000);
        for topic in reader.topics {
            let kept = topic.broadcasts.into_iter().map(|(broadcast, since)| {
                let bytes = broadcast.topic.len() + broadcast.event.len() + broadcast.payload.as_bytes().len();
                (Arc::new(broadcast), bytes, Time(now.0.saturating_sub(wall.saturating_sub(since))))
            });
            let history = History::resumed(topic.epoch, topic.head, kept.collect());
            endpoint.hub().histories().restore(&topic.name, wall.saturating_sub(stored), history);
        }
    } else {
        tracing::warn!("what topics kept was not stored whole: clients will be told of a gap");
    }
    let keys: Vec<_> = values.into_iter().map(|(key, _)| key).collect();
    store
        .change(move |transaction| {
            // Without it the others count for nothing.
            transaction.delete(TABLE, DONE);
            for key in keys {
                transaction.delete(TABLE, key);
            }
            Ok::<_, StoreError>(())
        })
        .await
}

#[derive(Default)]
struct Values {
    full: Vec<Vec<u8>>,
    value: Vec<u8>,
}

impl Values {
    fn topic(&mut self, name: &str, history: &History<Arc<Broadcast>>, now: Time, wall: u64) {
        let kept: Vec<_> = history.kept().collect();
        let is_storable = |broadcast: &Broadcast| {
            broadcast.event.len() <= usize::from(u16::MAX) && broadcast.payload.as_bytes().len() <= VALUE_BYTES
        };
        let first = kept.iter().rposition(|(broadcast, _)| !is_storable(broadcast)).map_or(0, |at| at + 1);
        let Ok(length) = u16::try_from(name.len()) else { return };
        let mut head = vec![TOPIC];
        head.extend(length.to_be_bytes());
        head.extend(name.as_bytes());
        head.extend(history.epoch().0.to_be_bytes());
        head.extend(history.head().to_be_bytes());
        self.put(&head, &[]);
        for (broadcast, at) in &kept[first..] {
            let (form, payload) = match &broadcast.payload {
                Payload::Json(text) => (0, text),
                Payload::Binary(data) => (1, data),
            };
            let event = broadcast.event.as_bytes();
            let mut record = vec![BROADCAST];
            record.extend(wall.saturating_sub(now.since(*at)).to_be_bytes());
            record.push(form);
            record.extend(u16::try_from(event.len()).expect("it was measured above").to_be_bytes());
            record.extend(event);
            record.extend(u32::try_from(payload.len()).expect("it was measured above").to_be_bytes());
            record.extend(payload);
            self.put(&record, &head);
        }
    }

    /// Puts a record, and where a value begins with it, the topic that it belongs to before it.
    fn put(&mut self, record: &[u8], of: &[u8]) {
        if self.value.len() + record.len() > VALUE_BYTES && self.value.len() > 1 {
            self.full.push(std::mem::take(&mut self.value));
        }
        if self.value.is_empty() {
            self.value.push(VERSION);
            self.value.extend(of);
        }
        self.value.extend(record);
    }

    fn done(mut self) -> Vec<Vec<u8>> {
        if !self.value.is_empty() {
            self.full.push(self.value);
        }
        self.full
    }
}

/// A topic as it was stored.
struct Stored {
    name: String,
    epoch: Epoch,
    head: u64,
    broadcasts: Vec<(Broadcast, u64)>,
}

#[derive(Default)]
struct Reader {
    topics: Vec<Stored>,
}

impl Reader {
    /// Reads a value; none where it is not what was written.
    fn value(&mut self, value: &[u8]) -> Option<()> {
        let mut rest = Bytes(value);
        if rest.byte()? != VERSION {
            return None;
        }
        while !rest.0.is_empty() {
            match rest.byte()? {
                TOPIC => {
                    let length = rest.u16()?;
                    let name = String::from_utf8(rest.take(length.into())?.to_vec()).ok()?;
                    let (epoch, head) = (Epoch(rest.u64()?), rest.u64().filter(|head| *head <= OFFSET_MAX)?);
                    let goes_on = self.topics.last().is_some_and(|topic| topic.name == name);
                    if !goes_on {
                        self.topics.push(Stored { name, epoch, head, broadcasts: Vec::new() });
                    }
                }
                BROADCAST => {
                    let topic = self.topics.last_mut()?;
                    let since = rest.u64()?;
                    let form = rest.byte()?;
                    let length = rest.u16()?;
                    let event = std::str::from_utf8(rest.take(length.into())?).ok()?.into();
                    let length = usize::try_from(rest.u32()?).ok()?;
                    let payload = bytes::Bytes::copy_from_slice(rest.take(length)?);
                    let payload = match form {
                        0 => Payload::Json(payload),
                        1 => Payload::Binary(payload),
                        _ => return None,
                    };
                    let broadcast = Broadcast { topic: topic.name.as_str().into(), event, payload, except: None };
                    topic.broadcasts.push((broadcast, since));
                }
                _ => return None,
            }
        }
        Some(())
    }
}

/// Bytes that are read from the front.
struct Bytes<'a>(&'a [u8]);

impl<'a> Bytes<'a> {
    fn take(&mut self, count: usize) -> Option<&'a [u8]> {
        let (taken, rest) = self.0.split_at_checked(count)?;
        self.0 = rest;
        Some(taken)
    }

    fn byte(&mut self) -> Option<u8> {
        self.take(1).map(|bytes| bytes[0])
    }

    fn u16(&mut self) -> Option<u16> {
        self.take(2)?.try_into().ok().map(u16::from_be_bytes)
    }

    fn u32(&mut self) -> Option<u32> {
        self.take(4)?.try_into().ok().map(u32::from_be_bytes)
    }

    fn u64(&mut self) -> Option<u64> {
        self.take(8)?.try_into().ok().map(u64::from_be_bytes)
    }
}
