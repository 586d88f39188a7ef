//! The tier that runs anywhere: everything that `cargo test` runs.

use std::process::Command;
use std::time::Duration;

use super::count::Count;
use super::report::Outcome;
use crate::build::cargo;
use crate::failure::Result;
use crate::program::{self, Stream};
use crate::progress::passed_on;

/// Building the tests is part of it.
const PATIENCE: Duration = Duration::from_secs(1800);

/// Runs it with nextest where that is installed, which runs no examples in documentation.
///
/// # Errors
/// If cargo can't be run.
pub(super) fn run() -> Result<Outcome> {
    let mut count = Count::default();
    let good = if program::find("cargo-nextest").is_some() {
        let mut nextest = cargo();
        nextest.args([
            "nextest",
            "run",
            "--workspace",
            "--no-fail-fast",
            "--status-level",
            "fail",
        ]);
        let tests = ran(&mut nextest, Stream::Err, Count::of_nextest, &mut count)?;
        let mut examples = cargo();
        examples.args(["test", "--quiet", "--workspace", "--no-fail-fast", "--doc"]);
        ran(&mut examples, Stream::Out, Count::of_libtest, &mut count)? && tests
    } else {
        let mut tests = cargo();
        tests.args(["test", "--workspace", "--no-fail-fast"]);
        ran(&mut tests, Stream::Out, Count::of_libtest, &mut count)?
    };
    Ok(Outcome::Ran {
        count,
        good,
        place: "this machine".to_owned(),
    })
}

/// Runs it and counts; whether it succeeded.
fn ran(
    command: &mut Command,
    stream: Stream,
    parse: impl Fn(&str) -> Option<Count>,
    count: &mut Count,
) -> Result<bool> {
    let status = program::lines(command, stream, PATIENCE, |line| {
        passed_on(line);
        *count += parse(line).unwrap_or_default();
    })?;
    Ok(status.is_some_and(|status| status.success()))
}
