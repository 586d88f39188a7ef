//! The main command: what the guest is there for. Its output goes to the console, it needs no
//! connection to the host, and its end is the guest's.

use std::fs::{File, OpenOptions};
use std::io::{self, Read};
use std::os::fd::OwnedFd;
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use rustix::event::{PollFd, PollFlags};

use super::connection::{Connection, poll_until};
use super::ending::{Lingering, reap};
use super::session::{End, Failure, Guest};
use super::spawn::{self, Child, Outputs};
use crate::protocol::{Accepted, ErrorCode, Exec, MAX_PAYLOAD, Refusal, RunMain};

/// How long a host that hasn't hung up yet keeps a guest whose command has ended already: it
/// may still be writing down that the guest runs.
const HOST_PATIENCE: Duration = Duration::from_secs(10);

/// Whether the guest has its main command.
#[derive(Debug, Clone, Default)]
pub(crate) struct Place(Arc<AtomicBool>);

impl Place {
    fn take(&self) -> Result<(), Refusal> {
        match self.0.swap(true, Ordering::AcqRel) {
            false => Ok(()),
            true => Err(Refusal::new(
                ErrorCode::Busy,
                "the guest has its main command already",
            )),
        }
    }

    fn give_back(&self) {
        self.0.store(false, Ordering::Release);
    }
}

/// Runs the main command to its end, whatever becomes of the connection; returns how the guest
/// is ended then.
pub(crate) fn run(
    connection: &mut Connection,
    request: &RunMain,
    guest: &Guest,
) -> Result<End, Failure> {
    let shutdown = guest.shutdown.ok_or_else(|| {
        Refusal::new(
            ErrorCode::Unsupported,
            "running a main command: this agent is an ordinary process of its guest",
        )
    })?;
    let console = Console::open(&guest.console)?;
    guest.main.take()?;
    let command = Exec {
        argv: request.argv.clone(),
        env: request.env.clone(),
        cwd: request.cwd.clone(),
        user: request.user.clone(),
        ..Exec::default()
    };
    let child =
        spawn::spawn(&command, guest, Outputs::Together).inspect_err(|_| guest.main.give_back())?;
    let accepted = Accepted {
        pid: Some(child.pid.as_raw_nonzero().get()),
        ..Accepted::default()
    };
    // From here on it runs, with or without somebody who hears of it.
    let _unheard = accepted
        .encode(connection.buffer())
        .map_err(Failure::from)
        .and_then(|()| Ok(connection.flush(None)?));
    follow(child, console)?;
    Ok(End {
        patience: HOST_PATIENCE,
        shutdown: Some(shutdown),
    })
}

/// Carries the command's output to the console until it has ended, and tells there how.
fn follow(child: Child, mut console: Console) -> Result<(), Refusal> {
    let mut output = child.stdout.map(File::from);
    let mut ended: Option<Lingering> = None;
    while !ended.is_some_and(|ended| output.is_none() || ended.is_over()) {
        let (process, pipe) = {
            let mut fds = Vec::with_capacity(2);
            // In this order: the last one is the pipe, if that is open.
            fds.extend(
                ended
                    .is_none()
                    .then(|| PollFd::new(&child.pidfd, PollFlags::IN)),
            );
            fds.extend(
                output
                    .as_ref()
                    .map(|output| PollFd::new(output, PollFlags::IN)),
            );
            if poll_until(&mut fds, ended.map(|ended| ended.deadline())).is_err() {
                // Its end is waited for all the same.
                break;
            }
            let ready = |fd: Option<&PollFd<'_>>| fd.is_some_and(|fd| !fd.revents().is_empty());
            let process = ended.is_none() && ready(fds.first());
            (process, output.is_some() && ready(fds.last()))
        };
        if process {
            ended = Some(Lingering::begin());
        }
        if pipe
            && carry(&mut output, &mut console)
            && let Some(ended) = &mut ended
        {
            ended.hear();
        }
    }
    let exit = reap(&child.pidfd)?;
    console.end_line();
    console.write(exit.console_line().as_bytes());
    console.drain();
    Ok(())
}

/// Carries what can be read now; false if there was nothing.
fn carry(output: &mut Option<File>, console: &mut Console) -> bool {
    let mut chunk = [0; MAX_PAYLOAD];
    match output.as_mut().map(|output| output.read(&mut chunk)) {
        Some(Ok(length @ 1..)) => {
            console.write(&chunk[..length]);
            true
        }
        Some(Err(error)) if error.kind() == io::ErrorKind::Interrupted => false,
        _ => {
            *output = None;
            false
        }
    }
}

/// The guest's console. What it doesn't take is lost, and nobody is there to be told: the
/// command goes on.
struct Console {
    fd: OwnedFd,
    at_line_begin: bool,
}

impl Console {
    fn open(path: &Path) -> Result<Self, Refusal> {
        let flags = rustix::fs::OFlags::NOCTTY.bits();
        let opened = OpenOptions::new()
            .append(true)
            .custom_flags(flags.cast_signed())
            .open(path);
        let fd = opened.map_err(|error| {
            Refusal::new(
                ErrorCode::Unsupported,
                format!("the guest has no console for the command's output: {error}"),
            )
        })?;
        Ok(Self {
            fd: fd.into(),
            at_line_begin: true,
        })
    }

    fn write(&mut self, mut bytes: &[u8]) {
        let Some(last) = bytes.last() else {
            return;
        };
        self.at_line_begin = *last == b'\n';
        while !bytes.is_empty() {
            match rustix::io::write(&self.fd, bytes) {
                Ok(written) => bytes = &bytes[written..],
                Err(rustix::io::Errno::INTR) => {}
                Err(_) => return,
            }
        }
    }

    fn end_line(&mut self) {
        if !self.at_line_begin {
            self.write(b"\n");
        }
    }

    /// Waits until the device has all of it: what its driver still holds at a reset is lost.
    fn drain(&self) {
        // A console that is no terminal holds nothing.
        let _ = rustix::termios::tcdrain(&self.fd);
    }
}
