//! Who needs a snapshot: VMs whose memory is its file, and diffs that build on it.

use std::path::{Path, PathBuf};
use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::manifest::{Manifest, Parent};
use super::place::{CHILDREN, LOCK, MANIFEST, Place, USES};
use crate::durable;
use crate::error::{Error, ErrorKind, Result};
use crate::rundir::RunDir;
use crate::storage::checksum::sha256_of;
use crate::storage::lock::{FileLock, Sharing};

const FORMAT: u32 = 1;
/// How long somebody else may work on a snapshot: a merge copies its memory.
const PATIENCE: Duration = Duration::from_secs(300);

/// A VM that was restored from a snapshot.
#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
struct Use {
    vm: String,
    runtime_dir: PathBuf,
}

/// The lock on a snapshot's directory: restores, merges and removal exclude each other.
pub(super) fn lock(dir: &Path) -> Result<FileLock> {
    FileLock::wait(&dir.join(LOCK), Sharing::Alone, PATIENCE, &|| false)
}

/// Whether somebody holds that lock now. Nothing is made for it.
pub(super) fn is_locked(dir: &Path) -> Result<bool> {
    FileLock::is_held(&dir.join(LOCK))
}

/// Where the use of a snapshot by this VM is written down.
fn use_file(dir: &Path, vm: &str, runtime_dir: &Path) -> PathBuf {
    let key = sha256_of(runtime_dir.as_os_str().as_encoded_bytes());
    dir.join(USES).join(format!("{vm}-{}.json", &key[..16]))
}

/// Writes down that a VM needs this snapshot.
pub(crate) fn begin(dir: &Path, id: &str, vm: &str, runtime_dir: &Path) -> Result<()> {
    let _lock = lock(dir)?;
    match Manifest::read(&dir.join(MANIFEST))? {
        Some(manifest) if manifest.id == id => {}
        _ => {
            let message = format!("the snapshot {} was removed or replaced", dir.display());
            return Err(Error::new(ErrorKind::WrongState, message).at(dir));
        }
    }
    durable::private_dir(&dir.join(USES))?;
    let user = Use {
        vm: vm.to_owned(),
        runtime_dir: runtime_dir.to_owned(),
    };
    durable::write_state(&use_file(dir, vm, runtime_dir), FORMAT, &user)
}

/// The VM needs it no more.
pub(crate) fn end(dir: &Path, vm: &str, runtime_dir: &Path) -> Result<()> {
    let path = use_file(dir, vm, runtime_dir);
    match std::fs::remove_file(&path) {
        Err(e) if !is_missing(&e) => Err(Error::io("removing", path, e)),
        _ => Ok(()),
    }
}

fn is_missing(e: &std::io::Error) -> bool {
    use std::io::ErrorKind::{NotADirectory, NotFound};
    matches!(e.kind(), NotFound | NotADirectory)
}

/// The VMs that need the snapshot `id` now. A use that a crash left behind doesn't count: its
/// VM is gone, or is another by now.
pub(super) fn users(dir: &Path, id: &str) -> Result<Vec<String>> {
    let mut users = Vec::new();
    for path in files(&dir.join(USES))? {
        let Some(user) = durable::read_state::<Use>(&path, FORMAT)? else {
            continue;
        };
        let run_dir = user.runtime_dir.join(&user.vm);
        let state = match run_dir.symlink_metadata() {
            Err(_) => continue,
            Ok(_) => RunDir::at(&run_dir).and_then(|run_dir| run_dir.state()),
        };
        // One that can't be read may well need it.
        let needs_it = state.map_or(true, |state| state.origin.is_some_and(|it| it.id == id));
        if needs_it {
            users.push(user.vm);
        }
    }
    users.sort();
    Ok(users)
}

/// What is written down of a diff: where it is.
#[derive(Serialize, Deserialize)]
struct Child {
    // The file's format comes beside its fields, which alone it would refuse.
    #[serde(flatten)]
    diff: Parent,
}

/// Writes down, with the parent, that a diff builds on it.
pub(super) fn add_child(parent: &Parent, child: &Parent) -> Result<()> {
    let dir = Place::new(&parent.snapshot_path, &parent.mem_file_path)?.dir();
    let _lock = lock(&dir)?;
    durable::private_dir(&dir.join(CHILDREN))?;
    let path = dir.join(CHILDREN).join(format!("{}.json", child.id));
    let diff = child.clone();
    durable::write_state(&path, FORMAT, &Child { diff })
}

/// The diffs that build on the snapshot in `dir` and are still there.
pub(super) fn children(dir: &Path) -> Result<Vec<PathBuf>> {
    let mut children = Vec::new();
    for path in files(&dir.join(CHILDREN))? {
        let Some(Child { diff: child }) = durable::read_state(&path, FORMAT)? else {
            continue;
        };
        let place = Place::new(&child.snapshot_path, &child.mem_file_path)?;
        // Being made, whole, or damaged: in each case somebody may need this one.
        let is_there = match Manifest::read(&place.manifest()) {
            Ok(manifest) => manifest.is_some_and(|manifest| manifest.id == child.id),
            Err(_) => true,
        };
        if is_there || place.work().exists() {
            children.push(child.snapshot_path);
        }
    }
    children.sort();
    Ok(children)
}

fn files(dir: &Path) -> Result<Vec<PathBuf>> {
    match std::fs::read_dir(dir) {
        Ok(entries) => Ok(entries
            .flatten()
            .map(|entry| entry.path())
            .filter(|path| path.extension().is_some_and(|it| it == "json"))
            .collect()),
        Err(e) if is_missing(&e) => Ok(Vec::new()),
        Err(e) => Err(Error::io("reading", dir, e)),
    }
}
