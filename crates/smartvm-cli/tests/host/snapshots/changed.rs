//! What was changed at run time is so in what goes on from a snapshot.

use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};

use serde_json::Value;
use smartvm::MicroVm;
use smartvm::firecracker::client::Request;
use smartvm::spec::{Balloon, JailMode, NetworkInterface, RateLimiter, TokenBucket};
use smartvm::vm::{Change, Direction, StartOptions, StopMode};

use super::{creation, loading, place, quick, under};
use crate::network::Namespace;
use crate::support::{Corner, becomes};

#[tokio::test]
async fn a_restored_vm_has_what_was_changed_before_its_snapshot() {
    Box::pin(goes_on_as_changed(JailMode::Off)).await;
}

#[tokio::test]
async fn a_vm_restored_into_a_jail_has_what_was_changed_before_its_snapshot() {
    Box::pin(goes_on_as_changed(JailMode::Required)).await;
}

/// The file that Firecracker has for a drive.
fn file(vm: &MicroVm, drive: usize) -> PathBuf {
    let state = vm.state().unwrap();
    let root = match state.jailed() {
        true => format!("/proc/{}/root", state.vmm.unwrap().pid).into(),
        false => vm.run_dir().path().to_owned(),
    };
    root.join(&state.paths.drives[drive])
}

fn limits(size: u64) -> Option<RateLimiter> {
    let bucket = TokenBucket::builder().size(size).refill_time(100).build();
    Some(RateLimiter::builder().bandwidth(bucket).build())
}

fn limit(size: u64) -> Change {
    Change::LimitDrive {
        drive_id: "copied".into(),
        limits: limits(size),
    }
}

fn limit_interface(direction: Direction, size: u64) -> Change {
    Change::LimitInterface {
        iface_id: "net0".into(),
        direction,
        limits: limits(size),
    }
}

fn swap(drive_id: &str, path: &Path) -> Change {
    Change::SwapDrive {
        drive_id: drive_id.into(),
        path_on_host: path.to_owned(),
    }
}

/// What Firecracker itself says.
#[derive(Debug, PartialEq)]
struct Told {
    drive: u64,
    rx: u64,
    tx: u64,
    /// The time between two statistics of the balloon.
    interval: u64,
}

async fn told(vm: &MicroVm) -> Told {
    let config: Value = vm.client().ask(&Request::get("/vm/config")).await.unwrap();
    let drives = config["drives"].as_array().unwrap();
    let copied = drives.iter().find(|drive| drive["drive_id"] == "copied");
    let interface = &config["network-interfaces"][0];
    let size = |limiter: &Value| limiter["bandwidth"]["size"].as_u64().unwrap();
    Told {
        drive: size(&copied.unwrap()["rate_limiter"]),
        rx: size(&interface["rx_rate_limiter"]),
        tx: size(&interface["tx_rate_limiter"]),
        interval: config["balloon"]["stats_polling_interval_s"]
            .as_u64()
            .unwrap(),
    }
}

/// The limits of the interface, as `inspect` shows them.
fn inspected(corner: &Corner, vm: &MicroVm) -> [Option<RateLimiter>; 2] {
    let shown = corner
        .command()
        .args(["inspect", vm.id().as_str()])
        .output();
    let shown: Value = serde_json::from_slice(&shown.unwrap().stdout).unwrap();
    let interface = &shown[0]["spec"]["networkInterfaces"][0];
    ["rxRateLimiter", "txRateLimiter"]
        .map(|name| serde_json::from_value(interface[name].clone()).unwrap())
}

async fn goes_on_as_changed(mode: JailMode) {
    let namespace = Namespace::enter();
    let corner = Corner::new();
    let smartvm = corner.smartvm();
    // The network's own directory stays; what it was for is in the namespace's picture.
    let picture = || {
        let files = corner.picture().into_iter();
        let of_vms = files.filter(|line| !line.contains("/run/.network"));
        of_vms.chain(namespace.picture()).collect::<Vec<_>>()
    };
    let before = picture();
    let mut spec = corner.large_jailed();
    spec.jail.as_mut().unwrap().mode = Some(mode);
    let balloon = Balloon::builder().amount_mib(0).deflate_on_oom(false);
    spec.balloon = Some(balloon.stats_polling_interval_s(1).build());
    let interface = NetworkInterface::builder().iface_id("net0");
    let old = limits(1000).unwrap();
    let interface = interface.rx_rate_limiter(old.clone()).tx_rate_limiter(old);
    spec.network_interfaces = vec![interface.build()];
    let mut vm = smartvm.create(&spec).await.unwrap();
    vm.start(&StartOptions::default()).await.unwrap();
    for name in ["new-root.img", "new-data.img", "later.img"] {
        std::fs::write(corner.file(name), name.repeat(4096)).unwrap();
    }
    for change in [
        swap("copied", &corner.file("new-root.img")),
        swap("linked", &corner.file("new-data.img")),
        Change::GrowDrive {
            drive_id: "copied".into(),
            size_bytes: 128 << 10,
        },
        limit(5000),
        limit_interface(Direction::Rx, 6000),
        limit_interface(Direction::Tx, 7000),
        Change::BalloonStatistics { interval_s: 7 },
    ] {
        vm.update(change).await.unwrap();
    }
    let disk = std::fs::OpenOptions::new().write(true).open(file(&vm, 0));
    disk.unwrap()
        .write_all_at(b"by the guest", 100 << 10)
        .unwrap();
    let params = creation(&place(&corner, "changed"));
    let snapshot = vm.snapshot(&params, &quick()).await.unwrap();
    vm.stop(StopMode::Kill).await.unwrap();
    for name in ["new-root.img", "new-data.img"] {
        std::fs::remove_file(corner.file(name)).unwrap();
    }

    let mut vm = smartvm
        .restore(&loading(snapshot.place()), &under("second"))
        .await
        .unwrap();
    let state = vm.state().unwrap();
    assert_eq!(state.jailed(), mode == JailMode::Required);
    assert_eq!(state.spec.drives[0].rate_limiter, limits(5000));
    let mut changed = Told {
        drive: 5000,
        rx: 6000,
        tx: 7000,
        interval: 7,
    };
    assert_eq!(told(&vm).await, changed);
    assert_eq!(inspected(&corner, &vm), [limits(6000), limits(7000)]);
    let [copied, linked] = [0, 1].map(|drive| std::fs::read(file(&vm, drive)).unwrap());
    assert!(copied.starts_with(b"new-root.img") && linked.starts_with(b"new-data.img"));
    assert_eq!(copied.len(), 128 << 10);
    assert!(copied[100 << 10..].starts_with(b"by the guest"));

    // It can be changed on.
    for change in [
        swap("copied", &corner.file("later.img")),
        limit(9000),
        limit_interface(Direction::Tx, 8000),
    ] {
        vm.update(change).await.unwrap();
    }
    (changed.drive, changed.tx) = (9000, 8000);
    assert_eq!(told(&vm).await, changed);
    assert_eq!(inspected(&corner, &vm), [limits(6000), limits(8000)]);
    let later = std::fs::read(file(&vm, 0)).unwrap();
    assert!(later.starts_with(b"later.img"));
    vm.stop(StopMode::Kill).await.unwrap();
    snapshot.remove().unwrap();
    std::fs::remove_file(corner.file("later.img")).unwrap();
    std::fs::remove_dir_all(corner.file("data/snapshots")).unwrap();
    becomes(picture, &before, "after all of it");
}
