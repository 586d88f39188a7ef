use std::io::{Read, Write};
use std::sync::Mutex;

use proptest::prelude::*;

use super::*;
use crate::storage::checksum::sha256_of;
use crate::storage::download::tests::server::{Fault, Server};
use crate::storage::download::tests::{quick, silent};

const V: Version = Version::new(1, 12, 1);

fn gz(bytes: &[u8]) -> Vec<u8> {
    let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
    encoder.write_all(bytes).unwrap();
    encoder.finish().unwrap()
}

fn add(tar: &mut tar::Builder<Vec<u8>>, name: &str, kind: tar::EntryType, content: &[u8]) {
    let mut header = tar::Header::new_gnu();
    header.set_entry_type(kind);
    header.set_size(content.len() as u64);
    header.set_mode(0o755);
    // The builder refuses what a hostile archive would say.
    header.as_old_mut().name[..name.len()].copy_from_slice(name.as_bytes());
    if kind.is_symlink() || kind.is_hard_link() {
        header.set_link_name_literal("/etc/passwd").unwrap();
    }
    header.set_cksum();
    tar.append(&header, content).unwrap();
}

fn tar_of(version: &str, extra: Option<(&str, tar::EntryType)>) -> Vec<u8> {
    let mut tar = tar::Builder::new(Vec::new());
    let dir = format!("release-v{version}-x86_64");
    for program in [
        "firecracker",
        "jailer",
        "snapshot-editor",
        "seccompiler-bin",
    ] {
        let name = format!("{dir}/{program}-v{version}-x86_64");
        add(&mut tar, &name, tar::EntryType::Regular, program.as_bytes());
    }
    if let Some((name, kind)) = extra {
        add(&mut tar, name, kind, b"");
    }
    tar.into_inner().unwrap()
}

fn offer(server: &Server, version: &str, archive: Vec<u8>) {
    let path = format!("/r/download/v{version}/firecracker-v{version}-x86_64.tgz");
    let sum = format!("{}  firecracker.tgz\n", sha256_of(&archive));
    server.put(&format!("{path}.sha256.txt"), sum);
    server.put(&path, archive);
}

async fn install(releases: &Releases, wanted: &str) -> Result<(Installed, Vec<String>)> {
    let warnings = Mutex::new(Vec::new());
    let warn = |text| warnings.lock().unwrap().push(text);
    let done = releases
        .install(wanted, Arch::X86_64, &quick(), &silent(), &warn)
        .await?;
    Ok((done, warnings.into_inner().unwrap()))
}

#[tokio::test]
async fn the_latest_release_is_fetched_verified_and_kept_beside_others() {
    let (server, data) = (Server::start().await, tempfile::tempdir().unwrap());
    offer(&server, "1.9.0", gz(&tar_of("1.9.0", None)));
    offer(&server, "1.12.1", gz(&tar_of("1.12.1", None)));
    server.fault("/r/latest", Fault::Redirect("/r/tag/v1.12.1".into()));
    server.put("/r/tag/v1.12.1", "<html>");
    let releases = Releases::new(data.path(), Some(&server.url("/r/")));
    let (one, _) = install(&releases, "latest").await.unwrap();
    assert_eq!((one.version, one.arch.as_str()), (V, "x86_64"));
    let mut names: Vec<_> = std::fs::read_dir(&one.dir)
        .unwrap()
        .map(|entry| entry.unwrap().file_name().into_string().unwrap())
        .collect();
    names.sort();
    assert_eq!(names, ["firecracker", "jailer", "snapshot-editor"]);
    use std::os::unix::fs::PermissionsExt;
    let mode = one
        .dir
        .join("firecracker")
        .metadata()
        .unwrap()
        .permissions()
        .mode();
    assert_eq!(mode & 0o111, 0o111);
    install(&releases, "v1.9.0").await.unwrap();
    assert_eq!(releases.installed().unwrap().len(), 2);
    let before = server.requests();
    install(&releases, "1.9.0").await.unwrap();
    assert_eq!(server.requests(), before, "what is there needs no network");
    releases.remove(V, Arch::X86_64).unwrap();
    let left = releases.installed().unwrap();
    assert_eq!(left[0].version, Version::new(1, 9, 0));
    let gone = releases.remove(V, Arch::X86_64).unwrap_err();
    assert_eq!(gone.kind(), ErrorKind::NotFound);
}

#[tokio::test]
async fn without_a_network_latest_is_the_newest_there_with_a_warning() {
    let (server, data) = (Server::start().await, tempfile::tempdir().unwrap());
    let releases = Releases::new(data.path(), Some(&server.url("/r")));
    let nothing = install(&releases, "latest").await.unwrap_err();
    assert!(
        nothing.to_string().contains("none being there"),
        "{nothing}"
    );
    offer(&server, "1.9.0", gz(&tar_of("1.9.0", None)));
    install(&releases, "1.9.0").await.unwrap();
    let (found, warnings) = install(&releases, "latest").await.unwrap();
    assert_eq!(found.version, Version::new(1, 9, 0));
    assert!(warnings[0].contains("1.9.0 is used"), "{warnings:?}");
}

#[tokio::test]
async fn an_archive_with_another_checksum_is_never_unpacked() {
    let (server, data) = (Server::start().await, tempfile::tempdir().unwrap());
    offer(&server, "1.12.1", gz(&tar_of("1.12.1", None)));
    let path = "/r/download/v1.12.1/firecracker-v1.12.1-x86_64.tgz";
    server.put(path, gz(b"something else"));
    let releases = Releases::new(data.path(), Some(&server.url("/r")));
    let altered = install(&releases, "1.12.1").await.unwrap_err();
    assert_eq!(altered.kind(), ErrorKind::Corrupt);
    assert_eq!(releases.installed().unwrap(), []);
    server.put(&format!("{path}.sha256.txt"), "not a checksum");
    let none = install(&releases, "1.12.1").await.unwrap_err();
    assert!(none.to_string().contains("holds no SHA-256"), "{none}");
}

#[test]
fn what_a_release_does_not_hold_is_refused_and_nothing_is_left() {
    use tar::EntryType;
    let data = tempfile::tempdir().unwrap();
    let archive = data.path().join("a.tgz");
    let unpack = |bytes: &[u8]| {
        std::fs::write(&archive, bytes).unwrap();
        unpack::release(&archive, V, Arch::X86_64, &data.path().join("bin/x86_64"))
    };
    for (name, kind) in [
        ("../../evil", EntryType::Regular),
        ("/etc/evil", EntryType::Regular),
        ("release-v1.12.1-x86_64/link", EntryType::Symlink),
        ("release-v1.12.1-x86_64/hard", EntryType::Link),
        ("release-v1.12.1-x86_64/null", EntryType::Char),
    ] {
        let refused = unpack(&gz(&tar_of("1.12.1", Some((name, kind))))).unwrap_err();
        assert_eq!(refused.kind(), ErrorKind::Corrupt);
        assert!(refused.to_string().contains(name), "{refused}");
    }
    let other = unpack(&gz(&tar_of("1.9.0", None))).unwrap_err();
    assert!(other.to_string().contains("holds no release"), "{other}");
    let whole = gz(&tar_of("1.12.1", None));
    let cut = unpack(&whole[..whole.len() - 9]).unwrap_err();
    assert_eq!(cut.kind(), ErrorKind::Corrupt);
    // More than a GiB out of a MiB.
    let bomb = std::io::repeat(0).take(2 << 30);
    let mut bombed = tar::Builder::new(Vec::new());
    let mut header = tar::Header::new_gnu();
    header.set_size(2 << 30);
    header.set_path("bomb").unwrap();
    header.set_cksum();
    bombed.append(&header, std::io::empty()).unwrap();
    let start = bombed.into_inner().unwrap();
    let endless = std::io::Cursor::new(&start[..512]).chain(bomb);
    let dir = tempfile::tempdir().unwrap();
    let full = unpack::programs(endless, &archive, V, Arch::X86_64, dir.path()).unwrap_err();
    assert_eq!(full.kind(), ErrorKind::Corrupt, "{full}");
    assert_eq!(
        std::fs::read_dir(data.path().join("bin")).unwrap().count(),
        0
    );
    unpack(&whole).unwrap();
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(256))]
    #[test]
    fn an_archive_of_any_bytes_is_refused_without_a_panic(
        noise in proptest::collection::vec(any::<u8>(), 0..64),
        at in 0_usize..4096,
    ) {
        let dir = tempfile::tempdir().unwrap();
        let mut bytes = tar_of("1.12.1", None);
        let at = at.min(bytes.len() - noise.len());
        bytes[at..at + noise.len()].copy_from_slice(&noise);
        let _any = unpack::programs(&bytes[..], Path::new("a"), V, Arch::X86_64, dir.path());
        for entry in std::fs::read_dir(dir.path()).unwrap() {
            let name = entry.unwrap().file_name().into_string().unwrap();
            let expected = ["firecracker", "jailer", "snapshot-editor"];
            prop_assert!(expected.contains(&name.as_str()));
        }
    }
}
