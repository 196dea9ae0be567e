//! Floods: much of what is allowed, at once. It is answered as its limit says, and others are served meanwhile.

use std::net::TcpStream;
use std::time::Duration;

use bennu::protocol::limits::ORPHAN_HANDLERS_MAX;
use bennu::protocol::limits::{CHANNEL_WAITING_MAX, CHANNELS_PER_SOCKET_MAX, LONGPOLL_BATCH_MESSAGES_MAX};
use serde_json::{Value, json};

use super::{post_head, raw};
use crate::lab::{Counted, Lab, Peer, Poll, until, until_read};
use crate::transcripts::frames::{FrameBits, encode_frame, text_frame};

const CONTINUATION: u8 = 0;
const TEXT: u8 = 1;
const PING: u8 = 9;

/// Longer than an answer takes that would come at once.
const QUIET: Duration = Duration::from_millis(150);

/// How many answers are read before the neighbour has its turn.
const TURN: usize = 500;

/// Sends a flood; while its `answers` are read one by one, a neighbour gets an answer after every [`TURN`].
fn flood(lab: &Lab, peer: &mut Peer, bytes: &[u8], answers: usize, mut read: impl FnMut(&mut Peer, usize)) {
    let counted = Counted::slow_consumers();
    let mut neighbour = lab.joined("probe:neighbour");
    let stream = peer.stream().try_clone().expect("a second handle to the stream");
    std::thread::scope(|scope| {
        let writer = scope.spawn(|| std::io::Write::write_all(&mut &stream, bytes));
        for n in 0..answers {
            read(peer, n);
            if n % TURN == 0 {
                neighbour.exchange("probe:neighbour", "echo", json!({"n": n}));
            }
        }
        writer.join().expect("the writer does not panic").expect("the server reads all of it");
    });
    assert_eq!(counted.growth(), 0, "who reads is not cut");
    peer.heartbeat();
}

#[test]
fn of_a_flood_of_joins_a_hundred_are_taken_and_the_rest_refused() {
    const JOINS: usize = 20_000;
    let lab = Lab::new();
    let mut peer = lab.open();
    let joins: Vec<u8> =
        (0..JOINS).flat_map(|n| text_frame(&peer.text(&format!("probe:{n}"), "phx_join", json!({})))).collect();

    flood(&lab, &mut peer, &joins, JOINS, |peer, n| {
        let reply = peer.message();
        assert_eq!(reply.reference, json!(n + 1));
        let expected = if n < CHANNELS_PER_SOCKET_MAX {
            json!({"status": "ok", "response": {}})
        } else {
            json!({"status": "error", "response": {"reason": "too many channels joined"}})
        };
        assert_eq!(reply.payload, expected, "join {n}");
    });

    until("the neighbour's topic has gone", || lab.held().topics == CHANNELS_PER_SOCKET_MAX);
    drop(peer);
    until("all topics have gone", || lab.held().topics == 0 && lab.held().sockets == 0);
}

#[test]
fn a_flood_of_joins_of_one_topic_leaves_one_channel() {
    const JOINS: usize = 10_000;
    let lab = Lab::new();
    let mut peer = lab.joined("probe:a");
    let first = peer.send("probe:a", "track", json!({"key": "me", "meta": {}}));
    assert_eq!((peer.message().event, peer.message().event), ("presence_diff".to_owned(), "phx_reply".to_owned()));
    let joins: Vec<u8> = (0..JOINS).flat_map(|_| text_frame(&peer.text("probe:a", "phx_join", json!({})))).collect();

    flood(&lab, &mut peer, &joins, JOINS, |peer, n| {
        let (reply, close) = (peer.message(), peer.message());
        assert_eq!((reply.event.as_str(), &reply.reference), ("phx_reply", &json!(first + 1 + n as u64)));
        let replaced = if n == 0 { 1 } else { first + n as u64 };
        assert_eq!((close.event.as_str(), close.join_ref), ("phx_close", json!(replaced)));
    });

    assert_eq!(lab.world.ended("probe:a").len(), JOINS, "all but the last have run terminate");
    until("one subscription is left", || lab.held().topics == 1);
    lab.broadcast("probe:a", "shout", json!({"n": 1}));
    peer.expect(&[r#"probe:a shout {"n":1}"#]);
    peer.heartbeat();
    assert_eq!(lab.endpoint.presences("probe:a").as_bytes(), b"{}");
}

#[test]
fn a_flood_of_heartbeats_is_answered_in_order() {
    const HEARTBEATS: usize = 100_000;
    let lab = Lab::new();
    let mut peer = lab.open();
    let heartbeats: Vec<u8> =
        (0..HEARTBEATS).flat_map(|_| text_frame(&peer.text("phoenix", "heartbeat", json!({})))).collect();

    flood(&lab, &mut peer, &heartbeats, HEARTBEATS, |peer, n| {
        let reply = peer.next();
        let text = reply.raw.expect("a message");
        assert!(text.starts_with(&format!("[null,{},\"phoenix\",\"phx_reply\"", n + 1)), "{text}");
    });
}

#[test]
fn a_flood_of_pings_is_answered_in_order() {
    const PINGS: usize = 200_000;
    let lab = Lab::new();
    let mut peer = lab.open();
    let pings: Vec<u8> =
        (0..PINGS).flat_map(|n| encode_frame(PING, &(n as u32).to_be_bytes(), FrameBits::default())).collect();

    flood(&lab, &mut peer, &pings, PINGS, |peer, n| {
        let pong = peer.next();
        let data = base64::Engine::encode(&base64::prelude::BASE64_STANDARD, (n as u32).to_be_bytes());
        assert_eq!((pong.kind.as_str(), pong.base64), ("pong", Some(data)));
    });
}

#[test]
fn a_message_in_tiny_fragments_is_one_message() {
    let lab = Lab::new();
    let mut peer = lab.joined("probe:a");
    let fill = "x".repeat(200_000);
    let text = peer.text("probe:a", "echo", json!({"n": 7, "fill": fill}));
    let fragment =
        |opcode, payload: &[u8], fin| encode_frame(opcode, payload, FrameBits { fin, ..FrameBits::default() });
    let mut bytes = fragment(TEXT, b"", false);
    for (n, byte) in text.bytes().enumerate() {
        bytes.extend(fragment(CONTINUATION, &[byte], false));
        if n % 100 == 0 {
            bytes.extend(fragment(CONTINUATION, b"", false));
            bytes.extend(fragment(PING, b"", true));
        }
    }
    bytes.extend(fragment(CONTINUATION, b"", true));
    let pings = text.len().div_ceil(100);

    flood(&lab, &mut peer, &bytes, pings + 1, |peer, n| {
        if n < pings {
            assert_eq!(peer.next().kind, "pong");
        } else {
            let reply = peer.message();
            assert_eq!((reply.n_replied(), &reply.payload["response"]["fill"]), (7, &json!(fill)));
        }
    });
}

#[test]
fn joins_behind_one_that_waits_are_read_up_to_a_limit() {
    let lab = Lab::new();
    let mut neighbour = lab.joined("probe:b");
    let mut peer = lab.open();
    for _ in 0..=CHANNEL_WAITING_MAX {
        peer.send("probe:a", "phx_join", json!({"gate": "g"}));
    }
    lab.world.wait_reached("g");
    let heartbeat = peer.send("phoenix", "heartbeat", json!({}));
    for _ in 0..1_000 {
        peer.send("probe:a", "phx_join", json!({"gate": "g"}));
    }

    peer.expect_quiet(QUIET);
    neighbour.heartbeat();
    lab.world.gate("g").open();

    let joined = (0..).map(|_| peer.next()).inspect(|event| assert_eq!(event.kind, "text"));
    let texts: Vec<String> = joined
        .filter_map(|event| event.raw)
        .filter(|text| text.contains("phx_reply"))
        .take(CHANNEL_WAITING_MAX + 1_002)
        .collect();
    let at = texts.iter().position(|text| text.contains("phoenix")).expect("the heartbeat is answered");
    assert!(at > 0 && texts[at].contains(&heartbeat.to_string()), "behind the joins that were read before it");
    assert_eq!(lab.world.wait_ended("probe:a", CHANNEL_WAITING_MAX + 1_000).len(), CHANNEL_WAITING_MAX + 1_000);
}

#[test]
fn handlers_that_run_on_behind_a_flood_of_joins_are_bounded_in_number() {
    const ROUNDS: usize = 300;
    const CHANNELS_MAX: usize = 2;
    const RUNNING_MAX: usize = CHANNELS_MAX + ORPHAN_HANDLERS_MAX;
    let lab = Lab::with_socket(|options| options.channels_max = CHANNELS_MAX);
    let mut neighbour = lab.joined("probe:b");
    let mut peer = lab.joined("probe:a");
    let mut bytes = Vec::new();
    for _ in 0..ROUNDS {
        bytes.extend(text_frame(&peer.text("probe:a", "hold", json!({"gate": "g"}))));
        bytes.extend(text_frame(&peer.text("probe:a", "phx_join", json!({}))));
    }

    peer.write(&bytes);
    until("as many handlers run as may", || lab.world.reached("g") == RUNNING_MAX);
    for _ in 1..RUNNING_MAX {
        assert_eq!((peer.message().event, peer.message().event), ("phx_reply".to_owned(), "phx_close".to_owned()));
    }
    peer.expect_quiet(QUIET);
    assert_eq!(lab.world.reached("g"), RUNNING_MAX, "and it is not read until there are fewer");
    neighbour.heartbeat();
    lab.world.gate("g").open();

    assert_eq!(lab.world.wait_ended("probe:a", ROUNDS).len(), ROUNDS);
    assert_eq!(lab.world.reached("g"), ROUNDS);
    loop {
        let message = peer.message();
        if message.event == "phx_reply" && message.reference == json!(peer.last_ref()) {
            break;
        }
    }
}

#[test]
fn a_flood_of_longpoll_sessions_ends_at_their_limit_and_leaves_nothing() {
    const SESSIONS_MAX: usize = 20;
    let lab = Lab::with(
        |options| options.longpoll_sessions_max = SESSIONS_MAX,
        |options| {
            options.longpoll.get_or_insert_default().window_ms = 1_000;
        },
    );
    let refused = Counted::refused_connections();
    let tasks = lab.tasks();
    let mut neighbour = lab.joined("probe:b");
    let mut peer = raw(&lab);
    let request = b"GET /socket/longpoll?vsn=2.0.0 HTTP/1.1\r\nHost: localhost\r\n\r\n";

    let mut statuses = Vec::new();
    for _ in 0..500 {
        peer.write(request);
        statuses.push(peer.next().status.expect("an answer"));
        neighbour.heartbeat();
    }

    let begun = statuses.iter().filter(|status| **status == 200).count();
    assert_eq!(statuses[..SESSIONS_MAX], [200; SESSIONS_MAX]);
    assert_eq!(statuses[SESSIONS_MAX..SESSIONS_MAX + 100], [503; 100]);
    assert_eq!(refused.growth() as usize, 500 - begun);
    // Nobody polls them: they end after three windows at most.
    until("the sessions end", || lab.held().longpoll_sessions == 0);
    assert_eq!(lab.held().longpoll_tokens, 0);
    drop((peer, neighbour));
    until("nothing is left of them", || lab.tasks() == tasks && lab.held() == bennu::server::Held::default());
}

#[test]
fn a_flood_of_lines_costs_their_client_a_hundred_messages_a_post() {
    const POSTS: usize = 20;
    let lab = Lab::with_longpoll(|_| {});
    let mut neighbour = lab.joined("probe:b");
    let poll = Poll::joined(&lab, "probe:a");
    let lines: Vec<String> = (0..30_000).map(|n| json!(["1", n, "probe:a", "echo", {"n": n}]).to_string()).collect();
    let body = lines.join("\n");

    for _ in 0..POSTS {
        assert_eq!(poll.post(&body), json!({"status": 200}));
        neighbour.heartbeat();
        let refs: Vec<Value> =
            poll.take(LONGPOLL_BATCH_MESSAGES_MAX).iter().map(|message| message[1].clone()).collect();
        assert_eq!(refs, (0..LONGPOLL_BATCH_MESSAGES_MAX).map(Value::from).collect::<Vec<_>>());
    }
    // Empty lines are messages too, and no JSON: the first ends the session, and only that.
    assert_eq!(poll.try_post(&"\n".repeat(1_000_000)), (200, r#"{"status":408}"#.to_owned()));
    neighbour.heartbeat();
}

#[test]
fn of_a_flood_of_polls_the_last_one_gets_what_comes() {
    const POLLS: usize = 40;
    let lab = Lab::with_longpoll(|longpoll| longpoll.window_ms = 1_500);
    let poll = Poll::joined(&lab, "probe:a");
    let mut polling: Vec<Peer> =
        (0..POLLS).map(|_| Peer::raw(TcpStream::connect(lab.address()).expect("the kernel accepts"))).collect();

    for peer in &polling {
        peer.write(format!("GET {} HTTP/1.1\r\nHost: localhost\r\n\r\n", poll.target).as_bytes());
        until_read(peer.stream());
    }
    // A POST is handled behind the polls that were taken before it.
    let shout = r#"["1","2","probe:a","shout",{"n":1}]"#;
    let post = format!("{}Content-Length: {}\r\n\r\n{shout}", post_head(&poll.target), shout.len());
    let mut posting = raw(&lab);
    posting.write(post.as_bytes());
    assert_eq!(posting.next().status, Some(200));

    let answers: Vec<Value> = polling
        .iter_mut()
        .map(|peer| serde_json::from_str(&peer.next().body.expect("an answer has a body")).expect("JSON"))
        .collect();
    let got: Vec<&Value> = answers
        .iter()
        .filter(|answer| answer["status"] == 200)
        .flat_map(|answer| answer["messages"].as_array().unwrap())
        .collect();
    assert_eq!(got.len(), 2, "the broadcast and the reply came once: {got:?}");
    assert!(answers.iter().all(|answer| answer["status"] == 200 || answer["status"] == 204), "{answers:?}");
    assert_eq!(answers[POLLS - 1]["status"], 200, "to the last one");
}
