//! What comes before the first request: handshakes that are slow, that fail, and what they agree on.

use std::io::{Read, Write};
use std::net::TcpStream;
use std::sync::Arc;

use rustls::version::{TLS12, TLS13};
use rustls::{ClientConfig, ProtocolVersion};

use super::certificates::{Certificate, Folder, trusting};
use super::clients::Client;
use crate::lab::{DEADLINE, Lab, until};

/// The beginning of a client's first record, whose rest never comes.
const HALF_A_HELLO: [u8; 9] = [0x16, 0x03, 0x01, 0x02, 0x00, 0x01, 0x00, 0x01, 0xfc];

fn livez(lab: &Lab, config: &Arc<ClientConfig>) -> std::io::Result<Client> {
    let mut client = Client::connect(lab.address(), Arc::clone(config))?;
    client.write(b"GET /livez HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n");
    let answer = client.next().expect("an answer");
    assert_eq!(answer.status, Some(200), "{answer:?}");
    Ok(client)
}

#[test]
fn slow_handshakes_hold_nobody_up_and_are_all_cut() {
    const SLOW: usize = 200;
    let certificate = Certificate::new();
    let folder = Folder::holding(&certificate);
    let config = trusting(&[&certificate]);
    let lab = Lab::with(
        |options| {
            options.tls = Some(folder.options());
            options.http.handshake_timeout_ms = 3_000;
        },
        |_| {},
    );

    let slow: Vec<TcpStream> = (0..SLOW).map(|_| TcpStream::connect(lab.address()).expect("it accepts")).collect();
    for (n, mut stream) in slow.iter().enumerate() {
        stream.write_all(&HALF_A_HELLO[..n % 10]).expect("it is connected");
    }
    until("all are accepted", || lab.held().connections == SLOW);

    let mut served = Client::open(lab.address(), Arc::clone(&config), "vsn=2.0.0");
    assert_eq!(lab.held().connections, SLOW + 1, "it was served beside the slow ones");

    until("the slow ones are cut", || lab.held().connections == 1);
    for mut stream in slow {
        stream.set_read_timeout(Some(DEADLINE)).expect("a timeout above zero is allowed");
        assert!(matches!(stream.read(&mut [0; 64]), Ok(0) | Err(_)), "nothing is said to them");
    }
    served.send_text(r#"[null,"1","phoenix","heartbeat",{}]"#);
    assert!(served.text().contains(r#""status":"ok""#));
}

#[test]
fn slow_handshakes_count_among_the_connections() {
    let certificate = Certificate::new();
    let folder = Folder::holding(&certificate);
    let lab = Lab::with(
        |options| {
            options.tls = Some(folder.options());
            options.admission.connections_max = 2;
        },
        |_| {},
    );
    let mut slow = [(); 2].map(|()| TcpStream::connect(lab.address()).expect("it accepts"));
    until("both are accepted", || lab.held().connections == 2);

    assert!(livez(&lab, &trusting(&[&certificate])).is_err(), "there is no third place");

    slow[0].write_all(b"\n").expect("it is connected");
    until("what is no TLS has gone", || lab.held().connections == 1);
    assert!(livez(&lab, &trusting(&[&certificate])).is_ok());
}

#[test]
fn plain_http_to_a_port_of_tls_just_ends() {
    let certificate = Certificate::new();
    let folder = Folder::holding(&certificate);
    let lab = Lab::with(|options| options.tls = Some(folder.options()), |_| {});
    let mut plain = TcpStream::connect(lab.address()).expect("it accepts");
    plain.set_read_timeout(Some(DEADLINE)).expect("a timeout above zero is allowed");

    plain.write_all(b"GET /livez HTTP/1.1\r\nHost: localhost\r\n\r\n").expect("it is connected");
    let mut heard = Vec::new();
    let ended = plain.read_to_end(&mut heard);

    assert!(ended.is_ok() || !heard.starts_with(b"HTTP"), "{ended:?}");
    assert!(heard.is_empty() || heard[0] == 0x15, "at most a TLS alert: {heard:?}");
    until("nothing is held for it", || lab.held().connections == 0);
    assert!(livez(&lab, &trusting(&[&certificate])).is_ok());
}

#[test]
fn both_versions_are_spoken_and_http_1_1_alone() {
    let certificate = Certificate::new();
    let folder = Folder::holding(&certificate);
    let lab = Lab::with(|options| options.tls = Some(folder.options()), |_| {});
    let config = ClientConfig::clone(&trusting(&[&certificate]));
    let with_alpn = |names: &[&str]| {
        let mut config = config.clone();
        config.alpn_protocols = names.iter().map(|name| name.as_bytes().to_vec()).collect();
        livez(&lab, &Arc::new(config))
    };

    let chosen = with_alpn(&["h2", "http/1.1"]).expect("one of them is served");
    assert_eq!(chosen.session().alpn_protocol(), Some(&b"http/1.1"[..]));
    assert!(with_alpn(&["h2"]).is_err());

    for (version, spoken) in [(&TLS12, ProtocolVersion::TLSv1_2), (&TLS13, ProtocolVersion::TLSv1_3)] {
        let mut roots = rustls::RootCertStore::empty();
        roots.add(certificate.der().clone()).expect("it is a certificate");
        let config = ClientConfig::builder_with_provider(Arc::new(rustls::crypto::ring::default_provider()))
            .with_protocol_versions(&[version])
            .expect("ring has it")
            .with_root_certificates(roots)
            .with_no_client_auth();
        let client = livez(&lab, &Arc::new(config)).expect("it is served");
        assert_eq!(client.session().protocol_version(), Some(spoken));
    }
}
