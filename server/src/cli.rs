//! The command line: few flags, each with a key in the config file, and the letters of pywebsocket's standalone.py.
//!
//! Flags are parsed here and override the file in `Config`; nothing here acts on them.

use std::ffi::OsString;
use std::path::PathBuf;

use clap::builder::{PossibleValue, PossibleValuesParser, TypedValueParser};
use clap::{Args, Parser, Subcommand};

use crate::config::{Credential, Host, Level};
use crate::pywebsocket;
use crate::scaffold::{Face, Language};

/// Serve WebSockets with handlers from shared libraries.
///
/// A handler library is a file named NAME_wsh.so or libNAME_wsh.so in a handlers folder.
/// It answers on ws://HOST:PORT/NAME; in a subfolder SUB on /SUB/NAME.
///
/// Settings come from the config file, and the flags here override it. The file is the one
/// given with --config, else the one named by the environment variable WSHD_CONFIG, else
/// config/config.toml, else /etc/wshd/config.toml; without any of them every setting has
/// its default. Paths are relative to the folder the server is started in.
#[derive(Debug, Clone, Default, PartialEq, Eq, Parser)]
#[command(name = "wshd", version, disable_version_flag = true, after_help = EXAMPLES, verbatim_doc_comment)]
pub struct Cli {
    /// Port to listen on; 0 takes any free one [default: 9998]
    #[arg(short, long, value_name = "PORT", global = true)]
    pub port: Option<u16>,

    /// Address or name to listen on, may be repeated [default: every address of this machine]
    #[arg(short = 'H', long, value_name = "HOST", global = true)]
    pub server_host: Vec<Host>,

    /// Unix socket to listen on beside the port, such as /run/wshd/ws.sock; may be repeated [default: none]
    #[arg(long, value_name = "FILE", global = true)]
    pub unix: Vec<PathBuf>,

    /// Folder of handler libraries, may be repeated; replaces those of the file [default: handlers]
    #[arg(short, long, value_name = "FOLDER", global = true)]
    pub websock_handlers: Vec<PathBuf>,

    /// The only folder that is scanned, below that of -w; resource paths are as without it [default: all of -w]
    #[arg(short, long, value_name = "FOLDER", global = true)]
    pub scan_dir: Option<PathBuf>,

    /// File of aliases, a line each: ALIAS EXISTING, such as / /echo
    #[arg(short = 'm', long, value_name = "FILE", global = true)]
    pub websock_handlers_map_file: Option<PathBuf>,

    /// Also load what a link in a handlers folder points at outside of that folder
    #[arg(long, global = true)]
    pub allow_handlers_outside_root_dir: bool,

    /// Host that a request target must have if it has one, as in GET ws://HOST:PORT/echo [default: any]
    #[arg(short = 'V', long, value_name = "HOST", global = true)]
    pub validation_host: Option<Host>,

    /// Port that a request target must have if it has a host [default: any]
    #[arg(short = 'P', long, value_name = "PORT", global = true)]
    pub validation_port: Option<u16>,

    /// Folder of static files to serve over HTTP [default: none are served]
    #[arg(short, long, value_name = "FOLDER", global = true)]
    pub document_root: Option<PathBuf>,

    /// Speak TLS on the port: wss:// and https://, nothing else
    #[arg(short, long, global = true)]
    pub tls: bool,

    /// Certificate chain in PEM; may be repeated, each with its key: a peer gets the one for the name it asks for
    #[arg(short, long, value_name = "FILE", global = true)]
    pub certificate: Vec<PathBuf>,

    /// Private key in PEM, which only its owner may read
    #[arg(short = 'k', long, value_name = "FILE", global = true)]
    pub private_key: Vec<PathBuf>,

    /// Ask clients for a certificate, and serve none without
    #[arg(long, global = true)]
    pub tls_client_auth: bool,

    /// With --tls-client-auth: also serve clients that have no certificate
    #[arg(long, global = true, requires = "tls_client_auth")]
    pub tls_client_cert_optional: bool,

    /// Certificates that may sign those of clients, in PEM
    #[arg(long, value_name = "FILE", global = true)]
    pub tls_client_ca: Option<PathBuf>,

    /// Paths such as /cgi-bin,/htbin whose folders in the document root hold programs: CGI
    #[arg(short = 'x', long, value_name = "PATHS", value_delimiter = ',', value_parser = crate::config::cgi_path, global = true)]
    pub cgi_paths: Vec<String>,

    /// Every request needs the user and password of --basic-auth-credential; there is no default
    #[arg(long, requires = "basic_auth_credential", global = true)]
    pub basic_auth: bool,

    /// User and password; other users of this machine can see them, unlike those of `wshd passwd`
    #[arg(long, value_name = "USER:PASSWORD", requires = "basic_auth", global = true)]
    pub basic_auth_credential: Option<Credential>,

    /// Config file; config/config.toml explains every key
    #[arg(long, value_name = "FILE", global = true)]
    pub config: Option<PathBuf>,

    /// How much to log [default: info]
    #[arg(long, value_name = "LEVEL", value_parser = level(), global = true)]
    pub log_level: Option<Level>,

    /// File for log lines, instead of standard error
    #[arg(short, long, value_name = "FILE", global = true)]
    pub log_file: Option<PathBuf>,

    /// Bytes of the log file from which it becomes an older one; 0 lets it grow [default: 10485760]
    #[arg(long, value_name = "BYTES", global = true)]
    pub log_max: Option<u64>,

    /// How many older log files stay [default: 5]
    #[arg(long, value_name = "COUNT", value_parser = clap::value_parser!(u32).range(..=1000), global = true)]
    pub log_count: Option<u32>,

    /// Connections that may wait to be accepted [default: 1024]
    #[arg(short, long, value_name = "COUNT", value_parser = clap::value_parser!(u32).range(1..=1 << 20), global = true)]
    pub queue: Option<u32>,

    #[command(flatten)]
    pub unused: Unused,

    /// Print version
    #[arg(long, action = clap::ArgAction::Version)]
    pub version: Option<bool>,

    /// What to do instead of serving.
    #[command(subcommand)]
    pub command: Option<Command>,
}

/// Options of pywebsocket's that have nothing left to do here. They are taken, so that an old command line works, and answered with a
/// line each.
#[derive(Debug, Clone, Default, PartialEq, Eq, Args)]
pub struct Unused {
    #[arg(long, hide = true, global = true)]
    allow_draft75: bool,
    #[arg(long, hide = true, global = true)]
    strict: bool,
    #[arg(long, hide = true, global = true, value_name = "MODULE")]
    tls_module: Option<String>,
    #[arg(long, hide = true, global = true, value_name = "ENCODING")]
    handler_encoding: Option<String>,
    #[arg(long, hide = true, global = true, value_name = "LEVEL")]
    deflate_log_level: Option<String>,
    #[arg(long, hide = true, global = true, value_name = "SECONDS", allow_negative_numbers = true)]
    thread_monitor_interval_in_sec: Option<i64>,
}

impl Unused {
    /// What is to be said of those that were given.
    pub fn notes(&self) -> impl Iterator<Item = String> {
        let given = [
            ("allow-draft75", self.allow_draft75),
            ("strict", self.strict),
            ("tls-module", self.tls_module.is_some()),
            ("handler-encoding", self.handler_encoding.is_some()),
            ("deflate-log-level", self.deflate_log_level.is_some()),
            ("thread-monitor-interval-in-sec", self.thread_monitor_interval_in_sec.is_some()),
        ];
        given.into_iter().filter(|(_, is_given)| *is_given).map(|(option, _)| {
            let why = pywebsocket::why_unused(option).expect("the table has every option");
            format!("--{option} does nothing: {why}")
        })
    }
}

/// What to do instead of serving.
#[derive(Debug, Clone, PartialEq, Eq, Subcommand)]
pub enum Command {
    /// Check config file and handler libraries, say what would be served; status 0 or 1
    Configtest,
    /// Have the running server read its config again and load every library that changed or was refused
    Reload {
        /// Only this handler
        handler: Option<String>,
    },
    /// Have the running server go back to the version of a handler that was active before
    Rollback {
        /// Its name or resource path, such as chat
        handler: String,
    },
    /// Say what the running server serves, and which older versions are still in use
    Status {
        /// As JSON, for programs
        #[arg(long)]
        json: bool,
    },
    /// Have the running server stop as with SIGTERM
    Stop,
    /// Make a certificate for development, cert.pem and key.pem in this folder
    Cert {
        /// Names and addresses of this machine, such as localhost or 127.0.0.1
        #[arg(required = true)]
        hosts: Vec<String>,
    },
    /// Set the password of a user, asked for or read from standard input, in a file for `basic` in [auth.NAME]
    Passwd {
        /// Who it is for
        user: String,
        /// Made if it is not there
        #[arg(default_value = "users.txt")]
        file: PathBuf,
    },
    /// Make a token for a user, show it this once, and put its hash into a file for `bearer` in [auth.NAME]
    Token {
        /// Who it is for
        user: String,
        /// Made if it is not there
        #[arg(default_value = "tokens.txt")]
        file: PathBuf,
    },
    /// Turn a configuration of pywebsocket's, an INI file, into a config.toml and print it
    Migrate {
        /// With a section [pywebsocket], as standalone.py takes it with --config
        file: PathBuf,
    },
    /// Write a handler project NAME_wsh that builds, with a test
    New {
        /// Its resource path without the slash, such as chat
        name: String,
        /// What it is written in
        #[arg(long, value_enum, default_value_t)]
        lang: Language,
        /// How the handler is called
        #[arg(long, value_enum, default_value_t)]
        face: Face,
    },
    /// Serve a handler project while one works on it: build and reload it after each change
    Dev {
        /// Its folder, with a Cargo.toml or a Makefile
        #[arg(default_value = ".")]
        folder: PathBuf,
    },
    /// Load a library and end: the child process in which the server tries out a new library.
    #[command(hide = true)]
    ProbeLibrary {
        /// The private copy to load.
        path: PathBuf,
    },
}

const EXAMPLES: &str = "\
Examples:
  wshd -p 9998 -w handlers
      Serve the libraries in the folder handlers:
      libecho_wsh.so answers on ws://localhost:9998/echo

  wshd cert localhost && wshd -t -c cert.pem -k key.pem
      The same with TLS, on wss://localhost:9998

  wshd --config /srv/chat/config.toml configtest
      Check a config file and the libraries it names, without serving

  wshd new chat && wshd dev chat_wsh
      Begin a handler, and serve it while you work on it

  wshd status
      Ask the server that runs with this config what it serves";

/// The levels, and pywebsocket's names for some of them.
fn level() -> impl TypedValueParser<Value = Level> {
    let named = |name: &'static str| {
        let other = pywebsocket::LEVELS.iter().filter(|(_, level)| *level == name).map(|(other, _)| *other);
        PossibleValue::new(name).aliases(other)
    };
    PossibleValuesParser::new(Level::NAMES.iter().map(|name| named(name))).try_map(|name| {
        let own = pywebsocket::LEVELS.iter().find(|(other, _)| *other == name).map(|(_, level)| *level);
        own.unwrap_or(&name).parse::<Level>()
    })
}

impl Cli {
    /// What is to be said of flags that were given.
    pub fn notes(&self) -> impl Iterator<Item = String> {
        let credential = self.basic_auth_credential.as_ref().map(|credential| {
            format!(
                "the password in --basic-auth-credential can be seen by other users of this machine; `wshd passwd {} \
                 users.txt`, and in the config [auth.staff] with basic = \"users.txt\", replace it",
                credential.user
            )
        });
        self.unused.notes().chain(credential)
    }

    /// As this process was started. Ends it where the command line is wrong, or asks for the help.
    pub fn of_this_process() -> Self {
        Self::parse_from(with_dashes(std::env::args_os()))
    }
}

/// pywebsocket writes the names of its options with dashes and with underscores.
fn with_dashes(arguments: impl IntoIterator<Item = OsString>) -> impl Iterator<Item = OsString> {
    let mut is_option = true;
    arguments.into_iter().map(move |argument| {
        // What follows `--` is no option, whatever it looks like.
        is_option &= argument != "--";
        let Some(long) = argument.to_str().filter(|text| is_option && text.starts_with("--")) else {
            return argument;
        };
        let (name, value) = long.split_at(long.find('=').unwrap_or(long.len()));
        format!("{}{value}", name.replace('_', "-")).into()
    })
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory;

    use super::*;

    fn parse(line: &str) -> Result<Cli, String> {
        let arguments = line.split_whitespace().map(OsString::from);
        Cli::try_parse_from(with_dashes(arguments)).map_err(|error| error.to_string())
    }

    /// clap finds no contradiction among the flags.
    #[test]
    fn flags_are_consistent() {
        Cli::command().debug_assert();
    }

    /// The line of pywebsocket's manual works, short and long, with dashes and underscores.
    #[test]
    fn pywebsocket_flags_are_understood() {
        let short = parse("wshd -p 9998 -w a -w b -d www -H ::1 -H localhost").unwrap();
        assert_eq!(short.port, Some(9998));
        assert_eq!(short.websock_handlers, [PathBuf::from("a"), PathBuf::from("b")]);
        assert_eq!(short.server_host, ["::1".parse().unwrap(), "localhost".parse().unwrap()]);
        let long = "wshd --port=9998 --websock-handlers a --websock_handlers b --document_root www --server-host ::1 --server_host localhost";
        assert_eq!(parse(long).unwrap(), short);
        assert_eq!(parse("wshd").unwrap(), Cli::default());
        let tls = "wshd -t -c cert.pem -k key.pem --tls-client-auth --tls-client-cert-optional --tls-client-ca ca.pem";
        let long = "wshd --tls --certificate cert.pem --private_key key.pem --tls-client-auth --tls-client-cert-optional --tls-client-ca ca.pem";
        assert_eq!(parse(tls).unwrap(), parse(long).unwrap());
        parse("wshd -t --tls-client-cert-optional").unwrap_err();
        let paths = "wshd -s a/b -m map --allow-handlers-outside-root-dir -V a.example -P 80";
        let long = "wshd --scan_dir a/b --websock-handlers-map-file map --allow_handlers_outside_root_dir --validation-host a.example --validation_port 80";
        assert_eq!(parse(paths).unwrap(), parse(long).unwrap());
    }

    /// pywebsocket's own names of levels, and options that do nothing any more but are no reason not to start.
    #[test]
    fn the_rest_of_pywebsocket_is_understood_too() {
        let line = "wshd -l a.log --log-level fine --log_max 1000 --log-count=3 -q 5";
        let cli = parse(line).unwrap();
        assert_eq!(cli.log_level, Some(Level::Trace));
        assert_eq!((cli.log_max, cli.log_count, cli.queue), (Some(1000), Some(3), Some(5)));
        assert_eq!(cli.unused.notes().count(), 0);
        assert_eq!(parse("wshd --log-level critical").unwrap().log_level, Some(Level::Error));

        let line = "wshd --allow-draft75 --strict --tls_module ssl --handler-encoding utf-8 --deflate_log_level warn \
                    --thread_monitor_interval_in_sec -1";
        let notes: Vec<_> = parse(line).unwrap().unused.notes().collect();
        assert_eq!(notes.len(), 6, "{notes:?}");
        assert_eq!(notes[1], "--strict does nothing: requests are always judged strictly");
    }

    /// Only names of options are changed, and only before `--`.
    #[test]
    fn values_keep_their_underscores() {
        let cli = parse("wshd --websock_handlers=a_b -d c_d").unwrap();
        assert_eq!(cli.websock_handlers, [PathBuf::from("a_b")]);
        assert_eq!(cli.document_root, Some(PathBuf::from("c_d")));
        let rest = ["--a_b", "--", "--a_b"].map(OsString::from);
        assert!(with_dashes(rest).eq(["--a-b", "--", "--a_b"].map(OsString::from)));
    }

    /// Flags stand before or after the subcommand.
    #[test]
    fn configtest_takes_the_flags() {
        let before = parse("wshd -w a --log-level debug configtest").unwrap();
        assert_eq!(before.command, Some(Command::Configtest));
        assert_eq!(before.log_level, Some(Level::Debug));
        assert_eq!(parse("wshd configtest -w a --log-level debug").unwrap(), before);
    }

    /// The probe takes a path, also one that looks like a flag after --.
    #[test]
    fn probe_takes_a_path() {
        let path = |line| match parse(line).unwrap().command {
            Some(Command::ProbeLibrary { path }) => path,
            other => panic!("{other:?}"),
        };
        assert_eq!(path("wshd probe-library /x/a.so"), PathBuf::from("/x/a.so"));
        assert_eq!(path("wshd probe-library -- -a.so"), PathBuf::from("-a.so"));
    }

    /// Wrong values are refused with what is right.
    #[test]
    fn wrong_values_are_refused() {
        assert!(parse("wshd -p 65536").unwrap_err().contains("65536 is not in 0..=65535"));
        assert!(
            parse("wshd -H 127.0.0.1:80").unwrap_err().contains("a host is an address such as 127.0.0.1")
        );
        assert!(parse("wshd --log-level loud").unwrap_err().contains("error, warn, info, debug, trace"));
        parse("wshd handlers").unwrap_err();
        assert!(parse("wshd new chat --lang cobol").unwrap_err().contains("rust, c"));
    }

    /// The help ends with examples and does not speak of the probe.
    #[test]
    fn help_is_for_newcomers() {
        let help = Cli::command().render_long_help().to_string();
        assert!(help.trim_end().ends_with("what it serves"), "{help}");
        assert!(help.contains("wshd -p 9998 -w handlers") && help.contains("configtest"), "{help}");
        assert!(!help.contains("probe-library"), "{help}");
        assert!(help.lines().all(|line| line.chars().count() <= 120), "{help}");
    }
}
