//! The objects that the files of the folder put in force together. Pure: opens no file.

use std::collections::{BTreeMap, BTreeSet};

use super::parse::Parsed;
use crate::cluster::Change;
use crate::model::{Object, ObjectRef, Partial, Rejected};

/// All files of the folder, and the result.
#[derive(Debug, Default)]
pub struct ManifestSet {
    files: BTreeMap<String, Parsed>,
    in_force: BTreeMap<ObjectRef, InForce>,
    rejected: Vec<Rejected>,
}

/// An object that was sent, and its file.
#[derive(Clone, Debug, Default, PartialEq)]
struct InForce {
    /// The last accepted version.
    accepted: Option<Object>,
    /// What can be read of the present version, if it is rejected.
    partial: Option<Partial>,
    /// The file that provides it.
    file: String,
    /// Its place: `web.yaml, document 2`.
    origin: String,
}

/// The claim of a file about an object.
struct Candidate<'a> {
    file: &'a str,
    origin: &'a str,
    claim: Claim<'a>,
}

enum Claim<'a> {
    Valid(&'a Object),
    Rejected(Option<&'a Partial>),
    /// The file has a document that could be this object.
    Unreadable,
}

impl ManifestSet {
    /// An empty folder.
    pub fn new() -> Self {
        Self::default()
    }

    /// Sets the content of a file.
    pub fn set_file(&mut self, name: &str, parsed: Parsed) {
        self.files.insert(name.to_owned(), parsed);
    }

    /// Removes a file.
    pub fn remove_file(&mut self, name: &str) {
        self.files.remove(name);
    }

    /// Number of objects in force.
    pub fn len(&self) -> usize {
        self.in_force.len()
    }

    /// Whether no object is in force.
    pub fn is_empty(&self) -> bool {
        self.in_force.is_empty()
    }

    /// All rejections.
    pub fn rejected(&self) -> &[Rejected] {
        &self.rejected
    }

    /// The changes since the last call, which the caller sends. New versions come before deletions, so that something
    /// that moves from one object to another is always in one of them.
    pub fn changes(&mut self) -> Vec<Change> {
        let (wanted, rejected) = self.merge();
        let mut changes = Vec::new();
        let nothing = InForce::default();
        for (reference, new) in &wanted {
            let old = self.in_force.get(reference).unwrap_or(&nothing);
            if new.origin != old.origin {
                changes.push(Change::Origin(Some(reference.clone()), new.origin.clone()));
            }
            // Without a rejected version the accepted one holds as a whole again.
            let is_whole_again = old.partial.is_some() && new.partial.is_none();
            if new.accepted != old.accepted || is_whole_again {
                changes.extend(new.accepted.clone().map(Change::Apply));
            }
            if new.partial != old.partial || new.accepted != old.accepted {
                changes.extend(new.partial.clone().map(Change::Restrict));
            }
        }
        for reference in self.in_force.keys().filter(|r| !wanted.contains_key(r)) {
            changes.push(Change::Delete(reference.clone()));
        }
        if rejected != self.rejected {
            changes.push(Change::Rejected(rejected.clone()));
        }
        self.in_force = wanted;
        self.rejected = rejected;
        changes
    }

    fn merge(&self) -> (BTreeMap<ObjectRef, InForce>, Vec<Rejected>) {
        let mut rejected: Vec<Rejected> = self.files.values().flat_map(|f| f.rejected.clone()).collect();
        let mut wanted = BTreeMap::new();
        for (reference, candidates) in self.candidates() {
            let Some((winner, in_force)) = self.choose(&reference, &candidates) else { continue };
            for (i, loser) in candidates.iter().enumerate() {
                if i != winner && matches!(loser.claim, Claim::Valid(_)) {
                    let reason = format!(
                        "{} has the same object, and the first file in the order of names is in force: \
                         keep one of the two",
                        candidates[winner].origin
                    );
                    rejected.push(Rejected::whole(reference.clone(), loser.origin.to_owned(), reason));
                }
            }
            let has_accepted = in_force.accepted.is_some();
            let consequence = in_force.partial.as_ref().and_then(|partial| partial.consequence(has_accepted));
            if let Some(reason) = consequence {
                let origin = candidates[winner].origin.to_owned();
                rejected.push(Rejected::whole(reference.clone(), origin, reason.to_owned()));
            }
            if has_accepted || consequence.is_some() {
                wanted.insert(reference, in_force);
            }
        }
        (wanted, rejected)
    }

    /// The claims of the files about each object, in the order of the files' names.
    fn candidates(&self) -> BTreeMap<ObjectRef, Vec<Candidate<'_>>> {
        let mut all: BTreeMap<ObjectRef, Vec<Candidate<'_>>> = BTreeMap::new();
        for (file, parsed) in &self.files {
            let mut named = BTreeSet::new();
            for o in &parsed.objects {
                let reference = o.object.reference();
                named.insert(reference.clone());
                let candidate = Candidate { file, origin: &o.origin, claim: Claim::Valid(&o.object) };
                all.entry(reference).or_default().push(candidate);
            }
            for h in &parsed.held {
                named.insert(h.reference.clone());
                let claim = Claim::Rejected(h.partial.as_ref());
                all.entry(h.reference.clone()).or_default().push(Candidate {
                    file,
                    origin: &h.origin,
                    claim,
                });
            }
            if parsed.unreadable {
                let mine = self.in_force.iter().filter(|(_, o)| o.file == *file).map(|(r, _)| r);
                for reference in mine.filter(|r| !named.contains(*r)) {
                    let candidate = Candidate { file, origin: file, claim: Claim::Unreadable };
                    all.entry(reference.clone()).or_default().push(candidate);
                }
            }
        }
        all
    }

    /// The candidate that counts, and what it puts in force: the first that is valid, or whose file provided the accepted
    /// version in force. Without such a candidate the version in force stays, and what can be read of a rejected one
    /// counts.
    fn choose(&self, reference: &ObjectRef, candidates: &[Candidate<'_>]) -> Option<(usize, InForce)> {
        let old = self.in_force.get(reference);
        let accepted = old.and_then(|old| Some((old, old.accepted.as_ref()?)));
        let of = |candidate: &Candidate<'_>, accepted: Option<&Object>, partial: Option<&Partial>| InForce {
            accepted: accepted.cloned(),
            partial: partial.cloned(),
            file: candidate.file.to_owned(),
            origin: candidate.origin.to_owned(),
        };
        for (i, candidate) in candidates.iter().enumerate() {
            if let Claim::Valid(object) = candidate.claim {
                return Some((i, of(candidate, Some(object), None)));
            }
            if let Some((old, object)) = accepted.filter(|(old, _)| old.file == candidate.file) {
                let partial = match candidate.claim {
                    Claim::Rejected(partial) => partial,
                    Claim::Valid(_) | Claim::Unreadable => old.partial.as_ref(),
                };
                return Some((i, of(candidate, Some(object), partial)));
            }
        }
        let object = accepted.map(|(_, object)| object);
        let partial = candidates.iter().enumerate().find_map(|(i, candidate)| match candidate.claim {
            Claim::Rejected(Some(partial)) => Some((i, of(candidate, object, Some(partial)))),
            _ => None,
        });
        let first = candidates.first();
        let kept = old.zip(first).map(|(old, first)| (0, of(first, object, old.partial.as_ref())));
        partial.or(kept)
    }
}

#[cfg(test)]
mod tests {
    use super::super::parse::parse;
    use super::*;

    fn service(name: &str, ip: &str) -> String {
        format!(
            "apiVersion: v1\nkind: Service\nmetadata: {{name: {name}}}\n\
             spec: {{clusterIP: {ip}, ports: [{{port: 80}}]}}\n---\n"
        )
    }

    fn policy(from: &str) -> String {
        format!(
            "apiVersion: networking.k8s.io/v1\nkind: NetworkPolicy\nmetadata: {{name: p}}\n\
             spec: {{podSelector: {{}}, ingress: [{{from: [{from}]}}]}}\n---\n"
        )
    }

    /// One line for each change: `+web 10.0.0.1`, `~web` if a rejected version counts, `-web`, `!file` for a rejection.
    fn step(set: &mut ManifestSet, files: &[(&str, Option<&str>)]) -> Vec<String> {
        for (name, text) in files {
            match text {
                Some(text) => set.set_file(name, parse(name, text)),
                None => set.remove_file(name),
            }
        }
        let mut lines = Vec::new();
        for change in set.changes() {
            match change {
                Change::Apply(Object::Service(s)) => {
                    lines.push(format!("+{} {}", s.name.name, s.cluster_ips[0]))
                }
                Change::Apply(Object::NetworkPolicy(p)) => {
                    lines.push(format!("+{} {}", p.name.name, p.ingress.map_or(0, |r| r.len())));
                }
                Change::Restrict(partial) => lines.push(format!("~{}", partial.reference().name.name)),
                Change::Origin(..) => {}
                Change::Delete(r) => lines.push(format!("-{}", r.name.name)),
                Change::Rejected(list) if list.is_empty() => lines.push("!none".to_owned()),
                Change::Rejected(list) => lines.extend(list.into_iter().map(|r| format!("!{}", r.origin))),
                other => panic!("unexpected {other:?}"),
            }
        }
        lines
    }

    #[test]
    fn a_life_story() {
        let mut set = ManifestSet::new();
        let (a, a2, b) = (service("a", "10.0.0.1"), service("a", "10.0.0.2"), service("b", "10.0.0.3"));
        let bad_a = a.replace("port: 80", "port: 0");
        let both = format!("{a}{b}");
        for (what, files, expected) in [
            ("two in one file", vec![("1.yaml", Some(both.as_str()))], vec!["+a 10.0.0.1", "+b 10.0.0.3"]),
            ("the same again", vec![("1.yaml", Some(both.as_str()))], vec![]),
            ("one changes", vec![("1.yaml", Some(&format!("{a2}{b}")))], vec!["+a 10.0.0.2"]),
            (
                "one becomes invalid",
                vec![("1.yaml", Some(&format!("{bad_a}{b}")))],
                vec!["~a", "!1.yaml, document 1", "!1.yaml, document 1"],
            ),
            ("and the other leaves", vec![("1.yaml", Some(&bad_a))], vec!["-b"]),
            ("it is corrected", vec![("1.yaml", Some(&a))], vec!["+a 10.0.0.1", "!none"]),
            ("it moves to another file", vec![("1.yaml", None), ("2.yaml", Some(&a))], vec![]),
            ("the file goes", vec![("2.yaml", None)], vec!["-a"]),
        ] {
            assert_eq!(step(&mut set, &files), expected, "{what}");
        }
        assert!(set.is_empty());
    }

    #[test]
    fn an_unreadable_file_keeps_what_it_had_and_affects_no_other() {
        let mut set = ManifestSet::new();
        let (a, b, c) = (service("a", "10.0.0.1"), service("b", "10.0.0.2"), service("c", "10.0.0.3"));
        let half = format!("{a}apiVersion: v1\nkind: Serv: [");
        for (what, files, expected) in [
            (
                "start",
                vec![("1.yaml", Some(format!("{a}{b}"))), ("2.yaml", Some(c.clone()))],
                vec!["+a 10.0.0.1", "+b 10.0.0.2", "+c 10.0.0.3"],
            ),
            ("half written", vec![("1.yaml", Some(half.clone()))], vec!["!1.yaml, document 2"]),
            ("another file changes", vec![("2.yaml", Some(service("c", "10.0.0.9")))], vec!["+c 10.0.0.9"]),
            (
                "another file takes one over",
                vec![("3.yaml", Some(service("b", "10.0.0.7")))],
                vec!["!1.yaml, document 2", "!3.yaml, document 1"],
            ),
            ("whole again, without b", vec![("1.yaml", Some(a.clone()))], vec!["+b 10.0.0.7", "!none"]),
            ("all gone", vec![("1.yaml", None), ("2.yaml", None), ("3.yaml", None)], vec!["-a", "-b", "-c"]),
        ] {
            let files: Vec<_> = files.iter().map(|(name, text)| (*name, text.as_deref())).collect();
            assert_eq!(step(&mut set, &files), expected, "{what}");
        }
    }

    #[test]
    fn of_two_files_the_first_in_order_wins() {
        let mut set = ManifestSet::new();
        let (one, two) = (service("a", "10.0.0.1"), service("a", "10.0.0.2"));
        assert_eq!(step(&mut set, &[("2.yaml", Some(&two))]), ["+a 10.0.0.2"]);
        assert_eq!(step(&mut set, &[("1.yaml", Some(&one))]), ["+a 10.0.0.1", "!2.yaml, document 1"]);
        let reason = &set.rejected()[0].reason;
        assert!(reason.contains("1.yaml, document 1"), "{reason}");
        // The first file is invalid, but still has its version in force.
        let bad = one.replace("port: 80", "port: x");
        let lines = step(&mut set, &[("1.yaml", Some(&bad))]);
        assert_eq!(lines, ["~a", "!1.yaml, document 1", "!2.yaml, document 1", "!1.yaml, document 1"]);
        assert_eq!(step(&mut set, &[("1.yaml", None)]), ["+a 10.0.0.2", "!none"]);
        // A new invalid file takes nothing from the valid one.
        assert_eq!(step(&mut set, &[("0.yaml", Some(&bad))]), ["!0.yaml, document 1"]);
        assert_eq!(
            step(&mut set, &[("0.yaml", None), ("2.yaml", Some(&format!("{two}{one}")))]),
            ["!2.yaml, document 2"]
        );
        assert_eq!(set.len(), 1);
    }

    #[test]
    fn a_fallback_holds_until_something_is_accepted() {
        let mut set = ManifestSet::new();
        let (bad, good) = (policy("{}"), policy("{podSelector: {}}"));
        assert_eq!(
            step(&mut set, &[("p.yaml", Some(&bad))]),
            ["~p", "!p.yaml, document 1", "!p.yaml, document 1"]
        );
        assert!(set.rejected()[1].reason.contains("isolated"));
        assert_eq!(step(&mut set, &[("p.yaml", Some(&good))]), ["+p 1", "!none"]);
        let lines = step(&mut set, &[("p.yaml", Some(&bad))]);
        assert_eq!(lines, ["~p", "!p.yaml, document 1", "!p.yaml, document 1"]);
        assert!(set.rejected()[1].reason.contains("last accepted version stays"));
        // The same accepted version, whole again.
        assert_eq!(step(&mut set, &[("q.yaml", Some(&good)), ("p.yaml", None)]), ["+p 1", "!none"]);
        assert_eq!(step(&mut set, &[("q.yaml", None)]), ["-p"]);
    }
}
