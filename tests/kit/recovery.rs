//! MCP sessions that outlive their connection, on virtual time.

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use bennu::Endpoint;
use bennu::mcp::auth::{AuthRefused, Credential, Identity, McpAuth, Opened, Presented};
use bennu::mcp::{CallContext, Mcp, McpServer, Settings, Tool};
use bennu::testing::{Client, Message, TestChannel, TestSocket, WireVersion};
use futures::FutureExt;
use futures::future::BoxFuture;
use parking_lot::Mutex;
use serde_json::{Map, Value, json};
use tokio::sync::Semaphore;
use tokio::time::advance;

pub(super) const TOPIC: &str = "mcp:session";

/// A server whose tools count how often they run.
struct Workshop {
    mcp: Arc<Mcp>,
    connect: Box<dyn Fn(Client) -> BoxFuture<'static, TestSocket>>,
    runs: Arc<AtomicUsize>,
    gate: Arc<Semaphore>,
    _endpoint: Endpoint,
}

/// Lets everybody in by their names as tokens, each with two sessions at most.
#[derive(Clone, Default)]
struct Two(Arc<Mutex<HashMap<Arc<str>, usize>>>);

struct Place(Two, Arc<str>);

impl Drop for Place {
    fn drop(&mut self) {
        *self.0.0.lock().get_mut(&self.1).expect("it was taken") -= 1;
    }
}

impl McpAuth for Two {
    fn authenticate(&self, presented: Presented) -> BoxFuture<'_, Result<Identity, AuthRefused>> {
        async move {
            match presented.credential {
                Some(Credential::Token(name)) => Ok(Identity::unrestricted(name)),
                _ => Ok(Identity::unrestricted("dev")),
            }
        }
        .boxed()
    }

    fn open_session(&self, user: &Identity, _session_id: &str) -> Result<Opened, AuthRefused> {
        let mut taken = self.0.lock();
        let taken = taken.entry(Arc::clone(&user.user)).or_default();
        if *taken == 2 {
            return Err(AuthRefused::too_many_sessions(2));
        }
        *taken += 1;
        let place = Place(self.clone(), Arc::clone(&user.user));
        Ok(Opened { place: Some(Box::new(place)), ..Opened::default() })
    }
}

impl Workshop {
    fn start(settings: impl FnOnce(&mut Settings)) -> Self {
        let (runs, gate) = (Arc::new(AtomicUsize::new(0)), Arc::new(Semaphore::new(0)));
        let any = || json!({"type": "object"});
        let counted = Arc::clone(&runs);
        let count = Tool::untyped("count", any(), move |_: Map<String, Value>, _: CallContext| {
            let run = counted.fetch_add(1, Ordering::SeqCst) + 1;
            async move { Ok(format!("run {run}")) }
        });
        let (counted, opened) = (Arc::clone(&runs), Arc::clone(&gate));
        let held = Tool::untyped("held", any(), move |_: Map<String, Value>, context: CallContext| {
            let run = counted.fetch_add(1, Ordering::SeqCst) + 1;
            let gate = Arc::clone(&opened);
            async move {
                context.progress(1.0, Some(2.0), Some("before".to_owned()));
                gate.acquire().await.expect("it stays open").forget();
                context.progress(2.0, Some(2.0), Some("after".to_owned()));
                Ok(format!("run {run}"))
            }
        })
        .max_execution_ms(600_000);
        let opened = Arc::clone(&gate);
        let flood = Tool::untyped("flood", any(), move |_: Map<String, Value>, context: CallContext| {
            let gate = Arc::clone(&opened);
            async move {
                gate.acquire().await.expect("it stays open").forget();
                for n in 0..3_000 {
                    context.progress(f64::from(n), None, None);
                    tokio::time::sleep(Duration::from_millis(60)).await;
                }
                Ok("flooded")
            }
        })
        .max_execution_ms(600_000);
        let server = McpServer::builder("lab").tools([count, held, flood]).build().expect("a server");
        let endpoint = Endpoint::start();
        let mcp =
            Mcp::builder(&endpoint, Two::default()).settings(settings).server(server).build().expect("one server");
        let socket = mcp.routes(endpoint.socket("/socket")).build();
        let connect = Box::new(move |client: Client| {
            let socket = Arc::clone(&socket);
            async move { client.connect(&socket).await.expect("everyone may connect") }.boxed()
        });
        Workshop { mcp, connect, runs, gate, _endpoint: endpoint }
    }

    async fn connect(&self) -> TestSocket {
        (self.connect)(Client::new()).await
    }

    fn runs(&self) -> usize {
        self.runs.load(Ordering::SeqCst)
    }

    /// Joins with a wish; the socket, the session and the reply.
    async fn visit(&self, wish: Value) -> (TestSocket, TestChannel, Value) {
        let socket = self.connect().await;
        let (session, reply) = join(&socket, TOPIC, wish).await;
        (socket, session, reply)
    }
}

pub(super) async fn join(socket: &TestSocket, topic: &str, wish: Value) -> (TestChannel, Value) {
    let mut params = wish;
    params["clientInfo"] = json!({"name": "kit", "version": "1"});
    let session = socket.join(topic, params).await.expect("a session");
    let reply = session.joined().parse().expect("JSON");
    (session, reply)
}

pub(super) fn wish() -> Value {
    json!({"recoveryToken": true})
}

/// What brings a client back that has seen up to a position.
pub(super) fn back(reply: &Value, last: impl Into<Value>) -> Value {
    json!({"recoveryToken": reply["recoveryToken"], "lastMessageId": last.into()})
}

pub(super) async fn ask(session: &TestChannel, id: impl Into<Value>, params: Value) {
    let request = json!({"jsonrpc": "2.0", "id": id.into(), "method": "tools/call", "params": params});
    assert_eq!(session.call("mcp_message", request).await.status, "ok");
}

fn held() -> Value {
    json!({"name": "held", "_meta": {"progressToken": "t"}})
}

/// All that comes, but for replies: the `ref` and, in a few words, what it is.
pub(super) async fn all(socket: &TestSocket) -> Vec<String> {
    let mut told = Vec::new();
    while let Some(message) = socket.next().await {
        if message.event != "phx_reply" && message.event != "heartbeat_ack" {
            told.push(word(&message));
        }
    }
    told
}

fn word(message: &Message) -> String {
    let payload: Value = message.payload.parse().expect("JSON");
    let reference = message.reference.as_str().unwrap_or("-");
    let what = match message.event.as_str() {
        "streaming_event" => payload["type"].as_str().expect("a type").to_owned(),
        "mcp_message" if payload["method"] == "notifications/progress" => {
            format!("progress {}", payload["params"]["progress"])
        }
        "mcp_message" => {
            let text = payload["result"]["content"][0]["text"].as_str().map(ToOwned::to_owned);
            format!("answer {} {}", payload["id"], text.unwrap_or_else(|| payload["error"]["message"].to_string()))
        }
        "gap" => format!("gap {payload}"),
        event => event.to_owned(),
    };
    format!("{reference} {what}")
}

#[tokio::test(start_paused = true)]
async fn a_client_comes_back_to_its_session_and_gets_what_it_missed_in_order_and_once() {
    let workshop = Workshop::start(|_| {});
    let (socket, session, joined) = workshop.visit(wish()).await;
    assert_eq!((&joined["resumed"], &joined["recoveryWindow"]), (&json!(false), &json!(300)));
    assert_eq!(joined["lastMessageId"], "@0");
    ask(&session, 1, held()).await;
    assert_eq!(all(&socket).await, ["@1 tool_started", "@2 tool_progress", "@3 progress 1"]);
    socket.disconnect().await;
    assert_eq!(workshop.mcp.detached_sessions(), 1);
    workshop.gate.add_permits(1);
    workshop.mcp.idle().await;

    let (socket, session, back_again) = workshop.visit(back(&joined, "@1")).await;

    assert_eq!((&back_again["resumed"], &back_again["lastMessageId"]), (&json!(true), &json!("@1")));
    assert_eq!(back_again["sessionId"], joined["sessionId"]);
    let keys = |reply: &Value| reply.as_object().expect("an object").keys().cloned().collect::<Vec<_>>();
    assert_eq!(keys(&back_again), keys(&joined));
    let replayed = all(&socket).await;
    let expected = [
        "@2 tool_progress",
        "@3 progress 1",
        "@4 tool_progress",
        "@5 progress 2",
        "@6 tool_completed",
        "@7 answer 1 run 1",
    ];
    assert_eq!(replayed, expected);
    ask(&session, 2, json!({"name": "count"})).await;
    assert_eq!(all(&socket).await, ["@8 tool_started", "@9 tool_completed", "@10 answer 2 run 2"]);
    assert_eq!(workshop.mcp.detached_sessions(), 0);
}

#[tokio::test(start_paused = true)]
async fn who_says_nothing_of_recovery_sees_nothing_of_it() {
    let workshop = Workshop::start(|_| {});
    let (socket, session, joined) = workshop.visit(json!({"lastMessageId": "@3"})).await;
    for key in ["recoveryToken", "recoveryWindow", "resumed", "lastMessageId"] {
        assert_eq!(joined.get(key), None, "{key}");
    }

    ask(&session, 1, json!({"name": "count"})).await;
    assert_eq!(all(&socket).await, ["- tool_started", "- tool_completed", "- answer 1 run 1"]);
    session.call("heartbeat", json!({"lastMessageId": "@1"})).await;
    let ack: Value = session.assert_push("heartbeat_ack", json!({})).await.parse().expect("JSON");
    assert_eq!(ack.get("recoveryToken"), None);

    socket.disconnect().await;
    assert_eq!((workshop.mcp.sessions(), workshop.mcp.detached_sessions()), (0, 0));
}

#[tokio::test(start_paused = true)]
async fn a_window_of_nothing_turns_recovery_off() {
    let workshop = Workshop::start(|settings| settings.recovery_window_ms = 0);
    let (socket, session, joined) = workshop.visit(wish()).await;

    assert_eq!(joined.get("recoveryToken"), None);
    ask(&session, 1, json!({"name": "count"})).await;
    assert_eq!(all(&socket).await[0], "- tool_started");
}

#[tokio::test(start_paused = true)]
async fn a_token_that_does_not_count_begins_a_fresh_session_without_a_word() {
    let workshop = Workshop::start(|_| {});
    let mut ann = wish();
    ann["token"] = json!("ann");
    let (socket, _session, joined) = workshop.visit(ann).await;
    socket.disconnect().await;
    let token = joined["recoveryToken"].as_str().expect("a token");
    let mut forged = token.to_owned();
    forged.replace_range(10..11, if &token[10..11] == "A" { "B" } else { "A" });

    let cases = [
        ("forged", TOPIC, json!(forged), "ann"),
        ("cut", TOPIC, json!(token[1..]), "ann"),
        ("empty", TOPIC, json!(""), "ann"),
        ("of another user", TOPIC, json!(token), "bob"),
        ("of another topic", "mcp:session:b", json!(token), "ann"),
    ];
    for (what, topic, token, user) in cases {
        let socket = workshop.connect().await;
        let (session, reply) = join(&socket, topic, json!({"recoveryToken": token, "token": user})).await;
        assert_eq!(reply["resumed"], false, "{what}");
        assert_ne!(reply["sessionId"], joined["sessionId"], "{what}");
        assert_eq!(reply["lastMessageId"], "@0", "{what}");
        session.leave().await;
    }

    let (_socket, _session, reply) = workshop.visit(json!({"recoveryToken": token, "token": "ann"})).await;
    assert_eq!(reply["sessionId"], joined["sessionId"], "the true one still counts");
}

#[tokio::test(start_paused = true)]
async fn a_token_counts_until_a_later_one_was_used() {
    let workshop = Workshop::start(|_| {});
    let (socket, session, first) = workshop.visit(wish()).await;
    session.call("heartbeat", json!({})).await;
    let second: Value = session.assert_push("heartbeat_ack", json!({})).await.parse().expect("JSON");
    assert_ne!(second["recoveryToken"], first["recoveryToken"]);
    socket.disconnect().await;

    // The heartbeat's answer may have been lost.
    let (socket, _session, third) = workshop.visit(back(&first, "@0")).await;
    assert_eq!(third["resumed"], true);
    socket.disconnect().await;
    let (socket, _session, fourth) = workshop.visit(back(&second, "@0")).await;
    assert_eq!(fourth["sessionId"], first["sessionId"], "it was given after the one that was used");
    socket.disconnect().await;
    let (socket, _session, fifth) = workshop.visit(back(&third, "@0")).await;
    assert_eq!(fifth["sessionId"], first["sessionId"]);
    socket.disconnect().await;

    for earlier in [&first, &second] {
        let (socket, _session, stale) = workshop.visit(back(earlier, "@0")).await;
        assert_eq!(stale["resumed"], false, "a later one was used");
        socket.disconnect().await;
    }
}

#[tokio::test(start_paused = true)]
async fn the_later_attachment_wins_and_the_older_says_nothing_more() {
    let workshop = Workshop::start(|_| {});
    let (older, old_session, joined) = workshop.visit(wish()).await;
    ask(&old_session, 1, held()).await;
    assert_eq!(all(&older).await.len(), 3);

    let (newer, _session, again) = workshop.visit(back(&joined, "@3")).await;

    assert_eq!((&again["sessionId"], &again["resumed"]), (&joined["sessionId"], &json!(true)));
    old_session.assert_closed().await;
    workshop.gate.add_permits(1);
    let told = all(&newer).await;
    assert_eq!(told.last().map(String::as_str), Some("@7 answer 1 run 1"));
    assert_eq!(all(&older).await, Vec::<String>::new());
    // Its connection's end is none of the session's.
    older.disconnect().await;
    assert_eq!((workshop.mcp.sessions(), workshop.mcp.detached_sessions()), (1, 0));
}

#[tokio::test(start_paused = true)]
async fn a_join_on_the_same_socket_comes_back_as_well() {
    let workshop = Workshop::start(|_| {});
    let (socket, session, joined) = workshop.visit(wish()).await;
    ask(&session, 1, json!({"name": "count"})).await;
    assert_eq!(all(&socket).await.len(), 3);

    let (_session, again) = join(&socket, TOPIC, back(&joined, "@2")).await;

    assert_eq!((&again["sessionId"], &again["resumed"]), (&joined["sessionId"], &json!(true)));
    assert_eq!(all(&socket).await, ["1 phx_close", "@3 answer 1 run 1"]);
}

#[tokio::test(start_paused = true)]
async fn a_client_that_leaves_does_not_come_back() {
    let workshop = Workshop::start(|_| {});
    let (socket, session, joined) = workshop.visit(wish()).await;
    let board = socket.join("mcp:runs", json!({})).await.expect("a board");
    ask(&session, 1, held()).await;
    session.leave().await;

    board.assert_push("run_finished", json!({"status": "failed"})).await;
    let (_socket, _session, fresh) = workshop.visit(back(&joined, "@0")).await;
    assert_eq!(fresh["resumed"], false);
    assert_eq!((workshop.mcp.sessions(), workshop.mcp.detached_sessions()), (1, 0));
}

#[tokio::test(start_paused = true)]
async fn when_the_window_is_over_the_session_and_its_calls_end() {
    let workshop = Workshop::start(|settings| settings.recovery_window_ms = 10_000);
    let watching = workshop.connect().await;
    let board = watching.join("mcp:runs", json!({})).await.expect("a board");
    let (socket, session, joined) = workshop.visit(wish()).await;
    ask(&session, 1, held()).await;
    // The time counts from the loss, however long the token is held before.
    advance(Duration::from_secs(50)).await;
    watching.heartbeat().await;
    socket.disconnect().await;
    advance(Duration::from_millis(9_900)).await;
    let (socket, _session, again) = workshop.visit(back(&joined, "@0")).await;
    assert_eq!(again["resumed"], true);
    socket.disconnect().await;

    advance(Duration::from_millis(10_000)).await;

    board.assert_push("run_finished", json!({"status": "failed"})).await;
    assert_eq!((workshop.mcp.sessions(), workshop.mcp.detached_sessions()), (0, 0));
    let (_socket, _session, fresh) = workshop.visit(back(&again, "@0")).await;
    assert_eq!(fresh["resumed"], false);
}

#[tokio::test(start_paused = true)]
async fn silence_and_a_crash_are_no_end_of_a_session() {
    let workshop = Workshop::start(|settings| settings.heartbeat_timeout_ms = 1_000);
    let silent = (workshop.connect)(Client::new().silent()).await;
    let (session, joined) = join(&silent, TOPIC, wish()).await;
    session.assert_crashed().await;
    assert_eq!(workshop.mcp.detached_sessions(), 1);

    let (_session, again) = join(&silent, TOPIC, back(&joined, "@0")).await;

    assert_eq!(again["sessionId"], joined["sessionId"]);
}

#[tokio::test(start_paused = true)]
async fn what_a_heartbeat_acknowledges_is_let_go() {
    let workshop = Workshop::start(|_| {});
    let (socket, session, joined) = workshop.visit(wish()).await;
    ask(&session, 1, json!({"name": "count"})).await;
    session.call("heartbeat", json!({"lastMessageId": "@2"})).await;
    session.call("heartbeat", json!({"lastMessageId": "@99"})).await;
    session.call("heartbeat", json!({"lastMessageId": {"no": 1}})).await;
    let newest = last_token(&socket).await;
    socket.disconnect().await;

    let (socket, _session, again) = workshop.visit(json!({"recoveryToken": newest})).await;

    assert_eq!((&again["sessionId"], &again["lastMessageId"]), (&joined["sessionId"], &json!("@2")));
    assert_eq!(all(&socket).await, ["@3 answer 1 run 1"]);
}

/// The token of the last heartbeat's answer.
async fn last_token(socket: &TestSocket) -> Value {
    let mut token = Value::Null;
    while let Some(message) = socket.next().await {
        if message.event == "heartbeat_ack" {
            token = message.payload.parse::<Value>().expect("JSON")["recoveryToken"].clone();
        }
    }
    token
}

#[tokio::test(start_paused = true)]
async fn what_the_log_could_not_keep_is_told_as_a_gap_before_the_rest() {
    let workshop = Workshop::start(|settings| settings.run_retention_ms = 0);
    let (socket, session, joined) = workshop.visit(wish()).await;
    ask(&session, 1, json!({"name": "flood", "_meta": {"progressToken": 7}})).await;
    assert_eq!(all(&socket).await, ["@1 tool_started"]);
    socket.disconnect().await;
    workshop.gate.add_permits(1);
    workshop.mcp.idle().await;

    let (socket, _session, _) = workshop.visit(back(&joined, "@1")).await;
    let told = all(&socket).await;

    // Three thousand times an event and a notification, and the end.
    let (last, dropped) = (1 + 6_000 + 2, 6_002 - 1_024);
    let gap = json!({"from": 2, "to": 1 + dropped, "dropped": dropped});
    assert_eq!(told[0], format!("- gap {gap}"));
    assert_eq!(told[1].split(' ').next(), Some(format!("@{}", 2 + dropped).as_str()));
    assert_eq!((told.len(), told[1_024].as_str()), (1_025, format!("@{last} answer 1 flooded").as_str()));
}

#[tokio::test(start_paused = true)]
async fn a_call_that_is_asked_again_is_not_run_again() {
    let workshop = Workshop::start(|_| {});
    let (socket, session, joined) = workshop.visit(wish()).await;
    ask(&session, 1, held()).await;
    ask(&session, 2, json!({"name": "count"})).await;
    socket.disconnect().await;

    // It has seen nothing: neither does it know whether its calls were heard.
    let (socket, session, again) = workshop.visit(back(&joined, "@0")).await;
    let mut repeated = held();
    repeated["_meta"]["progressToken"] = json!("another");
    ask(&session, 1, repeated).await;
    ask(&session, 2, json!({"name": "count"})).await;
    workshop.gate.add_permits(1);
    let told = all(&socket).await;
    let answers = |told: &[String]| told.iter().filter(|word| word.contains("answer")).cloned().collect::<Vec<_>>();
    assert_eq!(answers(&told), ["@6 answer 2 run 2", "@10 answer 1 run 1"]);
    socket.disconnect().await;

    // It says that it has the answers, and asks all the same.
    let (socket, session, _) = workshop.visit(back(&again, "@10")).await;
    ask(&session, 2, json!({"name": "count"})).await;
    ask(&session, 2, json!({"name": "count"})).await;
    assert_eq!(all(&socket).await, ["@11 answer 2 run 2"]);
    assert_eq!(workshop.runs(), 2);
}

#[tokio::test(start_paused = true)]
async fn an_idempotency_key_is_one_call_under_any_id() {
    let workshop = Workshop::start(|_| {});
    let keyed = || json!({"name": "held", "_meta": {"idempotencyKey": "k"}});
    let (socket, session, joined) = workshop.visit(wish()).await;
    ask(&session, 1, keyed()).await;
    socket.disconnect().await;
    let (socket, session, _) = workshop.visit(back(&joined, "@0")).await;
    ask(&session, "two", keyed()).await;
    workshop.gate.add_permits(1);

    let told = all(&socket).await;
    assert_eq!(told.last().map(String::as_str), Some("@5 answer \"two\" run 1"));
    ask(&session, 3, keyed()).await;

    assert_eq!(all(&socket).await, ["@6 answer 3 run 1"]);
    assert_eq!(workshop.runs(), 1);
}

#[tokio::test(start_paused = true)]
async fn a_repeat_that_is_none_is_refused_and_says_what_is_expected() {
    let workshop = Workshop::start(|_| {});
    let (socket, session, joined) = workshop.visit(wish()).await;
    let keyed = |name: &str, key: Value| json!({"name": name, "_meta": {"idempotencyKey": key}});
    ask(&session, 1, held()).await;
    ask(&session, 2, json!({"name": "count"})).await;
    ask(&session, 3, keyed("count", json!("k"))).await;
    all(&socket).await;

    let other_call =
        "id 1 is that of another call of this session: expected the same method and params, or an id that was not used";
    let cases = [
        (
            1,
            held(),
            "id 1 is that of a call under way: expected its repeat once its client has come back, or an id that was not used",
        ),
        (1, json!({"name": "held", "arguments": {"other": 1}}), other_call),
        (2, json!({"name": "count"}), "id 2 is that of a call that was answered: expected an id that was not used"),
        (
            4,
            keyed("held", json!("k")),
            "idempotency key \"k\" is that of another call of this session: expected the same method and params, or another key",
        ),
    ];
    for (id, params, message) in cases {
        ask(&session, id, params).await;
        let error = json!({"code": -32600, "message": format!("Invalid request: {message}")});
        session.assert_push("mcp_message", json!({"id": id, "error": error})).await;
    }
    for key in [json!(7), json!(""), json!("x".repeat(257))] {
        ask(&session, 9, keyed("count", key)).await;
        let message = "Invalid params: idempotencyKey: expected a string of 1 to 256 bytes";
        session.assert_push("mcp_message", json!({"id": 9, "error": {"code": -32602, "message": message}})).await;
    }
    socket.disconnect().await;
    let (_socket, session, _) = workshop.visit(back(&joined, Value::Null)).await;
    ask(&session, 1, json!({"name": "held", "arguments": {"other": 1}})).await;
    let error = json!({"code": -32600, "message": format!("Invalid request: {other_call}")});
    session.assert_push("mcp_message", json!({"id": 1, "error": error})).await;
    assert_eq!(workshop.runs(), 3);
}

#[tokio::test(start_paused = true)]
async fn a_call_that_was_refused_or_taken_back_is_told_apart_from_one_that_ran() {
    let workshop = Workshop::start(|_| {});
    let (socket, session, joined) = workshop.visit(wish()).await;
    ask(&session, 1, json!({"name": "nothing"})).await;
    ask(&session, 1, json!({"name": "count"})).await;
    ask(&session, 2, held()).await;
    let taken_back = json!({"jsonrpc": "2.0", "method": "notifications/cancelled", "params": {"requestId": 2}});
    session.call("mcp_message", taken_back).await;
    workshop.mcp.idle().await;
    let told = all(&socket).await;
    assert!(told.contains(&"@4 answer 1 run 1".to_owned()), "one that was not run is a new one: {told:?}");
    socket.disconnect().await;

    let (_socket, session, _) = workshop.visit(back(&joined, Value::Null)).await;
    ask(&session, 2, held()).await;

    let message = "Invalid request: the call with id 2 was taken back, and is not run again: expected an id and a key that were not used";
    session.assert_push("mcp_message", json!({"id": 2, "error": {"code": -32600, "message": message}})).await;
    assert_eq!(workshop.runs(), 2);
}

#[tokio::test(start_paused = true)]
async fn where_a_user_has_no_place_left_the_session_whose_client_went_first_gives_way() {
    let workshop = Workshop::start(|_| {});
    let (first, _session, one) = workshop.visit(wish()).await;
    let (second, _session, two) = workshop.visit(wish()).await;
    second.disconnect().await;
    first.disconnect().await;
    let (third, _session, _) = workshop.visit(wish()).await;
    assert_eq!((workshop.mcp.sessions(), workshop.mcp.detached_sessions()), (2, 1));

    let (back_again, _session, again) = workshop.visit(back(&one, "@0")).await;
    assert_eq!(again["sessionId"], one["sessionId"], "it went later");
    let socket = workshop.connect().await;
    let mut params = back(&two, "@0");
    params["clientInfo"] = json!({"name": "kit", "version": "1"});
    let refused = socket.join(TOPIC, params).await.expect_err("both places are taken by clients who are there");
    assert_eq!(refused.parse::<Value>().expect("JSON")["reason"], "Maximum sessions (2) reached for user");
    drop((third, back_again));
}

#[tokio::test(start_paused = true)]
async fn the_calls_of_a_client_that_is_lost_run_to_their_end_without_it() {
    let workshop = Workshop::start(|_| {});
    let watching = workshop.connect().await;
    let board = watching.join("mcp:runs", json!({})).await.expect("a board");
    let (socket, session, _) = workshop.visit(json!({})).await;
    ask(&session, 1, held()).await;

    socket.disconnect().await;

    assert_eq!((workshop.mcp.sessions(), workshop.mcp.detached_sessions()), (0, 0));
    board.refute_push("run_finished").await;
    workshop.gate.add_permits(1);
    board.assert_push("run_finished", json!({"status": "completed"})).await;
    workshop.mcp.idle().await;
}

#[tokio::test(start_paused = true)]
async fn positions_stand_in_the_ref_of_version_1_too() {
    let workshop = Workshop::start(|_| {});
    let socket = (workshop.connect)(Client::new().version(WireVersion::V1)).await;
    let (session, _) = join(&socket, TOPIC, wish()).await;

    ask(&session, 1, json!({"name": "count"})).await;

    assert_eq!(all(&socket).await, ["@1 tool_started", "@2 tool_completed", "@3 answer 1 run 1"]);
}

#[tokio::test(start_paused = true)]
async fn sessions_that_nobody_comes_back_to_leave_nothing() {
    let workshop = Workshop::start(|_| {});
    let tasks = || tokio::runtime::Handle::current().metrics().num_alive_tasks();
    let mut before = 0;
    for round in 0..2 {
        for n in 0..500 {
            let mut wish = wish();
            wish["token"] = json!(format!("user {n}"));
            let (socket, session, _) = workshop.visit(wish).await;
            ask(&session, 1, json!({"name": "count"})).await;
            socket.disconnect().await;
        }
        assert_eq!(workshop.mcp.detached_sessions(), 500);
        // One task waits for the end of all.
        assert!(tasks() < 20, "{} tasks", tasks());
        tokio::time::sleep(Duration::from_secs(301)).await;
        assert_eq!((workshop.mcp.sessions(), workshop.mcp.detached_sessions()), (0, 0), "round {round}");
        if round == 0 {
            before = tasks();
        }
    }
    assert!(tasks() <= before, "{} tasks, {before} before", tasks());
}

#[tokio::test(start_paused = true)]
async fn only_so_many_calls_run_on_without_their_clients() {
    let workshop = Workshop::start(|settings| {
        settings.runs_max = 8;
        settings.calls_per_session_max = 2;
    });
    let watching = workshop.connect().await;
    let board = watching.join("mcp:runs", json!({})).await.expect("a board");
    for _ in 0..2 {
        let (socket, session, _) = workshop.visit(json!({})).await;
        ask(&session, 1, held()).await;
        ask(&session, 2, held()).await;
        socket.disconnect().await;
    }

    for _ in 0..2 {
        board.assert_push("run_finished", json!({"status": "failed"})).await;
    }
    board.refute_push("run_finished").await;
    workshop.gate.add_permits(2);
    for _ in 0..2 {
        board.assert_push("run_finished", json!({"status": "completed"})).await;
    }
}
