//! TAPs of a test's own, and what answers behind them.

use std::io::{Read, Write};
use std::net::TcpListener;
use std::process::Command;
use std::thread;

use crate::support::Ground;

/// What goes each way when it is measured.
pub(super) const BYTES: usize = 3 << 20;

/// A TAP, gone at its end. Its addresses are for documentation: nobody else has them.
pub(super) struct Tap {
    pub(super) name: String,
    pub(super) mac: String,
    /// The host's address.
    pub(super) host: String,
    /// The guest's address, with the length of its prefix.
    pub(super) guest: String,
}

fn ip(args: &[&str]) {
    let done = Command::new("ip").args(args).output().unwrap();
    assert!(done.status.success(), "{args:?}: {done:?}");
}

impl Tap {
    pub(super) fn make(ground: Ground, number: u8) -> Self {
        let number = match ground {
            Ground::Free => number,
            Ground::Jailed => 8 + number,
        };
        let address = |last: u8| format!("192.0.2.{}", 16 * number + last);
        let tap = Self {
            name: format!("smtest{number}"),
            mac: format!("06:00:c0:00:02:{number:02x}"),
            host: address(1),
            guest: format!("{}/28", address(2)),
        };
        ip(&["tuntap", "add", &tap.name, "mode", "tap"]);
        ip(&["link", "set", &tap.name, "up"]);
        let host = format!("{}/28", tap.host);
        ip(&["address", "add", &host, "dev", &tap.name]);
        tap
    }

    /// Port 1 gives [`BYTES`], port 2 takes them and answers; each to whoever connects, until
    /// the test's process ends.
    pub(super) fn serve(&self) {
        let listen = |port: u16| TcpListener::bind((self.host.as_str(), port)).unwrap();
        let (gives, takes) = (listen(1), listen(2));
        thread::spawn(move || {
            for connection in gives.incoming() {
                // The guest's end tells how it went.
                let _gone = connection.unwrap().write_all(&vec![7; BYTES]);
            }
        });
        thread::spawn(move || {
            for connection in takes.incoming() {
                let mut connection = connection.unwrap();
                let all = connection.read_exact(&mut vec![0; BYTES]);
                let _gone = all.and_then(|()| connection.write_all(b"!"));
            }
        });
    }
}

impl Drop for Tap {
    fn drop(&mut self) {
        let _gone = Command::new("ip")
            .args(["link", "del", &self.name])
            .output();
    }
}
