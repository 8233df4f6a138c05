//! A server on a free port, and clients that talk to it.
//!
//! Every wait of a client has a generous deadline, so that a hang is a failure and not an endless run.

mod client;
mod fixture;
mod process;
mod server;
mod tls;

pub(crate) use client::{Client, Raw, connect, masked, upgrade_head};
pub(crate) use fixture::{compile_c, compile_c_text, compile_c_with, compile_example, handler_library};
pub(crate) use process::{ServerProcess, wait_for, wshd};
pub(crate) use server::{TestServer, say};
pub(crate) use tls::{Authority, Pair, PairFiles, TlsStream, shake_hands, shake_hands_over};
