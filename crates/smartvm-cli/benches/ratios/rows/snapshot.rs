//! Restoring snapshots.

use smartvm::snapshot::{Place, RestoreOptions, SnapshotOptions};
use smartvm::spec::{SnapshotCreateParams, SnapshotLoadParams};
use smartvm::vm::StopMode;

use crate::corner::Corner;
use crate::figures::{Figures, timed};
use crate::raw_loop::RawLoop;
use crate::row::Row;

pub(crate) const RESTORE: Row = Row {
    name: "restore",
    about: "restoring a snapshot through the library (verified, new process, load, resume) / \
            process, load, resume by raw API calls",
    target: Some(1.2),
    measure: restore,
};

fn restore(corner: &Corner, pairs: usize) -> Figures {
    let smartvm = corner.smartvm();
    let place = Place::in_directory(&corner.file("snapshot")).unwrap();
    let create = SnapshotCreateParams::builder()
        .snapshot_path(place.state())
        .mem_file_path(place.memory())
        .build();
    let mut vm = corner.running(&smartvm);
    let load = SnapshotLoadParams::builder()
        .snapshot_path(place.state())
        .mem_file_path(place.memory())
        .resume_vm(true)
        .build();
    let mut options = RestoreOptions::default();
    options.id = Some("restored".parse().unwrap());
    let (snapshot, plan) = corner.wait(async {
        let quick = SnapshotOptions::default().agent(false);
        let snapshot = vm.snapshot(&create, &quick).await.unwrap();
        vm.stop(StopMode::Kill).await.unwrap();
        let plan = smartvm.plan_restore(&load, &options).await.unwrap();
        (snapshot, plan)
    });
    let figures = Figures::pairs(
        pairs,
        || {
            corner.wait(async {
                let begin = std::time::Instant::now();
                let mut vm = smartvm.restore(&load, &options).await.unwrap();
                let took = begin.elapsed();
                vm.stop(StopMode::Kill).await.unwrap();
                took
            })
        },
        || {
            let prepared = RawLoop::prepare(corner, &plan, "raw");
            timed(|| prepared.run()).0
        },
    );
    snapshot.remove().unwrap();
    figures
}
