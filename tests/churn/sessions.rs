//! A hundred thousand MCP sessions that are opened and dropped, half of them come back to once; and as many topics with history.
//!
//! By the test kit, whose time is virtual: the sessions' window passes in no time.

use std::sync::Arc;
use std::time::Duration;

use bennu::Endpoint;
use bennu::channel::{Channel, HistoryOptions, JoinCx, Payload, Refusal};
use bennu::mcp::auth::Development;
use bennu::mcp::deployment::Deployment;
use bennu::mcp::{CallContext, Mcp, McpServer, Tool};
use bennu::testing::Client;
use serde_json::{Map, Value, json};

use crate::HEAP;
use crate::server::turn;

/// Sessions of one round, as many as may be away at once, and rounds behind the one that warms up.
const SESSIONS: usize = 10_000;
const ROUNDS: usize = 10;

/// Bytes by which a round may end above the one that warmed up: less than 16 for each session of the others.
const SLACK_BYTES: usize = 1 << 20;

struct Plain;

impl Channel for Plain {
    type Info = ();

    async fn join(_topic: &str, _params: Payload, _cx: &mut JoinCx<Self>) -> Result<(Self, Payload), Refusal> {
        Ok((Plain, Payload::EMPTY))
    }
}

fn tasks() -> usize {
    tokio::runtime::Handle::current().metrics().num_alive_tasks()
}

/// Plays a test on virtual time, while no other counts.
fn play(test: impl Future<Output = ()>) {
    let _turn = turn();
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().start_paused(true).build();
    runtime.expect("a runtime starts").block_on(test);
}

/// Runs rounds and holds what there is after each against what there was after the first.
async fn rounds(mut round: impl AsyncFnMut()) {
    round().await;
    let (bytes, tasks_before) = (HEAP.current_usage(), tasks());
    for n in 1..=ROUNDS {
        round().await;
        let now = HEAP.current_usage();
        assert!(now <= bytes + SLACK_BYTES, "round {n}: {now} bytes, {bytes} before");
        assert!(tasks() <= tasks_before, "round {n}: {} tasks, {tasks_before} before", tasks());
    }
}

#[test]
fn a_hundred_thousand_sessions_that_are_dropped_leave_nothing() {
    play(drop_sessions(false));
}

#[test]
fn a_hundred_thousand_sessions_that_are_stored_leave_nothing_in_the_store_either() {
    play(drop_sessions(true));
}

/// The store is in memory, and so among the bytes.
async fn drop_sessions(is_stored: bool) {
    let count = |_: Map<String, Value>, _: CallContext| async { Ok("counted") };
    let tool = Tool::untyped("count", json!({"type": "object"}), count);
    let server = McpServer::builder("lab").tools([tool]).build().expect("a server");
    let endpoint = Endpoint::start();
    let mcp = Mcp::builder(&endpoint, Development)
        .deployment(&Deployment::in_memory())
        .settings(|settings| settings.stores_sessions = is_stored)
        .server(server)
        .build()
        .expect("one server");
    let socket = mcp.routes(endpoint.socket("/socket")).build();
    let visit = async |token: Value| {
        let client = Client::new().connect(&socket).await.expect("everyone may connect");
        let params = json!({"clientInfo": {"name": "churn", "version": "1"}, "recoveryToken": token});
        let session = client.join("mcp:session", params).await.expect("a session");
        let call = json!({"jsonrpc": "2.0", "id": 1, "method": "tools/call", "params": {"name": "count"}});
        session.call("mcp_message", call).await;
        let reply: Value = session.joined().parse().expect("JSON");
        client.disconnect().await;
        reply
    };

    rounds(async || {
        for n in 0..SESSIONS {
            let reply = visit(json!(true)).await;
            if n % 2 == 0 {
                let again = visit(reply["recoveryToken"].clone()).await;
                assert_eq!((&again["resumed"], &again["sessionId"]), (&json!(true), &reply["sessionId"]));
            }
        }
        assert_eq!(mcp.detached_sessions(), SESSIONS);
        tokio::time::sleep(Duration::from_secs(3_700)).await;
        assert_eq!((mcp.sessions(), mcp.detached_sessions()), (0, 0));
    })
    .await;
}

#[test]
fn a_hundred_thousand_topics_with_history_leave_nothing() {
    play(drop_topics());
}

async fn drop_topics() {
    let endpoint = Endpoint::start();
    endpoint.keep("plain:*", HistoryOptions::default());
    let socket = endpoint.socket("/socket").channel::<Plain>("plain:*").build();
    let socket = Arc::clone(&socket);
    let mut named = 0;

    rounds(async || {
        for _ in 0..SESSIONS {
            named += 1;
            let topic = format!("plain:{named}");
            let client = Client::new().connect(&socket).await.expect("everyone may connect");
            client.join(&topic, json!({"resume": null})).await.expect("everyone may join");
            endpoint.broadcast(&topic, "said", json!({"n": named})).expect("there is room");
            client.disconnect().await;
        }
        assert_eq!(endpoint.histories(), SESSIONS);
        tokio::time::sleep(Duration::from_secs(310)).await;
        assert_eq!((endpoint.histories(), endpoint.history_bytes()), (0, 0));
    })
    .await;
}
