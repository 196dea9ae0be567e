//! The operator's interface to the live MCP sessions, over HTTP: which there are, and their end.

use serde_json::{Value, json};

use super::credentials::{mcp_token, operator_token};
use super::house::{Program, join};
use crate::mcp::peer::Peer;

const SESSION: &str = "mcp:session";
const SESSIONS: &str = "mcp/sessions";

/// A client of that user in a session that it may come back to; and the session's id.
fn visit(program: &Program, user: &str) -> (Peer, String) {
    let (peer, joined) = visit_with(program, user, &Value::Null);
    (peer, joined["sessionId"].as_str().expect("an id").to_owned())
}

fn visit_with(program: &Program, user: &str, token: &Value) -> (Peer, Value) {
    let mut peer = program.socket(user);
    let mut params = join("token", &mcp_token(user, "user"));
    params["recoveryToken"] = token.clone();
    let joined = peer.joined(SESSION, &params);
    (peer, joined)
}

/// The ids on a page, and what follows it.
fn page(program: &Program, query: &str) -> (Vec<String>, Option<String>) {
    let page = program.operate("GET", &format!("{SESSIONS}{query}"), None);
    let sessions = page["sessions"].as_array().unwrap_or_else(|| panic!("a list: {page}")).iter();
    let ids = sessions.map(|session| session["id"].as_str().expect("an id").to_owned()).collect();
    (ids, page.get("next").map(|next| next.as_str().expect("an id").to_owned()))
}

/// All pages from the first on, of at most so many.
fn pages(program: &Program, limit: usize, user: &str) -> Vec<Vec<String>> {
    let first = format!("?limit={limit}{user}");
    let mut pages = Vec::new();
    let mut query = first.clone();
    loop {
        let (ids, next) = page(program, &query);
        pages.push(ids);
        let Some(next) = next else { return pages };
        query = format!("{first}&after={next}");
    }
}

#[track_caller]
fn check_refused(program: &Program, method: &str, path: &str, status: u16, detail: &str) {
    let answer = program.ask_as(&operator_token(), method, path, None);
    assert_eq!((answer.status, &answer.json()["errors"]["detail"]), (status, &json!(detail)), "{method} {path}");
}

#[test]
fn a_session_is_shown_as_it_is() {
    let program = Program::start("");
    assert_eq!(program.operate("GET", SESSIONS, None), json!({"sessions": []}));
    let (mut peer, id) = visit(&program, "ann");
    peer.call(SESSION, &json!(1), &json!({"name": "countdown", "arguments": {"seconds": 60}}));

    let shown = program.operate("GET", &format!("{SESSIONS}/{id}"), None);

    assert_eq!([&shown["id"], &shown["user"], &shown["server"]], [&json!(id), &json!("ann"), &json!("bennu")]);
    assert_eq!([&shown["state"], &shown["health"]], ["connected", "active"]);
    assert_eq!([&shown["calls"], &shown["recoverable"], &shown["resumed"]], [&json!(1), &json!(true), &json!(0)]);
    let listed = program.operate("GET", SESSIONS, None);
    assert_eq!(listed["sessions"][0]["id"], shown["id"]);
    let text = program.operate("GET", SESSIONS, None).to_string();
    assert!(!text.contains("oken"), "nothing by which anyone comes in: {text}");
}

#[test]
fn a_session_whose_client_is_away_is_shown_until_it_comes_back() {
    let program = Program::start("");
    let (peer, joined) = visit_with(&program, "ann", &Value::Null);
    let path = format!("{SESSIONS}/{}", joined["sessionId"].as_str().expect("an id"));

    peer.vanish();
    crate::lab::until("its loss is noticed", || program.operate("GET", &path, None)["state"] == "detached");
    let away = program.operate("GET", &path, None);
    let stats = program.operate("GET", "mcp/stats", None);
    let (_peer, again) = visit_with(&program, "ann", &joined["recoveryToken"]);
    let back = program.operate("GET", &path, None);

    assert!(away["left_ms"].as_u64().is_some_and(|left| (1..=300_000).contains(&left)), "{away}");
    assert_eq!(away["health"], "silent");
    assert_eq!([&stats["sessions"]["connected"], &stats["sessions"]["detached"]], [0, 1], "{stats}");
    assert_eq!(again["resumed"], true);
    assert_eq!([&back["state"], &back["resumed"]], [&json!("connected"), &json!(1)]);
}

#[test]
fn sessions_are_listed_page_by_page_all_or_a_users() {
    let program = Program::start("");
    let (mut peers, mut all, mut anns) = (Vec::new(), Vec::new(), Vec::new());
    for user in ["ann", "bob", "ann", "bob", "ann"] {
        let (peer, id) = visit(&program, user);
        if user == "ann" {
            anns.push(id.clone());
        }
        all.push(id);
        peers.push(peer);
    }
    all.sort();
    anns.sort();

    assert_eq!(page(&program, ""), (all.clone(), None));
    assert_eq!(pages(&program, 2, ""), all.chunks(2).collect::<Vec<_>>());
    assert_eq!(pages(&program, 5, ""), [&all[..]], "a page that is full and the last has no next");
    assert_eq!(pages(&program, 2, "&user=ann"), anns.chunks(2).collect::<Vec<_>>());
    assert_eq!(pages(&program, 1_000, "&user=ann"), [&anns[..]]);
    assert_eq!(page(&program, "?user=eve"), (vec![], None));
    assert_eq!(page(&program, &format!("?after={}", all[4])), (vec![], None));
    assert_eq!(page(&program, "?after=mcp_session_&user=ann&limit=1"), (anns[..1].to_vec(), Some(anns[0].clone())));
}

#[test]
fn a_session_is_kicked_for_good_and_its_call_cancelled() {
    let program = Program::start("");
    let (mut peer, joined) = visit_with(&program, "ann", &Value::Null);
    let (mut other, other_id) = visit(&program, "ann");
    let mut watcher = program.socket("ann");
    watcher.joined("mcp:runs", &json!({"token": mcp_token("ann", "user")}));
    let run = peer.call(SESSION, &json!(1), &json!({"name": "countdown", "arguments": {"seconds": 60}}));
    let id = joined["sessionId"].as_str().expect("an id");

    let ended = program.operate("DELETE", &format!("{SESSIONS}/{id}"), None);

    assert_eq!(ended, json!({"ended": id}));
    peer.wait(|frame| frame.topic == SESSION && frame.event == "phx_close");
    let finished = watcher.wait(|frame| frame.event == "run_finished" && frame.payload["run_id"] == run);
    assert_eq!(finished.payload["status"], "failed", "a countdown fails by nothing else: {finished:?}");
    assert!(peer.is_open(), "its socket has other channels");
    for method in ["GET", "DELETE"] {
        check_refused(&program, method, &format!("{SESSIONS}/{id}"), 404, "Session not found");
    }
    assert_eq!(page(&program, ""), (vec![other_id], None));
    let (_again, fresh) = visit_with(&program, "ann", &joined["recoveryToken"]);
    assert_eq!(fresh["resumed"], false, "nobody comes back to it");
    assert_eq!(other.request(json!(1), "ping", json!({}))["result"], json!({}), "the other goes on");
    let stats = program.operate("GET", "mcp/stats", None);
    assert_eq!([&stats["sessions"]["kicked"], &stats["sessions"]["opened"]], [1, 3], "{stats}");

    let log = program.ask_as(&operator_token(), "GET", "audit?operation=mcp/sessions/end", None);
    let entries: Vec<_> = log.body.lines().map(|line| serde_json::from_str::<Value>(line).expect("JSON")).collect();
    assert_eq!(entries.len(), 1, "what was refused changed nothing: {log:?}");
    assert_eq!([&entries[0]["user_id"], &entries[0]["params"]["id"]], ["operator", id]);
}

#[test]
fn who_lacks_the_capability_is_refused_and_changes_nothing() {
    let program = Program::start("");
    let (_peer, id) = visit(&program, "ann");
    let one = format!("{SESSIONS}/{id}");
    let key = |scopes: &[&str]| {
        let made = program.operate("POST", "keys", Some(&json!({"user": "ann", "scopes": scopes})));
        made["key"].as_str().expect("a key").to_owned()
    };
    let (able, lacking) = (key(&["admin:sessions"]), key(&["admin:stats", "admin:audit", "tools:*"]));

    for (method, path) in [("GET", SESSIONS), ("GET", &*one), ("DELETE", &one), ("GET", "mcp/stats")] {
        let answer = program.ask_as(&lacking, method, path, None);
        assert_eq!(answer.status, 403, "{method} {path}: {answer:?}");
        assert!(answer.body.contains("Missing capability: admin:sessions"), "{answer:?}");
        let answer = program.ask_as("no-such-key", method, path, None);
        assert_eq!((answer.status, answer.header("www-authenticate")), (401, Some("Bearer")), "{method} {path}");
    }

    assert_eq!(page(&program, ""), (vec![id], None));
    for (method, path) in [("GET", SESSIONS), ("GET", "mcp/stats"), ("DELETE", &one)] {
        assert_eq!(program.ask_as(&able, method, path, None).status, 200, "{method} {path}");
    }
}

#[test]
fn what_is_no_such_request_is_refused_with_what_was_expected() {
    let program = Program::start("");
    let refused = |path: &str, status, detail: &str| check_refused(&program, "GET", path, status, detail);

    for (limit, came) in [("0", "0"), ("1001", "1001"), ("-1", "-1"), ("", ""), ("1e2", "1e2"), ("%2B1x", "+1x")] {
        refused(&format!("{SESSIONS}?limit={limit}"), 400, &format!("limit: expected 1 to 1000, came {came:?}"));
    }
    refused(&format!("{SESSIONS}?after="), 400, "after: expected a session's id, came \"\"");
    refused(&format!("{SESSIONS}?after=a%20b"), 400, "after: expected a session's id, came \"a b\"");
    refused(&format!("{SESSIONS}?after=%C3%A4"), 400, "after: expected a session's id, came \"ä\"");
    let long = "x".repeat(129);
    refused(&format!("{SESSIONS}?after={long}"), 400, "after: expected a session's id, came 129 bytes");
    refused(&format!("{SESSIONS}?user[]=ann"), 400, "user: expected one text, came a list or a map");
    refused(&format!("{SESSIONS}/mcp_session_0000000000000000"), 404, "Session not found");
    for path in [&*format!("{SESSIONS}/"), &format!("{SESSIONS}/stats"), &format!("{SESSIONS}/{long}")] {
        refused(path, 404, "Session not found");
    }
    for path in ["mcp", "mcp/", "mcp/other", "mcp/sessions/a/b", "mcp/stats/a"] {
        refused(path, 404, "Not Found");
    }
    for (method, path) in [("POST", SESSIONS), ("DELETE", SESSIONS), ("PUT", "mcp/sessions/a"), ("DELETE", "mcp/stats")]
    {
        check_refused(&program, method, path, 405, "this path has no such method");
    }
}
