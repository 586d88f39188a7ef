//! Which operation is allowed in which state, who waits for whom, and who is told of it.

use std::io::{BufRead, BufReader};
use std::process::{Command, Stdio};

use rustix::process::Signal;
use smartvm::firecracker::exit::{Ended, Reason};
use smartvm::rundir::{Operation, State};
use smartvm::spec::Lifetime;
use smartvm::vm::{StartOptions, StopMode};
use smartvm::{ErrorKind, MicroVm, SmartVm};

use crate::lifecycle::PATIENCE;
use crate::support::{Corner, SMARTVM, firecracker};

async fn running(smartvm: &SmartVm, corner: &Corner) -> MicroVm {
    let mut vm = smartvm.create(&corner.small()).await.unwrap();
    vm.start(&StartOptions::default()).await.unwrap();
    vm
}

/// Does it; `None` where it can only be tried from the command line.
async fn attempt(smartvm: &SmartVm, vm: &MicroVm, operation: Operation) -> Option<ErrorKind> {
    let done = match operation {
        Operation::Start => smartvm.get_created(vm.id()).await.map(drop),
        Operation::Pause => vm.pause().await,
        Operation::Resume => vm.resume().await,
        _ => unreachable!("{operation:?} isn't tried here"),
    };
    done.err().map(|e| e.kind())
}

#[tokio::test]
async fn every_operation_is_allowed_in_exactly_the_states_of_the_table() {
    let corner = Corner::new();
    let smartvm = corner.smartvm();
    let before = corner.picture();
    const TRIED: [Operation; 3] = [Operation::Start, Operation::Pause, Operation::Resume];
    let with_run_dir = [
        State::Created,
        State::Starting,
        State::Running,
        State::Paused,
        State::Stopping,
        State::Failed,
    ];
    for state in with_run_dir {
        let mut vm = match state {
            State::Created => smartvm.create(&corner.small()).await.unwrap(),
            _ => running(&smartvm, &corner).await,
        };
        for operation in TRIED {
            let mut known = vm.state().unwrap();
            known.state = state;
            vm.run_dir().write_state(&known).unwrap();
            let refused = attempt(&smartvm, &vm, operation).await;
            let expected = match operation.allowed().contains(&state) {
                true => None,
                false => Some(ErrorKind::WrongState),
            };
            assert_eq!(refused, expected, "{operation:?} of a VM that is {state}");
            if let (None, Some(then)) = (refused, operation.leads_to())
                && operation != Operation::Start
            {
                assert_eq!(vm.state().unwrap().state, then);
            }
        }
        let mut exec = corner.command();
        exec.args(["exec", vm.id().as_str(), "--", "true"]);
        if !Operation::Exec
            .allowed()
            .contains(&vm.state().unwrap().state)
        {
            let told = exec.assert().code(125);
            let told = String::from_utf8_lossy(&told.get_output().stderr).into_owned();
            assert!(
                told.contains(&vm.state().unwrap().state.to_string()),
                "{told}"
            );
        }
        vm.stop(StopMode::Kill)
            .await
            .unwrap_or_else(|e| panic!("stopping a VM that is {state}: {e:?}"));
        for operation in TRIED {
            let refused = attempt(&smartvm, &vm, operation).await;
            assert_eq!(
                refused,
                Some(ErrorKind::NotFound),
                "{operation:?} after the end"
            );
        }
        let again = vm.stop(StopMode::Kill).await.unwrap_err();
        assert_eq!(again.kind(), ErrorKind::NotFound);
        assert_eq!(corner.picture(), before);
    }
}

#[tokio::test]
async fn who_waits_in_vain_is_told_who_works_on_the_vm_and_force_ends_it_all_the_same() {
    let corner = Corner::new();
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
        let expected = format!("process {} is pausing it", first.id());
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
    let corner = Corner::new();
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
