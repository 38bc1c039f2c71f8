//! The questions that the policies in use ask about a peer's address, each once.

use std::collections::{BTreeMap, BTreeSet, btree_map};

use ipnet::IpNet;

use super::canon::{Canon, hash};
use super::names;
use crate::ids::PolicyIds;
use crate::model::{Peer, Protocol, Selector};

/// The number of a term, as long as it is in use.
pub(super) type TermId = u32;

/// A question with a yes or no for each address.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Term {
    /// An address of a pod that matches, in a namespace that matches.
    Pods(Namespaces, Selector),
    /// An address in the block and in no exception, whether or not a pod has it (B9).
    Block(IpNet, Vec<IpNet>),
    /// An address of a pod whose port of this name and protocol is this number.
    Port(String, Protocol, u16),
}

/// The namespaces of a [`Term::Pods`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Namespaces {
    /// One by name: the policy's own.
    Named(String),
    /// All that match.
    Matching(Selector),
}

impl Term {
    /// The term of a peer of a policy in this namespace. The order of requirements and of exceptions has no meaning.
    pub(super) fn of(peer: &Peer, namespace: &str) -> Self {
        match peer {
            Peer::Pods(pods) => Self::Pods(Namespaces::Named(namespace.to_owned()), sorted(pods)),
            Peer::Namespaces(namespaces) => {
                Self::Pods(Namespaces::Matching(sorted(namespaces)), Selector::default())
            }
            Peer::Both(namespaces, pods) => {
                Self::Pods(Namespaces::Matching(sorted(namespaces)), sorted(pods))
            }
            Peer::Block { cidr, except } => {
                let except: BTreeSet<&IpNet> = except.iter().collect();
                Self::Block(*cidr, except.into_iter().copied().collect())
            }
        }
    }

    fn canon(&self) -> Vec<u8> {
        let mut canon = Canon::default();
        match self {
            Self::Pods(Namespaces::Named(name), pods) => canon.number(0).text(name).selector(pods),
            Self::Pods(Namespaces::Matching(namespaces), pods) => {
                canon.number(1).selector(namespaces).selector(pods)
            }
            Self::Block(cidr, except) => {
                canon.number(2).text(&cidr.to_string()).len(except.len());
                for net in except {
                    canon.text(&net.to_string());
                }
                &mut canon
            }
            Self::Port(name, protocol, number) => {
                canon.number(3).text(name).number(protocol.number().into()).number((*number).into())
            }
        };
        canon.into_bytes()
    }
}

fn sorted(selector: &Selector) -> Selector {
    let requirements: BTreeSet<_> = selector.requirements.iter().cloned().collect();
    Selector { requirements: requirements.into_iter().collect() }
}

/// A term in use.
#[derive(Debug)]
pub(super) struct Entry {
    pub(super) term: Term,
    pub(super) canon: Vec<u8>,
    /// Of the canonical form.
    pub(super) hash: u64,
    /// For people.
    pub(super) text: String,
    /// How many rules ask it; of a port: how many classes have it.
    uses: usize,
}

/// All terms in use, and which are new or gone since the last [`Terms::take_news`].
#[derive(Debug, Default)]
pub(super) struct Terms {
    all: BTreeMap<TermId, Entry>,
    unused: BTreeSet<TermId>,
    news: News,
}

/// Terms that came into use or went out of it.
#[derive(Debug, Default)]
pub(super) struct News {
    /// New ones. All are known.
    pub(super) added: BTreeSet<TermId>,
    /// Those that no rule asks any more.
    pub(super) gone: BTreeMap<TermId, Term>,
}

impl Terms {
    /// One more rule asks this.
    pub(super) fn enter(&mut self, term: Term, ids: &mut PolicyIds) -> TermId {
        let id = self.number(term, ids);
        self.change_uses(id, |uses| uses + 1);
        id
    }

    /// The number of a term, which is forgotten unless something holds it.
    pub(super) fn number(&mut self, term: Term, ids: &mut PolicyIds) -> TermId {
        let canon = term.canon();
        let id = ids.term(&canon);
        if let btree_map::Entry::Vacant(entry) = self.all.entry(id) {
            let (hash, text) = (hash(&canon), names::term(&term));
            entry.insert(Entry { term, canon, hash, text, uses: 0 });
            self.unused.insert(id);
            self.news.added.insert(id);
        }
        id
    }

    /// One rule asks it no more.
    pub(super) fn leave(&mut self, id: TermId) {
        self.change_uses(id, |uses| uses.saturating_sub(1));
    }

    /// One more class has this term. Terms of ports are in use as long as a class has them, all others as long as a rule
    /// asks them.
    pub(super) fn hold_port(&mut self, id: TermId) {
        if self.is_port(id) {
            self.change_uses(id, |uses| uses + 1);
        }
    }

    /// One class with this term is gone.
    pub(super) fn leave_port(&mut self, id: TermId) {
        if self.is_port(id) {
            self.leave(id);
        }
    }

    /// Whether this is the number of a named port.
    pub(super) fn is_port(&self, id: TermId) -> bool {
        self.get(id).is_some_and(|entry| matches!(entry.term, Term::Port(..)))
    }

    fn change_uses(&mut self, id: TermId, change: impl FnOnce(usize) -> usize) {
        if let Some(entry) = self.all.get_mut(&id) {
            entry.uses = change(entry.uses);
            match entry.uses {
                0 => self.unused.insert(id),
                _ => self.unused.remove(&id),
            };
        }
    }

    /// Forgets terms without a use.
    pub(super) fn sweep(&mut self, ids: &mut PolicyIds) {
        for id in std::mem::take(&mut self.unused) {
            let Some(entry) = self.all.remove(&id) else { continue };
            ids.leave_term(entry.canon);
            if !self.news.added.remove(&id) {
                self.news.gone.insert(id, entry.term);
            }
        }
    }

    pub(super) fn take_news(&mut self) -> News {
        std::mem::take(&mut self.news)
    }

    /// Every term, in order of the numbers.
    pub(super) fn iter(&self) -> impl Iterator<Item = (TermId, &Term)> {
        self.all.iter().map(|(id, entry)| (*id, &entry.term))
    }

    /// One of them.
    pub(super) fn get(&self, id: TermId) -> Option<&Entry> {
        self.all.get(&id)
    }
}
