//! The task of a guest: one suite in each boot.

use super::kernels;

/// The default suites, with the tests of them that show most in little time.
const DEFAULT: [(&str, &[&str]); 6] = [
    ("load", &[]),
    ("verifier", &[]),
    ("programs", &[]),
    ("network", &SHORT_NETWORK),
    ("services", &SHORT_SERVICES),
    ("policy", &SHORT_POLICY),
];
/// Tests of `network` for every kernel: the paths of a packet with sockets at both ends, and attachment after a
/// restart and to new links.
const SHORT_NETWORK: [&str; 5] =
    ["cells::routed_same_node", "cells::bridge_other_node", "cells::clsact_other", "hotplug::", "restart::"];
/// Tests of `services` for every kernel.
const SHORT_SERVICES: [&str; 3] = ["routed::cluster_ip", "routed::node_port", "xdp::node_port"];
/// Tests of `policy` for every kernel.
const SHORT_POLICY: [&str; 3] = ["rows::a", "c18_connection", "selfcheck::"];

/// Words in names of tests that need a newer kernel, and the first version that runs them.
const SINCE: [(&str, (u32, u32)); 2] = [("tcx", (6, 6)), ("xdp", (5, 18))];

/// A suite.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Suite {
    /// `lbr run` and `lbr cleanup`, with each way of attaching.
    Load,
    /// The verifier's cost of each program.
    Verifier,
    /// A test binary of package `lbr-tests`.
    Tests {
        /// Its name.
        name: String,
        /// Filters, or other arguments for it.
        filter: Vec<String>,
    },
}

impl Suite {
    /// The suite with this name.
    pub(super) fn new(name: &str, filter: &[impl AsRef<str>]) -> Self {
        match name {
            "load" => Self::Load,
            "verifier" => Self::Verifier,
            _ => Self::Tests {
                name: name.to_owned(),
                filter: filter.iter().map(|word| word.as_ref().to_owned()).collect(),
            },
        }
    }

    /// The suites that `cargo xtask test` runs on another kernel.
    pub(super) fn of_tests() -> Vec<Self> {
        vec![Self::Load, Self::new("programs", &[] as &[&str])]
    }

    /// The suites for words on the command line: one suite with filters, or the defaults without words.
    pub(super) fn chosen(words: &[String]) -> Vec<Self> {
        match words.split_first() {
            Some((name, filter)) => vec![Self::new(name, filter)],
            None => DEFAULT.iter().map(|(name, filter)| Self::new(name, filter)).collect(),
        }
    }

    /// Its name, also for the file of its log.
    pub(super) fn name(&self) -> &str {
        match self {
            Self::Load => "load",
            Self::Verifier => "verifier",
            Self::Tests { name, .. } => name,
        }
    }

    /// The script that the guest runs.
    pub(super) fn script(&self) -> &'static str {
        match self {
            Self::Load => include_str!("guest/load.sh"),
            Self::Verifier => include_str!("guest/verifier.sh"),
            Self::Tests { .. } => include_str!("guest/tests.sh"),
        }
    }

    /// The script's arguments on a kernel.
    pub(super) fn arguments(&self, release: &str) -> Vec<String> {
        match self {
            Self::Load | Self::Verifier => Vec::new(),
            // Tests that are ignored by default need root, which the guest has.
            Self::Tests { filter, .. } => {
                let own = ["--test-threads=1", "--include-ignored"].map(str::to_owned);
                let skip = impossible(release).flat_map(|(word, _)| ["--skip".to_owned(), word.to_owned()]);
                own.into_iter().chain(filter.iter().cloned()).chain(skip).collect()
            }
        }
    }

    /// Messages about the tests that this kernel leaves out. Nothing is skipped silently.
    pub(super) fn left_out(&self, release: &str) -> Vec<String> {
        let words = impossible(release).filter(|_| matches!(self, Self::Tests { .. }));
        let text =
            |(word, (major, minor))| format!("not run: tests of {word} (Linux {major}.{minor} or later)");
        words.map(text).collect()
    }
}

/// The entries of [`SINCE`] that a kernel lacks.
fn impossible(release: &str) -> impl Iterator<Item = (&'static str, (u32, u32))> {
    let own = kernels::version(release);
    SINCE.into_iter().filter(move |(_, since)| own.is_some_and(|own| own < *since))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn words_select_one_suite() {
        let words = ["network", "nodeport", "hairpin"].map(str::to_owned);
        let chosen = Suite::chosen(&words);
        let [suite] = chosen.as_slice() else { panic!("{chosen:?}") };
        assert_eq!(suite.name(), "network");
        let arguments = suite.arguments("6.12.1-cloud-amd64");
        assert_eq!(arguments, ["--test-threads=1", "--include-ignored", "nodeport", "hairpin"]);
        assert_eq!(Suite::chosen(&["load".to_owned()]), [Suite::Load]);
    }

    #[test]
    fn tests_beyond_the_kernel_are_left_out() {
        let suite = Suite::new("network", &["restart::"]);
        let arguments = suite.arguments("6.1.0-56-cloud-amd64");
        assert_eq!(arguments[2..], ["restart::", "--skip", "tcx"]);
        assert_eq!(suite.left_out("6.1.0-56-cloud-amd64"), ["not run: tests of tcx (Linux 6.6 or later)"]);
        assert_eq!(suite.left_out("6.6.1-cloud-amd64"), [""; 0]);
        assert_eq!(suite.left_out("5.10.0-46-cloud-amd64").len(), 2);
        assert_eq!(Suite::Load.left_out("5.10.0-46-cloud-amd64"), [""; 0], "it reports refusals itself");
    }

    #[test]
    fn without_words_there_are_several() {
        let chosen = Suite::chosen(&[]);
        assert_eq!(chosen.len(), DEFAULT.len());
        assert_eq!(chosen[..2], [Suite::Load, Suite::Verifier]);
    }
}
