//! What the kit's assertions see, and that they fail where they should.

use std::panic::AssertUnwindSafe;

use bennu::Payload;
use bennu::testing::{Client, WireVersion};
use futures::FutureExt;
use serde_json::json;

use crate::room::{joined, socket};

/// The text of the panic that an assertion fails with.
async fn failure<T>(assertion: impl Future<Output = T>) -> String {
    let panic = AssertUnwindSafe(assertion).catch_unwind().await.err().expect("the assertion fails");
    panic.downcast_ref::<String>().cloned().expect("the failure has a text")
}

#[tokio::test(start_paused = true)]
async fn a_reply_is_known_by_its_push() {
    let (_endpoint, _client, room) = joined("room:a").await;

    let first = room.push("echo", json!({"n": 1}));
    let second = room.push("echo", json!({"n": 2, "more": true}));
    room.assert_reply(&second, "ok", json!({"n": 2})).await;
    let whole = room.assert_reply(&first, "ok", json!({})).await;
    assert_eq!(whole, json!({"n": 1}).into());

    let refused = room.call("refuse", json!({"reason": "x"})).await;
    assert_eq!((refused.status.as_str(), refused.response), ("error", json!({"reason": "x"}).into()));
}

#[tokio::test(start_paused = true)]
async fn an_assertion_that_fails_says_what_came_instead() {
    let (_endpoint, _client, mut room) = joined("room:a").await;
    let echo = room.push("echo", json!({"n": 1}));

    let text = failure(room.assert_reply(&echo, "ok", json!({"n": 2}))).await;
    assert!(
        text.contains(r#"expected a reply ok {"n":2} to "echo""#) && text.contains(r#"payload: {"n":1}"#),
        "{text}"
    );
    let text = failure(room.assert_push("pushed", json!({}))).await;
    assert!(text.contains(r#"expected a push of "pushed""#), "{text}");
    let text = failure(room.assert_broadcast("shout", json!({}))).await;
    assert!(text.contains(r#"expected a broadcast of "shout""#), "{text}");

    room.push("push", json!({"n": 3}));
    room.push("shout", json!({"n": 4}));
    let text = failure(room.refute_push("pushed")).await;
    assert!(text.contains(r#"expected no push of "pushed""#) && text.contains(r#"{"n":3}"#), "{text}");
    let text = failure(room.refute_broadcast("shout")).await;
    assert!(text.contains(r#"expected no broadcast of "shout""#) && text.contains(r#"{"n":4}"#), "{text}");
    let text = failure(room.refute_reply(&echo)).await;
    assert!(text.contains(r#"expected no reply to "echo""#), "{text}");
}

#[tokio::test(start_paused = true)]
async fn messages_that_are_not_asserted_wait_for_later_assertions() {
    let (_endpoint, _client, mut room) = joined("room:a").await;
    for n in 1..=3 {
        room.push("push", json!({"n": n}));
        room.push("shout", json!({"n": n}));
    }
    room.assert_push("pushed", json!({"n": 2})).await;
    room.assert_push("pushed", json!({"n": 1})).await;
    room.assert_broadcast("shout", json!({"n": 3})).await;
    room.assert_broadcast("shout", json!({"n": 1})).await;
    room.assert_push("shout", json!({"n": 3})).await;
    room.assert_push("pushed", json!({"n": 3})).await;
    room.refute_push("pushed").await;
}

#[tokio::test(start_paused = true)]
async fn broadcasts_are_told_from_pushes() {
    let (_endpoint, client, mut room) = joined("room:a").await;
    let (_, _, mut stranger) = joined("room:a").await;
    let mut other = client.join("room:b", json!({})).await.expect("everyone may join");

    room.push("push", json!({}));
    room.assert_push("pushed", json!({})).await;
    room.refute_broadcast("pushed").await;

    room.push("shout_from", json!({"n": 1}));
    room.assert_broadcast("shout", json!({"n": 1})).await;
    room.refute_push("shout").await;
    other.refute_broadcast("shout").await;
    stranger.refute_broadcast("shout").await;
}

#[tokio::test(start_paused = true)]
async fn an_intercepted_broadcast_reaches_the_client_as_the_channel_says() {
    let (_endpoint, _client, mut room) = joined("room:a").await;
    room.push("secret", json!({"word": "sesame", "n": 1}));
    room.assert_broadcast("secret", json!({"word": "sesame"})).await;
    room.assert_push("secret", json!({"word": "***", "n": 1})).await;
}

#[tokio::test(start_paused = true)]
async fn both_versions_and_binary_data_go_through() {
    let (_endpoint, socket) = socket();
    for version in [WireVersion::V1, WireVersion::V2] {
        let client = Client::new().version(version).connect(&socket).await.expect("everyone may connect");
        let room = client.join("room:a", json!({})).await.expect("everyone may join");
        assert_eq!(room.call("echo", json!({"text": "ä\"\\"})).await.response, json!({"text": "ä\"\\"}).into());
        room.push("push", json!({"n": 1}));
        room.assert_push("pushed", json!({"n": 1})).await;
        room.leave().await;
        client.heartbeat().await;
    }

    let client = Client::new().connect(&socket).await.expect("everyone may connect");
    let mut room = client.join("room:a", json!({})).await.expect("everyone may join");
    let image = Payload::Binary(b"\xff\x00{}".as_slice().into());
    assert_eq!(room.call("echo", image.clone()).await.response, image);
    room.push("push", image.clone());
    room.assert_push("pushed", image.clone()).await;
    room.push("shout", image.clone());
    room.assert_push("shout", image.clone()).await;
    room.assert_broadcast("shout", image).await;
}
