//! A real HTTP server on loopback, with faults on command.

use std::collections::{HashMap, VecDeque};
use std::convert::Infallible;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use http_body_util::channel::Channel;
use hyper::body::{Bytes, Incoming};
use hyper::header::{
    ACCEPT_RANGES, AUTHORIZATION, CONTENT_LENGTH, CONTENT_RANGE, ETAG, IF_RANGE, LOCATION, RANGE,
    RETRY_AFTER, WWW_AUTHENTICATE,
};
use hyper::service::service_fn;
use hyper::{Request, Response};
use hyper_util::rt::TokioIo;
use tokio::net::{TcpListener, TcpStream};

/// What a request may meet instead of a file.
#[derive(Debug, Clone)]
pub(crate) enum Fault {
    /// The connection breaks after so many bytes.
    CutAfter(usize),
    /// Another status, perhaps with Retry-After.
    Status(u16, Option<&'static str>),
    /// To somewhere else.
    Redirect(String),
    /// The length isn't told.
    NoLength,
    /// A pause before the data.
    Slow(Duration),
}

#[derive(Debug, Clone, Default)]
pub(crate) struct File {
    pub(crate) body: Vec<u8>,
    pub(crate) etag: Option<&'static str>,
    pub(crate) no_ranges: bool,
    /// A Range is served even where If-Range says not to.
    pub(crate) ignores_if_range: bool,
    /// In this order; each request takes one.
    pub(crate) faults: VecDeque<Fault>,
    /// Further headers of the answer.
    pub(crate) headers: Vec<(&'static str, String)>,
    /// What `Authorization` has to be, and the challenge where it isn't.
    pub(crate) guard: Option<(String, String)>,
}

#[derive(Default)]
struct State {
    files: HashMap<String, File>,
    /// Path and Range of each request.
    seen: Vec<(String, Option<String>)>,
}

type Tls = Option<tokio_rustls::TlsAcceptor>;

#[derive(Clone)]
pub(crate) struct Server {
    address: SocketAddr,
    scheme: &'static str,
    state: Arc<Mutex<State>>,
}

impl Server {
    pub(crate) async fn start() -> Self {
        Self::start_with(None).await
    }

    /// By https; returns the certificate too.
    pub(crate) async fn start_tls() -> (Self, String) {
        let own = rcgen::generate_simple_self_signed(["localhost".to_owned()]).unwrap();
        let key = rustls::pki_types::PrivateKeyDer::try_from(own.signing_key.serialize_der());
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let config = rustls::ServerConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .unwrap()
            .with_no_client_auth()
            .with_single_cert(vec![own.cert.der().clone()], key.unwrap())
            .unwrap();
        let acceptor = tokio_rustls::TlsAcceptor::from(Arc::new(config));
        let pem = pem_of(own.cert.der());
        (Self::start_with(Some(acceptor)).await, pem)
    }

    async fn start_with(tls: Tls) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let this = Self {
            address: listener.local_addr().unwrap(),
            scheme: if tls.is_some() { "https" } else { "http" },
            state: Arc::default(),
        };
        let server = this.clone();
        tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                tokio::spawn(server.clone().connection(stream, tls.clone()));
            }
        });
        this
    }

    async fn connection(self, stream: TcpStream, tls: Tls) {
        let service = service_fn(move |request| {
            let this = self.clone();
            async move { Ok::<_, Infallible>(this.answer(&request)) }
        });
        let http = hyper::server::conn::http1::Builder::new();
        // A client that goes away is no failure of the server.
        let _gone = match tls {
            None => http.serve_connection(TokioIo::new(stream), service).await,
            Some(tls) => match tls.accept(stream).await {
                Ok(stream) => http.serve_connection(TokioIo::new(stream), service).await,
                Err(_) => Ok(()),
            },
        };
    }

    pub(crate) fn url(&self, path: &str) -> String {
        let host = if self.scheme == "https" {
            "localhost"
        } else {
            "127.0.0.1"
        };
        format!("{}://{host}:{}{path}", self.scheme, self.address.port())
    }

    pub(crate) fn put(&self, path: &str, body: impl Into<Vec<u8>>) -> &Self {
        self.file(path, |file| file.body = body.into())
    }

    pub(crate) fn fault(&self, path: &str, fault: Fault) -> &Self {
        self.file(path, |file| file.faults.push_back(fault))
    }

    pub(crate) fn file(&self, path: &str, change: impl FnOnce(&mut File)) -> &Self {
        let mut state = self.state.lock().unwrap();
        change(state.files.entry(path.to_owned()).or_default());
        self
    }

    /// How often something was asked for, and with which ranges.
    pub(crate) fn seen(&self, path: &str) -> Vec<Option<String>> {
        let state = self.state.lock().unwrap();
        let of_path = state.seen.iter().filter(|(seen, _)| seen == path);
        of_path.map(|(_, range)| range.clone()).collect()
    }

    /// Host and port.
    #[cfg(feature = "oci")]
    pub(crate) fn host(&self) -> String {
        self.address.to_string()
    }

    pub(crate) fn requests(&self) -> usize {
        self.state.lock().unwrap().seen.len()
    }

    fn answer(&self, request: &Request<Incoming>) -> Response<Channel<Bytes, Broken>> {
        let text = |name| {
            let value = request.headers().get(name);
            value.map(|v: &hyper::header::HeaderValue| v.to_str().unwrap().to_owned())
        };
        // A proxy gets the whole URL.
        let target = match request.uri().query() {
            Some(query) => format!("{}?{query}", request.uri().path()),
            None => request.uri().path().to_owned(),
        };
        let range = text(RANGE);
        let (file, fault) = {
            let mut state = self.state.lock().unwrap();
            state.seen.push((target.clone(), range.clone()));
            let Some(file) = state.files.get_mut(&target) else {
                return status(404);
            };
            let fault = file.faults.pop_front();
            (file.clone(), fault)
        };
        if let Some((wanted, challenge)) = &file.guard
            && text(AUTHORIZATION).as_ref() != Some(wanted)
        {
            let mut response = status(401);
            let challenge = challenge.parse().unwrap();
            response.headers_mut().insert(WWW_AUTHENTICATE, challenge);
            return response;
        }
        let mut response = Response::builder();
        for (name, value) in &file.headers {
            response = response.header(*name, value);
        }
        match &fault {
            Some(Fault::Status(code, after)) => {
                let mut response = status(*code);
                if let Some(after) = after {
                    let value = after.parse().unwrap();
                    response.headers_mut().insert(RETRY_AFTER, value);
                }
                return response;
            }
            Some(Fault::Redirect(to)) => {
                let mut response = status(302);
                response.headers_mut().insert(LOCATION, to.parse().unwrap());
                return response;
            }
            _ => {}
        }
        if let Some(etag) = file.etag {
            response = response.header(ETAG, etag);
        }
        let unchanged = file.ignores_if_range || text(IF_RANGE).as_deref() == file.etag;
        let begin: Option<usize> = range.filter(|_| !file.no_ranges && unchanged).map(|range| {
            range["bytes=".len()..]
                .trim_end_matches('-')
                .parse()
                .unwrap()
        });
        let size = file.body.len();
        let mut body = file.body;
        if let Some(begin) = begin {
            if begin >= size {
                return status(416);
            }
            body.drain(..begin);
            response = response
                .status(206)
                .header(ACCEPT_RANGES, "bytes")
                .header(CONTENT_RANGE, format!("bytes {begin}-{}/{size}", size - 1));
        }
        if !matches!(fault, Some(Fault::NoLength)) {
            response = response.header(CONTENT_LENGTH, body.len());
        }
        let (mut sender, channel) = Channel::new(4);
        tokio::spawn(async move {
            let cut = match fault {
                Some(Fault::CutAfter(cut)) => Some(cut),
                Some(Fault::Slow(pause)) => {
                    tokio::time::sleep(pause).await;
                    None
                }
                _ => None,
            };
            for piece in body[..cut.unwrap_or(body.len())].chunks(8 << 10) {
                let piece = Bytes::copy_from_slice(piece);
                if sender.send_data(piece).await.is_err() {
                    return;
                }
            }
            if cut.is_some() {
                // What was sent is to arrive before the connection breaks.
                tokio::time::sleep(Duration::from_millis(20)).await;
                sender.abort(Broken);
            }
        });
        response.body(channel).unwrap()
    }
}

fn status(code: u16) -> Response<Channel<Bytes, Broken>> {
    let (_sender, channel) = Channel::new(1);
    Response::builder()
        .status(code)
        .header(CONTENT_LENGTH, 0)
        .body(channel)
        .unwrap()
}

fn pem_of(der: &[u8]) -> String {
    const ALPHABET: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    let mut text = String::from("-----BEGIN CERTIFICATE-----\n");
    for three in der.chunks(3) {
        let mut bits = [0; 3];
        bits[..three.len()].copy_from_slice(three);
        let bits = u32::from_be_bytes([0, bits[0], bits[1], bits[2]]);
        for place in 0..4 {
            text.push(match place <= three.len() {
                true => ALPHABET[(bits >> (18 - 6 * place)) as usize & 63].into(),
                false => '=',
            });
        }
    }
    text + "\n-----END CERTIFICATE-----\n"
}

#[derive(Debug)]
pub(crate) struct Broken;

impl std::fmt::Display for Broken {
    fn fmt(&self, out: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        out.write_str("broken on purpose")
    }
}

impl std::error::Error for Broken {}
