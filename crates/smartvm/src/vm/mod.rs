//! The handle of one microVM.
//!
//! ```text
//! created ─start─▶ starting ─▶ running ◀─pause/resume─▶ paused
//!    │                │            │                       │
//!    └──────────── stop, an end of its own, a failure ─────┘
//!                             │
//!                         stopping ─▶ stopped | failed   (only its record stays)
//! ```
//! What may be done in which state: [`Operation`](crate::rundir::Operation). Operations on one VM
//! are ordered by its lock, among threads and processes alike; who waits in vain is told who
//! holds it.
//!
//! Any process can make a handle of any VM. Only the one that started a VM with lifetime
//! `owner` owns it: when that handle goes, the VM ends.

mod correct;
mod finish;
mod held;
mod kept;
mod metadata;
mod options;
mod start;
mod stats;
mod stop;
mod swap;
mod switch;
mod update;
mod wake;

use std::time::Duration;

pub(crate) use correct::correct;
pub use options::{Event, StartOptions, Watch};
pub(crate) use start::CancelOnDrop;
pub use stats::{Stats, VmmUsage};
pub use stop::{StopMode, stop_all};
pub use update::{Change, Direction};
pub(crate) use wake::AGENT_PATIENCE;

use self::held::Held;
use self::kept::Kept;
use crate::agent::Agent;
use crate::descriptor;
use crate::error::{Error, ErrorKind, Result};
use crate::firecracker::Client;
use crate::firecracker::socket::Socket;
use crate::keeper::{Keepers, Link, Starting};
use crate::name::VmId;
use crate::network::Network;
use crate::plan::Plan;
use crate::process::ProcessId;
use crate::rundir::{Ended, RunDir, State, VmState, file};
use crate::snapshot::Shelf;

/// How long an operation waits for another one on the same VM.
const LOCK_PATIENCE: Duration = Duration::from_secs(10);

/// A handle of one microVM.
///
/// ```no_run
/// use std::time::Duration;
///
/// use smartvm::MicroVm;
/// use smartvm::agent::Command;
/// use smartvm::vm::{Change, StartOptions, StopMode};
///
/// # async fn example(mut vm: MicroVm) -> smartvm::Result<()> {
/// vm.start(&StartOptions::default()).await?;
/// let agent = vm.agent()?;
/// agent.wait_ready(Duration::from_secs(30)).await?;
/// let session = agent.exec(&Command::from_argv(["uname", "-r"])).await?;
/// let output = session.output(b"", 4096).await?;
/// println!("{}", String::from_utf8_lossy(&output.stdout));
///
/// vm.update(Change::Balloon { amount_mib: 64 }).await?;
/// vm.set_metadata(&serde_json::json!({ "role": "web" })).await?;
/// println!("{} bytes in use", vm.stats().await?.vmm.resident_bytes);
///
/// let ended = vm.stop(StopMode::Graceful(Duration::from_secs(10))).await?;
/// println!("{} at {}", ended.reason, ended.ended_at);
/// # Ok(())
/// # }
/// ```
#[derive(Debug)]
pub struct MicroVm {
    run_dir: RunDir,
    keepers: Keepers,
    pub(crate) network: Network,
    /// Where its snapshots are found again.
    pub(crate) shelf: Shelf,
    /// What its start will do, while it is only created.
    plan: Option<Plan>,
    /// Its keeper to be, where its start has begun already.
    keeper: Option<Starting>,
    link: Option<Link>,
    kept: Kept,
}

impl MicroVm {
    pub(crate) fn created(
        run_dir: RunDir,
        keepers: Keepers,
        network: Network,
        shelf: Shelf,
        plan: Plan,
    ) -> Self {
        Self {
            run_dir,
            keepers,
            network,
            shelf,
            plan: Some(plan),
            keeper: None,
            link: None,
            kept: Kept::default(),
        }
    }

    /// A VM that was made while its keeper started, if that was begun; without a VM, the keeper
    /// is ended again.
    pub(crate) async fn with_keeper(made: Result<Self>, keeper: Option<Starting>) -> Result<Self> {
        match (made, keeper) {
            (Ok(vm), keeper) => Ok(Self { keeper, ..vm }),
            (Err(e), Some(keeper)) => Err(e.with_cleanup(keeper.end().await.err())),
            (Err(e), None) => Err(e),
        }
    }

    pub(crate) fn existing(
        run_dir: RunDir,
        keepers: Keepers,
        network: Network,
        shelf: Shelf,
    ) -> Self {
        Self {
            run_dir,
            keepers,
            network,
            shelf,
            plan: None,
            keeper: None,
            link: None,
            kept: Kept::default(),
        }
    }

    /// Another handle of it, which doesn't own it.
    pub(crate) fn another(&self) -> Self {
        Self::existing(
            self.run_dir.clone(),
            self.keepers.clone(),
            self.network.clone(),
            self.shelf.clone(),
        )
    }

    /// Its id.
    pub fn id(&self) -> &VmId {
        self.run_dir.id()
    }

    /// Its directory.
    pub fn run_dir(&self) -> &RunDir {
        &self.run_dir
    }

    /// What is known of it.
    ///
    /// # Errors
    /// [`ErrorKind::NotFound`] when it has ended.
    pub fn state(&self) -> Result<VmState> {
        if self.run_dir.path().symlink_metadata().is_err() {
            return Err(gone(self.id()));
        }
        self.run_dir.state()
    }

    /// A client of its Firecracker's API.
    pub fn client(&self) -> Client {
        Client::over(match self.run_dir.state() {
            Ok(state) => state.api_socket(&self.run_dir),
            Err(_) => Socket::at(self.run_dir.file(file::API_SOCKET)),
        })
    }

    /// The agent in its guest. Whether there is one shows when it is asked something.
    pub fn agent(&self) -> Result<Agent> {
        let socket = self.state()?.vsock_socket(&self.run_dir);
        let none = || {
            let message = format!(
                "VM {} has no vsock device, so no agent can be reached",
                self.id()
            );
            Error::new(ErrorKind::Guest, message)
        };
        socket.map(Agent::over).ok_or_else(none)
    }

    /// Waits until it has ended and given everything back, at most `patience`; returns its
    /// record.
    ///
    /// # Errors
    /// [`ErrorKind::Timeout`] when it still lives; [`ErrorKind::WrongState`] when it was never
    /// started, or its keeper was killed, so that nothing will end.
    pub async fn wait(&self, patience: Option<Duration>) -> Result<Ended> {
        let state = match self.state() {
            Ok(state) => state,
            Err(e) if e.kind() == ErrorKind::NotFound => return self.record(),
            Err(e) => return Err(e),
        };
        let Some(keeper) = state.keeper else {
            return Err(Error::new(
                ErrorKind::WrongState,
                format!("waiting for VM {}: it is {}", self.id(), state.state),
            )
            .hint("start it first"));
        };
        if !process_ended(&keeper, patience).await? {
            return Err(Error::new(
                ErrorKind::Timeout,
                format!("VM {} still runs after {patience:?}", self.id()),
            ));
        }
        if self.run_dir.path().symlink_metadata().is_ok() {
            let left = self.state()?;
            if left.state == State::Failed {
                return self.record();
            }
            return Err(Error::new(
                ErrorKind::WrongState,
                format!(
                    "the keeper of VM {} is gone without having cleaned up",
                    self.id()
                ),
            )
            .hint("`smartvm gc` does its work"));
        }
        self.record()
    }

    fn record(&self) -> Result<Ended> {
        self.run_dir.records().get(self.id())
    }
}

pub(crate) fn gone(id: &VmId) -> Error {
    Error::new(ErrorKind::NotFound, format!("VM {id} has ended"))
        .hint(format!("`smartvm inspect {id}` shows how"))
}

/// Runs file work on a thread where it may block.
pub(crate) async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> Result<T> + Send + 'static,
) -> Result<T> {
    match tokio::task::spawn_blocking(work).await {
        Ok(done) => done,
        Err(e) => Err(Error::new(ErrorKind::Io, "a worker thread failed").because(e)),
    }
}

/// Runs work on a VM's own files: on the spot where they are held in memory, as waking another
/// thread takes longer than the work.
pub(crate) async fn with_files<T: Send + 'static>(
    run_dir: &RunDir,
    work: impl FnOnce() -> Result<T> + Send + 'static,
) -> Result<T> {
    match run_dir.in_memory() {
        true => work(),
        false => blocking(work).await,
    }
}

/// Waits for the end of any process; `false` if it still runs after `patience`.
pub(crate) async fn process_ended(process: &ProcessId, patience: Option<Duration>) -> Result<bool> {
    let Some(pidfd) = process.open()? else {
        return Ok(true);
    };
    let failed = |e: std::io::Error| {
        Error::new(
            ErrorKind::Io,
            format!("waiting for process {}", process.pid),
        )
        .because(e)
    };
    let pidfd = descriptor::readable(pidfd).map_err(failed)?;
    match patience {
        None => pidfd.readable().await.map(|_| true).map_err(failed),
        Some(patience) => match tokio::time::timeout(patience, pidfd.readable()).await {
            Ok(ended) => ended.map(|_| true).map_err(failed),
            Err(_) => Ok(false),
        },
    }
}
