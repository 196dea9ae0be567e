//! A run that goes on, as others see it: its caller, who may end it, and those who wait for its end.

use std::sync::{Arc, Weak};

use bytes::Bytes;
use parking_lot::Mutex;
use serde_json::value::RawValue;
use tokio::sync::{Notify, watch};

use super::Finished;
use crate::mcp::auth::Identity;
use crate::mcp::call::Call;
use crate::mcp::outgoing::{Kind, Outgoing};
use crate::protocol::workflow::{Failure, FailureKind};

/// How a caller wants a run.
#[derive(Clone, Copy, Debug, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub(crate) struct RunOptions {
    /// Whether its events go to its caller.
    pub(crate) streaming: bool,
    /// Whether the client's model chooses, where a step has a choice.
    pub(crate) uses_model: bool,
    /// Whether it goes on when its caller has gone.
    pub(crate) outlives_caller: bool,
    /// Whether a restart of the server does not end it.
    pub(crate) resumes: bool,
    /// Milliseconds for the whole.
    pub(crate) timeout_ms: u64,
}

/// A run that goes on.
pub(crate) struct LiveRun {
    pub(crate) number: u128,
    /// The number's digits.
    pub(crate) id: String,
    pub(crate) workflow: Arc<str>,
    pub(crate) owner: Identity,
    /// The server whose tools it calls.
    pub(crate) server: String,
    pub(crate) options: RunOptions,
    pub(crate) request_id: Box<RawValue>,
    pub(crate) started_unix_micros: u64,
    /// Milliseconds that it went on before a restart.
    pub(crate) earlier_ms: u64,
    /// How many triggers stand behind it, one having begun the next.
    pub(crate) depth: u32,
    caller: Mutex<Option<Weak<Call>>>,
    /// Where the last events go of a caller that has taken its request back.
    left: Mutex<Option<Arc<Outgoing>>>,
    order: Mutex<Option<Order>>,
    ordered: Notify,
    finished: watch::Sender<Option<Arc<Finished>>>,
}

/// What a run is told from outside.
#[derive(Clone, Debug)]
pub(crate) enum Order {
    /// To end.
    Stop(Failure),
    /// To leave everything as it is, for a restart to go on with.
    Suspend,
}

/// What a run is begun with, beside its definition.
pub(crate) struct NewLive {
    pub(crate) number: u128,
    pub(crate) workflow: Arc<str>,
    pub(crate) owner: Identity,
    pub(crate) server: String,
    pub(crate) options: RunOptions,
    pub(crate) request_id: Box<RawValue>,
    pub(crate) started_unix_micros: u64,
    pub(crate) earlier_ms: u64,
    pub(crate) depth: u32,
}

impl LiveRun {
    pub(super) fn new(new: NewLive, call: Option<&Arc<Call>>) -> Self {
        LiveRun {
            number: new.number,
            id: crate::mcp::Hex::of(new.number).as_str().to_owned(),
            workflow: new.workflow,
            owner: new.owner,
            server: new.server,
            options: new.options,
            request_id: new.request_id,
            started_unix_micros: new.started_unix_micros,
            earlier_ms: new.earlier_ms,
            depth: new.depth,
            caller: Mutex::new(call.map(Arc::downgrade)),
            left: Mutex::new(None),
            order: Mutex::new(None),
            ordered: Notify::new(),
            finished: watch::Sender::new(None),
        }
    }

    /// The call that waits for it, if one does.
    pub(super) fn attached(&self) -> Option<Arc<Call>> {
        self.caller.lock().as_ref().and_then(Weak::upgrade)
    }

    /// Whether someone gets the events as they come.
    pub(super) fn is_streamed(&self) -> bool {
        self.options.streaming && (self.attached().is_some() || self.left.lock().is_some())
    }

    /// Gives whoever gets them an event.
    pub(super) fn show(&self, event: Bytes) {
        match self.attached() {
            // It is about to leave its route to the run.
            Some(call) if call.cancel_reason() == Some(crate::mcp::CancelReason::Client) => {
                call.route.push(Kind::Event, event);
            }
            Some(call) => call.show_event(event),
            None => {
                if let Some(route) = &*self.left.lock() {
                    route.push(Kind::Event, event);
                }
            }
        }
    }

    /// The caller waits no longer, and the run goes on.
    pub(super) fn detach(&self) {
        *self.caller.lock() = None;
    }

    /// Ends it from outside. The first order stays.
    pub(super) fn stop(&self, why: impl Into<String>) {
        self.order(Order::Stop(Failure::new(FailureKind::Cancelled, why)));
    }

    pub(super) fn suspend(&self) {
        self.order(Order::Suspend);
    }

    fn order(&self, order: Order) {
        let mut place = self.order.lock();
        if place.is_none() {
            *place = Some(order);
            self.ordered.notify_one();
        }
    }

    /// What it has been told, if it has.
    pub(super) fn order_now(&self) -> Option<Order> {
        self.order.lock().clone()
    }

    /// Waits for an order. Cancel-safe.
    pub(super) async fn ordered(&self) -> Order {
        loop {
            if let Some(order) = self.order_now() {
                return order;
            }
            self.ordered.notified().await;
        }
    }

    /// Has ended, or been suspended, in which case nothing is given.
    pub(super) fn finish(&self, finished: Option<Finished>) {
        if let Some(finished) = finished {
            self.finished.send_replace(Some(Arc::new(finished)));
        }
    }

    /// Waits for its end. A run that is suspended has none.
    pub(super) async fn finished(&self) -> Arc<Finished> {
        let mut finished = self.finished.subscribe();
        let there = finished.wait_for(Option::is_some).await.expect("the sender is part of self");
        Arc::clone(there.as_ref().expect("it was waited for"))
    }
}

/// A caller that waits for a run, until it is dropped.
pub(super) struct Attached {
    pub(super) run: Arc<LiveRun>,
    pub(super) call: Arc<Call>,
}

impl Drop for Attached {
    /// However the call ends: a client that takes its request back ends the run, and one that has gone leaves it, if the
    /// definition says so.
    fn drop(&mut self) {
        use crate::mcp::CancelReason::{Client, SessionEnded, Timeout};

        let reason = self.call.cancel_reason();
        if reason == Some(Client) {
            *self.run.left.lock() = Some(Arc::clone(&self.call.route));
        }
        self.run.detach();
        match reason {
            Some(Client) => self.run.stop("cancelled by the client"),
            Some(Timeout) => self.run.stop("the call took longer than it may"),
            Some(SessionEnded) if !self.run.options.outlives_caller => self.run.stop("the client has gone"),
            _ => {}
        }
    }
}
