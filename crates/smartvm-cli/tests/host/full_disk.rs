//! A runtime directory without any room left.

use std::io::ErrorKind::StorageFull;

use rustix::process::Signal;
use serde_json::Value;
use smartvm::firecracker::client::Request;
use smartvm::firecracker::exit::Reason;
use smartvm::orchestrator::Finding;
use smartvm::rundir::State;
use smartvm::vm::{StartOptions, StopMode};
use smartvm::{MicroVm, SmartVm};

use crate::lifecycle::PATIENCE;
use crate::support::{Corner, SmallDisk};

/// A corner whose runtime directory is a small file system of its own.
struct Small {
    smartvm: SmartVm,
    _disk: SmallDisk,
    corner: Corner,
}

impl Small {
    fn new() -> Self {
        let corner = Corner::new();
        let run = corner.file("run");
        std::fs::create_dir(&run).unwrap();
        let disk = SmallDisk::mount(run, "2m");
        Self {
            smartvm: corner.smartvm(),
            _disk: disk,
            corner,
        }
    }

    async fn running(&self, id: &str) -> MicroVm {
        let mut spec = self.corner.small();
        spec.id = Some(id.into());
        let mut vm = self.smartvm.create(&spec).await.unwrap();
        vm.start(&StartOptions::default()).await.unwrap();
        vm
    }

    /// Fills it to its last byte.
    fn fill(&self) {
        let filled = std::fs::write(self.corner.file("run/.filler"), vec![0; 4 << 20]);
        assert_eq!(filled.unwrap_err().kind(), StorageFull);
    }
}

#[tokio::test]
async fn a_vm_on_a_full_disk_is_ended_as_asked_and_its_record_says_so() {
    let small = Small::new();
    let mut vm = small.running("a").await;
    small.fill();
    // As long as the list of its states has room in a block that is its own, there is room.
    let mut refused = None;
    for number in 0..200 {
        let done = match number % 2 {
            0 => vm.pause().await,
            _ => vm.resume().await,
        };
        if let Err(e) = done {
            refused = Some(e.to_string());
            break;
        }
    }
    let refused = refused.unwrap();
    assert!(refused.contains("No space left"), "{refused}");
    let told: Value = vm.client().ask(&Request::get("/")).await.unwrap();
    let state = told["state"].as_str().unwrap().to_lowercase();
    assert_eq!(state, vm.state().unwrap().state.to_string(), "{refused}");
    let ended = vm.stop(StopMode::Kill).await.unwrap();
    assert_eq!(
        (ended.state, &ended.reason),
        (State::Stopped, &Reason::Killed)
    );
    assert!(ended.cleanup.is_empty(), "{ended:?}");
    assert!(!vm.run_dir().path().exists());
}

#[tokio::test]
async fn gc_does_the_work_of_a_killed_keeper_on_a_full_disk() {
    let small = Small::new();
    let vm = small.running("a").await;
    let state = vm.state().unwrap();
    small.fill();
    for process in [state.keeper.unwrap(), state.vmm.unwrap()] {
        let pidfd = process.open().unwrap().unwrap();
        pidfd.signal(Signal::KILL).unwrap();
        assert!(pidfd.wait(PATIENCE).unwrap());
    }
    let found = small.smartvm.gc(false).unwrap();
    assert!(
        matches!(found[..], [ref one] if matches!(one.finding, Finding::GivenBack { .. })),
        "{found:?}"
    );
    assert!(!vm.run_dir().path().exists());
    assert_eq!(
        small.smartvm.runtime().records().get(vm.id()).unwrap().id,
        *vm.id()
    );
}
