//! The host's side against the agent's real service, run as an ordinary process of this
//! machine behind a Unix socket that answers as Firecracker's does.

mod commands;
mod failures;
mod files;
mod streams;

use std::io::{Read, Write};
use std::os::fd::OwnedFd;
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::PathBuf;
use std::time::{Duration, Instant};

use smartvm_agent::service::{Guest, serve};

use super::{Agent, Command};

/// A "guest": this machine, as seen through the agent.
struct FakeGuest {
    directory: tempfile::TempDir,
}

impl FakeGuest {
    fn new() -> Self {
        let directory = tempfile::tempdir().expect("a directory");
        let listener = UnixListener::bind(directory.path().join("vsock.sock")).expect("a socket");
        // Both threads end with the test's process at the latest.
        std::thread::spawn(move || {
            for stream in listener.incoming() {
                let stream = stream.expect("a connection");
                std::thread::spawn(move || answer(stream));
            }
        });
        Self { directory }
    }

    fn agent(&self) -> Agent {
        Agent::over_vsock(self.path("vsock.sock"))
    }

    fn path(&self, name: &str) -> PathBuf {
        self.directory.path().join(name)
    }
}

fn answer(mut stream: UnixStream) {
    let mut line = Vec::new();
    let mut byte = [0];
    while byte != *b"\n" && stream.read_exact(&mut byte).is_ok() {
        line.push(byte[0]);
    }
    if line == b"CONNECT 29558\n" && stream.write_all(b"OK 1024\n").is_ok() {
        // A session that ended early is what some tests are about.
        let _ = serve(OwnedFd::from(stream), &Guest::ordinary());
    }
}

/// A shell command in the "guest".
fn shell(script: &str) -> Command {
    Command::new("sh").arg("-c").arg(script)
}

/// Bytes without any pattern that cutting or repeating would keep.
fn noise(length: usize) -> Vec<u8> {
    let mut state = 0x9e37_79b9_7f4a_7c15_u64;
    let mut bytes = Vec::with_capacity(length + 8);
    while bytes.len() < length {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        bytes.extend(state.to_le_bytes());
    }
    bytes.truncate(length);
    bytes
}

/// Waits until no process (but perhaps its remains) has this number.
async fn wait_for_end(pid: i32) {
    let end = Instant::now() + Duration::from_secs(60);
    while let Ok(stat) = std::fs::read_to_string(format!("/proc/{pid}/stat")) {
        let state = stat.rsplit(')').next().expect("fields").trim();
        if state.starts_with('Z') {
            return;
        }
        assert!(Instant::now() < end, "process {pid} is still there: {stat}");
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}
