//! The small process that looks after one VM.
//!
//! It is the parent of the VM's Firecracker: drains the console into a bounded ring,
//! notices the end, enforces the time limit, and plays the ledger backwards. It holds a
//! socket from the process that made the VM; when that closes, also by `SIGKILL`, a VM with
//! lifetime `owner` ends, and a `detached` one that runs lives on.
//!
//! It is told which VM is its own only when that is started: its program loads while the VM is
//! still being made. A keeper that was told nothing ends with its owner.

mod console_copy;
mod inbox;
mod keepers;
mod link;
mod process;
mod rest;
pub mod ring;
mod signals;
mod starting;
mod vmm;

use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

pub(crate) use keepers::Keepers;
pub use link::Link;
pub use process::run;
pub(crate) use starting::Starting;

use crate::error::{Error, ErrorKind, Result};
use crate::process::ProcessId;

/// The hidden verb by which the `smartvm` binary becomes a keeper.
pub const VERB: &str = "keeper";
/// The version of what owner and keeper say to each other.
pub const PROTOCOL: u32 = 4;
/// What one message may have at most, in bytes.
const MOST_MESSAGE_BYTES: usize = 256 << 10;

/// How a Firecracker is started, by itself or by its jailer.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Launch {
    pub(crate) executable: PathBuf,
    pub(crate) args: Vec<String>,
    /// Its root: its working directory, and where its pipes are.
    pub(crate) directory: PathBuf,
    /// The cgroup that it is put into.
    pub(crate) cgroup: Option<PathBuf>,
    /// Where its pid is told, if it isn't the process that is started.
    pub(crate) pid_file: Option<PathBuf>,
    pub(crate) pumps: Vec<Pump>,
}

/// A pipe that Firecracker writes to, and the user's file that its content goes to: the
/// jailed Firecracker itself has no right to that file.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Pump {
    /// The pipe's name in Firecracker's root.
    pub pipe: String,
    /// The file, appended to.
    pub file: PathBuf,
}

/// What an owner asks of a keeper.
#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", rename_all_fields = "camelCase")]
enum Request {
    /// Look after the VM in this run dir: the first thing that is said.
    Keep { run_dir: PathBuf },
    /// Start Firecracker.
    SpawnVmm {
        launch: Launch,
        max_runtime_s: Option<u64>,
    },
    /// The VM runs: from now on it doesn't need its owner.
    Detach,
    /// The start failed: end what there is.
    Abandon { why: String },
}

/// What a keeper answers.
#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", rename_all_fields = "camelCase")]
enum Reply {
    Spawned {
        process: ProcessId,
    },
    Detached,
    Failed {
        message: String,
        /// What to do about it.
        #[serde(default)]
        hint: Option<String>,
    },
}

/// Where the keeper's executable is: as given, else `smartvm` beside the current
/// executable (or beside the directory of test executables), else on PATH.
pub fn find(explicit: Option<&Path>) -> Result<PathBuf> {
    const NAME: &str = "smartvm";
    if let Some(path) = explicit {
        return path
            .canonicalize()
            .map_err(|e| Error::io("finding the keeper", path, e));
    }
    let beside = std::env::current_exe().ok().into_iter().flat_map(|exe| {
        exe.ancestors()
            .skip(1)
            .take(2)
            .map(|dir| dir.join(NAME))
            .collect::<Vec<_>>()
    });
    let path = std::env::var_os("PATH").unwrap_or_default();
    let on_path = std::env::split_paths(&path)
        .map(|dir| dir.join(NAME))
        .collect::<Vec<_>>();
    beside
        .chain(on_path)
        .find(|candidate| candidate.is_file())
        .ok_or_else(|| {
            Error::new(
                ErrorKind::Host,
                "the smartvm executable, which keeps VMs, was not found",
            )
            .hint("install it beside this program or on PATH, or name it in the options")
        })
}
