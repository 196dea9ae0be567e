//! The machine beside a plain model, with calls that end in any order and crashes at any point.

use super::*;

const SEEDS: u64 = 3_000;

/// As many times more as the build was told: see `just workflows`.
fn seeds() -> impl Iterator<Item = u64> {
    let times = option_env!("BENNU_WORKFLOW_SEEDS_TIMES").and_then(|times| times.parse::<u64>().ok());
    1..=SEEDS * times.unwrap_or(1)
}

fn invented(seed: u64, has_once: bool) -> (Dice, Value) {
    let mut dice = Dice(seed.wrapping_mul(0x9E37_79B9_7F4A_7C15) | 1);
    for _ in 0..8 {
        dice.below(2);
    }
    let value = Inventor::new(&mut dice, has_once).definition();
    (dice, value)
}

#[test]
fn any_order_of_ends_and_any_crash_comes_to_what_the_model_says() {
    let (mut completed, mut failed) = (0, 0);
    for seed in seeds() {
        let (mut dice, value) = invented(seed, false);
        let mut run = Run::new(&value, beginning());
        let expected =
            Model { definition: &run.definition.clone(), context: beginning().context }.run(beginning().input);

        let crashes = dice.one_in(2);
        run.play(&mut dice, crashes);

        let outcome = run.outcome.expect("it has ended");
        match (&outcome, &expected) {
            (_, Err(possible)) if possible.iter().any(|(kind, _)| kind == "unclear") => {}
            (Ok(result), Ok(expected)) => {
                completed += 1;
                assert_eq!(**result, *expected, "seed {seed}: {value}");
            }
            (Err(failure), Err(possible)) => {
                failed += 1;
                let kind = format!("{:?}", failure.kind);
                let fits =
                    |(other, text): &(String, String)| *other == kind && failure.message.starts_with(text.as_str());
                assert!(possible.iter().any(fits), "seed {seed}: {failure:?}, expected of {possible:?}: {value}");
            }
            _ => panic!("seed {seed}: {outcome:?}, expected {expected:?}: {value}"),
        }
    }
    assert!(
        completed > SEEDS / 4 && failed > SEEDS / 8,
        "{completed} completed, {failed} failed: the seeds say little"
    );
}

#[test]
fn what_runs_once_is_never_begun_twice_however_often_the_process_dies() {
    let mut begun = 0;
    for seed in seeds() {
        let (mut dice, value) = invented(seed, true);
        let mut run = Run::new(&value, beginning());

        run.play(&mut dice, true);

        begun += run.once.len();
        let twice: Vec<_> = run.once.iter().filter(|(_, times)| **times > 1).collect();
        assert!(twice.is_empty(), "seed {seed}: {twice:?}: {value}");
    }
    assert!(begun > 1_000, "{begun}: the seeds say little");
}

#[test]
fn a_crash_at_every_point_of_one_run_changes_nothing() {
    let value = json!({"type": "sequential", "steps": [
        {"tool": "list"},
        {"type": "loop", "items": "list", "max_concurrent": 2, "steps": [{"tool": "work"}, {"tool": "refuse_1", "retry": 1}]},
        {"type": "parallel", "steps": [{"tool": "work"}, {"tool": "work"}], "merge_step": {"tool": "work", "input": {"x": "list/0"}}},
    ]});
    let in_order = |crash_at: usize| {
        let mut run = Run::new(&value, Beginning::default());
        for n in 0.. {
            if n == crash_at {
                run.crash();
            }
            if run.outcome.is_some() {
                return (run.outcome.clone(), n);
            }
            if let Some(call) = run.calls.keys().next().copied() {
                run.end_call(call);
            } else {
                let (timer, _) = run.timers.pop_first().expect("it waits for something");
                run.handle(Event::Elapsed { timer });
            }
        }
        unreachable!("the loop has no end of its own")
    };
    let (without, points) = in_order(usize::MAX);

    assert!(matches!(&without, Some(Ok(_))) && points > 10, "{without:?} after {points}");
    for crash_at in 0..points {
        assert_eq!(in_order(crash_at).0, without, "a crash after {crash_at} events");
    }
}
