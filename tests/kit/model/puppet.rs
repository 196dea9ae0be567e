//! The channel of the random conversations: does what its client tells it.

use std::collections::HashMap;
use std::panic::resume_unwind;
use std::sync::Arc;
use std::time::Duration;

use bennu::channel::{Reason, ReplyHandle, StopReason};
use bennu::{Broadcast, Channel, Cx, JoinCx, Next, Payload, Refusal, Reply};
use parking_lot::Mutex;
use serde_json::{Value, json};
use tokio::sync::oneshot;

use super::script::{Act, BINARY, End, Gate, JoinEnd, JoinScript, Script, Told};

/// What the test holds of all channels: who waits, and who has ended.
#[derive(Default)]
pub struct Stage {
    gates: Mutex<HashMap<Gate, Waiting>>,
    terminated: Mutex<Vec<String>>,
}

enum Waiting {
    Handler(oneshot::Sender<()>),
    Reply(ReplyHandle, Reply),
}

impl Stage {
    async fn wait(&self, gate: Gate) {
        let (opener, opened) = oneshot::channel();
        self.gates.lock().insert(gate, Waiting::Handler(opener));
        opened.await.expect("the stage outlives its channels");
    }

    /// Opens a gate. False if nothing waits there.
    pub fn open(&self, gate: Gate) -> bool {
        match self.gates.lock().remove(&gate) {
            Some(Waiting::Handler(opener)) => opener.send(()).is_ok(),
            // Whether the connection is still there is the channel's affair.
            Some(Waiting::Reply(handle, reply)) => handle.send(reply).is_ok() | true,
            None => false,
        }
    }

    /// Whose `terminate` ran since the last call, and why.
    pub fn take_terminated(&self) -> Vec<String> {
        std::mem::take(&mut self.terminated.lock())
    }
}

/// Who a client is: its number.
pub struct ClientName(pub usize);

pub enum Info {
    Do(Told<Script>),
    Heard(Broadcast),
}

pub struct Puppet {
    /// Its client and topic.
    name: String,
    joined_n: u64,
    stage: Arc<Stage>,
    at_end: Option<Script>,
}

impl Channel for Puppet {
    type Info = Info;
    const INTERCEPT: &'static [&'static str] = &["secret"];

    async fn join(topic: &str, params: Payload, cx: &mut JoinCx<Self>) -> Result<(Self, Payload), Refusal> {
        let Told { n, script } = params.parse::<Told<JoinScript>>()?;
        let stage = cx.state::<Stage>().expect("the route has it");
        for act in script.acts {
            match act {
                Act::Subscribe(topic) => cx.subscribe(&topic, Info::Heard).expect("there is room"),
                Act::Wait(gate) => stage.wait(gate).await,
                Act::Yield => tokio::task::yield_now().await,
                Act::Info(script) => {
                    // A join may outlive its connection.
                    let _ = cx.handle().send(Info::Do(Told { n, script: *script }));
                }
                other => panic!("a join can't {other:?}"),
            }
        }
        let name = format!("c{}/{topic}", cx.assigns::<ClientName>().expect("connect gave it").0);
        let puppet = Puppet { name, joined_n: n, stage, at_end: None };
        match script.end {
            JoinEnd::Ok => Ok((puppet, json!({"n": n}).into())),
            JoinEnd::OkBinary => Ok((puppet, Payload::Binary(BINARY.into()))),
            JoinEnd::Refuse => Err(Refusal::Reply(json!({"n": n}).into())),
            JoinEnd::Panic => resume_unwind(Box::new("asked to")),
            JoinEnd::Unencodable => {
                let no_json: HashMap<(u8, u8), u8> = [((1, 2), 3)].into();
                Ok((puppet, Payload::json(&no_json)?))
            }
        }
    }

    async fn handle_in(&mut self, event: &str, payload: Payload, cx: &mut Cx<Self>) -> Next {
        match payload.parse() {
            Ok(told) if event == "do" => self.perform(told, cx).await,
            _ => Next::unknown(event),
        }
    }

    async fn handle_info(&mut self, info: Info, cx: &mut Cx<Self>) -> Next {
        match info {
            Info::Do(told) => self.perform(told, cx).await,
            Info::Heard(broadcast) => {
                let payload = shown(broadcast.payload());
                cx.push("heard", json!({"topic": broadcast.topic(), "event": broadcast.event(), "payload": payload}));
                Next::NoReply
            }
        }
    }

    async fn handle_out(&mut self, event: &str, payload: &Payload, cx: &mut Cx<Self>) -> Next {
        cx.push("revealed", json!({"event": event, "payload": shown(payload)}));
        Next::NoReply
    }

    async fn terminate(&mut self, reason: &Reason, cx: &mut Cx<Self>) {
        let why = match reason {
            Reason::Stopped(StopReason::Error(_)) => "Stopped(Error)".to_owned(),
            Reason::Crashed(_) => "Crashed".to_owned(),
            other => format!("{other:?}"),
        };
        self.stage.terminated.lock().push(format!("{} joined by {}: {why}", self.name, self.joined_n));
        if let Some(script) = self.at_end.take() {
            let _ = self.perform(Told { n: self.joined_n, script }, cx).await;
        }
    }
}

impl Puppet {
    async fn perform(&mut self, Told { n, script }: Told<Script>, cx: &mut Cx<Self>) -> Next {
        let mut results = Vec::new();
        for (i, act) in script.acts.into_iter().enumerate() {
            let said = json!({"by": self.name, "n": n, "i": i});
            match act {
                Act::Push => cx.push("pushed", said),
                Act::PushList => cx.push("pushed", json!([said])),
                Act::PushBinary => cx.push("pushed", Payload::Binary(BINARY.into())),
                Act::Shout => cx.broadcast("shout", said),
                Act::ShoutFrom => cx.broadcast_from("shout", said),
                Act::Secret => cx.broadcast("secret", said),
                Act::ShoutOn(topic) => cx.broadcast_on(&topic, "shout", said).expect("there is room"),
                Act::Track(key) => results.push(cx.track(&key, said).is_ok()),
                Act::Update(key) => results.push(cx.update(&key, said).is_ok()),
                Act::Untrack(key) => cx.untrack(&key),
                Act::Subscribe(topic) => cx.subscribe(&topic, Info::Heard).expect("there is room"),
                Act::Unsubscribe(topic) => cx.unsubscribe(&topic),
                Act::Wait(gate) => self.stage.wait(gate).await,
                Act::Yield => tokio::task::yield_now().await,
                Act::Later(gate, binary) => {
                    if let Some(handle) = cx.reply_handle() {
                        let response = if binary { Payload::Binary(BINARY.into()) } else { json!({"late": n}).into() };
                        self.stage.gates.lock().insert(gate, Waiting::Reply(handle, Reply::ok(response)));
                    }
                }
                Act::Info(script) => {
                    // A handler may outlive its connection.
                    let _ = cx.handle().send(Info::Do(Told { n, script: *script }));
                }
                Act::After(ms, script) => {
                    cx.send_after(Duration::from_millis(ms), Info::Do(Told { n, script: *script }));
                }
                Act::AtEnd(script) => self.at_end = Some(*script),
            }
        }
        let response = json!({"n": n, "results": results});
        let stop = |reason, reply| Next::Stop { reason, reply };
        match script.end {
            End::NoReply => Next::NoReply,
            End::Ok => Next::ok(response),
            End::Error => Next::error(response),
            End::OkBinary => Next::ok(Payload::Binary(BINARY.into())),
            End::StopNormal => stop(StopReason::Normal, None),
            End::StopShutdown => stop(StopReason::Shutdown, None),
            End::StopError => Next::crash("asked to"),
            End::StopNormalAfterOk => stop(StopReason::Normal, Some(Reply::ok(response))),
            End::StopErrorAfterError => stop(StopReason::Error("asked to".to_owned()), Some(Reply::error(response))),
            End::Panic => resume_unwind(Box::new("asked to")),
        }
    }
}

/// A payload as JSON, whatever it is.
fn shown(payload: &Payload) -> Value {
    payload.parse().unwrap_or_else(|_| json!({"binary": payload.as_bytes()}))
}
