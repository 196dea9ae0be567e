//! Shared contexts: data that several workflows and their users read and change, each change a version.
//!
//! A record with operations, no store: who keeps it, its older versions and the time is the caller's. An operation that is
//! refused changes nothing. None checks who asks; [`SharedContext::may_read`] and [`SharedContext::may_write`] say that.
//!
//! Source: the contract of the Elixir deployment, section 10.4. Unlike there, the access policy is checked.

use std::fmt;

use serde::{Deserialize, Deserializer, Serialize, Serializer};
use serde_json::{Map, Value};

use crate::protocol::workflow::measure::{is_deeper, json_bytes};

/// Bytes of a context's data at most, as JSON text.
pub const DATA_BYTES_MAX: usize = 262_144;
/// Bytes of a context's metadata at most, as JSON text.
pub const METADATA_BYTES_MAX: usize = 16_384;
/// Deepest nesting of arrays and objects in data and in metadata.
pub const DATA_DEPTH_MAX: usize = 64;
/// Subjects of an access policy at most, those that read and those that write together.
pub const POLICY_SUBJECTS_MAX: usize = 100;
/// Bytes of the name in a subject at most.
pub const SUBJECT_NAME_BYTES_MAX: usize = 256;
/// Older versions of a context that its keeper has at most; the oldest goes.
pub const OLDER_VERSIONS_MAX: usize = 10;
/// Longest time that a context can be given from now on, in seconds: ten years.
pub const EXPIRES_IN_S_MAX: u64 = 315_360_000;

/// Whom a policy lets in. On the wire `user:ID`, `role:NAME` or `*`.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Subject {
    /// The user of that id.
    User(String),
    /// All users who have that role.
    Role(String),
    /// Everybody.
    Anybody,
}

/// A text is no subject.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("expected user:ID, role:NAME or *, with 1 to {SUBJECT_NAME_BYTES_MAX} bytes of ID or NAME")]
pub struct NoSubject;

impl Subject {
    /// Reads a subject.
    ///
    /// # Errors
    /// [`NoSubject`].
    pub fn parse(text: &str) -> Result<Self, NoSubject> {
        let named = |name: &str| (1..=SUBJECT_NAME_BYTES_MAX).contains(&name.len()).then(|| name.to_owned());
        let subject = match text.split_once(':') {
            Some(("user", id)) => named(id).map(Subject::User),
            Some(("role", name)) => named(name).map(Subject::Role),
            _ => (text == "*").then_some(Subject::Anybody),
        };
        subject.ok_or(NoSubject)
    }

    fn has(&self, user: &str, roles: &[&str]) -> bool {
        match self {
            Subject::User(id) => id == user,
            Subject::Role(name) => roles.contains(&name.as_str()),
            Subject::Anybody => true,
        }
    }
}

impl fmt::Display for Subject {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Subject::User(id) => write!(f, "user:{id}"),
            Subject::Role(name) => write!(f, "role:{name}"),
            Subject::Anybody => f.write_str("*"),
        }
    }
}

impl Serialize for Subject {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for Subject {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = String::deserialize(deserializer)?;
        Subject::parse(&text).map_err(serde::de::Error::custom)
    }
}

/// Who may read a context and who may change it, beside its owner. An empty one is the owner's alone.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct AccessPolicy {
    /// Who may read.
    pub read: Vec<Subject>,
    /// Who may change, and read.
    pub write: Vec<Subject>,
}

/// Why an operation on a context is refused. The first word of its text is its code on the wire.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ContextError {
    /// There is none of that id, or none that the caller may know of.
    #[error("not_found")]
    NotFound,
    /// Its time is over.
    #[error("context_expired")]
    Expired,
    /// The caller may not do that.
    #[error("access_denied")]
    AccessDenied,
    /// A change was made for another version than there is.
    #[error("version_conflict: expected version {expected}, came {came}")]
    VersionConflict {
        /// The version that the context has.
        expected: u64,
        /// The version that the change was made for.
        came: u64,
    },
    /// Data, metadata, policy or time are out of bounds.
    #[error("invalid_context: {0}")]
    Invalid(#[from] Invalid),
}

impl ContextError {
    /// Its code on the wire: what of its text stands before the colon.
    pub fn code(&self) -> &'static str {
        match self {
            ContextError::NotFound => "not_found",
            ContextError::Expired => "context_expired",
            ContextError::AccessDenied => "access_denied",
            ContextError::VersionConflict { .. } => "version_conflict",
            ContextError::Invalid(_) => "invalid_context",
        }
    }
}

/// What is out of bounds.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Invalid {
    /// It is no object.
    #[error("{what} is no object")]
    NoObject {
        /// `data` or `metadata`.
        what: &'static str,
    },
    /// It is above its bytes.
    #[error("{what} is {bytes} bytes, the limit is {max}")]
    TooLarge {
        /// `data` or `metadata`.
        what: &'static str,
        /// Its size as JSON text.
        bytes: usize,
        /// Its limit.
        max: usize,
    },
    /// It is above [`DATA_DEPTH_MAX`].
    #[error("{what} is nested deeper than {DATA_DEPTH_MAX}")]
    TooDeep {
        /// `data` or `metadata`.
        what: &'static str,
    },
    /// A policy is above [`POLICY_SUBJECTS_MAX`].
    #[error("access policy has {0} subjects, the limit is {POLICY_SUBJECTS_MAX}")]
    Subjects(usize),
    /// A time is none, or above [`EXPIRES_IN_S_MAX`].
    #[error("expected 1 to {EXPIRES_IN_S_MAX} seconds, came {0}")]
    Seconds(u64),
}

/// What a context is made of.
#[derive(Clone, Debug, PartialEq)]
pub struct NewContext {
    /// Its id, drawn by the caller: `context_` and 24 hexadecimal digits.
    pub context_id: String,
    /// The user to whom it belongs.
    pub owner: String,
    /// An object.
    pub data: Value,
    /// Its time, in seconds, 1 to [`EXPIRES_IN_S_MAX`]; none for one without end.
    pub expires_in_s: Option<u64>,
    /// Who else may do what.
    pub access_policy: AccessPolicy,
    /// An object, or null for an empty one.
    pub metadata: Value,
}

/// A context: its newest version, and whose it is. Written and read as JSON for a store; times are of the wall clock.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct SharedContext {
    /// Its id.
    pub context_id: String,
    /// The user to whom it belongs.
    pub owner: String,
    /// An object, within [`DATA_BYTES_MAX`] and [`DATA_DEPTH_MAX`].
    pub data: Value,
    /// 1 at first, and one more with each change of the data.
    pub version: u64,
    /// When it was made, in milliseconds since 1970.
    pub created_at_ms: u64,
    /// When it changed last, in milliseconds since 1970.
    pub updated_at_ms: u64,
    /// From when on it is gone, in milliseconds since 1970; never, if there is none.
    pub expires_at_ms: Option<u64>,
    /// Who else may do what.
    pub access_policy: AccessPolicy,
    /// An object of whatever its owner wants, within [`METADATA_BYTES_MAX`].
    pub metadata: Value,
}

impl SharedContext {
    /// Makes the first version.
    ///
    /// # Errors
    /// [`ContextError::Invalid`].
    pub fn create(new: NewContext, now_ms: u64) -> Result<Self, ContextError> {
        let metadata = if new.metadata.is_null() { Value::Object(Map::new()) } else { new.metadata };
        check("data", &new.data, DATA_BYTES_MAX)?;
        check("metadata", &metadata, METADATA_BYTES_MAX)?;
        let subjects = new.access_policy.read.len() + new.access_policy.write.len();
        if subjects > POLICY_SUBJECTS_MAX {
            return Err(Invalid::Subjects(subjects).into());
        }
        let lifetime_ms = new.expires_in_s.map(lifetime_ms).transpose()?;
        Ok(SharedContext {
            context_id: new.context_id,
            owner: new.owner,
            data: new.data,
            version: 1,
            created_at_ms: now_ms,
            updated_at_ms: now_ms,
            expires_at_ms: lifetime_ms.map(|lifetime_ms| now_ms.saturating_add(lifetime_ms)),
            access_policy: new.access_policy,
            metadata,
        })
    }

    /// Replaces the data. `if_version` is the version that has to be there, if the caller cares.
    ///
    /// # Errors
    /// [`ContextError::Expired`], [`ContextError::VersionConflict`], [`ContextError::Invalid`].
    pub fn update(&mut self, data: Value, if_version: Option<u64>, now_ms: u64) -> Result<(), ContextError> {
        self.check_current(if_version, now_ms)?;
        check("data", &data, DATA_BYTES_MAX)?;
        self.replace(data, now_ms);
        Ok(())
    }

    /// Merges an object into the data, as [`merged`] does. It is a change even if it changes nothing.
    ///
    /// # Errors
    /// As of [`SharedContext::update`]; the bounds are those of the patch, and of what comes out.
    pub fn merge(&mut self, patch: &Value, if_version: Option<u64>, now_ms: u64) -> Result<(), ContextError> {
        self.check_current(if_version, now_ms)?;
        check("data", patch, DATA_BYTES_MAX)?;
        let data = merged(self.data.clone(), patch);
        check("data", &data, DATA_BYTES_MAX)?;
        self.replace(data, now_ms);
        Ok(())
    }

    /// Lets the context live that many seconds longer. One without end stays so. The data's version stays.
    ///
    /// # Errors
    /// [`ContextError::Expired`], since it may be gone already; [`ContextError::Invalid`] for no seconds, or for so many
    /// that it would live longer than [`EXPIRES_IN_S_MAX`] from now.
    pub fn extend(&mut self, seconds: u64, now_ms: u64) -> Result<(), ContextError> {
        self.check_current(None, now_ms)?;
        let longer_ms = lifetime_ms(seconds)?;
        let Some(expires_at_ms) = self.expires_at_ms else { return Ok(()) };
        let extended_ms = expires_at_ms.saturating_add(longer_ms);
        if extended_ms > now_ms.saturating_add(EXPIRES_IN_S_MAX * 1_000) {
            return Err(Invalid::Seconds(seconds).into());
        }
        self.expires_at_ms = Some(extended_ms);
        self.updated_at_ms = self.updated_at_ms.max(now_ms);
        Ok(())
    }

    /// Whether its time is over.
    pub fn is_expired(&self, now_ms: u64) -> bool {
        self.expires_at_ms.is_some_and(|expires_at_ms| expires_at_ms <= now_ms)
    }

    /// Whether a user with these roles may read it: its owner, and whom the policy lets read or write.
    pub fn may_read(&self, user: &str, roles: &[&str]) -> bool {
        self.may_write(user, roles) || self.access_policy.read.iter().any(|subject| subject.has(user, roles))
    }

    /// Whether a user with these roles may change it: its owner, and whom the policy lets write.
    pub fn may_write(&self, user: &str, roles: &[&str]) -> bool {
        user == self.owner || self.access_policy.write.iter().any(|subject| subject.has(user, roles))
    }

    fn check_current(&self, if_version: Option<u64>, now_ms: u64) -> Result<(), ContextError> {
        if self.is_expired(now_ms) {
            return Err(ContextError::Expired);
        }
        match if_version {
            Some(came) if came != self.version => Err(ContextError::VersionConflict { expected: self.version, came }),
            _ => Ok(()),
        }
    }

    fn replace(&mut self, data: Value, now_ms: u64) {
        self.data = data;
        self.version = self.version.saturating_add(1);
        // The wall clock may have been set back.
        self.updated_at_ms = self.updated_at_ms.max(now_ms);
    }
}

fn lifetime_ms(seconds: u64) -> Result<u64, Invalid> {
    match seconds {
        1..=EXPIRES_IN_S_MAX => Ok(seconds * 1_000),
        _ => Err(Invalid::Seconds(seconds)),
    }
}

fn check(what: &'static str, value: &Value, bytes_max: usize) -> Result<(), Invalid> {
    if !value.is_object() {
        return Err(Invalid::NoObject { what });
    }
    if is_deeper(value, DATA_DEPTH_MAX) {
        return Err(Invalid::TooDeep { what });
    }
    match json_bytes(value) {
        bytes if bytes > bytes_max => Err(Invalid::TooLarge { what, bytes, max: bytes_max }),
        _ => Ok(()),
    }
}

/// `base` with `patch` merged in: where both are objects, field by field; all else of the patch replaces, null too.
pub fn merged(base: Value, patch: &Value) -> Value {
    match (base, patch) {
        (Value::Object(mut fields), Value::Object(patch)) => {
            for (key, patch) in patch {
                let field = match fields.remove(key) {
                    Some(field) => merged(field, patch),
                    None => patch.clone(),
                };
                fields.insert(key.clone(), field);
            }
            Value::Object(fields)
        }
        (_, patch) => patch.clone(),
    }
}

/// Which contexts a list shows. The default shows all.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Filter {
    /// Those of this owner.
    pub owner: Option<String>,
    /// Those made later than this, in milliseconds since 1970.
    pub created_after_ms: Option<u64>,
    /// Those made earlier than this, in milliseconds since 1970.
    pub created_before_ms: Option<u64>,
    /// Those of this version.
    pub version: Option<u64>,
    /// Those with metadata, or those without.
    pub has_metadata: Option<bool>,
    /// So many at most.
    pub limit: Option<usize>,
}

impl Filter {
    /// Whether a context is one of them, `limit` apart.
    pub fn matches(&self, context: &SharedContext) -> bool {
        let has_metadata = context.metadata.as_object().is_some_and(|metadata| !metadata.is_empty());
        self.owner.as_ref().is_none_or(|owner| *owner == context.owner)
            && self.created_after_ms.is_none_or(|after_ms| context.created_at_ms > after_ms)
            && self.created_before_ms.is_none_or(|before_ms| context.created_at_ms < before_ms)
            && self.version.is_none_or(|version| version == context.version)
            && self.has_metadata.is_none_or(|wanted| wanted == has_metadata)
    }

    /// The first of them, in the order given, `limit` at most.
    pub fn select<'a>(
        &self,
        contexts: impl IntoIterator<Item = &'a SharedContext>,
    ) -> impl Iterator<Item = &'a SharedContext> {
        contexts.into_iter().filter(|context| self.matches(context)).take(self.limit.unwrap_or(usize::MAX))
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use serde_json::json;

    use super::*;

    const NOW_MS: u64 = 1_700_000_000_000;

    fn new(data: Value) -> NewContext {
        NewContext {
            context_id: "context_1".to_owned(),
            owner: "ann".to_owned(),
            data,
            expires_in_s: None,
            access_policy: AccessPolicy::default(),
            metadata: Value::Null,
        }
    }

    fn context(data: Value) -> SharedContext {
        SharedContext::create(new(data), NOW_MS).expect("within bounds")
    }

    fn policy(policy: Value) -> AccessPolicy {
        serde_json::from_value(policy).expect("a policy")
    }

    fn text(refused: Result<impl fmt::Debug, ContextError>) -> String {
        let error = refused.expect_err("refused");
        assert!(error.to_string().starts_with(error.code()), "{error}");
        error.to_string()
    }

    #[test]
    fn each_change_is_a_version() {
        let mut context = context(json!({"a": {"b": 1, "c": 2}}));
        assert_eq!((context.version, context.updated_at_ms), (1, NOW_MS));

        context.merge(&json!({"a": {"c": null, "d": [1]}, "e": 5}), None, NOW_MS + 1).expect("merged");
        assert_eq!(context.data, json!({"a": {"b": 1, "c": null, "d": [1]}, "e": 5}));
        assert_eq!((context.version, context.updated_at_ms), (2, NOW_MS + 1));

        context.update(json!({"z": 1}), Some(2), NOW_MS).expect("updated");
        assert_eq!(context.data, json!({"z": 1}));
        assert_eq!((context.version, context.created_at_ms, context.updated_at_ms), (3, NOW_MS, NOW_MS + 1));
    }

    #[test]
    fn a_change_for_another_version_is_refused() {
        let mut context = context(json!({"a": 1}));
        let before = context.clone();

        let refused = context.update(json!({}), Some(4), NOW_MS);

        assert_eq!(text(refused), "version_conflict: expected version 1, came 4");
        assert!(context.merge(&json!({}), Some(0), NOW_MS).is_err());
        assert_eq!(context, before);
    }

    #[test]
    fn an_expired_context_takes_nothing() {
        let expires_in_s = Some(10);
        let mut context = SharedContext::create(NewContext { expires_in_s, ..new(json!({})) }, NOW_MS).expect("bounds");

        assert!(!context.is_expired(NOW_MS + 9_999) && context.is_expired(NOW_MS + 10_000));
        assert_eq!(text(context.update(json!({}), None, NOW_MS + 10_000)), "context_expired");
        assert_eq!(text(context.merge(&json!({}), Some(9), NOW_MS + 10_000)), "context_expired");
        assert_eq!(text(context.extend(1, NOW_MS + 10_000)), "context_expired");
    }

    #[test]
    fn a_context_lives_longer_but_not_for_ever() {
        let expires_in_s = Some(10);
        let mut context = SharedContext::create(NewContext { expires_in_s, ..new(json!({})) }, NOW_MS).expect("bounds");

        context.extend(5, NOW_MS + 9_000).expect("extended");
        assert_eq!((context.expires_at_ms, context.version), (Some(NOW_MS + 15_000), 1));
        let refused = "invalid_context: expected 1 to 315360000 seconds, came ";
        for seconds in [0, EXPIRES_IN_S_MAX, EXPIRES_IN_S_MAX + 1, u64::MAX] {
            assert_eq!(text(context.extend(seconds, NOW_MS)), format!("{refused}{seconds}"));
        }
        let mut endless = super::tests::context(json!({}));
        endless.extend(5, NOW_MS).expect("extended");
        assert_eq!(endless.expires_at_ms, None);
        let expires_in_s = Some(0);
        assert!(SharedContext::create(NewContext { expires_in_s, ..new(json!({})) }, NOW_MS).is_err());
    }

    #[test]
    fn without_a_policy_it_is_the_owners_alone() {
        let context = context(json!({}));

        assert!(context.may_read("ann", &[]) && context.may_write("ann", &[]));
        assert!(!context.may_read("bob", &["admin"]) && !context.may_write("bob", &["admin"]));
    }

    #[test]
    fn a_policy_lets_users_roles_or_everybody_in_and_who_writes_also_reads() {
        let access_policy = policy(json!({"read": ["user:bob", "role:guest"], "write": ["role:editor"]}));
        let context = SharedContext::create(NewContext { access_policy, ..new(json!({})) }, NOW_MS).expect("bounds");
        let may = |user: &str, roles: &[&str]| (context.may_read(user, roles), context.may_write(user, roles));

        assert_eq!(may("ann", &[]), (true, true));
        assert_eq!(may("bob", &[]), (true, false));
        assert_eq!(may("eve", &["guest"]), (true, false));
        assert_eq!(may("eve", &["a", "editor"]), (true, true));
        assert_eq!(may("eve", &["bob", "user:bob"]), (false, false));
        let access_policy = policy(json!({"write": ["*"]}));
        let open = SharedContext { access_policy, ..context.clone() };
        assert!(open.may_read("eve", &[]) && open.may_write("eve", &[]));
    }

    #[test]
    fn subjects_are_read_as_they_are_written() {
        for text in ["user:a", "user:a:b", "role:x y", "*"] {
            assert_eq!(Subject::parse(text).expect("a subject").to_string(), text);
        }
        for text in ["", "user:", "role:", "a", "group:a", "User:a", "**", " *"] {
            assert_eq!(Subject::parse(text), Err(NoSubject), "{text}");
        }
        assert_eq!(Subject::parse(&format!("user:{}", "x".repeat(257))), Err(NoSubject));
        let refused = serde_json::from_value::<AccessPolicy>(json!({"read": ["bob"]})).expect_err("no subject");
        assert!(refused.to_string().starts_with("expected user:ID, role:NAME or *"));
        assert!(serde_json::from_value::<AccessPolicy>(json!({"reads": []})).is_err());
    }

    #[test]
    fn what_is_out_of_bounds_is_refused() {
        let create = |new: NewContext| text(SharedContext::create(new, NOW_MS));
        let nest = |levels: usize| (0..levels).fold(json!(1), |inner, _| json!({"a": inner}));
        let large = json!({"a": "x".repeat(DATA_BYTES_MAX)});

        assert_eq!(create(new(json!([]))), "invalid_context: data is no object");
        assert_eq!(create(new(large.clone())), "invalid_context: data is 262152 bytes, the limit is 262144");
        assert_eq!(create(new(nest(65))), "invalid_context: data is nested deeper than 64");
        assert!(SharedContext::create(new(nest(64)), NOW_MS).is_ok());
        let metadata = json!({"a": "x".repeat(METADATA_BYTES_MAX)});
        assert!(create(NewContext { metadata, ..new(json!({})) }).contains("metadata is 16392 bytes"));
        let subject = vec![Subject::Anybody; 51];
        let access_policy = AccessPolicy { read: subject.clone(), write: subject };
        let refused = create(NewContext { access_policy, ..new(json!({})) });
        assert_eq!(refused, "invalid_context: access policy has 102 subjects, the limit is 100");
        let mut context = context(json!({}));
        for refused in
            [context.update(json!(1), None, 0), context.update(large.clone(), None, 0), context.merge(&large, None, 0)]
        {
            assert!(text(refused).starts_with("invalid_context: data is"));
        }
        assert_eq!((context.version, context.data), (1, json!({})));
    }

    #[test]
    fn two_that_fit_may_be_too_large_merged() {
        let half = "x".repeat(DATA_BYTES_MAX / 2);
        let mut context = context(json!({"a": half}));
        let before = context.clone();

        assert!(text(context.merge(&json!({"b": half}), None, NOW_MS)).contains("the limit is 262144"));
        assert_eq!(context, before);
    }

    #[test]
    fn a_list_is_filtered() {
        let mut contexts: Vec<_> = (0..4).map(|n| SharedContext { created_at_ms: n, ..context(json!({})) }).collect();
        contexts[1].owner = "bob".to_owned();
        contexts[2].version = 7;
        contexts[3].metadata = json!({"a": 1});
        let shown = |filter: Filter| filter.select(&contexts).map(|context| context.created_at_ms).collect::<Vec<_>>();
        let all = Filter::default;

        assert_eq!(shown(all()), [0, 1, 2, 3]);
        assert_eq!(shown(Filter { owner: Some("bob".to_owned()), ..all() }), [1]);
        assert_eq!(shown(Filter { created_after_ms: Some(0), created_before_ms: Some(3), ..all() }), [1, 2]);
        assert_eq!(shown(Filter { version: Some(7), ..all() }), [2]);
        assert_eq!(shown(Filter { has_metadata: Some(true), ..all() }), [3]);
        assert_eq!(shown(Filter { has_metadata: Some(false), limit: Some(2), ..all() }), [0, 1]);
    }

    #[test]
    fn a_context_is_read_as_it_was_written() {
        let access_policy = policy(json!({"read": ["*"], "write": ["user:bob"]}));
        let new = NewContext { access_policy, expires_in_s: Some(1), ..new(json!({"a": [1]})) };
        let context = SharedContext::create(new, NOW_MS).expect("within bounds");

        let text = serde_json::to_string(&context).expect("JSON");

        assert_eq!(serde_json::from_str::<SharedContext>(&text).expect("a context"), context);
    }

    fn value() -> impl Strategy<Value = Value> {
        let leaf =
            prop_oneof![Just(Value::Null), any::<u8>().prop_map(Value::from), "[a-c]{0,2}".prop_map(Value::from)];
        leaf.prop_recursive(3, 16, 3, |inner| {
            prop_oneof![
                prop::collection::vec(inner.clone(), 0..3).prop_map(Value::from),
                prop::collection::btree_map("[a-c]", inner, 0..3).prop_map(|fields| fields.into_iter().collect()),
            ]
        })
    }

    fn object() -> impl Strategy<Value = Value> {
        prop::collection::btree_map("[a-c]", value(), 0..4).prop_map(|fields| fields.into_iter().collect())
    }

    proptest! {
        #[test]
        fn merging_nothing_changes_nothing_and_merging_twice_is_merging_once(a in object(), b in object()) {
            prop_assert_eq!(&merged(a.clone(), &json!({})), &a);
            prop_assert_eq!(&merged(json!({}), &a), &a);
            prop_assert_eq!(&merged(a.clone(), &a), &a);
            let once = merged(a, &b);
            prop_assert_eq!(&merged(once.clone(), &b), &once);
        }

        #[test]
        fn fields_of_both_are_there_and_only_objects_are_joined(a in object(), b in object()) {
            let merged = merged(a.clone(), &b);

            for (key, field) in merged.as_object().expect("an object") {
                match (&a[key], &b[key]) {
                    (Value::Object(_), Value::Object(_)) => prop_assert!(field.is_object()),
                    (of_base, _) if b.get(key).is_none() => prop_assert_eq!(field, of_base),
                    (_, of_patch) => prop_assert_eq!(field, of_patch),
                }
            }
            for key in [&a, &b].into_iter().flat_map(|value| value.as_object().expect("an object").keys()) {
                prop_assert!(merged.get(key).is_some());
            }
        }

        #[test]
        fn each_change_counts_one_and_a_refused_one_none(
            changes in prop::collection::vec((any::<bool>(), object(), 0..4_u64), 0..8),
        ) {
            let mut context = context(json!({}));

            for (is_merge, data, if_version) in changes {
                let before = context.clone();
                let if_version = (if_version > 0).then_some(if_version);
                let changed = match is_merge {
                    true => context.merge(&data, if_version, NOW_MS),
                    false => context.update(data, if_version, NOW_MS),
                };
                prop_assert_eq!(changed.is_ok(), if_version.is_none_or(|version| version == before.version));
                prop_assert_eq!(context.version, before.version + u64::from(changed.is_ok()));
                prop_assert!(changed.is_ok() || context == before);
            }
        }
    }
}
