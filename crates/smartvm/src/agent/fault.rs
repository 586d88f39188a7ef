//! The library's errors for what can go wrong with an agent.

use std::time::Duration;

use smartvm_agent::protocol::{ErrorCode, ProtocolError, Refusal};

use crate::{Error, ErrorKind};

/// The way out where nobody answers.
pub(crate) const NO_AGENT: &str = "the guest may still be booting, may have failed to boot (its \
     console shows why), or has no agent: the agent is in the initramfs that comes with images \
     made by `smartvm image build`, and needs virtio vsock support in the guest's kernel";

/// The agent's own words, if it is what refused: whatever was done to the error since.
pub fn refusal(error: &Error) -> Option<&Refusal> {
    let mut cause = std::error::Error::source(error);
    while let Some(error) = cause {
        if let Some(refusal) = error.downcast_ref() {
            return Some(refusal);
        }
        cause = error.source();
    }
    None
}

/// The status of a shell for a command that could not be started: 127 if it doesn't exist, 126
/// if it can't be run; None for all other errors.
pub fn status_for_shell(error: &Error) -> Option<u8> {
    match refusal(error)?.code {
        ErrorCode::CommandNotFound => Some(127),
        ErrorCode::NotExecutable => Some(126),
        _ => None,
    }
}

/// The agent refused, or could not go on.
pub(crate) fn refused(doing: &str, refusal: Refusal) -> Error {
    let kind = match refusal.code {
        ErrorCode::FileNotFound => ErrorKind::NotFound,
        ErrorCode::UnsupportedVersion => ErrorKind::Corrupt,
        _ => ErrorKind::Guest,
    };
    let hint = match refusal.code {
        ErrorCode::UnsupportedVersion => Some(OTHER_VERSION),
        ErrorCode::Busy => Some("wait for some of the commands in this guest to end"),
        _ => None,
    };
    let error = Error::new(kind, doing).because(refusal);
    match hint {
        Some(hint) => error.hint(hint),
        None => error,
    }
}

/// The way out where guest and host don't have a protocol version in common.
pub(crate) const OTHER_VERSION: &str = "the guest's agent comes from another version of \
     smartvm: build its image again with this one";

/// What came can't be right, or what shall be sent can't be.
pub(crate) fn protocol(doing: &str, error: ProtocolError) -> Error {
    Error::new(ErrorKind::Corrupt, doing).because(error)
}

/// The connection ended too early.
pub(crate) fn ended(doing: &str) -> Error {
    Error::new(
        ErrorKind::Guest,
        format!("{doing}: the guest's agent closed the connection"),
    )
    .hint("the guest has ended, was reset, or was restored from a snapshot")
}

/// The connection broke.
pub(crate) fn broken(doing: &str, error: std::io::Error) -> Error {
    use std::io::ErrorKind as Io;
    match error.kind() {
        Io::BrokenPipe | Io::ConnectionReset | Io::UnexpectedEof | Io::WriteZero => ended(doing),
        _ => Error::new(ErrorKind::Guest, doing).because(error),
    }
}

/// The guest took too long.
pub(crate) fn late(doing: &str, deadline: Duration) -> Error {
    let deadline = humantime::format_duration(deadline);
    Error::new(
        ErrorKind::Timeout,
        format!("{doing}: no answer within {deadline}"),
    )
    .hint(NO_AGENT)
}
