//! The table at the end.

use std::fmt::{self, Display, Formatter};
use std::time::Duration;

use super::count::Count;

/// What came of a tier or a check.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Outcome {
    /// Tests ran; `good` is what their exit status said.
    Ran {
        count: Count,
        good: bool,
        /// Where, and whatever else is to be known of it.
        place: String,
    },
    /// A check was made.
    Checked { good: bool },
    /// The tier can't run, and may not be left out.
    Unable(String),
    /// The tier can't run, and may be left out.
    Skipped(String),
}

impl Outcome {
    fn is_good(&self) -> bool {
        match self {
            // A tier in which nothing ran has shown nothing.
            Self::Ran { count, good, .. } => *good && count.failed == 0 && count.ran() > 0,
            Self::Checked { good } => *good,
            Self::Unable(_) => false,
            Self::Skipped(_) => true,
        }
    }
}

/// A line of the table.
#[derive(Debug)]
pub(super) struct Row {
    pub(super) name: &'static str,
    pub(super) outcome: Outcome,
    pub(super) elapsed: Duration,
}

/// All that ran.
#[derive(Debug, Default)]
pub(super) struct Report {
    rows: Vec<Row>,
}

impl Report {
    pub(super) fn add(&mut self, row: Row) {
        self.rows.push(row);
    }

    /// Whether nothing failed, and everything ran that had to.
    pub(super) fn is_good(&self) -> bool {
        !self.rows.is_empty() && self.rows.iter().all(|row| row.outcome.is_good())
    }
}

impl Display for Report {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        writeln!(f, "        result   ran  passed  failed  ignored  seconds")?;
        for Row {
            name,
            outcome,
            elapsed,
        } in &self.rows
        {
            let verdict = match outcome {
                Outcome::Skipped(_) => "skipped",
                _ if outcome.is_good() => "ok",
                Outcome::Unable(_) => "can't",
                _ => "FAILED",
            };
            let seconds = elapsed.as_secs_f64();
            write!(f, "{name:<7} {verdict:<7}")?;
            match outcome {
                Outcome::Ran { count, place, .. } => {
                    let Count {
                        passed,
                        failed,
                        ignored,
                    } = count;
                    write!(
                        f,
                        " {:>5} {passed:>7} {failed:>7} {ignored:>8}",
                        count.ran()
                    )?;
                    writeln!(f, " {seconds:>8.1}  on {place}")?;
                }
                Outcome::Checked { .. } => {
                    writeln!(f, " {:>5} {:>7} {:>7} {:>8} {seconds:>8.1}", "", "", "", "")?;
                }
                Outcome::Unable(why) | Outcome::Skipped(why) => {
                    writeln!(
                        f,
                        " {:>5} {:>7} {:>7} {:>8} {seconds:>8.1}  {why}",
                        0, 0, 0, 0
                    )?;
                }
            }
        }
        f.write_str(if self.is_good() {
            "all is well"
        } else {
            "not all is well"
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn row(outcome: Outcome) -> Row {
        Row {
            name: "host",
            outcome,
            elapsed: Duration::from_millis(1500),
        }
    }

    fn ran(passed: u64, failed: u64, good: bool) -> Outcome {
        let count = Count {
            passed,
            failed,
            ignored: 1,
        };
        Outcome::Ran {
            count,
            good,
            place: "this machine".to_owned(),
        }
    }

    #[test]
    fn only_tests_that_ran_and_passed_are_good() {
        assert!(ran(1, 0, true).is_good());
        for bad in [ran(0, 0, true), ran(1, 1, true), ran(1, 0, false)] {
            assert!(!bad.is_good(), "{bad:?}");
        }
        assert!(Outcome::Skipped("no".into()).is_good());
        assert!(!Outcome::Unable("no".into()).is_good());
        assert!(!Report::default().is_good());
        let mut report = Report {
            rows: vec![row(ran(3, 0, true))],
        };
        assert!(report.is_good());
        report.add(row(Outcome::Checked { good: false }));
        assert!(!report.is_good());
    }

    #[test]
    fn the_table_says_what_ran_where_and_what_was_skipped() {
        let rows = vec![
            row(ran(12, 0, true)),
            row(Outcome::Skipped("no KVM".into())),
        ];
        let expected = "        result   ran  passed  failed  ignored  seconds
host    ok         12      12       0        1      1.5  on this machine
host    skipped     0       0       0        0      1.5  no KVM
all is well";
        assert_eq!(Report { rows }.to_string(), expected);
    }
}
