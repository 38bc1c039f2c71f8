//! The questions that the policies in use ask about a peer's address, each once.

use std::collections::BTreeMap;

use ipnet::IpNet;

use super::canon::Canon;
use crate::model::{Peer, Protocol, Selector};

/// A question with a yes or no for each address.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Term<'a> {
    /// An address of a pod that matches, in a namespace that matches.
    Pods(Namespaces<'a>, &'a Selector),
    /// An address in the block and in no exception, whether or not a pod has it (B9).
    Block(IpNet, &'a [IpNet]),
    /// An address of a pod whose port of this name and protocol is this number.
    Port(&'a str, Protocol, u16),
}

/// The namespaces of a [`Term::Pods`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Namespaces<'a> {
    /// One by name: the policy's own.
    Named(&'a str),
    /// All that match.
    Matching(&'a Selector),
}

static EVERY_POD: Selector = Selector { requirements: Vec::new() };

impl<'a> Term<'a> {
    /// The term of a peer of a policy in this namespace.
    pub(super) fn of(peer: &'a Peer, namespace: &'a str) -> Self {
        match peer {
            Peer::Pods(pods) => Self::Pods(Namespaces::Named(namespace), pods),
            Peer::Namespaces(namespaces) => Self::Pods(Namespaces::Matching(namespaces), &EVERY_POD),
            Peer::Both(namespaces, pods) => Self::Pods(Namespaces::Matching(namespaces), pods),
            Peer::Block { cidr, except } => Self::Block(*cidr, except),
        }
    }

    fn canon(&self) -> Vec<u8> {
        let mut canon = Canon::default();
        match *self {
            Self::Pods(Namespaces::Named(name), pods) => canon.number(0).text(name).selector(pods),
            Self::Pods(Namespaces::Matching(namespaces), pods) => {
                canon.number(1).selector(namespaces).selector(pods)
            }
            Self::Block(cidr, except) => {
                let mut except = except.to_vec();
                except.sort();
                except.dedup();
                canon.number(2).text(&cidr.to_string()).len(except.len());
                for net in except {
                    canon.text(&net.to_string());
                }
                &mut canon
            }
            Self::Port(name, protocol, number) => {
                canon.number(3).text(name).number(protocol.number().into()).number(number.into())
            }
        };
        canon.into_bytes()
    }
}

/// All terms in use, by number. The numbers count within one compile only.
#[derive(Debug, Default)]
pub(super) struct Terms<'a> {
    numbers: BTreeMap<Vec<u8>, usize>,
    all: Vec<(Term<'a>, Vec<u8>)>,
}

impl<'a> Terms<'a> {
    /// The number of a term, a new one for a new term.
    pub(super) fn add(&mut self, term: Term<'a>) -> usize {
        let canon = term.canon();
        if let Some(&number) = self.numbers.get(&canon) {
            return number;
        }
        let number = self.all.len();
        self.all.push((term, canon.clone()));
        self.numbers.insert(canon, number);
        number
    }

    /// Every term and its canonical form, in order of their numbers.
    pub(super) fn iter(&self) -> impl Iterator<Item = &(Term<'a>, Vec<u8>)> {
        self.all.iter()
    }

    /// One of them.
    pub(super) fn get(&self, number: usize) -> Option<&(Term<'a>, Vec<u8>)> {
        self.all.get(number)
    }
}
