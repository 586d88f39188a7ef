//! Signals that ask the keeper itself to end: at a host's shutdown, or from an administrator.
//! It ends its VM and gives everything back, as at every other end.

use std::os::fd::{AsFd, BorrowedFd};
use std::os::unix::net::UnixStream;

use signal_hook::consts::{SIGHUP, SIGINT, SIGTERM};
use signal_hook::low_level::pipe;

use crate::error::{Error, ErrorKind, Result};

/// Readable once such a signal has come. Programs that are started don't inherit it: `exec`
/// sets handlers back to the default.
pub(super) struct Signals(UnixStream);

impl Signals {
    /// From now on these signals end the VM, not the keeper.
    pub(super) fn listen() -> Result<Self> {
        let failed =
            |e: std::io::Error| Error::new(ErrorKind::Host, "listening for signals").because(e);
        let (ours, theirs) = UnixStream::pair().map_err(failed)?;
        for signal in [SIGTERM, SIGINT, SIGHUP] {
            pipe::register(signal, theirs.try_clone().map_err(failed)?).map_err(failed)?;
        }
        Ok(Self(ours))
    }
}

impl AsFd for Signals {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }
}
