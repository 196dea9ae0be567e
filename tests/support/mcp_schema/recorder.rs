//! A connection as its client saw it: every message is checked as it comes, and what one message can't show, too.

use std::collections::{BTreeMap, VecDeque};

use serde_json::Value;

use super::{Kind, MODERN, OF_SUBSCRIPTIONS, SUBSCRIPTION_ID, Validator, kind};

/// How many messages a report shows.
const SHOWN_MAX: usize = 30;

/// The last revision with a handshake.
const LATEST_LEGACY: &str = "2025-11-25";

const VERSION: &str = "io.modelcontextprotocol/protocolVersion";
const CAPABILITIES: &str = "io.modelcontextprotocol/clientCapabilities";

/// How far the server means to follow the specification.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Flavour {
    Standard,
    /// `mcp:session`, where joining is the handshake, departs from it in documented ways: only envelopes are checked.
    Elixir,
}

/// Follows one connection: a topic, or an HTTP session.
///
/// Fed with every message in the order in which it was sent and received. Beyond each message's schema it holds the server
/// to this: each response answers one request, once; progress has the token of a request under way and grows; a request of
/// the server's needs a capability that the client stated; a call's `structuredContent` fits its tool's `outputSchema`; what
/// comes on a stream of subscriptions has the id of one that is open.
///
/// Feed the messages of several HTTP streams in the order of their coming, and do not expect an order between them that HTTP
/// does not give.
pub struct Recorder {
    flavour: Flavour,
    /// What `initialize` agreed on.
    agreed: Option<String>,
    /// What the client stated in `initialize`.
    capabilities: Value,
    /// By the JSON of the id.
    requests: BTreeMap<String, Request>,
    /// Requests of the server's that wait, by the JSON of the id.
    asked: Vec<String>,
    /// By the tool's name.
    output_schemas: BTreeMap<String, Value>,
    shown: VecDeque<String>,
}

struct Request {
    method: String,
    params: Value,
    /// How far it has come; compared as floats are.
    progress: Option<f64>,
    state: State,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum State {
    UnderWay,
    /// The server may not have known of it yet when it sent what came since.
    Cancelled,
    Answered,
}

impl Recorder {
    /// Of a connection on which nothing was said yet.
    pub fn new(flavour: Flavour) -> Self {
        Recorder {
            flavour,
            agreed: None,
            capabilities: Value::Null,
            requests: BTreeMap::new(),
            asked: Vec::new(),
            output_schemas: BTreeMap::new(),
            shown: VecDeque::new(),
        }
    }

    /// Takes what the client sends. It is not checked: a test may send nonsense.
    pub fn sent(&mut self, message: &Value) {
        self.show("sent", message);
        if let Some(batch) = message.as_array() {
            return batch.iter().for_each(|message| self.note(message));
        }
        self.note(message);
    }

    /// Takes and checks what the server sent.
    ///
    /// # Panics
    /// With the complaint, the message and what came before it, if there is something wrong.
    #[track_caller]
    pub fn received(&mut self, message: &Value) {
        self.show("received", message);
        let batch = message.as_array();
        let checked = match batch {
            Some(_) if self.agreed.as_deref() != Some("2025-03-26") => {
                Err("batches are of 2025-03-26 alone".to_owned())
            }
            Some(batch) if batch.is_empty() => Err("a batch has at least one message".to_owned()),
            Some(batch) => batch.iter().try_for_each(|message| self.check(message)),
            None => self.check(message),
        };
        if let Err(complaint) = checked {
            let shown: Vec<_> = self.shown.iter().map(String::as_str).collect();
            panic!("{complaint}\nin {message}\nafter\n{}", shown.join("\n"));
        }
    }

    /// The ids of the requests that were not answered, as JSON, but for those that were cancelled.
    pub fn unanswered(&self) -> Vec<&str> {
        let waiting = self.requests.iter().filter(|(_, request)| request.state == State::UnderWay);
        waiting.map(|(id, _)| id.as_str()).collect()
    }

    fn show(&mut self, way: &str, message: &Value) {
        if self.shown.len() == SHOWN_MAX {
            self.shown.pop_front();
        }
        self.shown.push_back(format!("  {way:8} {message}"));
    }

    fn note(&mut self, message: &Value) {
        match (kind(message), message["method"].as_str()) {
            (Ok(Kind::Request), Some(method)) => {
                if method == "initialize" {
                    self.capabilities = message["params"]["capabilities"].clone();
                }
                self.note_request(message, method);
            }
            // Nonsense with an id may be told that it is.
            (Err(_) | Ok(Kind::Request), method) if message.get("id").is_some() => {
                self.note_request(message, method.unwrap_or_default())
            }
            (Ok(Kind::Notification), Some("notifications/cancelled")) => {
                if let Some(request) = self.requests.get_mut(&message["params"]["requestId"].to_string()) {
                    request.state = State::Cancelled;
                }
            }
            (Ok(Kind::Response | Kind::Error), _) => {
                let id = message["id"].to_string();
                self.asked.retain(|asked| *asked != id);
            }
            _ => {}
        }
    }

    fn note_request(&mut self, message: &Value, method: &str) {
        let request = Request {
            method: method.to_owned(),
            params: message["params"].clone(),
            progress: None,
            state: State::UnderWay,
        };
        self.requests.insert(message["id"].to_string(), request);
    }

    fn check(&mut self, message: &Value) -> Result<(), String> {
        let kind = kind(message)?;
        if self.flavour == Flavour::Elixir {
            return Ok(());
        }
        match kind {
            Kind::Response | Kind::Error => self.check_answer(kind, message),
            Kind::Notification => self.check_notification(message),
            Kind::Request => self.check_request(message),
        }
    }

    fn check_answer(&mut self, kind: Kind, message: &Value) -> Result<(), String> {
        let validator = Validator::shared();
        let Some(id) = message.get("id").filter(|id| !id.is_null()) else {
            return validator.check_from_server(self.revision(), message, None);
        };
        let Some(request) = self.requests.get(&id.to_string()) else {
            return Err(format!("answers {id}, which was not asked"));
        };
        if request.state == State::Answered {
            return Err(format!("answers {id} a second time"));
        }
        let (method, params) = (request.method.clone(), request.params.clone());
        let revision = match (method.as_str(), stated_version(&params)) {
            ("initialize", _) => message["result"]["protocolVersion"].as_str().unwrap_or(LATEST_LEGACY),
            // Whoever states a version that the server hasn't gets an error of the one that knows such errors.
            (_, Some(version)) => {
                if kind == Kind::Error {
                    MODERN
                } else {
                    version
                }
            }
            (method, None) => self.revision_of_answer(method),
        };
        // Who asks with an id that MCP has no room for gets it back nevertheless: JSON-RPC has.
        let mut checked = message.clone();
        if !id.is_string() && !id.is_number() {
            checked["id"] = Value::from("an id");
        }
        validator.check_from_server(revision, &checked, Some(&method))?;

        let revision = revision.to_owned();
        let result = &message["result"];
        if kind == Kind::Response {
            match method.as_str() {
                "initialize" => self.agreed = Some(revision),
                "tools/list" => self.take_tools(result),
                "tools/call" => self.check_structured(&params, result)?,
                _ => {}
            }
            if let Some(asked) = result["inputRequests"].as_object() {
                let stated = &params["_meta"][CAPABILITIES];
                asked.values().try_for_each(|request| check_capability(stated, &request["method"]))?;
            }
        }
        let request = self.requests.get_mut(&id.to_string()).expect("it was there above");
        request.state = State::Answered;
        Ok(())
    }

    fn check_request(&mut self, message: &Value) -> Result<(), String> {
        Validator::shared().check_from_server(self.revision(), message, None)?;
        check_capability(&self.capabilities, &message["method"])?;
        let id = message["id"].to_string();
        if self.asked.contains(&id) {
            return Err(format!("asks {id} while it waits for an answer to another request of that id"));
        }
        self.asked.push(id);
        Ok(())
    }

    fn check_notification(&mut self, message: &Value) -> Result<(), String> {
        Validator::shared().check_from_server(self.revision(), message, None)?;
        let method = message["method"].as_str().unwrap_or_default();
        let params = &message["params"];
        if method == "notifications/progress" {
            return self.check_progress(params);
        }
        if self.revision() == MODERN && OF_SUBSCRIPTIONS.contains(&method) {
            let id = &params["_meta"][SUBSCRIPTION_ID];
            let open = self.requests.get(&id.to_string());
            let is_open =
                |request: &Request| request.method == "subscriptions/listen" && request.state != State::Answered;
            if !open.is_some_and(is_open) {
                return Err(format!("is of the subscription {id}, which is not open"));
            }
        }
        Ok(())
    }

    fn check_progress(&mut self, params: &Value) -> Result<(), String> {
        let token = &params["progressToken"];
        let of_token = |request: &&mut Request| request.params["_meta"]["progressToken"] == *token;
        // The last one: a token may be used again once its request was answered.
        let requests: Vec<_> = self.requests.values_mut().filter(of_token).collect();
        let Some(request) = requests.into_iter().max_by_key(|request| request.state != State::Answered) else {
            return Err(format!("progress has the token {token}, which no request had"));
        };
        if request.state == State::Answered {
            return Err(format!("progress of {token} comes after the answer to its request"));
        }
        let progress = params["progress"].as_f64().ok_or("progress is a number")?;
        if request.progress.is_some_and(|before| progress <= before) {
            return Err(format!("progress of {token} was {:?} and is {progress}: it has to grow", request.progress));
        }
        request.progress = Some(progress);
        Ok(())
    }

    fn take_tools(&mut self, result: &Value) {
        for tool in result["tools"].as_array().into_iter().flatten() {
            if let (Some(name), Some(schema)) = (tool["name"].as_str(), tool.get("outputSchema")) {
                self.output_schemas.insert(name.to_owned(), schema.clone());
            }
        }
    }

    fn check_structured(&self, params: &Value, result: &Value) -> Result<(), String> {
        let schema = params["name"].as_str().and_then(|name| self.output_schemas.get(name));
        let Some(schema) = schema.filter(|_| result["isError"] != true && result.get("content").is_some()) else {
            return Ok(());
        };
        let structured =
            result.get("structuredContent").ok_or("a tool with an `outputSchema` has `structuredContent`")?;
        jsonschema::validate(schema, structured)
            .map_err(|error| format!("`structuredContent` is not its `outputSchema`: {error}"))
    }

    /// What the connection speaks: what it agreed on, or else the revision without agreement.
    fn revision(&self) -> &str {
        self.agreed.as_deref().unwrap_or(MODERN)
    }

    /// The revision of the answer to a request that states none. A ping may come before anything was agreed on, and is of the
    /// revisions that have one.
    fn revision_of_answer(&self, method: &str) -> &str {
        let agreed = self.agreed.as_deref();
        agreed.unwrap_or(if method == "ping" { LATEST_LEGACY } else { MODERN })
    }
}

/// The version that a request states for itself.
fn stated_version(params: &Value) -> Option<&str> {
    params["_meta"][VERSION].as_str()
}

/// A server asks nothing of a client that can't answer.
fn check_capability(stated: &Value, method: &Value) -> Result<(), String> {
    let capability = match method.as_str().unwrap_or_default() {
        "sampling/createMessage" => "sampling",
        "elicitation/create" => "elicitation",
        "roots/list" => "roots",
        _ => return Ok(()),
    };
    match stated.get(capability) {
        Some(_) => Ok(()),
        None => Err(format!("{method} is asked of a client without the capability `{capability}`")),
    }
}
