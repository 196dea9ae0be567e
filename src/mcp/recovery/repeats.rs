//! Calls of tools that a client asks again, because it does not know whether they were heard.

use serde_json::value::RawValue;

use crate::mcp::outgoing::Outgoing;
use crate::mcp::request_state::digest_without;
use crate::mcp::session::Session;
use crate::protocol::jsonrpc::{Fault, Incoming, Object};
use crate::protocol::mcp::recovery::{Asked, AskedCall, IDEMPOTENCY_KEY, IDEMPOTENCY_KEY_BYTES_MAX, RepeatRefused};
use crate::protocol::mcp::{ID_BYTES_MAX, TOOLS_CALL};

/// Field of the params that says who carries a call and how, not what is asked.
const META: &str = "_meta";

impl Session {
    /// Looks at a message in a session that remembers its calls. A call that was asked before is settled here; one that is new is given
    /// back, to be noted when it begins. `Err` where there is nothing more to do.
    pub(in crate::mcp) fn ask_once(&self, text: &[u8], route: &Outgoing) -> Result<Option<AskedCall>, ()> {
        if !route.remembers_calls() {
            return Ok(None);
        }
        let Incoming::Request(request) = Incoming::classify(text) else { return Ok(None) };
        if request.method != TOOLS_CALL || request.id.get().len() > ID_BYTES_MAX {
            return Ok(None);
        }
        let params = request.params.and_then(|params| Object::parse(params.get().as_bytes())).unwrap_or_default();
        if !self.permits(TOOLS_CALL, &params) {
            // It is refused as a new one is.
            return Ok(None);
        }
        let refuse = |fault: Fault| self.refuse(Some(request.id), &fault, route);
        let Ok(key) = idempotency_key(&params) else {
            let text = format!("{IDEMPOTENCY_KEY}: expected a string of 1 to {IDEMPOTENCY_KEY_BYTES_MAX} bytes");
            refuse(Fault::InvalidParams(text));
            return Err(());
        };
        let call = AskedCall {
            id: request.id.to_owned(),
            digest: digest_without(&request.method, &params, &[META]),
            key: key.map(Into::into),
        };
        // An id that another request has under way is refused where all such are.
        let is_anothers = self.peer.lock().is_in_use(&call.id);
        match route.ask(&call, is_anothers) {
            Ok(Asked::New) => Ok(Some(call)),
            Ok(Asked::Settled | Asked::Again(..)) => Err(()),
            Ok(Asked::Renamed(number)) => {
                // What takes the call back names the later id from here on.
                self.peer.lock().rename(number, &call.id);
                Err(())
            }
            Err(refused) => {
                refuse(fault(&refused));
                Err(())
            }
        }
    }

    /// Refuses a call whose id or key was that of another which began at the same moment.
    pub(in crate::mcp) fn refuse_twin(&self, id: &RawValue, route: &Outgoing) {
        self.refuse(Some(id), &fault(&RepeatRefused::UnderWay(id.get().to_owned())), route);
    }
}

fn fault(refused: &RepeatRefused) -> Fault {
    Fault::InvalidRequest(refused.to_string())
}

/// The key that a call's `_meta` gives it, if any; `Err` for what is no such key.
fn idempotency_key(params: &Object<'_>) -> Result<Option<String>, ()> {
    let meta = params.object(META).unwrap_or_default();
    match meta.raw(IDEMPOTENCY_KEY) {
        None => Ok(None),
        Some(_) => match meta.string(IDEMPOTENCY_KEY) {
            Some(key) if !key.is_empty() && key.len() <= IDEMPOTENCY_KEY_BYTES_MAX => Ok(Some(key)),
            _ => Err(()),
        },
    }
}
