//! What handlers do.

use serde_json::{Value, json};

use super::super::script::{Act, BINARY};
use super::channel::as_text;
use super::{Frame, Kind, Late, Presence, Said, State, Task, Timer, Version, Work, World, binary, is_binary};

impl World {
    /// Runs a handler until it waits or is through.
    pub(super) fn run(&mut self, channel: usize, mut task: Task) {
        while let Some((i, act)) = task.acts.pop_front() {
            if matches!(act, Act::Wait(_) | Act::Yield) {
                self.say(channel, &mut task);
            }
            if let Act::Wait(_) = act {
                task.acts.push_front((i, act));
                self.channels[channel].state = State::Busy(task);
                return;
            }
            if !self.act(channel, &mut task, i, act) {
                return self.finish(channel, task, true);
            }
        }
        self.finish(channel, task, false);
    }

    /// What a handler pushes and broadcasts leaves when it waits or is through.
    fn say(&mut self, channel: usize, task: &mut Task) {
        for said in std::mem::take(&mut task.said) {
            match said {
                _ if self.channels[channel].is_doomed => {}
                Said::Push(payload) => self.push(channel, "pushed", payload),
                Said::Broadcast { topic, event, payload, except } => self.publish(&topic, event, &payload, except),
            }
        }
    }

    fn finish(&mut self, channel: usize, mut task: Task, panicked: bool) {
        self.say(channel, &mut task);
        self.channels[channel].state = State::Idle;
        self.through(channel, task, panicked);
    }

    /// Does one thing. False if that is a panic.
    fn act(&mut self, channel: usize, task: &mut Task, i: usize, act: Act) -> bool {
        let (client, topic) = (self.channels[channel].client, self.channels[channel].topic.clone());
        let version = self.clients[client].version;
        let n = task.n;
        let said = json!({"by": format!("c{client}/{topic}"), "n": n, "i": i});
        let is_joined = self.channels[channel].is_joined;
        match act {
            Act::PushList if version == Version::V2 => return false,
            Act::PushBinary if version == Version::V1 => return false,
            Act::Push => task.said.push(Said::Push(said)),
            Act::PushList => task.said.push(Said::Push(json!([said]))),
            Act::PushBinary => task.said.push(Said::Push(binary(BINARY))),
            Act::Shout => task.broadcasts(topic, "shout", said, None),
            Act::ShoutFrom => task.broadcasts(topic, "shout", said, Some(channel)),
            Act::Secret => task.broadcasts(topic, "secret", said, None),
            Act::ShoutOn(other) => task.broadcasts(other, "shout", said, None),
            Act::Track(key) => {
                let diff = self.track(channel, &key, said);
                task.results.push(diff.is_some());
                diff.into_iter().for_each(|diff| task.broadcasts(topic.clone(), "presence_diff", diff, None));
            }
            Act::Update(key) => {
                let diff = self.update(channel, &key, said);
                task.results.push(diff.is_some());
                diff.into_iter().for_each(|diff| task.broadcasts(topic.clone(), "presence_diff", diff, None));
            }
            Act::Untrack(key) => {
                let diff = self.untrack(channel, |tracked| tracked == key);
                diff.into_iter().for_each(|diff| task.broadcasts(topic.clone(), "presence_diff", diff, None));
            }
            Act::Subscribe(topic) if self.is_open(client) => self.channels[channel].subscriptions.push(topic),
            Act::Subscribe(_) => {}
            Act::Unsubscribe(topic) => self.channels[channel].subscriptions.retain(|held| *held != topic),
            Act::Wait(_) => unreachable!("waits are seen to before"),
            Act::Yield => self.has_yielded = true,
            Act::Later(gate, is_binary) => {
                if let Kind::Message(reference, _) = &task.kind {
                    self.late.push(Late { gate, channel, reference: reference.clone(), n, is_binary });
                }
            }
            Act::Info(script) => self.post(channel, Work::Info(n, *script)),
            Act::After(ms, script) => {
                if is_joined && !matches!(task.kind, Kind::Terminate) {
                    self.timers.push(Timer { at: self.now + ms, channel, n, script: *script });
                }
            }
            Act::AtEnd(script) => self.channels[channel].at_end = Some(*script),
        }
        true
    }

    /// Pushes to the channel's client; where its version can't carry that, the channel crashes.
    pub(super) fn push(&mut self, channel: usize, event: &str, payload: Value) {
        if !self.channels[channel].is_joined {
            return;
        }
        let (client, push_ref) = (self.channels[channel].client, &self.channels[channel].push_ref);
        let join_ref = if is_binary(&payload) { as_text(push_ref) } else { push_ref.clone() };
        let (topic, event) = (self.channels[channel].topic.clone(), event.to_owned());
        self.frame(client, Frame { join_ref, reference: Value::Null, topic, event, status: None, payload });
    }

    /// Publishes to everyone who hears the topic.
    pub(super) fn publish(&mut self, topic: &str, event: &str, payload: &Value, except: Option<usize>) {
        for channel in (0..self.channels.len()).filter(|channel| Some(*channel) != except) {
            let client = self.channels[channel].client;
            if self.channels[channel].is_subscribed && self.channels[channel].topic == topic {
                if event == "secret" {
                    self.post(channel, Work::Intercepted(json!({"event": event, "payload": payload})));
                } else if is_carried(self.clients[client].version, payload) {
                    let (topic, event, payload) = (topic.to_owned(), event.to_owned(), payload.clone());
                    let (join_ref, reference) = (Value::Null, Value::Null);
                    self.frame(client, Frame { join_ref, reference, topic, event, status: None, payload });
                }
            }
            let times = self.channels[channel].subscriptions.iter().filter(|held| *held == topic).count();
            for _ in 0..times {
                let heard = json!({"topic": topic, "event": event, "payload": payload});
                self.post(channel, Work::Heard(heard));
            }
        }
    }

    pub(super) fn post(&mut self, channel: usize, work: Work) {
        let client = self.channels[channel].client;
        if self.is_open(client) {
            let is_info = |work: &Work| matches!(work, Work::Info(..));
            let mut ahead = self.clients[client].mail.iter().filter(|(ahead, _)| *ahead == channel);
            self.is_ambiguous |= ahead.any(|(_, ahead)| is_info(ahead) != is_info(&work));
            self.clients[client].mail.push_back((channel, work));
        }
    }

    /// Begins a presence, and gives the diff to broadcast. None if the channel has one under this key.
    fn track(&mut self, channel: usize, key: &str, said: Value) -> Option<Value> {
        if self.presence(channel, key).is_some() {
            return None;
        }
        let topic = self.channels[channel].topic.clone();
        let meta = self.meta(said);
        let diff = json!({"joins": {key: {"metas": [&meta]}}, "leaves": {}});
        self.presences.push(Presence { topic, key: key.to_owned(), channel, meta });
        Some(diff)
    }

    fn update(&mut self, channel: usize, key: &str, said: Value) -> Option<Value> {
        let at = self.presence(channel, key)?;
        let mut meta = self.meta(said);
        let old = &mut self.presences[at].meta;
        meta["phx_ref_prev"] = old["phx_ref"].clone();
        let diff = json!({"joins": {key: {"metas": [&meta]}}, "leaves": {key: {"metas": [&*old]}}});
        *old = meta;
        Some(diff)
    }

    /// Ends a channel's presences under keys.
    fn untrack(&mut self, channel: usize, is_over: impl Fn(&str) -> bool) -> Option<Value> {
        let over = |presence: &mut Presence| presence.channel == channel && is_over(&presence.key);
        let gone: Vec<Presence> = self.presences.extract_if(.., over).collect();
        if gone.is_empty() {
            return None;
        }
        let leaves = gone.into_iter().map(|gone| (gone.key, json!({"metas": [gone.meta]})));
        Some(json!({"joins": {}, "leaves": leaves.collect::<serde_json::Map<_, _>>()}))
    }

    /// Ends all presences of a channel.
    pub(super) fn untrack_all(&mut self, channel: usize) {
        if let Some(diff) = self.untrack(channel, |_| true) {
            let topic = self.channels[channel].topic.clone();
            self.publish(&topic, "presence_diff", &diff, None);
        }
    }

    fn presence(&self, channel: usize, key: &str) -> Option<usize> {
        self.presences.iter().position(|presence| presence.channel == channel && presence.key == key)
    }

    /// A meta with a reference of its own; the real one is random, so this one only stands for it.
    fn meta(&mut self, said: Value) -> Value {
        self.phx_refs += 1;
        let mut meta = said;
        meta["phx_ref"] = format!("§{}", self.phx_refs).into();
        meta
    }
}

impl Task {
    fn broadcasts(&mut self, topic: String, event: &'static str, payload: Value, except: Option<usize>) {
        self.said.push(Said::Broadcast { topic, event, payload, except });
    }
}

fn is_carried(version: Version, payload: &Value) -> bool {
    version == Version::V2 && payload.is_object() || version == Version::V1 && !is_binary(payload)
}
