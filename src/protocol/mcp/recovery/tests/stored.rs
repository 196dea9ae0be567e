//! Sessions that are stored, and what comes back of them.

use bytes::Bytes;
use serde_json::value::RawValue;

use crate::protocol::Time;
use crate::protocol::jsonrpc::CallNumber;
use crate::protocol::mcp::recovery::{
    Asked, AskedCall, Attachment, Class, Kept, KeptCall, KeptState, Position, RECOVERY_EVENTS_MAX, Recovery,
    RepeatRefused, Sending, Taken, Unsaved,
};

const ALL: usize = usize::MAX;
const WINDOW_MS: u64 = 1_000;

fn call(id: &str, key: Option<&str>) -> AskedCall {
    let id = RawValue::from_string(id.to_owned()).expect("JSON");
    AskedCall { id, digest: [0; 32], key: key.map(Into::into) }
}

fn response(id: &str) -> Bytes {
    format!(r#"{{"jsonrpc":"2.0","id":{id},"result":{{}}}}"#).into()
}

fn say(recovery: &mut Recovery, texts: &[&'static str]) {
    texts.iter().for_each(|text| recovery.push(Class::Notification, Bytes::from_static(text.as_bytes())));
}

fn begin(recovery: &mut Recovery, number: u64, call: &AskedCall) {
    assert!(recovery.begin(CallNumber(number), call));
    recovery.keep_request(CallNumber(number), request(number));
}

fn request(number: u64) -> Bytes {
    format!("request {number}").into()
}

fn positions(messages: &[Sending]) -> Vec<u64> {
    messages.iter().map(|message| message.position.0).collect()
}

fn texts(messages: &[Sending]) -> Vec<String> {
    messages.iter().map(|message| String::from_utf8_lossy(&message.text).into_owned()).collect()
}

fn save(recovery: &mut Recovery) -> Unsaved {
    let unsaved = recovery.unsaved(ALL).expect("there is something to store");
    recovery.saved(unsaved.upto);
    unsaved
}

fn present(recovery: &Recovery) -> u64 {
    (1..10).find(|attachment| recovery.is_present(*attachment)).expect("one is there")
}

fn take(recovery: &mut Recovery) -> Taken {
    let present = present(recovery);
    recovery.take(present, ALL).expect("it is the present one")
}

/// What is left of a session of which these snapshots were stored.
fn kept(snapshots: &[&Unsaved]) -> Kept {
    let head = snapshots.last().expect("one at least").head;
    let mut messages: Vec<Sending> = snapshots.iter().flat_map(|unsaved| unsaved.messages.clone()).collect();
    messages.retain(|message| !snapshots.iter().any(|unsaved| unsaved.gone.contains(&message.position)));
    let mut calls = std::collections::BTreeMap::new();
    for (order, call) in snapshots.iter().flat_map(|unsaved| unsaved.calls.clone()) {
        calls.insert(order, call);
    }
    let calls: Vec<(u64, KeptCall)> = calls.into_iter().filter_map(|(order, call)| Some((order, call?))).collect();
    Kept { head, messages, calls }
}

fn restored(kept: Kept) -> Recovery {
    Recovery::restored(kept, WINDOW_MS, Time(WINDOW_MS))
}

fn come_back(recovery: &mut Recovery, serial: u64, position: Option<u64>) -> u64 {
    recovery.attach(serial, position.map(Position), Time(0)).expect("the token counts").serial
}

#[test]
fn a_session_that_is_not_stored_has_nothing_to_store() {
    let mut recovery = Recovery::new(WINDOW_MS);
    say(&mut recovery, &["a"]);
    recovery.touch();
    begin(&mut recovery, 1, &call("1", None));

    assert!(!recovery.has_unsaved() && recovery.unsaved(ALL).is_none() && recovery.executions().running().is_empty());
    assert_eq!(positions(&take(&mut recovery).messages), [1]);
}

#[test]
fn nothing_is_handed_out_that_was_not_saved() {
    let mut recovery = Recovery::stored(WINDOW_MS);
    say(&mut recovery, &["a", "b"]);
    assert_eq!(take(&mut recovery), Taken::default());

    let first = recovery.unsaved(ALL).expect("two messages");
    say(&mut recovery, &["c"]);
    assert_eq!((positions(&first.messages), first.upto), (vec![1, 2], Position(2)));
    assert_eq!(take(&mut recovery), Taken::default(), "it is not saved yet");
    assert!(recovery.saved(first.upto) && !recovery.saved(first.upto), "there is more, once");
    assert_eq!(positions(&take(&mut recovery).messages), [1, 2]);

    let second = save(&mut recovery);
    assert_eq!(positions(&second.messages), [3], "what is stored is not stored again");
    assert_eq!(positions(&take(&mut recovery).messages), [3]);
    assert!(!recovery.has_unsaved() && recovery.unsaved(ALL).is_none());
}

#[test]
fn messages_are_stored_in_parts_of_so_many_bytes_and_of_one_at_least() {
    let mut recovery = Recovery::stored(WINDOW_MS);
    say(&mut recovery, &["aaa", "bbb", "a long one", "c"]);

    let mut parts = Vec::new();
    while let Some(unsaved) = recovery.unsaved(6).filter(|_| parts.len() < 4) {
        assert_eq!(unsaved.head.last, unsaved.upto);
        recovery.saved(unsaved.upto);
        parts.push((positions(&unsaved.messages), positions(&take(&mut recovery).messages)));
    }

    let expected = [vec![1, 2], vec![3], vec![4]];
    assert_eq!(parts, expected.map(|part| (part.clone(), part)));
}

#[test]
fn what_was_touched_is_stored_once() {
    let mut recovery = Recovery::stored(WINDOW_MS);
    assert!(save(&mut recovery).is_touched, "it begins");
    say(&mut recovery, &["a"]);
    assert!(!save(&mut recovery).is_touched);

    recovery.touch();

    assert!(recovery.has_unsaved() && save(&mut recovery).is_touched && !recovery.has_unsaved());
}

#[test]
fn positions_go_on_after_a_restart_and_none_means_two_messages() {
    let mut recovery = Recovery::stored(WINDOW_MS);
    say(&mut recovery, &["a", "b"]);
    let stored = save(&mut recovery);
    take(&mut recovery);
    // Neither of these has been handed out.
    say(&mut recovery, &["lost"]);
    recovery.unsaved(ALL).expect("one message");

    let mut recovery = restored(kept(&[&stored]));
    assert_eq!(recovery.state(), Attachment::Detached { until: Time(WINDOW_MS) });
    come_back(&mut recovery, 1, Some(1));
    say(&mut recovery, &["c"]);
    assert_eq!(texts(&take(&mut recovery).messages), ["b"], "all of it may have come, and the rest is not stored");
    assert_eq!(positions(&save(&mut recovery).messages), [3]);
    assert_eq!(texts(&take(&mut recovery).messages), ["c"]);
}

#[test]
fn what_was_acknowledged_or_dropped_is_taken_away() {
    let mut recovery = Recovery::stored(WINDOW_MS);
    say(&mut recovery, &["a", "b", "c"]);
    save(&mut recovery);
    take(&mut recovery);

    recovery.acknowledge(1, Position(2));
    let unsaved = save(&mut recovery);
    assert_eq!((unsaved.gone, unsaved.head.acknowledged), (vec![Position(1), Position(2)], Position(2)));

    for _ in 0..RECOVERY_EVENTS_MAX {
        recovery.push(Class::Request, Bytes::new());
    }
    assert_eq!(save(&mut recovery).gone, [Position(3)], "it gave way");
    assert!(!recovery.has_unsaved());
}

#[test]
fn a_message_that_is_dropped_before_it_is_stored_is_not_stored_and_one_dropped_meanwhile_is_taken_away() {
    let fill = |recovery: &mut Recovery| {
        (0..RECOVERY_EVENTS_MAX).for_each(|_| recovery.push(Class::Request, Bytes::new()));
    };
    let mut recovery = Recovery::stored(WINDOW_MS);
    say(&mut recovery, &["a"]);
    fill(&mut recovery);
    let unsaved = save(&mut recovery);
    assert_eq!((unsaved.messages.len(), unsaved.messages[0].position), (RECOVERY_EVENTS_MAX, Position(2)));
    assert!(unsaved.gone.is_empty());
    assert_eq!(take(&mut recovery).gap.map(|gap| (gap.from, gap.to)), Some((1, 1)));

    let mut recovery = Recovery::stored(WINDOW_MS);
    say(&mut recovery, &["a"]);
    let unsaved = recovery.unsaved(ALL).expect("one message");
    fill(&mut recovery);
    recovery.saved(unsaved.upto);
    assert_eq!(save(&mut recovery).gone, [Position(1)]);
}

#[test]
fn what_was_acknowledged_and_is_still_stored_is_not_pushed_again_and_is_taken_away() {
    let mut recovery = Recovery::stored(WINDOW_MS);
    say(&mut recovery, &["aa", "b"]);
    let first = save(&mut recovery);
    take(&mut recovery);
    recovery.acknowledge(1, Position(1));
    begin(&mut recovery, 1, &call("1", None));
    begin(&mut recovery, 2, &call("2", None));
    let second = recovery.unsaved(0).expect("one of the calls");
    assert_eq!((second.head.acknowledged, second.gone.len()), (Position(1), 0));

    let mut recovery = restored(kept(&[&first, &second]));

    assert_eq!((recovery.log().len(), recovery.log().bytes(), recovery.log().waiting_bytes()), (1, 1, 1));
    assert_eq!(save(&mut recovery).gone, [Position(1)]);
    come_back(&mut recovery, 1, None);
    assert_eq!(positions(&take(&mut recovery).messages), [2]);
}

#[test]
fn an_answer_that_the_log_had_not_is_said_again_and_one_that_it_had_is_not() {
    let mut recovery = Recovery::stored(WINDOW_MS);
    begin(&mut recovery, 1, &call("1", None));
    begin(&mut recovery, 2, &call("2", None));
    recovery.answer(CallNumber(1), response("1"));
    let first = save(&mut recovery);
    say(&mut recovery, &["lost"]);
    recovery.answer(CallNumber(2), response("2"));
    begin(&mut recovery, 3, &call("3", None));
    let second = recovery.unsaved(0).expect("one of the calls");
    assert_eq!((second.calls.len(), second.messages.len(), second.upto), (1, 0, Position(1)));

    let mut recovery = restored(kept(&[&first, &second]));
    assert_eq!(recovery.log().last(), Position(2));
    assert!(recovery.executions().running().is_empty());
    come_back(&mut recovery, 1, None);
    assert_eq!(texts(&take(&mut recovery).messages), [response("1")], "the other is not stored in its new place");
    let unsaved = save(&mut recovery);
    let (order, call) = unsaved.calls.last().cloned().expect("its position has changed");
    let state = call.map(|call| call.state);
    assert_eq!((order, state), (2, Some(KeptState::Answered { text: response("2"), position: Position(2) })));
    assert_eq!(texts(&take(&mut recovery).messages), [response("2")]);
}

#[test]
fn two_answers_that_stand_at_one_position_behind_the_log_are_both_said_again() {
    let answered = |id: &str| KeptCall {
        digest: [0; 32],
        key: None,
        ids: vec![id.into()],
        asked_as: None,
        state: KeptState::Answered { text: response(id), position: Position(7) },
    };
    let mut recovery = Recovery::stored(WINDOW_MS);
    let stored = kept(&[&save(&mut recovery)]);

    let calls = vec![(1, answered("1")), (2, answered("2"))];
    let mut recovery = restored(Kept { calls, ..stored });

    save(&mut recovery);
    come_back(&mut recovery, 1, None);
    assert_eq!(texts(&take(&mut recovery).messages), [response("1"), response("2")]);
}

#[test]
fn running_requests_come_back_and_those_that_ended_do_not() {
    let mut recovery = Recovery::stored(WINDOW_MS);
    for number in 1..=4 {
        begin(&mut recovery, number, &call(&number.to_string(), None));
    }
    recovery.answer(CallNumber(1), response("1"));
    recovery.take_back(CallNumber(3));
    recovery.not_run(CallNumber(4));
    let unsaved = save(&mut recovery);
    assert!(unsaved.calls.iter().any(|(order, call)| *order == 4 && call.is_none()), "it is taken away");

    let mut recovery = restored(kept(&[&unsaved]));

    assert_eq!(recovery.executions().running(), [(CallNumber(2), request(2))]);
    come_back(&mut recovery, 1, Some(1));
    assert!(matches!(recovery.ask(&call("1", None)), Ok(Asked::Again(..))));
    assert_eq!(recovery.ask(&call("2", None)), Ok(Asked::Settled));
    assert_eq!(recovery.ask(&call("3", None)), Err(RepeatRefused::TakenBack("3".into())));
    assert_eq!(recovery.ask(&call("4", None)), Ok(Asked::New));
}

#[test]
fn no_two_calls_have_the_same_order() {
    let order = |recovery: &Recovery, number| recovery.executions().order(CallNumber(number));
    let mut recovery = Recovery::stored(WINDOW_MS);
    begin(&mut recovery, 5, &call("1", None));
    recovery.not_run(CallNumber(5));
    begin(&mut recovery, 6, &call("2", None));
    assert_eq!((order(&recovery, 5), order(&recovery, 6)), (None, Some(2)));
    let first = save(&mut recovery);
    recovery.not_run(CallNumber(6));
    let second = save(&mut recovery);

    // Neither of them is stored any more.
    let mut again = restored(kept(&[&first, &second]));
    begin(&mut again, 3, &call("3", None));
    assert_eq!(order(&again, 3), Some(3));
}

#[test]
fn a_call_with_another_number_keeps_its_order_its_ids_its_key_and_the_id_asked_last() {
    let mut recovery = Recovery::stored(WINDOW_MS);
    begin(&mut recovery, 9, &call("1", Some("k")));
    come_back(&mut recovery, 1, None);
    assert_eq!(recovery.ask(&call("2", Some("k"))), Ok(Asked::Renamed(CallNumber(9))));
    let mut recovery = restored(kept(&[&save(&mut recovery)]));
    save(&mut recovery);

    let id = recovery.renumber(CallNumber(1), CallNumber(2));
    assert_eq!(id.map(|id| id.get().to_owned()).as_deref(), Some("2"));
    assert!(recovery.renumber(CallNumber(1), CallNumber(3)).is_none(), "it is not there any more");
    let executions = recovery.executions();
    assert_eq!((executions.order(CallNumber(2)), executions.len()), (Some(1), 1));
    assert_eq!(executions.running(), [(CallNumber(2), request(9))]);

    come_back(&mut recovery, 2, None);
    assert_eq!(recovery.ask(&call("1", None)), Ok(Asked::Renamed(CallNumber(2))));
    come_back(&mut recovery, 2, None);
    assert_eq!(recovery.ask(&call("2", Some("k"))), Ok(Asked::Renamed(CallNumber(2))));
    recovery.answer(CallNumber(2), response("1"));
    save(&mut recovery);
    assert_eq!(texts(&take(&mut recovery).messages), [response("2")]);
}

#[test]
fn a_token_that_was_given_counts_after_a_restart_and_new_ones_are_others() {
    let mut recovery = Recovery::stored(WINDOW_MS);
    let second = come_back(&mut recovery, 1, None);
    let stored = save(&mut recovery);
    assert_eq!((stored.head.used, stored.head.given), (1, second));
    // Heartbeats give tokens and store nothing.
    let third = recovery.renew(present(&recovery)).expect("it is present");
    assert!(!recovery.has_unsaved());

    for serial in [1, second, third] {
        let mut recovery = restored(kept(&[&stored]));
        assert!(come_back(&mut recovery, serial, None) > third);
        let stored = save(&mut recovery);
        assert_eq!(stored.head.used, serial);
        let again = restored(kept(&[&stored])).attach(serial - 1, None, Time(0));
        assert!(again.is_err(), "one used later was used since");
    }
}

#[test]
fn until_when_a_client_may_come_back_is_stored_and_what_has_ended_is_not() {
    let mut recovery = Recovery::stored(WINDOW_MS);
    assert_eq!(save(&mut recovery).head.until, None);
    recovery.detach(1, Time(5));
    assert_eq!(save(&mut recovery).head.until, Some(Time(5 + WINDOW_MS)));
    come_back(&mut recovery, 1, None);
    assert_eq!(save(&mut recovery).head.until, None);

    say(&mut recovery, &["a"]);
    recovery.end();
    assert!(!recovery.has_unsaved() && recovery.unsaved(ALL).is_none());
}

#[test]
fn a_call_that_is_stored_though_it_was_not_run_gives_way_to_the_later_one_of_its_id_or_key() {
    for (again, key) in [("1", None), ("2", Some("k"))] {
        let mut recovery = Recovery::stored(WINDOW_MS);
        begin(&mut recovery, 1, &call("1", Some("k")));
        let first = save(&mut recovery);
        recovery.not_run(CallNumber(1));
        begin(&mut recovery, 2, &call(again, key));
        let mut second = save(&mut recovery);
        // That the first is gone comes with the next snapshot.
        second.calls.retain(|(order, _)| *order == 2);

        let recovery = restored(kept(&[&first, &second]));

        assert_eq!(recovery.executions().running(), [(CallNumber(2), request(2))], "{again}");
        assert_eq!(recovery.executions().len(), 1);
    }
}
