//! Connections worth a check: between pods, and at the edges of blocks and ports.

use std::collections::BTreeSet;
use std::net::IpAddr;

use lbr_common::tuple::{Tuple, proto};
use serde_json::Value;

use super::generate::{node_ips, stray};
use super::random::Random;
use super::verdict::{list, pod_ips, text};
use super::{Case, block};

/// GRE, for all protocols without ports.
pub(super) const GRE: u8 = 47;

/// Addresses and ports with a meaning in a case.
pub(super) struct Interesting {
    /// Addresses of this node's pods.
    local: Vec<IpAddr>,
    /// Addresses of all pods, including those that have ended.
    pods: Vec<IpAddr>,
    /// Addresses other than those of this node, whose processes are not judged as senders.
    others: Vec<IpAddr>,
    own: Vec<IpAddr>,
    ports: Vec<u16>,
}

impl Interesting {
    pub(super) fn new(case: &Case) -> Self {
        let own = &case.node.links.node_addresses;
        let mut pods = BTreeSet::new();
        let mut local = BTreeSet::new();
        let mut others = BTreeSet::from([stray(), IpAddr::from([8, 8, 8, 8])]);
        let mut ports = BTreeSet::from([0, 1, 65535]);
        for pod in case.of_kind("Pod") {
            pods.extend(pod_ips(pod));
            if pod["spec"]["nodeName"] == case.node.name.as_str() {
                local.extend(pod_ips(pod));
            }
            let spec = &pod["spec"];
            for container in list(&spec["containers"]).iter().chain(list(&spec["initContainers"])) {
                ports.extend(list(&container["ports"]).iter().filter_map(|p| number(&p["containerPort"])));
            }
        }
        others.extend((2..=3).flat_map(node_ips).filter_map(|ip| ip.parse::<IpAddr>().ok()));
        for policy in case.of_kind("NetworkPolicy") {
            let spec = &policy["spec"];
            for rule in list(&spec["ingress"]).iter().chain(list(&spec["egress"])) {
                for peer in list(&rule["from"]).iter().chain(list(&rule["to"])) {
                    let ip_block = &peer["ipBlock"];
                    others.extend(block::edges(text(&ip_block["cidr"])));
                    others.extend(list(&ip_block["except"]).iter().flat_map(|e| block::edges(text(e))));
                }
                for port in list(&rule["ports"]) {
                    for edge in [&port["port"], &port["endPort"]].into_iter().filter_map(number) {
                        ports.extend([edge.saturating_sub(1), edge, edge.saturating_add(1)]);
                    }
                }
            }
        }
        let foreign = |ip: &IpAddr| !own.contains(ip);
        // A mapped address is an IPv4 address to every program.
        let real = |ip: &IpAddr| !matches!(ip, IpAddr::V6(v6) if v6.to_ipv4_mapped().is_some());
        Self {
            local: local.into_iter().filter(foreign).collect(),
            pods: pods.into_iter().filter(foreign).collect(),
            others: others.into_iter().filter(foreign).filter(real).collect(),
            own: own.iter().copied().collect(),
            ports: ports.into_iter().collect(),
        }
    }

    /// One end is an address of this node's pods in almost all cases.
    pub(super) fn tuple(&self, random: &mut Random) -> Tuple {
        let near = if random.chance(97) { &self.local } else { &self.others };
        let near = if near.is_empty() { random.pick(&self.others) } else { random.pick(near) };
        let outgoing = random.chance(50);
        let far = match random.below(100) {
            0..2 => vec![near],
            2..6 if outgoing => self.own.clone(),
            6..60 => self.pods.iter().copied().filter(|&ip| ip != near).collect(),
            _ => Vec::new(),
        };
        let same_family = |ip: &IpAddr| ip.is_ipv4() == near.is_ipv4();
        let mut far: Vec<_> = far.into_iter().filter(same_family).collect();
        if far.is_empty() {
            far = self.others.iter().copied().filter(same_family).collect();
        }
        let far = random.pick(&far);
        let (src, dst) = if outgoing { (near, far) } else { (far, near) };
        let icmp = if src.is_ipv4() { proto::ICMP } else { proto::ICMPV6 };
        let proto = match random.below(100) {
            0..45 => proto::TCP,
            45..67 => proto::UDP,
            67..84 => proto::SCTP,
            84..94 => icmp,
            _ => GRE,
        };
        let mut tuple = Tuple { src: src.into(), dst: dst.into(), proto, ..Tuple::default() };
        if !matches!(proto, GRE | proto::ICMP | proto::ICMPV6) {
            tuple.src_port = random.client_port();
            tuple.dst_port =
                if random.chance(95) { random.pick(&self.ports) } else { random.below(65536) as u16 };
        }
        tuple
    }
}

pub(super) fn number(value: &Value) -> Option<u16> {
    value.as_u64().and_then(|n| u16::try_from(n).ok())
}
