//! A guest whose root has systemd as its init.

use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};
use std::process::Command;

use serde_json::json;

use crate::support::{Vm, boot_source, smartvm, until};

const SYSTEMD: &str = "/usr/lib/systemd/systemd";

/// This machine's programs that the root has, beside the libraries that they need.
const PROGRAMS: [&str; 5] = [
    SYSTEMD,
    "/usr/lib/systemd/systemd-shutdown",
    "/usr/bin/systemctl",
    "/usr/bin/cat",
    "/usr/bin/sh",
];

/// Copies a file to the same place below the root, with everything on the way there.
fn bring(root: &Path, file: &Path) {
    let real = file.canonicalize().unwrap();
    let target = root.join(file.strip_prefix("/").unwrap());
    std::fs::create_dir_all(target.parent().unwrap()).unwrap();
    std::fs::copy(&real, &target).unwrap_or_else(|e| panic!("{}: {e}", file.display()));
}

/// What a program is linked with, its interpreter included.
fn libraries(program: &Path) -> Vec<PathBuf> {
    let told = Command::new("ldd").arg(program).output().unwrap();
    let told = String::from_utf8(told.stdout).unwrap();
    let words = told.split_whitespace();
    words
        .filter(|word| word.starts_with('/'))
        .map(PathBuf::from)
        .collect()
}

/// A root with systemd, a service of its own, and nothing else.
fn root(root: &Path) {
    for directory in ["bin", "sbin", "lib"] {
        std::fs::create_dir_all(root.join("usr").join(directory)).unwrap();
        symlink(format!("usr/{directory}"), root.join(directory)).unwrap();
    }
    symlink("usr/lib64", root.join("lib64")).unwrap();
    std::fs::create_dir_all(root.join("usr/lib64")).unwrap();
    for directory in [
        "dev",
        "proc",
        "sys",
        "run",
        "tmp",
        "var",
        "root",
        "etc/systemd/system",
    ] {
        std::fs::create_dir_all(root.join(directory)).unwrap();
    }
    for program in PROGRAMS.map(Path::new) {
        bring(root, program);
        for library in libraries(program) {
            bring(root, &library);
        }
    }
    let write = |name: &str, content: &str| {
        std::fs::write(root.join("etc").join(name), content).unwrap();
    };
    write("passwd", "root:x:0:0:root:/root:/bin/sh\n");
    write("group", "root:x:0:\n");
    write("os-release", "ID=smartvm-test\n");
    write("machine-id", "");
    write(
        "systemd/system/basic.target",
        "[Unit]\nDefaultDependencies=no\n",
    );
    write(
        "systemd/system/default.target",
        "[Unit]\nDefaultDependencies=no\nRequires=main.service\nAfter=main.service\n",
    );
    write(
        "systemd/system/main.service",
        "[Unit]\nDefaultDependencies=no\n[Service]\nType=oneshot\nRemainAfterExit=yes\n\
         ExecStart=/bin/sh -c 'echo begun > /run/main'\n\
         ExecStop=/bin/sh -c 'echo the service was stopped > /dev/ttyS0'\n",
    );
    write(
        "systemd/system/reboot.target",
        "[Unit]\nDefaultDependencies=no\nRequires=systemd-reboot.service\n\
         After=systemd-reboot.service\n",
    );
    write(
        "systemd/system/systemd-reboot.service",
        "[Unit]\nDefaultDependencies=no\nRequires=shutdown.target\nAfter=shutdown.target\n\
         SuccessAction=reboot-force\n[Service]\nType=oneshot\nExecStart=/bin/sh -c true\n",
    );
    write(
        "systemd/system/shutdown.target",
        "[Unit]\nDefaultDependencies=no\nConflicts=main.service\nAfter=main.service\n",
    );
}

#[test]
fn the_agent_works_beside_systemd_and_shuts_it_down() {
    if !Path::new(SYSTEMD).is_file() {
        eprintln!("SKIPPED: there is no systemd on this machine to make a root with");
        return;
    }
    let dir = tempfile::tempdir().unwrap();
    let tree = dir.path().join("root");
    root(&tree);
    let disk = dir.path().join("root.ext4");
    let made = Command::new("mke2fs")
        .args(["-q", "-t", "ext4", "-d"])
        .args([&tree, &disk])
        .arg("64m")
        .output()
        .unwrap();
    assert!(made.status.success(), "{made:?}");
    let words = format!("init={SYSTEMD} systemd.show_status=false systemd.log_level=warning");
    let vm = Vm::boot(&json!({
        "id": "systemd",
        "jail": { "mode": "off" },
        "bootSource": boot_source(&words),
        "machineConfig": { "vcpuCount": 1, "memSizeMib": 256 },
        "drives": [{ "driveId": "root", "pathOnHost": disk, "isRootDevice": true }],
    }));
    assert_eq!(vm.said("cat /proc/1/comm"), "systemd");
    until("systemd's service", || {
        vm.said("cat /run/main 2>/dev/null; true") == "begun"
    });
    let state = vm.said("systemctl is-active main.service; systemctl show -p MainPID main.service");
    assert!(state.starts_with("active"), "{state}");
    assert_eq!(
        vm.exec(&[], &["sh", "-c", "exit 37"])
            .output()
            .unwrap()
            .status
            .code(),
        Some(37)
    );

    smartvm()
        .args(["stop", "--timeout", "90", &vm.id])
        .assert()
        .success();
    let inspected = smartvm().args(["inspect", &vm.id]).output().unwrap();
    let record: serde_json::Value = serde_json::from_slice(&inspected.stdout).unwrap();
    assert_eq!(record[0]["reason"], "stopped", "{record:#}");
    assert_eq!(record[0]["vmm"], json!({ "exited": 0 }), "{record:#}");
    let console = record[0]["console"].as_str().unwrap();
    assert!(console.contains("the service was stopped"), "{console}");
}
