//! Through Firecracker's Unix socket to a vsock port of the guest.

use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::UnixStream;

use super::fault;
use crate::firecracker::socket::Socket;
use crate::{Error, ErrorKind, Result};

/// Firecracker's answer is `OK <port>\n`; more bytes than this are no answer.
const ANSWER_LIMIT: usize = 32;

/// Connects to `port` in the guest.
pub(crate) async fn connect(socket: &Socket, port: u32, deadline: Duration) -> Result<UnixStream> {
    const DOING: &str = "connecting to the guest";
    tokio::time::timeout(deadline, handshake(socket, port))
        .await
        .map_err(|_| fault::late(DOING, deadline).at(socket.path()))?
        .map_err(|error| error.at(socket.path()))
}

async fn handshake(socket: &Socket, port: u32) -> Result<UnixStream> {
    let mut stream = open(socket).await?;
    let ask = format!("CONNECT {port}\n");
    let asked = stream.write_all(ask.as_bytes()).await;
    let mut answer = Vec::with_capacity(ANSWER_LIMIT);
    // One byte at a time: what follows the line belongs to the agent's greeting.
    while asked.is_ok() && answer.last() != Some(&b'\n') && answer.len() < ANSWER_LIMIT {
        match stream.read_u8().await {
            Ok(byte) => answer.push(byte),
            Err(_) => break,
        }
    }
    if answer.is_empty() {
        // Firecracker closes the connection when the guest refuses it.
        return Err(Error::new(
            ErrorKind::Guest,
            format!("connecting to the guest: nobody listens on its vsock port {port}"),
        )
        .hint(fault::NO_AGENT));
    }
    let accepted = answer
        .strip_prefix(b"OK ")
        .and_then(|rest| rest.strip_suffix(b"\n"))
        .is_some_and(|port| !port.is_empty() && port.iter().all(u8::is_ascii_digit));
    if !accepted {
        let answer = String::from_utf8_lossy(&answer).into_owned();
        return Err(Error::new(
            ErrorKind::Corrupt,
            format!("connecting to the guest: {answer:?} is not what Firecracker answers"),
        )
        .hint("is this the Unix socket of Firecracker's vsock device?"));
    }
    Ok(stream)
}

async fn open(socket: &Socket) -> Result<UnixStream> {
    socket.connect().await.map_err(|error| {
        Error::io(
            "connecting to the guest's vsock socket",
            socket.path(),
            error,
        )
        .hint("the VM isn't running, or was created without a vsock device")
    })
}

#[cfg(test)]
mod tests {
    use tokio::net::UnixListener;

    use super::*;

    /// A Firecracker that gives one answer to the first connection.
    async fn answered(answer: &'static [u8]) -> Result<UnixStream> {
        let directory = tempfile::tempdir().expect("a directory");
        let path = directory.path().join("vsock.sock");
        let listener = UnixListener::bind(&path).expect("a socket");
        let firecracker = tokio::spawn(async move {
            let (mut stream, _) = listener.accept().await.expect("a connection");
            let mut asked = [0; 14];
            stream.read_exact(&mut asked).await.expect("the question");
            assert_eq!(&asked, b"CONNECT 29558\n");
            stream.write_all(answer).await.expect("the answer");
        });
        let result = connect(&Socket::at(&path), 29558, Duration::from_secs(30)).await;
        firecracker.await.expect("asked as Firecracker expects it");
        result
    }

    #[tokio::test]
    async fn the_line_is_taken_and_what_follows_is_left() {
        let mut stream = answered(b"OK 1073741824\nhello").await.expect("connected");
        let mut rest = String::new();
        stream.read_to_string(&mut rest).await.expect("the rest");
        assert_eq!(rest, "hello");
    }

    #[tokio::test]
    async fn a_refused_connection_says_that_nobody_listens() {
        let error = answered(b"").await.expect_err("refused");
        assert_eq!(error.kind(), ErrorKind::Guest);
        assert!(error.to_string().contains("nobody listens"), "{error}");
        assert!(error.way_out().is_some());
    }

    #[tokio::test]
    async fn another_answer_is_not_firecrackers() {
        for answer in [
            &b"HTTP/1.1 400 Bad Request\r\n"[..],
            b"OK\n",
            b"OK 12x\n",
            b"OK 99999999999999999999999999999999999999999\n",
        ] {
            let error = answered(answer).await.expect_err("not an answer");
            assert_eq!(error.kind(), ErrorKind::Corrupt, "{error}");
        }
    }

    #[tokio::test]
    async fn silence_ends_at_the_deadline() {
        let directory = tempfile::tempdir().expect("a directory");
        let path = directory.path().join("vsock.sock");
        let _listener = UnixListener::bind(&path).expect("a socket");
        let result = connect(&Socket::at(&path), 1, Duration::from_millis(20)).await;
        let error = result.expect_err("nobody answered");
        assert_eq!(error.kind(), ErrorKind::Timeout);
    }
}
