//! The sockets as a filter inside a warp application that listens by itself.

use std::net::SocketAddr;

use bennu::channel::LongPollOptions;
use bennu::server::{self, DrainOptions};
use bennu::{Endpoint, Server};
use serde_json::{Value, json};
use tokio::net::TcpListener;
use tokio::runtime::Runtime;
use warp::Filter;

use crate::lab::probe::Probe;
use crate::lab::{DEADLINE, Peer, World};
use crate::transcripts::http;

/// An application of warp's, with a route of its own that broadcasts.
struct Application {
    endpoint: Endpoint,
    address: SocketAddr,
    runtime: Runtime,
}

impl Application {
    fn start() -> Self {
        let runtime = server::runtime(2).expect("a runtime starts");
        let _guard = runtime.enter();
        let endpoint = Endpoint::start();
        let socket = endpoint
            .socket("/socket")
            .channel_with::<Probe>("probe:*", std::sync::Arc::<World>::default())
            .options(|options| options.longpoll = Some(LongPollOptions::default()));
        let sockets = Server::new(&endpoint).socket(socket).into_filter();

        let news = endpoint.clone();
        let publish = warp::post().and(warp::path!("news")).and(warp::body::json()).map(move |goal: Value| {
            news.broadcast("probe:a", "goal", goal).expect("there is room");
            "published"
        });
        let listener = std::net::TcpListener::bind("127.0.0.1:0").expect("a free port");
        listener.set_nonblocking(true).expect("it can be set");
        let address = listener.local_addr().expect("it is bound");
        let listener = TcpListener::from_std(listener).expect("within a runtime");
        runtime.spawn(warp::serve(sockets.or(publish)).incoming(listener).run());
        drop(_guard);
        Application { endpoint, address, runtime }
    }

    fn http(&self, method: &str, path: &str, qs: &str, body: Option<&str>) -> (u16, Value) {
        let body = body.map(str::as_bytes);
        let request = http::Request { method, path, qs: Some(qs), headers: &[], body, timeout: DEADLINE };
        let answer = http::send(self.address, &request).expect("an answer");
        let text = String::from_utf8_lossy(&answer.body).into_owned();
        (answer.status, serde_json::from_str(&text).unwrap_or(Value::from(text)))
    }
}

#[test]
fn websockets_work_beside_the_applications_own_routes() {
    let app = Application::start();
    let mut peer = Peer::open(app.address, "vsn=2.0.0");
    peer.join("probe:a");
    peer.exchange("probe:a", "echo", json!({"n": 1}));

    assert_eq!(app.http("POST", "/news", "", Some(r#"{"score":[1,0]}"#)), (200, json!("published")));
    peer.expect(&[r#"probe:a goal {"score":[1,0]}"#]);
    assert_eq!(app.http("POST", "/nothing", "", Some("{}")).0, 404);
    assert_eq!(app.http("GET", "/socket/websocket", "vsn=2.0.0", None).0, 400, "no upgrade was asked for");
}

#[test]
fn long_poll_works_there_too() {
    let app = Application::start();
    let begun = app.http("GET", "/socket/longpoll", "vsn=2.0.0", None).1;
    let session = format!("vsn=2.0.0&token={}", begun["token"].as_str().expect("a token"));
    let join = r#"["1","1","probe:a","phx_join",{}]"#;
    assert_eq!(app.http("POST", "/socket/longpoll", &session, Some(join)), (200, json!({"status": 200})));
    let polled = app.http("GET", "/socket/longpoll", &session, None).1;
    let reply = r#"["1","1","probe:a","phx_reply",{"response":{},"status":"ok"}]"#;
    assert_eq!(polled["messages"][0], reply, "{polled}");
}

#[test]
fn its_sockets_are_drained_when_the_application_says_so() {
    let app = Application::start();
    let mut peer = Peer::open(app.address, "vsn=2.0.0");
    peer.join("probe:a");
    app.runtime.block_on(server::drain(&app.endpoint, &DrainOptions::default()));
    peer.expect(&["close 1012"]);
    assert_eq!(app.endpoint.connections(), 0);
}

#[test]
fn in_the_development_setting_only_local_pages_reach_the_sockets_there() {
    let runtime = server::runtime(1).expect("a runtime starts");
    let guard = runtime.enter();
    let endpoint = Endpoint::start();
    let local = Server::new(&endpoint).socket(endpoint.socket("/socket")).options(|options| options.local_only = true);
    let open = warp::path!("open").map(|| "open");
    let listener = std::net::TcpListener::bind("127.0.0.1:0").expect("a free port");
    listener.set_nonblocking(true).expect("it can be set");
    let address = listener.local_addr().expect("it is bound");
    let listener = TcpListener::from_std(listener).expect("within a runtime");
    runtime.spawn(warp::serve(local.into_filter().or(open)).incoming(listener).run());
    drop(guard);

    let status = |path, origin: &str| {
        let headers = [("origin".to_owned(), origin.to_owned())];
        let qs = Some("vsn=2.0.0");
        let request = http::Request { method: "GET", path, qs, headers: &headers, body: None, timeout: DEADLINE };
        http::send(address, &request).expect("an answer").status
    };
    assert_eq!(status("/socket/websocket", "https://evil.example"), 403);
    assert_eq!(status("/socket/websocket", "http://localhost:4000"), 400, "it comes in, and asks for no upgrade");
    assert_eq!(status("/open", "https://evil.example"), 200, "the application's own routes are its own affair");
}

#[test]
#[should_panic(expected = "was declared by another endpoint")]
fn a_server_takes_no_socket_of_another_endpoint() {
    let runtime = server::runtime(1).expect("a runtime starts");
    let _guard = runtime.enter();
    let (one, other) = (Endpoint::start(), Endpoint::start());
    let _server = Server::new(&one).socket(other.socket("/socket"));
}
