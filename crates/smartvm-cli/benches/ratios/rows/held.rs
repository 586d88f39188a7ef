//! What it costs to hold hundreds of VMs: measured in a process of its own, whose memory knows
//! of nothing else.

use std::path::Path;
use std::process::Command;
use std::sync::Arc;
use std::time::Duration;

use smartvm::vm::{StopMode, stop_all};

use super::many::{VMS, runtime, start_all};
use crate::corner::Corner;
use crate::figures::Figures;
use crate::row::Row;

/// Tells this program to be that process.
const HOLD: &str = "SMARTVM_BENCH_HOLD";
const TIMES: usize = 3;

pub(crate) const MEMORY: Row = Row {
    name: "memory-per-vm",
    about: "memory of the process that holds 300 VMs, for each; at most 3 times",
    target: Some(64.0),
    measure: memory,
};

pub(crate) const IDLE: Row = Row {
    name: "idle-cpu",
    about: "processor time that the process which holds 300 idle VMs and their keepers take in 2 \
            seconds; at most 3 times",
    target: Some(0.0),
    measure: idle,
};

fn memory(_: &Corner, times: usize) -> Figures {
    Figures::amounts(times.min(TIMES), "KiB", || held().0)
}

fn idle(_: &Corner, times: usize) -> Figures {
    Figures::amounts(times.min(TIMES), "ms", || held().1)
}

fn held() -> (f64, f64) {
    let program = std::env::current_exe().unwrap();
    let output = Command::new(program).env(HOLD, "1").output().unwrap();
    assert!(output.status.success(), "{output:?}");
    let text = String::from_utf8(output.stdout).unwrap();
    let mut figures = text.split_whitespace().map(|it| it.parse().unwrap());
    (figures.next().unwrap(), figures.next().unwrap())
}

/// Does what [`held`] wants, if this is the process that it started.
pub(crate) fn hold() -> bool {
    if std::env::var_os(HOLD).is_none() {
        return false;
    }
    let corner = Corner::new();
    let (smartvm, runtime) = (Arc::new(corner.smartvm()), runtime());
    // What the first VM brings once and for all isn't a VM's.
    let mut first = corner.running(&smartvm);
    runtime.block_on(first.stop(StopMode::Kill)).unwrap();
    let before = private_kib();
    let mut vms = start_all(&runtime, &smartvm, &corner);
    let memory = (private_kib() - before) / VMS as f64;
    let keepers: Vec<_> = vms
        .iter()
        .map(|vm| vm.state().unwrap().keeper.unwrap().pid)
        .collect();
    // They settle down two seconds after the last thing that happened.
    std::thread::sleep(Duration::from_secs(4));
    let before = run_time(&keepers);
    std::thread::sleep(Duration::from_secs(2));
    let idle = run_time(&keepers) - before;
    println!("{memory} {idle}");
    for ended in runtime.block_on(stop_all(&mut vms, StopMode::Kill)) {
        ended.unwrap();
    }
    true
}

/// The memory that is this process's alone, in KiB.
fn private_kib() -> f64 {
    let rollup = std::fs::read_to_string("/proc/self/smaps_rollup").unwrap();
    let field = |line: &str| line.split_whitespace().nth(1)?.parse::<f64>().ok();
    let private = rollup.lines().filter(|line| line.starts_with("Private_"));
    private.filter_map(field).sum()
}

/// Milliseconds for which keepers and this process ran, without this thread, which measures.
fn run_time(keepers: &[u32]) -> f64 {
    let me = rustix::thread::gettid().as_raw_nonzero().to_string();
    let mine = tasks(Path::new("/proc/self/task")).filter(|task| !task.ends_with(&me));
    let theirs = keepers
        .iter()
        .flat_map(|pid| tasks(&Path::new("/proc").join(pid.to_string()).join("task")));
    mine.chain(theirs).map(|task| ran_ms(&task)).sum()
}

fn tasks(dir: &Path) -> impl Iterator<Item = std::path::PathBuf> + use<> {
    let entries = std::fs::read_dir(dir).into_iter().flatten().flatten();
    entries.map(|entry| entry.path())
}

fn ran_ms(task: &Path) -> f64 {
    let schedule = std::fs::read_to_string(task.join("schedstat")).unwrap_or_default();
    let nanoseconds = schedule
        .split(' ')
        .next()
        .and_then(|it| it.parse::<f64>().ok());
    nanoseconds.unwrap_or_default() / 1e6
}
