//! Jailed VMs: who Firecracker is, what it sees, and that the user's files stay as they are.

mod drives;
mod fitness;

use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::path::Path;

use smartvm::MicroVm;
use smartvm::firecracker::client::Request;
use smartvm::rundir::VmState;
use smartvm::spec::{IdRange, Jail, JailMode, MicroVmSpec, ResourceLimits};
use smartvm::vm::{StartOptions, StopMode};

use crate::support::Corner;

fn status(state: &VmState, field: &str) -> String {
    let pid = state.vmm.as_ref().unwrap().pid;
    let text = std::fs::read_to_string(format!("/proc/{pid}/status")).unwrap();
    let line = text.lines().find(|line| line.starts_with(field)).unwrap();
    line.split_whitespace()
        .skip(1)
        .collect::<Vec<_>>()
        .join(" ")
}

fn owner_and_mode(path: &Path) -> (u32, u32, u32, u64) {
    let found = path.metadata().unwrap();
    (found.uid(), found.gid(), found.mode(), found.nlink())
}

fn jailed(spec: MicroVmSpec, jail: Jail) -> MicroVmSpec {
    let mut spec = spec;
    spec.jail = Some(jail);
    spec
}

/// The largest VM, jailed and started.
async fn large(corner: &Corner) -> MicroVm {
    let mut vm = corner
        .smartvm()
        .create(&corner.large_jailed())
        .await
        .unwrap();
    vm.start(&StartOptions::default()).await.unwrap();
    vm
}

#[tokio::test]
async fn a_jailed_firecracker_is_its_own_user_in_its_own_root_and_namespaces() {
    let corner = Corner::new();
    let smartvm = corner.smartvm();
    let mut spec = corner.large_jailed();
    let jail = spec.jail.as_mut().unwrap();
    jail.uid_range = Some(IdRange::builder().first(70_001).count(1).build());
    jail.gid_range = Some(IdRange::builder().first(70_002).count(1).build());
    jail.resource_limits = Some(
        ResourceLimits::builder()
            .file_size_bytes(1 << 30)
            .open_files(300)
            .build(),
    );
    // What the jailed user may not read is copied; neither is changed.
    std::fs::set_permissions(
        corner.file("data.img"),
        std::fs::Permissions::from_mode(0o600),
    )
    .unwrap();
    let files = ["tiny", "root.img", "data.img"].map(|name| corner.file(name));
    let before = files.clone().map(|path| owner_and_mode(&path));
    let picture = corner.picture();
    let mut vm = smartvm.create(&spec).await.unwrap();
    vm.start(&StartOptions::default()).await.unwrap();
    let state = vm.state().unwrap();
    assert!(state.jailed());
    assert_eq!(status(&state, "Uid:"), "70001 70001 70001 70001");
    assert_eq!(status(&state, "Gid:"), "70002 70002 70002 70002");
    assert!(
        status(&state, "NSpid:").ends_with(" 1"),
        "its own namespace"
    );
    let pid = state.vmm.as_ref().unwrap().pid;
    let root = std::fs::metadata(format!("/proc/{pid}/root/.")).unwrap();
    let chroot = corner
        .file("jail/firecracker/large/root")
        .metadata()
        .unwrap();
    assert_eq!((root.dev(), root.ino()), (chroot.dev(), chroot.ino()));
    let limits = std::fs::read_to_string(format!("/proc/{pid}/limits")).unwrap();
    let limit = |name: &str| {
        let line = limits.lines().find(|line| line.starts_with(name)).unwrap();
        line[name.len()..]
            .split_whitespace()
            .next()
            .unwrap()
            .to_owned()
    };
    assert_eq!(limit("Max open files"), "300");
    assert_eq!(limit("Max file size"), (1 << 30).to_string());
    // Its API, its vsock socket where the user looks for it, its log, its metrics.
    vm.pause().await.unwrap();
    vm.resume().await.unwrap();
    let told: serde_json::Value = vm.client().ask(&Request::get("/vm/config")).await.unwrap();
    assert_eq!(told["drives"].as_array().unwrap().len(), 2, "{told}");
    std::os::unix::net::UnixStream::connect(corner.file("sockets/v.sock")).unwrap();
    let metrics = corner.file("logs/metrics");
    crate::support::eventually("metrics", || metrics.metadata().unwrap().len() > 100);
    assert_eq!(files.clone().map(|path| owner_and_mode(&path)), before);
    vm.stop(StopMode::Kill).await.unwrap();
    assert_eq!(files.map(|path| owner_and_mode(&path)), before);
    corner.becomes(&picture, "after the jail");
}

#[tokio::test]
async fn each_vm_has_a_user_of_its_own_and_gives_it_back() {
    let corner = Corner::new();
    let smartvm = corner.smartvm();
    let range = IdRange::builder().first(71_000).count(2).build();
    let jail = Jail::builder()
        .mode(JailMode::Required)
        .chroot_base(corner.file("jail"))
        .uid_range(range)
        .build();
    let mut vms = Vec::new();
    let mut uids = Vec::new();
    for _ in 0..2 {
        let mut vm = smartvm
            .create(&jailed(corner.small(), jail.clone()))
            .await
            .unwrap();
        vm.start(&StartOptions::default()).await.unwrap();
        uids.push(status(&vm.state().unwrap(), "Uid:"));
        vms.push(vm);
    }
    uids.sort();
    assert_eq!(uids, ["71000 71000 71000 71000", "71001 71001 71001 71001"]);
    let spec = jailed(corner.small(), jail);
    let mut third = smartvm.create(&spec).await.unwrap();
    let refused = third.start(&StartOptions::default()).await.unwrap_err();
    assert!(refused.to_string().contains("all 2 user ids"), "{refused}");
    vms.remove(0).stop(StopMode::Kill).await.unwrap();
    let mut third = smartvm.create(&spec).await.unwrap();
    third.start(&StartOptions::default()).await.unwrap();
    third.stop(StopMode::Kill).await.unwrap();
    vms.remove(0).stop(StopMode::Kill).await.unwrap();
}

#[tokio::test]
async fn chroots_whose_run_dirs_went_with_the_host_are_found_and_removed() {
    left_by_a_reboot(None).await;
    left_by_a_reboot(Some("base of its own")).await;
}

async fn left_by_a_reboot(base: Option<&str>) {
    let corner = Corner::new();
    let smartvm = corner.smartvm();
    let mut spec = corner.small();
    spec.id = Some("rebooted".into());
    let jail = Jail::builder().mode(JailMode::Required);
    let base = base.map(|base| corner.file(base));
    let jail = match &base {
        Some(base) => jail.chroot_base(base).build(),
        None => jail.build(),
    };
    let base = base.unwrap_or(corner.file("data/jail"));
    let spec = jailed(spec, jail);
    let mut vm = smartvm.create(&spec).await.unwrap();
    vm.start(&StartOptions::default()).await.unwrap();
    let state = vm.state().unwrap();
    // As after a reboot: no process, no run dir.
    for process in [state.keeper.unwrap(), state.vmm.unwrap()] {
        let pidfd = process.open().unwrap().unwrap();
        pidfd.signal(rustix::process::Signal::KILL).unwrap();
        pidfd.wait(std::time::Duration::from_secs(10)).unwrap();
    }
    drop(vm);
    std::fs::remove_dir_all(corner.file("run/rebooted")).unwrap();
    let chroot = base.join("firecracker/rebooted");
    assert!(chroot.exists());
    assert_eq!(smartvm.gc(true).unwrap().len(), 1);
    assert!(chroot.exists(), "a dry run removes nothing");
    assert_eq!(smartvm.gc(false).unwrap()[0].id, "rebooted");
    assert!(!chroot.exists());
    assert_eq!(smartvm.gc(false).unwrap(), []);
    let leases = std::fs::read_dir(base.join(".ids")).unwrap();
    assert_eq!(leases.count(), 1, "only the lock");
    let notes = std::fs::read_dir(corner.file("data/jail"))
        .into_iter()
        .flatten();
    let notes = notes.filter(|entry| {
        let name = entry.as_ref().unwrap().file_name();
        name.to_string_lossy().contains("elsewhere")
    });
    assert_eq!(notes.count(), 0);
}

#[tokio::test]
async fn what_is_ours_in_the_chroot_is_not_the_jailed_users_to_exchange() {
    let corner = Corner::new();
    let mut vm = large(&corner).await;
    let root = corner.file("jail/firecracker/large/root");
    for ours in [root.clone(), root.join("drives")] {
        let found = ours.metadata().unwrap();
        assert_eq!(found.uid(), 0, "{}", ours.display());
    }
    // Nobody but its owner removes or renames what is in a sticky directory.
    assert_eq!(root.metadata().unwrap().mode() & 0o7777, 0o1775);
    vm.stop(StopMode::Kill).await.unwrap();
}
