//! What the server holds at most while clients flood it.

use crate::HEAP;
use crate::client::{CONTINUATION, Client, PING, TEXT, begin_longpoll, frame, head, post};
use crate::server::{Subject, until};

const KIB: usize = 1 << 10;

/// What belongs to no client: buffers of the server's threads, a shard's arena, the tests' own.
const FIXED_BYTES: usize = 2_048 * KIB;

/// Checks that no more is held while `flood` runs than [`FIXED_BYTES`] and as much as may be for each of `clients`, and
/// that nothing is left when the clients that it gives back are gone.
#[track_caller]
fn check(subject: &Subject, clients: usize, bytes_each: usize, flood: impl FnOnce(&Subject) -> Vec<Client>) {
    let before = subject.bytes_at_rest();
    HEAP.reset_peak_usage();

    let flooding = flood(subject);
    let grown = HEAP.peak_usage() - before;
    drop(flooding);
    let left = subject.bytes_at_rest().saturating_sub(before);

    println!("{clients} clients: {} KiB, {} KiB left", grown / KIB, left / KIB);
    let allowed = clients * bytes_each + FIXED_BYTES;
    assert!(grown <= allowed, "{} KiB for {clients} clients, {} KiB are allowed", grown / KIB, allowed / KIB);
    assert!(left <= FIXED_BYTES, "{} KiB are left", left / KIB);
}

/// Each of some clients does something at the same time.
fn each(count: usize, act: impl Fn(usize) -> Client + Sync) -> Vec<Client> {
    std::thread::scope(|scope| {
        let acting: Vec<_> = (0..count)
            .map(|n| {
                scope.spawn({
                    let act = &act;
                    move || act(n)
                })
            })
            .collect();
        acting.into_iter().map(|acting| acting.join().expect("a client does not panic")).collect()
    })
}

#[test]
fn pings_whose_pongs_are_not_read_hold_as_much_as_one_read_brings() {
    const CLIENTS: usize = 16;
    let subject = Subject::start(|_, _| {});
    let pings = frame(PING, true, &[7; 125]).repeat(500);

    // OUTBOX_BYTES_READ_PAUSE and what one more read of 64 KiB brings, in buffers that double.
    check(&subject, CLIENTS, 384 * KIB, |subject| {
        each(CLIENTS, |_| {
            let mut client = Client::connect_narrow(subject.address());
            client.say(head("", ""));
            client.hear("\r\n\r\n");
            client.say_until_stuck(&pings, 200 << 20);
            client
        })
    });
}

#[test]
fn fragments_without_an_end_hold_no_more_than_a_message_may_have() {
    const CLIENTS: usize = 16;
    const MESSAGE_BYTES_MAX: usize = 256 * KIB;
    let subject = Subject::start(|_, socket| socket.message_bytes_max = MESSAGE_BYTES_MAX);
    let fragments = frame(CONTINUATION, false, b" ").repeat(1_024);

    check(&subject, CLIENTS, 2 * MESSAGE_BYTES_MAX + 128 * KIB, |subject| {
        each(CLIENTS, |_| {
            let mut client = Client::open(subject.address());
            client.say(frame(TEXT, false, b""));
            for _ in 0..MESSAGE_BYTES_MAX / 1_024 {
                client.say(&fragments);
            }
            client.say(frame(PING, true, b"all of it"));
            client.hear("all of it");
            // Fragments without a byte are free.
            client.say(frame(CONTINUATION, false, b"").repeat(10_000));
            client.say(frame(PING, true, b"still there"));
            client.hear("still there");
            client.say(frame(CONTINUATION, false, b" "));
            client.hear("\u{3}");
            client
        })
    });
}

#[test]
fn a_flood_of_joins_holds_a_hundred_channels_a_client() {
    const CLIENTS: usize = 16;
    let subject = Subject::start(|_, _| {});

    // CHANNELS_PER_SOCKET_MAX of them; a joined topic costs less than a KiB.
    check(&subject, CLIENTS, 100 * KIB, |subject| {
        each(CLIENTS, |client| {
            let mut peer = Client::open(subject.address());
            for n in 0..5_000 {
                peer.ask(&format!(r#"["{n}","{n}","room:{client}-{n}","phx_join",{{}}]"#), "phx_reply");
            }
            peer.hear("too many channels joined");
            peer
        })
    });
}

#[test]
fn slow_heads_hold_no_more_than_a_head_may_have() {
    const CLIENTS: usize = 400;
    let subject = Subject::start(|server, _| server.http.header_bytes_max = 16 * KIB);
    let almost =
        format!("{}X: {}", head("", "").trim_end_matches("\r\n"), "x".repeat(14 * KIB)).replace("X:", "\r\nX:");

    check(&subject, CLIENTS, 48 * KIB, |subject| {
        let clients: Vec<_> = (0..CLIENTS).map(|_| Client::connect(subject.address())).collect();
        for client in &clients {
            client.say(&almost);
        }
        until("all of it is held", || HEAP.current_usage() > CLIENTS * 14 * KIB);
        clients
    });
}

#[test]
fn bodies_that_do_not_end_hold_what_came_of_them() {
    const CLIENTS: usize = 50;
    const SENT: usize = 200 * KIB;
    let subject = Subject::start(|_, socket| {
        socket.longpoll.as_mut().expect("it has long poll").window_ms = 4_000;
    });

    check(&subject, CLIENTS, 2 * SENT + 64 * KIB, |subject| {
        let target = begin_longpoll(&mut Client::connect(subject.address()));
        let begin = "x".repeat(SENT);
        let clients: Vec<_> = (0..CLIENTS).map(|_| Client::connect(subject.address())).collect();
        for client in &clients {
            client.say(post(&target, 8_000_000, &begin));
        }
        until("all of it is held", || HEAP.current_usage() > CLIENTS * SENT);
        clients
    });
}

#[test]
fn posts_that_have_to_wait_are_held_once() {
    const CLIENTS: usize = 16;
    const BODY: usize = 400 * KIB;
    let subject = Subject::start(|_, socket| {
        socket.longpoll.as_mut().expect("it has long poll").window_ms = 2_000;
    });

    check(&subject, CLIENTS, 2 * BODY + 64 * KIB, |subject| {
        let mut first = Client::connect(subject.address());
        let target = begin_longpoll(&mut first);
        // More than OUTBOX_BYTES_READ_PAUSE waits for a poll that does not come: what follows is held back.
        let batch = "[\"1\",\"1\",\"room:a\",\"phx_join\",{}]\n[\"1\",\"2\",\"room:a\",\"big\",{}]";
        first.say(post(&target, batch.len(), batch));
        first.hear("{\"status\":200}");
        let rest = r#"["1","3","room:a","echo",{"fill":""}]"#.len();
        let body = format!(r#"["1","3","room:a","echo",{{"fill":"{}"}}]"#, "x".repeat(BODY - rest));
        let posting = post(&target, body.len(), &body);
        drop(body);
        let mut clients = each(CLIENTS, |_| {
            let mut client = Client::connect(subject.address());
            client.say(&posting);
            client.hear("{\"status\":408}");
            client
        });
        clients.push(first);
        clients
    });
}

#[test]
fn a_longpoll_session_that_was_only_begun_holds_little() {
    const SESSIONS: usize = 1_000;
    let subject = Subject::start(|_, socket| {
        socket.longpoll.as_mut().expect("it has long poll").window_ms = 4_000;
    });

    check(&subject, SESSIONS, 4 * KIB, |subject| {
        let mut client = Client::connect(subject.address());
        for _ in 0..SESSIONS {
            begin_longpoll(&mut client);
        }
        assert_eq!(subject.held().longpoll_sessions, SESSIONS);
        vec![client]
    });
}
