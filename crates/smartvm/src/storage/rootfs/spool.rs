//! The content of files, read once: its checksum, what it takes, and, where it comes out of
//! an archive, a place on disk until the image is made.

use std::fs::{self, File};
use std::io::{self, Read, Seek, SeekFrom, Write};
use std::path::{Path, PathBuf};

use sha2::{Digest, Sha256};

use super::BLOCK;
use super::tree::Content;
use crate::storage::checksum::hex;
use crate::storage::progress::{Progress, Watch};
use crate::{Error, ErrorKind, Result};

/// Bytes read at once; a multiple of the block.
const STRIDE: usize = 256 << 10;

/// Reads a file's data and tells what it is; `source` is where it stays.
pub(super) fn survey(file: &mut File, source: PathBuf, watch: &mut Watch<'_>) -> Result<Content> {
    let (sha256, blocks, _) = digest(file, None, &source, watch)?;
    Ok(Content {
        source,
        sha256,
        blocks,
    })
}

/// A private directory with the content of files, each under its checksum: nothing that an
/// archive says becomes a name on the host.
pub(super) struct Spool {
    dir: PathBuf,
}

impl Spool {
    pub(super) fn new(dir: PathBuf) -> Result<Self> {
        fs::create_dir(&dir).map_err(|cause| Error::io("creating", &dir, cause))?;
        Ok(Self { dir })
    }

    /// Stores exactly `size` bytes of `input`, which is part of `archive`.
    pub(super) fn store(
        &self,
        input: &mut dyn Read,
        size: u64,
        archive: &Path,
        watch: &mut Watch<'_>,
    ) -> Result<Content> {
        let incoming = self.dir.join("incoming");
        let failed = |cause| Error::io("writing", &incoming, cause);
        let mut file = File::create(&incoming).map_err(failed)?;
        let (sha256, blocks, length) = digest(
            &mut input.take(size),
            Some((&mut file, &incoming)),
            archive,
            watch,
        )?;
        if length != size {
            let cause = io::Error::new(io::ErrorKind::UnexpectedEof, "it ends within a file");
            return Err(unreadable(archive, cause));
        }
        file.set_len(size).map_err(failed)?;
        let source = self.dir.join(&sha256);
        fs::rename(&incoming, &source).map_err(failed)?;
        Ok(Content {
            source,
            sha256,
            blocks,
        })
    }
}

/// Checksum, blocks that aren't all zero, and length; what isn't zero is copied to `output`.
fn digest(
    input: &mut dyn Read,
    mut output: Option<(&mut File, &Path)>,
    source: &Path,
    watch: &mut Watch<'_>,
) -> Result<(String, u64, u64)> {
    let mut hasher = Sha256::new();
    let mut buffer = vec![0; STRIDE];
    let (mut blocks, mut length) = (0, 0);
    loop {
        watch.go_on("reading the root file system")?;
        let read = fill(input, &mut buffer).map_err(|cause| unreadable(source, cause))?;
        if read == 0 {
            break;
        }
        hasher.update(&buffer[..read]);
        for (nth, block) in buffer[..read].chunks(BLOCK as usize).enumerate() {
            if block.iter().all(|&byte| byte == 0) {
                continue;
            }
            blocks += 1;
            if let Some((output, path)) = &mut output {
                output
                    .seek(SeekFrom::Start(length + nth as u64 * BLOCK))
                    .and_then(|_| output.write_all(block))
                    .map_err(|cause| Error::io("writing", *path, cause))?;
            }
        }
        length += read as u64;
        watch.tell(Progress::Bytes(read as u64));
        if read < buffer.len() {
            break;
        }
    }
    Ok((hex(&hasher.finalize()), blocks, length))
}

/// What can't be read: a damaged archive is the input's fault, anything else the host's.
pub(super) fn unreadable(path: &Path, cause: io::Error) -> Error {
    match cause.kind() {
        io::ErrorKind::UnexpectedEof
        | io::ErrorKind::InvalidData
        | io::ErrorKind::InvalidInput
        | io::ErrorKind::Other => Error::new(
            ErrorKind::Invalid,
            format!("reading {}: it is damaged or truncated", path.display()),
        )
        .at(path)
        .because(cause),
        _ => Error::io("reading", path, cause),
    }
}

/// Fills the buffer as far as the input goes, so that blocks stay aligned.
fn fill(input: &mut dyn Read, buffer: &mut [u8]) -> io::Result<usize> {
    let mut filled = 0;
    while filled < buffer.len() {
        match input.read(&mut buffer[filled..]) {
            Ok(0) => break,
            Ok(read) => filled += read,
            Err(cause) if cause.kind() == io::ErrorKind::Interrupted => {}
            Err(cause) => return Err(cause),
        }
    }
    Ok(filled)
}
