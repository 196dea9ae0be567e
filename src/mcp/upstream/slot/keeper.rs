//! The task that keeps a slot: it starts connections one after another, watches each, and pauses where they fail.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use futures::FutureExt;

use super::{Slot, Standing};
use crate::clock;
use crate::mcp::upstream::handshake::{self, Opening};
use crate::mcp::upstream::instance::{Instance, SESSION_GONE, Ticket};
use crate::mcp::upstream::{http, stdio};
use crate::protocol::Time;
use crate::protocol::jsonrpc;
use crate::protocol::mcp::INITIALIZED;
use crate::protocol::mcp::backoff::Backoff;
use crate::random;

/// How long requests to a session that is gone may still be answered.
const LAST_ANSWERS: Duration = Duration::from_secs(1);

/// How a connection ended.
enum End {
    /// By our wish.
    Closed,
    /// Nobody used it.
    Idle,
    Broken(String),
}

/// Starts connections of a slot, one after another, until it is closed.
pub(super) async fn keep(slot: Arc<Slot>) {
    let options = &slot.upstream.options;
    let mut backoff = Backoff::new(u64::try_from(options.restart_delay_max.as_millis()).unwrap_or(u64::MAX));
    // Whether it was up, and whether anyone wanted it: those who hear of it wait for it to come, or to come back.
    let (mut was_up, mut is_tried) = (false, false);
    loop {
        let is_needed = slot.is_booted() || (is_tried && !slot.sessions.lock().is_empty());
        if !is_needed {
            slot.wanted.notified().await;
        }
        if slot.is_closed() || !slot.stands(Standing::Starting) {
            return;
        }
        let began = clock::now();
        let (end, has_been_up) = live(&slot, was_up).await;
        was_up |= has_been_up;
        is_tried = true;
        let why = match end {
            End::Closed => return,
            End::Idle => {
                tracing::info!(server = &*slot.upstream.name, "an MCP server that nobody uses is stopped");
                (was_up, is_tried) = (false, false);
                if slot.is_for_nobody() {
                    return slot.close();
                }
                slot.stands(Standing::Down { why: None, until: Time(0) });
                continue;
            }
            End::Broken(why) => why,
        };
        if !has_been_up {
            slot.failed_starts.fetch_add(1, Ordering::SeqCst);
        }
        slot.upstream.stats.broke(&why);
        tracing::warn!(server = &*slot.upstream.name, why, "an MCP server ended, or could not be started");
        if !has_been_up && slot.is_for_nobody() {
            // Whoever wanted it has heard why; the next one gets another.
            slot.stands(Standing::Down { why: Some(why), until: clock::now() });
            return slot.close();
        }
        let lived_ms = if has_been_up { clock::now().since(began) } else { 0 };
        let pause_ms = backoff.pause_ms(lived_ms, u32::from_be_bytes(random::bytes()));
        if !slot.stands(Standing::Down { why: Some(why), until: clock::now() + pause_ms }) {
            return;
        }
        tokio::select! {
            () = tokio::time::sleep(Duration::from_millis(pause_ms)) => {}
            () = slot.closed() => return,
        }
    }
}

/// One connection, from its start to its end; whether it was ever up.
async fn live(slot: &Arc<Slot>, was_up: bool) -> (End, bool) {
    let options = &slot.upstream.options;
    let instance = Instance::new(slot);
    let mut carrier = match slot.upstream.carrier(&instance) {
        Ok(carrier) => carrier,
        Err(why) => return (End::Broken(why), false),
    };
    let opening = Opening {
        introduction: &slot.introduction.params,
        is_modern_first: slot.is_modern_first,
        learned: &slot.upstream.learned,
        era: options.era,
        leaves_initialized: slot.is_owned() && !slot.interest.lock().is_ready,
    };
    let shaken = {
        let shaking = tokio::time::timeout(options.start_timeout, handshake::shake(&instance, &opening));
        tokio::select! {
            biased;
            ended = carrier.run(&instance) => Err(ended),
            shaken = shaking => shaken.unwrap_or_else(|_| {
                Err(format!("it did not shake hands within {} ms", options.start_timeout.as_millis()))
            }),
            why = instance.wants_end() => Err(why),
            () = slot.closed() => Err("it is not needed any more".to_owned()),
        }
    };
    if let Err(why) = shaken {
        instance.end(&why);
        carrier.stop(false).await;
        let end = if slot.is_closed() { End::Closed } else { End::Broken(why) };
        return (end, false);
    }
    slot.upstream.stats.started.inc();
    if !slot.stands(Standing::Up(Arc::clone(&instance))) {
        instance.ask_to_end("it is not needed any more");
    }
    if opening.leaves_initialized && slot.interest.lock().is_ready {
        // The client said so while the connection was being made again.
        instance.tell(jsonrpc::bare_notification(INITIALIZED));
    }
    // After it is said to be up: whoever wants more from here on says so itself.
    slot.restore(&instance);
    // Of those who waited for the start.
    let _ = slot.wanted.notified().now_or_never();
    tracing::info!(server = &*slot.upstream.name, "an MCP server is up");
    if slot.is_missed.swap(false, Ordering::SeqCst) || was_up {
        // It may offer other things than before.
        slot.tell_lists(&instance);
    }
    let end = tokio::select! {
        biased;
        why = instance.wants_end() => {
            if why == SESSION_GONE {
                // Requests under way find out for themselves whether they were served.
                let _ = tokio::time::timeout(LAST_ANSWERS, carrier.run(&instance)).await;
            }
            if slot.is_closed() { End::Closed } else { End::Broken(why) }
        }
        why = carrier.run(&instance) => End::Broken(why),
        end = slot.watch(&instance) => end,
        () = slot.listen(&instance) => unreachable!("it never ends"),
    };
    let why = match &end {
        End::Closed => "it is not needed any more",
        End::Idle => "nobody used it",
        End::Broken(why) => why,
    };
    instance.end(why);
    carrier.stop(!matches!(end, End::Broken(_))).await;
    (end, true)
}

/// What carries messages to an upstream and back.
pub(in crate::mcp::upstream) enum Carrier {
    Stdio(Box<stdio::Program>),
    Http(Box<http::Endpoint>),
}

impl Carrier {
    /// Sends and receives until the upstream is gone, and says why. Cancel-safe: it may be called again.
    async fn run(&mut self, instance: &Arc<Instance>) -> String {
        match self {
            Carrier::Stdio(program) => program.run(instance).await,
            Carrier::Http(endpoint) => endpoint.run(instance).await,
        }
    }

    /// Ends it: in order, where it still listens.
    async fn stop(&mut self, listens: bool) {
        match self {
            Carrier::Stdio(program) => program.stop(listens).await,
            Carrier::Http(endpoint) => endpoint.stop().await,
        }
    }
}

impl Slot {
    /// Waits until the connection should end, though it has not by itself.
    async fn watch(&self, instance: &Arc<Instance>) -> End {
        let options = &self.upstream.options;
        let look_every =
            [options.hang_timeout.map(|timeout| timeout / 4), options.idle_timeout.map(|timeout| timeout / 4)];
        let look_every = look_every.into_iter().flatten().min().unwrap_or(Duration::from_secs(60));
        let look_every = look_every.clamp(Duration::from_millis(10), Duration::from_secs(60));
        let mut ping: Option<Ticket> = None;
        loop {
            tokio::time::sleep(look_every).await;
            if options.idle_timeout.is_some_and(|timeout| self.is_idle(instance, timeout)) {
                return End::Idle;
            }
            let Some(hang) = options.hang_timeout else { continue };
            let hang_ms = u64::try_from(hang.as_millis()).unwrap_or(u64::MAX);
            let silent_ms = instance.silent_ms();
            if silent_ms < hang_ms / 2 {
                ping = None;
            } else if ping.is_none() {
                ping = instance.ping().ok();
            } else if silent_ms >= hang_ms {
                return End::Broken(format!("it has said nothing for {silent_ms} ms, though it was asked"));
            }
        }
    }
}
