//! The list of resources of a server where templates list some of them: those are looked up, by the user who asks.

use futures::future::try_join_all;
use serde_json::value::RawValue;

use super::catalog::Catalog;
use super::{CallContext, CallError};
use crate::protocol::jsonrpc;
use crate::protocol::mcp::RESOURCES_LIST;
use crate::protocol::mcp::cursor::{self, Page};

/// Bytes of a URI that a cursor repeats; a cursor above its own bound would not be taken back.
const CURSOR_URI_BYTES_MAX: usize = 2_048;

/// A resource with its place in the list.
struct Entry {
    place: Place,
    listed: Box<RawValue>,
}

/// Where a resource stands: the number of what lists it, then how manieth it is there, and its URI to find it again.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Place {
    number: u64,
    index: usize,
    uri: String,
}

impl Place {
    /// Reads a cursor, if it is one of this list.
    pub(super) fn read(cursor: &str) -> Option<Self> {
        let text = cursor::decode(RESOURCES_LIST, cursor).ok()?;
        let mut parts = text.splitn(3, ' ');
        let number = parts.next()?.parse().ok()?;
        let index = parts.next()?.parse().ok()?;
        Some(Place { number, index, uri: parts.next()?.to_owned() })
    }

    fn cursor(&self) -> String {
        let uri = if self.uri.len() > CURSOR_URI_BYTES_MAX { "" } else { &self.uri };
        cursor::encode(RESOURCES_LIST, &format!("{} {} {uri}", self.number, self.index))
    }
}

/// The resources behind a place, `size` at most, and the cursor of the next page if there is one.
///
/// # Errors
/// That of a template that could not list its resources.
pub(super) async fn page(
    catalog: &Catalog,
    context: CallContext,
    after: Option<&Place>,
    size: usize,
) -> Result<Page<Box<RawValue>>, CallError> {
    let fixed = catalog.resources.numbered().map(|(number, resource)| Entry {
        place: Place { number, index: 0, uri: resource.item.uri.clone() },
        listed: resource.listed.clone(),
    });
    let looked_up = catalog.templates.numbered().map(|(number, template)| {
        let resources = template.item.resources(context.clone());
        async move {
            let entry = |(index, link): (usize, _)| entry(number, index, &link);
            Ok::<_, CallError>(resources.await?.into_iter().enumerate().map(entry).collect::<Vec<_>>())
        }
    });
    let mut entries: Vec<_> = fixed.chain(try_join_all(looked_up).await?.into_iter().flatten()).collect();
    // Stable: those of a template stay in their order.
    entries.sort_by_key(|entry| entry.place.number);
    Ok(cut(entries, after, size))
}

fn entry(number: u64, index: usize, link: &crate::protocol::mcp::content::ResourceLink) -> Entry {
    Entry { place: Place { number, index, uri: link.uri().to_owned() }, listed: jsonrpc::raw(link) }
}

fn cut(mut entries: Vec<Entry>, after: Option<&Place>, size: usize) -> Page<Box<RawValue>> {
    if let Some(after) = after {
        let here = |entry: &Entry| entry.place.number == after.number;
        let start = match entries.iter().position(|entry| here(entry) && entry.place.uri == after.uri) {
            Some(last) => last + 1,
            // It has gone since, so that what came behind it now stands in its place.
            None => {
                entries.partition_point(|entry| (entry.place.number, entry.place.index) < (after.number, after.index))
            }
        };
        entries.drain(..start);
    }
    let is_last = entries.len() <= size;
    entries.truncate(size);
    let next = entries.last().filter(|_| !is_last).map(|entry| entry.place.cursor());
    Page { items: entries.into_iter().map(|entry| entry.listed).collect(), next }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::protocol::mcp::content::ResourceLink;

    /// Number 1 is a template with these resources, number 2 is fixed, number 3 is a template with two.
    fn entries(first: &[&str]) -> Vec<Entry> {
        let of = |number: u64, uris: &[&str]| -> Vec<Entry> {
            let link = |uri: &str| ResourceLink::new(uri, "n");
            uris.iter().enumerate().map(|(index, uri)| entry(number, index, &link(uri))).collect()
        };
        of(1, first).into_iter().chain(of(2, &["fixed"])).chain(of(3, &["x", "y"])).collect()
    }

    fn uris(page: &Page<Box<RawValue>>) -> Vec<String> {
        let uri = |listed: &RawValue| jsonrpc::Object::parse(listed.get().as_bytes())?.string("uri");
        page.items.iter().map(|listed| uri(listed).expect("a URI")).collect()
    }

    fn next(page: &Page<Box<RawValue>>) -> Place {
        Place::read(page.next.as_deref().expect("a further page")).expect("a cursor of ours")
    }

    #[test]
    fn pages_give_every_resource_once_in_order() {
        for size in 1..8 {
            let (mut all, mut after) = (Vec::new(), None);
            loop {
                let page = cut(entries(&["a", "b", "c d"]), after.as_ref(), size);
                all.extend(uris(&page));
                if page.next.is_none() {
                    break;
                }
                after = Some(next(&page));
            }
            assert_eq!(all, ["a", "b", "c d", "fixed", "x", "y"], "pages of {size}");
        }
    }

    #[test]
    fn what_comes_or_goes_between_two_pages_shifts_nothing() {
        let after = next(&cut(entries(&["a", "b", "c"]), None, 2));

        assert_eq!(uris(&cut(entries(&["b", "c"]), Some(&after), 2)), ["c", "fixed"]);
        assert_eq!(uris(&cut(entries(&["a", "a2", "b", "c"]), Some(&after), 2)), ["c", "fixed"]);
        assert_eq!(uris(&cut(entries(&["a", "c"]), Some(&after), 2)), ["c", "fixed"], "the last one itself");
        assert_eq!(uris(&cut(entries(&[]), Some(&after), 2)), ["fixed", "x"]);
    }

    #[test]
    fn cursors_of_others_are_none() {
        let long = Place { number: 1, index: 2, uri: "u".repeat(CURSOR_URI_BYTES_MAX + 1) };

        for stranger in ["", "AAAA", &cursor::encode("prompts/list", "1 2 u"), &cursor::encode(RESOURCES_LIST, "1 2")] {
            assert_eq!(Place::read(stranger), None, "{stranger}");
        }
        assert_eq!(Place::read(&long.cursor()), Some(Place { uri: String::new(), ..long }));
    }
}
