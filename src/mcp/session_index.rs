//! Sessions in the order of their ids, all and each user's: what their operator pages through.

use std::collections::{BTreeMap, BTreeSet};
use std::ops::Bound;
use std::sync::Arc;

/// Something for each session. Both orders are kept as sessions come and go, so that a page costs what is on it.
#[derive(Debug)]
pub(super) struct SessionIndex<T> {
    by_id: BTreeMap<Arc<str>, Entry<T>>,
    /// Users without sessions are not in it.
    by_user: BTreeMap<Arc<str>, BTreeSet<Arc<str>>>,
}

#[derive(Debug)]
struct Entry<T> {
    user: Arc<str>,
    value: T,
}

impl<T> Default for SessionIndex<T> {
    fn default() -> Self {
        SessionIndex { by_id: BTreeMap::new(), by_user: BTreeMap::new() }
    }
}

impl<T> SessionIndex<T> {
    /// Takes a session up, in the place of one of the same id.
    pub(super) fn insert(&mut self, id: &str, user: &str, value: T) {
        self.remove(id);
        let id = Arc::<str>::from(id);
        let user = match self.by_user.get_key_value(user) {
            Some((known, _)) => Arc::clone(known),
            None => user.into(),
        };
        self.by_user.entry(Arc::clone(&user)).or_default().insert(Arc::clone(&id));
        self.by_id.insert(id, Entry { user, value });
    }

    /// Lets a session go.
    pub(super) fn remove(&mut self, id: &str) {
        let Some(Entry { user, .. }) = self.by_id.remove(id) else { return };
        if let Some(ids) = self.by_user.get_mut(&user) {
            ids.remove(id);
            if ids.is_empty() {
                self.by_user.remove(&user);
            }
        }
    }

    /// What stands for a session.
    pub(super) fn get(&self, id: &str) -> Option<&T> {
        self.by_id.get(id).map(|entry| &entry.value)
    }

    /// How many sessions there are.
    pub(super) fn len(&self) -> usize {
        self.by_id.len()
    }

    /// Of the sessions of a user, or of all, at most `limit` that follow the id `after`, whether that is there or not, and that
    /// are `seen`. Fewer than `limit` are the last.
    pub(super) fn page<U>(
        &self,
        user: Option<&str>,
        after: Option<&str>,
        limit: usize,
        seen: impl Fn(&T) -> Option<U>,
    ) -> Vec<(Arc<str>, U)> {
        let range = (after.map_or(Bound::Unbounded, Bound::Excluded), Bound::Unbounded);
        let look = |id: &Arc<str>, entry: &Entry<T>| Some((Arc::clone(id), seen(&entry.value)?));
        match user {
            None => self.by_id.range::<str, _>(range).filter_map(|(id, it)| look(id, it)).take(limit).collect(),
            Some(user) => {
                let ids = self.by_user.get(user).into_iter().flat_map(|ids| ids.range::<str, _>(range));
                ids.filter_map(|id| look(id, self.by_id.get(id)?)).take(limit).collect()
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Ids `a0` to `a9`; those with even numbers are ann's.
    fn ten() -> SessionIndex<u32> {
        let mut index = SessionIndex::default();
        for number in [3, 1, 4, 0, 5, 9, 2, 6, 8, 7] {
            index.insert(&format!("a{number}"), if number % 2 == 0 { "ann" } else { "bob" }, number);
        }
        index
    }

    fn page(index: &SessionIndex<u32>, user: Option<&str>, after: Option<&str>, limit: usize) -> Vec<u32> {
        index.page(user, after, limit, |number| Some(*number)).into_iter().map(|(_, number)| number).collect()
    }

    #[test]
    fn a_page_is_the_next_of_all_or_of_one_user() {
        let index = ten();

        assert_eq!(page(&index, None, None, 3), [0, 1, 2]);
        assert_eq!(page(&index, None, Some("a2"), 100), [3, 4, 5, 6, 7, 8, 9]);
        assert_eq!(page(&index, Some("ann"), None, 3), [0, 2, 4]);
        assert_eq!(page(&index, Some("ann"), Some("a4"), 3), [6, 8]);
        assert_eq!(page(&index, Some("bob"), Some("a9"), 3), [0; 0]);
        assert_eq!(page(&index, Some("eve"), None, 3), [0; 0]);
        assert_eq!(page(&index, None, None, 0), [0; 0]);
    }

    #[test]
    fn a_page_goes_on_behind_an_id_that_is_gone_or_anothers() {
        let mut index = ten();
        index.remove("a4");

        assert_eq!(page(&index, Some("ann"), Some("a4"), 2), [6, 8]);
        assert_eq!(page(&index, Some("ann"), Some("a3"), 2), [6, 8]);
        assert_eq!(page(&index, None, Some(""), 1), [0]);
    }

    #[test]
    fn what_is_not_seen_takes_no_place_of_a_page() {
        let index = ten();
        let seen = |number: &u32| (*number > 5).then_some(*number);

        let found: Vec<_> = index.page(Some("ann"), None, 2, seen).into_iter().map(|(_, number)| number).collect();

        assert_eq!(found, [6, 8]);
    }

    #[test]
    fn sessions_that_are_gone_leave_nothing() {
        let mut index = ten();
        index.insert("a4", "bob", 40);
        assert_eq!((page(&index, Some("ann"), Some("a2"), 1), index.get("a4"), index.len()), (vec![6], Some(&40), 10));

        for number in 0..10 {
            index.remove(&format!("a{number}"));
            index.remove("a0");
        }

        assert!(index.by_id.is_empty() && index.by_user.is_empty());
    }
}
