//! Firecracker's API: HTTP over a Unix socket, one request at a time, each with a deadline
//! and a bounded answer.

mod connection;
mod request;
mod stream;

use std::path::{Path, PathBuf};
use std::time::Duration;

use serde::de::DeserializeOwned;
use tokio::time::Instant;

use self::connection::Connection;
pub use self::request::{MAX_REQUEST_BYTES, Method, Request};
use self::stream::Wait;
use super::Version;
use super::socket::Socket;
use crate::error::{Error, ErrorKind, Result};

/// How long one request may take, where the caller says nothing else.
const PATIENCE: Duration = Duration::from_secs(10);

async fn connect(socket: &Socket) -> std::io::Result<Connection> {
    Connection::over(socket.connect().await?.into_std()?)
}

/// Connects as soon as somebody listens; `None` if nobody does within some milliseconds.
fn connect_soon(socket: &Socket) -> Option<std::os::unix::net::UnixStream> {
    (0..100).find_map(|_| match socket.connect_blocking() {
        Ok(stream) => Some(stream),
        Err(_) => {
            std::thread::sleep(Duration::from_micros(100));
            None
        }
    })
}

/// A connection to one Firecracker. After a failure it connects anew at the next request.
///
/// ```no_run
/// use smartvm::firecracker::client::Request;
///
/// # async fn example(vm: smartvm::MicroVm) -> smartvm::Result<()> {
/// let mut client = vm.client();
/// println!("Firecracker {}", client.version().await?);
/// let config: serde_json::Value = client.ask(&Request::get("/vm/config")).await?;
/// println!("{}", config["machine-config"]["vcpu_count"]);
/// # Ok(())
/// # }
/// ```
#[derive(Debug)]
pub struct Client {
    socket: Socket,
    connection: Option<Connection>,
}

impl Client {
    /// A client of the API socket at `socket`; connects at the first request.
    pub fn new(socket: impl Into<PathBuf>) -> Self {
        Self::over(Socket::at(socket))
    }

    pub(crate) fn over(socket: Socket) -> Self {
        Self {
            socket,
            connection: None,
        }
    }

    /// Asks the Firecracker at this socket, and blocks until that is done: on a thread of its own,
    /// as the caller's may be a runtime's.
    pub(crate) fn blocking<T: Send + 'static>(
        socket: Socket,
        ask: impl AsyncFnOnce(Self) -> Result<T> + Send + 'static,
    ) -> Result<T> {
        let asked = std::thread::spawn(move || {
            let runtime = tokio::runtime::Builder::new_current_thread()
                .enable_all()
                .build()
                .map_err(|e| Error::new(ErrorKind::Host, "starting the runtime").because(e))?;
            runtime.block_on(ask(Self::over(socket)))
        });
        asked
            .join()
            .unwrap_or_else(|_| Err(Error::new(ErrorKind::Io, "a worker thread failed")))
    }

    /// The API socket.
    pub fn socket(&self) -> &Path {
        self.socket.path()
    }

    /// Waits until Firecracker listens, at most `patience`, asking again in short steps:
    /// connecting succeeds from its `listen` on.
    pub async fn wait_ready(&mut self, patience: Duration) -> Result<()> {
        let deadline = Instant::now() + patience;
        // A timer of the runtime is rounded up to a millisecond, half of what Firecracker takes
        // altogether: the first look-outs are a thread's.
        let socket = self.socket.clone();
        let soon = crate::vm::blocking(move || Ok(connect_soon(&socket))).await?;
        if let Some(stream) = soon {
            let opened = Connection::over(stream);
            self.connection = Some(opened.map_err(|e| Error::io("opening", self.socket(), e))?);
            return Ok(());
        }
        loop {
            match connect(&self.socket).await {
                Ok(connection) => {
                    self.connection = Some(connection);
                    return Ok(());
                }
                Err(e) if e.kind() == std::io::ErrorKind::PermissionDenied => {
                    return Err(self.unreachable(e));
                }
                Err(e) if Instant::now() >= deadline => {
                    return Err(Error::new(
                        ErrorKind::Timeout,
                        format!(
                            "Firecracker did not listen on {} within {patience:?}",
                            self.socket().display()
                        ),
                    )
                    .at(self.socket())
                    .because(e));
                }
                Err(_) => {}
            }
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    }

    /// Sends a request whose answer has no content.
    pub async fn send(&mut self, request: &Request) -> Result<()> {
        self.send_within(request, PATIENCE).await.map(drop)
    }

    /// The same for a request that Firecracker answers within a moment: its answer is looked for
    /// again and again, for half a millisecond of processor time at most.
    pub(crate) async fn send_busy_polling(&mut self, request: &Request) -> Result<()> {
        let answered = self.answered(request, PATIENCE, Wait::BusyPolling);
        answered.await.map(drop)
    }

    /// Sends a request and reads its answer as JSON.
    pub async fn ask<T: DeserializeOwned>(&mut self, request: &Request) -> Result<T> {
        self.ask_within(request, PATIENCE).await
    }

    /// The same with another patience.
    pub(crate) async fn ask_within<T: DeserializeOwned>(
        &mut self,
        request: &Request,
        patience: Duration,
    ) -> Result<T> {
        let body = self.send_within(request, patience).await?;
        serde_json::from_slice(&body).map_err(|e| {
            Error::new(
                ErrorKind::Vmm,
                format!(
                    "Firecracker's answer to {} can't be understood",
                    request.path()
                ),
            )
            .because(e)
        })
    }

    /// The version of the Firecracker that runs.
    pub async fn version(&mut self) -> Result<Version> {
        #[derive(serde::Deserialize)]
        struct Answer {
            firecracker_version: String,
        }
        let answer: Answer = self.ask(&Request::get("/version")).await?;
        answer.firecracker_version.parse()
    }

    /// Sends a request and returns its answer's body. Past `patience` the connection is
    /// dropped: what it would answer later can't be told from the next answer.
    pub async fn send_within(&mut self, request: &Request, patience: Duration) -> Result<Vec<u8>> {
        self.answered(request, patience, Wait::Sleeping).await
    }

    async fn answered(
        &mut self,
        request: &Request,
        patience: Duration,
        wait: Wait,
    ) -> Result<Vec<u8>> {
        // Taken out, so that a failure or a dropped future leaves no half-used connection.
        let connection = self.connection.take();
        let exchange = async {
            let mut connection = match connection {
                Some(open) if open.is_idle() => open,
                _ => connect(&self.socket)
                    .await
                    .map_err(|e| self.unreachable(e))?,
            };
            let answer = connection.exchange(request, wait).await;
            let answer = answer.map_err(|e| {
                let message = format!("asking Firecracker ({})", request.path());
                Error::new(ErrorKind::Vmm, message).because(e)
            })?;
            Ok::<_, Error>((connection, answer))
        };
        let (connection, answer) = match tokio::time::timeout(patience, exchange).await {
            Ok(done) => done?,
            Err(_) => {
                return Err(Error::new(
                    ErrorKind::Timeout,
                    format!(
                        "Firecracker did not answer {} within {patience:?}",
                        request.path()
                    ),
                )
                .at(self.socket()));
            }
        };
        if answer.is_success() {
            self.connection = Some(connection);
            return Ok(answer.body);
        }
        // After a body over its limit Firecracker is out of step with the connection; other
        // refusals are harmless.
        if request.body().len() <= MAX_REQUEST_BYTES {
            self.connection = Some(connection);
        }
        Err(Error::new(
            ErrorKind::Vmm,
            format!(
                "Firecracker refused {:?} {} ({}): {}",
                request.method(),
                request.path(),
                answer.status,
                fault(&answer.body)
            ),
        ))
    }

    fn unreachable(&self, e: std::io::Error) -> Error {
        Error::io("connecting to Firecracker at", self.socket(), e)
    }
}

/// What a refusal says. The two shapes: `{"fault_message": …}` from Firecracker's handlers,
/// and `{ "error": … }` from its HTTP layer, which holds a raw newline and so is not JSON.
fn fault(body: &[u8]) -> String {
    #[derive(serde::Deserialize)]
    struct Fault {
        #[serde(alias = "error")]
        fault_message: String,
    }
    let text = match serde_json::from_slice::<Fault>(body) {
        Ok(fault) => fault.fault_message,
        Err(_) => {
            let raw = String::from_utf8_lossy(body);
            let inner = raw
                .trim()
                .trim_start_matches('{')
                .trim_end_matches('}')
                .trim();
            let inner = inner.strip_prefix("\"error\":").unwrap_or(inner).trim();
            inner.trim_matches('"').to_owned()
        }
    };
    let one_line = text.split_whitespace().collect::<Vec<_>>().join(" ");
    one_line.chars().take(2000).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn both_shapes_of_a_refusal_are_read() {
        assert_eq!(fault(br#"{"fault_message":"Invalid id"}"#), "Invalid id");
        assert_eq!(
            fault(b"{ \"error\": \"Request payload is too large.\nAll previous requests.\" }"),
            "Request payload is too large. All previous requests."
        );
        assert_eq!(fault(b"\xff\xfe"), "\u{fffd}\u{fffd}");
        assert!(fault(&vec![b'x'; 100_000]).len() <= 2000);
    }
}
