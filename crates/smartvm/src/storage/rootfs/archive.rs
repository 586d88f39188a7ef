//! A root file system from a tar archive. Nothing is unpacked: names become entries of a
//! [`Tree`], content goes to the [`Spool`].

use std::collections::BTreeMap;
use std::fs::File;
use std::io::{self, BufReader, Read};
use std::path::Path;

use tar::{EntryType, Header};

use super::pax::Records;
use super::spool::{Spool, unreadable};
use super::tree::{Attributes, Kind, Time, Tree, one_line, parts};
use super::{Limits, Notes, entry_error, keeps_xattr};
use crate::storage::decompress::Compression;
use crate::storage::progress::Watch;
use crate::{Error, ErrorKind, Result};

const RECORD: u64 = 512;
/// Bytes read at once.
pub(super) const STRIDE: usize = 256 << 10;

/// Largest extended header, and largest long name, in bytes.
const MAX_EXTENSION: u64 = 1 << 20;

/// Reads an archive, compressed or not, into an empty tree.
pub(super) fn read(
    path: &Path,
    file: File,
    tree: &mut Tree,
    spool: &Spool,
    limits: &mut Limits,
    notes: &mut Notes,
    watch: &mut Watch<'_>,
) -> Result<()> {
    let mut archive = Archive {
        path,
        input: BufReader::with_capacity(STRIDE, decompressed(path, file)?),
        spool,
        tree,
        laying: &mut AsNamed,
        limits,
        notes,
        global: Records::default(),
    };
    archive.read(watch)
}

/// Undoes the compression that the first bytes tell.
pub(super) fn decompressed<'a>(
    path: &Path,
    mut input: impl Read + 'a,
) -> Result<Box<dyn Read + 'a>> {
    let failed = |cause| unreadable(path, cause);
    let mut start = Vec::new();
    (&mut input)
        .take(6)
        .read_to_end(&mut start)
        .map_err(failed)?;
    let whole = io::Cursor::new(start.clone()).chain(input);
    match Compression::of(&start) {
        Some(compression) => compression
            .reader(BufReader::with_capacity(STRIDE, whole), true)
            .map_err(failed),
        None => Ok(Box::new(whole)),
    }
}

/// How an archive's files get into the tree: as they are named, or over what is there.
pub(super) trait Laying {
    /// Where a path leads.
    fn place(&self, _tree: &Tree, path: Vec<Vec<u8>>) -> Result<Vec<Vec<u8>>, String> {
        Ok(path)
    }

    /// Whether a file is none itself, but hides others, which is done then.
    fn hides(&self, _tree: &mut Tree, _path: &[Vec<u8>]) -> Result<bool, String> {
        Ok(false)
    }

    /// Makes way for a file, or a directory, at this path.
    fn make_way(&self, _tree: &mut Tree, _path: &[Vec<u8>], _directory: bool) {}

    /// Notes that a file is at this path now.
    fn brings(&mut self, _tree: &Tree, _path: &[Vec<u8>]) {}
}

/// Files are where the archive says, as in an empty tree.
struct AsNamed;

impl Laying for AsNamed {}

/// An archive that is read.
pub(super) struct Archive<'a> {
    pub(super) path: &'a Path,
    pub(super) input: BufReader<Box<dyn Read + 'a>>,
    pub(super) spool: &'a Spool,
    pub(super) tree: &'a mut Tree,
    pub(super) laying: &'a mut dyn Laying,
    pub(super) limits: &'a mut Limits,
    pub(super) notes: &'a mut Notes,
    /// What holds for all files that follow.
    pub(super) global: Records,
}

/// What the headers before a file's own say of it.
#[derive(Default)]
struct Ahead {
    name: Option<Vec<u8>>,
    target: Option<Vec<u8>>,
    records: Option<Records>,
}

impl Archive<'_> {
    pub(super) fn read(&mut self, watch: &mut Watch<'_>) -> Result<()> {
        let mut ahead = Ahead::default();
        let mut first = true;
        while let Some(header) = self.header(first)? {
            first = false;
            self.limits.one_more(self.path)?;
            let size = header.entry_size().map_err(|cause| self.failed(cause))?;
            match header.entry_type() {
                EntryType::XHeader => {
                    let mut records = self.global.clone();
                    let data = self.extension(size)?;
                    records.add(&data).map_err(|what| self.refused(&what))?;
                    ahead.records = Some(records);
                }
                EntryType::XGlobalHeader => {
                    let data = self.extension(size)?;
                    self.global.add(&data).map_err(|what| self.refused(&what))?;
                }
                EntryType::GNULongName => ahead.name = Some(self.long_name(size)?),
                EntryType::GNULongLink => ahead.target = Some(self.long_name(size)?),
                _ => self.entry(&header, std::mem::take(&mut ahead), size, watch)?,
            }
        }
        Ok(())
    }

    /// The next header; `None` behind the last file.
    fn header(&mut self, first: bool) -> Result<Option<Header>> {
        let mut header = Header::new_old();
        let read = self.input.read_exact(header.as_mut_bytes());
        if let Err(cause) = read {
            if cause.kind() != io::ErrorKind::UnexpectedEof {
                return Err(self.failed(cause));
            }
            return Err(if first {
                self.refused("it isn't a tar archive")
            } else {
                self.refused("it is truncated: it ends without its end mark")
            });
        }
        if header.as_bytes().iter().all(|&byte| byte == 0) {
            return Ok(None);
        }
        let bytes = header.as_bytes();
        let sum = |range: &[u8]| range.iter().map(|&byte| u32::from(byte)).sum::<u32>();
        // The checksum counts its own field as blanks.
        let sum = sum(&bytes[..148]) + 8 * u32::from(b' ') + sum(&bytes[156..]);
        if header.cksum().ok() != Some(sum) {
            return Err(self.refused(if first {
                "it isn't a tar archive"
            } else {
                "a header's checksum is wrong"
            }));
        }
        Ok(Some(header))
    }

    fn entry(
        &mut self,
        header: &Header,
        ahead: Ahead,
        size: u64,
        watch: &mut Watch<'_>,
    ) -> Result<()> {
        let records = ahead.records.unwrap_or_else(|| self.global.clone());
        let name = records
            .text("path")
            .map(<[u8]>::to_vec)
            .or(ahead.name)
            .unwrap_or_else(|| header.path_bytes().into_owned());
        let target = records
            .text("linkpath")
            .map(<[u8]>::to_vec)
            .or(ahead.target)
            .or_else(|| header.link_name_bytes().map(|name| name.into_owned()));
        let archive = self.path;
        let refuse = |what: String| entry_error(&name, archive, &what);

        let path = parts(&name).map_err(refuse)?;
        let size = records.number("size").map_err(refuse)?.unwrap_or(size);
        if records.with_prefix("GNU.sparse.").next().is_some() {
            return Err(refuse(SPARSE.into()));
        }
        let path = self.laying.place(self.tree, path).map_err(refuse)?;
        if self.laying.hides(self.tree, &path).map_err(refuse)? {
            return self.skip_padded(size);
        }
        let directory = header.entry_type() == EntryType::Directory || name.ends_with(b"/");
        self.laying.make_way(self.tree, &path, directory);
        let attributes = attributes(header, &records, self.notes).map_err(refuse)?;
        let mut data = size;
        let kind = match header.entry_type() {
            EntryType::Regular if name.ends_with(b"/") => Kind::Directory(BTreeMap::new()),
            EntryType::Regular | EntryType::Continuous => {
                self.limits.more_bytes(size, archive)?;
                data = 0;
                let content = self.spool.store(&mut self.input, size, archive, watch)?;
                self.skip(padding(size))?;
                Kind::File(content)
            }
            EntryType::Directory => Kind::Directory(BTreeMap::new()),
            EntryType::Symlink => {
                let target =
                    target.ok_or_else(|| refuse("it is a link without a target".into()))?;
                one_line(&target, "its target").map_err(refuse)?;
                Kind::Symlink(target)
            }
            EntryType::Link => {
                let target =
                    target.ok_or_else(|| refuse("it is a link without a target".into()))?;
                let refuse_target = |what| refuse(format!("the target of the hard link: {what}"));
                let target = parts(&target).map_err(refuse_target)?;
                let target = self
                    .laying
                    .place(self.tree, target)
                    .map_err(refuse_target)?;
                self.tree.link(&path, &target).map_err(refuse)?;
                self.laying.brings(self.tree, &path);
                return self.skip_padded(data);
            }
            EntryType::Char => {
                device(header, |major, minor| Kind::Char { major, minor }).map_err(refuse)?
            }
            EntryType::Block => {
                device(header, |major, minor| Kind::Block { major, minor }).map_err(refuse)?
            }
            EntryType::Fifo => Kind::Fifo,
            EntryType::GNUSparse => return Err(refuse(SPARSE.into())),
            other => {
                let kind = char::from(other.as_byte());
                return Err(refuse(format!("it is of the unknown type {kind:?}")));
            }
        };
        self.tree.insert(&path, attributes, kind).map_err(refuse)?;
        self.laying.brings(self.tree, &path);
        self.skip_padded(data)
    }

    /// The data of an extended header.
    fn extension(&mut self, size: u64) -> Result<Vec<u8>> {
        if size > MAX_EXTENSION {
            return Err(self.refused("an extended header is larger than 1 MiB"));
        }
        let mut data = vec![0; size as usize];
        self.input
            .read_exact(&mut data)
            .map_err(|cause| self.failed(cause))?;
        self.skip(padding(size))?;
        Ok(data)
    }

    fn long_name(&mut self, size: u64) -> Result<Vec<u8>> {
        let mut name = self.extension(size)?;
        if let Some(end) = name.iter().position(|&byte| byte == 0) {
            name.truncate(end);
        }
        Ok(name)
    }

    fn skip_padded(&mut self, size: u64) -> Result<()> {
        match size.checked_add(padding(size)) {
            Some(length) => self.skip(length),
            None => Err(self.refused("a file is larger than any can be")),
        }
    }

    fn skip(&mut self, length: u64) -> Result<()> {
        self.limits.more_bytes(length, self.path)?;
        let skipped = io::copy(&mut (&mut self.input).take(length), &mut io::sink())
            .map_err(|cause| self.failed(cause))?;
        if skipped < length {
            return Err(self.refused("it is truncated: it ends within a file"));
        }
        Ok(())
    }

    fn failed(&self, cause: io::Error) -> Error {
        unreadable(self.path, cause)
    }

    fn refused(&self, what: &str) -> Error {
        let message = format!("the archive {}: {what}", self.path.display());
        Error::new(ErrorKind::Invalid, message).at(self.path)
    }
}

const SPARSE: &str = "it is stored as a sparse file: make the archive without --sparse";

fn padding(size: u64) -> u64 {
    size.wrapping_neg() % RECORD
}

fn attributes(header: &Header, records: &Records, notes: &mut Notes) -> Result<Attributes, String> {
    let id = |what: &str, field: io::Result<u64>| -> Result<u32, String> {
        let id = match records.number(what)? {
            Some(id) => id,
            None => field.map_err(|_| format!("its {what} isn't a number"))?,
        };
        u32::try_from(id).map_err(|_| format!("its {what} is {id}, more than there can be"))
    };
    let mode = header.mode().map_err(|_| "its mode isn't a number")?;
    let modified = match records.time("mtime")? {
        Some(time) => time,
        None => Time {
            seconds: header
                .mtime()
                .ok()
                .and_then(|seconds| i64::try_from(seconds).ok())
                .ok_or("its time isn't a number")?,
            nanos: 0,
        },
    };
    let mut xattrs = BTreeMap::new();
    for (name, value) in records.with_prefix("SCHILY.xattr.") {
        if keeps_xattr(name) {
            xattrs.insert(name.to_vec(), value.to_vec());
        } else {
            notes.add("an extended attribute was left out", name);
        }
    }
    for (name, _) in records.with_prefix("SCHILY.acl.") {
        notes.add("an access control list in text form was left out", name);
    }
    Ok(Attributes {
        uid: id("uid", header.uid())?,
        gid: id("gid", header.gid())?,
        mode: mode & 0o7777,
        modified: Some(modified),
        xattrs,
    })
}

fn device(header: &Header, kind: impl Fn(u32, u32) -> Kind) -> Result<Kind, String> {
    let number = |field: io::Result<Option<u32>>| {
        field
            .ok()
            .flatten()
            .ok_or_else(|| "its device number isn't a number".to_owned())
    };
    let (major, minor) = (
        number(header.device_major())?,
        number(header.device_minor())?,
    );
    Ok(kind(major, minor))
}
