//! Another file behind a drive of a running VM.

use std::path::{Path, PathBuf};

use super::blocking;
use super::held::Held;
use super::update::{find_drive, still_valid};
use crate::error::{Error, ErrorKind, Result};
use crate::firecracker::Client;
use crate::firecracker::model::DriveUpdate;
use crate::jail::{self, JailStep};
use crate::ledger::Ledger;
use crate::plan::{self, Root, Swap, Swapped};
use crate::rundir::{RunDir, file};
use crate::step::{Hands, Step};

pub(super) async fn swap(
    run_dir: RunDir,
    mut client: Client,
    mut held: Held,
    drive_id: &str,
    new: PathBuf,
) -> Result<()> {
    let index = find_drive(held.state(), drive_id)?;
    let new = std::path::absolute(&new).map_err(|e| Error::io("finding", &new, e))?;
    let drive = &mut held.change().spec.drives[index];
    let Some(old) = drive.path_on_host.replace(new.clone()) else {
        let message = format!("drive {drive_id} is a vhost-user device");
        return Err(Error::new(ErrorKind::Invalid, message)
            .hint("the process behind its socket decides what is in it"));
    };
    let read_only = drive.read_only();
    still_valid(held.state())?;
    let seen = held.state().paths.drives[index].clone();
    let (root, vmm) = (held.state().root(&run_dir), held.state().vmm.clone());
    let (id, jailed) = (drive_id.to_owned(), root.is_jail());
    let (swap, mut ledger, first) = blocking(move || {
        let ledger_path = run_dir.file(file::LEDGER);
        let mut ledger = Ledger::open(&ledger_path)?.ok_or_else(|| {
            Error::new(ErrorKind::Corrupt, "the VM has no ledger").at(&ledger_path)
        })?;
        let first = ledger.entries().len();
        let what = Swapped {
            drive_id: &id,
            seen: &seen,
            leads_to: leads_to(&ledger, &root, &root.file(&seen)),
            files: (&old, &new),
            writable: !read_only,
        };
        let swap = plan::swap(&root, what, first);
        crate::host::check_drive(&new, !read_only && !swap.staged)?;
        let before = ledger.entries().iter();
        let before: Vec<_> = before.filter_map(|entry| entry.outcome.clone()).collect();
        let mut binds = Vec::new();
        let done = swap.steps.iter().try_for_each(|step| {
            let mut hands = Hands {
                keeper: None,
                network: None,
                cancelled: &|| false,
                before: &before,
                open: &mut Vec::new(),
            };
            ledger.run(step, |step| {
                let outcome = step.apply(&mut hands)?;
                binds.extend(outcome.clone().into_binds());
                Ok(outcome)
            })
        });
        let done = done.and_then(|()| match &vmm {
            Some(vmm) => jail::mounts::bind_into(vmm, root.path(), &binds),
            None => Ok(()),
        });
        match done {
            Ok(()) => Ok((swap, ledger, first)),
            Err(e) => Err(e.with_cleanup(give_back(&mut ledger, |number, _| number >= first))),
        }
    })
    .await?;
    let request = DriveUpdate {
        drive_id,
        path_on_host: Some(&swap.path),
        rate_limiter: None,
    };
    if let Err(e) = client.send(&request.request()?).await {
        // Without an answer it isn't known which file Firecracker has: both stay until the end.
        if e.kind() != ErrorKind::Vmm {
            return Err(e);
        }
        let cleanup =
            blocking(move || Ok(give_back(&mut ledger, |number, _| number >= first))).await;
        return Err(e.with_cleanup(cleanup.unwrap_or_else(|e| vec![e])));
    }
    held.change().paths.drives[index] = swap.path.clone();
    held.done().await?;
    let left = blocking(move || {
        let mut left = give_back(&mut ledger, |number, step| {
            number < first && swap.replaces(step)
        });
        if jailed {
            // What is bound there goes with the place.
            let removed = std::fs::remove_file(&swap.old_path);
            let failed = removed
                .err()
                .filter(|e| e.kind() != std::io::ErrorKind::NotFound);
            left.extend(failed.map(|e| Error::io("removing", &swap.old_path, e)));
        }
        Ok(left)
    })
    .await?;
    match left.into_iter().next() {
        Some(e) => Err(e),
        None => Ok(()),
    }
}

/// Which of the user's files Firecracker has, or has a copy of, where it sees this one; `None` where
/// no step tells.
pub(super) fn users_file(ledger: &Ledger, root: &Root, seen: &str) -> Option<PathBuf> {
    let place = root.file(seen);
    let leads_to = leads_to(ledger, root, &place);
    let file = leads_to.as_ref().unwrap_or(&place);
    let copied = ledger.entries().iter().find_map(|entry| match &entry.step {
        Step::StageDrive { source, target, .. } if target == file && !entry.undone => {
            Some(source.clone())
        }
        _ => None,
    });
    copied.or(leads_to)
}

/// Where the file at this place leads to; nowhere where it is there itself.
fn leads_to(ledger: &Ledger, root: &Root, place: &Path) -> Option<PathBuf> {
    match root.is_jail() {
        true => brought(ledger, place),
        false => std::fs::read_link(place).ok(),
    }
}

/// The file that was brought into the jail to this place.
fn brought(ledger: &Ledger, place: &Path) -> Option<PathBuf> {
    let entries = ledger.entries().iter().rev().filter(|entry| !entry.undone);
    entries
        .filter_map(|entry| match &entry.step {
            Step::Jail(JailStep::Bring { source, target, .. }) if target == place => Some(source),
            _ => None,
        })
        .next()
        .cloned()
}

fn give_back(ledger: &mut Ledger, which: impl Fn(usize, &Step) -> bool) -> Vec<Error> {
    ledger.undo_some(
        |number, entry| which(number, &entry.step),
        |entry| entry.step.undo(entry.outcome.as_ref()),
    )
}

impl Swap {
    /// Whether this step made what is no longer used.
    fn replaces(&self, step: &Step) -> bool {
        match step {
            Step::Link { path, .. } => *path == self.old_path,
            Step::StageDrive { target, .. } => *target == self.old_file,
            Step::Jail(JailStep::Bring { target, .. }) => *target == self.old_path,
            _ => false,
        }
    }
}
