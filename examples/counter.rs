//! A counter that ticks: timers (`Cx::send_after`), the channel's own messages (`handle_info`), replies that come later
//! (`Cx::reply_handle`).
//!
//! `cargo run --example counter`, then open what it prints. `PORT` is 4000 where it is not set. Every joined
//! `counter:NAME` counts by itself, for as long as its client is there:
//!
//! | event | payload | reply |
//! |---|---|---|
//! | `start`, `stop` | `{}` | `{"count": 7}` |
//! | `set_interval` | `{"ms": 250}` | `{}`, or an error; holds from the tick after the next |
//! | `await` | `{"count": 10}` | `{"count": 10}`, once the counter is there |
//!
//! and the server pushes `tick` `{"count": 7}`.

use std::time::Duration;

use bennu::channel::{ReplyHandle, SocketSpecBuilder};
use bennu::{Channel, Cx, Endpoint, JoinCx, Next, Payload, Refusal, Reply, Server};
use serde::Deserialize;
use serde_json::{Value, json};
use tokio::task::AbortHandle;
use warp::Filter;

/// Milliseconds between two ticks that a client may ask for.
const INTERVAL_MS: std::ops::RangeInclusive<u64> = 10..=60_000;
/// Replies that one counter may owe.
const AWAITED_MAX: usize = 16;

/// One client's counter.
pub struct Counter {
    count: u64,
    interval: Duration,
    /// The timer of the next tick, while the counter runs.
    timer: Option<AbortHandle>,
    /// How often it was stopped. A tick that is on its way can't be aborted any more, but told by this.
    run: u64,
    awaited: Vec<(u64, ReplyHandle)>,
}

/// It is time to count on.
pub struct Tick {
    run: u64,
}

#[derive(Deserialize)]
struct Interval {
    ms: u64,
}

#[derive(Deserialize)]
struct Await {
    count: u64,
}

impl Channel for Counter {
    type Info = Tick;

    async fn join(_topic: &str, _params: Payload, _cx: &mut JoinCx<Self>) -> Result<(Self, Payload), Refusal> {
        let counter = Counter { count: 0, interval: Duration::from_secs(1), timer: None, run: 0, awaited: Vec::new() };
        Ok((counter, Payload::EMPTY))
    }

    async fn handle_in(&mut self, event: &str, payload: Payload, cx: &mut Cx<Self>) -> Next {
        match event {
            "start" => {
                if self.timer.is_none() {
                    self.schedule(cx);
                }
                Next::ok(self.state())
            }
            "stop" => {
                if let Some(timer) = self.timer.take() {
                    timer.abort();
                    self.run += 1;
                }
                Next::ok(self.state())
            }
            "set_interval" => match payload.parse() {
                Ok(Interval { ms }) if INTERVAL_MS.contains(&ms) => {
                    self.interval = Duration::from_millis(ms);
                    Next::ok(Payload::EMPTY)
                }
                _ => Next::error(Payload::reason(&format!("ms is a number in {INTERVAL_MS:?}"))),
            },
            "await" => match payload.parse() {
                Ok(Await { count }) if count <= self.count => Next::ok(self.state()),
                Ok(_) if self.awaited.len() == AWAITED_MAX => Next::error(Payload::reason("too much is awaited")),
                Ok(Await { count }) => {
                    self.awaited.push((count, cx.reply_handle().expect("a message is being handled")));
                    Next::NoReply
                }
                Err(error) => Next::error(Payload::reason(&error.to_string())),
            },
            _ => Next::unknown(event),
        }
    }

    async fn handle_info(&mut self, tick: Tick, cx: &mut Cx<Self>) -> Next {
        if tick.run != self.run {
            return Next::NoReply;
        }
        self.count += 1;
        cx.push("tick", self.state());
        for (_, reply) in self.awaited.extract_if(.., |(count, _)| *count <= self.count) {
            // A client that has gone awaits nothing.
            let _ = reply.send(Reply::ok(json!({"count": self.count})));
        }
        self.schedule(cx);
        Next::NoReply
    }
}

impl Counter {
    /// The timer ends with the channel: nothing has to be tidied up in `terminate`.
    fn schedule(&mut self, cx: &mut Cx<Self>) {
        self.timer = Some(cx.send_after(self.interval, Tick { run: self.run }));
    }

    fn state(&self) -> Value {
        json!({"count": self.count})
    }
}

/// Where clients connect.
pub fn socket(endpoint: &Endpoint) -> SocketSpecBuilder {
    endpoint.socket("/socket").channel::<Counter>("counter:*")
}

#[tokio::main]
async fn main() -> Result<(), Box<dyn std::error::Error>> {
    let page = warp::path::end().map(|| warp::reply::html(include_str!("counter/index.html")));
    const PHOENIX: &str = include_str!("../src/dashboard/vendor/phoenix.mjs");
    let js = warp::path!("phoenix.mjs").map(|| warp::reply::with_header(PHOENIX, "content-type", "text/javascript"));
    let port = std::env::var("PORT").map_or(Ok(4000), |port| port.parse())?;

    let endpoint = Endpoint::start();
    let server = Server::new(&endpoint).socket(socket(&endpoint)).routes(page.or(js)).listen(([127, 0, 0, 1], port))?;
    println!("listening on http://localhost:{}", server.address().port());
    server.until_signalled().await;
    Ok(())
}
