//! Clients of one era with upstreams of the other.

use bennu::mcp::upstream::SpokenEra;
use serde_json::{Value, json};

use super::super::peer::{Peer, TestServer, stateless};
use super::odd::{Listening, Log, ODD, call, client, client_that, noting, odd};

fn joined(server: &TestServer) -> Peer {
    let mut peer = server.connect();
    peer.joined(ODD, &json!({}));
    peer
}

#[test]
fn each_client_is_spoken_for_in_its_own_era_where_the_upstream_has_both() {
    let log = Log::new();
    let server = TestServer::serving([noting(&log, &[], |_| {})]);
    let (mut old, mut new) = (client(&server), joined(&server));

    let found = new.stateless(ODD, 1, "server/discover", json!({}));
    assert_eq!(found["result"]["supportedVersions"], json!(["2026-07-28"]));
    assert!(found["result"].get("x-odd").is_some());
    assert!(new.stateless(ODD, 2, "tools/call", call("echo_raw", json!({}))).get("result").is_some());
    assert!(old.ask(ODD, 1, "tools/call", call("echo_raw", json!({}))).get("result").is_some());
    assert_eq!(log.pids().len(), 2);
    let calls = log.messages("tools/call");
    let version = |call: &Value| call["params"]["_meta"]["io.modelcontextprotocol/protocolVersion"].clone();
    assert_eq!((version(&calls[0]), version(&calls[1])), (json!("2026-07-28"), Value::Null));
}

#[test]
fn a_stateless_client_uses_a_legacy_upstream() {
    let log = Log::new();
    let server = TestServer::serving([noting(&log, &["--era", "legacy"], |_| {})]);
    let mut peer = joined(&server);

    let found = peer.stateless(ODD, 1, "server/discover", json!({}))["result"].clone();
    assert_eq!((&found["supportedVersions"], &found["resultType"]), (&json!(["2026-07-28"]), &json!("complete")));
    assert!(found["capabilities"].get("x-odd-capability").is_some());
    let listed = peer.stateless(ODD, 2, "tools/list", json!({}))["result"].clone();
    assert_eq!((&listed["ttlMs"], &listed["cacheScope"]), (&json!(0), &json!("private")));
    let mut params = stateless(call("progress", json!({"count": 3})), &json!({}));
    params["_meta"]["progressToken"] = json!("p");
    let called = peer.ask(ODD, 3, "tools/call", params);
    assert_eq!(called["result"]["resultType"], "complete");
    assert_eq!(peer.frames.iter().filter(|frame| frame.payload["params"]["progressToken"] == "p").count(), 3);
    let missing = peer.stateless(ODD, 4, "resources/read", json!({"uri": "odd://nothing"}));
    assert_eq!(missing["error"]["code"], -32602, "{missing}");
    let call = &log.messages("tools/call")[0];
    let kept: Vec<_> = call["params"]["_meta"].as_object().into_iter().flatten().map(|(key, _)| key.as_str()).collect();
    assert_eq!(kept, ["progressToken"]);
}

#[test]
fn a_question_of_a_legacy_upstream_ends_a_stateless_call_and_its_answer_goes_on() {
    let server = TestServer::serving([odd(&["--era", "legacy"], |_| {})]);
    let mut peer = joined(&server);
    let capabilities = json!({"sampling": {}, "elicitation": {}, "roots": {}});

    for (id, tool, method) in
        [(1, "sample", "sampling/createMessage"), (3, "elicit", "elicitation/create"), (5, "roots", "roots/list")]
    {
        let asked = peer.ask(ODD, id, "tools/call", stateless(call(tool, json!({})), &capabilities))["result"].clone();
        assert_eq!(asked["resultType"], "input_required", "{asked}");
        let requests = asked["inputRequests"].as_object().expect("requests");
        let (key, request) = requests.iter().next().expect("one");
        assert_eq!(request["method"], method);
        let mut params = stateless(call(tool, json!({})), &capabilities);
        params["requestState"] = asked["requestState"].clone();
        params["inputResponses"] = json!({key.as_str(): {"answer": tool}});
        let forged = {
            let mut params = params.clone();
            params["arguments"] = json!({"other": 1});
            params
        };
        let refused = peer.ask(ODD, id + 100, "tools/call", forged);
        assert_eq!(refused["error"]["code"], -32602, "another request: {refused}");

        let answered = peer.ask(ODD, id + 1, "tools/call", params.clone())["result"].clone();
        assert_eq!(answered["resultType"], "complete", "{answered}");
        assert!(answered.to_string().contains(&format!(r#"{{"answer":"{tool}"}}"#)), "{answered}");
        let again = peer.ask(ODD, id + 200, "tools/call", params);
        assert!(again["error"]["message"].as_str().is_some_and(|text| text.contains("has ended")), "{again}");
    }
}

#[test]
fn a_legacy_client_uses_a_stateless_upstream() {
    let log = Log::new();
    let listening = Listening::start(&["--era", "stateless"], Some(&log));
    for server in [noting(&log, &["--era", "stateless"], |_| {}), listening.server(|_| {})] {
        let server = TestServer::serving([server]);
        let capabilities = json!({"sampling": {}, "elicitation": {}, "roots": {}});
        let mut peer = server.connect_unchecked();
        let result = peer.initialized(ODD, "2025-06-18", &capabilities);
        assert_eq!(result["protocolVersion"], "2025-06-18");
        assert!(result["serverInfo"].get("x-odd-info").is_some() && result.get("supportedVersions").is_none());

        assert!(peer.ask(ODD, 1, "tools/list", json!({}))["result"]["tools"].is_array());
        for (id, tool, method) in
            [(2, "sample", "sampling/createMessage"), (3, "elicit", "elicitation/create"), (4, "roots", "roots/list")]
        {
            peer.message(
                ODD,
                &json!({"jsonrpc": "2.0", "id": id, "method": "tools/call", "params": call(tool, json!({}))}),
            );
            let asked = peer.told(ODD, method);
            peer.message(ODD, &json!({"jsonrpc": "2.0", "id": asked["id"], "result": {"answer": tool}}));
            let answered = peer.wait(|frame| frame.is_response(&json!(id))).payload;
            assert!(answered.to_string().contains(&format!(r#"{{"answer":"{tool}"}}"#)), "{answered}");
        }
        assert_eq!(peer.ask(ODD, 5, "logging/setLevel", json!({"level": "debug"}))["result"], json!({}));
        peer.ask(ODD, 6, "tools/call", call("log", json!({"level": "debug", "count": 1})));
        peer.told(ODD, "notifications/message");
        let region = call("echo_raw", json!({"region": "eu"}));
        let answer = peer.ask(ODD, 7, "tools/call", region);
        assert!(answer.get("result").is_some(), "with the header that it wants: {answer}");
    }
}

#[test]
fn a_client_without_a_capability_is_told_what_the_upstream_wanted() {
    let server = TestServer::serving([odd(&["--era", "stateless"], |_| {})]);
    let mut peer = client(&server);

    let refused = peer.ask(ODD, 1, "tools/call", call("sample", json!({"anyway": true})));

    assert!(
        refused["error"]["message"].as_str().is_some_and(|text| text.contains("sampling/createMessage")),
        "{refused}"
    );
}

#[test]
fn an_era_that_is_set_is_the_only_one_tried() {
    let server = TestServer::serving([odd(&["--era", "legacy"], |options| options.era = SpokenEra::Stateless)]);
    let mut peer = joined(&server);

    let refused = peer.stateless(ODD, 1, "tools/list", json!({}));

    assert!(
        refused["error"]["message"].as_str().is_some_and(|text| text.contains("server/discover: error")),
        "{refused}"
    );
    let server = TestServer::serving([odd(&[], |options| options.era = SpokenEra::Legacy)]);
    let mut peer = client_that(&server, &json!({}));
    assert!(peer.ask(ODD, 1, "tools/list", json!({})).get("result").is_some());
}
