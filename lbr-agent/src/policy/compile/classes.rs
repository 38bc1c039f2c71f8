//! From terms to classes: groups of addresses that the policies in use cannot distinguish.

use std::collections::{BTreeMap, BTreeSet};

use lbr_common::addr::Addr;

use super::blocks::Regions;
use super::pods::Owners;
use super::selectors::{SelectorIndex, View, key, view};
use super::terms::{Namespaces, Term, Terms};
use crate::cluster::ClusterState;
use crate::model::{ObjectName, Pod, Protocol, Selector};

/// The label that each namespace has, even if only its pods are known.
const NAMESPACE_NAME: &str = "kubernetes.io/metadata.name";

/// Named ports in egress rules.
pub(super) type NamedPorts<'a> = BTreeSet<(&'a str, Protocol)>;

/// Classes by number within this compile. Each has at least one term.
#[derive(Debug, Default)]
pub(super) struct Classes {
    numbers: BTreeMap<Vec<usize>, usize>,
    /// Terms of each class, ascending.
    pub(super) terms: Vec<Vec<usize>>,
    /// Classes of each term, ascending.
    pub(super) of_term: BTreeMap<usize, Vec<usize>>,
    /// Pods' addresses.
    pub(super) addresses: BTreeMap<Addr, usize>,
}

impl Classes {
    /// The class of addresses for which these terms hold: ascending and not empty.
    fn add(&mut self, terms: Vec<usize>) -> usize {
        if let Some(&number) = self.numbers.get(&terms) {
            return number;
        }
        let number = self.terms.len();
        for &term in &terms {
            self.of_term.entry(term).or_default().push(number);
        }
        self.terms.push(terms.clone());
        self.numbers.insert(terms, number);
        number
    }

    /// The class of addresses for which these terms hold, if an address has it.
    pub(super) fn of(&self, terms: &[usize]) -> Option<usize> {
        self.numbers.get(terms).copied()
    }

    /// The classes that have any of these terms, ascending.
    pub(super) fn with_any(&self, terms: &[usize]) -> Vec<usize> {
        match terms {
            [] => Vec::new(),
            [one] => self.of_term.get(one).cloned().unwrap_or_default(),
            _ => {
                let all: BTreeSet<usize> =
                    terms.iter().filter_map(|term| self.of_term.get(term)).flatten().copied().collect();
                all.into_iter().collect()
            }
        }
    }

    /// Whether a class has a term.
    pub(super) fn has(&self, number: usize, term: usize) -> bool {
        self.terms.get(number).is_some_and(|terms| terms.binary_search(&term).is_ok())
    }
}

/// Finds the classes of all pods and blocks. Adds a term for each number that a port in `named` has.
pub(super) fn find<'a>(
    state: &'a ClusterState,
    owners: &Owners<'_>,
    regions: &Regions,
    named: &NamedPorts<'_>,
    terms: &mut Terms<'a>,
) -> Classes {
    let mut classes = Classes::default();
    for (_, holding) in regions.iter().filter(|(_, holding)| !holding.is_empty()) {
        classes.add(holding.to_vec());
    }
    let questions = Questions::new(terms);
    if questions.is_empty() && named.is_empty() {
        return classes;
    }
    let mut here = Here { name: "", groups: Vec::new(), known: BTreeMap::new() };
    let mut first = true;
    for pod in state.pods.values().filter(|pod| !pod.host_network && !pod.ips.is_empty()) {
        let namespace = pod.name.namespace.as_str();
        if first || here.name != namespace {
            here =
                Here { name: namespace, groups: questions.groups(state, namespace), known: BTreeMap::new() };
            first = false;
        }
        let matched = questions.matched(pod, &mut here, named, terms);
        if matched.is_empty() {
            continue;
        }
        for addr in owners.addresses(pod) {
            let mut all = matched.clone();
            all.extend(regions.of(addr));
            all.sort_unstable();
            let class = classes.add(all);
            classes.addresses.insert(addr, class);
        }
    }
    classes
}

/// The selectors of all terms. Each namespace is matched once, pods by their labels.
struct Questions<'a> {
    named: BTreeMap<&'a str, usize>,
    matching: SelectorIndex<'a, usize>,
    /// For each namespace selector: the pod selectors that come with it, and their terms.
    groups: Vec<SelectorIndex<'a, usize>>,
    /// Pod labels that any selector mentions. Other labels make no difference.
    keys: BTreeSet<&'a str>,
}

/// The namespace of the pods being matched.
struct Here<'a> {
    name: &'a str,
    groups: Vec<usize>,
    /// Results for earlier pods: replicas differ in no label that counts.
    known: BTreeMap<View<'a>, Vec<usize>>,
}

impl<'a> Questions<'a> {
    fn new(terms: &Terms<'a>) -> Self {
        let mut questions = Self {
            named: BTreeMap::new(),
            matching: SelectorIndex::default(),
            groups: Vec::new(),
            keys: BTreeSet::new(),
        };
        let mut matching: BTreeMap<&Selector, usize> = BTreeMap::new();
        for (number, (term, _)) in terms.iter().enumerate() {
            let Term::Pods(namespaces, pods) = *term else { continue };
            let next = questions.groups.len();
            let group = match namespaces {
                Namespaces::Named(name) => *questions.named.entry(name).or_insert(next),
                Namespaces::Matching(selector) => *matching.entry(selector).or_insert_with(|| {
                    questions.matching.add(selector, next);
                    next
                }),
            };
            if group == next {
                questions.groups.push(SelectorIndex::default());
            }
            if let Some(index) = questions.groups.get_mut(group) {
                index.add(pods, number);
            }
            questions.keys.extend(pods.requirements.iter().map(key));
        }
        questions
    }

    fn is_empty(&self) -> bool {
        self.groups.is_empty()
    }

    /// The groups whose selector matches a namespace.
    fn groups(&self, state: &ClusterState, name: &str) -> Vec<usize> {
        let mut groups: Vec<usize> = self.named.get(name).copied().into_iter().collect();
        let known = state.namespaces.get(&ObjectName::cluster(name));
        let labels = known.map_or_else(|| View::from([(NAMESPACE_NAME, name)]), |n| view(&n.labels));
        self.matching.find(&labels, |group| groups.push(group));
        groups
    }

    /// The terms that hold for a pod because of its labels and ports.
    fn matched<'p>(
        &self,
        pod: &'p Pod,
        here: &mut Here<'p>,
        named: &NamedPorts<'_>,
        terms: &mut Terms<'p>,
    ) -> Vec<usize> {
        let labels: View<'p> = pod
            .labels
            .iter()
            .map(|(key, value)| (key.as_str(), value.as_str()))
            .filter(|(key, _)| self.keys.contains(key))
            .collect();
        let Here { groups, known, .. } = here;
        let found = known.entry(labels).or_insert_with_key(|labels| {
            let mut found = Vec::new();
            for index in groups.iter().filter_map(|&group| self.groups.get(group)) {
                index.find(labels, |term| found.push(term));
            }
            found
        });
        let mut found = found.clone();
        if !named.is_empty() {
            for ((name, protocol), &number) in &pod.named_ports {
                if named.contains(&(name.as_str(), *protocol)) {
                    found.push(terms.add(Term::Port(name, *protocol, number)));
                }
            }
        }
        found
    }
}
