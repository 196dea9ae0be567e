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
use super::{Channel, Next, Payload, Reason, Refusal};
use crate::outbox::Broadcast;
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
    Info(Box<dyn Any + Send>),
    /// An intercepted broadcast.
    Intercepted(Arc<Broadcast>),
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
    /// `terminate` is through.
    Terminated,
}

/// A joined channel. The future owns the state and gives it back, so nothing borrows across a park.
pub(crate) trait Erased: Send {
    fn call(self: Box<Self>, call: Call) -> Running;

    /// Whether the channel ever tracked a presence.
    fn tracked(&self) -> bool;
}

struct Joined<C> {
    channel: C,
    cx: Cx<C>,
}

impl<C: Channel> Joined<C> {
    async fn handle(&mut self, call: Call) -> Option<Next> {
        let next = match call {
            Call::Message { event, payload, .. } => self.channel.handle_in(&event, payload, &mut self.cx).await,
            Call::Info(info) => match info.downcast() {
                Ok(info) => self.channel.handle_info(*info, &mut self.cx).await,
                // Handles are made with the channel's own type, so this is unreachable through the public API.
                Err(_) => Next::crash("a message of another channel's type"),
            },
            Call::Intercepted(broadcast) => {
                self.channel.handle_out(&broadcast.event, &broadcast.payload, &mut self.cx).await
            }
            Call::Terminate(reason) => {
                self.channel.terminate(&reason, &mut self.cx).await;
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
                Ok(None) => Outcome::Terminated,
                Err(panic) if terminating => {
                    tracing::error!(why = panic_text(&*panic), "terminate panicked");
                    Outcome::Terminated
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
                    let cx = Cx { env: cx.env, reference: None, tracked: false, channel: PhantomData };
                    Outcome::Joined(Ok((Box::new(Joined { channel: state, cx }), response)))
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
