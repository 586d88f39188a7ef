//! Devices and settings, as a guest sees them: one guest, many checks.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};

use serde_json::{Value, json};

use crate::support::{Vm, image, smartvm};

const TAP: &str = "smtap0";
/// Slow enough for an emulated guest to be far quicker without it.
const SLOW: u64 = 512_000;

/// A TAP of this test's own, gone at its end.
struct Tap;

impl Tap {
    fn make() -> Self {
        for args in [
            &["tuntap", "add", TAP, "mode", "tap"][..],
            &["link", "set", TAP, "up"],
        ] {
            let done = Command::new("ip").args(args).output().unwrap();
            assert!(done.status.success(), "{args:?}: {done:?}");
        }
        Self
    }
}

impl Drop for Tap {
    fn drop(&mut self) {
        let _gone = Command::new("ip").args(["link", "del", TAP]).output();
    }
}

fn said(vm: &Vm, script: &str) -> String {
    let ran = vm.exec(&[], &["sh", "-c", script]).output().unwrap();
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    assert!(
        ran.status.success(),
        "{script}: {} {}",
        text(&ran.stdout),
        text(&ran.stderr)
    );
    text(&ran.stdout).trim_end().to_owned()
}

fn image_file(path: PathBuf, content: &[u8], size: u64) -> PathBuf {
    std::fs::write(&path, content).unwrap();
    let file = std::fs::OpenOptions::new().write(true).open(&path).unwrap();
    file.set_len(size).unwrap();
    path
}

fn spec(dir: &Path) -> Value {
    let manifest = std::fs::read_to_string(image().join("manifest.json")).unwrap();
    let manifest: Value = serde_json::from_str(&manifest).unwrap();
    let file = |part: &str| image().join(manifest[part]["path"].as_str().unwrap());
    let args = format!(
        "{} smartvm.init=agent the.marker=7",
        manifest["bootArgs"].as_str().unwrap()
    );
    let limit = json!({ "bandwidth": { "size": SLOW / 10, "refillTime": 100 } });
    json!({
        "id": "devices",
        "bootSource": {
            "kernelImagePath": file("kernel"), "initrdPath": file("initrd"), "bootArgs": args,
        },
        "machineConfig": { "vcpuCount": 2, "memSizeMib": 192 },
        "drives": [
            { "driveId": "root", "pathOnHost": file("rootfs"), "isRootDevice": true },
            {
                "driveId": "data", "isRootDevice": false, "rateLimiter": limit,
                "pathOnHost": image_file(dir.join("data"), b"old content", 8 << 20),
            },
            {
                "driveId": "fixed", "isRootDevice": false, "isReadOnly": true,
                "pathOnHost": image_file(dir.join("fixed"), b"fixed", 1 << 20),
            },
        ],
        "networkInterfaces": [
            { "ifaceId": "eth0", "hostDevName": TAP, "guestMac": "06:00:ac:1e:00:02" },
        ],
        "mmds": { "networkInterfaces": ["eth0"] },
        "metadata": { "role": "web" },
        "balloon": { "amountMib": 0, "deflateOnOom": false, "statsPollingIntervalS": 1 },
        "entropy": {},
        "serial": { "path": dir.join("console") },
        "metrics": { "metricsPath": dir.join("metrics") },
        "logger": { "logPath": dir.join("log"), "level": "Info" },
    })
}

/// Milliseconds that the guest takes to read 3 MiB of its drive, not from its cache.
fn reading(vm: &Vm) -> f64 {
    let script = "echo 3 > /proc/sys/vm/drop_caches; read a b < /proc/uptime; \
        dd if=/dev/vdb of=/dev/null bs=64k count=48 2>/dev/null; \
        read c d < /proc/uptime; echo $a $c";
    let times = said(vm, script);
    let times: Vec<f64> = times.split(' ').map(|time| time.parse().unwrap()).collect();
    times[1] - times[0]
}

/// What the metadata service (V2) answers.
fn metadata(vm: &Vm, key: &str) -> String {
    let ask = |request: &str| {
        format!("(printf '{request}\\r\\n\\r\\n'; sleep 1) | nc 169.254.169.254 80 | tail -n 1")
    };
    let token = said(
        vm,
        &ask("PUT /latest/api/token HTTP/1.1\\r\\nX-metadata-token-ttl-seconds: 60"),
    );
    said(
        vm,
        &ask(&format!(
            "GET /{key} HTTP/1.1\\r\\nX-metadata-token: {}",
            token.trim()
        )),
    )
}

fn update(args: &[&str]) {
    smartvm()
        .args(["update", "devices"])
        .args(args)
        .assert()
        .success();
}

fn until(what: &str, mut holds: impl FnMut() -> bool) {
    let deadline = Instant::now() + Duration::from_secs(90);
    while !holds() {
        assert!(Instant::now() < deadline, "{what} never came true");
        std::thread::sleep(Duration::from_millis(300));
    }
}

#[test]
fn a_guest_shows_its_devices_and_every_change_of_them() {
    let dir = tempfile::tempdir().unwrap();
    let _tap = Tap::make();
    let file = dir.path().join("spec.json");
    std::fs::write(&file, spec(dir.path()).to_string()).unwrap();
    let mut run = smartvm();
    run.args(["run", "--detach", "-f"])
        .arg(&file)
        .assert()
        .success();
    let vm = Vm {
        id: "devices".into(),
    };

    assert_eq!(said(&vm, "nproc"), "2");
    assert!(said(&vm, "cat /proc/cmdline").contains("the.marker=7"));
    let memory: u64 = said(
        &vm,
        "sed -n 's/MemTotal: *\\([0-9]*\\) kB/\\1/p' /proc/meminfo",
    )
    .parse()
    .unwrap();
    assert!((120 << 10..=192 << 10).contains(&memory), "{memory} KiB");
    assert!(said(&vm, "cat /sys/class/misc/hw_random/rng_available").contains("virtio_rng"));
    assert_eq!(said(&vm, "head -c 64 /dev/hwrng | wc -c"), "64");
    assert_eq!(
        said(&vm, "cat /sys/class/block/vdc/ro; head -c 5 /dev/vdc"),
        "1\nfixed"
    );
    said(
        &vm,
        "! dd if=/dev/zero of=/dev/vdc bs=512 count=1 conv=fsync 2>/dev/null",
    );
    assert_eq!(said(&vm, "head -c 11 /dev/vdb"), "old content");
    said(&vm, "echo from the guest > /dev/ttyS0");
    let console = dir.path().join("console");
    until("the console's copy", || {
        std::fs::read_to_string(&console)
            .unwrap()
            .contains("from the guest")
    });
    assert!(std::fs::metadata(dir.path().join("log")).unwrap().len() > 0);

    let slow = reading(&vm);
    update(&["--limit-drive", "data=bandwidth:204800/100"]);
    let quick = reading(&vm);
    update(&["--limit-drive", "data=none"]);
    let free = reading(&vm);
    let ratio = slow / quick;
    assert!(
        (3.0..=5.0).contains(&ratio),
        "{slow} s, then {quick} s: {ratio}"
    );
    assert!(
        free < quick / 2.0,
        "{quick} s, then {free} s without a limit"
    );

    let new = image_file(dir.path().join("new"), b"new content", 4 << 20);
    update(&["--swap", &format!("data={}", new.display())]);
    assert_eq!(
        said(&vm, "blockdev --flushbufs /dev/vdb; head -c 11 /dev/vdb"),
        "new content"
    );
    assert_eq!(
        said(&vm, "blockdev --getsize64 /dev/vdb"),
        (4 << 20).to_string()
    );
    update(&["--grow", "data=16MiB"]);
    until("the new size", || {
        said(&vm, "blockdev --getsize64 /dev/vdb") == (16 << 20).to_string()
    });

    said(
        &vm,
        "ip link set eth0 up; ip route add 169.254.169.254 dev eth0",
    );
    assert_eq!(metadata(&vm, "role"), "web");
    smartvm()
        .args(["metadata", "patch", "devices", "{\"role\": \"db\"}"])
        .assert()
        .success();
    assert_eq!(metadata(&vm, "role"), "db");
    let got = smartvm()
        .args(["metadata", "get", "devices"])
        .output()
        .unwrap();
    assert_eq!(
        serde_json::from_slice::<Value>(&got.stdout).unwrap(),
        json!({ "role": "db" })
    );

    let available = || -> u64 {
        said(
            &vm,
            "sed -n 's/MemAvailable: *\\([0-9]*\\) kB/\\1/p' /proc/meminfo",
        )
        .parse()
        .unwrap()
    };
    let before = available();
    update(&["--balloon", "64"]);
    until("the balloon's effect", || available() + (50 << 10) < before);
    until("its statistics", || {
        let stats = smartvm()
            .args(["--json", "stats", "devices"])
            .output()
            .unwrap();
        let stats: Value = serde_json::from_slice(&stats.stdout).unwrap();
        assert!(stats["metrics"]["balloon"].is_object(), "{stats:#}");
        stats["balloon"]["actualMib"] == 64 && stats["balloon"]["totalMemory"].is_u64()
    });
    update(&["--balloon", "0"]);
    until("the memory's return", || available() + (14 << 10) > before);

    let (there, back) = (dir.path().join("there"), dir.path().join("back"));
    std::fs::write(&there, vec![5; 300_000]).unwrap();
    smartvm()
        .arg("cp")
        .arg(&there)
        .arg("devices:/tmp/file")
        .assert()
        .success();
    smartvm()
        .args(["cp", "devices:/tmp/file"])
        .arg(&back)
        .assert()
        .success();
    assert_eq!(std::fs::read(back).unwrap(), vec![5; 300_000]);
    smartvm()
        .args(["cp", "-", "devices:/tmp/in"])
        .write_stdin("piped")
        .assert()
        .success();
    smartvm()
        .args(["cp", "devices:/tmp/in", "-"])
        .assert()
        .success()
        .stdout("piped");
    smartvm()
        .args(["cp", "devices:/missing", "-"])
        .assert()
        .code(3);
}
