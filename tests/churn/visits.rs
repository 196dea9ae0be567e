//! Ten thousand visits that break off, each at one of many places.

use std::net::SocketAddr;
use std::ops::Range;
use std::time::Instant;

use crate::client::{CLOSE, CONTINUATION, Client, TEXT, begin_longpoll, frame, head, post};
use crate::server::{CROWD, Subject};

/// Visits of one run of the test.
const VISITS: usize = 10_000;

/// Visits after which nearly everything has been made that is made once.
const WARM_UP: usize = 2_000;

/// Visits of one kind, in the test of each kind, and of its warm-up.
const VISITS_OF_ONE_KIND: usize = 1_000;
const WARM_UP_OF_ONE_KIND: usize = 500;

/// Bytes that may be there after the visits beyond those after their warm-up. Nothing of a client is among them: they are
/// room of tables and queues, which keep what they needed at most, and changes of presence that are kept for other nodes,
/// 10 000 at most (`DELTA_SIZE_MAX`), of which these visits make a third. Were each visit of one kind to leave 256 bytes,
/// less than the least that a connection is made of, it would be more.
const SLACK_BYTES: usize = 256 * 1024;

/// The same for any number of visits.
const SLACK_BYTES_MAX: usize = 1 << 20;

/// Visits at once.
const THREADS: usize = 4;

/// A way to break off: what a visitor does before its connection is reset.
type Visit = fn(SocketAddr, usize);

const VISITS_OF_EACH_KIND: [(&str, Visit); 22] = [
    ("before a word", |server, _| drop(Client::connect(server))),
    ("within the head", |server, n| Client::connect(server).say(&head("", "")[..1 + n % 150])),
    ("behind the head", |server, _| Client::connect(server).say(head("", ""))),
    ("behind a request that is refused", |server, _| {
        let mut client = Client::connect(server);
        client.say(head("", "Content-Length: 5\r\n"));
        client.hear("400");
    }),
    ("after the upgrade", |server, _| drop(Client::open(server))),
    ("after an upgrade with an id", |server, n| {
        let mut client = Client::connect(server);
        client.say(head(&format!("&user={n}"), ""));
        client.hear("\r\n\r\n");
    }),
    ("after an upgrade with compression, and a message", |server, _| {
        let mut client = Client::connect(server);
        client.say(head("", "Sec-WebSocket-Extensions: permessage-deflate\r\n"));
        client.hear("\r\n\r\n");
        client.say(frame(TEXT, true, br#"["1","1","room:z","phx_join",{}]"#));
        client.hear("\u{1}");
    }),
    ("with a message behind the head", |server, _| {
        let join = frame(TEXT, true, br#"["1","1","room:a","phx_join",{}]"#);
        Client::connect(server).say([head("", "").as_bytes(), &join].concat());
    }),
    ("before the answer to a join", |server, n| {
        let client = Client::open(server);
        client.say(frame(TEXT, true, format!(r#"["1","1","room:{n}","phx_join",{{}}]"#).as_bytes()));
    }),
    ("after a join", |server, n| Client::open(server).join(&format!("room:{n}"))),
    ("present", |server, n| {
        let mut client = Client::open(server);
        client.join(CROWD);
        client.ask(
            &format!(r#"["1","2","{CROWD}","track",{{"key":"k{n}"}}]"#),
            &format!("\"2\",\"{CROWD}\",\"phx_reply\""),
        );
    }),
    ("before its presence is answered", |server, n| {
        let mut client = Client::open(server);
        client.join(CROWD);
        client.say(frame(TEXT, true, format!(r#"["1","2","{CROWD}","track",{{"key":"k{n}"}}]"#).as_bytes()));
    }),
    ("within a frame", |server, n| {
        let mut client = Client::open(server);
        client.join("room:a");
        let whole = frame(TEXT, true, format!(r#"["1","2","room:a","echo",{{"n":{n}}}]"#).as_bytes());
        client.say(&whole[..1 + n % (whole.len() - 1)]);
    }),
    ("within a message", |server, _| {
        let mut client = Client::open(server);
        client.join("room:a");
        client.say(frame(TEXT, false, br#"["1","2","#));
        client.say(frame(CONTINUATION, false, &[b' '; 5_000]));
    }),
    ("with answers unread", |server, _| {
        let mut client = Client::open(server);
        client.join("room:a");
        client.say(frame(TEXT, true, br#"["1","2","room:a","big",{}]"#));
        client.say(frame(TEXT, true, br#"["1","3","room:a","shout",{}]"#));
        client.hear("fill");
    }),
    ("while a handler waits and a timer runs", |server, _| {
        let mut client = Client::open(server);
        client.join("room:a");
        client.say(frame(TEXT, true, br#"["1","2","room:a","see",{}]"#));
        client.say(frame(TEXT, true, br#"["1","3","room:a","later",{}]"#));
        client.ask(r#"["1","4","room:a","wait",{}]"#, "\"3\",\"room:a\",\"phx_reply\"");
    }),
    ("after something malformed", |server, _| {
        let mut client = Client::open(server);
        client.join("room:a");
        client.say(frame(TEXT, true, b"["));
    }),
    ("with a close", |server, _| {
        let mut client = Client::open(server);
        client.join("room:a");
        client.say(frame(CLOSE, true, &1000_u16.to_be_bytes()));
        client.end();
    }),
    ("after the beginning of a long poll", |server, _| drop(begin_longpoll(&mut Client::connect(server)))),
    ("during a poll", |server, n| {
        let mut client = Client::connect(server);
        let target = begin_longpoll(&mut client);
        let join = format!(r#"["1","1","room:{n}","phx_join",{{}}]"#);
        client.say(post(&target, join.len(), &join));
        client.hear("{\"status\":200}");
        let poll = format!("GET {target} HTTP/1.1\r\nHost: localhost\r\n\r\n");
        client.say(&poll);
        client.hear("phx_reply");
        client.say(&poll);
    }),
    ("within a POST", |server, n| {
        let mut client = Client::connect(server);
        let target = begin_longpoll(&mut client);
        let body = r#"["1","1","room:a","phx_join",{}]"#;
        client.say(post(&target, body.len(), &body[..n % body.len()]));
    }),
    ("present over long poll, while a handler waits", |server, n| {
        let mut client = Client::connect(server);
        let target = begin_longpoll(&mut client);
        let messages = [
            format!(r#"["1","1","{CROWD}","phx_join",{{}}]"#),
            format!(r#"["1","2","{CROWD}","track",{{"key":"k{n}"}}]"#),
            format!(r#"["1","3","{CROWD}","wait",{{}}]"#),
        ];
        let body = messages.join("\n");
        client.say(post(&target, body.len(), &body));
        client.hear("{\"status\":200}");
    }),
];

/// Makes the visits of a range, of these kinds in turn, a few at once.
fn make(server: SocketAddr, kinds: &[(&str, Visit)], visits: Range<usize>) {
    std::thread::scope(|scope| {
        for thread in 0..THREADS {
            let own = visits.clone().skip(thread).step_by(THREADS);
            scope.spawn(move || {
                for n in own {
                    // Not in step with the threads: each of them makes visits of every kind.
                    let (_, visit) = kinds[n / THREADS % kinds.len()];
                    visit(server, n);
                }
            });
        }
    });
}

/// Checks that visits leave nothing behind but what those of a warm-up left.
#[track_caller]
fn check(subject: &Subject, kinds: &[(&str, Visit)], warm_up: usize, visits: usize, slack_bytes: usize) {
    let what = if let [(one, _)] = kinds { one } else { "of all kinds" };
    make(subject.address(), kinds, 0..warm_up);
    let before = subject.bytes_at_rest();
    let begun = Instant::now();
    make(subject.address(), kinds, warm_up..warm_up + visits);
    let took = begun.elapsed();
    let after = subject.bytes_at_rest();

    println!("{visits} visits, {what}: {took:.1?}; {before} bytes before, {after} after");
    assert!(after < before + slack_bytes, "{before} bytes after {warm_up} visits, {what}, {after} after {visits} more");
}

#[test]
fn ten_thousand_connections_that_break_off_leave_nothing_behind() {
    let subject = Subject::start(|_, _| {});
    let asked = std::env::var("BENNU_CHURN_VISITS").ok();
    let visits = asked.map_or(VISITS, |asked| asked.parse().expect("BENNU_CHURN_VISITS is a number"));
    let slack_bytes = if visits > VISITS { SLACK_BYTES_MAX } else { SLACK_BYTES };
    check(&subject, &VISITS_OF_EACH_KIND, WARM_UP, visits, slack_bytes);
}

#[test]
fn each_way_to_break_off_leaves_nothing_behind() {
    let subject = Subject::start(|_, _| {});
    for kind in VISITS_OF_EACH_KIND {
        check(&subject, &[kind], WARM_UP_OF_ONE_KIND, VISITS_OF_ONE_KIND, SLACK_BYTES);
    }
}
