//! Versions of templates: which text is one, which of two is newer, and how a template is referred to.

use std::cmp::Ordering;

use serde_json::Value;

use crate::protocol::workflow::fault::Fault;
use crate::protocol::workflow::parameter::Kind;

/// Bytes of a version at most.
pub const VERSION_BYTES_MAX: usize = 64;
/// What stands for the newest version of a template.
pub const LATEST: &str = "latest";

/// Whether a text is a version: numbers with dots between them, then perhaps `-` and a pre-release, then perhaps `+` and a
/// build, as in `1.0.0-rc.1+7`. At most [`VERSION_BYTES_MAX`] bytes.
///
/// Source: Semantic Versioning 2.0.0, but with any count of numbers, and leading zeros allowed.
pub fn is_version(text: &str) -> bool {
    let is_number = |part: &str| !part.is_empty() && part.bytes().all(|byte| byte.is_ascii_digit());
    let is_label = |label: &str| {
        !label.is_empty() && label.bytes().all(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'.' | b'-'))
    };
    let parts = Parts::of(text);
    text.len() <= VERSION_BYTES_MAX
        && parts.numbers.split('.').all(is_number)
        && parts.pre_release.is_none_or(is_label)
        && parts.build.is_none_or(is_label)
}

/// Which of two versions is newer.
///
/// Numbers are compared as numbers, of whatever length; a missing one is 0. A pre-release is older than its release.
/// [`LATEST`] is newer than all. Any texts have an order; only equal ones are `Equal`, so that it is total.
pub fn compare(a: &str, b: &str) -> Ordering {
    let (x, y) = (Parts::of(a), Parts::of(b));
    (a == LATEST)
        .cmp(&(b == LATEST))
        .then_with(|| compare_dotted(x.numbers, y.numbers, Some("0")))
        .then_with(|| match (x.pre_release, y.pre_release) {
            (Some(x), Some(y)) => compare_dotted(x, y, None),
            (x, y) => x.is_none().cmp(&y.is_none()),
        })
        .then_with(|| a.cmp(b))
}

/// The newest of some versions; none of none.
pub fn newest<'a>(versions: impl IntoIterator<Item = &'a str>) -> Option<&'a str> {
    versions.into_iter().max_by(|a, b| compare(a, b))
}

struct Parts<'a> {
    numbers: &'a str,
    pre_release: Option<&'a str>,
    build: Option<&'a str>,
}

impl<'a> Parts<'a> {
    fn of(text: &'a str) -> Self {
        let (text, build) = text.split_once('+').map_or((text, None), |(text, build)| (text, Some(build)));
        let (numbers, pre_release) = text.split_once('-').map_or((text, None), |(text, label)| (text, Some(label)));
        Parts { numbers, pre_release, build }
    }
}

/// Compares part by part. Where one has no more parts, it goes on with `padding`, or else is the lesser.
fn compare_dotted(a: &str, b: &str, padding: Option<&str>) -> Ordering {
    let (mut a, mut b) = (a.split('.'), b.split('.'));
    loop {
        let (x, y) = match (a.next(), b.next()) {
            (None, None) => return Ordering::Equal,
            (x, y) => (x.or(padding), y.or(padding)),
        };
        let order = match (x, y) {
            (Some(x), Some(y)) => compare_part(x, y),
            (x, y) => x.is_some().cmp(&y.is_some()),
        };
        if order.is_ne() {
            return order;
        }
    }
}

/// Numbers come before words.
fn compare_part(a: &str, b: &str) -> Ordering {
    let number = |part: &str| part.bytes().all(|byte| byte.is_ascii_digit());
    match (number(a), number(b)) {
        (true, true) => {
            let (a, b) = (a.trim_start_matches('0'), b.trim_start_matches('0'));
            a.len().cmp(&b.len()).then_with(|| a.cmp(b))
        }
        (false, false) => a.cmp(b),
        (a, b) => b.cmp(&a),
    }
}

/// Which template is meant.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TemplateRef {
    /// The template's name.
    pub name: String,
    /// Its version; none is the newest.
    pub version: Option<String>,
}

impl TemplateRef {
    /// Reads `"name"` or `{"name": …, "version": …}`, whose version may be missing, null or [`LATEST`].
    ///
    /// Other fields are not looked at: in the Elixir deployment the whole record of a template refers to it.
    ///
    /// # Errors
    /// The first [`Fault`], its path from `value` on.
    pub fn parse(value: &Value) -> Result<Self, Fault> {
        let fault = |path: &str, message: String| Fault { path: path.to_owned(), message };
        let (name, version) = match value {
            Value::Object(fields) => (fields.get("name"), fields.get("version").filter(|version| !version.is_null())),
            value => (Some(value), None),
        };
        let name_path = if value.is_object() { "/name" } else { "" };
        let name = match name {
            Some(Value::String(name)) if !name.is_empty() => name.clone(),
            None | Some(Value::Null) => return Err(fault(name_path, "Missing required field: name".to_owned())),
            Some(Value::String(_)) => return Err(fault(name_path, "Name of the template is empty".to_owned())),
            Some(other) => {
                let came = Kind::came(other);
                return Err(fault(name_path, format!("Name of the template: expected string, came {came}")));
            }
        };
        let version = match version {
            None => None,
            Some(Value::String(version)) if version == LATEST => None,
            Some(Value::String(version)) if is_version(version) => Some(version.clone()),
            Some(_) => return Err(fault("/version", "Version of the template: expected one like 1.0.0".to_owned())),
        };
        Ok(TemplateRef { name, version })
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use serde_json::json;

    use super::*;

    #[test]
    fn versions_are_numbers_with_dots_and_labels() {
        for good in ["1", "1.0", "1.0.0", "10.20.30.40", "1.0.0-rc.1", "1.0.0+build-7", "1.0-x+y"] {
            assert!(is_version(good), "{good}");
        }
        for bad in ["", "latest", "v1", "1.", ".1", "1..0", "1.a", "1-", "1+", "1-ä", "1 ", "1+a+b"] {
            assert!(!is_version(bad), "{bad}");
        }
        assert!(!is_version(&"1".repeat(VERSION_BYTES_MAX + 1)));
    }

    #[test]
    fn numbers_are_compared_as_numbers_and_latest_is_the_highest() {
        let ascending = [
            "0.9",
            "1.0.0-alpha",
            "1.0.0-alpha.1",
            "1.0.0-alpha.beta",
            "1.0.0-rc.2",
            "1.0.0-rc.10",
            "1",
            "1.0.0",
            "1.0.1",
            "1.2",
            "1.10",
            "2",
            "99999999999999999999999",
            "latest",
        ];

        for (i, a) in ascending.iter().enumerate() {
            for (j, b) in ascending.iter().enumerate() {
                assert_eq!(compare(a, b), i.cmp(&j), "{a} and {b}");
            }
        }
        assert_eq!(newest(["1.2.0", "1.10.0", "1.9.9"]), Some("1.10.0"));
        assert_eq!(newest([]), None);
    }

    #[test]
    fn a_template_is_named_by_a_string_or_an_object() {
        let parse = |value: Value| TemplateRef::parse(&value);
        let named =
            |version: Option<&str>| Ok(TemplateRef { name: "a".to_owned(), version: version.map(str::to_owned) });

        assert_eq!(parse(json!("a")), named(None));
        assert_eq!(parse(json!({"name": "a"})), named(None));
        assert_eq!(parse(json!({"name": "a", "version": null})), named(None));
        assert_eq!(parse(json!({"name": "a", "version": "latest"})), named(None));
        assert_eq!(parse(json!({"name": "a", "version": "1.2.0", "definition": {}})), named(Some("1.2.0")));
    }

    #[test]
    fn what_names_no_template_is_a_fault_at_its_place() {
        let fault = |value: Value| {
            let fault = TemplateRef::parse(&value).expect_err("a fault");
            (fault.path, fault.message)
        };
        let is = |path: &str, message: &str| (path.to_owned(), message.to_owned());

        assert_eq!(fault(json!({})), is("/name", "Missing required field: name"));
        assert_eq!(fault(json!(null)), is("", "Missing required field: name"));
        assert_eq!(fault(json!("")), is("", "Name of the template is empty"));
        assert_eq!(fault(json!(["a"])), is("", "Name of the template: expected string, came array"));
        let version = "Version of the template: expected one like 1.0.0";
        assert_eq!(fault(json!({"name": "a", "version": "new"})), is("/version", version));
        assert_eq!(fault(json!({"name": "a", "version": 1})), is("/version", version));
    }

    proptest! {
        #[test]
        fn the_order_is_total(texts in prop::collection::vec("(latest|[01a.+-]{0,6})", 3)) {
            let [a, b, c] = [&texts[0], &texts[1], &texts[2]];

            prop_assert_eq!(compare(a, b), compare(b, a).reverse());
            prop_assert_eq!(compare(a, b).is_eq(), a == b);
            if compare(a, b).is_le() && compare(b, c).is_le() {
                prop_assert!(compare(a, c).is_le());
            }
        }
    }
}
