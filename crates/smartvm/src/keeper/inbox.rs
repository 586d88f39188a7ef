//! The keeper's side of the socket to its owner.

use std::io::{ErrorKind as Io, Read, Write};
use std::os::fd::{AsFd, BorrowedFd};
use std::os::unix::net::UnixStream;

use super::{MOST_MESSAGE_BYTES, Reply, Request};
use crate::error::{Error, ErrorKind, Result};

/// What the owner says, a line each.
pub(super) struct Inbox {
    stream: UnixStream,
    received: Vec<u8>,
}

impl Inbox {
    /// The socket is standard input.
    pub(super) fn open() -> Result<Self> {
        let open = || {
            let stream = UnixStream::from(std::io::stdin().as_fd().try_clone_to_owned()?);
            stream.set_nonblocking(true)?;
            Ok(stream)
        };
        let failed = |e: std::io::Error| {
            Error::new(ErrorKind::Host, "opening the socket to the owner").because(e)
        };
        Ok(Self {
            stream: open().map_err(failed)?,
            received: Vec::new(),
        })
    }

    /// Takes what has arrived; `false` when the owner is gone.
    pub(super) fn receive(&mut self) -> bool {
        let mut buffer = [0; 4096];
        match self.stream.read(&mut buffer) {
            Ok(0) => false,
            Ok(length) => {
                self.received.extend_from_slice(&buffer[..length]);
                true
            }
            Err(e) => matches!(e.kind(), Io::WouldBlock | Io::Interrupted),
        }
    }

    /// The next thing that was said, if it has arrived as a whole.
    pub(super) fn next(&mut self) -> Result<Option<Request>> {
        let Some(end) = self.received.iter().position(|&byte| byte == b'\n') else {
            return match self.received.len() {
                0..=MOST_MESSAGE_BYTES => Ok(None),
                _ => Err(Error::new(
                    ErrorKind::Corrupt,
                    "the owner's message is too long",
                )),
            };
        };
        let line: Vec<u8> = self.received.drain(..=end).collect();
        serde_json::from_slice(&line).map(Some).map_err(|e| {
            let message = "the owner's message can't be understood";
            Error::new(ErrorKind::Corrupt, message).because(e)
        })
    }

    /// Answers the owner. If that is gone, the end of its socket tells the next moment.
    pub(super) fn reply(&mut self, reply: &Reply) {
        let sent = serde_json::to_vec(reply)
            .map_err(std::io::Error::other)
            .and_then(|mut line| {
                line.push(b'\n');
                self.stream.write_all(&line)
            });
        if let Err(e) = sent {
            tracing::warn!("answering the owner: {e}");
        }
    }
}

impl AsFd for Inbox {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.stream.as_fd()
    }
}
