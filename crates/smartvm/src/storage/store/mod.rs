//! The store of images: a directory for each, which appears whole and goes whole.
//!
//! ```text
//! base-images/
//!   NAME/            a bundle, `image.json` with where it came from, `.used` with its last use
//!   .lock            held while names appear and go
//!   .locks/NAME      held while NAME is fetched
//!   .new-…           an image in the making; its maker holds `.lease` in it
//!   .downloads/      what was fetched, whole or in part, for images in the making
//!   .layers/         layers of images from registries, by digest
//!   .runtimes/       the runtime directories whose VMs may use images
//! ```
//! Who uses an image shares the lock on its `.lease`, or is a VM whose spec names a file in it.

mod evict;
mod layers;
mod place;
mod record;
mod users;

use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

pub use evict::{Event, Evicted, Pruned, Usage};
pub use layers::Layers;
pub use place::Work;
pub use record::{Origin, Record};
pub use users::Users;

use super::bundle::Bundle;
use super::lock::{FileLock, Sharing};
use super::manifest::is_bundle_id;
use crate::{Error, ErrorKind, Result, durable};

const LOCK: &str = ".lock";
const LOCKS: &str = ".locks";
const LEASE: &str = ".lease";
const USED: &str = ".used";
const DOWNLOADS: &str = ".downloads";
/// Names appear and go within moments.
const LOCK_PATIENCE: Duration = Duration::from_secs(60);

/// The images of one directory.
#[derive(Debug, Clone)]
pub struct Store {
    dir: PathBuf,
}

/// An image in the store.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub struct Entry {
    /// Its name.
    pub name: String,
    /// Its directory.
    pub dir: PathBuf,
    /// Where it came from.
    pub record: Record,
    /// When it was last used.
    pub last_used: SystemTime,
    /// What it takes on disk, in bytes.
    pub disk_bytes: u64,
}

/// An image in use: nobody removes it while this lives.
#[derive(Debug)]
pub struct Held {
    bundle: Bundle,
    record: Record,
    _lease: FileLock,
}

impl Held {
    /// The image.
    pub fn bundle(&self) -> &Bundle {
        &self.bundle
    }

    /// Where it came from.
    pub fn record(&self) -> &Record {
        &self.record
    }
}

impl Store {
    /// Opens it: makes the directory where it is missing. A directory that is a symbolic link
    /// or belongs to someone else is refused.
    pub fn open(dir: &Path) -> Result<Self> {
        durable::private_dir(dir)?;
        let dir = dir
            .canonicalize()
            .map_err(|e| Error::io("finding the store", dir, e))?;
        Ok(Self { dir })
    }

    /// Its directory.
    pub fn dir(&self) -> &Path {
        &self.dir
    }

    /// Where files for images are downloaded to. Whole ones are moved into an image.
    pub fn downloads(&self) -> Result<PathBuf> {
        let dir = self.dir.join(DOWNLOADS);
        durable::private_dir(&dir)?;
        Ok(dir)
    }

    /// The images, by name. What can't be read comes as an error beside its name.
    pub fn list(&self) -> Result<Vec<(String, Result<Entry>)>> {
        let entries =
            std::fs::read_dir(&self.dir).map_err(|e| Error::io("reading", &self.dir, e))?;
        let mut names: Vec<_> = entries
            .flatten()
            .filter_map(|entry| entry.file_name().into_string().ok())
            .filter(|name| is_name(name))
            .collect();
        names.sort();
        let read = |name: String| {
            let entry = self.get(&name);
            (name, entry)
        };
        Ok(names.into_iter().map(read).collect())
    }

    /// What is known of an image.
    ///
    /// # Errors
    /// [`ErrorKind::NotFound`] if there is none of this name.
    pub fn get(&self, name: &str) -> Result<Entry> {
        let dir = self.existing(name)?;
        let record = Record::read(&dir)?;
        let last_used = dir
            .join(USED)
            .metadata()
            .and_then(|found| found.modified())
            .unwrap_or(SystemTime::UNIX_EPOCH);
        Ok(Entry {
            disk_bytes: disk_bytes(&dir)?,
            name: name.to_owned(),
            record,
            last_used,
            dir,
        })
    }

    /// The newest image that was pulled by this name, in full.
    pub fn pulled(&self, reference: &str) -> Result<Option<Entry>> {
        let entries = self.list()?.into_iter().filter_map(|(_, entry)| entry.ok());
        let from = entries.filter(|entry| {
            let known = entry
                .record
                .details
                .as_ref()
                .and_then(|it| it.get("reference"));
            entry.record.origin == Origin::Pulled && known.is_some_and(|it| it == reference)
        });
        Ok(from.max_by(|a, b| a.record.created_at.cmp(&b.record.created_at)))
    }

    /// Takes an image into use: it is not removed while what is returned lives, nor while a VM
    /// of a runtime directory that [`Store::serve`] was told of has it in its spec.
    pub fn hold(&self, name: &str) -> Result<Held> {
        let dir = self.existing(name)?;
        let lease = FileLock::wait(&dir.join(LEASE), Sharing::Together, LOCK_PATIENCE, &|| {
            false
        })
        .map_err(|e| match dir.symlink_metadata() {
            Ok(_) => e,
            Err(_) => no_such_image(name),
        })?;
        place::touch(&dir)?;
        Ok(Held {
            bundle: Bundle::load(&dir)?,
            record: Record::read(&dir)?,
            _lease: lease,
        })
    }

    /// Takes the right to make the image `name`, waiting for whoever has it.
    pub fn claim(&self, name: &str, cancelled: &dyn Fn() -> bool) -> Result<Claim> {
        check_name(name)?;
        let dir = self.dir.join(LOCKS);
        durable::private_dir(&dir)?;
        // Others may fetch it: that takes as long as it takes.
        let patience = Duration::from_secs(6 * 3600);
        let lock = FileLock::wait(&dir.join(name), Sharing::Alone, patience, cancelled)?;
        Ok(Claim {
            name: name.to_owned(),
            _lock: lock,
        })
    }

    fn existing(&self, name: &str) -> Result<PathBuf> {
        check_name(name)?;
        let dir = self.dir.join(name);
        match dir.symlink_metadata() {
            Ok(found) if found.is_dir() => Ok(dir),
            Ok(_) => Err(Error::new(
                ErrorKind::Corrupt,
                format!("{} isn't a directory", dir.display()),
            )
            .at(dir)),
            Err(e) if e.kind() == std::io::ErrorKind::NotFound => Err(no_such_image(name)),
            Err(e) => Err(Error::io("looking at", dir, e)),
        }
    }

    fn lock(&self) -> Result<FileLock> {
        let path = self.dir.join(LOCK);
        FileLock::wait(&path, Sharing::Alone, LOCK_PATIENCE, &|| false)
    }
}

/// The right to make an image: nobody else makes one of this name meanwhile.
#[derive(Debug)]
pub struct Claim {
    name: String,
    _lock: FileLock,
}

impl Claim {
    /// The image's name.
    pub fn name(&self) -> &str {
        &self.name
    }
}

/// Whether this can name an image in the store: a bundle's name that begins with no dot.
pub fn is_name(name: &str) -> bool {
    is_bundle_id(name) && !name.starts_with('.')
}

fn check_name(name: &str) -> Result<()> {
    if is_name(name) {
        return Ok(());
    }
    Err(
        Error::new(ErrorKind::Invalid, format!("{name:?} can't name an image")).hint(
            "1 to 128 letters, digits, `.`, `_` and `-`, the first not `.`; a path contains `/`",
        ),
    )
}

fn no_such_image(name: &str) -> Error {
    Error::new(ErrorKind::NotFound, format!("there is no image {name}"))
        .hint("`smartvm image ls` lists them; a path to an image contains `/`")
}

/// What the files directly in a directory take on disk.
fn disk_bytes(dir: &Path) -> Result<u64> {
    use std::os::unix::fs::MetadataExt;
    let entries = std::fs::read_dir(dir).map_err(|e| Error::io("reading", dir, e))?;
    let sizes = entries
        .flatten()
        .filter_map(|entry| entry.path().symlink_metadata().ok())
        .map(|found| found.blocks() * 512);
    Ok(sizes.sum())
}

#[cfg(test)]
mod tests;
