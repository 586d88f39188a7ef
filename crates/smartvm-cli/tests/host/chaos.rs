//! Many VMs at once, worked on by many tasks in a random order, while VMMs, keepers and the
//! whole orchestrator are killed: nothing is left, no lock is stuck, every state is right.
//!
//! The numbers are small by default, for the sake of whoever waits for the tests:
//! `SMARTVM_TEST_CHAOS_VMS=300 SMARTVM_TEST_CHAOS_KILLS=200` are those that are reported.
//! `SMARTVM_TEST_CHAOS_SEED` repeats a run.

use std::process::{Command, Stdio};
use std::sync::Arc;
use std::time::Duration;

use rustix::process::Signal;
use smartvm::firecracker::client::Request;
use smartvm::firecracker::model::{INSTANCE, Instance, InstanceState};
use smartvm::process::ProcessId;
use smartvm::rundir::State;
use smartvm::snapshot::{Place, RestoreOptions, Snapshot, SnapshotOptions};
use smartvm::spec::{Lifetime, SnapshotCreateParams, SnapshotLoadParams};
use smartvm::vm::{StartOptions, StopMode};
use smartvm::{Error, ErrorKind, MicroVm, Result, SmartVm};

use crate::lifecycle::PATIENCE;
use crate::support::Corner;

const CORNER: &str = "SMARTVM_TEST_CHAOS_CORNER";
const TASKS: u64 = 16;
const SNAPSHOTS: &str = "data/snapshots";

fn number(name: &str, default: u64) -> u64 {
    std::env::var(name).map_or(default, |text| text.parse().unwrap())
}

/// Seeded random numbers (xorshift64*): the same in every run with the same seed.
struct Dice(u64);

impl Dice {
    fn new(stream: u64) -> Self {
        let seed = number("SMARTVM_TEST_CHAOS_SEED", 1);
        let mut dice = Self((seed << 32 | stream).wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1);
        for _ in 0..8 {
            dice.below(2);
        }
        dice
    }

    fn below(&mut self, most: u64) -> u64 {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        (self.0.wrapping_mul(0x2545_f491_4f6c_dd1d) >> 33) % most
    }
}

#[derive(Debug, Clone, Copy, PartialEq)]
enum Victim {
    Nobody,
    Vmm,
    Keeper,
}

fn kill(process: Option<ProcessId>) {
    if let Some(process) = process
        && let Some(pidfd) = process.open().unwrap()
    {
        pidfd.signal(Signal::KILL).unwrap();
        // An end that is asked for while it comes by itself may be told either way.
        assert!(pidfd.wait(PATIENCE).unwrap());
    }
}

/// What became of a VM.
struct Life {
    n: u64,
    victim: Victim,
    /// How many went on from snapshots of it.
    copies: u64,
}

/// One VM's life; every step may fail once something of its was killed, and none otherwise.
async fn life(smartvm: &SmartVm, corner: &Corner, n: u64) -> Result<Life> {
    let mut dice = Dice::new(n);
    let victim = match dice.below(20) {
        0 => Victim::Keeper,
        1 | 2 => Victim::Vmm,
        _ => Victim::Nobody,
    };
    let mut spec = corner.small();
    spec.id = Some(format!("chaos-{n}"));
    // All of it is in each snapshot.
    spec.machine_config.mem_size_mib = 32;
    spec.lifetime = Some(match dice.below(2) {
        0 => Lifetime::Detached,
        _ => Lifetime::Owner,
    });
    let mut vm = smartvm.create(&spec).await?;
    vm.start(&StartOptions::default()).await?;
    let steps = 1 + dice.below(6);
    let kill_at = dice.below(steps);
    let mut killed = false;
    let mut copies = 0;
    for step in 0..steps {
        let mut killing = None;
        if step == kill_at && victim != Victim::Nobody {
            let state = vm.state()?;
            let process = match victim {
                Victim::Vmm => state.vmm,
                _ => state.keeper,
            };
            // In the midst of whatever is done then.
            let moment = Duration::from_micros(dice.below(20_000));
            killing = Some(tokio::task::spawn_blocking(move || {
                std::thread::sleep(moment);
                kill(process);
            }));
            killed = true;
        }
        let done = match dice.below(5) {
            0 | 1 => vm.pause().await,
            2 | 3 => vm.resume().await,
            _ => {
                let copied = copied(smartvm, corner, &vm, &format!("chaos-{n}-{step}")).await;
                copies += u64::from(copied.is_ok());
                copied
            }
        };
        if let Some(killing) = killing {
            killing.await.unwrap();
        }
        if let Err(e) = done {
            assert!(killed, "chaos-{n}, step {step}: {e:?}");
        }
    }
    match vm.stop(StopMode::Kill).await {
        Ok(ended) => assert!(ended.cleanup.is_empty(), "chaos-{n}: {ended:?}"),
        // Its keeper was faster.
        Err(e) if killed && e.kind() == ErrorKind::NotFound => {}
        Err(e) => panic!("chaos-{n}, {victim:?} killed: {e:?}"),
    }
    Ok(Life { n, victim, copies })
}

/// Another VM goes on from a snapshot of this one, and ends.
async fn copied(smartvm: &SmartVm, corner: &Corner, vm: &MicroVm, id: &str) -> Result<()> {
    let dir = corner.file(SNAPSHOTS).join(id);
    let place = Place::in_directory(&dir)?;
    let create = SnapshotCreateParams::builder()
        .snapshot_path(place.state())
        .mem_file_path(place.memory())
        .build();
    let load = SnapshotLoadParams::builder()
        .snapshot_path(place.state())
        .mem_file_path(place.memory())
        .resume_vm(true)
        .build();
    let state = vm.state()?.state;
    let whole = SnapshotOptions::default().agent(false);
    let snapshot = vm.snapshot(&create, &whole).await?;
    let mut options = RestoreOptions::default();
    options.id = Some(id.parse()?);
    let mut copy = smartvm.restore(&load, &options).await?;
    assert_eq!(copy.state()?.state, State::Running, "{id}");
    copy.pause().await?;
    copy.resume().await?;
    let ended = copy.stop(StopMode::Kill).await?;
    assert!(ended.cleanup.is_empty(), "{id}: {ended:?}");
    snapshot.remove()?;
    std::fs::remove_dir(&dir).map_err(|e| Error::io("removing", &dir, e))?;
    // Paused for it, it went on.
    if let Ok(then) = vm.state() {
        assert_eq!(then.state, state, "{id}");
    }
    Ok(())
}

/// What a killed orchestrator left of snapshots is either whole, and goes here, or goes with
/// its VM.
fn remove_whole_snapshots(corner: &Corner) -> u64 {
    let mut whole = 0;
    let Ok(dirs) = std::fs::read_dir(corner.file(SNAPSHOTS)) else {
        return whole;
    };
    for dir in dirs {
        let dir = dir.unwrap().path();
        let place = Place::in_directory(&dir).unwrap();
        if place.state().exists() {
            Snapshot::open(&place).unwrap();
            std::fs::remove_dir_all(&dir).unwrap();
            whole += 1;
        }
        // Killed right before it removed this, which it had made itself.
        let _not_empty_or_gone = std::fs::remove_dir(&dir);
    }
    whole
}

fn descriptors() -> usize {
    std::fs::read_dir("/proc/self/fd").unwrap().count()
}

#[tokio::test]
async fn many_vms_with_processes_killed_at_random_leave_nothing_and_every_state_is_right() {
    let corner = Arc::new(Corner::in_memory());
    let smartvm = Arc::new(corner.smartvm());
    let vms = number("SMARTVM_TEST_CHAOS_VMS", 48);
    std::fs::create_dir_all(corner.file(SNAPSHOTS)).unwrap();
    let before = corner.picture();
    let open_before = descriptors();
    let tasks: Vec<_> = (0..TASKS)
        .map(|task| {
            let (smartvm, corner) = (Arc::clone(&smartvm), Arc::clone(&corner));
            tokio::spawn(async move {
                let mut lives = Vec::new();
                for n in (task..vms).step_by(TASKS as usize) {
                    let life = life(&smartvm, &corner, n).await;
                    lives.push(life.unwrap_or_else(|e| panic!("chaos-{n}: {e:?}")));
                }
                lives
            })
        })
        .collect();
    let mut lives = Vec::new();
    for task in tasks {
        lives.extend(task.await.unwrap());
    }
    corner.becomes(&before, "after all ended");
    assert_eq!(smartvm.gc(false).unwrap(), [], "nothing is left to gc");
    assert_eq!(smartvm.list().unwrap().len(), 0);
    let records = smartvm.runtime().records();
    let copies: u64 = lives.iter().map(|life| life.copies).sum();
    let killed = lives.iter().filter(|life| life.victim != Victim::Nobody);
    let killed = killed.count();
    for Life { n, victim, .. } in &lives {
        // The oldest of more than 128 are dropped.
        let Ok(record) = records.get(&format!("chaos-{n}").parse().unwrap()) else {
            assert!(vms + copies > 128, "chaos-{n} left no record");
            continue;
        };
        match victim {
            Victim::Vmm => assert_eq!(record.state, State::Failed, "{record:?}"),
            _ => assert_eq!(record.state, State::Stopped, "{record:?}"),
        }
    }
    eprintln!("{vms} VMs, {copies} went on from snapshots, {killed} were killed");
    assert!(killed > 0 && copies > 0, "this seed kills or copies nobody");
    let open_after = descriptors();
    assert!(
        open_after <= open_before + 8,
        "{open_before} descriptors before, {open_after} after"
    );
}

/// Not a test by itself: the orchestrator of the test below, killed from outside.
#[tokio::test]
async fn orchestrator_process() {
    let Some(root) = std::env::var_os(CORNER) else {
        return;
    };
    let corner = Arc::new(Corner::at(root.into()));
    let smartvm = Arc::new(corner.smartvm());
    let mut next = 0;
    loop {
        let lives: Vec<_> = (next..next + 4)
            .map(|n| {
                let (smartvm, corner) = (Arc::clone(&smartvm), Arc::clone(&corner));
                tokio::spawn(async move { life(&smartvm, &corner, n).await })
            })
            .collect();
        for life in lives {
            // Its end is what this is for.
            let _outcome = life.await;
        }
        next += 4;
    }
}

#[tokio::test]
async fn an_orchestrator_killed_at_random_moments_is_recovered_from() {
    let corner = Corner::in_memory();
    std::fs::create_dir_all(corner.file(SNAPSHOTS)).unwrap();
    let before = corner.picture();
    let mut dice = Dice::new(u64::from(u32::MAX));
    let mut whole = 0;
    for round in 0..number("SMARTVM_TEST_CHAOS_KILLS", 10) {
        let mut orchestrator = Command::new(std::env::current_exe().unwrap())
            .args(["--exact", "chaos::orchestrator_process", "--nocapture"])
            .env(CORNER, corner.path())
            .env("SMARTVM_TEST_CHAOS_SEED", (round + 1).to_string())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        tokio::time::sleep(Duration::from_millis(dice.below(400))).await;
        orchestrator.kill().unwrap();
        orchestrator.wait().unwrap();
        let smartvm = corner.smartvm();
        let found = smartvm.recover().await.unwrap();
        for vm in &found.adopted {
            let state = match vm.state() {
                Ok(known) => known.state,
                // It was ending.
                Err(e) if e.kind() == ErrorKind::NotFound => continue,
                Err(e) => panic!("round {round}: {e:?}"),
            };
            assert!(
                !matches!(state, State::Starting | State::Stopped | State::Failed),
                "round {round}: {} was adopted and is {state}",
                vm.id()
            );
            // Whatever a killed process was at. Its Firecracker may be killed meanwhile.
            if matches!(state, State::Running | State::Paused)
                && let Ok(instance) = vm.client().ask::<Instance>(&Request::get(INSTANCE)).await
            {
                let is = match instance.state {
                    InstanceState::Paused => State::Paused,
                    _ => State::Running,
                };
                assert_eq!(state, is, "round {round}: {}", vm.id());
            }
        }
        // Those with lifetime `owner` may be ending meanwhile: their keepers' work.
        for ended in smartvm.stop_all(StopMode::Kill).await.unwrap() {
            if let Err(e) = ended {
                assert_eq!(e.kind(), ErrorKind::NotFound, "round {round}: {e:?}");
            }
        }
        whole += remove_whole_snapshots(&corner);
        corner.becomes(&before, &format!("round {round}"));
        assert_eq!(smartvm.gc(false).unwrap(), [], "round {round}");
    }
    eprintln!("{whole} whole snapshots were left by killed orchestrators");
}
