//! Replays the committed inputs of every fuzz target, and random neighbours of them.

use std::collections::BTreeSet;
use std::fs;
use std::panic::catch_unwind;
use std::path::{Path, PathBuf};

use bennu::protocol::fuzz::{Body, TARGETS};
use proptest::prelude::*;
use proptest::test_runner::{Config, TestCaseError, TestRunner};

/// Bytes of all committed inputs: more would weigh on whoever clones the project.
const CORPUS_BYTES_MAX: u64 = 1_500_000;

/// Random inputs of each target: some seconds for all of them in a build without optimisation.
const RANDOM_CASES: u32 = 300;

/// The bodies of the targets.
mod bodies {
    #[cfg(feature = "server")]
    pub use bennu::auth::phoenix_token::fuzz::phoenix_token;
    pub use bennu::protocol::fuzz::*;
}

macro_rules! targets {
    ($($(#[$when:meta])? $target:ident)*) => {
        /// The targets that have the two tests below.
        const REPLAYED: &[&str] = &[$(stringify!($target)),*];

        /// Every committed input.
        mod committed {
            $(
                $(#[$when])?
                #[test]
                fn $target() {
                    super::replay(stringify!($target), super::bodies::$target);
                }
            )*
        }

        /// Committed inputs with some bytes changed, and random ones.
        mod neighbours {
            $(
                $(#[$when])?
                #[test]
                fn $target() {
                    super::vary(stringify!($target), super::bodies::$target);
                }
            )*
        }
    };
}

targets!(
    erlang_term longpoll_body mcp_peer #[cfg(feature = "server")] phoenix_token policy_matcher presence_ops recovery_ops
    resume_params socket_ops v1_text v2_binary v2_text websocket_frames
);

fn folder(path: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("fuzz").join(path)
}

/// The names in a folder, sorted, so that every machine goes through them in one order.
fn names(folder: &Path) -> BTreeSet<String> {
    let entries = fs::read_dir(folder).unwrap_or_else(|error| panic!("{}: {error}", folder.display()));
    entries
        .map(|entry| entry.expect("the folder can be listed").file_name().into_string().expect("names are UTF-8"))
        .collect()
}

/// The committed inputs of a target, by name.
fn corpus(target: &str) -> Vec<(String, Vec<u8>)> {
    let folder = folder("corpus").join(target);
    let inputs = names(&folder).into_iter();
    inputs.map(|name| (name.clone(), fs::read(folder.join(name)).expect("an input is a file"))).collect()
}

fn replay(target: &str, body: Body) {
    let corpus = corpus(target);
    assert!(!corpus.is_empty(), "fuzz/corpus/{target} holds no inputs");

    let failed: Vec<String> = corpus
        .iter()
        .filter(|(_, input)| catch_unwind(|| body(input)).is_err())
        .map(|(name, _)| format!("fuzz/corpus/{target}/{name}"))
        .collect();

    assert!(failed.is_empty(), "{} of {} inputs fail:\n{}", failed.len(), corpus.len(), failed.join("\n"));
}

fn vary(target: &str, body: Body) {
    let inputs: Vec<Vec<u8>> = corpus(target).into_iter().map(|(_, input)| input).collect();
    let edits = prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 0..4);
    let neighbour = (prop::sample::select(inputs), edits, any::<prop::sample::Index>(), any::<bool>()).prop_map(
        |(mut input, edits, end, cut)| {
            for (at, byte) in edits.iter().filter(|_| !input.is_empty()).collect::<Vec<_>>() {
                let at = at.index(input.len());
                input[at] = *byte;
            }
            if cut {
                input.truncate(end.index(input.len() + 1));
            }
            input
        },
    );
    let random = prop::collection::vec(any::<u8>(), 0..300);
    let strategy = prop_oneof![3 => neighbour, 1 => random];

    let config = Config { cases: RANDOM_CASES, failure_persistence: None, ..Config::default() };
    let result = TestRunner::new(config).run(&strategy, |input| {
        catch_unwind(|| body(&input)).map_err(|_| TestCaseError::fail("the body panicked, see above"))
    });

    if let Err(failure) = result {
        panic!("{failure}\nKeep the input in fuzz/corpus/{target} under a name that tells what it showed.");
    }
}

#[test]
fn every_target_has_a_program_a_corpus_and_a_replay() {
    // The tokens' body is not among those of the pure protocol.
    let targets = TARGETS.iter().map(|(name, _)| *name).chain(["phoenix_token"]);
    let targets: BTreeSet<String> = targets.map(ToOwned::to_owned).collect();

    assert_eq!(targets, REPLAYED.iter().map(|name| (*name).to_owned()).collect(), "tests/protocol/corpus.rs");
    assert_eq!(targets, names(&folder("corpus")), "fuzz/corpus");
    let programs: BTreeSet<String> = targets.iter().map(|name| format!("{name}.rs")).collect();
    assert_eq!(programs, names(&folder("fuzz_targets")), "fuzz/fuzz_targets");
    let manifest = fs::read_to_string(folder("Cargo.toml")).expect("the fuzz project has a manifest");
    for name in &targets {
        assert!(manifest.contains(&format!("name = \"{name}\"")), "fuzz/Cargo.toml has no program {name}");
    }
}

#[test]
fn the_corpora_stay_small() {
    let sizes = REPLAYED.iter().flat_map(|target| corpus(target)).map(|(_, input)| input.len() as u64);

    let bytes: u64 = sizes.sum();

    assert!(bytes <= CORPUS_BYTES_MAX, "fuzz/corpus holds {bytes} bytes, at most {CORPUS_BYTES_MAX} may be");
}
