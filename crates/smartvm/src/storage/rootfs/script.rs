//! The tree as a script for debugfs, which puts files into an ext4 image with any owner and
//! of any kind, without rights and without mounting. In sorted order, so that the same tree
//! makes the same image.

use std::ffi::OsStr;
use std::io::{self, Write};
use std::os::unix::ffi::OsStrExt;

use sha2::{Digest, Sha256};

use super::tree::{Attributes, Content, Id, Inode, Kind, ROOT, Time, Tree};

/// debugfs cuts lines longer than 8191 bytes in two.
const MAX_LINE: usize = 8000;

/// The last moment that ext4 knows (May 2446), in seconds since 1970.
const MAX_TIME: i64 = (3 << 32) + i32::MAX as i64;

/// Where the scripts of trees go; attributes with any value come from files.
pub(super) struct Script<'a, W: Write> {
    output: W,
    /// Stores a value and tells the file that holds it.
    store: &'a mut dyn FnMut(&[u8]) -> io::Result<String>,
    /// Of everything that the image will hold, wherever it lies on the host.
    fingerprint: Sha256,
    /// For what has no time of its own.
    newest: Time,
    /// The first path of files with several names.
    paths: std::collections::HashMap<Id, Vec<u8>>,
    at: Vec<u8>,
}

/// Writes the script; returns the tree's fingerprint.
pub(super) fn write<W: Write>(
    tree: &Tree,
    output: W,
    newest: Time,
    store: &mut dyn FnMut(&[u8]) -> io::Result<String>,
) -> Result<[u8; 32], Failure> {
    let mut script = Script {
        output,
        store,
        fingerprint: Sha256::new(),
        newest,
        paths: std::collections::HashMap::new(),
        at: Vec::new(),
    };
    script.directory(tree, ROOT)?;
    script.attributes(tree.get(ROOT), b"<2>", 0o040_000)?;
    script.output.flush()?;
    Ok(script.fingerprint.finalize().into())
}

/// The newest time in the tree, at least one second after 1970: zero means "now" to mke2fs.
pub(super) fn newest(tree: &Tree) -> Time {
    let floor = Time {
        seconds: 1,
        nanos: 0,
    };
    tree.inodes()
        .iter()
        .filter_map(|inode| inode.attributes.modified)
        .max()
        .unwrap_or(floor)
        .clamp(
            floor,
            Time {
                seconds: i64::from(i32::MAX),
                nanos: 0,
            },
        )
}

/// Why no script was written.
pub(super) enum Failure {
    Io(io::Error),
    /// What can't be said in one, with the file's path.
    Refused(Vec<u8>, String),
}

impl From<io::Error> for Failure {
    fn from(cause: io::Error) -> Self {
        Self::Io(cause)
    }
}

impl<W: Write> Script<'_, W> {
    fn directory(&mut self, tree: &Tree, id: Id) -> Result<(), Failure> {
        for (name, child) in tree.children(id) {
            let length = self.at.len();
            self.at.push(b'/');
            self.at.extend(name);
            // mke2fs makes this one; what a file system check put there belongs to another.
            if self.at == b"/lost+found" {
                if !matches!(tree.get(child).kind, Kind::Directory(_)) {
                    return Err(self.refused("it has to be a directory in an ext4 file system"));
                }
            } else {
                self.entry(tree, name, child)?;
            }
            self.at.truncate(length);
        }
        Ok(())
    }

    fn entry(&mut self, tree: &Tree, name: &[u8], id: Id) -> Result<(), Failure> {
        let inode = tree.get(id);
        // Relative, so that a name such as `<12>` isn't taken for an inode's number.
        let path = quoted(&[b"./", name].concat());
        let name = quoted(name);
        if let Some(first) = self.paths.get(&id) {
            let first = quoted(first);
            // `link` doesn't enlarge a full directory; making and removing a file does.
            self.line(&[b"mknod", &name, b"p"])?;
            self.line(&[b"rm", &path])?;
            return self.line(&[b"link", &first, &path]);
        }
        let kind: u32 = match &inode.kind {
            Kind::Directory(_) => {
                self.line(&[b"mkdir", &path])?;
                self.line(&[b"cd", &path])?;
                self.directory(tree, id)?;
                self.line(&[b"cd", b".."])?;
                0o040_000
            }
            Kind::File(content) => {
                self.write(content, &name)?;
                0o100_000
            }
            Kind::Symlink(target) => {
                self.line(&[b"symlink", &path, &quoted(target)])?;
                0o120_000
            }
            Kind::Char { major, minor } => {
                self.device(&name, b"c", *major, *minor)?;
                0o020_000
            }
            Kind::Block { major, minor } => {
                self.device(&name, b"b", *major, *minor)?;
                0o060_000
            }
            Kind::Fifo => {
                self.line(&[b"mknod", &name, b"p"])?;
                0o010_000
            }
        };
        if inode.links > 1 {
            self.paths.insert(id, self.at.clone());
            self.set(&path, "links_count", inode.links)?;
        }
        self.attributes(inode, &path, kind)
    }

    fn write(&mut self, content: &Content, name: &[u8]) -> Result<(), Failure> {
        let source = quoted(content.source.as_os_str().as_bytes());
        let line = [b"write ".as_slice(), &source, b" ", name].concat();
        self.fingerprint.update(b"write ");
        self.fingerprint.update(&content.sha256);
        self.fingerprint.update([b" ", name, b"\n"].concat());
        self.put(&line)
    }

    fn device(&mut self, name: &[u8], kind: &[u8], major: u32, minor: u32) -> Result<(), Failure> {
        // ext4 has 12 bits for the first, debugfs 16 for the second.
        if major > 0xfff || minor > 0xffff {
            return Err(self.refused(&format!(
                "its device number {major}:{minor} is more than 4095:65535"
            )));
        }
        let (major, minor) = (major.to_string(), minor.to_string());
        self.line(&[b"mknod", name, kind, major.as_bytes(), minor.as_bytes()])
    }

    fn attributes(&mut self, inode: &Inode, path: &[u8], kind: u32) -> Result<(), Failure> {
        let Attributes {
            uid,
            gid,
            mode,
            modified,
            xattrs,
        } = &inode.attributes;
        self.set(path, "uid", uid)?;
        self.set(path, "gid", gid)?;
        self.set(path, "mode", format_args!("0{:o}", kind | mode))?;
        let time = modified.unwrap_or(self.newest);
        let seconds = time.seconds.clamp(0, MAX_TIME);
        // Above the 30 bits of nanoseconds, two more bits of seconds; the low 32 are signed.
        let epoch = (seconds - i64::from(seconds as i32)) >> 32;
        let extra = i64::from(time.nanos) << 2 | epoch;
        for field in ["atime", "mtime", "ctime", "crtime"] {
            self.set(path, field, format_args!("@{}", seconds as u32))?;
            self.set(path, &format!("{field}_extra"), extra)?;
        }
        for (name, value) in xattrs {
            let file = (self.store)(value)?;
            let line = [
                b"ea_set -f ",
                file.as_bytes(),
                b" ",
                path,
                b" ",
                &quoted(name),
            ]
            .concat();
            self.fingerprint
                .update([b"ea_set ", path, b" ", name, b" "].concat());
            self.fingerprint.update(Sha256::digest(value));
            self.put(&line)?;
        }
        Ok(())
    }

    fn set(
        &mut self,
        path: &[u8],
        field: &str,
        value: impl std::fmt::Display,
    ) -> Result<(), Failure> {
        let value = value.to_string();
        self.line(&[b"sif", path, field.as_bytes(), value.as_bytes()])
    }

    fn line(&mut self, words: &[&[u8]]) -> Result<(), Failure> {
        let line = words.join(&b' ');
        self.fingerprint.update(&line);
        self.fingerprint.update(b"\n");
        self.put(&line)
    }

    fn put(&mut self, line: &[u8]) -> Result<(), Failure> {
        if line.len() > MAX_LINE {
            return Err(self.refused("its path or its target is too long"));
        }
        self.output.write_all(line)?;
        self.output.write_all(b"\n")?;
        Ok(())
    }

    fn refused(&self, what: &str) -> Failure {
        Failure::Refused(self.at.clone(), what.to_owned())
    }
}

/// A word as debugfs reads it: in quotes, with those inside it doubled.
fn quoted(word: &[u8]) -> Vec<u8> {
    let mut out = vec![b'"'];
    for &byte in word {
        if byte == b'"' {
            out.push(b'"');
        }
        out.push(byte);
    }
    out.push(b'"');
    out
}

/// For people: a path that needn't be text.
pub(super) fn told(path: &[u8]) -> String {
    OsStr::from_bytes(path).to_string_lossy().into_owned()
}
