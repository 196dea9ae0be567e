//! What identities may do: the matcher against a plain model, names with rules of their own, and the table of roles.

use proptest::prelude::*;

use super::*;
use crate::protocol::fuzz::policy_matcher;
use crate::protocol::policy::roles::{DEFAULT_ROLE, DEFAULT_ROLES, ROLE_BYTES_MAX, ROLES_MAX, derived_role};

fn grants(capabilities: &[&str]) -> Grants {
    Grants::parse(capabilities).expect("capabilities")
}

fn own(capabilities: &[&str]) -> Vec<Capability> {
    capabilities.iter().map(|text| Capability::parse(text).expect("a capability")).collect()
}

#[test]
fn what_is_not_granted_is_denied() {
    assert!(!Grants::default().allows("tools:call"));
    assert!(!grants(&["!tools:list"]).allows("tools:call"));
    assert!(!grants(&["tools:list"]).allows("tools:call"));
    assert!(!grants(&["tools:*"]).allows("*"), "a star that is wanted is none");
}

#[test]
fn a_denial_beats_every_grant() {
    let grants = grants(&["*", "tools:call:api_caller", "!tools:call:api_*"]);

    assert!(grants.allows("tools:call") && grants.may_call_tool("text_search"));
    assert!(!grants.allows("tools:call:api_caller") && !grants.may_call_tool("api_caller"));
}

#[test]
fn a_tool_may_be_called_by_the_action_or_by_its_name() {
    for capability in ["tools:call", "tools:call:echo", "tools:call:e*", "tools:*", "*"] {
        assert!(grants(&[capability]).may_call_tool("echo"), "{capability}");
    }
    for capability in ["tools:list", "tools:call:echo2", "tools:call:ech", "tools:call:Echo"] {
        assert!(!grants(&[capability]).may_call_tool("echo"), "{capability}");
    }
    for denial in ["!tools:call", "!tools:call:echo", "!tools:call:*", "!tools:*", "!*"] {
        assert!(!grants(&["*", "tools:call:echo", denial]).may_call_tool("echo"), "{denial}");
    }
}

#[test]
fn a_denial_says_what_is_missing_in_the_deployments_words() {
    let texts = |grants: &Grants| {
        let denied = [
            grants.permit_tool("echo"),
            grants.permit_prompt("greet"),
            grants.permit_method("workflows/create"),
            grants.permit_resource("resources/read", "workspace://project/1"),
            grants.permit_resource("resources/read", "memory://patterns/recent"),
        ];
        denied.map(|denied| denied.map_or_else(|denied| denied.to_string(), |()| String::new()))
    };

    let nothing = [
        "Missing capability: tools:call",
        "Missing capability: prompts:get",
        "Missing capability: workflows:create",
        "Missing capability: resources:read",
        "Missing capability: resources:read",
    ];
    assert_eq!(texts(&Grants::default()), nothing);
    let some = [
        "Missing capability: tools:call:echo",
        "",
        "",
        "No access to workspace resources",
        "No access to memory resources",
    ];
    assert_eq!(texts(&grants(&["tools:call", "!tools:call:echo", "prompts:*", "workflows:*", "resources:read"])), some);
    assert_eq!(texts(&grants(&["*"])), [""; 5]);
}

#[test]
fn a_long_name_is_not_repeated() {
    let name = "x".repeat(CAPABILITY_BYTES_MAX);
    let denied = grants(&["tools:call", "!tools:call:x*"]).permit_tool(&name).unwrap_err();

    assert_eq!(denied.to_string(), "Missing capability: tools:call");
}

#[test]
fn the_workspace_and_the_memory_need_their_own_capability() {
    let read = grants(&["resources:read"]);
    assert!(read.may_read_resource("file:///a") && read.may_read_resource("tool://echo/schema"));
    for uri in ["workspace://project/1", "WORKSPACE://project/1", "memory://a", " memory://a", "memory:a"] {
        assert!(!read.may_read_resource(uri), "{uri}");
        assert!(read.permit_resource("resources/subscribe", uri).is_err(), "{uri}");
        assert!(grants(&["resources:*"]).may_read_resource(uri), "{uri}");
        assert!(grants(&["resources:read", "resources:workspace", "resources:memory"]).may_read_resource(uri), "{uri}");
    }

    let one = grants(&["resources:read:workspace://project/1", "resources:workspace"]);
    assert!(one.may_read_resource("workspace://project/1") && !one.may_read_resource("workspace://project/2"));
    assert!(!grants(&["resources:*", "!resources:workspace"]).may_read_resource("workspace://project/1"));
}

#[test]
fn servers_prompts_and_topics_follow_the_same_rule() {
    let grants = grants(&[
        "servers:use:files",
        "prompts:get:greet",
        "topics:join:room:*",
        "!topics:join:room:9",
        "topics:presence",
    ]);

    assert!(grants.may_use_server("files") && !grants.may_use_server("mail"));
    assert!(grants.may_get_prompt("greet") && !grants.may_get_prompt("other"));
    assert!(grants.may_join("room:1:2") && !grants.may_join("room:9") && !grants.may_join("rooms:1"));
    assert!(grants.may_see_presence("room:1") && !grants.may_broadcast("room:1"));
}

#[test]
fn members_may_do_what_is_their_own() {
    let member = Grants::of_members();

    assert!(member.may_call_tool("echo") && member.may_use_server("files") && member.allows("workflows:emit"));
    assert!(!member.allows("runs:watch") && !member.may_join("room:1") && !member.may_broadcast("room:1"));
    assert!(!member.allows("admin:keys"));
}

#[test]
fn grants_are_read_from_their_own_texts() {
    let grants = grants(&["tools:*", "!tools:call:api_caller", "tools:*", "a:b"]);

    assert_eq!(grants.texts(), ["a:b", "tools:*", "!tools:call:api_caller"]);
    assert_eq!(Grants::parse(&grants.texts()).unwrap(), grants);
}

#[test]
fn an_identity_has_a_bounded_number_of_capabilities() {
    let texts: Vec<_> = (0..=CAPABILITIES_PER_IDENTITY_MAX).map(|n| format!("a:{n}")).collect();

    assert!(Grants::parse(&texts[1..]).is_ok());
    let error = Grants::parse(&texts).unwrap_err().to_string();
    assert_eq!(error, "expected at most 256 capabilities of one identity, came more");
    assert!(Roles::none().with("a", &texts).is_err());
    assert_eq!(Grants::parse(&["a:b", "c"]).unwrap_err(), Capability::parse("c").unwrap_err());
}

/// Which methods of the table a role may use.
fn usable(role: &str) -> Vec<&'static str> {
    let grants = Roles::default().resolve(&[role], &[], "none").expect("few capabilities");
    let guarded = methods::METHODS.iter().filter(|(_, needed)| *needed != Needed::Nothing);
    guarded.map(|(name, _)| *name).filter(|name| grants.permit_method(name).is_ok()).collect()
}

#[test]
fn every_role_has_its_methods() {
    let all: Vec<_> =
        methods::METHODS.iter().filter(|(_, needed)| *needed != Needed::Nothing).map(|(name, _)| *name).collect();
    let but =
        |left_out: &[&str]| -> Vec<&str> { all.iter().copied().filter(|name| !left_out.contains(name)).collect() };

    assert_eq!(usable("admin"), all, "every method can be granted");
    assert_eq!(usable("power_user"), all);
    assert_eq!(usable("api_user"), but(&["sampling/createMessage"]));
    let without_others = [
        "sampling/createMessage",
        "workflows/emit",
        "workflows/register_template",
        "workflows/register_trigger",
        "workflows/remove_trigger",
        "workflows/triggers",
    ];
    assert_eq!(usable("user"), but(&without_others));
    let readonly = [
        "prompts/get",
        "prompts/list",
        "resources/list",
        "resources/read",
        "resources/templates/list",
        "tools/list",
        "workflows/get_template",
        "workflows/templates",
    ];
    assert_eq!(usable("readonly"), readonly);
    assert_eq!(usable("dashboard"), [""; 0]);
}

#[test]
fn dashboards_watch_and_do_nothing_else() {
    let dashboard = Roles::default().resolve(&["dashboard"], &[], DEFAULT_ROLE).unwrap();

    assert!(dashboard.allows("runs:watch") && dashboard.may_join("agents:api") && dashboard.may_see_presence("room:1"));
    assert!(!dashboard.may_broadcast("agents:api") && !dashboard.may_use_server("files"));
}

#[test]
fn no_role_but_admin_reaches_what_operators_do() {
    for (role, _) in DEFAULT_ROLES {
        let grants = Roles::default().resolve(&[role], &[], "none").unwrap();
        assert_eq!(grants.allows("admin:keys"), role == "admin");
    }
}

#[test]
fn an_unknown_role_grants_nothing_and_whoever_has_no_known_one_has_the_default() {
    let roles = Roles::default();
    let resolve = |names: &[&str], extra: &[&str]| roles.resolve(names, &own(extra), DEFAULT_ROLE).unwrap();

    assert_eq!(resolve(&["Admin", "nobody"], &[]), resolve(&[DEFAULT_ROLE], &[]));
    assert_eq!(resolve(&[], &["!prompts:*"]), resolve(&[DEFAULT_ROLE], &["!prompts:*"]), "a denial grants nothing");
    assert_eq!(resolve(&["nobody", "dashboard"], &[]), resolve(&["dashboard"], &[]));
    assert_eq!(resolve(&["nobody"], &["tools:call:echo"]), grants(&["tools:call:echo"]), "scopes alone");
    assert_eq!(roles.resolve(&["nobody"], &[], "none").unwrap(), Grants::default());
    let both = resolve(&["dashboard", "user"], &["!tools:call:echo"]);
    assert!(both.allows("runs:watch") && both.may_call_tool("a") && !both.may_call_tool("echo"));
}

#[test]
fn a_role_follows_from_capabilities_as_in_the_deployment() {
    for (capabilities, role) in [
        (&["admin:*", "tools:*"][..], "admin"),
        (&["*"], "admin"),
        (&["admin:keys", "workflows:create"], "user"),
        (&["workflows:*"], "user"),
        (&["tools:*", "workflows:execute"], "readonly"),
        (&[], "readonly"),
    ] {
        assert_eq!(derived_role(&grants(capabilities)), role, "{capabilities:?}");
    }
}

#[test]
fn a_table_of_roles_says_what_is_wrong_with_it() {
    let error = Roles::none().with("guest", &["tools"]).unwrap_err().to_string();
    let expected = "role guest: capability: expected a form such as tools:call, tools:* or *, came \"tools\"";
    assert_eq!(error, expected);
    for name in ["", "a\n", &"x".repeat(ROLE_BYTES_MAX + 1)] {
        assert!(matches!(Roles::none().with(name, &["a:b"]), Err(RoleError::Name(_))), "{name:?}");
    }
    let many = (0..=ROLES_MAX).try_fold(Roles::none(), |roles, n| roles.with(&n.to_string(), &["a:b"]));
    assert_eq!(many, Err(RoleError::TooMany));
}

#[test]
fn a_role_can_be_replaced_and_the_table_be_listed() {
    let roles = Roles::default().with("user", &["tools:list"]).unwrap();

    let user = roles.iter().find(|(role, _)| *role == "user").unwrap();
    assert_eq!(user.1, own(&["tools:list"]));
    assert_eq!(roles.iter().count(), DEFAULT_ROLES.len());
    assert!(roles.contains("admin") && !roles.contains("root"));
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(4_096))]

    #[test]
    fn the_matcher_does_as_the_plain_model(
        texts in prop::collection::vec("!?[ab:*é ]{0,5}", 0..4),
        wanted in "[ab:*!é]{0,6}",
    ) {
        policy_matcher(format!("{}\n{wanted}", texts.join("\n")).as_bytes());
    }

    #[test]
    fn any_bytes_are_no_trouble(bytes in prop::collection::vec(any::<u8>(), 0..64)) {
        policy_matcher(&bytes);
    }

    #[test]
    fn a_denial_more_never_allows_more(
        texts in prop::collection::vec("[ab]:[ab]{0,2}[:]?[ab*]", 0..4),
        denied in "[ab]:[ab]{0,1}[*]",
        wanted in "[ab]:[ab]{0,2}(:[ab])?",
    ) {
        let Ok(before) = Grants::parse(&texts) else { return Ok(()) };
        let denial = Capability::parse(&format!("!{denied}")).unwrap();
        let all = texts.iter().map(|text| Capability::parse(text).unwrap()).chain([denial]);
        let after = Grants::new(all).unwrap();

        prop_assert!(before.allows(&wanted) || !after.allows(&wanted));
    }
}
