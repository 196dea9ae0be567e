//! What holds for any stream of frames, however it is split into reads.

use proptest::collection::vec;
use proptest::prelude::*;

use super::super::deflate::Compressor;
use super::super::{
    ServerFrame, ServerFrameKind, ServerFrames, begin_frame, end_frame, write_close, write_frame, write_ping,
    write_pong,
};
use super::compression::{Client, read_back};
use super::*;

/// One message as its client cut it, and the control frames it put before each piece and after the last.
#[derive(Clone, Debug)]
struct Sent {
    opcode: Opcode,
    pieces: Vec<Vec<u8>>,
    pings: Vec<Option<Vec<u8>>>,
    mask: [u8; 4],
}

impl Sent {
    fn message(&self) -> Vec<u8> {
        self.pieces.concat()
    }

    fn frames(&self) -> Vec<ClientFrame> {
        let mut frames = Vec::new();
        for (i, piece) in self.pieces.iter().enumerate() {
            if let Some(ping) = &self.pings[i % self.pings.len()] {
                frames.push(ClientFrame { mask: self.mask, ..frame(PING, ping) });
            }
            let opcode = match (i, self.opcode) {
                (0, Opcode::Text) => TEXT,
                (0, Opcode::Binary) => BINARY,
                _ => 0,
            };
            let fin = i + 1 == self.pieces.len();
            frames.push(ClientFrame { fin, mask: self.mask, ..frame(opcode, piece) });
        }
        frames
    }

    fn expected(&self) -> Vec<Seen> {
        let mut expected = Vec::new();
        for i in 0..self.pieces.len() {
            if let Some(ping) = &self.pings[i % self.pings.len()] {
                expected.push(Seen::Ping(ping.clone()));
            }
            expected.push(if i + 1 == self.pieces.len() {
                Seen::Message(self.opcode, self.message())
            } else {
                Seen::Fragment
            });
        }
        expected
    }
}

/// Pieces of a text cut anywhere, also within characters.
fn cut(message: &[u8], cuts: &[prop::sample::Index]) -> Vec<Vec<u8>> {
    let mut ends: Vec<usize> = cuts.iter().map(|cut| cut.index(message.len() + 1)).collect();
    ends.push(message.len());
    ends.sort_unstable();
    let mut start = 0;
    ends.into_iter()
        .map(|end| {
            let piece = message[start..end].to_vec();
            start = end;
            piece
        })
        .collect()
}

fn sent() -> impl Strategy<Value = Sent> {
    let message = prop_oneof![
        ".{0,60}".prop_map(|text| (Opcode::Text, text.into_bytes())),
        vec(any::<u8>(), 0..400).prop_map(|bytes| (Opcode::Binary, bytes)),
    ];
    let cuts = vec(any::<prop::sample::Index>(), 0..4);
    let pings = vec(prop::option::weighted(0.3, vec(any::<u8>(), 0..=125)), 1..4);
    (message, cuts, pings, any::<[u8; 4]>()).prop_map(|((opcode, message), cuts, pings, mask)| Sent {
        opcode,
        pieces: cut(&message, &cuts),
        pings,
        mask,
    })
}

fn server_frame() -> impl Strategy<Value = (ServerFrameKind, Vec<u8>)> {
    let kind = prop_oneof![
        Just(ServerFrameKind::Text),
        Just(ServerFrameKind::Binary),
        Just(ServerFrameKind::Ping),
        Just(ServerFrameKind::Pong),
    ];
    (kind, vec(any::<u8>(), 0..300)).prop_map(|(kind, mut payload)| {
        if matches!(kind, ServerFrameKind::Ping | ServerFrameKind::Pong) {
            payload.truncate(125);
        }
        (kind, payload)
    })
}

/// The whole bytes at once, as the model for every other way they can arrive.
fn at_once(bytes: &[u8]) -> (Vec<Seen>, Option<ProtocolError>) {
    decode(bytes)
}

fn in_reads(bytes: &[u8], read_bytes: usize) -> (Vec<Seen>, Option<ProtocolError>) {
    let mut reader = Reader::new(None, LIMITS);
    for read in bytes.chunks(read_bytes) {
        if let Err(error) = reader.read(read) {
            return (reader.seen, Some(error));
        }
    }
    (reader.seen, None)
}

proptest! {
    #[test]
    fn what_a_client_sends_is_what_is_seen(sent in vec(sent(), 1..5)) {
        let frames: Vec<_> = sent.iter().flat_map(Sent::frames).collect();
        let expected: Vec<_> = sent.iter().flat_map(Sent::expected).collect();

        prop_assert_eq!(decode(&stream(&frames)), (expected, None));
    }

    #[test]
    fn a_split_at_any_byte_changes_nothing(sent in vec(sent(), 1..3)) {
        let frames: Vec<_> = sent.iter().flat_map(Sent::frames).collect();
        let bytes = stream(&frames);
        let expected: Vec<_> = sent.iter().flat_map(Sent::expected).collect();

        for split in 0..=bytes.len() {
            let mut reader = Reader::new(None, LIMITS);
            prop_assert!(reader.read(&bytes[..split]).is_ok());
            prop_assert!(reader.read(&bytes[split..]).is_ok());
            prop_assert_eq!(&reader.seen, &expected, "split at {}", split);
        }
        prop_assert_eq!(in_reads(&bytes, 1), (expected, None));
    }

    #[test]
    fn need_is_never_more_than_the_frame(frame_of in sent(), have in any::<prop::sample::Index>()) {
        let bytes = frame_of.frames()[0].bytes();
        let have = have.index(bytes.len());
        let mut reader = Reader::new(None, LIMITS);

        let need = reader.read(&bytes[..have]).expect("acceptable so far");

        prop_assert!(have < need && need <= bytes.len(), "{} of {}", need, bytes.len());
    }

    #[test]
    fn arbitrary_bytes_never_panic_and_reads_do_not_matter(
        bytes in vec(any::<u8>(), 0..200),
        read_bytes in 1usize..20,
        compressed in any::<bool>(),
    ) {
        let deflate = if compressed { agreed("permessage-deflate") } else { None };
        let _ = decode_with(deflate, Limits { frame_bytes_max: 100, message_bytes_max: 90 }, &bytes);

        prop_assert_eq!(in_reads(&bytes, read_bytes), at_once(&bytes));
    }

    #[test]
    fn arbitrary_masked_frames_never_panic(
        frames in vec(
            (any::<bool>(), 0u8..8, 0u8..16, any::<[u8; 4]>(), vec(any::<u8>(), 0..150)),
            0..6,
        ),
        read_bytes in 1usize..50,
    ) {
        let frames: Vec<_> = frames
            .into_iter()
            .map(|(fin, rsv, opcode, mask, payload)| ClientFrame { fin, rsv, opcode, mask, payload })
            .collect();
        let bytes = stream(&frames);
        let _ = decode_with(agreed("permessage-deflate"), LIMITS, &bytes);

        prop_assert_eq!(in_reads(&bytes, read_bytes), at_once(&bytes));
    }

    #[test]
    fn arbitrary_deflate_data_never_panics_nor_exceeds_the_limit(payloads in vec(vec(any::<u8>(), 0..100), 1..5)) {
        let limits = Limits { frame_bytes_max: 1 << 20, message_bytes_max: 300 };
        let frames: Vec<_> = payloads.iter().map(|payload| frame(BINARY, payload).rsv(RSV1)).collect();

        let (seen, _) = decode_with(agreed("permessage-deflate"), limits, &stream(&frames));

        for event in seen {
            let Seen::Message(_, message) = event else { panic!("{event:?}") };
            prop_assert!(message.len() <= 300);
        }
    }

    #[test]
    fn server_frames_are_read_back(frames in vec(server_frame(), 0..6), code in 1000u16..5000, reason in ".{0,100}") {
        let mut bytes = Vec::new();
        for (kind, payload) in &frames {
            match kind {
                ServerFrameKind::Text => write_frame(&mut bytes, Opcode::Text, payload),
                ServerFrameKind::Binary => write_frame(&mut bytes, Opcode::Binary, payload),
                ServerFrameKind::Ping => write_ping(&mut bytes, payload),
                ServerFrameKind::Pong => write_pong(&mut bytes, payload),
                ServerFrameKind::Close => unreachable!("not generated"),
            }
        }
        write_close(&mut bytes, code, &reason);

        let mut read = ServerFrames::new(&bytes);
        for (kind, payload) in &frames {
            prop_assert_eq!(read.next(), Some(ServerFrame { kind: *kind, payload }));
        }
        let close = read.next().expect("the close frame");
        prop_assert_eq!(close.kind, ServerFrameKind::Close);
        prop_assert_eq!(&close.payload[..2], &code.to_be_bytes());
        prop_assert!(reason.starts_with(std::str::from_utf8(&close.payload[2..]).expect("cut between characters")));
        prop_assert_eq!(read.next(), None);
        prop_assert!(read.rest().is_empty());
    }

    #[test]
    fn reading_back_arbitrary_bytes_never_panics(bytes in vec(any::<u8>(), 0..100)) {
        let read: usize = ServerFrames::new(&bytes).map(|frame| frame.payload.len() + 2).sum();

        prop_assert!(read <= bytes.len());
    }

    #[test]
    fn begin_and_end_equal_write(before in vec(any::<u8>(), 0..20), payload in vec(any::<u8>(), 0..300)) {
        let mut written = before.clone();
        write_frame(&mut written, Opcode::Text, &payload);

        let mut filled = before;
        let start = begin_frame(&mut filled);
        filled.extend_from_slice(&payload);
        end_frame(&mut filled, start, Opcode::Text);

        prop_assert_eq!(filled, written);
    }

    #[test]
    fn compressed_client_messages_are_read(
        messages in vec(vec(any::<u8>(), 0..600), 1..8),
        repeats in 1usize..4,
        takeover in any::<bool>(),
        window_bits in 9u8..=15,
    ) {
        let offer = format!(
            "permessage-deflate; client_max_window_bits={window_bits}{}",
            if takeover { "" } else { "; client_no_context_takeover" },
        );
        let mut client = Client::new(takeover, window_bits);
        let messages: Vec<_> = messages.iter().map(|message| message.repeat(repeats)).collect();
        let frames: Vec<_> = (0..2)
            .flat_map(|_| &messages)
            .map(|message| frame(BINARY, client.compress(message)).rsv(RSV1))
            .collect();

        let (seen, error) = decode_with(agreed(&offer), LIMITS, &stream(&frames));

        prop_assert_eq!(error, None);
        let expected: Vec<_> =
            (0..2).flat_map(|_| &messages).map(|message| Seen::Message(Opcode::Binary, message.clone())).collect();
        prop_assert_eq!(seen, expected);
    }

    #[test]
    fn compressed_server_messages_stand_alone(
        messages in vec(".{0,200}", 1..5),
        window_bits in 9u8..=15,
        level in 0u32..=9,
    ) {
        let mut compressor = Compressor::new(window_bits, level);
        for message in messages {
            let mut out = Vec::new();
            compressor.compress_frame(&mut out, Opcode::Text, message.as_bytes());

            prop_assert_eq!(read_back(&out), vec![text(&message)]);
        }
    }

    #[test]
    fn negotiation_never_panics_and_its_answer_is_an_acceptable_offer(offers in "[a-z_=;, 0-9-]{0,80}|permessage-deflate(; ?(client|server)_(max_window_bits=(8|15)|no_context_takeover)){0,4}") {
        if let Some((agreed, answer)) = negotiate(&offers) {
            prop_assert_eq!(negotiate(&answer), Some((agreed, answer)));
        }
    }
}

#[test]
fn a_long_context_is_kept_to_the_last_byte() {
    // The client refers back over the whole 32 KiB window, across many messages and past its end.
    let noise = noise(40_000);
    let mut client = Client::new(true, 15);
    let messages: Vec<&[u8]> = noise.chunks(1_111).chain(noise.chunks(32_000)).chain(noise.chunks(777)).collect();
    let frames: Vec<_> = messages.iter().map(|message| frame(BINARY, client.compress(message)).rsv(RSV1)).collect();

    let (seen, error) = decode_with(agreed("permessage-deflate"), LIMITS, &stream(&frames));

    assert_eq!(error, None);
    let expected: Vec<_> = messages.iter().map(|message| Seen::Message(Opcode::Binary, message.to_vec())).collect();
    assert_eq!(seen, expected);
}
