//! The command, as it is told to the agent.

use smartvm::agent::Command;
use smartvm::{Error, ErrorKind, Result};

/// What names things of this machine that the emulated host doesn't have: they are under /run.
const LEFT_OUT: [&str; 4] = [
    "DBUS_SESSION_BUS_ADDRESS",
    "NOTIFY_SOCKET",
    "SSH_AUTH_SOCK",
    "XDG_RUNTIME_DIR",
];

/// The command with this process's environment and working directory.
pub(crate) fn inside(argv: &[String]) -> Result<Command> {
    let directory = std::env::current_dir().map_err(|cause| {
        Error::new(ErrorKind::Io, "finding the working directory").because(cause)
    })?;
    let command = Command::from_argv(argv).stdin(true).current_dir(directory);
    // What isn't UTF-8 can't be told to the agent.
    let environment = std::env::vars_os()
        .filter_map(|(name, value)| Some((name.into_string().ok()?, value.into_string().ok()?)))
        .filter(|(name, _)| !LEFT_OUT.contains(&name.as_str()));
    Ok(environment.fold(command, |command, (name, value)| command.env(name, value)))
}
