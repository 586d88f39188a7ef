//! One effect on the host with its undo.
//!
//! The set is closed: what isn't a [`Step`] leaves no trace on the host. Undoing is
//! idempotent, and harmless for a step that was begun but never took effect.

mod file;
pub(crate) mod owner;
pub(crate) mod process;
mod words;

use std::fs::File;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

pub(crate) use file::make_fifo;
pub(crate) use owner::Owner;

use crate::error::{Error, ErrorKind, Result};
use crate::firecracker::jailer::Jailer;
use crate::jail::{self, Bind, Ids, JailStep};
use crate::keeper::{Launch, Link, Pump};
use crate::network::Network;
use crate::process::ProcessId;
use crate::snapshot::{Place, claim, merge, usage};
use crate::storage::lock::FileLock;
use crate::wiring::{Lease, NetworkStep};

/// One effect on the host.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(tag = "do", rename_all = "camelCase", rename_all_fields = "camelCase")]
#[non_exhaustive]
pub enum Step {
    /// Makes a directory of mode 0700 that wasn't there.
    MakeDir {
        /// The directory.
        path: PathBuf,
    },
    /// Makes a directory outside the runtime directory, with an owner file in it, so that
    /// it is found after a crash or a reboot.
    ClaimDir {
        /// The directory.
        path: PathBuf,
        /// The VM that it belongs to.
        vm: String,
        /// The runtime directory that the VM belongs to.
        runtime_dir: PathBuf,
    },
    /// Makes a symbolic link, so that Firecracker finds a file by a short relative path.
    Link {
        /// The link.
        path: PathBuf,
        /// Where it points.
        target: PathBuf,
    },
    /// Makes a named pipe of mode 0600.
    MakeFifo {
        /// The pipe.
        path: PathBuf,
    },
    /// Makes a file of the user's (log, metrics) where it is missing. It stays.
    EnsureFile {
        /// The file.
        path: PathBuf,
    },
    /// Copies a drive for this VM alone: a reflink where the file system can, otherwise a
    /// copy that keeps holes.
    StageDrive {
        /// The drive's id.
        drive_id: String,
        /// The image as the user gave it.
        source: PathBuf,
        /// The copy.
        target: PathBuf,
    },
    /// Claims the place of a snapshot that is to be made. Firecracker then writes there.
    ClaimSnapshot {
        /// Its state file.
        state: PathBuf,
        /// Its memory file.
        memory: PathBuf,
        /// Whether the state file's directory has to be made.
        makes_parent: bool,
        /// Whether the VM runs on afterwards.
        resume: bool,
        /// The VM.
        vm: String,
        /// The runtime directory that the VM belongs to.
        runtime_dir: PathBuf,
    },
    /// Writes down that a VM needs a snapshot, which can't be removed from then on.
    UseSnapshot {
        /// The snapshot's directory.
        dir: PathBuf,
        /// The snapshot's id.
        id: String,
        /// The VM.
        vm: String,
        /// The runtime directory that the VM belongs to.
        runtime_dir: PathBuf,
    },
    /// Merges the memory of a diff with that of its parents; once for all who restore it.
    MergeMemory {
        /// The full memory, then each diff.
        layers: Vec<PathBuf>,
        /// The whole memory.
        target: PathBuf,
    },
    /// Reserves the path of a socket that Firecracker will bind and leave behind.
    ReserveSocket {
        /// The socket.
        path: PathBuf,
    },
    /// An effect on the host's network.
    Network(NetworkStep),
    /// Confines the VM.
    Jail(JailStep),
    /// Starts Firecracker, as the keeper's child, in its root: the run dir or the chroot.
    SpawnVmm {
        /// The executable.
        executable: PathBuf,
        /// Its arguments.
        args: Vec<String>,
        /// Its working directory, by which an unrecorded process is found again.
        directory: PathBuf,
        /// The jailer that starts it, where it is jailed.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        jailer: Option<Jailer>,
        /// The cgroup that it is put into.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        cgroup: Option<PathBuf>,
        /// Pipes in its root whose content the keeper moves into files of the user's.
        #[serde(default, skip_serializing_if = "Vec::is_empty")]
        pumps: Vec<Pump>,
    },
}

/// What a step came to, where its undo needs to know.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Outcome {
    /// The process that was started.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub process: Option<ProcessId>,
    /// What was leased.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub lease: Option<Lease>,
    /// The user and group that were leased.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ids: Option<Ids>,
    /// The file that is to be bound into the jail.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub bind: Option<Bind>,
    /// The sockets that are to be bound into the jail.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub listeners: Vec<Bind>,
}

impl Outcome {
    /// What is to be bound into the jail.
    pub(crate) fn into_binds(self) -> impl Iterator<Item = Bind> {
        self.bind.into_iter().chain(self.listeners)
    }
}

/// What steps need from whoever does them.
pub struct Hands<'a> {
    /// The VM's keeper, which starts its Firecracker; steps at run time have none.
    pub keeper: Option<&'a mut Link>,
    /// The network that the VM may join; steps at run time have none.
    pub network: Option<&'a Network>,
    /// Whether the work should end now.
    pub cancelled: &'a dyn Fn() -> bool,
    /// What the steps before came to: leased ids.
    pub before: &'a [Outcome],
    /// The files of TAP devices that were made. To close one takes the kernel longer than most
    /// steps: it is done while Firecracker starts, and before it is told of them.
    pub open: &'a mut Vec<File>,
}

impl Hands<'_> {
    /// The VM's own user and group, once they are leased.
    pub fn leased_ids(&self) -> Option<Ids> {
        self.before.iter().find_map(|outcome| outcome.ids)
    }

    pub(crate) fn ids(&self) -> Result<Ids> {
        self.leased_ids().ok_or_else(jail::no_ids)
    }
}

impl Step {
    /// Does it.
    pub fn apply(&self, hands: &mut Hands<'_>) -> Result<Outcome> {
        match self {
            Self::MakeDir { path } => file::make_dir(path)?,
            Self::ClaimDir {
                path,
                vm,
                runtime_dir,
            } => file::claim_dir(path, vm, runtime_dir)?,
            Self::Link { path, target } => file::link(path, target)?,
            Self::MakeFifo { path } => file::make_fifo(path)?,
            Self::EnsureFile { path } => file::ensure_file(path)?,
            Self::StageDrive {
                drive_id,
                source,
                target,
            } => {
                file::stage_drive(drive_id, source, target, hands.cancelled)?;
            }
            Self::ClaimSnapshot { .. } => drop(self.claim_snapshot()?),
            Self::UseSnapshot {
                dir,
                id,
                vm,
                runtime_dir,
            } => usage::begin(dir, id, vm, runtime_dir)?,
            Self::MergeMemory { layers, target } => {
                merge::merge(layers, target, hands.cancelled)?;
            }
            Self::ReserveSocket { path } => file::reserve_socket(path)?,
            Self::Network(step) => {
                let network = hands.network.ok_or_else(|| {
                    Error::new(ErrorKind::WrongState, "only a VM's start joins the network")
                })?;
                let user = hands.leased_ids().map(|ids| ids.uid);
                return step.apply_for_vm(network, user, hands.open);
            }
            Self::Jail(step) => return step.apply(hands),
            Self::SpawnVmm {
                executable,
                args,
                directory,
                jailer,
                cgroup,
                pumps,
            } => {
                let mut launch = Launch {
                    executable: executable.clone(),
                    args: args.clone(),
                    directory: directory.clone(),
                    cgroup: cgroup.clone(),
                    pid_file: None,
                    pumps: pumps.clone(),
                };
                if let Some(jailer) = jailer {
                    launch.executable = jailer.executable.clone();
                    launch.args = jailer.arguments(executable, hands.ids()?, args)?;
                    launch.pid_file = jailer
                        .new_pid_ns
                        .then(|| Jailer::pid_file(executable, directory));
                }
                let keeper = hands.keeper.as_mut().ok_or_else(|| {
                    Error::new(
                        ErrorKind::WrongState,
                        "only a VM's start starts Firecracker",
                    )
                })?;
                let process = keeper.spawn_vmm(launch)?;
                return Ok(Outcome {
                    process: Some(process),
                    ..Outcome::default()
                });
            }
        }
        Ok(Outcome::default())
    }

    /// Does a [`Step::ClaimSnapshot`], for which no hands are needed; returns what its maker
    /// holds.
    pub(crate) fn claim_snapshot(&self) -> Result<Option<FileLock>> {
        let Self::ClaimSnapshot {
            state,
            memory,
            makes_parent,
            vm,
            runtime_dir,
            ..
        } = self
        else {
            return Ok(None);
        };
        let place = Place::new(state, memory)?;
        claim::claim(&place, *makes_parent, &Owner::of(vm, runtime_dir)?).map(Some)
    }

    /// Whether all that it makes is in this directory, and given back with that.
    pub(crate) fn is_only_in(&self, dir: &Path) -> bool {
        match self {
            Self::MakeDir { path }
            | Self::Link { path, .. }
            | Self::MakeFifo { path }
            | Self::ReserveSocket { path }
            | Self::StageDrive { target: path, .. } => path.starts_with(dir),
            _ => false,
        }
    }

    /// Gives it back, whether it was done in full, in part or not at all.
    pub fn undo(&self, outcome: Option<&Outcome>) -> Result<()> {
        match self {
            Self::MakeDir { path } => file::remove_dir(path),
            Self::ClaimDir {
                path,
                vm,
                runtime_dir,
            } => file::give_back_dir(path, vm, runtime_dir),
            Self::Link { path, .. } | Self::MakeFifo { path } => file::remove(path),
            Self::StageDrive { target, .. } => file::remove(target),
            Self::EnsureFile { .. } => Ok(()),
            Self::ClaimSnapshot {
                state,
                memory,
                makes_parent,
                vm,
                runtime_dir,
                ..
            } => {
                let place = Place::new(state, memory)?;
                claim::give_back(&place, *makes_parent, &Owner::of(vm, runtime_dir)?)
            }
            Self::UseSnapshot {
                dir,
                vm,
                runtime_dir,
                ..
            } => usage::end(dir, vm, runtime_dir),
            Self::MergeMemory { target, .. } => merge::give_back(target),
            Self::ReserveSocket { path } => file::remove_socket(path),
            Self::Network(step) => step.undo(outcome),
            Self::SpawnVmm {
                executable,
                directory,
                jailer,
                ..
            } => {
                let known = outcome.and_then(|outcome| outcome.process.as_ref());
                let mut executables = vec![executable.clone()];
                if let Some(jailer) = jailer {
                    let name = executable.file_name().unwrap_or_default();
                    executables.extend([jailer.executable.clone(), directory.join(name)]);
                }
                process::end(known, &executables, directory)
            }
            Self::Jail(step) => step.undo(),
        }
    }
}
