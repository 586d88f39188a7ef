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
use smartvm::process::ProcessId;
use smartvm::rundir::State;
use smartvm::spec::Lifetime;
use smartvm::vm::{StartOptions, StopMode};
use smartvm::{ErrorKind, Result, SmartVm};

use crate::lifecycle::PATIENCE;
use crate::support::Corner;

const CORNER: &str = "SMARTVM_TEST_CHAOS_CORNER";
const TASKS: u64 = 16;

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

/// One VM's life; every step may fail once something of its was killed, and none otherwise.
async fn life(smartvm: &SmartVm, corner: &Corner, n: u64) -> Result<Victim> {
    let mut dice = Dice::new(n);
    let victim = match dice.below(20) {
        0 => Victim::Keeper,
        1 | 2 => Victim::Vmm,
        _ => Victim::Nobody,
    };
    let mut spec = corner.small();
    spec.id = Some(format!("chaos-{n}"));
    spec.lifetime = Some(match dice.below(2) {
        0 => Lifetime::Detached,
        _ => Lifetime::Owner,
    });
    let mut vm = smartvm.create(&spec).await?;
    vm.start(&StartOptions::default()).await?;
    let steps = 1 + dice.below(6);
    let kill_at = dice.below(steps);
    let mut killed = false;
    for step in 0..steps {
        if step == kill_at && victim != Victim::Nobody {
            let state = vm.state()?;
            kill(match victim {
                Victim::Vmm => state.vmm,
                _ => state.keeper,
            });
            killed = true;
        }
        let done = match dice.below(2) {
            0 => vm.pause().await,
            _ => vm.resume().await,
        };
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
    Ok(victim)
}

fn descriptors() -> usize {
    std::fs::read_dir("/proc/self/fd").unwrap().count()
}

#[tokio::test]
async fn many_vms_with_processes_killed_at_random_leave_nothing_and_every_state_is_right() {
    let corner = Arc::new(Corner::new());
    let smartvm = Arc::new(corner.smartvm());
    let before = corner.picture();
    let vms = number("SMARTVM_TEST_CHAOS_VMS", 48);
    let open_before = descriptors();
    let tasks: Vec<_> = (0..TASKS)
        .map(|task| {
            let (smartvm, corner) = (Arc::clone(&smartvm), Arc::clone(&corner));
            tokio::spawn(async move {
                let mut lives = Vec::new();
                for n in (task..vms).step_by(TASKS as usize) {
                    let victim = life(&smartvm, &corner, n).await;
                    lives.push((n, victim.unwrap_or_else(|e| panic!("chaos-{n}: {e:?}"))));
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
    let mut killed = 0;
    for (n, victim) in &lives {
        // The oldest of more than 128 are dropped.
        let Ok(record) = records.get(&format!("chaos-{n}").parse().unwrap()) else {
            assert!(vms > 128, "chaos-{n} left no record");
            continue;
        };
        match victim {
            Victim::Vmm => assert_eq!(record.state, State::Failed, "{record:?}"),
            _ => assert_eq!(record.state, State::Stopped, "{record:?}"),
        }
        killed += usize::from(*victim != Victim::Nobody);
    }
    assert!(killed > 0, "this seed kills nobody");
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
    let corner = Corner::new();
    let before = corner.picture();
    let mut dice = Dice::new(u64::from(u32::MAX));
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
            let state = vm.state().unwrap().state;
            assert!(
                matches!(state, State::Created | State::Running | State::Paused),
                "round {round}: {} was adopted and is {state}",
                vm.id()
            );
        }
        // Those with lifetime `owner` may be ending meanwhile: their keepers' work.
        for ended in smartvm.stop_all(StopMode::Kill).await.unwrap() {
            if let Err(e) = ended {
                assert_eq!(e.kind(), ErrorKind::NotFound, "round {round}: {e:?}");
            }
        }
        corner.becomes(&before, &format!("round {round}"));
        assert_eq!(smartvm.gc(false).unwrap(), [], "round {round}");
    }
}
