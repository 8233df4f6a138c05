//! Any text is a config, or an error that points into the text.

use std::path::Path;

use wshd::config::{Complaint, Config, ConfigError};

const PATH: &str = "config.toml";

/// `bytes` are a config file.
pub fn config(bytes: &[u8]) {
    let Ok(text) = std::str::from_utf8(bytes) else { return };
    match Config::parse(text, Path::new(PATH)) {
        Ok(config) => is_usable(&config),
        Err(error) => points_into(text, &error),
    }
}

/// What the rest of the server takes for granted.
fn is_usable(config: &Config) {
    assert_eq!(config.source.as_deref(), Some(Path::new(PATH)));
    assert!(!config.listen.hosts.is_empty() && config.listen.front_threads > 0 && config.listen.backlog > 0);
    assert!(!config.handlers.folders.is_empty() && config.handlers.workers > 0);
    assert!(
        config.tls.certificate.iter().chain(&config.tls.private_key).all(|path| !path.as_os_str().is_empty())
    );
    let limits = &config.limits;
    assert!(limits.outgoing_bytes_low < limits.outgoing_bytes_high);
    assert!(limits.outgoing_bytes_high <= limits.outgoing_bytes_max);
    assert!(limits.idle_seconds_max > limits.ping_seconds);
    assert!(limits.message_bytes_max > 0 && limits.connections_max > 0 && limits.read_buffer_bytes >= 4096);
    for name in config.handlers.each.keys() {
        let told: serde_json::Value =
            serde_json::from_str(config.handlers.config_of(name)).expect("a handler is told JSON");
        assert!(told.is_object(), "{told}");
        config.limits_of(name);
        assert!((8..=15).contains(&config.deflate_of(name).rules.client_window_bits_max));
    }
}

fn points_into(text: &str, error: &ConfigError) {
    let ConfigError::Wrong { problems, .. } = error else { panic!("a text was read: {error}") };
    assert!(!problems.is_empty(), "an error says what is wrong");
    let shown = error.to_string();
    let mut before = (0, 0);
    for problem in problems {
        let Complaint { line, column, wrong, .. } = problem;
        assert!(is_in(text, *line, *column), "{line}:{column} is outside of the text");
        assert!(!wrong.is_empty(), "{problem:?}");
        assert!(shown.contains(&format!("{PATH}:{line}:{column}: {wrong}")), "{shown}");
        // Columns are counted up to where the excerpt ends, so only lines can be told apart for certain.
        assert!(before.0 <= *line, "{before:?} stands before {line}:{column}");
        before = (*line, *column);
    }
}

/// One behind the last character is where something is missing.
fn is_in(text: &str, line: usize, column: usize) -> bool {
    let place = line.checked_sub(1).and_then(|line| text.split('\n').nth(line));
    place.is_some_and(|line| (1..=line.chars().count() + 1).contains(&column))
}
