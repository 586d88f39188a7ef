//! Making a snapshot: pause, state and memory, drives, resume, checksums, names.

use std::fmt;
use std::fs::File;
use std::ops::ControlFlow;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use super::manifest::{DriveFile, FileSum, Manifest, Parent};
use super::place::{DRIVES, MANIFEST, Place, STATE};
use super::stamp::{Stamp, Stamps};
use super::{Snapshot, claim, drive_name, host, interrupted, recover, usage};
use crate::durable::sync_dir;
use crate::error::{Error, ErrorKind, Result};
use crate::firecracker::Version;
use crate::firecracker::snapshot as wire;
use crate::host::HostFacts;
use crate::ledger::Ledger;
use crate::rundir::{Lock, Operation, RunDir, State, VmState, file};
use crate::spec::{SnapshotCreateParams, SnapshotType};
use crate::step::Step;
use crate::storage::checksum::sha256_of_file;
use crate::storage::{Watch as Work, copy_sparse};
use crate::validate::validate_snapshot_create;
use crate::vm::{CancelOnDrop, MicroVm, blocking};

/// How long Firecracker may take to write the memory.
const WRITE_PATIENCE: Duration = Duration::from_secs(600);
/// How long the agent of a running guest may take to say that it is there.
const AGENT_PATIENCE: Duration = Duration::from_secs(2);
/// Before Firecracker 1.15, diffs of more memory than this are not to be trusted.
const MOST_DIFF_MIB: u64 = 3072;

/// What happens while a snapshot is made.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum Moment {
    /// Its place is claimed.
    Claimed,
    /// The VM is paused.
    Paused,
    /// Firecracker wrote state and memory.
    Written,
    /// The drives are copied.
    Copied,
    /// The VM runs on.
    Resumed,
    /// The manifest is written: the next is that all gets its name.
    Whole,
    /// All has its name.
    Published,
}

/// Called at every moment; answering `Break` cancels the snapshot, which gives everything back.
pub type Watch = Arc<dyn Fn(Moment) -> ControlFlow<()> + Send + Sync>;

/// How a snapshot is made.
#[derive(Clone, Default)]
#[non_exhaustive]
pub struct SnapshotOptions {
    /// Leave the VM paused. By default it runs on if it ran.
    pub leave_paused: bool,
    /// Whether its guest has an agent; by default a running guest is asked, and taken to have
    /// none if it doesn't answer within 2 seconds.
    pub agent: Option<bool>,
    /// Told of every moment.
    pub watch: Option<Watch>,
}

impl SnapshotOptions {
    /// Leaves the VM paused.
    #[must_use]
    pub fn leave_paused(mut self) -> Self {
        self.leave_paused = true;
        self
    }

    /// Says whether the guest has an agent.
    #[must_use]
    pub fn agent(mut self, has: bool) -> Self {
        self.agent = Some(has);
        self
    }

    /// Tells `watch` of every moment.
    #[must_use]
    pub fn watch(mut self, watch: Watch) -> Self {
        self.watch = Some(watch);
        self
    }
}

impl fmt::Debug for SnapshotOptions {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.debug_struct("SnapshotOptions")
            .field("leave_paused", &self.leave_paused)
            .field("agent", &self.agent)
            .field("watch", &self.watch.is_some())
            .finish()
    }
}

fn cancelled() -> Error {
    Error::new(ErrorKind::Cancelled, "the snapshot was cancelled")
}

impl MicroVm {
    /// Makes a snapshot of it, at the paths given. A running VM is paused for it. If anything
    /// fails, or this future is dropped, what was made is removed and the VM runs on.
    ///
    /// # Errors
    /// [`ErrorKind::WrongState`] for a VM that neither runs nor is paused, files that are there
    /// already, and a diff without something to build on.
    pub async fn snapshot(
        &self,
        params: &SnapshotCreateParams,
        options: &SnapshotOptions,
    ) -> Result<Snapshot> {
        validate_snapshot_create(params).map_err(Error::from)?;
        let state = self.state()?;
        // What lies in a jail, and what was leased, is not part of a snapshot yet.
        if state.root.is_some() || !state.leases.is_empty() {
            let how = match state.root {
                Some(_) => "jailed",
                None => "connected to the network",
            };
            return Err(Error::new(
                ErrorKind::WrongState,
                format!("making a snapshot of VM {}: it is {how}", self.id()),
            )
            .hint("run it without a jail, with a TAP device of your own (hostDevName)"));
        }
        let stop = Arc::new(AtomicBool::new(false));
        let _guard = CancelOnDrop(Arc::clone(&stop));
        let making = Making {
            vm: Self::existing(
                self.run_dir().clone(),
                self.keeper_executable().to_owned(),
                self.network.clone(),
            ),
            place: Place::new(&params.snapshot_path, &params.mem_file_path)?,
            kind: params.snapshot_type.unwrap_or_default(),
            options: options.clone(),
            stop,
        };
        // A task of its own: if this future is dropped, that one still cleans up.
        match tokio::spawn(making.run()).await {
            Ok(done) => done,
            Err(e) => Err(Error::new(ErrorKind::Io, "making a snapshot failed").because(e)),
        }
    }
}

struct Making {
    vm: MicroVm,
    place: Place,
    kind: SnapshotType,
    options: SnapshotOptions,
    stop: Arc<AtomicBool>,
}

impl Making {
    async fn run(self) -> Result<Snapshot> {
        let agent = self.agent().await;
        let held = self.vm.begin(Operation::Snapshot).await?;
        let lock = Arc::new(held.into_lock());
        let run_dir = self.vm.run_dir().clone();
        let mut state = self.begin(&run_dir, &lock).await?;
        if agent.is_some() {
            state.agent = agent;
        }
        let ran = state.state == State::Running;
        let made = self.make(&mut state, ran).await;
        let (place, resume) = (self.place.clone(), ran && !self.options.leave_paused);
        match made {
            Ok(()) => {
                blocking(move || {
                    super::recover::keep(&run_dir, &place)?;
                    drop(lock);
                    Snapshot::open(&place)
                })
                .await
            }
            Err(failure) => {
                let resumed = match ran && (resume || state.state == State::Paused) {
                    true => self.switch(&mut state, State::Running).await.err(),
                    false => None,
                };
                let undone = blocking(move || {
                    let found = interrupted(&run_dir, &lock)?;
                    recover(&run_dir, &lock, &found)
                });
                let undone = undone.await.err();
                Err(failure.with_cleanup(resumed.into_iter().chain(undone)))
            }
        }
    }

    /// The newest version of the protocol that the guest's agent speaks, if it answers.
    async fn agent(&self) -> Option<u32> {
        if self.options.agent == Some(false) {
            return None;
        }
        let state = self.vm.state().ok()?;
        if state.agent.is_some() || state.state != State::Running {
            return state.agent;
        }
        let patience = match self.options.agent {
            Some(_) => Duration::from_secs(30),
            None => AGENT_PATIENCE,
        };
        let greeting = self.vm.agent().ok()?.greeting(patience).await.ok()?;
        greeting.versions.into_iter().max()
    }

    /// Refuses what can't be, then claims the place.
    async fn begin(&self, run_dir: &RunDir, lock: &Arc<Lock>) -> Result<VmState> {
        let (run_dir, lock) = (run_dir.clone(), Arc::clone(lock));
        let (place, kind) = (self.place.clone(), self.kind);
        let leave_paused = self.options.leave_paused;
        blocking(move || {
            let left = interrupted(&run_dir, &lock)?;
            recover(&run_dir, &lock, &left)?;
            let state = run_dir.state()?;
            let vm = run_dir.id().as_str();
            refuse(&state, kind, vm)?;
            let mut ledger = Ledger::open(&run_dir.file(file::LEDGER))?
                .ok_or_else(|| Error::new(ErrorKind::Corrupt, format!("VM {vm} has no ledger")))?;
            let makes_parent = !place.parent().exists();
            let step = Step::ClaimSnapshot {
                state: place.state().to_owned(),
                memory: place.memory().to_owned(),
                makes_parent,
                resume: state.state == State::Running && !leave_paused,
                vm: vm.to_owned(),
                runtime_dir: run_dir.runtime_dir()?.path().to_owned(),
            };
            let claimed = ledger.run(&step, |step| step.claim_snapshot());
            if let Err(e) = claimed {
                let number = ledger.entries().len() - 1;
                // What is there belongs to somebody else: the refusal took nothing.
                let undone = match e.kind() {
                    ErrorKind::WrongState => ledger.undo_one(number, |_| Ok(())),
                    _ => ledger.undo_one(number, |entry| entry.step.undo(None)),
                };
                return Err(e.with_cleanup(undone.err()));
            }
            Ok(state)
        })
        .await
    }

    async fn make(&self, state: &mut VmState, ran: bool) -> Result<()> {
        self.tell(Moment::Claimed)?;
        let parent = state.base.take();
        if ran {
            self.switch(state, State::Paused).await?;
        } else {
            self.vm.run_dir().write_state(state)?;
        }
        self.tell(Moment::Paused)?;
        let request = wire::create(
            &self.place.work().join(STATE),
            &self.place.memory_work(),
            self.kind,
        )?;
        let mut client = self.vm.client();
        client.send_within(&request, WRITE_PATIENCE).await?;
        self.tell(Moment::Written)?;
        let drives = self.copy_drives(state).await?;
        self.tell(Moment::Copied)?;
        if ran && !self.options.leave_paused {
            self.switch(state, State::Running).await?;
            if state.agent.is_some() {
                // The snapshot doesn't depend on it.
                if let Err(e) = self.vm.wake_guest().await {
                    tracing::warn!(vm = %self.vm.id(), "after the pause: {e}");
                }
            }
        }
        self.tell(Moment::Resumed)?;
        let manifest = self.describe(state, drives, parent).await?;
        self.tell(Moment::Whole)?;
        let base = Parent {
            id: manifest.id,
            snapshot_path: self.place.state().to_owned(),
            mem_file_path: self.place.memory().to_owned(),
        };
        let place = self.place.clone();
        blocking(move || claim::publish(&place)).await?;
        state.base = Some(base);
        self.vm.run_dir().write_state(state)?;
        self.tell(Moment::Published)
    }

    fn tell(&self, moment: Moment) -> Result<()> {
        let stopped = self.stop.load(Ordering::Relaxed);
        let told = self.options.watch.as_ref().map(|watch| watch(moment));
        // Once it is published it is there to stay.
        match (stopped, told) {
            _ if moment == Moment::Published => Ok(()),
            (true, _) | (_, Some(ControlFlow::Break(()))) => Err(cancelled()),
            _ => Ok(()),
        }
    }

    /// Written before it is done: whoever finds it paused can resume it.
    async fn switch(&self, state: &mut VmState, to: State) -> Result<()> {
        let wire = match to {
            State::Paused => "Paused",
            _ => "Resumed",
        };
        let request = wire::switch(wire)?;
        if to == State::Paused {
            state.state = to;
            self.vm.run_dir().write_state(state)?;
        }
        self.vm.client().send(&request).await?;
        state.state = to;
        self.vm.run_dir().write_state(state)
    }

    async fn copy_drives(&self, state: &VmState) -> Result<Vec<DriveFile>> {
        let (work, root) = (self.place.work(), self.vm.run_dir().path().to_owned());
        let (spec, paths) = (state.spec.clone(), state.paths.drives.clone());
        let stop = Arc::clone(&self.stop);
        blocking(move || {
            let mut drives = Vec::new();
            for (drive, path) in spec.drives.iter().zip(paths) {
                let name = drive_name(&path).ok_or_else(|| {
                    let message = format!("drive {} is at {path:?}", drive.drive_id);
                    Error::new(ErrorKind::Corrupt, message)
                })?;
                let (from, to) = (root.join(&path), work.join(DRIVES).join(name));
                copy_sparse(&from, &to, &|| stop.load(Ordering::Relaxed))?;
                drives.push(DriveFile {
                    drive_id: drive.drive_id.clone(),
                    read_only: drive.read_only(),
                    path,
                    sum: FileSum {
                        size_bytes: 0,
                        sha256: String::new(),
                    },
                });
            }
            Ok(drives)
        })
        .await
    }

    /// Checksums and the manifest, while the VM runs on.
    async fn describe(
        &self,
        state: &VmState,
        mut drives: Vec<DriveFile>,
        parent: Option<Parent>,
    ) -> Result<Manifest> {
        let (place, kind, state) = (self.place.clone(), self.kind, state.clone());
        let (vm, stop) = (self.vm.id().clone(), Arc::clone(&self.stop));
        blocking(move || {
            let (mut quiet, stopped) = (|_| {}, || stop.load(Ordering::Relaxed));
            let mut work = Work::new(&mut quiet, &stopped);
            let dir = place.work();
            let mut origin = host::Origin::here(&HostFacts::gather(&[]), state.firecracker);
            origin.state_format = host::state_format(&dir.join(STATE))?;
            let mut stamps = Stamps::default();
            for drive in &mut drives {
                let name = drive_name(&drive.path).unwrap_or_default();
                let file = dir.join(DRIVES).join(name);
                drive.sum = sum(&file, &mut work)?;
                stamps.set(&format!("drive {}", drive.drive_id), Stamp::of(&file)?);
            }
            let manifest = Manifest {
                id: uuid::Uuid::new_v4().to_string(),
                vm,
                created_at: crate::teardown::now(),
                kind,
                origin,
                agent: state.agent,
                state: sum(&dir.join(STATE), &mut work)?,
                memory: sum(&place.memory_work(), &mut work)?,
                drives,
                vsock: state.paths.vsock.clone(),
                parent: parent.filter(|_| kind == SnapshotType::Diff),
                spec: state.spec.clone(),
            };
            if let Some(parent) = &manifest.parent {
                usage::add_child(parent, &manifest.id, &place)?;
            }
            stamps.write(&dir)?;
            manifest.write(&dir.join(MANIFEST))?;
            sync_dir(&dir.join(DRIVES))?;
            sync_dir(&dir)?;
            Ok(manifest)
        })
        .await
    }
}

/// What can't be put into a snapshot, found before anything is touched.
fn refuse(state: &VmState, kind: SnapshotType, vm: &str) -> Result<()> {
    for drive in &state.spec.drives {
        if drive.socket.is_some() {
            let message = format!(
                "drive {} of VM {vm} is a vhost-user device: it can't be part of a snapshot",
                drive.drive_id
            );
            return Err(Error::new(ErrorKind::WrongState, message));
        }
    }
    if kind == SnapshotType::Full {
        return Ok(());
    }
    let machine = &state.spec.machine_config;
    if machine.track_dirty_pages != Some(true) {
        let message = format!("VM {vm} doesn't track what changes, so no diff can be made");
        return Err(Error::new(ErrorKind::WrongState, message).hint(
            "make a full snapshot; or start it with machineConfig.trackDirtyPages, or restore \
             it with enableDiffSnapshots",
        ));
    }
    if state.base.is_none() {
        let message = format!("VM {vm} has no snapshot that a diff could build on");
        return Err(Error::new(ErrorKind::WrongState, message).hint("make a full snapshot first"));
    }
    let since = Version::new(1, 15, 0);
    if state.firecracker < since && machine.mem_size_mib > MOST_DIFF_MIB {
        let message = format!(
            "Firecracker {} makes wrong diffs of more than {MOST_DIFF_MIB} MiB of memory",
            state.firecracker
        );
        return Err(Error::new(ErrorKind::Host, message)
            .hint(format!("make a full snapshot, or use Firecracker {since}")));
    }
    Ok(())
}

/// Flushes a file to the disk and computes its checksum.
fn sum(path: &Path, work: &mut Work<'_>) -> Result<FileSum> {
    let file = File::open(path).map_err(|e| Error::io("reading", path, e))?;
    file.sync_all().map_err(|e| Error::io("writing", path, e))?;
    let size = file
        .metadata()
        .map_err(|e| Error::io("looking at", path, e))?
        .len();
    Ok(FileSum {
        size_bytes: size,
        sha256: sha256_of_file(path, work)?,
    })
}
