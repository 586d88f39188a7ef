//! Frames over an async stream, both ways. Dropping a future in the middle of either loses
//! nothing: what was read or queued stays.

use smartvm_agent::protocol::{Decoder, Frame, Kind, ProtocolError, Refusal, encode};
use tokio::io::{AsyncReadExt, AsyncWriteExt, ReadHalf, WriteHalf};

use super::fault;
use super::session::Stream;
use crate::Result;

/// Bytes read at once.
const CHUNK: usize = 64 * 1024;

/// Frames from the agent.
pub(crate) struct Incoming {
    half: ReadHalf<Box<dyn Stream>>,
    decoder: Decoder,
    chunk: Box<[u8]>,
}

impl Incoming {
    pub(crate) fn new(half: ReadHalf<Box<dyn Stream>>) -> Self {
        Self {
            half,
            decoder: Decoder::new(),
            chunk: vec![0; CHUNK].into(),
        }
    }

    /// The next frame. A refusal and the end of the connection are errors of what was being
    /// done.
    pub(crate) async fn next(&mut self, doing: &str) -> Result<Frame> {
        loop {
            let frame = self.decoder.next_frame();
            if let Some(frame) = frame.map_err(|error| fault::protocol(doing, error))? {
                if frame.kind == Kind::Refusal {
                    let refusal =
                        Refusal::decode(&frame).map_err(|error| fault::protocol(doing, error))?;
                    return Err(fault::refused(doing, refusal));
                }
                return Ok(frame);
            }
            let length = self
                .half
                .read(&mut self.chunk)
                .await
                .map_err(|error| fault::broken(doing, error))?;
            if length == 0 {
                self.decoder
                    .finish()
                    .map_err(|error| fault::protocol(doing, error))?;
                return Err(fault::ended(doing));
            }
            self.decoder.feed(&self.chunk[..length]);
        }
    }
}

/// Frames to the agent.
pub(crate) struct Outgoing {
    half: WriteHalf<Box<dyn Stream>>,
    pending: Vec<u8>,
    sent: usize,
}

impl Outgoing {
    pub(crate) fn new(half: WriteHalf<Box<dyn Stream>>) -> Self {
        Self {
            half,
            pending: Vec::new(),
            sent: 0,
        }
    }

    /// Queues a frame: it leaves, whole, with this or a later [`Outgoing::flush`].
    pub(crate) fn queue(&mut self, kind: Kind, payload: &[u8]) -> Result<(), ProtocolError> {
        encode(kind, payload, self.buffer())
    }

    /// The queue, for messages that encode themselves.
    pub(crate) fn buffer(&mut self) -> &mut Vec<u8> {
        self.pending.drain(..self.sent);
        self.sent = 0;
        &mut self.pending
    }

    /// Sends everything that is queued.
    pub(crate) async fn flush(&mut self, doing: &str) -> Result<()> {
        while self.sent < self.pending.len() {
            let written = self.half.write(&self.pending[self.sent..]).await;
            match written.map_err(|error| fault::broken(doing, error))? {
                0 => return Err(fault::ended(doing)),
                written => self.sent += written,
            }
        }
        self.pending.clear();
        self.sent = 0;
        let flushed = self.half.flush().await;
        flushed.map_err(|error| fault::broken(doing, error))
    }
}
