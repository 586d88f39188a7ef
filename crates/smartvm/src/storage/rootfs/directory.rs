//! A root file system from a directory: what lstat says of each file, wherever it is.

use std::collections::{BTreeMap, HashMap};
use std::ffi::OsString;
use std::fs::{self, Metadata, OpenOptions};
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::os::unix::fs::{FileTypeExt, MetadataExt, OpenOptionsExt};
use std::path::Path;

use rustix::fs::{OFlags, lgetxattr, llistxattr};
use rustix::io::Errno;

use super::tree::{Attributes, Id, Kind, Time, Tree, checked_depth, checked_name, one_line};
use super::{Limits, Notes, entry_error, keeps_xattr, spool};
use crate::storage::progress::Watch;
use crate::{Error, ErrorKind, Result};

/// Longest list of attribute names and longest value, as the kernel has it.
const MAX_XATTR: usize = 64 << 10;

/// Reads a directory.
pub(super) fn read(
    dir: &Path,
    limits: &mut Limits,
    notes: &mut Notes,
    watch: &mut Watch<'_>,
) -> Result<Tree> {
    let dir = dir
        .canonicalize()
        .map_err(|cause| Error::io("opening the root file system", dir, cause))?;
    let metadata =
        fs::symlink_metadata(&dir).map_err(|cause| Error::io("looking at", &dir, cause))?;
    let mut walk = Walk {
        device: metadata.dev(),
        seen: HashMap::new(),
        tree: Tree::new(),
        limits,
        notes,
    };
    let attributes = attributes(&dir, &metadata, walk.notes)?;
    walk.tree
        .insert(&[], attributes, Kind::Directory(BTreeMap::new()))
        .map_err(|what| entry_error(dir.as_os_str().as_bytes(), &dir, &what))?;
    walk.directory(&dir, &mut Vec::new(), watch)?;
    Ok(walk.tree)
}

struct Walk<'a> {
    device: u64,
    /// Files with more than one name, by device and inode.
    seen: HashMap<(u64, u64), Id>,
    tree: Tree,
    limits: &'a mut Limits,
    notes: &'a mut Notes,
}

impl Walk<'_> {
    fn directory(
        &mut self,
        dir: &Path,
        above: &mut Vec<Vec<u8>>,
        watch: &mut Watch<'_>,
    ) -> Result<()> {
        let failed = |cause: std::io::Error| unreadable("reading the directory", dir, cause);
        let mut names: Vec<OsString> = Vec::new();
        for entry in fs::read_dir(dir).map_err(failed)? {
            names.push(entry.map_err(failed)?.file_name());
            self.limits.one_more(dir)?;
        }
        // The order in which the file system lists them is no part of the input: the tree
        // has one of its own.
        for name in names {
            let path = dir.join(&name);
            let refuse = |what: String| entry_error(path.as_os_str().as_bytes(), dir, &what);
            let name = name.into_vec();
            checked_name(&name).map_err(refuse)?;
            above.push(name);
            checked_depth(above.len()).map_err(refuse)?;
            let metadata = fs::symlink_metadata(&path)
                .map_err(|cause| Error::io("looking at", &path, cause))?;
            self.file(&path, above, &metadata, watch)?;
            // What is mounted below isn't part of this file system: only its mount point is.
            if metadata.is_dir() && metadata.dev() == self.device {
                self.directory(&path, above, watch)?;
            }
            above.pop();
        }
        Ok(())
    }

    fn file(
        &mut self,
        path: &Path,
        parts: &[Vec<u8>],
        metadata: &Metadata,
        watch: &mut Watch<'_>,
    ) -> Result<()> {
        let refuse = |what: String| entry_error(path.as_os_str().as_bytes(), path, &what);
        let inode = (metadata.dev(), metadata.ino());
        let shared = metadata.nlink() > 1 && !metadata.is_dir();
        if let Some(&id) = self.seen.get(&inode).filter(|_| shared) {
            return self.tree.add_name(parts, id).map_err(refuse);
        }
        let device = metadata.rdev();
        let (major, minor) = (rustix::fs::major(device), rustix::fs::minor(device));
        let kind = metadata.file_type();
        let kind = if kind.is_dir() {
            Kind::Directory(BTreeMap::new())
        } else if kind.is_file() {
            self.limits.more_bytes(metadata.len(), path)?;
            let mut file = OpenOptions::new()
                .read(true)
                .custom_flags((OFlags::NOFOLLOW | OFlags::NONBLOCK).bits() as i32)
                .open(path)
                .map_err(|cause| unreadable("opening", path, cause))?;
            Kind::File(spool::survey(&mut file, path.to_owned(), watch)?)
        } else if kind.is_symlink() {
            let target =
                fs::read_link(path).map_err(|cause| Error::io("reading the link", path, cause))?;
            let target = target.into_os_string().into_vec();
            one_line(&target, "its target").map_err(refuse)?;
            Kind::Symlink(target)
        } else if kind.is_char_device() {
            Kind::Char { major, minor }
        } else if kind.is_block_device() {
            Kind::Block { major, minor }
        } else if kind.is_fifo() {
            Kind::Fifo
        } else {
            self.notes
                .add("a socket was left out", path.as_os_str().as_bytes());
            return Ok(());
        };
        let attributes = attributes(path, metadata, self.notes)?;
        let id = self.tree.insert(parts, attributes, kind).map_err(refuse)?;
        if shared {
            self.seen.insert(inode, id);
        }
        Ok(())
    }
}

fn attributes(path: &Path, metadata: &Metadata, notes: &mut Notes) -> Result<Attributes> {
    Ok(Attributes {
        uid: metadata.uid(),
        gid: metadata.gid(),
        mode: metadata.mode() & 0o7777,
        modified: Some(Time {
            seconds: metadata.mtime(),
            nanos: metadata.mtime_nsec().clamp(0, 999_999_999) as u32,
        }),
        xattrs: xattrs(path, notes)?,
    })
}

fn xattrs(path: &Path, notes: &mut Notes) -> Result<BTreeMap<Vec<u8>, Vec<u8>>> {
    let failed = |cause: Errno| Error::io("reading the extended attributes of", path, cause);
    let mut buffer = vec![0; MAX_XATTR];
    let length = match llistxattr(path, &mut buffer) {
        Ok(length) => length,
        Err(Errno::NOTSUP) => 0,
        Err(cause) => return Err(failed(cause)),
    };
    let mut xattrs = BTreeMap::new();
    let mut value = Vec::new();
    for name in buffer[..length].split(|&byte| byte == 0) {
        if name.is_empty() {
            continue;
        }
        if !keeps_xattr(name) {
            notes.add("an extended attribute was left out", name);
            continue;
        }
        value.resize(MAX_XATTR, 0);
        match lgetxattr(path, name, &mut value) {
            Ok(length) => xattrs.insert(name.to_vec(), value[..length].to_vec()),
            // Removed meanwhile, or not for this user to see.
            Err(Errno::NODATA) => continue,
            Err(cause) => return Err(failed(cause)),
        };
    }
    Ok(xattrs)
}

fn unreadable(doing: &str, path: &Path, cause: std::io::Error) -> Error {
    let error = Error::io(doing, path, cause);
    match error.kind() {
        ErrorKind::Host => error.hint(
            "every file of the root file system must be readable; a tar of it, made by root, \
             needs no rights to be read",
        ),
        _ => error,
    }
}
