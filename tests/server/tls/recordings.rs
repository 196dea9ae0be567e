//! Every recording again, over TLS.

use super::certificates::{Certificate, Folder, trusting};
use super::tunnel::Tunnel;
use crate::reference::Server;
use crate::transcripts::{case::Case, groups, play_all};

/// What a recording says of `http` where TLS makes it `https`: the scheme of the request, which these tell their client.
const SCHEMES: [(&str, &str); 2] = [
    (r#"\"scheme\":\"http\""#, r#"\"scheme\":\"https\""#),
    (r#"\\\"scheme\\\":\\\"http\\\""#, r#"\\\"scheme\\\":\\\"https\\\""#),
];

/// The recording whose socket compares origins with the request's scheme: with TLS the other scheme is the right one.
const OF_ITS_SCHEME: &str = "origin_conn";

/// A recording as it has to be over TLS.
fn over_tls(text: &str) -> Case {
    let mut text = text.to_owned();
    for (plain, secure) in SCHEMES {
        text = text.replace(plain, secure);
    }
    let case = Case::parse(&text).expect("a recording");
    if case.name != OF_ITS_SCHEME {
        return case;
    }
    let swapped = text.replace("https://", "\0").replace("http://", "https://").replace('\0', "http://");
    Case::parse(&swapped).expect("a recording")
}

#[test]
fn every_recording_holds_over_tls() {
    let certificate = Certificate::new();
    let folder = Folder::holding(&certificate);
    let server = Server::own_with_tls(&folder.options());
    let tunnel = Tunnel::to(server.address(), trusting(&[&certificate]));
    let all = Case::all_as(over_tls);
    let is_played = |case: &&Case| !case.artefact && groups().iter().any(|(group, _)| *group == case.group);
    let cases: Vec<&Case> = all.iter().filter(is_played).collect();
    assert_eq!(cases.len(), groups().iter().map(|(_, cases)| cases).sum::<usize>());

    let reports = play_all(&cases, tunnel.address());

    assert!(
        reports.is_empty(),
        "{} of {} cases differ from Phoenix:\n{}",
        reports.len(),
        cases.len(),
        reports.join("\n")
    );
}
