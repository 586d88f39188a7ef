//! Output kept within bounds: a newer file and an older one, each at most half the bound.

use std::fs::{File, OpenOptions};
use std::io::{Read, Seek, SeekFrom, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

use crate::error::{Error, Result};

/// A log of bounded length. `NAME` holds the newer part, `NAME.1` the older.
#[derive(Debug)]
pub struct Ring {
    path: PathBuf,
    file: File,
    length: u64,
    half: u64,
}

impl Ring {
    /// Opens or makes the log at `path`, which keeps at least `most / 2` and at most `most`
    /// bytes.
    pub fn open(path: &Path, most: u64) -> Result<Self> {
        let file = append(path).map_err(|e| Error::io("opening", path, e))?;
        let length = file
            .metadata()
            .map_err(|e| Error::io("looking at", path, e))?
            .len();
        Ok(Self {
            path: path.to_owned(),
            file,
            length,
            half: most / 2,
        })
    }

    /// Adds to it.
    pub fn write(&mut self, mut bytes: &[u8]) -> std::io::Result<()> {
        while !bytes.is_empty() {
            if self.length >= self.half {
                std::fs::rename(&self.path, older(&self.path))?;
                self.file = append(&self.path)?;
                self.length = 0;
            }
            let room = usize::try_from(self.half - self.length).unwrap_or(usize::MAX);
            let (now, later) = bytes.split_at(bytes.len().min(room));
            self.file.write_all(now)?;
            self.length += now.len() as u64;
            bytes = later;
        }
        Ok(())
    }
}

/// The last `most` bytes of the log at `path`; fewer where there are fewer.
pub fn tail(path: &Path, most: usize) -> Result<Vec<u8>> {
    let mut bytes = Vec::new();
    for part in [&older(path), path] {
        match File::open(part) {
            Ok(mut file) => {
                let length = file
                    .metadata()
                    .map_err(|e| Error::io("reading", part, e))?
                    .len();
                let skip = length.saturating_sub(most as u64);
                file.seek(SeekFrom::Start(skip))
                    .and_then(|_| file.take(most as u64).read_to_end(&mut bytes))
                    .map_err(|e| Error::io("reading", part, e))?;
            }
            Err(e) if e.kind() == std::io::ErrorKind::NotFound => {}
            Err(e) => return Err(Error::io("reading", part, e)),
        }
    }
    bytes.drain(..bytes.len().saturating_sub(most));
    Ok(bytes)
}

/// The file of the older part.
pub fn older(path: &Path) -> PathBuf {
    path.with_added_extension("1")
}

fn append(path: &Path) -> std::io::Result<File> {
    OpenOptions::new()
        .append(true)
        .create(true)
        .mode(0o600)
        .open(path)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_keeps_the_last_bytes_and_never_more_than_its_bound() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("console.log");
        let mut ring = Ring::open(&path, 100).unwrap();
        let text: Vec<u8> = (0..1000_u32).map(|n| b'a' + (n % 26) as u8).collect();
        for piece in text.chunks(37) {
            ring.write(piece).unwrap();
            let size = |path: &Path| path.metadata().map(|m| m.len()).unwrap_or(0);
            assert!(size(&path) + size(&older(&path)) <= 100);
        }
        let kept = tail(&path, 1000).unwrap();
        assert!(kept.len() >= 50, "{} bytes are kept", kept.len());
        assert!(text.ends_with(&kept));
        assert_eq!(tail(&path, 10).unwrap(), text[990..]);
    }

    #[test]
    fn a_reopened_log_goes_on() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("x");
        Ring::open(&path, 100).unwrap().write(b"one ").unwrap();
        Ring::open(&path, 100).unwrap().write(b"two").unwrap();
        assert_eq!(tail(&path, 100).unwrap(), b"one two");
        assert_eq!(tail(&dir.path().join("missing"), 5).unwrap(), b"");
    }
}
