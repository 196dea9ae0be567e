//! Floats as text, the shortest that reads back as the same float.

/// From here on away from 0, floats are written with an exponent. It is 2^53.
const EXPONENT_FROM: f64 = 9_007_199_254_740_992.0;

/// Writes a finite float as Erlang does: `3.0`, `-2.5e-10`, `1.0e300`. It is JSON as well.
///
/// Of the notations with and without an exponent the shorter is taken, without if they are of a length.
///
/// Source: `float_to_binary(Float, [short])` of OTP 25.
pub(super) fn float_text(float: f64) -> String {
    if float == 0.0 {
        return if float.is_sign_negative() { "-0.0" } else { "0.0" }.to_string();
    }
    let shortest = format!("{:e}", float.abs());
    let (mantissa, exponent) = shortest.split_once('e').expect("the notation has an exponent");
    let digits = mantissa.replace('.', "");
    let exponent: i32 = exponent.parse().expect("the exponent is a small integer");
    let sign = if float < 0.0 { "-" } else { "" };
    let text = with_exponent(&digits, exponent);
    let plain = without_exponent(&digits, exponent);
    if float.abs() < EXPONENT_FROM && plain.len() <= text.len() {
        return format!("{sign}{plain}");
    }
    format!("{sign}{text}")
}

fn with_exponent(digits: &str, exponent: i32) -> String {
    let (first, rest) = digits.split_at(1);
    format!("{first}.{}e{exponent}", if rest.is_empty() { "0" } else { rest })
}

fn without_exponent(digits: &str, exponent: i32) -> String {
    let Ok(before) = usize::try_from(exponent + 1) else {
        let zeros = usize::try_from(-exponent - 1).expect("the exponent is below -1");
        return format!("0.{}{digits}", "0".repeat(zeros));
    };
    if before == 0 {
        return format!("0.{digits}");
    }
    if before >= digits.len() {
        return format!("{digits}{}.0", "0".repeat(before - digits.len()));
    }
    let (whole, fraction) = digits.split_at(before);
    format!("{whole}.{fraction}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn floats_read_as_erlang_writes_them() {
        for (float, text) in [
            (0.0, "0.0"),
            (-0.0, "-0.0"),
            (1.5, "1.5"),
            (3.0, "3.0"),
            (100.0, "100.0"),
            (1000.0, "1.0e3"),
            (1234.0, "1234.0"),
            (123_000.0, "1.23e5"),
            (0.1, "0.1"),
            (0.001, "0.001"),
            (0.0001, "0.0001"),
            (0.00001, "1.0e-5"),
            (-0.0025, "-0.0025"),
            (-2.5e-10, "-2.5e-10"),
            (1e300, "1.0e300"),
            (9_007_199_254_740_991.0, "9007199254740991.0"),
            (9_007_199_254_740_992.0, "9.007199254740992e15"),
            (5e-324, "5.0e-324"),
        ] {
            assert_eq!(float_text(float), text);
        }
    }
}
