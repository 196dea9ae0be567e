//! What begins workflows by itself: events on topics, ends of runs, schedules.
//!
//! A reactive step of a run waits for its triggers as long as the run goes on. A stored workflow that is reactive as a whole,
//! and a trigger that a client registered, are *armed*: each event that fits begins a run, until they are taken away.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value, json};
use tokio::sync::broadcast;
use tokio::task::{AbortHandle, JoinSet};

use super::definitions::{self, Stored};
use super::live::LiveRun;
use super::methods::Options;
use super::records::GoingOn;
use super::{Finished, NewRunOf, connection_of, no_request, prefix, start};
use crate::channel::{Payload, RecvError};
use crate::clock;
use crate::mcp::auth::{Identity, KeptRights};
use crate::mcp::{CallError, Mcp};
use crate::protocol::workflow::DEPTH_MAX;
use crate::protocol::workflow::definition::Kind;
use crate::protocol::workflow::measure::is_deeper;
use crate::protocol::workflow::trigger::{self, On, Trigger};
use crate::protocol::workflow::{self, Definition};
use crate::random;
use crate::store::{Keys, StoreError, Table};

/// By user and id; each value is a [`Registered`] as JSON.
const TRIGGERS: Table = Table("workflow_triggers");

/// Triggers that one user has registered.
pub(super) const TRIGGERS_MAX: usize = 100;
/// Runs of which each was begun by the end of the one before.
pub(super) const CHAIN_MAX: u32 = 8;
/// Events of one armed workflow or trigger whose runs are about to begin, their delays included; further ones are lost, and logged.
pub(super) const FIRING_MAX: usize = 16;
/// Bytes of a payload that a run is given; of larger ones it learns the size.
pub(super) const PAYLOAD_BYTES_MAX: usize = 65_536;

/// Bytes of the topic of an event that a client broadcasts.
const TOPIC_BYTES_MAX: usize = 256;

/// The end of a run, of a tool or of a workflow.
#[derive(Clone, Debug)]
pub(in crate::mcp) struct RunEnd {
    pub(in crate::mcp) run_id: String,
    /// The tool's name, or the workflow's id.
    pub(in crate::mcp) name: Arc<str>,
    pub(in crate::mcp) is_workflow: bool,
    pub(in crate::mcp) completed: bool,
    pub(in crate::mcp) owner: Identity,
    pub(in crate::mcp) depth: u32,
}

impl RunEnd {
    pub(super) fn of_workflow(live: &LiveRun, finished: &Finished) -> Self {
        RunEnd {
            run_id: live.id.clone(),
            name: Arc::clone(&live.workflow),
            is_workflow: true,
            completed: finished.outcome.is_ok(),
            owner: live.owner.clone(),
            depth: live.depth,
        }
    }
}

/// Triggers that are heeded, until it is dropped.
pub(super) struct Watching(Vec<AbortHandle>);

impl Drop for Watching {
    fn drop(&mut self) {
        self.0.iter().for_each(AbortHandle::abort);
    }
}

/// What is done with an event: which trigger's it is, and its `$trigger`.
type Fire = Arc<dyn Fn(usize, Value, u32) + Send + Sync>;

impl Watching {
    /// Heeds a user's triggers: `fire` is called for each event, with the trigger's place. Conditions and delays are up to
    /// whoever is told.
    pub(super) fn begin(
        mcp: &Arc<Mcp>,
        owner: &Identity,
        triggers: &[Trigger],
        fire: impl Fn(usize, Value, u32) + Send + Sync + 'static,
    ) -> Self {
        let fire: Fire = Arc::new(fire);
        let active = triggers.iter().enumerate().filter(|(_, trigger)| trigger.is_active);
        let tasks = active.filter_map(|(at, trigger)| heed(mcp, owner, at, trigger, Arc::clone(&fire)));
        Watching(tasks.map(|task| task.abort_handle()).collect())
    }
}

/// Has a task wait for one trigger's events.
fn heed(
    mcp: &Arc<Mcp>,
    owner: &Identity,
    at: usize,
    trigger: &Trigger,
    fire: Fire,
) -> Option<tokio::task::JoinHandle<()>> {
    let event = trigger.event.clone();
    match trigger.on.clone() {
        On::Broadcast { topic, event: wanted } => {
            if !mcp.auth.may_hear(owner, &topic) {
                tracing::warn!(user = &*owner.user, topic, "a trigger's topic is not for its user to hear");
                return None;
            }
            // From here on nothing is missed.
            let mut subscriber = mcp.workflows.endpoint.as_ref()?.subscribe(&topic);
            Some(tokio::spawn(async move {
                loop {
                    match subscriber.recv().await {
                        Ok(heard) if wanted.as_deref().is_none_or(|wanted| wanted == heard.event()) => {
                            let value = json!({
                                "event": heard.event(), "topic": topic, "payload": payload(heard.payload()),
                                "timestamp": clock::wall_iso8601_micros(),
                            });
                            fire(at, value, 0);
                        }
                        Ok(_) => {}
                        Err(RecvError::Missed(count)) => tracing::warn!(topic, count, "a trigger missed events"),
                        Err(_) => return,
                    }
                }
            }))
        }
        On::Run { completed, of } => {
            let mut ends = mcp.workflows.ends.subscribe();
            let (mcp, owner) = (Arc::downgrade(mcp), owner.clone());
            Some(tokio::spawn(async move {
                loop {
                    let end = match ends.recv().await {
                        Ok(end) => end,
                        Err(broadcast::error::RecvError::Lagged(count)) => {
                            tracing::warn!(count, "a trigger missed ends of runs");
                            continue;
                        }
                        Err(broadcast::error::RecvError::Closed) => return,
                    };
                    let Some(mcp) = mcp.upgrade() else { return };
                    let fits = completed.is_none_or(|completed| completed == end.completed)
                        && of.as_deref().is_none_or(|of| of == &*end.name)
                        && mcp.auth.may_watch(&owner, &end.owner);
                    if fits {
                        let name = if end.is_workflow { "workflow_id" } else { "tool" };
                        let status = if end.completed { "completed" } else { "failed" };
                        let payload = json!({"run_id": end.run_id, name: &*end.name, "status": status});
                        let value =
                            json!({"event": event, "payload": payload, "timestamp": clock::wall_iso8601_micros()});
                        fire(at, value, end.depth + 1);
                    }
                }
            }))
        }
        On::Every(ms) => Some(tokio::spawn(async move {
            let every = Duration::from_millis(ms);
            let mut ticks = tokio::time::interval_at(clock::in_ms(ms), every);
            ticks.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Skip);
            loop {
                ticks.tick().await;
                fire(at, json!({"event": event, "payload": {}, "timestamp": clock::wall_iso8601_micros()}), 0);
            }
        })),
    }
}

fn payload(payload: &Payload) -> Value {
    match payload {
        Payload::Json(text) if text.len() <= PAYLOAD_BYTES_MAX => match serde_json::from_slice(text) {
            Ok(value) if !is_deeper(&value, DEPTH_MAX) => value,
            _ => json!({"bytes_omitted": text.len()}),
        },
        Payload::Json(text) => json!({"bytes_omitted": text.len()}),
        Payload::Binary(bytes) => json!({"binary_bytes": bytes.len()}),
    }
}

/// The triggers that begin runs by themselves.
#[derive(Default)]
pub(super) struct Armed(Mutex<BTreeMap<UsersArmed, Watching>>);

/// A user, and what is armed.
type UsersArmed = (Arc<str>, ArmedBy);

/// What is armed of a user.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum ArmedBy {
    /// The workflow of this id.
    Workflow(String),
    /// The trigger of this id.
    Trigger(String),
}

impl Armed {
    /// Heeds nothing any more.
    pub(super) fn clear(&self) {
        let all = std::mem::take(&mut *self.0.lock());
        drop(all);
    }

    /// Takes something armed away.
    pub(super) fn disarm(&self, owner: &Identity, by: ArmedBy) {
        let gone = self.0.lock().remove(&(Arc::clone(&owner.user), by));
        drop(gone);
    }

    fn put(&self, owner: &Identity, by: ArmedBy, watching: Watching) {
        let before = self.0.lock().insert((Arc::clone(&owner.user), by), watching);
        drop(before);
    }
}

/// Arms a stored workflow, if it is reactive as a whole.
pub(super) fn arm_workflow(mcp: &Arc<Mcp>, owner: &Identity, id: &str, definition: &Definition) {
    let Kind::Reactive { triggers, .. } = &definition.step(0).kind else {
        return mcp.workflows.armed.disarm(owner, ArmedBy::Workflow(id.to_owned()));
    };
    let (known, triggers) = (Arc::downgrade(mcp), triggers.clone());
    let (user, workflow) = (owner.clone(), id.to_owned());
    let firing = Firing::default();
    let watching = Watching::begin(mcp, owner, &triggers.clone(), move |at, value, depth| {
        if let (Some(mcp), Some(trigger)) = (known.upgrade(), triggers.get(at)) {
            firing.begin(&mcp, &user, &workflow, trigger, value, depth);
        }
    });
    mcp.workflows.armed.put(owner, ArmedBy::Workflow(id.to_owned()), watching);
}

/// The runs that something armed is about to begin, until it is dropped.
#[derive(Clone, Default)]
struct Firing(Arc<Mutex<JoinSet<()>>>);

impl Firing {
    /// Begins a run of a stored workflow because of an event, after the trigger's delay.
    fn begin(&self, mcp: &Arc<Mcp>, owner: &Identity, workflow: &str, trigger: &Trigger, value: Value, depth: u32) {
        let value = Arc::new(value);
        if !trigger::holds(trigger, &value) {
            return;
        }
        if depth > CHAIN_MAX {
            return tracing::warn!(workflow, depth, "a trigger is not heeded: too many runs have begun each other");
        }
        let mut under_way = self.0.lock();
        while under_way.try_join_next().is_some() {}
        if under_way.len() >= FIRING_MAX {
            return tracing::debug!(workflow, "a trigger is not heeded: too many of its runs are about to begin");
        }
        let (known, owner, workflow) = (Arc::downgrade(mcp), owner.clone(), workflow.to_owned());
        let (delay_ms, at) = (trigger.delay_ms, trigger.workflow);
        under_way.spawn(async move {
            if delay_ms > 0 {
                tokio::time::sleep(Duration::from_millis(delay_ms)).await;
            }
            let Some(mcp) = known.upgrade() else { return };
            let value = Arc::unwrap_or_clone(value);
            if let Err(why) = begin_stored(&mcp, &owner, &workflow, at, value, depth).await {
                tracing::debug!(workflow, %why, "a trigger could not begin its workflow");
            }
        });
    }
}

/// Why a user's triggers can't be heeded, if one can't.
pub(super) fn deaf_to(mcp: &Mcp, owner: &Identity, triggers: &[Trigger]) -> Option<String> {
    let topic_of = |trigger: &Trigger| match &trigger.on {
        On::Broadcast { topic, .. } if trigger.is_active => Some(topic.clone()),
        _ => None,
    };
    let topics = triggers.iter().filter_map(topic_of);
    let deaf = topics.into_iter().find(|topic| !mcp.auth.may_hear(owner, topic))?;
    Some(format!("triggers of this user may not hear what is broadcast on {deaf}"))
}

async fn begin_stored(
    mcp: &Arc<Mcp>,
    owner: &Identity,
    id: &str,
    at: usize,
    value: Value,
    depth: u32,
) -> Result<(), CallError> {
    let stored = definitions::find(&mcp.workflows.store, owner, id).await?;
    let stored = stored.ok_or_else(|| CallError::failed(format!("Workflow not found: {id}")))?;
    let server = mcp.server(&stored.server).ok_or("its server is there no longer")?;
    let (definition, _) = workflow::compile(&stored.expanded, &()).map_err(|_| "it can't be read any more")?;
    let going_on = GoingOn {
        options: Options::default().run_options(&definition),
        definition: stored.expanded,
        input: None,
        context: Value::Object(Map::new()),
        trigger: value,
        workflow: at,
        depth,
    };
    let new = NewRunOf {
        server,
        owner: owner.clone(),
        connection: connection_of(owner),
        request_id: no_request(),
        workflow: id.into(),
        definition: Arc::new(definition),
        going_on,
        told_options: Value::Null,
        call: None,
    };
    start(mcp, new).await.map(drop)
}

/// A trigger that a client registered.
#[derive(Clone, Debug, Serialize, Deserialize)]
struct Registered {
    trigger_id: String,
    user: String,
    #[serde(default)]
    rights: KeptRights,
    workflow: String,
    created_at: String,
    /// As it came.
    trigger: Value,
}

impl Registered {
    fn shown(&self) -> Value {
        let field = |name: &str| self.trigger.get(name).cloned();
        let mut shown = json!({
            "trigger_id": self.trigger_id, "workflow": self.workflow, "created_at": self.created_at,
            "event": field("event"), "active": field("active").unwrap_or(Value::Bool(true)),
            "delay": field("delay").unwrap_or(json!(0)),
        });
        for name in ["topic", "of", "every_ms", "condition"] {
            if let Some(value) = field(name) {
                shown[name] = value;
            }
        }
        shown
    }
}

/// Registers a trigger that begins a stored workflow.
pub(super) async fn register(mcp: &Arc<Mcp>, owner: &Identity, value: &Value) -> Result<Value, CallError> {
    let trigger = workflow::standing_trigger(value).map_err(|faults| {
        let texts: Vec<_> = faults.iter().map(ToString::to_string).collect();
        CallError::failed(texts.join("; "))
    })?;
    if let Some(why) = deaf_to(mcp, owner, std::slice::from_ref(&trigger)) {
        return Err(CallError::failed(why));
    }
    let workflow = value.get("workflow").and_then(Value::as_str).unwrap_or_default().to_owned();
    let registered = Registered {
        trigger_id: format!("trigger_{:016x}", u64::from_be_bytes(random::bytes())),
        user: owner.user.to_string(),
        rights: KeptRights::of(owner),
        workflow,
        created_at: clock::wall_iso8601_micros(),
        trigger: value.clone(),
    };
    let (prefix, stored) = (prefix(owner), registered.clone());
    mcp.workflows
        .store
        .change(move |change| {
            let count = change.range(TRIGGERS, &Keys::beginning_with(prefix.clone()), TRIGGERS_MAX)?.len();
            if count >= TRIGGERS_MAX {
                return Err(CallError::failed(format!("expected at most {TRIGGERS_MAX} triggers, came one more")));
            }
            let value = serde_json::to_vec(&stored).expect("a trigger has string keys");
            Ok(change.put(TRIGGERS, [&prefix[..], stored.trigger_id.as_bytes()].concat(), value)?)
        })
        .await?;
    arm_registered(mcp, owner, &registered, trigger);
    let shown = registered.shown();
    Ok(json!({
        "trigger_id": registered.trigger_id, "status": "registered", "event": shown["event"],
        "workflow": registered.workflow, "active": shown["active"],
    }))
}

fn arm_registered(mcp: &Arc<Mcp>, owner: &Identity, registered: &Registered, trigger: Trigger) {
    let known = Arc::downgrade(mcp);
    let (user, workflow) = (owner.clone(), registered.workflow.clone());
    let heeded = trigger.clone();
    let firing = Firing::default();
    let watching = Watching::begin(mcp, owner, std::slice::from_ref(&trigger), move |_, value, depth| {
        if let Some(mcp) = known.upgrade() {
            firing.begin(&mcp, &user, &workflow, &heeded, value, depth);
        }
    });
    mcp.workflows.armed.put(owner, ArmedBy::Trigger(registered.trigger_id.clone()), watching);
}

/// Broadcasts an event for triggers.
///
/// # Errors
/// Why not, for the client.
pub(super) fn emit(mcp: &Mcp, user: &Identity, event: &str, payload: &Value) -> Result<Value, String> {
    let topic = format!("{}{event}", trigger::EVENT_TOPIC_PREFIX);
    if topic.len() > TOPIC_BYTES_MAX {
        return Err(format!(
            "event: expected at most {TOPIC_BYTES_MAX} bytes, its topic included, came {}",
            topic.len()
        ));
    }
    if !mcp.auth.may_emit(user, &topic) {
        return Err(format!("events may not be broadcast on {topic} by this user"));
    }
    let text = payload.to_string();
    if !payload.is_object() || text.len() > PAYLOAD_BYTES_MAX {
        return Err(format!("payload: expected an object of at most {PAYLOAD_BYTES_MAX} bytes"));
    }
    let endpoint = mcp.workflows.endpoint.as_ref().ok_or("there is nothing to broadcast on")?;
    endpoint.broadcast(&topic, event, Payload::Json(text.into())).map_err(|overloaded| overloaded.to_string())?;
    Ok(json!({"event": event, "topic": topic, "status": "emitted"}))
}

/// The triggers that a user registered.
pub(super) async fn list(mcp: &Mcp, owner: &Identity) -> Result<Vec<Value>, StoreError> {
    let all = mcp.workflows.store.range(TRIGGERS, Keys::beginning_with(prefix(owner)), TRIGGERS_MAX).await?;
    Ok(all.iter().filter_map(|(_, value)| parse(value)).map(|registered| registered.shown()).collect())
}

/// Takes a trigger away. Whether it was there.
pub(super) async fn remove(mcp: &Mcp, owner: &Identity, id: &str) -> Result<bool, StoreError> {
    let key = [&prefix(owner), id.as_bytes()].concat();
    if key.len() > crate::store::KEY_BYTES_MAX {
        return Ok(false);
    }
    let was_there = mcp
        .workflows
        .store
        .change(move |change| {
            let was_there = change.get(TRIGGERS, &key)?.is_some();
            change.delete(TRIGGERS, key);
            Ok::<_, StoreError>(was_there)
        })
        .await?;
    mcp.workflows.armed.disarm(owner, ArmedBy::Trigger(id.to_owned()));
    Ok(was_there)
}

/// Arms everything that is stored.
pub(super) async fn arm_all(mcp: &Arc<Mcp>) -> Result<(), StoreError> {
    let store = &mcp.workflows.store;
    for (_, value) in store.range(TRIGGERS, Keys::beginning_with([]), usize::MAX).await? {
        if let Some(registered) = parse(&value)
            && let Ok(trigger) = workflow::standing_trigger(&registered.trigger)
        {
            let owner = registered.rights.identity(&registered.user);
            arm_registered(mcp, &owner, &registered, trigger);
        }
    }
    for (user, stored) in definitions::reactive(store).await? {
        let Stored { workflow_id, expanded, .. } = stored;
        if let Ok((definition, _)) = workflow::compile(&expanded, &()) {
            arm_workflow(mcp, &user, &workflow_id, &definition);
        }
    }
    Ok(())
}

fn parse(value: &[u8]) -> Option<Registered> {
    let read = serde_json::from_slice(value);
    read.inspect_err(|error| tracing::error!(%error, "a trigger is stored in a form that this version does not read"))
        .ok()
}
