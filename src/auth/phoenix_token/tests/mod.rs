//! Tokens of a real Plug.Crypto, and what an attacker makes of tokens.

mod attacks;
mod fixtures;
