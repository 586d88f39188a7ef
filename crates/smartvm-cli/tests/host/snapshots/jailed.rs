//! Snapshots of jailed VMs, and restores into jails.

use std::os::unix::fs::{FileExt, MetadataExt, symlink};
use std::path::PathBuf;

use smartvm::MicroVm;
use smartvm::spec::{Jail, JailMode, MicroVmSpec, ResourceLimits, SnapshotType};
use smartvm::vm::{Change, StartOptions, StopMode};

use super::{creation, loading, place, quick, under};
use crate::support::{Corner, eventually};

fn jail(corner: &Corner, mode: JailMode) -> Jail {
    Jail::builder()
        .mode(mode)
        .chroot_base(corner.file("jail"))
        .build()
}

async fn started(corner: &Corner, spec: &MicroVmSpec) -> MicroVm {
    let mut vm = corner.smartvm().create(spec).await.unwrap();
    vm.start(&StartOptions::default()).await.unwrap();
    vm
}

/// A file as the VM's Firecracker sees it.
fn seen(vm: &MicroVm, name: &str) -> PathBuf {
    let pid = vm.state().unwrap().vmm.unwrap().pid;
    format!("/proc/{pid}/root/{name}").into()
}

fn uid(vm: &MicroVm) -> u32 {
    let pid = vm.state().unwrap().vmm.unwrap().pid;
    std::fs::metadata(format!("/proc/{pid}")).unwrap().uid()
}

#[tokio::test]
async fn a_jailed_vm_is_snapshotted_and_goes_on_in_a_jail_of_its_own_or_without() {
    let corner = Corner::new();
    let smartvm = corner.smartvm();
    let before = corner.picture();
    let mut spec = corner.large_jailed();
    spec.machine_config.track_dirty_pages = Some(true);
    let mut vm = started(&corner, &spec).await;
    let copied = seen(&vm, "drives/copied-root.img");
    let file = std::fs::OpenOptions::new().write(true).open(copied);
    file.unwrap().write_all_at(b"by the guest", 100).unwrap();
    let full = vm
        .snapshot(&creation(&place(&corner, "full")), &quick())
        .await;
    let full = full.unwrap();
    let mut diff = creation(&place(&corner, "diff"));
    diff.snapshot_type = Some(SnapshotType::Diff);
    let diff = vm.snapshot(&diff, &quick()).await.unwrap();
    let kept: Vec<_> = std::fs::read_dir(corner.file("jail/firecracker/large/root"))
        .unwrap()
        .map(|entry| entry.unwrap().file_name().into_string().unwrap())
        .filter(|name| name.contains("making"))
        .collect();
    assert!(kept.is_empty(), "the way out was left open: {kept:?}");
    for file in [full.place().state(), full.place().memory()] {
        assert_eq!(file.metadata().unwrap().uid(), 0, "{}", file.display());
    }
    let drives = full.place().dir().join("drives");
    let contents = |name: &str| std::fs::read(drives.join(name)).unwrap();
    assert_eq!(&contents("copied-root.img")[100..112], b"by the guest");
    assert_eq!(
        contents("linked-data.img"),
        vec![7; 64 << 10],
        "a bound drive"
    );

    // Beside the first, in a jail as it was.
    let mut second = smartvm
        .restore(&loading(full.place()), &under("second"))
        .await
        .unwrap();
    assert!(second.state().unwrap().jailed());
    assert_ne!(uid(&second), uid(&vm));
    let inode = |path: PathBuf| path.metadata().unwrap().ino();
    assert_eq!(
        inode(seen(&second, "memory")),
        inode(full.place().memory().to_owned()),
        "the memory is shared, not copied"
    );
    assert_eq!(
        inode(seen(&second, "drives/linked-data.img")),
        inode(drives.join("linked-data.img"))
    );
    let bytes = std::fs::read(seen(&second, "drives/copied-root.img")).unwrap();
    assert_eq!(&bytes[100..112], b"by the guest");
    second.pause().await.unwrap();
    second.resume().await.unwrap();
    std::os::unix::net::UnixStream::connect(second.run_dir().file("vsock.sock")).unwrap();
    // Of what was restored too, with its parents merged.
    let third = second
        .snapshot(&creation(&place(&corner, "third")), &quick())
        .await;
    let mut free = under("free");
    free.jail = Some(jail(&corner, JailMode::Off));
    let third = third.unwrap();
    let mut free = smartvm
        .restore(&loading(third.place()), &free)
        .await
        .unwrap();
    assert!(!free.state().unwrap().jailed());
    let mut merged = smartvm
        .restore(&loading(diff.place()), &under("merged"))
        .await
        .unwrap();
    assert!(merged.state().unwrap().jailed());
    assert_eq!(
        smartvm.gc(false).unwrap(),
        [],
        "restored ones are as they say"
    );
    for vm in [&mut vm, &mut second, &mut free, &mut merged] {
        vm.stop(StopMode::Kill).await.unwrap();
    }
    for snapshot in [diff, full, third] {
        snapshot.remove().unwrap();
    }
    std::fs::remove_dir_all(corner.file("data/snapshots")).unwrap();
    corner.becomes(&before, "after all of them");
}

#[tokio::test]
async fn a_vm_that_was_free_goes_on_in_a_jail() {
    let corner = Corner::new();
    let smartvm = corner.smartvm();
    let mut vm = started(&corner, &corner.large()).await;
    let snapshot = vm
        .snapshot(&creation(&place(&corner, "free")), &quick())
        .await;
    let snapshot = snapshot.unwrap();
    vm.stop(StopMode::Kill).await.unwrap();
    let before = corner.picture();
    let mut options = under("jailed");
    options.jail = Some(jail(&corner, JailMode::Required));
    let mut vm = smartvm
        .restore(&loading(snapshot.place()), &options)
        .await
        .unwrap();
    assert!(vm.state().unwrap().jailed());
    // Its vsock socket was in a directory of the user's: here it is in one of the jail's.
    let vsock = &vm.state().unwrap().spec.vsock.unwrap().uds_path;
    std::os::unix::net::UnixStream::connect(vsock).unwrap();
    vm.stop(StopMode::Kill).await.unwrap();
    corner.becomes(&before, "after the jail");
}

#[tokio::test]
async fn an_interrupted_snapshot_of_a_jailed_vm_leaves_no_way_out() {
    let corner = Corner::new();
    let mut vm = started(&corner, &corner.large_jailed()).await;
    std::fs::create_dir_all(corner.file("data/snapshots")).unwrap();
    let before = corner.picture();
    for moment in 0..5 {
        let seen = std::sync::atomic::AtomicUsize::new(0);
        let options = quick().watch(std::sync::Arc::new(move |_| {
            match seen.fetch_add(1, std::sync::atomic::Ordering::SeqCst) == moment {
                true => std::ops::ControlFlow::Break(()),
                false => std::ops::ControlFlow::Continue(()),
            }
        }));
        let place = place(&corner, "never");
        vm.snapshot(&creation(&place), &options).await.unwrap_err();
        corner.becomes(&before, &format!("cancelled at moment {moment}"));
        vm.pause().await.unwrap();
        vm.resume().await.unwrap();
    }
    vm.stop(StopMode::Kill).await.unwrap();
}

#[tokio::test]
async fn a_vm_that_may_write_no_file_as_large_as_its_memory_is_not_killed_by_a_snapshot() {
    let corner = Corner::new();
    let mut spec = corner.small();
    let mut jail = jail(&corner, JailMode::Required);
    jail.resource_limits = Some(ResourceLimits::builder().file_size_bytes(64 << 20).build());
    spec.jail = Some(jail);
    let mut vm = started(&corner, &spec).await;
    let refused = vm
        .snapshot(&creation(&place(&corner, "large")), &quick())
        .await;
    let refused = refused.unwrap_err();
    assert!(
        refused.to_string().contains("as large as its memory"),
        "{refused}"
    );
    vm.pause().await.unwrap();
    vm.stop(StopMode::Kill).await.unwrap();
}

#[tokio::test]
async fn what_a_jailed_process_plants_in_its_root_leads_nobody_out() {
    let corner = Corner::new();
    let mut vm = started(&corner, &corner.large_jailed()).await;
    let root = corner.file("jail/firecracker/large/root");
    let secret = corner.file("secret");
    std::fs::write(&secret, vec![5; 4096]).unwrap();
    // Another's socket, and another's file, behind its own names.
    let _other = std::os::unix::net::UnixListener::bind(corner.file("other.sock")).unwrap();
    let plant = |name: &str, target: &str| {
        std::fs::rename(root.join(name), root.join("kept")).unwrap();
        symlink(corner.file(target), root.join(name)).unwrap();
    };
    let put_back = |name: &str| {
        std::fs::remove_file(root.join(name)).unwrap();
        std::fs::rename(root.join("kept"), root.join(name)).unwrap();
    };

    plant("firecracker.sock", "other.sock");
    let refused = vm.pause().await.unwrap_err();
    assert!(
        refused.to_string().contains("connecting to Firecracker"),
        "{refused}"
    );
    put_back("firecracker.sock");
    plant("vsock.sock", "other.sock");
    let agent = vm.agent().unwrap();
    let refused = agent
        .greeting(std::time::Duration::from_secs(5))
        .await
        .unwrap_err();
    assert!(refused.to_string().contains("vsock socket"), "{refused}");
    put_back("vsock.sock");
    std::fs::create_dir(corner.file("drives")).unwrap();
    symlink(&secret, corner.file("drives/linked-data.img")).unwrap();
    symlink(&secret, corner.file("drives/copied-root.img")).unwrap();
    plant("drives", "drives");
    let place = place(&corner, "stolen");
    let refused = vm.snapshot(&creation(&place), &quick()).await.unwrap_err();
    assert!(
        refused.to_string().contains("looking in the jail"),
        "{refused}"
    );
    let grow = Change::GrowDrive {
        drive_id: "copied".into(),
        size_bytes: 1 << 20,
    };
    let refused = vm.update(grow).await.unwrap_err();
    assert!(
        refused.to_string().contains("looking in the jail"),
        "{refused}"
    );
    assert_eq!(secret.metadata().unwrap().len(), 4096);
    put_back("drives");
    vm.pause().await.unwrap();
    vm.stop(StopMode::Kill).await.unwrap();
    eventually("its chroot goes", || !root.exists());
    assert!(secret.exists() && corner.file("other.sock").exists());
}
