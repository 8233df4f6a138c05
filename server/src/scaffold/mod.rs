//! `wshd new NAME`: writes a handler project that builds, with a test.
//!
//! A project is a row of `TEMPLATES`. Another face of the Rust crate, or another language, is another row and the files it names.

use std::fmt;
use std::fs::{self, File};
use std::io::{self, Write};
use std::path::{Path, PathBuf};

use crate::registry::scan;

/// The language of a project.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, clap::ValueEnum)]
pub enum Language {
    #[default]
    Rust,
    C,
}

/// How the handler is called.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, clap::ValueEnum)]
pub enum Face {
    /// A function for each event, as in the browser's WebSocket
    #[default]
    Callbacks,
}

/// The files of one kind of project: where they are, and their text. `@name@` and the like stand in both.
struct Template {
    language: Language,
    face: Face,
    files: &'static [(&'static str, &'static str)],
}

const IGNORED: (&str, &str) = (".gitignore", "/target\n*.so\n/test\n");

const TEMPLATES: &[Template] = &[
    Template {
        language: Language::Rust,
        face: Face::Callbacks,
        files: &[
            ("Cargo.toml", include_str!("rust/Cargo.toml.in")),
            ("src/lib.rs", include_str!("rust/callbacks.rs.in")),
            IGNORED,
        ],
    },
    Template {
        language: Language::C,
        face: Face::Callbacks,
        files: &[
            ("@name@.c", include_str!("c/callbacks.c.in")),
            ("test.c", include_str!("c/test.c.in")),
            ("Makefile", include_str!("c/Makefile.in")),
            ("wsh.h", include_str!("../../../handler-api/include/wsh.h")),
            IGNORED,
        ],
    },
];

/// What was written.
#[derive(Debug)]
pub struct Project {
    folder: PathBuf,
    resource: String,
    files: Vec<String>,
    test: &'static str,
}

/// Writes the project `NAME_wsh` into `parent`. Nothing that exists is touched.
///
/// # Errors
/// A name that cannot be served or built, a folder that is there already, a file that cannot be written.
pub fn create(name: &str, language: Language, face: Face, parent: &Path) -> Result<Project, ScaffoldError> {
    let template = TEMPLATES.iter().find(|template| template.language == language && template.face == face);
    let template = template.ok_or(ScaffoldError::NoTemplate(language, face))?;
    check(name, language).map_err(|reason| ScaffoldError::Name { name: name.to_owned(), reason })?;
    let folder = parent.join(format!("{name}_wsh"));
    // Fails where there is one, also if somebody makes it in this moment.
    fs::create_dir(&folder).map_err(|error| match error.kind() {
        io::ErrorKind::AlreadyExists => ScaffoldError::Exists(folder.clone()),
        _ => ScaffoldError::Write(folder.clone(), error),
    })?;
    let words = Words::of(name);
    let mut files = Vec::new();
    for (file, text) in template.files {
        let file = words.fill(file);
        let path = folder.join(&file);
        write(&path, &words.fill(text)).map_err(|error| ScaffoldError::Write(path, error))?;
        files.push(file);
    }
    let test = match language {
        Language::Rust => "cargo test",
        Language::C => "make test",
    };
    Ok(Project { folder, resource: format!("/{name}"), files, test })
}

fn write(path: &Path, text: &str) -> io::Result<()> {
    if let Some(folder) = path.parent() {
        fs::create_dir_all(folder)?;
    }
    File::create_new(path)?.write_all(text.as_bytes())
}

/// wsh.h has 32 bytes for the name, and one of them is the NUL.
const NAME_BYTES_MAX: usize = 31;

fn check(name: &str, language: Language) -> Result<(), String> {
    if name.is_empty() {
        return Err("it is empty".into());
    }
    if let Some(name) = name.strip_suffix("_wsh").filter(|name| !name.is_empty()) {
        return Err(format!("the ending _wsh is added by itself; write `wshd new {name}`"));
    }
    if name.contains('/') {
        return Err("it is one segment of the resource path; for a path of several, put the library into a \
                    subfolder of the handlers folder"
            .into());
    }
    scan::valid(name)?;
    if name.len() > NAME_BYTES_MAX {
        return Err(format!("it is longer than {NAME_BYTES_MAX} bytes"));
    }
    let (more, allowed) = match language {
        Language::Rust => ("_", "letters, digits and _"),
        Language::C => ("_-", "letters, digits, _ and -"),
    };
    let is_allowed = |char: char| char.is_ascii_alphanumeric() || more.contains(char);
    if !name.starts_with(|char: char| char.is_ascii_alphabetic()) || !name.chars().all(is_allowed) {
        return Err(format!("a project is named with {allowed}, the first one a letter"));
    }
    Ok(())
}

/// What stands for each @word@ of a template.
struct Words([(&'static str, String); 5]);

impl Words {
    fn of(name: &str) -> Self {
        // A leading `lib` counts as cargo's, so that of a name of its own needs another one before it.
        let library =
            if name.starts_with("lib") { format!("lib{name}_wsh.so") } else { format!("{name}_wsh.so") };
        Self([
            ("@name@", name.to_owned()),
            ("@library@", library),
            ("@handler_api@", handler_api("")),
            ("@handler_api_testing@", handler_api(", features = [\"testing\"]")),
            ("@edition@", "2024".to_owned()),
        ])
    }

    fn fill(&self, text: &str) -> String {
        self.0.iter().fold(text.to_owned(), |text, (word, value)| text.replace(word, value))
    }
}

/// The dependency on handler-api: in the sources that this program was built from, as long as they are there.
fn handler_api(more: &str) -> String {
    let sources = Path::new(env!("CARGO_MANIFEST_DIR")).join("../handler-api");
    match sources.canonicalize() {
        Ok(path) if path.join("Cargo.toml").is_file() => {
            let path = toml::Value::String(path.to_string_lossy().into_owned());
            format!("{{ path = {path}{more} }}")
        }
        _ => format!("{{ version = \"{}\"{more} }}", env!("CARGO_PKG_VERSION")),
    }
}

impl fmt::Display for Project {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (folder, test) = (self.folder.display(), self.test);
        writeln!(f, "{folder} has {}\n", self.files.join(", "))?;
        writeln!(f, "  cd {folder} && {test:<10}   builds it and runs its test")?;
        let serve = format!("wshd dev {folder}");
        let width = folder.to_string().len() + test.len().max(10) + 7;
        writeln!(
            f,
            "  {serve:width$}   serves it on ws://localhost:9998{}, and anew after each change",
            self.resource
        )
    }
}

/// Why there is no new project.
#[derive(Debug)]
pub enum ScaffoldError {
    /// No handler can have this name.
    Name { name: String, reason: String },
    /// There is something of this name.
    Exists(PathBuf),
    /// The language has no such face.
    NoTemplate(Language, Face),
    /// The system refused.
    Write(PathBuf, io::Error),
}

impl fmt::Display for ScaffoldError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Name { name, reason } => write!(f, "no handler can be named {name:?}: {reason}"),
            Self::Exists(path) => write!(
                f,
                "{} is there already, and nothing is overwritten; choose another name or remove it",
                path.display()
            ),
            Self::NoTemplate(language, face) => {
                write!(f, "there is no project in {language:?} with the face {face:?}")
            }
            Self::Write(path, error) => write!(f, "cannot write {}: {error}", path.display()),
        }
    }
}

impl std::error::Error for ScaffoldError {}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_that_cannot_be_served_or_built_is_refused_with_the_reason() {
        for (name, words) in [
            ("", "empty"),
            ("..", "means a folder"),
            ("a?b", "'?'"),
            ("a%20b", "'%'"),
            ("a\\b", "'\\\\'"),
            ("games/chess", "subfolder"),
            ("chat_wsh", "write `wshd new chat`"),
            ("grüße", "letters, digits and _"),
            ("a b", "letters, digits and _"),
            ("my-chat", "letters, digits and _"),
            ("7up", "the first one a letter"),
            (".hidden", "the first one a letter"),
            ("abcdefghijklmnopqrstuvwxyzabcdef", "longer than 31"),
        ] {
            let reason = check(name, Language::Rust).expect_err(name);
            assert!(reason.contains(words), "{name}: {reason}");
        }
        assert_eq!(check("chat_2", Language::Rust), Ok(()));
        assert_eq!(check("my-chat", Language::C), Ok(()));
    }

    #[test]
    fn nothing_that_exists_is_touched() {
        let parent = tempfile::tempdir().unwrap();
        create("chat", Language::C, Face::Callbacks, parent.path()).unwrap();
        let source = parent.path().join("chat_wsh/chat.c");
        fs::write(&source, "mine").unwrap();
        for language in [Language::C, Language::Rust] {
            let error = create("chat", language, Face::Callbacks, parent.path()).unwrap_err().to_string();
            assert!(error.contains("chat_wsh is there already"), "{error}");
        }
        assert_eq!(fs::read_to_string(source).unwrap(), "mine");
    }

    #[test]
    fn no_template_keeps_a_word_that_was_not_filled_in() {
        let words = Words::of("library");
        for (file, text) in TEMPLATES.iter().flat_map(|template| template.files) {
            let filled = format!("{}\n{}", words.fill(file), words.fill(text));
            for (word, _) in &words.0 {
                assert!(!filled.contains(word), "{file}: {word}");
            }
        }
        assert!(words.fill("@library@") == "liblibrary_wsh.so", "a leading lib counts as cargo's");
    }
}
