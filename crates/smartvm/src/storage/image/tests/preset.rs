//! Presets: Firecracker's CI.

use super::*;
use crate::spec::RootfsType;

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
    let told = serde_json::to_value(&image).unwrap();
    let has = |at: &serde_json::Value| at.as_object().unwrap().keys().cloned().collect::<Vec<_>>();
    let all = "preset arch ciVersion firecrackerVersion bundleId bundleDir kernelImagePath \
               rootfsPath rootfsType rootfsIsReadOnly bootArgs source checksums sizes createdAt \
               lastAccessedAt";
    assert_eq!(has(&told).join(" "), all, "IBaseImageBundle in full");
    let source = "type bucketUrl kernelKey rootfsKey";
    assert_eq!(has(&told["source"]).join(" "), source);
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
