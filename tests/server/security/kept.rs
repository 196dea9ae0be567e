//! The rights that a workflow's run goes on with after a restart are those that its user had.

use std::collections::BTreeSet;

use bennu::mcp::auth::{Identity, KeptRights, Rights};
use bennu::protocol::etf::Term;
use bennu::protocol::policy::Grants;
use proptest::prelude::*;
use serde_json::{Value, json};

use super::credentials::{MCP_SALT, map, signed, texts};
use super::house::{Program, join};
use crate::mcp::peer::Peer;

const SESSION: &str = "mcp:session";

proptest! {
    #![proptest_config(ProptestConfig::with_cases(1_000))]

    #[test]
    fn what_was_granted_and_what_was_denied_comes_back(
        capabilities in prop::collection::vec("!?([ab]:[abé]{1,2}(:[ab*])?|[ab]:\\*|\\*)", 0..8),
        roles in prop::collection::vec("[a-zé\" ]{0,8}", 0..3),
        wanted in prop::collection::vec("[ab]:[abé]{1,2}(:[ab]{1,2})?", 1..8),
    ) {
        let grants = Grants::parse(&capabilities).expect("capabilities");
        let before = Identity::new("ann", Rights { roles: roles.clone(), grants, ..Rights::default() });

        let stored = serde_json::to_vec(&KeptRights::of(&before)).expect("it is stored");
        let kept: KeptRights = serde_json::from_slice(&stored).expect("it is read");
        let after = kept.identity("ann");

        prop_assert_eq!(&after.rights().roles, &roles);
        prop_assert_eq!(&after.rights().grants, &before.rights().grants);
        let denials = |identity: &Identity| -> BTreeSet<String> {
            identity.rights().grants.texts().into_iter().filter(|text| text.starts_with('!')).collect()
        };
        prop_assert_eq!(denials(&after), denials(&before));
        for wanted in wanted {
            let [before, after] = [&before, &after].map(|one| one.rights().grants.allows(&wanted));
            prop_assert_eq!(before, after, "{}", wanted);
        }
        prop_assert_eq!(&KeptRights::of(&after), &KeptRights::of(&before));
    }

    /// Whatever stands in a store, nobody gets more by it than it says.
    #[test]
    fn what_can_not_be_read_grants_nothing(
        capabilities in prop::collection::vec(".{0,12}", 0..6),
        wanted in "[a-c]{1,3}:[a-c]{1,3}",
    ) {
        let stored = json!({"roles": [], "capabilities": capabilities});
        let kept: KeptRights = serde_json::from_value(stored).expect("texts");
        let grants = Grants::parse(&capabilities);

        let allowed = kept.identity("ann").rights().grants.allows(&wanted);

        prop_assert_eq!(allowed, grants.is_ok_and(|grants| grants.allows(&wanted)));
    }
}

#[test]
fn a_record_without_rights_grants_nothing() {
    for stored in [json!({}), json!({"roles": ["admin"]})] {
        let kept: KeptRights = serde_json::from_value(stored).expect("a record of before");
        assert_eq!(kept.identity("ann").rights().grants, Grants::default());
    }
}

fn ask(peer: &mut Peer, method: &str, params: Value) -> Value {
    let id = format!("{method} {}", peer.frames.len());
    peer.ask(SESSION, id, method, params)["result"].clone()
}

#[test]
fn a_run_that_goes_on_after_a_kill_may_do_what_its_user_might() {
    let program = Program::start("");
    let permissions = ["!tools:call:memory_remember"];
    let fields = vec![
        ("user_id", Term::binary("ann")),
        ("role", Term::binary("power_user")),
        ("permissions", texts(&permissions)),
    ];
    let token = signed(MCP_SALT, &map(fields));
    let session = |program: &Program| {
        let mut peer = program.socket("ann");
        peer.joined(SESSION, &join("token", &token));
        peer
    };
    // The first step is under way when the program is killed; the second is denied, and the third is not.
    let step = |tool: &str, params: Value| json!({"tool": tool, "params": params, "on_error": "continue"});
    let definition = json!({"type": "sequential", "timeout_ms": 600_000, "on_restart": "resume", "steps": [
        step("countdown", json!({"seconds": 1, "interval_ms": 1000})),
        step("memory_remember", json!({"content": "denied"})),
        step("countdown", json!({"seconds": 1, "interval_ms": 1000})),
    ]});
    let mut peer = session(&program);
    let begun = ask(
        &mut peer,
        "workflows/execute",
        json!({"workflowId": "w", "definition": definition, "options": {"async": true}}),
    );
    let run_id = begun["run_id"].as_str().unwrap_or_else(|| panic!("a run: {begun}")).to_owned();
    drop(peer);

    let program = Program::start_in(program.kill(), "");

    let mut peer = session(&program);
    let topic = format!("mcp:run:{run_id}");
    let (status, reply) = peer.join(&topic, &json!({"token": token}));
    assert_eq!(status, "ok", "{reply}");
    let ended = |kind: Option<&str>| kind.is_some_and(|kind| ["workflow_completed", "workflow_failed"].contains(&kind));
    let mut events = reply["events"].as_array().expect("a list").clone();
    if !ended(events.last().and_then(|event| event["type"].as_str())) {
        peer.wait(|frame| frame.topic == topic && ended(frame.kind()));
        events.extend(peer.of(&topic, "streaming_event").into_iter().map(|frame| frame.payload.clone()));
    }
    let of_kind = |kind: &str| events.iter().filter(|event| event["type"] == kind).collect::<Vec<_>>();
    let failed = of_kind("step_failed");
    assert_eq!(failed.len(), 1, "{events:?}");
    assert!(failed[0].to_string().contains("Missing capability: tools:call:memory_remember"), "{failed:?}");
    let run = ask(&mut peer, "workflows/run", json!({"runId": run_id}));
    assert_eq!(run["status"], "completed", "{run}");
}
