//! From the file as written to the config as meant: ranges, units, and values that must go together.

mod routes;

use std::fmt;
use std::ops::{Range, RangeInclusive};
use std::path::PathBuf;
use std::str::FromStr;
use std::time::Duration;

use toml::Spanned;
use wshd_protocol::DeflateRules;

use super::error::Problem;
use super::file::{self, Given, Seconds, Strings, Whole};
use super::value::{Host, Origins, Reload, SlowPeer, TrustedProxies, TrustedProxy, origin};
use super::{Config, Deflate, HandlerRules, Handlers, Limits, Listen, Log, Tls, UpgradeRules};

/// Puts the values that the file gives in the place of those in `config`, and reports every one that cannot be meant.
pub(super) fn filled(mut config: Config, file: &file::File) -> Result<Config, Vec<Problem>> {
    let mut check = Check { problems: Vec::new() };
    config.take(file, &mut check);
    if check.problems.is_empty() { Ok(config) } else { Err(check.problems) }
}

impl Config {
    fn take(&mut self, file: &file::File, check: &mut Check) {
        self.listen.take(&file.listen, check);
        self.tls.take(&file.tls, check);
        self.deflate.take("deflate", &file.deflate, check);
        self.handlers.take(&file.handlers, self.deflate, check);
        if let Some(root) = check.path("files.root", &file.files.root) {
            self.files.root = Some(root);
        }
        self.upgrade.take(&file.upgrade, check);
        self.take_access(file, check);
        self.take_aliases(&file.aliases, check);
        self.take_routes(&file.routes, check);
        self.limits.take(&file.limits, check);
        take(&file.control.enabled, &mut self.control.enabled);
        if let Some(socket) = check.path("control.socket", &file.control.socket) {
            self.control.socket = Some(socket);
        }
        self.log.take(&file.log, check);
    }
}

impl Log {
    fn take(&mut self, file: &file::Log, check: &mut Check) {
        check.parsed("log.level", &file.level, &mut self.level);
        if let Some(path) = check.path("log.file", &file.file) {
            self.file = Some(path);
        }
        let size = &mut self.file_bytes_max;
        check.whole("log.file_bytes_max", " bytes", &file.file_bytes_max, 0..=1 << 40, size);
        check.whole("log.files_kept", " files", &file.files_kept, 0..=1000, &mut self.files_kept);
    }
}

impl Listen {
    fn take(&mut self, file: &file::Listen, check: &mut Check) {
        check.whole("listen.port", "", &file.port, 0..=65_535, &mut self.port);
        take(&file.tls, &mut self.tls);
        if let Some(given) = &file.tls_port {
            let mut port = 0;
            check.whole("listen.tls_port", "", &file.tls_port, 0..=65_535, &mut port);
            if port == self.port && port != 0 {
                let wrong = format!("`listen.tls_port` is {port}, but must not be the same as `listen.port`");
                check.contradiction("listen.tls_port", Some(given.span()), wrong);
            }
            self.tls_port = Some(port);
        }
        if let Some(sockets) = check.files("listen.unix", &file.unix) {
            self.unix = sockets;
        }
        let is_only_unix =
            matches!(file.hosts.as_ref().map(Spanned::get_ref), Some(Strings::Many(list)) if list.is_empty());
        if is_only_unix && !self.unix.is_empty() {
            self.hosts.clear();
        } else if let Some(hosts) = check.parsed_list("listen.hosts", &file.hosts) {
            self.hosts = hosts;
        }
        check.mode("listen.unix_mode", &file.unix_mode, &mut self.unix_mode);
        if let Some(proxies) =
            check.parsed_list::<TrustedProxy>("listen.trusted_proxies", &file.trusted_proxies)
        {
            self.trusted_proxies = proxies.into_iter().collect::<TrustedProxies>();
        }
        check.whole("listen.backlog", " connections", &file.backlog, 1..=1 << 20, &mut self.backlog);
        let unasked = self.front_threads;
        check.whole(
            "listen.front_threads",
            " threads",
            &file.front_threads,
            0..=1024,
            &mut self.front_threads,
        );
        if self.front_threads == 0 {
            self.front_threads = unasked;
        }
        let time = &mut self.shutdown_seconds_max;
        check.seconds("listen.shutdown_seconds_max", &file.shutdown_seconds_max, 0.0..=DAY, time);
    }
}

impl Tls {
    fn take(&mut self, file: &file::Tls, check: &mut Check) {
        if let Some(certificates) = check.files("tls.certificate", &file.certificate) {
            self.certificate = certificates;
        }
        if let Some(keys) = check.files("tls.private_key", &file.private_key) {
            self.private_key = keys;
        }
        take(&file.private_key_may_be_shared, &mut self.private_key_may_be_shared);
        check.parsed("tls.version_min", &file.version_min, &mut self.version_min);
        check.parsed("tls.client_auth", &file.client_auth, &mut self.client_auth);
        if let Some(ca) = check.path("tls.client_ca", &file.client_ca) {
            self.client_ca = Some(ca);
        }
    }
}

impl UpgradeRules {
    fn take(&mut self, file: &file::Upgrade, check: &mut Check) {
        if let Some(origins) = check.origins("upgrade.origins", &file.origins) {
            self.origins = origins;
        }
        if file.validation_host.is_some() {
            let mut host = Host::Name(String::new());
            check.parsed("upgrade.validation_host", &file.validation_host, &mut host);
            self.validation_host = Some(host);
        }
        if file.validation_port.is_some() {
            let mut port = 0;
            check.whole("upgrade.validation_port", "", &file.validation_port, 1..=65_535, &mut port);
            self.validation_port = Some(port);
        }
    }
}

impl Handlers {
    fn take(&mut self, file: &file::Handlers, deflate: Deflate, check: &mut Check) {
        if let Some(folders) = check.folders("handlers.folders", &file.folders) {
            self.folders = folders;
        }
        if let Some(folder) = check.path("handlers.scan_dir", &file.scan_dir) {
            self.scan_dir = Some(folder);
        }
        if let Some(file) = check.path("handlers.map_file", &file.map_file) {
            self.map_file = Some(file);
        }
        take(&file.follow_links_outside, &mut self.follow_links_outside);
        take(&file.allow_empty, &mut self.allow_empty);
        take(&file.probe, &mut self.probe);
        let unasked = self.workers;
        check.whole("handlers.workers", " threads", &file.workers, 0..=1024, &mut self.workers);
        if self.workers == 0 {
            self.workers = unasked;
        }
        let probe = &mut self.probe_seconds_max;
        check.seconds("handlers.probe_seconds_max", &file.probe_seconds_max, 0.01..=HOUR, probe);
        let load = &mut self.load_seconds_max;
        check.seconds("handlers.load_seconds_max", &file.load_seconds_max, 0.01..=HOUR, load);
        let size = &mut self.library_bytes_max;
        check.whole("handlers.library_bytes_max", " bytes", &file.library_bytes_max, 1024..=16 << 30, size);
        if let Some(folder) = check.path("handlers.stage_folder", &file.stage_folder) {
            self.stage_folder = Some(folder);
        }
        check.parsed("handlers.watch", &file.watch, &mut self.watch);
        // Less than the shortest would only keep a core busy.
        check.seconds("handlers.poll_seconds", &file.poll_seconds, 0.05..=HOUR, &mut self.poll_seconds);
        macro_rules! seconds {
            ($($key:ident $range:expr;)*) => {$(
                check.seconds(concat!("handlers.", stringify!($key)), &file.$key, $range, &mut self.$key);
            )*};
        }
        seconds! {
            drain_seconds_max 0.0..=DAY;
            restart_seconds 0.0..=HOUR;
            unload_seconds_max 0.01..=HOUR;
            rollback_seconds 0.0..=HOUR;
        }
        let state = &mut self.state_bytes_max;
        check.whole("handlers.state_bytes_max", " bytes", &file.state_bytes_max, 0..=1 << 30, state);
        let panics = &mut self.rollback_panics;
        check.whole("handlers.rollback_panics", " panics", &file.rollback_panics, 0..=1 << 20, panics);
        check.whole(
            "handlers.retained_max",
            " versions",
            &file.retained_max,
            0..=1000,
            &mut self.retained_max,
        );
        let threads = &mut self.offload_threads_max;
        check.whole("handlers.offload_threads_max", " threads", &file.offload_threads_max, 1..=1024, threads);
        let queue = &mut self.offload_queue_max;
        check.whole("handlers.offload_queue_max", " waiting", &file.offload_queue_max, 1..=1 << 20, queue);
        for (name, rules) in &file.each {
            let own = HandlerRules::taken(&format!("handlers.{name}"), rules, deflate, check);
            self.each.insert(name.clone(), own);
        }
    }
}

impl HandlerRules {
    /// `section` is what errors call the table, `deflate` what holds where it says nothing.
    fn taken(section: &str, file: &file::HandlerRules, deflate: Deflate, check: &mut Check) -> Self {
        let mut rules = Self::default();
        let key = |key: &str| format!("{section}.{key}");
        rules.own_path = file.own_path.as_ref().map(|given| *given.get_ref());
        if file.reload.is_some() {
            let mut reload = Reload::Drain;
            check.parsed(&key("reload"), &file.reload, &mut reload);
            rules.reload = Some(reload);
        }
        if file.slow_peer.is_some() {
            let mut slow_peer = SlowPeer::default();
            check.parsed(&key("slow_peer"), &file.slow_peer, &mut slow_peer);
            rules.slow_peer = Some(slow_peer);
        }
        if let Some(given) = &file.deflate {
            let file::Switch(is_on) = *given.get_ref();
            rules.deflate = Some(Deflate { rules: DeflateRules { is_on, ..deflate.rules }, ..deflate });
        }
        if let Some(own) = &file.deflate_keys {
            rules.deflate.insert(deflate).take(&key("deflate"), own, check);
        }
        rules.origins = check.origins(&key("origins"), &file.origins);
        rules.raw = file.raw.as_ref().is_some_and(|given| *given.get_ref());
        let mut seconds = |name: &str, given: &Given<Seconds>, most: f64| {
            given.is_some().then(|| {
                let mut time = Duration::ZERO;
                check.seconds(&key(name), given, 0.0..=most, &mut time);
                time
            })
        };
        rules.drain_seconds_max = seconds("drain_seconds_max", &file.drain_seconds_max, DAY);
        rules.restart_seconds = seconds("restart_seconds", &file.restart_seconds, HOUR);
        rules.config = check.table(&key("config"), &file.config);
        rules
    }
}

impl Deflate {
    /// `section` is `deflate`, or the table of one handler.
    fn take(&mut self, section: &str, file: &file::Deflate, check: &mut Check) {
        let rules = &mut self.rules;
        take(&file.enabled, &mut rules.is_on);
        take(&file.server_no_context_takeover, &mut rules.server_no_context_takeover);
        take(&file.client_no_context_takeover, &mut rules.client_no_context_takeover);
        macro_rules! whole {
            ($($key:ident $unit:literal $range:expr, $into:expr;)*) => {$(
                let key = format!("{section}.{}", stringify!($key));
                check.whole(&key, $unit, &file.$key, $range, &mut $into);
            )*};
        }
        whole! {
            level "" 1..=9, rules.level;
            message_bytes_min " bytes" 0..=1 << 30, rules.message_bytes_min;
            server_window_bits_max " bits" 8..=15, rules.server_window_bits_max;
            server_history_bytes_max " bytes" 0..=32_768, rules.server_history_bytes_max;
            client_window_bits_max " bits" 8..=15, rules.client_window_bits_max;
            memory_bytes_max " bytes" 0..=1 << 40, self.memory_bytes_max;
        }
    }
}

impl Limits {
    fn take(&mut self, file: &file::Limits, check: &mut Check) {
        let bytes = |least: i64, most: i64| least..=most;
        let time = 0.001..=DAY;
        macro_rules! whole {
            ($($key:ident $unit:literal $range:expr;)*) => {$(
                check.whole(concat!("limits.", stringify!($key)), $unit, &file.$key, $range, &mut self.$key);
            )*};
        }
        macro_rules! seconds {
            ($($key:ident $range:expr;)*) => {$(
                check.seconds(concat!("limits.", stringify!($key)), &file.$key, $range, &mut self.$key);
            )*};
        }
        whole! {
            message_bytes_max " bytes" bytes(1, 1 << 30);
            empty_fragments_max " fragments" 0..=1 << 30;
            message_bytes_per_second_min " bytes" bytes(0, 1 << 30);
            outgoing_bytes_max " bytes" bytes(1, 1 << 30);
            outgoing_bytes_high " bytes" bytes(1, 1 << 30);
            outgoing_bytes_low " bytes" bytes(0, 1 << 30);
            outgoing_messages_max " messages" 1..=1 << 20;
            published_bytes_max " bytes" bytes(1, 1 << 30);
            connections_max " connections" 1..=10_000_000;
            connections_per_peer_max " connections" 0..=10_000_000;
            password_checks_max " passwords" 1..=1024;
            password_failures_per_minute_max " failures" 0..=1 << 20;
            passwords_remembered_max " passwords" 0..=1 << 20;
            // Less could not hold an opening handshake of a browser; hyper's own parser needs 8 KiB.
            head_bytes_max " bytes" bytes(8 << 10, 1 << 20);
            head_lines_max " lines" 8..=1000;
            read_buffer_bytes " bytes" bytes(4 << 10, 64 << 20);
        }
        seconds! {
            message_seconds_max time.clone();
            handshake_seconds_max time.clone();
            ping_seconds 0.0..=DAY;
            pong_seconds_max time.clone();
            idle_seconds_max time.clone();
            write_seconds_max time.clone();
            close_seconds_max time.clone();
            linger_seconds_max 0.0..=60.0;
            passwords_remembered_seconds_max 0.0..=DAY;
        }
        check.parsed("limits.slow_peer", &file.slow_peer, &mut self.slow_peer);
        self.contradictions(file, check);
    }

    fn contradictions(&self, file: &file::Limits, check: &mut Check) {
        let (low, high, max) = (self.outgoing_bytes_low, self.outgoing_bytes_high, self.outgoing_bytes_max);
        if low >= high {
            let given = place(&file.outgoing_bytes_low).or_else(|| place(&file.outgoing_bytes_high));
            let wrong = format!(
                "`limits.outgoing_bytes_low` is {low}, but must be less than `limits.outgoing_bytes_high`, which is {high}"
            );
            check.contradiction("limits.outgoing_bytes_low", given, wrong);
        }
        if high > max {
            let given = place(&file.outgoing_bytes_high).or_else(|| place(&file.outgoing_bytes_max));
            let wrong = format!(
                "`limits.outgoing_bytes_high` is {high}, but must not be more than `limits.outgoing_bytes_max`, which is {max}"
            );
            check.contradiction("limits.outgoing_bytes_high", given, wrong);
        }
        let (ping, idle) = (self.ping_seconds.as_secs_f64(), self.idle_seconds_max.as_secs_f64());
        if idle <= ping {
            // The session would be ended as idle before its peer was ever asked.
            let given = place(&file.idle_seconds_max).or_else(|| place(&file.ping_seconds));
            let wrong = format!(
                "`limits.idle_seconds_max` is {idle}, but must be more than `limits.ping_seconds`, which is {ping}"
            );
            check.contradiction("limits.idle_seconds_max", given, wrong);
        }
    }
}

fn json_of_table(key: &str, table: &toml::Table, wrong: &mut Vec<String>) -> serde_json::Value {
    table
        .iter()
        .map(|(name, value)| (name.clone(), json_of(&format!("{key}.{name}"), value, wrong)))
        .collect()
}

fn json_of(key: &str, value: &toml::Value, wrong: &mut Vec<String>) -> serde_json::Value {
    match value {
        toml::Value::String(text) => text.as_str().into(),
        toml::Value::Integer(number) => (*number).into(),
        toml::Value::Float(number) => {
            if !number.is_finite() {
                wrong.push(format!(
                    "`{key}` is {number}, but what a handler is given must be a finite number"
                ));
            }
            (*number).into()
        }
        toml::Value::Boolean(truth) => (*truth).into(),
        toml::Value::Datetime(time) => time.to_string().into(),
        toml::Value::Array(list) => list.iter().map(|value| json_of(key, value, wrong)).collect(),
        toml::Value::Table(table) => json_of_table(key, table, wrong),
    }
}

const HOUR: f64 = 3600.0;
const DAY: f64 = 86_400.0;

fn take(given: &Given<bool>, into: &mut bool) {
    if let Some(given) = given {
        *into = *given.get_ref();
    }
}

pub(super) fn place<T>(given: &Given<T>) -> Option<Range<usize>> {
    given.as_ref().map(Spanned::span)
}

/// Turns values as written into values as meant and collects what does not fit.
pub(super) struct Check {
    problems: Vec<Problem>,
}

impl Check {
    pub(super) fn wrong(&mut self, key: &str, span: Range<usize>, wrong: impl Into<String>) {
        self.problems.push(Problem::new(key, span, wrong));
    }

    /// Values that do not go together. The defaults do, so one of them was given, unless it was refused already.
    fn contradiction(&mut self, key: &str, given: Option<Range<usize>>, wrong: String) {
        self.wrong(key, given.unwrap_or(0..0), wrong);
    }

    pub(super) fn whole<T: TryFrom<i64>>(
        &mut self,
        key: &str,
        unit: &str,
        given: &Given<Whole>,
        range: RangeInclusive<i64>,
        into: &mut T,
    ) {
        let Some(given) = given else { return };
        let Whole(number) = *given.get_ref();
        match T::try_from(number) {
            Ok(value) if range.contains(&number) => *into = value,
            _ => {
                let (least, most) = range.into_inner();
                self.wrong(
                    key,
                    given.span(),
                    format!("`{key}` is {number}, but must be {least} to {most}{unit}"),
                );
            }
        }
    }

    pub(super) fn seconds(
        &mut self,
        key: &str,
        given: &Given<Seconds>,
        range: RangeInclusive<f64>,
        into: &mut Duration,
    ) {
        let Some(given) = given else { return };
        let Seconds(number) = *given.get_ref();
        if range.contains(&number) {
            *into = Duration::from_secs_f64(number);
        } else {
            let (least, most) = range.into_inner();
            self.wrong(
                key,
                given.span(),
                format!("`{key}` is {number}, but must be {least} to {most} seconds"),
            );
        }
    }

    pub(super) fn parsed<T: FromStr<Err: fmt::Display>>(
        &mut self,
        key: &str,
        given: &Given<String>,
        into: &mut T,
    ) {
        let Some(given) = given else { return };
        match given.get_ref().parse() {
            Ok(value) => *into = value,
            Err(error) => self.wrong(key, given.span(), format!("`{key}` is {:?}, {error}", given.get_ref())),
        }
    }

    /// A table that the server does not know, as JSON.
    fn table(&mut self, key: &str, given: &Given<toml::Table>) -> Option<String> {
        let given = given.as_ref()?;
        let mut wrong = Vec::new();
        let json = json_of_table(key, given.get_ref(), &mut wrong);
        for wrong in wrong {
            self.wrong(key, given.span(), wrong);
        }
        Some(json.to_string())
    }

    pub(super) fn path(&mut self, key: &str, given: &Given<String>) -> Option<PathBuf> {
        let given = given.as_ref()?;
        if given.get_ref().is_empty() {
            self.wrong(
                key,
                given.span(),
                format!("`{key}` is empty; leave the line out if there is no such folder"),
            );
        }
        Some(PathBuf::from(given.get_ref()))
    }

    /// The strings of a list, or the one string that stands in its place, each with its place.
    pub(super) fn list(&mut self, key: &str, given: &Given<Strings>) -> Option<Vec<(String, Range<usize>)>> {
        let given = given.as_ref()?;
        let list = match given.get_ref() {
            Strings::One(text) => vec![(text.clone(), given.span())],
            Strings::Many(list) => list.iter().map(|item| (item.get_ref().clone(), item.span())).collect(),
        };
        if list.is_empty() {
            self.wrong(key, given.span(), format!("`{key}` is an empty list; it needs at least one entry"));
        }
        Some(list)
    }

    /// Each entry of a list that is never empty.
    fn parsed_list<T: FromStr<Err: fmt::Display>>(
        &mut self,
        key: &str,
        given: &Given<Strings>,
    ) -> Option<Vec<T>> {
        let mut parsed = Vec::new();
        for (text, span) in self.list(key, given)? {
            match text.parse() {
                Ok(value) => parsed.push(value),
                Err(error) => self.wrong(key, span, format!("`{key}` has {text:?}, {error}")),
            }
        }
        Some(parsed)
    }

    /// The bits of a file's mode, as chmod takes them.
    fn mode(&mut self, key: &str, given: &Given<String>, into: &mut u32) {
        let Some(given) = given else { return };
        match u32::from_str_radix(given.get_ref(), 8) {
            Ok(mode) if mode <= 0o777 => *into = mode,
            _ => {
                let wrong = format!(
                    "`{key}` is {:?}, but must be the digits that chmod takes, such as \"0660\"",
                    given.get_ref()
                );
                self.wrong(key, given.span(), wrong);
            }
        }
    }

    fn folders(&mut self, key: &str, given: &Given<Strings>) -> Option<Vec<PathBuf>> {
        let list = self.list(key, given)?;
        for (_, span) in list.iter().filter(|(text, _)| text.is_empty()) {
            self.wrong(
                key,
                span.clone(),
                format!("`{key}` has an empty path; write \".\" for the folder the server is started in"),
            );
        }
        Some(list.into_iter().map(|(text, _)| PathBuf::from(text)).collect())
    }

    fn files(&mut self, key: &str, given: &Given<Strings>) -> Option<Vec<PathBuf>> {
        let list = self.list(key, given)?;
        for (_, span) in list.iter().filter(|(text, _)| text.is_empty()) {
            self.wrong(key, span.clone(), format!("`{key}` has an empty path, but must name a file"));
        }
        Some(list.into_iter().map(|(text, _)| PathBuf::from(text)).collect())
    }

    fn origins(&mut self, key: &str, given: &Given<Strings>) -> Option<Origins> {
        let single = matches!(given.as_ref()?.get_ref(), Strings::One(_));
        let list = self.list(key, given)?;
        match list.as_slice() {
            [(text, _)] if single && text == Origins::SAME_HOST => return Some(Origins::SameHost),
            [(text, _)] if single && text == "*" => return Some(Origins::Any),
            _ => {}
        }
        for (text, span) in &list {
            if let Err(wrong) = origin(text) {
                self.wrong(key, span.clone(), format!("`{key}` has {text:?}, {wrong}"));
            }
        }
        Some(Origins::List(list.into_iter().map(|(text, _)| text.to_ascii_lowercase()).collect()))
    }
}
