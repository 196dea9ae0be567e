//! How often an address may connect, and for how long it may not after failures.
//!
//! An address of IPv6 counts with its /64, which is what one household or machine is given; one of IPv4 that is
//! written as IPv6 counts as what it is.
//!
//! Source: the contract of the Elixir deployment, section 11.2: five failures, 300 s.

use std::borrow::Borrow;
use std::hash::Hash;
use std::net::{IpAddr, Ipv6Addr};

use super::rate::RetryAfter;
use super::table::{Entry, Table};
use crate::protocol::Time;

/// Addresses, or names, that are kept of each limit. What comes beyond is not counted until there is room, so that nobody is
/// locked out for what strangers do; what is locked stays so.
pub const KEYS_MAX: usize = 65_536;
/// Bytes of a name whose failures are counted, so that the table is bounded; a longer one counts by its beginning.
pub const NAME_BYTES_MAX: usize = 128;

/// The address by which attempts are counted: without its lower half if it is of IPv6.
pub fn counted(ip: IpAddr) -> IpAddr {
    match ip.to_canonical() {
        IpAddr::V6(ip) => IpAddr::V6(Ipv6Addr::from_bits(ip.to_bits() & !u128::from(u64::MAX))),
        ip => ip,
    }
}

/// How many of something are let through in a window of time.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Allowance {
    /// As many; 0 is no limit.
    pub attempts_max: u32,
    /// Milliseconds from the first of them until they are counted anew.
    pub window_ms: u64,
}

/// Counts attempts, by address.
#[derive(Debug)]
pub struct Attempts {
    allowance: Allowance,
    by_ip: Table<IpAddr, Window>,
}

impl Attempts {
    /// Nothing was attempted.
    pub fn new(allowance: Allowance) -> Self {
        Attempts { allowance, by_ip: Table::new(KEYS_MAX) }
    }

    /// Counts one attempt. Those that are refused don't count.
    ///
    /// # Errors
    /// [`RetryAfter`]: the window has had as many as it may.
    pub fn attempt(&self, ip: IpAddr, now: Time) -> Result<(), RetryAfter> {
        let Allowance { attempts_max, window_ms } = self.allowance;
        if attempts_max == 0 {
            return Ok(());
        }
        let attempted = self.by_ip.with_own(&counted(ip), now, Window::default, |window| {
            window.begin_anew(now, window_ms);
            if window.count >= attempts_max {
                return Err(RetryAfter::ms(window.end.since(now)));
            }
            window.count += 1;
            Ok(())
        });
        attempted.unwrap_or(Ok(()))
    }

    /// Forgets windows that are over.
    pub fn forget_idle(&self, now: Time) {
        self.by_ip.forget_idle(now);
    }
}

#[derive(Debug, Default)]
struct Window {
    count: u32,
    end: Time,
}

impl Window {
    fn begin_anew(&mut self, now: Time, window_ms: u64) {
        if now >= self.end {
            *self = Window { count: 0, end: now + window_ms };
        }
    }
}

impl Entry for Window {
    fn is_idle(&self, now: Time) -> bool {
        now >= self.end
    }
}

/// When failures lock, and for how long.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Locking {
    /// Failures within the window that lock; 0 for never.
    pub failures_max: u32,
    /// Milliseconds from the first failure until they are counted anew.
    pub window_ms: u64,
    /// Milliseconds that it stays locked.
    pub locked_ms: u64,
}

/// The deployment's, which counted since its start; here failures are forgotten in the time that a lock takes.
impl Default for Locking {
    fn default() -> Self {
        Locking { failures_max: 5, window_ms: 300_000, locked_ms: 300_000 }
    }
}

/// Locks addresses, and names of users or keys, out for a while after failures.
///
/// An address is not cleared by a success: who has a valid credential could otherwise try others in between. A name is.
#[derive(Debug)]
pub struct Lockout {
    of_ips: Locking,
    of_names: Locking,
    by_ip: Table<IpAddr, Failures>,
    by_name: Table<String, Failures>,
}

/// What a failure has locked.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Locked {
    /// The address, from this failure on.
    pub ip: bool,
    /// The name, from this failure on.
    pub name: bool,
}

impl Lockout {
    /// Nobody has failed.
    pub fn new(of_ips: Locking, of_names: Locking) -> Self {
        Lockout { of_ips, of_names, by_ip: Table::new(KEYS_MAX), by_name: Table::new(KEYS_MAX) }
    }

    /// Asks whether an attempt may be made. To be asked before the credential is looked at, and of a name that the
    /// credential states; who may not is answered as if it were wrong.
    ///
    /// # Errors
    /// [`RetryAfter`]: the address or the name is locked.
    pub fn check(&self, ip: IpAddr, name: Option<&str>, now: Time) -> Result<(), RetryAfter> {
        let of_ip = locked_ms(&self.by_ip, &counted(ip), now);
        let of_name = name.map_or(0, |name| locked_ms(&self.by_name, bounded(name), now));
        match of_ip.max(of_name) {
            0 => Ok(()),
            ms => Err(RetryAfter::ms(ms)),
        }
    }

    /// Whether an address is locked: what [`super::ip::IpRules::check`] wants to know.
    pub fn is_locked(&self, ip: IpAddr, now: Time) -> bool {
        locked_ms(&self.by_ip, &counted(ip), now) > 0
    }

    /// Counts a failure, and says what it has locked. While something is locked its failures don't make it longer.
    pub fn failed(&self, ip: IpAddr, name: Option<&str>, now: Time) -> Locked {
        Locked {
            ip: fail(&self.by_ip, &counted(ip), self.of_ips, now),
            name: name.is_some_and(|name| fail(&self.by_name, bounded(name), self.of_names, now)),
        }
    }

    /// Forgets the failures of a name, which has succeeded.
    pub fn succeeded(&self, name: &str) {
        self.by_name.forget(bounded(name));
    }

    /// Unlocks an address; says whether it had failures.
    pub fn unlock_ip(&self, ip: IpAddr) -> bool {
        self.by_ip.forget(&counted(ip))
    }

    /// Forgets failures and locks that are over.
    pub fn forget_idle(&self, now: Time) {
        self.by_ip.forget_idle(now);
        self.by_name.forget_idle(now);
    }

    /// Addresses of which failures or locks are kept.
    pub fn tracked_ips(&self) -> usize {
        self.by_ip.len()
    }
}

#[derive(Debug, Default)]
struct Failures {
    window: Window,
    locked_until: Time,
}

impl Entry for Failures {
    fn is_idle(&self, now: Time) -> bool {
        self.window.is_idle(now) && now >= self.locked_until
    }
}

fn locked_ms<K, Q>(table: &Table<K, Failures>, key: &Q, now: Time) -> u64
where
    K: Borrow<Q> + Hash + Eq,
    Q: Hash + Eq + ?Sized,
{
    table.look(key, |failures| failures.map_or(0, |failures| failures.locked_until.since(now)))
}

fn fail<K, Q>(table: &Table<K, Failures>, key: &Q, locking: Locking, now: Time) -> bool
where
    K: Borrow<Q> + Hash + Eq,
    Q: Hash + Eq + ToOwned<Owned = K> + ?Sized,
{
    if locking.failures_max == 0 {
        return false;
    }
    let failed = table.with_own(key, now, Failures::default, |failures| {
        if failures.locked_until > now {
            return false;
        }
        failures.window.begin_anew(now, locking.window_ms);
        failures.window.count += 1;
        let locks = failures.window.count >= locking.failures_max;
        if locks {
            *failures = Failures { window: Window::default(), locked_until: now + locking.locked_ms };
        }
        locks
    });
    failed.unwrap_or(false)
}

fn bounded(name: &str) -> &str {
    &name[..name.floor_char_boundary(NAME_BYTES_MAX)]
}

#[cfg(test)]
mod tests {
    use super::*;

    const A: &str = "192.0.2.1";
    const B: &str = "192.0.2.2";

    fn ip(text: &str) -> IpAddr {
        text.parse().unwrap()
    }

    fn lockout() -> Lockout {
        Lockout::new(Locking::default(), Locking::default())
    }

    #[test]
    fn an_address_has_its_attempts_in_each_window() {
        let attempts = Attempts::new(Allowance { attempts_max: 3, window_ms: 10_000 });
        for ms in [0, 1_000, 2_000] {
            attempts.attempt(ip(A), Time(ms)).unwrap();
        }

        assert_eq!(attempts.attempt(ip(A), Time(2_500)), Err(RetryAfter { seconds: 8 }));
        assert_eq!(attempts.attempt(ip(B), Time(2_500)), Ok(()));
        assert_eq!(attempts.attempt(ip(A), Time(9_999)), Err(RetryAfter { seconds: 1 }));
        assert_eq!(attempts.attempt(ip(A), Time(10_000)), Ok(()));
    }

    #[test]
    fn without_a_limit_nothing_is_kept() {
        let attempts = Attempts::new(Allowance { attempts_max: 0, window_ms: 10_000 });
        for _ in 0..1_000 {
            attempts.attempt(ip(A), Time(0)).unwrap();
        }

        assert_eq!(attempts.by_ip.len(), 0);
    }

    #[test]
    fn addresses_of_one_network_of_ipv6_count_as_one() {
        let attempts = Attempts::new(Allowance { attempts_max: 1, window_ms: 10_000 });

        attempts.attempt(ip("2001:db8:1:2::1"), Time(0)).unwrap();
        assert!(attempts.attempt(ip("2001:db8:1:2:ffff::9"), Time(0)).is_err());
        assert!(attempts.attempt(ip("2001:db8:1:3::1"), Time(0)).is_ok());
        attempts.attempt(ip(A), Time(0)).unwrap();
        assert!(attempts.attempt(ip("::ffff:192.0.2.1"), Time(0)).is_err());
        assert!(attempts.attempt(ip("::ffff:192.0.2.2"), Time(0)).is_ok());
    }

    #[test]
    fn five_failures_lock_an_address_for_five_minutes() {
        let lockout = lockout();
        for ms in 0..4 {
            assert_eq!(lockout.failed(ip(A), None, Time(ms)), Locked::default());
            assert!(lockout.check(ip(A), None, Time(ms)).is_ok());
        }

        assert!(lockout.failed(ip(A), None, Time(4)).ip);
        assert_eq!(lockout.check(ip(A), None, Time(5)), Err(RetryAfter { seconds: 300 }));
        assert!(lockout.is_locked(ip(A), Time(300_003)) && !lockout.is_locked(ip(B), Time(5)));
        assert!(lockout.check(ip(A), None, Time(300_004)).is_ok());
    }

    #[test]
    fn failures_while_locked_make_it_no_longer() {
        let lockout = lockout();
        for _ in 0..100 {
            lockout.failed(ip(A), None, Time(0));
        }

        assert!(lockout.check(ip(A), None, Time(300_000)).is_ok());
        assert_eq!(lockout.failed(ip(A), None, Time(300_000)), Locked::default(), "they are counted anew");
    }

    #[test]
    fn old_failures_are_forgotten() {
        let lockout = lockout();
        for _ in 0..4 {
            lockout.failed(ip(A), None, Time(0));
        }

        assert!(!lockout.failed(ip(A), None, Time(300_000)).ip);
    }

    #[test]
    fn a_name_is_locked_from_whatever_address_it_was_tried() {
        let lockout = lockout();
        for n in 0..5_u8 {
            lockout.failed(IpAddr::from([192, 0, 2, n]), Some("key1"), Time(0));
        }

        assert!(lockout.check(ip("198.51.100.1"), Some("key1"), Time(1)).is_err());
        assert!(lockout.check(ip("198.51.100.1"), Some("key2"), Time(1)).is_ok());
        assert!(lockout.check(ip(A), None, Time(1)).is_ok());
    }

    #[test]
    fn a_success_clears_the_name_and_not_the_address() {
        let lockout = lockout();
        for _ in 0..4 {
            lockout.failed(ip(A), Some("bob"), Time(0));
        }
        lockout.succeeded("bob");

        assert_eq!(lockout.failed(ip(A), Some("bob"), Time(1)), Locked { ip: true, name: false });
        assert!(lockout.unlock_ip(ip(A)));
        assert!(lockout.check(ip(A), Some("bob"), Time(2)).is_ok());
    }

    #[test]
    fn a_flood_of_names_is_bounded_and_unlocks_nobody() {
        let lockout = lockout();
        for _ in 0..5 {
            lockout.failed(ip(A), Some("victim"), Time(0));
        }
        for n in 0..100_000_u32 {
            lockout.failed(IpAddr::from(n.to_be_bytes()), Some(&n.to_string()), Time(1));
        }

        assert!(lockout.by_name.len() <= KEYS_MAX && lockout.tracked_ips() <= KEYS_MAX);
        assert!(lockout.check(ip("198.51.100.1"), Some("victim"), Time(2)).is_err());
        lockout.forget_idle(Time(600_001));
        assert_eq!((lockout.by_name.len(), lockout.tracked_ips()), (0, 0));
        let long = "é".repeat(10_000);
        lockout.failed(ip(B), Some(&long), Time(600_001));
        lockout.by_name.each(|name, _| assert!(name.len() <= NAME_BYTES_MAX));
    }

    #[test]
    fn without_a_limit_nothing_locks() {
        let never = Locking { failures_max: 0, ..Locking::default() };
        let lockout = Lockout::new(never, Locking::default());
        for _ in 0..100 {
            assert!(!lockout.failed(ip(A), None, Time(0)).ip);
        }

        assert!(lockout.check(ip(A), None, Time(0)).is_ok());
    }
}
