//! The log is cut at its beginning: what a store holds is bounded by what lives, however much went through it.

use super::*;
use crate::queue::consumer::Settling;

/// Messages that go through.
const MESSAGES: u64 = 200_000;
/// Of them, how many wait at once.
const AT_ONCE: u64 = 1_000;

/// Has them go through a queue, with one that nobody takes where that is wanted. Gives groups and bytes of the log at its longest.
async fn through(bench: &Bench) -> (usize, usize) {
    let member = bench.queues.member(JOBS, 10_000, || {}).expect("a queue");
    let mut most = (0, 0);
    for round in 0..MESSAGES / AT_ONCE {
        let offer = |n| bench.queues.offer(JOBS, message(round * AT_ONCE + n).priority(Priority::High)).expect("room");
        let storing: Vec<_> = (0..AT_ONCE).map(offer).collect();
        for storing in storing {
            storing.answer().await.expect("stored");
        }
        let mut settling = Vec::new();
        for _ in 0..AT_ONCE / 50 {
            let taken = take_up_to(50, &member);
            assert_eq!(taken.len(), 50);
            settling.extend(taken.into_iter().map(|message| member.ack(&message.id).expect("it is in flight")));
        }
        Settling::all(settling).answer().await.expect("stored");
        if round % 20 == 0 {
            let log = bench.log().await;
            most = most.max((log.len(), log.iter().map(|(_, value)| value.len()).sum()));
        }
    }
    most
}

async fn check(bench: &mut Bench) -> Vec<u64> {
    let (groups, bytes) = through(bench).await;
    assert!(groups < 200 && bytes < 8 << 20, "at the longest {groups} groups of {bytes} bytes");
    let file = std::fs::metadata(bench.folder.file()).expect("it is there").len();
    assert!(file < 48 << 20, "the file has {file} bytes");
    bench.reopen().await;
    bench.drain().await
}

#[tokio::test(start_paused = true)]
async fn two_hundred_thousand_messages_leave_a_short_log() {
    let mut bench = Bench::with(|settings| settings.in_flight_max = 10_000).await;

    assert_eq!(check(&mut bench).await, [0; 0]);

    let log = bench.log().await;
    assert!(log.len() < 50, "{} groups", log.len());
}

#[tokio::test(start_paused = true)]
async fn one_that_nobody_takes_does_not_keep_the_log_from_being_cut() {
    let mut bench = Bench::with(|settings| {
        settings.in_flight_max = 10_000;
        // So that it is never its turn.
        settings.limits.passed_over_max = u32::MAX;
    })
    .await;
    bench.send(JOBS, message(u64::MAX).priority(Priority::Low)).await;

    assert_eq!(check(&mut bench).await, [u64::MAX], "and it is there");
}
