//! The config file as written: TOML in, one optional value per key out, each with its place in the text.
//!
//! Nothing is checked here beyond the type of a value, and no default is filled in; `Config` does both.

use std::collections::BTreeMap;
use std::fmt;
use std::ops::Range;

use serde::Deserialize;
use serde::de::{self, Deserializer, SeqAccess, Visitor};
use toml::Spanned;
use toml::de::{DeTable, DeValue};

use super::error::{Problem, nearest};
use super::tables::{self, Alias, Route};

#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub(super) struct File {
    pub(super) listen: Listen,
    pub(super) tls: Tls,
    pub(super) handlers: Handlers,
    pub(super) files: Files,
    pub(super) upgrade: Upgrade,
    pub(super) auth: Auths,
    pub(super) cgi: Cgi,
    pub(super) deflate: Deflate,
    pub(super) limits: Limits,
    pub(super) log: Log,
    pub(super) control: Control,
    /// The section `[aliases]`, which is read by itself: its keys are paths.
    #[serde(skip)]
    pub(super) aliases: Vec<Alias>,
    /// The sections `[[routes]]`, which are read by themselves, one by one.
    #[serde(skip)]
    pub(super) routes: Vec<Route>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub(super) struct Listen {
    pub(super) port: Given<Whole>,
    pub(super) tls: Given<bool>,
    pub(super) tls_port: Given<Whole>,
    pub(super) hosts: Given<Strings>,
    pub(super) unix: Given<Strings>,
    pub(super) unix_mode: Given<String>,
    pub(super) trusted_proxies: Given<Strings>,
    pub(super) backlog: Given<Whole>,
    pub(super) front_threads: Given<Whole>,
    pub(super) shutdown_seconds_max: Given<Seconds>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub(super) struct Tls {
    pub(super) certificate: Given<Strings>,
    pub(super) private_key: Given<Strings>,
    pub(super) private_key_may_be_shared: Given<bool>,
    pub(super) version_min: Given<String>,
    pub(super) client_auth: Given<String>,
    pub(super) client_ca: Given<String>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub(super) struct Handlers {
    pub(super) folders: Given<Strings>,
    pub(super) scan_dir: Given<String>,
    pub(super) map_file: Given<String>,
    pub(super) follow_links_outside: Given<bool>,
    pub(super) allow_empty: Given<bool>,
    pub(super) workers: Given<Whole>,
    pub(super) probe: Given<bool>,
    pub(super) probe_seconds_max: Given<Seconds>,
    pub(super) load_seconds_max: Given<Seconds>,
    pub(super) library_bytes_max: Given<Whole>,
    pub(super) stage_folder: Given<String>,
    pub(super) watch: Given<String>,
    pub(super) poll_seconds: Given<Seconds>,
    pub(super) drain_seconds_max: Given<Seconds>,
    pub(super) restart_seconds: Given<Seconds>,
    pub(super) state_bytes_max: Given<Whole>,
    pub(super) unload_seconds_max: Given<Seconds>,
    pub(super) rollback_seconds: Given<Seconds>,
    pub(super) rollback_panics: Given<Whole>,
    pub(super) retained_max: Given<Whole>,
    pub(super) offload_threads_max: Given<Whole>,
    pub(super) offload_queue_max: Given<Whole>,
    /// Tables below the section, which are read by themselves: their names are not known.
    #[serde(skip)]
    pub(super) each: BTreeMap<String, HandlerRules>,
}

/// A section `[handlers.NAME]`.
#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub(super) struct HandlerRules {
    pub(super) own_path: Given<bool>,
    pub(super) reload: Given<String>,
    pub(super) drain_seconds_max: Given<Seconds>,
    pub(super) restart_seconds: Given<Seconds>,
    pub(super) slow_peer: Given<String>,
    pub(super) deflate: Given<Switch>,
    /// The table that may stand in its place, which is read by itself, so that what is wrong with its keys is said of them.
    #[serde(skip)]
    pub(super) deflate_keys: Option<Deflate>,
    pub(super) origins: Given<Strings>,
    pub(super) auth: Given<String>,
    pub(super) raw: Given<bool>,
    /// The handler's own keys, which the server does not know.
    pub(super) config: Given<toml::Table>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub(super) struct Files {
    pub(super) root: Given<String>,
    pub(super) auth: Given<String>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub(super) struct Upgrade {
    pub(super) origins: Given<Strings>,
    pub(super) validation_host: Given<String>,
    pub(super) validation_port: Given<Whole>,
    pub(super) auth: Given<String>,
}

/// The section has only tables below it, whose names are not known.
#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub(super) struct Auths {
    #[serde(skip)]
    pub(super) each: Vec<(Spanned<String>, Auth)>,
}

/// A section `[auth.NAME]`.
#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub(super) struct Auth {
    pub(super) basic: Given<String>,
    pub(super) bearer: Given<String>,
    pub(super) client_certificate: Given<String>,
    pub(super) certificates: Given<String>,
    pub(super) realm: Given<String>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub(super) struct Cgi {
    pub(super) paths: Given<Strings>,
    pub(super) seconds_max: Given<Seconds>,
    pub(super) processes_max: Given<Whole>,
    pub(super) body_bytes_max: Given<Whole>,
    pub(super) head_bytes_max: Given<Whole>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub(super) struct Deflate {
    pub(super) enabled: Given<bool>,
    pub(super) level: Given<Whole>,
    pub(super) message_bytes_min: Given<Whole>,
    pub(super) server_window_bits_max: Given<Whole>,
    pub(super) server_history_bytes_max: Given<Whole>,
    pub(super) client_window_bits_max: Given<Whole>,
    pub(super) server_no_context_takeover: Given<bool>,
    pub(super) client_no_context_takeover: Given<bool>,
    pub(super) memory_bytes_max: Given<Whole>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub(super) struct Limits {
    pub(super) message_bytes_max: Given<Whole>,
    pub(super) empty_fragments_max: Given<Whole>,
    pub(super) message_seconds_max: Given<Seconds>,
    pub(super) message_bytes_per_second_min: Given<Whole>,
    pub(super) outgoing_bytes_max: Given<Whole>,
    pub(super) outgoing_bytes_high: Given<Whole>,
    pub(super) outgoing_bytes_low: Given<Whole>,
    pub(super) outgoing_messages_max: Given<Whole>,
    pub(super) slow_peer: Given<String>,
    pub(super) published_bytes_max: Given<Whole>,
    pub(super) connections_max: Given<Whole>,
    pub(super) connections_per_peer_max: Given<Whole>,
    pub(super) handshake_seconds_max: Given<Seconds>,
    pub(super) head_bytes_max: Given<Whole>,
    pub(super) head_lines_max: Given<Whole>,
    pub(super) password_checks_max: Given<Whole>,
    pub(super) password_failures_per_minute_max: Given<Whole>,
    pub(super) passwords_remembered_max: Given<Whole>,
    pub(super) passwords_remembered_seconds_max: Given<Seconds>,
    pub(super) ping_seconds: Given<Seconds>,
    pub(super) pong_seconds_max: Given<Seconds>,
    pub(super) idle_seconds_max: Given<Seconds>,
    pub(super) write_seconds_max: Given<Seconds>,
    pub(super) close_seconds_max: Given<Seconds>,
    pub(super) linger_seconds_max: Given<Seconds>,
    pub(super) read_buffer_bytes: Given<Whole>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub(super) struct Log {
    pub(super) level: Given<String>,
    pub(super) file: Given<String>,
    pub(super) file_bytes_max: Given<Whole>,
    pub(super) files_kept: Given<Whole>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub(super) struct Control {
    pub(super) enabled: Given<bool>,
    pub(super) socket: Given<String>,
}

/// A value, if the file has it, with the bytes of the text it came from.
pub(super) type Given<T> = Option<Spanned<T>>;

impl File {
    /// Reads the whole text and reports everything that is wrong with its keys and types, not only the first of it.
    ///
    /// # Errors
    /// Text that is not TOML, unknown sections and keys, values of another type.
    pub(super) fn read(text: &str) -> Result<Self, Vec<Problem>> {
        let (mut table, broken) = DeTable::parse_recoverable(text);
        if !broken.is_empty() {
            // What a recovering parser makes of the rest is a guess, so keys are judged only in a file that is TOML.
            return Err(broken
                .iter()
                .map(|error| Problem::new("", span_of(error), tidy(error.message())))
                .collect());
        }
        let mut problems = Vec::new();
        let handlers = tables::take_handlers(table.get_mut(), &mut problems);
        let auth = tables::take_below(table.get_mut(), "auth", "", &mut problems);
        let aliases = tables::take_aliases(table.get_mut(), &mut problems);
        let routes = tables::take_routes(table.get_mut(), &mut problems);
        take_unknown(table.get_mut(), &mut problems);
        loop {
            // serde stops at the first wrong type. The value is taken out and the rest read again, which ends because
            // the table gets smaller each time.
            let error = match Self::deserialize(toml::de::Deserializer::from(table.clone())) {
                Ok(mut file) if problems.is_empty() => {
                    file.handlers.each = handlers;
                    file.auth.each = auth;
                    return Ok(Self { aliases, routes, ..file });
                }
                Ok(_) => break,
                Err(error) => error,
            };
            let span = span_of(&error);
            let Some(key) = take_at(table.get_mut(), &span) else {
                problems.push(Problem::new("", span, tidy(error.message())));
                break;
            };
            let wrong = if sections().iter().any(|(section, _)| *section == key) {
                format!("`{key}` is a section: write [{key}] and its keys below")
            } else {
                format!("wrong type for `{key}`: {}", tidy(error.message()))
            };
            problems.push(Problem::new(key, span, wrong));
        }
        problems.sort_by_key(|problem| problem.span.start);
        Err(problems)
    }
}

/// Every section with its keys, in the order they are declared above.
pub(super) fn sections() -> [(&'static str, &'static [&'static str]); 11] {
    [
        ("listen", keys::<Listen>()),
        ("tls", keys::<Tls>()),
        ("handlers", keys::<Handlers>()),
        ("files", keys::<Files>()),
        ("upgrade", keys::<Upgrade>()),
        ("auth", keys::<Auths>()),
        ("cgi", keys::<Cgi>()),
        ("deflate", keys::<Deflate>()),
        ("limits", keys::<Limits>()),
        ("log", keys::<Log>()),
        ("control", keys::<Control>()),
    ]
}

pub(super) fn span_of(error: &toml::de::Error) -> Range<usize> {
    error.span().unwrap_or(0..0)
}

/// Error texts become one line, because they are followed by the line of the file.
pub(super) fn tidy(message: &str) -> String {
    message.split_whitespace().collect::<Vec<_>>().join(" ")
}

/// Takes the unknown keys out of the table and reports each with the key that was probably meant.
fn take_unknown(table: &mut DeTable<'_>, problems: &mut Vec<Problem>) {
    let sections = sections();
    for (name, span) in names(table) {
        let Some((section, known)) = sections.iter().find(|(section, _)| *section == name) else {
            let removed = table.remove(name.as_str());
            let mut problem = Problem::new(&name, span, format!("unknown section or key `{name}`"));
            problem.hint = removed.map(|value| hint_for_section(&name, value.get_ref()));
            problems.push(problem);
            continue;
        };
        let Some(DeValue::Table(keys)) = table.get_mut(name.as_str()).map(Spanned::get_mut) else { continue };
        for (name, span) in names(keys) {
            if known.contains(&name.as_str()) {
                continue;
            }
            keys.remove(name.as_str());
            let dotted = format!("{section}.{name}");
            let mut problem = Problem::new(&dotted, span, format!("unknown key `{dotted}`"));
            problem.hint = Some(hint_for_key(section, known, &name));
            problems.push(problem);
        }
    }
}

/// The keys of a table, each with its place.
pub(super) fn names(table: &DeTable<'_>) -> Vec<(String, Range<usize>)> {
    table.keys().map(|name| (name.get_ref().to_string(), name.span())).collect()
}

fn hint_for_key(section: &str, known: &[&str], name: &str) -> String {
    if let Some((other, _)) = sections().iter().find(|(_, keys)| keys.contains(&name)) {
        return format!("`{name}` belongs to the section [{other}]");
    }
    if known.is_empty() {
        return format!("its keys stand in sections of their own: [{section}.NAME]");
    }
    nearest(name, known.iter().copied()).map_or_else(
        || format!("the keys of [{section}] are: {}", known.join(", ")),
        |near| format!("did you mean `{near}`?"),
    )
}

fn hint_for_section(name: &str, value: &DeValue<'_>) -> String {
    let sections = sections();
    let owner = sections.iter().find(|(_, keys)| keys.contains(&name) && !value.is_table());
    if let Some((section, _)) = owner {
        return format!("`{name}` belongs to the section [{section}]");
    }
    let names: Vec<_> = sections.iter().map(|(section, _)| *section).chain(["aliases", "routes"]).collect();
    nearest(name, names.iter().copied()).map_or_else(
        || format!("the sections are: {}", names.join(", ")),
        |near| {
            if near == "routes" {
                "did you mean [[routes]]?".into()
            } else {
                format!("did you mean [{near}]?")
            }
        },
    )
}

/// Takes out the value that the span lies in and returns its dotted key.
fn take_at(table: &mut DeTable<'_>, span: &Range<usize>) -> Option<String> {
    let hit = |value: &Spanned<DeValue<'_>>| value.span().start <= span.start && span.end <= value.span().end;
    // Keys before sections: the span of a section encloses those of its keys, or is only that of its header.
    for (section, value) in table.iter_mut() {
        let DeValue::Table(keys) = value.get_mut() else { continue };
        let found = keys.iter().find(|(_, value)| hit(value)).map(|(key, _)| key.get_ref().to_string());
        if let Some(key) = found {
            keys.remove(key.as_str());
            return Some(format!("{}.{key}", section.get_ref()));
        }
    }
    let section =
        table.iter().find(|(_, value)| hit(value)).map(|(section, _)| section.get_ref().to_string())?;
    table.remove(section.as_str());
    Some(section)
}

/// A whole number. Ranges are checked by `Config`, which knows what the number is for.
#[derive(Debug, Clone, Copy)]
pub(super) struct Whole(pub(super) i64);

impl<'de> Deserialize<'de> for Whole {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Expect;
        impl Visitor<'_> for Expect {
            type Value = Whole;
            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a whole number without quotes")
            }
            fn visit_i64<E: de::Error>(self, number: i64) -> Result<Whole, E> {
                Ok(Whole(number))
            }
            fn visit_u64<E: de::Error>(self, number: u64) -> Result<Whole, E> {
                // Larger than any limit; the range check names the limit.
                Ok(Whole(i64::try_from(number).unwrap_or(i64::MAX)))
            }
        }
        deserializer.deserialize_any(Expect)
    }
}

/// On or off, where a table could stand in its place.
#[derive(Debug, Clone, Copy)]
pub(super) struct Switch(pub(super) bool);

impl<'de> Deserialize<'de> for Switch {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Expect;
        impl Visitor<'_> for Expect {
            type Value = Switch;
            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("true, false, or a table of keys")
            }
            fn visit_bool<E: de::Error>(self, is_on: bool) -> Result<Switch, E> {
                Ok(Switch(is_on))
            }
        }
        deserializer.deserialize_any(Expect)
    }
}

/// Seconds, whole or with a fraction.
#[derive(Debug, Clone, Copy)]
pub(super) struct Seconds(pub(super) f64);

impl<'de> Deserialize<'de> for Seconds {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Expect;
        impl Visitor<'_> for Expect {
            type Value = Seconds;
            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a number of seconds without quotes, such as 10 or 0.5")
            }
            fn visit_i64<E: de::Error>(self, number: i64) -> Result<Seconds, E> {
                Ok(Seconds(number as f64))
            }
            fn visit_f64<E: de::Error>(self, number: f64) -> Result<Seconds, E> {
                Ok(Seconds(number))
            }
        }
        deserializer.deserialize_any(Expect)
    }
}

/// One string, or a list of strings with the place of each.
#[derive(Debug, Clone)]
pub(super) enum Strings {
    One(String),
    Many(Vec<Spanned<String>>),
}

impl<'de> Deserialize<'de> for Strings {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Expect;
        impl<'de> Visitor<'de> for Expect {
            type Value = Strings;
            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a string in quotes or a list of them")
            }
            fn visit_str<E: de::Error>(self, text: &str) -> Result<Strings, E> {
                Ok(Strings::One(text.to_owned()))
            }
            fn visit_seq<A: SeqAccess<'de>>(self, list: A) -> Result<Strings, A::Error> {
                Vec::deserialize(de::value::SeqAccessDeserializer::new(list)).map(Strings::Many)
            }
        }
        deserializer.deserialize_any(Expect)
    }
}

/// The field names that serde derives for a section, so that they are written down only once.
pub(super) fn keys<'de, T: Deserialize<'de>>() -> &'static [&'static str] {
    struct Names<'a>(&'a mut &'static [&'static str]);
    impl<'de> Deserializer<'de> for Names<'_> {
        type Error = de::value::Error;
        fn deserialize_struct<V: Visitor<'de>>(
            self,
            _: &'static str,
            fields: &'static [&'static str],
            _: V,
        ) -> Result<V::Value, Self::Error> {
            *self.0 = fields;
            Err(de::Error::custom("only the names are wanted"))
        }
        fn deserialize_any<V: Visitor<'de>>(self, _: V) -> Result<V::Value, Self::Error> {
            Err(de::Error::custom("a section is a struct"))
        }
        serde::forward_to_deserialize_any! {
            bool i8 i16 i32 i64 i128 u8 u16 u32 u64 u128 f32 f64 char str string bytes byte_buf option unit
            unit_struct newtype_struct seq tuple tuple_struct map enum identifier ignored_any
        }
    }
    let mut names: &'static [&'static str] = &[];
    let _ = T::deserialize(Names(&mut names));
    names
}
