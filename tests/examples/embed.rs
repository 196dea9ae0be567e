//! examples/embed.rs: the channel. Its routes are driven by js-client/test/examples.test.js.

use std::sync::Arc;

use bennu::Endpoint;
use bennu::testing::{Client, TestSocket};
use serde_json::json;

#[path = "../../examples/embed.rs"]
#[allow(dead_code, reason = "its main is not called")]
mod example;
use example::{Shop, Status};

async fn customer() -> (Endpoint, Arc<Shop>, TestSocket) {
    let endpoint = Endpoint::start();
    let shop = Arc::new(Shop::new(endpoint.clone()));
    let client = Client::new().connect(&example::socket(&endpoint, &shop).build()).await.expect("everyone may connect");
    (endpoint, shop, client)
}

fn status(status: &str) -> Status {
    Status { status: status.to_owned() }
}

#[tokio::test(start_paused = true)]
async fn who_watches_an_order_learns_how_it_stands_and_each_change() {
    let (_endpoint, shop, client) = customer().await;
    shop.change(8, status("paid")).expect("there is room");

    let order = client.join("order:7", json!({})).await.expect("there is such an order");
    assert_eq!(order.joined(), &json!({"status": "paid"}).into());
    shop.change(7, status("packed")).expect("there is room");
    shop.change(8, status("lost")).expect("there is room");
    shop.change(7, status("sent")).expect("there is room");

    for expected in ["packed", "sent"] {
        let message = client.next().await.expect("a push");
        assert_eq!((message.event.as_str(), message.payload), ("status", json!({"status": expected}).into()));
    }
    order.refute_push("status").await;
}

#[tokio::test(start_paused = true)]
async fn what_is_no_order_can_not_be_watched() {
    let (endpoint, _shop, client) = customer().await;
    for topic in ["order:9", "order:", "order:seven", "order:-7"] {
        assert_eq!(client.join(topic, json!({})).await.err(), Some(json!({"reason": "no such order"}).into()));
    }
    assert_eq!(client.join("changes:7", json!({})).await.err(), Some(json!({"reason": "unmatched topic"}).into()));
    assert_eq!(endpoint.subscriptions("changes:9").await, 0);
}
