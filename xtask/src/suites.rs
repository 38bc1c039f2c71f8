//! The test suites. A suite is one call of `cargo test`.

use std::path::Path;

use anyhow::{Context as _, Result};

use crate::lanes::Load;
use crate::run;

/// Suites of package `lbr-tests` that need no root. Every other file in `tests/tests` does, as it makes network
/// namespaces or loads programs.
const WITHOUT_ROOT: [&str; 11] = [
    "apiserver",
    "compile",
    "converge",
    "deploy",
    "documents",
    "incremental",
    "kube",
    "policy_atomic",
    "policy_full",
    "policy_oracle",
    "requirements",
];

/// Suites that flood the machine, or measure.
const ALONE: [&str; 2] = ["bench", "flood"];

/// The suites that take longest, longest first: they begin first. The others follow in order of their names.
const LONGEST: [&str; 12] = [
    "services",
    "policy",
    "policy_oracle",
    "programs",
    "network",
    "real_maps",
    "incremental",
    "kubernetes",
    "serve",
    "status",
    "kube",
    "policy_full",
];

/// The packages with tests. Every call names all of them: with a smaller selection, cargo would build shared
/// dependencies again with other features.
pub(crate) const PACKAGES: [&str; 8] =
    ["-p", "lbr-common", "-p", "lbr-agent", "-p", "xtask", "-p", "lbr-tests"];

/// Suites that compare millions of verdicts, and so are built in the profile `swift` of Cargo.toml.
const SWIFT: [&str; 3] = ["converge", "incremental", "policy_oracle"];

/// One call of `cargo test`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Suite {
    /// Name for messages.
    pub(crate) name: String,
    /// Arguments of `cargo test` that select it among [`PACKAGES`].
    pub(crate) args: Vec<String>,
    /// Needs root. Its tests have time limits, and run one after the other.
    pub(crate) root: bool,
    /// What it takes of the machine.
    pub(crate) load: Load,
}

/// All suites, the longest first.
pub(crate) fn all() -> Result<Vec<Suite>> {
    let mut suites =
        vec![suite("unit tests", &["--lib", "--bins"], false), suite("doc tests", &["--doc"], false)];
    for package in ["lbr-common", "lbr-agent"] {
        for name in files(&run::root().join(package).join("tests"))? {
            suites.push(suite(&name, &["--test", &name], false));
        }
    }
    for name in files(&run::root().join("tests/tests"))? {
        let swift: &[&str] = if SWIFT.contains(&name.as_str()) { &["--profile", "swift"] } else { &[] };
        suites.push(suite(&name, &[&["--test", &name], swift].concat(), needs_root(&name)));
    }
    let rank = |suite: &Suite| LONGEST.iter().position(|name| *name == suite.name).unwrap_or(LONGEST.len());
    suites.sort_by_key(rank);
    Ok(suites)
}

/// Whether a file in `tests/tests` needs root.
fn needs_root(name: &str) -> bool {
    !WITHOUT_ROOT.contains(&name)
}

/// The test binaries in a folder, ordered, by cargo's rule: `NAME.rs` and `NAME/main.rs`.
pub(crate) fn files(folder: &Path) -> Result<Vec<String>> {
    if !folder.exists() {
        return Ok(Vec::new());
    }
    let mut names = Vec::new();
    for entry in folder.read_dir().with_context(|| folder.display().to_string())? {
        let path = entry?.path();
        let is_test = path.extension().is_some_and(|e| e == "rs") || path.join("main.rs").exists();
        if let Some(name) = path.file_stem().filter(|_| is_test) {
            names.push(name.to_string_lossy().into_owned());
        }
    }
    names.sort();
    Ok(names)
}

fn suite(name: &str, args: &[&str], root: bool) -> Suite {
    let load = match root {
        _ if ALONE.contains(&name) => Load::Alone,
        true => Load::Waits,
        false => Load::Computes,
    };
    Suite { name: name.to_owned(), args: args.iter().map(|&arg| arg.to_owned()).collect(), root, load }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn files_and_folders_are_suites() {
        let folder = std::env::temp_dir().join(format!("xtask-suites-{}", std::process::id()));
        std::fs::create_dir_all(folder.join("network")).unwrap();
        std::fs::create_dir_all(folder.join("common")).unwrap();
        std::fs::write(folder.join("compile.rs"), "").unwrap();
        std::fs::write(folder.join("network/main.rs"), "").unwrap();
        std::fs::write(folder.join("notes.txt"), "").unwrap();
        let found = files(&folder).unwrap();
        std::fs::remove_dir_all(&folder).unwrap();
        assert_eq!(found, ["compile", "network"]);
        assert_eq!(files(&folder).unwrap(), Vec::<String>::new());
    }

    #[test]
    fn the_suites_that_are_named_here_exist() {
        let all: Vec<String> = all().unwrap().into_iter().map(|suite| suite.name).collect();
        for name in WITHOUT_ROOT.iter().chain(&SWIFT).chain(&ALONE).chain(&LONGEST) {
            assert!(all.iter().any(|suite| suite == name), "{name}");
        }
    }

    #[test]
    fn unlisted_suite_needs_root() {
        assert!(!needs_root("compile"));
        assert!(needs_root("programs"));
    }
}
