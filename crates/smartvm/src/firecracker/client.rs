//! Firecracker's API: HTTP over a Unix socket, one request at a time, each with a deadline
//! and a bounded answer.

use std::path::{Path, PathBuf};
use std::time::Duration;

use http_body_util::{BodyExt, Full, Limited};
use hyper::body::Bytes;
use hyper::client::conn::http1::SendRequest;
use hyper_util::rt::TokioIo;
use serde::Serialize;
use serde::de::DeserializeOwned;
use tokio::net::UnixStream;
use tokio::time::Instant;

use super::Version;
use super::socket::Socket;
use crate::error::{Error, ErrorKind, Result};

/// What Firecracker accepts at most as a request's body, in bytes.
pub const MAX_REQUEST_BYTES: usize = 51_200;
/// What is read of an answer at most, in bytes: balloon statistics and MMDS data fit well.
const MAX_ANSWER_BYTES: usize = 1 << 20;
/// How long one request may take, where the caller says nothing else.
const PATIENCE: Duration = Duration::from_secs(10);

/// An HTTP method of Firecracker's API.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "UPPERCASE")]
#[non_exhaustive]
pub enum Method {
    /// Asks.
    Get,
    /// Makes or replaces.
    Put,
    /// Changes.
    Patch,
}

/// One request, its body encoded.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Request {
    method: Method,
    path: String,
    body: Bytes,
}

impl Request {
    /// A request with `body` as JSON.
    pub fn new(method: Method, path: impl Into<String>, body: &impl Serialize) -> Result<Self> {
        let path = path.into();
        let body = serde_json::to_vec(body).map_err(|e| {
            Error::new(ErrorKind::Invalid, format!("encoding the request {path}")).because(e)
        })?;
        if body.len() > MAX_REQUEST_BYTES {
            return Err(Error::new(
                ErrorKind::Invalid,
                format!(
                    "the request {path} has {} bytes, Firecracker takes {MAX_REQUEST_BYTES}",
                    body.len()
                ),
            ));
        }
        Ok(Self {
            method,
            path,
            body: body.into(),
        })
    }

    /// A question.
    pub fn get(path: impl Into<String>) -> Self {
        Self {
            method: Method::Get,
            path: path.into(),
            body: Bytes::new(),
        }
    }

    /// The method.
    pub fn method(&self) -> Method {
        self.method
    }

    /// The path, from `/`.
    pub fn path(&self) -> &str {
        &self.path
    }

    /// The JSON that is sent.
    pub fn body(&self) -> &[u8] {
        &self.body
    }
}

impl Serialize for Request {
    fn serialize<S: serde::Serializer>(
        &self,
        serializer: S,
    ) -> std::result::Result<S::Ok, S::Error> {
        use serde::ser::{Error, SerializeMap};
        let body: serde_json::Value =
            serde_json::from_slice(self.body()).map_err(S::Error::custom)?;
        let mut map = serializer.serialize_map(Some(3))?;
        map.serialize_entry("method", &self.method())?;
        map.serialize_entry("path", self.path())?;
        map.serialize_entry("body", &body)?;
        map.end()
    }
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
    connection: Option<SendRequest<Full<Bytes>>>,
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
            let stream = stream
                .set_nonblocking(true)
                .and_then(|()| UnixStream::from_std(stream))
                .map_err(|e| Error::io("opening", self.socket(), e))?;
            return self.adopt(stream).await;
        }
        loop {
            match self.socket.connect().await {
                Ok(stream) => return self.adopt(stream).await,
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

    /// Sends a request and reads its answer as JSON.
    pub async fn ask<T: DeserializeOwned>(&mut self, request: &Request) -> Result<T> {
        let body = self.send_within(request, PATIENCE).await?;
        serde_json::from_slice(&body).map_err(|e| {
            Error::new(
                ErrorKind::Vmm,
                format!(
                    "Firecracker's answer to {} can't be understood",
                    request.path
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
    pub async fn send_within(&mut self, request: &Request, patience: Duration) -> Result<Bytes> {
        // Taken out, so that a failure or a dropped future leaves no half-used connection.
        let connection = self.connection.take();
        let exchange = async {
            let mut connection = match connection {
                Some(open) if !open.is_closed() => open,
                _ => self.connect().await?,
            };
            let answer = exchange(&mut connection, request).await?;
            Ok::<_, Error>((connection, answer))
        };
        let (connection, (status, body)) = match tokio::time::timeout(patience, exchange).await {
            Ok(done) => done?,
            Err(_) => {
                return Err(Error::new(
                    ErrorKind::Timeout,
                    format!(
                        "Firecracker did not answer {} within {patience:?}",
                        request.path
                    ),
                )
                .at(self.socket()));
            }
        };
        if status.is_success() {
            self.connection = Some(connection);
            return Ok(body);
        }
        // After a body over its limit Firecracker is out of step with the connection; other
        // refusals are harmless.
        if request.body.len() <= MAX_REQUEST_BYTES {
            self.connection = Some(connection);
        }
        Err(Error::new(
            ErrorKind::Vmm,
            format!(
                "Firecracker refused {:?} {} ({}): {}",
                request.method,
                request.path,
                status.as_u16(),
                fault(&body)
            ),
        ))
    }

    async fn connect(&self) -> Result<SendRequest<Full<Bytes>>> {
        let stream = self.socket.connect().await;
        handshake(stream.map_err(|e| self.unreachable(e))?).await
    }

    fn unreachable(&self, e: std::io::Error) -> Error {
        Error::io("connecting to Firecracker at", self.socket(), e)
    }

    async fn adopt(&mut self, stream: UnixStream) -> Result<()> {
        self.connection = Some(handshake(stream).await?);
        Ok(())
    }
}

async fn handshake(stream: UnixStream) -> Result<SendRequest<Full<Bytes>>> {
    let (sender, connection) = hyper::client::conn::http1::handshake(TokioIo::new(stream))
        .await
        .map_err(|e| Error::new(ErrorKind::Vmm, "greeting Firecracker").because(e))?;
    // Ends when the sender is dropped or Firecracker closes; its errors reach the sender.
    tokio::spawn(connection);
    Ok(sender)
}

async fn exchange(
    connection: &mut SendRequest<Full<Bytes>>,
    request: &Request,
) -> Result<(hyper::StatusCode, Bytes)> {
    let failed = |what: &str| {
        Error::new(
            ErrorKind::Vmm,
            format!("{what} Firecracker ({})", request.path),
        )
    };
    let method = match request.method {
        Method::Get => hyper::Method::GET,
        Method::Put => hyper::Method::PUT,
        Method::Patch => hyper::Method::PATCH,
    };
    let mut http = hyper::Request::new(Full::new(request.body.clone()));
    *http.method_mut() = method;
    *http.uri_mut() = request
        .path
        .parse()
        .map_err(|e| failed("asking").because(e))?;
    let headers = http.headers_mut();
    headers.insert("Host", hyper::header::HeaderValue::from_static("localhost"));
    headers.insert(
        "Accept",
        hyper::header::HeaderValue::from_static("application/json"),
    );
    if !request.body.is_empty() {
        let json = hyper::header::HeaderValue::from_static("application/json");
        headers.insert("Content-Type", json);
    }
    connection
        .ready()
        .await
        .map_err(|e| failed("waiting for").because(e))?;
    let answer = connection
        .send_request(http)
        .await
        .map_err(|e| failed("asking").because(e))?;
    let status = answer.status();
    let body = Limited::new(answer.into_body(), MAX_ANSWER_BYTES)
        .collect()
        .await
        .map_err(|e| failed("reading the answer of").because(e))?
        .to_bytes();
    Ok((status, body))
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

    #[test]
    fn a_body_over_the_limit_is_refused_before_it_is_sent() {
        let body = "x".repeat(MAX_REQUEST_BYTES);
        let refused = Request::new(Method::Put, "/mmds", &body).unwrap_err();
        assert_eq!(refused.kind(), ErrorKind::Invalid);
    }
}
