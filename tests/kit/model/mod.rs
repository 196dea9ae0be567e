//! Random conversations on the real conversation machine, beside a plain model of it.
//!
//! A conversation is a list of operations drawn from a seed: clients of both wire versions join, leave, rejoin, push,
//! broadcast, crash, are disconnected, go away, with handlers that wait and messages that pile up behind them. It is played
//! on Bennu through the test kit, on a paused clock, and on the [`reference`], and after each step everything is compared:
//! what each client sees, whose `terminate` ran and why, subscriptions, presences, connections; at the end also the tasks.
//!
//! `BENNU_SEED=n` plays the conversation of one seed, `BENNU_CASES=n` so many, from a random seed on. Where Bennu and the
//! reference disagree, the seed and the shortest conversation that shows it are printed.
//!
//! - `script`, `puppet`: the channel, which does what its client tells it.
//! - `operation`: the operations, and how they are drawn.
//! - `reference`: what should happen.
//! - `play`, `sight`: both sides, and their comparison.
//! - `shrink`: the shortest conversation.

mod operation;
mod play;
mod puppet;
mod reference;
mod script;
mod shrink;
mod sight;

use std::hash::{BuildHasher, RandomState};
use std::panic::{AssertUnwindSafe, catch_unwind};

use operation::{Op, Random};

/// Conversations of an ordinary test run, always the same ones: some ten seconds.
const CASES: u64 = 4_000;

#[test]
fn random_conversations_go_as_in_a_plain_model() {
    let set = |name| std::env::var(name).ok().map(|text| text.parse::<u64>().expect("a number is wanted"));
    let (first, cases) = match (set("BENNU_SEED"), set("BENNU_CASES")) {
        (Some(seed), cases) => (seed, cases.unwrap_or(1)),
        (None, Some(cases)) => (RandomState::new().hash_one(0) >> 16, cases),
        (None, None) => (1, CASES),
    };
    eprintln!("seeds {first} to {}", first + cases - 1);
    for seed in first..first + cases {
        let ops = operation::draw(&mut Random(seed));
        if played(&ops).is_err() {
            let ops = shrink::shrink(ops, |ops| played(ops).is_err());
            let what = played(&ops).expect_err("it failed before");
            let list: String = ops.iter().enumerate().map(|(step, op)| format!("\n  {step}: {op:?}")).collect();
            panic!("BENNU_SEED={seed} diverges; the shortest conversation that does:{list}\n{what}");
        }
    }
}

/// Plays a conversation; a panic is a divergence too.
fn played(ops: &[Op]) -> Result<(), play::Divergence> {
    catch_unwind(AssertUnwindSafe(|| play::play(ops))).unwrap_or_else(|panic| {
        let text = panic.downcast_ref::<String>().cloned();
        Err(format!("a panic: {}", text.unwrap_or_else(|| "without a text".to_owned())))
    })
}
