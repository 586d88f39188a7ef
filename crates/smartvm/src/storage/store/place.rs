//! Images appear whole, are replaced whole, and go whole.

use std::fs::{File, FileTimes};
use std::path::{Path, PathBuf};
use std::time::SystemTime;

use rustix::fs::{CWD, RenameFlags, renameat_with};
use tempfile::TempDir;

use super::record::Record;
use super::{Claim, Held, LEASE, Store, USED};
use crate::storage::bundle::Bundle;
use crate::storage::lock::{FileLock, Sharing};
use crate::storage::{Progress, Watch};
use crate::{Error, ErrorKind, Result, durable};

const NEW: &str = ".new-";

/// The directory of an image in the making; gone when it is dropped.
#[derive(Debug)]
pub struct Work {
    dir: TempDir,
    lease: FileLock,
}

impl Work {
    /// The directory: manifest and files go here.
    pub fn path(&self) -> &Path {
        self.dir.path()
    }
}

impl Store {
    /// A directory for an image in the making, in the store.
    pub fn work(&self) -> Result<Work> {
        let _lock = self.lock()?;
        let dir = super::super::private_dir(NEW, &self.dir)?;
        let lease = FileLock::attempt(&dir.path().join(LEASE), Sharing::Alone)?
            .ok_or_else(|| Error::new(ErrorKind::Io, "a new directory is locked"))?;
        Ok(Work { dir, lease })
    }

    /// Gives an image its name. One that has it already is replaced, if nobody uses it: its
    /// readers see the old one or the new one, whole.
    ///
    /// # Errors
    /// [`ErrorKind::WrongState`] where the name is taken and `replace` isn't set, or the image
    /// is in use; whatever [`Bundle::load`] finds.
    pub fn put(&self, claim: &Claim, work: Work, record: &Record, replace: bool) -> Result<Held> {
        Bundle::load(work.path())?;
        record.write(work.path())?;
        touch(work.path())?;
        sync(work.path())?;
        let target = self.dir.join(&claim.name);
        {
            let _lock = self.lock()?;
            let failed = |e: rustix::io::Errno| Error::io("naming the image", &target, e);
            let there = target.symlink_metadata().is_ok();
            if there && !replace {
                return Err(Error::new(
                    ErrorKind::WrongState,
                    format!("there is an image {} already", claim.name),
                )
                .hint("use another name, or replace it (--replace)"));
            }
            if there {
                let _unused = self.unused(&claim.name)?;
                renameat_with(CWD, work.path(), CWD, &target, RenameFlags::EXCHANGE)
                    .map_err(failed)?;
                // The directory in the making is the old image now, and goes.
            } else {
                renameat_with(CWD, work.path(), CWD, &target, RenameFlags::NOREPLACE)
                    .map_err(failed)?;
            }
            durable::sync_dir(&self.dir)?;
            let Work { dir, lease } = work;
            if there {
                dir.close()
                    .map_err(|e| Error::io("deleting the replaced image", &target, e))?;
            } else {
                let _renamed = dir.keep();
            }
            drop(lease);
        }
        self.hold(&claim.name)
    }

    /// Removes an image.
    ///
    /// # Errors
    /// [`ErrorKind::WrongState`] if it is in use, saying by whom.
    pub fn remove(&self, name: &str) -> Result<()> {
        let dir = self.existing(name)?;
        let _lock = self.lock()?;
        let _unused = self.unused(name)?;
        let trash = super::super::private_dir(NEW, &self.dir)?;
        renameat_with(CWD, &dir, CWD, trash.path(), RenameFlags::EXCHANGE)
            .map_err(|e| Error::io("removing the image", &dir, e))?;
        std::fs::remove_dir(&dir).map_err(|e| Error::io("removing", &dir, e))?;
        durable::sync_dir(&self.dir)?;
        trash.close().map_err(|e| Error::io("deleting", &dir, e))
    }

    /// Removes what killed processes left of images in the making.
    pub fn sweep(&self) -> Result<Vec<PathBuf>> {
        let _lock = self.lock()?;
        let entries =
            std::fs::read_dir(&self.dir).map_err(|e| Error::io("reading", &self.dir, e))?;
        let mut swept = Vec::new();
        for entry in entries.flatten() {
            if !entry
                .file_name()
                .as_encoded_bytes()
                .starts_with(NEW.as_bytes())
            {
                continue;
            }
            let path = entry.path();
            if FileLock::attempt(&path.join(LEASE), Sharing::Alone)?.is_none() {
                continue;
            }
            std::fs::remove_dir_all(&path).map_err(|e| Error::io("removing", &path, e))?;
            swept.push(path);
        }
        Ok(swept)
    }

    /// Copies an image, with its holes, under another name.
    pub fn clone_image(&self, from: &str, to: &str, watch: &mut Watch<'_>) -> Result<Held> {
        let source = self.hold(from)?;
        let claim = self.claim(to, watch.cancelled())?;
        let work = self.work()?;
        watch.tell(Progress::Stage("copying the image"));
        let mut manifest = source.bundle().manifest().clone();
        for artifact in source.bundle().artifacts() {
            let name = artifact.path.file_name().unwrap_or_default();
            crate::storage::copy_sparse(
                &artifact.path,
                &work.path().join(name),
                watch.cancelled(),
            )?;
            let copy = match artifact.role {
                "kernel" => &mut manifest.kernel,
                "rootfs" => &mut manifest.rootfs,
                _ => match &mut manifest.initrd {
                    Some(initrd) => initrd,
                    None => continue,
                },
            };
            (copy.path, copy.url, copy.file_name) = (Some(name.into()), None, None);
        }
        to.clone_into(&mut manifest.bundle_id);
        manifest.write(work.path())?;
        let record = Record {
            details: source.record().details.clone(),
            ..Record::new(super::Origin::Cloned)
        };
        self.put(&claim, work, &record, false)
    }
}

/// Notes a use of now.
pub(super) fn touch(dir: &Path) -> Result<()> {
    let path = dir.join(USED);
    let failed = |e| Error::io("noting the use of", dir, e);
    let file = File::options()
        .write(true)
        .create(true)
        .truncate(false)
        .open(&path)
        .map_err(failed)?;
    file.set_times(FileTimes::new().set_modified(SystemTime::now()))
        .map_err(failed)
}

/// Makes the files of a new image durable.
fn sync(dir: &Path) -> Result<()> {
    let entries = std::fs::read_dir(dir).map_err(|e| Error::io("reading", dir, e))?;
    for entry in entries.flatten() {
        let path = entry.path();
        let synced = File::open(&path).and_then(|file| file.sync_all());
        synced.map_err(|e| Error::io("syncing", &path, e))?;
    }
    durable::sync_dir(dir)
}
