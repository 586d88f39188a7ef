//! A VM's life, through the library.

use std::time::Duration;

use smartvm::ErrorKind;
use smartvm::firecracker::client::Request;
use smartvm::firecracker::exit::{Ended, Reason};
use smartvm::keeper::ring;
use smartvm::process::ProcessId;
use smartvm::rundir::{State, file};
use smartvm::spec::{BootSource, Lifetime};
use smartvm::vm::{StartOptions, StopMode, stop_all};
use smartvm_emulate::tiny_guest::LINE;

use crate::support::{Corner, copy_program, firecracker};

/// How long anything here may take that takes milliseconds on a quiet machine.
pub(crate) const PATIENCE: Duration = Duration::from_secs(30);

pub(crate) async fn until(what: &str, mut holds: impl FnMut() -> bool) {
    let waited = tokio::time::timeout(PATIENCE, async {
        while !holds() {
            tokio::time::sleep(Duration::from_millis(2)).await;
        }
    });
    waited
        .await
        .unwrap_or_else(|_| panic!("{what} never came true"));
}

#[tokio::test]
async fn a_vm_boots_prints_pauses_resumes_and_is_gone_after_stop() {
    let corner = Corner::new();
    let smartvm = corner.smartvm();
    let before = corner.picture();
    let mut vm = smartvm.create(&corner.small()).await.unwrap();
    assert_eq!(vm.state().unwrap().state, State::Created);
    vm.start(&StartOptions::default()).await.unwrap();
    assert_eq!(vm.state().unwrap().state, State::Running);
    let console = vm.run_dir().file(file::CONSOLE);
    until("the greeting", || {
        ring::tail(&console, 99).unwrap() == LINE.as_bytes()
    })
    .await;
    vm.pause().await.unwrap();
    let told: serde_json::Value = vm.client().ask(&Request::get("/")).await.unwrap();
    assert_eq!(told["state"], "Paused");
    assert_eq!(vm.state().unwrap().state, State::Paused);
    vm.pause().await.unwrap();
    vm.resume().await.unwrap();
    let told: serde_json::Value = vm.client().ask(&Request::get("/")).await.unwrap();
    assert_eq!(told["state"], "Running");
    let ended = vm.stop(StopMode::Kill).await.unwrap();
    assert_eq!(
        (ended.state, &ended.reason),
        (State::Stopped, &Reason::Killed)
    );
    assert_eq!(ended.console, LINE);
    assert_eq!(corner.picture(), before);
    assert_eq!(vm.state().unwrap_err().kind(), ErrorKind::NotFound);
}

#[tokio::test]
async fn a_guest_that_resets_ends_its_vm_with_that_reason() {
    let corner = Corner::new();
    let smartvm = corner.smartvm();
    let before = corner.picture();
    let mut spec = corner.small();
    spec.boot_source = BootSource::builder()
        .kernel_image_path(corner.file("tiny-reset"))
        .build();
    let mut vm = smartvm.create(&spec).await.unwrap();
    // It may have ended before the start is over: that is no failure of the start's to hide.
    if let Err(e) = vm.start(&StartOptions::default()).await {
        assert!(e.to_string().contains("the guest reset"), "{e}");
    }
    let ended = vm.wait(Some(PATIENCE)).await.unwrap();
    assert_eq!(
        (ended.reason, ended.vmm),
        (Reason::GuestReset, Some(Ended::Exited(0)))
    );
    assert_eq!(corner.picture(), before);
}

#[tokio::test]
async fn a_vmm_killed_from_outside_is_noticed_and_cleaned_up_as_a_failure() {
    let corner = Corner::new();
    let smartvm = corner.smartvm();
    let before = corner.picture();
    let mut vm = smartvm.create(&corner.large()).await.unwrap();
    vm.start(&StartOptions::default()).await.unwrap();
    let vmm = vm.state().unwrap().vmm.unwrap().open().unwrap().unwrap();
    vmm.signal(rustix::process::Signal::KILL).unwrap();
    let ended = vm.wait(Some(PATIENCE)).await.unwrap();
    assert_eq!(ended.state, State::Failed);
    assert_eq!(
        (ended.reason, ended.vmm),
        (Reason::KilledFromOutside, Some(Ended::Killed(9)))
    );
    assert_eq!(corner.picture(), before);
}

#[tokio::test]
async fn a_vm_ends_when_its_time_is_up() {
    let corner = Corner::new();
    let mut spec = corner.small();
    spec.max_runtime_s = Some(1);
    let mut vm = corner.smartvm().create(&spec).await.unwrap();
    vm.start(&StartOptions::default()).await.unwrap();
    let ended = vm.wait(Some(PATIENCE)).await.unwrap();
    assert_eq!(ended.reason, Reason::LifetimeReached);
}

#[tokio::test]
async fn dropping_the_owners_handle_ends_its_vm_and_a_detached_one_lives_on() {
    let corner = Corner::new();
    let smartvm = corner.smartvm();
    let before = corner.picture();
    let mut owned = smartvm.create(&corner.small()).await.unwrap();
    owned.start(&StartOptions::default()).await.unwrap();
    let mut spec = corner.small();
    spec.lifetime = Some(Lifetime::Detached);
    let mut detached = smartvm.create(&spec).await.unwrap();
    detached.start(&StartOptions::default()).await.unwrap();
    let (owned_id, detached_id) = (owned.id().clone(), detached.id().clone());
    drop((owned, detached));
    until("the owned VM's end", || smartvm.get(&owned_id).is_err()).await;
    let record = smartvm.runtime().records().get(&owned_id).unwrap();
    assert_eq!(record.reason, Reason::OwnerEnded);
    let mut again = smartvm.get(&detached_id).unwrap();
    assert_eq!(again.state().unwrap().state, State::Running);
    assert_eq!(
        smartvm.gc(false).unwrap(),
        [],
        "a live VM is none of gc's business"
    );
    again.stop(StopMode::Kill).await.unwrap();
    corner.becomes(&before, "after both ended");
}

#[tokio::test]
async fn when_many_end_all_are_signalled_before_any_is_waited_for() {
    let corner = Corner::new();
    let smartvm = corner.smartvm();
    let mut vms = Vec::new();
    for _ in 0..3 {
        let mut vm = smartvm.create(&corner.small()).await.unwrap();
        vm.start(&StartOptions::default()).await.unwrap();
        vms.push(vm);
    }
    // Stopped, the first one's keeper can't clean up: who waited for it before signalling the
    // others would wait for ever.
    let keeper = vms[0].state().unwrap().keeper.unwrap();
    let keeper = keeper.open().unwrap().unwrap();
    keeper.signal(rustix::process::Signal::STOP).unwrap();
    let vmms: Vec<ProcessId> = vms
        .iter()
        .map(|vm| vm.state().unwrap().vmm.unwrap())
        .collect();
    let stopping = tokio::spawn(async move { stop_all(&mut vms, StopMode::Kill).await });
    until("every VMM's end", || {
        vmms.iter().all(|vmm| !vmm.is_alive().unwrap())
    })
    .await;
    keeper.signal(rustix::process::Signal::CONT).unwrap();
    for ended in stopping.await.unwrap() {
        assert_eq!(ended.unwrap().reason, Reason::Killed);
    }
}

#[tokio::test]
async fn drives_are_copied_or_linked_as_asked_and_what_is_the_users_stays() {
    let corner = Corner::new();
    let smartvm = corner.smartvm();
    let mut vm = smartvm.create(&corner.large()).await.unwrap();
    vm.start(&StartOptions::default()).await.unwrap();
    let staging = corner.file("staging/smartvm-large");
    let copy = staging.join("copied-root.img");
    assert_eq!(
        std::fs::read(&copy).unwrap(),
        std::fs::read(corner.file("root.img")).unwrap()
    );
    let link = vm.run_dir().file("drives/linked-data.img");
    assert_eq!(std::fs::read_link(link).unwrap(), corner.file("data.img"));
    assert!(
        corner.file("sockets/v.sock").exists(),
        "the user's vsock socket is where it was asked"
    );
    vm.stop(StopMode::Kill).await.unwrap();
    assert!(!staging.exists());
    assert!(!corner.file("sockets/v.sock").exists());
    assert!(corner.file("logs/vmm.log").exists(), "the user's log stays");
    assert!(
        corner.file("logs/metrics").metadata().unwrap().len() > 0,
        "metrics were written"
    );
}

#[tokio::test]
async fn vms_are_found_by_label_alive_and_ended() {
    let corner = Corner::new();
    let smartvm = corner.smartvm();
    let mut spec = corner.small();
    spec.labels.insert("app".into(), "web".into());
    let mut vm = smartvm.create(&spec).await.unwrap();
    vm.start(&StartOptions::default()).await.unwrap();
    let count = |flags: &[&str], label: &str| {
        let listed = corner
            .command()
            .args(["--json", "ps", "--label", label])
            .args(flags)
            .assert();
        let rows: serde_json::Value =
            serde_json::from_slice(&listed.success().get_output().stdout).unwrap();
        rows.as_array().unwrap().len()
    };
    assert_eq!(
        (
            count(&[], "app=web"),
            count(&[], "app"),
            count(&[], "app=db")
        ),
        (1, 1, 0)
    );
    vm.stop(StopMode::Kill).await.unwrap();
    assert_eq!(
        (count(&[], "app=web"), count(&["--all"], "app=web")),
        (0, 1)
    );
}

#[tokio::test]
async fn directories_are_where_the_options_say() {
    let corner = Corner::new();
    let mut options = corner.options();
    options.runtime_dir = Some(corner.file("elsewhere"));
    options.firecracker_binary_path = None;
    let cached = corner.file("data/bin/1.12.1");
    std::fs::create_dir_all(&cached).unwrap();
    copy_program(firecracker(), &cached.join("firecracker"));
    let mut parts = smartvm::Parts::default();
    parts.keeper = Some(crate::support::SMARTVM.into());
    parts.assume_kvm = true;
    let smartvm = smartvm::SmartVm::open(options, parts).unwrap();
    assert_eq!(smartvm.binary().unwrap().path(), cached.join("firecracker"));
    let mut vm = smartvm.create(&corner.small()).await.unwrap();
    vm.start(&StartOptions::default()).await.unwrap();
    assert!(vm.run_dir().path().starts_with(corner.file("elsewhere")));
    let vmm = vm.state().unwrap().vmm.unwrap();
    assert_eq!(vmm.executable().unwrap(), cached.join("firecracker"));
    vm.stop(StopMode::Kill).await.unwrap();
}
