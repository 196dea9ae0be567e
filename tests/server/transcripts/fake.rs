//! Plays recordings against a server that says what the recording says, to show that the runner finds what differs and
//! nothing else.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream};

use super::case::{Case, Event, Step};
use super::frames::{FrameBits, encode_frame};
use super::play::{difference, play};
use super::play_all;

/// True of the cases that the fake can serve: one client that connects, and then sends and receives in turn.
fn is_servable(case: &Case) -> bool {
    let [(_, events)] = &case.observed.clients.0[..] else {
        return false;
    };
    let mut steps = case.steps.iter();
    matches!(steps.next(), Some(Step::Connect { extra_frames, .. }) if extra_frames.is_empty())
        && steps.all(|step| {
            matches!(step, Step::Send { .. } | Step::SendBinary { .. } | Step::Recv { .. } | Step::AwaitClosed { .. })
        })
        && events[0].kind == "open"
        && events[1..].iter().all(|event| match event.kind.as_str() {
            "text" | "binary" | "close" => event.recv.is_some() && event.rsv.is_none(),
            kind => kind == "tcp_closed",
        })
}

/// Serves one connection as `case` tells, on a port of its own; `alter` may change each event, or drop it, before it is sent.
fn serve(case: &Case, alter: impl Fn(usize, &mut Event) -> bool + Send + 'static) -> SocketAddr {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).expect("a free port");
    let address = listener.local_addr().expect("a bound listener has an address");
    let events: Vec<Event> = case.observed.clients.0[0]
        .1
        .iter()
        .enumerate()
        .filter_map(|(at, event)| {
            let mut event = event.clone();
            alter(at, &mut event).then_some(event)
        })
        .collect();
    let steps = case.steps.clone();
    std::thread::spawn(move || {
        let (stream, _) = listener.accept().expect("the client connects");
        let mut from = BufReader::new(&stream);
        let mut line = String::new();
        while line != "\r\n" {
            line.clear();
            from.read_line(&mut line).expect("the handshake arrives");
        }
        (&stream).write_all(handshake_answer(&events[0]).as_bytes()).expect("the client reads");
        for (at, step) in steps.iter().enumerate() {
            match step {
                Step::Send { .. } | Step::SendBinary { .. } => read_frame(&mut from),
                // The client's echo of the close frame is the last that comes.
                Step::AwaitClosed { .. } => return read_frame(&mut from),
                _ => {
                    let frames: Vec<u8> =
                        events.iter().filter(|event| event.recv == Some(at)).flat_map(server_frame).collect();
                    (&stream).write_all(&frames).expect("the client reads");
                }
            }
        }
        // Ends when the client does.
        let _ = from.read_to_end(&mut Vec::new());
    });
    address
}

fn handshake_answer(open: &Event) -> String {
    let headers: String = open
        .headers
        .iter()
        .flatten()
        .rev()
        .map(|(name, value)| format!("{}: {value}\r\n", name.to_ascii_uppercase()))
        .collect();
    format!("HTTP/1.1 101 Whatever\r\nDate: today\r\n{headers}\r\n")
}

fn server_frame(event: &Event) -> Vec<u8> {
    use base64::Engine as _;

    let payload = |base64: &Option<String>| {
        base64::engine::general_purpose::STANDARD
            .decode(base64.as_deref().expect("binary"))
            .expect("recorded as base64")
    };
    let (opcode, payload) = match event.kind.as_str() {
        "text" => (1, event.raw.clone().expect("a text frame has a text").into_bytes()),
        "binary" => (2, payload(&event.base64)),
        "close" => (
            8,
            [
                &event.code.expect("recorded with a code").to_be_bytes(),
                event.reason.as_deref().unwrap_or("").as_bytes(),
            ]
            .concat(),
        ),
        other => panic!("the fake does not send {other}"),
    };
    encode_frame(opcode, &payload, FrameBits { mask: false, ..FrameBits::default() })
}

fn read_frame(from: &mut BufReader<&TcpStream>) {
    let mut head = [0; 2];
    from.read_exact(&mut head).expect("a frame arrives");
    let mut extended = [0; 8];
    let payload_bytes = match head[1] & 0x7f {
        126 => {
            from.read_exact(&mut extended[6..]).expect("a length arrives");
            u64::from_be_bytes(extended)
        }
        127 => {
            from.read_exact(&mut extended).expect("a length arrives");
            u64::from_be_bytes(extended)
        }
        n => u64::from(n),
    };
    std::io::copy(&mut from.take(4 + payload_bytes), &mut std::io::sink()).expect("a payload arrives");
}

/// Plays `name` against a fake that alters the events, and returns the report.
fn report_of(name: &str, alter: impl Fn(usize, &mut Event) -> bool + Send + 'static) -> Option<String> {
    let case = Case::named(name);
    assert!(is_servable(&case), "the fake cannot serve {name}");
    let address = serve(&case, alter);
    difference(&case, &play(&case, address))
}

fn reword(event: &mut Event, from: &str, to: &str) {
    if let Some(raw) = &mut event.raw {
        assert!(raw.contains(from), "{raw} does not hold {from}");
        *raw = raw.replace(from, to);
    }
}

#[test]
fn a_server_that_says_what_was_recorded_does_not_differ() {
    let all = Case::all();
    let servable: Vec<&Case> = all.iter().filter(|case| is_servable(case)).collect();
    assert!(servable.len() > 50, "the fake can serve {} cases", servable.len());

    let reports: Vec<String> = std::thread::scope(|scope| {
        let jobs: Vec<_> = servable
            .chunks(servable.len().div_ceil(8))
            .map(|cases| {
                scope.spawn(|| {
                    let play_one = |case: &&Case| play_all(&[case], serve(case, |_, _| true));
                    cases.iter().flat_map(play_one).collect::<Vec<_>>()
                })
            })
            .collect();
        jobs.into_iter().flat_map(|job| job.join().expect("a job ends")).collect()
    });

    assert!(reports.is_empty(), "{}", reports.join("\n"));
}

#[test]
fn presence_references_may_have_other_values() {
    let renamed = report_of("presence_update", |_, event| {
        if let Some(raw) = &mut event.raw {
            *raw =
                raw.replace(r#""phx_ref":""#, r#""phx_ref":"x"#).replace(r#""phx_ref_prev":""#, r#""phx_ref_prev":"x"#);
        }
        true
    });
    let disconnected = report_of("presence_update", |_, event| {
        if let Some(raw) = &mut event.raw {
            *raw = raw.replace(r#""phx_ref_prev":""#, r#""phx_ref_prev":"x"#);
        }
        true
    });

    assert_eq!(renamed, None);
    assert!(disconnected.is_some(), "a phx_ref_prev that names no earlier phx_ref is a difference");
}

#[test]
fn the_order_of_keys_does_not_count_but_the_order_of_frames_does() {
    let keys = report_of("heartbeat", |at, event| {
        if at == 1 {
            reword(event, r#"{"response":{},"status":"ok"}"#, r#"{ "status":"ok", "response":{} }"#);
        }
        true
    });
    let frames = report_of("leave", |at, event| {
        // The leave's reply and the close that follows it.
        if at == 2 {
            event.raw = Some(r#"["1","1","room:l1","phx_close",{}]"#.to_owned());
        }
        true
    });

    assert_eq!(keys, None);
    assert!(frames.is_some());
}

#[test]
fn a_planted_word_is_reported_with_both_texts() {
    let report = report_of("heartbeat", |at, event| {
        if at == 1 {
            reword(event, r#""status":"ok""#, r#""status":"planted""#);
        }
        true
    })
    .expect("a difference");

    assert!(report.starts_with("heartbeat: "), "{report}");
    assert!(report.contains("a[1]") && report.contains("planted") && report.contains("phoenix"), "{report}");
}

#[test]
fn a_missing_frame_is_reported_with_the_wait_that_was_in_vain() {
    let report = report_of("heartbeat", |at, _| at != 1).expect("a difference");

    assert!(report.contains("here    nothing") && report.contains("wanted 1 frame(s), got 0"), "{report}");
}

#[test]
fn a_frame_too_many_is_reported() {
    let mut case = Case::named("heartbeat");
    let address = serve(&case, |_, _| true);
    case.observed.clients.0[0].1.pop();

    let report = difference(&case, &play(&case, address)).expect("a difference");

    assert!(report.contains("phoenix nothing"), "{report}");
}

#[test]
fn a_wrong_close_code_is_reported() {
    let recorded = report_of("bad_garbage", |_, _| true);
    let report = report_of("bad_garbage", |_, event| {
        event.code = event.code.map(|_| 1002);
        true
    })
    .expect("a difference");

    assert_eq!(recorded, None);
    assert!(report.contains(r#""code":1002"#), "{report}");
}

#[test]
fn a_wrong_header_of_the_handshake_is_reported() {
    let report = report_of("auth_token", |_, event| {
        if let Some(headers) = &mut event.headers {
            headers.retain(|(name, _)| !name.eq_ignore_ascii_case("sec-websocket-protocol"));
        }
        true
    });

    assert!(report.is_some());
}
