//! The service on a virtio-serial port: a plain byte stream without connections, so one
//! session at a time.

use std::fs::{File, OpenOptions};
use std::io;
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};
use std::thread;
use std::time::{Duration, Instant};

use rustix::event::{PollFd, PollFlags};

use super::connection::poll_until;
use super::session::{self, Guest};

/// Between looks at whether the port, or a host at its other end, is there.
const NAP: Duration = Duration::from_millis(20);

/// How long the host of the session before may take to hang up. Should it hang up and come
/// back too quickly to be seen, the next session begins after this time.
const HANGUP_PATIENCE: Duration = Duration::from_secs(2);

/// Serves one session after another on the virtio-serial port called `name`. `log` takes
/// diagnostics.
///
/// # Errors
/// If there is no such port within `patience`, or it can't be opened.
pub fn serve_port(name: &str, patience: Duration, guest: &Guest, log: fn(&str)) -> io::Result<()> {
    let path = wait_for_port(name, Instant::now() + patience)?;
    log(&format!("serving virtio port {name} ({})", path.display()));
    loop {
        // Opened afresh for each session: the kernel then drops what the last one left unread.
        let port = OpenOptions::new().read(true).write(true).open(&path)?;
        wait_for_host(&port)?;
        let copy = port.try_clone()?;
        if let Err(error) = session::serve(OwnedFd::from(copy), guest) {
            log(&format!("a session ended early: {error}"));
        }
        // No event asked for: poll reports a hang-up all the same.
        let mut fds = [PollFd::new(&port, PollFlags::empty())];
        poll_until(&mut fds, Some(Instant::now() + HANGUP_PATIENCE))?;
    }
}

/// Waits until a host has the other end open. While there is none poll reports a hang-up at
/// once, so it can't wait for the opposite.
fn wait_for_host(port: &File) -> io::Result<()> {
    loop {
        let mut fds = [PollFd::new(port, PollFlags::OUT)];
        poll_until(&mut fds, None)?;
        if !fds[0].revents().contains(PollFlags::HUP) {
            return Ok(());
        }
        thread::sleep(NAP);
    }
}

fn wait_for_port(name: &str, deadline: Instant) -> io::Result<PathBuf> {
    loop {
        if let Some(path) = find_port(Path::new("/sys/class/virtio-ports"), name)
            && path.exists()
        {
            return Ok(path);
        }
        if Instant::now() >= deadline {
            return Err(io::Error::new(
                io::ErrorKind::NotFound,
                format!("the guest has no virtio port {name:?}"),
            ));
        }
        thread::sleep(NAP);
    }
}

fn find_port(class: &Path, name: &str) -> Option<PathBuf> {
    std::fs::read_dir(class)
        .ok()?
        .filter_map(Result::ok)
        .find(|port| {
            std::fs::read_to_string(port.path().join("name"))
                .is_ok_and(|found| found.trim_end() == name)
        })
        .map(|port| Path::new("/dev").join(port.file_name()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_port_is_found_by_the_name_in_sysfs() {
        let class = tempfile::tempdir().expect("a directory");
        for (device, name) in [("vport0p1", "org.example\n"), ("vport0p2", "smartvm\n")] {
            std::fs::create_dir(class.path().join(device)).expect("a port");
            std::fs::write(class.path().join(device).join("name"), name).expect("its name");
        }
        assert_eq!(
            find_port(class.path(), "smartvm"),
            Some("/dev/vport0p2".into())
        );
        assert_eq!(find_port(class.path(), "smart"), None);
        assert_eq!(find_port(&class.path().join("none"), "smartvm"), None);
    }
}
