//! How a session is stored: whose and with whom it is, its calls, its messages, and how it stands.
//!
//! ```text
//! mcp_sessions           <id>                        what seldom changes, as JSON
//! mcp_session_states     <id>                        how it stands, as JSON: without that the rest does not count
//! mcp_session_messages   <id> <position u64>         class u8, text
//! mcp_session_calls      <id> <order u64>            the call, as JSON
//! ```
//!
//! All keys end with the number of a part, u8: what is long has several. The first begins with the length of the whole, u32. All
//! numbers are big-endian.

use bytes::Bytes;
use compact_str::CompactString;
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;

use crate::protocol::mcp::client::{Client, ClientCapabilities, Era};
use crate::protocol::mcp::level::Level;
use crate::protocol::mcp::recovery::{Class, KeptCall, KeptState, Position, Sending};
use crate::protocol::mcp::version::Version;
use crate::store::{Entry, Keys, Store, StoreError, Table, Transaction};

const SESSIONS: Table = Table("mcp_sessions");
const STATES: Table = Table("mcp_session_states");
const MESSAGES: Table = Table("mcp_session_messages");
const CALLS: Table = Table("mcp_session_calls");

/// Bytes of a part.
const PART_BYTES: usize = 512 << 10;
/// Parts of a message: the largest is a result, of `RESOURCE_BYTES_MAX`.
const MESSAGE_PARTS_MAX: u8 = 4;
/// Parts of a call: such a result or a request of `REQUEST_BYTES_MAX` as a JSON string, which doubles quotation marks, and its ids.
const CALL_PARTS_MAX: u8 = 8;
/// Entries that are read at once.
const PAGE: usize = 64;

/// What seldom changes of a session.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(super) struct SessionRecord {
    pub(super) user: String,
    pub(super) topic: String,
    pub(super) server: String,
    pub(super) client: Option<KeptClient>,
    pub(super) is_initialized: bool,
    pub(super) level: Option<Level>,
    pub(super) is_streaming: bool,
    pub(super) subscriptions: Vec<String>,
    pub(super) opened_unix_ms: u64,
}

/// How a session stands.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(super) struct StateRecord {
    /// Which process stored it.
    pub(super) process: u64,
    /// The ids of requests under way that are no calls of tools, each as JSON text.
    pub(super) asked: Vec<String>,
    /// The ids of requests to the client that wait for it.
    pub(super) asking: Vec<u64>,
    pub(super) used: u64,
    pub(super) given: u64,
    pub(super) last: u64,
    pub(super) acknowledged: u64,
    pub(super) begun: u64,
    /// Until when its client may come back, if it is away.
    pub(super) until_unix_ms: Option<u64>,
}

/// What a session's client said of itself.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(super) struct KeptClient {
    is_legacy: bool,
    version: String,
    sampling: bool,
    sampling_tools: bool,
    elicitation_form: bool,
    elicitation_url: bool,
    roots: bool,
    tasks: bool,
    info: Option<Box<RawValue>>,
}

impl KeptClient {
    pub(super) fn of(client: &Client) -> Self {
        let can = client.capabilities;
        KeptClient {
            is_legacy: client.era == Era::Legacy,
            version: client.version.as_str().to_owned(),
            sampling: can.sampling,
            sampling_tools: can.sampling_tools,
            elicitation_form: can.elicitation_form,
            elicitation_url: can.elicitation_url,
            roots: can.roots,
            tasks: can.tasks,
            info: client.info.clone(),
        }
    }

    pub(super) fn into_client(self) -> Option<Client> {
        Some(Client {
            era: if self.is_legacy { Era::Legacy } else { Era::Elixir },
            version: Version::parse(&self.version)?,
            capabilities: ClientCapabilities {
                sampling: self.sampling,
                sampling_tools: self.sampling_tools,
                elicitation_form: self.elicitation_form,
                elicitation_url: self.elicitation_url,
                roots: self.roots,
                tasks: self.tasks,
            },
            info: self.info,
        })
    }
}

#[derive(Serialize, Deserialize)]
struct CallRecord {
    digest: Vec<u8>,
    key: Option<Box<str>>,
    ids: Vec<String>,
    asked_as: Option<Box<RawValue>>,
    state: CallState,
}

/// Texts are JSON, but stand as strings: not every text that a client sent is read again as it was.
#[derive(Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
enum CallState {
    Running(String),
    Answered { text: String, position: u64 },
    Forgotten,
    TakenBack,
}

/// One change of what is stored.
#[derive(Clone)]
pub(super) enum Change {
    Put(Table, Vec<u8>, Vec<u8>),
    /// Takes what has that key away, which has so many parts at most.
    Delete(Table, Vec<u8>, u8),
    /// Takes everything away whose key begins so.
    DeleteAll(Table, Vec<u8>),
}

impl Change {
    pub(super) fn session(id: &str, record: &SessionRecord) -> Vec<Self> {
        parts(SESSIONS, id.as_bytes().to_vec(), &serde_json::to_vec(record).expect("a record has string keys"))
    }

    pub(super) fn state(id: &str, record: &StateRecord) -> Vec<Self> {
        parts(STATES, id.as_bytes().to_vec(), &serde_json::to_vec(record).expect("a record has string keys"))
    }

    pub(super) fn message(id: &str, message: &Sending) -> Vec<Self> {
        let mut value = vec![class_code(message.class)];
        value.extend_from_slice(&message.text);
        parts(MESSAGES, numbered(id, message.position.0), &value)
    }

    pub(super) fn message_gone(id: &str, position: Position) -> Self {
        Change::Delete(MESSAGES, numbered(id, position.0), MESSAGE_PARTS_MAX)
    }

    pub(super) fn call(id: &str, order: u64, call: Option<&KeptCall>) -> Vec<Self> {
        let key = numbered(id, order);
        let Some(call) = call else { return vec![Change::Delete(CALLS, key, CALL_PARTS_MAX)] };
        let text = |bytes: &Bytes| String::from_utf8_lossy(bytes).into_owned();
        let state = match &call.state {
            KeptState::Running { request } => CallState::Running(text(request)),
            KeptState::Answered { text: answer, position } => {
                CallState::Answered { text: text(answer), position: position.0 }
            }
            KeptState::Forgotten => CallState::Forgotten,
            KeptState::TakenBack => CallState::TakenBack,
        };
        let ids = call.ids.iter().map(ToString::to_string).collect();
        let (key_of_client, asked_as) = (call.key.clone(), call.asked_as.clone());
        let record = CallRecord { digest: call.digest.to_vec(), key: key_of_client, ids, asked_as, state };
        parts(CALLS, key, &serde_json::to_vec(&record).expect("a call has string keys"))
    }

    /// All of a session's.
    pub(super) fn session_gone(id: &str) -> [Self; 4] {
        [STATES, SESSIONS, MESSAGES, CALLS].map(|table| Change::DeleteAll(table, id.as_bytes().to_vec()))
    }

    pub(super) fn bytes(&self) -> usize {
        match self {
            Change::Put(_, key, value) => key.len() + value.len(),
            Change::Delete(_, key, _) | Change::DeleteAll(_, key) => key.len(),
        }
    }

    pub(super) fn make(&self, transaction: &mut Transaction<'_>) -> Result<(), StoreError> {
        match self {
            Change::Put(table, key, value) => transaction.put(*table, key.clone(), value.clone()),
            Change::Delete(table, key, parts) => {
                for part in 0..*parts {
                    transaction.delete(*table, [&key[..], &[part]].concat());
                }
                Ok(())
            }
            Change::DeleteAll(table, prefix) => {
                for (key, _) in transaction.range(*table, &Keys::beginning_with(prefix.clone()), usize::MAX >> 1)? {
                    transaction.delete(*table, key);
                }
                Ok(())
            }
        }
    }
}

fn numbered(id: &str, number: u64) -> Vec<u8> {
    [id.as_bytes(), &number.to_be_bytes()].concat()
}

fn parts(table: Table, key: Vec<u8>, value: &[u8]) -> Vec<Change> {
    let length = u32::try_from(value.len()).expect("what is stored is bounded by what is kept");
    let whole = [&length.to_be_bytes(), value].concat();
    let part = |(number, part): (usize, &[u8])| {
        let number = u8::try_from(number).expect("what is stored is bounded by what is kept");
        Change::Put(table, [&key[..], &[number]].concat(), part.to_vec())
    };
    whole.chunks(PART_BYTES).enumerate().map(part).collect()
}

fn class_code(class: Class) -> u8 {
    match class {
        Class::Response => 0,
        Class::Request => 1,
        Class::Notification => 2,
        Class::Event => 3,
    }
}

/// What is stored below keys that begin so, each under its key without the number of its part.
async fn read(store: &Store, table: Table, prefix: &[u8]) -> Result<Vec<Entry>, StoreError> {
    let mut whole: Vec<Entry> = Vec::new();
    let mut from = prefix.to_vec();
    loop {
        let page = store.range(table, Keys::onwards(from.clone()), PAGE).await?;
        let is_last = page.len() < PAGE;
        for (key, value) in page {
            if !key.starts_with(prefix) {
                return Ok(finished(whole));
            }
            from = [&key[..], &[0]].concat();
            match key.split_last() {
                Some((0, key)) => whole.push((key.to_vec(), value)),
                Some((_, of)) if whole.last().is_some_and(|(key, _)| key == of) => {
                    whole.last_mut().expect("it was looked at").1.extend(value);
                }
                _ => {}
            }
        }
        if is_last {
            return Ok(finished(whole));
        }
    }
}

/// Without what is not all there, and without what is left of longer ones.
fn finished(whole: Vec<Entry>) -> Vec<Entry> {
    let cut = |(key, mut value): Entry| {
        let length = u32::from_be_bytes(*value.first_chunk::<4>()?) as usize;
        value.drain(..4);
        (value.len() >= length).then(|| {
            value.truncate(length);
            (key, value)
        })
    };
    whole.into_iter().filter_map(cut).collect()
}

/// What is stored under a session's id alone.
async fn read_one<T: DeserializeOwned>(store: &Store, table: Table, id: &str) -> Result<Option<T>, StoreError> {
    let found = read(store, table, id.as_bytes()).await?;
    Ok(found.iter().find(|(key, _)| key == id.as_bytes()).and_then(|(_, value)| serde_json::from_slice(value).ok()))
}

/// What seldom changes of a session.
pub(super) async fn read_session(store: &Store, id: &str) -> Result<Option<SessionRecord>, StoreError> {
    read_one(store, SESSIONS, id).await
}

/// How a session stands.
pub(super) async fn read_state(store: &Store, id: &str) -> Result<Option<StateRecord>, StoreError> {
    read_one(store, STATES, id).await
}

/// The ids of some sessions behind one, in their order; none for the first.
pub(super) async fn read_ids(store: &Store, after: &str) -> Result<Vec<String>, StoreError> {
    // No number of a part is as high.
    let from = if after.is_empty() { Vec::new() } else { [after.as_bytes(), &[u8::MAX]].concat() };
    let page = store.range(STATES, Keys::onwards(from), PAGE).await?;
    let ids = page.into_iter().filter_map(|(key, _)| String::from_utf8(key.strip_suffix(&[0])?.to_vec()).ok());
    Ok(ids.collect())
}

/// A session's messages up to a position, oldest first.
pub(super) async fn read_messages(store: &Store, id: &str, last: Position) -> Result<Vec<Sending>, StoreError> {
    let read = read(store, MESSAGES, id.as_bytes()).await?;
    let message = |(key, value): Entry| {
        let position = Position(u64::from_be_bytes(*key.last_chunk::<8>()?));
        let class = [Class::Response, Class::Request, Class::Notification, Class::Event]
            .into_iter()
            .find(|class| value.first() == Some(&class_code(*class)))?;
        Some(Sending { position, class, text: Bytes::from(value).slice(1..) })
    };
    Ok(read.into_iter().filter_map(message).filter(|message| message.position <= last).collect())
}

/// A session's calls by their order.
pub(super) async fn read_calls(store: &Store, id: &str) -> Result<Vec<(u64, KeptCall)>, StoreError> {
    let read = read(store, CALLS, id.as_bytes()).await?;
    let call = |(key, value): Entry| {
        let order = u64::from_be_bytes(*key.last_chunk::<8>()?);
        let CallRecord { digest, key, ids, asked_as, state } = serde_json::from_slice(&value).ok()?;
        let state = match state {
            CallState::Running(request) => KeptState::Running { request: request.into() },
            CallState::Answered { text, position } => {
                KeptState::Answered { text: text.into(), position: Position(position) }
            }
            CallState::Forgotten => KeptState::Forgotten,
            CallState::TakenBack => KeptState::TakenBack,
        };
        let ids = ids.into_iter().map(CompactString::from).collect();
        Some((order, KeptCall { digest: digest.try_into().ok()?, key, ids, asked_as, state }))
    };
    Ok(read.into_iter().filter_map(call).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    const ID: &str = "mcp_session_0123456789abcdef";

    async fn make(store: &Store, changes: Vec<Change>) {
        let made = store.change(move |transaction| changes.iter().try_for_each(|change| change.make(transaction)));
        made.await.expect("there is room");
    }

    fn message(position: u64, bytes: usize) -> Sending {
        Sending { position: Position(position), class: Class::Request, text: Bytes::from(vec![b'x'; bytes]) }
    }

    fn call(text: &str) -> KeptCall {
        let state = KeptState::Answered { text: Bytes::copy_from_slice(text.as_bytes()), position: Position(3) };
        KeptCall { digest: [7; 32], key: Some("k".into()), ids: vec!["1".into()], asked_as: None, state }
    }

    #[tokio::test]
    async fn messages_of_any_size_are_read_as_they_were_and_those_behind_the_last_are_not() {
        let store = Store::in_memory();
        let messages = [(1, 0), (2, PART_BYTES - 5), (3, PART_BYTES), (4, 2 * PART_BYTES + 1), (300, 1), (301, 1)];
        let messages = messages.map(|(position, bytes)| message(position, bytes));
        for message in &messages {
            make(&store, Change::message(ID, message)).await;
        }
        make(&store, Change::message("mcp_session_0123456789abcdee", &message(1, 1))).await;
        make(&store, Change::message("mcp_session_0123456789abcdf0", &message(1, 1))).await;

        assert_eq!(read_messages(&store, ID, Position(300)).await, Ok(messages[..5].to_vec()));

        make(&store, vec![Change::message_gone(ID, Position(4)), Change::message_gone(ID, Position(301))]).await;
        assert_eq!(read_messages(&store, ID, Position(999)).await.map(|read| read.len()), Ok(4));
        let rest = store.range(MESSAGES, Keys::beginning_with(ID), 100).await.expect("read");
        assert_eq!(rest.len(), 5, "1 and 300 are of a part, 2 fills one with its head, 3 is of two");
    }

    #[tokio::test]
    async fn a_call_that_has_become_shorter_is_read_without_what_is_left_of_the_longer_one() {
        let store = Store::in_memory();
        make(&store, Change::call(ID, 5, Some(&call(&"\"".repeat(PART_BYTES))))).await;
        make(&store, Change::call(ID, 5, Some(&call("short")))).await;

        let read = read_calls(&store, ID).await.expect("read");
        assert_eq!((read.len(), read[0].0), (1, 5));
        assert_eq!((&read[0].1.state, read[0].1.digest), (&call("short").state, [7; 32]));

        make(&store, Change::call(ID, 5, None)).await;
        assert_eq!(store.range(CALLS, Keys::beginning_with(ID), 9).await, Ok(vec![]));
    }

    #[tokio::test]
    async fn a_session_that_is_gone_leaves_nothing_and_takes_nothing_of_others() {
        let store = Store::in_memory();
        let others = ["mcp_session_0123456789abcdee", "mcp_session_0123456789abcdf0"];
        let state = StateRecord {
            process: 1,
            asked: vec![],
            asking: vec![],
            used: 1,
            given: 1,
            last: 1,
            acknowledged: 0,
            begun: 1,
            until_unix_ms: None,
        };
        for id in [others[0], ID, others[1]] {
            let changes =
                [Change::state(id, &state), Change::message(id, &message(1, 1)), Change::call(id, 1, Some(&call("a")))];
            make(&store, changes.into_iter().flatten().collect()).await;
        }
        assert_eq!(read_ids(&store, "").await.map(|ids| ids.len()), Ok(3));

        make(&store, Change::session_gone(ID).to_vec()).await;

        assert_eq!(read_ids(&store, "").await, Ok(others.map(ToOwned::to_owned).to_vec()));
        assert_eq!(read_ids(&store, others[0]).await, Ok(vec![others[1].to_owned()]));
        for table in [STATES, SESSIONS, MESSAGES, CALLS] {
            assert_eq!(store.range(table, Keys::beginning_with(ID), 9).await, Ok(vec![]));
        }
        assert!(read_state(&store, ID).await.is_ok_and(|state| state.is_none()));
        assert!(read_state(&store, "mcp_session_").await.is_ok_and(|state| state.is_none()), "a prefix is no id");
    }
}
