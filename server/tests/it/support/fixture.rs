use std::path::{Path, PathBuf};
use std::process::Command;

/// The library that cargo built for this test run.
///
/// The handlers are dev-dependencies of this package for exactly this reason: cargo then builds `libecho_wsh.so` beside the
/// test program, fresh after each edit. Where it puts the file is stable practice and no documented contract, so only this
/// function relies on it.
pub(crate) fn handler_library(name: &str) -> PathBuf {
    let program = std::env::current_exe().expect("a test program has a path");
    program.with_file_name(libloading::library_filename(format!("{name}_wsh")))
}

/// Compiles `tests/fixtures/NAME.c` to a library in `folder`, under the file name given.
pub(crate) fn compile_c(fixture: &str, folder: &Path, file: &str) {
    compile_c_with(fixture, folder, file, &[]);
}

/// The same with further arguments for the compiler, such as `-DVERSION=2`.
pub(crate) fn compile_c_with(fixture: &str, folder: &Path, file: &str, more: &[&str]) {
    let source = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures").join(format!("{fixture}.c"));
    cc(&source, &folder.join(file), more);
}

/// Compiles a source text; `more` are further arguments for the compiler.
pub(crate) fn compile_c_text(text: &str, folder: &Path, file: &str, more: &[&str]) {
    let work = tempfile::tempdir().expect("a temporary folder");
    let source = work.path().join("fixture.c");
    std::fs::write(&source, text).expect("the source is written");
    cc(&source, &folder.join(file), more);
}

/// Compiles an example of `handler-api/examples`, in C or in C++, as its first lines say.
pub(crate) fn compile_example(example: &str, folder: &Path, file: &str) {
    let source = Path::new(env!("CARGO_MANIFEST_DIR")).join("../handler-api/examples").join(example);
    match source.extension().and_then(|extension| extension.to_str()) {
        Some("cc") => {
            let map = Path::new(env!("CARGO_MANIFEST_DIR")).join("../handler-api/include/wsh.map");
            let script = format!("-Wl,--version-script={}", map.display());
            compile("c++", "-std=c++17", &source, &folder.join(file), &["-fno-gnu-unique", &script]);
        }
        _ => cc(&source, &folder.join(file), &[]),
    }
}

fn cc(source: &Path, library: &Path, more: &[&str]) {
    compile("cc", "-std=c11", source, library, more);
}

fn compile(compiler: &str, standard: &str, source: &Path, library: &Path, more: &[&str]) {
    let include = Path::new(env!("CARGO_MANIFEST_DIR")).join("../handler-api/include");
    let output = Command::new(compiler)
        .args([standard, "-Wall", "-Wextra", "-Wpedantic", "-Werror", "-shared", "-fPIC", "-pthread", "-I"])
        .arg(include)
        .arg(source)
        .args(more)
        .arg("-o")
        .arg(library)
        .output()
        .expect("these tests need a C and a C++ compiler: install gcc and g++");
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
}
