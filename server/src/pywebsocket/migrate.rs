//! `wshd migrate FILE`: a configuration of pywebsocket's becomes a config.toml.

use std::collections::BTreeMap;
use std::fmt::{self, Write};
use std::io;
use std::path::{Path, PathBuf};

use super::ini::{self, Entry};
use super::{Becomes, Kind, LEVELS, OPTIONS, PyOption};
use crate::config::{Config, ConfigError};

/// Why there is no config.toml. `Display` is made for a terminal: a line for each thing that is wrong.
#[derive(Debug)]
pub enum MigrateError {
    Unreadable(PathBuf, io::Error),
    /// Lines, counted from 1, and what is wrong with each.
    Wrong(PathBuf, Vec<(usize, String)>),
    /// A value that pywebsocket may take, but this server does not.
    Refused(ConfigError),
}

/// The text of a config.toml that does what this file did.
///
/// # Errors
/// A file that cannot be read or is not one of pywebsocket's, names that pywebsocket does not have, values that cannot be meant.
pub fn migrate(path: &Path) -> Result<String, MigrateError> {
    let bytes = std::fs::read(path).map_err(|error| MigrateError::Unreadable(path.to_owned(), error))?;
    let wrong = |lines| MigrateError::Wrong(path.to_owned(), lines);
    let text = String::from_utf8(bytes).map_err(|_| wrong(vec![(1, "the file is not UTF-8 text".into())]))?;
    let entries = ini::entries(&text).map_err(|line| wrong(vec![line]))?;
    let config = Draft::of(&entries).map_err(wrong)?.text(path);
    Config::parse(&config, Path::new("config.toml")).map_err(MigrateError::Refused)?;
    Ok(config)
}

/// The config.toml as it comes about.
#[derive(Debug, Default)]
struct Draft {
    /// Sections, in the order of the reference, with lines that are keys or remarks.
    sections: BTreeMap<&'static str, Vec<String>>,
    /// What is to be said at the beginning.
    remarks: Vec<String>,
}

/// Of the config; those that pywebsocket has something for.
const SECTIONS: [&str; 8] = ["listen", "tls", "handlers", "files", "upgrade", "auth.staff", "cgi", "log"];

impl Draft {
    fn of(entries: &[Entry]) -> Result<Self, Vec<(usize, String)>> {
        let mut draft = Self::default();
        let mut wrong = Vec::new();
        for entry in entries {
            if let Err(what) = draft.take(entry, entries) {
                wrong.push((entry.line, what));
            }
        }
        draft.add_defaults(entries);
        if wrong.is_empty() { Ok(draft) } else { Err(wrong) }
    }

    fn take(&mut self, entry: &Entry, all: &[Entry]) -> Result<(), String> {
        let option = option_of(entry)?;
        let (key, kind) = match option.becomes {
            Becomes::Key(key, kind) => (key, kind),
            Becomes::Nothing(why) => {
                self.remarks.push(format!("{} has nothing left to do: {why}.", entry.name));
                return Ok(());
            }
            Becomes::Users => {
                self.demand_users(&entry.name);
                return Ok(());
            }
            Becomes::ByHand(how) => {
                self.remarks.push(format!("{} is left to you: {how}.", entry.name));
                return Ok(());
            }
        };
        if option.name == "tls-client-auth" && has(all, "tls-client-cert-optional") {
            // The other option says more.
            return Ok(());
        }
        let value = value_of(entry, kind, given(all, "document-root"))?;
        if matches!(kind, Kind::Flag | Kind::Word(_)) && is_no(&entry.value) {
            self.add(key, format!("# pywebsocket took `{} = {}` for yes.", entry.name, entry.value));
        }
        if !(option.name == "server-host" && entry.value.is_empty()) {
            let (_, name) = key.split_once('.').expect("a key stands in a section");
            self.add(key, format!("{name} = {value}"));
        }
        Ok(())
    }

    /// Closes the server to whom it does not know. Who that is cannot be told from here: a password does not belong into a config.
    fn demand_users(&mut self, name: &str) {
        self.remarks.push(format!(
            "{name}: every request needs a user and a password, and the server does not start before there are some. Make them \
             with `wshd passwd USER users.txt`."
        ));
        self.add("files.auth", "auth = \"staff\"".to_owned());
        self.add("upgrade.auth", "auth = \"staff\"".to_owned());
        self.add("auth.staff.basic", "basic = \"users.txt\"".to_owned());
    }

    /// What pywebsocket does where nothing is said, and this server does not.
    fn add_defaults(&mut self, entries: &[Entry]) {
        if !has(entries, "port") {
            self.add("listen.port", "port = 80 # as pywebsocket, where no port is given".to_owned());
        }
        if !has(entries, "websock-handlers") {
            let folder = given(entries, "document-root").unwrap_or(".");
            self.add(
                "handlers.folders",
                format!("folders = [{folder:?}] # as pywebsocket, where none is given"),
            );
        }
        if !has(entries, "document-root") {
            self.remarks.push(
                "No document_root was given: pywebsocket served every file below the folder it was started in, handlers too. \
                 Here none are served; files.root names a folder."
                    .to_owned(),
            );
        }
        if has(entries, "log-file") && !has(entries, "log-max") {
            self.add("log.file_bytes_max", "file_bytes_max = 262144".to_owned());
        }
        if !has(entries, "log-level") {
            self.add("log.level", "level = \"warn\"".to_owned());
        }
    }

    fn add(&mut self, key: &'static str, line: String) {
        let (section, _) = key.rsplit_once('.').expect("a key stands in a section");
        self.sections.entry(section).or_default().push(line);
    }

    fn text(&self, path: &Path) -> String {
        let mut text =
            format!("# Made of {}, a configuration of pywebsocket's. config/config.toml\n", path.display());
        text.push_str(
            "# of the repository explains every key. Handlers are compiled libraries here: NAME_wsh.so in\n",
        );
        text.push_str("# the place of NAME_wsh.py.\n");
        for remark in &self.remarks {
            text.push_str(&format!("#\n# {remark}\n"));
        }
        for section in SECTIONS {
            if let Some(lines) = self.sections.get(section) {
                let _ = write!(text, "\n[{section}]\n{}\n", lines.join("\n"));
            }
        }
        text
    }
}

fn dashed(name: &str) -> String {
    name.replace('_', "-")
}

/// The value of an option, if the file has it.
fn given<'e>(entries: &'e [Entry], option: &str) -> Option<&'e str> {
    entries.iter().find(|entry| dashed(&entry.name) == option).map(|entry| entry.value.as_str())
}

fn has(entries: &[Entry], option: &str) -> bool {
    given(entries, option).is_some()
}

fn option_of(entry: &Entry) -> Result<&'static PyOption, String> {
    let name = dashed(&entry.name);
    let known = OPTIONS.iter().find(|option| option.name == name);
    known.ok_or_else(|| format!("pywebsocket has no option `{}`", entry.name))
}

/// In TOML.
fn value_of(entry: &Entry, kind: Kind, root: Option<&str>) -> Result<String, String> {
    let Entry { name, value, .. } = entry;
    // An absolute path stays as it is.
    let below_root = || root.map_or_else(|| PathBuf::from(value), |root| Path::new(root).join(value));
    Ok(match kind {
        Kind::Flag => "true".to_owned(),
        Kind::Word(word) => format!("{word:?}"),
        Kind::Whole => {
            let number: u64 =
                value.parse().map_err(|_| format!("`{name}` is `{value}`, but has to be a whole number"))?;
            number.to_string()
        }
        Kind::Text => quoted(value),
        Kind::Host => format!("[{}]", quoted(value)),
        Kind::Root => quoted(value),
        Kind::Path => quoted(&below_root().to_string_lossy()),
        Kind::Folder => format!("[{}]", quoted(&below_root().to_string_lossy())),
        Kind::Level => {
            let other = LEVELS.iter().find(|(other, _)| other == value).map(|(_, level)| *level);
            quoted(other.unwrap_or(value))
        }
        Kind::Words => {
            let words: Vec<_> = value.split(',').map(|word| quoted(word.trim())).collect();
            format!("[{}]", words.join(", "))
        }
    })
}

/// A string of TOML.
fn quoted(text: &str) -> String {
    toml::Value::from(text).to_string()
}

/// What a person writes who wants a flag to be off.
fn is_no(value: &str) -> bool {
    ["false", "no", "off", "0"].contains(&value.to_ascii_lowercase().as_str())
}

impl fmt::Display for MigrateError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Unreadable(path, error) => write!(f, "cannot read {}: {error}", path.display()),
            Self::Wrong(path, lines) => {
                for (index, (line, what)) in lines.iter().enumerate() {
                    let end = if index + 1 < lines.len() { "\n" } else { "" };
                    write!(f, "{}:{line}: {what}{end}", path.display())?;
                }
                Ok(())
            }
            Self::Refused(error) => write!(f, "it would become a config that is refused:\n{error}"),
        }
    }
}

impl std::error::Error for MigrateError {}

#[cfg(test)]
mod tests {
    use clap::CommandFactory;

    use super::*;
    use crate::cli::Cli;
    use crate::config::ClientAuth;

    /// The text, and what the server makes of it.
    fn migrated(ini: &str) -> (String, Config) {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("old.ini");
        std::fs::write(&path, ini).unwrap();
        let text = migrate(&path).unwrap_or_else(|error| panic!("{ini}: {error}"));
        let config = Config::parse(&text, Path::new("config.toml")).unwrap();
        (text, config)
    }

    fn refusal(ini: &str) -> String {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("old.ini");
        std::fs::write(&path, ini).unwrap();
        migrate(&path).unwrap_err().to_string()
    }

    #[test]
    fn every_option_finds_its_place() {
        let (text, config) = migrated(
            "[pywebsocket]\nport = 9998\nserver_host = ::1\nwebsock_handlers = ../example\nscan_dir = ../example/sub\n\
             websock_handlers_map_file = map.txt\nallow_handlers_outside_root_dir = yes\ndocument_root = /srv/www\n\
             tls = true\nprivate_key = /etc/key.pem\ncertificate = cert.pem\ntls-client-auth = x\n\
             tls_client_ca = ca.pem\nlog_file = a.log\nlog_level = fine\nlog_count = 3\nqueue = 5\n\
             validation_host = example.org\nvalidation_port = 80\nstrict = x\nbasic_auth = x\nbasic_auth_credential = ann:s3cret\n",
        );
        assert_eq!((config.listen.port, config.listen.backlog, config.listen.tls), (9998, 5, true));
        assert_eq!(config.listen.hosts, ["::1".parse().unwrap()]);
        assert_eq!(
            config.handlers.folders,
            [Path::new("/srv/www/../example")],
            "relative to the document root"
        );
        assert!(config.handlers.follow_links_outside);
        assert_eq!(config.files.root.as_deref(), Some(Path::new("/srv/www")));
        assert_eq!(config.tls.private_key, [Path::new("/etc/key.pem")], "an absolute path stays");
        assert_eq!(config.tls.certificate, [Path::new("/srv/www/cert.pem")]);
        assert_eq!(config.tls.client_auth, ClientAuth::Required);
        assert_eq!(config.log.file.as_deref(), Some(Path::new("/srv/www/a.log")));
        assert_eq!(config.log.level.to_string(), "trace");
        assert_eq!((config.log.file_bytes_max, config.log.files_kept), (262_144, 3));
        assert!(text.contains("strict has nothing left to do"), "{text}");
        assert!(text.contains("wshd passwd"), "{text}");
        let users = config.auth_of(None, None).expect("it was closed to strangers, and stays so");
        assert_eq!(config.auth_of_files(), Some(users));
        assert_eq!(config.auth[users].basic.as_deref(), Some(Path::new("users.txt")));
        assert!(!text.contains("s3cret"), "a password does not belong into a config");
    }

    #[test]
    fn what_pywebsocket_does_unasked_is_written_down() {
        let (text, config) = migrated("[pywebsocket]\n");
        assert_eq!(config.listen.port, 80);
        assert_eq!(config.handlers.folders, [Path::new(".")]);
        assert_eq!(config.files.root, None, "no folder is served that nobody named");
        assert!(text.contains("No document_root"), "{text}");
        assert_eq!(config.log.level.to_string(), "warn");
    }

    #[test]
    fn a_flag_is_on_whatever_it_says_and_that_is_remarked() {
        let (text, config) = migrated("[pywebsocket]\ntls = False\ncertificate = c\nprivate_key = k\n");
        assert!(config.listen.tls && text.contains("`tls = False` for yes"), "{text}");
        let (_, config) =
            migrated("[pywebsocket]\ntls_client_auth = x\ntls_client_cert_optional = x\ntls_client_ca = a\n");
        assert_eq!(config.tls.client_auth, ClientAuth::Optional);
    }

    #[test]
    fn everything_that_is_wrong_is_named_with_its_line() {
        let error = refusal("[pywebsocket]\nport = http\n\nprot = 80\n");
        let lines: Vec<_> = error.lines().collect();
        assert!(lines[0].contains("old.ini:2: `port` is `http`"), "{error}");
        assert!(lines[1].contains("old.ini:4: pywebsocket has no option `prot`"), "{error}");
        let error = refusal("[pywebsocket]\nport = 100000\n");
        assert!(error.contains("listen.port") && error.contains("65535"), "{error}");
    }

    /// What standalone.py takes on its command line, this server takes too, with the letters it has there.
    #[test]
    fn every_option_is_one_of_the_command_line_too() {
        let command = Cli::command();
        for option in OPTIONS {
            let found = command.get_arguments().find(|argument| argument.get_long() == Some(option.name));
            assert!(found.is_some(), "--{} is not understood", option.name);
        }
        let letters = "HVpPwsmdxtkclq".chars();
        for letter in letters {
            assert!(
                command.get_arguments().any(|argument| argument.get_short() == Some(letter)),
                "-{letter}"
            );
        }
    }
}
