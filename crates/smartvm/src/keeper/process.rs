//! What the keeper process does, from its start to its end.

use std::ffi::CString;
use std::fs::OpenOptions;
use std::os::unix::fs::OpenOptionsExt;
use std::path::PathBuf;
use std::time::{Duration, Instant};

use rustix::event::{PollFd, PollFlags};

use super::inbox::Inbox;
use super::rest::{QUIET, rest};
use super::signals::Signals;
use super::vmm::{Logs, Vmm};
use super::{Reply, Request};
use crate::error::{Error, ErrorKind, Result};
use crate::firecracker::exit::{Ended, Reason, reason_unasked};
use crate::keeper::ring;
use crate::process::timespec;
use crate::rundir::{RunDir, file};
use crate::teardown::{self, StopRequest};

/// How long another operation may hold the VM's lock when the keeper has to clean up.
const LOCK_PATIENCE: Duration = Duration::from_secs(60);

/// So long Firecracker's log waits after it was read: it holds a line or more for each request,
/// whose answer would come later if a keeper woke up for each.
const LOG_PAUSE: Duration = Duration::from_millis(50);

/// Keeps the VM that the owner names until it has ended and everything is given back; returns
/// at once if the owner goes without naming one. The socket to the owner is standard input.
pub fn run() -> Result<()> {
    // Of its own session, so that a terminal's signals end the owner and not the keeper.
    // It fails only for a process group's leader, which is then by itself anyway.
    let _already_leads = rustix::process::setsid();
    let failed = |what: &'static str| {
        move |e: rustix::io::Errno| Error::new(ErrorKind::Host, what).because(e)
    };
    // No file system is kept busy by the directory that the owner happened to be in.
    rustix::process::chdir("/").map_err(failed("going to /"))?;
    rustix::process::set_child_subreaper(Some(rustix::process::getpid()))
        .map_err(failed("becoming a subreaper"))?;
    let signals = Signals::listen()?;
    let mut inbox = Inbox::open()?;
    let Some(run_dir) = told_what_to_keep(&signals, &mut inbox)? else {
        return Ok(());
    };
    let run_dir = RunDir::at(&run_dir)?;
    log_to(&run_dir)?;
    let mut keeper = Keeper {
        signals,
        rested: false,
        log_read: None,
        logs: Logs::open(&run_dir)?,
        run_dir,
        inbox: Some(inbox),
        vmm: None,
        deadline: None,
        detached: false,
    };
    let (reason, ended) = keeper.watch()?;
    let lock = keeper.run_dir.lock(teardown::DOING, LOCK_PATIENCE)?;
    teardown::tear_down(&keeper.run_dir, &lock, reason, ended).map(drop)
}

/// Waits for the owner's first word: the run dir. `None` when there is nothing to keep.
fn told_what_to_keep(signals: &Signals, inbox: &mut Inbox) -> Result<Option<PathBuf>> {
    let mut quiet = Some(timespec(QUIET));
    loop {
        match inbox.next()? {
            Some(Request::Keep { run_dir }) => return Ok(Some(run_dir)),
            Some(_) => {
                let message = "the owner doesn't begin with the VM to keep";
                return Err(Error::new(ErrorKind::Corrupt, message));
            }
            None => {}
        }
        let mut fds = [
            PollFd::new(signals, PollFlags::IN),
            PollFd::new(inbox, PollFlags::IN),
        ];
        match rustix::event::poll(&mut fds, quiet.as_ref()) {
            Ok(0) => {
                rest();
                quiet = None;
            }
            Ok(_) => {
                let told_to_end = !fds[0].revents().is_empty();
                if told_to_end || !inbox.receive() {
                    return Ok(None);
                }
            }
            Err(rustix::io::Errno::INTR) => {}
            Err(e) => return Err(Error::new(ErrorKind::Io, "waiting for the owner").because(e)),
        }
    }
}

/// What is written to standard error goes to a log in the run dir; what the process is called
/// tells which VM it keeps.
fn log_to(run_dir: &RunDir) -> Result<()> {
    let path = run_dir.file("keeper.log");
    let log = OpenOptions::new()
        .append(true)
        .create(true)
        .mode(0o600)
        .open(&path)
        .map_err(|e| Error::io("opening the keeper's log", &path, e))?;
    rustix::stdio::dup2_stderr(&log)
        .map_err(|e| Error::io("opening the keeper's log", &path, e))?;
    // For whoever looks at the list of processes; nothing depends on it.
    if let Ok(name) = CString::new(format!("keep {}", run_dir.id())) {
        let _shown = rustix::thread::set_name(&name);
    }
    Ok(())
}

struct Keeper {
    run_dir: RunDir,
    signals: Signals,
    /// Whether nothing has happened since it last gave memory back.
    rested: bool,
    /// When Firecracker's log was read, unless that is long ago.
    log_read: Option<Instant>,
    logs: Logs,
    /// The socket to the owner, until that is gone.
    inbox: Option<Inbox>,
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
        if StopRequest::was_left(&self.run_dir) {
            return match ended {
                Ended::Killed(_) => Reason::Killed,
                _ => Reason::Stopped,
            };
        }
        let console = ring::tail(&self.run_dir.file(file::CONSOLE), 16 << 10);
        reason_unasked(ended, &console.unwrap_or_default())
    }

    /// Waits for the next thing to happen, and handles output and requests on the way.
    fn next(&mut self) -> Result<Noticed> {
        if let Some(noticed) = self.heed()? {
            return Ok(noticed);
        }
        let left = self
            .deadline
            .map(|at| at.saturating_duration_since(Instant::now()));
        if left.is_some_and(|left| left.is_zero()) {
            return Ok(Noticed::End(Reason::LifetimeReached));
        }
        let log_waits = self
            .log_read
            .map(|at| LOG_PAUSE.saturating_sub(at.elapsed()));
        let quiet = (!self.rested).then_some(QUIET);
        let timeout = [left, log_waits, quiet].into_iter().flatten().min();
        let mut fds = Vec::with_capacity(6);
        fds.push(PollFd::new(&self.signals, PollFlags::IN));
        if let Some(inbox) = &self.inbox {
            fds.push(PollFd::new(inbox, PollFlags::IN));
        }
        if let Some(vmm) = &self.vmm {
            fds.push(PollFd::new(&vmm.pidfd, PollFlags::IN));
            let watched = vmm.drains.iter().filter(|drain| drain.watched(log_waits));
            fds.extend(watched.map(|drain| PollFd::new(&drain.from, PollFlags::IN)));
        }
        match rustix::event::poll(&mut fds, timeout.map(timespec).as_ref()) {
            Ok(0) if log_waits.is_some() => {
                self.log_read = None;
                return Ok(Noticed::Nothing);
            }
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
        let said_something = self.inbox.is_some() && ready.next().unwrap_or(false);
        if let Some(vmm) = &mut self.vmm {
            let ended = ready.next().unwrap_or(false);
            let watched = vmm.drains.iter_mut();
            for drain in watched.filter(|drain| drain.watched(log_waits)) {
                if ready.next().unwrap_or(false) {
                    drain.pump(&mut self.logs);
                    if drain.is_log {
                        self.log_read = Some(Instant::now());
                    }
                }
            }
            if ended {
                return Ok(Noticed::VmmEnded);
            }
        }
        if said_something && !self.inbox.as_mut().is_some_and(Inbox::receive) {
            self.inbox = None;
            if !self.detached {
                return Ok(Noticed::End(Reason::OwnerEnded));
            }
        }
        Ok(Noticed::Nothing)
    }

    /// Does what the owner has said.
    fn heed(&mut self) -> Result<Option<Noticed>> {
        while let Some(inbox) = &mut self.inbox {
            let Some(request) = inbox.next()? else {
                break;
            };
            if let Some(noticed) = self.handle(request)? {
                return Ok(Some(noticed));
            }
        }
        Ok(None)
    }

    fn handle(&mut self, request: Request) -> Result<Option<Noticed>> {
        match request {
            Request::Keep { .. } => Err(Error::new(
                ErrorKind::Corrupt,
                "the owner names another VM to keep",
            )),
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
                        hint: e.way_out().map(str::to_owned),
                    },
                };
                self.reply(&reply);
                Ok(None)
            }
            Request::Detach => {
                self.detached = true;
                self.reply(&Reply::Detached);
                Ok(None)
            }
            Request::Abandon { why } => Ok(Some(Noticed::End(Reason::StartFailed(why)))),
        }
    }

    fn reply(&mut self, reply: &Reply) {
        if let Some(inbox) = &mut self.inbox {
            inbox.reply(reply);
        }
    }
}
