//! What producers and consumers are told, and who gets what when.

use super::*;

#[tokio::test(start_paused = true)]
async fn an_answer_names_the_class_that_was_reached() {
    let bench = Bench::new().await;
    let memory = Queues::in_memory(settings());
    let _listening = bench.queues.consume(TICKS).expect("a queue");

    for (queue, reached) in [(JOBS, Durability::Durable), (NOTES, Durability::Memory), (TICKS, Durability::Ephemeral)] {
        let answer = bench.send(queue, message(1)).await;
        assert_eq!((answer.durability, answer.duplicate), (reached, false), "{queue}");
        assert!(answer.id.starts_with(MESSAGE_ID_PREFIX) && seq(&answer.id) == 1, "{}", answer.id);
        assert_eq!(bench.queues.reached(queue), Ok(reached));
    }
    let answer = memory.enqueue(JOBS, message(1)).await.expect("it is taken");
    assert_eq!((answer.durability, memory.class(JOBS)), (Durability::Memory, Ok(Durability::Durable)));
    assert_eq!(serde_json::to_value(&answer).expect("JSON"), json!({"message_id": answer.id, "durability": "memory"}));
}

#[tokio::test(start_paused = true)]
async fn what_can_t_be_is_refused_and_takes_nothing() {
    let queues = Queues::in_memory(settings());

    let refused = async |queue: &str, message| queues.enqueue(queue, message).await.expect_err("no").code();
    assert_eq!(refused("nowhere", message(1)).await, "unknown_queue");
    assert_eq!(refused("", message(1)).await, "invalid_queue");
    assert_eq!(refused("jobs\n", message(1)).await, "invalid_queue");
    assert_eq!(refused(&"jobs".repeat(64), message(1)).await, "invalid_queue");
    assert_eq!(refused(TICKS, message(1)).await, "no_consumer");
    assert_eq!(refused(JOBS, NewMessage::new(json!([1]))).await, "invalid_message");
    assert_eq!(refused(JOBS, message(1).ttl_ms(0)).await, "invalid_message");
    assert_eq!(refused(JOBS, message(1).delay_ms(u64::MAX)).await, "invalid_message");
    assert_eq!(refused(JOBS, message(1).retries_max(101)).await, "invalid_message");
    assert_eq!(refused(JOBS, message(1).idempotency_key("")).await, "invalid_message");
    assert_eq!(refused(JOBS, NewMessage::new(json!({"n": "x".repeat(1 << 20)}))).await, "too_large");
    assert!(queues.consume("nowhere").is_err());
    assert_eq!(queues.stats().total_messages, 0);
}

#[tokio::test(start_paused = true)]
async fn what_an_ephemeral_queue_handed_over_is_done() {
    let bench = Bench::new().await;
    let consumer = bench.queues.consume(TICKS).expect("a queue");
    let id = bench.send(TICKS, message(1)).await.id;

    assert_eq!(consumer.try_recv().map(|message| message.id), Some(id.clone()));

    assert_eq!(consumer.ack(&id).await, Err(AckRefused::Settled));
    drop(consumer);
    assert!(bench.queues.consume(TICKS).expect("a queue").try_recv().is_none());
    assert_eq!(bench.queues.stats().bytes, 0);
    assert_eq!(bench.log().await.len(), 0, "and nothing was stored");
}

#[tokio::test(start_paused = true)]
async fn priorities_go_first_and_within_one_the_order_of_acceptance_holds() {
    let bench = Bench::new().await;
    for (n, priority) in
        [Priority::Low, Priority::Normal, Priority::Urgent, Priority::High].into_iter().cycle().take(8).enumerate()
    {
        bench.send(JOBS, message(n as u64).priority(priority)).await;
    }

    assert_eq!(bench.drain().await, [2, 6, 3, 7, 1, 5, 0, 4]);
}

#[tokio::test(start_paused = true)]
async fn full_is_told_at_once_and_over_when_something_is_settled() {
    let bench = Bench::with(|settings| {
        settings.limits.messages_max = 2;
        settings.total_bytes_max = 1_000;
        settings.queues_max = 3;
    })
    .await;
    let code = async |queue: &str, message| bench.queues.enqueue(queue, message).await.err().map(|error| error.code());

    let consumer = bench.consume();
    let first = bench.put(1).await;
    bench.put(2).await;
    assert_eq!(code(JOBS, message(3)).await, Some("queue_full"));
    let large = NewMessage::new(json!({"n": 4, "text": "x".repeat(500)}));
    let all = bench.queues.enqueue(NOTES, large.clone()).await;
    assert_eq!(all, Err(QueueError::AllFull { limit: 1_000 }));
    consumer.try_recv().expect("the first");
    consumer.ack(&first).await.expect("it is in flight");

    assert_eq!(code(JOBS, message(3)).await, None);
    assert_eq!(bench.drain().await, [2, 3]);
    assert_eq!(bench.queues.stats().bytes, 0);
    for (queue, is) in [(NOTES, None), ("jobs2", None), ("jobs3", Some("too_many_queues"))] {
        assert_eq!(code(queue, message(1)).await, is, "{queue}");
    }
}

#[tokio::test(start_paused = true)]
async fn what_a_consumer_had_comes_again_when_it_leaves_and_is_no_failure() {
    let bench = Bench::new().await;
    let ids = [bench.put(1).await, bench.put(2).await];
    let (first, second) = (bench.consume(), bench.consume());
    let taken = first.try_recv().expect("there is one");
    assert_eq!((taken.deliveries, taken.failures, &taken.id), (1, 0, &ids[0]));
    assert_eq!(second.ack(&taken.id).await, Err(AckRefused::Foreign));

    drop(first);

    let again = second.try_recv().expect("it is back, ahead of the later one");
    assert_eq!((again.deliveries, again.failures, &again.id), (2, 0, &ids[0]));
    assert_eq!(second.ack(&again.id).await, Ok(()));
    assert_eq!(second.ack(&again.id).await, Err(AckRefused::Settled));
    assert_eq!(second.ack(&ids[1]).await, Err(AckRefused::Unknown), "it was never delivered");
    for id in ["msg_1_77", "nonsense", "msg_1_", &ids[1].replace("msg_", "msg_9")] {
        assert_eq!(second.ack(id).await, Err(AckRefused::Unknown), "{id}");
    }
}

#[tokio::test(start_paused = true)]
async fn whoever_waits_is_woken_whatever_others_do() {
    let bench = Bench::new().await;
    let consumers = [bench.consume(), bench.consume()];
    // The first is woken and does not care; the second gets all.
    let (first, second) = (consumers[0].recv(), consumers[1].recv());
    let mut first = Box::pin(first);
    assert!(bench.is_waiting(&mut first).await);
    let (got, _) = tokio::join!(second, bench.put(1));
    assert_eq!(n(&got), 1);
    bench.put(2).await;
    assert_eq!(n(&consumers[1].recv().await), 2);

    // Both wait, and each gets one.
    let (one, two, ..) = tokio::join!(&mut first, consumers[1].recv(), bench.put(3), bench.put(4));
    assert_eq!(n(&one) + n(&two), 7);

    // One takes a message and leaves: whoever waits gets it.
    drop(first);
    let [leaving, staying] = consumers;
    let waiting = tokio::spawn(async move { n(&staying.recv().await) });
    bench.settle().await;
    drop(leaving);
    assert_eq!(waiting.await.expect("no panic"), n(&one));
}

#[tokio::test(start_paused = true)]
async fn tasks_that_share_a_consumer_get_a_message_each() {
    let bench = Bench::new().await;
    let consumer = bench.consume();

    // Both messages are stored by one commit, which wakes the consumer once.
    let (one, two, ..) = tokio::join!(consumer.recv(), consumer.recv(), bench.put(1), bench.put(2));

    assert_eq!([n(&one), n(&two)].into_iter().sum::<u64>(), 3);
}

#[tokio::test(start_paused = true)]
async fn one_that_takes_only_some_leaves_the_rest_to_others_and_is_woken_when_it_has_room() {
    let bench = Bench::with(|settings| settings.in_flight_max = 1).await;
    let (narrow, other) = (bench.consume(), bench.consume());
    for n in 1..=3 {
        bench.put(n).await;
    }
    let first = narrow.recv().await;
    assert!(narrow.try_recv().is_none(), "it has as many as it may");
    assert_eq!(n(&other.recv().await), 2);

    let mut next = Box::pin(narrow.recv());
    assert!(bench.is_waiting(&mut next).await);
    narrow.ack(&first.id).await.expect("it is in flight");

    assert_eq!(n(&next.await), 3);
}

#[tokio::test(start_paused = true)]
async fn a_recv_that_is_given_up_loses_nothing() {
    let bench = Bench::new().await;
    let consumer = bench.consume();
    for expected in 0..20 {
        let mut given_up = Box::pin(consumer.recv());
        assert!(bench.is_waiting(&mut given_up).await, "{expected}");
        bench.put(expected).await;
        drop(given_up);

        assert_eq!(n(&consumer.recv().await), expected);
    }
}

#[tokio::test(start_paused = true)]
async fn a_message_that_failed_comes_again_after_its_backoff_and_dies_of_too_many() {
    let bench = Bench::new().await;
    let id = bench.send(JOBS, message(1).retries_max(2)).await.id;
    let consumer = bench.consume();
    consumer.try_recv().expect("it is there");
    let Ok(Nacked::Retry { failures: 1, after_ms }) = consumer.nack(&id, "boom").await else {
        panic!("it comes again")
    };
    assert!((500..=1_000).contains(&after_ms), "{after_ms}");
    assert!(consumer.try_recv().is_none());
    assert_eq!(consumer.nack(&id, "again").await, Err(AckRefused::LeaseOver));

    bench.pass(after_ms - 1).await;
    assert!(consumer.try_recv().is_none());
    let (again, ()) = tokio::join!(consumer.recv(), bench.pass(1));
    assert_eq!((again.deliveries, again.failures), (2, 1));

    // The second failure: its lease is over.
    bench.pass(30_000).await;
    let view = &bench.queues.messages(JOBS, 9)[0];
    assert_eq!((view.state, view.retry_count, view.last_error.as_deref()), ("delayed", 2, Some("lease expired")));
    bench.pass(2_000).await;
    consumer.try_recv().expect("its backoff is over");
    assert_eq!(consumer.nack(&id, "the last").await, Ok(Nacked::Dead));

    let dead = &bench.queues.dead_letters(JOBS, 9)[..];
    let [letter] = dead else { panic!("one: {dead:?}") };
    assert_eq!((&letter.message_id, letter.reason, letter.retry_count), (&id, "retries_exhausted", 3));
    assert_eq!(letter.last_error.as_deref(), Some("the last"));
    assert_eq!(consumer.ack(&id).await, Err(AckRefused::Settled));

    bench.queues.retry(JOBS, &id).await.expect("there is room");
    let retried = consumer.try_recv().expect("it is back");
    assert_eq!((retried.id, retried.deliveries, retried.failures), (id.clone(), 1, 0));
    assert!(bench.queues.retry(JOBS, &id).await.is_err(), "it is no dead letter any more");
}

#[tokio::test(start_paused = true)]
async fn a_lease_can_be_extended_and_an_ack_behind_it_counts_while_nobody_else_has_the_message() {
    let bench = Bench::new().await;
    let (first, second) = (bench.consume(), bench.consume());
    let id = bench.put(1).await;
    first.try_recv().expect("it is there");

    bench.pass(29_999).await;
    assert_eq!(first.extend(&id), Ok(30_000));
    bench.pass(29_999).await;
    assert!(second.try_recv().is_none());
    bench.pass(1).await;
    assert_eq!(first.extend(&id), Err(AckRefused::LeaseOver));
    assert_eq!(first.ack(&id).await, Ok(()), "it waits for its backoff");

    bench.pass(60_000).await;
    assert!(second.try_recv().is_none() && first.try_recv().is_none());
    assert_eq!(bench.queues.stats().total_messages, 0);
}

#[tokio::test(start_paused = true)]
async fn a_message_comes_no_earlier_than_it_is_due_and_not_after_its_time() {
    let bench = Bench::new().await;
    let consumer = bench.consume();
    bench.send(JOBS, message(1).delay_ms(500).ttl_ms(100)).await;
    bench.send(JOBS, message(2).ttl_ms(100)).await;

    bench.pass(99).await;
    let second = consumer.try_recv().expect("the one without delay");
    assert_eq!(n(&second), 2);
    bench.pass(400).await;
    assert!(consumer.try_recv().is_none());
    // In flight its time does not count: it is with somebody.
    consumer.ack(&second.id).await.expect("it is in flight");
    let (first, ()) = tokio::join!(consumer.recv(), bench.pass(1));
    assert_eq!(n(&first), 1);
    drop(consumer);
    bench.pass(100).await;

    assert_eq!(bench.drain().await, [0; 0]);
    let stats = bench.queues.queue_stats(JOBS).expect("it was used");
    assert_eq!((stats.messages, stats.totals.expired, stats.totals.acked), (0, 1, 1));
}

#[tokio::test(start_paused = true)]
async fn a_key_stands_for_its_first_message_while_its_window_lasts() {
    let bench = Bench::new().await;
    let keyed = |n| message(n).idempotency_key("key");
    // Both at once: the second waits for the first's answer.
    let storing = bench.queues.offer(JOBS, keyed(1)).expect("it is taken");
    let again = bench.queues.offer(JOBS, keyed(2)).expect("it is taken");
    let (first, second) = (storing.answer().await.expect("stored"), again.answer().await.expect("stored"));
    assert_eq!((second.duplicate, &second.id, second.durability), (true, &first.id, Durability::Durable));
    assert_eq!(bench.drain().await, [1]);

    let third = bench.send(JOBS, keyed(3)).await;
    assert_eq!((third.duplicate, &third.id), (true, &first.id), "also when it is settled");
    bench.pass(300_000).await;
    let fourth = bench.send(JOBS, keyed(4)).await;

    assert!(!fourth.duplicate && seq(&fourth.id) == 2);
    assert_eq!(bench.drain().await, [4]);
    assert!(!bench.send("jobs2", keyed(5)).await.duplicate, "a key is its queue's");
}

#[tokio::test(start_paused = true)]
async fn operations_that_wait_together_are_stored_together_in_their_order() {
    let bench = Bench::new().await;
    let storing: Vec<_> = (0..100).map(|n| bench.queues.offer(JOBS, message(n)).expect("it is taken")).collect();
    assert!(bench.consume().try_recv().is_none(), "nothing is delivered before it is stored");

    for (at, storing) in storing.into_iter().enumerate() {
        assert_eq!(seq(&storing.answer().await.expect("stored").id), at as u64 + 1);
    }

    let groups = bench.log().await;
    assert_eq!(groups.len(), 1, "one commit for all");
    let entries = log::entries(&groups[0].1).expect("it can be read");
    let messages = entries.iter().filter(|entry| entry.kind == Kind::Message).map(|entry| entry.seq.0);
    assert!(messages.eq(1..=100));
    assert_eq!(bench.drain().await, (0..100).collect::<Vec<_>>());
}

#[tokio::test(start_paused = true)]
async fn statistics_say_what_is_where() {
    let bench = Bench::new().await;
    for n in 0..4 {
        bench.send(JOBS, message(n).priority(Priority::High)).await;
    }
    bench.send(JOBS, message(4).delay_ms(10)).await;
    bench.send(NOTES, message(5)).await;
    let consumer = bench.consume();
    for _ in 0..2 {
        consumer.try_recv().expect("it is there");
    }

    let stats = bench.queues.queue_stats(JOBS).expect("it is used");
    assert_eq!((stats.messages, stats.in_flight, stats.delayed, stats.consumers), (5, 2, 1, 1));
    assert_eq!(stats.priority_counts, PriorityCounts { high: 2, ..PriorityCounts::default() });
    let all = bench.queues.stats();
    assert_eq!((all.total_messages, all.queues, all.priority_counts.normal), (6, 2, 1));
    assert!(bench.queues.names().iter().map(|name| &**name).eq([JOBS, NOTES]));
    assert_eq!(bench.queues.purge(JOBS).await, Ok(5));
    assert_eq!(bench.queues.stats().total_messages, 1);
}

#[tokio::test(start_paused = true)]
async fn whoever_waits_for_a_queue_is_called_when_it_comes_to_be() {
    let queues = Queues::in_memory(settings());
    let called = Arc::new(AtomicUsize::new(0));
    let count = |called: &Arc<AtomicUsize>| {
        let called = Arc::clone(called);
        move || {
            called.fetch_add(1, Ordering::Relaxed);
        }
    };

    let awaiting = queues.await_queue(NOTES.into(), count(&called));
    let given_up = Arc::new(AtomicUsize::new(0));
    drop(queues.await_queue(JOBS.into(), count(&given_up)));
    queues.enqueue(NOTES, message(1)).await.expect("it is taken");
    queues.enqueue(JOBS, message(1)).await.expect("it is taken");
    assert_eq!((called.load(Ordering::Relaxed), given_up.load(Ordering::Relaxed)), (1, 0));
    drop(awaiting);

    let _there = queues.await_queue(NOTES.into(), count(&called));
    assert_eq!(called.load(Ordering::Relaxed), 2, "it is there");
}
