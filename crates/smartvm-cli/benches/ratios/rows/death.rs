//! How soon the death of a Firecracker is known.

use std::time::Instant;

use rustix::process::Signal;
use smartvm::rundir::State;

use crate::corner::Corner;
use crate::figures::{Figures, timed};
use crate::raw_loop::RawLoop;
use crate::row::Row;

pub(crate) const EVENT: Row = Row {
    name: "death-event",
    about: "from killing a Firecracker to the event that tells how its VM ended, when all is \
            given back / to its process being reaped",
    target: None,
    measure: event,
};

fn event(corner: &Corner, pairs: usize) -> Figures {
    let smartvm = corner.smartvm();
    let plan = smartvm.plan(&corner.small()).unwrap();
    Figures::pairs(
        pairs,
        || {
            let vm = corner.running(&smartvm);
            corner.wait(async {
                let vmm = vm.state().unwrap().vmm.unwrap().open().unwrap().unwrap();
                let mut events = smartvm.events().unwrap();
                let begin = Instant::now();
                vmm.signal(Signal::KILL).unwrap();
                loop {
                    let event = events.next().await.unwrap();
                    if event.id == *vm.id() && event.state == State::Failed {
                        break begin.elapsed();
                    }
                }
            })
        },
        || {
            let mut raw = RawLoop::prepare(corner, &plan, "raw").run();
            timed(|| {
                raw.signal();
                raw.reap();
            })
            .0
        },
    )
}
