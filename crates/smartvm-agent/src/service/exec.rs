//! A command's session: one poll loop between the host's connection and the command.

use std::collections::VecDeque;
use std::os::fd::OwnedFd;
use std::time::{Duration, Instant};

use rustix::event::{PollFd, PollFlags};
use rustix::io::Errno;
use rustix::process::{Pid, Signal};

use super::connection::{Broken, Connection, poll_until};
use super::ending::{self, Lingering};
use super::session::{Failure, Guest};
use super::spawn::{self, Child, Outputs};
use crate::protocol::{
    Accepted, ErrorCode, Exec, Exit, Frame, Kind, MAX_PAYLOAD, ProtocolError, Refusal, STDIN_WINDOW,
};

/// Credit is returned in steps of at least this many bytes, unless all stdin is consumed.
const CREDIT_STEP: usize = STDIN_WINDOW as usize / 4;

/// Between SIGHUP and SIGKILL for a command whose host has gone.
const HANGUP_GRACE: Duration = Duration::from_millis(200);

/// Runs a command for the host until it ends, or the connection does.
pub(crate) fn run(
    connection: &mut Connection,
    request: &Exec,
    guest: &Guest,
) -> Result<(), Failure> {
    let child = spawn::spawn(request, guest, Outputs::Apart)?;
    let mut running = Running::new(child, request.tty.is_some());
    running.never_block()?;
    Accepted {
        pid: Some(running.pid.as_raw_nonzero().get()),
        ..Accepted::default()
    }
    .encode(connection.buffer())?;
    if running.stdin.is_some() {
        running.granted = STDIN_WINDOW as usize;
        connection.queue(Kind::Credit, &STDIN_WINDOW.to_le_bytes())?;
    }
    running.follow(connection)?;
    let exit = running.reap()?;
    exit.encode(connection.buffer())?;
    Ok(connection.flush(None)?)
}

/// Adds a descriptor to those polled, if there is one: the index of its answer.
fn watch<'a>(
    fds: &mut Vec<PollFd<'a>>,
    fd: Option<&'a OwnedFd>,
    interest: PollFlags,
) -> Option<usize> {
    let index = fds.len();
    fd.map(|fd| {
        fds.push(PollFd::new(fd, interest));
        index
    })
}

/// A command and what is on its way to and from it.
struct Running {
    pid: Pid,
    pidfd: OwnedFd,
    stdin: Option<OwnedFd>,
    /// Stdout, then stderr.
    outputs: [Option<OwnedFd>; 2],
    terminal: bool,
    /// Stdin that the host has sent and the command has not read.
    pending: VecDeque<u8>,
    ending: bool,
    granted: usize,
    consumed: usize,
    /// Since the command was seen to have ended.
    ended: Option<Lingering>,
    reaped: bool,
}

impl Running {
    fn new(child: Child, terminal: bool) -> Self {
        Self {
            pid: child.pid,
            pidfd: child.pidfd,
            stdin: child.stdin,
            outputs: [child.stdout, child.stderr],
            terminal,
            pending: VecDeque::new(),
            ending: false,
            granted: 0,
            consumed: 0,
            ended: None,
            reaped: false,
        }
    }

    fn never_block(&self) -> Result<(), Refusal> {
        for fd in self.stdin.iter().chain(self.outputs.iter().flatten()) {
            rustix::io::ioctl_fionbio(fd, true).map_err(|error| {
                Refusal::new(ErrorCode::Failed, format!("the command's streams: {error}"))
            })?;
        }
        Ok(())
    }

    /// Carries bytes both ways until the command has ended and its output is through.
    fn follow(&mut self, connection: &mut Connection) -> Result<(), Broken> {
        loop {
            while let Some(frame) = connection.next_frame()? {
                self.handle(&frame)?;
            }
            self.write_stdin(connection)?;
            if self.is_over() {
                return Ok(());
            }
            self.wait(connection)?;
        }
    }

    fn is_over(&self) -> bool {
        let through = self.outputs.iter().all(Option::is_none);
        self.ended.is_some_and(|ended| through || ended.is_over())
    }

    fn wait(&mut self, connection: &mut Connection) -> Result<(), Broken> {
        let room = connection.has_room();
        let (host, process, outputs) = {
            let mut fds = vec![PollFd::from_borrowed_fd(
                connection.fd(),
                connection.interest(),
            )];
            let process = watch(
                &mut fds,
                Some(&self.pidfd).filter(|_| self.ended.is_none()),
                PollFlags::IN,
            );
            // Only to be woken; what is pending is written at every turn of the loop.
            let stdin = self.stdin.as_ref().filter(|_| !self.pending.is_empty());
            watch(&mut fds, stdin, PollFlags::OUT);
            let outputs = self
                .outputs
                .each_ref()
                .map(|fd| watch(&mut fds, fd.as_ref().filter(|_| room), PollFlags::IN));
            let deadline = self.ended.map(|ended| ended.deadline());
            poll_until(&mut fds, deadline.filter(|_| room))?;
            let of = |index: Option<usize>| {
                index.map_or(PollFlags::empty(), |index| fds[index].revents())
            };
            (fds[0].revents(), of(process), outputs.map(of))
        };
        connection.progress(host)?;
        for (index, ready) in outputs.into_iter().enumerate() {
            if !ready.is_empty() {
                self.read_output(index, connection)?;
            }
        }
        // While the host leaves no room, output that has been written waits in its pipe: that
        // is not a pause.
        if !process.is_empty() || (!room && self.ended.is_some()) {
            self.ended = Some(Lingering::begin());
        }
        Ok(())
    }

    fn handle(&mut self, frame: &Frame) -> Result<(), Broken> {
        match frame.kind {
            Kind::Stdin if self.ending => return Err(ProtocolError::Unexpected(frame.kind).into()),
            Kind::Stdin => {
                let sent = frame.payload.len();
                let granted = self.granted;
                if sent > granted {
                    return Err(ProtocolError::OverCredit { sent, granted }.into());
                }
                self.granted -= sent;
                if self.stdin.is_some() {
                    self.pending.extend(&frame.payload);
                } else {
                    self.consumed += sent;
                }
            }
            Kind::StdinEnd => {
                if self.terminal && !self.ending && self.stdin.is_some() {
                    // A terminal has no end of file; its line discipline makes one of Ctrl-D.
                    self.pending.push_back(0x04);
                }
                self.ending = true;
            }
            Kind::Signal => {
                let signal = frame.signal()?;
                // The kernel's last real-time signal is 64; 0 would only probe.
                if !(1..=64).contains(&signal) {
                    return Err(ProtocolError::Payload {
                        kind: frame.kind,
                        reason: format!("there is no signal {signal}"),
                    }
                    .into());
                }
                self.signal_group(signal);
            }
            Kind::Resize => {
                let (rows, cols) = frame.size()?;
                if let (true, Some(terminal)) = (self.terminal, &self.outputs[0]) {
                    // A terminal whose command is just ending has no size any more.
                    let _ = spawn::resize(terminal, rows, cols);
                }
            }
            kind => return Err(ProtocolError::Unexpected(kind).into()),
        }
        Ok(())
    }

    /// Gives the command what it takes of its stdin, and the host credit for that.
    fn write_stdin(&mut self, connection: &mut Connection) -> Result<(), Broken> {
        while let Some(stdin) = &self.stdin {
            let (bytes, _) = self.pending.as_slices();
            if bytes.is_empty() {
                break;
            }
            match rustix::io::write(stdin, bytes) {
                Ok(written) => {
                    self.pending.drain(..written);
                    self.consumed += written;
                }
                Err(Errno::INTR) => {}
                Err(Errno::AGAIN) => break,
                // Nobody will read it any more: what still comes is taken and forgotten, as
                // a host that went on sending must not hang.
                Err(_) => {
                    self.consumed += self.pending.len();
                    self.pending = VecDeque::new();
                    self.stdin = None;
                }
            }
        }
        if self.ending && self.pending.is_empty() {
            self.stdin = None;
        }
        let due = self.consumed >= CREDIT_STEP || (self.consumed > 0 && self.pending.is_empty());
        if due && !self.ending {
            let credit = u32::try_from(self.consumed).unwrap_or(STDIN_WINDOW);
            self.granted += self.consumed;
            self.consumed = 0;
            connection.queue(Kind::Credit, &credit.to_le_bytes())?;
        }
        Ok(())
    }

    fn read_output(&mut self, index: usize, connection: &mut Connection) -> Result<(), Broken> {
        let Some(fd) = &self.outputs[index] else {
            return Ok(());
        };
        let kind = [Kind::Stdout, Kind::Stderr][index];
        let mut chunk = [0; MAX_PAYLOAD];
        match rustix::io::read(fd, &mut chunk) {
            Ok(length @ 1..) => {
                connection.queue(kind, &chunk[..length])?;
                if let Some(ended) = &mut self.ended {
                    ended.hear();
                }
            }
            Err(Errno::AGAIN | Errno::INTR) => {}
            // A terminal whose last process has gone reports an I/O error.
            Ok(0) | Err(_) => self.outputs[index] = None,
        }
        Ok(())
    }

    fn signal_group(&self, signal: i32) {
        // SAFETY: 1 to 64 are the kernel's signals; none of them is delivered to this process,
        // whose own handlers are all that a wrong number could endanger.
        let signal = unsafe { Signal::from_raw_unchecked(signal) };
        // The group may be gone already; its number is not reused before the leader is reaped.
        let _ = rustix::process::kill_process_group(self.pid, signal);
    }

    /// The end of a command that has ended.
    fn reap(&mut self) -> Result<Exit, Failure> {
        let exit = ending::reap(&self.pidfd)?;
        self.reaped = true;
        Ok(exit)
    }
}

impl Drop for Running {
    /// A command doesn't outlive its session.
    fn drop(&mut self) {
        if self.reaped {
            return;
        }
        self.stdin = None;
        self.outputs = [None, None];
        self.signal_group(libc::SIGHUP);
        self.signal_group(libc::SIGCONT);
        let mut fds = [PollFd::new(&self.pidfd, PollFlags::IN)];
        let _ = poll_until(&mut fds, Some(Instant::now() + HANGUP_GRACE));
        // Also when the leader has ended: others of its group may be left, and as it is not
        // reaped yet the number is still theirs.
        self.signal_group(libc::SIGKILL);
        let _ = self.reap();
    }
}
