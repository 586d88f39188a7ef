//! Devices and settings, as a guest sees them: two guests, many checks on each. In a jail they
//! show the same.

mod backing;
mod calls;
mod limits;
mod memory;
mod metadata;
mod processor;
mod tap;

use std::fs::Permissions;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

use serde_json::{Value, json};

use crate::support::{Ground, Vm, boot_source, image_file, smartvm, until};
use limits::limit;
use tap::Tap;

/// The slow limit, in bytes a second.
const SLOW: u64 = 384_000;

/// What a spec that says nothing of it gets.
const METADATA: metadata::Service = metadata::Service {
    version: metadata::Version::V2,
    address: "169.254.169.254",
};

/// A file of this size that begins with this content. A jailed guest may write to it, too.
fn file(path: PathBuf, content: &[u8], size: u64) -> PathBuf {
    std::fs::write(&path, content).unwrap();
    let file = std::fs::OpenOptions::new().write(true).open(&path).unwrap();
    file.set_len(size).unwrap();
    file.set_permissions(Permissions::from_mode(0o666)).unwrap();
    path
}

fn update(vm: &Vm, args: &[&str]) {
    smartvm()
        .args(["update", &vm.id])
        .args(args)
        .assert()
        .success();
}

/// The devices that the first guest has, with limits from the start.
fn spec(ground: Ground, dir: &Path, taps: &[Tap; 2]) -> Value {
    let drive = |id: &str, content: &[u8]| {
        let path = file(dir.join(id), content, 8 << 20);
        json!({ "driveId": id, "pathOnHost": path, "isRootDevice": false })
    };
    let mut data = drive("data", b"old content");
    data["rateLimiter"] = limit(SLOW);
    data["ioEngine"] = "Async".into();
    let mut quick = drive("quick", b"quick");
    quick["rateLimiter"] = limit(4 * SLOW);
    quick["cacheType"] = "Writeback".into();
    quick["ephemeral"] = false.into();
    let mut fixed = drive("fixed", b"fixed");
    fixed["isReadOnly"] = true.into();
    let interface = |id: &str, tap: &Tap, rx: u64, tx: u64| {
        json!({
            "ifaceId": id, "hostDevName": tap.name, "guestMac": tap.mac,
            "rxRateLimiter": limit(rx), "txRateLimiter": limit(tx),
        })
    };
    json!({
        "id": ground.id("devices"),
        "jail": { "mode": ground.mode() },
        "bootSource": boot_source("smartvm.init=agent the.marker=7"),
        "machineConfig": { "vcpuCount": 2, "memSizeMib": 192, "smt": true },
        "drives": [
            { "driveId": "root", "pathOnHost": image_file("rootfs"), "isRootDevice": true },
            data, quick, fixed,
        ],
        "networkInterfaces": [
            interface("eth0", &taps[0], SLOW, 4 * SLOW),
            interface("eth1", &taps[1], 4 * SLOW, SLOW),
        ],
        "vsock": { "guestCid": 42, "udsPath": dir.join("vsock") },
        "mmds": { "networkInterfaces": ["eth0"] },
        "metadata": { "role": "web" },
        "balloon": { "amountMib": 0, "deflateOnOom": true, "statsPollingIntervalS": 1 },
        "entropy": {},
        "serial": { "path": dir.join("console") },
        "metrics": { "metricsPath": dir.join("metrics") },
        "logger": { "logPath": dir.join("log"), "level": "Info" },
    })
}

#[test]
fn a_guest_shows_its_devices_and_every_change_of_them() {
    all_of_it_is_shown(Ground::Free);
}

#[test]
fn a_jailed_guest_shows_the_same_devices_and_changes() {
    all_of_it_is_shown(Ground::Jailed);
}

fn all_of_it_is_shown(ground: Ground) {
    let dir = tempfile::tempdir().unwrap();
    let taps = [0, 1].map(|number| Tap::make(ground, number));
    let socket = dir.path().join("vsock");
    let early = calls::Awaited::early(&socket);
    let vm = ground.boot(&spec(ground, dir.path(), &taps));
    processors_and_memory(&vm);
    streams(&vm, dir.path());
    calls::both_ways(&vm, &socket, early);
    drives(&vm);
    limits::from_the_start_and_changed(&vm, &taps);
    swapped_and_grown(&vm, dir.path());
    metadata::answers_inside(&vm, &METADATA);
    memory::taken_away_and_given_back(&vm);
    memory::left_to_a_program_in_need(&vm);
    copies(&vm, dir.path());
}

fn processors_and_memory(vm: &Vm) {
    assert_eq!(vm.said("nproc"), "2");
    processor::hides_nothing(vm);
    let siblings = "cat /sys/devices/system/cpu/cpu0/topology/thread_siblings_list";
    assert_eq!(vm.said(siblings), "0-1", "both are threads of one core");
    assert!(vm.said("cat /proc/cmdline").contains("the.marker=7"));
    let total = memory::figure(vm, "MemTotal");
    assert!((120 << 10..=192 << 10).contains(&total), "{total} KiB");
    let random = vm.said("cat /sys/class/misc/hw_random/rng_available");
    assert!(random.contains("virtio_rng"), "{random}");
    assert_eq!(vm.said("head -c 64 /dev/hwrng | wc -c"), "64");
}

/// Console, log and metrics where the spec names them.
fn streams(vm: &Vm, dir: &Path) {
    vm.said("echo from the guest > /dev/ttyS0");
    until("the console's copy", || {
        let copy = std::fs::read_to_string(dir.join("console")).unwrap();
        copy.contains("from the guest")
    });
    let log = || std::fs::read_to_string(dir.join("log")).unwrap();
    until("the log", || log().contains("Running Firecracker"));
    assert!(stats(vm)["metrics"]["balloon"].is_object());
    let metrics = std::fs::read_to_string(dir.join("metrics")).unwrap();
    assert!(metrics.contains("utc_timestamp_ms"), "{metrics}");
}

fn stats(vm: &Vm) -> Value {
    let told = smartvm().args(["--json", "stats", &vm.id]).output();
    serde_json::from_slice(&told.unwrap().stdout).unwrap()
}

const NO_WRITE: &str = "! dd if=/dev/zero of=/dev/vdd bs=512 count=1 conv=fsync 2>/dev/null";

/// What is fixed at boot: read only or not, the cache, content.
fn drives(vm: &Vm) {
    let cache = "cat /sys/class/block/vd[bc]/queue/write_cache";
    assert_eq!(vm.said(cache), "write through\nwrite back");
    assert_eq!(vm.said("cat /sys/class/block/vd[bcd]/ro"), "0\n0\n1");
    assert_eq!(vm.said("head -c 5 /dev/vdd"), "fixed");
    vm.said(NO_WRITE);
    assert_eq!(vm.said("head -c 11 /dev/vdb"), "old content");
    // Through io_uring, and back.
    let script = "echo written > /tmp/w; dd if=/tmp/w of=/dev/vdb bs=512 seek=9 conv=fsync,notrunc \
        2>/dev/null; dd if=/dev/vdb bs=512 skip=9 count=1 iflag=direct 2>/dev/null | head -c 7";
    assert_eq!(vm.said(script), "written");
}

fn swapped_and_grown(vm: &Vm, dir: &Path) {
    let new = file(dir.join("new"), b"new content", 4 << 20);
    update(vm, &["--swap", &format!("data={}", new.display())]);
    let size = "blockdev --getsize64 /dev/vdb";
    until("the new size", || vm.said(size) == (4 << 20).to_string());
    let content = |drive: &str| {
        vm.said(&format!(
            "blockdev --flushbufs /dev/{drive}; head -c 11 /dev/{drive}"
        ))
    };
    assert_eq!(content("vdb"), "new content");
    update(vm, &["--grow", "data=16MiB"]);
    until("growth", || vm.said(size) == (16 << 20).to_string());
    // There is something behind it.
    let script = "dd if=/dev/zero of=/dev/vdb bs=1M seek=15 count=1 conv=fsync,notrunc 2>&1";
    vm.said(script);

    // What isn't copied: a drive that is only read, and one whose file somebody else makes larger.
    let other = file(dir.join("other"), b"fixed anew,", 1 << 20);
    update(vm, &["--swap", &format!("fixed={}", other.display())]);
    until("the other content", || content("vdd") == "fixed anew,");
    vm.said(NO_WRITE);
    let quick = std::fs::OpenOptions::new()
        .write(true)
        .open(dir.join("quick"));
    quick.unwrap().set_len(12 << 20).unwrap();
    update(vm, &["--refresh", "quick"]);
    let size = "blockdev --getsize64 /dev/vdc";
    until("its growth", || vm.said(size) == (12 << 20).to_string());
    let script = "echo kept | dd of=/dev/vdc bs=1M seek=11 count=1 conv=fsync,notrunc 2>&1";
    vm.said(script);
    let kept = std::fs::read(dir.join("quick")).unwrap();
    assert!(kept[11 << 20..].starts_with(b"kept\n"));
}

fn copies(vm: &Vm, dir: &Path) {
    let (there, back) = (dir.join("there"), dir.join("back"));
    let inside = |path: &str| format!("{}:{path}", vm.id);
    std::fs::write(&there, vec![5; 300_000]).unwrap();
    let copy = |from: &str, to: &str| smartvm().args(["cp", from, to]).assert();
    let file = inside("/tmp/file");
    copy(there.to_str().unwrap(), &file).success();
    copy(&file, back.to_str().unwrap()).success();
    assert_eq!(std::fs::read(back).unwrap(), vec![5; 300_000]);
    let piped = inside("/tmp/in");
    smartvm()
        .args(["cp", "-", &piped])
        .write_stdin("piped")
        .assert()
        .success();
    copy(&piped, "-").success().stdout("piped");
    for bad in ["/missing", "/tmp/in/below", "relative"] {
        copy(&inside(bad), "-").failure().stdout("");
    }
    copy(&inside("/missing"), "-").code(3);
    copy(there.to_str().unwrap(), &inside("/no/such/place")).code(1);
    copy("/no/such/file", &inside("/tmp/x")).code(3);
    assert_eq!(vm.said("ls /tmp/x 2>/dev/null; true"), "");
}
