use proptest::prelude::*;

use super::*;

const REQUEST: RequestOrigin<'static> = RequestOrigin { scheme: "http", host: "localhost", port: 4100 };

fn check_all(policy: &OriginPolicy, cases: &[(&str, bool)]) {
    for (origin, allowed) in cases {
        assert_eq!(check(policy, Some(origin), &REQUEST), *allowed, "{origin:?} under {policy:?}");
    }
}

fn list(rules: &[&str]) -> OriginPolicy {
    OriginPolicy::List(rules.iter().map(|rule| OriginRule::parse(rule).expect("the rule has a host")).collect())
}

#[test]
fn no_header_is_allowed_everywhere() {
    for policy in [OriginPolicy::Off, OriginPolicy::Host("localhost".into()), list(&[]), OriginPolicy::Conn] {
        assert!(check(&policy, None, &REQUEST), "{policy:?}");
    }
}

#[test]
fn the_recorded_default_compares_hosts_alone() {
    check_all(
        &OriginPolicy::Host("localhost".into()),
        &[
            ("http://localhost", true),
            ("https://localhost:9999", true),
            ("http://evil.com", false),
            ("null", false),
            ("garbage", false),
            ("", false),
            ("http://LOCALHOST", false),
            ("http://127.0.0.1:4100", false),
            ("http://sub.localhost", false),
            ("//localhost", true),
            ("http://localhost.evil.com", false),
            ("http://user@localhost", true),
        ],
    );
}

#[test]
fn the_recorded_list_compares_what_a_rule_names() {
    check_all(
        &list(&["https://example.com", "//p.example.net:888", "//*.wild.example.org"]),
        &[
            ("https://example.com", true),
            ("http://example.com", false),
            ("https://example.com:444", false),
            ("https://example.com:443", true),
            ("http://p.example.net:888", true),
            ("https://p.example.net:888", true),
            ("http://p.example.net", false),
            ("http://wild.example.org", true),
            ("https://a.wild.example.org:1234", true),
            ("http://a.b.wild.example.org", true),
            ("http://xwild.example.org", false),
            ("http://localhost", false),
            ("null", false),
        ],
    );
}

#[test]
fn the_recorded_conn_policy_compares_scheme_host_and_port() {
    check_all(
        &OriginPolicy::Conn,
        &[
            ("http://localhost:4100", true),
            ("http://localhost", false),
            ("https://localhost:4100", false),
            ("http://other:4100", false),
            ("null", false),
        ],
    );
    let on_port_80 = RequestOrigin { port: 80, ..REQUEST };
    assert!(check(&OriginPolicy::Conn, Some("http://localhost"), &on_port_80));
}

#[test]
fn the_recorded_off_policy_allows_anything() {
    check_all(&OriginPolicy::Off, &[("http://evil.com", true), ("garbage", true)]);
}

#[test]
fn hosts_are_not_found_where_they_are_not() {
    check_all(
        &OriginPolicy::Host("localhost".into()),
        &[
            ("localhost", false),
            ("localhost:4100", false),
            ("http:localhost", false),
            ("/localhost", false),
            ("http://evil.com/localhost", false),
            ("http://evil.com?//localhost", false),
            ("http://evil.com#@localhost", false),
            ("http://localhost@evil.com", false),
            ("http://localhost:80@evil.com", false),
            ("http://a@b@localhost", true),
            ("http://localhost?x#y", true),
        ],
    );
}

#[test]
fn ipv6_hosts_lose_their_brackets() {
    let policy = list(&["http://[::1]:4000"]);

    check_all(&policy, &[("http://[::1]:4000", true), ("http://[::1]", false), ("http://[::2]:4000", false)]);
}

#[test]
fn schemes_compare_in_lower_case_and_bring_their_ports() {
    check_all(&list(&["HTTPS://example.com"]), &[("https://example.com", true), ("HTTPS://example.com:443", true)]);
    check_all(&list(&["//example.com:443"]), &[("wss://example.com", true), ("ws://example.com", false)]);
    check_all(&list(&["//example.com:443"]), &[("x://example.com", false), ("//example.com", false)]);
}

#[test]
fn a_rule_needs_a_host() {
    for rule in ["example.com", "", "https:", "//", "//:80", "/path"] {
        assert_eq!(OriginRule::parse(rule), Err(OriginRuleError(rule.to_owned())));
    }
}

#[test]
fn a_port_too_large_for_any_number_equals_no_port() {
    check_all(&list(&["//example.com:80"]), &[("http://example.com:99999999999999999999999", false)]);
}

proptest! {
    #[test]
    fn any_text_is_parsed(text in "(http:)?(//)?[a\\[\\]:@/?#é.0-9]{0,20}") {
        let _ = Uri::parse(&text);
    }
}
