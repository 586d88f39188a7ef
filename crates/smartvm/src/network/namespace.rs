//! Which network namespace a thread is in.

use std::io;
use std::os::fd::{AsRawFd, OwnedFd};
use std::os::unix::fs::MetadataExt;

use rustix::net::{AddressFamily, SocketFlags, SocketType, socket_with};
use serde::{Deserialize, Serialize};

use crate::error::{Error, ErrorKind, Result};

/// What tells a network namespace from all others of this boot: its cookie, or its inode before
/// Linux 5.14. To ask for the cookie takes a tenth of the time.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(transparent)]
pub(crate) struct Namespace(u64);

impl Namespace {
    /// This thread's.
    pub(super) fn here() -> Result<Self> {
        let failed = |e| Error::new(ErrorKind::Host, "asking for the network namespace").because(e);
        let told = match cookie() {
            Err(e) if e.raw_os_error() == Some(libc::ENOPROTOOPT) => inode()?,
            told => told.map_err(failed)?,
        };
        Ok(Self(told))
    }
}

fn cookie() -> io::Result<u64> {
    let (family, kind) = (AddressFamily::UNIX, SocketType::DGRAM);
    let socket: OwnedFd = socket_with(family, kind, SocketFlags::CLOEXEC, None)?;
    let mut cookie = 0_u64;
    let mut length = size_of_val(&cookie) as libc::socklen_t;
    // SAFETY: the value and its length are borrowed for the call, which writes no more than that
    // length into the value.
    let done = unsafe {
        libc::getsockopt(
            socket.as_raw_fd(),
            libc::SOL_SOCKET,
            libc::SO_NETNS_COOKIE,
            (&raw mut cookie).cast(),
            &raw mut length,
        )
    };
    match done {
        0 => Ok(cookie),
        _ => Err(io::Error::last_os_error()),
    }
}

fn inode() -> Result<u64> {
    let path = "/proc/thread-self/ns/net";
    let found = std::fs::metadata(path).map_err(|e| Error::io("looking at", path, e))?;
    Ok(found.ino())
}

#[cfg(test)]
mod tests {
    use rustix::thread::{UnshareFlags, unshare_unsafe};

    use super::*;

    #[test]
    fn a_namespace_is_told_from_others_whichever_way() {
        let both = || (cookie().ok(), inode().unwrap());
        let here = both();
        let there = std::thread::spawn(move || {
            // SAFETY: file descriptors stay shared; only this thread's network changes.
            let moved = unsafe { unshare_unsafe(UnshareFlags::NEWNET) };
            moved.is_ok().then(|| (both(), both()))
        });
        let another = std::thread::spawn(both).join().unwrap();
        assert_eq!(another, here);
        match there.join().unwrap() {
            Some((there, again)) => {
                assert_eq!(there, again);
                assert_ne!(there.1, here.1);
                assert!(there.0.is_none() || there.0 != here.0, "{there:?}");
            }
            None => println!("skipped: no right to make a network namespace"),
        }
    }
}
