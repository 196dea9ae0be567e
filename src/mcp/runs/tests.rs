use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::Duration;

use futures::future::BoxFuture;
use serde_json::{Map, Value, json};
use tokio::sync::Notify;

use super::*;
use crate::mcp::Settings;
use crate::mcp::tools::{Arguments, Tool, Tools};
use crate::protocol::jsonrpc::Scope;
use crate::protocol::mcp::tool::{Content, InputSchema, ToolCapabilities, ToolMetadata, ToolSpec};
use crate::protocol::mcp::{RUN_FINISHED, RUN_STARTED, RUNS_TOPIC};

type Body = fn(ToolContext) -> BoxFuture<'static, Result<ToolOutput, ToolError>>;

/// A tool that does what the test says.
struct Scripted(Body);

impl Tool for Scripted {
    fn spec(&self) -> ToolSpec {
        ToolSpec {
            name: "t".into(),
            description: String::new(),
            input_schema: InputSchema::new(Map::new(), &[]),
            capabilities: ToolCapabilities { max_execution_time: 150, ..ToolCapabilities::default() },
            metadata: ToolMetadata::new("test", &[], 150),
        }
    }

    fn prepare(&self, _: &Arguments<'_>) -> Result<Work, ToolError> {
        Ok(Work::new(self.0))
    }
}

/// Runs with one scripted tool, and everything they publish.
struct Bench {
    runs: Arc<Runs>,
    tools: Tools,
    published: Arc<Mutex<Vec<(String, String, Value)>>>,
    is_overloaded: Arc<AtomicBool>,
}

impl Bench {
    fn new(settings: &Settings, body: Body) -> Self {
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
        let tools = Tools::new([Arc::new(Scripted(body)) as Arc<dyn Tool>]).expect("one tool");
        Bench { runs: Arc::new(Runs::new(settings, publish)), tools, published, is_overloaded }
    }

    fn try_start(&self, connection: u64) -> Result<Arc<Run>, RunsFull> {
        let tool = self.tools.find("t").expect("the scripted tool");
        let new = NewRun {
            tool,
            work: tool.prepare(&Arguments::default()).expect("takes anything"),
            request_id: jsonrpc::raw("id-1"),
            owner: Identity { user: "u".into() },
            connection,
        };
        self.runs.start(new, |_| {})
    }

    fn start(&self) -> Arc<Run> {
        self.try_start(1).expect("there is room")
    }

    /// A run of the first connection that has ended, in the registry's eyes too.
    async fn ended(&self) -> Arc<Run> {
        self.ended_on(1).await
    }

    async fn ended_on(&self, connection: u64) -> Arc<Run> {
        let run = self.try_start(connection).expect("there is room");
        self.runs.idle().await;
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

fn done(text: &str) -> Result<ToolOutput, ToolError> {
    Ok(ToolOutput { content: vec![Content::text(text)], usage: [("steps", 2)].into() })
}

#[tokio::test]
async fn a_run_is_started_tells_its_progress_and_completes_with_the_callers_result() {
    let bench = Bench::new(&Settings::default(), |context| {
        async move {
            context.progress(1.0, Some(2.0), Some("half".into()));
            // Too soon after the first: it waits, and goes out before the end.
            context.progress(2.0, Some(2.0), None);
            done("fine")
        }
        .boxed()
    });

    let run = bench.ended().await;

    let mut events = values(&run.events_after(0));
    let result: Value = serde_json::from_str(run.take_result().expect("a result").get()).expect("JSON");
    for event in &mut events {
        assert_eq!((&event["stream_id"], &event["request_id"]), (&json!(run.id()), &json!("id-1")));
        let timestamp = event["timestamp"].as_str().expect("a time");
        assert!(timestamp.len() == 27 && timestamp.ends_with('Z'), "{timestamp}");
    }
    assert_eq!(events.iter().map(|event| event["seq"].clone()).collect::<Vec<_>>(), [1, 2, 3, 4]);
    assert_eq!((&events[0]["type"], &events[0]["data"]), (&json!("tool_started"), &json!({"tool": "t"})));
    assert_eq!(events[1]["data"], json!({"tool": "t", "progress": 1, "total": 2, "message": "half"}));
    assert_eq!(events[2]["data"], json!({"tool": "t", "progress": 2, "total": 2}));
    assert_eq!((&events[3]["type"], &events[3]["data"]["result"]), (&json!("tool_completed"), &result));
    assert_eq!(result["content"], json!([{"type": "text", "text": "fine"}]));
    assert_eq!(
        (&result["metadata"]["tool"], &result["metadata"]["resourceUsage"]),
        (&json!("t"), &json!({"steps": 2}))
    );
    assert!(result["metadata"]["executionTime"].is_u64());
    assert!(run.take_result().is_none(), "the result is taken once");
}

#[tokio::test]
async fn every_event_is_broadcast_on_the_runs_topic_and_begin_and_end_are_announced() {
    let bench = Bench::new(&Settings::default(), |_| async { done("x") }.boxed());

    let run = bench.ended().await;

    let broadcast: Vec<_> = bench.events_of(&format!("mcp:run:{}", run.id())).into_iter().collect();
    assert!(broadcast.iter().all(|(event, _)| event == "streaming_event"));
    assert_eq!(broadcast.into_iter().map(|(_, payload)| payload).collect::<Vec<_>>(), values(&run.events_after(0)));

    let announced = bench.events_of(RUNS_TOPIC);
    let names: Vec<_> = announced.iter().map(|(event, payload)| (event.as_str(), payload["status"].clone())).collect();
    assert_eq!(names, [(RUN_STARTED, json!("running")), (RUN_FINISHED, json!("completed"))]);
    let (listed, last) = bench.runs.list(|_| true);
    assert_eq!((listed, last), (vec![run.summary()], 2));
    assert!(bench.runs.list(|_| false).0.is_empty());
    assert!(bench.runs.announcements_after(1).iter().all(|announcement| announcement.event == RUN_FINISHED));
}

#[tokio::test]
async fn ids_are_128_random_bits() {
    let bench = Bench::new(&Settings::default(), |_| async { done("x") }.boxed());

    let (one, other) = (bench.ended().await, bench.ended().await);

    assert!(one.id().len() == 32 && one.id().bytes().all(|c| c.is_ascii_hexdigit() && !c.is_ascii_uppercase()));
    assert_ne!(one.id(), other.id());
    assert!(bench.runs.find(one.id()).is_some_and(|found| Arc::ptr_eq(&found, &one)));
    assert!(bench.runs.find("nobody").is_none());
}

/// The `reason` and `error` of a run's last event, and the text its caller gets.
async fn failure(body: Body, act: impl FnOnce(&Arc<Run>)) -> (String, String, Value) {
    let bench = Bench::new(&Settings::default(), body);
    let run = bench.start();
    act(&run);
    bench.runs.idle().await;
    let last = values(&run.events_after(0)).pop().expect("an end");
    assert_eq!(last["type"], "tool_failed");
    let text = |key: &str| last["data"][key].as_str().expect("a text").to_owned();
    let result = run.take_result().expect("a result");
    (text("reason"), text("error"), serde_json::from_str(result.get()).expect("JSON"))
}

#[tokio::test]
async fn failures_end_a_run_and_are_told_in_band() {
    let invalid: Body = |_| async { Err(ToolError::InvalidArguments("n: expected 1, came 2".into())) }.boxed();
    let failed: Body = |_| async { Err(ToolError::Failed("no luck".into())) }.boxed();
    let panics: Body = |_| async { panic!("secret") }.boxed();
    let panics_at_once: Body = |_| panic!("secret");
    let hangs: Body = |_| futures::future::pending().boxed();
    let cases: [(Body, &str, &str); 5] = [
        (invalid, "invalid_arguments", "invalid arguments: n: expected 1, came 2"),
        (failed, "failed", "no luck"),
        (panics, "crashed", "the tool crashed"),
        (panics_at_once, "crashed", "the tool crashed"),
        (hangs, "timeout", "timed out after 150 ms"),
    ];

    for (body, reason, error) in cases {
        let (told_reason, told_error, result) = failure(body, |_| {}).await;

        assert_eq!((told_reason.as_str(), told_error.as_str()), (reason, error));
        let text = format!("Tool execution failed: {error}");
        assert_eq!(result, json!({"content": [{"type": "text", "text": text}], "isError": true}));
    }
}

#[tokio::test]
async fn a_cancelled_run_fails_with_the_reason_cancelled() {
    let hangs: Body = |_| futures::future::pending().boxed();

    let (reason, error, _) = failure(hangs, |run| run.cancel(CancelReason::Client)).await;

    assert_eq!((reason.as_str(), error.as_str()), ("cancelled", "cancelled by the client"));
}

#[tokio::test]
async fn work_on_a_thread_learns_that_its_call_is_over() {
    static HAS_STOPPED: AtomicBool = AtomicBool::new(false);
    let body: Body = |context| {
        async move {
            let work = |context: &ToolContext| {
                while !context.is_cancelled() {
                    std::thread::yield_now();
                }
                HAS_STOPPED.store(true, Ordering::SeqCst);
                Err::<ToolOutput, _>(ToolError::Cancelled)
            };
            context.on_thread(work).await
        }
        .boxed()
    };

    let (reason, ..) = failure(body, |_| {}).await;

    assert_eq!(reason, "timeout");
    // The thread stops by itself; the test's own time limit is the only bound on how soon.
    while !HAS_STOPPED.load(Ordering::SeqCst) {
        tokio::task::yield_now().await;
    }
}

#[tokio::test]
async fn nothing_is_told_after_the_end() {
    static LATE: Mutex<Option<ToolContext>> = Mutex::new(None);
    let bench = Bench::new(&Settings::default(), |context| {
        *LATE.lock() = Some(context);
        async { done("x") }.boxed()
    });
    let run = bench.ended().await;

    LATE.lock().take().expect("the tool ran").progress(1.0, None, None);

    assert_eq!(run.last_seq(), 2);
    assert_eq!(bench.events_of(&format!("mcp:run:{}", run.id())).len(), 2);
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
    let bench = Bench::new(&Settings::default(), body);
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
    let bench = Bench::new(&Settings::default(), |context| {
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
    bench.runs.idle().await;

    // Once for what was there already, once for the first event after.
    assert!(asked.load(Ordering::SeqCst) <= 2, "{asked:?}");
}

#[tokio::test]
async fn ended_runs_make_room_and_running_ones_do_not() {
    let settings = Settings { runs_max: 2, ..Settings::default() };
    let bench = Bench::new(&settings, |_| async { done("x") }.boxed());
    let (first, second) = (bench.ended().await, bench.ended().await);

    let third = bench.ended().await;

    assert!(bench.runs.find(first.id()).is_none(), "the oldest ended run went");
    assert!(bench.runs.find(second.id()).is_some() && bench.runs.find(third.id()).is_some());

    let full = Bench::new(&settings, |_| futures::future::pending().boxed());
    let _running = (full.start(), full.start());
    assert_eq!(full.try_start(2).err(), Some(RunsFull { scope: Scope::Server, limit: 2 }));
    full.runs.drain().await;
}

#[tokio::test]
async fn where_runs_make_room_the_callers_own_go_first() {
    let settings = Settings { runs_max: 10, ..Settings::default() };
    let bench = Bench::new(&settings, |_| async { done("x") }.boxed());
    let other = bench.ended_on(2).await;

    let mut newest = bench.ended_on(1).await;
    for _ in 0..50 {
        newest = bench.ended_on(1).await;
    }

    assert!(bench.runs.find(other.id()).is_some(), "a run of another connection is within its retention");
    assert!(bench.runs.find(newest.id()).is_some());
    assert_eq!(bench.runs.list(|_| true).0.len(), 10);
    // Someone without a run to give gets the oldest of all.
    let third = bench.ended_on(3).await;
    assert!(bench.runs.find(other.id()).is_none() && bench.runs.find(third.id()).is_some());
}

#[tokio::test]
async fn a_connection_has_a_quarter_of_the_runs_under_way() {
    let settings = Settings { runs_max: 16, calls_per_session_max: 2, ..Settings::default() };
    let bench = Bench::new(&settings, |_| futures::future::pending().boxed());
    for _ in 0..4 {
        bench.start();
    }

    let refused = bench.try_start(1).err();

    assert_eq!(refused, Some(RunsFull { scope: Scope::Connection, limit: 4 }));
    assert!(bench.try_start(2).is_ok());
    assert_eq!(bench.runs.list(|_| true).0.len(), 5, "what is refused is no run");
    bench.runs.drain().await;
    while bench.try_start(1).is_err() {
        tokio::task::yield_now().await;
    }
    bench.runs.drain().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn waiting_for_a_thread_does_not_count_against_the_execution_time() {
    let body: Body = |context| {
        async move {
            let work = |_: &ToolContext| {
                std::thread::sleep(Duration::from_millis(60));
                done("x")
            };
            context.on_thread(work).await
        }
        .boxed()
    };
    // Five calls of 60 ms on one thread: the last one starts after the 150 ms that the tool may take.
    let bench = Bench::new(&Settings { worker_threads: 1, ..Settings::default() }, body);
    let runs: Vec<_> = (0..5).map(|_| bench.start()).collect();

    bench.runs.idle().await;

    for run in runs {
        let last = values(&run.events_after(0)).pop().expect("an end");
        assert_eq!(last["type"], "tool_completed", "{last}");
        assert!(last["data"]["execution_time_ms"].as_u64().expect("milliseconds") < 150);
    }
}

#[tokio::test]
async fn a_result_above_its_bound_is_a_failure() {
    let bench = Bench::new(&Settings::default(), |_| async { done(&"x".repeat(RESULT_BYTES_MAX)) }.boxed());

    let run = bench.ended().await;

    let last = values(&run.events_after(0)).pop().expect("an end");
    assert_eq!((&last["type"], &last["data"]["reason"]), (&json!("tool_failed"), &json!("failed")));
    let result: Value = serde_json::from_str(run.take_result().expect("a result").get()).expect("JSON");
    let text = result["content"][0]["text"].as_str().expect("a text");
    assert!(text.contains("the result is too large: expected at most 262144 bytes, came "), "{text}");
}

#[tokio::test]
async fn a_run_is_found_for_its_retention_after_its_end() {
    let settings = Settings { run_retention_ms: 0, ..Settings::default() };
    let bench = Bench::new(&settings, |_| async { done("x") }.boxed());

    let run = bench.ended().await;

    assert!(bench.runs.find(run.id()).is_none());
    assert!(bench.runs.list(|_| true).0.is_empty());
}

#[tokio::test]
async fn draining_cancels_all_and_waits_for_their_ends() {
    let bench = Bench::new(&Settings::default(), |_| futures::future::pending().boxed());
    let runs = [bench.start(), bench.start()];

    bench.runs.drain().await;

    for run in runs {
        let last = values(&run.events_after(0)).pop().expect("an end");
        assert_eq!(last["data"]["error"], "cancelled: the server stops");
    }
}

#[tokio::test]
async fn the_end_of_a_run_is_broadcast_again_until_pubsub_takes_it() {
    let bench = Bench::new(&Settings::default(), |_| async { done("x") }.boxed());
    bench.is_overloaded.store(true, Ordering::SeqCst);
    let run = bench.ended().await;
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
    let bench = Bench::new(&Settings::default(), |_| async { done(&"x".repeat(EVENT_RESULT_BYTES_MAX)) }.boxed());

    let run = bench.ended().await;

    let last = values(&run.events_after(0)).pop().expect("an end");
    let result = run.take_result().expect("a result");
    assert_eq!(last["data"].get("result"), None);
    assert_eq!(last["data"]["result_bytes_omitted"], result.get().len());
}
