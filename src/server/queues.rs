//! The settings' queues.

use anyhow::Context;

use crate::config::{Mode, Settings};
use crate::mcp::deployment::Deployment;
use crate::protocol::queue::Backoff;
use crate::protocol::topic::TopicPattern;
use crate::queue::{Durability, QueueSettings, Queues, SESSION_PREFIX};

/// Opens them in the deployment's store.
pub(super) async fn open(deployment: &Deployment, settings: &Settings) -> anyhow::Result<Queues> {
    Ok(Queues::on(deployment.store().clone(), options(settings)?).await?)
}

/// Those that are topics of the socket: all but those of MCP sessions, which their channels consume themselves.
pub(super) fn topics(settings: &Settings) -> Vec<String> {
    let all = classes(settings).into_iter().flat_map(|(_, patterns)| patterns);
    all.filter(|pattern| !pattern.starts_with(SESSION_PREFIX)).cloned().collect()
}

/// Which queues there will be, on a few lines; made of the same settings as the queues themselves.
///
/// # Errors
/// A pattern can't be.
pub fn summary(settings: &Settings) -> anyhow::Result<String> {
    options(settings)?;
    let mut text = String::new();
    for (class, patterns) in classes(settings) {
        let patterns = if patterns.is_empty() { "none".to_owned() } else { patterns.join(", ") };
        text += &format!("{} queues: {patterns}\n", class.name());
    }
    if settings.server.mode == Mode::Production && settings.store.path.is_none() && !settings.queues.durable.is_empty()
    {
        text += "warning: store.path is not set: the queues of queues.durable are kept in memory alone\n";
    }
    let mut earlier: Vec<(&String, Durability)> = Vec::new();
    for (class, patterns) in classes(settings) {
        for pattern in patterns {
            let covers =
                |other: &&(&String, Durability)| TopicPattern::parse(other.0).is_ok_and(|it| it.matches(pattern));
            if let Some((other, first)) = earlier.iter().find(covers).filter(|(_, first)| *first != class) {
                let (class, first) = (class.name(), first.name());
                text += &format!(
                    "warning: {pattern} of queues.{class} is of no effect: {other} of queues.{first} has those queues\n"
                );
            }
        }
        earlier.extend(patterns.iter().map(|pattern| (pattern, class)));
    }
    Ok(text.trim_end().to_owned())
}

/// The classes in the order in which they count, each with its patterns.
fn classes(settings: &Settings) -> [(Durability, &[String]); 3] {
    let queues = &settings.queues;
    [
        (Durability::Durable, &queues.durable),
        (Durability::Memory, &queues.memory),
        (Durability::Ephemeral, &queues.ephemeral),
    ]
}

fn options(settings: &Settings) -> anyhow::Result<QueueSettings> {
    let queues = &settings.queues;
    let mut options = QueueSettings::default();
    for (class, patterns) in classes(settings) {
        for pattern in patterns {
            options = options.class(pattern, class).with_context(|| format!("queues.{}", class.name()))?;
        }
    }
    options.ttl_ms = queues.ttl_ms;
    options.retries_max = queues.retries_max;
    options.queues_max = queues.queues_max;
    options.total_bytes_max = queues.total_bytes_max;
    options.in_flight_max = queues.in_flight_max;
    let limits = &mut options.limits;
    limits.lease_ms = queues.lease_ms;
    limits.deliveries_max = queues.deliveries_max;
    limits.backoff = Backoff { base_ms: queues.backoff_base_ms, max_ms: queues.backoff_max_ms };
    limits.messages_max = queues.messages_max;
    limits.bytes_max = queues.bytes_max;
    limits.dead_letters_max = queues.dead_letters_max;
    limits.dead_letter_ttl_ms = queues.dead_letter_ttl_ms;
    limits.dedup_window_ms = queues.dedup_window_ms;
    limits.dedup_keys_max = queues.dedup_keys_max;
    Ok(options)
}
