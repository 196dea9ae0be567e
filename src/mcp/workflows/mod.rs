//! Workflows of clients: created, run, watched, kept over restarts; with templates, triggers and shared contexts.
//!
//! ```text
//! workflows/execute ─► start ─► Driver (run.rs) ─► tools, through a session of its own (caller.rs)
//!                                 │ events, written down (journal.rs), told (events.rs)
//!                                 └─► Finished, recorded (records.rs)
//! ```
//!
//! A run belongs to no call: its caller may go, and a restart goes on with it. What a definition may say is in
//! [`protocol::workflow`](crate::protocol::workflow).
//!
//! Source: the contract of the Elixir deployment, section 10; what it fakes is done in earnest (section 12).

mod caller;
mod contexts;
mod definitions;
mod events;
mod journal;
mod live;
mod methods;
mod records;
mod run;
mod templates;
mod tools;
mod triggers;

use std::collections::BTreeMap;
use std::panic::AssertUnwindSafe;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use futures::FutureExt;
use parking_lot::Mutex;
use serde_json::Value;
use serde_json::value::RawValue;
use tokio::sync::broadcast;

use live::{Attached, LiveRun, NewLive};
pub(super) use methods::{is_method, serve};
use records::{GoingOn, Record, Status};
use run::{Driver, Parts};
use templates::Registry;
pub use tools::workflow_tools;
use triggers::{Armed, RunEnd};

use super::auth::{Identity, KeptRights};
use super::call::Call;
use super::hex::Hex;
use super::runs::{NewRun, Run};
use super::server::ServerShared;
use super::{CallError, Mcp};
use crate::channel::Endpoint;
use crate::clock;
use crate::protocol::jsonrpc;
use crate::protocol::mcp::client::{ClientCapabilities, Era};
use crate::protocol::mcp::event::Told;
use crate::protocol::workflow::{self, Definition, Failure, FailureKind, Stepper};
use crate::store::{Store, StoreError};

/// Runs of one user under way; of all there may be half of `mcp.runs_max`.
const RUNS_PER_USER_MAX: usize = 100;
/// Ends of runs that are kept for triggers which are slow to hear of them.
const ENDS_MAX: usize = 256;

/// The workflows of one [`Mcp`].
pub(crate) struct Workflows {
    store: Store,
    endpoint: Option<Endpoint>,
    live: Mutex<BTreeMap<u128, Arc<LiveRun>>>,
    templates: Registry,
    armed: Armed,
    /// Held while something is stored and armed, or taken away, so that what is armed is what is stored.
    arming: tokio::sync::Mutex<()>,
    ends: broadcast::Sender<RunEnd>,
    is_stopping: AtomicBool,
}

/// How a run ended.
#[derive(Clone, Debug)]
pub(crate) struct Finished {
    pub(crate) outcome: Result<Arc<Value>, Failure>,
    pub(crate) unix_micros: u64,
    pub(crate) worked_ms: u64,
}

impl Finished {
    fn status(&self) -> Status {
        match &self.outcome {
            Ok(_) => Status::Completed,
            Err(failure) if failure.kind == FailureKind::Cancelled => Status::Cancelled,
            Err(_) => Status::Failed,
        }
    }
}

/// A run that is to begin.
struct NewRunOf {
    server: Arc<ServerShared>,
    owner: Identity,
    connection: u64,
    request_id: Box<RawValue>,
    workflow: Arc<str>,
    definition: Arc<Definition>,
    going_on: GoingOn,
    /// What is told of the options, as they came.
    told_options: Value,
    /// The call that waits for it.
    call: Option<Arc<Call>>,
}

impl Workflows {
    /// Where they are kept.
    pub(super) fn store(&self) -> &Store {
        &self.store
    }

    /// Workflows that are kept in a store.
    pub(super) fn new(store: Store, endpoint: Option<Endpoint>) -> Self {
        Workflows {
            store,
            endpoint,
            live: Mutex::default(),
            templates: Registry::default(),
            armed: Armed::default(),
            arming: tokio::sync::Mutex::default(),
            ends: broadcast::Sender::new(ENDS_MAX),
            is_stopping: AtomicBool::new(false),
        }
    }

    /// The run of that id that goes on.
    fn live(&self, id: &str) -> Option<Arc<LiveRun>> {
        self.live.lock().get(&Hex::number(id)?).cloned()
    }

    /// Tells triggers that a tool's run has ended.
    pub(super) fn tool_ended(&self, run: &Run, completed: bool) {
        if self.ends.receiver_count() > 0 {
            // Nobody may be listening any more.
            let _ = self.ends.send(RunEnd {
                run_id: run.id().to_owned(),
                name: Arc::clone(run.tool()),
                is_workflow: false,
                completed,
                owner: run.owner().clone(),
                depth: 0,
            });
        }
    }

    /// Leaves the runs under way for a restart to go on with, where the store outlives the process, or else ends them; and
    /// waits until all have heeded that.
    pub(super) async fn drain(&self) {
        self.is_stopping.store(true, Ordering::SeqCst);
        self.armed.clear();
        loop {
            let runs: Vec<_> = self.live.lock().values().cloned().collect();
            if runs.is_empty() {
                return;
            }
            for run in &runs {
                if self.store.is_durable() { run.suspend() } else { run.stop("the server stops") }
            }
            // Each takes itself out.
            tokio::task::yield_now().await;
            tokio::time::sleep(std::time::Duration::from_millis(5)).await;
        }
    }
}

/// Begins a run, once it is stored. Whoever waits for it is attached from the first moment: a call that ends meanwhile ends
/// the run, or leaves it, as one that ends later does.
async fn start(mcp: &Arc<Mcp>, new: NewRunOf) -> Result<(Arc<LiveRun>, Option<Attached>), CallError> {
    let live = Arc::new(LiveRun::new(
        NewLive {
            number: Hex::draw(),
            workflow: Arc::clone(&new.workflow),
            owner: new.owner.clone(),
            server: new.server.name.clone(),
            options: new.going_on.options,
            request_id: new.request_id.clone(),
            started_unix_micros: clock::unix_micros(),
            earlier_ms: 0,
            depth: new.going_on.depth,
        },
        new.call.as_ref(),
    ));
    admit(mcp, &live)?;
    let attached = new.call.as_ref().map(|call| Attached { run: Arc::clone(&live), call: Arc::clone(call) });
    // In a task of its own, since what has been stored as begun has to begin: it ends by itself.
    let begun = tokio::spawn(store_and_drive(Arc::clone(mcp), Arc::clone(&live), new)).await;
    begun.unwrap_or_else(|error| match error.try_into_panic() {
        Ok(panic) => std::panic::resume_unwind(panic),
        Err(_) => Err(CallError::Cancelled),
    })?;
    Ok((live, attached))
}

async fn store_and_drive(mcp: Arc<Mcp>, live: Arc<LiveRun>, new: NewRunOf) -> Result<(), CallError> {
    let store = &mcp.workflows.store;
    let record = Record {
        run_id: live.id.clone(),
        workflow_id: new.workflow.to_string(),
        user: new.owner.user.to_string(),
        rights: KeptRights::of(&new.owner),
        server: new.server.name.clone(),
        status: Status::Running,
        request_id: new.request_id.clone(),
        started_unix_micros: live.started_unix_micros,
        finished_unix_micros: None,
        result: None,
        error: None,
    };
    // Given back at once where the run can't begin.
    let place = Place { mcp: Arc::clone(&mcp), number: live.number };
    records::begin(store, record, &new.going_on).await?;
    let stepper = Stepper::new(Arc::clone(&new.definition), new.going_on.beginning());
    let first = events::started(&new.workflow, &new.going_on.context, &new.told_options);
    let begun = Begun {
        live: Arc::clone(&live),
        server: new.server,
        connection: new.connection,
        definition: new.definition,
        stepper,
        left_ms: new.going_on.options.timeout_ms,
        capabilities: askable(new.call.as_ref()),
        earlier: Vec::new(),
    };
    let Err(full) = drive(&mcp, place, begun, first, new.call.as_ref()) else { return Ok(()) };
    let failure = Failure::new(FailureKind::Limit, full.to_string());
    let finished = Finished { outcome: Err(failure), unix_micros: clock::unix_micros(), worked_ms: 0 };
    let recorded = records::finish(store, &live, &finished).await;
    live.finish(Some(finished));
    recorded?;
    Err(full)
}

/// Takes a run among those under way. They are runs among others, so that they may have half of the places at most.
fn admit(mcp: &Mcp, live: &Arc<LiveRun>) -> Result<(), CallError> {
    let workflows = &mcp.workflows;
    let all_max = (mcp.settings.runs_max / 2).max(1);
    let each_max = RUNS_PER_USER_MAX.min((all_max / 2).max(1));
    let mut all = workflows.live.lock();
    // Under the lock: whoever stops looks for runs after having said so.
    if workflows.is_stopping.load(Ordering::SeqCst) {
        return Err(CallError::failed("the server stops"));
    }
    let of_user = all.values().filter(|other| other.owner == live.owner).count();
    if all.len() >= all_max || of_user >= each_max {
        return Err(CallError::failed(format!(
            "expected at most {all_max} workflows under way, and {each_max} of one user, came one more"
        )));
    }
    all.insert(live.number, Arc::clone(live));
    Ok(())
}

/// Among whose calls those of a user's runs are counted that no connection began.
fn connection_of(user: &Identity) -> u64 {
    use std::hash::{DefaultHasher, Hash, Hasher};

    let mut hasher = DefaultHasher::new();
    user.user.hash(&mut hasher);
    // Connections are numbered from below.
    hasher.finish() | 1 << 63
}

/// What the client of a call can be asked while the call waits.
fn askable(call: Option<&Arc<Call>>) -> ClientCapabilities {
    match call {
        // A stateless client is asked by ending its call, which a run that goes on can't do; one that has a task is not.
        Some(call) if call.client.era != Era::Modern || call.task.get().is_some() => call.client.capabilities,
        _ => ClientCapabilities::default(),
    }
}

/// A run's place among those under way, until it is dropped.
struct Place {
    mcp: Arc<Mcp>,
    number: u128,
}

impl Drop for Place {
    fn drop(&mut self) {
        self.mcp.workflows.live.lock().remove(&self.number);
    }
}

struct Begun {
    live: Arc<LiveRun>,
    server: Arc<ServerShared>,
    connection: u64,
    definition: Arc<Definition>,
    stepper: Stepper,
    left_ms: u64,
    capabilities: ClientCapabilities,
    earlier: Vec<workflow::Event>,
}

/// Has a task drive a run.
fn drive(
    mcp: &Arc<Mcp>,
    place: Place,
    begun: Begun,
    (kind, data): events::Event,
    call: Option<&Arc<Call>>,
) -> Result<(), CallError> {
    let Begun { live, server, connection, definition, stepper, left_ms, capabilities, earlier } = begun;
    let new = NewRun {
        number: live.number,
        tool: &live.workflow,
        is_workflow: true,
        request_id: &live.request_id,
        owner: &live.owner,
        connection,
    };
    let run = mcp.runs.begin_with(new, Told::Workflow { kind, data });
    let run = run.map_err(|full| CallError::failed(full.to_string()))?;
    if let Some(call) = call {
        call.shows(&run);
        if live.options.streaming
            && let Some(text) = run.started()
        {
            call.show_event(text);
        }
    }
    let parts = Parts {
        mcp: Arc::clone(mcp),
        live: Arc::clone(&live),
        run,
        server,
        connection,
        definition,
        stepper,
        left_ms,
        capabilities,
        earlier,
    };
    let (driver, earlier) = Driver::new(parts);
    let mcp = Arc::clone(mcp);
    // Owned by `live`: whoever drains tells the run to end, and waits until it has taken itself out.
    tokio::spawn(async move {
        let finished = AssertUnwindSafe(driver.drive(earlier)).catch_unwind().await;
        let finished = match finished {
            Ok(finished) => finished,
            Err(_) => Some(crashed(&mcp, &live).await),
        };
        if let Some(finished) = &finished {
            let end = RunEnd::of_workflow(&live, finished);
            // Nobody may be listening.
            let _ = mcp.workflows.ends.send(end);
        }
        live.finish(finished);
        drop(place);
    });
    Ok(())
}

/// Reads what is stored: templates, triggers, and the runs that the last process left; these go on, or have failed, as their
/// definitions say.
///
/// # Errors
/// [`StoreError`].
pub(super) async fn resume(mcp: &Arc<Mcp>) -> Result<(), StoreError> {
    let workflows = &mcp.workflows;
    workflows.templates.load(&workflows.store).await?;
    records::clear_ended(&workflows.store).await?;
    for (record, going_on) in records::unfinished(&workflows.store).await? {
        let run_id = record.run_id.clone();
        if let Err(why) = resume_run(mcp, record.clone(), going_on).await {
            tracing::warn!(run = run_id, %why, "a workflow's run could not go on");
            records::give_up(&workflows.store, record, &format!("it could not go on: {why}")).await?;
        }
    }
    triggers::arm_all(mcp).await
}

async fn resume_run(mcp: &Arc<Mcp>, record: Record, going_on: Option<GoingOn>) -> Result<(), CallError> {
    let store = &mcp.workflows.store;
    let number = Hex::number(&record.run_id).ok_or("its id is none")?;
    let going_on = going_on.ok_or("what it is made of is not stored")?;
    // The time in which there was no server does not count.
    let written = journal::read(store, number).await?;
    let earlier_ms = written.last().and_then(Option::as_ref).map_or(0, |written| written.worked_ms);
    let earlier: Option<Vec<_>> = written.into_iter().map(|written| Some(written?.event)).collect();
    let live = Arc::new(LiveRun::new(
        NewLive {
            number,
            workflow: record.workflow_id.as_str().into(),
            owner: record.rights.identity(&record.user),
            server: record.server,
            options: going_on.options,
            request_id: record.request_id,
            started_unix_micros: record.started_unix_micros,
            earlier_ms,
            depth: going_on.depth,
        },
        None,
    ));
    let definition = workflow::compile(&going_on.definition, &());
    let server = mcp.server(&live.server);
    let (definition, server, earlier) = match (definition, server, earlier) {
        _ if !going_on.options.resumes => {
            return fail(mcp, &live, FailureKind::Interrupted, "interrupted by a restart of the server").await;
        }
        (Ok((definition, _)), Some(server), Some(earlier)) => (Arc::new(definition), server, earlier),
        (_, None, _) => return fail(mcp, &live, FailureKind::Interrupted, "its server is there no longer").await,
        _ => {
            let why = "it was stored in a form that this version does not read";
            return fail(mcp, &live, FailureKind::Interrupted, why).await;
        }
    };
    admit(mcp, &live)?;
    let place = Place { mcp: Arc::clone(mcp), number };
    let stepper = Stepper::new(Arc::clone(&definition), going_on.beginning());
    let first = events::started(&live.workflow, &going_on.context, &Value::Null);
    let left_ms = going_on.options.timeout_ms.saturating_sub(earlier_ms);
    let begun = Begun {
        live: Arc::clone(&live),
        server,
        connection: connection_of(&live.owner),
        definition,
        stepper,
        left_ms,
        capabilities: ClientCapabilities::default(),
        earlier,
    };
    tracing::info!(run = live.id, workflow = &*live.workflow, "a workflow goes on after a restart");
    drive(mcp, place, begun, first, None)
}

/// Ends a run whose driver panicked, which it never does.
async fn crashed(mcp: &Arc<Mcp>, live: &Arc<LiveRun>) -> Finished {
    tracing::error!(run = live.id, "a workflow's run panicked");
    let outcome = Err(Failure::new(FailureKind::Interrupted, "the run crashed"));
    let finished = Finished { outcome, unix_micros: clock::unix_micros(), worked_ms: live.earlier_ms };
    if let Err(error) = records::finish(&mcp.workflows.store, live, &finished).await {
        tracing::error!(%error, run = live.id, "the end of a workflow's run could not be written down");
    }
    if let Some(run) = mcp.runs.find(&live.id) {
        let (kind, data) = events::ended(&live.workflow, finished.outcome.as_ref().map(|result| &**result), 0);
        let _ = run.tell_last(Told::Workflow { kind, data }, false);
    }
    finished
}

/// Ends a run that can't go on.
async fn fail(mcp: &Arc<Mcp>, live: &Arc<LiveRun>, kind: FailureKind, why: &str) -> Result<(), CallError> {
    let finished = Finished {
        outcome: Err(Failure::new(kind, why)),
        unix_micros: clock::unix_micros(),
        worked_ms: live.earlier_ms,
    };
    records::finish(&mcp.workflows.store, live, &finished).await?;
    Ok(())
}

/// What a user's keys begin with: no user's is the beginning of another's.
fn prefix(user: &Identity) -> Vec<u8> {
    let user = user.user.as_bytes();
    let length = u32::try_from(user.len()).unwrap_or(u32::MAX);
    [&length.to_be_bytes(), user].concat()
}

/// The id of a request that nobody made.
fn no_request() -> Box<RawValue> {
    jsonrpc::raw(&Value::Null)
}
