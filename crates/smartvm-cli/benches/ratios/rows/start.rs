//! Creating and starting VMs.

use smartvm::spec::MicroVmSpec;
use smartvm::vm::{StartOptions, StopMode};

use crate::corner::Corner;
use crate::figures::{Figures, timed};
use crate::raw_loop::RawLoop;
use crate::row::Row;

pub(crate) const ONE: Row = Row {
    name: "start-one",
    about: "creating and starting one VM through the library / the same by raw API calls",
    target: Some(1.15),
    measure: one,
};

fn one(corner: &Corner, pairs: usize) -> Figures {
    against_raw(corner, &corner.small(), pairs)
}

/// Creating and starting this VM, against the raw loop of its plan.
pub(super) fn against_raw(corner: &Corner, spec: &MicroVmSpec, pairs: usize) -> Figures {
    let smartvm = corner.smartvm();
    let plan = smartvm.plan(spec).unwrap();
    Figures::pairs(
        pairs,
        || {
            corner.wait(async {
                let begin = std::time::Instant::now();
                let mut vm = smartvm.create(spec).await.unwrap();
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
