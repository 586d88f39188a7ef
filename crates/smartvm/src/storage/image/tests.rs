use std::path::Path;
use std::sync::Mutex;

use proptest::prelude::*;

use super::*;
use crate::spec::RootfsType;
use crate::storage::checksum::sha256_of;
use crate::storage::download::tests::quick;
use crate::storage::download::tests::server::Server;

/// The beginning of a kernel for an architecture, and what makes it another.
fn kernel(machine: u8, what: &str) -> Vec<u8> {
    let mut bytes = vec![0; 64 + 56];
    bytes[..7].copy_from_slice(b"\x7fELF\x02\x01\x01");
    (bytes[16], bytes[18], bytes[20]) = (2, machine, 1);
    bytes[32] = 64;
    (bytes[52], bytes[54], bytes[56]) = (64, 56, 1);
    bytes[64] = 1;
    bytes.extend_from_slice(what.as_bytes());
    bytes
}

const X86: u8 = 62;
const ARM: u8 = 183;

fn page(keys: &[&str], prefixes: &[&str]) -> String {
    let keys: String = keys
        .iter()
        .map(|key| format!("<Contents><Key>{key}</Key><Size>1</Size></Contents>"))
        .collect();
    let prefixes: String = prefixes
        .iter()
        .map(|prefix| format!("<CommonPrefixes><Prefix>{prefix}</Prefix></CommonPrefixes>"))
        .collect();
    format!(
        "<?xml version=\"1.0\"?><ListBucketResult xmlns=\"http://s3.amazonaws.com/doc/2006-03-01/\">\
         <Prefix>firecracker-ci/</Prefix><IsTruncated>false</IsTruncated>{keys}{prefixes}\
         </ListBucketResult>"
    )
}

fn versions_page(server: &Server, versions: &[&str]) {
    let prefixes: Vec<_> = versions
        .iter()
        .map(|v| format!("firecracker-ci/{v}/"))
        .collect();
    let prefixes: Vec<_> = prefixes.iter().map(String::as_str).collect();
    let at = "/b?list-type=2&prefix=firecracker-ci%2F&delimiter=%2F";
    server.put(at, page(&[], &prefixes));
}

/// A CI version with these files.
fn offer(server: &Server, version: &str, names: &[&str]) {
    let at = format!("/b?list-type=2&prefix=firecracker-ci%2F{version}%2Fx86_64%2F");
    let keys: Vec<_> = names
        .iter()
        .map(|name| format!("firecracker-ci/{version}/x86_64/{name}"))
        .collect();
    for key in &keys {
        server.put(&format!("/b/{key}"), kernel(X86, key));
    }
    let keys: Vec<_> = keys.iter().map(String::as_str).collect();
    server.put(&at, page(&keys, &[]));
}

fn images(server: &Server, dir: &Path) -> BaseImages {
    let options = BaseImageManagerOptions::builder()
        .cache_dir(dir.join("base-images"))
        .build();
    let bucket = server.url("/b");
    BaseImages::open(options, dir.join("verified"), quick(), Some(&bucket)).unwrap()
}

fn silent() -> Tell {
    Arc::new(|_| {})
}

fn by_path(path: &Path) -> EnsureBaseImageOptions {
    EnsureBaseImageOptions::builder()
        .manifest_path(path)
        .build()
}

#[tokio::test]
async fn latest_is_the_newest_by_number_with_squashfs_before_ext4() {
    let (server, dir) = (Server::start().await, tempfile::tempdir().unwrap());
    versions_page(&server, &["v1.9", "v1.12", "v1.10", "junk", "v1.x"]);
    offer(
        &server,
        "v1.12",
        &[
            "vmlinux-5.10.9",
            "vmlinux-5.10.223",
            "vmlinux-5.10.223.config",
            "vmlinux-5.10.300-no-acpi",
            "ubuntu-22.04.squashfs",
            "ubuntu-24.04.ext4",
            "ubuntu-24.04.squashfs",
        ],
    );
    let images = images(&server, dir.path());
    let held = images.ensure(&Default::default(), &silent()).await.unwrap();
    let image = held.record().base_image.clone().unwrap();
    assert_eq!(image.bundle_id, "firecracker-ci-v1.12-x86_64");
    assert_eq!(
        (image.ci_version.as_str(), image.preset),
        ("v1.12", BaseImagePreset::Latest)
    );
    assert!(image.kernel_image_path.ends_with("vmlinux-5.10.223"));
    assert!(image.rootfs_path.ends_with("ubuntu-24.04.squashfs"));
    assert_eq!(image.rootfs_type, RootfsType::Squashfs);
    assert!(image.rootfs_is_read_only);
    let content = std::fs::read(&image.kernel_image_path).unwrap();
    let sums = image.checksums.unwrap();
    assert_eq!(
        sums.kernel_sha256,
        Some(sha256_of(&content)),
        "recorded at first download"
    );
    assert_eq!(
        image.sizes.unwrap().kernel_bytes,
        Some(content.len() as u64)
    );
    let before = server.requests();
    images.ensure(&Default::default(), &silent()).await.unwrap();
    assert_eq!(
        server.requests() - before,
        2,
        "only the listings are asked for again"
    );
}

#[tokio::test]
async fn the_dated_layout_is_newer_and_lts_is_a_fixed_version() {
    let (server, dir) = (Server::start().await, tempfile::tempdir().unwrap());
    versions_page(
        &server,
        &["v1.15", "20250101-abc", "20260301-0a1b", "../x", "20269999"],
    );
    offer(
        &server,
        "20260301-0a1b",
        &["vmlinux-6.1.1", "ubuntu-24.04.ext4"],
    );
    offer(&server, "v1.7", &["vmlinux-5.10.1", "ubuntu-22.04.ext4"]);
    // Without images for this architecture, the next older one is taken.
    offer(&server, "20269999", &["vmlinux-6.1.1"]);
    let images = images(&server, dir.path());
    let held = images.ensure(&Default::default(), &silent()).await.unwrap();
    assert_eq!(
        held.bundle().bundle_id(),
        "firecracker-ci-20260301-0a1b-x86_64"
    );
    assert!(!held.bundle().is_read_only());
    drop(held);
    let lts = EnsureBaseImageOptions::builder()
        .preset(BaseImagePreset::Lts)
        .build();
    let held = images.ensure(&lts, &silent()).await.unwrap();
    let image = held.record().base_image.clone().unwrap();
    assert_eq!(image.firecracker_version, "v1.7.0");
    let before = server.requests();
    images.ensure(&lts, &silent()).await.unwrap();
    assert_eq!(
        server.requests(),
        before,
        "what is fixed and there needs no network"
    );
}

#[tokio::test]
async fn without_a_network_the_newest_there_is_used_with_a_warning() {
    let (server, dir) = (Server::start().await, tempfile::tempdir().unwrap());
    versions_page(&server, &["v1.12"]);
    offer(&server, "v1.12", &["vmlinux-6.1.1", "ubuntu-24.04.ext4"]);
    images(&server, dir.path())
        .ensure(&Default::default(), &silent())
        .await
        .unwrap();
    let empty = Server::start().await;
    let offline = images(&empty, dir.path());
    let told = Arc::new(Mutex::new(Vec::new()));
    let kept = Arc::clone(&told);
    let tell: Tell = Arc::new(move |event| kept.lock().unwrap().push(event));
    offline.ensure(&Default::default(), &tell).await.unwrap();
    assert!(matches!(&told.lock().unwrap()[0], Event::Warning(_)));
    let forced = EnsureBaseImageOptions::builder()
        .force_download(true)
        .build();
    offline.ensure(&forced, &silent()).await.unwrap_err();
    let fresh = tempfile::tempdir().unwrap();
    let none = images(&empty, fresh.path())
        .ensure(&Default::default(), &silent())
        .await;
    assert!(none.unwrap_err().to_string().contains("none being there"));
}

fn manifest(id: &str, arch: &str, kernel: &str, rootfs: &str) -> String {
    format!(
        "{{\"schemaVersion\":1,\"bundleId\":\"{id}\",\"arch\":\"{arch}\",\
         \"firecrackerVersion\":\"1.12.1\",\"rootfsType\":\"ext4\",\"bootArgs\":\"quiet\",\
         \"kernel\":{kernel},\"rootfs\":{rootfs}}}"
    )
}

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
async fn more_than_may_be_stored_is_evicted_with_a_warning() {
    let (server, dir) = (Server::start().await, tempfile::tempdir().unwrap());
    let images = images(&server, dir.path());
    let path = dir.path().join("manifest.json");
    std::fs::write(dir.path().join("k"), kernel(X86, "k")).unwrap();
    std::fs::write(dir.path().join("r"), "root").unwrap();
    let told = Arc::new(Mutex::new(Vec::new()));
    let kept = Arc::clone(&told);
    let tell: Tell = Arc::new(move |event| kept.lock().unwrap().push(event));
    for id in ["one", "two", "three"] {
        let text = manifest(id, "x86_64", "{\"path\":\"k\"}", "{\"path\":\"r\"}");
        std::fs::write(&path, text).unwrap();
        images.ensure(&by_path(&path), &tell).await.unwrap();
    }
    let names: Vec<_> = images
        .store()
        .list()
        .unwrap()
        .into_iter()
        .map(|(n, _)| n)
        .collect();
    assert_eq!(names, ["three", "two"]);
    let told = told.lock().unwrap();
    assert!(matches!(&told[..], [Event::Store(store::Event::Evicted(one))] if one.name == "one"));
}

#[tokio::test]
async fn the_orchestrators_options_say_where_base_images_are_and_how_many() {
    let (server, dir) = (Server::start().await, tempfile::tempdir().unwrap());
    let cache = dir.path().join("elsewhere");
    std::fs::write(dir.path().join("k"), kernel(X86, "k")).unwrap();
    std::fs::write(dir.path().join("r"), "root").unwrap();
    let path = dir.path().join("manifest.json");
    let mut options = crate::spec::SmartVmOptions::builder()
        .base_image_cache_dir(&cache)
        .max_stored_base_images(1)
        .base_image_manifest_path(&path)
        .build();
    let open = |options: &crate::spec::SmartVmOptions| {
        let options = crate::orchestrator::base_image_options(options);
        BaseImages::open(options, dir.path().join("verified"), quick(), None).unwrap()
    };
    let hosted = EnsureBaseImageOptions::builder()
        .preset(BaseImagePreset::Hosted)
        .build();
    for id in ["one", "two"] {
        let text = manifest(id, "x86_64", "{\"path\":\"k\"}", "{\"path\":\"r\"}");
        std::fs::write(&path, text).unwrap();
        open(&options).ensure(&hosted, &silent()).await.unwrap();
    }
    let stored = open(&options).store().list().unwrap();
    assert_eq!(stored.len(), 1, "one at most, and there");
    assert!(cache.join("two").is_dir());
    options.base_image_manifest_path = None;
    options.base_image_manifest_url = Some(server.url("/none"));
    let asked = open(&options).ensure(&hosted, &silent()).await.unwrap_err();
    assert_eq!(asked.kind(), ErrorKind::NotFound);
    assert_eq!(server.seen("/none").len(), 1);
}

#[test]
fn a_listing_of_100000_keys_is_read_and_a_damaged_one_refused() {
    let keys: Vec<_> = (0..100_000)
        .map(|n| format!("firecracker-ci/v1.9/x86_64/vmlinux-5.{n}"))
        .collect();
    let keys: Vec<_> = keys.iter().map(String::as_str).collect();
    let listing = listing::parse(&page(&keys, &[])).unwrap();
    assert_eq!(listing.keys.len(), 100_000);
    let mut keys = listing.keys;
    let prefix = "firecracker-ci/v1.9/x86_64/";
    assert_eq!(preset::newest("v1.9", prefix, &keys), None);
    keys.push(format!("{prefix}ubuntu-24.04.ext4"));
    let chosen = preset::newest("v1.9", prefix, &keys).unwrap();
    assert!(chosen.kernel.ends_with("vmlinux-5.99999"));
    let escaped = page(&["a&amp;b&#65;"], &[]);
    assert_eq!(listing::parse(&escaped).unwrap().keys, ["a&bA"]);
    for damaged in [
        "",
        "<html></html>",
        "<ListBucketResult>",
        "<ListBucketResult><a></b></ListBucketResult>",
        "<ListBucketResult><IsTruncated>true</IsTruncated></ListBucketResult>",
        "<ListBucketResult>&unknown;</ListBucketResult>",
    ] {
        assert!(listing::parse(damaged).is_err(), "{damaged}");
    }
}

proptest! {
    #[test]
    fn a_listing_of_any_text_is_no_panic(text in "[<>/&;a-zA-Z\\[\\]! \"=]{0,200}") {
        let _any = listing::parse(&text);
        let _any = listing::parse(&format!("<ListBucketResult>{text}</ListBucketResult>"));
    }

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
