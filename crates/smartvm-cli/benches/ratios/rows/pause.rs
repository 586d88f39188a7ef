//! Pausing and resuming.

use smartvm::firecracker::model::{VmBody, VmState};
use smartvm::vm::StopMode;

use crate::corner::Corner;
use crate::figures::{Figures, timed};
use crate::raw_loop::{self, RawLoop};
use crate::row::Row;

pub(crate) const PAUSE_RESUME: Row = Row {
    name: "pause-resume",
    about: "pausing and resuming a VM through the library / by raw API calls",
    target: Some(1.2),
    measure: pause_resume,
};

fn pause_resume(corner: &Corner, pairs: usize) -> Figures {
    let smartvm = corner.smartvm();
    let plan = smartvm.plan(&corner.small()).unwrap();
    let mut vm = corner.running(&smartvm);
    let mut raw = RawLoop::prepare(corner, &plan, "raw").run();
    let [pause, resume] = [VmState::Paused, VmState::Resumed]
        .map(|state| raw_loop::encode(&VmBody { state }.request().unwrap()));
    let figures = Figures::pairs(
        pairs,
        || {
            let both = async {
                vm.pause().await.unwrap();
                vm.resume().await.unwrap();
            };
            timed(|| corner.wait(both)).0
        },
        || {
            timed(|| {
                raw.ask(&pause);
                raw.ask(&resume);
            })
            .0
        },
    );
    corner.wait(vm.stop(StopMode::Kill)).unwrap();
    figures
}
