//! What may be said of the order in which a client sees things, and of the names that only Bennu gives.

use std::collections::HashMap;

use serde_json::Value;

use super::reference::Frame;

/// Names the order that a frame belongs to. What one channel says on its topic, its own broadcasts included, comes in
/// order; so does what another one broadcasts, and what its broadcasts bring about in a channel. There is no order between
/// these, nor between presences of different channels.
pub fn lane(client: usize, frame: &Frame) -> String {
    let topic = &frame.topic;
    let by = || first_by(&frame.payload).unwrap_or("endpoint");
    match frame.event.as_str() {
        "presence_diff" => format!("{topic}: presences of {}", by()),
        "heard" => format!("{topic}: heard {} of {}", frame.payload["event"], by()),
        "revealed" => format!("{topic}: revealed of {}", by()),
        "shout" if by() != format!("c{client}/{topic}") => format!("{topic}: broadcasts of {}", by()),
        _ => topic.clone(),
    }
}

/// Whose doing a payload is.
fn first_by(payload: &Value) -> Option<&str> {
    match payload {
        Value::Object(members) => {
            members.get("by").and_then(Value::as_str).or_else(|| members.values().find_map(first_by))
        }
        Value::Array(values) => values.iter().find_map(first_by),
        _ => None,
    }
}

/// Which random names of Bennu's (`phx_ref`) stand for which of the reference's.
#[derive(Default)]
pub struct Names {
    actual: HashMap<String, String>,
    expected: HashMap<String, String>,
}

impl Names {
    /// Whether two payloads are the same but for those names, which have to be the same at each place.
    pub fn same(&mut self, expected: &Value, actual: &Value) -> bool {
        match (expected, actual) {
            (Value::String(name), Value::String(actual)) if name.starts_with('§') => {
                let is_known = self.actual.entry(name.clone()).or_insert_with(|| actual.clone()) == actual;
                is_known && self.expected.entry(actual.clone()).or_insert_with(|| name.clone()) == name
            }
            (Value::Object(expected), Value::Object(actual)) => {
                expected.len() == actual.len()
                    && expected
                        .iter()
                        .all(|(name, expected)| actual.get(name).is_some_and(|actual| self.same(expected, actual)))
            }
            (Value::Array(expected), Value::Array(actual)) => {
                expected.len() == actual.len()
                    && expected.iter().zip(actual).all(|(expected, actual)| self.same(expected, actual))
            }
            _ => expected == actual,
        }
    }
}

/// What a client knows of its topics by what it has seen, whatever the order of different publishers.
#[derive(Default)]
pub struct Sight {
    /// Joins that were asked for, by their ref: topic and join_ref.
    joins: HashMap<String, (String, Value)>,
    /// The joins of each topic whose ok came and whose end did not.
    joined: HashMap<String, Vec<Value>>,
}

impl Sight {
    pub fn asked_to_join(&mut self, reference: &Value, topic: &str, join_ref: &Value) {
        self.joins.insert(reference.to_string(), (topic.to_owned(), join_ref.clone()));
    }

    /// # Errors
    /// The frame comes before its topic's join is answered, or after its end.
    pub fn sees(&mut self, frame: &Frame) -> Result<(), String> {
        let joined = self.joined.entry(frame.topic.clone()).or_default();
        match frame.event.as_str() {
            "phx_reply" => {
                // Binary frames have references as text; the numbers of one client's messages are unique.
                let of_text = frame.reference.as_str().unwrap_or_default().to_owned();
                let asked = self.joins.remove(&frame.reference.to_string()).or_else(|| self.joins.remove(&of_text));
                if let (Some((_, join_ref)), Some("ok")) = (asked, frame.status.as_deref()) {
                    joined.push(join_ref);
                }
            }
            "phx_close" | "phx_error" => {
                let Some(at) = joined.iter().position(|join_ref| *join_ref == frame.reference) else {
                    return Err(format!("the end of what was not joined: {frame:?}"));
                };
                joined.remove(at);
            }
            _ if joined.is_empty() => return Err(format!("it belongs to a topic that is not joined: {frame:?}")),
            _ => {}
        }
        Ok(())
    }
}
