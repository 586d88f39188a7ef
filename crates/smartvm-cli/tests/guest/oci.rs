//! Images that other people's tools made, in guests.

use std::os::unix::fs::symlink;
use std::path::Path;
use std::process::Command;

use crate::support::{image, smartvm};

fn umoci(dir: &Path, words: &[&str]) {
    let mut command = Command::new("umoci");
    let output = command.args(words).current_dir(dir).output().unwrap();
    assert!(output.status.success(), "umoci {words:?}: {output:?}");
}

#[test]
fn an_image_of_umocis_is_imported_and_runs_what_it_says() {
    let dir = tempfile::tempdir().unwrap();
    let at = |name: &str| dir.path().join(name);
    umoci(dir.path(), &["init", "--layout", "layout"]);
    umoci(dir.path(), &["new", "--image", "layout:tool"]);
    umoci(dir.path(), &["unpack", "--image", "layout:tool", "one"]);
    let root = at("one/rootfs");
    for name in ["bin", "srv"] {
        std::fs::create_dir_all(root.join(name)).unwrap();
    }
    std::fs::copy("/bin/busybox", root.join("bin/busybox")).unwrap();
    for name in ["sh", "ls"] {
        symlink("busybox", root.join("bin").join(name)).unwrap();
    }
    std::fs::write(root.join("srv/lower"), "1").unwrap();
    umoci(dir.path(), &["repack", "--image", "layout:tool", "one"]);
    // The second layer hides a file of the first one.
    umoci(dir.path(), &["unpack", "--image", "layout:tool", "two"]);
    std::fs::remove_file(at("two/rootfs/srv/lower")).unwrap();
    std::fs::write(at("two/rootfs/srv/upper"), "2").unwrap();
    umoci(dir.path(), &["repack", "--image", "layout:tool", "two"]);
    let script = "--config.cmd=echo $GREETING from $(pwd) to $(id -u); ls; exit 7";
    let settings = [
        "config",
        "--image=layout:tool",
        "--config.entrypoint=/bin/sh",
        "--config.entrypoint=-c",
        script,
        "--config.env=GREETING=hello",
        "--config.workingdir=/srv",
        "--config.user=1000:1000",
    ];
    umoci(dir.path(), &settings);

    let output = at("tool");
    smartvm()
        .args(["image", "import", "--ref", "tool", "--kernel-from"])
        .arg(image())
        .args([
            at("layout").as_os_str(),
            "--output".as_ref(),
            output.as_os_str(),
        ])
        .assert()
        .success();
    let run = |words: &[&str]| {
        let mut run = smartvm();
        run.args(["run", "--image"]).arg(&output).args(words);
        run.assert()
    };
    run(&[]).code(7).stdout("hello from /srv to 1000\nupper\n");
}
