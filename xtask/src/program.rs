//! Running programs.

use std::io::{BufRead, BufReader, Read, Write};
use std::path::PathBuf;
use std::process::{Command, ExitStatus, Stdio};
use std::sync::mpsc::{self, RecvTimeoutError, Sender};
use std::time::{Duration, Instant};

use crate::failure::{Failure, Result};

/// Of a failed program's output, this many lines are shown.
const SHOWN: usize = 30;

/// A line is cut here, so that no program can fill the memory, in bytes.
const LONGEST_LINE: u64 = 64 * 1024;

/// Where programs for administrators are, which an ordinary user's PATH may lack.
const SYSTEM: [&str; 3] = ["/usr/local/sbin", "/usr/sbin", "/sbin"];

/// The file that this program is, if it is there.
pub(crate) fn find(name: &str) -> Option<PathBuf> {
    let path = std::env::var_os("PATH").unwrap_or_default();
    std::env::split_paths(&path)
        .chain(SYSTEM.map(PathBuf::from))
        .map(|directory| directory.join(name))
        .find(|file| file.is_file())
}

/// A command for this program, wherever it is.
///
/// # Errors
/// If there is no such program.
pub(crate) fn command(name: &str) -> Result<Command> {
    let path = find(name).ok_or_else(|| Failure::new(format!("there is no program {name}")))?;
    Ok(Command::new(path))
}

/// Runs it to the end without showing anything, and returns its standard output.
///
/// # Errors
/// If it can't be run, or fails: then with the end of its output.
pub(crate) fn output(command: &mut Command) -> Result<String> {
    let output = command
        .stdin(Stdio::null())
        .output()
        .map_err(|cause| Failure::new(format!("running {}: {cause}", shown(command))))?;
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    if output.status.success() {
        return Ok(text);
    }
    let all = text + &String::from_utf8_lossy(&output.stderr);
    let lines: Vec<&str> = all.lines().collect();
    let tail = lines[lines.len().saturating_sub(SHOWN)..].join("\n    ");
    let status = output.status;
    Err(Failure::new(format!(
        "{}: {status}\n    {tail}",
        shown(command)
    )))
}

/// The SHA-256 of these bytes, in hexadecimal digits.
///
/// # Errors
/// If sha256sum can't be run.
pub(crate) fn sha256(bytes: &[u8]) -> Result<String> {
    let fault = |cause| Failure::new(format!("running sha256sum: {cause}"));
    let mut child = command("sha256sum")?
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .map_err(fault)?;
    if let Some(mut stdin) = child.stdin.take() {
        stdin.write_all(bytes).map_err(fault)?;
    }
    let output = child.wait_with_output().map_err(fault)?;
    let text = String::from_utf8_lossy(&output.stdout);
    match text.split_whitespace().next() {
        Some(sum) if output.status.success() && sum.len() == 64 => Ok(sum.to_owned()),
        _ => Err(Failure::new("sha256sum printed no checksum")),
    }
}

/// Which of its two streams a program's lines are taken from; the other is left as it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Stream {
    Out,
    Err,
}

/// Runs it and hands over each line of one stream as it comes. `None` at the deadline: it is
/// killed then.
///
/// # Errors
/// If it can't be run.
pub(crate) fn lines(
    command: &mut Command,
    stream: Stream,
    patience: Duration,
    mut each: impl FnMut(&str),
) -> Result<Option<ExitStatus>> {
    let deadline = Instant::now() + patience;
    match stream {
        Stream::Out => command.stdout(Stdio::piped()),
        Stream::Err => command.stderr(Stdio::piped()),
    };
    let mut child = command
        .stdin(Stdio::null())
        .spawn()
        .map_err(|cause| Failure::new(format!("running {}: {cause}", shown(command))))?;
    let pipe: Option<Box<dyn Read + Send>> = match stream {
        Stream::Out => child.stdout.take().map(|pipe| Box::new(pipe) as _),
        Stream::Err => child.stderr.take().map(|pipe| Box::new(pipe) as _),
    };
    let (sender, receiver) = mpsc::channel();
    // It ends with the pipe: at the latest when the last process that holds it does.
    std::thread::spawn(move || pipe.and_then(|pipe| forward(pipe, &sender)));
    loop {
        match receiver.recv_timeout(deadline.saturating_duration_since(Instant::now())) {
            Ok(line) => each(&line),
            Err(RecvTimeoutError::Disconnected) => {
                return child.wait().map(Some).map_err(|cause| {
                    Failure::new(format!("waiting for {}: {cause}", shown(command)))
                });
            }
            Err(RecvTimeoutError::Timeout) => {
                // It may have ended in this moment: then there is nothing to kill.
                let _ = child.kill();
                let _ = child.wait();
                return Ok(None);
            }
        }
    }
}

/// Sends each line until the stream ends, or nobody listens any more: `None` either way.
fn forward(pipe: impl Read, lines: &Sender<String>) -> Option<()> {
    let mut reader = BufReader::new(pipe);
    loop {
        let mut line = Vec::new();
        let read = reader
            .by_ref()
            .take(LONGEST_LINE)
            .read_until(b'\n', &mut line)
            .ok()?;
        if read == 0 {
            return None;
        }
        let line = String::from_utf8_lossy(&line);
        lines
            .send(line.trim_end_matches(['\n', '\r']).to_owned())
            .ok()?;
    }
}

/// A command as it would be typed, its program without the directory.
fn shown(command: &Command) -> String {
    let program = std::path::Path::new(command.get_program());
    let name = program.file_name().unwrap_or(command.get_program());
    std::iter::once(name)
        .chain(command.get_args())
        .map(|word| word.to_string_lossy())
        .collect::<Vec<_>>()
        .join(" ")
}
