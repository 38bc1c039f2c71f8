//! Which pod has which address.

use std::collections::{BTreeMap, BTreeSet};

use lbr_common::addr::Addr;
use lbr_common::text::{PodName, Text};

use crate::model::{Kind, ObjectName, Pod, Rejected};

type Pods = BTreeMap<ObjectName, Pod>;

/// The pods of the cluster by address, without pods in a node's network: their addresses are the node's, and their
/// packets are the node's (C6).
#[derive(Debug, Default)]
pub(super) struct Owners {
    /// Which pods claim an address: one, but for mistakes and pods that go.
    claims: BTreeSet<(Addr, ObjectName)>,
    /// The name before all others.
    least: ObjectName,
    /// Addresses that several pods claim, and what is said of those that lose it.
    shared: BTreeMap<Addr, Vec<Rejected>>,
}

impl Owners {
    /// Takes a pod as it is now in place of what it was. Adds the addresses of either.
    pub(super) fn take(
        &mut self,
        name: &ObjectName,
        former: Option<&Pod>,
        now: Option<&Pod>,
        addresses: &mut BTreeSet<Addr>,
    ) {
        for addr in claimed(former) {
            self.claims.remove(&(addr, name.clone()));
            addresses.insert(addr);
        }
        for addr in claimed(now) {
            self.claims.insert((addr, name.clone()));
            addresses.insert(addr);
        }
    }

    /// Judges the claims to an address anew. Returns the pods that claim it, if there are or were several.
    pub(super) fn judge<'a>(&mut self, addr: Addr, node: &str, pods: &'a Pods) -> Vec<&'a Pod> {
        let was_shared = self.shared.remove(&addr).is_some();
        let is_shared = self.names(addr).nth(1).is_some();
        if !was_shared && !is_shared {
            return Vec::new();
        }
        let (owner, claimants) =
            (self.owner(addr, node, pods), self.claimants(addr, pods).collect::<Vec<_>>());
        let mut rejected = Vec::new();
        for pod in &claimants {
            if let Some(owner) = owner.filter(|o| o.name != pod.name && o.terminating == pod.terminating) {
                rejected.push(shared_address(pod, owner, addr));
            }
        }
        if is_shared {
            self.shared.insert(addr, rejected);
        }
        claimants
    }

    /// A terminating pod loses an address to its successor (C20). If two live pods claim one address, something else is
    /// wrong: a pod of this node gets it, so that its policies stay in force; otherwise the first pod by name.
    pub(super) fn owner<'a>(&self, addr: Addr, node: &str, pods: &'a Pods) -> Option<&'a Pod> {
        self.claimants(addr, pods).min_by_key(|pod| (pod.terminating, pod.node != node))
    }

    /// All pods that claim an address, in order of their names.
    fn claimants<'a>(&self, addr: Addr, pods: &'a Pods) -> impl Iterator<Item = &'a Pod> {
        self.names(addr).filter_map(|name| pods.get(name))
    }

    fn names(&self, addr: Addr) -> impl Iterator<Item = &ObjectName> {
        let all = self.claims.range((addr, self.least.clone())..);
        all.take_while(move |(at, _)| *at == addr).map(|(_, name)| name)
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
        self.names(addr).next().is_some()
    }

    /// What is not in force of pods.
    pub(super) fn rejected(&self) -> impl Iterator<Item = &Rejected> {
        self.shared.values().flatten()
    }
}

fn claimed(pod: Option<&Pod>) -> impl Iterator<Item = Addr> {
    let ips = pod.filter(|pod| !pod.host_network).map(|pod| pod.ips.as_slice()).unwrap_or_default();
    ips.iter().map(|ip| Addr::from(*ip))
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
    Rejected::limited(Kind::Pod.named(&pod.name), "status.podIPs", reason)
}
