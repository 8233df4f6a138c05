//! What the server says when it starts: where it listens, what it serves from which file, what it refused and why.

use std::fmt::Write;
use std::path::Path;

use crate::registry::Checked;
use crate::registry::check::LibraryInfo;
use crate::registry::scan::Refused;
use crate::server::Report;

/// The screen of a server that runs.
pub fn started(report: &Report) -> String {
    let mut out = format!("wshd {} is ready\n\n", env!("CARGO_PKG_VERSION"));
    let port = report.addresses.first().map_or(0, std::net::SocketAddr::port);
    for address in &report.addresses {
        let everywhere = if address.ip().is_unspecified() { "  (every address of this machine)" } else { "" };
        let _ = writeln!(out, "  listening on {address}{everywhere}");
    }
    if let Some(root) = &report.document_root {
        let _ = writeln!(out, "  pages        http://localhost:{port}/ from {}", root.display());
    }
    let routes: Vec<_> =
        report.routes.iter().map(|route| (route.path.as_str(), route.file.as_path(), &route.info)).collect();
    handlers(&mut out, port, &routes);
    refused(&mut out, &report.refused, &report.notes);
    out
}

/// The screen of `wshd configtest`.
pub fn checked(checked: &Checked, port: u16) -> String {
    let mut out = String::from("the config is sound\n");
    let routes: Vec<_> =
        checked.sound.iter().map(|(path, file, info)| (path.as_str(), file.as_path(), info)).collect();
    handlers(&mut out, port, &routes);
    refused(&mut out, &checked.refused, &checked.notes);
    out
}

fn handlers(out: &mut String, port: u16, routes: &[(&str, &Path, &LibraryInfo)]) {
    out.push_str("\n  handlers\n");
    if routes.is_empty() {
        out.push_str("    none\n");
    }
    let urls: Vec<_> = routes.iter().map(|(path, ..)| format!("ws://localhost:{port}{path}")).collect();
    let width = urls.iter().map(String::len).max().unwrap_or(0);
    for (url, (_, file, info)) in urls.iter().zip(routes) {
        let version = if info.version.is_empty() { String::new() } else { format!("  {}", info.version) };
        let _ = writeln!(out, "    {url:width$}  {}{version}", file.display());
    }
}

fn refused(out: &mut String, refused: &[Refused], notes: &[String]) {
    if !refused.is_empty() {
        out.push_str("\n  refused\n");
    }
    for Refused { path, reason } in refused {
        let _ = writeln!(out, "    {}\n        {reason}", path.display());
    }
    if !notes.is_empty() {
        out.push('\n');
    }
    for note in notes {
        let _ = writeln!(out, "  note: {note}");
    }
}
