//! What is written down of a run while it goes on: its machine's events, in their order.
//!
//! One transaction is under way at a time; what comes meanwhile goes with the next. A run does not wait for it but where a
//! step that runs once is about to begin.

use futures::FutureExt;
use futures::future::BoxFuture;
use serde::{Deserialize, Serialize};

use crate::protocol::workflow::Event;
use crate::store::{CHANGE_BYTES_MAX, Keys, Store, StoreError, Table};

/// By run and number; each value is a [`Written`] as JSON.
pub(super) const EVENTS: Table = Table("workflow_events");

/// Bytes that may wait to be written; above it a run waits.
const WAITING_BYTES_MAX: usize = 1 << 20;
/// Bytes of events that one transaction stores, but for one that is larger.
const BATCH_BYTES_MAX: usize = CHANGE_BYTES_MAX / 2;
/// Events that are read, or deleted, in one step.
const PAGE: usize = 1_000;

/// An event, and how many milliseconds the run had been going on.
#[derive(Serialize, Deserialize)]
pub(super) struct Written<E> {
    pub(super) worked_ms: u64,
    pub(super) event: E,
}

/// The journal of one run.
pub(super) struct Journal {
    store: Store,
    run: u128,
    /// The number of the last event that was taken, and of the last that is stored.
    taken: u64,
    stored: u64,
    waiting: Vec<(u64, Vec<u8>)>,
    waiting_bytes: usize,
    writing: Option<(u64, BoxFuture<'static, Result<(), StoreError>>)>,
}

impl Journal {
    /// The journal of a run that begins, or goes on after so many events.
    pub(super) fn new(store: Store, run: u128, taken: u64) -> Self {
        Journal { store, run, taken, stored: taken, waiting: Vec::new(), waiting_bytes: 0, writing: None }
    }

    /// Takes an event; gives its number.
    pub(super) fn take(&mut self, event: &Event, worked_ms: u64) -> u64 {
        self.taken += 1;
        // What ends with the process is not written down.
        if !self.store.is_durable() {
            self.stored = self.taken;
            return self.taken;
        }
        let value = serde_json::to_vec(&Written { worked_ms, event }).expect("an event has string keys");
        self.waiting_bytes += value.len();
        self.waiting.push((self.taken, value));
        self.begin();
        self.taken
    }

    /// Whether an event is stored.
    pub(super) fn has(&self, number: u64) -> bool {
        self.stored >= number
    }

    /// Whether more waits than may.
    pub(super) fn is_full(&self) -> bool {
        self.waiting_bytes > WAITING_BYTES_MAX
    }

    /// Waits until something more is stored; for ever, if nothing is to be. Cancel-safe.
    ///
    /// # Errors
    /// [`StoreError`]: what was taken may be lost.
    pub(super) async fn written(&mut self) -> Result<(), StoreError> {
        let Some((last, writing)) = &mut self.writing else { return std::future::pending().await };
        let outcome = writing.as_mut().await;
        let last = *last;
        self.writing = None;
        outcome?;
        self.stored = last;
        self.begin();
        Ok(())
    }

    /// Waits until everything is stored.
    ///
    /// # Errors
    /// As [`Journal::written`].
    pub(super) async fn flush(&mut self) -> Result<(), StoreError> {
        while self.writing.is_some() {
            self.written().await?;
        }
        Ok(())
    }

    fn begin(&mut self) {
        if self.writing.is_some() || self.waiting.is_empty() {
            return;
        }
        let mut bytes = 0;
        let fits = |(_, value): &&(u64, Vec<u8>)| {
            bytes += value.len();
            bytes <= BATCH_BYTES_MAX
        };
        let count = self.waiting.iter().take_while(fits).count().max(1);
        let rest = self.waiting.split_off(count);
        let waiting = std::mem::replace(&mut self.waiting, rest);
        self.waiting_bytes -= waiting.iter().map(|(_, value)| value.len()).sum::<usize>();
        let last = waiting.last().map_or(self.stored, |(number, _)| *number);
        let (store, run) = (self.store.clone(), self.run);
        let mut writing = async move {
            store
                .change(move |change| {
                    for (number, value) in waiting {
                        change.put(EVENTS, key(run, number), value)?;
                    }
                    Ok(())
                })
                .await
        }
        .boxed();
        // A store in a file begins at once; it goes on whether or not anybody looks.
        if let Some(outcome) = writing.as_mut().now_or_never() {
            writing = std::future::ready(outcome).boxed();
        }
        self.writing = Some((last, writing));
    }
}

/// The events of a run, in their order.
///
/// # Errors
/// [`StoreError`]; none of what is there can't be read.
pub(super) async fn read(store: &Store, run: u128) -> Result<Vec<Option<Written<Event>>>, StoreError> {
    let mut events: Vec<Option<Written<Event>>> = Vec::new();
    loop {
        let from = key(run, events.len() as u64 + 1);
        let page = store.range(EVENTS, Keys::between(from, key(run, u64::MAX)), PAGE).await?;
        let count = page.len();
        events.extend(page.iter().map(|(_, value)| serde_json::from_slice(value).ok()));
        if count < PAGE {
            return Ok(events);
        }
    }
}

/// Deletes the events of a run that has ended.
///
/// # Errors
/// [`StoreError`].
pub(super) async fn delete(store: &Store, run: u128) -> Result<(), StoreError> {
    while store.is_durable() {
        let deleted = store
            .change(move |change| {
                let page = change.range(EVENTS, &Keys::between(key(run, 0), key(run, u64::MAX)), PAGE)?;
                let count = page.len();
                page.into_iter().for_each(|(key, _)| change.delete(EVENTS, key));
                Ok::<_, StoreError>(count)
            })
            .await?;
        if deleted < PAGE {
            break;
        }
    }
    Ok(())
}

fn key(run: u128, number: u64) -> Vec<u8> {
    [&run.to_be_bytes()[..], &number.to_be_bytes()].concat()
}
