//! A user and a group id for each VM, leased from a range: one file for each, under a lock.

use std::collections::hash_map::DefaultHasher;
use std::hash::{Hash, Hasher};
use std::path::Path;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::durable;
use crate::error::{Error, ErrorKind, Result};
use crate::spec::IdRange;
use crate::step::Owner;
use crate::storage::lock::{FileLock, Sharing};

const FORMAT: u32 = 1;
const LOCK: &str = "lock";
/// How long others may take: each holds the lock for some milliseconds.
const PATIENCE: Duration = Duration::from_secs(30);

/// The user and the group that one VM's Firecracker runs as.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Ids {
    /// The user.
    pub uid: u32,
    /// The group.
    pub gid: u32,
}

/// Takes ids that no live VM has. Where the search begins depends on the VM, so that what
/// one VM's user may have left is not soon another's, and VMs of other data directories
/// hardly ever get the same.
pub(super) fn lease(
    dir: &Path,
    uids: IdRange,
    gids: IdRange,
    vm: &str,
    runtime_dir: &Path,
) -> Result<Ids> {
    let _lock = lock(dir)?;
    let count = uids.count.min(gids.count);
    let owner = Owner::of(vm, runtime_dir)?;
    for number in 0..count {
        let offset = (start(vm, runtime_dir, count) + u64::from(number)) % u64::from(count);
        // Below `count`, which is a u32.
        let offset = offset as u32;
        let ids = Ids {
            uid: uids.first + offset,
            gid: gids.first + offset,
        };
        let file = dir.join(format!("{}.json", ids.uid));
        if holder(&file)?.is_some_and(|holder| holder.is_live()) {
            continue;
        }
        // A restart of the host ends the VM, and so the lease.
        durable::write_until_restart(&file, FORMAT, &owner)?;
        return Ok(ids);
    }
    let message = format!("all {count} user ids from {} on are taken", uids.first);
    Err(Error::new(ErrorKind::Host, message)
        .hint("end some VMs, or widen jail.uidRange and jail.gidRange"))
}

/// Gives back what the VM holds, whether it is known which ids these are or not.
pub(super) fn give_back(dir: &Path, vm: &str, runtime_dir: &Path) -> Result<()> {
    if !dir.exists() {
        return Ok(());
    }
    let _lock = lock(dir)?;
    let entries = std::fs::read_dir(dir).map_err(|e| Error::io("reading", dir, e))?;
    for entry in entries.flatten() {
        let path = entry.path();
        if path.extension().is_none_or(|ext| ext != "json") {
            continue;
        }
        if holder(&path)?.is_some_and(|owner| owner.is_of(vm, runtime_dir)) {
            std::fs::remove_file(&path).map_err(|e| Error::io("giving back", &path, e))?;
        }
    }
    Ok(())
}

/// Who has the lease in this file, if that was written since the host was started.
fn holder(file: &Path) -> Result<Option<Owner>> {
    match durable::read_state(file, FORMAT) {
        Err(_) if durable::of_another_boot(file) => Ok(None),
        read => read,
    }
}

fn start(vm: &str, runtime_dir: &Path, count: u32) -> u64 {
    let mut hasher = DefaultHasher::new();
    (vm, runtime_dir).hash(&mut hasher);
    hasher.finish() % u64::from(count)
}

pub(super) fn lock(dir: &Path) -> Result<FileLock> {
    durable::private_dir(dir)?;
    FileLock::wait(&dir.join(LOCK), Sharing::Alone, PATIENCE, &|| false)
}

#[cfg(test)]
mod tests {
    use std::time::SystemTime;

    use super::*;

    fn range(first: u32, count: u32) -> IdRange {
        IdRange { first, count }
    }

    #[test]
    fn live_vms_never_share_an_id_and_dead_ones_give_theirs_back() {
        let dir = tempfile::tempdir().unwrap();
        let (run, leases) = (dir.path().join("run"), dir.path().join("leases"));
        let lease = |vm: &str| {
            std::fs::create_dir_all(run.join(vm)).unwrap();
            super::lease(&leases, range(100, 3), range(500, 3), vm, &run)
        };
        let mut ids: Vec<_> = ["a", "b", "c"].map(|vm| lease(vm).unwrap()).into();
        ids.sort_by_key(|ids| ids.uid);
        let expected = [(100, 500), (101, 501), (102, 502)].map(|(uid, gid)| Ids { uid, gid });
        assert_eq!(ids, expected);
        let refused = lease("d").unwrap_err();
        assert!(refused.to_string().contains("all 3 user ids"), "{refused}");
        give_back(&leases, "b", &run).unwrap();
        give_back(&leases, "b", &run).unwrap();
        lease("d").unwrap();
        // It died without giving back: its run dir is gone.
        std::fs::remove_dir(run.join("a")).unwrap();
        let taken = lease("e").unwrap();
        assert!(lease("f").is_err());
        // What a host that went down may leave.
        let file = leases.join(format!("{}.json", taken.uid));
        std::fs::write(&file, "").unwrap();
        assert!(lease("f").is_err());
        let damaged = std::fs::File::options().write(true).open(&file).unwrap();
        damaged.set_modified(SystemTime::UNIX_EPOCH).unwrap();
        give_back(&leases, "nobody", &run).unwrap();
        assert_eq!(lease("f").unwrap(), taken);
    }
}
