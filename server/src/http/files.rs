//! Static files under one document root.
//!
//! The kernel keeps every open inside the root (openat2 with RESOLVE_BENEATH): no spelling of a path and no symlink, however
//! quickly it is swapped, leads out of it. Symlinks, names that begin with a dot, and handler libraries are not served.

use std::ffi::OsStr;
use std::future::Future;
use std::io;
use std::os::fd::OwnedFd;
use std::path::{Component, Path, PathBuf};
use std::pin::Pin;
use std::sync::Arc;

use http::header::{self, HeaderValue};
use http::{Request, Response, StatusCode};
use http_body_util::BodyExt;
use hyper::body::Incoming;
use hyper_staticfile::Static;
use hyper_staticfile::vfs::{FileOpener, FileWithMetadata};
use rustix::fs::{Mode, OFlags, ResolveFlags};
use tracing::warn;

use super::{Body, text};

/// A document root.
#[derive(Clone)]
pub(super) struct Files(Static<Root>);

impl std::fmt::Debug for Files {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_tuple("Files").finish_non_exhaustive()
    }
}

impl Files {
    /// Files beneath `root`, but for those in the folders `hidden` of it.
    pub(super) fn open(root: &Path, hidden: Vec<PathBuf>) -> io::Result<Self> {
        let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
        let folder = rustix::fs::open(root, flags, Mode::empty()).map_err(|error| {
            let cause = io::Error::from(error);
            io::Error::new(cause.kind(), format!("cannot open the document root {}: {cause}", root.display()))
        })?;
        Ok(Self(Static::with_opener(Root(Arc::new(folder), hidden.into()))))
    }

    pub(super) async fn answer(&self, mut request: Request<Incoming>) -> Response<Body> {
        if request.method() != http::Method::GET && request.method() != http::Method::HEAD {
            let mut response = text(StatusCode::METHOD_NOT_ALLOWED, "files are read with GET and HEAD\n");
            response.headers_mut().insert(header::ALLOW, HeaderValue::from_static("GET, HEAD"));
            return response;
        }
        let path = request.uri().path().to_owned();
        // A few bytes of header may not ask for the same file a thousand times over: one range is enough for anybody, and a
        // server may ignore the header (RFC 9110 section 14.2).
        if request.headers().get(header::RANGE).is_some_and(|range| range.as_bytes().contains(&b',')) {
            request.headers_mut().remove(header::RANGE);
        }
        match self.0.clone().serve(request).await {
            Ok(response) if response.status() == StatusCode::NOT_FOUND => {
                text(StatusCode::NOT_FOUND, "there is nothing at this path\n")
            }
            Ok(mut response) => {
                let is_content = response.status().is_success();
                let headers = response.headers_mut();
                headers.insert(header::X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff"));
                // The library types a whole file, but neither the answer to HEAD nor a part of a file.
                if is_content && !headers.contains_key(header::CONTENT_TYPE) {
                    headers.insert(header::CONTENT_TYPE, content_type(&path));
                }
                response.map(|body| body.boxed())
            }
            Err(error) => {
                warn!("cannot serve the file {path:?}: {error}");
                text(StatusCode::INTERNAL_SERVER_ERROR, "the file could not be read\n")
            }
        }
    }
}

/// The type of the file at a path of a request, by its name. A folder stands for its index.
fn content_type(path: &str) -> HeaderValue {
    let name = if path.ends_with('/') { "index.html" } else { path };
    let guess = mime_guess::from_path(name).first_or_octet_stream();
    HeaderValue::from_str(guess.essence_str()).expect("types are ASCII words")
}

/// Opens files beneath one folder.
struct Root(Arc<OwnedFd>, Arc<[PathBuf]>);

impl FileOpener for Root {
    type File = tokio::fs::File;
    type Future = Pin<Box<dyn Future<Output = io::Result<FileWithMetadata>> + Send>>;

    fn open(&self, path: &Path) -> Self::Future {
        let (folder, hidden, path) = (self.0.clone(), self.1.clone(), path.to_owned());
        Box::pin(async move {
            let opened = tokio::task::spawn_blocking(move || open_beneath(&folder, &hidden, path));
            opened.await.map_err(io::Error::other)?
        })
    }
}

fn open_beneath(folder: &OwnedFd, hidden: &[PathBuf], path: PathBuf) -> io::Result<FileWithMetadata> {
    if is_private(&path, hidden) {
        return Err(io::ErrorKind::NotFound.into());
    }
    let path = if path.as_os_str().is_empty() { PathBuf::from(".") } else { path };
    // A FIFO in the document root must not stop a thread until somebody writes to it.
    let flags = OFlags::RDONLY | OFlags::CLOEXEC | OFlags::NONBLOCK | OFlags::NOCTTY;
    let resolve = ResolveFlags::BENEATH | ResolveFlags::NO_SYMLINKS | ResolveFlags::NO_MAGICLINKS;
    let file = rustix::fs::openat2(folder, &path, flags, Mode::empty(), resolve).map_err(|error| {
        use rustix::io::Errno;
        match error {
            // What leads out, runs through a symlink or has an impossible name is not there for a peer.
            Errno::XDEV | Errno::LOOP | Errno::NAMETOOLONG | Errno::NOTDIR | Errno::INVAL | Errno::ILSEQ => {
                io::ErrorKind::NotFound.into()
            }
            Errno::ACCESS | Errno::PERM => io::ErrorKind::NotFound.into(),
            error => io::Error::from(error),
        }
    })?;
    let file = std::fs::File::from(file);
    let metadata = file.metadata()?;
    if !metadata.is_file() && !metadata.is_dir() {
        return Err(io::ErrorKind::NotFound.into());
    }
    Ok(FileWithMetadata {
        size: metadata.len(),
        modified: metadata.modified().ok(),
        is_dir: metadata.is_dir(),
        handle: tokio::fs::File::from_std(file),
    })
}

/// Names that are never served: hidden ones, handler libraries where the document root contains their folder, and what lies in folders
/// of programs.
pub(super) fn is_private(path: &Path, hidden: &[PathBuf]) -> bool {
    let is_hidden = |component: Component<'_>| component.as_os_str().as_encoded_bytes().starts_with(b".");
    let is_library = path.file_name().and_then(OsStr::to_str).is_some_and(|name| name.contains("_wsh."));
    let is_program = hidden.iter().any(|folder| path.starts_with(folder));
    path.components().any(is_hidden) || is_library || is_program
}

#[cfg(test)]
mod tests {
    use super::*;

    fn root() -> (tempfile::TempDir, OwnedFd) {
        let folder = tempfile::tempdir().unwrap();
        std::fs::write(folder.path().join("secret"), "outside").unwrap();
        let inside = folder.path().join("www");
        std::fs::create_dir_all(inside.join("sub")).unwrap();
        std::fs::write(inside.join("page.html"), "inside").unwrap();
        std::fs::write(inside.join(".env"), "hidden").unwrap();
        std::fs::write(inside.join("libchat_wsh.so"), "library").unwrap();
        std::os::unix::fs::symlink("../secret", inside.join("out")).unwrap();
        std::os::unix::fs::symlink("page.html", inside.join("within")).unwrap();
        let flags = OFlags::PATH | OFlags::DIRECTORY;
        let opened = rustix::fs::open(&inside, flags, Mode::empty()).unwrap();
        (folder, opened)
    }

    #[test]
    fn a_file_in_the_root_is_opened() {
        let (_folder, root) = root();
        assert_eq!(open_beneath(&root, &[], "page.html".into()).unwrap().size, 6);
        assert!(open_beneath(&root, &[], "sub".into()).unwrap().is_dir);
        assert!(open_beneath(&root, &[], "".into()).unwrap().is_dir);
    }

    #[test]
    fn a_folder_of_programs_is_not_there() {
        let (folder, root) = root();
        std::fs::write(folder.path().join("www/sub/run"), "#!/bin/sh").unwrap();
        let hidden = [PathBuf::from("sub")];
        for path in ["sub", "sub/run"] {
            assert!(open_beneath(&root, &[], path.into()).is_ok());
            let error = open_beneath(&root, &hidden, path.into()).unwrap_err();
            assert_eq!(error.kind(), io::ErrorKind::NotFound, "{path}");
        }
        assert!(open_beneath(&root, &hidden, "page.html".into()).is_ok());
    }

    #[test]
    fn nothing_leads_out_of_the_root() {
        let (_folder, root) = root();
        for path in [
            "../secret",
            "out",
            "within",
            "sub/../../secret",
            "/etc/passwd",
            ".env",
            "libchat_wsh.so",
            "none",
            "a\0b",
        ] {
            let error = open_beneath(&root, &[], path.into()).unwrap_err();
            assert_eq!(error.kind(), io::ErrorKind::NotFound, "{path}");
        }
    }
}
