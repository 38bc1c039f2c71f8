//! What is in the folder and is not read: named once, with what to do. Pure.

use std::collections::BTreeSet;

/// Names in one line of the log.
const NAMES: usize = 10;

/// Endings of compressed files and archives.
const COMPRESSED: [&str; 9] = ["gz", "tgz", "bz2", "xz", "zst", "lz4", "br", "zip", "tar"];

/// Something in the folder that is no manifest.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Other {
    pub(super) name: String,
    pub(super) is_folder: bool,
}

/// What was said already.
#[derive(Debug, Default)]
pub(super) struct Notes {
    said_empty: bool,
    said: BTreeSet<Other>,
    /// What the look before saw: files that editors write for a moment are not worth a line.
    last: BTreeSet<Other>,
    has_looked: bool,
}

impl Notes {
    /// Lines for the log after a look at the folder, which has no manifest if `is_empty`.
    pub(super) fn of(&mut self, is_empty: bool, others: Vec<Other>) -> Vec<String> {
        let others: BTreeSet<Other> = others.into_iter().filter(|other| !is_leftover(&other.name)).collect();
        let is_first = !std::mem::replace(&mut self.has_looked, true);
        let is_new = |other: &&Other| (is_first || self.last.contains(other)) && !self.said.contains(other);
        let new: Vec<Other> = others.iter().filter(is_new).cloned().collect();
        let mut lines = Vec::new();
        if is_empty && is_first && !std::mem::replace(&mut self.said_empty, true) {
            lines.push(
                "has no manifests (*.yaml, *.yml, *.json), so nothing is in force by it; lbr reads files that come"
                    .to_owned(),
            );
        }
        let (folders, files): (Vec<_>, Vec<_>) = new.iter().partition(|other| other.is_folder);
        let (compressed, unknown): (Vec<_>, Vec<_>) =
            files.into_iter().partition(|other| is_compressed(&other.name));
        for (names, why) in [
            (folders, "folders are not read: move their manifests into this one"),
            (compressed, "compressed files are not read: unpack them here"),
            (unknown, "only *.yaml, *.yml and *.json are read: rename what is a manifest"),
        ] {
            if !names.is_empty() {
                lines.push(format!("{}: {why}", listed(&names)));
            }
        }
        self.said.extend(new);
        self.last = others;
        lines
    }
}

/// What editors and package managers leave behind.
fn is_leftover(name: &str) -> bool {
    name.ends_with('~')
        || name.starts_with('#')
        || [".tmp", ".swp", ".swx", ".bak"].iter().any(|end| name.ends_with(end))
}

fn is_compressed(name: &str) -> bool {
    let ending = name.rsplit_once('.').map_or("", |(_, ending)| ending).to_ascii_lowercase();
    COMPRESSED.contains(&ending.as_str())
}

fn listed(others: &[&Other]) -> String {
    let slash = |other: &&&Other| if other.is_folder { "/" } else { "" };
    let names: Vec<_> =
        others.iter().take(NAMES).map(|other| format!("{}{}", other.name, slash(&other))).collect();
    let more = others.len().saturating_sub(NAMES);
    let rest = if more == 0 { String::new() } else { format!(" and {more} more") };
    format!("{}{rest}", names.join(", "))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn others(names: &[&str]) -> Vec<Other> {
        let other = |name: &&str| Other {
            name: name.trim_end_matches('/').to_owned(),
            is_folder: name.ends_with('/'),
        };
        names.iter().map(other).collect()
    }

    /// What is named in each line, and a word of what to do.
    fn told(notes: &mut Notes, is_empty: bool, names: &[&str]) -> Vec<String> {
        notes.of(is_empty, others(names))
    }

    #[test]
    fn each_thing_is_named_once_with_what_to_do() {
        let mut notes = Notes::default();
        let there = ["base/", "web.yaml.gz", "old.TAR", "web.yaml.j2", "UP.YAML", "web.yaml~", "x.tmp"];
        let lines = told(&mut notes, true, &there);
        for (line, (names, to_do)) in lines.iter().zip([
            ("has no manifests", "lbr reads files that come"),
            ("base/: folders are not read", "move their manifests"),
            ("old.TAR, web.yaml.gz: compressed", "unpack them here"),
            ("UP.YAML, web.yaml.j2: only *.yaml", "rename what is"),
        ]) {
            assert!(line.starts_with(names) && line.contains(to_do), "{line}");
        }
        assert_eq!(lines.len(), 4, "{lines:?}");
        assert!(told(&mut notes, true, &there).is_empty(), "named already");
        // A file that is there for one look only is an editor's.
        assert!(told(&mut notes, false, &["4913"]).is_empty());
        assert!(told(&mut notes, true, &["notes.txt"]).is_empty());
        assert_eq!(told(&mut notes, true, &["notes.txt"]).len(), 1);
        assert!(told(&mut notes, true, &[]).is_empty());
        assert!(told(&mut notes, true, &["notes.txt"]).is_empty());
    }

    #[test]
    fn a_line_stays_short() {
        let names: Vec<String> = (10..40).map(|n| format!("{n}.txt")).collect();
        let names: Vec<&str> = names.iter().map(String::as_str).collect();
        let lines = told(&mut Notes::default(), false, &names);
        assert!(
            lines[0].starts_with("10.txt, ") && lines[0].contains("19.txt and 20 more: only"),
            "{lines:?}"
        );
    }
}
