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

fn cc(source: &Path, library: &Path, more: &[&str]) {
    let include = Path::new(env!("CARGO_MANIFEST_DIR")).join("../handler-api/include");
    let output = Command::new("cc")
        .args(["-std=c11", "-Wall", "-Wextra", "-Wpedantic", "-Werror", "-shared", "-fPIC", "-pthread", "-I"])
        .arg(include)
        .arg(source)
        .args(more)
        .arg("-o")
        .arg(library)
        .output()
        .expect("these tests need a C compiler: install gcc");
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
}
