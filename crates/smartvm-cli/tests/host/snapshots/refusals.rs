//! What is refused: damaged files, other hosts, places that are taken.

use std::os::unix::fs::FileExt;

use smartvm::rundir::State;
use smartvm::snapshot::Place;
use smartvm::spec::{Jail, JailMode};
use smartvm::vm::{StartOptions, StopMode};
use smartvm::{ErrorKind, SmartVm};

use super::{creation, large, loading, made, place, quick, under};
use crate::support::Corner;

/// Restores, and returns the refusal; nothing may be left of it.
async fn refused(smartvm: &SmartVm, corner: &Corner, place: &Place) -> smartvm::Error {
    let before = corner.picture();
    let refusal = smartvm
        .restore(&loading(place), &under("never"))
        .await
        .unwrap_err();
    assert_eq!(corner.picture(), before, "{refusal}");
    refusal
}

/// Rewrites the manifest as another host, or another version, would have written it.
pub(super) fn rewrite(place: &Place, change: impl FnOnce(&mut serde_json::Value)) {
    use sha2::Digest;
    let path = place.dir().join("manifest.json");
    let mut document: serde_json::Value =
        serde_json::from_slice(&std::fs::read(&path).unwrap()).unwrap();
    change(&mut document);
    let sum = sha2::Sha256::digest(document["snapshot"].to_string().as_bytes());
    let sum: String = sum.iter().map(|byte| format!("{byte:02x}")).collect();
    document["sha256"] = sum.into();
    std::fs::write(&path, document.to_string()).unwrap();
}

#[tokio::test]
async fn what_is_not_as_it_was_is_refused_before_it_is_loaded() {
    let corner = Corner::new();
    let smartvm = corner.smartvm();
    let snapshot = made(&smartvm, &corner, "good").await;
    let place = snapshot.place().clone();
    let drive = place.dir().join("drives/copied-root.img");
    let flip = |path: &std::path::Path| {
        let file = std::fs::OpenOptions::new()
            .read(true)
            .write(true)
            .open(path)
            .unwrap();
        let at = file.metadata().unwrap().len() / 2;
        let mut byte = [0];
        file.read_exact_at(&mut byte, at).unwrap();
        file.write_all_at(&[byte[0] ^ 4], at).unwrap();
    };
    // A flipped bit in each file.
    for path in [
        place.state(),
        place.memory(),
        &drive,
        &place.dir().join("manifest.json"),
    ] {
        flip(path);
        let refusal = refused(&smartvm, &corner, &place).await;
        assert_eq!(refusal.kind(), ErrorKind::Corrupt, "{refusal}");
        let named = refusal.path().unwrap().to_owned();
        assert_eq!(named, path, "{refusal}");
        flip(path);
    }
    // Truncated memory, a missing drive.
    let memory = std::fs::OpenOptions::new()
        .write(true)
        .open(place.memory())
        .unwrap();
    let whole = std::fs::read(place.memory()).unwrap();
    memory.set_len(100 << 20).unwrap();
    let refusal = refused(&smartvm, &corner, &place).await;
    assert!(
        refusal.to_string().contains("has 104857600 bytes"),
        "{refusal}"
    );
    memory.write_all_at(&whole, 0).unwrap();
    let aside = corner.file("aside");
    std::fs::rename(&drive, &aside).unwrap();
    let refusal = refused(&smartvm, &corner, &place).await;
    assert!(refusal.to_string().contains("drive copied"), "{refusal}");
    std::fs::rename(&aside, &drive).unwrap();
    // Another CPU, another format, another directory in a path.
    let original = std::fs::read(place.dir().join("manifest.json")).unwrap();
    type Change = fn(&mut serde_json::Value);
    let changes: [(Change, ErrorKind, &str); 4] = [
        (
            |it| it["snapshot"]["origin"]["cpuModel"] = "Another 1".into(),
            ErrorKind::Host,
            "CPU model is Another 1",
        ),
        (
            |it| it["snapshot"]["origin"]["stateFormat"] = "7.0.0".into(),
            ErrorKind::Host,
            "state format",
        ),
        (|it| it["format"] = 2.into(), ErrorKind::Corrupt, "format 2"),
        (
            |it| it["snapshot"]["drives"][0]["path"] = "drives/../../x".into(),
            ErrorKind::Corrupt,
            "leads elsewhere",
        ),
    ];
    for (change, kind, told) in changes {
        rewrite(&place, change);
        let refusal = refused(&smartvm, &corner, &place).await;
        assert_eq!(refusal.kind(), kind, "{refusal}");
        assert!(refusal.to_string().contains(told), "{refusal}");
        std::fs::write(place.dir().join("manifest.json"), &original).unwrap();
    }
    // As it was: it restores, and its id is then in use.
    let mut vm = smartvm
        .restore(&loading(&place), &under("never"))
        .await
        .unwrap();
    let again = smartvm
        .restore(&loading(&place), &under("never"))
        .await
        .unwrap_err();
    assert_eq!(again.kind(), ErrorKind::WrongState);
    assert!(
        again.to_string().contains("there is a VM never already"),
        "{again}"
    );
    vm.stop(StopMode::Kill).await.unwrap();
    snapshot.remove().unwrap();
}

#[tokio::test]
async fn memory_is_hashed_where_anything_speaks_for_a_change_or_by_verify() {
    let corner = Corner::new();
    let smartvm = corner.smartvm();
    let snapshot = made(&smartvm, &corner, "good").await;
    let place = snapshot.place().clone();
    // A record that says: verified just as it is now.
    let record = place.dir().join("verified.json");
    std::fs::OpenOptions::new()
        .write(true)
        .open(place.memory())
        .unwrap()
        .write_all_at(b"x", 5000)
        .unwrap();
    use std::os::unix::fs::MetadataExt;
    let now = place.memory().metadata().unwrap();
    let mut stamps: serde_json::Value =
        serde_json::from_slice(&std::fs::read(&record).unwrap()).unwrap();
    let memory = &mut stamps["files"]["memory"];
    memory["modified"] = serde_json::json!([now.mtime(), now.mtime_nsec()]);
    memory["changed"] = serde_json::json!([now.ctime(), now.ctime_nsec()]);
    // Any single difference has it hashed.
    for field in ["device", "inode", "size", "modified", "changed"] {
        let mut other = stamps.clone();
        other["files"]["memory"][field] = match field {
            "modified" | "changed" => serde_json::json!([now.mtime() - 1, 0]),
            _ => 1.into(),
        };
        std::fs::write(&record, other.to_string()).unwrap();
        let refusal = refused(&smartvm, &corner, &place).await;
        assert_eq!(refusal.kind(), ErrorKind::Corrupt, "{field}: {refusal}");
    }
    std::fs::write(&record, stamps.to_string()).unwrap();
    let mut options = under("verified");
    options.verify = true;
    let refusal = smartvm
        .restore(&loading(&place), &options)
        .await
        .unwrap_err();
    assert_eq!(refusal.kind(), ErrorKind::Corrupt, "{refusal}");
    options.verify = false;
    let mut vm = smartvm.restore(&loading(&place), &options).await.unwrap();
    vm.stop(StopMode::Kill).await.unwrap();
}

#[tokio::test]
async fn a_pair_without_manifest_is_loaded_only_unchecked() {
    let corner = Corner::new();
    let smartvm = corner.smartvm();
    let mut vm = smartvm.create(&corner.small()).await.unwrap();
    vm.start(&StartOptions::default()).await.unwrap();
    let pair = place(&corner, "pair");
    vm.snapshot(&creation(&pair), &quick()).await.unwrap();
    vm.stop(StopMode::Kill).await.unwrap();
    std::fs::remove_dir_all(pair.dir()).unwrap();
    let refusal = refused(&smartvm, &corner, &pair).await;
    assert_eq!(refusal.kind(), ErrorKind::WrongState);
    assert!(refusal.way_out().unwrap().contains("--unchecked"));
    let mut options = under("trusted");
    options.unchecked = true;
    let mut load = loading(&pair);
    load.resume_vm = None;
    options.jail = Some(Jail::builder().mode(JailMode::Required).build());
    let unjailed = smartvm.restore(&load, &options).await.unwrap_err();
    assert_eq!(unjailed.kind(), ErrorKind::Invalid, "{unjailed}");
    options.jail = None;
    let mut vm = smartvm.restore(&load, &options).await.unwrap();
    assert_eq!(
        vm.state().unwrap().state,
        State::Paused,
        "resumeVm is false by default"
    );
    vm.stop(StopMode::Kill).await.unwrap();
}

#[tokio::test]
async fn nothing_that_is_there_is_overwritten() {
    let corner = Corner::new();
    let smartvm = corner.smartvm();
    let mut vm = large(&smartvm, &corner).await;
    let here = place(&corner, "here");
    std::fs::create_dir_all(here.dir()).unwrap();
    let before = corner.picture();
    let refusal = vm.snapshot(&creation(&here), &quick()).await.unwrap_err();
    assert_eq!(refusal.kind(), ErrorKind::WrongState, "{refusal}");
    assert_eq!(corner.picture(), before);
    assert_eq!(vm.state().unwrap().state, State::Running);
    vm.stop(StopMode::Kill).await.unwrap();
}
