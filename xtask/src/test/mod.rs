//! `cargo xtask test`: the three tiers and the checks, and a table of what came of them.

mod check;
mod count;
mod machine;
mod pure;
mod report;

use std::path::PathBuf;
use std::time::Instant;

use crate::arguments::{Choice, Tier};
use crate::build::{self, Built};
use crate::failure::Result;
use crate::host::Host;
use crate::image;
use crate::progress::{failure, result, say};
use crate::setup::{Purpose, Setup};
use check::Check;
use machine::Machine;
use report::{Outcome, Report, Row};

/// Runs what was chosen, all of it, whatever fails on the way; whether nothing failed.
///
/// # Errors
/// None so far: what can't be done is part of the report.
pub(crate) fn run(choice: &Choice) -> Result<bool> {
    let checks = choice.only.is_empty();
    let mut report = Report::default();
    if checks {
        report.add(Check::Format.run());
    }
    // First of all, since tests of the pure tier make file systems with Debian's programs.
    let setup = Setup::prepare(Purpose::Tests);
    say("building smartvm and its tests");
    // All in one, with the features that the tests have too: nothing is built twice. The
    // pattern stands for those as well that `--tests` leaves out.
    let built = build::build(&[
        "--workspace",
        "--bins",
        "--example",
        "forge",
        "--example",
        "peer",
        "--test",
        "*",
    ]);
    let image = made(&setup, &built);
    let machine = Machine {
        host: Host::look(),
        setup: &setup,
        built: &built,
        image: &image,
        names: &choice.names,
    };
    for tier in Tier::ALL.into_iter().filter(|tier| choice.includes(*tier)) {
        say(format_args!("the {} tier", tier.name()));
        let start = Instant::now();
        let outcome = match tier {
            Tier::Pure => pure::run(),
            Tier::Host | Tier::Guest => machine.run(tier),
        };
        let outcome = outcome.unwrap_or_else(|error| {
            failure(&error);
            let why = error.line().to_owned();
            if choice.may_skip.contains(&tier) {
                Outcome::Skipped(why)
            } else {
                Outcome::Unable(why)
            }
        });
        report.add(Row {
            name: tier.name(),
            outcome,
            elapsed: start.elapsed(),
        });
    }
    if checks {
        report.add(Check::Clippy.run());
        report.add(Check::Features.run());
        report.add(Check::Doc.run());
        report.add(Check::Licences.run());
    }
    result(&report);
    Ok(report.is_good())
}

/// The image for the guest tier.
fn made(setup: &Result<Setup>, built: &Result<Built>) -> Result<PathBuf> {
    let setup = setup.as_ref().map_err(Clone::clone)?;
    image::make(setup, &built.as_ref().map_err(Clone::clone)?.programs()?)
}
