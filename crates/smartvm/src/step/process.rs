//! Ending a VM's Firecracker, also one whose pid was never recorded.

use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::time::Duration;

use rustix::process::Signal;

use crate::error::{Error, ErrorKind, Result};
use crate::process::ProcessId;

/// How long a killed process may take to be gone: tearing down much guest memory takes a
/// while on a busy host.
const PATIENCE: Duration = Duration::from_secs(30);

/// Kills the process and waits until it is dead. Without a record of it, it is looked for:
/// the process with one of these executables that works in this directory, which is one VM's
/// alone.
pub(super) fn end(
    known: Option<&ProcessId>,
    executables: &[PathBuf],
    directory: &Path,
) -> Result<()> {
    match known {
        Some(process) => kill(process),
        None => find(executables, directory)?.iter().try_for_each(kill),
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

/// The processes with one of these executables whose working directory is this one. Files are
/// compared, not paths: a jailed process has other paths.
pub(crate) fn find(executables: &[PathBuf], directory: &Path) -> Result<Vec<ProcessId>> {
    let identity = |path: &Path| path.metadata().ok().map(|it| (it.dev(), it.ino()));
    let Some(directory) = identity(directory) else {
        return Ok(Vec::new());
    };
    let executables: Vec<_> = executables
        .iter()
        .filter_map(|path| identity(path))
        .collect();
    let mut found = Vec::new();
    let entries = std::fs::read_dir("/proc")
        .map_err(|e| Error::io("looking for processes in", "/proc", e))?;
    for entry in entries.flatten() {
        let name = entry.file_name();
        let Some(pid) = name.to_str().and_then(|name| name.parse::<u32>().ok()) else {
            continue;
        };
        let proc = entry.path();
        let works_there = identity(&proc.join("cwd")) == Some(directory);
        // Between fork and exec the executable is still the keeper's.
        if works_there && identity(&proc.join("exe")).is_some_and(|exe| executables.contains(&exe))
        {
            found.extend(ProcessId::of(pid)?);
        }
    }
    Ok(found)
}
