//! Questions to the client in the course of a call, and its answers: sampling, elicitation, roots.
//!
//! In the legacy era a question is a request to the client, and the call waits. In the stateless era the call ends with
//! `input_required`, the client calls again with the answers, and the handler runs from its beginning: a question that has
//! been answered is answered at once. What was answered earlier travels in `requestState`, sealed.

use std::collections::BTreeMap;

use parking_lot::Mutex;
use serde::Serialize;
use serde_json::value::RawValue;
use serde_json::{Value, json};

use crate::protocol::jsonrpc::{self, Fault, Object};
use crate::protocol::mcp::client::ClientCapabilities;
use crate::protocol::mcp::elicitation::{Form, UrlRequest};
use crate::protocol::mcp::sampling::SamplingRequest;
use crate::protocol::mcp::version::Version;
use crate::protocol::mcp::{CREATE_MESSAGE, ELICIT, ROOTS_LIST};

/// Answers that one call may have.
const ANSWERS_MAX: usize = 64;
/// Bytes of all answers of one call.
const ANSWERS_BYTES_MAX: usize = 131_072;

/// A question to the client.
#[derive(Clone, Debug)]
pub struct InputRequest {
    pub(super) method: &'static str,
    pub(super) params: Box<RawValue>,
    pub(super) needs: Needs,
}

/// Which capability a question needs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Needs {
    Sampling { tools: bool },
    Form,
    Url,
    Roots,
}

impl Needs {
    fn is_met(self, capabilities: &ClientCapabilities) -> bool {
        match self {
            Needs::Sampling { tools } => capabilities.sampling && (!tools || capabilities.sampling_tools),
            Needs::Form => capabilities.elicitation_form,
            Needs::Url => capabilities.elicitation_url,
            Needs::Roots => capabilities.roots,
        }
    }

    /// The `ClientCapabilities` that would meet it.
    fn capabilities(self) -> Value {
        match self {
            Needs::Sampling { tools: false } => json!({"sampling": {}}),
            Needs::Sampling { tools: true } => json!({"sampling": {"tools": {}}}),
            Needs::Form => json!({"elicitation": {"form": {}}}),
            Needs::Url => json!({"elicitation": {"url": {}}}),
            Needs::Roots => json!({"roots": {}}),
        }
    }
}

impl InputRequest {
    /// A question that another program of MCP asks, by its method and params; none, if no client is asked such.
    pub(super) fn of(method: &str, params: &RawValue) -> Option<Self> {
        let fields = Object::parse(params.get().as_bytes()).unwrap_or_default();
        let (method, needs) = match method {
            CREATE_MESSAGE => (CREATE_MESSAGE, Needs::Sampling { tools: fields.has("tools") }),
            ELICIT if fields.string("mode").as_deref() == Some("url") => (ELICIT, Needs::Url),
            ELICIT => (ELICIT, Needs::Form),
            ROOTS_LIST => (ROOTS_LIST, Needs::Roots),
            _ => return None,
        };
        Some(InputRequest { method, params: params.to_owned(), needs })
    }

    /// Asks the client's model.
    pub fn sampling(request: &SamplingRequest) -> Self {
        let params = request.to_params();
        let tools = Object::parse(params.get().as_bytes()).is_some_and(|params| params.has("tools"));
        InputRequest { method: CREATE_MESSAGE, params, needs: Needs::Sampling { tools } }
    }

    /// Asks the client's user to fill in a form, in the words of the client's revision.
    pub fn form(form: &Form, version: Version) -> Self {
        let params = form.to_params(version.names_elicitation_mode());
        InputRequest { method: ELICIT, params, needs: Needs::Form }
    }

    /// Asks the client's user to visit a page.
    pub fn url(page: &UrlRequest) -> Self {
        InputRequest { method: ELICIT, params: page.to_params(), needs: Needs::Url }
    }

    /// Asks which folders the client works in.
    pub fn roots() -> Self {
        InputRequest { method: ROOTS_LIST, params: jsonrpc::raw(&json!({})), needs: Needs::Roots }
    }

    /// The `ClientCapabilities` that a client lacks for this question; none if it has them.
    pub(super) fn missing(&self, capabilities: &ClientCapabilities) -> Option<Value> {
        (!self.needs.is_met(capabilities)).then(|| self.needs.capabilities())
    }
}

/// The answers that came with a call, and the questions that it still has.
#[derive(Debug, Default)]
pub(super) struct Answers(Mutex<Inner>);

#[derive(Debug, Default)]
struct Inner {
    given: BTreeMap<String, Box<RawValue>>,
    wanted: BTreeMap<String, InputRequest>,
    state: Option<Box<RawValue>>,
}

/// What a call that wants answers sends back.
pub(super) struct Wanted {
    pub(super) requests: Box<RawValue>,
    /// For [`Answers::new`] at the next call.
    pub(super) given: BTreeMap<String, Box<RawValue>>,
    pub(super) state: Option<Box<RawValue>>,
}

impl Answers {
    /// The answers of `inputResponses` over those that earlier rounds gave.
    ///
    /// # Errors
    /// [`Fault::InvalidParams`] where `responses` is no object, or too large.
    pub(super) fn new(
        earlier: BTreeMap<String, Box<RawValue>>,
        state: Option<Box<RawValue>>,
        responses: Option<&RawValue>,
    ) -> Result<Self, Fault> {
        let mut given = earlier;
        if let Some(responses) = responses {
            let invalid = || Fault::InvalidParams("inputResponses must be an object".to_owned());
            let responses = Object::parse(responses.get().as_bytes()).ok_or_else(invalid)?;
            for (key, answer) in responses.fields() {
                // Each answer is an object; what is none counts as not given, and is asked for again.
                if answer.get().starts_with('{') {
                    given.insert(key.to_owned(), answer.to_owned());
                }
            }
        }
        let bytes: usize = given.iter().map(|(key, answer)| key.len() + answer.get().len()).sum();
        if given.len() > ANSWERS_MAX || bytes > ANSWERS_BYTES_MAX {
            return Err(Fault::InvalidParams(format!(
                "inputResponses: expected at most {ANSWERS_MAX} answers of {ANSWERS_BYTES_MAX} bytes, came {} of {bytes}",
                given.len()
            )));
        }
        Ok(Answers(Mutex::new(Inner { given, wanted: BTreeMap::new(), state })))
    }

    /// The answer to a question, if it was given; otherwise it is noted as wanted.
    pub(super) fn answer(&self, key: &str, request: &InputRequest) -> Option<Box<RawValue>> {
        let mut inner = self.0.lock();
        if let Some(answer) = inner.given.get(key) {
            return Some(answer.clone());
        }
        inner.wanted.insert(key.to_owned(), request.clone());
        None
    }

    /// Takes an answer back that did not fit its question: it is asked again.
    pub(super) fn refuse(&self, key: &str, request: &InputRequest) {
        let mut inner = self.0.lock();
        inner.given.remove(key);
        inner.wanted.insert(key.to_owned(), request.clone());
    }

    /// What the handler keeps for its next run.
    pub(super) fn state(&self) -> Option<Box<RawValue>> {
        self.0.lock().state.clone()
    }

    pub(super) fn set_state(&self, state: Box<RawValue>) {
        self.0.lock().state = Some(state);
    }

    /// What to send back.
    pub(super) fn wanted(&self) -> Wanted {
        #[derive(Serialize)]
        struct Request<'a> {
            method: &'a str,
            params: &'a RawValue,
        }

        let inner = self.0.lock();
        let requests: BTreeMap<_, _> = inner
            .wanted
            .iter()
            .map(|(key, request)| (key, Request { method: request.method, params: &request.params }))
            .collect();
        Wanted { requests: jsonrpc::raw(&requests), given: inner.given.clone(), state: inner.state.clone() }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_question_is_answered_by_its_key_and_otherwise_wanted() {
        let responses = jsonrpc::raw(&json!({"name": {"action": "accept"}, "bad": 5, "extra": {}}));
        let answers = Answers::new(BTreeMap::new(), None, Some(&responses)).expect("an object");
        let question = InputRequest::roots();

        assert_eq!(answers.answer("name", &question).expect("given").get(), r#"{"action":"accept"}"#);
        assert!(answers.answer("bad", &question).is_none(), "no object");
        assert!(answers.answer("other", &question).is_none());
        assert_eq!(
            answers.wanted().requests.get(),
            r#"{"bad":{"method":"roots/list","params":{}},"other":{"method":"roots/list","params":{}}}"#
        );
    }

    #[test]
    fn answers_are_bounded_and_an_object() {
        let many: BTreeMap<_, _> = (0..=ANSWERS_MAX).map(|n| (n.to_string(), json!({}))).collect();
        let big = json!({"a": {"x": "x".repeat(ANSWERS_BYTES_MAX)}});
        for responses in [json!(many), big, json!([]), json!(null), json!(1)] {
            assert!(Answers::new(BTreeMap::new(), None, Some(&jsonrpc::raw(&responses))).is_err());
        }
    }

    #[test]
    fn a_question_knows_what_it_needs_of_the_client() {
        let nothing = ClientCapabilities::default();
        let missing = |request: &InputRequest| request.missing(&nothing).expect("missing");

        let sampling = SamplingRequest::new([], 10);
        assert_eq!(missing(&InputRequest::sampling(&sampling)), json!({"sampling": {}}));
        let with_tools = sampling.tool(json!({"name": "t"}));
        assert_eq!(missing(&InputRequest::sampling(&with_tools)), json!({"sampling": {"tools": {}}}));
        let form = InputRequest::form(&Form::new("?"), Version::V2025_06_18);
        assert_eq!(missing(&form), json!({"elicitation": {"form": {}}}));
        let page = InputRequest::url(&UrlRequest::new("?", "https://example.com"));
        assert_eq!(missing(&page), json!({"elicitation": {"url": {}}}));
        let all = ClientCapabilities { roots: true, ..nothing };
        assert_eq!(InputRequest::roots().missing(&all), None);
    }
}
