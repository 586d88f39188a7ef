//! The wire protocol between the host and the guest's agent.
//!
//! One connection is one session: the agent greets, the host makes one request, the session
//! runs, the connection ends. docs/agent-protocol.md describes it in full.

mod console;
mod frame;
mod message;

pub use frame::{Decoder, Frame, Kind, MAX_PAYLOAD, MAX_REQUEST, ProtocolError, encode};
pub use message::{
    Accepted, AddEntropy, ErrorCode, Exec, Exit, Greeting, MoveAddress, Operation, Pong, ReadFile,
    Refusal, Request, RunMain, SetClock, Terminal, WriteFile,
};

/// The vsock port on which the agent listens inside the guest.
pub const PORT: u32 = 29558;

/// The newest version of the protocol: what this build speaks by preference.
pub const VERSION: u32 = 4;

/// The versions that this build speaks, newest first. Hosts speak the two latest ones, so that
/// a guest of the previous release still answers.
pub const VERSIONS: &[u32] = &[VERSION, 3];

/// The first version that has [`Operation::MoveAddress`].
pub const MOVE_SINCE: u32 = 3;

/// The first version that has [`Operation::RunMain`].
pub const MAIN_SINCE: u32 = 4;

/// The bytes of randomness that one request carries at most.
pub const MOST_ENTROPY: usize = 512;

/// The stdin bytes of one command that the agent holds for it at most: its first grant of
/// credit.
pub const STDIN_WINDOW: u32 = 256 * 1024;

/// The sessions that one agent serves at the same time; beyond it new ones are refused with
/// [`ErrorCode::Busy`].
pub const MAX_SESSIONS: usize = 256;

/// The newest version that both sides speak, if there is one.
pub fn negotiate(offered: &[u32]) -> Option<u32> {
    VERSIONS
        .iter()
        .copied()
        .find(|version| offered.contains(version))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_newest_common_version_is_chosen() {
        assert_eq!(negotiate(&[VERSION + 1, VERSION]), Some(VERSION));
        assert_eq!(negotiate(&[VERSION + 1]), None);
        assert_eq!(negotiate(&[3, 2]), Some(3), "a guest of the previous one");
        assert_eq!(negotiate(&[2]), None, "a guest of the one before");
        assert_eq!(negotiate(&[]), None);
    }
}
