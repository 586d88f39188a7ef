//! The host's side of the guest protocol: commands and files in a running guest.
//!
//! An [`Agent`] knows how to reach one guest; each operation is one connection. Where there is
//! only a single byte stream to the guest, [`Connection::over`] makes one session of it.
//! docs/agent-protocol.md describes what goes over the wire.
//!
//! ```no_run
//! # async fn example() -> smartvm::Result<()> {
//! use std::time::Duration;
//! use smartvm::agent::{Agent, Command};
//!
//! let agent = Agent::over_vsock("/run/smartvm/web/vsock.sock");
//! agent.wait_ready(Duration::from_secs(30)).await?;
//! let session = agent.exec(&Command::new("uname").arg("-a")).await?;
//! let output = session.output(b"", 64 * 1024).await?;
//! assert_eq!(output.status.code_for_shell(), 0);
//! # Ok(())
//! # }
//! ```

pub mod binary;
mod command;
mod connect;
mod connection;
mod fault;
mod file;
mod pump;
mod session;
#[cfg(test)]
mod tests;
mod wire;

use std::path::{Path, PathBuf};
use std::time::Duration;

use smartvm_agent::protocol::PORT;
pub use smartvm_agent::protocol::{ErrorCode, Greeting, Pong, Refusal};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::time::Instant;

pub use command::{Command, ExitStatus};
pub use connection::{Connection, MainCommand};
pub use fault::{refusal, status_for_shell};
pub use file::FileInfo;
pub use pump::Output;
pub use session::{Control, Event, Events, Input, Session, Stream};

use crate::firecracker::socket::Socket;
use crate::wiring::Move;
use crate::{Error, ErrorKind, Result};

/// How long the guest may take to begin with a request, unless
/// [`Agent::with_patience`] says otherwise.
const PATIENCE: Duration = Duration::from_secs(30);

/// Between attempts to reach a guest that is still booting: from, to.
const PAUSE: (Duration, Duration) = (Duration::from_millis(5), Duration::from_millis(100));

/// How long one such attempt may take: from, to. Short at first, as a guest in early boot may
/// have lost the attempt; longer later, for guests on slow machines.
const ATTEMPT: (Duration, Duration) = (Duration::from_millis(250), Duration::from_secs(5));

/// The agent of one guest, reached through Firecracker's vsock socket.
///
/// Holds no connection: every operation makes its own, so any number may run at the same time
/// (the agent allows 256).
#[derive(Debug, Clone)]
pub struct Agent {
    socket: Socket,
    patience: Duration,
}

impl Agent {
    /// The agent behind the Unix socket of Firecracker's vsock device (`uds_path`).
    pub fn over_vsock(socket: impl Into<PathBuf>) -> Self {
        Self::over(Socket::at(socket))
    }

    pub(crate) fn over(socket: Socket) -> Self {
        Self {
            socket,
            patience: PATIENCE,
        }
    }

    /// Sets how long the guest may take to begin with a request (by default 30 seconds). A
    /// command itself may take any time.
    #[must_use]
    pub fn with_patience(mut self, patience: Duration) -> Self {
        self.patience = patience;
        self
    }

    /// The Unix socket that leads to the guest.
    pub fn socket(&self) -> &Path {
        self.socket.path()
    }

    /// Connects and receives the agent's greeting.
    ///
    /// # Errors
    /// [`ErrorKind::Guest`] if nobody listens in the guest, [`ErrorKind::Timeout`] after
    /// `deadline`, [`ErrorKind::Corrupt`] if what answers isn't an agent that this build
    /// understands.
    pub async fn connect(&self, deadline: Duration) -> Result<Connection> {
        let stream = connect::connect(&self.socket, PORT, deadline).await?;
        Connection::over(stream, deadline).await
    }

    /// What the agent says about itself, if it answers within `deadline`.
    ///
    /// # Errors
    /// As for [`Agent::connect`].
    pub async fn greeting(&self, deadline: Duration) -> Result<Greeting> {
        Ok(self.connect(deadline).await?.into_greeting())
    }

    /// Waits until the agent answers: while the guest boots, nobody listens there.
    ///
    /// # Errors
    /// [`ErrorKind::Timeout`] after `deadline`, with what the last attempt met;
    /// [`ErrorKind::Corrupt`] at once if what answers isn't an agent that this build
    /// understands.
    pub async fn wait_ready(&self, deadline: Duration) -> Result<Greeting> {
        let end = Instant::now() + deadline;
        let (mut pause, mut attempt) = (PAUSE.0, ATTEMPT.0);
        loop {
            let left = end.saturating_duration_since(Instant::now());
            let error = match self.greeting(attempt.min(left)).await {
                Err(error) if error.kind() != ErrorKind::Corrupt => error,
                result => return result,
            };
            if Instant::now() + pause >= end {
                let message = format!(
                    "waiting for the guest's agent: no answer within {}",
                    humantime::format_duration(deadline)
                );
                return Err(Error::new(ErrorKind::Timeout, message)
                    .because(error)
                    .hint(fault::NO_AGENT));
            }
            if error.kind() == ErrorKind::Timeout {
                attempt = (attempt * 2).min(ATTEMPT.1);
            }
            tokio::time::sleep(pause).await;
            pause = (pause * 3 / 2).min(PAUSE.1);
        }
    }

    /// Starts a command in the guest.
    ///
    /// # Errors
    /// As for [`Agent::connect`]; [`ErrorKind::Guest`] if it can't be started: then
    /// [`status_for_shell`] tells the statuses 126 and 127.
    pub async fn exec(&self, command: &Command) -> Result<Session> {
        let connection = self.connect(self.patience).await?;
        connection.exec(command, self.patience).await
    }

    /// Starts the guest's main command: what it writes goes to the guest's console, and when it
    /// ends, the guest does; the record of its VM then tells how. It needs no connection. A
    /// guest has one at most.
    ///
    /// # Errors
    /// As for [`Agent::exec`]; [`ErrorKind::Invalid`] for a command with a standard input or a
    /// terminal; [`ErrorKind::Guest`] if the guest has one already, has no console, or its
    /// agent is older than this operation.
    pub async fn run_main(&self, command: &Command) -> Result<MainCommand> {
        let connection = self.connect(self.patience).await?;
        connection.run_main(command, self.patience).await
    }

    /// Copies a regular file of the guest into `writer`.
    ///
    /// # Errors
    /// As for [`Agent::connect`]; [`ErrorKind::NotFound`] or [`ErrorKind::Guest`] if the guest
    /// refuses; [`ErrorKind::Io`] if `writer` fails. `writer` may then hold part of the file.
    pub async fn read_file(
        &self,
        path: impl AsRef<Path>,
        writer: impl AsyncWrite + Unpin,
    ) -> Result<FileInfo> {
        let connection = self.connect(self.patience).await?;
        connection
            .read_file(path.as_ref(), writer, self.patience)
            .await
    }

    /// Writes all that `reader` gives to a file of the guest, which is made, or replaced at the
    /// end. `mode` are permission bits; without them those of the old file stay, and a new one
    /// gets 0644.
    ///
    /// # Errors
    /// As for [`Agent::connect`]; [`ErrorKind::Guest`] if the guest refuses;
    /// [`ErrorKind::Io`] if `reader` fails. The old file then stays as it was.
    pub async fn write_file(
        &self,
        path: impl AsRef<Path>,
        mode: Option<u32>,
        reader: impl AsyncRead + Unpin,
    ) -> Result<()> {
        let connection = self.connect(self.patience).await?;
        connection
            .write_file(path.as_ref(), mode, reader, self.patience)
            .await
    }

    /// Asks the agent for its clocks.
    ///
    /// # Errors
    /// As for [`Agent::connect`].
    pub async fn ping(&self) -> Result<Pong> {
        self.connect(self.patience).await?.ping(self.patience).await
    }

    /// Sets the guest's clock, in nanoseconds since 1970-01-01 00:00 UTC.
    ///
    /// # Errors
    /// As for [`Agent::connect`]; [`ErrorKind::Guest`] if the guest refuses.
    pub async fn set_clock(&self, unix_nanos: u64) -> Result<()> {
        let connection = self.connect(self.patience).await?;
        connection.set_clock(unix_nanos, self.patience).await
    }

    /// Stirs 1 to 512 random bytes into the guest's kernel, whose generator gives other numbers
    /// at once: what a guest needs that was restored from a snapshot.
    ///
    /// # Errors
    /// As for [`Agent::connect`]; [`ErrorKind::Guest`] if the guest refuses, or its agent is
    /// older than this operation.
    pub async fn add_entropy(&self, bytes: &[u8]) -> Result<()> {
        let connection = self.connect(self.patience).await?;
        connection.add_entropy(bytes, self.patience).await
    }

    /// Gives the interface that has one address another, with MAC address and gateway: what a
    /// guest needs that was restored from a snapshot while somebody else has its address.
    ///
    /// # Errors
    /// As for [`Agent::connect`]; [`ErrorKind::Guest`] if no interface has the address, or the
    /// agent is older than this operation.
    pub async fn move_address(&self, wanted: &Move) -> Result<()> {
        let connection = self.connect(self.patience).await?;
        connection.move_address(wanted, self.patience).await
    }

    /// Asks the guest to end: its init stops everything, then resets the machine, which ends
    /// Firecracker. Returns when the guest has understood, not when it has ended.
    ///
    /// # Errors
    /// As for [`Agent::connect`]; [`ErrorKind::Guest`] if the guest refuses.
    pub async fn shutdown(&self) -> Result<()> {
        self.connect(self.patience)
            .await?
            .shutdown(self.patience)
            .await
    }
}
