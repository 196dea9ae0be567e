//! What a restart finds: all that was answered for, and nothing else.

use super::*;

#[tokio::test(start_paused = true)]
async fn a_restart_finds_messages_failures_dead_letters_and_keys() {
    let mut bench = Bench::new().await;
    let keyed = |n| message(n).idempotency_key("key").priority(Priority::Urgent);
    let first = bench.send(JOBS, keyed(1)).await;
    let ids = [bench.put(2).await, bench.put(3).await, bench.put(4).await];
    let dead = bench.send(JOBS, message(5).retries_max(0).priority(Priority::Urgent)).await.id;
    bench.send(NOTES, message(6)).await;
    let consumer = bench.consume();
    for _ in 0..3 {
        consumer.try_recv().expect("it is there");
    }
    consumer.nack(&dead, "poison").await.expect("it is in flight");
    consumer.nack(&ids[0], "boom").await.expect("it is in flight");
    consumer.ack(&first.id).await.expect("it is in flight");
    drop(consumer);

    bench.reopen().await;
    bench.settle().await;

    assert_eq!(bench.queues.queue_stats(NOTES).map(|stats| stats.messages), None, "memory is gone");
    let views = bench.queues.messages(JOBS, 9);
    let view: Vec<_> =
        views.iter().map(|view| (&view.message_id, view.retry_count, view.last_error.as_deref(), view.state)).collect();
    let waiting = |id| (id, 0, None, "waiting");
    assert_eq!(view, [(&ids[0], 1, Some("boom"), "delayed"), waiting(&ids[1]), waiting(&ids[2])]);
    let letters = bench.queues.dead_letters(JOBS, 9);
    assert_eq!((letters.len(), &letters[0].message_id, letters[0].last_error.as_deref()), (1, &dead, Some("poison")));
    let again = bench.send(JOBS, keyed(7)).await;
    assert_eq!((again.duplicate, &again.id), (true, &first.id));
    bench.pass(1_000).await;
    assert_eq!(bench.drain().await, [2, 3, 4]);

    bench.queues.retry(JOBS, &dead).await.expect("there is room");
    bench.reopen().await;
    assert_eq!(bench.drain().await, [5], "a dead letter that was retried is a message");
    bench.reopen().await;
    assert_eq!((bench.drain().await.len(), bench.queues.dead_letters(JOBS, 9).len()), (0, 0));
}

#[tokio::test(start_paused = true)]
async fn an_ack_that_was_answered_holds_and_one_that_was_not_may() {
    let mut bench = Bench::new().await;
    let ids = [bench.put(1).await, bench.put(2).await, bench.put(3).await];
    let consumer = bench.queues.member(JOBS, 9, || {}).expect("a queue");
    assert_eq!(take_up_to(9, &consumer).len(), 3);
    consumer.ack(&ids[0]).expect("it is in flight").answer().await.expect("stored");
    // This one is under way when the process ends: the writer has not seen it.
    let _open = consumer.ack(&ids[1]).expect("it is in flight");
    drop(consumer);

    bench.store.close().await;
    bench.reopen().await;

    assert_eq!(bench.drain().await, [2, 3]);
    bench.reopen().await;
    assert_eq!(bench.drain().await, [0; 0]);
}

#[tokio::test(start_paused = true)]
async fn no_number_is_given_twice() {
    let mut bench = Bench::new().await;
    let mut last = 0;
    for round in 0..5 {
        for n in 0..3 {
            let number = seq(&bench.put(n).await);
            assert!(number > last, "round {round}: {number} after {last}");
            last = number;
        }
        match round % 3 {
            0 => assert!(!bench.drain().await.is_empty()),
            1 => assert_eq!(bench.queues.purge(JOBS).await, Ok(3)),
            _ => {}
        }
        bench.reopen().await;
    }
    // As many as are reserved at once, within one life.
    for n in 0..1_100 {
        last = seq(&bench.queues.offer(JOBS, message(n)).expect("there is room").answer().await.expect("stored").id);
    }
    bench.queues.purge(JOBS).await.expect("stored");
    bench.reopen().await;
    assert!(seq(&bench.put(1).await) > last);
}

#[tokio::test(start_paused = true)]
async fn whoever_had_a_message_before_the_restart_may_say_that_it_is_done() {
    let mut bench = Bench::new().await;
    let ids = [bench.put(1).await, bench.put(2).await];
    bench.consume().try_recv().expect("it is there");

    bench.reopen().await;

    let consumer = bench.consume();
    assert_eq!(consumer.ack(&ids[0]).await, Ok(()), "it waits, and nobody else has it");
    assert_eq!(n(&consumer.try_recv().expect("the other")), 2);
    assert_eq!(consumer.ack(&ids[0]).await, Err(AckRefused::Settled));
    let other = bench.consume();
    assert_eq!(other.ack(&ids[1]).await, Err(AckRefused::Foreign));
    drop((consumer, other));
    bench.reopen().await;
    assert_eq!(bench.drain().await, [2]);
}

#[tokio::test(start_paused = true)]
async fn what_was_purged_or_expired_stays_away() {
    let mut bench = Bench::new().await;
    let dead = bench.send(JOBS, message(1).retries_max(0)).await.id;
    let consumer = bench.consume();
    consumer.try_recv().expect("it is there");
    consumer.nack(&dead, "poison").await.expect("it is in flight");
    drop(consumer);
    bench.send(JOBS, message(2).ttl_ms(50)).await;
    bench.pass(50).await;
    for n in 3..6 {
        bench.put(n).await;
    }
    assert_eq!(bench.queues.purge(JOBS).await, Ok(3));
    assert_eq!(bench.queues.purge_dead(JOBS, Some(&dead)).await, Ok(1));
    assert_eq!(bench.queues.purge_dead(JOBS, None).await, Ok(0));

    bench.reopen().await;

    assert_eq!(bench.queues.dead_letters(JOBS, 9).len(), 0);
    assert_eq!(bench.drain().await, [0; 0]);
}

/// Puts a message into the store that was accepted, is due and expires at these wall times.
async fn forge(store: &Store, seq: u64, created: u64, due: u64, expires: u64) {
    let record = Record {
        payload: bytes::Bytes::from(format!(r#"{{"n":{seq}}}"#)),
        priority: Priority::Normal,
        created_unix_ms: created,
        retries_max: 3,
        key: None,
    };
    forge_written(store, seq, record, created, due, expires).await;
}

/// The same, last written at another wall time than that of its acceptance.
async fn forge_written(store: &Store, seq: u64, record: Record, written: u64, due: u64, expires: u64) {
    let standing =
        Standing { written_unix_ms: written, expires_unix_ms: expires, due_unix_ms: due, ..Standing::default() };
    let mut group = log::Group::new();
    group.push(&JOBS.into(), &Write::put(Kind::Message, Seq(seq), record.stored(standing)));
    put_group(store, group.take_value()).await;
}

/// Puts a group behind all others.
async fn put_group(store: &Store, value: Vec<u8>) {
    let groups = store.range(log::LOG, Keys::beginning_with(""), usize::MAX).await.expect("it can be read");
    let last = groups.last().map(|(key, _)| u64::from_be_bytes(key[..].try_into().expect("eight bytes")));
    let key = log::group_key(last.map_or(0, |last| last + 1));
    let put: Result<(), StoreError> = store.change(move |change| change.put(log::LOG, key, value)).await;
    put.expect("stored");
}

#[tokio::test(start_paused = true)]
async fn a_wall_clock_that_was_set_between_acceptance_and_failure_changes_no_lifetime() {
    const HOUR: u64 = 3_600_000;
    let mut bench = Bench::new().await;
    let now = clock::unix_micros() / 1_000;
    let accepted = |created| Record {
        payload: bytes::Bytes::from_static(br#"{"n":1}"#),
        priority: Priority::Normal,
        created_unix_ms: created,
        retries_max: 3,
        key: None,
    };
    bench
        .reopen_with(bench.settings.clone(), async |store| {
            // Accepted while the clock was an hour ahead, and an hour behind; both failed just now, with a minute left.
            forge_written(store, 1, accepted(now + HOUR), now, now, now + 60_000).await;
            forge_written(store, 2, accepted(now - HOUR), now, now, now + 60_000).await;
            // Accepted while it was right, and failed while it was an hour ahead.
            forge_written(store, 3, accepted(now), now + HOUR, now + HOUR, now + HOUR + 60_000).await;
        })
        .await;

    assert_eq!(bench.queues.messages(JOBS, 9).len(), 3, "none is over");
    bench.pass(61_000).await;
    assert_eq!(bench.queues.messages(JOBS, 9).len(), 0, "and none lives longer than what was left");
}

#[tokio::test(start_paused = true)]
async fn wherever_the_wall_clock_was_a_message_ends_within_its_own_lifetime() {
    const DAY: u64 = 86_400_000;
    let mut bench = Bench::new().await;
    let now = clock::unix_micros() / 1_000;
    let (ahead, behind) = (now + 3_650 * DAY, now - 3_650 * DAY);

    bench
        .reopen_with(bench.settings.clone(), async |store| {
            // Accepted when the clock was ten years ahead: for a minute, and in an hour for another.
            forge(store, 1, ahead, ahead, ahead + 60_000).await;
            forge(store, 2, ahead, ahead + 3_600_000, ahead + 3_660_000).await;
            // And ten years behind: its time is over, whatever it was.
            forge(store, 3, behind, behind, behind + 60_000).await;
            forge(store, 4, 0, 0, 1).await;
        })
        .await;

    bench.pass(59_000).await;
    let states: Vec<_> =
        bench.queues.messages(JOBS, 9).iter().map(|view| (seq(&view.message_id), view.state)).collect();
    assert_eq!(states, [(1, "waiting"), (2, "delayed")]);
    bench.pass(1_000).await;
    assert_eq!(bench.queues.messages(JOBS, 9).len(), 1);
    bench.pass(3_540_000).await;
    assert_eq!(bench.queues.messages(JOBS, 9)[0].state, "waiting", "its delay was no longer than it had been");
    bench.pass(60_000).await;
    assert_eq!(bench.queues.messages(JOBS, 9).len(), 0);
    bench.reopen().await;
    assert_eq!(bench.drain().await, [0; 0], "and it stays so");
}

#[tokio::test(start_paused = true)]
async fn a_queue_that_the_settings_do_not_name_stays_in_the_store_until_they_do() {
    let mut bench = Bench::new().await;
    let id = bench.put(1).await;
    bench.send(JOBS, message(2).idempotency_key("key")).await;
    let others = QueueSettings::default().class("other", Durability::Durable).expect("a pattern");
    let volatile = QueueSettings::default().class(JOBS, Durability::Memory).expect("a pattern");
    let before = bench.log().await;

    bench.reopen_with(others.clone(), async |_| {}).await;

    assert_eq!((bench.queues.names().len(), bench.log().await), (0, before));
    assert_eq!(bench.queues.enqueue(JOBS, message(3)).await.err().map(|error| error.code()), Some("unknown_queue"));
    for n in 0..10 {
        bench.send("other", message(n)).await;
    }
    bench.pass(120_000).await;
    bench.reopen_with(volatile, async |_| {}).await;
    assert_eq!(bench.drain().await, [0; 0], "one of that name that is kept in memory is another");

    bench.reopen().await;
    let views = bench.queues.messages(JOBS, 9);
    assert_eq!((views.len(), &views[0].message_id), (2, &id));
    assert!(bench.send(JOBS, message(4).idempotency_key("key")).await.duplicate);
    assert_eq!(bench.drain().await, [1, 2]);
}

#[tokio::test(start_paused = true)]
async fn a_queue_that_is_idle_is_forgotten_and_made_anew() {
    let mut bench = Bench::with(|settings| settings.queues_max = 1).await;
    bench.put(1).await;
    bench.drain().await;
    assert!(bench.queues.enqueue("jobs2", message(1)).await.is_err(), "there are as many as may be");

    // Twice as long as housekeeping takes to come round.
    bench.pass(60_000).await;
    bench.pass(60_000).await;

    assert_eq!(bench.queues.names().len(), 0);
    let left = bench.log().await;
    assert_eq!(bench.send("jobs2", message(2)).await.durability, Durability::Durable);
    bench.reopen().await;
    assert!(bench.queues.names().iter().map(|name| &**name).eq(["jobs2"]), "its numbers are gone too: {left:?}");
    assert_eq!(bench.queues.messages("jobs2", 9).len(), 1);
}

#[tokio::test(start_paused = true)]
async fn a_queue_with_a_consumer_a_key_or_a_dead_letter_is_not_forgotten() {
    let bench = Bench::with(|settings| settings.limits.dedup_window_ms = 600_000).await;
    let _consumer = bench.queues.consume("jobs-consumer").expect("a queue");
    bench.send("jobs-key", message(1).idempotency_key("key")).await;
    let id = bench.send("jobs-dead", message(1).retries_max(0)).await.id;
    for queue in ["jobs-key", "jobs-dead"] {
        let consumer = bench.queues.consume(queue).expect("a queue");
        consumer.try_recv().expect("it is there");
        match queue {
            "jobs-dead" => assert_eq!(consumer.nack(&id, "poison").await, Ok(Nacked::Dead)),
            _ => assert_eq!(consumer.ack(&id).await, Ok(())),
        }
    }

    for _ in 0..3 {
        bench.pass(60_000).await;
    }

    assert_eq!(bench.queues.names().len(), 3);
}

#[tokio::test(start_paused = true)]
async fn a_damaged_group_is_put_aside() {
    let mut bench = Bench::new().await;
    for n in 1..=3 {
        bench.put(n).await;
    }
    let (key, value) = bench.log().await.swap_remove(1);
    let damaged = [&[9], &value[1..]].concat();

    let (at, spoilt) = (key.clone(), damaged.clone());
    bench
        .reopen_with(bench.settings.clone(), async |store| {
            let put: Result<(), StoreError> = store.change(move |change| change.put(log::LOG, at, spoilt)).await;
            put.expect("stored");
            put_group(store, b"\x01\x01nonsense".to_vec()).await;
        })
        .await;

    assert_eq!(bench.drain().await, [1, 3], "what can be read is there");
    let next = seq(&bench.put(4).await);
    assert!(next > 3, "{next}");
    for n in 5..200 {
        bench.put(n).await;
    }
    assert_eq!(bench.drain().await.len(), 196);
    let aside = bench.store.range(log::UNREADABLE, Keys::beginning_with(""), 9).await.expect("it can be read");
    assert_eq!((aside.len(), &aside[0]), (2, &(key, damaged)), "for whoever wants to look");
    assert!(bench.log().await.len() < 50, "the log is cut all the same");
    bench.reopen().await;
    assert_eq!(bench.drain().await, [0; 0], "and what was settled stays settled");
}
