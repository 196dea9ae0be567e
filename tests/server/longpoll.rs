//! The limits and the end of long-poll sessions.

use std::io::{Read, Write};
use std::net::TcpStream;

use bennu::channel::{LongPollOptions, Reason};
use bennu::{Endpoint, Server};
use serde_json::{Value, json};

use crate::lab::{Counted, DEADLINE, Lab, Poll, until};
use crate::transcripts::http;

fn heartbeat(n: usize) -> String {
    json!([null, n, "phoenix", "heartbeat", {}]).to_string()
}

#[test]
fn a_batch_is_read_as_far_as_its_limit() {
    let lab = Lab::with_longpoll(|_| {});
    let poll = Poll::start(&lab);
    let batch: Vec<String> = (1..=101).map(heartbeat).collect();

    assert_eq!(poll.post(&batch.join("\n")), json!({"status": 200}));

    let answered: Vec<Value> = poll.messages().iter().map(|message| message[1].clone()).collect();
    assert_eq!(answered, (1..=100).map(Value::from).collect::<Vec<_>>());
    assert_eq!(poll.post(&heartbeat(102)), json!({"status": 200}));
    assert_eq!(poll.messages()[0][1], 102, "the session goes on behind the batch");
}

#[test]
fn a_body_beyond_the_limit_is_refused_and_the_session_goes_on() {
    let lab = Lab::with_longpoll(|longpoll| longpoll.body_bytes_max = 1_000);
    let poll = Poll::joined(&lab, "probe:a");
    let body = |bytes: usize| {
        let rest = json!(["1", "2", "probe:a", "echo", {"fill": ""}]).to_string().len();
        json!(["1", "2", "probe:a", "echo", {"fill": "x".repeat(bytes - rest)}]).to_string()
    };

    assert_eq!(poll.try_post(&body(1_001)).0, 400);
    assert_eq!(poll.try_post(&body(200_000)).0, 400);
    assert_eq!(poll.post(&body(1_000)), json!({"status": 200}));

    assert_eq!(poll.messages().len(), 1);
}

#[test]
fn a_session_that_is_not_polled_ends_when_its_buffer_is_full() {
    let counted = Counted::slow_consumers();
    let lab = Lab::with_longpoll(|longpoll| longpoll.buffer_bytes_max = 64 * 1024);
    let poll = Poll::joined(&lab, "probe:a");
    let mut other = lab.joined("probe:a");

    let fill = "x".repeat(1_000);
    for n in 0..200 {
        lab.broadcast("probe:a", "shout", json!({"n": n, "fill": fill}));
        assert_eq!(other.message().n(), n);
    }

    assert_eq!(lab.world.wait_ended("probe:a", 1)[0].reason, Reason::SocketClosed);
    until("the session is gone", || poll.post(&heartbeat(1)) == json!({"status": 410}));
    let renewed = poll.get();
    assert_eq!((&renewed["status"], renewed["token"].is_string()), (&json!(410), true), "{renewed}");
    assert_eq!(counted.growth(), 1);
    other.heartbeat();
}

#[test]
fn sessions_beyond_the_limit_are_refused_until_one_ends() {
    let lab = Lab::with(
        |options| options.longpoll_sessions_max = 2,
        |options| options.longpoll = Some(LongPollOptions::default()),
    );
    let first = Poll::joined(&lab, "probe:a");
    let second = Poll::start(&lab);

    assert_eq!(Poll::try_start(&lab).0, 503);
    assert_eq!(second.post("[malformed"), json!({"status": 408}));

    until("a place is free again", || Poll::try_start(&lab).0 == 200);
    assert_eq!(first.post(&heartbeat(1)), json!({"status": 200}));
}

#[test]
fn an_address_has_its_own_limit_on_sessions() {
    let lab = Lab::with(
        |options| options.admission.connections_per_ip_max = 2,
        |options| options.longpoll = Some(LongPollOptions::default()),
    );
    let first = Poll::joined(&lab, "probe:a");
    let second = Poll::start(&lab);

    until("the connections of these requests have ended", || Poll::try_start(&lab).0 == 503);
    assert_eq!(second.post("[malformed"), json!({"status": 408}));

    until("a place is free again", || Poll::try_start(&lab).0 == 200);
    assert_eq!(first.post(&heartbeat(1)), json!({"status": 200}));
}

#[test]
fn a_body_that_does_not_come_in_time_is_refused_and_the_session_goes_on() {
    let lab = Lab::with(
        |options| options.longpoll_body_timeout_ms = 100,
        |options| options.longpoll = Some(LongPollOptions::default()),
    );
    let poll = Poll::start(&lab);
    let mut stream = TcpStream::connect(lab.address()).expect("the kernel accepts");
    stream.set_read_timeout(Some(DEADLINE)).expect("a timeout above zero is allowed");

    let head = format!("POST {} HTTP/1.1\r\nHost: localhost\r\nContent-Length: 100\r\n\r\n[", poll.target);
    stream.write_all(head.as_bytes()).expect("the server reads");
    let mut answer = [0; 12];
    stream.read_exact(&mut answer).expect("an answer");

    assert_eq!(&answer, b"HTTP/1.1 400");
    assert_eq!(poll.post(&heartbeat(1)), json!({"status": 200}));
}

#[test]
fn answers_that_are_not_polled_hold_further_messages_back_and_end_nothing() {
    let lab = Lab::with_longpoll(|longpoll| {
        longpoll.window_ms = 500;
        longpoll.buffer_bytes_max = 256 * 1024;
    });
    let poll = Poll::joined(&lab, "probe:a");
    let fill = "x".repeat(10_000);
    let echo = |n: usize| json!(["1", n, "probe:a", "echo", {"n": n, "fill": fill}]).to_string();

    // Answered all at once these are four times the buffer.
    let batch: Vec<String> = (0..100).map(echo).collect();
    assert_eq!(poll.post(&batch.join("\n")), json!({"status": 408}), "it is not handled within the window");

    let mut answered = Vec::new();
    while answered.len() < 100 {
        let messages = poll.messages();
        assert!(messages.len() <= 8, "{} messages of 10 000 bytes waited", messages.len());
        answered.extend(messages.iter().map(|message| message[1].clone()));
    }
    assert_eq!(answered, (0..100).map(Value::from).collect::<Vec<_>>());
    assert_eq!(poll.post(&heartbeat(1)), json!({"status": 200}));
}

#[test]
fn a_post_for_a_channel_that_stays_busy_is_answered_at_the_windows_end_and_handled_later() {
    let lab = Lab::with_longpoll(|longpoll| longpoll.window_ms = 400);
    let poll = Poll::joined(&lab, "probe:a");
    let echo = |n: usize| json!(["1", n, "probe:a", "echo", {"n": n}]).to_string();
    assert_eq!(poll.post(r#"["1","2","probe:a","hold",{"gate":"g"}]"#), json!({"status": 200}));

    let batch: Vec<String> = (3..103).map(echo).collect();
    assert_eq!(poll.post(&batch.join("\n")), json!({"status": 408}));
    assert_eq!(poll.get()["status"], 204, "the session goes on");
    lab.world.gate("g").open();
    assert_eq!(poll.post(&echo(103)), json!({"status": 200}));

    let mut answered = Vec::new();
    while answered.len() < 102 {
        answered.extend(poll.messages().iter().map(|message| message[1].clone()));
    }
    assert_eq!(answered[1..], (3..104).map(Value::from).collect::<Vec<_>>());
}

#[test]
fn a_token_is_of_no_use_at_another_socket() {
    let runtime = bennu::server::runtime(1).expect("a runtime starts");
    let guard = runtime.enter();
    let endpoint = Endpoint::start();
    let socket = |path| endpoint.socket(path).options(|options| options.longpoll = Some(LongPollOptions::default()));
    let server = Server::new(&endpoint).socket(socket("/one")).socket(socket("/two"));
    let running = server.listen(([127, 0, 0, 1], 0)).expect("a free port of 127.0.0.1");
    drop(guard);
    let request = |method, path, qs: &str, body: Option<&str>| {
        let body = body.map(str::as_bytes);
        let request = http::Request { method, path, qs: Some(qs), headers: &[], body, timeout: DEADLINE };
        let answer = http::send(running.address(), &request).expect("an answer");
        serde_json::from_slice::<Value>(&answer.body).expect("JSON")
    };
    let begun = request("GET", "/one/longpoll", "vsn=2.0.0", None);
    let qs = format!("vsn=2.0.0&token={}", begun["token"].as_str().expect("a token"));

    assert_eq!(request("POST", "/two/longpoll", &qs, Some(&heartbeat(1))), json!({"status": 410}));
    let other = request("GET", "/two/longpoll", &qs, None);
    assert_eq!(other["status"], 410, "a session of its own: {other}");
    assert_ne!(other["token"], begun["token"]);
    assert_eq!(request("POST", "/one/longpoll", &qs, Some(&heartbeat(1))), json!({"status": 200}));
}

#[test]
fn a_malformed_message_ends_its_session_alone_after_the_messages_before_it() {
    let lab = Lab::with_longpoll(|_| {});
    let poll = Poll::joined(&lab, "probe:a");
    let other = Poll::joined(&lab, "probe:a");

    let shout = |n: usize| json!(["1", n, "probe:a", "shout", {"n": n}]).to_string();
    let answer = poll.post(&[shout(1).as_str(), "[", shout(2).as_str()].join("\n"));

    assert_eq!(answer, json!({"status": 408}));
    let ended = lab.world.wait_ended("probe:a", 1);
    assert_eq!((&ended[0].reason, ended[0].handled), (&Reason::SocketClosed, 1));
    assert_eq!(other.messages(), [json!([null, null, "probe:a", "shout", {"n": 1}])]);
    assert_eq!(other.post(&shout(3)), json!({"status": 200}));
    assert_eq!(other.messages()[0][4], json!({"n": 3}));
}

#[test]
fn a_session_that_nobody_polls_ends_and_its_presences_leave() {
    let lab = Lab::with_longpoll(|longpoll| longpoll.window_ms = 50);
    let mut watcher = lab.joined("probe:a");
    let poll = Poll::joined(&lab, "probe:a");
    poll.post(r#"["1","2","probe:a","track",{"key":"poller","meta":{}}]"#);
    assert!(watcher.message().payload["joins"]["poller"].is_object());

    let left = watcher.message();

    assert!(left.payload["leaves"]["poller"].is_object(), "{left:?}");
    assert_eq!(lab.world.wait_ended("probe:a", 1)[0].reason, Reason::SocketClosed);
    assert_eq!(poll.post(&heartbeat(1)), json!({"status": 410}));
}

#[test]
fn a_poll_that_waits_gets_a_broadcast_and_an_empty_one_gets_204() {
    let lab = Lab::with_longpoll(|longpoll| longpoll.window_ms = 300);
    let poll = Poll::joined(&lab, "probe:a");

    let empty = poll.get();
    assert_eq!((&empty["status"], &empty["messages"]), (&json!(204), &json!([])), "{empty}");
    std::thread::scope(|scope| {
        let polling = scope.spawn(|| {
            loop {
                let answer = poll.get();
                if answer["status"] != 204 {
                    return answer;
                }
            }
        });
        lab.broadcast("probe:a", "shout", json!({"n": 1}));
        let answer = polling.join().expect("the poll is answered");
        assert_eq!(answer["messages"], json!([r#"[null,null,"probe:a","shout",{"n":1}]"#]));
    });
}

#[test]
fn a_post_for_a_busy_channel_is_answered_once_it_is_taken() {
    let lab = Lab::with_longpoll(|_| {});
    let poll = Poll::joined(&lab, "probe:a");
    let echo = |n: usize| json!(["1", n, "probe:a", "echo", {"n": n}]).to_string();
    assert_eq!(poll.post(r#"["1","2","probe:a","hold",{"gate":"g"}]"#), json!({"status": 200}));

    // As many as may wait, and more.
    let batch: Vec<String> = (3..103).map(echo).collect();
    std::thread::scope(|scope| {
        let posting = scope.spawn(|| poll.post(&batch.join("\n")));
        lab.broadcast("probe:a", "shout", json!({"n": 0}));
        assert_eq!(poll.messages()[0][3], "shout", "polls are answered meanwhile");
        lab.world.gate("g").open();
        assert_eq!(posting.join().expect("the post is answered"), json!({"status": 200}));
    });

    let mut answered = Vec::new();
    while answered.len() < 101 {
        answered.extend(poll.messages().iter().map(|message| message[1].clone()));
    }
    assert_eq!(answered[0], "2");
    assert_eq!(answered[1..], (3..103).map(Value::from).collect::<Vec<_>>());
}

#[test]
fn a_disconnect_ends_a_session() {
    let lab = Lab::with_longpoll(|_| {});
    let poll = Poll::start_with(&lab, "vsn=2.0.0&user=ann");
    poll.post(r#"["1","1","probe:a","phx_join",{}]"#);

    lab.endpoint.disconnect("user:ann").expect("the hub has room");

    assert_eq!(lab.world.wait_ended("probe:a", 1)[0].reason, Reason::SocketClosed);
    assert_eq!(poll.post(&heartbeat(1)), json!({"status": 410}));
}
