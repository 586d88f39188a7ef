//! The tree as a tar archive, for a program that reads one.

use std::collections::HashMap;
use std::io::{self, Read, Write};

use tar::{Builder, EntryType, Header};

use super::Notes;
use super::script::Failure;
use super::tree::{Attributes, Content, Id, Kind, ROOT, Time, Tree};
use crate::storage::copy::open_source;

/// The extended attributes that squashfs knows.
const XATTRS: [&[u8]; 3] = [b"user.", b"trusted.", b"security."];
/// Largest numbers in a header's fields; what is larger is told ahead of it.
const SEVEN_DIGITS: u64 = 0o7_777_777;
const ELEVEN_DIGITS: u64 = 0o77_777_777_777;

/// Writes all of the tree but its root. `newest` is the time of what has none of its own.
pub(super) fn write(
    tree: &Tree,
    output: impl Write,
    newest: Time,
    notes: &mut Notes,
) -> Result<(), Failure> {
    let mut tarball = Tarball {
        tree,
        output: Builder::new(output),
        newest,
        notes,
        first: HashMap::new(),
    };
    tarball.directory(ROOT, &mut Vec::new())?;
    tarball.output.into_inner()?.flush()?;
    Ok(())
}

/// A time as squashfs has it.
pub(super) fn seconds(time: Time) -> u32 {
    u32::try_from(time.seconds.max(0)).unwrap_or(u32::MAX)
}

struct Tarball<'a, W: Write> {
    tree: &'a Tree,
    output: Builder<W>,
    newest: Time,
    notes: &'a mut Notes,
    /// The first path of files with several names.
    first: HashMap<Id, Vec<u8>>,
}

impl<W: Write> Tarball<'_, W> {
    fn directory(&mut self, id: Id, path: &mut Vec<u8>) -> Result<(), Failure> {
        let tree = self.tree;
        for (name, child) in tree.children(id) {
            let length = path.len();
            if length > 0 {
                path.push(b'/');
            }
            path.extend(name);
            self.entry(child, path)?;
            self.directory(child, path)?;
            path.truncate(length);
        }
        Ok(())
    }

    fn entry(&mut self, id: Id, path: &[u8]) -> Result<(), Failure> {
        let inode = self.tree.get(id);
        let mut entry = Entry::new(path);
        if let Some(first) = self.first.get(&id) {
            entry.target(first);
            return self.put(entry, EntryType::Link, io::empty());
        }
        let many = inode.links > 1 && !matches!(inode.kind, Kind::Directory(_));
        if many {
            self.first.insert(id, path.to_vec());
        }
        let time = inode.attributes.modified.unwrap_or(self.newest);
        entry.attributes(&inode.attributes, time, self.notes);
        let refused = |what| Failure::Refused(path.to_vec(), what);
        let kind = match &inode.kind {
            Kind::File(content) => return self.file(entry, content),
            Kind::Directory(_) => EntryType::Directory,
            Kind::Symlink(target) => {
                entry.target(target);
                EntryType::Symlink
            }
            Kind::Char { major, minor } => {
                entry.device(*major, *minor).map_err(refused)?;
                EntryType::Char
            }
            Kind::Block { major, minor } => {
                entry.device(*major, *minor).map_err(refused)?;
                EntryType::Block
            }
            Kind::Fifo => EntryType::Fifo,
        };
        self.put(entry, kind, io::empty())
    }

    fn file(&mut self, mut entry: Entry, content: &Content) -> Result<(), Failure> {
        let file = open_source(&content.source).map_err(io::Error::other)?;
        let size = file.metadata()?.len();
        entry.size(size);
        // Should it grow meanwhile, the archive still is one.
        self.put(entry, EntryType::Regular, file.take(size))
    }

    fn put(&mut self, mut entry: Entry, kind: EntryType, data: impl Read) -> Result<(), Failure> {
        if !entry.ahead.is_empty() {
            let mut header = Header::new_ustar();
            header.set_entry_type(EntryType::XHeader);
            header.set_mode(0o644);
            header.set_size(entry.ahead.len() as u64);
            header.set_cksum();
            self.output.append(&header, entry.ahead.as_slice())?;
        }
        entry.header.set_entry_type(kind);
        entry.header.set_cksum();
        self.output.append(&entry.header, data)?;
        Ok(())
    }
}

/// A file's header, and the records for what has no room in it.
struct Entry {
    header: Header,
    ahead: Vec<u8>,
}

impl Entry {
    fn new(path: &[u8]) -> Self {
        let mut entry = Self {
            header: Header::new_ustar(),
            ahead: Vec::new(),
        };
        entry.header.set_size(0);
        let place = entry.header.as_old_mut().name.as_mut_slice();
        if !fill(place, path) {
            entry.record(b"path", path);
        }
        entry
    }

    fn target(&mut self, target: &[u8]) {
        let place = self.header.as_old_mut().linkname.as_mut_slice();
        if !fill(place, target) {
            self.record(b"linkpath", target);
        }
    }

    fn attributes(&mut self, attributes: &Attributes, time: Time, notes: &mut Notes) {
        self.header.set_mode(attributes.mode);
        self.header.set_mtime(u64::from(seconds(time)));
        let [uid, gid] = [attributes.uid, attributes.gid].map(u64::from);
        self.header.set_uid(uid.min(SEVEN_DIGITS));
        self.header.set_gid(gid.min(SEVEN_DIGITS));
        for (name, id) in [("uid", uid), ("gid", gid)] {
            if id > SEVEN_DIGITS {
                self.record(name.as_bytes(), id.to_string().as_bytes());
            }
        }
        for (name, value) in &attributes.xattrs {
            if XATTRS.iter().any(|prefix| name.starts_with(prefix)) {
                self.record(&[b"SCHILY.xattr.", name.as_slice()].concat(), value);
            } else {
                notes.add("an extended attribute was left out", name);
            }
        }
    }

    fn size(&mut self, size: u64) {
        self.header.set_size(size.min(ELEVEN_DIGITS));
        if size > ELEVEN_DIGITS {
            self.record(b"size", size.to_string().as_bytes());
        }
    }

    fn device(&mut self, major: u32, minor: u32) -> Result<(), String> {
        // What squashfs has room for.
        if major > 0xfff || minor > 0xf_ffff {
            return Err(format!(
                "its device number {major}:{minor} is more than 4095:1048575"
            ));
        }
        let set = self.header.set_device_major(major);
        set.and_then(|()| self.header.set_device_minor(minor))
            .map_err(|cause| cause.to_string())
    }

    /// A record: its own length in digits, a blank, key, `=`, value, a line break.
    fn record(&mut self, key: &[u8], value: &[u8]) {
        let rest = key.len() + value.len() + 3;
        let mut length = rest + 1;
        while rest + length.to_string().len() != length {
            length = rest + length.to_string().len();
        }
        self.ahead.extend(format!("{length} ").bytes());
        self.ahead.extend(key);
        self.ahead.push(b'=');
        self.ahead.extend(value);
        self.ahead.push(b'\n');
    }
}

fn fill(place: &mut [u8], text: &[u8]) -> bool {
    match place.get_mut(..text.len()) {
        Some(start) => {
            start.copy_from_slice(text);
            true
        }
        None => false,
    }
}
