//! The certificates' files: what they may be, and that they may change.

use bennu::channel::Endpoint;
use bennu::server::Server;
use rustix::process::{Signal, getpid, kill_process};

use super::certificates::{Certificate, Folder, trusting};
use super::clients::Client;
use super::tunnel::Tunnel;
use crate::lab::{Lab, Peer, until};

/// How often a client looks that nothing has changed.
const LOOKS: usize = 20;

fn hang_up() {
    kill_process(getpid(), Signal::HUP).expect("a process may signal itself");
}

#[test]
fn a_hangup_brings_new_certificates_and_open_connections_stay() {
    let [first, second, third] = [(); 3].map(|()| Certificate::new());
    let folder = Folder::holding(&first);
    let lab = Lab::with(|options| options.tls = Some(folder.options()), |_| {});
    let config = trusting(&[&first, &second, &third]);
    let certificate =
        || Client::connect(lab.address(), config.clone()).expect("one of the three is served").certificate();
    let tunnel = Tunnel::to(lab.address(), config.clone());
    let mut old = Peer::open(tunnel.address(), "vsn=2.0.0");
    old.join("probe:a");
    assert_eq!(certificate(), *first.der());

    folder.put(&second);
    hang_up();
    until("the second is served", || certificate() == *second.der());
    old.heartbeat();

    folder.write("key.pem", &third.key_pem());
    hang_up();
    for _ in 0..LOOKS {
        assert_eq!(certificate(), *second.der(), "the third's key does not fit");
    }
    folder.put(&third);
    hang_up();
    until("the third is served", || certificate() == *third.der());
    old.heartbeat();
}

#[test]
fn a_server_whose_certificates_cannot_be_used_does_not_start_and_says_why() {
    let folder = Folder::holding(&Certificate::new());
    folder.write("key.pem", &Certificate::new().key_pem());
    let runtime = bennu::server::runtime(1).expect("a runtime starts");
    let _guard = runtime.enter();

    let server = Server::new(&Endpoint::start()).options(|options| options.tls = Some(folder.options()));
    let error = server.listen(([127, 0, 0, 1], 0)).expect_err("the key is of another certificate").to_string();

    assert!(error.contains("key.pem: expected the private key of the certificate in "), "{error}");
    assert!(error.ends_with("chain.pem, came another"), "{error}");
}
