//! Which addresses a change concerns, and the classes that they get.

use std::collections::BTreeSet;
use std::net::IpAddr;

use lbr_common::addr::Addr;

use super::questions::{self, Questions};
use super::terms::{News, Term, TermId};
use super::versions::NamedPort;
use super::{Compiler, Work, owners};
use crate::cluster::Changes;
use crate::model::{ObjectName, Pod, in_namespace};

impl Compiler {
    /// Adds the addresses for which other terms may hold than before.
    pub(super) fn concerned(
        &self,
        news: &News,
        named: &BTreeSet<NamedPort>,
        changes: &Changes,
        work: &Work<'_>,
        addresses: &mut BTreeSet<Addr>,
    ) {
        let (state, classes) = (work.state, work.maps.ip_class.desired());
        let is_among = |name: &ObjectName| changes.pods.contains_key(name);
        if changes.pods.len() >= state.pods.len() && state.pods.keys().all(is_among) {
            return;
        }
        let of = |pod: &Pod| pod.ips.iter().map(|ip| Addr::from(*ip)).collect::<Vec<_>>();
        for namespace in &changes.namespaces {
            addresses.extend(in_namespace(&state.pods, &namespace.name).flat_map(|(_, pod)| of(pod)));
        }
        let added = news.added.iter().filter_map(|id| Some(&self.terms.get(*id)?.term));
        let added: Vec<&Term> = added.collect();
        addresses.extend(questions::pods_of(&added, state).into_iter().flat_map(of));
        let gone: Vec<TermId> = news.gone.keys().copied().collect();
        let gone = self.classes.with_any(&gone);
        if !gone.is_empty() {
            addresses.extend(classes.iter().filter(|(_, class)| gone.contains(class)).map(|(addr, _)| *addr));
        }
        let blocks: Vec<_> = added
            .iter()
            .filter_map(|term| if let Term::Block(cidr, _) = term { Some(cidr) } else { None })
            .collect();
        if !blocks.is_empty() {
            let in_block = |addr: &&Addr| blocks.iter().any(|cidr| cidr.contains(&IpAddr::from(**addr)));
            addresses.extend(classes.keys().filter(in_block));
        }
        let now: BTreeSet<_> = self.versions.named.keys().cloned().collect();
        let named: BTreeSet<_> = now.symmetric_difference(named).collect();
        if !named.is_empty() {
            let has = |pod: &&Pod| pod.named_ports.keys().any(|port| named.contains(port));
            addresses.extend(state.pods.values().filter(has).flat_map(of));
        }
    }

    /// Gives these addresses the names of their pods, and their classes.
    pub(super) fn classify(&mut self, addresses: &BTreeSet<Addr>, work: &mut Work<'_>) {
        let Self { owners, versions, terms, regions, classes, .. } = self;
        let Work { state, node, ids, maps, .. } = work;
        let mut questions = Questions::new(terms, state);
        let mut matched = Vec::new();
        for &addr in addresses {
            let owner = owners.owner(addr, &node.name, &state.pods);
            maps.pod_names.set(addr, owner.map(owners::name));
            matched.push((addr, owner, owner.map(|pod| questions.matched(pod)).unwrap_or_default()));
        }
        for (addr, owner, mut holding) in matched {
            holding
                .extend(owner.into_iter().flat_map(|pod| questions::ports(pod, &versions.named, terms, ids)));
            if !holding.is_empty() {
                holding.extend(regions.of(addr));
            }
            classes.set(addr, holding, terms, ids, maps);
        }
    }
}
