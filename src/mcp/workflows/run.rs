//! One run: drives its machine, calls tools for it, waits for it, writes its events down, tells its watchers.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::sync::Arc;

use futures::StreamExt;
use futures::future::BoxFuture;
use futures::stream::FuturesUnordered;
use serde_json::Value;
use serde_json::value::RawValue;
use tokio::sync::mpsc;
use tokio::time::Instant;

use super::caller::{Caller, Heard};
use super::journal::Journal;
use super::live::{LiveRun, Order};
use super::triggers::Watching;
use super::{Finished, events, records};
use crate::clock;
use crate::mcp::input::InputRequest;
use crate::mcp::runs::Run;
use crate::mcp::server::ServerShared;
use crate::mcp::{Mcp, elixir};
use crate::protocol::Time;
use crate::protocol::mcp::client::ClientCapabilities;
use crate::protocol::mcp::event::{EventKind, Told as RunTold};
use crate::protocol::mcp::progress::Progress;
use crate::protocol::workflow::DEPTH_MAX;
use crate::protocol::workflow::definition::Kind;
use crate::protocol::workflow::measure::{is_deeper, json_bytes};
use crate::protocol::workflow::stepper::{Arguments, Call, Place, Told};
use crate::protocol::workflow::{Action, CallId, Definition, Event, Failure, FailureKind, Stepper, TimerId, WatchId};

/// Calls of one run that are under way at once; further ones wait.
const CALLS_MAX: usize = 16;
/// Milliseconds that a run waits before it makes a call again that the server had no place for.
const BUSY_MS: u64 = 50;
/// Bytes of a run's result, which has to fit an answer and a record.
const RESULT_BYTES_MAX: usize = 786_432;
/// Bytes of one step's result, which has to fit an event that is written down.
const STEP_BYTES_MAX: usize = 786_432;
/// Events of triggers that wait for one run.
const FIRED_MAX: usize = 64;
/// Things done in a row before others have their turn.
const STEPS_PER_YIELD: usize = 256;

/// What a run is driven with.
pub(super) struct Driver {
    mcp: Arc<Mcp>,
    live: Arc<LiveRun>,
    run: Arc<Run>,
    definition: Arc<Definition>,
    stepper: Stepper,
    caller: Caller,
    journal: Journal,
    /// Calls that wait for their turn, for their server, or for the journal to have them.
    ready: VecDeque<Call>,
    unwritten: VecDeque<(u64, Call, Arguments)>,
    /// Calls that run once and were begun.
    begun_once: BTreeSet<CallId>,
    busy_until: Option<Instant>,
    under_way: BTreeMap<CallId, Call>,
    timers: BTreeMap<TimerId, Instant>,
    choosing: FuturesUnordered<BoxFuture<'static, (CallId, Result<String, String>)>>,
    choices: BTreeSet<CallId>,
    asking: FuturesUnordered<BoxFuture<'static, Answered>>,
    asked: u64,
    watches: BTreeMap<WatchId, Watching>,
    fired: (mpsc::Sender<Fired>, mpsc::Receiver<Fired>),
    /// When each step under way began, by its path.
    begun: BTreeMap<String, Time>,
    started: Time,
    deadline: Instant,
    /// The same, as the server's own time.
    ends: Time,
    calls_total: Option<u64>,
    calls_done: u64,
    heard: VecDeque<Heard>,
    /// Whether the machine has more to do at once.
    is_paused: bool,
    outcome: Option<Result<Arc<Value>, Failure>>,
}

/// A question of a tool's, by its id, and the client's answer.
type Answered = (Box<RawValue>, Result<Box<RawValue>, String>);

/// A trigger's event for a step that waits for it.
pub(super) struct Fired {
    pub(super) watch: WatchId,
    pub(super) trigger: usize,
    pub(super) value: Value,
}

/// What a driver is made of.
pub(super) struct Parts {
    pub(super) mcp: Arc<Mcp>,
    pub(super) live: Arc<LiveRun>,
    pub(super) run: Arc<Run>,
    pub(super) server: Arc<ServerShared>,
    pub(super) connection: u64,
    pub(super) definition: Arc<Definition>,
    pub(super) stepper: Stepper,
    /// Milliseconds that are left of the run's time.
    pub(super) left_ms: u64,
    /// What the caller's client can be asked while the run goes on.
    pub(super) capabilities: ClientCapabilities,
    /// What was written down of the run before a restart.
    pub(super) earlier: Vec<Event>,
}

impl Driver {
    pub(super) fn new(parts: Parts) -> (Self, Vec<Event>) {
        let Parts { mcp, live, run, server, connection, definition, stepper, left_ms, capabilities, earlier } = parts;
        let caller = Caller::open(&mcp, &server, &live.owner, connection, capabilities);
        let journal = Journal::new(mcp.workflows.store.clone(), live.number, earlier.len() as u64);
        let driver = Driver {
            journal,
            caller,
            calls_total: definition.calls(),
            definition,
            stepper,
            ready: VecDeque::new(),
            unwritten: VecDeque::new(),
            begun_once: BTreeSet::new(),
            busy_until: None,
            under_way: BTreeMap::new(),
            timers: BTreeMap::new(),
            choosing: FuturesUnordered::new(),
            choices: BTreeSet::new(),
            asking: FuturesUnordered::new(),
            asked: 0,
            watches: BTreeMap::new(),
            fired: mpsc::channel(FIRED_MAX),
            begun: BTreeMap::new(),
            started: clock::now(),
            deadline: clock::in_ms(left_ms),
            ends: clock::now() + left_ms,
            calls_done: 0,
            heard: VecDeque::new(),
            is_paused: false,
            outcome: None,
            run,
            live,
            mcp,
        };
        (driver, earlier)
    }

    /// Drives the run to its end; gives how it ended, or nothing if the server stops before.
    pub(super) async fn drive(mut self, earlier: Vec<Event>) -> Option<Finished> {
        // A server that does not answer holds up neither an order nor the end of the run's time.
        tokio::select! {
            biased;
            _ = self.live.ordered() => {}
            () = tokio::time::sleep_until(self.deadline) => {}
            () = self.caller.learn() => {}
        }
        self.replay(earlier);
        let mut in_a_row = 0;
        while self.outcome.is_none() {
            if self.is_paused {
                self.go_on().await;
                continue;
            }
            // However much there is to do, the run's end comes first.
            match self.live.order_now() {
                Some(Order::Stop(failure)) => {
                    self.feed(Event::Stopped { failure });
                    continue;
                }
                Some(Order::Suspend) => {
                    let _ = self.journal.flush().await;
                    return None;
                }
                None if clock::now() >= self.ends => {
                    self.feed(Event::Stopped { failure: timed_out() });
                    continue;
                }
                None => {}
            }
            if self.journal.is_full() {
                if let Err(error) = self.journal.written().await {
                    self.lost(&error);
                }
                self.release();
                continue;
            }
            self.make_calls();
            if self.is_paused || self.outcome.is_some() {
                continue;
            }
            // Calls that never wait have ended already.
            self.heard.extend(self.caller.hear());
            let has_heard = !self.heard.is_empty();
            while !self.is_paused
                && self.outcome.is_none()
                && let Some(heard) = self.heard.pop_front()
            {
                self.take(heard);
            }
            if has_heard {
                in_a_row += 1;
                if in_a_row < STEPS_PER_YIELD {
                    continue;
                }
            }
            in_a_row = 0;
            if self.outcome.is_some() {
                break;
            }
            if self.is_paused || self.journal.is_full() {
                continue;
            }
            let next_timer = self.timers.iter().min_by_key(|(_, due)| **due).map(|(timer, due)| (*timer, *due));
            if has_heard {
                // There may be more to do at once, after others had their turn.
                tokio::task::yield_now().await;
            }
            let (deadline, busy_until) = (self.deadline, self.busy_until);
            // What is not taken of any arm is there again when it is asked the next time.
            tokio::select! {
                biased;
                // What these mean is looked at above.
                _ = self.live.ordered() => {}
                () = tokio::time::sleep_until(deadline) => {}
                written = self.journal.written() => match written {
                    Ok(()) => self.release(),
                    Err(error) => self.lost(&error),
                },
                () = sleep_until(next_timer.map(|(_, due)| due)) => {
                    if let Some((timer, _)) = next_timer {
                        self.timers.remove(&timer);
                        self.feed(Event::Elapsed { timer });
                    }
                }
                () = sleep_until(busy_until) => self.busy_until = None,
                Some((call, chosen)) = self.choosing.next() => self.chosen(call, chosen),
                Some((id, answer)) = self.asking.next() => self.caller.answer(&id, answer),
                Some(Fired { watch, trigger, value }) = self.fired.1.recv() => {
                    if self.stepper.fires(watch, trigger, &value) {
                        self.feed(Event::Fired { watch, trigger, value });
                    }
                }
                // Last, for where tools never wait there is always news.
                () = self.caller.news() => {}
                () = std::future::ready(()), if has_heard => {}
            }
        }
        Some(self.finish().await)
    }

    /// Brings the machine to where it was, and goes on with what was under way: what may have run and must not run twice has
    /// failed, everything else is done again.
    fn replay(&mut self, earlier: Vec<Event>) {
        let mut begun = BTreeSet::new();
        // Nothing is done of what was done before; what is still to be done is gathered.
        let (mut calls, mut watches) = (BTreeMap::new(), BTreeMap::new());
        let mut choices = BTreeMap::new();
        let mut timers = BTreeMap::new();
        let mut events = earlier.into_iter();
        loop {
            while let Some(action) = self.stepper.next_action() {
                match action {
                    Action::Call(call) => drop(calls.insert(call.call, call)),
                    Action::Choose { call, prompt, tools } => drop(choices.insert(call, (prompt, tools))),
                    Action::Abandon { call } => {
                        calls.remove(&call);
                        choices.remove(&call);
                    }
                    Action::Arm { timer, ms } => drop(timers.insert(timer, ms)),
                    Action::Disarm { timer } => drop(timers.remove(&timer)),
                    Action::Watch { watch, step } => drop(watches.insert(watch, step)),
                    Action::Unwatch { watch } => drop(watches.remove(&watch)),
                    Action::Tell(told) => self.tell(&told),
                    Action::Pause => {}
                    Action::End(outcome) => self.outcome = Some(outcome),
                }
            }
            let Some(event) = events.next() else { break };
            match &event {
                Event::Begun { call } => drop(begun.insert(*call)),
                Event::Returned { call, .. } | Event::Failed { call, .. } | Event::Chosen { call, .. } => {
                    calls.remove(call);
                    choices.remove(call);
                }
                Event::Elapsed { timer } => drop(timers.remove(timer)),
                Event::Fired { .. } | Event::Stopped { .. } => {}
            }
            self.stepper.handle(event);
        }
        if self.outcome.is_some() {
            return;
        }
        for (timer, ms) in timers {
            self.timers.insert(timer, clock::in_ms(ms));
        }
        for (watch, step) in watches {
            self.watch(watch, step);
        }
        for (call, (prompt, tools)) in choices {
            self.choose(call, &prompt, &tools);
        }
        let (may_have_run, others): (Vec<_>, Vec<_>) =
            calls.into_values().partition(|call| call.once && begun.contains(&call.call));
        for call in others {
            self.accept(call);
        }
        for call in may_have_run {
            self.feed(Event::Failed { call: call.call, failure: Failure::may_have_run() });
            while std::mem::take(&mut self.is_paused) {
                self.obey();
            }
        }
    }

    /// Goes on with what the machine has still to do, after others had their turn and unless the run is to end. Nothing else
    /// may happen before it has done all, or a replay would come to something else.
    async fn go_on(&mut self) {
        self.is_paused = false;
        let deadline = self.deadline;
        tokio::select! {
            biased;
            order = self.live.ordered() => match order {
                Order::Stop(failure) => self.feed(Event::Stopped { failure }),
                // Seen again in the loop, when the machine has done all.
                Order::Suspend => {
                    tokio::task::yield_now().await;
                    self.obey();
                }
            },
            () = tokio::time::sleep_until(deadline) => self.feed(Event::Stopped { failure: timed_out() }),
            () = tokio::task::yield_now() => self.obey(),
        }
    }

    /// Milliseconds that the run has been going on.
    fn worked_ms_of_run(&self) -> u64 {
        self.live.earlier_ms + clock::now().since(self.started)
    }

    /// Writes an event down, takes it in, and does what comes of it.
    fn feed(&mut self, event: Event) {
        if self.outcome.is_some() {
            return;
        }
        let worked_ms = self.worked_ms_of_run();
        self.journal.take(&event, worked_ms);
        self.stepper.handle(event);
        self.obey();
    }

    fn obey(&mut self) {
        while let Some(action) = self.stepper.next_action() {
            match action {
                Action::Call(call) => self.accept(call),
                Action::Choose { call, prompt, tools } => self.choose(call, &prompt, &tools),
                Action::Abandon { call } => self.abandon(call),
                Action::Arm { timer, ms } => drop(self.timers.insert(timer, clock::in_ms(ms))),
                Action::Disarm { timer } => drop(self.timers.remove(&timer)),
                Action::Watch { watch, step } => self.watch(watch, step),
                Action::Unwatch { watch } => drop(self.watches.remove(&watch)),
                Action::Tell(told) => self.tell(&told),
                Action::Pause => {
                    self.is_paused = true;
                    return;
                }
                Action::End(outcome) => self.outcome = Some(outcome),
            }
        }
    }

    fn accept(&mut self, call: Call) {
        self.ready.push_back(call);
    }

    /// Makes those calls whose beginning is written down by now.
    fn release(&mut self) {
        while self.unwritten.front().is_some_and(|(number, ..)| self.journal.has(*number))
            && let Some((_, call, arguments)) = self.unwritten.pop_front()
        {
            self.make(call, arguments);
        }
    }

    /// Makes as many calls as may be under way.
    fn make_calls(&mut self) {
        let max = self.mcp.settings.calls_per_session_max.clamp(1, CALLS_MAX);
        while self.busy_until.is_none()
            && !self.is_paused
            && self.outcome.is_none()
            && self.under_way.len() + self.unwritten.len() < max
            && let Some(call) = self.ready.pop_front()
        {
            let arguments = match self.stepper.arguments(call.call) {
                None => continue,
                Some(Err(failure)) => {
                    self.feed(Event::Failed { call: call.call, failure });
                    continue;
                }
                Some(Ok(arguments)) => arguments,
            };
            if call.once && !self.begun_once.contains(&call.call) {
                // From here on it may have run.
                let event = Event::Begun { call: call.call };
                let number = self.journal.take(&event, self.worked_ms_of_run());
                self.begun_once.insert(call.call);
                self.stepper.handle(event);
                if !self.journal.has(number) {
                    self.unwritten.push_back((number, call, arguments));
                    continue;
                }
            }
            self.make(call, arguments);
        }
    }

    fn make(&mut self, call: Call, arguments: Arguments) {
        self.caller.call(call.call, &call.tool, arguments);
        self.under_way.insert(call.call, call);
    }

    fn abandon(&mut self, id: CallId) {
        self.choices.remove(&id);
        self.ready.retain(|call| call.call != id);
        self.unwritten.retain(|(_, call, _)| call.call != id);
        self.begun_once.remove(&id);
        if self.under_way.remove(&id).is_some() {
            self.caller.cancel(id, "the workflow goes on without it");
        }
    }

    fn take(&mut self, heard: Heard) {
        match heard {
            Heard::Returned(id, result, bytes) => {
                if self.under_way.remove(&id).is_none() {
                    return;
                }
                // Numbers may be longer than they came when they are written down.
                let bytes = bytes.max(json_bytes(&result));
                self.calls_done += 1;
                self.report(&id);
                if is_deeper(&result, DEPTH_MAX) {
                    let text = format!(
                        "the result of a step is at most {DEPTH_MAX} lists and objects within each other, came more"
                    );
                    self.feed(Event::Failed { call: id, failure: Failure::new(FailureKind::Limit, text) });
                } else if bytes > STEP_BYTES_MAX {
                    let text = format!("the result of a step is at most {STEP_BYTES_MAX} bytes, came {bytes}");
                    self.feed(Event::Failed { call: id, failure: Failure::new(FailureKind::Limit, text) });
                } else {
                    self.feed(Event::Returned { call: id, result, bytes });
                }
            }
            Heard::Failed(id, failure) => {
                if self.under_way.remove(&id).is_some() {
                    self.feed(Event::Failed { call: id, failure });
                }
            }
            Heard::Busy(id) => {
                if let Some(call) = self.under_way.remove(&id) {
                    self.busy_until = Some(clock::in_ms(BUSY_MS));
                    self.ready.push_front(call);
                }
            }
            Heard::Progress(id, progress) => {
                if let Some(call) = self.under_way.get(&id) {
                    let event = events::progress(&self.live.workflow, &call.place, &progress);
                    self.show(event);
                }
            }
            Heard::Asked(id, method, params) => self.pass_question(id, &method, &params),
        }
    }

    /// Passes on what a tool asks the client, where one is there that can be asked.
    fn pass_question(&mut self, id: Box<RawValue>, method: &str, params: &RawValue) {
        let call = self.live.attached();
        let request = InputRequest::of(method, params);
        let (Some(call), Some(request)) = (call, request) else {
            return self.caller.answer(&id, Err("no client is there that could be asked".to_owned()));
        };
        self.asked += 1;
        let key = format!("step_{}", self.asked);
        self.asking.push(Box::pin(async move {
            let answer = call.ask(&key, &request).await.map_err(|error| error.to_string());
            (id, answer)
        }));
    }

    fn choose(&mut self, call: CallId, prompt: &Value, tools: &[Value]) {
        self.choices.insert(call);
        let asked = self.live.attached().filter(|_| self.live.options.uses_model);
        let choice = elixir::choose(asked, prompt, tools);
        self.choosing.push(Box::pin(async move { (call, choice.await) }));
    }

    fn chosen(&mut self, call: CallId, chosen: Result<String, String>) {
        if !self.choices.remove(&call) {
            return;
        }
        self.feed(match chosen {
            Ok(tool) => Event::Chosen { call, tool },
            Err(why) => Event::Failed { call, failure: Failure::new(FailureKind::Tool, why) },
        });
    }

    fn watch(&mut self, watch: WatchId, step: usize) {
        let definition = Arc::clone(&self.definition);
        let Kind::Reactive { triggers, .. } = &definition.step(step).kind else { return };
        let sender = self.fired.0.clone();
        let fire = move |trigger, value, _| {
            // A run that is slow to take its events waits for the first of them anyway.
            let _ = sender.try_send(Fired { watch, trigger, value });
        };
        let watching = Watching::begin(&self.mcp, &self.live.owner, triggers, fire);
        self.watches.insert(watch, watching);
    }

    fn tell(&mut self, told: &Told) {
        let worked_ms = match told {
            Told::Started(place) => {
                self.begun.insert(place.path.clone(), clock::now());
                0
            }
            Told::Completed { place, .. } | Told::Failed { place, .. } => self.worked_ms(place),
            Told::Part { .. } => 0,
        };
        let event = events::told(&self.live.workflow, told, worked_ms);
        self.show(event);
    }

    fn worked_ms(&mut self, place: &Place) -> u64 {
        self.begun.remove(&place.path).map_or(0, |begun| clock::now().since(begun))
    }

    fn show(&self, (kind, data): (EventKind, Box<RawValue>)) {
        if let Some(text) = self.run.tell_workflow(kind, data, self.live.is_streamed()) {
            self.live.show(text);
        }
    }

    /// Tells the caller how far the run is.
    fn report(&self, id: &CallId) {
        let Some(call) = self.live.attached() else { return };
        let step = self.stepper.step_of(*id).unwrap_or_default();
        let total = self.calls_total.filter(|total| *total >= self.calls_done);
        #[expect(clippy::cast_precision_loss, reason = "counts of calls are small")]
        call.progress(Progress {
            progress: self.calls_done as f64,
            total: total.map(|total| total as f64),
            message: Some(format!("{step} completed")),
        });
    }

    fn lost(&mut self, error: &crate::store::StoreError) {
        tracing::error!(%error, run = self.run.id(), "a workflow's run could not be written down");
        let failure = Failure::new(FailureKind::Limit, "the store failed");
        self.stepper.handle(Event::Stopped { failure });
        self.obey();
    }

    async fn finish(mut self) -> Finished {
        let outcome = self.outcome.take().expect("a run is finished when it has an outcome");
        let outcome = outcome.and_then(|result| {
            let bytes = json_bytes(&result);
            let text = || format!("the result of a workflow is at most {RESULT_BYTES_MAX} bytes, came {bytes}");
            if bytes > RESULT_BYTES_MAX { Err(Failure::new(FailureKind::Limit, text())) } else { Ok(result) }
        });
        let _ = self.journal.flush().await;
        let finished = Finished { unix_micros: clock::unix_micros(), worked_ms: self.worked_ms_of_run(), outcome };
        // Before anybody hears of it: who asks afterwards finds the record.
        if let Err(error) = records::finish(&self.mcp.workflows.store, &self.live, &finished).await {
            tracing::error!(%error, run = self.run.id(), "the end of a workflow's run could not be written down");
        }
        let (kind, data) =
            events::ended(&self.live.workflow, finished.outcome.as_ref().map(|result| &**result), finished.worked_ms);
        if let Some(text) = self.run.tell_last(RunTold::Workflow { kind, data }, self.live.is_streamed()) {
            self.live.show(text);
        }
        finished
    }
}

fn timed_out() -> Failure {
    Failure::new(FailureKind::RunTimeout, "timed out")
}

async fn sleep_until(due: Option<Instant>) {
    match due {
        Some(due) => tokio::time::sleep_until(due).await,
        None => std::future::pending().await,
    }
}
