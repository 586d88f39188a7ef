//! Giving back what dead VMs left: the work of keepers that were killed.

use std::path::{Path, PathBuf};
use std::time::Duration;

use serde::Serialize;

use super::SmartVm;
use super::mend::mend;
use crate::error::{Error, ErrorKind, Result};
use crate::firecracker::exit::{Ended as VmmEnded, Reason};
use crate::jail::{self, Orphan};
use crate::name::VmId;
use crate::process::{ProcessId, boot_id};
use crate::rundir::{Lock, RunDir, State, VmState};
use crate::spec::Lifetime;
use crate::teardown;

/// Whoever holds a VM's lock this long is at work on it.
const LOCK_PATIENCE: Duration = Duration::from_millis(50);

/// What [`SmartVm::gc`] found of one VM.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
#[non_exhaustive]
pub enum Finding {
    /// Its things were given back, or would be.
    GivenBack {
        /// Why it was dead.
        why: String,
    },
    /// It lives, and what was known of it was or would be corrected.
    Corrected {
        /// What was wrong.
        why: String,
    },
    /// It lives, but its keeper is gone: nobody cleans up when it ends.
    Unkept,
    /// Giving back failed, in whole or in part.
    Failed {
        /// What failed.
        why: Vec<String>,
    },
}

/// What became of one VM.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
#[non_exhaustive]
pub struct Collected {
    /// The VM's id, or the name of what was left of one.
    pub id: String,
    /// What was found.
    pub finding: Finding,
}

/// What is to be done about a VM.
enum Verdict {
    Leave,
    Unkept,
    GiveBack(Reason, String),
}

impl SmartVm {
    /// Gives back what dead VMs left: those whose owner and keeper are gone, those whose
    /// making was interrupted. On a live VM, what a dead process was at is brought to its end.
    /// With `dry_run` it only says what it would do. VMs that somebody works on are left alone;
    /// one that can't be read doesn't stop the work on the others.
    pub fn gc(&self, dry_run: bool) -> Result<Vec<Collected>> {
        let mut all = Vec::new();
        for id in self.runtime.ids()? {
            match self.collect(&id, dry_run) {
                Ok(None) => {}
                Ok(Some(finding)) => all.push(Collected {
                    id: id.to_string(),
                    finding,
                }),
                // Ended and cleaned up while we looked.
                Err(e) if e.kind() == ErrorKind::NotFound => {}
                Err(e) => all.push(failed(id.to_string(), [e])),
            }
        }
        all.extend(self.collect_chroots(dry_run));
        all.extend(self.collect_snapshots(dry_run)?);
        for path in self.runtime.leftovers()? {
            all.extend(remove_leftover(path, dry_run));
        }
        let is_there = |id: &VmId| self.runtime.run_dir(id).try_exists().unwrap_or(true);
        match self.network().collect(&is_there, dry_run) {
            Ok(found) => all.extend(found.into_iter().map(|why| Collected {
                id: "network".to_owned(),
                finding: Finding::GivenBack { why },
            })),
            Err(e) => all.push(failed("network".to_owned(), [e])),
        }
        Ok(all)
    }

    /// Snapshots whose maker was killed, or the host went down, when their VM had no part in
    /// them any more.
    fn collect_snapshots(&self, dry_run: bool) -> Result<Vec<Collected>> {
        let collected = |(state, done): (PathBuf, Result<()>)| {
            let id = "snapshot".to_owned();
            match done {
                Ok(()) => Collected {
                    id,
                    finding: Finding::GivenBack {
                        why: format!("the making of {} was interrupted", state.display()),
                    },
                },
                Err(e) => failed(id, [e]),
            }
        };
        let found = self.shelf().collect(dry_run)?;
        Ok(found.into_iter().map(collected).collect())
    }

    /// Chroots whose VM has no run dir any more: the host went down, or somebody removed it.
    fn collect_chroots(&self, dry_run: bool) -> Vec<Collected> {
        let collect = |base: &Path, note: Option<&Path>, orphan: &Orphan| {
            let path = orphan.path().display();
            let why = format!("its run dir is gone, its chroot {path} stayed");
            let id = orphan.vm();
            if !dry_run && let Err(e) = orphan.remove(base, note) {
                return failed(id, [e]);
            }
            Collected {
                id,
                finding: Finding::GivenBack { why },
            }
        };
        let mut all = Vec::new();
        for (base, note) in jail::bases(&self.chroot_base()) {
            for orphan in jail::orphans(&base) {
                all.push(collect(&base, note.as_deref(), &orphan));
            }
        }
        all
    }

    fn collect(&self, id: &VmId, dry_run: bool) -> Result<Option<Finding>> {
        let run_dir = self.runtime.get(id)?;
        let lock = match run_dir.lock(teardown::DOING, LOCK_PATIENCE) {
            Ok(lock) => lock,
            Err(e) if e.kind() == ErrorKind::WrongState => return Ok(None),
            Err(e) => return Err(e),
        };
        let (reason, why) = match judge(&run_dir)? {
            Verdict::Leave => return mend(&run_dir, &lock, dry_run),
            Verdict::Unkept => return Ok(Some(Finding::Unkept)),
            Verdict::GiveBack(reason, why) => (reason, why),
        };
        if dry_run {
            return Ok(Some(Finding::GivenBack { why }));
        }
        give_back(&run_dir, &lock, reason).map(|cleanup| {
            Some(if cleanup.is_empty() {
                Finding::GivenBack { why }
            } else {
                Finding::Failed { why: cleanup }
            })
        })
    }
}

fn give_back(run_dir: &RunDir, lock: &Lock, reason: Reason) -> Result<Vec<String>> {
    let ended = teardown::tear_down(run_dir, lock, reason, Some(VmmEnded::Unseen))?;
    Ok(ended.cleanup)
}

/// Whether a VM is dead. Its lock is held, so that nobody is just making or ending it.
fn judge(run_dir: &RunDir) -> Result<Verdict> {
    let state = match run_dir.state() {
        Ok(state) => state,
        // No state file: its maker died before it wrote one, and nothing was taken then.
        Err(e) if !run_dir.file(crate::rundir::file::STATE).exists() => {
            return Ok(Verdict::GiveBack(
                Reason::StartFailed(e.to_string()),
                e.to_string(),
            ));
        }
        Err(e) => return Err(e),
    };
    let alive = |process: &Option<ProcessId>| match process {
        Some(process) => process.is_alive(),
        None => Ok(false),
    };
    if alive(&state.keeper)? {
        return Ok(Verdict::Leave);
    }
    let VmState {
        lifetime,
        state: stage,
        ..
    } = state;
    let owner_alive = state.owner.is_alive()?;
    Ok(match (stage, lifetime) {
        // Nothing of another boot lives, and what was only created can still be started.
        (State::Created, Lifetime::Detached) => Verdict::Leave,
        _ if state.owner.boot_id != boot_id()? => {
            Verdict::GiveBack(Reason::HostRebooted, "the host was started anew".into())
        }
        (State::Created, Lifetime::Owner) if owner_alive => Verdict::Leave,
        (State::Running | State::Paused, Lifetime::Detached) if alive(&state.vmm)? => {
            Verdict::Unkept
        }
        (State::Failed, _) => {
            let why = "an earlier cleanup failed".to_owned();
            Verdict::GiveBack(Reason::Unknown, why)
        }
        _ if !owner_alive => Verdict::GiveBack(
            Reason::OwnerEnded,
            "its owner and its keeper are gone".into(),
        ),
        _ => Verdict::GiveBack(Reason::Unknown, "its keeper is gone".into()),
    })
}

/// Removes a directory whose maker died before the VM had its name: nothing was taken yet.
fn remove_leftover(path: PathBuf, dry_run: bool) -> Option<Collected> {
    let id = path
        .file_name()
        .unwrap_or_default()
        .to_string_lossy()
        .into_owned();
    let lock = std::fs::File::open(path.join(crate::rundir::file::LOCK));
    if lock.is_ok_and(|lock| lock.try_lock().is_err()) {
        return None;
    }
    let why = "its making was interrupted".to_owned();
    if dry_run {
        return Some(Collected {
            id,
            finding: Finding::GivenBack { why },
        });
    }
    Some(match std::fs::remove_dir_all(&path) {
        Ok(()) => Collected {
            id,
            finding: Finding::GivenBack { why },
        },
        Err(e) => failed(id, [Error::io("removing", path, e)]),
    })
}

fn failed(id: String, failures: impl IntoIterator<Item = Error>) -> Collected {
    let why = failures.into_iter().map(|e| e.to_string()).collect();
    Collected {
        id,
        finding: Finding::Failed { why },
    }
}
