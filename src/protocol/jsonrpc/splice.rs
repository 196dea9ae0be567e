//! Edits of JSON text that leave everything else as its author wrote it: key order, numbers of any length, spaces, escapes,
//! fields that nobody here knows.
//!
//! Who passes a message on changes its id or a token and nothing else. A key that comes twice is edited at each of its places:
//! readers differ in which one they take.

use std::borrow::Cow;
use std::collections::BTreeSet;
use std::fmt;

use serde::de::{Deserialize, Deserializer, MapAccess, Visitor};
use serde_json::value::RawValue;

use super::Key;

/// The object with the value at `path` being `value`, the text of a JSON value. What is not there is added behind the other
/// fields; what stands in the way of the path, being no object, is replaced.
///
/// `None` where `object` is no JSON object, or `path` is empty.
pub fn set(object: &str, path: &[&str], value: &str) -> Option<String> {
    let (first, rest) = path.split_first()?;
    let fields = fields(object)?;
    let mut text = String::with_capacity(object.len() + value.len() + 64);
    let mut copied = 0;
    for field in fields.iter().filter(|field| field.key == *first) {
        text.push_str(&object[copied..field.start]);
        let inner = if rest.is_empty() { None } else { Some(set(field.value, rest, value)) };
        match inner {
            None => text.push_str(value),
            Some(Some(inner)) => text.push_str(&inner),
            Some(None) => push_nested(&mut text, rest, value),
        }
        copied = field.end();
    }
    if copied == 0 {
        let end = match fields.last() {
            Some(last) => last.end(),
            None => object.find('{')? + 1,
        };
        text.push_str(&object[..end]);
        if !fields.is_empty() {
            text.push(',');
        }
        push_key(&mut text, first);
        push_nested(&mut text, rest, value);
        copied = end;
    }
    text.push_str(&object[copied..]);
    Some(text)
}

/// The object without what is at `path`; unchanged where nothing is. `None` where `object` is no JSON object, or `path` is
/// empty.
pub fn remove<'a>(object: &'a str, path: &[&str]) -> Option<Cow<'a, str>> {
    let (first, rest) = path.split_first()?;
    let fields = fields(object)?;
    if fields.iter().all(|field| field.key != *first) {
        return Some(Cow::Borrowed(object));
    }
    if !rest.is_empty() {
        let mut text = String::with_capacity(object.len());
        let mut copied = 0;
        for field in fields.iter().filter(|field| field.key == *first) {
            text.push_str(&object[copied..field.start]);
            text.push_str(&remove(field.value, rest).unwrap_or(Cow::Borrowed(field.value)));
            copied = field.end();
        }
        text.push_str(&object[copied..]);
        return Some(Cow::Owned(text));
    }
    // Between two values stand a comma and the second one's key: a field goes with what stands before its value.
    let open = object.find('{')? + 1;
    let mut text = object[..open].to_owned();
    let (mut before, mut is_first) = (open, true);
    for field in &fields {
        let whole = &object[before..field.end()];
        before = field.end();
        if field.key == *first {
            continue;
        }
        let whole = if is_first { whole.trim_start().strip_prefix(',').unwrap_or(whole) } else { whole };
        text.push_str(whole);
        is_first = false;
    }
    text.push_str(&object[before..]);
    Some(Cow::Owned(text))
}

/// The object with the first of those fields that share a key; unchanged where none do. `None` where it is no JSON object.
///
/// Readers differ in which of them they take: who checks one and passes all on has checked nothing.
pub fn without_repeats(object: &str) -> Option<Cow<'_, str>> {
    let fields = fields(object)?;
    let mut seen = BTreeSet::new();
    let is_first: Vec<bool> = fields.iter().map(|field| seen.insert(&field.key)).collect();
    if is_first.iter().all(|is_first| *is_first) {
        return Some(Cow::Borrowed(object));
    }
    let mut text = String::with_capacity(object.len());
    let mut before = 0;
    for (field, is_first) in fields.iter().zip(is_first) {
        // The first field of an object is never a repeat, so that each repeat has a comma before it.
        if is_first {
            text.push_str(&object[before..field.end()]);
        }
        before = field.end();
    }
    text.push_str(&object[before..]);
    Some(Cow::Owned(text))
}

/// The text of the value at `path`, the first where there are several.
pub fn get<'a>(object: &'a str, path: &[&str]) -> Option<&'a str> {
    let (first, rest) = path.split_first()?;
    let found = fields(object)?.into_iter().find(|field| field.key == *first)?;
    if rest.is_empty() { Some(found.value) } else { get(found.value, rest) }
}

fn push_key(text: &mut String, key: &str) {
    text.push_str(super::raw(key).get());
    text.push(':');
}

fn push_nested(text: &mut String, path: &[&str], value: &str) {
    for key in path {
        text.push('{');
        push_key(text, key);
    }
    text.push_str(value);
    text.extend(path.iter().map(|_| '}'));
}

/// One field of an object, and where its value stands in the object's text.
struct Field<'a> {
    key: Cow<'a, str>,
    value: &'a str,
    start: usize,
}

impl Field<'_> {
    fn end(&self) -> usize {
        self.start + self.value.len()
    }
}

/// The fields in their order; `None` if the text is no JSON object.
fn fields(object: &str) -> Option<Vec<Field<'_>>> {
    let Fields(fields) = serde_json::from_str(object).ok()?;
    // A raw value borrows from the text that it was read from.
    let start = |value: &str| value.as_ptr().addr() - object.as_ptr().addr();
    Some(fields.into_iter().map(|(key, value)| Field { start: start(value), key, value }).collect())
}

struct Fields<'a>(Vec<(Cow<'a, str>, &'a str)>);

impl<'de: 'a, 'a> Deserialize<'de> for Fields<'a> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct All;

        impl<'de> Visitor<'de> for All {
            type Value = Vec<(Cow<'de, str>, &'de str)>;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a JSON object")
            }

            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Self::Value, A::Error> {
                let mut fields = Vec::new();
                while let Some((Key(key), value)) = map.next_entry::<Key<'de>, &'de RawValue>()? {
                    fields.push((key, value.get()));
                }
                Ok(fields)
            }
        }

        deserializer.deserialize_map(All).map(Fields)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use serde_json::Value;

    use super::*;

    #[test]
    fn a_value_is_replaced_where_it_stands_and_nothing_else_changes() {
        let text = r#" {"z": 12345678901234567890123 ,"i\u0064":"x" , "a":[1e2, {"id":1}], "\/":"é\u00e9"} "#;

        assert_eq!(
            set(text, &["id"], "7").as_deref(),
            Some(r#" {"z": 12345678901234567890123 ,"i\u0064":7 , "a":[1e2, {"id":1}], "\/":"é\u00e9"} "#)
        );
    }

    #[test]
    fn a_value_deeper_down_is_replaced_and_what_is_missing_is_added() {
        let set = |text, value| set(text, &["params", "_meta", "token"], value).expect("an object");

        assert_eq!(
            set(r#"{"params":{"_meta":{"token":"t" },"a":1}}"#, "5"),
            r#"{"params":{"_meta":{"token":5 },"a":1}}"#
        );
        assert_eq!(set(r#"{"params":{"_meta":{}}}"#, "5"), r#"{"params":{"_meta":{"token":5}}}"#);
        assert_eq!(set(r#"{"params":{"a":1 }}"#, "5"), r#"{"params":{"a":1,"_meta":{"token":5} }}"#);
        assert_eq!(set(r#"{ }"#, "5"), r#"{"params":{"_meta":{"token":5}} }"#);
        assert_eq!(set(r#"{"params":{"_meta":null}}"#, "5"), r#"{"params":{"_meta":{"token":5}}}"#);
        assert_eq!(set(r#"{"params":[{}],"x":1}"#, "5"), r#"{"params":{"_meta":{"token":5}},"x":1}"#);
    }

    #[test]
    fn a_key_that_comes_twice_is_edited_twice() {
        assert_eq!(set(r#"{"id":1,"x":2,"id":3}"#, &["id"], "9").as_deref(), Some(r#"{"id":9,"x":2,"id":9}"#));
        assert_eq!(remove(r#"{"id":1,"x":2,"id":3}"#, &["id"]).as_deref(), Some(r#"{"x":2}"#));
        assert_eq!(get(r#"{"id":1,"x":2,"id":3}"#, &["id"]), Some("1"));
    }

    #[test]
    fn of_keys_that_come_twice_the_first_stays() {
        let without = |text| without_repeats(text).map(Cow::into_owned);

        assert_eq!(
            without(r#"{"a":1 , "b":2,"\u0061":3 ,"c":[{"a":1,"a":2}],"b":4}"#).as_deref(),
            Some(r#"{"a":1 , "b":2 ,"c":[{"a":1,"a":2}]}"#)
        );
        assert_eq!(without(r#"{ "a" : 1 }"#).as_deref(), Some(r#"{ "a" : 1 }"#));
        assert_eq!(without("[]"), None);
    }

    #[test]
    fn what_is_removed_leaves_an_object() {
        let without = |text| remove(text, &["b"]).expect("an object").into_owned();

        assert_eq!(without(r#"{"b":1}"#), "{}");
        assert_eq!(without(r#"{ "b" : 1 , "a":2 }"#), r#"{ "a":2 }"#);
        assert_eq!(without(r#"{"a":2,"b":{"c":","},"d":3}"#), r#"{"a":2,"d":3}"#);
        assert_eq!(without(r#"{"a":2,"b":1 }"#), r#"{"a":2 }"#);
        assert_eq!(without(r#"{"a":2}"#), r#"{"a":2}"#);
        assert_eq!(remove(r#"{"p":{"b":1,"c":2},"q":1}"#, &["p", "b"]).as_deref(), Some(r#"{"p":{"c":2},"q":1}"#));
        assert_eq!(remove(r#"{"p":1}"#, &["p", "b"]).as_deref(), Some(r#"{"p":1}"#));
    }

    #[test]
    fn what_is_no_object_is_left_alone() {
        for text in ["", "[]", "1", "{", r#"{"a":}"#, r#"{"a":1}x"#, "null"] {
            assert_eq!((set(text, &["a"], "1"), remove(text, &["a"]), get(text, &["a"])), (None, None, None), "{text}");
        }
        assert_eq!(set("{}", &[], "1"), None);
    }

    fn json() -> impl Strategy<Value = Value> {
        let leaf = prop_oneof![
            Just(Value::Null),
            any::<i32>().prop_map(Value::from),
            "[a-c\"\\\\é]{0,3}".prop_map(Value::from)
        ];
        leaf.prop_recursive(3, 16, 4, |inner| {
            prop_oneof![
                prop::collection::vec(inner.clone(), 0..3).prop_map(Value::from),
                prop::collection::btree_map("[a-d\"]{1,2}", inner, 0..4)
                    .prop_map(|map| Value::Object(map.into_iter().collect())),
            ]
        })
    }

    proptest! {
        #[test]
        fn an_edit_of_the_text_is_an_edit_of_the_value(
            object in prop::collection::btree_map("[a-d\"]{1,2}", json(), 0..4),
            path in prop::collection::vec("[a-d\"]{1,2}", 1..3),
            is_pretty in any::<bool>(),
        ) {
            let value = Value::Object(object.into_iter().collect());
            let text = if is_pretty { serde_json::to_string_pretty(&value) } else { serde_json::to_string(&value) }.expect("JSON");
            let path: Vec<&str> = path.iter().map(String::as_str).collect();

            let edited: Value = serde_json::from_str(&set(&text, &path, "\"new\"").expect("an object")).expect("JSON");
            let mut expected = value.clone();
            let mut place = &mut expected;
            for key in &path {
                if !place.is_object() {
                    *place = Value::Object(Default::default());
                }
                place = place.as_object_mut().expect("made above").entry(*key).or_insert(Value::Null);
            }
            *place = "new".into();
            prop_assert_eq!(&edited, &expected);

            let removed: Value = serde_json::from_str(&remove(&text, &path).expect("an object")).expect("JSON");
            let mut expected = value;
            let (last, above) = path.split_last().expect("not empty");
            let parent = above.iter().try_fold(&mut expected, |place, key| place.get_mut(*key));
            if let Some(Value::Object(parent)) = parent {
                parent.remove(*last);
            }
            prop_assert_eq!(&removed, &expected);
        }
    }
}
