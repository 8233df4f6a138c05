//! Requests that want to become WebSockets.
#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| wshd_properties::handshake(bytes));
