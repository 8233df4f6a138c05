//! What the server says when it starts: where it listens, what it serves from which file, what it refused and why.

use std::fmt::Write;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};

use crate::config::Config;
use crate::control::{Status, WayStatus};
use crate::registry::Checked;

/// The screen of a server that runs.
pub fn started(status: &Status) -> String {
    let mut out = format!("wshd {} is ready\n\n", env!("CARGO_PKG_VERSION"));
    let is_tls = |address: &SocketAddr| status.listening_tls.contains(address);
    let mut ports: Vec<(u16, bool)> = Vec::new();
    for address in &status.listening {
        let port = (address.port(), is_tls(address));
        if !ports.contains(&port) {
            ports.push(port);
        }
        let notes = match (address.ip().is_unspecified(), port.1) {
            (true, true) => "  (TLS; every address of this machine)",
            (true, false) => "  (every address of this machine)",
            (false, true) => "  (TLS)",
            (false, false) => "",
        };
        let _ = writeln!(out, "  listening on {address}{notes}");
    }
    for path in &status.listening_unix {
        let _ = writeln!(out, "  listening on {}", unix_url(path));
    }
    for certificate in &status.certificates {
        let names = certificate.names.join(" ");
        let _ = writeln!(out, "  certificate  {}  {names}", certificate.file.display());
    }
    if let Some(root) = &status.document_root {
        let ports = ports.iter().map(|port| format!("{}/", url("http", *port)));
        let urls: Vec<_> = ports.chain(status.listening_unix.iter().map(|path| unix_url(path))).collect();
        let _ = writeln!(out, "  pages        {} from {}", urls.join(" "), root.display());
    }
    let routes: Vec<_> = status
        .handlers
        .iter()
        .filter(|handler| handler.own_path)
        .filter_map(|handler| {
            let (file, active) = (handler.file.as_deref()?, handler.active.as_ref()?);
            Some((handler.path.as_str(), file, active.version.as_str()))
        })
        .collect();
    handlers(&mut out, &ports, &status.listening_unix, &routes);
    let ways = |ways: &[WayStatus]| {
        ways.iter().map(|way| (way.from.clone(), way.to.clone(), way.served)).collect::<Vec<_>>()
    };
    listed(&mut out, "routes", &ways(&status.routes));
    listed(&mut out, "aliases", &ways(&status.aliases));
    let files: Vec<_> =
        status.refused.iter().map(|refused| (refused.file.as_path(), refused.reason.as_str())).collect();
    refused(&mut out, &files, &status.notes);
    out
}

/// The screen of `wshd configtest`.
pub fn checked(checked: &Checked, config: &Config) -> String {
    let mut out = String::from("the config is sound\n");
    let routes: Vec<_> = checked
        .sound
        .iter()
        .filter(|(path, ..)| config.handlers.has_own_path(if path == "/" { path } else { &path[1..] }))
        .map(|(path, file, info)| (path.as_str(), file.as_path(), info.version.as_str()))
        .collect();
    handlers(&mut out, &config.listen.ports().collect::<Vec<_>>(), &config.listen.unix, &routes);
    listed(&mut out, "routes", &checked.routes);
    listed(&mut out, "aliases", &checked.aliases);
    let files: Vec<_> =
        checked.refused.iter().map(|refused| (refused.path.as_path(), refused.reason.as_str())).collect();
    refused(&mut out, &files, &checked.notes);
    out
}

/// The address of a port, and whether it speaks TLS, for a browser on this machine.
fn url(scheme: &str, (port, tls): (u16, bool)) -> String {
    format!("{scheme}{}://localhost:{port}", if tls { "s" } else { "" })
}

fn unix_url(path: &Path) -> String {
    format!("unix:{}", path.display())
}

fn handlers(out: &mut String, ports: &[(u16, bool)], unix: &[PathBuf], routes: &[(&str, &Path, &str)]) {
    out.push_str("\n  handlers\n");
    if routes.is_empty() {
        out.push_str("    none\n");
    }
    // A Unix socket has no URL of its own: what is in front decides that.
    let first = ports.first().map(|port| url("ws", *port)).unwrap_or_default();
    let urls: Vec<_> = routes.iter().map(|(path, ..)| format!("{first}{path}")).collect();
    let width = urls.iter().map(String::len).max().unwrap_or(0);
    for (url, (_, file, version)) in urls.iter().zip(routes) {
        let version = if version.is_empty() { String::new() } else { format!("  {version}") };
        let _ = writeln!(out, "    {url:width$}  {}{version}", file.display());
    }
    let others = ports.iter().skip(1).map(|port| url("ws", *port));
    for other in others.chain(unix.iter().map(|path| unix_url(path))) {
        let _ = writeln!(out, "    and the same on {other}");
    }
}

/// Routes or aliases: from where, to what, and whether that is there.
fn listed(out: &mut String, title: &str, ways: &[(String, String, bool)]) {
    if !ways.is_empty() {
        let _ = writeln!(out, "\n  {title}");
    }
    let width = ways.iter().map(|(from, ..)| from.chars().count()).max().unwrap_or(0);
    for (from, to, is_served) in ways {
        let not_served = if *is_served { "" } else { "  (not there: 404)" };
        let _ = writeln!(out, "    {from:width$}  {to}{not_served}");
    }
}

fn refused(out: &mut String, refused: &[(&Path, &str)], notes: &[String]) {
    if !refused.is_empty() {
        out.push_str("\n  refused\n");
    }
    for (path, reason) in refused {
        let _ = writeln!(out, "    {}\n        {reason}", path.display());
    }
    if !notes.is_empty() {
        out.push('\n');
    }
    for note in notes {
        let _ = writeln!(out, "  note: {note}");
    }
}
