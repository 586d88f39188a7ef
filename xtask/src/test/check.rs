//! What is checked without running anything: formatting, lints, documentation, licences.

use std::process::Command;
use std::time::{Duration, Instant};

use super::report::{Outcome, Row};
use crate::build::cargo;
use crate::program;
use crate::progress::{failure, say};

/// One of the checks.
#[derive(Debug, Clone, Copy)]
pub(super) enum Check {
    Format,
    Clippy,
    Doc,
    /// Licences and sources of all that is linked in, by `cargo deny`; advisories come from the
    /// network, which tests don't depend on.
    Licences,
}

impl Check {
    /// Runs it. Cargo shows what is wrong itself.
    pub(super) fn run(self) -> Row {
        let (name, commands) = match self {
            Self::Format => ("fmt", vec![cargo_with(&["fmt", "--all", "--check"])]),
            Self::Clippy => (
                "clippy",
                vec![clippy(&["--all-targets"]), clippy(&["--test", "*"])],
            ),
            Self::Doc => {
                let mut doc = cargo_with(&["doc", "--workspace", "--no-deps"]);
                doc.env("RUSTDOCFLAGS", "-D warnings");
                ("doc", vec![doc])
            }
            Self::Licences if program::find("cargo-deny").is_none() => {
                return Row {
                    name: "deny",
                    outcome: Outcome::Skipped("cargo-deny isn't installed".into()),
                    elapsed: Duration::ZERO,
                };
            }
            Self::Licences => {
                let deny = cargo_with(&["deny", "check", "licenses", "bans", "sources"]);
                ("deny", vec![deny])
            }
        };
        say(format_args!("cargo {name}"));
        let start = Instant::now();
        let good = commands
            .into_iter()
            .all(|mut command| match command.status() {
                Ok(status) => status.success(),
                Err(cause) => {
                    failure(format_args!("running cargo {name}: {cause}"));
                    false
                }
            });
        Row {
            name,
            outcome: Outcome::Checked { good },
            elapsed: start.elapsed(),
        }
    }
}

/// All targets are but those that `cargo test` runs too: the pattern stands for the others.
fn clippy(targets: &[&str]) -> Command {
    let mut command = cargo_with(&["clippy", "--workspace"]);
    command.args(targets).args(["--", "-D", "warnings"]);
    command
}

fn cargo_with(arguments: &[&str]) -> Command {
    let mut command = cargo();
    command.args(arguments);
    command
}
