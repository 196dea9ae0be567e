//! rmcp as a client, with a tap where its messages leave and come in.
//!
//! rmcp hands each notification to a task of its own, so that its handlers see them in any order. The tap sees them in the
//! order of the wire.

#![expect(deprecated, reason = "rmcp marks sampling and roots, which older clients use")]

use std::sync::{Arc, Mutex, MutexGuard};

use rmcp::model::{
    ClientCapabilities, ClientConfig, CreateMessageRequestParams, CreateMessageResult, ElicitRequestParams,
    ElicitResult, ElicitationAction, ErrorData, Implementation, ListRootsResult, ProtocolVersion, Root,
    SamplingMessage,
};
use rmcp::service::{RequestContext, RoleClient, RunningService, RxJsonRpcMessage, TxJsonRpcMessage};
use rmcp::transport::{StreamableHttpClientTransport, Transport};
use rmcp::{ClientHandler, ClientLifecycleMode, ClientServiceExt};
use serde_json::{Value, json};
use tokio::sync::Notify;

use crate::{DEADLINE, Era};

/// What the client's model says to whatever it is asked.
pub const SAMPLED: &str = "a model's answer";

/// What the client's user fills in wherever he is asked for it.
pub const FILLED_IN: &str = "Ada";

/// The client's root.
pub const ROOT: &str = "file:///home/ada";

/// A connected client.
pub struct Client {
    pub service: RunningService<RoleClient, Answers>,
    pub tap: Tap,
}

impl Client {
    /// Connects as that era does.
    pub async fn connect(url: &str, era: Era) -> Self {
        let tap = Tap::default();
        // Bennu has reqwest without a provider of TLS, so that here too one is to be chosen, though nothing is encrypted.
        let _ = rustls::crypto::ring::default_provider().install_default();
        let transport = Tapped { inner: StreamableHttpClientTransport::from_uri(url), tap: tap.clone() };
        let lifecycle = match era {
            Era::Legacy => ClientLifecycleMode::Initialize,
            Era::Modern => ClientLifecycleMode::Discover { preferred_versions: vec![ProtocolVersion::V_2026_07_28] },
        };
        let service = Answers.serve_with_lifecycle(transport, lifecycle).await.expect("it connects");
        Client { service, tap }
    }
}

/// What answers for the user.
pub struct Answers;

impl ClientHandler for Answers {
    fn get_info(&self) -> ClientConfig {
        let capabilities: ClientCapabilities =
            serde_json::from_value(json!({"sampling": {}, "elicitation": {}, "roots": {}})).expect("capabilities");
        ClientConfig::new(capabilities, Implementation::new("peers", "1"))
    }

    async fn create_message(
        &self,
        _params: CreateMessageRequestParams,
        _context: RequestContext<RoleClient>,
    ) -> Result<CreateMessageResult, ErrorData> {
        Ok(CreateMessageResult::new(SamplingMessage::assistant_text(SAMPLED), "a model".to_owned()))
    }

    async fn create_elicitation(
        &self,
        params: ElicitRequestParams,
        _context: RequestContext<RoleClient>,
    ) -> Result<ElicitResult, ErrorData> {
        let asked = serde_json::to_value(params).expect("params are JSON");
        let properties = asked["requestedSchema"]["properties"].as_object().cloned().unwrap_or_default();
        let filled_in = properties.into_iter().map(|(name, schema)| match schema["type"].as_str() {
            Some("boolean") => (name, json!(true)),
            Some("integer" | "number") => (name, json!(30)),
            _ => (name, json!(FILLED_IN)),
        });
        Ok(ElicitResult::new(ElicitationAction::Accept).with_content(Value::Object(filled_in.collect())))
    }

    async fn list_roots(&self, _context: RequestContext<RoleClient>) -> Result<ListRootsResult, ErrorData> {
        Ok(ListRootsResult::new(vec![Root::new(ROOT)]))
    }
}

/// What was sent and received, as rmcp reads and writes it.
#[derive(Clone, Default)]
pub struct Tap(Arc<Tapes>);

#[derive(Default)]
struct Tapes {
    sent: Mutex<Vec<Value>>,
    received: Mutex<Vec<Value>>,
    came: Notify,
}

impl Tap {
    /// What was received, in the order of the wire.
    pub fn received(&self) -> Vec<Value> {
        lock(&self.0.received).clone()
    }

    /// The last request of that method that was sent.
    #[track_caller]
    pub fn sent(&self, method: &str) -> Value {
        let sent = lock(&self.0.sent);
        sent.iter().rfind(|message| message["method"] == method).expect("it was sent").clone()
    }

    /// Waits for a message.
    pub async fn wait(&self, what: &str, wanted: impl Fn(&Value) -> bool) -> Value {
        let waiting = async {
            loop {
                let came = self.0.came.notified();
                if let Some(message) = self.received().into_iter().find(&wanted) {
                    return message;
                }
                came.await;
            }
        };
        match tokio::time::timeout(DEADLINE, waiting).await {
            Ok(message) => message,
            Err(_) => panic!("waited in vain for {what}; came {:#?}", self.received()),
        }
    }

    /// The notifications of that method that came before the response to a request, whose id they are between.
    pub fn before_response(&self, request: &Value, method: &str) -> Vec<Value> {
        let received = self.received();
        let is_response = |message: &Value| message.get("method").is_none() && message["id"] == request["id"];
        let end = received.iter().position(is_response).unwrap_or(received.len());
        received[..end].iter().filter(|message| message["method"] == method).cloned().collect()
    }
}

fn lock(tape: &Mutex<Vec<Value>>) -> MutexGuard<'_, Vec<Value>> {
    tape.lock().expect("nobody panics while it holds the lock")
}

struct Tapped<T> {
    inner: T,
    tap: Tap,
}

impl<T: Transport<RoleClient>> Transport<RoleClient> for Tapped<T> {
    type Error = T::Error;

    fn send(
        &mut self,
        item: TxJsonRpcMessage<RoleClient>,
    ) -> impl Future<Output = Result<(), T::Error>> + Send + 'static {
        lock(&self.tap.0.sent).push(serde_json::to_value(&item).expect("messages are JSON"));
        self.inner.send(item)
    }

    async fn receive(&mut self) -> Option<RxJsonRpcMessage<RoleClient>> {
        let message = self.inner.receive().await?;
        lock(&self.tap.0.received).push(serde_json::to_value(&message).expect("messages are JSON"));
        self.tap.0.came.notify_waiters();
        Some(message)
    }

    async fn close(&mut self) -> Result<(), T::Error> {
        self.inner.close().await
    }
}
