//! `wshd passwd` and `wshd token`: the lines of the files of users.

use std::fmt;
use std::fs::{self, OpenOptions};
use std::io::{self, IsTerminal, Read, Write};
use std::os::unix::fs::{MetadataExt, OpenOptionsExt, fchown};
use std::path::{Path, PathBuf};

use base64ct::{Base64UrlUnpadded, Encoding};

use super::file::{hash, hash_of_token};
use super::{FILE_BYTES_MAX, is_user};
use crate::secret::{self, Unreadable};

/// What was made.
#[derive(Debug)]
pub struct Made {
    /// For standard output: the token, where one was made.
    pub secret: Option<String>,
    /// For the person at the terminal.
    pub note: String,
}

/// Why nothing was made.
#[derive(Debug)]
pub enum MakeError {
    /// The text is no name of a user.
    User(String),
    /// There is no password.
    Empty,
    /// It was typed in two ways.
    Different,
    /// It could not be asked for.
    Ask(io::Error),
    /// The file cannot be read or written, and why.
    File(PathBuf, String),
}

impl fmt::Display for MakeError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::User(user) => {
                write!(
                    f,
                    "{user:?} cannot be a user: a name has 1 to 255 bytes and neither a colon nor a line break"
                )
            }
            Self::Empty => f.write_str("a password has at least one character; nothing was changed"),
            Self::Different => f.write_str("the two passwords differ; nothing was changed"),
            Self::Ask(error) => write!(f, "cannot read the password: {error}"),
            Self::File(path, why) => write!(f, "cannot change {}: {why}", path.display()),
        }
    }
}

impl std::error::Error for MakeError {}

/// Asks for a password, at the terminal without showing it, or as the first line of standard input, and keeps its hash.
///
/// # Errors
/// See [`MakeError`]; the file is then as it was.
pub fn set_password(user: &str, file: &Path) -> Result<Made, MakeError> {
    check_user(user)?;
    let password = if io::stdin().is_terminal() { typed(user)? } else { first_line()? };
    if password.is_empty() {
        return Err(MakeError::Empty);
    }
    let line = format!("{user}:{}", hash(&password));
    let is_of_user = |line: &str| line.split_once(':').is_some_and(|(found, _)| found == user);
    change(file, |text| {
        let mut lines: Vec<_> = text.lines().filter(|line| !is_of_user(line)).collect();
        // In its old place, so that the file can be compared with what it was.
        let place = text.lines().position(is_of_user).unwrap_or(lines.len());
        lines.insert(place, &line);
        lines.join("\n") + "\n"
    })?;
    let note = format!("the password of {user} is in {}", file.display());
    Ok(Made { secret: None, note })
}

/// Makes a token of 256 random bits and keeps its hash. Other tokens of the user stay.
///
/// # Errors
/// See [`MakeError`]; the file is then as it was.
pub fn make_token(user: &str, file: &Path) -> Result<Made, MakeError> {
    check_user(user)?;
    let mut random = [0; 32];
    getrandom::fill(&mut random).map_err(|error| MakeError::Ask(io::Error::other(error)))?;
    let token = Base64UrlUnpadded::encode_string(&random);
    let hash: String = hash_of_token(&token).iter().map(|byte| format!("{byte:02x}")).collect();
    change(file, |text| {
        let end = if text.is_empty() || text.ends_with('\n') { "" } else { "\n" };
        format!("{text}{end}{user}:{hash}\n")
    })?;
    let note = format!("this token of {user} is shown once; {} keeps only its hash", file.display());
    Ok(Made { secret: Some(token), note })
}

fn check_user(user: &str) -> Result<(), MakeError> {
    if is_user(user) && !user.starts_with('#') { Ok(()) } else { Err(MakeError::User(user.to_owned())) }
}

fn typed(user: &str) -> Result<String, MakeError> {
    let first = rpassword::prompt_password(format!("password of {user}: ")).map_err(MakeError::Ask)?;
    let second = rpassword::prompt_password("the same again: ").map_err(MakeError::Ask)?;
    if first == second { Ok(first) } else { Err(MakeError::Different) }
}

fn first_line() -> Result<String, MakeError> {
    let mut text = String::new();
    io::stdin().take(1 << 16).read_to_string(&mut text).map_err(MakeError::Ask)?;
    Ok(text.lines().next().unwrap_or_default().to_owned())
}

/// Puts a changed file in the place of the old one, at once: the server never reads half of it.
fn change(path: &Path, new: impl FnOnce(&str) -> String) -> Result<(), MakeError> {
    let failed = |why: String| MakeError::File(path.to_owned(), why);
    let system = |error: io::Error| failed(error.to_string());
    // A link stays one.
    let target = fs::canonicalize(path).unwrap_or_else(|_| path.to_owned());
    let old = match secret::read(&target, FILE_BYTES_MAX, false) {
        Ok(bytes) => Some(String::from_utf8(bytes).map_err(|_| failed("it is not UTF-8 text".into()))?),
        Err(Unreadable::System(error)) if error.kind() == io::ErrorKind::NotFound => None,
        Err(error) => return Err(failed(error.to_string())),
    };
    let mut name = std::ffi::OsString::from(".");
    name.push(target.file_name().ok_or_else(|| failed("it has no name".into()))?);
    name.push(".new");
    let beside = target.with_file_name(name);
    // One that was left behind by a crash.
    let _ = fs::remove_file(&beside);
    let mut file =
        OpenOptions::new().write(true).create_new(true).mode(0o600).open(&beside).map_err(system)?;
    let written = (|| {
        if let (Ok(before), Ok(now)) = (fs::metadata(&target), file.metadata())
            && (before.uid(), before.gid()) != (now.uid(), now.gid())
        {
            // The superuser changes a file that the server's own user has to read.
            fchown(&file, Some(before.uid()), Some(before.gid()))?;
        }
        file.write_all(new(old.as_deref().unwrap_or_default()).as_bytes())?;
        file.sync_all()?;
        fs::rename(&beside, &target)
    })();
    written.map_err(|error| {
        let _ = fs::remove_file(&beside);
        system(error)
    })
}
