//! From the initramfs into the new root.

use std::os::unix::fs::MetadataExt;
use std::path::Path;

use super::root::NEW_ROOT;
use super::{Failure, log, mounts};

/// Magic numbers of the file systems an initramfs can be: only their contents are deleted.
const RAMFS: i64 = 0x8584_58f6;
const TMPFS: i64 = 0x0102_1994;

/// Takes /dev, /proc and /sys along, frees the initramfs's memory, and makes the new root `/`.
pub(crate) fn into_new_root() -> Result<(), Failure> {
    for name in ["dev", "proc", "sys"] {
        let from = Path::new("/").join(name);
        let to = Path::new(NEW_ROOT).join(name);
        let moved =
            mounts::make_directory(&to).and_then(|()| Ok(rustix::mount::mount_move(&from, &to)?));
        if let Err(error) = moved {
            log::error(&format!(
                "moving {} to the new root: {error}",
                from.display()
            ));
        }
    }
    let failed = |error: rustix::io::Errno| Failure::new("switching to the new root", error);
    rustix::process::chdir(NEW_ROOT).map_err(failed)?;
    empty_initramfs();
    rustix::mount::mount_move(".", "/").map_err(failed)?;
    rustix::process::chroot(".").map_err(failed)?;
    rustix::process::chdir("/").map_err(failed)
}

/// Deletes the initramfs's contents, which nothing can reach any more but which take memory.
fn empty_initramfs() {
    let is_memory =
        rustix::fs::statfs("/").is_ok_and(|found| [RAMFS, TMPFS].contains(&found.f_type));
    let device = std::fs::symlink_metadata("/").map(|root| root.dev());
    match device {
        Ok(device) if is_memory => empty(Path::new("/"), device),
        _ => log::error("the initramfs is no file system in memory: left as it is"),
    }
}

/// Deletes what is under `directory` and on `device`: never what is mounted there.
fn empty(directory: &Path, device: u64) {
    let Ok(entries) = std::fs::read_dir(directory) else {
        return;
    };
    for path in entries.filter_map(Result::ok).map(|entry| entry.path()) {
        let Ok(metadata) = std::fs::symlink_metadata(&path) else {
            continue;
        };
        if metadata.dev() != device {
            continue;
        }
        // What can't go stays: it is memory lost, no more.
        if metadata.is_dir() {
            empty(&path, device);
            let _ = std::fs::remove_dir(&path);
        } else {
            let _ = std::fs::remove_file(&path);
        }
    }
}
