//! What clients see when the server is told to end: the recording `server_shutdown`, played with a server of the test's own.

use std::sync::mpsc;
use std::time::Duration;

use crate::reference::Server;
use crate::transcripts::client::{self, Client, Handshake};
use crate::transcripts::http;

/// Bounds the whole shutdown: Phoenix needs ten seconds for a socket without channels, which ours must not.
const EXIT_MAX: Duration = Duration::from_secs(5);

/// Bounds the wait for any answer to a request.
const ANSWER_MAX: Duration = Duration::from_secs(5);

/// Bounds what a second signal leaves to do.
const SECOND_SIGNAL_EXIT_MAX: Duration = Duration::from_millis(300);

fn get(server: &Server, path: &str, qs: &str) -> Result<http::Answer, http::Failed> {
    request(server, "GET", path, qs, None)
}

fn post(server: &Server, path: &str, qs: &str, line: &str) -> Result<http::Answer, http::Failed> {
    request(server, "POST", path, qs, Some(line))
}

fn request(
    server: &Server,
    method: &str,
    path: &str,
    qs: &str,
    line: Option<&str>,
) -> Result<http::Answer, http::Failed> {
    let headers = [("Content-Type".to_owned(), "application/x-ndjson".to_owned())];
    let request = http::Request {
        method,
        path,
        qs: Some(qs),
        headers: if line.is_some() { &headers } else { &[] },
        body: line.map(str::as_bytes),
        timeout: ANSWER_MAX,
    };
    http::send(server.address(), &request)
}

/// A client in a room that doesn't answer the server's close frame.
fn open_unanswering(server: &Server) -> Client {
    let handshake = Handshake { path: "/socket/websocket", qs: "vsn=2.0.0", ..Handshake::default() };
    let mut client = Client::connect(server.address(), &handshake, &[], false);
    assert!(client.await_answer(client::TIMEOUT));
    join(&mut client, "1", "room:sd");
    client
}

fn join(client: &mut Client, reference: &str, topic: &str) {
    client.exchange(
        &format!(r#"["{reference}","{reference}","{topic}","phx_join",{{}}]"#),
        &format!(
            r#"["{reference}","{reference}","{topic}","phx_reply",{{"response":{{"echo_params":{{}},"room":"{topic}"}},"status":"ok"}}]"#
        ),
    );
}

/// Takes the next frame, which has to be a close with 1012 (service restart): the stock client comes back after it.
#[track_caller]
fn expect_restart(client: &mut Client) {
    let event = client.next();
    assert_eq!((event.kind.as_str(), event.code), ("close", Some(1012)), "{event:?}");
}

#[test]
fn server_shutdown() {
    let mut server = Server::own();
    let mut joined = Client::open(server.address(), "/socket/websocket", "vsn=2.0.0");
    join(&mut joined, "1", "room:sd");
    join(&mut joined, "2", "room:sd2");
    let mut unjoined = Client::open(server.address(), "/socket/websocket", "vsn=2.0.0");
    let mut old = Client::open(server.address(), "/socket/websocket", "vsn=1.0.0");
    old.exchange(
        r#"{"topic":"room:sd","event":"phx_join","payload":{},"ref":"1"}"#,
        r#"{"topic":"room:sd","event":"phx_reply","ref":"1","payload":{"response":{"echo_params":{},"room":"room:sd"},"status":"ok"}}"#,
    );
    let mut unanswering = open_unanswering(&server);

    let opened = get(&server, "/socket/longpoll", "vsn=2.0.0").expect("a long-poll session");
    let opened: serde_json::Value = serde_json::from_slice(&opened.body).expect("JSON");
    let qs = format!("vsn=2.0.0&token={}", opened["token"].as_str().expect("a token"));
    let sent = post(&server, "/socket/longpoll", &qs, r#"["1","1","room:sd","phx_join",{}]"#).expect("an answer");
    assert_eq!(sent.body, br#"{"status":200}"#);
    let before = get(&server, "/socket/longpoll", &qs).expect("an answer");
    assert!(String::from_utf8_lossy(&before.body).contains("phx_reply"), "the join's reply: {before:?}");
    let (done, polled) = mpsc::channel();
    std::thread::scope(|scope| {
        let server = &server;
        scope.spawn(move || done.send(get(server, "/socket/longpoll", &qs)));
        let early = polled.recv_timeout(Duration::from_millis(300));
        assert!(early.is_err(), "the poll waits until there is something: {early:?}");

        server.terminate();

        for client in [&mut joined, &mut unjoined, &mut old, &mut unanswering] {
            expect_restart(client);
        }
        let answer = polled.recv_timeout(EXIT_MAX).expect("the poll ends").expect("the waiting poll is answered");
        let body: serde_json::Value = serde_json::from_slice(&answer.body).expect("JSON");
        assert_eq!(answer.status, 200, "{body}");
        assert!(body["status"] == 204 || body["status"] == 410, "{body}");
    });
    for client in [&joined, &unjoined, &old, &unanswering] {
        assert!(client.await_closed(EXIT_MAX));
    }
    let status = server.exited_within(EXIT_MAX).expect("the process ends");
    assert_eq!(status.code(), Some(0), "{status}");
}

#[test]
fn readiness_turns_off_while_the_server_drains() {
    let mut server = Server::own();
    assert_eq!(get(&server, "/readyz", "").expect("an answer").status, 200);
    assert_eq!(get(&server, "/livez", "").expect("an answer").status, 200);
    let mut client = open_unanswering(&server);

    server.terminate();
    expect_restart(&mut client);

    // The listener may be gone by now, or go at any time: then there is no answer, which tells a balancer the same.
    while server.exited_within(Duration::ZERO).is_none() {
        if let Ok(answer) = get(&server, "/readyz", "") {
            assert_eq!(answer.status, 503);
        }
        if let Ok(answer) = get(&server, "/livez", "") {
            assert_eq!(answer.status, 200);
        }
        std::thread::sleep(Duration::from_millis(5));
    }
}

#[test]
fn a_second_signal_ends_the_process_at_once() {
    let mut server = Server::own();
    let mut client = open_unanswering(&server);

    server.terminate();
    expect_restart(&mut client);
    server.terminate();

    assert!(server.exited_within(SECOND_SIGNAL_EXIT_MAX).is_some());
}
