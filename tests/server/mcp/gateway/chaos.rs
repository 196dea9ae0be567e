//! Upstreams that are killed and hung at random, under load: every call ends once, and no process is left behind.

use std::collections::BTreeMap;
use std::process::Command;
use std::time::{Duration, Instant};

use serde_json::{Value, json};

use super::super::peer::{Peer, TestServer};
use super::odd::{Log, ODD, call, client, is_running, noting, until};

/// How long each run of the test is; `BENNU_CHAOS_SECONDS` has it go on for longer, and `BENNU_CHAOS_SEED` as before.
const SECONDS: u64 = 6;

/// xorshift64*.
struct Random(u64);

impl Random {
    fn next(&mut self, below: u64) -> u64 {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        (self.0.wrapping_mul(0x2545_F491_4F6C_DD1D) >> 33) % below
    }
}

fn from_environment(name: &str) -> Option<u64> {
    std::env::var(name).ok()?.parse().ok()
}

fn signal(pid: u64, name: &str) {
    let _ = Command::new("kill").args([name, &pid.to_string()]).status();
}

#[test]
fn every_call_ends_once_and_no_process_is_left() {
    let seconds = from_environment("BENNU_CHAOS_SECONDS").unwrap_or(SECONDS);
    let seed = from_environment("BENNU_CHAOS_SEED").unwrap_or_else(|| u64::from(std::process::id()) | 1);
    println!("BENNU_CHAOS_SEED={seed}");
    let mut random = Random(seed);
    let log = Log::new();
    let server = TestServer::serving([noting(&log, &[], |options| {
        options.hang_timeout = Some(Duration::from_millis(500));
        options.start_timeout = Duration::from_secs(10);
    })]);
    let mut peers: Vec<Peer> = (0..8).map(|_| client(&server)).collect();
    let mut asked: Vec<BTreeMap<u64, &str>> = vec![BTreeMap::new(); peers.len()];
    let end = Instant::now() + Duration::from_secs(seconds);
    let mut next_blow = Instant::now();
    let mut id = 0;
    while Instant::now() < end {
        for (peer, asked) in peers.iter_mut().zip(&mut asked) {
            let (tool, arguments) = match random.next(10) {
                0..6 => ("progress", json!({"count": random.next(30)})),
                6..9 => ("echo_raw", json!({"n": random.next(1_000)})),
                _ => ("slow", json!({"ms": random.next(100)})),
            };
            id += 1;
            let mut params = call(tool, arguments);
            params["_meta"] = json!({"progressToken": id});
            peer.send(
                ODD,
                "mcp_message",
                &json!({"jsonrpc": "2.0", "id": id, "method": "tools/call", "params": params}),
            );
            asked.insert(id, tool);
            // No more under way than may be.
            if asked.len() % 8 == 0 {
                peer.wait(|frame| frame.is_response(&json!(id)));
            }
        }
        if Instant::now() >= next_blow {
            next_blow = Instant::now() + Duration::from_millis(200 + random.next(600));
            if let Some(pid) = log.pids().last().copied().filter(|pid| is_running(*pid)) {
                signal(pid, if random.next(4) == 0 { "-STOP" } else { "-KILL" });
            }
        }
    }
    let (mut results, mut errors) = (0, 0);
    for (peer, asked) in peers.iter_mut().zip(&asked) {
        for id in asked.keys() {
            let answer = peer.wait(|frame| frame.is_response(&json!(id))).payload;
            if answer.get("result").is_some() { results += 1 } else { errors += 1 }
        }
        let answered = |id: &u64| peer.frames.iter().filter(|frame| frame.is_response(&Value::from(*id))).count();
        assert!(asked.keys().all(|id| answered(id) == 1), "seed {seed}: an answer came twice");
    }
    println!("{results} results, {errors} errors, {} processes", log.pids().len());
    assert!(results > 0 && log.pids().len() > 1, "seed {seed}: {results} results, {} processes", log.pids().len());
    // And it works on; the last blow may still cost a call that was under way.
    let mut peer = client(&server);
    let mut works = |id: u64| peer.ask(ODD, id, "tools/call", call("echo_raw", json!({}))).get("result").is_some();
    assert!((1..=5).any(&mut works), "seed {seed}");

    drop((peers, peer, server));

    until("all processes to be gone", || log.pids().iter().all(|pid| !is_running(*pid)));
}
