//! The smartvm command: run and look after Firecracker microVMs.

mod cli;
mod detach_keys;
mod guest_command;
mod image_name;
mod image_spec;
mod log;
mod output;
mod progress;
mod settings;
mod terminal;
mod verb;

use std::path::Path;
use std::process::ExitCode;

use clap::Parser;

fn main() -> ExitCode {
    let arguments: Vec<_> = std::env::args_os().collect();
    // A keeper lives as long as its VM: it takes no part in all that follows.
    if arguments
        .get(1)
        .is_some_and(|verb| verb == smartvm::keeper::VERB)
    {
        return keeper(&arguments[2..]);
    }
    if arguments
        .get(1)
        .is_some_and(|verb| verb == smartvm::network::keeper::VERB)
    {
        return network_keeper(&arguments[2..]);
    }
    let cli = match cli::Cli::try_parse_from(arguments) {
        Ok(cli) => cli,
        Err(refusal) => return output::usage(&refusal),
    };
    output::start_logging(&cli.global);
    let with_command = cli.verb.runs_a_command();
    match verb::run(cli) {
        Ok(status) => ExitCode::from(status),
        Err(error) => ExitCode::from(output::failure(&error, with_command)),
    }
}

fn keeper(arguments: &[std::ffi::OsString]) -> ExitCode {
    let protocol = smartvm::keeper::PROTOCOL.to_string();
    ended(match arguments {
        [version] if *version == *protocol => smartvm::keeper::run(),
        _ => Err(not_for_people()),
    })
}

fn network_keeper(arguments: &[std::ffi::OsString]) -> ExitCode {
    use smartvm::network::keeper::{PROTOCOL, run};
    let protocol = PROTOCOL.to_string();
    ended(match arguments {
        [version, dir] if *version == *protocol => run(Path::new(dir)),
        _ => Err(not_for_people()),
    })
}

fn not_for_people() -> smartvm::Error {
    smartvm::Error::new(
        smartvm::ErrorKind::Invalid,
        "this verb is smartvm's own; owner and keeper must be of the same version",
    )
}

fn ended(done: smartvm::Result<()>) -> ExitCode {
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => ExitCode::from(output::failure(&error, false)),
    }
}
