//! The crate `phyllo`. It tells neither how a join went nor that the connection was lost.

use std::collections::HashMap;

use phyllo::channel::{ChannelBuilder, ChannelHandler};
use phyllo::message::{Event, Message, Payload, PushStatus};
use phyllo::socket::{SocketBuilder, SocketHandler};
use serde_json::{Value, json};
use tokio::sync::broadcast::Receiver;
use url::Url;

use super::Driven;
use super::thread::{self, Commands, Report};

type Channel = ChannelHandler<String, String, Value, Value>;
type Events = Receiver<Message<String, String, Value, Value>>;

/// Starts it on a socket's URL, in a thread of its own.
pub fn phyllo(url: &str) -> Driven {
    let endpoint = Url::parse(&format!("{url}/websocket")).expect("a URL");
    thread::start("phyllo", |commands, report| drive(endpoint, commands, report))
}

async fn drive(endpoint: Url, mut commands: Commands, report: Report) {
    let mut socket: SocketHandler<String> = SocketBuilder::new(endpoint).build().await;
    let mut channels: HashMap<String, Channel> = HashMap::new();
    while let Some(command) = commands.recv().await {
        let text = |name: &str| command[name].as_str().unwrap_or_default().to_owned();
        let topic = text("topic");
        match text("do").as_str() {
            "join" => {
                let asked = ChannelBuilder::new(topic.clone()).params(Some(command["params"].clone()));
                let (channel, events) = socket.channel(asked).await.expect("a new topic");
                tokio::spawn(watch(topic.clone(), events, report.clone()));
                channels.insert(topic, channel);
            }
            "push" => {
                let channel = channels[&topic].clone();
                tokio::spawn(push(channel, topic, text("event"), command["payload"].clone(), report.clone()));
            }
            "leave" => {
                let channel = channels.remove(&topic).expect("a joined topic");
                channel.close().await.expect("a reply");
                report.tell(json!({"saw": "left", "topic": topic}));
            }
            "quit" => break,
            other => panic!("asked to do {other}"),
        }
    }
    socket.close();
}

async fn push(mut channel: Channel, topic: String, event: String, payload: Value, report: Report) {
    // Without a reply it waits until the driver ends.
    let Ok(reply) = channel.send_no_timeout(Event::Event(event), Payload::Custom(payload)).await else { return };
    let Some(Payload::PushReply { status, response }) = reply.payload else { panic!("no reply: {reply:?}") };
    let status = if status == PushStatus::Ok { "ok" } else { "error" };
    report.tell(json!({"saw": "reply", "topic": topic, "status": status, "response": response}));
}

async fn watch(topic: String, mut events: Events, report: Report) {
    while let Ok(message) = events.recv().await {
        if let (Event::Event(event), Some(Payload::Custom(payload))) = (message.event, message.payload) {
            report.tell(json!({"saw": "event", "topic": topic, "event": event, "payload": payload}));
        }
    }
}
