//! What a peer sends, through the state machine of a connection.
#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| wshd_properties::frames(bytes));
