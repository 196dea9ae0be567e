//! One replica on its own, against a list of entries as the model.

use proptest::prelude::*;

use super::super::{Dot, NotPresent, Owner, Replica, TrackError};
use super::{Watcher, listed, meta, owner, replica_ref, told};

fn alone() -> Replica {
    Replica::new(replica_ref("a"))
}

#[test]
fn each_change_tells_its_diff() {
    let mut replica = alone();

    let (first, joined) = replica.join(owner(1), "t", "ann", meta("r1")).unwrap();
    let (second, updated) = replica.update(owner(1), "t", "ann", meta("r2")).unwrap();
    let left = replica.leave(owner(1), "t", "ann");
    let again = replica.leave(owner(1), "t", "ann");

    let dot = |clock| Dot { replica: replica_ref("a"), clock };
    assert_eq!((first, second), (dot(1), dot(3)));
    assert_eq!(told(&joined), "t +ann: r1");
    assert_eq!(told(&updated), "t +ann: r2 -ann: r1");
    assert_eq!(told(&left), "t -ann: r2");
    assert!(again.is_empty());
    assert_eq!(replica.clocks().clock(&replica_ref("a")), 4);
}

#[test]
fn an_update_names_the_meta_it_replaces() {
    let mut replica = alone();
    replica.join(owner(1), "t", "ann", meta("r1")).unwrap();

    replica.update(owner(1), "t", "ann", meta("r2")).unwrap();

    let entry = replica.get_by_topic("t").next().unwrap();
    assert_eq!(entry.meta.phx_ref_prev(), Some("r1"));
}

#[test]
fn a_second_track_and_an_update_of_nothing_are_errors_that_change_nothing() {
    let mut replica = alone();
    replica.join(owner(1), "t", "ann", meta("r1")).unwrap();

    let twice = replica.join(owner(1), "t", "ann", meta("r2"));
    let absent = replica.update(owner(2), "t", "ann", meta("r3"));

    let (topic, key) = ("t".to_owned(), "ann".to_owned());
    assert_eq!(twice, Err(TrackError::AlreadyTracked { topic: topic.clone(), key: key.clone() }));
    assert_eq!(absent, Err(NotPresent { topic, key }));
    assert_eq!(listed(&replica, "t"), "ann: r1");
    assert_eq!(replica.clocks().clock(&replica_ref("a")), 1);
}

#[test]
fn a_key_that_breaks_clients_is_not_tracked() {
    let mut replica = alone();

    let refused = replica.join(owner(1), "t", "__proto__", meta("r1"));

    assert!(matches!(refused, Err(TrackError::UnsafeKey(_))));
    assert_eq!(listed(&replica, "t"), "");
}

#[test]
fn keys_are_sorted_and_metas_keep_the_order_of_their_owners() {
    let mut replica = alone();
    for (connection, key) in [(2, "k"), (1, "k"), (3, "k"), (4, "ann"), (5, "Bob"), (6, "zed")] {
        let phx_ref = format!("r{connection}");
        replica.join(owner(connection), "t", key, meta(&phx_ref)).unwrap();
    }

    replica.update(owner(1), "t", "k", meta("r9")).unwrap();

    assert_eq!(listed(&replica, "t"), "Bob: r5, ann: r4, k: r9 r2 r3, zed: r6");
    let of_key: Vec<u64> = replica.get_by_key("t", "k").map(|presence| presence.owner.connection).collect();
    assert_eq!(of_key, [1, 2, 3]);
    assert_eq!(replica.get_by_key("t", "j").count(), 0);
}

#[test]
fn an_owner_that_is_gone_leaves_every_topic_and_key() {
    let mut replica = alone();
    let other_channel = Owner { connection: 1, channel: 2 };
    replica.join(owner(1), "s", "ann", meta("r1")).unwrap();
    replica.join(owner(1), "t", "ann", meta("r2")).unwrap();
    replica.join(owner(1), "t", "bob", meta("r3")).unwrap();
    replica.join(other_channel, "t", "ann", meta("r4")).unwrap();

    let diff = replica.leave_owner(owner(1));

    assert_eq!(told(&diff), "s -ann: r1 t -ann: r2 -bob: r3");
    assert_eq!(listed(&replica, "t"), "ann: r4");
    assert_eq!(replica.get_by_owner(owner(1)).count(), 0);
    assert!(replica.leave_owner(owner(1)).is_empty());
}

#[test]
fn ten_thousand_entries_and_as_many_topics_come_and_go() {
    let mut replica = alone();
    for connection in 0..10_000 {
        let (key, topic) = (format!("k{connection}"), format!("t{connection}"));
        let at = owner(connection);
        replica.join(at, "busy", &key, meta("r1")).unwrap();
        replica.join(at, &topic, "k", meta("r2")).unwrap();
    }
    assert_eq!(replica.get_by_topic("busy").count(), 10_000);

    for connection in 0..10_000 {
        assert_eq!(replica.leave_owner(owner(connection)).topics.len(), 2);
    }

    assert_eq!(replica.get_by_topic("busy").count(), 0);
}

#[derive(Clone, Debug)]
enum Change {
    Join(u64, usize, usize),
    Leave(u64, usize, usize),
    Update(u64, usize, usize),
    LeaveOwner(u64),
}

fn change() -> impl Strategy<Value = Change> {
    let at = || (0u64..4, 0usize..3, 0usize..3);
    prop_oneof![
        4 => at().prop_map(|(o, t, k)| Change::Join(o, t, k)),
        2 => at().prop_map(|(o, t, k)| Change::Leave(o, t, k)),
        2 => at().prop_map(|(o, t, k)| Change::Update(o, t, k)),
        1 => (0u64..4).prop_map(Change::LeaveOwner),
    ]
}

const TOPICS: [&str; 3] = ["s", "t", "u"];
const KEYS: [&str; 3] = ["ann", "bob", ""];

/// The model: a plain list of topic, key, owner, reference.
type Model = Vec<(&'static str, &'static str, Owner, String)>;

fn check_against(replica: &Replica, model: &Model) {
    for topic in TOPICS {
        let mut expected: Vec<_> = model.iter().filter(|entry| entry.0 == topic).collect();
        expected.sort();
        let expected: Vec<_> =
            expected.into_iter().map(|(_, key, owner, phx_ref)| (*key, *owner, phx_ref.as_str())).collect();
        let found: Vec<_> = replica
            .get_by_topic(topic)
            .map(|presence| (presence.key, presence.owner, presence.meta.phx_ref()))
            .collect();
        assert_eq!(found, expected);
    }
    for owner in (0..4).map(owner) {
        let expected = model.iter().filter(|entry| entry.2 == owner).count();
        assert_eq!(replica.get_by_owner(owner).count(), expected);
    }
}

proptest! {
    #[test]
    fn a_replica_is_a_list_of_entries(changes in prop::collection::vec(change(), 0..60)) {
        let mut replica = alone();
        let mut model = Model::new();
        let mut watcher = Watcher::default();
        for (number, change) in changes.into_iter().enumerate() {
            let phx_ref = format!("r{number}");
            let place = |model: &Model, at: Owner, t: usize, k: usize| {
                model.iter().position(|entry| (entry.0, entry.1, entry.2) == (TOPICS[t], KEYS[k], at))
            };
            match change {
                Change::Join(o, t, k) => {
                    let result = replica.join(owner(o), TOPICS[t], KEYS[k], meta(&phx_ref));
                    prop_assert_eq!(result.is_ok(), place(&model, owner(o), t, k).is_none());
                    if let Ok((_, diff)) = result {
                        watcher.apply(&diff);
                        model.push((TOPICS[t], KEYS[k], owner(o), phx_ref));
                    }
                }
                Change::Update(o, t, k) => {
                    let result = replica.update(owner(o), TOPICS[t], KEYS[k], meta(&phx_ref));
                    prop_assert_eq!(result.is_ok(), place(&model, owner(o), t, k).is_some());
                    if let (Ok((_, diff)), Some(at)) = (result, place(&model, owner(o), t, k)) {
                        watcher.apply(&diff);
                        model[at].3 = phx_ref;
                    }
                }
                Change::Leave(o, t, k) => {
                    watcher.apply(&replica.leave(owner(o), TOPICS[t], KEYS[k]));
                    model.retain(|entry| (entry.0, entry.1, entry.2) != (TOPICS[t], KEYS[k], owner(o)));
                }
                Change::LeaveOwner(o) => {
                    watcher.apply(&replica.leave_owner(owner(o)));
                    model.retain(|entry| entry.2 != owner(o));
                }
            }
            check_against(&replica, &model);
            watcher.check(&replica, &TOPICS);
        }
    }
}
