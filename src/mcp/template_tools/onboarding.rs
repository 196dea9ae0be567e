//! What `user_onboarding` runs on: a user's type is validated; who is valid is welcomed and notified, others are
//! rejected.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use super::{About, Effect, described, judging};
use crate::clock;
use crate::mcp::auth::Identity;
use crate::mcp::newest::{Newest, NewestOf};
use crate::mcp::{CallContext, CallError, Tool};
use crate::store::{Store, Table, Transaction};

/// Notifications of one user; the newest are kept.
const NOTIFICATIONS_MAX: usize = 100;
/// Bytes of all notifications of one user, as they are stored; the newest are kept.
const NOTIFICATIONS_BYTES_MAX: usize = 65_536;
/// Characters of a notification's message, and of the name that is welcomed.
const MESSAGE_CHARS_MAX: u32 = 1_000;
/// Characters of the names of types, templates, events and reasons.
const WORD_CHARS_MAX: u32 = 100;

/// Each entry is a [`Notification`].
const NOTIFICATIONS: Newest =
    Newest { table: Table("mcp_notifications"), entries_max: NOTIFICATIONS_MAX, bytes_max: NOTIFICATIONS_BYTES_MAX };

const CATEGORY: &str = "user_management";

/// A type of user: its name, whether it pays, and days after which it ends.
struct UserType(&'static str, bool, Option<u32>);

const USER_TYPES: [UserType; 5] = [
    UserType("free", false, None),
    UserType("trial", false, Some(14)),
    UserType("standard", true, None),
    UserType("premium", true, None),
    UserType("enterprise", true, None),
];

/// A welcome: its name, its subject, its text. `{name}` and `{user_type}` stand for what they say.
struct Template(&'static str, &'static str, &'static str);

const TEMPLATES: [Template; 4] = [
    Template(
        "standard",
        "Welcome, {name}",
        "Hello {name},\n\nyour {user_type} account is ready. Each tool says what it takes.\n\nWelcome aboard.",
    ),
    Template(
        "premium",
        "Welcome, {name}: your {user_type} account",
        "Dear {name},\n\nthank you for choosing {user_type}. Your account is ready, with all tools of this server.\n\n\
         We are glad to have you.",
    ),
    Template(
        "trial",
        "Welcome, {name}: your trial has begun",
        "Hello {name},\n\nyour {user_type} account is open for 14 days; nothing has to be cancelled.\n\nEnjoy it.",
    ),
    Template("brief", "Welcome, {name}", "Welcome, {name}. Your {user_type} account is ready."),
];

/// Why someone is rejected: the reason, the status that HTTP has for it, and a sentence. Source: RFC 9110, section 15.5.
struct Reason(&'static str, u16, &'static str);

const REASONS: [Reason; 5] = [
    Reason("validation_failed", 422, "what was given is not valid"),
    Reason("access_denied", 403, "this is not allowed"),
    Reason("not_found", 404, "there is no such thing"),
    Reason("duplicate", 409, "this is there already"),
    Reason("limit_reached", 429, "there are as many as there may be"),
];

/// What is said of any other reason.
const OTHER_REASON: (u16, &str) = (400, "this can't be done");

#[derive(Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
struct Validate {
    /// The type: `free`, `trial`, `standard`, `premium` or `enterprise`. Case does not matter.
    #[schemars(length(max = WORD_CHARS_MAX))]
    user_type: Option<String>,
}

#[derive(Serialize, JsonSchema)]
struct Validated {
    /// Whether there is such a type.
    valid: bool,
    /// The type as it is written here; as it came where it is not valid.
    user_type: Option<String>,
    /// Whether such users pay.
    paid: bool,
    /// Days after which such an account ends, where it does.
    trial_days: Option<u32>,
    /// Why it is not valid.
    reason: Option<String>,
}

#[derive(Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
struct Welcome {
    /// The template's name: `standard`, `premium`, `trial` or `brief`.
    #[schemars(length(max = WORD_CHARS_MAX))]
    template: String,
    /// Who is welcomed; by default the user who calls.
    #[schemars(length(min = 1, max = MESSAGE_CHARS_MAX))]
    name: Option<String>,
    /// What user_validator gave, which says of which type the user is.
    condition_result: Option<Value>,
}

#[derive(Serialize, JsonSchema)]
struct Welcomed {
    /// The template's name.
    template: String,
    /// Of which type the user is.
    user_type: String,
    /// One line.
    subject: String,
    /// The whole.
    text: String,
}

#[derive(Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
struct Notify {
    /// What happened, in a word.
    #[schemars(length(min = 1, max = WORD_CHARS_MAX))]
    event: String,
    /// What the user is told; by default the `subject` or the `message` of `input`.
    #[schemars(length(max = MESSAGE_CHARS_MAX))]
    message: Option<String>,
    /// What the step before gave.
    input: Option<Value>,
}

/// A notification, as it is stored and as data_fetcher gives it.
#[derive(Serialize, Deserialize)]
struct Notification {
    id: String,
    event: String,
    message: Option<String>,
    recorded_at: String,
}

#[derive(Serialize, JsonSchema)]
struct Notified {
    /// A UUID.
    id: String,
    /// What happened.
    event: String,
    /// What the user is told.
    message: Option<String>,
    /// How many notifications this user has.
    count: usize,
    /// ISO 8601.
    recorded_at: String,
}

#[derive(Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
struct Reject {
    /// Why: `validation_failed`, `access_denied`, `not_found`, `duplicate`, `limit_reached`, or a reason of one's own.
    #[schemars(length(min = 1, max = WORD_CHARS_MAX))]
    reason: String,
    /// What the condition gave; null where it failed.
    condition_result: Option<Value>,
}

#[derive(Serialize, JsonSchema)]
struct Rejected {
    /// `rejected`.
    status: &'static str,
    /// Why.
    reason: String,
    /// The status that HTTP has for it.
    code: u16,
    /// The reason as a sentence.
    message: String,
    /// Of which type the user is, where the condition said so.
    user_type: Option<String>,
}

pub(super) fn tools(store: &Store) -> [Tool; 4] {
    let store = store.clone();
    let welcome = Tool::structured("welcome_service", |wanted: Welcome, context: CallContext| async move {
        welcome(wanted, &context.user().user)
    });
    let notify = Tool::structured("notification_service", move |wanted: Notify, context: CallContext| {
        let store = store.clone();
        async move {
            let notifications = NOTIFICATIONS.of(context.user());
            store.change(move |change| notify(change, &notifications, wanted)).await
        }
    });
    let reject = Tool::structured("rejection_service", |wanted: Reject, _| async move { Ok(reject(wanted)) });
    [
        described(
            judging("user_validator", validate),
            About {
                description: "Says whether there is such a type of users, and what it is. Fails where there is none.",
                category: CATEGORY,
                effect: Effect::Computes,
                examples: json!([{"user_type": "premium"}]),
            },
        ),
        described(
            welcome,
            About {
                description: "Writes a welcome after one of the templates standard, premium, trial and brief.",
                category: CATEGORY,
                effect: Effect::Computes,
                examples: json!([{"template": "premium", "name": "Ann", "condition_result": {"user_type": "premium"}}]),
            },
        ),
        described(
            notify,
            About {
                description: "Records a notification for this user. data_fetcher gives the newest, from notifications.",
                category: CATEGORY,
                effect: Effect::Adds,
                examples: json!([{"event": "user_welcomed", "message": "Welcome, Ann"}]),
            },
        ),
        described(
            reject,
            About {
                description: "Says why something is rejected, with a code.",
                category: CATEGORY,
                effect: Effect::Computes,
                examples: json!([{"reason": "validation_failed"}]),
            },
        ),
    ]
}

/// The notifications of a user, the oldest first.
pub(super) async fn notifications(store: &Store, user: &Identity) -> Result<Vec<Value>, CallError> {
    NOTIFICATIONS.of(user).read(store).await
}

fn validate(wanted: Validate) -> (Validated, Option<String>) {
    let came = wanted.user_type.map(|came| came.trim().to_ascii_lowercase());
    let found = USER_TYPES.iter().find(|UserType(name, ..)| came.as_deref() == Some(name));
    if let Some(&UserType(name, paid, trial_days)) = found {
        let user_type = Some(name.to_owned());
        return (Validated { valid: true, user_type, paid, trial_days, reason: None }, None);
    }
    let known = USER_TYPES.map(|UserType(name, ..)| name).join(", ");
    let shown = came.as_ref().map_or("null".to_owned(), |came| format!("{came:?}"));
    let reason = format!("user_type: expected one of {known}, came {shown}");
    (
        Validated { valid: false, user_type: came, paid: false, trial_days: None, reason: Some(reason.clone()) },
        Some(reason),
    )
}

fn welcome(wanted: Welcome, user: &str) -> Result<Welcomed, CallError> {
    let Some(Template(name, subject, text)) = TEMPLATES.iter().find(|Template(name, ..)| *name == wanted.template)
    else {
        let known = TEMPLATES.map(|Template(name, ..)| name).join(", ");
        return Err(CallError::failed(format!("template: expected one of {known}, came {:?}", wanted.template)));
    };
    let who = wanted.name.as_deref().unwrap_or(user);
    let user_type = wanted.condition_result.as_ref().and_then(user_type).unwrap_or("new");
    Ok(Welcomed {
        template: (*name).to_owned(),
        user_type: user_type.to_owned(),
        subject: filled(subject, who, user_type),
        text: filled(text, who, user_type),
    })
}

/// Fills a template in; what is put in is not looked at again.
fn filled(template: &str, name: &str, user_type: &str) -> String {
    let parts = template.split('{').enumerate().map(|(index, part)| match part.split_once('}') {
        Some(("name", rest)) if index > 0 => ["", name, rest],
        Some(("user_type", rest)) if index > 0 => ["", user_type, rest],
        _ => [if index > 0 { "{" } else { "" }, part, ""],
    });
    parts.flatten().collect()
}

/// The type that a verdict of [`validate`] names.
fn user_type(verdict: &Value) -> Option<&str> {
    verdict["user_type"].as_str().filter(|name| name.chars().count() <= WORD_CHARS_MAX as usize)
}

fn notify(change: &mut Transaction<'_>, notifications: &NewestOf, wanted: Notify) -> Result<Notified, CallError> {
    let told = |input: Value| {
        let message = ["subject", "message"].into_iter().find_map(|key| input[key].as_str())?;
        Some(message.chars().take(MESSAGE_CHARS_MAX as usize).collect())
    };
    let message = wanted.message.or_else(|| wanted.input.and_then(told));
    let recorded_at = clock::wall_iso8601_micros();
    let Notification { id, event, message, recorded_at } =
        notifications.add(change, |id| Notification { id, event: wanted.event, message, recorded_at })?;
    let count = notifications.read_in::<Notification>(change)?.len();
    Ok(Notified { id, event, message, count, recorded_at })
}

fn reject(wanted: Reject) -> Rejected {
    let known = REASONS.iter().find(|Reason(name, ..)| *name == wanted.reason);
    let (code, sentence) = known.map_or(OTHER_REASON, |Reason(_, code, sentence)| (*code, *sentence));
    Rejected {
        status: "rejected",
        reason: wanted.reason,
        code,
        message: sentence.to_owned(),
        user_type: wanted.condition_result.as_ref().and_then(user_type).map(str::to_owned),
    }
}

#[cfg(test)]
mod tests {
    use super::super::testing::{Tools, refused};
    use super::*;

    #[tokio::test]
    async fn a_known_type_is_valid_and_welcomed_and_notified() {
        let tools = Tools::new();

        let verdict = tools.call("user_validator", json!({"user_type": " Premium"})).await;
        let welcome = json!({"template": "premium", "condition_result": verdict});
        let welcomed = tools.call("welcome_service", welcome).await;
        let notified = tools.call("notification_service", json!({"event": "user_welcomed", "input": welcomed})).await;

        let expected = json!({"valid": true, "user_type": "premium", "paid": true, "trial_days": null, "reason": null});
        assert_eq!(verdict, expected);
        // The context's user is `u`.
        assert_eq!(welcomed["subject"], "Welcome, u: your premium account");
        assert!(welcomed["text"].as_str().expect("a text").starts_with("Dear u,\n\nthank you for choosing premium. "));
        assert_eq!((&notified["event"], &notified["message"]), (&json!("user_welcomed"), &welcomed["subject"]));
        assert_eq!(notified["count"], 1);
        let fetched = tools.call("data_fetcher", json!({"source": "notifications"})).await;
        assert_eq!((&fetched["count"], &fetched["rows"][0]["id"]), (&json!(1), &notified["id"]));
    }

    #[tokio::test]
    async fn an_unknown_type_fails_with_the_verdict_all_the_same() {
        let tools = Tools::new();
        let types = "user_type: expected one of free, trial, standard, premium, enterprise, came";

        for (arguments, came) in [
            (json!({"user_type": "gold"}), "\"gold\""),
            (json!({"user_type": null}), "null"),
            (json!({}), "null"),
            (json!({"user_type": ""}), "\"\""),
        ] {
            let refusal = tools.try_call("user_validator", arguments).await;
            assert_eq!(refusal, refused(&format!("{types} {came}")));
        }
        let (verdict, _) = validate(Validate { user_type: Some("Gold".to_owned()) });
        assert_eq!((verdict.valid, verdict.user_type.as_deref()), (false, Some("gold")));
    }

    #[tokio::test]
    async fn an_unknown_template_is_told_with_those_that_are() {
        let refusal = Tools::new().try_call("welcome_service", json!({"template": "x"})).await;

        assert_eq!(refusal, refused("template: expected one of standard, premium, trial, brief, came \"x\""));
    }

    #[test]
    fn what_is_put_into_a_template_is_not_looked_at_again() {
        assert_eq!(filled("{name}: {user_type} {other} {", "{user_type}", "t"), "{user_type}: t {other} {");
        for Template(name, subject, text) in TEMPLATES {
            let whole = filled(subject, "Ann", "free") + &filled(text, "Ann", "free");
            assert!(whole.contains("Ann") && !whole.contains(['{', '}']), "{name}: {whole}");
        }
    }

    #[tokio::test]
    async fn a_rejection_has_a_code() {
        let tools = Tools::new();
        let reject = async |arguments| tools.call("rejection_service", arguments).await;

        let rejected = reject(json!({"reason": "validation_failed", "condition_result": {"user_type": "gold"}})).await;
        let other = reject(json!({"reason": "out of stock", "condition_result": null})).await;

        let message = "what was given is not valid";
        let (reason, user_type) = ("validation_failed", "gold");
        let expected = json!({
            "status": "rejected", "reason": reason, "code": 422, "message": message, "user_type": user_type,
        });
        assert_eq!(rejected, expected);
        assert_eq!((&other["code"], &other["user_type"]), (&json!(400), &Value::Null));
    }

    #[tokio::test]
    async fn a_users_newest_notifications_are_kept() {
        let tools = Tools::new();
        let mut counts = Vec::new();

        for n in 0..NOTIFICATIONS_MAX + 3 {
            let notified = tools.call("notification_service", json!({"event": n.to_string()})).await;
            counts.push(notified["count"].as_u64().expect("a count"));
        }

        assert_eq!(counts[98..], [99, 100, 100, 100, 100]);
        let fetched = tools.call("data_fetcher", json!({"source": "notifications"})).await;
        assert_eq!((&fetched["rows"][0]["event"], &fetched["rows"][99]["event"]), (&json!("3"), &json!("102")));
    }
}
