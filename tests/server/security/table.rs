//! Every role, every method that a client may send, every kind of credential: allowed or denied, with the exact reply.
//!
//! What is expected stands here by itself: nothing of it is asked of the policy, so that a change of the policy shows.

use serde_json::{Value, json};

use super::credentials::{claims, jwt, mcp_token};
use super::house::{House, join};
use super::http::ask;
use crate::mcp::peer::Peer;

const SESSION: &str = "mcp:session";
const MODERN: &str = "2026-07-28";

/// The roles, each with its letter in the table.
const ROLES: [(char, &str); 6] =
    [('A', "admin"), ('P', "power_user"), ('I', "api_user"), ('U', "user"), ('R', "readonly"), ('D', "dashboard")];

/// What a client of the Elixir deployment's kind gets for a method without params, where it may use it.
#[derive(Clone, Copy, Debug)]
enum Gets {
    /// This error: its code and its text.
    Error(i64, &'static str),
    /// A result with these keys.
    Result(&'static [&'static str]),
    /// A result that says so in band.
    Failure(&'static str),
}

use Gets::{Error, Failure, Result as Keys};

/// The methods that need a capability, that capability, who has it, and what it gives them.
const GUARDED: [(&str, &str, &str, Gets); 35] = [
    (
        "contexts/create",
        "contexts:create",
        "APIU",
        Keys(&["access_policy", "context_id", "created_at", "data", "metadata", "status", "updated_at", "version"]),
    ),
    ("contexts/delete", "contexts:delete", "APIU", Failure("Missing required field: contextId")),
    ("contexts/extend", "contexts:extend", "APIU", Failure("Missing required field: contextId")),
    ("contexts/get", "contexts:get", "APIU", Failure("Missing required field: contextId")),
    ("contexts/list", "contexts:list", "APIU", Keys(&["contexts", "total_count"])),
    ("contexts/merge", "contexts:merge", "APIU", Failure("Missing required field: contextId")),
    ("contexts/update", "contexts:update", "APIU", Failure("Missing required field: contextId")),
    ("contexts/versions", "contexts:versions", "APIU", Failure("Missing required field: contextId")),
    ("prompts/get", "prompts:get", "APIUR", Failure("Prompt not found")),
    ("prompts/list", "prompts:list", "APIUR", Keys(&["prompts"])),
    ("resources/list", "resources:list", "APIUR", Keys(&["resources"])),
    ("resources/read", "resources:read", "APIUR", Failure("Invalid resource URI: ")),
    ("resources/subscribe", "resources:subscribe", "APIU", Error(-32602, "Invalid params: uri must be a string")),
    ("resources/templates/list", "resources:list", "APIUR", Keys(&["resourceTemplates"])),
    ("resources/unsubscribe", "resources:subscribe", "APIU", Error(-32602, "Invalid params: uri must be a string")),
    ("sampling/createMessage", "sampling:createMessage", "AP", Failure("Missing required sampling field: model")),
    ("tools/call", "tools:call", "APIU", Error(-32602, "Invalid params: name must be a non-empty string")),
    ("tools/list", "tools:list", "APIUR", Keys(&["tools"])),
    ("workflows/cancel", "workflows:cancel", "APIU", Failure("Missing required field: runId")),
    ("workflows/create", "workflows:create", "APIU", Failure("expected a workflow definition, an object, came null")),
    (
        "workflows/create_from_template",
        "workflows:create_from_template",
        "APIU",
        Failure("Missing required field: name"),
    ),
    ("workflows/delete", "workflows:delete", "APIU", Failure("Missing required field: workflowId")),
    ("workflows/emit", "workflows:emit", "API", Failure("Missing required field: event")),
    ("workflows/execute", "workflows:execute", "APIU", Failure("Missing required field: definition")),
    ("workflows/get", "workflows:get", "APIU", Failure("Missing required field: workflowId")),
    ("workflows/get_template", "workflows:get_template", "APIUR", Failure("Missing required field: name")),
    ("workflows/list", "workflows:list", "APIU", Keys(&["total_count", "workflows"])),
    (
        "workflows/multi_tool",
        "workflows:multi_tool",
        "APIU",
        Failure("Multi-tool operation requires at least one tool call"),
    ),
    (
        "workflows/register_template",
        "workflows:register_template",
        "API",
        Failure("Missing required field: name (and 3 more)"),
    ),
    (
        "workflows/register_trigger",
        "workflows:register_trigger",
        "API",
        Failure("Missing required trigger field: event; Missing required trigger field: workflow"),
    ),
    ("workflows/remove_trigger", "workflows:remove_trigger", "API", Failure("Missing required field: triggerId")),
    ("workflows/run", "workflows:run", "APIU", Failure("Missing required field: runId")),
    ("workflows/runs", "workflows:runs", "APIU", Keys(&["runs", "total_count"])),
    ("workflows/templates", "workflows:templates", "APIUR", Keys(&["templates", "total_count"])),
    ("workflows/triggers", "workflows:triggers", "API", Keys(&["total_count", "triggers"])),
];

/// The methods that need nothing: the conversation itself, what the server alone sends, and one that nobody serves.
const FREE: [(&str, Gets); 25] = [
    ("completion/complete", Error(-32602, "Invalid params: ref must be an object")),
    ("elicitation/create", Error(-32601, "Method not found: elicitation/create")),
    ("initialize", Error(-32602, "Invalid params: protocolVersion must be a string")),
    (
        "logging/setLevel",
        Error(
            -32602,
            "Invalid params: level must be one of debug, info, notice, warning, error, critical, alert, emergency",
        ),
    ),
    ("notifications/cancelled", Error(-32601, "Method not found: notifications/cancelled")),
    ("notifications/initialized", Error(-32601, "Method not found: notifications/initialized")),
    ("notifications/message", Error(-32601, "Method not found: notifications/message")),
    ("notifications/progress", Error(-32601, "Method not found: notifications/progress")),
    ("notifications/prompts/list_changed", Error(-32601, "Method not found: notifications/prompts/list_changed")),
    ("notifications/resources/list_changed", Error(-32601, "Method not found: notifications/resources/list_changed")),
    ("notifications/resources/updated", Error(-32601, "Method not found: notifications/resources/updated")),
    ("notifications/roots/list_changed", Error(-32601, "Method not found: notifications/roots/list_changed")),
    (
        "notifications/subscriptions/acknowledged",
        Error(-32601, "Method not found: notifications/subscriptions/acknowledged"),
    ),
    ("notifications/tasks", Error(-32601, "Method not found: notifications/tasks")),
    ("notifications/tools/list_changed", Error(-32601, "Method not found: notifications/tools/list_changed")),
    ("ping", Keys(&[])),
    ("roots/list", Error(-32601, "Method not found: roots/list")),
    (
        "server/discover",
        Error(-32602, "Invalid params: _meta[\"io.modelcontextprotocol/protocolVersion\"] must be a protocol version"),
    ),
    (
        "subscriptions/listen",
        Error(-32602, "Invalid params: _meta[\"io.modelcontextprotocol/protocolVersion\"] must be a protocol version"),
    ),
    ("tasks/cancel", Error(-32601, "Method not found: tasks/cancel")),
    ("tasks/get", Error(-32601, "Method not found: tasks/get")),
    ("tasks/list", Error(-32601, "Method not found: tasks/list")),
    ("tasks/result", Error(-32601, "Method not found: tasks/result")),
    ("tasks/update", Error(-32601, "Method not found: tasks/update")),
    ("nobody/serves_this", Error(-32601, "Method not found: nobody/serves_this")),
];

/// What a role may not: the text of the error, or none.
fn denial(letter: char, method: &str) -> Option<String> {
    let row = GUARDED.iter().find(|(name, ..)| *name == method);
    let (_, wanted, roles, _) = row.filter(|(_, _, roles, _)| !roles.contains(letter))?;
    assert!(!roles.is_empty());
    Some(format!("Unauthorized: Missing capability: {wanted}"))
}

fn methods() -> impl Iterator<Item = (&'static str, Gets)> {
    GUARDED.iter().map(|(method, _, _, gets)| (*method, *gets)).chain(FREE)
}

/// A user of each role for each kind, and that credential of theirs.
struct Cast {
    house: House,
    keys: Vec<String>,
}

#[derive(Clone, Copy, Debug, PartialEq)]
enum Kind {
    Phoenix,
    Jwt,
    Key,
}

const KINDS: [Kind; 3] = [Kind::Phoenix, Kind::Jwt, Kind::Key];

impl Cast {
    fn new() -> Self {
        let users: Vec<_> = ROLES.iter().map(|(_, role)| (format!("{role}-Key"), *role)).collect();
        let users: Vec<_> = users.iter().map(|(user, role)| (&**user, *role)).collect();
        let (house, keys) = House::with_keys(&users, |_| {});
        Cast { house, keys }
    }

    /// The user, the credential, and the key under which a join has it.
    fn credential(&self, role: &str, kind: Kind) -> (String, String, &'static str) {
        let user = format!("{role}-{kind:?}");
        match kind {
            Kind::Phoenix => (user.clone(), mcp_token(&user, role), "token"),
            Kind::Jwt => (user.clone(), jwt(&claims(&user, role, 3_600)), "token"),
            Kind::Key => {
                let at = ROLES.iter().position(|(_, name)| *name == role).expect("a role of the table");
                (user, self.keys[at].clone(), "apiKey")
            }
        }
    }
}

/// Whether a response is what is expected; else both.
fn compare(response: &Value, id: &str, expected: &Result<Gets, String>) -> Option<String> {
    let error = |code: i64, message: &str| {
        json!({"jsonrpc": "2.0", "id": id, "error": {"code": code, "message": message}}) == *response
    };
    let keys: Vec<_> = response["result"].as_object().into_iter().flatten().map(|(key, _)| key.as_str()).collect();
    let is_it = match expected {
        Err(denied) => error(-32000, denied),
        Ok(Error(code, message)) => error(*code, message),
        Ok(Keys(wanted)) => response["result"].is_object() && keys == *wanted,
        Ok(Failure(text)) => {
            let result = &response["result"];
            let said = result["error"].as_str().or_else(|| result["contents"][0]["text"].as_str());
            let said =
                said.or_else(|| result["content"][0]["text"].as_str()).or_else(|| result["description"].as_str());
            result["isError"] == true && said == Some(*text)
        }
    };
    (!is_it).then(|| format!("expected {expected:?}, came {response}"))
}

/// Goes through all methods in a session.
fn go_through(peer: &mut Peer, letter: char, whose: &str, wrong: &mut Vec<String>) {
    for (method, gets) in methods() {
        // Whoever sends `initialize` well would be of another era from there on; without params it stays as it is.
        let id = format!("{whose} {method}");
        let response = peer.ask(SESSION, id.as_str(), method, json!({}));
        let expected = denial(letter, method).map_or(Ok(gets), Err);
        wrong.extend(compare(&response, &id, &expected).map(|why| format!("{id}: {why}")));
    }
}

#[test]
fn every_role_has_its_methods_by_every_kind_of_credential() {
    let cast = Cast::new();
    let mut wrong = Vec::new();
    for (letter, role) in ROLES {
        for kind in KINDS {
            let (user, credential, key) = cast.credential(role, kind);
            let mut peer = cast.house.socket(&user);
            // Dashboards may use no server but the one that is meant where none is named, and there do nothing.
            if letter == 'D' {
                assert_eq!(peer.refused("mcp:server:other", &join(key, &credential)), "unknown MCP server");
            }
            let joined = peer.joined(SESSION, &join(key, &credential));
            let token = joined["sessionToken"].as_str().expect("a token to come back with").to_owned();
            go_through(&mut peer, letter, &format!("{role} by {kind:?}"), &mut wrong);

            let mut again = cast.house.socket("somebody else");
            again.joined(SESSION, &join("token", &token));
            go_through(&mut again, letter, &format!("{role} by the session of {kind:?}"), &mut wrong);
        }
    }
    assert!(wrong.is_empty(), "{} of them:\n{}", wrong.len(), wrong.join("\n"));
}

#[test]
fn over_http_a_stateless_client_is_told_the_same_and_gets_403() {
    let cast = Cast::new();
    let mut wrong = Vec::new();
    for (letter, role) in ROLES {
        for kind in [Kind::Jwt, Kind::Key] {
            let (_, credential, _) = cast.credential(role, kind);
            for (method, _) in methods() {
                let name = format!("{role} by {kind:?} {method}");
                let meta = json!({
                    "io.modelcontextprotocol/protocolVersion": MODERN, "io.modelcontextprotocol/clientCapabilities": {},
                });
                let message = json!({"jsonrpc": "2.0", "id": 1, "method": method, "params": {"_meta": meta}});
                let bearer = format!("Bearer {credential}");
                let headers = [
                    ("Authorization", &*bearer),
                    ("Content-Type", "application/json"),
                    ("Accept", "application/json, text/event-stream"),
                    ("MCP-Protocol-Version", MODERN),
                    ("Mcp-Method", method),
                ];
                let answer =
                    ask(cast.house.address(), "POST", "/mcp/bennu", &headers, Some(message.to_string().as_bytes()));
                let response = answer.response();
                let challenge = answer.header("www-authenticate");
                let is_expected = match denial(letter, method) {
                    Some(text) => {
                        let error = json!({"code": 403, "message": text});
                        answer.status == 403
                            && response == json!({"jsonrpc": "2.0", "id": 1, "error": error})
                            && challenge == Some("Bearer error=\"insufficient_scope\"")
                    }
                    None => {
                        [200, 400, 404].contains(&answer.status)
                            && response["error"]["code"] != 403
                            && challenge.is_none()
                    }
                };
                if !is_expected {
                    wrong.push(format!("{name}: {answer:?}"));
                }
            }
        }
    }
    assert!(wrong.is_empty(), "{} of them:\n{}", wrong.len(), wrong.join("\n"));
}

#[test]
fn over_http_a_client_with_a_session_is_told_the_same() {
    let cast = Cast::new();
    let mut wrong = Vec::new();
    for (letter, role) in ROLES {
        let (user, credential, key) = cast.credential(role, Kind::Phoenix);
        // By a Phoenix token, and by the token of a session on a socket.
        let mut opener = cast.house.socket(&user);
        let joined = opener.joined(SESSION, &join(key, &credential));
        for credential in [credential.as_str(), joined["sessionToken"].as_str().expect("a token")] {
            let bearer = format!("Bearer {credential}");
            let post = |session: &str, message: &Value| {
                let headers = [
                    ("Authorization", &*bearer),
                    ("Content-Type", "application/json"),
                    ("Accept", "application/json, text/event-stream"),
                    ("Mcp-Session-Id", session),
                ];
                let headers = if session.is_empty() { &headers[..3] } else { &headers[..] };
                ask(cast.house.address(), "POST", "/mcp/bennu", headers, Some(message.to_string().as_bytes()))
            };
            let client = json!({"name": "test", "version": "1"});
            let params = json!({"protocolVersion": "2025-11-25", "capabilities": {}, "clientInfo": client});
            let opened = post("", &json!({"jsonrpc": "2.0", "id": 0, "method": "initialize", "params": params}));
            let session = opened.header("mcp-session-id").unwrap_or_else(|| panic!("a session: {opened:?}")).to_owned();
            for (method, _) in methods() {
                let message = json!({"jsonrpc": "2.0", "id": method, "method": method, "params": {}});
                let answer = post(&session, &message);
                let response = answer.response();
                let is_expected = match denial(letter, method) {
                    Some(text) => {
                        let error = json!({"code": -32000, "message": text});
                        response == json!({"jsonrpc": "2.0", "id": method, "error": error})
                    }
                    None => !response["error"]["message"].as_str().unwrap_or_default().starts_with("Unauthorized"),
                };
                if answer.status != 200 || !is_expected {
                    wrong.push(format!("{role} {method}: {answer:?}"));
                }
            }
        }
    }
    assert!(wrong.is_empty(), "{} of them:\n{}", wrong.len(), wrong.join("\n"));
}

#[test]
fn a_server_that_a_role_may_not_use_is_closed_over_http_too() {
    let house = House::new(|_| {});
    let meta =
        json!({"io.modelcontextprotocol/protocolVersion": MODERN, "io.modelcontextprotocol/clientCapabilities": {}});
    let message = json!({"jsonrpc": "2.0", "id": 1, "method": "tools/list", "params": {"_meta": meta}}).to_string();
    let status = |role: &str| {
        let bearer = format!("Bearer {}", mcp_token("ann", role));
        let headers = [
            ("Authorization", &*bearer),
            ("Content-Type", "application/json"),
            ("MCP-Protocol-Version", MODERN),
            ("Mcp-Method", "tools/list"),
        ];
        let answer = ask(house.address(), "POST", "/mcp/other", &headers, Some(message.as_bytes()));
        (answer.status, answer.header("www-authenticate").map(str::to_owned), answer.json())
    };

    let (refused, challenge, answer) = status("dashboard");
    assert_eq!((refused, challenge.as_deref()), (403, Some("Bearer error=\"insufficient_scope\"")));
    assert_eq!(answer["error"]["message"], "Unauthorized: Missing capability: servers:use:other");
    assert_eq!(status("readonly").0, 200);
}

#[test]
fn the_table_has_every_method_that_there_is() {
    let mut ours: Vec<_> =
        methods().map(|(method, _)| method).filter(|method| *method != "nobody/serves_this").collect();
    ours.sort_unstable();
    let theirs: Vec<_> = bennu::protocol::policy::methods::METHODS.iter().map(|(method, _)| *method).collect();

    assert_eq!(ours, theirs);
    let mut roles = ROLES.map(|(_, role)| role);
    roles.sort_unstable();
    assert!(bennu::protocol::policy::Roles::default().iter().map(|(role, _)| role).eq(roles));
}

/// Rules about names: a tool, a prompt, a resource.
#[test]
fn what_is_named_may_be_denied_alone() {
    use super::credentials::{MCP_SALT, map, signed, texts};
    use bennu::protocol::etf::Term;

    let house = House::new(|_| {});
    let with = |role: &str, permissions: &[&str]| {
        let fields =
            vec![("user_id", Term::binary("ann")), ("role", Term::binary(role)), ("permissions", texts(permissions))];
        signed(MCP_SALT, &map(fields))
    };
    let mut peer = house.socket("ann");
    let mut ask = |token: &str, method: &str, params: Value| {
        peer.joined(SESSION, &join("token", token));
        let id = format!("{}", peer.frames.len());
        let response = peer.ask(SESSION, id.as_str(), method, params);
        response["error"]["message"].as_str().map(str::to_owned)
    };
    let call = |name: &str| json!({"name": name, "arguments": {}});
    let unauthorized = |text: &str| Some(format!("Unauthorized: {text}"));

    let all_but_echo = with("user", &["!tools:call:echo"]);
    assert_eq!(ask(&all_but_echo, "tools/call", call("echo")), unauthorized("Missing capability: tools:call:echo"));
    assert_eq!(ask(&all_but_echo, "tools/call", call("nothing")), None);
    let echo_alone = with("readonly", &["tools:call:echo"]);
    assert_eq!(ask(&echo_alone, "tools/call", call("echo")), None);
    assert_eq!(ask(&echo_alone, "tools/call", call("echo2")), unauthorized("Missing capability: tools:call"));
    let read = json!({"uri": "memory://short-term/current"});
    assert_eq!(ask(&with("user", &[]), "resources/read", read.clone()), unauthorized("No access to memory resources"));
    let project = json!({"uri": "workspace://project/1"});
    assert_eq!(ask(&with("user", &[]), "resources/read", project), unauthorized("No access to workspace resources"));
    assert_eq!(ask(&with("user", &["resources:memory"]), "resources/read", read.clone()), None);
    assert_eq!(
        ask(&with("admin", &["!resources:memory"]), "resources/read", read),
        unauthorized("No access to memory resources")
    );
    // A name that is no text is none, which a rule about names does not let through.
    for name in [json!(null), json!(1), json!(["echo"]), json!({"name": "echo"}), json!(true)] {
        let came = ask(&echo_alone, "tools/call", json!({"name": name, "arguments": {}}));
        assert_eq!(came, unauthorized("Missing capability: tools:call"), "{name}");
    }
    let steps = json!({"type": "sequential", "steps": [{"tool": "echo"}]});
    let params = json!({"workflowId": "w", "definition": steps});
    let denied = with("admin", &["!tools:call:echo"]);
    peer.joined(SESSION, &join("token", &denied));
    let response = peer.ask(SESSION, "by a workflow", "workflows/execute", params);
    assert!(response.to_string().contains("Missing capability: tools:call:echo"), "{response}");
    // What comes twice is read once: what is asked about is what is called.
    for (id, params, expected) in [
        ("echo first", r#"{"name":"echo","name":"nothing","arguments":{}}"#, "Missing capability: tools:call:echo"),
        ("echo last", r#"{"name":"nothing","name":"echo","arguments":{}}"#, "tool_not_found"),
    ] {
        let message = format!(r#"{{"jsonrpc":"2.0","id":"{id}","method":"tools/call","params":{params}}}"#);
        peer.message_text(SESSION, &message);
        let response = peer.wait(|frame| frame.payload["id"] == id).payload;
        assert!(response.to_string().contains(expected), "{id}: {response}");
    }
}
