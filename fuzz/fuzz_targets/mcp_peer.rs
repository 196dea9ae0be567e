#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| bennu::protocol::fuzz::mcp_peer(data));
