//! Where Phoenix loses something or crashes by accident of its making: a test of each such recording that holds what Bennu
//! does there. Each has the name of its recording.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::time::{Duration, Instant};

use serde_json::value::RawValue;
use serde_json::{Value, json};

use crate::reference::Server;
use crate::transcripts::case::Case;
use crate::transcripts::client::{self, Client, Handshake};
use crate::transcripts::frames::text_frame;
use crate::transcripts::http;
use crate::transcripts::play::{difference, play};

const V2: &str = "vsn=2.0.0";
const HEARTBEAT: &str = r#"[null,"hb","phoenix","heartbeat",{}]"#;
const HEARTBEAT_REPLY: &str = r#"[null,"hb","phoenix","phx_reply",{"response":{},"status":"ok"}]"#;

/// Longer than a reply takes that comes at once, on a busy machine; shorter than whatever it must not wait for.
const AT_ONCE: Duration = Duration::from_millis(250);

fn open_v2(server: &Server) -> Client {
    Client::open(server.address(), "/socket/websocket", V2)
}

/// Joins a room of the reference application with ref and join_ref `"1"`.
fn join(client: &mut Client, topic: &str) {
    client.exchange(&format!(r#"["1","1","{topic}","phx_join",{{}}]"#), &joined("1", topic));
}

/// The reply to a join with `reference` as its ref and join_ref.
fn joined(reference: &str, topic: &str) -> String {
    format!(
        r#"["{reference}","{reference}","{topic}","phx_reply",{{"response":{{"echo_params":{{}},"room":"{topic}"}},"status":"ok"}}]"#
    )
}

/// Holds the recording all the same: nothing of it is an accident that we would do differently.
fn check_as_recorded(name: &str) {
    let server = Server::shared();
    let case = Case::named(name);

    let report = difference(&case, &play(&case, server.address()));

    assert_eq!(report, None, "{}", report.as_deref().unwrap_or_default());
}

/// A long-poll session of the reference application's `/short_socket`.
struct Poll {
    server: SocketAddr,
    vsn: &'static str,
    token: String,
}

impl Poll {
    fn start(server: &Server, vsn: &'static str) -> Self {
        let mut poll = Self { server: server.address(), vsn, token: String::new() };
        let opened = poll.get();
        assert_eq!(opened["status"], 410, "a new session: {opened}");
        opened["token"].as_str().expect("a new session has a token").clone_into(&mut poll.token);
        poll
    }

    fn get(&self) -> Value {
        self.request("GET", &[("Accept", "application/json")], None)
    }

    fn post(&self, body: &str) -> Value {
        self.request("POST", &[("Content-Type", "application/x-ndjson")], Some(body))
    }

    /// The JSON of an answer, whose HTTP status has to be 200.
    fn request(&self, method: &str, headers: &[(&str, &str)], body: Option<&str>) -> Value {
        let token = if self.token.is_empty() { String::new() } else { format!("&token={}", self.token) };
        let request = http::Request {
            method,
            path: "/short_socket/longpoll",
            qs: Some(&format!("vsn={}{token}", self.vsn)),
            headers: &headers.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect::<Vec<_>>(),
            body: body.map(str::as_bytes),
            timeout: http::TIMEOUT,
        };
        let answer = http::send(self.server, &request).expect("an answer");
        let text = String::from_utf8_lossy(&answer.body).into_owned();
        assert_eq!(answer.status, 200, "{method}: {text}");
        serde_json::from_str(&text).unwrap_or_else(|error| panic!("{method}: {error}: {text}"))
    }

    /// The messages of the next poll.
    fn messages(&self) -> Vec<Value> {
        let answer = self.get();
        assert_eq!(answer["status"], 200, "{answer}");
        let messages = answer["messages"].as_array().expect("a list of messages");
        let parse = |message: &Value| serde_json::from_str(message.as_str().expect("a text")).expect("a JSON text");
        messages.iter().map(parse).collect()
    }
}

#[test]
fn frames_with_handshake() {
    let server = Server::shared();
    let extra =
        [text_frame(r#"[null,"1","phoenix","heartbeat",{}]"#), text_frame(r#"["1","2","room:fw","phx_join",{}]"#)]
            .concat();
    let handshake = Handshake { path: "/socket/websocket", qs: V2, ..Handshake::default() };
    let mut client = Client::connect(server.address(), &handshake, &extra, true);

    assert!(client.await_answer(client::TIMEOUT));
    assert_eq!(client.answer().status, Some(101));
    client.expect_json(r#"[null,"1","phoenix","phx_reply",{"response":{},"status":"ok"}]"#);
    client.expect_json(
        r#"["1","2","room:fw","phx_reply",{"response":{"echo_params":{},"room":"room:fw"},"status":"ok"}]"#,
    );
    client.exchange(HEARTBEAT, HEARTBEAT_REPLY);
}

#[test]
fn join_slow_blocks_socket() {
    let server = Server::shared();
    let mut client = open_v2(&server);

    let sent = Instant::now();
    client.send_text(r#"["1","1","room:slow_join","phx_join",{}]"#);
    client.exchange(HEARTBEAT, HEARTBEAT_REPLY);
    let heartbeat_took = sent.elapsed();
    client
        .expect_json(r#"["1","1","room:slow_join","phx_reply",{"response":{"room":"room:slow_join"},"status":"ok"}]"#);
    let join_took = sent.elapsed();

    assert!(heartbeat_took < AT_ONCE, "the heartbeat took {heartbeat_took:?}");
    assert!(join_took >= Duration::from_millis(290), "the slow join took only {join_took:?}");
}

#[test]
fn leave_rejoin_one_packet() {
    let server = Server::shared();
    let mut client = open_v2(&server);
    join(&mut client, "room:l8");

    client.write(
        &[text_frame(r#"["1","2","room:l8","phx_leave",{}]"#), text_frame(r#"["3","3","room:l8","phx_join",{}]"#)]
            .concat(),
    );

    client.expect_json(r#"["1","2","room:l8","phx_reply",{"response":{},"status":"ok"}]"#);
    client.expect_json(r#"["1","1","room:l8","phx_close",{}]"#);
    client.expect_json(&joined("3", "room:l8"));
    client.expect_quiet(AT_ONCE);
}

#[test]
fn leave_twice_one_packet() {
    let server = Server::shared();
    let mut client = open_v2(&server);
    join(&mut client, "room:l2p");

    client.write(
        &[text_frame(r#"["1","2","room:l2p","phx_leave",{}]"#), text_frame(r#"["1","3","room:l2p","phx_leave",{}]"#)]
            .concat(),
    );

    client.expect_json(r#"["1","2","room:l2p","phx_reply",{"response":{},"status":"ok"}]"#);
    client.expect_json(r#"["1","1","room:l2p","phx_close",{}]"#);
    // As the leave of any topic that isn't joined: topic_number.json.
    client.expect_json(r#"["1","3","room:l2p","phx_reply",{"response":{},"status":"ok"}]"#);
    client.expect_quiet(AT_ONCE);
}

#[test]
fn payload_duplicate_keys() {
    let server = Server::shared();
    let mut client = open_v2(&server);
    join(&mut client, "room:pdk");

    for sent in [r#"{"a":1,"a":2}"#, r#"{"a":1,"b":2,"a":{"c":1}}"#] {
        client.send_text(&format!(r#"["1","2","room:pdk","echo",{sent}]"#));
        let reply = client.next_text();

        let fields: Vec<&RawValue> = serde_json::from_str(&reply).expect("a V2 message");
        let payload: BTreeMap<String, &RawValue> = serde_json::from_str(fields[4].get()).expect("a reply's payload");
        assert_eq!(payload["response"].get(), sent, "the payload byte for byte");
        assert_eq!(payload["status"].get(), r#""ok""#);
    }
}

#[test]
fn payload_key_order_large() {
    check_as_recorded("payload_key_order_large");
}

#[test]
fn presence_meta_edge() {
    let server = Server::shared();
    let mut client = open_v2(&server);
    join(&mut client, "room:pr14");

    client.send_text(
        r#"["1","p1","room:pr14","presence_track",{"key":"ann","meta":{"phx_ref":"mine","nested":{"a":[1,null]},"s":"é"}}]"#,
    );
    let texts: Vec<String> = (0..3).map(|_| client.next_text()).collect();

    let payload_of = |event: &str| {
        let text = texts.iter().find(|text| text.contains(event)).unwrap_or_else(|| panic!("no {event} in {texts:?}"));
        assert!(!text.contains("mine"), "the user's phx_ref is dropped: {text}");
        assert!(text.matches(r#""phx_ref""#).count() <= 1, "phx_ref appears once: {text}");
        serde_json::from_str::<Value>(text).expect("a V2 message")[4].clone()
    };
    let mut meta = payload_of("presence_diff")["joins"]["ann"]["metas"][0].clone();
    assert_eq!(payload_of("presence_state")["ann"]["metas"], json!([meta]), "the state has the diff's meta");
    assert_eq!(payload_of("phx_reply"), json!({"response": {}, "status": "ok"}));
    let phx_ref = meta.as_object_mut().expect("a meta is an object").remove("phx_ref");
    assert!(phx_ref.is_some_and(|phx_ref| phx_ref.as_str().is_some_and(|text| !text.is_empty())), "our phx_ref stays");
    assert_eq!(meta, json!({"nested": {"a": [1, null]}, "s": "é"}));
}

#[test]
fn topic_map_join() {
    check_as_recorded("topic_map_join");
}

#[test]
fn binary_push_non_utf8_topic() {
    check_as_recorded("binary_push_non_utf8_topic");
}

#[test]
fn binary_ref_types() {
    let server = Server::shared();
    let mut client = open_v2(&server);
    join(&mut client, "room:brt");
    let push = |sent: &str| format!(r#"["1",{sent},"room:brt","binary_reply",{{"data":"x"}}]"#);

    for (sent, text) in [
        ("1.5", "1.5"),
        ("true", "true"),
        (r#""""#, ""),
        ("1e3", "1.0e3"),
        ("12345678901234567890", "12345678901234567890"),
    ] {
        client.send_text(&push(sent));
        let reply = client.next();

        let mut frame = vec![1, 1, text.len() as u8, 8, 2, b'1'];
        frame.extend(format!("{text}room:brtokx").into_bytes());
        assert_eq!(reply.base64.map(|base64| from_base64(&base64)), Some(frame), "a ref of {sent}");
    }
    for sent in ["[65,66]", r#"{"a":1}"#] {
        client.exchange(&push(sent), r#"["1","1","room:brt","phx_error",{"reason":"channel_crash"}]"#);
        join(&mut client, "room:brt");
    }
}

#[test]
fn binary_broadcast_v1_subscriber() {
    let server = Server::shared();
    let mut sender = open_v2(&server);
    let mut subscriber = open_v2(&server);
    let mut old_subscriber = Client::open(server.address(), "/socket/websocket", "vsn=1.0.0");
    join(&mut sender, "room:bi9");
    join(&mut subscriber, "room:bi9");
    old_subscriber.exchange(
        r#"{"topic":"room:bi9","event":"phx_join","payload":{},"ref":"1"}"#,
        r#"{"topic":"room:bi9","event":"phx_reply","ref":"1","payload":{"response":{"echo_params":{},"room":"room:bi9"},"status":"ok"}}"#,
    );

    // The recording's push: event binary_broadcast with the bytes 1 and 2, ref "2".
    sender.send_binary(&from_base64("AAEBCBAxMnJvb206Ymk5YmluYXJ5X2Jyb2FkY2FzdAEC"));

    let broadcast = [&[2, 8, 9][..], b"room:bi9bin_shout", &[1, 2]].concat();
    for client in [&mut sender, &mut subscriber] {
        let event = client.next();
        assert_eq!(event.base64.as_deref().map(from_base64), Some(broadcast.clone()), "{event:?}");
    }
    sender.expect_json(r#"["1","2","room:bi9","phx_reply",{"response":{},"status":"ok"}]"#);
    sender.exchange(HEARTBEAT, HEARTBEAT_REPLY);
    old_subscriber.expect_quiet(AT_ONCE);
    old_subscriber.exchange(
        r#"{"topic":"room:bi9","event":"echo","payload":{"alive":1},"ref":"2"}"#,
        r#"{"topic":"room:bi9","event":"phx_reply","ref":"2","payload":{"response":{"alive":1},"status":"ok"}}"#,
    );
}

#[test]
fn lp_binary_reply_non_utf8() {
    let server = Server::shared();
    let poll = Poll::start(&server, "2.0.0");
    assert_eq!(poll.post(r#"["1","1","room:lpb4","phx_join",{"lp":1}]"#)["status"], 200);
    assert_eq!(poll.messages().len(), 1, "the join's reply");

    // The recording's push: event binary with the bytes ff fe, which the reply has in reverse.
    assert_eq!(poll.post("AAEBCQYxMnJvb206bHBiNGJpbmFyef/+")["status"], 200);

    let reply = json!(["1", "2", "room:lpb4", "phx_reply", {"response": {"base64": "/v8="}, "status": "ok"}]);
    assert_eq!(poll.messages(), [reply]);
    assert_eq!(poll.post(HEARTBEAT)["status"], 200);
    let heartbeat_reply: Value = serde_json::from_str(HEARTBEAT_REPLY).expect("JSON");
    assert_eq!(poll.messages(), [heartbeat_reply]);
}

#[test]
fn lp_malformed() {
    check_malformed_post("[garbage");
}

#[test]
fn lp_malformed_arity() {
    check_malformed_post(r#"[null,"1","phoenix"]"#);
}

/// A malformed message is told at once, and ends its session alone.
fn check_malformed_post(body: &str) {
    let server = Server::shared();
    let poll = Poll::start(&server, "2.0.0");
    let other = Poll::start(&server, "2.0.0");

    let sent = Instant::now();
    let answer = poll.post(body);
    let took = sent.elapsed();

    assert_eq!(answer, json!({"status": 408}));
    assert!(took < AT_ONCE, "the answer took {took:?}");
    assert_eq!(poll.post(HEARTBEAT), json!({"status": 410}));
    let renewed = poll.get();
    assert_eq!(renewed["status"], 410, "{renewed}");
    assert!(renewed["token"].as_str().is_some_and(|token| token != poll.token), "a new session: {renewed}");
    assert_eq!(other.post(HEARTBEAT), json!({"status": 200}));
}

#[test]
fn lp_v1_ndjson() {
    let server = Server::shared();
    let poll = Poll::start(&server, "1.0.0");

    let answer = poll.post(r#"{"topic":"phoenix","event":"heartbeat","payload":{},"ref":"1"}"#);

    assert_eq!(answer, json!({"status": 200}));
    let reply =
        json!({"topic": "phoenix", "event": "phx_reply", "ref": "1", "payload": {"response": {}, "status": "ok"}});
    assert_eq!(poll.messages(), [reply]);
}

#[test]
fn auth_base64_variants() {
    let server = Server::shared();
    let connect = |token: &str| {
        let subprotocols = ["phoenix".to_owned(), format!("base64url.bearer.phx.{token}")];
        let handshake = Handshake {
            path: "/auth_socket/websocket",
            qs: V2,
            subprotocols: Some(&subprotocols),
            ..Handshake::default()
        };
        let mut client = Client::connect(server.address(), &handshake, &[], true);
        assert!(client.await_answer(client::TIMEOUT), "token {token:?}");
        client
    };

    assert_eq!(connect("-_-_").answer().status, Some(403), "the URL-safe alphabet is refused");
    // Phoenix hands any bytes to connect, then crashes where it writes them as JSON.
    assert_eq!(connect("+/+/").answer().status, Some(403), "bytes that are no text are refused");
    for (token, decoded) in [("fn5+Pz8/", "~~~???"), ("dDE=", "t1"), ("dDE", "t1"), ("", "")] {
        let mut client = connect(token);
        assert_eq!(client.answer().status, Some(101), "token {token:?}");
        client.send_text(r#"["1","1","info:x","phx_join",{}]"#);
        let reply: Value = serde_json::from_str(&client.next_text()).expect("a V2 message");
        assert_eq!(reply[4]["response"]["auth_token"], decoded, "token {token:?}: {reply}");
    }
}

fn from_base64(text: impl AsRef<str>) -> Vec<u8> {
    use base64::Engine as _;

    base64::engine::general_purpose::STANDARD.decode(text.as_ref()).expect("standard base64")
}
