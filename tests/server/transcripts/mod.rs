//! Plays the conversations recorded from Phoenix against the reference application: a test for each group of them.

pub mod case;
pub mod client;
mod fake;
pub mod frames;
pub mod http;
pub mod json;
mod normalize;
pub mod play;

use std::net::SocketAddr;
use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};

use case::Case;
use play::{difference, play};

use crate::reference::Server;

/// How many cases play at a time: most of a case is waiting, and each has topics of its own.
const JOBS: usize = 8;

/// The one recording that ends its server: `shutdown.rs` plays it.
const SHUTDOWN: &str = "server_shutdown";

/// Plays `cases` against one server, [`JOBS`] at a time, and returns the report of each that differs.
pub fn play_all(cases: &[&Case], server: SocketAddr) -> Vec<String> {
    let next = AtomicUsize::new(0);
    let reports = Mutex::new(Vec::new());
    std::thread::scope(|scope| {
        for _ in 0..JOBS.min(cases.len()) {
            scope.spawn(|| {
                while let Some(case) = cases.get(next.fetch_add(1, Ordering::Relaxed)) {
                    if let Some(report) = difference(case, &play(case, server)) {
                        reports
                            .lock()
                            .expect("no job panics while it holds the lock")
                            .push((case.name.clone(), report));
                    }
                }
            });
        }
    });
    let mut reports = reports.into_inner().expect("no job panics while it holds the lock");
    reports.sort();
    reports.into_iter().map(|(_, report)| report).collect()
}

/// Plays every case of a group that isn't an artefact; there have to be `expected` of them.
fn check_group(group: &str, expected: usize) {
    let all = Case::all();
    let cases: Vec<&Case> = all.iter().filter(|case| case.group == group && !case.artefact).collect();
    assert_eq!(cases.len(), expected, "recordings of the group {group}");
    let server = Server::shared();

    let reports = play_all(&cases, server.address());

    assert!(
        reports.is_empty(),
        "{} of {expected} cases of {group} differ from Phoenix:\n{}",
        reports.len(),
        reports.join("\n")
    );
}

/// The groups that are played, and how many cases each has.
pub fn groups() -> &'static [(&'static str, usize)] {
    GROUPS
}

/// Declares the test of each group, and the table of all groups with the number of their cases.
macro_rules! groups {
    ($($test:ident: $group:literal, $cases:literal;)*) => {
        const GROUPS: &[(&str, usize)] = &[$(($group, $cases)),*];

        $(
            #[test]
            fn $test() {
                check_group($group, $cases);
            }
        )*
    };
}

groups! {
    handshake_as_recorded: "handshake", 11;
    origin_as_recorded: "origin", 4;
    subprotocol_as_recorded: "subprotocol", 11;
    vsn_as_recorded: "vsn", 14;
    v1_as_recorded: "v1", 11;
    v2_join_leave_as_recorded: "v2-join-leave", 27;
    v2_events_as_recorded: "v2-events", 26;
    payloads_as_recorded: "payloads", 12;
    binary_as_recorded: "binary", 23;
    presence_as_recorded: "presence", 14;
    longpoll_as_recorded: "longpoll", 33;
    timeout_as_recorded: "timeout", 4;
    rfc6455_as_recorded: "rfc6455", 34;
    heartbeat_as_recorded: "heartbeat", 5;
    invalid_frames_as_recorded: "invalid-frames", 21;
}

#[test]
fn every_recording_is_played_or_held_by_a_test_of_ours() {
    let artefact_tests = include_str!("../artefacts.rs");
    let shutdown_tests = include_str!("../shutdown.rs");
    let has_test = |source: &str, name: &str| source.contains(&format!("#[test]\nfn {name}() {{"));
    let mut played = 0;

    for case in Case::all() {
        let name = case.name.as_str();
        if case.artefact {
            assert!(has_test(artefact_tests, name), "artefacts.rs has no test {name}");
        } else if name == SHUTDOWN {
            assert!(has_test(shutdown_tests, name), "shutdown.rs has no test {name}");
        } else {
            assert!(GROUPS.iter().any(|(group, _)| *group == case.group), "no test plays the group {}", case.group);
            played += 1;
        }
    }

    assert_eq!(played, GROUPS.iter().map(|(_, cases)| cases).sum::<usize>());
}
