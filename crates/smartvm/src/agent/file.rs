//! Files from and to a guest.

use smartvm_agent::protocol::{Accepted, Kind, ProtocolError};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};

use super::fault;
use super::wire::{Incoming, Outgoing};
use crate::{Error, ErrorKind, Result};

/// What goes into one frame, in bytes.
const CHUNK: usize = 64 * 1024;

/// What was read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub struct FileInfo {
    /// How many bytes it had.
    pub size: u64,
    /// Its permission bits.
    pub mode: u32,
}

pub(crate) async fn receive(
    incoming: &mut Incoming,
    accepted: Accepted,
    mut writer: impl AsyncWrite + Unpin,
    doing: &str,
) -> Result<FileInfo> {
    let local = |error: std::io::Error| Error::new(ErrorKind::Io, doing).because(error);
    let mut size = 0;
    loop {
        let frame = incoming.next(doing).await?;
        match frame.kind {
            Kind::Data => {
                writer.write_all(&frame.payload).await.map_err(local)?;
                size += frame.payload.len() as u64;
            }
            Kind::DataEnd => break,
            kind => return Err(fault::protocol(doing, ProtocolError::Unexpected(kind))),
        }
    }
    writer.flush().await.map_err(local)?;
    Ok(FileInfo {
        size,
        mode: accepted.mode.unwrap_or(0o644),
    })
}

pub(crate) async fn send(
    incoming: &mut Incoming,
    outgoing: &mut Outgoing,
    reader: impl AsyncRead + Unpin,
    doing: &str,
) -> Result<()> {
    let answer = async {
        let frame = incoming.next(doing).await?;
        match frame.kind {
            Kind::Done => Ok(()),
            kind => Err(fault::protocol(doing, ProtocolError::Unexpected(kind))),
        }
    };
    let mut answer = std::pin::pin!(answer);
    let mut copied = false;
    let mut copy = std::pin::pin!(copy(outgoing, reader, doing));
    // The agent's answer counts most: it says why the rest of the file could not be sent.
    loop {
        tokio::select! {
            biased;
            result = &mut answer => return result,
            result = &mut copy, if !copied => match result {
                Err(error) if error.kind() == ErrorKind::Io => return Err(error),
                _ => copied = true,
            },
        }
    }
}

async fn copy(
    outgoing: &mut Outgoing,
    mut reader: impl AsyncRead + Unpin,
    doing: &str,
) -> Result<()> {
    let corrupt = |error| fault::protocol(doing, error);
    let mut chunk = vec![0; CHUNK];
    loop {
        let length = reader
            .read(&mut chunk)
            .await
            .map_err(|error| Error::new(ErrorKind::Io, doing).because(error))?;
        if length == 0 {
            outgoing.queue(Kind::DataEnd, &[]).map_err(corrupt)?;
            return outgoing.flush(doing).await;
        }
        outgoing
            .queue(Kind::Data, &chunk[..length])
            .map_err(corrupt)?;
        outgoing.flush(doing).await?;
    }
}
