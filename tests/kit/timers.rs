//! Timers and work beside a channel, on virtual time.

use std::time::Duration;

use serde_json::json;
use tokio::time::advance;

use crate::room::joined;

#[tokio::test(start_paused = true)]
async fn a_timer_fires_when_its_time_has_come() {
    let (_endpoint, _client, room) = joined("room:a").await;
    room.push("after", json!({"ms": 90_000}));
    room.refute_push("said").await;
    advance(Duration::from_secs(89)).await;
    room.refute_push("said").await;
    advance(Duration::from_secs(1)).await;
    room.assert_push("said", json!({"text": "time"})).await;
}

#[tokio::test(start_paused = true)]
async fn work_beside_a_channel_answers_by_a_message() {
    let (_endpoint, _client, room) = joined("room:a").await;
    let work = room.push("work", json!({}));
    assert_eq!(room.call("echo", json!({})).await.status, "ok", "the channel is not held up");
    advance(Duration::from_secs(59)).await;
    room.refute_push("said").await;
    advance(Duration::from_secs(1)).await;
    room.assert_push("said", json!({"text": "done"})).await;
    room.refute_reply(&work).await;
}

#[tokio::test(start_paused = true)]
async fn a_reply_may_come_later() {
    let (_endpoint, _client, room) = joined("room:a").await;
    let later = room.push("later", json!({}));
    room.refute_reply(&later).await;
    advance(Duration::from_secs(30)).await;
    room.assert_reply(&later, "ok", json!({"late": true})).await;
}

#[tokio::test(start_paused = true)]
async fn what_is_cancelled_does_not_fire() {
    let (_endpoint, _client, room) = joined("room:a").await;
    room.push("cancelled", json!({}));
    assert_eq!(room.call("echo", json!({})).await.status, "ok");
    advance(Duration::from_secs(2)).await;
    room.refute_push("said").await;
}

#[tokio::test(start_paused = true)]
async fn timers_and_work_end_with_their_channel() {
    let (_endpoint, client, room) = joined("room:a").await;
    let tasks = || tokio::runtime::Handle::current().metrics().num_alive_tasks();
    assert_eq!(room.call("echo", json!({})).await.status, "ok");
    let before = tasks();
    for _ in 0..10 {
        room.push("after", json!({"ms": 3_600_000}));
        room.push("work", json!({}));
    }
    assert_eq!(room.call("echo", json!({})).await.status, "ok");
    assert_eq!(tasks(), before + 20);

    room.leave().await;
    client.heartbeat().await;
    assert_eq!(tasks(), before);
}
