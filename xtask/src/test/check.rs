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
    /// The library without each of its features, alone and together.
    Features,
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
            Self::Features => {
                let sets = feature_sets().map(|set| with_features(&set));
                ("features", sets.chain([without_features()]).collect())
            }
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

/// The cargo features of the library, each a room that an embedder may leave out.
const FEATURES: [&str; 3] = ["download", "network", "oci"];

/// All sets of them but that of all, which everything else is built with.
fn feature_sets() -> impl Iterator<Item = String> {
    (0..(1_u32 << FEATURES.len()) - 1).map(|set| {
        let in_set = FEATURES.iter().enumerate();
        let in_set = in_set.filter(|(number, _)| set & (1 << number) != 0);
        let names: Vec<_> = in_set.map(|(_, name)| *name).collect();
        names.join(",")
    })
}

fn with_features(set: &str) -> Command {
    let mut command = cargo_with(&["clippy", "--package", "smartvm", "--no-default-features"]);
    command.args(["--features", set, "--", "-D", "warnings"]);
    command
}

/// The tests of what the library refuses where features are left out.
fn without_features() -> Command {
    let mut command = cargo_with(&["test", "--quiet", "--package", "smartvm"]);
    command.args(["--no-default-features", "--test", "without_network"]);
    command
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_feature_of_the_library_is_left_out_once() {
        let manifest = include_str!("../../../crates/smartvm/Cargo.toml");
        let (_, features) = manifest.split_once("[features]").unwrap();
        let (features, _) = features.split_once("\n[").unwrap();
        let defined = features.lines().filter_map(|line| line.split_once(" = "));
        let mut names: Vec<_> = defined.map(|(name, _)| name).collect();
        assert_eq!(names.remove(0), "default");
        assert_eq!(names, FEATURES);
        let sets: Vec<_> = feature_sets().collect();
        assert_eq!(sets.len(), 7);
        assert_eq!(sets[..3], ["", "download", "network"]);
        assert!(sets.contains(&"network,oci".to_owned()), "{sets:?}");
    }
}
