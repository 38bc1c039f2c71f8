//! Which pod has which address.

use std::collections::{BTreeMap, BTreeSet};

use lbr_common::addr::Addr;
use lbr_common::text::{PodName, Text};

use crate::model::{ObjectName, Pod, Rejected};

type Pods = BTreeMap<ObjectName, Pod>;

/// The pods of the cluster by address, without pods in a node's network: their addresses are the node's, and their
/// packets are the node's (C6).
#[derive(Debug, Default)]
pub(super) struct Owners {
    /// Which pods claim an address: one, but for mistakes and pods that go.
    claims: BTreeSet<(Addr, ObjectName)>,
    /// Pods that lose an address to another one.
    rejected: BTreeMap<Addr, Vec<Rejected>>,
}

impl Owners {
    /// Takes a pod as it is now in place of what it was. Returns the addresses of either.
    pub(super) fn take(
        &mut self,
        name: &ObjectName,
        former: Option<&Pod>,
        now: Option<&Pod>,
    ) -> BTreeSet<Addr> {
        let before = claimed(former);
        let after = claimed(now);
        for &addr in before.difference(&after) {
            self.claims.remove(&(addr, name.clone()));
        }
        for &addr in after.difference(&before) {
            self.claims.insert((addr, name.clone()));
        }
        before.union(&after).copied().collect()
    }

    /// Judges the claims to an address anew.
    pub(super) fn judge(&mut self, addr: Addr, node: &str, pods: &Pods) {
        let owner = self.owner(addr, node, pods);
        let lose = |pod: &&Pod| {
            owner.is_some_and(|owner| owner.name != pod.name && owner.terminating == pod.terminating)
        };
        let losers = self.claimants(addr, pods).filter(lose);
        let rejected: Vec<_> = losers
            .zip(owner.into_iter().cycle())
            .map(|(pod, owner)| shared_address(pod, owner, addr))
            .collect();
        match rejected.is_empty() {
            true => drop(self.rejected.remove(&addr)),
            false => drop(self.rejected.insert(addr, rejected)),
        }
    }

    /// A terminating pod loses an address to its successor (C20). If two live pods claim one address, something else is
    /// wrong: a pod of this node gets it, so that its policies stay in force; otherwise the first pod by name.
    pub(super) fn owner<'a>(&self, addr: Addr, node: &str, pods: &'a Pods) -> Option<&'a Pod> {
        self.claimants(addr, pods).min_by_key(|pod| (pod.terminating, pod.node != node))
    }

    /// All pods that claim an address, in order of their names.
    pub(super) fn claimants<'a>(&self, addr: Addr, pods: &'a Pods) -> impl Iterator<Item = &'a Pod> {
        let all = self.claims.range((addr, ObjectName::default())..).take_while(move |(at, _)| *at == addr);
        all.filter_map(|(_, name)| pods.get(name))
    }

    /// The addresses of this pod, each once.
    pub(super) fn addresses(&self, pod: &Pod, node: &str, pods: &Pods) -> Vec<Addr> {
        let mut addresses = Vec::new();
        for &ip in pod.ips.iter().filter(|_| !pod.host_network) {
            let addr = ip.into();
            if self.owner(addr, node, pods).is_some_and(|owner| owner.name == pod.name)
                && !addresses.contains(&addr)
            {
                addresses.push(addr);
            }
        }
        addresses
    }

    /// Whether a pod has this address.
    pub(super) fn has(&self, addr: Addr) -> bool {
        let first = self.claims.range((addr, ObjectName::default())..).next();
        first.is_some_and(|(at, _)| *at == addr)
    }

    /// What is not in force of pods.
    pub(super) fn rejected(&self) -> impl Iterator<Item = &Rejected> {
        self.rejected.values().flatten()
    }
}

fn claimed(pod: Option<&Pod>) -> BTreeSet<Addr> {
    let ips = pod.filter(|pod| !pod.host_network).map(|pod| pod.ips.as_slice()).unwrap_or_default();
    ips.iter().map(|ip| Addr::from(*ip)).collect()
}

/// For people.
pub(super) fn name(pod: &Pod) -> PodName {
    PodName { namespace: Text::new(&pod.name.namespace), name: Text::new(&pod.name.name) }
}

fn shared_address(pod: &Pod, owner: &Pod, addr: Addr) -> Rejected {
    let reason = format!(
        "{addr} is also an address of Pod {}, which is on this node or comes first by name: policies use {addr} for \
         that pod only",
        owner.name
    );
    Rejected::limited(format!("Pod {}", pod.name), "status.podIPs", reason)
}
