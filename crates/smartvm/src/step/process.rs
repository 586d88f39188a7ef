//! Ending a VM's Firecracker, also one whose pid was never recorded.

use std::path::Path;
use std::time::Duration;

use rustix::process::Signal;

use crate::error::{Error, ErrorKind, Result};
use crate::process::ProcessId;

/// How long a killed process may take to be gone: tearing down much guest memory takes a
/// while on a busy host.
const PATIENCE: Duration = Duration::from_secs(30);

/// Kills the process and waits until it is dead. Without a record of it, it is looked for:
/// the process with this executable that works in this directory, which is one VM's alone.
pub(super) fn end(known: Option<&ProcessId>, executable: &Path, directory: &Path) -> Result<()> {
    match known {
        Some(process) => kill(process),
        None => find(executable, directory)?.iter().try_for_each(kill),
    }
}

fn kill(process: &ProcessId) -> Result<()> {
    let Some(pidfd) = process.open()? else {
        return Ok(());
    };
    pidfd.signal(Signal::KILL)?;
    if pidfd.wait(PATIENCE)? {
        return Ok(());
    }
    Err(Error::new(
        ErrorKind::Timeout,
        format!(
            "Firecracker (pid {}) was killed and is not dead after {PATIENCE:?}",
            process.pid
        ),
    )
    .hint("it may wait for a device that doesn't answer; `smartvm gc` tries again"))
}

/// The processes with this executable whose working directory is this one.
pub(crate) fn find(executable: &Path, directory: &Path) -> Result<Vec<ProcessId>> {
    let mut found = Vec::new();
    let entries = std::fs::read_dir("/proc")
        .map_err(|e| Error::io("looking for processes in", "/proc", e))?;
    for entry in entries.flatten() {
        let name = entry.file_name();
        let Some(pid) = name.to_str().and_then(|name| name.parse::<u32>().ok()) else {
            continue;
        };
        let proc = entry.path();
        let works_there = std::fs::read_link(proc.join("cwd")).is_ok_and(|cwd| cwd == directory);
        // Between fork and exec the executable is still the keeper's.
        let runs_it = std::fs::read_link(proc.join("exe")).is_ok_and(|exe| exe == executable);
        if works_there && runs_it {
            found.extend(ProcessId::of(pid)?);
        }
    }
    Ok(found)
}
