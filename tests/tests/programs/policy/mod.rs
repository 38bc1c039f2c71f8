//! NetworkPolicies in the programs: maps as the agent writes them, and what happens to packets.

mod audit;
mod events;
mod flows;
mod icmp;
mod many;
mod monitor;
mod random;
mod reverse;
mod source;
mod unread;

use std::net::IpAddr;

use lbr_agent::dataplane::Dataplane as _;
use lbr_agent::dataplane::Pinned;
use lbr_agent::desired::{Desired, EndpointPolicy};
use lbr_agent::reconcile::Reconciler;
use lbr_common::id::{PolicySetId, PortClassId};
use lbr_common::policy::{
    Allow, DenialKey, OTHER_PORTS, Policy, Ports, Prefix, VerdictKey, class, policy_flags,
};
use lbr_tests::testrun::ALL_HINTS;

use super::world::{Net, World};

/// A set that allows what [`Policies::allow`] says, and nothing else.
pub(crate) const SET: PolicySetId = PolicySetId { id: 9 };
/// The same for audited policies.
const AUDIT: PolicySetId = PolicySetId { id: 11 };
/// The port class of a port that a rule names.
const NAMED: PortClassId = PortClassId { id: 1 };

/// Pods and their policies, written into the maps as the agent does.
pub(crate) struct Policies {
    reconciler: Reconciler,
    pub(crate) wanted: Desired,
}

impl Policies {
    /// No pod is known yet. Must be made before Services, which it would take for leftovers.
    pub(crate) fn new(world: &mut World) -> Self {
        let reconciler = Reconciler::load(&mut world.programs.kernel).unwrap();
        let Desired { links, uplinks, .. } = reconciler.actual();
        let wanted = Desired { links, uplinks, ..Desired::default() };
        Self { reconciler, wanted }
    }

    /// The client's pod and the local one without policies; the router's address is the node's own.
    pub(crate) fn pods(world: &mut World, net: &Net) -> Self {
        let mut policies = Self::new(world);
        for (number, addr) in [net.client, net.local].into_iter().enumerate() {
            policies.pod(world, number, addr, 0);
        }
        let policy = Policy { flags: policy_flags::NODE, ..Policy::default() };
        policies.wanted.endpoints.insert(net.router.into(), EndpointPolicy { ifindex: 0, policy });
        policies.apply(world);
        policies
    }

    /// A pod behind the link with this number; `flags` of [`policy_flags`] say which sets are asked.
    pub(crate) fn pod(&mut self, world: &World, number: usize, addr: IpAddr, flags: u32) {
        let link = world.programs.links[number];
        let audits = flags & (policy_flags::AUDIT_IN | policy_flags::AUDIT_OUT) != 0;
        let flags = flags | policy_flags::POD;
        let policy = Policy { set: SET, audit: if audits { AUDIT } else { PolicySetId::NONE }, flags };
        self.wanted.endpoints.insert(addr.into(), EndpointPolicy { ifindex: link, policy });
        self.wanted.link_policy.insert(link, flags);
    }

    /// The set allows a destination port with every peer.
    pub(crate) fn allow(&mut self, set: PolicySetId, direction: u32, proto: u8, port: u16) {
        let ports = Ports { set, direction: direction as u8, proto, port: port.to_be_bytes() };
        self.wanted.port_class.insert(Prefix { data: ports, len: Ports::FULL }, NAMED);
        let key = VerdictKey { set, direction, class: class::ANY, ports: NAMED };
        self.wanted.verdicts.insert(key, Allow::default());
    }

    /// The set allows everything in a direction.
    pub(crate) fn allow_all(&mut self, set: PolicySetId, direction: u32) {
        let key = VerdictKey { set, direction, class: class::ANY, ports: OTHER_PORTS };
        self.wanted.verdicts.insert(key, Allow::default());
    }

    /// Nothing is allowed any more.
    pub(crate) fn revoke(&mut self) {
        self.wanted.verdicts.clear();
        self.wanted.port_class.clear();
    }

    /// Writes what differs, and raises the epoch.
    #[track_caller]
    pub(crate) fn apply(&mut self, world: &mut World) {
        let outcome = self.reconciler.apply(self.wanted.clone(), true, &mut world.programs.kernel);
        assert!(outcome.is_converged(), "{:?}", outcome.problems);
        // The reconciler knows nothing of the Services that tests write.
        world.programs.kernel.set_hints(ALL_HINTS).unwrap();
        world.raise_epoch();
    }
}

/// Packets in `denials`: set, direction, 1 if audited.
fn denials(world: &World) -> Vec<(PolicySetId, u32, u16, u64)> {
    let denials = Pinned::open(world.programs.pins()).unwrap().denials().unwrap();
    let row = |key: DenialKey, packets| (key.set, u32::from(key.direction), key.audited, packets);
    let mut rows: Vec<_> = denials.into_iter().map(|(key, counter)| row(key, counter.packets)).collect();
    rows.sort_unstable();
    rows
}
