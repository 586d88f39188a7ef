use super::*;

const SUM: &str = "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad";

fn artifact(path: &str) -> ArtifactManifest {
    ArtifactManifest::builder().path(path).build()
}

fn manifest() -> BundleManifest {
    BundleManifest::builder()
        .bundle_id("debian-12")
        .arch(Arch::X86_64)
        .firecracker_version("1.12.1")
        .rootfs_type(RootfsType::Ext4)
        .kernel(artifact("vmlinux"))
        .rootfs(artifact("rootfs.ext4"))
        .build()
}

/// The paths of what is wrong.
fn wrong(change: impl FnOnce(&mut BundleManifest)) -> Vec<String> {
    let mut manifest = manifest();
    change(&mut manifest);
    match manifest.validate() {
        Ok(()) => Vec::new(),
        Err(problems) => problems
            .iter()
            .map(|problem| problem.path.clone())
            .collect(),
    }
}

#[test]
fn every_field_is_read_and_written_as_it_was() {
    let text = format!(
        r#"{{
  "schemaVersion": 1,
  "bundleId": "debian-12_x.1",
  "name": "Debian",
  "arch": "aarch64",
  "firecrackerVersion": "1.12.1",
  "rootfsType": "squashfs",
  "rootfsIsReadOnly": true,
  "bootArgs": "console=ttyS0",
  "kernel": {{
    "url": "https://example.org/k/vmlinux",
    "fileName": "vmlinux-6.1",
    "sha256": "{SUM}",
    "sizeBytes": 7
  }},
  "initrd": {{
    "path": "boot/initramfs.cpio"
  }},
  "rootfs": {{
    "path": "rootfs.squashfs",
    "sha256": "{SUM}"
  }}
}}"#
    );
    let manifest: BundleManifest = serde_json::from_str(&text).unwrap();
    manifest.validate().unwrap();
    assert_eq!(serde_json::to_string_pretty(&manifest).unwrap(), text);
    let unknown = text.replace("\"name\"", "\"title\"");
    assert!(serde_json::from_str::<BundleManifest>(&unknown).is_err());
}

#[test]
fn each_rule_is_reported_with_its_field() {
    assert_eq!(wrong(|_| {}), [""; 0]);
    assert_eq!(wrong(|m| m.schema_version = 2), ["schemaVersion"]);
    for id in ["", ".", "..", "a/b", "ä", "a b", &"x".repeat(129)] {
        assert_eq!(wrong(|m| m.bundle_id = id.into()), ["bundleId"], "{id}");
    }
    assert_eq!(wrong(|m| m.bundle_id = "...".into()), [""; 0]);
    assert_eq!(
        wrong(|m| m.firecracker_version = " ".into()),
        ["firecrackerVersion"]
    );
    assert_eq!(
        wrong(|m| m.boot_args = Some("x".repeat(2049))),
        ["bootArgs"]
    );
    assert_eq!(wrong(|m| m.boot_args = Some("a\nb".into())), ["bootArgs"]);
    let squashfs = wrong(|m| {
        m.rootfs_type = RootfsType::Squashfs;
        m.rootfs_is_read_only = Some(false);
    });
    assert_eq!(squashfs, ["rootfsIsReadOnly"]);
    for path in ["/etc/passwd", "../up", "a/../../b", "", ".", "a/.."] {
        assert_eq!(
            wrong(|m| m.kernel = artifact(path)),
            ["kernel.path"],
            "{path}"
        );
    }
    assert_eq!(wrong(|m| m.kernel = artifact("./a/b")), [""; 0]);
    assert_eq!(
        wrong(|m| m.rootfs = ArtifactManifest::default()),
        ["rootfs"]
    );
    for name in ["", ".", "..", "a/b", "a\\b", "a\0"] {
        assert_eq!(
            wrong(|m| m.rootfs.file_name = Some(name.into())),
            ["rootfs.fileName"]
        );
    }
    assert_eq!(
        wrong(|m| m.rootfs.sha256 = Some(SUM[1..].into())),
        ["rootfs.sha256"]
    );
    assert_eq!(
        wrong(|m| m.rootfs.size_bytes = Some(0)),
        ["rootfs.sizeBytes"]
    );
}

#[test]
fn what_is_downloaded_needs_a_checksum_and_a_name() {
    let hosted = |url: &str| ArtifactManifest::builder().url(url).sha256(SUM).build();
    let with = |artifact: ArtifactManifest| wrong(|m| m.initrd = Some(artifact));
    assert_eq!(with(hosted("https://example.org/a/i.cpio?v=1")), [""; 0]);
    let mut unsummed = hosted("https://example.org/i");
    unsummed.sha256 = None;
    assert_eq!(with(unsummed), ["initrd.sha256"]);
    let mut both = hosted("http://example.org/i");
    both.path = Some("i".into());
    assert_eq!(with(both), ["initrd"]);
    assert_eq!(with(hosted("file:///etc/passwd")), ["initrd.url"]);
    assert_eq!(with(hosted("https://example.org/")), ["initrd.fileName"]);
    assert_eq!(with(hosted("https://")), ["initrd.url", "initrd.fileName"]);
}

#[test]
fn all_problems_are_reported_at_once() {
    let all = wrong(|m| {
        m.schema_version = 9;
        m.bundle_id = "/".into();
        m.kernel = artifact("/k");
        m.rootfs.sha256 = Some("no".into());
    });
    assert_eq!(
        all,
        ["schemaVersion", "bundleId", "kernel.path", "rootfs.sha256"]
    );
}

#[test]
fn a_download_is_named_after_its_url() {
    let at = |url: &str| ArtifactManifest::builder().url(url).build().local_path();
    assert_eq!(
        at("https://h/a/vmlinux-6.1?x=/y#z"),
        Some("vmlinux-6.1".into())
    );
    assert_eq!(at("https://host"), None);
    assert_eq!(at("https://h/.."), None);
}

#[test]
fn the_default_boot_arguments_leave_modules_and_the_root_alone() {
    for arch in [Arch::X86_64, Arch::Aarch64] {
        let words: Vec<&str> = BundleManifest::default_boot_args(arch).split(' ').collect();
        assert!(words.contains(&"console=ttyS0") && words.contains(&"panic=1"));
        assert!(!words.contains(&"nomodule") && !words.contains(&""));
        assert!(!words.iter().any(|word| word.starts_with("root=")));
    }
}
