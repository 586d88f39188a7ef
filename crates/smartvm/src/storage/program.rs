//! Programs that do what no library does: found, run with an argument vector, waited for
//! within a deadline, their words in the error.

use std::fs::File;
use std::io::{Read, Seek};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::io::Errno;
use rustix::process::{Pid, PidfdFlags, pidfd_open};

use super::progress::go_on;
use crate::{Error, ErrorKind, Result};

/// What is kept of what a program says.
const MAX_SAID: u64 = 64 << 10;

/// Where administrators' programs are, which the PATH of ordinary users often lacks.
const SBIN: [&str; 3] = ["/usr/local/sbin", "/usr/sbin", "/sbin"];

/// Finds a program on PATH or among the administrators' programs; `package` is the Debian
/// package that has it.
pub(crate) fn find(name: &str, package: &str) -> Result<PathBuf> {
    let path = std::env::var_os("PATH").unwrap_or_default();
    std::env::split_paths(&path)
        .filter(|dir| dir.is_absolute())
        .chain(SBIN.iter().map(PathBuf::from))
        .map(|dir| dir.join(name))
        .find(|program| program.is_file())
        .ok_or_else(|| {
            Error::new(ErrorKind::Host, format!("the program {name} is missing"))
                .hint(format!("install the package {package}"))
        })
}

/// How a program ended and what it said.
pub(crate) struct Ended {
    /// Its exit status, if it wasn't killed.
    pub(crate) status: Option<i32>,
    /// Its standard output, the first 64 KiB.
    pub(crate) stdout: String,
    /// Its standard error, the first 64 KiB.
    pub(crate) stderr: String,
}

/// Runs a program to its end, without standard input; kills it when it is cancelled or takes
/// longer than `deadline`.
pub(crate) fn run(
    command: Command,
    deadline: Duration,
    cancelled: &dyn Fn() -> bool,
) -> Result<Ended> {
    let program = PathBuf::from(command.get_program());
    let stdout = tempfile::tempfile().map_err(|e| Error::io("running", program, e))?;
    run_with(command, Stdio::null(), stdout, deadline, cancelled)
}

/// The same with standard input alone, of which another thread may write the other end.
pub(crate) fn run_fed(
    command: Command,
    stdin: Stdio,
    deadline: Duration,
    cancelled: &dyn Fn() -> bool,
) -> Result<Ended> {
    let program = PathBuf::from(command.get_program());
    let stdout = tempfile::tempfile().map_err(|e| Error::io("running", program, e))?;
    run_with(command, stdin, stdout, deadline, cancelled)
}

/// The same with standard input, and its whole standard output in a file.
pub(crate) fn run_with(
    mut command: Command,
    stdin: Stdio,
    mut stdout: File,
    deadline: Duration,
    cancelled: &dyn Fn() -> bool,
) -> Result<Ended> {
    let program = PathBuf::from(command.get_program());
    let failed = |cause| Error::io("running", &program, cause);
    // Files, not pipes: nobody has to read them while the program runs.
    let mut stderr = tempfile::tempfile().map_err(failed)?;
    let mut child = command
        .stdin(stdin)
        .stdout(stdout.try_clone().map_err(failed)?)
        .stderr(stderr.try_clone().map_err(failed)?)
        .spawn()
        .map_err(failed)?;
    let waited = wait(&mut child, &program, deadline, cancelled);
    if waited.is_err() {
        // Killing fails only if it ended by itself; either way it is reaped.
        let _ = child.kill();
    }
    let status = child.wait().map_err(failed)?;
    waited?;
    Ok(Ended {
        status: status.code(),
        stdout: said(&mut stdout).map_err(failed)?,
        stderr: said(&mut stderr).map_err(failed)?,
    })
}

fn wait(
    child: &mut Child,
    program: &Path,
    deadline: Duration,
    cancelled: &dyn Fn() -> bool,
) -> Result<()> {
    let failed = |cause: Errno| Error::io("waiting for", program, cause);
    let descriptor = pidfd_open(Pid::from_child(child), PidfdFlags::empty()).map_err(failed)?;
    let end = Instant::now() + deadline;
    loop {
        go_on(cancelled, &format!("running {}", program.display()))?;
        let left = end.saturating_duration_since(Instant::now());
        if left.is_zero() {
            return Err(Error::new(
                ErrorKind::Timeout,
                format!(
                    "{} didn't end within {} s",
                    program.display(),
                    deadline.as_secs()
                ),
            ));
        }
        // A tenth of a second: how soon a wish to cancel is seen.
        let slice = left.min(Duration::from_millis(100));
        let slice = Timespec {
            tv_sec: 0,
            tv_nsec: slice.subsec_nanos().into(),
        };
        let mut descriptors = [PollFd::new(&descriptor, PollFlags::IN)];
        match poll(&mut descriptors, Some(&slice)) {
            Ok(0) | Err(Errno::INTR) => {}
            Ok(_) => return Ok(()),
            Err(cause) => return Err(failed(cause)),
        }
    }
}

fn said(file: &mut File) -> std::io::Result<String> {
    let mut bytes = Vec::new();
    file.rewind()?;
    file.take(MAX_SAID).read_to_end(&mut bytes)?;
    Ok(String::from_utf8_lossy(&bytes).into_owned())
}

/// An error of a program that ran but didn't do what it should have.
pub(crate) fn refused(program: &Path, doing: &str, ended: &Ended, said: &str) -> Error {
    let how = match ended.status {
        Some(status) => format!("ended with status {status}"),
        None => "was killed".to_owned(),
    };
    let said: Vec<&str> = said
        .lines()
        .filter(|line| !line.trim().is_empty())
        .collect();
    let mut words = said.iter().take(5).copied().collect::<Vec<_>>().join("; ");
    if said.len() > 5 {
        words.push_str(&format!("; and {} more lines", said.len() - 5));
    }
    Error::new(
        ErrorKind::Io,
        format!("{doing}: {} {how}: {words}", program.display()),
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_program_says_and_its_status_are_kept() {
        let mut command = Command::new("ls");
        command.arg("/proc/self/no such file");
        let ended = run(command, Duration::from_secs(10), &|| false).unwrap();
        assert_eq!(ended.status, Some(2));
        assert!(ended.stderr.contains("no such file"));
    }

    #[test]
    fn a_program_that_does_not_end_is_killed_in_time() {
        let mut command = Command::new("sleep");
        command.arg("1000");
        let error = run(command, Duration::from_millis(50), &|| false)
            .err()
            .unwrap();
        assert_eq!(error.kind(), ErrorKind::Timeout);
        let mut command = Command::new("sleep");
        command.arg("1000");
        let error = run(command, Duration::from_secs(100), &|| true)
            .err()
            .unwrap();
        assert_eq!(error.kind(), ErrorKind::Cancelled);
    }

    #[test]
    fn a_missing_program_is_told_with_its_package() {
        let error = find("no-such-program", "e2fsprogs").unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Host);
        assert_eq!(error.way_out(), Some("install the package e2fsprogs"));
    }
}
