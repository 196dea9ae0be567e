//! The only place that draws randomness: the operating system's.

/// Draws `N` random bytes.
#[expect(clippy::disallowed_methods, reason = "this module is where randomness is drawn")]
pub fn bytes<const N: usize>() -> [u8; N] {
    let mut bytes = [0; N];
    getrandom::fill(&mut bytes).expect("the operating system gives random bytes");
    bytes
}
