//! A Unix socket that has a name in the file system: made, found left behind, and taken away again.

use std::io;
use std::os::unix::fs::{FileTypeExt, MetadataExt, PermissionsExt};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};

use socket2::{Domain, SockAddr, Socket, Type};
use tokio::net::UnixListener;

/// The name. Dropped, it is gone, unless somebody has put another file in its place.
#[derive(Debug)]
pub(crate) struct SocketFile {
    path: PathBuf,
    /// Device and number.
    file: (u64, u64),
}

/// Makes the socket, with these mode bits. One that a server left behind is replaced; one that a server answers on is not.
pub(crate) fn listen(path: &Path, mode: u32, backlog: u32) -> io::Result<(UnixListener, SocketFile)> {
    remove_abandoned(path)?;
    let socket = Socket::new(Domain::UNIX, Type::STREAM, None)?;
    socket.set_nonblocking(true)?;
    socket.bind(&SockAddr::unix(path)?)?;
    let name = SocketFile { path: path.to_owned(), file: identity(path)? };
    // Before it listens, so that nobody connects whom the mode is to keep out.
    name.set_mode(mode)?;
    socket.listen(i32::try_from(backlog).unwrap_or(i32::MAX))?;
    Ok((UnixListener::from_std(socket.into())?, name))
}

fn remove_abandoned(path: &Path) -> io::Result<()> {
    let Ok(metadata) = std::fs::symlink_metadata(path) else { return Ok(()) };
    if !metadata.file_type().is_socket() {
        return Err(io::Error::other("there is a file of this name, and it is no socket"));
    }
    match UnixStream::connect(path) {
        Err(error) if error.kind() == io::ErrorKind::ConnectionRefused => std::fs::remove_file(path),
        // One that may not be asked, or is too busy to answer, is not known to be gone.
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
        Err(_) => Ok(()),
        Ok(_) => Err(io::Error::new(io::ErrorKind::AddrInUse, "another server answers there")),
    }
}

fn identity(path: &Path) -> io::Result<(u64, u64)> {
    std::fs::symlink_metadata(path).map(|metadata| (metadata.dev(), metadata.ino()))
}

impl SocketFile {
    pub(crate) fn set_mode(&self, mode: u32) -> io::Result<()> {
        std::fs::set_permissions(&self.path, std::fs::Permissions::from_mode(mode))
    }
}

impl Drop for SocketFile {
    fn drop(&mut self) {
        if identity(&self.path).is_ok_and(|file| file == self.file) {
            let _ = std::fs::remove_file(&self.path);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn one_that_was_left_behind_is_replaced_and_one_that_answers_is_not() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("s");
        drop(std::os::unix::net::UnixListener::bind(&path).unwrap());
        let (listener, file) = listen(&path, 0o600, 1).unwrap();
        assert_eq!(std::fs::metadata(&path).unwrap().mode() & 0o777, 0o600);
        let why = listen(&path, 0o600, 1).unwrap_err();
        assert_eq!(why.to_string(), "another server answers there");
        drop((listener, file));
        assert!(!path.exists());
    }

    #[tokio::test]
    async fn what_is_no_socket_or_no_longer_ours_stays() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("s");
        std::fs::write(&path, "text").unwrap();
        assert!(listen(&path, 0o600, 1).unwrap_err().to_string().contains("no socket"));
        std::fs::remove_file(&path).unwrap();
        let bound = listen(&path, 0o600, 1).unwrap();
        std::fs::remove_file(&path).unwrap();
        std::fs::write(&path, "another's").unwrap();
        drop(bound);
        assert_eq!(std::fs::read_to_string(&path).unwrap(), "another's");
    }
}
