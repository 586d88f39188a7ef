//! How many tests ran, as the test runners say it.

use std::ops::AddAssign;

/// What came of some tests.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
pub(super) struct Count {
    pub(super) passed: u64,
    pub(super) failed: u64,
    pub(super) ignored: u64,
}

impl Count {
    /// Those that ran at all.
    pub(super) fn ran(self) -> u64 {
        self.passed + self.failed
    }

    /// The summary of a libtest program, if this line is one.
    pub(super) fn of_libtest(line: &str) -> Option<Self> {
        let rest = line.trim_start().strip_prefix("test result: ")?;
        let (_, rest) = rest.split_once(". ")?;
        Some(Self::of_parts(rest.split(';')))
    }

    /// The summary of nextest, if this line is one.
    pub(super) fn of_nextest(line: &str) -> Option<Self> {
        let rest = line.trim_start().strip_prefix("Summary [")?;
        // One test is "1 test run".
        let (_, rest) = rest.split_once(" run: ")?;
        // In parentheses is what the number before them includes.
        let mut depth = 0_u32;
        let outside: String = rest
            .chars()
            .filter(|letter| {
                match letter {
                    '(' => depth += 1,
                    ')' => depth = depth.saturating_sub(1),
                    _ => return depth == 0,
                }
                false
            })
            .collect();
        Some(Self::of_parts(outside.split(',')))
    }

    /// Adds up parts such as `3 passed`.
    fn of_parts<'a>(parts: impl Iterator<Item = &'a str>) -> Self {
        let mut count = Self::default();
        for part in parts {
            let Some((number, what)) = part.trim().split_once(' ') else {
                continue;
            };
            let Ok(number) = number.parse::<u64>() else {
                continue;
            };
            match what.trim() {
                "passed" => count.passed += number,
                "failed" | "timed out" | "exec failed" => count.failed += number,
                "ignored" | "skipped" => count.ignored += number,
                _ => {}
            }
        }
        count
    }
}

impl AddAssign for Count {
    fn add_assign(&mut self, other: Self) {
        self.passed += other.passed;
        self.failed += other.failed;
        self.ignored += other.ignored;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn count(passed: u64, failed: u64, ignored: u64) -> Option<Count> {
        Some(Count {
            passed,
            failed,
            ignored,
        })
    }

    #[test]
    fn libtest_says_what_came_of_each() {
        let good = "test result: ok. 12 passed; 0 failed; 3 ignored; 0 measured; 40 filtered out; finished in 0.01s";
        assert_eq!(Count::of_libtest(good), count(12, 0, 3));
        let bad = "test result: FAILED. 1 passed; 2 failed; 0 ignored; 0 measured; 0 filtered out; finished in 9.00s";
        assert_eq!(Count::of_libtest(bad), count(1, 2, 0));
        for other in [
            "",
            "test result",
            "test result: ok",
            "running 3 tests",
            "test a::b ... ok",
        ] {
            assert_eq!(Count::of_libtest(other), None, "{other}");
        }
    }

    #[test]
    fn nextest_says_what_came_of_each() {
        let good = "     Summary [   1.234s] 310 tests run: 310 passed, 2 skipped";
        assert_eq!(Count::of_nextest(good), count(310, 0, 2));
        let bad = "     Summary [   0.5s] 10/20 tests run: 6 passed (1 slow, 2 flaky), 1 failed, 2 timed out, 1 exec failed, 0 skipped";
        assert_eq!(Count::of_nextest(bad), count(6, 4, 0));
        let one = "     Summary [   0.031s] 1 test run: 1 passed, 0 skipped";
        assert_eq!(Count::of_nextest(one), count(1, 0, 0));
        for other in [
            "",
            "     Summary [ 0.0s]",
            "    Starting 3 tests across 2 binaries",
        ] {
            assert_eq!(Count::of_nextest(other), None, "{other}");
        }
    }

    #[test]
    fn counts_add_up() {
        let mut all = Count {
            passed: 1,
            failed: 2,
            ignored: 3,
        };
        all += Count {
            passed: 10,
            failed: 20,
            ignored: 30,
        };
        assert_eq!(Some(all), count(11, 22, 33));
        assert_eq!(all.ran(), 33);
    }
}
