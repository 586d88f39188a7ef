//! A terminal that a test sits at.

use std::fs::{File, OpenOptions};
use std::io::{Read, Write};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::OpenOptionsExt;
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::sync::mpsc::{Receiver, channel};
use std::time::{Duration, Instant};

use rustix::pty::OpenptFlags;
use rustix::termios::{Winsize, tcgetattr, tcsetwinsize};

/// How long a guest may take to answer.
const PATIENCE: Duration = Duration::from_secs(150);

/// Both ends of it.
pub(crate) struct Pty {
    hand: File,
    user: File,
    /// What was shown, as a thread reads it.
    shown: Receiver<Vec<u8>>,
    /// What was shown and not yet looked for.
    text: String,
}

/// A program that runs in it; ends with its test.
pub(crate) struct Running(Child);

impl Running {
    pub(crate) fn wait(mut self) -> Option<i32> {
        let deadline = Instant::now() + PATIENCE;
        loop {
            if let Some(status) = self.0.try_wait().unwrap() {
                return status.code();
            }
            assert!(Instant::now() < deadline, "it doesn't end");
            std::thread::sleep(Duration::from_millis(20));
        }
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        let _ended = self.0.kill();
        let _reaped = self.0.wait();
    }
}

impl Pty {
    /// A new one with so many lines and columns.
    pub(crate) fn open(rows: u16, cols: u16) -> Self {
        let hand = rustix::pty::openpt(OpenptFlags::RDWR | OpenptFlags::NOCTTY).unwrap();
        rustix::pty::grantpt(&hand).unwrap();
        rustix::pty::unlockpt(&hand).unwrap();
        let name = rustix::pty::ptsname(&hand, Vec::new()).unwrap();
        let name = PathBuf::from(std::ffi::OsStr::from_bytes(name.to_bytes()));
        let user = OpenOptions::new()
            .read(true)
            .write(true)
            .custom_flags(rustix::fs::OFlags::NOCTTY.bits() as i32)
            .open(name)
            .unwrap();
        let hand = File::from(hand);
        let mut reader = hand.try_clone().unwrap();
        let (shows, shown) = channel();
        std::thread::spawn(move || {
            let mut bytes = [0; 4096];
            while let Ok(read @ 1..) = reader.read(&mut bytes) {
                if shows.send(bytes[..read].to_vec()).is_err() {
                    break;
                }
            }
        });
        let pty = Self {
            hand,
            user,
            shown,
            text: String::new(),
        };
        pty.resize(rows, cols);
        pty
    }

    pub(crate) fn resize(&self, rows: u16, cols: u16) {
        let size = Winsize {
            ws_row: rows,
            ws_col: cols,
            ws_xpixel: 0,
            ws_ypixel: 0,
        };
        tcsetwinsize(&self.hand, size).unwrap();
    }

    /// How it is set up: whether it shows what is typed, waits for whole lines, and so on.
    pub(crate) fn modes(&self) -> String {
        let modes = tcgetattr(&self.user).unwrap();
        format!(
            "{:?} {:?} {:?}",
            modes.input_modes, modes.output_modes, modes.local_modes
        )
    }

    /// Runs a command in it, in a session of its own.
    pub(crate) fn run(&self, what: &assert_cmd::Command) -> Running {
        let end = || Stdio::from(self.user.try_clone().unwrap());
        let mut command = Command::new("setsid");
        command.args(["--ctty", "--wait"]);
        command.arg(what.get_program()).args(what.get_args());
        command.stdin(end()).stdout(end()).stderr(end());
        command.env("TERM", "dumb");
        for (name, value) in what.get_envs() {
            match value {
                Some(value) => command.env(name, value),
                None => command.env_remove(name),
            };
        }
        Running(command.spawn().unwrap())
    }

    pub(crate) fn say(&mut self, typed: &str) {
        self.hand.write_all(typed.as_bytes()).unwrap();
    }

    /// Waits until this is shown.
    pub(crate) fn hear(&mut self, wanted: &str) {
        assert!(
            self.hears(wanted, PATIENCE),
            "{wanted:?} isn't shown: {:?}",
            self.text
        );
    }

    /// Waits so long for this to be shown; whether it was.
    pub(crate) fn hears(&mut self, wanted: &str, patience: Duration) -> bool {
        let deadline = Instant::now() + patience;
        loop {
            if let Some(at) = self.text.find(wanted) {
                self.text.drain(..at + wanted.len());
                return true;
            }
            let left = deadline.saturating_duration_since(Instant::now());
            match self.shown.recv_timeout(left) {
                Ok(bytes) => self.text.push_str(&String::from_utf8_lossy(&bytes)),
                Err(_) => return false,
            }
        }
    }
}
