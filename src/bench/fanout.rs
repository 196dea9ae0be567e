//! `bench fanout`: what does it cost to deliver a broadcast to every subscriber of a topic, and when has the last one got it?
//!
//! The publishers are subscribers too: N subscribers and P publishers make N + P deliveries of each broadcast, and all count.
//! A publisher's next broadcast leaves when one of those it has in flight has reached everyone.

use std::sync::Arc;
use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};
use std::time::Duration;

use anyhow::{Result, bail};
use clap::Args;
use serde::Serialize;
use tokio::sync::{Notify, watch};
use tokio::task::JoinSet;
use tokio::time::timeout;

use super::clock::now_ns;
use super::echo::OPENING_AT_ONCE;
use super::frame::{NUMBER_PLACEHOLDER, Opcode, Template, parse_number, write_frame};
use super::idle::{HEARTBEAT, HEARTBEAT_AFTER};
use super::message::{self, Envelope};
use super::options::{LoadOptions, OutputOptions, ServerOptions, at_least_one};
use super::process::check_open_files;
use super::record::Recorder;
use super::report::{Heading, Report, publish};
use super::stage::{Part, Phase, Stage, each, run as run_stages};
use super::wire::{Join, Wire, each_message};

/// Arguments of `bennu bench fanout`.
#[derive(Args, Clone, Debug, Serialize)]
pub struct FanoutArgs {
    #[command(flatten)]
    #[serde(flatten)]
    server: ServerOptions,
    /// Connections that only listen
    #[arg(long, short = 's', default_value_t = 1000)]
    subscribers: usize,
    /// Connections that broadcast, and listen too
    #[arg(long, default_value_t = 1)]
    publishers: usize,
    /// Broadcasts in flight a publisher
    #[arg(long, short = 'd', default_value_t = 1)]
    in_flight: usize,
    /// The topic that all join
    #[arg(long, default_value = "bench:fanout")]
    topic: String,
    /// Event that makes the channel broadcast its payload and reply ok
    #[arg(long, default_value = "broadcast")]
    event: String,
    /// Event that the subscribers get
    #[arg(long, default_value = "shout")]
    delivered_event: String,
    /// Bytes of the text in each payload
    #[arg(long, default_value_t = 64)]
    payload: usize,
    #[command(flatten)]
    #[serde(flatten)]
    load: LoadOptions,
    #[command(flatten)]
    #[serde(flatten)]
    output: OutputOptions,
}

/// Runs the mode.
///
/// # Errors
/// As [`super::run`].
pub fn run(args: &FanoutArgs) -> Result<()> {
    at_least_one("subscribers", args.subscribers)?;
    at_least_one("publishers", args.publishers)?;
    at_least_one("in-flight", args.in_flight)?;
    check_open_files(args.subscribers + args.publishers)?;
    let plan = args.load.plan(args.output.process()?)?;
    let target = Arc::new(args.server.target()?);
    let limit = args.server.client.limit()?;
    let shared = Arc::new(args.clone());
    let board = Arc::new(Board::new(args));
    let outcome = run_stages(&plan, async |part| {
        let open = |_| {
            let (target, args) = (target.clone(), shared.clone());
            async move {
                let mut wire = Wire::open(&target, limit).await?;
                let join = Join { topic: &args.topic, reference: "1", payload: &args.server.join_payload };
                wire.join(&join, limit).await?;
                Ok(wire)
            }
        };
        // The first thread has all publishers, so that it can tell when the run is over.
        let publishers = if part.thread == 0 { args.publishers } else { 0 };
        let publishers = each(publishers, OPENING_AT_ONCE, open).await?;
        let subscribers = each(part.share(args.subscribers), OPENING_AT_ONCE, open).await?;
        deliver(publishers, subscribers, &board, part, limit).await
    })?;
    let heading = Heading { mode: "fanout", unit: "delivery", parameters: serde_json::to_value(args)? };
    let report = Report::of_load(heading, &args.output, &outcome);
    publish(&[report], &args.output, outcome.recorder.first_fault.as_deref())
}

async fn deliver(
    publishers: Vec<Wire>,
    subscribers: Vec<Wire>,
    board: &Arc<Board>,
    part: &Part<'_>,
    limit: Duration,
) -> Result<()> {
    part.ready();
    part.stage.reached(Phase::Warmup).await;
    let mut connections = JoinSet::new();
    for wire in subscribers {
        connections.spawn(listen(wire, board.clone(), part.stage.clone()));
    }
    for (index, wire) in publishers.into_iter().enumerate() {
        connections.spawn(publish_all(wire, index, board.clone(), part.stage.clone()));
    }
    let everywhere = async {
        part.stage.reached(Phase::Stop).await;
        timeout(limit, board.finished()).await.is_ok()
    };
    tokio::select! {
        // A connection ends by an error only: what has no more to send still is what others broadcast to.
        Some(ended) = connections.join_next() => ended?,
        arrived = everywhere => {
            if arrived {
                return Ok(());
            }
            let fault = Recorder::with(|recorder| recorder.first_fault.clone());
            bail!(
                "some broadcasts haven't reached all subscribers {} s after the last was sent; first wrong message: {}",
                limit.as_secs_f64(),
                fault.as_deref().unwrap_or("none")
            )
        }
    }
}

/// The broadcasts in flight, shared by all connections.
struct Board {
    topic: String,
    delivered_event: String,
    template: Template,
    publishers: u64,
    in_flight: u64,
    receivers: u32,
    /// Broadcast `number` is in slot `number % slots.len()`; its publisher leaves the slot alone until it has arrived everywhere.
    slots: Vec<Slot>,
    /// Broadcasts of each publisher that have reached everyone.
    arrived: Vec<Arrived>,
    /// Publishers whose broadcasts have all arrived, after the run has stopped.
    finished: watch::Sender<usize>,
}

#[derive(Default)]
struct Slot {
    sent_ns: AtomicU64,
    missing: AtomicU32,
}

#[derive(Default)]
struct Arrived {
    count: AtomicU64,
    bell: Notify,
}

impl Board {
    fn new(args: &FanoutArgs) -> Self {
        let payload = format!(r#"{{"n":{NUMBER_PLACEHOLDER},"p":"{}"}}"#, "x".repeat(args.payload));
        let text = message::text("1", NUMBER_PLACEHOLDER, &args.topic, &args.event, &payload);
        Self {
            topic: args.topic.clone(),
            delivered_event: args.delivered_event.clone(),
            template: Template::new(&text),
            publishers: args.publishers as u64,
            in_flight: args.in_flight as u64,
            receivers: (args.subscribers + args.publishers) as u32,
            slots: (0..args.publishers * args.in_flight).map(|_| Slot::default()).collect(),
            arrived: (0..args.publishers).map(|_| Arrived::default()).collect(),
            finished: watch::Sender::new(0),
        }
    }

    /// Waits until all publishers have finished.
    async fn finished(&self) {
        let mut finished = self.finished.subscribe();
        // The sender lives in `self`, so it can't be gone.
        let _ = finished.wait_for(|count| *count == self.arrived.len()).await;
    }

    /// The number of a publisher's broadcast `turn`: they take turns, so that slots don't meet.
    fn number(&self, publisher: usize, turn: u64) -> u64 {
        turn * self.publishers + publisher as u64
    }

    fn slot(&self, number: u64) -> &Slot {
        &self.slots[number as usize % self.slots.len()]
    }

    fn send(&self, out: &mut Vec<u8>, number: u64) {
        let slot = self.slot(number);
        slot.missing.store(self.receivers, Ordering::Relaxed);
        slot.sent_ns.store(now_ns(), Ordering::Release);
        self.template.write(out, number);
    }

    /// Counts a delivery. The last one of a broadcast wakes its publisher.
    fn delivered(&self, number: u64, now: u64, stage: &Stage) {
        let slot = self.slot(number);
        let since_ns = now.saturating_sub(slot.sent_ns.load(Ordering::Acquire));
        let last = slot.missing.fetch_sub(1, Ordering::AcqRel) == 1;
        if stage.phase() == Phase::Measure {
            Recorder::with(|recorder| {
                recorder.done(since_ns);
                if last {
                    recorder.last_delivery.saturating_record(since_ns);
                }
            });
        }
        if last {
            let arrived = &self.arrived[(number % self.publishers) as usize];
            arrived.count.fetch_add(1, Ordering::Release);
            arrived.bell.notify_one();
        }
    }
}

/// What one connection has received.
struct Inbox {
    board: Arc<Board>,
    stage: Arc<Stage>,
    /// The turn of each publisher's broadcast that comes next: each comes once and in order.
    next: Vec<u64>,
}

impl Inbox {
    fn new(board: Arc<Board>, stage: Arc<Stage>) -> Self {
        let next = vec![0; board.arrived.len()];
        Self { board, stage, next }
    }

    /// Takes a message; returns whether it is an ok reply to a broadcast.
    fn take(&mut self, came: &Envelope<'_>, now: u64) -> Result<bool> {
        if came.event == self.board.delivered_event && came.topic == self.board.topic {
            self.take_delivery(came, now);
            return Ok(false);
        }
        match came.event {
            "phx_reply" => Ok(came.topic == self.board.topic && {
                let ours = came.reference.and_then(|text| parse_number(text.as_bytes()));
                let right = ours.is_some() && message::reply_is_ok(came.payload);
                if !right {
                    fault("an ok reply to a broadcast", came);
                }
                right
            }),
            "phx_error" | "phx_close" if came.topic == self.board.topic => {
                bail!("the server closed topic {:?} with {:?}", came.topic, came.event)
            }
            _ => Ok(false),
        }
    }

    fn take_delivery(&mut self, came: &Envelope<'_>, now: u64) {
        let Some(number) = message::delivered_number(came.payload) else {
            return fault("a broadcast of this run", came);
        };
        let publisher = (number % self.board.publishers) as usize;
        let expected = self.board.number(publisher, self.next[publisher]);
        if number != expected {
            return fault(&format!("broadcast {expected} of publisher {publisher}"), came);
        }
        self.next[publisher] += 1;
        self.board.delivered(number, now, &self.stage);
    }
}

fn fault(expected: &str, came: &Envelope<'_>) {
    Recorder::with(|recorder| {
        recorder.fault(|| {
            format!(
                "expected {expected}, came event {:?} with ref {:?} and payload {}",
                came.event,
                came.reference,
                message::excerpt(came.payload)
            )
        });
    });
}

async fn listen(mut wire: Wire, board: Arc<Board>, stage: Arc<Stage>) -> Result<()> {
    let mut inbox = Inbox::new(board, stage);
    let mut heard_ns = now_ns();
    loop {
        wire.turn(|out, bytes, now| {
            // Deliveries to us don't count as our activity at the server.
            if now - heard_ns > HEARTBEAT_AFTER.as_nanos() as u64 {
                heard_ns = now;
                write_frame(out, Opcode::Text, HEARTBEAT.as_bytes());
            }
            each_message(bytes, out, |came, _| {
                if came.topic == "phoenix" {
                    return Ok(());
                }
                inbox.take(came, now).map(|_| ())
            })
        })
        .await?;
    }
}

async fn publish_all(mut wire: Wire, publisher: usize, board: Arc<Board>, stage: Arc<Stage>) -> Result<()> {
    let mut inbox = Inbox::new(board.clone(), stage.clone());
    let arrived = &board.arrived[publisher];
    let (mut sent, mut replied, mut finished) = (0, 0, false);
    loop {
        let count = arrived.count.load(Ordering::Acquire);
        if stage.phase() < Phase::Stop {
            while sent - count < board.in_flight {
                board.send(&mut wire.out, board.number(publisher, sent));
                sent += 1;
            }
        } else if count == sent && replied == sent && !finished {
            finished = true;
            board.finished.send_modify(|count| *count += 1);
        }
        let turn = wire.turn(|out, bytes, now| {
            each_message(bytes, out, |came, _| {
                replied += u64::from(inbox.take(came, now)?);
                Ok(())
            })
        });
        tokio::select! {
            done = turn => done?,
            () = arrived.bell.notified() => {}
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::Parser;

    #[derive(Parser)]
    struct Line {
        #[command(flatten)]
        args: FanoutArgs,
    }

    fn inboxes(line: &[&str]) -> (Arc<Board>, Inbox, Inbox) {
        let args = Line::parse_from([&["fanout", "-s", "1"], line].concat()).args;
        let board = Arc::new(Board::new(&args));
        let stage = Arc::new(Stage::default());
        let inbox = || Inbox::new(board.clone(), stage.clone());
        let (first, second) = (inbox(), inbox());
        (board, first, second)
    }

    fn delivery(number: u64) -> String {
        let digits = super::super::frame::NUMBER_FIRST + number;
        format!(r#"[null,null,"bench:fanout","shout",{{"n":{digits},"p":""}}]"#)
    }

    fn take(inbox: &mut Inbox, text: &str) -> Result<bool> {
        let came = message::scan(text.as_bytes()).expect("a V2 message");
        inbox.take(&came, now_ns())
    }

    #[test]
    fn a_broadcast_has_arrived_when_each_connection_has_it() {
        let (board, mut first, mut second) = inboxes(&["-d", "2"]);
        for number in 0..2 {
            board.send(&mut Vec::new(), number);
        }
        let arrived = || board.arrived[0].count.load(Ordering::Acquire);

        take(&mut first, &delivery(0)).expect("a delivery");
        take(&mut first, &delivery(1)).expect("a delivery");
        assert_eq!(arrived(), 0);
        take(&mut second, &delivery(0)).expect("a delivery");
        assert_eq!(arrived(), 1);
        take(&mut second, &delivery(1)).expect("a delivery");
        assert_eq!(arrived(), 2);
        assert_eq!(Recorder::take().faults, 0);
    }

    #[test]
    fn lost_repeated_and_foreign_deliveries_are_faults() {
        let (board, mut inbox, _) = inboxes(&["-d", "8"]);
        for number in 0..8 {
            board.send(&mut Vec::new(), number);
        }
        for (text, faults) in [
            (delivery(0), 0),
            (delivery(0), 1),
            (delivery(2), 1),
            (delivery(1), 0),
            (r#"[null,null,"bench:fanout","shout",{"n":1}]"#.to_owned(), 1),
            (r#"[null,null,"bench:other","shout",{"n":1}]"#.to_owned(), 0),
        ] {
            take(&mut inbox, &text).expect("no end of the channel");
            assert_eq!(Recorder::take().faults, faults, "{text}");
        }
    }

    #[test]
    fn publishers_are_told_apart_by_their_numbers() {
        let (board, mut inbox, _) = inboxes(&["--publishers", "3", "-d", "2"]);
        let numbers: Vec<u64> = (0..3).map(|publisher| board.number(publisher, 5)).collect();
        assert_eq!(numbers, [15, 16, 17]);

        for number in [1, 0, 3, 2] {
            board.send(&mut Vec::new(), number);
            take(&mut inbox, &delivery(number)).expect("a delivery");
        }
        assert_eq!(Recorder::take().faults, 0);
        assert_eq!(inbox.next, [2, 1, 1]);
    }

    #[test]
    fn only_an_ok_reply_counts_and_the_end_of_the_channel_is_an_error() {
        let (_, mut inbox, _) = inboxes(&[]);
        let reply = |status| {
            format!(r#"["1","1000000000","bench:fanout","phx_reply",{{"status":"{status}","response":{{}}}}]"#)
        };
        assert!(take(&mut inbox, &reply("ok")).expect("a reply"));
        assert!(!take(&mut inbox, &reply("error")).expect("a reply"));
        assert_eq!(Recorder::take().faults, 1);
        assert!(take(&mut inbox, r#"["1","1","bench:fanout","phx_error",{}]"#).is_err());
    }
}
