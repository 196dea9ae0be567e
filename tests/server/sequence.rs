//! What a client sees first: presence diffs among replies, and close frames last, on the reference application.

use std::time::Duration;

use serde_json::Value;

use crate::reference::Server;
use crate::transcripts::client::Client;
use crate::transcripts::frames::text_frame;

const V2: &str = "vsn=2.0.0";
const LIMIT: Duration = Duration::from_secs(10);
/// Clients that are closed while their topic is flooded. Unsubscribing after the close frame showed in one of ten.
const CLOSED_UNDER_FLOOD: usize = 150;
/// Broadcasts of one packet of the flood.
const FLOOD: usize = 200;

fn joined(server: &Server, topic: &str) -> Client {
    let mut client = Client::open(server.address(), "/socket/websocket", V2);
    client.send_text(&format!(r#"["1","1","{topic}","phx_join",{{}}]"#));
    assert!(client.next_text().contains("phx_reply"), "the join is answered first");
    client
}

#[test]
fn a_presence_diff_keeps_its_place_among_what_the_channel_says() {
    let server = Server::shared();
    for round in 0..20 {
        let mut client = joined(&server, &format!("room:seq{round}"));
        let frame = |text: &str| text_frame(&text.replace("TOPIC", &format!("room:seq{round}")));

        client.write(
            &[
                frame(r#"["1","2","TOPIC","echo",{}]"#),
                frame(r#"["1","3","TOPIC","push",{}]"#),
                frame(r#"["1","4","TOPIC","presence_track",{"key":"ann","meta":{}}]"#),
            ]
            .concat(),
        );

        let events: Vec<String> = (0..5)
            .map(|_| {
                let message: Value = serde_json::from_str(&client.next_text()).expect("V2 text is JSON");
                message[3].as_str().expect("an event is a string").to_owned()
            })
            .collect();
        assert_eq!(events, ["phx_reply", "pushed", "presence_diff", "presence_state", "phx_reply"]);
    }
}

#[test]
fn nothing_follows_a_close_frame_however_busy_the_topic_is() {
    let server = Server::shared();
    let topic = "room:flooded";
    let flooder = joined(&server, topic);
    let shout = text_frame(&format!(r#"["1",null,"{topic}","broadcast_from",{{}}]"#));
    let flood = shout.repeat(FLOOD);

    for _ in 0..CLOSED_UNDER_FLOOD / 15 {
        let clients: Vec<Client> = (0..15).map(|_| joined(&server, topic)).collect();
        flooder.write(&flood);
        clients.iter().for_each(|client| client.send_text("garbage"));

        for client in &clients {
            assert!(client.await_closed(LIMIT), "a malformed frame closes the socket");
            let kinds: Vec<String> = client.events().iter().map(|event| event.kind.to_string()).collect();
            let close = kinds.iter().position(|kind| kind == "close").expect("it is closed with a frame");
            assert!(kinds[close + 1..].iter().all(|kind| kind == "tcp_closed"), "{:?}", &kinds[close..]);
        }
    }
}
