//! A pod: a namespace behind a veth.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use anyhow::Result;
use lbr_common::addr::Family;

use super::Node;
use crate::netns::Netns;

/// How a pod is connected to its node.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum PodNetwork {
    /// The node has a host route into the veth; the pod's gateway is a link-local address.
    #[default]
    Routed,
    /// The node's side is a port of the bridge `cni0`, which has the gateway's address.
    Bridge,
}

/// The options of a pod.
#[derive(Clone, Copy, Debug, Default)]
pub struct PodOptions {
    /// How it is connected.
    pub network: PodNetwork,
    /// MTU of its veth; the bed's if absent.
    pub mtu: Option<u32>,
    /// Last part of its addresses, 2 to 254; the lowest free one if absent.
    pub host: Option<u16>,
}

impl From<PodNetwork> for PodOptions {
    fn from(network: PodNetwork) -> Self {
        Self { network, ..Self::default() }
    }
}

/// A pod of a [`super::Bed`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Pod {
    /// Its name.
    pub name: String,
    /// Name of its node.
    pub node: String,
    /// Its namespace; the link in it is `eth0`.
    pub ns: Netns,
    /// Namespace of its node.
    pub node_ns: Netns,
    /// The node's side of its veth.
    pub link: String,
    /// Interface index of `link` in the node.
    pub ifindex: u32,
    /// Its address.
    pub v4: Ipv4Addr,
    /// Its address.
    pub v6: Ipv6Addr,
    /// Link address of its `eth0`.
    pub mac: [u8; 6],
    /// Link address of its gateway.
    pub gateway_mac: [u8; 6],
    /// Last part of its addresses.
    pub host: u16,
    /// How it is connected.
    pub network: PodNetwork,
}

impl Pod {
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
}

/// Link address of the node's side of every routed pod: all pods see the same gateway.
const GATEWAY_MAC: [u8; 6] = [0xee; 6];

pub(super) struct Request<'a> {
    pub(super) name: &'a str,
    /// Unique in the bed.
    pub(super) number: u32,
    pub(super) host: u16,
    pub(super) network: PodNetwork,
    pub(super) mtu: u32,
}

/// Connects an empty namespace to a node.
pub(super) fn create(node: &Node, ns: Netns, request: &Request<'_>) -> Result<Pod> {
    let (index, host) = (node.index, request.host);
    // The number alone is unique; the name is for readers, as far as the kernel's 15 bytes allow.
    let mut link = format!("pod{}-{}", request.number, request.name);
    link.truncate(15);
    let digits = u16::from_str_radix(&host.to_string(), 16)?;
    let mut pod = Pod {
        name: request.name.to_owned(),
        node: node.name.clone(),
        ns,
        node_ns: node.ns.clone(),
        link,
        ifindex: 0,
        v4: Ipv4Addr::new(10, 244, index, u8::try_from(host)?),
        v6: Ipv6Addr::new(0xfd00, 0x10, 0x244, index.into(), 0, 0, 0, digits),
        mac: [0x02, 0x42, 0, 0, index, u8::try_from(host)?],
        gateway_mac: GATEWAY_MAC,
        host,
        network: request.network,
    };
    match request.network {
        PodNetwork::Routed => routed(&pod, request.mtu)?,
        PodNetwork::Bridge => {
            pod.gateway_mac = [0x0a, 0x58, 0x0a, 0xf4, index, 1];
            bridged(node, &pod, request.mtu)?;
        }
    }
    pod.ifindex = pod.node_ns.ifindex(&pod.link)?;
    Ok(pod)
}

fn routed(pod: &Pod, mtu: u32) -> Result<()> {
    let (link, gateway) = (&pod.link, mac_text(GATEWAY_MAC));
    // The pod's side first: with a route but without an address on eth0, the node could not reach the pod.
    pod.node_ns.ip([
        add_veth(pod, Some(GATEWAY_MAC), mtu),
        format!("addr add fe80::1/64 dev {link} nodad"),
        format!("link set {link} up"),
        format!("route add {}/32 dev {link}", pod.v4),
        format!("route add {}/128 dev {link}", pod.v6),
    ])?;
    pod.ns.ip([
        format!("addr add {}/32 dev eth0", pod.v4),
        format!("addr add {}/128 dev eth0 nodad", pod.v6),
        "link set eth0 up".to_owned(),
        "route add 169.254.1.1 dev eth0 scope link".to_owned(),
        format!("neigh add 169.254.1.1 lladdr {gateway} dev eth0 nud permanent"),
        format!("neigh add fe80::1 lladdr {gateway} dev eth0 nud permanent"),
        "route add default via 169.254.1.1 dev eth0".to_owned(),
        "route add default via fe80::1 dev eth0".to_owned(),
    ])
}

fn bridged(node: &Node, pod: &Pod, mtu: u32) -> Result<()> {
    let index = node.index;
    let (gateway4, gateway6) = (format!("10.244.{index}.1"), format!("fd00:10:244:{index:x}::1"));
    if node.ns.ifindex("cni0").is_err() {
        node.ns.ip([
            format!("link add cni0 address {} type bridge", mac_text(pod.gateway_mac)),
            format!("addr add {gateway4}/24 dev cni0"),
            format!("addr add {gateway6}/64 dev cni0 nodad"),
            "link set cni0 up".to_owned(),
        ])?;
    }
    let link = &pod.link;
    node.ns.ip([add_veth(pod, None, mtu), format!("link set {link} master cni0 up")])?;
    pod.ns.ip([
        format!("addr add {}/24 dev eth0", pod.v4),
        format!("addr add {}/64 dev eth0 nodad", pod.v6),
        "link set eth0 up".to_owned(),
        format!("route add default via {gateway4}"),
        format!("route add default via {gateway6}"),
    ])
}

/// Line of `ip` that makes both sides of the veth.
fn add_veth(pod: &Pod, mac: Option<[u8; 6]>, mtu: u32) -> String {
    let mac = mac.map(|m| format!("address {} ", mac_text(m))).unwrap_or_default();
    let (link, ns, pod_mac) = (&pod.link, pod.ns.name(), mac_text(pod.mac));
    format!("link add {link} {mac}mtu {mtu} type veth peer name eth0 address {pod_mac} mtu {mtu} netns {ns}")
}

fn mac_text(mac: [u8; 6]) -> String {
    mac.map(|byte| format!("{byte:02x}")).join(":")
}
