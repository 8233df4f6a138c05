//! What the server says when it starts: where it listens, what it serves from which file, what it refused and why.

use std::fmt::Write;
use std::path::Path;

use crate::control::Status;
use crate::registry::Checked;

/// The screen of a server that runs.
pub fn started(status: &Status) -> String {
    let mut out = format!("wshd {} is ready\n\n", env!("CARGO_PKG_VERSION"));
    let port = status.listening.first().map_or(0, std::net::SocketAddr::port);
    for address in &status.listening {
        let everywhere = if address.ip().is_unspecified() { "  (every address of this machine)" } else { "" };
        let _ = writeln!(out, "  listening on {address}{everywhere}");
    }
    if let Some(root) = &status.document_root {
        let _ = writeln!(out, "  pages        http://localhost:{port}/ from {}", root.display());
    }
    let routes: Vec<_> = status
        .handlers
        .iter()
        .filter_map(|handler| {
            let (file, active) = (handler.file.as_deref()?, handler.active.as_ref()?);
            Some((handler.path.as_str(), file, active.version.as_str()))
        })
        .collect();
    handlers(&mut out, port, &routes);
    let files: Vec<_> =
        status.refused.iter().map(|refused| (refused.file.as_path(), refused.reason.as_str())).collect();
    refused(&mut out, &files, &status.notes);
    out
}

/// The screen of `wshd configtest`.
pub fn checked(checked: &Checked, port: u16) -> String {
    let mut out = String::from("the config is sound\n");
    let routes: Vec<_> = checked
        .sound
        .iter()
        .map(|(path, file, info)| (path.as_str(), file.as_path(), info.version.as_str()))
        .collect();
    handlers(&mut out, port, &routes);
    let files: Vec<_> =
        checked.refused.iter().map(|refused| (refused.path.as_path(), refused.reason.as_str())).collect();
    refused(&mut out, &files, &checked.notes);
    out
}

fn handlers(out: &mut String, port: u16, routes: &[(&str, &Path, &str)]) {
    out.push_str("\n  handlers\n");
    if routes.is_empty() {
        out.push_str("    none\n");
    }
    let urls: Vec<_> = routes.iter().map(|(path, ..)| format!("ws://localhost:{port}{path}")).collect();
    let width = urls.iter().map(String::len).max().unwrap_or(0);
    for (url, (_, file, version)) in urls.iter().zip(routes) {
        let version = if version.is_empty() { String::new() } else { format!("  {version}") };
        let _ = writeln!(out, "    {url:width$}  {}{version}", file.display());
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
