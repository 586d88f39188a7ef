//! Blank drives.

use std::fs::File;
use std::path::Path;
use std::process::Command;
use std::time::Duration;

use super::program;
use super::space::require_free;
use crate::{Error, ErrorKind, Result};

/// The smallest drive, in bytes: a file system with a journal needs some room.
const LEAST: u64 = 4 << 20;
const DEADLINE: Duration = Duration::from_secs(600);

/// Makes a drive of `size` bytes at `target`, which must not exist, with an empty ext4 file
/// system. Its empty room takes no space on disk.
///
/// # Errors
/// [`ErrorKind::WrongState`] where something is there already, [`ErrorKind::Invalid`] below
/// 4 MiB, [`ErrorKind::Host`] without space or mke2fs. A failed drive is removed.
pub fn create_ext4(target: &Path, size: u64, cancelled: &dyn Fn() -> bool) -> Result<()> {
    if size < LEAST {
        return Err(Error::new(
            ErrorKind::Invalid,
            format!("a drive of {size} bytes is too small for ext4"),
        )
        .hint("4 MiB is the least"));
    }
    let path = std::path::absolute(target)
        .map_err(|e| Error::io("finding the directory of", target, e))?;
    let parent = path.parent().unwrap_or(Path::new("/"));
    // What mke2fs writes at most: tables and the journal.
    require_free(parent, (size / 32).min(256 << 20), "the drive")?;
    let mke2fs = program::find("mke2fs", "e2fsprogs")?;
    File::create_new(&path)
        .and_then(|file| file.set_len(size))
        .map_err(|e| match e.kind() {
            std::io::ErrorKind::AlreadyExists => {
                let what = format!("{} exists already", path.display());
                Error::new(ErrorKind::WrongState, what).at(&path)
            }
            _ => Error::io("creating", &path, e),
        })?;
    let made = (|| {
        let mut command = Command::new(&mke2fs);
        command
            .args(["-q", "-F", "-t", "ext4", "-m", "0", "-E"])
            .arg("root_owner=0:0,nodiscard,lazy_itable_init=1,lazy_journal_init=1")
            .arg(&path)
            .env_clear()
            .env("LC_ALL", "C");
        let ended = program::run(command, DEADLINE, cancelled)?;
        match ended.status {
            Some(0) => Ok(()),
            _ => Err(program::refused(
                &mke2fs,
                "making the drive",
                &ended,
                &ended.stderr,
            )),
        }
    })();
    made.map_err(|error: Error| match std::fs::remove_file(&path) {
        Ok(()) => error,
        Err(e) => error.with_cleanup([Error::io("removing", &path, e)]),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_blank_drive_has_a_sound_file_system_and_takes_little_space() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("drive");
        create_ext4(&path, 64 << 20, &|| false).unwrap();
        let e2fsck = program::find("e2fsck", "e2fsprogs").unwrap();
        let checked = Command::new(e2fsck).arg("-fn").arg(&path).output().unwrap();
        assert!(checked.status.success(), "{checked:?}");
        assert_eq!(path.metadata().unwrap().len(), 64 << 20);
        assert!(crate::storage::allocated_bytes(&path).unwrap() < 16 << 20);
        let again = create_ext4(&path, 64 << 20, &|| false).unwrap_err();
        assert_eq!(again.kind(), ErrorKind::WrongState);
        let small = create_ext4(&dir.path().join("s"), 1 << 20, &|| false).unwrap_err();
        assert_eq!(small.kind(), ErrorKind::Invalid);
    }
}
