//! Erlang terms, held against what is written of them.

use crate::protocol::etf;

/// Bytes of a term. What is read is written, read again, compared and put into JSON without a difference.
pub fn erlang_term(bytes: &[u8]) {
    etf::fuzz(bytes);
}
