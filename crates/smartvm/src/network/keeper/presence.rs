//! How the keeper shows that it lives: by a lock on a byte of the network's lock file, which ends
//! with it. Whoever holds that file open asks once; who it is takes two files to tell, and every
//! VM that starts would read them.

use std::fs::File;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd};

use crate::rundir::Lock;

/// Far behind all that is written there.
const BYTE: libc::off_t = 1 << 20;

/// Held by the keeper for as long as it keeps its network.
pub(super) struct Presence {
    _file: File,
}

impl Presence {
    /// Shows it in the network's lock file; without it, it is looked for by its name.
    pub(super) fn show(file: File) -> std::io::Result<Self> {
        ask(file.as_fd(), libc::F_OFD_SETLK)?;
        Ok(Self { _file: file })
    }
}

/// Whether a keeper shows itself.
pub(in crate::network) fn is_shown(lock: &Lock) -> bool {
    ask(lock.as_fd(), libc::F_OFD_GETLK).is_ok_and(|found| found != libc::F_UNLCK)
}

/// The kind of lock that is there or, where one was asked for, that is held now.
fn ask(file: BorrowedFd<'_>, question: libc::c_int) -> std::io::Result<libc::c_int> {
    let mut lock = libc::flock {
        l_type: libc::F_WRLCK as libc::c_short,
        l_whence: libc::SEEK_SET as libc::c_short,
        l_start: BYTE,
        l_len: 1,
        // As locks of open files want it.
        l_pid: 0,
    };
    // SAFETY: both questions read and write a flock structure, which is borrowed for the call.
    match unsafe { libc::fcntl(file.as_raw_fd(), question, &raw mut lock) } {
        0.. => Ok(lock.l_type.into()),
        _ => Err(std::io::Error::last_os_error()),
    }
}
