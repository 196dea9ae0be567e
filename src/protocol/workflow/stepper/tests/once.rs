//! Steps that run once, whatever repeats what they lie within.

use super::*;

#[test]
fn a_step_that_runs_once_is_not_repeated_by_what_it_lies_within() {
    let value = json!({"type": "sequential", "steps": [
        {"type": "sequential", "retry": {"max": 2, "delay_ms": 1}, "steps": [
            {"tool": "work", "id": "pay", "run_once": true}, {"tool": "refuse_1", "id": "ship"},
        ]},
    ]});
    // `ship` counts the attempts of its own alone, so it refuses each time.
    let run = ended(&value, Beginning::default());

    assert_eq!(run.once, BTreeMap::from([("sequential_2/pay".to_owned(), 1)]));
    let ships = words(&run.told).iter().filter(|word| word.starts_with("started sequential_2/ship")).count();
    assert_eq!(ships, 3);
}

#[test]
fn what_runs_once_in_rounds_runs_in_each_and_its_failure_stays() {
    let value = json!({"type": "sequential", "steps": [{"type": "sequential", "retry": {"max": 1, "delay_ms": 1}, "steps": [
        {"type": "loop", "id": "rows", "items": ["a", "b"], "steps": [
            {"tool": "refuse_1", "id": "pay", "run_once": true, "on_error": {"value": "refused"}},
        ]},
        {"tool": "refuse_9"},
    ]}]});

    let run = ended(&value, Beginning::default());

    let counts: Vec<_> = run.once.values().copied().collect();
    assert_eq!(counts, [1, 1], "{:?}", run.once);
    let begun = words(&run.told).iter().filter(|word| word.contains("started") && word.contains("pay")).count();
    assert_eq!(begun, 4, "both attempts of the whole came by both rounds");
    assert_eq!(results(&run).len(), 1, "the loop alone gave a result: {:?}", results(&run));
}

#[test]
fn a_choice_that_runs_once_is_not_made_again() {
    let value = json!({"type": "sequential", "steps": [{"type": "sequential", "retry": {"max": 1, "delay_ms": 1}, "steps": [
        {"type": "sampling", "id": "one", "prompt": "p", "tools": ["work"], "run_once": true}, {"tool": "refuse_9"},
    ]}]});
    let mut run = Run::new(&value, Beginning::default());
    let mut choices = 0;
    while run.outcome.is_none() {
        if let Some(call) = run.choices.pop_first() {
            choices += 1;
            run.handle(Event::Chosen { call, tool: "work".to_owned() });
        } else if let Some(call) = run.calls.keys().next().copied() {
            run.end_call(call);
        } else {
            let (timer, _) = run.timers.pop_first().expect("it waits for something");
            run.handle(Event::Elapsed { timer });
        }
    }
    assert_eq!((choices, run.once.values().copied().collect::<Vec<_>>()), (1, vec![1]));
}
