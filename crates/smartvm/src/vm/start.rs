//! Starting a VM: keeper, steps, configuration, `InstanceStart`.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use super::held::Held;
use super::options::{Event, StartOptions, cancelled};
use super::{LOCK_PATIENCE, MicroVm, blocking, process_ended};
use crate::agent::MainCommand;
use crate::error::{Error, ErrorKind, Result};
use crate::firecracker::exit::Reason;
use crate::firecracker::model::Action;
use crate::jail::{self, Bind};
use crate::keeper::Link;
use crate::ledger::Ledger;
use crate::network::Network;
use crate::plan::{Launch, Plan};
use crate::process::ProcessId;
use crate::rundir::{Operation, RunDir, State, file};
use crate::spec::Lifetime;
use crate::step::{Hands, Outcome};
use crate::teardown;

/// How long Firecracker may take from its start to listening.
const READY_PATIENCE: Duration = Duration::from_secs(15);
/// How long `InstanceStart` may take: it loads the kernel and sets up the guest's memory.
const BOOT_PATIENCE: Duration = Duration::from_secs(60);
/// How long Firecracker may take from the end of its connections to its own.
const DEATH_PATIENCE: Duration = Duration::from_secs(2);
/// How long the keeper may take to give everything back.
const CLEANUP_PATIENCE: Duration = Duration::from_secs(90);

/// Set when the future that waits for the steps is dropped: they end at the next moment.
pub(crate) struct CancelOnDrop(pub(crate) Arc<AtomicBool>);

impl Drop for CancelOnDrop {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Relaxed);
    }
}

impl MicroVm {
    /// Starts it: takes what the plan says from the host, starts and configures Firecracker,
    /// boots the guest. With lifetime `detached` it then lives on without this process. If
    /// anything fails, everything is given back first.
    ///
    /// # Errors
    /// The first failure, with those of the cleanup in [`Error::cleanup`].
    pub async fn start(&mut self, options: &StartOptions) -> Result<()> {
        let restores = |plan: &Plan| matches!(plan.launch, Launch::Load { .. });
        if options.main_command.is_some() && self.plan.as_ref().is_some_and(restores) {
            let message = format!("VM {} is restored: its guest runs already", self.id());
            return Err(Error::new(ErrorKind::Invalid, message)
                .hint("a main command is begun in a guest that boots"));
        }
        let Some(plan) = self.plan.take() else {
            let state = self.state()?;
            return Err(Operation::Start
                .require(state.state, self.id().as_str())
                .err()
                .unwrap_or_else(|| {
                    Error::new(
                        ErrorKind::WrongState,
                        format!("VM {} has no plan", self.id()),
                    )
                }));
        };
        let (link, vmm, binds) = self.take_from_host(plan.clone(), options.clone()).await?;
        self.link = Some(link);
        let configured = tokio::select! {
            configured = self.configure(&plan, &vmm, binds, options) => configured,
            ended = process_ended(&vmm, None) => Err(match ended {
                Ok(_) => Error::new(ErrorKind::Vmm, "Firecracker ended while it was started"),
                Err(e) => e,
            }),
        };
        if let Err(failure) = &configured
            && is_of_a_connection(failure)
        {
            // A process's connections break before it has ended. Whether it has is for the
            // keeper to tell, which has to see it before it is told to give up.
            let _ended = process_ended(&vmm, Some(DEATH_PATIENCE)).await;
        }
        let done = match (configured, plan.spec.lifetime) {
            // Its guest can't end before it is let go.
            (Ok(_main), Some(Lifetime::Detached)) => self.let_go().await,
            (configured, _) => configured.map(drop),
        };
        match done {
            Ok(()) => {
                let keepers = self.keepers.clone();
                drop(tokio::task::spawn_blocking(move || keepers.prepare()));
                Ok(())
            }
            Err(failure) => Err(self.give_up(failure).await),
        }
    }

    /// The part that works on files and processes. Returns the keeper, its Firecracker, and what
    /// has to be bound into its jail.
    async fn take_from_host(
        &mut self,
        plan: Plan,
        options: StartOptions,
    ) -> Result<(Link, ProcessId, Vec<Bind>)> {
        let begun = match self.keeper.take() {
            Some(starting) => starting.link().await.ok().filter(Link::lives),
            None => None,
        };
        let stop = Arc::new(AtomicBool::new(false));
        let _guard = CancelOnDrop(Arc::clone(&stop));
        let (run_dir, keepers) = (self.run_dir.clone(), self.keepers.clone());
        let network = self.network.clone();
        blocking(move || {
            let mut held = Held::take(run_dir.clone(), Operation::Start)?;
            // Before anything is written: its program starts while this goes on.
            let keeper = begun.map_or_else(|| keepers.next(), Ok);
            let kept = keeper.and_then(|mut link| {
                link.keep(&run_dir, plan.spec.max_runtime_s)?;
                Ok(link)
            });
            let mut link = match kept {
                Ok(link) => link,
                Err(e) => {
                    // Nobody else is there to clean up.
                    let why = Reason::StartFailed(e.to_string());
                    let cleanup = teardown::tear_down(&run_dir, &held.into_lock(), why, None);
                    return Err(e.with_cleanup(cleanup.err()));
                }
            };
            let state = held.change();
            state.owner = ProcessId::myself()?;
            state.keeper = Some(link.process().clone());
            if let Err(e) = held.record() {
                // The keeper needs the lock to clean up.
                drop(held);
                return Err(abandon(&run_dir, link, e));
            }
            let done = (|| {
                options.tell(&Event::KeeperStarted)?;
                let (vmm, binds) = do_steps(&run_dir, &plan, &network, &mut link, &options, &stop)?;
                held.change().vmm = Some(vmm.clone());
                held.record()?;
                Ok((vmm, binds))
            })();
            drop(held);
            match done {
                Ok((vmm, binds)) => Ok((link, vmm, binds)),
                Err(e) => Err(abandon(&run_dir, link, e)),
            }
        })
        .await
    }

    async fn configure(
        &self,
        plan: &Plan,
        vmm: &ProcessId,
        binds: Vec<Bind>,
        options: &StartOptions,
    ) -> Result<Option<MainCommand>> {
        let mut client = self.client();
        client.wait_ready(READY_PATIENCE).await?;
        let (running, furnished) = tokio::join!(client.version(), furnish(plan, vmm, binds));
        let running = running?;
        furnished?;
        if running != plan.firecracker_version {
            let planned = plan.firecracker_version;
            let message = format!("Firecracker {running} runs where {planned} was planned for");
            return Err(Error::new(ErrorKind::Host, message)
                .hint("its executable was replaced meanwhile: try again"));
        }
        for request in &plan.requests {
            options.tell(&Event::Configuring {
                path: request.path(),
            })?;
            match plan.launch {
                Launch::Boot => client.send(request).await?,
                // Loading takes as long as the memory is large.
                Launch::Load { .. } => {
                    client.send_within(request, BOOT_PATIENCE).await?;
                }
            }
        }
        let begun = match &plan.launch {
            Launch::Boot => {
                let start = Action::InstanceStart.request()?;
                options.tell(&Event::Configuring { path: start.path() })?;
                client.send_within(&start, BOOT_PATIENCE).await?;
                State::Running
            }
            Launch::Load { resume: false, .. } => State::Paused,
            Launch::Load { agent, moves, .. } => {
                if agent.is_some() {
                    self.wake_guest(moves).await?;
                }
                State::Running
            }
        };
        let main = match &options.main_command {
            Some(command) => Some(self.begin_main(command).await?),
            None => None,
        };
        let mut held = self.begin(Operation::Boot).await?.leading_to(begun);
        if begun == State::Running {
            // What was to be done when it runs is done.
            held.forget_moves();
        }
        held.done().await?;
        options.tell(&Event::Started)?;
        Ok(main)
    }

    /// Lets a VM with lifetime `detached` live on without this process.
    async fn let_go(&mut self) -> Result<()> {
        let Some(mut link) = self.link.take() else {
            return Ok(());
        };
        let (link, done) = blocking(move || {
            let done = link.detach();
            Ok((link, done))
        })
        .await?;
        self.link = Some(link);
        done
    }

    /// After a failed start: has everything given back, and tells what failed.
    async fn give_up(&mut self, failure: Error) -> Error {
        let Some(link) = self.link.take() else {
            return failure;
        };
        let run_dir = self.run_dir.clone();
        let given_up = blocking(move || Err::<(), _>(abandon(&run_dir, link, failure))).await;
        match given_up {
            Err(e) => e,
            Ok(()) => Error::new(ErrorKind::Vmm, format!("VM {} did not start", self.id())),
        }
    }
}

/// Whether it isn't what Firecracker answered that failed, but the asking.
fn is_of_a_connection(failure: &Error) -> bool {
    std::error::Error::source(failure).is_some_and(|cause| cause.is::<std::io::Error>())
}

/// Takes the chroot of a jailed VM back and binds the user's files into it, while Firecracker
/// comes to itself: it needs none of them before it is told of them.
async fn furnish(plan: &Plan, vmm: &ProcessId, binds: Vec<Bind>) -> Result<()> {
    if !plan.root.is_jail() {
        return Ok(());
    }
    let (root, vmm) = (plan.root.path().to_owned(), vmm.clone());
    blocking(move || {
        jail::seal(&root)?;
        jail::mounts::bind_into(&vmm, &root, &binds)
    })
    .await
}

/// Does the plan's steps through the ledger; returns the Firecracker that it started, and what
/// has to be bound into its jail.
fn do_steps(
    run_dir: &RunDir,
    plan: &Plan,
    network: &Network,
    link: &mut Link,
    options: &StartOptions,
    stop: &AtomicBool,
) -> Result<(ProcessId, Vec<Bind>)> {
    // What was leased when the VM was made is in the ledger already.
    let path = run_dir.file(file::LEDGER);
    let mut ledger = match Ledger::open(&path)? {
        Some(ledger) => ledger,
        None => Ledger::create(&path)?,
    };
    let prepared = ledger.entries().len();
    let total = plan.steps.len();
    let mut before = Vec::with_capacity(total);
    let mut open = Vec::new();
    for (number, step) in plan.steps.iter().enumerate() {
        if stop.load(Ordering::Relaxed) {
            return Err(cancelled());
        }
        if number < prepared {
            if ledger.entries()[number].step != *step {
                return Err(Error::new(
                    ErrorKind::Corrupt,
                    format!("VM {} was made for another plan", run_dir.id()),
                ));
            }
            continue;
        }
        let mut hands = Hands {
            keeper: Some(&mut *link),
            network: Some(network),
            cancelled: &|| stop.load(Ordering::Relaxed),
            before: &before,
            open: &mut open,
        };
        let mut outcome = Outcome::default();
        ledger.run(step, |step| {
            options.tell(&Event::StepBegins {
                number,
                total,
                step,
            })?;
            outcome = step.apply(&mut hands)?;
            options.tell(&Event::StepApplied { number })?;
            Ok(outcome.clone())
        })?;
        before.push(outcome);
        options.tell(&Event::StepDone { number })?;
    }
    let vmm = ledger
        .entries()
        .iter()
        .rev()
        .find_map(|entry| entry.outcome.as_ref()?.process.clone());
    let vmm = vmm.ok_or_else(|| Error::new(ErrorKind::Vmm, "the plan starts no Firecracker"))?;
    let binds = before.into_iter().flat_map(Outcome::into_binds);
    Ok((vmm, binds.collect()))
}

/// Has the keeper give everything back, and adds what it could not to the failure. If the
/// keeper is gone, its work is done here.
fn abandon(run_dir: &RunDir, mut link: Link, failure: Error) -> Error {
    let told = link.abandon(&failure);
    let keeper = link.process().clone();
    let ended = match (told, keeper.open()) {
        (Ok(()), Ok(Some(pidfd))) => pidfd.wait(CLEANUP_PATIENCE),
        (_, Ok(None)) => Ok(true),
        (Err(e), _) | (_, Err(e)) => Err(e),
    };
    drop(link);
    match ended {
        Ok(true) => {}
        Ok(false) => {
            let late = Error::new(ErrorKind::Timeout, "the keeper did not finish its cleanup")
                .hint("`smartvm gc` tries again");
            return failure.with_cleanup([late]);
        }
        Err(e) => return failure.with_cleanup([e]),
    }
    let record = if run_dir.path().symlink_metadata().is_ok() {
        let why = Reason::StartFailed(failure.to_string());
        run_dir
            .lock(teardown::DOING, LOCK_PATIENCE)
            .and_then(|lock| teardown::tear_down(run_dir, &lock, why, None))
    } else {
        run_dir.records().get(run_dir.id())
    };
    match record {
        Ok(record) => {
            let cleanup: Vec<_> = record
                .cleanup
                .iter()
                .map(|text| Error::new(ErrorKind::Io, text))
                .collect();
            let failure = match &record.reason {
                // What the caller saw is only that the connection broke; the record knows why.
                Reason::VmmError
                | Reason::KilledFromOutside
                | Reason::GuestReset
                | Reason::GuestPanic
                | Reason::LifetimeReached => record.to_error().because(failure),
                _ => failure,
            };
            failure.with_cleanup(cleanup)
        }
        Err(e) => failure.with_cleanup([e]),
    }
}
