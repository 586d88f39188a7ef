//! One connection to Firecracker's API server: a request, then its answer, and so on.

use std::io;
use std::os::unix::net::UnixStream;

use httparse::{EMPTY_HEADER, Response, Status};

use super::stream::{Stream, Wait};
use super::{Method, Request};

/// An answer's head has so many lines at most; Firecracker sends five.
const MOST_HEADERS: usize = 32;
/// And so many bytes.
const MOST_HEAD_BYTES: usize = 16 << 10;
/// What is read of an answer's body at most, in bytes: balloon statistics and MMDS data fit well.
const MOST_BODY_BYTES: usize = 1 << 20;
/// As much room is made at first for what is asked besides its body: few paths need more.
const USUAL_BYTES: usize = 1 << 10;

/// A connection on which nothing is under way.
#[derive(Debug)]
pub(super) struct Connection(Stream);

/// What Firecracker answered.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Answer {
    /// HTTP's status, from 200 on: what comes before isn't the answer yet.
    pub(super) status: u16,
    pub(super) body: Vec<u8>,
}

impl Answer {
    pub(super) fn is_success(&self) -> bool {
        (200..300).contains(&self.status)
    }
}

impl Connection {
    pub(super) fn over(stream: UnixStream) -> io::Result<Self> {
        Stream::over(stream).map(Self)
    }

    /// Whether it is open, and nothing came that nobody asked for.
    pub(super) fn is_idle(&self) -> bool {
        self.0.is_idle()
    }

    /// Sends a request, and receives its answer. After a failure the connection is of no use.
    pub(super) async fn exchange(&mut self, request: &Request, wait: Wait) -> io::Result<Answer> {
        self.0.send(&encoded(request)).await?;
        let mut received = Vec::new();
        self.0.receive(&mut received, wait).await?;
        loop {
            let Some(head) = head(&received)? else {
                self.0.receive(&mut received, Wait::Sleeping).await?;
                continue;
            };
            let end = head.bytes + head.body_bytes;
            while received.len() < end {
                self.0.receive(&mut received, Wait::Sleeping).await?;
            }
            if head.status < 200 {
                received.drain(..end);
                continue;
            }
            if received.len() > end {
                return Err(garbled("it has more bytes than it says"));
            }
            received.drain(..head.bytes);
            return Ok(Answer {
                status: head.status,
                body: received,
            });
        }
    }
}

/// The request as HTTP/1.1, without the headers that Firecracker takes no notice of: it has one name
/// and speaks JSON alone.
fn encoded(request: &Request) -> Vec<u8> {
    let method = match request.method() {
        Method::Get => "GET",
        Method::Put => "PUT",
        Method::Patch => "PATCH",
    };
    let body = request.body();
    let mut bytes = Vec::with_capacity(USUAL_BYTES + body.len());
    for part in [method, " ", request.path(), " HTTP/1.1\r\n"] {
        bytes.extend(part.as_bytes());
    }
    if !body.is_empty() {
        bytes.extend(b"Content-Length: ");
        bytes.extend(body.len().to_string().as_bytes());
        bytes.extend(b"\r\n");
    }
    bytes.extend(b"\r\n");
    bytes.extend(body);
    bytes
}

/// What an answer's head says.
struct Head {
    bytes: usize,
    status: u16,
    body_bytes: usize,
}

/// The head of what was received, if it is all there.
fn head(received: &[u8]) -> io::Result<Option<Head>> {
    let mut headers = [EMPTY_HEADER; MOST_HEADERS];
    let mut response = Response::new(&mut headers);
    let parsed = response.parse(received).map_err(garbled)?;
    let (bytes, status) = match (parsed, response.code) {
        (Status::Complete(bytes), Some(status)) if bytes <= MOST_HEAD_BYTES => (bytes, status),
        (Status::Partial, _) if received.len() <= MOST_HEAD_BYTES => return Ok(None),
        _ => return Err(garbled("its head is too long")),
    };
    let mut body_bytes = 0;
    for header in response.headers {
        if header.name.eq_ignore_ascii_case("transfer-encoding") {
            return Err(garbled("its length isn't told"));
        }
        if header.name.eq_ignore_ascii_case("content-length") {
            let length = std::str::from_utf8(header.value).map_err(garbled)?;
            body_bytes = length.trim().parse().map_err(garbled)?;
        }
    }
    if body_bytes > MOST_BODY_BYTES {
        return Err(garbled("its body is too long"));
    }
    Ok(Some(Head {
        bytes,
        status,
        body_bytes,
    }))
}

fn garbled(why: impl Into<Box<dyn std::error::Error + Send + Sync>>) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, why)
}

#[cfg(test)]
mod tests {
    use tokio::io::{AsyncReadExt, AsyncWriteExt};

    use super::*;

    const WAITS: [Wait; 2] = [Wait::Sleeping, Wait::BusyPolling];

    /// A connection, and its other end.
    fn pair() -> (Connection, tokio::net::UnixStream) {
        let (ours, theirs) = UnixStream::pair().unwrap();
        rustix::net::sockopt::set_socket_send_buffer_size(&ours, 4096).unwrap();
        theirs.set_nonblocking(true).unwrap();
        let theirs = tokio::net::UnixStream::from_std(theirs).unwrap();
        (Connection::over(ours).unwrap(), theirs)
    }

    const OK: &str = "HTTP/1.1 200 \r\nServer: Firecracker API\r\nConnection: keep-alive\r\n";

    /// What is made of an answer that comes in these pieces; what was asked.
    async fn answered(pieces: &[&str], wait: Wait) -> (io::Result<Answer>, String) {
        let (mut connection, mut theirs) = pair();
        let request = Request::new(
            Method::Patch,
            "/vm",
            &serde_json::json!({ "state": "Paused" }),
        );
        let server = async {
            let mut asked = vec![0; 1024];
            let length = theirs.read(&mut asked).await.unwrap();
            for piece in pieces {
                theirs.write_all(piece.as_bytes()).await.unwrap();
                tokio::task::yield_now().await;
            }
            drop(theirs);
            asked.truncate(length);
            String::from_utf8(asked).unwrap()
        };
        let request = request.unwrap();
        tokio::join!(connection.exchange(&request, wait), server)
    }

    #[tokio::test]
    async fn a_request_has_its_length_and_an_answer_comes_in_any_pieces() {
        let whole = format!("{OK}content-length: 5\r\n\r\nthree");
        let expected = Answer {
            status: 200,
            body: b"three".to_vec(),
        };
        let bytes: Vec<&str> = whole.split_inclusive(|_| true).collect();
        let none = ["HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 204 \r\n\r\n"];
        for wait in WAITS {
            let (answer, asked) = answered(&[&whole], wait).await;
            assert_eq!(answer.unwrap(), expected);
            assert_eq!(
                asked,
                "PATCH /vm HTTP/1.1\r\nContent-Length: 18\r\n\r\n{\"state\":\"Paused\"}"
            );
            assert_eq!(answered(&bytes, wait).await.0.unwrap(), expected);
            let answer = answered(&none, wait).await.0.unwrap();
            assert_eq!((answer.status, &answer.body[..]), (204, &b""[..]));
        }
    }

    #[tokio::test]
    async fn a_request_that_does_not_fit_the_sockets_buffer_is_sent_all_the_same() {
        let (mut connection, mut theirs) = pair();
        let body = "x".repeat(50_000);
        let request = Request::new(Method::Put, "/mmds", &body).unwrap();
        let server = async {
            let mut asked = Vec::new();
            while !asked.ends_with(b"x\"") && theirs.read_buf(&mut asked).await.unwrap() > 0 {
                tokio::task::yield_now().await;
            }
            theirs.write_all(b"HTTP/1.1 204 \r\n\r\n").await.unwrap();
            asked
        };
        let client = async {
            let answer = connection.exchange(&request, Wait::Sleeping).await.unwrap();
            assert_eq!(answer.status, 204);
            assert!(connection.is_idle());
        };
        let ((), asked) = tokio::join!(client, server);
        assert!(asked.ends_with(request.body()));
    }

    #[tokio::test]
    async fn an_answer_that_lies_about_itself_is_none() {
        let long = format!("{OK}X: {}\r\n\r\n", "x".repeat(MOST_HEAD_BYTES));
        let many = format!("{OK}{}\r\n", "X: y\r\n".repeat(MOST_HEADERS));
        for (lie, told) in [
            (
                &*format!("{OK}Content-Length: 5\r\n\r\nfo"),
                "before its answer was whole",
            ),
            (OK, "before its answer was whole"),
            ("", "before its answer was whole"),
            (
                &*format!("{OK}Content-Length: 2\r\n\r\nthree"),
                "more bytes than it says",
            ),
            (&*format!("{OK}\r\nthree"), "more bytes than it says"),
            (
                &*format!("{OK}Content-Length: 1048577\r\n\r\n"),
                "body is too long",
            ),
            (&*format!("{OK}Content-Length: -1\r\n\r\n"), "invalid digit"),
            (
                &*format!("{OK}Transfer-Encoding: chunked\r\n\r\n"),
                "length isn't told",
            ),
            (&long, "head is too long"),
            (&many, "too many headers"),
            ("SSH-2.0-OpenSSH\r\n", "invalid HTTP version"),
        ] {
            for wait in WAITS {
                let (answer, _) = answered(&[lie], wait).await;
                let refused = answer.unwrap_err().to_string();
                assert!(refused.contains(told), "{lie:.100}: {refused}");
            }
        }
    }

    #[tokio::test]
    async fn a_connection_that_was_closed_or_spoke_unasked_is_not_idle() {
        let (connection, mut theirs) = pair();
        assert!(connection.is_idle());
        theirs.write_all(b"x").await.unwrap();
        connection.0.readable().await;
        assert!(!connection.is_idle());
        let (connection, theirs) = pair();
        drop(theirs);
        connection.0.readable().await;
        assert!(!connection.is_idle());
    }
}
