//! WireGuard in a program, where the kernel has none. It works in the network's directory, by
//! which it is found again; keys reach it through its socket alone.

use std::fs::OpenOptions;
use std::os::unix::fs::OpenOptionsExt;
use std::os::unix::net::UnixStream;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use rustix::process::Signal;

use super::uapi;
use crate::error::{Error, ErrorKind, Result};
use crate::name::IfName;
use crate::network::link::Links;
use crate::process::{ProcessId, children};
use crate::step::process;
use crate::storage::program;

/// The implementations that are known, the preferred first.
const PROGRAMS: [&str; 2] = ["boringtun-cli", "wireguard-go"];
/// How long one may take to make its device, or to end.
const PATIENCE: Duration = Duration::from_secs(15);
const LOG: &str = "wireguard.log";
/// So many of its last lines are told when it fails.
const LAST_LINES: usize = 3;

/// The first one that is there.
pub(super) fn find() -> Result<PathBuf> {
    PROGRAMS
        .iter()
        .find_map(|name| program::find(name, "wireguard-go").ok())
        .ok_or_else(|| {
            Error::new(
                ErrorKind::Host,
                "this kernel has no WireGuard, and no program that stands in for it is here",
            )
            .hint("use a kernel with WireGuard, or install wireguard-go or boringtun-cli")
        })
}

/// Starts one, and waits until it has made its device and answers.
pub(super) fn start(program: &Path, dir: &Path, device: &IfName) -> Result<()> {
    let failed = |e| Error::io("starting", program, e);
    let log = OpenOptions::new()
        .write(true)
        .create(true)
        .truncate(true)
        .mode(0o600)
        .open(dir.join(LOG))
        .map_err(failed)?;
    let mut command = Command::new(program);
    if program.ends_with("boringtun-cli") {
        command.arg("--foreground");
    }
    let child = command
        .arg(device.as_str())
        .env_clear()
        .env("LOG_LEVEL", "error")
        .env("WG_PROCESS_FOREGROUND", "1")
        .env("WG_I_PREFER_BUGGY_USERSPACE_TO_POLISHED_KMOD", "1")
        // Of boringtun: it stays who it is, as it needs its rights until its end. Some versions of
        // it take no other word for yes.
        .env("WG_SUDO", "true")
        .current_dir(dir)
        .stdin(Stdio::null())
        .stdout(log.try_clone().map_err(failed)?)
        .stderr(log)
        // A terminal's signals are not for it.
        .process_group(0)
        .spawn()
        .map_err(failed)?;
    let process = ProcessId::of(child.id())?;
    children::keep(child);
    let deadline = Instant::now() + PATIENCE;
    let mut links = Links::open()?;
    loop {
        let answers = UnixStream::connect(uapi::socket(device)).is_ok();
        if answers && links.find(device.as_str())?.is_some() {
            return Ok(());
        }
        let alive = match &process {
            Some(process) => process.is_alive()?,
            None => false,
        };
        if !alive || Instant::now() > deadline {
            let said = std::fs::read_to_string(dir.join(LOG)).unwrap_or_default();
            let said = last_words(&said);
            return Err(Error::new(
                ErrorKind::Host,
                format!("{} doesn't make {device}: {said}", program.display()),
            )
            .hint("it needs root's rights and /dev/net/tun"));
        }
        std::thread::sleep(Duration::from_millis(5));
    }
}

/// The last lines of a log, as one.
fn last_words(log: &str) -> String {
    let said = log.lines().map(str::trim).filter(|line| !line.is_empty());
    let mut last: Vec<&str> = said.rev().take(LAST_LINES).collect();
    last.reverse();
    match last.is_empty() {
        true => "it said nothing".to_owned(),
        false => last.join("; "),
    }
}

/// Ends the one that works in this directory, and waits until it has.
pub(super) fn end(program: &Path, dir: &Path, device: &IfName) -> Result<()> {
    for process in process::find(&[program.to_owned()], dir)? {
        let Some(pidfd) = process.open()? else {
            continue;
        };
        // Killed at once: its device goes with it, and nothing else is its own.
        pidfd.signal(Signal::KILL)?;
        if !pidfd.wait(PATIENCE)? {
            return Err(Error::new(
                ErrorKind::Timeout,
                format!("{} (pid {}) doesn't end", program.display(), process.pid),
            ));
        }
        let socket = uapi::socket(device);
        if UnixStream::connect(&socket).is_err() {
            // It may never have been made.
            let _missing = std::fs::remove_file(&socket);
        }
    }
    children::reap();
    let _missing = std::fs::remove_file(dir.join(LOG));
    Ok(())
}
