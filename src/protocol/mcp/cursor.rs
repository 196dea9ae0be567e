//! Where the next page of a list begins: cursors that are opaque to clients and need no memory here.
//!
//! A cursor names the last item of the page before, so that items may come and go between two pages: none that stays is
//! left out or sent twice. It is no secret and no proof; who may see the list is asked for each page.

use std::num::NonZeroUsize;

use base64::Engine;
use base64::prelude::BASE64_URL_SAFE_NO_PAD;

/// Most bytes of a cursor; a longer one is not ours. Keys are names and URIs, of which clients send far shorter ones.
pub const CURSOR_BYTES_MAX: usize = 8_192;

/// A cursor is not one that we gave for this list: the client's fault, `-32602`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("cursor: expected the nextCursor of a page of this list")]
pub struct InvalidCursor;

/// One page of a list.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Page<T> {
    /// The items, in the order of their keys.
    pub items: Vec<T>,
    /// The cursor of the next page; `None` on the last one.
    pub next: Option<String>,
}

/// Makes the cursor of the page behind the item `after` of the list `kind`.
///
/// `kind` is a word of ours without NUL, such as `tools`; `after` any text.
pub fn encode(kind: &str, after: &str) -> String {
    let mut bytes = Vec::with_capacity(kind.len() + 1 + after.len() + 4);
    bytes.extend_from_slice(kind.as_bytes());
    bytes.push(0);
    bytes.extend_from_slice(after.as_bytes());
    bytes.extend_from_slice(&checksum(&bytes).to_be_bytes());
    BASE64_URL_SAFE_NO_PAD.encode(bytes)
}

/// Reads a cursor of the list `kind`: the key of the last item before its page.
///
/// # Errors
/// [`InvalidCursor`] for garbage, an edited cursor, that of another list, or one above [`CURSOR_BYTES_MAX`].
pub fn decode(kind: &str, cursor: &str) -> Result<String, InvalidCursor> {
    if cursor.len() > CURSOR_BYTES_MAX {
        return Err(InvalidCursor);
    }
    let bytes = BASE64_URL_SAFE_NO_PAD.decode(cursor).map_err(|_| InvalidCursor)?;
    let (body, sum) = bytes.split_last_chunk::<4>().ok_or(InvalidCursor)?;
    if checksum(body) != u32::from_be_bytes(*sum) {
        return Err(InvalidCursor);
    }
    let after = body.strip_prefix(kind.as_bytes()).and_then(|rest| rest.strip_prefix(b"\0"));
    after.and_then(|after| String::from_utf8(after.to_vec()).ok()).ok_or(InvalidCursor)
}

/// Cuts the page that `cursor` asks for out of a list; without a cursor, the first.
///
/// `items` are in the order of their keys, and no key comes twice. A key too long for [`CURSOR_BYTES_MAX`] would end the
/// list early; names and URIs are bounded where they are registered.
///
/// # Errors
/// [`InvalidCursor`] if there is a cursor and [`decode`] refuses it.
pub fn page<K: AsRef<str>, T>(
    kind: &str,
    items: impl IntoIterator<Item = (K, T)>,
    cursor: Option<&str>,
    size: NonZeroUsize,
) -> Result<Page<T>, InvalidCursor> {
    let after = cursor.map(|cursor| decode(kind, cursor)).transpose()?;
    let mut rest = items.into_iter().filter(|(key, _)| after.as_deref().is_none_or(|after| key.as_ref() > after));
    let mut items = Vec::new();
    let mut last = None;
    for (key, item) in rest.by_ref().take(size.get()) {
        items.push(item);
        last = Some(key);
    }
    let next = match (rest.next(), last) {
        (Some(_), Some(last)) => Some(encode(kind, last.as_ref())),
        _ => None,
    };
    Ok(Page { items, next })
}

/// FNV-1a, 32 bits: any edit of one byte changes it.
fn checksum(bytes: &[u8]) -> u32 {
    bytes.iter().fold(0x811c_9dc5, |sum: u32, byte| (sum ^ u32::from(*byte)).wrapping_mul(0x0100_0193))
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use proptest::prelude::*;

    use super::*;

    #[test]
    fn cursors_of_other_lists_are_refused() {
        let cursor = encode("tools", "a");

        assert_eq!(decode("tools", &cursor).as_deref(), Ok("a"));
        assert_eq!(decode("tool", &cursor), Err(InvalidCursor));
        assert_eq!(decode("toolsa", &cursor), Err(InvalidCursor));
        assert_eq!(decode("prompts", &cursor), Err(InvalidCursor));
    }

    #[test]
    fn garbage_and_what_is_too_long_are_refused() {
        for garbage in ["", "a", "aaaa", "AAAAAAAA", "dG9vbHMAYQ", "ü", " "] {
            assert_eq!(decode("tools", garbage), Err(InvalidCursor), "{garbage:?}");
        }
        assert_eq!(decode("tools", &encode("tools", &"a".repeat(CURSOR_BYTES_MAX))), Err(InvalidCursor));
    }

    #[test]
    fn every_edit_of_one_character_is_refused() {
        let cursor = encode("tools", "some_tool");

        for at in 0..cursor.len() {
            for other in ('!'..='~').filter(|other| !cursor[at..].starts_with(*other)) {
                let mut edited = cursor.clone();
                edited.replace_range(at..=at, other.encode_utf8(&mut [0; 4]));
                assert_eq!(decode("tools", &edited), Err(InvalidCursor), "{edited}");
            }
        }
    }

    #[test]
    fn an_item_that_goes_between_two_pages_moves_no_other() {
        let mut list = BTreeMap::from([("a", 1), ("b", 2), ("c", 3)]);
        let size = NonZeroUsize::new(2).expect("not 0");

        let first = page("l", list.clone(), None, size).expect("no cursor");
        list.remove("b");
        let second = page("l", list, first.next.as_deref(), size).expect("our cursor");

        assert_eq!(first.items, [1, 2]);
        assert_eq!((second.items, second.next), (vec![3], None));
    }

    #[test]
    fn an_empty_list_is_one_empty_page() {
        let page = page("l", Vec::<(&str, u8)>::new(), None, NonZeroUsize::MIN);

        assert_eq!(page, Ok(Page { items: Vec::new(), next: None }));
    }

    proptest! {
        #[test]
        fn a_cursor_reads_back(after in ".*") {
            prop_assert_eq!(decode("l", &encode("l", &after)), Ok(after));
        }

        #[test]
        fn the_pages_are_the_list(list in proptest::collection::btree_map(".{0,3}", any::<u8>(), 0..20), size in 1_usize..6) {
            let size = NonZeroUsize::new(size).expect("at least 1");
            let mut all: Vec<&u8> = Vec::new();
            let mut cursor: Option<String> = None;
            loop {
                let page = page("l", &list, cursor.as_deref(), size).expect("our cursor");
                prop_assert!(page.items.len() <= size.get());
                all.extend(page.items);
                cursor = page.next;
                if cursor.is_none() {
                    break;
                }
            }
            prop_assert_eq!(all, list.values().collect::<Vec<_>>());
        }
    }
}
