//! The topics that only watch: a session's events beside it, one run, all runs. And the answer to every other topic.

use std::sync::Arc;

use bytes::Bytes;
use serde::Serialize;
use serde_json::value::RawValue;

use super::Mcp;
use super::channel::{json, shared};
use super::credential::{Member, authenticate};
use super::runs::{Following, Listening, Watch};
use super::session::Observation;
use crate::channel::{Channel, Cx, JoinCx, Next, Payload, Refusal};
use crate::protocol::jsonrpc::{self, Object};
use crate::protocol::mcp::event::RunSummary;
use crate::protocol::mcp::{
    RUN_FINISHED, RUN_NOT_FOUND, RUN_STARTED, RUN_TOPIC_PREFIX, SESSION_NOT_FOUND, STREAMING_EVENT, UNKNOWN_EVENT,
    UNKNOWN_TOPIC,
};

/// `mcp:session:streaming`: the streaming events of one session on the same socket, from the join on.
pub(super) struct Observer {
    /// Ends with the channel.
    _observation: Observation,
}

impl Channel for Observer {
    type Info = Arc<Watch>;

    async fn join(_topic: &str, params: Payload, cx: &mut JoinCx<Self>) -> Result<(Self, Payload), Refusal> {
        let params = Object::parse(json(&params)).unwrap_or_default();
        if !params.has("session_id") {
            return Err(Refusal::reason(UNKNOWN_TOPIC));
        }
        let id = params.string("session_id").unwrap_or_default();
        let session = shared(cx).sessions.find(&id).filter(|session| session.connection() == cx.connection_id());
        let session = session.ok_or_else(|| Refusal::reason(SESSION_NOT_FOUND))?;
        let handle = cx.handle();
        let _observation = session.observe(move |watch| handle.send(Arc::clone(watch)).is_ok());
        Ok((Observer { _observation }, Payload::EMPTY))
    }

    async fn handle_in(&mut self, _event: &str, _payload: Payload, _cx: &mut Cx<Self>) -> Next {
        Next::error(Payload::reason(UNKNOWN_EVENT))
    }

    async fn handle_info(&mut self, watch: Arc<Watch>, cx: &mut Cx<Self>) -> Next {
        for entry in watch.take_new() {
            cx.push(STREAMING_EVENT, Payload::Json(entry.event));
        }
        Next::NoReply
    }
}

/// `mcp:run:<id>`: a run's events so far in the join reply, and each later one once.
///
/// The log is the source of both. A broadcast on the topic only says that there is more to read: one that comes while
/// the subscription is being made is not seen, so the channel reads once more after its join.
pub(super) struct RunChannel {
    /// None once the last event has been pushed.
    run: Option<Listening>,
    cursor: u64,
    mcp: Arc<Mcp>,
    watcher: Member,
}

/// What a watching channel is told by the server's own code.
pub(super) enum Info {
    /// The join has been answered and the subscription stands.
    Joined,
    /// The time of its credential is over.
    CredentialExpired,
}

impl Channel for RunChannel {
    type Info = Info;

    const INTERCEPT: &'static [&'static str] = &[STREAMING_EVENT];

    async fn join(topic: &str, params: Payload, cx: &mut JoinCx<Self>) -> Result<(Self, Payload), Refusal> {
        #[derive(Serialize)]
        struct Reply {
            run: RunSummary,
            events: Vec<Box<RawValue>>,
        }

        let mcp = shared(cx);
        let watcher = authenticate(&mcp, topic, &params, cx).await?;
        let run = topic.strip_prefix(RUN_TOPIC_PREFIX).and_then(|id| mcp.runs.find(id));
        // Who may not see a run does not learn that it is there.
        let Some(run) = run.filter(|run| mcp.auth.may_watch(&watcher, run.owner())) else {
            return Err(Refusal::reason(RUN_NOT_FOUND));
        };
        // Before reading: what comes afterwards is broadcast.
        let run = run.listen();
        let (summary, entries) = run.run().snapshot();
        let has_ended = entries.last().is_some_and(|last| last.kind.is_terminal());
        let cursor = entries.last().map_or(0, |last| last.seq);
        let events = entries.iter().map(|entry| raw_text(&entry.event)).collect();
        let reply = Payload::json(&Reply { run: summary, events })?;
        // An inbox that is full ends the connection, and this channel with it.
        cx.send(Info::Joined);
        let watcher = Member::stay(&mcp, watcher, || Info::CredentialExpired, cx);
        Ok((RunChannel { run: (!has_ended).then_some(run), cursor, mcp, watcher }, reply))
    }

    async fn handle_in(&mut self, event: &str, payload: Payload, cx: &mut Cx<Self>) -> Next {
        self.watcher.handle_in(&self.mcp, event, &payload, cx).await
    }

    async fn handle_info(&mut self, info: Info, cx: &mut Cx<Self>) -> Next {
        match info {
            Info::Joined => self.push_new(cx),
            Info::CredentialExpired => return self.watcher.expire(),
        }
        Next::NoReply
    }

    async fn handle_out(&mut self, _event: &str, _payload: &Payload, cx: &mut Cx<Self>) -> Next {
        self.push_new(cx);
        Next::NoReply
    }
}

impl RunChannel {
    fn push_new(&mut self, cx: &mut Cx<Self>) {
        let Some(run) = &self.run else { return };
        let mut has_ended = false;
        for entry in run.run().read_after(self.cursor) {
            self.cursor = entry.seq;
            has_ended |= entry.kind.is_terminal();
            cx.push(STREAMING_EVENT, Payload::Json(entry.event));
        }
        if has_ended {
            self.run = None;
        }
    }
}

/// `mcp:runs`: the runs that the client may see, then each beginning and end once.
pub(super) struct RunsChannel {
    mcp: Arc<Mcp>,
    watcher: Member,
    cursor: u64,
    /// Ends with the channel.
    _following: Following,
}

impl Channel for RunsChannel {
    type Info = Info;

    const INTERCEPT: &'static [&'static str] = &[RUN_STARTED, RUN_FINISHED];

    async fn join(topic: &str, params: Payload, cx: &mut JoinCx<Self>) -> Result<(Self, Payload), Refusal> {
        #[derive(Serialize)]
        struct Reply {
            runs: Vec<RunSummary>,
        }

        let mcp = shared(cx);
        let watcher = authenticate(&mcp, topic, &params, cx).await?;
        let _following = mcp.runs.follow();
        let (runs, cursor) = mcp.runs.list(|owner| mcp.auth.may_watch(&watcher, owner));
        let reply = Payload::json(&Reply { runs })?;
        // An inbox that is full ends the connection, and this channel with it.
        cx.send(Info::Joined);
        let watcher = Member::stay(&mcp, watcher, || Info::CredentialExpired, cx);
        Ok((RunsChannel { mcp, watcher, cursor, _following }, reply))
    }

    async fn handle_in(&mut self, event: &str, payload: Payload, cx: &mut Cx<Self>) -> Next {
        self.watcher.handle_in(&self.mcp, event, &payload, cx).await
    }

    async fn handle_info(&mut self, info: Info, cx: &mut Cx<Self>) -> Next {
        match info {
            Info::Joined => self.push_new(cx),
            Info::CredentialExpired => return self.watcher.expire(),
        }
        Next::NoReply
    }

    async fn handle_out(&mut self, _event: &str, _payload: &Payload, cx: &mut Cx<Self>) -> Next {
        self.push_new(cx);
        Next::NoReply
    }
}

impl RunsChannel {
    fn push_new(&mut self, cx: &mut Cx<Self>) {
        for announcement in self.mcp.runs.announcements_after(self.cursor) {
            self.cursor = announcement.number;
            if self.mcp.auth.may_watch(&self.watcher.user, &announcement.owner) {
                let summary = jsonrpc::raw(&announcement.summary);
                cx.push(announcement.event, Payload::Json(Bytes::from(summary.get().to_owned())));
            }
        }
    }
}

/// Any other `mcp:` topic.
pub(super) enum Unknown {}

impl Channel for Unknown {
    type Info = ();

    async fn join(_topic: &str, _params: Payload, _cx: &mut JoinCx<Self>) -> Result<(Self, Payload), Refusal> {
        Err(Refusal::reason(UNKNOWN_TOPIC))
    }

    async fn handle_in(&mut self, _event: &str, _payload: Payload, _cx: &mut Cx<Self>) -> Next {
        match *self {}
    }
}

/// An event of a run's log as the JSON that it is.
fn raw_text(event: &Bytes) -> Box<RawValue> {
    serde_json::from_slice(event).expect("a log's events are JSON, encoded here")
}
