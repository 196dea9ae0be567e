#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| bennu::protocol::fuzz::resume_params(data));
