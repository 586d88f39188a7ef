//! The network's keeper, which mends what a test breaks.

use std::path::Path;

use rustix::process::Signal;
use smartvm::process::ProcessId;

/// The process that keeps the network of this runtime directory.
pub(crate) fn network_keeper(runtime_dir: &Path) -> ProcessId {
    let file = runtime_dir.join(".network/keeper.json");
    let mut state: serde_json::Value =
        serde_json::from_slice(&std::fs::read(file).unwrap()).unwrap();
    let fields = state.as_object_mut().unwrap();
    fields.remove("format");
    serde_json::from_value(state).unwrap()
}

/// Signals it: `STOP`, so that it is there and does nothing.
pub(crate) fn signal_network_keeper(runtime_dir: &Path, signal: Signal) {
    let keeper = network_keeper(runtime_dir).open().unwrap().unwrap();
    assert!(keeper.signal(signal).unwrap());
}
