//! Hundreds of VMs at once.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use smartvm::vm::{StartOptions, StopMode, stop_all};
use smartvm::{MicroVm, SmartVm};
use tokio::runtime::Runtime;
use tokio::task::JoinSet;

use crate::corner::Corner;
use crate::figures::{Figures, timed};
use crate::raw_loop::{RawLoop, Started};
use crate::row::Row;

pub(crate) const VMS: usize = 300;
const AT_ONCE: usize = 16;
/// Each is a mean over all the VMs by itself.
const PAIRS: usize = 5;

pub(crate) const START: Row = Row {
    name: "start-many",
    about: "creating and starting 300 VMs, 16 at a time, through the library / the same by raw \
            API calls; at most 5 pairs",
    target: Some(1.2),
    measure: start,
};

pub(crate) const END: Row = Row {
    name: "end-many",
    about: "ending 300 VMs and giving all back / killing 300 Firecrackers, then reaping them; at \
            most 5 pairs",
    target: Some(1.2),
    measure: end,
};

fn start(corner: &Corner, pairs: usize) -> Figures {
    measure(corner, pairs, |started, _| started)
}

fn end(corner: &Corner, pairs: usize) -> Figures {
    measure(corner, pairs, |_, ended| ended)
}

/// Measures how long a start and an end take; `of` chooses.
fn measure(corner: &Corner, pairs: usize, of: fn(Duration, Duration) -> Duration) -> Figures {
    let smartvm = Arc::new(corner.smartvm());
    let plan = smartvm.plan(&corner.small()).unwrap();
    let runtime = runtime();
    Figures::pairs(
        pairs.min(PAIRS),
        || {
            let (started, mut vms) = timed(|| start_all(&runtime, &smartvm, corner));
            let ended = timed(|| runtime.block_on(stop_all(&mut vms, StopMode::Kill)));
            ended.1.into_iter().for_each(|one| drop(one.unwrap()));
            of(started, ended.0)
        },
        || {
            let prepare = |n| RawLoop::prepare(corner, &plan, &format!("raw-{n}"));
            let prepared = (0..VMS).map(prepare).collect();
            let (started, mut all) = timed(|| start_raw(prepared));
            let (ended, ()) = timed(|| {
                all.iter_mut().for_each(Started::signal);
                all.iter_mut().for_each(Started::reap);
            });
            of(started, ended)
        },
    )
}

/// What a service has that runs many VMs.
pub(crate) fn runtime() -> Runtime {
    let mut builder = tokio::runtime::Builder::new_multi_thread();
    builder.enable_all().build().expect("a runtime")
}

/// All VMs, so many at a time.
pub(crate) fn start_all(
    runtime: &Runtime,
    smartvm: &Arc<SmartVm>,
    corner: &Corner,
) -> Vec<MicroVm> {
    let begun = Arc::new(AtomicUsize::new(0));
    let mut tasks = JoinSet::new();
    for _ in 0..AT_ONCE {
        let (smartvm, spec, begun) = (Arc::clone(smartvm), corner.small(), Arc::clone(&begun));
        tasks.spawn_on(
            async move {
                let mut vms = Vec::new();
                while begun.fetch_add(1, Ordering::Relaxed) < VMS {
                    let mut vm = smartvm.create(&spec).await.unwrap();
                    vm.start(&StartOptions::default()).await.unwrap();
                    vms.push(vm);
                }
                vms
            },
            runtime.handle(),
        );
    }
    runtime
        .block_on(tasks.join_all())
        .into_iter()
        .flatten()
        .collect()
}

fn start_raw(prepared: Vec<RawLoop>) -> Vec<Started> {
    let (waiting, started) = (Mutex::new(prepared), Mutex::new(Vec::new()));
    let next = || waiting.lock().unwrap().pop();
    std::thread::scope(|scope| {
        for _ in 0..AT_ONCE {
            scope.spawn(|| {
                while let Some(one) = next() {
                    let one = one.run();
                    started.lock().unwrap().push(one);
                }
            });
        }
    });
    started.into_inner().unwrap()
}
