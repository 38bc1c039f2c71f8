//! What the command line says about Services.

use std::net::IpAddr;
use std::ops::RangeInclusive;

use ipnet::IpNet;

/// Settings that Services are compiled by. The default is that of the command line.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Settings {
    /// Addresses of the node that serve NodePorts; empty: its primary ones.
    pub nodeport_addresses: Vec<NodePortAddress>,
    /// The node's primary address in one family, whatever its Node object says.
    pub node_ip: Option<IpAddr>,
    /// Where `externalIPs` are honoured.
    pub external_ips: Vec<IpNet>,
    /// Ports that the kernel gives to sockets of the node; `None`: not known.
    pub ephemeral_ports: Option<RangeInclusive<u16>>,
    /// How many Maglev tables there may be; `None`: as many as maps of the default size have room for.
    pub maglev_tables: Option<usize>,
}

/// Which of the node's addresses serve NodePorts.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum NodePortAddress {
    /// The addresses that the Node object names first.
    Primary,
    /// Those in a block.
    Block(IpNet),
}
