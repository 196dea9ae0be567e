//! `examples/odd_upstream` itself: what it sends is MCP unless it is asked for faults, in both eras and over both transports, and
//! what it repeats is the text that it got.

use std::collections::BTreeMap;
use std::io::{BufRead as _, BufReader, Lines, Read as _, Write as _};
use std::net::TcpStream;
use std::path::PathBuf;
use std::process::{Child, ChildStdin, ChildStdout, Stdio};
use std::time::Duration;

use serde_json::value::RawValue;
use serde_json::{Value, json};

use crate::mcp_schema::{MODERN, Validator};
use crate::upstreams;

const LEGACY: &str = "2025-11-25";
/// With all that a client can have.
const META: &str = r#""_meta":{"io.modelcontextprotocol/protocolVersion":"2026-07-28","io.modelcontextprotocol/clientCapabilities":{"sampling":{},"elicitation":{},"roots":{}},"io.modelcontextprotocol/logLevel":"debug","progressToken":"\u0074oken \/"}"#;
/// The same of a client that has said the rest before.
const LEGACY_META: &str = r#""_meta":{"progressToken":"\u0074oken \/"}"#;
/// Numbers and texts that do not survive a parser.
const ODD: &str = r#"{ "zeta":1e2,"alpha":12345678901234567890123 ,"caf\u00e9":"\/", "one":1.0 }"#;

/// One that runs, over stdio.
struct Odd {
    child: Child,
    stdin: ChildStdin,
    stdout: Lines<BufReader<ChildStdout>>,
    log: PathBuf,
}

impl Odd {
    #[track_caller]
    fn start(test: &str, flags: &[&str]) -> Self {
        let log = std::env::temp_dir().join(format!("odd-upstream-{test}-{}", std::process::id()));
        let upstream = upstreams::odd(flags).with_env("ODD_LOG", log.to_str().expect("it is UTF-8"));
        let child = upstream.command().stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::null()).spawn();
        let mut child = child.expect("it can be started");
        let stdin = child.stdin.take().expect("stdin is piped");
        let stdout = BufReader::new(child.stdout.take().expect("stdout is piped")).lines();
        Odd { child, stdin, stdout, log }
    }

    fn send(&mut self, message: &str) {
        writeln!(self.stdin, "{message}").expect("it reads");
    }

    fn request(&mut self, id: &str, method: &str, params: &str) {
        self.send(&format!(r#"{{"jsonrpc":"2.0","id":{id},"method":"{method}","params":{params}}}"#));
    }

    /// The next line that it writes.
    #[track_caller]
    fn line(&mut self) -> String {
        self.stdout.next().expect("it goes on").expect("it writes text")
    }

    #[track_caller]
    fn message(&mut self) -> Value {
        let line = self.line();
        serde_json::from_str(&line).unwrap_or_else(|error| panic!("{error}: {line}"))
    }

    fn initialize(&mut self) {
        let capabilities = r#"{"sampling":{},"elicitation":{},"roots":{}}"#;
        let client = r#"{"name":"test","version":"1"}"#;
        let params = format!(r#"{{"protocolVersion":"{LEGACY}","capabilities":{capabilities},"clientInfo":{client}}}"#);
        self.request("0", "initialize", &params);
        assert_eq!(self.message()["result"]["protocolVersion"], LEGACY);
        self.send(r#"{"jsonrpc":"2.0","method":"notifications/initialized"}"#);
    }

    /// Its log, once a line of it has this in it.
    #[track_caller]
    fn log_with(&mut self, part: &str) -> String {
        // What follows is answered after what came before has been logged.
        for turn in 0..1_000 {
            let log = std::fs::read_to_string(&self.log).expect("it has a log");
            if log.contains(part) {
                return log;
            }
            self.request(&format!(r#""turn {turn}""#), "vendor/turn", "[]");
            self.message();
        }
        panic!("no line of the log has {part}");
    }
}

impl Drop for Odd {
    fn drop(&mut self) {
        // It may have ended already; then there is nothing to kill.
        let _ = self.child.kill();
        let _ = self.child.wait();
        let _ = std::fs::remove_file(&self.log);
    }
}

/// What a client answers to a request.
fn answer_to(method: &str) -> &'static str {
    match method {
        "sampling/createMessage" => r#"{"role":"assistant","content":{"type":"text","text":"\u00e9"},"model":"m"}"#,
        "elicitation/create" => r#"{"action":"accept","content":{"name":"Ada"}}"#,
        "roots/list" => r#"{"roots":[ {"uri":"file:\/\/\/a"} ]}"#,
        other => panic!("it asked for {other}"),
    }
}

/// What is asked of a server in both eras, with the parameters besides `_meta`.
const REQUESTS: [(&str, &str); 21] = [
    ("tools/list", ""),
    ("tools/list", r#""cursor":"page \"2\" \u00e9\/""#),
    ("resources/list", ""),
    ("resources/templates/list", ""),
    ("resources/read", r#""uri":"odd:\/\/one""#),
    ("resources/read", r#""uri":"odd://blob""#),
    ("resources/read", r#""uri":"odd://nothing""#),
    ("prompts/list", ""),
    ("prompts/get", r#""name":"odd_prompt","arguments":{"text":"x"}"#),
    ("completion/complete", r#""ref":{"type":"ref/prompt","name":"odd_prompt"},"argument":{"name":"text","value":""}"#),
    ("tools/call", r#""name":"echo_raw","arguments":{}"#),
    ("tools/call", r#""name":"progress","arguments":{"count":3}"#),
    ("tools/call", r#""name":"fail_rpc""#),
    ("tools/call", r#""name":"fail_tool""#),
    ("tools/call", r#""name":"log","arguments":{"count":2}"#),
    ("tools/call", r#""name":"slow","arguments":{"ms":1e0}"#),
    ("tools/call", r#""name":"interleave""#),
    ("tools/call", r#""name":"sample""#),
    ("tools/call", r#""name":"elicit""#),
    ("tools/call", r#""name":"roots""#),
    ("tools/call", r#""name":"no such tool""#),
];

/// Plays all requests; every message is of the schema. Returns how many messages came, by method, or `result` or `error`.
fn play(revision: &str) -> BTreeMap<String, usize> {
    let mut odd = Odd::start(&format!("play-{revision}"), &["--plain-envelope"]);
    if revision == LEGACY {
        odd.initialize();
    }
    let meta = if revision == LEGACY { LEGACY_META } else { META };
    let mut came = BTreeMap::new();
    for (id, (method, params)) in REQUESTS.iter().enumerate() {
        let params = if params.is_empty() { meta.to_owned() } else { format!("{meta},{params}") };
        odd.request(&id.to_string(), method, &format!("{{{params}}}"));
        loop {
            let message = odd.message();
            let is_response = message.get("method").is_none();
            let checked = Validator::shared().check_from_server(revision, &message, is_response.then_some(method));
            assert_eq!(checked, Ok(()), "{method} {params}: {message}");
            let name =
                message["method"].as_str().unwrap_or(if message["error"].is_null() { "result" } else { "error" });
            *came.entry(name.to_owned()).or_default() += 1;
            if is_response {
                assert_eq!(message["id"], id);
                break;
            }
            if let Some(asked) = message.get("id") {
                let answer = answer_to(name);
                odd.send(&format!(r#"{{"jsonrpc":"2.0","id":{asked},"result":{answer}}}"#));
            }
        }
    }
    came
}

#[test]
fn what_it_sends_is_of_the_schema_of_the_legacy_era() {
    assert_eq!(
        play(LEGACY),
        [
            ("elicitation/create", 1),
            ("error", 3),
            ("notifications/message", 2),
            ("notifications/progress", 3),
            ("result", 18),
            ("roots/list", 1),
            ("sampling/createMessage", 1)
        ]
        .map(|(name, count)| (name.to_owned(), count))
        .into()
    );
}

#[test]
fn what_it_sends_is_of_the_schema_of_the_stateless_era() {
    assert_eq!(
        play(MODERN),
        [("error", 3), ("notifications/message", 2), ("notifications/progress", 3), ("result", 18)]
            .map(|(name, count)| (name.to_owned(), count))
            .into()
    );
}

#[test]
fn every_answer_has_members_that_nobody_knows() {
    let mut odd = Odd::start("unknown", &[]);
    odd.initialize();

    odd.request("1", "tools/list", "{}");
    let list = odd.message();
    for known in ["", "/result", "/result/_meta", "/result/tools/0", "/result/tools/0/annotations"] {
        let object = list.pointer(known).and_then(Value::as_object).expect("an object");
        assert!(object.keys().any(|key| key.contains("odd")), "{known}: {object:?}");
    }
    odd.request("2", "tools/call", r#"{"name":"fail_rpc"}"#);
    let failed = odd.message();
    assert!(failed["x-odd-envelope"].is_object() && failed["error"]["x-odd"].is_object(), "{failed}");
}

#[test]
fn what_it_repeats_is_the_text_that_it_got() {
    let mut odd = Odd::start("texts", &[]);
    odd.initialize();
    let params = format!(r#"{{ "arguments":{ODD} ,"x-odd":{ODD},"name":"echo_\u0072aw"}}"#);

    odd.request(r#""id \u00e9\/""#, "tools/call", &params);
    let called = odd.line();
    odd.request("2", "vendor/anything", "[ 1e2,12345678901234567890123, 1.0]");
    let vendor = odd.line();

    assert!(called.contains(&format!(r#""params":{params}"#)), "{called}");
    assert!(called.contains(r#""id":"id \u00e9\/""#), "{called}");
    assert!(vendor.contains(r#""params":[ 1e2,12345678901234567890123, 1.0]"#), "{vendor}");
    let log = odd.log_with(&params);
    assert!(log.lines().all(|line| serde_json::from_str::<&RawValue>(line).is_ok()), "{log}");
}

#[test]
fn questions_of_the_stateless_era_are_answered_by_the_same_call() {
    let mut odd = Odd::start("input", &["--era", "stateless"]);
    odd.request("1", "tools/call", &format!(r#"{{{META},"name":"roots"}}"#));
    let asked = odd.message();
    assert_eq!(asked["result"]["resultType"], "input_required");
    let state = &asked["result"]["requestState"];
    let requests = asked["result"]["inputRequests"].as_object().expect("an object");
    let key = requests.keys().next().expect("it asks for something");
    let answers = format!(r#"{{{}:{{"roots":[ {ODD} ]}}}}"#, json!(key));

    let again = |state: &str| format!(r#"{{{META},"name":"roots","requestState":{state},"inputResponses":{answers}}}"#);
    odd.request("2", "tools/call", &again(&state.to_string()));
    let answered = odd.line();
    odd.request("3", "tools/call", &again("\"another\""));

    assert!(answered.contains(&format!(r#""answer":{answers}"#)), "{answered}");
    assert_eq!(odd.message()["error"]["code"], -32602);
}

#[test]
fn a_cancelled_call_is_logged_and_not_answered() {
    let mut odd = Odd::start("cancelled", &["--era", "legacy"]);
    odd.initialize();

    odd.request("\"w\"", "tools/call", r#"{"name":"wait"}"#);
    odd.send(r#"{"jsonrpc":"2.0","method":"notifications/cancelled","params":{"requestId":"\u0077"}}"#);

    odd.log_with(r#""event":"cancelled","id":"w""#);
    odd.request("2", "server/discover", &format!("{{{META}}}"));
    let message = odd.message();
    assert_eq!((&message["id"], &message["error"]["code"]), (&json!(2), &json!(-32601)));
}

#[test]
fn changes_are_told_to_those_who_asked() {
    let mut odd = Odd::start("changes", &[]);
    let filter = r#""notifications":{"toolsListChanged":true,"resourceSubscriptions":["odd://one"]}"#;
    odd.request("\"l\"", "subscriptions/listen", &format!("{{{META},{filter}}}"));
    assert_eq!(odd.message()["method"], "notifications/subscriptions/acknowledged");

    for (tool, told) in
        [("touch", "notifications/resources/updated"), ("notify_changed", "notifications/tools/list_changed")]
    {
        odd.request("2", "tools/call", &format!(r#"{{{META},"name":"{tool}"}}"#));
        let change = odd.message();
        assert_eq!(change["method"], told);
        assert_eq!(change["params"]["_meta"]["io.modelcontextprotocol/subscriptionId"], "l");
        assert_eq!(odd.message()["id"], 2);
    }
    odd.request("3", "tools/call", &format!(r#"{{{META},"name":"extra"}}"#));
    assert_eq!(odd.message()["result"]["content"][0]["text"], "here for now");
}

#[test]
fn its_faults_are_as_described() {
    let mut odd = Odd::start("faults", &["--banner"]);
    let banner: Vec<_> = (0..4).map(|_| odd.line()).collect();
    assert!(banner.iter().all(|line| serde_json::from_str::<&RawValue>(line).is_err()), "{banner:?}");
    odd.initialize();
    let call = |name: &str, arguments: &str| {
        format!(r#"{{"_meta":{{"progressToken":7}},"name":"{name}","arguments":{arguments}}}"#)
    };

    odd.request("1", "tools/call", &call("oversize", r#"{"bytes":100000}"#));
    let line = odd.line();
    let envelope: BTreeMap<String, &RawValue> = serde_json::from_str(&line).expect("a message");
    assert_eq!(envelope["result"].get().len(), 100_000);

    odd.request("2", "tools/call", &call("duplicate", "{}"));
    assert_eq!([odd.message()["id"].clone(), odd.message()["id"].clone()], [2, 2]);

    odd.request("3", "tools/call", &call("late", r#"{"ms":1}"#));
    let late = [odd.message(), odd.message(), odd.message()];
    assert_eq!(
        (&late[0]["id"], &late[1]["params"]["progressToken"], &late[2]["id"]),
        (&json!(3), &json!(7), &json!(3))
    );

    odd.request("4", "tools/call", &call("flood", r#"{"count":1000}"#));
    for progress in 1..=1_000 {
        assert_eq!(odd.message()["params"]["progress"], f64::from(progress));
    }
    assert_eq!(odd.message()["id"], 4);

    odd.request("5", "tools/call", &call("half_line_exit", "{}"));
    let half = odd.line();
    assert!(half.len() > 100 && serde_json::from_str::<&RawValue>(&half).is_err(), "{half}");
    assert_eq!(odd.child.wait().expect("it ended").code(), Some(4));
}

#[test]
fn it_exits_when_told_to() {
    for (flags, tool, code) in
        [(vec!["--exit-at-start"], "", 5), (vec!["--exit-after-calls", "1"], "progress", 6), (vec![], "crash", 3)]
    {
        let mut odd = Odd::start("exits", &flags);
        if !tool.is_empty() {
            odd.initialize();
            odd.request("1", "tools/call", &format!(r#"{{"name":"{tool}"}}"#));
        }
        assert_eq!(odd.child.wait().expect("it ended").code(), Some(code), "{flags:?} {tool}");
    }
}

/// Sends a request over HTTP and reads the response to its end: its head, and the messages in its body.
fn post(port: &str, headers: &str, body: &str) -> (String, Vec<Value>) {
    let mut stream = TcpStream::connect(format!("127.0.0.1:{port}")).expect("it listens");
    let length = body.len();
    write!(stream, "POST /mcp HTTP/1.1\r\nhost: localhost\r\n{headers}content-length: {length}\r\n\r\n{body}")
        .expect("it reads");
    let mut reader = BufReader::new(stream);
    let mut head = String::new();
    while !head.ends_with("\r\n\r\n") {
        assert_ne!(reader.read_line(&mut head).expect("it answers"), 0, "{head}");
    }
    let length = head.lines().find_map(|line| line.strip_prefix("content-length: "));
    let messages = match length {
        Some(length) => {
            let mut body = vec![0; length.parse().expect("a number")];
            reader.read_exact(&mut body).expect("it answers in full");
            if body.is_empty() { Vec::new() } else { vec![serde_json::from_slice(&body).expect("JSON")] }
        }
        None => {
            // The lines of chunks that matter are whole.
            let lines = reader.lines().map(|line| line.expect("it writes text")).take_while(|line| line != "0");
            let data = lines.filter_map(|line| Some(line.strip_prefix("data:")?.trim().to_owned()));
            data.filter(|data| !data.is_empty()).map(|data| serde_json::from_str(&data).expect("JSON")).collect()
        }
    };
    (head, messages)
}

fn over_http(test: &str) -> (Odd, String) {
    let mut odd = Odd::start(test, &["--http", "0"]);
    let line = odd.line();
    let port = line.strip_prefix("listening on 127.0.0.1:").expect("it says where it listens").to_owned();
    (odd, port)
}

#[test]
fn over_http_the_legacy_era_has_sessions() {
    let (_odd, port) = over_http("http-legacy");
    let initialize = r#"{"jsonrpc":"2.0","id":1,"method":"initialize","params":{"protocolVersion":"2025-06-18","capabilities":{},"clientInfo":{}}}"#;
    let list = r#"{"jsonrpc":"2.0","id":2,"method":"tools/list"}"#;
    let progress =
        r#"{"jsonrpc":"2.0","id":3,"method":"tools/call","params":{"name":"progress","_meta":{"progressToken":1}}}"#;

    let (head, initialized) = post(&port, "", initialize);
    let session =
        head.lines().find(|line| line.starts_with("Mcp-Session-Id: ")).expect("a session").to_owned() + "\r\n";
    let (_, listed) = post(&port, &session, list);
    let (_, called) = post(&port, &session, progress);

    assert_eq!(initialized[0]["result"]["protocolVersion"], "2025-06-18");
    assert_eq!(listed[0]["result"]["tools"][0]["name"], "echo_raw");
    assert_eq!((called.len(), &called[3]["id"]), (4, &json!(3)));
    assert!(post(&port, "", list).0.starts_with("HTTP/1.1 400"));
    assert!(post(&port, "mcp-session-id: gone\r\n", list).0.starts_with("HTTP/1.1 404"));
}

#[test]
fn over_http_the_stateless_era_insists_on_its_headers() {
    let (mut odd, port) = over_http("http-stateless");
    let headers = |method: &str| format!("mcp-protocol-version: {MODERN}\r\nmcp-method: {method}\r\n");
    let body = |method: &str, params: &str| {
        format!(r#"{{"jsonrpc":"2.0","id":1,"method":"{method}","params":{{{META}{params}}}}}"#)
    };

    let (_, discovered) = post(&port, &headers("server/discover"), &body("server/discover", ""));
    let (_, listed) = post(&port, &headers("tools/list"), &body("tools/list", ""));
    let (head, refused) = post(&port, &headers("tools/call"), &body("tools/call", r#","name":"progress""#));
    let named = headers("tools/call") + "mcp-name: progress\r\n";
    let (_, called) = post(&port, &named, &body("tools/call", r#","name":"progress""#));

    assert_eq!(discovered[0]["result"]["supportedVersions"], json!([MODERN]));
    assert_eq!(listed[0]["result"]["tools"][0]["name"], "echo_raw");
    assert!(head.starts_with("HTTP/1.1 400"));
    assert_eq!(refused[0]["error"]["code"], -32020);
    assert_eq!(called.len(), 4);

    // Who leaves a stream has cancelled the call.
    let wait = body("tools/call", r#","name":"wait""#);
    let mut stream = TcpStream::connect(format!("127.0.0.1:{port}")).expect("it listens");
    let head = headers("tools/call") + "mcp-name: wait\r\n";
    write!(stream, "POST /mcp HTTP/1.1\r\n{head}content-length: {}\r\n\r\n{wait}", wait.len()).expect("it reads");
    let mut first = [0; 12];
    stream.read_exact(&mut first).expect("it answers");
    drop(stream);
    let cancelled = (0..2_000).any(|_| {
        std::thread::sleep(Duration::from_millis(5));
        std::fs::read_to_string(&odd.log).expect("a log").contains(r#""event":"cancelled","id":1"#)
    });
    assert!(cancelled);
    assert!(odd.child.try_wait().expect("it can be asked").is_none());
}
