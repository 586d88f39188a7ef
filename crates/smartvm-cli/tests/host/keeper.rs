//! The keeper itself.

use std::time::Duration;

use rustix::process::Signal;
use smartvm::firecracker::exit::Reason;
use smartvm::process::ProcessId;
use smartvm::rundir::State;
use smartvm::vm::{StartOptions, StopMode, stop_all};

use crate::support::Corner;

const PATIENCE: Duration = Duration::from_secs(30);

#[tokio::test]
async fn a_keeper_told_to_end_ends_its_vm_and_gives_everything_back() {
    let corner = Corner::new();
    let smartvm = corner.smartvm();
    let before = corner.picture();
    for signal in [Signal::TERM, Signal::INT, Signal::HUP] {
        let mut vm = smartvm.create(&corner.large()).await.unwrap();
        vm.start(&StartOptions::default()).await.unwrap();
        let keeper = vm.state().unwrap().keeper.unwrap().open().unwrap().unwrap();
        assert!(keeper.signal(signal).unwrap());
        let ended = vm.wait(Some(PATIENCE)).await.unwrap();
        assert_eq!(
            (ended.reason, ended.state),
            (Reason::KeeperStopped, State::Stopped),
            "{signal:?}"
        );
        assert_eq!(ended.cleanup, [""; 0], "{signal:?}");
        assert_eq!(corner.picture(), before, "{signal:?}");
    }
}

#[tokio::test]
async fn a_keeper_at_rest_goes_on_keeping_and_holds_little() {
    let corner = Corner::new();
    let smartvm = corner.smartvm();
    let mut vm = smartvm.create(&corner.small()).await.unwrap();
    vm.start(&StartOptions::default()).await.unwrap();
    let keeper = vm.state().unwrap().keeper.unwrap();
    let status = |name: &str| {
        let status = std::fs::read_to_string(format!("/proc/{}/status", keeper.pid)).unwrap();
        let line = status.lines().find_map(|line| line.strip_prefix(name));
        let kib: u64 = line
            .unwrap()
            .trim()
            .trim_end_matches(" kB")
            .parse()
            .unwrap();
        kib
    };
    let begin = std::time::Instant::now();
    // How much that is depends on the build: it is measured in the benchmark.
    while status("VmRSS:") * 10 > status("VmHWM:") * 9 {
        let held = (status("VmRSS:"), status("VmHWM:"));
        assert!(
            begin.elapsed() < PATIENCE,
            "KiB held, and at most: {held:?}"
        );
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    vm.pause().await.unwrap();
    let ended = vm.stop(StopMode::Kill).await.unwrap();
    assert_eq!(ended.reason, Reason::Killed);
}

/// The keepers among this process's children that keep nothing yet, or nothing any more.
fn idle_keepers() -> Vec<u32> {
    let me = std::process::id();
    let children = std::fs::read_dir("/proc").unwrap().filter_map(|entry| {
        let pid: u32 = entry.ok()?.file_name().to_str()?.parse().ok()?;
        let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
        let (name, rest) = stat.split_once('(')?.1.rsplit_once(") ")?;
        let mut rest = rest.split(' ');
        let (state, parent) = (rest.next()?, rest.next()?);
        (name == "smartvm" && state != "Z" && parent == me.to_string()).then_some(pid)
    });
    children.collect()
}

/// Other tests of this process have keepers as well: this is run by itself.
fn alone(test: &str) -> bool {
    const ALONE: &str = "SMARTVM_TEST_ALONE";
    if std::env::var_os(ALONE).is_some() {
        return true;
    }
    let mut itself = std::process::Command::new(std::env::current_exe().unwrap());
    itself
        .args(["--exact", test, "--nocapture"])
        .env(ALONE, "1");
    let ran = itself.output().unwrap();
    let said = String::from_utf8_lossy(&ran.stderr);
    assert!(ran.status.success(), "{test}: {said}");
    false
}

#[tokio::test]
async fn a_keeper_that_keeps_nothing_yet_ends_with_its_handle_and_is_replaced_if_killed() {
    if !alone(
        "keeper::a_keeper_that_keeps_nothing_yet_ends_with_its_handle_and_is_replaced_if_killed",
    ) {
        return;
    }
    let corner = Corner::new();
    let smartvm = corner.smartvm();
    let vm = smartvm.create(&corner.small()).await.unwrap();
    until_idle(1).await;
    drop(vm);
    until_idle(0).await;
    let mut vm = smartvm.create(&corner.small()).await.unwrap();
    kill(until_idle(1).await[0]);
    vm.start(&StartOptions::default()).await.unwrap();
    let ended = vm.stop(StopMode::Kill).await.unwrap();
    assert_eq!(ended.reason, Reason::Killed);
}

#[tokio::test]
async fn from_the_second_vm_on_a_keeper_waits_for_the_next_and_ends_with_its_program() {
    let test =
        "keeper::from_the_second_vm_on_a_keeper_waits_for_the_next_and_ends_with_its_program";
    if !alone(test) {
        return;
    }
    let corner = Corner::new();
    let smartvm = corner.smartvm();
    let started = async || {
        let mut vm = smartvm.create(&corner.small()).await.unwrap();
        vm.start(&StartOptions::default()).await.unwrap();
        let keeper = vm.state().unwrap().keeper.unwrap();
        (vm, keeper.pid)
    };
    let mut vms = vec![started().await, started().await];
    // One is seen a moment before it is to be had, or before it is one too many: a VM may miss it.
    let mut waited = Vec::new();
    for _ in 0..3 {
        waited.extend(until_idle(1).await);
        vms.push(started().await);
    }
    assert!(vms[2..].iter().any(|(_, keeper)| waited.contains(keeper)));
    // One that is killed is missed by nobody.
    let killed = until_idle(1).await[0];
    kill(killed);
    let last = started().await;
    assert_ne!(last.1, killed);
    vms.push(last);
    until_idle(1).await;
    let mut vms: Vec<_> = vms.into_iter().map(|(vm, _)| vm).collect();
    for ended in stop_all(&mut vms, StopMode::Kill).await {
        assert_eq!(ended.unwrap().reason, Reason::Killed);
    }
    drop((smartvm, vms));
    until_idle(0).await;
}

/// Waits until so many keepers keep nothing.
async fn until_idle(many: usize) -> Vec<u32> {
    let begin = std::time::Instant::now();
    loop {
        let idle = idle_keepers();
        if idle.len() == many {
            return idle;
        }
        assert!(begin.elapsed() < PATIENCE, "{idle:?}");
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}

/// Kills one of this process's children, and sees it dead.
fn kill(pid: u32) {
    let child = ProcessId::of(pid).unwrap().unwrap();
    let child = child.open().unwrap().unwrap();
    child.signal(Signal::KILL).unwrap();
    assert!(child.wait(PATIENCE).unwrap());
}
