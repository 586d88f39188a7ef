//! The command line.

use crate::failure::{Failure, Result};

/// What is printed for `--help`.
pub(crate) const USAGE: &str = "\
Usage: cargo xtask TASK

  setup   Fetch what the demo and the tests need
  demo    Build smartvm and run `uname -a` in a microVM
  test    Run all tests and checks
            --tier TIER         only this tier, without the checks (may be repeated)
            --allow-skip TIER   go on where this tier can't run (may be repeated)
            -- NAME...          with --tier host or guest: only tests with one of these in their name
          Tiers: pure (anywhere), host (Firecracker with a tiny guest), guest (Linux guests)
  bench   Measure; further arguments go to the benchmark

What is fetched and built is kept in $SMARTVM_DEV_CACHE, by default ~/.cache/smartvm-dev.";

/// One of the three tiers of tests.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Tier {
    /// Needs nothing of the machine.
    Pure,
    /// The real Firecracker with the tiny guest: root and a /dev/kvm that opens.
    Host,
    /// Real Linux guests: hardware virtualization.
    Guest,
}

impl Tier {
    /// All of them, in the order in which they run.
    pub(crate) const ALL: [Self; 3] = [Self::Pure, Self::Host, Self::Guest];

    /// As it is written on the command line.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Pure => "pure",
            Self::Host => "host",
            Self::Guest => "guest",
        }
    }

    fn parse(name: Option<&str>) -> Result<Self> {
        let tier = Self::ALL.into_iter().find(|tier| name == Some(tier.name()));
        tier.ok_or_else(|| Failure::new("a tier is one of: pure, host, guest"))
    }
}

/// Which tests are to run.
#[derive(Debug, Default, PartialEq, Eq)]
pub(crate) struct Choice {
    /// Only these; all, and the checks, where it is empty.
    pub(crate) only: Vec<Tier>,
    /// These needn't be able to run.
    pub(crate) may_skip: Vec<Tier>,
    /// Of the host and guest tiers, only tests whose names hold one of these; all where it is
    /// empty.
    pub(crate) names: Vec<String>,
}

impl Choice {
    /// Whether this tier was asked for.
    pub(crate) fn includes(&self, tier: Tier) -> bool {
        self.only.is_empty() || self.only.contains(&tier)
    }
}

/// What is to be done.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Task {
    Help,
    Setup,
    Demo,
    Test(Choice),
    Bench(Vec<String>),
}

/// Understands the command line, without the program's name.
///
/// # Errors
/// Whatever [`USAGE`] doesn't name.
pub(crate) fn parse(arguments: impl Iterator<Item = String>) -> Result<Task> {
    let mut arguments = arguments.peekable();
    let task = arguments.next().unwrap_or_default();
    if matches!(task.as_str(), "help" | "--help" | "-h")
        || (task != "bench" && arguments.peek().is_some_and(|word| word == "--help"))
    {
        return Ok(Task::Help);
    }
    match task.as_str() {
        "bench" => return Ok(Task::Bench(arguments.collect())),
        "test" => {
            let mut choice = Choice::default();
            while let Some(option) = arguments.next() {
                if option == "--" {
                    choice.names = arguments.collect();
                    break;
                }
                let (option, value) = match option.split_once('=') {
                    Some((option, value)) => (option.to_owned(), Some(value.to_owned())),
                    None => (option, arguments.next()),
                };
                match option.as_str() {
                    "--tier" => choice.only.push(Tier::parse(value.as_deref())?),
                    "--allow-skip" => choice.may_skip.push(Tier::parse(value.as_deref())?),
                    _ => return Err(usage(&format!("unknown option {option}"))),
                }
            }
            // A filter is for one tier at work; a run that is to show all must not have one.
            if !choice.names.is_empty() && (choice.only.is_empty() || choice.includes(Tier::Pure)) {
                return Err(usage("names of tests go with --tier host or --tier guest"));
            }
            return Ok(Task::Test(choice));
        }
        _ => {}
    }
    if let Some(word) = arguments.next() {
        return Err(usage(&format!("unexpected {word}")));
    }
    match task.as_str() {
        "setup" => Ok(Task::Setup),
        "demo" => Ok(Task::Demo),
        "" => Err(usage("which task?")),
        other => Err(usage(&format!("unknown task {other}"))),
    }
}

fn usage(what: &str) -> Failure {
    Failure::new(what).hint(USAGE)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parsed(line: &str) -> Result<Task> {
        parse(line.split_whitespace().map(str::to_owned))
    }

    #[test]
    fn tiers_are_chosen_in_both_spellings() {
        let Task::Test(choice) = parsed("test --tier host --tier=pure --allow-skip guest").unwrap()
        else {
            panic!("another task");
        };
        assert_eq!(choice.only, [Tier::Host, Tier::Pure]);
        assert_eq!(choice.may_skip, [Tier::Guest]);
        assert!(!choice.includes(Tier::Guest));
        assert!(
            Tier::ALL
                .into_iter()
                .all(|tier| Choice::default().includes(tier))
        );
    }

    #[test]
    fn names_of_tests_go_with_the_host_and_guest_tiers_only() {
        let Task::Test(choice) = parsed("test --tier guest -- panic clock").unwrap() else {
            panic!("another task");
        };
        assert_eq!(choice.names, ["panic", "clock"]);
        for line in ["test -- panic", "test --tier pure -- panic"] {
            assert!(parsed(line).is_err(), "{line}");
        }
    }

    #[test]
    fn only_benchmarks_take_any_argument() {
        let words = ["--pairs".to_owned(), "--help".to_owned()];
        assert_eq!(
            parsed("bench --pairs --help").unwrap(),
            Task::Bench(words.to_vec())
        );
        for line in [
            "",
            "tests",
            "demo now",
            "test --tier",
            "test --tier all",
            "test --skip pure",
        ] {
            assert!(parsed(line).is_err(), "{line}");
        }
        assert_eq!(parsed("test --help").unwrap(), Task::Help);
    }
}
