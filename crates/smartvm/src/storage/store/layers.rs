//! The layers of images from registries, each under its digest: what two images share is
//! fetched once.

use std::path::{Path, PathBuf};
use std::time::SystemTime;

use super::{LOCK_PATIENCE, Store};
use crate::storage::lock::{FileLock, Sharing};
use crate::{Error, Result, durable};

const DIR: &str = ".layers";
const LOCK: &str = ".lock";

/// The layers of a store. None of them goes while this lives.
#[derive(Debug)]
pub struct Layers {
    dir: PathBuf,
    _used: FileLock,
}

impl Layers {
    /// Where the layer of this SHA-256 is, or is to be.
    pub fn path(&self, sha256: &str) -> PathBuf {
        self.dir.join(sha256)
    }

    /// Where they are.
    pub fn dir(&self) -> &Path {
        &self.dir
    }

    /// Notes that a layer is used: those used longest ago go first.
    pub fn touch(&self, sha256: &str) {
        let file = std::fs::File::options()
            .append(true)
            .open(self.path(sha256));
        // A guess at what will be needed again: nothing is lost without it.
        let _unnoted = file.and_then(|file| file.set_modified(SystemTime::now()));
    }
}

/// A layer on disk.
pub(super) struct Layer {
    path: PathBuf,
    used: SystemTime,
    pub(super) bytes: u64,
}

impl Layer {
    pub(super) fn remove(&self) -> Result<()> {
        match std::fs::remove_file(&self.path) {
            Err(e) if e.kind() != std::io::ErrorKind::NotFound => {
                Err(Error::io("removing", &self.path, e))
            }
            _ => Ok(()),
        }
    }
}

impl Store {
    /// The layers, for as long as they are needed.
    pub fn layers(&self) -> Result<Layers> {
        let dir = self.dir.join(DIR);
        durable::private_dir(&dir)?;
        let used = FileLock::wait(&dir.join(LOCK), Sharing::Together, LOCK_PATIENCE, &|| false)?;
        Ok(Layers { dir, _used: used })
    }

    /// What the layers take on disk, in bytes, with what is there of unfinished ones.
    pub fn layer_bytes(&self) -> Result<u64> {
        Ok(self.unused_layers()?.iter().map(|layer| layer.bytes).sum())
    }

    /// The layers and what is unfinished of them, those used longest ago first.
    fn unused_layers(&self) -> Result<Vec<Layer>> {
        use std::os::unix::fs::MetadataExt;
        let dir = self.dir.join(DIR);
        let entries = match std::fs::read_dir(&dir) {
            Ok(entries) => entries,
            Err(e) if e.kind() == std::io::ErrorKind::NotFound => return Ok(Vec::new()),
            Err(e) => return Err(Error::io("reading", &dir, e)),
        };
        let mut layers: Vec<_> = entries
            .flatten()
            .filter(|entry| entry.file_name() != LOCK)
            .filter_map(|entry| {
                let found = entry.metadata().ok()?;
                Some(Layer {
                    path: entry.path(),
                    used: found.modified().unwrap_or(SystemTime::UNIX_EPOCH),
                    bytes: found.blocks() * 512,
                })
            })
            .collect();
        layers.sort_by_key(|layer| layer.used);
        Ok(layers)
    }

    /// Gives `drop` the layers, those used longest ago first, until it has had enough; none
    /// while somebody needs them. Each can be fetched again.
    pub(super) fn drop_layers(&self, mut enough: impl FnMut(&Layer) -> bool) -> Result<()> {
        let dir = self.dir.join(DIR);
        if !dir.exists() {
            return Ok(());
        }
        let Some(_alone) = FileLock::attempt(&dir.join(LOCK), Sharing::Alone)? else {
            return Ok(());
        };
        for layer in self.unused_layers()? {
            if enough(&layer) {
                break;
            }
            layer.remove()?;
        }
        Ok(())
    }

    /// Removes layers that weren't used for long.
    pub fn drop_stale_layers(&self) -> Result<()> {
        let now = SystemTime::now();
        self.drop_layers(|layer| {
            let age = now.duration_since(layer.used).unwrap_or_default();
            age < super::evict::STALE
        })
    }
}
