use std::net::Ipv4Addr;

use proptest::prelude::*;

use super::*;

fn ip(text: &str) -> IpAddr {
    text.parse().unwrap()
}

#[track_caller]
fn check(pattern: &str, within: &[&str], outside: &[&str]) {
    let read = IpPattern::parse(pattern).unwrap();
    for text in within {
        assert!(read.contains(ip(text)), "{pattern} {text}");
    }
    for text in outside {
        assert!(!read.contains(ip(text)), "{pattern} {text}");
    }
}

#[test]
fn an_address_is_itself() {
    check("192.0.2.1", &["192.0.2.1", "::ffff:192.0.2.1"], &["192.0.2.2", "::192.0.2.1", "2001:db8::1"]);
    check("2001:db8::1", &["2001:db8::1"], &["2001:db8::2", "192.0.2.1"]);
    check("::ffff:192.0.2.1", &["192.0.2.1"], &["192.0.2.2"]);
}

#[test]
fn a_network_has_its_addresses() {
    check("10.0.0.0/8", &["10.0.0.0", "10.255.255.255", "::ffff:10.1.2.3"], &["11.0.0.0", "9.255.255.255"]);
    check("10.1.2.3/8", &["10.9.9.9"], &["11.0.0.0"]);
    check("0.0.0.0/0", &["1.2.3.4"], &["::1"]);
    check("2001:db8::/32", &["2001:db8:ffff::1"], &["2001:db9::1", "10.0.0.1"]);
    check("::/0", &["::1"], &["10.0.0.1"]);
    check("::ffff:10.0.0.0/104", &["10.9.9.9"], &["11.0.0.0", "::1"]);
}

#[test]
fn a_star_is_any_octet() {
    check("10.0.*.*", &["10.0.0.0", "10.0.255.1", "::ffff:10.0.3.4"], &["10.1.0.0", "110.0.0.0", "2001:db8::1"]);
    check("10.*.0.1", &["10.7.0.1"], &["10.7.0.2"]);
    check("*.*.*.*", &["1.2.3.4"], &["::1"]);
}

#[test]
fn what_is_no_pattern_is_refused_with_what_came() {
    for text in [
        "",
        "*",
        "10.0.*",
        "10.0.*.*.*",
        "10.0.0.256",
        "10.0.0.0/33",
        "10.0.0.0/",
        "10.0.0.0/+8",
        "10.0.0.0/08",
        "10.0.*.*/8",
        "010.0.0.1",
        "10.00.*.*",
        "10.+1.*.*",
        "10.0.1*.*",
        "2001:db8::/129",
        "2001:db8::*",
        "fe80::1%eth0",
        "localhost",
        " 10.0.0.1",
        "10.0.0.1:80",
        "[::1]",
    ] {
        let expected = "Invalid IP pattern: expected a form such as 192.0.2.1, 2001:db8::/32 or 10.0.*.*, came";
        assert_eq!(IpPattern::parse(text).unwrap_err().to_string(), format!("{expected} {text:?}"));
    }
    let error = IpPattern::parse(&"1".repeat(1_000)).unwrap_err().to_string();
    assert!(error.len() < 200, "{error}");
}

#[test]
fn patterns_are_written_as_they_are_read() {
    for text in ["192.0.2.1", "10.0.0.0/8", "2001:db8::/32", "::1", "10.0.*.*", "0.0.0.0/0"] {
        assert_eq!(IpPattern::parse(text).unwrap().to_string(), text);
    }
    assert_eq!(IpPattern::parse("::ffff:10.1.2.3/104").unwrap().to_string(), "10.0.0.0/8");
}

#[test]
fn a_denial_and_a_lock_beat_what_is_allowed() {
    // T13.
    let rules = IpRules::parse(&["10.0.0.0/8"], &["10.0.*.*", "2001:db8::/32"], true).unwrap();

    assert_eq!(rules.check(ip("10.0.0.1"), false), Err(IpDenied::Denied));
    assert_eq!(rules.check(ip("::ffff:10.0.0.1"), true), Err(IpDenied::Denied));
    assert_eq!(rules.check(ip("2001:db8::5"), false), Err(IpDenied::Denied));
    assert_eq!(rules.check(ip("10.1.0.1"), true), Err(IpDenied::Locked));
    assert_eq!(rules.check(ip("10.1.0.1"), false), Ok(()));
    assert_eq!(rules.check(ip("192.0.2.1"), false), Ok(()));
}

#[test]
fn others_are_let_in_or_not() {
    let rules = IpRules::parse(&["10.0.0.0/8"], &[], false).unwrap();

    assert_eq!(rules.check(ip("10.1.0.1"), false), Ok(()));
    assert_eq!(rules.check(ip("192.0.2.1"), false), Err(IpDenied::NotAllowed));
    assert_eq!(IpRules::default().check(ip("192.0.2.1"), false), Ok(()));
}

#[test]
fn reasons_are_the_deployments() {
    let reasons = [IpDenied::Denied, IpDenied::Locked, IpDenied::NotAllowed].map(|denied| denied.to_string());

    assert_eq!(reasons, ["IP blacklisted", "IP temporarily blocked", "No whitelist entry found"]);
}

#[test]
fn a_list_has_a_bound() {
    let many = vec!["10.0.0.1"; PATTERNS_MAX + 1];

    assert_eq!(IpRules::parse(&many, &[], true), Err(IpPatternError::TooMany(PATTERNS_MAX + 1)));
    assert!(IpRules::parse(&many[1..], &[], true).is_ok());
}

fn trusted() -> [IpPattern; 2] {
    ["10.0.0.0/8", "2001:db8::/32"].map(|text| IpPattern::parse(text).unwrap())
}

#[track_caller]
fn check_client(peer: &str, forwarded_for: &[&str], client: &str) {
    assert_eq!(client_ip(ip(peer), forwarded_for.iter().copied(), &trusted()), ip(client), "{peer} {forwarded_for:?}");
}

#[test]
fn a_peer_that_is_not_trusted_says_nothing_of_others() {
    check_client("192.0.2.1", &["198.51.100.1"], "192.0.2.1");
    assert_eq!(client_ip(ip("10.0.0.1"), ["198.51.100.1"], &[]), ip("10.0.0.1"));
}

#[test]
fn the_client_is_the_last_that_no_trusted_proxy_is() {
    check_client("10.0.0.1", &["198.51.100.1"], "198.51.100.1");
    check_client("10.0.0.1", &["203.0.113.9, 198.51.100.1"], "198.51.100.1");
    check_client("10.0.0.1", &["203.0.113.9, 198.51.100.1,10.0.0.2 ,\t10.0.0.3"], "198.51.100.1");
    check_client("10.0.0.1", &["203.0.113.9", "198.51.100.1", "10.0.0.2, 2001:db8::7"], "198.51.100.1");
    check_client("10.0.0.1", &["10.0.0.3, 10.0.0.2"], "10.0.0.3");
    check_client("10.0.0.1", &[], "10.0.0.1");
}

#[test]
fn an_entry_that_is_no_address_ends_the_search() {
    for entry in
        ["", "unknown", "_hidden", "198.51.100", "1.2.3.4:99999", "1.2.3.4:", "[1.2.3.4]", "[::1", "\"[::1]:80\""]
    {
        check_client("10.0.0.1", &[&format!("203.0.113.9, {entry}, 10.0.0.2")], "10.0.0.2");
        check_client("10.0.0.1", &[entry], "10.0.0.1");
    }
}

#[test]
fn ports_and_brackets_are_left_out() {
    for (entry, client) in [
        ("198.51.100.1:4711", "198.51.100.1"),
        ("[2001:db9::1]:80", "2001:db9::1"),
        ("[2001:db9::1]", "2001:db9::1"),
        ("2001:db9::1", "2001:db9::1"),
        ("::ffff:198.51.100.1", "198.51.100.1"),
        ("[::ffff:198.51.100.1]:80", "198.51.100.1"),
    ] {
        check_client("10.0.0.1", &[entry], client);
    }
}

#[test]
fn mapped_addresses_are_trusted_as_what_they_are() {
    check_client("::ffff:10.0.0.1", &["198.51.100.1, ::ffff:10.0.0.2"], "198.51.100.1");
    check_client("::ffff:192.0.2.1", &["198.51.100.1"], "192.0.2.1");
}

#[test]
fn a_row_of_proxies_has_an_end() {
    let row = vec!["10.0.0.2"; FORWARDED_MAX].join(",");
    check_client("10.0.0.1", &[&format!("198.51.100.1, {row}")], "10.0.0.2");
}

proptest! {
    #[test]
    fn a_network_is_its_first_bits(address in any::<u32>(), other in any::<u32>(), bits in 0..=32_u32) {
        let pattern = IpPattern::parse(&format!("{}/{bits}", Ipv4Addr::from(address))).unwrap();
        // Often within it.
        for other in [other, address ^ other.checked_shr(bits).unwrap_or(0)] {
            let is_within = (address ^ other).leading_zeros() >= bits;
            let (plain, mapped) = (Ipv4Addr::from(other), Ipv4Addr::from(other).to_ipv6_mapped());

            prop_assert_eq!(pattern.contains(plain.into()), is_within);
            prop_assert_eq!(pattern.contains(mapped.into()), is_within);
        }
    }

    #[test]
    fn a_network_of_ipv6_is_its_first_bits(address in any::<u128>(), other in any::<u128>(), bits in 0..=128_u32) {
        let address = address | 1 << 127;
        let pattern = IpPattern::parse(&format!("{}/{bits}", Ipv6Addr::from(address))).unwrap();
        let other = address ^ other.checked_shr(bits).unwrap_or(0) ^ (other & 1);

        let is_within = (address ^ other).leading_zeros() >= bits;
        let is_v6 = Ipv6Addr::from(other).to_ipv4_mapped().is_none();
        prop_assert_eq!(pattern.contains(IpAddr::from(Ipv6Addr::from(other))), is_within && is_v6);
    }

    #[test]
    fn stars_at_the_end_are_a_network(octets in any::<[u8; 4]>(), stars in 0..=4_usize, other in any::<[u8; 4]>()) {
        let parts: Vec<_> =
            (0..4).map(|n| if n < 4 - stars { octets[n].to_string() } else { "*".to_owned() }).collect();
        let wildcard = IpPattern::parse(&parts.join(".")).unwrap();
        let network = IpPattern::parse(&format!("{}/{}", Ipv4Addr::from(octets), 32 - 8 * stars)).unwrap();

        for ip in [other, octets].map(IpAddr::from) {
            prop_assert_eq!(wildcard.contains(ip), network.contains(ip));
        }
    }

    #[test]
    fn any_text_is_read_or_refused(text in any::<String>(), peer in any::<u32>()) {
        let _ = IpPattern::parse(&text);
        let _ = client_ip(Ipv4Addr::from(peer).into(), [text.as_str()], &trusted());
    }

    /// Whatever a client writes, proxies that are trusted append what they see.
    #[test]
    fn a_client_can_not_choose_its_address(
        written in prop::collection::vec(prop_oneof!["[0-9a-z.:,\\[\\] ]{0,20}", Just("10.0.0.9".to_owned())], 0..4),
        client in any::<[u8; 4]>(),
        proxies in 0..4_u8,
    ) {
        let client = IpAddr::from(client);
        prop_assume!(!trusted().iter().any(|network| network.contains(client)));
        let mut lines = written;
        lines.push(client.to_string());
        lines.extend((0..proxies).map(|n| format!("10.0.0.{n}")));

        for lines in [lines.clone(), vec![lines.join(", ")]] {
            prop_assert_eq!(client_ip(ip("10.9.9.9"), lines.iter().map(String::as_str), &trusted()), client);
        }
    }
}
