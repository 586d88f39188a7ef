//! Whether a host is fit for jails, and what is said and done where it isn't.

use std::path::PathBuf;

use serde_json::Value;
use smartvm::spec::{CgroupLimits, Jail, JailMode};

use super::jailed;
use crate::support::{Corner, SMARTVM, copy_program, firecracker, refusal};

/// Mounts a tmpfs on a place in the corner, which is `$0`, or elsewhere.
fn tmpfs(options: &str, place: &str) -> String {
    format!("mount -t tmpfs -o mode=700,{options} tmpfs \"{place}\"")
}

#[test]
fn a_chroot_base_without_devices_and_limits_without_cgroup_v2_are_refused() {
    let corner = Corner::new();
    let base = corner.file("jail");
    std::fs::create_dir(&base).unwrap();
    let before = corner.picture();
    let required = || Jail::builder().mode(JailMode::Required).chroot_base(&base);
    let limits = CgroupLimits::builder().memory_mib(300).build();
    for (mount, jail, field, problem) in [
        (
            tmpfs("nodev", "$0/jail"),
            required().build(),
            "jail.chrootBase",
            "is mounted nodev",
        ),
        (
            tmpfs("noexec", "$0/jail"),
            required().build(),
            "jail.chrootBase",
            "is mounted noexec",
        ),
        (
            tmpfs("size=1m", "/sys/fs/cgroup"),
            required().cgroup(limits).build(),
            "jail.cgroup",
            "no cgroup v2",
        ),
    ] {
        let spec = corner.spec_file(&jailed(corner.small(), jail));
        let mut create = corner.unshared(&["--mount"], &format!("{mount}; exec \"$@\""));
        create.args(["--json", "create", "--assume-kvm", "-f"]);
        create.arg(&spec);
        let error = refusal(&mut create, 5).to_string();
        assert!(error.contains(field) && error.contains(problem), "{error}");
        std::fs::remove_file(spec).unwrap();
        corner.becomes(&before, &mount);
    }
}

/// What the doctor says of jails below the data directory, on which this is mounted.
fn doctors_line(corner: &Corner, mount: &str) -> Value {
    let told = corner
        .unshared(&["--mount"], &format!("{mount}; exec \"$@\""))
        .args(["--json", "doctor"])
        .output()
        .unwrap();
    let findings: Vec<Value> =
        serde_json::from_slice(&told.stdout).unwrap_or_else(|e| panic!("{mount}: {e}: {told:?}"));
    let mut lines = findings.into_iter().filter(|it| it["name"] == "jail");
    let line = lines.next().unwrap();
    assert_eq!(lines.next(), None);
    line
}

#[test]
fn the_doctor_tells_whether_jails_can_be_below_the_data_directory() {
    let corner = Corner::new();
    let data = corner.file("data");
    std::fs::create_dir(&data).unwrap();
    let told = |status: &str, found: &str, advice: &str| {
        let found = format!("{}/jail {found}", data.display());
        serde_json::json!({ "name": "jail", "status": status, "found": found, "advice": advice })
    };
    let elsewhere = "a directory on another file system, usually that of the data directory";
    let nodev = "is mounted nodev: a jail can't open its /dev/kvm there";
    let noexec = "is mounted noexec: a jail can't execute Firecracker there";
    for (mount, expected) in [
        (
            tmpfs("size=1m", "$0/data"),
            told("ok", "allows device nodes and execution", ""),
        ),
        (tmpfs("nodev", "$0/data"), told("warn", nodev, elsewhere)),
        (tmpfs("noexec", "$0/data"), told("warn", noexec, elsewhere)),
        (
            tmpfs("ro", "$0/data"),
            told("warn", "is mounted read-only", elsewhere),
        ),
        (
            "chmod 777 \"$0/data\"".to_owned(),
            told(
                "warn",
                &format!(
                    "isn't safe: others may exchange what is in {}",
                    data.display()
                ),
                "take the right to write away from others, up to the root directory",
            ),
        ),
    ] {
        assert_eq!(doctors_line(&corner, &mount), expected, "{mount}");
    }
}

/// Enters the directory `plain` of a corner as its root, by chroot alone: that is no mount
/// point. What is needed in there is bound, in a mount namespace that ends with the command.
fn plain_chroot() -> String {
    let parent = |path: PathBuf| path.parent().unwrap().display().to_string();
    let programs = [parent(SMARTVM.into()), parent(firecracker())];
    format!(
        "mkdir -p \"$0/plain/dev\"
        for device in kvm null random urandom; do
            touch \"$0/plain/dev/$device\"
            mount --bind \"/dev/$device\" \"$0/plain/dev/$device\"
        done
        for directory in /proc \"$0\" '{}'; do
            mkdir -p \"$0/plain$directory\"
            mount --bind \"$directory\" \"$0/plain$directory\"
        done
        exec chroot \"$0/plain\" \"$@\"",
        programs.join("' '")
    )
}

#[test]
fn where_the_root_is_no_mount_point_a_jail_is_refused_with_the_way_out() {
    let corner = Corner::new();
    let spec = corner.spec_file(&corner.small());
    let inside = || corner.unshared(&["--mount"], &plain_chroot());
    let run = |jail: &str| {
        let mut run = inside();
        run.args(["--json", "run", "--assume-kvm", "--detach", "--id", "vm"]);
        run.args(["--jail", jail, "-f"]).arg(&spec);
        run
    };
    // Without a jail it does.
    run("off").assert().success();
    inside().args(["rm", "--force", "vm"]).assert().success();
    let before = corner.picture();
    for jail in ["required", "auto"] {
        let error = refusal(&mut run(jail), 5);
        let message = error["message"].as_str().unwrap();
        for part in [
            "jail.mode: / is no mount point here",
            "pivot_root",
            "--jail off",
        ] {
            assert!(message.contains(part), "{error}");
        }
        corner.becomes(&before, jail);
    }
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
    copy_program(firecracker(), &alone);
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
