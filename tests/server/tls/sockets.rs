//! Sockets over TLS: sizes, clients that do not read, and how conversations end.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use bennu::channel::{Compression, LongPollOptions, Reason, SocketOptions};
use rustls::ClientConfig;
use serde_json::json;

use super::certificates::{Certificate, Folder, trusting};
use super::clients::{Client, Ended};
use super::tunnel::Tunnel;
use crate::lab::{Counted, Lab, Peer, Poll, connect, until, write_all};
use crate::transcripts::frames::{FrameBits, encode_frame, text_frame};

/// A server with TLS, and a way to it for clients without.
struct Secure {
    lab: Lab,
    tunnel: Tunnel,
    config: Arc<ClientConfig>,
    _folder: Folder,
}

impl Secure {
    fn new(socket: impl FnOnce(&mut SocketOptions)) -> Self {
        let certificate = Certificate::new();
        let folder = Folder::holding(&certificate);
        let config = trusting(&[&certificate]);
        let lab = Lab::with(|options| options.tls = Some(folder.options()), socket);
        let tunnel = Tunnel::to(lab.address(), Arc::clone(&config));
        Secure { lab, tunnel, config, _folder: folder }
    }

    fn joined(&self, topic: &str) -> Peer {
        let mut peer = Peer::open(self.tunnel.address(), "vsn=2.0.0");
        peer.join(topic);
        peer
    }

    /// A client that sees TLS itself, joined to a topic.
    fn seeing(&self, topic: &str) -> Client {
        let mut client = Client::open(self.lab.address(), Arc::clone(&self.config), "vsn=2.0.0&user=u");
        client.send_text(&json!(["1", "1", topic, "phx_join", {}]).to_string());
        assert!(client.text().contains(r#""status":"ok""#));
        client
    }

    #[track_caller]
    fn holds_nothing(&self) {
        until("nothing is held for its clients", || {
            let held = self.lab.held();
            held.connections == 0 && held.conversations == 0 && held.sockets == 0
        });
    }
}

#[test]
fn large_messages_pass_both_ways() {
    let secure = Secure::new(|options| options.compression = Compression::On);
    let stream = || std::net::TcpStream::connect(secure.tunnel.address()).expect("it accepts");
    let plain = Peer::over(stream(), "vsn=2.0.0");
    let compressed = Peer::over_compressed(stream(), "vsn=2.0.0");
    // Beyond a TLS record, what is taken of an outbox at a time, and the outbox itself.
    for (name, mut peer) in [("plain", plain), ("compressed", compressed)] {
        let topic = format!("probe:{name}");
        peer.join(&topic);
        for bytes in [0, 1, 16_383, 16_384, 16_385, 262_144, 1_000_000, 5_000_000] {
            let fill: String = ('a'..='z').cycle().take(bytes).collect();

            let response = peer.exchange(&topic, "echo", json!({"fill": fill}));

            assert!(response["fill"] == fill.as_str(), "{name}: {bytes} bytes come back as they were");
        }
        peer.heartbeat();
    }
}

#[test]
fn a_client_that_does_not_read_is_cut_and_counted_and_the_others_get_everything() {
    const ROUNDS_MAX: u64 = 10_000;
    let counted = Counted::slow_consumers();
    let secure = Secure::new(|options| options.outbox_bytes_max = 64 * 1024);
    let mut others = [secure.joined("probe:a"), secure.joined("probe:a")];
    let mut slow = Peer::open_narrow(secure.tunnel.address(), "vsn=2.0.0");
    slow.join("probe:a");
    let fill = "x".repeat(16 * 1024);

    let mut n = 0;
    while counted.growth() == 0 && n < ROUNDS_MAX {
        secure.lab.broadcast("probe:a", "shout", json!({"n": n, "fill": fill}));
        for other in &mut others {
            assert_eq!(other.message().n(), n);
        }
        n += 1;
    }

    assert_eq!(counted.growth(), 1, "after {n} broadcasts");
    assert_eq!(secure.lab.world.wait_ended("probe:a", 1)[0].reason, Reason::SocketClosed);
    let before = slow.until_gone();
    assert!((before.len() as u64) < n, "it missed what came last");
    assert!(before.iter().all(|event| event.kind == "text"), "and was cut without a close");
    for other in &mut others {
        other.heartbeat();
    }
}

#[test]
fn a_client_that_only_asks_is_not_read_until_it_reads() {
    const ASKED: u64 = 60_000;
    let counted = Counted::slow_consumers();
    let secure = Secure::new(|_| {});
    let mut neighbour = secure.joined("probe:b");
    let mut peer = Peer::open_narrow(secure.tunnel.address(), "vsn=2.0.0");
    peer.join("probe:a");
    let fill = "x".repeat(1_000);
    let messages: Vec<Vec<u8>> =
        (0..ASKED).map(|n| text_frame(&peer.text("probe:a", "echo", json!({"n": n, "fill": fill})))).collect();

    let stream = peer.stream().try_clone().expect("a second handle to the stream");
    let stuck = AtomicBool::new(false);
    std::thread::scope(|scope| {
        let writer = scope.spawn(|| write_all(&stream, &messages.concat(), &stuck));
        while !stuck.load(Ordering::Acquire) && !writer.is_finished() {
            neighbour.heartbeat();
        }
        assert!(stuck.load(Ordering::Acquire), "the server took all {ASKED} messages of a client that does not read");

        for n in 0..ASKED {
            assert_eq!(peer.message().n_replied(), n);
        }
        writer.join().expect("the writer does not panic").expect("the server reads on");
    });
    assert_eq!(counted.growth(), 0);
    peer.heartbeat();
}

#[test]
fn a_disconnect_and_a_shutdown_end_with_their_codes_and_then_tls() {
    let mut secure = Secure::new(|_| {});
    let mut disconnected = secure.seeing("probe:a");
    secure.lab.endpoint.disconnect("user:u").expect("the hub has room");
    disconnected.expect_close(1001);
    drop(disconnected);
    secure.holds_nothing();

    let mut drained = secure.seeing("probe:b");
    let stopping = secure.lab.shut_down();
    drained.expect_close(1012);
    drop(drained);
    secure.lab.wait_for(stopping);
}

#[test]
fn a_clients_close_is_answered_and_tls_ended() {
    let secure = Secure::new(|_| {});
    let mut client = secure.seeing("probe:a");

    client.write(&encode_frame(8, &1000_u16.to_be_bytes(), FrameBits::default()));

    client.expect_close(1000);
    assert_eq!(secure.lab.held().connections, 1, "the client's own end is awaited");
    client.finish();
    secure.holds_nothing();
}

#[test]
fn a_client_that_sends_no_more_still_gets_its_answers() {
    const ASKED: usize = 200;
    let secure = Secure::new(|_| {});
    let mut client = secure.seeing("probe:a");

    for n in 0..ASKED {
        client.send_text(&json!(["1", "2", "probe:a", "echo", {"n": n}]).to_string());
    }
    client.finish();

    for n in 0..ASKED {
        assert!(client.text().contains(&format!(r#"{{"n":{n}}}"#)));
    }
    assert_eq!(client.next().map(|event| event.kind), Err(Ended::Told));
    secure.holds_nothing();
}

#[test]
fn a_connection_torn_off_ends_its_channels() {
    let secure = Secure::new(|_| {});

    secure.seeing("probe:a").tear();

    assert_eq!(secure.lab.world.wait_ended("probe:a", 1)[0].reason, Reason::SocketClosed);
    secure.holds_nothing();
}

#[test]
fn an_idle_client_is_closed_and_told() {
    let secure = Secure::new(|options| options.idle_timeout_ms = 300);

    secure.seeing("probe:a").expect_close(1002);
}

#[test]
fn a_client_that_reads_little_loses_nothing_at_its_close() {
    let secure = Secure::new(|_| {});
    let narrow = connect(secure.tunnel.address(), std::net::Ipv4Addr::LOCALHOST, Some(8 * 1024));
    let mut peer = Peer::over(narrow, "vsn=2.0.0&user=u");
    peer.join("probe:a");
    secure.lab.broadcast("probe:a", "shout", json!({"n": 1, "fill": "x".repeat(1_500_000)}));
    secure.lab.endpoint.disconnect("user:u").expect("the hub has room");

    assert_eq!(peer.message().n(), 1);
    peer.expect_close(1001);
}

#[test]
fn long_poll_works_over_tls() {
    let mut secure = Secure::new(|options| options.longpoll = Some(LongPollOptions::default()));
    secure.lab.reach_at(secure.tunnel.address());
    let poll = Poll::joined(&secure.lab, "probe:a");

    secure.lab.broadcast("probe:a", "shout", json!({"n": 1}));
    assert_eq!(poll.messages(), [json!([null, null, "probe:a", "shout", {"n": 1}])]);
    assert_eq!(poll.post(&json!(["1", "2", "probe:a", "echo", {"n": 2}]).to_string()), json!({"status": 200}));
    assert_eq!(poll.messages(), [json!(["1", "2", "probe:a", "phx_reply", {"status": "ok", "response": {"n": 2}}])]);
}
