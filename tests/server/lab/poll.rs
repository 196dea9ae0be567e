//! A long-poll client: one request a connection.

use bennu::channel::LongPollOptions;
use serde_json::{Value, json};

use super::Lab;

/// A long-poll session.
pub struct Poll<'a> {
    lab: &'a Lab,
    /// Path and query of its requests.
    pub target: String,
}

impl<'a> Poll<'a> {
    /// A session at `/socket/longpoll`.
    #[track_caller]
    pub fn start(lab: &'a Lab) -> Self {
        Self::start_with(lab, "vsn=2.0.0")
    }

    /// A session begun with this query.
    #[track_caller]
    pub fn start_with(lab: &'a Lab, qs: &str) -> Self {
        let (status, body) = lab.http("GET", &format!("/socket/longpoll?{qs}"), &[], None);
        assert_eq!(status, 200, "{body}");
        let answer: Value = serde_json::from_str(&body).expect("JSON");
        assert_eq!(answer["status"], 410, "a new session: {answer}");
        let token = answer["token"].as_str().expect("a new session has a token");
        Poll { lab, target: format!("/socket/longpoll?vsn=2.0.0&token={token}") }
    }

    /// Asks for a session; gives the HTTP status and the body.
    pub fn try_start(lab: &Lab) -> (u16, String) {
        lab.http("GET", "/socket/longpoll?vsn=2.0.0", &[], None)
    }

    /// A session that has joined a topic.
    #[track_caller]
    pub fn joined(lab: &'a Lab, topic: &str) -> Self {
        let poll = Self::start(lab);
        assert_eq!(poll.post(&json!(["1", "1", topic, "phx_join", {}]).to_string()), json!({"status": 200}));
        assert_eq!(poll.messages(), [json!(["1", "1", topic, "phx_reply", {"status": "ok", "response": {}}])]);
        poll
    }

    /// Polls.
    #[track_caller]
    pub fn get(&self) -> Value {
        let (status, body) = self.lab.http("GET", &self.target, &[], None);
        assert_eq!(status, 200, "{body}");
        serde_json::from_str(&body).expect("JSON")
    }

    /// Posts a batch, one message a line.
    #[track_caller]
    pub fn post(&self, body: &str) -> Value {
        let (status, body) = self.try_post(body);
        assert_eq!(status, 200, "{body}");
        serde_json::from_str(&body).expect("JSON")
    }

    /// Posts a batch, one message a line; gives the HTTP status and the body.
    pub fn try_post(&self, body: &str) -> (u16, String) {
        self.lab.http("POST", &self.target, &[("Content-Type", "application/x-ndjson")], Some(body))
    }

    /// The messages of the next poll, which has to have some.
    #[track_caller]
    pub fn messages(&self) -> Vec<Value> {
        let answer = self.get();
        assert_eq!(answer["status"], 200, "{answer}");
        let messages = answer["messages"].as_array().expect("a list").iter();
        messages.map(|message| serde_json::from_str(message.as_str().expect("a text")).expect("JSON")).collect()
    }

    /// Polls until this many messages have come.
    #[track_caller]
    pub fn take(&self, count: usize) -> Vec<Value> {
        let mut taken = Vec::new();
        while taken.len() < count {
            taken.extend(self.messages());
        }
        assert_eq!(taken.len(), count, "{taken:?}");
        taken
    }
}

impl Lab {
    /// With long poll, and some of its settings changed.
    pub fn with_longpoll(change: impl FnOnce(&mut LongPollOptions)) -> Self {
        let mut longpoll = LongPollOptions::default();
        change(&mut longpoll);
        Lab::with_socket(|options| options.longpoll = Some(longpoll))
    }
}
