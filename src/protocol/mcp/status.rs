//! What dashboards of the Elixir deployment see of runs: categories they subscribe to, and the updates in them. Pure.
//!
//! Source: the contract of that deployment, sections 3.4 and 14.3, and its status channel.

use std::collections::{BTreeSet, VecDeque};

use serde::Serialize;
use serde_json::value::RawValue;
use serde_json::{Number, Value, json};

use crate::protocol::Time;
use crate::protocol::jsonrpc::Object;
use crate::protocol::mcp::event::RunStatus;

/// Topic on which a dashboard chooses what to hear of.
pub const STATUS_TOPIC: &str = "status:system";
/// Topic that begins with [`Category::Tool`], named as the deployment names where the updates of tools go.
pub const STATUS_TOOL_TOPIC: &str = "status:system:tool";
/// Event of an [`Update`].
pub const STATUS_UPDATE: &str = "status_update";
/// Event that adds categories.
pub const SUBSCRIBE_CATEGORIES: &str = "subscribe_categories";
/// Event that takes categories away.
pub const UNSUBSCRIBE_CATEGORIES: &str = "unsubscribe_categories";
/// Event that asks which categories are subscribed.
pub const GET_SUBSCRIPTIONS: &str = "get_subscriptions";
/// Event that asks which categories there are.
pub const GET_AVAILABLE_CATEGORIES: &str = "get_available_categories";

/// The conversation that all runs belong to.
pub const CONVERSATION_ID: &str = "system";
/// Categories that one request names at most. From the deployment.
pub const CATEGORIES_MAX: usize = 10;
/// Changes of its subscriptions that a channel may ask for within [`CHANGES_WINDOW_MS`]. From the deployment.
pub const CHANGES_MAX: usize = 30;
/// The window of [`CHANGES_MAX`], in milliseconds.
pub const CHANGES_WINDOW_MS: u64 = 60_000;
/// Milliseconds between two updates on the progress of one run: enough for a person to follow.
pub const STATUS_PROGRESS_INTERVAL_MS: u64 = 1_000;
/// Runs whose progress one channel tells; of further ones it tells begin and end.
pub const STATUS_RUNS_MAX: usize = 100;

/// Characters of an unknown category that are repeated.
const INVALID_CHARS_MAX: usize = 64;

/// What an update is about.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Category {
    /// Engines. Nothing of this server's is in it.
    Engine,
    /// Begin and end of runs.
    Tool,
    /// Workflows.
    Workflow,
    /// How far runs are.
    Progress,
    /// Runs that failed.
    Error,
    /// Information.
    Info,
    /// Plans.
    Planning,
}

impl Category {
    /// All, in the order in which they are listed.
    pub const ALL: [Category; 7] = [
        Category::Engine,
        Category::Tool,
        Category::Workflow,
        Category::Progress,
        Category::Error,
        Category::Info,
        Category::Planning,
    ];

    /// Its name on the wire.
    pub fn name(self) -> &'static str {
        match self {
            Category::Engine => "engine",
            Category::Tool => "tool",
            Category::Workflow => "workflow",
            Category::Progress => "progress",
            Category::Error => "error",
            Category::Info => "info",
            Category::Planning => "planning",
        }
    }

    fn description(self) -> &'static str {
        match self {
            Category::Engine => "Engines at work",
            Category::Tool => "Begin and end of tool runs",
            Category::Workflow => "Begin and end of workflow runs",
            Category::Progress => "How far tool runs are",
            Category::Error => "Tool runs that failed",
            Category::Info => "Information",
            Category::Planning => "Plans and decisions",
        }
    }

    fn named(name: &str) -> Option<Self> {
        Category::ALL.into_iter().find(|category| category.name() == name)
    }
}

/// Which way a change goes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Change {
    /// Adds categories.
    Subscribe,
    /// Takes categories away.
    Unsubscribe,
}

/// Why a change is refused; [`Refused::response`] is the reply.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Refused {
    /// More changes than may be.
    TooOften,
    /// More categories than may be.
    TooMany {
        /// Those subscribed.
        current: usize,
    },
    /// `categories` is no list.
    NoList,
    /// Some are unknown: these.
    Unknown(Vec<String>),
}

impl Refused {
    /// The reply's response.
    pub fn response(&self) -> Value {
        match self {
            Refused::TooOften => json!({
                "reason": "rate_limit_exceeded",
                "message": format!("At most {CHANGES_MAX} changes of subscriptions in {} s", CHANGES_WINDOW_MS / 1_000),
            }),
            Refused::TooMany { current } => json!({
                "reason": "too_many_categories",
                "message": format!("Maximum {CATEGORIES_MAX} categories allowed"),
                "current_count": current,
            }),
            Refused::NoList => json!({
                "reason": "invalid_categories", "invalid": "categories must be a list", "valid": Category::ALL,
            }),
            Refused::Unknown(invalid) => json!({
                "reason": "invalid_categories", "invalid": invalid, "valid": Category::ALL,
            }),
        }
    }
}

/// What one channel is subscribed to.
#[derive(Clone, Debug, Default)]
pub struct Subscriptions {
    categories: BTreeSet<Category>,
    /// When changes were asked for, within the window.
    changes: VecDeque<Time>,
}

impl Subscriptions {
    /// Those of a channel that has just been joined on `topic`.
    pub fn on(topic: &str) -> Self {
        let first = (topic == STATUS_TOOL_TOPIC).then_some(Category::Tool);
        Subscriptions { categories: first.into_iter().collect(), changes: VecDeque::new() }
    }

    /// Whether updates in that category are wanted.
    pub fn has(&self, category: Category) -> bool {
        self.categories.contains(&category)
    }

    /// Whether anything is wanted that runs bring.
    pub fn wants_runs(&self) -> bool {
        [Category::Tool, Category::Workflow, Category::Progress, Category::Error]
            .into_iter()
            .any(|category| self.has(category))
    }

    /// Makes the change that a payload asks for with its `categories`. What is refused changes nothing but the count of
    /// changes, so that floods of refused ones end too.
    ///
    /// # Errors
    /// [`Refused`].
    pub fn change(&mut self, change: Change, payload: &[u8], now: Time) -> Result<(), Refused> {
        while self.changes.front().is_some_and(|first| now.since(*first) >= CHANGES_WINDOW_MS) {
            self.changes.pop_front();
        }
        if self.changes.len() >= CHANGES_MAX {
            return Err(Refused::TooOften);
        }
        self.changes.push_back(now);
        let payload = Object::parse(payload);
        let named = payload.and_then(|payload| payload.get::<Vec<&RawValue>>("categories")).ok_or(Refused::NoList)?;
        if named.len() > CATEGORIES_MAX {
            return Err(Refused::TooMany { current: self.categories.len() });
        }
        let (mut known, mut unknown) = (Vec::new(), Vec::new());
        for name in named {
            let name = serde_json::from_str(name.get()).unwrap_or_else(|_| name.get().to_owned());
            match Category::named(&name) {
                Some(category) => known.push(category),
                None => unknown.push(name.chars().take(INVALID_CHARS_MAX).collect()),
            }
        }
        if !unknown.is_empty() {
            return Err(Refused::Unknown(unknown));
        }
        match change {
            Change::Subscribe => self.categories.extend(known),
            Change::Unsubscribe => self.categories.retain(|category| !known.contains(category)),
        }
        Ok(())
    }

    /// The reply to a join.
    pub fn joined(&self) -> Value {
        json!({
            "conversation_id": CONVERSATION_ID,
            "available_categories": Category::ALL,
            "subscribed_categories": self.categories,
        })
    }

    /// The reply to a change.
    pub fn changed(&self) -> Value {
        json!({"subscribed": self.categories})
    }

    /// The reply to [`GET_SUBSCRIPTIONS`].
    pub fn listed(&self) -> Value {
        json!({"subscribed_categories": self.categories, "available_categories": Category::ALL})
    }
}

/// The reply to [`GET_AVAILABLE_CATEGORIES`].
pub fn available() -> Value {
    let descriptions: serde_json::Map<_, _> =
        Category::ALL.into_iter().map(|category| (category.name().to_owned(), category.description().into())).collect();
    json!({"available_categories": Category::ALL, "descriptions": descriptions})
}

/// The payload of a `status_update`.
#[derive(Clone, Debug, Serialize)]
pub struct Update<'a> {
    /// What it is about.
    pub category: Category,
    /// For a person to read.
    pub text: &'a str,
    /// For a program.
    pub metadata: Metadata<'a>,
    /// Wall time, ISO 8601 with six fractional digits and `Z`.
    pub timestamp: &'a str,
}

/// Which run an update is about, and how it stands: nothing that only the run's caller may see.
#[derive(Clone, Debug, Serialize)]
pub struct Metadata<'a> {
    /// The run's id.
    pub run_id: &'a str,
    /// The tool's name.
    pub tool: &'a str,
    /// Running, completed or failed.
    pub status: RunStatus,
    /// How far, in the unit of `total`; in updates on progress.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub progress: Option<&'a Number>,
    /// Where it ends, if known.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub total: Option<&'a Number>,
}

/// The text of an update on progress.
pub fn progress_text(tool: &str, progress: &Number, total: Option<&Number>, message: Option<&str>) -> String {
    match (message, total) {
        (Some(message), _) => format!("{tool}: {message}"),
        (None, Some(total)) => format!("{tool}: {progress} of {total}"),
        (None, None) => format!("{tool}: {progress}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn change(subscriptions: &mut Subscriptions, change: Change, categories: &Value, now: u64) -> Result<Value, Value> {
        let payload = json!({"categories": categories}).to_string();
        let changed = subscriptions.change(change, payload.as_bytes(), Time(now));
        changed.map(|()| subscriptions.changed()["subscribed"].clone()).map_err(|refused| refused.response())
    }

    #[test]
    fn the_topic_of_tools_begins_with_them_and_the_other_with_nothing() {
        let joined = |topic| Subscriptions::on(topic).joined();

        let available = json!(["engine", "tool", "workflow", "progress", "error", "info", "planning"]);
        let expected = |subscribed: Value| {
            json!({
                "conversation_id": "system", "available_categories": available, "subscribed_categories": subscribed
            })
        };
        assert_eq!(joined(STATUS_TOPIC), expected(json!([])));
        assert_eq!(joined(STATUS_TOOL_TOPIC), expected(json!(["tool"])));
    }

    #[test]
    fn categories_come_and_go() {
        let mut subscriptions = Subscriptions::default();
        let mut go = |way, categories: Value| change(&mut subscriptions, way, &categories, 0);

        assert_eq!(go(Change::Subscribe, json!(["tool", "engine", "tool"])), Ok(json!(["engine", "tool"])));
        assert_eq!(go(Change::Subscribe, json!([])), Ok(json!(["engine", "tool"])));
        assert_eq!(go(Change::Unsubscribe, json!(["tool", "info"])), Ok(json!(["engine"])));
        assert!(!subscriptions.wants_runs());
    }

    #[test]
    fn what_does_not_fit_is_refused_and_changes_nothing() {
        let mut subscriptions = Subscriptions::on(STATUS_TOOL_TOPIC);
        let mut refused =
            |categories: Value| change(&mut subscriptions, Change::Subscribe, &categories, 0).expect_err("refused");

        let unknown = refused(json!(["tool", "x".repeat(100), 7]));
        assert_eq!(unknown["reason"], "invalid_categories");
        assert_eq!(unknown["invalid"], json!(["x".repeat(64), "7"]));
        assert_eq!(unknown["valid"], json!(Category::ALL));
        for none in [json!(null), json!("tool"), json!({})] {
            assert_eq!(refused(none)["invalid"], "categories must be a list");
        }
        let many = refused(json!(vec!["tool"; CATEGORIES_MAX + 1]));
        assert_eq!((&many["reason"], &many["current_count"]), (&json!("too_many_categories"), &json!(1)));
        assert_eq!(subscriptions.changed(), json!({"subscribed": ["tool"]}));
    }

    #[test]
    fn thirty_changes_fit_into_a_minute() {
        let mut subscriptions = Subscriptions::default();
        let mut go = |now: u64| change(&mut subscriptions, Change::Subscribe, &json!(["tool"]), now).is_ok();

        assert!((0..30).all(|n| go(n * 1_000)));
        assert!(!go(59_999));
        assert!(go(60_000), "the first is a minute old");
        assert!(!go(60_001));
        assert!(go(61_000));
    }

    #[test]
    fn updates_say_what_a_person_and_a_program_want_to_know() {
        let (three, ten) = (Number::from(3), Number::from(10));
        let metadata =
            Metadata { run_id: "r", tool: "t", status: RunStatus::Running, progress: Some(&three), total: None };
        let update = Update { category: Category::Progress, text: "t: 3", metadata, timestamp: "T" };

        assert_eq!(
            json!(update),
            json!({
                "category": "progress", "text": "t: 3", "timestamp": "T",
                "metadata": {"run_id": "r", "tool": "t", "status": "running", "progress": 3}
            })
        );
        assert_eq!(progress_text("t", &three, None, None), "t: 3");
        assert_eq!(progress_text("t", &three, Some(&ten), None), "t: 3 of 10");
        assert_eq!(progress_text("t", &three, Some(&ten), Some("soon")), "t: soon");
    }
}
