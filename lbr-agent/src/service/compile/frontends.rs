//! Where Services are served: addresses and ports, and which Service gets one that several ask for.

use std::collections::BTreeSet;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use lbr_common::addr::Family;
use lbr_common::id::{MaglevId, ServiceId};
use lbr_common::service::{Frontend, FrontendKey, frontend_flags, scope, set};
use lbr_common::user::{proto_name, socket_text};

use super::claims::{Claims, Settled};
use super::endpoints::Choice;
use super::plan::{Plan, Role};
use crate::model::{Kind, ObjectName, Rejected};
use crate::node::here::Here;

/// The frontends that a plan asks for, in order of their roles. Addresses that no Service may ask for are rejected.
pub(super) fn asked_for(
    plan: &Plan<'_>,
    nodeports: &BTreeSet<IpAddr>,
    here: &Here<'_>,
    rejected: &mut Vec<Rejected>,
) -> Vec<(Role, FrontendKey)> {
    let in_role =
        |role| asked_for_in(plan, role, nodeports, here, rejected).into_iter().map(move |key| (role, key));
    let mut all: Vec<_> = Role::ALL.into_iter().flat_map(in_role).collect();
    let mut seen = BTreeSet::new();
    all.retain(|claim| seen.insert(*claim));
    all
}

/// Gives a plan the frontends that it gets among those that it asks for.
pub(super) fn settle(
    plan: &mut Plan<'_>,
    asked: &[(Role, FrontendKey)],
    claims: &Claims,
    rejected: &mut Vec<Rejected>,
) {
    let mut won = Vec::new();
    for &(role, key) in asked {
        match claims.settle(&key, role, plan) {
            Settled::Won => won.push((role, key)),
            Settled::HasIt => {}
            Settled::Lost(owner) => rejected.push(taken(plan, role, &key, owner)),
        }
    }
    plan.won = won;
}

fn asked_for_in(
    plan: &Plan<'_>,
    role: Role,
    nodeports: &BTreeSet<IpAddr>,
    here: &Here<'_>,
    rejected: &mut Vec<Rejected>,
) -> Vec<FrontendKey> {
    let service = plan.service;
    let of_family = |ip: &&IpAddr| Family::of(**ip) == plan.family;
    let at = |ip: IpAddr| key(ip, plan.port.port, plan.proto, scope::ANY);
    match role {
        Role::ClusterIp => service.cluster_ips.iter().filter(of_family).map(|ip| at(*ip)).collect(),
        Role::LoadBalancer => service.load_balancer_ips.iter().filter(of_family).map(|ip| at(*ip)).collect(),
        Role::ExternalIp => {
            let mut keys = Vec::new();
            for (index, ip) in service.external_ips.iter().filter(|(_, ip)| of_family(&ip)) {
                match here.settings.external_ips.iter().any(|block| block.contains(ip)) {
                    true => keys.push(at(*ip)),
                    false => rejected.push(not_allowed(plan, *index, *ip)),
                }
            }
            keys
        }
        Role::NodePort => {
            let Some(port) = plan.port.node_port else { return Vec::new() };
            let on_node = nodeports.iter().filter(of_family).map(|ip| key(*ip, port, plan.proto, scope::ANY));
            let off = here.settings.without_localhost_nodeports;
            let of_sockets = loopback(plan.family).into_iter().filter(|ip| !off || ip.is_unspecified());
            on_node.chain(of_sockets.map(|ip| key(ip, port, plan.proto, scope::HOST_LOCAL))).collect()
        }
    }
}

/// Addresses at which processes of the node reach NodePorts besides the node's own. `connect` to the unspecified
/// address goes to loopback, and `bind` to it asks for all addresses.
fn loopback(family: Family) -> [IpAddr; 2] {
    match family {
        Family::V4 => [Ipv4Addr::LOCALHOST.into(), Ipv4Addr::UNSPECIFIED.into()],
        Family::V6 => [Ipv6Addr::LOCALHOST.into(), Ipv6Addr::UNSPECIFIED.into()],
    }
}

fn reject(plan: &Plan<'_>, field: String, reason: String) -> Rejected {
    Rejected::limited(Kind::Service.named(&plan.service.name), field, reason)
}

fn taken(plan: &Plan<'_>, role: Role, key: &FrontendKey, owner: &ObjectName) -> Rejected {
    let (index, proto) = (plan.index, proto_name(plan.proto));
    let belongs = format!("already belongs to Service {owner}");
    // The conflict is the same at all addresses of the node: reported once.
    if role == Role::NodePort {
        let reason = format!("{}/{proto} {belongs}", key.port);
        return reject(plan, format!("spec.ports[{index}].nodePort"), reason);
    }
    let reason = format!("{}/{proto} {belongs}", socket_text(key.addr, key.port));
    reject(plan, format!("spec.ports[{index}]"), reason)
}

fn not_allowed(plan: &Plan<'_>, index: usize, ip: IpAddr) -> Rejected {
    let reason = format!(
        "{ip} is in no block of `lbr run --external-ips=CIDR,...`: any author of Services could take any \
         address from its owner (CVE-2020-8554)"
    );
    reject(plan, format!("spec.externalIPs[{index}]"), reason)
}

/// The frontends of a Service port. `balanced`: flags for those of its load balancer; `on_loopback`: for those that
/// only sockets of the node have.
pub(super) fn rows(
    plan: &Plan<'_>,
    id: ServiceId,
    choice: &Choice,
    [balanced, on_loopback]: [u32; 2],
) -> Vec<(FrontendKey, Frontend)> {
    let mut rows = Vec::new();
    let direct = if plan.is_direct() { frontend_flags::DSR } else { 0 };
    let tunneled = if plan.is_tunneled() { frontend_flags::DSR_IPIP } else { 0 };
    let frontend = |set: u32, flags: u32| {
        // Without an endpoint anywhere the client is refused. LOCAL_ONLY drops what only another node could serve.
        let local_only = if set == set::LOCAL && choice.anywhere { frontend_flags::LOCAL_ONLY } else { 0 };
        let affinity = plan.service.affinity;
        Frontend {
            service: id,
            count: choice.count(set),
            flags: flags | local_only | direct | tunneled,
            set,
            affinity,
            maglev: MaglevId::NONE,
        }
    };
    for &(role, key) in &plan.won {
        let flags = match role {
            Role::LoadBalancer => balanced,
            _ if key.scope == scope::HOST_LOCAL => on_loopback,
            _ => 0,
        };
        let differs = plan.differs_by_wire(role, &key);
        if differs {
            let by_wire = FrontendKey { scope: scope::EXTERNAL, ..key };
            rows.push((by_wire, frontend(set::LOCAL, flags)));
        }
        let differs = if differs { frontend_flags::EXTERNAL_DIFFERS } else { 0 };
        rows.push((key, frontend(plan.set_of(role), flags | differs)));
    }
    rows
}

pub(super) fn key(ip: IpAddr, port: u16, proto: u8, scope: u8) -> FrontendKey {
    FrontendKey { addr: ip.into(), port, proto, scope, ..FrontendKey::default() }
}
