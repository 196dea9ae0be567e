//! The operator's interface to queues, over HTTP and by `bennu queue`, and that of producers with an API key.

use std::io::Write;
use std::net::SocketAddr;
use std::process::{Command, Output, Stdio};

use serde_json::{Value, json};

use crate::development;
use crate::security::credentials::operator_token;
use crate::security::house::{Folder, Program};
use crate::security::http::{Answer, ask};

/// A queue of each class; those that are durable are the settings' own.
const CLASSES: &str = "queues.memory = [\"quick:*\"]\nqueues.ephemeral = [\"flash:*\"]\n";
/// The queue that most tests use, and its path.
const INBOX: &str = "inbox:ann";
const OF_INBOX: &str = "queues/inbox:ann";

fn send(program: &Program, queue: &str, message: &Value) -> Answer {
    program.ask_as(&operator_token(), "POST", &format!("queues/{queue}/messages"), Some(message))
}

/// Sends a message that has to be taken; gives its id.
#[track_caller]
fn sent(program: &Program, queue: &str, message: &Value) -> String {
    let answer = send(program, queue, message);
    assert_eq!(answer.status, 200, "{answer:?}");
    answer.json()["message_id"].as_str().expect("an id").to_owned()
}

/// Sends these bytes with these headers.
fn send_raw(program: &Program, queue: &str, headers: &[(&str, &str)], body: &[u8]) -> Answer {
    let bearer = format!("Bearer {}", operator_token());
    let headers = [&[("Authorization", &*bearer)], headers].concat();
    ask(program.address, "POST", &format!("/admin/api/queues/{queue}/messages"), &headers, Some(body))
}

#[track_caller]
fn check_refused(answer: &Answer, status: u16, reason: &str, detail: &str) {
    assert_eq!(answer.status, status, "{answer:?}");
    let errors = &answer.json()["errors"];
    assert_eq!(errors["reason"], reason, "{answer:?}");
    assert!(errors["detail"].as_str().is_some_and(|text| text.contains(detail)), "expected {detail:?}: {answer:?}");
    assert_eq!(answer.header("retry-after"), (status == 503).then_some("1"), "{answer:?}");
}

/// The API key of a user with these capabilities.
fn scoped(program: &Program, scopes: &[&str]) -> String {
    let made = program.operate("POST", "keys", Some(&json!({"user": "producer", "scopes": scopes})));
    made["key"].as_str().expect("a key").to_owned()
}

/// Makes a dead letter of the inbox; gives its id.
fn dead_letter(program: &Program, payload: &Value) -> String {
    let mut peer = program.socket("ann");
    peer.joined(INBOX, &json!({"capabilities": ["message_ack", "message_nack"]}));
    let id = sent(program, INBOX, &json!({"payload": payload, "max_retries": 0}));
    peer.wait(|frame| frame.event == "message" && frame.payload["message_id"] == *id);
    let nacked = peer.push(INBOX, "message_nack", &json!({"message_id": id, "error": "no printer"}));
    assert_eq!(nacked["response"]["dead_letter"], true, "{nacked}");
    id
}

#[test]
fn a_message_is_seen_from_its_sending_to_its_purge() {
    let program = Program::start(CLASSES);
    let sent = send(&program, INBOX, &json!({"payload": {"n": 1}, "priority": "high", "ttl_ms": 60_000})).json();
    assert_eq!(sent["durability"], "durable", "{sent}");
    assert_eq!(sent.as_object().map(serde_json::Map::len), Some(2), "{sent}");
    send(&program, INBOX, &json!({"payload": {"n": 2}, "delay_ms": 60_000, "max_retries": 7}));
    send(&program, "quick:a", &json!({"payload": {}}));

    let all = program.operate("GET", "queues", None);
    assert_eq!(all["stats"]["queues"], 2, "{all}");
    assert_eq!(all["stats"]["total_messages"], 3, "{all}");
    let listed: Vec<_> = all["queues"].as_array().expect("a list").iter().map(|queue| &queue["queue"]).collect();
    assert_eq!(listed, [INBOX, "quick:a"]);
    let some = program.operate("GET", "queues?prefix=quick%3A", None);
    assert_eq!(some["queues"].as_array().map(Vec::len), Some(1), "{some}");
    assert_eq!(some["queues"][0]["durability"], "memory", "{some}");
    assert_eq!(program.operate("GET", "queues?limit=1", None)["queues"].as_array().map(Vec::len), Some(1));

    let stats = program.operate("GET", OF_INBOX, None);
    assert_eq!(stats["messages"], 2, "{stats}");
    assert_eq!(stats["delayed"], 1, "{stats}");
    assert_eq!(stats["priority_counts"], json!({"urgent": 0, "high": 1, "normal": 0, "low": 0}));
    assert_eq!(stats["totals"]["accepted"], 2, "{stats}");

    let messages = program.operate("GET", "queues/inbox%3Aann/messages", None);
    let [first, second] = &messages["messages"].as_array().expect("a list")[..] else { panic!("two: {messages}") };
    assert_eq!([&first["message_id"], &first["state"]], [&sent["message_id"], &json!("waiting")]);
    assert_eq!([&first["priority"], &first["payload"]], [&json!("high"), &json!({"n": 1})]);
    assert_eq!([&second["state"], &second["max_retries"]], [&json!("delayed"), &json!(7)]);
    let some = program.operate("GET", &format!("{OF_INBOX}/messages?limit=1"), None);
    assert_eq!(some["messages"].as_array().map(Vec::len), Some(1), "{some}");

    assert_eq!(program.operate("DELETE", &format!("{OF_INBOX}/messages"), None), json!({"purged": 2}));
    assert_eq!(program.operate("GET", &format!("{OF_INBOX}/messages"), None), json!({"messages": []}));
    assert_eq!(program.operate("DELETE", &format!("{OF_INBOX}/messages"), None), json!({"purged": 0}));
}

#[test]
fn a_dead_letter_is_listed_retried_and_purged() {
    let program = Program::start(CLASSES);
    let [first, second, third] = ["a", "b", "c"].map(|name| dead_letter(&program, &json!({"name": name})));
    let dead = format!("{OF_INBOX}/dead");

    let listed = program.operate("GET", &dead, None);
    let letter = &listed["dead_letters"][0];
    assert_eq!(letter["message_id"], *first, "{listed}");
    assert_eq!([&letter["reason"], &letter["last_error"]], [&json!("retries_exhausted"), &json!("no printer")]);
    assert_eq!(letter["payload"], json!({"name": "a"}));
    let some = program.operate("GET", &format!("{dead}?limit=2"), None);
    assert_eq!(some["dead_letters"].as_array().map(Vec::len), Some(2), "{some}");

    let retried = program.operate("POST", &format!("{dead}/{first}/retry"), None);
    assert_eq!(retried, json!({"retried": first}));
    assert_eq!(program.operate("GET", &format!("{OF_INBOX}/messages"), None)["messages"][0]["message_id"], *first);
    assert_eq!(program.operate("DELETE", &format!("{dead}/{second}"), None), json!({"purged": 1}));
    let left = program.operate("GET", &dead, None);
    assert_eq!(left["dead_letters"].as_array().map(Vec::len), Some(1), "{left}");
    assert_eq!(left["dead_letters"][0]["message_id"], *third, "{left}");

    // What is dead no longer is no dead letter, nor is a message of another queue.
    for (method, path) in [
        ("POST", format!("{dead}/{first}/retry")),
        ("POST", format!("queues/inbox:bob/dead/{third}/retry")),
        ("POST", format!("{dead}/msg_1_1/retry")),
        ("DELETE", format!("{dead}/{second}")),
        ("DELETE", format!("queues/inbox:bob/dead/{third}")),
        // Not all of them.
        ("DELETE", format!("{dead}/")),
    ] {
        check_refused(&program.ask_as(&operator_token(), method, &path, None), 404, "unknown_message", "dead letter");
    }
    assert_eq!(program.operate("DELETE", &dead, None), json!({"purged": 1}));
    assert_eq!(program.operate("DELETE", &dead, None), json!({"purged": 0}));
}

#[test]
fn a_retried_message_comes_to_its_consumer() {
    let program = Program::start(CLASSES);
    let id = dead_letter(&program, &json!({"name": "a"}));
    program.operate("POST", &format!("{OF_INBOX}/dead/{id}/retry"), None);

    let mut peer = program.socket("ann");
    peer.joined(INBOX, &json!({"capabilities": ["message_ack"]}));

    let message = peer.wait(|frame| frame.event == "message").payload;
    assert_eq!([&message["message_id"], &message["payload"]["name"]], [&json!(id), &json!("a")]);
}

#[test]
fn what_was_sent_and_what_was_purged_outlives_a_kill() {
    let program = Program::start(CLASSES);
    let kept = sent(&program, INBOX, &json!({"payload": {"n": 1}}));
    send(&program, "quick:a", &json!({"payload": {}}));
    send(&program, "queue:gone", &json!({"payload": {}}));
    program.operate("DELETE", "queues/queue:gone/messages", None);
    let gone = dead_letter(&program, &json!({}));
    program.operate("DELETE", &format!("{OF_INBOX}/dead/{gone}"), None);

    let program = Program::start_in(program.kill(), CLASSES);

    let messages = program.operate("GET", &format!("{OF_INBOX}/messages"), None);
    assert_eq!(messages["messages"].as_array().map(Vec::len), Some(1), "{messages}");
    assert_eq!(messages["messages"][0]["message_id"], *kept);
    let stats = &program.operate("GET", "queues", None)["stats"];
    assert_eq!([&stats["total_messages"], &stats["dead_letter_messages"]], [&json!(1), &json!(0)], "{stats}");
}

#[test]
fn a_queue_that_may_be_and_is_not_holds_nothing() {
    let program = Program::start(CLASSES);

    let stats = program.operate("GET", "queues/flash:a", None);

    assert_eq!([&stats["queue"], &stats["durability"]], [&json!("flash:a"), &json!("ephemeral")]);
    assert_eq!([&stats["messages"], &stats["totals"]["accepted"]], [&json!(0), &json!(0)]);
    assert_eq!(program.operate("GET", "queues/flash:a/messages", None), json!({"messages": []}));
    assert_eq!(program.operate("GET", "queues/flash:a/dead", None), json!({"dead_letters": []}));
    assert_eq!(program.operate("GET", "queues", None)["stats"]["queues"], 0, "looking makes none");
}

#[test]
fn what_is_no_message_is_refused_with_the_reason() {
    let program = Program::start(CLASSES);
    for (message, detail) in [
        (json!({}), "payload"),
        (json!([{"payload": {}}]), "the message"),
        (json!({"payload": []}), "payload: expected a JSON object"),
        (json!({"payload": {}, "prioritiy": "high"}), "prioritiy"),
        (json!({"payload": {}, "priority": "HIGH"}), "priority: expected one of urgent, high, normal, low"),
        (json!({"payload": {}, "ttl_ms": 0}), "ttl_ms: expected 1 to"),
        (json!({"payload": {}, "ttl_ms": -1}), "-1"),
        (json!({"payload": {}, "delay_ms": 30 * 86_400_000_u64 + 1}), "delay_ms: expected at most"),
        (json!({"payload": {}, "max_retries": 101}), "max_retries: expected at most 100"),
        (json!({"payload": {}, "idempotency_key": ""}), "idempotency_key: expected 1 to 255 bytes"),
        (json!({"payload": {}, "idempotency_key": "k".repeat(256)}), "idempotency_key: expected 1 to 255 bytes"),
    ] {
        check_refused(&send(&program, INBOX, &message), 400, "invalid_message", detail);
    }
    let deep = format!("{{\"payload\":{{\"a\":{}1{}}}}}", "[".repeat(1_023), "]".repeat(1_023));
    for body in [
        &b""[..],
        b"{",
        b"{\"payload\":{}} {}",
        b"\xef\xbb\xbf{\"payload\":{}}",
        b"{\"payload\":{\"a\":\"\xff\"}}",
        b"{\"payload\":{\"a\":\"\\ud800\"}}",
        b"{\"payload\":{\"a\":1e400}}",
        b"{\"payload\":{\"a\":NaN}}",
        b"{\"payload\":{\"a\":\"\n\"}}",
        deep.as_bytes(),
    ] {
        check_refused(&send_raw(&program, INBOX, &[], body), 400, "invalid_message", "the message: ");
    }
    assert_eq!(program.operate("GET", OF_INBOX, None)["totals"]["accepted"], 0);
}

#[test]
fn a_payload_is_listed_as_it_came_at_any_depth() {
    let program = Program::start(CLASSES);
    let payload = format!(
        "{{\"n\": 12345678901234567890123, \"a\":1, \"a\":2,\"deep\":{}1{}}}",
        "[".repeat(500),
        "]".repeat(500)
    );
    let answer = send_raw(&program, INBOX, &[], format!("{{\"payload\":{payload}}}").as_bytes());
    assert_eq!(answer.status, 200, "{answer:?}");

    let listed = program.ask_as(&operator_token(), "GET", &format!("{OF_INBOX}/messages"), None);

    assert!(listed.body.contains(&payload), "{listed:?}");
    let told = cli(&program, &["messages", INBOX], "");
    assert!(told.contains("{\"n\": 12345678901234567890123, \"a\":1"), "{told}");
    assert!(cli(&program, &["messages", INBOX, "--json"], "").contains(&payload));
}

#[test]
fn what_is_too_large_is_refused_by_its_body_and_by_its_payload() {
    let program = Program::start(CLASSES);
    // Source: `Limits::message_bytes_max`, which no setting changes.
    let message = |bytes: usize| json!({"payload": {"a": "x".repeat(bytes)}});

    for bytes in [(1 << 20) - 4_000, 1 << 20, 3 << 20] {
        check_refused(&send(&program, INBOX, &message(bytes)), 413, "too_large", "");
    }
    assert_eq!(send(&program, INBOX, &message((1 << 20) - 5_000)).status, 200);
}

#[test]
fn a_full_queue_says_when_to_try_again() {
    let program = Program::start(&format!("{CLASSES}queues.messages_max = 2\nqueues.queues_max = 2\n"));
    for queue in [INBOX, INBOX, "quick:a"] {
        sent(&program, queue, &json!({"payload": {}}));
    }

    check_refused(&send(&program, INBOX, &json!({"payload": {}})), 503, "queue_full", "2");
    check_refused(&send(&program, "queue:b", &json!({"payload": {}})), 503, "too_many_queues", "2");
}

#[test]
fn an_ephemeral_queue_without_a_consumer_refuses() {
    let program = Program::start(CLASSES);
    check_refused(&send(&program, "flash:a", &json!({"payload": {}})), 409, "no_consumer", "nobody consumes");

    let mut peer = program.socket("boss");
    let (_, key) = program.key("boss", "admin");
    peer.joined("flash:a", &json!({"apiKey": key}));
    let id = sent(&program, "flash:a", &json!({"payload": {"n": 1}}));

    assert_eq!(peer.wait(|frame| frame.event == "message").payload["message_id"], *id);
}

#[test]
fn a_key_in_the_header_makes_a_message_one_as_a_key_in_the_body_does() {
    let program = Program::start(CLASSES);
    let (plain, keyed) = (br#"{"payload":{}}"#, br#"{"payload":{},"idempotency_key":"k"}"#);
    let header = |key| [("Idempotency-Key", key)];

    let first = send_raw(&program, INBOX, &header("k"), plain).json();
    for (key, body) in
        [("k", &plain[..]), ("k", br#"{"payload":{"other":1},"idempotency_key":null}"#), ("other", keyed)]
    {
        let again = send_raw(&program, INBOX, &header(key), body).json();
        assert_eq!(again, json!({"message_id": first["message_id"], "durability": "durable", "duplicate": true}));
    }
    let other = send_raw(&program, INBOX, &header("l"), plain).json();
    assert_ne!(other["message_id"], first["message_id"]);
    assert_eq!(other["duplicate"], Value::Null);

    for headers in [&[("Idempotency-Key", "k"), ("Idempotency-Key", "k")][..], &header("ké")] {
        check_refused(&send_raw(&program, INBOX, headers, plain), 400, "invalid_message", "idempotency-key");
    }
    check_refused(&send_raw(&program, INBOX, &header(""), plain), 400, "invalid_message", "1 to 255 bytes");
    assert_eq!(program.operate("GET", OF_INBOX, None)["totals"]["duplicates"], 3);
}

#[test]
fn a_producers_key_sends_where_it_may_and_sees_nothing() {
    let program = Program::start(CLASSES);
    let message = json!({"payload": {}});
    let key = scoped(&program, &["queues:enqueue:inbox:*", "!queues:enqueue:inbox:root"]);
    let status =
        |key: &str, method: &str, path: &str, body: Option<&Value>| program.ask_as(key, method, path, body).status;

    assert_eq!(status(&key, "POST", "queues/inbox:ann/messages", Some(&message)), 200);
    for queue in ["inbox:root", "queue:a", "unknown:a"] {
        let answer = program.ask_as(&key, "POST", &format!("queues/{queue}/messages"), Some(&message));
        assert_eq!(answer.status, 403, "{queue}: {answer:?}");
        assert!(answer.body.contains("Missing capability: queues:enqueue"), "{answer:?}");
    }
    let reads = [
        ("GET", "queues"),
        ("GET", OF_INBOX),
        ("GET", "queues/inbox:ann/messages"),
        ("GET", "queues/inbox:ann/dead"),
        ("DELETE", "queues/inbox:ann/messages"),
        ("DELETE", "queues/inbox:ann/dead"),
        ("DELETE", "queues/inbox:ann/dead/msg_1_1"),
        ("POST", "queues/inbox:ann/dead/msg_1_1/retry"),
    ];
    for (method, path) in reads {
        let answer = program.ask_as(&key, method, path, None);
        assert_eq!(answer.status, 403, "{method} {path}: {answer:?}");
        assert!(answer.body.contains("Missing capability: admin:queues"), "{answer:?}");
    }
    assert_eq!(program.operate("GET", OF_INBOX, None)["messages"], 1);

    let general = scoped(&program, &["queues:enqueue"]);
    assert_eq!(status(&general, "POST", "queues/queue:a/messages", Some(&message)), 200);
    let operator = scoped(&program, &["admin:queues"]);
    assert_eq!(status(&operator, "POST", "queues/inbox:ann/messages", Some(&message)), 403);
    for (method, path) in reads {
        assert!([200, 404].contains(&status(&operator, method, path, None)), "{method} {path}");
    }
    for other in [scoped(&program, &["queues:consume", "admin:keys"]), "nonsense".to_owned(), String::new()] {
        let expected = if other.starts_with("bennu_") { 403 } else { 401 };
        for (method, path) in reads {
            assert_eq!(status(&other, method, path, None), expected, "{method} {path}");
        }
        assert_eq!(status(&other, "POST", "queues/inbox:ann/messages", Some(&message)), expected);
    }
}

#[test]
fn names_are_percent_decoded() {
    let program = Program::start(CLASSES);
    let id = sent(&program, "queue:a%2Fb%20c%3F%C3%BC+", &json!({"payload": {}}));

    let all = program.operate("GET", "queues", None);

    assert_eq!(all["queues"][0]["queue"], "queue:a/b c?ü+");
    assert_eq!(
        program.operate("GET", "queues/queue:a%2fb%20c%3f%c3%bc%2B/messages", None)["messages"][0]["message_id"],
        *id
    );
    let messages = |name: &str| program.ask_as(&operator_token(), "GET", &format!("queues/{name}/messages"), None);
    for name in
        ["queue:%", "queue:%2", "queue:%zz", "queue:%ff", "queue:%0A", "", &format!("queue:{}", "x".repeat(250))]
    {
        check_refused(&messages(name), 400, "invalid_queue", "1 to 255 bytes");
    }
    check_refused(&messages("unknown:a"), 404, "unknown_queue", "unknown:a");
}

#[test]
fn other_paths_methods_and_limits_are_refused() {
    let program = Program::start(CLASSES);
    let status = |method: &str, path: &str| program.ask_as(&operator_token(), method, path, None).status;

    for (method, path) in [
        ("POST", "queues"),
        ("DELETE", OF_INBOX),
        ("PUT", "queues/inbox:ann/messages"),
        ("POST", "queues/inbox:ann/dead"),
        ("GET", "queues/inbox:ann/dead/msg_1_1"),
        ("GET", "queues/inbox:ann/dead/msg_1_1/retry"),
    ] {
        assert_eq!(status(method, path), 405, "{method} {path}");
    }
    for path in ["queues/inbox:ann/other", "queues/inbox:ann/messages/msg_1_1", "queues/a/dead/b/c", "queuesx"] {
        assert_eq!(status("GET", path), 404, "{path}");
    }
    for limit in ["0", "1001", "-1", "many", ""] {
        for path in ["queues", OF_INBOX, "queues/inbox:ann/messages", "queues/inbox:ann/dead"] {
            assert_eq!(status("GET", &format!("{path}?limit={limit}")), 400, "{path} {limit}");
        }
    }
    let unknown = send(&program, "unknown:a", &json!({"payload": {}}));
    check_refused(&unknown, 404, "unknown_queue", "unknown:a");
    assert_eq!(unknown.header("cache-control"), Some("no-store"));
}

#[test]
fn every_change_is_in_the_audit_log() {
    let program = Program::start(CLASSES);
    let id = dead_letter(&program, &json!({"secret": "hush"}));
    program.operate("POST", &format!("{OF_INBOX}/dead/{id}/retry"), None);
    program.operate("DELETE", &format!("{OF_INBOX}/messages"), None);
    let dead = dead_letter(&program, &json!({}));
    program.operate("DELETE", &format!("{OF_INBOX}/dead/{dead}"), None);
    program.operate("DELETE", &format!("{OF_INBOX}/dead"), None);
    let refused = program.ask_as(&operator_token(), "POST", &format!("{OF_INBOX}/dead/{dead}/retry"), None);
    assert_eq!(refused.status, 404, "{refused:?}");
    let key = scoped(&program, &["queues:enqueue:queue:*"]);
    program.ask_as(&key, "POST", &format!("{OF_INBOX}/messages"), Some(&json!({"payload": {}})));

    let log = |query: &str| {
        let answer = program.ask_as(&operator_token(), "GET", &format!("audit?{query}"), None);
        assert!(!answer.body.contains("hush"), "{answer:?}");
        let lines = answer.body.lines().map(|line| serde_json::from_str::<Value>(line).expect("JSON"));
        lines.collect::<Vec<_>>()
    };
    let changes = log("type=security_event&user_id=operator");
    let mut told: Vec<_> = changes
        .iter()
        .map(|entry| (entry["operation"].as_str().expect("a text"), entry["params"]["id"].as_str().expect("a text")))
        .filter(|(operation, _)| operation.starts_with("queues/"))
        .collect();
    told.reverse();
    let [id, dead] = [id, dead].map(|id| format!("{INBOX} {id}"));
    assert_eq!(
        told,
        [
            ("queues/enqueue", &*id),
            ("queues/retry", &id),
            ("queues/purge", INBOX),
            ("queues/enqueue", &dead),
            ("queues/purge_dead", &dead),
            ("queues/purge_dead", INBOX),
        ]
    );
    let denied = log("type=authorization&user_id=producer");
    assert_eq!([&denied[0]["operation"], &denied[0]["params"]["topic"]], [&json!("queues:enqueue"), &json!(INBOX)]);
}

// ── the commands ────────────────────────────────────────────────────────────────────────────────────────────────────

/// Runs `bennu queue` with these flags first.
fn run(flags: &[&str], address: SocketAddr, arguments: &[&str], input: &str) -> Output {
    let listen = format!("--server-listen={address}");
    let mut command = Command::new(env!("CARGO_BIN_EXE_bennu"));
    command.args(["queue", &listen]).args(flags).args(arguments);
    command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut child = command.spawn().expect("the program starts");
    // One that reads nothing may have ended.
    let _ = child.stdin.take().expect("stdin is piped above").write_all(input.as_bytes());
    child.wait_with_output().expect("it ends")
}

fn run_at(program: &Program, arguments: &[&str], input: &str) -> Output {
    let file = program.folder.0.join("bennu.toml");
    run(&["--config", file.to_str().expect("a path of ASCII")], program.address, arguments, input)
}

/// What a command prints, which has to succeed.
#[track_caller]
fn cli(program: &Program, arguments: &[&str], input: &str) -> String {
    let output = run_at(program, arguments, input);
    assert!(output.status.success(), "{arguments:?}: {output:?}");
    String::from_utf8(output.stdout).expect("text")
}

#[track_caller]
fn check_fails(program: &Program, arguments: &[&str], why: &str) {
    let output = run_at(program, arguments, "");
    let error = String::from_utf8_lossy(&output.stderr);
    assert!(!output.status.success() && error.contains(why), "{arguments:?}, expected {why:?}: {output:?}");
    assert!(output.stdout.is_empty(), "{output:?}");
}

/// The words of a line of a command's answer that begins so.
#[track_caller]
fn words<'a>(told: &'a str, first: &str) -> Vec<&'a str> {
    let line = told.lines().find(|line| line.split_whitespace().next() == Some(first));
    line.unwrap_or_else(|| panic!("a line of {first}: {told}")).split_whitespace().collect()
}

#[test]
fn the_commands_send_show_retry_and_purge() {
    let program = Program::start(CLASSES);
    let all = ["--priority", "low", "--ttl-ms", "60000", "--delay-ms", "50000", "--max-retries", "9", "--key", "k"];

    let told = cli(&program, &[&["send", "queue:a/b", r#"{"n":1}"#][..], &all].concat(), "");
    let id = told.strip_suffix(" is durable\n").unwrap_or_else(|| panic!("an id: {told}")).to_owned();
    let again = cli(&program, &[&["send", "queue:a/b", "-"][..], &all].concat(), "{\"n\":\n1}\n");
    assert_eq!(again, format!("{id} is durable, which was there already\n"));
    let sent: Value = serde_json::from_str(&cli(&program, &["send", "quick:a", "-", "--json"], "{}")).expect("JSON");
    assert_eq!(sent["durability"], "memory", "{sent}");

    let listed = cli(&program, &["list"], "");
    assert_eq!(words(&listed, "queue:a/b")[..5], ["queue:a/b", "durable", "1", "0", "1"]);
    assert!(listed.ends_with(" bytes\n") && listed.contains("2 of 2 queues; all hold 2 messages"), "{listed}");
    assert!(!cli(&program, &["list", "--prefix", "quick:"], "").contains("queue:a"), "another prefix");
    assert!(cli(&program, &["list", "--limit", "1"], "").contains("1 of 2 queues"), "the first");
    let shown = cli(&program, &["show", "queue:a/b"], "");
    assert_eq!(words(&shown, "totals.duplicates"), ["totals.duplicates", "1"]);
    assert_eq!(words(&shown, "delayed"), ["delayed", "1"]);
    let messages = cli(&program, &["messages", "queue:a/b"], "");
    assert_eq!(words(&messages, &id)[1..4], ["delayed", "low", "0"]);
    assert!(messages.contains(r#"{"n":1}"#), "{messages}");
    let kept: Value = serde_json::from_str(&cli(&program, &["messages", "queue:a/b", "--json"], "")).expect("JSON");
    assert_eq!(kept["messages"][0]["max_retries"], 9, "{kept}");
    assert_eq!(cli(&program, &["purge", "queue:a/b"], ""), "purged 1 messages\n");

    let [first, second, third] = [1, 2, 3].map(|n| dead_letter(&program, &json!({ "n": n })));
    let dead = cli(&program, &["dead", INBOX], "");
    assert_eq!(words(&dead, &first)[1..3], ["retries_exhausted", "normal"]);
    assert!(dead.contains("no printer"), "{dead}");
    assert_eq!(cli(&program, &["retry", INBOX, &first], ""), format!("{first} waits again\n"));
    assert_eq!(cli(&program, &["purge", INBOX, "--dead", &second], ""), "purged 1 dead letters\n");
    assert!(cli(&program, &["dead", INBOX, "--limit", "5"], "").contains(&third), "the third is left");
    assert_eq!(cli(&program, &["purge", INBOX, "--dead"], ""), "purged 1 dead letters\n");
    assert!(cli(&program, &["messages", INBOX], "").contains(&first), "messages are left");
}

#[test]
fn the_commands_say_why_they_fail() {
    let program = Program::start(CLASSES);
    // What would be a message of its own is no payload.
    check_fails(&program, &["send", INBOX, r#"{},"priority":"urgent""#], "the payload");
    check_fails(&program, &["send", INBOX, "{"], "the payload");
    check_fails(&program, &["send", INBOX, "[]"], "payload: expected a JSON object");
    check_fails(&program, &["send", INBOX, "{}", "--priority", "now"], "priority: expected one of");
    check_fails(&program, &["send", "unknown:a", "{}"], "there is no queue \"unknown:a\"");
    check_fails(&program, &["send", "flash:a", "{}"], "nobody consumes this queue");
    check_fails(&program, &["retry", INBOX, "msg_1_1"], "no such dead letter");
    check_fails(&program, &["purge", INBOX, "--dead", "msg_1_1"], "no such dead letter");
    // Steps of a path.
    for name in ["..", ".", ""] {
        check_fails(&program, &["purge", name], "expected the name of a queue");
        check_fails(&program, &["purge", INBOX, "--dead", name], "expected the name of a queue or the id of a message");
    }
    check_fails(&program, &["messages", INBOX, "--limit", "0"], "limit: expected 1 to 1000");
}

#[test]
fn what_a_producer_wrote_does_not_reach_the_terminals_controls() {
    let program = Program::start(CLASSES);
    sent(&program, INBOX, &json!({"payload": {"a": "\u{9b}31m\u{7f}"}}));

    let told = cli(&program, &["messages", INBOX], "");

    assert!(told.contains("31m") && !told.chars().any(|c| c.is_control() && c != '\n'), "{told:?}");
}

#[test]
fn in_the_development_setting_the_commands_need_no_secret() {
    let (_program, address, _lines) = development::start(&[]);
    let flags = ["--config", "/dev/null"];

    let sent = run(&flags, address, &["send", "inbox:dev", "{}"], "");
    let listed = run(&flags, address, &["list"], "");

    // There is no file, so that memory is what is reached.
    assert!(String::from_utf8_lossy(&sent.stdout).ends_with(" is memory\n"), "{sent:?}");
    assert!(String::from_utf8_lossy(&listed.stdout).contains("inbox:dev"), "{listed:?}");
}

/// What `bennu check` says of these settings.
fn checked(settings: &str) -> String {
    let folder = Folder::new();
    let file = folder.0.join("bennu.toml");
    std::fs::write(&file, settings).expect("the folder takes it");
    let output = Command::new(env!("CARGO_BIN_EXE_bennu")).arg("check").arg("--config").arg(&file).output();
    let output = output.expect("the program starts");
    assert!(output.status.success(), "{output:?}");
    String::from_utf8(output.stdout).expect("text")
}

#[test]
fn check_says_which_queues_there_are_and_which_last_no_longer_than_the_process() {
    let production = format!("server.mode = \"production\"\nserver.secret_key_base = \"{}\"\n", "s".repeat(64));
    let warning = "warning: store.path is not set: the queues of queues.durable are kept in memory alone";

    let told = checked(&format!("{production}{CLASSES}"));
    for line in
        ["durable queues: inbox:*, queue:*, session:*", "memory queues: quick:*", "ephemeral queues: flash:*", warning]
    {
        assert!(told.lines().any(|told| told == line), "{line}: {told}");
    }
    assert!(!told.contains("of no effect"), "{told}");

    let folder = Folder::new();
    let path = folder.0.join("store.redb");
    assert!(!checked(&format!("{production}store.path = {path:?}\n")).contains(warning));
    assert!(!checked(&format!("{production}queues.durable = []\n")).contains(warning));
    assert!(!checked("").contains(warning), "whoever develops may do without");

    let told = checked("queues.memory = [\"queue:quick\"]\n");
    let line = "warning: queue:quick of queues.memory is of no effect: queue:* of queues.durable has those queues";
    assert!(told.lines().any(|told| told == line), "{told}");
}
