//! Which calls of a session have been run, so that one that is asked again is not run again.

use std::collections::{BTreeMap, VecDeque};

use bytes::Bytes;
use compact_str::CompactString;
use serde_json::value::RawValue;

use super::kept::{KeptCall, KeptState};
use super::{EXECUTION_ANSWER_BYTES_MAX, EXECUTION_ANSWERS_MAX, EXECUTION_NAME_BYTES_MAX, EXECUTIONS_MAX, Position};
use crate::protocol::jsonrpc::{CallNumber, id_key, splice};

/// A call as its client asks for it.
#[derive(Clone, Debug)]
pub struct AskedCall {
    /// The request's id.
    pub id: Box<RawValue>,
    /// A hash of the method and of the params but for `_meta`, in which a repeat may differ.
    pub digest: [u8; 32],
    /// The name that the client gave the call, whatever its id.
    pub key: Option<Box<str>>,
}

/// What becomes of a call that is asked for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Asked {
    /// It has not been asked before: it is to be run.
    New,
    /// It runs; its answer will come under the id asked last, which is another than before.
    Renamed(CallNumber),
    /// It runs, and its answer will come; or that has been given to this attachment.
    Settled,
    /// Its answer, to be given again.
    Again(CallNumber, Bytes),
}

/// Why a repeated call is refused: the client's fault.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum RepeatRefused {
    /// The id belongs to another call.
    #[error(
        "id {0} is that of another call of this session: expected the same method and params, or an id that was not used"
    )]
    OtherCall(String),
    /// The key belongs to another call.
    #[error(
        "idempotency key {0:?} is that of another call of this session: expected the same method and params, or another key"
    )]
    OtherKeyed(String),
    /// It was asked on this attachment, and is under way.
    #[error(
        "id {0} is that of a call under way: expected its repeat once its client has come back, or an id that was not used"
    )]
    UnderWay(String),
    /// It was asked on this attachment, and answered.
    #[error("id {0} is that of a call that was answered: expected an id that was not used")]
    Answered(String),
    /// It was run, and its answer has been forgotten.
    #[error(
        "the outcome of the call with id {0} is no longer known, and it is not run again: expected an id and a key that were not used"
    )]
    Forgotten(String),
    /// Its client took it back.
    #[error("the call with id {0} was taken back, and is not run again: expected an id and a key that were not used")]
    TakenBack(String),
}

/// The calls of one session.
///
/// ```text
/// begin ─► running ─ answered ─► answered ─ others need its room ─► forgotten ─ the same ─► not known: a call of that
///             │                                                                             id or key is a new one
///             ├─ taken back by its client ─► taken back
///             └─ refused: it was not run, and leaves no trace
/// ```
#[derive(Clone, Debug, Default)]
pub struct Executions {
    by_number: BTreeMap<CallNumber, Execution>,
    by_id: BTreeMap<CompactString, CallNumber>,
    by_key: BTreeMap<Box<str>, CallNumber>,
    /// Those answered, in the order of their answers; some may be there no longer.
    answered: VecDeque<CallNumber>,
    answers: usize,
    answer_bytes: usize,
    name_bytes: usize,
    /// How many have begun, those included that are forgotten.
    begun: u64,
    /// Where they are stored: which have changed since, by their order; none for what is there no longer.
    changed: Option<BTreeMap<u64, Option<CallNumber>>>,
}

#[derive(Clone, Debug)]
struct Execution {
    /// Which of the session's it is, counted from 1.
    order: u64,
    /// Its request, where that is stored as long as it runs.
    request: Option<Bytes>,
    digest: [u8; 32],
    key: Option<Box<str>>,
    ids: Vec<CompactString>,
    /// The id asked last, where it is another than the first.
    asked_as: Option<Box<RawValue>>,
    began_in: u64,
    asked_in: u64,
    state: State,
    /// What is said of it is that it was not run: with that it leaves no trace.
    is_not_run: bool,
}

#[derive(Clone, Debug)]
enum State {
    Running,
    Answered {
        /// Under the id asked last.
        text: Bytes,
        position: Position,
        /// The last attachment that it was given to.
        given_in: Option<u64>,
    },
    Forgotten,
    TakenBack,
}

impl Execution {
    fn kept(&self) -> KeptCall {
        let state = match &self.state {
            State::Running => KeptState::Running { request: self.request.clone().unwrap_or_default() },
            State::Answered { text, position, .. } => KeptState::Answered { text: text.clone(), position: *position },
            State::Forgotten => KeptState::Forgotten,
            State::TakenBack => KeptState::TakenBack,
        };
        let (key, ids, asked_as) = (self.key.clone(), self.ids.clone(), self.asked_as.clone());
        KeptCall { digest: self.digest, key, ids, asked_as, state }
    }

    fn last_id(&self) -> Option<&CompactString> {
        match &self.asked_as {
            Some(_) => self.ids.last(),
            None => self.ids.first(),
        }
    }
}

impl Executions {
    /// Those of a session that is stored.
    pub fn stored() -> Self {
        Executions { changed: Some(BTreeMap::new()), ..Executions::default() }
    }

    /// Those that were stored, each with its order, of so many that had begun. Their numbers are their orders.
    pub fn restored(calls: Vec<(u64, KeptCall)>, begun: u64) -> Self {
        let begun = calls.iter().map(|(order, _)| *order).fold(begun, u64::max);
        let mut this = Executions { begun, ..Executions::stored() };
        let mut answered = BTreeMap::new();
        for (order, kept) in calls {
            let number = CallNumber(order);
            // One that was not run leaves its id and its key to a later call, which may be stored sooner than that it is gone.
            let by_id = kept.ids.first().and_then(|id| this.by_id.get(id));
            let earlier = by_id.or_else(|| kept.key.as_ref().and_then(|key| this.by_key.get(key))).copied();
            if let Some(earlier) = earlier {
                this.remove(earlier);
            }
            for id in &kept.ids {
                this.name_bytes += id.len();
                this.by_id.insert(id.clone(), number);
            }
            if let Some(key) = &kept.key {
                this.name_bytes += key.len();
                this.by_key.insert(key.clone(), number);
            }
            let (state, request) = match kept.state {
                KeptState::Running { request } => (State::Running, Some(request)),
                KeptState::Answered { text, position } => {
                    this.answers += 1;
                    this.answer_bytes += text.len();
                    // One behind the log's end may have the position that another's had before a restart: then both have the same.
                    answered.insert((position, order), number);
                    (State::Answered { text, position, given_in: None }, None)
                }
                KeptState::Forgotten => (State::Forgotten, None),
                KeptState::TakenBack => (State::TakenBack, None),
            };
            let execution = Execution {
                order,
                request,
                digest: kept.digest,
                key: kept.key,
                ids: kept.ids,
                asked_as: kept.asked_as,
                began_in: 0,
                asked_in: 0,
                state,
                is_not_run: false,
            };
            this.by_number.insert(number, execution);
        }
        this.answered = answered.into_values().collect();
        this
    }

    /// How many have begun, those included that are forgotten.
    pub fn begun(&self) -> u64 {
        self.begun
    }

    /// Which of the session's calls it is, counted from 1: no two ever have the same.
    pub fn order(&self, number: CallNumber) -> Option<u64> {
        self.by_number.get(&number).map(|execution| execution.order)
    }

    /// Keeps the request of a call that has begun, to be stored as long as it runs.
    pub fn keep_request(&mut self, number: CallNumber, request: Bytes) {
        if let Some(execution) = self.by_number.get_mut(&number).filter(|_| self.changed.is_some()) {
            execution.request = Some(request);
        }
    }

    /// Those that run and whose requests are kept.
    pub fn running(&self) -> Vec<(CallNumber, Bytes)> {
        let running = self.by_number.iter().filter(|(_, execution)| matches!(execution.state, State::Running));
        running.filter_map(|(number, execution)| Some((*number, execution.request.clone()?))).collect()
    }

    /// Gives a call another number. The id under which it is to be answered, where that is another than its request's.
    pub fn renumber(&mut self, from: CallNumber, to: CallNumber) -> Option<Box<RawValue>> {
        let execution = self.by_number.remove(&from)?;
        for id in &execution.ids {
            self.by_id.insert(id.clone(), to);
        }
        if let Some(key) = &execution.key {
            self.by_key.insert(key.clone(), to);
        }
        let asked_as = execution.asked_as.clone();
        self.by_number.insert(to, execution);
        self.change(to);
        asked_as
    }

    /// Whether there is something to store.
    pub fn has_unsaved(&self) -> bool {
        self.changed.as_ref().is_some_and(|changed| !changed.is_empty())
    }

    /// The answers that stand behind a position.
    pub fn answered_behind(&self, position: Position) -> Vec<(CallNumber, Bytes)> {
        let answers = self.answered.iter().filter_map(|number| match &self.by_number.get(number)?.state {
            State::Answered { text, position: at, .. } if *at > position => Some((*number, text.clone())),
            _ => None,
        });
        answers.collect()
    }

    /// Hands out what is to be stored: by its order each call that has changed; none for one that is there no longer. Where that is
    /// more than so many bytes, it is some of those that are there, and the rest is left.
    pub fn unsaved(&mut self, bytes_max: usize) -> Vec<(u64, Option<KeptCall>)> {
        let Some(changed) = &mut self.changed else { return Vec::new() };
        let mut unsaved = Vec::new();
        let mut bytes = 0;
        let kept = |number: CallNumber| self.by_number.get(&number).map(Execution::kept);
        for (order, number) in &*changed {
            let Some(kept) = number.and_then(kept) else { continue };
            if !unsaved.is_empty() && bytes + kept.bytes() > bytes_max {
                changed.retain(|order, _| unsaved.iter().all(|(taken, _)| taken != order));
                return unsaved;
            }
            bytes += kept.bytes();
            unsaved.push((*order, Some(kept)));
        }
        let gone = std::mem::take(changed).into_keys().filter(|order| unsaved.iter().all(|(taken, _)| taken != order));
        let gone: Vec<_> = gone.map(|order| (order, None)).collect();
        unsaved.extend(gone);
        unsaved
    }

    fn change(&mut self, number: CallNumber) {
        if let (Some(changed), Some(execution)) = (&mut self.changed, self.by_number.get(&number)) {
            changed.insert(execution.order, Some(number));
        }
    }

    /// Looks at a call that an attachment asks for.
    ///
    /// # Errors
    /// [`RepeatRefused`].
    pub fn ask(&mut self, call: &AskedCall, attachment: u64) -> Result<Asked, RepeatRefused> {
        let id = id_key(&call.id);
        let told = || call.id.get().to_owned();
        let by_id = self.by_id.get(&id).copied();
        let by_key = call.key.as_ref().and_then(|key| self.by_key.get(key)).copied();
        let number = match (by_id, by_key) {
            (None, None) => return Ok(Asked::New),
            (Some(one), Some(other)) if one != other => return Err(RepeatRefused::OtherCall(told())),
            (Some(number), _) | (None, Some(number)) => number,
        };
        let Some(execution) = self.by_number.get_mut(&number) else { return Ok(Asked::New) };
        let is_keyed_otherwise = call.key.is_some() && execution.key.is_some() && call.key != execution.key;
        if execution.digest != call.digest || is_keyed_otherwise {
            return Err(match (&call.key, by_id) {
                (Some(key), None) => RepeatRefused::OtherKeyed(key.to_string()),
                _ => RepeatRefused::OtherCall(told()),
            });
        }
        let is_last_id = execution.last_id() == Some(&id);
        let was_given = match &execution.state {
            State::Forgotten => return Err(RepeatRefused::Forgotten(told())),
            State::TakenBack => return Err(RepeatRefused::TakenBack(told())),
            State::Running if execution.asked_in == attachment => return Err(RepeatRefused::UnderWay(told())),
            State::Answered { .. } if is_last_id && execution.began_in == attachment => {
                return Err(RepeatRefused::Answered(told()));
            }
            State::Answered { given_in, .. } => is_last_id && *given_in == Some(attachment),
            State::Running => false,
        };
        if let (Some(key), None) = (&call.key, &execution.key) {
            execution.key = Some(key.clone());
            self.by_key.insert(key.clone(), number);
            self.name_bytes += key.len();
        }
        if was_given {
            self.change(number);
            self.tidy();
            return Ok(Asked::Settled);
        }
        execution.asked_in = attachment;
        if !is_last_id {
            execution.ids.retain(|other| *other != id);
            execution.ids.push(id.clone());
            execution.asked_as = Some(call.id.clone());
            if self.by_id.insert(id.clone(), number).is_none() {
                self.name_bytes += id.len();
            }
        }
        let asked = match &mut execution.state {
            State::Running if is_last_id => Asked::Settled,
            State::Running => Asked::Renamed(number),
            State::Answered { text, .. } => {
                // As many bytes as before, but for the id's.
                self.answer_bytes -= text.len();
                *text = spelt(text, execution.asked_as.as_deref());
                self.answer_bytes += text.len();
                Asked::Again(number, text.clone())
            }
            State::Forgotten | State::TakenBack => unreachable!("they were refused above"),
        };
        self.change(number);
        self.tidy();
        Ok(asked)
    }

    /// The attachment on which a call of this id or key was asked last, and whether it runs.
    pub fn asked_last(&self, call: &AskedCall) -> Option<(u64, bool)> {
        let by_id = self.by_id.get(&id_key(&call.id));
        let number = by_id.or_else(|| call.key.as_ref().and_then(|key| self.by_key.get(key)))?;
        let execution = self.by_number.get(number)?;
        Some((execution.asked_in, matches!(execution.state, State::Running)))
    }

    /// Forgets the calls without a key that were asked last on an attachment and whose answers it has got: their ids are free again.
    pub fn delivered(&mut self, attachment: u64) {
        let is_over = |execution: &Execution| {
            execution.asked_in == attachment
                && execution.key.is_none()
                && matches!(execution.state, State::Answered { .. })
        };
        let over = self.by_number.iter().filter(|(_, execution)| is_over(execution)).map(|(number, _)| *number);
        for number in over.collect::<Vec<_>>() {
            self.remove(number);
        }
    }

    /// Forgets the call of an id, if it has ended and has no key.
    pub fn free(&mut self, id: &RawValue) -> bool {
        let number = self.by_id.get(&id_key(id)).copied();
        let execution = number.and_then(|number| Some((number, self.by_number.get(&number)?)));
        let Some((number, Execution { key: None, state: State::Answered { .. } | State::Forgotten, .. })) = execution
        else {
            return false;
        };
        self.remove(number);
        true
    }

    /// Whether an id is that of a call which is remembered.
    pub fn knows(&self, id: &RawValue) -> bool {
        self.by_id.contains_key(&id_key(id))
    }

    /// Notes that a call begins; false where its id or its key is another's.
    pub fn begin(&mut self, number: CallNumber, call: &AskedCall, attachment: u64) -> bool {
        let id = id_key(&call.id);
        if self.by_id.contains_key(&id) || call.key.as_ref().is_some_and(|key| self.by_key.contains_key(key)) {
            return false;
        }
        self.name_bytes += id.len() + call.key.as_ref().map_or(0, |key| key.len());
        self.by_id.insert(id.clone(), number);
        if let Some(key) = &call.key {
            self.by_key.insert(key.clone(), number);
        }
        self.begun += 1;
        let execution = Execution {
            order: self.begun,
            request: None,
            digest: call.digest,
            key: call.key.clone(),
            ids: vec![id],
            asked_as: None,
            began_in: attachment,
            asked_in: attachment,
            state: State::Running,
            is_not_run: false,
        };
        self.by_number.insert(number, execution);
        self.change(number);
        self.tidy();
        true
    }

    /// The text of an answer under the id asked last.
    pub fn spelt(&self, number: CallNumber, text: Bytes) -> Bytes {
        match self.by_number.get(&number).and_then(|execution| execution.asked_as.as_deref()) {
            Some(id) => spelt(&text, Some(id)),
            None => text,
        }
    }

    /// Notes a call's answer, which stands at a position of the log, and which attachment is given it, if one is there.
    pub fn answered(&mut self, number: CallNumber, text: Bytes, position: Position, given_in: Option<u64>) {
        let Some(execution) = self.by_number.get_mut(&number) else { return };
        if execution.is_not_run {
            return self.remove(number);
        }
        match &execution.state {
            State::Running => {
                self.answered.push_back(number);
                self.answers += 1;
            }
            State::Answered { text, .. } => self.answer_bytes -= text.len(),
            State::Forgotten | State::TakenBack => return,
        }
        self.answer_bytes += text.len();
        execution.state = State::Answered { text, position, given_in };
        execution.request = None;
        self.change(number);
        self.tidy();
    }

    /// Notes that a call was not run.
    pub fn forget(&mut self, number: CallNumber) {
        self.remove(number);
    }

    /// Notes that the answer to a call will say that it was not run.
    pub fn answers_not_run(&mut self, number: CallNumber) {
        if let Some(execution) = self.by_number.get_mut(&number) {
            execution.is_not_run = true;
        }
    }

    /// Notes that a client took a call back.
    pub fn take_back(&mut self, number: CallNumber) {
        let Some(execution) = self.by_number.get_mut(&number) else { return };
        if !matches!(execution.state, State::Running) {
            return;
        }
        if execution.is_not_run {
            // Its answer, which would have said so, does not come.
            self.remove(number);
        } else {
            execution.state = State::TakenBack;
            execution.request = None;
            self.change(number);
        }
    }

    /// Notes that an attachment is given those answers again whose positions it `will_get`.
    pub fn attach(&mut self, attachment: u64, will_get: impl Fn(Position) -> bool) {
        for number in &self.answered {
            if let Some(Execution { state: State::Answered { position, given_in, .. }, .. }) =
                self.by_number.get_mut(number)
                && will_get(*position)
            {
                *given_in = Some(attachment);
            }
        }
    }

    /// Forgets all answers: whoever asks again is told that the outcome is not known.
    pub fn forget_answers(&mut self) {
        for number in std::mem::take(&mut self.answered) {
            if let Some(execution) = self.by_number.get_mut(&number)
                && matches!(execution.state, State::Answered { .. })
            {
                execution.state = State::Forgotten;
            }
        }
        (self.answers, self.answer_bytes) = (0, 0);
    }

    /// Calls that are remembered, those under way included.
    pub fn len(&self) -> usize {
        self.by_number.len()
    }

    /// Whether none is.
    pub fn is_empty(&self) -> bool {
        self.by_number.is_empty()
    }

    /// Bytes of the answers that are kept.
    pub fn answer_bytes(&self) -> usize {
        self.answer_bytes
    }

    /// Bytes of the answers, ids and keys that are kept.
    pub fn bytes(&self) -> usize {
        self.answer_bytes + self.name_bytes
    }

    fn remove(&mut self, number: CallNumber) {
        let Some(execution) = self.by_number.remove(&number) else { return };
        if let Some(changed) = &mut self.changed {
            changed.insert(execution.order, None);
        }
        for id in &execution.ids {
            self.by_id.remove(id);
            self.name_bytes -= id.len();
        }
        if let Some(key) = &execution.key {
            self.by_key.remove(key);
            self.name_bytes -= key.len();
        }
        if let State::Answered { text, .. } = &execution.state {
            self.answer_bytes -= text.len();
            self.answers -= 1;
        }
    }

    /// Keeps the bounds. The last answer stays, whatever its size, and so do calls under way.
    fn tidy(&mut self) {
        while self.answers > EXECUTION_ANSWERS_MAX
            || self.answer_bytes > EXECUTION_ANSWER_BYTES_MAX && self.answers > 1
            || self.answered.len() > 2 * EXECUTION_ANSWERS_MAX
        {
            let Some(number) = self.answered.pop_front() else { break };
            if let Some(execution) = self.by_number.get_mut(&number)
                && let State::Answered { text, .. } = &execution.state
            {
                self.answer_bytes -= text.len();
                self.answers -= 1;
                execution.state = State::Forgotten;
                self.change(number);
            }
        }
        while self.by_number.len() > EXECUTIONS_MAX || self.name_bytes > EXECUTION_NAME_BYTES_MAX {
            let has_ended = |(_, execution): &(&CallNumber, &Execution)| !matches!(execution.state, State::Running);
            let Some(oldest) = self.by_number.iter().find(has_ended).map(|(number, _)| *number) else { break };
            self.remove(oldest);
        }
    }
}

/// A response with another id.
fn spelt(text: &Bytes, id: Option<&RawValue>) -> Bytes {
    let spelt = id.and_then(|id| splice::set(std::str::from_utf8(text).ok()?, &["id"], id.get()));
    spelt.map_or_else(|| text.clone(), Bytes::from)
}
