//! Single streams: what is recorded in the transcripts of group `rfc6455`, and RFC 6455's own edges.

use super::*;

fn seen(frames: &[ClientFrame]) -> Vec<Seen> {
    let (seen, error) = decode(&stream(frames));
    assert_eq!(error, None);
    seen
}

fn close_code(bytes: &[u8]) -> u16 {
    let (_, error) = decode(bytes);
    error.expect("the stream breaks the protocol").close_code()
}

fn close_code_of(frames: &[ClientFrame]) -> u16 {
    close_code(&stream(frames))
}

#[test]
fn the_examples_of_rfc_6455_are_read() {
    let hello = [0x81, 0x85, 0x37, 0xfa, 0x21, 0x3d, 0x7f, 0x9f, 0x4d, 0x51, 0x58];

    assert_eq!(decode(&hello), (vec![text("Hello")], None));
}

#[test]
fn every_form_of_the_length_is_read() {
    for bytes in [0, 1, 7, 8, 9, 125, 126, 127, 65_535, 65_536, 65_537] {
        let payload: Vec<u8> = (0..bytes).map(|i| (i * 31) as u8).collect();
        assert_eq!(
            seen(&[frame(BINARY, &payload), frame(PONG, "")]),
            [Seen::Message(Opcode::Binary, payload), Seen::Pong],
            "{bytes} bytes"
        );
    }
}

#[test]
fn a_length_in_a_longer_form_than_needed_is_read() {
    let mut bytes = vec![0x81, 0x80 | 126, 0, 2, 0, 0, 0, 0, b'h', b'i'];
    bytes.extend([0x81, 0x80 | 127, 0, 0, 0, 0, 0, 0, 0, 2, 0, 0, 0, 0, b'h', b'o']);

    assert_eq!(decode(&bytes), (vec![text("hi"), text("ho")], None));
}

#[test]
fn fragments_make_one_message_with_control_frames_between() {
    assert_eq!(
        seen(&[
            frame(TEXT, "[null").more(),
            frame(0, r#","1","phoenix","#).more(),
            frame(PING, "mid"),
            frame(PONG, ""),
            frame(0, r#""heartbeat",{}]"#),
            frame(TEXT, "next"),
        ]),
        [
            Seen::Fragment,
            Seen::Fragment,
            Seen::Ping(b"mid".to_vec()),
            Seen::Pong,
            text(r#"[null,"1","phoenix","heartbeat",{}]"#),
            text("next"),
        ]
    );
}

#[test]
fn fragments_may_be_empty() {
    assert_eq!(
        seen(&[frame(TEXT, "").more(), frame(0, "").more(), frame(0, "x").more(), frame(0, "")]),
        [Seen::Fragment, Seen::Fragment, Seen::Fragment, text("x")]
    );
}

#[test]
fn a_character_may_be_split_between_fragments() {
    assert_eq!(seen(&[frame(TEXT, [b'"', 0xc3]).more(), frame(0, [0xa9, b'"'])]), [Seen::Fragment, text("\"é\"")]);
}

#[test]
fn fragments_of_a_binary_message_are_not_text() {
    assert_eq!(
        seen(&[frame(BINARY, [0xff]).more(), frame(0, [0xfe])]),
        [Seen::Fragment, Seen::Message(Opcode::Binary, vec![0xff, 0xfe])]
    );
}

#[test]
fn a_message_from_fragments_is_freed_by_the_next_call() {
    let mut reader = Reader::new(None, LIMITS);
    reader.read(&stream(&[frame(TEXT, "a").more(), frame(0, "b")])).expect("acceptable");

    assert_eq!(reader.seen, [Seen::Fragment, text("ab")]);
    assert!(reader.decoder.is_idle());
}

#[test]
fn pings_and_pongs_are_told_apart() {
    assert_eq!(
        seen(&[frame(PING, "hello"), frame(PING, ""), frame(PING, [b'x'; 125]), frame(PONG, "x")]),
        [Seen::Ping(b"hello".to_vec()), Seen::Ping(vec![]), Seen::Ping(vec![b'x'; 125]), Seen::Pong]
    );
}

#[test]
fn acceptable_close_frames_are_events() {
    let close = |code: u16| [&code.to_be_bytes()[..], b"why"].concat();

    assert_eq!(seen(&[frame(CLOSE, "")]), [Seen::Close(None)]);
    for code in [1000, 1001, 1002, 1003, 1007, 1008, 1009, 1010, 1011, 3000, 4000, 4999, 5000, 65_535] {
        assert_eq!(seen(&[frame(CLOSE, close(code))]), [Seen::Close(Some(code))]);
    }
    let longest = [&1000u16.to_be_bytes()[..], &[b'a'; 123]].concat();
    assert_eq!(seen(&[frame(CLOSE, longest)]), [Seen::Close(Some(1000))]);
}

#[test]
fn other_close_frames_break_the_protocol() {
    for code in [0, 999, 1004, 1005, 1006, 1012, 1013, 1014, 1015, 1016, 2000, 2999u16] {
        assert_eq!(close_code_of(&[frame(CLOSE, code.to_be_bytes())]), 1002, "{code}");
    }
    let too_long = [&1000u16.to_be_bytes()[..], &[b'a'; 124]].concat();
    for body in [b"x".to_vec(), vec![0x03, 0xe8, 0xff], too_long] {
        assert_eq!(close_code_of(&[frame(CLOSE, &body)]), 1002, "{body:?}");
    }
}

#[test]
fn headers_that_break_the_protocol_close_with_1002() {
    for (what, frames) in [
        ("RSV1 without compression", vec![frame(TEXT, "[]").rsv(4)]),
        ("RSV2", vec![frame(TEXT, "[]").rsv(2)]),
        ("RSV3", vec![frame(BINARY, "[]").rsv(1)]),
        ("reserved data opcode", vec![frame(3, "x")]),
        ("reserved control opcode", vec![frame(11, "x")]),
        ("last reserved opcode", vec![frame(15, "x")]),
        ("fragmented ping", vec![frame(PING, "x").more()]),
        ("fragmented close", vec![frame(CLOSE, "").more()]),
        ("long ping", vec![frame(PING, [0; 126])]),
        ("continuation first", vec![frame(0, "x")]),
        ("continuation after a whole message", vec![frame(TEXT, "x"), frame(0, "x")]),
        ("continuation after the last", vec![frame(TEXT, "x").more(), frame(0, "x"), frame(0, "x")]),
        ("text inside fragments", vec![frame(TEXT, "[").more(), frame(TEXT, "[]")]),
        ("binary inside fragments", vec![frame(TEXT, "[").more(), frame(BINARY, "[]").more()]),
    ] {
        assert_eq!(close_code_of(&frames), 1002, "{what}");
    }
}

#[test]
fn an_unmasked_frame_is_refused_by_its_header() {
    assert_eq!(decode(&[0x81, 0x02]).1, Some(ProtocolError::Unmasked));
    assert_eq!(close_code(&[0x81, 0x02, b'h', b'i']), 1002);
}

#[test]
fn a_length_with_the_highest_bit_is_refused_by_its_header() {
    let header = [0x82, 0x80 | 127, 0x80, 0, 0, 0, 0, 0, 0, 0];

    assert_eq!(close_code(&header), 1002);
}

#[test]
fn invalid_utf8_in_a_text_message_closes_with_1007() {
    assert_eq!(close_code_of(&[frame(TEXT, [b'a', 0xff])]), 1007);
    assert_eq!(close_code_of(&[frame(TEXT, "\u{e9}").more(), frame(0, [0xc3])]), 1007);
    // A surrogate half, an overlong form, and a code point past the last.
    for bytes in [&[0xed, 0xa0, 0x80][..], &[0xc0, 0xaf], &[0xf4, 0x90, 0x80, 0x80]] {
        assert_eq!(close_code_of(&[frame(TEXT, bytes)]), 1007);
    }
}

#[test]
fn events_before_a_fault_are_delivered() {
    let (seen, error) = decode(&stream(&[frame(TEXT, "one"), frame(3, "")]));

    assert_eq!(seen, [text("one")]);
    assert_eq!(error, Some(ProtocolError::UnknownOpcode(3)));
}

#[test]
fn a_frame_may_have_the_limit_with_its_header() {
    let limits = Limits { frame_bytes_max: 1024, ..LIMITS };
    let largest = frame(BINARY, [0; 1024 - 8]).bytes();
    let over = frame(BINARY, [0; 1024 - 7]).bytes();

    assert_eq!(decode_with(None, limits, &largest).1, None);
    assert_eq!(decode_with(None, limits, &over).1, Some(ProtocolError::FrameTooBig { bytes: 1025, limit: 1024 }));
}

#[test]
fn an_oversize_frame_is_refused_by_its_header() {
    let limits = Limits { frame_bytes_max: 100_000, message_bytes_max: 50_000 };
    let code = |header: &[u8]| decode_with(None, limits, header).1.expect("too big").close_code();

    assert_eq!(code(&[0x82, 0x80 | 126, 0xff, 0xff]), 1009);
    assert_eq!(code(&[0x82, 0x80 | 127, 0, 0, 0, 0, 0, 2, 0, 0]), 1009);
    assert_eq!(code(&[0x82, 0x80 | 127, 0x7f, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff]), 1009);
}

#[test]
fn fragments_may_have_the_limit_together() {
    let limits = Limits { message_bytes_max: 10, ..LIMITS };
    let at = [frame(TEXT, "12345").more(), frame(0, "6789").more(), frame(0, "0")];
    let over = [frame(TEXT, "12345").more(), frame(0, "6789").more(), frame(0, "01")];

    assert_eq!(decode_with(None, limits, &stream(&at)).0.last(), Some(&text("1234567890")));
    assert_eq!(decode_with(None, limits, &stream(&over)).1, Some(ProtocolError::MessageTooBig { limit: 10 }));
    assert_eq!(ProtocolError::MessageTooBig { limit: 10 }.close_code(), 1009);
}

#[test]
fn control_frames_do_not_count_as_message() {
    let limits = Limits { message_bytes_max: 3, ..LIMITS };
    let frames = [frame(TEXT, "12").more(), frame(PING, "a long ping"), frame(0, "3")];

    assert_eq!(decode_with(None, limits, &stream(&frames)).1, None);
}

#[test]
fn need_is_the_whole_frame_once_its_length_is_there() {
    let mut reader = Reader::new(None, LIMITS);
    let bytes = frame(BINARY, [0; 70_000]).bytes();

    assert_eq!(reader.read(&[]), Ok(2));
    assert_eq!(reader.read(&bytes[..1]), Ok(2));
    assert_eq!(reader.read(&bytes[1..2]), Ok(10));
    assert_eq!(reader.read(&bytes[2..9]), Ok(10));
    assert_eq!(reader.read(&bytes[9..10]), Ok(70_014));
    assert_eq!(reader.read(&bytes[10..70_013]), Ok(70_014));
    assert_eq!(reader.read(&bytes[70_013..]), Ok(2));
    assert_eq!(reader.seen, [Seen::Message(Opcode::Binary, vec![0; 70_000])]);

    let bytes = frame(BINARY, [0; 200]).bytes();
    assert_eq!(reader.read(&bytes[..3]), Ok(4));
    assert_eq!(reader.read(&bytes[3..4]), Ok(208));
}

#[test]
fn an_idle_decoder_is_two_words() {
    assert!(size_of::<Decoder>() <= 16);
}
