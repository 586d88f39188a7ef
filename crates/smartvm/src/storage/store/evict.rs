//! What goes when there is too much.

use std::fs::DirEntry;
use std::path::Path;
use std::time::{Duration, SystemTime};

use super::users::{Users, names};
use super::{DOWNLOADS, Entry, LEASE, Store};
use crate::snapshot::Shelf;
use crate::storage::lock::{FileLock, Sharing};
use crate::storage::space::Size;
use crate::{Error, ErrorKind, Result};

/// What was downloaded for an image that never came to be goes after this long.
pub(super) const STALE: Duration = Duration::from_secs(7 * 24 * 3600);

/// An image that went.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct Evicted {
    /// Its name.
    pub name: String,
    /// What it took on disk, in bytes.
    pub disk_bytes: u64,
}

/// What went to make room.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct Pruned {
    /// The images.
    pub images: Vec<Evicted>,
    /// What the layers took that went, in bytes.
    pub layer_bytes: u64,
    /// What was left of downloads, in bytes.
    pub download_bytes: u64,
}

/// What a store takes on disk, in bytes.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, serde::Serialize)]
#[serde(rename_all = "camelCase")]
#[non_exhaustive]
pub struct Usage {
    /// Its images.
    pub image_bytes: u64,
    /// Layers, which are kept so that they needn't be fetched again.
    pub layer_bytes: u64,
    /// What is there of downloads.
    pub download_bytes: u64,
}

/// What the store tells of its own accord.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum Event {
    /// An image went, since there were too many.
    Evicted(Evicted),
    /// There are too many, but all the others are in use.
    AllInUse {
        /// So many there are.
        stored: usize,
        /// So many there may be.
        most: u32,
    },
}

impl std::fmt::Display for Event {
    fn fmt(&self, out: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Evicted(evicted) => write!(
                out,
                "{} was removed ({}), as there were too many",
                evicted.name,
                Size(evicted.disk_bytes)
            ),
            Self::AllInUse { stored, most } => write!(
                out,
                "there are {stored}, {most} at most should be kept, but all others are in use"
            ),
        }
    }
}

impl Store {
    /// VMs of this runtime directory and snapshots on this shelf may use images from now on.
    pub fn serve(&self, runtime_dir: &Path, shelf: &Shelf) -> Result<()> {
        Users::of(&self.dir).serve(runtime_dir, shelf)
    }

    /// Who uses an image, if anybody does.
    pub fn user_of(&self, name: &str) -> Result<Option<String>> {
        let dir = self.dir.join(name);
        Users::of(&self.dir).first(&|spec, _| names(spec, &dir))
    }

    /// Makes sure that nobody uses an image, and that nobody begins to.
    pub(super) fn unused(&self, name: &str) -> Result<FileLock> {
        let in_use = |by: String| {
            Error::new(
                ErrorKind::WrongState,
                format!("the image {name} is in use by {by}"),
            )
            .hint("end the VM, or remove the snapshot, first")
        };
        let path = self.dir.join(name).join(LEASE);
        let lease = FileLock::attempt(&path, Sharing::Alone)?
            .ok_or_else(|| in_use("another smartvm".into()))?;
        match self.user_of(name)? {
            Some(user) => Err(in_use(user)),
            None => Ok(lease),
        }
    }

    /// Keeps at most `most` of the images that can be fetched again: those used longest ago
    /// go, but never `keep`, nor one in use.
    pub fn evict(&self, most: u32, keep: &str) -> Result<Vec<Event>> {
        let mut entries: Vec<_> = self
            .by_last_use()?
            .into_iter()
            .filter(|entry| entry.record.origin.is_replaceable())
            .collect();
        let mut events = Vec::new();
        let mut stored = entries.len();
        entries.retain(|entry| entry.name != keep);
        for entry in entries {
            if stored <= most as usize {
                return Ok(events);
            }
            if let Some(evicted) = self.try_remove(&entry)? {
                events.push(Event::Evicted(evicted));
                stored -= 1;
            }
        }
        if stored > most as usize {
            events.push(Event::AllInUse { stored, most });
        }
        Ok(events)
    }

    /// Removes images, those used longest ago first, until the rest takes at most `max_bytes`
    /// on disk; without it, all that nobody uses. What was left of downloads goes too.
    pub fn prune(&self, max_bytes: Option<u64>) -> Result<Pruned> {
        self.sweep()?;
        let mut pruned = Pruned {
            download_bytes: self.drop_downloads(Duration::ZERO)?,
            ..Pruned::default()
        };
        let entries = self.by_last_use()?;
        let mut total: u64 = entries.iter().map(|entry| entry.disk_bytes).sum();
        // Layers go first: they are only there to be fetched less often.
        total += self.layer_bytes()?;
        self.drop_layers(|layer| {
            let enough = max_bytes.is_some_and(|most| total <= most);
            let gone = if enough { 0 } else { layer.bytes };
            total -= gone;
            pruned.layer_bytes += gone;
            enough
        })?;
        for entry in entries {
            if total <= max_bytes.unwrap_or(0) {
                break;
            }
            if let Some(evicted) = self.try_remove(&entry)? {
                total -= evicted.disk_bytes;
                pruned.images.push(evicted);
            }
        }
        Ok(pruned)
    }

    /// Removes what is left of downloads of long ago.
    pub fn drop_stale_downloads(&self) -> Result<()> {
        self.drop_downloads(STALE).map(drop)
    }

    /// What it takes on disk.
    pub fn usage(&self) -> Result<Usage> {
        let images = self.list()?.into_iter().filter_map(|(_, it)| it.ok());
        Ok(Usage {
            image_bytes: images.map(|image| image.disk_bytes).sum(),
            layer_bytes: self.layer_bytes()?,
            download_bytes: self.downloaded()?.iter().map(bytes_of).sum(),
        })
    }

    /// The files of downloads, whole and unfinished.
    fn downloaded(&self) -> Result<Vec<DirEntry>> {
        let dir = self.dir.join(DOWNLOADS);
        match std::fs::read_dir(&dir) {
            Ok(entries) => Ok(entries.flatten().collect()),
            Err(e) if e.kind() == std::io::ErrorKind::NotFound => Ok(Vec::new()),
            Err(e) => Err(Error::io("reading", &dir, e)),
        }
    }

    fn by_last_use(&self) -> Result<Vec<Entry>> {
        let all = self.list()?;
        // What can't be read is for `image rm`: nobody can tell where it came from.
        let mut entries: Vec<_> = all.into_iter().filter_map(|(_, e)| e.ok()).collect();
        entries.sort_by_key(|entry| entry.last_used);
        Ok(entries)
    }

    fn try_remove(&self, entry: &Entry) -> Result<Option<Evicted>> {
        match self.remove(&entry.name) {
            Ok(()) => Ok(Some(Evicted {
                name: entry.name.clone(),
                disk_bytes: entry.disk_bytes,
            })),
            Err(e) if matches!(e.kind(), ErrorKind::WrongState | ErrorKind::NotFound) => Ok(None),
            Err(e) => Err(e),
        }
    }

    /// Drops what is left of downloads; returns how many bytes that were.
    fn drop_downloads(&self, older: Duration) -> Result<u64> {
        let dir = self.dir.join(DOWNLOADS);
        let downloads = self.downloaded()?;
        if downloads.is_empty() {
            return Ok(0);
        }
        let mut dropped = 0;
        let _lock = self.lock()?;
        for entry in downloads {
            let path = entry.path();
            let modified = entry.metadata().and_then(|found| found.modified());
            let age = modified
                .ok()
                .and_then(|at| SystemTime::now().duration_since(at).ok())
                .unwrap_or_default();
            let name = entry.file_name();
            let name = name.to_string_lossy();
            // A download under way holds the lock of its file.
            let stem = name.trim_start_matches('.');
            let stem = ["part.json", "part", "lock"]
                .iter()
                .find_map(|end| stem.strip_suffix(&format!(".{end}")))
                .unwrap_or(stem);
            let lock = dir.join(format!(".{stem}.lock"));
            let busy = lock.exists() && FileLock::attempt(&lock, Sharing::Alone)?.is_none();
            if age >= older && !busy {
                dropped += bytes_of(&entry);
                std::fs::remove_file(&path).or_else(|e| match e.kind() {
                    std::io::ErrorKind::NotFound => Ok(()),
                    _ => Err(Error::io("removing", &path, e)),
                })?;
            }
        }
        Ok(dropped)
    }
}

/// What a file takes on disk; one that is gone, nothing.
fn bytes_of(entry: &DirEntry) -> u64 {
    use std::os::unix::fs::MetadataExt;
    entry.metadata().map_or(0, |found| found.blocks() * 512)
}
