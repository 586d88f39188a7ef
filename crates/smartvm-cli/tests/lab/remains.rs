//! What a test that failed would leave running.

use std::path::Path;

use rustix::process::Signal;
use smartvm::process::ProcessId;

/// Ends the processes that belong to a directory of a test's own: those that work below it, and
/// those that were told of it. A test that went well has ended them itself.
pub(crate) fn end_all_of(root: &Path) {
    // One that ends another's work may have begun new ones meanwhile.
    for _ in 0..3 {
        let ended = processes_of(root)
            .into_iter()
            .filter(|pid| end(*pid))
            .count();
        if ended == 0 {
            return;
        }
    }
}

/// Processes that work below this directory, and those whose arguments name it.
fn processes_of(root: &Path) -> Vec<u32> {
    let name = root.as_os_str().as_encoded_bytes();
    let is_of = |pid: &u32| {
        let proc = Path::new("/proc").join(pid.to_string());
        let told = std::fs::read(proc.join("cmdline")).unwrap_or_default();
        let cwd = std::fs::read_link(proc.join("cwd"));
        told.windows(name.len()).any(|part| part == name)
            || cwd.is_ok_and(|cwd| cwd.starts_with(root))
    };
    let pids = std::fs::read_dir("/proc").into_iter().flatten().flatten();
    let pids = pids.filter_map(|entry| entry.file_name().to_str()?.parse().ok());
    pids.filter(|pid| *pid != std::process::id() && is_of(pid))
        .collect()
}

fn end(pid: u32) -> bool {
    let process = ProcessId::of(pid).ok().flatten();
    let open = process.and_then(|process| process.open().ok().flatten());
    open.is_some_and(|open| {
        let asked = open.signal(Signal::KILL).is_ok();
        asked && open.wait(std::time::Duration::from_secs(10)).is_ok()
    })
}
