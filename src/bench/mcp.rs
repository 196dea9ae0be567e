//! What the MCP modes share: the eras of the protocol, the calls they make, and the check of what is answered.
//!
//! Knows the few JSON-RPC messages that a load needs and is no MCP client: whatever has a `method` is passed over.

use std::borrow::Cow;

use anyhow::{Context, Result, bail};
use clap::{Args, ValueEnum};
use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;
use serde_json::{Map, Value, json};

use super::exchange::Load;
use super::frame::{NUMBER_PLACEHOLDER, parse_number};
use super::message::excerpt;
use super::options::at_least_one;
use super::process::check_open_files;

/// The last version whose sessions begin with `initialize`.
pub const LEGACY_VERSION: &str = "2025-11-25";

/// The version from which on every request says for itself what a session said before.
pub const MODERN_VERSION: &str = "2026-07-28";

/// The method of a call.
pub const TOOLS_CALL: &str = "tools/call";

/// The id of `initialize`; those of calls have ten digits.
const INITIALIZE_ID: u64 = 1;

/// How a session begins.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Era {
    /// With the join of its channel, whose payload has the clientInfo
    Elixir,
    /// With initialize and notifications/initialized, as in 2025-11-25
    Legacy,
    /// Not at all: each request has its _meta, as in 2026-07-28
    Modern,
}

/// The shape of a load of `tools/call`, on channels or on HTTP.
#[derive(Args, Clone, Debug, Serialize)]
pub struct CallOptions {
    /// Connections, each with a session of its own
    #[arg(long, short = 'c', default_value_t = 64)]
    pub connections: usize,
    /// Calls in flight a connection
    #[arg(long, short = 'd', default_value_t = 1)]
    pub depth: usize,
    /// How a session begins
    #[arg(long, value_enum, default_value_t = Era::Legacy)]
    pub era: Era,
    /// Tool that answers with one of its arguments as text
    #[arg(long, default_value = "echo")]
    pub tool: String,
    /// Name of that argument
    #[arg(long, default_value = "text", value_name = "NAME")]
    pub echoed: String,
    /// Bytes of that argument
    #[arg(long, default_value_t = 64)]
    pub payload: usize,
    /// The arguments, a JSON object; the echoed one is added unless it is there
    #[arg(long, default_value = "{}", value_name = "JSON")]
    pub arguments: String,
}

impl CallOptions {
    /// Checks the numbers and says how the load runs.
    ///
    /// # Errors
    /// If a count is 0, or if the connections need more open files than are allowed.
    pub fn load(&self) -> Result<Load> {
        at_least_one("connections", self.connections)?;
        at_least_one("depth", self.depth)?;
        check_open_files(self.connections)?;
        Ok(Load::Closed { depth: self.depth })
    }

    /// The calls of the connection named `owner`. Its text is in them, so that another's answer isn't taken for its own.
    ///
    /// # Errors
    /// If the arguments are no object, or if the echoed one is no string.
    pub fn call(&self, owner: &str) -> Result<Call> {
        let mut arguments: Map<String, Value> = serde_json::from_str(&self.arguments)
            .with_context(|| format!("arguments are {:?}, expected a JSON object", self.arguments))?;
        let echoed = arguments.entry(&self.echoed).or_insert_with(|| text_of(owner, self.payload).into());
        let Some(text) = echoed.as_str().map(str::to_owned) else {
            bail!("argument {:?} is {echoed}, expected a string: it is what the tool answers with", self.echoed);
        };
        let mut params = json!({ "name": self.tool, "arguments": arguments });
        if self.era == Era::Modern {
            params["_meta"] = modern_meta();
        }
        let params = params.to_string();
        if params.contains(NUMBER_PLACEHOLDER) {
            bail!("the call has {NUMBER_PLACEHOLDER:?} in it, which stands for its number");
        }
        let request =
            format!(r#"{{"jsonrpc":"2.0","id":{NUMBER_PLACEHOLDER},"method":"{TOOLS_CALL}","params":{params}}}"#);
        Ok(Call { request, text })
    }
}

fn text_of(owner: &str, bytes: usize) -> String {
    let mut text = format!("{owner} ");
    text.truncate(bytes);
    text.extend(std::iter::repeat_n('x', bytes - text.len()));
    text
}

fn modern_meta() -> Value {
    json!({
        "io.modelcontextprotocol/protocolVersion": MODERN_VERSION,
        "io.modelcontextprotocol/clientCapabilities": {},
    })
}

fn client_info() -> Value {
    json!({ "name": "bennu bench", "version": env!("CARGO_PKG_VERSION") })
}

/// The calls of one connection.
#[derive(Debug)]
pub struct Call {
    /// The JSON-RPC request, its id still a placeholder.
    pub request: String,
    /// The text that has to come back.
    pub text: String,
}

/// The payload of a session's join: the one given, with a `clientInfo` where the join is the handshake.
///
/// # Errors
/// If the payload is no JSON object.
pub fn join_payload(era: Era, given: &str) -> Result<String> {
    let mut payload: Map<String, Value> =
        serde_json::from_str(given).with_context(|| format!("join payload is {given:?}, expected a JSON object"))?;
    if era == Era::Elixir {
        payload.entry("clientInfo").or_insert_with(client_info);
    }
    Ok(Value::Object(payload).to_string())
}

/// The request that begins a session of the legacy era.
pub fn initialize() -> String {
    let params = json!({ "protocolVersion": LEGACY_VERSION, "capabilities": {}, "clientInfo": client_info() });
    json!({ "jsonrpc": "2.0", "id": INITIALIZE_ID, "method": "initialize", "params": params }).to_string()
}

/// The notification that follows the answer to [`initialize`].
pub fn initialized() -> String {
    json!({ "jsonrpc": "2.0", "method": "notifications/initialized" }).to_string()
}

/// Whether a message is the answer to [`initialize`].
///
/// # Errors
/// If it is and has no result, or another version than [`LEGACY_VERSION`].
pub fn is_initialize_result(message: &str) -> Result<bool> {
    let value: Value = serde_json::from_str(message)
        .with_context(|| format!("expected a JSON-RPC message, came {}", excerpt(message)))?;
    if value.get("method").is_some() {
        return Ok(false);
    }
    if value["id"] != INITIALIZE_ID || value["result"]["protocolVersion"] != LEGACY_VERSION {
        bail!("expected the answer to initialize with version {LEGACY_VERSION}, came {}", excerpt(message));
    }
    Ok(true)
}

/// What a message of the server is to a load of calls.
#[derive(Debug, PartialEq, Eq)]
pub enum Came {
    /// The answer to the call of this number, or why it is no right one.
    Answer(u64, Result<(), String>),
    /// An answer to no call of this run, as text.
    Stray(String),
    /// A request or a notification of the server's.
    Other,
}

/// The answers to the calls of one connection.
///
/// The first right one is parsed. Where those after it differ from it in their id alone, a comparison of bytes is enough; all
/// others are parsed too.
#[derive(Debug)]
pub struct Answers {
    text: String,
    /// What stands before and behind the id of a right answer.
    around_id: Option<(String, String)>,
}

#[derive(Deserialize)]
struct Message<'a> {
    #[serde(borrow, default)]
    jsonrpc: Option<Cow<'a, str>>,
    #[serde(borrow, default)]
    id: Option<&'a RawValue>,
    #[serde(borrow, default)]
    method: Option<&'a RawValue>,
    #[serde(borrow, default)]
    result: Option<&'a RawValue>,
    #[serde(borrow, default)]
    error: Option<&'a RawValue>,
}

#[derive(Deserialize)]
struct CallResult<'a> {
    #[serde(borrow)]
    content: Vec<Content<'a>>,
    #[serde(default, rename = "isError")]
    is_error: bool,
}

#[derive(Deserialize)]
struct Content<'a> {
    #[serde(borrow, default)]
    text: Option<Cow<'a, str>>,
}

impl Answers {
    /// Expects `text` in each of them.
    pub fn new(text: String) -> Self {
        Self { text, around_id: None }
    }

    /// Reads one message.
    pub fn read(&mut self, message: &str) -> Came {
        if let Some(number) = self.known(message) {
            return Came::Answer(number, Ok(()));
        }
        let stray = || Came::Stray(format!("expected an answer to a call of this run, came {}", excerpt(message)));
        let Ok(parsed) = serde_json::from_str::<Message<'_>>(message) else {
            return stray();
        };
        if parsed.method.is_some() {
            return Came::Other;
        }
        let Some((id, number)) = parsed.id.and_then(|id| Some((id.get(), parse_number(id.get().as_bytes())?))) else {
            return stray();
        };
        if !self.is_right(&parsed) {
            let wrong = format!("expected a result with the text {:?}, came {}", excerpt(&self.text), excerpt(message));
            return Came::Answer(number, Err(wrong));
        }
        self.learn(message, id);
        Came::Answer(number, Ok(()))
    }

    fn known(&self, message: &str) -> Option<u64> {
        let (before, behind) = self.around_id.as_ref()?;
        parse_number(message.strip_prefix(before.as_str())?.strip_suffix(behind.as_str())?.as_bytes())
    }

    fn learn(&mut self, message: &str, id: &str) {
        // Digits that stand there twice may be more than the id.
        if message.matches(id).count() == 1 {
            self.around_id = message.split_once(id).map(|(before, behind)| (before.to_owned(), behind.to_owned()));
        }
    }

    fn is_right(&self, message: &Message<'_>) -> bool {
        let result = message.result.and_then(|result| serde_json::from_str::<CallResult<'_>>(result.get()).ok());
        let text = result
            .as_ref()
            .filter(|result| !result.is_error)
            .and_then(|result| result.content.first()?.text.as_deref());
        message.jsonrpc.as_deref() == Some("2.0") && message.error.is_none() && text == Some(self.text.as_str())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::Parser;

    #[derive(Parser)]
    struct Line {
        #[command(flatten)]
        options: CallOptions,
    }

    fn options(line: &[&str]) -> CallOptions {
        Line::parse_from([&["call"], line].concat()).options
    }

    fn request(line: &[&str]) -> (Value, String) {
        let call = options(line).call("0-7").expect("a call");
        let request = call.request.replace(NUMBER_PLACEHOLDER, "1000000000");
        (serde_json::from_str(&request).expect("JSON"), call.text)
    }

    fn answer(id: &str, text: &str) -> String {
        format!(r#"{{"jsonrpc":"2.0","id":{id},"result":{{"content":[{{"type":"text","text":"{text}"}}]}}}}"#)
    }

    #[test]
    fn a_call_has_the_text_of_its_connection_in_the_size_asked_for() {
        let (request, text) = request(&["--payload", "8", "--arguments", r#"{"a":1}"#]);

        assert_eq!(text, "0-7 xxxx");
        let params = json!({ "name": "echo", "arguments": { "a": 1, "text": "0-7 xxxx" } });
        assert_eq!(request, json!({ "jsonrpc": "2.0", "id": 1_000_000_000, "method": "tools/call", "params": params }));
        assert_eq!(text_of("0-7", 2), "0-");
        assert_eq!(text_of("0-7", 0), "");
    }

    #[test]
    fn a_text_that_is_given_is_the_one_expected() {
        let (request, text) = request(&["--echoed", "say", "--arguments", r#"{"say":"a\"b"}"#, "--tool", "parrot"]);
        assert_eq!(text, "a\"b");
        assert_eq!(request["params"], json!({ "name": "parrot", "arguments": { "say": "a\"b" } }));
    }

    #[test]
    fn only_a_modern_call_says_its_version() {
        for era in ["elixir", "legacy"] {
            assert_eq!(request(&["--era", era]).0["params"].get("_meta"), None);
        }
        let meta = &request(&["--era", "modern"]).0["params"]["_meta"];
        let expected = json!({
            "io.modelcontextprotocol/protocolVersion": "2026-07-28",
            "io.modelcontextprotocol/clientCapabilities": {},
        });
        assert_eq!(*meta, expected);
    }

    #[test]
    fn arguments_that_can_not_be_echoed_are_refused() {
        for arguments in ["[]", "no", r#"{"text":7}"#, r#"{"text":"PLACE"}"#] {
            let arguments = arguments.replace("PLACE", NUMBER_PLACEHOLDER);
            assert!(options(&["--arguments", &arguments]).call("0-0").is_err(), "{arguments}");
        }
        assert!(options(&["--depth", "0"]).load().is_err());
    }

    #[test]
    fn only_the_join_that_is_a_handshake_says_who_the_client_is() {
        assert_eq!(join_payload(Era::Legacy, r#"{"token":"t"}"#).expect("an object"), r#"{"token":"t"}"#);
        let elixir: Value =
            serde_json::from_str(&join_payload(Era::Elixir, r#"{"token":"t"}"#).expect("an object")).expect("JSON");
        assert_eq!((&elixir["token"], &elixir["clientInfo"]["name"]), (&json!("t"), &json!("bennu bench")));
        let own = r#"{"clientInfo":{"name":"me"}}"#;
        assert_eq!(join_payload(Era::Elixir, own).expect("an object"), own);
        assert!(join_payload(Era::Elixir, "[]").is_err());
    }

    #[test]
    fn a_handshake_needs_the_version_that_was_asked_for() {
        let result = |id: u64, version: &str| {
            json!({ "jsonrpc": "2.0", "id": id, "result": { "protocolVersion": version } }).to_string()
        };
        assert!(is_initialize_result(&result(1, LEGACY_VERSION)).expect("right"));
        assert!(!is_initialize_result(r#"{"jsonrpc":"2.0","method":"notifications/message"}"#).expect("another"));
        for wrong in [
            result(2, LEGACY_VERSION),
            result(1, "2024-11-05"),
            r#"{"jsonrpc":"2.0","id":1,"error":{"code":-32602,"message":"no"}}"#.to_owned(),
            "nothing".to_owned(),
        ] {
            let error = is_initialize_result(&wrong).expect_err(&wrong).to_string();
            assert!(error.contains(&wrong), "{error}");
        }
    }

    #[test]
    fn right_answers_are_known_whatever_stands_beside_the_text() {
        let mut answers = Answers::new("abc".to_owned());
        for (message, number) in [
            (answer("1000000000", "abc"), 0),
            (answer("1000000007", "abc"), 7),
            (answer("1000000008", r"\u0061bc"), 8),
            (r#"{"result":{"isError":false,"content":[{"text":"abc"},{}],"at":1000000009},"id":1000000009,"jsonrpc":"2.0"}"#.to_owned(), 9),
            (answer("1000000010", "abc"), 10),
        ] {
            assert_eq!(answers.read(&message), Came::Answer(number, Ok(())), "{message}");
        }
    }

    #[test]
    fn planted_wrong_answers_are_found_also_after_right_ones() {
        let failed = r#"{"jsonrpc":"2.0","id":1000000001,"result":{"content":[{"text":"abc"}],"isError":true}}"#;
        let error = r#"{"jsonrpc":"2.0","id":1000000001,"error":{"code":-32603,"message":"abc"}}"#;
        for wrong in [
            &answer("1000000001", "abd"),
            &answer("1000000001", "abcc"),
            &answer("1000000001", ""),
            &answer("1000000001", "abc").replace("2.0", "1.0"),
            &answer("1000000001", "abc").replace("text\":", "data\":"),
            failed,
            error,
            r#"{"jsonrpc":"2.0","id":1000000001,"result":{}}"#,
            r#"{"jsonrpc":"2.0","id":1000000001,"result":{"content":[]}}"#,
            r#"{"jsonrpc":"2.0","id":1000000001}"#,
        ] {
            let mut answers = Answers::new("abc".to_owned());
            assert_eq!(answers.read(&answer("1000000000", "abc")), Came::Answer(0, Ok(())));
            let Came::Answer(1, Err(why)) = answers.read(wrong) else { panic!("{wrong}") };
            assert!(why.ends_with(wrong), "{why}");
        }
    }

    #[test]
    fn answers_to_no_call_are_strays_and_what_has_a_method_is_neither() {
        let mut answers = Answers::new("abc".to_owned());
        answers.read(&answer("1000000000", "abc"));
        for stray in [&answer("17", "abc"), &answer("\"1000000000\"", "abc"), &answer("null", "abc"), "{}", "[]", ""] {
            assert!(matches!(answers.read(stray), Came::Stray(_)), "{stray}");
        }
        for other in [
            r#"{"jsonrpc":"2.0","method":"notifications/progress","params":{}}"#,
            r#"{"jsonrpc":"2.0","id":1000000000,"method":"ping"}"#,
        ] {
            assert_eq!(answers.read(other), Came::Other);
        }
    }
}
