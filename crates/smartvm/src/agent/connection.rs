//! One greeted connection: good for one request.

use std::path::Path;
use std::time::Duration;

use smartvm_agent::protocol::{
    Accepted, AddEntropy, Exec, Frame, Greeting, Kind, MAIN_SINCE, MoveAddress, Operation, Pong,
    ProtocolError, ReadFile, Request, RunMain, SetClock, WriteFile, negotiate,
};
use tokio::io::{AsyncRead, AsyncWrite};

use super::command::Command;
use super::fault;
use super::file::{self, FileInfo};
use super::session::{Session, Stream};
use super::wire::{Incoming, Outgoing};
use crate::wiring::Move;
use crate::{Error, ErrorKind, Result};

/// The main command of a guest, begun. For as long as this lives, at most ten seconds, the guest
/// outlives its command: so its end can't come before who started it has noted that it runs.
#[derive(Debug)]
pub struct MainCommand {
    pid: Option<i32>,
    _connection: Connection,
}

impl MainCommand {
    /// The command's process id in the guest.
    pub fn pid(&self) -> Option<i32> {
        self.pid
    }
}

/// A connection on which the agent has greeted. It carries one request: then it is used up.
pub struct Connection {
    incoming: Incoming,
    outgoing: Outgoing,
    greeting: Greeting,
    version: u32,
}

impl std::fmt::Debug for Connection {
    fn fmt(&self, out: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        out.debug_struct("Connection")
            .field("greeting", &self.greeting)
            .finish_non_exhaustive()
    }
}

impl Connection {
    /// Makes a session of a byte stream that leads to an agent: a connected socket, or the
    /// other end of a guest's virtio port.
    ///
    /// # Errors
    /// [`ErrorKind::Timeout`] without a greeting within `deadline`; [`ErrorKind::Guest`] if the
    /// stream ends; [`ErrorKind::Corrupt`] if it carries something else, or the agent speaks no
    /// version that this build does.
    pub async fn over(stream: impl Stream, deadline: Duration) -> Result<Self> {
        const DOING: &str = "waiting for the guest's agent";
        let (read, write) = tokio::io::split(Box::new(stream) as Box<dyn Stream>);
        let (mut incoming, outgoing) = (Incoming::new(read), Outgoing::new(write));
        let frame = within(deadline, DOING, incoming.next(DOING)).await?;
        let greeting = Greeting::decode(&frame).map_err(|error| fault::protocol(DOING, error))?;
        let version = negotiate(&greeting.versions).ok_or_else(|| {
            let message = format!(
                "the guest's agent {} speaks protocol versions {:?}, none of which this host does",
                greeting.agent, greeting.versions
            );
            Error::new(ErrorKind::Corrupt, message).hint(fault::OTHER_VERSION)
        })?;
        Ok(Self {
            incoming,
            outgoing,
            greeting,
            version,
        })
    }

    /// What the agent said about itself.
    pub fn greeting(&self) -> &Greeting {
        &self.greeting
    }

    pub(crate) fn into_greeting(self) -> Greeting {
        self.greeting
    }

    /// Starts a command in the guest. The guest may take `deadline` to start it; the command
    /// itself may take any time.
    ///
    /// # Errors
    /// As for [`super::Agent::exec`].
    pub async fn exec(mut self, command: &Command, deadline: Duration) -> Result<Session> {
        let request: Exec = command.request().clone();
        let doing = match request.argv.first() {
            Some(program) => format!("running {program:?} in the guest"),
            None => "running a command in the guest".to_owned(),
        };
        let accepted = self
            .begin(Operation::Exec(request), &doing, deadline)
            .await?;
        let pid = accepted.pid;
        Ok(Session::new(self.incoming, self.outgoing, doing, pid))
    }

    /// As [`super::Agent::run_main`].
    ///
    /// # Errors
    /// As there.
    pub async fn run_main(mut self, command: &Command, deadline: Duration) -> Result<MainCommand> {
        let Exec {
            argv,
            env,
            cwd,
            user,
            stdin,
            tty,
        } = command.request().clone();
        let doing = match argv.first() {
            Some(program) => format!("running {program:?} as the guest's main command"),
            None => "running the guest's main command".to_owned(),
        };
        if stdin || tty.is_some() {
            let message = format!("{doing}: it can have neither a standard input nor a terminal");
            return Err(Error::new(ErrorKind::Invalid, message));
        }
        if self.version < MAIN_SINCE {
            let agent = &self.greeting.agent;
            let message = format!("{doing}: its agent {agent} is too old for that");
            return Err(Error::new(ErrorKind::Guest, message).hint(fault::OTHER_VERSION));
        }
        let request = RunMain {
            argv,
            env,
            cwd,
            user,
        };
        let accepted = self
            .begin(Operation::RunMain(request), &doing, deadline)
            .await?;
        Ok(MainCommand {
            pid: accepted.pid,
            _connection: self,
        })
    }

    /// As [`super::Agent::read_file`].
    ///
    /// # Errors
    /// As there.
    pub async fn read_file(
        mut self,
        path: &Path,
        writer: impl AsyncWrite + Unpin,
        deadline: Duration,
    ) -> Result<FileInfo> {
        let doing = format!("reading {} in the guest", path.display());
        let request = Operation::ReadFile(ReadFile {
            path: path.to_owned(),
        });
        let accepted = self.begin(request, &doing, deadline).await?;
        file::receive(&mut self.incoming, accepted, writer, &doing).await
    }

    /// As [`super::Agent::write_file`].
    ///
    /// # Errors
    /// As there.
    pub async fn write_file(
        mut self,
        path: &Path,
        mode: Option<u32>,
        reader: impl AsyncRead + Unpin,
        deadline: Duration,
    ) -> Result<()> {
        let doing = format!("writing {} in the guest", path.display());
        let request = Operation::WriteFile(WriteFile {
            path: path.to_owned(),
            mode,
        });
        self.begin(request, &doing, deadline).await?;
        file::send(&mut self.incoming, &mut self.outgoing, reader, &doing).await
    }

    /// As [`super::Agent::ping`].
    ///
    /// # Errors
    /// As there.
    pub async fn ping(self, deadline: Duration) -> Result<Pong> {
        const DOING: &str = "asking the guest's agent for its clocks";
        let frame = self.ask(Operation::Ping, DOING, deadline).await?;
        Pong::decode(&frame).map_err(|error| fault::protocol(DOING, error))
    }

    /// As [`super::Agent::set_clock`].
    ///
    /// # Errors
    /// As there.
    pub async fn set_clock(self, unix_nanos: u64, deadline: Duration) -> Result<()> {
        let request = Operation::SetClock(SetClock { unix_nanos });
        self.ask(request, "setting the guest's clock", deadline)
            .await
            .map(drop)
    }

    /// As [`super::Agent::add_entropy`].
    ///
    /// # Errors
    /// As there.
    pub async fn add_entropy(self, bytes: &[u8], deadline: Duration) -> Result<()> {
        const DOING: &str = "giving the guest randomness";
        self.ask(
            Operation::AddEntropy(AddEntropy::new(bytes)),
            DOING,
            deadline,
        )
        .await
        .map(drop)
    }

    /// As [`super::Agent::move_address`].
    ///
    /// # Errors
    /// As there.
    pub async fn move_address(self, wanted: &Move, deadline: Duration) -> Result<()> {
        const DOING: &str = "giving the guest another address";
        let request = MoveAddress {
            from: wanted.from,
            to: wanted.to,
            netmask: wanted.netmask,
            gateway: wanted.gateway,
            mac: wanted.mac.to_string(),
        };
        self.ask(Operation::MoveAddress(request), DOING, deadline)
            .await
            .map(drop)
    }

    /// As [`super::Agent::shutdown`].
    ///
    /// # Errors
    /// As there.
    pub async fn shutdown(self, deadline: Duration) -> Result<()> {
        self.ask(Operation::Shutdown, "asking the guest to end", deadline)
            .await
            .map(drop)
    }

    /// Makes a request that is answered by one frame.
    async fn ask(mut self, operation: Operation, doing: &str, deadline: Duration) -> Result<Frame> {
        let answer = async {
            self.request(operation, doing).await?;
            self.expect(Kind::Done, doing).await
        };
        within(deadline, doing, answer).await
    }

    /// Makes a request that goes on after it was accepted.
    async fn begin(
        &mut self,
        operation: Operation,
        doing: &str,
        deadline: Duration,
    ) -> Result<Accepted> {
        let answer = async {
            self.request(operation, doing).await?;
            let frame = self.expect(Kind::Accepted, doing).await?;
            Accepted::decode(&frame).map_err(|error| fault::protocol(doing, error))
        };
        within(deadline, doing, answer).await
    }

    async fn request(&mut self, operation: Operation, doing: &str) -> Result<()> {
        let request = Request {
            version: self.version,
            operation,
        };
        request.encode(self.outgoing.buffer()).map_err(|error| {
            Error::new(ErrorKind::Invalid, doing)
                .because(error)
                .hint("arguments and environment together must stay below 1 MiB, and be UTF-8")
        })?;
        self.outgoing.flush(doing).await
    }

    async fn expect(&mut self, kind: Kind, doing: &str) -> Result<Frame> {
        let frame = self.incoming.next(doing).await?;
        if frame.kind == kind {
            return Ok(frame);
        }
        Err(fault::protocol(
            doing,
            ProtocolError::Unexpected(frame.kind),
        ))
    }
}

async fn within<T>(
    deadline: Duration,
    doing: &str,
    work: impl Future<Output = Result<T>>,
) -> Result<T> {
    tokio::time::timeout(deadline, work)
        .await
        .unwrap_or_else(|_| Err(fault::late(doing, deadline)))
}
