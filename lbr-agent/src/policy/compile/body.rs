//! What the tables of a set take from a policy: its rules, and the numbers that its named ports have on their peers.

use std::collections::{BTreeMap, BTreeSet};

use lbr_common::id::ClassId;

use super::canon::Canon;
use super::classes::Classes;
use super::terms::{Term, TermId, Terms};
use super::versions::{NamedPort, Version, named_in, named_port};
use crate::ids::PolicyIds;
use crate::model::PolicyRule;

/// The part of a policy that does not depend on the pod that it selects.
#[derive(Debug, Default)]
pub(super) struct Body {
    /// Identifies the content as long as the agent runs.
    pub(super) part: u32,
    /// Identifies the content for the next agent.
    pub(super) hash: u64,
    /// For each egress rule: numbers of its named ports, and the terms of the peers that have them.
    pub(super) numbers: Vec<Numbers>,
}

impl Body {
    /// The part of a version whose content was not found yet.
    pub(super) const NO_PART: u32 = 0;
}

pub(super) type Numbers = BTreeMap<NamedPort, BTreeMap<u16, TermId>>;

/// The contents in use.
#[derive(Debug, Default)]
pub(super) struct Bodies {
    /// How many versions have it, and its canonical form.
    uses: BTreeMap<u32, (usize, Vec<u8>)>,
    unused: BTreeSet<u32>,
}

impl Bodies {
    /// The content of a version, as it is now.
    pub(super) fn enter(
        &mut self,
        version: &Version,
        terms: &Terms,
        classes: &Classes,
        ids: &mut PolicyIds,
    ) -> Body {
        let on_peers = OnPeers::of(version, terms, classes);
        let numbers: Vec<_> =
            version.egress().map(|(rule, peers)| on_peers.numbers(rule, peers.as_deref(), classes)).collect();
        let canon = canon(version, terms, &numbers);
        let hash = canon.hash();
        let canon = canon.into_bytes();
        let part = ids.body(&canon);
        self.uses.entry(part).or_insert((0, canon)).0 += 1;
        self.unused.remove(&part);
        Body { part, hash, numbers }
    }

    /// A version has this content no more.
    pub(super) fn leave(&mut self, part: u32) {
        if let Some((uses, _)) = self.uses.get_mut(&part) {
            *uses = uses.saturating_sub(1);
            if *uses == 0 {
                self.unused.insert(part);
            }
        }
    }

    /// Forgets contents without a use.
    pub(super) fn sweep(&mut self, ids: &mut PolicyIds) {
        for part in std::mem::take(&mut self.unused) {
            if let Some((_, canon)) = self.uses.remove(&part) {
                ids.leave_body(canon);
            }
        }
    }
}

/// The numbers of named ports on all peers.
struct OnPeers<'a>(BTreeMap<NamedPort, Vec<OnPeer<'a>>>);

struct OnPeer<'a> {
    number: u16,
    term: TermId,
    /// Those that have the term.
    classes: &'a BTreeSet<ClassId>,
}

impl<'a> OnPeers<'a> {
    fn of(version: &Version, terms: &Terms, classes: &'a Classes) -> Self {
        let wanted: BTreeSet<_> = named_in(version.egress()).collect();
        let mut on_peers = BTreeMap::<_, Vec<_>>::new();
        if wanted.is_empty() {
            return Self(on_peers);
        }
        for (&id, with_term) in classes.by_term() {
            let Some(Term::Port(name, protocol, number)) = terms.get(id).map(|entry| &entry.term) else {
                continue;
            };
            let port = (name.clone(), *protocol);
            if wanted.contains(&port) {
                on_peers.entry(port).or_default().push(OnPeer {
                    number: *number,
                    term: id,
                    classes: with_term,
                });
            }
        }
        Self(on_peers)
    }

    /// The numbers of a rule's named ports on the peers that the rule selects. A number that only other pods have must not
    /// change the set.
    fn numbers(&self, rule: &PolicyRule, peers: Option<&[TermId]>, classes: &Classes) -> Numbers {
        let mut numbers = Numbers::new();
        let mut wanted = rule.ports.iter().filter_map(named_port).peekable();
        if wanted.peek().is_none() {
            return numbers;
        }
        let peers = peers.map(|terms| classes.with_any(terms));
        let spoken_of = |class: &ClassId| peers.as_ref().is_none_or(|peers| peers.contains(class));
        for (name, protocol) in wanted {
            let port = (name.to_owned(), protocol);
            for &OnPeer { number, term, classes } in self.0.get(&port).into_iter().flatten() {
                if classes.iter().any(spoken_of) {
                    numbers.entry(port.clone()).or_default().insert(number, term);
                }
            }
        }
        numbers
    }
}

fn canon(version: &Version, terms: &Terms, numbers: &[Numbers]) -> Canon {
    let mut canon = Canon::default();
    let mut rules = |len: usize, rules: &mut dyn Iterator<Item = (&PolicyRule, &Option<Vec<TermId>>)>| {
        canon.len(len);
        for (rule, peers) in rules {
            let peers = peers.as_deref();
            canon.number(peers.is_some().into()).len(peers.map_or(0, <[TermId]>::len));
            let entries = peers.into_iter().flatten().filter_map(|&term| terms.get(term));
            let mut peers: Vec<&[u8]> = entries.map(|entry| entry.canon.as_slice()).collect();
            peers.sort_unstable();
            for peer in peers {
                canon.bytes(peer);
            }
            canon.len(rule.ports.len());
            for port in &rule.ports {
                canon.port(port);
            }
        }
    };
    rules(version.ingress.len(), &mut version.ingress());
    rules(version.egress.len(), &mut version.egress());
    for of_rule in numbers {
        canon.len(of_rule.len());
        for ((name, protocol), numbers) in of_rule {
            canon.text(name).number(protocol.number().into()).len(numbers.len());
            for &number in numbers.keys() {
                canon.number(number.into());
            }
        }
    }
    canon
}
