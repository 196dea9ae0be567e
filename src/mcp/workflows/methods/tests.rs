//! What is served here is what the policy knows.

use super::*;
use crate::protocol::policy::{Needed, methods, needed};

#[test]
fn every_method_needs_the_capability_of_its_name() {
    for method in METHODS {
        assert_eq!(methods::known(method), Some(method));
        let Needed::Capability(wanted) = needed(method) else { panic!("{method} needs nothing") };
        assert_eq!(wanted, method.replace('/', ":"));
    }
}

#[test]
fn every_method_of_workflows_and_contexts_that_the_policy_knows_is_served() {
    let known = methods::METHODS.iter().map(|(name, _)| *name);
    let mut ours: Vec<_> =
        known.filter(|name| name.starts_with("workflows/") || name.starts_with("contexts/")).collect();
    let mut served = METHODS.to_vec();
    ours.sort_unstable();
    served.sort_unstable();

    assert_eq!(ours, served);
}
