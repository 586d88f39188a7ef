//! Snapshots of a real guest: it goes on, at the right time, with random numbers of its own.

use std::time::{SystemTime, UNIX_EPOCH};

use crate::support::{image, smartvm};

/// A VM of the test's own in a runtime directory of its own.
struct Vm {
    id: &'static str,
    runtime: std::path::PathBuf,
}

impl Vm {
    fn smartvm(&self) -> assert_cmd::Command {
        let mut command = smartvm();
        command.arg("--runtime-dir").arg(&self.runtime);
        command
    }

    /// What a script prints in it.
    fn sh(&self, script: &str) -> String {
        let mut command = self.smartvm();
        command.args(["exec", self.id, "--", "sh", "-c", script]);
        let done = command.assert().success();
        String::from_utf8(done.get_output().stdout.clone())
            .unwrap()
            .trim()
            .to_owned()
    }
}

impl Drop for Vm {
    fn drop(&mut self) {
        // It may have been removed by its test.
        let _gone = self.smartvm().args(["rm", "--force", self.id]).output();
    }
}

#[test]
fn a_guest_goes_on_from_full_and_diff_with_the_right_time_and_its_own_randomness() {
    let dir = tempfile::tempdir().unwrap();
    let at = |name: &str| dir.path().join(name).to_str().unwrap().to_owned();
    let vm = |id, runtime: &str| Vm {
        id,
        runtime: dir.path().join(runtime),
    };
    let first = vm("snap-first", "run-a");
    let mut run = first.smartvm();
    run.args([
        "run", "--detach", "--memory", "128", "--id", first.id, "--image",
    ]);
    run.arg(image()).assert().success();
    // To the drive, to memory, and a process that goes on counting.
    first.sh("echo kept > /root/on-drive; sync; mkdir -p /dev/shm; echo kept > /dev/shm/in-memory");
    first.sh(
        "(while :; do n=$((n+1)); echo $n > /dev/shm/count; sleep 0.2; done) >/dev/null 2>&1 &",
    );
    let full = at("full");
    let mut create = first.smartvm();
    create.args(["snapshot", "create", first.id, "--output", &full]);
    create.assert().success();
    assert_eq!(first.sh("cat /root/on-drive"), "kept", "it runs on");
    let counted: u64 = first.sh("cat /dev/shm/count").parse().unwrap();
    first
        .smartvm()
        .args(["stop", "--force", first.id])
        .assert()
        .success();

    // Two of one snapshot, each by another process, in other runtime directories.
    let clones = [vm("snap-second", "run-b"), vm("snap-third", "run-c")];
    let mut drawn = Vec::new();
    for clone in &clones {
        let mut restore = clone.smartvm();
        restore.args([
            "snapshot",
            "restore",
            &full,
            "--id",
            clone.id,
            "--track-dirty-pages",
        ]);
        restore.assert().success();
        // At once: the first numbers that it gives.
        drawn.push(clone.sh("head -c 16 /dev/urandom | od -An -tx1"));
    }
    assert_ne!(drawn[0], drawn[1], "the clones' random numbers");
    let second = &clones[0];
    assert_eq!(
        second.sh("cat /root/on-drive /dev/shm/in-memory"),
        "kept\nkept"
    );
    let now = SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .unwrap()
        .as_secs();
    let guest: u64 = second.sh("date +%s").parse().unwrap();
    assert!(
        guest.abs_diff(now) <= 5,
        "the guest's clock says {guest}, ours {now}"
    );
    let before: u64 = second.sh("cat /dev/shm/count").parse().unwrap();
    let after: u64 = second.sh("sleep 1; cat /dev/shm/count").parse().unwrap();
    assert!(
        after > before && after < counted + 100_000,
        "the process goes on"
    );

    // A diff of the restored one, and a guest out of that.
    second.sh("echo changed > /dev/shm/in-memory; echo changed > /root/on-drive; sync");
    let diff = at("diff");
    let mut create = second.smartvm();
    create.args(["snapshot", "create", second.id, "--diff", "--output", &diff]);
    create.assert().success();
    drop(clones);
    let last = vm("snap-last", "run-d");
    let mut restore = last.smartvm();
    restore.args(["snapshot", "restore", &diff, "--id", last.id]);
    restore.assert().success();
    assert_eq!(
        last.sh("cat /root/on-drive /dev/shm/in-memory"),
        "changed\nchanged"
    );
}
