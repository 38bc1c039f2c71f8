//! Reads the output of test binaries.

use std::fmt;
use std::ops::AddAssign;

/// The number of tests by result.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Summary {
    /// Passed.
    pub(crate) passed: usize,
    /// Failed.
    pub(crate) failed: usize,
    /// Names of those that were ignored or could not run.
    pub(crate) skipped: Vec<String>,
}

impl AddAssign for Summary {
    fn add_assign(&mut self, other: Self) {
        self.passed += other.passed;
        self.failed += other.failed;
        self.skipped.extend(other.skipped);
    }
}

impl fmt::Display for Summary {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} passed, {} failed, {} skipped", self.passed, self.failed, self.skipped.len())
    }
}

impl Summary {
    /// Adds up every `test result:` line of a run of `cargo test`. A run that failed without a failed test (a crash,
    /// a link error) counts as one failure.
    pub(crate) fn read(text: &str, ok: bool) -> Self {
        let mut sum = Self::default();
        for line in text.lines() {
            if let Some(counts) = line.trim_start().strip_prefix("test result: ") {
                sum.passed += number_before(counts, " passed");
                sum.failed += number_before(counts, " failed");
            } else if let Some(name) = ignored(line) {
                sum.skipped.push(name.to_owned());
            }
        }
        if !ok && sum.failed == 0 {
            sum.failed = 1;
        }
        sum
    }

    /// Every test of a `--list` as skipped.
    pub(crate) fn not_run(list: &str) -> Self {
        let names = list.lines().filter_map(|line| line.strip_suffix(": test"));
        Self { skipped: names.map(str::to_owned).collect(), ..Self::default() }
    }
}

/// The name in `test NAME ... ignored`, with or without a reason.
fn ignored(line: &str) -> Option<&str> {
    let (name, how) = line.strip_prefix("test ")?.split_once(" ... ")?;
    (how == "ignored" || how.starts_with("ignored,")).then_some(name)
}

fn number_before(text: &str, mark: &str) -> usize {
    let before = text.split_once(mark).map_or("", |(before, _)| before);
    before.rsplit(' ').next().and_then(|digits| digits.parse().ok()).unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use super::*;

    const TWO: &str = "\
running 3 tests
test a::b ... ok
test c ... ignored
test d ... ignored, needs a second disk
test result: ok. 1 passed; 0 failed; 2 ignored; 0 measured; 0 filtered out; finished in 0.00s

     Running unittests src/main.rs (target/debug/deps/lbr-0)
test result: FAILED. 12 passed; 3 failed; 0 ignored; 0 measured; 7 filtered out; finished in 1.20s
";

    #[test]
    fn adds_up() {
        let sum = Summary::read(TWO, false);
        assert_eq!((sum.passed, sum.failed), (13, 3));
        assert_eq!(sum.skipped, ["c", "d"]);
        assert_eq!(sum.to_string(), "13 passed, 3 failed, 2 skipped");
    }

    #[test]
    fn a_crash_is_a_failure() {
        assert_eq!(Summary::read("running 2 tests\ntest a ... ok\n", false).failed, 1);
        assert_eq!(Summary::read("", true), Summary::default());
    }

    #[test]
    fn lists_what_was_not_run() {
        let sum = Summary::not_run("udp::one: test\ntcp: test\nbig: benchmark\n\n2 tests, 1 benchmark\n");
        assert_eq!(sum.skipped, ["udp::one", "tcp"]);
    }
}
