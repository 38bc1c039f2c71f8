//! From the policies of a pod to its set.

use std::collections::BTreeMap;

use lbr_common::id::{ClassId, PolicyId, PolicySetId};
use lbr_common::policy::{Allow, direction};
use lbr_common::text::{Member, MemberKey};

use super::active::{Active, ActivePolicy, Rule};
use super::canon::Canon;
use super::classes::{Classes, NamedPorts};
use super::ports::Allowed;
use super::terms::Term;
use super::verdicts::SetRules;
use crate::desired::Desired;
use crate::ids::PolicyIds;
use crate::model::{Pod, PolicyPort, PortSet, Protocol};

/// Makes the sets of this node, each once.
pub(super) struct Sets<'a> {
    active: &'a Active<'a>,
    classes: &'a Classes,
    /// Numbers of the classes in the maps.
    class_ids: &'a [ClassId],
    /// The content of each policy.
    bodies: Vec<Body<'a>>,
    /// Sets by their policies and the numbers of the policies' named ports on the pod.
    known: BTreeMap<(Vec<usize>, Vec<u32>), PolicySetId>,
}

/// The part of a policy that does not depend on the pod that it selects.
struct Body<'a> {
    /// Number in the maps.
    id: PolicyId,
    /// Identifies the content as long as the agent runs.
    part: u32,
    /// Identifies the content for the next agent.
    hash: u64,
    /// Named ports of ingress rules.
    named: NamedPorts<'a>,
    /// For each egress rule: numbers of its named ports, and the terms of the peers that have them.
    numbers: Vec<Numbers<'a>>,
}

/// Named ports of peers: number, its term, the classes that have the term.
type OnPeers<'a> = BTreeMap<(&'a str, Protocol), Vec<(u16, usize, &'a Vec<usize>)>>;

type Numbers<'a> = BTreeMap<(&'a str, Protocol), BTreeMap<u16, usize>>;

impl<'a> Sets<'a> {
    /// `ids` are the numbers of the policies in the maps.
    pub(super) fn new(
        active: &'a Active<'a>,
        ids: &[PolicyId],
        classes: &'a Classes,
        class_ids: &'a [ClassId],
        pool: &mut PolicyIds,
    ) -> Self {
        let mut on_peers = OnPeers::new();
        for (&term, classes) in &classes.of_term {
            if let Some(&(Term::Port(name, protocol, number), _)) = active.terms.get(term) {
                on_peers.entry((name, protocol)).or_default().push((number, term, classes));
            }
        }
        let body = |(policy, &id): (&'a ActivePolicy<'a>, &PolicyId)| {
            let of_rule = |rule| numbers(&on_peers, classes, rule);
            let numbers: Vec<_> = policy.egress.iter().map(of_rule).collect();
            let named = policy.ingress.iter().flat_map(|rule| rule.ports).filter_map(named_port).collect();
            let canon = canon(active, policy, &numbers);
            let hash = canon.hash();
            Body { id, part: pool.part(canon.into_bytes()), hash, named, numbers }
        };
        let bodies = active.policies.iter().zip(ids).map(body).collect();
        Self { active, classes, class_ids, bodies, known: BTreeMap::new() }
    }

    /// The set of these policies on a pod; none if there are none.
    pub(super) fn of(
        &mut self,
        policies: Vec<usize>,
        pod: &Pod,
        pool: &mut PolicyIds,
        desired: &mut Desired,
    ) -> PolicySetId {
        if policies.is_empty() {
            return PolicySetId::NONE;
        }
        let bodies = || policies.iter().filter_map(|&number| self.bodies.get(number));
        let named = bodies().flat_map(|body| &body.named);
        // 0 stands for a name that the pod has no port for.
        let resolved = named.map(|&(name, protocol)| number_on(pod, name, protocol).unwrap_or(0).into());
        let resolved: Vec<u32> = resolved.collect();
        let key = (policies, resolved);
        if let Some(&set) = self.known.get(&key) {
            return set;
        }
        let (policies, resolved) = &key;
        let bodies: Vec<&Body<'_>> = policies.iter().filter_map(|&number| self.bodies.get(number)).collect();
        let mut content = vec![u32::try_from(bodies.len()).unwrap_or(u32::MAX)];
        let mut canon = Canon::default();
        canon.len(bodies.len());
        for body in &bodies {
            content.extend([body.id.id, body.part]);
            canon.number(body.id.id.into()).number(body.hash);
        }
        content.extend(resolved);
        for &number in resolved {
            canon.number(number.into());
        }
        let hash = canon.hash();
        let set = pool.set(content, hash);
        let mut members: Vec<PolicyId> = bodies.iter().map(|body| body.id).collect();
        // Two versions of a policy are one member.
        members.dedup();
        for (number, policy) in (0..).zip(members) {
            let member = Member { hash, policy, _pad: 0 };
            desired.set_members.insert(MemberKey { set, number }, member);
        }
        self.write(set, direction::INGRESS, policies, pod, desired);
        self.write(set, direction::EGRESS, policies, pod, desired);
        self.known.insert(key, set);
        set
    }

    /// Writes the rules of a set in one direction, in order: the first rule that allows a packet is the one reported.
    fn write(&self, set: PolicySetId, way: u32, policies: &[usize], pod: &Pod, desired: &mut Desired) {
        let mut rules = SetRules::default();
        for &number in policies {
            let (Some(policy), Some(body)) = (self.active.policies.get(number), self.bodies.get(number))
            else {
                continue;
            };
            let ingress = way == direction::INGRESS;
            let of_policy = if ingress { &policy.ingress } else { &policy.egress };
            for (index, rule) in of_policy.iter().enumerate() {
                let allow = Allow { policy: body.id, rule: u32::try_from(index).unwrap_or(u32::MAX) };
                let peers = rule.peers.as_ref().map(|terms| self.classes.with_any(terms));
                let number = rules.add(allow, peers, rule.ports.is_empty());
                for port in rule.ports {
                    let numbers = body.numbers.get(index).filter(|_| !ingress);
                    resolve(number, port, pod, numbers, &mut rules.allowed);
                }
            }
        }
        rules.write(set, way, self.classes, self.class_ids, desired);
    }
}

fn named_port(port: &PolicyPort) -> Option<(&str, Protocol)> {
    match &port.ports {
        PortSet::Named(name) => Some((name, port.protocol)),
        PortSet::All | PortSet::Range(..) => None,
    }
}

fn number_on(pod: &Pod, name: &str, protocol: Protocol) -> Option<u16> {
    let same = |((n, p), _): &(&(String, Protocol), &u16)| n == name && *p == protocol;
    pod.named_ports.iter().find(same).map(|(_, &number)| number)
}

/// The numbers of an egress rule's named ports on the peers that the rule selects. A number that only other pods have
/// must not change the set.
fn numbers<'a>(on_peers: &OnPeers<'a>, classes: &Classes, rule: &'a Rule<'a>) -> Numbers<'a> {
    let wanted: NamedPorts<'_> = rule.ports.iter().filter_map(named_port).collect();
    let mut numbers = Numbers::new();
    if wanted.is_empty() {
        return numbers;
    }
    let peers = rule.peers.as_ref().map(|terms| classes.with_any(terms));
    let spoken_of = |class: &usize| peers.as_ref().is_none_or(|p| p.binary_search(class).is_ok());
    for port in wanted {
        for &(number, term, with_term) in on_peers.get(&port).into_iter().flatten() {
            if with_term.iter().any(spoken_of) {
                numbers.entry(port).or_default().insert(number, term);
            }
        }
    }
    numbers
}

/// Everything that the tables of a set take from a policy.
fn canon(active: &Active<'_>, policy: &ActivePolicy<'_>, numbers: &[Numbers<'_>]) -> Canon {
    let mut canon = Canon::default();
    for rules in [&policy.ingress, &policy.egress] {
        canon.len(rules.len());
        for rule in rules {
            let peers = rule.peers.as_deref();
            canon.number(peers.is_some().into()).len(peers.map_or(0, <[usize]>::len));
            let mut terms: Vec<&[u8]> = peers
                .into_iter()
                .flatten()
                .filter_map(|&term| active.terms.get(term).map(|(_, canon)| canon.as_slice()))
                .collect();
            terms.sort_unstable();
            for term in terms {
                canon.bytes(term);
            }
            canon.len(rule.ports.len());
            for port in rule.ports {
                canon.port(port);
            }
        }
    }
    for of_rule in numbers {
        canon.len(of_rule.len());
        for (&(name, protocol), numbers) in of_rule {
            canon.text(name).number(protocol.number().into()).len(numbers.len());
            for &number in numbers.keys() {
                canon.number(number.into());
            }
        }
    }
    canon
}

/// The ports that a port entry of a rule allows. `numbers`: of its named ports on peers, for egress.
fn resolve(
    rule: usize,
    port: &PolicyPort,
    pod: &Pod,
    numbers: Option<&Numbers<'_>>,
    allowed: &mut Vec<Allowed>,
) {
    let proto = port.protocol.number();
    let mut allow = |first, last, only| allowed.push(Allowed { rule, proto, first, last, only });
    match (&port.ports, numbers) {
        (PortSet::All, _) => allow(0, u16::MAX, None),
        (&PortSet::Range(first, last), _) if first <= last => allow(first, last, None),
        // The model rejects such a range; it would allow nothing.
        (PortSet::Range(..), _) => {}
        (PortSet::Named(name), None) => {
            if let Some(number) = number_on(pod, name, port.protocol) {
                allow(number, number, None);
            }
        }
        (PortSet::Named(name), Some(numbers)) => {
            for (&number, &term) in numbers.get(&(name.as_str(), port.protocol)).into_iter().flatten() {
                allow(number, number, Some(term));
            }
        }
    }
}
