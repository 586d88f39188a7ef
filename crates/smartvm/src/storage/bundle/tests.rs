use super::*;
use crate::storage::checksum::sha256_of;

/// A bundle in a directory of its own; `change` alters its manifest's text.
fn bundle(change: impl FnOnce(String) -> String) -> tempfile::TempDir {
    let dir = tempfile::tempdir().unwrap();
    fs::write(dir.path().join("vmlinux"), "kernel").unwrap();
    fs::write(dir.path().join("initramfs.cpio"), "initramfs").unwrap();
    fs::write(dir.path().join("rootfs.ext4"), "rootfs").unwrap();
    let artifact = |path: &str, data: &[u8]| {
        format!(
            r#"{{"path": "{path}", "sha256": "{}", "sizeBytes": {}}}"#,
            sha256_of(data).to_ascii_uppercase(),
            data.len()
        )
    };
    let manifest = format!(
        r#"{{"schemaVersion": 1, "bundleId": "test", "arch": "x86_64",
            "firecrackerVersion": "1.12.1", "rootfsType": "ext4",
            "kernel": {}, "initrd": {}, "rootfs": {}}}"#,
        artifact("vmlinux", b"kernel"),
        artifact("initramfs.cpio", b"initramfs"),
        artifact("./rootfs.ext4", b"rootfs"),
    );
    fs::write(dir.path().join(MANIFEST), change(manifest)).unwrap();
    dir
}

fn sound() -> tempfile::TempDir {
    bundle(|text| text)
}

fn verify(bundle: &Bundle) -> Result<Vec<&'static str>> {
    let (mut progress, never) = (|_| {}, || false);
    bundle.verify(&mut Watch::new(&mut progress, &never))
}

#[track_caller]
fn refused(dir: &Path, kind: ErrorKind, says: &str) {
    let error = Bundle::load(dir).unwrap_err();
    assert_eq!(error.kind(), kind, "{error}");
    assert!(error.to_string().contains(says), "{error}, not {says}");
}

#[test]
fn a_sound_bundle_loads_and_verifies() {
    let dir = sound();
    let bundle = Bundle::load(dir.path()).unwrap();
    assert_eq!(verify(&bundle).unwrap(), [""; 0]);
    assert_eq!(bundle.bundle_id(), "test");
    assert_eq!(bundle.kernel().size_bytes, 6);
    assert_eq!(bundle.initrd().unwrap().role, "initrd");
    assert!(bundle.rootfs().path.ends_with("rootfs.ext4") && bundle.rootfs().path.is_absolute());
    assert!(!bundle.is_read_only());
    assert_eq!(
        bundle.boot_args(),
        BundleManifest::default_boot_args(Arch::X86_64)
    );
}

#[test]
fn squashfs_is_read_only_unless_nothing_else_is_said() {
    let dir = bundle(|text| {
        text.replace("ext4\"", "squashfs\"")
            .replace("fs.squashfs", "fs.ext4")
    });
    assert!(Bundle::load(dir.path()).unwrap().is_read_only());
    let dir = bundle(|text| text.replace("\"kernel\"", "\"rootfsIsReadOnly\": true, \"kernel\""));
    assert!(Bundle::load(dir.path()).unwrap().is_read_only());
}

#[test]
fn a_truncated_file_is_named_with_the_sizes() {
    let dir = sound();
    fs::write(dir.path().join("rootfs.ext4"), "root").unwrap();
    refused(dir.path(), ErrorKind::Corrupt, "the rootfs of the bundle");
    refused(
        dir.path(),
        ErrorKind::Corrupt,
        "truncated: it is 4 bytes long, 6 were expected",
    );
}

#[test]
fn every_altered_file_is_named_with_both_checksums() {
    let dir = sound();
    fs::write(dir.path().join("vmlinux"), "lenrek").unwrap();
    fs::write(dir.path().join("initramfs.cpio"), "smfartini").unwrap();
    let bundle = Bundle::load(dir.path()).unwrap();
    let error = verify(&bundle).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Corrupt);
    for word in [
        "kernel",
        "initrd",
        &sha256_of(b"lenrek"),
        &sha256_of(b"kernel"),
    ] {
        assert!(error.to_string().contains(word), "{error}");
    }
    assert!(!error.to_string().contains("rootfs"));
}

#[test]
fn what_has_no_checksum_is_told() {
    let dir = bundle(|text| {
        let sum = sha256_of(b"rootfs").to_ascii_uppercase();
        text.replace(&format!("\"sha256\": \"{sum}\", "), "")
    });
    assert_eq!(
        verify(&Bundle::load(dir.path()).unwrap()).unwrap(),
        ["rootfs"]
    );
}

#[test]
fn missing_things_are_told_apart() {
    let dir = tempfile::tempdir().unwrap();
    refused(
        &dir.path().join("no"),
        ErrorKind::NotFound,
        "opening the bundle",
    );
    refused(
        dir.path(),
        ErrorKind::NotFound,
        "isn't a bundle: it has no manifest.json",
    );
    let dir = sound();
    fs::remove_file(dir.path().join("vmlinux")).unwrap();
    refused(
        dir.path(),
        ErrorKind::NotFound,
        "opening the kernel of the bundle",
    );
}

#[test]
fn a_newer_format_is_refused_whatever_its_shape() {
    let dir = bundle(|_| r#"{"schemaVersion": 2, "layers": []}"#.into());
    refused(
        dir.path(),
        ErrorKind::Corrupt,
        "has the format version 2; this smartvm knows 1",
    );
}

#[test]
fn a_wrong_manifest_is_refused_with_all_that_is_wrong() {
    let dir = bundle(|text| {
        text.replace("\"test\"", "\"a/b\"")
            .replace("vmlinux", "../vmlinux")
    });
    refused(dir.path(), ErrorKind::Invalid, "bundleId");
    refused(dir.path(), ErrorKind::Invalid, "kernel.path");
    let dir = bundle(|text| text.replace("\"bundleId\"", "\"bundleID\""));
    refused(dir.path(), ErrorKind::Invalid, "bundleID");
    let dir = bundle(|_| "{".into());
    refused(dir.path(), ErrorKind::Invalid, "manifest.json");
    let dir = bundle(|_| " ".repeat(9 << 20));
    refused(dir.path(), ErrorKind::Invalid, "longer than 8 MiB");
}

#[test]
fn links_do_not_lead_out_of_a_bundle() {
    let dir = sound();
    fs::remove_file(dir.path().join("vmlinux")).unwrap();
    std::os::unix::fs::symlink("/etc/hostname", dir.path().join("vmlinux")).unwrap();
    refused(dir.path(), ErrorKind::Invalid, "leads out of it");
    fs::remove_file(dir.path().join("vmlinux")).unwrap();
    fs::create_dir(dir.path().join("vmlinux")).unwrap();
    refused(dir.path(), ErrorKind::Invalid, "isn't a regular file");
}
