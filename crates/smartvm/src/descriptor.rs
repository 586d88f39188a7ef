//! Waiting for what a file descriptor has to tell.

use std::io;
use std::os::fd::OwnedFd;

use tokio::io::Interest;
use tokio::io::unix::AsyncFd;

/// A descriptor that doesn't block, to wait until it can be read, and for nothing else.
pub(crate) fn readable(descriptor: impl Into<OwnedFd>) -> io::Result<AsyncFd<OwnedFd>> {
    let owned = descriptor.into();
    // SAFETY: the descriptor is owned by what it is moved into, and never replaced there.
    let registered = unsafe { AsyncFd::register_with_interest(owned, Interest::READABLE) };
    registered.map_err(Into::into)
}
