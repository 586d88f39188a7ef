//! Firecracker as the keeper's child.

use std::fs::{File, OpenOptions};
use std::io::Read;
use std::os::fd::OwnedFd;
use std::os::unix::process::ExitStatusExt;
use std::path::Path;
use std::process::{Child, Command};

use rustix::process::Signal;

use super::console_copy::ConsoleCopy;
use super::ring::Ring;
use crate::error::{Error, ErrorKind, Result};
use crate::firecracker::exit::Ended;
use crate::process::{PidFd, ProcessId};
use crate::rundir::{RunDir, file};

/// What is kept of the guest's output, in bytes.
const CONSOLE_BYTES: u64 = 256 << 10;
/// What is kept of Firecracker's own output, in bytes.
const VMM_LOG_BYTES: u64 = 64 << 10;

/// A running Firecracker, with the ends of its streams.
pub(super) struct Vmm {
    child: Child,
    process: ProcessId,
    /// Readable when Firecracker has ended.
    pub(super) pidfd: PidFd,
    /// Stream and log of: the console, standard error, the log pipe.
    pub(super) drains: Vec<Drain>,
    /// Held open for writing, so that the guest's console never sees an end of file.
    _console_in: File,
}

/// A stream of Firecracker's, and the log that keeps it.
pub(super) struct Drain {
    pub(super) from: File,
    into: usize,
    pub(super) open: bool,
}

/// The logs of one VM.
pub(super) struct Logs {
    kept: [Ring; 2],
    /// The user's copy of the console.
    copy: Option<ConsoleCopy>,
}

const CONSOLE: usize = 0;
const VMM_LOG: usize = 1;

impl Logs {
    pub(super) fn open(run_dir: &RunDir) -> Result<Self> {
        Ok(Self {
            kept: [
                Ring::open(&run_dir.file(file::CONSOLE), CONSOLE_BYTES)?,
                Ring::open(&run_dir.file(file::VMM_LOG), VMM_LOG_BYTES)?,
            ],
            copy: None,
        })
    }

    /// Copies the console to the user's file from now on, where the VM's spec names one.
    pub(super) fn copy_console(&mut self, run_dir: &RunDir) -> Result<()> {
        if let Some(serial) = run_dir.state()?.spec.serial {
            self.copy = Some(ConsoleCopy::open(&serial.path)?);
        }
        Ok(())
    }

    /// A log or copy that can't be written (a full disk) must not end the VM.
    fn write(&mut self, into: usize, bytes: &[u8]) {
        if let Err(e) = self.kept[into].write(bytes) {
            tracing::warn!("keeping output: {e}");
        }
        if let (CONSOLE, Some(copy)) = (into, &mut self.copy) {
            copy.write(bytes);
        }
    }
}

impl Vmm {
    /// Starts it in the run dir. Its pipes there were made by steps before.
    pub(super) fn spawn(run_dir: &RunDir, executable: &Path, args: &[String]) -> Result<Self> {
        let failed = |e: std::io::Error| Error::io("starting", executable, e);
        let pipe_at = |name: &str| {
            let path = run_dir.file(name);
            // Opened for both, a FIFO neither blocks nor ever ends.
            let mut options = OpenOptions::new();
            options
                .read(true)
                .write(true)
                .open(&path)
                .map_err(|e| Error::io("opening", path, e))
        };
        let console_in = pipe_at(file::CONSOLE_IN)?;
        let log = pipe_at(file::VMM_LOG_IN)?;
        let (stdout, stdout_writer) = std::io::pipe().map_err(failed)?;
        let (stderr, stderr_writer) = std::io::pipe().map_err(failed)?;
        let stdin = console_in.try_clone().map_err(failed)?;
        let mut child = Command::new(executable)
            .args(args)
            .env_clear()
            .current_dir(run_dir.path())
            .stdin(stdin)
            .stdout(OwnedFd::from(stdout_writer))
            .stderr(OwnedFd::from(stderr_writer))
            .spawn()
            .map_err(failed)?;
        let ended_at_once = |child: &mut Child| {
            let status = child.wait().map_err(failed)?;
            let message = format!("{} ended at once: {status}", executable.display());
            Err(Error::new(ErrorKind::Host, message))
        };
        let Some(process) = ProcessId::of(child.id())? else {
            return ended_at_once(&mut child);
        };
        let Some(pidfd) = process.open()? else {
            return ended_at_once(&mut child);
        };
        let drain = |from: OwnedFd, into| -> Result<Drain> {
            rustix::io::ioctl_fionbio(&from, true).map_err(|e| failed(e.into()))?;
            Ok(Drain {
                from: from.into(),
                into,
                open: true,
            })
        };
        let drains = vec![
            drain(stdout.into(), CONSOLE)?,
            drain(stderr.into(), VMM_LOG)?,
            drain(log.into(), VMM_LOG)?,
        ];
        Ok(Self {
            child,
            process,
            pidfd,
            drains,
            _console_in: console_in,
        })
    }

    pub(super) fn process(&self) -> &ProcessId {
        &self.process
    }

    /// Kills it, and waits until it is dead.
    pub(super) fn kill(&self) -> Result<()> {
        self.pidfd.signal(Signal::KILL).map(drop)
    }

    /// Takes what is left in its streams and how it ended. Blocks until it has.
    pub(super) fn finish(&mut self, logs: &mut Logs) -> Result<Ended> {
        let status = self
            .child
            .wait()
            .map_err(|e| Error::new(ErrorKind::Io, "waiting for Firecracker").because(e))?;
        for drain in &mut self.drains {
            drain.pump(logs);
        }
        Ok(match (status.code(), status.signal()) {
            (Some(code), _) => Ended::Exited(u8::try_from(code).unwrap_or(u8::MAX)),
            (None, Some(signal)) => Ended::Killed(u8::try_from(signal).unwrap_or(u8::MAX)),
            (None, None) => Ended::Unseen,
        })
    }
}

impl Drain {
    /// Moves what can be read now into its log, a bounded amount at a time.
    pub(super) fn pump(&mut self, logs: &mut Logs) {
        let mut buffer = [0; 16 << 10];
        for _ in 0..64 {
            match self.from.read(&mut buffer) {
                Ok(0) => {
                    self.open = false;
                    return;
                }
                Ok(length) => logs.write(self.into, &buffer[..length]),
                Err(e) if e.kind() == std::io::ErrorKind::Interrupted => {}
                Err(_) => return,
            }
        }
    }
}
