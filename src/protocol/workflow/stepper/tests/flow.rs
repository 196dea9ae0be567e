//! Which steps run, in which order, with what.

use super::*;

#[test]
fn every_step_is_told_from_begin_to_end() {
    let run = ended(
        &json!({"type": "sequential", "steps": [
            {"tool": "refuse_1", "retry": 1, "id": "flaky"},
            {"type": "loop", "id": "rows", "items": [1, 2], "steps": [{"tool": "work"}]},
            {"tool": "refuse_9", "id": "broken", "on_error": "continue"},
        ]}),
        Beginning::default(),
    );

    assert_eq!(
        words(&run.told),
        [
            "started flaky 1",
            "retried flaky",
            "started flaky 2",
            "completed flaky",
            "started rows 1",
            "started rows[0]/work 1",
            "completed rows[0]/work",
            "part rows 0",
            "started rows[1]/work 1",
            "completed rows[1]/work",
            "part rows 1",
            "completed rows",
            "started broken 1",
            "replaced broken",
        ]
    );
    assert_eq!(run.outcome, Some(Ok(Arc::new(Value::Null))));
}

#[test]
fn only_the_chosen_branch_runs() {
    let value = |condition: &str| {
        json!({"type": "conditional", "condition": {"tool": condition},
               "success": [{"tool": "work", "id": "yes_branch"}], "failure": [{"tool": "work", "id": "no_branch"}]})
    };
    for (condition, branch) in
        [("yes", "yes_branch"), ("work", "yes_branch"), ("no", "no_branch"), ("refuse_9", "no_branch")]
    {
        let run = ended(&value(condition), Beginning::default());
        let started: Vec<_> = words(&run.told).into_iter().filter(|word| word.contains("branch 1")).collect();
        assert_eq!(started, [format!("started {branch} 1")], "{condition}");
    }
    let run = ended(&value("unknown"), Beginning::default());
    assert!(matches!(run.outcome, Some(Err(failure)) if failure.kind == FailureKind::ToolNotFound));
}

#[test]
fn a_choice_calls_what_was_chosen() {
    let value = json!({"type": "sampling", "prompt": "add", "tools": ["sum", "sort"], "params": {"x": 1}});
    let mut stepper = Stepper::new(definition(&value), Beginning::default());
    let Some(Action::Choose { call, tools, .. }) = stepper.next_action() else { panic!("a choice comes first") };
    assert_eq!(tools, [json!("sum"), json!("sort")]);

    stepper.handle(Event::Chosen { call, tool: "sum".to_owned() });

    let Some(Action::Call(call)) = stepper.next_action() else { panic!("then the call") };
    let given = stepper.arguments(call.call).expect("under way").expect("all is there").given;
    assert_eq!((call.tool.as_str(), &given["x"]), ("sum", &json!(1)));
    stepper.handle(Event::Returned { call: call.call, result: json!(3), bytes: 1 });
    assert_eq!(stepper.next_action(), Some(Action::End(Ok(Arc::new(json!(3))))));
}

/// The arguments of the calls of `work` in a run, by their paths.
fn arguments(value: &Value, beginning: Beginning) -> BTreeMap<String, Value> {
    let mut run = Run::new(value, beginning);
    let mut all = BTreeMap::new();
    while run.outcome.is_none() {
        let Some(call) = run.calls.keys().next().copied() else {
            let (timer, _) = run.timers.pop_first().expect("it waits for something");
            run.handle(Event::Elapsed { timer });
            continue;
        };
        if let Some(Ok(arguments)) = run.stepper.arguments(call) {
            all.insert(run.calls[&call].place.path.clone(), Value::Object(arguments.given));
        }
        run.end_call(call);
    }
    all
}

#[test]
fn a_loop_is_named_where_several_lie_around_a_step() {
    let value = json!({"type": "loop", "id": "out", "items": ["a", "b"], "steps": [
        {"type": "loop", "id": "in", "items": [7], "steps": [
            {"tool": "work", "input": {"outer": "$item:out", "number": "$index:out", "inner": "$item", "at": "$index"}},
        ]},
    ]});

    let all = arguments(&value, Beginning::default());

    assert_eq!(all["out[1]/in[0]/work"], json!({"outer": "b", "number": 1, "inner": 7, "at": 0}));
}

#[test]
fn the_round_before_is_nothing_in_the_first_round() {
    let value = json!({"type": "loop", "max_iterations": 5, "while": {"source": "$last", "op": "eq", "value": null},
        "input": {"x": "$context"}, "steps": [{"tool": "yes"}]});

    let run = ended(&value, Beginning { context: json!(1), ..Beginning::default() });

    assert_eq!(run.outcome, Some(Ok(Arc::new(json!([true])))));
}

#[test]
fn a_branch_that_fails_at_once_fails_the_whole_whatever_ended_at_the_same_time() {
    let branches = [
        json!({"type": "loop", "id": "a", "items": "$context/missing", "steps": [{"tool": "work"}]}),
        json!({"type": "loop", "id": "b", "items": [], "steps": [{"tool": "work"}]}),
    ];
    for order in [[0, 1], [1, 0]] {
        let steps: Vec<_> = order.iter().map(|at| branches[*at].clone()).collect();
        let value = json!({"type": "sequential", "steps": [
            {"type": "parallel", "id": "par", "steps": steps, "on_error": {"step": {"tool": "yes", "id": "instead"}}},
        ]});

        let run = ended(&value, Beginning { context: json!({}), ..Beginning::default() });

        assert_eq!(run.outcome, Some(Ok(Arc::new(json!(true)))), "{:?}", words(&run.told));
        assert_eq!(words(&run.told).iter().filter(|word| word.ends_with("par")).count(), 2, "{:?}", words(&run.told));
    }
}

#[test]
fn several_calls_in_one_say_which_tools_were_called() {
    let value = json!({"type": "multi_tool", "calls": [{"tool": "work"}, {"tool": "yes"}]});

    let run = ended(&value, Beginning::default());

    let expected = json!({"operation_type": "multi_tool", "status": "completed", "result": true, "tools_executed": ["work", "yes"]});
    assert_eq!(run.outcome, Some(Ok(Arc::new(expected))));
}
