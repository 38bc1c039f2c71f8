//! New connections between ends of all kinds.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use lbr_common::tuple::{Tuple, proto};

use super::generate::{node_ips, stray};
use super::random::Random;
use super::services::{self, CIDRS, Places};
use super::tuples::{GRE, Interesting};
use super::verdict::pod_ips;
use super::{Case, block};

/// A new connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Question {
    /// Its first packet.
    pub tuple: Tuple,
    /// Whether that comes in fragments.
    pub in_fragments: bool,
}

/// What questions are made of.
pub(super) struct Ends {
    plain: Interesting,
    clients: Vec<IpAddr>,
    nodes: Vec<IpAddr>,
    own: Vec<IpAddr>,
    local: Vec<IpAddr>,
    remote: Vec<IpAddr>,
    free: Vec<IpAddr>,
    places: Places,
}

impl Ends {
    pub(super) fn new(case: &Case) -> Self {
        let parsed = |texts: &[&str]| texts.iter().filter_map(|ip| ip.parse().ok()).collect::<Vec<IpAddr>>();
        let mut clients =
            parsed(&["8.8.8.8", "8.8.9.8", "172.16.0.9", "2001:db8:1::8", "2001:db9::8", "fd11::1"]);
        clients.push(stray());
        let mut local: Vec<IpAddr> = Vec::new();
        let mut remote = Vec::new();
        for pod in case.of_kind("Pod") {
            let of =
                if pod["spec"]["nodeName"] == case.node.name.as_str() { &mut local } else { &mut remote };
            of.extend(pod_ips(pod));
        }
        let own: Vec<IpAddr> = case.node.links.node_addresses.iter().copied().collect();
        local.retain(|ip| !own.contains(ip));
        Self {
            plain: Interesting::new(case),
            clients,
            nodes: (2..=3).flat_map(node_ips).filter_map(|ip| ip.parse().ok()).collect(),
            own: own.into_iter().filter(|ip| !is_link_local(ip)).collect(),
            local,
            remote,
            free: CIDRS.iter().flat_map(|cidr| block::edges(cidr)).collect(),
            places: services::places(case),
        }
    }

    pub(super) fn question(&self, random: &mut Random) -> Question {
        let in_fragments = random.chance(15);
        if random.chance(20) {
            let mut tuple = self.plain.tuple(random);
            if tuple.src_port != 0 {
                tuple.dst_port = tuple.dst_port.max(1);
            }
            return Question { tuple, in_fragments };
        }
        loop {
            let Some(src) = self.source(random) else { continue };
            let mut wanted = None;
            let dst = if random.chance(55) && !self.places.frontends.is_empty() {
                let (dst, port, proto) = random.pick(&self.places.frontends);
                wanted = Some((port, proto));
                Some(dst)
            } else {
                self.destination(random)
            };
            let fits = |dst: &IpAddr| {
                // Only the node's own processes reach loopback there.
                dst.is_ipv4() == src.is_ipv4()
                    && *dst != src
                    && (!dst.is_loopback() || self.own.contains(&src))
            };
            if let Some(dst) = dst.filter(fits) {
                let mut tuple = self.tuple(random, src, dst);
                if let Some((port, proto)) = wanted.filter(|_| random.chance(85)) {
                    let src_port = random.client_port();
                    tuple = Tuple { proto, src_port, dst_port: port, ..tuple };
                }
                return Question { tuple, in_fragments };
            }
        }
    }

    fn source(&self, random: &mut Random) -> Option<IpAddr> {
        let from = match random.below(20) {
            0..8 => &self.local,
            8..11 => &self.own,
            11..13 => &self.nodes,
            13..15 => &self.remote,
            15 => &self.places.ips,
            _ => &self.clients,
        };
        pick(random, from)
    }

    fn destination(&self, random: &mut Random) -> Option<IpAddr> {
        let to = match random.below(20) {
            0..8 => &self.places.ips,
            8 | 9 => &self.free,
            10..12 => &self.own,
            12 => &self.nodes,
            13..16 => &self.local,
            16 => &self.remote,
            17 => return Some(random.pick(&[Ipv4Addr::LOCALHOST.into(), Ipv6Addr::LOCALHOST.into()])),
            _ => &self.clients,
        };
        pick(random, to)
    }

    fn tuple(&self, random: &mut Random, src: IpAddr, dst: IpAddr) -> Tuple {
        let icmp = if src.is_ipv4() { proto::ICMP } else { proto::ICMPV6 };
        let proto = match random.below(20) {
            0..9 => proto::TCP,
            9..15 => proto::UDP,
            15 | 16 => proto::SCTP,
            17 | 18 => icmp,
            _ => GRE,
        };
        let mut tuple = Tuple { src: src.into(), dst: dst.into(), proto, ..Tuple::default() };
        if !matches!(proto, GRE | proto::ICMP | proto::ICMPV6) {
            tuple.src_port = random.client_port();
            tuple.dst_port = random.pick(&self.places.ports);
        }
        tuple
    }
}

fn pick(random: &mut Random, from: &[IpAddr]) -> Option<IpAddr> {
    if from.is_empty() { None } else { Some(random.pick(from)) }
}

fn is_link_local(ip: &IpAddr) -> bool {
    matches!(ip, IpAddr::V6(ip) if ip.is_unicast_link_local())
}
