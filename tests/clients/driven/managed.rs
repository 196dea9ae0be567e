//! The crate `phoenix-channel-client` over the native transport of its authors.

use std::collections::HashMap;

use phoenix_channel_client::{ChannelEvent, ConnectionConfig, SocketEvent};
use phoenix_channel_runtime::{Payload, ProtocolEvent, ReplyStatus};
use phoenix_channel_runtime_native::{NativeChannel, NativeChannelEvents, NativeSocket, NativeSocketEvents};
use serde_json::{Value, json};

use super::Driven;
use super::thread::{self, Commands, Report};

/// Starts it on a socket's URL.
pub fn managed(url: &str) -> Driven {
    let endpoint = format!("{url}/websocket");
    thread::start("phoenix-channel-client", |commands, report| drive(endpoint, commands, report))
}

async fn drive(endpoint: String, mut commands: Commands, report: Report) {
    let socket = NativeSocket::spawn(endpoint, ConnectionConfig::default()).expect("the worker starts");
    tokio::spawn(watch_socket(socket.events(), report.clone()));
    socket.connect().await.expect("the worker runs");
    let mut channels: HashMap<String, NativeChannel> = HashMap::new();
    while let Some(command) = commands.recv().await {
        let text = |name: &str| command[name].as_str().unwrap_or_default().to_owned();
        let topic = text("topic");
        match text("do").as_str() {
            "join" => {
                let channel = socket.channel(&*topic, command["params"].clone()).await.expect("a new topic");
                tokio::spawn(watch_channel(topic.clone(), channel.events(), report.clone()));
                // How it went shows in the events.
                let _ = channel.join().await;
                channels.insert(topic, channel);
                socket.ping().await.expect("a heartbeat is answered");
            }
            "push" => {
                let reply = channels[&topic].call(text("event"), command["payload"].clone()).await.expect("a reply");
                let status = if reply.status == ReplyStatus::Ok { "ok" } else { "error" };
                report
                    .tell(json!({"saw": "reply", "topic": topic, "status": status, "response": value(reply.response)}));
            }
            "crash" => channels[&topic].cast("boom", json!({})).await.expect("the push is sent"),
            "leave" => drop(channels[&topic].leave().await.expect("a reply")),
            "quit" => break,
            other => panic!("asked to do {other}"),
        }
    }
    socket.shutdown().await.expect("the worker ends");
}

async fn watch_socket(mut events: NativeSocketEvents, report: Report) {
    let mut connected = false;
    while let Ok(event) = events.next().await {
        match event {
            SocketEvent::Connected => connected = true,
            SocketEvent::Disconnected { .. } if std::mem::take(&mut connected) => {
                report.tell(json!({"saw": "disconnected"}));
            }
            _ => {}
        }
    }
}

async fn watch_channel(topic: String, mut events: NativeChannelEvents, report: Report) {
    while let Ok(event) = events.next().await {
        let ChannelEvent::Protocol(event) = event else { continue };
        report.tell(match event {
            ProtocolEvent::Joined { response, .. } => {
                json!({"saw": "joined", "topic": topic, "response": value(response)})
            }
            ProtocolEvent::JoinError { response, .. } => {
                json!({"saw": "refused", "topic": topic, "response": value(response)})
            }
            ProtocolEvent::Left { .. } => json!({"saw": "left", "topic": topic}),
            ProtocolEvent::ChannelError { .. } => json!({"saw": "crashed", "topic": topic}),
            ProtocolEvent::Message(frame) => {
                json!({"saw": "event", "topic": topic, "event": frame.event, "payload": value(frame.payload)})
            }
            ProtocolEvent::ChannelClosed { .. } | ProtocolEvent::Reply { .. } => continue,
            other => json!({"saw": format!("{other:?}")}),
        });
    }
}

fn value(payload: Payload) -> Value {
    payload.into_json().expect("these channels speak JSON")
}
