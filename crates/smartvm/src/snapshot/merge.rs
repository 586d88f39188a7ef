//! The whole memory of a diff: its parents' memory with what each diff changed written over it.

use std::fs::{File, OpenOptions};
use std::io;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};

use rustix::fs::{SeekFrom, seek};
use rustix::io::Errno;

use super::place::MERGED;
use super::stamp::{Stamp, Stamps};
use super::usage;
use crate::durable::sync_dir;
use crate::error::{Error, ErrorKind, Result};
use crate::storage;

/// Where the merged memory of the diff in `dir` is.
pub(crate) fn target(dir: &Path) -> PathBuf {
    dir.join(MERGED)
}

/// The name of the merged memory in the stamps.
const NAME: &str = "merged";

/// Makes `target`, in a diff's directory, out of `layers`: the full memory first, then each
/// diff. It is made once, and shared by all that are restored from the diff.
pub(crate) fn merge(layers: &[PathBuf], target: &Path, cancelled: &dyn Fn() -> bool) -> Result<()> {
    let (Some(dir), Some((base, diffs))) = (target.parent(), layers.split_first()) else {
        return Err(Error::new(
            ErrorKind::Invalid,
            "there is no memory to merge",
        ));
    };
    let _lock = usage::lock(dir)?;
    let mut stamps = Stamps::read(dir);
    if let Ok(there) = Stamp::of(target)
        && stamps.get(NAME) == Some(&there)
    {
        return Ok(());
    }
    let making = being_made(target);
    remove(&making)?;
    let needed = layers
        .iter()
        .map(|layer| storage::allocated_bytes(layer))
        .sum::<Result<u64>>()?;
    storage::require_free(dir, needed, "the merged memory of the snapshot")?;
    storage::copy_sparse(base, &making, cancelled)?;
    let merged = diffs
        .iter()
        .try_for_each(|diff| write_over(diff, &making, cancelled))
        .and_then(|()| super::share_with_jails(&making))
        .and_then(|()| {
            File::open(&making)
                .and_then(|file| file.sync_all())
                .map_err(|e| Error::io("writing", &making, e))
        });
    if let Err(e) = merged {
        return Err(e.with_cleanup(remove(&making).err()));
    }
    std::fs::rename(&making, target).map_err(|e| Error::io("renaming", target, e))?;
    sync_dir(dir)?;
    stamps.set(NAME, Stamp::of(target)?);
    stamps.write(dir)
}

/// Removes what an interrupted merge left. The merged memory itself stays with its snapshot.
pub(crate) fn give_back(target: &Path) -> Result<()> {
    let Some(dir) = target.parent().filter(|dir| dir.is_dir()) else {
        return Ok(());
    };
    let making = being_made(target);
    if !making.exists() {
        return Ok(());
    }
    let _lock = usage::lock(dir)?;
    remove(&making)
}

fn being_made(target: &Path) -> PathBuf {
    target.with_extension("making")
}

fn remove(path: &Path) -> Result<()> {
    match std::fs::remove_file(path) {
        Err(e) if e.kind() != io::ErrorKind::NotFound => Err(Error::io("removing", path, e)),
        _ => Ok(()),
    }
}

/// Writes the data of a sparse file over another; its holes leave that as it is.
fn write_over(diff: &Path, target: &Path, cancelled: &dyn Fn() -> bool) -> Result<()> {
    let failed = |e: io::Error| Error::io(&format!("merging {} into", diff.display()), target, e);
    let from = File::open(diff).map_err(failed)?;
    let to = OpenOptions::new()
        .write(true)
        .open(target)
        .map_err(failed)?;
    let size = from.metadata().map_err(failed)?.len();
    if size != to.metadata().map_err(failed)?.len() {
        let message = format!("{} and its parent have different sizes", diff.display());
        return Err(Error::new(ErrorKind::Corrupt, message).at(diff));
    }
    let mut buffer = vec![0; 1 << 20];
    let mut at = 0;
    while at < size {
        let start = match seek(&from, SeekFrom::Data(at)) {
            Ok(start) => start,
            Err(Errno::NXIO) => break,
            // Without holes the whole file would count as changed, zeros and all.
            Err(e) => {
                return Err(failed(e.into()).hint(
                    "a diff snapshot needs a file system that keeps holes in files: ext4, xfs, \
                     btrfs or tmpfs",
                ));
            }
        };
        let end = seek(&from, SeekFrom::Hole(start))
            .map_err(|e| failed(e.into()))?
            .min(size);
        let mut position = start;
        while position < end {
            if cancelled() {
                return Err(Error::new(ErrorKind::Cancelled, "the merge was cancelled"));
            }
            // The buffer's length fits any usize.
            let length = (end - position).min(buffer.len() as u64) as usize;
            from.read_exact_at(&mut buffer[..length], position)
                .and_then(|()| to.write_all_at(&buffer[..length], position))
                .map_err(failed)?;
            position += length as u64;
        }
        at = end;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sparse(path: &Path, pages: &[(u64, u8)]) {
        let file = File::create(path).unwrap();
        file.set_len(64 << 12).unwrap();
        for &(page, byte) in pages {
            file.write_all_at(&[byte; 1 << 12], page << 12).unwrap();
        }
    }

    #[test]
    fn later_layers_win_and_holes_leave_what_was_there() {
        let dir = tempfile::tempdir().unwrap();
        let layer = |name: &str| dir.path().join(name);
        sparse(&layer("full"), &[(0, 1), (1, 1), (2, 1), (63, 1)]);
        sparse(&layer("first"), &[(1, 2), (5, 2)]);
        // A page of zeros is data too.
        sparse(&layer("second"), &[(2, 0), (5, 3)]);
        let layers = ["full", "first", "second"].map(layer);
        let target = layer("memory");
        merge(&layers, &target, &|| false).unwrap();
        let merged = std::fs::read(&target).unwrap();
        let page = |page: usize| merged[page << 12];
        assert_eq!(
            [0, 1, 2, 5, 6, 63].map(page),
            [1, 2, 0, 3, 0, 1],
            "pages 0, 1, 2, 5, 6, 63"
        );
        let first = Stamp::of(&target).unwrap();
        merge(&layers, &target, &|| false).unwrap();
        assert_eq!(Stamp::of(&target).unwrap(), first, "made only once");
        std::fs::write(&target, "damaged").unwrap();
        merge(&layers, &target, &|| false).unwrap();
        assert_eq!(std::fs::read(&target).unwrap(), merged);
    }

    #[test]
    fn a_merge_that_is_cancelled_leaves_nothing() {
        let dir = tempfile::tempdir().unwrap();
        let layer = |name: &str| dir.path().join(name);
        sparse(&layer("full"), &[(0, 1)]);
        sparse(&layer("diff"), &[(1, 2)]);
        let target = layer("memory");
        let cancelled = merge(&[layer("full"), layer("diff")], &target, &|| true).unwrap_err();
        assert_eq!(cancelled.kind(), ErrorKind::Cancelled);
        assert!(!target.exists() && !being_made(&target).exists());
    }
}
