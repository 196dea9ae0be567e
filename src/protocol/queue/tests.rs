//! The queue's rules by hand, each by itself. Random histories beside a model are in `tests/protocol/queue.rs`.

use super::*;

const A: ConsumerId = ConsumerId(1);
const B: ConsumerId = ConsumerId(2);

fn offer(body: &'static str) -> Offer<&'static str> {
    Offer { body, bytes: 10, priority: Priority::Normal, ttl_ms: None, delay_ms: 0, retries_max: 2, key: None }
}

fn keyed(body: &'static str, key: &str) -> Offer<&'static str> {
    Offer { key: Some(Box::from(key)), ..offer(body) }
}

/// A queue with a consumer that takes as much as there is.
struct Bench {
    queue: Queue<&'static str>,
    now: Time,
}

impl Bench {
    fn new() -> Self {
        Bench::with(Limits::default())
    }

    fn with(limits: Limits) -> Self {
        let mut queue = Queue::new(limits, Seq(1));
        queue.join(A, usize::MAX);
        Bench { queue, now: Time(1_000) }
    }

    fn put(&mut self, offer: Offer<&'static str>) -> Seq {
        let Ok(Offered::New(seq)) = self.queue.offer(offer, self.now) else { panic!("it is refused") };
        self.queue.stored(seq, self.now);
        seq
    }

    fn refusal(&mut self, offer: Offer<&'static str>) -> String {
        self.queue.offer(offer, self.now).expect_err("it is refused").to_string()
    }

    fn take(&mut self) -> Option<&'static str> {
        self.queue.take(A, self.now).map(|delivery| delivery.body)
    }

    fn take_all(&mut self) -> Vec<&'static str> {
        std::iter::from_fn(|| self.take()).collect()
    }

    fn nack(&mut self, seq: Seq) -> Nacked {
        self.queue.nack(A, seq, "refused", self.now, 0).expect("it is in flight")
    }

    fn settle(&mut self, seq: Seq) {
        self.queue.ack(A, seq, self.now).expect("it was delivered");
        self.queue.acked(seq, self.now);
    }

    /// The time goes on, and what is due is done.
    fn wait(&mut self, ms: u64) -> Vec<Change> {
        self.now = self.now + ms;
        let mut changes = Vec::new();
        self.queue.handle_timeout(self.now, &mut || 0, &mut changes);
        changes
    }

    fn leave(&mut self, consumer: ConsumerId) -> Vec<Change> {
        let mut changes = Vec::new();
        self.queue.leave(consumer, self.now, &mut changes);
        changes
    }

    /// A message that was delivered and refused until it was given up.
    fn put_dead(&mut self, body: &'static str) -> Seq {
        let seq = self.put(Offer { retries_max: 0, ..offer(body) });
        assert_eq!(self.take(), Some(body));
        assert_eq!(self.nack(seq), Nacked::Dead);
        seq
    }
}

// ── order ───────────────────────────────────────────────────────────────────────────────────────────────────────────

#[test]
fn a_message_is_delivered_once_it_is_stored_and_not_before_earlier_ones_are() {
    let mut bench = Bench::new();
    let offered = ["a", "b", "c", "d"].map(|body| bench.queue.offer(offer(body), bench.now));
    assert_eq!(offered, [1, 2, 3, 4].map(|seq| Ok(Offered::New(Seq(seq)))));
    assert!(!bench.queue.has_ready(bench.now));

    bench.queue.stored(Seq(4), bench.now);
    bench.queue.stored(Seq(2), bench.now);
    assert_eq!(bench.take(), None, "the first is being stored");
    bench.queue.failed(Seq(1));
    assert_eq!(bench.take_all(), ["b"], "the third is being stored");
    bench.queue.stored(Seq(3), bench.now);
    assert_eq!(bench.take_all(), ["c", "d"]);
}

#[test]
fn what_comes_back_goes_before_later_ones() {
    let mut bench = Bench::new();
    for body in ["a", "b", "c"] {
        bench.put(offer(body));
    }
    bench.queue.join(B, 2);
    let taken = [1, 2].map(|_| bench.queue.take(B, bench.now).map(|delivery| (delivery.body, delivery.deliveries)));
    assert_eq!(taken, [Some(("a", 1)), Some(("b", 1))]);
    assert!(!bench.queue.wants(B), "it has as many as it may");

    assert_eq!(bench.leave(B), []);

    let again = bench.queue.take(A, bench.now).expect("it is ready");
    assert_eq!((again.body, again.deliveries, again.failures), ("a", 2, 0), "leaving is no failure");
    assert_eq!(bench.take_all(), ["b", "c"]);
}

#[test]
fn a_delayed_message_takes_its_place_by_its_number_when_it_is_due() {
    let mut bench = Bench::new();
    bench.put(Offer { delay_ms: 50, ..offer("late") });
    bench.put(offer("a"));
    assert_eq!(bench.take_all(), ["a"]);
    assert_eq!(bench.queue.next_timeout(), Some(bench.now + 50));

    bench.put(offer("b"));
    bench.take();
    assert!(!bench.queue.has_ready(bench.now));
    bench.now = bench.now + 50;
    assert!(bench.queue.has_ready(bench.now), "though nothing was told of the time");
    bench.put(offer("c"));

    assert_eq!(bench.take_all(), ["late", "c"]);
}

#[test]
fn the_more_urgent_goes_first() {
    let mut bench = Bench::new();
    for (priority, body) in Priority::ALL.into_iter().rev().zip(["low", "normal", "high", "urgent"]) {
        bench.put(Offer { priority, ..offer(body) });
    }

    let peeked: Vec<_> = bench.queue.peek(3).map(|view| *view.body).collect();
    assert_eq!(peeked, ["urgent", "high", "normal"]);
    assert_eq!(bench.take_all(), ["urgent", "high", "normal", "low"]);
}

#[test]
fn a_class_that_was_passed_over_too_often_is_served_the_most_urgent_first() {
    let mut bench = Bench::with(Limits { passed_over_max: 3, ..Limits::default() });
    for (priority, body) in Priority::ALL.into_iter().zip(["u", "h", "n", "l"]) {
        for _ in 0..12 {
            bench.put(Offer { priority, ..offer(body) });
        }
    }

    let taken = bench.take_all().concat();

    assert_eq!(&taken[..24], "uuuhnluuuhnluuuhnluuuhnl");
    assert_eq!(&taken[24..], "hhhnlhhhnlhhnlnnnlnnllll", "with nothing urgent left");
}

#[test]
fn passed_over_at_most_0_times_counts_as_once() {
    let mut bench = Bench::with(Limits { passed_over_max: 0, ..Limits::default() });
    for _ in 0..3 {
        bench.put(Offer { priority: Priority::Urgent, ..offer("u") });
    }
    bench.put(Offer { priority: Priority::Low, ..offer("l") });

    assert_eq!(bench.take_all(), ["u", "l", "u", "u"]);
}

#[test]
fn priorities_have_their_names_and_normal_is_what_goes_without_saying() {
    for priority in Priority::ALL {
        assert_eq!(Priority::parse(priority.name()), Some(priority));
    }
    assert_eq!(Priority::parse("Urgent"), None);
    assert_eq!(Priority::default(), Priority::Normal);
    assert!(Priority::ALL.is_sorted());
}

// ── failures ────────────────────────────────────────────────────────────────────────────────────────────────────────

#[test]
fn two_retries_make_the_third_failure_the_last() {
    let mut bench = Bench::new();
    let seq = bench.put(offer("a"));
    // With nothing of the jitter left out.
    for (failures, wait) in [(1, 1_000), (2, 2_000)] {
        assert_eq!(bench.take(), Some("a"));
        assert_eq!(bench.nack(seq), Nacked::Retry { failures, due: bench.now + wait });
        bench.wait(wait - 1);
        assert_eq!(bench.take(), None, "its backoff is not over");
        bench.wait(1);
    }
    assert_eq!(bench.take(), Some("a"));

    assert_eq!(bench.nack(seq), Nacked::Dead);

    let letter = bench.queue.dead_letter(seq).expect("it is dead");
    assert_eq!((letter.failures, letter.deliveries, letter.died), (3, 3, bench.now));
    assert_eq!((letter.reason.name(), letter.last_error.as_deref()), ("retries_exhausted", Some("refused")));
    assert_eq!(DeadReason::parse("retries_exhausted"), Some(letter.reason));
    assert!(bench.queue.message(seq).is_none());
}

#[test]
fn a_lease_that_is_over_is_a_failure_unless_it_was_extended() {
    let mut bench = Bench::new();
    let seq = bench.put(offer("a"));
    assert_eq!(bench.take(), Some("a"));
    assert_eq!(bench.queue.next_timeout(), Some(bench.now + 30_000));
    bench.wait(20_000);
    assert_eq!(bench.queue.extend(A, seq, bench.now), Ok(bench.now + 30_000));
    assert_eq!(bench.wait(29_999), []);
    assert_eq!(bench.queue.in_flight(A), 1);

    assert_eq!(bench.wait(1), [Change::Failed(seq)]);

    let view = bench.queue.message(seq).expect("it is kept");
    assert_eq!((view.failures, view.last_error, view.place), (1, Some(LEASE_EXPIRED), Place::Delayed));
    assert_eq!(bench.queue.extend(A, seq, bench.now), Err(AckError::NotInFlight));
    assert_eq!(bench.queue.nack(A, seq, "", bench.now, 0), Err(AckError::NotInFlight));
}

#[test]
fn a_message_that_drives_its_consumers_away_is_given_up() {
    let mut bench = Bench::with(Limits { deliveries_max: 2, ..Limits::default() });
    let seq = bench.put(offer("a"));
    for changes in [vec![], vec![Change::Dead(seq)]] {
        bench.queue.join(B, 1);
        assert!(bench.queue.take(B, bench.now).is_some());
        assert_eq!(bench.leave(B), changes);
    }

    let letter = bench.queue.dead_letter(seq).expect("it is dead");
    assert_eq!((letter.reason.name(), letter.failures, letter.deliveries), ("too_many_deliveries", 0, 2));
    assert_eq!(bench.queue.ack(B, seq, bench.now), Err(AckError::AlreadySettled));

    let refused = bench.put(Offer { retries_max: u32::MAX, ..offer("b") });
    assert_eq!(bench.take(), Some("b"));
    assert!(matches!(bench.nack(refused), Nacked::Retry { failures: 1, .. }));
    bench.wait(1_000);
    assert_eq!(bench.take(), Some("b"));
    assert_eq!(bench.nack(refused), Nacked::Dead, "whatever its retries");
}

#[test]
fn the_text_of_an_error_is_cut_between_characters() {
    let mut bench = Bench::new();
    let seq = bench.put(offer("a"));
    assert_eq!(bench.take(), Some("a"));
    // 1 023 bytes, then a character of two.
    let error = format!("{}éé", "x".repeat(1_023));

    bench.queue.nack(A, seq, &error, bench.now, 0).expect("it is in flight");

    assert_eq!(bench.queue.message(seq).and_then(|view| view.last_error), Some(&error[..1_023]));
}

#[test]
fn backoff_doubles_up_to_its_bound_and_half_of_it_is_random() {
    let backoff = Backoff { base_ms: 1_000, max_ms: 60_000 };
    let whole = [0, 1, 2, 3, 6, 7, 64, 65, u32::MAX].map(|failures| backoff.whole(failures));
    assert_eq!(whole, [1_000, 1_000, 2_000, 4_000, 32_000, 60_000, 60_000, 60_000, 60_000]);

    let delays: BTreeSet<u64> = (0..5_000).map(|random| backoff.delay(1, random)).collect();
    assert_eq!((delays.first(), delays.last(), delays.len()), (Some(&500), Some(&1_000), 501));

    let odd = Backoff { base_ms: 3, max_ms: u64::MAX };
    assert_eq!([0, 1].map(|random| odd.delay(1, random)), [3, 2]);
    assert_eq!(odd.whole(63), 3 << 62);
    assert_eq!(odd.whole(64), u64::MAX, "it does not overflow");
    assert_eq!(Backoff { base_ms: 0, max_ms: 0 }.delay(9, 7), 0);
}

// ── acknowledgements ────────────────────────────────────────────────────────────────────────────────────────────────

#[test]
fn what_is_acknowledged_is_not_delivered_again_even_while_that_is_being_stored() {
    let mut bench = Bench::new();
    let seq = bench.put(offer("a"));
    assert_eq!(bench.take(), Some("a"));
    assert_eq!(bench.queue.ack(A, seq, bench.now), Ok(()));
    assert_eq!(bench.queue.ack(A, seq, bench.now), Err(AckError::AlreadySettled));
    assert_eq!(bench.wait(100_000), [], "its lease is over, which is nothing any more");
    assert_eq!(bench.take(), None);

    bench.queue.acked(seq, bench.now);

    assert_eq!(bench.queue.ack(A, seq, bench.now), Err(AckError::AlreadySettled));
    assert_eq!(bench.queue.stats(), Stats { accepted: 1, delivered: 1, acked: 1, consumers: 1, ..Stats::default() });
}

#[test]
fn an_acknowledgement_that_could_not_be_stored_leaves_the_message_where_it_was() {
    let mut bench = Bench::new();
    let (here, gone) = (bench.put(offer("a")), bench.put(offer("b")));
    bench.queue.join(B, 1);
    assert!(bench.take().is_some() && bench.queue.take(B, bench.now).is_some());
    bench.queue.ack(A, here, bench.now).expect("it is in flight");
    bench.queue.ack(B, gone, bench.now).expect("it is in flight");
    assert_eq!(bench.leave(B), []);
    bench.now = bench.now + 100;

    bench.queue.ack_failed(here, bench.now);
    bench.queue.ack_failed(gone, bench.now);

    let place = bench.queue.message(here).map(|view| view.place);
    assert_eq!(place, Some(Place::InFlight { consumer: A, lease_until: bench.now + 30_000 }));
    assert_eq!(bench.take_all(), ["b"]);
}

#[test]
fn whoever_worked_on_a_message_may_say_so_late() {
    let mut bench = Bench::new();
    let seq = bench.put(offer("a"));
    assert_eq!(bench.take(), Some("a"));
    bench.wait(30_000);
    bench.leave(A);

    assert_eq!(bench.queue.ack(A, seq, bench.now), Ok(()));

    bench.queue.acked(seq, bench.now);
    assert_eq!(bench.queue.stats().messages, 0);
}

#[test]
fn what_is_at_another_consumer_is_not_settled_and_what_nobody_was_given_is_unknown() {
    let mut bench = Bench::new();
    let seq = bench.put(offer("a"));
    assert_eq!(bench.queue.ack(B, seq, bench.now), Err(AckError::Unknown), "it was never delivered");
    assert_eq!(bench.take(), Some("a"));

    assert_eq!(bench.queue.ack(B, seq, bench.now), Err(AckError::Foreign));
    assert_eq!(bench.queue.nack(B, seq, "", bench.now, 0), Err(AckError::Foreign));
    assert_eq!(bench.queue.extend(B, seq, bench.now), Err(AckError::Foreign));
    assert_eq!(bench.queue.ack(A, Seq(99), bench.now), Err(AckError::Unknown));
}

#[test]
fn the_last_1024_settled_messages_are_remembered() {
    let mut bench = Bench::new();
    for _ in 0..1_025 {
        let seq = bench.put(offer("a"));
        assert_eq!(bench.take(), Some("a"));
        bench.settle(seq);
    }

    assert_eq!(bench.queue.ack(A, Seq(1), bench.now), Err(AckError::Unknown));
    assert_eq!(bench.queue.ack(A, Seq(2), bench.now), Err(AckError::AlreadySettled));
}

// ── expiry ──────────────────────────────────────────────────────────────────────────────────────────────────────────

#[test]
fn an_expired_message_is_not_delivered_though_nothing_was_told_of_the_time() {
    let mut bench = Bench::new();
    let seq = bench.put(Offer { ttl_ms: Some(50), ..offer("a") });
    bench.now = bench.now + 50;

    assert!(!bench.queue.has_ready(bench.now));
    assert_eq!(bench.take(), None);
    assert_eq!(bench.queue.next_timeout(), Some(bench.now));
    assert_eq!(bench.wait(0), [Change::Removed(seq)]);
    assert_eq!(bench.queue.ack(A, seq, bench.now), Err(AckError::AlreadySettled));
}

#[test]
fn one_that_expires_in_flight_stays_with_its_consumer_and_never_becomes_a_dead_letter() {
    let mut bench = Bench::new();
    let ends: [fn(&mut Bench, Seq); 4] = [
        |bench, seq| bench.settle(seq),
        |bench, seq| assert_eq!(bench.nack(seq), Nacked::Expired),
        |bench, seq| assert_eq!(bench.leave(A), [Change::Removed(seq)]),
        |bench, seq| assert_eq!(bench.wait(30_000), [Change::Removed(seq)]),
    ];
    for end in ends {
        bench.queue.join(A, 1);
        let seq = bench.put(Offer { ttl_ms: Some(50), retries_max: 0, ..offer("a") });
        assert_eq!(bench.take(), Some("a"));
        assert_eq!(bench.wait(60), [], "it is at work");

        end(&mut bench, seq);

        assert_eq!((bench.queue.stats().messages, bench.queue.stats().dead), (0, 0));
    }
    assert_eq!((bench.queue.stats().expired, bench.queue.stats().acked), (3, 1));
}

#[test]
fn the_time_to_live_counts_from_when_a_message_is_due() {
    let mut bench = Bench::new();
    let seq = bench.put(Offer { delay_ms: 100, ttl_ms: Some(50), ..offer("a") });
    assert_eq!(bench.queue.next_timeout(), Some(bench.now + 100));
    assert_eq!(bench.wait(149), []);
    assert!(bench.queue.has_ready(bench.now));
    assert_eq!(bench.queue.next_timeout(), Some(bench.now + 1));

    assert_eq!(bench.wait(1), [Change::Removed(seq)]);
}

// ── keys ────────────────────────────────────────────────────────────────────────────────────────────────────────────

#[test]
fn a_key_stands_for_its_first_message_within_its_window() {
    let mut bench = Bench::new();
    let offered = bench.queue.offer(keyed("a", "k"), bench.now);
    assert_eq!(offered, Ok(Offered::New(Seq(1))));
    let again = bench.queue.offer(keyed("b", "k"), bench.now);
    assert_eq!(again, Ok(Offered::Duplicate { seq: Seq(1), stored: false }));
    bench.queue.stored(Seq(1), bench.now);
    assert_eq!(bench.take_all(), ["a"]);
    bench.settle(Seq(1));

    bench.now = bench.now + 299_999;
    let late = bench.queue.offer(keyed("c", "k"), bench.now);
    assert_eq!(late, Ok(Offered::Duplicate { seq: Seq(1), stored: true }), "though it is settled");
    bench.now = bench.now + 1;
    let new = bench.queue.offer(keyed("d", "k"), bench.now);
    assert_eq!(new, Ok(Offered::New(Seq(2))), "the window is not extended");
    assert_eq!(bench.wait(0), [], "the key is another's, and not to be forgotten");
    assert_eq!(bench.wait(300_000), [Change::KeyRemoved("k".into())]);
}

#[test]
fn a_message_that_could_not_be_stored_leaves_no_key() {
    let mut bench = Bench::new();
    assert_eq!(bench.queue.offer(keyed("a", "k"), bench.now), Ok(Offered::New(Seq(1))));

    bench.queue.failed(Seq(1));

    assert_eq!(bench.queue.key("k"), None);
    assert_eq!(bench.queue.offer(keyed("a", "k"), bench.now), Ok(Offered::New(Seq(2))));
}

#[test]
fn too_many_keys_are_refused_until_one_is_over() {
    let mut bench = Bench::with(Limits { dedup_keys_max: 1, ..Limits::default() });
    bench.put(keyed("a", "k"));
    assert_eq!(bench.refusal(keyed("b", "l")), "the queue remembers 1 message keys, the limit is 1");
    bench.now = bench.now + 300_000;

    bench.put(keyed("b", "l"));
    assert_eq!(bench.wait(0), [Change::KeyRemoved("k".into())]);

    // One that had to go and came back before that was told must not be forgotten.
    bench.now = bench.now + 300_000;
    bench.put(keyed("c", "k"));
    bench.now = bench.now + 300_000;
    bench.put(keyed("d", "l"));
    assert_eq!(bench.wait(0), [Change::KeyRemoved("k".into())]);
}

// ── bounds ──────────────────────────────────────────────────────────────────────────────────────────────────────────

#[test]
fn what_is_too_much_is_refused_with_what_came_and_the_limit() {
    let limits = Limits { messages_max: 3, bytes_max: 30, message_bytes_max: 20, ..Limits::default() };
    let mut bench = Bench::with(limits);
    assert_eq!(bench.refusal(Offer { bytes: 21, ..offer("a") }), "message is 21 bytes, the limit is 20");
    let first = bench.put(offer("a"));
    bench.put(offer("b"));
    let refusal = bench.refusal(Offer { bytes: 11, ..offer("c") });
    assert_eq!(refusal, "the queue holds 20 bytes and 11 more came, the limit is 30");
    bench.put(keyed("c", "k"));
    assert_eq!(bench.refusal(offer("d")), "the queue holds 3 messages, the limit is 3");
    let duplicate = bench.queue.offer(keyed("d", "k"), bench.now);
    assert_eq!(duplicate, Ok(Offered::Duplicate { seq: Seq(3), stored: true }), "a duplicate needs no room");

    assert_eq!(bench.take(), Some("a"));
    bench.queue.ack(A, first, bench.now).expect("it is in flight");
    assert!(bench.queue.offer(offer("d"), bench.now).is_err(), "it is kept until that is stored");
    bench.queue.acked(first, bench.now);
    assert_eq!(bench.put(offer("d")), Seq(4));
    assert_eq!(bench.queue.bytes(), 30);
}

#[test]
fn the_oldest_dead_letter_makes_room_which_is_told_with_the_next_timeout() {
    let mut bench = Bench::with(Limits { dead_letters_max: 2, dead_bytes_max: 25, ..Limits::default() });
    let first = bench.put_dead("a");
    bench.wait(1);
    bench.put_dead("b");
    bench.wait(1);
    bench.put_dead("c");

    let left: Vec<_> = bench.queue.dead().map(|letter| letter.body).collect();
    assert_eq!(left, ["b", "c"]);
    assert_eq!(bench.queue.next_timeout(), Some(Time(0)));
    assert_eq!(bench.wait(0), [Change::DeadRemoved(first)]);
    assert_eq!(bench.queue.ack(A, first, bench.now), Err(AckError::AlreadySettled));

    let large = bench.put(Offer { bytes: 26, retries_max: 0, ..offer("d") });
    assert_eq!(bench.take(), Some("d"));
    let changes = bench.wait(30_000);
    assert_eq!((changes[0].clone(), changes[3].clone()), (Change::Dead(large), Change::DeadRemoved(large)));
    assert_eq!(bench.queue.stats().dead, 0, "it is larger than all may be together");
}

#[test]
fn dead_letters_are_kept_for_an_hour() {
    let mut bench = Bench::new();
    let seq = bench.put_dead("a");
    assert_eq!(bench.wait(3_599_999), []);

    assert_eq!(bench.wait(1), [Change::DeadRemoved(seq)]);
}

#[test]
fn an_idle_queue_is_small() {
    assert!(size_of::<Queue<u64>>() <= 1_024, "{} bytes", size_of::<Queue<u64>>());

    let mut bench = Bench::new();
    let seq = bench.put(keyed("a", "k"));
    assert_eq!(bench.take(), Some("a"));
    bench.settle(seq);
    bench.leave(A);
    assert!(!bench.queue.is_idle(), "it remembers a key");
    bench.wait(300_000);
    assert!(bench.queue.is_idle());
    assert_eq!((bench.queue.next_timeout(), bench.queue.next_seq()), (None, Seq(2)));
}

// ── what is asked for ───────────────────────────────────────────────────────────────────────────────────────────────

#[test]
fn a_dead_letter_is_tried_again_with_its_number_as_if_it_was_new() {
    let mut bench = Bench::new();
    let dead = bench.put_dead("a");
    bench.put(offer("b"));
    assert_eq!(bench.queue.retry_dead(Seq(9), bench.now, None), Err(RetryError::Unknown));

    assert_eq!(bench.queue.retry_dead(dead, bench.now, Some(50)), Ok(()));

    let view = bench.queue.message(dead).expect("it is back");
    assert_eq!((view.failures, view.last_error, view.expires), (0, None, Some(bench.now + 50)));
    assert_eq!(bench.take_all(), ["a", "b"]);
    assert_eq!(bench.queue.message(dead).map(|view| view.deliveries), Some(1));
}

#[test]
fn a_dead_letter_for_which_there_is_no_room_stays_one() {
    let mut bench = Bench::with(Limits { messages_max: 1, ..Limits::default() });
    let dead = bench.put_dead("a");
    bench.put(offer("b"));

    let refused = RetryError::Refused(Refused::Full { messages: 1, limit: 1 });
    assert_eq!(bench.queue.retry_dead(dead, bench.now, None), Err(refused));
    assert!(bench.queue.dead_letter(dead).is_some());
}

#[test]
fn a_purge_takes_all_but_what_is_being_stored_or_settled_and_dead_letters() {
    let mut bench = Bench::new();
    let dead = bench.put_dead("dead");
    let (settling, in_flight) = (bench.put(offer("settling")), bench.put(offer("in flight")));
    assert_eq!(bench.take_all().len(), 2);
    bench.queue.ack(A, settling, bench.now).expect("it is in flight");
    let (ready, delayed) = (bench.put(offer("ready")), bench.put(Offer { delay_ms: 9, ..offer("delayed") }));
    let Ok(Offered::New(storing)) = bench.queue.offer(offer("storing"), bench.now) else { panic!("it is refused") };

    let mut changes = Vec::new();
    bench.queue.purge(&mut changes);

    assert_eq!(changes, [in_flight, ready, delayed].map(Change::Removed));
    assert_eq!(bench.queue.ack(A, in_flight, bench.now), Err(AckError::AlreadySettled));
    let left: Vec<_> = bench.queue.list(None, 9).map(|view| view.seq).collect();
    assert_eq!(left, [settling, storing]);
    assert!(bench.queue.dead_letter(dead).is_some());
    assert_eq!(bench.queue.list(Some(settling), 9).map(|view| view.seq).collect::<Vec<_>>(), [storing]);

    changes.clear();
    bench.queue.purge_dead(None, &mut changes);
    assert_eq!(changes, [Change::DeadRemoved(dead)]);
}

#[test]
fn a_queue_goes_on_with_what_was_stored() {
    let mut bench = Bench::with(Limits { messages_max: 1, ..Limits::default() });
    let restored = |seq, body, failures| Restored {
        seq: Seq(seq),
        body,
        bytes: 10,
        priority: Priority::Normal,
        expires: None,
        due: Time(0),
        retries_max: 2,
        failures,
        last_error: Some("refused".into()),
        deliveries: failures,
        key: None,
    };

    bench.queue.restore(restored(8, "b", 0));
    bench.queue.restore(restored(5, "a", 2));
    bench.queue.restore(restored(5, "again", 2));
    assert_eq!(bench.queue.next_seq(), Seq(9));
    bench.queue.restore_key("k".into(), Seq(9), bench.now + 5);

    assert_eq!(bench.queue.next_seq(), Seq(10));
    let duplicate = bench.queue.offer(keyed("c", "k"), bench.now);
    assert_eq!(duplicate, Ok(Offered::Duplicate { seq: Seq(9), stored: true }));
    assert_eq!(bench.refusal(offer("c")), "the queue holds 2 messages, the limit is 1");
    let first = bench.queue.take(A, bench.now).expect("it is ready");
    assert_eq!((first.body, first.deliveries, first.failures), ("a", 3, 2));
    assert_eq!(bench.nack(Seq(5)), Nacked::Dead, "it goes on counting");
    assert_eq!(bench.queue.ack(B, Seq(8), bench.now), Ok(()), "somebody may have had it before");
}

#[test]
fn the_last_number_of_all_is_not_given() {
    let mut bench = Bench::new();
    bench.queue.restore_key("k".into(), Seq(u64::MAX), bench.now);

    assert_eq!(bench.refusal(offer("a")), format!("the queue has used up its numbers, the last is {}", u64::MAX));
}

#[test]
fn no_numbers_and_no_clock_make_a_call_panic() {
    let limits = Limits {
        messages_max: usize::MAX,
        bytes_max: usize::MAX,
        message_bytes_max: usize::MAX,
        lease_ms: u64::MAX,
        deliveries_max: 0,
        backoff: Backoff { base_ms: u64::MAX, max_ms: u64::MAX },
        dead_letters_max: usize::MAX,
        dead_bytes_max: usize::MAX,
        dead_letter_ttl_ms: u64::MAX,
        dedup_window_ms: u64::MAX,
        dedup_keys_max: 0,
        passed_over_max: u32::MAX,
    };
    let zero = Limits { lease_ms: 0, backoff: Backoff { base_ms: 0, max_ms: 0 }, dead_letter_ttl_ms: 0, ..limits };
    for limits in [limits, zero] {
        let mut bench = Bench::with(limits);
        for now in [0, u64::MAX, 5, u64::MAX, 0] {
            bench.now = Time(now);
            let large = Offer { bytes: usize::MAX, ttl_ms: Some(u64::MAX), delay_ms: u64::MAX, ..offer("a") };
            let _ = bench.queue.offer(large, bench.now);
            let _ = bench.queue.offer(offer("b"), bench.now);
            for seq in [0, 1, 2, u64::MAX].map(Seq) {
                bench.queue.stored(seq, bench.now);
                bench.take();
                let _ = bench.queue.extend(A, seq, bench.now);
                let _ = bench.queue.nack(A, seq, "", bench.now, u64::MAX);
                let _ = bench.queue.retry_dead(seq, bench.now, Some(u64::MAX));
                let _ = bench.queue.ack(A, seq, bench.now);
                bench.queue.ack_failed(seq, bench.now);
            }
            bench.wait(0);
            bench.queue.has_ready(bench.now);
        }
    }
}
