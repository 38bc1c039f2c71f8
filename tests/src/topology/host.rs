//! A host outside of the cluster, such as a user's or a load balancer.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use anyhow::Result;
use lbr_common::addr::Family;

use crate::netns::Netns;

/// The fabric's address for hosts.
pub(super) const GATEWAY_V4: Ipv4Addr = Ipv4Addr::new(192, 0, 2, 254);
/// The same for IPv6.
pub(super) const GATEWAY_V6: Ipv6Addr = Ipv6Addr::new(0x2001, 0xdb8, 2, 0, 0, 0, 0, 0xfe);
/// The bridge of the hosts, in the fabric.
pub(super) const BRIDGE: &str = "br1";

/// A host outside of the cluster. It knows only its gateway.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Host {
    /// Its name.
    pub name: String,
    /// Its namespace; the link in it is `eth0`.
    pub ns: Netns,
    /// Its address.
    pub v4: Ipv4Addr,
    /// Its address.
    pub v6: Ipv6Addr,
}

impl Host {
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

/// Connects an empty namespace to the fabric. `index` counts from 1.
pub(super) fn create(fabric: &Netns, ns: Netns, name: &str, index: u8, mtu: u32) -> Result<Host> {
    let v6 = Ipv6Addr::new(0x2001, 0xdb8, 2, 0, 0, 0, 0, index.into());
    let host = Host { name: name.to_owned(), ns, v4: Ipv4Addr::new(192, 0, 2, index), v6 };
    let link = format!("host{index}");
    fabric.ip([
        format!("link add {link} mtu {mtu} type veth peer name eth0 mtu {mtu} netns {}", host.ns.name()),
        format!("link set {link} master {BRIDGE} up"),
    ])?;
    host.ns.ip([
        format!("addr add {}/24 dev eth0", host.v4),
        format!("addr add {}/64 dev eth0 nodad", host.v6),
        "link set eth0 up".to_owned(),
        format!("route add default via {GATEWAY_V4}"),
        format!("route add default via {GATEWAY_V6}"),
    ])?;
    Ok(host)
}
