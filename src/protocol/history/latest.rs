//! What is left for a slow reader of a topic of which only the latest counts.

use std::collections::BTreeSet;

/// Keeps of the items with the same key only the last, in their order.
pub fn thin<T, K: Ord>(items: Vec<(u64, T)>, key: impl Fn(&T) -> K) -> Vec<(u64, T)> {
    let mut seen = BTreeSet::new();
    let mut left: Vec<_> = items.into_iter().rev().filter(|(_, item)| seen.insert(key(item))).collect();
    left.reverse();
    left
}
