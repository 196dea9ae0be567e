//! The machine beside a plain model, with calls that end in any order and crashes at any point; and by hand.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use serde_json::{Value, json};

use super::model::{Dice, Inventor, Model, tool};
use super::*;
use crate::protocol::workflow::compile;

fn definition(value: &Value) -> Arc<Definition> {
    Arc::new(compile(value, &()).unwrap_or_else(|faults| panic!("{value}: {faults:?}")).0)
}

/// One run as its driver has it: what is under way, and what has been written down.
struct Run {
    definition: Arc<Definition>,
    beginning: Beginning,
    stepper: Stepper,
    journal: Vec<Event>,
    calls: BTreeMap<CallId, Call>,
    choices: BTreeSet<CallId>,
    watches: BTreeSet<WatchId>,
    /// With their milliseconds.
    timers: BTreeMap<TimerId, u64>,
    told: Vec<Told>,
    outcome: Option<Result<Arc<Value>, Failure>>,
    /// How often each step that runs once was begun, by its path.
    once: BTreeMap<String, usize>,
    begun: BTreeSet<CallId>,
}

impl Run {
    fn new(value: &Value, beginning: Beginning) -> Self {
        let definition = definition(value);
        let stepper = Stepper::new(Arc::clone(&definition), beginning.clone());
        let mut run = Run {
            definition,
            beginning,
            stepper,
            journal: Vec::new(),
            calls: BTreeMap::new(),
            choices: BTreeSet::new(),
            watches: BTreeSet::new(),
            timers: BTreeMap::new(),
            told: Vec::new(),
            outcome: None,
            once: BTreeMap::new(),
            begun: BTreeSet::new(),
        };
        run.obey();
        run
    }

    fn obey(&mut self) {
        while let Some(action) = self.stepper.next_action() {
            match action {
                Action::Call(call) => drop(self.calls.insert(call.call, call)),
                Action::Choose { call, .. } => drop(self.choices.insert(call)),
                Action::Watch { watch, .. } => drop(self.watches.insert(watch)),
                Action::Unwatch { watch } => assert!(self.watches.remove(&watch), "what is watched is let go once"),
                Action::Abandon { call } => {
                    assert!(self.calls.remove(&call).is_some() || self.choices.remove(&call), "of a call under way");
                }
                Action::Arm { timer, ms } => drop(self.timers.insert(timer, ms)),
                Action::Disarm { timer } => drop(self.timers.remove(&timer)),
                Action::Tell(told) => self.told.push(told),
                Action::Pause => {}
                Action::End(outcome) => {
                    assert!(self.outcome.is_none(), "a run ends once");
                    let left = (self.calls.len(), self.choices.len(), self.timers.len(), self.watches.len());
                    assert_eq!(left, (0, 0, 0, 0), "nothing is left under way");
                    self.outcome = Some(outcome);
                }
            }
        }
    }

    /// Notes that a call is made which may be made once, if that was not noted.
    fn begin_once(&mut self, id: CallId) -> bool {
        let call = &self.calls[&id];
        if !call.once || !self.begun.insert(id) {
            return false;
        }
        *self.once.entry(call.place.path.clone()).or_default() += 1;
        self.handle(Event::Begun { call: id });
        true
    }

    fn handle(&mut self, event: Event) {
        self.journal.push(event.clone());
        self.stepper.handle(event);
        self.obey();
    }

    /// Ends a call as the model's tools do.
    fn end_call(&mut self, id: CallId) {
        self.begin_once(id);
        let arguments = self.stepper.arguments(id).expect("it is under way");
        let call = self.calls.remove(&id).expect("it is under way");
        let outcome =
            arguments.and_then(|arguments| tool(&call, arguments).map_err(|(kind, text)| Failure::new(kind, text)));
        self.handle(match outcome {
            Ok(result) => Event::Returned { call: id, bytes: result.to_string().len(), result },
            Err(failure) => Event::Failed { call: id, failure },
        });
    }

    /// The process ends; another one goes on with what was written down.
    fn crash(&mut self) {
        self.stepper = Stepper::new(Arc::clone(&self.definition), self.beginning.clone());
        (self.calls, self.timers, self.outcome) = Default::default();
        let told = std::mem::take(&mut self.told);
        self.obey();
        let mut begun = BTreeSet::new();
        for event in self.journal.clone() {
            match &event {
                Event::Begun { call } => drop(begun.insert(*call)),
                Event::Returned { call, .. } | Event::Failed { call, .. } => drop(self.calls.remove(call)),
                Event::Elapsed { timer } => drop(self.timers.remove(timer)),
                _ => {}
            }
            self.stepper.handle(event);
            self.obey();
        }
        assert_eq!(self.told, told, "what was told is told again");
        let may_have_run: Vec<_> = self.calls.keys().copied().filter(|call| begun.contains(call)).collect();
        for call in may_have_run {
            self.calls.remove(&call);
            self.handle(Event::Failed { call, failure: Failure::may_have_run() });
        }
    }

    /// Lets calls and timers end in a random order, with a crash now and then.
    fn play(&mut self, dice: &mut Dice, crashes: bool) {
        let mut left = 20_000;
        while self.outcome.is_none() {
            left -= 1;
            assert!(left > 0, "it does not end");
            if crashes && dice.one_in(6) {
                self.crash();
                continue;
            }
            let waiting = self.calls.len() + self.timers.len();
            assert!(waiting > 0, "a run that has not ended waits for something");
            let at = dice.below(waiting);
            match self.calls.keys().nth(at).copied() {
                // Between the word that it begins and its end the process may die.
                Some(call) if self.begin_once(call) => {}
                Some(call) => self.end_call(call),
                None => {
                    let timer = *self.timers.keys().nth(at - self.calls.len()).expect("it is below their number");
                    self.timers.remove(&timer);
                    self.handle(Event::Elapsed { timer });
                }
            }
        }
    }
}

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

fn beginning() -> Beginning {
    Beginning { input: Some(json!({"a": 5})), context: json!({"a": 6, "b": [7]}), ..Beginning::default() }
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

/// Runs with the model's tools, one after another, and timers that run off when nothing else is left.
fn ended(value: &Value, beginning: Beginning) -> Run {
    let mut run = Run::new(value, beginning);
    while run.outcome.is_none() {
        if let Some(call) = run.calls.keys().next().copied() {
            run.end_call(call);
        } else {
            let (timer, _) = run.timers.pop_first().expect("it waits for something");
            run.handle(Event::Elapsed { timer });
        }
    }
    run
}

fn words(told: &[Told]) -> Vec<String> {
    let word = |told: &Told| match told {
        Told::Started(place) => format!("started {} {}", place.path, place.attempt),
        Told::Part { place, part, .. } => format!("part {} {part}", place.path),
        Told::Completed { place, .. } => format!("completed {}", place.path),
        Told::Failed { place, becomes, .. } => format!("{becomes} {}", place.path),
    };
    told.iter().map(word).collect()
}

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

/// What each step that has ended gave, by its path.
fn results(run: &Run) -> BTreeMap<String, Value> {
    let of = |told: &Told| match told {
        Told::Completed { place, result } => Some((place.path.clone(), Value::clone(result))),
        _ => None,
    };
    run.told.iter().filter_map(of).collect()
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

#[test]
fn several_calls_in_one_say_which_tools_were_called() {
    let value = json!({"type": "multi_tool", "calls": [{"tool": "work"}, {"tool": "yes"}]});

    let run = ended(&value, Beginning::default());

    let expected = json!({"operation_type": "multi_tool", "status": "completed", "result": true, "tools_executed": ["work", "yes"]});
    assert_eq!(run.outcome, Some(Ok(Arc::new(expected))));
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
