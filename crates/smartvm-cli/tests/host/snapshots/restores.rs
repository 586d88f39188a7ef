//! VMs that go on from a snapshot.

use std::os::unix::fs::FileExt;

use smartvm::ErrorKind;
use smartvm::rundir::State;
use smartvm::spec::SnapshotCreateParams;
use smartvm::vm::StopMode;

use super::{large, loading, made, quick, under};
use crate::support::Corner;

#[tokio::test]
async fn a_snapshot_goes_on_under_another_id_in_another_runtime_directory() {
    let corner = Corner::new();
    let smartvm = corner.smartvm();
    let mut vm = large(&smartvm, &corner).await;
    let staged = corner.file("staging/smartvm-large/copied-root.img");
    std::fs::OpenOptions::new()
        .write(true)
        .open(&staged)
        .unwrap()
        .write_all_at(b"written by the guest", 100)
        .unwrap();
    // Paths of the user's choice, in two directories.
    let params = SnapshotCreateParams::builder()
        .snapshot_path(corner.file("a/machine.state"))
        .mem_file_path(corner.file("logs/machine.memory"))
        .build();
    let snapshot = vm.snapshot(&params, &quick()).await.unwrap();
    assert_eq!(vm.state().unwrap().state, State::Running);
    let manifest = snapshot.manifest().clone();
    assert_eq!(manifest.origin.state_format.as_deref(), Some("6.0.0"));
    assert_eq!(manifest.memory.size_bytes, 128 << 20);
    vm.stop(StopMode::Kill).await.unwrap();
    for file in ["root.img", "data.img"] {
        std::fs::remove_file(corner.file(file)).unwrap();
    }

    use std::os::unix::fs::MetadataExt;
    for file in [
        "a/machine.state",
        "logs/machine.memory",
        "a/machine.state.d/manifest.json",
    ] {
        let mode = corner.file(file).metadata().unwrap().mode();
        assert_eq!(mode & 0o777, 0o600, "{file}");
    }
    let mut options = corner.options();
    options.runtime_dir = Some(corner.file("elsewhere"));
    let other = corner.smartvm_with(options);
    let before = corner.picture();
    let mut load = loading(snapshot.place());
    load.enable_diff_snapshots = Some(true);
    let mut restored = other.restore(&load, &under("second")).await.unwrap();
    let state = restored.state().unwrap();
    assert_eq!(state.state, State::Running);
    assert_eq!(state.spec.machine_config.track_dirty_pages, Some(true));
    let drive = restored.run_dir().file("drives/copied-root.img");
    assert_eq!(
        &std::fs::read(drive).unwrap()[100..120],
        b"written by the guest"
    );
    assert_eq!(restored.run_dir().path(), corner.file("elsewhere/second"));
    let vmm = state.vmm.unwrap().executable().unwrap();
    assert_eq!(vmm, crate::support::firecracker());
    // The VM lives by the memory file.
    let refused = snapshot.clone().remove().unwrap_err();
    assert_eq!(refused.kind(), ErrorKind::WrongState);
    assert!(refused.to_string().contains("second"), "{refused}");
    restored.pause().await.unwrap();
    assert_eq!(other.gc(false).unwrap(), [], "it is as it says");
    restored.resume().await.unwrap();
    restored.stop(StopMode::Kill).await.unwrap();
    let kept = |line: &String| !line.contains("/elsewhere/.ended");
    let after: Vec<_> = corner.picture().into_iter().filter(kept).collect();
    assert_eq!(after, before, "after the restored VM");
    snapshot.remove().unwrap();
    assert!(!corner.file("a/machine.state.d").exists());
    assert!(!corner.file("logs/machine.memory").exists());
}

#[tokio::test]
async fn twenty_clones_of_one_snapshot_share_its_memory() {
    let corner = Corner::new();
    let smartvm = corner.smartvm();
    let snapshot = made(&smartvm, &corner, "seed").await;
    let before = std::fs::read(snapshot.place().memory()).unwrap();
    let mut clones = Vec::new();
    for number in 0..20 {
        let options = under(&format!("clone-{number}"));
        clones.push(
            smartvm
                .restore(&loading(snapshot.place()), &options)
                .await
                .unwrap(),
        );
    }
    assert_eq!(snapshot.users().unwrap().len(), 20);
    for clone in &clones {
        let state = clone.state().unwrap();
        assert_eq!(state.state, State::Running);
        let maps = std::fs::read_to_string(format!("/proc/{}/maps", state.vmm.unwrap().pid));
        let memory = snapshot.place().memory().to_str().unwrap().to_owned();
        assert!(maps.unwrap().contains(&memory), "its memory is mapped");
    }
    for ended in smartvm::vm::stop_all(&mut clones, StopMode::Kill).await {
        ended.unwrap();
    }
    assert!(before == std::fs::read(snapshot.place().memory()).unwrap());
    assert_eq!(snapshot.users().unwrap(), Vec::<String>::new());
    snapshot.remove().unwrap();
}
