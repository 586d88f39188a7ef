//! Snapshots that are cancelled, or whose maker is killed.

use std::ops::ControlFlow;
use std::path::Path;
use std::process::{Command, Stdio};
use std::sync::mpsc::{Receiver, Sender, channel};
use std::sync::{Arc, Mutex};

use smartvm::ErrorKind;
use smartvm::rundir::State;
use smartvm::snapshot::{Moment, Place, Snapshot, Watch};
use smartvm::spec::{Lifetime, SnapshotType};
use smartvm::vm::{StartOptions, StopMode};

use super::{creation, large, loading, place, quick, under};
use crate::support::Corner;

const CORNER: &str = "SMARTVM_TEST_CORNER";
const DIE_AT: &str = "SMARTVM_TEST_DIE_AT";
const PLACE: &str = "SMARTVM_TEST_PLACE";
const MOMENTS: [Moment; 7] = [
    Moment::Claimed,
    Moment::Paused,
    Moment::Written,
    Moment::Copied,
    Moment::Resumed,
    Moment::Whole,
    Moment::Published,
];

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
    let half = Place::in_directory(std::env::var_os(PLACE).unwrap().as_ref());
    let params = creation(&half.unwrap());
    vm.snapshot(&params, &quick().watch(watch)).await.unwrap();
    panic!("the moment never came");
}

fn die_at(corner: &Corner, moment: Moment) {
    die_at_place(
        corner,
        moment,
        place(corner, "half").state().parent().unwrap(),
    );
}

fn die_at_place(corner: &Corner, moment: Moment, dir: &Path) {
    let status = Command::new(std::env::current_exe().unwrap())
        .args([
            "--exact",
            "snapshots::interruptions::snapshot_process",
            "--nocapture",
        ])
        .env(CORNER, corner.path())
        .env(PLACE, dir)
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
        assert_eq!(smartvm.gc(true).unwrap().len(), 1, "{moment:?}");
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
async fn what_a_reboot_left_of_snapshots_is_found_wherever_they_were_made() {
    let corner = Corner::new();
    let mut vm = large(&corner.smartvm(), &corner).await;
    std::fs::create_dir(corner.file("theirs")).unwrap();
    let before = corner.picture();
    let elsewhere = corner.file("theirs/half");
    let named = corner.file("data/snapshots/half");
    // Of the run dir's ledger nothing is known after a reboot, nor of its VM.
    die_at_place(&corner, Moment::Copied, &elsewhere);
    corner.smartvm().gc(false).unwrap();
    die_at_place(&corner, Moment::Whole, &elsewhere);
    die_at_place(&corner, Moment::Whole, &named);
    let mut options = corner.options();
    options.runtime_dir = Some(corner.file("run/of-the-next-boot"));
    let next = corner.smartvm_with(options);
    assert!(elsewhere.join(".state.d.making").exists());
    let told = next.gc(true).unwrap();
    assert_eq!(told.len(), 2, "{told:?}");
    assert!(elsewhere.join(".state.d.making").exists(), "only told");
    assert_eq!(next.gc(false).unwrap(), told);
    assert_eq!(next.gc(false).unwrap(), []);
    let kept = |line: &String| !line.contains("of-the-next-boot") && !line.ends_with(".elsewhere");
    let after: Vec<_> = corner.picture().into_iter().filter(kept).collect();
    assert_eq!(after, before);
    vm.stop(StopMode::Kill).await.unwrap();
}

/// Whoever makes a snapshot stands still at a moment until it is let go.
#[tokio::test]
async fn a_removal_that_is_interrupted_leaves_no_snapshot_and_gc_ends_it() {
    let corner = Corner::new();
    let smartvm = corner.smartvm();
    let mut vm = large(&smartvm, &corner).await;
    let place = place(&corner, "going");
    let before = corner.picture();
    let snapshot = vm.snapshot(&creation(&place), &quick()).await.unwrap();
    // Its memory can't be removed: it is in somebody's way.
    std::fs::remove_file(place.memory()).unwrap();
    std::fs::create_dir(place.memory()).unwrap();
    snapshot.remove().unwrap_err();
    std::fs::remove_dir(place.memory()).unwrap();
    let refused = Snapshot::open(&place).unwrap_err();
    assert!(refused.to_string().contains("is not whole"), "{refused:?}");
    let found = smartvm.gc(false).unwrap();
    assert_eq!(found.len(), 1, "{found:?}");
    assert_eq!(corner.picture(), before);
    let again = vm.snapshot(&creation(&place), &quick()).await.unwrap();
    again.remove().unwrap();
    assert_eq!(smartvm.gc(false).unwrap(), []);
    vm.stop(StopMode::Kill).await.unwrap();
}

fn stand_still_at(moment: Moment) -> (Watch, Receiver<()>, Sender<()>) {
    let ((reached, at_it), (go, gone)) = (channel(), channel());
    let gone = Mutex::new(gone);
    let watch: Watch = Arc::new(move |now| {
        if now == moment {
            reached.send(()).unwrap();
            // Others go on meanwhile, whatever this thread was to look after.
            tokio::task::block_in_place(|| gone.lock().unwrap().recv().unwrap());
        }
        ControlFlow::Continue(())
    });
    (watch, at_it, go)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn while_its_checksums_are_computed_the_vm_is_free_even_to_end() {
    let corner = Corner::new();
    let smartvm = corner.smartvm();
    let mut spec = corner.large();
    spec.lifetime = Some(Lifetime::Detached);
    spec.machine_config.track_dirty_pages = Some(true);
    std::fs::create_dir_all(corner.file("data/snapshots")).unwrap();
    let mut vm = smartvm.create(&spec).await.unwrap();
    vm.start(&StartOptions::default()).await.unwrap();
    let (watch, at_it, go) = stand_still_at(Moment::Resumed);
    let first = place(&corner, "first");
    let (maker, params) = (smartvm.get(vm.id()).unwrap(), creation(&first));
    let making = tokio::spawn(async move { maker.snapshot(&params, &quick().watch(watch)).await });
    tokio::task::block_in_place(|| at_it.recv().unwrap());
    vm.pause().await.unwrap();
    let mut diff = creation(&place(&corner, "diff"));
    diff.snapshot_type = Some(SnapshotType::Diff);
    let refused = vm.snapshot(&diff, &quick()).await.unwrap_err();
    assert!(refused.to_string().contains("isn't finished"), "{refused}");
    let again = vm.snapshot(&creation(&first), &quick()).await.unwrap_err();
    assert!(again.to_string().contains("being made"), "{again}");
    // Paused by somebody else meanwhile, it is left so; its maker lives, so nothing is mended.
    assert_eq!(smartvm.gc(false).unwrap(), []);
    assert_eq!(vm.state().unwrap().state, State::Paused);
    let second = vm
        .snapshot(&creation(&place(&corner, "second")), &quick())
        .await
        .unwrap();
    vm.stop(StopMode::Kill).await.unwrap();
    assert!(!first.state().exists());
    go.send(()).unwrap();
    let first = making.await.unwrap().unwrap();
    for snapshot in [first, second] {
        let load = loading(snapshot.place());
        let mut clone = smartvm.restore(&load, &under("clone")).await.unwrap();
        clone.stop(StopMode::Kill).await.unwrap();
        snapshot.remove().unwrap();
    }
}

#[tokio::test]
async fn a_diff_builds_on_no_snapshot_that_is_gone() {
    let corner = Corner::new();
    let smartvm = corner.smartvm();
    let mut spec = corner.small();
    spec.machine_config.track_dirty_pages = Some(true);
    let mut vm = smartvm.create(&spec).await.unwrap();
    vm.start(&StartOptions::default()).await.unwrap();
    let mut diff = creation(&place(&corner, "diff"));
    diff.snapshot_type = Some(SnapshotType::Diff);
    let full = creation(&place(&corner, "full"));
    let removed = vm.snapshot(&full, &quick()).await.unwrap();
    removed.remove().unwrap();
    let refused = vm.snapshot(&diff, &quick()).await.unwrap_err();
    assert!(refused.to_string().contains("is gone"), "{refused}");
    // Nor on one whose making failed after the VM ran on.
    let cancel: Watch = Arc::new(|now| match now {
        Moment::Whole => ControlFlow::Break(()),
        _ => ControlFlow::Continue(()),
    });
    vm.snapshot(&full, &quick().watch(cancel))
        .await
        .unwrap_err();
    let refused = vm.snapshot(&diff, &quick()).await.unwrap_err();
    assert!(refused.to_string().contains("is gone"), "{refused}");
    vm.stop(StopMode::Kill).await.unwrap();
}
