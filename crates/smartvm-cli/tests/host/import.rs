//! Images on this machine that other people's tools wrote: umoci their layers, skopeo archives.

use std::process::Command;

use serde_json::Value;

use crate::docker_registry::layout;
use crate::images::offer;
use crate::support::Corner;

#[test]
fn archives_that_skopeo_wrote_are_imported_each_as_the_same_image() {
    let corner = Corner::new();
    let run = |args: &[&str]| {
        let mut command = corner.command();
        // Any static program will do for a guest that runs none.
        command.env("SMARTVM_AGENT", "/bin/busybox").args(args);
        command.assert().success()
    };
    run(&["image", "pull", "--manifest-path", &offer(&corner, "base")]);
    let dir = corner.file("layout");
    layout(&dir, "one", &[("file", b"1"), ("more", b"2")]);
    let path = |name: &str| corner.file(name).display().to_string();
    for (format, file) in [("oci-archive", "oci.tar"), ("docker-archive", "docker.tar")] {
        let copied = Command::new("skopeo")
            .args(["copy", "--quiet", "--insecure-policy"])
            .arg(format!("oci:{}:one", dir.display()))
            .arg(format!("{format}:{}:example/tool:1", path(file)))
            .output()
            .unwrap();
        assert!(copied.status.success(), "{format}: {copied:?}");
    }
    let from = |source: &str, words: &[&str]| {
        let name = source.replace('.', "-");
        let import = ["image", "import", &path(source), "--name", &name];
        run(&[&import[..], &["--kernel-from", "base"], words].concat());
        run(&["image", "verify", &name]);
        let shown = run(&["--json", "image", "inspect", &name]);
        let image: Value = serde_json::from_slice(&shown.get_output().stdout).unwrap();
        assert_eq!(image["record"]["origin"], "imported");
        image["manifest"]["rootfs"]["sha256"]
            .as_str()
            .unwrap()
            .to_owned()
    };
    let of_layout = from("layout", &["--ref", "one"]);
    assert_eq!(from("oci.tar", &[]), of_layout);
    assert_eq!(from("docker.tar", &[]), of_layout);
}
