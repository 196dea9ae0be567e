//! How often an identity may ask: buckets of tokens, from which each request takes what its method costs.
//!
//! Three buckets are asked for each request: that of the whole server, that of the identity, and that of the
//! identity's use of the method. The first that has too little refuses it. What the ones before it have given is
//! gone, as in the deployment, unless [`RateLimits::refunds_global`].
//!
//! The identity is the user's id, so that connecting again starts nothing anew. What is kept of each is a debt that
//! shrinks with time: who has none is forgotten without a difference.
//!
//! Why not the crate `governor`: it reads its time from a clock of its own instead of taking it, keeps one store a
//! quota and so three for the priorities, and bounds no store: it can only forget all that is old, while a flood of
//! new identities must neither fill the memory nor push a debt out.
//!
//! Source: the contract of the Elixir deployment, section 11.1, and T12.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicU64, Ordering};

use parking_lot::Mutex;

use super::table::{Entry, Table};
use crate::protocol::Time;
use crate::protocol::policy::methods;

/// Identities whose debts are kept, by default. Those beyond share a debt with others until there is room. One that
/// has used all its methods takes about a kilobyte.
pub const IDENTITIES_MAX: usize = 100_000;
/// Seconds that `retry_after` says at most: also for what can never be had, because it costs more than a bucket holds.
pub const RETRY_AFTER_S_MAX: u64 = 86_400;
/// Milliseconds between two calls of [`Rates::forget_idle`]. Source: the deployment, 300 s.
pub const FORGET_INTERVAL_MS: u64 = 300_000;
/// Identities that the statistics name. Source: the deployment, `top_consumers`.
pub const TOP_CONSUMERS: usize = 10;

/// Parts of a token that are counted: with thousandths of tokens a second, a millisecond brings a whole number of them.
const MICRO: u64 = 1_000_000;
/// Stands for every method without a row in [`methods::METHODS`], so that a client can't make buckets by inventing
/// names.
const OTHERS: &str = "";

/// A bucket's size and how fast it fills.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Quota {
    /// Tokens that it holds.
    pub tokens: u32,
    /// Tokens that it holds beside these. It is there from the start (T12).
    pub burst: u32,
    /// Thousandths of a token that come back each second.
    pub refill_milli_per_s: u32,
}

/// How much an identity may do; which one it has is a matter of its roles.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub enum Priority {
    /// As everybody.
    #[default]
    Normal,
    /// More.
    High,
    /// Most.
    Critical,
}

/// The quotas and costs.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RateLimits {
    /// Of the whole server.
    pub global: Quota,
    /// Of an identity, and of its use of each method.
    pub normal: Quota,
    /// The same for [`Priority::High`].
    pub high: Quota,
    /// The same for [`Priority::Critical`].
    pub critical: Quota,
    /// Tokens of a request, by method.
    pub costs: BTreeMap<String, u32>,
    /// Tokens of a request whose method is not among them.
    pub cost_of_others: u32,
    /// Whether what the identity's own buckets refuse costs the server's nothing, so that an identity which is refused
    /// all the time can't use up what all share. Off in the deployment.
    pub refunds_global: bool,
    /// Identities whose debts are kept.
    pub identities_max: usize,
}

/// The deployment's, section 11.1.
impl Default for RateLimits {
    fn default() -> Self {
        let quota = |tokens, per_s: u32, burst| Quota { tokens, burst, refill_milli_per_s: per_s * 1_000 };
        let costs = [
            ("tools/list", 1),
            ("resources/list", 1),
            ("resources/read", 2),
            ("tools/call", 5),
            ("workflows/create", 10),
            ("sampling/createMessage", 15),
            ("workflows/execute", 20),
        ];
        RateLimits {
            global: quota(10_000, 100, 1_000),
            normal: quota(100, 1, 20),
            high: quota(500, 5, 100),
            critical: quota(1_000, 10, 200),
            costs: costs.into_iter().map(|(method, cost)| (method.to_owned(), cost)).collect(),
            cost_of_others: 1,
            refunds_global: false,
            identities_max: IDENTITIES_MAX,
        }
    }
}

/// A request came too soon. The client is told in `data` beside `Rate limit exceeded`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("rate limit exceeded, to be tried again in {seconds} s")]
pub struct RetryAfter {
    /// Whole seconds until there is enough, 1 to [`RETRY_AFTER_S_MAX`].
    pub seconds: u64,
}

impl RetryAfter {
    /// Rounded up.
    pub(super) fn ms(ms: u64) -> Self {
        RetryAfter { seconds: ms.div_ceil(1_000).clamp(1, RETRY_AFTER_S_MAX) }
    }
}

/// Counts of a limiter.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct RateStats {
    /// Requests that were let through.
    pub requests_allowed: u64,
    /// Requests that were not.
    pub requests_limited: u64,
    /// Buckets of identities and of their methods that are kept.
    pub active_buckets: usize,
    /// The identities that have used most of their own bucket, at most [`TOP_CONSUMERS`].
    pub top_consumers: Vec<Consumer>,
}

/// How much an identity has used of its bucket.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Consumer {
    /// The identity.
    pub identity: String,
    /// Whole tokens that it has left.
    pub tokens: u64,
    /// Tokens that its bucket holds.
    pub max_tokens: u64,
    /// Percent of them that are used.
    pub utilization_percent: u64,
}

/// The limiter.
#[derive(Debug)]
pub struct Rates {
    limits: RateLimits,
    global: Mutex<Debt>,
    by_identity: Table<String, Debts>,
    allowed: AtomicU64,
    limited: AtomicU64,
}

impl Rates {
    /// Nobody has used anything.
    pub fn new(limits: RateLimits) -> Self {
        let by_identity = Table::new(limits.identities_max);
        Rates { limits, global: Mutex::default(), by_identity, allowed: AtomicU64::new(0), limited: AtomicU64::new(0) }
    }

    /// Takes the tokens of one request.
    ///
    /// # Errors
    /// [`RetryAfter`]: one of the buckets has too little.
    pub fn check(&self, identity: &str, priority: Priority, method: &str, now: Time) -> Result<(), RetryAfter> {
        let checked = self.take(identity, priority, method, now);
        let counter = if checked.is_ok() { &self.allowed } else { &self.limited };
        counter.fetch_add(1, Ordering::Relaxed);
        checked
    }

    fn take(&self, identity: &str, priority: Priority, method: &str, now: Time) -> Result<(), RetryAfter> {
        let cost = self.limits.costs.get(method).copied().unwrap_or(self.limits.cost_of_others);
        let quota = self.quota(priority);
        // Before the identity is looked at: whoever floods the server with identities leaves none behind.
        self.global.lock().take(self.limits.global, cost, now)?;
        let taken = self.by_identity.with(identity, now, Debts::default, |debts| {
            debts.quota = quota;
            debts.own.take(quota, cost, now)?;
            debts.of(methods::known(method).unwrap_or(OTHERS)).take(quota, cost, now)
        });
        if taken.is_err() && self.limits.refunds_global {
            self.global.lock().give_back(cost);
        }
        taken
    }

    /// Forgives an identity all it has used.
    pub fn reset(&self, identity: &str) {
        self.by_identity.forget(identity);
    }

    /// Forgets the identities without debts; to be called each [`FORGET_INTERVAL_MS`].
    pub fn forget_idle(&self, now: Time) {
        self.by_identity.forget_idle(now);
    }

    /// The counts. It looks at every identity: for operators.
    pub fn stats(&self, now: Time) -> RateStats {
        let mut stats = RateStats {
            requests_allowed: self.allowed.load(Ordering::Relaxed),
            requests_limited: self.limited.load(Ordering::Relaxed),
            ..RateStats::default()
        };
        self.by_identity.each(|identity, debts| {
            stats.active_buckets += 1 + debts.by_method.len();
            let consumer = debts.consumer(now);
            let top = &mut stats.top_consumers;
            let rank = |consumer: &Consumer| (std::cmp::Reverse(consumer.utilization_percent), consumer.tokens);
            let at = top.partition_point(|other| rank(other) <= rank(&consumer));
            if at < TOP_CONSUMERS && consumer.utilization_percent > 0 {
                top.insert(at, Consumer { identity: identity.clone(), ..consumer });
                top.truncate(TOP_CONSUMERS);
            }
        });
        stats
    }

    fn quota(&self, priority: Priority) -> Quota {
        match priority {
            Priority::Normal => self.limits.normal,
            Priority::High => self.limits.high,
            Priority::Critical => self.limits.critical,
        }
    }
}

/// What an identity has used.
#[derive(Debug, Default)]
struct Debts {
    quota: Quota,
    own: Debt,
    /// At most one for each row of [`methods::METHODS`], and one for the others.
    by_method: Vec<(&'static str, Debt)>,
}

/// Nothing, which fills at once: of an entry before its first use.
impl Default for Quota {
    fn default() -> Self {
        Quota { tokens: 0, burst: 0, refill_milli_per_s: u32::MAX }
    }
}

impl Debts {
    fn of(&mut self, method: &'static str) -> &mut Debt {
        let at = self.by_method.iter().position(|(name, _)| *name == method).unwrap_or_else(|| {
            self.by_method.push((method, Debt::default()));
            self.by_method.len() - 1
        });
        &mut self.by_method[at].1
    }

    fn consumer(&self, now: Time) -> Consumer {
        let (max, used) = (self.quota.micro_tokens(), self.own.at(self.quota, now));
        Consumer {
            identity: String::new(),
            tokens: max.saturating_sub(used) / MICRO,
            max_tokens: max / MICRO,
            utilization_percent: (used / (max / 100).max(1)).min(100),
        }
    }
}

impl Entry for Debts {
    fn is_idle(&self, now: Time) -> bool {
        let has_none = |debt: &Debt| debt.at(self.quota, now) == 0;
        has_none(&self.own) && self.by_method.iter().all(|(_, debt)| has_none(debt))
    }
}

/// The tokens that a bucket lacks until it is full.
#[derive(Clone, Copy, Debug, Default)]
struct Debt {
    /// In millionths of a token.
    micro_tokens: u64,
    /// When it was as many.
    since: Time,
}

impl Debt {
    fn at(&self, quota: Quota, now: Time) -> u64 {
        let refilled = u64::from(quota.refill_milli_per_s).saturating_mul(now.since(self.since));
        self.micro_tokens.saturating_sub(refilled)
    }

    fn take(&mut self, quota: Quota, cost: u32, now: Time) -> Result<(), RetryAfter> {
        self.micro_tokens = self.at(quota, now);
        self.since = self.since.max(now);
        let (capacity, cost) = (quota.micro_tokens(), u64::from(cost) * MICRO);
        let owed = self.micro_tokens + cost;
        if owed <= capacity {
            self.micro_tokens = owed;
            return Ok(());
        }
        let refill = u64::from(quota.refill_milli_per_s);
        if cost > capacity || refill == 0 {
            return Err(RetryAfter { seconds: RETRY_AFTER_S_MAX });
        }
        Err(RetryAfter::ms((owed - capacity).div_ceil(refill)))
    }

    fn give_back(&mut self, cost: u32) {
        self.micro_tokens = self.micro_tokens.saturating_sub(u64::from(cost) * MICRO);
    }
}

impl Quota {
    /// All that the bucket holds, in millionths of a token.
    fn micro_tokens(self) -> u64 {
        (u64::from(self.tokens) + u64::from(self.burst)) * MICRO
    }
}

#[cfg(test)]
mod tests;
