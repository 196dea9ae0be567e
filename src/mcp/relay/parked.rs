//! Calls of stateless clients that an upstream of the legacy era interrupts with a question: the client is answered with the
//! question, and brings the answer with its next request, while the upstream waits.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;
use serde_json::value::RawValue;

use crate::clock;
use crate::mcp::CallError;
use crate::mcp::call::Call;
use crate::mcp::hex::Hex;
use crate::mcp::request_state::{Sealed, request_digest};
use crate::mcp::upstream::{Lease, Lost, Ticket, Upstream};
use crate::protocol::jsonrpc::{self, Object};
use crate::protocol::mcp::client::Era;
use crate::protocol::mcp::relay;

/// How a state begins that is of such a call; others are the upstream's.
const PREFIX: &str = "bennu-parked.";
/// The key of the question.
const KEY: &str = "question";
/// Calls of one upstream that wait for their clients.
const PARKED_MAX: usize = 100;
/// Those of one user.
const PARKED_PER_USER_MAX: usize = 16;
/// How long a call waits for its client.
const PARKED: Duration = Duration::from_secs(600);

/// The calls of one upstream that wait.
#[derive(Default)]
pub(in crate::mcp) struct Parked(Mutex<BTreeMap<u128, Waiting>>);

struct Waiting {
    held: Option<(Ticket, Lease)>,
    user: Arc<str>,
    /// The upstream's id of the question.
    id: Box<RawValue>,
}

impl Drop for Waiting {
    /// Nobody answers any more.
    fn drop(&mut self) {
        if let Some((ticket, _)) = &self.held {
            ticket.instance().refuse(&self.id, jsonrpc::INTERNAL_ERROR, "the client did not answer in time");
        }
    }
}

/// A call that its client goes on with.
pub(super) struct Resumed {
    number: u128,
    /// The answer to the question, an object.
    answer: Option<Box<RawValue>>,
}

impl Resumed {
    /// The call that a request goes on with, if it is one that waits here.
    ///
    /// # Errors
    /// A state that is ours, but not for this user or request, or too old.
    pub(super) fn of(call: &Call, method: &str, params: Option<&RawValue>) -> Result<Option<Self>, CallError> {
        if call.client.era != Era::Modern {
            return Ok(None);
        }
        let params = params.and_then(|params| Object::parse(params.get().as_bytes())).unwrap_or_default();
        let state = params.string("requestState");
        let Some(sealed) = state.as_deref().and_then(|state| state.strip_prefix(PREFIX)) else { return Ok(None) };
        let session = &call.session;
        let opened = session.mcp.sealer.open(sealed, &session.server.name, clock::unix_micros() / 1_000);
        let digest = request_digest(method, &params);
        let opened = opened.and_then(|sealed| sealed.check(&session.user.user, &digest).map(|()| sealed));
        let sealed = opened.map_err(|bad| CallError::InvalidArguments(bad.to_string()))?;
        let number = sealed.state.and_then(|state| Hex::number(state.get().trim_matches('"')));
        let number =
            number.ok_or_else(|| CallError::InvalidArguments("requestState: not of a call that waits".to_owned()))?;
        let answer = params.object("inputResponses").and_then(|responses| responses.raw(KEY));
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
    let question = String::from_utf8_lossy(question);
    let fields = Object::parse(question.as_bytes()).unwrap_or_default();
    let session = &call.session;
    let info = held.0.instance().hello().and_then(|hello| hello.server_info());
    let id = fields.raw("id").unwrap_or(RawValue::NULL).to_owned();
    let waiting = Waiting { held: Some(held), user: Arc::clone(&session.user.user), id };
    let number = Hex::draw();
    let sealed = seal(call, request, number)?;
    {
        let mut parked = upstream.parked.0.lock();
        let of_user = parked.values().filter(|other| other.user == waiting.user).count();
        if parked.len() >= PARKED_MAX || of_user >= PARKED_PER_USER_MAX {
            // Not under the lock, which what is dropped then may take.
            drop(parked);
            return Err(Lost::new(format!(
                "expected at most {PARKED_MAX} calls that wait for their clients, and {PARKED_PER_USER_MAX} of one user, came one more"
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
    let state = format!("{PREFIX}{sealed}");
    Ok(relay::input_required(&call.id, KEY, &relay::embedded(&question), &state, info.as_deref()))
}

/// What names a call that waits, for its client to bring along.
fn seal(call: &Call, (method, params): (&str, Option<&RawValue>), number: u128) -> Result<String, Lost> {
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
    session.mcp.sealer.seal(&sealed, &session.server.name).map_err(|large| Lost::new(large.to_string()))
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
    let waiting = upstream.parked.0.lock().remove(&resumed.number);
    let mut waiting = waiting.ok_or_else(ended)?;
    let (ticket, lease) = waiting.held.take().ok_or_else(ended)?;
    ticket.hand_over(call);
    ticket.instance().tell(jsonrpc::result_response(&waiting.id, &answer));
    Ok((ticket, lease))
}
