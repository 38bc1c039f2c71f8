//! Reads the console of a guest, and shows the results.

use std::fmt;
use std::time::Duration;

use crate::summary::Summary;

/// Prefix of console lines for the host.
const MARK: &str = "vm: ";

/// The content of a guest's console.
#[derive(Clone, Debug, Default, PartialEq)]
pub(super) struct Console {
    /// Seconds from the kernel's start to the suite's.
    pub(super) booted: Option<f64>,
    /// The suite's exit code, if it ended.
    pub(super) ended: Option<i32>,
    /// The number of tests or attachments by result.
    pub(super) sum: Summary,
    /// The suite's own report: each way of attaching and its result.
    pub(super) said: Vec<String>,
}

impl Console {
    /// Reads it. A suite counts as one failure if it did not end, ended with an error but without a failed test, or
    /// ran nothing.
    pub(super) fn read(text: &str) -> Self {
        let mut own = Self::default();
        let mut ways = Summary::default();
        for line in text.lines() {
            // Unterminated output of the kernel or a program may precede it.
            let Some((_, said)) = line.split_once(MARK) else { continue };
            let (word, rest) = said.split_once(' ').unwrap_or((said, ""));
            match word {
                "booted" => own.booted = rest.rsplit(' ').next().and_then(|number| number.parse().ok()),
                "ended" => own.ended = rest.split(' ').next().and_then(|number| number.parse().ok()),
                "pass" | "refused" => ways.passed += 1,
                "fail" => ways.failed += 1,
                _ => continue,
            }
            if matches!(word, "pass" | "refused" | "fail") {
                own.said.push(said.to_owned());
            }
        }
        own.sum = Summary::read(text, true);
        if own.ended.is_none() {
            // The sum at the end is missing; the tests that ended before count anyway.
            own.sum.passed += text.lines().filter(|line| is_test(line, " ... ok")).count();
            own.sum.failed += text.lines().filter(|line| is_test(line, " ... FAILED")).count();
        }
        own.sum += ways;
        let nothing = own.sum == Summary::default();
        if own.ended.is_none() {
            own.sum.failed += 1;
        } else if (own.ended != Some(0) || nothing) && own.sum.failed == 0 {
            own.sum.failed = 1;
        }
        own
    }
}

/// Whether a line reports a test with this result.
fn is_test(line: &str, how: &str) -> bool {
    line.starts_with("test ") && line.trim_end().ends_with(how)
}

/// Whether a line of the console reports the end of the guest's task.
pub(super) fn is_end(line: &str) -> bool {
    line.contains("vm: ended ")
}

/// The console from the suite's start to its end.
pub(super) fn of_suite(text: &str) -> Vec<&str> {
    let lines = text.lines().skip_while(|line| !line.contains("vm: booted ")).skip(1);
    lines.take_while(|line| !line.contains(MARK)).collect()
}

/// The last lines of a console that are not blank and no sums.
pub(super) fn last_lines(text: &str, count: usize) -> Vec<&str> {
    let telling = |line: &&str| !line.trim().is_empty() && !line.starts_with("test result: ");
    let lines: Vec<&str> = text.lines().filter(telling).collect();
    lines[lines.len().saturating_sub(count)..].to_vec()
}

/// The result of one suite on one kernel.
#[derive(Clone, Debug)]
pub(super) struct Row {
    /// The kernel's release.
    pub(super) release: String,
    /// The suite's name.
    pub(super) suite: String,
    /// The number of tests by result.
    pub(super) sum: Summary,
    /// Seconds until the suite began, if it did.
    pub(super) booted: Option<f64>,
    /// From QEMU's start to its end.
    pub(super) took: Duration,
}

/// The rows as a table.
#[derive(Clone, Copy, Debug)]
pub(super) struct Table<'a>(pub(super) &'a [Row]);

impl fmt::Display for Table<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let width = |own: fn(&Row) -> usize, head: &str| {
            self.0.iter().map(own).max().unwrap_or_default().max(head.len())
        };
        let (kernel, suite) =
            (width(|row| row.release.len(), "kernel"), width(|row| row.suite.len(), "suite"));
        let head = ["result", "passed", "failed", "skipped", "boot s", "all s"];
        let [result, passed, failed, skipped, boot, all] = head;
        write!(
            f,
            "{:<kernel$}  {:<suite$}  {result}  {passed}  {failed}  {skipped}  {boot}  {all:>6}",
            "kernel", "suite"
        )?;
        for row in self.0 {
            let result = if row.sum.failed > 0 { "FAILED" } else { "ok    " };
            let boot = row.booted.map_or_else(|| "-".to_owned(), |seconds| format!("{seconds:.1}"));
            write!(
                f,
                "\n{:<kernel$}  {:<suite$}  {result}  {:>6}  {:>6}  {:>7}  {boot:>6}  {:>6.0}",
                row.release,
                row.suite,
                row.sum.passed,
                row.sum.failed,
                row.sum.skipped.len(),
                row.took.as_secs_f64()
            )?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const LOAD: &str = "\
vm: booted 6.1.0-56-cloud-amd64 4.25
noise vm: pass --attach auto --xdp off: in force after 13.2 s
vm: refused --attach tcx --xdp off: the kernel has no tcx
vm: fail --attach clsact --xdp off: not everything is attached
vm: ended 1 60.11
";

    #[test]
    fn ways_of_attaching_are_counted() {
        let console = Console::read(LOAD);
        assert_eq!(console.booted, Some(4.25));
        assert_eq!(console.ended, Some(1));
        assert_eq!((console.sum.passed, console.sum.failed), (2, 1));
        assert_eq!(console.said.len(), 3);
        assert_eq!(console.said[1], "refused --attach tcx --xdp off: the kernel has no tcx");
    }

    #[test]
    fn tests_are_counted() {
        let text = "vm: booted x 4.0\ntest a ... ok\ntest result: ok. 7 passed; 0 failed; 0 ignored;\nvm: ended 0 9.5\n";
        let console = Console::read(text);
        assert_eq!((console.sum.passed, console.sum.failed), (7, 0));
        assert!(is_end("vm: ended 0 9.5"));
    }

    #[test]
    fn a_guest_that_stopped_has_failed() {
        for text in
            ["", "vm: booted x 4.0\ntest a ... ok\nKernel panic - not syncing\n", "vm: ended 101 3.0\n"]
        {
            assert_eq!(Console::read(text).sum.failed, 1, "{text}");
        }
        let none = "test result: ok. 0 passed; 0 failed; 0 ignored;\nvm: ended 0 3.0\n";
        assert_eq!(Console::read(none).sum.failed, 1, "no test has that name");
    }

    #[test]
    fn tests_before_a_guest_stopped_count() {
        let text = "vm: booted x 4.0\ntest a ... ok\ntest b ... FAILED\ntest c ... ";
        let sum = Console::read(text).sum;
        assert_eq!((sum.passed, sum.failed), (1, 2), "the one that did not end has failed too");
    }

    #[test]
    fn last_lines_leave_out_sums() {
        let text = "a\n\nb\ntest result: FAILED. 0 passed; 1 failed;\nc\n";
        assert_eq!(last_lines(text, 2), ["b", "c"]);
        assert_eq!(last_lines(text, 9), ["a", "b", "c"]);
    }

    #[test]
    fn the_table_has_a_row_for_each() {
        let row = |failed| Row {
            release: "6.1.0-56-cloud-amd64".to_owned(),
            suite: "load".to_owned(),
            sum: Summary { passed: 5, failed, skipped: Vec::new() },
            booted: Some(4.26),
            took: Duration::from_secs(61),
        };
        let text = Table(&[row(0), row(2)]).to_string();
        let lines: Vec<&str> = text.lines().collect();
        assert_eq!(lines[0], "kernel                suite  result  passed  failed  skipped  boot s   all s");
        assert_eq!(lines[1], "6.1.0-56-cloud-amd64  load   ok           5       0        0     4.3      61");
        assert_eq!(lines[2], "6.1.0-56-cloud-amd64  load   FAILED       5       2        0     4.3      61");
    }
}
