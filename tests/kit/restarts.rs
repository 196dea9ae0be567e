//! MCP sessions that outlive their server: a runtime that is dropped with all its tasks is a process that was killed.

use std::sync::Arc;
use std::time::Duration;

use bennu::Endpoint;
use bennu::mcp::auth::Development;
use bennu::mcp::deployment::Deployment;
use bennu::mcp::{CallContext, Mcp, McpServer, OnRestart, Settings, Tool};
use bennu::testing::{Client, TestChannel, TestSocket};
use futures::FutureExt;
use futures::future::BoxFuture;
use parking_lot::Mutex;
use serde_json::{Map, Value, json};
use tokio::sync::Semaphore;

use super::recovery::{TOPIC, all, ask, back, join, wish};

const SECRET: &[u8] = b"the same before and after";

/// What outlives the process.
#[derive(Clone)]
struct World {
    deployment: Deployment,
    /// What the tools were run as: their names and execution ids.
    runs: Arc<Mutex<Vec<(String, String)>>>,
    settings: fn(&mut Settings),
}

/// One life of the server.
struct Life {
    mcp: Arc<Mcp>,
    _endpoint: Endpoint,
    connect: Box<dyn Fn() -> BoxFuture<'static, TestSocket>>,
    gate: Arc<Semaphore>,
}

impl World {
    fn new() -> Self {
        World { deployment: Deployment::in_memory(), runs: Arc::default(), settings: |_| {} }
    }

    /// Lives until `act` ends; then everything is gone at once but what was stored.
    fn live<R>(&self, act: impl AsyncFnOnce(&Life) -> R) -> R {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().start_paused(true).build();
        let runtime = runtime.expect("a runtime");
        let acted = runtime.block_on(async {
            let life = Life::begin(self);
            life.mcp.resume().await.expect("the store");
            act(&life).await
        });
        drop(runtime);
        acted
    }

    fn runs_of(&self, name: &str) -> Vec<String> {
        self.runs.lock().iter().filter(|(run, _)| run == name).map(|(_, id)| id.clone()).collect()
    }
}

impl Life {
    fn begin(world: &World) -> Self {
        let gate = Arc::new(Semaphore::new(0));
        let tool = |name: &'static str| {
            let (runs, gate) = (Arc::clone(&world.runs), Arc::clone(&gate));
            Tool::untyped(name, json!({"type": "object"}), move |_: Map<String, Value>, context: CallContext| {
                runs.lock().push((name.to_owned(), context.execution_id()));
                let gate = Arc::clone(&gate);
                async move {
                    context.progress(1.0, None, None);
                    match name {
                        "big" => return Ok("x".repeat(200_000)),
                        "count" => {}
                        _ => gate.acquire().await.expect("it stays open").forget(),
                    }
                    Ok(format!("{name} done"))
                }
            })
            .max_execution_ms(600_000)
        };
        let server = McpServer::builder("lab").tools([
            tool("count"),
            tool("big"),
            tool("once"),
            tool("again").on_restart(OnRestart::Rerun),
            tool("reads").annotations(json!({"readOnlyHint": true})),
        ]);
        let endpoint = Endpoint::start();
        let change = world.settings;
        let mcp = Mcp::builder(&endpoint, Development)
            .deployment(&world.deployment)
            .secret(SECRET)
            .settings(|settings| {
                settings.stores_sessions = true;
                change(settings);
            })
            .server(server.build().expect("a server"))
            .build()
            .expect("one server");
        let socket = mcp.routes(endpoint.socket("/socket")).build();
        let connect = Box::new(move || {
            let socket = Arc::clone(&socket);
            async move { Client::new().connect(&socket).await.expect("everyone may connect") }.boxed()
        });
        Life { mcp, _endpoint: endpoint, connect, gate }
    }

    async fn visit(&self, wish: Value) -> (TestSocket, TestChannel, Value) {
        let socket = (self.connect)().await;
        let (session, reply) = join(&socket, TOPIC, wish).await;
        (socket, session, reply)
    }

    /// Ends in order.
    async fn stop(&self, socket: TestSocket) {
        socket.disconnect().await;
        self.mcp.drain().await;
    }
}

fn call(name: &str) -> Value {
    json!({"name": name, "_meta": {"progressToken": "t"}})
}

#[test]
fn what_a_client_missed_comes_from_the_store_in_order_and_once() {
    let world = World::new();
    let joined = world.live(async |life| {
        let (socket, session, joined) = life.visit(wish()).await;
        ask(&session, 1, call("count")).await;
        let told = all(&socket).await;
        assert_eq!(told.last().map(String::as_str), Some("@5 answer 1 count done"), "{told:?}");
        joined
    });

    let again = world.live(async |life| {
        let (socket, session, again) = life.visit(back(&joined, "@2")).await;
        assert_eq!((&again["resumed"], &again["sessionId"]), (&json!(true), &joined["sessionId"]));
        assert_eq!(again["lastMessageId"], "@2");
        let replayed = all(&socket).await;
        assert_eq!(replayed, ["@3 progress 1", "@4 tool_completed", "@5 answer 1 count done"]);
        // The same call is answered, not run.
        ask(&session, 1, call("count")).await;
        assert_eq!(all(&socket).await, Vec::<String>::new(), "its answer was given to this attachment");
        ask(&session, 2, call("count")).await;
        assert_eq!(all(&socket).await.last().map(String::as_str), Some("@10 answer 2 count done"));
        again
    });
    let ids = world.runs_of("count");
    assert!(ids.len() == 2 && ids[0] != ids[1], "{ids:?}");

    // The token that was used counts, and the one that it brought.
    for reply in [&joined, &again] {
        world.live(async |life| {
            let (_socket, _session, third) = life.visit(back(reply, "@10")).await;
            assert_eq!((&third["resumed"], &third["lastMessageId"]), (&json!(true), &json!("@10")));
        });
    }
}

#[test]
fn a_call_that_was_broken_off_is_run_again_or_fails_as_its_tool_wants() {
    let world = World::new();
    let joined = world.live(async |life| {
        let (socket, session, joined) = life.visit(wish()).await;
        for (id, name) in [(1, "once"), (2, "again"), (3, "reads")] {
            ask(&session, id, call(name)).await;
        }
        assert_eq!(all(&socket).await.len(), 9);
        joined
    });
    assert_eq!(world.runs.lock().len(), 3);

    world.live(async |life| {
        let (socket, session, _) = life.visit(back(&joined, "@9")).await;
        life.gate.add_permits(2);
        let told = all(&socket).await;
        let answer = |id: u8| told.iter().find(|told| told.contains(&format!("answer {id}"))).cloned();
        let failed = answer(1).expect("an answer");
        assert!(failed.contains("the server was restarted while the call ran"), "{failed}");
        for (id, name) in [(2, "again"), (3, "reads")] {
            assert!(answer(id).is_some_and(|answer| answer.ends_with(&format!("{name} done"))), "{told:?}");
        }
        // What the outcome was is known from here on.
        ask(&session, 1, call("once")).await;
        ask(&session, 2, call("again")).await;
        assert_eq!(all(&socket).await, Vec::<String>::new());
    });
    assert_eq!(world.runs_of("once").len(), 1);
    for name in ["again", "reads"] {
        let ids = world.runs_of(name);
        assert!(ids.len() == 2 && ids[0] == ids[1], "{name}: {ids:?}");
    }
}

#[test]
fn a_call_that_runs_again_answers_under_the_id_asked_last() {
    let world = World::new();
    let keyed = json!({"name": "again", "_meta": {"idempotencyKey": "k"}});
    let (joined, again) = world.live(async |life| {
        let (socket, session, joined) = life.visit(wish()).await;
        ask(&session, 1, keyed.clone()).await;
        socket.disconnect().await;
        let (_socket, session, again) = life.visit(back(&joined, "@0")).await;
        ask(&session, "b", keyed.clone()).await;
        (joined, again)
    });
    assert_eq!(joined["sessionId"], again["sessionId"]);

    world.live(async |life| {
        let (socket, session, _) = life.visit(back(&again, "@0")).await;
        life.gate.add_permits(1);
        let told = all(&socket).await;
        assert!(told.last().is_some_and(|told| told.ends_with("answer \"b\" again done")), "{told:?}");
        ask(&session, "c", keyed).await;
        let told = all(&socket).await;
        assert!(told.last().is_some_and(|told| told.ends_with("answer \"c\" again done")), "{told:?}");
    });
    assert_eq!(world.runs.lock().len(), 2);
}

#[test]
fn a_stop_in_order_leaves_to_the_next_life_what_may_go_on() {
    let world = World::new();
    let joined = world.live(async |life| {
        let (socket, session, joined) = life.visit(wish()).await;
        for (id, name) in [(1, "once"), (2, "again")] {
            ask(&session, id, call(name)).await;
        }
        life.stop(socket).await;
        joined
    });

    world.live(async |life| {
        let (socket, _session, again) = life.visit(back(&joined, "@0")).await;
        assert_eq!(again["resumed"], true);
        life.gate.add_permits(1);
        let told = all(&socket).await;
        assert!(
            told.iter().any(|told| told.contains("answer 1") && told.ends_with("cancelled: the server stops")),
            "{told:?}"
        );
        assert!(told.iter().any(|told| told.ends_with("answer 2 again done")), "{told:?}");
    });
    assert_eq!((world.runs_of("once").len(), world.runs_of("again").len()), (1, 2));
}

#[test]
fn requests_that_were_no_calls_are_told_to_be_asked_again() {
    let world = World::new();
    let joined = world.live(async |life| {
        let (_socket, session, joined) = life.visit(wish()).await;
        let sampling = json!({"jsonrpc": "2.0", "id": 7, "method": "subscriptions/listen", "params": {
            "notifications": {"toolsListChanged": true},
            "_meta": {
                "io.modelcontextprotocol/protocolVersion": "2026-07-28",
                "io.modelcontextprotocol/clientCapabilities": {},
                "io.modelcontextprotocol/clientInfo": {"name": "kit", "version": "1"},
            },
        }});
        assert_eq!(session.call("mcp_message", sampling).await.status, "ok");
        // One that is stored after it has it along.
        ask(&session, 1, call("count")).await;
        joined
    });

    // The next life ends before it has said so, and before its client was there.
    let again = world.live(async |life| {
        let (session, reply) = join(&(life.connect)().await, TOPIC, back(&joined, "@0")).await;
        drop(session);
        reply
    });

    world.live(async |life| {
        let (socket, _session, _) = life.visit(back(&again, "@0")).await;
        let told = all(&socket).await;
        let asked = told.iter().filter(|told| told.contains("answer 7")).collect::<Vec<_>>();
        assert!(asked.len() == 1 && asked[0].contains("ask again"), "{told:?}");
    });
}

#[test]
fn what_has_ended_is_not_come_back_to() {
    let world = World::new();
    let (left, kicked) = world.live(async |life| {
        let (socket, session, left) = life.visit(wish()).await;
        session.leave().await;
        let (_socket, _session, kicked) = life.visit(wish()).await;
        assert!(life.mcp.end_session(kicked["sessionId"].as_str().expect("an id")));
        all(&socket).await;
        (left, kicked)
    });
    for reply in [&left, &kicked] {
        world.live(async |life| {
            let (_socket, _session, fresh) = life.visit(back(reply, "@0")).await;
            assert_eq!(fresh["resumed"], false);
        });
    }
}

#[test]
fn a_session_that_waits_in_the_store_can_be_ended_and_one_that_is_there_is_not_taken_for_that() {
    let world = World::new();
    let (ended, there) = world.live(async |life| (life.visit(wish()).await.2, life.visit(wish()).await.2));
    world.live(async |life| {
        let id = |reply: &Value| reply["sessionId"].as_str().expect("an id").to_owned();
        let (_socket, _session, again) = life.visit(back(&there, "@0")).await;
        assert_eq!(again["resumed"], true);
        assert_eq!(life.mcp.end_stored_session(&id(&there)).await, Ok(false));
        assert_eq!(life.mcp.end_stored_session("mcp_session_0000000000000000").await, Ok(false));
        assert_eq!(life.mcp.end_stored_session(&id(&ended)).await, Ok(true));
        let (_socket, _session, fresh) = life.visit(back(&ended, "@0")).await;
        assert_eq!(fresh["resumed"], false);
    });
}

#[test]
fn sessions_that_are_in_memory_again_leave_nothing_in_the_store() {
    let world = World::new();
    let joined = world.live(async |life| life.visit(wish()).await.2);
    let in_memory = World { settings: |settings| settings.stores_sessions = false, ..world.clone() };
    in_memory.live(async |life| {
        let (_socket, _session, fresh) = life.visit(back(&joined, "@0")).await;
        assert_eq!(fresh["resumed"], false);
    });
    world.live(async |life| {
        let (_socket, _session, fresh) = life.visit(back(&joined, "@0")).await;
        assert_eq!(fresh["resumed"], false);
    });
}

#[test]
fn nobody_comes_back_when_the_window_since_the_start_is_over() {
    let world = World::new();
    let joined = world.live(async |life| life.visit(wish()).await.2);
    world.live(async |life| {
        tokio::time::sleep(Duration::from_secs(301)).await;
        let (_socket, _session, fresh) = life.visit(back(&joined, "@0")).await;
        assert_eq!(fresh["resumed"], false, "time that passes counts, whatever the wall clock says");
    });
}

#[test]
fn tokens_of_others_bring_nothing_back_from_the_store() {
    let world = World::new();
    let joined = world.live(async |life| life.visit(wish()).await.2);
    world.live(async |life| {
        let socket = (life.connect)().await;
        let (_session, other) = join(&socket, "mcp:session:b", back(&joined, "@0")).await;
        assert_eq!(other["resumed"], false, "another topic");
        let mut forged = joined.clone();
        forged["recoveryToken"] = json!(format!("{}x", joined["recoveryToken"].as_str().expect("a token")));
        let (_socket, _session, other) = life.visit(back(&forged, "@0")).await;
        assert_eq!(other["resumed"], false, "forged");
        let (_socket, _session, back) = life.visit(back(&joined, "@0")).await;
        assert_eq!(back["sessionId"], joined["sessionId"]);
    });
}

#[test]
fn a_session_that_can_not_be_stored_ends_so_that_its_client_joins_again() {
    let world = World::new();
    world.live(async |life| {
        // The store in memory holds 64 MiB.
        let mut held = Vec::new();
        let mut told: Vec<String> = Vec::new();
        while !told.iter().any(|told| told.ends_with("phx_error")) {
            assert!(held.len() < 200, "{told:?}");
            let (socket, session, joined) = life.visit(wish()).await;
            for id in 1..=4 {
                ask(&session, id, call("big")).await;
            }
            told = all(&socket).await;
            held.push((socket, session, joined));
        }
        assert!(held.len() > 10);

        let (_, session, joined) = held.remove(0);
        session.leave().await;
        let (socket, session, again) = life.visit(back(&held[0].2, "@0")).await;
        assert_eq!(again["resumed"], true, "others go on");
        ask(&session, 1, call("count")).await;
        all(&socket).await;
        let (_socket, _session, gone) = life.visit(back(&joined, "@0")).await;
        assert_eq!(gone["resumed"], false);
    });
}
