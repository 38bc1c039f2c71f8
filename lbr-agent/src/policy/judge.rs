//! Finds out whether policies allow a connection, by the steps of the programs in user space.
//!
//! Does the same look-ups in the same order as the kernel object, on tables that are plain data: for tests of compiled
//! tables, and for `lbr why`, which sends no packet.

use lbr_common::addr::Addr;
use lbr_common::id::{ClassId, PolicySetId, PortClassId};
use lbr_common::policy::{
    Allow, Block, OTHER_PORTS, Policy, Ports, Prefix, VerdictKey, class, direction, policy_flags,
};
use lbr_common::tuple::Tuple;

use crate::desired::Desired;
use crate::table::starts_with;

/// The result of one end's policies.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Side {
    /// The address is not of a pod of this node.
    NoPod,
    /// To or from the node itself, or a pod to itself: never judged.
    Exempt,
    /// The pod is not isolated in this direction.
    NotIsolated,
    /// Allowed, by this rule.
    Allowed(Allow),
    /// The pod is isolated, and no policy of this set allows it.
    Denied {
        /// [`Policy::set`] or [`Policy::audit`].
        set: PolicySetId,
    },
}

impl Side {
    /// Whether this end lets a connection pass.
    pub fn passes(self) -> bool {
        !matches!(self, Self::Denied { .. })
    }
}

/// The result of both ends' policies, and of their audited ones.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Judged {
    /// The sender's policies.
    pub egress: Side,
    /// The receiver's policies.
    pub ingress: Side,
    /// The sender's policies with the audited ones; as `egress` without any.
    pub audited_egress: Side,
    /// The receiver's policies with the audited ones; as `ingress` without any.
    pub audited_ingress: Side,
}

impl Judged {
    /// Whether a connection passes.
    pub fn passes(&self) -> bool {
        self.egress.passes() && self.ingress.passes()
    }
}

/// Judges a new connection, with its source as sent and its destination as translated. The source must not be the node
/// itself.
pub fn judge(tables: &Desired, tuple: &Tuple) -> Judged {
    let sender = policy(tables, &tuple.src);
    let receiver = policy(tables, &tuple.dst);
    let exempt = tuple.src == tuple.dst || receiver.is_some_and(|p| p.flags & policy_flags::NODE != 0);
    let egress = |audited| side(tables, sender, &tuple.dst, tuple, exempt, direction::EGRESS, audited);
    let ingress = |audited| side(tables, receiver, &tuple.src, tuple, exempt, direction::INGRESS, audited);
    Judged {
        egress: egress(false),
        ingress: ingress(false),
        audited_egress: egress(true),
        audited_ingress: ingress(true),
    }
}

fn policy(tables: &Desired, addr: &Addr) -> Option<Policy> {
    tables.endpoints.get(addr).map(|endpoint| endpoint.policy)
}

fn side(
    tables: &Desired,
    policy: Option<Policy>,
    peer: &Addr,
    tuple: &Tuple,
    exempt: bool,
    direction: u32,
    audited: bool,
) -> Side {
    if exempt {
        return Side::Exempt;
    }
    let Some(policy) = policy.filter(|p| p.flags & policy_flags::POD != 0) else { return Side::NoPod };
    let (isolates, audits) = match direction {
        direction::INGRESS => (policy_flags::ISOLATED_IN, policy_flags::AUDIT_IN),
        _ => (policy_flags::ISOLATED_OUT, policy_flags::AUDIT_OUT),
    };
    let set = if audited && policy.flags & audits != 0 {
        policy.audit
    } else if policy.flags & isolates != 0 {
        policy.set
    } else {
        return Side::NotIsolated;
    };
    let key = VerdictKey {
        set,
        direction,
        class: class_of(tables, peer),
        ports: port_class(tables, set, direction, tuple),
    };
    let any = VerdictKey { class: class::ANY, ..key };
    let found = tables.verdicts.get(&key).or_else(|| tables.verdicts.get(&any));
    found.map_or(Side::Denied { set }, |&allow| Side::Allowed(allow))
}

/// The class of a peer's address.
pub fn class_of(tables: &Desired, addr: &Addr) -> ClassId {
    if let Some(&class) = tables.ip_class.get(addr)
        && class != class::ABSENT
    {
        return class;
    }
    let key = Block::of(addr);
    let covers = |prefix: &Prefix<Block>| {
        prefix.data.family == key.family
            && starts_with(&key.addr, &prefix.data.addr, prefix.len - Block::FAMILY_BITS)
    };
    let blocks = tables.cidr_class.iter().filter(|(prefix, _)| covers(prefix));
    blocks.max_by_key(|(prefix, _)| prefix.len).map_or(class::NONE, |(_, &class)| class)
}

fn port_class(tables: &Desired, set: PolicySetId, direction: u32, tuple: &Tuple) -> PortClassId {
    let port = tuple.dst_port.to_be_bytes();
    let of_set = |data: Ports| Prefix { data, len: 0 };
    let first = of_set(Ports { set, ..Ports::default() });
    let last = of_set(Ports { set: set.next(), ..Ports::default() });
    let covers = |prefix: &Prefix<Ports>| {
        u32::from(prefix.data.direction) == direction
            && prefix.data.proto == tuple.proto
            && starts_with(&port, &prefix.data.port, prefix.len - Ports::FIXED_BITS)
    };
    let ports = tables.port_class.range(first..last).filter(|(prefix, _)| covers(prefix));
    ports.max_by_key(|(prefix, _)| prefix.len).map_or(OTHER_PORTS, |(_, &class)| class)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::desired::EndpointPolicy;

    const POD: Addr = Addr::v4([10, 244, 0, 2]);
    const NODE: Addr = Addr::v4([192, 0, 2, 1]);
    const OTHER: Addr = Addr::v4([192, 0, 2, 9]);

    /// A pod that is isolated both ways, its node, and an address whose pod is not known yet.
    fn tables() -> Desired {
        let mut tables = Desired::default();
        let isolated = policy_flags::ISOLATED_IN | policy_flags::ISOLATED_OUT;
        for (addr, flags) in [
            (POD, policy_flags::POD | isolated),
            (NODE, policy_flags::NODE),
            (OTHER, policy_flags::PENDING | isolated),
        ] {
            let policy = Policy { set: 1.into(), flags, ..Policy::default() };
            tables.endpoints.insert(addr, EndpointPolicy { ifindex: 0, policy });
        }
        tables
    }

    fn sides(tables: &Desired, src: Addr, dst: Addr) -> (Side, Side) {
        let judged = judge(tables, &Tuple { src, dst, ..Tuple::default() });
        (judged.egress, judged.ingress)
    }

    #[test]
    fn only_pods_have_policies_and_what_goes_to_the_node_is_exempt() {
        let tables = tables();
        let denied = Side::Denied { set: 1.into() };
        assert_eq!(sides(&tables, POD, OTHER), (denied, Side::NoPod));
        assert_eq!(sides(&tables, OTHER, POD), (Side::NoPod, denied));
        assert_eq!(
            sides(&tables, NODE, POD),
            (Side::NoPod, denied),
            "the caller exempts packets of the node"
        );
        for src in [POD, OTHER] {
            assert_eq!(sides(&tables, src, NODE), (Side::Exempt, Side::Exempt));
        }
        assert_eq!(sides(&tables, POD, POD), (Side::Exempt, Side::Exempt));
    }

    #[test]
    fn an_address_without_a_class_of_its_own_has_that_of_its_block() {
        let mut tables = Desired::default();
        tables.ip_class.extend([(POD, 5.into()), (OTHER, class::ABSENT)]);
        let block = |addr, bits| Prefix { data: Block::of(addr), len: Block::FULL - bits };
        let blocks = [(block(&OTHER, 8), 6), (block(&OTHER, 0), 7), (block(&NODE, 1), 8)];
        tables.cidr_class.extend(blocks.map(|(block, class)| (block, class.into())));
        let v6 = Addr::from("c000:0209::".parse::<std::net::IpAddr>().unwrap());
        for (addr, class) in
            [(POD, 5), (OTHER, 7), (NODE, 8), (Addr::v4([192, 0, 2, 7]), 6), (v6, class::NONE.id)]
        {
            assert_eq!(class_of(&tables, &addr).id, class, "{addr}");
        }
    }
}
