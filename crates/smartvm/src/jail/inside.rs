//! What lies in the root of a jailed process, which may have put anything there: no link is
//! followed, on the way or at its end, and nothing is opened before it is known what it is.

use std::io;
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::path::{Path, PathBuf};

use rustix::fs::{FileType, Mode, OFlags, ResolveFlags};

use crate::error::{Error, ErrorKind, Result};
use crate::process::ProcessId;
use crate::rundir::{RunDir, VmState};

/// Finds what is at `way` below `root`, without opening it.
pub(crate) fn look(root: impl AsFd, way: &str) -> io::Result<OwnedFd> {
    let flags = OFlags::PATH | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    let resolve = ResolveFlags::BENEATH | ResolveFlags::NO_SYMLINKS | ResolveFlags::NO_MAGICLINKS;
    Ok(rustix::fs::openat2(
        root,
        way,
        flags,
        Mode::empty(),
        resolve,
    )?)
}

/// A file of a VM's Firecracker, as that sees it.
pub(crate) struct Seen {
    path: PathBuf,
    _held: Option<OwnedFd>,
}

impl Seen {
    /// The file that Firecracker has at `way`: in a jail what is bound there, and never what
    /// a link leads to.
    pub(crate) fn find(run_dir: &RunDir, state: &VmState, way: &str) -> Result<Self> {
        let root = state.root(run_dir);
        if !root.is_jail() {
            return Ok(Self {
                path: root.file(way),
                _held: None,
            });
        }
        let vmm = state.vmm.as_ref().ok_or_else(|| {
            Error::new(
                ErrorKind::WrongState,
                format!("VM {} has no process", run_dir.id()),
            )
        })?;
        let failed = |e: io::Error| Error::io("looking in the jail for", root.file(way), e);
        let found = root_of(vmm)?;
        let found = look(&found, way).map_err(failed)?;
        let kind = rustix::fs::fstat(&found)
            .map_err(|e| failed(e.into()))?
            .st_mode;
        if !matches!(
            FileType::from_raw_mode(kind),
            FileType::RegularFile | FileType::BlockDevice
        ) {
            let message = format!(
                "{} is neither file nor block device",
                root.file(way).display()
            );
            return Err(Error::new(ErrorKind::Corrupt, message).at(root.file(way)));
        }
        Ok(Self {
            path: Path::new("/proc/self/fd").join(found.as_raw_fd().to_string()),
            _held: Some(found),
        })
    }

    /// A path that leads there as long as this value lives.
    pub(crate) fn path(&self) -> &Path {
        &self.path
    }
}

/// The root directory of a process, with what is mounted in its mount namespace.
fn root_of(process: &ProcessId) -> Result<OwnedFd> {
    let path = PathBuf::from(format!("/proc/{}/root", process.pid));
    let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
    let root = rustix::fs::open(&path, flags, Mode::empty())
        .map_err(|e| Error::io("looking into", &path, io::Error::from(e)))?;
    // Looked at after it was opened: the pid was this process's all the time.
    if !process.is_alive()? {
        return Err(Error::new(
            ErrorKind::WrongState,
            "the VM's process has ended",
        ));
    }
    Ok(root)
}
