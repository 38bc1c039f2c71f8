//! Settings for Services from the command line.

use std::net::IpAddr;
use std::ops::RangeInclusive;

use ipnet::IpNet;

/// How Services are compiled. The defaults are those of the command line.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Settings {
    /// Addresses of the node that serve NodePorts; empty: its primary ones.
    pub nodeport_addresses: Vec<NodePortAddress>,
    /// Processes of the node do not reach NodePorts at loopback addresses.
    pub without_localhost_nodeports: bool,
    /// The node's primary address in one family, in place of the one in its Node object.
    pub node_ip: Option<IpAddr>,
    /// Blocks in which `externalIPs` are honoured.
    pub external_ips: Vec<IpNet>,
    /// The ephemeral ports of the node; `None`: not known.
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
