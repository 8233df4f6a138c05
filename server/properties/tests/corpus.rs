//! What fuzzing found once is looked at in every test run.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};

use wshd_properties::ALL;

fn fuzz_folder() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../../fuzz")
}

fn files_in(folder: &Path) -> Vec<PathBuf> {
    let entries = fs::read_dir(folder).unwrap_or_else(|error| panic!("{}: {error}", folder.display()));
    let mut files: Vec<_> = entries.map(|entry| entry.unwrap().path()).collect();
    files.sort();
    files
}

/// Of a failure, the last file that the output names is the one.
fn has_its_property(name: &str) {
    let (_, property) = ALL.iter().find(|(known, _)| *known == name).expect("it is a property");
    let files = files_in(&fuzz_folder().join("corpus").join(name));
    assert!(files.len() >= 10, "{} files", files.len());
    for file in files {
        println!("{}", file.display());
        property(&fs::read(&file).unwrap());
    }
}

macro_rules! every_file_of {
    ($($name:ident)*) => {
        mod every_file_has_its_property {
            $(#[test]
            fn $name() {
                super::has_its_property(stringify!($name));
            })*

            pub(super) const NAMES: &[&str] = &[$(stringify!($name)),*];
        }
    };
}

every_file_of! { handshake extensions frames inflate close config library }

/// Each property is a target of its name, and a clone of the repository stays small.
#[test]
fn targets_properties_and_corpora_have_the_same_names() {
    let properties: BTreeSet<_> = ALL.iter().map(|(name, _)| (*name).to_owned()).collect();
    let names = |folder: &str| -> BTreeSet<String> {
        let files = files_in(&fuzz_folder().join(folder));
        files.iter().map(|file| file.file_stem().unwrap().to_str().unwrap().to_owned()).collect()
    };
    assert_eq!(names("targets"), properties);
    assert_eq!(every_file_has_its_property::NAMES, ALL.map(|(name, _)| name));
    assert_eq!(names("corpus"), properties);
    let manifest = fs::read_to_string(fuzz_folder().join("Cargo.toml")).unwrap();
    for name in &properties {
        assert!(manifest.contains(&format!("name = \"{name}\"\npath = \"targets/{name}.rs\"")), "{name}");
    }
    let sizes = properties.iter().flat_map(|name| files_in(&fuzz_folder().join("corpus").join(name)));
    let sizes: Vec<u64> = sizes.map(|file| file.metadata().unwrap().len()).collect();
    assert!(sizes.iter().max() <= Some(&8192), "{:?} bytes in one file", sizes.iter().max());
    assert!(sizes.iter().sum::<u64>() < 300_000, "{} bytes in all", sizes.iter().sum::<u64>());
}

/// A property without an input, and with a short one, is no reason to fail: libFuzzer begins with these.
#[test]
fn every_property_takes_any_beginning() {
    for (_, property) in ALL {
        property(b"");
        for byte in 0..=u8::MAX {
            property(&[byte]);
            property(&[byte, 0, 0]);
        }
    }
}

/// The fuzzer is told every section and key that there is.
#[test]
fn the_dictionary_of_the_config_has_every_key() {
    let words = fs::read_to_string(fuzz_folder().join("dictionaries/config.dict")).unwrap();
    let reference = fs::read_to_string(fuzz_folder().join("../config/config.toml")).unwrap();
    let mut keys = 0;
    for line in reference.lines().map(|line| line.trim_start_matches("# ")) {
        let is_word = |word: &str| word.bytes().all(|byte| byte.is_ascii_lowercase() || byte == b'_');
        if let Some((key, _)) = line.split_once(" = ").filter(|(key, _)| is_word(key)) {
            assert!(words.contains(&format!("\"{key} = \"")), "{key}");
            keys += 1;
        }
    }
    assert!(keys > 60, "{keys} keys");
}

/// What is fuzzed is what is built: the two lock files have the same versions.
#[test]
fn the_fuzz_targets_have_the_libraries_of_the_workspace() {
    let packages = |file: &str| -> BTreeSet<(String, String)> {
        let text = fs::read_to_string(fuzz_folder().join(file)).unwrap();
        let lines = text.lines().zip(text.lines().skip(1));
        let pairs =
            lines.filter(|(name, version)| name.starts_with("name =") && version.starts_with("version ="));
        pairs.map(|(name, version)| (name.to_owned(), version.to_owned())).collect()
    };
    let (fuzzed, built) = (packages("Cargo.lock"), packages("../Cargo.lock"));
    let has_another = |name: &String| built.iter().any(|(known, _)| known == name);
    let differ: Vec<_> = fuzzed.difference(&built).filter(|(name, _)| has_another(name)).collect();
    assert!(differ.is_empty(), "copy Cargo.lock to fuzz/ and let cargo complete it there: {differ:#?}");
    assert!(fuzzed.len() > 100);
}
