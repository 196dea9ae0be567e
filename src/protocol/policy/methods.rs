//! Which capability each method needs.
//!
//! A method `x/y` needs `x:y`. Those of the conversation itself need nothing; neither do those that nobody serves, so
//! that they are answered as methods that are not there (T7). A method without a row is one of these: whoever serves
//! a new one gives it a row.
//!
//! Source: the contract of the Elixir deployment, section 6.4, whose rule covers ten methods (4.6).

use self::Needed::{Capability, Nothing};
use crate::protocol::mcp;

/// What a method needs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Needed {
    /// Nothing: who is in the conversation may.
    Nothing,
    /// A capability.
    Capability(&'static str),
}

/// Every method with what it needs, in the order of their names.
pub const METHODS: [(&str, Needed); 59] = [
    (mcp::COMPLETE, Nothing),
    ("contexts/create", Capability("contexts:create")),
    ("contexts/delete", Capability("contexts:delete")),
    ("contexts/extend", Capability("contexts:extend")),
    ("contexts/get", Capability("contexts:get")),
    ("contexts/list", Capability("contexts:list")),
    ("contexts/merge", Capability("contexts:merge")),
    ("contexts/update", Capability("contexts:update")),
    ("contexts/versions", Capability("contexts:versions")),
    // From the server to the client, as `roots/list` and most notifications: the other way nobody serves them.
    (mcp::ELICIT, Nothing),
    (mcp::INITIALIZE, Nothing),
    (mcp::SET_LEVEL, Nothing),
    (mcp::CANCELLED, Nothing),
    (mcp::INITIALIZED, Nothing),
    (mcp::LOG_MESSAGE, Nothing),
    (mcp::PROGRESS, Nothing),
    (mcp::PROMPTS_CHANGED, Nothing),
    (mcp::RESOURCES_CHANGED, Nothing),
    (mcp::RESOURCE_UPDATED, Nothing),
    (mcp::ROOTS_CHANGED, Nothing),
    (mcp::SUBSCRIPTIONS_ACKNOWLEDGED, Nothing),
    (mcp::TASKS_CHANGED, Nothing),
    (mcp::TOOLS_CHANGED, Nothing),
    (mcp::PING, Nothing),
    (mcp::PROMPTS_GET, Capability("prompts:get")),
    (mcp::PROMPTS_LIST, Capability("prompts:list")),
    (mcp::RESOURCES_LIST, Capability("resources:list")),
    (mcp::RESOURCES_READ, Capability("resources:read")),
    (mcp::RESOURCES_SUBSCRIBE, Capability("resources:subscribe")),
    (mcp::RESOURCE_TEMPLATES_LIST, Capability("resources:list")),
    (mcp::RESOURCES_UNSUBSCRIBE, Capability("resources:subscribe")),
    (mcp::ROOTS_LIST, Nothing),
    (mcp::CREATE_MESSAGE, Capability("sampling:createMessage")),
    (mcp::DISCOVER, Nothing),
    // It tells that lists have changed; a resource that it names is let through as one to subscribe to.
    (mcp::SUBSCRIPTIONS_LISTEN, Nothing),
    // Tasks are those of the caller.
    (mcp::TASKS_CANCEL, Nothing),
    (mcp::TASKS_GET, Nothing),
    ("tasks/list", Nothing),
    ("tasks/result", Nothing),
    (mcp::TASKS_UPDATE, Nothing),
    (mcp::TOOLS_CALL, Capability("tools:call")),
    (mcp::TOOLS_LIST, Capability("tools:list")),
    ("workflows/cancel", Capability("workflows:cancel")),
    ("workflows/create", Capability("workflows:create")),
    ("workflows/create_from_template", Capability("workflows:create_from_template")),
    ("workflows/delete", Capability("workflows:delete")),
    ("workflows/emit", Capability("workflows:emit")),
    ("workflows/execute", Capability("workflows:execute")),
    ("workflows/get", Capability("workflows:get")),
    ("workflows/get_template", Capability("workflows:get_template")),
    ("workflows/list", Capability("workflows:list")),
    ("workflows/multi_tool", Capability("workflows:multi_tool")),
    ("workflows/register_template", Capability("workflows:register_template")),
    ("workflows/register_trigger", Capability("workflows:register_trigger")),
    ("workflows/remove_trigger", Capability("workflows:remove_trigger")),
    ("workflows/run", Capability("workflows:run")),
    ("workflows/runs", Capability("workflows:runs")),
    ("workflows/templates", Capability("workflows:templates")),
    ("workflows/triggers", Capability("workflows:triggers")),
];

/// What a method needs.
pub fn needed(method: &str) -> Needed {
    row(method).map_or(Nothing, |(_, needed)| *needed)
}

/// The method's name where it has a row, so that a client's text need not be kept.
pub fn known(method: &str) -> Option<&'static str> {
    row(method).map(|(name, _)| *name)
}

fn row(method: &str) -> Option<&'static (&'static str, Needed)> {
    METHODS.binary_search_by(|(name, _)| (*name).cmp(method)).ok().map(|at| &METHODS[at])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rows_are_in_order_so_that_they_are_found() {
        assert!(METHODS.is_sorted_by(|a, b| a.0 < b.0), "{METHODS:?}");
        for (name, expected) in METHODS {
            assert_eq!((needed(name), known(name)), (expected, Some(name)));
        }
    }

    #[test]
    fn every_method_that_the_protocol_names_has_a_row() {
        let constants = include_str!("../mcp/mod.rs").lines().filter_map(|line| line.strip_prefix("pub const "));
        let texts = constants.filter_map(|constant| constant.split('"').nth(1));
        let methods: Vec<_> =
            texts.filter(|text| text.contains('/') || ["initialize", "ping"].contains(text)).collect();

        assert!(methods.len() > 25, "{methods:?}");
        for method in methods {
            assert!(known(method).is_some(), "{method}");
        }
    }

    #[test]
    fn a_capability_is_the_methods_name_with_a_colon() {
        let others = ["resources/templates/list", "resources/unsubscribe"];
        for (name, needed) in METHODS.into_iter().filter(|(name, _)| !others.contains(name)) {
            if let Capability(wanted) = needed {
                assert_eq!(wanted, name.replace('/', ":"));
            }
        }
        assert_eq!(needed("resources/templates/list"), Capability("resources:list"));
        assert_eq!(needed("resources/unsubscribe"), Capability("resources:subscribe"));
    }

    #[test]
    fn the_conversation_itself_needs_nothing() {
        let free: Vec<_> = METHODS.iter().filter(|(_, needed)| *needed == Nothing).map(|(name, _)| *name).collect();

        let expected = [
            "completion/complete",
            "elicitation/create",
            "initialize",
            "logging/setLevel",
            "notifications/cancelled",
            "notifications/initialized",
            "notifications/message",
            "notifications/progress",
            "notifications/prompts/list_changed",
            "notifications/resources/list_changed",
            "notifications/resources/updated",
            "notifications/roots/list_changed",
            "notifications/subscriptions/acknowledged",
            "notifications/tasks",
            "notifications/tools/list_changed",
            "ping",
            "roots/list",
            "server/discover",
            "subscriptions/listen",
            "tasks/cancel",
            "tasks/get",
            "tasks/list",
            "tasks/result",
            "tasks/update",
        ];
        assert_eq!(free, expected);
    }

    #[test]
    fn a_method_that_nobody_serves_needs_nothing() {
        // T7.
        for method in ["", "tools", "tools/", "tools/Call", "tools/calls", "nothing/here", "\u{0}"] {
            assert_eq!((needed(method), known(method)), (Nothing, None), "{method}");
        }
    }

    #[test]
    fn every_request_of_the_deployment_has_its_capability() {
        // Section 4.6.
        for (method, wanted) in [
            ("tools/list", "tools:list"),
            ("tools/call", "tools:call"),
            ("resources/list", "resources:list"),
            ("resources/read", "resources:read"),
            ("prompts/list", "prompts:list"),
            ("prompts/get", "prompts:get"),
            ("workflows/create", "workflows:create"),
            ("workflows/execute", "workflows:execute"),
            ("workflows/templates", "workflows:templates"),
            ("sampling/createMessage", "sampling:createMessage"),
        ] {
            assert_eq!(needed(method), Capability(wanted));
        }
    }
}
