//! The using process is started anew, or the host is.

use rustix::process::Signal;
use smartvm::firecracker::exit::Reason;
use smartvm::firecracker::model::{VmBody, VmState};
use smartvm::orchestrator::Finding;
use smartvm::rundir::State;
use smartvm::snapshot::{Place, SnapshotOptions};
use smartvm::spec::{Lifetime, SnapshotCreateParams};
use smartvm::vm::{Change, StartOptions, StopMode};

use crate::lifecycle::PATIENCE;
use crate::support::Corner;

#[tokio::test]
async fn recovery_adopts_what_lives_and_gives_back_what_is_dead() {
    let corner = Corner::new();
    let smartvm = corner.smartvm();
    let before = corner.picture();
    let mut spec = corner.small();
    spec.lifetime = Some(Lifetime::Detached);
    for id in ["lives", "stopping", "unkept", "dead"] {
        spec.id = Some(id.into());
        spec.labels.insert("app".into(), id.into());
        let mut vm = smartvm.create(&spec).await.unwrap();
        vm.start(&StartOptions::default()).await.unwrap();
        let state = vm.state().unwrap();
        let kill = |process: &smartvm::process::ProcessId| {
            let pidfd = process.open().unwrap().unwrap();
            pidfd.signal(Signal::KILL).unwrap();
            assert!(pidfd.wait(PATIENCE).unwrap());
        };
        if id == "stopping" {
            // Whoever asked its guest to end is dead, and the guest takes no notice.
            let mut stopping = state.clone();
            stopping.state = State::Stopping;
            vm.run_dir().write_state(&stopping).unwrap();
        } else if id != "lives" {
            kill(&state.keeper.unwrap());
        }
        if id == "dead" {
            kill(&state.vmm.unwrap());
        }
    }
    drop(smartvm);
    let again = corner.smartvm();
    let found = again.recover().await.unwrap();
    let adopted: Vec<_> = found.adopted.iter().map(|vm| vm.id().as_str()).collect();
    assert_eq!(adopted, ["lives", "stopping", "unkept"]);
    let collected: Vec<_> = found.collected.iter().map(|one| one.id.as_str()).collect();
    assert_eq!(collected, ["dead", "unkept"]);
    assert_eq!(found.collected[1].finding, Finding::Unkept);
    let record = again
        .runtime()
        .records()
        .get(&"dead".parse().unwrap())
        .unwrap();
    assert_eq!(record.reason, Reason::Unknown);
    let labelled = again.with_label("app", Some("lives")).await.unwrap();
    assert_eq!(labelled.len(), 1);
    labelled[0].pause().await.unwrap();
    for ended in again.stop_all(StopMode::Kill).await.unwrap() {
        ended.unwrap();
    }
    corner.becomes(&before, "after all ended");
}

#[tokio::test]
async fn a_pause_whose_maker_died_before_writing_it_down_is_found_and_so_is_a_resumption() {
    let corner = Corner::new();
    let smartvm = corner.smartvm();
    let mut spec = corner.small();
    spec.id = Some("web".into());
    spec.lifetime = Some(Lifetime::Detached);
    let mut vm = smartvm.create(&spec).await.unwrap();
    vm.start(&StartOptions::default()).await.unwrap();
    let gc = |args: &[&str]| {
        let done = corner.command().arg("gc").args(args).assert().success();
        String::from_utf8(done.get_output().stdout.clone()).unwrap()
    };
    assert_eq!(gc(&[]), "", "nothing is wrong");
    let cases = [
        (VmState::Paused, State::Running, State::Paused),
        (VmState::Resumed, State::Paused, State::Running),
    ];
    for (done, said, is) in cases {
        // What is left of it: Firecracker did it.
        let request = VmBody { state: done }.request().unwrap();
        vm.client().send(&request).await.unwrap();
        let why = format!("(its state said {said}, and it is {is})\n");
        assert_eq!(gc(&["--dry-run"]), format!("web: would correct {why}"));
        assert_eq!(vm.state().unwrap().state, said, "a dry run touches nothing");
        assert_eq!(gc(&[]), format!("web: corrected {why}"));
        assert_eq!(vm.state().unwrap().state, is);
        let last = vm.run_dir().timeline().unwrap().pop();
        assert_eq!(last.unwrap().state, is, "others hear of it");
    }
    // The handle of whoever was there before notices.
    vm.pause().await.unwrap();
    vm.resume().await.unwrap();
    assert_eq!(gc(&[]), "");
    // One that stands still is left alone.
    let vmm = vm.state().unwrap().vmm.unwrap().open().unwrap().unwrap();
    vmm.signal(Signal::STOP).unwrap();
    assert_eq!(gc(&[]), "");
    assert_eq!(vm.state().unwrap().state, State::Running);
    vm.stop(StopMode::Kill).await.unwrap();
}

#[tokio::test]
async fn a_drive_whose_swapper_died_before_writing_it_down_is_known_by_its_new_file() {
    let corner = Corner::new();
    let smartvm = corner.smartvm();
    let new = corner.file("logs/new.img");
    std::fs::write(&new, vec![9; 128 << 10]).unwrap();
    let mut jailed = corner.large_jailed();
    jailed.id = Some("jailed".into());
    for mut spec in [corner.large(), jailed] {
        spec.lifetime = Some(Lifetime::Detached);
        let mut vm = smartvm.create(&spec).await.unwrap();
        vm.start(&StartOptions::default()).await.unwrap();
        assert_eq!(smartvm.gc(false).unwrap(), [], "nothing is wrong");
        let old = vm.state().unwrap();
        for drive_id in ["copied", "linked"] {
            let (drive_id, path_on_host) = (drive_id.to_owned(), new.clone());
            vm.update(Change::SwapDrive {
                drive_id,
                path_on_host,
            })
            .await
            .unwrap();
        }
        assert_eq!(smartvm.gc(false).unwrap(), [], "nothing is wrong");
        let right = vm.state().unwrap();
        vm.run_dir().write_state(&old).unwrap();
        let found = smartvm.gc(false).unwrap();
        let Finding::Corrected { why } = &found[0].finding else {
            panic!("{found:?}");
        };
        for drive_id in ["copied", "linked"] {
            let told = format!("its drive {drive_id} has the file {}", new.display());
            assert!(why.contains(&told), "{why}");
        }
        assert_eq!(vm.state().unwrap(), right);
        assert_eq!(smartvm.gc(false).unwrap(), []);
        // Nor does a snapshot have the wrong drives.
        vm.run_dir().write_state(&old).unwrap();
        let place = Place::in_directory(&corner.file(&format!("data/{}", vm.id()))).unwrap();
        let params = SnapshotCreateParams::builder()
            .snapshot_path(place.state())
            .mem_file_path(place.memory());
        let options = SnapshotOptions::default().agent(false);
        let made = vm.snapshot(&params.build(), &options).await.unwrap();
        for drive in &made.manifest().drives {
            let copy = std::fs::read(place.dir().join(&drive.path)).unwrap();
            assert_eq!(copy, vec![9; 128 << 10], "{drive:?}");
        }
        vm.stop(StopMode::Kill).await.unwrap();
    }
}

#[tokio::test]
async fn after_the_host_was_started_anew_gc_shows_and_removes_what_was_left() {
    let corner = Corner::new();
    let smartvm = corner.smartvm();
    let before = corner.picture();
    let mut spec = corner.large();
    spec.lifetime = Some(Lifetime::Detached);
    let mut vm = smartvm.create(&spec).await.unwrap();
    vm.start(&StartOptions::default()).await.unwrap();
    let state = vm.state().unwrap();
    for process in [state.keeper.unwrap(), state.vmm.unwrap()] {
        let pidfd = process.open().unwrap().unwrap();
        pidfd.signal(Signal::KILL).unwrap();
        assert!(pidfd.wait(PATIENCE).unwrap());
    }
    // As it looks after another boot: every identity is of the one before.
    let boot = smartvm::process::boot_id().unwrap();
    for name in ["vm.json", "ledger.jsonl"] {
        let path = vm.run_dir().file(name);
        let text = std::fs::read_to_string(&path).unwrap();
        assert!(text.contains(boot));
        std::fs::write(&path, text.replace(boot, "an-earlier-boot")).unwrap();
    }
    let id = vm.id().clone();
    drop(vm);
    let shown = corner
        .command()
        .args(["gc", "--dry-run"])
        .assert()
        .success();
    let shown = String::from_utf8(shown.get_output().stdout.clone()).unwrap();
    assert_eq!(
        shown,
        "large: would give back (the host was started anew)\n"
    );
    assert!(smartvm.get(&id).is_ok(), "a dry run touches nothing");
    corner.command().arg("gc").assert().success();
    let record = smartvm.runtime().records().get(&id).unwrap();
    assert_eq!(record.reason, Reason::HostRebooted);
    corner.becomes(&before, "after gc");
}
