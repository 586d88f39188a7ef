//! Root file systems: an ext4 or squashfs image out of a directory or a tar archive, with owners, modes,
//! times, extended attributes, hard links and device nodes, by any user and without mounting.
//! The same input makes the same bytes.

mod archive;
mod directory;
mod image;
#[cfg(feature = "oci")]
mod layer;
mod layout;
mod pax;
mod script;
mod spool;
mod squash;
mod tarball;
mod tree;

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

use typed_builder::TypedBuilder;

#[cfg(feature = "oci")]
pub use layer::LayerFile;

use super::copy::open_source;
use super::private_dir;
use super::progress::{Progress, Watch};
use super::space::{Size, require_free};
use crate::spec::RootfsType;
use crate::{Error, ErrorKind, Result};

/// Size of the image's blocks in bytes.
const BLOCK: u64 = 4096;

/// What an image is to be like.
#[derive(Debug, Clone, PartialEq, Eq, TypedBuilder)]
#[non_exhaustive]
pub struct RootfsOptions {
    /// What sort of image. A squashfs is as large as its content, which it compresses.
    #[builder(default = RootfsType::Ext4)]
    pub format: RootfsType,
    /// Size of the image in bytes, rounded up to 1 MiB. Default: what it takes for
    /// `free_bytes`.
    #[builder(default, setter(strip_option))]
    pub size_bytes: Option<u64>,
    /// Room left in the image, in bytes, unless its size is given. Default: a quarter of what
    /// the files take, at least 128 MiB.
    #[builder(default, setter(strip_option))]
    pub free_bytes: Option<u64>,
}

impl Default for RootfsOptions {
    fn default() -> Self {
        Self::builder().build()
    }
}

/// An image that was made.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct RootfsInfo {
    /// Its size in bytes.
    pub size_bytes: u64,
    /// Its UUID, which follows from its content; a squashfs has none.
    pub uuid: Option<String>,
    /// How many files it holds.
    pub files: u64,
}

/// Makes the image `target`, which must not exist, from `source`. Work is done in a private
/// directory beside it, which is gone at the end. A failed image is removed.
pub fn build_rootfs(
    source: &RootSource,
    target: &Path,
    options: &RootfsOptions,
    watch: &mut Watch<'_>,
) -> Result<RootfsInfo> {
    build_within(source, target, options, Limits::default(), watch)
}

/// What a root file system is made from.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum RootSource {
    /// A directory, or a tar archive (plain, gzip, xz, zstd, bzip2 or lz4).
    Path(PathBuf),
    /// The layers of an OCI image, the lowest first.
    #[cfg(feature = "oci")]
    Layers(Vec<LayerFile>),
}

impl From<PathBuf> for RootSource {
    fn from(path: PathBuf) -> Self {
        Self::Path(path)
    }
}

impl From<&Path> for RootSource {
    fn from(path: &Path) -> Self {
        Self::Path(path.to_owned())
    }
}

impl From<&PathBuf> for RootSource {
    fn from(path: &PathBuf) -> Self {
        Self::Path(path.clone())
    }
}

fn build_within(
    source: &RootSource,
    target: &Path,
    options: &RootfsOptions,
    mut limits: Limits,
    watch: &mut Watch<'_>,
) -> Result<RootfsInfo> {
    let target = std::path::absolute(target)
        .map_err(|cause| Error::io("finding the directory of", target, cause))?;
    let (Some(parent), false) = (target.parent(), target.exists()) else {
        return Err(Error::new(
            ErrorKind::WrongState,
            format!("{} exists already", target.display()),
        )
        .at(target));
    };
    let work = private_dir(".smartvm-rootfs-", parent)?;

    watch.tell(Progress::Stage("reading the root file system"));
    let mut notes = Notes::default();
    let spool = spool::Spool::new(work.path().join("data"))?;
    let mut tree = tree::Tree::new();
    match source {
        RootSource::Path(path) => {
            let metadata = fs::metadata(path)
                .map_err(|cause| Error::io("opening the root file system", path, cause))?;
            if metadata.is_dir() {
                tree = directory::read(path, &mut limits, &mut notes, watch)?;
            } else {
                let file = open_source(path)?;
                archive::read(
                    path,
                    file,
                    &mut tree,
                    &spool,
                    &mut limits,
                    &mut notes,
                    watch,
                )?;
            }
        }
        #[cfg(feature = "oci")]
        RootSource::Layers(layers) => {
            for layer in layers {
                layer.lay(&mut tree, &spool, &mut limits, &mut notes, watch)?;
            }
        }
    }
    for note in notes.told() {
        watch.tell(Progress::Note(note));
    }
    let made = image_of(&tree, &target, parent, options, work.path(), watch);
    let uuid = made.map_err(|error| match fs::remove_file(&target) {
        Err(cause) if cause.kind() != std::io::ErrorKind::NotFound => {
            error.with_cleanup([Error::io("removing", &target, cause)])
        }
        _ => error,
    })?;
    let size_bytes = fs::metadata(&target)
        .map_err(|cause| Error::io("looking at", &target, cause))?
        .len();
    Ok(RootfsInfo {
        size_bytes,
        uuid,
        files: tree.inodes().iter().filter(|inode| inode.links > 0).count() as u64,
    })
}

/// Makes the image of a tree; returns its UUID.
fn image_of(
    tree: &tree::Tree,
    target: &Path,
    parent: &Path,
    options: &RootfsOptions,
    work: &Path,
    watch: &mut Watch<'_>,
) -> Result<Option<String>> {
    match options.format {
        RootfsType::Ext4 => {
            let layout = layout::plan(tree, options.size_bytes, options.free_bytes)?;
            require_free(parent, layout.written, "the root file system image")?;
            image::make(tree, layout, target, work, watch).map(Some)
        }
        RootfsType::Squashfs if options.size_bytes.or(options.free_bytes).is_some() => {
            let what = "a squashfs image is as large as its content: no size can be asked for";
            Err(Error::new(ErrorKind::Invalid, what))
        }
        RootfsType::Squashfs => squash::make(tree, target, watch).map(|()| None),
    }
}

/// How much an input may hold.
struct Limits {
    entries: u64,
    bytes: u64,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            entries: 4_000_000,
            bytes: 1 << 40,
        }
    }
}

impl Limits {
    fn one_more(&mut self, input: &Path) -> Result<()> {
        self.entries = self.entries.checked_sub(1).ok_or_else(|| {
            Error::new(
                ErrorKind::Invalid,
                format!("{} holds more files than are taken", input.display()),
            )
            .at(input)
        })?;
        Ok(())
    }

    fn more_bytes(&mut self, bytes: u64, input: &Path) -> Result<()> {
        self.bytes = self.bytes.checked_sub(bytes).ok_or_else(|| {
            Error::new(
                ErrorKind::Invalid,
                format!(
                    "{} holds more data than is taken: the next file says {}, {} are left",
                    input.display(),
                    Size(bytes),
                    Size(self.bytes)
                ),
            )
            .at(input)
        })?;
        Ok(())
    }
}

/// What was left out, by sort: how often, and one example.
#[derive(Default)]
struct Notes(BTreeMap<&'static str, (u64, Vec<u8>)>);

impl Notes {
    fn add(&mut self, what: &'static str, example: &[u8]) {
        let entry = self.0.entry(what).or_insert_with(|| (0, example.to_vec()));
        entry.0 += 1;
    }

    fn told(&self) -> impl Iterator<Item = String> {
        self.0.iter().map(|(what, (count, example))| {
            let example = script::told(example);
            match count {
                1 => format!("{what}: {example}"),
                _ => format!("{what}, {count} times, such as {example}"),
            }
        })
    }
}

/// Whether an extended attribute can be set in an image.
fn keeps_xattr(name: &[u8]) -> bool {
    const KEPT: [&[u8]; 3] = [b"user.", b"trusted.", b"security."];
    let posix_acl = [&b"system.posix_acl_access"[..], b"system.posix_acl_default"];
    let known = posix_acl.contains(&name)
        || KEPT
            .iter()
            .any(|prefix| name.len() > prefix.len() && name.starts_with(prefix));
    known && tree::checked_name(name).is_ok()
}

/// What is wrong with one file of an input.
fn entry_error(name: &[u8], input: &Path, what: &str) -> Error {
    Error::new(
        ErrorKind::Invalid,
        format!("{} in {}: {what}", script::told(name), input.display()),
    )
    .at(input)
}

#[cfg(test)]
mod tests;
