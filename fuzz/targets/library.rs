//! Files in a handlers folder.
#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| wshd_properties::library(bytes));
