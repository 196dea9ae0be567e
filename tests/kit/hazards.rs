//! What users' own code may do to a server: drop guards that send, destructors that panic, clocks that run ahead.

use std::sync::Mutex;
use std::time::Duration;

use bennu::channel::{Handle, Reason, RecvError, ReplyHandle};
use bennu::testing::{Client, TestChannel, TestSocket};
use bennu::{Broadcast, Channel, ConnectInfo, Connected, Cx, Endpoint, JoinCx, Next, Payload, Refusal, Reply};
use serde_json::{Value, json};

use crate::room::{Room, joined, socket};

fn paused() -> tokio::runtime::Runtime {
    tokio::runtime::Builder::new_current_thread().enable_all().start_paused(true).build().expect("a runtime starts")
}

/// Runs a test on a thread of its own, which may hang.
fn within_seconds(test: impl FnOnce() + Send + 'static) {
    let (done, ended) = std::sync::mpsc::channel();
    std::thread::spawn(move || {
        test();
        let _ = done.send(());
    });
    ended.recv_timeout(Duration::from_secs(10)).expect("it ends, and without a panic");
}

/// The user 7, in a room of a channel's type.
async fn user_in<C: Channel>(endpoint: &Endpoint) -> (TestSocket, TestChannel) {
    let socket = endpoint
        .socket("/socket")
        .connect(async |_| Ok(Connected::default().id("user:7")))
        .channel::<C>("room:*")
        .build();
    let client = Client::new().connect(&socket).await.expect("everyone may connect");
    let room = client.join("room:a", json!({})).await.expect("everyone may join");
    (client, room)
}

/// A message that sends another when it is dropped.
struct Loud(Option<Handle<Loud>>);

impl Drop for Loud {
    fn drop(&mut self) {
        if let Some(handle) = self.0.take() {
            let _ = handle.send(Loud(None));
        }
    }
}

struct Listener;

static HANDLE: Mutex<Option<Handle<Loud>>> = Mutex::new(None);

impl Channel for Listener {
    type Info = Loud;

    async fn join(_: &str, _: Payload, cx: &mut JoinCx<Self>) -> Result<(Self, Payload), Refusal> {
        *HANDLE.lock().expect("nobody panics with it") = Some(cx.handle());
        Ok((Listener, Payload::EMPTY))
    }
}

#[test]
fn mail_that_sends_when_it_is_dropped_hangs_nobody() {
    within_seconds(|| {
        paused().block_on(async {
            let endpoint = Endpoint::start();
            let (client, _room) = user_in::<Listener>(&endpoint).await;
            let handle = HANDLE.lock().expect("nobody panics with it").take().expect("it was joined");
            // The order reaches the connection before it has taken its mail.
            endpoint.disconnect("user:7").expect("there is room");
            handle.send(Loud(Some(handle.clone()))).expect("there is room");
            assert_eq!(client.closed().await, 1001);
        });
    });
}

/// Answers when it is dropped.
struct Answering(Option<ReplyHandle>);

impl Drop for Answering {
    fn drop(&mut self) {
        if let Some(reply) = self.0.take() {
            let _ = reply.send(Reply::error(json!({"reason": "given up"})));
        }
    }
}

struct Busy;

impl Channel for Busy {
    type Info = Answering;

    async fn join(_: &str, _: Payload, _: &mut JoinCx<Self>) -> Result<(Self, Payload), Refusal> {
        Ok((Busy, Payload::EMPTY))
    }

    async fn handle_in(&mut self, event: &str, _: Payload, cx: &mut Cx<Self>) -> Next {
        if event == "wait" {
            std::future::pending().await
        }
        let guard = Answering(cx.reply_handle());
        cx.spawn(async move {
            tokio::time::sleep(Duration::from_millis(10)).await;
            guard
        });
        Next::NoReply
    }
}

#[test]
fn a_guard_that_answers_when_it_is_dropped_hangs_nobody() {
    within_seconds(|| {
        paused().block_on(async {
            let endpoint = Endpoint::start();
            let (client, room) = user_in::<Busy>(&endpoint).await;
            room.push("later", json!({}));
            // The channel waits with all it may have waiting, so the guard stays in the inbox.
            (0..65).for_each(|_| drop(room.push("wait", json!({}))));
            room.refute_push("phx_error").await;
            endpoint.disconnect("user:7").expect("there is room");
            assert_eq!(client.closed().await, 1001);
            assert_eq!(endpoint.connections(), 0);
        });
    });
}

struct Bomb;

impl Drop for Bomb {
    fn drop(&mut self) {
        panic!("dropped");
    }
}

struct Hearing;

impl Channel for Hearing {
    type Info = Broadcast;

    async fn join(_: &str, _: Payload, cx: &mut JoinCx<Self>) -> Result<(Self, Payload), Refusal> {
        let bomb = Bomb;
        cx.subscribe("news", move |broadcast| {
            let _ = &bomb;
            broadcast
        })?;
        Ok((Hearing, Payload::EMPTY))
    }
}

/// Leaves a message behind for the time when it has ended.
struct Heir;

impl Channel for Heir {
    type Info = Bomb;

    async fn join(_: &str, _: Payload, _: &mut JoinCx<Self>) -> Result<(Self, Payload), Refusal> {
        Ok((Heir, Payload::EMPTY))
    }

    async fn terminate(&mut self, _: &Reason, cx: &mut Cx<Self>) {
        cx.send(Bomb);
    }
}

struct Bombed(Bomb);

impl Channel for Bombed {
    type Info = ();

    async fn join(_: &str, _: Payload, _: &mut JoinCx<Self>) -> Result<(Self, Payload), Refusal> {
        Ok((Bombed(Bomb), Payload::EMPTY))
    }
}

#[tokio::test(start_paused = true)]
async fn what_panics_when_it_is_dropped_is_the_end_of_its_channel_alone() {
    let endpoint = Endpoint::start();
    let socket = endpoint
        .socket("/socket")
        .channel::<Hearing>("hearing")
        .channel::<Bombed>("bombed")
        .channel::<Heir>("heir")
        .channel::<Room>("room:*")
        .build();
    let client = Client::new().connect(&socket).await.expect("everyone may connect");
    let room = client.join("room:a", json!({})).await.expect("everyone may join");
    client.join("hearing", json!({})).await.expect("everyone may join").leave().await;
    client.join("bombed", json!({})).await.expect("everyone may join").leave().await;
    client.join("heir", json!({})).await.expect("everyone may join").leave().await;
    assert_eq!(endpoint.subscriptions("news").await, 0);
    assert_eq!(room.call("echo", json!({})).await.status, "ok");
}

#[test]
fn a_clock_that_has_run_ahead_in_one_runtime_stops_none_in_another() {
    paused().block_on(async {
        tokio::time::advance(Duration::from_secs(7_200)).await;
        let _held = joined("room:a").await;
    });
    paused().block_on(async {
        let (_endpoint, socket) = socket();
        let idle = Client::new().silent().connect(&socket).await.expect("everyone may connect");
        tokio::time::advance(Duration::from_secs(60)).await;
        assert_eq!(idle.closed().await, 1002);
    });
}

#[test]
fn broadcasts_after_the_runtimes_end_are_nobodys_and_no_error() {
    let runtime = paused();
    let endpoint = runtime.block_on(async { Endpoint::start() });
    drop(runtime);
    for _ in 0..bennu::protocol::limits::SHARD_COMMANDS_MAX + 1 {
        endpoint.broadcast("news", "late", ()).expect("nobody is there");
    }
}

#[tokio::test(start_paused = true)]
async fn a_subscriber_does_not_keep_its_endpoint() {
    let endpoint = Endpoint::start();
    let mut news = endpoint.subscribe("news");
    drop(endpoint);
    assert_eq!(news.recv().await.err(), Some(RecvError::Closed));
}

#[tokio::test(start_paused = true)]
async fn the_kit_honours_a_sockets_settings() {
    let endpoint = Endpoint::start();
    let asked = async |info: ConnectInfo| Ok(Connected::with(info.auth_token));
    let plain = endpoint.socket("/plain").connect(asked).channel::<Room>("room:*").options(|options| {
        options.message_bytes_max = 100;
    });
    let client = Client::new().auth_token("secret").connect(&plain.build()).await.expect("everyone may connect");
    assert_eq!(client.assigns::<Option<String>>(), Some(&None), "this socket asks for no token");
    let room = client.join("room:a", json!({})).await.expect("everyone may join");
    room.push("echo", json!({"text": "x".repeat(100)}));
    assert_eq!(client.closed().await, 1009);

    let asking = endpoint.socket("/asking").connect(asked).options(|options| options.auth_token = true).build();
    let client = Client::new().auth_token("secret").connect(&asking).await.expect("everyone may connect");
    assert_eq!(client.assigns::<Option<String>>(), Some(&Some("secret".to_owned())));
}

#[tokio::test(start_paused = true)]
async fn the_kit_takes_what_a_server_echoes_of_a_strange_message() {
    let (_endpoint, socket) = socket();
    let client = Client::new().connect(&socket).await.expect("everyone may connect");
    client.send_text(r#"["1","1",5,"x",{}]"#);
    let answer = client.next().await.expect("an answer");
    assert_eq!((answer.topic.as_str(), answer.status.as_deref()), ("5", Some("error")));
    client.heartbeat().await;
}

struct Slow;

impl Channel for Slow {
    type Info = ();

    async fn join(_: &str, _: Payload, cx: &mut JoinCx<Self>) -> Result<(Self, Payload), Refusal> {
        cx.send(());
        Ok((Slow, Payload::EMPTY))
    }

    async fn handle_info(&mut self, (): (), cx: &mut Cx<Self>) -> Next {
        let idle_ms = cx.socket_idle_ms();
        cx.push("idle", json!({"ms": idle_ms}));
        cx.send_after(Duration::from_secs(1_800), ());
        Next::NoReply
    }

    async fn terminate(&mut self, _: &Reason, _: &mut Cx<Self>) {
        tokio::time::sleep(Duration::from_secs(8)).await;
    }
}

#[tokio::test(start_paused = true)]
async fn the_kits_client_is_never_idle_and_waits_for_slow_ends() {
    let endpoint = Endpoint::start();
    let socket = endpoint.socket("/socket").channel::<Slow>("slow").build();
    let client = Client::new().connect(&socket).await.expect("everyone may connect");
    let slow = client.join("slow", json!({})).await.expect("everyone may join");
    slow.assert_push("idle", json!({})).await;
    tokio::time::advance(Duration::from_secs(1_800)).await;
    let idle: Value = slow.assert_push("idle", json!({})).await.parse().expect("JSON");
    assert!(idle["ms"].as_u64().is_some_and(|ms| ms < 60_000), "{idle}");

    client.disconnect().await;
    assert_eq!(endpoint.connections(), 0);
}
