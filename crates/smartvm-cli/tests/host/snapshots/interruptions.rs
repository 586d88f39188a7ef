//! Snapshots that are cancelled, or whose maker is killed.

use std::ops::ControlFlow;
use std::process::{Command, Stdio};
use std::sync::Arc;

use smartvm::ErrorKind;
use smartvm::rundir::State;
use smartvm::snapshot::{Moment, Snapshot};
use smartvm::vm::StopMode;

use super::{creation, large, loading, place, quick, under};
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
        .args([
            "--exact",
            "snapshots::interruptions::snapshot_process",
            "--nocapture",
        ])
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
