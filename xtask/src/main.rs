//! Development tasks: `cargo xtask setup | demo | test | bench`.
//!
//! ```text
//!  setup ── packages, Firecracker, kernels, root file system ──▶ the cache
//!  demo  ── setup, release build, image ──▶ `smartvm run -- uname -a`
//!  test  ── setup, dev build, image ──▶ three tiers and the checks, and a table of them
//!  bench ── setup ──▶ `cargo bench`
//! ```
//! Whatever takes long is made once and kept in the cache ([`cache::Cache`]). Tests, and the
//! command that the demo shows, run on this machine where it can, else in an emulated host
//! ([`host::Host`]).

mod arguments;
mod bench;
mod build;
mod cache;
mod demo;
mod failure;
mod host;
mod image;
mod program;
mod progress;
mod setup;
mod test;

use std::process::ExitCode;

use arguments::Task;

fn main() -> ExitCode {
    let done = match arguments::parse(std::env::args().skip(1)) {
        Ok(Task::Help) => {
            progress::result(arguments::USAGE);
            return ExitCode::SUCCESS;
        }
        Ok(Task::Setup) => setup::run().map(|()| true),
        Ok(Task::Demo) => demo::run().map(|()| true),
        Ok(Task::Test(choice)) => test::run(&choice),
        Ok(Task::Bench(arguments)) => bench::run(&arguments),
        Err(failure) => {
            progress::failure(&failure);
            return ExitCode::from(2);
        }
    };
    match done {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(failure) => {
            progress::failure(&failure);
            ExitCode::FAILURE
        }
    }
}
