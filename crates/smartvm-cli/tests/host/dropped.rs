//! What was begun ends, and is written down, though nobody waits for it any more.

use std::time::Duration;

use rustix::process::Signal;
use smartvm::firecracker::client::Request;
use smartvm::rundir::State;
use smartvm::spec::{RateLimiter, TokenBucket, Vsock};
use smartvm::vm::{Change, StartOptions, StopMode};
use smartvm::{MicroVm, Result};

use crate::lifecycle::until;
use crate::states::with_drive;
use crate::support::Corner;

/// Begins it while Firecracker stands still, and drops it before its answer can come.
async fn begin_and_drop(vm: &MicroVm, work: impl Future<Output = Result<()>>) {
    let vmm = vm.state().unwrap().vmm.unwrap().open().unwrap().unwrap();
    vmm.signal(Signal::STOP).unwrap();
    let waited = tokio::time::timeout(Duration::from_millis(20), work).await;
    assert!(waited.is_err(), "it ended while Firecracker stood still");
    vmm.signal(Signal::CONT).unwrap();
}

/// In which state the VM is: what Firecracker says.
async fn firecrackers_word(vm: &MicroVm) -> String {
    let instance: serde_json::Value = vm.client().ask(&Request::get("/")).await.unwrap();
    instance["state"].as_str().unwrap().to_owned()
}

#[tokio::test]
async fn an_operation_that_is_dropped_once_begun_is_brought_to_its_end() {
    let corner = Corner::in_memory();
    let smartvm = corner.smartvm();
    let mut vm = smartvm.create(&with_drive(&corner)).await.unwrap();
    vm.start(&StartOptions::default()).await.unwrap();
    let state = || vm.state().unwrap();

    begin_and_drop(&vm, vm.pause()).await;
    until("the pause", || state().state == State::Paused).await;
    assert_eq!(firecrackers_word(&vm).await, "Paused");

    begin_and_drop(&vm, vm.resume()).await;
    until("the resumption", || state().state == State::Running).await;
    assert_eq!(firecrackers_word(&vm).await, "Running");

    let bucket = TokenBucket::builder().size(7).refill_time(1000).build();
    let limits = Some(RateLimiter::builder().ops(bucket).build());
    let change = Change::LimitDrive {
        drive_id: "data".into(),
        limits: limits.clone(),
    };
    begin_and_drop(&vm, vm.update(change)).await;
    until("the limit", || {
        state().spec.drives[0].rate_limiter == limits
    })
    .await;

    // The next one isn't kept waiting.
    vm.pause().await.unwrap();
    vm.resume().await.unwrap();
    vm.stop(StopMode::Kill).await.unwrap();
}

#[tokio::test]
async fn a_dropped_resumption_does_not_wait_for_an_agent_that_is_gone() {
    let corner = Corner::in_memory();
    let smartvm = corner.smartvm();
    let mut spec = corner.small();
    spec.vsock = Some(
        Vsock::builder()
            .guest_cid(7)
            .uds_path(corner.file("sockets/v.sock"))
            .build(),
    );
    let mut vm = smartvm.create(&spec).await.unwrap();
    vm.start(&StartOptions::default()).await.unwrap();
    let mut known = vm.state().unwrap();
    known.agent = Some(1);
    vm.run_dir().write_state(&known).unwrap();
    vm.pause().await.unwrap();
    let resumed = tokio::time::timeout(Duration::from_millis(50), vm.resume()).await;
    assert!(resumed.is_err(), "no agent can have answered");
    until("the resumption", || {
        vm.state().unwrap().state == State::Running
    })
    .await;
    assert_eq!(firecrackers_word(&vm).await, "Running");
    vm.pause().await.unwrap();
    vm.stop(StopMode::Kill).await.unwrap();
}
