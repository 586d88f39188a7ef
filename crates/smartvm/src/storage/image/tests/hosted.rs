//! Hosted manifests.

use proptest::prelude::*;

use super::*;

#[tokio::test]
async fn a_hosted_manifest_by_url_brings_what_it_names_and_only_that() {
    let (server, dir) = (Server::start().await, tempfile::tempdir().unwrap());
    let (boot, root) = (kernel(X86, "k"), kernel(X86, "r"));
    server
        .put("/m/k", boot.clone())
        .put("/root.img", root.clone());
    let sum = |bytes: &[u8]| sha256_of(bytes);
    let by_url = format!(
        "{{\"url\":\"{}\",\"fileName\":\"disk\",\"sha256\":\"{}\",\"sizeBytes\":{}}}",
        server.url("/root.img"),
        sum(&root),
        root.len()
    );
    let relative = format!("{{\"path\":\"k\",\"sha256\":\"{}\"}}", sum(&boot));
    server.put(
        "/m/manifest.json",
        manifest("mine", "x86_64", &relative, &by_url),
    );
    let images = images(&server, dir.path());
    let url = server.url("/m/manifest.json");
    let mut options = EnsureBaseImageOptions::builder().manifest_url(&url).build();
    let held = images.ensure(&options, &silent()).await.unwrap();
    let image = held.record().base_image.clone().unwrap();
    assert_eq!(image.source.manifest_url.as_deref(), Some(url.as_str()));
    assert_eq!(image.source.rootfs_url, Some(server.url("/root.img")));
    assert_eq!(image.boot_args, "quiet");
    assert_eq!(std::fs::read(image.bundle_dir.join("disk")).unwrap(), root);
    // Another content under the same name replaces it, but not while it is used.
    server.put("/m/k", kernel(X86, "other"));
    options.force_download = Some(true);
    let altered = images.ensure(&options, &silent()).await.unwrap_err();
    assert_eq!(altered.kind(), ErrorKind::Corrupt, "{altered}");
    drop(held);
    assert_eq!(std::fs::read(image.bundle_dir.join("k")).unwrap(), boot);
    options.arch = Some(Arch::Aarch64);
    let other = images.ensure(&options, &silent()).await.unwrap_err();
    assert!(other.to_string().contains("aarch64 is wanted"), "{other}");
    options.manifest_path = Some("x".into());
    let both = images.ensure(&options, &silent()).await.unwrap_err();
    assert_eq!(both.kind(), ErrorKind::Invalid);
    let neither = EnsureBaseImageOptions::builder()
        .preset(BaseImagePreset::Hosted)
        .build();
    let neither = images.ensure(&neither, &silent()).await.unwrap_err();
    assert_eq!(neither.kind(), ErrorKind::Invalid);
}

#[tokio::test]
async fn a_hosted_manifest_by_path_is_held_to_its_checksums_and_its_architecture() {
    let (server, dir) = (Server::start().await, tempfile::tempdir().unwrap());
    let images = images(&server, dir.path());
    let at = dir.path().join("hosted");
    std::fs::create_dir(&at).unwrap();
    let path = at.join("manifest.json");
    let (right, arm) = (kernel(X86, "k"), kernel(ARM, "k"));
    std::fs::write(at.join("k"), &right).unwrap();
    std::fs::write(at.join("arm"), &arm).unwrap();
    std::fs::write(at.join("r"), "root").unwrap();
    std::os::unix::fs::symlink("/etc/hostname", at.join("link")).unwrap();
    let root = "{\"path\":\"r\"}";
    for (kernel, root, kind) in [
        ("{\"path\":\"k\",\"sizeBytes\":1}", root, ErrorKind::Corrupt),
        ("{\"path\":\"arm\"}", root, ErrorKind::Invalid),
        ("{\"path\":\"link\"}", root, ErrorKind::Invalid),
        ("{\"path\":\"../k\"}", root, ErrorKind::Invalid),
        ("{\"path\":\"/etc/hostname\"}", root, ErrorKind::Invalid),
        ("{\"path\":\"k\\u0000\"}", root, ErrorKind::Invalid),
        (
            "{\"path\":\"k\",\"fileName\":\"a/b\"}",
            root,
            ErrorKind::Invalid,
        ),
        (
            "{\"path\":\"k\",\"fileName\":\"image.json\"}",
            root,
            ErrorKind::Invalid,
        ),
        (
            "{\"path\":\"k\",\"fileName\":\"r\"}",
            root,
            ErrorKind::Invalid,
        ),
        ("{\"url\":\"http://x/k\"}", root, ErrorKind::Invalid),
        ("{\"path\":\"none\"}", root, ErrorKind::NotFound),
    ] {
        std::fs::write(&path, manifest("m", "x86_64", kernel, root)).unwrap();
        let refused = images.ensure(&by_path(&path), &silent()).await.unwrap_err();
        assert_eq!(refused.kind(), kind, "{kernel}: {refused}");
        assert_eq!(images.store().list().unwrap().len(), 0);
    }
    for id in ["a/b", "..", "nul\\u0000", ""] {
        std::fs::write(&path, manifest(id, "x86_64", "{\"path\":\"k\"}", root)).unwrap();
        let refused = images.ensure(&by_path(&path), &silent()).await.unwrap_err();
        assert_eq!(refused.kind(), ErrorKind::Invalid, "{id}");
    }
    std::fs::write(&path, manifest("m", "x86_64", "{\"path\":\"k\"}", root)).unwrap();
    let held = images.ensure(&by_path(&path), &silent()).await.unwrap();
    assert!(held.bundle().kernel().sha256.is_some(), "recorded");
    let source = held.record().base_image.clone().unwrap().source;
    assert_eq!(
        source.kernel_source_path,
        Some(at.canonicalize().unwrap().join("k"))
    );
}

#[tokio::test]
async fn an_initramfs_of_a_hosted_manifest_comes_with_it() {
    let (server, dir) = (Server::start().await, tempfile::tempdir().unwrap());
    let images = images(&server, dir.path());
    let initrd = b"initramfs".to_vec();
    server.put("/init.cpio", initrd.clone());
    let path = dir.path().join("manifest.json");
    std::fs::write(dir.path().join("k"), kernel(X86, "k")).unwrap();
    std::fs::write(dir.path().join("r"), "root").unwrap();
    let offer = |sum: &str| {
        let url = server.url("/init.cpio");
        let root =
            format!("{{\"path\":\"r\"}},\"initrd\":{{\"url\":\"{url}\",\"sha256\":\"{sum}\"}}");
        let text = manifest("m", "x86_64", "{\"path\":\"k\"}", &root);
        std::fs::write(&path, text).unwrap();
    };
    offer(&sha256_of(b"another"));
    let altered = images.ensure(&by_path(&path), &silent()).await.unwrap_err();
    assert_eq!(altered.kind(), ErrorKind::Corrupt, "{altered}");
    offer(&sha256_of(&initrd));
    let held = images.ensure(&by_path(&path), &silent()).await.unwrap();
    let found = &held.bundle().initrd().unwrap().path;
    assert_eq!(std::fs::read(found).unwrap(), initrd);
}

proptest! {
    #[test]
    fn a_manifest_of_any_text_is_no_panic(
        text in "[\\{\\}\":,a-zA-Z0-9\\\\./\u{0}]{0,120}",
        at in 0_usize..200,
    ) {
        let whole = manifest("m", "x86_64", "{\"path\":\"k\"}", "{\"path\":\"r\"}");
        let at = at.min(whole.len());
        let broken = format!("{}{text}{}", &whole[..at], &whole[at..]);
        let _any = crate::storage::bundle::parse_manifest(&broken, Path::new("m"));
    }
}
