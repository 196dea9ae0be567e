//! Calls of stateless clients that an upstream of the legacy era interrupts with a question: the client is answered with the
//! question, and brings the answer with its next request, while the upstream waits.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;
use serde_json::json;
use serde_json::value::RawValue;

use crate::clock;
use crate::mcp::CallError;
use crate::mcp::call::Call;
use crate::mcp::hex::Hex;
use crate::mcp::request_state::{Sealed, request_digest};
use crate::mcp::session::Session;
use crate::mcp::upstream::{Lease, Lost, Ticket, Upstream};
use crate::protocol::jsonrpc::{self, Fault, Object};
use crate::protocol::mcp::client::META_SERVER_INFO;
use crate::protocol::mcp::{peer, relay};

/// How a state begins that is of such a call; others are the upstream's.
const PREFIX: &str = "bennu-parked.";
/// The key of the question.
const KEY: &str = "question";
/// Calls of one upstream that wait for their clients.
const PARKED_MAX: usize = 100;
/// How long a call waits for its client.
const PARKED: Duration = Duration::from_secs(600);

/// The calls of one upstream that wait.
#[derive(Default)]
pub(in crate::mcp) struct Parked(Mutex<BTreeMap<u128, Waiting>>);

struct Waiting {
    ticket: Ticket,
    lease: Lease,
    question: Box<RawValue>,
    /// The upstream's id of the question.
    id: Box<RawValue>,
}

/// A call that its client goes on with.
pub(super) struct Resumed {
    number: u128,
    /// The answer to the question, an object.
    answer: Option<Box<RawValue>>,
}

impl Session {
    /// The call that a request goes on with, if it is one that waits here.
    pub(super) fn resumed(&self, call: &peer::Call<'_>) -> Result<Option<Resumed>, Fault> {
        let state = call.params.string("requestState");
        let Some(sealed) = state.as_deref().and_then(|state| state.strip_prefix(PREFIX)) else { return Ok(None) };
        let opened = self.mcp.sealer.open(sealed, &self.server.name, clock::unix_micros() / 1_000);
        let digest = request_digest(&call.method, &call.params);
        let opened = opened.and_then(|sealed| sealed.check(&self.user.user, &digest).map(|()| sealed));
        let sealed = opened.map_err(|bad| Fault::InvalidParams(bad.to_string()))?;
        let number = sealed.state.and_then(|state| Hex::number(state.get().trim_matches('"')));
        let number = number.ok_or_else(|| Fault::InvalidParams("requestState: not of a call that waits".to_owned()))?;
        let answer = call.params.object("inputResponses").and_then(|responses| responses.raw(KEY));
        Ok(Some(Resumed { number, answer: answer.map(ToOwned::to_owned) }))
    }
}

/// Keeps a call that waits for its client, and gives the response that asks it.
pub(super) fn park(
    call: &Arc<Call>,
    upstream: &Arc<Upstream>,
    request: (&str, Option<&RawValue>),
    held: (Ticket, Lease),
    question: &[u8],
) -> Result<String, Lost> {
    let fields = Object::parse(question).unwrap_or_default();
    let method = fields.string("method").unwrap_or_default();
    let id = fields.raw("id").unwrap_or(RawValue::NULL).to_owned();
    let (ticket, lease) = held;
    if !call.client.capabilities.can_answer(&method) {
        return Err(Lost::new(format!("the client does not have what the call needs: {method}")));
    }
    let question = relay::embedded(&fields);
    let waiting = Waiting { ticket, lease, question, id };
    keep(call, upstream, request, waiting)
}

fn keep(
    call: &Arc<Call>,
    upstream: &Arc<Upstream>,
    (method, params): (&str, Option<&RawValue>),
    waiting: Waiting,
) -> Result<String, Lost> {
    let number = Hex::draw();
    let params = params.and_then(|params| Object::parse(params.get().as_bytes())).unwrap_or_default();
    let session = &call.session;
    let patience_ms = u64::try_from(PARKED.as_millis()).unwrap_or(u64::MAX);
    let sealed = Sealed {
        user: session.user.user.to_string(),
        expires_unix_ms: clock::unix_micros() / 1_000 + patience_ms,
        digest: request_digest(method, &params),
        answers: BTreeMap::new(),
        state: Some(jsonrpc::raw(Hex::of(number).as_str())),
    };
    let sealed =
        session.mcp.sealer.seal(&sealed, &session.server.name).map_err(|large| Lost::new(large.to_string()))?;
    let mut result = json!({
        "resultType": "input_required", "inputRequests": {KEY: waiting.question},
        "requestState": format!("{PREFIX}{sealed}"),
    });
    if let Some(info) = waiting.ticket.instance().hello().and_then(|hello| hello.server_info()) {
        result["_meta"] = json!({META_SERVER_INFO: info});
    }
    {
        let mut parked = upstream.parked.0.lock();
        if parked.len() >= PARKED_MAX {
            return Err(Lost::new(format!(
                "expected at most {PARKED_MAX} calls that wait for their clients, came one more"
            )));
        }
        parked.insert(number, waiting);
    }
    let upstream = Arc::downgrade(upstream);
    // Ends by itself; what is dropped then is taken back at the upstream.
    tokio::spawn(async move {
        tokio::time::sleep(PARKED).await;
        if let Some(upstream) = upstream.upgrade() {
            let gone = upstream.parked.0.lock().remove(&number);
            drop(gone);
        }
    });
    let text = jsonrpc::result_response(&call.id, &jsonrpc::raw(&result));
    Ok(String::from_utf8_lossy(&text).into_owned())
}

/// Goes on with a call: the upstream gets its answer.
pub(super) fn take_up(
    call: &Arc<Call>,
    upstream: &Arc<Upstream>,
    resumed: Resumed,
) -> Result<(Ticket, Lease), CallError> {
    let ended = || CallError::InvalidArguments("requestState: the call that it belongs to has ended".to_owned());
    let missing = || CallError::InvalidArguments(format!("inputResponses.{KEY}: expected an object"));
    let answer = resumed.answer.filter(|answer| answer.get().starts_with('{')).ok_or_else(missing)?;
    let waiting = upstream.parked.0.lock().remove(&resumed.number).ok_or_else(ended)?;
    waiting.ticket.hand_over(call);
    let text = jsonrpc::result_response(&waiting.id, &answer);
    waiting.ticket.instance().tell(text);
    Ok((waiting.ticket, waiting.lease))
}
