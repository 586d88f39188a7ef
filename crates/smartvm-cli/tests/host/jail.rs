//! Jailed VMs: who Firecracker is, what it sees, and that the user's files stay as they are.

use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::path::Path;

use smartvm::ErrorKind;
use smartvm::firecracker::client::Request;
use smartvm::rundir::VmState;
use smartvm::spec::{CgroupLimits, IdRange, Jail, JailMode, MicroVmSpec, ResourceLimits};
use smartvm::vm::{Change, StartOptions, StopMode};

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
async fn a_file_that_the_jailed_user_may_not_write_is_refused_and_not_changed() {
    let corner = Corner::new();
    let smartvm = corner.smartvm();
    let before = corner.picture();
    let mut spec = corner.large_jailed();
    spec.drives[0].ephemeral = Some(false);
    let image = corner.file("root.img");
    let was = owner_and_mode(&image);
    let mut vm = smartvm.create(&spec).await.unwrap();
    let refused = vm.start(&StartOptions::default()).await.unwrap_err();
    assert_eq!(refused.kind(), ErrorKind::Host, "{refused:?}");
    assert!(
        refused.to_string().contains("may not read and write"),
        "{refused}"
    );
    assert_eq!(owner_and_mode(&image), was);
    assert_eq!(corner.picture(), before);
    // Where others may, it is bound: no copy, and no change.
    std::fs::set_permissions(&image, std::fs::Permissions::from_mode(0o666)).unwrap();
    let was = owner_and_mode(&image);
    let mut vm = smartvm.create(&spec).await.unwrap();
    vm.start(&StartOptions::default()).await.unwrap();
    let pid = vm.state().unwrap().vmm.unwrap().pid;
    let seen = format!("/proc/{pid}/root/drives/copied-root.img");
    assert_eq!(
        std::fs::metadata(seen).unwrap().ino(),
        image.metadata().unwrap().ino()
    );
    vm.stop(StopMode::Kill).await.unwrap();
    assert_eq!(owner_and_mode(&image), was);
    corner.becomes(&before, "after a bound drive");
}

#[tokio::test]
async fn a_chroot_base_without_devices_and_limits_without_cgroup_v2_are_refused() {
    let corner = Corner::new();
    let smartvm = corner.smartvm();
    // /proc is mounted nodev and noexec on every host.
    let nodev = Jail::builder()
        .mode(JailMode::Required)
        .chroot_base("/dev/pts/jail")
        .build();
    let spec = jailed(corner.small(), nodev);
    let mounts = std::fs::read_to_string("/proc/self/mounts").unwrap();
    let noexec = mounts
        .lines()
        .any(|line| line.contains(" /dev/pts ") && line.contains("noexec"));
    let error = smartvm.create(&spec).await;
    if noexec {
        let error = error.unwrap_err();
        assert!(error.to_string().contains("jail.chrootBase"), "{error}");
    } else {
        println!("skipped: /dev/pts is not mounted noexec here");
    }
    let limits = CgroupLimits::builder().memory_mib(300).build();
    let limited = Jail::builder()
        .mode(JailMode::Required)
        .chroot_base(corner.file("jail"))
        .cgroup(limits)
        .build();
    if Path::new("/sys/fs/cgroup/cgroup.controllers").exists() {
        println!("skipped: this host has cgroup v2, the limits are taken");
        return;
    }
    let error = smartvm
        .create(&jailed(corner.small(), limited))
        .await
        .unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Host);
    assert!(error.to_string().contains("no cgroup v2"), "{error}");
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
async fn a_drives_file_is_exchanged_and_grows_in_the_jail() {
    let corner = Corner::new();
    let before = corner.picture();
    let mut vm = corner
        .smartvm()
        .create(&corner.large_jailed())
        .await
        .unwrap();
    vm.start(&StartOptions::default()).await.unwrap();
    for name in ["new-one.img", "new-two.img"] {
        std::fs::write(corner.file(name), vec![8; 32 << 10]).unwrap();
    }
    let swap = |drive: &str, image: &str| Change::SwapDrive {
        drive_id: drive.into(),
        path_on_host: corner.file(image),
    };
    for image in ["new-one.img", "new-two.img"] {
        vm.update(swap("copied", image)).await.unwrap();
        vm.update(swap("linked", image)).await.unwrap();
    }
    let state = vm.state().unwrap();
    let root = format!("/proc/{}/root", state.vmm.as_ref().unwrap().pid);
    let seen = |index: usize| Path::new(&root).join(&state.paths.drives[index]);
    for index in 0..2 {
        assert_eq!(std::fs::read(seen(index)).unwrap(), vec![8; 32 << 10]);
    }
    let told: serde_json::Value = vm.client().ask(&Request::get("/vm/config")).await.unwrap();
    assert_eq!(told["drives"][0]["path_on_host"], state.paths.drives[0]);
    let inode = |path: &Path| path.metadata().unwrap().ino();
    assert_eq!(inode(&seen(1)), inode(&corner.file("new-two.img")), "bound");
    let drives = corner.file("jail/firecracker/large/root/drives");
    assert_eq!(
        std::fs::read_dir(drives).unwrap().count(),
        2,
        "the old ones are gone"
    );
    vm.update(Change::GrowDrive {
        drive_id: "copied".into(),
        size_bytes: 64 << 10,
    })
    .await
    .unwrap();
    assert_eq!(seen(0).metadata().unwrap().len(), 64 << 10);
    assert_eq!(
        corner.file("new-two.img").metadata().unwrap().len(),
        32 << 10
    );
    vm.stop(StopMode::Kill).await.unwrap();
    for name in ["new-one.img", "new-two.img"] {
        std::fs::remove_file(corner.file(name)).unwrap();
    }
    corner.becomes(&before, "after the jail");
}

#[tokio::test]
async fn what_is_ours_in_the_chroot_is_not_the_jailed_users_to_exchange() {
    let corner = Corner::new();
    let mut vm = corner
        .smartvm()
        .create(&corner.large_jailed())
        .await
        .unwrap();
    vm.start(&StartOptions::default()).await.unwrap();
    let root = corner.file("jail/firecracker/large/root");
    for ours in [root.clone(), root.join("drives")] {
        let found = ours.metadata().unwrap();
        assert_eq!(found.uid(), 0, "{}", ours.display());
    }
    // Nobody but its owner removes or renames what is in a sticky directory.
    assert_eq!(root.metadata().unwrap().mode() & 0o7777, 0o1775);
    vm.stop(StopMode::Kill).await.unwrap();
}

#[test]
fn root_is_jailed_by_default_and_told_where_it_is_not() {
    let corner = Corner::new();
    let spec = corner.spec_file(&corner.small());
    let run = |id: &str, flags: &[&str]| {
        let mut command = corner.command();
        command
            .args(["run", "--detach", "--assume-kvm", "--id", id, "-f"])
            .arg(&spec)
            .args(flags);
        command
    };
    let jailed = |id: &str| {
        let listed = corner.command().args(["ps", "--json"]).assert().success();
        let rows: serde_json::Value = serde_json::from_slice(&listed.get_output().stdout).unwrap();
        let rows = rows.as_array().unwrap();
        let row = rows.iter().find(|row| row["id"] == id).unwrap();
        row["jailed"].as_bool().unwrap()
    };
    run("default", &[]).assert().success();
    run("free", &["--jail", "off"]).assert().success();
    // A Firecracker without a jailer beside it.
    let alone = corner.file("alone-firecracker");
    std::fs::copy(crate::support::firecracker(), &alone).unwrap();
    let told = run("alone", &[])
        .env("SMARTVM_FIRECRACKER", &alone)
        .assert()
        .success();
    let told = String::from_utf8_lossy(&told.get_output().stderr).into_owned();
    assert!(
        told.contains("without a jail: there is no jailer at") && told.lines().count() == 1,
        "{told}"
    );
    let silent = run("silent", &["--jail", "off"])
        .env("SMARTVM_FIRECRACKER", &alone)
        .assert()
        .success();
    assert!(silent.get_output().stderr.is_empty());
    run("never", &["--jail", "required"])
        .env("SMARTVM_FIRECRACKER", &alone)
        .assert()
        .code(5);
    assert!(jailed("default"));
    for id in ["free", "alone", "silent"] {
        assert!(!jailed(id), "{id}");
    }
    let planned = corner
        .command()
        .args(["plan", "-f"])
        .arg(&spec)
        .output()
        .unwrap();
    assert!(String::from_utf8_lossy(&planned.stdout).contains("jailed by"));
    corner
        .command()
        .args(["rm", "--force", "default", "free", "alone", "silent"])
        .assert()
        .success();
}
