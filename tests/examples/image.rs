//! examples/image.rs.

use bennu::testing::{Client, TestChannel, TestSocket};
use bennu::{Endpoint, Payload};
use serde_json::json;

#[path = "../../examples/image.rs"]
#[allow(dead_code, reason = "its main is not called")]
mod example;

async fn join(endpoint: &Endpoint, topic: &str) -> (TestSocket, TestChannel) {
    let client = Client::new().connect(&example::socket(endpoint).build()).await.expect("everyone may connect");
    let images = client.join(topic, json!({})).await.expect("everyone may join");
    (client, images)
}

fn png(bytes: usize) -> Payload {
    let mut data = b"\x89PNG\r\n\x1a\n".to_vec();
    data.resize(bytes, 0xfe);
    Payload::Binary(data.into())
}

#[tokio::test(start_paused = true)]
async fn a_picture_reaches_the_others_of_its_room_as_it_is() {
    let endpoint = Endpoint::start();
    let (_sender, mine) = join(&endpoint, "images:a").await;
    let (_receiver, theirs) = join(&endpoint, "images:a").await;
    let (_stranger, elsewhere) = join(&endpoint, "images:b").await;

    let sent = mine.push("image", png(example::IMAGE_BYTES_MAX));

    mine.assert_reply(&sent, "ok", json!({"type": "image/png"})).await;
    theirs.assert_push("image", png(example::IMAGE_BYTES_MAX)).await;
    mine.refute_push("image").await;
    elsewhere.refute_push("image").await;
}

#[tokio::test(start_paused = true)]
async fn what_is_no_picture_or_too_big_is_refused() {
    let endpoint = Endpoint::start();
    let (_sender, mine) = join(&endpoint, "images:a").await;
    let (_receiver, theirs) = join(&endpoint, "images:a").await;

    for (payload, reason) in [
        (png(example::IMAGE_BYTES_MAX + 1), "the picture has 1048577 bytes, the limit is 1048576"),
        (png(7), "expected a PNG, JPEG, GIF or WebP picture"),
        (Payload::Binary("<svg onload='alert(1)'/>".into()), "expected a PNG, JPEG, GIF or WebP picture"),
        (Payload::Binary("".into()), "expected a PNG, JPEG, GIF or WebP picture"),
        (json!({"data": "iVBORw0KGgo="}).into(), "a picture is binary data"),
    ] {
        let sent = mine.push("image", payload);
        assert_eq!(mine.assert_reply(&sent, "error", json!({})).await, json!({"reason": reason}).into());
    }
    theirs.refute_push("image").await;
}

#[tokio::test(start_paused = true)]
async fn each_type_is_told_by_its_first_bytes() {
    let (_client, images) = join(&Endpoint::start(), "images:a").await;
    for (data, name) in [
        (&b"\xff\xd8\xff\xe0"[..], "image/jpeg"),
        (b"GIF87a", "image/gif"),
        (b"GIF89a", "image/gif"),
        (b"RIFF\x10\0\0\0WEBPVP8 ", "image/webp"),
    ] {
        let sent = images.push("image", Payload::Binary(data.into()));
        images.assert_reply(&sent, "ok", json!({"type": name})).await;
    }
}
