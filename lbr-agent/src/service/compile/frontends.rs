//! Where Services are served: addresses and ports, and which Service gets one that several ask for.

use std::collections::{BTreeMap, BTreeSet};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use lbr_common::addr::Family;
use lbr_common::service::{Frontend, FrontendKey, frontend_flags, scope, set};
use lbr_common::user::{proto_name, socket_text};

use super::endpoints::Choice;
use super::plan::{Plan, Role};
use crate::cluster::ClusterState;
use crate::desired::Desired;
use crate::model::Rejected;
use crate::node::here::Here;

/// Gives each plan the frontends that no earlier plan has.
pub(super) fn claim(plans: &mut [Plan<'_>], here: &Here<'_>, rejected: &mut Vec<Rejected>) {
    let nodeports = here.nodeport_addresses();
    let mut owners: BTreeMap<FrontendKey, usize> = BTreeMap::new();
    for role in Role::ALL {
        for number in 0..plans.len() {
            let Some(plan) = plans.get(number) else { continue };
            let mut won = Vec::new();
            for key in asked_for(plan, role, &nodeports, here, rejected) {
                let owner = *owners.entry(key).or_insert(number);
                let has_it = |(_, known): &(Role, FrontendKey)| *known == key;
                if owner != number {
                    rejected.extend(plans.get(owner).map(|owner| taken(plan, role, &key, owner)));
                } else if !plan.won.iter().chain(&won).any(has_it) {
                    won.push((role, key));
                }
            }
            plans.get_mut(number).into_iter().for_each(|plan| plan.won.append(&mut won));
        }
    }
}

fn asked_for(
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
    Rejected::limited(format!("Service {}", plan.service.name), field, reason)
}

fn taken(plan: &Plan<'_>, role: Role, key: &FrontendKey, owner: &Plan<'_>) -> Rejected {
    let (index, proto) = (plan.index, proto_name(plan.proto));
    let belongs = format!("already belongs to Service {}", owner.service.name);
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

/// Writes the frontends of a Service port. `balanced`: flags for those of its load balancer; `on_loopback`: for those that
/// only sockets of the node have.
pub(super) fn write(
    plan: &Plan<'_>,
    id: u32,
    choice: &Choice,
    [balanced, on_loopback]: [u32; 2],
    desired: &mut Desired,
) {
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
            maglev: 0,
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
            desired.frontends.insert(by_wire, frontend(set::LOCAL, flags));
        }
        let differs = if differs { frontend_flags::EXTERNAL_DIFFERS } else { 0 };
        desired.frontends.insert(key, frontend(plan.set_of(role), flags | differs));
    }
}

/// Writes the entries for ports that no Service has. A ClusterIP is a Service's as a whole: they are refused there, whatever
/// the protocol. At any other address packets to them pass: it may be this node's, or another host's.
pub(super) fn write_addresses(
    state: &ClusterState,
    plans: &[Plan<'_>],
    here: &Here<'_>,
    desired: &mut Desired,
) {
    let mut add = |addr: IpAddr, scope: u8, flags: u32| {
        let whole = Frontend { flags: frontend_flags::WILDCARD | flags, ..Frontend::default() };
        desired.frontends.entry(key(addr, 0, 0, scope)).or_insert(whole);
    };
    // ClusterIPs first: their other ports are refused even where a former proxy gave the address to an interface
    // (IPVS).
    for ip in state.services.values().flat_map(|service| &service.cluster_ips) {
        add(*ip, scope::ANY, 0);
    }
    for (_, key) in plans.iter().flat_map(|plan| &plan.won) {
        let ip = IpAddr::from(key.addr);
        let is_of_host = key.scope == scope::HOST_LOCAL || here.is_own(ip);
        let host = if is_of_host { frontend_flags::HOST } else { 0 };
        add(ip, key.scope, frontend_flags::PASS_UNMATCHED | host);
    }
}

fn key(ip: IpAddr, port: u16, proto: u8, scope: u8) -> FrontendKey {
    FrontendKey { addr: ip.into(), port, proto, scope, ..FrontendKey::default() }
}
