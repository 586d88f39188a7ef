//! Whole commands: from a reader, to writers, until the end.

use std::pin::pin;

use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};

use super::command::ExitStatus;
use super::session::{Event, Events, Input, Session};
use crate::{Error, ErrorKind, Result};

/// What is read from the host's stdin at once, in bytes.
const CHUNK: usize = 32 * 1024;

/// Ends who writes where nobody reads, on all architectures.
const SIGPIPE: i32 = 13;

/// What a command wrote, and how it ended.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct Output {
    /// How it ended.
    pub status: ExitStatus,
    /// What it wrote to its standard output.
    pub stdout: Vec<u8>,
    /// What it wrote to its standard error.
    pub stderr: Vec<u8>,
}

impl Session {
    /// Carries `stdin` to the command, and what it writes to `stdout` and `stderr`, until it
    /// ends. Any amount of data may go both ways: neither direction waits for the other.
    ///
    /// Where the reader of `stdout` has gone (`… | head`), the command is ended as it would be
    /// by writing there itself: the status is that of SIGPIPE.
    ///
    /// # Errors
    /// [`ErrorKind::Io`] if one of the three fails, which ends the command; otherwise as for
    /// [`Session::next_event`].
    pub async fn run_with(
        mut self,
        stdin: impl AsyncRead,
        stdout: impl AsyncWrite,
        stderr: impl AsyncWrite,
    ) -> Result<ExitStatus> {
        let (input, events) = self.parts();
        let mut fed = false;
        let mut feed = pin!(feed(input, stdin));
        let mut drain = pin!(drain(events, stdout, stderr));
        loop {
            tokio::select! {
                // The command's end counts, also where its stdin failed because of it.
                biased;
                result = &mut drain => return result,
                result = &mut feed, if !fed => {
                    fed = true;
                    match result {
                        // The end of the session is told by the other direction.
                        Err(error) if error.kind() == ErrorKind::Io => return Err(error),
                        _ => {}
                    }
                }
            }
        }
    }

    /// Gives the command `stdin` and collects what it writes, up to `limit` bytes in all.
    ///
    /// # Errors
    /// [`ErrorKind::Guest`] if it writes more, which ends it; otherwise as for
    /// [`Session::next_event`].
    pub async fn output(mut self, stdin: &[u8], limit: usize) -> Result<Output> {
        let doing = self.doing().to_owned();
        let (input, events) = self.parts();
        let mut fed = false;
        let mut feed = pin!(feed(input, stdin));
        let mut collect = pin!(collect(events, limit, &doing));
        loop {
            tokio::select! {
                biased;
                result = &mut collect => return result,
                _ = &mut feed, if !fed => fed = true,
            }
        }
    }
}

async fn feed(input: &mut Input, stdin: impl AsyncRead) -> Result<()> {
    let mut stdin = pin!(stdin);
    let mut chunk = vec![0; CHUNK];
    loop {
        let length = stdin.read(&mut chunk).await;
        let length = length.map_err(|error| failed("reading the command's input", error))?;
        if length == 0 {
            return input.close().await;
        }
        let mut rest = &chunk[..length];
        while !rest.is_empty() {
            let sent = input.write(rest).await?;
            rest = &rest[sent..];
        }
    }
}

async fn drain(
    mut events: Events<'_>,
    stdout: impl AsyncWrite,
    stderr: impl AsyncWrite,
) -> Result<ExitStatus> {
    let (mut stdout, mut stderr) = (pin!(stdout), pin!(stderr));
    loop {
        match events.next().await? {
            Event::Stdout(bytes) => match write(&mut stdout, &bytes).await {
                Err(error) if error.kind() == std::io::ErrorKind::BrokenPipe => {
                    return Ok(ExitStatus::Signal(SIGPIPE));
                }
                written => {
                    written.map_err(|error| failed("writing the command's output", error))?;
                }
            },
            Event::Stderr(bytes) => {
                let written = write(&mut stderr, &bytes).await;
                written.map_err(|error| failed("writing the command's errors", error))?;
            }
            Event::Exit(status) => return Ok(status),
        }
    }
}

async fn write(sink: &mut (impl AsyncWrite + Unpin), bytes: &[u8]) -> std::io::Result<()> {
    sink.write_all(bytes).await?;
    sink.flush().await
}

async fn collect(mut events: Events<'_>, limit: usize, doing: &str) -> Result<Output> {
    let (mut stdout, mut stderr) = (Vec::new(), Vec::new());
    loop {
        match events.next().await? {
            Event::Stdout(bytes) => stdout.extend(bytes),
            Event::Stderr(bytes) => stderr.extend(bytes),
            Event::Exit(status) => {
                return Ok(Output {
                    status,
                    stdout,
                    stderr,
                });
            }
        }
        if stdout.len() + stderr.len() > limit {
            let message = format!("{doing}: it wrote more than {limit} bytes");
            return Err(Error::new(ErrorKind::Guest, message));
        }
    }
}

fn failed(doing: &str, error: std::io::Error) -> Error {
    Error::new(ErrorKind::Io, doing).because(error)
}
