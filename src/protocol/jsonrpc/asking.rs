//! Requests of our own that wait for the other side: which response answers which, and when waiting ends.

use std::collections::BTreeMap;

use bytes::Bytes;
use serde::Serialize;
use serde_json::value::RawValue;

use super::CallNumber;
use crate::protocol::Time;
use crate::protocol::jsonrpc;

/// Notification with which the one who asked takes a request back.
const CANCELLED: &str = "notifications/cancelled";

/// A request of ours: its JSON-RPC id, counted from 1.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct AskId(pub u64);

/// How long a request of ours waits, in milliseconds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Patience {
    /// Without a sign of progress.
    pub idle_ms: u64,
    /// Whatever the progress.
    pub total_ms: u64,
}

/// As many requests of ours wait as may.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("expected at most {limit} requests waiting for the client, came one more")]
pub struct TooManyAsked {
    /// Requests that may wait at once.
    pub limit: usize,
}

/// The requests that wait, each for the call in whose course it was made.
///
/// ```text
/// ask ─► waiting ─┬─ answer ──────────────────► answered
///                 ├─ progress: the idle time begins anew
///                 ├─ expire, once it is due ──► gone, the other side is told
///                 └─ give_up(call) ───────────► gone, the other side is told
/// ```
#[derive(Clone, Debug, Default)]
pub struct Asking {
    last: u64,
    waiting: BTreeMap<AskId, Waiting>,
}

#[derive(Clone, Copy, Debug)]
struct Waiting {
    call: CallNumber,
    patience: Patience,
    idle_end: Time,
    end: Time,
}

impl Waiting {
    fn due(&self) -> Time {
        self.idle_end.min(self.end)
    }
}

impl Asking {
    /// None waits; the next one's id is above `last`.
    pub fn after(last: u64) -> Self {
        Asking { last, waiting: BTreeMap::new() }
    }

    /// Notes a request and gives its id; [`request`] makes its text.
    ///
    /// # Errors
    /// [`TooManyAsked`] where `limit` wait already.
    pub fn ask(
        &mut self,
        call: CallNumber,
        patience: Patience,
        limit: usize,
        now: Time,
    ) -> Result<AskId, TooManyAsked> {
        if self.waiting.len() >= limit {
            return Err(TooManyAsked { limit });
        }
        self.last += 1;
        let id = AskId(self.last);
        let waiting = Waiting { call, patience, idle_end: now + patience.idle_ms, end: now + patience.total_ms };
        self.waiting.insert(id, waiting);
        Ok(id)
    }

    /// The request that a response with this id answers; it waits no more. `None` for an id that is not ours, or that was
    /// answered or given up.
    pub fn answer(&mut self, id: &RawValue) -> Option<AskId> {
        let id = ask_id(id)?;
        self.waiting.remove(&id).map(|_| id)
    }

    /// Notes progress on the request whose id is the token, and gives that; `None` if there is none.
    pub fn progress(&mut self, token: &RawValue, now: Time) -> Option<AskId> {
        let id = ask_id(token)?;
        let waiting = self.waiting.get_mut(&id)?;
        waiting.idle_end = now + waiting.patience.idle_ms;
        Some(id)
    }

    /// When waiting for this request ends, as things stand; `None` once it waits no more.
    pub fn due(&self, id: AskId) -> Option<Time> {
        self.waiting.get(&id).map(Waiting::due)
    }

    /// Ends the waiting for a request that is due: gives the notification that tells the other side. `None` where it is not
    /// due, or waits no more.
    pub fn expire(&mut self, id: AskId, now: Time) -> Option<Bytes> {
        if self.due(id)? > now {
            return None;
        }
        self.waiting.remove(&id);
        Some(cancelled(id, "timed out"))
    }

    /// Takes a request back that nobody waits for any more: gives the notification that tells the other side. `None` where it
    /// does not wait.
    pub fn withdraw(&mut self, id: AskId) -> Option<Bytes> {
        self.waiting.remove(&id).map(|_| cancelled(id, "not needed any more"))
    }

    /// Ends the waiting of all requests of a call: gives a notification for each.
    pub fn give_up(&mut self, call: CallNumber) -> Vec<Bytes> {
        let ids: Vec<_> = self.waiting.iter().filter(|(_, waiting)| waiting.call == call).map(|(id, _)| *id).collect();
        for id in &ids {
            self.waiting.remove(id);
        }
        ids.into_iter().map(|id| cancelled(id, "the call that asked has ended")).collect()
    }

    /// The ids of those that wait.
    pub fn ids(&self) -> impl Iterator<Item = AskId> + '_ {
        self.waiting.keys().copied()
    }

    /// Requests that wait.
    pub fn len(&self) -> usize {
        self.waiting.len()
    }

    /// Whether none waits.
    pub fn is_empty(&self) -> bool {
        self.waiting.is_empty()
    }
}

/// The text of a request of ours.
pub fn request(id: AskId, method: &str, params: &RawValue) -> Bytes {
    #[derive(Serialize)]
    struct Request<'a> {
        jsonrpc: &'static str,
        id: u64,
        method: &'a str,
        params: &'a RawValue,
    }

    let request = Request { jsonrpc: jsonrpc::VERSION, id: id.0, method, params };
    Bytes::from(serde_json::to_vec(&request).expect("strings and raw values always serialize"))
}

/// The notification that takes a request of ours back.
pub fn cancelled(id: AskId, reason: &str) -> Bytes {
    #[derive(Serialize)]
    #[serde(rename_all = "camelCase")]
    struct Params<'a> {
        request_id: u64,
        reason: &'a str,
    }

    jsonrpc::notification(CANCELLED, &jsonrpc::raw(&Params { request_id: id.0, reason }))
}

/// Ids of ours are whole numbers; some clients echo them as floats or strings of the same value.
fn ask_id(id: &RawValue) -> Option<AskId> {
    serde_json::from_str(id.get()).ok().map(AskId)
}

#[cfg(test)]
mod tests {
    use super::*;

    const PATIENCE: Patience = Patience { idle_ms: 100, total_ms: 250 };

    fn id(text: &str) -> Box<RawValue> {
        RawValue::from_string(text.to_owned()).expect("JSON")
    }

    #[test]
    fn a_response_answers_its_request_once() {
        let mut asking = Asking::default();
        let first = asking.ask(CallNumber(1), PATIENCE, 8, Time(0)).expect("room");
        let second = asking.ask(CallNumber(1), PATIENCE, 8, Time(0)).expect("room");

        assert_eq!(asking.answer(&id("2")), Some(second));
        assert_eq!(asking.answer(&id("2")), None);
        for stranger in ["3", "\"1\"", "null", "{}", "-1", "1.5"] {
            assert_eq!(asking.answer(&id(stranger)), None, "{stranger}");
        }
        assert_eq!(asking.answer(&id("1")), Some(first));
        assert!(asking.is_empty());
    }

    #[test]
    fn progress_gives_a_request_more_time_up_to_its_total() {
        let mut asking = Asking::default();
        let ask = asking.ask(CallNumber(1), PATIENCE, 8, Time(0)).expect("room");
        assert_eq!(asking.due(ask), Some(Time(100)));

        assert!(asking.progress(&id("1"), Time(90)).is_some());
        assert_eq!(asking.due(ask), Some(Time(190)));
        assert!(asking.progress(&id("1"), Time(180)).is_some());
        assert_eq!(asking.due(ask), Some(Time(250)), "the total stands");
        assert!(asking.progress(&id("2"), Time(180)).is_none());

        assert_eq!(asking.expire(ask, Time(249)), None);
        let told = asking.expire(ask, Time(250)).expect("due");
        assert_eq!(
            told,
            r#"{"jsonrpc":"2.0","method":"notifications/cancelled","params":{"requestId":1,"reason":"timed out"}}"#
        );
        assert_eq!((asking.expire(ask, Time(999)), asking.answer(&id("1"))), (None, None));
    }

    #[test]
    fn the_requests_of_a_call_end_with_it() {
        let mut asking = Asking::default();
        for call in [1, 2, 1] {
            asking.ask(CallNumber(call), PATIENCE, 8, Time(0)).expect("room");
        }

        assert_eq!(asking.give_up(CallNumber(1)).len(), 2);
        assert_eq!(asking.give_up(CallNumber(1)).len(), 0);
        assert!(asking.answer(&id("2")).is_some() && asking.answer(&id("1")).is_none());
    }

    #[test]
    fn a_request_that_is_taken_back_makes_room() {
        let mut asking = Asking::default();
        let ask = asking.ask(CallNumber(1), PATIENCE, 1, Time(0)).expect("room");

        assert!(asking.withdraw(ask).is_some() && asking.withdraw(ask).is_none());
        assert!(asking.ask(CallNumber(1), PATIENCE, 1, Time(0)).is_ok());
    }

    #[test]
    fn only_so_many_wait() {
        let mut asking = Asking::default();
        asking.ask(CallNumber(1), PATIENCE, 1, Time(0)).expect("room");

        assert_eq!(asking.ask(CallNumber(1), PATIENCE, 1, Time(0)), Err(TooManyAsked { limit: 1 }));
    }

    #[test]
    fn a_request_carries_its_id_as_a_number() {
        let text = request(AskId(7), "roots/list", &id("{}"));

        assert_eq!(text, r#"{"jsonrpc":"2.0","id":7,"method":"roots/list","params":{}}"#);
    }
}
