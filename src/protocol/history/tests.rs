//! What is kept, what a reader gets of it, and who goes on where.

mod wire;

use super::*;

const EPOCH: Epoch = Epoch(0x00ab_0000_0000_0001);
const ANOTHER: Epoch = Epoch(2);
const BEGUN: Time = Time(1_000);
const ENOUGH: Bounds = Bounds { messages_max: 1_000, bytes_max: 1 << 20, age_ms: 60_000 };

fn history() -> History<&'static str> {
    History::new(EPOCH)
}

/// A history of broadcasts of 10 bytes each, that come with the same time.
fn holding(items: &[&'static str], bounds: &Bounds) -> History<&'static str> {
    let mut history = history();
    for item in items {
        history.append(item, 10, bounds, BEGUN);
    }
    history
}

/// Offsets 1 to 7, of which 4 to 7 are kept.
fn four_of_seven() -> History<&'static str> {
    holding(&["a", "b", "c", "d", "e", "f", "g"], &Bounds { messages_max: 4, ..ENOUGH })
}

/// All that is kept.
fn kept<T: Clone>(history: &History<T>) -> Vec<(u64, T)> {
    history.behind(history.tail(), usize::MAX).expect("the tail is kept").items
}

fn after(epoch: Epoch, offset: u64) -> Resume {
    Resume::After(Position { epoch, offset })
}

// ── what is kept ────────────────────────────────────────────────────────────────────────────────────────────────────

#[test]
fn a_history_begins_empty_before_the_first_offset() {
    let history = history();

    assert_eq!((history.epoch(), history.head(), history.len(), history.bytes()), (EPOCH, 0, 0, 0));
    assert!(history.is_empty());
    assert_eq!(history.behind(0, 0), Ok(Behind { items: vec![], is_all: true }));
}

#[test]
fn offsets_count_from_one_whatever_is_let_go() {
    let mut history = history();

    let offsets = ["a", "b", "c"].map(|item| history.append(item, 10, &Bounds { messages_max: 1, ..ENOUGH }, BEGUN));

    assert_eq!(offsets, [1, 2, 3]);
    assert_eq!((history.head(), history.len(), history.is_empty()), (3, 1, false));
    assert_eq!(kept(&history), [(3, "c")]);
}

#[test]
fn as_many_messages_as_may_are_kept_the_newest() {
    let bounds = Bounds { messages_max: 3, ..ENOUGH };

    assert_eq!(kept(&holding(&["a", "b", "c"], &bounds)), [(1, "a"), (2, "b"), (3, "c")]);
    assert_eq!(kept(&holding(&["a", "b", "c", "d"], &bounds)), [(2, "b"), (3, "c"), (4, "d")]);
    assert_eq!(kept(&holding(&["a", "b"], &Bounds { messages_max: 0, ..ENOUGH })), []);
}

#[test]
fn as_many_bytes_as_may_are_kept_with_those_of_the_places() {
    let two = 2 * (10 + ENTRY_BYTES);

    let exactly = holding(&["a", "b", "c"], &Bounds { bytes_max: two, ..ENOUGH });
    let one_less = holding(&["a", "b", "c"], &Bounds { bytes_max: two - 1, ..ENOUGH });

    assert_eq!((kept(&exactly), exactly.bytes()), (vec![(2, "b"), (3, "c")], two));
    assert_eq!((kept(&one_less), one_less.bytes()), (vec![(3, "c")], two / 2));
}

#[test]
fn a_broadcast_larger_than_all_that_may_be_kept_has_an_offset_and_goes_with_all_before() {
    let bounds = Bounds { bytes_max: 400, ..ENOUGH };
    let mut history = holding(&["a", "b"], &bounds);

    assert_eq!(history.append("large", 400, &bounds, BEGUN), 3);

    assert_eq!((history.len(), history.bytes()), (0, 0));
    assert_eq!(history.append("c", 10, &bounds, BEGUN), 4);
    assert_eq!(kept(&history), [(4, "c")]);
}

#[test]
fn bytes_beyond_all_reckoning_are_let_go_like_others() {
    let bounds = Bounds { bytes_max: usize::MAX, ..ENOUGH };
    let mut history = history();
    for bytes in [10, usize::MAX, 10, usize::MAX] {
        history.append("a", bytes, &bounds, BEGUN);
    }

    assert!(history.has_at_most(3, usize::MAX) && !history.has_at_most(0, usize::MAX), "as if it were more");
    assert_eq!(history.behind(0, usize::MAX).expect("all is kept").items.len(), 4);
    while history.let_go() {}
    assert_eq!((history.len(), history.bytes()), (0, 0));

    history.append("b", 10, &ENOUGH, BEGUN);
    history.append("c", usize::MAX, &ENOUGH, BEGUN);
    assert_eq!((history.len(), history.bytes()), (0, 0));
}

#[test]
fn a_broadcast_is_kept_for_its_age_and_not_a_millisecond_longer() {
    let mut history = history();
    history.append("a", 10, &ENOUGH, BEGUN);
    history.append("b", 10, &ENOUGH, BEGUN + 5);

    history.trim(&ENOUGH, BEGUN + (ENOUGH.age_ms - 1));
    assert_eq!(history.len(), 2);
    history.trim(&ENOUGH, BEGUN + ENOUGH.age_ms);
    assert_eq!(kept(&history), [(2, "b")]);
    history.trim(&ENOUGH, BEGUN + ENOUGH.age_ms + 5);

    assert_eq!((history.len(), history.bytes(), history.head()), (0, 0, 2));
}

#[test]
fn appending_lets_go_of_what_is_too_old() {
    let mut history = holding(&["a", "b"], &ENOUGH);

    history.append("c", 10, &ENOUGH, BEGUN + ENOUGH.age_ms);

    assert_eq!((kept(&history), history.bytes()), (vec![(3, "c")], 10 + ENTRY_BYTES));
}

#[test]
fn narrower_bounds_hold_from_the_next_trim_on() {
    let mut history = four_of_seven();

    history.trim(&Bounds { messages_max: 2, ..ENOUGH }, BEGUN);

    assert_eq!(kept(&history), [(6, "f"), (7, "g")]);
}

#[test]
fn the_oldest_is_let_go_by_itself_until_there_is_none() {
    let mut history = holding(&["a", "b"], &ENOUGH);

    assert!(history.let_go());
    assert_eq!((kept(&history), history.bytes()), (vec![(2, "b")], 10 + ENTRY_BYTES));
    assert!(history.let_go());
    assert!(!history.let_go(), "there is none");

    assert_eq!((history.head(), history.len(), history.bytes()), (2, 0, 0));
}

#[test]
fn a_history_goes_on_where_another_stopped() {
    let before = four_of_seven();
    let stored: Vec<_> = before.kept().map(|(item, at)| (*item, 10, at)).collect();
    assert_eq!(stored, [("d", 10, BEGUN), ("e", 10, BEGUN), ("f", 10, BEGUN), ("g", 10, BEGUN)]);

    let mut history = History::resumed(EPOCH, before.head(), stored);

    assert_eq!((history.epoch(), history.head(), history.bytes()), (EPOCH, 7, before.bytes()));
    assert_eq!(kept(&history), kept(&before));
    assert_eq!(history.start(&after(EPOCH, 3)), (3, None));
    assert_eq!(history.append("h", 10, &ENOUGH, BEGUN + 50), 8);
    history.trim(&ENOUGH, BEGUN + ENOUGH.age_ms);
    assert_eq!(kept(&history), [(8, "h")], "the others are as old as they were");
}

#[test]
fn of_more_broadcasts_than_there_were_offsets_the_newest_are_taken() {
    let stored = || ["a", "b", "c"].map(|item| (item, usize::MAX, BEGUN)).to_vec();

    let history = History::resumed(EPOCH, 2, stored());

    assert_eq!((kept(&history), history.bytes()), (vec![(1, "b"), (2, "c")], usize::MAX));
    assert!(History::resumed(EPOCH, 0, stored()).is_empty());
    assert_eq!(History::resumed(EPOCH, 9, stored()).tail(), 6);
}

#[test]
fn who_is_present_is_not_kept() {
    assert!(!is_kept("presence_diff"));
    assert!(["new_msg", "presence_state", "presence_diff2", "Presence_diff", ""].into_iter().all(is_kept));
}

// ── where a client goes on ──────────────────────────────────────────────────────────────────────────────────────────

fn gap(offset: u64, from: Option<u64>, reason: GapReason) -> Gap {
    Gap { epoch: EPOCH, offset, from, reason }
}

#[test]
fn who_asks_without_a_position_goes_on_from_now() {
    assert_eq!(history().start(&Resume::FromNow), (0, None));
    assert_eq!(four_of_seven().start(&Resume::FromNow), (7, None));
}

#[test]
fn who_has_the_offset_before_the_oldest_or_a_later_one_goes_on_there() {
    for offset in 3..=7 {
        assert_eq!(four_of_seven().start(&after(EPOCH, offset)), (offset, None));
    }
    assert_eq!(history().start(&after(EPOCH, 0)), (0, None));
}

#[test]
fn who_misses_one_that_is_gone_goes_on_at_the_head_behind_a_gap() {
    for offset in 0..3 {
        let told = four_of_seven().start(&after(EPOCH, offset));
        assert_eq!(told, (7, Some(gap(7, Some(offset), GapReason::Expired))));
    }
}

#[test]
fn who_has_all_of_a_history_of_which_nothing_is_left_misses_nothing() {
    let mut history = holding(&["a", "b"], &ENOUGH);
    history.trim(&ENOUGH, BEGUN + ENOUGH.age_ms);

    assert_eq!(history.start(&after(EPOCH, 2)), (2, None));
    assert_eq!(history.start(&after(EPOCH, 1)), (2, Some(gap(2, Some(1), GapReason::Expired))));
}

#[test]
fn who_is_ahead_of_the_head_goes_on_there_behind_a_gap() {
    for offset in [8, OFFSET_MAX, u64::MAX] {
        let told = four_of_seven().start(&after(EPOCH, offset));
        assert_eq!(told, (7, Some(gap(7, Some(offset), GapReason::Future))));
    }
}

#[test]
fn who_was_in_another_epoch_goes_on_at_the_head_behind_a_gap_from_nowhere() {
    for offset in [0, 3, 7, 8] {
        assert_eq!(four_of_seven().start(&after(ANOTHER, offset)), (7, Some(gap(7, None, GapReason::Epoch))));
    }
    assert_eq!(history().start(&after(ANOTHER, 0)), (0, Some(gap(0, None, GapReason::Epoch))));
}

// ── what is behind ──────────────────────────────────────────────────────────────────────────────────────────────────

#[test]
fn what_is_behind_an_offset_comes_oldest_first_with_its_offsets() {
    let history = four_of_seven();

    let items = |after| history.behind(after, usize::MAX).expect("it is kept").items;

    assert_eq!(items(3), [(4, "d"), (5, "e"), (6, "f"), (7, "g")]);
    assert_eq!(items(5), [(6, "f"), (7, "g")]);
    assert_eq!(items(7), []);
}

#[test]
fn as_many_whole_broadcasts_come_as_fit() {
    let history = four_of_seven();
    let one = 10 + ENTRY_BYTES;

    let piece = |after, bytes_max| {
        let Behind { items, is_all } = history.behind(after, bytes_max).expect("it is kept");
        (items.iter().map(|(offset, _)| *offset).collect::<Vec<_>>(), is_all)
    };

    assert_eq!(piece(3, 2 * one), (vec![4, 5], false));
    assert_eq!(piece(3, 3 * one - 1), (vec![4, 5], false));
    assert_eq!(piece(3, 4 * one - 1), (vec![4, 5, 6], false));
    assert_eq!(piece(3, 4 * one), (vec![4, 5, 6, 7], true));
    assert_eq!(piece(5, 2 * one), (vec![6, 7], true));
}

#[test]
fn one_broadcast_comes_though_it_does_not_fit() {
    let history = four_of_seven();

    assert_eq!(history.behind(3, 0), Ok(Behind { items: vec![(4, "d")], is_all: false }));
    assert_eq!(history.behind(6, 0), Ok(Behind { items: vec![(7, "g")], is_all: true }));
    assert_eq!(history.behind(7, 0), Ok(Behind { items: vec![], is_all: true }));
}

#[test]
fn a_reader_that_misses_one_that_is_gone_is_given_the_gap_and_nothing_else() {
    let history = four_of_seven();

    for offset in [0, 2, 8, u64::MAX] {
        assert_eq!(history.behind(offset, usize::MAX), Err(gap(7, Some(offset), GapReason::Slow)));
        assert!(!history.has_at_most(offset, usize::MAX));
    }
}

#[test]
fn bytes_behind_an_offset_are_those_of_the_broadcasts_and_their_places() {
    let mut history = history();
    for bytes in [1, 20, 300] {
        history.append("a", bytes, &ENOUGH, BEGUN);
    }

    let bytes = [321 + 3 * ENTRY_BYTES, 320 + 2 * ENTRY_BYTES, 300 + ENTRY_BYTES, 0];
    assert_eq!(bytes[0], history.bytes());
    for (after, bytes) in (0..).zip(bytes) {
        assert!(history.has_at_most(after, bytes), "{after}");
        assert!(bytes == 0 || !history.has_at_most(after, bytes - 1), "{after}");
    }
}

// ── readers ─────────────────────────────────────────────────────────────────────────────────────────────────────────

#[test]
fn a_live_reader_is_given_what_it_does_not_have() {
    let mut reader = Reader::live(4);

    assert_eq!([3, 4, 5, 5, 6].map(|offset| reader.offer(offset, true)), {
        use Offer::{Give, Skip};
        [Skip, Skip, Give, Skip, Give]
    });
    assert_eq!(reader.after(), 6);
}

#[test]
fn a_reader_without_room_falls_behind_once_where_it_stands() {
    let mut reader = Reader::live(4);
    reader.offer(5, true);

    assert_eq!(reader.offer(6, false), Offer::FallBehind);
    assert_eq!([reader.offer(7, false), reader.offer(8, true)], [Offer::Skip; 2], "the history has them");

    assert_eq!((reader.after(), reader), (5, Reader::behind(5)));
}

#[test]
fn what_a_reader_has_needs_no_room() {
    let mut reader = Reader::live(4);

    assert_eq!(reader.offer(4, false), Offer::Skip);

    assert_eq!(reader, Reader::live(4));
}

#[test]
fn a_reader_that_begins_behind_is_given_nothing_until_it_has_caught_up() {
    let mut reader = Reader::behind(4);
    assert_eq!((reader.offer(5, true), reader.after()), (Offer::Skip, 4));

    reader.caught_up(7);

    assert_eq!(reader, Reader::live(7));
    assert_eq!([7, 8].map(|offset| reader.offer(offset, true)), [Offer::Skip, Offer::Give]);
}

// ── the latest ──────────────────────────────────────────────────────────────────────────────────────────────────────

#[test]
fn of_each_key_the_last_is_left_in_the_order_of_the_offsets() {
    let items = vec![(4, "b1"), (5, "a1"), (6, "b2"), (7, "c1"), (8, "a2"), (9, "a3")];

    let left = thin(items, |item| item.as_bytes()[0]);

    assert_eq!(left, [(6, "b2"), (7, "c1"), (9, "a3")]);
}

#[test]
fn what_has_one_key_each_is_left_as_it_is() {
    let items = vec![(1, "c"), (2, "a"), (3, "b")];

    assert_eq!(thin(items.clone(), |item| *item), items);
    assert_eq!(thin(Vec::<(u64, &str)>::new(), |item| *item), []);
}
