//! Ids that nobody guesses: 128 random bits, written as hex digits.

use crate::random;

const DIGITS: &[u8; 16] = b"0123456789abcdef";

/// 128 bits as 32 lower-case hex digits.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Hex([u8; 32]);

impl Hex {
    /// Draws a number at random.
    pub(crate) fn draw() -> u128 {
        u128::from_be_bytes(random::bytes())
    }

    /// The digits of a number.
    pub(crate) fn of(number: u128) -> Self {
        let mut digits = [0; 32];
        for (byte, pair) in number.to_be_bytes().into_iter().zip(digits.chunks_exact_mut(2)) {
            pair.copy_from_slice(&[DIGITS[usize::from(byte >> 4)], DIGITS[usize::from(byte & 15)]]);
        }
        Hex(digits)
    }

    /// The digits.
    pub(crate) fn as_str(&self) -> &str {
        std::str::from_utf8(&self.0).expect("digits are ASCII")
    }

    /// The number that a text of 32 lower-case hex digits names.
    pub(crate) fn number(text: &str) -> Option<u128> {
        let is_id = text.len() == 32 && text.bytes().all(|byte| DIGITS.contains(&byte));
        is_id.then(|| u128::from_str_radix(text, 16).ok()).flatten()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_number_has_one_spelling() {
        for number in [0, 1, 0x0123_4567_89ab_cdef_u128 << 60, u128::MAX, Hex::draw()] {
            let text = Hex::of(number).as_str().to_owned();
            assert_eq!((text.as_str(), Hex::number(&text)), (format!("{number:032x}").as_str(), Some(number)));
            assert_eq!(Hex::number(&text[1..]), None);
        }
        assert_eq!(Hex::number(&"A".repeat(32)), None);
        assert_eq!(Hex::number(&format!("+{}", "0".repeat(31))), None);
    }
}
