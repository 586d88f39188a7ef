//! Firecracker as the keeper's child.

use std::fs::{File, OpenOptions};
use std::io::{Read, Write};
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;
use std::process::{Child, Command};
use std::time::Duration;

use rustix::fs::OFlags;
use rustix::process::{Signal, WaitId, WaitIdOptions};

use super::console_copy::ConsoleCopy;
use super::ring::Ring;
use super::{Launch, Pump};
use crate::durable::read_bounded;
use crate::error::{Error, ErrorKind, Result};
use crate::firecracker::exit::Ended;
use crate::jail;
use crate::process::{PidFd, ProcessId};
use crate::rundir::{RunDir, file};

/// What is kept of the guest's output, in bytes.
const CONSOLE_BYTES: u64 = 256 << 10;
/// What is kept of Firecracker's own output, in bytes.
const VMM_LOG_BYTES: u64 = 64 << 10;
/// How long a jailer may take until it has started Firecracker and ended.
const JAILER_PATIENCE: Duration = Duration::from_secs(20);

/// A running Firecracker, with the ends of its streams.
pub(super) struct Vmm {
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
    into: Sink,
    pub(super) open: bool,
    /// Whether it is what Firecracker logs: nobody waits for it.
    pub(super) is_log: bool,
}

/// Where a stream goes.
enum Sink {
    /// One of the VM's logs.
    Log(usize),
    /// A file of the user's.
    File(File),
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
    /// Starts it in its root. Its pipes there were made by steps before.
    pub(super) fn spawn(run_dir: &RunDir, launch: &Launch, logs: &mut Logs) -> Result<Self> {
        let failed = |e: std::io::Error| Error::io("starting", &launch.executable, e);
        let console_in = pipe_at(&run_dir.file(file::CONSOLE_IN))?;
        let (stdout, stdout_writer) = std::io::pipe().map_err(failed)?;
        let (stderr, stderr_writer) = std::io::pipe().map_err(failed)?;
        let mut drains = vec![
            drain(stdout.into(), Sink::Log(CONSOLE))?,
            drain(stderr.into(), Sink::Log(VMM_LOG))?,
        ];
        let log = launch.directory.join(file::VMM_LOG_IN);
        drains.push(Drain {
            is_log: true,
            ..drain(pipe_at(&log)?.into(), Sink::Log(VMM_LOG))?
        });
        for Pump { pipe, file } in &launch.pumps {
            let from = pipe_at(&launch.directory.join(pipe))?;
            drains.push(drain(from.into(), Sink::File(users_file(file)?))?);
        }
        let mut command = Command::new(&launch.executable);
        command
            .args(&launch.args)
            .env_clear()
            .stdin(console_in.try_clone().map_err(failed)?)
            .stdout(OwnedFd::from(stdout_writer))
            .stderr(OwnedFd::from(stderr_writer));
        let child = spawn_in(&mut command, &launch.directory).map_err(failed)?;
        // Its ends of the pipes are closed here, so that a stream ends with its writers.
        drop(command);
        let mut vmm = Self::adopt(child, launch, drains, console_in, logs)?;
        if let Some(cgroup) = &launch.cgroup
            && let Err(e) = jail::enter_cgroup(cgroup, vmm.process.pid)
        {
            vmm.kill()?;
            vmm.finish(logs)?;
            return Err(e);
        }
        Ok(vmm)
    }

    /// Finds out which process Firecracker is: the child, or the one that its jailer started.
    fn adopt(
        mut child: Child,
        launch: &Launch,
        mut drains: Vec<Drain>,
        console_in: File,
        logs: &mut Logs,
    ) -> Result<Self> {
        let started = ProcessId::of(child.id())?;
        let pidfd = match &started {
            Some(process) => process.open()?,
            None => None,
        };
        let program = launch.executable.display();
        let (process, pidfd) = match (started, pidfd, &launch.pid_file) {
            (Some(process), Some(pidfd), None) => (process, pidfd),
            (_, _, None) => {
                let status = child
                    .wait()
                    .map_err(|e| Error::io("awaiting", &launch.executable, e));
                let message = format!("{program} ended at once: {}", status?);
                return Err(Error::new(ErrorKind::Host, message));
            }
            (_, pidfd, Some(pid_file)) => {
                // What it does after the fork is in its cgroup as well.
                if let (Some(cgroup), Some(_)) = (&launch.cgroup, &pidfd) {
                    jail::enter_cgroup(cgroup, child.id())?;
                }
                if let Some(pidfd) = pidfd
                    && !pidfd.wait(JAILER_PATIENCE)?
                {
                    pidfd.signal(Signal::KILL)?;
                }
                let status = child
                    .wait()
                    .map_err(|e| Error::io("awaiting", &launch.executable, e))?;
                for drain in &mut drains {
                    drain.pump(logs);
                }
                let failed = |what: &str| {
                    let message = format!("{program} started no Firecracker ({status}): {what}");
                    Error::new(ErrorKind::Host, message)
                };
                if !status.success() {
                    return Err(failed("its words are in the VM's log"));
                }
                let pid = read_bounded(pid_file, 32)?.unwrap_or_default();
                let pid = String::from_utf8_lossy(&pid);
                let pid = pid.trim().parse().map_err(|_| failed("it told no pid"))?;
                let gone = || failed("it ended at once");
                let process = ProcessId::of(pid)?.ok_or_else(gone)?;
                let pidfd = process.open()?.ok_or_else(gone)?;
                // Whoever wrote it, it must be a process that was left to this one.
                let looking = WaitIdOptions::EXITED | WaitIdOptions::NOHANG | WaitIdOptions::NOWAIT;
                if rustix::process::waitid(WaitId::PidFd(pidfd.as_fd()), looking).is_err() {
                    return Err(failed("it told the pid of somebody else's process"));
                }
                (process, pidfd)
            }
        };
        Ok(Self {
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
        let failed = |e: rustix::io::Errno| {
            Error::new(ErrorKind::Io, "waiting for Firecracker").because(std::io::Error::from(e))
        };
        // Not by `Child`: a jailer's Firecracker is this process's by adoption.
        let status = loop {
            let process = WaitId::PidFd(self.pidfd.as_fd());
            match rustix::process::waitid(process, WaitIdOptions::EXITED) {
                Err(rustix::io::Errno::INTR) => {}
                done => break done.map_err(failed)?,
            }
        };
        for drain in &mut self.drains {
            drain.pump(logs);
        }
        let byte = |number: i32| u8::try_from(number).unwrap_or(u8::MAX);
        Ok(
            match status.map(|it| (it.exit_status(), it.terminating_signal())) {
                Some((Some(code), _)) => Ended::Exited(byte(code)),
                Some((None, Some(signal))) => Ended::Killed(byte(signal)),
                _ => Ended::Unseen,
            },
        )
    }
}

impl Drain {
    /// Whether to look what comes, while the log waits for so long.
    pub(super) fn watched(&self, log_waits: Option<Duration>) -> bool {
        self.open && !(self.is_log && log_waits.is_some())
    }

    /// Moves what can be read now into its log, a bounded amount at a time.
    pub(super) fn pump(&mut self, logs: &mut Logs) {
        let mut buffer = [0; 16 << 10];
        for _ in 0..64 {
            match self.from.read(&mut buffer) {
                Ok(0) => {
                    self.open = false;
                    return;
                }
                Ok(length) => match &mut self.into {
                    Sink::Log(log) => logs.write(*log, &buffer[..length]),
                    Sink::File(file) => {
                        if let Err(e) = file.write_all(&buffer[..length]) {
                            tracing::warn!("the user's file: {e}");
                        }
                    }
                },
                Err(e) if e.kind() == std::io::ErrorKind::Interrupted => {}
                Err(_) => return,
            }
        }
    }
}

/// Starts it in this directory. The keeper goes there itself, and back again: a command that is
/// told its directory is started by the slower way, a fork.
fn spawn_in(command: &mut Command, directory: &Path) -> std::io::Result<Child> {
    rustix::process::chdir(directory)?;
    let child = command.spawn();
    rustix::process::chdir("/")?;
    child
}

/// Opened for both, a FIFO neither blocks nor ever ends.
fn pipe_at(path: &Path) -> Result<File> {
    OpenOptions::new()
        .read(true)
        .write(true)
        .open(path)
        .map_err(|e| Error::io("opening", path, e))
}

/// A file or FIFO of the user's; one that takes no more loses what comes.
fn users_file(path: &Path) -> Result<File> {
    OpenOptions::new()
        .read(true)
        .append(true)
        .custom_flags(OFlags::NONBLOCK.bits() as i32)
        .open(path)
        .map_err(|e| Error::io("opening", path, e))
}

fn drain(from: OwnedFd, into: Sink) -> Result<Drain> {
    rustix::io::ioctl_fionbio(&from, true).map_err(|e| {
        Error::new(ErrorKind::Io, "preparing a pipe").because(std::io::Error::from(e))
    })?;
    Ok(Drain {
        from: from.into(),
        into,
        open: true,
        is_log: false,
    })
}
