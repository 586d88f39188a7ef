//! Who a process is, for longer than a pid lasts: pid, start time and boot, signalled
//! through a pidfd, so that a recycled pid is never mistaken for it.

pub(crate) mod children;

use std::io::Read;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::PathBuf;
use std::sync::OnceLock;
use std::time::{Duration, Instant};

use rustix::event::{PollFd, PollFlags, Timespec};
use rustix::process::{Pid, PidfdFlags, Signal};
use serde::{Deserialize, Serialize};

use crate::error::{Error, ErrorKind, Result};

/// More than fifty numbers and a name take.
const MOST_STAT_BYTES: u64 = 4096;

/// A process, told apart from every other that had or will have its pid.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct ProcessId {
    /// The pid, as this host's root namespace counts it.
    pub pid: u32,
    /// When it started, in clock ticks since boot (field 22 of `/proc/PID/stat`).
    pub start_time: u64,
    /// The boot it belongs to (`/proc/sys/kernel/random/boot_id`).
    pub boot_id: String,
}

/// This boot's id: changes with every start of the host.
pub fn boot_id() -> Result<&'static str> {
    static BOOT: OnceLock<String> = OnceLock::new();
    if let Some(id) = BOOT.get() {
        return Ok(id);
    }
    let path = "/proc/sys/kernel/random/boot_id";
    let id = std::fs::read_to_string(path).map_err(|e| Error::io("reading", path, e))?;
    Ok(BOOT.get_or_init(|| id.trim().to_owned()))
}

/// A file of /proc, which is read at once: it says nothing of its length.
fn stat(path: &str) -> std::io::Result<Vec<u8>> {
    let mut stat = Vec::with_capacity(1024);
    let file = std::fs::File::open(path)?;
    file.take(MOST_STAT_BYTES).read_to_end(&mut stat)?;
    Ok(stat)
}

impl ProcessId {
    /// The process that has `pid` now; `None` if there is none, or only its zombie.
    pub fn of(pid: u32) -> Result<Option<Self>> {
        let path = format!("/proc/{pid}/stat");
        let stat = match stat(&path) {
            Ok(stat) => stat,
            Err(e) if is_gone(&e) => return Ok(None),
            Err(e) => return Err(Error::io("reading", path, e)),
        };
        let Some((state, start_time)) = parse_stat(&stat) else {
            return Err(Error::new(
                ErrorKind::Corrupt,
                format!("{path} can't be understood"),
            ));
        };
        if matches!(state, b'Z' | b'X') {
            return Ok(None);
        }
        Ok(Some(Self {
            pid,
            start_time,
            boot_id: boot_id()?.to_owned(),
        }))
    }

    /// This process.
    pub fn myself() -> Result<Self> {
        static MYSELF: OnceLock<ProcessId> = OnceLock::new();
        let pid = std::process::id();
        // A fork of the process that asked first is another one.
        if let Some(known) = MYSELF.get().filter(|known| known.pid == pid) {
            return Ok(known.clone());
        }
        let found = Self::of(pid)?.ok_or_else(|| {
            Error::new(ErrorKind::Host, "this process is missing in /proc")
                .hint("mount /proc of this pid namespace")
        })?;
        let _known = MYSELF.set(found.clone());
        Ok(found)
    }

    /// Whether it still runs. A zombie doesn't.
    pub fn is_alive(&self) -> Result<bool> {
        if self.boot_id != boot_id()? {
            return Ok(false);
        }
        Ok(Self::of(self.pid)?.is_some_and(|now| now.start_time == self.start_time))
    }

    /// A descriptor that stands for exactly this process; `None` if it is gone.
    pub fn open(&self) -> Result<Option<PidFd>> {
        let Some(pid) = i32::try_from(self.pid).ok().and_then(Pid::from_raw) else {
            return Ok(None);
        };
        let fd = match rustix::process::pidfd_open(pid, PidfdFlags::empty()) {
            Ok(fd) => fd,
            Err(rustix::io::Errno::SRCH) => return Ok(None),
            Err(e) => {
                return Err(
                    Error::new(ErrorKind::Io, format!("opening process {}", self.pid))
                        .because(std::io::Error::from(e)),
                );
            }
        };
        // Asked after opening: if the pid was recycled before, the start time tells.
        Ok(self.is_alive()?.then_some(PidFd { fd, pid: self.pid }))
    }

    /// The file that it executes, where this may be read.
    pub fn executable(&self) -> Option<PathBuf> {
        std::fs::read_link(format!("/proc/{}/exe", self.pid)).ok()
    }
}

fn is_gone(error: &std::io::Error) -> bool {
    error.kind() == std::io::ErrorKind::NotFound
        || error.raw_os_error() == Some(rustix::io::Errno::SRCH.raw_os_error())
}

/// State and start time out of `/proc/PID/stat`, whose second field is a name in brackets
/// that may itself hold blanks and brackets.
fn parse_stat(stat: &[u8]) -> Option<(u8, u64)> {
    let end_of_name = stat.iter().rposition(|&byte| byte == b')')?;
    let rest = std::str::from_utf8(stat.get(end_of_name + 1..)?).ok()?;
    let mut fields = rest.split_ascii_whitespace();
    let state = *fields.next()?.as_bytes().first()?;
    // The state is field 3, the start time field 22.
    let start_time = fields.nth(18)?.parse().ok()?;
    Some((state, start_time))
}

/// A descriptor that stands for one process (`pidfd_open(2)`).
#[derive(Debug)]
pub struct PidFd {
    fd: OwnedFd,
    pid: u32,
}

impl PidFd {
    /// Sends a signal; `false` if the process is gone.
    pub fn signal(&self, signal: Signal) -> Result<bool> {
        match rustix::process::pidfd_send_signal(&self.fd, signal) {
            Ok(()) => Ok(true),
            Err(rustix::io::Errno::SRCH) => Ok(false),
            Err(e) => Err(Error::new(
                ErrorKind::Host,
                format!("sending signal {} to process {}", signal.as_raw(), self.pid),
            )
            .because(std::io::Error::from(e))),
        }
    }

    /// Waits until the process has ended; `false` if it still runs after `patience`.
    pub fn wait(&self, patience: Duration) -> Result<bool> {
        let deadline = Instant::now() + patience;
        loop {
            let left = deadline.saturating_duration_since(Instant::now());
            let mut fds = [PollFd::new(&self.fd, PollFlags::IN)];
            match rustix::event::poll(&mut fds, Some(&timespec(left))) {
                Ok(0) if left.is_zero() => return Ok(false),
                Ok(0) | Err(rustix::io::Errno::INTR) => {}
                Ok(_) => return Ok(true),
                Err(e) => {
                    return Err(Error::new(
                        ErrorKind::Io,
                        format!("waiting for process {}", self.pid),
                    )
                    .because(std::io::Error::from(e)));
                }
            }
        }
    }
}

impl AsFd for PidFd {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.fd.as_fd()
    }
}

impl From<PidFd> for OwnedFd {
    fn from(pidfd: PidFd) -> Self {
        pidfd.fd
    }
}

/// A duration as the kernel's calls take it.
pub(crate) fn timespec(duration: Duration) -> Timespec {
    Timespec {
        tv_sec: i64::try_from(duration.as_secs()).unwrap_or(i64::MAX),
        tv_nsec: duration.subsec_nanos().into(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_with_brackets_and_blanks_does_not_confuse_the_fields() {
        let stat = b"7 (a) b (c)) S 1 7 7 0 -1 4194560 1 0 0 0 0 0 0 0 20 0 1 0 4242 0 0";
        assert_eq!(parse_stat(stat), Some((b'S', 4242)));
        assert_eq!(parse_stat(b"7 (a S 1"), None);
        assert_eq!(parse_stat(b""), None);
    }

    #[test]
    fn a_child_is_alive_until_it_is_killed_and_then_never_again() {
        let mut child = std::process::Command::new("sleep")
            .arg("60")
            .spawn()
            .unwrap();
        let id = ProcessId::of(child.id()).unwrap().unwrap();
        assert!(id.is_alive().unwrap());
        let pidfd = id.open().unwrap().unwrap();
        assert!(!pidfd.wait(Duration::ZERO).unwrap());
        assert!(pidfd.signal(Signal::KILL).unwrap());
        assert!(pidfd.wait(Duration::from_secs(10)).unwrap());
        assert!(!id.is_alive().unwrap(), "a zombie counts as gone");
        child.wait().unwrap();
        assert!(!pidfd.signal(Signal::KILL).unwrap());
        assert!(id.open().unwrap().is_none());
    }

    #[test]
    fn another_start_time_or_boot_is_another_process() {
        let me = ProcessId::myself().unwrap();
        assert!(me.is_alive().unwrap());
        let earlier = ProcessId {
            start_time: me.start_time - 1,
            ..me.clone()
        };
        assert!(!earlier.is_alive().unwrap());
        assert!(earlier.open().unwrap().is_none());
        let other_boot = ProcessId {
            boot_id: "another".into(),
            ..me
        };
        assert!(!other_boot.is_alive().unwrap());
    }
}
