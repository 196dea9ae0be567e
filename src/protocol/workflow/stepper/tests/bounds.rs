//! What a run may hold, and how long it may go on.

use super::*;

#[test]
fn a_diamond_of_a_hundred_and_a_long_loop_keep_little_under_way() {
    let steps: Vec<_> = (0..100).map(|n| json!({"tool": "work", "params": {"n": n}})).collect();
    let diamond = json!({"type": "sequential", "steps": [
        {"tool": "list"}, {"type": "parallel", "max_concurrent": 7, "steps": steps, "merge_step": {"tool": "work"}},
    ]});
    let mut run = Run::new(&diamond, Beginning::default());
    let mut most = 0;
    while let Some(call) = run.calls.keys().next().copied() {
        most = most.max(run.calls.len());
        run.end_call(call);
    }
    assert!(matches!(run.outcome, Some(Ok(_))));
    assert_eq!(most, 7);

    let items: Vec<_> = (0..10_000).collect();
    let long = json!({"type": "loop", "items": items, "collect": "none", "steps": [{"tool": "yes"}, {"tool": "no"}]});
    let mut run = Run::new(&long, Beginning::default());
    while let Some(call) = run.calls.keys().next().copied() {
        run.end_call(call);
        run.told.clear();
        assert!(run.stepper.under_way() <= 3);
    }
    assert_eq!(run.outcome, Some(Ok(Arc::new(json!({"iterations": 10_000})))));
}

#[test]
fn a_run_that_repeats_itself_without_end_is_stopped() {
    let inner = json!({"type": "loop", "max_iterations": 100_000, "collect": "none", "steps": [
        {"type": "conditional", "condition": {"source": "$context", "op": "truthy"}, "success": [{"tool": "work"}]},
    ]});
    let value = json!({"type": "loop", "max_iterations": 100_000, "collect": "none", "steps": [inner]});

    let run = Run::new(&value, Beginning::default());

    assert!(matches!(run.outcome, Some(Err(failure)) if failure.kind == FailureKind::Limit));
}

#[test]
fn results_are_bounded_together() {
    let nothing =
        json!({"type": "conditional", "condition": {"source": "$context/nothing"}, "success": [{"tool": "work"}]});
    let inner = json!({"type": "loop", "items": "$context/rows", "steps": [nothing]});
    let value = json!({"type": "loop", "max_iterations": 100_000, "steps": [inner]});
    let rows: Vec<_> = (0..1_000).collect();

    let run = Run::new(&value, Beginning { context: json!({"rows": rows}), ..Beginning::default() });

    assert!(matches!(run.outcome, Some(Err(ref failure)) if failure.kind == FailureKind::Limit), "{:?}", run.outcome);
}

#[test]
fn values_are_bounded_in_bytes_and_in_depth() {
    let large = json!("x".repeat(250_000));
    let input: serde_json::Map<_, _> = (0..9).map(|n| (format!("a{n}"), json!("$context"))).collect();
    let value = json!({"type": "sequential", "steps": [{"tool": "work", "input": input}]});
    let run = ended(&value, Beginning { context: large, ..Beginning::default() });
    assert!(matches!(run.outcome, Some(Err(ref failure)) if failure.kind == FailureKind::Limit), "{:?}", run.outcome);

    let mut run = Run::new(&json!({"type": "sequential", "steps": [{"tool": "work"}]}), Beginning::default());
    let call = run.calls.pop_first().expect("under way").0;
    let deep = (0..70).fold(json!(1), |deep, _| json!([deep]));
    run.handle(Event::Returned { call, bytes: 141, result: deep });
    assert!(matches!(run.outcome, Some(Err(ref failure)) if failure.kind == FailureKind::Limit), "{:?}", run.outcome);
}
