//! Messages a second through durable and memory queues, beside a plain loop that appends and syncs with the same grouping.
//!
//! ```text
//! cargo bench --bench queue -- [--producers 64,512] [--seconds 2] [--rounds 5] [--folder DIR]
//! ```
//!
//! Each producer enqueues a message, takes one, acknowledges it, and begins again; each step is answered before the next. The
//! floor does the same with a file: a record for the message, a record for its ack, each answered once it is synced, all that
//! wait at a time with one write and one `fdatasync`. The variants take turns within a round; ratios are those of one round.
#![expect(clippy::disallowed_methods, reason = "a benchmark reads clocks")]
#![expect(clippy::print_stdout, reason = "its report")]

use std::fs::File;
use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use bennu::queue::{Durability, NewMessage, QueueSettings, Queues};
use tokio::sync::{mpsc, oneshot};

/// Queues that the producers share.
const QUEUES: usize = 8;
/// Bytes of a message's payload.
const PAYLOAD_BYTES: usize = 256;
/// Bytes of an ack's record in the floor: what a key and a length take.
const ACK_BYTES: usize = 32;
/// What the Elixir deployment says of itself, in messages a second.
const CLAIM: f64 = 10_000.0;

struct Options {
    producers: Vec<usize>,
    seconds: f64,
    rounds: usize,
    folder: PathBuf,
}

fn main() {
    let options = options();
    let runtime = tokio::runtime::Runtime::new().expect("a runtime");
    println!("producers  variant   messages/s (median)   of the floor   of the deployment's claim ({CLAIM}/s)");
    for &producers in &options.producers {
        let mut rates = [const { Vec::new() }; 3];
        let mut ratios = [const { Vec::new() }; 3];
        for round in 0..options.rounds {
            let folder = options.folder.join(format!("bennu-queue-bench-{}-{round}", std::process::id()));
            std::fs::create_dir_all(&folder).expect("a folder");
            let floor = runtime.block_on(floor(producers, options.seconds, &folder));
            let durable = runtime.block_on(queues(producers, options.seconds, Durability::Durable, &folder));
            let memory = runtime.block_on(queues(producers, options.seconds, Durability::Memory, &folder));
            for (at, rate) in [floor, durable, memory].into_iter().enumerate() {
                rates[at].push(rate);
                ratios[at].push(rate / floor);
            }
            let _ = std::fs::remove_dir_all(&folder);
        }
        let memory_of_durable = rates[2].iter().zip(&rates[1]).map(|(memory, durable)| memory / durable).collect();
        for (at, variant) in ["floor", "durable", "memory"].into_iter().enumerate() {
            let rate = median(rates[at].clone());
            println!(
                "{producers:>9}  {variant:<8} {rate:>20.0} {:>14.2} {:>14.2}",
                median(ratios[at].clone()),
                rate / CLAIM
            );
        }
        println!("{producers:>9}  memory is {:.1} times durable", median(memory_of_durable));
    }
}

fn options() -> Options {
    let mut options = Options { producers: vec![64, 512], seconds: 2.0, rounds: 5, folder: std::env::temp_dir() };
    let mut words = std::env::args().skip(1);
    while let Some(word) = words.next() {
        // Cargo says that this is a benchmark.
        if word == "--bench" {
            continue;
        }
        let value = words.next().unwrap_or_else(|| panic!("{word}: expected a value"));
        match &*word {
            "--producers" => {
                options.producers =
                    value.split(',').map(|count| count.parse().expect("a number of producers")).collect();
            }
            "--seconds" => options.seconds = value.parse().expect("a number of seconds"),
            "--rounds" => options.rounds = value.parse().expect("a number of rounds"),
            "--folder" => options.folder = value.into(),
            _ => panic!("expected --producers, --seconds, --rounds or --folder, came {word}"),
        }
    }
    options
}

fn median(mut values: Vec<f64>) -> f64 {
    values.sort_by(f64::total_cmp);
    values[values.len() / 2]
}

/// Runs producers until the time is over; gives the rate of `each` that ended.
async fn rate<F: Future<Output = ()> + Send + 'static>(
    producers: usize,
    seconds: f64,
    start: impl Fn(usize, Arc<Tally>) -> F,
) -> f64 {
    let tally = Arc::new(Tally::default());
    let began = Instant::now();
    let tasks: Vec<_> = (0..producers).map(|producer| tokio::spawn(start(producer, Arc::clone(&tally)))).collect();
    tokio::time::sleep(Duration::from_secs_f64(seconds)).await;
    let done = tally.done.load(Ordering::Relaxed);
    let elapsed = began.elapsed().as_secs_f64();
    tally.is_over.store(true, Ordering::Relaxed);
    for task in tasks {
        task.abort();
    }
    f64::from(u32::try_from(done).expect("fewer than four billion")) / elapsed
}

#[derive(Default)]
struct Tally {
    done: AtomicU64,
    is_over: AtomicBool,
}

impl Tally {
    fn goes_on(&self) -> bool {
        self.done.fetch_add(1, Ordering::Relaxed);
        !self.is_over.load(Ordering::Relaxed)
    }
}

async fn queues(producers: usize, seconds: f64, class: Durability, folder: &Path) -> f64 {
    let settings = QueueSettings::default().class("queue:*", class).expect("a pattern");
    let settings = settings.with(|settings| settings.in_flight_max = 1_000);
    let queues = match class {
        Durability::Durable => Queues::open(folder.join("store.redb"), settings).await.expect("a store"),
        _ => Queues::in_memory(settings),
    };
    let payload = serde_json::json!({"text": "x".repeat(PAYLOAD_BYTES - 11)});
    rate(producers, seconds, |producer, tally| {
        let (queues, payload) = (queues.clone(), bennu::Payload::from(payload.clone()));
        async move {
            let name = format!("queue:{}", producer % QUEUES);
            let consumer = queues.consume(&name).expect("a queue");
            loop {
                let message = NewMessage::new(payload.clone());
                let enqueued = queues.enqueue(&name, message).await.expect("a place");
                assert_eq!(enqueued.durability, class);
                let message = consumer.recv().await;
                consumer.ack(&message.id).await.expect("an ack");
                if !tally.goes_on() {
                    return;
                }
            }
        }
    })
    .await
}

/// A record to append, and who waits for it.
type Append = (&'static [u8], oneshot::Sender<()>);

async fn floor(producers: usize, seconds: f64, folder: &Path) -> f64 {
    static MESSAGE: [u8; PAYLOAD_BYTES + ACK_BYTES] = [b'x'; PAYLOAD_BYTES + ACK_BYTES];
    static ACK: [u8; ACK_BYTES] = [b'y'; ACK_BYTES];
    let (sender, receiver) = mpsc::unbounded_channel::<Append>();
    let file = File::create(folder.join("floor.log")).expect("a file");
    let writing = std::thread::spawn(move || append(file, receiver));
    let rate = rate(producers, seconds, move |_, tally| {
        let sender = sender.clone();
        async move {
            loop {
                for record in [&MESSAGE[..], &ACK[..]] {
                    let (told, stored) = oneshot::channel();
                    if sender.send((record, told)).is_err() || stored.await.is_err() {
                        return;
                    }
                }
                if !tally.goes_on() {
                    return;
                }
            }
        }
    })
    .await;
    tokio::task::spawn_blocking(move || writing.join().expect("it ends with its senders")).await.expect("it ran");
    rate
}

fn append(mut file: File, mut receiver: mpsc::UnboundedReceiver<Append>) {
    while let Some(first) = receiver.blocking_recv() {
        let mut waiting = vec![first];
        while let Ok(next) = receiver.try_recv() {
            waiting.push(next);
        }
        let bytes = waiting.iter().flat_map(|(record, _)| record.iter().copied()).collect::<Vec<_>>();
        file.write_all(&bytes).and_then(|()| file.sync_data()).expect("a disk");
        for (_, told) in waiting {
            // Whoever was aborted waits no more.
            let _ = told.send(());
        }
    }
}
