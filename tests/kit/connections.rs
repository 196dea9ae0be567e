//! MCP sessions as their operator sees them, on virtual time.

use std::sync::Arc;
use std::time::Duration;

use bennu::Endpoint;
use bennu::mcp::auth::Development;
use bennu::mcp::{CallContext, Mcp, McpServer, SessionHealth, SessionState, Tool};
use bennu::testing::{Client, TestChannel, TestSocket};
use parking_lot::Mutex;
use serde_json::{Map, Value, json};
use tokio::time::advance;

struct House {
    mcp: Arc<Mcp>,
    endpoint: Endpoint,
    told: Arc<Mutex<Vec<String>>>,
}

impl House {
    fn new() -> Self {
        let endpoint = Endpoint::start();
        let held = Tool::untyped("held", json!({"type": "object"}), |_: Map<String, Value>, _: CallContext| async {
            std::future::pending::<()>().await;
            Ok("never")
        });
        let server = McpServer::builder("lab").tools([held]).build().expect("a server");
        let told = Arc::<Mutex<Vec<String>>>::default();
        let heard = Arc::clone(&told);
        let mcp = Mcp::builder(&endpoint, Development)
            .on_session_event(move |notice| {
                assert_eq!((notice.user, notice.server), ("dev", "lab"));
                heard.lock().push(format!("{:?}", notice.change));
                panic!("it goes no further");
            })
            .server(server)
            .build()
            .expect("one server");
        House { mcp, endpoint, told }
    }

    async fn visit(&self, token: Value) -> (TestSocket, TestChannel, Value) {
        let socket = self.mcp.routes(self.endpoint.socket("/socket")).build();
        let socket = Client::new().connect(&socket).await.expect("everyone may connect");
        let params = json!({"clientInfo": {"name": "kit", "version": "1"}, "recoveryToken": token});
        let session = socket.join("mcp:session", params).await.expect("a session");
        let reply = session.joined().parse().expect("JSON");
        (socket, session, reply)
    }

    fn told(&self) -> Vec<String> {
        std::mem::take(&mut *self.told.lock())
    }
}

fn id(reply: &Value) -> &str {
    reply["sessionId"].as_str().expect("an id")
}

async fn call(session: &TestChannel) {
    let request = json!({"jsonrpc": "2.0", "id": 1, "method": "tools/call", "params": {"name": "held"}});
    assert_eq!(session.call("mcp_message", request).await.status, "ok");
}

#[tokio::test(start_paused = true)]
async fn hooks_hear_of_a_session_in_order_and_its_state_is_seen() {
    let house = House::new();
    let (socket, _session, joined) = house.visit(json!(true)).await;
    let seen = house.mcp.session(id(&joined)).expect("it is open");
    assert_eq!((seen.state, seen.health), (SessionState::Connected, SessionHealth::Active));
    assert_eq!((&*seen.user, &*seen.server, seen.recoverable, seen.resumed), ("dev", "lab", true, 0));

    socket.disconnect().await;
    advance(Duration::from_secs(100)).await;
    let seen = house.mcp.session(id(&joined)).expect("it is kept");
    assert_eq!((seen.state, seen.health), (SessionState::Detached { left_ms: 200_000 }, SessionHealth::Silent));

    let (socket, _session, again) = house.visit(joined["recoveryToken"].clone()).await;
    assert_eq!(house.mcp.session(id(&again)).expect("it is back").resumed, 1);
    socket.disconnect().await;
    tokio::time::sleep(Duration::from_secs(301)).await;

    assert_eq!(house.told(), ["Opened", "Detached", "Resumed", "Detached", "Expired"]);
    assert_eq!(house.mcp.session(id(&joined)), None);
    let (_socket, _session, fresh) = house.visit(again["recoveryToken"].clone()).await;
    assert_ne!(fresh["sessionId"], joined["sessionId"]);
    let stats = house.mcp.session_stats();
    assert_eq!((stats.connected, stats.detached, stats.opened, stats.resumed), (1, 0, 2, 1));
    assert_eq!((stats.detachments, stats.expired, stats.kicked, stats.bad_tokens), (2, 1, 0, 1));
}

#[tokio::test(start_paused = true)]
async fn a_session_that_is_ended_is_gone_whether_its_client_is_there_or_away() {
    for wish in [json!(true), json!(false)] {
        let house = House::new();
        let (socket, session, joined) = house.visit(wish.clone()).await;
        call(&session).await;
        assert_eq!(house.mcp.session(id(&joined)).expect("it is open").calls, 1);

        assert!(house.mcp.end_session(id(&joined)) && !house.mcp.end_session(id(&joined)));

        let closes = async {
            loop {
                let message = socket.next().await.expect("its channel is closed");
                assert_ne!(message.event, "phx_error");
                if message.event == "phx_close" {
                    break;
                }
            }
        };
        closes.await;
        house.mcp.idle().await;
        assert_eq!(house.told(), ["Opened", "Ended(Kicked)"], "{wish}");
        assert_eq!((house.mcp.sessions(), house.mcp.session_stats().kicked), (0, 1));
    }

    let house = House::new();
    let (socket, session, joined) = house.visit(json!(true)).await;
    call(&session).await;
    socket.disconnect().await;
    assert!(house.mcp.end_session(id(&joined)));
    house.mcp.idle().await;
    assert_eq!(house.told(), ["Opened", "Detached", "Ended(Kicked)"]);
    let (_socket, _session, fresh) = house.visit(joined["recoveryToken"].clone()).await;
    assert_eq!(fresh["resumed"], false);
}

#[tokio::test(start_paused = true)]
async fn a_session_that_ends_with_its_channel_says_why() {
    let house = House::new();
    let (socket, _session, _) = house.visit(json!(false)).await;
    socket.disconnect().await;
    assert_eq!(house.told(), ["Opened", "Ended(Lost)"]);

    let (socket, _session, joined) = house.visit(json!(false)).await;
    let health = || house.mcp.session(id(&joined)).map(|info| info.health);
    tokio::time::sleep(Duration::from_secs(31)).await;
    assert_eq!(health(), Some(SessionHealth::Silent));
    socket.heartbeat().await;
    assert_eq!(health(), Some(SessionHealth::Active));
    tokio::time::sleep(Duration::from_millis(29_500)).await;
    assert_eq!(health(), Some(SessionHealth::Idle));
    drop(socket);
}

#[tokio::test(start_paused = true)]
async fn sessions_are_listed_in_the_order_of_their_ids_and_in_parts() {
    let house = House::new();
    let mut visits = Vec::new();
    for _ in 0..3 {
        visits.push(house.visit(json!(true)).await);
    }
    let mut ids: Vec<_> = visits.iter().map(|(_, _, reply)| id(reply).to_owned()).collect();
    ids.sort();

    let of = |after, limit| house.mcp.list_sessions(after, limit).into_iter().map(|info| info.id).collect::<Vec<_>>();
    assert_eq!(of(None, 2), ids[..2]);
    assert_eq!(of(Some(&ids[1]), 2), ids[2..]);

    let (_socket, session, reply) = visits.remove(0);
    session.leave().await;
    assert_eq!((house.mcp.session(id(&reply)), house.told().last()), (None, Some(&"Ended(Left)".to_owned())));
}
