//! A running command: its streams, its signals, its end.

use std::sync::{Arc, Weak};

use smartvm_agent::protocol::{Exit, Kind, ProtocolError, STDIN_WINDOW};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::sync::{Mutex, Semaphore};

use super::command::ExitStatus;
use super::fault;
use super::wire::{Incoming, Outgoing};
use crate::{Error, ErrorKind, Result};

/// What a connection to an agent can be made of.
pub trait Stream: AsyncRead + AsyncWrite + Send + Unpin + 'static {}

impl<T: AsyncRead + AsyncWrite + Send + Unpin + 'static> Stream for T {}

/// The most stdin that goes into one frame, in bytes.
const STDIN_CHUNK: usize = 32 * 1024;

/// What a command does.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum Event {
    /// It wrote this to its standard output, or to its terminal.
    Stdout(Vec<u8>),
    /// It wrote this to its standard error.
    Stderr(Vec<u8>),
    /// It ended. Nothing follows.
    Exit(ExitStatus),
}

/// A command that runs in a guest. Dropping it closes the connection: the agent then ends the
/// command (SIGHUP, and shortly after SIGKILL, to its process group).
pub struct Session {
    input: Input,
    incoming: Incoming,
    doing: String,
    pid: Option<i32>,
    ended: bool,
}

impl std::fmt::Debug for Session {
    fn fmt(&self, out: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        out.debug_struct("Session")
            .field("doing", &self.doing)
            .field("pid", &self.pid)
            .finish_non_exhaustive()
    }
}

impl Session {
    pub(crate) fn new(
        incoming: Incoming,
        outgoing: Outgoing,
        doing: String,
        pid: Option<i32>,
    ) -> Self {
        let shared = Arc::new(Shared {
            outgoing: Mutex::new(outgoing),
            // The agent grants it.
            credit: Semaphore::new(0),
            doing: doing.clone(),
        });
        Self {
            input: Input {
                shared,
                closed: false,
            },
            incoming,
            doing,
            pid,
            ended: false,
        }
    }

    /// What this session does, as the beginning of an error's message.
    pub(crate) fn doing(&self) -> &str {
        &self.doing
    }

    /// The command's process id in the guest.
    pub fn pid(&self) -> Option<i32> {
        self.pid
    }

    /// Signals and terminal sizes for the command, from anywhere.
    pub fn control(&self) -> Control {
        Control(Arc::downgrade(&self.input.shared))
    }

    /// The next thing that the command does. May be dropped and called again: nothing is lost.
    ///
    /// # Errors
    /// [`ErrorKind::Guest`] if the connection ends before the command does, or the agent can't
    /// go on; [`ErrorKind::Corrupt`] if what comes can't be right; [`ErrorKind::WrongState`]
    /// after [`Event::Exit`].
    pub async fn next_event(&mut self) -> Result<Event> {
        let (_, mut events) = self.parts();
        events.next().await
    }

    /// Both directions at once: stdin, and what the command does.
    pub fn parts(&mut self) -> (&mut Input, Events<'_>) {
        let events = Events {
            shared: Arc::clone(&self.input.shared),
            incoming: &mut self.incoming,
            doing: &self.doing,
            ended: &mut self.ended,
        };
        (&mut self.input, events)
    }

    /// Sends stdin; see [`Input::write`]. To write while the command writes too, use
    /// [`Session::parts`] or [`Session::run_with`].
    ///
    /// # Errors
    /// As there.
    pub async fn write_stdin(&mut self, bytes: &[u8]) -> Result<usize> {
        self.input.write(bytes).await
    }

    /// Ends stdin; see [`Input::close`].
    ///
    /// # Errors
    /// As there.
    pub async fn close_stdin(&mut self) -> Result<()> {
        self.input.close().await
    }
}

struct Shared {
    outgoing: Mutex<Outgoing>,
    /// Bytes of stdin that may be sent. Closed when nobody takes them any more.
    credit: Semaphore,
    doing: String,
}

impl Shared {
    async fn send(&self, kind: Kind, payload: &[u8]) -> Result<()> {
        let mut outgoing = self.outgoing.lock().await;
        outgoing
            .queue(kind, payload)
            .map_err(|error| fault::protocol(&self.doing, error))?;
        outgoing.flush(&self.doing).await
    }

    fn grant(&self, bytes: u32) -> Result<(), ProtocolError> {
        let window = STDIN_WINDOW as usize;
        let bytes = bytes as usize;
        if self.credit.available_permits() + bytes > window {
            return Err(ProtocolError::Payload {
                kind: Kind::Credit,
                reason: format!("more than the window of {window} bytes"),
            });
        }
        self.credit.add_permits(bytes);
        Ok(())
    }
}

/// What the command does, in order.
pub struct Events<'a> {
    shared: Arc<Shared>,
    incoming: &'a mut Incoming,
    doing: &'a str,
    ended: &'a mut bool,
}

impl Events<'_> {
    /// As [`Session::next_event`].
    ///
    /// # Errors
    /// As there.
    pub async fn next(&mut self) -> Result<Event> {
        if *self.ended {
            return Err(over(self.doing));
        }
        let result = self.receive().await;
        if !matches!(&result, Ok(Event::Stdout(_) | Event::Stderr(_))) {
            *self.ended = true;
            self.shared.credit.close();
        }
        result
    }

    async fn receive(&mut self) -> Result<Event> {
        loop {
            let frame = self.incoming.next(self.doing).await?;
            let corrupt = |error| fault::protocol(self.doing, error);
            match frame.kind {
                Kind::Stdout => return Ok(Event::Stdout(frame.payload)),
                Kind::Stderr => return Ok(Event::Stderr(frame.payload)),
                Kind::Exit => {
                    let exit = Exit::decode(&frame).map_err(corrupt)?;
                    return Ok(Event::Exit(exit.into()));
                }
                Kind::Credit => {
                    let granted = frame.credit().and_then(|bytes| self.shared.grant(bytes));
                    granted.map_err(corrupt)?;
                }
                kind => return Err(corrupt(ProtocolError::Unexpected(kind))),
            }
        }
    }
}

/// The command's standard input.
pub struct Input {
    shared: Arc<Shared>,
    closed: bool,
}

impl Input {
    /// Sends as much of `bytes` as the agent has room for, waiting until it has room for some;
    /// returns how many were sent. Room is only made while events are being taken: by another
    /// branch of the same task, or before this is called again.
    ///
    /// When dropped before it is done, some bytes may have been sent or not; the session stays
    /// sound.
    ///
    /// # Errors
    /// [`ErrorKind::WrongState`] if stdin was closed or the command has ended;
    /// [`ErrorKind::Guest`] if the connection is broken.
    pub async fn write(&mut self, bytes: &[u8]) -> Result<usize> {
        let shared = &self.shared;
        if self.closed {
            return Err(over(&shared.doing));
        }
        if bytes.is_empty() {
            return Ok(0);
        }
        let first = shared.credit.acquire().await;
        let first = first.map_err(|_| over(&shared.doing))?;
        let mut outgoing = shared.outgoing.lock().await;
        let wanted = bytes.len().min(STDIN_CHUNK);
        let more = (wanted - 1).min(shared.credit.available_permits());
        let more_permits = u32::try_from(more)
            .ok()
            .and_then(|more| shared.credit.try_acquire_many(more).ok());
        let length = 1 + more_permits.as_ref().map_or(0, |_| more);
        outgoing
            .queue(Kind::Stdin, &bytes[..length])
            .map_err(|error| fault::protocol(&shared.doing, error))?;
        // Used up exactly when its bytes are queued, so that a dropped call can't lose any.
        first.forget();
        if let Some(permits) = more_permits {
            permits.forget();
        }
        outgoing.flush(&shared.doing).await?;
        Ok(length)
    }

    /// Ends the command's standard input. A second time does nothing.
    ///
    /// # Errors
    /// [`ErrorKind::Guest`] if the connection is broken.
    pub async fn close(&mut self) -> Result<()> {
        if !self.closed {
            self.closed = true;
            self.shared.send(Kind::StdinEnd, &[]).await?;
        }
        Ok(())
    }
}

/// Signals and terminal sizes for a command. Doesn't keep its session alive.
#[derive(Clone)]
pub struct Control(Weak<Shared>);

impl Control {
    /// Sends a signal, by its number (1 to 64), to the command's process group.
    ///
    /// # Errors
    /// [`ErrorKind::Invalid`] for another number; [`ErrorKind::WrongState`] if the session is
    /// over; [`ErrorKind::Guest`] if the connection is broken.
    pub async fn signal(&self, signal: i32) -> Result<()> {
        if !(1..=64).contains(&signal) {
            let message = format!("sending a signal to a command: there is no signal {signal}");
            return Err(Error::new(ErrorKind::Invalid, message));
        }
        self.send(Kind::Signal, &signal.to_le_bytes()).await
    }

    /// Sets the size of the command's terminal, in lines and columns. Without a terminal this
    /// does nothing.
    ///
    /// # Errors
    /// [`ErrorKind::WrongState`] if the session is over; [`ErrorKind::Guest`] if the connection
    /// is broken.
    pub async fn resize(&self, rows: u16, cols: u16) -> Result<()> {
        let ([a, b], [c, d]) = (rows.to_le_bytes(), cols.to_le_bytes());
        self.send(Kind::Resize, &[a, b, c, d]).await
    }

    async fn send(&self, kind: Kind, payload: &[u8]) -> Result<()> {
        match self.0.upgrade() {
            Some(shared) if !shared.credit.is_closed() => shared.send(kind, payload).await,
            _ => Err(over("controlling a command in the guest")),
        }
    }
}

fn over(doing: &str) -> Error {
    Error::new(
        ErrorKind::WrongState,
        format!("{doing}: it is over already"),
    )
}
