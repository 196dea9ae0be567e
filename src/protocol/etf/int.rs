//! Integers of any size: no arithmetic but comparison, and decimal text both ways.

use std::cmp::Ordering;
use std::fmt;

use super::INT_BYTES_MAX;

/// Decimal digits that go into one step, and what they are worth.
const STEP_DIGITS: usize = 9;
const STEP: u64 = 1_000_000_000;

/// An integer.
#[derive(Clone, PartialEq, Eq)]
pub struct Int(Repr);

#[derive(Clone, PartialEq, Eq)]
enum Repr {
    Small(i64),
    /// Outside of 64 bits: the sign, and the amount with its lowest byte first and its highest not 0.
    Big {
        negative: bool,
        amount: Box<[u8]>,
    },
}

impl Int {
    /// An integer from its amount, lowest byte first; high bytes of 0 don't matter.
    pub fn from_amount(negative: bool, amount: &[u8]) -> Int {
        let used = amount.iter().rposition(|&byte| byte != 0).map_or(0, |at| at + 1);
        let amount = &amount[..used];
        if used <= 8 {
            let mut word = [0; 8];
            word[..used].copy_from_slice(amount);
            let value = i128::from(u64::from_le_bytes(word));
            if let Ok(value) = i64::try_from(if negative { -value } else { value }) {
                return Int(Repr::Small(value));
            }
        }
        Int(Repr::Big { negative, amount: amount.into() })
    }

    /// The whole part of a finite float.
    pub fn from_float(float: f64) -> Int {
        let bits = float.abs().trunc().to_bits();
        let exponent = usize::try_from(bits >> 52).expect("the sign is 0, so 11 bits are left");
        if exponent < 1023 {
            return Int::from(0);
        }
        // The float is fraction * 2^(exponent - 1075), and whole.
        let fraction = u128::from((bits & ((1 << 52) - 1)) | (1 << 52));
        if exponent < 1075 {
            let whole = fraction >> (1075 - exponent);
            return Int::from_amount(float < 0.0, &whole.to_le_bytes());
        }
        let shift = exponent - 1075;
        let mut amount = vec![0; shift / 8];
        amount.extend_from_slice(&(fraction << (shift % 8)).to_le_bytes());
        Int::from_amount(float < 0.0, &amount)
    }

    /// Reads decimal digits, with a minus sign before them or not. `None` for other text, or above [`INT_BYTES_MAX`].
    pub fn parse(text: &str) -> Option<Int> {
        let (negative, digits) = text.strip_prefix('-').map_or((false, text), |digits| (true, digits));
        // A byte is worth more than two digits, so that longer text can't fit.
        if digits.is_empty() || digits.len() > 3 * INT_BYTES_MAX || !digits.bytes().all(|byte| byte.is_ascii_digit()) {
            return None;
        }
        let mut limbs: Vec<u32> = Vec::new();
        let first = digits.len() % STEP_DIGITS;
        let (head, rest) = digits.as_bytes().split_at(first);
        for step in [head].into_iter().filter(|head| !head.is_empty()).chain(rest.chunks(STEP_DIGITS)) {
            let mut carry = step.iter().fold(0, |value, digit| value * 10 + u64::from(digit - b'0'));
            for limb in &mut limbs {
                let value = u64::from(*limb) * STEP + carry;
                *limb = low(value);
                carry = value >> 32;
            }
            if carry > 0 {
                limbs.push(low(carry));
            }
        }
        let amount: Vec<u8> = limbs.iter().flat_map(|limb| limb.to_le_bytes()).collect();
        let int = Int::from_amount(negative, &amount);
        (int.amount().1.len() <= INT_BYTES_MAX).then_some(int)
    }

    /// The value, if it is within 64 bits.
    pub fn as_i64(&self) -> Option<i64> {
        match self.0 {
            Repr::Small(value) => Some(value),
            Repr::Big { .. } => None,
        }
    }

    /// Whether it is below 0.
    pub fn is_negative(&self) -> bool {
        match self.0 {
            Repr::Small(value) => value < 0,
            Repr::Big { negative, .. } => negative,
        }
    }

    /// The sign and the amount, lowest byte first, without high bytes of 0.
    pub(super) fn amount(&self) -> (bool, Vec<u8>) {
        match &self.0 {
            Repr::Small(value) => {
                let mut amount = value.unsigned_abs().to_le_bytes().to_vec();
                while amount.last() == Some(&0) {
                    amount.pop();
                }
                (*value < 0, amount)
            }
            Repr::Big { negative, amount } => (*negative, amount.to_vec()),
        }
    }

    /// Compares with a finite float, exactly.
    pub(super) fn compare_float(&self, float: f64) -> Ordering {
        let whole = Int::from_float(float);
        let fraction = float - float.trunc();
        self.cmp(&whole).then(0.0_f64.partial_cmp(&fraction).unwrap_or(Ordering::Equal))
    }
}

fn low(value: u64) -> u32 {
    u32::try_from(value & u64::from(u32::MAX)).expect("the upper half is masked away")
}

impl From<i64> for Int {
    fn from(value: i64) -> Int {
        Int(Repr::Small(value))
    }
}

impl Ord for Int {
    fn cmp(&self, other: &Int) -> Ordering {
        if let (Repr::Small(one), Repr::Small(other)) = (&self.0, &other.0) {
            return one.cmp(other);
        }
        let (negative, amount) = self.amount();
        let (other_negative, other_amount) = other.amount();
        let by_amount =
            amount.len().cmp(&other_amount.len()).then_with(|| amount.iter().rev().cmp(other_amount.iter().rev()));
        match (negative, other_negative) {
            (false, false) => by_amount,
            (true, true) => by_amount.reverse(),
            (false, true) => Ordering::Greater,
            (true, false) => Ordering::Less,
        }
    }
}

impl PartialOrd for Int {
    fn partial_cmp(&self, other: &Int) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl fmt::Debug for Int {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl fmt::Display for Int {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (negative, amount) = match &self.0 {
            Repr::Small(value) => return value.fmt(f),
            Repr::Big { negative, amount } => (*negative, amount),
        };
        let mut limbs: Vec<u32> = amount
            .chunks(4)
            .map(|bytes| bytes.iter().rev().fold(0, |limb, byte| limb << 8 | u32::from(*byte)))
            .collect();
        let mut steps = Vec::new();
        while !limbs.is_empty() {
            let mut rest = 0;
            for limb in limbs.iter_mut().rev() {
                let value = rest << 32 | u64::from(*limb);
                *limb = low(value / STEP);
                rest = value % STEP;
            }
            steps.push(rest);
            while limbs.last() == Some(&0) {
                limbs.pop();
            }
        }
        let mut text = String::with_capacity(1 + steps.len() * STEP_DIGITS);
        text.push_str(if negative { "-" } else { "" });
        text.push_str(&steps.pop().unwrap_or(0).to_string());
        for step in steps.iter().rev() {
            text.push_str(&format!("{step:09}"));
        }
        f.write_str(&text)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn decimal_text_goes_both_ways() {
        for text in [
            "0",
            "-1",
            "9223372036854775807",
            "-9223372036854775808",
            "9223372036854775808",
            "18446744073709551616",
            "-123456789012345678901234567890",
            "1000000000000000000000000000",
        ] {
            assert_eq!(Int::parse(text).unwrap().to_string(), text);
        }
        for text in ["", "-", "+1", "1.0", "0x1", " 1"] {
            assert!(Int::parse(text).is_none(), "{text}");
        }
        assert_eq!(Int::parse("-000").unwrap(), Int::from(0));
    }

    #[test]
    fn what_is_longer_than_the_limit_is_no_integer() {
        let largest = Int::from_amount(false, &vec![0xff; INT_BYTES_MAX]).to_string();

        assert!(Int::parse(&largest).is_some());
        assert!(Int::parse(&format!("{largest}0")).is_none());
        assert!(Int::parse(&"9".repeat(1_000_000)).is_none());
    }

    #[test]
    fn integers_compare_with_floats_exactly() {
        let big = Int::parse("9007199254740993").unwrap();

        assert_eq!(big.compare_float(9_007_199_254_740_992.0), Ordering::Greater);
        assert_eq!(Int::from(1).compare_float(1.0), Ordering::Equal);
        assert_eq!(Int::from(1).compare_float(1.5), Ordering::Less);
        assert_eq!(Int::from(-1).compare_float(-1.5), Ordering::Greater);
        assert_eq!(Int::from(0).compare_float(-0.0), Ordering::Equal);
        assert_eq!(Int::from(0).compare_float(5e-324), Ordering::Less);
        assert_eq!(Int::from(i64::MIN).compare_float(-9_223_372_036_854_775_808.0), Ordering::Equal);
        assert_eq!(Int::parse(&format!("1{}", "0".repeat(400))).unwrap().compare_float(f64::MAX), Ordering::Greater);
        assert_eq!(Int::from_float(-1e22).to_string(), "-10000000000000000000000");
    }
}
