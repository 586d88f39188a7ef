//! What the keeper process does, from its start to its end.

use std::io::{Read, Write};
use std::os::fd::AsFd;
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::time::{Duration, Instant};

use rustix::event::{PollFd, PollFlags};

use super::rest::{QUIET, rest};
use super::signals::Signals;
use super::vmm::{Logs, Vmm};
use super::{MOST_MESSAGE_BYTES, Reply, Request};
use crate::error::{Error, ErrorKind, Result};
use crate::firecracker::exit::{Ended, Reason, reason_unasked};
use crate::keeper::ring;
use crate::process::timespec;
use crate::rundir::{RunDir, file};
use crate::teardown::{self, StopRequest};

/// How long another operation may hold the VM's lock when the keeper has to clean up.
const LOCK_PATIENCE: Duration = Duration::from_secs(60);

/// Keeps the VM in `run_dir` until it has ended and everything is given back. The socket to
/// the owner is standard input.
pub fn run(run_dir: &Path) -> Result<()> {
    // Of its own session, so that a terminal's signals end the owner and not the keeper.
    // It fails only for a process group's leader, which is then by itself anyway.
    let _already_leads = rustix::process::setsid();
    // No file system is kept busy by the directory that the owner happened to be in.
    rustix::process::chdir("/")
        .map_err(|e| Error::new(ErrorKind::Host, "going to /").because(e))?;
    let me = rustix::process::getpid();
    rustix::process::set_child_subreaper(Some(me))
        .map_err(|e| Error::new(ErrorKind::Host, "becoming a subreaper").because(e))?;
    let run_dir = RunDir::at(run_dir)?;
    let control = std::io::stdin().as_fd().try_clone_to_owned();
    let control = control
        .and_then(|fd| {
            let stream = UnixStream::from(fd);
            stream.set_nonblocking(true)?;
            Ok(stream)
        })
        .map_err(|e| Error::new(ErrorKind::Host, "opening the socket to the owner").because(e))?;
    let mut keeper = Keeper {
        signals: Signals::listen()?,
        rested: false,
        logs: Logs::open(&run_dir)?,
        run_dir,
        control: Some(control),
        received: Vec::new(),
        vmm: None,
        deadline: None,
        detached: false,
    };
    let (reason, ended) = keeper.watch()?;
    let lock = keeper.run_dir.lock(LOCK_PATIENCE)?;
    lock.say("cleaning up after");
    teardown::tear_down(&keeper.run_dir, &lock, reason, ended).map(drop)
}

struct Keeper {
    run_dir: RunDir,
    signals: Signals,
    /// Whether nothing has happened since it last gave memory back.
    rested: bool,
    logs: Logs,
    /// The socket to the owner, until that is gone.
    control: Option<UnixStream>,
    received: Vec<u8>,
    vmm: Option<Vmm>,
    /// When the VM's time is up.
    deadline: Option<Instant>,
    detached: bool,
}

/// What the keeper noticed.
enum Noticed {
    Nothing,
    VmmEnded,
    /// The VM has to end, for this reason.
    End(Reason),
}

impl Keeper {
    /// Waits until the VM has ended or has to; returns why, and how Firecracker ended.
    fn watch(&mut self) -> Result<(Reason, Option<Ended>)> {
        loop {
            match self.next()? {
                Noticed::Nothing => {}
                Noticed::VmmEnded => {
                    let ended = self.finish_vmm()?;
                    return Ok((self.reason(ended), Some(ended)));
                }
                Noticed::End(reason) => {
                    let ended = match &self.vmm {
                        Some(vmm) => {
                            vmm.kill()?;
                            Some(self.finish_vmm()?)
                        }
                        None => None,
                    };
                    return Ok((reason, ended));
                }
            }
        }
    }

    fn finish_vmm(&mut self) -> Result<Ended> {
        match &mut self.vmm {
            Some(vmm) => vmm.finish(&mut self.logs),
            None => Ok(Ended::Unseen),
        }
    }

    /// Why Firecracker ended by itself: because somebody asked, or for a reason of its own.
    fn reason(&self, ended: Ended) -> Reason {
        match StopRequest::read(&self.run_dir) {
            Ok(Some(_)) if matches!(ended, Ended::Killed(_)) => Reason::Killed,
            Ok(Some(_)) => Reason::Stopped,
            Ok(None) | Err(_) => {
                let console = ring::tail(&self.run_dir.file(file::CONSOLE), 16 << 10);
                reason_unasked(ended, &console.unwrap_or_default())
            }
        }
    }

    /// Waits for the next thing to happen, and handles output and requests on the way.
    fn next(&mut self) -> Result<Noticed> {
        let left = self
            .deadline
            .map(|at| at.saturating_duration_since(Instant::now()));
        if left.is_some_and(|left| left.is_zero()) {
            return Ok(Noticed::End(Reason::LifetimeReached));
        }
        let timeout = match left {
            _ if self.rested => left,
            Some(left) => Some(left.min(QUIET)),
            None => Some(QUIET),
        };
        let mut fds = Vec::with_capacity(6);
        fds.push(PollFd::new(&self.signals, PollFlags::IN));
        if let Some(control) = &self.control {
            fds.push(PollFd::new(control, PollFlags::IN));
        }
        if let Some(vmm) = &self.vmm {
            fds.push(PollFd::new(&vmm.pidfd, PollFlags::IN));
            let open = vmm.drains.iter().filter(|drain| drain.open);
            fds.extend(open.map(|drain| PollFd::new(&drain.from, PollFlags::IN)));
        }
        match rustix::event::poll(&mut fds, timeout.map(timespec).as_ref()) {
            Ok(0) => {
                drop(fds);
                rest();
                self.rested = true;
                return Ok(Noticed::Nothing);
            }
            Ok(_) => {}
            Err(rustix::io::Errno::INTR) => return Ok(Noticed::Nothing),
            Err(e) => return Err(Error::new(ErrorKind::Io, "waiting for events").because(e)),
        }
        let ready: Vec<bool> = fds.iter().map(|fd| !fd.revents().is_empty()).collect();
        drop(fds);
        self.rested = false;
        let mut ready = ready.into_iter();
        if ready.next().unwrap_or(false) {
            return Ok(Noticed::End(Reason::KeeperStopped));
        }
        let control_ready = self.control.is_some() && ready.next().unwrap_or(false);
        if let Some(vmm) = &mut self.vmm {
            let ended = ready.next().unwrap_or(false);
            for drain in vmm.drains.iter_mut().filter(|drain| drain.open) {
                if ready.next().unwrap_or(false) {
                    drain.pump(&mut self.logs);
                }
            }
            if ended {
                return Ok(Noticed::VmmEnded);
            }
        }
        if control_ready {
            self.listen()
        } else {
            Ok(Noticed::Nothing)
        }
    }

    /// Reads what the owner says.
    fn listen(&mut self) -> Result<Noticed> {
        let mut buffer = [0; 4096];
        let owner_gone = || Ok(Noticed::End(Reason::OwnerEnded));
        let Some(control) = &mut self.control else {
            return Ok(Noticed::Nothing);
        };
        match control.read(&mut buffer) {
            Ok(0) => {
                self.control = None;
                return if self.detached {
                    Ok(Noticed::Nothing)
                } else {
                    owner_gone()
                };
            }
            Ok(length) => self.received.extend_from_slice(&buffer[..length]),
            Err(e) if e.kind() == std::io::ErrorKind::WouldBlock => return Ok(Noticed::Nothing),
            Err(e) if e.kind() == std::io::ErrorKind::Interrupted => return Ok(Noticed::Nothing),
            Err(_) => {
                self.control = None;
                return if self.detached {
                    Ok(Noticed::Nothing)
                } else {
                    owner_gone()
                };
            }
        }
        if self.received.len() > MOST_MESSAGE_BYTES {
            return Err(Error::new(
                ErrorKind::Corrupt,
                "the owner's message is too long",
            ));
        }
        while let Some(end) = self.received.iter().position(|&byte| byte == b'\n') {
            let line: Vec<u8> = self.received.drain(..=end).collect();
            let request = serde_json::from_slice(&line).map_err(|e| {
                Error::new(
                    ErrorKind::Corrupt,
                    "the owner's message can't be understood",
                )
                .because(e)
            })?;
            if let Some(noticed) = self.handle(request) {
                return Ok(noticed);
            }
        }
        Ok(Noticed::Nothing)
    }

    fn handle(&mut self, request: Request) -> Option<Noticed> {
        match request {
            Request::SpawnVmm {
                launch,
                max_runtime_s,
            } => {
                let spawned = self
                    .logs
                    .copy_console(&self.run_dir)
                    .and_then(|()| Vmm::spawn(&self.run_dir, &launch, &mut self.logs));
                let reply = match spawned {
                    Ok(vmm) => {
                        let process = vmm.process().clone();
                        self.vmm = Some(vmm);
                        self.deadline = max_runtime_s
                            .and_then(|s| Instant::now().checked_add(Duration::from_secs(s)));
                        Reply::Spawned { process }
                    }
                    Err(e) => Reply::Failed {
                        message: e.to_string(),
                    },
                };
                self.reply(&reply);
                None
            }
            Request::Detach => {
                self.detached = true;
                self.reply(&Reply::Detached);
                None
            }
            Request::Abandon { why } => Some(Noticed::End(Reason::StartFailed(why))),
        }
    }

    /// Answers the owner. If that is gone, the end of its socket tells the next moment.
    fn reply(&mut self, reply: &Reply) {
        let Some(control) = &mut self.control else {
            return;
        };
        let sent = serde_json::to_vec(reply)
            .map_err(std::io::Error::other)
            .and_then(|mut line| {
                line.push(b'\n');
                control.write_all(&line)
            });
        if let Err(e) = sent {
            tracing::warn!("answering the owner: {e}");
        }
    }
}
