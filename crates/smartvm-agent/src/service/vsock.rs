//! The service on a vsock port: every connection from the host is one session.

use std::io;
use std::os::fd::OwnedFd;
use std::thread;
use std::time::{Duration, Instant};

use ::vsock::{VMADDR_CID_ANY, VMADDR_CID_HOST, VsockListener};

use super::limit::Limit;
use super::session::{self, Guest};
use crate::protocol::{ErrorCode, MAX_SESSIONS, Refusal};

/// Between attempts to listen while the kernel has no vsock yet, and after a failed accept.
const NAP: Duration = Duration::from_millis(20);

/// Serves the host on vsock `port` for as long as the guest lives. `log` takes diagnostics.
///
/// # Errors
/// If the guest has no vsock within `patience`.
pub fn serve_vsock(port: u32, patience: Duration, guest: &Guest, log: fn(&str)) -> io::Result<()> {
    let listener = listen(port, Instant::now() + patience)?;
    log(&format!("listening on vsock port {port}"));
    let sessions = Limit::new(MAX_SESSIONS);
    // A few connections may be told that there are too many; more are just closed.
    let refusals = Limit::new(16);
    loop {
        let (stream, peer) = match listener.accept() {
            Ok(accepted) => accepted,
            Err(error) => {
                // Out of descriptors or memory, or a connection that broke in the queue.
                log(&format!("accepting a connection: {error}"));
                thread::sleep(NAP);
                continue;
            }
        };
        // Processes inside the guest can reach its own ports: only the host is answered.
        if peer.cid() != VMADDR_CID_HOST {
            log(&format!("refused a connection from CID {}", peer.cid()));
            continue;
        }
        let fd = OwnedFd::from(stream);
        if let Some(permit) = sessions.enter() {
            let guest = guest.clone();
            start(log, move || {
                let result = session::serve(fd, &guest);
                drop(permit);
                result
            });
        } else if let Some(permit) = refusals.enter() {
            start(log, move || {
                let message = format!("{MAX_SESSIONS} sessions are open, which is the most");
                let result = session::serve_refusal(fd, Refusal::new(ErrorCode::Busy, message));
                drop(permit);
                result
            });
        }
    }
}

fn start(log: fn(&str), work: impl FnOnce() -> io::Result<()> + Send + 'static) {
    let started = thread::Builder::new()
        .name("session".to_owned())
        .spawn(move || {
            if let Err(error) = work() {
                log(&format!("a session ended early: {error}"));
            }
        });
    if let Err(error) = started {
        log(&format!("starting a session: {error}"));
    }
}

fn listen(port: u32, deadline: Instant) -> io::Result<VsockListener> {
    loop {
        match VsockListener::bind_with_cid_port(VMADDR_CID_ANY, port) {
            Ok(listener) => return Ok(listener),
            Err(error) if Instant::now() >= deadline => return Err(error),
            // Another process has the port: waiting wouldn't help.
            Err(error) if error.kind() == io::ErrorKind::AddrInUse => return Err(error),
            Err(_) => thread::sleep(NAP),
        }
    }
}
