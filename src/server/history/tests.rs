//! What topics keep, stored and read again.

use serde_json::json;

use super::*;

fn endpoint() -> Endpoint {
    let endpoint = Endpoint::start();
    let options = HistoryOptions { survives_restart: true, ..HistoryOptions::default() };
    endpoint.keep("room:*", options);
    endpoint.keep("*", HistoryOptions::default());
    endpoint
}

async fn durable(name: &str) -> (Store, std::path::PathBuf) {
    let path = std::env::temp_dir().join(format!("bennu-history-{name}-{}.redb", std::process::id()));
    // A file of an earlier run that was killed.
    let _ = std::fs::remove_file(&path);
    (Store::open(&path).await.expect("a new file"), path)
}

/// What a topic keeps: epoch, head and the broadcasts' events and payloads.
fn kept(endpoint: &Endpoint, topic: &str) -> (u64, u64, Vec<(String, Payload)>) {
    let kept = endpoint.hub().histories().of(&topic.into()).expect("it keeps history");
    kept.with(|history| {
        let broadcasts = history.kept().map(|(broadcast, _)| (broadcast.event.to_string(), broadcast.payload.clone()));
        (history.epoch().0, history.head(), broadcasts.collect())
    })
}

#[tokio::test]
async fn what_topics_keep_goes_on_behind_a_stop_in_order_once() {
    let (store, path) = durable("once").await;
    let before = endpoint();
    let large = "x".repeat(200_000);
    for n in 0..5_u32 {
        before.broadcast("room:a", "shout", json!({"n": n, "fill": large})).expect("there is room");
        before.broadcast("room:b", "data", Payload::binary(n.to_be_bytes().to_vec())).expect("there is room");
        before.broadcast("other", "shout", json!({})).expect("there is room");
    }
    let expected = [kept(&before, "room:a"), kept(&before, "room:b")];
    super::store(&before, &store).await.expect("it is stored");
    before.broadcast("room:a", "late", json!({})).expect("there is room");

    let after = endpoint();
    restore(&after, &store).await.expect("it is read");
    assert_eq!([kept(&after, "room:a"), kept(&after, "room:b")], expected);
    assert!(kept(&after, "other").2.is_empty(), "it is in memory alone");
    after.broadcast("room:a", "next", json!({})).expect("there is room");
    assert_eq!(kept(&after, "room:a").1, 6);

    // This one ends without a word.
    let third = endpoint();
    restore(&third, &store).await.expect("there is nothing to read");
    assert_ne!(kept(&third, "room:a").0, expected[0].0, "what a crash lost is a gap");
    store.close().await;
    std::fs::remove_file(path).expect("it is there");
}

#[tokio::test]
async fn what_was_not_stored_whole_or_is_no_such_value_is_not_read_and_goes() {
    let (store, path) = durable("whole").await;
    for break_it in [0_u64, 1, 2] {
        let before = endpoint();
        for n in 0..20 {
            let payload = json!({"n": n, "fill": "x".repeat(100_000)});
            before.broadcast("room:a", "shout", payload).expect("there is room");
        }
        let epoch = kept(&before, "room:a").0;
        super::store(&before, &store).await.expect("it is stored");
        let changed = store.change(move |transaction| {
            match break_it {
                0 => transaction.delete(TABLE, DONE),
                1 => transaction.delete(TABLE, 1_u64.to_be_bytes()),
                _ => transaction.put(TABLE, 1_u64.to_be_bytes(), vec![VERSION, 9, 9])?,
            }
            Ok::<_, StoreError>(())
        });
        changed.await.expect("it is changed");

        let after = endpoint();
        restore(&after, &store).await.expect("it is passed over");
        let (new_epoch, head, _) = kept(&after, "room:a");
        assert!(new_epoch != epoch && head == 0, "case {break_it}");
        let left = store.range(TABLE, Keys::onwards(Vec::new()), 10).await.expect("it is read");
        assert!(left.is_empty(), "case {break_it}");
    }
    store.close().await;
    std::fs::remove_file(path).expect("it is there");
}

#[tokio::test]
async fn a_broadcast_too_large_to_store_is_left_out_with_those_before_it() {
    let (store, path) = durable("large").await;
    let before = endpoint();
    for bytes in [10, VALUE_BYTES + 1, 20, 30] {
        let data = Payload::binary(vec![7; bytes]);
        before.broadcast("room:a", "data", data).expect("there is room");
    }
    super::store(&before, &store).await.expect("it is stored");

    let after = endpoint();
    restore(&after, &store).await.expect("it is read");
    let (_, head, broadcasts) = kept(&after, "room:a");
    assert_eq!((head, broadcasts.iter().map(|(_, data)| data.as_bytes().len()).collect::<Vec<_>>()), (4, vec![20, 30]));
    store.close().await;
    std::fs::remove_file(path).expect("it is there");
}
