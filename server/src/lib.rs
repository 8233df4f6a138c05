//! The server behind the binary `wshd`: a WebSocket server that loads its handlers as shared libraries.
//!
//! Not a public API: the items are `pub` for the binary, the tests and the benchmarks.
//!
//! The modules stand in the order a byte travels. *Front threads* run `listener`, `tls`, `http` and `router`: they accept, shake
//! hands, speak HTTP, and ask the worker that will serve the peer whether its handler wants it. Then the stream is handed over, and
//! from there on everything happens on one *worker* of the route's generation: `generation`, `session`, the crate `wshd_protocol`,
//! and through `handler` the code of the library. Beside the path stands what changes while it runs: `cli`, `config`, `control`,
//! `registry`.
//!
//! ```text
//! listener -> (tls) -> http -> router -> [hand-over] -> generation -> session <=> wshd_protocol
//!                                                                        |  ^
//!                                                                        v  | outgoing (bounded)
//!                                                                    handler -- C ABI -- libNAME_wsh.so
//! ```

pub mod auth;
pub mod cli;
pub mod config;
pub mod control;
pub mod log;
pub mod screen;
pub mod server;
pub mod tls;

mod admission;
mod generation;
mod http;
mod listener;
mod metrics;
mod router;
mod secret;
mod session;
mod socket_file;
mod sync;
mod topics;
mod windows;
// The room where pointers of the C contract become references and back.
#[allow(unsafe_code)]
mod handler;

pub mod pywebsocket;
pub mod registry;

// For authors of handlers: a new project, and a server that follows its sources.
pub mod dev;
pub mod scaffold;

pub use control::StartError;
pub use handler::exit_at_once;
pub use listener::BindError;
pub use server::Server;
