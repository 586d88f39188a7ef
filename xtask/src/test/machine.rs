//! The tiers that need a machine with KVM: this one, or the emulated host.

use std::path::PathBuf;
use std::process::Command;
use std::time::Duration;

use super::count::Count;
use super::report::Outcome;
use crate::arguments::Tier;
use crate::build::{self, Built};
use crate::failure::{Failure, Result};
use crate::host::{Host, say_emulated};
use crate::program::{self, Stream};
use crate::progress::{passed_on, say};
use crate::setup::Setup;

/// What a tier may take at most.
const PATIENCE: Duration = Duration::from_secs(1200);

/// What the emulated host may take beyond that, to begin and to end.
const AROUND: Duration = Duration::from_secs(60);

/// So many emulated guests at once: more are slower together than one after the other.
const EMULATED_GUESTS: u32 = 2;

/// What the tiers run on and with.
#[derive(Debug, Clone, Copy)]
pub(super) struct Machine<'a> {
    pub(super) host: Host,
    pub(super) setup: &'a Result<Setup>,
    pub(super) built: &'a Result<Built>,
    pub(super) image: &'a Result<PathBuf>,
    /// Only tests with one of these in their name; all where it is empty.
    pub(super) names: &'a [String],
}

impl Machine<'_> {
    /// Runs a tier's tests, here where that is possible.
    ///
    /// # Errors
    /// What keeps the tier from running at all.
    pub(super) fn run(self, tier: Tier) -> Result<Outcome> {
        let setup = self.setup.as_ref().map_err(Clone::clone)?;
        let built = self.built.as_ref().map_err(Clone::clone)?;
        setup.tools.clone()?;
        let firecracker = setup.firecracker.as_ref().map_err(Clone::clone)?;
        setup.registry()?;
        let test = built.test(tier.name()).ok_or_else(|| {
            Failure::new(format!(
                "smartvm-cli has no tests of the name {}",
                tier.name()
            ))
        })?;
        let why = match tier {
            Tier::Guest => self.host.why_no_linux(),
            Tier::Pure | Tier::Host => self.host.why_no_host_tier(),
        };
        let mut command = match why {
            None => {
                let mut command = Command::new(test);
                if let Ok(kernel) = &setup.emulated_host {
                    command.env("SMARTVM_TEST_EMULATE_KERNEL", kernel);
                }
                command
            }
            Some(why) => {
                say_emulated(why);
                let kernel = setup.emulated_host.as_ref().map_err(Clone::clone)?;
                let mut command = Command::new(built.programs()?.smartvm);
                command.env("SMARTVM_EMULATE_KERNEL", kernel);
                command.args([
                    "emulate",
                    "--timeout",
                    &PATIENCE.as_secs().to_string(),
                    "--",
                ]);
                command.arg(test);
                if tier == Tier::Guest {
                    command.arg(format!("--test-threads={EMULATED_GUESTS}"));
                }
                command
            }
        };
        if tier == Tier::Guest {
            command.env(
                "SMARTVM_TEST_IMAGE",
                self.image.as_ref().map_err(Clone::clone)?,
            );
            let kernel = setup.guest_kernel.as_ref().map_err(Clone::clone)?;
            command.env("SMARTVM_TEST_MODULES", &kernel.modules);
        }
        command
            .args(self.names)
            .env("SMARTVM_TEST_FIRECRACKER", &firecracker.firecracker)
            .env("SMARTVM_TEST_JAILER", &firecracker.jailer)
            .env("SMARTVM_TEST_CACHE", setup.cache.path(""))
            // As cargo would run it.
            .current_dir(build::workspace().join("crates/smartvm-cli"));
        let mut run = || {
            let mut count: Option<Count> = None;
            let status = program::lines(&mut command, Stream::Out, PATIENCE + AROUND, |line| {
                passed_on(line);
                if let Some(more) = Count::of_libtest(line) {
                    *count.get_or_insert_default() += more;
                }
            })?;
            Ok((count, status.is_some_and(|status| status.success())))
        };
        let mut ran = run()?;
        // An emulated kernel that panics says nothing of the tests: they tell nothing, then.
        if let (Some(_), (None, false)) = (why, &ran) {
            say("the emulated host ended before the tests had: once more, from the start");
            ran = run()?;
        }
        let (count, good) = ran;
        Ok(Outcome::Ran {
            count: count.unwrap_or_default(),
            good,
            place: if why.is_some() {
                "emulated host"
            } else {
                "this machine"
            },
        })
    }
}
