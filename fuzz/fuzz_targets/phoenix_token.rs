#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| bennu::auth::phoenix_token::fuzz::phoenix_token(data));
