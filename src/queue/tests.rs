//! The driver on a clock that stands still, with real files: what it promises, by hand and by random histories.

mod cutting;
mod delivery;
mod failing;
mod model;
mod restart;

use std::path::PathBuf;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::mpsc;
use std::time::Duration;

use serde_json::json;

use super::writer::Fault;
use super::*;
use crate::protocol::Time;
use crate::protocol::queue::Seq;
use crate::store::Keys;

/// A queue that is durable where there is a file.
const JOBS: &str = "jobs";
/// One of class memory, and one that keeps nothing.
const NOTES: &str = "notes";
const TICKS: &str = "ticks";

/// Takes what is there, at most so many.
fn take_up_to(max: usize, member: &Member) -> Vec<Delivered> {
    std::iter::from_fn(|| member.take()).take(max).collect()
}

/// A folder of the test's own, removed at its end.
struct Folder(PathBuf);

impl Folder {
    fn new() -> Self {
        static LAST: AtomicUsize = AtomicUsize::new(0);
        let name = format!("bennu-queue-{}-{}", std::process::id(), LAST.fetch_add(1, Ordering::Relaxed));
        let folder = std::env::temp_dir().join(name);
        std::fs::create_dir(&folder).expect("a new name in the folder for such");
        Folder(folder)
    }

    fn file(&self) -> PathBuf {
        self.0.join("store.redb")
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.0);
    }
}

/// Has a paused clock stand still while something is waited for that no timer ends, such as the store's thread: a runtime does
/// not let time run ahead while it has blocking work.
struct Still(#[expect(dead_code, reason = "dropping it ends the work")] mpsc::Sender<()>);

impl Still {
    fn new() -> Self {
        let (sender, receiver) = mpsc::channel::<()>();
        tokio::task::spawn_blocking(move || receiver.recv());
        Still(sender)
    }
}

fn settings() -> QueueSettings {
    let classes = [("jobs*", Durability::Durable), ("notes", Durability::Memory), ("ticks", Durability::Ephemeral)];
    classes
        .into_iter()
        .fold(QueueSettings::default(), |settings, (pattern, class)| settings.class(pattern, class).expect("a pattern"))
}

/// Queues in a file, that can be lost and found again.
struct Bench {
    queues: Queues,
    store: Store,
    settings: QueueSettings,
    folder: Folder,
    _still: Still,
}

impl Bench {
    async fn new() -> Self {
        Self::with(|_| {}).await
    }

    /// With some of the settings changed.
    async fn with(change: impl FnOnce(&mut QueueSettings)) -> Self {
        let (still, folder, settings) = (Still::new(), Folder::new(), settings().with(change));
        let store = Store::open(folder.file()).await.expect("a new file");
        let queues = Queues::on(store.clone(), settings.clone()).await.expect("an empty store");
        Bench { queues, store, settings, folder, _still: still }
    }

    /// As a crash and a start: what was not stored is gone. Consumers of before have to be dropped.
    async fn reopen(&mut self) {
        self.reopen_with(self.settings.clone(), async |_| {}).await;
    }

    /// The same with other settings, and something done to the store between.
    async fn reopen_with(&mut self, settings: QueueSettings, between: impl AsyncFnOnce(&Store)) {
        self.store.close().await;
        self.queues = Queues::in_memory(settings.clone());
        loop {
            // The writer of before ends as soon as it is polled.
            tokio::task::yield_now().await;
            match Store::open(self.folder.file()).await {
                Ok(store) => break self.store = store,
                Err(error) => assert!(matches!(error, StoreError::InUse { .. }), "{error}"),
            }
        }
        between(&self.store).await;
        self.queues = Queues::on(self.store.clone(), settings).await.expect("what was stored can be read");
    }

    async fn put(&self, n: u64) -> String {
        self.send(JOBS, message(n)).await.id
    }

    async fn send(&self, queue: &str, message: NewMessage) -> Enqueued {
        self.queues.enqueue(queue, message).await.expect("it is taken")
    }

    fn consume(&self) -> Consumer {
        self.queues.consume(JOBS).expect("there is such a queue")
    }

    /// Everything that can be had now, as numbers, and acknowledged.
    async fn drain(&self) -> Vec<u64> {
        let consumer = self.consume();
        let mut drained = Vec::new();
        while let Some(message) = consumer.try_recv() {
            drained.push(n(&message));
            consumer.ack(&message.id).await.expect("it is in flight");
        }
        drained
    }

    /// Lets time pass, and everything happen that is due.
    async fn pass(&self, ms: u64) {
        tokio::time::advance(Duration::from_millis(ms)).await;
        self.settle().await;
    }

    /// Waits until the timer has had its turn and all that was decided is stored.
    async fn settle(&self) {
        for _ in 0..8 {
            tokio::task::yield_now().await;
        }
        let entry = Arc::new(Entry::new("told".into(), Durability::Memory, self.settings.limits, 1));
        let (sender, told) = oneshot::channel();
        self.queues.0.writer.push(Op {
            entry,
            writes: Writes::new(),
            then: Then::Told(self.queues.0.writer.failures(), sender),
        });
        let _ = told.await;
    }

    /// Whether a future has no outcome for as long as nothing happens. It is given up then.
    async fn is_waiting<T>(&self, future: impl Future<Output = T>) -> bool {
        tokio::select! {
            biased;
            _ = future => false,
            () = self.settle() => true,
        }
    }

    /// The groups of the log, with their numbers.
    async fn log(&self) -> Vec<(Vec<u8>, Vec<u8>)> {
        self.store.range(log::LOG, Keys::beginning_with(""), usize::MAX).await.expect("it can be read")
    }

    fn fail(&self, faults: impl IntoIterator<Item = Fault>) {
        self.queues.0.writer.fail(faults);
    }
}

/// A message with a number.
fn message(n: u64) -> NewMessage {
    NewMessage::new(json!({"n": n}))
}

/// The number in a message.
#[track_caller]
fn n(message: &Delivered) -> u64 {
    let payload: serde_json::Value = serde_json::from_slice(&message.payload).expect("a payload is JSON");
    payload["n"].as_u64().expect("the tests' messages have one")
}

/// The number of a message in its queue.
fn seq(id: &str) -> u64 {
    record::parse_id(id).expect("an id").1.0
}
