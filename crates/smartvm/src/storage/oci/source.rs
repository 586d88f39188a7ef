//! Where an image's pieces are: a directory, or a tar archive that is read in place.

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io::{self, BufReader, Read, Seek, SeekFrom};
use std::path::{Component, Path, PathBuf};

use tempfile::TempDir;

use super::model::MOST_JSON;
use crate::storage::checksum::{is_sha256, sha256_of};
use crate::storage::copy::open_source;
use crate::storage::decompress::Compression;
use crate::storage::progress::Watch;
use crate::{Error, ErrorKind, Result};

/// Most files in an archive of an image.
const MOST_FILES: usize = 100_000;
/// Largest archive, uncompressed, in bytes.
const MOST_BYTES: u64 = 1 << 40;

/// A stretch of a file.
#[derive(Debug, Clone)]
pub(super) struct Part {
    pub(super) path: PathBuf,
    pub(super) offset: u64,
    pub(super) size: u64,
}

/// The pieces of images.
#[derive(Debug)]
pub(super) enum Source {
    Directory(PathBuf),
    Archive {
        /// The uncompressed archive.
        path: PathBuf,
        /// Its files: where each begins, and its size.
        files: BTreeMap<PathBuf, (u64, u64)>,
        /// Holds the archive where it had to be uncompressed.
        _work: Option<TempDir>,
    },
}

impl Source {
    /// Opens a directory or an archive. A compressed one is uncompressed into a private
    /// directory in `work`, which is gone with this.
    pub(super) fn open(path: &Path, work: &Path, watch: &mut Watch<'_>) -> Result<Self> {
        let metadata =
            fs::metadata(path).map_err(|cause| Error::io("opening the image", path, cause))?;
        if metadata.is_dir() {
            return Ok(Self::Directory(path.to_owned()));
        }
        let (path, work) = uncompressed(path, work, watch)?;
        Ok(Self::Archive {
            files: listed(&path)?,
            path,
            _work: work,
        })
    }

    /// Finds a file by the name that the image gives it.
    pub(super) fn part(&self, name: &str) -> Result<Option<Part>> {
        let name = Path::new(name);
        if !is_inside(name) {
            return Err(Error::new(
                ErrorKind::Invalid,
                format!("the image names the file {name:?}, which leads out of it"),
            ));
        }
        match self {
            Self::Directory(dir) => {
                let path = dir.join(name);
                // A link might lead anywhere.
                match fs::symlink_metadata(&path) {
                    Ok(metadata) if metadata.is_file() => Ok(Some(Part {
                        path,
                        offset: 0,
                        size: metadata.len(),
                    })),
                    Ok(_) => Ok(None),
                    Err(cause) if cause.kind() == io::ErrorKind::NotFound => Ok(None),
                    Err(cause) => Err(Error::io("looking at", path, cause)),
                }
            }
            Self::Archive { path, files, .. } => Ok(files.get(name).map(|&(offset, size)| Part {
                path: path.clone(),
                offset,
                size,
            })),
        }
    }

    /// The whole of a small file; `None` if there is none.
    pub(super) fn read(&self, name: &str) -> Result<Option<Vec<u8>>> {
        self.part(name)?.map(|part| part.read()).transpose()
    }

    /// The blob of this digest.
    pub(super) fn blob(&self, digest: &str) -> Result<Part> {
        let hex = sha256_digest(digest)?;
        self.part(&format!("blobs/sha256/{hex}"))?.ok_or_else(|| {
            Error::new(
                ErrorKind::NotFound,
                format!("the image isn't whole: its blob {digest} is missing"),
            )
        })
    }

    /// The content of the blob of this digest, verified.
    pub(super) fn read_blob(&self, digest: &str) -> Result<Vec<u8>> {
        let bytes = self.blob(digest)?.read()?;
        verified(digest, bytes)
    }
}

impl Part {
    fn read(&self) -> Result<Vec<u8>> {
        if self.size > MOST_JSON {
            return Err(Error::new(
                ErrorKind::Invalid,
                format!("a manifest in {} is larger than 8 MiB", self.path.display()),
            )
            .at(&self.path));
        }
        let failed = |cause| Error::io("reading", &self.path, cause);
        let mut file = open_source(&self.path)?;
        file.seek(SeekFrom::Start(self.offset)).map_err(failed)?;
        let mut bytes = Vec::new();
        file.take(self.size)
            .read_to_end(&mut bytes)
            .map_err(failed)?;
        Ok(bytes)
    }
}

/// The hexadecimal part of a SHA-256 digest, the only sort that is taken.
pub(super) fn sha256_digest(digest: &str) -> Result<&str> {
    digest
        .strip_prefix("sha256:")
        .filter(|hex| is_sha256(hex) && !hex.bytes().any(|byte| byte.is_ascii_uppercase()))
        .ok_or_else(|| {
            Error::new(
                ErrorKind::Invalid,
                format!("{digest:?} is not a digest that is known: only sha256 is"),
            )
        })
}

/// Refuses content that isn't what its digest says.
pub(super) fn verified(digest: &str, bytes: Vec<u8>) -> Result<Vec<u8>> {
    let found = sha256_of(&bytes);
    if found == sha256_digest(digest)? {
        return Ok(bytes);
    }
    Err(Error::new(
        ErrorKind::Corrupt,
        format!("a part of the image has the digest sha256:{found}, {digest} was expected"),
    )
    .hint("fetch the image again; if it stays so, don't trust where it comes from"))
}

fn is_inside(name: &Path) -> bool {
    let mut parts = name.components().peekable();
    parts.peek().is_some() && parts.all(|part| matches!(part, Component::Normal(_)))
}

/// The archive itself, or what it is uncompressed.
fn uncompressed(
    path: &Path,
    work: &Path,
    watch: &mut Watch<'_>,
) -> Result<(PathBuf, Option<TempDir>)> {
    let failed = |cause| Error::io("reading the image", path, cause);
    let mut file = open_source(path)?;
    let mut start = Vec::new();
    (&mut file)
        .take(6)
        .read_to_end(&mut start)
        .map_err(failed)?;
    let Some(compression) = Compression::of(&start) else {
        return Ok((path.to_owned(), None));
    };
    file.seek(SeekFrom::Start(0)).map_err(failed)?;
    let dir = crate::storage::private_dir(".smartvm-image-", work)?;
    let target = dir.path().join("image.tar");
    let reader = compression
        .reader(BufReader::new(file), true)
        .map_err(failed)?;
    let mut reader = reader.take(MOST_BYTES);
    let mut output =
        File::create_new(&target).map_err(|cause| Error::io("creating", &target, cause))?;
    loop {
        watch.go_on("uncompressing the image")?;
        let copied = io::copy(&mut (&mut reader).take(16 << 20), &mut output)
            .map_err(|cause| Error::io("uncompressing the image", path, cause))?;
        if copied == 0 {
            return Ok((target, Some(dir)));
        }
    }
}

/// The regular files of a tar archive.
fn listed(path: &Path) -> Result<BTreeMap<PathBuf, (u64, u64)>> {
    let refused = |cause: io::Error| {
        Error::new(
            ErrorKind::Invalid,
            format!("{} isn't a tar archive, or is damaged", path.display()),
        )
        .at(path)
        .because(cause)
    };
    let mut archive = tar::Archive::new(open_source(path)?);
    let mut files = BTreeMap::new();
    let mut links = Vec::new();
    for entry in archive.entries_with_seek().map_err(refused)? {
        let entry = entry.map_err(refused)?;
        if files.len() + links.len() >= MOST_FILES {
            let cause = io::Error::other("it holds more files than an image does");
            return Err(refused(cause));
        }
        let name = entry.path().map_err(refused)?.into_owned();
        let name: PathBuf = name
            .components()
            .filter(|c| *c != Component::CurDir)
            .collect();
        match entry.header().entry_type() {
            tar::EntryType::Regular => {
                files.insert(name, (entry.raw_file_position(), entry.size()));
            }
            // Docker's older archives name a layer that two images share by a link.
            tar::EntryType::Symlink | tar::EntryType::Link => {
                if let Some(target) = entry.link_name().map_err(refused)? {
                    links.push((name, target.into_owned()));
                }
            }
            _ => {}
        }
    }
    for (name, target) in links {
        let mut place = name.parent().unwrap_or(Path::new("")).to_owned();
        for part in target.components() {
            match part {
                Component::Normal(part) => place.push(part),
                Component::ParentDir => {
                    place.pop();
                }
                _ => {}
            }
        }
        if let Some(&found) = files.get(&place) {
            files.entry(name).or_insert(found);
        }
    }
    Ok(files)
}
