//! Layers of OCI images: tar archives, each laid over those below it.

mod over;

use std::io::{self, BufRead, BufReader, Read, Seek, SeekFrom};
use std::path::{Path, PathBuf};

use sha2::{Digest, Sha256};

use super::archive::{Archive, STRIDE, decompressed};
use super::pax::Records;
use super::spool::{Spool, unreadable};
use super::tree::Tree;
use super::{Limits, Notes};
use crate::storage::checksum::hex;
use crate::storage::copy::open_source;
use crate::storage::progress::Watch;
use crate::{Error, ErrorKind, Result};

/// A layer of an OCI image: a tar archive, of any usual compression, in a file or in part of
/// one.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct LayerFile {
    /// The file.
    pub path: PathBuf,
    /// Where in it the layer begins, in bytes.
    pub offset: u64,
    /// How many bytes it takes there.
    pub size: u64,
    /// SHA-256 of the layer as it is uncompressed: 64 lower-case hexadecimal digits.
    pub diff_id: String,
}

impl LayerFile {
    /// The layer that is all of a file.
    pub fn whole(path: impl Into<PathBuf>, size: u64, diff_id: impl Into<String>) -> Self {
        Self::part(path, 0, size, diff_id)
    }

    /// The layer that is part of a file.
    pub fn part(
        path: impl Into<PathBuf>,
        offset: u64,
        size: u64,
        diff_id: impl Into<String>,
    ) -> Self {
        Self {
            path: path.into(),
            offset,
            size,
            diff_id: diff_id.into(),
        }
    }
    /// Lays it over those below.
    pub(super) fn lay(
        &self,
        tree: &mut Tree,
        spool: &Spool,
        limits: &mut Limits,
        notes: &mut Notes,
        watch: &mut Watch<'_>,
    ) -> Result<()> {
        let mut file = open_source(&self.path)?;
        file.seek(SeekFrom::Start(self.offset))
            .map_err(|cause| Error::io("reading", &self.path, cause))?;
        let input = file.take(self.size);
        let found = read(&self.path, input, tree, spool, limits, notes, watch)?;
        if found == self.diff_id {
            return Ok(());
        }
        Err(Error::new(
            ErrorKind::Corrupt,
            format!(
                "the layer {} is altered: uncompressed it has the SHA-256 {found}, {} was expected",
                self.path.display(),
                self.diff_id
            ),
        )
        .at(&self.path)
        .hint("fetch the image again"))
    }
}

/// Lays an archive, compressed or not, over a tree, as the next layer of an OCI image. Returns
/// the SHA-256 of the archive as it is uncompressed.
pub(super) fn read(
    path: &Path,
    input: impl Read,
    tree: &mut Tree,
    spool: &Spool,
    limits: &mut Limits,
    notes: &mut Notes,
    watch: &mut Watch<'_>,
) -> Result<String> {
    let mut input = Hashed {
        input: decompressed(path, input)?,
        hasher: Sha256::new(),
    };
    let mut archive = Archive {
        path,
        input: BufReader::with_capacity(STRIDE, Box::new(&mut input)),
        spool,
        tree,
        laying: &mut over::Layer::default(),
        limits,
        notes,
        global: Records::default(),
    };
    archive.read(watch)?;
    // What follows the end mark is part of the checksum.
    archive.rest()?;
    drop(archive);
    Ok(hex(&input.hasher.finalize()))
}

impl Archive<'_> {
    /// Reads to the end.
    fn rest(&mut self) -> Result<()> {
        loop {
            let length = self
                .input
                .fill_buf()
                .map_err(|e| unreadable(self.path, e))?
                .len();
            if length == 0 {
                return Ok(());
            }
            self.limits.more_bytes(length as u64, self.path)?;
            self.input.consume(length);
        }
    }
}

/// Input whose checksum is computed as it is read.
struct Hashed<R> {
    input: R,
    hasher: Sha256,
}

impl<R: Read> Read for Hashed<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let read = self.input.read(buffer)?;
        self.hasher.update(&buffer[..read]);
        Ok(read)
    }
}
