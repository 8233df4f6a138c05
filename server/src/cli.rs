//! The command line: few flags, each with a key in the config file, and the letters of pywebsocket's standalone.py.
//!
//! Flags are parsed here and override the file in `Config`; nothing here acts on them.

use std::path::PathBuf;

use clap::builder::{PossibleValuesParser, TypedValueParser};
use clap::{Parser, Subcommand};

use crate::config::{Host, Level};
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
    #[arg(short = 'H', long, value_name = "HOST", alias = "server_host", global = true)]
    pub server_host: Vec<Host>,

    /// Folder of handler libraries, may be repeated; replaces those of the file [default: handlers]
    #[arg(short, long, value_name = "FOLDER", alias = "websock_handlers", global = true)]
    pub websock_handlers: Vec<PathBuf>,

    /// The only folder that is scanned, below that of -w; resource paths are as without it [default: all of -w]
    #[arg(short, long, value_name = "FOLDER", alias = "scan_dir", global = true)]
    pub scan_dir: Option<PathBuf>,

    /// File of aliases, a line each: ALIAS EXISTING, such as / /echo
    #[arg(short = 'm', long, value_name = "FILE", alias = "websock_handlers_map_file", global = true)]
    pub websock_handlers_map_file: Option<PathBuf>,

    /// Also load what a link in a handlers folder points at outside of that folder
    #[arg(long, alias = "allow_handlers_outside_root_dir", global = true)]
    pub allow_handlers_outside_root_dir: bool,

    /// Host that a request target must have if it has one, as in GET ws://HOST:PORT/echo [default: any]
    #[arg(short = 'V', long, value_name = "HOST", alias = "validation_host", global = true)]
    pub validation_host: Option<Host>,

    /// Port that a request target must have if it has a host [default: any]
    #[arg(short = 'P', long, value_name = "PORT", alias = "validation_port", global = true)]
    pub validation_port: Option<u16>,

    /// Folder of static files to serve over HTTP [default: none are served]
    #[arg(short, long, value_name = "FOLDER", alias = "document_root", global = true)]
    pub document_root: Option<PathBuf>,

    /// Speak TLS on the port: wss:// and https://, nothing else
    #[arg(short, long, global = true)]
    pub tls: bool,

    /// Certificate chain in PEM; may be repeated, each with its key: a peer gets the one for the name it asks for
    #[arg(short, long, value_name = "FILE", global = true)]
    pub certificate: Vec<PathBuf>,

    /// Private key in PEM, which only its owner may read
    #[arg(short = 'k', long, value_name = "FILE", alias = "private_key", global = true)]
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

    /// Config file; config/config.toml explains every key
    #[arg(long, value_name = "FILE", global = true)]
    pub config: Option<PathBuf>,

    /// How much to log [default: info]
    #[arg(long, value_name = "LEVEL", alias = "log_level", value_parser = level(), global = true)]
    pub log_level: Option<Level>,

    /// Print version
    #[arg(long, action = clap::ArgAction::Version)]
    pub version: Option<bool>,

    /// What to do instead of serving.
    #[command(subcommand)]
    pub command: Option<Command>,
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

fn level() -> impl TypedValueParser<Value = Level> {
    PossibleValuesParser::new(Level::NAMES).try_map(|name| name.parse::<Level>())
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory;

    use super::*;

    fn parse(line: &str) -> Result<Cli, String> {
        Cli::try_parse_from(line.split_whitespace()).map_err(|error| error.to_string())
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
