//! The messages inside frames that carry JSON.

use std::net::Ipv4Addr;
use std::path::PathBuf;

use serde::{Deserialize, Serialize};

use super::frame::{Frame, Kind, ProtocolError, encode_json};

/// What the agent says first. A host must accept members that it doesn't know.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Greeting {
    /// The protocol versions that the agent speaks, newest first.
    pub versions: Vec<u32>,
    /// The agent's own version, for people.
    pub agent: String,
    /// The guest kernel's boot id: differs after every boot, not after a restored snapshot.
    pub boot_id: String,
}

/// The host's one request on a connection.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Request {
    /// The protocol version that the host chose from the greeting.
    pub version: u32,
    /// What is to be done.
    pub operation: Operation,
}

/// What the agent can do.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub enum Operation {
    /// Run a command.
    Exec(Exec),
    /// Run the guest's main command. Since version 4.
    RunMain(RunMain),
    /// Send a file's contents.
    ReadFile(ReadFile),
    /// Replace a file's contents.
    WriteFile(WriteFile),
    /// Answer.
    Ping,
    /// Set the guest's clock.
    SetClock(SetClock),
    /// Stir randomness into the guest's generator, which gives other numbers at once. Since
    /// version 2.
    AddEntropy(AddEntropy),
    /// Give an interface another address. Since version 3.
    MoveAddress(MoveAddress),
    /// End the guest: its init is asked to stop everything, then the machine is reset.
    Shutdown,
}

/// A command to run. Where the text of these fields isn't UTF-8 it can't be expressed.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Exec {
    /// The program and its arguments; never empty. A program without a slash is looked for in
    /// the command's PATH.
    pub argv: Vec<String>,
    /// Environment variables, over the defaults (PATH, HOME, USER, LOGNAME, SHELL, and TERM with a terminal).
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub env: Vec<(String, String)>,
    /// The working directory; by default the user's home directory if there is one, else `/`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cwd: Option<PathBuf>,
    /// `USER`, `UID`, `USER:GROUP` or `UID:GID`; by default root.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub user: Option<String>,
    /// Whether the host will send stdin; otherwise the command reads from /dev/null.
    #[serde(default)]
    pub stdin: bool,
    /// Runs the command on a terminal of its own: stdout and stderr are then one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub tty: Option<Terminal>,
}

/// The guest's main command: its output goes to the console, and its end is the guest's. As for
/// [`Exec`].
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct RunMain {
    /// The program and its arguments; never empty.
    pub argv: Vec<String>,
    /// Environment variables, over the defaults.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub env: Vec<(String, String)>,
    /// The working directory.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cwd: Option<PathBuf>,
    /// The user.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub user: Option<String>,
}

/// The terminal that a command gets.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Terminal {
    /// Height in lines.
    pub rows: u16,
    /// Width in columns.
    pub cols: u16,
    /// The value of TERM.
    pub term: String,
}

/// A regular file to read.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct ReadFile {
    /// The file's absolute path.
    pub path: PathBuf,
}

/// A file to write: made, or replaced as a whole once all of it has come.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct WriteFile {
    /// The file's absolute path, in a directory that exists.
    pub path: PathBuf,
    /// Permission bits (0 to 0o7777); by default those of the file being replaced, else 0644.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub mode: Option<u32>,
}

/// The time to set.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct SetClock {
    /// Nanoseconds since 1970-01-01 00:00 UTC.
    pub unix_nanos: u64,
}

/// Another address for the interface that has `from`. If none has it and one has `to`, that was
/// done before.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct MoveAddress {
    /// The address that the interface has.
    pub from: Ipv4Addr,
    /// The one that it gets.
    pub to: Ipv4Addr,
    /// The netmask.
    pub netmask: Ipv4Addr,
    /// Where all goes that is for others.
    pub gateway: Ipv4Addr,
    /// The MAC address, `06:00:0a:00:00:02`.
    pub mac: String,
}

impl MoveAddress {
    /// The MAC address; `None` if it isn't one of a single device.
    pub fn mac(&self) -> Option<[u8; 6]> {
        let mut mac = [0; 6];
        let mut parts = self.mac.split(':');
        for place in &mut mac {
            let part = parts.next().filter(|part| part.len() == 2)?;
            *place = u8::from_str_radix(part, 16).ok()?;
        }
        (parts.next().is_none() && mac[0] & 1 == 0).then_some(mac)
    }
}

/// Randomness for the guest's kernel.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct AddEntropy {
    /// The bytes in hexadecimal: 1 to [`super::MOST_ENTROPY`] of them.
    pub hex: String,
}

impl std::fmt::Debug for AddEntropy {
    // What makes keys is never shown.
    fn fmt(&self, out: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(out, "AddEntropy({} bytes)", self.hex.len() / 2)
    }
}

impl AddEntropy {
    /// The randomness `bytes`.
    pub fn new(bytes: &[u8]) -> Self {
        use std::fmt::Write as _;
        let hex = bytes.iter().fold(String::new(), |mut hex, byte| {
            // Writing to a String can't fail.
            let _ = write!(hex, "{byte:02x}");
            hex
        });
        Self { hex }
    }

    /// The bytes; None where this isn't hexadecimal, or none or too many.
    pub fn bytes(&self) -> Option<Vec<u8>> {
        let hex = self.hex.as_bytes();
        if hex.is_empty() || !hex.len().is_multiple_of(2) || hex.len() / 2 > super::MOST_ENTROPY {
            return None;
        }
        let digit = |byte: u8| char::from(byte).to_digit(16);
        hex.chunks(2)
            .map(|pair| u8::try_from(digit(pair[0])? * 16 + digit(pair[1])?).ok())
            .collect()
    }
}

/// The request has begun. A host must accept members that it doesn't know.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Accepted {
    /// For a command: its process id in the guest.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub pid: Option<i32>,
    /// For a file being read: its size in bytes when it was opened (0 for files of /proc).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub size: Option<u64>,
    /// For a file being read: its permission bits.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub mode: Option<u32>,
}

/// The answer to a ping. A host must accept members that it doesn't know.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Pong {
    /// The guest's clock: nanoseconds since 1970-01-01 00:00 UTC.
    pub unix_nanos: u64,
    /// Nanoseconds since the guest booted.
    pub uptime_nanos: u64,
}

/// How a command ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Exit {
    /// By itself, with this status (0 to 255).
    Code(i32),
    /// By this signal.
    Signal(i32),
}

/// The request can't be carried out, or failed on the way.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, thiserror::Error)]
#[serde(rename_all = "camelCase")]
#[error("{message}")]
pub struct Refusal {
    /// What sort of failure, for programs.
    pub code: ErrorCode,
    /// What was being done, to which thing, and what went wrong, for people.
    pub message: String,
}

impl Refusal {
    /// A refusal.
    pub fn new(code: ErrorCode, message: impl Into<String>) -> Self {
        Self {
            code,
            message: message.into(),
        }
    }
}

/// What sort of failure a [`Refusal`] is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
#[non_exhaustive]
pub enum ErrorCode {
    /// None of the versions that the agent speaks.
    UnsupportedVersion,
    /// The request can't be understood.
    BadRequest,
    /// A frame was damaged, oversized or out of place.
    Protocol,
    /// Too many sessions at the same time.
    Busy,
    /// The program doesn't exist (a shell's status 127).
    CommandNotFound,
    /// The program exists and can't be run (a shell's status 126).
    NotExecutable,
    /// No such user or group in the guest.
    NoSuchUser,
    /// The working directory, or the directory of a file, doesn't exist.
    NoSuchDirectory,
    /// The file doesn't exist.
    FileNotFound,
    /// Something that isn't a regular file where one is needed.
    NotAFile,
    /// Something forbade it.
    PermissionDenied,
    /// The guest's disk is full.
    NoSpace,
    /// This agent can't do it where it runs.
    Unsupported,
    /// Anything else that the guest's kernel refused.
    Failed,
    /// A code that this build doesn't know yet.
    #[serde(other)]
    Unknown,
}

/// Binds messages to the kind of the frame that carries them.
macro_rules! in_frame {
    ($($message:ty => $kind:expr),+ $(,)?) => {$(
        impl $message {
            /// Appends this as a frame to `out`.
            ///
            /// # Errors
            /// If it is too large for a frame; `out` is then unchanged.
            pub fn encode(&self, out: &mut Vec<u8>) -> Result<(), ProtocolError> {
                encode_json($kind, self, out)
            }

            /// Reads this from a frame.
            ///
            /// # Errors
            /// If the frame is of another kind, or its payload isn't of this shape.
            pub fn decode(frame: &Frame) -> Result<Self, ProtocolError> {
                if frame.kind == $kind {
                    frame.json()
                } else {
                    Err(ProtocolError::Unexpected(frame.kind))
                }
            }
        }
    )+};
}

in_frame! {
    Greeting => Kind::Greeting,
    Request => Kind::Request,
    Accepted => Kind::Accepted,
    Pong => Kind::Done,
    Exit => Kind::Exit,
    Refusal => Kind::Refusal,
}
