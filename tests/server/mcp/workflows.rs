//! Workflows over real sockets: what users have of each other's, what a killed program goes on with, what begins by itself.

use std::collections::BTreeMap;
use std::path::PathBuf;

use bennu::mcp::auth::Development;
use bennu::mcp::{CallContext, McpServer, NoArguments, Tool, workflow_tools};
use serde_json::{Value, json};

use super::peer::{Names, Peer, TestServer, client_info};
use crate::development::start;

const SESSION: &str = "mcp:session";

/// A session of the Elixir deployment's kind, of that user.
fn session(server: &TestServer, user: &str) -> Peer {
    let mut peer = server.connect();
    let mut params = client_info();
    params["token"] = json!(user);
    peer.joined(SESSION, &params);
    peer
}

/// The result of a request whose id is the method and its number.
#[track_caller]
fn ask(peer: &mut Peer, method: &str, params: Value) -> Value {
    let id = format!("{method} {}", peer.frames.len());
    let response = peer.ask(SESSION, id, method, params);
    response["result"].clone()
}

#[track_caller]
fn execute(peer: &mut Peer, definition: Value, options: Value) -> Value {
    ask(peer, "workflows/execute", json!({"workflowId": "w", "definition": definition, "options": options}))
}

/// A server with a tool that says what it got, one that waits until it is cancelled, and those of workflows.
fn tools() -> McpServer {
    let echo = Tool::untyped("echo", json!({"type": "object"}), |arguments, _| async { Ok(Value::Object(arguments)) });
    let wait = Tool::new("wait", |_: NoArguments, context: CallContext| async move {
        context.cancelled().await;
        Ok("")
    });
    McpServer::builder("tools").tool(echo).tool(wait).tools(workflow_tools()).build().expect("a server")
}

fn waiting() -> Value {
    json!({"type": "sequential", "steps": [{"tool": "wait"}]})
}

#[test]
fn nobody_sees_runs_workflows_or_contexts_of_others_unless_a_policy_says_so() {
    let server = TestServer::of([tools()], |_| {}, Names);
    let (mut ann, mut bob) = (session(&server, "ann"), session(&server, "bob"));
    ask(&mut ann, "workflows/create", json!({"workflowId": "hers", "definition": waiting()}));
    let run = ask(&mut ann, "workflows/execute", json!({"workflowId": "hers", "options": {"async": true}}));
    let run_id = run["run_id"].clone();
    let context = |bob: &[&str]| json!({"data": {"n": 1}, "accessPolicy": {"read": bob, "write": []}});
    let hidden = ask(&mut ann, "contexts/create", context(&[]))["context_id"].clone();
    let shown = ask(&mut ann, "contexts/create", context(&["user:bob"]))["context_id"].clone();

    assert_eq!(ask(&mut bob, "workflows/get", json!({"workflowId": "hers"}))["isError"], true);
    assert_eq!(ask(&mut bob, "workflows/execute", json!({"workflowId": "hers"}))["status"], "creation_failed");
    assert_eq!(ask(&mut bob, "workflows/run", json!({"runId": run_id}))["isError"], true);
    assert_eq!(ask(&mut bob, "workflows/cancel", json!({"runId": run_id}))["isError"], true);
    assert_eq!(ask(&mut bob, "workflows/runs", json!({}))["total_count"], 0);
    let topic = format!("mcp:run:{}", run_id.as_str().expect("an id"));
    assert_eq!(bob.refused(&topic, &json!({"token": "bob"})), "run not found");
    assert_eq!(ask(&mut bob, "contexts/get", json!({"contextId": hidden}))["reason"], "access_denied");
    assert_eq!(ask(&mut bob, "contexts/get", json!({"contextId": shown}))["data"], json!({"n": 1}));
    let changed = ask(&mut bob, "contexts/update", json!({"contextId": shown, "data": {}}));
    assert_eq!(changed["reason"], "access_denied");
    let used = json!({"type": "sequential", "steps": [{"tool": "echo", "input": {"n": "$context/n"}}]});
    let with = |id: &Value| json!({"context_id": id});
    assert_eq!(execute(&mut bob, used.clone(), with(&shown))["result"]["result"], json!({"n": 1}));
    assert_eq!(execute(&mut bob, used, with(&hidden))["status"], "creation_failed");

    assert_eq!(ask(&mut ann, "workflows/cancel", json!({"runId": run_id}))["status"], "cancelled");
    assert_eq!(ask(&mut ann, "workflows/run", json!({"runId": run_id}))["status"], "cancelled");
}

#[test]
fn a_run_goes_on_without_its_caller_if_its_definition_says_so() {
    let server = TestServer::serving([tools()]);
    let mut watcher = session(&server, "dev");
    watcher.joined("mcp:runs", &json!({}));
    for (on_disconnect, status) in [("continue", "running"), ("cancel", "cancelled")] {
        let mut definition = waiting();
        definition["on_disconnect"] = json!(on_disconnect);
        let mut caller = session(&server, "dev");
        let params = json!({"workflowId": on_disconnect, "definition": definition});
        caller.message(SESSION, &json!({"jsonrpc": "2.0", "id": 1, "method": "workflows/execute", "params": params}));
        let begun = |frame: &super::peer::Frame| frame.event == "run_started" && frame.payload["tool"] == on_disconnect;
        let run_id = watcher.wait(begun).payload["run_id"].clone();

        caller.push(SESSION, "phx_leave", &json!({}));

        if status == "cancelled" {
            watcher.wait(|frame| frame.event == "run_finished" && frame.payload["run_id"] == run_id);
        }
        assert_eq!(ask(&mut watcher, "workflows/run", json!({"runId": run_id}))["status"], status);
    }
}

#[test]
fn a_cancelled_request_ends_the_run_and_the_tools_under_way() {
    let server = TestServer::serving([tools()]);
    let mut peer = session(&server, "dev");
    peer.joined("mcp:runs", &json!({}));
    let params = json!({"workflowId": "w", "definition": waiting()});
    peer.message(SESSION, &json!({"jsonrpc": "2.0", "id": 7, "method": "workflows/execute", "params": params}));
    let run_id = peer.wait(|frame| frame.event == "run_started").payload["run_id"].clone();

    let cancelled = json!({"jsonrpc": "2.0", "method": "notifications/cancelled", "params": {"requestId": 7}});
    peer.message(SESSION, &cancelled);

    // The tool ends only when it is cancelled, and the run only when its tool does not hold it.
    peer.wait(|frame| frame.event == "run_finished" && frame.payload["run_id"] == run_id);
    let run = ask(&mut peer, "workflows/run", json!({"runId": run_id}));
    assert_eq!(
        (&run["status"], &run["error"]),
        (&json!("cancelled"), &json!("Workflow execution failed: cancelled by the client"))
    );
}

#[test]
fn one_user_has_so_many_runs_under_way_and_no_more() {
    let server = TestServer::of([tools()], |_| {}, Names);
    let mut ann = session(&server, "ann");
    let definition = json!({"type": "sequential", "steps": [
        {"type": "reactive", "triggers": [{"event": "never"}], "workflow": {"type": "sequential", "steps": [{"tool": "echo"}]}},
    ]});
    let options = json!({"async": true, "timeout": 600_000});
    for _ in 0..100 {
        assert_eq!(execute(&mut ann, definition.clone(), options.clone())["status"], "running");
    }

    let refused = execute(&mut ann, definition.clone(), options.clone());

    assert_eq!(refused["status"], "creation_failed");
    assert!(refused["error"].as_str().is_some_and(|text| text.contains("100 of one user")), "{refused}");
    let mut bob = session(&server, "bob");
    assert_eq!(execute(&mut bob, definition, options)["status"], "running");
}

#[test]
fn a_workflow_of_the_hub_calls_tools_of_several_servers() {
    let other = Tool::new("other", |_: NoArguments, _| async { Ok("from the other") });
    let other = McpServer::builder("second").tool(other).build().expect("a server");
    let server = TestServer::serving([tools(), other]);
    let mut peer = server.connect();
    peer.joined("mcp:hub", &client_info());
    let names = peer.ask("mcp:hub", "list", "tools/list", json!({}))["result"]["tools"].clone();
    let named = |end: &str| {
        let names = names.as_array().expect("a list").iter().filter_map(|tool| tool["name"].as_str());
        names.into_iter().find(|name| name.ends_with(end)).expect("the hub has it").to_owned()
    };
    let steps = json!([{"tool": named("other"), "id": "first"}, {"tool": named("echo"), "input": {"said": "first"}}]);

    let params = json!({"workflowId": "w", "definition": {"type": "sequential", "steps": steps}});
    let done = peer.ask("mcp:hub", "run", "workflows/execute", params)["result"].clone();

    assert_eq!(done["result"]["result"]["said"], "from the other", "{done}");
}

#[test]
fn a_step_can_not_execute_a_workflow_by_the_tool_for_that() {
    let server = TestServer::serving([tools()]);
    let mut peer = session(&server, "dev");
    let within = json!({"type": "sequential", "steps": [{"tool": "echo"}]});
    let definition =
        json!({"type": "sequential", "steps": [{"tool": "workflow_execute", "params": {"definition": within}}]});

    let failed = execute(&mut peer, definition, json!({}));

    assert!(failed["error"].as_str().is_some_and(|text| text.contains("nest its definition")), "{failed}");
}

#[test]
fn a_trigger_begins_runs_whose_ends_begin_others_up_to_a_depth() {
    let server = TestServer::serving([tools()]);
    let mut peer = session(&server, "dev");
    peer.joined("mcp:runs", &json!({}));
    let echo = json!({"type": "sequential", "steps": [{"tool": "echo", "input": {"of": "$trigger/payload/run_id"}}]});
    // It is begun by its own end, too.
    let own = json!({"type": "reactive", "triggers": [{"event": "run_completed"}], "workflow": echo});
    ask(&mut peer, "workflows/create", json!({"workflowId": "again", "definition": own}));
    ask(&mut peer, "tools/call", json!({"name": "echo", "arguments": {}}));

    let ended = |frame: &super::peer::Frame| frame.event == "run_finished" && frame.payload["tool"] == "again";
    let mut count = 0;
    while count < 8 {
        peer.wait(ended);
        count += 1;
        let at = peer.frames.iter().position(ended).expect("it was waited for");
        peer.frames.remove(at);
    }
    ask(&mut peer, "workflows/delete", json!({"workflowId": "again"}));
    let runs = ask(&mut peer, "workflows/runs", json!({"workflowId": "again"}));
    assert_eq!(runs["total_count"], 8, "{runs}");
}

#[test]
fn an_event_begins_what_waits_for_it_and_only_who_may_broadcasts_it() {
    let server = TestServer::serving([tools()]);
    let mut peer = session(&server, "dev");
    peer.joined("mcp:runs", &json!({}));
    let echo = json!({"type": "sequential", "steps": [{"tool": "echo", "input": {"total": "$trigger/payload/total"}}]});
    let large = json!({"source": "$trigger/payload/total", "op": "gt", "value": 10});
    let on = json!({"type": "reactive", "triggers": [{"event": "order", "condition": large}], "workflow": echo});
    ask(&mut peer, "workflows/create", json!({"workflowId": "orders", "definition": on}));
    // A step of a run waits for the same event.
    let within = json!({"type": "sequential", "steps": [on]});
    let waiting = execute(&mut peer, within, json!({"async": true}))["run_id"].clone();

    for total in [3, 30] {
        let emitted = ask(&mut peer, "workflows/emit", json!({"event": "order", "payload": {"total": total}}));
        assert_eq!(emitted["status"], "emitted", "{emitted}");
    }

    peer.wait(|frame| frame.event == "run_finished" && frame.payload["tool"] == "orders");
    peer.wait(|frame| frame.event == "run_finished" && frame.payload["run_id"] == waiting);
    let runs = ask(&mut peer, "workflows/runs", json!({"workflowId": "orders"}));
    assert_eq!(runs["total_count"], 1, "{runs}");
    for run in [&waiting, &runs["runs"][0]["run_id"]] {
        assert_eq!(ask(&mut peer, "workflows/run", json!({"runId": run}))["result"], json!({"total": 30}));
    }
    let server = TestServer::of([tools()], |_| {}, Names);
    let mut ann = session(&server, "ann");
    assert_eq!(ask(&mut ann, "workflows/emit", json!({"event": "order"}))["isError"], true);
}

/// A folder of the test's own, removed at its end.
struct Folder(PathBuf);

impl Folder {
    fn new(name: &str) -> Self {
        let folder = std::env::temp_dir().join(format!("bennu-{name}-{}", std::process::id()));
        std::fs::create_dir(&folder).expect("a new name in the folder for such");
        Folder(folder)
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.0);
    }
}

/// Rounds of each run in the test below.
const ROUNDS: usize = 8;

/// A run of rounds, each of which leaves a memory behind; `once` says of its steps whether they run once.
fn remembering(name: &str, once: bool, on_restart: &str) -> Value {
    let items: Vec<_> = (0..ROUNDS).map(|n| json!(format!("{name} {n}"))).collect();
    let mut step = json!({"tool": "memory_remember", "input": {"content": "$item"}});
    if once {
        step["run_once"] = json!(true);
        step["on_error"] = json!("continue");
    }
    json!({"type": "sequential", "timeout_ms": 600_000, "on_restart": on_restart, "steps": [
        {"type": "loop", "items": items, "max_concurrent": 2, "steps": [step, {"tool": "countdown", "params": {"seconds": 1, "interval_ms": 1000}}]},
    ]})
}

#[test]
fn killed_again_and_again_each_run_ends_as_its_definition_says() {
    let folder = Folder::new("workflows-killed");
    let file = folder.0.join("store.redb");
    let flags = ["--store-path", file.to_str().expect("a path of ASCII")];
    let join = |address| {
        let mut peer = Peer::connect(address);
        peer.joined(SESSION, &client_info());
        peer
    };
    let (mut program, address, mut _lines) = start(&flags);
    let mut peer = join(address);
    let mut runs = BTreeMap::new();
    for (name, once, on_restart) in [
        ("resumed", false, "resume"),
        ("once", true, "resume"),
        ("also once", true, "resume"),
        ("failed", false, "fail"),
    ] {
        let params =
            json!({"workflowId": name, "definition": remembering(name, once, on_restart), "options": {"async": true}});
        let begun = ask(&mut peer, "workflows/execute", params);
        runs.insert(name, begun["run_id"].as_str().unwrap_or_else(|| panic!("a run: {begun}")).to_owned());
    }

    // Each time a little further on: some steps have ended, others are under way.
    for further in 1..=ROUNDS {
        let topic = format!("mcp:run:{}", runs["once"]);
        let (status, reply) = peer.join(&topic, &json!({}));
        if status != "ok" {
            // It ended before the last start, so its record is all there is.
            break;
        }
        let mut ended = reply["events"]
            .as_array()
            .expect("a list")
            .iter()
            .filter(|event| event["type"] == "step_completed")
            .count();
        let mut has_ended = reply["run"]["status"] != "running";
        while ended < further * 2 && !has_ended {
            let frame = peer.wait(|frame| frame.topic == topic && frame.event == "streaming_event");
            ended += usize::from(frame.kind() == Some("step_completed"));
            has_ended = frame.kind().is_some_and(|kind| kind.starts_with("workflow_") && kind != "workflow_started");
            peer.frames.retain(|frame| frame.topic != topic);
        }
        drop(peer);
        drop(program);
        let restarted = start(&flags);
        (program, _lines) = (restarted.0, restarted.2);
        peer = join(restarted.1);
    }

    for (name, run_id) in &runs {
        let topic = format!("mcp:run:{run_id}");
        // Runs that ended before the last start are in the records alone.
        if peer.join(&topic, &json!({})).0 == "ok" {
            let run = ask(&mut peer, "workflows/run", json!({"runId": run_id}));
            if run["status"] == "running" {
                peer.wait(|frame| {
                    frame.topic == topic && matches!(frame.kind(), Some("workflow_completed" | "workflow_failed"))
                });
            }
        }
        let run = ask(&mut peer, "workflows/run", json!({"runId": run_id}));
        match *name {
            "failed" => {
                let expected = "Workflow execution failed: interrupted by a restart of the server";
                assert_eq!((&run["status"], &run["error"]), (&json!("failed"), &json!(expected)), "{run}");
            }
            _ => assert_eq!(run["status"], "completed", "{name}: {run}"),
        }
    }
    let read = ask(&mut peer, "resources/read", json!({"uri": "memory://short-term/current"}));
    let text = read["contents"][0]["text"].as_str().unwrap_or_else(|| panic!("a text: {read}"));
    let current: Value = serde_json::from_str(text).expect("JSON");
    let mut times: BTreeMap<&str, usize> = BTreeMap::new();
    for item in current["items"].as_array().expect("a list") {
        *times.entry(item["content"].as_str().expect("a text")).or_default() += 1;
    }
    for n in 0..ROUNDS {
        assert!(times.get(&*format!("resumed {n}")).is_some_and(|times| *times >= 1), "{times:?}");
        for name in ["once", "also once"] {
            assert!(times.get(&*format!("{name} {n}")).is_none_or(|times| *times == 1), "{times:?}");
        }
    }
    let once = times.keys().filter(|content| content.contains("once")).count();
    assert!(once > ROUNDS, "most of what runs once did: {times:?}");
    drop(program);
}

#[test]
fn workflows_templates_triggers_and_contexts_are_there_after_a_kill() {
    let folder = Folder::new("workflows-stored");
    let file = folder.0.join("store.redb");
    let flags = ["--store-path", file.to_str().expect("a path of ASCII")];
    let join = |address| {
        let mut peer = Peer::connect(address);
        peer.joined(SESSION, &client_info());
        peer
    };
    let (program, address, _lines) = start(&flags);
    let mut peer = join(address);
    let definition =
        json!({"type": "sequential", "steps": [{"tool": "memory_remember", "input": {"content": "$context/text"}}]});
    ask(&mut peer, "workflows/create", json!({"workflowId": "kept", "definition": definition}));
    let hears = json!({"type": "reactive", "triggers": [{"event": "run_completed", "of": "kept"}],
        "workflow": {"type": "sequential", "steps": [{"tool": "memory_remember", "params": {"content": "heard"}}]}});
    ask(&mut peer, "workflows/create", json!({"workflowId": "hears", "definition": hears}));
    let template = json!({"name": "mine", "version": "1.2.0", "description": "d",
        "parameters": [{"name": "text", "type": "string", "required": true}],
        "definition": {"type": "sequential", "steps": [{"tool": "memory_remember", "params": {"content": "{{text}}"}}]}});
    let registered = ask(&mut peer, "workflows/register_template", json!({"template": template}));
    assert_eq!(registered["status"], "registered", "{registered}");
    let context = ask(&mut peer, "contexts/create", json!({"data": {"text": "shared"}}))["context_id"].clone();
    drop(program);

    let (_program, address, _lines) = start(&flags);
    let mut peer = join(address);
    peer.joined("mcp:runs", &json!({}));
    let done = ask(&mut peer, "workflows/execute", json!({"workflowId": "kept", "options": {"context_id": context}}));
    assert_eq!(done["result"]["result"]["content"], "shared", "{done}");
    peer.wait(|frame| frame.event == "run_finished" && frame.payload["tool"] == "hears");
    let made = json!({"type": "template", "template": {"name": "mine"}, "params": {"text": "from the template"}});
    let done = execute(&mut peer, made, json!({}));
    assert_eq!(done["result"]["result"]["content"], "from the template", "{done}");
}

#[test]
fn each_example_completes_on_the_program_itself() {
    let (_program, address, _lines) = start(&[]);
    let mut peer = Peer::connect(address);
    peer.joined(SESSION, &client_info());
    let folder = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("examples/workflows");
    let mut count = 0;
    for entry in std::fs::read_dir(folder).expect("the folder is there") {
        let path = entry.expect("a file").path();
        let name = path.file_stem().and_then(|name| name.to_str()).expect("a name").to_owned();
        let text = std::fs::read_to_string(&path).expect("a text");
        let definition: Value = serde_json::from_str(&text).expect("JSON");
        let created = ask(&mut peer, "workflows/create", json!({"workflowId": name, "definition": definition}));
        assert_eq!(created["status"], "created", "{name}: {created}");

        let done = ask(
            &mut peer,
            "workflows/execute",
            json!({"workflowId": name, "options": {"timeout": 60_000, "streaming": true}}),
        );

        assert_eq!(done["status"], "completed", "{name}: {done}");
        count += 1;
    }
    assert!(count > 10, "{count}");
}

#[test]
fn a_run_is_watched_by_its_observers_as_by_its_caller() {
    let server = TestServer::of([tools()], |_| {}, Development);
    let mut peer = server.connect();
    let id = peer.joined(SESSION, &client_info())["sessionId"].clone();
    peer.joined("mcp:session:streaming", &json!({"session_id": id}));

    let definition = json!({"type": "sequential", "steps": [{"tool": "echo"}, {"tool": "echo"}]});
    execute(&mut peer, definition.clone(), json!({"streaming": true}));
    peer.wait(|frame| frame.topic == "mcp:session:streaming" && frame.kind() == Some("workflow_completed"));

    let events = |peer: &Peer, topic: &str| -> Vec<Value> {
        peer.of(topic, "streaming_event").iter().map(|frame| frame.payload.clone()).collect()
    };
    let own = events(&peer, SESSION);
    assert_eq!(own, events(&peer, "mcp:session:streaming"));
    let seqs: Vec<_> = own.iter().map(|event| event["seq"].as_u64().expect("a number")).collect();
    assert_eq!(seqs, (1..=own.len() as u64).collect::<Vec<_>>());
    let run = format!("mcp:run:{}", own[0]["run_id"].as_str().expect("an id"));
    let mut late = server.connect();
    assert_eq!(late.joined(&run, &json!({}))["events"], json!(own));

    // Without streaming the caller gets none.
    let before = events(&peer, SESSION).len();
    execute(&mut peer, definition, json!({}));
    assert_eq!(events(&peer, SESSION).len(), before);
}
