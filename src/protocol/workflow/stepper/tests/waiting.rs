//! Timeouts, attempts, triggers.

use super::*;

#[test]
fn a_timeout_ends_what_lies_below_and_another_attempt_begins_afresh() {
    let value = json!({"type": "sequential", "steps": [
        {"type": "parallel", "id": "both", "timeout_ms": 50, "retry": {"max": 1, "delay_ms": 5},
         "steps": [{"tool": "work", "id": "a"}, {"tool": "work", "id": "b"}]},
    ]});
    let mut run = Run::new(&value, Beginning::default());
    let first: Vec<_> = run.calls.keys().copied().collect();
    assert_eq!((first.len(), run.timers.len()), (2, 1));
    run.end_call(first[0]);

    let (timer, _) = run.timers.pop_first().expect("the timeout");
    run.handle(Event::Elapsed { timer });
    assert!(run.calls.is_empty(), "the other call was taken back");
    // What comes late is of no step any more.
    run.handle(Event::Returned { call: first[1], result: json!(1), bytes: 1 });
    assert_eq!((run.timers.len(), run.stepper.under_way()), (1, 2));

    let (timer, _) = run.timers.pop_first().expect("the delay");
    run.handle(Event::Elapsed { timer });
    assert_eq!(run.calls.len(), 2);
    let (timer, _) = run.timers.pop_first().expect("the second timeout");
    run.handle(Event::Elapsed { timer });
    let failure = run.outcome.expect("it has ended").expect_err("no attempt is left");
    assert_eq!(
        (failure.kind, failure.to_error_text()),
        (FailureKind::Timeout, "Workflow execution failed: step both: timed out after 50 ms".into())
    );
}

#[test]
fn a_reactive_step_waits_for_the_event_that_its_condition_wants() {
    let value = json!({"type": "sequential", "steps": [
        {"type": "reactive", "id": "on_order", "triggers": [{"event": "order", "delay": 20,
            "condition": {"source": "$trigger/payload/total", "op": "gt", "value": 10}}],
         "workflow": {"type": "sequential", "steps": [{"tool": "work", "id": "act", "input": {"total": "$trigger/payload/total"}}]}},
    ]});
    let definition = definition(&value);
    let mut stepper = Stepper::new(definition, Beginning::default());
    let actions = |stepper: &mut Stepper| std::iter::from_fn(|| stepper.next_action()).collect::<Vec<_>>();
    let watch = actions(&mut stepper).iter().find_map(|action| match action {
        Action::Watch { watch, .. } => Some(*watch),
        _ => None,
    });
    let watch = watch.expect("it waits");
    let order =
        |total: u64| Event::Fired { watch, trigger: 0, value: json!({"event": "order", "payload": {"total": total}}) };

    stepper.handle(order(3));
    assert_eq!(actions(&mut stepper), []);
    stepper.handle(order(30));
    let armed = actions(&mut stepper);
    let [Action::Unwatch { .. }, Action::Arm { timer, ms: 20 }] = armed[..] else { panic!("{armed:?}") };
    stepper.handle(order(40));
    stepper.handle(Event::Elapsed { timer });

    let calls = actions(&mut stepper).into_iter().filter_map(|action| match action {
        Action::Call(call) => Some(call.call),
        _ => None,
    });
    let calls: Vec<_> = calls.collect();
    let given = stepper.arguments(calls[0]).expect("under way").expect("all is there").given;
    assert_eq!((calls.len(), Value::Object(given)), (1, json!({"total": 30})));
}

#[test]
fn whoever_executes_a_reactive_workflow_is_its_trigger() {
    let value = json!({"type": "reactive", "triggers": [{"event": "order"}],
        "workflow": {"type": "sequential", "steps": [{"tool": "yes"}]}});

    let run = ended(&value, Beginning::default());

    assert_eq!(run.outcome, Some(Ok(Arc::new(json!(true)))));
}

#[test]
fn attempts_come_after_ever_longer_waits() {
    let value = json!({"type": "sequential", "steps": [
        {"tool": "refuse_9", "retry": {"max": 3, "delay_ms": 100, "backoff": 3, "max_delay_ms": 500}},
    ]});
    let mut run = Run::new(&value, Beginning::default());
    let mut waits = Vec::new();
    while run.outcome.is_none() {
        if let Some(call) = run.calls.keys().next().copied() {
            run.end_call(call);
        } else {
            let (timer, ms) = run.timers.pop_first().expect("the wait");
            waits.push(ms);
            run.handle(Event::Elapsed { timer });
        }
    }
    assert_eq!(waits, [100, 300, 500]);
}

#[test]
fn a_timeout_of_a_condition_is_a_no_and_parts_of_a_parallel_are_told() {
    let value = json!({"type": "parallel", "steps": [
        {"type": "conditional", "id": "if", "condition": {"tool": "work", "id": "slow", "timeout_ms": 5},
         "success": [{"tool": "yes"}], "failure": [{"tool": "no"}]},
    ]});
    let mut run = Run::new(&value, Beginning::default());
    let (timer, _) = run.timers.pop_first().expect("the timeout");
    run.handle(Event::Elapsed { timer });
    let call = run.calls.keys().next().copied().expect("the branch");
    run.end_call(call);

    assert_eq!(run.outcome, Some(Ok(Arc::new(json!({"if": false})))));
    assert!(words(&run.told).contains(&"part parallel \"if\"".to_owned()), "{:?}", words(&run.told));
}

#[test]
fn what_is_cut_off_lets_go_of_choices_waits_and_watches() {
    let workflow = json!({"type": "sequential", "steps": [{"tool": "work"}]});
    let value = json!({"type": "sequential", "steps": [{"type": "parallel", "timeout_ms": 9, "on_error": "continue", "steps": [
        {"type": "sampling", "prompt": "p", "tools": ["work"]},
        {"type": "reactive", "triggers": [{"event": "never"}], "workflow": workflow},
        {"type": "reactive", "triggers": [{"event": "off", "active": false}, {"event": "soon", "delay": 50}], "workflow": workflow},
    ]}]});
    let mut run = Run::new(&value, Beginning::default());
    let watches: Vec<_> = run.watches.iter().copied().collect();
    let fired = |trigger| Event::Fired { watch: watches[1], trigger, value: json!({}) };
    run.handle(fired(0));
    assert_eq!(run.watches.len(), 2, "a trigger that is not active is not heeded");
    run.handle(fired(1));
    assert_eq!((run.watches.len(), run.choices.len(), run.timers.len()), (1, 1, 2));

    let timeout = *run.timers.iter().find(|(_, ms)| **ms == 9).expect("the timeout").0;
    run.timers.remove(&timeout);
    run.handle(Event::Elapsed { timer: timeout });

    // Nothing is left under way, which the harness looks at.
    assert_eq!(run.outcome, Some(Ok(Arc::new(Value::Null))));
}

#[test]
fn several_workflows_wait_for_a_trigger_each() {
    let one = |tool: &str| json!({"type": "sequential", "steps": [{"tool": tool}]});
    let value = json!({"type": "sequential", "steps": [{"type": "reactive", "workflows": {"a": one("yes"), "b": one("no")},
        "triggers": [{"event": "x", "workflow": "a"}, {"event": "y", "workflow": "b"}]}]});
    let mut run = Run::new(&value, Beginning::default());
    let watch = *run.watches.first().expect("it waits");

    run.handle(Event::Fired { watch, trigger: 1, value: json!({}) });
    let call = run.calls.keys().next().copied().expect("the workflow");
    run.end_call(call);

    assert_eq!(run.outcome, Some(Ok(Arc::new(json!(false)))));
}
