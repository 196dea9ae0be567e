//! `status:system` and `status:system:tool`: runs as the dashboards of the Elixir deployment see them.
//!
//! The other `status:` topics of that deployment belong to its conversations, which Bennu does not have; they are unmatched.
//! Nobody is tracked on these topics: dashboards don't learn of each other.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use serde::Deserialize;
use serde_json::Number;
use tokio::task::AbortHandle;

use super::Mcp;
use super::channel::{json, shared};
use super::credential::{Member, authenticate};
use super::runs::{Announcement, Following, Run};
use crate::channel::{Channel, Cx, JoinCx, Next, Payload, Refusal};
use crate::clock;
use crate::protocol::jsonrpc;
use crate::protocol::mcp::event::{EventKind, RunStatus};
use crate::protocol::mcp::status::{
    self, Category, Change, GET_AVAILABLE_CATEGORIES, GET_SUBSCRIPTIONS, Metadata, STATUS_PROGRESS_INTERVAL_MS,
    STATUS_RUNS_MAX, STATUS_UPDATE, SUBSCRIBE_CATEGORIES, Subscriptions, UNSUBSCRIBE_CATEGORIES, Update,
};
use crate::protocol::mcp::{RUN_STARTED, RUNS_TOPIC};

/// One dashboard.
///
/// Begin and end come from the announcements of runs, as on `mcp:runs`. Progress is looked at once each
/// [`STATUS_PROGRESS_INTERVAL_MS`], so that however much a run tells, this channel tells its newest word. Where nothing is
/// subscribed that runs bring, neither costs anything.
pub(super) struct StatusChannel {
    mcp: Arc<Mcp>,
    watcher: Member,
    subscriptions: Subscriptions,
    /// None while nothing of runs is wanted.
    following: Option<Following>,
    /// The last announcement that was read.
    cursor: u64,
    /// Runs under way, with the last event that was told of each.
    under_way: Vec<(Arc<Run>, u64)>,
    timer: Option<AbortHandle>,
}

/// What a dashboard's channel is told by the server's own code.
pub(super) enum Info {
    /// There may be announcements to read.
    Announced,
    /// Time to look at the progress of runs.
    ProgressDue,
    /// The time of its credential is over.
    CredentialExpired,
}

impl Channel for StatusChannel {
    type Info = Info;

    async fn join(topic: &str, params: Payload, cx: &mut JoinCx<Self>) -> Result<(Self, Payload), Refusal> {
        let mcp = shared(cx);
        let watcher = authenticate(&mcp, topic, &params, cx).await?;
        let subscriptions = Subscriptions::on(topic);
        let reply = Payload::json(&subscriptions.joined())?;
        let watcher = Member::stay(&mcp, watcher, || Info::CredentialExpired, cx);
        let mut channel = StatusChannel {
            mcp,
            watcher,
            subscriptions,
            following: None,
            cursor: 0,
            under_way: Vec::new(),
            timer: None,
        };
        if channel.begin_or_end() == Some(true) {
            cx.subscribe(RUNS_TOPIC, |_| Info::Announced).expect("the channel's first subscription");
            // A broadcast that comes while the subscription is being made is not heard.
            cx.send(Info::Announced);
        }
        Ok((channel, reply))
    }

    async fn handle_in(&mut self, event: &str, payload: Payload, cx: &mut Cx<Self>) -> Next {
        let change = match event {
            SUBSCRIBE_CATEGORIES => Change::Subscribe,
            UNSUBSCRIBE_CATEGORIES => Change::Unsubscribe,
            GET_SUBSCRIPTIONS => return Next::ok(self.subscriptions.listed()),
            GET_AVAILABLE_CATEGORIES => return Next::ok(status::available()),
            _ => return self.watcher.handle_in(&self.mcp, event, &payload, cx).await,
        };
        // What is announced already is told by what was subscribed until here.
        self.push_new(cx);
        if let Err(refused) = self.subscriptions.change(change, json(&payload), clock::now()) {
            return Next::error(refused.response());
        }
        match self.begin_or_end() {
            Some(true) => {
                cx.subscribe(RUNS_TOPIC, |_| Info::Announced).expect("the channel's only subscription");
                cx.send(Info::Announced);
            }
            Some(false) => cx.unsubscribe(RUNS_TOPIC),
            None => {}
        }
        self.expect_progress(cx);
        Next::ok(self.subscriptions.changed())
    }

    async fn handle_info(&mut self, info: Info, cx: &mut Cx<Self>) -> Next {
        self.push_new(cx);
        if let Info::CredentialExpired = info {
            return self.watcher.expire();
        }
        if let Info::ProgressDue = info {
            self.timer = None;
            self.push_progress(cx);
        }
        self.expect_progress(cx);
        Next::NoReply
    }
}

impl StatusChannel {
    /// Begins to follow the runs, or ends it, as the subscriptions want; says which, if anything changed.
    fn begin_or_end(&mut self) -> Option<bool> {
        match (self.subscriptions.wants_runs(), self.following.is_some()) {
            (true, false) => {
                // Before listing: what begins afterwards is announced.
                self.following = Some(self.mcp.runs.follow());
                let (runs, announced) = self.mcp.runs.list(|owner| self.mcp.auth.may_watch(&self.watcher.user, owner));
                self.cursor = announced;
                let running = runs.iter().filter(|run| run.status == RunStatus::Running);
                let running: Vec<_> = running.filter_map(|run| self.mcp.runs.find(&run.run_id)).collect();
                running.into_iter().for_each(|run| self.look_after(run));
                Some(true)
            }
            (false, true) => {
                self.following = None;
                self.under_way = Vec::new();
                Some(false)
            }
            _ => None,
        }
    }

    fn look_after(&mut self, run: Arc<Run>) {
        if self.under_way.len() < STATUS_RUNS_MAX {
            self.under_way.push((run, 0));
        }
    }

    /// Tells what was announced since the last time.
    fn push_new(&mut self, cx: &mut Cx<Self>) {
        if self.following.is_none() {
            return;
        }
        for announcement in self.mcp.runs.announcements_after(self.cursor) {
            self.cursor = announcement.number;
            if self.mcp.auth.may_watch(&self.watcher.user, &announcement.owner) {
                self.tell(&announcement, cx);
            }
        }
    }

    fn tell(&mut self, announcement: &Announcement, cx: &mut Cx<Self>) {
        let summary = &announcement.summary;
        let (tool, run_id) = (summary.tool.as_str(), summary.run_id.as_str());
        let run = self.mcp.runs.find(run_id);
        let metadata = Metadata { run_id, tool, status: summary.status, progress: None, total: None };
        let category = if summary.workflow_id.is_some() { Category::Workflow } else { Category::Tool };
        if announcement.event == RUN_STARTED {
            run.into_iter().for_each(|run| self.look_after(run));
            return self.push(category, &format!("{tool} started"), metadata, cx);
        }
        self.under_way.retain(|(run, _)| run.id() != run_id);
        match summary.status {
            RunStatus::Failed => {
                let error = run.and_then(|run| error_of(&run));
                let text = format!("{tool} failed{}", error.map_or(String::new(), |error| format!(": {error}")));
                self.push(category, &text, metadata.clone(), cx);
                self.push(Category::Error, &text, metadata, cx);
            }
            _ => self.push(category, &format!("{tool} completed"), metadata, cx),
        }
    }

    /// Tells the newest progress of each run that got on since the last time.
    fn push_progress(&mut self, cx: &mut Cx<Self>) {
        let mut under_way = std::mem::take(&mut self.under_way);
        for (run, told) in &mut under_way {
            let Some((seq, data)) = progress_after(run, *told) else { continue };
            *told = seq;
            let text = status::progress_text(&data.tool, &data.progress, data.total.as_ref(), data.message.as_deref());
            let (progress, total) = (Some(&data.progress), data.total.as_ref());
            let metadata = Metadata { run_id: run.id(), tool: &data.tool, status: RunStatus::Running, progress, total };
            self.push(Category::Progress, &text, metadata, cx);
        }
        self.under_way = under_way;
    }

    fn push(&self, category: Category, text: &str, metadata: Metadata<'_>, cx: &mut Cx<Self>) {
        if !self.subscriptions.has(category) {
            return;
        }
        let timestamp = clock::wall_iso8601_micros();
        let update = jsonrpc::raw(&Update { category, text, metadata, timestamp: &timestamp });
        cx.push(STATUS_UPDATE, Payload::Json(Bytes::from(String::from(Box::<str>::from(update)))));
    }

    /// Has the timer run while there is progress to look for.
    fn expect_progress(&mut self, cx: &mut Cx<Self>) {
        let is_wanted = self.subscriptions.has(Category::Progress) && !self.under_way.is_empty();
        match (is_wanted, &self.timer) {
            (true, None) => {
                let interval = Duration::from_millis(STATUS_PROGRESS_INTERVAL_MS);
                self.timer = Some(cx.send_after(interval, Info::ProgressDue));
            }
            (false, Some(timer)) => {
                timer.abort();
                self.timer = None;
            }
            _ => {}
        }
    }
}

/// `data` of a `tool_progress`.
#[derive(Deserialize)]
struct Progress {
    tool: String,
    progress: Number,
    total: Option<Number>,
    message: Option<String>,
}

/// The newest progress of a run, if it came after the event `seq`.
fn progress_after(run: &Run, seq: u64) -> Option<(u64, Progress)> {
    #[derive(Deserialize)]
    struct Event {
        data: Progress,
    }

    if run.last_seq() <= seq {
        return None;
    }
    let events = run.events_after(seq);
    let newest = events.iter().rfind(|entry| entry.kind == EventKind::Progress)?;
    let event: Event = serde_json::from_slice(&newest.event).expect("a log's events are JSON, encoded in the run");
    Some((newest.seq, event.data))
}

/// What a failed run's last event says.
fn error_of(run: &Run) -> Option<String> {
    #[derive(Deserialize)]
    struct Event {
        data: Data,
    }

    #[derive(Deserialize)]
    struct Data {
        error: Option<String>,
    }

    let events = run.events_after(run.last_seq().saturating_sub(1));
    let event: Event = serde_json::from_slice(&events.last()?.event).ok()?;
    event.data.error
}
