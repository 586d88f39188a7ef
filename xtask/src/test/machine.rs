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
const PATIENCE: Duration = Duration::from_secs(2400);

/// What the emulated host may take beyond that, to begin and to end.
const AROUND: Duration = Duration::from_secs(60);

/// So many emulated guests at once: more are slower together than one after the other.
const EMULATED_GUESTS: u32 = 2;

/// An emulated host's processors stand still for as long as the machine's are busy elsewhere, and
/// a test may meet that at the wrong moment: so many are tried again. More have another cause.
const MOST_TRIED_AGAIN: usize = 4;

/// The examples of smartvm-cli that the guest tier copies into guests, and what tells it where they
/// are.
const GUEST_PROGRAMS: [(&str, &str); 2] = [
    ("forge", "SMARTVM_TEST_FORGE"),
    ("peer", "SMARTVM_TEST_PEER"),
];

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
        setup.boringtun()?;
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
            for (name, variable) in GUEST_PROGRAMS {
                let program = built.example(name);
                let missing = || Failure::new(format!("smartvm-cli has no example {name}"));
                command.env(variable, program.ok_or_else(missing)?);
            }
        }
        command
            .env("SMARTVM_TEST_FIRECRACKER", &firecracker.firecracker)
            .env("SMARTVM_TEST_JAILER", &firecracker.jailer)
            .env("SMARTVM_TEST_CACHE", setup.cache.path(""))
            // As cargo would run it.
            .current_dir(build::workspace().join("crates/smartvm-cli"));
        if why.is_none() {
            let ran = Ran::of(command.args(self.names))?;
            return Ok(ran.outcome("this machine".to_owned()));
        }
        let mut ran = Ran::of(command.args(self.names))?;
        // An emulated kernel that panics says nothing of the tests: they tell nothing, then.
        if ran.count.is_none() && !ran.good {
            say("the emulated host ended before the tests had: once more, from the start");
            ran = Ran::of(&mut command)?;
        }
        let failed = std::mem::take(&mut ran.failed);
        if failed.is_empty() || failed.len() > MOST_TRIED_AGAIN {
            return Ok(ran.outcome("emulated host".to_owned()));
        }
        say(format_args!(
            "in case the emulated host stood still meanwhile: once more, by themselves, {}",
            failed.join(", ")
        ));
        let again = Ran::of(command.arg("--exact").args(&failed))?;
        let place = format!("emulated host, {} of them twice", failed.len());
        Ok(ran.then(&again).outcome(place))
    }
}

/// What a test program said.
#[derive(Debug, Default, PartialEq, Eq)]
struct Ran {
    /// Absent if it ended before its tests had.
    count: Option<Count>,
    /// The tests that failed.
    failed: Vec<String>,
    /// Its exit status.
    good: bool,
}

impl Ran {
    fn of(command: &mut Command) -> Result<Self> {
        let mut ran = Self::default();
        let status = program::lines(command, Stream::Out, PATIENCE + AROUND, |line| {
            passed_on(line);
            ran.take(line);
        })?;
        ran.good = status.is_some_and(|status| status.success());
        Ok(ran)
    }

    fn take(&mut self, line: &str) {
        if let Some(more) = Count::of_libtest(line) {
            *self.count.get_or_insert_default() += more;
        }
        let ended = line
            .strip_prefix("test ")
            .and_then(|it| it.split_once(" ... "));
        if let Some((name, "FAILED")) = ended {
            self.failed.push(name.to_owned());
        }
    }

    /// With those that failed tried again: that is what counts of them.
    fn then(self, again: &Self) -> Self {
        let mut count = self.count.unwrap_or_default();
        let second = again.count.unwrap_or_default();
        count.failed = count.failed.saturating_sub(second.passed);
        count.passed += second.passed;
        Self {
            count: Some(count),
            failed: again.failed.clone(),
            good: again.good,
        }
    }

    fn outcome(self, place: String) -> Outcome {
        Outcome::Ran {
            count: self.count.unwrap_or_default(),
            good: self.good,
            place,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ran(lines: &[&str], good: bool) -> Ran {
        let mut ran = Ran::default();
        lines.iter().for_each(|line| ran.take(line));
        ran.good = good;
        ran
    }

    const FIRST: [&str; 4] = [
        "test a::one ... ok",
        "test a::two ... FAILED",
        "test b has been running for over 60 seconds",
        "test result: FAILED. 1 passed; 1 failed; 0 ignored; 0 measured; 0 filtered out",
    ];

    #[test]
    fn the_tests_that_failed_are_told_by_name() {
        let first = ran(&FIRST, false);
        assert_eq!(first.failed, ["a::two"]);
        assert_eq!(first.count.unwrap().failed, 1);
    }

    #[test]
    fn what_is_tried_again_counts_as_it_ends_then() {
        let passed = "test result: ok. 1 passed; 0 failed; 0 ignored; 0 measured; 1 filtered out";
        let again = ran(&["test a::two ... ok", passed], true);
        let both = ran(&FIRST, false).then(&again);
        let count = both.count.unwrap();
        assert_eq!((count.passed, count.failed, both.good), (2, 0, true));

        let failed =
            "test result: FAILED. 0 passed; 1 failed; 0 ignored; 0 measured; 1 filtered out";
        let again = ran(&[FIRST[1], failed], false);
        let both = ran(&FIRST, false).then(&again);
        assert!(!both.good && both.count.unwrap().failed == 1);

        let ended = ran(&[], false);
        let both = ran(&FIRST, false).then(&ended);
        assert!(!both.good && both.count.unwrap().failed == 1);
    }
}
