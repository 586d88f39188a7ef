//! One session: greeting, one request, its end.

use std::io;
use std::os::fd::OwnedFd;
use std::path::PathBuf;
use std::time::{Duration, Instant};

use super::connection::{Broken, Connection};
use super::main_command::{self, Place};
use super::{address, entropy, exec, file};
use crate::protocol::{
    ErrorCode, Greeting, Kind, Operation, Pong, Refusal, Request, SetClock, VERSIONS, encode,
    negotiate,
};

/// How long a host may take to make its request.
const REQUEST_PATIENCE: Duration = Duration::from_secs(30);

/// How long a host may take to close the connection after the last frame.
const CLOSE_PATIENCE: Duration = Duration::from_secs(2);

/// The longest message of a refusal in bytes: it may quote the request.
const MESSAGE_LIMIT: usize = 4096;

/// What sessions need to know about the guest they run in.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub struct Guest {
    /// Where `passwd` and `group` are: `/etc`.
    pub etc: PathBuf,
    /// Ends the guest; None where the agent is an ordinary process and may not.
    pub shutdown: Option<fn() -> io::Result<()>>,
    /// The soft limit on descriptors that commands get; None leaves them the agent's own.
    pub descriptors: Option<u64>,
    /// Where the main command's output goes: `/dev/console`.
    pub console: PathBuf,
    pub(crate) main: Place,
}

impl Guest {
    /// The agent is an ordinary process: it can't shut its machine down.
    pub fn ordinary() -> Self {
        Self {
            etc: "/etc".into(),
            shutdown: None,
            descriptors: None,
            console: "/dev/console".into(),
            main: Place::default(),
        }
    }

    /// The agent looks after the whole guest; `shutdown` ends it.
    pub fn whole(shutdown: fn() -> io::Result<()>) -> Self {
        Self {
            shutdown: Some(shutdown),
            ..Self::ordinary()
        }
    }
}

/// Why a session ended before its time: told to the host as far as that is possible.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Failure {
    /// The request can't be carried out.
    #[error(transparent)]
    Refused(#[from] Refusal),
    /// The connection is of no use any more.
    #[error(transparent)]
    Broken(#[from] Broken),
}

impl From<crate::protocol::ProtocolError> for Failure {
    fn from(error: crate::protocol::ProtocolError) -> Self {
        Self::Broken(error.into())
    }
}

/// What is left to do when a session has come to its end.
pub(crate) struct End {
    /// How long the host may take to close the connection.
    pub(crate) patience: Duration,
    /// Ends the guest after that.
    pub(crate) shutdown: Option<fn() -> io::Result<()>>,
}

impl End {
    const PLAIN: Self = Self {
        patience: CLOSE_PATIENCE,
        shutdown: None,
    };
}

/// Serves one session on a connected socket or port, from the greeting to the end.
///
/// # Errors
/// What ended the session early, for the agent's log; the host has been told where it could be.
pub fn serve(fd: OwnedFd, guest: &Guest) -> io::Result<()> {
    let mut connection = Connection::new(fd)?;
    let result = session(&mut connection, guest);
    let outcome = match &result {
        Ok(_) | Err(Failure::Broken(Broken::Gone)) => Ok(()),
        Err(failure) => Err(io::Error::other(failure.to_string())),
    };
    match result {
        Ok(end) => {
            connection.finish(end.patience);
            if let Some(shutdown) = end.shutdown {
                shutdown()?;
            }
        }
        Err(Failure::Refused(refusal)) => refuse(connection, refusal),
        Err(Failure::Broken(Broken::Protocol(error))) => {
            refuse(
                connection,
                Refusal::new(ErrorCode::Protocol, error.to_string()),
            );
        }
        Err(Failure::Broken(_)) => {}
    }
    outcome
}

/// Refuses a connection instead of serving it.
///
/// # Errors
/// If the descriptor can't be used at all.
pub fn serve_refusal(fd: OwnedFd, refusal: Refusal) -> io::Result<()> {
    refuse(Connection::new(fd)?, refusal);
    Ok(())
}

fn refuse(mut connection: Connection, mut refusal: Refusal) {
    let end = refusal.message.floor_char_boundary(MESSAGE_LIMIT);
    refusal.message.truncate(end);
    if refusal.encode(connection.buffer()).is_ok() {
        connection.finish(CLOSE_PATIENCE);
    }
}

fn session(connection: &mut Connection, guest: &Guest) -> Result<End, Failure> {
    Greeting {
        versions: VERSIONS.to_vec(),
        agent: env!("CARGO_PKG_VERSION").to_owned(),
        boot_id: boot_id(),
    }
    .encode(connection.buffer())?;
    connection.flush(None)?;

    let request = receive_request(connection)?;
    match request.operation {
        Operation::Exec(command) => exec::run(connection, &command, guest)?,
        Operation::RunMain(command) => return main_command::run(connection, &command, guest),
        Operation::ReadFile(what) => file::read(connection, &what)?,
        Operation::WriteFile(what) => file::write(connection, &what)?,
        Operation::Ping => {
            pong().encode(connection.buffer())?;
            connection.flush(None)?;
        }
        Operation::SetClock(time) => {
            set_clock(time)?;
            done(connection)?;
        }
        Operation::AddEntropy(entropy) => {
            entropy::add(&entropy)?;
            done(connection)?;
        }
        Operation::MoveAddress(wanted) => {
            address::change(&wanted)?;
            done(connection)?;
        }
        Operation::Shutdown => {
            let shutdown = guest.shutdown.ok_or_else(|| {
                Refusal::new(
                    ErrorCode::Unsupported,
                    "shutting down: this agent is an ordinary process of its guest",
                )
            })?;
            done(connection)?;
            shutdown().map_err(|error| {
                Refusal::new(ErrorCode::Failed, format!("shutting down: {error}"))
            })?;
        }
    }
    Ok(End::PLAIN)
}

fn receive_request(connection: &mut Connection) -> Result<Request, Failure> {
    #[derive(serde::Deserialize)]
    struct Versioned {
        version: u32,
    }

    let frame = connection.receive(Some(Instant::now() + REQUEST_PATIENCE))?;
    if frame.kind != Kind::Request {
        return Err(crate::protocol::ProtocolError::Unexpected(frame.kind).into());
    }
    let bad = |error: crate::protocol::ProtocolError| {
        Refusal::new(ErrorCode::BadRequest, error.to_string())
    };
    // Another version's request may look different in all but its version.
    let Versioned { version } = frame.json().map_err(bad)?;
    if negotiate(&[version]).is_none() {
        return Err(Refusal::new(
            ErrorCode::UnsupportedVersion,
            format!("protocol version {version}: this agent speaks {VERSIONS:?}"),
        )
        .into());
    }
    Ok(Request::decode(&frame).map_err(bad)?)
}

/// Ends a request that has no result.
pub(crate) fn done(connection: &mut Connection) -> Result<(), Failure> {
    encode(Kind::Done, &[], connection.buffer())?;
    Ok(connection.flush(None)?)
}

fn pong() -> Pong {
    let nanos = |time: rustix::time::Timespec| {
        u64::try_from(i128::from(time.tv_sec) * 1_000_000_000 + i128::from(time.tv_nsec))
            .unwrap_or(0)
    };
    Pong {
        unix_nanos: nanos(rustix::time::clock_gettime(rustix::time::ClockId::Realtime)),
        uptime_nanos: nanos(rustix::time::clock_gettime(rustix::time::ClockId::Boottime)),
    }
}

fn set_clock(time: SetClock) -> Result<(), Refusal> {
    let seconds = i64::try_from(time.unix_nanos / 1_000_000_000).unwrap_or(i64::MAX);
    let nanos = i64::try_from(time.unix_nanos % 1_000_000_000).unwrap_or(0);
    rustix::time::clock_settime(
        rustix::time::ClockId::Realtime,
        rustix::time::Timespec {
            tv_sec: seconds,
            tv_nsec: nanos,
        },
    )
    .map_err(|error| {
        let code = match error {
            rustix::io::Errno::PERM => ErrorCode::PermissionDenied,
            _ => ErrorCode::Failed,
        };
        Refusal::new(code, format!("setting the clock: {error}"))
    })
}

fn boot_id() -> String {
    std::fs::read_to_string("/proc/sys/kernel/random/boot_id")
        .map(|id| id.trim().to_owned())
        .unwrap_or_default()
}
