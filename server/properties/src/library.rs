//! Any file is a library that can be loaded, or refused in words, before any of its code runs.

use wshd::registry::check::{LibraryInfo, check, never_unload_flags};

/// `bytes` are a file in a handlers folder.
pub fn library(bytes: &[u8]) {
    let checked = check(bytes);
    // The tables of a file are read where they lie, or copied to where they may be read.
    let shifted = [&[0], bytes].concat();
    assert_eq!(check(&shifted[1..]), checked, "at another address");
    match &checked {
        Ok(info) => is_printable(info),
        Err(error) => {
            let text = error.to_string();
            assert!(!text.is_empty() && text.len() < 400 && !text.contains('\n'), "{text}");
        }
    }
    let places = never_unload_flags(bytes);
    if places.is_empty() {
        return;
    }
    let mut patched = bytes.to_vec();
    for (at, value) in &places {
        patched.get_mut(*at..at + value.len()).expect("a flag lies in the file").copy_from_slice(value);
    }
    assert!(never_unload_flags(&patched).is_empty(), "the wish never to be unloaded is gone");
    if let Ok(info) = checked {
        assert_eq!(check(&patched), Ok(info), "and nothing else is");
    }
}

fn is_printable(info: &LibraryInfo) {
    for text in [&info.name, &info.version, &info.sdk] {
        assert!(text.len() <= 32 && !text.contains(char::is_control), "{text:?}");
    }
}
