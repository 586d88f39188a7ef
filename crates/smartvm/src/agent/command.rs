//! A command for the guest, and how it ended.

use std::path::PathBuf;

use serde::{Deserialize, Serialize};
use smartvm_agent::protocol::{Exec, Exit, Terminal};

/// A command to run in a guest.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Command(Exec);

impl Command {
    /// A program; without a slash in its name it is looked for in the guest's PATH.
    pub fn new(program: impl Into<String>) -> Self {
        Self(Exec {
            argv: vec![program.into()],
            ..Exec::default()
        })
    }

    /// A program and its arguments at once. An empty one is refused by the guest.
    pub fn from_argv(argv: impl IntoIterator<Item = impl Into<String>>) -> Self {
        Self(Exec {
            argv: argv.into_iter().map(Into::into).collect(),
            ..Exec::default()
        })
    }

    /// Adds an argument.
    #[must_use]
    pub fn arg(mut self, argument: impl Into<String>) -> Self {
        self.0.argv.push(argument.into());
        self
    }

    /// Adds arguments.
    #[must_use]
    pub fn args(mut self, arguments: impl IntoIterator<Item = impl Into<String>>) -> Self {
        self.0.argv.extend(arguments.into_iter().map(Into::into));
        self
    }

    /// Sets an environment variable, over the guest's defaults: PATH, HOME, USER, LOGNAME,
    /// SHELL, and TERM with a terminal.
    #[must_use]
    pub fn env(mut self, name: impl Into<String>, value: impl Into<String>) -> Self {
        self.0.env.push((name.into(), value.into()));
        self
    }

    /// Sets the working directory: an absolute path in the guest. By default it is the user's
    /// home directory, or `/`.
    #[must_use]
    pub fn current_dir(mut self, directory: impl Into<PathBuf>) -> Self {
        self.0.cwd = Some(directory.into());
        self
    }

    /// Sets the user: `USER`, `UID`, `USER:GROUP` or `UID:GID`. By default it is root.
    #[must_use]
    pub fn user(mut self, user: impl Into<String>) -> Self {
        self.0.user = Some(user.into());
        self
    }

    /// Sets whether the command gets a standard input; by default it reads from /dev/null.
    #[must_use]
    pub fn stdin(mut self, wanted: bool) -> Self {
        self.0.stdin = wanted;
        self
    }

    /// Runs the command on a terminal of its own, with so many lines and columns. Stdout and
    /// stderr are then one. `term` is the terminal's type, for TERM.
    #[must_use]
    pub fn terminal(mut self, rows: u16, cols: u16, term: impl Into<String>) -> Self {
        self.0.tty = Some(Terminal {
            rows,
            cols,
            term: term.into(),
        });
        self
    }

    /// Whether the command gets a standard input.
    pub fn has_stdin(&self) -> bool {
        self.0.stdin
    }

    pub(crate) fn request(&self) -> &Exec {
        &self.0
    }
}

/// How a command in a guest ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum ExitStatus {
    /// By itself, with this status: 0 to 255.
    Code(i32),
    /// By this signal.
    Signal(i32),
}

impl ExitStatus {
    /// The status as a shell tells it: 128 and the number for a signal.
    pub fn code_for_shell(self) -> u8 {
        match self {
            // A status has eight bits; the kernel has cut off the rest already.
            Self::Code(code) => u8::try_from(code & 0xff).unwrap_or(u8::MAX),
            Self::Signal(signal) => u8::try_from(signal)
                .ok()
                .and_then(|signal| signal.checked_add(128))
                .unwrap_or(u8::MAX),
        }
    }

    /// Whether the command ended with status 0.
    pub fn success(self) -> bool {
        self == Self::Code(0)
    }
}

impl From<Exit> for ExitStatus {
    fn from(exit: Exit) -> Self {
        match exit {
            Exit::Code(code) => Self::Code(code),
            Exit::Signal(signal) => Self::Signal(signal),
        }
    }
}

impl std::fmt::Display for ExitStatus {
    fn fmt(&self, out: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Code(code) => write!(out, "exit status {code}"),
            Self::Signal(signal) => write!(out, "signal {signal}"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_shell_tells_signals_as_128_and_more() {
        assert_eq!(ExitStatus::Code(37).code_for_shell(), 37);
        assert_eq!(ExitStatus::Signal(9).code_for_shell(), 137);
        assert_eq!(ExitStatus::Signal(1000).code_for_shell(), 255);
        assert!(ExitStatus::Code(0).success() && !ExitStatus::Signal(0).success());
    }
}
