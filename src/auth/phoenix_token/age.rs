//! How old a token may be.

use crate::protocol::etf::{Int, Term};

use super::TokenError;

/// Integers beyond this count as this: no time and no age that matters is near it.
const FAR: i128 = 1 << 100;
/// [`FAR`] as a float, exactly.
const FAR_FLOAT: f64 = 1_267_650_600_228_229_401_496_703_205_376.0;

/// How long after its signing a token counts.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum MaxAge {
    /// For ever.
    Infinity,
    /// Whole seconds; 0 and less is never.
    Seconds(i64),
    /// Seconds with a fraction, of which milliseconds count.
    Fraction(f64),
}

impl Default for MaxAge {
    fn default() -> MaxAge {
        MaxAge::Seconds(super::MAX_AGE_DEFAULT_S)
    }
}

impl From<MaxAge> for Term {
    fn from(max_age: MaxAge) -> Term {
        match max_age {
            MaxAge::Infinity => Term::infinity(),
            MaxAge::Seconds(seconds) => Term::int(seconds),
            MaxAge::Fraction(seconds) => Term::Float(seconds),
        }
    }
}

#[derive(Clone, Copy)]
enum Number {
    Int(i128),
    Float(f64),
}

impl Number {
    fn of(term: &Term) -> Option<Number> {
        match term {
            Term::Int(int) => Some(Number::Int(near(int))),
            Term::Float(float) => Some(Number::Float(*float)),
            _ => None,
        }
    }

    fn is_below(self, other: i128) -> bool {
        match self {
            Number::Int(int) => int < other,
            Number::Float(float) => whole(float.floor()) < other,
        }
    }

    fn is_above(self, other: i128) -> bool {
        match self {
            Number::Int(int) => int > other,
            Number::Float(float) => whole(float.ceil()) > other,
        }
    }
}

/// An integer, or what is [`FAR`] away.
fn near(int: &Int) -> i128 {
    match int.as_i64() {
        Some(int) => i128::from(int),
        // Beyond 64 bits is beyond every time in milliseconds.
        None if int.is_negative() => -FAR,
        None => FAR,
    }
}

/// A float's whole part, or what is [`FAR`] away.
fn whole(float: f64) -> i128 {
    if float.abs() >= FAR_FLOAT {
        return if float < 0.0 { -FAR } else { FAR };
    }
    #[expect(clippy::cast_possible_truncation, reason = "it is below 2^100, and the fraction is meant to go")]
    let whole = float as i128;
    whole
}

/// Checks the age of a token, whose time of signing and max age may be any terms.
///
/// The order is Plug.Crypto's: no limit, no time at all, signed in the future, too old. Erlang's order puts what is not
/// a number behind all numbers, so that such a time of signing is in the future; such a max age makes it raise.
pub(super) fn check(signed_at: &Term, max_age: &Term, now_ms: u64) -> Result<(), TokenError> {
    if max_age.as_atom() == Some("infinity") {
        return Ok(());
    }
    let max_age = Number::of(max_age);
    if max_age.is_some_and(|max_age| !max_age.is_above(0)) {
        return Err(TokenError::Expired);
    }
    let now = i128::from(now_ms);
    let (Some(signed_at), Some(max_age)) = (Number::of(signed_at), max_age) else { return Err(TokenError::Invalid) };
    if signed_at.is_above(now) {
        return Err(TokenError::Invalid);
    }
    let max_age_ms = match max_age {
        Number::Int(seconds) => seconds * 1000,
        Number::Float(seconds) if (seconds * 1000.0).is_finite() => whole(seconds * 1000.0),
        Number::Float(_) => return Err(TokenError::Invalid),
    };
    let until = match signed_at {
        Number::Int(signed_at) => Number::Int(signed_at + max_age_ms),
        #[expect(clippy::cast_precision_loss, reason = "Erlang adds an integer to a float with the same loss")]
        Number::Float(signed_at) => Number::Float(signed_at + max_age_ms as f64),
    };
    if until.is_below(now) { Err(TokenError::Expired) } else { Ok(()) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ages_are_checked_in_plug_cryptos_order() {
        let expired = Err(TokenError::Expired);
        let invalid = Err(TokenError::Invalid);
        let int = Term::int;
        let big = |text: &str| Term::Int(Int::parse(text).unwrap());
        let huge = "123456789012345678901234567890";
        for (signed_at, max_age, verdict) in [
            (int(1_000), int(1), Ok(())),
            (int(999), int(1), expired),
            (int(2_001), int(1), invalid),
            (int(2_001), int(0), expired),
            (int(2_001), Term::infinity(), Ok(())),
            (Term::nil(), Term::infinity(), Ok(())),
            (Term::nil(), int(1), invalid),
            (Term::nil(), int(0), expired),
            (int(1_000), Term::nil(), invalid),
            (int(1_999), Term::Float(0.0019), Ok(())),
            (int(1_998), Term::Float(0.0019), expired),
            (int(1_998), Term::Float(-0.5), expired),
            (int(2_000), Term::Float(0.0), expired),
            (int(2_000), Term::Float(0.0001), Ok(())),
            (int(1), Term::Float(1e308), invalid),
            (int(1), Term::Float(1e300), Ok(())),
            (Term::Float(1_000.5), int(1), Ok(())),
            (Term::Float(999.5), int(1), expired),
            (Term::Float(2_000.0), int(1), Ok(())),
            (Term::Float(2_000.5), int(1), invalid),
            (Term::Float(1e300), int(1), invalid),
            (Term::Float(-1e300), int(1), expired),
            (big(huge), int(1), invalid),
            (big(&format!("-{huge}")), int(1), expired),
            (int(-5), big(huge), Ok(())),
            (int(2_000), big(&format!("-{huge}")), expired),
        ] {
            assert_eq!(check(&signed_at, &max_age, 2_000), verdict, "{signed_at:?} {max_age:?}");
        }
    }
}
