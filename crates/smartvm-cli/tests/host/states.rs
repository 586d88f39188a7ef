//! Which operation is allowed in which state, who waits for whom, and who is told of it.

use std::io::{BufRead, BufReader};
use std::process::{Command, Stdio};

use rustix::process::Signal;
use smartvm::firecracker::client::Request;
use smartvm::firecracker::exit::{Ended, Reason};
use smartvm::rundir::{Operation, State};
use smartvm::snapshot::{Place, SnapshotOptions};
use smartvm::spec::{Drive, Lifetime, MicroVmSpec, RateLimiter, SnapshotCreateParams, TokenBucket};
use smartvm::vm::{Change, StartOptions, StopMode};
use smartvm::{Error, ErrorKind, MicroVm, SmartVm};

use crate::lifecycle::PATIENCE;
use crate::support::{Corner, SMARTVM, firecracker};

/// What is tried in every state; the end, the beginning's second half and commands in the
/// guest are tried apart.
const TRIED: [Operation; 7] = [
    Operation::Start,
    Operation::Pause,
    Operation::Resume,
    Operation::Update,
    Operation::Metadata,
    Operation::Stats,
    Operation::Snapshot,
];

const SNAPSHOT: &str = "data/snapshots/tried";

fn limit(size: u64) -> Change {
    let bucket = TokenBucket::builder().size(size).refill_time(1000).build();
    Change::LimitDrive {
        drive_id: "data".into(),
        limits: Some(RateLimiter::builder().ops(bucket).build()),
    }
}

/// Does it.
async fn attempt(
    smartvm: &SmartVm,
    corner: &Corner,
    vm: &MicroVm,
    operation: Operation,
) -> Result<(), Error> {
    match operation {
        Operation::Start => smartvm.get_created(vm.id()).await.map(drop),
        Operation::Pause => vm.pause().await,
        Operation::Resume => vm.resume().await,
        Operation::Update => vm.update(limit(7)).await,
        // It has no such service, which is told where its state is right.
        Operation::Metadata => match vm.metadata().await {
            Err(e) if e.to_string().contains("no metadata service") => Ok(()),
            other => other.map(drop),
        },
        Operation::Stats => vm.stats().await.map(drop),
        Operation::Snapshot => {
            let place = Place::in_directory(&corner.file(SNAPSHOT))?;
            let params = SnapshotCreateParams::builder()
                .snapshot_path(place.state())
                .mem_file_path(place.memory())
                .build();
            let options = SnapshotOptions::default().agent(false);
            let made = vm.snapshot(&params, &options).await;
            if made.is_ok() {
                std::fs::remove_dir_all(corner.file(SNAPSHOT)).unwrap();
            }
            made.map(drop)
        }
        _ => unreachable!("{operation:?} isn't tried here"),
    }
}

/// A spec with a drive to change, for a VM called `tried`.
pub(crate) fn with_drive(corner: &Corner) -> MicroVmSpec {
    let mut spec = corner.small();
    spec.id = Some("tried".into());
    let data = Drive::builder()
        .drive_id("data")
        .path_on_host(corner.file("data.img"))
        .is_root_device(false);
    spec.drives = vec![data.build()];
    spec
}

/// Puts the VM into a state, as far as it isn't there by itself.
async fn put(vm: &MicroVm, state: State) {
    let mut known = vm.state().unwrap();
    if matches!(state, State::Running | State::Paused) {
        known.state = State::Running;
        vm.run_dir().write_state(&known).unwrap();
        match state {
            State::Paused => vm.pause().await.unwrap(),
            _ => vm.resume().await.unwrap(),
        }
        return;
    }
    known.state = state;
    vm.run_dir().write_state(&known).unwrap();
}

/// What only looks is allowed in every state, and `rm` removes only what doesn't run.
fn looking(corner: &Corner, state: State) {
    let run = |args: &[&str]| corner.command().args(args).assert();
    let listed = run(&["--json", "ps"]).success();
    let listed: serde_json::Value = serde_json::from_slice(&listed.get_output().stdout).unwrap();
    assert_eq!(listed[0]["state"], state.to_string());
    let inspected = run(&["inspect", "tried"]).success();
    let told = String::from_utf8_lossy(&inspected.get_output().stdout).into_owned();
    assert!(told.contains(&format!("\"state\": \"{state}\"")), "{told}");
    run(&["logs", "tried"]).success();
    if !matches!(state, State::Created | State::Failed) {
        run(&["rm", "tried"]).code(4);
    }
    if !Operation::Exec.allowed().contains(&state) {
        let told = run(&["exec", "tried", "--", "true"]).code(125);
        let told = String::from_utf8_lossy(&told.get_output().stderr).into_owned();
        assert!(told.contains(&state.to_string()), "{told}");
    }
}

#[tokio::test]
async fn every_operation_is_allowed_in_exactly_the_states_of_the_table() {
    let corner = Corner::in_memory();
    let smartvm = corner.smartvm();
    std::fs::create_dir_all(corner.file(SNAPSHOT).parent().unwrap()).unwrap();
    let before = corner.picture();
    let with_run_dir = [
        State::Created,
        State::Starting,
        State::Running,
        State::Paused,
        State::Stopping,
        State::Failed,
    ];
    for state in with_run_dir {
        let mut vm = smartvm.create(&with_drive(&corner)).await.unwrap();
        if state != State::Created {
            vm.start(&StartOptions::default()).await.unwrap();
        }
        for operation in TRIED {
            put(&vm, state).await;
            let done = attempt(&smartvm, &corner, &vm, operation).await;
            let then = vm.state().unwrap().state;
            if operation.allowed().contains(&state) {
                done.unwrap_or_else(|e| panic!("{operation:?} of a VM that is {state}: {e:?}"));
                // `get_created` only hands it over for the start.
                let leads_to = operation
                    .leads_to()
                    .filter(|_| operation != Operation::Start);
                assert_eq!(then, leads_to.unwrap_or(state), "{operation:?}");
                continue;
            }
            let refused = done.expect_err("it isn't allowed");
            assert_eq!(
                refused.kind(),
                ErrorKind::WrongState,
                "{operation:?}: {refused:?}"
            );
            assert!(
                refused.to_string().contains(&state.to_string()),
                "{refused}"
            );
            assert_eq!(then, state, "{operation:?} was refused");
        }
        put(&vm, state).await;
        looking(&corner, state);
        vm.stop(StopMode::Kill)
            .await
            .unwrap_or_else(|e| panic!("stopping a VM that is {state}: {e:?}"));
        for operation in TRIED {
            let refused = attempt(&smartvm, &corner, &vm, operation)
                .await
                .unwrap_err();
            assert_eq!(
                refused.kind(),
                ErrorKind::NotFound,
                "{operation:?} after the end"
            );
        }
        let again = vm.stop(StopMode::Kill).await.unwrap_err();
        assert_eq!(again.kind(), ErrorKind::NotFound);
        assert_eq!(corner.picture(), before);
        let mut rm = corner.command();
        rm.args(["rm", "tried"]).assert().success();
    }
}

#[tokio::test]
async fn processes_that_change_one_vm_at_the_same_time_wait_for_each_other_and_no_change_is_lost() {
    const DRIVES: u64 = 6;
    let corner = Corner::in_memory();
    let smartvm = corner.smartvm();
    let mut spec = with_drive(&corner);
    spec.lifetime = Some(Lifetime::Detached);
    spec.drives = (0..DRIVES)
        .map(|n| {
            let drive = Drive::builder()
                .drive_id(format!("d{n}"))
                .path_on_host(corner.file("data.img"))
                .is_root_device(false);
            drive.is_read_only(true).build()
        })
        .collect();
    let mut vm = smartvm.create(&spec).await.unwrap();
    vm.start(&StartOptions::default()).await.unwrap();
    let processes: Vec<_> = (0..DRIVES)
        .map(|n| {
            let mut update = corner.command();
            let limit = format!("d{n}=ops:{}/1000", 100 + n);
            update.args(["update", "tried", "--limit-drive", &limit]);
            std::thread::spawn(move || update.assert().success())
        })
        .collect();
    for _ in 0..10 {
        vm.pause().await.unwrap();
        vm.stats().await.unwrap();
        vm.resume().await.unwrap();
    }
    for process in processes {
        process.join().unwrap();
    }
    let state = vm.state().unwrap();
    assert_eq!(state.state, State::Running);
    let config: serde_json::Value = vm.client().ask(&Request::get("/vm/config")).await.unwrap();
    for n in 0..DRIVES {
        let known = &state.spec.drives[n as usize].rate_limiter;
        let known = known.as_ref().unwrap().ops.as_ref().unwrap().size;
        let drives = config["drives"].as_array().unwrap();
        let real = drives
            .iter()
            .find(|it| it["drive_id"] == format!("d{n}"))
            .unwrap();
        assert_eq!(known, 100 + n);
        assert_eq!(real["rate_limiter"]["ops"]["size"], 100 + n);
    }
    vm.stop(StopMode::Kill).await.unwrap();
}

#[tokio::test]
async fn who_waits_in_vain_is_told_who_works_on_the_vm_and_force_ends_it_all_the_same() {
    let corner = Corner::in_memory();
    let smartvm = corner.smartvm();
    let before = corner.picture();
    let mut spec = corner.small();
    spec.id = Some("busy".into());
    spec.lifetime = Some(Lifetime::Detached);
    let mut vm = smartvm.create(&spec).await.unwrap();
    vm.start(&StartOptions::default()).await.unwrap();
    // A Firecracker that stands still: pausing waits for it, with the lock held.
    let vmm = vm.state().unwrap().vmm.unwrap().open().unwrap().unwrap();
    vmm.signal(Signal::STOP).unwrap();
    let mut first = Command::new(SMARTVM)
        .args(["pause", "busy"])
        .env("SMARTVM_DATA_DIR", corner.file("data"))
        .env("SMARTVM_RUNTIME_DIR", corner.file("run"))
        .env("SMARTVM_FIRECRACKER", firecracker())
        .stderr(Stdio::null())
        .spawn()
        .unwrap();
    let lock = vm.run_dir().file("lock");
    crate::lifecycle::until("the first one's hold", || {
        std::fs::read_to_string(&lock).is_ok_and(|held| held.contains("pausing"))
    })
    .await;
    let refused = corner.smartvm().get(vm.id()).unwrap();
    let refused = tokio::time::timeout(PATIENCE, refused.resume())
        .await
        .unwrap();
    if let Err(refused) = refused {
        let told = refused.to_string();
        let expected = format!("process {} is pausing or resuming it", first.id());
        // Both wait ten seconds: the first may give up a moment before.
        assert!(
            told.contains(&expected) || refused.kind() == ErrorKind::Timeout,
            "{told}"
        );
    } else {
        panic!("a Firecracker that stands still answered");
    }
    first.wait().unwrap();
    vmm.signal(Signal::CONT).unwrap();
    corner
        .command()
        .args(["stop", "--force", "busy"])
        .assert()
        .success();
    corner.becomes(&before, "after the forced end");
}

#[tokio::test]
async fn another_process_hears_of_every_state_and_of_the_end_with_its_reason() {
    let corner = Corner::in_memory();
    let smartvm = corner.smartvm();
    let mut own = smartvm.events().unwrap();
    let mut listener = Command::new(SMARTVM)
        .args(["--json", "events", "heard"])
        .env("SMARTVM_DATA_DIR", corner.file("data"))
        .env("SMARTVM_RUNTIME_DIR", corner.file("run"))
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let fds = format!("/proc/{}/fd", listener.id());
    crate::lifecycle::until("the listener's watch", || {
        let open = std::fs::read_dir(&fds).unwrap().flatten();
        open.filter_map(|fd| std::fs::read_link(fd.path()).ok())
            .any(|target| target.to_string_lossy().contains("inotify"))
    })
    .await;
    let mut spec = corner.small();
    spec.id = Some("heard".into());
    let mut vm = smartvm.create(&spec).await.unwrap();
    vm.start(&StartOptions::default()).await.unwrap();
    vm.pause().await.unwrap();
    vm.resume().await.unwrap();
    let vmm = vm.state().unwrap().vmm.unwrap().open().unwrap().unwrap();
    vmm.signal(Signal::BUS).unwrap();
    let ended = vm.wait(Some(PATIENCE)).await.unwrap();
    assert_eq!(
        (&ended.reason, ended.vmm),
        (&Reason::VmmError, Some(Ended::Exited(149)))
    );
    assert!(ended.to_error().to_string().contains("SIGBUS"));
    let expected = [
        "created", "starting", "running", "paused", "running", "failed",
    ];
    let kept: Vec<_> = ended.timeline.iter().map(|m| m.state.to_string()).collect();
    assert_eq!(kept, expected, "the record keeps the time line");
    let out = BufReader::new(listener.stdout.take().unwrap());
    let lines: Vec<serde_json::Value> = out
        .lines()
        .map(|line| serde_json::from_str(&line.unwrap()).unwrap())
        .collect();
    assert!(listener.wait().unwrap().success());
    let states: Vec<_> = lines
        .iter()
        .map(|event| event["state"].as_str().unwrap())
        .collect();
    // Listening began at some moment of this, but misses nothing from there on.
    assert_eq!(states, expected);
    let last = lines.last().unwrap();
    assert_eq!(last["reason"], "vmm-error");
    assert_eq!(last["vmm"]["exited"], 149);
    let mut heard = Vec::new();
    while heard.len() < expected.len() {
        let event = tokio::time::timeout(PATIENCE, own.next())
            .await
            .unwrap()
            .unwrap();
        heard.push(event.state.to_string());
    }
    assert_eq!(heard, expected);
}
