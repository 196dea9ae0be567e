//! The templates that definitions may use: the built-in ones, and those that clients registered, each in its versions.
//!
//! They are everyone's to use; who registered one may replace it.

use std::collections::BTreeMap;

use parking_lot::RwLock;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value, json};

use crate::clock;
use crate::mcp::CallError;
use crate::mcp::auth::Identity;
use crate::protocol::workflow::template::Template;
use crate::protocol::workflow::version;
use crate::protocol::workflow::{Fault, Templates, builtin};
use crate::random;
use crate::store::{Keys, Store, StoreError, Table};

/// By name and version; each value is a [`Registered`] as JSON.
const TEMPLATES: Table = Table("workflow_templates");

/// Templates that clients registered, each version counted; of all and of one user.
pub(super) const TEMPLATES_MAX: usize = 500;
pub(super) const TEMPLATES_PER_USER_MAX: usize = 100;
/// Bytes of one user's, and of all together: they are all in memory.
pub(super) const TEMPLATES_PER_USER_BYTES_MAX: usize = 1 << 20;
pub(super) const TEMPLATES_BYTES_MAX: usize = 16 << 20;
/// Bytes of one list; templates beyond them are left out.
pub(super) const LIST_BYTES_MAX: usize = 200_000;
/// When the built-in templates are said to have been made.
const BUILTIN_CREATED_AT: &str = "2025-07-18T00:00:00.000000Z";

/// One version of a template.
#[derive(Clone, Debug, Serialize, Deserialize)]
struct Registered {
    template_id: String,
    /// Whose it is; none of those built in.
    owner: Option<String>,
    created_at: String,
    template: Template,
}

impl Registered {
    fn shown(&self) -> Value {
        let template = &self.template;
        json!({
            "id": self.template_id, "name": template.name, "version": template.version,
            "description": template.description, "category": template.category, "parameters": template.parameters,
            "examples": template.examples, "created_at": self.created_at,
        })
    }
}

/// All templates of a node, by name and version.
pub(super) struct Registry {
    all: RwLock<BTreeMap<String, BTreeMap<String, Registered>>>,
    /// Held while one is registered, so that what was looked at is still so when it is stored.
    registering: tokio::sync::Mutex<()>,
}

impl Default for Registry {
    fn default() -> Self {
        let mut all = BTreeMap::new();
        for template in builtin::templates() {
            let registered = Registered {
                template_id: builtin::id(&template.name),
                owner: None,
                created_at: BUILTIN_CREATED_AT.to_owned(),
                template,
            };
            insert(&mut all, registered);
        }
        Registry { all: RwLock::new(all), registering: tokio::sync::Mutex::default() }
    }
}

fn insert(all: &mut BTreeMap<String, BTreeMap<String, Registered>>, registered: Registered) {
    let (name, version) = (registered.template.name.clone(), registered.template.version.clone());
    all.entry(name).or_default().insert(version, registered);
}

/// Why there is no such template.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum NotFound {
    Template,
    Version,
}

impl NotFound {
    /// As the deployment's clients know it.
    pub(super) fn code(self) -> &'static str {
        match self {
            NotFound::Template => "template_not_found",
            NotFound::Version => "version_not_found",
        }
    }
}

impl Registry {
    /// Reads what was registered before.
    ///
    /// # Errors
    /// [`StoreError`].
    pub(super) async fn load(&self, store: &Store) -> Result<(), StoreError> {
        let stored = store.range(TEMPLATES, Keys::beginning_with([]), usize::MAX).await?;
        let mut all = self.all.write();
        for (_, value) in stored {
            match serde_json::from_slice(&value) {
                Ok(registered) => insert(&mut all, registered),
                Err(error) => tracing::error!(%error, "a template is stored in a form that this version does not read"),
            }
        }
        Ok(())
    }

    /// Registers a template, or replaces its own version.
    ///
    /// # Errors
    /// Another's, too many, or [`StoreError`].
    pub(super) async fn register(
        &self,
        store: &Store,
        user: &Identity,
        template: Template,
    ) -> Result<Value, CallError> {
        let _registering = self.registering.lock().await;
        let (name, version) = (template.name.clone(), template.version.clone());
        let bytes = json_bytes(&template);
        let template_id = {
            let all = self.all.read();
            let versions = all.get(&name);
            let before = versions.and_then(|versions| versions.get(&version));
            let owners = versions.into_iter().flat_map(BTreeMap::values).map(|each| each.owner.as_deref());
            if owners.into_iter().any(|owner| owner != Some(&*user.user)) {
                return Err(CallError::failed(format!(
                    "the template {name:?} is another's, expected one of your own or a new name"
                )));
            }
            let own = |each: &&Registered| each.owner.as_deref() == Some(&*user.user);
            let registered = || all.values().flat_map(BTreeMap::values).filter(|each| each.owner.is_some());
            let replaced = before.map_or(0, |before| json_bytes(&before.template));
            let together = registered().map(|each| json_bytes(&each.template)).sum::<usize>() - replaced + bytes;
            let of_user =
                registered().filter(own).map(|each| json_bytes(&each.template)).sum::<usize>() - replaced + bytes;
            let is_new = before.is_none();
            if is_new
                && (registered().count() >= TEMPLATES_MAX || registered().filter(own).count() >= TEMPLATES_PER_USER_MAX)
                || together > TEMPLATES_BYTES_MAX
                || of_user > TEMPLATES_PER_USER_BYTES_MAX
            {
                return Err(CallError::failed(format!(
                    "expected at most {TEMPLATES_MAX} templates of {TEMPLATES_BYTES_MAX} bytes together, and {TEMPLATES_PER_USER_MAX} of {TEMPLATES_PER_USER_BYTES_MAX} bytes of one user, came more"
                )));
            }
            before.map_or_else(new_id, |before| before.template_id.clone())
        };
        let registered = Registered {
            template_id: template_id.clone(),
            owner: Some(user.user.to_string()),
            created_at: clock::wall_iso8601_micros(),
            template,
        };
        let value = serde_json::to_vec(&registered).expect("a template has string keys");
        let key = format!("{name}\0{version}").into_bytes();
        store.change(move |change| change.put(TEMPLATES, key, value)).await?;
        insert(&mut self.all.write(), registered);
        Ok(json!({"template_id": template_id, "name": name, "version": version, "status": "registered"}))
    }

    /// The newest version of each template, in the order of their names, as the deployment's clients list them; and how many
    /// there are.
    pub(super) fn list(&self, category: Option<&str>, name: Option<&str>, limit: usize) -> (Vec<Value>, usize) {
        let all = self.all.read();
        let of_each = all.values().flat_map(|versions| match name {
            // Of one name all versions.
            Some(_) => versions.values().collect::<Vec<_>>(),
            None => newest(versions).into_iter().collect(),
        });
        let fits = |each: &&Registered| {
            category.is_none_or(|category| each.template.category == category)
                && name.is_none_or(|name| each.template.name == name)
        };
        let (mut shown, mut bytes, mut total) = (Vec::new(), 0, 0);
        for each in of_each.filter(fits) {
            total += 1;
            let one = each.shown();
            bytes += crate::protocol::workflow::measure::json_bytes(&one);
            if shown.len() < limit && bytes <= LIST_BYTES_MAX {
                shown.push(one);
            }
        }
        (shown, total)
    }

    /// One template, with its definition.
    ///
    /// # Errors
    /// There is none of that name, or version.
    pub(super) fn get(&self, name: &str, version: Option<&str>) -> Result<Value, NotFound> {
        self.with(name, version, |registered| {
            let mut shown = registered.shown();
            shown["definition"] = registered.template.definition.clone();
            shown["metadata"] = registered.template.metadata.clone();
            shown
        })
    }

    fn with<T>(&self, name: &str, version: Option<&str>, see: impl FnOnce(&Registered) -> T) -> Result<T, NotFound> {
        let all = self.all.read();
        let versions = all.get(name).ok_or(NotFound::Template)?;
        let found = match version.filter(|version| *version != version::LATEST) {
            Some(version) => versions.get(version),
            None => newest(versions),
        };
        found.map(see).ok_or(NotFound::Version)
    }
}

impl Templates for Registry {
    fn instantiate(&self, name: &str, version: Option<&str>, params: &Map<String, Value>) -> Result<Value, Vec<Fault>> {
        let made = self.with(name, version, |registered| registered.template.instantiate(params));
        let missing = |not_found| match (not_found, version) {
            (NotFound::Version, Some(version)) => format!("Template not found: {name} in version {version}"),
            _ => format!("Template not found: {name}"),
        };
        made.unwrap_or_else(|not_found| Err(vec![Fault::new("/template", missing(not_found))]))
    }
}

fn newest(versions: &BTreeMap<String, Registered>) -> Option<&Registered> {
    version::newest(versions.keys().map(String::as_str)).and_then(|version| versions.get(version))
}

fn json_bytes(template: &Template) -> usize {
    serde_json::to_value(template).map_or(0, |value| crate::protocol::workflow::measure::json_bytes(&value))
}

fn new_id() -> String {
    format!("{}{:016x}", builtin::BUILTIN_ID_PREFIX, u64::from_be_bytes(random::bytes()))
}
