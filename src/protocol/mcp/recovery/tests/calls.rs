//! Calls that are asked again.

use bytes::Bytes;
use serde_json::value::RawValue;

use crate::protocol::Time;
use crate::protocol::jsonrpc::CallNumber;
use crate::protocol::mcp::recovery::{
    Asked, AskedCall, EXECUTION_ANSWER_BYTES_MAX, EXECUTION_ANSWERS_MAX, EXECUTIONS_MAX, Executions, Position,
    Recovery, RepeatRefused,
};

const ALL: usize = usize::MAX;

fn call(id: &str, digest: u8, key: Option<&str>) -> AskedCall {
    let id = RawValue::from_string(id.to_owned()).expect("JSON");
    AskedCall { id, digest: [digest; 32], key: key.map(Into::into) }
}

fn response(id: &str) -> Bytes {
    format!(r#"{{"jsonrpc":"2.0","id":{id},"result":{{}}}}"#).into()
}

/// A session with one call, and the same after its client came back having seen nothing.
fn asked(first: &AskedCall) -> Recovery {
    let mut recovery = Recovery::new(1_000);
    assert_eq!(recovery.ask(first), Ok(Asked::New));
    assert!(recovery.begin(CallNumber(1), first));
    recovery
}

fn come_back(recovery: &mut Recovery, position: Option<u64>) {
    let serial = recovery.serial();
    recovery.attach(serial, position.map(Position), Time(0)).expect("the token counts");
}

fn texts(recovery: &mut Recovery) -> Vec<Bytes> {
    let present = (1..).find(|attachment| recovery.is_present(*attachment)).expect("one is there");
    recovery.take(present, ALL).expect("it is the present one").messages.into_iter().map(|sent| sent.text).collect()
}

#[test]
fn a_call_that_runs_is_answered_once_however_often_it_is_asked() {
    let first = call("1", 0, None);
    let mut recovery = asked(&first);
    assert_eq!(recovery.ask(&first), Err(RepeatRefused::UnderWay("1".into())), "on the same attachment");
    come_back(&mut recovery, None);

    assert_eq!(recovery.ask(&first), Ok(Asked::Settled));
    assert_eq!(recovery.ask(&first), Err(RepeatRefused::UnderWay("1".into())), "and again");
    recovery.answer(CallNumber(1), response("1"));

    assert_eq!(texts(&mut recovery), [response("1")]);
    assert_eq!(recovery.ask(&first), Ok(Asked::Settled), "it has been given to this attachment");
    assert!(texts(&mut recovery).is_empty());
}

#[test]
fn an_answer_that_was_replayed_is_not_given_again_and_one_that_the_client_had_is() {
    let first = call("1", 0, None);
    let mut recovery = asked(&first);
    recovery.answer(CallNumber(1), response("1"));
    assert_eq!(recovery.ask(&first), Err(RepeatRefused::Answered("1".into())));
    texts(&mut recovery);

    come_back(&mut recovery, None);
    assert_eq!(recovery.ask(&first), Ok(Asked::Settled));
    assert_eq!(texts(&mut recovery), [response("1")]);

    come_back(&mut recovery, Some(1));
    assert!(matches!(recovery.ask(&first), Ok(Asked::Again(CallNumber(1), _))));
    assert_eq!(texts(&mut recovery), [response("1")]);
    assert_eq!(recovery.ask(&first), Ok(Asked::Settled));
}

#[test]
fn a_key_finds_a_call_under_another_id_which_its_answer_then_has() {
    let mut recovery = asked(&call("1", 0, Some("k")));
    assert_eq!(recovery.ask(&call("\"b\"", 0, Some("k"))), Err(RepeatRefused::UnderWay("\"b\"".into())));
    come_back(&mut recovery, None);

    assert_eq!(recovery.ask(&call("\"b\"", 0, Some("k"))), Ok(Asked::Renamed(CallNumber(1))));
    recovery.answer(CallNumber(1), response("1"));
    assert_eq!(texts(&mut recovery), [response("\"b\"")]);

    assert!(matches!(recovery.ask(&call("3", 0, Some("k"))), Ok(Asked::Again(..))));
    assert!(matches!(recovery.ask(&call("1", 0, None)), Ok(Asked::Again(..))), "the first id is still the call's");
    assert_eq!(texts(&mut recovery), [response("3"), response("1")]);
    assert_eq!(recovery.executions().len(), 1);
}

#[test]
fn an_id_or_a_key_of_another_call_is_refused_on_any_attachment() {
    let mut recovery = asked(&call("1", 0, Some("k")));
    for _ in 0..2 {
        assert_eq!(recovery.ask(&call("1", 9, None)), Err(RepeatRefused::OtherCall("1".into())));
        assert_eq!(recovery.ask(&call("1", 0, Some("other"))), Err(RepeatRefused::OtherCall("1".into())));
        assert_eq!(recovery.ask(&call("2", 9, Some("k"))), Err(RepeatRefused::OtherKeyed("k".into())));
        assert_eq!(recovery.ask(&call("2", 9, None)), Ok(Asked::New));
        come_back(&mut recovery, None);
    }
    assert!(recovery.begin(CallNumber(2), &call("2", 9, None)));
    assert_eq!(recovery.ask(&call("2", 9, Some("k"))), Err(RepeatRefused::OtherCall("2".into())), "two calls meet");
    assert!(!recovery.begin(CallNumber(3), &call("2", 9, None)), "it has begun meanwhile");
}

#[test]
fn a_call_that_was_refused_is_a_new_one_and_one_that_was_taken_back_is_not() {
    let first = call("1", 0, Some("k"));
    let mut recovery = asked(&first);
    recovery.not_run(CallNumber(1));
    recovery.answer(CallNumber(1), response("1"));
    assert_eq!(recovery.ask(&first), Ok(Asked::New));
    assert_eq!(texts(&mut recovery), [response("1")], "its client is told all the same");

    assert!(recovery.begin(CallNumber(2), &first));
    recovery.take_back(CallNumber(2));
    come_back(&mut recovery, None);
    assert_eq!(recovery.ask(&first), Err(RepeatRefused::TakenBack("1".into())));
}

#[test]
fn a_call_whose_answer_is_forgotten_is_not_run_again_while_its_id_is_remembered() {
    let mut recovery = Recovery::new(1_000);
    let large = Bytes::from(vec![b' '; EXECUTION_ANSWER_BYTES_MAX + 1]);
    for number in 1..=EXECUTION_ANSWERS_MAX as u64 + 2 {
        assert!(recovery.begin(CallNumber(number), &call(&number.to_string(), 0, None)));
        recovery.answer(CallNumber(number), response(&number.to_string()));
    }
    come_back(&mut recovery, None);
    for (id, is_known) in [("1", false), ("2", false), ("3", true), ("258", true)] {
        let asked = recovery.ask(&call(id, 0, None));
        assert_eq!(asked == Err(RepeatRefused::Forgotten(id.into())), !is_known, "{id}: {asked:?}");
    }

    assert!(recovery.begin(CallNumber(1_000), &call("1000", 0, None)));
    recovery.answer(CallNumber(1_000), large);

    assert_eq!(recovery.executions().answer_bytes(), EXECUTION_ANSWER_BYTES_MAX + 1, "the last one stays");
    assert!(matches!(recovery.ask(&call("258", 0, None)), Err(RepeatRefused::Forgotten(_))));
}

#[test]
fn beyond_what_is_remembered_the_oldest_ended_calls_are_new_ones() {
    let mut recovery = Recovery::new(1_000);
    for number in 1..=EXECUTIONS_MAX as u64 + 2 {
        assert!(recovery.begin(CallNumber(number), &call(&number.to_string(), 0, Some(&format!("k{number}")))));
        if number > 1 {
            recovery.answer(CallNumber(number), response(&number.to_string()));
        }
    }
    come_back(&mut recovery, None);

    assert_eq!(recovery.executions().len(), EXECUTIONS_MAX);
    assert_eq!(recovery.ask(&call("1", 0, None)), Ok(Asked::Settled), "it is under way");
    for id in ["2", "3"] {
        assert_eq!(recovery.ask(&call(id, 0, Some(&format!("k{id}")))), Ok(Asked::New), "{id}");
    }
    assert!(matches!(recovery.ask(&call("4", 0, None)), Err(RepeatRefused::Forgotten(_))));

    let mut recovery = Recovery::new(1_000);
    for number in 1..=400 {
        let id = format!("\"{number:01000}\"");
        assert!(recovery.begin(CallNumber(number), &call(&id, 0, None)));
        recovery.answer(CallNumber(number), response(&id));
    }
    assert_eq!(recovery.executions().len(), 261, "as many ids of 1002 bytes as 262 144 bytes hold");
}

#[test]
fn a_call_that_says_it_was_not_run_says_so_under_the_id_asked_last_and_then_leaves_no_trace() {
    let mut recovery = asked(&call("1", 0, Some("k")));
    come_back(&mut recovery, None);
    let again = call("2", 0, Some("k"));
    assert_eq!(recovery.ask(&again), Ok(Asked::Renamed(CallNumber(1))));

    recovery.answers_not_run(CallNumber(1));
    assert_eq!(recovery.ask(&again), Err(RepeatRefused::UnderWay("2".into())), "it has not said so yet");
    recovery.answer(CallNumber(1), response("1"));

    assert_eq!(texts(&mut recovery), [response("2")]);
    assert_eq!(recovery.ask(&again), Ok(Asked::New));
}

#[test]
fn a_key_that_comes_with_a_repeat_names_the_call_too() {
    let mut recovery = asked(&call("1", 0, None));
    come_back(&mut recovery, None);
    assert_eq!(recovery.ask(&call("1", 0, Some("k"))), Ok(Asked::Settled));
    come_back(&mut recovery, None);

    assert_eq!(recovery.ask(&call("2", 0, Some("k"))), Ok(Asked::Renamed(CallNumber(1))), "it is not run again");
}

#[test]
fn answers_that_are_all_forgotten_leave_calls_that_are_not_run_again() {
    let (running, ended) = (call("1", 0, None), call("2", 0, Some("k")));
    let mut calls = Executions::default();
    assert!(calls.begin(CallNumber(1), &running, 7) && calls.begin(CallNumber(2), &ended, 8));
    assert_eq!((calls.asked_last(&running), calls.asked_last(&call("3", 0, None))), (Some((7, true)), None));
    calls.answered(CallNumber(2), response("2"), Position(1), None);
    assert_eq!(calls.asked_last(&call("9", 0, Some("k"))), Some((8, false)));

    calls.forget_answers();

    assert_eq!((calls.answer_bytes(), calls.len()), (0, 2));
    assert_eq!(calls.ask(&ended, 9), Err(RepeatRefused::Forgotten("2".into())));
    assert_eq!((calls.ask(&running, 9), calls.asked_last(&running)), (Ok(Asked::Settled), Some((9, true))));
    calls.answered(CallNumber(1), response("1"), Position(2), None);
    assert_eq!(calls.answer_bytes(), response("1").len());
}

#[test]
fn a_key_that_comes_with_a_repeat_whose_answer_was_given_names_the_call_too() {
    let first = call("1", 0, None);
    let mut recovery = asked(&first);
    recovery.answer(CallNumber(1), response("1"));
    come_back(&mut recovery, None);

    assert_eq!(recovery.ask(&call("1", 0, Some("k"))), Ok(Asked::Settled), "the replay brings its answer");

    let again = recovery.ask(&call("2", 0, Some("k")));
    assert_eq!(again, Ok(Asked::Again(CallNumber(1), response("2"))), "it is not run again under another id");
}

#[test]
fn an_id_without_a_key_is_free_when_its_answer_was_got_and_one_that_was_not_got_gives_way() {
    let [plain, keyed, running] = [call("1", 0, None), call("2", 0, Some("k")), call("3", 0, None)];
    let mut calls = Executions::default();
    for (number, call) in (1..).zip([&plain, &keyed, &running]) {
        assert!(calls.begin(CallNumber(number), call, 7));
    }
    for (number, id) in [(1, "1"), (2, "2")] {
        calls.answered(CallNumber(number), response(id), Position(1), None);
    }

    calls.delivered(8);
    assert_eq!(calls.len(), 3, "another attachment got its own");
    calls.delivered(7);
    assert_eq!((calls.len(), calls.ask(&plain, 9)), (2, Ok(Asked::New)));
    assert!(matches!(calls.ask(&keyed, 9), Ok(Asked::Again(..))), "a key is remembered");

    assert!(!calls.free(&running.id) && !calls.free(&keyed.id) && !calls.free(&plain.id));
    calls.answered(CallNumber(3), response("3"), Position(2), None);
    assert!(calls.free(&running.id));
    assert_eq!((calls.len(), calls.ask(&running, 9)), (1, Ok(Asked::New)));
}
