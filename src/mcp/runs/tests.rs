use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::Duration;

use futures::FutureExt;
use futures::future::BoxFuture;
use serde_json::{Value, json};
use tokio::sync::Notify;

use super::*;
use crate::mcp::auth::Development;
use crate::mcp::outgoing::{Kind, Outgoing};
use crate::mcp::session::{NewSession, Session};
use crate::mcp::{CallContext, CallError, Content, Mcp, McpBuilder, McpServer, Settings, Tool, ToolOutput};
use crate::protocol::jsonrpc;
use crate::protocol::mcp::client::Client;
use crate::protocol::mcp::peer::Peer;
use crate::protocol::mcp::{PROGRESS_BURST, RESULT_BYTES_MAX, RUN_FINISHED, RUN_STARTED, RUNS_TOPIC};

type Body = fn(CallContext) -> BoxFuture<'static, Result<ToolOutput, CallError>>;

/// One scripted tool, and everything that its runs publish.
struct Bench {
    mcp: Arc<Mcp>,
    published: Arc<Mutex<Vec<(String, String, Value)>>>,
    is_overloaded: Arc<AtomicBool>,
}

/// A run and what its caller is told.
struct Started {
    run: Arc<Run>,
    session: Arc<Session>,
    route: Arc<Outgoing>,
}

impl Started {
    /// The response that the caller got.
    fn response(&self) -> Value {
        let taken = self.route.take();
        let response = taken.iter().find(|item| matches!(item.kind, Kind::Response(_))).expect("a response");
        serde_json::from_slice(&response.text).expect("JSON")
    }

    fn cancel(&self) {
        let cancelled = json!({"jsonrpc": "2.0", "method": "notifications/cancelled", "params": {"requestId": "id-1"}});
        self.session.receive(cancelled.to_string().as_bytes(), &self.route);
    }
}

impl std::ops::Deref for Started {
    type Target = Arc<Run>;

    fn deref(&self) -> &Arc<Run> {
        &self.run
    }
}

impl Bench {
    fn new(body: Body) -> Self {
        Self::with(body, |_| {})
    }

    fn with(body: Body, settings: impl FnOnce(&mut Settings)) -> Self {
        let published = Arc::<Mutex<Vec<_>>>::default();
        let is_overloaded = Arc::new(AtomicBool::new(false));
        let (sink, refuses) = (Arc::clone(&published), Arc::clone(&is_overloaded));
        let publish: Publish = Arc::new(move |topic: &str, event: &str, payload: Bytes| {
            if refuses.load(Ordering::SeqCst) {
                return false;
            }
            let payload = serde_json::from_slice(&payload).expect("broadcasts are JSON");
            sink.lock().push((topic.to_owned(), event.to_owned(), payload));
            true
        });
        let tool = Tool::untyped("t", json!({"type": "object"}), move |_, context| body(context));
        let server = McpServer::builder("s").tool(tool.max_execution_ms(150)).build().expect("one tool");
        let mcp = McpBuilder::new(publish, Development).server(server).settings(settings).build();
        Bench { mcp: mcp.expect("one server"), published, is_overloaded }
    }

    /// Calls the tool in a session of its own; the error's message if it is refused.
    fn try_start(&self, connection: u64) -> Result<Started, String> {
        let route = Arc::new(Outgoing::new(|| {}));
        let client = Client::joined("test", "1", &jsonrpc::raw(&json!({})));
        let new = NewSession {
            server: self.mcp.default_server(),
            user: Identity::member("u"),
            connection,
            peer: Peer::joined(client),
            standing: Arc::clone(&route),
            is_streaming: false,
            introduction: None,
            is_workflow: false,
        };
        let session = Session::passing(&self.mcp, new);
        let begun = Arc::<Mutex<Option<Arc<Run>>>>::default();
        let sink = Arc::clone(&begun);
        let observation = session.observe(move |watch| {
            sink.lock().get_or_insert_with(|| Arc::clone(watch.run()));
            false
        });
        let call = json!({"jsonrpc": "2.0", "id": "id-1", "method": "tools/call", "params": {"name": "t"}});
        session.receive(call.to_string().as_bytes(), &route);
        drop(observation);
        let run = begun.lock().take();
        match run {
            Some(run) => Ok(Started { run, session, route }),
            None => {
                let refused: Value = serde_json::from_slice(&route.take()[0].text).expect("JSON");
                Err(refused["error"]["message"].as_str().expect("an error").to_owned())
            }
        }
    }

    fn start(&self) -> Started {
        self.try_start(1).expect("there is room")
    }

    /// A run of the first connection that has ended, in the registry's eyes too.
    async fn ended(&self) -> Started {
        self.ended_on(1).await
    }

    async fn ended_on(&self, connection: u64) -> Started {
        let run = self.try_start(connection).expect("there is room");
        self.mcp.idle().await;
        run
    }

    fn events_of(&self, topic: &str) -> Vec<(String, Value)> {
        let published = self.published.lock();
        published
            .iter()
            .filter(|(on, ..)| on == topic)
            .map(|(_, event, payload)| (event.clone(), payload.clone()))
            .collect()
    }
}

fn values(entries: &[Entry]) -> Vec<Value> {
    entries.iter().map(|entry| serde_json::from_slice(&entry.event).expect("JSON")).collect()
}

fn done(text: &str) -> Result<ToolOutput, CallError> {
    Ok(ToolOutput { content: vec![Content::text(text)], usage: [("steps", 2)].into(), ..ToolOutput::default() })
}

/// Ends at once.
fn quick(_: CallContext) -> BoxFuture<'static, Result<ToolOutput, CallError>> {
    async { done("x") }.boxed()
}

/// Ends after a moment, in which a test can begin to listen.
fn soon(_: CallContext) -> BoxFuture<'static, Result<ToolOutput, CallError>> {
    async {
        tokio::time::sleep(Duration::from_millis(10)).await;
        done("x")
    }
    .boxed()
}

/// Never ends by itself.
fn hanging(_: CallContext) -> BoxFuture<'static, Result<ToolOutput, CallError>> {
    futures::future::pending().boxed()
}

#[tokio::test]
async fn a_run_is_started_tells_its_progress_and_completes_with_the_callers_result() {
    let bench = Bench::new(|context| {
        async move {
            context.progress(1.0, Some(2.0), Some("half".into()));
            context.progress(2.0, Some(2.0), None);
            done("fine")
        }
        .boxed()
    });

    let run = bench.ended().await;

    let mut events = values(&run.events_after(0));
    let response = run.response();
    let result = &response["result"];
    for event in &mut events {
        assert_eq!((&event["stream_id"], &event["request_id"]), (&json!(run.id()), &json!("id-1")));
        let timestamp = event["timestamp"].as_str().expect("a time");
        assert!(timestamp.len() == 27 && timestamp.ends_with('Z'), "{timestamp}");
    }
    assert_eq!(events.iter().map(|event| event["seq"].clone()).collect::<Vec<_>>(), [1, 2, 3, 4]);
    assert_eq!((&events[0]["type"], &events[0]["data"]), (&json!("tool_started"), &json!({"tool": "t"})));
    assert_eq!(events[1]["data"], json!({"tool": "t", "progress": 1, "total": 2, "message": "half"}));
    assert_eq!(events[2]["data"], json!({"tool": "t", "progress": 2, "total": 2}));
    assert_eq!((&events[3]["type"], &events[3]["data"]["result"]), (&json!("tool_completed"), result));
    assert_eq!(result["content"], json!([{"type": "text", "text": "fine"}]));
    assert_eq!(
        (&result["metadata"]["tool"], &result["metadata"]["resourceUsage"]),
        (&json!("t"), &json!({"steps": 2}))
    );
    assert!(result["metadata"]["executionTime"].is_u64());
}

#[tokio::test(start_paused = true)]
async fn a_flood_of_progress_is_a_burst_and_the_last_report() {
    let bench = Bench::new(|context| {
        async move {
            (1..=1_000).for_each(|step| context.progress(f64::from(step), None, None));
            done("x")
        }
        .boxed()
    });

    let run = bench.ended().await;

    let events = values(&run.events_after(0));
    let told: Vec<_> = events.iter().filter_map(|event| event["data"]["progress"].as_u64()).collect();
    let burst = u64::from(PROGRESS_BURST);
    assert_eq!(told, (1..=burst).chain([1_000]).collect::<Vec<_>>());
}

#[tokio::test]
async fn every_event_is_broadcast_to_those_who_listen_and_begin_and_end_to_those_who_follow() {
    let bench = Bench::new(soon);
    let _following = bench.mcp.runs().follow();

    let run = bench.start();
    let listening = run.listen();
    bench.mcp.idle().await;

    let broadcast = bench.events_of(&format!("mcp:run:{}", run.id()));
    assert!(broadcast.iter().all(|(event, _)| event == "streaming_event"));
    let told: Vec<_> = broadcast.into_iter().map(|(_, payload)| payload).collect();
    assert_eq!(told, values(&run.events_after(1)), "what came before is in the log");
    assert!(Arc::ptr_eq(listening.run(), &run));

    let announced = bench.events_of(RUNS_TOPIC);
    let names: Vec<_> = announced.iter().map(|(event, payload)| (event.as_str(), payload["status"].clone())).collect();
    assert_eq!(names, [(RUN_STARTED, json!("running")), (RUN_FINISHED, json!("completed"))]);
    let (listed, last) = bench.mcp.runs().list(|_| true);
    assert_eq!((listed, last), (vec![run.summary()], 2));
    assert!(bench.mcp.runs().list(|_| false).0.is_empty());
    let later = bench.mcp.runs().announcements_after(1);
    assert!(later.len() == 1 && later[0].event == RUN_FINISHED);
}

#[tokio::test]
async fn who_listens_hears_of_the_next_event_where_one_was_refused_or_is_not_kept() {
    let bench = Bench::with(hanging, |settings| settings.run_bytes_max = 1_024);
    let run = bench.start();
    let _listening = run.run.listen();
    run.read_after(0);
    let topic = format!("{RUN_TOPIC_PREFIX}{}", run.id());
    let report = |progress, message: &str| {
        run.tell(Progress { progress, total: None, message: Some(message.to_owned()) }, false);
        bench.events_of(&topic).into_iter().map(|(_, event)| event["data"]["progress"].clone()).collect::<Vec<_>>()
    };

    bench.is_overloaded.store(true, Ordering::SeqCst);
    assert_eq!(report(1.0, "refused"), Vec::<Value>::new());
    bench.is_overloaded.store(false, Ordering::SeqCst);
    assert_eq!(report(2.0, "told"), [json!(2)]);
    assert_eq!(report(3.0, "nobody has read the one before"), [json!(2)]);
    run.read_after(0);
    assert_eq!(report(4.0, &"too large to be kept".repeat(50)), [json!(2)]);

    assert_eq!(report(5.0, "told too"), [json!(2), json!(5)]);
}

#[tokio::test]
async fn where_nobody_listens_nothing_is_published() {
    let bench = Bench::new(soon);
    drop(bench.mcp.runs().follow());
    let run = bench.start();
    drop(run.listen());

    bench.mcp.idle().await;

    assert_eq!(*bench.published.lock(), []);
    assert!(bench.mcp.runs().announcements_after(0).is_empty());
}

#[tokio::test]
async fn ids_are_128_random_bits() {
    let bench = Bench::new(quick);

    let (one, other) = (bench.ended().await, bench.ended().await);

    assert!(one.id().len() == 32 && one.id().bytes().all(|c| c.is_ascii_hexdigit() && !c.is_ascii_uppercase()));
    assert_ne!(one.id(), other.id());
    assert!(bench.mcp.runs().find(one.id()).is_some_and(|found| Arc::ptr_eq(&found, &one)));
    assert!(bench.mcp.runs().find("nobody").is_none());
}

/// The `reason` and `error` of a run's last event.
async fn failure(bench: &Bench, run: &Started) -> (String, String) {
    bench.mcp.idle().await;
    let last = values(&run.events_after(0)).pop().expect("an end");
    assert_eq!(last["type"], "tool_failed");
    let text = |key: &str| last["data"][key].as_str().expect("a text").to_owned();
    (text("reason"), text("error"))
}

#[tokio::test]
async fn failures_end_a_run_and_are_told_in_band() {
    let invalid: Body = |_| async { Err(CallError::InvalidArguments("n: expected 1, came 2".into())) }.boxed();
    let failed: Body = |_| async { Err(CallError::Failed("no luck".into())) }.boxed();
    let panics: Body = |_| async { panic!("secret") }.boxed();
    let panics_at_once: Body = |_| panic!("secret");
    let cases: [(Body, &str, &str); 5] = [
        (invalid, "invalid_arguments", "invalid arguments: n: expected 1, came 2"),
        (failed, "failed", "no luck"),
        (panics, "crashed", "the tool crashed"),
        (panics_at_once, "crashed", "the tool crashed"),
        (hanging, "timeout", "timed out after 150 ms"),
    ];

    for (body, reason, error) in cases {
        let bench = Bench::new(body);
        let run = bench.start();
        let told = failure(&bench, &run).await;

        assert_eq!(told, (reason.to_owned(), error.to_owned()));
        let text = format!("Tool execution failed: {error}");
        assert_eq!(run.response()["result"], json!({"content": [{"type": "text", "text": text}], "isError": true}));
    }
}

#[tokio::test]
async fn a_cancelled_run_fails_with_the_reason_cancelled_and_is_not_answered() {
    let bench = Bench::new(hanging);
    let run = bench.start();

    run.cancel();

    let told = failure(&bench, &run).await;
    assert_eq!(told, ("cancelled".to_owned(), "cancelled by the client".to_owned()));
    assert!(run.route.take().iter().all(|item| !item.kind.is_message()));
}

#[tokio::test]
async fn work_on_a_thread_learns_that_its_call_is_over() {
    static HAS_STOPPED: AtomicBool = AtomicBool::new(false);
    let bench = Bench::new(|context| {
        async move {
            let work = |context: &CallContext| {
                while !context.is_cancelled() {
                    std::thread::yield_now();
                }
                HAS_STOPPED.store(true, Ordering::SeqCst);
                Err::<ToolOutput, _>(CallError::Cancelled)
            };
            context.on_thread(work).await
        }
        .boxed()
    });
    let run = bench.start();

    let (reason, _) = failure(&bench, &run).await;

    assert_eq!(reason, "timeout");
    // The thread stops by itself; the test's own time limit is the only bound on how soon.
    while !HAS_STOPPED.load(Ordering::SeqCst) {
        tokio::task::yield_now().await;
    }
}

#[tokio::test]
async fn nothing_is_told_after_the_end() {
    static LATE: Mutex<Option<CallContext>> = Mutex::new(None);
    let bench = Bench::new(|context| {
        *LATE.lock() = Some(context);
        async { done("x") }.boxed()
    });
    let run = bench.ended().await;

    LATE.lock().take().expect("the tool ran").progress(1.0, None, None);

    assert_eq!((run.last_seq(), run.route.take().len()), (2, 1));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_watcher_reads_each_event_once_whenever_it_begins_and_however_it_is_woken() {
    let body: Body = |context| {
        async move {
            for step in 1..=8 {
                context.progress(f64::from(step), None, None);
                tokio::time::sleep(Duration::from_millis(10)).await;
            }
            done("x")
        }
        .boxed()
    };
    let bench = Bench::new(body);
    let run = bench.start();

    for begin in 0..6 {
        tokio::time::sleep(Duration::from_millis(10)).await;
        let (_, mut seen) = run.snapshot();
        let (more, wakes) = (Arc::new(Notify::new()), Arc::new(AtomicUsize::new(0)));
        let (wake, count) = (Arc::clone(&more), Arc::clone(&wakes));
        let watch = run.watch(seen.last().map_or(0, |last| last.seq), move |_| {
            wake.notify_one();
            count.fetch_add(1, Ordering::SeqCst);
            true
        });
        // Slow readers and quick ones.
        if begin % 2 == 0 {
            while seen.last().is_none_or(|last| !last.kind.is_terminal()) {
                more.notified().await;
                seen.extend(watch.take_new());
            }
            let seqs: Vec<_> = seen.iter().map(|entry| entry.seq).collect();
            assert_eq!(seqs, (1..=run.last_seq()).collect::<Vec<_>>());
        } else {
            tokio::time::sleep(Duration::from_millis(30)).await;
            assert!(wakes.load(Ordering::SeqCst) <= 1, "one wake-up until the events are taken");
        }
    }
}

#[tokio::test]
async fn a_watcher_that_is_gone_is_not_asked_again() {
    let bench = Bench::new(|context| {
        async move {
            for step in 1..=3 {
                context.progress(f64::from(step), None, None);
                tokio::time::sleep(Duration::from_millis(60)).await;
            }
            done("x")
        }
        .boxed()
    });
    let asked = Arc::new(AtomicUsize::new(0));
    let count = Arc::clone(&asked);

    let run = bench.start();
    run.watch(0, move |_| {
        count.fetch_add(1, Ordering::SeqCst);
        false
    });
    bench.mcp.idle().await;

    // Once for what was there already, once for the first event after.
    assert!(asked.load(Ordering::SeqCst) <= 2, "{asked:?}");
}

#[tokio::test]
async fn an_observer_that_is_gone_leaves_no_watch() {
    let bench = Bench::new(hanging);
    let run = bench.start();
    assert_eq!(run.watchers(), 0, "the observer that saw it begin");

    let observation = run.session.observe(|_| true);
    assert_eq!(run.watchers(), 1);
    let later = run.session.observe(|_| true);
    drop(observation);
    assert_eq!(run.watchers(), 1, "the later observer's");
    drop(later);

    assert_eq!(run.watchers(), 0);
    bench.mcp.drain().await;
}

#[tokio::test]
async fn ended_runs_make_room_and_running_ones_do_not() {
    let bench = Bench::with(quick, |settings| settings.runs_max = 2);
    let (first, second) = (bench.ended().await, bench.ended().await);

    let third = bench.ended().await;

    assert!(bench.mcp.runs().find(first.id()).is_none(), "the oldest ended run went");
    assert!(bench.mcp.runs().find(second.id()).is_some() && bench.mcp.runs().find(third.id()).is_some());

    let full = Bench::with(hanging, |settings| settings.runs_max = 2);
    let _running = (full.start(), full.start());
    let refused = full.try_start(2).err();
    assert_eq!(refused.as_deref(), Some("Too many concurrent calls on this server: the limit is 2"));
    full.mcp.drain().await;
}

#[tokio::test]
async fn where_runs_make_room_the_callers_own_go_first() {
    let bench = Bench::with(quick, |settings| settings.runs_max = 10);
    let other = bench.ended_on(2).await;

    let mut newest = bench.ended_on(1).await;
    for _ in 0..50 {
        newest = bench.ended_on(1).await;
    }

    assert!(bench.mcp.runs().find(other.id()).is_some(), "a run of another connection is within its retention");
    assert!(bench.mcp.runs().find(newest.id()).is_some());
    assert_eq!(bench.mcp.runs().list(|_| true).0.len(), 10);
    // Someone without a run to give gets the oldest of all.
    let third = bench.ended_on(3).await;
    assert!(bench.mcp.runs().find(other.id()).is_none() && bench.mcp.runs().find(third.id()).is_some());
}

#[tokio::test]
async fn a_connection_has_a_quarter_of_the_runs_under_way() {
    let bench = Bench::with(hanging, |settings| {
        settings.runs_max = 16;
        settings.calls_per_session_max = 2;
    });
    for _ in 0..4 {
        bench.start();
    }

    let refused = bench.try_start(1).err();

    assert_eq!(refused.as_deref(), Some("Too many concurrent calls on this connection: the limit is 4"));
    assert!(bench.try_start(2).is_ok());
    assert_eq!(bench.mcp.runs().list(|_| true).0.len(), 5, "what is refused is no run");
    bench.mcp.drain().await;
    while bench.try_start(1).is_err() {
        tokio::task::yield_now().await;
    }
    bench.mcp.drain().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn waiting_for_a_thread_does_not_count_against_the_execution_time() {
    let body: Body = |context| {
        async move {
            let work = |_: &CallContext| {
                std::thread::sleep(Duration::from_millis(60));
                done("x")
            };
            context.on_thread(work).await
        }
        .boxed()
    };
    // Five calls of 60 ms on one thread: the last one starts after the 150 ms that the tool may take.
    let bench = Bench::with(body, |settings| settings.worker_threads = 1);
    let runs: Vec<_> = (0..5).map(|_| bench.start()).collect();

    bench.mcp.idle().await;

    for run in runs {
        let last = values(&run.events_after(0)).pop().expect("an end");
        assert_eq!(last["type"], "tool_completed", "{last}");
        assert!(last["data"]["execution_time_ms"].as_u64().expect("milliseconds") < 150);
    }
}

#[tokio::test]
async fn a_result_above_its_bound_is_a_failure() {
    let bench = Bench::new(|_| async { done(&"x".repeat(RESULT_BYTES_MAX)) }.boxed());

    let run = bench.ended().await;

    let last = values(&run.events_after(0)).pop().expect("an end");
    assert_eq!((&last["type"], &last["data"]["reason"]), (&json!("tool_failed"), &json!("failed")));
    let response = run.response();
    let text = response["result"]["content"][0]["text"].as_str().expect("a text");
    assert!(text.contains("the result is too large: expected at most 262144 bytes, came "), "{text}");
}

#[tokio::test]
async fn a_run_is_found_for_its_retention_after_its_end() {
    let bench = Bench::with(quick, |settings| settings.run_retention_ms = 0);

    let run = bench.ended().await;

    assert!(bench.mcp.runs().find(run.id()).is_none());
    assert!(bench.mcp.runs().list(|_| true).0.is_empty());
}

#[tokio::test]
async fn draining_cancels_all_and_waits_for_their_ends() {
    let bench = Bench::new(hanging);
    let runs = [bench.start(), bench.start()];

    bench.mcp.drain().await;

    for run in runs {
        let last = values(&run.events_after(0)).pop().expect("an end");
        assert_eq!(last["data"]["error"], "cancelled: the server stops");
    }
}

#[tokio::test]
async fn the_end_of_a_run_is_broadcast_again_until_pubsub_takes_it() {
    let bench = Bench::new(soon);
    let run = bench.start();
    let _listening = run.listen();
    bench.is_overloaded.store(true, Ordering::SeqCst);
    bench.mcp.idle().await;
    let topic = format!("mcp:run:{}", run.id());
    assert!(bench.events_of(&topic).is_empty());

    bench.is_overloaded.store(false, Ordering::SeqCst);
    while bench.events_of(&topic).is_empty() {
        tokio::time::sleep(Duration::from_millis(10)).await;
    }

    let events = bench.events_of(&topic);
    assert_eq!(events.iter().map(|(_, event)| &event["type"]).collect::<Vec<_>>(), ["tool_completed"]);
}

#[tokio::test]
async fn a_large_result_goes_to_the_caller_alone() {
    let bench = Bench::new(|_| async { done(&"x".repeat(EVENT_RESULT_BYTES_MAX)) }.boxed());

    let run = bench.ended().await;

    let last = values(&run.events_after(0)).pop().expect("an end");
    let response = run.response();
    assert_eq!(last["data"].get("result"), None);
    assert_eq!(last["data"]["result_bytes_omitted"], response["result"].to_string().len());
}
