//! The mount namespace of a jail.

use std::fs::File;
use std::os::fd::{AsFd, OwnedFd};
use std::path::Path;

use rustix::fs::CWD;
use rustix::mount::{
    MountFlags, MountPropagationFlags, MoveMountFlags, OpenTreeFlags, mount_bind, mount_change,
    mount_remount, move_mount, open_tree,
};
use rustix::thread::{LinkNameSpaceType, UnshareFlags, move_into_link_name_space};

use super::Bind;
use crate::error::{Error, ErrorKind, Result};
use crate::process::ProcessId;

/// Binds files into the mount namespace of a jailed process that runs: `root` is its root as
/// this process sees it, where the places for the files are. Nothing of it is seen outside. What
/// is bound goes when its place is removed, or with the process.
pub(crate) fn bind_into(process: &ProcessId, root: &Path, binds: &[Bind]) -> Result<()> {
    if binds.is_empty() {
        return Ok(());
    }
    let path = format!("/proc/{}/ns/mnt", process.pid);
    let namespace = File::open(&path).map_err(|e| Error::io("opening", &path, e))?;
    // Looked at after it was opened: the pid was this process's all the time.
    if !process.is_alive()? {
        let message = "the VM's process has ended";
        return Err(Error::new(ErrorKind::WrongState, message));
    }
    let failed = |e: rustix::io::Errno| {
        Error::new(ErrorKind::Host, "binding into a running jail").because(std::io::Error::from(e))
    };
    on_a_thread(|| {
        enter_own_namespace()?;
        let taken = binds.iter().map(|one| {
            let way = one.target.strip_prefix(root).map_err(|_| {
                let message = format!("{} is not in the jail", one.target.display());
                Error::new(ErrorKind::Corrupt, message)
            })?;
            bind(one)?;
            let flags = OpenTreeFlags::OPEN_TREE_CLONE | OpenTreeFlags::OPEN_TREE_CLOEXEC;
            let mount = open_tree(CWD, &one.target, flags).map_err(failed)?;
            Ok((mount, Path::new("/").join(way)))
        });
        let taken: Vec<(OwnedFd, _)> = taken.collect::<Result<_>>()?;
        // From here on paths are those of the jail, where nothing leads out.
        let kind = Some(LinkNameSpaceType::Mount);
        move_into_link_name_space(namespace.as_fd(), kind).map_err(failed)?;
        for (mount, place) in &taken {
            let flags = MoveMountFlags::MOVE_MOUNT_F_EMPTY_PATH;
            move_mount(mount, "", CWD, place, flags).map_err(failed)?;
        }
        Ok(())
    })
}

/// What is done to a thread's namespaces is done to that thread alone.
fn on_a_thread(work: impl FnOnce() -> Result<()> + Send) -> Result<()> {
    std::thread::scope(|scope| {
        let failed = |_| {
            Err(Error::new(
                ErrorKind::Io,
                "work in a mount namespace panicked",
            ))
        };
        scope.spawn(work).join().unwrap_or_else(failed)
    })
}

fn enter_own_namespace() -> Result<()> {
    let failed = |e: rustix::io::Errno| {
        let cause = std::io::Error::from(e);
        Error::new(ErrorKind::Host, "making a mount namespace").because(cause)
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
