//! The mount namespace of a jail.

use std::path::Path;

use rustix::mount::{MountFlags, MountPropagationFlags, mount_bind, mount_change, mount_remount};
use rustix::thread::UnshareFlags;

use super::Bind;
use crate::error::{Error, ErrorKind, Result};

/// Runs `spawn` on a thread with a mount namespace of its own, in which the files are bound:
/// the process that it starts inherits that, and is its only holder. Nothing of it is seen
/// outside, and nothing is left of it when the process has ended.
pub(crate) fn with_binds<T: Send>(
    binds: &[Bind],
    spawn: impl FnOnce() -> Result<T> + Send,
) -> Result<T> {
    if binds.is_empty() {
        return spawn();
    }
    std::thread::scope(|scope| {
        let thread = scope.spawn(|| {
            enter_own_namespace()?;
            binds.iter().try_for_each(bind)?;
            spawn()
        });
        thread
            .join()
            .unwrap_or_else(|_| Err(Error::new(ErrorKind::Io, "starting the jailer panicked")))
    })
}

fn enter_own_namespace() -> Result<()> {
    let failed = |e: rustix::io::Errno| {
        Error::new(ErrorKind::Host, "making a mount namespace").because(std::io::Error::from(e))
    };
    // SAFETY: file descriptors stay shared; only this thread's view of mounts changes.
    unsafe { rustix::thread::unshare_unsafe(UnshareFlags::NEWNS) }.map_err(failed)?;
    // What is unmounted outside is unmounted here too; what is mounted here stays here.
    let inwards = MountPropagationFlags::DOWNSTREAM | MountPropagationFlags::REC;
    mount_change("/", inwards).map_err(failed)
}

fn bind(bind: &Bind) -> Result<()> {
    let failed = |e: rustix::io::Errno| {
        Error::io(
            "binding into the jail",
            &bind.source,
            std::io::Error::from(e),
        )
    };
    mount_bind(&bind.source, &bind.target).map_err(failed)?;
    if bind.writable {
        return Ok(());
    }
    read_only(&bind.target).map_err(failed)
}

fn read_only(target: &Path) -> rustix::io::Result<()> {
    let flags = MountFlags::BIND | MountFlags::RDONLY | MountFlags::NOSUID;
    mount_remount(target, flags, "")
}
