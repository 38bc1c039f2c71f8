//! Which terms hold for a pod: the selectors of all terms at once.

use std::collections::{BTreeMap, BTreeSet};

use super::selectors::{SelectorIndex, View, key, matches, selects, view};
use super::terms::{Namespaces, Term, TermId, Terms};
use super::versions::NamedPorts;
use crate::cluster::ClusterState;
use crate::ids::PolicyIds;
use crate::model::{ObjectName, Pod, Selector, in_namespace};

/// The label that each namespace has, even if only its pods are known.
const NAMESPACE_NAME: &str = "kubernetes.io/metadata.name";

/// The selectors of all terms. Each namespace is matched once, pods by their labels.
pub(super) struct Questions<'a> {
    state: &'a ClusterState,
    named: BTreeMap<&'a str, usize>,
    matching: SelectorIndex<'a, usize>,
    /// For each namespace selector: the pod selectors that come with it, and their terms.
    groups: Vec<SelectorIndex<'a, TermId>>,
    /// Pod labels that any selector mentions. Other labels make no difference.
    keys: BTreeSet<&'a str>,
    namespaces: BTreeMap<&'a str, Here<'a>>,
}

/// A namespace of pods.
struct Here<'a> {
    groups: Vec<usize>,
    /// Results for earlier pods: replicas differ in no label that counts.
    known: BTreeMap<View<'a>, Vec<TermId>>,
}

impl<'a> Questions<'a> {
    pub(super) fn new(terms: &'a Terms, state: &'a ClusterState) -> Self {
        let mut questions = Self {
            state,
            named: BTreeMap::new(),
            matching: SelectorIndex::default(),
            groups: Vec::new(),
            keys: BTreeSet::new(),
            namespaces: BTreeMap::new(),
        };
        let mut matching: BTreeMap<&Selector, usize> = BTreeMap::new();
        for (number, term) in terms.iter() {
            let Term::Pods(namespaces, pods) = term else { continue };
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

    /// The terms that hold for a pod because of its labels.
    pub(super) fn matched(&mut self, pod: &'a Pod) -> Vec<TermId> {
        let namespace = pod.name.namespace.as_str();
        if !self.namespaces.contains_key(namespace) {
            let groups = self.groups(namespace);
            self.namespaces.insert(namespace, Here { groups, known: BTreeMap::new() });
        }
        let Some(Here { groups, known }) = self.namespaces.get_mut(namespace) else { return Vec::new() };
        let labels = pod.labels.iter().map(|(key, value)| (key.as_str(), value.as_str()));
        let labels: View<'a> = labels.filter(|(key, _)| self.keys.contains(key)).collect();
        let found = known.entry(labels).or_insert_with_key(|labels| {
            let mut found = Vec::new();
            for index in groups.iter().filter_map(|&group| self.groups.get(group)) {
                index.find(labels, |term| found.push(term));
            }
            found
        });
        found.clone()
    }

    /// The groups whose selector matches a namespace.
    fn groups(&self, name: &str) -> Vec<usize> {
        let mut groups: Vec<usize> = self.named.get(name).copied().into_iter().collect();
        self.matching.find(&labels_of(name, self.state), |group| groups.push(group));
        groups
    }
}

fn labels_of<'a>(namespace: &'a str, state: &'a ClusterState) -> View<'a> {
    let known = state.namespaces.get(&ObjectName::cluster(namespace));
    known.map_or_else(|| View::from([(NAMESPACE_NAME, namespace)]), |known| view(&known.labels))
}

/// The terms of a pod's named ports.
pub(super) fn ports(pod: &Pod, named: &NamedPorts, terms: &mut Terms, ids: &mut PolicyIds) -> Vec<TermId> {
    let asked = pod.named_ports.iter().filter(|(port, _)| named.contains_key(port));
    asked
        .map(|((name, protocol), &number)| terms.number(Term::Port(name.clone(), *protocol, number), ids))
        .collect()
}

/// The pods for which any of these terms holds because of their labels.
pub(super) fn pods_of<'a>(terms: &[&Term], state: &'a ClusterState) -> Vec<&'a Pod> {
    let of_pods: Vec<(&Namespaces, &Selector)> = terms
        .iter()
        .filter_map(
            |term| if let Term::Pods(namespaces, pods) = term { Some((namespaces, pods)) } else { None },
        )
        .collect();
    let mut found = Vec::new();
    if of_pods.is_empty() {
        return found;
    }
    for namespace in namespaces(state) {
        let labels = labels_of(namespace, state);
        let here = of_pods.iter().filter(|(namespaces, _)| match namespaces {
            Namespaces::Named(name) => name == namespace,
            Namespaces::Matching(selector) => matches(selector, |key| labels.get(key).copied()),
        });
        let here: Vec<&Selector> = here.map(|(_, pods)| *pods).collect();
        if !here.is_empty() {
            let is_due = |pod: &&Pod| here.iter().any(|selector| selects(selector, &pod.labels));
            found.extend(in_namespace(&state.pods, namespace).map(|(_, pod)| pod).filter(is_due));
        }
    }
    found
}

/// The namespaces that have a pod.
fn namespaces(state: &ClusterState) -> impl Iterator<Item = &str> {
    let first = state.pods.first_key_value().map(|(name, _)| name.namespace.as_str());
    std::iter::successors(first, |last| {
        // The least name behind all of this namespace.
        let next = state.pods.range(ObjectName::new(format!("{last}\0"), "")..).next();
        next.map(|(name, _)| name.namespace.as_str())
    })
}
