//! The only place that draws randomness: the operating system's.

use std::cell::RefCell;

/// Bytes that a thread draws at once, so that an id does not cost a call of the system.
const POOL_BYTES: usize = 512;

struct Pool {
    bytes: [u8; POOL_BYTES],
    used: usize,
}

thread_local! {
    static POOL: RefCell<Pool> = const { RefCell::new(Pool { bytes: [0; POOL_BYTES], used: POOL_BYTES }) };
}

/// Draws `N` random bytes, at most [`POOL_BYTES`].
pub fn bytes<const N: usize>() -> [u8; N] {
    POOL.with_borrow_mut(|pool| {
        if POOL_BYTES - pool.used < N {
            fill(&mut pool.bytes);
            pool.used = 0;
        }
        let taken = &mut pool.bytes[pool.used..pool.used + N];
        let bytes = <[u8; N]>::try_from(&*taken).expect("the slice has N bytes");
        // What was given away is kept nowhere else.
        taken.fill(0);
        pool.used += N;
        bytes
    })
}

#[expect(clippy::disallowed_methods, reason = "this module is where randomness is drawn")]
fn fill(bytes: &mut [u8]) {
    getrandom::fill(bytes).expect("the operating system gives random bytes");
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_bytes_come_twice() {
        let drawn: std::collections::BTreeSet<[u8; 16]> = (0..10_000).map(|_| bytes()).collect();

        assert_eq!(drawn.len(), 10_000);
        assert!(!drawn.contains(&[0; 16]));
    }
}
