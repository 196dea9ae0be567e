//! What the log keeps, lets go and says is missing.

use bytes::Bytes;

use crate::protocol::Time;
use crate::protocol::mcp::recovery::{
    Attachment, Class, EventLog, Gap, Position, RECOVERY_BYTES_MAX, RECOVERY_EVENTS_MAX, Recovery, Stale, Taken,
};

const ALL: usize = usize::MAX;

fn log(classes: &[Class]) -> EventLog {
    let mut log = EventLog::default();
    for class in classes {
        log.append(*class, Bytes::from_static(b"{}"));
    }
    log
}

fn positions(taken: &Taken) -> Vec<u64> {
    taken.messages.iter().map(|message| message.position.0).collect()
}

#[test]
fn what_waits_is_handed_out_once_in_order_and_in_parts() {
    let mut log = EventLog::default();
    for len in [3, 3, 3, 20, 1] {
        log.append(Class::Notification, Bytes::from(vec![b'x'; len]));
    }
    assert_eq!((log.waiting_bytes(), log.bytes()), (30, 30));

    let mut parts = Vec::new();
    loop {
        let taken = log.take(6);
        assert_eq!(taken.gap, None);
        parts.push(positions(&taken));
        if !taken.has_more {
            break;
        }
    }

    assert_eq!(parts, [vec![1, 2], vec![3], vec![4], vec![5]]);
    assert_eq!((log.take(6), log.waiting_bytes(), log.len()), (Taken::default(), 0, 5));
}

#[test]
fn a_client_gets_what_follows_its_position_and_what_it_has_is_let_go() {
    let mut log = log(&[Class::Response; 5]);
    log.take(ALL);

    assert_eq!(log.rewind(Some(Position(2))), Position(2));
    assert_eq!((positions(&log.take(ALL)), log.len()), (vec![3, 4, 5], 3));
    log.acknowledge(Position(4));
    assert_eq!((log.rewind(None), positions(&log.take(ALL))), (Position(4), vec![5]));
}

#[test]
fn a_position_that_the_client_cannot_have_is_none() {
    let mut log = log(&[Class::Response; 3]);
    log.take(ALL);
    log.append(Class::Response, Bytes::new());

    log.acknowledge(Position(4));
    assert_eq!(log.len(), 4, "the fourth was never sent");
    assert_eq!(log.rewind(Some(Position(9))), Position(0));
    assert_eq!(positions(&log.take(ALL)), [1, 2, 3, 4]);
}

#[test]
fn who_comes_with_less_than_it_acknowledged_is_told_what_is_missing() {
    let mut log = log(&[Class::Response; 5]);
    log.take(ALL);
    log.acknowledge(Position(3));

    assert_eq!(log.rewind(Some(Position(1))), Position(1));
    let taken = log.take(ALL);

    assert_eq!((taken.gap, positions(&taken)), (Some(Gap { from: 2, to: 3, dropped: 2 }), vec![4, 5]));
}

#[test]
fn above_the_bound_notifications_go_first_and_their_place_is_told() {
    let mut log = EventLog::default();
    log.append(Class::Notification, Bytes::from_static(b"1"));
    log.append(Class::Response, Bytes::from_static(b"2"));
    log.append(Class::Event, Bytes::from_static(b"3"));
    for _ in 3..RECOVERY_EVENTS_MAX + 2 {
        log.append(Class::Request, Bytes::from_static(b"4"));
    }
    assert_eq!((log.len(), log.dropped()), (RECOVERY_EVENTS_MAX, 2));

    let taken = log.take(ALL);

    assert_eq!(taken.gap, Some(Gap { from: 1, to: 3, dropped: 2 }));
    assert_eq!(positions(&taken)[..2], [2, 4]);
}

#[test]
fn answers_that_wait_stay_whatever_there_is_and_those_that_were_sent_do_not() {
    let mut log = EventLog::default();
    let large = Bytes::from(vec![0; RECOVERY_BYTES_MAX / 2]);
    for _ in 0..4 {
        log.append(Class::Response, large.clone());
    }
    assert_eq!((log.len(), log.bytes()), (4, 2 * RECOVERY_BYTES_MAX));
    log.take(ALL);

    log.append(Class::Response, large);

    assert_eq!((log.len(), log.bytes()), (2, RECOVERY_BYTES_MAX));
    assert_eq!(log.rewind(None), Position(0));
    assert_eq!(log.take(ALL).gap, Some(Gap { from: 1, to: 3, dropped: 3 }));
}

#[test]
fn a_log_of_which_nothing_is_left_is_a_gap() {
    let mut log = log(&[Class::Notification; 3]);
    log.append(Class::Notification, Bytes::from(vec![0; RECOVERY_BYTES_MAX + 1]));

    assert_eq!(log.take(ALL), Taken { gap: Some(Gap { from: 1, to: 4, dropped: 4 }), ..Taken::default() });
    assert_eq!(log.take(ALL), Taken::default(), "it is told once");
}

#[test]
fn the_newer_attachment_wins_and_the_older_can_do_nothing_more() {
    let mut recovery = Recovery::new(1_000);
    recovery.push(Class::Notification, Bytes::from_static(b"{}"));
    let newer = recovery.attach(1, None, Time(0)).expect("the token counts");

    assert_eq!((newer.attachment, newer.position), (2, Position(0)));
    assert_eq!((recovery.take(1, ALL), recovery.detach(1, Time(5)), recovery.renew(1)), (None, None, None));
    assert_eq!(recovery.take(2, ALL).map(|taken| positions(&taken)), Some(vec![1]));
    recovery.acknowledge(1, Position(1));
    assert_eq!(recovery.log().len(), 1);
}

#[test]
fn nobody_comes_back_when_the_time_is_over_or_the_client_left() {
    let mut recovery = Recovery::new(1_000);
    assert_eq!(recovery.detach(1, Time(500)), Some(Time(1_500)));
    assert_eq!(recovery.attach(9, None, Time(500)), Err(Stale), "no such token");
    assert!(recovery.clone().attach(1, None, Time(1_499)).is_ok());
    assert_eq!(recovery.attach(1, None, Time(1_500)), Err(Stale));

    let mut recovery = Recovery::new(1_000);
    assert!(recovery.end() && !recovery.end());
    recovery.push(Class::Request, Bytes::from_static(b"{}"));
    assert_eq!((recovery.attach(1, None, Time(0)), recovery.log().len()), (Err(Stale), 0));
    assert_eq!(recovery.state(), Attachment::Ended);
}

#[test]
fn what_follows_a_position_is_read_without_being_handed_out_and_what_is_missing_is_told() {
    let mut log = log(&[Class::Response; 4]);
    let read = |log: &EventLog, after| {
        log.after(Position(after)).map(|later| later.map(|message| message.position.0).collect::<Vec<_>>())
    };
    assert_eq!((read(&log, 0), read(&log, 4), read(&log, 9)), (Ok(vec![1, 2, 3, 4]), Ok(vec![]), Ok(vec![])));
    assert_eq!(positions(&log.take(2)), [1]);

    log.forget_sent();

    assert_eq!((read(&log, 1), read(&log, 0)), (Ok(vec![2, 3, 4]), Err(Gap { from: 1, to: 1, dropped: 1 })));
    assert_eq!(
        (positions(&log.take(ALL)), log.newest().map(|newest| newest.position)),
        (vec![2, 3, 4], Some(Position(4)))
    );
    log.forget_sent();
    assert_eq!((log.newest(), log.bytes(), read(&log, 3)), (None, 0, Err(Gap { from: 4, to: 4, dropped: 1 })));
    assert_eq!(log.append(Class::Event, Bytes::new()), Position(5));
}
