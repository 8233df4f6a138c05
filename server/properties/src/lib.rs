//! What has to hold for any input: the properties that the fuzz targets look for exceptions to.
//!
//! Each property is a function of the bytes that a fuzzer makes up, and panics where it does not hold. The targets in `fuzz/targets`
//! call one each, under libFuzzer (`cargo xtask fuzz`); the test of this crate calls all of them with the files of `fuzz/corpus`,
//! so that what was found once is looked at in every `cargo test`. Nothing here reaches into what is private of the crates that
//! are judged: a peer, an operator or a file could do all of it.

mod close;
mod config;
mod extensions;
mod frames;
mod handshake;
mod inflate;
mod library;
mod wire;

pub use close::close;
pub use config::config;
pub use extensions::extensions;
pub use frames::frames;
pub use handshake::handshake;
pub use inflate::inflate;
pub use library::library;

/// Panics where it does not hold for these bytes.
pub type Property = fn(&[u8]);

/// All of them, by the names of their fuzz targets and corpora.
pub const ALL: [(&str, Property); 7] = [
    ("handshake", handshake),
    ("extensions", extensions),
    ("frames", frames),
    ("inflate", inflate),
    ("close", close),
    ("config", config),
    ("library", library),
];
