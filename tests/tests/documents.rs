//! The documents agree with the repository: links lead somewhere, commands can be typed as they stand, names exist, and
//! each row of the truth tables that code cites has its place in `docs/policy-semantics.md`.
#![expect(clippy::unwrap_used, reason = "helpers of tests fail by panicking")]

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};

use clap::Parser as _;
use lbr_agent::cli::Cli;

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("..").canonicalize().unwrap()
}

/// Files below a folder of the repository with this ending, by their path from the root.
fn files(folder: &str, ending: &str) -> BTreeMap<String, String> {
    let mut found = BTreeMap::new();
    collect(&root().join(folder), folder, ending, &mut found);
    found
}

fn collect(folder: &Path, name: &str, ending: &str, found: &mut BTreeMap<String, String>) {
    for entry in fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        let own = path.file_name().unwrap().to_str().unwrap();
        let name = if name.is_empty() { own.to_owned() } else { format!("{name}/{own}") };
        if path.is_dir() {
            if !matches!(own, "target" | ".git") {
                collect(&path, &name, ending, found);
            }
        } else if own.ends_with(ending) {
            found.insert(name, fs::read_to_string(&path).unwrap());
        }
    }
}

fn documents() -> BTreeMap<String, String> {
    files("", ".md")
}

/// Everything that is compiled or applied, this file excepted.
fn sources() -> BTreeMap<String, String> {
    let folders = ["lbr-agent", "lbr-common", "lbr-ebpf", "tests", "xtask", "deploy", "examples"];
    let read = |folder: &&str| {
        let endings = [".rs", ".yaml", ".json", ".toml"];
        endings.into_iter().flat_map(|ending| files(folder, ending)).collect::<Vec<_>>()
    };
    folders.iter().flat_map(read).filter(|(name, _)| name != "tests/tests/documents.rs").collect()
}

/// Words of letters, digits and underscores.
fn words(text: &str) -> impl Iterator<Item = &str> {
    text.split(|c: char| !c.is_ascii_alphanumeric() && c != '_').filter(|word| !word.is_empty())
}

fn is_row(word: &str) -> bool {
    let number = word.strip_prefix(['A', 'B', 'C']).unwrap_or_default();
    !number.is_empty() && number.bytes().all(|byte| byte.is_ascii_digit())
}

#[test]
fn cited_rows_are_in_the_truth_tables() {
    let document = fs::read_to_string(root().join("docs/policy-semantics.md")).unwrap();
    let cells = document.lines().filter_map(|line| line.strip_prefix("| ")?.split(' ').next());
    let rows: Vec<&str> = cells.filter(|cell| is_row(cell)).collect();
    let unique: BTreeSet<&str> = rows.iter().copied().collect();
    assert_eq!(rows.len(), unique.len(), "a row is there twice: {rows:?}");
    for (table, count) in [('A', 7), ('B', 17), ('C', 22)] {
        let numbers: Vec<&str> = rows.iter().filter_map(|row| row.strip_prefix(table)).collect();
        let expected: Vec<String> = (1..=count).map(|n: u32| n.to_string()).collect();
        assert_eq!(numbers, expected, "table {table}");
    }
    let mut cited = BTreeSet::new();
    for (name, text) in
        sources().iter().filter(|(name, _)| name.ends_with(".rs") || name.contains("scenarios"))
    {
        for row in words(text).filter(|word| is_row(word)) {
            assert!(unique.contains(row), "{name} cites {row}, which docs/policy-semantics.md does not have");
            cited.insert(row.to_owned());
        }
    }
    assert_eq!(cited.len(), unique.len(), "rows that nothing cites: {:?}", &cited);
}

/// Lines of a document outside of its code blocks.
fn prose(text: &str) -> impl Iterator<Item = &str> {
    let mut in_code = false;
    text.lines().filter(move |line| {
        let is_fence = line.trim_start().starts_with("```");
        in_code ^= is_fence;
        !in_code && !is_fence
    })
}

/// The anchors of a document's headings, as forges make them.
fn anchors(text: &str) -> BTreeSet<String> {
    let headings = prose(text)
        .filter_map(|line| line.trim_start_matches('#').strip_prefix(' ').filter(|_| line.starts_with('#')));
    let slug = |heading: &str| {
        let kept = heading
            .to_lowercase()
            .chars()
            .filter(|c| c.is_alphanumeric() || matches!(c, ' ' | '-' | '_'))
            .collect::<String>();
        kept.trim().replace(' ', "-")
    };
    headings.map(slug).collect()
}

/// Targets of links, `[text](target)`.
fn links(text: &str) -> Vec<String> {
    let mut found = Vec::new();
    for line in prose(text) {
        for rest in line.split("](").skip(1) {
            found.extend(rest.split_once(')').map(|(target, _)| target.to_owned()));
        }
    }
    found
}

#[test]
fn links_lead_somewhere() {
    let documents = documents();
    assert!(documents.contains_key("README.md") && documents.len() > 5);
    let mut broken = Vec::new();
    for (name, text) in &documents {
        for link in links(text).iter().filter(|link| !link.contains("://")) {
            let (file, anchor) = link.split_once('#').unwrap_or((link, ""));
            let folder = Path::new(name).parent().unwrap();
            let target = if file.is_empty() { root().join(name) } else { root().join(folder).join(file) };
            let is_there = target.exists()
                && (anchor.is_empty() || anchors(&fs::read_to_string(&target).unwrap()).contains(anchor));
            if !is_there {
                broken.push(format!("{name}: {link}"));
            }
        }
    }
    assert!(broken.is_empty(), "{}", broken.join("\n"));
}

/// Lines of `sh` blocks, without their comments.
fn commands(text: &str) -> Vec<&str> {
    let mut in_shell = false;
    let mut found = Vec::new();
    for line in text.lines() {
        if let Some(language) = line.trim_start().strip_prefix("```") {
            in_shell = !in_shell && language == "sh";
        } else if in_shell {
            found.push(line.split(" #").next().unwrap_or_default().trim());
        }
    }
    found.retain(|line| !line.is_empty() && !line.starts_with('#'));
    found
}

#[test]
fn commands_can_be_typed() {
    let head = fs::read_to_string(root().join("xtask/src/main.rs")).unwrap();
    let tasks = head.split("`cargo xtask ").nth(1).unwrap().split('`').next().unwrap();
    let tasks: Vec<&str> = tasks.split('|').collect();
    let mut checked = 0;
    for (name, text) in documents() {
        for command in commands(&text) {
            let words: Vec<&str> = command.split_whitespace().collect();
            if let ["cargo", "xtask", task, ..] = words[..] {
                assert!(tasks.contains(&task), "{name}: {command}: no task {task}");
                checked += 1;
            }
            // `lbr` itself, by a path, or in a pod (`kubectl exec POD -- /lbr ...`).
            let begin = words.iter().position(|word| *word == "lbr" || word.ends_with("/lbr"));
            let Some(begin) = begin.filter(|at| *at == 0 || matches!(words[at - 1], "sudo" | "--")) else {
                continue;
            };
            if let Err(error) = Cli::try_parse_from(&words[begin..]) {
                assert!(!error.use_stderr(), "{name}: {command}: {error}");
            }
            checked += 1;
        }
    }
    assert!(checked > 20, "{checked} commands");
}

/// `snake_case` names in backticks: verdicts, metrics, maps, fields. Those of others need no source here.
#[test]
fn names_exist() {
    let all: String = sources().into_values().collect();
    let known: BTreeSet<&str> = words(&all).collect();
    let mut missing = Vec::new();
    for (name, text) in documents().iter().filter(|(name, _)| *name != "CHANGELOG.md") {
        for line in prose(text) {
            for code in line.split('`').skip(1).step_by(2) {
                let is_name = code.contains('_')
                    && code
                        .bytes()
                        .all(|byte| byte.is_ascii_lowercase() || byte == b'_' || byte.is_ascii_digit());
                if is_name && !code.starts_with("bpf_") && !known.contains(code) && !OF_OTHERS.contains(&code)
                {
                    missing.push(format!("{name}: {code}"));
                }
            }
        }
    }
    assert!(missing.is_empty(), "names that no source has:\n{}", missing.join("\n"));
}

/// Names in the documents that are not lbr's, beside the kernel's helpers.
const OF_OTHERS: [&str; 1] = ["route_localnet"];
