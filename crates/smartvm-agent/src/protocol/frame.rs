//! Frames: a length, a kind, a payload. Encoding and bounded, incremental decoding.

use serde::Serialize;
use serde::de::DeserializeOwned;

/// The largest payload of any frame but a request, in bytes.
pub const MAX_PAYLOAD: usize = 64 * 1024;

/// The largest payload of a request, in bytes: it carries a whole argument vector and
/// environment.
pub const MAX_REQUEST: usize = 1024 * 1024;

/// The header's size in bytes: the payload's length (u32, little endian) and the kind (u8).
const HEADER: usize = 5;

/// What a frame carries.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
pub enum Kind {
    /// Agent to host, first on every connection: [`super::Greeting`] as JSON.
    Greeting = 1,
    /// Agent to host, and the session's last frame: [`super::Refusal`] as JSON.
    Refusal = 2,
    /// Agent to host: the request has begun to be carried out; [`super::Accepted`] as JSON.
    Accepted = 3,
    /// Agent to host: the request is done; for a ping [`super::Pong`] as JSON, otherwise empty.
    Done = 4,
    /// Agent to host: bytes of the command's standard output (or of its terminal).
    Stdout = 5,
    /// Agent to host: bytes of the command's standard error.
    Stderr = 6,
    /// Agent to host: so many more bytes of stdin may be sent (u32, little endian).
    Credit = 7,
    /// Agent to host: how the command ended; [`super::Exit`] as JSON.
    Exit = 8,
    /// Host to agent, once: [`super::Request`] as JSON.
    Request = 65,
    /// Host to agent: bytes for the command's standard input.
    Stdin = 66,
    /// Host to agent: the command's standard input ends here. Empty.
    StdinEnd = 67,
    /// Host to agent: a signal for the command (i32, little endian).
    Signal = 68,
    /// Host to agent: the terminal's new size (rows and columns, each u16, little endian).
    Resize = 69,
    /// Both ways: bytes of a file.
    Data = 129,
    /// Both ways: the file ends here. Empty.
    DataEnd = 130,
}

impl Kind {
    fn from_wire(byte: u8) -> Option<Self> {
        Some(match byte {
            1 => Self::Greeting,
            2 => Self::Refusal,
            3 => Self::Accepted,
            4 => Self::Done,
            5 => Self::Stdout,
            6 => Self::Stderr,
            7 => Self::Credit,
            8 => Self::Exit,
            65 => Self::Request,
            66 => Self::Stdin,
            67 => Self::StdinEnd,
            68 => Self::Signal,
            69 => Self::Resize,
            129 => Self::Data,
            130 => Self::DataEnd,
            _ => return None,
        })
    }

    fn max_payload(self) -> usize {
        match self {
            Self::Request => MAX_REQUEST,
            _ => MAX_PAYLOAD,
        }
    }
}

/// What the other side sent can't be right. The connection is of no use any more.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum ProtocolError {
    /// The kind byte is none of the known ones.
    #[error("a frame of the unknown kind {0}")]
    UnknownKind(u8),
    /// The announced payload is larger than its kind allows.
    #[error("a {kind:?} frame of {length} bytes, where {limit} are the most")]
    TooLarge {
        /// The frame's kind.
        kind: Kind,
        /// The announced length in bytes.
        length: usize,
        /// The largest allowed length in bytes.
        limit: usize,
    },
    /// The payload isn't what its kind calls for.
    #[error("a {kind:?} frame whose payload can't be read: {reason}")]
    Payload {
        /// The frame's kind.
        kind: Kind,
        /// What is wrong with it.
        reason: String,
    },
    /// A frame that has no place at this point of the session.
    #[error("a {0:?} frame where none is allowed")]
    Unexpected(Kind),
    /// More bytes of stdin than were granted.
    #[error("{sent} bytes of stdin where {granted} were granted")]
    OverCredit {
        /// Bytes in the frame.
        sent: usize,
        /// Bytes that were granted and not used up yet.
        granted: usize,
    },
    /// The connection ended inside a frame.
    #[error("the connection ended within a frame")]
    Truncated,
}

/// One frame.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Frame {
    /// What the payload is.
    pub kind: Kind,
    /// The payload, within the limit of its kind.
    pub payload: Vec<u8>,
}

impl Frame {
    /// The payload as JSON.
    ///
    /// # Errors
    /// [`ProtocolError::Payload`] if it isn't JSON of this shape.
    pub fn json<T: DeserializeOwned>(&self) -> Result<T, ProtocolError> {
        serde_json::from_slice(&self.payload).map_err(|error| self.unreadable(error.to_string()))
    }

    /// The bytes granted by a [`Kind::Credit`] frame.
    ///
    /// # Errors
    /// [`ProtocolError::Payload`] if it isn't four bytes long.
    pub fn credit(&self) -> Result<u32, ProtocolError> {
        self.array().map(u32::from_le_bytes)
    }

    /// The signal's number in a [`Kind::Signal`] frame.
    ///
    /// # Errors
    /// [`ProtocolError::Payload`] if it isn't four bytes long.
    pub fn signal(&self) -> Result<i32, ProtocolError> {
        self.array().map(i32::from_le_bytes)
    }

    /// Rows and columns in a [`Kind::Resize`] frame.
    ///
    /// # Errors
    /// [`ProtocolError::Payload`] if it isn't four bytes long.
    pub fn size(&self) -> Result<(u16, u16), ProtocolError> {
        let [r0, r1, c0, c1] = self.array()?;
        Ok((u16::from_le_bytes([r0, r1]), u16::from_le_bytes([c0, c1])))
    }

    fn array<const N: usize>(&self) -> Result<[u8; N], ProtocolError> {
        self.payload
            .as_slice()
            .try_into()
            .map_err(|_| self.unreadable(format!("{} bytes instead of {N}", self.payload.len())))
    }

    fn unreadable(&self, reason: String) -> ProtocolError {
        ProtocolError::Payload {
            kind: self.kind,
            reason,
        }
    }
}

/// Appends a frame to `out`.
///
/// # Errors
/// [`ProtocolError::TooLarge`] if the payload is larger than its kind allows; `out` is then
/// unchanged.
pub fn encode(kind: Kind, payload: &[u8], out: &mut Vec<u8>) -> Result<(), ProtocolError> {
    let too_large = || ProtocolError::TooLarge {
        kind,
        length: payload.len(),
        limit: kind.max_payload(),
    };
    if payload.len() > kind.max_payload() {
        return Err(too_large());
    }
    let length = u32::try_from(payload.len()).map_err(|_| too_large())?;
    out.reserve(HEADER + payload.len());
    out.extend_from_slice(&length.to_le_bytes());
    out.push(kind as u8);
    out.extend_from_slice(payload);
    Ok(())
}

/// Appends a frame with a JSON payload to `out`.
pub(crate) fn encode_json(
    kind: Kind,
    message: &impl Serialize,
    out: &mut Vec<u8>,
) -> Result<(), ProtocolError> {
    let payload = serde_json::to_vec(message).map_err(|error| ProtocolError::Payload {
        kind,
        reason: error.to_string(),
    })?;
    encode(kind, &payload, out)
}

/// Puts frames together from bytes as they come in.
///
/// It holds what was fed and not yet taken: with frames taken after each feed, that is at most
/// one frame and the bytes of one feed, whatever length a header announces.
#[derive(Debug, Default)]
pub struct Decoder {
    buffer: Vec<u8>,
    taken: usize,
    failed: Option<ProtocolError>,
}

impl Decoder {
    /// A decoder that has seen nothing yet.
    pub fn new() -> Self {
        Self::default()
    }

    /// Adds bytes that came in.
    pub fn feed(&mut self, bytes: &[u8]) {
        if self.failed.is_some() {
            return;
        }
        self.buffer.drain(..self.taken);
        self.taken = 0;
        self.buffer.extend_from_slice(bytes);
    }

    /// The next whole frame, if one has come in.
    ///
    /// # Errors
    /// If the bytes can't be a frame; the same error then comes again on every call.
    pub fn next_frame(&mut self) -> Result<Option<Frame>, ProtocolError> {
        if let Some(error) = &self.failed {
            return Err(error.clone());
        }
        let result = self.parse();
        if let Err(error) = &result {
            self.failed = Some(error.clone());
            self.buffer = Vec::new();
            self.taken = 0;
        }
        result
    }

    fn parse(&mut self) -> Result<Option<Frame>, ProtocolError> {
        let rest = &self.buffer[self.taken..];
        let Some((&[l0, l1, l2, l3, kind], body)) = rest.split_first_chunk::<HEADER>() else {
            return Ok(None);
        };
        let kind = Kind::from_wire(kind).ok_or(ProtocolError::UnknownKind(kind))?;
        let length = u32::from_le_bytes([l0, l1, l2, l3]) as usize;
        if length > kind.max_payload() {
            return Err(ProtocolError::TooLarge {
                kind,
                length,
                limit: kind.max_payload(),
            });
        }
        let Some(payload) = body.get(..length) else {
            return Ok(None);
        };
        let payload = payload.to_vec();
        self.taken += HEADER + length;
        Ok(Some(Frame { kind, payload }))
    }

    /// Whether the bytes so far end with a whole frame: checks the end of a connection.
    ///
    /// # Errors
    /// [`ProtocolError::Truncated`] if part of a frame is left over.
    pub fn finish(&self) -> Result<(), ProtocolError> {
        if self.failed.is_none() && self.taken == self.buffer.len() {
            Ok(())
        } else {
            Err(ProtocolError::Truncated)
        }
    }
}
