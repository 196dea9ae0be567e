//! What a server offers at one moment: its tools, resources, templates and prompts, in the order in which they were added.

use std::collections::BTreeMap;
use std::num::NonZeroUsize;
use std::ops::Bound;
use std::sync::Arc;

use serde_json::value::RawValue;

use super::prompts::Prompt;
use super::resources::{Resource, ResourceTemplate};
use super::tools::Registered;
use crate::protocol::jsonrpc;
use crate::protocol::mcp::cursor;

/// Everything of a server. A change makes a new one, so that a list that is being made sees one moment.
///
/// Resources and templates are numbered together, since a template may list resources of its own among the others.
#[derive(Clone, Default)]
pub(crate) struct Catalog {
    pub(crate) tools: Shelf<Registered>,
    pub(crate) resources: Shelf<Listed<Resource>>,
    pub(crate) templates: Shelf<Listed<ResourceTemplate>>,
    pub(crate) prompts: Shelf<Listed<Prompt>>,
}

impl Catalog {
    /// Whether a resource or a template is at URIs that begin so.
    pub(crate) fn has_scheme(&self, scheme: &str) -> bool {
        let has = |uri: &str| uri.strip_prefix(scheme).is_some_and(|rest| rest.starts_with("://"));
        self.resources.iter().any(|resource| has(&resource.item.uri))
            || self.templates.iter().any(|template| has(&template.item.uri_template))
    }
}

/// An item with what its list says of it.
pub(crate) struct Listed<T> {
    pub(crate) item: T,
    pub(crate) listed: Box<RawValue>,
}

impl<T> Listed<T> {
    pub(crate) fn new(item: T, listed: &serde_json::Value) -> Self {
        Listed { item, listed: jsonrpc::raw(listed) }
    }
}

/// Items by name, in the order in which they came.
pub(crate) struct Shelf<T> {
    by_name: BTreeMap<String, u64>,
    in_order: BTreeMap<u64, Arc<T>>,
    last: u64,
}

impl<T> Default for Shelf<T> {
    fn default() -> Self {
        Shelf { by_name: BTreeMap::new(), in_order: BTreeMap::new(), last: 0 }
    }
}

impl<T> Clone for Shelf<T> {
    fn clone(&self) -> Self {
        Shelf { by_name: self.by_name.clone(), in_order: self.in_order.clone(), last: self.last }
    }
}

/// A cursor that this server did not give, or not for this list.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct InvalidCursor;

impl<T> Shelf<T> {
    /// Adds an item; false if there is one of that name.
    pub(crate) fn add(&mut self, name: &str, item: T) -> bool {
        if self.by_name.contains_key(name) {
            return false;
        }
        self.last += 1;
        self.by_name.insert(name.to_owned(), self.last);
        self.in_order.insert(self.last, Arc::new(item));
        true
    }

    /// Takes an item away; whether it was there.
    pub(crate) fn remove(&mut self, name: &str) -> bool {
        let Some(number) = self.by_name.remove(name) else {
            return false;
        };
        self.in_order.remove(&number).is_some()
    }

    pub(crate) fn find(&self, name: &str) -> Option<&Arc<T>> {
        self.in_order.get(self.by_name.get(name)?)
    }

    pub(crate) fn iter(&self) -> impl Iterator<Item = &Arc<T>> {
        self.in_order.values()
    }

    /// The items with their numbers.
    pub(crate) fn numbered(&self) -> impl Iterator<Item = (u64, &Arc<T>)> {
        self.in_order.iter().map(|(number, item)| (*number, item))
    }

    /// Numbers what is added from now on behind all that the other shelf has had.
    pub(crate) fn follow<U>(&mut self, other: &Shelf<U>) {
        self.last = self.last.max(other.last);
    }

    /// The items after a cursor, `size` at most, and the cursor of the next page if there is one. Items that come
    /// or go meanwhile shift nothing.
    ///
    /// `list` is the method, so that a cursor is good for its own list alone.
    pub(crate) fn page(
        &self,
        list: &str,
        cursor: Option<&str>,
        size: NonZeroUsize,
    ) -> Result<(impl Iterator<Item = &Arc<T>>, Option<String>), InvalidCursor> {
        let after = match cursor {
            None => 0,
            Some(cursor) => {
                cursor::decode(list, cursor).ok().and_then(|after| after.parse().ok()).ok_or(InvalidCursor)?
            }
        };
        let rest = || self.in_order.range((Bound::Excluded(after), Bound::Unbounded));
        let last = rest().nth(size.get() - 1).map(|(number, _)| *number);
        let next = last.filter(|_| rest().nth(size.get()).is_some());
        let page = rest().take(size.get()).map(|(_, item)| item);
        Ok((page, next.map(|number| cursor::encode(list, &number.to_string()))))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SIZE: usize = 100;

    fn size() -> NonZeroUsize {
        NonZeroUsize::new(SIZE).expect("not 0")
    }

    fn shelf(items: usize) -> Shelf<usize> {
        let mut shelf = Shelf::default();
        for n in 0..items {
            assert!(shelf.add(&format!("i{n}"), n));
        }
        shelf
    }

    /// All items by way of pages.
    fn all(shelf: &Shelf<usize>) -> Vec<usize> {
        let (mut items, mut cursor) = (Vec::new(), None);
        loop {
            let (page, next) = shelf.page("x/list", cursor.as_deref(), size()).expect("a cursor of ours");
            items.extend(page.map(|item| **item));
            cursor = next;
            if cursor.is_none() {
                return items;
            }
        }
    }

    #[test]
    fn pages_give_every_item_once_in_order() {
        for items in [0, 1, SIZE - 1, SIZE, SIZE + 1, SIZE * 3] {
            assert_eq!(all(&shelf(items)), (0..items).collect::<Vec<_>>());
        }
    }

    #[test]
    fn what_goes_between_two_pages_shifts_nothing() {
        let mut shelf = shelf(SIZE * 2);
        let cursor = shelf.page("x/list", None, size()).expect("the first").1.expect("a second page");
        assert!(shelf.remove("i0") && shelf.remove(&format!("i{}", SIZE - 1)));

        let (mut page, _) = shelf.page("x/list", Some(&cursor), size()).expect("still good");

        assert_eq!(page.next().map(|item| **item), Some(SIZE));
    }

    #[test]
    fn cursors_of_others_are_invalid() {
        let shelf = shelf(SIZE * 2);
        let cursor = shelf.page("x/list", None, size()).expect("the first").1.expect("a second page");

        for stranger in ["", "5", "AAAA", &cursor[1..], &cursor::encode("y/list", "5"), &cursor::encode("x/list", "a")]
        {
            assert_eq!(shelf.page("x/list", Some(stranger), size()).err(), Some(InvalidCursor), "{stranger}");
        }
    }

    #[test]
    fn a_forged_cursor_beyond_all_items_gives_an_empty_page() {
        let shelf = shelf(3);

        let forged = cursor::encode("x/list", &u64::MAX.to_string());
        let (mut page, next) = shelf.page("x/list", Some(&forged), size()).expect("read");

        assert!(page.next().is_none() && next.is_none());
    }

    #[test]
    fn a_name_is_there_once() {
        let mut shelf = shelf(1);

        assert!(!shelf.add("i0", 7));
        assert!(shelf.remove("i0") && !shelf.remove("i0") && shelf.add("i0", 7));
        assert_eq!(shelf.find("i0").map(|item| **item), Some(7));
    }
}
