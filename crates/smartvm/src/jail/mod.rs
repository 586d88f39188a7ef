//! What confines one VM's Firecracker: a user of its own, a chroot, a cgroup.
//!
//! The user's files are never changed: neither owner nor mode, nor by hard links, whose owner
//! is the file's. They are bound into the chroot in the mount namespace that the jailer makes
//! for Firecracker alone: it goes with it, so that nothing is left to unmount.

mod bring;
mod cgroup;
mod chroot;
mod ids;
mod inside;
mod listeners;
pub(crate) mod mounts;

use std::fmt;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

pub use bring::Bind;
pub use ids::Ids;

use crate::error::{Error, ErrorKind, Result};
use crate::spec::IdRange;
use crate::step::{Hands, Outcome};

pub(crate) use cgroup::enter as enter_cgroup;
pub(crate) use cgroup::settings as cgroup_settings;
pub(crate) use chroot::{Orphan, bases, note, orphans, usable_base, usable_root};
pub(crate) use inside::{Seen, look};

/// Ids that no distribution gives out: above those of containers, below the kernel's limit.
pub const DEFAULT_IDS: (u32, u32) = (1_900_000_000, 1 << 20);

/// One effect on the host that confines a VM.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(
    tag = "jail",
    rename_all = "camelCase",
    rename_all_fields = "camelCase"
)]
#[non_exhaustive]
pub enum JailStep {
    /// Leases a user and a group id for the VM.
    LeaseIds {
        /// The directory of leases.
        leases: PathBuf,
        /// User ids to take from.
        uids: IdRange,
        /// Group ids to take from, in the same order.
        gids: IdRange,
        /// The VM.
        vm: String,
        /// The runtime directory that it belongs to.
        runtime_dir: PathBuf,
    },
    /// Makes the VM's directory below the chroot base, with an owner file and the chroot.
    MakeChroot {
        /// The directory.
        path: PathBuf,
        /// The VM.
        vm: String,
        /// The runtime directory that it belongs to.
        runtime_dir: PathBuf,
        /// Where it is written down that there are chroots below this base, if it isn't the
        /// standard one.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        note: Option<PathBuf>,
    },
    /// Makes a directory in the chroot that the VM's user can read and not change.
    MakeDir {
        /// The directory.
        path: PathBuf,
    },
    /// Makes a named pipe of the VM's user.
    MakePipe {
        /// The pipe.
        path: PathBuf,
    },
    /// Brings a file, a block device or a socket of the user's into the chroot.
    Bring {
        /// What it is, for people.
        what: String,
        /// The file.
        source: PathBuf,
        /// Where the jailed Firecracker finds it.
        target: PathBuf,
        /// Whether it may write to it.
        writable: bool,
    },
    /// Brings the sockets into the chroot that listen for connections which the guest opens:
    /// those that are there when the VM starts.
    BringListeners {
        /// Where they are on the host, without `_<port>`.
        prefix: PathBuf,
        /// Where the jailed Firecracker looks for them, without `_<port>`.
        target: PathBuf,
    },
    /// Gives a copy that was made for this VM to its user.
    Own {
        /// The copy.
        path: PathBuf,
    },
    /// Makes a cgroup with limits.
    MakeCgroup {
        /// The cgroup.
        path: PathBuf,
        /// What is written into its files.
        settings: Vec<(String, String)>,
    },
}

impl JailStep {
    pub(crate) fn apply(&self, hands: &mut Hands<'_>) -> Result<Outcome> {
        let mut outcome = Outcome::default();
        match self {
            Self::LeaseIds {
                leases,
                uids,
                gids,
                vm,
                runtime_dir,
            } => outcome.ids = Some(ids::lease(leases, *uids, *gids, vm, runtime_dir)?),
            Self::MakeChroot {
                path,
                vm,
                runtime_dir,
                note,
            } => chroot::make(path, vm, runtime_dir, note.as_deref())?,
            Self::MakeDir { path } => chroot::make_dir(path)?,
            Self::MakePipe { path } => {
                crate::step::make_fifo(path)?;
                own(path, hands.ids()?)?;
            }
            Self::Bring {
                what,
                source,
                target,
                writable,
            } => {
                let ids = hands.ids()?;
                outcome.bind = bring::bring(what, source, target, *writable, ids, hands.cancelled)?;
            }
            Self::BringListeners { prefix, target } => {
                outcome.listeners = listeners::bring(prefix, target, hands.ids()?)?;
            }
            Self::Own { path } => own(path, hands.ids()?)?,
            Self::MakeCgroup { path, settings } => cgroup::make(path, settings)?,
        }
        Ok(outcome)
    }

    pub(crate) fn undo(&self) -> Result<()> {
        match self {
            Self::LeaseIds {
                leases,
                vm,
                runtime_dir,
                ..
            } => ids::give_back(leases, vm, runtime_dir),
            Self::MakeChroot {
                path,
                vm,
                runtime_dir,
                note,
            } => chroot::remove(path, vm, runtime_dir, note.as_deref()),
            Self::MakeDir { .. }
            | Self::MakePipe { .. }
            | Self::Bring { .. }
            | Self::BringListeners { .. }
            | Self::Own { .. } => Ok(()),
            Self::MakeCgroup { path, .. } => cgroup::remove(path),
        }
    }

    pub(crate) fn undo_in_words(&self) -> &'static str {
        match self {
            Self::LeaseIds { .. } => "give the ids back",
            Self::MakeChroot { .. } => "remove it with all that is in it",
            Self::MakeCgroup { .. } => "remove the cgroup",
            Self::Own { .. } => "nothing: the copy is removed",
            _ => "nothing: it goes with the chroot",
        }
    }
}

impl fmt::Display for JailStep {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::LeaseIds { uids, gids, .. } => {
                let last = |range: &IdRange| range.first + (range.count - 1);
                write!(out, "lease a user id of {} to {}", uids.first, last(uids))?;
                if uids != gids {
                    write!(out, ", a group id of {} to {}", gids.first, last(gids))?;
                }
                Ok(())
            }
            Self::MakeChroot { path, .. } => write!(out, "make chroot {}", path.display()),
            Self::MakeDir { path } => write!(out, "make directory {}", path.display()),
            Self::MakePipe { path } => write!(out, "make pipe {}", path.display()),
            Self::Bring {
                what,
                source,
                target,
                writable,
            } => {
                let how = if *writable { "" } else { ", to be read only" };
                let (source, target) = (source.display(), target.display());
                write!(out, "bring {what} from {source} to {target}{how}")
            }
            Self::BringListeners { prefix, target } => {
                let (prefix, target) = (prefix.display(), target.display());
                write!(out, "bring sockets from {prefix}_PORT to {target}_PORT")
            }
            Self::Own { path } => write!(out, "give {} to the VM's user", path.display()),
            Self::MakeCgroup { path, settings } => {
                write!(out, "make cgroup {} with", path.display())?;
                settings
                    .iter()
                    .try_for_each(|(file, value)| write!(out, " {file}={value:?}"))
            }
        }
    }
}

/// The directory of leases of ids, for all VMs below this chroot base.
pub(crate) fn leases(base: &Path) -> PathBuf {
    base.join(".ids")
}

/// The chroot in a VM's directory.
pub(crate) fn root(directory: &Path) -> PathBuf {
    directory.join(chroot::ROOT)
}

/// The group of a jail, told by its chroot, which is that group's once the jailer ran.
pub(crate) fn group_of(root: &Path) -> Result<u32> {
    use std::os::unix::fs::MetadataExt;
    let found = root.metadata();
    Ok(found.map_err(|e| Error::io("looking at", root, e))?.gid())
}

/// Gives a file of ours to the VM's user. A directory only lets the user make files in it.
pub(crate) fn own(path: &Path, ids: Ids) -> Result<()> {
    if path.symlink_metadata().is_ok_and(|it| it.is_dir()) {
        return let_in(path, ids.gid);
    }
    std::os::unix::fs::lchown(path, Some(ids.uid), Some(ids.gid))
        .map_err(|e| Error::io("giving to the VM's user", path, e))
}

/// Takes the chroot back from the VM's user, to whom the jailer gave it, before its guest runs:
/// Firecracker still makes its sockets there, and can't exchange what is ours.
pub(crate) fn seal(root: &Path) -> Result<()> {
    let_in(root, group_of(root)?)
}

fn let_in(dir: &Path, group: u32) -> Result<()> {
    use std::os::unix::fs::PermissionsExt;
    let me = rustix::process::geteuid().as_raw();
    std::os::unix::fs::lchown(dir, Some(me), Some(group))
        .and_then(|()| std::fs::set_permissions(dir, std::fs::Permissions::from_mode(0o1775)))
        .map_err(|e| Error::io("letting the VM's user into", dir, e))
}

pub(crate) fn no_ids() -> Error {
    Error::new(
        ErrorKind::Corrupt,
        "a step for a jail comes before the lease of its user",
    )
}
