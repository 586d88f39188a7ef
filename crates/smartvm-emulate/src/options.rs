//! What the caller may choose.

use std::path::PathBuf;
use std::thread;
use std::time::Duration;

/// More processors than this make emulation slower, not faster.
const MOST_CPUS: u32 = 4;

/// Memory of the emulated host, in MiB: QEMU takes what is used of it only.
const MEMORY_MIB: u32 = 6144;

/// What runs in the emulated host, and how that is made.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub struct Options {
    /// The command and its arguments.
    pub command: Vec<String>,
    /// Directories in which the command's changes are real. Everywhere else they are lost.
    pub write: Vec<PathBuf>,
    /// The deadline for all of it, the start of the emulated host included.
    pub timeout: Option<Duration>,
    /// Processors: 1 to 255. By default those of this machine, at most four.
    pub cpus: u32,
    /// Memory in MiB: at least 256, by default 6144. Half of it is what the command may write to disk.
    pub memory_mib: u32,
    /// A directory with `boot/vmlinuz-RELEASE` and `lib/modules/RELEASE`. By default
    /// what `cargo xtask setup` fetched, or this machine's own.
    pub kernel: Option<PathBuf>,
    /// The guest agent's program. By default the one beside this program, or on `PATH`.
    pub agent: Option<PathBuf>,
}

impl Options {
    /// The defaults, for this command.
    pub fn new(command: impl IntoIterator<Item = impl Into<String>>) -> Self {
        let cpus = thread::available_parallelism().map_or(1, |cpus| cpus.get());
        Self {
            command: command.into_iter().map(Into::into).collect(),
            write: Vec::new(),
            timeout: None,
            cpus: u32::try_from(cpus).unwrap_or(MOST_CPUS).min(MOST_CPUS),
            memory_mib: MEMORY_MIB,
            kernel: None,
            agent: None,
        }
    }
}
