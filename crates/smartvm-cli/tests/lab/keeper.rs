//! The network's keeper, which mends what a test breaks.

use std::os::unix::fs::MetadataExt;
use std::path::Path;
use std::time::Duration;

use rustix::process::Signal;
use smartvm::process::ProcessId;

use super::wait;

/// The process that keeps the network of this runtime directory.
pub(crate) fn network_keeper(runtime_dir: &Path) -> ProcessId {
    let file = runtime_dir.join(".network/keeper.json");
    let mut state: serde_json::Value =
        serde_json::from_slice(&std::fs::read(file).unwrap()).unwrap();
    let fields = state.as_object_mut().unwrap();
    fields.remove("format");
    serde_json::from_value(state).unwrap()
}

/// Stops it, so that it is there and does nothing: not while it holds the network's lock.
pub(crate) fn pause_network_keeper(runtime_dir: &Path) {
    let keeper = network_keeper(runtime_dir).open().unwrap().unwrap();
    let lock = std::fs::File::open(runtime_dir.join(".network/lock")).unwrap();
    // Whoever asks it then finds it alive.
    let inode = format!(":{} ", lock.metadata().unwrap().ino());
    wait(|| {
        let locks = std::fs::read_to_string("/proc/locks").unwrap();
        locks
            .lines()
            .any(|one| one.contains("OFDLCK") && one.contains(&inode))
    });
    wait(|| {
        keeper.signal(Signal::STOP).unwrap();
        // Stopping takes effect when its thread next leaves the kernel.
        std::thread::sleep(Duration::from_millis(20));
        let free = lock.try_lock().is_ok();
        if !free {
            keeper.signal(Signal::CONT).unwrap();
        }
        free
    });
}

/// Lets it go on.
pub(crate) fn resume_network_keeper(runtime_dir: &Path) {
    let keeper = network_keeper(runtime_dir).open().unwrap().unwrap();
    keeper.signal(Signal::CONT).unwrap();
}
