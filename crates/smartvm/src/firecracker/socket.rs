//! Reaching a socket of Firecracker's: however long its path is, and in a jail only what the
//! jailed process itself listens on.

use std::io;
use std::os::fd::{AsRawFd, OwnedFd};
use std::os::unix::net::UnixStream as Blocking;
use std::path::{Path, PathBuf};

use rustix::fs::{FileType, Mode, OFlags};
use tokio::net::UnixStream;

use crate::jail;

/// The longest path that fits into a socket's address, in bytes.
const LONGEST: usize = 107;

/// Where a Firecracker listens.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Socket {
    path: PathBuf,
    /// The chroot, and the way from there.
    jailed: Option<(PathBuf, String)>,
}

impl Socket {
    /// The socket at this path.
    pub(crate) fn at(path: impl Into<PathBuf>) -> Self {
        Self {
            path: path.into(),
            jailed: None,
        }
    }

    /// The socket at `way` in this chroot. Whoever is jailed there may have put a link in its
    /// place: none is followed, and the socket must belong to the chroot's group.
    pub(crate) fn in_jail(root: &Path, way: &str) -> Self {
        Self {
            path: root.join(way),
            jailed: Some((root.to_owned(), way.to_owned())),
        }
    }

    /// Its path, for people.
    pub(crate) fn path(&self) -> &Path {
        &self.path
    }

    /// Connects without blocking.
    pub(crate) async fn connect(&self) -> io::Result<UnixStream> {
        let (address, _held) = self.address()?;
        UnixStream::connect(address).await
    }

    /// The same for threads.
    pub(crate) fn connect_blocking(&self) -> io::Result<Blocking> {
        let (address, _held) = self.address()?;
        Blocking::connect(address)
    }

    /// A path that fits an address, as long as what comes with it is open.
    fn address(&self) -> io::Result<(PathBuf, Option<OwnedFd>)> {
        let by_descriptor =
            |fd: &OwnedFd| Path::new("/proc/self/fd").join(fd.as_raw_fd().to_string());
        let directory = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
        if let Some((root, way)) = &self.jailed {
            let root = rustix::fs::open(root, directory, Mode::empty())?;
            let socket = jail::look(&root, way)?;
            let (owner, found) = (rustix::fs::fstat(&root)?, rustix::fs::fstat(&socket)?);
            if !FileType::from_raw_mode(found.st_mode).is_socket() || found.st_gid != owner.st_gid {
                let message = "what is there is no socket of the jailed VM's";
                return Err(io::Error::new(io::ErrorKind::PermissionDenied, message));
            }
            return Ok((by_descriptor(&socket), Some(socket)));
        }
        if self.path.as_os_str().len() <= LONGEST {
            return Ok((self.path.clone(), None));
        }
        // The way through an open directory is short.
        let (Some(parent), Some(name)) = (self.path.parent(), self.path.file_name()) else {
            return Err(io::ErrorKind::InvalidInput.into());
        };
        let parent = rustix::fs::open(parent, directory, Mode::empty())?;
        Ok((by_descriptor(&parent).join(name), Some(parent)))
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::symlink;
    use std::os::unix::net::UnixListener;

    use super::*;

    #[test]
    fn a_socket_is_reached_however_long_its_path_is() {
        let directory = tempfile::tempdir().unwrap();
        let deep = directory.path().join("d".repeat(120));
        std::fs::create_dir(&deep).unwrap();
        let short = directory.path().join("vsock.sock");
        let _listener = UnixListener::bind(&short).unwrap();
        let path = deep.join("vsock.sock");
        std::fs::rename(&short, &path).unwrap();
        Socket::at(path).connect_blocking().unwrap();
        let missing = Socket::at(deep.join("none")).connect_blocking();
        assert_eq!(missing.unwrap_err().kind(), io::ErrorKind::NotFound);
    }

    #[test]
    fn links_in_a_jail_lead_nowhere() {
        let directory = tempfile::tempdir().unwrap();
        let (root, outside) = (
            directory.path().join("root"),
            directory.path().join("outside"),
        );
        std::fs::create_dir(&root).unwrap();
        std::fs::create_dir(&outside).unwrap();
        let _other = UnixListener::bind(outside.join("sock")).unwrap();
        let _own = UnixListener::bind(root.join("sock")).unwrap();
        symlink(outside.join("sock"), root.join("link")).unwrap();
        symlink(&outside, root.join("dir")).unwrap();
        symlink("sock", root.join("near")).unwrap();
        std::fs::write(root.join("file"), "").unwrap();
        Socket::in_jail(&root, "sock").connect_blocking().unwrap();
        for planted in ["link", "near", "dir/sock", "file", "../outside/sock"] {
            let refused = Socket::in_jail(&root, planted).connect_blocking();
            assert!(refused.is_err(), "{planted} was followed");
        }
    }

    #[test]
    fn a_socket_of_another_group_in_a_jail_is_refused() {
        let directory = tempfile::tempdir().unwrap();
        let root = directory.path().join("root");
        std::fs::create_dir(&root).unwrap();
        let _own = UnixListener::bind(root.join("sock")).unwrap();
        if std::os::unix::fs::lchown(root.join("sock"), None, Some(65_534)).is_err() {
            println!("skipped: only root can give a socket away");
            return;
        }
        let refused = Socket::in_jail(&root, "sock").connect_blocking();
        assert_eq!(refused.unwrap_err().kind(), io::ErrorKind::PermissionDenied);
    }
}
