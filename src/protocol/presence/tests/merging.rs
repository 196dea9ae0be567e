//! Two and three replicas, one rule at a time.

use std::sync::Arc;

use super::super::delta::DELTA_SIZE_MAX;
use super::super::{Context, Delta, Entry, Generations, Replica, Status, Transfer};
use super::{listed, meta, owner, replica_ref, replicas, told};

#[test]
fn a_delta_carries_joins_updates_and_leaves() {
    let [mut a, mut b] = replicas(["a", "b"]);

    a.join(owner(1), "t", "ann", meta("r1")).unwrap();
    let joined = b.merge_delta(&a.take_delta().unwrap());
    a.update(owner(1), "t", "ann", meta("r2")).unwrap();
    let updated = b.merge_delta(&a.take_delta().unwrap());
    a.leave(owner(1), "t", "ann");
    let left = b.merge_delta(&a.take_delta().unwrap());

    assert_eq!(told(&joined), "t +ann: r1");
    assert_eq!(told(&updated), "t +ann: r2 -ann: r1");
    assert_eq!(told(&left), "t -ann: r2");
    assert_eq!(a.take_delta(), None);
}

/// The clocks are those recorded from Phoenix.Tracker.
#[test]
fn a_delta_names_the_clocks_that_phoenix_names() {
    let [mut a] = replicas(["a"]);
    let told = |delta: Delta| {
        let a = replica_ref("a");
        let cloud: Vec<u64> = delta.clouds[&a].iter().copied().collect();
        let values: Vec<u64> = delta.values.get(&a).into_iter().flatten().map(|value| *value.0).collect();
        (cloud, values, delta.start.clock(&a), delta.end.clock(&a))
    };

    a.join(owner(1), "t", "ann", meta("r1")).unwrap();
    assert_eq!(told(a.take_delta().unwrap()), (vec![1], vec![1], 0, 1));
    a.update(owner(1), "t", "ann", meta("r2")).unwrap();
    assert_eq!(told(a.take_delta().unwrap()), (vec![1, 2, 3], vec![3], 1, 3));
    a.leave(owner(1), "t", "ann");
    assert_eq!(told(a.take_delta().unwrap()), (vec![3, 4], vec![], 3, 4));
    a.join(owner(1), "t", "bob", meta("r3")).unwrap();
    a.leave(owner(1), "t", "bob");
    assert_eq!(told(a.take_delta().unwrap()), (vec![5, 6], vec![], 4, 6));
}

#[test]
fn a_late_leave_does_not_remove_a_newer_join() {
    let [mut a, mut b] = replicas(["a", "b"]);
    a.join(owner(1), "t", "ann", meta("r1")).unwrap();
    b.merge_delta(&a.take_delta().unwrap());
    a.leave(owner(1), "t", "ann");
    let leave = a.take_delta().unwrap();
    a.join(owner(1), "t", "ann", meta("r2")).unwrap();
    let join = a.take_delta().unwrap();

    b.merge_delta(&join);
    assert_eq!(listed(&b, "t"), "ann: r1 r2");
    b.merge_delta(&leave);

    assert_eq!(listed(&b, "t"), "ann: r2");
}

#[test]
fn a_late_join_does_not_bring_back_what_has_left() {
    let [mut a, mut b] = replicas(["a", "b"]);
    a.join(owner(1), "t", "ann", meta("r1")).unwrap();
    let join = a.take_delta().unwrap();
    a.leave(owner(1), "t", "ann");
    b.merge_delta(&a.take_delta().unwrap());

    let diff = b.merge_delta(&join);

    assert!(diff.is_empty());
    assert_eq!(listed(&b, "t"), "");
    assert_eq!(b.clocks(), a.clocks());
}

/// Removes an entry that came out of order, then hears of it again from a third replica.
#[test]
fn a_removed_entry_stays_removed_while_its_clock_is_in_the_cloud() {
    let [mut a, mut b, mut c] = replicas(["a", "b", "c"]);
    a.join(owner(1), "t", "zed", meta("r1")).unwrap();
    let missed = a.take_delta().unwrap();
    a.join(owner(2), "t", "ann", meta("r2")).unwrap();
    let join = a.take_delta().unwrap();
    a.leave(owner(2), "t", "ann");
    let leave = a.take_delta().unwrap();
    c.merge_delta(&join);
    b.merge_delta(&join);
    b.merge_delta(&leave);

    let diff = b.merge_state(&c.full_state());

    assert!(diff.is_empty());
    b.merge_delta(&missed);
    assert_eq!(listed(&b, "t"), "zed: r1");
    assert_eq!(b.clocks(), a.clocks());
}

#[test]
fn the_same_key_of_two_nodes_is_two_presences() {
    let [mut a, mut b] = replicas(["a", "b"]);
    a.join(owner(1), "t", "ann", meta("r1")).unwrap();
    b.join(owner(1), "t", "ann", meta("r2")).unwrap();
    b.merge_delta(&a.take_delta().unwrap());
    a.merge_state(&b.full_state());

    assert_eq!(listed(&a, "t"), "ann: r1 r2");
    assert_eq!(listed(&a, "t"), listed(&b, "t"));
    assert_eq!(told(&b.leave_owner(owner(1))), "t -ann: r2");
    assert_eq!(listed(&b, "t"), "ann: r1");
}

#[test]
fn a_replica_that_is_down_is_hidden_until_it_is_up() {
    let [mut a, mut b] = replicas(["a", "b"]);
    a.join(owner(1), "t", "ann", meta("r1")).unwrap();
    b.merge_delta(&a.take_delta().unwrap());

    let down = b.replica_down(a.name());
    assert_eq!(told(&down), "t -ann: r1");
    assert_eq!(listed(&b, "t"), "");
    assert_eq!(b.get_by_key("t", "ann").count(), 0);
    assert!(b.replica_down(a.name()).is_empty());

    a.update(owner(1), "t", "ann", meta("r2")).unwrap();
    assert!(b.merge_delta(&a.take_delta().unwrap()).is_empty());

    assert_eq!(told(&b.replica_up(a.name())), "t +ann: r2");
    assert!(b.replica_up(a.name()).is_empty());
    assert_eq!(listed(&b, "t"), "ann: r2");
}

#[test]
fn a_replica_that_is_gone_is_forgotten_and_may_come_back() {
    let [mut a, mut b] = replicas(["a", "b"]);
    a.join(owner(1), "t", "ann", meta("r1")).unwrap();
    b.merge_delta(&a.take_delta().unwrap());
    a.join(owner(2), "t", "bob", meta("r2")).unwrap();
    let next = a.take_delta().unwrap();

    assert_eq!(told(&b.remove_down_replica(a.name())), "t -ann: r1");
    assert_eq!(b.status(a.name()), None);
    assert!(!b.clocks().knows(a.name()));
    assert!(b.merge_delta(&next).is_empty(), "an unknown replica's changes are dropped");

    b.replica_up(a.name());
    assert_eq!(b.status(a.name()), Some(Status::Up));
    assert_eq!(told(&b.merge_state(&a.full_state())), "t +ann: r1 +bob: r2");
}

#[test]
fn the_own_replica_never_goes_down_and_nobody_else_changes_its_entries() {
    let [mut a, mut b] = replicas(["a", "b"]);
    a.join(owner(1), "t", "ann", meta("r1")).unwrap();
    b.merge_delta(&a.take_delta().unwrap());
    let mut lie = b.full_state();
    lie.values.clear();

    let diff = a.merge_state(&lie);

    assert!(diff.is_empty());
    assert!(a.replica_down(&replica_ref("a")).is_empty());
    assert!(a.remove_down_replica(&replica_ref("a")).is_empty());
    assert_eq!(listed(&a, "t"), "ann: r1");
}

/// Phoenix takes such a delta, though its own ones name the clock of every value.
#[test]
fn a_value_without_its_clock_in_the_cloud_joins_once() {
    let [mut a, mut b] = replicas(["a", "b"]);
    a.join(owner(1), "t", "ann", meta("r1")).unwrap();
    let mut delta = a.take_delta().unwrap();
    delta.clouds.clear();

    assert_eq!(told(&b.merge_delta(&delta)), "t +ann: r1");
    assert!(b.merge_delta(&delta).is_empty());
    assert!(b.merge_state(&a.full_state()).is_empty());
}

/// Without the value, the clock would tell a removal.
#[test]
fn a_transfer_does_not_remove_what_the_sender_could_not_take_itself() {
    let [mut a, mut c] = replicas(["a", "c"]);
    let mut b = Replica::new(replica_ref("b"));
    b.replica_up(c.name());
    c.replica_up(b.name());
    let mut of_b = Generations::new();
    a.join(owner(1), "t", "ann", meta("r1")).unwrap();
    let join = a.take_delta().unwrap();
    c.merge_delta(&join);
    b.merge_delta(&join);
    of_b.push(&join);

    assert!(c.merge(&b.extract(&of_b, c.name(), &c.clocks())).is_empty());
    b.replica_up(a.name());
    assert!(c.merge(&b.extract(&of_b, c.name(), &c.clocks())).is_empty());

    assert_eq!(listed(&c, "t"), "ann: r1");
}

/// Phoenix nodes track such keys.
#[test]
fn a_foreign_key_that_breaks_clients_is_passed_on_but_not_shown() {
    let [mut a, mut b, mut c] = replicas(["a", "b", "c"]);
    a.join(owner(1), "t", "ann", meta("r1")).unwrap();
    let mut delta = a.take_delta().unwrap();
    for value in delta.values.values_mut().flat_map(|values| values.values_mut()) {
        *value = Arc::new(Entry { key: "constructor".into(), ..Entry::clone(value) });
    }

    let joined = b.merge_delta(&delta);
    c.merge_state(&b.full_state());

    assert!(joined.is_empty());
    assert_eq!(listed(&b, "t"), "");
    assert_eq!(c.full_state().values[a.name()].len(), 1);
    a.leave(owner(1), "t", "ann");
    assert!(b.merge_delta(&a.take_delta().unwrap()).is_empty());
    assert!(b.replica_down(a.name()).is_empty());
}

#[test]
fn a_delta_nobody_takes_does_not_grow_without_bound() {
    let [mut a, mut b] = replicas(["a", "b"]);
    a.join(owner(0), "t", "stays", meta("r0")).unwrap();
    for connection in 1..=DELTA_SIZE_MAX as u64 {
        a.join(owner(connection), "t", "ann", meta("r1")).unwrap();
        a.leave(owner(connection), "t", "ann");
        assert!(a.delta().size() <= DELTA_SIZE_MAX);
    }
    a.join(owner(1), "t", "last", meta("r2")).unwrap();

    let mut generations = Generations::new();
    let delta = a.take_delta().unwrap();
    generations.push(&delta);
    b.merge_delta(&delta);
    assert_eq!(listed(&b, "t"), "last: r2");
    let transfer = a.extract(&generations, b.name(), &b.clocks());

    assert!(matches!(transfer, Transfer::State(_)));
    assert_eq!(told(&b.merge(&transfer)), "t +stays: r0");
    assert_eq!(b.clocks(), a.clocks());
}

#[test]
fn a_transfer_is_the_smallest_generation_that_reaches_back() {
    let [mut a, b] = replicas(["a", "b"]);
    let mut generations = Generations::new();
    for connection in 1..=70 {
        a.join(owner(connection), "t", "ann", meta("r1")).unwrap();
        generations.push(&a.take_delta().unwrap());
    }
    let sizes_for = |clock: u64| {
        let theirs = Context::from_iter([(replica_ref("a"), clock), (replica_ref("b"), 0)]);
        match a.extract(&generations, b.name(), &theirs) {
            Transfer::Delta(delta) => Some(delta.size()),
            Transfer::State(_) => None,
        }
    };

    // A join counts twice, so the smallest generation began anew after 50 of them, with the 51st.
    assert_eq!(sizes_for(69), Some(40));
    assert_eq!(sizes_for(50), Some(40));
    assert_eq!(sizes_for(49), Some(140));
    assert_eq!(sizes_for(0), Some(140));
}

/// The names of the replicas in each part of a delta.
fn spoken_of(delta: &Delta) -> Vec<String> {
    let clouds = delta.clouds.keys().chain(delta.values.keys());
    let ends = delta.start.iter().chain(delta.end.iter());
    clouds.chain(ends.map(|(name, _)| name)).map(|name| name.name.to_string()).collect()
}

#[test]
fn a_transfer_says_nothing_about_the_asker_or_what_it_does_not_know() {
    let [mut a, mut b, mut c] = replicas(["a", "b", "c"]);
    let mut of_a = Generations::new();
    for replica in [&mut a, &mut b, &mut c] {
        replica.join(owner(1), "t", "ann", meta("r1")).unwrap();
    }
    for delta in [b.take_delta(), c.take_delta(), a.take_delta()] {
        let delta = delta.unwrap();
        a.merge_delta(&delta);
        of_a.push(&delta);
    }
    let theirs = Context::from_iter([(replica_ref("a"), 0), (replica_ref("b"), 0)]);

    let Transfer::State(state) = a.extract(&Generations::new(), b.name(), &theirs) else {
        panic!("without generations the answer is a full state");
    };
    let Transfer::Delta(delta) = a.extract(&of_a, b.name(), &theirs) else {
        panic!("the generation reaches back to the beginning");
    };

    let only_a = [&replica_ref("a")];
    assert!(state.context.iter().map(|(name, _)| name).eq(only_a));
    assert!(state.values.keys().eq(only_a));
    assert!(state.clouds.keys().eq(only_a));
    assert!(state.statuses.keys().eq(only_a));
    assert_eq!(spoken_of(&delta), ["a", "a", "a", "a"]);
}

#[test]
fn a_generation_does_not_bring_back_what_a_full_state_removed() {
    let [mut a, mut b, mut c, mut d] = replicas(["a", "b", "c", "d"]);
    let mut of_b = Generations::new();
    a.join(owner(1), "t", "zed", meta("r1")).unwrap();
    let missed = a.take_delta().unwrap();
    a.join(owner(2), "t", "ann", meta("r2")).unwrap();
    let join = a.take_delta().unwrap();
    a.leave(owner(2), "t", "ann");
    d.merge_delta(&join);
    d.merge_delta(&a.take_delta().unwrap());
    b.merge_delta(&join);
    of_b.push(&join);

    assert_eq!(told(&b.merge_state(&d.full_state())), "t -ann: r2");
    let transfer = b.extract(&of_b, c.name(), &c.clocks());

    assert!(matches!(transfer, Transfer::Delta(_)));
    assert!(c.merge(&transfer).is_empty());
    assert_eq!(told(&c.merge_delta(&missed)), "t +zed: r1");
}

#[test]
fn a_generation_does_not_speak_of_a_replica_that_is_gone() {
    let [mut a, mut b, c] = replicas(["a", "b", "c"]);
    let mut of_b = Generations::new();
    a.join(owner(1), "t", "ann", meta("r1")).unwrap();
    of_b.push(&a.take_delta().unwrap());
    b.join(owner(1), "t", "bob", meta("r2")).unwrap();
    of_b.push(&b.take_delta().unwrap());

    b.remove_down_replica(a.name());
    of_b.forget(a.name());

    let Transfer::Delta(delta) = b.extract(&of_b, c.name(), &c.clocks()) else {
        panic!("the generation reaches back to the beginning");
    };
    assert_eq!(spoken_of(&delta), ["b", "b", "b", "b"]);
}

#[test]
fn the_metas_of_a_diff_are_in_the_order_of_their_owners() {
    let [mut a, mut b] = replicas(["a", "b"]);
    for connection in [3, 1, 2] {
        let phx_ref = format!("r{connection}");
        a.join(owner(connection), "t", "ann", meta(&phx_ref)).unwrap();
    }

    assert_eq!(told(&b.merge_delta(a.delta())), "t +ann: r1 r2 r3");
    assert_eq!(told(&b.replica_down(a.name())), "t -ann: r1 r2 r3");
}

#[test]
fn deltas_with_a_gap_between_them_do_not_merge() {
    let [mut a] = replicas(["a"]);
    let mut taken = || {
        a.join(owner(1), "t", "ann", meta("r1")).unwrap();
        a.leave(owner(1), "t", "ann");
        a.take_delta().unwrap()
    };
    let (first, second, third) = (taken(), taken(), taken());

    let (mut forth, mut back) = (first.clone(), third.clone());
    assert!(forth.merge(&third).is_err());
    assert!(back.merge(&first).is_err());
    assert_eq!((&forth, &back), (&first, &third));
    forth.merge(&second).unwrap();
    back.merge(&second).unwrap();
    forth.merge(&third).unwrap();
    back.merge(&first).unwrap();

    assert_eq!(forth, back);
    assert_eq!(forth.end.clock(&replica_ref("a")), 6);
}
