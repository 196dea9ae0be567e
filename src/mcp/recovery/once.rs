//! The calls of a session over HTTP, which run once as those on channels do. There an attachment is the connection by which a call is
//! asked, and whoever holds the session knows which of these live.

use std::sync::Arc;

use bytes::Bytes;
use parking_lot::Mutex;

use crate::protocol::jsonrpc::CallNumber;
use crate::protocol::mcp::recovery::{Asked, AskedCall, Executions, Position, RepeatRefused};

/// The calls of one session.
#[derive(Default)]
pub(crate) struct Once(Mutex<Executions>);

impl Once {
    /// Bytes of the answers, ids and keys that are kept.
    pub(crate) fn bytes(&self) -> usize {
        self.0.lock().bytes()
    }

    /// Notes that an attachment has got its answers. Calls without a key are forgotten with that: a client may begin to count its ids
    /// anew in the same session, as stock ones do that come back to it.
    pub(crate) fn delivered(&self, attachment: u64) {
        self.0.lock().delivered(attachment);
    }

    /// Forgets the answers: whoever asks again is told that the outcome is not known.
    pub(crate) fn forget_answers(&self) {
        self.0.lock().forget_answers();
    }
}

/// By what a POST asks.
pub(crate) struct Asking {
    once: Arc<Once>,
    attachment: u64,
    /// One of several messages of a batch can't have the stream of an earlier call.
    is_batch: bool,
    /// Whether the connection of an attachment is still there.
    lives: Box<dyn Fn(u64) -> bool + Send + Sync>,
    joined: Mutex<Option<u64>>,
}

impl Asking {
    /// A POST's attachment, which `lives` from when it is answered by a stream, and as long as that is read.
    pub(crate) fn new(
        once: &Arc<Once>,
        attachment: u64,
        is_batch: bool,
        lives: impl Fn(u64) -> bool + Send + Sync + 'static,
    ) -> Self {
        Asking { once: Arc::clone(once), attachment, is_batch, lives: Box::new(lives), joined: Mutex::default() }
    }

    /// The attachment on whose stream its only call goes on.
    pub(in crate::mcp) fn joined(&self) -> Option<u64> {
        *self.joined.lock()
    }

    /// Looks at a call that is asked for. An id that `is_anothers` is no call's unless it is remembered as one.
    pub(in crate::mcp) fn ask(&self, call: &AskedCall, is_anothers: bool) -> Result<Asked, RepeatRefused> {
        let earlier = self.once.0.lock().asked_last(call);
        // Not under the lock: it takes others.
        let is_there = |(attachment, runs)| self.is_batch && runs || (self.lives)(attachment);
        let there = earlier.filter(|earlier| is_there(*earlier)).map(|(attachment, _)| attachment);
        let mut executions = self.once.0.lock();
        if is_anothers && !executions.knows(&call.id) {
            return Ok(Asked::New);
        }
        let attachment = there.unwrap_or(self.attachment);
        let asked = match executions.ask(call, attachment) {
            // What its client has not got is not what this one asks.
            Err(RepeatRefused::OtherCall(_)) if call.key.is_none() && executions.free(&call.id) => Asked::New,
            asked => asked?,
        };
        if let (Asked::Settled | Asked::Renamed(_), Some((attachment, _))) = (&asked, earlier) {
            *self.joined.lock() = Some(attachment);
        }
        Ok(asked)
    }

    /// Notes that a call begins; false where one of its id or its key has begun meanwhile.
    pub(in crate::mcp) fn begin(&self, number: CallNumber, call: &AskedCall) -> bool {
        self.once.0.lock().begin(number, call, self.attachment)
    }

    /// Notes the answer to a call, and gives it under the id asked last.
    pub(in crate::mcp) fn answered(&self, number: CallNumber, text: Bytes) -> Bytes {
        let mut executions = self.once.0.lock();
        let text = executions.spelt(number, text);
        executions.answered(number, text.clone(), Position::default(), None);
        text
    }

    pub(in crate::mcp) fn with<R>(&self, act: impl FnOnce(&mut Executions) -> R) -> R {
        act(&mut self.once.0.lock())
    }
}
