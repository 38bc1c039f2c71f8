//! The programs of guests: `lbr` and the test binaries, without debug symbols.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::SystemTime;

use anyhow::{Context as _, Result, bail};

use super::fetch::must;
use super::suite::Suite;
use crate::arch::Arch;
use crate::suites::PACKAGES;
use crate::{build, cross, run, say};

/// The programs of a run, as built.
#[derive(Debug, Default)]
pub(super) struct Binaries {
    /// Name and path of each binary.
    built: Vec<(String, PathBuf)>,
    /// The repository that they were built from: tests read files there.
    pub(super) root: PathBuf,
}

impl Binaries {
    /// Builds the programs of these suites.
    pub(super) fn build(suites: &[Suite], arch: Arch) -> Result<Self> {
        let names = tests(suites);
        say::line("build: lbr, and what guests run");
        let mut programs = run::cargo();
        programs.arg("build").args(PACKAGES).args(["--bin", "lbr", "--bin", "bench", "--quiet"]);
        let mut commands = vec![programs];
        if !names.is_empty() {
            let mut command = build::test_command();
            command.args(names.iter().flat_map(|name| ["--test", name])).args(["--no-run", "--quiet"]);
            commands.push(command);
        }
        if !arch.is_own() {
            cross::add_target(arch)?;
            commands.iter_mut().for_each(|command| cross::for_target(command, arch));
        }
        let mut messages = String::new();
        for command in &mut commands {
            messages.push_str(&self::messages(command)?);
        }
        let mut built = Vec::new();
        for name in ["lbr", "bench"].into_iter().chain(names) {
            let path = executable(&messages, name);
            built.push((
                name.to_owned(),
                path.with_context(|| format!("cargo does not report the path of {name}"))?,
            ));
        }
        Ok(Self { built, root: run::root() })
    }

    /// Takes programs that were built before, from the folder where cargo put `lbr` (`target/debug`).
    pub(super) fn take(folder: &Path, suites: &[Suite]) -> Result<Self> {
        let folder = folder.canonicalize().with_context(|| format!("--binaries {}", folder.display()))?;
        let mut built =
            vec![("lbr".to_owned(), folder.join("lbr")), ("bench".to_owned(), folder.join("bench"))];
        for name in tests(suites) {
            let path = newest(&folder.join("deps"), name)?;
            built
                .push((name.to_owned(), path.with_context(|| format!("no {name} in {}", folder.display()))?));
        }
        // cargo lists the sources of each binary.
        let sources = fs::read_to_string(folder.join("lbr.d")).unwrap_or_default();
        let root = root_of(&sources).unwrap_or_else(run::root);
        Ok(Self { built, root })
    }

    /// The stripped programs of one suite: their names in the guest, and their paths. `folder`: for the stripped
    /// copies.
    pub(super) fn of(
        &self,
        suite: &Suite,
        arch: Arch,
        folder: &Path,
    ) -> Result<Vec<(&'static str, PathBuf)>> {
        let wanted = match suite {
            Suite::Load => vec![("lbr", "lbr")],
            Suite::Verifier => vec![("lbr", "lbr"), ("bench", "bench")],
            Suite::Tests { name, .. } => vec![("lbr", "lbr"), ("binary", name.as_str())],
        };
        let mut found = Vec::new();
        for (in_guest, name) in wanted {
            let path = self.built.iter().find(|(own, _)| own == name).map(|(_, path)| path);
            let path = path.with_context(|| format!("{name} was not built"))?;
            let copy = folder.join(name);
            strip(path, &copy, arch)?;
            found.push((in_guest, copy));
        }
        Ok(found)
    }
}

/// The names of the suites' test binaries.
fn tests(suites: &[Suite]) -> Vec<&str> {
    let all = suites
        .iter()
        .filter_map(|suite| if let Suite::Tests { name, .. } = suite { Some(name) } else { None });
    all.map(String::as_str).collect()
}

/// Makes a copy without symbols, which is a tenth of the size.
fn strip(path: &Path, copy: &Path, arch: Arch) -> Result<()> {
    let program = if arch.is_own() { "strip".to_owned() } else { format!("{}-strip", arch.multiarch()) };
    must(Command::new(program).arg("-o").arg(copy).arg(path))
}

/// Runs cargo, and returns its messages, one JSON object on a line.
fn messages(command: &mut Command) -> Result<String> {
    command.arg("--message-format=json-render-diagnostics");
    let output = command.stdout(Stdio::piped()).spawn()?.wait_with_output()?;
    if !output.status.success() {
        bail!("building the programs of guests failed: see the compiler's output above");
    }
    Ok(String::from_utf8_lossy(&output.stdout).into_owned())
}

/// The path of a target's program in cargo's messages. File names of test binaries have a hash.
fn executable(messages: &str, target: &str) -> Option<PathBuf> {
    let objects = messages.lines().filter_map(|line| serde_json::from_str::<serde_json::Value>(line).ok());
    let mut paths = objects.filter_map(|object| {
        let is_it =
            object["target"]["name"] == target && object["target"]["kind"] != serde_json::json!(["lib"]);
        object["executable"].as_str().filter(|_| is_it).map(PathBuf::from)
    });
    paths.next()
}

/// The repository of the sources that cargo lists.
fn root_of(sources: &str) -> Option<PathBuf> {
    let main = sources.split_whitespace().find_map(|path| path.strip_suffix("/lbr-agent/src/main.rs"));
    main.map(PathBuf::from).filter(|root| root.is_absolute())
}

/// The newest of a test's binaries in a folder, where older ones stay.
fn newest(folder: &Path, name: &str) -> Result<Option<PathBuf>> {
    let mut found: Option<(SystemTime, PathBuf)> = None;
    for entry in folder.read_dir().with_context(|| folder.display().to_string())? {
        let entry = entry?;
        let own = entry.file_name().to_string_lossy().into_owned();
        let hash = own.strip_prefix(name).and_then(|rest| rest.strip_prefix('-'));
        if !hash.is_some_and(|hash| hash.chars().all(|c| c.is_ascii_hexdigit())) {
            continue;
        }
        let made = fs::metadata(entry.path())?.modified()?;
        if found.as_ref().is_none_or(|(newest, _)| made > *newest) {
            found = Some((made, entry.path()));
        }
    }
    Ok(found.map(|(_, path)| path))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn test_binaries_are_found_in_the_messages() {
        let messages = concat!(
            r#"{"reason":"compiler-artifact","target":{"kind":["lib"],"name":"lbr"},"executable":null}"#,
            "\n",
            r#"{"reason":"compiler-artifact","target":{"kind":["bin"],"name":"lbr"},"executable":"/t/lbr"}"#,
            "\n",
            r#"{"reason":"compiler-artifact","target":{"kind":["test"],"name":"xdp"},"executable":"/t/deps/xdp-1a"}"#,
            "\n{\"reason\":\"build-finished\",\"success\":true}\n",
        );
        assert_eq!(executable(messages, "lbr"), Some(PathBuf::from("/t/lbr")));
        assert_eq!(executable(messages, "xdp"), Some(PathBuf::from("/t/deps/xdp-1a")));
        assert_eq!(executable(messages, "network"), None);
    }

    #[test]
    fn the_repository_is_that_of_the_sources() {
        let sources =
            "/t/debug/lbr: /r/lbr-agent/build.rs /r/lbr-agent/src/lib.rs /r/lbr-agent/src/main.rs\n";
        assert_eq!(root_of(sources), Some(PathBuf::from("/r")));
        assert_eq!(root_of(""), None);
    }

    #[test]
    fn the_newest_binary_is_taken() {
        let folder = std::env::temp_dir().join(format!("xtask-vm-{}", std::process::id()));
        fs::create_dir_all(&folder).unwrap();
        for name in ["xdp-1a", "xdp-1a.d", "xdp-z", "xdp_more-1a"] {
            fs::write(folder.join(name), "").unwrap();
        }
        let found = newest(&folder, "xdp").unwrap();
        assert_eq!(newest(&folder, "policy").unwrap(), None);
        fs::remove_dir_all(&folder).unwrap();
        assert_eq!(found, Some(folder.join("xdp-1a")));
    }
}
