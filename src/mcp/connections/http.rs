//! Sessions over HTTP among the others. The client of one is there while a request or a stream of it is open.

use std::sync::Arc;
use std::sync::atomic::Ordering;

use super::{Connections, Ending, SessionChange, count};
use crate::mcp::session::Session;

/// What holds a session over HTTP, as the connection manager asks it. It takes locks of its own: never call it under another.
pub(crate) trait HttpCarrier: Send + Sync {
    /// Milliseconds until the session ends, if nobody comes.
    fn left_ms(&self) -> u64;
    /// Messages that wait for the client.
    fn waiting(&self) -> usize;
    /// Ends the session.
    fn end(&self);
}

/// What a client has open of its session.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Visit {
    Request,
    /// The body of an answer that is a stream.
    Stream,
}

/// What is open of one session.
#[derive(Debug, Default)]
pub(super) struct Visits {
    requests: usize,
    streams: usize,
    /// Whether the last stream broke off, where none is open.
    broke_off: bool,
    /// Whether it was told that the client is away.
    is_told_away: bool,
    has_ended: bool,
}

impl Visits {
    pub(super) fn are_some(&self) -> bool {
        self.requests + self.streams > 0
    }

    fn of(&mut self, visit: Visit) -> &mut usize {
        match visit {
            Visit::Request => &mut self.requests,
            Visit::Stream => &mut self.streams,
        }
    }
}

impl Connections {
    /// Notes that a session has ended over HTTP, where those are counted whose clients are away.
    pub(super) fn visits_ended(&self, session: &Session) {
        let Some(_) = session.record.http.get() else { return };
        let mut visits = session.record.visits.lock();
        visits.has_ended = true;
        if !visits.are_some() {
            self.away.fetch_sub(1, Ordering::Relaxed);
        }
    }
}

impl Session {
    /// It has begun over HTTP, by a request that is open: a [`Visit::Request`] to leave.
    pub(crate) fn begins_over_http(self: &Arc<Self>, carrier: Box<dyn HttpCarrier>) {
        self.record.visits.lock().requests = 1;
        // It begins once.
        let _ = self.record.http.set(carrier);
        self.mcp.connections.begin(self);
    }

    /// Whether a request or a stream of it is open.
    pub(crate) fn is_visited(&self) -> bool {
        self.record.visits.lock().are_some()
    }

    /// Its client has opened something.
    pub(crate) fn visit(&self, visit: Visit) {
        let is_back = {
            let mut visits = self.record.visits.lock();
            if !visits.are_some() && !visits.has_ended {
                self.mcp.connections.away.fetch_sub(1, Ordering::Relaxed);
            }
            *visits.of(visit) += 1;
            std::mem::take(&mut visits.is_told_away) && !visits.has_ended
        };
        if visit == Visit::Request {
            self.record.touch();
        }
        if is_back {
            count(&self.record.resumed);
            count(&self.mcp.connections.resumed);
            self.mcp.connections.tell(self, SessionChange::Resumed);
        }
    }

    /// That is closed again; whether it `broke_off` before its end. A client is away when its last stream broke off and nothing else
    /// is open: one that has all its answers may well have nothing open.
    pub(crate) fn leave(&self, visit: Visit, broke_off: bool) {
        {
            let mut visits = self.record.visits.lock();
            *visits.of(visit) -= 1;
            if visit == Visit::Stream && visits.streams == 0 {
                visits.broke_off = broke_off;
            }
            if visits.are_some() || visits.has_ended {
                return;
            }
            self.mcp.connections.away.fetch_add(1, Ordering::Relaxed);
            if !std::mem::take(&mut visits.broke_off) {
                return;
            }
            visits.is_told_away = true;
        }
        self.mcp.connections.detached(self);
    }

    /// Notes why it ends, unless that is known.
    pub(crate) fn ends_by(&self, ending: Ending) {
        self.record.note(ending);
    }
}
