//! What is there of an unfinished download: the data, and what it is the beginning of.

use std::fs::{File, OpenOptions};
use std::io::{Read, Seek, SeekFrom, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

use super::beside;
use crate::storage::checksum::hex;
use crate::{Error, Result, durable};

const FORMAT: u32 = 1;

/// The names of an unfinished download.
#[derive(Debug, Clone)]
pub(super) struct Part {
    pub(super) data: PathBuf,
    origin: PathBuf,
    target: PathBuf,
}

/// What the data is the beginning of.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Origin {
    pub(super) url: String,
    /// What tells that it is unchanged on the server: a strong ETag, or a date.
    pub(super) validator: Option<String>,
}

impl Part {
    pub(super) fn of(target: &Path) -> Result<Self> {
        Ok(Self {
            data: beside(target, "part")?,
            origin: beside(target, "part.json")?,
            target: target.to_owned(),
        })
    }

    /// What is there of this URL, if it can be resumed: with a checksum to come, data without
    /// a validator will do as well.
    pub(super) fn resumable(&self, url: &str, has_sum: bool) -> Option<(Origin, u64)> {
        // A record that can't be read is as good as none.
        let origin: Origin = durable::read_state(&self.origin, FORMAT).ok()??;
        let length = self.data.symlink_metadata().ok()?.len();
        let fits = origin.url == url && length > 0 && (has_sum || origin.validator.is_some());
        fits.then_some((origin, length))
    }

    /// Opens the data after its first `keep` bytes, hashing those.
    pub(super) fn open(&self, keep: u64, origin: &Origin) -> Result<Writer> {
        let failed = |e| Error::io("writing", &self.data, e);
        let mut file = OpenOptions::new()
            .read(true)
            .write(true)
            .create(true)
            .truncate(keep == 0)
            .mode(0o600)
            .custom_flags(rustix::fs::OFlags::NOFOLLOW.bits() as i32)
            .open(&self.data)
            .map_err(failed)?;
        if keep == 0 {
            durable::write_state(&self.origin, FORMAT, origin)?;
        }
        let mut hasher = Sha256::new();
        let mut buffer = vec![0; 1 << 20];
        let mut rest = keep;
        while rest > 0 {
            let most = buffer
                .len()
                .min(usize::try_from(rest).unwrap_or(usize::MAX));
            let read = file.read(&mut buffer[..most]).map_err(failed)?;
            if read == 0 {
                return Err(failed(std::io::ErrorKind::UnexpectedEof.into()));
            }
            hasher.update(&buffer[..read]);
            rest -= read as u64;
        }
        file.set_len(keep).map_err(failed)?;
        file.seek(SeekFrom::Start(keep)).map_err(failed)?;
        Ok(Writer {
            file,
            hasher,
            length: keep,
            path: self.data.clone(),
        })
    }

    /// Drops what is there.
    pub(super) fn discard(&self) -> Result<()> {
        for path in [&self.data, &self.origin] {
            match std::fs::remove_file(path) {
                Err(e) if e.kind() != std::io::ErrorKind::NotFound => {
                    return Err(Error::io("removing", path, e));
                }
                _ => {}
            }
        }
        Ok(())
    }

    /// Gives the data, which is whole, its name.
    pub(super) fn finish(&self, writer: &Writer) -> Result<()> {
        let failed = |e| Error::io("finishing", &self.target, e);
        writer.file.sync_all().map_err(failed)?;
        std::fs::rename(&self.data, &self.target).map_err(failed)?;
        durable::sync_dir(self.target.parent().unwrap_or(Path::new("/")))?;
        self.discard()?;
        // Held by us: who waits for it sees that it is gone, and looks for the file first.
        let lock = beside(&self.target, "lock")?;
        std::fs::remove_file(&lock).map_err(|e| Error::io("removing", lock, e))
    }
}

/// The end of the data, where more is added.
#[derive(Debug)]
pub(super) struct Writer {
    file: File,
    hasher: Sha256,
    pub(super) length: u64,
    path: PathBuf,
}

impl Writer {
    pub(super) fn add(&mut self, bytes: &[u8]) -> Result<()> {
        self.file
            .write_all(bytes)
            .map_err(|e| Error::io("writing", &self.path, e))?;
        self.hasher.update(bytes);
        self.length += bytes.len() as u64;
        Ok(())
    }

    pub(super) fn sha256(&self) -> String {
        hex(&self.hasher.clone().finalize())
    }
}
