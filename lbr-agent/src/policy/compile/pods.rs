//! Which pod has which address.

use std::collections::BTreeMap;

use lbr_common::addr::Addr;
use lbr_common::text::{PodName, Text};

use crate::model::{ObjectName, Pod, Rejected};

/// The pods of the cluster by address, without pods in a node's network: their addresses are the node's, and their
/// packets are the node's (C6).
#[derive(Debug)]
pub(super) struct Owners<'a>(BTreeMap<Addr, &'a Pod>);

impl<'a> Owners<'a> {
    /// A terminating pod loses an address to its successor (C20). If two live pods claim one address, something else is
    /// wrong: a pod of this node gets it, so that its policies stay in force; otherwise the first pod by name.
    pub(super) fn new(pods: &'a BTreeMap<ObjectName, Pod>, node: &str, rejected: &mut Vec<Rejected>) -> Self {
        let pods = || pods.values().filter(|pod| !pod.host_network);
        let rank = |pod: &Pod| (pod.terminating, pod.node != node);
        let mut owners: BTreeMap<Addr, &Pod> = BTreeMap::new();
        for pod in pods() {
            for &ip in &pod.ips {
                let owner = owners.entry(ip.into()).or_insert(pod);
                if rank(pod) < rank(owner) {
                    *owner = pod;
                }
            }
        }
        for pod in pods() {
            for &ip in &pod.ips {
                let Some(owner) = owners.get(&ip.into()) else { continue };
                if owner.name != pod.name && owner.terminating == pod.terminating {
                    rejected.push(shared_address(pod, owner, ip.into()));
                }
            }
        }
        Self(owners)
    }

    /// The addresses of this pod, each once.
    pub(super) fn addresses(&self, pod: &Pod) -> Vec<Addr> {
        let mut addresses = Vec::new();
        for &ip in &pod.ips {
            let addr = ip.into();
            if self.0.get(&addr).is_some_and(|owner| owner.name == pod.name) && !addresses.contains(&addr) {
                addresses.push(addr);
            }
        }
        addresses
    }

    /// Whether a pod has this address.
    pub(super) fn has(&self, addr: Addr) -> bool {
        self.0.contains_key(&addr)
    }

    /// Names for people.
    pub(super) fn names(&self) -> BTreeMap<Addr, PodName> {
        let name = |pod: &Pod| PodName {
            namespace: Text::new(&pod.name.namespace),
            name: Text::new(&pod.name.name),
        };
        self.0.iter().map(|(&addr, pod)| (addr, name(pod))).collect()
    }
}

fn shared_address(pod: &Pod, owner: &Pod, addr: Addr) -> Rejected {
    let reason = format!(
        "{addr} is also an address of Pod {}, which is on this node or comes first by name: policies use {addr} for \
         that pod only",
        owner.name
    );
    Rejected::limited(format!("Pod {}", pod.name), "status.podIPs", reason)
}
