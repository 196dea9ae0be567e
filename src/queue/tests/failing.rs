//! A store that fails: nothing was taken, nothing was settled, and all goes on when it works again.

use super::*;

const BOTH: [Fault; 2] = [Fault::Lost, Fault::Unheard];

fn is_store<T: std::fmt::Debug>(outcome: Result<T, QueueError>) -> bool {
    matches!(outcome, Err(QueueError::Store(StoreError::Failed { .. })))
}

#[tokio::test(start_paused = true)]
async fn a_message_that_could_not_be_stored_is_gone_and_its_key_is_forgotten() {
    for fault in BOTH {
        let mut bench = Bench::new().await;
        let keyed = || message(1).idempotency_key("key");
        bench.fail([fault]);

        assert!(is_store(bench.queues.enqueue(JOBS, keyed()).await), "{fault:?}");

        assert_eq!(bench.queues.stats().bytes, 0);
        assert_eq!(bench.drain().await, [0; 0]);
        let again = bench.send(JOBS, keyed()).await;
        assert!(!again.duplicate, "{fault:?}");
        bench.put(2).await;
        bench.reopen().await;
        assert!(bench.send(JOBS, keyed()).await.id == again.id);
        assert_eq!(bench.drain().await, [1, 2], "{fault:?}: once");
    }
}

#[tokio::test(start_paused = true)]
async fn whoever_waited_for_the_first_of_a_key_hears_that_it_failed() {
    let bench = Bench::new().await;
    let keyed = || message(1).idempotency_key("key");
    bench.fail([Fault::Lost]);
    let storing = [keyed(), keyed(), message(2)].map(|message| bench.queues.offer(JOBS, message).expect("room"));

    for storing in storing {
        assert!(matches!(storing.answer().await, Err(QueueError::Store(_))));
    }

    assert!(!bench.send(JOBS, keyed()).await.duplicate);
    assert_eq!(bench.drain().await, [1]);
}

#[tokio::test(start_paused = true)]
async fn what_is_offered_after_a_failure_is_delivered_in_order() {
    let bench = Bench::new().await;
    bench.put(1).await;
    bench.fail([Fault::Lost]);
    let failing = bench.queues.offer(JOBS, message(2)).expect("room");
    assert!(is_store(failing.answer().await));
    let storing = [3, 4].map(|n| bench.queues.offer(JOBS, message(n)).expect("room"));
    for storing in storing {
        storing.answer().await.expect("stored");
    }

    assert_eq!(bench.drain().await, [1, 3, 4]);
}

#[tokio::test(start_paused = true)]
async fn an_ack_that_could_not_be_stored_leaves_the_message_where_it_is() {
    for fault in BOTH {
        let mut bench = Bench::new().await;
        let id = bench.put(1).await;
        let (first, second) = (bench.consume(), bench.consume());
        first.try_recv().expect("it is there");
        bench.fail([fault]);

        let refused = first.ack(&id).await;

        assert!(matches!(refused, Err(AckRefused::Store(_))), "{fault:?}: {refused:?}");
        assert!(second.try_recv().is_none(), "it is still with the first");
        assert_eq!(second.ack(&id).await, Err(AckRefused::Foreign));
        assert_eq!(first.ack(&id).await, Ok(()));
        drop((first, second));
        bench.reopen().await;
        assert_eq!(bench.drain().await, [0; 0], "{fault:?}");
    }
}

#[tokio::test(start_paused = true)]
async fn a_message_whose_ack_failed_when_its_consumer_had_left_comes_again() {
    let bench = Bench::new().await;
    let id = bench.put(1).await;
    let consumer = bench.queues.member(JOBS, 1, || {}).expect("a queue");
    consumer.take().expect("it is there");
    bench.fail([Fault::Lost]);
    let settling = consumer.ack(&id).expect("it is in flight");
    drop(consumer);

    assert!(settling.answer().await.is_err());

    let waiting = bench.consume();
    assert_eq!(waiting.recv().await.id, id);
}

#[tokio::test(start_paused = true)]
async fn what_queues_decided_while_the_store_failed_is_decided_again_after_a_restart() {
    let mut bench = Bench::new().await;
    let id = bench.put(1).await;
    let consumer = bench.consume();
    consumer.try_recv().expect("it is there");
    bench.fail([Fault::Lost]);

    let nacked = consumer.nack(&id, "boom").await;

    assert!(matches!(nacked, Err(AckRefused::Store(_))), "{nacked:?}");
    assert_eq!(bench.queues.messages(JOBS, 9)[0].retry_count, 1, "it has failed all the same");
    drop(consumer);
    bench.reopen().await;
    assert_eq!(bench.drain().await, [1]);
}

#[tokio::test(start_paused = true)]
async fn a_purge_that_could_not_be_stored_says_so() {
    let bench = Bench::new().await;
    bench.put(1).await;
    bench.fail([Fault::Lost]);

    assert!(bench.queues.purge(JOBS).await.is_err());

    assert_eq!(bench.drain().await, [0; 0]);
}

#[tokio::test(start_paused = true)]
async fn no_number_is_given_twice_though_its_reservation_was_lost() {
    let mut bench = Bench::new().await;
    // Such a commit takes a while, so the second message is there before the first is known to have failed.
    bench.fail([Fault::Unheard]);
    let first = bench.queues.offer(JOBS, message(1)).expect("room");
    tokio::task::yield_now().await;
    let second = bench.queues.offer(JOBS, message(2)).expect("room");
    assert!(is_store(first.answer().await));
    let given = seq(&second.answer().await.expect("stored").id);
    assert_eq!(bench.drain().await, [2]);

    bench.reopen().await;

    let next = seq(&bench.put(3).await);
    assert!(next > given, "{next} after {given}");
}

#[tokio::test(start_paused = true)]
async fn a_straggler_that_was_moved_by_a_commit_of_which_nobody_heard_is_not_back_after_its_ack() {
    let mut bench = Bench::new().await;
    let straggler = bench.put(0).await;
    let member = bench.queues.member(JOBS, 10_000, || {}).expect("a queue");
    assert!(member.take().is_some());
    // Until what lives in the oldest group was written again, by a commit that is said to have failed.
    loop {
        let large = NewMessage::new(json!({"n": 1, "text": "x".repeat(1_000)}));
        bench.fail([Fault::Unheard]);
        assert!(is_store(bench.queues.enqueue(JOBS, large.clone()).await));
        let log = bench.log().await;
        let (_, last) = log.last().expect("much was stored");
        let last = log::entries(last).expect("it can be read");
        if last.iter().any(|entry| entry.kind == Kind::Message && entry.seq.0 == seq(&straggler)) && log.len() > 1 {
            break;
        }
        let id = bench.send(JOBS, large).await.id;
        assert!(member.take().is_some());
        member.ack(&id).expect("it is in flight").answer().await.expect("stored");
    }

    member.ack(&straggler).expect("it is in flight").answer().await.expect("stored");
    drop(member);
    bench.reopen().await;

    assert!(!bench.drain().await.contains(&0), "it was acknowledged");
}
