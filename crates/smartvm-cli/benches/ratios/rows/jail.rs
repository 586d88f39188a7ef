//! Starting jailed VMs.

use std::path::Path;
use std::time::Instant;

use smartvm::spec::{Jail, JailMode};
use smartvm::vm::{StartOptions, StopMode};

use crate::corner::Corner;
use crate::figures::{Figures, timed};
use crate::raw_loop::RawLoop;
use crate::row::Row;

pub(crate) const START: Row = Row {
    name: "start-jailed",
    about: "creating and starting one jailed VM / the same by the jailer and raw API calls",
    target: Some(1.15),
    measure: start,
};

fn start(corner: &Corner, pairs: usize) -> Figures {
    // Where device nodes and execution are allowed, as /dev/shm often doesn't.
    let base = tempfile::Builder::new()
        .prefix("smartvm-bench-jail-")
        .tempdir_in(Path::new("/var/tmp"))
        .expect("a directory for chroots");
    let smartvm = corner.smartvm();
    let mut spec = corner.small();
    spec.jail = Some(
        Jail::builder()
            .mode(JailMode::Required)
            .chroot_base(base.path())
            .build(),
    );
    let plan = smartvm.plan(&spec).unwrap();
    Figures::pairs(
        pairs,
        || {
            corner.wait(async {
                let begin = Instant::now();
                let mut vm = smartvm.create(&spec).await.unwrap();
                vm.start(&StartOptions::default()).await.unwrap();
                let took = begin.elapsed();
                vm.stop(StopMode::Kill).await.unwrap();
                took
            })
        },
        || {
            let prepared = RawLoop::prepare(corner, &plan, "raw");
            timed(|| prepared.run()).0
        },
    )
}
