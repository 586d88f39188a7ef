//! `cargo xtask bench`: the benchmark, with what it needs.

use crate::build;
use crate::failure::{Failure, Result};
use crate::progress::say;
use crate::setup::{Purpose, Setup};

/// Runs the benchmark with these arguments; whether it succeeded.
///
/// # Errors
/// If it can't be run.
pub(crate) fn run(arguments: &[String]) -> Result<bool> {
    let setup = Setup::prepare(Purpose::Tests)?;
    let firecracker = setup.firecracker.as_ref().map_err(Failure::clone)?;
    say("measuring");
    let status = build::cargo()
        .args(["bench", "-p", "smartvm-cli", "--bench", "ratios", "--"])
        .args(arguments)
        .env("SMARTVM_TEST_FIRECRACKER", &firecracker.firecracker)
        .env("SMARTVM_TEST_JAILER", &firecracker.jailer)
        .env("SMARTVM_TEST_CACHE", setup.cache.path(""))
        .status()
        .map_err(|cause| Failure::new(format!("running cargo bench: {cause}")))?;
    Ok(status.success())
}
