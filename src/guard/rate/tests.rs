use proptest::prelude::*;

use super::*;

use Priority::{Critical, High, Normal};

fn rates() -> Rates {
    Rates::new(RateLimits::default())
}

/// Requests that go through until one does not, and when that may come again.
fn drain(rates: &Rates, identity: &str, priority: Priority, method: &str, now: Time) -> (u32, u64) {
    for n in 0.. {
        if let Err(retry) = rates.check(identity, priority, method, now) {
            return (n, retry.seconds);
        }
    }
    unreachable!("the buckets are finite");
}

#[test]
fn an_identity_has_its_tokens_and_its_burst_from_the_start() {
    // T12: 120, 600 and 1200 tokens.
    assert_eq!(drain(&rates(), "a", Normal, "tools/list", Time(0)), (120, 1));
    assert_eq!(drain(&rates(), "a", High, "tools/list", Time(0)), (600, 1));
    assert_eq!(drain(&rates(), "a", Critical, "tools/list", Time(0)), (1_200, 1));
}

#[test]
fn methods_cost_what_the_deployment_says() {
    for (method, requests, retry_after) in [
        ("tools/list", 120, 1),
        ("resources/list", 120, 1),
        ("resources/read", 60, 2),
        ("tools/call", 24, 5),
        ("workflows/create", 12, 10),
        ("sampling/createMessage", 8, 15),
        ("workflows/execute", 6, 20),
        ("prompts/get", 120, 1),
        ("no/such", 120, 1),
    ] {
        assert_eq!(drain(&rates(), "a", Normal, method, Time(0)), (requests, retry_after), "{method}");
    }
}

#[test]
fn retry_after_is_when_it_goes_through() {
    let rates = rates();
    drain(&rates, "a", Normal, "workflows/execute", Time(0));

    assert_eq!(rates.check("a", Normal, "workflows/execute", Time(12_001)).unwrap_err().seconds, 8);
    assert!(rates.check("a", Normal, "workflows/execute", Time(19_999)).is_err());
    assert!(rates.check("a", Normal, "workflows/execute", Time(20_000)).is_ok());
}

#[test]
fn one_identity_does_not_spend_anothers_tokens() {
    let rates = rates();
    drain(&rates, "a", Normal, "tools/call", Time(0));

    assert_eq!(drain(&rates, "b", Normal, "tools/call", Time(0)).0, 24);
    assert!(rates.check("a", Normal, "ping", Time(0)).is_err(), "its own bucket is of all methods");
}

#[test]
fn connecting_again_with_another_priority_starts_nothing_anew() {
    let rates = rates();
    drain(&rates, "a", Critical, "tools/list", Time(0));

    assert!(rates.check("a", Normal, "tools/list", Time(0)).is_err());
    assert_eq!(drain(&rates, "a", Critical, "tools/list", Time(1_000)), (10, 1));
}

#[test]
fn a_cost_above_the_bucket_never_comes_and_says_so() {
    let mut limits = RateLimits::default();
    limits.costs.insert("big/one".to_owned(), 121);
    limits.costs.insert("huge/one".to_owned(), u32::MAX);
    let rates = Rates::new(limits);

    assert_eq!(rates.check("a", Normal, "big/one", Time(0)).unwrap_err().seconds, RETRY_AFTER_S_MAX);
    assert_eq!(rates.check("a", Normal, "huge/one", Time(u64::MAX)).unwrap_err().seconds, RETRY_AFTER_S_MAX);
    assert!(rates.check("a", High, "big/one", Time(0)).is_ok());
}

#[test]
fn without_a_refill_nothing_comes_back() {
    let none = Quota { tokens: 1, burst: 0, refill_milli_per_s: 0 };
    let rates = Rates::new(RateLimits { normal: none, ..RateLimits::default() });

    assert_eq!(drain(&rates, "a", Normal, "ping", Time(0)), (1, RETRY_AFTER_S_MAX));
    assert!(rates.check("a", Normal, "ping", Time(u64::MAX)).is_err());
}

#[test]
fn what_a_later_bucket_refuses_the_earlier_ones_have_given() {
    let limits = RateLimits { global: Quota { tokens: 200, burst: 0, refill_milli_per_s: 0 }, ..RateLimits::default() };
    let rates = Rates::new(limits.clone());
    for _ in 0..200 {
        let _ = rates.check("a", Normal, "tools/list", Time(0));
    }
    assert!(rates.check("b", Normal, "tools/list", Time(0)).is_err());

    let rates = Rates::new(RateLimits { refunds_global: true, ..limits });
    for _ in 0..10_000 {
        let _ = rates.check("a", Normal, "tools/list", Time(0));
    }
    assert_eq!(drain(&rates, "b", Normal, "tools/list", Time(0)).0, 80, "what the first one got is gone, and no more");
}

#[test]
fn whom_the_server_refuses_it_does_not_remember() {
    let none = Quota { tokens: 10, burst: 0, refill_milli_per_s: 0 };
    let rates = Rates::new(RateLimits { global: none, ..RateLimits::default() });
    for n in 0..1_000 {
        let _ = rates.check(&n.to_string(), Normal, "ping", Time(0));
    }

    assert_eq!(rates.by_identity.len(), 10);
}

#[test]
fn a_flood_of_identities_is_bounded_and_frees_nobody() {
    let global = Quota { tokens: 1_000_000, burst: 0, refill_milli_per_s: 0 };
    let rates = Rates::new(RateLimits { global, identities_max: 160, ..RateLimits::default() });
    drain(&rates, "limited", Normal, "workflows/execute", Time(0));
    for n in 0..10_000 {
        let _ = rates.check(&n.to_string(), Normal, "tools/call", Time(1));
    }

    assert!(rates.by_identity.len() <= 160, "{}", rates.by_identity.len());
    assert!(rates.check("limited", Normal, "workflows/execute", Time(2)).is_err());
    assert!(rates.check("newcomer", Normal, "tools/call", Time(3)).is_err(), "it shares with those without room");
    assert!(rates.check("newcomer", Normal, "tools/call", Time(200_000)).is_ok());
}

#[test]
fn invented_methods_make_no_buckets() {
    let rates = rates();
    for n in 0..100 {
        rates.check("a", Normal, &format!("invented/{n}"), Time(0)).unwrap();
    }

    assert_eq!(rates.stats(Time(0)).active_buckets, 2);
}

#[test]
fn who_has_no_debt_is_forgotten() {
    let rates = rates();
    rates.check("a", Normal, "tools/call", Time(0)).unwrap();
    rates.check("b", Normal, "workflows/execute", Time(0)).unwrap();

    rates.forget_idle(Time(4_999));
    assert_eq!(rates.by_identity.len(), 2);
    rates.forget_idle(Time(5_000));
    assert_eq!(rates.by_identity.len(), 1);
    rates.reset("b");
    assert_eq!(rates.stats(Time(5_000)).active_buckets, 0);
}

#[test]
fn statistics_name_the_identities_that_use_most() {
    let rates = rates();
    for n in 0..20_u32 {
        for _ in 0..=n {
            rates.check(&format!("{n:02}"), Normal, "tools/call", Time(0)).unwrap();
        }
    }
    let _ = rates.check("00", Normal, "workflows/execute", Time(0));
    drain(&rates, "all", Normal, "tools/list", Time(0));

    let stats = rates.stats(Time(0));

    assert_eq!((stats.requests_allowed, stats.requests_limited, stats.active_buckets), (210 + 121, 1, 21 * 2 + 1));
    assert_eq!(stats.top_consumers.len(), TOP_CONSUMERS);
    let first = Consumer { identity: "all".to_owned(), tokens: 0, max_tokens: 120, utilization_percent: 100 };
    assert_eq!(stats.top_consumers[0], first);
    let second = Consumer { identity: "19".to_owned(), tokens: 20, max_tokens: 120, utilization_percent: 83 };
    assert_eq!(stats.top_consumers[1], second);
}

#[test]
fn time_that_goes_backwards_gives_nothing() {
    let rates = rates();
    drain(&rates, "a", Normal, "tools/list", Time(10_000));

    assert!(rates.check("a", Normal, "tools/list", Time(0)).is_err());
    assert!(rates.check("a", Normal, "tools/list", Time(10_000)).is_err());
    assert!(rates.check("a", Normal, "tools/list", Time(11_000)).is_ok());
}

proptest! {
    /// A bucket that is filled millisecond by millisecond.
    #[test]
    fn a_debt_is_a_bucket_upside_down(
        tokens in 1..20_u32,
        refill_milli_per_s in 1..5_000_u32,
        asks in prop::collection::vec((0..3_000_u64, 1..25_u32), 1..40),
    ) {
        let quota = Quota { tokens, burst: 2, refill_milli_per_s };
        let mut debt = Debt::default();
        let capacity = u64::from(tokens + 2) * MICRO;
        let (mut level, mut now) = (capacity, Time(0));

        for (ms, cost) in asks {
            for _ in 0..ms {
                level = (level + u64::from(refill_milli_per_s)).min(capacity);
            }
            now = now + ms;
            let wanted = u64::from(cost) * MICRO;
            match debt.take(quota, cost, now) {
                Ok(()) => {
                    prop_assert!(level >= wanted);
                    level -= wanted;
                }
                Err(retry) if wanted > capacity => prop_assert_eq!(retry.seconds, RETRY_AFTER_S_MAX),
                Err(retry) => {
                    prop_assert!(level < wanted);
                    let after = |seconds: u64| level + u64::from(refill_milli_per_s) * seconds * 1_000;
                    prop_assert!(after(retry.seconds) >= wanted && after(retry.seconds - 1) < wanted);
                }
            }
        }
    }
}
