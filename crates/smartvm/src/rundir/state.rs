//! What is known of a live VM.

use serde::{Deserialize, Serialize};

use super::timeline::Moment;
use super::{RunDir, file};
use crate::error::{Error, ErrorKind, Result};
use crate::firecracker::Version;
use crate::firecracker::model::Paths;
use crate::firecracker::socket::Socket;
use crate::plan::Root;
use crate::process::ProcessId;
use crate::snapshot::{Parent, RestoreOptions};
use crate::spec::{Lifetime, MicroVmSpec, SnapshotLoadParams};
use crate::wiring::{Lease, Move};

/// Where a VM is in its life.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
#[non_exhaustive]
pub enum State {
    /// Described, nothing taken from the host yet.
    Created,
    /// Being started.
    Starting,
    /// Its guest runs.
    Running,
    /// Its guest stands still.
    Paused,
    /// It is ending.
    Stopping,
    /// It ended as asked, or by its guest's will.
    Stopped,
    /// It ended otherwise, or what it held could not be given back.
    Failed,
}

impl std::fmt::Display for State {
    fn fmt(&self, out: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        out.pad(match self {
            Self::Created => "created",
            Self::Starting => "starting",
            Self::Running => "running",
            Self::Paused => "paused",
            Self::Stopping => "stopping",
            Self::Stopped => "stopped",
            Self::Failed => "failed",
        })
    }
}

impl State {
    /// All there are, in the order of a life.
    pub const ALL: [Self; 7] = [
        Self::Created,
        Self::Starting,
        Self::Running,
        Self::Paused,
        Self::Stopping,
        Self::Stopped,
        Self::Failed,
    ];

    /// Refuses an operation that this state doesn't allow.
    pub(crate) fn require(self, allowed: &[Self], doing: &str, vm: &str) -> Result<()> {
        if allowed.contains(&self) {
            return Ok(());
        }
        let names: Vec<_> = allowed.iter().map(Self::to_string).collect();
        Err(Error::new(
            ErrorKind::WrongState,
            format!("{doing} VM {vm}: it is {self}"),
        )
        .hint(format!(
            "this can be done to a VM that is {}",
            names.join(" or ")
        )))
    }
}

/// What a VM was restored from, and how.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Restored {
    /// The snapshot's id; empty for one without a manifest.
    pub id: String,
    /// Its files.
    pub params: SnapshotLoadParams,
    /// How it was asked for.
    pub options: RestoreOptions,
}

/// What is known of a live VM, as its state file has it.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
#[non_exhaustive]
pub struct VmState {
    /// Where it is in its life.
    pub state: State,
    /// The number of the moment since which it is there. A file of format 1 doesn't say.
    #[serde(default, skip_serializing)]
    pub(crate) since: Option<u64>,
    /// When it was made (RFC 3339).
    pub created_at: String,
    /// What was asked for, with absolute paths.
    pub spec: MicroVmSpec,
    /// Who it lives with.
    pub lifetime: Lifetime,
    /// The process that made it.
    pub owner: ProcessId,
    /// Its keeper, once it has one.
    pub keeper: Option<ProcessId>,
    /// Its Firecracker, once it runs.
    pub vmm: Option<ProcessId>,
    /// Firecracker's version.
    pub firecracker: Version,
    /// Where Firecracker finds its files.
    pub paths: Paths,
    /// What its interfaces have of the network.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub leases: Vec<Lease>,
    /// What its guest still has to make of its addresses, as soon as it runs.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub moves: Vec<Move>,
    /// The directory that Firecracker works in; absent: the run dir.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub root: Option<Root>,
    /// The newest version of the agent's protocol that the guest's agent spoke, once it did.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub agent: Option<u32>,
    /// The snapshot that it was restored from.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub origin: Option<Restored>,
    /// The snapshot that the next diff builds on.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub base: Option<Parent>,
}

impl VmState {
    /// The directory that Firecracker works in.
    pub fn root(&self, run_dir: &RunDir) -> Root {
        let of_run_dir = || Root::run_dir(run_dir.path());
        self.root.clone().unwrap_or_else(of_run_dir)
    }

    /// Where its Firecracker's API listens.
    pub(crate) fn api_socket(&self, run_dir: &RunDir) -> Socket {
        match self.root(run_dir) {
            root if root.is_jail() => Socket::in_jail(root.path(), file::API_SOCKET),
            root => Socket::at(root.file(file::API_SOCKET)),
        }
    }

    /// Where its vsock device listens, if it has one.
    pub(crate) fn vsock_socket(&self, run_dir: &RunDir) -> Option<Socket> {
        let vsock = self.spec.vsock.as_ref()?;
        Some(match (self.root(run_dir), &self.paths.vsock) {
            (root, Some(way)) if root.is_jail() => Socket::in_jail(root.path(), way),
            _ => Socket::at(&vsock.uds_path),
        })
    }

    /// Whether its guest runs, and may have an agent that nobody asked yet. One without an
    /// initramfs hardly has one, and would only be waited for in vain.
    pub(crate) fn may_have_unseen_agent(&self) -> bool {
        let may_have = self.spec.boot_source.initrd_path.is_some();
        self.state == State::Running && self.agent.is_none() && may_have
    }

    /// Whether its Firecracker is jailed.
    pub fn jailed(&self) -> bool {
        self.root.as_ref().is_some_and(Root::is_jail)
    }

    /// What a file says of it, which was written before it came to its last moment, or after.
    pub(super) fn at(mut self, last: Option<&Moment>) -> Self {
        if let (Some(since), Some(last)) = (self.since, last)
            && last.number > since
        {
            (self.state, self.since) = (last.state, Some(last.number));
        }
        self
    }
}
