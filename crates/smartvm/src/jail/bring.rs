//! Bringing a user's file into the chroot, without changing it.

use std::os::unix::fs::{FileTypeExt, MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use rustix::fs::{CWD, FileType, Mode};
use serde::{Deserialize, Serialize};

use super::{Ids, own};
use crate::error::{Error, ErrorKind, Result};
use crate::storage;

/// A file that is bound into the chroot, in the mount namespace of the jail.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Bind {
    /// The file.
    pub source: PathBuf,
    /// Where it appears.
    pub target: PathBuf,
    /// Whether it may be written to.
    pub writable: bool,
}

/// Makes `source` usable at `target`: a device node of the VM's user for a block device; a
/// bind mount where the file's mode lets that user in; otherwise, for what is only read, a
/// copy (a reflink where the file system can).
pub(super) fn bring(
    what: &str,
    source: &Path,
    target: &Path,
    writable: bool,
    ids: Ids,
    cancelled: &dyn Fn() -> bool,
) -> Result<Option<Bind>> {
    let found = std::fs::metadata(source).map_err(|e| Error::io("looking at", source, e))?;
    if found.file_type().is_block_device() {
        rustix::fs::mknodat(
            CWD,
            target,
            FileType::BlockDevice,
            Mode::RUSR | Mode::WUSR,
            found.rdev(),
        )
        .map_err(|e| Error::io("making device node", target, std::io::Error::from(e)))?;
        own(target, ids)?;
        return Ok(None);
    }
    // Connecting to a socket takes the right to write to it.
    let writes = writable || found.file_type().is_socket();
    if lets_in(&found, ids, writes) {
        std::fs::OpenOptions::new()
            .write(true)
            .create_new(true)
            .mode(0o600)
            .open(target)
            .map_err(|e| Error::io("making a place for", target, e))?;
        return Ok(Some(Bind {
            source: source.to_owned(),
            target: target.to_owned(),
            writable: writes,
        }));
    }
    if writes {
        // Nobody makes a copy of a socket.
        let (right, instead) = match writable {
            true => ("read and write", ", use a copy (`ephemeral`)"),
            false => ("connect to", ""),
        };
        let message = format!(
            "{what}: the jailed user {} may not {right} {}, and smartvm doesn't change its owner \
             or mode",
            ids.uid,
            source.display()
        );
        let hint = format!(
            "let others do so (chmod o+rw; the directory above it may stay closed){instead}, or do \
             without a jail: `mode: off`, --jail off"
        );
        return Err(Error::new(ErrorKind::Host, message).at(source).hint(hint));
    }
    let dir = target.parent().unwrap_or(Path::new("/"));
    let needed = storage::allocated_bytes(source)?;
    storage::require_free(dir, needed, &format!("the copy of {what}"))?;
    storage::copy_sparse(source, target, cancelled)?;
    own(target, ids)?;
    Ok(None)
}

/// Whether a file's mode lets this user read it, and write to it where asked.
fn lets_in(file: &std::fs::Metadata, ids: Ids, writes: bool) -> bool {
    let shift = if file.uid() == ids.uid {
        6
    } else if file.gid() == ids.gid {
        3
    } else {
        0
    };
    let wanted = if writes { 0o6 } else { 0o4 };
    (file.mode() >> shift) & wanted == wanted
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use super::*;

    #[test]
    fn the_class_of_a_files_mode_that_fits_the_user_decides() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("image");
        std::fs::write(&path, "x").unwrap();
        let me = path.metadata().unwrap();
        let (mine, others) = (
            Ids {
                uid: me.uid(),
                gid: 1,
            },
            Ids {
                uid: me.uid() + 1,
                gid: me.gid() + 1,
            },
        );
        let judge = |mode: u32, ids: Ids, writes: bool| {
            std::fs::set_permissions(&path, std::fs::Permissions::from_mode(mode)).unwrap();
            lets_in(&path.metadata().unwrap(), ids, writes)
        };
        assert!(judge(0o644, others, false) && !judge(0o644, others, true));
        assert!(judge(0o646, others, true) && !judge(0o640, others, false));
        assert!(judge(0o600, mine, true) && !judge(0o466, mine, true));
    }
}
