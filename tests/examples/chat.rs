//! examples/chat.rs.

use bennu::Endpoint;
use bennu::testing::{Client, TestChannel, TestSocket};
use serde_json::{Value, json};

#[path = "../../examples/chat.rs"]
#[allow(dead_code, reason = "its main is not called")]
mod example;

async fn enter(endpoint: &Endpoint, name: &str) -> (TestSocket, TestChannel) {
    let client = Client::new().connect(&example::socket(endpoint).build()).await.expect("everyone may connect");
    let room = client.join("room:lobby", json!({"name": name})).await.expect("a name is enough");
    (client, room)
}

#[tokio::test(start_paused = true)]
async fn everyone_in_the_room_gets_what_is_said_under_the_name_of_the_join() {
    let endpoint = Endpoint::start();
    let (_a, ada) = enter(&endpoint, " Ada ").await;
    let (_g, grace) = enter(&endpoint, "Grace").await;

    let said = ada.push("say", json!({"text": " hello ", "name": "Grace"}));

    for room in [&ada, &grace] {
        assert_eq!(room.assert_push("said", json!({})).await, json!({"name": "Ada", "text": "hello"}).into());
    }
    ada.assert_reply(&said, "ok", json!({})).await;
}

#[tokio::test(start_paused = true)]
async fn who_enters_is_told_who_is_here_and_the_others_are_told_of_each_change() {
    let endpoint = Endpoint::start();
    let (_a, mut ada) = enter(&endpoint, "Ada").await;
    ada.assert_push("presence_state", json!({"user:Ada": {"metas": [{"name": "Ada"}]}})).await;

    let (grace_client, grace) = enter(&endpoint, "constructor").await;
    grace.assert_push("presence_state", json!({"user:Ada": {}, "user:constructor": {}})).await;
    ada.assert_push("presence_diff", json!({"joins": {"user:constructor": {}}})).await;

    ada.assert_broadcast("presence_diff", json!({"joins": {"user:constructor": {}}})).await;

    grace_client.disconnect().await;
    ada.assert_push("presence_diff", json!({"leaves": {"user:constructor": {}}})).await;
    let here: Value = endpoint.presences("room:lobby").parse().expect("an object");
    assert_eq!(here.as_object().expect("an object").keys().collect::<Vec<_>>(), ["user:Ada"]);
}

#[tokio::test(start_paused = true)]
async fn names_and_messages_have_to_be_texts_of_some_length() {
    let endpoint = Endpoint::start();
    let (client, ada) = enter(&endpoint, "Ada").await;
    for name in [json!(null), json!(7), json!(""), json!("  "), json!("ä".repeat(41))] {
        let refused = client.join("room:other", json!({"name": name})).await;
        assert_eq!(refused.err(), Some(json!({"reason": "names have 1 to 40 letters"}).into()));
    }
    client.join("room:other", json!({"name": "ä".repeat(40)})).await.expect("forty are not too many");

    for text in [json!(null), json!(" \n "), json!("x".repeat(2_001))] {
        let said = ada.push("say", json!({"text": text}));
        ada.assert_reply(&said, "error", json!({"reason": "a message has 1 to 2000 characters"})).await;
    }
    ada.refute_push("said").await;
}
