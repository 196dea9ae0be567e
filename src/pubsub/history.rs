//! The topics that keep history: which do, how much, and the lock under which a broadcast gets its offset.

use std::borrow::Borrow;
use std::collections::HashSet;
use std::collections::hash_map::DefaultHasher;
use std::fmt;
use std::hash::{Hash, Hasher};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};

use parking_lot::{Mutex, RwLock};

use crate::outbox::Broadcast;
use crate::protocol::Time;
use crate::protocol::history::{Bounds, Epoch, History, is_kept};
use crate::protocol::limits::{HISTORY_AGE_MS, HISTORY_BYTES_MAX, HISTORY_MESSAGES_MAX};
use crate::protocol::limits::{HISTORY_TOPIC_BYTES_MAX, HISTORY_TOPICS_MAX, HISTORY_TOTAL_BYTES_MAX};
use crate::protocol::topic::{TopicPattern, is_reserved};
use crate::{clock, random};

/// Parts of the table, each with a lock of its own; one is looked through at a time.
const PARTS: usize = 16;

/// What a topic keeps, and how it treats a client that resumes and reads too slowly.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct HistoryOptions {
    /// Broadcasts of one topic.
    pub messages_max: usize,
    /// Bytes of one topic's broadcasts.
    pub bytes_max: usize,
    /// Milliseconds that a broadcast is kept.
    pub age_ms: u64,
    /// What becomes of a client that reads too slowly. Of those that did not ask to resume, the connection is closed.
    pub on_slow: OnSlow,
    /// Whether the program `bennu` stores what the topic keeps when it stops in order, so that the next one goes on with it. After a
    /// crash the topic begins anew, and who resumes it is told of a gap. A server that is embedded does not store it.
    pub survives_restart: bool,
}

impl Default for HistoryOptions {
    fn default() -> Self {
        HistoryOptions {
            messages_max: HISTORY_MESSAGES_MAX,
            bytes_max: HISTORY_BYTES_MAX,
            age_ms: HISTORY_AGE_MS,
            on_slow: OnSlow::Gap,
            survives_restart: false,
        }
    }
}

/// What becomes of a client that can resume a topic and reads too slowly for it.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum OnSlow {
    /// Its connection is closed, as that of any slow client.
    Disconnect,
    /// It gets what it misses from the history as soon as there is room; if that has it no longer, it is told of the gap.
    Gap,
    /// As [`OnSlow::Gap`], but of what waits it gets only the latest of each key: the event, and where a field of the payload
    /// is named, its value.
    Latest {
        /// The field.
        key: Option<String>,
    },
}

/// Which topics keep history, and how.
#[derive(Debug)]
struct Class {
    pattern: TopicPattern,
    options: HistoryOptions,
    totals: Arc<Totals>,
}

/// All topics with history.
pub(crate) struct Histories {
    is_used: AtomicBool,
    classes: RwLock<Vec<Arc<Class>>>,
    parts: [Mutex<HashSet<Named>>; PARTS],
    totals: Arc<Totals>,
}

/// What all topics keep together.
#[derive(Debug)]
struct Totals {
    topics: AtomicUsize,
    bytes: AtomicUsize,
    topics_max: AtomicUsize,
    bytes_max: AtomicUsize,
    /// Nothing is numbered any more; looked at under each topic's lock.
    is_stopped: AtomicBool,
}

/// One topic with history.
pub(crate) struct Kept {
    topic: Arc<str>,
    class: Arc<Class>,
    history: Mutex<History<Arc<Broadcast>>>,
    /// When somebody last read it or published on it, in milliseconds.
    used_ms: AtomicU64,
}

/// A topic's place in the table, found by its name.
struct Named(Arc<Kept>);

impl Borrow<str> for Named {
    fn borrow(&self) -> &str {
        &self.0.topic
    }
}

impl Hash for Named {
    fn hash<H: Hasher>(&self, state: &mut H) {
        (*self.0.topic).hash(state);
    }
}

impl PartialEq for Named {
    fn eq(&self, other: &Self) -> bool {
        self.0.topic == other.0.topic
    }
}

impl Eq for Named {}

impl Default for Histories {
    fn default() -> Self {
        let totals = Totals {
            topics: AtomicUsize::new(0),
            bytes: AtomicUsize::new(0),
            topics_max: AtomicUsize::new(HISTORY_TOPICS_MAX),
            bytes_max: AtomicUsize::new(HISTORY_TOTAL_BYTES_MAX),
            is_stopped: AtomicBool::new(false),
        };
        Histories {
            is_used: AtomicBool::new(false),
            classes: RwLock::default(),
            parts: Default::default(),
            totals: Arc::new(totals),
        }
    }
}

impl Histories {
    /// Has topics that match keep history from now on; of several patterns that match, the first one given counts.
    pub(crate) fn keep(&self, pattern: TopicPattern, options: HistoryOptions) {
        self.classes.write().push(Arc::new(Class { pattern, options, totals: Arc::clone(&self.totals) }));
        self.is_used.store(true, Ordering::Release);
    }

    /// Bounds all topics together.
    pub(crate) fn limit(&self, topics_max: usize, bytes_max: usize) {
        self.totals.topics_max.store(topics_max, Ordering::Relaxed);
        self.totals.bytes_max.store(bytes_max, Ordering::Relaxed);
    }

    /// Topics that have a history.
    pub(crate) fn topics(&self) -> usize {
        self.totals.topics.load(Ordering::Relaxed)
    }

    /// Bytes that are kept of all of them.
    pub(crate) fn bytes(&self) -> usize {
        self.totals.bytes.load(Ordering::Relaxed)
    }

    /// Ends all numbering, for good, and gives what the topics keep that are to survive a restart.
    pub(crate) fn stop(&self) -> Vec<Arc<Kept>> {
        self.is_used.store(false, Ordering::Release);
        self.totals.is_stopped.store(true, Ordering::Release);
        let all =
            |part: &Mutex<HashSet<Named>>| part.lock().iter().map(|named| Arc::clone(&named.0)).collect::<Vec<_>>();
        let kept = self.parts.iter().flat_map(all);
        kept.filter(|kept| kept.class.options.survives_restart).collect()
    }

    /// Goes on with what a topic kept before a restart so many milliseconds ago, if it still is one that does and would not have
    /// been forgotten meanwhile. Before anything is published.
    pub(crate) fn restore(&self, topic: &str, stopped_ms: u64, history: History<Arc<Broadcast>>) {
        let is_kept = |class: Arc<Class>| class.options.survives_restart && stopped_ms < class.options.age_ms;
        if !self.class(topic).is_some_and(is_kept) {
            return;
        }
        if let Some(kept) = self.of(&topic.into()) {
            let bounds = kept.bounds();
            kept.counted(|held| {
                *held = history;
                held.trim(&bounds, clock::now());
            });
        }
    }

    fn class(&self, topic: &str) -> Option<Arc<Class>> {
        if !self.is_used.load(Ordering::Acquire) || topic.len() > HISTORY_TOPIC_BYTES_MAX || is_reserved(topic) {
            return None;
        }
        self.classes.read().iter().find(|class| class.pattern.matches(topic)).cloned()
    }

    /// Whether a topic is one that keeps history.
    pub(crate) fn keeps(&self, topic: &str) -> bool {
        self.class(topic).is_some()
    }

    /// A topic's history, which begins now if it has not. None if the topic keeps none, or as many topics do as may.
    pub(crate) fn of(&self, topic: &Arc<str>) -> Option<Arc<Kept>> {
        self.find_or_begin(topic, || Arc::clone(topic))
    }

    fn find_or_begin(&self, topic: &str, name: impl FnOnce() -> Arc<str>) -> Option<Arc<Kept>> {
        let class = self.class(topic)?;
        let mut part = self.part(topic).lock();
        if let Some(Named(kept)) = part.get(topic) {
            kept.is_used();
            return Some(Arc::clone(kept));
        }
        if self.totals.topics.fetch_add(1, Ordering::Relaxed) >= self.totals.topics_max.load(Ordering::Relaxed) {
            self.totals.topics.fetch_sub(1, Ordering::Relaxed);
            return None;
        }
        let now = clock::now();
        let kept = Arc::new(Kept {
            topic: name(),
            class,
            history: Mutex::new(History::new(Epoch(u64::from_be_bytes(random::bytes())))),
            used_ms: AtomicU64::new(now.0),
        });
        part.insert(Named(Arc::clone(&kept)));
        Some(kept)
    }

    /// The history that a broadcast is numbered in, if it is.
    pub(super) fn numbering(&self, broadcast: &Broadcast) -> Option<Arc<Kept>> {
        if !self.is_used.load(Ordering::Acquire) || !is_kept(&broadcast.event) {
            return None;
        }
        self.find_or_begin(&broadcast.topic, || (*broadcast.topic).into())
    }

    fn part(&self, topic: &str) -> &Mutex<HashSet<Named>> {
        let mut hasher = DefaultHasher::new();
        topic.hash(&mut hasher);
        let part = usize::try_from(hasher.finish() % PARTS as u64).expect("it is less than the number of parts");
        &self.parts[part]
    }

    /// Lets go of what is too old, and of topics that nobody has read or published on for as long, in one part of the table. Where
    /// as many topics have a history as may, those go at once that never had anything. Told a number that grows, it goes
    /// round.
    pub(super) fn sweep(&self, round: usize, now: Time) {
        if !self.is_used.load(Ordering::Acquire) {
            return;
        }
        let is_full = self.topics() >= self.totals.topics_max.load(Ordering::Relaxed);
        let mut part = self.parts[round % PARTS].lock();
        // Under this lock nobody gets hold of a topic that only the table holds.
        part.retain(|Named(kept)| {
            let is_unread = Arc::strong_count(kept) == 1;
            let age_ms = kept.class.options.age_ms;
            let is_idle = now.since(Time(kept.used_ms.load(Ordering::Relaxed))) >= age_ms;
            let is_over = kept.with(|history| is_idle || is_full && history.head() == 0);
            !(is_unread && is_over)
        });
        let left = part.len();
        part.shrink_to(left * 2);
    }
}

impl Kept {
    /// The topic.
    pub(crate) fn topic(&self) -> &Arc<str> {
        &self.topic
    }

    /// What becomes of slow clients.
    pub(super) fn on_slow(&self) -> &OnSlow {
        &self.class.options.on_slow
    }

    /// Notes that somebody reads it, or did until now.
    pub(super) fn is_used(&self) {
        self.used_ms.store(clock::now().0, Ordering::Relaxed);
    }

    /// Numbers a broadcast, and has it handed on under the lock that gives the order; without an offset once numbering has ended.
    pub(super) fn append(&self, broadcast: &Arc<Broadcast>, hand_on: impl FnOnce(Option<u64>)) {
        let bytes = broadcast.topic.len() + broadcast.event.len() + broadcast.payload.as_bytes().len();
        let bounds = self.bounds();
        self.counted(|history| {
            let is_numbered = !self.class.totals.is_stopped.load(Ordering::Acquire);
            hand_on(is_numbered.then(|| history.append(Arc::clone(broadcast), bytes, &bounds, clock::now())));
        });
    }

    /// Does something under the lock, with what is too old gone.
    pub(crate) fn with<R>(&self, act: impl FnOnce(&History<Arc<Broadcast>>) -> R) -> R {
        let bounds = self.bounds();
        self.counted(|history| {
            history.trim(&bounds, clock::now());
            act(history)
        })
    }

    /// Does something under the lock and keeps the totals. If all topics keep too much, this one gives way.
    fn counted<R>(&self, act: impl FnOnce(&mut History<Arc<Broadcast>>) -> R) -> R {
        let mut history = self.history.lock();
        let before = history.bytes();
        let done = act(&mut history);
        let total = &self.class.totals.bytes;
        let (after, bytes_max) = (history.bytes(), self.class.totals.bytes_max.load(Ordering::Relaxed));
        let all = if after >= before {
            total.fetch_add(after - before, Ordering::Relaxed) + (after - before)
        } else {
            total.fetch_sub(before - after, Ordering::Relaxed) - (before - after)
        };
        if all > bytes_max {
            let mut freed = 0;
            while all - freed > bytes_max && history.let_go() {
                freed = after - history.bytes();
            }
            total.fetch_sub(freed, Ordering::Relaxed);
        }
        done
    }

    fn bounds(&self) -> Bounds {
        let HistoryOptions { messages_max, bytes_max, age_ms, .. } = self.class.options;
        Bounds { messages_max, bytes_max, age_ms }
    }
}

impl Drop for Kept {
    fn drop(&mut self) {
        self.class.totals.bytes.fetch_sub(self.history.get_mut().bytes(), Ordering::Relaxed);
        self.class.totals.topics.fetch_sub(1, Ordering::Relaxed);
    }
}

impl fmt::Debug for Kept {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Kept({})", self.topic)
    }
}
