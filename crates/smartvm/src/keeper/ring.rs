//! Output kept within bounds: a newer file and an older one, each at most half the bound.

use std::fs::{File, OpenOptions};
use std::io::{Read, Seek, SeekFrom, Write};
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
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
                // So that it is read at once, and its end seen.
                bytes.reserve((length - skip) as usize + 64);
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

/// Reads a log as it grows, from the beginning of what is kept.
#[derive(Debug)]
pub struct Follower {
    path: PathBuf,
    /// The newer part as it was opened, which may have become the older one since.
    newer: Option<File>,
    begun: bool,
}

impl Follower {
    /// A follower of the log at `path`, which may not be there yet.
    pub fn new(path: &Path) -> Self {
        Self {
            path: path.to_owned(),
            newer: None,
            begun: false,
        }
    }

    /// What was added since the last call. Nothing is lost, unless the log is written faster
    /// than it is read by more than half its bound.
    pub fn read(&mut self) -> Result<Vec<u8>> {
        let mut bytes = Vec::new();
        let failed = |path: &Path, e| Error::io("reading", path, e);
        if !self.begun {
            let older = older(&self.path);
            if let Some(mut file) = open(&older)? {
                file.read_to_end(&mut bytes)
                    .map_err(|e| failed(&older, e))?;
            }
        }
        if let Some(file) = &mut self.newer {
            file.read_to_end(&mut bytes)
                .map_err(|e| failed(&self.path, e))?;
        }
        if self
            .newer
            .as_ref()
            .is_none_or(|file| !same_file(file, &self.path))
            && let Some(mut file) = open(&self.path)?
        {
            file.read_to_end(&mut bytes)
                .map_err(|e| failed(&self.path, e))?;
            self.newer = Some(file);
            self.begun = true;
        }
        Ok(bytes)
    }
}

fn open(path: &Path) -> Result<Option<File>> {
    match File::open(path) {
        Ok(file) => Ok(Some(file)),
        Err(e) if e.kind() == std::io::ErrorKind::NotFound => Ok(None),
        Err(e) => Err(Error::io("opening", path, e)),
    }
}

/// Whether the open file is still the one under this name. A name that is gone counts as the
/// same: there is nothing newer to open.
fn same_file(file: &File, path: &Path) -> bool {
    match (file.metadata(), path.metadata()) {
        (Ok(open), Ok(named)) => (open.dev(), open.ino()) == (named.dev(), named.ino()),
        _ => true,
    }
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
    fn a_follower_sees_every_byte_once_across_turns_of_the_ring() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("console.log");
        let mut follower = Follower::new(&path);
        assert_eq!(follower.read().unwrap(), b"");
        let mut ring = Ring::open(&path, 100).unwrap();
        let (mut written, mut seen) = (Vec::new(), Vec::new());
        for n in 0..60_u8 {
            let piece = vec![n; usize::from(n % 17)];
            ring.write(&piece).unwrap();
            written.extend(piece);
            seen.extend(follower.read().unwrap());
        }
        std::fs::remove_file(&path).unwrap();
        seen.extend(follower.read().unwrap());
        assert_eq!(seen, written);
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
