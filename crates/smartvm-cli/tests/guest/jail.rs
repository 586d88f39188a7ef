//! A Linux guest in the jail: all that works without one works there, and the limits hold.

use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use serde_json::{Value, json};
use smartvm_emulate::tiny_guest::{self, Ending};

use crate::network::lab::Lab;
use crate::support::{Vm, image, listed, program, shared, smartvm};

const ADDRESS: &str = "10.77.0.2";
const GATEWAY: &str = "10.77.0.1";
const NOTHING: [PathBuf; 0] = [];

fn run(program: &str, words: &[&str]) -> String {
    let output = Command::new(program).args(words).output().unwrap();
    assert!(output.status.success(), "{program} {words:?}: {output:?}");
    String::from_utf8(output.stdout).unwrap().trim().to_owned()
}

fn eventually(what: &str, holds: impl Fn() -> bool) {
    let deadline = Instant::now() + Duration::from_secs(60);
    while !holds() {
        assert!(Instant::now() < deadline, "{what}: never");
        std::thread::sleep(Duration::from_millis(20));
    }
}

/// A network namespace with a TAP device that belongs to nobody, gone at the end.
struct NetNs(&'static str);

impl NetNs {
    fn new(name: &'static str) -> Self {
        run("ip", &["netns", "add", name]);
        let this = Self(name);
        this.ip(&["tuntap", "add", "tap0", "mode", "tap"]);
        this.ip(&["addr", "add", &format!("{GATEWAY}/24"), "dev", "tap0"]);
        this.ip(&["link", "set", "tap0", "up"]);
        this
    }

    fn ip(&self, words: &[&str]) {
        run("ip", &[&["-n", self.0], words].concat());
    }

    fn file(&self) -> PathBuf {
        Path::new("/run/netns").join(self.0)
    }
}

impl Drop for NetNs {
    fn drop(&mut self) {
        let _gone = Command::new("ip").args(["netns", "del", self.0]).status();
    }
}

/// A block device, gone at the end.
struct Loop(String);

impl Loop {
    fn of(file: &Path) -> Self {
        let file = file.to_str().unwrap();
        Self(run("losetup", &["--find", "--show", file]))
    }

    fn number(&self) -> String {
        let device = std::fs::metadata(&self.0).unwrap().rdev();
        let (major, minor) = (rustix::fs::major(device), rustix::fs::minor(device));
        format!("{major}:{minor}")
    }
}

impl Drop for Loop {
    fn drop(&mut self) {
        let _gone = Command::new("losetup").args(["-d", &self.0]).status();
    }
}

/// What there is of this VM of the kind that a jail leaves behind if it leaves anything.
fn traces(vm: &str) -> Vec<PathBuf> {
    let base = shared("data").join("jail");
    let leases = std::fs::read_dir(base.join(".ids")).into_iter().flatten();
    let of_it = format!("\"{vm}\"");
    leases
        .flatten()
        .map(|entry| entry.path())
        .filter(|path| std::fs::read_to_string(path).is_ok_and(|text| text.contains(&of_it)))
        .chain([
            base.join("firecracker").join(vm),
            Path::new("/sys/fs/cgroup/smartvm").join(vm),
        ])
        .filter(|path| path.exists())
        .collect()
}

fn status(pid: &Value, field: &str) -> String {
    let text = std::fs::read_to_string(format!("/proc/{pid}/status")).unwrap();
    let line = text.lines().find(|line| line.starts_with(field)).unwrap();
    line[field.len()..].trim().to_owned()
}

fn start(dir: &Path, spec: &Value, flags: &[&str]) -> assert_cmd::assert::Assert {
    let path = dir.join(format!("{}.json", spec["id"].as_str().unwrap()));
    std::fs::write(&path, spec.to_string()).unwrap();
    let mut command = smartvm();
    command
        .args(["run", "--detach", "-f"])
        .arg(path)
        .args(flags);
    command.assert()
}

/// The smallest VM there is, jailed.
fn tiny(dir: &Path, id: &str, jail: &Value) -> Value {
    let kernel = dir.join("tiny");
    std::fs::write(&kernel, tiny_guest::elf(Ending::Halt)).unwrap();
    json!({
        "id": id,
        "bootSource": { "kernelImagePath": kernel },
        "machineConfig": { "vcpuCount": 1, "memSizeMib": 128 },
        "jail": jail,
    })
}

#[test]
fn a_jailed_guest_has_all_that_others_have_and_keeps_within_its_limits() {
    let dir = tempfile::tempdir().unwrap();
    let file = |name: &str| dir.path().join(name);
    std::fs::write(file("disk.img"), vec![9; 8 << 20]).unwrap();
    let disk = Loop::of(&file("disk.img"));
    let net = NetNs::new("smartvm-jail");
    let manifest = std::fs::read_to_string(image().join("manifest.json")).unwrap();
    let manifest: Value = serde_json::from_str(&manifest).unwrap();
    let part = |name: &str| image().join(manifest[name]["path"].as_str().unwrap());
    let boot_args = manifest["bootArgs"].as_str().unwrap();
    let spec = json!({
        "id": "jailed",
        "bootSource": {
            "kernelImagePath": part("kernel"),
            "initrdPath": part("initrd"),
            "bootArgs": format!(
                "{boot_args} smartvm.init=agent ip={ADDRESS}::{GATEWAY}:255.255.255.0::eth0:off"
            ),
        },
        "machineConfig": { "vcpuCount": 1, "memSizeMib": 256 },
        "drives": [
            { "driveId": "root", "pathOnHost": part("rootfs"), "isRootDevice": true },
            { "driveId": "disk", "pathOnHost": disk.0, "isRootDevice": false,
              "isReadOnly": true, "ephemeral": false },
        ],
        "networkInterfaces": [
            { "ifaceId": "eth0", "hostDevName": "tap0", "guestMac": "06:00:0a:4d:00:02" },
        ],
        "logger": { "logPath": file("vmm.log"), "level": "Info" },
        "metrics": { "metricsPath": file("metrics") },
        "serial": { "path": file("serial") },
        "jail": {
            "mode": "required",
            "newPidNs": true,
            "netNs": net.file(),
            "cgroup": {
                "cpus": 0.8, "memoryMib": 320, "pids": 40,
                "io": [{ "device": disk.0, "readBytesPerS": 1 << 20 }],
            },
        },
    });
    start(dir.path(), &spec, &[]).success().stdout("jailed\n");
    let vm = Vm::named("jailed");
    let sh = |script: &str| {
        let output = vm.exec(&[], &["sh", "-c", script]).output().unwrap();
        let (out, err) = (output.stdout, String::from_utf8_lossy(&output.stderr));
        assert!(output.status.success(), "{script}: {err}");
        String::from_utf8(out).unwrap().trim().to_owned()
    };

    // Who it is.
    let row = listed(smartvm(), "jailed");
    assert_eq!(row["jailed"], true, "{row}");
    let pid = &row["pid"];
    assert!(
        status(pid, "NSpid:").ends_with("\t1"),
        "a namespace of its own"
    );
    let uid = status(pid, "Uid:");
    assert!(!uid.starts_with("0\t"), "{uid}");
    let inode = |path: String| std::fs::metadata(path).unwrap().ino();
    assert_eq!(
        inode(format!("/proc/{pid}/ns/net")),
        inode(net.file().display().to_string())
    );
    // Root's VMs are jailed by default.
    let mut other = tiny(dir.path(), "jailed-too", &json!({}));
    other.as_object_mut().unwrap().remove("jail");
    start(dir.path(), &other, &[]).success();
    let too = Vm::named("jailed-too");
    let other = listed(smartvm(), "jailed-too");
    assert_eq!(other["jailed"], true);
    assert_ne!(status(&other["pid"], "Uid:"), uid);
    drop(too);

    // Commands, files, the network, the console, the log, the metrics.
    assert!(sh("uname -a").starts_with("Linux "));
    sh(&format!("ping -c 1 -W 20 {GATEWAY}"));
    std::fs::write(file("sent"), vec![3; 300_000]).unwrap();
    let copy = |from: &Path, to: &Path| {
        smartvm().arg("cp").args([from, to]).assert().success();
    };
    copy(&file("sent"), Path::new("jailed:/tmp/there"));
    copy(Path::new("jailed:/tmp/there"), &file("back"));
    assert!(std::fs::read(file("back")).unwrap() == vec![3; 300_000]);
    let mut console = program()
        .args(["console", "jailed"])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    use std::io::Write;
    let mut keys = console.stdin.take().unwrap();
    // What comes before anybody reads is nobody's. The agent is all that there is: no init has a
    // shell on the console that would read, too.
    let typed = std::thread::scope(|scope| {
        let reader = scope.spawn(|| sh("timeout 60 head -n 1 /dev/console"));
        while !reader.is_finished() {
            writeln!(keys, "typed at the console").unwrap();
            std::thread::sleep(Duration::from_millis(500));
        }
        reader.join().unwrap()
    });
    assert_eq!(typed, "typed at the console");
    sh("echo printed by the guest > /dev/console");
    let contains = |path: PathBuf, text: &str| {
        let bytes = std::fs::read(path).unwrap();
        String::from_utf8_lossy(&bytes).contains(text)
    };
    eventually("the serial output", || {
        contains(file("serial"), "printed by the guest")
    });
    let logs = smartvm().args(["logs", "jailed"]).output().unwrap().stdout;
    assert!(String::from_utf8_lossy(&logs).contains("printed by the guest"));
    assert!(contains(file("vmm.log"), "Running Firecracker"));
    let stats = smartvm().args(["stats", "--json", "jailed"]).assert();
    let stats: Value = serde_json::from_slice(&stats.success().get_output().stdout).unwrap();
    assert!(stats["metrics"]["block"].is_object(), "{stats:#}");

    // The limits: as written, and in effect.
    let cgroup = Path::new("/sys/fs/cgroup/smartvm/jailed");
    let told = |name: &str| std::fs::read_to_string(cgroup.join(name)).unwrap();
    assert_eq!(told("cpu.max").trim(), "80000 100000");
    assert_eq!(told("memory.max").trim(), (320 << 20).to_string());
    assert_eq!(told("pids.max").trim(), "40");
    let limit = format!("{} rbps={} wbps=max", disk.number(), 1 << 20);
    assert!(told("io.max").starts_with(&limit), "{}", told("io.max"));
    let mut members = told("cgroup.procs");
    members.insert(0, '\n');
    assert!(members.contains(&format!("\n{pid}\n")), "{members}");
    assert_eq!(traces("jailed").len(), 3, "{:?}", traces("jailed"));
    let number = |name: &str, field: &str| -> u64 {
        let text = told(name);
        let line = text.lines().find(|line| line.starts_with(field)).unwrap();
        line[field.len()..].trim().parse().unwrap()
    };
    assert!((3..40).contains(&number("pids.current", "")));
    assert!(
        number("memory.current", "") > 32 << 20,
        "the guest's is in it"
    );
    sh("i=0; while [ $i -lt 20000 ]; do i=$((i+1)); done");
    assert!(
        number("cpu.stat", "nr_throttled ") > 0,
        "{}",
        told("cpu.stat")
    );
    let begun = Instant::now();
    sh("dd if=/dev/vdb of=/dev/null bs=64k count=48");
    let took = begun.elapsed();
    assert!(took > Duration::from_secs(2), "3 MiB came in {took:?}");
    assert!(
        told("io.stat").contains(&disk.number()),
        "{}",
        told("io.stat")
    );

    // Its end.
    smartvm()
        .args(["stop", "--timeout", "60", "jailed"])
        .assert()
        .success();
    drop(keys);
    let seen = console.wait_with_output().unwrap();
    assert!(String::from_utf8_lossy(&seen.stdout).contains("printed by the guest"));
    assert_eq!(traces("jailed"), NOTHING);
}

#[test]
fn limits_that_are_too_low_for_a_start_are_told_and_leave_nothing() {
    let dir = tempfile::tempdir().unwrap();
    for (limits, told) in [
        (json!({ "pids": 1 }), "thread spawn failed"),
        (json!({ "memoryMib": 1 }), "killed from outside (signal 9)"),
    ] {
        let jail = json!({ "mode": "required", "cgroup": limits });
        let spec = tiny(dir.path(), "starved", &jail);
        let refused = start(dir.path(), &spec, &[]).failure();
        let said = String::from_utf8_lossy(&refused.get_output().stderr).into_owned();
        assert!(said.contains(told), "{limits}: {said}");
        assert_eq!(traces("starved"), NOTHING);
    }
}

#[test]
fn a_jailed_guest_with_a_leased_address_goes_on_as_two() {
    let lab = Lab::enter();
    let [one] = lab.start([("leased-one", &["--network"])]);
    one.sh("echo kept > /dev/shm/kept");
    let dir = tempfile::tempdir().unwrap();
    let base = dir.path().join("base");
    let base = base.to_str().unwrap();
    lab.smartvm(&["snapshot", "create", "leased-one", "--output", base]);
    // While the first has its address, the agent gives the second another.
    lab.smartvm(&["snapshot", "restore", base, "--id", "leased-two"]);
    let two = |script: &str| lab.smartvm(&["exec", "leased-two", "--", "sh", "-c", script]);
    let look = "cat /dev/shm/kept; ip -o -4 address show dev eth0; ip route";
    let ping = "ping -c 1 -W 60 198.51.100.7 > /dev/null && echo answered";
    for (said, address) in [
        (two(&format!("{look}; {ping}")), "inet 172.30.0.3/24"),
        (one.sh(&format!("{look}; {ping}")), "inet 172.30.0.2/24"),
    ] {
        for part in [
            "kept",
            address,
            "default via 172.30.0.1 dev eth0",
            "answered",
        ] {
            assert!(said.contains(part), "{part}: {said}");
        }
    }
    let (first, second) = (
        listed(lab.command(), "leased-one"),
        listed(lab.command(), "leased-two"),
    );
    assert_eq!(
        (&first["jailed"], &second["jailed"]),
        (&json!(true), &json!(true))
    );
    assert_ne!(
        status(&first["pid"], "Uid:"),
        status(&second["pid"], "Uid:")
    );
    // Where it is free, it is the address again.
    lab.smartvm(&["rm", "--force", "leased-two"]);
    drop(one);
    lab.smartvm(&["snapshot", "restore", base, "--id", "leased-two"]);
    let said = two(&format!("{look}; {ping}"));
    assert!(
        said.contains("inet 172.30.0.2/24") && said.contains("answered"),
        "{said}"
    );
    lab.smartvm(&["rm", "--force", "leased-two"]);
    for vm in ["leased-one", "leased-two"] {
        assert_eq!(traces(vm), NOTHING);
    }
}
