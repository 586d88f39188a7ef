//! A root file system as data: what the image is to hold, wherever it came from.

use std::collections::BTreeMap;
use std::path::PathBuf;

/// Longest path, in bytes, and deepest nesting that is taken.
const MAX_PATH: usize = 4095;
const MAX_DEPTH: usize = 256;
/// Longest name of one file.
const MAX_NAME: usize = 255;

/// The number of an inode within its [`Tree`].
pub(super) type Id = usize;

/// The root's.
pub(super) const ROOT: Id = 0;

/// A moment: seconds since 1970, and nanoseconds.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Time {
    pub(super) seconds: i64,
    pub(super) nanos: u32,
}

/// What every file has.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Attributes {
    pub(super) uid: u32,
    pub(super) gid: u32,
    /// Permissions, with set-user-id, set-group-id and sticky.
    pub(super) mode: u32,
    /// `None`: as the newest file.
    pub(super) modified: Option<Time>,
    pub(super) xattrs: BTreeMap<Vec<u8>, Vec<u8>>,
}

impl Attributes {
    /// Of a directory that nothing is known of.
    fn assumed() -> Self {
        Self {
            uid: 0,
            gid: 0,
            mode: 0o755,
            modified: None,
            xattrs: BTreeMap::new(),
        }
    }
}

/// The data of a regular file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Content {
    /// A file on the host that has it.
    pub(super) source: PathBuf,
    pub(super) sha256: String,
    /// Blocks of 4 KiB that aren't all zero: what it takes in the image.
    pub(super) blocks: u64,
}

/// What sort of file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Kind {
    Directory(BTreeMap<Vec<u8>, Id>),
    File(Content),
    Symlink(Vec<u8>),
    Char { major: u32, minor: u32 },
    Block { major: u32, minor: u32 },
    Fifo,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Inode {
    pub(super) attributes: Attributes,
    pub(super) kind: Kind,
    /// Names it has.
    pub(super) links: u32,
}

/// The whole.
#[derive(Debug)]
pub(super) struct Tree {
    inodes: Vec<Inode>,
}

impl Tree {
    pub(super) fn new() -> Self {
        Self {
            inodes: vec![Inode {
                attributes: Attributes::assumed(),
                kind: Kind::Directory(BTreeMap::new()),
                links: 1,
            }],
        }
    }

    pub(super) fn get(&self, id: Id) -> &Inode {
        &self.inodes[id]
    }

    /// All that has a name (the root has one too), and what was replaced, without names.
    pub(super) fn inodes(&self) -> &[Inode] {
        &self.inodes
    }

    /// The entries of a directory; none for anything else.
    pub(super) fn children(&self, id: Id) -> impl Iterator<Item = (&[u8], Id)> {
        let children = match &self.inodes[id].kind {
            Kind::Directory(children) => Some(children),
            _ => None,
        };
        children
            .into_iter()
            .flatten()
            .map(|(name, id)| (name.as_slice(), *id))
    }

    /// Adds a file at a path, with the directories above it. A later file takes the place of
    /// an earlier one; a directory that is there already gets the new attributes.
    pub(super) fn insert(
        &mut self,
        path: &[Vec<u8>],
        attributes: Attributes,
        kind: Kind,
    ) -> Result<Id, String> {
        let is_directory = matches!(kind, Kind::Directory(_));
        let Some((name, parents)) = path.split_last() else {
            if !is_directory {
                return Err("the root can only be a directory".into());
            }
            self.inodes[ROOT].attributes = attributes;
            return Ok(ROOT);
        };
        let parent = self.directory(parents)?;
        if let Some(old) = self.child(parent, name) {
            match (&self.inodes[old].kind, is_directory) {
                (Kind::Directory(_), true) => {
                    self.inodes[old].attributes = attributes;
                    return Ok(old);
                }
                (Kind::Directory(children), false) if !children.is_empty() => {
                    return Err("a directory that isn't empty is there already".into());
                }
                _ => self.inodes[old].links -= 1,
            }
        }
        let id = self.inodes.len();
        self.inodes.push(Inode {
            attributes,
            kind,
            links: 1,
        });
        self.name(parent, name, id);
        Ok(id)
    }

    /// Gives the file at `target` another name.
    pub(super) fn link(&mut self, path: &[Vec<u8>], target: &[Vec<u8>]) -> Result<(), String> {
        let id = self
            .find(target)
            .ok_or("it is a hard link to a file that isn't there before it")?;
        if matches!(self.inodes[id].kind, Kind::Directory(_)) {
            return Err("it is a hard link to a directory".into());
        }
        self.add_name(path, id)
    }

    /// Gives a file that isn't a directory another name.
    pub(super) fn add_name(&mut self, path: &[Vec<u8>], id: Id) -> Result<(), String> {
        let (name, parents) = path
            .split_last()
            .ok_or("it is a hard link in the place of the root")?;
        let parent = self.directory(parents)?;
        if let Some(old) = self.child(parent, name) {
            if old == id {
                return Ok(());
            }
            if matches!(self.inodes[old].kind, Kind::Directory(_)) {
                return Err("a directory is there already".into());
            }
            self.inodes[old].links -= 1;
        }
        // ext4 counts them in 16 bits, of which it uses this much.
        if self.inodes[id].links >= 65_000 {
            return Err("the file has more than 65000 names".into());
        }
        self.inodes[id].links += 1;
        self.name(parent, name, id);
        Ok(())
    }

    /// The file at a path. Symbolic links aren't followed.
    pub(super) fn find(&self, path: &[Vec<u8>]) -> Option<Id> {
        path.iter()
            .try_fold(ROOT, |parent, name| self.child(parent, name))
    }

    /// The entry of a directory.
    pub(super) fn child(&self, parent: Id, name: &[u8]) -> Option<Id> {
        match &self.inodes[parent].kind {
            Kind::Directory(children) => children.get(name).copied(),
            _ => None,
        }
    }

    /// Takes a name away, with all that is below it.
    #[cfg(feature = "oci")]
    pub(super) fn remove(&mut self, parent: Id, name: &[u8]) {
        let Kind::Directory(children) = &mut self.inodes[parent].kind else {
            return;
        };
        let mut removed: Vec<Id> = children.remove(name).into_iter().collect();
        while let Some(id) = removed.pop() {
            let inode = &mut self.inodes[id];
            inode.links -= 1;
            if let Kind::Directory(children) = &mut inode.kind {
                removed.extend(std::mem::take(children).into_values());
            }
        }
    }

    fn name(&mut self, parent: Id, name: &[u8], id: Id) {
        if let Kind::Directory(children) = &mut self.inodes[parent].kind {
            children.insert(name.to_vec(), id);
        }
    }

    /// The directory at a path, made where it is missing. Symbolic links aren't followed.
    fn directory(&mut self, path: &[Vec<u8>]) -> Result<Id, String> {
        let mut at = ROOT;
        for name in path {
            at = match self.child(at, name) {
                Some(child) => child,
                None => {
                    let id = self.inodes.len();
                    self.inodes.push(Inode {
                        attributes: Attributes::assumed(),
                        kind: Kind::Directory(BTreeMap::new()),
                        links: 1,
                    });
                    self.name(at, name, id);
                    id
                }
            };
            match &self.inodes[at].kind {
                Kind::Directory(_) => {}
                Kind::Symlink(_) => return Err("its path goes through a symbolic link".into()),
                _ => return Err("its path goes through something that isn't a directory".into()),
            }
        }
        Ok(at)
    }
}

/// The parts of a relative path, checked: empty for the root itself.
pub(super) fn parts(path: &[u8]) -> Result<Vec<Vec<u8>>, String> {
    if path.starts_with(b"/") {
        return Err("its path is absolute".into());
    }
    if path.len() > MAX_PATH {
        return Err(format!("its path is longer than {MAX_PATH} bytes"));
    }
    let mut parts = Vec::new();
    for part in path.split(|&byte| byte == b'/') {
        match part {
            b"" | b"." => continue,
            b".." => return Err("its path contains `..`".into()),
            _ => {}
        }
        checked_name(part)?;
        parts.push(part.to_vec());
    }
    checked_depth(parts.len())?;
    Ok(parts)
}

/// Refuses what is nested too deep to be walked through.
pub(super) fn checked_depth(depth: usize) -> Result<(), String> {
    if depth > MAX_DEPTH {
        return Err(format!("it is more than {MAX_DEPTH} directories deep"));
    }
    Ok(())
}

/// Refuses names that can't be carried into an image.
pub(super) fn checked_name(name: &[u8]) -> Result<(), String> {
    if name.len() > MAX_NAME {
        return Err(format!(
            "a name in its path is longer than {MAX_NAME} bytes"
        ));
    }
    one_line(name, "its name")
}

/// Refuses what would break a line of a script in two.
pub(super) fn one_line(text: &[u8], what: &str) -> Result<(), String> {
    if text.iter().any(|byte| matches!(byte, b'\n' | b'\r' | 0)) {
        return Err(format!("{what} contains a line break or a zero byte"));
    }
    Ok(())
}
