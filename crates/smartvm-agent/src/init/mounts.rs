//! Mounts in the new root: those every system has, and those the host asked for.

use std::ffi::{CStr, CString};
use std::os::unix::fs::DirBuilderExt;
use std::path::Path;

use rustix::io::Errno;
use rustix::mount::MountFlags;

use super::cmdline::Mount;
use super::{Failure, log};

/// Mounts what a running system expects besides /proc, /sys and /dev. The root's own init
/// takes over what is mounted already; `alone` adds what it would otherwise do by itself.
pub(crate) fn complete(alone: bool) {
    let safe = MountFlags::NOSUID | MountFlags::NODEV;
    let program_free = MountFlags::NOSUID | MountFlags::NOEXEC;
    let kernel = safe | MountFlags::NOEXEC;
    let mut table: Vec<(&str, &str, MountFlags, &CStr)> = vec![
        ("/run", "tmpfs", safe, c"mode=0755"),
        (
            "/dev/pts",
            "devpts",
            program_free,
            c"gid=5,mode=0620,ptmxmode=0666",
        ),
        ("/dev/shm", "tmpfs", safe, c"mode=1777"),
    ];
    if alone {
        name_streams();
        table.push(("/sys/fs/cgroup", "cgroup2", kernel, c""));
        if !is_writable("/") {
            table.push(("/tmp", "tmpfs", safe, c"mode=1777"));
        }
    }
    for (target, fstype, flags, data) in table {
        let mounted = make_directory(Path::new(target))
            .and_then(|()| Ok(rustix::mount::mount(fstype, target, fstype, flags, data)?));
        if let Err(error) = mounted {
            log::error(&format!("mounting {target}: {error}"));
        }
    }
}

/// Gives the streams of whichever process looks their names in /dev, which programs write to.
fn name_streams() {
    for (name, target) in [
        ("/dev/fd", "/proc/self/fd"),
        ("/dev/stdin", "fd/0"),
        ("/dev/stdout", "fd/1"),
        ("/dev/stderr", "fd/2"),
    ] {
        match std::os::unix::fs::symlink(target, name) {
            Err(error) if error.kind() != std::io::ErrorKind::AlreadyExists => {
                log::error(&format!("naming {name}: {error}"));
            }
            _ => {}
        }
    }
}

/// Mounts what the host asked for.
pub(crate) fn extra(wanted: &Mount) -> Result<(), Failure> {
    let target = wanted.target.display();
    make_directory(&wanted.target)
        .map_err(|error| Failure::new(format!("making the mount point {target}"), error))?;
    let options: Vec<&str> = wanted.options.iter().map(String::as_str).collect();
    let (flags, data) = split_options(&options);
    let path = wanted.target.to_string_lossy();
    mount(&wanted.source, &path, &wanted.fstype, flags, &data).map_err(|error| {
        let what = format!(
            "mounting {} at {target} as {}",
            wanted.source, wanted.fstype
        );
        Failure::new(what, error)
    })
}

/// One mount, with the file system's own options as one string.
pub(crate) fn mount(
    source: &str,
    target: &str,
    fstype: &str,
    flags: MountFlags,
    data: &str,
) -> Result<(), Errno> {
    let data = CString::new(data).map_err(|_| Errno::INVAL)?;
    rustix::mount::mount(source, target, fstype, flags, data.as_c_str())
}

/// Tells the options that are the kernel's from those for the file system itself.
pub(crate) fn split_options(options: &[&str]) -> (MountFlags, String) {
    let mut flags = MountFlags::empty();
    let mut data = Vec::new();
    for option in options {
        match *option {
            "ro" => flags |= MountFlags::RDONLY,
            "rw" => flags &= !MountFlags::RDONLY,
            "nosuid" => flags |= MountFlags::NOSUID,
            "nodev" => flags |= MountFlags::NODEV,
            "noexec" => flags |= MountFlags::NOEXEC,
            "noatime" => flags |= MountFlags::NOATIME,
            "nodiratime" => flags |= MountFlags::NODIRATIME,
            "relatime" => flags |= MountFlags::RELATIME,
            "strictatime" => flags |= MountFlags::STRICTATIME,
            "lazytime" => flags |= MountFlags::LAZYTIME,
            "sync" => flags |= MountFlags::SYNCHRONOUS,
            "dirsync" => flags |= MountFlags::DIRSYNC,
            "defaults" => {}
            other => data.push(other),
        }
    }
    (flags, data.join(","))
}

/// A directory and those above it, where they are missing.
pub(crate) fn make_directory(path: &Path) -> std::io::Result<()> {
    // What is there may be on a read-only file system: nothing to make is no failure.
    if path.is_dir() {
        return Ok(());
    }
    std::fs::DirBuilder::new()
        .recursive(true)
        .mode(0o755)
        .create(path)
}

fn is_writable(path: &str) -> bool {
    rustix::fs::statvfs(path)
        .is_ok_and(|found| !found.f_flag.contains(rustix::fs::StatVfsMountFlags::RDONLY))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn flags_and_the_file_systems_own_options_are_told_apart() {
        let (flags, data) = split_options(&["trans=virtio", "ro", "nodev", "msize=1048576"]);
        assert_eq!(flags, MountFlags::RDONLY | MountFlags::NODEV);
        assert_eq!(data, "trans=virtio,msize=1048576");
        let (flags, data) = split_options(&["ro", "rw", "defaults"]);
        assert_eq!((flags, data.as_str()), (MountFlags::empty(), ""));
    }
}
