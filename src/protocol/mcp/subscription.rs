//! `subscriptions/listen`: which changes a client of the stateless era wants to hear of, and how they are told.

use bytes::Bytes;
use serde::Serialize;
use serde_json::value::RawValue;
use serde_json::{Map, Value};

use crate::protocol::jsonrpc::{self, Fault, Object};
use crate::protocol::mcp::client::META_SUBSCRIPTION;
use crate::protocol::mcp::{SUBSCRIPTIONS_ACKNOWLEDGED, SUBSCRIPTIONS_PER_SESSION_MAX, URI_BYTES_MAX};

/// What a stream of changes brings: nothing that was not asked for.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Filter {
    /// That the tools are others.
    pub tools: bool,
    /// That the prompts are others.
    pub prompts: bool,
    /// That the resources are others.
    pub resources: bool,
    /// That the resource at one of these URIs has another content.
    pub uris: Vec<String>,
    /// How these tasks stand: the extension for tasks.
    pub tasks: Vec<String>,
}

impl Filter {
    /// Reads `params.notifications`. Kinds that are not known are ignored, and so are not acknowledged.
    ///
    /// # Errors
    /// [`Fault::InvalidParams`]: no object, a kind of another type, more URIs or ids than may be.
    pub fn read(params: &Object<'_>) -> Result<Self, Fault> {
        let invalid = |text: String| Fault::InvalidParams(text);
        let wanted = params.object("notifications");
        let wanted = wanted.ok_or_else(|| invalid("notifications must be an object".to_owned()))?;
        let flag = |key: &str| match wanted.raw(key) {
            None => Ok(false),
            Some(_) => wanted.get(key).ok_or_else(|| invalid(format!("notifications.{key} must be true or false"))),
        };
        let list = |key: &str| match wanted.raw(key) {
            None => Ok(Vec::new()),
            Some(_) => {
                let list = wanted.get::<Vec<String>>(key);
                let list = list.ok_or_else(|| invalid(format!("notifications.{key} must be a list of strings")))?;
                if let Some(long) = list.iter().find(|item| item.len() > URI_BYTES_MAX) {
                    let came = long.len();
                    return Err(invalid(format!(
                        "notifications.{key}: expected at most {URI_BYTES_MAX} bytes, came {came}"
                    )));
                }
                if list.len() > SUBSCRIPTIONS_PER_SESSION_MAX {
                    let came = list.len();
                    let text =
                        format!("notifications.{key}: expected at most {SUBSCRIPTIONS_PER_SESSION_MAX}, came {came}");
                    return Err(invalid(text));
                }
                Ok(list)
            }
        };
        Ok(Filter {
            tools: flag("toolsListChanged")?,
            prompts: flag("promptsListChanged")?,
            resources: flag("resourcesListChanged")?,
            uris: list("resourceSubscriptions")?,
            tasks: list("taskIds")?,
        })
    }

    /// The notification with which the stream begins: what it will bring.
    pub fn acknowledged(&self, id: &RawValue) -> Bytes {
        #[derive(Serialize)]
        struct Params<'a> {
            notifications: Map<String, Value>,
            #[serde(rename = "_meta")]
            meta: Tag<'a>,
        }

        let mut notifications = Map::new();
        let flags = [
            ("toolsListChanged", self.tools),
            ("promptsListChanged", self.prompts),
            ("resourcesListChanged", self.resources),
        ];
        for (key, _) in flags.into_iter().filter(|(_, is_wanted)| *is_wanted) {
            notifications.insert(key.to_owned(), true.into());
        }
        for (key, list) in [("resourceSubscriptions", &self.uris), ("taskIds", &self.tasks)] {
            if !list.is_empty() {
                notifications.insert(key.to_owned(), list.clone().into());
            }
        }
        let params = Params { notifications, meta: Tag { id } };
        jsonrpc::notification(SUBSCRIPTIONS_ACKNOWLEDGED, &jsonrpc::raw(&params))
    }
}

/// `_meta` of what a stream brings.
#[derive(Serialize)]
struct Tag<'a> {
    #[serde(rename = "io.modelcontextprotocol/subscriptionId")]
    id: &'a RawValue,
}

/// A notification of the stream that the request `id` opened.
pub fn tagged(method: &str, params: Option<&RawValue>, id: &RawValue) -> Bytes {
    let params = params.and_then(|params| serde_json::from_str::<Map<String, Value>>(params.get()).ok());
    let mut params = params.unwrap_or_default();
    let meta = params.entry("_meta").or_insert_with(|| Value::Object(Map::new()));
    if let (Some(meta), Ok(id)) = (meta.as_object_mut(), serde_json::from_str(id.get())) {
        meta.insert(META_SUBSCRIPTION.to_owned(), id);
    }
    jsonrpc::notification(method, &jsonrpc::raw(&params))
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn filter(value: &Value) -> Result<Filter, String> {
        let text = json!({"notifications": value}).to_string();
        Filter::read(&Object::parse(text.as_bytes()).expect("an object")).map_err(|fault| fault.to_string())
    }

    #[test]
    fn a_stream_brings_what_was_asked_for_and_says_so() {
        let asked =
            json!({"toolsListChanged": true, "promptsListChanged": false, "resourceSubscriptions": ["a:b"], "x": 1});
        let read = filter(&asked).expect("valid");
        assert_eq!(read, Filter { tools: true, uris: vec!["a:b".into()], ..Filter::default() });

        let told: Value = serde_json::from_slice(&read.acknowledged(&jsonrpc::raw(&7))).expect("JSON");
        assert_eq!(
            told["params"],
            json!({
                "notifications": {"toolsListChanged": true, "resourceSubscriptions": ["a:b"]},
                "_meta": {"io.modelcontextprotocol/subscriptionId": 7}
            })
        );
    }

    #[test]
    fn filters_of_another_shape_are_refused() {
        let many = vec!["a:b"; SUBSCRIPTIONS_PER_SESSION_MAX + 1];
        for value in [
            json!(null),
            json!([]),
            json!({"toolsListChanged": 1}),
            json!({"resourceSubscriptions": "a:b"}),
            json!({"taskIds": [1]}),
            json!({"resourceSubscriptions": many}),
        ] {
            assert!(filter(&value).is_err(), "{value}");
        }
    }

    #[test]
    fn notifications_carry_the_id_of_their_stream() {
        let id = jsonrpc::raw("a");
        let text = tagged("notifications/resources/updated", Some(&jsonrpc::raw(&json!({"uri": "a:b"}))), &id);
        let told: Value = serde_json::from_slice(&text).expect("JSON");

        assert_eq!(told["params"], json!({"uri": "a:b", "_meta": {"io.modelcontextprotocol/subscriptionId": "a"}}));
    }
}
