//! One session that can be come back to: its log, its tokens, its calls, and who is attached.

use bytes::Bytes;
use serde_json::value::RawValue;

use super::{
    Asked, AskedCall, Attachment, Class, EventLog, Executions, Kept, KeptHead, Position, RepeatRefused, Taken, Tokens,
    Unsaved,
};
use crate::protocol::Time;
use crate::protocol::jsonrpc::CallNumber;

/// A session that outlives its connection. It performs nothing: what it hands out is to be pushed, by the attachment that it was
/// handed to.
#[derive(Clone, Debug)]
pub struct Recovery {
    log: EventLog,
    tokens: Tokens,
    executions: Executions,
    state: Attachment,
    /// Counts the attachments.
    attachment: u64,
    window_ms: u64,
    /// Whether it is stored.
    is_stored: bool,
    /// Whether something has changed that is always stored anew.
    has_changed: bool,
    /// Whether something beside this has changed that is stored with it.
    is_touched: bool,
}

/// A client has come back.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Attached {
    /// The number of its attachment.
    pub attachment: u64,
    /// The serial of its next token.
    pub serial: u64,
    /// What it has: what follows is pushed.
    pub position: Position,
}

/// Nobody comes back by this token, or no longer. Which of the two is not told apart.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Stale;

impl Recovery {
    /// A session whose client is there: attachment 1, with the first token.
    pub fn new(window_ms: u64) -> Self {
        Recovery {
            log: EventLog::default(),
            tokens: Tokens::default(),
            executions: Executions::default(),
            state: Attachment::Attached,
            attachment: 1,
            window_ms,
            is_stored: false,
            has_changed: false,
            is_touched: false,
        }
    }

    /// The same, to be stored: it hands out what is to be, and pushes nothing that is not.
    pub fn stored(window_ms: u64) -> Self {
        Recovery {
            log: EventLog::stored(),
            executions: Executions::stored(),
            is_stored: true,
            has_changed: true,
            is_touched: true,
            ..Recovery::new(window_ms)
        }
    }

    /// A session as it was stored, whose client is away until a time.
    pub fn restored(kept: Kept, window_ms: u64, until: Time) -> Self {
        let Kept { head, messages, calls } = kept;
        let mut this = Recovery {
            log: EventLog::restored(messages, head.last, head.acknowledged),
            tokens: Tokens::restored(head.used, head.given),
            executions: Executions::restored(calls, head.begun),
            state: Attachment::Detached { until },
            attachment: 0,
            ..Recovery::stored(window_ms)
        };
        // A call is stored before the message that answers it, so that one which was answered is not taken for one that runs.
        for (number, text) in this.executions.answered_behind(head.last) {
            this.say(number, text);
        }
        this
    }

    /// Whether there is something to store.
    pub fn has_unsaved(&self) -> bool {
        let has_changed = self.has_changed || self.log.has_unsaved() || self.executions.has_unsaved();
        has_changed && self.is_stored && self.state != Attachment::Ended
    }

    /// Notes that something beside this has changed that is stored with it.
    pub fn touch(&mut self) {
        (self.has_changed, self.is_touched) = (true, true);
    }

    /// Notes that something has changed that is stored with its state.
    pub fn stir(&mut self) {
        self.has_changed = true;
    }

    /// Hands out what is to be stored, about so many bytes of calls, or where that is all of them, as many of messages as well; none
    /// where there is nothing. Until that is [`Recovery::saved`] nothing else is handed out so.
    pub fn unsaved(&mut self, bytes_max: usize) -> Option<Unsaved> {
        if !self.has_unsaved() {
            return None;
        }
        self.has_changed = false;
        let is_touched = std::mem::take(&mut self.is_touched);
        let calls = self.executions.unsaved(bytes_max);
        // An answer is in the store no sooner than that its call has ended.
        let messages =
            if self.executions.has_unsaved() { self.log.nothing_unsaved() } else { self.log.unsaved(bytes_max) };
        let until = match self.state {
            Attachment::Detached { until } => Some(until),
            Attachment::Attached | Attachment::Ended => None,
        };
        let head = KeptHead {
            used: self.tokens.last_used(),
            given: self.tokens.newest(),
            last: messages.upto,
            acknowledged: self.log.acknowledged(),
            begun: self.executions.begun(),
            until,
        };
        Some(Unsaved { head, is_touched, messages: messages.messages, gone: messages.gone, upto: messages.upto, calls })
    }

    /// Notes that what was handed out is stored, the log up to a position; whether there is more to push with that.
    pub fn saved(&mut self, upto: Position) -> bool {
        self.log.saved(upto)
    }

    /// Keeps the request of a call that has begun, to be stored as long as it runs.
    pub fn keep_request(&mut self, number: CallNumber, request: Bytes) {
        self.executions.keep_request(number, request);
    }

    /// Gives a call another number. The id under which it is to be answered, where that is another than its request's.
    pub fn renumber(&mut self, from: CallNumber, to: CallNumber) -> Option<Box<RawValue>> {
        self.executions.renumber(from, to)
    }

    /// The serial of the newest token.
    pub fn serial(&self) -> u64 {
        self.tokens.newest()
    }

    /// Where it stands.
    pub fn state(&self) -> Attachment {
        self.state
    }

    /// Whether an attachment is the present one.
    pub fn is_present(&self, attachment: u64) -> bool {
        self.state == Attachment::Attached && self.attachment == attachment
    }

    /// Attaches a client that comes back by a token, and says what it has. An attachment that lives is the older one from here on.
    ///
    /// # Errors
    /// [`Stale`]: nothing has changed.
    pub fn attach(&mut self, serial: u64, position: Option<Position>, now: Time) -> Result<Attached, Stale> {
        if !self.state.may_attach(now) || !self.tokens.accepts(serial) {
            return Err(Stale);
        }
        let serial = self.tokens.used(serial);
        self.has_changed = true;
        self.state = Attachment::Attached;
        self.attachment += 1;
        let position = self.log.rewind(position);
        let (log, attachment) = (&self.log, self.attachment);
        self.executions.attach(attachment, |answer| answer > position && log.has(answer));
        Ok(Attached { attachment, serial, position })
    }

    /// Notes that an attachment has lost its client; until when that may come back, if it was the present one.
    pub fn detach(&mut self, attachment: u64, now: Time) -> Option<Time> {
        if !self.is_present(attachment) {
            return None;
        }
        let until = now + self.window_ms;
        self.state = Attachment::Detached { until };
        self.has_changed = true;
        Some(until)
    }

    /// Ends it for good; whether it had not ended.
    pub fn end(&mut self) -> bool {
        let had_ended = self.state == Attachment::Ended;
        self.state = Attachment::Ended;
        (self.log, self.executions) = Default::default();
        !had_ended
    }

    /// Gives the present attachment a further token.
    pub fn renew(&mut self, attachment: u64) -> Option<u64> {
        self.is_present(attachment).then(|| self.tokens.renew())
    }

    /// Lets go what the present attachment says it has.
    pub fn acknowledge(&mut self, attachment: u64, position: Position) {
        if self.is_present(attachment) {
            self.log.acknowledge(position);
        }
    }

    /// Takes up a message that is no answer.
    pub fn push(&mut self, class: Class, text: Bytes) {
        if self.state != Attachment::Ended {
            self.log.append(class, text);
        }
    }

    /// Hands the present attachment what waits, about so many bytes; none to any other.
    pub fn take(&mut self, attachment: u64, bytes_max: usize) -> Option<Taken> {
        self.is_present(attachment).then(|| self.log.take(bytes_max))
    }

    /// Looks at a call that is asked for. What is to be said of it is taken up.
    ///
    /// # Errors
    /// [`RepeatRefused`].
    pub fn ask(&mut self, call: &AskedCall) -> Result<Asked, RepeatRefused> {
        let asked = self.executions.ask(call, self.attachment)?;
        if let Asked::Again(number, text) = &asked {
            self.say(*number, text.clone());
        }
        Ok(asked)
    }

    /// Whether an id is that of a call which is remembered.
    pub fn knows(&self, id: &RawValue) -> bool {
        self.executions.knows(id)
    }

    /// Notes that a call begins; false where one of its id or key has begun meanwhile.
    pub fn begin(&mut self, number: CallNumber, call: &AskedCall) -> bool {
        self.executions.begin(number, call, self.attachment)
    }

    /// Takes up the answer to a request, whether it is remembered or not, under the id asked last.
    pub fn answer(&mut self, number: CallNumber, text: Bytes) {
        if self.state != Attachment::Ended {
            let text = self.executions.spelt(number, text);
            self.say(number, text);
        }
    }

    fn say(&mut self, number: CallNumber, text: Bytes) {
        let position = self.log.append(Class::Response, text.clone());
        let given_in = (self.state == Attachment::Attached).then_some(self.attachment);
        self.executions.answered(number, text, position, given_in);
    }

    /// Notes that a call was not run: one of that id is a new one.
    pub fn not_run(&mut self, number: CallNumber) {
        self.executions.forget(number);
    }

    /// Notes that the answer to a call will say that it was not run: one of its id is a new one behind that.
    pub fn answers_not_run(&mut self, number: CallNumber) {
        self.executions.answers_not_run(number);
    }

    /// Bytes that are kept.
    pub fn bytes(&self) -> usize {
        self.log.bytes() + self.executions.bytes()
    }

    /// Notes that a client took a call back.
    pub fn take_back(&mut self, number: CallNumber) {
        self.executions.take_back(number);
    }

    /// The log.
    pub fn log(&self) -> &EventLog {
        &self.log
    }

    /// The calls.
    pub fn executions(&self) -> &Executions {
        &self.executions
    }
}
