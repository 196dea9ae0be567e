//! Handlers and joins that wait: what comes for their topic meanwhile, and what is said at their end.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use bennu::channel::{Reason, SocketSpec};
use bennu::testing::{Client, Message, TestSocket, WireVersion};
use bennu::{Broadcast, Channel, Cx, Endpoint, JoinCx, Next, Payload, Refusal, Reply};
use serde_json::{Value, json};
use tokio::time::{sleep, timeout};

/// Waits for as many milliseconds as it is told.
struct Slow {
    endpoint: Endpoint,
}

impl Channel for Slow {
    /// What it heard; or nothing, to push something.
    type Info = Option<Broadcast>;

    async fn join(_: &str, params: Payload, cx: &mut JoinCx<Self>) -> Result<(Self, Payload), Refusal> {
        let params: Value = params.parse()?;
        if params["hears"] == true {
            cx.subscribe("news", Some).expect("there is room");
        }
        if params["tells_itself"] == true {
            cx.handle().send(None).expect("the client is there");
        }
        sleep(Duration::from_millis(params["ms"].as_u64().unwrap_or_default())).await;
        match params["answer"].as_str() {
            Some("refused") => Err(Refusal::reason("no")),
            Some("unencodable") => {
                Err(Payload::json(&HashMap::from([((), ())])).expect_err("no text is the key").into())
            }
            Some("binary") => Ok((Slow { endpoint: cx.endpoint() }, Payload::Binary(b"!".as_slice().into()))),
            _ => Ok((Slow { endpoint: cx.endpoint() }, Payload::EMPTY)),
        }
    }

    async fn handle_in(&mut self, event: &str, payload: Payload, cx: &mut Cx<Self>) -> Next {
        let asked: Value = payload.parse().unwrap_or_default();
        let wait = Duration::from_millis(asked["ms"].as_u64().unwrap_or_default());
        match event {
            "wait" => sleep(wait).await,
            "reply_in_binary" => {
                let handle = cx.reply_handle().expect("a message is being handled");
                tokio::spawn(async move {
                    sleep(wait).await;
                    handle.send(Reply::ok(Payload::Binary(b"!".as_slice().into())))
                });
                return Next::NoReply;
            }
            "push_too_long" => {
                cx.push(&"long".repeat(100), Payload::Binary(b"!".as_slice().into()));
                sleep(wait).await;
            }
            _ => {}
        }
        Next::ok(Payload::EMPTY)
    }

    async fn handle_info(&mut self, news: Option<Broadcast>, cx: &mut Cx<Self>) -> Next {
        cx.push("heard", news.map_or(Payload::EMPTY, |news| news.payload().clone()));
        Next::NoReply
    }

    async fn terminate(&mut self, reason: &Reason, cx: &mut Cx<Self>) {
        cx.track("late", &Payload::EMPTY).expect("nobody is there");
        let why = if matches!(reason, Reason::Crashed(_)) { "Crashed".to_owned() } else { format!("{reason:?}") };
        self.endpoint.broadcast("ends", "end", json!({"reason": why})).expect("there is room");
    }
}

fn socket() -> (Endpoint, Arc<SocketSpec>) {
    let endpoint = Endpoint::start();
    let socket = endpoint.socket("/socket").channel::<Slow>("slow:*").build();
    (endpoint, socket)
}

async fn connected(version: WireVersion) -> (Endpoint, TestSocket) {
    let (endpoint, socket) = socket();
    let client = Client::new().version(version).connect(&socket).await.expect("everyone may connect");
    (endpoint, client)
}

/// Sends V2 messages, each `[join_ref, ref, topic, event, payload]`.
fn send(client: &TestSocket, messages: &[Value]) {
    messages.iter().for_each(|message| client.send_text(message.to_string()));
}

/// All that comes until nothing more does, each as `join_ref ref event status payload`.
async fn heard(client: &TestSocket) -> Vec<String> {
    let mut heard = Vec::new();
    while let Some(Message { join_ref, reference, event, status, payload, .. }) = client.next().await {
        heard.push(format!("{join_ref} {reference} {event} {} {payload:?}", status.unwrap_or_default()));
    }
    heard
}

#[tokio::test(start_paused = true)]
async fn what_was_said_before_a_drain_still_goes_out() {
    let (endpoint, client) = connected(WireVersion::V2).await;
    send(&client, &[json!(["1", "1", "slow:a", "phx_join", {"hears": true}])]);
    assert_eq!(heard(&client).await, [r#""1" "1" phx_reply ok {}"#]);

    // Both reach the connection before it has taken its mail.
    endpoint.broadcast("news", "new", json!({"n": 1})).expect("there is room");
    bennu::server::drain(&endpoint, &bennu::server::DrainOptions::default()).await;

    assert_eq!(heard(&client).await, [r#""1" null heard  {"n":1}"#]);
    assert_eq!(client.closed().await, 1012);
}

#[tokio::test(start_paused = true)]
async fn an_event_that_is_no_text_is_unmatched_where_its_channel_has_ended_before_it() {
    let (_endpoint, client) = connected(WireVersion::V2).await;
    send(
        &client,
        &[
            json!(["1", "1", "slow:a", "phx_join", {"ms": 10}]),
            json!(["1", "2", "slow:a", "phx_leave", {}]),
            json!(["1", "3", "slow:a", ["echo"], {}]),
        ],
    );

    assert_eq!(
        heard(&client).await,
        [
            r#""1" "1" phx_reply ok {}"#,
            r#""1" "2" phx_reply ok {}"#,
            r#""1" "1" phx_close  {}"#,
            r#"null "3" phx_reply error {"reason":"unmatched topic"}"#,
        ]
    );
}

#[tokio::test(start_paused = true)]
async fn a_leave_that_waited_for_an_end_is_answered_with_its_own_references() {
    let (_endpoint, client) = connected(WireVersion::V2).await;
    send(
        &client,
        &[
            json!(["1", "1", "slow:a", "phx_join", {"ms": 10, "answer": "refused"}]),
            json!([null, "2", "slow:a", "phx_leave", {}]),
            json!(["3", "3", "slow:a", "phx_join", {"answer": "refused"}]),
            json!(["3", "4", "slow:a", "phx_leave", {}]),
        ],
    );

    assert_eq!(
        heard(&client).await,
        [
            r#""1" "1" phx_reply error {"reason":"no"}"#,
            r#"null "2" phx_reply ok {}"#,
            r#""3" "3" phx_reply error {"reason":"no"}"#,
            r#""3" "4" phx_reply ok {}"#,
        ]
    );
}

#[tokio::test(start_paused = true)]
async fn a_join_that_waited_for_a_join_does_not_wait_for_the_handlers_behind_that() {
    let (_endpoint, client) = connected(WireVersion::V2).await;
    send(
        &client,
        &[
            json!(["1", "1", "slow:a", "phx_join", {"ms": 10}]),
            json!(["1", "2", "slow:a", "wait", {"ms": 60_000}]),
            json!(["3", "3", "slow:a", "phx_join", {}]),
        ],
    );

    for expected in ["1", "3", "1"] {
        let next = timeout(Duration::from_secs(1), client.next()).await.expect("the handler is not waited for");
        assert_eq!(next.map(|message| message.reference), Some(expected.into()));
    }
}

#[tokio::test(start_paused = true)]
async fn what_a_replaced_channel_was_to_hear_is_not_heard_by_the_one_that_replaces_it() {
    let (endpoint, client) = connected(WireVersion::V2).await;
    send(
        &client,
        &[
            json!(["1", "1", "slow:a", "phx_join", {"ms": 10, "hears": true}]),
            json!(["2", "2", "slow:a", "phx_join", {}]),
        ],
    );
    sleep(Duration::from_millis(5)).await;
    endpoint.broadcast("news", "goal", json!({})).expect("there is room");

    let closed = [r#""1" "1" phx_reply ok {}"#, r#""2" "2" phx_reply ok {}"#, r#""1" "1" phx_close  {}"#];
    let heard = heard(&client).await;
    let heard = heard.iter().filter(|message| !message.contains("presence_diff"));
    assert_eq!(heard.collect::<Vec<_>>(), closed);
}

#[tokio::test(start_paused = true)]
async fn a_presence_tracked_in_terminate_comes_before_it_goes() {
    let (endpoint, client) = connected(WireVersion::V2).await;
    let mut topic = endpoint.subscribe("slow:a");
    client.join("slow:a", json!({})).await.expect("everyone may join").leave().await;

    for keys in [("late", ""), ("", "late")] {
        let diff: Value = topic.recv().await.expect("the endpoint lives").payload().parse().expect("JSON");
        let has = |side: &str, key: &str| key.is_empty() || diff[side].get(key).is_some();
        assert!(has("joins", keys.0) && has("leaves", keys.1), "{diff}");
    }
    assert_eq!(endpoint.presences("slow:a"), Payload::EMPTY);
}

#[tokio::test(start_paused = true)]
async fn a_late_reply_that_cant_be_said_crashes_its_channel_behind_the_handler_that_waits() {
    let (endpoint, client) = connected(WireVersion::V1).await;
    let mut ends = endpoint.subscribe("ends");
    let room = client.join("slow:a", json!({})).await.expect("everyone may join");
    let unsayable = room.push("reply_in_binary", json!({"ms": 10}));
    room.push("wait", json!({"ms": 20}));
    let waits = room.push("echo", json!({}));

    room.assert_crashed().await;
    room.assert_reply(&waits, "error", json!({"reason": "unmatched topic"})).await;
    room.refute_reply(&unsayable).await;
    let end = ends.recv().await.expect("the endpoint lives");
    assert_eq!(end.payload(), &json!({"reason": "Crashed"}).into());
}

#[tokio::test(start_paused = true)]
async fn two_channels_that_push_what_cant_be_said_both_crash() {
    let (_endpoint, client) = connected(WireVersion::V2).await;
    let one = client.join("slow:a", json!({})).await.expect("everyone may join");
    let two = client.join("slow:b", json!({})).await.expect("everyone may join");
    one.push("push_too_long", json!({"ms": 20}));
    two.push("push_too_long", json!({"ms": 10}));

    two.assert_crashed().await;
    one.assert_crashed().await;
}

#[tokio::test(start_paused = true)]
async fn a_join_that_ends_its_socket_is_the_last_thing_handled() {
    let (_endpoint, client) = connected(WireVersion::V2).await;
    send(
        &client,
        &[
            json!(["1", "1", "slow:a", "phx_join", {"ms": 10}]),
            json!(["1", "2", "slow:a", "phx_leave", {}]),
            json!(["3", "3", "slow:a", "phx_join", {"answer": "unencodable"}]),
            json!(["4", "4", "slow:a", "phx_join", {}]),
        ],
    );

    assert_eq!(client.closed().await, 1011);
    let mut replies = Vec::new();
    while let Some(message) = client.next().await {
        replies.push(format!("{} {}", message.reference, message.event));
    }
    assert_eq!(replies, [r#""1" phx_reply"#, r#""2" phx_reply"#, r#""1" phx_close"#]);
}

#[tokio::test(start_paused = true)]
async fn a_channel_whose_join_cant_be_answered_is_told_nothing() {
    let (_endpoint, client) = connected(WireVersion::V1).await;
    let join = |params| json!({"topic": "slow:a", "event": "phx_join", "ref": "1", "payload": params}).to_string();
    client.send_text(join(json!({"ms": 10})));
    client.send_text(join(json!({"answer": "binary", "tells_itself": true})));

    assert_eq!(client.closed().await, 1011);
    let answer = client.next().await.expect("the first join is answered");
    assert_eq!((answer.event.as_str(), answer.status.as_deref()), ("phx_reply", Some("ok")));
    assert_eq!(client.next().await, None);
}
