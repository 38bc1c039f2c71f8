//! A node: a namespace that forwards.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use anyhow::Result;
use lbr_common::addr::Family;

use super::{BedOptions, Underlay};
use crate::netns::{Netns, sysctl};

/// The nodes' default gateway, as real nodes have one.
pub(super) const GATEWAY_V4: Ipv4Addr = Ipv4Addr::new(172, 18, 0, 254);
/// The same for IPv6.
pub(super) const GATEWAY_V6: Ipv6Addr = Ipv6Addr::new(0xfd00, 0x172, 0x18, 0, 0, 0, 0, 0xfe);

/// The bridge of the nodes, in the fabric.
pub(super) const BRIDGE: &str = "br0";

/// A node of a [`super::Bed`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Node {
    /// Its name, also in Kubernetes.
    pub name: String,
    /// Its namespace. The uplink in it is `eth0`; the bridge for pods, if any, is `cni0`.
    pub ns: Netns,
    /// Counts from 1.
    pub index: u8,
    /// Address of `eth0`.
    pub v4: Ipv4Addr,
    /// Address of `eth0`.
    pub v6: Ipv6Addr,
}

impl Node {
    /// Its address of one family.
    pub fn address(&self, family: Family) -> IpAddr {
        match family {
            Family::V4 => self.v4.into(),
            Family::V6 => self.v6.into(),
        }
    }

    /// Both addresses.
    pub fn addresses(&self) -> [IpAddr; 2] {
        [self.v4.into(), self.v6.into()]
    }

    /// Pod network of this node, as `kubectl` shows it: IPv4, IPv6.
    pub fn pod_cidrs(&self) -> [String; 2] {
        [format!("10.244.{}.0/24", self.index), format!("fd00:10:244:{:x}::/64", self.index)]
    }

    /// First addresses of the pod networks, which the node has on the tunnel with [`Underlay::Vxlan`]: the sources of
    /// the node's own packets through the tunnel.
    pub fn tunnel_addresses(&self) -> [IpAddr; 2] {
        let v6 = Ipv6Addr::new(0xfd00, 0x10, 0x244, self.index.into(), 0, 0, 0, 0);
        [Ipv4Addr::new(10, 244, self.index, 0).into(), v6.into()]
    }

    /// The other end of `eth0`, in the fabric.
    pub fn wire(&self) -> String {
        format!("up{}", self.index)
    }

    fn vtep_mac(&self) -> String {
        format!("0a:58:0a:f4:00:{:02x}", self.index)
    }
}

/// Makes the node, and the routes between it and the others.
pub(super) fn create(
    fabric: &Netns,
    ns: Netns,
    name: &str,
    index: u8,
    options: &BedOptions,
    others: &[&Node],
) -> Result<Node> {
    let v6 = Ipv6Addr::new(0xfd00, 0x172, 0x18, 0, 0, 0, 0, index.into());
    let node = Node { name: name.to_owned(), ns, index, v4: Ipv4Addr::new(172, 18, 0, index), v6 };
    node.ns.run(|| {
        sysctl("ipv4/ip_forward", "1")?;
        sysctl("ipv6/conf/all/forwarding", "1")?;
        sysctl("ipv6/conf/default/forwarding", "1")?;
        // The larger value of `all` and of the interface counts: links inherit `default`.
        sysctl("ipv4/conf/all/rp_filter", "0")?;
        sysctl("ipv4/conf/default/rp_filter", &options.rp_filter.to_string())
    })?;
    let uplink = node.wire();
    fabric.ip([
        format!(
            "link add {uplink} mtu {mtu} type veth peer name eth0 mtu {mtu} netns {}",
            node.ns.name(),
            mtu = options.mtu
        ),
        format!("link set {uplink} master {BRIDGE} up"),
    ])?;
    let mut lines = vec![
        format!("addr add {}/24 dev eth0", node.v4),
        format!("addr add {}/64 dev eth0 nodad", node.v6),
        "link set eth0 up".to_owned(),
        format!("route add default via {GATEWAY_V4}"),
        format!("route add default via {GATEWAY_V6}"),
    ];
    if options.underlay == Underlay::Vxlan {
        let [tunnel4, tunnel6] = node.tunnel_addresses();
        lines.extend([
            format!(
                "link add vxlan0 address {} mtu {} type vxlan id 42 local {} dev eth0 dstport 4789 nolearning",
                node.vtep_mac(),
                options.pod_mtu(),
                node.v4
            ),
            format!("addr add {tunnel4}/32 dev vxlan0"),
            format!("addr add {tunnel6}/128 dev vxlan0 nodad"),
            "link set vxlan0 up".to_owned(),
        ]);
    }
    for other in others {
        lines.extend(routes_to(other, options.underlay));
        other.ns.ip(routes_to(&node, options.underlay))?;
    }
    node.ns.ip(lines)?;
    if options.masquerade {
        masquerade(&node)?;
    }
    if options.underlay == Underlay::Vxlan {
        for other in others {
            other.ns.run(|| teach_bridge(other, &node))?;
            node.ns.run(|| teach_bridge(&node, other))?;
        }
    }
    Ok(node)
}

/// Lines of `ip` with the routes to the pods of `node`.
fn routes_to(node: &Node, underlay: Underlay) -> Vec<String> {
    let [cidr4, cidr6] = node.pod_cidrs();
    match underlay {
        Underlay::Routed => {
            vec![format!("route add {cidr4} via {}", node.v4), format!("route add {cidr6} via {}", node.v6)]
        }
        Underlay::Vxlan => {
            let ([tunnel4, tunnel6], mac) = (node.tunnel_addresses(), node.vtep_mac());
            vec![
                format!("neigh add {tunnel4} lladdr {mac} dev vxlan0 nud permanent"),
                format!("neigh add {tunnel6} lladdr {mac} dev vxlan0 nud permanent"),
                format!("route add {cidr4} via {tunnel4} dev vxlan0 onlink"),
                format!("route add {cidr6} via {tunnel6} dev vxlan0 onlink"),
            ]
        }
    }
}

/// Masquerades packets of pods to other destinations than pods.
fn masquerade(node: &Node) -> Result<()> {
    const RULES: &str = "table inet bed {
        chain out {
            type nat hook postrouting priority srcnat;
            ip saddr 10.244.0.0/16 ip daddr != 10.244.0.0/16 masquerade
            ip6 saddr fd00:10:244::/48 ip6 daddr != fd00:10:244::/48 masquerade
        }
    }";
    crate::process::run(node.ns.command("nft")?.arg(RULES)).map(drop)
}

/// Adds the tunnel endpoint of another node to a node's bridge table.
fn teach_bridge(at: &Node, other: &Node) -> Result<()> {
    let mut command = at.ns.command("bridge")?;
    command.args(["fdb", "append", &other.vtep_mac(), "dev", "vxlan0", "dst", &other.v4.to_string()]);
    crate::process::run(&mut command).map(drop)
}
