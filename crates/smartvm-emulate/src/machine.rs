//! QEMU's process: started with what it needs as open files, and never outliving us.

#[cfg(test)]
mod tests;

use std::collections::VecDeque;
use std::io::{self, Read, Write};
use std::os::fd::{AsRawFd, BorrowedFd, OwnedFd, RawFd};
use std::os::unix::process::CommandExt;
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::{Arc, Mutex, PoisonError, mpsc};
use std::thread::{self, JoinHandle};

use rustix::fs::MemfdFlags;
use rustix::io::FdFlags;
use rustix::process::{Pid, PidfdFlags, Signal};
use smartvm::{Error, ErrorKind, Result};
use tokio::sync::oneshot;

use crate::last_words::LastWords;
use crate::qemu::{Inherited, PROGRAM, Qemu};

/// How much is kept of what the console and QEMU said last, in bytes.
const TAIL: usize = 4096;

/// A running QEMU. It ends when this is dropped, when [`Machine::start`]'s thread ends, or
/// when this process does.
#[derive(Debug)]
pub(crate) struct Machine {
    pidfd: OwnedFd,
    ended: Option<oneshot::Receiver<io::Result<ExitStatus>>>,
    tail: Arc<Mutex<VecDeque<u8>>>,
    keeper: Option<JoinHandle<()>>,
}

impl Machine {
    /// Starts QEMU. `port` is the other end of the agent's stream.
    pub(crate) fn start(
        qemu: &Qemu<'_>,
        vmlinux: &[u8],
        initramfs: &[u8],
        port: OwnedFd,
    ) -> Result<Self> {
        let files = in_memory(vmlinux).and_then(|vmlinux| Ok((vmlinux, in_memory(initramfs)?)));
        let (vmlinux, initramfs) = files.map_err(|cause| {
            Error::new(ErrorKind::Host, "keeping files for QEMU in memory").because(cause)
        })?;
        let arguments = qemu.arguments(Inherited {
            vmlinux: vmlinux.as_raw_fd(),
            initramfs: initramfs.as_raw_fd(),
            port: port.as_raw_fd(),
        })?;
        let mut command = Command::new(PROGRAM);
        command.args(arguments);
        Self::run(command, vec![vmlinux, initramfs, port])
    }

    /// Runs a program that gets `files` under the numbers they have here.
    fn run(mut command: Command, files: Vec<OwnedFd>) -> Result<Self> {
        command
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped());
        inherit(&mut command, &files);
        let tail = Arc::new(Mutex::new(VecDeque::new()));
        let (started, start) = mpsc::channel();
        let (over, ended) = oneshot::channel();
        let keep = Arc::clone(&tail);
        // QEMU is to end with the thread that starts it: so that is one of its own, which
        // waits for QEMU and nothing else.
        let keeper = thread::spawn(move || {
            let child = spawn(&mut command);
            // QEMU has them now.
            drop((command, files));
            match child {
                Ok((child, pidfd)) => {
                    let _ = started.send(Ok(pidfd));
                    let _ = over.send(wait(child, &keep));
                }
                Err(error) => {
                    let _ = started.send(Err(error));
                }
            }
        });
        let pidfd = match start.recv() {
            Ok(Ok(pidfd)) => pidfd,
            Ok(Err(cause)) => return Err(not_started(cause)),
            Err(cause) => return Err(not_started(io::Error::other(cause))),
        };
        Ok(Self {
            pidfd,
            ended: Some(ended),
            tail,
            keeper: Some(keeper),
        })
    }

    /// Waits until QEMU has ended, and tells how. It has told everything the second time: that
    /// never comes.
    pub(crate) async fn ended(&mut self) -> Error {
        let Some(ended) = &mut self.ended else {
            return std::future::pending().await;
        };
        let status = ended.await;
        self.ended = None;
        let how = match status {
            Ok(Ok(status)) => status.to_string(),
            Ok(Err(error)) => error.to_string(),
            Err(_) => "its thread ended".to_owned(),
        };
        Error::new(ErrorKind::Vmm, format!("{PROGRAM} ended: {how}"))
    }

    /// What the console and QEMU said last.
    pub(crate) fn last_words(&self) -> LastWords {
        let tail = self.tail.lock().unwrap_or_else(PoisonError::into_inner);
        LastWords::of(tail.as_slices())
    }
}

impl Drop for Machine {
    fn drop(&mut self) {
        // It may have ended already.
        let _ = rustix::process::pidfd_send_signal(&self.pidfd, Signal::KILL);
        if let Some(keeper) = self.keeper.take() {
            let _ = keeper.join();
        }
    }
}

fn not_started(cause: io::Error) -> Error {
    let error = Error::new(ErrorKind::Host, format!("starting {PROGRAM}"));
    match cause.kind() {
        io::ErrorKind::NotFound => error
            .hint("install QEMU as root: apt-get install --no-install-recommends qemu-system-x86"),
        _ => error,
    }
    .because(cause)
}

/// Starts it, and has it by the hand or not at all.
fn spawn(command: &mut Command) -> io::Result<(Child, OwnedFd)> {
    let mut child = command.spawn()?;
    match rustix::process::pidfd_open(Pid::from_child(&child), PidfdFlags::empty()) {
        Ok(pidfd) => Ok((child, pidfd)),
        Err(error) => {
            child.kill()?;
            child.wait()?;
            Err(error.into())
        }
    }
}

/// Collects what QEMU says until it ends.
fn wait(mut child: Child, tail: &Arc<Mutex<VecDeque<u8>>>) -> io::Result<ExitStatus> {
    let (stdout, stderr) = (child.stdout.take(), child.stderr.take());
    thread::scope(|scope| {
        scope.spawn(|| stdout.map(|stream| collect(stream, tail)));
        scope.spawn(|| stderr.map(|stream| collect(stream, tail)));
        child.wait()
    })
}

fn collect(mut stream: impl Read, tail: &Mutex<VecDeque<u8>>) {
    let mut chunk = [0; 1024];
    while let Ok(length @ 1..) = stream.read(&mut chunk) {
        let mut tail = tail.lock().unwrap_or_else(PoisonError::into_inner);
        tail.extend(&chunk[..length]);
        let excess = tail.len().saturating_sub(TAIL);
        tail.drain(..excess);
    }
}

/// A file without a name: nobody has to remove it.
fn in_memory(bytes: &[u8]) -> io::Result<OwnedFd> {
    let fd = rustix::fs::memfd_create("smartvm", MemfdFlags::CLOEXEC)?;
    let mut file = std::fs::File::from(fd);
    file.write_all(bytes)?;
    Ok(file.into())
}

/// Lets the child have these files, and end when the thread that starts it ends.
fn inherit(command: &mut Command, files: &[OwnedFd]) {
    let parent = rustix::process::getpid();
    let files: Vec<RawFd> = files.iter().map(OwnedFd::as_raw_fd).collect();
    let prepare = move || {
        rustix::process::set_parent_process_death_signal(Some(Signal::KILL))?;
        // It may have ended before that was said.
        if rustix::process::getppid() != Some(parent) {
            return Err(io::Error::from(rustix::io::Errno::SRCH));
        }
        for fd in &files {
            // SAFETY: the caller keeps them open until the child has been started.
            let fd = unsafe { BorrowedFd::borrow_raw(*fd) };
            rustix::io::fcntl_setfd(fd, FdFlags::empty())?;
        }
        Ok(())
    };
    // SAFETY: between fork and exec it makes plain system calls and takes no locks; it
    // allocates nothing, as errors are error numbers.
    unsafe { command.pre_exec(prepare) };
}
