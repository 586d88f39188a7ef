//! A snapshot in the making: everything under hidden names, with an owner file, until the
//! state file gets its name as the very last. Its maker holds the directory's lock as long as
//! it lives.
//!
//! ```text
//! .NAME.d.making/  owner file, state, drives, manifest      .MEMORY.making
//!        │ whole, on disk                                          │
//!        ▼                                                         ▼
//!     NAME.d/      (owner file still there)                     MEMORY
//!        │ state ─▶ NAME: from now on it is whole
//!        ▼
//!     NAME.d/      owner file gone
//! ```

use std::fs::OpenOptions;
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;

use rustix::fs::{CWD, RenameFlags, renameat_with};

use super::place::{DRIVES, Place, STATE, USES};
use super::stamp::{Stamp, Stamps};
use super::usage;
use crate::durable::sync_dir;
use crate::error::{Error, ErrorKind, Result};
use crate::ledger::Ledger;
use crate::name::VmId;
use crate::rundir::file;
use crate::step::Step;
use crate::step::owner::{self, Owner};
use crate::storage::lock::FileLock;

/// The name of the memory in the stamps.
pub(super) const MEMORY: &str = "memory";

/// Claims the place of a snapshot that is to be made: refuses where anything of one is. What
/// this returns is to be held while it is made.
pub(crate) fn claim(place: &Place, makes_parent: bool, who: &Owner) -> Result<FileLock> {
    if makes_parent {
        crate::durable::private_dir(place.parent())?;
    }
    let dir = place.dir();
    for path in [place.state(), place.memory(), dir.as_path()] {
        if path.symlink_metadata().is_ok() {
            let message = format!("making a snapshot: {} is there already", path.display());
            return Err(Error::new(ErrorKind::WrongState, message)
                .at(path)
                .hint("use another name, or remove that one: smartvm snapshot rm"));
        }
    }
    let work = place.work();
    if work.symlink_metadata().is_ok() {
        if usage::is_locked(&work)? {
            let message = format!(
                "another snapshot is being made at {}",
                place.state().display()
            );
            return Err(Error::new(ErrorKind::WrongState, message).at(work));
        }
        remove_work(place)?;
    }
    owner::make_dir(&work)?;
    let held = usage::lock(&work)?;
    owner::mark(&work, who)?;
    for dir in [DRIVES, USES] {
        crate::durable::private_dir(&work.join(dir))?;
    }
    // Made here, as Firecracker would make them for everybody to read.
    for path in [work.join(STATE), place.memory_work()] {
        OpenOptions::new()
            .write(true)
            .create_new(true)
            .mode(0o600)
            .open(&path)
            .map_err(|e| Error::io("making", path, e))?;
    }
    super::share_with_jails(&place.memory_work())?;
    Ok(held)
}

/// Whether nothing of a snapshot is there, whole or not.
pub(super) fn is_empty(place: &Place) -> bool {
    let (dir, work, memory) = (place.dir(), place.work(), place.memory_work());
    let all = [place.state(), place.memory(), &dir, &work, &memory];
    all.iter().all(|path| path.symlink_metadata().is_err())
}

/// Gives every file its name; the snapshot is there as a whole or, to whoever looks for its
/// state, not at all. What is in the work directory is on disk by now.
pub(super) fn publish(place: &Place) -> Result<()> {
    let (work, dir) = (place.work(), place.dir());
    let mut stamps = Stamps::read(&work);
    stamps.set(MEMORY, Stamp::of(&place.memory_work())?);
    stamps.write(&work)?;
    rename_new(&work, &dir)?;
    rename_new(&place.memory_work(), place.memory())?;
    // The new name changed its change time.
    stamps.set(MEMORY, Stamp::of(place.memory())?);
    stamps.write(&dir)?;
    sync_dir(place.memory().parent().unwrap_or(Path::new("/")))?;
    sync_dir(place.parent())?;
    rename_new(&dir.join(STATE), place.state())?;
    sync_dir(place.parent())?;
    sync_dir(&dir)
}

/// What is left to do for a snapshot that is whole.
pub(super) fn settle(place: &Place) -> Result<()> {
    owner::remove(&place.dir())
}

/// Removes a whole snapshot, of this VM, whose directory's lock is held. It is owned again while
/// that goes on: so what an interruption leaves is found, as the rest of one in the making is.
pub(super) fn give_up(place: &Place, vm: &VmId) -> Result<()> {
    let dir = place.dir();
    // In no VM's ledger: the rest is nobody's but the collector's.
    owner::mark(&dir, &Owner::of(vm.as_str(), &dir)?)?;
    remove_file(place.state())?;
    remove_file(place.memory())?;
    remove_claimed(&dir)
}

/// Removes a snapshot of this owner's that isn't whole; one that is stays.
pub(crate) fn give_back(place: &Place, made_parent: bool, who: &Owner) -> Result<()> {
    // Without an owner file it was claimed just now, and holds nothing yet.
    let is_ours = |dir: &Path, unmarked: bool| match Owner::read(dir) {
        Ok(owner) => Ok(owner.map_or(unmarked, |owner| owner == *who)),
        Err(e) => Err(e),
    };
    let work = place.work();
    if is_ours(&place.dir(), false)? {
        remove_named(place, made_parent)
    } else if work.symlink_metadata().is_ok() && is_ours(&work, true)? {
        remove_work(place)?;
        remove_parent(place, made_parent);
        Ok(())
    } else {
        Ok(())
    }
}

/// Removes what the dead maker of a snapshot left here, whoever that was; one that is whole
/// stays. Returns whether there is anything to do, which `dry_run` leaves.
pub(super) fn collect(place: &Place, made_parent: bool, dry_run: bool) -> Result<bool> {
    let (work, dir) = (place.work(), place.dir());
    let (begun, named) = (work.is_dir(), dir.join(owner::FILE).exists());
    if !begun && !named {
        return Ok(false);
    }
    let there = if begun { &work } else { &dir };
    if usage::is_locked(there)? || Owner::read(there)?.is_some_and(|it| is_known_to(&it, place)) {
        return Ok(false);
    }
    if !dry_run && begun {
        remove_work(place)?;
        remove_parent(place, made_parent);
    } else if !dry_run {
        remove_named(place, made_parent)?;
    }
    Ok(true)
}

/// Whether the claim stands in its VM's ledger: whoever mends that VM gives it back.
fn is_known_to(owner: &Owner, place: &Place) -> bool {
    let ledger = owner.runtime_dir().join(owner.vm()).join(file::LEDGER);
    let Ok(Some(ledger)) = Ledger::open(&ledger) else {
        return false;
    };
    ledger.entries().iter().any(|entry| {
        !entry.undone
            && matches!(&entry.step, Step::ClaimSnapshot { state, .. } if state == place.state())
    })
}

/// A snapshot whose directory has its name, but maybe not all else.
fn remove_named(place: &Place, made_parent: bool) -> Result<()> {
    let dir = place.dir();
    if !dir.join(STATE).exists() && place.state().symlink_metadata().is_ok() {
        return settle(place);
    }
    // Whether the memory has its name already: only ours is removed.
    let ours = Stamps::read(&dir);
    if let (Some(ours), Ok(there)) = (ours.get(MEMORY), Stamp::of(place.memory()))
        && ours.same_file(&there)
    {
        remove_file(place.memory())?;
    }
    remove_file(&place.memory_work())?;
    remove_claimed(&dir)?;
    remove_parent(place, made_parent);
    Ok(())
}

fn remove_work(place: &Place) -> Result<()> {
    remove_file(&place.memory_work())?;
    remove_claimed(&place.work())
}

fn remove_parent(place: &Place, made_parent: bool) {
    if made_parent {
        // Only if nothing else is in it by now.
        let _others_are_there = std::fs::remove_dir(place.parent());
    }
}

/// The owner file goes last: until then the directory is known to be ours.
fn remove_claimed(dir: &Path) -> Result<()> {
    let failed = |e| Error::io("removing", dir, e);
    for entry in std::fs::read_dir(dir).map_err(failed)? {
        let entry = entry.map_err(failed)?;
        if entry.file_name() == owner::FILE {
            continue;
        }
        if entry.file_type().map_err(failed)?.is_dir() {
            std::fs::remove_dir_all(entry.path()).map_err(failed)?;
        } else {
            remove_file(&entry.path())?;
        }
    }
    owner::remove(dir)?;
    std::fs::remove_dir(dir).map_err(failed)
}

fn remove_file(path: &Path) -> Result<()> {
    match std::fs::remove_file(path) {
        Err(e) if e.kind() != std::io::ErrorKind::NotFound => Err(Error::io("removing", path, e)),
        _ => Ok(()),
    }
}

fn rename_new(from: &Path, to: &Path) -> Result<()> {
    renameat_with(CWD, from, CWD, to, RenameFlags::NOREPLACE)
        .map_err(|e| Error::io(&format!("renaming {} to", from.display()), to, e))
}
