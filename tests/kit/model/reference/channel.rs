//! Joins, messages and ends of one topic.

use serde_json::{Value, json};

use super::super::script::{Act, BINARY, End, JoinEnd, JoinScript, Script};
use super::{Asks, CHANNELS_MAX, Channel, Frame, Kind, Message, State, Task, Version, Work, World, binary, is_binary};

impl World {
    /// Handles what a client has sent, as far as it is read.
    pub(super) fn read(&mut self, client: usize) {
        while !self.is_clogged(client)
            && let Some(message) = self.clients[client].unread.pop_front()
        {
            self.obey(client, message);
        }
    }

    fn obey(&mut self, client: usize, message: Message) {
        let Message { join_ref, reference, topic, asks } = &message;
        match asks {
            Asks::Malformed => return self.close(client, 1011),
            Asks::Heartbeat => return self.reply(client, &Value::Null, reference, "phoenix", "ok", json!({})),
            _ if !topic.starts_with("room:") => return self.unjoined(client, message),
            _ => {}
        }
        let Some(channel) = self.find(client, topic) else { return self.unjoined(client, message) };
        let current = self.channels[channel].awaited.as_ref().unwrap_or(&self.channels[channel].join_ref);
        match asks {
            Asks::Join { .. } => self.rejoin(channel, message),
            // Of an earlier join.
            _ if !join_ref.is_null() && join_ref != current => {}
            _ => self.work(channel, Work::Message(message)),
        }
    }

    /// A message to a topic that the client has not joined.
    fn unjoined(&mut self, client: usize, message: Message) {
        let Message { join_ref, reference, topic, asks } = &message;
        match asks {
            Asks::Join { n, script } if topic.starts_with("room:") => {
                self.join(client, topic, join_ref, reference, *n, script, None);
            }
            Asks::Leave => self.reply(client, join_ref, reference, topic, "ok", json!({})),
            _ => {
                self.reply(client, &Value::Null, reference, topic, "error", json!({"reason": "unmatched topic"}));
            }
        }
    }

    /// A join of a topic that is joined already: it takes the old channel's place, unless that is to end by what came
    /// before: then it waits for that.
    fn rejoin(&mut self, channel: usize, message: Message) {
        let is_ending =
            |work: &Work| matches!(work, Work::Message(Message { asks: Asks::Leave | Asks::Join { .. }, .. }));
        let is_joining = matches!(&self.channels[channel].state, State::Busy(Task { kind: Kind::Join(..), .. }));
        if is_joining || self.channels[channel].waiting.iter().any(is_ending) {
            self.channels[channel].awaited = Some(message.join_ref.clone());
            return self.channels[channel].waiting.push_back(Work::Message(message));
        }
        let Message { join_ref, reference, topic, asks: Asks::Join { n, script } } = message else {
            unreachable!("only joins come here");
        };
        let client = self.channels[channel].client;
        self.end(channel, "DuplicateJoin");
        let replaces = Some(self.channels[channel].join_ref.clone());
        self.join(client, &topic, &join_ref, &reference, n, &script, replaces);
    }

    #[expect(clippy::too_many_arguments, reason = "the parts of one join")]
    fn join(
        &mut self,
        client: usize,
        topic: &str,
        join_ref: &Value,
        reference: &Value,
        n: u64,
        script: &JoinScript,
        replaces: Option<Value>,
    ) {
        if self.of(client).filter(|channel| self.channels[*channel].is_joined).count() == CHANNELS_MAX {
            let reason = json!({"reason": "too many channels joined"});
            return self.reply(client, join_ref, reference, topic, "error", reason);
        }
        self.channels.push(Channel {
            client,
            topic: topic.to_owned(),
            joined_n: n,
            join_ref: join_ref.clone(),
            push_ref: if join_ref.is_null() { reference.clone() } else { join_ref.clone() },
            is_joined: true,
            is_subscribed: false,
            subscriptions: Vec::new(),
            state: State::Idle,
            waiting: [].into(),
            awaited: None,
            replaces,
            is_doomed: false,
            at_end: None,
        });
        let acts = script.acts.iter().cloned().enumerate().collect();
        let task =
            Task { kind: Kind::Join(reference.clone(), script.end), n, acts, results: Vec::new(), said: Vec::new() };
        self.run(self.channels.len() - 1, task);
    }

    /// A join has been decided.
    fn joined(&mut self, channel: usize, reference: &Value, n: u64, end: JoinEnd) {
        let (client, topic) = (self.channels[channel].client, self.channels[channel].topic.clone());
        let is_ok = matches!(end, JoinEnd::Ok | JoinEnd::OkBinary);
        if !self.channels[channel].is_joined {
            // Its connection is gone. A channel that would have been is told so.
            return match is_ok {
                true => self.terminate(channel, "SocketClosed"),
                false => self.over(channel),
            };
        }
        let (status, response) = match end {
            JoinEnd::Ok => ("ok", json!({"n": n})),
            JoinEnd::OkBinary if self.clients[client].version == Version::V2 => ("ok", binary(BINARY)),
            JoinEnd::OkBinary => return self.close(client, 1011),
            JoinEnd::Unencodable => {
                self.channels[channel].is_joined = false;
                self.over(channel);
                return self.close(client, 1011);
            }
            JoinEnd::Refuse => ("error", json!({"n": n})),
            JoinEnd::Panic => ("error", json!({"reason": "join crashed"})),
        };
        if is_ok {
            self.channels[channel].is_subscribed = true;
        } else {
            self.channels[channel].is_joined = false;
            self.over(channel);
        }
        let join_ref = self.channels[channel].join_ref.clone();
        self.reply(client, &join_ref, reference, &topic, status, response);
        if let Some(join_ref) = self.channels[channel].replaces.take() {
            self.say_end(client, &topic, &join_ref, true);
        }
        self.resume(channel);
    }

    /// Gives a channel something to do, now or when it is free.
    pub(super) fn work(&mut self, channel: usize, work: Work) {
        if !matches!(self.channels[channel].state, State::Idle) {
            return self.channels[channel].waiting.push_back(work);
        }
        let told = |kind, n, script: Script| Task {
            kind,
            n,
            acts: script.acts.into_iter().enumerate().collect(),
            results: Vec::new(),
            said: Vec::new(),
        };
        let (client, topic) = (self.channels[channel].client, self.channels[channel].topic.clone());
        match work {
            Work::Message(Message { reference, asks, .. }) => match asks {
                Asks::Do { n, script } => self.run(channel, told(Kind::Message(reference, script.end), n, script)),
                Asks::Leave => {
                    let push_ref = self.channels[channel].push_ref.clone();
                    self.reply(client, &push_ref, &reference, &topic, "ok", json!({}));
                    self.stop(channel, "Left", true);
                }
                Asks::Unknown => self.stop(channel, "Stopped(Error)", false),
                Asks::OddEvent => self.stop(channel, "Crashed", false),
                Asks::Join { .. } | Asks::Heartbeat | Asks::Malformed => unreachable!("no channel is asked for these"),
            },
            Work::Info(n, script) => self.run(channel, told(Kind::Info(script.end), n, script)),
            Work::Heard(broadcast) => self.push(channel, "heard", broadcast),
            Work::Intercepted(broadcast) => self.push(channel, "revealed", broadcast),
        }
    }

    /// A handler is through: `panicked`, or as its script says.
    pub(super) fn through(&mut self, channel: usize, task: Task, panicked: bool) {
        let (end, reference) = match task.kind {
            Kind::Join(reference, end) => return self.joined(channel, &reference, task.n, end),
            Kind::Terminate => return self.over(channel),
            Kind::Message(reference, end) => (end, Some(reference)),
            Kind::Info(end) => (end, None),
        };
        if !self.channels[channel].is_joined {
            self.disappear(channel);
            let client_left = !self.is_open(self.channels[channel].client);
            return self.terminate(channel, if client_left { "SocketClosed" } else { "DuplicateJoin" });
        }
        if panicked || std::mem::take(&mut self.channels[channel].is_doomed) {
            self.stop(channel, "Crashed", false);
        } else {
            self.decide(channel, end, reference, json!({"n": task.n, "results": task.results}));
        }
        self.resume(channel);
    }

    fn decide(&mut self, channel: usize, end: End, reference: Option<Value>, response: Value) {
        let reply = match end {
            End::Ok | End::StopNormalAfterOk => Some(("ok", response)),
            End::OkBinary => Some(("ok", binary(BINARY))),
            End::Error | End::StopErrorAfterError => Some(("error", response)),
            _ => None,
        };
        if let Some((status, response)) = reply {
            let client = self.channels[channel].client;
            let is_carried = !is_binary(&response) || self.clients[client].version == Version::V2;
            let Some(reference) = reference.filter(|_| is_carried) else {
                return self.stop(channel, "Crashed", false);
            };
            let (push_ref, topic) = (self.channels[channel].push_ref.clone(), self.channels[channel].topic.clone());
            self.reply(client, &push_ref, &reference, &topic, status, response);
        }
        match end {
            End::NoReply | End::Ok | End::Error | End::OkBinary => {}
            End::StopNormal | End::StopNormalAfterOk => self.stop(channel, "Stopped(Normal)", true),
            End::StopShutdown => self.stop(channel, "Stopped(Shutdown)", true),
            End::StopError | End::StopErrorAfterError => self.stop(channel, "Stopped(Error)", false),
            End::Panic => self.stop(channel, "Crashed", false),
        }
    }

    /// A reply that was kept for later.
    pub(super) fn reply_late(&mut self, channel: usize, reference: &Value, n: u64, is_binary: bool) {
        let (client, is_joined) = (self.channels[channel].client, self.channels[channel].is_joined);
        if !is_joined {
            return;
        }
        if is_binary && self.clients[client].version == Version::V1 {
            return match self.channels[channel].state {
                State::Idle => self.stop(channel, "Crashed", false),
                _ => self.channels[channel].is_doomed = true,
            };
        }
        let response = if is_binary { binary(BINARY) } else { json!({"late": n}) };
        let (push_ref, topic) = (self.channels[channel].push_ref.clone(), self.channels[channel].topic.clone());
        self.reply(client, &push_ref, reference, &topic, "ok", response);
    }

    /// Works off what waited for a channel, as if it came now: for this channel, for the next one of the topic, for none.
    fn resume(&mut self, channel: usize) {
        let (client, topic) = (self.channels[channel].client, self.channels[channel].topic.clone());
        self.channels[channel].awaited = None;
        let mut has_yielded = false;
        for work in std::mem::take(&mut self.channels[channel].waiting) {
            has_yielded |= match &work {
                Work::Message(Message { asks: Asks::Do { script, .. }, .. }) | Work::Info(_, script) => {
                    script.acts.contains(&Act::Yield)
                }
                // Does it find the handler through?
                Work::Message(Message { asks: Asks::Join { .. }, .. }) => {
                    self.is_ambiguous |= has_yielded;
                    false
                }
                _ => false,
            };
            match (self.find(client, &topic), work) {
                _ if !self.is_open(client) => return,
                (Some(channel), Work::Message(message @ Message { asks: Asks::Join { .. }, .. })) => {
                    self.rejoin(channel, message);
                }
                (Some(channel), work @ Work::Message(_)) => self.work(channel, work),
                (None, Work::Message(message)) => self.unjoined(client, message),
                // What others sent to this channel is for no other one.
                (Some(present), work) if present == channel => self.work(channel, work),
                _ => {}
            }
        }
    }

    /// Ends a channel and tells its client.
    pub(super) fn stop(&mut self, channel: usize, why: &str, in_order: bool) {
        self.end(channel, why);
        let Channel { client, topic, join_ref, .. } = &self.channels[channel];
        let (client, topic, join_ref) = (*client, topic.clone(), join_ref.clone());
        self.say_end(client, &topic, &join_ref, in_order);
    }

    fn say_end(&mut self, client: usize, topic: &str, join_ref: &Value, in_order: bool) {
        let (event, payload) =
            if in_order { ("phx_close", json!({})) } else { ("phx_error", json!({"reason": "channel_crash"})) };
        let (join_ref, reference) = (join_ref.clone(), join_ref.clone());
        let (topic, event) = (topic.to_owned(), event.to_owned());
        self.frame(client, Frame { join_ref, reference, topic, event, status: None, payload });
    }

    /// Nothing of its topic reaches the client any more, presences leave, `terminate` runs: now, or behind the handler that
    /// waits.
    fn end(&mut self, channel: usize, why: &str) {
        self.disappear(channel);
        if matches!(self.channels[channel].state, State::Idle) {
            self.terminate(channel, why);
        } else {
            self.channels[channel].waiting.clear();
        }
        self.channels[channel].is_joined = false;
        self.channels[channel].is_doomed = false;
    }

    /// Ends what a channel holds outside of itself.
    pub(super) fn disappear(&mut self, channel: usize) {
        self.channels[channel].is_subscribed = false;
        self.channels[channel].subscriptions.clear();
        self.timers.retain(|timer| timer.channel != channel);
        self.untrack_all(channel);
    }

    pub(super) fn terminate(&mut self, channel: usize, why: &str) {
        if !matches!(self.channels[channel].state, State::Idle) {
            return;
        }
        let Channel { client, topic, joined_n: n, at_end, .. } = &mut self.channels[channel];
        let (n, acts) = (*n, at_end.take().map(|script| script.acts).unwrap_or_default());
        self.terminated.push(format!("c{client}/{topic} joined by {n}: {why}"));
        let acts = acts.into_iter().enumerate().collect();
        self.run(channel, Task { kind: Kind::Terminate, n, acts, results: Vec::new(), said: Vec::new() });
    }

    fn over(&mut self, channel: usize) {
        self.channels[channel].state = State::Over;
        self.disappear(channel);
    }

    pub(super) fn reply(
        &mut self,
        client: usize,
        join_ref: &Value,
        reference: &Value,
        topic: &str,
        status: &str,
        payload: Value,
    ) {
        let (join_ref, reference) = match is_binary(&payload) {
            true => (as_text(join_ref), as_text(reference)),
            false => (join_ref.clone(), reference.clone()),
        };
        let (topic, event, status) = (topic.to_owned(), "phx_reply".to_owned(), Some(status.to_owned()));
        self.frame(client, Frame { join_ref, reference, topic, event, status, payload });
    }
}

/// A reference in a binary message.
pub(super) fn as_text(reference: &Value) -> Value {
    match reference {
        Value::Null => "".into(),
        Value::String(text) => text.as_str().into(),
        other => other.to_string().into(),
    }
}
