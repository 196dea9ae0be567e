//! A shard with more waiting than it can do: broadcasts from outside are refused and connections are not read, until half
//! of it is done.
//!
//! The server runs on one thread, and what fills the shard takes turns with it there, so that it stays as full as the test
//! wants.

use std::future::poll_fn;
use std::net::{SocketAddr, TcpStream};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, mpsc};
use std::task::Poll;
use std::time::Duration;

use bennu::Server;
use bennu::channel::{Endpoint, LongPollOptions};
use bennu::metrics::METRICS;
use bennu::protocol::limits::SHARD_COMMANDS_MAX;
use bennu::server::Running;
use serde_json::{Value, json};
use tokio::runtime::Runtime;

use super::post_head;
use crate::lab::{DEADLINE, Peer, until};
use crate::transcripts::http;

/// Longer than an answer takes that would come at once.
const QUIET: Duration = Duration::from_millis(300);

/// A server on one thread, with a channel that echoes.
struct Narrow {
    runtime: Runtime,
    endpoint: Endpoint,
    address: SocketAddr,
    _running: Running,
}

impl Narrow {
    fn start() -> Self {
        // Looks for what has come on the sockets after every task's turn.
        let runtime =
            tokio::runtime::Builder::new_current_thread().enable_all().event_interval(1).build().expect("a runtime");
        let guard = runtime.enter();
        let endpoint = Endpoint::start();
        let socket = endpoint.socket("/socket").channel::<Echo>("echo:*").options(|options| {
            options.longpoll = Some(LongPollOptions::default());
            options.outbox_bytes_max = 64 << 20;
        });
        let running =
            Server::new(&endpoint).socket(socket).listen(([127, 0, 0, 1], 0)).expect("a free port of 127.0.0.1");
        drop(guard);
        let address = running.address();
        Narrow { runtime, endpoint, address, _running: running }
    }
}

struct Echo;

impl bennu::channel::Channel for Echo {
    type Info = ();

    async fn join(
        _topic: &str,
        _params: bennu::channel::Payload,
        _cx: &mut bennu::channel::JoinCx<Self>,
    ) -> Result<(Self, bennu::channel::Payload), bennu::channel::Refusal> {
        Ok((Echo, bennu::channel::Payload::EMPTY))
    }

    async fn handle_in(
        &mut self,
        _event: &str,
        payload: bennu::channel::Payload,
        _cx: &mut bennu::channel::Cx<Self>,
    ) -> bennu::channel::Next {
        bennu::channel::Next::ok(payload)
    }
}

/// Broadcasts until one is refused; gives how many were not.
fn fill(endpoint: &Endpoint, topic: &str, from: usize) -> usize {
    (from..).take_while(|n| endpoint.broadcast(topic, "shout", json!({"n": n})).is_ok()).count()
}

/// Lets every other task that is ready have a turn.
async fn turn() {
    let mut had = false;
    poll_fn(|cx| {
        if std::mem::replace(&mut had, true) {
            return Poll::Ready(());
        }
        cx.waker().wake_by_ref();
        Poll::Pending
    })
    .await;
}

#[test]
fn what_a_full_shard_has_taken_is_delivered_and_what_it_refused_is_not() {
    let narrow = Narrow::start();
    let (joined, on_join) = mpsc::channel();
    let (filled, on_filled) = tokio::sync::oneshot::channel();
    let client = std::thread::spawn({
        let address = narrow.address;
        move || {
            let mut peer = Peer::open(address, "vsn=2.0.0");
            peer.join("echo:a");
            joined.send(()).expect("the test waits");
            let taken: usize = on_filled.blocking_recv().expect("the test goes on");
            for n in 0..taken {
                assert_eq!(peer.message().n(), n as u64);
            }
            peer.heartbeat();
        }
    });

    let endpoint = narrow.endpoint.clone();
    let refused = METRICS.overloaded_broadcasts.get();
    let task = narrow.runtime.spawn(async move {
        while on_join.try_recv().is_err() {
            turn().await;
        }
        let taken = fill(&endpoint, "echo:a", 0);
        filled.send(taken).expect("the client waits");
        taken
    });
    narrow.runtime.block_on(async {
        let taken = task.await.expect("it does not panic");
        assert_eq!(taken, SHARD_COMMANDS_MAX);
        assert!(METRICS.overloaded_broadcasts.get() > refused);
        while !client.is_finished() {
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
    });
    client.join().expect("every broadcast that was taken came, in order, and no other");
    narrow.endpoint.broadcast("echo:a", "again", json!({})).expect("there is room again");
}

#[test]
fn connections_are_not_read_while_a_shard_is_full() {
    let narrow = Narrow::start();
    let stage = Arc::new(AtomicUsize::new(0));
    let client = std::thread::spawn({
        let (address, stage) = (narrow.address, Arc::clone(&stage));
        move || {
            let mut peer = Peer::open(address, "vsn=2.0.0");
            peer.join("echo:a");
            let poll = Peer::raw(TcpStream::connect(address).expect("the kernel accepts"));
            let target = begin_longpoll(address);
            stage.store(1, Ordering::SeqCst);
            until("the shard is full", || stage.load(Ordering::SeqCst) == 2);

            peer.send("echo:a", "echo", json!({"n": 1}));
            let body = r#"[null,"1","phoenix","heartbeat",{}]"#;
            poll.write(format!("{}Content-Length: {}\r\n\r\n{body}", post_head(&target), body.len()).as_bytes());
            peer.expect_quiet(QUIET);
            let mut poll = poll;
            poll.expect_quiet(QUIET);

            stage.store(3, Ordering::SeqCst);
            peer.expect(&[r#"echo:a #2 ok {"n":1}"#]);
            assert_eq!(poll.next().body.as_deref(), Some(r#"{"status":200}"#));
        }
    });

    let endpoint = narrow.endpoint.clone();
    let filling = narrow.runtime.spawn({
        let stage = Arc::clone(&stage);
        async move {
            loop {
                match stage.load(Ordering::SeqCst) {
                    0 => {}
                    1 => {
                        fill(&endpoint, "echo:nobody", 0);
                        stage.store(2, Ordering::SeqCst);
                    }
                    2 => {
                        fill(&endpoint, "echo:nobody", 0);
                    }
                    _ => return,
                }
                turn().await;
            }
        }
    });
    narrow.runtime.block_on(async {
        while !client.is_finished() {
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
        filling.abort();
    });
    client.join().expect("the client was answered when there was room again");
}

/// The target of the requests of a new session.
fn begin_longpoll(server: SocketAddr) -> String {
    let request = http::Request {
        method: "GET",
        path: "/socket/longpoll",
        qs: Some("vsn=2.0.0"),
        headers: &[],
        body: None,
        timeout: DEADLINE,
    };
    let answer: Value = serde_json::from_slice(&http::send(server, &request).expect("an answer").body).expect("JSON");
    format!("/socket/longpoll?vsn=2.0.0&token={}", answer["token"].as_str().expect("a token"))
}
