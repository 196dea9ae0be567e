//! Tests of the whole set: local changes, merging, and many replicas at once.

mod convergence;
mod local;
mod merging;
mod view;

use std::collections::BTreeMap;

use super::{Meta, Owner, Replica, ReplicaRef};

pub fn replica_ref(name: &str) -> ReplicaRef {
    ReplicaRef::new(name, 1)
}

/// Replicas of these names that know each other.
pub fn replicas<const N: usize>(names: [&str; N]) -> [Replica; N] {
    names.map(|name| {
        let mut replica = Replica::new(replica_ref(name));
        for other in names {
            replica.replica_up(&replica_ref(other));
        }
        replica
    })
}

pub fn owner(connection: u64) -> Owner {
    Owner { connection, channel: 1 }
}

pub fn meta(phx_ref: &str) -> Meta {
    Meta::new("{}", phx_ref).expect("an empty object is a meta")
}

/// A topic as `key: ref ref, key: ref`, in the order of listing.
pub fn listed(replica: &Replica, topic: &str) -> String {
    let mut text = String::new();
    let mut open = None;
    for presence in replica.get_by_topic(topic) {
        if open == Some(presence.key) {
            text.push(' ');
        } else {
            if open.is_some() {
                text.push_str(", ");
            }
            text.push_str(presence.key);
            text.push_str(": ");
            open = Some(presence.key);
        }
        text.push_str(presence.meta.phx_ref());
    }
    text
}

/// A diff as `topic +key: ref ref -key: ref`, topics one after the other.
pub fn told(diff: &super::Diff) -> String {
    let mut parts = Vec::new();
    for (topic, changes) in &diff.topics {
        parts.push(topic.to_string());
        for (sign, side) in [("+", &changes.joins), ("-", &changes.leaves)] {
            for (key, metas) in side {
                let refs: Vec<&str> = metas.iter().map(|meta| meta.phx_ref()).collect();
                parts.push(format!("{sign}{key}: {}", refs.join(" ")));
            }
        }
    }
    parts.join(" ")
}

/// What a client would hold that applies each diff: it fails when something joins twice, or leaves without having joined.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Watcher {
    present: BTreeMap<(String, String, String), ()>,
}

impl Watcher {
    pub fn apply(&mut self, diff: &super::Diff) {
        for (topic, changes) in &diff.topics {
            assert!(
                !changes.joins.is_empty() || !changes.leaves.is_empty(),
                "topic {topic} is in the diff without a change"
            );
            let named = |key: &str, meta: &Meta| {
                let phx_ref = meta.phx_ref().to_owned();
                (topic.to_string(), key.to_owned(), phx_ref)
            };
            for (key, metas) in &changes.joins {
                for meta in metas {
                    let joined = self.present.insert(named(key, meta), ());
                    assert_eq!(joined, None, "{:?} joined twice", named(key, meta));
                }
            }
            for (key, metas) in &changes.leaves {
                for meta in metas {
                    let left = self.present.remove(&named(key, meta));
                    assert_eq!(left, Some(()), "{:?} left, but was not there", named(key, meta));
                }
            }
        }
    }

    /// Asserts that what the diffs told is what the replica lists.
    pub fn check(&self, replica: &Replica, topics: &[&str]) {
        let listed: BTreeMap<_, _> = topics
            .iter()
            .flat_map(|topic| replica.get_by_topic(topic))
            .map(|presence| {
                let phx_ref = presence.meta.phx_ref().to_owned();
                ((presence.topic.to_owned(), presence.key.to_owned(), phx_ref), ())
            })
            .collect();
        assert_eq!(self.present, listed, "diffs and listing of {:?}", replica.name());
    }
}
