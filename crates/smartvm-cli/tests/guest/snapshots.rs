//! Real guests that stand still, are snapshotted, and go on as clones.

use std::path::Path;
use std::process::Command;
use std::thread;
use std::time::{SystemTime, UNIX_EPOCH};

use serde_json::{Value, json};

use crate::support::{Ground, PATIENCE, SMARTVM, Vm, image, smartvm};

/// Starts in a network namespace of its own, where the TAP device `$0` is made first.
const WITH_TAP: &str = "mount -t sysfs sysfs /sys && ip tuntap add dev $0 mode tap && \
                        ip link set $0 up && exec \"$@\"";

/// What a clone says at once: its clock, random numbers, a sum over memory that changed between
/// snapshots, where the counter was when it had gone on, its metadata, its drive.
const FIRST_WORDS: &str = "date +%s; head -c 16 /dev/urandom | md5sum; sha256sum </dev/blob; \
    was=$(cat /dev/count); for n in $(seq 200); do \
    [ $(cat /dev/count) -gt $was ] && break; usleep 100000; done; cat /dev/count; \
    wget -qO- http://169.254.169.254/color; echo; \
    wget -qO- http://169.254.169.254/shape; echo; cat /mark";

/// The guest: its metadata service is reached, and a program counts in memory alone.
const PREPARE: &str = "ip address add 169.254.1.2/16 dev eth0; ip link set eth0 up; \
    setsid sh -c 'n=0; while :; do n=$((n+1)); echo $n >/dev/count.new; \
    mv /dev/count.new /dev/count; usleep 300000; done' >/dev/null 2>&1 </dev/null & \
    head -c 4194304 /dev/urandom >/dev/blob; echo before >/mark; sync";

/// A smartvm command whose VM has the TAP device `tap`.
fn with_tap(tap: &str, args: &[&str]) -> assert_cmd::Command {
    let mut command = Command::new("unshare");
    let envs = smartvm();
    for (name, value) in envs.get_envs() {
        match value {
            Some(value) => command.env(name, value),
            None => command.env_remove(name),
        };
    }
    command
        .args(["--net", "--mount", "sh", "-c", WITH_TAP, tap, SMARTVM])
        .args(args);
    let mut command = assert_cmd::Command::from_std(command);
    command.timeout(PATIENCE);
    command
}

fn spec(ground: Ground, dir: &Path) -> String {
    let manifest = std::fs::read(image().join("manifest.json")).unwrap();
    let manifest: Value = serde_json::from_slice(&manifest).unwrap();
    let file = |name: &str| image().join(manifest[name]["path"].as_str().unwrap());
    let args = manifest["bootArgs"].as_str().unwrap();
    let spec = json!({
        "id": ground.id("origin"),
        "jail": { "mode": ground.mode() },
        "bootSource": {
            "kernelImagePath": file("kernel"),
            "initrdPath": file("initrd"),
            "bootArgs": format!("{args} smartvm.init=agent"),
        },
        "machineConfig": { "vcpuCount": 1, "memSizeMib": 128, "trackDirtyPages": true },
        "drives": [{
            "driveId": "root",
            "pathOnHost": file("rootfs"),
            "isRootDevice": true,
            "isReadOnly": false,
            "ephemeral": true,
        }],
        "networkInterfaces": [{ "ifaceId": "eth0", "hostDevName": "tap0" }],
        "mmds": { "version": "V1", "networkInterfaces": ["eth0"] },
        "metadata": { "color": "of the spec", "shape": "round" },
    });
    let path = dir.join("spec.json");
    std::fs::write(&path, spec.to_string()).unwrap();
    path.to_str().unwrap().to_owned()
}

fn now() -> u64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap();
    since.as_secs()
}

/// What a script in the guest says, by lines.
fn said(vm: &Vm, script: &str) -> Vec<String> {
    let assert = vm.exec(&[], &["sh", "-c", script]).assert().success();
    let out = String::from_utf8(assert.get_output().stdout.clone()).unwrap();
    out.lines().map(Into::into).collect()
}

fn inspect(vm: &Vm) -> Value {
    let inspected = smartvm().args(["inspect", &vm.id]).assert().success();
    let all: Value = serde_json::from_slice(&inspected.get_output().stdout).unwrap();
    all[0].clone()
}

fn snapshot(vm: &Vm, args: &[&str]) {
    smartvm()
        .args(["snapshot", "create", &vm.id])
        .args(args)
        .assert()
        .success();
}

/// The seconds that the guest's clock shows lie between two looks at the host's.
fn clock_is_right(when: &str, seen: &str, before: u64) {
    let (seen, after) = (seen.parse::<u64>().unwrap(), now());
    assert!(
        (before..=after).contains(&seen),
        "{when}: the guest's clock shows {seen}, the host's went from {before} to {after}"
    );
}

#[test]
fn a_guest_goes_on_after_a_pause_and_twice_from_a_chain_of_snapshots() {
    goes_on(Ground::Free);
}

#[test]
fn a_jailed_guest_goes_on_after_a_pause_and_twice_from_a_chain_of_snapshots() {
    goes_on(Ground::Jailed);
}

fn goes_on(ground: Ground) {
    let dir = tempfile::tempdir().unwrap();
    let place = |name: &str| dir.path().join(name).to_str().unwrap().to_owned();
    let file = spec(ground, dir.path());
    let started = with_tap("tap0", &["run", "--detach", "-f", &file]).assert();
    let origin = Vm::taken(started, &ground.id("origin"));
    ground.is_that_of(&origin);
    said(&origin, PREPARE);

    // A clock that is wrong is set right by the waking after a bare pause.
    said(&origin, "date -s @1000000000");
    smartvm().args(["pause", &origin.id]).assert().success();
    let before = now();
    smartvm().args(["resume", &origin.id]).assert().success();
    clock_is_right("after a pause", &said(&origin, "date +%s")[0], before);

    let data = ["metadata", "patch", &origin.id, r#"{"color":"blue"}"#];
    smartvm().args(data).assert().success();
    snapshot(&origin, &["--output", &place("full")]);
    let change = "head -c 300000 /dev/urandom | dd of=/dev/blob bs=64k seek=7 conv=notrunc";
    said(&origin, change);
    snapshot(&origin, &["--output", &place("first"), "--diff"]);
    said(&origin, &change.replace("seek=7", "seek=9"));
    let origins = said(&origin, "sha256sum </dev/blob; cat /dev/count");
    snapshot(&origin, &["--output", &place("second"), "--diff"]);
    said(&origin, "echo after >/mark; sync");

    // Two other processes restore it at the same time, one of them with another TAP device.
    let second = place("second");
    let restore = |name: &str, tap: &'static str| {
        let (id, second) = (ground.id(name), second.clone());
        thread::spawn(move || {
            let change = format!("eth0={tap}");
            let args = [
                "snapshot", "restore", &second, "--id", &id, "--tap", &change,
            ];
            let clone = Vm::taken(with_tap(tap, &args).assert(), &id);
            ground.is_that_of(&clone);
            let before = now();
            let words = said(&clone, FIRST_WORDS);
            clock_is_right(&id, &words[0], before);
            (clone, words)
        })
    };
    let clones = [restore("clone-a", "tap0"), restore("clone-b", "tap7")];
    let [(a, words_of_a), (b, words_of_b)] = clones.map(|clone| clone.join().unwrap());
    assert_ne!(words_of_a[1], words_of_b[1], "both draw the same numbers");
    let count = |text: &str| text.parse::<u64>().unwrap();
    for (clone, words) in [(&a, words_of_a), (&b, words_of_b)] {
        assert_eq!(words[2], origins[0], "the merged memory");
        // One more than where it was, or the first look would have been the last.
        assert!(
            count(&words[3]) > count(&origins[1]),
            "{words:?} after {origins:?}"
        );
        assert_eq!(words[4..], ["blue", "round", "before"]);
        let known = inspect(clone);
        assert_eq!(known["state"], "running");
        let socket = known["spec"]["vsock"]["udsPath"].as_str().unwrap();
        assert!(socket.contains(&clone.id), "{socket}");
    }

    // What one writes to its drive is neither the other's nor the origin's.
    said(&a, "echo of a >/mark; sync");
    let look = "echo 3 >/proc/sys/vm/drop_caches; cat /mark";
    let seen = [&a, &b, &origin].map(|vm| said(vm, look)[0].clone());
    assert_eq!(seen, ["of a", "before", "after"]);
}
