//! Images that other people's tools made, in guests.

use std::os::unix::fs::symlink;
use std::path::Path;
use std::process::Command;

use serde_json::{Value, json};

use crate::docker_registry::Registry;
use crate::support::{Vm, image, smartvm, until};

fn umoci(dir: &Path, words: &[&str]) {
    let mut command = Command::new("umoci");
    let output = command.args(words).current_dir(dir).output().unwrap();
    assert!(output.status.success(), "umoci {words:?}: {output:?}");
}

/// An image of two layers, of which the upper one hides a file of the lower one; it runs a
/// shell on what it is told.
fn layout(dir: &Path, command: &str) {
    umoci(dir, &["init", "--layout", "layout"]);
    umoci(dir, &["new", "--image", "layout:tool"]);
    umoci(dir, &["unpack", "--image", "layout:tool", "one"]);
    let root = dir.join("one/rootfs");
    for name in ["bin", "srv"] {
        std::fs::create_dir_all(root.join(name)).unwrap();
    }
    std::fs::copy("/bin/busybox", root.join("bin/busybox")).unwrap();
    for name in ["sh", "ls", "id", "cat", "sleep"] {
        symlink("busybox", root.join("bin").join(name)).unwrap();
    }
    std::fs::write(root.join("srv/lower"), "1").unwrap();
    umoci(dir, &["repack", "--image", "layout:tool", "one"]);
    umoci(dir, &["unpack", "--image", "layout:tool", "two"]);
    let srv = dir.join("two/rootfs/srv");
    std::fs::remove_file(srv.join("lower")).unwrap();
    std::fs::write(srv.join("upper"), "2").unwrap();
    let everybody = std::os::unix::fs::PermissionsExt::from_mode(0o777);
    std::fs::set_permissions(&srv, everybody).unwrap();
    umoci(dir, &["repack", "--image", "layout:tool", "two"]);
    let settings = [
        "config",
        "--image=layout:tool",
        "--config.entrypoint=/bin/sh",
        "--config.entrypoint=-c",
        &format!("--config.cmd={command}"),
        "--config.env=GREETING=hello",
        "--config.workingdir=/srv",
        "--config.user=1000:1000",
    ];
    umoci(dir, &settings);
}

/// Writes to its root, and says who it is.
const COMMAND: &str = "echo $GREETING from $(pwd) to $(id -u); echo new > new; ls; exit 7";
const SAID: &str = "hello from /srv to 1000\nnew\nupper\n";

#[test]
fn an_image_of_a_registry_runs_what_it_says_with_what_it_says() {
    let dir = tempfile::tempdir().unwrap();
    layout(dir.path(), COMMAND);
    let registry = Registry::start(&dir.path().join("registry"));
    registry.push(&dir.path().join("layout"), "tool", "team/tool:1");
    let name = registry.name("team/tool:1");
    smartvm()
        .args(["image", "pull", "--name", "registry-tool", "--kernel-from"])
        .arg(image())
        .arg(&name)
        .assert()
        .success()
        .stdout("registry-tool\n");
    let run = |words: &[&str]| {
        let mut run = smartvm();
        run.args(["run", "--pull", "never", "--image", &name])
            .args(words);
        run.assert()
    };
    run(&[]).code(7).stdout(SAID);

    // Detached it runs by itself, and its end is the VM's.
    let logs = |id: &str| {
        let logs = smartvm().args(["logs", id]).assert().success();
        String::from_utf8_lossy(&logs.get_output().stdout).replace('\r', "")
    };
    let end = |id: &str| {
        let waited = smartvm().args(["wait", id]).assert().success();
        String::from_utf8_lossy(&waited.get_output().stdout).into_owned()
    };
    let alone = Vm::of("registry-alone", &["--image", &name]);
    assert_eq!(end(&alone.id), "its command ended: exit status 7\n");
    assert!(logs(&alone.id).contains(SAID), "{}", logs(&alone.id));
    let inspected = smartvm().args(["inspect", &alone.id]).assert().success();
    let record: Value = serde_json::from_slice(&inspected.get_output().stdout).unwrap();
    assert_eq!(
        record[0]["reason"],
        json!({ "command-ended": { "code": 7 } })
    );
    assert_eq!(record[0]["state"], "failed", "as its command did");
    run(&["--detach", "--id", "registry-none", "--", "/no/such"])
        .code(127)
        .stdout("");
    let none = Vm::named("registry-none");
    let why = end(&none.id);
    assert!(why.starts_with("it could not be started: "), "{why}");

    // Another command instead of the image's, whose output may be opened by name; one more in
    // the same guest is run as the image's own would be.
    let script = "echo $GREETING from $(pwd) to $(id -u) > /dev/stdout; sleep 1000";
    let words = ["--image", &name, "--", "sh", "-c", script];
    let vm = Vm::of("registry-vm", &words);
    until("its first word", || {
        logs(&vm.id).contains("hello from /srv to 1000\n")
    });
    let script = ["sh", "-c", "echo $GREETING $(pwd) $(id -u)"];
    vm.exec(&[], &script)
        .assert()
        .success()
        .stdout("hello /srv 1000\n");
    let asked = ["-u", "0", "-w", "/", "-e", "GREETING=bye"];
    vm.exec(&asked, &script)
        .assert()
        .success()
        .stdout("bye / 0\n");
    drop(vm);
    smartvm()
        .args(["image", "rm", "registry-tool"])
        .assert()
        .success();
}

#[test]
fn an_image_of_umocis_as_squashfs_is_written_in_memory_and_on_a_drive_with_or_without_initramfs() {
    let dir = tempfile::tempdir().unwrap();
    layout(dir.path(), COMMAND);
    let output = dir.path().join("tool");
    smartvm()
        .args(["image", "import", "--ref", "tool", "--format", "squashfs"])
        .arg("--kernel-from")
        .arg(image())
        .arg(dir.path().join("layout"))
        .arg("--output")
        .arg(&output)
        .assert()
        .success();
    assert!(output.join("rootfs.squashfs").is_file());
    let run = |words: &[&std::ffi::OsStr]| {
        let mut run = smartvm();
        run.args(["run", "--image"]).arg(&output).args(words);
        run.assert()
    };
    run(&[]).code(7).stdout(SAID);

    // Without its initramfs it gets the agent's; this kernel needs its modules in it.
    let path = output.join("manifest.json");
    let mut manifest: Value = serde_json::from_slice(&std::fs::read(&path).unwrap()).unwrap();
    manifest.as_object_mut().unwrap().remove("initrd").unwrap();
    std::fs::write(&path, manifest.to_string()).unwrap();
    std::fs::remove_file(output.join("initramfs.cpio")).unwrap();
    let modules = std::env::var_os("SMARTVM_TEST_MODULES").unwrap();
    let script = "cat /proc/mounts | while read a b c d; do [ $b = / ] && echo $c $d; done; \
                  echo x > /srv/x; ls /srv";
    let words = ["--scratch", "64MiB", "--modules"].map(std::ffi::OsStr::new);
    let command = ["--", "/bin/sh", "-c", script].map(std::ffi::OsStr::new);
    let ran = run(&[&words[..], &[&modules], &command[..]].concat()).success();
    let said = String::from_utf8(ran.get_output().stdout.clone()).unwrap();
    assert!(
        said.starts_with("overlay ") && said.ends_with("upper\nx\n"),
        "{said}"
    );
}
