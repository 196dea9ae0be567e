//! Ids that sort by the time at which they were drawn.
//!
//! Source: RFC 9562, UUID version 7, whose `rand_a` holds the microseconds of the millisecond.

use crate::{clock, random};

/// Draws an id.
pub(super) fn draw() -> String {
    let micros = u128::from(clock::unix_micros());
    let random = u128::from(u64::from_be_bytes(random::bytes()));
    spell((micros / 1_000) << 80 | 7 << 76 | (micros % 1_000) << 64 | 2 << 62 | random >> 2)
}

/// The id that follows another.
pub(super) fn after(id: &str) -> String {
    let digits: String = id.chars().filter(|c| *c != '-').collect();
    spell(u128::from_str_radix(&digits, 16).unwrap_or_default().wrapping_add(1))
}

/// A number as a UUID is spelt.
fn spell(number: u128) -> String {
    let digits = format!("{number:032x}");
    [&digits[..8], &digits[8..12], &digits[12..16], &digits[16..20], &digits[20..]].join("-")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ids_are_uuids_in_the_order_in_which_they_were_drawn() {
        let before = clock::unix_micros() / 1_000;
        let first = draw();
        while clock::unix_micros() / 1_000 == before {}
        let second = draw();

        assert!(first < second, "{first} {second}");
        for id in [first, second] {
            let lengths: Vec<_> = id.split('-').map(str::len).collect();
            assert_eq!(lengths, [8, 4, 4, 4, 12], "{id}");
            assert!(id.as_bytes()[14] == b'7' && b"89ab".contains(&id.as_bytes()[19]), "{id}");
        }
    }

    #[test]
    fn an_id_is_followed_by_a_larger_one() {
        let id = "0199f0a5-7c00-7000-8000-0000000000ff";

        assert_eq!(after(id), "0199f0a5-7c00-7000-8000-000000000100");
    }
}
