//! Snapshots: made, restored, refused, interrupted.

use std::ops::ControlFlow;
use std::os::unix::fs::FileExt;
use std::process::{Command, Stdio};
use std::sync::Arc;
use std::time::Duration;

use smartvm::rundir::State;
use smartvm::snapshot::{Manifest, Moment, Place, RestoreOptions, Snapshot, SnapshotOptions};
use smartvm::spec::{Lifetime, SnapshotCreateParams, SnapshotLoadParams, SnapshotType};
use smartvm::vm::{StartOptions, StopMode};
use smartvm::{ErrorKind, MicroVm, SmartVm};

use crate::support::Corner;

const CORNER: &str = "SMARTVM_TEST_CORNER";
const DIE_AT: &str = "SMARTVM_TEST_DIE_AT";
const MOMENTS: [Moment; 7] = [
    Moment::Claimed,
    Moment::Paused,
    Moment::Written,
    Moment::Copied,
    Moment::Resumed,
    Moment::Whole,
    Moment::Published,
];

fn place(corner: &Corner, name: &str) -> Place {
    Place::in_directory(&corner.file("data/snapshots").join(name)).unwrap()
}

fn creation(place: &Place) -> SnapshotCreateParams {
    SnapshotCreateParams::builder()
        .snapshot_path(place.state())
        .mem_file_path(place.memory())
        .build()
}

fn loading(place: &Place) -> SnapshotLoadParams {
    SnapshotLoadParams::builder()
        .snapshot_path(place.state())
        .mem_file_path(place.memory())
        .resume_vm(true)
        .build()
}

fn under(id: &str) -> RestoreOptions {
    let mut options = RestoreOptions::default();
    options.id = Some(id.parse().unwrap());
    options
}

fn quick() -> SnapshotOptions {
    SnapshotOptions::default().agent(false)
}

/// The largest VM, started.
async fn large(smartvm: &SmartVm, corner: &Corner) -> MicroVm {
    let mut spec = corner.large();
    spec.lifetime = Some(Lifetime::Detached);
    std::fs::create_dir_all(corner.file("data/snapshots")).unwrap();
    let mut vm = smartvm.create(&spec).await.unwrap();
    vm.start(&StartOptions::default()).await.unwrap();
    vm
}

/// A snapshot of the largest VM, which has ended.
async fn made(smartvm: &SmartVm, corner: &Corner, name: &str) -> Snapshot {
    let mut vm = large(smartvm, corner).await;
    let snapshot = vm
        .snapshot(&creation(&place(corner, name)), &quick())
        .await
        .unwrap();
    vm.stop(StopMode::Kill).await.unwrap();
    snapshot
}

#[tokio::test]
async fn a_snapshot_goes_on_under_another_id_in_another_runtime_directory() {
    let corner = Corner::new();
    let smartvm = corner.smartvm();
    let mut vm = large(&smartvm, &corner).await;
    let staged = corner.file("staging/smartvm-large/copied-root.img");
    std::fs::OpenOptions::new()
        .write(true)
        .open(&staged)
        .unwrap()
        .write_all_at(b"written by the guest", 100)
        .unwrap();
    // Paths of the user's choice, in two directories.
    let params = SnapshotCreateParams::builder()
        .snapshot_path(corner.file("a/machine.state"))
        .mem_file_path(corner.file("logs/machine.memory"))
        .build();
    let snapshot = vm.snapshot(&params, &quick()).await.unwrap();
    assert_eq!(vm.state().unwrap().state, State::Running);
    let manifest = snapshot.manifest().clone();
    assert_eq!(manifest.origin.state_format.as_deref(), Some("6.0.0"));
    assert_eq!(manifest.memory.size_bytes, 128 << 20);
    vm.stop(StopMode::Kill).await.unwrap();
    for file in ["root.img", "data.img"] {
        std::fs::remove_file(corner.file(file)).unwrap();
    }

    use std::os::unix::fs::MetadataExt;
    for file in [
        "a/machine.state",
        "logs/machine.memory",
        "a/machine.state.d/manifest.json",
    ] {
        let mode = corner.file(file).metadata().unwrap().mode();
        assert_eq!(mode & 0o777, 0o600, "{file}");
    }
    let mut options = corner.options();
    options.runtime_dir = Some(corner.file("elsewhere"));
    let other = corner.smartvm_with(options);
    let before = corner.picture();
    let mut load = loading(snapshot.place());
    load.enable_diff_snapshots = Some(true);
    let mut restored = other.restore(&load, &under("second")).await.unwrap();
    let state = restored.state().unwrap();
    assert_eq!(state.state, State::Running);
    assert_eq!(state.spec.machine_config.track_dirty_pages, Some(true));
    let drive = restored.run_dir().file("drives/copied-root.img");
    assert_eq!(
        &std::fs::read(drive).unwrap()[100..120],
        b"written by the guest"
    );
    assert_eq!(restored.run_dir().path(), corner.file("elsewhere/second"));
    let vmm = state.vmm.unwrap().executable().unwrap();
    assert_eq!(vmm, crate::support::firecracker());
    // The VM lives by the memory file.
    let refused = snapshot.clone().remove().unwrap_err();
    assert_eq!(refused.kind(), ErrorKind::WrongState);
    assert!(refused.to_string().contains("second"), "{refused}");
    restored.pause().await.unwrap();
    restored.resume().await.unwrap();
    restored.stop(StopMode::Kill).await.unwrap();
    let kept = |line: &String| !line.contains("/elsewhere/.ended");
    let after: Vec<_> = corner.picture().into_iter().filter(kept).collect();
    assert_eq!(after, before, "after the restored VM");
    snapshot.remove().unwrap();
    assert!(!corner.file("a/machine.state.d").exists());
    assert!(!corner.file("logs/machine.memory").exists());
}

#[tokio::test]
async fn twenty_clones_of_one_snapshot_share_its_memory() {
    let corner = Corner::new();
    let smartvm = corner.smartvm();
    let snapshot = made(&smartvm, &corner, "seed").await;
    let before = std::fs::read(snapshot.place().memory()).unwrap();
    let mut clones = Vec::new();
    for number in 0..20 {
        let options = under(&format!("clone-{number}"));
        clones.push(
            smartvm
                .restore(&loading(snapshot.place()), &options)
                .await
                .unwrap(),
        );
    }
    assert_eq!(snapshot.users().unwrap().len(), 20);
    for clone in &clones {
        let state = clone.state().unwrap();
        assert_eq!(state.state, State::Running);
        let maps = std::fs::read_to_string(format!("/proc/{}/maps", state.vmm.unwrap().pid));
        let memory = snapshot.place().memory().to_str().unwrap().to_owned();
        assert!(maps.unwrap().contains(&memory), "its memory is mapped");
    }
    for ended in smartvm::vm::stop_all(&mut clones, StopMode::Kill).await {
        ended.unwrap();
    }
    assert!(before == std::fs::read(snapshot.place().memory()).unwrap());
    assert_eq!(snapshot.users().unwrap(), Vec::<String>::new());
    snapshot.remove().unwrap();
}

#[tokio::test]
async fn diffs_build_on_each_other_and_merge() {
    let corner = Corner::new();
    let smartvm = corner.smartvm();
    let mut spec = corner.small();
    let mut vm = smartvm.create(&spec).await.unwrap();
    vm.start(&StartOptions::default()).await.unwrap();
    let mut diff = creation(&place(&corner, "none"));
    diff.snapshot_type = Some(SnapshotType::Diff);
    let refused = vm.snapshot(&diff, &quick()).await.unwrap_err();
    assert!(refused.to_string().contains("doesn't track"), "{refused}");
    vm.stop(StopMode::Kill).await.unwrap();

    spec.machine_config.track_dirty_pages = Some(true);
    let mut vm = smartvm.create(&spec).await.unwrap();
    vm.start(&StartOptions::default()).await.unwrap();
    let refused = vm.snapshot(&diff, &quick()).await.unwrap_err();
    assert!(refused.to_string().contains("no snapshot"), "{refused}");
    let full = vm
        .snapshot(&creation(&place(&corner, "full")), &quick())
        .await
        .unwrap();
    let mut chain = Vec::new();
    for name in ["first", "second"] {
        let mut params = creation(&place(&corner, name));
        params.snapshot_type = Some(SnapshotType::Diff);
        chain.push(vm.snapshot(&params, &quick()).await.unwrap());
    }
    vm.stop(StopMode::Kill).await.unwrap();
    use std::os::unix::fs::MetadataExt;
    let blocks = |snapshot: &Snapshot| snapshot.place().memory().metadata().unwrap().blocks();
    assert!(blocks(&chain[1]) * 4 < blocks(&full), "a diff is sparse");
    let refused = full.clone().remove().unwrap_err();
    assert!(refused.to_string().contains("first"), "{refused}");

    let last = chain.pop().unwrap();
    let mut clones = Vec::new();
    for id in ["one", "two"] {
        clones.push(
            smartvm
                .restore(&loading(last.place()), &under(id))
                .await
                .unwrap(),
        );
    }
    let merged = std::fs::read(last.place().dir().join("memory")).unwrap();
    let whole = std::fs::read(full.place().memory()).unwrap();
    assert_eq!(merged.len(), whole.len());
    for ended in smartvm::vm::stop_all(&mut clones, StopMode::Kill).await {
        ended.unwrap();
    }
    // A chain with a hole is refused.
    std::fs::remove_file(chain[0].place().memory()).unwrap();
    let refused = smartvm
        .restore(&loading(last.place()), &under("three"))
        .await
        .unwrap_err();
    assert_eq!(refused.kind(), ErrorKind::Corrupt);
    assert!(refused.to_string().contains("missing"), "{refused}");
    for snapshot in [last, chain.pop().unwrap(), full] {
        snapshot.remove().unwrap();
    }
}

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
fn rewrite(place: &Place, change: impl FnOnce(&mut serde_json::Value)) {
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
async fn memory_that_only_looks_untouched_is_found_by_verify() {
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

#[tokio::test]
async fn a_snapshot_that_is_cancelled_at_any_moment_leaves_nothing_and_the_vm_runs_on() {
    let corner = Corner::new();
    let smartvm = corner.smartvm();
    let mut vm = large(&smartvm, &corner).await;
    let before = corner.picture();
    for moment in MOMENTS.into_iter().filter(|it| *it != Moment::Published) {
        let watch = Arc::new(move |now| match now == moment {
            true => ControlFlow::Break(()),
            false => ControlFlow::Continue(()),
        });
        let failure = vm
            .snapshot(&creation(&place(&corner, "half")), &quick().watch(watch))
            .await
            .unwrap_err();
        assert_eq!(
            failure.kind(),
            ErrorKind::Cancelled,
            "{moment:?}: {failure:?}"
        );
        assert!(failure.cleanup().is_empty(), "{moment:?}: {failure:?}");
        assert_eq!(vm.state().unwrap().state, State::Running, "{moment:?}");
        assert_eq!(corner.picture(), before, "{moment:?}");
    }
    vm.stop(StopMode::Kill).await.unwrap();
}

/// Not a test by itself: makes a snapshot of the VM and is killed at its moment.
#[tokio::test]
async fn snapshot_process() {
    let (Some(root), Ok(die_at)) = (std::env::var_os(CORNER), std::env::var(DIE_AT)) else {
        return;
    };
    let corner = Corner::at(root.into());
    let watch = Arc::new(move |now| {
        if format!("{now:?}") == die_at {
            let me = rustix::process::getpid();
            rustix::process::kill_process(me, rustix::process::Signal::KILL).unwrap();
        }
        ControlFlow::Continue(())
    });
    let vm = corner.smartvm().get(&"large".parse().unwrap()).unwrap();
    let params = creation(&place(&corner, "half"));
    vm.snapshot(&params, &quick().watch(watch)).await.unwrap();
    panic!("the moment never came");
}

fn die_at(corner: &Corner, moment: Moment) {
    let status = Command::new(std::env::current_exe().unwrap())
        .args(["--exact", "snapshots::snapshot_process", "--nocapture"])
        .env(CORNER, corner.path())
        .env(DIE_AT, format!("{moment:?}"))
        .stdout(Stdio::null())
        .status()
        .unwrap();
    use std::os::unix::process::ExitStatusExt;
    assert_eq!(status.signal(), Some(9), "{moment:?}: {status}");
}

#[tokio::test]
async fn when_its_maker_is_killed_at_any_moment_no_half_snapshot_looks_whole_and_gc_mends() {
    let corner = Corner::new();
    let smartvm = corner.smartvm();
    let mut vm = large(&smartvm, &corner).await;
    let before = corner.picture();
    let half = place(&corner, "half");
    for moment in MOMENTS {
        die_at(&corner, moment);
        let whole = Snapshot::open(&half);
        assert_eq!(
            whole.is_ok(),
            moment == Moment::Published,
            "{moment:?}: {whole:?}"
        );
        assert!(
            whole.is_ok() || !half.state().exists(),
            "{moment:?}: nothing can be loaded"
        );
        let done = smartvm.gc(false).unwrap();
        assert_eq!(done.len(), 1, "{moment:?}: {done:?}");
        assert_eq!(vm.state().unwrap().state, State::Running, "{moment:?}");
        match Snapshot::open(&half) {
            Ok(snapshot) => {
                let id = format!("of-{}", snapshot.manifest().vm);
                let mut restored = smartvm.restore(&loading(&half), &under(&id)).await.unwrap();
                restored.stop(StopMode::Kill).await.unwrap();
                snapshot.remove().unwrap();
                std::fs::remove_dir(half.dir().parent().unwrap()).unwrap();
            }
            Err(e) => assert_eq!(e.kind(), ErrorKind::NotFound, "{moment:?}: {e}"),
        }
        corner.becomes(&before, &format!("killed at {moment:?}"));
        assert_eq!(smartvm.gc(false).unwrap(), []);
    }
    // Not gc but the end of the VM itself.
    die_at(&corner, Moment::Copied);
    vm.stop(StopMode::Kill).await.unwrap();
    assert!(
        !half
            .dir()
            .parent()
            .unwrap()
            .join(".state.d.making")
            .exists()
    );
    assert!(!half.dir().parent().unwrap().join(".memory.making").exists());
}

#[tokio::test]
async fn the_command_line_makes_lists_restores_and_removes_snapshots() {
    let corner = Corner::new();
    let smartvm = corner.smartvm();
    let mut vm = large(&smartvm, &corner).await;
    let run = |args: &[&str]| {
        let mut command = corner.command();
        command
            .arg("snapshot")
            .args(args)
            .timeout(Duration::from_secs(60));
        command.assert()
    };
    run(&["create", "large", "base", "--no-agent"])
        .success()
        .stdout("base\n");
    run(&["create", "large", "base", "--no-agent"]).code(4);
    run(&["create", "large", "x y"]).code(2);
    run(&["restore", "none"]).code(3);
    run(&["restore", "base", "--assume-kvm"]).code(4);
    vm.stop(StopMode::Kill).await.unwrap();
    run(&[
        "restore",
        "base",
        "--assume-kvm",
        "--paused",
        "--id",
        "back",
        "--label",
        "a=b",
    ])
    .success()
    .stdout("back\n");
    let back = smartvm.get(&"back".parse().unwrap()).unwrap();
    let state = back.state().unwrap();
    assert_eq!(
        (state.state, state.spec.labels["a"].as_str()),
        (State::Paused, "b")
    );
    let listed = run(&["ls"]).success();
    let listed = String::from_utf8(listed.get_output().stdout.clone()).unwrap();
    assert!(
        listed.contains("base") && listed.contains("back"),
        "{listed}"
    );
    run(&["rm", "base"]).code(4);
    corner
        .command()
        .args(["rm", "--force", "back"])
        .assert()
        .success();
    let told = run(&["inspect", "base"]).success();
    let told: Vec<Manifest> = serde_json::from_slice(&told.get_output().stdout).unwrap();
    assert_eq!(told[0].drives.len(), 2);
    run(&["rm", "base"]).success();
    assert!(!corner.file("data/snapshots/base").exists());
}
