//! Calls that became tasks: their client asks how they stand, brings what they want to know, and may end them.
//!
//! Tasks live in this process: a restart loses them.
//!
//! Source: the extension `io.modelcontextprotocol/tasks` (SEP-2663).

use std::collections::{BTreeMap, HashMap};
use std::sync::{Arc, Weak};
use std::time::Duration;

use parking_lot::Mutex;
use serde::Serialize;
use serde_json::value::RawValue;
use serde_json::{Map, Value, json};
use tokio::sync::oneshot;

use super::CallError;
use super::auth::Identity;
use super::call::Call;
use super::cancel::CancelReason;
use super::hex::Hex;
use super::input::InputRequest;
use super::server::{Change, ServerShared};
use super::session::Session;
use crate::clock;
use crate::protocol::Time;
use crate::protocol::jsonrpc::{self, Compat, Fault, Object};
use crate::protocol::mcp::client::TASKS_EXTENSION;
use crate::protocol::mcp::error;

/// Tasks in memory; a new one makes room by the oldest that has ended, the same user's first.
const TASKS_MAX: usize = 1_000;
/// Tasks of one user that are under way.
const TASKS_PER_USER_MAX: usize = 100;
/// Bytes of the results of ended tasks; above it the oldest go before their time.
const RESULT_BYTES_MAX: usize = 64 << 20;
/// How long a task waits for an answer of its client: an hour.
const PATIENCE: Duration = Duration::from_secs(3_600);
/// Milliseconds that a task is found after its last change once it has ended: an hour.
const TASK_TTL_MS: u64 = 3_600_000;
/// How often a client is told to ask.
const POLL_INTERVAL_MS: u64 = 1_000;

/// The tasks of this node.
#[derive(Default)]
pub(crate) struct Tasks(Mutex<HashMap<String, Arc<Task>>>);

/// One call that became a task.
///
/// ```text
/// working ◄─► input_required
///    └──────────┴─► completed | failed | cancelled
/// ```
pub(crate) struct Task {
    id: String,
    owner: Identity,
    server: Arc<ServerShared>,
    call: Weak<Call>,
    created_at: String,
    state: Mutex<State>,
    /// Held while a change is made and told, so that those who listen hear of changes in their order.
    telling: Mutex<()>,
}

struct State {
    status: Status,
    message: Option<String>,
    updated_at: String,
    outcome: Option<Result<Box<RawValue>, Value>>,
    wanted: BTreeMap<String, (InputRequest, oneshot::Sender<Box<RawValue>>)>,
    ended: Option<Time>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
enum Status {
    Working,
    InputRequired,
    Completed,
    Failed,
    Cancelled,
}

/// The fault of a client without the extension that calls what needs it.
pub(super) fn missing_extension() -> Fault {
    error::missing_capability(&json!({"extensions": {TASKS_EXTENSION: {}}}))
}

impl Tasks {
    /// Makes a task of a call; none where there are as many as may be.
    pub(super) fn begin(&self, call: &Arc<Call>) -> Option<Arc<Task>> {
        let mut tasks = self.0.lock();
        let now = clock::now();
        tasks.retain(|_, task| task.state.lock().ended.is_none_or(|ended| now.since(ended) < TASK_TTL_MS));
        let owner = &call.session.user;
        let under_way = tasks.values().filter(|task| task.owner == *owner && task.state.lock().ended.is_none()).count();
        if under_way >= TASKS_PER_USER_MAX {
            return None;
        }
        let mut bytes: usize = tasks.values().map(|task| task.result_bytes()).sum();
        while tasks.len() >= TASKS_MAX || bytes > RESULT_BYTES_MAX {
            // Those of others only where there are none of one's own.
            let ended =
                |task: &Arc<Task>| task.state.lock().ended.map(|ended| (task.owner != *owner, ended, task.id.clone()));
            let (_, _, oldest) = tasks.values().filter_map(ended).min()?;
            bytes -= tasks.remove(&oldest).map_or(0, |task| task.result_bytes());
        }
        let timestamp = clock::wall_iso8601_micros();
        let id = Hex::of(Hex::draw()).as_str().to_owned();
        let task = Arc::new(Task {
            id: id.clone(),
            owner: owner.clone(),
            server: Arc::clone(&call.session.server),
            call: Arc::downgrade(call),
            created_at: timestamp.clone(),
            state: Mutex::new(State {
                status: Status::Working,
                message: None,
                updated_at: timestamp,
                outcome: None,
                wanted: BTreeMap::new(),
                ended: None,
            }),
            telling: Mutex::new(()),
        });
        tasks.insert(id, Arc::clone(&task));
        Some(task)
    }

    /// The task of that id, if it is that user's, of that server.
    pub(super) fn find(&self, id: &str, session: &Session) -> Option<Arc<Task>> {
        let tasks = self.0.lock();
        let task = tasks.get(id)?;
        let is_expired = task.state.lock().ended.is_some_and(|ended| clock::now().since(ended) >= TASK_TTL_MS);
        let is_theirs = task.owner == session.user && Arc::ptr_eq(&task.server, &session.server);
        (is_theirs && !is_expired).then(|| Arc::clone(task))
    }
}

impl Task {
    /// The fields of the answer to the call that became this task.
    pub(super) fn created(&self) -> Box<RawValue> {
        jsonrpc::raw(&self.fields(&self.state.lock()))
    }

    /// The fields of `tasks/get`: with the result, the error or the questions.
    pub(super) fn detailed(&self) -> Box<RawValue> {
        jsonrpc::raw(&self.detailed_fields())
    }

    fn detailed_fields(&self) -> Map<String, Value> {
        let state = self.state.lock();
        let mut fields = self.fields(&state);
        match &state.outcome {
            Some(Ok(result)) if state.status == Status::Completed => {
                fields.insert("result".to_owned(), serde_json::from_str(result.get()).unwrap_or_default());
            }
            Some(Err(error)) if state.status == Status::Failed => {
                fields.insert("error".to_owned(), error.clone());
            }
            _ => {}
        }
        if state.status == Status::InputRequired {
            let requests: Map<_, _> = state
                .wanted
                .iter()
                .map(|(key, (request, _))| (key.clone(), json!({"method": request.method, "params": request.params})))
                .collect();
            fields.insert("inputRequests".to_owned(), requests.into());
        }
        fields
    }

    fn fields(&self, state: &State) -> Map<String, Value> {
        let mut fields = Map::from_iter([
            ("taskId".to_owned(), Value::from(self.id.as_str())),
            ("status".to_owned(), json!(state.status)),
            ("createdAt".to_owned(), Value::from(self.created_at.as_str())),
            ("lastUpdatedAt".to_owned(), Value::from(state.updated_at.as_str())),
            ("ttlMs".to_owned(), TASK_TTL_MS.into()),
            ("pollIntervalMs".to_owned(), POLL_INTERVAL_MS.into()),
        ]);
        if let Some(message) = &state.message {
            fields.insert("statusMessage".to_owned(), message.as_str().into());
        }
        fields
    }

    fn result_bytes(&self) -> usize {
        match &self.state.lock().outcome {
            Some(Ok(result)) => result.get().len(),
            _ => 0,
        }
    }

    /// Changes the state unless the task has ended, and tells those who listen, if `change` says that it did anything.
    fn change(&self, change: impl FnOnce(&mut State) -> bool) {
        let _telling = self.telling.lock();
        {
            let mut state = self.state.lock();
            if state.ended.is_some() || !change(&mut state) {
                return;
            }
            state.updated_at = clock::wall_iso8601_micros();
        }
        let task = self.detailed();
        self.server.tell(Change::Task { id: &self.id, owner: &self.owner, task: &task });
    }

    /// Notes what the call says of its progress.
    pub(super) fn note(&self, message: &str) {
        self.change(|state| {
            state.message = Some(message.to_owned());
            true
        });
    }

    /// Asks the client, which brings the answer with `tasks/update`.
    pub(super) async fn ask(&self, key: &str, request: &InputRequest) -> Result<Box<RawValue>, CallError> {
        let (sender, answer) = oneshot::channel();
        self.change(|state| {
            state.wanted.insert(key.to_owned(), (request.clone(), sender));
            state.status = Status::InputRequired;
            true
        });
        match tokio::time::timeout(PATIENCE, answer).await {
            Ok(answer) => answer.map_err(|_| CallError::Cancelled),
            Err(_) => Err(CallError::Failed("the client did not answer in time".to_owned())),
        }
    }

    /// Takes answers. Those to no question, and those that are no objects, are ignored.
    pub(super) fn update(&self, responses: &Object<'_>) {
        self.change(|state| {
            let before = state.wanted.len();
            for (key, answer) in responses.fields().filter(|(_, answer)| answer.get().starts_with('{')) {
                if let Some((_, waiting)) = state.wanted.remove(key) {
                    // The call may have ended just now.
                    let _ = waiting.send(answer.to_owned());
                }
            }
            if state.wanted.is_empty() {
                state.status = Status::Working;
            }
            state.wanted.len() < before
        });
    }

    /// Ends the task. Nothing happens if it has ended.
    pub(super) fn cancel(&self) {
        self.change(|state| {
            state.status = Status::Cancelled;
            state.wanted = BTreeMap::new();
            state.ended = Some(clock::now());
            true
        });
        if let Some(call) = self.call.upgrade() {
            call.cancel(CancelReason::Client);
        }
    }

    /// Notes how the call ended.
    pub(super) fn finish(&self, answer: Result<Box<RawValue>, Fault>) {
        self.change(|state| {
            let outcome = answer.map_err(|fault| json!(fault.to_object(Compat::Standard)));
            state.status = if outcome.is_ok() { Status::Completed } else { Status::Failed };
            state.outcome = Some(outcome);
            state.wanted = BTreeMap::new();
            state.ended = Some(clock::now());
            true
        });
    }
}
