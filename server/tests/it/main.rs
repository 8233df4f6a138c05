//! The whole server, with real sockets on port 0 and real handler libraries. One binary, so that it is linked once.

mod support;

mod auth; // who is let in
mod backpressure; // peers that do not read
mod builds; // one handler, built in every way
mod cgi; // programs that answer requests
mod compression; // permessage-deflate
mod containment; // panics everywhere, and who is not hurt
mod control; // config reloads, signals, the control socket
mod dispatch; // the rules of pywebsocket for files and requests, and where this server differs
mod examples; // the example handlers, as clients meet them
mod faces; // handlers that are written from top to bottom
mod files; // static files
mod fronted; // behind another server: Unix sockets, and whom a proxy comes for
mod handlers; // libraries of every kind, sound and broken, and handlers that misbehave
mod holding; // handlers that are not ready for more
mod limits; // every bound of `[limits]` is reached once
mod messages; // text, binary, sizes, fragments, control frames, closing
mod program; // command line, screen, messages, signals, exit codes
mod project; // a new handler project, and a server that follows its sources
mod raw; // handlers that go beyond a WebSocket, with and without the leave of the config
mod reload; // new code under open connections
mod routing; // paths, hosts and aliases to handlers
mod services; // what a handler can ask of the server beyond its session
mod shutdown; // the end of the server
mod tidy; // what the documents say about the code is true
mod tls; // the same inside of TLS, certificates, and clients that show theirs
mod topics; // what is published, and who hears it
mod upgrade; // the opening handshake and its refusals
