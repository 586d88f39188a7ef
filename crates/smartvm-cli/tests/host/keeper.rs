//! The keeper itself.

use std::time::Duration;

use rustix::process::Signal;
use smartvm::firecracker::exit::Reason;
use smartvm::rundir::State;
use smartvm::vm::StartOptions;

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
    let ended = vm.stop(smartvm::vm::StopMode::Kill).await.unwrap();
    assert_eq!(ended.reason, Reason::Killed);
}
