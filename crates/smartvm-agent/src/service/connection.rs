//! One connection to the host: frames in and out over a descriptor that never blocks.

use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::time::{Duration, Instant};

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::io::Errno;

use crate::protocol::{Decoder, Frame, Kind, ProtocolError, encode};

/// Bytes that may wait to be sent before whoever produces more has to wait.
const OUTGOING_LIMIT: usize = 256 * 1024;

/// Bytes read from the host at once.
const READ_CHUNK: usize = 64 * 1024;

/// Why a session can't go on.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Broken {
    /// The host has gone, or its connection is unusable.
    #[error("the host's connection ended")]
    Gone,
    /// The host sent what can't be right.
    #[error(transparent)]
    Protocol(#[from] ProtocolError),
    /// The kernel refused an operation on the connection.
    #[error("the host's connection: {0}")]
    Io(#[from] Errno),
    /// The host sent nothing for too long where it has to.
    #[error("the host sent no request in time")]
    Silent,
}

/// Frames in and out over a non-blocking descriptor: a socket or a virtio port.
pub(crate) struct Connection {
    fd: OwnedFd,
    decoder: Decoder,
    outgoing: Vec<u8>,
    sent: usize,
}

impl Connection {
    /// Takes over `fd` and makes it non-blocking.
    pub(crate) fn new(fd: OwnedFd) -> io::Result<Self> {
        let flags = rustix::fs::fcntl_getfl(&fd)?;
        rustix::fs::fcntl_setfl(&fd, flags | rustix::fs::OFlags::NONBLOCK)?;
        Ok(Self {
            fd,
            decoder: Decoder::new(),
            outgoing: Vec::new(),
            sent: 0,
        })
    }

    /// Whether there is room for more output.
    pub(crate) fn has_room(&self) -> bool {
        self.outgoing.len() - self.sent < OUTGOING_LIMIT
    }

    /// What to poll for: input always, output when something waits to be sent.
    pub(crate) fn interest(&self) -> PollFlags {
        if self.sent < self.outgoing.len() {
            PollFlags::IN | PollFlags::OUT
        } else {
            PollFlags::IN
        }
    }

    /// The descriptor to poll.
    pub(crate) fn fd(&self) -> BorrowedFd<'_> {
        self.fd.as_fd()
    }

    /// Queues a frame; it leaves with the next [`Connection::progress`] or
    /// [`Connection::flush`].
    pub(crate) fn queue(&mut self, kind: Kind, payload: &[u8]) -> Result<(), Broken> {
        Ok(encode(kind, payload, self.buffer())?)
    }

    /// The buffer of what waits to be sent, for messages that encode themselves.
    pub(crate) fn buffer(&mut self) -> &mut Vec<u8> {
        if self.sent > 0 {
            self.outgoing.drain(..self.sent);
            self.sent = 0;
        }
        &mut self.outgoing
    }

    /// Reads and writes what is possible right now, as told by poll.
    pub(crate) fn progress(&mut self, ready: PollFlags) -> Result<(), Broken> {
        if self.interest().contains(PollFlags::OUT)
            && ready.intersects(PollFlags::OUT | PollFlags::ERR | PollFlags::HUP)
        {
            self.write_some()?;
        }
        if ready.intersects(PollFlags::IN | PollFlags::ERR | PollFlags::HUP) {
            self.read_some()?;
        }
        Ok(())
    }

    /// The next frame that has come in already.
    pub(crate) fn next_frame(&mut self) -> Result<Option<Frame>, Broken> {
        Ok(self.decoder.next_frame()?)
    }

    /// Waits for the next frame, sending what is queued meanwhile.
    pub(crate) fn receive(&mut self, deadline: Option<Instant>) -> Result<Frame, Broken> {
        loop {
            if let Some(frame) = self.next_frame()? {
                return Ok(frame);
            }
            self.wait(self.interest(), deadline)?;
        }
    }

    /// Sends everything that is queued. Bytes that come in meanwhile are kept.
    pub(crate) fn flush(&mut self, deadline: Option<Instant>) -> Result<(), Broken> {
        while self.interest().contains(PollFlags::OUT) {
            self.wait(PollFlags::OUT, deadline)?;
        }
        Ok(())
    }

    /// Makes room for more output, waiting for the host where necessary. Fails when the host
    /// has gone.
    pub(crate) fn make_room(&mut self) -> Result<(), Broken> {
        while !self.has_room() {
            self.wait(PollFlags::OUT, None)?;
        }
        Ok(())
    }

    /// Ends the session in an orderly way: sends what is queued, then lets the host close
    /// first, so that nothing it has not read yet is thrown away by a reset.
    pub(crate) fn finish(mut self, patience: Duration) {
        let deadline = Instant::now() + patience;
        if self.flush(None).is_err() {
            return;
        }
        let mut discarded = vec![0; READ_CHUNK];
        loop {
            match rustix::io::read(&self.fd, &mut discarded) {
                Ok(0) => return,
                Ok(_) | Err(Errno::INTR) if Instant::now() < deadline => {}
                Err(Errno::AGAIN) => {
                    let mut fds = [PollFd::new(&self.fd, PollFlags::IN)];
                    match poll_until(&mut fds, Some(deadline)) {
                        Ok(true) => {}
                        Ok(false) | Err(_) => return,
                    }
                }
                _ => return,
            }
        }
    }

    fn wait(&mut self, interest: PollFlags, deadline: Option<Instant>) -> Result<(), Broken> {
        let mut fds = [PollFd::new(&self.fd, interest)];
        if !poll_until(&mut fds, deadline)? {
            return Err(Broken::Silent);
        }
        let ready = fds[0].revents();
        // Waiting for room alone must not take in more than one read's worth of input.
        self.progress(ready)
    }

    fn write_some(&mut self) -> Result<(), Broken> {
        match rustix::io::write(&self.fd, &self.outgoing[self.sent..]) {
            Ok(written) => {
                self.sent += written;
                if self.sent == self.outgoing.len() {
                    self.outgoing.clear();
                    self.sent = 0;
                }
                Ok(())
            }
            Err(Errno::AGAIN | Errno::INTR) => Ok(()),
            Err(Errno::PIPE | Errno::CONNRESET | Errno::NOTCONN | Errno::NODEV) => {
                Err(Broken::Gone)
            }
            Err(error) => Err(error.into()),
        }
    }

    fn read_some(&mut self) -> Result<(), Broken> {
        let mut chunk = [0; READ_CHUNK];
        match rustix::io::read(&self.fd, &mut chunk) {
            Ok(0) => Err(Broken::Gone),
            Ok(length) => {
                self.decoder.feed(&chunk[..length]);
                Ok(())
            }
            Err(Errno::AGAIN | Errno::INTR) => Ok(()),
            Err(Errno::PIPE | Errno::CONNRESET | Errno::NOTCONN | Errno::NODEV) => {
                Err(Broken::Gone)
            }
            Err(error) => Err(error.into()),
        }
    }
}

/// Polls until something is ready (true) or the deadline has passed (false).
pub(crate) fn poll_until(fds: &mut [PollFd<'_>], deadline: Option<Instant>) -> Result<bool, Errno> {
    loop {
        let timeout = deadline.map(|deadline| {
            let left = deadline.saturating_duration_since(Instant::now());
            Timespec {
                tv_sec: i64::try_from(left.as_secs()).unwrap_or(i64::MAX),
                tv_nsec: i64::from(left.subsec_nanos()),
            }
        });
        match poll(fds, timeout.as_ref()) {
            Ok(0) if deadline.is_some_and(|deadline| Instant::now() >= deadline) => {
                return Ok(false);
            }
            Ok(0) | Err(Errno::INTR) => {}
            Ok(_) => return Ok(true),
            Err(error) => return Err(error),
        }
    }
}
