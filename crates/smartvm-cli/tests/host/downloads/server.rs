//! A server of one file, which stands still in the middle.

use std::collections::HashMap;
use std::io::{BufRead, BufReader, Write};
use std::net::{TcpListener, TcpStream};
use std::sync::{Arc, Mutex};

/// A server of one file. The first answer stands still in the middle.
pub(super) struct Server {
    pub(super) url: String,
    /// The Range of each request.
    asked: Arc<Mutex<Vec<Option<String>>>>,
    /// The first answer goes on when this is dropped.
    held: Option<std::sync::mpsc::Sender<()>>,
}

impl Server {
    pub(super) fn start(body: Vec<u8>, tells_length: bool) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let url = format!("http://{}/root.img", listener.local_addr().unwrap());
        let asked: Arc<Mutex<Vec<_>>> = Arc::default();
        let (held, until) = std::sync::mpsc::channel();
        let seen = Arc::clone(&asked);
        let mut until = Some(until);
        let body = Arc::new(body);
        std::thread::spawn(move || {
            for stream in listener.incoming().map_while(Result::ok) {
                let range = head(&stream).remove("range");
                seen.lock().unwrap().push(range.clone());
                let (body, until) = (Arc::clone(&body), until.take());
                // A client that was killed is gone.
                std::thread::spawn(move || {
                    let _gone = answer(&stream, &body, range, tells_length, until);
                });
            }
        });
        Self {
            url,
            asked,
            held: Some(held),
        }
    }

    pub(super) fn go_on(&mut self) {
        drop(self.held.take());
    }

    pub(super) fn asked(&self) -> Vec<Option<String>> {
        self.asked.lock().unwrap().clone()
    }
}

fn head(stream: &TcpStream) -> HashMap<String, String> {
    let lines = BufReader::new(stream).lines().map_while(Result::ok);
    let head = lines.take_while(|line| !line.is_empty());
    head.filter_map(|line| {
        let (name, value) = line.split_once(": ")?;
        Some((name.to_lowercase(), value.to_owned()))
    })
    .collect()
}

fn answer(
    mut stream: &TcpStream,
    body: &[u8],
    range: Option<String>,
    tells_length: bool,
    until: Option<std::sync::mpsc::Receiver<()>>,
) -> std::io::Result<()> {
    let begin: usize = range
        .and_then(|range| range["bytes=".len()..].trim_end_matches('-').parse().ok())
        .unwrap_or(0);
    let rest = &body[begin..];
    let length = match tells_length {
        true => format!("Content-Length: {}\r\n", rest.len()),
        false => String::new(),
    };
    let status = match begin {
        0 => "200 OK".to_owned(),
        _ => format!(
            "206 Partial Content\r\nContent-Range: bytes {begin}-{}/{}",
            body.len() - 1,
            body.len()
        ),
    };
    write!(
        stream,
        "HTTP/1.1 {status}\r\nETag: \"1\"\r\nConnection: close\r\n{length}\r\n"
    )?;
    let (first, second) = rest.split_at(rest.len() / 2);
    stream.write_all(first)?;
    if let Some(until) = until {
        // An error means that the wait is over.
        let _over = until.recv();
    }
    stream.write_all(second)
}
