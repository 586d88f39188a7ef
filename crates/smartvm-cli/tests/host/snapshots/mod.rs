//! Snapshots: made, restored, refused, interrupted.

mod changed;
mod command_line;
mod diffs;
mod interruptions;
mod jailed;
mod refusals;
mod restores;

use smartvm::snapshot::{Place, RestoreOptions, Snapshot, SnapshotOptions};
use smartvm::spec::{Lifetime, SnapshotCreateParams, SnapshotLoadParams};
use smartvm::vm::{StartOptions, StopMode};
use smartvm::{MicroVm, SmartVm};

use crate::support::Corner;

fn place(corner: &Corner, name: &str) -> Place {
    Place::in_directory(&corner.file("data/snapshots").join(name)).unwrap()
}

fn creation(place: &Place) -> SnapshotCreateParams {
    SnapshotCreateParams::builder()
        .snapshot_path(place.state())
        .mem_file_path(place.memory())
        .build()
}

fn loading(place: &Place) -> SnapshotLoadParams {
    SnapshotLoadParams::builder()
        .snapshot_path(place.state())
        .mem_file_path(place.memory())
        .resume_vm(true)
        .build()
}

fn under(id: &str) -> RestoreOptions {
    let mut options = RestoreOptions::default();
    options.id = Some(id.parse().unwrap());
    options
}

fn quick() -> SnapshotOptions {
    SnapshotOptions::default().agent(false)
}

/// The largest VM, started.
async fn large(smartvm: &SmartVm, corner: &Corner) -> MicroVm {
    let mut spec = corner.large();
    spec.lifetime = Some(Lifetime::Detached);
    std::fs::create_dir_all(corner.file("data/snapshots")).unwrap();
    let mut vm = smartvm.create(&spec).await.unwrap();
    vm.start(&StartOptions::default()).await.unwrap();
    vm
}

/// A snapshot of the largest VM, which has ended.
async fn made(smartvm: &SmartVm, corner: &Corner, name: &str) -> Snapshot {
    let mut vm = large(smartvm, corner).await;
    let snapshot = vm
        .snapshot(&creation(&place(corner, name)), &quick())
        .await
        .unwrap();
    vm.stop(StopMode::Kill).await.unwrap();
    snapshot
}
