//! One VM's directory below the chroot base. The jailer makes the rest of it and leaves it
//! all behind.

use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};

use rustix::fs::{AtFlags, CWD, StatVfsMountFlags, StatxAttributes, StatxFlags};
use serde::{Deserialize, Serialize};

use crate::durable;
use crate::error::{Error, Result};
use crate::step::owner::{self, Owner};
use crate::storage::checksum::sha256_of;

/// The chroot in a VM's directory, as the jailer names it.
pub(super) const ROOT: &str = "root";

/// The format of a note.
const FORMAT: u32 = 1;
/// What the names of notes begin with.
const NOTE: &str = ".elsewhere-";

/// That there are chroots below a base of somebody's choice.
#[derive(Serialize, Deserialize)]
struct Note {
    base: PathBuf,
}

/// Where it is written down, in the standard base, that there are chroots below another one.
pub(crate) fn note(standard: &Path, base: &Path) -> Option<PathBuf> {
    let key = sha256_of(base.as_os_str().as_encoded_bytes());
    (base != standard).then(|| standard.join(format!("{NOTE}{}.json", &key[..16])))
}

/// All bases that have chroots: the standard one, and those that are written down there.
pub(crate) fn bases(standard: &Path) -> Vec<(PathBuf, Option<PathBuf>)> {
    let mut bases = vec![(standard.to_owned(), None)];
    for path in entries(standard) {
        let name = path.file_name().unwrap_or_default().to_string_lossy();
        if name.starts_with(NOTE)
            && let Ok(Some(note)) = durable::read_state::<Note>(&path, FORMAT)
        {
            bases.push((note.base, Some(path)));
        }
    }
    bases
}

pub(super) fn make(path: &Path, vm: &str, runtime_dir: &Path, note: Option<&Path>) -> Result<()> {
    let _lock = match note {
        Some(note) => {
            let base = base_of(path);
            let lock = super::ids::lock(&super::leases(base))?;
            if let Some(standard) = note.parent() {
                durable::private_dir(standard)?;
            }
            let known = durable::read_state::<Note>(note, FORMAT);
            if !known.is_ok_and(|known| known.is_some_and(|known| known.base == base)) {
                let base = base.to_owned();
                durable::write_state(note, FORMAT, &Note { base })?;
            }
            Some(lock)
        }
        None => None,
    };
    if let Some(parent) = path.parent() {
        durable::private_dir(parent)?;
    }
    owner::make_dir(path)?;
    // What is left of it by a host that went down is an orphan by its age.
    owner::mark_until_restart(path, &Owner::of(vm, runtime_dir)?)?;
    make_dir(&path.join(ROOT))
}

/// A directory that everybody may enter: those above it are root's alone, and the jailed
/// Firecracker sees it only from inside.
pub(super) fn make_dir(path: &Path) -> Result<()> {
    std::fs::DirBuilder::new()
        .mode(0o755)
        .create(path)
        .map_err(|e| Error::io("making directory", path, e))
}

fn base_of(path: &Path) -> &Path {
    path.ancestors().nth(2).unwrap_or(Path::new("/"))
}

fn entries(dir: &Path) -> Vec<PathBuf> {
    let entries = std::fs::read_dir(dir).into_iter().flatten().flatten();
    entries.map(|entry| entry.path()).collect()
}

/// The directories of VMs below a base.
fn of_vms(base: &Path) -> impl Iterator<Item = PathBuf> {
    let ours = |path: &PathBuf| {
        let name = path.file_name().unwrap_or_default();
        !name.as_encoded_bytes().starts_with(b".")
    };
    let executables = entries(base).into_iter().filter(ours);
    executables.flat_map(|dir| entries(&dir))
}

/// Removes the VM's directory, and the note of its base with the last one there.
pub(super) fn remove(path: &Path, vm: &str, runtime_dir: &Path, note: Option<&Path>) -> Result<()> {
    with_note(path, note, || remove_dir(path, vm, runtime_dir))
}

/// Removes something below a base by `remove`, and the base's note with the last VM there.
fn with_note(path: &Path, note: Option<&Path>, remove: impl FnOnce() -> Result<()>) -> Result<()> {
    let base = base_of(path);
    let Some(note) = note.filter(|_| base.exists()) else {
        return remove();
    };
    let _lock = super::ids::lock(&super::leases(base))?;
    remove()?;
    if of_vms(base).next().is_none()
        && let Err(e) = std::fs::remove_file(note)
        && e.kind() != std::io::ErrorKind::NotFound
    {
        return Err(Error::io("removing", note, e));
    }
    Ok(())
}

/// Removes the VM's directory. Its processes are dead by now, and mounts there were in their
/// mount namespace only.
fn remove_dir(path: &Path, vm: &str, runtime_dir: &Path) -> Result<()> {
    let owner = match Owner::read(path) {
        Ok(Some(owner)) => Some(owner),
        // It was lost with the host.
        Ok(None) | Err(_) if durable::of_another_boot(path) => return remove_whole(path),
        other => other?,
    };
    let Some(owner) = owner else {
        // Begun, and not claimed: it is empty, or not ours.
        return match std::fs::remove_dir(path) {
            Err(e) if e.kind() != std::io::ErrorKind::NotFound => {
                Err(Error::io("removing directory", path, e))
            }
            _ => Ok(()),
        };
    };
    if !owner.is_of(vm, runtime_dir) {
        return Err(owner.refuse(path));
    }
    remove_whole(path)
}

fn remove_whole(path: &Path) -> Result<()> {
    // The owner file goes last: a removal that was interrupted is found again by it.
    let root = path.join(ROOT);
    match std::fs::remove_dir_all(&root) {
        Err(e) if e.kind() != std::io::ErrorKind::NotFound => {
            return Err(Error::io("removing chroot", &root, e));
        }
        _ => {}
    }
    std::fs::remove_dir_all(path).map_err(|e| Error::io("removing directory", path, e))
}

/// The directory of a VM that is gone: left by a host that went down, or with its run dir.
#[derive(Debug)]
pub(crate) struct Orphan {
    path: PathBuf,
    /// `None`: the host went down before it was written.
    owner: Option<Owner>,
}

/// Those below this base.
pub(crate) fn orphans(base: &Path) -> Vec<Orphan> {
    let judge = |path: PathBuf| match Owner::read(&path) {
        Ok(Some(owner)) => (!owner.is_live()).then_some(Orphan {
            path,
            owner: Some(owner),
        }),
        Ok(None) | Err(_) => {
            durable::of_another_boot(&path).then_some(Orphan { path, owner: None })
        }
    };
    of_vms(base).filter_map(judge).collect()
}

impl Orphan {
    /// Where it is.
    pub(crate) fn path(&self) -> &Path {
        &self.path
    }

    /// The VM's id.
    pub(crate) fn vm(&self) -> String {
        let by_name = || self.path.file_name().unwrap_or_default().to_string_lossy();
        let owner = self.owner.as_ref();
        owner.map_or_else(|| by_name().into_owned(), |owner| owner.vm().to_owned())
    }

    /// Removes it, and gives back the VM's ids.
    pub(crate) fn remove(&self, base: &Path, note: Option<&Path>) -> Result<()> {
        let Some(owner) = &self.owner else {
            // The lease of its ids is taken over by whoever gets there.
            return with_note(&self.path, note, || remove_whole(&self.path));
        };
        remove(&self.path, owner.vm(), owner.runtime_dir(), note)?;
        super::ids::give_back(&super::leases(base), owner.vm(), owner.runtime_dir())
    }
}

/// Whether processes can be given another root: that of this one has to be a mount point.
pub(crate) fn usable_root() -> Result<(), (String, &'static str)> {
    let root = rustix::fs::statx(CWD, "/", AtFlags::empty(), StatxFlags::empty());
    // Before Linux 5.8 the kernel doesn't tell.
    let is_none = root.is_ok_and(|root| {
        let point = StatxAttributes::MOUNT_ROOT;
        root.stx_attributes_mask.contains(point) && !root.stx_attributes.contains(point)
    });
    if is_none {
        return Err((
            "/ is no mount point here, as in a plain chroot".into(),
            "a root entered by pivot_root, or no jail (--jail off)",
        ));
    }
    Ok(())
}

/// Whether chroots can be below `base`: device nodes and execution are allowed there, and
/// nobody else may exchange them. It may not exist yet.
pub(crate) fn usable_base(base: &Path) -> Result<(), (String, &'static str)> {
    let existing = base.ancestors().find(|dir| dir.exists());
    let existing = existing.unwrap_or(Path::new("/"));
    let told = |what: &str| format!("{} {what}", base.display());
    let mount = rustix::fs::statvfs(existing).map_err(|e| {
        (
            told(&format!("can't be looked at: {e}")),
            "another directory",
        )
    })?;
    for (flag, what) in [
        (
            StatVfsMountFlags::NODEV,
            "is mounted nodev: a jail can't open its /dev/kvm there",
        ),
        (
            StatVfsMountFlags::NOEXEC,
            "is mounted noexec: a jail can't execute Firecracker there",
        ),
        (StatVfsMountFlags::RDONLY, "is mounted read-only"),
    ] {
        if mount.f_flag.contains(flag) {
            return Err((
                told(what),
                "a directory on another file system, usually that of the data directory",
            ));
        }
    }
    match crate::host::unsafe_part(existing, rustix::process::geteuid().as_raw()) {
        Some(part) => Err((
            told(&format!(
                "isn't safe: others may exchange what is in {}",
                part.display()
            )),
            "take the right to write away from others, up to the root directory",
        )),
        None => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use std::time::SystemTime;

    use super::*;

    #[test]
    fn a_chroot_without_an_owner_is_an_orphan_if_it_is_of_another_boot() {
        let base = tempfile::tempdir().unwrap();
        let vm = |name: &str| base.path().join("firecracker").join(name);
        for name in ["old", "damaged", "new"] {
            std::fs::create_dir_all(vm(name).join(ROOT).join("dev")).unwrap();
        }
        std::fs::write(vm("damaged").join(owner::FILE), "").unwrap();
        for name in ["old", "damaged"] {
            let dir = std::fs::File::open(vm(name)).unwrap();
            dir.set_modified(SystemTime::UNIX_EPOCH).unwrap();
        }
        let mut found = orphans(base.path());
        found.sort_by_key(Orphan::vm);
        let ids: Vec<_> = found.iter().map(Orphan::vm).collect();
        assert_eq!(ids, ["damaged", "old"]);
        found[0].remove(base.path(), None).unwrap();
        // As its ledger knows of it, where that outlived the host.
        remove(&vm("old"), "old", Path::new("/run"), None).unwrap();
        assert!(!vm("damaged").exists() && !vm("old").exists());
        remove(&vm("new"), "new", Path::new("/run"), None).unwrap_err();
        assert!(vm("new").exists());
    }
}
