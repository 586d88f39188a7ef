//! Snapshots that hold what changed.

use smartvm::ErrorKind;
use smartvm::snapshot::Snapshot;
use smartvm::spec::SnapshotType;
use smartvm::vm::{StartOptions, StopMode};

use super::{creation, loading, place, quick, under};
use crate::support::Corner;

#[tokio::test]
async fn diffs_build_on_each_other_and_merge() {
    let corner = Corner::new();
    let smartvm = corner.smartvm();
    let mut spec = corner.small();
    let mut vm = smartvm.create(&spec).await.unwrap();
    vm.start(&StartOptions::default()).await.unwrap();
    let mut diff = creation(&place(&corner, "none"));
    diff.snapshot_type = Some(SnapshotType::Diff);
    let refused = vm.snapshot(&diff, &quick()).await.unwrap_err();
    assert!(refused.to_string().contains("doesn't track"), "{refused}");
    vm.stop(StopMode::Kill).await.unwrap();

    spec.machine_config.track_dirty_pages = Some(true);
    let mut vm = smartvm.create(&spec).await.unwrap();
    vm.start(&StartOptions::default()).await.unwrap();
    let refused = vm.snapshot(&diff, &quick()).await.unwrap_err();
    assert!(refused.to_string().contains("no snapshot"), "{refused}");
    let full = vm
        .snapshot(&creation(&place(&corner, "full")), &quick())
        .await
        .unwrap();
    let mut chain = Vec::new();
    for name in ["first", "second"] {
        let mut params = creation(&place(&corner, name));
        params.snapshot_type = Some(SnapshotType::Diff);
        chain.push(vm.snapshot(&params, &quick()).await.unwrap());
    }
    vm.stop(StopMode::Kill).await.unwrap();
    use std::os::unix::fs::MetadataExt;
    let blocks = |snapshot: &Snapshot| snapshot.place().memory().metadata().unwrap().blocks();
    assert!(blocks(&chain[1]) * 4 < blocks(&full), "a diff is sparse");
    let refused = full.clone().remove().unwrap_err();
    assert!(refused.to_string().contains("first"), "{refused}");

    let last = chain.pop().unwrap();
    let mut clones = Vec::new();
    for id in ["one", "two"] {
        clones.push(
            smartvm
                .restore(&loading(last.place()), &under(id))
                .await
                .unwrap(),
        );
    }
    let merged = std::fs::read(last.place().dir().join("memory")).unwrap();
    let whole = std::fs::read(full.place().memory()).unwrap();
    assert_eq!(merged.len(), whole.len());
    for ended in smartvm::vm::stop_all(&mut clones, StopMode::Kill).await {
        ended.unwrap();
    }
    // A chain with a hole is refused.
    std::fs::remove_file(chain[0].place().memory()).unwrap();
    let refused = smartvm
        .restore(&loading(last.place()), &under("three"))
        .await
        .unwrap_err();
    assert_eq!(refused.kind(), ErrorKind::Corrupt);
    assert!(refused.to_string().contains("missing"), "{refused}");
    for snapshot in [last, chain.pop().unwrap(), full] {
        snapshot.remove().unwrap();
    }
}
