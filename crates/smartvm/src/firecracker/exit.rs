//! What the end of a Firecracker process means.

use std::fmt;

use serde::{Deserialize, Serialize};
use smartvm_agent::protocol::Exit;

use crate::agent::ExitStatus;

/// How a process ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
#[non_exhaustive]
pub enum Ended {
    /// It exited with this status, 0 to 255.
    Exited(u8),
    /// This signal ended it.
    Killed(u8),
    /// Nobody saw how: its keeper was gone before it.
    Unseen,
}

impl fmt::Display for Ended {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Exited(code) => match explain(*code) {
                Some(meaning) => write!(out, "exit status {code} ({meaning})"),
                None => write!(out, "exit status {code}"),
            },
            Self::Killed(signal) => write!(out, "signal {signal}"),
            Self::Unseen => out.write_str("unseen"),
        }
    }
}

/// What Firecracker means by an exit status, from `src/firecracker/src/main.rs` and
/// `src/vmm/src/lib.rs` of its source.
fn explain(code: u8) -> Option<&'static str> {
    Some(match code {
        0 => "the guest reset",
        1 => "a general error",
        2 => "a generic exit code",
        148 => "a system call that its seccomp filter forbids",
        149 => "SIGBUS: a memory or drive file was truncated, or the host is out of memory",
        150 => "SIGSEGV",
        151 => "SIGXFSZ: a file grew over its limit",
        152 => "a bad configuration",
        153 => "bad arguments",
        154 => "SIGXCPU: over its CPU time limit",
        155 => "SIGPIPE",
        156 => "SIGHUP",
        157 => "SIGILL",
        _ => return None,
    })
}

/// Why a microVM ended.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
#[non_exhaustive]
pub enum Reason {
    /// It was asked to stop, and did.
    Stopped,
    /// It was asked to stop, and was killed: at once, or after its deadline.
    Killed,
    /// The guest reset itself (`reboot`, or the agent's power-off).
    GuestReset,
    /// The guest's main command ended, and the guest with it.
    CommandEnded(ExitStatus),
    /// The guest's kernel panicked.
    GuestPanic,
    /// Its time was up (`maxRuntimeS`, `--timeout`).
    LifetimeReached,
    /// The process that owned it ended.
    OwnerEnded,
    /// Its keeper was told to end (SIGTERM, SIGINT or SIGHUP), as at the host's shutdown.
    KeeperStopped,
    /// It could not be started; the message says why.
    StartFailed(String),
    /// Something else on the host killed Firecracker.
    KilledFromOutside,
    /// Firecracker itself failed.
    VmmError,
    /// The host was started anew.
    HostRebooted,
    /// Its keeper was gone, so nobody saw it end.
    Unknown,
}

impl Reason {
    /// Whether this is an end that a user would call a failure.
    pub fn is_failure(&self) -> bool {
        match self {
            Self::CommandEnded(status) => !status.success(),
            Self::GuestPanic
            | Self::StartFailed(_)
            | Self::KilledFromOutside
            | Self::VmmError
            | Self::HostRebooted
            | Self::Unknown => true,
            Self::Stopped
            | Self::Killed
            | Self::GuestReset
            | Self::LifetimeReached
            | Self::OwnerEnded
            | Self::KeeperStopped => false,
        }
    }
}

impl fmt::Display for Reason {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Stopped => out.write_str("stopped"),
            Self::Killed => out.write_str("killed on request"),
            Self::GuestReset => out.write_str("the guest reset"),
            Self::CommandEnded(status) => write!(out, "its command ended: {status}"),
            Self::GuestPanic => out.write_str("the guest's kernel panicked"),
            Self::LifetimeReached => out.write_str("its time was up"),
            Self::OwnerEnded => out.write_str("its owner ended"),
            Self::KeeperStopped => out.write_str("its keeper was told to end"),
            Self::StartFailed(why) => write!(out, "it could not be started: {why}"),
            Self::KilledFromOutside => out.write_str("Firecracker was killed from outside"),
            Self::VmmError => out.write_str("Firecracker failed"),
            Self::HostRebooted => out.write_str("the host was started anew"),
            Self::Unknown => out.write_str("unknown: its keeper was gone"),
        }
    }
}

/// The reason, out of how Firecracker ended and what the guest last printed, where nobody
/// asked for the end.
pub fn reason_unasked(ended: Ended, console_tail: &[u8]) -> Reason {
    match ended {
        Ended::Exited(0) => reason_of_reset(console_tail),
        Ended::Exited(_) => Reason::VmmError,
        Ended::Killed(_) => Reason::KilledFromOutside,
        Ended::Unseen => Reason::Unknown,
    }
}

/// A triple fault, a reset after a panic and the end of the main command look like a reboot: the
/// console tells, by what it shows last.
fn reason_of_reset(console: &[u8]) -> Reason {
    const PANIC: &[u8] = b"Kernel panic - not syncing";
    let panic = console
        .windows(PANIC.len())
        .rposition(|window| window == PANIC);
    match (panic, Exit::last_on_console(console)) {
        (panic, Some((at, exit))) if panic < Some(at) => Reason::CommandEnded(exit.into()),
        (Some(_), _) => Reason::GuestPanic,
        (None, _) => Reason::GuestReset,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn exit_zero_is_a_reset_unless_the_console_shows_a_panic() {
        assert_eq!(reason_unasked(Ended::Exited(0), b"bye"), Reason::GuestReset);
        let panic = b"[ 0.1] Kernel panic - not syncing: VFS: Unable to mount root fs";
        assert_eq!(reason_unasked(Ended::Exited(0), panic), Reason::GuestPanic);
        assert_eq!(reason_unasked(Ended::Exited(148), panic), Reason::VmmError);
        let line = Exit::Code(3).console_line();
        let command = |console: &str| reason_unasked(Ended::Exited(0), console.as_bytes());
        let ended = Reason::CommandEnded(ExitStatus::Code(3));
        assert_eq!(command(&line), ended);
        assert_eq!(
            command(&format!("it said: Kernel panic - not syncing\n{line}")),
            ended
        );
        assert_eq!(
            command(&format!("{line}Kernel panic - not syncing\n")),
            Reason::GuestPanic
        );
        assert_eq!(
            reason_unasked(Ended::Killed(9), b""),
            Reason::KilledFromOutside
        );
    }

    #[test]
    fn a_command_that_fails_is_a_failure_and_is_told_in_words_and_in_json() {
        let failed = Reason::CommandEnded(ExitStatus::Signal(9));
        assert!(failed.is_failure());
        assert!(!Reason::CommandEnded(ExitStatus::Code(0)).is_failure());
        assert_eq!(failed.to_string(), "its command ended: signal 9");
        let json = serde_json::json!({ "command-ended": { "signal": 9 } });
        assert_eq!(serde_json::to_value(failed).unwrap(), json);
    }

    #[test]
    fn known_exit_codes_are_explained() {
        assert!(Ended::Exited(148).to_string().contains("seccomp"));
        assert_eq!(Ended::Exited(99).to_string(), "exit status 99");
        assert_eq!(Ended::Killed(9).to_string(), "signal 9");
    }
}
