//! The object-safe twins of [`Channel`]: a joined channel whose futures own its state, and the factory behind a route.

use std::any::Any;
use std::future::Future;
use std::marker::PhantomData;
use std::panic::AssertUnwindSafe;
use std::pin::Pin;
use std::sync::Arc;

use compact_str::CompactString;
use futures::FutureExt;

use super::context::{Cx, Env, JoinCx};
use super::subscriber::{self, Hearing};
use super::{Channel, Next, Payload, Reason, Refusal};
use crate::outbox::{Broadcast, Info, Tag};
use crate::protocol::message::Ref;
use crate::protocol::socket::ChannelId;

/// A joined channel of any type.
pub(crate) type Boxed = Box<dyn Erased>;

/// A handler that waits.
pub(crate) type Running = Pin<Box<dyn Future<Output = Finished> + Send>>;

/// One thing for a channel to handle.
#[derive(Debug)]
pub(crate) enum Call {
    /// A message from the client.
    Message { event: CompactString, payload: Payload, reference: Ref },
    /// A message from the server's own code.
    Info(Info),
    /// An intercepted broadcast.
    Intercepted(Arc<Broadcast>),
    /// A broadcast on a topic that the channel's own code has subscribed to.
    Heard(Arc<Broadcast>, Tag),
    /// The end.
    Terminate(Reason),
}

/// What came of a future that ran for a channel.
pub(crate) struct Finished {
    pub(crate) channel: ChannelId,
    pub(crate) outcome: Outcome,
}

pub(crate) enum Outcome {
    /// A join was answered.
    Joined(Result<(Boxed, Payload), Refusal>),
    /// A join panicked.
    JoinCrashed(String),
    /// A handler decided, or panicked with this text; the reference is that of the message it handled.
    Handled { state: Boxed, next: Result<Next, String>, reference: Option<Ref> },
    /// `terminate` is through. What it said is sent before the state is dropped, with which presences leave.
    Terminated(Boxed),
}

/// A joined channel. The future owns the state and gives it back, so nothing borrows across a park.
pub(crate) trait Erased: Send {
    fn call(self: Box<Self>, call: Call) -> Running;

    /// Whether the channel ever tracked a presence.
    fn tracked(&self) -> bool;
}

struct Joined<C> {
    /// Some, until it is dropped.
    channel: Option<C>,
    cx: Cx<C>,
}

impl<C> Drop for Joined<C> {
    /// Wherever the state ends, a panic of its own destructor is its end alone, not its socket's.
    fn drop(&mut self) {
        let channel = self.channel.take();
        if let Err(panic) = std::panic::catch_unwind(AssertUnwindSafe(|| drop(channel))) {
            tracing::error!(why = panic_text(&*panic), "a channel panicked when it was dropped");
        }
    }
}

impl<C: Channel> Joined<C> {
    async fn handle(&mut self, call: Call) -> Option<Next> {
        let channel = self.channel.as_mut().expect("the channel is there until it is dropped");
        let next = match call {
            Call::Message { event, payload, .. } => channel.handle_in(&event, payload, &mut self.cx).await,
            Call::Info(info) => match info.open().downcast() {
                Ok(info) => channel.handle_info(*info, &mut self.cx).await,
                // Handles are made with the channel's own type, so this is unreachable through the public API.
                Err(_) => Next::crash("a message of another channel's type"),
            },
            Call::Intercepted(broadcast) => {
                channel.handle_out(&broadcast.event, &broadcast.payload, &mut self.cx).await
            }
            Call::Heard(broadcast, tag) => match tag.downcast_ref::<Hearing<C::Info>>() {
                Some(hearing) => {
                    let info = hearing.hear(subscriber::Broadcast::new(broadcast));
                    channel.handle_info(info, &mut self.cx).await
                }
                // Subscriptions are made with the channel's own type as well.
                None => Next::crash("a broadcast heard for another channel's type"),
            },
            Call::Terminate(reason) => {
                channel.terminate(&reason, &mut self.cx).await;
                return None;
            }
        };
        Some(next)
    }
}

impl<C: Channel> Erased for Joined<C> {
    fn call(mut self: Box<Self>, call: Call) -> Running {
        Box::pin(async move {
            let reference = match &call {
                Call::Message { reference, .. } => Some(reference.clone()),
                _ => None,
            };
            self.cx.reference.clone_from(&reference);
            let channel = self.cx.env.channel;
            let terminating = matches!(call, Call::Terminate(_));

            let outcome = match AssertUnwindSafe(self.handle(call)).catch_unwind().await {
                Ok(Some(next)) => Outcome::Handled { state: self, next: Ok(next), reference },
                Ok(None) => Outcome::Terminated(self),
                Err(panic) if terminating => {
                    tracing::error!(why = panic_text(&*panic), "terminate panicked");
                    Outcome::Terminated(self)
                }
                Err(panic) => Outcome::Handled { state: self, next: Err(panic_text(&*panic)), reference },
            };
            Finished { channel, outcome }
        })
    }

    fn tracked(&self) -> bool {
        self.cx.tracked
    }
}

/// What a route leads to.
pub(crate) trait Factory: Send + Sync {
    fn join(&self, env: Env, params: Payload) -> Running;

    /// The events that its channels intercept.
    fn intercept(&self) -> &'static [&'static str];
}

/// A factory of channels of one type, with what the route was given.
pub(crate) struct ChannelFactory<C> {
    state: Option<Arc<dyn Any + Send + Sync>>,
    channel: PhantomData<fn(C)>,
}

impl<C> ChannelFactory<C> {
    pub(crate) fn new(state: Option<Arc<dyn Any + Send + Sync>>) -> Self {
        ChannelFactory { state, channel: PhantomData }
    }
}

impl<C: Channel> Factory for ChannelFactory<C> {
    fn join(&self, env: Env, params: Payload) -> Running {
        let mut cx = JoinCx::<C> { env, state: self.state.clone(), channel: PhantomData };
        Box::pin(async move {
            let channel = cx.env.channel;
            let topic = Arc::clone(&cx.env.topic);
            let joining = AssertUnwindSafe(C::join(&topic, params, &mut cx)).catch_unwind().await;
            let outcome = match joining {
                Ok(Ok((state, response))) => {
                    let cx = Cx::new(cx.env);
                    Outcome::Joined(Ok((Box::new(Joined { channel: Some(state), cx }), response)))
                }
                Ok(Err(refusal)) => Outcome::Joined(Err(refusal)),
                Err(panic) => Outcome::JoinCrashed(panic_text(&*panic)),
            };
            Finished { channel, outcome }
        })
    }

    fn intercept(&self) -> &'static [&'static str] {
        C::INTERCEPT
    }
}

fn panic_text(panic: &(dyn Any + Send)) -> String {
    panic
        .downcast_ref::<&str>()
        .map(|text| (*text).to_owned())
        .or_else(|| panic.downcast_ref::<String>().cloned())
        .unwrap_or_else(|| "a panic without a text".to_owned())
}
